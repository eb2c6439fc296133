"""What an order would do and how large one may be, and what can be withdrawn.

Quantities are signed units of the underlying, prices quote currency per unit, notionals and money
quote currency, rates fractions. Arguments broadcast; scalars give floats. What is out of its bound
is a ValueError that names field, value, bound and element.

These are the estimates that a venue shows before an order: Orderly's, whose rates are those of
riskd/margin/power.py (OrderlyNetwork/js-sdk@0d1ae776 packages/perp, order.ts and account).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from riskd.margin.arrays import (
    ABOVE_ZERO,
    FINITE,
    FROM_ZERO,
    Field,
    Figure,
    floats,
    overflow_is_checked,
    within,
)
from riskd.margin.power import POWER, IsolatedPosition, power_rate

Side = Literal["buy", "sell"]

# What an estimate of the largest order leaves free.
SAFETY = 0.995
# The part of an isolated order's notional that is kept for fees.
FEE_BUFFER = 0.0006
# What a withdrawal leaves beside another asset's weight while the settlement balance is negative.
NEGATIVE_BALANCE_BUFFER = 0.002


@overflow_is_checked
def gross_notional(quantity: ArrayLike, price: ArrayLike, rate: ArrayLike = 1.0) -> Figure:
    """Return the sum of |quantity| * price * rate over the last axis; no positions give 0."""
    numbers = floats(
        Field("quantity", quantity, FINITE),
        Field("price", price, ABOVE_ZERO),
        Field("rate", rate, FROM_ZERO),
    )
    if numbers.shape == ():
        raise ValueError("quantity has no positions: it must be an array")
    numbers.require()
    quantities, prices, rates = numbers.arrays
    parts = (np.abs(quantities) * prices * rates).reshape(numbers.shape)
    total = parts.sum(axis=-1)
    if not np.isfinite(total).all():
        raise ValueError("the sum of notionals is too large")
    return float(total) if len(numbers.shape) == 1 else total


@overflow_is_checked
def account_rate(notional: ArrayLike, margin: ArrayLike) -> Figure:
    """Return margin / notional, an account's rate. Raises ValueError without a notional."""
    numbers = floats(Field("notional", notional, ABOVE_ZERO), Field("margin", margin, FROM_ZERO))
    numbers.require()
    notionals, margins = numbers.arrays
    return numbers.computed(margins / notionals)


@overflow_is_checked
def order_fee(quantity: ArrayLike, price: ArrayLike, rate: ArrayLike) -> Figure:
    """Return |quantity| * price * rate."""
    numbers = floats(
        Field("quantity", quantity, FINITE),
        Field("price", price, ABOVE_ZERO),
        Field("rate", rate, FROM_ZERO),
    )
    numbers.require()
    quantities, prices, rates = numbers.arrays
    return numbers.computed(np.abs(quantities) * prices * rates)


@overflow_is_checked
def account_leverage(collateral: ArrayLike, notional: ArrayLike) -> Figure:
    """Return notional / collateral. Raises ValueError if collateral is not above 0."""
    numbers = floats(
        Field("collateral", collateral, ABOVE_ZERO), Field("notional", notional, FROM_ZERO)
    )
    numbers.require()
    money, notionals = numbers.arrays
    return numbers.computed(notionals / money)


@overflow_is_checked
def leverage_after_order(
    collateral: ArrayLike,
    other_notional: ArrayLike,
    position_quantity: ArrayLike,
    mark_price: ArrayLike,
    order_quantity: ArrayLike,
    order_price: ArrayLike,
) -> Figure:
    """Return (|q P + o R| + the other positions' notional) / collateral.

    The position q of the order's instrument is at its mark P, the signed order o at its own price
    R. Raises ValueError if collateral is not above 0.
    """
    numbers = floats(
        Field("collateral", collateral, ABOVE_ZERO),
        Field("other_notional", other_notional, FROM_ZERO),
        Field("position_quantity", position_quantity, FINITE),
        Field("mark_price", mark_price, ABOVE_ZERO),
        Field("order_quantity", order_quantity, FINITE),
        Field("order_price", order_price, ABOVE_ZERO),
    )
    numbers.require()
    money, others, held, marks, ordered, prices = numbers.arrays
    return numbers.computed((np.abs(held * marks + ordered * prices) + others) / money)


