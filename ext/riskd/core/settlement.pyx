"""Positions that change without an order: loaded, funded, settled (docs/instruments.md, Commands).

Each command is whole or not at all: it goes through all positions once to check and figure, and
once more to change them.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.admin cimport Change, available_or_zero, target_find
from riskd.core.book cimport (
    Book,
    instrument_find,
    money_of,
    money_rows_missing,
    money_set,
    position_add,
    position_drop_if_absent,
    position_find,
    settings_of,
    takes_position_side,
)
from riskd.core.collateral cimport is_foreign
from riskd.core.controls cimport controls_move_peaks
from riskd.core.credit cimport credit_follow
from riskd.core.levels cimport (
    Footprint,
    footprint_of,
    level_count_fill,
    level_follow,
    level_has_room,
    level_move_money,
)
from riskd.core.margin cimport beyond_money, notional_down
from riskd.core.money cimport (
    PPB,
    ceil_div,
    debug_assert,
    fits,
    floor_div,
    i128,
    larger,
    magnitude,
    multiply,
)
from riskd.core.pool cimport (
    Fill,
    Holding,
    Pool,
    Purse,
    Share,
    Terms,
    exposure_of,
    pool_beside,
    pool_join,
    pool_of,
    share_of,
    terms_of,
    unrealised_pnl_at,
)
from riskd.core.types cimport *
from riskd.core.value cimport is_inverse, is_option, is_spot

cdef extern from *:
    """
    #define RISKD_LOADED_MAX (1LL << 62)
    """
    # Entry value and wallet of a position that is loaded.
    const int64_t LOADED_MAX "RISKD_LOADED_MAX"

# The open positions of one account on one instrument: NET, or LONG and SHORT, or (a late fill can
# leave one of the other mode) all three.
ctypedef struct Legs:
    Position *positions[3]
    uint32_t count

# What closing a position at a price does.
ctypedef struct Closing:
    i128 pnl
    i128 cash
    i128 deficit


cdef bint _legs_at(
    Book *book, uint32_t place, uint32_t instrument_id, Legs *legs
) noexcept nogil:
    """Find an account's open positions, at the place of the first of them; False elsewhere."""
    cdef Position *position = &book.positions[place]
    cdef uint32_t side
    if not position.in_use or position.instrument_id != instrument_id or position.lots == 0:
        return False
    legs.count = 0
    for side in range(<uint32_t>POSITION_SIDE_NET, <uint32_t>POSITION_SIDE_SHORT + 1):
        legs.positions[legs.count] = position_find(
            book, &book.accounts[position.account_index], instrument_id, side
        )
        if legs.positions[legs.count] != NULL and legs.positions[legs.count].lots != 0:
            legs.count += 1
    return legs.positions[0] == position


cdef Account *_account_of(Book *book, const Legs *legs, Terms *terms) noexcept nogil:
    """Return whose positions they are, and write what they are margined with."""
    cdef const Position *position = legs.positions[0]
    cdef Account *account = &book.accounts[position.account_index]
    terms_of(
        book,
        account,
        &book.instruments[position.instrument_id - 1],
        settings_of(
            book, account, position, position.instrument_id, position.position_side
        ),
        terms,
    )
    return account


cdef bint _notional_fraction(
    const Terms *terms, i128 lots, int64_t price, i128 *numerator, i128 *denominator
) noexcept nogil:
    """Write the value of lots at a mark as a fraction; False if it does not fit 128 bits."""
    if is_inverse(terms.instrument):
        denominator[0] = price
        return multiply(lots, terms.unit.quotient, numerator)
    denominator[0] = terms.unit.denominator
    return multiply(lots * price, terms.unit.numerator, numerator)


# --- load ------------------------------------------------------------------------------------

cdef bint _is_loadable(
    const Terms *terms, uint32_t position_side, int64_t lots, int64_t entry_value, int64_t wallet
) noexcept nogil:
    """A-9."""
    if terms.is_spot or lots == 0 or lots > NUMBER_MAX or lots < -NUMBER_MAX:
        return False
    if position_side == POSITION_SIDE_LONG and lots < 0:
        return False
    if position_side == POSITION_SIDE_SHORT and lots > 0:
        return False
    if entry_value < 1 or entry_value > LOADED_MAX or wallet < 0 or wallet > LOADED_MAX:
        return False
    return wallet == 0 or (terms.margin_mode == MARGIN_MODE_ISOLATED and not terms.is_option)


