"""What a rulebook says as the integers that an engine takes: docs/instruments.md has their meaning.

What an engine cannot do yet is refused here by its key, before anything is changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import partial
from typing import Final

from riskd.rulebooks.loader import leverage_of_rate
from riskd.rulebooks.schema import (
    EXACT,
    INVERSE_OPTION,
    LEVERAGE,
    LEVERAGE_MAX,
    LEVERAGE_PLACES,
    ONE,
    RATE_PLACES,
    TIERED,
    ZERO,
    InstrumentRule,
    ParameterRule,
    Rulebook,
    ScheduleRule,
    TierRule,
    Value,
    VenueRule,
    key_text,
    mantissa_exponent,
    multiple,
    number_of,
    scaled,
    show,
    whole,
)
from riskd.v1 import instrument_service_pb2 as pb
from riskd.v1 import types_pb2

_RATE_STEP: Final = ONE.scaleb(-RATE_PLACES)
_PPM: Final = Decimal("0.000001")
# Slopes are 10^-15 per lot, sizes 10^-12 per lot, the factor of a power 10^-18.
_SLOPE_PLACES: Final = 15
_SIZE_PLACES: Final = 12
_FACTOR_PLACES: Final = 18

# What of [rule] an engine decides by, and the words that it knows. The other keys say how a venue
# prints its figures, or are met by what the engine does anyway.
_RULE: Final[dict[str, tuple[Value, ...]]] = {
    "initial_basis": ("mark", "entry"),
    "maintenance_basis": ("mark", "liquidation", "entry"),
    "fee_in_liquidation": ("none", "at_liquidation"),
    "fee_in_margin": ("none",),
    "order_margin": ("worse_side",),
}
# What of a short option's rule the engine has no word for, and the values that it does by itself.
_SHORT_OPTION: Final[dict[str, tuple[Value, ...]]] = {
    "put_floor": ("reference",),
    "call_maintenance": ("reference",),
    "mark_term": ("mark",),
    "maintenance": ("own",),
    "maintenance_floor": (),
    "liquidation_fee_rate": (ZERO,),
    "minimum": (ZERO,),
    "is_premium_credited": (False,),
    "order_margin_min": (ZERO,),
    "multiplier": (ONE,),
}


class UnsupportedError(ValueError):
    """A key of a rulebook that no engine can do yet; its text is the key, its value and why."""

    def __init__(self, key: str, value: object = None, reason: str = "") -> None:
        shown = key if value is None else f"{key} = {show(value)}"
        super().__init__(f"{shown}: {reason}" if reason else shown)


@dataclass(frozen=True, slots=True)
class ScheduleTerms:
    """The arguments of Engine.upsert_schedule after name and asset."""

    tiers: tuple[tuple[int, int, int, int], ...]
    """floor, initial ppb, maintenance ppb, largest leverage."""
    notional_max: int
    liquidation_fee_ppb: int
    family: int
    maintenance_basis: int
    parameter_a: int = 0
    parameter_b: int = 0
    parameter_c: int = 0


@dataclass(frozen=True, slots=True)
class OptionTerms:
    """The arguments of Engine.upsert_option_rule after name and asset."""

    initial_ppb: int
    initial_min_ppb: int
    maintenance_ppb: int
    put_maintenance: int


@dataclass(frozen=True, slots=True)
class CollateralTerms:
    """The arguments of Engine.define_collateral after the three ids."""

    tiers: tuple[tuple[int, int], ...]
    """floor, weight ppb."""
    cap: int
    liability_ppb: int
    interest_free: int
    forced_conversion: int


def unsupported(rulebook: Rulebook) -> list[str]:
    """Return what of a rulebook no engine can do yet: its keys, values and reasons."""
    found = _unsupported_rule(rulebook.rule)
    attempts: list[Callable[[], object]] = [
        *(partial(schedule_terms, rulebook, each) for each in rulebook.schedules),
        *(partial(option_terms, rulebook, each) for each in rulebook.option_rules),
        *(partial(collateral_terms, rulebook, each) for each in rulebook.collateral),
        *(partial(check_instrument, rulebook, each) for each in rulebook.instruments),
    ]
    for attempt in attempts:
        try:
            attempt()
        except UnsupportedError as error:
            found.append(str(error))
    return found


def _unsupported_rule(rule: VenueRule | None) -> list[str]:
    if rule is None:
        return []
    sections = (("rule", rule.common), ("rule.isolated", rule.isolated), ("rule.cross", rule.cross))
    found = []
    for section, values in sections:
        for key, known in _RULE.items():
            if key in values and values[key] not in known:
                found.append(str(UnsupportedError(f"{section}.{key}", values[key])))
    for section, values in sections[1:]:
        if "maintenance_basis" in values:
            reason = "an engine's schedule has one basis for all margin modes"
            value = values["maintenance_basis"]
            found.append(str(UnsupportedError(f"{section}.maintenance_basis", value, reason)))
    return found


def schedule_terms(rulebook: Rulebook, schedule: ScheduleRule) -> ScheduleTerms:
    """Return what an engine takes of a schedule. Raises UnsupportedError."""
    scale = rulebook.asset(schedule.settlement_asset).scale
    key = f"schedule.{key_text(schedule.name)}"
    if schedule.quantity_max is not None:
        raise UnsupportedError(f"{key}.quantity_max", schedule.quantity_max)
    fee = whole(schedule.liquidation_fee_rate, RATE_PLACES)
    largest = whole(schedule.notional_max or ZERO, scale)
    basis = pb.MAINTENANCE_BASIS_MARK
    if rulebook.rule and rulebook.rule.common.get("maintenance_basis") == "entry":
        basis = pb.MAINTENANCE_BASIS_ENTRY
    if schedule.family in (TIERED, LEVERAGE):
        family, tiers = _tiers(rulebook, schedule, scale, key)
        return ScheduleTerms(tiers, largest, fee, family, basis)
    family, rates, parameters = _parameters(rulebook, schedule, scale, key)
    initial, maintenance = (_ppb(rate) for rate in rates)
    leverage = schedule.parameters.get("max_leverage")
    if not isinstance(leverage, Decimal):
        leverage = leverage_of_rate(rates[0]) if rates[0] else LEVERAGE_MAX
    tier = (0, initial, maintenance, whole(leverage, LEVERAGE_PLACES))
    return ScheduleTerms((tier,), largest, fee, family, basis, *parameters)


def _ppb(rate: Decimal) -> int:
    """Return a rate as 10^-9, rounded up."""
    return whole(rate.quantize(_RATE_STEP, ROUND_CEILING), RATE_PLACES)


def _tiers(
    rulebook: Rulebook, schedule: ScheduleRule, scale: int, key: str
) -> tuple[int, tuple[tuple[int, int, int, int], ...]]:
    rows = _rising(schedule, key)
    if schedule.tier_key == "quantity":
        lot = _lot(rulebook, schedule, key)
        floors = [_lots_of(tier.floor, lot, f"{key}.tier") for tier in rows]
        family = pb.MARGIN_FAMILY_TIERED_QUANTITY
    else:
        floors = [whole(tier.floor, scale) for tier in rows]
        is_whole = schedule.tier_mode == "whole"
        family = pb.MARGIN_FAMILY_TIERED_WHOLE if is_whole else pb.MARGIN_FAMILY_TIERED
    tiers = tuple(
        (
            floor,
            whole(tier.initial_rate, RATE_PLACES),
            whole(tier.maintenance_rate, RATE_PLACES),
            whole(tier.max_leverage, LEVERAGE_PLACES),
        )
        for floor, tier in zip(floors, rows, strict=True)
    )
    return family, tiers


def _rising(schedule: ScheduleRule, key: str) -> list[TierRule]:
    """Return the tiers that change something: an engine's rates rise from tier to tier."""
    rows: list[TierRule] = []
    for k, tier in enumerate(schedule.tiers):
        last = rows[-1] if rows else None
        if last is None or tier.maintenance_rate > last.maintenance_rate:
            rows.append(tier)
        elif (tier.initial_rate, tier.max_leverage) != (last.initial_rate, last.max_leverage):
            reason = "does not rise, an engine's tiers do"
            where = f"{key}.tier[{k}].maintenance_rate"
            raise UnsupportedError(where, tier.maintenance_rate, reason)
    return rows


