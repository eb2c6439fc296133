"""Weights that depend on size, worst fills, isolated and cross buckets, sizes of liquidations.

Everything is whole numbers, as on the chain: weights and ratios in 1e-4, size factors (imf), fees
and multipliers in 1e-6, prices and money in 1e-6 of the quote currency, perpetuals' quantities in
1e-9, balances in 10^-decimals of a token. Divisions truncate towards zero. Arguments are integers
of 64 bits that broadcast; scalars give ints. What is out of its bound is a ValueError that names
field, value, bound and element.

    asset      min(w, 1.1 / (1 + imf sqrt(size)))
    liability  max(w, w - w/5 + imf sqrt(size))       also the rate of a perpetual

The root is of 10 size + 1 in 1e-9 tokens, an integer. The venue is Drift: protocol-v2@006ba85c
programs/drift/src/math/margin.rs, math/liquidation.rs, state/spot_market.rs and state/user.rs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from riskd.core import integer_margin as core
from riskd.margin.arrays import Bound, Field, Whole, integers, within

WEIGHT_ONE = 10_000

_U32_MAX = 2**32 - 1
# Sums up to here are exact in 64 bits whatever the rounding of the doubles that check them.
_SUM_MAX = 2.0**62
_DECIMALS_MAX = 18

_ANY = Bound("must fit 64 bits")
_FROM_ZERO = Bound("must not be below 0", low=0)
_ABOVE_ZERO = Bound("must be above 0", low=0, low_is_in=False)
_U32 = within(0, _U32_MAX)
_DECIMALS = within(0, _DECIMALS_MAX)


def asset_weight(size_1e9: ArrayLike, imf_1e6: ArrayLike, base_weight_1e4: ArrayLike) -> Whole:
    """Return the weight in 1e-4 of a deposit: it falls with its size in 1e-9 tokens."""
    return _weight(True, size_1e9, imf_1e6, base_weight_1e4)


def liability_weight(size_1e9: ArrayLike, imf_1e6: ArrayLike, base_weight_1e4: ArrayLike) -> Whole:
    """Return the weight in 1e-4 of a borrow: it rises with its size in 1e-9 tokens.

    With a margin ratio as base weight, the ratio of a perpetual.
    """
    return _weight(False, size_1e9, imf_1e6, base_weight_1e4)


def _weight(
    asset: bool, size_1e9: ArrayLike, imf_1e6: ArrayLike, base_weight_1e4: ArrayLike
) -> Whole:
    numbers = integers(
        Field("size_1e9", size_1e9, _FROM_ZERO),
        Field("imf_1e6", imf_1e6, _U32),
        Field("base_weight_1e4", base_weight_1e4, _U32),
    )
    return numbers.shaped(numbers.ask(core.weight_arrays, asset))


def fill_weight(initial_1e4: ArrayLike, maintenance_1e4: ArrayLike) -> Whole:
    """Return the mean of the initial and the maintenance weight, truncated: that of a fill."""
    numbers = integers(
        Field("initial_1e4", initial_1e4, _U32), Field("maintenance_1e4", maintenance_1e4, _U32)
    )
    numbers.require()
    initial, maintenance = numbers.arrays
    return numbers.shaped((initial + maintenance) // 2)


def pool_scaled_weight(
    base_weight_1e4: ArrayLike, pool_value_1e6: ArrayLike, scale_start_1e6: ArrayLike
) -> Whole:
    """Return w * min(1, start / pool), truncated: the whole pool counts for w * start at most.

    scale_start_1e6 0: no scaling.
    """
    numbers = integers(
        Field("base_weight_1e4", base_weight_1e4, _U32),
        Field("pool_value_1e6", pool_value_1e6, _FROM_ZERO),
        Field("scale_start_1e6", scale_start_1e6, _FROM_ZERO),
    )
    return numbers.shaped(numbers.ask(core.pool_weight_arrays))


def token_value(tokens: ArrayLike, price_1e6: ArrayLike, decimals: ArrayLike) -> Whole:
    """Return tokens * price in 1e-6 of the quote currency, truncated; tokens may be below 0."""
    numbers = integers(
        Field("tokens", tokens, _ANY),
        Field("price_1e6", price_1e6, _ABOVE_ZERO),
        Field("decimals", decimals, _DECIMALS),
    )
    return numbers.shaped(numbers.ask(core.token_value_arrays))


@dataclass(frozen=True, slots=True)
class Bucket:
    """What an account, or a part of it, has and needs, in 1e-6 of the quote currency.

    liability_1e6 and loss_1e6 are what a buffer counts on. An isolated position is a bucket of its
    own: its deposit, profit and requirement are no part of the account's.
    """

    collateral_1e6: Whole
    requirement_1e6: Whole
    liability_1e6: Whole
    loss_1e6: Whole

    @property
    def net_1e6(self) -> Whole:
        """Collateral less requirement: free collateral, or below 0 a shortage."""
        return _sum(self.collateral_1e6, -self.requirement_1e6)

    def with_buffer(self, buffer_1e4: ArrayLike) -> Bucket:
        """Return what counts for leaving a liquidation.

        The requirement grows by buffer * liability, the collateral shrinks by buffer * loss.
        """
        numbers = integers(Field("buffer_1e4", buffer_1e4, within(0, WEIGHT_ONE)))
        numbers.require()
        buffer = numbers.shaped(numbers.arrays[0])
        return Bucket(
            _sum(self.collateral_1e6, -_part(self.loss_1e6, buffer)),
            _sum(self.requirement_1e6, _part(self.liability_1e6, buffer)),
            self.liability_1e6,
            self.loss_1e6,
        )

    def __add__(self, other: Bucket) -> Bucket:
        """Return both as one bucket: a cross account is the sum of its balances and positions."""
        return Bucket(
            _sum(self.collateral_1e6, other.collateral_1e6),
            _sum(self.requirement_1e6, other.requirement_1e6),
            _sum(self.liability_1e6, other.liability_1e6),
            _sum(self.loss_1e6, other.loss_1e6),
        )

    def total(self) -> Bucket:
        """Return the sum over the last axis: an account's bucket from arrays of its positions."""
        return Bucket(
            _total(self.collateral_1e6),
            _total(self.requirement_1e6),
            _total(self.liability_1e6),
            _total(self.loss_1e6),
        )


