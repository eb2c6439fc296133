"""What Python sees of a book: rows, and the canonical state as text (docs/state.md).

With the GIL: for people, tools and tests.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from riskd.core.admin cimport (
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    SCOPE_INSTRUMENT,
    SCOPE_SERVICE,
)
from riskd.core.book cimport (
    ANSWER_EXECUTION,
    ANSWER_FACT_UNDONE,
    ANSWER_ORDER,
    REMEMBERED_SIZE_MAX,
    AnswerHead,
    Balance,
    Book,
    Gateway,
    Ring,
    account_find,
    answer_copy,
    answer_size,
    instrument_find,
    ring_find,
    risk_event_at,
    settings_of,
)
from riskd.core.collateral cimport is_foreign
from riskd.core.families cimport (
    Size,
    initial_margin_of,
    liquidation_margin_of,
    maintenance_margin_of,
    position_initial_of,
    reserved_fee_of,
)
from riskd.core.hedge cimport Group, group_of, is_liquidatable, shared_units_of
from riskd.core.margin cimport Exposure, bankruptcy_price_of
from riskd.core.money cimport PPB, ceil_div, clamp, fits, i128, magnitude
from riskd.core.pool cimport (
    UNKNOWN_EQUITY,
    Holding,
    Pool,
    Purse,
    Share,
    Terms,
    available_of,
    equity_of_pool,
    holding_of,
    mark_value_up,
    next_foreign_asset,
    pool_beside,
    pool_fits,
    pool_join,
    pool_of,
    purse_of,
    purse_value_of,
    share_of,
    terms_of,
    unrealised_pnl_of,
)
from riskd.core.types cimport *

from riskd.core.rows import (
    AccountRow,
    AssetRow,
    BalanceRow,
    CollateralRow,
    FirmRow,
    GatewayRow,
    InstrumentRow,
    LimitRow,
    MarkRow,
    PositionRow,
    RiskEventRow,
    ScheduleRow,
    SummaryRow,
    Tier as TierRow,
)


cdef _number(i128 value):
    """Return a number of 128 bits as a Python int."""
    cdef object high = <int64_t>(value >> 64)
    return (high << 64) + <uint64_t>value


cdef schedule_row(Book *book, uint32_t index):
    cdef Schedule *schedule = &book.schedules[index]
    cdef const Ladder *ladder = &schedule.ladder
    return ScheduleRow(
        index + 1,
        schedule.name.decode(),
        schedule.asset_id,
        schedule.version,
        ladder.notional_max,
        ladder.liquidation_fee_ppb,
        tuple([
            TierRow(
                ladder.tiers[place].floor,
                ladder.tiers[place].initial_ppb,
                ladder.tiers[place].maintenance_ppb,
                ladder.tiers[place].deduction,
                ladder.tiers[place].leverage_max,
            )
            for place in range(ladder.count)
        ]),
        ladder.family,
        ladder.basis,
        schedule.parameter_a,
        schedule.parameter_b,
        schedule.parameter_c,
        ladder.closing_fee,
        schedule.parameter_d,
        schedule.parameter_e,
    )


cdef instrument_row(Book *book, uint32_t index):
    cdef Instrument *row = &book.instruments[index]
    return InstrumentRow(
        index + 1,
        row.symbol.decode(),
        row.kind,
        row.asset_id,
        row.schedule_id,
        row.tick_mantissa,
        row.tick_exponent,
        row.lot_mantissa,
        row.lot_exponent,
        row.units_per_tick,
        row.order_lots_min,
        row.order_lots_max,
        row.order_notional_min,
        row.order_notional_max,
        row.price_collar_ppb,
        row.market_buffer_ppb,
        row.taker_fee_ppb,
        row.mark_age_max_ns,
        row.trading_state,
        row.expiry_ns,
        row.strike_units,
        row.option_type,
        row.interest_rate_ppb,
        row.underlying_id,
        row.multiplier_mantissa,
        row.multiplier_exponent,
        row.option_rule_id,
        row.settlement_price,
        row.funding_time_ns,
        row.open_interest_lots,
        row.base_asset_id,
        row.isolated_only,
    )


cdef account_row(const Book *book, const Account *account):
    return AccountRow(
        account.account_id,
        account.asset_id,
        account.margin_mode,
        account.leverage,
        account.cash,
        account.trading_state,
        account.position_mode,
        book.firms[account.firm].firm_id if account.firm != NOWHERE else 0,
        book.accounts[account.parent].account_id if account.parent != NOWHERE else 0,
        account.credit_line,
        account.credit_used,
        account.margin_level,
    )


cdef int64_t _price_with_orders(
    const Terms *terms,
    const Holding *holding,
    i128 wallet,
    const Group *group,
    uint32_t status,
    int64_t price,
):
    """Return the liquidation price were the orders filled that add to a position.

    All at their margin prices: docs/services.md. 0 where that does not bring it nearer than the
    price that it has without them.
    """
    cdef bint is_long = holding.lots > 0
    cdef WorkingSum adding = holding.buy if is_long else holding.sell
    cdef Exposure exposure
    cdef Size size
    cdef i128 lots = holding.lots + (<i128>adding.lots if is_long else -<i128>adding.lots)
    cdef i128 entry_value = <i128>holding.entry_value + adding.value
    cdef int64_t nearer = 0
    cdef int64_t mark
    if adding.lots == 0 or magnitude(lots) > NUMBER_MAX or not fits(entry_value):
        return 0
    if terms.margin_mode == MARGIN_MODE_ISOLATED:
        size.notional = entry_value
        size.lots = magnitude(lots)
        size.is_short = not is_long
        wallet += initial_margin_of(terms, adding.value, adding.lots, &size) + adding.open_loss
    else:
        wallet -= ceil_div(<i128>adding.value * terms.instrument.taker_fee_ppb, PPB)
    if not fits(wallet):
        return 0
    exposure.lots = <int64_t>lots
    exposure.entry_value = <int64_t>entry_value
    exposure.wallet = <int64_t>wallet
    if shared_units_of(terms, &exposure, group, &nearer) != LIQUIDATION_STATUS_AT_PRICE:
        return 0
    if status != LIQUIDATION_STATUS_AT_PRICE:
        return nearer
    if group.count != 0:
        mark = terms.instrument.mark.price
        return nearer if magnitude(nearer - mark) < magnitude(price - mark) else 0
    return nearer if (nearer > price if is_long else nearer < price) else 0


cdef inline bint _is_liquidatable(const Pool *pool) noexcept nogil:
    """Whether all of a pool is, where a position has no liquidation price."""
    cdef i128 equity = equity_of_pool(pool)
    if pool.unknown & UNKNOWN_EQUITY or not fits(equity) or not fits(pool.requirement):
        return False
    return equity <= pool.requirement


cdef position_row(Book *book, const Account *account, const Position *position):
    cdef const Instrument *instrument = &book.instruments[position.instrument_id - 1]
    cdef Terms terms
    cdef Holding holding
    cdef Share share
    cdef Pool others, whole
    cdef Purse purse
    cdef Exposure exposure
    cdef Group group
    cdef int64_t liquidation_price = 0
    cdef int64_t price_with_orders = 0
    cdef uint32_t status = LIQUIDATION_STATUS_UNSPECIFIED
    cdef i128 notional = 0
    cdef i128 pnl = 0
    cdef i128 maintenance = 0
    cdef i128 requirement = 0
    cdef i128 bankruptcy = 0
    cdef i128 initial, equity, bankrupt
    cdef bint liquidatable = False
    cdef bint is_cross, has_price, known
    terms_of(
        book,
        account,
        instrument,
        settings_of(
            book, account, position, position.instrument_id, position.position_side
        ),
        &terms,
    )
    holding_of(position, &holding)
    share_of(&terms, &holding, &share)
    is_cross = terms.margin_mode == MARGIN_MODE_CROSS
    has_price = not terms.is_option and not (is_cross and is_foreign(account, instrument))
    known = share.unknown == 0 and (instrument.mark.price != 0 or position.lots == 0)
    initial = share.initial_margin
    pool_beside(book, account, instrument, position, True, 0, 0, &others, &purse)
    # With the position itself: what it is settled in counts in any case.
    pool_join(book, &others, &purse, &share, True, 0, &whole)
    if is_cross and not terms.is_option:
        known = known and not whole.unknown & UNKNOWN_EQUITY
    if known and position.lots != 0:
        notional = mark_value_up(&terms, magnitude(position.lots), instrument.mark.price)
        pnl = unrealised_pnl_of(&terms, position.lots, position.entry_value)
    if position.lots == 0 and not terms.is_option:
        status = LIQUIDATION_STATUS_NO_POSITION
    elif has_price and (not is_cross or not others.unknown & UNKNOWN_EQUITY):
        exposure.lots = position.lots
        exposure.entry_value = position.entry_value
        equity = equity_of_pool(&others) if is_cross else position.wallet
        bankrupt = equity - reserved_fee_of(
            &terms, position.entry_value, position.lots < 0
        )
        if fits(equity) and fits(bankrupt):
            exposure.wallet = <int64_t>bankrupt
            bankruptcy = bankruptcy_price_of(&exposure, &terms.unit)
        group_of(book, account, &terms, position.instrument_id, position, &group)
        if is_cross:
            equity -= others.requirement + group.pnl - group.requirement
        if fits(equity):
            exposure.wallet = <int64_t>equity
            status = shared_units_of(&terms, &exposure, &group, &liquidation_price)
            price_with_orders = _price_with_orders(
                &terms, &holding, equity, &group, status, liquidation_price
            )
            liquidatable = known and is_liquidatable(
                &terms, &exposure, &group, instrument.mark.price
            )
    if known and position.lots != 0 and not terms.is_option:
        maintenance = maintenance_margin_of(
            &terms, position.lots, position.entry_value, notional
        )
        requirement = liquidation_margin_of(
            &terms, position.lots, position.entry_value, notional
        )
        if not is_cross:
            initial += position_initial_of(&terms, position.lots, notional)
        elif not has_price:
            liquidatable = _is_liquidatable(&whole)
    elif known and terms.rule != NULL and position.lots < 0:
        maintenance = share.maintenance
        requirement = share.requirement
        liquidatable = _is_liquidatable(&whole)
    if terms.margin_mode == MARGIN_MODE_ISOLATED and not terms.is_option:
        equity = position.wallet + pnl
    else:
        equity = equity_of_pool(&whole)
        if whole.unknown & UNKNOWN_EQUITY:
            equity = 0
            known = False
    return PositionRow(
        position.instrument_id,
        terms.margin_mode,
        terms.leverage,
        position.lots,
        position.entry_value,
        position.wallet,
        instrument.mark.price,
        clamp(notional) if known else 0,
        clamp(pnl) if known else 0,
        clamp(initial) if known else 0,
        clamp(maintenance) if known else 0,
        clamp(requirement) if known else 0,
        clamp(equity) if known else 0,
        status,
        liquidation_price,
        clamp(bankruptcy),
        bool(liquidatable),
        position.buy.lots,
        position.sell.lots,
        bool(known),
        position.position_side,
        position.margin_level,
        price_with_orders,
    )


cdef list _definition_lines(Book *book):
    cdef const Mark *mark
    cdef uint32_t index
    lines = []
    for index in range(book.asset_count):
        symbol = book.assets[index].symbol.decode()
        lines.append(f"asset {index + 1} {symbol} {book.assets[index].scale}")
    for index in range(book.schedule_count):
        row = schedule_row(book, index)
        tiers = " ".join(":".join(map(str, tier)) for tier in row.tiers)
        lines.append(
            f"schedule {' '.join(
                map(
                    str,
                    (
                        row.schedule_id,
                        row.name,
                        row.asset_id,
                        row.version,
                        row.notional_max,
                        row.liquidation_fee_ppb,
                        row.family,
                        row.maintenance_basis,
                        row.parameter_a,
                        row.parameter_b,
                        row.parameter_c,
                        row.closing_fee,
                        row.parameter_d,
                        row.parameter_e,
                    ),
                ),
            )} {tiers}",
        )
    for index in range(book.instrument_count):
        lines.append(f"instrument {' '.join(map(str, instrument_row(book, index)))}")
    for index in range(book.instrument_count):
        mark = &book.instruments[index].mark
        if mark.price != 0:
            row = (index + 1, mark.price, mark.time_ns, mark.volatility_ppb, mark.forward)
            lines.append(f"mark {' '.join(map(str, row))}")
    if book.service_state != TRADING_STATE_NORMAL:
        lines.append(f"service {book.service_state}")
    lines += [f"firm {' '.join(map(str, row))}" for row in firm_rows(book)]
    lines += [f"gateway {' '.join(map(str, row))}" for row in gateway_rows(book)]
    return lines


cdef list _account_lines(Book *book):
    return [
        f"account {' '.join(map(str, row))}"
        for row in sorted([
            account_row(
                book, &book.accounts[<uint32_t>index]
            ) for index in range(book.account_count)
        ])
    ]


cdef list _balance_lines(Book *book):
    cdef const Balance *balance
    cdef uint32_t index
    rows = []
    for index in range(book.balance_count):
        balance = &book.balances[index]
        account_id = book.accounts[balance.account_index].account_id
        rows.append((account_id, balance.asset_id, balance.amount))
    return [f"balance {' '.join(map(str, row))}" for row in sorted(rows)]


cdef list _position_lines(Book *book):
    cdef const Position *position
    cdef uint32_t index
    rows = []
    for index in range(book.position_top):
        position = &book.positions[index]
        if position.in_use and (
            position.lots != 0
            or position.margin_mode != 0
            or position.leverage != 0
            or position.margin_level != 0
        ):
            rows.append((
                book.accounts[position.account_index].account_id,
                position.instrument_id,
                position.position_side,
                position.margin_mode,
                position.leverage,
                position.lots,
                position.entry_value,
                position.wallet,
                position.margin_level,
            ))
    return [f"position {' '.join(map(str, row))}" for row in sorted(rows)]


cdef list _order_lines(Book *book):
    cdef const Order *order
    cdef const Position *position
    cdef uint32_t index
    rows = []
    for index in range(book.order_top):
        order = &book.orders[index]
        if not order.in_use:
            continue
        position = &book.positions[order.position_index]
        rows.append((
            order.reservation_id,
            book.accounts[position.account_index].account_id,
            position.instrument_id,
            position.position_side,
            order.gateway_id,
            order.client_order_id,
            order.side,
            order.order_type,
            order.time_in_force,
            order.flags,
            order.price_ticks,
            order.quantity_lots,
            order.remaining_lots,
            order.margin_price_ticks,
            order.open_loss,
            order.trigger_price_ticks,
            order.trailing_offset_ticks,
            order.expire_ns,
            order.accepted_ns,
        ))
    return [f"order {' '.join(map(str, row))}" for row in sorted(rows)]


cdef firm_rows(Book *book):
    return sorted([
        FirmRow(
            book.firms[index].firm_id,
            book.firms[index].asset_id,
            book.firms[index].trading_state,
            book.firms[index].credit_line,
            _number(book.firms[index].credit_used),
        )
        for index in range(book.firm_count)
    ])


cdef limit_rows(Book *book):
    cdef const Limit *limit
    cdef uint32_t index
    rows = []
    for index in range(book.limit_top):
        limit = &book.limits[index]
        if limit.in_use:
            rows.append(
                LimitRow(
                    limit.scope,
                    limit.scope_id,
                    limit.instrument_id,
                    limit.kind,
                    limit.value,
                    limit.burst,
                    limit.action,
                    limit.raised_value,
                    limit.raise_until_ns,
                    limit.due_ns,
                    limit.peak,
                )
            )
    return sorted(rows)


cdef list _usage_lines(Book *book):
    cdef const Account *account
    cdef const Level *level
    cdef uint32_t index
    rows = []
    for index in range(book.account_count):
        account = &book.accounts[index]
        rows.append(
            (
                SCOPE_ACCOUNT,
                account.account_id,
                account.usage.day,
                account.usage.traded,
                account.usage.realised,
            )
        )
    for index in range(book.firm_count):
        level = &book.firms[index].level
        # Of a firm they fit 64 bits: docs/limits.md.
        rows.append(
            (
                SCOPE_FIRM,
                book.firms[index].firm_id,
                level.day,
                <int64_t>level.traded,
                <int64_t>level.realised,
            )
        )
    return [f"usage {' '.join(map(str, row))}" for row in sorted(rows) if row[2] != 0]


cdef asset_rows(Book *book):
    return [
        AssetRow(
            index + 1,
            book.assets[index].symbol.decode(),
            book.assets[index].scale,
        )
        for index in range(book.asset_count)
    ]


cdef schedule_rows(Book *book):
    return [schedule_row(book, index) for index in range(book.schedule_count)]


cdef instrument_rows(Book *book):
    return [instrument_row(book, index) for index in range(book.instrument_count)]


cdef mark_row(Book *book, uint32_t instrument_id):
    cdef const Instrument *instrument
    instrument = instrument_find(book, instrument_id)
    if instrument == NULL:
        raise KeyError(f"instrument {instrument_id} is not known")
    if instrument.mark.price == 0:
        return None
    return MarkRow(
        instrument_id,
        instrument.mark.price,
        instrument.mark.time_ns,
        instrument.mark.volatility_ppb,
        instrument.mark.forward,
    )


cdef account_row_of(Book *book, uint64_t account_id):
    cdef const Account *account
    account = account_find(book, account_id)
    return None if account == NULL else account_row(book, account)


cdef account_rows(Book *book, after_id, count_max):
    places = sorted(
        (book.accounts[index].account_id, index)
        for index in range(book.account_count)
        if book.accounts[index].account_id > after_id
    )
    return [account_row(
        book, &book.accounts[<uint32_t>index]
    ) for _, index in places[:count_max]]


cdef summary_row(Book *book, uint64_t account_id):
    cdef Account *account
    cdef Pool pool
    account = account_find(book, account_id)
    if account == NULL:
        return None
    pool_of(book, account, NULL, 0, &pool)
    known = bool(pool_fits(&pool))
    return SummaryRow(
        account.account_id,
        account.asset_id,
        account.cash,
        clamp(pool.pnl) if known else 0,
        clamp(pool.initial_margin) if known else 0,
        clamp(pool.maintenance) if known else 0,
        clamp(pool.requirement) if known else 0,
        clamp(available_of(&pool)) if known else 0,
        clamp(pool.isolated_wallets),
        account.working_orders,
        known,
        clamp(pool.collateral) if known else 0,
        clamp(pool.credit) if known else 0,
        _level_at(book.search_ppm, &pool) if known else 0,
        _level_at(book.release_ppm, &pool) if known else 0,
    )


cdef int64_t _level_at(int64_t ppm, const Pool *pool) noexcept nogil:
    """Return the equity at a part of the requirement, rounded up."""
    return clamp(ceil_div(pool.requirement * ppm, 1000000))


cdef position_rows(Book *book, uint64_t account_id):
    cdef Account *account
    cdef uint32_t place
    account = account_find(book, account_id)
    if account == NULL:
        return None
    rows = []
    place = account.first_position
    while place != NOWHERE:
        rows.append(position_row(book, account, &book.positions[place]))
        place = book.positions[place].next_of_account
    return rows


cdef list _gateway_states(Book *book):
    return sorted([
        (SCOPE_GATEWAY, book.gateways[index].gateway_id, book.gateways[index].trading_state)
        for index in range(book.gateway_count)
        if book.gateways[index].trading_state != TRADING_STATE_NORMAL
    ])


cdef balance_rows(Book *book, uint64_t account_id):
    cdef const Account *account = account_find(book, account_id)
    cdef uint32_t place
    if account == NULL:
        return None
    rows = []
    place = account.first_balance
    while place != NOWHERE:
        rows.append(BalanceRow(book.balances[place].asset_id, book.balances[place].amount))
        place = book.balances[place].next_of_account
    return rows


cdef collateral_values(Book *book, uint64_t account_id):
    """Return (asset id, balance, what it counts with the profit of cross positions settled in it,
    or None while that is not known), by asset.
    """
    cdef const Account *account = account_find(book, account_id)
    cdef uint32_t asset_id
    cdef Purse purse
    cdef i128 value
    if account == NULL:
        return None
    found = []
    asset_id = next_foreign_asset(book, account, 0)
    while asset_id != 0:
        purse_of(book, account, asset_id, &purse)
        known = not purse.unknown & UNKNOWN_EQUITY
        if purse.money != 0 or purse.pnl != 0 or not known:
            known = known and purse_value_of(book, &purse, &value)
            found.append((asset_id, <int64_t>purse.money, clamp(value) if known else None))
        asset_id = next_foreign_asset(book, account, asset_id)
    return found


cdef collateral_rows(Book *book):
    """By settlement asset, then asset."""
    cdef const Collateral *row
    cdef uint32_t index, place
    rows = []
    for index in range(book.collateral_count):
        row = &book.collaterals[index]
        rows.append(
            CollateralRow(
                row.asset_id,
                row.settlement_asset_id,
                row.index_instrument_id,
                row.cap,
                row.liability_ppb,
                row.interest_free,
                row.forced_conversion,
                tuple([
                    (row.tiers[place].floor, row.tiers[place].weight_ppb)
                    for place in range(row.tier_count)
                ]),
                row.wrong_way_ppb,
            )
        )
    return sorted(rows, key=_settlement_first)


def _settlement_first(row):
    return row.settlement_asset_id, row.asset_id


cdef list _money_lines(Book *book):
    """Where levels lie, and what counts as collateral."""
    lines = []
    if book.release_ppm != 0:
        lines.append(f"levels {book.search_ppm} {book.release_ppm}")
    for row in collateral_rows(book):
        tiers = " ".join(f"{floor}:{weight}" for floor, weight in row.tiers)
        numbers = (*row[:7], row.wrong_way_ppb)
        lines.append(f"collateral {' '.join(map(str, numbers))} {tiers}")
    return lines


cdef risk_event_row(Book *book, const RiskEvent *event):
    return RiskEventRow(
        event.revision,
        event.time_ns,
        book.accounts[event.account_index].account_id,
        event.instrument_id,
        event.position_side,
        event.level_before,
        event.level_after,
        event.equity,
        event.requirement,
    )


cdef risk_event_rows(Book *book, uint64_t after_revision, uint64_t account_id, limit):
    """Return events after a revision, and the revision of the oldest kept if some may be gone."""
    cdef const RiskEvent *event
    cdef uint32_t index
    cdef uint64_t gone_before = 0
    rows = []
    if book.risk_event_count == book.risk_event_capacity:
        event = risk_event_at(book, 0)
        if event.revision - 1 > after_revision:
            gone_before = event.revision
    for index in range(_first_event_after(book, after_revision), book.risk_event_count):
        event = risk_event_at(book, index)
        if len(rows) >= limit:
            break
        if account_id == 0 or book.accounts[event.account_index].account_id == account_id:
            rows.append(risk_event_row(book, event))
    return rows, gone_before


cdef uint32_t _first_event_after(const Book *book, uint64_t revision) noexcept nogil:
    """Return the age of the first event of a higher revision; revisions rise with it."""
    cdef uint32_t low = 0
    cdef uint32_t high = book.risk_event_count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) / 2
        if risk_event_at(book, middle).revision > revision:
            high = middle
        else:
            low = middle + 1
    return low


cdef list _risk_event_lines(Book *book):
    rows, _ = risk_event_rows(book, 0, 0, book.risk_event_count)
    return [f"event {' '.join(map(str, row))}" for row in rows]


cdef gateway_rows(Book *book):
    cdef const Gateway *gateway
    cdef uint32_t index
    rows = []
    for index in range(book.gateway_count):
        gateway = &book.gateways[index]
        if gateway.trading_state == TRADING_STATE_NORMAL and gateway.lease_end_ns == 0:
            continue
        rows.append(GatewayRow(
            gateway.gateway_id,
            gateway.trading_state,
            gateway.lease_end_ns,
            gateway.lease_action,
            gateway.lease_swept,
        ))
    return sorted(rows)


cdef trading_state_rows(Book *book):
    states = []
    if book.service_state != TRADING_STATE_NORMAL:
        states.append((SCOPE_SERVICE, 0, book.service_state))
    accounts = [
        (
            SCOPE_ACCOUNT,
            book.accounts[index].account_id,
            book.accounts[index].trading_state,
        )
        for index in range(book.account_count)
        if book.accounts[index].trading_state != TRADING_STATE_NORMAL
    ]
    instruments = [
        (SCOPE_INSTRUMENT, index + 1, book.instruments[index].trading_state)
        for index in range(book.instrument_count)
        if book.instruments[index].trading_state != TRADING_STATE_NORMAL
    ]
    firms = [
        (SCOPE_FIRM, row.firm_id, row.trading_state)
        for row in firm_rows(book)
        if row.trading_state != TRADING_STATE_NORMAL
    ]
    return states + _gateway_states(book) + sorted(accounts) + instruments + firms


cdef working_reservation_ids(Book *book, scope, scope_id, count_max):
    cdef const Order *order
    cdef const Position *position
    cdef const Account *account
    cdef uint32_t index
    found = []
    for index in range(book.order_top):
        order = &book.orders[index]
        if not order.in_use:
            continue
        position = &book.positions[order.position_index]
        account = &book.accounts[position.account_index]
        if (
            scope == SCOPE_SERVICE
            or (scope == SCOPE_GATEWAY and order.gateway_id == scope_id)
            or (scope == SCOPE_ACCOUNT and account.account_id == scope_id)
            or (
                scope == SCOPE_FIRM
                and account.firm != NOWHERE
                and book.firms[account.firm].firm_id == scope_id
            )
            or (scope == SCOPE_INSTRUMENT and position.instrument_id == scope_id)
        ):
            found.append(order.reservation_id)
    return sorted(found)[:max(0, count_max)]


cdef state_lines_of(Book *book):
    return [
        *_definition_lines(book),
        *_account_lines(book),
        *_balance_lines(book),
        *_position_lines(book),
        *_order_lines(book),
        *[f"limit {' '.join(map(str, row))}" for row in limit_rows(book)],
        *_usage_lines(book),
        *[
            f"deficit {index + 1} {book.assets[index].deficit}"
            for index in range(book.asset_count)
            if book.assets[index].deficit != 0
        ],
        *_money_lines(book),
    ]


cdef answer_lines_of(Book *book):
    cdef AnswerHead head
    cdef const Ring *ring
    cdef uint32_t gateway_id, kind
    cdef uint64_t offset, done
    cdef uint8_t reply[REMEMBERED_SIZE_MAX]
    lines = []
    for gateway_id in sorted([
        book.gateways[index].gateway_id for index in range(book.gateway_count)
    ]):
        for kind in (ANSWER_ORDER, ANSWER_EXECUTION):
            ring = ring_find(book, kind, gateway_id)
            done = 0
            while done < ring.used:
                offset = ring.start + done
                answer_copy(ring, offset, <uint8_t *>&head, sizeof(AnswerHead))
                answer_copy(ring, offset + sizeof(AnswerHead), reply, head.reply_size)
                written = reply[:head.reply_size].hex()
                undone = " undone" if head.fact == ANSWER_FACT_UNDONE else ""
                lines.append(f"answer {head.kind} {head.gateway_id} {head.id} {written}{undone}")
                done += answer_size(head.reply_size)
    return lines + _closed_lines(book) + _risk_event_lines(book)


cdef list _closed_lines(Book *book):
    cdef const ClosedOrder *closed
    cdef uint32_t index
    lines = []
    for index in range(book.closed_count):
        closed = &book.closed[(book.closed_start + index) % book.closed_capacity]
        row = (
            closed.reservation_id,
            book.accounts[closed.account_index].account_id,
            closed.instrument_id,
            closed.position_side,
            closed.gateway_id,
            closed.client_order_id,
            closed.side,
            closed.order_type,
            closed.price_ticks,
            closed.quantity_lots,
            closed.unfilled_lots,
        )
        lines.append(f"closed {' '.join(map(str, row))}")
    return lines
