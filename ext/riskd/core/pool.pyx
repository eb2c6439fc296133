"""What positions add to their account's sums, and what a fill does to a position.

Figures are 128 bits wide here, so that sums of 64-bit figures cannot wrap; whether they fit the
money type is checked where they are stored or returned. The rules are those of docs/decision.md.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.book cimport (
    Book,
    Sums,
    account_place,
    balance_of,
    collateral_find,
    settings_of,
)
from riskd.core.collateral cimport collateral_value_of, is_foreign, converted_up
from riskd.core.credit cimport credit_of
from riskd.core.families cimport (
    Size,
    initial_margin_of,
    liquidation_margin_of,
    maintenance_margin_of,
    reserved_fee_of,
)
from riskd.core.hedge cimport shared_units_of
from riskd.core.margin cimport (
    Exposure,
    bankruptcy_price_of,
    gains_with_notional,
    notional_down,
    notional_up,
)
from riskd.core.money cimport (
    LEVERAGE_ONE,
    PPB,
    ceil_div,
    clamp,
    debug_assert,
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
    opening_margin_of,
    short_margin_of,
)
from riskd.core.types cimport (
    CLOSING_FEE_NONE,
    FAMILY_TIERED,
    LIQUIDATION_STATUS_AT_PRICE,
    LIQUIDATION_STATUS_UNSPECIFIED,
    MAINTENANCE_BASIS_MARK,
    MARGIN_MODE_CROSS,
    MARGIN_MODE_ISOLATED,
    NOWHERE,
    NUMBER_MAX,
    POSITION_SIDE_NET,
    REASON_NONE,
    SIDE_BUY,
    SIDE_SELL,
    Account,
    Collateral,
    Instrument,
    Position,
    WorkingSum,
)
from riskd.core.value cimport (
    is_inverse,
    is_option,
    is_spot,
    mark_reason_of,
    traded_of,
    value_of,
)

cdef i128 mark_value_up(const Terms *terms, i128 lots, int64_t price) noexcept nogil:
    """Nup: the value of lots at a mark, rounded up."""
    return notional_up(&terms.unit, lots, price)


cdef i128 mark_value_down(const Terms *terms, i128 lots, int64_t price) noexcept nogil:
    """Ndown: the value of lots at a mark, rounded down."""
    return notional_down(&terms.unit, lots, price)


cdef void terms_of(
    const Book *book,
    const Account *account,
    const Instrument *instrument,
    const Position *settings,
    Terms *terms,
) noexcept nogil:
    """Resolve settings: those of the NET position (which may be NULL), else the account's defaults.

    In hedge mode they hold for LONG and SHORT.
    """
    cdef uint32_t own_leverage = 0
    cdef uint32_t own_mode = 0
    if settings != NULL:
        own_leverage = settings.leverage
        own_mode = settings.margin_mode
    terms.instrument = instrument
    terms.unit.numerator = instrument.value_numerator
    terms.unit.denominator = instrument.value_denominator
    terms.unit.quotient = 0
    if is_inverse(instrument):
        terms.unit.quotient = <i128>instrument.quotient * instrument.units_per_tick
    terms.margin_mode = own_mode if own_mode != 0 else account.margin_mode
    if instrument.isolated_only:
        terms.margin_mode = MARGIN_MODE_ISOLATED
    terms.is_spot = is_spot(instrument)
    terms.is_option = terms.is_spot or is_option(instrument)
    terms.rule = NULL
    terms.scale = book.assets[instrument.asset_id - 1].scale
    if terms.is_option:
        terms.schedule = NULL
        terms.ladder = NULL
        terms.is_plain = False
        terms.leverage = LEVERAGE_ONE
        if instrument.option_rule_id != 0:
            terms.rule = &book.schedules[instrument.option_rule_id - 1]
            terms.underlying = &book.instruments[instrument.underlying_id - 1]
        return
    terms.schedule = &book.schedules[instrument.schedule_id - 1]
    terms.ladder = &terms.schedule.ladder
    terms.is_plain = (
        terms.ladder.family == FAMILY_TIERED
        and terms.ladder.basis == MAINTENANCE_BASIS_MARK
        and terms.ladder.closing_fee == CLOSING_FEE_NONE
    )
    if own_leverage != 0:
        terms.leverage = own_leverage
    else:
        terms.leverage = min(<int64_t>account.leverage, terms.ladder.tiers[0].leverage_max)


cdef void holding_of(const Position *position, Holding *holding) noexcept nogil:
    """Copy a position's figures; a position that does not exist (NULL) is flat."""
    if position == NULL:
        memset(holding, 0, sizeof(Holding))
        return
    holding.lots = position.lots
    holding.entry_value = position.entry_value
    holding.wallet = position.wallet
    holding.buy = position.buy
    holding.sell = position.sell


