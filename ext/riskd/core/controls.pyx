"""Limits of accounts, firms and gateways (docs/limits.md): how they are checked and counted.

An order meets up to seven chains of limits: of its account, the parent account and the firm those
of its instrument and those of all instruments, and that of its gateway. Each chain rises by kind,
so that a check goes through them side by side in the order of the rules. What a limit is measured
against comes from the sums of its level (levels.pyx); only what the marks make of a level's
instruments is added up in a check, once, and only for a kind that asks for it.
"""

from libc.math cimport fabs, rint
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.black cimport Greeks, black76
from riskd.core.book cimport (
    Book,
    account_find,
    account_place,
    firm_find,
    instrument_find,
    limit_first,
    limit_of_kind,
)
from riskd.core.levels cimport Walk, day_of, sums_of, walk_next, walk_start
from riskd.core.limits cimport (
    beyond_collar_ppb,
    beyond_collar_ticks,
    collar_ppb_bound,
    collar_ticks_bound,
    violate,
)
from riskd.core.margin cimport UnitValue, beyond_money, notional_down, notional_up
from riskd.core.money cimport (
    PPB,
    ceil_div,
    clamp,
    debug_assert,
    fits,
    i128,
    larger,
    magnitude,
    multiply,
)
from riskd.core.types cimport *
from riskd.core.value cimport (
    is_inverse,
    is_option,
    least_lots_of,
    mark_reason_of,
    order_value_of,
)

# What one limit comes to.
ctypedef struct Finding:
    bint broken
    i128 limit
    i128 use
    i128 order_use


# --- limits ----------------------------------------------------------------------------------

cdef Limit *limit_find(
    const Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id, uint32_t kind
) noexcept nogil:
    return limit_of_kind(book, limit_first(book, scope, scope_id, instrument_id), kind)


cdef bint is_minimum(uint32_t kind) noexcept nogil:
    return kind == LIMIT_KIND_ORDER_QUANTITY_MIN or kind == LIMIT_KIND_ORDER_NOTIONAL_MIN


# --- rates -----------------------------------------------------------------------------------
#
# The generic cell rate algorithm (ITU-T I.371) in its virtual scheduling form.

cdef inline uint64_t _interval(const Limit *limit, uint64_t now_ns) noexcept nogil:
    return <uint64_t>ceil_div(PPB, limit_bound(limit, now_ns))


cdef inline uint64_t _slack(const Limit *limit, uint64_t now_ns) noexcept nogil:
    return _interval(limit, now_ns) * (limit.burst - 1)


cdef inline uint64_t _later(uint64_t time_ns, uint64_t duration_ns) noexcept nogil:
    return time_ns + duration_ns if duration_ns <= UINT64_MAX - time_ns else UINT64_MAX


cdef inline bint _exceeds_rate(const Limit *limit, uint64_t now_ns) noexcept nogil:
    return _later(now_ns, _slack(limit, now_ns)) < limit.due_ns


cdef void _count(Limit *limit, uint64_t now_ns) noexcept nogil:
    """Take one token; one that is not there is not owed for longer than the next interval."""
    cdef uint64_t interval = _interval(limit, now_ns)
    limit.due_ns = min(
        _later(max(now_ns, limit.due_ns), interval),
        _later(_later(now_ns, _slack(limit, now_ns)), interval),
    )


cdef uint32_t _levels_of(
    const Book *book, const Account *account, const Level **levels
) noexcept nogil:
    """Write the levels of an account; return how many."""
    cdef uint32_t count = 1
    levels[0] = &account.level
    if account.parent != NOWHERE:
        levels[count] = &book.accounts[account.parent].level
        count += 1
    if account.firm != NOWHERE:
        levels[count] = &book.firms[account.firm].level
        count += 1
    return count


cdef void controls_count_order(
    Book *book, const Account *account, uint32_t gateway_id, uint64_t now_ns, Tally *tally
) noexcept nogil:
    """Count an order in the order rates of its levels and its gateway, unless one is used up.

    A tally (or NULL) remembers what they were.
    """
    cdef const Level *levels[LEVELS_MAX]
    cdef Limit *rates[STANDS_MAX]
    cdef Limit *limit
    cdef uint32_t count = 0
    cdef uint32_t index
    for index in range(_levels_of(book, account, levels)):
        limit = limit_of_kind(book, levels[index].first_limit, LIMIT_KIND_ORDER_RATE_MAX)
        if limit != NULL:
            rates[count] = limit
            count += 1
    if book.gateway_limit_count != 0:
        limit = limit_find(book, LIMIT_SCOPE_GATEWAY, gateway_id, 0, LIMIT_KIND_ORDER_RATE_MAX)
        if limit != NULL:
            rates[count] = limit
            count += 1
    for index in range(count):
        if rates[index].action == LIMIT_ACTION_HARD and _exceeds_rate(rates[index], now_ns):
            return
    for index in range(count):
        if tally != NULL:
            tally.places[tally.count] = <uint32_t>(rates[index] - book.limits)
            tally.due_ns[tally.count] = rates[index].due_ns
            tally.count += 1
        _count(rates[index], now_ns)


cdef void controls_uncount(Book *book, const Tally *tally) noexcept nogil:
    """Take back what a tally remembers, the last first."""
    cdef uint32_t index = tally.count
    while index > 0:
        index -= 1
        book.limits[tally.places[index]].due_ns = tally.due_ns[index]


