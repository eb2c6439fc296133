"""Families of margin schedules: what a position of a notional N and q contracts needs.

Each family gives an initial rate i, a maintenance rate m and amounts that do not move with the
notional, so that

    initial     = max(N / leverage, i N, amount)
    maintenance = m N - deduction

Tiers (TierSchedule) are one family; tiers that state only a largest leverage become one with
`leverage_tiers`. The rates of the others depend on q, on N, or on the market's open interest.
Rates are fractions, amounts settlement currency, quantities contracts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import ROUND_FLOOR, ROUND_UP, Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Self

from riskd.margin.decimals import (
    Number,
    decimal,
    not_negative,
    positive,
    quotient,
    rounded_up,
    to_decimal,
)
from riskd.margin.exact import Tier, TierSchedule, maintenance_rate_of_leverage
from riskd.margin.rule import Rule

_ONE = Decimal(1)
_PPM = 10**6


class _Family:
    """Constructor from any kind of number, for the families that are a few figures."""

    __slots__ = ()

    @classmethod
    def of(cls, *values: Number, **named: Number) -> Self:
        """Return the schedule. Raises ValueError, naming a figure that is out of bounds."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # dataclasses all
        given = dict(zip(names, values, strict=False)) | named
        return cls(**{name: decimal(name, value) for name, value in given.items()})


@dataclass(frozen=True, slots=True)
class PerContract(_Family):
    """Flat amounts per contract: initial = initial_per_contract |q|, maintenance likewise.

    0 <= maintenance_per_contract <= initial_per_contract.
    """

    initial_per_contract: Decimal
    maintenance_per_contract: Decimal

    def __post_init__(self) -> None:
        _ordered(self, "maintenance_per_contract", "initial_per_contract")


@dataclass(frozen=True, slots=True)
class SizeLinear(_Family):
    """Rates that grow with the size: i = initial_base + initial_slope |q|, m likewise.

    A rate is capped at 1. Slopes are per contract and not below 0.
    """

    initial_base: Decimal
    initial_slope: Decimal
    maintenance_base: Decimal
    maintenance_slope: Decimal

    def __post_init__(self) -> None:
        _ordered(self, "maintenance_base", "initial_base", _ONE)
        not_negative("initial_slope", self.initial_slope)
        not_negative("maintenance_slope", self.maintenance_slope)


@dataclass(frozen=True, slots=True)
class OpenInterestScaled(_Family):
    """An initial rate that rises to 1 with the market's open interest (a notional).

        i = initial_rate + (1 - initial_rate) clamp((OI - lower) / (upper - lower), 0, 1)

    cut to whole millionths; m does not move. lower = upper = 0: no scaling. 0 <= lower < upper.
    """

    initial_rate: Decimal
    maintenance_rate: Decimal
    lower: Decimal
    upper: Decimal

    def __post_init__(self) -> None:
        _ordered(self, "maintenance_rate", "initial_rate", _ONE)
        not_negative("lower", self.lower)
        if self.upper != 0 and self.upper <= self.lower:
            raise ValueError(f"upper {self.upper} must be above lower {self.lower}, or both 0")
        if self.upper == 0 and self.lower != 0:
            raise ValueError(f"upper {self.upper} must be above lower {self.lower}, or both 0")


@dataclass(frozen=True, slots=True)
class PowerLaw(_Family):
    """Rates that grow with a power of the notional.

        i = max(initial_base, factor N^power)
        m = max(maintenance_base, maintenance_base / initial_base factor N^power)

    A rate is capped at 1. 0 < power <= 1, factor >= 0.
    """

    initial_base: Decimal
    maintenance_base: Decimal
    factor: Decimal
    power: Decimal

    def __post_init__(self) -> None:
        _ordered(self, "maintenance_base", "initial_base", _ONE)
        if self.initial_base == 0:
            raise ValueError("initial_base 0 must be above 0")
        not_negative("factor", self.factor)
        if not 0 < self.power <= 1:
            raise ValueError(f"power {self.power} must be above 0 and at most 1")


