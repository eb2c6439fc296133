"""Margin of options; the formulas are at the top of option_margin.pyx.

Arrays are contiguous and of one length. Functions of arrays fill out and return -1, or the index of
the first element that is out of its domain or does not fit a double; from there on nothing in out
counts. They raise ValueError if the shapes do not fit.
"""

import numpy as np
from numpy.typing import NDArray

class ShortOption:
    """The numbers of a rule for short options."""

    def __init__(
        self,
        initial: float,
        floor: float,
        maintenance: float,
        maintenance_floor: float,
        liquidation_fee: float,
        minimum: float,
        call_over: float,
        put_over: float,
        coin: bool,
        put_floor: int,
        call_of_mark: bool,
        put_of_mark: bool,
        entry_counts: bool,
        same: bool,
    ) -> None:
        """maintenance_floor below 0: maintenance does not shrink out of the money. put_floor: 0 of
        the reference, 1 of the strike, 2 of the reference and the mark.
        """
    def margins(
        self,
        is_call: NDArray[np.uint8],
        quantity: NDArray[np.float64],
        strike: NDArray[np.float64],
        otm: NDArray[np.float64],
        reference: NDArray[np.float64],
        index: NDArray[np.float64],
        mark: NDArray[np.float64],
        entry: NDArray[np.float64],
        factor: NDArray[np.float64],
        multiplier: NDArray[np.float64],
        out: NDArray[np.float64],
    ) -> int:
        """Fill five rows: reduced, floor, minimum, initial, maintenance; zeros for a long."""

def out_of_the_money_arrays(
    is_call: NDArray[np.uint8],
    strike: NDArray[np.float64],
    reference: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Fill out with the amounts out of the money."""

def naked_arrays(
    is_call: NDArray[np.uint8],
    quantity: NDArray[np.float64],
    strike: NDArray[np.float64],
    spot: NDArray[np.float64],
    upper_bound: NDArray[np.float64],
    spot_shock: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Fill out with the margin of naked shorts, of puts in cash and of calls in coin."""

def max_loss_arrays(
    is_put: NDArray[np.uint8],
    strike: NDArray[np.float64],
    quantity: NDArray[np.float64],
    coin: bool,
    out: NDArray[np.float64],
) -> int:
    """Fill out, one a row of legs, with the largest loss at expiry; inf if it has no end.

    The index is that of the leg in the flattened array.
    """