cdef i128 unrealised_pnl_at(
    const Terms *terms, i128 lots, i128 entry_value, int64_t price
) noexcept nogil:
    """sigma > 0: Ndown - V. sigma < 0: V - Nup."""
    if lots == 0:
        return 0
    if gains_with_notional(&terms.unit, lots):
        return mark_value_down(terms, magnitude(lots), price) - entry_value
    return entry_value - mark_value_up(terms, magnitude(lots), price)


cdef i128 unrealised_pnl_of(const Terms *terms, i128 lots, i128 entry_value) noexcept nogil:
    return unrealised_pnl_at(terms, lots, entry_value, terms.instrument.mark.price)


cdef i128 _side_initial(
    const Terms *terms,
    const WorkingSum *working,
    bint is_sell,
    i128 closable,
    i128 held,
    i128 held_lots,
    bint with_held,
    i128 *side_notional,
    i128 *side_lots,
) noexcept nogil:
    """Return the initial margin of one side: the position as far as it counts, and what opens."""
    cdef i128 open_lots = larger(0, working.lots - closable)
    cdef i128 open_value = 0
    cdef Size size
    if open_lots > 0:
        open_value = working.value
        if closable > 0:
            open_value = ceil_div(open_value * open_lots, working.lots)
    size.notional = held + open_value
    size.lots = held_lots + open_lots
    size.is_short = is_sell
    side_notional[0] = size.notional
    side_lots[0] = size.lots
    # Nothing needs nothing; families may ask for more than a part of the amount.
    if terms.is_plain and (size.notional if with_held else open_value) == 0:
        return 0
    if with_held:
        return initial_margin_of(terms, size.notional, size.lots, &size)
    return initial_margin_of(terms, open_value, open_lots, &size)


cdef inline i128 _fee_of(const Terms *terms, const WorkingSum *working) noexcept nogil:
    return ceil_div(<i128>working.value * terms.instrument.taker_fee_ppb, PPB)


cdef void _share_of_option(
    const Terms *terms, const Holding *holding, Share *share
) noexcept nogil:
    """Compute what an option that may be short adds."""
    cdef i128 bought = larger(0, holding.buy.lots - larger(0, -<i128>holding.lots))
    cdef i128 sold = larger(0, holding.sell.lots - larger(0, holding.lots))
    cdef i128 initial, maintenance
    # The premium in full of what opens: what closes a short is paid by its margin.
    if bought > 0:
        share.initial_margin = ceil_div(holding.buy.value * bought, holding.buy.lots)
    share.initial_margin += _fee_of(terms, &holding.buy) + _fee_of(terms, &holding.sell)
    if holding.lots >= 0 and sold == 0:
        return
    if not has_marks(terms):
        # Orders are in no requirement for liquidation: that of the account stays known.
        share.unknown = UNKNOWN_MARGIN
        if holding.lots < 0:
            share.unknown = UNKNOWN_BACKING
        return
    if holding.lots < 0:
        short_margin_of(terms, -<i128>holding.lots, &initial, &maintenance)
        share.initial_margin += initial
        share.maintenance = maintenance
        share.requirement = maintenance
    if sold > 0:
        # Its premium counts when it is there.
        share.initial_margin += opening_margin_of(terms, sold)


cdef void share_clear(Share *share) noexcept nogil:
    # Field by field: for a struct of this size GCC makes of memset an instruction with a long
    # start.
    share.initial_margin = 0
    share.pnl = 0
    share.maintenance = 0
    share.requirement = 0
    share.buy_notional = 0
    share.sell_notional = 0
    share.buy_lots = 0
    share.sell_lots = 0
    share.buy_initial = 0
    share.sell_initial = 0
    share.unknown = 0


cdef inline void _add_side(
    const Terms *terms, const Holding *holding, uint32_t side, i128 held, Share *share
) noexcept nogil:
    """Write what one side comes to; `held` is what the position counts with on its own side."""
    cdef bint is_cross = terms.margin_mode == MARGIN_MODE_CROSS
    cdef int64_t lots = holding.lots
    if side == SIDE_BUY:
        share.buy_initial = _side_initial(
            terms,
            &holding.buy,
            False,
            -<i128>lots if lots < 0 else 0,
            held if lots > 0 else 0,
            lots if lots > 0 else 0,
            is_cross,
            &share.buy_notional,
            &share.buy_lots,
        )
    else:
        share.sell_initial = _side_initial(
            terms,
            &holding.sell,
            True,
            lots if lots > 0 else 0,
            held if lots < 0 else 0,
            -<i128>lots if lots < 0 else 0,
            is_cross,
            &share.sell_notional,
            &share.sell_lots,
        )


