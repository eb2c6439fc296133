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
    ANSWER_ORDER,
    REMEMBERED_SIZE_MAX,
    AnswerHead,
    Asset,
    Book,
    Ring,
    account_find,
    answer_add,
    answer_copy,
    answer_find,
    book_prefetch,
    instrument_find,
    order_add,
    order_drop,
    order_find,
    order_find_named,
    order_name,
    position_add,
    position_drop_if_absent,
    position_find,
    ring_find,
    ring_take,
)
from riskd.core.decision cimport Hold, check_amendment, check_order
from riskd.core.money cimport PPB, debug_assert, fits, i128
from riskd.core.pool cimport (
    Fill,
    Holding,
    Pool,
    Terms,
    available_of,
    fill_of,
    holding_of,
    liquidation_price_ticks_of,
    pool_fits,
    pool_of,
    terms_of,
)
from riskd.core.types cimport *
from riskd.core.wire cimport (
    FAULT_NONE,
    Malformed,
    MarkRefusal,
    Writer,
    decode_amendment,
    decode_execution,
    decode_marks,
    decode_order,
    decode_reservation,
    encode_amendment_reply,
    encode_execution_reply,
    encode_marks_reply,
    encode_order_reply,
    write_bytes,
    write_signed,
    write_unsigned,
)

cdef extern from "core.h" nogil:
    void size_of_order_is "riskd_size_is"(Order object, int size) noexcept
    void size_of_position_is "riskd_size_is"(Position object, int size) noexcept
    void size_of_content_is "riskd_size_is"(OrderRequest object, int size) noexcept


# --- CheckOrder ------------------------------------------------------------------------------

cdef void _reserve(
    Book *book, const OrderRequest *request, const Hold *hold, uint64_t reservation_id
) noexcept nogil:
    """Write an accepted order on the books. The check has made sure that all of it fits."""
    cdef Account *account = account_find(book, request.account_id)
    cdef Position *position = position_find(book, account, request.instrument_id)
    cdef WorkingSum *working
    cdef Order *order
    if position == NULL:
        position = position_add(book, account, request.instrument_id)
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
    order.quantity_lots = <int64_t>request.quantity_lots
    order.remaining_lots = order.quantity_lots
    order.margin_price_ticks = hold.margin_price_ticks
    order.open_loss = hold.open_loss
    working = &position.buy if request.side == SIDE_BUY else &position.sell
    working.lots += order.quantity_lots
    working.value += hold.value
    working.open_loss += hold.open_loss
    position.working_orders += 1
    account.working_orders += 1


cdef void _remember(
    Ring *ring,
    uint32_t kind,
    uint32_t gateway_id,
    uint64_t id,
    const void *content,
    size_t size,
    const Writer *writer,
) noexcept nogil:
    cdef AnswerHead head
    memset(&head, 0, sizeof(AnswerHead))
    head.kind = kind
    head.gateway_id = gateway_id
    head.id = id
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


