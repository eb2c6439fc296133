"""Protobuf wire codec of the hot messages of proto/riskd/v1.

Read strictly: a field that is not in the contract, a wrong wire type, a truncated or overlong value
or a number outside its type's range makes the whole message malformed. Enum numbers that are not
known are left to the engine, which refuses them with a reason. As protobuf says, the last of a
repeated singular field counts.

Written as protobuf writes it: fields in rising order of number, zero values left out, so that
any protobuf library writes the same bytes.
"""

from libc.stdint cimport INT32_MAX, UINT32_MAX, UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from riskd.core.histogram cimport timer_begin, timer_encoded
from riskd.core.money cimport debug_assert
from riskd.core.types cimport (
    BATCH_MODE_ALL_OR_NONE,
    MARKS_PER_REPORT_MAX,
    ORDERS_PER_BATCH_MAX,
    AmendmentRequest,
    BatchRequest,
    DecisionDetail,
    ExecutionReply,
    ExecutionRequest,
    GreeksPico,
    MarkReport,
    OrderReply,
    OrderRequest,
    ReservationRequest,
    Violation,
)

cdef extern from "core.h" nogil:
    void clear "riskd_clear"(void *object, size_t size) noexcept
    size_t varint_read "riskd_varint_read"(const uint8_t *bytes, uint64_t *value) noexcept
    size_t varint_write "riskd_varint_write"(uint8_t *bytes, uint64_t value) noexcept

cdef enum:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2
    # A tag of one byte and the longest varint.
    FIELD_ROOM = 11


# --- cursor ----------------------------------------------------------------------------------

cdef inline bint _fail(Malformed *malformed, Fault fault, uint32_t field) noexcept nogil:
    malformed.fault = fault
    malformed.field = field
    return False


cdef inline bint _take(Cursor *cursor, size_t count, const uint8_t **taken) noexcept nogil:
    """The only place that moves the cursor."""
    if count > cursor.remaining:
        return False
    taken[0] = cursor.next
    cursor.next += count
    cursor.remaining -= count
    return True


cdef inline bint _varint(
    Cursor *cursor, uint64_t *value, Malformed *malformed, uint32_t field
) noexcept nogil:
    cdef const uint8_t *bytes_
    cdef size_t size
    if cursor.remaining >= 8:
        if cursor.next[0] < 0x80:
            value[0] = cursor.next[0]
            return _take(cursor, 1, &bytes_)
        size = varint_read(cursor.next, value)
        if size != 0:
            return _take(cursor, size, &bytes_)
    return _varint_by_byte(cursor, value, malformed, field)


