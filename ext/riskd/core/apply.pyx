"""`engine_apply`: one hot request to its reply, on one book.

It is a deterministic state machine: the same requests with the same times on the same book give the
same replies and the same state. Decisions are made in decision.pyx, which cannot change anything;
what is reserved is written here, and cannot fail.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from riskd.core.book cimport (
    ANSWER_AMENDMENT,
    ANSWER_EXECUTION,
    ANSWER_FACT_APPLIED,
    ANSWER_FACT_NONE,
    ANSWER_FACT_UNDONE,
    ANSWER_ORDER,
    EXPECT_ENTRIES,
    REMEMBERED_SIZE_MAX,
    AnswerHead,
    Book,
    Gateway,
    Ring,
    account_find,
    answer_add,
    answer_copy,
    answer_find,
    answer_undo,
    book_prefetch,
    book_step,
    book_step_back,
    closed_add,
    closed_find,
    closed_prefetch,
    expiry_add,
    expiry_drop,
    expiry_first,
    gateway_find,
    instrument_find,
    money_of,
    money_rows_missing,
    money_set,
    order_add,
    order_drop,
    order_expect,
    order_find,
    order_find_named,
    order_name,
    position_add,
    position_drop_if_absent,
    position_find,
    ring_find,
    ring_take,
    settings_of,
    sums_forget,
)
from riskd.core.collateral cimport is_foreign
from riskd.core.controls cimport (
    controls_count_execution,
    controls_count_order,
    controls_move_peaks,
    controls_raise_peaks,
    controls_uncount,
    Tally,
)
from riskd.core.credit cimport CreditTally, credit_follow, credit_note, credit_restore
from riskd.core.decision cimport Hold, check_amendment, check_order
from riskd.core.hedge cimport Group, group_of
from riskd.core.histogram cimport timer_decoded
from riskd.core.levels cimport (
    Footprint,
    footprint_of,
    level_count_fill,
    level_follow,
    level_has_room,
    may_be_limited,
)
from riskd.core.money cimport PPB, debug_assert, fits, i128
from riskd.core.orders cimport closes_all, has_limit_price, is_protective, other_side
from riskd.core.permits cimport Caller, caller_is, caller_reaches, caller_reaches_all
from riskd.core.pool cimport (
    UNKNOWN_EQUITY,
    Fill,
    Holding,
    Pool,
    Terms,
    available_of,
    equity_of_pool,
    fill_of,
    holding_of,
    liquidation_price_ticks_of,
    pool_fits,
    pool_of,
    sums_add,
    terms_of,
)
from riskd.core.settlement cimport settle_fill
from riskd.core.types cimport *
from riskd.core.value cimport is_spot, order_value_of, value_of
from riskd.core.wire cimport (
    FAULT_NONE,
    Malformed,
    MarkRefusal,
    Writer,
    decode_amendment,
    decode_batch,
    decode_empty,
    decode_execution,
    decode_marks,
    decode_order,
    decode_reservation,
    encode_amendment_reply,
    encode_execution_reply,
    encode_marks_reply,
    encode_order_reply,
    inner_writer,
    message_at,
    write_bytes,
    write_signed,
    write_unsigned,
)


# --- CheckOrder ------------------------------------------------------------------------------

cdef void _reserve(
    Book *book,
    const OrderRequest *request,
    const Hold *hold,
    uint64_t reservation_id,
    uint64_t now_ns,
) noexcept nogil:
    """Write an accepted order on the books. The check has made sure that all of it fits."""
    cdef Account *account = &book.accounts[hold.account_place]
    cdef uint32_t side = max(request.position_side, <uint32_t>POSITION_SIDE_NET)
    cdef Position *position = position_find(book, account, request.instrument_id, side)
    cdef Order *order
    cdef Footprint before
    footprint_of(account, position, &before)
    if position == NULL:
        position = position_add(book, account, request.instrument_id, side)
    order = order_add(book, reservation_id)
    debug_assert(position != NULL and order != NULL)
    order.client_order_id = request.client_order_id
    order.gateway_id = request.gateway_id
    order_name(book, order)
    order.position_index = <uint32_t>(position - book.positions)
    order.side = <uint8_t>request.side
    order.order_type = <uint8_t>request.order_type
    order.time_in_force = <uint8_t>request.time_in_force
    order.flags = request.flags
    order.price_ticks = request.price_ticks
    order.trigger_price_ticks = request.trigger_price_ticks
    order.trailing_offset_ticks = request.trailing_offset_ticks
    order.expire_ns = request.expire_time_ns
    order.accepted_ns = now_ns
    order.quantity_lots = hold.quantity_lots
    _put_on(position, order, hold, hold.quantity_lots)
    if order.expire_ns != 0:
        expiry_add(book, order)
    position.working_orders += 1
    position.protective_orders += <uint32_t>is_protective(order.order_type, order.flags)
    account.working_orders += 1
    if hold.keeps_sums:
        sums_add(book, account, hold.margin_added)
    else:
        sums_forget(book, account)
    level_follow(book, account, position, &before)
    credit_follow(book, account)


cdef void _put_on(
    Position *position, Order *order, const Hold *hold, int64_t remaining_lots
) noexcept nogil:
    """Put the lots of an order on the working sums; a protective one is in none."""
    cdef WorkingSum *working = &position.buy if order.side == SIDE_BUY else &position.sell
    order.remaining_lots = remaining_lots
    order.margin_price_ticks = hold.margin_price_ticks
    order.open_loss = hold.open_loss
    if is_protective(order.order_type, order.flags):
        return
    working.lots += remaining_lots
    working.value += hold.value
    working.open_loss += hold.open_loss


cdef void _close(Book *book, Order *order) noexcept nogil:
    """End an order: what is left of it holds nothing, but late executions find it."""
    closed_add(book, order)
    _drop(book, order)


cdef void _drop(Book *book, Order *order) noexcept nogil:
    """Take an order off the books.

    Its position is dropped by the caller when it says nothing any more.
    """
    cdef Position *position = &book.positions[order.position_index]
    cdef Account *account = &book.accounts[position.account_index]
    cdef Footprint before
    footprint_of(account, position, &before)
    _take_off(position, order, order.remaining_lots, &book.instruments[position.instrument_id - 1])
    position.working_orders -= 1
    position.protective_orders -= <uint32_t>is_protective(order.order_type, order.flags)
    account.working_orders -= 1
    sums_forget(book, account)
    order_drop(book, order)
    level_follow(book, account, position, &before)


cdef void release_order(Book *book, Order *order) noexcept nogil:
    """End an order that is not reported on."""
    cdef Position *position = &book.positions[order.position_index]
    cdef Account *account = &book.accounts[position.account_index]
    _close(book, order)
    position_drop_if_absent(book, position)
    credit_follow(book, account)


cdef void _remember(
    Ring *ring,
    uint32_t kind,
    uint32_t gateway_id,
    uint64_t id,
    const void *content,
    size_t size,
    uint32_t fact,
    const Writer *writer,
) noexcept nogil:
    cdef AnswerHead head
    memset(&head, 0, sizeof(AnswerHead))
    head.kind = kind
    head.gateway_id = gateway_id
    head.id = id
    head.fact = fact
    head.reply_size = <uint32_t>writer.size
    debug_assert(size <= sizeof(head.content))
    memcpy(head.content, content, size)
    answer_add(ring, &head, writer.start)


cdef uint32_t _recall(
    const Ring *ring,
    uint32_t kind,
    uint64_t id,
    const void *content,
    size_t size,
    Writer *writer,
) noexcept nogil:
    """Return 0 for a new id, 1 if its first answer was written, 2 if its content is another."""
    cdef AnswerHead head
    cdef uint64_t offset
    if not answer_find(ring, kind, id, &head, &offset):
        return 0
    if memcmp(head.content, content, size) != 0:
        return 2
    answer_copy(ring, offset, writer.start, head.reply_size)
    writer.size = head.reply_size
    return 1


cdef void _start_order_reply(const Book *book, OrderReply *reply) noexcept nogil:
    """Begin with a reject that knows nothing; its detail is written where one is asked for.

    Field by field, as in share_of.
    """
    reply.reservation_id = 0
    reply.revision = book.revision
    reply.initial_margin = 0
    reply.available = 0
    reply.liquidation_price_ticks = 0
    reply.max_quantity_lots = 0
    reply.reserved_margin = 0
    reply.quantity_lots = 0
    reply.decision = DECISION_REJECTED
    reply.reason = REASON_UNSPECIFIED
    reply.liquidation_status = LIQUIDATION_STATUS_UNSPECIFIED
    reply.account_asset_id = 0
    reply.margin_unknown = True
    reply.has_detail = False


cdef void _refuse_order(const Book *book, uint32_t reason, Writer *writer) noexcept nogil:
    """Write an answer that is not remembered, or that knows nothing but its reason."""
    cdef OrderReply reply
    _start_order_reply(book, &reply)
    reply.reason = reason
    encode_order_reply(writer, &reply)


cdef uint32_t _recall_order(
    const Book *book, const Ring *ring, const OrderRequest *request, Writer *writer
) noexcept nogil:
    """Step 2 of CheckOrder. As _recall; the id of a working order is never new."""
    cdef uint32_t recalled = _recall(
        ring, ANSWER_ORDER, request.client_order_id, request, sizeof(OrderRequest), writer
    )
    # The answer may be forgotten while the order works: it must not be accepted twice.
    if recalled == 0 and order_find_named(
        book, request.gateway_id, request.client_order_id
    ) != NULL:
        return 2
    return recalled


cdef void _apply_order(
    Book *book, OrderRequest *request, uint64_t now_ns, Writer *writer
) noexcept nogil:
    cdef OrderReply reply
    cdef Hold hold
    cdef Ring *ring = NULL
    cdef uint32_t reason, recalled
    cdef bint reserves = request.mode != CHECK_MODE_CHECK_ONLY
    # When it was sent is not what it says: a repeat is sent later.
    request.sent_time_ns = 0
    if request.client_order_id == 0:
        _refuse_order(book, REASON_CLIENT_ORDER_ID_MISSING, writer)
        return
    if request.gateway_id == 0:
        _refuse_order(book, REASON_GATEWAY_ID_MISSING, writer)
        return
    if reserves:
        ring = ring_take(book, ANSWER_ORDER, request.gateway_id)
        if ring == NULL:
            _refuse_order(book, REASON_GATEWAYS_FULL, writer)
            return
        book_prefetch(book, ring, ANSWER_ORDER, request.gateway_id, request.client_order_id)
        recalled = _recall_order(book, ring, request, writer)
        if recalled == 1:
            return
        if recalled == 2:
            _refuse_order(book, REASON_CLIENT_ORDER_ID_REUSED, writer)
            return
    _start_order_reply(book, &reply)
    reason = check_order(book, request, now_ns, reserves, &reply, &hold)
    if not reserves:
        encode_order_reply(writer, &reply)
        return
    book_step(book)
    reply.revision = book.revision
    if hold.counts:
        controls_count_order(
            book, &book.accounts[hold.account_place], request.gateway_id, now_ns, NULL
        )
    if reason == REASON_NONE:
        reply.reservation_id = book.revision
        _reserve(book, request, &hold, book.revision, now_ns)
        if hold.is_limited:
            controls_raise_peaks(book, &book.accounts[hold.account_place])
    encode_order_reply(writer, &reply)
    _remember_order(ring, request, writer)


cdef void _remember_order(
    Ring *ring, const OrderRequest *request, const Writer *writer
) noexcept nogil:
    _remember(
        ring,
        ANSWER_ORDER,
        request.gateway_id,
        request.client_order_id,
        request,
        sizeof(OrderRequest),
        ANSWER_FACT_NONE,
        writer,
    )


# --- BatchCheckOrders ------------------------------------------------------------------------

cdef void _apply_each(
    Book *book, BatchRequest *batch, uint64_t now_ns, Writer *writer
) noexcept nogil:
    """Decide each order by itself, in turn."""
    cdef uint8_t answer[REMEMBERED_SIZE_MAX]
    cdef Writer inner = inner_writer(answer, sizeof(answer))
    cdef uint32_t index, distance
    inner.timer = writer.timer
    for index in range(min(batch.count, <uint32_t>EXPECT_ENTRIES)):
        order_expect(book, &batch.orders[index], EXPECT_ENTRIES)
    for index in range(batch.count):
        for distance in range(1, EXPECT_ENTRIES + 1):
            if index + distance < batch.count:
                order_expect(book, &batch.orders[index + distance], distance)
        inner.size = 0
        _apply_order(book, &batch.orders[index], now_ns, &inner)
        write_bytes(writer, 1, inner.start, inner.size)


cdef inline bint _has_same_mode(
    const OrderRequest *order, const OrderRequest *other
) noexcept nogil:
    """UNSPECIFIED is RESERVE."""
    return max(order.mode, <uint32_t>1) == max(other.mode, <uint32_t>1)


cdef bint _gets_place(const Book *book, const BatchRequest *batch, uint32_t index) noexcept nogil:
    """C-5: whether there is a place for an order's gateway when those before it have theirs."""
    cdef uint32_t gateway_id = batch.orders[index].gateway_id
    cdef uint32_t free_places = book.gateway_capacity - book.gateway_count
    cdef uint32_t before = 0
    cdef uint32_t place, other
    if gateway_find(book, gateway_id) != NULL or free_places >= batch.count:
        return True
    for place in range(index):
        if batch.orders[place].gateway_id == gateway_id and _takes_place(&batch.orders[place]):
            break
        if not _takes_place(&batch.orders[place]) or (
            gateway_find(book, batch.orders[place].gateway_id) != NULL
        ):
            continue
        other = 0
        while batch.orders[other].gateway_id != batch.orders[place].gateway_id or (
            not _takes_place(&batch.orders[other])
        ):
            other += 1
        if other == place:
            before += 1
    return before < free_places


