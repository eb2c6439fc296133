"""The ladder of a pre-trade check (docs/decision.md, CheckOrder): reads the book, changes nothing.

`_form` finds who and what an order is about, `_prepare` computes once what does not depend on its
quantity, `_evaluate` runs the rules for one quantity. Rejects for size or margin run `_evaluate`
again by bisection, to say how much would have passed.
"""

from libc.math cimport llround
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.black cimport Greeks, black76
from riskd.core.book cimport (
    Book,
    Gateway,
    account_find,
    account_place,
    balance_has_room,
    balance_of,
    base_held,
    collateral_find,
    gateway_find,
    instrument_find,
    money_of,
    position_find,
    settings_of,
    takes_position_side,
)
from riskd.core.collateral cimport is_foreign, may_trade
from riskd.core.controls cimport (
    Ask,
    Controls,
    controls_check,
    controls_has_largest,
    controls_of,
    controls_smallest,
)
from riskd.core.families cimport (
    liquidation_margin_of,
    lots_max_at,
    maintenance_margin_of,
    position_initial_of,
    tier_of,
)
from riskd.core.hedge cimport Group, group_of, group_sums, is_liquidatable
from riskd.core.levels cimport level_has_room
from riskd.core.limits cimport (
    below_order_notional_min,
    below_order_quantity_min,
    collar_ppb_bound,
    exceeds_order_notional_max,
    exceeds_order_quantity_max,
    exceeds_position_notional_max,
    outside_collar,
    violate as _violate,
)
from riskd.core.margin cimport (
    Exposure,
    beyond_money,
    notional_max_at,
)
from riskd.core.money cimport (
    PPB,
    ceil_div,
    clamp,
    fits,
    floor_div,
    i128,
    larger,
    magnitude,
)
from riskd.core.option_rules cimport (
    has_marks,
    marks_reason_of,
    may_be_short,
    short_margin_of,
)
from riskd.core.orders cimport (
    closes_all,
    has_limit_price,
    has_trigger_price,
    is_protective,
    is_stop,
)
from riskd.core.pool cimport (
    UNKNOWN_EQUITY,
    Fill,
    Holding,
    Pool,
    Purse,
    Share,
    Terms,
    available_of,
    bankruptcy_price_ticks_of,
    equity_of_pool,
    fill_of,
    holding_is_open,
    holding_of,
    is_still,
    liquidation_price_ticks_of,
    mark_value_down,
    mark_value_up,
    pool_beside_order,
    pool_fits,
    pool_join,
    share_clear,
    share_of,
    share_with_order,
    terms_of,
    unrealised_pnl_at,
)
from riskd.core.types cimport *
from riskd.core.value cimport (
    is_inverse,
    is_option,
    least_lots_of,
    mark_reason_of,
    order_value_of,
    traded_of,
    value_of,
)


# What does not depend on the quantity of the order.
ctypedef struct Case:
    const Book *book
    const OrderRequest *order
    const Account *account
    const Instrument *instrument
    const Position *position    # NULL while there is none
    const Order *replaced       # the order that an amendment would replace; NULL for a new one
    uint64_t now_ns
    uint32_t position_side
    bint is_protective
    bint takes_room             # whether step 7 applies
    Terms terms
    Holding holding             # without the order and without the replaced one
    int64_t reducible           # the largest strictly reducing quantity
    int64_t reference           # R, in mark units; 0 while it is unknown
    int64_t price_ticks         # p; 0 while it is unknown
    bint is_foreign             # settled in another asset than the account
    Pool others                 # sums over the account's other positions
    Purse purse                 # what they come to in the instrument's asset, if it is_foreign
    bint is_exposed             # the order adds to what the account loses with some collateral
    int64_t money               # of the account in the instrument's asset
    Group group                 # those of them that share its liquidation price
    Pool before                 # sums without the order
    Share share_before
    Pool current                # sums as they are: with the replaced order
    Controls *controls          # the limits that it meets; NULL while there are none

# What one quantity comes to.
ctypedef struct Figures:
    bint reducing
    bint lighter                # an amendment that only takes risk away
    bint sums_fit               # the working sums with the order fit
    uint32_t soft               # the first soft limit that is broken, else NONE
    i128 value
    i128 margin_price
    i128 open_loss
    Share share
    Pool after                  # sums with the order
    Fill fill
    bint has_fill               # the fill and the figures below are known and fit
    i128 backing                # money behind the position after the fill
    i128 pnl
    i128 equity
    i128 requirement


# --- steps 3 and 4 ---------------------------------------------------------------------------

cdef inline bint _is_step(int64_t ticks, int64_t largest) noexcept nogil:
    return 1 <= ticks <= largest


cdef uint32_t _prices_form(
    const Instrument *instrument,
    uint32_t order_type,
    int64_t price_ticks,
    int64_t trigger_price_ticks,
    int64_t trailing_offset_ticks,
) noexcept nogil:
    """F-12, F-18, F-19: the prices that the type has are in range, the others 0."""
    cdef int64_t largest = NUMBER_MAX / instrument.units_per_tick
    if has_limit_price(order_type):
        if not _is_step(price_ticks, NUMBER_MAX):
            return REASON_PRICE_OUT_OF_RANGE
    elif price_ticks != 0:
        return REASON_PRICE_OUT_OF_RANGE
    if has_trigger_price(order_type):
        if not _is_step(trigger_price_ticks, largest):
            return REASON_TRIGGER_PRICE_OUT_OF_RANGE
    elif trigger_price_ticks != 0:
        return REASON_TRIGGER_PRICE_OUT_OF_RANGE
    if order_type == ORDER_TYPE_TRAILING_STOP:
        if not _is_step(trailing_offset_ticks, largest):
            return REASON_TRAILING_OFFSET_OUT_OF_RANGE
    elif trailing_offset_ticks != 0:
        return REASON_TRAILING_OFFSET_OUT_OF_RANGE
    return REASON_NONE


cdef bint _flags_fit(const OrderRequest *order) noexcept nogil:
    """F-8."""
    cdef uint32_t flags = order.flags
    if flags == 0:
        return True
    if flags & ~<uint32_t>(
        ORDER_FLAG_REDUCE_ONLY
        | ORDER_FLAG_POST_ONLY
        | ORDER_FLAG_CLOSE_POSITION
        | ORDER_FLAG_QUOTE_QUANTITY
    ):
        return False
    if flags & ORDER_FLAG_POST_ONLY:
        if not has_limit_price(order.order_type):
            return False
        if (
            order.time_in_force == TIME_IN_FORCE_IOC
            or order.time_in_force == TIME_IN_FORCE_FOK
        ):
            return False
    return not flags & ORDER_FLAG_QUOTE_QUANTITY or not (
        has_limit_price(order.order_type) or flags & ORDER_FLAG_CLOSE_POSITION
    )