cdef inline void _add_initial(
    const Terms *terms, const Holding *holding, Share *share
) noexcept nogil:
    # The margin of buys and sells is never summed: the worse side counts, and what closes is free.
    share.initial_margin = larger(share.buy_initial, share.sell_initial)
    # Rates may rise with the mark faster than what leverage asks for.
    share.initial_margin = larger(share.initial_margin, share.requirement)
    # But each order may fill: all of them count with the loss that they lock in, and with their
    # fee.
    share.initial_margin += <i128>holding.buy.open_loss + holding.sell.open_loss
    share.initial_margin += _fee_of(terms, &holding.buy) + _fee_of(terms, &holding.sell)


cdef void share_of(const Terms *terms, const Holding *holding, Share *share) noexcept nogil:
    """Compute what a position with its working orders adds to its account's sums."""
    cdef bint is_cross = terms.margin_mode == MARGIN_MODE_CROSS
    cdef i128 lots = magnitude(holding.lots)
    cdef i128 held = 0
    cdef i128 notional
    share_clear(share)
    if terms.is_option:
        if terms.rule != NULL:
            _share_of_option(terms, holding, share)
            return
        share.initial_margin = holding.buy.value + _fee_of(terms, &holding.buy)
        if terms.is_spot:
            share.initial_margin += _fee_of(terms, &holding.sell)
        if holding.lots < 0:
            share.unknown = UNKNOWN_MARGIN
        return
    if is_cross and lots != 0:
        if terms.instrument.mark.price == 0:
            share.unknown = UNKNOWN_MARK
            return
        notional = mark_value_up(terms, lots, terms.instrument.mark.price)
        held = notional
        share.pnl = unrealised_pnl_of(terms, holding.lots, holding.entry_value)
        share.maintenance = maintenance_margin_of(
            terms, holding.lots, holding.entry_value, notional
        )
        share.requirement = liquidation_margin_of(
            terms, holding.lots, holding.entry_value, notional
        )
    elif lots != 0:
        held = holding.entry_value
    _add_side(terms, holding, SIDE_BUY, held, share)
    _add_side(terms, holding, SIDE_SELL, held, share)
    _add_initial(terms, holding, share)


cdef void share_with_order(
    const Terms *terms, const Holding *holding, uint32_t side, const Share *before, Share *share
) noexcept nogil:
    """As share_of, of a holding that was `before` but for the working orders of one side."""
    cdef i128 held
    if terms.is_option or before.unknown:
        share_of(terms, holding, share)
        return
    held = holding.entry_value
    if terms.margin_mode == MARGIN_MODE_CROSS and holding.lots != 0:
        held = mark_value_up(terms, magnitude(holding.lots), terms.instrument.mark.price)
    share[0] = before[0]
    _add_side(terms, holding, side, held, share)
    _add_initial(terms, holding, share)


cdef void pool_add(Pool *pool, const Share *share) noexcept nogil:
    pool.pnl += share.pnl
    pool.initial_margin += share.initial_margin
    pool.maintenance += share.maintenance
    pool.requirement += share.requirement
    pool.unknown |= share.unknown


cdef void _sum(
    const Book *book,
    const Account *account,
    const Position *left_out,
    uint32_t apart,
    bint needs_index,
    const Exposed *exposed,
    uint64_t now_ns,
    Pool *pool,
    Purse *purse,
) noexcept nogil:
    """Sum an account's positions but one. What is in an asset that stays `apart` (0: none) goes
    into the purse, and not into the pool.
    """
    cdef uint32_t place = account.first_position
    cdef const Position *position
    cdef const Position *settings = NULL
    cdef const Instrument *instrument
    cdef Terms terms
    cdef Holding holding
    cdef Share share
    cdef bint has_foreign = False
    pool.cash = account.cash
    pool.pnl = 0
    pool.initial_margin = 0
    pool.maintenance = 0
    pool.requirement = 0
    pool.isolated_wallets = 0
    pool.collateral = 0
    pool.credit = 0
    pool.unknown = 0
    pool.mark_reason = REASON_NONE
    pool.has_sides = False
    pool.are_still = True
    while place != NOWHERE:
        position = &book.positions[place]
        place = position.next_of_account
        # NET comes first of an instrument's positions, and has the settings of all.
        if position.position_side == POSITION_SIDE_NET:
            settings = position
        else:
            pool.has_sides = True
            if settings != NULL and settings.instrument_id != position.instrument_id:
                settings = NULL
        instrument = &book.instruments[position.instrument_id - 1]
        if is_foreign(account, instrument):
            has_foreign = True
            pool.are_still = False
        else:
            pool.isolated_wallets += position.wallet
        if position == left_out:
            continue
        terms_of(book, account, instrument, settings, &terms)
        if not is_foreign(account, instrument):
            holding_of(position, &holding)
            share_of(&terms, &holding, &share)
            pool_add(pool, &share)
        if not is_still(&terms, position.lots, position.position_side):
            pool.are_still = False
        if pool.mark_reason != REASON_NONE:
            continue
        if terms.is_option:
            if terms.rule != NULL and may_be_short(position.lots, position.sell.lots):
                pool.mark_reason = marks_reason_of(&terms, now_ns)
        elif position.lots != 0 and terms.margin_mode == MARGIN_MODE_CROSS:
            pool.mark_reason = mark_reason_of(instrument, now_ns)
    # Most accounts have none of these, and a test each is all that they pay.
    if account.first_balance != NOWHERE or has_foreign or apart != 0:
        _add_foreign(
            book, account, left_out, apart, needs_index, has_foreign, exposed, now_ns, pool, purse
        )
    if account.credit_line != 0:
        pool.credit = credit_of(book, account)