cdef inline bint _takes_place(const OrderRequest *order) noexcept nogil:
    return (
        order.client_order_id != 0
        and order.gateway_id != 0
        and order.mode != CHECK_MODE_CHECK_ONLY
    )


cdef uint32_t _batch_fault(
    const Book *book, const BatchRequest *batch, uint32_t index, Writer *first_answer
) noexcept nogil:
    """Step 1 of an all-or-none batch: what is wrong with an order by itself, or REASON_NONE.

    `first_answer` is not empty if it was answered before.
    """
    cdef const OrderRequest *order = &batch.orders[index]
    cdef const Ring *ring
    cdef uint32_t recalled, place
    first_answer.size = 0
    if order.client_order_id == 0:
        return REASON_CLIENT_ORDER_ID_MISSING
    if order.gateway_id == 0:
        return REASON_GATEWAY_ID_MISSING
    if order.mode != CHECK_MODE_CHECK_ONLY:
        if not _gets_place(book, batch, index):
            return REASON_GATEWAYS_FULL
        ring = ring_find(book, ANSWER_ORDER, order.gateway_id)
        if ring != NULL:
            recalled = _recall_order(book, ring, order, first_answer)
            if recalled == 1:
                return REASON_NONE
            if recalled == 2:
                return REASON_CLIENT_ORDER_ID_REUSED
    for place in range(index):
        if (
            batch.orders[place].gateway_id == order.gateway_id
            and batch.orders[place].client_order_id == order.client_order_id
        ):
            return REASON_CLIENT_ORDER_ID_REUSED
    if not _has_same_mode(order, &batch.orders[0]):
        return REASON_CHECK_MODE_NOT_SUPPORTED
    return REASON_NONE