Schedule = TierSchedule | PerContract | SizeLinear | OpenInterestScaled | PowerLaw


def leverage_tiers(
    tiers: Sequence[tuple[Number, Number]],
    maintenance_part: Number = "0.5",
    notional_max: Number | None = None,
) -> TierSchedule:
    """Return the tiers of (floor, largest leverage): initial 1 / leverage, maintenance a part.

    Rates are rounded up to 1e-9; deductions make maintenance continuous.
    Raises ValueError if a leverage is not above 0 or floors do not rise.
    """
    rows = tuple(
        Tier.of(
            floor,
            maintenance_rate_of_leverage(leverage, maintenance_part),
            initial_rate=maintenance_rate_of_leverage(leverage, 1),
            max_leverage=leverage,
        )
        for floor, leverage in tiers
    )
    return TierSchedule(rows, None if notional_max is None else decimal("max", notional_max))


def leveraged_rates(
    initial_rate: Number, maintenance_rate: Number, leverage: Number
) -> TierSchedule:
    """Return one tier with both rates divided by the chosen leverage, each to 64 digits.

    Source: the leveraged margin model of nautilus_trader.
    """
    factor = decimal("leverage", leverage)
    if factor < 1:
        raise ValueError(f"leverage {factor} must not be below 1")
    rates = [
        quotient(not_negative("rate", rate), factor) for rate in (maintenance_rate, initial_rate)
    ]
    return TierSchedule((Tier(Decimal(0), rates[0], rates[1], Decimal(0)),))


def leverage_of_rate(rate: Number) -> Decimal:
    """Return 1 / rate, to 64 digits: what margin of this part of the value is a leverage of."""
    return quotient(_ONE, positive("rate", rate))


@dataclass(frozen=True, slots=True)
class Rates:
    """What a schedule says about one position, before any switch of a rule but the tiers'."""

    initial_rate: Decimal
    maintenance_rate: Decimal
    deduction: Decimal
    initial_amount: Decimal


@dataclass(frozen=True, slots=True)
class Terms:
    """i, m, d and the least initial amount, as fractions."""

    i: Fraction
    m: Fraction
    d: Fraction = Fraction(0)
    amount: Fraction = Fraction(0)


def rates_of(
    schedule: Schedule,
    quantity: Number,
    notional: Number,
    rule: Rule | None = None,
    open_interest: Number | None = None,
    *,
    floor_is_in: bool = False,
) -> Rates:
    """Return the rates and amounts of a position of this many contracts and this notional.

    A position exactly at a tier's floor has the tier below; floor_is_in: that tier itself.
    """
    terms = terms_of(
        schedule,
        abs(Fraction(decimal("quantity", quantity))),
        Fraction(decimal("notional", notional)),
        Rule() if rule is None else rule,
        None if open_interest is None else Fraction(decimal("open_interest", open_interest)),
        floor_is_in=floor_is_in,
    )
    return Rates(
        rounded_up(terms.i),
        rounded_up(terms.m),
        to_decimal(terms.d, ROUND_FLOOR),
        rounded_up(terms.amount),
    )


def _ordered(schedule: object, low: str, high: str, bound: Decimal | None = None) -> None:
    small, large = getattr(schedule, low), getattr(schedule, high)
    not_negative(low, small)
    if small > large:
        raise ValueError(f"{low} {small} must not be above {high} {large}")
    if bound is not None and large > bound:
        raise ValueError(f"{high} {large} must not be above {bound}")


