"""Positions that change without an order: loaded, funded, settled."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.admin cimport Change
from riskd.core.book cimport Book
from riskd.core.money cimport i128
from riskd.core.pool cimport Fill, Terms

# What funding came to.
ctypedef struct Funding:
    uint64_t positions
    i128 paid
    i128 received
    uint64_t rows                   # of balances, that are not there yet

# What the settlement of an instrument came to.
ctypedef struct Settlement:
    uint64_t positions
    i128 profit
    i128 loss
    i128 deficit
    uint64_t rows                   # of balances, that are not there yet

cdef uint32_t load_position(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    uint32_t position_side,
    int64_t lots,
    int64_t entry_value,
    int64_t wallet,
    bint validate_only,
    uint64_t now_ns,
    Change *change,
) noexcept nogil
cdef uint32_t apply_funding(
    Book *book,
    uint32_t instrument_id,
    int64_t rate_ppb,
    int64_t price,
    uint64_t time_ns,
    bint validate_only,
    uint64_t now_ns,
    Funding *funding,
) noexcept nogil
cdef uint32_t check_settlement(
    Book *book,
    uint32_t instrument_id,
    int64_t price,
    uint64_t now_ns,
    Settlement *settlement,
) noexcept nogil
cdef void settle_positions(
    Book *book, uint32_t instrument_id, int64_t price, uint64_t now_ns
) noexcept nogil
cdef void settle_fill(const Terms *terms, Fill *fill) noexcept nogil