cdef bint _answer_faulty_batch(
    const Book *book, const BatchRequest *batch, Writer *writer
) noexcept nogil:
    """Step 1: answer a batch that is not wholly new; False if it is."""
    cdef uint8_t answer[REMEMBERED_SIZE_MAX]
    cdef Writer inner = inner_writer(answer, sizeof(answer))
    cdef uint32_t new_count = 0
    cdef uint32_t answered_count = 0
    cdef uint32_t index, fault
    for index in range(batch.count):
        if _batch_fault(book, batch, index, &inner) == REASON_NONE:
            if inner.size == 0:
                new_count += 1
            else:
                answered_count += 1
    if new_count == batch.count:
        return False
    for index in range(batch.count):
        fault = _batch_fault(book, batch, index, &inner)
        if inner.size == 0:
            if fault == REASON_NONE:
                fault = REASON_BATCH_PARTLY_ANSWERED
            _refuse_order(book, fault, &inner)
        write_bytes(writer, 1, inner.start, inner.size)
    return True


cdef uint32_t _reserve_all(
    Book *book,
    const BatchRequest *batch,
    uint64_t now_ns,
    Tally *tally,
    OrderReply *reply,
    Writer *writer,
) noexcept nogil:
    """Decide the orders in turn, each with those before it in the books.

    Return how many were accepted, and are reserved; if not all, `reply` is that to the next.
    """
    cdef uint8_t answer[REMEMBERED_SIZE_MAX]
    cdef Writer inner = inner_writer(answer, sizeof(answer))
    cdef Hold hold
    cdef uint64_t revision = book.revision
    cdef const OrderRequest *order
    cdef bint reserves = batch.orders[0].mode != CHECK_MODE_CHECK_ONLY
    cdef uint32_t index, reason
    inner.timer = writer.timer
    for index in range(batch.count):
        order = &batch.orders[index]
        _start_order_reply(book, reply)
        reason = check_order(book, order, now_ns, True, reply, &hold)
        if hold.counts:
            controls_count_order(
                book, &book.accounts[hold.account_place], order.gateway_id, now_ns, tally
            )
        if reason != REASON_NONE:
            return index
        book_step(book)
        _reserve(book, order, &hold, book.revision, now_ns)
        reply.revision = revision
        if reserves:
            reply.revision = book.revision
            reply.reservation_id = book.revision
        inner.size = 0
        encode_order_reply(&inner, reply)
        write_bytes(writer, 1, inner.start, inner.size)
    return batch.count


cdef void _take_back(Book *book, uint64_t revision) noexcept nogil:
    """Undo the reservations that were made after a revision, the last first."""
    cdef Order *order
    cdef Position *position
    while book.revision > revision:
        order = order_find(book, book.revision)
        position = &book.positions[order.position_index]
        _drop(book, order)
        position_drop_if_absent(book, position)
        book_step_back(book)


cdef void _remember_all(
    Book *book, const BatchRequest *batch, const Writer *writer
) noexcept nogil:
    """Remember the decisions of a batch as they stand in its reply."""
    cdef Writer inner = inner_writer(writer.start, 0)
    cdef uint32_t index
    for index in range(batch.count):
        message_at(writer, &inner)
        _remember_order(
            ring_take(book, ANSWER_ORDER, batch.orders[index].gateway_id),
            &batch.orders[index],
            &inner,
        )


cdef void _apply_all_or_none(
    Book *book, BatchRequest *batch, uint64_t now_ns, Writer *writer
) noexcept nogil:
    cdef OrderReply reply
    cdef uint8_t answer[REMEMBERED_SIZE_MAX]
    cdef Writer inner = inner_writer(answer, sizeof(answer))
    cdef bint reserves = batch.orders[0].mode != CHECK_MODE_CHECK_ONLY
    cdef uint64_t revision = book.revision
    cdef uint32_t index, accepted
    cdef Tally tally
    cdef CreditTally credit
    for index in range(batch.count):
        batch.orders[index].sent_time_ns = 0
    if _answer_faulty_batch(book, batch, writer):
        return
    tally.count = 0
    credit.count = 0
    for index in range(batch.count):
        credit_note(book, batch.orders[index].account_id, &credit)
    accepted = _reserve_all(book, batch, now_ns, &tally, &reply, writer)
    if accepted < batch.count or not reserves:
        _take_back(book, revision)
        credit_restore(book, &credit)
    if not reserves:
        controls_uncount(book, &tally)
    elif accepted == batch.count:
        # A reservation changes no equity, so the end is as good as the moment of each.
        for index in range(batch.count):
            controls_raise_peaks(book, account_find(book, batch.orders[index].account_id))
    if accepted < batch.count:
        if reserves:
            book_step(book)
        reply.revision = book.revision
        writer.size = 0
        for index in range(batch.count):
            inner.size = 0
            if index == accepted:
                encode_order_reply(&inner, &reply)
            else:
                _refuse_order(book, REASON_BATCH_ORDER_REJECTED, &inner)
            write_bytes(writer, 1, inner.start, inner.size)
    if reserves:
        _remember_all(book, batch, writer)


cdef uint32_t _apply_batch(
    Book *book,
    const uint8_t *request,
    size_t size,
    uint64_t now_ns,
    Caller *caller,
    Writer *writer,
    Malformed *malformed,
) noexcept nogil:
    """Decode here, so that only this request pays for the room of a whole batch on the stack."""
    cdef BatchRequest batch
    cdef uint32_t index
    if not decode_batch(request, size, &batch, malformed):
        return APPLY_MALFORMED
    timer_decoded(writer.timer)
    for index in range(batch.count):
        if not _permits_order(caller, HOT_BATCH_CHECK_ORDERS, &batch.orders[index]):
            return APPLY_DENIED
    if batch.mode == BATCH_MODE_ALL_OR_NONE:
        _apply_all_or_none(book, &batch, now_ns, writer)
    else:
        _apply_each(book, &batch, now_ns, writer)
    write_unsigned(writer, 2, book.revision)
    return APPLY_ANSWERED


# --- CheckAmendment --------------------------------------------------------------------------

