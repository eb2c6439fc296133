"""Protobuf wire codec of the hot messages.

A two-field cursor over hostile bytes, a writer into a bounded buffer.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from riskd.core.histogram cimport Timer
from riskd.core.types cimport (
    AmendmentRequest,
    BatchRequest,
    ExecutionReply,
    ExecutionRequest,
    MarkReport,
    OrderReply,
    OrderRequest,
    ReservationRequest,
)

# Why bytes are not a message; `field` is the field's number, 0 where there is none.
cdef enum Fault:
    FAULT_NONE = 0
    FAULT_TRUNCATED = 1
    FAULT_UNKNOWN_FIELD = 2
    FAULT_WIRE_TYPE = 3
    FAULT_VARINT_TOO_LONG = 4
    FAULT_OUT_OF_RANGE = 5
    FAULT_TOO_MANY = 6
    FAULT_EMPTY = 7
    FAULT_NOT_ALONE = 8

ctypedef struct Malformed:
    uint32_t fault
    uint32_t field

ctypedef struct Cursor:
    const uint8_t *next
    size_t remaining

ctypedef struct Writer:
    uint8_t *start
    size_t size
    size_t capacity
    # What is told how long a reply takes to encode, or NULL.
    Timer *timer

ctypedef struct MarkRefusal:
    uint32_t index
    uint32_t reason

cdef enum:
    MALFORMED_TEXT_SIZE = 128

# Say what is wrong, for a person; at most MALFORMED_TEXT_SIZE with the zero at the end.
cdef void malformed_text(const Malformed *malformed, char *text) noexcept nogil

cdef bint decode_order(
    const uint8_t *start, size_t size, OrderRequest *order, Malformed *malformed
) noexcept nogil
cdef bint decode_batch(
    const uint8_t *start, size_t size, BatchRequest *batch, Malformed *malformed
) noexcept nogil
cdef bint decode_amendment(
    const uint8_t *start, size_t size, AmendmentRequest *amendment, Malformed *malformed
) noexcept nogil
cdef bint decode_execution(
    const uint8_t *start, size_t size, ExecutionRequest *execution, Malformed *malformed
) noexcept nogil
cdef bint decode_empty(const uint8_t *start, size_t size, Malformed *malformed) noexcept nogil
cdef bint decode_reservation(
    const uint8_t *start, size_t size, ReservationRequest *request, Malformed *malformed
) noexcept nogil
cdef bint decode_marks(
    const uint8_t *start,
    size_t size,
    MarkReport *marks,
    uint32_t capacity,
    uint32_t *count,
    Malformed *malformed,
) noexcept nogil
# The one field of a StreamOrdersRequest: its number and its bytes.
cdef bint decode_streamed(
    const uint8_t *start,
    size_t size,
    uint32_t *field,
    const uint8_t **request,
    size_t *request_size,
    Malformed *malformed,
) noexcept nogil

cdef void encode_order_reply(Writer *writer, const OrderReply *reply) noexcept nogil
cdef void encode_amendment_reply(Writer *writer, const OrderReply *reply) noexcept nogil
cdef void encode_execution_reply(Writer *writer, const ExecutionReply *reply) noexcept nogil
cdef void encode_marks_reply(
    Writer *writer, uint64_t revision, uint32_t taken, const MarkRefusal *refusals, uint32_t refused
) noexcept nogil

cdef Writer inner_writer(uint8_t *buffer, size_t capacity) noexcept nogil
cdef void message_at(const Writer *outer, Writer *message) noexcept nogil
cdef void write_unsigned(Writer *writer, uint32_t field, uint64_t value) noexcept nogil
cdef void write_signed(Writer *writer, uint32_t field, int64_t value) noexcept nogil
cdef void write_bytes(
    Writer *writer, uint32_t field, const uint8_t *start, size_t size
) noexcept nogil
