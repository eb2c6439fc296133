"""Queries: nothing changes."""

from dataclasses import replace

from riskd.core.rows import (
    AccountRow,
    AssetRow,
    BalanceRow,
    GatewayRow,
    InstrumentRow,
    MarkRow,
    PositionRow,
    ScheduleRow,
    SummaryRow,
)
from riskd.reference.decision import Decisions, price_form_reason
from riskd.reference.figures import AccountFigures, PoolPart, Terms
from riskd.reference.ladder import first_hard
from riskd.reference.limit_queries import LimitQueries
from riskd.reference.margin import (
    bankruptcy_price,
    can_be_liquidated,
    initial,
    initial_at,
    liquidation_requirement,
    maintenance,
)
from riskd.reference.numbers import BILLION, COUNT_MAX, ceil, ceil_div, clamp, fits
from riskd.reference.state import (
    NONE,
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    SCOPE_INSTRUMENT,
    SCOPE_SERVICE,
    ClosedOrder,
    Gateway,
    Order,
    Position,
    PositionKey,
    Reason,
    is_contract,
)
from riskd.v1 import types_pb2 as t


class Queries(Decisions, LimitQueries):
    """Rows of what is there."""

    def assets(self) -> list[AssetRow]:
        return [self._assets[each] for each in sorted(self._assets)]

    def schedules(self) -> list[ScheduleRow]:
        return [self._schedules[each] for each in sorted(self._schedules)]

    def instruments(self) -> list[InstrumentRow]:
        return [self._instruments[each] for each in sorted(self._instruments)]

    def mark(self, instrument_id: int) -> MarkRow | None:
        """Return the mark, None if none was reported; KeyError for an unknown instrument."""
        if instrument_id not in self._instruments:
            raise KeyError(instrument_id)
        mark = self._marks.get(instrument_id)
        if mark is None:
            return None
        return MarkRow(instrument_id, mark.price, mark.time_ns, mark.volatility_ppb, mark.forward)

    def account(self, account_id: int) -> AccountRow | None:
        account = self._accounts.get(account_id)
        if account is None:
            return None
        return AccountRow(
            account.account_id,
            account.asset_id,
            account.margin_mode,
            account.leverage,
            account.cash,
            account.trading_state,
            account.position_mode,
            account.firm_id,
            account.parent_account_id,
            account.credit_line,
            account.credit_used,
            account.margin_level,
        )

    def accounts(self, after_id: int, count_max: int) -> list[AccountRow]:
        """Return up to count_max accounts with larger ids, in order."""
        rows = [self.account(each) for each in sorted(self._accounts) if each > after_id]
        return [row for row in rows if row is not None][:count_max]

    def balances(self, account_id: int) -> list[BalanceRow] | None:
        """Return the balances of other assets that are not 0, by asset id."""
        if account_id not in self._accounts:
            return None
        return [
            BalanceRow(asset_id, amount)
            for (owner_id, asset_id), amount in sorted(self._balances.items())
            if owner_id == account_id
        ]

    def gateways(self) -> list[GatewayRow]:
        """Return those that are not NORMAL or have a lease, by id."""
        return [
            GatewayRow(
                gateway_id,
                gateway.trading_state,
                gateway.lease_end_ns,
                gateway.lease_action,
                int(gateway.lease_swept),
            )
            for gateway_id, gateway in sorted(self._gateways.items())
            if gateway != Gateway()
        ]

    def summary(self, account_id: int) -> SummaryRow | None:
        account = self._accounts.get(account_id)
        if account is None:
            return None
        positions = self._positions_of(account_id)
        figures = self._account_figures(account)
        known = figures is not None and (
            figures.fits() and fits(figures.maintenance, figures.requirement)
        )
        if figures is None or not known:
            figures = AccountFigures(0, 0, 0, 0, 0)
        search, release = (
            clamp(ceil_div(figures.requirement * ppm, 10**6)) for ppm in self._levels_ppm
        )
        return SummaryRow(
            account_id=account_id,
            asset_id=account.asset_id,
            cash=account.cash,
            cross_pnl=figures.cross_pnl,
            initial_margin=figures.initial_margin,
            cross_maintenance=figures.maintenance,
            cross_liquidation_requirement=figures.requirement,
            available=figures.available,
            isolated_wallets=sum(
                position.wallet for key, position in positions if not self._is_foreign(key)
            ),
            working_orders=sum(order.account_id == account_id for order in self._orders.values()),
            known=known,
            collateral_value=figures.collateral,
            credit=figures.credit,
            search_level=search,
            release_level=release,
        )

    def margin_levels(self) -> tuple[int, int]:
        """Return search and release in ppm of the requirement, 0 and 0 while levels are off."""
        return self._levels_ppm

    def collateral_values(self, account_id: int) -> list[tuple[int, int, int | None]] | None:
        """Return asset, balance and what it counts (None: not known) of other assets, by asset."""
        account = self._accounts.get(account_id)
        if account is None:
            return None
        balances = dict(self._balances_of(account))
        pnl: dict[int, int | None] = {}
        for key, position in self._positions_of(account_id):
            if self._is_foreign(key):
                asset_id = self._asset_of(key.instrument_id)
                part, held = self._pool_part(key, position), pnl.get(asset_id, 0)
                known = None if part is None or held is None else held + part.pnl
                pnl[asset_id] = known
        rows: list[tuple[int, int, int | None]] = []
        for asset_id in sorted(balances.keys() | pnl.keys()):
            balance, profit = balances.get(asset_id, 0), pnl.get(asset_id, 0)
            if profit is None or not fits(balance + profit):
                rows.append((asset_id, balance, None))
            elif balance != 0 or profit != 0:
                value = self._counted_value(account, asset_id, balance + profit)
                rows.append((asset_id, balance, None if value is None else clamp(value)))
        return rows

    def positions(self, account_id: int) -> list[PositionRow] | None:
        """Return positions with x not 0, working orders or own settings.

        By instrument id, then position side.
        """
        if account_id not in self._accounts:
            return None
        return [self._position_row(key, each) for key, each in self._positions_of(account_id)]

    def _position_row(self, key: PositionKey, position: Position) -> PositionRow:
        mark = self._marks.get(key.instrument_id)
        row = PositionRow(
            instrument_id=key.instrument_id,
            margin_mode=self._mode(key.account_id, key.instrument_id),
            leverage=self._leverage(key.account_id, key.instrument_id),
            lots=position.lots,
            entry_value=position.entry_value,
            isolated_wallet=position.wallet,
            mark=mark.price if mark else 0,
            notional=0,
            unrealised_pnl=0,
            initial_margin=0,
            maintenance=0,
            liquidation_requirement=0,
            equity=0,
            liquidation_status=t.LIQUIDATION_STATUS_UNSPECIFIED,
            liquidation_price=0,
            bankruptcy_price=0,
            liquidatable=False,
            buy_lots=self._side_sums(key, 1).lots,
            sell_lots=self._side_sums(key, -1).lots,
            known=False,
            position_side=key.position_side,
            margin_level=position.margin_level,
        )
        row = self._with_prices(key, position, row)
        figures = self._position_figures(key, position, row)
        return row if figures is None else figures

    def _with_prices(self, key: PositionKey, position: Position, row: PositionRow) -> PositionRow:
        """Return the row with what does not need the position's own mark."""
        status, price = self._liquidation(key, position, self._money_of(key))
        row = row._replace(liquidation_status=status, liquidation_price=price)
        if position.lots == 0 or not is_contract(self._instruments[key.instrument_id].kind):
            return row
        nearer = self._price_with_orders(key, position, row)
        row = row._replace(liquidation_price_with_orders=nearer)
        money: int | None = position.wallet
        if not self._is_isolated(key):
            others = None
            if not self._is_foreign(key):
                others = self._pool_with(key, (key,), self._money_of(key), PoolPart(0, 0, 0))
            money = None if others is None else others[0]
        if money is None or not fits(money):
            return row
        contract = self._contract(key)
        bankruptcy = bankruptcy_price(contract, position.lots, position.entry_value, money)
        return row._replace(bankruptcy_price=clamp(bankruptcy or 0))

    def _price_with_orders(self, key: PositionKey, position: Position, row: PositionRow) -> int:
        """Return the liquidation price were the orders filled that add to a position.

        0 where that does not bring it nearer than the price that it has without them.
        """
        sign = 1 if position.lots > 0 else -1
        adding = self._side_sums(key, sign)
        lots = position.lots + sign * adding.lots
        entry_value = position.entry_value + adding.value
        if row.liquidation_status == t.LIQUIDATION_STATUS_UNSPECIFIED:
            return 0
        if adding.lots == 0 or abs(lots) > COUNT_MAX or not fits(entry_value):
            return 0
        instrument = self._instruments[key.instrument_id]
        wallet = position.wallet
        cash = self._accounts[key.account_id].cash
        if self._is_isolated(key):
            contract = self._contract(key)
            rates = contract.rates(sign, lots, entry_value)
            need = initial_at(contract, rates, sign, adding.value, adding.lots)
            wallet += need + adding.open_loss
        else:
            cash -= ceil_div(adding.value * instrument.taker_fee_ppb, BILLION)
        filled = replace(position, lots=lots, entry_value=entry_value, wallet=wallet)
        status, price = self._liquidation(key, filled, cash)
        if status != t.LIQUIDATION_STATUS_AT_PRICE:
            return 0
        is_nearer = sign * price > sign * row.liquidation_price
        if len(self._group(key, filled)) > 1:
            is_nearer = abs(price - row.mark) < abs(row.liquidation_price - row.mark)
        if row.liquidation_status == t.LIQUIDATION_STATUS_AT_PRICE and not is_nearer:
            return 0
        return price

    def _position_figures(
        self, key: PositionKey, position: Position, row: PositionRow
    ) -> PositionRow | None:
        """Return the row with its figures, None if they cannot be known."""
        instrument = self._instruments[key.instrument_id]
        is_cross = not self._is_isolated(key)
        margin = self._requirement(key)
        part = self._pool_part(key, position)
        pool = None if part is None else self._pool_with(key, (key,), self._money_of(key), part)
        if margin is None or (position.lots != 0 and key.instrument_id not in self._marks):
            return None
        if pool is None and (is_cross or not is_contract(instrument.kind)):
            return None
        notional = 0
        if position.lots != 0:
            notional = ceil(self._mark_value(key.instrument_id, position.lots))
        pnl = self._unrealised(key.instrument_id, position.lots, position.entry_value)
        lots, entry_value = position.lots, position.entry_value
        if not is_contract(instrument.kind):
            # The mode has no effect on options and spot, and their profit does not count.
            assert pool is not None
            assert part is not None
            row = row._replace(
                notional=notional,
                unrealised_pnl=pnl,
                initial_margin=margin,
                maintenance=part.maintenance,
                liquidation_requirement=part.requirement,
                equity=pool[0],
                known=True,
                liquidatable=lots < 0 and is_pool_liquidatable(pool),
            )
            return saturated(row)
        contract = self._contract(key)
        if not is_cross:
            margin += initial(contract, lots, notional)
        row = row._replace(
            notional=notional,
            unrealised_pnl=pnl,
            initial_margin=margin,
            maintenance=maintenance(contract, lots, entry_value, notional),
            liquidation_requirement=liquidation_requirement(contract, lots, entry_value, notional),
            equity=pool[0] if is_cross and pool is not None else position.wallet + pnl,
            known=True,
        )
        if lots != 0 and is_cross and self._is_foreign(key):
            assert pool is not None
            row = row._replace(liquidatable=is_pool_liquidatable(pool))
        elif lots != 0:
            group = self._group(key, position)
            behind = self._money_behind(key, group, position.wallet, self._money_of(key))
            assert behind is not None
            sides = list(group.values())
            can_be = fits(behind) and can_be_liquidated(contract, sides, behind, row.mark)
            row = row._replace(liquidatable=can_be)
        return saturated(row)

    def max_order_lots(
        self,
        account_id: int,
        instrument_id: int,
        side: int,
        order_type: int,
        price_ticks: int,
        now_ns: int,
        position_side: int = 0,
    ) -> tuple[int, int]:
        """Return (lots, reason of one lot more)."""
        reason = self._max_order_form_reason(
            account_id, instrument_id, side, order_type, price_ticks, position_side
        )
        if reason != NONE:
            return 0, reason
        terms = Terms(
            account_id=account_id,
            instrument_id=instrument_id,
            position_side=position_side or t.POSITION_SIDE_NET,
            gateway_id=0,
            side=side,
            order_type=order_type,
            flags=0,
            price_ticks=price_ticks,
            trigger_price=0,
            trailing_offset=0,
            reserves=False,
        )
        reason = t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        lots = self._max_quantity(terms, COUNT_MAX + 1, reason, now_ns)
        if lots < COUNT_MAX:
            reason = self._state_reason(terms, lots + 1, now_ns)
            if reason == NONE:
                stopped_by = first_hard(self._violations(terms, lots + 1, now_ns))
                reason = stopped_by.reason if stopped_by is not None else NONE
        return lots, reason

    def _max_order_form_reason(
        self,
        account_id: int,
        instrument_id: int,
        side: int,
        order_type: int,
        price_ticks: int,
        position_side: int,
    ) -> Reason:
        """F-3, F-4, F-5, F-6, F-9, F-12, F-14."""
        if account_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if side not in (t.SIDE_BUY, t.SIDE_SELL):
            return t.REASON_CODE_SIDE_INVALID
        if order_type not in (t.ORDER_TYPE_LIMIT, t.ORDER_TYPE_MARKET):
            return t.REASON_CODE_ORDER_TYPE_NOT_SUPPORTED
        if self._position_side(self._accounts[account_id], instrument_id, position_side) is None:
            return t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED
        instrument = self._instruments[instrument_id]
        reason = price_form_reason(instrument, order_type, price_ticks, 0, 0)
        if reason != NONE:
            return reason
        return self._position_reason(account_id, instrument_id)

    def trading_states(self) -> list[tuple[int, int, int]]:
        """Return (scope, id, state) of everything that is not NORMAL."""
        states = [(SCOPE_SERVICE, 0, self._service_state)]
        states += [
            (SCOPE_GATEWAY, gateway_id, gateway.trading_state)
            for gateway_id, gateway in sorted(self._gateways.items())
        ]
        accounts = [self._accounts[each] for each in sorted(self._accounts)]
        states += [(SCOPE_ACCOUNT, each.account_id, each.trading_state) for each in accounts]
        states += [
            (SCOPE_INSTRUMENT, each.instrument_id, each.trading_state)
            for each in self.instruments()
        ]
        states += [(SCOPE_FIRM, each.firm_id, each.trading_state) for each in self.firms()]
        return [each for each in states if each[2] != t.TRADING_STATE_NORMAL]

    def working_reservations(self, scope: int, scope_id: int, count_max: int) -> list[int]:
        """Return up to count_max reservation ids of working orders in the scope, in order."""
        ids = []
        for order in self._orders.values():
            owner_ids = {
                SCOPE_SERVICE: scope_id,
                SCOPE_GATEWAY: order.gateway_id,
                SCOPE_ACCOUNT: order.account_id,
                SCOPE_INSTRUMENT: order.instrument_id,
                SCOPE_FIRM: self._accounts[order.account_id].firm_id,
            }
            if owner_ids.get(scope) == scope_id:
                ids.append(order.reservation_id)
        return sorted(ids)[:count_max]

    def closed_orders(self) -> list[ClosedOrder]:
        """Return the closed orders by rising time of closing: for tests only."""
        return list(self._closed.values())

    def working_orders(self) -> list[Order]:
        """Return the working orders in the order of their reservation ids: for tests only."""
        return [self._orders[each] for each in sorted(self._orders)]


def is_pool_liquidatable(pool: tuple[int, int]) -> bool:
    """Return whether equity is at or below the requirement, as far as both fit."""
    return fits(*pool) and pool[0] <= pool[1]


def saturated(row: PositionRow) -> PositionRow:
    """Return a row with its figures clamped to 64 bits: a query cannot be refused for M-3."""
    return row._replace(
        notional=clamp(row.notional),
        unrealised_pnl=clamp(row.unrealised_pnl),
        initial_margin=clamp(row.initial_margin),
        maintenance=clamp(row.maintenance),
        liquidation_requirement=clamp(row.liquidation_requirement),
        equity=clamp(row.equity),
        bankruptcy_price=clamp(row.bankruptcy_price),
    )