cdef void controls_count_execution(
    Book *book, const Account *account, uint64_t now_ns
) noexcept nogil:
    """Count a fill in the execution rates of its levels."""
    cdef const Level *levels[LEVELS_MAX]
    cdef Limit *limit
    cdef uint32_t index
    for index in range(_levels_of(book, account, levels)):
        limit = limit_of_kind(book, levels[index].first_limit, LIMIT_KIND_EXECUTION_RATE_MAX)
        if limit != NULL:
            _count(limit, now_ns)


# --- what the marks make of a level ----------------------------------------------------------

cdef inline void _unit_of(const Instrument *instrument, UnitValue *unit) noexcept nogil:
    unit.numerator = instrument.value_numerator
    unit.denominator = instrument.value_denominator
    unit.quotient = <i128>instrument.quotient * instrument.units_per_tick


cdef i128 _value_up(const Instrument *instrument, i128 lots) noexcept nogil:
    """Return the value of lots at the mark, rounded up; 0 without one."""
    cdef UnitValue unit
    if instrument.mark.price == 0:
        return 0
    _unit_of(instrument, &unit)
    return notional_up(&unit, lots, instrument.mark.price)


cdef i128 _gain(const Instrument *instrument, i128 lots) noexcept nogil:
    """Return what signed lots are worth at the mark, rounded down: of inverse contracts they are
    owed.
    """
    cdef UnitValue unit
    if instrument.mark.price == 0:
        return 0
    _unit_of(instrument, &unit)
    if is_inverse(instrument):
        return -notional_up(&unit, lots, instrument.mark.price)
    return notional_down(&unit, lots, instrument.mark.price)


cdef inline i128 _exposure(const Instrument *instrument, const LevelSums *sums) noexcept nogil:
    """Return what an instrument adds to the gross exposure."""
    return _value_up(instrument, sums.gross_lots) + sums.buy_value + sums.sell_value


cdef i128 _money_of(const Book *book, const Account *account, const Level *level) noexcept nogil:
    """Return cash and isolated wallets. `account` is NULL for a firm."""
    cdef i128 money
    cdef uint32_t place
    if account == NULL or account.sub_accounts != 0:
        return level.money
    money = account.cash
    place = account.first_position
    while place != NOWHERE:
        money += book.positions[place].wallet
        place = book.positions[place].next_of_account
    return money


cdef void _value(Controls *controls, Stand *stand) noexcept nogil:
    """Value a level's positions at the marks, once."""
    cdef const Book *book = controls.book
    cdef const Instrument *instrument
    cdef LevelSums sums
    cdef Walk walk
    cdef uint32_t first = NOWHERE
    cdef uint32_t reason
    cdef i128 value, entry_value
    if stand.is_valued:
        return
    stand.is_valued = True
    stand.mark_missing = False
    stand.mark_reason = REASON_NONE
    stand.gross_elsewhere = 0
    stand.unrealised = 0
    stand.equity = _money_of(book, stand.account, stand.level)
    walk_start(book, stand.account, stand.level, &walk)
    while walk_next(book, &walk, &sums):
        instrument = &book.instruments[sums.instrument_id - 1]
        if sums.gross_lots != 0:
            # The first by id decides, in whatever order they come.
            reason = mark_reason_of(instrument, controls.now_ns)
            if reason != REASON_NONE and sums.instrument_id < first:
                first = sums.instrument_id
                stand.mark_reason = reason
            if reason == REASON_MARK_MISSING:
                stand.mark_missing = True
            value = _gain(instrument, sums.lots)
            entry_value = -sums.entry_value if is_inverse(instrument) else sums.entry_value
            stand.unrealised += value - entry_value
            # The premium of an option has left the cash.
            stand.equity += value if is_option(instrument) else value - entry_value
        if sums.instrument_id != controls.instrument_id:
            stand.gross_elsewhere += _exposure(instrument, &sums)


cdef inline bint _to_millionths(double figure, i128 *millionths) noexcept nogil:
    """Round to a whole number of 1e-6, ties to even; False when it is far beyond any money."""
    cdef double scaled = rint(figure * 1e6)
    # Written so that a figure that is not a number is refused too.
    if not fabs(scaled) < 1e36:
        return False
    millionths[0] = <i128>scaled
    return True


cdef bint _lot_in_millionths(const Instrument *instrument, i128 *millionths) noexcept nogil:
    """Return the mark value of one lot in 1e-6, to nearest, ties to even; False if it does not
    fit.
    """
    cdef i128 value, divisor, rest
    if is_inverse(instrument):
        divisor = instrument.mark.price
        value = <i128>instrument.quotient * instrument.units_per_tick * 1000000
    else:
        divisor = instrument.value_denominator
        if not multiply(
            <i128>instrument.mark.price * instrument.value_numerator, 1000000, &value
        ):
            return False
    millionths[0] = value / divisor
    rest = 2 * (value - millionths[0] * divisor)
    if rest > divisor or (rest == divisor and millionths[0] % 2 == 1):
        millionths[0] += 1
    return True