def _lots_of(floor: Decimal, lot: Decimal, key: str) -> int:
    lots = multiple(floor, lot)
    if lots is None:
        raise UnsupportedError(f"{key}.floor", floor, f"is not a multiple of the lot {show(lot)}")
    return lots


def _parameters(
    rulebook: Rulebook, schedule: ScheduleRule, scale: int, key: str
) -> tuple[int, tuple[Decimal, Decimal], tuple[int, ...]]:
    """Return the family, its rates at size 0, and parameters a, b, c."""
    values = schedule.parameters

    def number(name: str) -> Decimal:
        return number_of(values, name)

    def scaled_by(name: str, factor: Decimal, places: int) -> int:
        product = EXACT.multiply(number(name), factor)
        return _exact(product, places, f"{key}.{name}", number(name))

    match schedule.family:
        case "per_contract":
            lot = _lot(rulebook, schedule, key)
            parameters = (
                scaled_by("initial_per_contract", lot, scale),
                scaled_by("maintenance_per_contract", lot, scale),
            )
            return pb.MARGIN_FAMILY_PER_CONTRACT, (ZERO, ZERO), parameters
        case "size_linear":
            lot = _lot(rulebook, schedule, key)
            slopes = (
                scaled_by("initial_slope", lot, _SLOPE_PLACES),
                scaled_by("maintenance_slope", lot, _SLOPE_PLACES),
            )
            rates = (number("initial_base"), number("maintenance_base"))
            return pb.MARGIN_FAMILY_SIZE_LINEAR, rates, slopes
        case "size_sqrt":
            lot = _lot(rulebook, schedule, key)
            rates = (number("initial_rate"), number("maintenance_rate"))
            size = _exact(lot, _SIZE_PLACES, f"{key}.family", schedule.family)
            factor = scaled_by("imf_factor", ONE, RATE_PLACES)
            return pb.MARGIN_FAMILY_SIZE_SQRT, rates, (factor, 0, size)
        case "power":
            rates = (number("initial_base"), number("maintenance_base"))
            factor = scaled_by("factor", ONE, _FACTOR_PLACES)
            if not factor:
                raise UnsupportedError(f"{key}.factor", ZERO, "an engine's is above 0")
            return pb.MARGIN_FAMILY_POWER, rates, (factor, whole(number("exponent"), RATE_PLACES))
        case "open_interest":
            initial = number("initial_rate")
            part = EXACT.multiply(initial, number("maintenance_fraction"))
            caps = tuple(
                scaled_by(name, ONE, scale)
                for name in ("open_interest_lower", "open_interest_upper")
            )
            return (
                pb.MARGIN_FAMILY_OPEN_INTEREST,
                (initial, part.quantize(_PPM, ROUND_FLOOR)),
                caps,
            )
    return _risk_factor(rulebook, schedule, key)