def spot_bucket(
    tokens: ArrayLike,
    price_1e6: ArrayLike,
    asset_weight_1e4: ArrayLike = WEIGHT_ONE,
    liability_weight_1e4: ArrayLike = WEIGHT_ONE,
    *,
    decimals: ArrayLike = 9,
    bids: ArrayLike = 0,
    asks: ArrayLike = 0,
    open_orders: ArrayLike = 0,
    imf_1e6: ArrayLike = 0,
    custom_ratio_1e4: ArrayLike = 0,
) -> Bucket:
    """Return the buckets of signed balances, their working orders filled at the worse side.

    All bids, or all asks, fill at the price: the balance then has the weight of its size, and what
    was paid or received is quote currency. The worse side is the one with less weighted value; each
    open order needs 0.01 besides. custom_ratio_1e4, the account's own for initial margin, caps an
    asset's weight at one less it and holds a liability's at one more at the least.
    tokens, bids and asks are in 10^-decimals of the token; weights are the base weights.
    """
    numbers = integers(
        Field("tokens", tokens, _ANY),
        Field("bids", bids, _FROM_ZERO),
        Field("asks", asks, _FROM_ZERO),
        Field("open_orders", open_orders, _U32),
        Field("decimals", decimals, _DECIMALS),
        Field("price_1e6", price_1e6, _ABOVE_ZERO),
        Field("imf_1e6", imf_1e6, _U32),
        Field("asset_weight_1e4", asset_weight_1e4, _U32),
        Field("liability_weight_1e4", liability_weight_1e4, _U32),
        Field("custom_ratio_1e4", custom_ratio_1e4, _U32),
    )
    out = numbers.ask(core.spot_arrays, rows=3)
    collateral, requirement, liability = (numbers.shaped(row) for row in out)
    return Bucket(collateral, requirement, liability, numbers.shaped(np.zeros_like(out[0])))


