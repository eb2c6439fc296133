"""Margin by a risk factor for each side: four levels, orders by side, isolated transfers.

Volumes are signed units, prices quote currency per unit; money of the functions on doubles is quote
currency, that of the integer ones the settlement asset's smallest unit, as on the chain. What is
out of its bound is a ValueError that names field, value, bound and element.

    maintenance  P (lin |V| + quad V^2 + rf |V|) + max(0, V funding)
    long rf      1 - e^(mu tau) / lambda N(N^-1(lambda) - sigma sqrt(tau))
    short rf     e^(mu tau) / lambda N(sigma sqrt(tau) - N^-1(1 - lambda)) - 1

The venue is Vega: vegaprotocol/specs 0019-MCAL and 0018-RSKM, vega@a50750cc core/risk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from riskd.core import integer_margin as core
from riskd.margin.arrays import (
    ABOVE_ZERO,
    FINITE,
    FROM_ZERO,
    Bound,
    Field,
    Figure,
    Whole,
    floats,
    integers,
    overflow_is_checked,
)
from riskd.margin.decimals import Number, not_negative, units

TransferDirection = Literal["to_margin", "release", "none"]

_FACTOR_PLACES = 9
_FACTOR_ONE = 1_000_000_000
_FACTOR_MAX = 1000 * _FACTOR_ONE
_POSITION_FACTOR_MAX = 10**9
_LEVEL_PLACES = 5
_LEVEL_ONE = 100_000
_LEVEL_FACTOR_MAX = 10_000 * _LEVEL_ONE
# The largest level is below 2^63 at the largest factor.
_LEVEL_BASE = Bound("must be 0 to 2^49", 0, 2.0**49)
_ANY = Bound("must fit 64 bits")
_FLAG = Bound("must be 0 or 1", 0, 1)
_WHOLE_FROM_ZERO = Bound("must not be below 0", low=0)


@dataclass(frozen=True, slots=True)
class RiskFactors:
    """The parts of the notional that a long and a short need."""

    long: float
    short: float


def lognormal_risk_factors(
    risk_aversion: float, time_years: float, drift: float, volatility: float
) -> RiskFactors:
    """Return the expected shortfalls of a lognormal price at the level risk_aversion.

    time_years is the horizon tau, drift mu and volatility sigma are per year; risk_aversion lambda
    is within 0 and 1, and the smaller it is, the larger are the factors.
    Source: vegaprotocol/specs 0018-RSKM; the quantmodel of vega@a50750cc core/risk/models.
    """
    if not 0.0 < risk_aversion < 1.0:
        raise ValueError(f"risk_aversion {risk_aversion} must be above 0 and below 1")
    for name, value in (("time_years", time_years), ("volatility", volatility)):
        if not (math.isfinite(value) and value > 0.0):
            raise ValueError(f"{name} {value} must be finite and above 0")
    if not math.isfinite(drift):
        raise ValueError(f"drift {drift} must be finite")
    # N^-1(1 - lambda) is -N^-1(lambda), which keeps its digits where 1 - lambda loses them.
    quantile = NormalDist().inv_cdf(risk_aversion)
    deviation = volatility * math.sqrt(time_years)
    try:
        growth = math.exp(drift * time_years) / risk_aversion
    except OverflowError:
        raise ValueError(f"drift {drift} over {time_years} years is too large") from None
    return RiskFactors(
        long=1.0 - growth * _normal(quantile - deviation),
        short=growth * _normal(quantile + deviation) - 1.0,
    )


def _normal(value: float) -> float:
    """Return N(value), to the last digits in the tails too."""
    return 0.5 * math.erfc(-value / math.sqrt(2.0))


@dataclass(frozen=True, slots=True)
class Slippage:
    """What leaving a position may cost: parts of its value by |V| and by V^2."""

    linear: ArrayLike = 0.0
    quadratic: ArrayLike = 0.0


@overflow_is_checked
def risk_factor_maintenance(
    mark_price: ArrayLike,
    volume: ArrayLike,
    factor_long: ArrayLike,
    factor_short: ArrayLike,
    slippage: Slippage,
    *,
    buy_volume: ArrayLike = 0.0,
    sell_volume: ArrayLike = 0.0,
    funding_per_unit: ArrayLike = 0.0,
    exit_slippage_per_unit: ArrayLike | None = None,
) -> Figure:
    """Return the larger maintenance of the riskiest long and the riskiest short.

    A side's open volume needs its slippage and its risk factor, its working orders the risk factor
    alone. Slippage is at most exit_slippage_per_unit a unit, what the book says that closing costs,
    where that is known. Funding that is due is added, funding to come is not taken off.
    """
    numbers = floats(
        Field("mark_price", mark_price, ABOVE_ZERO),
        Field("volume", volume, FINITE),
        Field("factor_long", factor_long, FROM_ZERO),
        Field("factor_short", factor_short, FROM_ZERO),
        Field("slippage.linear", slippage.linear, FROM_ZERO),
        Field("slippage.quadratic", slippage.quadratic, FROM_ZERO),
        Field("buy_volume", buy_volume, FROM_ZERO),
        Field("sell_volume", sell_volume, FROM_ZERO),
        Field("funding_per_unit", funding_per_unit, FINITE),
        # Without it nothing bounds the slippage, and any number will do here.
        Field(
            "exit_slippage_per_unit",
            0.0 if exit_slippage_per_unit is None else exit_slippage_per_unit,
            FROM_ZERO,
        ),
    )
    numbers.require()
    marks, held, longs, shorts, linear, quadratic, buys, sells, fundings, exits = numbers.arrays
    size = np.abs(held)
    slip = marks * (linear * size + quadratic * size * size)
    if exit_slippage_per_unit is not None:
        slip = np.minimum(slip, exits * size)
    bought = np.maximum(held, 0.0)
    sold = np.maximum(-held, 0.0)
    of_long = np.where(held > 0, slip, 0.0) + (bought + buys) * longs * marks
    of_short = np.where(held < 0, slip, 0.0) + (sold + sells) * shorts * marks
    of_long = np.where(held + buys > 0, of_long, 0.0)
    of_short = np.where(held - sells < 0, of_short, 0.0)
    due = np.maximum(held * fundings, 0.0)
    return numbers.computed(np.maximum(of_long, of_short) + due)


@overflow_is_checked
def risk_factor_liquidation_price(
    mark_price: ArrayLike,
    volume: ArrayLike,
    collateral: ArrayLike,
    factor_long: ArrayLike,
    factor_short: ArrayLike,
    slippage: Slippage,
    funding_per_unit: ArrayLike = 0.0,
) -> Figure:
    """Return the price at which collateral + V (L - mark) equals maintenance, 0 at the least.

        L = (collateral - V mark - max(0, V funding)) / (lin |V| + quad V^2 + rf |V| - V)

    nan where no price moves the one against the other. 0 of a long: it cannot be liquidated; of a
    short: it is past it at every price. A long whose slippage and factor take one or more of its
    value gains room as the price falls: it is past its liquidation above the returned price.
    """
    numbers = floats(
        Field("mark_price", mark_price, ABOVE_ZERO),
        Field("volume", volume, FINITE),
        Field("collateral", collateral, FINITE),
        Field("factor_long", factor_long, FROM_ZERO),
        Field("factor_short", factor_short, FROM_ZERO),
        Field("slippage.linear", slippage.linear, FROM_ZERO),
        Field("slippage.quadratic", slippage.quadratic, FROM_ZERO),
        Field("funding_per_unit", funding_per_unit, FINITE),
    )
    numbers.require()
    marks, held, money, longs, shorts, linear, quadratic, fundings = numbers.arrays
    size = np.abs(held)
    factor = np.where(held > 0, longs, shorts)
    room = size * (linear + quadratic * size + factor) - held
    gap = money - held * marks - np.maximum(held * fundings, 0.0)
    none = room == 0
    numbers.computed(room)
    price = np.maximum(gap / np.where(none, 1.0, room), 0.0)
    numbers.computed(price)
    return numbers.shaped(np.where(none, np.nan, price))


@dataclass(frozen=True, slots=True)
class MarginLevels:
    """Four amounts of the smallest unit, each at least as large as the one before.

    At or below maintenance the position is closed out; below search money is looked for, up to
    initial, which a new order needs too; above release what is over initial is freed.
    """

    maintenance: Whole
    search: Whole
    initial: Whole
    release: Whole


@dataclass(frozen=True, slots=True)
class LevelFactors:
    """How many times maintenance the other levels are; raises ValueError if they do not rise."""

    search: Decimal
    initial: Decimal
    release: Decimal

    def __post_init__(self) -> None:
        if not 1 < self.search < self.initial < self.release:
            raise ValueError(
                f"level factors must rise from above 1: search {self.search}, "
                f"initial {self.initial}, release {self.release}"
            )


def margin_levels(maintenance: ArrayLike, factors: LevelFactors) -> MarginLevels:
    """Return the four levels of a maintenance margin in smallest units; each is rounded down.

    Maintenance is rounded up where it is computed. Factors count to 1e-5.
    """
    numbers = integers(Field("maintenance", maintenance, _LEVEL_BASE))
    numbers.require()
    least = numbers.arrays[0]

    def level(name: str, factor: Decimal) -> Whole:
        scaled = units(name, factor, _LEVEL_PLACES)
        if scaled > _LEVEL_FACTOR_MAX:
            raise ValueError(f"{name} {factor} must be at most 10000")
        # Without a product that leaves 64 bits.
        whole, rest = np.divmod(least, _LEVEL_ONE)
        return numbers.shaped(whole * scaled + rest * scaled // _LEVEL_ONE)

    return MarginLevels(
        numbers.shaped(least),
        level("search", factors.search),
        level("initial", factors.initial),
        level("release", factors.release),
    )


def isolated_order_margin(
    position: ArrayLike,
    is_buy: ArrayLike,
    quantity: ArrayLike,
    price: ArrayLike,
    margin_factor: Number,
    position_factor: int,
    *,
    account: ArrayLike = 0,
    auction_price: ArrayLike = 0,
) -> Whole:
    """Return the margin that working orders lock in, an account's by its larger side.

        factor / position_factor * sum(uncovered quantity * price), truncated, of each side

    A position covers the orders that would close it, the best priced first. In an auction an order
    counts at the larger of its price and auction_price; 0: no auction. position, one an account, is
    signed; orders are flat arrays, account the index into position that each belongs to.
    position_factor is the number of position units in one, margin_factor a fraction of at most nine
    places. Source: vega@a50750cc core/risk/isolated_margin.go.
    """
    accounts = integers(
        Field("position", position, _ANY), Field("auction_price", auction_price, _WHOLE_FROM_ZERO)
    )
    accounts.require()
    sides = np.asarray(is_buy)
    orders = integers(
        Field("account", account, Bound("must be an account's index", 0, accounts.size - 1)),
        Field("is_buy", sides.view(np.uint8) if sides.dtype.kind == "b" else sides, _FLAG),
        Field("quantity", quantity, _WHOLE_FROM_ZERO),
        Field("price", price, _WHOLE_FROM_ZERO),
    )
    orders.require()
    owners, buys, quantities, prices = orders.arrays
    positions, auctions = accounts.arrays
    factor = units("margin_factor", not_negative("margin_factor", margin_factor), _FACTOR_PLACES)
    if factor > _FACTOR_MAX:
        raise ValueError(f"margin_factor {margin_factor} must be at most 1000")
    if not 1 <= position_factor <= _POSITION_FACTOR_MAX:
        raise ValueError(f"position_factor {position_factor} must be 1 to {_POSITION_FACTOR_MAX}")
    # Best first: the highest buy, the lowest sell.
    order = np.lexsort((np.where(buys == 1, -prices, prices), buys, owners))
    out = np.empty((2, accounts.size), dtype=np.int64)
    stopped = core.order_margin_arrays(
        positions,
        owners[order],
        buys[order].astype(np.uint8),
        quantities[order],
        prices[order],
        np.full(accounts.size, factor),
        np.full(accounts.size, position_factor),
        auctions,
        out,
    )
    orders.check(int(order[stopped]) if stopped >= 0 else -1)
    return accounts.shaped(out.max(axis=0))


@dataclass(frozen=True, slots=True)
class MarginTransfer:
    """An amount of the smallest unit between an isolated position's margin and what is outside."""

    direction: TransferDirection
    amount: int