@overflow_is_checked
def liquidation_price_after_order(
    position_quantity: ArrayLike,
    mark_price: ArrayLike,
    position_rate: ArrayLike,
    order_quantity: ArrayLike,
    order_price: ArrayLike,
    order_fee: ArrayLike,
    collateral: ArrayLike,
    other_maintenance: ArrayLike,
    reference_price: ArrayLike,
    base_rate: ArrayLike,
    factor: ArrayLike,
    power: ArrayLike = POWER,
) -> Figure:
    """Return the estimate of a cross liquidation price after an order, 0 at the least.

        ref + (collateral - fee - others - r |q P + o R|) / (|q + o| m - (q + o))

    The position q is at its mark P and has the rate r it has now, the order o is at its price R, m
    is the rate of both together, and ref is reference_price: the mark, or the order's price where
    there is no position. The order's profit or loss against the mark is left out, as in the
    venue's preview. 0 too where q + o is 0.
    """
    numbers = floats(
        Field("position_quantity", position_quantity, FINITE),
        Field("mark_price", mark_price, ABOVE_ZERO),
        Field("position_rate", position_rate, FROM_ZERO),
        Field("order_quantity", order_quantity, FINITE),
        Field("order_price", order_price, ABOVE_ZERO),
        Field("order_fee", order_fee, FROM_ZERO),
        Field("collateral", collateral, FINITE),
        Field("other_maintenance", other_maintenance, FROM_ZERO),
        Field("reference_price", reference_price, ABOVE_ZERO),
        Field("base_rate", base_rate, within(0.0, 1.0)),
        Field("factor", factor, FROM_ZERO),
        Field("power", power, ABOVE_ZERO),
    )
    numbers.require()
    (
        held,
        marks,
        rates,
        ordered,
        prices,
        fees,
        money,
        others,
        references,
        base,
        factors,
        powers,
    ) = numbers.arrays
    notional = np.abs(held * marks + ordered * prices)
    rate = np.asarray(power_rate(notional, base, factors, powers))
    quantity = held + ordered
    room = np.abs(quantity) * rate - quantity
    gap = money - fees - others - rates * notional
    open_end = room == 0
    price = references + gap / np.where(open_end, 1.0, room)
    return numbers.computed(np.where(open_end, 0.0, np.maximum(price, 0.0)))


@overflow_is_checked
def isolated_after_order(
    position: IsolatedPosition,
    order_quantity: ArrayLike,
    order_price: ArrayLike,
    leverage: ArrayLike,
    fee_buffer: ArrayLike = FEE_BUFFER,
) -> IsolatedPosition:
    """Return an isolated position after a signed order fills at its price.

    What adds brings its notional * (1 / leverage + fee_buffer) as margin. What reduces takes margin
    out in proportion. What turns the position over leaves the rest with fresh margin.
    """
    numbers = floats(
        Field("position.quantity", position.quantity, FINITE),
        Field("position.cost", position.cost, FINITE),
        Field("position.margin", position.margin, FINITE),
        Field("order_quantity", order_quantity, FINITE),
        Field("order_price", order_price, ABOVE_ZERO),
        Field("leverage", leverage, ABOVE_ZERO),
        Field("fee_buffer", fee_buffer, FROM_ZERO),
    )
    numbers.require()
    held, cost, margin, ordered, prices, leverages, buffers = numbers.arrays
    rate = 1.0 / leverages + buffers
    after = held + ordered
    adds = held * ordered >= 0
    turns = held * after < 0
    left = np.divide(after, held, out=np.zeros_like(held), where=held != 0)
    quantity_cost = np.where(turns, after * prices, cost + ordered * prices)
    margins = np.where(
        adds,
        margin + np.abs(ordered) * prices * rate,
        np.where(turns, np.abs(after) * prices * rate, margin * left),
    )
    return IsolatedPosition(
        numbers.computed(after), numbers.computed(quantity_cost), numbers.computed(margins)
    )


