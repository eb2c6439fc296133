"""Definitions of assets, schedules, instruments and accounts."""

import string
from collections.abc import Sequence
from typing import Final

from riskd.core.rows import (
    AssetRow,
    InstrumentRow,
    ScheduleRow,
    Tier,
)
from riskd.reference.black import mark_unit
from riskd.reference.families import (
    BASIS_ENTRY,
    BASIS_MARK,
    FAMILIES,
    FAMILY_OPTION_RULE,
    FAMILY_TIERED,
    FAMILY_TIERED_QUANTITY,
    TIERED_FAMILIES,
    has_valid_closing_fee,
    has_valid_first_tier,
    has_valid_parameters,
    tier_ladder,
)
from riskd.reference.margin import base_of_lot, inverse_quotient, lot_money, tick_value
from riskd.reference.numbers import BILLION, COUNT_MAX
from riskd.reference.state import (
    FUTURES,
    INVERSE_OPTION,
    NONE,
    SPOT,
    Account,
    Reason,
    State,
    is_contract,
    is_inverse,
    is_option,
)
from riskd.v1 import types_pb2 as t

ASSETS_MAX: Final = 256
REFERENCE_MARK: Final = 1
"""What the rates of an option rule are of: the underlying's mark."""


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
        family: int = FAMILY_TIERED,
        maintenance_basis: int = BASIS_MARK,
        parameter_a: int = 0,
        parameter_b: int = 0,
        parameter_c: int = 0,
        closing_fee: int = 0,
    ) -> tuple[int, int]:
        """Tiers are (floor, initial ppb, maintenance ppb, leverage_max). Return (reason, id)."""
        if not is_name(name):
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN, 0
        ladder = tier_ladder(family, tiers, liquidation_fee_ppb)
        if ladder is None:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        row = ScheduleRow(
            schedule_id=0,
            name=name,
            asset_id=asset_id,
            version=0,
            notional_max=notional_max,
            liquidation_fee_ppb=liquidation_fee_ppb,
            tiers=ladder,
            family=family,
            maintenance_basis=maintenance_basis,
            parameter_a=parameter_a,
            parameter_b=parameter_b,
            parameter_c=parameter_c,
            closing_fee=closing_fee,
        )
        if not is_schedule_valid(row):
            return t.REASON_CODE_DEFINITION_INVALID, 0
        return self._put_schedule(row)

    def upsert_option_rule(
        self,
        name: str,
        asset_id: int,
        initial_ppb: int,
        initial_min_ppb: int,
        maintenance_ppb: int,
        put_maintenance: int = 0,
        parameter_d: int = 0,
        parameter_e: int = 0,
    ) -> tuple[int, int]:
        """Return (reason, id). It stands in the table of schedules."""
        if not is_name(name):
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN, 0
        is_valid = 0 <= initial_min_ppb <= initial_ppb <= BILLION
        is_valid = is_valid and 0 <= maintenance_ppb <= BILLION and put_maintenance in (0, 1, 2)
        is_valid = is_valid and (parameter_d == 0 or BILLION <= parameter_d <= 10 * BILLION)
        is_valid = is_valid and 0 <= parameter_e <= BILLION
        if not is_valid:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        row = ScheduleRow(
            schedule_id=0,
            name=name,
            asset_id=asset_id,
            version=0,
            notional_max=0,
            liquidation_fee_ppb=0,
            tiers=(Tier(0, initial_ppb, maintenance_ppb, 0, 100),),
            family=FAMILY_OPTION_RULE,
            maintenance_basis=BASIS_MARK,
            parameter_a=initial_min_ppb,
            parameter_b=put_maintenance,
            parameter_c=REFERENCE_MARK,
            parameter_d=parameter_d,
            parameter_e=parameter_e,
        )
        return self._put_schedule(row)

    def _put_schedule(self, row: ScheduleRow) -> tuple[int, int]:
        """Create or replace a schedule or rule by name: A-10, C-6."""
        held = [each for each in self._schedules.values() if each.name == row.name]
        if held and (held[0].asset_id, is_rule(held[0])) != (row.asset_id, is_rule(row)):
            return t.REASON_CODE_FIELD_IMMUTABLE, 0
        if not held and len(self._schedules) >= self._schedules_max:
            return t.REASON_CODE_SCHEDULES_FULL, 0
        schedule_id = held[0].schedule_id if held else len(self._schedules) + 1
        version = held[0].version + 1 if held else 1
        self._schedules[schedule_id] = row._replace(schedule_id=schedule_id, version=version)
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
        multiplier_mantissa: int = 1,
        multiplier_exponent: int = 0,
        option_rule_id: int = 0,
        base_asset_id: int = 0,
        isolated_only: int = 0,
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
            multiplier_mantissa=multiplier_mantissa,
            multiplier_exponent=multiplier_exponent,
            option_rule_id=option_rule_id,
            base_asset_id=base_asset_id,
            isolated_only=isolated_only,
        )
        reason = self._instrument_reason(row)
        if reason != NONE:
            return reason, 0
        if row.trading_state == 0:
            kept = held[0].trading_state if held else t.TRADING_STATE_NORMAL
            row = row._replace(trading_state=kept)
        if held:  # What definitions do not say stays.
            row = row._replace(
                settlement_price=held[0].settlement_price,
                funding_time_ns=held[0].funding_time_ns,
                open_interest_lots=held[0].open_interest_lots,
            )
        if held and immutable_part(row) != immutable_part(held[0]):
            return t.REASON_CODE_FIELD_IMMUTABLE, 0
        if not held and len(self._instruments) >= self._instruments_max:
            return t.REASON_CODE_INSTRUMENTS_FULL, 0
        self._instruments[row.instrument_id] = row
        self._revision += 1
        return NONE, row.instrument_id

    def _instrument_reason(self, row: InstrumentRow) -> Reason:
        is_known = is_contract(row.kind) or is_option(row.kind) or row.kind == SPOT
        if not is_name(row.symbol) or not is_known:
            return t.REASON_CODE_DEFINITION_INVALID
        if row.asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        has_base = row.kind == SPOT or row.base_asset_id != 0
        if has_base and row.base_asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        is_base_settled_in = row.kind == SPOT and row.base_asset_id == row.asset_id
        if is_base_settled_in or (has_base and is_option(row.kind)):
            return t.REASON_CODE_DEFINITION_INVALID
        reason = self._margin_reason(row)
        if reason != NONE:
            return reason
        if not has_valid_steps(row, self._assets[row.asset_id].scale):
            return t.REASON_CODE_DEFINITION_INVALID
        if row.kind == SPOT and not has_valid_base(row, self._assets[row.base_asset_id].scale):
            return t.REASON_CODE_DEFINITION_INVALID
        if not has_valid_bounds(row):
            return t.REASON_CODE_DEFINITION_INVALID
        if not has_valid_terms(row) or not self._has_valid_underlying(row):
            return t.REASON_CODE_DEFINITION_INVALID
        return NONE

    def _margin_reason(self, row: InstrumentRow) -> Reason:
        """A-11, A-9 of the schedule of a contract, or of the rule of an option."""
        used_id, other_id = row.schedule_id, row.option_rule_id
        if row.kind == SPOT:
            return NONE if used_id == other_id == 0 else t.REASON_CODE_DEFINITION_INVALID
        if is_option(row.kind):
            used_id, other_id = other_id, used_id
        if used_id != 0 or is_contract(row.kind):
            if used_id not in self._schedules:
                return t.REASON_CODE_SCHEDULE_UNKNOWN
            used = self._schedules[used_id]
            if used.asset_id != row.asset_id or is_option(row.kind) != is_rule(used):
                return t.REASON_CODE_DEFINITION_INVALID
        return NONE if other_id == 0 else t.REASON_CODE_DEFINITION_INVALID

    def _has_valid_underlying(self, row: InstrumentRow) -> bool:
        if row.underlying_id == 0:
            return row.option_rule_id == 0 and row.kind != INVERSE_OPTION
        if row.underlying_id not in self._instruments:
            return False
        # The strike of an option with a rule is compared with the underlying's mark.
        underlying = self._instruments[row.underlying_id]
        is_compared = row.option_rule_id != 0 and row.kind != INVERSE_OPTION
        return not is_compared or mark_unit(row) == mark_unit(underlying)

    def report_open_interest(
        self, instrument_id: int, lots: int, validate_only: bool = False
    ) -> int:
        """Say how many lots of an instrument are open; 0 is not known. Return the reason."""
        if instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if not 0 <= lots <= COUNT_MAX:
            return t.REASON_CODE_DEFINITION_INVALID
        if not validate_only:
            instrument = self._instruments[instrument_id]
            self._instruments[instrument_id] = instrument._replace(open_interest_lots=lots)
            self._revision += 1
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