cdef uint32_t _next_asset(
    const Book *book, const Account *account, uint32_t last, uint32_t apart, bint has_foreign
) noexcept nogil:
    """Return the first asset after one that an account has a balance of, or a position settled in;
    0 if there is none. `apart` counts too.
    """
    cdef uint32_t found = apart if apart > last else 0
    cdef uint32_t place = account.first_balance
    cdef uint32_t asset_id
    while place != NOWHERE and book.balances[place].asset_id <= last:
        place = book.balances[place].next_of_account
    if place != NOWHERE and (found == 0 or book.balances[place].asset_id < found):
        found = book.balances[place].asset_id
    if not has_foreign:
        return found
    place = account.first_position
    while place != NOWHERE:
        asset_id = book.instruments[book.positions[place].instrument_id - 1].asset_id
        if asset_id != account.asset_id and asset_id > last and (found == 0 or asset_id < found):
            found = asset_id
        place = book.positions[place].next_of_account
    return found


cdef void _purse_of(
    const Book *book,
    const Account *account,
    const Position *left_out,
    uint32_t asset_id,
    bint has_foreign,
    const Exposed *exposed,
    Purse *purse,
) noexcept nogil:
    """Sum what an account has in another asset, and its positions there but one."""
    cdef uint32_t place = account.first_position if has_foreign else NOWHERE
    cdef const Position *position
    cdef const Position *settings = NULL
    cdef const Instrument *instrument
    cdef Terms terms
    cdef Holding holding
    cdef Share share
    purse.account = account
    purse.exposed = exposed[0]
    purse.asset_id = asset_id
    purse.money = balance_of(book, account, asset_id)
    purse.pnl = 0
    purse.initial_margin = 0
    purse.maintenance = 0
    purse.requirement = 0
    purse.collateral = collateral_find(book, asset_id, account.asset_id)
    purse.unknown = 0
    purse.is_open = False
    while place != NOWHERE:
        position = &book.positions[place]
        place = position.next_of_account
        if position.position_side == POSITION_SIDE_NET:
            settings = position
        elif settings != NULL and settings.instrument_id != position.instrument_id:
            settings = NULL
        instrument = &book.instruments[position.instrument_id - 1]
        if position == left_out or instrument.asset_id != asset_id:
            continue
        terms_of(book, account, instrument, settings, &terms)
        holding_of(position, &holding)
        share_of(&terms, &holding, &share)
        _purse_add(purse, &share, holding_is_open(&holding))


cdef uint32_t next_foreign_asset(
    const Book *book, const Account *account, uint32_t last
) noexcept nogil:
    """Return the first asset after one that an account has a balance of, or a position settled in;
    0 if there is none.
    """
    return _next_asset(book, account, last, 0, True)


cdef void purse_of(
    const Book *book, const Account *account, uint32_t asset_id, Purse *purse
) noexcept nogil:
    """Sum what an account has in another asset."""
    cdef Exposed nothing = _nothing_exposed()
    _purse_of(book, account, NULL, asset_id, True, &nothing, purse)


cdef inline Exposed _nothing_exposed() noexcept nogil:
    cdef Exposed nothing
    nothing.amount = 0
    nothing.asset_id = 0
    nothing.base_asset_id = 0
    return nothing


cdef i128 exposure_of(const Terms *terms, const Holding *holding) noexcept nogil:
    """Return what a position, and its buys, lose as the base asset of their contract loses all
    value; 0 of what is not in the pool.
    """
    cdef i128 exposure = holding.buy.value
    cdef int64_t price = terms.instrument.mark.price
    if (
        terms.is_option
        or terms.instrument.base_asset_id == 0
        or terms.margin_mode != MARGIN_MODE_CROSS
    ):
        return 0
    if price != 0 and holding.lots > 0:
        exposure += mark_value_up(terms, holding.lots, price)
    elif price != 0 and holding.lots < 0:
        exposure -= mark_value_down(terms, -<i128>holding.lots, price)
    return exposure