@overflow_is_checked
def max_order_cross(
    side: Side,
    mark_price: ArrayLike,
    collateral: ArrayLike,
    other_initial: ArrayLike,
    initial_rate: ArrayLike,
    fee_rate: ArrayLike,
    position_quantity: ArrayLike = 0.0,
    same_side_orders: ArrayLike = 0.0,
    *,
    factor: ArrayLike = 0.0,
    power: ArrayLike = POWER,
    safety: ArrayLike = SAFETY,
    quantity_max: ArrayLike | None = None,
) -> Figure:
    """Return the largest order that free collateral allows, 0 at the least.

        (collateral - others) / (mark * (rate + 2 fee)) * safety -/+ position - orders
        (((collateral - others) / factor)^(1 / (1 + power)) / mark -/+ position - orders)
            / (1 + 2 fee) * safety          with a factor, and a position or orders

    The smaller of the two, and of quantity_max. initial_rate is max(1 / leverage, base rate);
    same_side_orders the quantity of working orders on the order's side. The position is taken off
    for a buy and added for a sell.
    """
    numbers = floats(
        Field("mark_price", mark_price, ABOVE_ZERO),
        Field("collateral", collateral, FROM_ZERO),
        Field("other_initial", other_initial, FROM_ZERO),
        Field("initial_rate", initial_rate, ABOVE_ZERO),
        Field("fee_rate", fee_rate, FROM_ZERO),
        Field("position_quantity", position_quantity, FINITE),
        Field("same_side_orders", same_side_orders, FROM_ZERO),
        Field("factor", factor, FROM_ZERO),
        Field("power", power, ABOVE_ZERO),
        Field("safety", safety, within(0.0, 1.0)),
        # Without a bound any quantity will do here: it does not count.
        Field("quantity_max", 0.0 if quantity_max is None else quantity_max, FROM_ZERO),
    )
    numbers.require()
    marks, money, others, rates, fees, held, orders, factors, powers, part, most = numbers.arrays
    used = _signed(side) * held + orders
    free = money - others
    largest = free / (rates + 2.0 * fees) / marks * part - used
    scaled = np.divide(free, factors, out=np.full_like(free, np.inf), where=factors > 0)
    kinked = np.maximum(scaled, 0.0) ** (1.0 / (1.0 + powers)) / marks
    by_power = (kinked - used) / (1.0 + 2.0 * fees) * part
    counts = (factors > 0) & ((held != 0) | (orders != 0))
    largest = np.where(counts, np.minimum(largest, by_power), largest)
    if quantity_max is not None:
        largest = np.minimum(largest, most)
    return numbers.computed(np.maximum(largest, 0.0))


