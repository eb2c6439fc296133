"""What balances of other assets count as collateral."""

from libc.stdint cimport int64_t, uint32_t

from riskd.core.book cimport Book, collateral_find
from riskd.core.money cimport i128
from riskd.core.types cimport NOWHERE, Account, Collateral, Instrument
from riskd.core.value cimport is_spot

cdef inline bint is_foreign(const Account *account, const Instrument *instrument) noexcept nogil:
    """Whether an instrument is settled in another asset than an account."""
    return account.asset_id != instrument.asset_id

cdef inline bint may_trade(
    const Book *book, const Account *account, const Instrument *instrument
) noexcept nogil:
    """F-14: what is settled in another asset is for accounts that count the asset as collateral,
    and whose money nobody else's sums or limits look at.
    """
    return not is_foreign(account, instrument) or (
        not is_spot(instrument)
        and account.firm == NOWHERE
        and account.parent == NOWHERE
        and account.sub_accounts == 0
        and account.limit_count == 0
        and collateral_find(book, instrument.asset_id, account.asset_id) != NULL
    )

cdef i128 collateral_value_of(
    const Collateral *collateral, int64_t balance, int64_t price
) noexcept nogil
cdef i128 converted_up(
    const Collateral *collateral, i128 amount, int64_t price
) noexcept nogil
cdef uint32_t define_collateral(Book *book, row, bint validate_only) except 0