def _risk_factor(
    rulebook: Rulebook, schedule: ScheduleRule, key: str
) -> tuple[int, tuple[Decimal, Decimal], tuple[int, ...]]:
    """Linear slippage is a part of the notional like the risk factors: it is added to them."""
    values = schedule.parameters
    levels = rulebook.levels
    if levels is None or "initial" not in levels.parameters:
        reason = "needs levels.initial: initial margin over maintenance"
        raise UnsupportedError(f"{key}.family", schedule.family, reason)
    over = number_of(levels.parameters, "initial")
    slippage = number_of(values, "linear_slippage")
    long = EXACT.add(number_of(values, "risk_factor_long"), slippage)
    short = EXACT.add(number_of(values, "risk_factor_short"), slippage)
    slope = number_of(values, "quadratic_slippage")
    lots = ZERO
    if slope:
        lots = EXACT.multiply(slope, _lot(rulebook, schedule, key))
    quadratic = _exact(lots, _SLOPE_PLACES, f"{key}.quadratic_slippage", slope)
    initial = min(ONE, EXACT.multiply(long, over))
    return (
        pb.MARGIN_FAMILY_RISK_FACTOR,
        (initial, long),
        (_ppb(short), quadratic, whole(over, RATE_PLACES)),
    )


def _lot(rulebook: Rulebook, schedule: ScheduleRule, key: str) -> Decimal:
    """Return the lot of the instruments of a schedule: an engine counts sizes in lots."""
    users = [rule for rule in rulebook.instruments if rule.margin_schedule == schedule.name]
    lots = {rule.lot_size for rule in users}
    if not lots:
        reason = "no instrument has it, so that its sizes have no lots"
        raise UnsupportedError(f"{key}.family", schedule.family, reason)
    if len(lots) > 1:
        reason = f"its instruments have lots of {', '.join(sorted(map(show, lots)))}"
        raise UnsupportedError(f"{key}.family", schedule.family, reason)
    return lots.pop()


