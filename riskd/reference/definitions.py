"""Definitions of assets, schedules, instruments and accounts."""

import string
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from riskd.core.rows import (
    AssetRow,
    InstrumentRow,
    ScheduleRow,
    Tier,
)
from riskd.reference.margin import tick_value
from riskd.reference.numbers import BILLION, COUNT_MAX, fits
from riskd.reference.state import NONE, OPTION, PERPETUAL, Account, Reason, State
from riskd.v1 import types_pb2 as t

ASSETS_MAX: Final = 256
TIERS_MAX: Final = 32


class Definitions(State):
    """What is created or changed by name."""

    def create_asset(self, symbol: str, scale: int) -> tuple[int, int]:
        """Return (reason, asset id)."""
        letters = string.ascii_uppercase + string.digits
        if not 1 <= len(symbol) <= 15 or any(each not in letters for each in symbol):
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if not 0 <= scale <= 12:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if any(asset.symbol == symbol for asset in self._assets.values()):
            return t.REASON_CODE_ALREADY_EXISTS, 0
        if len(self._assets) >= ASSETS_MAX:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        asset_id = len(self._assets) + 1
        self._assets[asset_id] = AssetRow(asset_id, symbol, scale)
        self._revision += 1
        return NONE, asset_id

    def upsert_schedule(
        self,
        name: str,
        asset_id: int,
        tiers: Sequence[tuple[int, int, int, int]],
        notional_max: int = 0,
        liquidation_fee_ppb: int = 0,
    ) -> tuple[int, int]:
        """Tiers are (floor, initial ppb, maintenance ppb, leverage_max). Return (reason, id)."""
        if not is_name(name):
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN, 0
        ladder = tier_ladder(tiers, liquidation_fee_ppb)
        if ladder is None:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if notional_max < 0 or 0 < notional_max <= ladder[-1].floor:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        held = [each for each in self._schedules.values() if each.name == name]
        if held and held[0].asset_id != asset_id:
            return t.REASON_CODE_FIELD_IMMUTABLE, 0
        if not held and len(self._schedules) >= self._schedules_max:
            return t.REASON_CODE_SCHEDULES_FULL, 0
        schedule_id = held[0].schedule_id if held else len(self._schedules) + 1
        self._schedules[schedule_id] = ScheduleRow(
            schedule_id=schedule_id,
            name=name,
            asset_id=asset_id,
            version=held[0].version + 1 if held else 1,
            notional_max=notional_max,
            liquidation_fee_ppb=liquidation_fee_ppb,
            tiers=ladder,
        )
        self._revision += 1
        return NONE, schedule_id

    def upsert_instrument(
        self,
        symbol: str,
        kind: int,
        asset_id: int,
        schedule_id: int,
        tick_mantissa: int,
        tick_exponent: int,
        lot_mantissa: int,
        lot_exponent: int,
        mark_units_per_tick: int = 1,
        order_lots_min: int = 0,
        order_lots_max: int = 0,
        order_notional_min: int = 0,
        order_notional_max: int = 0,
        price_collar_ppb: int = 0,
        market_buffer_ppb: int = 0,
        taker_fee_ppb: int = 0,
        mark_age_max_ns: int = 0,
        trading_state: int = 0,
        expiry_ns: int = 0,
        strike_units: int = 0,
        option_type: int = 0,
        interest_rate_ppb: int = 0,
        underlying_id: int = 0,
    ) -> tuple[int, int]:
        """Steps are mantissa * 10^exponent. Return (reason, instrument id)."""
        held = [each for each in self._instruments.values() if each.symbol == symbol]
        row = InstrumentRow(
            instrument_id=held[0].instrument_id if held else len(self._instruments) + 1,
            symbol=symbol,
            kind=kind,
            asset_id=asset_id,
            schedule_id=schedule_id,
            tick_mantissa=tick_mantissa,
            tick_exponent=tick_exponent,
            lot_mantissa=lot_mantissa,
            lot_exponent=lot_exponent,
            mark_units_per_tick=mark_units_per_tick,
            order_lots_min=order_lots_min,
            order_lots_max=order_lots_max,
            order_notional_min=order_notional_min,
            order_notional_max=order_notional_max,
            price_collar_ppb=price_collar_ppb,
            market_buffer_ppb=market_buffer_ppb,
            taker_fee_ppb=taker_fee_ppb,
            mark_age_max_ns=mark_age_max_ns,
            trading_state=trading_state,
            expiry_ns=expiry_ns,
            strike_units=strike_units,
            option_type=option_type,
            interest_rate_ppb=interest_rate_ppb,
            underlying_id=underlying_id,
        )
        reason = self._instrument_reason(row)
        if reason != NONE:
            return reason, 0
        if row.trading_state == 0:
            kept = held[0].trading_state if held else t.TRADING_STATE_NORMAL
            row = row._replace(trading_state=kept)
        if held and immutable_part(row) != immutable_part(held[0]):
            return t.REASON_CODE_FIELD_IMMUTABLE, 0
        if not held and len(self._instruments) >= self._instruments_max:
            return t.REASON_CODE_INSTRUMENTS_FULL, 0
        self._instruments[row.instrument_id] = row
        self._revision += 1
        return NONE, row.instrument_id

    def _instrument_reason(self, row: InstrumentRow) -> Reason:
        if not is_name(row.symbol) or row.kind not in (PERPETUAL, OPTION):
            return t.REASON_CODE_DEFINITION_INVALID
        if row.asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        if row.kind == PERPETUAL:
            if row.schedule_id not in self._schedules:
                return t.REASON_CODE_SCHEDULE_UNKNOWN
            if self._schedules[row.schedule_id].asset_id != row.asset_id:
                return t.REASON_CODE_DEFINITION_INVALID
        elif row.schedule_id != 0:
            return t.REASON_CODE_DEFINITION_INVALID
        if not has_valid_steps(row, self._assets[row.asset_id].scale):
            return t.REASON_CODE_DEFINITION_INVALID
        if not has_valid_bounds(row):
            return t.REASON_CODE_DEFINITION_INVALID
        if not has_valid_option_terms(row):
            return t.REASON_CODE_DEFINITION_INVALID
        if row.underlying_id != 0 and row.underlying_id not in self._instruments:
            return t.REASON_CODE_DEFINITION_INVALID
        return NONE

    def create_account(
        self, account_id: int, asset_id: int, margin_mode: int, leverage: int, cash: int
    ) -> int:
        """Return the reason."""
        if account_id == 0:
            return t.REASON_CODE_DEFINITION_INVALID
        if asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        if margin_mode not in (t.MARGIN_MODE_CROSS, t.MARGIN_MODE_ISOLATED):
            return t.REASON_CODE_DEFINITION_INVALID
        if not 100 <= leverage <= 100_000 or not 0 <= cash <= 2**62:
            return t.REASON_CODE_DEFINITION_INVALID
        if account_id in self._accounts:
            return t.REASON_CODE_ALREADY_EXISTS
        if len(self._accounts) >= self._accounts_max:
            return t.REASON_CODE_ACCOUNTS_FULL
        self._accounts[account_id] = Account(account_id, asset_id, margin_mode, leverage, cash)
        self._revision += 1
        return NONE