cdef void _replace(
    Book *book, Order *order, const AmendmentRequest *request, const Hold *hold
) noexcept nogil:
    """Put the changed order in the place of the old one. The check has made sure that it fits."""
    cdef Position *position = &book.positions[order.position_index]
    cdef const Instrument *instrument = &book.instruments[position.instrument_id - 1]
    cdef Account *account = &book.accounts[position.account_index]
    cdef int64_t filled = order.quantity_lots - order.remaining_lots
    cdef Footprint before
    footprint_of(account, position, &before)
    _take_off(position, order, order.remaining_lots, instrument)
    order.price_ticks = request.price_ticks
    order.trigger_price_ticks = request.trigger_price_ticks
    order.trailing_offset_ticks = request.trailing_offset_ticks
    order.quantity_lots = hold.quantity_lots
    _put_on(position, order, hold, order.quantity_lots - filled)
    sums_forget(book, account)
    level_follow(book, account, position, &before)
    credit_follow(book, account)
    if hold.is_limited:
        controls_raise_peaks(book, account)


cdef void _apply_amendment(
    Book *book, AmendmentRequest *request, uint64_t now_ns, Writer *writer
) noexcept nogil:
    cdef OrderReply reply
    cdef Hold hold
    cdef const Account *account
    cdef Order *order
    cdef Ring *ring
    cdef uint32_t recalled
    _start_order_reply(book, &reply)
    request.sent_time_ns = 0
    if request.client_order_id == 0:
        reply.reason = REASON_CLIENT_ORDER_ID_MISSING
        encode_amendment_reply(writer, &reply)
        return
    if request.gateway_id == 0:
        reply.reason = REASON_GATEWAY_ID_MISSING
        encode_amendment_reply(writer, &reply)
        return
    ring = ring_take(book, ANSWER_AMENDMENT, request.gateway_id)
    if ring == NULL:
        reply.reason = REASON_GATEWAYS_FULL
        encode_amendment_reply(writer, &reply)
        return
    book_prefetch(book, ring, ANSWER_AMENDMENT, request.gateway_id, request.client_order_id)
    recalled = _recall(
        ring,
        ANSWER_AMENDMENT,
        request.client_order_id,
        request,
        sizeof(AmendmentRequest),
        writer,
    )
    if recalled == 1:
        return
    if recalled == 2:
        reply.reason = REASON_CLIENT_ORDER_ID_REUSED
        encode_amendment_reply(writer, &reply)
        return
    order = order_find(book, request.reservation_id)
    check_amendment(book, request, order, now_ns, &reply, &hold)
    book_step(book)
    reply.revision = book.revision
    if hold.counts:
        account = &book.accounts[book.positions[order.position_index].account_index]
        controls_count_order(book, account, request.gateway_id, now_ns, NULL)
    if reply.decision != DECISION_REJECTED:
        _replace(book, order, request, &hold)
    encode_amendment_reply(writer, &reply)
    _remember(
        ring,
        ANSWER_AMENDMENT,
        request.gateway_id,
        request.client_order_id,
        request,
        sizeof(AmendmentRequest),
        ANSWER_FACT_NONE,
        writer,
    )


# --- ReportExecution -------------------------------------------------------------------------

# What an execution is about: an order that works, or one that is closed.
ctypedef struct Target:
    Order *order                # NULL: it is closed
    ClosedOrder *closed         # NULL: it works
    Account *account
    Position *position          # NULL while there is none
    const Instrument *instrument
    int64_t price_ticks
    int64_t quantity_lots
    int64_t left_lots           # what may still fill
    uint32_t instrument_id
    uint32_t position_side
    uint32_t side
    uint32_t order_type
    bint closes_all

# What an execution does to its position, and to the account's money.
ctypedef struct Booking:
    Fill fill
    uint32_t asset_id           # in which the instrument is settled
    uint32_t fee_asset_id
    i128 money                  # of that asset, after it
    i128 fee_money              # of the fee's asset, if that is another
    i128 deficit
    i128 base_money             # of spot's base asset
    i128 traded
    i128 realised               # what the day's profit changes by


cdef bint _find_target(
    Book *book, const ExecutionRequest *request, Target *target
) noexcept nogil:
    """E-1."""
    cdef Order *order = order_find(book, request.reservation_id)
    cdef ClosedOrder *closed = NULL
    target.order = order
    if order != NULL:
        target.position = &book.positions[order.position_index]
        target.account = &book.accounts[target.position.account_index]
        target.instrument_id = target.position.instrument_id
        target.price_ticks = order.price_ticks
        target.quantity_lots = order.quantity_lots
        target.left_lots = order.remaining_lots
        target.position_side = target.position.position_side
        target.side = order.side
        target.order_type = order.order_type
        target.closes_all = closes_all(order.order_type, order.flags)
        target.closed = NULL
    else:
        closed = closed_find(book, request.reservation_id)
        target.closed = closed
        if closed == NULL:
            return False
        target.account = &book.accounts[closed.account_index]
        target.position = position_find(
            book, target.account, closed.instrument_id, closed.position_side
        )
        target.instrument_id = closed.instrument_id
        target.price_ticks = closed.price_ticks
        target.quantity_lots = closed.quantity_lots
        target.left_lots = closed.unfilled_lots
        target.position_side = closed.position_side
        target.side = closed.side
        target.order_type = closed.order_type
        target.closes_all = closed.quantity_lots == 0
    target.instrument = &book.instruments[target.instrument_id - 1]
    if target.closes_all:
        target.quantity_lots = NUMBER_MAX
        target.left_lots = _closable_lots(target.position, target.side)
    return request.gateway_id == (
        order.gateway_id if order != NULL else closed.gateway_id
    )


cdef void _terms_of_target(const Book *book, const Target *target, Terms *terms) noexcept nogil:
    cdef const Position *settings = settings_of(
        book, target.account, target.position, target.instrument_id, target.position_side
    )
    terms_of(book, target.account, target.instrument, settings, terms)


cdef int64_t _closable_lots(const Position *position, uint32_t side) noexcept nogil:
    """Return how much of a position is opposite to a side."""
    if position == NULL:
        return 0
    if side == SIDE_BUY:
        return max(<int64_t>0, -position.lots)
    return max(<int64_t>0, position.lots)


cdef inline bint _undoes(uint32_t kind) noexcept nogil:
    return kind == EXECUTION_KIND_BUST or kind == EXECUTION_KIND_CORRECTION


cdef uint32_t _find_original(
    const Ring *ring, const ExecutionRequest *request, AnswerHead *head, uint64_t *offset
) noexcept nogil:
    """E-9, E-10: the fill that a bust or a correction undoes."""
    cdef const ExecutionRequest *original
    if not _undoes(request.kind):
        if request.original_execution_id != 0:
            return REASON_ORIGINAL_EXECUTION_UNKNOWN
        return REASON_NONE
    if not answer_find(ring, ANSWER_EXECUTION, request.original_execution_id, head, offset):
        return REASON_ORIGINAL_EXECUTION_UNKNOWN
    original = <const ExecutionRequest *>head.content
    if head.fact == ANSWER_FACT_NONE or original.reservation_id != request.reservation_id:
        return REASON_ORIGINAL_EXECUTION_UNKNOWN
    if head.fact == ANSWER_FACT_UNDONE:
        return REASON_EXECUTION_ALREADY_UNDONE
    return REASON_NONE