cdef bint _factors(
    const Book *book, const Instrument *instrument, uint64_t now_ns, i128 *factors
) noexcept nogil:
    """Compute delta, gamma and vega of one lot in 1e-6 minor units; False when they are unknown."""
    cdef const Instrument *underlying
    cdef double forward, size
    cdef double years = 0.0
    cdef Greeks greeks
    factors[0] = 0
    factors[1] = 0
    factors[2] = 0
    if not is_option(instrument):
        return instrument.mark.price != 0 and _lot_in_millionths(instrument, factors)
    underlying = instrument_find(<Book *>book, instrument.underlying_id)
    if instrument.mark.volatility_ppb == 0:
        return False
    if instrument.mark.forward != 0:
        forward = <double>instrument.mark.forward * instrument.unit_price
    elif underlying != NULL and underlying.mark.price != 0:
        forward = <double>underlying.mark.price * underlying.unit_price
    else:
        return False
    if instrument.expiry_ns > now_ns:
        years = <double>(instrument.expiry_ns - now_ns) / (365.0 * 86400.0 * 1e9)
    if not black76(
        instrument.option_type == OPTION_TYPE_CALL,
        forward,
        <double>instrument.strike_units * instrument.unit_price,
        <double>instrument.mark.volatility_ppb * 1e-9,
        years,
        <double>instrument.interest_rate_ppb * 1e-9,
        &greeks,
    ):
        return False
    size = instrument.lot_size
    if instrument.kind == INSTRUMENT_KIND_INVERSE_OPTION:
        return (
            _to_millionths(greeks.delta * size, &factors[0])
            and _to_millionths(greeks.gamma * forward * 0.01 * size, &factors[1])
            and _to_millionths(greeks.vega_per_vol_point / forward * size, &factors[2])
        )
    return (
        _to_millionths(greeks.delta * forward * size, &factors[0])
        and _to_millionths(greeks.gamma * forward * forward * 0.01 * size, &factors[1])
        and _to_millionths(greeks.vega_per_vol_point * size, &factors[2])
    )


cdef bint _add_greek(const LevelSums *sums, i128 factor, i128 *high, i128 *low) noexcept nogil:
    """Add the most and the least that an instrument can come to; False when it does not fit."""
    cdef i128 bought, sold
    if not multiply(sums.lots + sums.buy_lots, factor, &bought):
        return False
    if not multiply(sums.lots - sums.sell_lots, factor, &sold):
        return False
    # Far below what would not fit a sum of as many as there can be instruments.
    if magnitude(bought) >> 100 or magnitude(sold) >> 100:
        return False
    high[0] += larger(bought, sold)
    low[0] += bought if bought < sold else sold
    return True


cdef void _analyse(Controls *controls, Stand *stand) noexcept nogil:
    """Add up the Greeks of a level's other instruments, once."""
    cdef const Book *book = controls.book
    cdef LevelSums sums
    cdef Walk walk
    cdef i128 factors[GREEKS]
    cdef uint32_t greek
    if stand.is_analysed:
        return
    stand.is_analysed = True
    for greek in range(<uint32_t>GREEKS):
        stand.greeks_fit[greek] = True
        stand.high[greek] = 0
        stand.low[greek] = 0
        stand.factors[greek] = 0
    stand.greeks_known = controls.instrument == NULL or _factors(
        book, controls.instrument, controls.now_ns, stand.factors
    )
    walk_start(book, stand.account, stand.level, &walk)
    while walk_next(book, &walk, &sums):
        if sums.instrument_id == controls.instrument_id:
            continue
        if sums.gross_lots == 0 and sums.buy_lots == 0 and sums.sell_lots == 0:
            continue
        if not _factors(
            book, &book.instruments[sums.instrument_id - 1], controls.now_ns, factors
        ):
            stand.greeks_known = False
            continue
        for greek in range(<uint32_t>GREEKS):
            if not _add_greek(&sums, factors[greek], &stand.high[greek], &stand.low[greek]):
                stand.greeks_fit[greek] = False


cdef bint equity_of(
    const Book *book, const Account *account, const Level *level, int64_t *equity
) noexcept nogil:
    """Write a level's equity; False while a mark was never reported. Stale ones do."""
    cdef Controls controls
    cdef Stand *stand = &controls.stands[0]
    # Going through a level needs no owner.
    _alone(book, account, level, NOWHERE, 0, &controls)
    _value(&controls, stand)
    equity[0] = clamp(stand.equity)
    return not stand.mark_missing


cdef void _alone(
    const Book *book,
    const Account *account,
    const Level *level,
    uint32_t owner,
    uint64_t now_ns,
    Controls *controls,
) noexcept nogil:
    """Prepare one level without an order."""
    controls.book = book
    controls.instrument = NULL
    controls.replaced = NULL
    controls.now_ns = now_ns
    controls.instrument_id = 0
    controls.stand_count = 0
    controls.chain_count = 0
    _stand(controls, account, level, 0, 0, owner)


# --- drawdown --------------------------------------------------------------------------------

