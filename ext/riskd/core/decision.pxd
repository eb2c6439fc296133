"""The ladder of a pre-trade check."""

from libc.stdint cimport uint32_t, uint64_t

from riskd.core.book cimport Book
from riskd.core.money cimport i128
from riskd.core.types cimport AmendmentRequest, Order, OrderReply, OrderRequest

# What an accepted order puts on the books.
ctypedef struct Hold:
    uint32_t account_place
    bint is_limited                 # it meets limits
    bint counts                     # in their order rates, accepted or not
    long long quantity_lots         # 0 for one that closes what is open when it fills
    long long margin_price_ticks
    long long open_loss
    long long value
    i128 margin_added               # what the position adds to the pool beyond what it did
    bint keeps_sums                 # the account's sums are right with that added

cdef uint32_t check_order(
    const Book *book,
    const OrderRequest *order,
    uint64_t now_ns,
    bint takes_room,
    OrderReply *reply,
    Hold *hold,
) noexcept nogil
cdef uint32_t check_amendment(
    const Book *book,
    const AmendmentRequest *amendment,
    const Order *replaced,
    uint64_t now_ns,
    OrderReply *reply,
    Hold *hold,
) noexcept nogil
cdef void max_order_lots(
    const Book *book, const OrderRequest *order, uint64_t now_ns, uint64_t *lots, uint32_t *reason
) noexcept nogil