cdef uint32_t _execution_form(
    const Book *book, const ExecutionRequest *request, const Target *target
) noexcept nogil:
    """Step 2 of ReportExecution from E-4 on, but for what the fill itself finds."""
    if request.kind != EXECUTION_KIND_FILL and request.kind != EXECUTION_KIND_CORRECTION:
        if request.price_ticks != 0 or request.quantity_lots != 0:
            return REASON_EXECUTION_QUANTITY_MISMATCH
        if request.fee_minor != 0 and request.kind != EXECUTION_KIND_BUST:
            return REASON_EXECUTION_QUANTITY_MISMATCH
    else:
        if request.price_ticks < 1 or request.price_ticks > NUMBER_MAX:
            return REASON_PRICE_OUT_OF_RANGE
        if request.quantity_lots == 0:
            return REASON_QUANTITY_MUST_BE_POSITIVE
        if request.quantity_lots > <uint64_t>NUMBER_MAX:
            return REASON_QUANTITY_OUT_OF_RANGE
        if request.quantity_lots > <uint64_t>(
            target.left_lots if request.kind == EXECUTION_KIND_FILL else target.quantity_lots
        ):
            return REASON_EXECUTION_EXCEEDS_REMAINING
    if request.fee_minor > NUMBER_MAX or request.fee_minor < -NUMBER_MAX:
        return REASON_AMOUNT_OUT_OF_RANGE
    if request.fee_asset_id > book.asset_count:
        return REASON_ASSET_UNKNOWN
    return REASON_NONE


cdef inline int64_t _open_loss_of(const Order *order, int64_t lots) noexcept nogil:
    """Return what leaves an order's open loss with some of its lots: all of it with the last."""
    if lots == order.remaining_lots:
        return order.open_loss
    return <int64_t>(<i128>order.open_loss * lots / order.remaining_lots)


cdef inline bint _is_beyond_limit(const Target *target, int64_t price_ticks) noexcept nogil:
    """Whether a fill is worse than its order's limit price."""
    if not has_limit_price(target.order_type) or price_ticks == 0:
        return False
    if target.side == SIDE_BUY:
        return price_ticks > target.price_ticks
    return price_ticks < target.price_ticks


cdef void _take_off(
    Position *position, Order *order, int64_t lots, const Instrument *instrument
) noexcept nogil:
    """Take lots of an order off the working sums; a protective one is in none."""
    cdef WorkingSum *working = &position.buy if order.side == SIDE_BUY else &position.sell
    cdef int64_t open_loss
    if is_protective(order.order_type, order.flags):
        if not closes_all(order.order_type, order.flags):
            order.remaining_lots -= lots
        return
    open_loss = _open_loss_of(order, lots)
    working.lots -= lots
    working.value -= order_value_of(instrument, order, order.remaining_lots)
    if lots != order.remaining_lots:
        working.value += order_value_of(instrument, order, order.remaining_lots - lots)
    working.open_loss -= open_loss
    order.open_loss -= open_loss
    order.remaining_lots -= lots
    debug_assert(working.lots >= 0 and working.value >= 0 and working.open_loss >= 0)


cdef inline void _count_traded(
    const Instrument *instrument, const ExecutionRequest *fill, Booking *booking
) noexcept nogil:
    """Add the value of a fill that is known to fit."""
    cdef i128 value
    if value_of(instrument, fill.price_ticks, fill.quantity_lots, &value):
        booking.traded += value


cdef uint32_t _figure_booking(
    const Book *book,
    const ExecutionRequest *request,
    const ExecutionRequest *original,
    const Target *target,
    Booking *booking,
) noexcept nogil:
    """Compute what a fill, bust or correction does, and whether it fits; changes nothing.

    `original` is the fill that is undone, NULL for a new one.
    """
    cdef const Account *account = target.account
    cdef Terms terms
    cdef Holding holding
    cdef Fill undone
    cdef Fill *fill = &booking.fill
    cdef int64_t open_loss = 0
    cdef uint32_t rows
    _terms_of_target(book, target, &terms)
    holding_of(target.position, &holding)
    if original != NULL:
        fill_of(
            &terms,
            &holding,
            other_side(target.side),
            original.price_ticks,
            original.quantity_lots,
            0,
            &undone,
        )
        if not undone.fits:
            return REASON_MARGIN_OVERFLOWS
        holding.lots = <int64_t>undone.lots
        holding.entry_value = <int64_t>undone.entry_value
        holding.wallet = <int64_t>undone.wallet
    if request.kind == EXECUTION_KIND_BUST:
        fill[0] = undone
    else:
        if target.order != NULL and original == NULL and not target.closes_all:
            open_loss = _open_loss_of(target.order, <int64_t>request.quantity_lots)
        fill_of(
            &terms,
            &holding,
            target.side,
            request.price_ticks,
            request.quantity_lots,
            open_loss,
            fill,
        )
    if request.kind == EXECUTION_KIND_CORRECTION:
        fill.realised_pnl += undone.realised_pnl
        fill.cash_change += undone.cash_change
        fill.deficit += undone.deficit
        fill.base_change += undone.base_change
    if target.instrument.settlement_price != 0:
        settle_fill(&terms, fill)
    booking.realised = fill.realised_pnl + fill.deficit
    booking.asset_id = target.instrument.asset_id
    booking.fee_asset_id = booking.asset_id
    if request.fee_asset_id != 0:
        booking.fee_asset_id = request.fee_asset_id
    booking.money = money_of(book, account, booking.asset_id) + fill.cash_change
    booking.deficit = book.assets[booking.asset_id - 1].deficit + fill.deficit
    booking.fee_money = 0
    booking.base_money = 0
    if terms.is_spot:
        booking.base_money = fill.base_change + money_of(
            book, account, target.instrument.base_asset_id
        )
    if booking.fee_asset_id == booking.asset_id:
        booking.money -= request.fee_minor
        booking.realised -= request.fee_minor
    elif terms.is_spot and booking.fee_asset_id == target.instrument.base_asset_id:
        # It is taken from what is traded, and from nothing else.
        booking.base_money -= request.fee_minor
        booking.fee_asset_id = booking.asset_id
    else:
        booking.fee_money = money_of(book, account, booking.fee_asset_id)
        booking.fee_money -= request.fee_minor
    if not (
        fill.fits
        and fits(fill.realised_pnl)
        and fits(booking.money)
        and fits(booking.deficit)
        and fits(booking.fee_money)
        and fits(booking.base_money)
    ):
        return REASON_MARGIN_OVERFLOWS
    booking.traded = 0
    if request.quantity_lots != 0:
        _count_traded(target.instrument, request, booking)
    if original != NULL:
        _count_traded(target.instrument, original, booking)
    if target.position == NULL and book.position_count == book.position_capacity:
        return REASON_POSITIONS_FULL
    if not level_has_room(book, account, target.instrument_id):
        return REASON_HOLDINGS_FULL
    rows = money_rows_missing(book, account, booking.asset_id)
    if booking.base_money != 0:
        rows += money_rows_missing(book, account, target.instrument.base_asset_id)
    if booking.fee_asset_id != booking.asset_id and request.fee_minor != 0:
        rows += money_rows_missing(book, account, booking.fee_asset_id)
    if rows > book.balance_capacity - book.balance_count:
        return REASON_BALANCES_FULL
    return REASON_NONE