cdef uint32_t _form(
    const Book *book, const OrderRequest *order, uint64_t now_ns, Case *case
) noexcept nogil:
    """Step 3: what the order says, and whether it is about something that exists."""
    cdef uint64_t largest = <uint64_t>NUMBER_MAX
    cdef const Position *settings
    cdef uint32_t reason
    if order.view > DECISION_VIEW_FULL:
        return REASON_VIEW_NOT_SUPPORTED
    if order.mode > CHECK_MODE_CHECK_ONLY:
        return REASON_CHECK_MODE_NOT_SUPPORTED
    case.account = account_find(<Book *>book, order.account_id)
    if case.account == NULL:
        return REASON_ACCOUNT_UNKNOWN
    case.instrument = instrument_find(<Book *>book, order.instrument_id)
    if case.instrument == NULL:
        return REASON_INSTRUMENT_UNKNOWN
    if order.side != SIDE_BUY and order.side != SIDE_SELL:
        return REASON_SIDE_INVALID
    if order.order_type < ORDER_TYPE_LIMIT or order.order_type > ORDER_TYPE_TRAILING_STOP:
        return REASON_ORDER_TYPE_NOT_SUPPORTED
    if order.time_in_force > TIME_IN_FORCE_GTD:
        return REASON_TIME_IN_FORCE_NOT_SUPPORTED
    if not _flags_fit(order):
        return REASON_FLAG_NOT_SUPPORTED
    if not takes_position_side(
        book, case.account, order.instrument_id, order.position_side
    ):
        return REASON_POSITION_SIDE_NOT_SUPPORTED
    if order.quantity_lots == 0 and not order.flags & ORDER_FLAG_CLOSE_POSITION:
        return REASON_QUANTITY_MUST_BE_POSITIVE
    reason = _prices_form(
        case.instrument,
        order.order_type,
        order.price_ticks,
        order.trigger_price_ticks,
        order.trailing_offset_ticks,
    )
    if reason != REASON_NONE:
        return reason
    if order.time_in_force == TIME_IN_FORCE_GTD:
        if order.expire_time_ns <= now_ns:
            return REASON_EXPIRE_TIME_OUT_OF_RANGE
    elif order.expire_time_ns != 0:
        return REASON_EXPIRE_TIME_OUT_OF_RANGE
    if not may_trade(book, case.account, case.instrument):
        return REASON_SETTLEMENT_ASSET_MISMATCH
    case.position_side = max(order.position_side, <uint32_t>POSITION_SIDE_NET)
    case.position = position_find(
        <Book *>book, case.account, order.instrument_id, case.position_side
    )
    settings = settings_of(
        book, case.account, case.position, order.instrument_id, case.position_side
    )
    terms_of(book, case.account, case.instrument, settings, &case.terms)
    if order.margin_mode != MARGIN_MODE_UNSPECIFIED and order.margin_mode != case.terms.margin_mode:
        return REASON_MARGIN_MODE_MISMATCH
    if order.flags & ORDER_FLAG_CLOSE_POSITION:
        largest = 0
    elif order.flags & ORDER_FLAG_QUOTE_QUANTITY:
        largest = <uint64_t>1 << 62
    if order.quantity_lots > largest:
        return REASON_QUANTITY_OUT_OF_RANGE
    return REASON_NONE


cdef uint32_t _resolve_lots(const Case *case, i128 *lots) noexcept nogil:
    """The end of step 3: the quantity of an order, also where it does not give it."""
    cdef const Instrument *instrument = case.instrument
    cdef i128 price
    lots[0] = case.order.quantity_lots
    if case.order.flags & ORDER_FLAG_CLOSE_POSITION:
        lots[0] = case.reducible
        if case.reducible == 0:
            return REASON_REDUCE_ONLY_WOULD_INCREASE
    elif case.order.flags & ORDER_FLAG_QUOTE_QUANTITY:
        if case.reference == 0:
            return REASON_MARK_MISSING
        # As many lots as the amount can come to.
        if is_inverse(instrument):
            price = _moved_up(case, case.reference)
            lots[0] = floor_div(case.order.quantity_lots * price, instrument.quotient)
        else:
            price = larger(1, _moved_down(case, case.reference))
            lots[0] = floor_div(case.order.quantity_lots, price * instrument.tick_value)
        if lots[0] == 0:
            return REASON_QUANTITY_MUST_BE_POSITIVE
        if lots[0] > NUMBER_MAX:
            return REASON_QUANTITY_OUT_OF_RANGE
    return REASON_NONE


cdef uint32_t _state(const Case *case, i128 lots, bint reducing) noexcept nogil:
    """Step 4: whether trading is allowed, and the mark known."""
    cdef uint32_t service = case.book.service_state
    cdef uint32_t firm = _firm_state(case)
    cdef const Gateway *gateway = gateway_find(case.book, case.order.gateway_id)
    cdef const Instrument *instrument = case.instrument
    if service == TRADING_STATE_HALTED:
        return REASON_SERVICE_HALTED
    if firm == TRADING_STATE_HALTED:
        return REASON_FIRM_HALTED
    if gateway != NULL and gateway.trading_state == TRADING_STATE_HALTED:
        return REASON_GATEWAY_HALTED
    if _account_is(case, TRADING_STATE_HALTED):
        return REASON_ACCOUNT_HALTED
    if instrument.trading_state == TRADING_STATE_HALTED:
        return REASON_INSTRUMENT_HALTED
    if instrument.settlement_price != 0 or (
        instrument.expiry_ns != 0 and instrument.expiry_ns <= case.now_ns
    ):
        return REASON_INSTRUMENT_EXPIRED
    if reducing:
        return REASON_MARK_MISSING if case.price_ticks == 0 else REASON_NONE
    if service == TRADING_STATE_REDUCE_ONLY:
        return REASON_SERVICE_REDUCE_ONLY
    if firm == TRADING_STATE_REDUCE_ONLY:
        return REASON_FIRM_REDUCE_ONLY
    if gateway != NULL and gateway.trading_state == TRADING_STATE_REDUCE_ONLY:
        return REASON_GATEWAY_REDUCE_ONLY
    if _account_is(case, TRADING_STATE_REDUCE_ONLY):
        return REASON_ACCOUNT_REDUCE_ONLY
    if instrument.trading_state == TRADING_STATE_REDUCE_ONLY:
        return REASON_INSTRUMENT_REDUCE_ONLY
    if gateway != NULL and gateway.lease_end_ns != 0 and gateway.lease_end_ns <= case.now_ns:
        return REASON_GATEWAY_LEASE_ENDED
    if case.terms.rule != NULL and _needs_underlying(case, lots):
        return marks_reason_of(&case.terms, case.now_ns)
    return mark_reason_of(instrument, case.now_ns)


cdef bint _needs_underlying(const Case *case, i128 lots) noexcept nogil:
    """Whether a position of the order's option is short, or would be by its sells, this order
    counted.
    """
    cdef const Position *position
    cdef uint32_t place = case.account.first_position
    cdef i128 sold = case.holding.sell.lots
    if case.order.side == SIDE_SELL and not case.is_protective:
        sold += lots
    if may_be_short(case.holding.lots, sold):
        return True
    while place != NOWHERE:
        position = &case.book.positions[place]
        place = position.next_of_account
        if position != case.position and position.instrument_id == case.order.instrument_id:
            if may_be_short(position.lots, position.sell.lots):
                return True
    return False


cdef inline uint32_t _firm_state(const Case *case) noexcept nogil:
    if case.account.firm == NOWHERE:
        return TRADING_STATE_NORMAL
    return case.book.firms[case.account.firm].trading_state


cdef inline bint _account_is(const Case *case, uint32_t state) noexcept nogil:
    """Whether the account or its parent is in a trading state."""
    return case.account.trading_state == state or (
        case.account.parent != NOWHERE
        and case.book.accounts[case.account.parent].trading_state == state
    )