def _exact(value: Decimal, places: int, key: str, shown: object) -> int:
    number = scaled(value, places)
    if number is None:
        raise UnsupportedError(key, shown, f"is not whole in the engine's unit, 10^-{places}")
    return number


def option_terms(rulebook: Rulebook, rule: ParameterRule) -> OptionTerms:
    """Return what an engine takes of an option rule. Raises UnsupportedError."""
    key = f"option_rule.{key_text(rule.name)}"
    if rule.family != "short_option":
        raise UnsupportedError(f"{key}.family", rule.family)
    values = rule.parameters
    for name, known in _SHORT_OPTION.items():
        if name in values and values[name] not in known:
            raise UnsupportedError(f"{key}.{name}", values[name])
    for name in ("call_initial_over_maintenance", "put_initial_over_maintenance"):
        # An engine never lets initial margin be below maintenance.
        if number_of(values, name) > ONE:
            raise UnsupportedError(f"{key}.{name}", values[name])
    table = values.get("factor_tier", ())
    for k, row in enumerate(table if isinstance(table, tuple) else ()):
        if row["factor"] != ONE:
            raise UnsupportedError(f"{key}.factor_tier[{k}].factor", row["factor"])
    if len(_settlement_assets(rulebook, rule)) > 1:
        assets = ", ".join(_settlement_assets(rulebook, rule))
        raise UnsupportedError(key, None, f"its options settle in {assets}, must be one asset")
    return OptionTerms(
        _ppb(number_of(values, "initial_rate")),
        _ppb(number_of(values, "initial_floor")),
        _ppb(number_of(values, "maintenance_rate")),
        int(values["put_maintenance"] != "reference"),
    )


def _settlement_assets(rulebook: Rulebook, rule: ParameterRule) -> Sequence[str]:
    users = (each for each in rulebook.instruments if each.option_rule == rule.name)
    return sorted({each.settlement_asset for each in users})


def option_asset(rulebook: Rulebook, rule: ParameterRule) -> str | None:
    """Return the asset of an option rule: its options'; None if it has none."""
    assets = _settlement_assets(rulebook, rule)
    return assets[0] if assets else None


def collateral_terms(rulebook: Rulebook, rule: ParameterRule) -> CollateralTerms:
    """Return what an engine takes of collateral. Raises UnsupportedError."""
    key = f"collateral.{key_text(rule.name)}"
    values = rule.parameters
    scale = rulebook.asset(rule.name).scale
    if "index" not in values:
        raise UnsupportedError(f"{key}.index", None, "is missing, an engine needs a price")
    if values.get("wrong_way", "none") != "none":
        raise UnsupportedError(f"{key}.wrong_way", values["wrong_way"])
    if values.get("imf_factor", ZERO) != ZERO:
        raise UnsupportedError(f"{key}.imf_factor", values["imf_factor"])
    liability = values.get("liability_weight", ONE)
    if values.get("maintenance_liability_weight", liability) != liability:
        reason = "an engine has one weight for both"
        name = "maintenance_liability_weight"
        raise UnsupportedError(f"{key}.{name}", values[name], reason)
    tiers = []
    table = values.get("haircut", ())
    for k, row in enumerate(table if isinstance(table, tuple) else ()):
        weight = row["asset_weight"]
        if row.get("maintenance_asset_weight", weight) != weight:
            name = f"{key}.haircut[{k}].maintenance_asset_weight"
            reason = "an engine has one weight for both"
            raise UnsupportedError(name, row["maintenance_asset_weight"], reason)
        floor = _exact(row["floor"], scale, f"{key}.haircut[{k}].floor", row["floor"])
        tiers.append((floor, whole(weight, RATE_PLACES)))

    def minor(name: str) -> int:
        value = values.get(name, ZERO)
        number = value if isinstance(value, Decimal) else ZERO
        return _exact(number, scale, f"{key}.{name}", number)

    return CollateralTerms(
        tuple(tiers) or ((0, 10**RATE_PLACES),),
        minor("cap"),
        whole(liability if isinstance(liability, Decimal) else ONE, RATE_PLACES),
        minor("interest_free"),
        minor("forced_conversion"),
    )


