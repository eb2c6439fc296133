"""What balances of other assets count as collateral."""

from libc.stdint cimport int64_t, uint32_t

from riskd.core.book cimport Book
from riskd.core.money cimport i128
from riskd.core.types cimport Collateral

cdef i128 collateral_value_of(
    const Collateral *collateral, int64_t balance, int64_t price
) noexcept nogil
cdef uint32_t define_collateral(Book *book, row, bint validate_only) except 0
