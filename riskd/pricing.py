"""Option prices and Greeks on scalars and NumPy arrays.

One long option on 1 of the underlying. The arithmetic, its sources and its error are in
ext/riskd/core/black.pyx; these functions only check, broadcast and name the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskd.core import black as core

Figure = float | NDArray[np.float64]

_CALL = ("call", "c")
_PUT = ("put", "p")


class DeltaConvention(StrEnum):
    """What a delta counts: the hedge in spot or in forwards, with or without the premium.

    Premium-adjusted deltas are those of a premium paid in the underlying (coin-settled options).
    Source: D. Reiswich and U. Wystup, "FX volatility smile construction" (2010).
    """

    SPOT = "spot"
    FORWARD = "forward"
    PREMIUM_ADJUSTED_SPOT = "premium-adjusted spot"
    PREMIUM_ADJUSTED_FORWARD = "premium-adjusted forward"


@dataclass(frozen=True, slots=True)
class Greeks:
    """Price and Greeks on a forward; floats, or arrays of the broadcast shape.

    delta, gamma: per 1 of the forward. vega_per_vol_point: per 0.01 of volatility. theta_per_day:
    1/365 of a year passes and the forward stays. rho_per_point: per 0.01 of the rate, the forward
    stays.
    """

    price: Figure
    delta: Figure
    gamma: Figure
    vega_per_vol_point: Figure
    theta_per_day: Figure
    rho_per_point: Figure


@dataclass(frozen=True, slots=True)
class SpotGreeks(Greeks):
    """Price and Greeks on a spot price; floats, or arrays of the broadcast shape.

    delta, gamma: per 1 of spot. theta_per_day: spot stays. rho_per_point: the dividend yield
    stays. dividend_rho_per_point: per 0.01 of the dividend yield, the rate stays.
    """

    dividend_rho_per_point: Figure
    delta_forward: Figure
    delta_premium_adjusted: Figure
    delta_forward_premium_adjusted: Figure

    def delta_as(self, convention: DeltaConvention) -> Figure:
        """Return delta in a convention."""
        match convention:
            case DeltaConvention.SPOT:
                return self.delta
            case DeltaConvention.FORWARD:
                return self.delta_forward
            case DeltaConvention.PREMIUM_ADJUSTED_SPOT:
                return self.delta_premium_adjusted
            case DeltaConvention.PREMIUM_ADJUSTED_FORWARD:
                return self.delta_forward_premium_adjusted


def black76(
    option_type: str | Sequence[str] | NDArray[np.str_],
    forward: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    time_years: ArrayLike,
    rate: ArrayLike = 0.0,
) -> Greeks:
    """Return price and Greeks of options on a forward (Black-76).

    option_type "call" or "put"; volatility and the continuously compounded rate as fractions per
    year (0.65); arguments broadcast, and all scalars give floats. At expiry or without volatility:
    the discounted intrinsic value, its delta (one half of it at the money), the rest 0.
    Raises ValueError naming field, value and bound.
    """
    if isinstance(option_type, str) and _all_scalar(forward, strike, volatility, time_years, rate):
        is_call = _is_call(option_type)
        numbers = _floats(forward, strike, volatility, time_years, rate)
        f, k, v, t, r = numbers
        try:
            return Greeks(*core.black76_greeks(is_call, f, k, v, t, r))
        except ValueError:
            raise _fault(_FORWARD_FIELDS, numbers) from None
    kinds, arrays, shape = _broadcast(option_type, (forward, strike, volatility, time_years, rate))
    out = np.empty((6, kinds.size))
    forwards, strikes, volatilities, years, rates = arrays
    index = core.black76_arrays(kinds, forwards, strikes, volatilities, years, rates, out)
    if index >= 0:
        raise _fault(_FORWARD_FIELDS, [float(array[index]) for array in arrays], index)
    return Greeks(*(row.reshape(shape) for row in out))


def black_scholes(
    option_type: str | Sequence[str] | NDArray[np.str_],
    spot: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    time_years: ArrayLike,
    rate: ArrayLike = 0.0,
    *,
    dividend_yield: ArrayLike | None = None,
    cost_of_carry: ArrayLike | None = None,
) -> SpotGreeks:
    """Return price and Greeks of options on a spot price (generalised Black-Scholes).

    The forward is spot * exp(b * time_years) with b = cost_of_carry, or rate - dividend_yield (0
    if neither is given). Otherwise like black76.
    Raises ValueError naming field, value and bound, or if both yield and carry are given.
    """
    if dividend_yield is not None and cost_of_carry is not None:
        raise ValueError("dividend_yield and cost_of_carry exclude each other")
    given = cost_of_carry if dividend_yield is None else dividend_yield
    last = 0.0 if given is None else given
    is_carry = cost_of_carry is not None
    fields = _CARRY_FIELDS if is_carry else _YIELD_FIELDS
    if isinstance(option_type, str) and _all_scalar(
        spot, strike, volatility, time_years, rate, last
    ):
        is_call = _is_call(option_type)
        numbers = _floats(spot, strike, volatility, time_years, rate, last)
        s, k, v, t, r, carry = numbers
        carry = carry if is_carry else r - carry
        try:
            return SpotGreeks(*core.black_scholes_greeks(is_call, s, k, v, t, r, carry))
        except ValueError:
            raise _fault(fields, numbers) from None
    kinds, arrays, shape = _broadcast(
        option_type, (spot, strike, volatility, time_years, rate, last)
    )
    spots, strikes, volatilities, years, rates, carries = arrays
    # A carry that is not finite is refused below.
    with np.errstate(invalid="ignore", over="ignore"):
        carries = carries if is_carry else rates - carries
    out = np.empty((10, kinds.size))
    index = core.black_scholes_arrays(
        kinds, spots, strikes, volatilities, years, rates, carries, out
    )
    if index >= 0:
        raise _fault(fields, [float(array[index]) for array in arrays], index)
    return SpotGreeks(*(row.reshape(shape) for row in out))


def elasticity(greeks: SpotGreeks, spot: float) -> float:
    """Return delta * spot / price, percent of the price per percent of spot, of one option.

    Raises ValueError if the price is 0.
    """
    price = float(greeks.price)
    if price == 0.0:
        raise ValueError("price 0 has no elasticity")
    return float(greeks.delta) * spot / price


def rate_of_discount(discount: float, time_years: float) -> float:
    """Return the continuously compounded rate r with exp(-r * time_years) = discount.

    Raises ValueError if the discount is not above 0, or not 1 at time 0.
    """
    if not (discount > 0.0 and math.isfinite(discount)):
        raise ValueError(f"discount {discount} must be above 0 and finite")
    if discount == 1.0:
        return 0.0
    if not (time_years > 0.0 and math.isfinite(time_years)):
        raise ValueError(f"time_years {time_years} must be above 0 for discount {discount}")
    return -math.log(discount) / time_years


def _at_any(value: float) -> str | None:
    return None if math.isfinite(value) else "must be finite"


def _above_zero(value: float) -> str | None:
    return _at_any(value) or (None if value > 0.0 else "must be above 0")


def _from_zero(value: float) -> str | None:
    return _at_any(value) or (None if value >= 0.0 else "must not be below 0")


_Field = tuple[str, Callable[[float], str | None]]
_COMMON: tuple[_Field, ...] = (
    ("strike", _above_zero),
    ("volatility", _from_zero),
    ("time_years", _from_zero),
    ("rate", _at_any),
)
_FORWARD_FIELDS: tuple[_Field, ...] = (("forward", _above_zero), *_COMMON)
_YIELD_FIELDS: tuple[_Field, ...] = (("spot", _above_zero), *_COMMON, ("dividend_yield", _at_any))
_CARRY_FIELDS: tuple[_Field, ...] = (("spot", _above_zero), *_COMMON, ("cost_of_carry", _at_any))


def _fault(
    fields: Sequence[_Field], values: Sequence[float], index: int | None = None
) -> ValueError:
    """Return the error that names the first field out of its bound."""
    where = "" if index is None else f" (element {index})"
    for (name, rule), value in zip(fields, values, strict=True):
        if (bound := rule(value)) is not None:
            return ValueError(f"{name} {value} {bound}{where}")
    shown = ", ".join(f"{name} {value}" for (name, _), value in zip(fields, values, strict=True))
    return ValueError(f"a figure does not fit a double: {shown}{where}")


def _is_call(option_type: str) -> bool:
    kind = option_type.lower()
    if kind in _CALL:
        return True
    if kind in _PUT:
        return False
    raise ValueError(f"option_type {option_type!r} must be 'call' or 'put'")


def _all_scalar(*values: ArrayLike) -> bool:
    return all(isinstance(value, float | int) for value in values)


def _floats(*values: ArrayLike) -> list[float]:
    """Return numbers that _all_scalar has seen as floats."""
    try:
        return [float(cast(float, value)) for value in values]
    except OverflowError:
        raise ValueError("an integer does not fit a double") from None


def _broadcast(
    option_type: str | Sequence[str] | NDArray[np.str_], values: Sequence[ArrayLike]
) -> tuple[NDArray[np.uint8], list[NDArray[np.float64]], tuple[int, ...]]:
    """Return flat contiguous arrays of one length, and the shape of the results."""
    kinds = np.char.lower(np.asarray(option_type, dtype=np.str_))
    is_call = np.isin(kinds, _CALL)
    unknown = ~(is_call | np.isin(kinds, _PUT))
    if unknown.any():
        raise ValueError(f"option_type {str(kinds[unknown][0])!r} must be 'call' or 'put'")
    parts = np.broadcast_arrays(
        is_call.astype(np.uint8), *(np.asarray(value, dtype=np.float64) for value in values)
    )
    flat = [np.ascontiguousarray(part).reshape(-1) for part in parts]
    return flat[0], flat[1:], parts[0].shape