def isolated_transfer(
    position_after: int,
    trades: Sequence[tuple[int, int]],
    is_buy: bool,
    margin_balance: int,
    margin_factor: Number,
    position_factor: int,
    mark_price: int | None = None,
) -> MarginTransfer:
    """Return what moves when trades of one side, (quantity, price) in order, change a position.

    Grown: margin_factor * what was traded moves in. Reduced: the closed part of the balance moves
    out, after the trades' gain against the mark on the whole old position; the average price is a
    whole number. Turned over: the balance moves out but for margin_factor * what is left, at the
    last trades' prices. Amounts are truncated.
    The venue takes the gain of |position|, also of a short, where a buy below the mark is a gain
    and counts as a loss; this does the same.
    Raises ValueError for trades without a quantity, and without a mark for a reduced position.
    """
    sizes = [size for size, _ in trades]
    for name, value in (
        ("position_after", position_after),
        ("margin_balance", margin_balance),
        ("position_factor", position_factor),
        ("mark_price", 0 if mark_price is None else mark_price),
        *(("trades", figure) for trade in trades for figure in trade),
    ):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} {value!r} must be a whole number")
    if not trades or min(sizes) <= 0 or min(price for _, price in trades) < 0:
        raise ValueError(f"trades {list(trades)!r} must have quantities above 0 and prices from 0")
    if margin_balance < 0:
        raise ValueError(f"margin_balance {margin_balance} must not be below 0")
    if position_factor < 1:
        raise ValueError(f"position_factor {position_factor} must be above 0")
    factor = units("margin_factor", not_negative("margin_factor", margin_factor), _FACTOR_PLACES)
    traded = sum(sizes)
    before = position_after - (traded if is_buy else -traded)
    value = sum(size * price for size, price in trades)

    def margin_of(notional: int) -> int:
        return notional * factor // (position_factor * _FACTOR_ONE)

    if position_after * before < 0:
        kept = margin_of(_value_of_last(trades, abs(position_after)))
        if kept > margin_balance:
            return MarginTransfer("to_margin", kept - margin_balance)
        amount = margin_balance - kept
        return MarginTransfer("release" if amount else "none", amount)
    if abs(position_after) > abs(before):
        return MarginTransfer("to_margin", margin_of(value))
    if mark_price is None:
        raise ValueError("mark_price is missing")
    gain = abs(before) * (value // traded - mark_price)
    balance = max(0, (margin_balance * position_factor + gain) // position_factor)
    return MarginTransfer("release", balance * traded // abs(before))


def _value_of_last(trades: Sequence[tuple[int, int]], quantity: int) -> int:
    """Return the value of the last trades that make up a quantity."""
    value = 0
    for size, price in reversed(trades):
        counted = min(size, quantity)
        value += counted * price
        quantity -= counted
    return value