cdef uint32_t load_position(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    uint32_t position_side,
    int64_t lots,
    int64_t entry_value,
    int64_t wallet,
    bint validate_only,
    uint64_t now_ns,
    Change *change,
) noexcept nogil:
    """Take over a position that exists elsewhere already; the figure is its wallet."""
    cdef Account *account
    cdef Instrument *instrument
    cdef Position *position
    cdef Footprint before
    cdef Terms terms
    cdef Holding holding
    cdef Share share
    cdef Pool pool, others
    cdef Purse purse
    cdef uint32_t reason
    memset(change, 0, sizeof(Change))
    reason = target_find(book, account_id, instrument_id, &account, &instrument)
    if reason != REASON_NONE:
        return reason
    pool_of(book, account, NULL, now_ns, &pool)
    change.available = available_or_zero(&pool)
    if not takes_position_side(book, account, instrument_id, position_side):
        return REASON_POSITION_SIDE_NOT_SUPPORTED
    position_side = max(position_side, <uint32_t>POSITION_SIDE_NET)
    position = position_find(book, account, instrument_id, position_side)
    if position != NULL:
        change.figure = position.wallet
        if position.lots != 0 or position.working_orders != 0:
            return REASON_POSITION_NOT_FLAT
    terms_of(
        book,
        account,
        instrument,
        settings_of(book, account, position, instrument_id, position_side),
        &terms,
    )
    if not _is_loadable(&terms, position_side, lots, entry_value, wallet):
        return REASON_DEFINITION_INVALID
    if terms.is_option and lots < 0 and instrument.option_rule_id == 0:
        return REASON_SHORT_OPTION_NOT_PERMITTED
    if instrument.settlement_price != 0:
        return REASON_INSTRUMENT_SETTLED
    if position == NULL and book.position_count == book.position_capacity:
        return REASON_POSITIONS_FULL
    if not level_has_room(book, account, instrument_id):
        return REASON_HOLDINGS_FULL
    memset(&holding, 0, sizeof(Holding))
    holding.lots = lots
    holding.entry_value = entry_value
    holding.wallet = wallet
    share_of(&terms, &holding, &share)
    pool_beside(
        book,
        account,
        instrument,
        position,
        True,
        exposure_of(&terms, &holding),
        now_ns,
        &others,
        &purse,
    )
    pool_join(book, &others, &purse, &share, True, 0, &pool)
    change.figure = wallet
    change.available = available_or_zero(&pool)
    if validate_only:
        return REASON_NONE
    footprint_of(account, position, &before)
    if position == NULL:
        position = position_add(book, account, instrument_id, position_side)
    position.lots = lots
    position.entry_value = entry_value
    position.wallet = wallet
    level_follow(book, account, position, &before)
    controls_move_peaks(book, account, wallet)
    credit_follow(book, account)
    book.revision += 1
    return REASON_NONE


# --- funding ---------------------------------------------------------------------------------

cdef bint _payment_of(
    const Terms *terms, const Position *position, int64_t price, int64_t rate_ppb, i128 *payment
) noexcept nogil:
    """Write what a position receives (below 0: pays) of its notional N = a / b, exactly.

    ceil(N r) = ceil(ceil(N r 10^9) / 10^9), and so with floors. False when N does not fit.
    """
    cdef i128 numerator, denominator, whole, rest, rate
    if not _notional_fraction(
        terms, magnitude(position.lots), price, &numerator, &denominator
    ):
        return False
    whole = floor_div(numerator, denominator)
    rest = numerator - whole * denominator
    if not fits(whole + (rest > 0)):
        return False
    rate = magnitude(rate_ppb)
    if (position.lots > 0) == (rate_ppb > 0):
        payment[0] = -ceil_div(whole * rate + ceil_div(rest * rate, denominator), PPB)
    else:
        payment[0] = floor_div(whole * rate + floor_div(rest * rate, denominator), PPB)
    return True


cdef bint _fund(
    Book *book,
    const Legs *legs,
    int64_t rate_ppb,
    int64_t price,
    bint is_check,
    uint64_t now_ns,
    Funding *funding,
) noexcept nogil:
    """Pay or get what is due of one account; False if a figure does not fit.

    A check changes nothing.
    """
    cdef Terms terms
    cdef Account *account = _account_of(book, legs, &terms)
    cdef Position *position
    cdef uint32_t asset_id = terms.instrument.asset_id
    cdef i128 money = money_of(book, account, asset_id)
    cdef i128 wallet, payment
    cdef uint32_t index
    if terms.margin_mode == MARGIN_MODE_CROSS:
        funding.rows += money_rows_missing(book, account, asset_id)
    for index in range(legs.count):
        position = legs.positions[index]
        if not _payment_of(&terms, position, price, rate_ppb, &payment):
            return False
        wallet = position.wallet
        if terms.margin_mode == MARGIN_MODE_ISOLATED:
            wallet += payment
        else:
            money += payment
        if not fits(wallet) or not fits(money):
            return False
        funding.positions += 1
        funding.paid += larger(0, -payment)
        funding.received += larger(0, payment)
        if is_check:
            continue
        position.wallet = <int64_t>wallet
        money_set(book, account, asset_id, <int64_t>money)
        if not is_foreign(account, terms.instrument):
            level_move_money(book, account, payment)
            level_count_fill(book, account, 0, payment, now_ns)
    if not is_check:
        credit_follow(book, account)
    return True


