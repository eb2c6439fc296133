"""Protobuf wire codec of the hot messages of proto/riskd/v1.

Read strictly: a field that is not in the contract, a wrong wire type, a truncated or overlong value
or a number outside its type's range makes the whole message malformed. Enum numbers that are not
known are left to the engine, which refuses them with a reason. As protobuf says, the last of a
repeated singular field counts.

Written as protobuf writes it: fields in rising order of number, zero values left out, so that
any protobuf library writes the same bytes.
"""

from libc.stdint cimport INT32_MAX, UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

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

cdef enum:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2


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


cdef inline bint _tag(
    Cursor *cursor, uint32_t *field, uint32_t *wire_type, Malformed *malformed
) noexcept nogil:
    cdef uint64_t tag
    if not _varint(cursor, &tag, malformed, 0):
        return False
    if tag >> 3 == 0 or tag > UINT32_MAX:
        return _fail(malformed, FAULT_UNKNOWN_FIELD, 0)
    field[0] = <uint32_t>(tag >> 3)
    wire_type[0] = <uint32_t>(tag & 7)
    return True


cdef inline bint _uint64(
    Cursor *cursor, uint32_t wire_type, uint64_t *value, Malformed *malformed, uint32_t field
) noexcept nogil:
    if wire_type != WIRE_VARINT:
        return _fail(malformed, FAULT_WIRE_TYPE, field)
    return _varint(cursor, value, malformed, field)


cdef inline bint _uint32(
    Cursor *cursor, uint32_t wire_type, uint32_t *value, Malformed *malformed, uint32_t field
) noexcept nogil:
    cdef uint64_t wide
    if not _uint64(cursor, wire_type, &wide, malformed, field):
        return False
    if wide > UINT32_MAX:
        return _fail(malformed, FAULT_OUT_OF_RANGE, field)
    value[0] = <uint32_t>wide
    return True


cdef inline bint _enum(
    Cursor *cursor, uint32_t wire_type, uint32_t *value, Malformed *malformed, uint32_t field
) noexcept nogil:
    cdef uint64_t wide
    if not _uint64(cursor, wire_type, &wide, malformed, field):
        return False
    if wide > INT32_MAX:
        return _fail(malformed, FAULT_OUT_OF_RANGE, field)
    value[0] = <uint32_t>wide
    return True


cdef inline bint _sint64(
    Cursor *cursor, uint32_t wire_type, int64_t *value, Malformed *malformed, uint32_t field
) noexcept nogil:
    cdef uint64_t wide
    if not _uint64(cursor, wire_type, &wide, malformed, field):
        return False
    # Zigzag: 0, -1, 1, -2, ...
    value[0] = <int64_t>((wide >> 1) ^ (~(wide & 1) + 1))
    return True


cdef inline bint _fixed64(
    Cursor *cursor, uint32_t wire_type, uint64_t *value, Malformed *malformed, uint32_t field
) noexcept nogil:
    cdef const uint8_t *bytes_
    cdef uint32_t index
    cdef uint64_t bits = 0
    if wire_type != WIRE_FIXED64:
        return _fail(malformed, FAULT_WIRE_TYPE, field)
    if not _take(cursor, 8, &bytes_):
        return _fail(malformed, FAULT_TRUNCATED, field)
    for index in range(8):
        bits |= <uint64_t>bytes_[index] << (8 * index)
    value[0] = bits
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
    if not _varint(cursor, size, malformed, field):
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
        return "is a varint of more than 64 bits"
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

cdef bint decode_order(
    const uint8_t *start, size_t size, OrderRequest *order, Malformed *malformed
) noexcept nogil:
    cdef Cursor cursor
    cdef uint32_t field, wire_type
    cdef bint taken
    cursor.next = start
    cursor.remaining = size
    memset(order, 0, sizeof(OrderRequest))
    while cursor.remaining > 0:
        if not _tag(&cursor, &field, &wire_type, malformed):
            return False
        if field == 1:
            taken = _uint64(&cursor, wire_type, &order.account_id, malformed, field)
        elif field == 2:
            taken = _uint32(&cursor, wire_type, &order.instrument_id, malformed, field)
        elif field == 3:
            taken = _fixed64(&cursor, wire_type, &order.client_order_id, malformed, field)
        elif field == 4:
            taken = _enum(&cursor, wire_type, &order.side, malformed, field)
        elif field == 5:
            taken = _enum(&cursor, wire_type, &order.order_type, malformed, field)
        elif field == 6:
            taken = _enum(&cursor, wire_type, &order.time_in_force, malformed, field)
        elif field == 7:
            taken = _enum(&cursor, wire_type, &order.margin_mode, malformed, field)
        elif field == 8:
            taken = _sint64(&cursor, wire_type, &order.price_ticks, malformed, field)
        elif field == 9:
            taken = _uint64(&cursor, wire_type, &order.quantity_lots, malformed, field)
        elif field == 10:
            taken = _uint32(&cursor, wire_type, &order.flags, malformed, field)
        elif field == 11:
            taken = _uint32(&cursor, wire_type, &order.gateway_id, malformed, field)
        elif field == 12:
            taken = _fixed64(&cursor, wire_type, &order.sent_time_ns, malformed, field)
        elif field == 13:
            taken = _enum(&cursor, wire_type, &order.mode, malformed, field)
        elif field == 14:
            taken = _enum(&cursor, wire_type, &order.view, malformed, field)
        elif field == 15:
            taken = _enum(&cursor, wire_type, &order.position_side, malformed, field)
        elif field == 16:
            taken = _sint64(&cursor, wire_type, &order.trigger_price_ticks, malformed, field)
        elif field == 17:
            taken = _sint64(&cursor, wire_type, &order.trailing_offset_ticks, malformed, field)
        elif field == 18:
            taken = _fixed64(&cursor, wire_type, &order.expire_time_ns, malformed, field)
        else:
            return _fail(malformed, FAULT_UNKNOWN_FIELD, field)
        if not taken:
            return False
    return True


