"""Families of margin schedules: which rates some lots and their notional have.

docs/instruments.md, "Families of schedules".
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from riskd.core.rows import ScheduleRow, Tier
from riskd.reference.numbers import BILLION, COUNT_MAX, ceil_div, fits

FAMILY_TIERED: Final = 1
FAMILY_TIERED_WHOLE: Final = 2
FAMILY_TIERED_QUANTITY: Final = 3
FAMILY_SIZE_LINEAR: Final = 4
FAMILY_PER_CONTRACT: Final = 5
FAMILY_OPEN_INTEREST: Final = 6
FAMILY_SIZE_SQRT: Final = 7
FAMILY_POWER: Final = 8
FAMILY_RISK_FACTOR: Final = 9
FAMILIES: Final = range(FAMILY_TIERED, FAMILY_RISK_FACTOR + 1)
FAMILY_OPTION_RULE: Final = 20
"""Of a row that is a rule for short options (options.py), no schedule."""
TIERED_FAMILIES: Final = (FAMILY_TIERED, FAMILY_TIERED_WHOLE, FAMILY_TIERED_QUANTITY)

CLOSING_FEE_NONE: Final = 0
CLOSING_FEE_IN_MAINTENANCE: Final = 1
CLOSING_FEE_RESERVED: Final = 2
CLOSING_FEE_AT_BANKRUPTCY: Final = 3

BASIS_MARK: Final = 1
BASIS_ENTRY: Final = 2

TIERS_MAX: Final = 32
MILLION: Final = 10**6


class Rates(NamedTuple):
    """i, m and d of some lots."""

    initial_ppb: int
    maintenance_ppb: int
    deduction: int
    initial_per_lot: int
    """Of PER_CONTRACT, in the place of i."""
    tier: int
    """Its number."""


def tier_index(schedule: ScheduleRow, measure: int | Fraction) -> int:
    """Return the largest k with f_k < N (lots, where the tiers are of lots), 0 for N = 0."""
    below = [k for k, tier in enumerate(schedule.tiers) if tier.floor < measure]
    return max(below, default=0)


def rates_of(
    schedule: ScheduleRow,
    scale: int,
    open_interest: int,
    sign: int,
    lots: int,
    notional: int | Fraction,
) -> Rates:
    """Return the rates of lots on a side (1 long, -1 short) that are worth a notional.

    scale is that of the settlement asset. open_interest is the notional of that of the instrument,
    0 if it is not known.
    """
    by_lots = schedule.family == FAMILY_TIERED_QUANTITY
    index = tier_index(schedule, lots if by_lots else notional)
    tier = schedule.tiers[index]
    a, b, c = schedule.parameter_a, schedule.parameter_b, schedule.parameter_c
    initial, maintenance = tier.initial_rate_ppb, tier.maintenance_rate_ppb
    deduction, initial_per_lot = tier.deduction, 0
    if schedule.family == FAMILY_SIZE_LINEAR:
        initial += ceil_div(a * lots, MILLION)
        maintenance += ceil_div(b * lots, MILLION)
    elif schedule.family == FAMILY_PER_CONTRACT:
        initial_per_lot = a
        deduction = -b * lots
    elif schedule.family == FAMILY_OPEN_INTEREST:
        if open_interest != 0 and b != 0:
            share = max(Fraction(0), min(Fraction(1), Fraction(open_interest - a, b - a)))
            initial += math.floor((BILLION - initial) * share / 1000) * 1000
    elif schedule.family == FAMILY_SIZE_SQRT:
        by_size = ceil_div(a * math.isqrt(lots * c), MILLION)
        initial = max(initial, ceil_div(8 * initial, 10) + by_size)
        maintenance = max(maintenance, ceil_div(8 * maintenance, 10) + by_size)
    elif schedule.family == FAMILY_POWER:
        rate = min(BILLION, power_rate(a, b, scale, notional))
        maintenance = max(maintenance, ceil_div(rate * maintenance, initial))
        initial = max(initial, rate)
    elif schedule.family == FAMILY_RISK_FACTOR:
        factor = a if sign < 0 else maintenance
        maintenance = factor + ceil_div(b * lots, MILLION)
        maintenance = min(maintenance, maintenance_max(schedule))
        initial = ceil_div(maintenance * c, BILLION)
    return Rates(
        min(BILLION, initial),
        min(maintenance_max(schedule), maintenance),
        deduction,
        initial_per_lot,
        index,
    )


def maintenance_max(schedule: ScheduleRow) -> int:
    """Return the largest maintenance rate: with the liquidation fee it stays below 1."""
    return BILLION - 1 - schedule.liquidation_fee_ppb


def power_rate(a: int, b: int, scale: int, notional: int | Fraction) -> int:
    """Return r of POWER in ppb. In doubles by definition, so that both engines round alike."""
    return math.ceil(a / 1e9 * math.pow(int(notional) / 10.0**scale, b / 1e9))


# --- Definitions ----------------------------------------------------------------------------------


def has_valid_parameters(schedule: ScheduleRow) -> bool:
    """Return whether a, b and c are inside the bounds of the family; 0 where it has none."""
    a, b, c = schedule.parameter_a, schedule.parameter_b, schedule.parameter_c
    if schedule.family == FAMILY_TIERED_QUANTITY:
        return (a == 0 or schedule.tiers[-1].floor < a <= COUNT_MAX) and (b, c) == (0, 0)
    if schedule.family in TIERED_FAMILIES:
        return (a, b, c) == (0, 0, 0)
    if schedule.family == FAMILY_SIZE_LINEAR:
        return 0 <= a <= 10**15 and 0 <= b <= 10**15 and c == 0
    if schedule.family == FAMILY_PER_CONTRACT:
        return 0 <= b < a <= COUNT_MAX and c == 0
    if schedule.family == FAMILY_OPEN_INTEREST:
        return ((a, b) == (0, 0) or 0 <= a < b) and c == 0
    if schedule.family == FAMILY_SIZE_SQRT:
        return 0 <= a <= 10**15 and b == 0 and 0 <= c <= 10**15
    if schedule.family == FAMILY_POWER:
        return 1 <= a <= 10**18 and 1 <= b <= BILLION and c == 0
    bounds = 1 <= a <= maintenance_max(schedule), 0 <= b <= 10**15, BILLION < c <= 10**12
    return all(bounds)


def has_valid_closing_fee(schedule: ScheduleRow) -> bool:
    if schedule.closing_fee in (CLOSING_FEE_RESERVED, CLOSING_FEE_AT_BANKRUPTCY):
        # What is put aside at entry stays as it is, and so does the requirement that it is part of.
        is_fixed = schedule.maintenance_basis == BASIS_ENTRY and schedule.liquidation_fee_ppb == 0
        return is_fixed and schedule.family in TIERED_FAMILIES
    return schedule.closing_fee in (CLOSING_FEE_NONE, CLOSING_FEE_IN_MAINTENANCE)


def has_valid_first_tier(schedule: ScheduleRow) -> bool:
    """Return whether the one tier of a family without tiers is as the family wants it."""
    if len(schedule.tiers) != 1:
        return False
    tier = schedule.tiers[0]
    if schedule.family == FAMILY_PER_CONTRACT:
        return (tier.initial_rate_ppb, tier.maintenance_rate_ppb) == (0, 0)
    if schedule.family == FAMILY_POWER and tier.initial_rate_ppb == 0:
        return False
    if schedule.family == FAMILY_RISK_FACTOR:
        long_rate = ceil_div(tier.maintenance_rate_ppb * schedule.parameter_c, BILLION)
        short_rate = ceil_div(schedule.parameter_a * schedule.parameter_c, BILLION)
        most = max(Fraction(min(BILLION, short_rate)), Fraction(100 * BILLION, tier.leverage_max))
        return (
            tier.initial_rate_ppb == min(BILLION, long_rate)
            and most > schedule.parameter_a + schedule.liquidation_fee_ppb
        )
    return True


def tier_ladder(
    family: int, tiers: Sequence[tuple[int, int, int, int]], liquidation_fee_ppb: int
) -> tuple[Tier, ...] | None:
    """Return the tiers with their deductions, None if the definition is not valid."""
    if not 1 <= len(tiers) <= TIERS_MAX or not 0 <= liquidation_fee_ppb < BILLION:
        return None
    ladder: list[Tier] = []
    for floor_k, initial_k, maintenance_k, leverage_k in tiers:
        if not 0 <= initial_k <= BILLION or not 100 <= leverage_k <= 100_000:
            return None
        least = 0 if family == FAMILY_PER_CONTRACT else 1
        if not least <= maintenance_k < BILLION - liquidation_fee_ppb:
            return None
        at_most_leverage = max(Fraction(initial_k), Fraction(100 * BILLION, leverage_k))
        if family != FAMILY_PER_CONTRACT and (
            at_most_leverage <= maintenance_k + liquidation_fee_ppb
        ):
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
            if family == FAMILY_TIERED:
                deduction = last.deduction + Fraction(floor_k * rise, BILLION)
        if deduction.denominator != 1 or not fits(floor_k, deduction.numerator):
            return None
        if family == FAMILY_TIERED_QUANTITY and floor_k > COUNT_MAX:
            return None
        ladder.append(Tier(floor_k, initial_k, maintenance_k, deduction.numerator, leverage_k))
    return tuple(ladder)