cdef void controls_raise_peaks(Book *book, const Account *account) noexcept nogil:
    """Raise the peaks of an account's levels to their equity, after an order or a fill."""
    cdef const Level *levels[LEVELS_MAX]
    cdef const Account *owner
    cdef Limit *limit
    cdef uint32_t count = _levels_of(book, account, levels)
    cdef uint32_t index
    cdef int64_t equity
    for index in range(count):
        limit = limit_of_kind(book, levels[index].first_limit, LIMIT_KIND_DRAWDOWN_MAX)
        if limit == NULL:
            continue
        owner = account
        if index == count - 1 and account.firm != NOWHERE:
            owner = NULL
        elif index == 1:
            owner = &book.accounts[account.parent]
        if equity_of(book, owner, levels[index], &equity) and equity > limit.peak:
            limit.peak = equity


cdef void peak_move(Book *book, const Level *level, i128 amount) noexcept nogil:
    """Let a level's peak follow a deposit (or a withdrawal: below 0)."""
    cdef Limit *limit = limit_of_kind(book, level.first_limit, LIMIT_KIND_DRAWDOWN_MAX)
    if limit != NULL:
        limit.peak = clamp(larger(0, limit.peak + amount))


cdef void controls_move_peaks(Book *book, const Account *account, i128 amount) noexcept nogil:
    """Let the peaks of all levels of an account follow a deposit or a withdrawal."""
    cdef const Level *levels[LEVELS_MAX]
    cdef uint32_t index
    for index in range(_levels_of(book, account, levels)):
        peak_move(book, levels[index], amount)


# --- what an order meets ---------------------------------------------------------------------

cdef inline void _add_chain(Controls *controls, uint32_t first, uint32_t stand) noexcept nogil:
    if first == NOWHERE:
        return
    controls.chains[controls.chain_count] = first
    controls.chain_stands[controls.chain_count] = <uint8_t>stand
    controls.chain_count += 1


cdef void _stand(
    Controls *controls,
    const Account *account,
    const Level *level,
    uint32_t scope,
    uint64_t scope_id,
    uint32_t owner,
) noexcept nogil:
    """Take a level in."""
    cdef Stand *stand = &controls.stands[controls.stand_count]
    stand.account = account
    stand.level = level
    stand.scope = scope
    stand.scope_id = scope_id
    stand.owner = owner
    stand.has_allowed = False
    stand.is_summed = False
    stand.is_valued = False
    stand.is_analysed = False
    if level != NULL and level.instrument_limit_count != 0 and controls.instrument_id != 0:
        _add_chain(
            controls,
            limit_first(controls.book, scope, scope_id, controls.instrument_id),
            controls.stand_count,
        )
    if level != NULL:
        _add_chain(controls, level.first_limit, controls.stand_count)
    controls.stand_count += 1


cdef bint controls_of(
    const Book *book,
    const Account *account,
    const Instrument *instrument,
    uint32_t instrument_id,
    uint32_t gateway_id,
    const Order *replaced,
    uint64_t now_ns,
    Controls *controls,
) noexcept nogil:
    """Find the limits that an order meets; False if there are none."""
    cdef const Account *parent
    cdef const Firm *firm
    cdef uint32_t first
    controls.stand_count = 0
    controls.chain_count = 0
    if (
        account.limit_count == 0
        and account.parent == NOWHERE
        and account.firm == NOWHERE
        and book.gateway_limit_count == 0
    ):
        return False
    controls.book = book
    controls.instrument = instrument
    controls.replaced = replaced
    controls.now_ns = now_ns
    controls.instrument_id = instrument_id
    if account.limit_count != 0:
        first = account_place(book, account)
        _stand(
            controls,
            account,
            &account.level,
            LIMIT_SCOPE_ACCOUNT,
            account.account_id,
            first,
        )
    if account.parent != NOWHERE:
        parent = &book.accounts[account.parent]
        if parent.limit_count != 0:
            _stand(
                controls,
                parent,
                &parent.level,
                LIMIT_SCOPE_ACCOUNT,
                parent.account_id,
                account.parent,
            )
    if account.firm != NOWHERE:
        firm = &book.firms[account.firm]
        if firm.limit_count != 0:
            _stand(
                controls,
                NULL,
                &firm.level,
                LIMIT_SCOPE_FIRM,
                firm.firm_id,
                OWNER_IS_FIRM | account.firm,
            )
    if book.gateway_limit_count != 0:
        first = limit_first(book, LIMIT_SCOPE_GATEWAY, gateway_id, 0)
        if first != NOWHERE:
            _add_chain(controls, first, controls.stand_count)
            _stand(controls, NULL, NULL, LIMIT_SCOPE_GATEWAY, gateway_id, NOWHERE)
    return controls.stand_count != 0


cdef void _sum(Controls *controls, Stand *stand) noexcept nogil:
    """Look up a level's sums, once, with the order off them that would be replaced."""
    cdef const Book *book = controls.book
    cdef const Order *replaced = controls.replaced
    cdef uint32_t place
    cdef i128 value
    if stand.is_summed:
        return
    stand.is_summed = True
    sums_of(book, stand.account, stand.owner, controls.instrument_id, &stand.here)
    if stand.account == NULL or stand.account.sub_accounts != 0:
        stand.working_value = stand.level.working_value
        stand.working_orders = stand.level.working_orders
    else:
        stand.working_orders = stand.account.working_orders
        stand.working_value = 0
        place = stand.account.first_position
        while place != NOWHERE:
            stand.working_value += book.positions[place].buy.value
            stand.working_value += book.positions[place].sell.value
            place = book.positions[place].next_of_account
    # A protective order has no margin price: it is in no working sum.
    if replaced == NULL or replaced.margin_price_ticks == 0:
        return
    value = order_value_of(controls.instrument, replaced, replaced.remaining_lots)
    stand.working_value -= value
    if replaced.side == SIDE_BUY:
        stand.here.buy_lots -= replaced.remaining_lots
        stand.here.buy_value -= value
    else:
        stand.here.sell_lots -= replaced.remaining_lots
        stand.here.sell_value -= value