cdef void _apply_order(
    Book *book, OrderRequest *request, uint64_t now_ns, Writer *writer
) noexcept nogil:
    cdef OrderReply reply
    cdef Hold hold
    cdef Ring *ring = NULL
    cdef uint32_t reason, recalled
    cdef bint reserves = request.mode != CHECK_MODE_CHECK_ONLY
    # The detail comes last, and is zeroed only where one is asked for.
    memset(&reply, 0, sizeof(OrderReply) - sizeof(DecisionDetail))
    reply.decision = DECISION_REJECTED
    reply.margin_unknown = True
    reply.revision = book.revision
    # When it was sent is not what it says: a repeat is sent later.
    request.sent_time_ns = 0
    if request.client_order_id == 0:
        reply.reason = REASON_CLIENT_ORDER_ID_MISSING
        encode_order_reply(writer, &reply)
        return
    if request.gateway_id == 0:
        reply.reason = REASON_GATEWAY_ID_MISSING
        encode_order_reply(writer, &reply)
        return
    if reserves:
        ring = ring_take(book, ANSWER_ORDER, request.gateway_id)
        if ring == NULL:
            reply.reason = REASON_GATEWAYS_FULL
            encode_order_reply(writer, &reply)
            return
        book_prefetch(book, ring, ANSWER_ORDER, request.gateway_id, request.client_order_id)
        recalled = _recall(
            ring,
            ANSWER_ORDER,
            request.client_order_id,
            request,
            sizeof(OrderRequest),
            writer,
        )
        if recalled == 1:
            return
        # The answer may be forgotten while the order works: it must not be accepted twice.
        if recalled == 0 and order_find_named(
            book, request.gateway_id, request.client_order_id
        ) != NULL:
            recalled = 2
        if recalled == 2:
            reply.reason = REASON_CLIENT_ORDER_ID_REUSED
            encode_order_reply(writer, &reply)
            return
    reason = check_order(book, request, now_ns, &reply, &hold)
    if not reserves:
        reply.revision = book.revision
        encode_order_reply(writer, &reply)
        return
    book.revision += 1
    reply.revision = book.revision
    if reason == REASON_NONE:
        reply.reservation_id = book.revision
        _reserve(book, request, &hold, book.revision)
    encode_order_reply(writer, &reply)
    _remember(
        ring,
        ANSWER_ORDER,
        request.gateway_id,
        request.client_order_id,
        request,
        sizeof(OrderRequest),
        writer,
    )


# --- CheckAmendment --------------------------------------------------------------------------

cdef void _replace(
    Book *book, Order *order, const AmendmentRequest *request, const Hold *hold
) noexcept nogil:
    """Put the changed order in the place of the old one. The check has made sure that it fits."""
    cdef Position *position = &book.positions[order.position_index]
    cdef const Instrument *instrument = &book.instruments[position.instrument_id - 1]
    cdef WorkingSum *working = &position.buy if order.side == SIDE_BUY else &position.sell
    cdef int64_t filled = order.quantity_lots - order.remaining_lots
    _take_off(position, order, order.remaining_lots, instrument)
    order.price_ticks = request.price_ticks
    order.quantity_lots = <int64_t>request.quantity_lots
    order.remaining_lots = order.quantity_lots - filled
    order.margin_price_ticks = hold.margin_price_ticks
    order.open_loss = hold.open_loss
    working.lots += order.remaining_lots
    working.value += hold.value
    working.open_loss += hold.open_loss


cdef void _apply_amendment(
    Book *book, AmendmentRequest *request, uint64_t now_ns, Writer *writer
) noexcept nogil:
    cdef OrderReply reply
    cdef Hold hold
    cdef Order *order
    cdef Ring *ring
    cdef uint32_t recalled
    memset(&reply, 0, sizeof(OrderReply) - sizeof(DecisionDetail))
    reply.decision = DECISION_REJECTED
    reply.margin_unknown = True
    reply.revision = book.revision
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
    book.revision += 1
    reply.revision = book.revision
    if reply.reason == REASON_NONE:
        _replace(book, order, request, &hold)
    encode_amendment_reply(writer, &reply)
    _remember(
        ring,
        ANSWER_AMENDMENT,
        request.gateway_id,
        request.client_order_id,
        request,
        sizeof(AmendmentRequest),
        writer,
    )


# --- ReportExecution -------------------------------------------------------------------------