cdef i128 _reference(const Case *case) noexcept nogil:
    """Return R in mark units: the price that the market is assumed to be at when the order can
    fill; 0 while it is unknown.
    """
    cdef const OrderRequest *order = case.order
    cdef i128 mark = case.instrument.mark.price
    cdef i128 trigger, offset
    cdef bint is_buy = order.side == SIDE_BUY
    if order.order_type == ORDER_TYPE_TRAILING_STOP:
        offset = <i128>order.trailing_offset_ticks * case.instrument.units_per_tick
        if mark == 0:
            return 0
        return mark + offset if is_buy else larger(1, mark - offset)
    if not has_trigger_price(order.order_type):
        return mark
    trigger = <i128>order.trigger_price_ticks * case.instrument.units_per_tick
    if mark == 0:
        return trigger
    # A stop waits for a worse price, a take profit for a better one.
    if is_stop(order.order_type) == is_buy:
        return larger(trigger, mark)
    return min(trigger, mark)


cdef inline i128 _moved_down(const Case *case, i128 reference) noexcept nogil:
    """Return a price in ticks that the market buffer lies below the reference price."""
    return floor_div(
        reference * (PPB - case.instrument.market_buffer_ppb),
        <i128>PPB * case.instrument.units_per_tick,
    )


cdef inline i128 _moved_up(const Case *case, i128 reference) noexcept nogil:
    """Return a price in ticks that the market buffer lies above the reference price."""
    return ceil_div(
        reference * (<i128>PPB + case.instrument.market_buffer_ppb),
        <i128>PPB * case.instrument.units_per_tick,
    )


cdef i128 _assumed_price(const Case *case) noexcept nogil:
    """Return p, the price in ticks that the order is margined at; 0 while it is unknown."""
    if has_limit_price(case.order.order_type):
        return case.order.price_ticks
    if case.reference == 0:
        return 0
    if case.order.side == SIDE_SELL:
        return larger(1, _moved_down(case, case.reference))
    return _moved_up(case, case.reference)


cdef void _prepare(
    const Book *book, const OrderRequest *order, uint64_t now_ns, Controls *controls, Case *case
) noexcept nogil:
    """Compute what does not depend on the quantity.

    `_form` was passed, but for the quantity's bound. `controls` is room for the limits.
    """
    cdef Share share
    cdef i128 price
    cdef bint is_buy = order.side == SIDE_BUY
    case.book = book
    case.order = order
    case.now_ns = now_ns
    case.is_protective = is_protective(order.order_type, order.flags)
    holding_of(case.position, &case.holding)
    case.is_foreign = is_foreign(case.account, case.instrument)
    case.money = money_of(book, case.account, case.instrument.asset_id)
    case.is_exposed = case.instrument.base_asset_id != 0 and _is_exposed(case)
    share_of(&case.terms, &case.holding, &share)
    _sum_others(case, &case.holding, &share, &case.others, &case.purse)
    case.group.count = 0
    case.group.pnl = 0
    case.group.requirement = 0
    # Most accounts have a position a contract, and a test is all that they pay.
    if case.others.has_sides or case.position_side != POSITION_SIDE_NET:
        group_of(
            book, case.account, &case.terms, order.instrument_id, case.position, &case.group
        )
    _join(case, &share, &case.holding, &case.current)
    if case.replaced != NULL and not case.is_protective:
        _take_replaced_off(case)
        if case.is_exposed:
            _sum_others(case, &case.holding, NULL, &case.others, &case.purse)
    case.controls = NULL
    if controls_of(
        book,
        case.account,
        case.instrument,
        order.instrument_id,
        order.gateway_id,
        case.replaced,
        now_ns,
        controls,
    ):
        case.controls = controls
    case.reducible = 0
    if case.holding.lots > 0 and not is_buy:
        case.reducible = case.holding.lots
        if not case.is_protective:
            case.reducible = max(<int64_t>0, case.reducible - case.holding.sell.lots)
    elif case.holding.lots < 0 and is_buy:
        case.reducible = -case.holding.lots
        if not case.is_protective:
            case.reducible = max(<int64_t>0, case.reducible - case.holding.buy.lots)
    case.reference = <int64_t>_reference(case)
    price = _assumed_price(case)
    # Beyond the range is one above it: F-13 says so.
    case.price_ticks = <int64_t>price if price <= NUMBER_MAX else NUMBER_MAX + 1
    if case.reference > NUMBER_MAX:
        case.price_ticks = NUMBER_MAX + 1
    if case.replaced == NULL or case.is_protective:
        case.share_before = share
        case.before = case.current
        return
    share_of(&case.terms, &case.holding, &case.share_before)
    _join(case, &case.share_before, &case.holding, &case.before)


cdef bint _is_exposed(const Case *case) noexcept nogil:
    """Whether the order adds to what the account loses with an asset that counts less for it."""
    cdef const Collateral *collateral
    if case.order.side != SIDE_BUY or case.is_protective or (
        case.terms.is_option or case.terms.margin_mode != MARGIN_MODE_CROSS
    ):
        return False
    collateral = collateral_find(
        case.book, case.instrument.base_asset_id, case.account.asset_id
    )
    return collateral != NULL and collateral.wrong_way_ppb != 0


cdef void _sum_others(
    const Case *case, const Holding *holding, const Share *share, Pool *others, Purse *purse
) noexcept nogil:
    """Sum the account's other positions, exposed as they are with the buys of the holding.

    `share` is what the order's position adds as it is; NULL where it is another now.
    """
    cdef i128 exposed = 0
    if case.is_exposed:
        exposed = holding.buy.value
        if case.position != NULL:
            exposed -= case.position.buy.value
    pool_beside_order(
        case.book,
        case.account,
        &case.terms,
        case.position,
        case.position_side,
        share,
        not case.is_protective or holding_is_open(&case.holding),
        exposed,
        case.now_ns,
        others,
        purse,
    )


cdef void _join_exposed(
    const Case *case, const Share *share, const Holding *holding, Pool *pool
) noexcept nogil:
    """As _join, where the order itself lowers what collateral counts."""
    cdef Pool others
    cdef Purse purse
    _sum_others(case, holding, NULL, &others, &purse)
    pool_join(case.book, &others, &purse, share, holding_is_open(holding), 0, pool)


cdef inline void _join(
    const Case *case, const Share *share, const Holding *holding, Pool *pool
) noexcept nogil:
    """Write the account's sums with the order's position as it is, or would be."""
    pool_join(
        case.book, &case.others, &case.purse, share, holding_is_open(holding), 0, pool
    )


cdef void _move_group(const Case *case, i128 *pnl, i128 *requirement) noexcept nogil:
    """Add what changes when those that move with the position come to the reference price."""
    cdef i128 group_pnl, group_requirement
    group_sums(&case.terms, &case.group, case.reference, &group_pnl, &group_requirement)
    pnl[0] += group_pnl - case.group.pnl
    requirement[0] += group_requirement - case.group.requirement


cdef bint _figure_pool(
    const Case *case, i128 pnl, i128 requirement, Figures *figures
) noexcept nogil:
    """Compute equity and requirement of the pool with the position that the fill leaves; False
    while they are not known. What the others of another asset add is known already.
    """
    cdef Share share
    cdef Pool pool
    if not case.is_foreign:
        figures.equity = equity_of_pool(&case.others) + figures.fill.cash_change + pnl
        figures.requirement = case.others.requirement + requirement
        return True
    share_clear(&share)
    share.pnl = pnl
    share.requirement = requirement
    pool_join(
        case.book, &case.others, &case.purse, &share, True, figures.fill.cash_change, &pool
    )
    figures.equity = equity_of_pool(&pool)
    figures.requirement = pool.requirement
    return not pool.unknown & UNKNOWN_EQUITY


