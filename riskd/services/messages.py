"""Rows of the engine as messages of the contract: integers to decimal text, ids to symbols."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from riskd import limits
from riskd.catalogue import Asset, Catalogue, Instrument
from riskd.numbers import RATE_SCALE, decimal_text, leverage_text, rate_text, ratio_text
from riskd.services.schedules import option_rule_message, schedule_message
from riskd.v1 import (
    account_service_pb2,
    control_service_pb2,
    instrument_service_pb2,
    limit_service_pb2,
    margin_service_pb2,
    market_data_service_pb2,
    types_pb2,
)

if TYPE_CHECKING:
    from riskd.core.engine import (
        AccountRow,
        Engine,
        FirmRow,
        GatewayRow,
        InstrumentRow,
        LimitRow,
        MarkRow,
        PositionRow,
        ScheduleRow,
        SummaryRow,
    )
    from riskd.core.rows import CollateralRow, RiskEventRow

NS_PER_MS = 10**6
DAYS_PER_YEAR = 365

# Numbers of the engine's scopes, as riskd.core.engine.SCOPE_* has them.
SCOPE_SERVICE = 1
SCOPE_GATEWAY = 2
SCOPE_ACCOUNT = 3
SCOPE_INSTRUMENT = 4
SCOPE_FIRM = 5


class Messages:
    """Writes what the engine has. Every row must be of that engine, or of a copy of it."""

    def __init__(self, engine: "Engine", catalogue: Catalogue) -> None:
        self._engine = engine
        self._catalogue = catalogue

    def asset_of(self, asset_id: int) -> Asset:
        """Return the asset of an id that the engine gave."""
        asset = self._catalogue.asset(asset_id)
        assert asset is not None, f"the engine names asset {asset_id} and does not have it"
        return asset

    def instrument_of(self, instrument_id: int) -> Instrument:
        """Return the instrument of an id that the engine gave."""
        instrument = self._catalogue.instrument(instrument_id)
        assert instrument is not None, f"the engine names instrument {instrument_id}, unknown to it"
        return instrument

    def account(self, row: "AccountRow") -> account_service_pb2.Account:
        """Return an account with its balances of other assets."""
        asset = self.asset_of(row.asset_id)
        return account_service_pb2.Account(
            account_id=row.account_id,
            settlement_asset=asset.symbol,
            default_margin_mode=types_pb2.MarginMode.ValueType(row.margin_mode),
            default_leverage=leverage_text(row.leverage),
            cash=asset.amount(row.cash),
            trading_state=types_pb2.TradingState.ValueType(row.trading_state),
            position_mode=types_pb2.PositionMode.ValueType(row.position_mode),
            firm_id=row.firm_id,
            parent_account_id=row.parent_account_id,
            balances=[
                account_service_pb2.Balance(asset=other.symbol, amount=other.amount(balance.amount))
                for balance in self._engine.balances(row.account_id) or []
                for other in [self.asset_of(balance.asset_id)]
            ],
        )

    def firm(self, row: "FirmRow") -> account_service_pb2.Firm:
        """Return a firm."""
        return account_service_pb2.Firm(
            firm_id=row.firm_id,
            settlement_asset=self.asset_of(row.asset_id).symbol,
            trading_state=types_pb2.TradingState.ValueType(row.trading_state),
        )

    def gateway(self, row: "GatewayRow") -> control_service_pb2.Gateway:
        """Return a gateway."""
        return control_service_pb2.Gateway(
            gateway_id=row.gateway_id,
            trading_state=types_pb2.TradingState.ValueType(row.trading_state),
            lease_end_time_ns=row.lease_end_ns,
            lease_action=types_pb2.LeaseAction.ValueType(row.lease_action),
            orders_released=bool(row.lease_swept),
        )

    def mark(self, row: "MarkRow") -> market_data_service_pb2.Mark:
        """Return a mark."""
        return market_data_service_pb2.Mark(
            instrument_id=row.instrument_id,
            mark_price=row.price,
            time_ns=row.time_ns,
            implied_volatility_ppb=row.volatility_ppb,
            forward_price=row.forward,
        )

    def scope(self, scope: int, scope_id: int) -> control_service_pb2.Scope:
        """Return a scope of the engine."""
        match scope:
            case 1:
                return control_service_pb2.Scope(service=True)
            case 2:
                return control_service_pb2.Scope(gateway_id=scope_id)
            case 3:
                return control_service_pb2.Scope(account_id=scope_id)
            case 4:
                return control_service_pb2.Scope(instrument_id=scope_id)
            case _:
                return control_service_pb2.Scope(firm_id=scope_id)

    def schedule(self, row: "ScheduleRow") -> instrument_service_pb2.MarginSchedule:
        """Return a margin schedule."""
        return schedule_message(row, self.asset_of(row.asset_id))

    def option_rule(self, row: "ScheduleRow") -> instrument_service_pb2.OptionRule:
        """Return an option rule, which is a row of the table of schedules."""
        return option_rule_message(row, self.asset_of(row.asset_id))

    def instrument(self, row: "InstrumentRow") -> instrument_service_pb2.Instrument:
        """Return an instrument."""
        steps = self.instrument_of(row.instrument_id)
        amount = steps.asset.amount
        # Of an inverse option they are prices of what its underlying is quoted in.
        is_in_coin = row.kind == instrument_service_pb2.INSTRUMENT_KIND_INVERSE_OPTION
        strikes = self.instrument_of(row.underlying_id) if is_in_coin else steps
        multiplier = decimal_text(row.multiplier_mantissa, row.multiplier_exponent)
        return instrument_service_pb2.Instrument(
            instrument_id=row.instrument_id,
            symbol=row.symbol,
            kind=instrument_service_pb2.InstrumentKind.ValueType(row.kind),
            settlement_asset=steps.asset.symbol,
            margin_schedule=self._catalogue.schedule_name(row.schedule_id),
            tick_size=decimal_text(row.tick_mantissa, row.tick_exponent),
            lot_size=decimal_text(row.lot_mantissa, row.lot_exponent),
            mark_units_per_tick=row.mark_units_per_tick,
            order_quantity_min=steps.quantity(row.order_lots_min) if row.order_lots_min else "",
            order_quantity_max=steps.quantity(row.order_lots_max) if row.order_lots_max else "",
            order_notional_min=amount(row.order_notional_min) if row.order_notional_min else "",
            order_notional_max=amount(row.order_notional_max) if row.order_notional_max else "",
            price_collar_rate=rate_text(row.price_collar_ppb) if row.price_collar_ppb else "",
            market_order_buffer_rate=rate_text(row.market_buffer_ppb),
            taker_fee_rate=rate_text(row.taker_fee_ppb),
            mark_age_max_ms=row.mark_age_max_ns // NS_PER_MS,
            trading_state=types_pb2.TradingState.ValueType(row.trading_state),
            expiry_time_ns=row.expiry_ns,
            strike=strikes.mark_price(row.strike_units) if row.strike_units else "",
            option_type=instrument_service_pb2.OptionType.ValueType(row.option_type),
            interest_rate=rate_text(row.interest_rate_ppb) if row.option_type else "",
            underlying_instrument_id=row.underlying_id,
            multiplier=multiplier,
            option_rule=self._catalogue.schedule_name(row.option_rule_id),
            base_asset=self.asset_of(row.base_asset_id).symbol if row.base_asset_id else "",
            settlement_price=(
                strikes.mark_price(row.settlement_price) if row.settlement_price else ""
            ),
            funding_time_ns=row.funding_time_ns,
            open_interest=(
                steps.quantity(row.open_interest_lots) if row.open_interest_lots else ""
            ),
            isolated_only=bool(row.isolated_only),
        )

    def summary(self, account_id: int) -> margin_service_pb2.MarginSummary:
        """Return the sums of an account that the engine has."""
        row = self._engine.summary(account_id)
        assert row is not None, "accounts are never removed"
        asset = self.asset_of(row.asset_id)
        summary = margin_service_pb2.MarginSummary(
            account_id=row.account_id,
            settlement_asset=asset.symbol,
            cash=asset.amount(row.cash),
            isolated_wallets=asset.amount(row.isolated_wallets),
            working_order_count=row.working_orders,
        )
        if row.known:
            equity = row.cash + row.cross_pnl + row.collateral_value + row.credit
            requirement = row.cross_liquidation_requirement
            summary.cross_unrealised_pnl = asset.amount(row.cross_pnl)
            summary.cross_equity = asset.amount(equity)
            summary.initial_margin = asset.amount(row.initial_margin)
            summary.cross_maintenance_margin = asset.amount(row.cross_maintenance)
            summary.available = asset.amount(row.available)
            summary.cross_margin_ratio = margin_ratio(requirement, equity)
            summary.cross_liquidatable = 0 < requirement >= equity
            summary.maintenance_level = asset.amount(requirement)
            if row.search_level:
                summary.search_level = asset.amount(row.search_level)
                summary.release_level = asset.amount(row.release_level)
            summary.collateral_value = asset.amount(row.collateral_value)
        account = self._engine.account(account_id)
        assert account is not None, "its sums were read"
        summary.margin_level = margin_level(account.margin_level)
        if account.credit_line:
            summary.credit_line = asset.amount(account.credit_line)
            summary.credit_used = asset.amount(account.credit_used)
        summary.collateral.extend(self._collateral_balances(account_id, asset))
        return summary

    def _collateral_balances(
        self, account_id: int, asset: Asset
    ) -> Iterator[margin_service_pb2.CollateralBalance]:
        """Yield an account's balances of other assets than its own, and what they count."""
        values = self._engine.collateral_values(account_id) or []
        terms = {
            row.asset_id: row
            for row in (self._engine.collateral() if values else [])
            if row.settlement_asset_id == asset.asset_id
        }
        for asset_id, balance, value in values:
            other, found = self.asset_of(asset_id), terms.get(asset_id)
            yield margin_service_pb2.CollateralBalance(
                asset=other.symbol,
                balance=other.amount(balance),
                value="" if value is None else asset.amount(value),
                bears_interest=found is not None and balance < -found.interest_free,
                to_be_converted=(
                    found is not None
                    and found.forced_conversion != 0
                    and balance < -found.forced_conversion
                ),
            )

    def positions(self, account_id: int) -> list[margin_service_pb2.PositionMargin]:
        """Return all positions of an account that the engine has."""
        rows = self._engine.positions(account_id) or []
        summary = self._engine.summary(account_id)
        assert summary is not None, "accounts are never removed"
        return [self._position(row, summary) for row in rows]

    def _position(
        self, row: "PositionRow", summary: "SummaryRow"
    ) -> margin_service_pb2.PositionMargin:
        """Return a position of the account with these sums."""
        instrument = self.instrument_of(row.instrument_id)
        asset = instrument.asset
        is_isolated = row.margin_mode == types_pb2.MARGIN_MODE_ISOLATED
        position = margin_service_pb2.PositionMargin(
            account_id=summary.account_id,
            instrument_id=row.instrument_id,
            symbol=instrument.symbol,
            position_side=types_pb2.PositionSide.ValueType(row.position_side),
            margin_mode=types_pb2.MarginMode.ValueType(row.margin_mode),
            leverage=leverage_text(row.leverage),
            quantity=instrument.quantity(row.lots),
            entry_price=instrument.entry_price(row.entry_value, row.lots) if row.lots else "",
            entry_value=asset.amount(row.entry_value),
            mark_price=instrument.mark_price(row.mark) if row.mark else "",
            isolated_wallet=asset.amount(row.isolated_wallet) if is_isolated else "",
            working_buy_quantity=instrument.quantity(row.buy_lots),
            working_sell_quantity=instrument.quantity(row.sell_lots),
        )
        if is_isolated and not instrument.is_option:
            position.margin_level = margin_level(row.margin_level)
        if row.known:
            position.notional = asset.amount(row.notional)
            position.unrealised_pnl = asset.amount(row.unrealised_pnl)
            position.initial_margin = asset.amount(row.initial_margin)
            position.maintenance_margin = asset.amount(row.maintenance)
            # The pool backs all cross positions, and is compared with what all of them need.
            if is_isolated:
                position.margin_ratio = margin_ratio(row.liquidation_requirement, row.equity)
            elif summary.known:
                requirement = summary.cross_liquidation_requirement
                position.margin_ratio = margin_ratio(requirement, row.equity)
            position.liquidatable = row.liquidatable
            position.liquidation_status = types_pb2.LiquidationStatus.ValueType(
                row.liquidation_status
            )
            if row.liquidation_status == types_pb2.LIQUIDATION_STATUS_AT_PRICE:
                position.liquidation_price = instrument.mark_price(row.liquidation_price)
                self._write_distance(row, position)
            if row.liquidation_price_with_orders:
                position.liquidation_price_with_orders = instrument.mark_price(
                    row.liquidation_price_with_orders
                )
            if row.bankruptcy_price:
                position.bankruptcy_price = instrument.mark_price(row.bankruptcy_price)
        return position

    def _write_distance(
        self, row: "PositionRow", position: margin_service_pb2.PositionMargin
    ) -> None:
        """Write how far the mark is from the liquidation price: 0 once it can be liquidated."""
        units = 0 if row.liquidatable else abs(row.mark - row.liquidation_price)
        position.liquidation_distance = decimal_text(units * 10**6 // row.mark, -6)
        mark = self._engine.mark(row.instrument_id)
        if mark is not None and mark.volatility_ppb:
            deviations = daily_deviations(units, row.mark, mark.volatility_ppb)
            position.liquidation_distance_daily_volatilities = deviations

    def collateral(self, row: "CollateralRow") -> instrument_service_pb2.Collateral:
        """Return what an asset counts as collateral."""
        amount = self.asset_of(row.asset_id).amount
        return instrument_service_pb2.Collateral(
            asset=self.asset_of(row.asset_id).symbol,
            settlement_asset=self.asset_of(row.settlement_asset_id).symbol,
            index_instrument_id=row.index_instrument_id,
            tiers=[
                instrument_service_pb2.CollateralTier(floor=amount(floor), weight=rate_text(weight))
                for floor, weight in row.tiers
            ],
            cap=amount(row.cap) if row.cap else "",
            liability_weight=rate_text(row.liability_ppb),
            interest_free=amount(row.interest_free),
            forced_conversion=amount(row.forced_conversion),
            wrong_way_rate=rate_text(row.wrong_way_ppb),
        )

    def risk_event(self, row: "RiskEventRow") -> margin_service_pb2.RiskEvent:
        """Return a change of a margin level."""
        account = self._engine.account(row.account_id)
        assert account is not None, "accounts are never removed"
        asset = self.asset_of(account.asset_id)
        if row.instrument_id:
            asset = self.instrument_of(row.instrument_id).asset
        amount = asset.amount
        return margin_service_pb2.RiskEvent(
            revision=row.revision,
            time_ns=row.time_ns,
            account_id=row.account_id,
            instrument_id=row.instrument_id,
            position_side=types_pb2.PositionSide.ValueType(row.position_side),
            level_before=margin_level(row.level_before),
            level_after=margin_level(row.level_after),
            equity=amount(row.equity),
            requirement=amount(row.requirement),
        )

    def limit(self, row: "LimitRow", now_ns: int) -> limit_service_pb2.Limit:
        """Return a limit with its use at a time."""
        limit = self.bare_limit(row, now_ns)
        kind = row.kind
        if limits.has_burst(kind):
            bound = row.burst
        else:
            bound = row.raised_value if limit.raised_value else row.value
        limit.bound = self.limit_text(row, bound)
        if not limits.has_use(kind):
            return limit
        use = self._engine.limit_use(row.scope, row.scope_id, row.instrument_id, kind, now_ns)
        if use is None:
            limit.use_unknown = True
            return limit
        limit.use = self.limit_text(row, use)
        limit.remaining = self.limit_text(row, bound - use)
        if bound:
            limit.utilisation = ratio_text(use, bound)
        return limit

    def bare_limit(self, row: "LimitRow", now_ns: int) -> limit_service_pb2.Limit:
        """Return a limit without bound and use; a raise that has ended by now is none."""
        limit = limit_service_pb2.Limit(
            key=limit_service_pb2.LimitKey(
                scope=types_pb2.LimitScope.ValueType(row.scope),
                scope_id=row.scope_id,
                instrument_id=row.instrument_id,
                kind=types_pb2.LimitKind.ValueType(row.kind),
            ),
            value=self.limit_text(row, row.value),
            burst=row.burst,
            action=types_pb2.LimitAction.ValueType(row.action),
        )
        if row.raise_until_ns > now_ns:
            limit.raised_value = self.limit_text(row, row.raised_value)
            limit.raised_until_time_ns = row.raise_until_ns
        return limit

    def limit_asset(self, scope: int, scope_id: int) -> Asset | None:
        """Return the asset that limits of an account or firm are in; None for a gateway."""
        if scope == SCOPE_ACCOUNT:
            account = self._engine.account(scope_id)
            return None if account is None else self.asset_of(account.asset_id)
        return self._catalogue.asset_of_firm(scope_id) if scope == SCOPE_FIRM else None

    def limit_text(self, row: "LimitRow", value: int) -> str:
        """Return a value, or a use, of a limit as text; empty where its kind has none."""
        instrument = self.instrument_of(row.instrument_id) if row.instrument_id else None
        asset = None
        if limits.unit_of(row.kind) is limits.Unit.MONEY:
            asset = self.limit_asset(row.scope, row.scope_id)
        return limits.write_value(value, row.kind, asset, instrument)


def level_text(ppm: int) -> str:
    """Return a multiple of the requirement of parts per million as a decimal."""
    return decimal_text(ppm, -6)


def margin_level(level: int) -> margin_service_pb2.MarginLevel.ValueType:
    """Return a level of the engine, whose numbers begin with 0 for SAFE."""
    return margin_service_pb2.MarginLevel.ValueType(level + 1)


def daily_deviations(distance: int, price: int, volatility_ppb: int) -> str:
    """Return a distance in standard deviations of one day (ACT/365), 6 decimals, rounded down.

    distance / price / (volatility / sqrt(365)), exact: the root of a fraction, rounded once.
    """
    numerator = (distance * 10 ** (RATE_SCALE + 6)) ** 2 * DAYS_PER_YEAR
    return decimal_text(math.isqrt(numerator // (price * volatility_ppb) ** 2), -6)


def margin_ratio(requirement: int, equity: int) -> str:
    """Return requirement over equity, rounded up to 6 decimals; empty without equity above zero."""
    return ratio_text(requirement, equity) if equity > 0 else ""