cdef uint32_t _execution_form(
    const Book *book, const ExecutionRequest *request, const Order *order
) noexcept nogil:
    """Step 2 of ReportExecution, but for what the fill itself finds."""
    if request.kind < EXECUTION_KIND_FILL or request.kind > EXECUTION_KIND_VENUE_REJECT:
        return REASON_EXECUTION_KIND_NOT_SUPPORTED
    if order == NULL or order.gateway_id != request.gateway_id:
        return REASON_RESERVATION_UNKNOWN
    if request.instrument_id != 0 and (
        request.instrument_id != book.positions[order.position_index].instrument_id
    ):
        return REASON_EXECUTION_INSTRUMENT_MISMATCH
    if request.kind != EXECUTION_KIND_FILL:
        if request.price_ticks != 0 or request.quantity_lots != 0 or request.fee_minor != 0:
            return REASON_EXECUTION_QUANTITY_MISMATCH
        return REASON_NONE
    if request.price_ticks < 1 or request.price_ticks > NUMBER_MAX:
        return REASON_PRICE_OUT_OF_RANGE
    if request.quantity_lots == 0:
        return REASON_QUANTITY_MUST_BE_POSITIVE
    if request.quantity_lots > <uint64_t>NUMBER_MAX:
        return REASON_QUANTITY_OUT_OF_RANGE
    if request.quantity_lots > <uint64_t>order.remaining_lots:
        return REASON_EXECUTION_EXCEEDS_REMAINING
    if request.fee_minor > NUMBER_MAX or request.fee_minor < -NUMBER_MAX:
        return REASON_AMOUNT_OUT_OF_RANGE
    return REASON_NONE


cdef inline int64_t _open_loss_of(const Order *order, int64_t lots) noexcept nogil:
    """Return what leaves an order's open loss with some of its lots: all of it with the last."""
    if lots == order.remaining_lots:
        return order.open_loss
    return <int64_t>(<i128>order.open_loss * lots / order.remaining_lots)


cdef inline bint _is_beyond_limit(const Order *order, int64_t price_ticks) noexcept nogil:
    """Whether a fill is worse than its order's limit price."""
    if order.order_type != ORDER_TYPE_LIMIT:
        return False
    if order.side == SIDE_BUY:
        return price_ticks > order.price_ticks
    return price_ticks < order.price_ticks


cdef void _take_off(
    Position *position, Order *order, int64_t lots, const Instrument *instrument
) noexcept nogil:
    """Take lots of an order off the working sums."""
    cdef WorkingSum *working = &position.buy if order.side == SIDE_BUY else &position.sell
    cdef int64_t open_loss = _open_loss_of(order, lots)
    working.lots -= lots
    working.value -= order.margin_price_ticks * instrument.tick_value * lots
    working.open_loss -= open_loss
    order.open_loss -= open_loss
    order.remaining_lots -= lots
    debug_assert(working.lots >= 0 and working.value >= 0 and working.open_loss >= 0)


cdef uint32_t _fill(
    Book *book, Account *account, Position *position, const Instrument *instrument, Order *order,
    const ExecutionRequest *request, ExecutionReply *reply
) noexcept nogil:
    """Apply a fill: all figures first, then all changes."""
    cdef Terms terms
    cdef Holding holding
    cdef Fill fill
    cdef i128 cash
    cdef Asset *asset = &book.assets[instrument.asset_id - 1]
    terms_of(book, account, instrument, position, &terms)
    holding_of(position, &holding)
    fill_of(
        &terms,
        &holding,
        order.side,
        request.price_ticks,
        request.quantity_lots,
        _open_loss_of(order, <int64_t>request.quantity_lots),
        &fill,
    )
    cash = account.cash + fill.cash_change - request.fee_minor
    if not fill.fits or not fits(cash) or not fits(asset.deficit + fill.deficit):
        return REASON_MARGIN_OVERFLOWS
    position.lots = <int64_t>fill.lots
    position.entry_value = <int64_t>fill.entry_value
    position.wallet = <int64_t>fill.wallet
    account.cash = <int64_t>cash
    asset.deficit += <int64_t>fill.deficit
    reply.realised_pnl = <int64_t>fill.realised_pnl
    _take_off(position, order, <int64_t>request.quantity_lots, instrument)
    return REASON_NONE