cdef uint32_t apply_funding(
    Book *book,
    uint32_t instrument_id,
    int64_t rate_ppb,
    int64_t price,
    uint64_t time_ns,
    bint validate_only,
    uint64_t now_ns,
    Funding *funding,
) noexcept nogil:
    """Let the positions of a perpetual pay each other: longs to shorts when the rate is above 0."""
    cdef Instrument *instrument = instrument_find(book, instrument_id)
    cdef Funding done
    cdef Legs legs
    cdef uint32_t place
    memset(funding, 0, sizeof(Funding))
    memset(&done, 0, sizeof(Funding))
    if instrument == NULL:
        return REASON_INSTRUMENT_UNKNOWN
    if is_option(instrument) or is_spot(instrument) or instrument.expiry_ns != 0:
        return REASON_DEFINITION_INVALID
    if rate_ppb > PPB or rate_ppb < -PPB or price < 0 or price > NUMBER_MAX:
        return REASON_DEFINITION_INVALID
    if instrument.settlement_price != 0:
        return REASON_INSTRUMENT_SETTLED
    if time_ns == 0 or time_ns <= instrument.funding_time_ns:
        return REASON_FUNDING_OUT_OF_ORDER
    if time_ns > now_ns and time_ns - now_ns > MARK_LEAD_NS_MAX:
        return REASON_FUNDING_OUT_OF_ORDER
    if price == 0:
        price = instrument.mark.price
    if price == 0:
        return REASON_MARK_MISSING
    for place in range(book.position_top):
        if _legs_at(book, place, instrument_id, &legs) and not _fund(
            book, &legs, rate_ppb, price, True, now_ns, &done
        ):
            return REASON_MARGIN_OVERFLOWS
    if not fits(done.paid) or not fits(done.received):
        return REASON_MARGIN_OVERFLOWS
    if done.rows > book.balance_capacity - book.balance_count:
        return REASON_BALANCES_FULL
    funding[0] = done
    if validate_only:
        return REASON_NONE
    for place in range(book.position_top):
        if _legs_at(book, place, instrument_id, &legs):
            _fund(book, &legs, rate_ppb, price, False, now_ns, &done)
    instrument.funding_time_ns = time_ns
    book.revision += 1
    return REASON_NONE


# --- settlement ------------------------------------------------------------------------------

cdef i128 _intrinsic_price(const Instrument *option, int64_t price) noexcept nogil:
    """max(0, price - strike) of a call, max(0, strike - price) of a put."""
    if option.option_type == OPTION_TYPE_CALL:
        return larger(0, <i128>price - option.strike_units)
    return larger(0, <i128>option.strike_units - price)


cdef i128 _intrinsic_value(const Terms *terms, i128 lots, int64_t price) noexcept nogil:
    """Return what lots of an option pay at a price of the underlying, rounded down.

    A short pays: less than nothing, and so rounded up.
    """
    cdef const Instrument *option = terms.instrument
    cdef i128 intrinsic = _intrinsic_price(option, price)
    cdef i128 value
    if option.kind != INSTRUMENT_KIND_INVERSE_OPTION:
        return notional_down(&terms.unit, lots, <int64_t>intrinsic)
    # In coin: what it is in the money over the price.
    if not multiply(lots * option.coin_value, intrinsic, &value):
        return beyond_money() if lots > 0 else -beyond_money()
    return floor_div(value, price)


cdef bint _close_at(
    const Terms *terms,
    i128 lots,
    i128 entry_value,
    i128 wallet,
    int64_t price,
    Closing *closing,
) noexcept nogil:
    """Figure what closing a position at a settlement price does; False if it does not fit."""
    closing.deficit = 0
    if terms.is_option:
        closing.cash = _intrinsic_value(terms, lots, price)
        closing.pnl = closing.cash - entry_value if lots > 0 else closing.cash + entry_value
    else:
        closing.pnl = unrealised_pnl_at(terms, lots, entry_value, price)
        closing.cash = closing.pnl
        if terms.margin_mode == MARGIN_MODE_ISOLATED:
            # A bankrupt isolated position takes nothing from the pool.
            closing.cash = larger(0, wallet + closing.pnl)
            closing.deficit = closing.cash - wallet - closing.pnl
    return fits(closing.pnl) and fits(closing.cash) and fits(closing.deficit)