# --- one limit -------------------------------------------------------------------------------

cdef inline bint _needs_marks(const Limit *limit) noexcept nogil:
    """Whether a limit needs the marks of all instruments of its level."""
    cdef uint32_t kind = limit.kind
    if kind == LIMIT_KIND_GROSS_EXPOSURE_MAX:
        return limit.instrument_id == 0
    return (
        kind == LIMIT_KIND_DAILY_LOSS_MAX
        or kind == LIMIT_KIND_DRAWDOWN_MAX
        or LIMIT_KIND_DELTA_MAX <= kind <= LIMIT_KIND_CONCENTRATION_MAX
    )


cdef inline bint _is_greek(uint32_t kind) noexcept nogil:
    return LIMIT_KIND_DELTA_MAX <= kind <= LIMIT_KIND_VEGA_MAX


cdef inline i128 _worst_side(const LevelSums *sums, uint32_t side) noexcept nogil:
    """Return the lots of a side's position once all its orders are filled."""
    if side == SIDE_BUY:
        return larger(0, sums.lots + sums.buy_lots)
    return larger(0, sums.sell_lots - sums.lots)


cdef inline i128 _share(i128 part, i128 whole) noexcept nogil:
    """Return what a part is of the whole, in ppb, rounded up; 0 of nothing."""
    cdef i128 scaled
    if whole == 0:
        return 0
    if not multiply(part, PPB, &scaled):
        return beyond_money()
    return ceil_div(scaled, whole)


cdef i128 _greek(const Stand *stand, const LevelSums *here, uint32_t greek) noexcept nogil:
    """Return the most that a Greek can come to, whatever fills, in minor units, rounded up."""
    cdef i128 high = stand.high[greek]
    cdef i128 low = stand.low[greek]
    if not stand.greeks_fit[greek] or not _add_greek(here, stand.factors[greek], &high, &low):
        return beyond_money()
    return ceil_div(larger(magnitude(high), magnitude(low)), 1000000)


cdef i128 _loss_today(const Controls *controls, const Stand *stand) noexcept nogil:
    cdef i128 realised = 0
    cdef i128 unrealised = stand.unrealised if stand.unrealised < 0 else 0
    if stand.account == NULL or stand.account.sub_accounts != 0:
        if stand.level.day == day_of(controls.now_ns):
            realised = stand.level.realised
    elif stand.account.usage.day == day_of(controls.now_ns):
        realised = stand.account.usage.realised
    return larger(0, -(realised + unrealised))


cdef i128 _traded_today(const Controls *controls, const Stand *stand) noexcept nogil:
    if stand.account == NULL or stand.account.sub_accounts != 0:
        return stand.level.traded if stand.level.day == day_of(controls.now_ns) else 0
    if stand.account.usage.day == day_of(controls.now_ns):
        return stand.account.usage.traded
    return 0


cdef void _judge_collar(
    const Controls *controls, uint32_t kind, const Ask *ask, Finding *finding
) noexcept nogil:
    cdef i128 units = controls.instrument.units_per_tick
    finding.order_use = ask.price_ticks
    if not ask.has_limit_price or ask.reference == 0:
        return
    if kind == LIMIT_KIND_COLLAR_PPB:
        finding.broken = beyond_collar_ppb(
            ask.side, ask.price_ticks, units, ask.reference, finding.limit
        )
        if finding.broken:
            finding.limit = collar_ppb_bound(ask.side, units, ask.reference, finding.limit)
        return
    finding.broken = beyond_collar_ticks(
        ask.side, ask.price_ticks, units, ask.reference, finding.limit
    )
    if finding.broken:
        finding.limit = collar_ticks_bound(ask.side, units, ask.reference, finding.limit)