cdef void _take_replaced_off(Case *case) noexcept nogil:
    """Take the order that would be replaced off the working sums of the case."""
    cdef const Order *order = case.replaced
    cdef WorkingSum *working = &case.holding.buy
    if order.side == SIDE_SELL:
        working = &case.holding.sell
    working.lots -= order.remaining_lots
    working.value -= order_value_of(case.instrument, order, order.remaining_lots)
    working.open_loss -= order.open_loss


cdef inline bint _has_no_price(const Case *case) noexcept nogil:
    """Whether what backs a cross position moves with the index of its asset, so that no price of
    its own says when it is liquidated.
    """
    return case.is_foreign and case.terms.margin_mode == MARGIN_MODE_CROSS


cdef i128 _backing(const Case *case, const Fill *fill) noexcept nogil:
    """Return the money behind the position after a fill.

    Its wallet, or what the pool has left for it and what moves with it.
    """
    if case.terms.margin_mode == MARGIN_MODE_ISOLATED:
        return fill.wallet
    if case.is_foreign:
        return 0
    return (
        equity_of_pool(&case.others)
        + fill.cash_change
        - case.others.requirement
        - case.group.pnl
        + case.group.requirement
    )


# --- steps 5 and 6 ---------------------------------------------------------------------------

cdef void _figure(const Case *case, i128 lots, Figures *figures) noexcept nogil:
    """Compute the account with the order, and the position after its fill."""
    cdef const Instrument *instrument = case.instrument
    cdef int64_t mark = instrument.mark.price
    cdef Holding holding
    cdef i128 notional
    cdef i128 pnl, requirement      # with what moves with the position
    cdef uint32_t unknown = 0       # an isolated contract needs nothing of the pool
    figures.has_fill = False
    figures.fill.fits = False
    if case.is_protective:
        figures.share = case.share_before
        figures.after = case.before
        figures.margin_price = 0
        figures.open_loss = 0
        figures.sums_fit = True
    else:
        holding = case.holding
        _price_hold(case, lots, figures)
        figures.sums_fit = _add_to(
            &holding.buy if case.order.side == SIDE_BUY else &holding.sell, case, lots, figures
        )
        if figures.sums_fit:
            share_with_order(
                &case.terms, &holding, case.order.side, &case.share_before, &figures.share
            )
            if case.is_exposed:
                _join_exposed(case, &figures.share, &holding, &figures.after)
            else:
                _join(case, &figures.share, &holding, &figures.after)
        else:
            figures.share = case.share_before
            figures.after = case.before
    fill_of(
        &case.terms,
        &case.holding,
        case.order.side,
        case.price_ticks,
        lots,
        figures.open_loss,
        &figures.fill,
    )
    if not fits(case.money + figures.fill.cash_change) or (
        case.terms.is_spot and not fits(_base_of(case) + figures.fill.base_change)
    ):
        figures.fill.fits = False
    if case.terms.margin_mode == MARGIN_MODE_CROSS or case.terms.is_option:
        unknown = UNKNOWN_EQUITY
    if not figures.fill.fits or case.others.unknown & unknown:
        return
    if mark == 0 and not case.terms.is_option:
        return
    figures.has_fill = True
    if case.terms.is_option:
        if case.terms.rule != NULL and figures.fill.lots < 0:
            _figure_short(case, figures)
        return
    notional = mark_value_up(&case.terms, magnitude(figures.fill.lots), case.reference)
    figures.pnl = unrealised_pnl_at(
        &case.terms, figures.fill.lots, figures.fill.entry_value, case.reference
    )
    figures.requirement = liquidation_margin_of(
        &case.terms, figures.fill.lots, figures.fill.entry_value, notional
    ) if figures.fill.lots != 0 else 0
    figures.backing = _backing(case, &figures.fill)
    pnl = figures.pnl
    requirement = figures.requirement
    if case.group.count != 0:
        _move_group(case, &pnl, &requirement)
    if case.terms.margin_mode == MARGIN_MODE_ISOLATED:
        figures.equity = figures.fill.wallet + figures.pnl
    elif not _figure_pool(case, pnl, requirement, figures):
        figures.has_fill = False
        return
    figures.has_fill = (
        fits(notional)
        and fits(figures.backing)
        and fits(figures.pnl)
        and fits(figures.equity)
        and fits(figures.requirement)
    )


cdef inline i128 _base_of(const Case *case) noexcept nogil:
    """Return what the account has of the base asset of a spot instrument."""
    return balance_of(case.book, case.account, case.instrument.base_asset_id)


cdef void _figure_short(const Case *case, Figures *figures) noexcept nogil:
    """Compute the pool with the short option that the fill leaves."""
    cdef i128 initial, maintenance
    figures.has_fill = False
    if not has_marks(&case.terms):
        return
    short_margin_of(&case.terms, -figures.fill.lots, &initial, &maintenance)
    if not _figure_pool(case, 0, maintenance, figures):
        return
    figures.has_fill = fits(figures.equity) and fits(figures.requirement)
    if not figures.has_fill:
        figures.fill.fits = False


cdef i128 _margin_price(const Case *case) noexcept nogil:
    """Return pm, so that a side's notional is the largest that it can come to when the order fills.

    A lot of a linear contract is worth more at a higher price than that of a sell, one of an
    inverse contract at a lower price than that of a buy.
    """
    cdef const Instrument *instrument = case.instrument
    cdef i128 reference = case.reference
    cdef i128 mark = instrument.mark.price
    if (case.order.side == SIDE_BUY) != is_inverse(instrument):
        return case.price_ticks
    if not is_inverse(instrument):
        reference = ceil_div(larger(reference, mark), instrument.units_per_tick)
        return larger(case.price_ticks, reference)
    if mark != 0:
        reference = min(reference, mark)
    reference = floor_div(reference, instrument.units_per_tick)
    return larger(1, min(<i128>case.price_ticks, reference))


cdef void _price_hold(const Case *case, i128 lots, Figures *figures) noexcept nogil:
    """Margin price and open loss: what the order counts with in the working sums."""
    cdef i128 loss
    figures.margin_price = case.price_ticks
    figures.open_loss = 0
    if case.terms.is_option or case.reference == 0:
        return
    figures.margin_price = _margin_price(case)
    # What the fill loses against the reference price.
    if (case.order.side == SIDE_BUY) != is_inverse(case.instrument):
        loss = _traded(case, lots, figures)
        loss -= mark_value_down(&case.terms, lots, case.reference)
    else:
        loss = mark_value_up(&case.terms, lots, case.reference)
        loss -= _traded(case, lots, figures)
    figures.open_loss = larger(0, loss)


cdef inline i128 _traded(const Case *case, i128 lots, const Figures *figures) noexcept nogil:
    """Return what the fill counts with; of linear contracts that is the value."""
    if is_inverse(case.instrument):
        return traded_of(case.instrument, case.price_ticks, lots, case.order.side)
    return figures.value