cdef void _book_fill(
    Book *book,
    const ExecutionRequest *request,
    const Booking *booking,
    uint64_t now_ns,
    Target *target,
) noexcept nogil:
    """Apply what was figured out. It cannot fail."""
    cdef Position *position = target.position
    cdef Account *account = target.account
    cdef Footprint before
    footprint_of(account, position, &before)
    if position == NULL:
        position = position_add(book, account, target.instrument_id, target.position_side)
        target.position = position
    position.lots = <int64_t>booking.fill.lots
    position.entry_value = <int64_t>booking.fill.entry_value
    position.wallet = <int64_t>booking.fill.wallet
    sums_forget(book, account)
    money_set(book, account, booking.asset_id, <int64_t>booking.money)
    book.assets[booking.asset_id - 1].deficit = <int64_t>booking.deficit
    if booking.fee_asset_id != booking.asset_id:
        money_set(book, account, booking.fee_asset_id, <int64_t>booking.fee_money)
    if is_spot(target.instrument):
        money_set(book, account, target.instrument.base_asset_id, <int64_t>booking.base_money)
    if request.kind == EXECUTION_KIND_FILL and not target.closes_all:
        if target.order != NULL:
            _take_off(position, target.order, <int64_t>request.quantity_lots, target.instrument)
        else:
            target.closed.unfilled_lots -= <int64_t>request.quantity_lots
    level_follow(book, account, position, &before)
    # The day counts in the account's own asset.
    if not is_foreign(account, target.instrument):
        level_count_fill(book, account, booking.traded, booking.realised, now_ns)
    if may_be_limited(account):
        controls_count_execution(book, account, now_ns)
        if is_spot(target.instrument):
            # What is bought or sold is no loss or profit.
            controls_move_peaks(book, account, booking.fill.cash_change)
        controls_raise_peaks(book, account)


cdef uint32_t _execute(
    Book *book,
    Ring *ring,
    const ExecutionRequest *request,
    uint64_t now_ns,
    Target *target,
    ExecutionReply *reply,
) noexcept nogil:
    """Step 2 and 3 of ReportExecution: every check, then every change."""
    cdef AnswerHead head
    cdef Booking booking
    cdef const ExecutionRequest *original = NULL
    cdef uint64_t offset
    cdef uint32_t reason
    if request.kind < EXECUTION_KIND_FILL or request.kind > EXECUTION_KIND_CORRECTION:
        return REASON_EXECUTION_KIND_NOT_SUPPORTED
    if not _find_target(book, request, target):
        return REASON_RESERVATION_UNKNOWN
    if request.instrument_id != 0 and request.instrument_id != target.instrument_id:
        return REASON_EXECUTION_INSTRUMENT_MISMATCH
    reason = _find_original(ring, request, &head, &offset)
    if reason == REASON_NONE:
        reason = _execution_form(book, request, target)
    if reason != REASON_NONE:
        return reason
    if _undoes(request.kind):
        original = <const ExecutionRequest *>head.content
    if original != NULL or request.kind == EXECUTION_KIND_FILL:
        reason = _figure_booking(book, request, original, target, &booking)
        if reason != REASON_NONE:
            return reason
        _book_fill(book, request, &booking, now_ns, target)
        reply.realised_pnl = <int64_t>booking.fill.realised_pnl
        if original != NULL:
            answer_undo(ring, offset, &head)
    elif target.order != NULL:
        _close(book, target.order)
        return REASON_NONE
    if request.kind == EXECUTION_KIND_FILL and target.order != NULL:
        reply.remaining_lots = <uint64_t>target.order.remaining_lots
        if target.closes_all:
            if target.position.lots == 0:
                _close(book, target.order)
        elif target.order.remaining_lots == 0:
            _close(book, target.order)
    elif target.order != NULL:
        reply.remaining_lots = <uint64_t>target.order.remaining_lots
    return REASON_NONE


cdef void _report_position(
    const Book *book, const Target *target, uint64_t now_ns, ExecutionReply *reply
) noexcept nogil:
    """Report the account and the position as they are now."""
    cdef const Position *position = target.position
    cdef Holding holding
    cdef Terms terms
    cdef Pool pool, others
    cdef Group group
    cdef i128 backing
    pool_of(book, target.account, NULL, now_ns, &pool)
    if pool_fits(&pool):
        reply.available = <int64_t>available_of(&pool)
        reply.margin_unknown = False
        if is_foreign(target.account, target.instrument):
            reply.account_asset_id = target.account.asset_id
    holding_of(position, &holding)
    reply.position_lots = holding.lots
    reply.isolated_wallet = holding.wallet
    _terms_of_target(book, target, &terms)
    if terms.is_option:
        return
    group.count = 0
    if terms.margin_mode == MARGIN_MODE_ISOLATED or holding.lots == 0:
        backing = holding.wallet
    elif is_foreign(target.account, target.instrument):
        return
    else:
        pool_of(book, target.account, position, now_ns, &others)
        if others.unknown & UNKNOWN_EQUITY:
            return
        group_of(book, target.account, &terms, position.instrument_id, position, &group)
        backing = equity_of_pool(&others) - others.requirement
        backing -= group.pnl - group.requirement
    reply.liquidation_status = liquidation_price_ticks_of(
        &terms,
        holding.lots,
        holding.entry_value,
        backing,
        &group,
        &reply.liquidation_price_ticks,
    )


cdef void _apply_execution(
    Book *book, ExecutionRequest *request, uint64_t now_ns, Writer *writer
) noexcept nogil:
    cdef ExecutionReply reply
    cdef Target target
    cdef Ring *ring
    cdef uint32_t recalled
    cdef uint32_t fact = ANSWER_FACT_NONE
    memset(&reply, 0, sizeof(ExecutionReply))
    reply.decision = DECISION_REJECTED
    reply.margin_unknown = True
    reply.revision = book.revision
    request.venue_time_ns = 0
    if request.gateway_id == 0:
        reply.reason = REASON_GATEWAY_ID_MISSING
        encode_execution_reply(writer, &reply)
        return
    if request.execution_id == 0:
        reply.reason = REASON_EXECUTION_ID_MISSING
        encode_execution_reply(writer, &reply)
        return
    ring = ring_take(book, ANSWER_EXECUTION, request.gateway_id)
    if ring == NULL:
        reply.reason = REASON_GATEWAYS_FULL
        encode_execution_reply(writer, &reply)
        return
    book_prefetch(book, ring, ANSWER_EXECUTION, request.gateway_id, request.execution_id)
    closed_prefetch(book, request.reservation_id)
    recalled = _recall(
        ring,
        ANSWER_EXECUTION,
        request.execution_id,
        request,
        sizeof(ExecutionRequest),
        writer,
    )
    if recalled == 1:
        return
    if recalled == 2:
        reply.reason = REASON_EXECUTION_ID_REUSED
        encode_execution_reply(writer, &reply)
        return
    reply.reason = _execute(book, ring, request, now_ns, &target, &reply)
    book_step(book)
    reply.revision = book.revision
    if reply.reason == REASON_NONE:
        reply.decision = DECISION_ACCEPTED
        if target.closed != NULL and not _undoes(request.kind):
            reply.reason = REASON_RESERVATION_CLOSED
        elif _is_beyond_limit(&target, request.price_ticks):
            reply.reason = REASON_EXECUTION_BEYOND_LIMIT
        if reply.reason != REASON_NONE:
            reply.decision = DECISION_ACCEPTED_WITH_WARNING
        if request.kind == EXECUTION_KIND_FILL or request.kind == EXECUTION_KIND_CORRECTION:
            fact = ANSWER_FACT_APPLIED
        credit_follow(book, target.account)
        _report_position(book, &target, now_ns, &reply)
        if target.position != NULL:
            position_drop_if_absent(book, target.position)
    encode_execution_reply(writer, &reply)
    _remember(
        ring,
        ANSWER_EXECUTION,
        request.gateway_id,
        request.execution_id,
        request,
        sizeof(ExecutionRequest),
        fact,
        writer,
    )