cdef void _measure(
    Controls *controls, Stand *stand, const Limit *limit, const Ask *ask, Finding *finding
) noexcept nogil:
    """Find the use of a level and what the order adds to it, for kinds that have both."""
    cdef const Instrument *instrument = controls.instrument
    cdef uint32_t kind = limit.kind
    cdef bint narrow = limit.instrument_id != 0
    cdef bint adds = False
    cdef LevelSums after
    cdef i128 part, whole, total
    _sum(controls, stand)
    after = stand.here
    if ask.side == SIDE_BUY:
        after.buy_lots += ask.lots
    else:
        after.sell_lots += ask.lots
    if kind == LIMIT_KIND_POSITION_LOTS_MAX:
        finding.use = _worst_side(&stand.here, ask.side)
        total = _worst_side(&after, ask.side)
    elif kind == LIMIT_KIND_POSITION_NOTIONAL_MAX:
        finding.use = _value_up(instrument, _worst_side(&stand.here, ask.side))
        total = _value_up(instrument, _worst_side(&after, ask.side))
    elif kind == LIMIT_KIND_CONCENTRATION_MAX:
        part = _exposure(instrument, &stand.here)
        whole = part + stand.gross_elsewhere
        finding.use = _share(part, whole)
        total = _share(part + ask.margin_value, whole + ask.margin_value)
    elif _is_greek(kind):
        finding.use = _greek(stand, &stand.here, kind - LIMIT_KIND_DELTA_MAX)
        total = _greek(stand, &after, kind - LIMIT_KIND_DELTA_MAX)
    else:
        adds = True
        finding.order_use = ask.margin_value
        if kind == LIMIT_KIND_GROSS_EXPOSURE_MAX:
            finding.use = _exposure(instrument, &stand.here)
            if not narrow:
                finding.use += stand.gross_elsewhere
        elif kind == LIMIT_KIND_OPEN_ORDERS_MAX:
            finding.use = stand.here.working_orders if narrow else stand.working_orders
            finding.order_use = 0 if ask.is_amendment else 1
        elif kind == LIMIT_KIND_OPEN_NOTIONAL_MAX:
            finding.use = stand.working_value
            if narrow:
                finding.use = stand.here.buy_value + stand.here.sell_value
        else:
            debug_assert(kind == LIMIT_KIND_DAILY_TRADED_MAX)
            finding.use = _traded_today(controls, stand) + stand.working_value
        total = finding.use + finding.order_use
    finding.broken = (
        not fits(finding.use)
        or not fits(total)
        or (total > finding.use and total > finding.limit)
    )
    if not adds:
        # The difference of what is shown.
        finding.order_use = <i128>clamp(total) - clamp(finding.use)


cdef void _judge(
    Controls *controls, Stand *stand, const Limit *limit, const Ask *ask, Finding *finding
) noexcept nogil:
    """Find whether an order breaks a limit, and the numbers of it."""
    cdef uint32_t kind = limit.kind
    finding.broken = False
    finding.limit = limit_bound(limit, controls.now_ns)
    finding.use = 0
    finding.order_use = 0
    if kind == LIMIT_KIND_ORDER_QUANTITY_MIN:
        finding.order_use = ask.lots
        finding.broken = ask.lots < finding.limit
    elif kind == LIMIT_KIND_ORDER_QUANTITY_MAX:
        finding.order_use = ask.lots
        finding.broken = ask.lots > finding.limit
    elif kind == LIMIT_KIND_ORDER_NOTIONAL_MIN:
        finding.order_use = ask.value
        finding.broken = ask.value < finding.limit
    elif kind == LIMIT_KIND_ORDER_NOTIONAL_MAX:
        finding.order_use = ask.value
        finding.broken = ask.value > finding.limit
    elif kind == LIMIT_KIND_COLLAR_PPB or kind == LIMIT_KIND_COLLAR_TICKS:
        _judge_collar(controls, kind, ask, finding)
    elif kind == LIMIT_KIND_ORDER_RATE_MAX:
        finding.order_use = 1
        finding.broken = _exceeds_rate(limit, controls.now_ns)
    elif kind == LIMIT_KIND_EXECUTION_RATE_MAX:
        finding.broken = _exceeds_rate(limit, controls.now_ns)
    elif kind == LIMIT_KIND_DAILY_LOSS_MAX:
        finding.use = _loss_today(controls, stand)
        finding.broken = finding.use > finding.limit
    elif kind == LIMIT_KIND_DRAWDOWN_MAX:
        finding.use = larger(0, limit.peak - stand.equity)
        finding.broken = finding.use > finding.limit
    elif kind == LIMIT_KIND_LEVERAGE_MAX:
        finding.order_use = ask.leverage
        finding.broken = ask.leverage > finding.limit
    elif kind == LIMIT_KIND_DENIED:
        finding.limit = 0
        finding.broken = True
    elif kind != LIMIT_KIND_ALLOWED:
        _measure(controls, stand, limit, ask, finding)


# --- all limits of an order ------------------------------------------------------------------

cdef inline uint32_t _reason_of(uint32_t kind) noexcept nogil:
    return REASON_LIMIT_ORDER_QUANTITY_MIN - LIMIT_KIND_ORDER_QUANTITY_MIN + kind


cdef void _note(
    const Stand *stand,
    uint32_t reason,
    bint is_soft,
    const Finding *finding,
    DecisionDetail *detail,
    uint32_t *first,
    uint32_t *soft,
) noexcept nogil:
    cdef Violation *violation = violate(
        detail,
        soft if is_soft else first,
        reason,
        finding.limit,
        finding.use,
        finding.order_use,
    )
    if violation != NULL:
        violation.scope = stand.scope
        violation.scope_id = stand.scope_id
        violation.soft = is_soft


cdef uint32_t _marks_reason(
    Controls *controls, Stand *stand, const Limit *limit
) noexcept nogil:
    """S-10, S-11: why a limit cannot be measured."""
    _value(controls, stand)
    if stand.mark_reason != REASON_NONE:
        return stand.mark_reason
    if _is_greek(limit.kind):
        _analyse(controls, stand)
        if not stand.greeks_known:
            return REASON_MARK_MISSING
    return REASON_NONE