cdef bint _add_to(
    WorkingSum *working, const Case *case, i128 lots, Figures *figures
) noexcept nogil:
    """Add the order to the working sums of its side; False if one does not fit (M-3)."""
    cdef i128 value
    if not value_of(case.instrument, figures.margin_price, lots, &value):
        return False
    if lots + working.lots > NUMBER_MAX or not fits(value + working.value):
        return False
    if not fits(figures.open_loss + working.open_loss):
        return False
    working.lots += <int64_t>lots
    working.value += <int64_t>value
    working.open_loss += <int64_t>figures.open_loss
    return True


cdef uint32_t _evaluate(
    const Case *case, i128 lots, DecisionDetail *detail, Figures *figures, bint *reached
) noexcept nogil:
    """Run steps 4 to 6 for a quantity. With a detail every violated rule is noted, without it the
    first ends it.

    `reached` says whether step 5 was reached: only then are the figures set.
    """
    cdef const Instrument *instrument = case.instrument
    cdef uint32_t first = REASON_NONE
    cdef i128 bound, before, lots_before, lots_after
    cdef int64_t notional_max, lots_max
    cdef Violation *counted
    cdef Exposure exposure
    reached[0] = False
    figures.soft = REASON_NONE
    figures.reducing = case.reducible > 0 and lots <= case.reducible
    figures.lighter = case.replaced != NULL and _keeps_prices(case) and (
        lots <= case.replaced.remaining_lots
        or closes_all(case.order.order_type, case.replaced.flags)
    )
    first = _state(case, lots, figures.reducing or figures.lighter)
    if first != REASON_NONE:
        return first
    if case.price_ticks > NUMBER_MAX or not value_of(
        instrument, case.price_ticks, lots, &figures.value
    ):
        return REASON_NOTIONAL_OVERFLOWS
    if not fits(figures.value):
        return REASON_NOTIONAL_OVERFLOWS
    reached[0] = True
    _figure(case, lots, figures)
    if figures.lighter:
        if not figures.sums_fit:
            _violate(detail, &first, REASON_MARGIN_OVERFLOWS, 0, 0, 0)
        return first

    if not figures.reducing and case.order.flags & (
        ORDER_FLAG_REDUCE_ONLY | ORDER_FLAG_CLOSE_POSITION
    ):
        _violate(detail, &first, REASON_REDUCE_ONLY_WOULD_INCREASE, case.reducible, 0, lots)
        if detail == NULL:
            return first
    if case.is_protective and case.replaced == NULL and case.position != NULL and (
        case.position.protective_orders >= PROTECTIVE_ORDERS_MAX
    ):
        _violate(
            detail,
            &first,
            REASON_PROTECTIVE_ORDERS_MAX,
            PROTECTIVE_ORDERS_MAX,
            case.position.protective_orders,
            1,
        )
        if detail == NULL:
            return first
    if not figures.reducing and _is_against(case):
        _violate(detail, &first, REASON_POSITION_SIDE_WOULD_TURN, case.reducible, 0, lots)
        if detail == NULL:
            return first
    if case.terms.is_option and case.terms.rule == NULL and not case.terms.is_spot and (
        case.order.side == SIDE_SELL and not figures.reducing
    ):
        _violate(detail, &first, REASON_SHORT_OPTION_NOT_PERMITTED, case.reducible, 0, lots)
        if detail == NULL:
            return first
    if has_limit_price(case.order.order_type) and outside_collar(
        instrument, case.order.side, case.price_ticks, case.reference
    ):
        bound = collar_ppb_bound(
            case.order.side,
            instrument.units_per_tick,
            case.reference,
            instrument.price_collar_ppb,
        )
        _violate(detail, &first, REASON_PRICE_OUTSIDE_COLLAR, bound, 0, case.price_ticks)
        if detail == NULL:
            return first
    if figures.reducing:
        _check_limits(case, lots, detail, figures, &first)
        if not figures.sums_fit:
            _violate(detail, &first, REASON_MARGIN_OVERFLOWS, 0, 0, 0)
        return first

    if below_order_quantity_min(instrument, lots):
        _violate(
            detail, &first, REASON_BELOW_ORDER_QUANTITY_MIN, instrument.order_lots_min, 0, lots
        )
        if detail == NULL:
            return first
    if exceeds_order_quantity_max(instrument, lots):
        _violate(
            detail, &first, REASON_EXCEEDS_ORDER_QUANTITY_MAX, instrument.order_lots_max, 0, lots
        )
        if detail == NULL:
            return first
    if below_order_notional_min(instrument, figures.value):
        _violate(
            detail,
            &first,
            REASON_BELOW_ORDER_NOTIONAL_MIN,
            instrument.order_notional_min,
            0,
            figures.value,
        )
        if detail == NULL:
            return first
    if exceeds_order_notional_max(instrument, figures.value):
        _violate(
            detail,
            &first,
            REASON_EXCEEDS_ORDER_NOTIONAL_MAX,
            instrument.order_notional_max,
            0,
            figures.value,
        )
        if detail == NULL:
            return first
    if not case.terms.is_option:
        notional_max = notional_max_at(case.terms.ladder, case.terms.leverage)
        if case.order.side == SIDE_BUY:
            before, bound = case.share_before.buy_notional, figures.share.buy_notional
            lots_before, lots_after = case.share_before.buy_lots, figures.share.buy_lots
        else:
            before, bound = case.share_before.sell_notional, figures.share.sell_notional
            lots_before, lots_after = case.share_before.sell_lots, figures.share.sell_lots
        lots_max = lots_max_at(case.terms.schedule, case.terms.leverage)
        if figures.sums_fit and exceeds_position_notional_max(notional_max, bound):
            _violate(
                detail,
                &first,
                REASON_EXCEEDS_POSITION_NOTIONAL_MAX,
                larger(0, notional_max),
                before,
                bound - before,
            )
            if detail == NULL:
                return first
        elif figures.sums_fit and lots_after > lots_max:
            counted = _violate(
                detail,
                &first,
                REASON_EXCEEDS_POSITION_NOTIONAL_MAX,
                lots_max,
                lots_before,
                lots_after - lots_before,
            )
            if counted != NULL:
                counted.in_lots = True
            if detail == NULL:
                return first

    _check_limits(case, lots, detail, figures, &first)
    if detail == NULL and first != REASON_NONE:
        return first

    if case.others.mark_reason != REASON_NONE:
        _violate(detail, &first, case.others.mark_reason, 0, 0, 0)
        return first
    if not (
        figures.sums_fit
        and figures.has_fill
        and pool_fits(&figures.after)
        and pool_fits(&case.before)
    ):
        _violate(detail, &first, REASON_MARGIN_OVERFLOWS, 0, 0, 0)
        return first
    if available_of(&figures.after) < 0:
        _violate(
            detail,
            &first,
            REASON_MARGIN_INSUFFICIENT,
            available_of(&case.before),
            0,
            figures.after.initial_margin - case.before.initial_margin,
        )
        if detail == NULL:
            return first
    if case.terms.is_spot and case.order.side == SIDE_SELL:
        bound = base_held(
            case.book, case.account, instrument.base_asset_id, case.position
        ) + <i128>case.holding.sell.lots * instrument.base_value
        if _base_of(case) < bound - figures.fill.base_change:
            _violate(
                detail,
                &first,
                REASON_BALANCE_INSUFFICIENT,
                _base_of(case),
                bound,
                -figures.fill.base_change,
            )
            if detail == NULL:
                return first
    if case.terms.is_option:
        if case.terms.rule != NULL and figures.fill.lots < 0 and (
            figures.equity <= figures.requirement
        ):
            _violate(
                detail, &first, REASON_BORN_LIQUIDATABLE, figures.equity, 0, figures.requirement
            )
    elif figures.fill.lots != 0 and _has_no_price(case):
        if figures.equity <= figures.requirement:
            _violate(
                detail, &first, REASON_BORN_LIQUIDATABLE, figures.equity, 0, figures.requirement
            )
    elif figures.fill.lots != 0:
        exposure.lots = <int64_t>figures.fill.lots
        exposure.entry_value = <int64_t>figures.fill.entry_value
        exposure.wallet = <int64_t>figures.backing
        if is_liquidatable(&case.terms, &exposure, &case.group, case.reference):
            _violate(
                detail, &first, REASON_BORN_LIQUIDATABLE, figures.equity, 0, figures.requirement
            )
    return first