@overflow_is_checked
def max_order_isolated(
    side: Side,
    price: ArrayLike,
    available: ArrayLike,
    leverage: ArrayLike,
    *,
    factor: ArrayLike = 0.0,
    power: ArrayLike = POWER,
    mark_price: ArrayLike | None = None,
    position_quantity: ArrayLike = 0.0,
    pending_notional: ArrayLike = 0.0,
    frozen: ArrayLike = 0.0,
    notional_max: ArrayLike | None = None,
    fee_buffer: ArrayLike = FEE_BUFFER,
    safety: ArrayLike = SAFETY,
) -> Figure:
    """Return the largest isolated order that the available money allows, 0 at the least.

    With r = 1 / leverage + fee_buffer and the bound B = min((leverage * factor)^(-1/power),
    notional_max) on the notional of the position, an order that adds is the smaller of

        available / (price r) * safety
        (B - |position| * mark - pending) / price

    and one against the position, which frees nothing beforehand, the smaller of

        ((available + frozen) / r - pending) / price
        B / price + |position|

    pending_notional and frozen are of working orders on the order's side. mark_price is by default
    the price. The venue finds the second pair by bisection; these are its exact bounds.
    """
    numbers = floats(
        Field("price", price, ABOVE_ZERO),
        Field("available", available, FROM_ZERO),
        Field("leverage", leverage, ABOVE_ZERO),
        Field("factor", factor, FROM_ZERO),
        Field("power", power, ABOVE_ZERO),
        Field("mark_price", price if mark_price is None else mark_price, ABOVE_ZERO),
        Field("position_quantity", position_quantity, FINITE),
        Field("pending_notional", pending_notional, FROM_ZERO),
        Field("frozen", frozen, FROM_ZERO),
        Field("notional_max", 0.0 if notional_max is None else notional_max, FROM_ZERO),
        Field("fee_buffer", fee_buffer, FROM_ZERO),
        Field("safety", safety, within(0.0, 1.0)),
    )
    numbers.require()
    prices, free, leverages, factors, powers, marks, held, pending, froze, most, buffers, part = (
        numbers.arrays
    )
    rate = 1.0 / leverages + buffers
    growth = leverages * factors
    inverse = np.divide(1.0, growth, out=np.full_like(growth, np.inf), where=growth > 0)
    bound = inverse ** (1.0 / powers)
    if notional_max is not None:
        bound = np.minimum(bound, most)
    size = np.abs(held)
    adding = np.minimum(free / rate / prices * part, (bound - size * marks - pending) / prices)
    turning = np.minimum(((free + froze) / rate - pending) / prices, bound / prices + size)
    against = _signed(side) * held < 0
    return numbers.computed(np.maximum(np.where(against, turning, adding), 0.0))


def _signed(side: str) -> float:
    if side not in get_args(Side):
        raise ValueError(f"side {side!r} is not one of {', '.join(get_args(Side))}")
    return 1.0 if side == "buy" else -1.0


@overflow_is_checked
def max_withdrawal(
    balance: ArrayLike, free_collateral: ArrayLike, unrealised_pnl: ArrayLike
) -> Figure:
    """Return max(0, min(balance, free_collateral - max(unrealised_pnl, 0))).

    Unrealised profit cannot leave; unrealised loss is already off free collateral.
    """
    numbers = floats(
        Field("balance", balance, FINITE),
        Field("free_collateral", free_collateral, FINITE),
        Field("unrealised_pnl", unrealised_pnl, FINITE),
    )
    numbers.require()
    balances, free, profit = numbers.arrays
    amount = np.minimum(balances, free - np.maximum(profit, 0.0))
    return numbers.computed(np.maximum(amount, 0.0))


@overflow_is_checked
def max_withdrawal_of_asset(
    quantity: ArrayLike,
    free_collateral: ArrayLike,
    index_price: ArrayLike,
    weight: ArrayLike,
    balance: ArrayLike = 0.0,
    negative_balance_buffer: ArrayLike = NEGATIVE_BALANCE_BUFFER,
) -> Figure:
    """Return min(quantity, free_collateral / (index_price * weight)) of another asset.

    While the settlement balance is below 0 the divisor is larger by the buffer. 0 where the asset
    has no value or weight, and where nothing is free.
    """
    numbers = floats(
        Field("quantity", quantity, FROM_ZERO),
        Field("free_collateral", free_collateral, FINITE),
        Field("index_price", index_price, FROM_ZERO),
        Field("weight", weight, FROM_ZERO),
        Field("balance", balance, FINITE),
        Field("negative_balance_buffer", negative_balance_buffer, FROM_ZERO),
    )
    numbers.require()
    quantities, free, prices, weights, balances, buffers = numbers.arrays
    worth = prices * weights * np.where(balances < 0, 1.0 + buffers, 1.0)
    covered = np.divide(free, worth, out=np.zeros_like(worth), where=worth > 0)
    return numbers.computed(np.maximum(np.minimum(quantities, covered), 0.0))