def check_instrument(rulebook: Rulebook, rule: InstrumentRule) -> None:
    """Raise UnsupportedError for an instrument that no engine can trade."""
    key = f"instrument.{key_text(rule.symbol)}"
    if rule.isolated_only:
        raise UnsupportedError(f"{key}.isolated_only", "true")
    if rule.option_rule is not None and rule.kind != INVERSE_OPTION and rule.underlying:
        underlying = rulebook.instrument(rule.underlying)
        if underlying.mark_unit != rule.mark_unit:
            reason = f"its mark unit is {show(underlying.mark_unit)}, the option's another"
            raise UnsupportedError(f"{key}.underlying", rule.underlying, reason)


def instrument_arguments(
    rule: InstrumentRule,
    scale: int,
    ids: "InstrumentIds",
    underlying: InstrumentRule | None,
) -> dict[str, int]:
    """Return the arguments of Engine.upsert_instrument but the symbol."""
    tick_mantissa, tick_exponent = mantissa_exponent(rule.tick_size)
    lot_mantissa, lot_exponent = mantissa_exponent(rule.lot_size)
    multiplier_mantissa, multiplier_exponent = mantissa_exponent(rule.contract_multiplier)
    kind = f"INSTRUMENT_KIND_{rule.kind.upper()}"
    option_type = f"OPTION_TYPE_{(rule.option_type or 'unspecified').upper()}"
    return {
        "kind": pb.InstrumentKind.Value(kind),
        "asset_id": ids.asset,
        "schedule_id": ids.schedule,
        "tick_mantissa": tick_mantissa,
        "tick_exponent": tick_exponent,
        "lot_mantissa": lot_mantissa,
        "lot_exponent": lot_exponent,
        "mark_units_per_tick": rule.mark_units_per_tick,
        "order_lots_min": _lots(rule.order_quantity_min, rule.lot_size),
        "order_lots_max": _lots(rule.order_quantity_max, rule.lot_size),
        "order_notional_min": whole(rule.order_notional_min or ZERO, scale),
        "order_notional_max": whole(rule.order_notional_max or ZERO, scale),
        "price_collar_ppb": whole(rule.price_collar_rate or ZERO, RATE_PLACES),
        "market_buffer_ppb": whole(rule.market_order_buffer_rate, RATE_PLACES),
        "taker_fee_ppb": whole(rule.taker_fee_rate, RATE_PLACES),
        "mark_age_max_ns": rule.mark_age_max_ms * 10**6,
        "trading_state": types_pb2.TradingState.Value(
            f"TRADING_STATE_{rule.trading_state.upper()}"
        ),
        "expiry_ns": rule.expiry_ns(),
        "strike_units": rule.strike_units(underlying),
        "option_type": pb.OptionType.Value(option_type),
        "interest_rate_ppb": whole(rule.interest_rate or ZERO, RATE_PLACES),
        "underlying_id": ids.underlying,
        "multiplier_mantissa": multiplier_mantissa,
        "multiplier_exponent": multiplier_exponent,
        "option_rule_id": ids.option_rule,
        "base_asset_id": ids.base_asset,
    }


@dataclass(frozen=True, slots=True)
class InstrumentIds:
    """What an instrument names, by the engine's ids; 0 for nothing."""

    asset: int = 0
    schedule: int = 0
    underlying: int = 0
    option_rule: int = 0
    base_asset: int = 0


def _lots(quantity: Decimal | None, lot_size: Decimal) -> int:
    return 0 if quantity is None else multiple(quantity, lot_size) or 0