cdef void controls_check(
    Controls *controls, const Ask *ask, DecisionDetail *detail, uint32_t *first, uint32_t *soft
) noexcept nogil:
    """Check an order against all its limits: the first hard one that it breaks is the reason, the
    first soft one the warning.

    With a detail all are listed, without it the first hard one ends it.
    """
    cdef const Book *book = controls.book
    cdef uint32_t chains[CHAINS_MAX]
    cdef const Limit *limit
    cdef Stand *stand
    cdef Finding finding
    cdef bint marks_lost = False
    cdef uint32_t kind, index, reason
    for index in range(controls.chain_count):
        chains[index] = controls.chains[index]
    while True:
        kind = LIMIT_KINDS + 1
        for index in range(controls.chain_count):
            if chains[index] != NOWHERE and book.limits[chains[index]].kind < kind:
                kind = book.limits[chains[index]].kind
        if kind > LIMIT_KINDS or (ask.only_collars and kind > LIMIT_KIND_COLLAR_TICKS):
            break
        for index in range(controls.chain_count):
            if chains[index] == NOWHERE or book.limits[chains[index]].kind != kind:
                continue
            limit = &book.limits[chains[index]]
            chains[index] = limit.next
            stand = &controls.stands[controls.chain_stands[index]]
            if kind == LIMIT_KIND_ALLOWED:
                # Only the instrument's own, not one of others.
                stand.has_allowed = True
                continue
            if ask.only_collars and kind < LIMIT_KIND_COLLAR_PPB:
                continue
            if _needs_marks(limit):
                if marks_lost:
                    continue
                reason = _marks_reason(controls, stand, limit)
                if reason != REASON_NONE:
                    marks_lost = True
                    memset(&finding, 0, sizeof(Finding))
                    _note(stand, reason, False, &finding, detail, first, soft)
                    if detail == NULL:
                        return
                    continue
            _judge(controls, stand, limit, ask, &finding)
            if finding.broken:
                _note(
                    stand,
                    _reason_of(kind),
                    limit.action == LIMIT_ACTION_SOFT,
                    &finding,
                    detail,
                    first,
                    soft,
                )
                if detail == NULL and first[0] != REASON_NONE:
                    return
    if not ask.only_collars:
        _check_allowed(controls, detail, first, soft)


cdef void _check_allowed(
    Controls *controls, DecisionDetail *detail, uint32_t *first, uint32_t *soft
) noexcept nogil:
    """Limit 23: a level that allows some instruments allows no other."""
    cdef Finding finding
    cdef Stand *stand
    cdef uint32_t index
    memset(&finding, 0, sizeof(Finding))
    for index in range(controls.stand_count):
        stand = &controls.stands[index]
        if stand.level == NULL or stand.has_allowed:
            continue
        if stand.level.allowed_hard == 0 and stand.level.allowed_soft == 0:
            continue
        _note(
            stand,
            REASON_LIMIT_ALLOWED,
            stand.level.allowed_hard == 0,
            &finding,
            detail,
            first,
            soft,
        )


cdef i128 controls_smallest(const Controls *controls, int64_t price_ticks) noexcept nogil:
    """Return the smallest order that the hard minimums let through, in lots."""
    cdef const Limit *limits = controls.book.limits
    cdef const Limit *limit
    cdef uint32_t index, place
    cdef i128 smallest = 1
    for index in range(controls.chain_count):
        place = controls.chains[index]
        while place != NOWHERE and limits[place].kind <= LIMIT_KIND_ORDER_NOTIONAL_MIN:
            limit = &limits[place]
            place = limit.next
            if limit.action != LIMIT_ACTION_HARD:
                continue
            if limit.kind == LIMIT_KIND_ORDER_QUANTITY_MIN:
                smallest = larger(smallest, limit_bound(limit, controls.now_ns))
            elif limit.kind == LIMIT_KIND_ORDER_NOTIONAL_MIN:
                smallest = larger(
                    smallest,
                    least_lots_of(
                        controls.instrument, price_ticks, limit_bound(limit, controls.now_ns)
                    ),
                )
    return smallest


cdef bint controls_has_largest(uint32_t reason) noexcept nogil:
    """Whether a smaller quantity may pass where this limit stopped one."""
    return (
        reason == REASON_LIMIT_ORDER_QUANTITY_MAX
        or reason == REASON_LIMIT_ORDER_NOTIONAL_MAX
        or REASON_LIMIT_POSITION_LOTS_MAX <= reason <= REASON_LIMIT_GROSS_EXPOSURE_MAX
        or reason == REASON_LIMIT_OPEN_NOTIONAL_MAX
        or reason == REASON_LIMIT_DAILY_TRADED_MAX
        or REASON_LIMIT_DELTA_MAX <= reason <= REASON_LIMIT_CONCENTRATION_MAX
    )


# --- utilisation -----------------------------------------------------------------------------