cdef bint _exposure_in(
    const Book *book, const Purse *purse, uint32_t asset_id, i128 *exposure, bint *is_there
) noexcept nogil:
    """Sum what contracts settled in an asset lose with that of the purse; False while that is not
    known.
    """
    cdef const Account *account = purse.account
    cdef uint32_t base_asset_id = purse.collateral.asset_id
    cdef uint32_t place = account.first_position
    cdef const Position *position
    cdef const Instrument *instrument
    cdef Terms terms
    cdef Holding holding
    exposure[0] = 0
    is_there[0] = purse.exposed.base_asset_id == base_asset_id and (
        purse.exposed.asset_id == asset_id
    )
    if is_there[0]:
        exposure[0] = purse.exposed.amount
    while place != NOWHERE:
        position = &book.positions[place]
        place = position.next_of_account
        instrument = &book.instruments[position.instrument_id - 1]
        if instrument.asset_id != asset_id or instrument.base_asset_id != base_asset_id:
            continue
        terms_of(
            book,
            account,
            instrument,
            settings_of(
                book, account, position, position.instrument_id, position.position_side
            ),
            &terms,
        )
        if terms.is_option or terms.margin_mode != MARGIN_MODE_CROSS:
            continue
        is_there[0] = True
        if position.lots != 0 and instrument.mark.price == 0:
            return False
        holding_of(position, &holding)
        exposure[0] += exposure_of(&terms, &holding)
    return fits(exposure[0])


cdef bint _exposure_to(const Book *book, const Purse *purse, i128 *exposure) noexcept nogil:
    """Write what the account loses with the asset of a purse, in its own asset; False while that
    is not known.
    """
    cdef const Account *account = purse.account
    cdef uint32_t other = purse.exposed.asset_id
    cdef uint32_t asset_id
    cdef const Collateral *collateral
    cdef i128 amount
    cdef int64_t price
    cdef bint is_there
    if not _exposure_in(book, purse, account.asset_id, exposure, &is_there):
        return False
    if other == account.asset_id:
        other = 0
    asset_id = _next_asset(book, account, 0, other, True)
    while asset_id != 0:
        if not _exposure_in(book, purse, asset_id, &amount, &is_there):
            return False
        if is_there:
            collateral = collateral_find(book, asset_id, account.asset_id)
            if collateral == NULL:
                return False
            price = book.instruments[collateral.index_instrument_id - 1].mark.price
            if price == 0:
                return False
            exposure[0] += converted_up(collateral, amount, price)
        asset_id = _next_asset(book, account, asset_id, other, True)
    return True


cdef bint purse_value_of(const Book *book, const Purse *purse, i128 *value) noexcept nogil:
    """Write what balance and profit count as collateral; False while that is not known."""
    cdef i128 equity = purse.money + purse.pnl
    cdef i128 exposure
    cdef int64_t price
    value[0] = 0
    if purse.collateral == NULL:
        # Nobody says what a debt is worth.
        return equity >= 0
    price = _index_of(book, purse).mark.price
    if price == 0 or not fits(equity):
        return False
    value[0] = collateral_value_of(purse.collateral, <int64_t>equity, price)
    if purse.collateral.wrong_way_ppb == 0 or value[0] <= 0:
        return True
    if not _exposure_to(book, purse, &exposure):
        return False
    exposure = min(value[0], larger(0, exposure))
    value[0] -= ceil_div(exposure * purse.collateral.wrong_way_ppb, PPB)
    return True


cdef void _purse_add(Purse *purse, const Share *share, bint is_open) noexcept nogil:
    purse.pnl += share.pnl
    purse.initial_margin += share.initial_margin
    purse.maintenance += share.maintenance
    purse.requirement += share.requirement
    purse.unknown |= share.unknown
    purse.is_open = purse.is_open or is_open


cdef void _add_foreign(
    const Book *book,
    const Account *account,
    const Position *left_out,
    uint32_t apart,
    bint needs_index,
    bint has_foreign,
    const Exposed *exposed,
    uint64_t now_ns,
    Pool *pool,
    Purse *purse,
) noexcept nogil:
    """Add what other assets come to, by rising asset; what stays apart only has its index looked
    at, also if only the caller's position `needs_index`.
    """
    cdef uint32_t asset_id = _next_asset(book, account, 0, apart, has_foreign)
    cdef Purse held
    while asset_id != 0:
        _purse_of(book, account, left_out, asset_id, has_foreign, exposed, &held)
        if pool.mark_reason == REASON_NONE and held.collateral != NULL and (
            held.money != 0 or held.is_open or (asset_id == apart and needs_index)
        ):
            pool.mark_reason = mark_reason_of(_index_of(book, &held), now_ns)
        if asset_id == apart:
            purse[0] = held
        else:
            _add_purse(book, pool, &held)
        asset_id = _next_asset(book, account, asset_id, apart, has_foreign)