cdef bint order_keys(const uint8_t *start, size_t size, OrderRequest *order) noexcept nogil:
    """Read the keys of an order that is decoded soon; what is wrong with it is told then."""
    cdef Cursor cursor
    cdef Malformed unused
    cdef uint32_t field, wire_type
    cdef uint64_t skipped
    cdef bint taken
    cursor.next = start
    cursor.remaining = size
    order.account_id = 0
    order.client_order_id = 0
    order.instrument_id = 0
    order.gateway_id = 0
    order.position_side = 0
    while cursor.remaining > 0:
        if not _tag(&cursor, &field, &wire_type, &unused):
            return False
        if field == 1:
            taken = _uint64(&cursor, wire_type, &order.account_id, &unused, field)
        elif field == 2:
            taken = _uint32(&cursor, wire_type, &order.instrument_id, &unused, field)
        elif field == 3:
            taken = _fixed64(&cursor, wire_type, &order.client_order_id, &unused, field)
        elif field == 11:
            taken = _uint32(&cursor, wire_type, &order.gateway_id, &unused, field)
        elif field == 15:
            taken = _enum(&cursor, wire_type, &order.position_side, &unused, field)
        elif wire_type == WIRE_FIXED64:
            taken = _fixed64(&cursor, wire_type, &skipped, &unused, field)
        else:
            taken = _uint64(&cursor, wire_type, &skipped, &unused, field)
        if not taken:
            return False
    return True


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
    cdef Cursor cursor
    cdef uint32_t field, wire_type
    cdef bint taken
    cursor.next = start
    cursor.remaining = size
    memset(amendment, 0, sizeof(AmendmentRequest))
    while cursor.remaining > 0:
        if not _tag(&cursor, &field, &wire_type, malformed):
            return False
        if field == 1:
            taken = _uint32(&cursor, wire_type, &amendment.gateway_id, malformed, field)
        elif field == 2:
            taken = _uint64(&cursor, wire_type, &amendment.reservation_id, malformed, field)
        elif field == 3:
            taken = _fixed64(&cursor, wire_type, &amendment.client_order_id, malformed, field)
        elif field == 4:
            taken = _sint64(&cursor, wire_type, &amendment.price_ticks, malformed, field)
        elif field == 5:
            taken = _uint64(&cursor, wire_type, &amendment.quantity_lots, malformed, field)
        elif field == 6:
            taken = _fixed64(&cursor, wire_type, &amendment.sent_time_ns, malformed, field)
        elif field == 7:
            taken = _enum(&cursor, wire_type, &amendment.view, malformed, field)
        elif field == 8:
            taken = _sint64(&cursor, wire_type, &amendment.trigger_price_ticks, malformed, field)
        elif field == 9:
            taken = _sint64(&cursor, wire_type, &amendment.trailing_offset_ticks, malformed, field)
        else:
            return _fail(malformed, FAULT_UNKNOWN_FIELD, field)
        if not taken:
            return False
    return True