def is_rule(row: ScheduleRow) -> bool:
    """Return whether it is a rule for short options."""
    return row.family == FAMILY_OPTION_RULE


def is_schedule_valid(row: ScheduleRow) -> bool:
    """A-9 of family, basis, parameters and notional_max; the tiers are valid by themselves."""
    if row.family not in FAMILIES or row.maintenance_basis not in (BASIS_MARK, BASIS_ENTRY):
        return False
    if not has_valid_parameters(row) or not has_valid_closing_fee(row):
        return False
    if row.family not in TIERED_FAMILIES and not has_valid_first_tier(row):
        return False
    last_floor = 0 if row.family == FAMILY_TIERED_QUANTITY else row.tiers[-1].floor
    return row.notional_max == 0 or row.notional_max > last_floor


def is_name(text: str) -> bool:
    """Return whether it is 1 to 31 printable ASCII characters without spaces."""
    return 1 <= len(text) <= 31 and all("!" <= each <= "~" for each in text)


def has_valid_steps(row: InstrumentRow, scale: int) -> bool:
    mantissas = (row.tick_mantissa, row.lot_mantissa, row.multiplier_mantissa)
    exponents = (row.tick_exponent, row.lot_exponent, row.multiplier_exponent)
    if not all(1 <= each <= 10**12 for each in mantissas):
        return False
    if not all(-12 <= each <= 12 for each in exponents):
        return False
    units = row.mark_units_per_tick
    if not 1 <= units <= BILLION:
        return False
    if is_inverse(row.kind):
        value = inverse_quotient(row, scale)
        return value.denominator == 1 and 1 <= value <= 2**60 and value * units <= 2**70
    if row.kind == INVERSE_OPTION:
        coins = lot_money(row, scale)
        if coins.denominator != 1 or coins > 2**60:
            return False
    value = tick_value(row, scale)
    return value.denominator == 1 and 1 <= value <= 2**40