# --- GetReservation --------------------------------------------------------------------------

cdef void _answer_reservation(
    const Book *book, const ReservationRequest *request, Writer *writer
) noexcept nogil:
    """A read: the working or closed order, and the answer when asked by the gateway's own id."""
    cdef AnswerHead head
    cdef uint8_t answer[REMEMBERED_SIZE_MAX]
    cdef uint64_t offset
    cdef uint64_t reservation_id = request.reservation_id
    cdef const OrderRequest *asked = NULL
    cdef const Order *order
    cdef const ClosedOrder *closed
    cdef const Ring *ring = ring_find(book, ANSWER_ORDER, request.gateway_id)
    if reservation_id == 0 and ring != NULL and answer_find(
        ring, ANSWER_ORDER, request.client_order_id, &head, &offset
    ):
        debug_assert(head.reply_size <= sizeof(answer))
        answer_copy(ring, offset, answer, head.reply_size)
        asked = <const OrderRequest *>head.content
        reservation_id = _number_in(answer, head.reply_size, 3)
    elif reservation_id == 0:
        order = order_find_named(book, request.gateway_id, request.client_order_id)
        if order != NULL:
            reservation_id = order.reservation_id
    order = order_find(<Book *>book, reservation_id)
    closed = closed_find(book, reservation_id)
    if order != NULL:
        _write_working(book, order, writer)
    elif closed != NULL:
        write_unsigned(writer, 1, RESERVATION_STATE_CLOSED)
        write_unsigned(writer, 2, book.revision)
        write_unsigned(writer, 3, reservation_id)
        write_unsigned(writer, 4, book.accounts[closed.account_index].account_id)
        write_unsigned(writer, 5, closed.instrument_id)
        write_unsigned(writer, 6, closed.side)
        write_signed(writer, 7, closed.price_ticks)
        write_unsigned(writer, 8, <uint64_t>closed.quantity_lots)
    elif asked != NULL:
        write_unsigned(writer, 1, RESERVATION_STATE_CLOSED)
        write_unsigned(writer, 2, book.revision)
        write_unsigned(writer, 3, reservation_id)
        write_unsigned(writer, 4, asked.account_id)
        write_unsigned(writer, 5, asked.instrument_id)
        write_unsigned(writer, 6, asked.side)
        write_signed(writer, 7, asked.price_ticks)
        if asked.flags & (ORDER_FLAG_CLOSE_POSITION | ORDER_FLAG_QUOTE_QUANTITY):
            write_unsigned(writer, 8, _number_in(answer, head.reply_size, 12))
        else:
            write_unsigned(writer, 8, asked.quantity_lots)
    else:
        write_unsigned(writer, 1, RESERVATION_STATE_UNKNOWN)
        write_unsigned(writer, 2, book.revision)
    if asked != NULL:
        write_bytes(writer, 15, answer, head.reply_size)


cdef void _write_working(const Book *book, const Order *order, Writer *writer) noexcept nogil:
    cdef const Position *position = &book.positions[order.position_index]
    write_unsigned(writer, 1, RESERVATION_STATE_WORKING)
    write_unsigned(writer, 2, book.revision)
    write_unsigned(writer, 3, order.reservation_id)
    write_unsigned(writer, 4, book.accounts[position.account_index].account_id)
    write_unsigned(writer, 5, position.instrument_id)
    write_unsigned(writer, 6, order.side)
    write_signed(writer, 7, order.price_ticks)
    write_unsigned(writer, 8, <uint64_t>order.quantity_lots)
    write_unsigned(writer, 9, <uint64_t>order.remaining_lots)


cdef uint64_t _number_in(const uint8_t *answer, size_t size, uint32_t wanted) noexcept nogil:
    """Read an unsigned field of a CheckOrderResponse that we wrote; 0 where it is not.

    Fields before the detail take a tag of one byte and a varint each, by rising number.
    """
    cdef size_t place = 0
    cdef uint32_t field
    cdef uint32_t shift
    cdef uint64_t value
    while place < size:
        field = answer[place] >> 3
        if field > wanted:
            return 0
        place += 1
        value = 0
        shift = 0
        while place < size:
            value |= <uint64_t>(answer[place] & 0x7F) << shift
            shift += 7
            place += 1
            if answer[place - 1] < 0x80:
                break
        if field == wanted:
            return value
    return 0


# --- time ------------------------------------------------------------------------------------

cdef uint32_t _sweep(Book *book, uint32_t gateway_id) noexcept nogil:
    """Release all working orders of a gateway, by rising reservation; return how many."""
    cdef Order *order
    cdef uint32_t place
    cdef uint32_t released = 0
    # The heap sorts them: it has room for every working order, and a time of 0 comes first.
    for place in range(book.order_top):
        order = &book.orders[place]
        if order.in_use and order.gateway_id == gateway_id:
            if order.expiry_place != 0:
                expiry_drop(book, order)
            order.expire_ns = 0
            expiry_add(book, order)
    order = expiry_first(book)
    while order != NULL and order.expire_ns == 0:
        release_order(book, order)
        released += 1
        order = expiry_first(book)
    return released


cdef Gateway *_gateway_to_sweep(Book *book, uint64_t now_ns) noexcept nogil:
    """Return the gateway of least id whose lease ended with CANCEL and was not swept, or NULL."""
    cdef Gateway *found = NULL
    cdef Gateway *gateway
    cdef uint32_t place
    for place in range(book.gateway_count):
        gateway = &book.gateways[place]
        if gateway.lease_action != LEASE_ACTION_CANCEL or gateway.lease_swept:
            continue
        if gateway.lease_end_ns > now_ns:
            continue
        if found == NULL or gateway.gateway_id < found.gateway_id:
            found = gateway
    return found


cdef void _advance_time(Book *book, uint64_t now_ns, Writer *writer) noexcept nogil:
    cdef Order *order = expiry_first(book)
    cdef Gateway *gateway
    cdef uint32_t released = 0
    cdef bint changed, is_full
    while order != NULL and order.expire_ns <= now_ns and released < EXPIRIES_PER_STEP_MAX:
        release_order(book, order)
        released += 1
        order = expiry_first(book)
    changed = released > 0
    is_full = released == EXPIRIES_PER_STEP_MAX
    gateway = _gateway_to_sweep(book, now_ns)
    while gateway != NULL:
        gateway.lease_swept = 1
        changed = True
        released += _sweep(book, gateway.gateway_id)
        gateway = _gateway_to_sweep(book, now_ns)
    if changed:
        book_step(book)
    write_unsigned(writer, 1, released)
    write_unsigned(writer, 2, book.revision)
    write_unsigned(writer, 3, <uint64_t>is_full)


