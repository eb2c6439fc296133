"""Margin of perpetuals and futures in double precision: riskd.margin.batch calls it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELDS: tuple[str, ...]
"""The columns of figures, in their order."""

BOUNDS: tuple[str, ...]
"""What each of them must be."""

class Family:
    """The switches of a rule and the tables of one schedule or several."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Family: ...
    def __init__(self, rule: Mapping[str, int], schedules: Sequence[dict[str, Any]]) -> None:
        """Copy the figures that riskd.margin.batch prepared; its functions say which."""

    def requirements(
        self,
        figures: tuple[NDArray[np.float64], ...],
        which: NDArray[np.int64] | None,
        flags: tuple[bool, bool],
        initial: NDArray[np.float64],
        maintenance: NDArray[np.float64],
    ) -> tuple[int, int]:
        """Fill initial and maintenance margin.

        figures are columns in the order of FIELDS, of the outputs' length; flags say whether marks
        and wallets were given. Return (-1, 0), or the index of the first position that is refused
        and the number of its fault: a field, then rate, range, schedule.
        """

    def liquidation_prices(
        self,
        figures: tuple[NDArray[np.float64], ...],
        which: NDArray[np.int64] | None,
        flags: tuple[bool, bool],
        price: NDArray[np.float64],
        status: NDArray[np.uint8],
    ) -> tuple[int, int]:
        """Fill liquidation prices and statuses; otherwise like requirements."""

    def bankruptcy_prices(
        self,
        figures: tuple[NDArray[np.float64], ...],
        which: NDArray[np.int64] | None,
        flags: tuple[bool, bool],
        price: NDArray[np.float64],
        status: NDArray[np.uint8],
    ) -> tuple[int, int]:
        """Fill bankruptcy prices and statuses; otherwise like requirements."""

    def margin(
        self, quantity: float, mark_price: float, leverage: float = ...
    ) -> tuple[float, float]:
        """Return initial and maintenance margin of one position of the first schedule.

        Entry and session price are the mark. Raises ValueError, naming field, value and bound.
        """

    def liquidation_price(
        self, quantity: float, entry_price: float, wallet: float, fee_rate: float = 0.0
    ) -> float:
        """Return the liquidation price of one position of the first schedule, nan for none.

        The mark is the entry price. Raises ValueError, naming field, value and bound.
        """