def is_name(text: str) -> bool:
    """Return whether it is 1 to 31 printable ASCII characters without spaces."""
    return 1 <= len(text) <= 31 and all("!" <= each <= "~" for each in text)


def tier_ladder(
    tiers: Sequence[tuple[int, int, int, int]], liquidation_fee_ppb: int
) -> tuple[Tier, ...] | None:
    """Return the tiers with their deductions, None if the definition is not valid."""
    if not 1 <= len(tiers) <= TIERS_MAX or not 0 <= liquidation_fee_ppb < BILLION:
        return None
    ladder: list[Tier] = []
    for floor_k, initial_k, maintenance_k, leverage_k in tiers:
        if not 0 <= initial_k <= BILLION or not 100 <= leverage_k <= 100_000:
            return None
        if not 1 <= maintenance_k < BILLION - liquidation_fee_ppb:
            return None
        initial_at_most_leverage = max(Fraction(initial_k), Fraction(100 * BILLION, leverage_k))
        if initial_at_most_leverage <= maintenance_k + liquidation_fee_ppb:
            return None
        deduction = Fraction(0)
        if not ladder:
            if floor_k != 0:
                return None
        else:
            last = ladder[-1]
            if floor_k <= last.floor or maintenance_k <= last.maintenance_rate_ppb:
                return None
            if initial_k < last.initial_rate_ppb or leverage_k > last.leverage_max:
                return None
            rise = maintenance_k - last.maintenance_rate_ppb
            deduction = last.deduction + Fraction(floor_k * rise, BILLION)
        if deduction.denominator != 1 or not fits(floor_k, deduction.numerator):
            return None
        ladder.append(Tier(floor_k, initial_k, maintenance_k, deduction.numerator, leverage_k))
    return tuple(ladder)


def has_valid_steps(row: InstrumentRow, scale: int) -> bool:
    mantissas = (row.tick_mantissa, row.lot_mantissa)
    exponents = (row.tick_exponent, row.lot_exponent)
    if not all(1 <= each <= 10**12 for each in mantissas):
        return False
    if not all(-12 <= each <= 12 for each in exponents):
        return False
    value = tick_value(row, scale)
    if value.denominator != 1 or not 1 <= value <= 2**40:
        return False
    return 1 <= row.mark_units_per_tick <= BILLION


def has_valid_bounds(row: InstrumentRow) -> bool:
    return (
        0 <= row.order_lots_min <= COUNT_MAX
        and 0 <= row.order_lots_max <= COUNT_MAX
        and (row.order_lots_max == 0 or row.order_lots_max >= row.order_lots_min)
        and row.order_notional_min >= 0
        and row.order_notional_max >= 0
        and 0 <= row.price_collar_ppb <= BILLION
        and 0 <= row.taker_fee_ppb <= BILLION
        and 0 <= row.market_buffer_ppb < BILLION
        and row.mark_age_max_ns >= 0
        and 0 <= row.trading_state <= t.TRADING_STATE_HALTED
    )


def has_valid_option_terms(row: InstrumentRow) -> bool:
    if row.kind == PERPETUAL:
        terms = (row.expiry_ns, row.strike_units, row.option_type, row.interest_rate_ppb)
        return terms == (0, 0, 0, 0) and row.underlying_id == 0
    return (
        row.expiry_ns > 0
        and 1 <= row.strike_units <= COUNT_MAX
        and row.option_type in (1, 2)
        and abs(row.interest_rate_ppb) <= BILLION
    )


def immutable_part(row: InstrumentRow) -> tuple[int, ...]:
    """Return kind, asset, steps, mark units and option terms."""
    return (
        row.kind,
        row.asset_id,
        row.tick_mantissa,
        row.tick_exponent,
        row.lot_mantissa,
        row.lot_exponent,
        row.mark_units_per_tick,
        row.expiry_ns,
        row.strike_units,
        row.option_type,
        row.interest_rate_ppb,
        row.underlying_id,
    )
