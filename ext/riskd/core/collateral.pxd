"""What balances of other assets count as collateral."""

from libc.stdint cimport int64_t, uint32_t

from riskd.core.book cimport Book
from riskd.core.money cimport i128
from riskd.core.types cimport Account, Collateral, Instrument

cdef inline bint is_foreign(const Account *account, const Instrument *instrument) noexcept nogil:
    """Whether an instrument is settled in another asset than an account."""
    return account.asset_id != instrument.asset_id

cdef inline bint may_trade(
    const Book *book, const Account *account, const Instrument *instrument
) noexcept nogil:
    """F-14."""
    return not is_foreign(account, instrument)

cdef i128 collateral_value_of(
    const Collateral *collateral, int64_t balance, int64_t price
) noexcept nogil
cdef i128 requirement_value_of(
    const Collateral *collateral, i128 requirement, int64_t price
) noexcept nogil
cdef uint32_t define_collateral(Book *book, row, bint validate_only) except 0