def terms_of(
    schedule: Schedule,
    quantity: Fraction,
    notional: Fraction,
    rule: Rule,
    open_interest: Fraction | None,
    *,
    floor_is_in: bool = False,
) -> Terms:
    if isinstance(schedule, TierSchedule):
        tiers = tier_terms(schedule, rule)
        if rule.tier_key == "notional":
            return tiers[tier_index(tiers, notional, floor_is_in=floor_is_in)][1]
        terms = tiers[tier_index(tiers, quantity, floor_is_in=floor_is_in)][1]
        # A deduction in contracts is a part of the rate, at any price.
        return Terms(terms.i, terms.m - terms.d / quantity if quantity else terms.m)
    if isinstance(schedule, PerContract):
        return Terms(
            Fraction(0),
            Fraction(0),
            -quantity * Fraction(schedule.maintenance_per_contract),
            quantity * Fraction(schedule.initial_per_contract),
        )
    if isinstance(schedule, SizeLinear):
        initial = Fraction(schedule.initial_base) + Fraction(schedule.initial_slope) * quantity
        base, slope = Fraction(schedule.maintenance_base), Fraction(schedule.maintenance_slope)
        maintenance = base + slope * quantity
        return Terms(min(Fraction(1), initial), min(Fraction(1), maintenance))
    if isinstance(schedule, OpenInterestScaled):
        return Terms(_scaled(schedule, open_interest), Fraction(schedule.maintenance_rate))
    initial_base = Fraction(schedule.initial_base)
    context = Context(prec=40)
    amount = to_decimal(notional, ROUND_UP, 40)
    power = Fraction(context.power(amount, schedule.power)) if notional > 0 else Fraction(0)
    rate = Fraction(schedule.factor) * power
    part = Fraction(schedule.maintenance_base) / initial_base
    return Terms(
        min(Fraction(1), max(initial_base, rate)),
        min(Fraction(1), max(Fraction(schedule.maintenance_base), part * rate)),
    )


def _scaled(schedule: OpenInterestScaled, open_interest: Fraction | None) -> Fraction:
    base = Fraction(schedule.initial_rate)
    if schedule.upper == 0:
        return base
    if open_interest is None:
        raise ValueError("open_interest is missing")
    lower, upper = Fraction(schedule.lower), Fraction(schedule.upper)
    share = min(Fraction(1), max(Fraction(0), (open_interest - lower) / (upper - lower)))
    raised = base + (1 - base) * share
    return max(base, Fraction(int(raised * _PPM), _PPM))


def moves_with_notional(schedule: Schedule, rule: Rule) -> bool:
    """Whether rates or deductions are another at another notional."""
    if isinstance(schedule, PowerLaw):
        return True
    return isinstance(schedule, TierSchedule) and rule.tier_key == "notional"


def tier_terms(schedule: TierSchedule, rule: Rule) -> list[tuple[Fraction, Terms]]:
    """Return floor and terms of each tier; with floors in contracts so are the deductions."""
    rows: list[tuple[Fraction, Terms]] = []
    deduction = below = Fraction(0)
    for tier in schedule.tiers:
        floor, rate = Fraction(tier.floor), Fraction(tier.maintenance_rate)
        deduction += floor * (rate - below)
        below = rate
        stated = deduction if tier.deduction is None else Fraction(tier.deduction)
        if rule.tier_mode == "whole":
            stated = Fraction(0)
        rows.append((floor, Terms(Fraction(tier.initial_rate), rate, stated)))
    return rows


def tier_index(
    tiers: Sequence[tuple[Fraction, Terms]], key: Fraction, *, floor_is_in: bool = False
) -> int:
    """Return the last tier whose floor is below the key, or with floor_is_in at the key."""
    index = 0
    while index + 1 < len(tiers):
        floor = tiers[index + 1][0]
        if floor > key or (floor == key and not floor_is_in):
            break
        index += 1
    return index


def is_continuous(schedule: TierSchedule, rule: Rule) -> bool:
    """Whether the requirement is convex and has no jump at a floor but for a venue's rounding."""
    tiers = tier_terms(schedule, rule)
    for (_, below), (floor, tier) in pairwise(tiers):
        jump = (tier.m - below.m) * floor - (tier.d - below.d)
        if tier.m < below.m or abs(jump) > floor * Fraction(1, 10**9):
            return False
    return True