cdef bint _varint_by_byte(
    Cursor *cursor, uint64_t *value, Malformed *malformed, uint32_t field
) noexcept nogil:
    """Read one that is near the end, or of 9 or 10 bytes."""
    cdef const uint8_t *byte
    cdef uint64_t bits = 0
    cdef uint32_t shift = 0
    while shift < 70:
        if not _take(cursor, 1, &byte):
            return _fail(malformed, FAULT_TRUNCATED, field)
        if shift == 63 and byte[0] > 1:
            return _fail(malformed, FAULT_VARINT_TOO_LONG, field)
        bits |= <uint64_t>(byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            value[0] = bits
            return True
        shift += 7
    return _fail(malformed, FAULT_VARINT_TOO_LONG, field)


cdef inline bint _short_varint(
    Cursor *cursor, uint64_t *value, Malformed *malformed, uint32_t field
) noexcept nogil:
    """Read one of a tag or a length, which has 32 bits and, as protobuf has it, at most 5 bytes."""
    cdef size_t before = cursor.remaining
    if not _varint(cursor, value, malformed, field):
        return False
    if before - cursor.remaining > 5:
        return _fail(malformed, FAULT_VARINT_TOO_LONG, field)
    return True


cdef inline bint _tag(
    Cursor *cursor, uint32_t *field, uint32_t *wire_type, Malformed *malformed
) noexcept nogil:
    cdef uint64_t tag
    if not _short_varint(cursor, &tag, malformed, 0):
        return False
    if tag >> 3 == 0 or tag > UINT32_MAX:
        return _fail(malformed, FAULT_UNKNOWN_FIELD, 0)
    field[0] = <uint32_t>(tag >> 3)
    wire_type[0] = <uint32_t>(tag & 7)
    return True


cdef inline bint _enum(
    Cursor *cursor, uint32_t wire_type, uint32_t *value, Malformed *malformed, uint32_t field
) noexcept nogil:
    cdef uint64_t wide
    if wire_type != WIRE_VARINT:
        return _fail(malformed, FAULT_WIRE_TYPE, field)
    if not _varint(cursor, &wide, malformed, field):
        return False
    if wide > INT32_MAX:
        return _fail(malformed, FAULT_OUT_OF_RANGE, field)
    value[0] = <uint32_t>wide
    return True


cdef inline bint _message(
    Cursor *cursor,
    uint32_t wire_type,
    const uint8_t **start,
    uint64_t *size,
    Malformed *malformed,
    uint32_t field,
) noexcept nogil:
    """Take the bytes of a message inside a message."""
    if wire_type != WIRE_BYTES:
        return _fail(malformed, FAULT_WIRE_TYPE, field)
    if not _short_varint(cursor, size, malformed, field):
        return False
    if not _take(cursor, size[0], start):
        return _fail(malformed, FAULT_TRUNCATED, field)
    return True


cdef const char *_fault_text(uint32_t fault) noexcept nogil:
    if fault == FAULT_TRUNCATED:
        return "is truncated"
    if fault == FAULT_UNKNOWN_FIELD:
        return "is not a field of the message"
    if fault == FAULT_WIRE_TYPE:
        return "has the wrong wire type"
    if fault == FAULT_VARINT_TOO_LONG:
        return "is a varint of more bytes than it may have"
    if fault == FAULT_OUT_OF_RANGE:
        return "is outside the range of its type"
    if fault == FAULT_NOT_ALONE:
        return "comes after another: a message of a stream has one"
    debug_assert(fault == FAULT_EMPTY)
    return "is missing: at least one is needed"


cdef void malformed_text(const Malformed *malformed, char *text) noexcept nogil:
    cdef char name[24]
    if malformed.field == 0:
        snprintf(name, sizeof(name), "field number")
    else:
        snprintf(name, sizeof(name), "field %u", malformed.field)
    if malformed.fault == FAULT_TOO_MANY:
        snprintf(
            text,
            MALFORMED_TEXT_SIZE,
            "%s is repeated too often: at most %d marks or %d orders",
            name,
            <int>MARKS_PER_REPORT_MAX,
            <int>ORDERS_PER_BATCH_MAX,
        )
    else:
        snprintf(text, MALFORMED_TEXT_SIZE, "%s %s", name, _fault_text(malformed.fault))


# --- decode ----------------------------------------------------------------------------------
#
# What a message of scalars looks like is a table: of each field by its number where its value goes,
# and how it is read.

cdef enum:
    # The highest number of a field.
    FIELDS_MAX = 18

cdef enum Kind:
    KIND_UINT64 = 1
    KIND_UINT32 = 2
    KIND_ENUM = 3
    KIND_SINT64 = 4
    KIND_FIXED64 = 5

ctypedef struct Field:
    uint64_t largest                # of what is on the wire
    uint32_t offset
    uint8_t tag                     # number and wire type; 0 = there is no such field
    uint8_t is_zigzag
    uint8_t is_fixed
    uint8_t is_wide                 # 8 bytes in the struct, else 4

ctypedef struct Message:
    Field fields[FIELDS_MAX + 1]

cdef Message ORDER
cdef Message AMENDMENT
cdef Message EXECUTION
cdef Message RESERVATION
cdef Message MARK


cdef void _field(
    Message *message, uint32_t number, Kind kind, const void *struct_, const void *member
) noexcept:
    cdef Field *field = &message.fields[number]
    field.offset = <uint32_t>(<const char *>member - <const char *>struct_)
    field.is_zigzag = kind == KIND_SINT64
    field.is_fixed = kind == KIND_FIXED64
    field.is_wide = kind != KIND_UINT32 and kind != KIND_ENUM
    field.tag = <uint8_t>(number << 3 | <uint32_t>(WIRE_FIXED64 if field.is_fixed else WIRE_VARINT))
    field.largest = UINT64_MAX
    if kind == KIND_UINT32:
        field.largest = UINT32_MAX
    elif kind == KIND_ENUM:
        field.largest = INT32_MAX


cdef void _describe_messages() noexcept:
    """Fill in the tables, once at import."""
    cdef OrderRequest order
    cdef AmendmentRequest amendment
    cdef ExecutionRequest execution
    cdef ReservationRequest reservation
    cdef MarkReport mark
    _field(&ORDER, 1, KIND_UINT64, &order, &order.account_id)
    _field(&ORDER, 2, KIND_UINT32, &order, &order.instrument_id)
    _field(&ORDER, 3, KIND_FIXED64, &order, &order.client_order_id)
    _field(&ORDER, 4, KIND_ENUM, &order, &order.side)
    _field(&ORDER, 5, KIND_ENUM, &order, &order.order_type)
    _field(&ORDER, 6, KIND_ENUM, &order, &order.time_in_force)
    _field(&ORDER, 7, KIND_ENUM, &order, &order.margin_mode)
    _field(&ORDER, 8, KIND_SINT64, &order, &order.price_ticks)
    _field(&ORDER, 9, KIND_UINT64, &order, &order.quantity_lots)
    _field(&ORDER, 10, KIND_UINT32, &order, &order.flags)
    _field(&ORDER, 11, KIND_UINT32, &order, &order.gateway_id)
    _field(&ORDER, 12, KIND_FIXED64, &order, &order.sent_time_ns)
    _field(&ORDER, 13, KIND_ENUM, &order, &order.mode)
    _field(&ORDER, 14, KIND_ENUM, &order, &order.view)
    _field(&ORDER, 15, KIND_ENUM, &order, &order.position_side)
    _field(&ORDER, 16, KIND_SINT64, &order, &order.trigger_price_ticks)
    _field(&ORDER, 17, KIND_SINT64, &order, &order.trailing_offset_ticks)
    _field(&ORDER, 18, KIND_FIXED64, &order, &order.expire_time_ns)
    _field(&AMENDMENT, 1, KIND_UINT32, &amendment, &amendment.gateway_id)
    _field(&AMENDMENT, 2, KIND_UINT64, &amendment, &amendment.reservation_id)
    _field(&AMENDMENT, 3, KIND_FIXED64, &amendment, &amendment.client_order_id)
    _field(&AMENDMENT, 4, KIND_SINT64, &amendment, &amendment.price_ticks)
    _field(&AMENDMENT, 5, KIND_UINT64, &amendment, &amendment.quantity_lots)
    _field(&AMENDMENT, 6, KIND_FIXED64, &amendment, &amendment.sent_time_ns)
    _field(&AMENDMENT, 7, KIND_ENUM, &amendment, &amendment.view)
    _field(&AMENDMENT, 8, KIND_SINT64, &amendment, &amendment.trigger_price_ticks)
    _field(&AMENDMENT, 9, KIND_SINT64, &amendment, &amendment.trailing_offset_ticks)
    _field(&EXECUTION, 1, KIND_UINT32, &execution, &execution.gateway_id)
    _field(&EXECUTION, 2, KIND_FIXED64, &execution, &execution.execution_id)
    _field(&EXECUTION, 3, KIND_UINT64, &execution, &execution.reservation_id)
    _field(&EXECUTION, 4, KIND_ENUM, &execution, &execution.kind)
    _field(&EXECUTION, 5, KIND_SINT64, &execution, &execution.price_ticks)
    _field(&EXECUTION, 6, KIND_UINT64, &execution, &execution.quantity_lots)
    _field(&EXECUTION, 7, KIND_SINT64, &execution, &execution.fee_minor)
    _field(&EXECUTION, 8, KIND_FIXED64, &execution, &execution.venue_time_ns)
    _field(&EXECUTION, 9, KIND_UINT32, &execution, &execution.instrument_id)
    _field(&EXECUTION, 10, KIND_FIXED64, &execution, &execution.original_execution_id)
    _field(&EXECUTION, 11, KIND_UINT32, &execution, &execution.fee_asset_id)
    _field(&RESERVATION, 1, KIND_UINT64, &reservation, &reservation.reservation_id)
    _field(&RESERVATION, 2, KIND_UINT32, &reservation, &reservation.gateway_id)
    _field(&RESERVATION, 3, KIND_FIXED64, &reservation, &reservation.client_order_id)
    _field(&MARK, 1, KIND_UINT32, &mark, &mark.instrument_id)
    _field(&MARK, 2, KIND_SINT64, &mark, &mark.price)
    _field(&MARK, 3, KIND_FIXED64, &mark, &mark.time_ns)
    _field(&MARK, 4, KIND_UINT64, &mark, &mark.volatility_ppb)
    _field(&MARK, 5, KIND_SINT64, &mark, &mark.forward)


_describe_messages()


cdef inline void _store(const Field *field, uint64_t value, void *target) noexcept nogil:
    cdef void *member = <char *>target + field.offset
    if field.is_wide:
        # Zigzag: 0, -1, 1, -2, ...
        (<uint64_t *>member)[0] = (value >> field.is_zigzag) ^ (~(value & field.is_zigzag) + 1)
    else:
        (<uint32_t *>member)[0] = <uint32_t>value


cdef inline bint _read_usual(
    const Message *message, Cursor *cursor, void *target
) noexcept nogil:
    """Read a field as almost all are: right, its tag of one byte, more bytes after it.

    False if it is not, and then nothing has happened.
    """
    cdef const Field *field
    cdef const uint8_t *unused
    cdef uint64_t value
    cdef size_t size = 9
    if cursor.remaining < 9 or cursor.next[0] >= 0x80:
        return False
    field = &message.fields[cursor.next[0] >> 3]
    if field.tag != cursor.next[0] or field.tag == 0:
        return False
    if field.is_fixed:
        memcpy(&value, cursor.next + 1, 8)
    elif cursor.next[1] < 0x80:
        value = cursor.next[1]
        size = 2
    else:
        size = 1 + varint_read(cursor.next + 1, &value)
    if size == 1 or value > field.largest:
        return False
    _store(field, value, target)
    return _take(cursor, size, &unused)


cdef bint _read_field(
    const Message *message, Cursor *cursor, void *target, Malformed *malformed
) noexcept nogil:
    """Read any field, or say what is wrong with it."""
    cdef uint32_t number, wire_type
    cdef const Field *field
    cdef const uint8_t *bytes_
    cdef uint64_t value
    if not _tag(cursor, &number, &wire_type, malformed):
        return False
    if number > FIELDS_MAX or message.fields[number].tag == 0:
        return _fail(malformed, FAULT_UNKNOWN_FIELD, number)
    field = &message.fields[number]
    if (number << 3 | wire_type) != field.tag:
        return _fail(malformed, FAULT_WIRE_TYPE, number)
    if not field.is_fixed:
        if not _varint(cursor, &value, malformed, number):
            return False
    elif _take(cursor, 8, &bytes_):
        memcpy(&value, bytes_, 8)
    else:
        return _fail(malformed, FAULT_TRUNCATED, number)
    if value > field.largest:
        return _fail(malformed, FAULT_OUT_OF_RANGE, number)
    _store(field, value, target)
    return True


cdef bint _decode(
    const Message *message, const uint8_t *start, size_t size, void *target, Malformed *malformed
) noexcept nogil:
    """Read a message of scalars into a struct of zeros."""
    cdef Cursor cursor, rest
    cursor.next = start
    cursor.remaining = size
    while cursor.remaining > 0:
        if _read_usual(message, &cursor, target):
            continue
        # A copy, so that the address of the other is nobody's and it stays in registers.
        rest = cursor
        if not _read_field(message, &rest, target, malformed):
            return False
        cursor = rest
    return True


cdef bint decode_order(
    const uint8_t *start, size_t size, OrderRequest *order, Malformed *malformed
) noexcept nogil:
    clear(order, sizeof(OrderRequest))
    return _decode(&ORDER, start, size, order, malformed)


cdef bint decode_batch(
    const uint8_t *start, size_t size, BatchRequest *batch, Malformed *malformed
) noexcept nogil:
    cdef Cursor cursor
    cdef const uint8_t *order
    cdef uint32_t field, wire_type
    cdef uint64_t length
    cursor.next = start
    cursor.remaining = size
    batch.count = 0
    batch.mode = 0
    while cursor.remaining > 0:
        if not _tag(&cursor, &field, &wire_type, malformed):
            return False
        if field == 1:
            if not _enum(&cursor, wire_type, &batch.mode, malformed, field):
                return False
            continue
        if field != 2:
            return _fail(malformed, FAULT_UNKNOWN_FIELD, field)
        if not _message(&cursor, wire_type, &order, &length, malformed, field):
            return False
        if batch.count == ORDERS_PER_BATCH_MAX:
            return _fail(malformed, FAULT_TOO_MANY, field)
        if not decode_order(order, length, &batch.orders[batch.count], malformed):
            return False
        batch.count += 1
    if batch.mode > BATCH_MODE_ALL_OR_NONE:
        return _fail(malformed, FAULT_OUT_OF_RANGE, 1)
    if batch.count == 0:
        return _fail(malformed, FAULT_EMPTY, 2)
    return True


cdef bint decode_amendment(
    const uint8_t *start, size_t size, AmendmentRequest *amendment, Malformed *malformed
) noexcept nogil:
    clear(amendment, sizeof(AmendmentRequest))
    return _decode(&AMENDMENT, start, size, amendment, malformed)


cdef bint decode_execution(
    const uint8_t *start, size_t size, ExecutionRequest *execution, Malformed *malformed
) noexcept nogil:
    clear(execution, sizeof(ExecutionRequest))
    return _decode(&EXECUTION, start, size, execution, malformed)


cdef bint decode_empty(const uint8_t *start, size_t size, Malformed *malformed) noexcept nogil:
    """Take a message without fields."""
    cdef Cursor cursor
    cdef uint32_t field, wire_type
    cursor.next = start
    cursor.remaining = size
    if size == 0:
        return True
    if not _tag(&cursor, &field, &wire_type, malformed):
        return False
    return _fail(malformed, FAULT_UNKNOWN_FIELD, field)


cdef bint decode_reservation(
    const uint8_t *start, size_t size, ReservationRequest *request, Malformed *malformed
) noexcept nogil:
    clear(request, sizeof(ReservationRequest))
    return _decode(&RESERVATION, start, size, request, malformed)


cdef bint decode_marks(
    const uint8_t *start,
    size_t size,
    MarkReport *marks,
    uint32_t capacity,
    uint32_t *count,
    Malformed *malformed,
) noexcept nogil:
    cdef Cursor cursor
    cdef const uint8_t *mark
    cdef uint32_t field, wire_type
    cdef uint64_t length
    cursor.next = start
    cursor.remaining = size
    count[0] = 0
    while cursor.remaining > 0:
        if not _tag(&cursor, &field, &wire_type, malformed):
            return False
        if field != 1:
            return _fail(malformed, FAULT_UNKNOWN_FIELD, field)
        if not _message(&cursor, wire_type, &mark, &length, malformed, field):
            return False
        if count[0] == capacity:
            return _fail(malformed, FAULT_TOO_MANY, field)
        clear(&marks[count[0]], sizeof(MarkReport))
        if not _decode(&MARK, mark, length, &marks[count[0]], malformed):
            return False
        count[0] += 1
    if count[0] == 0:
        return _fail(malformed, FAULT_EMPTY, 1)
    return True


cdef bint decode_streamed(
    const uint8_t *start,
    size_t size,
    uint32_t *field,
    const uint8_t **request,
    size_t *request_size,
    Malformed *malformed,
) noexcept nogil:
    cdef Cursor cursor
    cdef uint32_t wire_type
    cdef uint64_t length
    cursor.next = start
    cursor.remaining = size
    if size == 0:
        return _fail(malformed, FAULT_EMPTY, 0)
    if not _tag(&cursor, field, &wire_type, malformed):
        return False
    if field[0] > 3:
        return _fail(malformed, FAULT_UNKNOWN_FIELD, field[0])
    if not _message(&cursor, wire_type, request, &length, malformed, field[0]):
        return False
    request_size[0] = length
    if cursor.remaining == 0:
        return True
    if not _tag(&cursor, field, &wire_type, malformed):
        return False
    return _fail(malformed, FAULT_NOT_ALONE, field[0])


# --- encode ----------------------------------------------------------------------------------

cdef inline void _write_varint(Writer *writer, uint64_t value) noexcept nogil:
    # A caller's buffer holds the largest reply: running over is our own mistake, and stops short of
    # the end.
    debug_assert(writer.size + 10 <= writer.capacity)
    if writer.size + 10 > writer.capacity:
        return
    while value >= 0x80:
        writer.start[writer.size] = <uint8_t>(value | 0x80)
        writer.size += 1
        value >>= 7
    writer.start[writer.size] = <uint8_t>value
    writer.size += 1


cdef void write_unsigned(Writer *writer, uint32_t field, uint64_t value) noexcept nogil:
    if value == 0:
        return
    _write_varint(writer, field << 3 | WIRE_VARINT)
    _write_varint(writer, value)


cdef inline uint64_t _zigzag(int64_t value) noexcept nogil:
    return (<uint64_t>value << 1) ^ (~(<uint64_t>value >> 63) + 1)


cdef void write_signed(Writer *writer, uint32_t field, int64_t value) noexcept nogil:
    write_unsigned(writer, field, _zigzag(value))


cdef inline void _write_fixed64(Writer *writer, uint32_t field, uint64_t value) noexcept nogil:
    if value == 0:
        return
    _write_varint(writer, field << 3 | WIRE_FIXED64)
    debug_assert(writer.size + 8 <= writer.capacity)
    if writer.size + 8 > writer.capacity:
        return
    memcpy(writer.start + writer.size, &value, 8)
    writer.size += 8


cdef void write_bytes(
    Writer *writer, uint32_t field, const uint8_t *start, size_t size
) noexcept nogil:
    """Write a length-delimited field, also an empty one."""
    _write_varint(writer, field << 3 | WIRE_BYTES)
    _write_varint(writer, size)
    debug_assert(writer.size + size <= writer.capacity)
    if writer.size + size > writer.capacity:
        return
    memcpy(writer.start + writer.size, start, size)
    writer.size += size


cdef Writer inner_writer(uint8_t *buffer, size_t capacity) noexcept nogil:
    cdef Writer inner
    inner.start = buffer
    inner.size = 0
    inner.capacity = capacity
    inner.timer = NULL
    return inner


cdef void message_at(const Writer *outer, Writer *message) noexcept nogil:
    """Move to the next message that was written into another, each with a tag of one byte.

    Begin with an empty message at the start of the other.
    """
    cdef uint8_t *next = message.start + message.size + 1
    cdef size_t size = 0
    cdef uint32_t shift = 0
    debug_assert(next > outer.start and next < outer.start + outer.size)
    while next[0] >= 0x80:
        size |= <size_t>(next[0] & 0x7F) << shift
        shift += 7
        next += 1
    size |= <size_t>next[0] << shift
    message.start = next + 1
    message.size = size


cdef void _write_greeks(Writer *writer, uint32_t field, const GreeksPico *greeks) noexcept nogil:
    cdef uint8_t buffer[96]
    cdef Writer inner = inner_writer(buffer, sizeof(buffer))
    write_signed(&inner, 1, greeks.price)
    write_signed(&inner, 2, greeks.delta)
    write_signed(&inner, 3, greeks.gamma)
    write_signed(&inner, 4, greeks.vega_per_vol_point)
    write_signed(&inner, 5, greeks.theta_per_day)
    write_signed(&inner, 6, greeks.rho_per_point)
    write_bytes(writer, field, inner.start, inner.size)


cdef void _write_violation(
    Writer *writer, uint32_t field, const Violation *violation
) noexcept nogil:
    cdef uint8_t buffer[64]
    cdef Writer inner = inner_writer(buffer, sizeof(buffer))
    write_unsigned(&inner, 1, violation.reason)
    write_signed(&inner, 2, violation.limit)
    write_signed(&inner, 3, violation.use)
    write_signed(&inner, 4, violation.order_use)
    write_unsigned(&inner, 5, violation.scope)
    write_unsigned(&inner, 6, violation.scope_id)
    write_unsigned(&inner, 7, <uint64_t>violation.soft)
    write_unsigned(&inner, 8, <uint64_t>violation.in_lots)
    write_bytes(writer, field, inner.start, inner.size)


cdef void _write_detail(
    Writer *writer, uint32_t field, const DecisionDetail *detail
) noexcept nogil:
    cdef uint8_t buffer[2048]
    cdef uint32_t index
    cdef Writer inner = inner_writer(buffer, sizeof(buffer))
    write_signed(&inner, 1, detail.initial_margin)
    write_signed(&inner, 2, detail.maintenance_margin)
    write_signed(&inner, 3, detail.unrealised_pnl)
    write_signed(&inner, 4, detail.equity)
    write_signed(&inner, 5, detail.margin_ratio_ppm)
    write_signed(&inner, 6, detail.bankruptcy_price_ticks)
    write_signed(&inner, 7, detail.position_lots)
    write_signed(&inner, 8, detail.mark_price)
    _write_fixed64(&inner, 9, detail.mark_time_ns)
    write_unsigned(&inner, 10, detail.schedule_version)
    write_unsigned(&inner, 11, detail.tier_index)
    write_unsigned(&inner, 12, detail.leverage)
    if detail.has_greeks:
        _write_greeks(&inner, 13, &detail.greeks)
    for index in range(detail.violation_count):
        _write_violation(&inner, 14, &detail.violations[index])
    write_unsigned(&inner, 15, <uint64_t>detail.equity_in_account_asset)
    write_bytes(writer, field, inner.start, inner.size)


cdef uint8_t *_put_long(uint8_t *at, uint64_t value) noexcept nogil:
    if value < <uint64_t>1 << 56:
        return at + varint_write(at, value)
    while value >= 0x80:
        at[0] = <uint8_t>(value | 0x80)
        at += 1
        value >>= 7
    at[0] = <uint8_t>value
    return at + 1


cdef inline uint8_t *_put(uint8_t *at, uint32_t field, uint64_t value) noexcept nogil:
    """Write a field whose number is below 16 into at least FIELD_ROOM bytes; return its end."""
    if value == 0:
        return at
    at[0] = <uint8_t>(field << 3 | WIRE_VARINT)
    if value >= 0x80:
        return _put_long(at + 1, value)
    at[1] = <uint8_t>value
    return at + 2


cdef void encode_order_reply(Writer *writer, const OrderReply *reply) noexcept nogil:
    cdef uint64_t begun_ns = timer_begin(writer.timer)
    cdef uint8_t *at = writer.start + writer.size
    debug_assert(writer.size + 13 * FIELD_ROOM <= writer.capacity)
    if writer.size + 13 * FIELD_ROOM > writer.capacity:
        return
    at = _put(at, 1, reply.decision)
    at = _put(at, 2, reply.reason)
    at = _put(at, 3, reply.reservation_id)
    at = _put(at, 4, reply.revision)
    at = _put(at, 5, _zigzag(reply.initial_margin))
    at = _put(at, 6, _zigzag(reply.available))
    at = _put(at, 7, _zigzag(reply.liquidation_price_ticks))
    at = _put(at, 8, reply.liquidation_status)
    at = _put(at, 9, reply.max_quantity_lots)
    at = _put(at, 10, _zigzag(reply.reserved_margin))
    at = _put(at, 11, <uint64_t>reply.margin_unknown)
    at = _put(at, 12, reply.quantity_lots)
    at = _put(at, 13, reply.account_asset_id)
    writer.size = <size_t>(at - writer.start)
    if reply.has_detail:
        _write_detail(writer, 15, &reply.detail)
    timer_encoded(writer.timer, begun_ns)


cdef void encode_amendment_reply(Writer *writer, const OrderReply *reply) noexcept nogil:
    cdef uint8_t buffer[2304]
    cdef Writer inner = inner_writer(buffer, sizeof(buffer))
    inner.timer = writer.timer
    encode_order_reply(&inner, reply)
    write_bytes(writer, 1, inner.start, inner.size)


cdef void encode_execution_reply(Writer *writer, const ExecutionReply *reply) noexcept nogil:
    cdef uint64_t begun_ns = timer_begin(writer.timer)
    write_unsigned(writer, 1, reply.decision)
    write_unsigned(writer, 2, reply.reason)
    write_unsigned(writer, 3, reply.revision)
    write_unsigned(writer, 4, reply.remaining_lots)
    write_signed(writer, 5, reply.position_lots)
    write_signed(writer, 6, reply.realised_pnl)
    write_signed(writer, 7, reply.available)
    write_signed(writer, 8, reply.liquidation_price_ticks)
    write_unsigned(writer, 9, reply.liquidation_status)
    write_signed(writer, 10, reply.isolated_wallet)
    write_unsigned(writer, 11, <uint64_t>reply.margin_unknown)
    write_unsigned(writer, 12, reply.account_asset_id)
    timer_encoded(writer.timer, begun_ns)


cdef void encode_marks_reply(
    Writer *writer, uint64_t revision, uint32_t taken, const MarkRefusal *refusals, uint32_t refused
) noexcept nogil:
    cdef uint8_t buffer[32]
    cdef uint32_t index
    cdef Writer inner
    write_unsigned(writer, 1, revision)
    write_unsigned(writer, 2, taken)
    for index in range(refused):
        inner = inner_writer(buffer, sizeof(buffer))
        write_unsigned(&inner, 1, refusals[index].index)
        write_unsigned(&inner, 2, refusals[index].reason)
        write_bytes(writer, 3, inner.start, inner.size)