cdef inline const Instrument *_index_of(const Book *book, const Purse *purse) noexcept nogil:
    return &book.instruments[purse.collateral.index_instrument_id - 1]


cdef void _add_purse(const Book *book, Pool *pool, const Purse *purse) noexcept nogil:
    """Add what is in another asset, converted: the equity by what it counts as collateral, what
    is required at the mark of the index.
    """
    cdef const Collateral *collateral = purse.collateral
    cdef i128 value
    cdef int64_t price
    if purse.money == 0 and not purse.is_open:
        return
    pool.unknown |= purse.unknown
    if not purse_value_of(book, purse, &value):
        pool.unknown |= UNKNOWN_BACKING
        return
    pool.collateral += value
    if not purse.is_open:
        return
    if collateral == NULL or not (fits(purse.maintenance) and fits(purse.requirement)):
        pool.unknown |= UNKNOWN_BACKING
        return
    if not fits(purse.initial_margin):
        pool.unknown |= UNKNOWN_MARGIN
        return
    price = _index_of(book, purse).mark.price
    pool.initial_margin += converted_up(collateral, purse.initial_margin, price)
    pool.maintenance += converted_up(collateral, purse.maintenance, price)
    pool.requirement += converted_up(collateral, purse.requirement, price)


cdef void pool_add_foreign(
    const Book *book,
    const Purse *purse,
    const Share *share,
    bint is_open,
    i128 flow,
    Pool *pool,
) noexcept nogil:
    """Add a purse with one more position."""
    cdef Purse held = purse[0]
    held.money += flow
    _purse_add(&held, share, is_open)
    _add_purse(book, pool, &held)


cdef void pool_of(
    const Book *book,
    const Account *account,
    const Position *left_out,
    uint64_t now_ns,
    Pool *pool,
) noexcept nogil:
    """Sum an account's positions but one (NULL: all of them)."""
    cdef Purse unused
    cdef Exposed nothing = _nothing_exposed()
    _sum(book, account, left_out, 0, False, &nothing, now_ns, pool, &unused)


cdef void pool_beside(
    const Book *book,
    const Account *account,
    const Instrument *instrument,
    const Position *left_out,
    bint needs_index,
    i128 exposed,
    uint64_t now_ns,
    Pool *pool,
    Purse *purse,
) noexcept nogil:
    """Sum what pool_join adds a position of an instrument to: the account's positions but one.

    The mark of the index of the instrument's asset counts in any case if the position
    `needs_index`. What the account loses with the instrument's base asset is that of all its
    positions as they are, and what is `exposed` beside them.
    """
    cdef uint32_t apart = instrument.asset_id if is_foreign(account, instrument) else 0
    cdef Exposed more
    more.amount = exposed
    more.asset_id = instrument.asset_id
    more.base_asset_id = instrument.base_asset_id if exposed != 0 else 0
    purse.asset_id = apart
    _sum(book, account, left_out, apart, needs_index, &more, now_ns, pool, purse)


cdef bint _take_sums(
    const Book *book, const Account *account, const Share *share, Pool *pool
) noexcept nogil:
    """Write the pool beside a position from the sums that are kept; False if they are not known."""
    cdef const Sums *sums = &book.sums[account_place(book, account)]
    if book.sums_revision != book.revision or sums.age != book.sums_age or not sums.are_still:
        return False
    if account.first_balance != NOWHERE:
        return False
    pool.cash = account.cash
    pool.pnl = 0
    pool.initial_margin = sums.initial_margin - share.initial_margin
    pool.maintenance = 0
    pool.requirement = 0
    pool.isolated_wallets = sums.isolated_wallets
    pool.collateral = 0
    pool.credit = 0
    pool.mark_reason = REASON_NONE
    pool.unknown = 0
    pool.has_sides = False
    pool.are_still = True
    if account.credit_line != 0:
        pool.credit = credit_of(book, account)
    return True