cdef void _report_position(
    const Book *book,
    const Account *account,
    const Instrument *instrument,
    const Position *position,
    uint64_t now_ns, ExecutionReply *reply
) noexcept nogil:
    """Report the account and the position as they are now."""
    cdef Terms terms
    cdef Pool pool, others
    cdef i128 backing
    pool_of(book, account, 0, now_ns, &pool)
    if pool.known and pool_fits(&pool):
        reply.available = <int64_t>available_of(&pool)
        reply.margin_unknown = False
    reply.position_lots = position.lots
    reply.isolated_wallet = position.wallet
    terms_of(book, account, instrument, position, &terms)
    if terms.is_option:
        return
    if terms.margin_mode == MARGIN_MODE_ISOLATED or position.lots == 0:
        backing = position.wallet
    else:
        pool_of(book, account, position.instrument_id, now_ns, &others)
        if not others.known:
            return
        backing = others.cash + others.pnl - others.requirement
    reply.liquidation_status = liquidation_price_ticks_of(
        &terms, position.lots, position.entry_value, backing, &reply.liquidation_price_ticks
    )


cdef void _apply_execution(
    Book *book, ExecutionRequest *request, uint64_t now_ns, Writer *writer
) noexcept nogil:
    cdef ExecutionReply reply
    cdef Order *order
    cdef Position *position
    cdef Account *account
    cdef const Instrument *instrument
    cdef Ring *ring
    cdef uint32_t recalled
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
    order = order_find(book, request.reservation_id)
    reply.reason = _execution_form(book, request, order)
    if reply.reason == REASON_NONE:
        position = &book.positions[order.position_index]
        account = &book.accounts[position.account_index]
        instrument = &book.instruments[position.instrument_id - 1]
        if request.kind == EXECUTION_KIND_FILL:
            reply.reason = _fill(book, account, position, instrument, order, request, &reply)
        else:
            _take_off(position, order, order.remaining_lots, instrument)
    book.revision += 1
    reply.revision = book.revision
    if reply.reason == REASON_NONE:
        reply.decision = DECISION_ACCEPTED
        if request.kind == EXECUTION_KIND_FILL and _is_beyond_limit(order, request.price_ticks):
            reply.decision = DECISION_ACCEPTED_WITH_WARNING
            reply.reason = REASON_EXECUTION_BEYOND_LIMIT
        reply.remaining_lots = <uint64_t>order.remaining_lots
        if order.remaining_lots == 0:
            order_drop(book, order)
            position.working_orders -= 1
            account.working_orders -= 1
        _report_position(book, account, instrument, position, now_ns, &reply)
        position_drop_if_absent(book, position)
    encode_execution_reply(writer, &reply)
    _remember(
        ring,
        ANSWER_EXECUTION,
        request.gateway_id,
        request.execution_id,
        request,
        sizeof(ExecutionRequest),
        writer,
    )


# --- GetReservation, ReportMarks -------------------------------------------------------------

