"""What a rulebook says, in the terms of riskd.margin, which computes with it."""

from decimal import ROUND_FLOOR, Decimal

from riskd import margin
from riskd.margin import OptionRule, Rule, Tier, TierSchedule
from riskd.margin.positions import Position, requirement_of
from riskd.margin.risk_factor import LevelFactors, Slippage, risk_factor_maintenance
from riskd.margin.schedules import OpenInterestScaled, PerContract, PowerLaw, Schedule, SizeLinear
from riskd.margin.spreads import UpperBounds
from riskd.rulebooks.schema import (
    EXACT,
    LevelsRule,
    ParameterRule,
    ScheduleRule,
    number_of,
)

_PPM = Decimal("0.000001")


def margin_schedule(rule: ScheduleRule) -> Schedule:
    """Return the schedule that riskd.margin computes with; its contracts are units of quantity.

    Raises ValueError for size_sqrt and risk_factor, which riskd.margin.weights and
    riskd.margin.risk_factor take as numbers.
    """
    values = rule.parameters
    if rule.tiers:
        tiers = tuple(
            Tier(
                tier.floor,
                tier.maintenance_rate,
                tier.initial_rate,
                tier.deduction,
                tier.max_leverage,
            )
            for tier in rule.tiers
        )
        return TierSchedule(tiers, rule.notional_max)
    match rule.family:
        case "per_contract":
            return PerContract(
                number_of(values, "initial_per_contract"),
                number_of(values, "maintenance_per_contract"),
            )
        case "size_linear":
            return SizeLinear(
                number_of(values, "initial_base"),
                number_of(values, "initial_slope"),
                number_of(values, "maintenance_base"),
                number_of(values, "maintenance_slope"),
            )
        case "power":
            return PowerLaw(
                number_of(values, "initial_base"),
                number_of(values, "maintenance_base"),
                number_of(values, "factor"),
                number_of(values, "exponent"),
            )
        case "open_interest":
            initial = number_of(values, "initial_rate")
            part = EXACT.multiply(initial, number_of(values, "maintenance_fraction"))
            return OpenInterestScaled(
                initial,
                part.quantize(_PPM, ROUND_FLOOR),
                number_of(values, "open_interest_lower"),
                number_of(values, "open_interest_upper"),
            )
    raise ValueError(f"schedule {rule.name}: {rule.family} is no schedule of riskd.margin")


def maintenance(rule: ScheduleRule, quantity: Decimal, price: Decimal, venue: Rule) -> Decimal:
    """Return the maintenance of a long of this quantity at a price, at entry and at the mark."""
    values = rule.parameters
    notional = abs(quantity) / price if venue.contract == "inverse" else abs(quantity) * price
    if rule.family == "size_sqrt":
        return notional * size_sqrt_rates(rule, quantity)[1]
    if rule.family == "risk_factor":
        figure = risk_factor_maintenance(
            float(price),
            float(quantity),
            float(number_of(values, "risk_factor_long")),
            float(number_of(values, "risk_factor_short")),
            Slippage(
                float(number_of(values, "linear_slippage")),
                float(number_of(values, "quadratic_slippage")),
            ),
        )
        return Decimal(repr(float(figure)))
    position = Position.of(
        quantity=quantity,
        entry_price=price,
        mark_price=price,
        session_price=price,
        wallet=0,
        fee_rate=0,
        open_interest=0,
    )
    return requirement_of(position, margin_schedule(rule), venue).maintenance


def size_sqrt_rates(rule: ScheduleRule, quantity: Decimal) -> tuple[Decimal, Decimal]:
    """Return the initial and the maintenance rate of a position of this size, in steps of 1e-4."""
    values = rule.parameters
    initial, maintenance_rate = (
        margin.liability_weight(
            int(abs(quantity) * 10**9),
            int(number_of(values, "imf_factor") * 10**6),
            int(number_of(values, key) * 10**4),
        )
        for key in ("initial_rate", "maintenance_rate")
    )
    return Decimal(int(initial)) / 10**4, Decimal(int(maintenance_rate)) / 10**4


def option_rule(rule: ParameterRule) -> OptionRule:
    """Return the rule of short options. Raises ValueError for another family."""
    values = dict(rule.parameters)
    if rule.family == "reg_t":
        values |= {"maintenance": "initial", "put_floor": "strike", "maintenance_rate": Decimal(0)}
    elif rule.family != "short_option":
        raise ValueError(f"option_rule {rule.name}: {rule.family} is no rule of short options")
    fields = set(OptionRule.__dataclass_fields__)
    return OptionRule(
        **{
            key: float(value) if isinstance(value, Decimal) else value
            for key, value in values.items()
            if key in fields
        }  # type: ignore[arg-type]  # the keys are the fields, and the laws have checked them
    )


def upper_bounds(rule: ParameterRule) -> UpperBounds:
    """Return the time table of naked shorts. Raises ValueError for another family."""
    if rule.family != "option_naked":
        raise ValueError(f"option_rule {rule.name}: {rule.family} has no time table")
    table = rule.parameters["time"]
    rows = table if isinstance(table, tuple) else ()
    return UpperBounds(
        tuple(float(row["days_max"]) for row in rows),
        tuple(float(row["upper_bound"]) for row in rows),
    )


def level_factors(rule: LevelsRule) -> LevelFactors:
    """Return the factors of the four levels. Raises KeyError if one is not there."""
    keys = ("search", "initial", "release")
    return LevelFactors(*(number_of(rule.parameters, key) for key in keys))