cdef void _check_limits(
    const Case *case, i128 lots, DecisionDetail *detail, Figures *figures, uint32_t *first
) noexcept nogil:
    """The end of step 5: the limits of the order's levels (docs/limits.md)."""
    cdef Ask ask
    if case.controls == NULL:
        return
    ask.lots = lots
    ask.value = figures.value
    # What does not fit is far above any limit.
    if figures.margin_price == 0:
        ask.margin_value = 0
    elif not value_of(
        case.instrument, figures.margin_price, lots, &ask.margin_value
    ) or ask.margin_value > beyond_money():
        ask.margin_value = beyond_money()
    ask.reference = case.reference
    ask.price_ticks = case.price_ticks
    ask.leverage = 0 if case.terms.is_option else case.terms.leverage
    ask.side = case.order.side
    ask.has_limit_price = has_limit_price(case.order.order_type)
    ask.only_collars = figures.reducing or case.is_protective
    ask.is_amendment = case.replaced != NULL
    controls_check(case.controls, &ask, detail, first, &figures.soft)


cdef inline bint _keeps_prices(const Case *case) noexcept nogil:
    """Whether an amendment keeps price, trigger price and trailing offset."""
    return (
        case.order.price_ticks == case.replaced.price_ticks
        and case.order.trigger_price_ticks == case.replaced.trigger_price_ticks
        and case.order.trailing_offset_ticks == case.replaced.trailing_offset_ticks
    )


cdef inline bint _is_against(const Case *case) noexcept nogil:
    """In hedge mode: whether the order's side only closes the position's."""
    if case.position_side == POSITION_SIDE_LONG:
        return case.order.side == SIDE_SELL
    return case.position_side == POSITION_SIDE_SHORT and case.order.side == SIDE_BUY


cdef void _check_room(const Case *case, DecisionDetail *detail, uint32_t *first) noexcept nogil:
    """Step 7: whether the tables have room for the order."""
    cdef const Book *book = case.book
    if book.order_count == book.order_capacity:
        _violate(detail, first, REASON_ORDERS_FULL, 0, 0, 0)
    if case.position == NULL and book.position_count == book.position_capacity:
        _violate(detail, first, REASON_POSITIONS_FULL, 0, 0, 0)
    if not level_has_room(book, case.account, case.order.instrument_id):
        _violate(detail, first, REASON_HOLDINGS_FULL, 0, 0, 0)
    if case.is_foreign and not balance_has_room(book, case.account, case.instrument.asset_id):
        _violate(detail, first, REASON_BALANCES_FULL, 0, 0, 0)
    if case.terms.is_spot and not balance_has_room(
        book, case.account, case.instrument.base_asset_id
    ):
        _violate(detail, first, REASON_BALANCES_FULL, 0, 0, 0)


# --- how much would have passed --------------------------------------------------------------

cdef inline bint _passes(const Case *case, i128 lots, uint32_t *reason) noexcept nogil:
    cdef Figures figures
    cdef bint reached
    reason[0] = _evaluate(case, lots, NULL, &figures, &reached)
    return reason[0] == REASON_NONE


cdef i128 _largest_passing(const Case *case, i128 above, uint32_t *reason) noexcept nogil:
    """Return the largest quantity below `above` found by bisection (0 if none), and why one lot
    more does not pass.

    `above` does not pass. The invariant (low passes, high does not) makes the answer exact: it
    passes and one lot more does not.
    """
    cdef i128 low = case.reducible
    cdef i128 high = above
    cdef i128 smallest = larger(1, case.instrument.order_lots_min)
    cdef i128 middle
    cdef uint32_t why
    if case.replaced != NULL and _keeps_prices(case):
        low = larger(low, case.replaced.remaining_lots)
    smallest = larger(
        smallest,
        least_lots_of(case.instrument, case.price_ticks, case.instrument.order_notional_min),
    )
    if case.controls != NULL:
        smallest = larger(smallest, controls_smallest(case.controls, case.price_ticks))
    # What passes without minimums may lie below the smallest order that meets them.
    if low < smallest and smallest < high and _passes(case, smallest, &why):
        low = smallest
    if low == 0 or low >= high or not _passes(case, low, &why):
        return 0
    while high - low > 1:
        middle = low + (high - low) / 2
        if _passes(case, middle, &why):
            low = middle
        else:
            high = middle
            reason[0] = why
    return low


cdef inline bint _has_largest(uint32_t reason) noexcept nogil:
    """Whether a smaller quantity may pass where this reason stopped one."""
    return (
        reason == REASON_QUANTITY_OUT_OF_RANGE
        or reason == REASON_NOTIONAL_OVERFLOWS
        or reason == REASON_EXCEEDS_ORDER_QUANTITY_MAX
        or reason == REASON_EXCEEDS_ORDER_NOTIONAL_MAX
        or reason == REASON_EXCEEDS_POSITION_NOTIONAL_MAX
        or reason == REASON_REDUCE_ONLY_WOULD_INCREASE
        or reason == REASON_SHORT_OPTION_NOT_PERMITTED
        or reason == REASON_POSITION_SIDE_WOULD_TURN
        or reason == REASON_MARGIN_INSUFFICIENT
        or reason == REASON_BORN_LIQUIDATABLE
        or reason == REASON_MARGIN_OVERFLOWS
        or reason == REASON_BALANCE_INSUFFICIENT
        or controls_has_largest(reason)
    )


# --- the reply -------------------------------------------------------------------------------

cdef inline int64_t _pico(double value) noexcept nogil:
    """Return a model figure as an integer of 1e-12, nearest; clamped to what fits."""
    cdef double scaled = value * 1e12
    if scaled >= 9.2e18:
        return INT64_MAX
    if scaled <= -9.2e18:
        return -INT64_MAX
    return llround(scaled)