cdef void _keep_sums(
    Book *book, const Account *account, const Pool *beside, const Share *share, bint are_still
) noexcept nogil:
    """Keep the sums of an account without money in other assets; only if they are still is there
    anything to keep.
    """
    cdef Sums *sums = &book.sums[account_place(book, account)]
    cdef i128 initial_margin = beside.initial_margin + share.initial_margin
    if book.sums_revision != book.revision:
        book.sums_age += 1
        book.sums_revision = book.revision
    if sums.age == book.sums_age:
        return
    sums.age = book.sums_age
    sums.are_still = are_still and fits(initial_margin) and fits(beside.isolated_wallets)
    if sums.are_still:
        sums.initial_margin = <int64_t>initial_margin
        sums.isolated_wallets = <int64_t>beside.isolated_wallets


cdef void sums_add(Book *book, const Account *account, i128 margin_added) noexcept nogil:
    """Add what an order's position adds to the pool with the order."""
    cdef Sums *sums = &book.sums[account_place(book, account)]
    cdef i128 initial_margin = sums.initial_margin + margin_added
    if sums.age != book.sums_age or not sums.are_still:
        return
    if fits(initial_margin):
        sums.initial_margin = <int64_t>initial_margin
    else:
        sums.age = 0


cdef inline bint _are_right(
    const Book *book,
    const Account *account,
    const Instrument *instrument,
    const Position *left_out,
    const Pool *pool,
) noexcept nogil:
    """Whether sums that are kept are what the positions come to."""
    cdef Pool summed
    cdef Purse purse
    pool_beside(book, account, instrument, left_out, False, 0, 0, &summed, &purse)
    return (
        summed.are_still
        and summed.cash == pool.cash
        and summed.credit == pool.credit
        and summed.initial_margin == pool.initial_margin
        and summed.isolated_wallets == pool.isolated_wallets
        and summed.pnl == 0
        and summed.maintenance == 0
        and summed.requirement == 0
        and summed.collateral == 0
        and summed.mark_reason == REASON_NONE
        and summed.unknown == 0
        and not summed.has_sides
    )


cdef void pool_beside_order(
    const Book *book,
    const Account *account,
    const Terms *terms,
    const Position *left_out,
    uint32_t position_side,
    const Share *share,
    bint needs_index,
    i128 exposed,
    uint64_t now_ns,
    Pool *pool,
    Purse *purse,
) noexcept nogil:
    """As pool_beside, of the position that an order is for.

    Most accounts have no position whose figures move with a mark: they are then not gone through,
    but taken from sums that their orders add to. For that `share` says what the position adds as it
    is on the books; NULL: it is not as it is on the books.
    """
    cdef const Instrument *instrument = terms.instrument
    if share == NULL or is_foreign(account, instrument):
        pool_beside(
            book, account, instrument, left_out, needs_index, exposed, now_ns, pool, purse
        )
        return
    purse.asset_id = 0
    if _take_sums(book, account, share, pool):
        debug_assert(_are_right(book, account, instrument, left_out, pool))
        return
    pool_beside(book, account, instrument, left_out, needs_index, exposed, now_ns, pool, purse)
    _keep_sums(
        <Book *>book,
        account,
        pool,
        share,
        pool.are_still
        and account.first_balance == NOWHERE
        and (left_out == NULL or is_still(terms, left_out.lots, position_side)),
    )


cdef bint pool_fits(const Pool *pool) noexcept nogil:
    """Whether initial margin and what is available are known, and fit."""
    return (
        pool.unknown == 0
        and fits(pool.cash)
        and fits(pool.pnl)
        and fits(pool.initial_margin)
        and fits(pool.collateral)
        and fits(available_of(pool))
    )