cdef void _answer_reservation(
    const Book *book, const ReservationRequest *request, Writer *writer
) noexcept nogil:
    """A read: the working order, or the remembered one when asked by the gateway's own id."""
    cdef AnswerHead head
    cdef uint8_t answer[REMEMBERED_SIZE_MAX]
    cdef uint64_t offset
    cdef uint64_t reservation_id = request.reservation_id
    cdef const OrderRequest *asked = NULL
    cdef const Order *order
    cdef const Position *position
    cdef const Ring *ring = ring_find(book, ANSWER_ORDER, request.gateway_id)
    if reservation_id == 0 and ring != NULL and answer_find(
        ring, ANSWER_ORDER, request.client_order_id, &head, &offset
    ):
        debug_assert(head.reply_size <= sizeof(answer))
        answer_copy(ring, offset, answer, head.reply_size)
        asked = <const OrderRequest *>head.content
        reservation_id = _reservation_id_in(answer, head.reply_size)
    elif reservation_id == 0:
        order = order_find_named(book, request.gateway_id, request.client_order_id)
        if order != NULL:
            reservation_id = order.reservation_id
    order = order_find(<Book *>book, reservation_id)
    if order != NULL:
        position = &book.positions[order.position_index]
        write_unsigned(writer, 1, RESERVATION_STATE_WORKING)
        write_unsigned(writer, 2, book.revision)
        write_unsigned(writer, 3, reservation_id)
        write_unsigned(writer, 4, book.accounts[position.account_index].account_id)
        write_unsigned(writer, 5, position.instrument_id)
        write_unsigned(writer, 6, order.side)
        write_signed(writer, 7, order.price_ticks)
        write_unsigned(writer, 8, <uint64_t>order.quantity_lots)
        write_unsigned(writer, 9, <uint64_t>order.remaining_lots)
    elif asked != NULL:
        write_unsigned(writer, 1, RESERVATION_STATE_CLOSED)
        write_unsigned(writer, 2, book.revision)
        write_unsigned(writer, 3, reservation_id)
        write_unsigned(writer, 4, asked.account_id)
        write_unsigned(writer, 5, asked.instrument_id)
        write_unsigned(writer, 6, asked.side)
        write_signed(writer, 7, asked.price_ticks)
        write_unsigned(writer, 8, asked.quantity_lots)
    else:
        write_unsigned(writer, 1, RESERVATION_STATE_UNKNOWN)
        write_unsigned(writer, 2, book.revision)
    if asked != NULL:
        write_bytes(writer, 15, answer, head.reply_size)


cdef uint64_t _reservation_id_in(const uint8_t *answer, size_t size) noexcept nogil:
    """Read field 3 of a CheckOrderResponse that we wrote.

    Fields 1 and 2 take a tag and a varint each.
    """
    cdef size_t place = 0
    cdef uint32_t field
    cdef uint32_t shift
    cdef uint64_t value
    while place < size:
        field = answer[place] >> 3
        place += 1
        value = 0
        shift = 0
        while place < size:
            value |= <uint64_t>(answer[place] & 0x7F) << shift
            shift += 7
            place += 1
            if answer[place - 1] < 0x80:
                break
        if field == 3:
            return value
        if field > 3:
            return 0
    return 0


cdef uint32_t _take_mark(
    Book *book, const MarkReport *report, uint64_t now_ns
) noexcept nogil:
    cdef Instrument *instrument = instrument_find(book, report.instrument_id)
    if instrument == NULL:
        return REASON_INSTRUMENT_UNKNOWN
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


cdef bint _apply_marks(
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
        return False
    for index in range(count):
        reason = _take_mark(book, &marks[index], now_ns)
        if reason != REASON_NONE:
            refusals[refused].index = index
            refusals[refused].reason = reason
            refused += 1
    if refused < count:
        book.revision += 1
    encode_marks_reply(writer, book.revision, count - refused, refusals, refused)
    return True


# --- apply -----------------------------------------------------------------------------------

cdef bint engine_apply(
    Book *book,
    uint32_t method,
    const uint8_t *request,
    size_t size,
    uint64_t now_ns,
    Writer *writer,
    Malformed *malformed,
) noexcept nogil:
    """Take one hot request to its reply.

    False when it is malformed, and then nothing has changed.
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
            return False
        _apply_order(book, &order, now_ns, writer)
    elif method == HOT_REPORT_EXECUTION:
        if not decode_execution(request, size, &execution, malformed):
            return False
        _apply_execution(book, &execution, now_ns, writer)
    elif method == HOT_GET_RESERVATION:
        if not decode_reservation(request, size, &reservation, malformed):
            return False
        _answer_reservation(book, &reservation, writer)
    elif method == HOT_REPORT_MARKS:
        return _apply_marks(book, request, size, now_ns, writer, malformed)
    elif method == HOT_CHECK_AMENDMENT:
        if not decode_amendment(request, size, &amendment, malformed):
            return False
        _apply_amendment(book, &amendment, now_ns, writer)
    return True
