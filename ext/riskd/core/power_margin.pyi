"""Maintenance that grows with a power of the notional; the formulas are in power_margin.pyx.

Arrays are contiguous and of one length. The functions fill out and return -1, or the index of the
first element that is out of its domain or does not fit a double; from there on nothing in out
counts. They raise ValueError if the shapes do not fit.
"""

import numpy as np
from numpy.typing import NDArray

def rate_arrays(
    notional: NDArray[np.float64],
    base: NDArray[np.float64],
    factor: NDArray[np.float64],
    power: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Fill out with max(base, factor * notional ** power)."""

def liquidation_price_arrays(
    quantity: NDArray[np.float64],
    mark: NDArray[np.float64],
    collateral: NDArray[np.float64],
    others: NDArray[np.float64],
    base: NDArray[np.float64],
    factor: NDArray[np.float64],
    power: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Fill out with liquidation prices.

    nan: the position cannot be liquidated. inf of a long and 0 of a short: it can at every price.
    """