cdef void fill_of(
    const Terms *terms,
    const Holding *holding,
    uint32_t side,
    int64_t price_ticks,
    i128 lots,
    i128 open_loss,
    Fill *fill,
) noexcept nogil:
    """Compute what a fill does; changes nothing. The fee is the caller's.

    `open_loss` is what leaves the order's hold with the fill. An isolated position takes its part
    along, so that it has its initial margin at the mark, not at a price beyond it.
    """
    cdef const Instrument *instrument = terms.instrument
    cdef i128 held = magnitude(holding.lots)
    cdef i128 signed_lots = lots if side == SIDE_BUY else -lots
    cdef i128 reduced = 0
    cdef Size size
    cdef i128 opened, released, freed, credit, covered, paid, need
    cdef i128 reduced_value, opened_value, value
    fill.lots = 0
    fill.entry_value = 0
    fill.wallet = 0
    fill.cash_change = 0
    fill.realised_pnl = 0
    fill.deficit = 0
    fill.base_change = 0
    fill.fits = False
    if not value_of(instrument, price_ticks, lots, &value) or not fits(value):
        return
    if terms.is_spot:
        # One asset for another: there is no position.
        fill.cash_change = -value if side == SIDE_BUY else value
        fill.base_change = signed_lots * instrument.base_value
        fill.fits = fits(fill.base_change)
        return
    fill.lots = holding.lots + signed_lots
    fill.entry_value = holding.entry_value
    fill.wallet = holding.wallet
    if (holding.lots > 0) != (signed_lots > 0) and held > 0:
        reduced = min(lots, held)
    opened = lots - reduced
    # What is closed and what is opened are rounded by themselves.
    reduced_value = traded_of(instrument, price_ticks, reduced, side)
    opened_value = traded_of(instrument, price_ticks, opened, side)
    if reduced > 0:
        if gains_with_notional(&terms.unit, holding.lots):
            released = ceil_div(<i128>holding.entry_value * reduced, held)
            fill.realised_pnl = reduced_value - released
        else:
            released = floor_div(<i128>holding.entry_value * reduced, held)
            fill.realised_pnl = released - reduced_value
        fill.entry_value -= released
        if terms.is_option:
            pass
        elif terms.margin_mode == MARGIN_MODE_ISOLATED:
            freed = floor_div(<i128>holding.wallet * reduced, held)
            fill.wallet -= freed
            credit = freed + fill.realised_pnl
            if credit >= 0:
                fill.cash_change += credit
            else:
                # The pool pays what was held for this order's loss, then the wallet, and nothing
                # else of the pool: a bankrupt isolated position takes the rest from nobody here.
                covered = min(-credit, open_loss - floor_div(open_loss * opened, lots))
                fill.cash_change -= covered
                # A wallet that funding brought below 0 pays nothing.
                paid = min(-credit - covered, larger(0, fill.wallet))
                fill.wallet -= paid
                fill.deficit = -credit - covered - paid
        else:
            fill.cash_change += fill.realised_pnl
    fill.entry_value += opened_value
    if terms.is_option:
        fill.cash_change -= value if side == SIDE_BUY else -value
    elif opened > 0 and terms.margin_mode == MARGIN_MODE_ISOLATED:
        size.notional = fill.entry_value
        size.lots = magnitude(fill.lots)
        size.is_short = fill.lots < 0
        need = initial_margin_of(terms, opened_value, opened, &size)
        need += floor_div(open_loss * opened, lots)
        fill.cash_change -= need
        fill.wallet += need
    fill.fits = (
        fits(fill.entry_value)
        and fits(fill.wallet)
        and fits(fill.cash_change)
        and fits(fill.realised_pnl)
        and fits(fill.deficit)
        and magnitude(fill.lots) <= NUMBER_MAX
    )


cdef uint32_t liquidation_price_ticks_of(
    const Terms *terms,
    i128 lots,
    i128 entry_value,
    i128 wallet,
    const Group *group,
    int64_t *price_ticks,
) noexcept nogil:
    """Write the liquidation price in ticks, rounded against the account, and return its status.

    `group` is what moves with the position, and the wallet then what is behind all of it.
    """
    cdef Exposure exposure
    cdef int64_t price
    cdef uint32_t status
    cdef bint is_below = lots > 0
    price_ticks[0] = 0
    if terms.is_option or not fits(wallet):
        return LIQUIDATION_STATUS_UNSPECIFIED
    exposure.lots = <int64_t>lots
    exposure.entry_value = <int64_t>entry_value
    exposure.wallet = <int64_t>wallet
    status = shared_units_of(terms, &exposure, group, &price)
    if group.count != 0:
        is_below = price <= terms.instrument.mark.price
    if status == LIQUIDATION_STATUS_AT_PRICE:
        price_ticks[0] = _ticks_against(terms, is_below, price)
    return status


cdef int64_t bankruptcy_price_ticks_of(
    const Terms *terms, i128 lots, i128 entry_value, i128 wallet
) noexcept nogil:
    """Return the bankruptcy price in ticks, rounded against the account; 0 if there is none."""
    cdef Exposure exposure
    cdef i128 price
    if terms.is_option or not fits(wallet) or lots == 0:
        return 0
    # What closing costs is no more behind it.
    wallet -= reserved_fee_of(terms, entry_value, lots < 0)
    if not fits(wallet):
        return 0
    exposure.lots = <int64_t>lots
    exposure.entry_value = <int64_t>entry_value
    exposure.wallet = <int64_t>wallet
    price = bankruptcy_price_of(&exposure, &terms.unit)
    return _ticks_against(terms, lots > 0, price) if price > 0 else 0


cdef inline int64_t _ticks_against(const Terms *terms, bint is_below, i128 price) noexcept nogil:
    """Round mark units to ticks: up where a fall leads to them, else down, never below 1."""
    cdef i128 ticks
    if is_below:
        ticks = ceil_div(price, terms.instrument.units_per_tick)
    else:
        ticks = floor_div(price, terms.instrument.units_per_tick)
    return clamp(ticks) if ticks > 1 else 1