cdef bint _use_of_instrument(
    Controls *controls, const Limit *limit, const LevelSums *sums, i128 whole, i128 *use
) noexcept nogil:
    """Write the use of one instrument; False while its mark is needed and missing or stale."""
    cdef const Instrument *instrument = &controls.book.instruments[sums.instrument_id - 1]
    cdef i128 lots = larger(_worst_side(sums, SIDE_BUY), _worst_side(sums, SIDE_SELL))
    cdef bint has_mark = mark_reason_of(instrument, controls.now_ns) == REASON_NONE
    if limit.kind == LIMIT_KIND_POSITION_LOTS_MAX:
        use[0] = lots
    elif limit.kind == LIMIT_KIND_POSITION_NOTIONAL_MAX:
        if lots != 0 and not has_mark:
            return False
        use[0] = _value_up(instrument, lots)
    elif limit.kind == LIMIT_KIND_GROSS_EXPOSURE_MAX:
        if sums.gross_lots != 0 and not has_mark:
            return False
        use[0] = _exposure(instrument, sums)
    elif limit.kind == LIMIT_KIND_OPEN_ORDERS_MAX:
        use[0] = sums.working_orders
    elif limit.kind == LIMIT_KIND_OPEN_NOTIONAL_MAX:
        use[0] = sums.buy_value + sums.sell_value
    else:
        debug_assert(limit.kind == LIMIT_KIND_CONCENTRATION_MAX)
        use[0] = _share(_exposure(instrument, sums), whole)
    return True


cdef bint _largest_of_instruments(
    Controls *controls, Stand *stand, const Limit *limit, i128 whole, i128 *use
) noexcept nogil:
    """Write the largest use of any instrument of a level; False while a mark is missing."""
    cdef LevelSums sums
    cdef Walk walk
    cdef i128 each
    use[0] = 0
    walk_start(controls.book, stand.account, stand.level, &walk)
    while walk_next(controls.book, &walk, &sums):
        if not _use_of_instrument(controls, limit, &sums, whole, &each):
            return False
        use[0] = larger(use[0], each)
    return True


cdef bint _use(Controls *controls, const Limit *limit, i128 *use) noexcept nogil:
    """Write the use of a limit without an order; False while it cannot be known."""
    cdef Stand *stand = &controls.stands[0]
    cdef LevelSums sums
    cdef uint32_t kind = limit.kind
    cdef i128 whole = 0
    if kind == LIMIT_KIND_ORDER_RATE_MAX or kind == LIMIT_KIND_EXECUTION_RATE_MAX:
        if limit.due_ns > controls.now_ns:
            use[0] = ceil_div(
                limit.due_ns - controls.now_ns, _interval(limit, controls.now_ns)
            )
        return True
    if _needs_marks(limit):
        if _marks_reason(controls, stand, limit) != REASON_NONE:
            return False
        whole = stand.gross_elsewhere
    if kind == LIMIT_KIND_DAILY_LOSS_MAX:
        use[0] = _loss_today(controls, stand)
    elif kind == LIMIT_KIND_DRAWDOWN_MAX:
        use[0] = larger(0, limit.peak - stand.equity)
    elif _is_greek(kind):
        memset(&sums, 0, sizeof(LevelSums))
        use[0] = _greek(stand, &sums, kind - LIMIT_KIND_DELTA_MAX)
    elif kind == LIMIT_KIND_DAILY_TRADED_MAX:
        _sum(controls, stand)
        use[0] = _traded_today(controls, stand) + stand.working_value
    elif limit.instrument_id != 0 and (
        LIMIT_KIND_POSITION_LOTS_MAX <= kind <= LIMIT_KIND_OPEN_NOTIONAL_MAX
        or kind == LIMIT_KIND_CONCENTRATION_MAX
    ):
        sums_of(controls.book, stand.account, stand.owner, limit.instrument_id, &sums)
        return _use_of_instrument(controls, limit, &sums, whole, use)
    elif kind == LIMIT_KIND_POSITION_NOTIONAL_MAX or kind == LIMIT_KIND_CONCENTRATION_MAX:
        return _largest_of_instruments(controls, stand, limit, whole, use)
    elif kind == LIMIT_KIND_GROSS_EXPOSURE_MAX:
        use[0] = whole
    elif kind == LIMIT_KIND_OPEN_ORDERS_MAX:
        _sum(controls, stand)
        use[0] = stand.working_orders
    elif kind == LIMIT_KIND_OPEN_NOTIONAL_MAX:
        _sum(controls, stand)
        use[0] = stand.working_value
    return True


cdef bint limit_is_used_up(uint32_t kind) noexcept nogil:
    return (
        LIMIT_KIND_POSITION_LOTS_MAX <= kind <= LIMIT_KIND_CONCENTRATION_MAX
        and kind != LIMIT_KIND_LEVERAGE_MAX
    )


cdef bint limit_use(
    const Book *book, const Limit *limit, uint64_t now_ns, int64_t *use
) noexcept nogil:
    """Write how much of a limit is used now; False while that cannot be known."""
    cdef Controls controls
    cdef const Account *account = NULL
    cdef const Level *level = NULL
    cdef const Firm *firm
    cdef uint32_t owner = NOWHERE
    cdef i128 wide = 0
    cdef bint known
    if limit.scope == LIMIT_SCOPE_ACCOUNT:
        account = account_find(<Book *>book, limit.scope_id)
        level = &account.level
        owner = account_place(book, account)
    elif limit.scope == LIMIT_SCOPE_FIRM:
        firm = firm_find(book, <uint32_t>limit.scope_id)
        level = &firm.level
        owner = OWNER_IS_FIRM | <uint32_t>(firm - book.firms)
    _alone(book, account, level, owner, now_ns, &controls)
    known = _use(&controls, limit, &wide)
    use[0] = clamp(wide)
    return known