cdef void _explain_greeks(const Case *case, DecisionDetail *detail) noexcept nogil:
    """Add price and Greeks, when there is a volatility and a forward."""
    cdef const Instrument *option = case.instrument
    cdef const Instrument *underlying = instrument_find(<Book *>case.book, option.underlying_id)
    cdef double forward = 0.0
    cdef double years = 0.0
    cdef Greeks greeks
    if option.mark.volatility_ppb == 0:
        return
    if option.mark.forward != 0:
        forward = <double>option.mark.forward * option.unit_price
    elif underlying != NULL and underlying.mark.price != 0:
        forward = <double>underlying.mark.price * underlying.unit_price
    else:
        return
    if option.expiry_ns > case.now_ns:
        years = <double>(option.expiry_ns - case.now_ns) / (365.0 * 86400.0 * 1e9)
    if not black76(
        option.option_type == OPTION_TYPE_CALL,
        forward,
        <double>option.strike_units * option.unit_price,
        <double>option.mark.volatility_ppb * 1e-9,
        years,
        <double>option.interest_rate_ppb * 1e-9,
        &greeks,
    ):
        return
    detail.has_greeks = True
    detail.greeks.price = _pico(greeks.price)
    detail.greeks.delta = _pico(greeks.delta)
    detail.greeks.gamma = _pico(greeks.gamma)
    detail.greeks.vega_per_vol_point = _pico(greeks.vega_per_vol_point)
    detail.greeks.theta_per_day = _pico(greeks.theta_per_day)
    detail.greeks.rho_per_point = _pico(greeks.rho_per_point)


cdef void _explain(const Case *case, const Figures *figures, DecisionDetail *detail) noexcept nogil:
    """Fill in the detail from the figures of the whole order's fill."""
    cdef const Terms *terms = &case.terms
    cdef i128 notional, ratio, bankrupt
    detail.mark_price = case.instrument.mark.price
    detail.mark_time_ns = case.instrument.mark.time_ns
    detail.leverage = <uint32_t>terms.leverage
    detail.equity_in_account_asset = _has_no_price(case)
    if figures.fill.fits:
        detail.position_lots = <int64_t>figures.fill.lots
    if terms.is_option:
        return
    detail.schedule_version = case.book.schedules[case.instrument.schedule_id - 1].version
    if not figures.has_fill:
        detail.position_lots = 0
        return
    notional = mark_value_up(terms, magnitude(figures.fill.lots), case.reference)
    detail.initial_margin = clamp(position_initial_of(terms, figures.fill.lots, notional))
    detail.maintenance_margin = clamp(
        maintenance_margin_of(terms, figures.fill.lots, figures.fill.entry_value, notional)
    )
    detail.unrealised_pnl = clamp(figures.pnl)
    detail.equity = clamp(figures.equity)
    detail.tier_index = tier_of(terms, figures.fill.lots, notional)
    if figures.fill.lots == 0 and terms.margin_mode == MARGIN_MODE_ISOLATED:
        detail.margin_ratio_ppm = 0
    elif figures.equity <= 0:
        detail.margin_ratio_ppm = INT64_MAX
    else:
        ratio = ceil_div(figures.requirement * 1000000, figures.equity)
        detail.margin_ratio_ppm = clamp(ratio)
    if _has_no_price(case):
        return
    # The pool goes bankrupt with its profit and loss, not with the others' requirement.
    if terms.margin_mode == MARGIN_MODE_ISOLATED:
        bankrupt = figures.fill.wallet
    else:
        bankrupt = figures.equity - figures.pnl
    detail.bankruptcy_price_ticks = bankruptcy_price_ticks_of(
        terms, figures.fill.lots, figures.fill.entry_value, bankrupt
    )


cdef void _report_sums(const Case *case, const Pool *pool, OrderReply *reply) noexcept nogil:
    """Initial margin and what is available; 0 while they are unknown or do not fit."""
    if pool_fits(pool):
        reply.initial_margin = <int64_t>pool.initial_margin
        reply.available = <int64_t>available_of(pool)
        reply.margin_unknown = False
        if case.is_foreign:
            reply.account_asset_id = case.account.asset_id


cdef void _start_detail(uint32_t view, OrderReply *reply) noexcept nogil:
    """Zero the detail where one is asked for; the reply comes as a reject that knows nothing."""
    if view >= DECISION_VIEW_MARGIN:
        memset(&reply.detail, 0, sizeof(DecisionDetail))


cdef inline bint _gives_quantity(const Case *case) noexcept nogil:
    """Whether the order says how many lots it is."""
    return not case.order.flags & (ORDER_FLAG_CLOSE_POSITION | ORDER_FLAG_QUOTE_QUANTITY)


cdef uint32_t _decide(Case *case, i128 lots, OrderReply *reply, Hold *hold) noexcept nogil:
    """Steps 4 to 7 for a prepared case: run the rules, and fill in the reply and the hold."""
    cdef Figures figures
    cdef const OrderRequest *order = case.order
    cdef bint reached = False
    cdef uint32_t unused = REASON_NONE
    cdef DecisionDetail *collected = NULL
    cdef uint32_t reason
    cdef i128 held
    if order.view == DECISION_VIEW_FULL:
        collected = &reply.detail
    reason = _evaluate(case, lots, collected, &figures, &reached)
    if case.takes_room and (reason == REASON_NONE or (reached and collected != NULL)):
        _check_room(case, collected, &reason)
    hold.account_place = account_place(case.book, case.account)
    hold.is_limited = case.controls != NULL
    hold.counts = hold.is_limited and reached and not (
        figures.reducing or case.is_protective or figures.lighter
    )
    reply.reason = reason
    if reached and order.view >= DECISION_VIEW_MARGIN:
        reply.has_detail = True
        _explain(case, &figures, &reply.detail)
        if order.view == DECISION_VIEW_FULL and is_option(case.instrument):
            _explain_greeks(case, &reply.detail)
    if reason != REASON_NONE:
        _report_sums(case, &case.current, reply)
        if _has_largest(reason) and _gives_quantity(case):
            reply.max_quantity_lots = <uint64_t>_largest_passing(case, lots, &unused)
        return reason
    reply.decision = DECISION_ACCEPTED
    if figures.soft != REASON_NONE:
        reply.decision = DECISION_ACCEPTED_WITH_WARNING
        reply.reason = figures.soft
    if pool_fits(&case.current):
        _report_sums(case, &figures.after, reply)
    if not reply.margin_unknown:
        reply.reserved_margin = <int64_t>(
            figures.after.initial_margin - case.current.initial_margin
        )
    _report_liquidation(case, &figures.fill, reply)
    hold.margin_added = figures.share.initial_margin - case.share_before.initial_margin
    hold.keeps_sums = is_still(&case.terms, case.holding.lots, case.position_side)
    hold.quantity_lots = <int64_t>lots
    if closes_all(order.order_type, order.flags):
        hold.quantity_lots = 0
    hold.margin_price_ticks = <int64_t>figures.margin_price
    hold.open_loss = <int64_t>figures.open_loss
    hold.value = 0
    if figures.margin_price != 0 and value_of(
        case.instrument, figures.margin_price, lots, &held
    ):
        hold.value = <int64_t>held
    return reason


cdef void _report_liquidation(const Case *case, const Fill *fill, OrderReply *reply) noexcept nogil:
    """Add the liquidation price of the position after the fill of the whole order."""
    if case.terms.is_option:
        return
    if fill.lots == 0:
        reply.liquidation_status = LIQUIDATION_STATUS_NO_POSITION
    elif not fill.fits or _has_no_price(case):
        return
    elif case.terms.margin_mode == MARGIN_MODE_ISOLATED or not (
        case.others.unknown & UNKNOWN_EQUITY
    ):
        reply.liquidation_status = liquidation_price_ticks_of(
            &case.terms,
            fill.lots,
            fill.entry_value,
            _backing(case, fill),
            &case.group,
            &reply.liquidation_price_ticks,
        )