def has_valid_base(row: InstrumentRow, scale: int) -> bool:
    """Return whether a lot of a spot pair is whole money of its base asset, of this scale."""
    one_lot = base_of_lot(row, scale)
    is_one = (row.multiplier_mantissa, row.multiplier_exponent) == (1, 0)
    return is_one and one_lot.denominator == 1 and 1 <= one_lot <= 2**40


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


def has_valid_terms(row: InstrumentRow) -> bool:
    """Return whether expiry, option terms and mode are those of the kind."""
    if row.isolated_only not in ((0, 1) if is_contract(row.kind) else (0,)):
        return False
    if is_option(row.kind):
        return (
            row.expiry_ns > 0
            and 1 <= row.strike_units <= COUNT_MAX
            and row.option_type in (1, 2)
            and abs(row.interest_rate_ppb) <= BILLION
        )
    if (row.kind in FUTURES) != (row.expiry_ns > 0) or row.expiry_ns < 0:
        return False
    terms = (row.strike_units, row.option_type, row.interest_rate_ppb, row.underlying_id)
    return terms == (0, 0, 0, 0)


def immutable_part(row: InstrumentRow) -> tuple[int, ...]:
    """Return kind, asset, steps, mark units, multiplier, base asset, option terms and mode."""
    return (
        row.kind,
        row.asset_id,
        row.tick_mantissa,
        row.tick_exponent,
        row.lot_mantissa,
        row.lot_exponent,
        row.mark_units_per_tick,
        row.multiplier_mantissa,
        row.multiplier_exponent,
        row.base_asset_id,
        row.expiry_ns,
        row.strike_units,
        row.option_type,
        row.interest_rate_ppb,
        row.underlying_id,
        row.isolated_only,
    )
