"""Margin of options as the most that they can lose: of a portfolio at expiry, of naked shorts.

Quantities are signed: above 0 long, below 0 short. Strikes and spot prices are quote currency per
unit. Cash is quote currency, coin is units of the underlying.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from riskd.core import option_margin as core
from riskd.margin.arrays import (
    ABOVE_ZERO,
    FINITE,
    FROM_ZERO,
    Field,
    Figure,
    Kinds,
    above,
    calls,
    flags,
    floats,
    overflow_is_checked,
    within,
)
from riskd.margin.options import Settlement


def max_loss_at_expiry(
    option_type: Kinds,
    strike: ArrayLike,
    quantity: ArrayLike,
    *,
    settlement: Settlement = "cash",
) -> Figure:
    """Return the largest loss of options of one expiry over all prices at that expiry, 0 or more.

    The last axis holds the legs of a portfolio, and is gone in the result; a leg with quantity 0 is
    none. inf where the loss has no end: net short calls in cash, net short puts in coin. What the
    legs cost or brought is no part of it.
    The loss is piecewise linear in the price (in coin: in its inverse), so that it is largest at 0
    or at a strike. Of one short and one long of a kind it is a margin of Opyn's: GammaProtocol
    @841f81d9 contracts/core/MarginCalculator.sol.
    Raises ValueError if there are no legs.
    """
    if settlement not in ("cash", "coin"):
        raise ValueError(f"settlement {settlement!r} is not one of cash, coin")
    is_call = calls(option_type)
    numbers = floats(
        Field("strike", strike, ABOVE_ZERO), Field("quantity", quantity, FINITE), kinds=is_call
    )
    shape = numbers.shape
    if shape == () or shape[-1] == 0:
        raise ValueError("quantity has no legs")
    legs = (-1, shape[-1])
    strikes, quantities = (array.reshape(legs) for array in numbers.arrays)
    is_put = (1 - flags(is_call, shape)).astype(np.uint8).reshape(legs)
    out = np.empty(is_put.shape[0])
    numbers.check(core.max_loss_arrays(is_put, strikes, quantities, settlement == "coin", out))
    return float(out[0]) if len(shape) == 1 else out.reshape(shape[:-1])


@overflow_is_checked
def excess_collateral(collateral: ArrayLike, requirement: ArrayLike) -> Figure:
    """Return collateral - requirement: above 0 it can be taken out, below 0 it is missing."""
    numbers = floats(
        Field("collateral", collateral, FINITE), Field("requirement", requirement, FROM_ZERO)
    )
    numbers.require()
    have, need = numbers.arrays
    return numbers.computed(have - need)


@dataclass(frozen=True, slots=True)
class UpperBounds:
    """The largest value of an option over its strike, by the time left, in days.

    days rise; a time between two counts as the later. Raises ValueError if they do not rise, or
    there are not as many values, or a value is not within 0 to 1.
    """

    days: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.days or len(self.days) != len(self.values):
            raise ValueError(f"days and values: {len(self.days)} and {len(self.values)}")
        for before, after in pairwise((0.0, *self.days)):
            if not before < after < math.inf:
                raise ValueError(f"days: {after} is not above {before} and finite")
        for value in self.values:
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"values: {value} must be 0 to 1")

    def at(self, days_left: ArrayLike) -> Figure:
        """Return the value of the first time that is not earlier.

        Raises ValueError for a time beyond the last.
        """
        numbers = floats(Field("days_left", days_left, above(0.0, self.days[-1])))
        numbers.require()
        places = np.searchsorted(np.array(self.days), numbers.arrays[0], side="left")
        return numbers.shaped(np.array(self.values)[places])


# GammaProtocol@841f81d9 test/unit-tests/marginCalculatorNakedMargin.test.ts: of one product, by
# weeks 1, 2, 4, 6 and 8.
OPYN_UPPER_BOUNDS = UpperBounds(
    (7.0, 14.0, 28.0, 42.0, 56.0), (0.1678, 0.2370, 0.3326, 0.4032, 0.4603)
)


def naked_option_margin(
    option_type: Kinds,
    quantity: ArrayLike,
    strike: ArrayLike,
    spot: ArrayLike,
    upper_bound: ArrayLike,
    spot_shock: ArrayLike = 0.75,
) -> Figure:
    """Return the margin of naked shorts, 0 of longs: of puts in cash, of calls in coin.

        put   u min(K, s S) + max(K - s S, 0)
        call  u min(1, s K / S) + max(1 - s K / S, 0)

    u is upper_bound, the largest value of such an option at its strike as a part of the strike
    (UpperBounds), s the part to which the price may fall, or whose inverse it may rise to, before a
    liquidation. Source: GammaProtocol@841f81d9 contracts/core/MarginCalculator.sol.
    """
    is_call = calls(option_type)
    numbers = floats(
        Field("quantity", quantity, FINITE),
        Field("strike", strike, ABOVE_ZERO),
        Field("spot", spot, ABOVE_ZERO),
        Field("upper_bound", upper_bound, within(0.0, 1.0)),
        Field("spot_shock", spot_shock, above(0.0, 1.0)),
        kinds=is_call,
    )
    return numbers.shaped(numbers.ask(core.naked_arrays, flags(is_call, numbers.shape)))