cdef bint decode_execution(
    const uint8_t *start, size_t size, ExecutionRequest *execution, Malformed *malformed
) noexcept nogil:
    cdef Cursor cursor
    cdef uint32_t field, wire_type
    cdef bint taken
    cursor.next = start
    cursor.remaining = size
    memset(execution, 0, sizeof(ExecutionRequest))
    while cursor.remaining > 0:
        if not _tag(&cursor, &field, &wire_type, malformed):
            return False
        if field == 1:
            taken = _uint32(&cursor, wire_type, &execution.gateway_id, malformed, field)
        elif field == 2:
            taken = _fixed64(&cursor, wire_type, &execution.execution_id, malformed, field)
        elif field == 3:
            taken = _uint64(&cursor, wire_type, &execution.reservation_id, malformed, field)
        elif field == 4:
            taken = _enum(&cursor, wire_type, &execution.kind, malformed, field)
        elif field == 5:
            taken = _sint64(&cursor, wire_type, &execution.price_ticks, malformed, field)
        elif field == 6:
            taken = _uint64(&cursor, wire_type, &execution.quantity_lots, malformed, field)
        elif field == 7:
            taken = _sint64(&cursor, wire_type, &execution.fee_minor, malformed, field)
        elif field == 8:
            taken = _fixed64(&cursor, wire_type, &execution.venue_time_ns, malformed, field)
        elif field == 9:
            taken = _uint32(&cursor, wire_type, &execution.instrument_id, malformed, field)
        elif field == 10:
            taken = _fixed64(
                &cursor, wire_type, &execution.original_execution_id, malformed, field
            )
        elif field == 11:
            taken = _uint32(&cursor, wire_type, &execution.fee_asset_id, malformed, field)
        else:
            return _fail(malformed, FAULT_UNKNOWN_FIELD, field)
        if not taken:
            return False
    return True


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
    cdef Cursor cursor
    cdef uint32_t field, wire_type
    cdef bint taken
    cursor.next = start
    cursor.remaining = size
    memset(request, 0, sizeof(ReservationRequest))
    while cursor.remaining > 0:
        if not _tag(&cursor, &field, &wire_type, malformed):
            return False
        if field == 1:
            taken = _uint64(&cursor, wire_type, &request.reservation_id, malformed, field)
        elif field == 2:
            taken = _uint32(&cursor, wire_type, &request.gateway_id, malformed, field)
        elif field == 3:
            taken = _fixed64(&cursor, wire_type, &request.client_order_id, malformed, field)
        else:
            return _fail(malformed, FAULT_UNKNOWN_FIELD, field)
        if not taken:
            return False
    return True


cdef bint _decode_mark(Cursor cursor, MarkReport *mark, Malformed *malformed) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef bint taken
    memset(mark, 0, sizeof(MarkReport))
    while cursor.remaining > 0:
        if not _tag(&cursor, &field, &wire_type, malformed):
            return False
        if field == 1:
            taken = _uint32(&cursor, wire_type, &mark.instrument_id, malformed, field)
        elif field == 2:
            taken = _sint64(&cursor, wire_type, &mark.price, malformed, field)
        elif field == 3:
            taken = _fixed64(&cursor, wire_type, &mark.time_ns, malformed, field)
        elif field == 4:
            taken = _uint64(&cursor, wire_type, &mark.volatility_ppb, malformed, field)
        elif field == 5:
            taken = _sint64(&cursor, wire_type, &mark.forward, malformed, field)
        else:
            return _fail(malformed, FAULT_UNKNOWN_FIELD, field)
        if not taken:
            return False
    return True


cdef bint decode_marks(
    const uint8_t *start,
    size_t size,
    MarkReport *marks,
    uint32_t capacity,
    uint32_t *count,
    Malformed *malformed,
) noexcept nogil:
    cdef Cursor cursor, inner
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
        if not _message(&cursor, wire_type, &inner.next, &length, malformed, field):
            return False
        inner.remaining = length
        if count[0] == capacity:
            return _fail(malformed, FAULT_TOO_MANY, field)
        if not _decode_mark(inner, &marks[count[0]], malformed):
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


cdef void write_signed(Writer *writer, uint32_t field, int64_t value) noexcept nogil:
    write_unsigned(writer, field, (<uint64_t>value << 1) ^ (~(<uint64_t>value >> 63) + 1))


cdef inline void _write_fixed64(Writer *writer, uint32_t field, uint64_t value) noexcept nogil:
    cdef uint32_t index
    if value == 0:
        return
    _write_varint(writer, field << 3 | WIRE_FIXED64)
    debug_assert(writer.size + 8 <= writer.capacity)
    if writer.size + 8 > writer.capacity:
        return
    for index in range(8):
        writer.start[writer.size + index] = <uint8_t>(value >> (8 * index))
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


cdef void encode_order_reply(Writer *writer, const OrderReply *reply) noexcept nogil:
    cdef uint64_t begun_ns = timer_begin(writer.timer)
    write_unsigned(writer, 1, reply.decision)
    write_unsigned(writer, 2, reply.reason)
    write_unsigned(writer, 3, reply.reservation_id)
    write_unsigned(writer, 4, reply.revision)
    write_signed(writer, 5, reply.initial_margin)
    write_signed(writer, 6, reply.available)
    write_signed(writer, 7, reply.liquidation_price_ticks)
    write_unsigned(writer, 8, reply.liquidation_status)
    write_unsigned(writer, 9, reply.max_quantity_lots)
    write_signed(writer, 10, reply.reserved_margin)
    write_unsigned(writer, 11, <uint64_t>reply.margin_unknown)
    write_unsigned(writer, 12, reply.quantity_lots)
    write_unsigned(writer, 13, reply.account_asset_id)
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
