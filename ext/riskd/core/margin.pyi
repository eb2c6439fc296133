"""Margin of linear positions.

Tiers, requirements, liquidation and bankruptcy price. Integers, exact.
"""

from collections.abc import Sequence
from typing import final

def deductions(tiers: Sequence[tuple[int, int]]) -> list[int]:
    """Return the deductions that make maintenance continuous, from (floor in minor units,
    maintenance rate in ppb) of each tier.

    Raises ValueError, naming the tier, if floors do not rise from 0, rates do not rise, or a
    deduction is not whole.
    """

@final
class TierLadder:
    """Margin rates by notional.

    tiers: 1 to 32 of (floor, initial_rate_ppb, maintenance_rate_ppb, deduction or None,
    leverage_max in hundredths); None computes the deduction. Floors and deductions are in minor
    units. Given deductions are taken as they are: venues publish them. Raises ValueError, naming
    the tier and the bound.
    """

    def __init__(
        self,
        tiers: Sequence[tuple[int, int, int, int | None, int]],
        *,
        notional_max: int = 0,
        liquidation_fee_ppb: int = 0,
    ) -> None: ...
    def tier_index(self, notional: int) -> int:
        """Return the index of the largest tier whose floor is below the notional."""
    def maintenance(self, notional: int) -> int:
        """Return maintenance margin in minor units, rounded up."""
    def initial(self, notional: int, leverage: int) -> int:
        """Return initial margin in minor units, rounded up; leverage in hundredths."""
    def liquidation_requirement(self, notional: int) -> int:
        """Return maintenance margin plus liquidation fee in minor units, rounded up."""
    def notional_max_at(self, leverage: int) -> int:
        """Return the largest notional at that leverage (hundredths); 0 is no bound, -1 no room."""
    def liquidation_price(
        self, lots: int, entry_value: int, wallet: int, value_numerator: int, value_denominator: int
    ) -> int | None:
        """Return the liquidation price in price units, or None if it cannot be liquidated.

        lots is signed and not 0. One lot at one price unit is value_numerator / value_denominator
        minor units. A long's price is floored, a short's is ceiled: the last unit, seen from the
        safe side, at which equity is at or below the requirement. Raises ValueError for 0 lots,
        OverflowError if a figure does not fit.
        """
    def is_liquidatable(
        self,
        lots: int,
        entry_value: int,
        wallet: int,
        value_numerator: int,
        value_denominator: int,
        price: int,
    ) -> bool:
        """Return whether equity at a price is at or below the requirement, as fractions."""

def bankruptcy_price(
    lots: int, entry_value: int, wallet: int, value_numerator: int, value_denominator: int
) -> int | None:
    """Return the price at which equity is zero, in price units; None if it is not above zero.

    Rounded against the account: a long's up, a short's down.
    """
