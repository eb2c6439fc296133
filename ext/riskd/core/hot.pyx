"""The hot requests of native threads.

One lock for all requests of a round, and one for all their records: that is what a round costs.
Whoever holds the locks needs no GIL, so no Python thread can keep them from being given back.
The answers are those of `Engine.submit`, byte for byte, and so are the records.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t

from riskd.core.apply cimport (
    APPLY_ANSWERED,
    APPLY_DENIED,
    HOT_BATCH_CHECK_ORDERS,
    HOT_CHECK_AMENDMENT,
    HOT_CHECK_ORDER,
    HOT_REPORT_EXECUTION,
    engine_apply,
)
from riskd.core.book cimport EXPECT_ENTRIES, order_expect
from riskd.core.histogram cimport clock_ns, count_up
from riskd.core.journal cimport (
    JOURNAL_FULL,
    JOURNAL_OK,
    JOURNAL_PAYLOAD_TOO_LARGE,
    journal_crc32c,
    journal_durable,
    journal_hold,
    journal_put,
    journal_release,
    journal_room,
    journal_status,
)
from riskd.core.money cimport debug_assert
from riskd.core.wire cimport decode_order, inner_writer, message_at


cdef void hot_begin(const HotDoor *door) noexcept nogil:
    hot_queue(door.turn, door.mutex)
    if door.log != NULL:
        journal_hold(door.log)


cdef uint32_t hot_apply(
    const HotDoor *door,
    uint32_t method,
    const uint8_t *request,
    size_t size,
    uint64_t now_ns,
    Caller *caller,
    Writer *writer,
    Malformed *malformed,
) noexcept nogil:
    cdef uint64_t revision = door.book.revision
    cdef HotHead head
    cdef uint32_t status
    if door.log != NULL:
        status = journal_room(door.log, sizeof(HotHead) + size)
        if status == JOURNAL_PAYLOAD_TOO_LARGE:
            return HOT_TOO_LARGE
        if status != JOURNAL_OK:
            return HOT_FULL if status == JOURNAL_FULL else HOT_FAILED
    if now_ns < door.time_ns[0]:
        now_ns = door.time_ns[0]
    status = engine_apply(door.book, method, request, size, now_ns, caller, writer, malformed)
    if status != APPLY_ANSWERED:
        return HOT_DENIED if status == APPLY_DENIED else HOT_MALFORMED
    if writer.timer != NULL:
        writer.timer.answered_ns = clock_ns()
    hot_count(door.counts, method, writer)
    if door.book.revision != revision:
        door.time_ns[0] = now_ns
        if door.log != NULL:
            head.reply_checksum = journal_crc32c(writer.start, writer.size)
            head.reply_size = <uint32_t>writer.size
            door.sequence[0] = journal_put(
                door.log,
                method,
                now_ns,
                door.book.revision,
                <const uint8_t *>&head,
                sizeof(HotHead),
                request,
                size,
            )
    return HOT_ANSWERED


cdef inline void _count(uint64_t *table, const Writer *answer) noexcept nogil:
    """Count a reply that begins with its decision (field 1) and its reason (field 2)."""
    cdef const uint8_t *start = answer.start
    cdef uint32_t decision, reason
    debug_assert(answer.size >= 4)
    debug_assert(start[0] == 0x08)
    debug_assert(start[2] == 0x10)
    decision = start[1]
    # A varint of one byte or two: a reason is less than 2^14.
    reason = start[3]
    if reason >= 0x80:
        reason = (reason & 0x7F) | <uint32_t>start[4] << 7
    debug_assert(decision < DECISIONS)
    debug_assert(reason < REASONS)
    if decision < DECISIONS and reason < REASONS:
        count_up(&table[decision * REASONS + reason], 1)


cdef void hot_count(HotCounts *counts, uint32_t method, const Writer *answer) noexcept nogil:
    cdef Writer message
    cdef uint64_t *table = &counts.orders[0][0]
    if method == HOT_CHECK_ORDER:
        _count(table, answer)
    elif method == HOT_REPORT_EXECUTION:
        _count(&counts.executions[0][0], answer)
    elif method == HOT_CHECK_AMENDMENT or method == HOT_BATCH_CHECK_ORDERS:
        if method == HOT_CHECK_AMENDMENT:
            table = &counts.amendments[0][0]
        message = inner_writer(answer.start, 0)
        # Field 1, once or repeated, comes before all else.
        while message.start + message.size < answer.start + answer.size and (
            message.start[message.size] == 0x0A
        ):
            message_at(answer, &message)
            _count(table, &message)


cdef void hot_foresee(
    const HotDoor *door, HotAhead *ahead, uint32_t method, const uint8_t *request, size_t size
) noexcept nogil:
    cdef uint32_t slot = ahead.count % HOT_AHEAD
    cdef Malformed unused
    ahead.count += 1
    # What is wrong with it is told when its turn comes.
    ahead.is_order[slot] = method == HOT_CHECK_ORDER and decode_order(
        request, size, &ahead.orders[slot], &unused
    )
    if ahead.is_order[slot]:
        order_expect(door.book, &ahead.orders[slot], EXPECT_ENTRIES)


cdef void hot_approach(
    const HotDoor *door, const HotAhead *ahead, uint32_t applied
) noexcept nogil:
    cdef uint32_t distance, slot
    for distance in range(1, <uint32_t>EXPECT_ENTRIES):
        slot = (applied + distance) % HOT_AHEAD
        if applied + distance < ahead.count and ahead.is_order[slot]:
            order_expect(door.book, &ahead.orders[slot], distance)


cdef void hot_end(const HotDoor *door) noexcept nogil:
    # The journal's lock may be let go for a write and taken again, so the engine's goes first: what
    # others append meanwhile is in the next batch.
    pthread_mutex_unlock(door.mutex)
    if door.log != NULL:
        journal_release(door.log)


cdef uint64_t hot_sequence(const HotDoor *door) noexcept nogil:
    return door.sequence[0]


cdef uint64_t hot_durable(const HotDoor *door) noexcept nogil:
    return UINT64_MAX if door.log == NULL else journal_durable(door.log)


cdef bint hot_has_failed(const HotDoor *door) noexcept nogil:
    return door.log != NULL and journal_status(door.log) != JOURNAL_OK
