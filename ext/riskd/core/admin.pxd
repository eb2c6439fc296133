"""Changes from outside the hot door.

Collateral, margin transfers, modes, leverage, leases, trading states.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.book cimport Book
from riskd.core.pool cimport Pool
from riskd.core.types cimport Account, Instrument, Order

cdef enum Scope:
    SCOPE_SERVICE = 1
    SCOPE_GATEWAY = 2
    SCOPE_ACCOUNT = 3
    SCOPE_INSTRUMENT = 4
    SCOPE_FIRM = 5

# What a change comes to: two figures whose meaning is the change's.
ctypedef struct Change:
    int64_t figure
    int64_t available

# Which working orders are meant: those that fit everything that is not 0.
ctypedef struct OrderFilter:
    uint64_t accepted_before_ns
    uint64_t account_id
    uint32_t gateway_id
    uint32_t instrument_id
    uint32_t side

cdef enum:
    # Orders to keep, and orders that are listed, of a mass cancel.
    CANCEL_IDS_MAX = 10000

cdef int64_t available_or_zero(const Pool *pool) noexcept nogil
cdef bint covers_margin(const Pool *pool) noexcept nogil
cdef uint32_t target_find(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    Account **account,
    Instrument **instrument,
) noexcept nogil
cdef bint is_engaged(
    const Book *book, const Account *account, uint32_t instrument_id
) noexcept nogil

cdef uint32_t adjust_collateral(
    Book *book,
    uint64_t account_id,
    uint32_t asset_id,
    int64_t amount,
    bint validate_only,
    uint64_t now_ns,
    Change *change,
) noexcept nogil
cdef uint32_t transfer_margin(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    int64_t amount,
    bint validate_only,
    uint64_t now_ns,
    uint32_t position_side,
    Change *change,
) noexcept nogil
cdef uint32_t set_leverage(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    int64_t leverage,
    bint validate_only,
    uint64_t now_ns,
    Change *change,
) noexcept nogil
cdef uint32_t set_position_mode(
    Book *book, uint64_t account_id, uint32_t position_mode
) noexcept nogil
cdef uint32_t renew_lease(
    Book *book, uint64_t gateway_id, uint64_t duration_ns, uint32_t action, uint64_t now_ns
) noexcept nogil
cdef uint32_t check_filter(Book *book, const OrderFilter *wanted) noexcept nogil
cdef bint filter_takes(
    const Book *book, const OrderFilter *wanted, const Order *order
) noexcept nogil
cdef uint32_t set_trading_state(
    Book *book, uint32_t scope, uint64_t scope_id, uint32_t state
) noexcept nogil
