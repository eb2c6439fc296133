"""Margin whose rate grows with a power of the notional: rates and liquidation prices.

Quantities are signed units of the underlying, prices quote currency per unit, notionals and money
quote currency, rates fractions. Arguments broadcast; scalars give floats. What is out of its bound
is a ValueError that names field, value, bound and element.

    rate         m(N) = max(base, factor N^power)        of maintenance: factor b_m / b_i
    maintenance  N m(N)

The venue is Orderly: its documents on margin and OrderlyNetwork/js-sdk@0d1ae776 packages/perp.
What it asks of orders is in riskd/margin/previews.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from riskd.core import power_margin as core
from riskd.margin.arrays import (
    ABOVE_ZERO,
    FINITE,
    FROM_ZERO,
    NOT_ZERO,
    Field,
    Figure,
    floats,
    overflow_is_checked,
)

# Orderly's exponent.
POWER = 0.8


def power_rate(
    notional: ArrayLike,
    base_rate: ArrayLike,
    factor: ArrayLike,
    power: ArrayLike = POWER,
) -> Figure:
    """Return max(base_rate, factor * notional ** power)."""
    numbers = floats(
        Field("notional", notional, FROM_ZERO),
        Field("base_rate", base_rate, FROM_ZERO),
        Field("factor", factor, FROM_ZERO),
        Field("power", power, ABOVE_ZERO),
    )
    return numbers.shaped(numbers.ask(core.rate_arrays))


def power_maintenance_rate(
    notional: ArrayLike,
    base_maintenance_rate: ArrayLike,
    base_initial_rate: ArrayLike,
    factor: ArrayLike,
    power: ArrayLike = POWER,
) -> Figure:
    """Return max(b_m, b_m / b_i * factor * notional ** power), factor that of the initial rate."""
    return power_rate(
        notional,
        base_maintenance_rate,
        maintenance_factor(base_maintenance_rate, base_initial_rate, factor),
        power,
    )


@overflow_is_checked
def maintenance_factor(
    base_maintenance_rate: ArrayLike, base_initial_rate: ArrayLike, factor: ArrayLike
) -> Figure:
    """Return the factor of the maintenance rate, b_m / b_i * factor."""
    numbers = floats(
        Field("base_maintenance_rate", base_maintenance_rate, FROM_ZERO),
        Field("base_initial_rate", base_initial_rate, ABOVE_ZERO),
        Field("factor", factor, FROM_ZERO),
    )
    numbers.require()
    maintenance, initial, factors = numbers.arrays
    return numbers.computed(maintenance / initial * factors)


@overflow_is_checked
def power_initial_rate(
    notional: ArrayLike,
    base_initial_rate: ArrayLike,
    factor: ArrayLike,
    max_leverage: ArrayLike,
    power: ArrayLike = POWER,
) -> Figure:
    """Return max(1 / max_leverage, b_i, factor * notional ** power), max_leverage the account's."""
    numbers = floats(
        Field("max_leverage", max_leverage, ABOVE_ZERO),
        Field("base_initial_rate", base_initial_rate, FROM_ZERO),
    )
    numbers.require()
    leverage, base = numbers.arrays
    return power_rate(notional, numbers.computed(np.maximum(1.0 / leverage, base)), factor, power)


def power_liquidation_price(
    quantity: ArrayLike,
    mark_price: ArrayLike,
    collateral: ArrayLike,
    other_maintenance: ArrayLike,
    base_rate: ArrayLike,
    factor: ArrayLike,
    power: ArrayLike = POWER,
) -> Figure:
    """Return the price at which the pool's collateral equals its maintenance, at that price's rate.

    collateral is at the mark and with all unrealised profit, other_maintenance that of the other
    positions, which stay at their marks; base_rate and factor are of maintenance.
    nan: the position cannot be liquidated. inf of a long and 0 of a short: it can at every price.
    """
    numbers = floats(
        Field("quantity", quantity, NOT_ZERO),
        Field("mark_price", mark_price, ABOVE_ZERO),
        Field("collateral", collateral, FINITE),
        Field("other_maintenance", other_maintenance, FROM_ZERO),
        Field("base_rate", base_rate, FROM_ZERO),
        Field("factor", factor, FROM_ZERO),
        Field("power", power, ABOVE_ZERO),
    )
    return numbers.shaped(numbers.ask(core.liquidation_price_arrays))


@dataclass(frozen=True, slots=True)
class IsolatedPosition:
    """A signed quantity, its cost (quantity times entry price, signed) and its own margin."""

    quantity: Figure
    cost: Figure
    margin: Figure


@overflow_is_checked
def power_isolated_liquidation_price(
    position: IsolatedPosition,
    reference_price: ArrayLike,
    base_rate: ArrayLike,
    factor: ArrayLike,
    *,
    funding: ArrayLike = 0.0,
    funding_settled: ArrayLike = 0.0,
    power: ArrayLike = POWER,
) -> Figure:
    """Return (margin - cost - q * due) / (|q| m - q), m the rate at the reference price.

    due is funding, what one unit has run up in all, less funding_settled, the same at the last
    settlement. base_rate and factor are of maintenance. nan: the position cannot be liquidated, or
    there is none.
    """
    numbers = floats(
        Field("position.quantity", position.quantity, FINITE),
        Field("position.cost", position.cost, FINITE),
        Field("position.margin", position.margin, FINITE),
        Field("reference_price", reference_price, ABOVE_ZERO),
        Field("base_rate", base_rate, FROM_ZERO),
        Field("factor", factor, FROM_ZERO),
        Field("funding", funding, FINITE),
        Field("funding_settled", funding_settled, FINITE),
        Field("power", power, ABOVE_ZERO),
    )
    numbers.require()
    held, cost, margin, prices, base, factors, fundings, settled, powers = numbers.arrays
    size = np.abs(held)
    rate = np.asarray(power_rate(size * prices, base, factors, powers))
    room = size * rate - held
    none = room == 0
    price = (margin - cost - held * (fundings - settled)) / np.where(none, 1.0, room)
    numbers.computed(price)
    return numbers.shaped(np.where(none | (price <= 0), np.nan, price))
