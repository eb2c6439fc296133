"""One hot request in, one reply out, on one book."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from riskd.core.book cimport Book
from riskd.core.permits cimport Caller
from riskd.core.types cimport Order
from riskd.core.wire cimport Malformed, Writer

cdef enum HotMethod:
    HOT_CHECK_ORDER = 1
    HOT_REPORT_EXECUTION = 2
    HOT_GET_RESERVATION = 3
    HOT_REPORT_MARKS = 4
    HOT_CHECK_AMENDMENT = 5
    HOT_BATCH_CHECK_ORDERS = 6
    HOT_ADVANCE_TIME = 7

cdef enum ApplyVerdict:
    # Zero is never a verdict.
    APPLY_ANSWERED = 1
    APPLY_MALFORMED = 2
    APPLY_DENIED = 3

cdef enum:
    # The largest reply: 64 explained decisions of at most 3 KiB each.
    REPLY_SIZE_MAX = 196608

cdef void release_order(Book *book, Order *order) noexcept nogil
# Take one hot request to its reply. Without a caller everything is permitted.
cdef uint32_t engine_apply(
    Book *book,
    uint32_t method,
    const uint8_t *request,
    size_t size,
    uint64_t now_ns,
    Caller *caller,
    Writer *writer,
    Malformed *malformed,
) noexcept nogil