cdef void settle_fill(const Terms *terms, Fill *fill) noexcept nogil:
    """Close at once what a late fill leaves open of an instrument that is settled."""
    cdef Closing closing
    if not fill.fits or fill.lots == 0:
        return
    fill.fits = _close_at(
        terms,
        fill.lots,
        fill.entry_value,
        fill.wallet,
        terms.instrument.settlement_price,
        &closing,
    )
    fill.lots = 0
    fill.entry_value = 0
    fill.wallet = 0
    fill.cash_change += closing.cash
    fill.realised_pnl += closing.pnl
    fill.deficit += closing.deficit


cdef bint _settle(
    Book *book,
    const Legs *legs,
    int64_t price,
    bint is_check,
    uint64_t now_ns,
    Settlement *settlement,
) noexcept nogil:
    """Close the positions of one account; False if a figure does not fit.

    A check changes nothing.
    """
    cdef Terms terms
    cdef Account *account = _account_of(book, legs, &terms)
    cdef Position *position
    cdef Footprint before
    cdef Closing closing
    cdef uint32_t asset_id = terms.instrument.asset_id
    cdef i128 money = money_of(book, account, asset_id)
    cdef uint32_t index
    settlement.rows += money_rows_missing(book, account, asset_id)
    for index in range(legs.count):
        position = legs.positions[index]
        if not _close_at(
            &terms, position.lots, position.entry_value, position.wallet, price, &closing
        ):
            return False
        money += closing.cash
        if not fits(money):
            return False
        settlement.positions += 1
        settlement.profit += larger(0, closing.pnl)
        settlement.loss += larger(0, -closing.pnl)
        settlement.deficit += closing.deficit
        if is_check:
            continue
        footprint_of(account, position, &before)
        position.lots = 0
        position.entry_value = 0
        position.wallet = 0
        money_set(book, account, asset_id, <int64_t>money)
        level_follow(book, account, position, &before)
        if not is_foreign(account, terms.instrument):
            level_count_fill(book, account, 0, closing.pnl + closing.deficit, now_ns)
        position_drop_if_absent(book, position)
    if not is_check:
        credit_follow(book, account)
    return True


cdef uint32_t check_settlement(
    Book *book,
    uint32_t instrument_id,
    int64_t price,
    uint64_t now_ns,
    Settlement *settlement,
) noexcept nogil:
    """Whether an instrument can be settled at a price, and what that comes to; changes nothing."""
    cdef const Instrument *instrument = instrument_find(book, instrument_id)
    cdef Settlement found
    cdef Legs legs
    cdef uint32_t place
    memset(settlement, 0, sizeof(Settlement))
    memset(&found, 0, sizeof(Settlement))
    if instrument == NULL:
        return REASON_INSTRUMENT_UNKNOWN
    if price < 1 or price > NUMBER_MAX or is_spot(instrument):
        return REASON_DEFINITION_INVALID
    if instrument.settlement_price != 0:
        return REASON_INSTRUMENT_SETTLED
    if instrument.trading_state != TRADING_STATE_HALTED and (
        instrument.expiry_ns == 0 or instrument.expiry_ns > now_ns
    ):
        return REASON_INSTRUMENT_NOT_EXPIRED
    for place in range(book.position_top):
        if _legs_at(book, place, instrument_id, &legs) and not _settle(
            book, &legs, price, True, now_ns, &found
        ):
            return REASON_MARGIN_OVERFLOWS
    if not (
        fits(found.profit)
        and fits(found.loss)
        and fits(book.assets[instrument.asset_id - 1].deficit + found.deficit)
    ):
        return REASON_MARGIN_OVERFLOWS
    if found.rows > book.balance_capacity - book.balance_count:
        return REASON_BALANCES_FULL
    settlement[0] = found
    return REASON_NONE


cdef void settle_positions(
    Book *book, uint32_t instrument_id, int64_t price, uint64_t now_ns
) noexcept nogil:
    """Close every position for good; the check was passed, and no order works any more."""
    cdef Instrument *instrument = instrument_find(book, instrument_id)
    cdef Settlement settlement
    cdef Legs legs
    cdef uint32_t place
    memset(&settlement, 0, sizeof(Settlement))
    for place in range(book.position_top):
        if _legs_at(book, place, instrument_id, &legs):
            _settle(book, &legs, price, False, now_ns, &settlement)
    debug_assert(fits(book.assets[instrument.asset_id - 1].deficit + settlement.deficit))
    book.assets[instrument.asset_id - 1].deficit += <int64_t>settlement.deficit
    instrument.settlement_price = price
    memset(&instrument.mark, 0, sizeof(Mark))
    book.revision += 1