def perp_bucket(
    base_1e9: ArrayLike,
    quote_1e6: ArrayLike,
    price_1e6: ArrayLike,
    ratio_1e4: ArrayLike,
    *,
    bids_1e9: ArrayLike = 0,
    asks_1e9: ArrayLike = 0,
    open_orders: ArrayLike = 0,
    imf_1e6: ArrayLike = 0,
    custom_ratio_1e4: ArrayLike = 0,
    profit_weight_1e4: ArrayLike = WEIGHT_ONE,
) -> Bucket:
    """Return the buckets of perpetuals, their working orders filled at the worse side.

    base_1e9 is signed, quote_1e6 what it cost (below 0 for a long) with fees and funding. The
    requirement is the larger of base plus bids and base less asks, at the price, times the larger
    of the ratio of its size and custom_ratio_1e4, and 0.01 for each open order. Profit is weighted.
    """
    numbers = integers(
        Field("base_1e9", base_1e9, _ANY),
        Field("quote_1e6", quote_1e6, _ANY),
        Field("bids_1e9", bids_1e9, _FROM_ZERO),
        Field("asks_1e9", asks_1e9, _FROM_ZERO),
        Field("open_orders", open_orders, _U32),
        Field("price_1e6", price_1e6, _ABOVE_ZERO),
        Field("imf_1e6", imf_1e6, _U32),
        Field("ratio_1e4", ratio_1e4, _U32),
        Field("custom_ratio_1e4", custom_ratio_1e4, _U32),
        Field("profit_weight_1e4", profit_weight_1e4, within(0, WEIGHT_ONE)),
    )
    out = numbers.ask(core.perp_arrays, rows=4)
    return Bucket(*(numbers.shaped(row) for row in out))


def base_to_cover_shortage(
    shortage_1e6: ArrayLike,
    ratio_1e4: ArrayLike,
    liquidation_fee_1e6: ArrayLike,
    insurance_fee_1e6: ArrayLike,
    price_1e6: ArrayLike,
    quote_price_1e6: ArrayLike = 1_000_000,
) -> Whole:
    """Return the quantity in 1e-9 whose closing frees the shortage; -1 where none does.

    shortage / (price quote_price (ratio - liquidation fee) - price insurance fee)
    """
    numbers = integers(
        Field("shortage_1e6", shortage_1e6, _FROM_ZERO),
        Field("ratio_1e4", ratio_1e4, _U32),
        Field("liquidation_fee_1e6", liquidation_fee_1e6, _U32),
        Field("insurance_fee_1e6", insurance_fee_1e6, _U32),
        Field("price_1e6", price_1e6, _FROM_ZERO),
        Field("quote_price_1e6", quote_price_1e6, _ABOVE_ZERO),
    )
    return numbers.shaped(numbers.ask(core.base_to_cover_arrays))


def liability_to_cover_shortage(
    shortage_1e6: ArrayLike,
    asset_weight_1e4: ArrayLike,
    asset_multiplier_1e6: ArrayLike,
    liability_weight_1e4: ArrayLike,
    liability_multiplier_1e6: ArrayLike,
    decimals: ArrayLike,
    price_1e6: ArrayLike,
    insurance_fee_1e6: ArrayLike = 0,
) -> Whole:
    """Return the borrow in 10^-decimals whose transfer frees the shortage; -1 where none does.

        shortage / (price (w_l - w_a m_a / m_l) - price insurance_fee w_l)

    with w the weights and m the multipliers at which asset and liability change hands; price_1e6
    and decimals are the liability's.
    """
    numbers = integers(
        Field("shortage_1e6", shortage_1e6, _FROM_ZERO),
        Field("asset_weight_1e4", asset_weight_1e4, _U32),
        Field("asset_multiplier_1e6", asset_multiplier_1e6, _U32),
        Field("liability_weight_1e4", liability_weight_1e4, _U32),
        Field("liability_multiplier_1e6", liability_multiplier_1e6, within(1, _U32_MAX)),
        Field("decimals", decimals, _DECIMALS),
        Field("price_1e6", price_1e6, _ABOVE_ZERO),
        Field("insurance_fee_1e6", insurance_fee_1e6, _U32),
    )
    return numbers.shaped(numbers.ask(core.liability_to_cover_arrays))


def _sum(first: Whole, second: Whole) -> Whole:
    """Return the sum. Raises ValueError if it leaves 64 bits, where an array's would wrap."""
    if isinstance(first, int) and isinstance(second, int):
        return first + second
    total = np.asarray(np.add(first, second))
    if (((first ^ total) & (second ^ total)) < 0).any():
        raise ValueError("a sum of buckets does not fit 64 bits")
    return total


def _total(values: Whole) -> Whole:
    if isinstance(values, int):
        return values
    if (np.abs(values.astype(np.float64)).sum(axis=-1) >= _SUM_MAX).any():
        raise ValueError("a sum of buckets does not fit 64 bits")
    total = values.sum(axis=-1)
    return int(total) if values.ndim == 1 else np.asarray(total)


def _part(amount: Whole, part_1e4: Whole) -> Whole:
    """Return amount * part, truncated, without a product that leaves 64 bits; amount >= 0."""
    return amount // WEIGHT_ONE * part_1e4 + amount % WEIGHT_ONE * part_1e4 // WEIGHT_ONE
