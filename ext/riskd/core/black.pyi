"""Option price and Greeks in one pass; the formulas are at the top of black.pyx."""

import numpy as np
from numpy.typing import NDArray

def black76_greeks(
    is_call: bool,
    forward: float,
    strike: float,
    volatility: float,
    years: float,
    rate: float,
) -> tuple[float, float, float, float, float, float]:
    """Return price, delta, gamma, vega_per_vol_point, theta_per_day, rho_per_point.

    Raises ValueError if an input is out of its domain or a figure does not fit a double.
    """

def black_scholes_greeks(
    is_call: bool,
    spot: float,
    strike: float,
    volatility: float,
    years: float,
    rate: float,
    carry: float,
) -> tuple[float, float, float, float, float, float, float, float, float, float]:
    """Return price, delta, gamma, vega_per_vol_point, theta_per_day, rho_per_point,
    dividend_rho_per_point, delta_forward, delta_premium_adjusted, delta_forward_premium_adjusted.

    Raises ValueError if an input is out of its domain or a figure does not fit a double.
    """

def black76_arrays(
    is_call: NDArray[np.uint8],
    forward: NDArray[np.float64],
    strike: NDArray[np.float64],
    volatility: NDArray[np.float64],
    years: NDArray[np.float64],
    rate: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Fill out, a row a figure in the order of black76_greeks, from contiguous arrays.

    Return -1, or the index of the first option with an input out of its domain: nothing is written
    there and beyond. Raises ValueError if the shapes do not fit.
    """

def black_scholes_arrays(
    is_call: NDArray[np.uint8],
    spot: NDArray[np.float64],
    strike: NDArray[np.float64],
    volatility: NDArray[np.float64],
    years: NDArray[np.float64],
    rate: NDArray[np.float64],
    carry: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Fill out, a row a figure in the order of black_scholes_greeks, from contiguous arrays.

    Return -1, or the index of the first option with an input out of its domain: nothing is written
    there and beyond. Raises ValueError if the shapes do not fit.
    """