# --- marks -----------------------------------------------------------------------------------

cdef uint32_t _take_mark(
    Book *book, const MarkReport *report, uint64_t now_ns
) noexcept nogil:
    cdef Instrument *instrument = instrument_find(book, report.instrument_id)
    if instrument == NULL:
        return REASON_INSTRUMENT_UNKNOWN
    if instrument.settlement_price != 0:
        return REASON_INSTRUMENT_SETTLED
    if report.price < 1 or report.price > NUMBER_MAX:
        return REASON_MARK_OUT_OF_RANGE
    if report.volatility_ppb > 10 * <uint64_t>PPB:
        return REASON_OPTION_MARK_OUT_OF_RANGE
    if report.forward < 0 or report.forward > NUMBER_MAX:
        return REASON_OPTION_MARK_OUT_OF_RANGE
    if report.time_ns > now_ns and report.time_ns - now_ns > MARK_LEAD_NS_MAX:
        return REASON_MARK_FROM_FUTURE
    if report.time_ns < instrument.mark.time_ns:
        return REASON_MARK_OUT_OF_ORDER
    instrument.mark.price = report.price
    instrument.mark.time_ns = report.time_ns
    if report.volatility_ppb != 0:
        instrument.mark.volatility_ppb = report.volatility_ppb
    if report.forward != 0:
        instrument.mark.forward = report.forward
    return REASON_NONE


cdef uint32_t _apply_marks(
    Book *book,
    const uint8_t *request,
    size_t size,
    uint64_t now_ns,
    Writer *writer,
    Malformed *malformed,
) noexcept nogil:
    """Decode here, so that only this request pays for the room of a whole batch on the stack."""
    cdef MarkReport marks[MARKS_PER_REPORT_MAX]
    cdef MarkRefusal refusals[MARKS_PER_REPORT_MAX]
    cdef uint32_t count
    cdef uint32_t refused = 0
    cdef uint32_t index, reason
    if not decode_marks(request, size, marks, MARKS_PER_REPORT_MAX, &count, malformed):
        return APPLY_MALFORMED
    timer_decoded(writer.timer)
    for index in range(count):
        reason = _take_mark(book, &marks[index], now_ns)
        if reason != REASON_NONE:
            refusals[refused].index = index
            refusals[refused].reason = reason
            refused += 1
    if refused < count:
        book_step(book)
    encode_marks_reply(writer, book.revision, count - refused, refusals, refused)
    return APPLY_ANSWERED


# --- who may ---------------------------------------------------------------------------------

cdef inline bint _permits_order(
    Caller *caller, uint32_t method, const OrderRequest *order
) noexcept nogil:
    return caller == NULL or (
        caller_is(caller, method, order.gateway_id) and caller_reaches(caller, order.account_id)
    )


cdef bint _permits_reservation(
    const Book *book, Caller *caller, uint32_t method, uint32_t gateway_id, uint64_t reservation_id
) noexcept nogil:
    """Whether the caller may act as a gateway, and on the account of an order.

    Of an order that is not known there is nothing to touch.
    """
    cdef const Order *order
    cdef const ClosedOrder *closed
    cdef uint32_t place
    if caller == NULL:
        return True
    if not caller_is(caller, method, gateway_id):
        return False
    if caller_reaches_all(caller):
        return True
    order = order_find(<Book *>book, reservation_id)
    closed = closed_find(book, reservation_id)
    if order != NULL:
        place = book.positions[order.position_index].account_index
    elif closed != NULL:
        place = closed.account_index
    else:
        return True
    return caller_reaches(caller, book.accounts[place].account_id)


cdef bint _permits_question(
    const Book *book, Caller *caller, const ReservationRequest *request
) noexcept nogil:
    """Whether the caller may know of an order: by its reservation, or by its gateway's own id."""
    cdef AnswerHead head
    cdef uint64_t offset
    cdef const Order *order
    cdef const Ring *ring
    cdef uint64_t reservation_id = request.reservation_id
    if caller == NULL or reservation_id != 0 or caller_reaches_all(caller):
        return _permits_reservation(
            book, caller, HOT_GET_RESERVATION, request.gateway_id, reservation_id
        )
    ring = ring_find(book, ANSWER_ORDER, request.gateway_id)
    if ring != NULL and answer_find(ring, ANSWER_ORDER, request.client_order_id, &head, &offset):
        return _permits_order(
            caller, HOT_GET_RESERVATION, <const OrderRequest *>head.content
        )
    order = order_find_named(book, request.gateway_id, request.client_order_id)
    return _permits_reservation(
        book,
        caller,
        HOT_GET_RESERVATION,
        request.gateway_id,
        order.reservation_id if order != NULL else 0,
    )


# --- apply -----------------------------------------------------------------------------------

cdef uint32_t engine_apply(
    Book *book,
    uint32_t method,
    const uint8_t *request,
    size_t size,
    uint64_t now_ns,
    Caller *caller,
    Writer *writer,
    Malformed *malformed,
) noexcept nogil:
    """Take one hot request to its reply.

    When it is malformed or denied, nothing has changed.
    """
    cdef OrderRequest order
    cdef AmendmentRequest amendment
    cdef ExecutionRequest execution
    cdef ReservationRequest reservation
    malformed.fault = FAULT_NONE
    malformed.field = 0
    writer.size = 0
    if method == HOT_CHECK_ORDER:
        if not decode_order(request, size, &order, malformed):
            return APPLY_MALFORMED
        timer_decoded(writer.timer)
        if not _permits_order(caller, method, &order):
            return APPLY_DENIED
        _apply_order(book, &order, now_ns, writer)
    elif method == HOT_REPORT_EXECUTION:
        if not decode_execution(request, size, &execution, malformed):
            return APPLY_MALFORMED
        timer_decoded(writer.timer)
        if not _permits_reservation(
            book, caller, method, execution.gateway_id, execution.reservation_id
        ):
            return APPLY_DENIED
        _apply_execution(book, &execution, now_ns, writer)
    elif method == HOT_GET_RESERVATION:
        if not decode_reservation(request, size, &reservation, malformed):
            return APPLY_MALFORMED
        timer_decoded(writer.timer)
        if not _permits_question(book, caller, &reservation):
            return APPLY_DENIED
        _answer_reservation(book, &reservation, writer)
    elif method == HOT_REPORT_MARKS:
        return _apply_marks(book, request, size, now_ns, writer, malformed)
    elif method == HOT_CHECK_AMENDMENT:
        if not decode_amendment(request, size, &amendment, malformed):
            return APPLY_MALFORMED
        timer_decoded(writer.timer)
        if not _permits_reservation(
            book, caller, method, amendment.gateway_id, amendment.reservation_id
        ):
            return APPLY_DENIED
        _apply_amendment(book, &amendment, now_ns, writer)
    elif method == HOT_BATCH_CHECK_ORDERS:
        return _apply_batch(book, request, size, now_ns, caller, writer, malformed)
    elif method == HOT_ADVANCE_TIME:
        if not decode_empty(request, size, malformed):
            return APPLY_MALFORMED
        timer_decoded(writer.timer)
        _advance_time(book, now_ns, writer)
    return APPLY_ANSWERED
