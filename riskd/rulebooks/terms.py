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
    "order_margin": ("worse_side",),
}
# wrong_way of collateral, ppb; of own_asset_excluded an engine has nothing.
_WRONG_WAY: Final = {"none": 0, "excluded": 10**RATE_PLACES}
# The closing fee of fee_in_margin, fee_in_liquidation and whether the wallet is margin_and_fee.
_CLOSING_FEES: Final = {
    ("none", "none", False): pb.CLOSING_FEE_UNSPECIFIED,
    ("none", "at_liquidation", False): pb.CLOSING_FEE_UNSPECIFIED,
    ("taker_in_maintenance", "at_liquidation", False): pb.CLOSING_FEE_IN_MAINTENANCE,
    ("none", "reserved", True): pb.CLOSING_FEE_RESERVED,
    ("close_at_bankruptcy", "reserved", False): pb.CLOSING_FEE_AT_BANKRUPTCY,
}
_MARGIN_MODES: Final = ("isolated", "cross")
# What of a short option's rule the engine has no word for, and the values that it does by itself.
_SHORT_OPTION: Final[dict[str, tuple[Value, ...]]] = {
    "put_floor": ("reference",),
    "mark_term": ("mark",),
    "maintenance": ("own",),
    "maintenance_floor": (),
    "liquidation_fee_rate": (ZERO,),
    "minimum": (ZERO,),
    "is_premium_credited": (False,),
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
    closing_fee: int = 0


@dataclass(frozen=True, slots=True)
class OptionTerms:
    """The arguments of Engine.upsert_option_rule after name and asset."""

    initial_ppb: int
    initial_min_ppb: int
    maintenance_ppb: int
    put_maintenance: int
    parameter_d: int
    parameter_e: int


@dataclass(frozen=True, slots=True)
class CollateralTerms:
    """The arguments of Engine.define_collateral after the three ids."""

    tiers: tuple[tuple[int, int], ...]
    """floor, weight ppb."""
    cap: int
    liability_ppb: int
    interest_free: int
    forced_conversion: int
    wrong_way_ppb: int


def unsupported(rulebook: Rulebook) -> list[str]:
    """Return what of a rulebook no engine can do yet: its keys, values and reasons."""
    found = _unsupported_rule(rulebook.rule)
    attempts: list[Callable[[], object]] = [
        *(partial(schedule_terms, rulebook, each) for each in installed_schedules(rulebook)),
        *(partial(option_terms, rulebook, each) for each in installed_option_rules(rulebook)),
        *(partial(collateral_terms, rulebook, each) for each in rulebook.collateral),
        *(partial(check_instrument, rulebook, each) for each in rulebook.instruments),
        *(partial(_check_family, each) for each in rulebook.option_rules),
    ]
    for attempt in attempts:
        try:
            attempt()
        except UnsupportedError as error:
            if str(error) not in found:
                found.append(str(error))
    return found


def left_out(rulebook: Rulebook) -> list[str]:
    """Return what does not go into an engine because no instrument needs it: keys and reasons."""
    found = []
    for schedule in rulebook.schedules:
        if not _users(rulebook, schedule):
            try:
                schedule_terms(rulebook, schedule)
            except UnsupportedError as error:
                found.append(str(error))
    for rule in rulebook.option_rules:
        if option_asset(rulebook, rule) is not None:
            continue
        text = f"option_rule.{key_text(rule.name)}: no option has it"
        try:
            option_terms(rulebook, rule)
        except UnsupportedError as error:
            text += f", nor could one: {error}"
        found.append(text)
    return found


def installed_schedules(rulebook: Rulebook) -> list[ScheduleRule]:
    """Return the schedules that go into an engine: all but those without use that cannot."""

    def goes(schedule: ScheduleRule) -> bool:
        try:
            schedule_terms(rulebook, schedule)
        except UnsupportedError:
            return bool(_users(rulebook, schedule))
        return True

    return [schedule for schedule in rulebook.schedules if goes(schedule)]


def installed_option_rules(rulebook: Rulebook) -> list[ParameterRule]:
    """Return the option rules that go into an engine: those of its options."""
    return [rule for rule in rulebook.option_rules if option_asset(rulebook, rule) is not None]


def _users(rulebook: Rulebook, schedule: ScheduleRule) -> list[InstrumentRule]:
    return [rule for rule in rulebook.instruments if rule.margin_schedule == schedule.name]


def _check_family(rule: ParameterRule) -> None:
    if rule.family != "short_option":
        key = f"option_rule.{key_text(rule.name)}.family"
        raise UnsupportedError(key, rule.family)


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
    try:
        _closing_fee(rule)
    except UnsupportedError as error:
        found.append(str(error))
    return found


def _closing_fee(rule: VenueRule | None) -> int:
    """Return the closing fee of a venue's schedules. Raises UnsupportedError."""
    if rule is None:
        return pb.CLOSING_FEE_UNSPECIFIED
    keys = ("fee_in_margin", "fee_in_liquidation", "wallet")
    fees: list[tuple[str, str, bool]] = []
    for mode in _MARGIN_MODES:
        record = rule.of(mode)
        has_fee = record.wallet == "margin_and_fee"
        words = (record.fee_in_margin, record.fee_in_liquidation, has_fee)
        own = rule.isolated if mode == "isolated" else rule.cross
        for count, key in enumerate(keys, start=1):
            section = f"rule.{mode}" if key in own else "rule"
            if not any(known[:count] == words[:count] for known in _CLOSING_FEES):
                raise UnsupportedError(f"{section}.{key}", getattr(record, key))
            if fees and fees[0][:count] != words[:count]:
                reason = "an engine's schedule has the same fees in all margin modes"
                raise UnsupportedError(f"{section}.{key}", getattr(record, key), reason)
        fees.append(words)
    return _CLOSING_FEES[fees[0]]


def schedule_terms(rulebook: Rulebook, schedule: ScheduleRule) -> ScheduleTerms:
    """Return what an engine takes of a schedule. Raises UnsupportedError."""
    scale = rulebook.asset(schedule.settlement_asset).scale
    key = f"schedule.{key_text(schedule.name)}"
    if schedule.quantity_max is not None and schedule.tier_key != "quantity":
        raise UnsupportedError(f"{key}.quantity_max", schedule.quantity_max)
    closing_fee = _closing_fee(rulebook.rule)
    _check_closing_fee(rulebook, schedule, closing_fee, key)
    fee = whole(schedule.liquidation_fee_rate, RATE_PLACES)
    largest = whole(schedule.notional_max or ZERO, scale)
    basis = pb.MAINTENANCE_BASIS_MARK
    if rulebook.rule and rulebook.rule.common.get("maintenance_basis") == "entry":
        basis = pb.MAINTENANCE_BASIS_ENTRY
    if schedule.family in (TIERED, LEVERAGE):
        family, tiers, lots_max = _tiers(rulebook, schedule, scale, key)
        return ScheduleTerms(tiers, largest, fee, family, basis, lots_max, 0, 0, closing_fee)
    family, rates, parameters = _parameters(rulebook, schedule, scale, key)
    initial, maintenance = (_ppb(rate) for rate in rates)
    leverage = schedule.parameters.get("max_leverage")
    if not isinstance(leverage, Decimal):
        leverage = leverage_of_rate(rates[0]) if rates[0] else LEVERAGE_MAX
    tier = (0, initial, maintenance, whole(leverage, LEVERAGE_PLACES))
    a, b, c = (*parameters, 0, 0)[:3]
    return ScheduleTerms((tier,), largest, fee, family, basis, a, b, c, closing_fee)


def _check_closing_fee(
    rulebook: Rulebook, schedule: ScheduleRule, closing_fee: int, key: str
) -> None:
    """Refuse what an engine cannot have beside a closing fee."""
    if closing_fee == pb.CLOSING_FEE_UNSPECIFIED:
        return
    if closing_fee == pb.CLOSING_FEE_IN_MAINTENANCE:
        for rule in _users(rulebook, schedule):
            if rule.taker_fee_rate != schedule.liquidation_fee_rate:
                raise UnsupportedError(
                    f"instrument.{key_text(rule.symbol)}.taker_fee_rate",
                    rule.taker_fee_rate,
                    "an engine's maintenance has the fee that its liquidation price leaves room "
                    f"for, liquidation_fee_rate {show(schedule.liquidation_fee_rate)}",
                )
        return
    assert rulebook.rule is not None, "without [rule] there is no closing fee"
    if rulebook.rule.common.get("maintenance_basis") != "entry":
        value = rulebook.rule.common.get("maintenance_basis", "mark")
        reason = "a reserved fee is of the entry value, with it maintenance must be"
        raise UnsupportedError("rule.maintenance_basis", value, reason)
    if not schedule.tiers:
        raise UnsupportedError(f"{key}.family", schedule.family, "has no reserved fee")
    if schedule.liquidation_fee_rate:
        rate = schedule.liquidation_fee_rate
        raise UnsupportedError(f"{key}.liquidation_fee_rate", rate, "a fee is reserved already")


def _ppb(rate: Decimal) -> int:
    """Return a rate as 10^-9, rounded up."""
    return whole(rate.quantize(_RATE_STEP, ROUND_CEILING), RATE_PLACES)


def _tiers(
    rulebook: Rulebook, schedule: ScheduleRule, scale: int, key: str
) -> tuple[int, tuple[tuple[int, int, int, int], ...], int]:
    """Return the family, its tiers, and the largest quantity in lots (0: no bound)."""
    rows = _rising(schedule, key)
    lots_max = 0
    if schedule.tier_key == "quantity":
        lot = _lot(rulebook, schedule, key)
        floors = [_lots_of(tier.floor, lot, f"{key}.tier.floor") for tier in rows]
        lots_max = _lots_of(schedule.quantity_max or ZERO, lot, f"{key}.quantity_max")
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
    return family, tiers, lots_max


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


def _lots_of(quantity: Decimal, lot: Decimal, key: str) -> int:
    lots = multiple(quantity, lot)
    if lots is None:
        raise UnsupportedError(key, quantity, f"is not a multiple of the lot {show(lot)}")
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
    lots = {rule.lot_size for rule in _users(rulebook, schedule)}
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
    _check_family(rule)
    values = rule.parameters
    for name, known in _SHORT_OPTION.items():
        if name in values and values[name] not in known:
            raise UnsupportedError(f"{key}.{name}", values[name])
    # An engine never lets initial margin be below maintenance: 1 is what it does anyway.
    if number_of(values, "call_initial_over_maintenance") > ONE:
        name = "call_initial_over_maintenance"
        raise UnsupportedError(f"{key}.{name}", values[name])
    over = number_of(values, "put_initial_over_maintenance")
    of_mark = {name: values[f"{name}_maintenance"] != "reference" for name in ("call", "put")}
    if of_mark["call"] and not of_mark["put"]:
        reason = "an engine has it of calls only with that of puts"
        raise UnsupportedError(f"{key}.call_maintenance", values["call_maintenance"], reason)
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
        of_mark["put"] + of_mark["call"],
        _exact(over, RATE_PLACES, f"{key}.put_initial_over_maintenance", over) if over > ONE else 0,
        _order_margin_min(rule, key),
    )


def _order_margin_min(rule: ParameterRule, key: str) -> int:
    """Return the least that an order to sell holds, as a part of the reference in ppb.

    A rulebook has it as money of a contract: in coin that is a part of a coin, and so a part of
    what the contract is worth.
    """
    contract = rule.number("multiplier")
    least = rule.number("order_margin_min")
    if least and rule.parameters["settlement"] != "coin":
        reason = "is an amount of money, an engine's is a part of the reference"
        raise UnsupportedError(f"{key}.order_margin_min", least, reason)
    part = multiple(least, EXACT.multiply(contract, _RATE_STEP))
    if part is None or part > 10**RATE_PLACES:
        reason = f"of a contract of {show(contract)} coins must be at most it, in steps of 1e-9"
        raise UnsupportedError(f"{key}.order_margin_min", least, reason)
    return part


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
    wrong_way = _WRONG_WAY.get(str(values.get("wrong_way", "none")))
    if wrong_way is None:
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
        wrong_way,
    )


def check_instrument(rulebook: Rulebook, rule: InstrumentRule) -> None:
    """Raise UnsupportedError for an instrument that no engine can trade."""
    key = f"instrument.{key_text(rule.symbol)}"
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
        "isolated_only": int(rule.isolated_only),
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
