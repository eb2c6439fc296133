"""Put a rulebook into an engine."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Protocol

from riskd.numbers import normalise
from riskd.rulebooks.schema import (
    LEVERAGE,
    LINEAR_OPTION,
    LINEAR_PERPETUAL,
    ONE,
    RATE_PLACES,
    TIERED,
    InstrumentRule,
    Rulebook,
    ScheduleRule,
    Value,
    key_text,
    mantissa_exponent,
    multiple,
    show,
    whole,
)
from riskd.rulebooks.versions import has_versions, select
from riskd.v1 import instrument_service_pb2, types_pb2


class _Asset(Protocol):
    @property
    def asset_id(self) -> int: ...
    @property
    def symbol(self) -> str: ...
    @property
    def scale(self) -> int: ...


class _Schedule(Protocol):
    @property
    def schedule_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def asset_id(self) -> int: ...
    @property
    def notional_max(self) -> int: ...
    @property
    def liquidation_fee_ppb(self) -> int: ...
    @property
    def tiers(self) -> Sequence[Sequence[int]]: ...


class _Instrument(Protocol):
    @property
    def instrument_id(self) -> int: ...
    @property
    def symbol(self) -> str: ...
    def _asdict(self) -> dict[str, Any]: ...


class RuleEngine(Protocol):
    """What `apply` needs of an engine: riskd.core.engine.Engine and ReferenceEngine have it."""

    def assets(self) -> Sequence[_Asset]: ...
    def schedules(self) -> Sequence[_Schedule]: ...
    def instruments(self) -> Sequence[_Instrument]: ...
    def create_asset(self, symbol: str, scale: int) -> tuple[int, int]: ...
    def upsert_schedule(
        self,
        name: str,
        asset_id: int,
        tiers: Sequence[tuple[int, int, int, int]],
        notional_max: int = ...,
        liquidation_fee_ppb: int = ...,
    ) -> tuple[int, int]: ...
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
        mark_units_per_tick: int = ...,
        order_lots_min: int = ...,
        order_lots_max: int = ...,
        order_notional_min: int = ...,
        order_notional_max: int = ...,
        price_collar_ppb: int = ...,
        market_buffer_ppb: int = ...,
        taker_fee_ppb: int = ...,
        mark_age_max_ns: int = ...,
        trading_state: int = ...,
        expiry_ns: int = ...,
        strike_units: int = ...,
        option_type: int = ...,
        interest_rate_ppb: int = ...,
        underlying_id: int = ...,
    ) -> tuple[int, int]: ...


class ApplyError(ValueError):
    """The engine does not take a rule: names the rulebook, the rule and why."""


PROBLEMS_SHOWN: Final = 10

# An instrument keeps these for its life: UpsertInstrumentRequest in instrument_service.proto.
IMMUTABLE = (
    "kind",
    "asset_id",
    "tick_mantissa",
    "tick_exponent",
    "lot_mantissa",
    "lot_exponent",
    "mark_units_per_tick",
    "strike_units",
    "option_type",
)


# What of [rule] an engine decides by, and the words that it knows. The other keys say how a venue
# prints its figures, or are met by what the engine does anyway.
ENGINE_RULE: Final[Mapping[str, tuple[Value, ...]]] = {
    "maintenance_basis": ("mark", "liquidation"),
    "fee_in_liquidation": ("none", "at_liquidation"),
    "fee_in_margin": ("none",),
    "tier_mode": ("marginal",),
    "tier_key": ("notional",),
    "order_margin": ("worse_side",),
}
ENGINE_FAMILIES: Final = (TIERED, LEVERAGE)
ENGINE_KINDS: Final = (LINEAR_PERPETUAL, LINEAR_OPTION)


def unsupported(rulebook: Rulebook) -> list[str]:
    """Return what of a rulebook no engine can do yet: its keys, with their values."""
    found = []
    rule = rulebook.rule
    for section, values in (
        ("rule", rule.common if rule else {}),
        ("rule.isolated", rule.isolated if rule else {}),
        ("rule.cross", rule.cross if rule else {}),
    ):
        for key, known in ENGINE_RULE.items():
            if key in values and values[key] not in known:
                found.append(f"{section}.{key} = {show(values[key])}")
    found += [
        f"schedule.{key_text(schedule.name)}.family = {show(schedule.family)}"
        for schedule in rulebook.schedules
        if schedule.family not in ENGINE_FAMILIES
    ]
    found += [
        f"schedule.{key_text(schedule.name)}.quantity_max = {show(schedule.quantity_max)}"
        for schedule in rulebook.schedules
        if schedule.quantity_max is not None
    ]
    for instrument in rulebook.instruments:
        section = f"instrument.{key_text(instrument.symbol)}"
        if instrument.kind not in ENGINE_KINDS:
            found.append(f"{section}.kind = {show(instrument.kind)}")
        if instrument.contract_multiplier != ONE:
            found.append(f"{section}.contract_multiplier = {show(instrument.contract_multiplier)}")
        if instrument.isolated_only:
            found.append(f"{section}.isolated_only = true")
        if instrument.option_rule is not None:
            found.append(f"{section}.option_rule = {show(instrument.option_rule)}")
    found += [f"collateral.{key_text(each.name)}" for each in rulebook.collateral]
    if rulebook.levels is not None:
        found.append("levels")
    return found


def apply(rulebook: Rulebook, engine: RuleEngine, at: datetime | None = None) -> dict[str, int]:
    """Create or bring up to date what the rulebook names; return symbol to instrument id.

    at says which versions are in force; a rulebook that has versions needs it.

    What is already as the rulebook says is left alone, so that a second call changes nothing. The
    trading state of an instrument that exists stays: a restart must not lift a halt. Conflicts
    with what cannot change are found before the first change.
    Raises ApplyError, naming the rule and the reason: what the engine cannot do yet, too.
    """
    if at is not None:
        rulebook = select(rulebook, at)
    elif has_versions(rulebook):
        raise ApplyError(f"rulebook {rulebook.name}: has versions: say at which time to apply it")
    missing = unsupported(rulebook)
    if missing:
        shown = ", ".join(missing[:PROBLEMS_SHOWN])
        more = len(missing) - PROBLEMS_SHOWN
        text = f"{shown} and {more} more" if more > 0 else shown
        raise ApplyError(f"rulebook {rulebook.name}: the engine cannot do it yet: {text}")
    _refuse_conflicts(rulebook, engine)
    assets = _apply_assets(rulebook, engine)
    schedules = _apply_schedules(rulebook, engine, assets)
    return _apply_instruments(rulebook, engine, assets, schedules)


def _refuse_conflicts(rulebook: Rulebook, engine: RuleEngine) -> None:
    assets = {row.symbol: row for row in engine.assets()}
    for asset in rulebook.assets:
        there = assets.get(asset.symbol)
        if there and there.scale != asset.scale:
            reason = f"scale {asset.scale}, the engine has it with {there.scale}"
            raise ApplyError(f"rulebook {rulebook.name}: asset {asset.symbol}: {reason}")
    symbols = {row.asset_id: row.symbol for row in assets.values()}
    schedules = {row.name: row for row in engine.schedules()}
    for schedule in rulebook.schedules:
        row = schedules.get(schedule.name)
        if row and symbols[row.asset_id] != schedule.settlement_asset:
            reason = f"in {schedule.settlement_asset}, the engine has it in {symbols[row.asset_id]}"
            raise ApplyError(f"rulebook {rulebook.name}: schedule {schedule.name}: {reason}")
    instruments = {row.symbol: row._asdict() for row in engine.instruments()}
    for rule in rulebook.instruments:
        if rule.symbol not in instruments:
            continue
        held = _normal(instruments[rule.symbol])
        asset_row = assets.get(rule.settlement_asset)
        scale = rulebook.asset(rule.settlement_asset).scale
        wanted = _arguments(rule, scale, asset_row.asset_id if asset_row else 0, 0, 0)
        for key in IMMUTABLE:
            if held[key] != wanted[key]:
                reason = f"{key} is {wanted[key]}, the engine has it with {held[key]} for good"
                raise ApplyError(f"rulebook {rulebook.name}: instrument {rule.symbol}: {reason}")


def _apply_assets(rulebook: Rulebook, engine: RuleEngine) -> dict[str, int]:
    ids = {row.symbol: row.asset_id for row in engine.assets()}
    for asset in rulebook.assets:
        if asset.symbol not in ids:
            reason, ids[asset.symbol] = engine.create_asset(asset.symbol, asset.scale)
            _refuse(reason, rulebook, f"asset {asset.symbol}")
    return ids


def _apply_schedules(
    rulebook: Rulebook, engine: RuleEngine, assets: Mapping[str, int]
) -> dict[str, int]:
    rows = {row.name: row for row in engine.schedules()}
    ids = {name: row.schedule_id for name, row in rows.items()}
    for schedule in rulebook.schedules:
        scale = rulebook.asset(schedule.settlement_asset).scale
        tiers = schedule.engine_tiers(scale)
        notional_max = whole(schedule.notional_max or Decimal(0), scale)
        fee_ppb = whole(schedule.liquidation_fee_rate, RATE_PLACES)
        row = rows.get(schedule.name)
        if row and _is_same_schedule(row, tiers, notional_max, fee_ppb):
            continue
        reason, ids[schedule.name] = engine.upsert_schedule(
            schedule.name,
            assets[schedule.settlement_asset],
            [(floor, initial, rate, leverage) for floor, initial, rate, _, leverage in tiers],
            notional_max,
            fee_ppb,
        )
        _refuse(reason, rulebook, f"schedule {schedule.name}")
    _refuse_other_deductions(rulebook, engine, rulebook.schedules)
    return ids


def _is_same_schedule(
    row: _Schedule, tiers: Sequence[Sequence[int]], notional_max: int, fee_ppb: int
) -> bool:
    held = (row.notional_max, row.liquidation_fee_ppb, [tuple(tier) for tier in row.tiers])
    return held == (notional_max, fee_ppb, [tuple(tier) for tier in tiers])


def _refuse_other_deductions(
    rulebook: Rulebook, engine: RuleEngine, schedules: Sequence[ScheduleRule]
) -> None:
    # The engine computes deductions itself; they are the venue's printed ones, or one of us errs.
    rows = {row.name: row for row in engine.schedules()}
    for schedule in schedules:
        tiers = schedule.engine_tiers(rulebook.asset(schedule.settlement_asset).scale)
        held = [tuple(tier) for tier in rows[schedule.name].tiers]
        if held != list(tiers):
            reason = f"the engine holds the tiers {held}, the rulebook says {list(tiers)}"
            raise ApplyError(f"rulebook {rulebook.name}: schedule {schedule.name}: {reason}")


def _apply_instruments(
    rulebook: Rulebook,
    engine: RuleEngine,
    assets: Mapping[str, int],
    schedules: Mapping[str, int],
) -> dict[str, int]:
    rows = {row.symbol: row for row in engine.instruments()}
    ids: dict[str, int] = {}
    # Options last: they name their underlying by its id.
    for rule in sorted(rulebook.instruments, key=lambda rule: rule.is_option):
        arguments = _arguments(
            rule,
            rulebook.asset(rule.settlement_asset).scale,
            assets[rule.settlement_asset],
            schedules[rule.margin_schedule] if rule.margin_schedule else 0,
            ids[rule.underlying] if rule.underlying else 0,
        )
        row = rows.get(rule.symbol)
        if row:
            held = _normal(row._asdict())
            arguments["trading_state"] = held["trading_state"]
            if all(held[key] == value for key, value in arguments.items()):
                ids[rule.symbol] = row.instrument_id
                continue
        reason, ids[rule.symbol] = engine.upsert_instrument(rule.symbol, **arguments)
        _refuse(reason, rulebook, f"instrument {rule.symbol}")
    return {rule.symbol: ids[rule.symbol] for rule in rulebook.instruments}


def _normal(row: Mapping[str, int]) -> dict[str, int]:
    """Return the row with steps whose mantissas are not multiples of 10."""
    fields = dict(row)
    for step in ("tick", "lot"):
        keys = (f"{step}_mantissa", f"{step}_exponent")
        fields |= zip(keys, normalise(fields[keys[0]], fields[keys[1]]), strict=True)
    return fields


def _arguments(
    rule: InstrumentRule, scale: int, asset_id: int, schedule_id: int, underlying_id: int
) -> dict[str, int]:
    """Return the arguments of Engine.upsert_instrument but the symbol."""
    tick_mantissa, tick_exponent = mantissa_exponent(rule.tick_size)
    lot_mantissa, lot_exponent = mantissa_exponent(rule.lot_size)
    kind = f"INSTRUMENT_KIND_{rule.kind.upper()}"
    option_type = f"OPTION_TYPE_{(rule.option_type or 'unspecified').upper()}"
    trading_state = f"TRADING_STATE_{rule.trading_state.upper()}"
    return {
        "kind": instrument_service_pb2.InstrumentKind.Value(kind),
        "asset_id": asset_id,
        "schedule_id": schedule_id,
        "tick_mantissa": tick_mantissa,
        "tick_exponent": tick_exponent,
        "lot_mantissa": lot_mantissa,
        "lot_exponent": lot_exponent,
        "mark_units_per_tick": rule.mark_units_per_tick,
        "order_lots_min": _lots(rule.order_quantity_min, rule.lot_size),
        "order_lots_max": _lots(rule.order_quantity_max, rule.lot_size),
        "order_notional_min": whole(rule.order_notional_min or Decimal(0), scale),
        "order_notional_max": whole(rule.order_notional_max or Decimal(0), scale),
        "price_collar_ppb": whole(rule.price_collar_rate or Decimal(0), RATE_PLACES),
        "market_buffer_ppb": whole(rule.market_order_buffer_rate, RATE_PLACES),
        "taker_fee_ppb": whole(rule.taker_fee_rate, RATE_PLACES),
        "mark_age_max_ns": rule.mark_age_max_ms * 10**6,
        "trading_state": types_pb2.TradingState.Value(trading_state),
        "expiry_ns": rule.expiry_ns(),
        "strike_units": rule.strike_units(),
        "option_type": instrument_service_pb2.OptionType.Value(option_type),
        "interest_rate_ppb": whole(rule.interest_rate or Decimal(0), RATE_PLACES),
        "underlying_id": underlying_id,
    }


def _lots(quantity: Decimal | None, lot_size: Decimal) -> int:
    return 0 if quantity is None else multiple(quantity, lot_size) or 0


def _refuse(reason: int, rulebook: Rulebook, rule: str) -> None:
    if reason != types_pb2.REASON_CODE_NONE:
        name = types_pb2.ReasonCode.Name(types_pb2.ReasonCode.ValueType(reason))
        raise ApplyError(f"rulebook {rulebook.name}: {rule}: the engine refuses it: {name}")