cdef uint32_t check_order(
    const Book *book,
    const OrderRequest *order,
    uint64_t now_ns,
    bint takes_room,
    OrderReply *reply,
    Hold *hold,
) noexcept nogil:
    """Decide on an order (steps 3 to 6, and 7 if it takes room).

    Return NONE when it is accepted, be it with a warning.

    Reservation id and revision of the reply are the caller's.
    """
    cdef Case case
    cdef Controls controls
    cdef i128 lots
    cdef uint32_t reason
    cdef uint32_t unused = REASON_NONE
    hold.counts = False
    _start_detail(order.view, reply)
    case.replaced = NULL
    case.takes_room = takes_room
    reason = _form(book, order, now_ns, &case)
    reply.reason = reason
    if reason != REASON_NONE and reason != REASON_QUANTITY_OUT_OF_RANGE:
        return reason
    _prepare(book, order, now_ns, &controls, &case)
    if reason == REASON_QUANTITY_OUT_OF_RANGE:
        if _gives_quantity(&case):
            reply.max_quantity_lots = <uint64_t>_largest_passing(
                &case, <i128>NUMBER_MAX + 1, &unused
            )
        return reason
    reason = _resolve_lots(&case, &lots)
    reply.reason = reason
    if reason != REASON_NONE:
        return reason
    if not _gives_quantity(&case):
        reply.quantity_lots = <uint64_t>lots
    return _decide(&case, lots, reply, hold)


cdef uint32_t _amendment_form(
    const Book *book, const AmendmentRequest *amendment, const Order *replaced, uint64_t now_ns
) noexcept nogil:
    """Step 2 of CheckAmendment."""
    cdef const Position *position
    cdef uint32_t reason
    if amendment.view > DECISION_VIEW_FULL:
        return REASON_VIEW_NOT_SUPPORTED
    if replaced == NULL or replaced.gateway_id != amendment.gateway_id:
        return REASON_RESERVATION_UNKNOWN
    position = &book.positions[replaced.position_index]
    reason = _prices_form(
        &book.instruments[position.instrument_id - 1],
        replaced.order_type,
        amendment.price_ticks,
        amendment.trigger_price_ticks,
        amendment.trailing_offset_ticks,
    )
    if reason != REASON_NONE:
        return reason
    if replaced.expire_ns != 0 and replaced.expire_ns <= now_ns:
        return REASON_EXPIRE_TIME_OUT_OF_RANGE
    if closes_all(replaced.order_type, replaced.flags):
        return REASON_NONE if amendment.quantity_lots == 0 else REASON_QUANTITY_OUT_OF_RANGE
    if amendment.quantity_lots == 0:
        return REASON_QUANTITY_MUST_BE_POSITIVE
    if amendment.quantity_lots <= <uint64_t>(replaced.quantity_lots - replaced.remaining_lots):
        return REASON_AMENDMENT_BELOW_FILLED
    if amendment.quantity_lots > <uint64_t>NUMBER_MAX:
        return REASON_QUANTITY_OUT_OF_RANGE
    return REASON_NONE


cdef void _amended_order(
    const Book *book,
    const AmendmentRequest *amendment,
    const Order *replaced,
    OrderRequest *order,
) noexcept nogil:
    """Write down what would be left of the changed order, as if it were a new one."""
    cdef const Position *position = &book.positions[replaced.position_index]
    cdef int64_t filled = replaced.quantity_lots - replaced.remaining_lots
    memset(order, 0, sizeof(OrderRequest))
    order.account_id = book.accounts[position.account_index].account_id
    order.instrument_id = position.instrument_id
    order.gateway_id = amendment.gateway_id
    order.side = replaced.side
    order.order_type = replaced.order_type
    order.position_side = position.position_side
    order.flags = replaced.flags & ~<uint32_t>(
        ORDER_FLAG_QUOTE_QUANTITY | ORDER_FLAG_CLOSE_POSITION
    )
    if replaced.flags & ORDER_FLAG_CLOSE_POSITION:
        order.flags |= ORDER_FLAG_REDUCE_ONLY
    order.price_ticks = amendment.price_ticks
    order.trigger_price_ticks = amendment.trigger_price_ticks
    order.trailing_offset_ticks = amendment.trailing_offset_ticks
    order.quantity_lots = amendment.quantity_lots - <uint64_t>filled
    order.view = amendment.view


cdef uint32_t check_amendment(
    const Book *book,
    const AmendmentRequest *amendment,
    const Order *replaced,
    uint64_t now_ns,
    OrderReply *reply,
    Hold *hold,
) noexcept nogil:
    """Decide on what would be left of a changed order, with the old one gone.

    `replaced` is the order that the amendment names, NULL if there is none.
    """
    cdef Case case
    cdef Controls controls
    cdef OrderRequest order
    cdef const Position *settings
    cdef int64_t filled
    cdef bint is_closing
    cdef uint32_t unused = REASON_NONE
    cdef uint32_t reason
    hold.counts = False
    _start_detail(amendment.view, reply)
    reason = _amendment_form(book, amendment, replaced, now_ns)
    reply.reason = reason
    if reason != REASON_NONE and reason != REASON_QUANTITY_OUT_OF_RANGE:
        return reason
    is_closing = closes_all(replaced.order_type, replaced.flags)
    if is_closing and reason != REASON_NONE:
        return reason
    filled = replaced.quantity_lots - replaced.remaining_lots
    _amended_order(book, amendment, replaced, &order)
    case.replaced = replaced
    case.takes_room = False
    case.position = &book.positions[replaced.position_index]
    case.position_side = case.position.position_side
    case.account = &book.accounts[case.position.account_index]
    case.instrument = &book.instruments[order.instrument_id - 1]
    settings = settings_of(
        book, case.account, case.position, order.instrument_id, case.position_side
    )
    terms_of(book, case.account, case.instrument, settings, &case.terms)
    _prepare(book, &order, now_ns, &controls, &case)
    if reason == REASON_QUANTITY_OUT_OF_RANGE:
        reply.max_quantity_lots = <uint64_t>_largest_passing(
            &case, <i128>NUMBER_MAX + 1 - filled, &unused
        )
    else:
        reply.reservation_id = replaced.reservation_id
        if is_closing:
            order.quantity_lots = <uint64_t>case.reducible
        reason = _decide(&case, order.quantity_lots, reply, hold)
        hold.quantity_lots = <int64_t>amendment.quantity_lots
    if is_closing:
        reply.max_quantity_lots = 0
    elif reply.max_quantity_lots != 0:
        reply.max_quantity_lots += <uint64_t>filled
    return reason


cdef void max_order_lots(
    const Book *book, const OrderRequest *order, uint64_t now_ns, uint64_t *lots, uint32_t *reason
) noexcept nogil:
    """Find the largest quantity that passes, and the reason that stops one lot more."""
    cdef Case case
    cdef Controls controls
    cdef i128 largest
    lots[0] = 0
    case.replaced = NULL
    reason[0] = _form(book, order, now_ns, &case)
    if reason[0] != REASON_NONE:
        return
    _prepare(book, order, now_ns, &controls, &case)
    reason[0] = REASON_QUANTITY_OUT_OF_RANGE
    largest = _largest_passing(&case, <i128>NUMBER_MAX + 1, reason)
    if largest == 0:
        _passes(&case, 1, reason)
    lots[0] = <uint64_t>largest
