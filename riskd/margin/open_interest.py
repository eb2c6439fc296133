"""Initial margin that rises with a market's open interest, and bankruptcy of a part of a position.

Money is in quote quantums (1e-6 of the quote currency) and rates are in parts per million: whole
numbers, as on the chain. Arguments are integers of 64 bits that broadcast; scalars give ints. What
is out of its bound is a ValueError that names field, value, bound and element.

    rate         base + floor((1 - base) clamp((OI - lower) / (upper - lower), 0, 1))
    initial      ceil(notional rate)
    maintenance  ceil(notional base fraction)

The venue is dYdX v4: v4-chain@6c82ba15 protocol/x/perpetuals/types/liquidity_tier.go and
@014223b6 protocol/x/clob/keeper/liquidations.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_FLOOR

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskd.core import integer_margin as core
from riskd.margin.arrays import Bound, Field, Integers, Whole, integers, within
from riskd.margin.decimals import EXACT, Number, decimal

PPM = 1_000_000
_QUANTUM_PLACES = 6

_ANY = Bound("must fit 64 bits")
_FROM_ZERO = Bound("must not be below 0", low=0)
_ABOVE_ZERO = Bound("must be above 0", low=0, low_is_in=False)
_RATE = within(0, PPM)


def quote_quantums(quantity: Number, price: Number) -> int:
    """Return the signed notional quantity * price in quote quantums, rounded down."""
    notional = EXACT.multiply(decimal("quantity", quantity), decimal("price", price))
    return int(notional.scaleb(_QUANTUM_PLACES, EXACT).to_integral_value(ROUND_FLOOR, EXACT))


def _open_interest(
    notional: ArrayLike,
    base_ppm: ArrayLike,
    open_interest: ArrayLike,
    lower_cap: ArrayLike,
    upper_cap: ArrayLike,
    custom_ppm: ArrayLike,
) -> tuple[Integers, NDArray[np.int64]]:
    numbers = integers(
        Field("notional", notional, _FROM_ZERO),
        Field("base_ppm", base_ppm, _RATE),
        Field("open_interest", open_interest, _FROM_ZERO),
        Field("lower_cap", lower_cap, _FROM_ZERO),
        Field("upper_cap", upper_cap, _FROM_ZERO),
        Field("custom_ppm", custom_ppm, _RATE),
    )
    _, _, _, lower, upper, _ = numbers.arrays
    if (crossed := lower > upper).any():
        index = int(np.argmax(crossed))
        raise ValueError(f"lower_cap {lower[index]} must not be above upper_cap {upper[index]}")
    out = numbers.ask(core.open_interest_arrays, rows=2)
    return numbers, out


def open_interest_rate_ppm(
    base_ppm: ArrayLike,
    open_interest: ArrayLike,
    lower_cap: ArrayLike,
    upper_cap: ArrayLike,
    custom_ppm: ArrayLike = 0,
) -> Whole:
    """Return the initial rate at an open interest, both it and its caps in quantums.

    base_ppm up to lower_cap, one at upper_cap and above, a line between; upper_cap 0: always
    base_ppm. custom_ppm, the account's own choice, counts where it is larger.
    Raises ValueError if lower_cap is above upper_cap.
    """
    numbers, out = _open_interest(0, base_ppm, open_interest, lower_cap, upper_cap, custom_ppm)
    return numbers.shaped(out[0])


def open_interest_initial_margin(
    notional: ArrayLike,
    base_ppm: ArrayLike,
    open_interest: ArrayLike,
    lower_cap: ArrayLike,
    upper_cap: ArrayLike,
    custom_ppm: ArrayLike = 0,
) -> Whole:
    """Return ceil(notional * rate) in quantums; notional is not signed."""
    numbers, out = _open_interest(
        notional, base_ppm, open_interest, lower_cap, upper_cap, custom_ppm
    )
    return numbers.shaped(out[1])


def _maintenance(
    notional: ArrayLike, initial_ppm: ArrayLike, fraction_ppm: ArrayLike
) -> tuple[Integers, NDArray[np.int64]]:
    numbers = integers(
        Field("notional", notional, _FROM_ZERO),
        Field("initial_ppm", initial_ppm, _RATE),
        Field("fraction_ppm", fraction_ppm, _RATE),
    )
    out = numbers.ask(core.maintenance_arrays, rows=2)
    return numbers, out


def maintenance_rate_ppm(initial_ppm: ArrayLike, fraction_ppm: ArrayLike) -> Whole:
    """Return floor(initial_ppm * fraction_ppm / 1e6)."""
    numbers, out = _maintenance(0, initial_ppm, fraction_ppm)
    return numbers.shaped(out[0])


def fraction_maintenance_margin(
    notional: ArrayLike, initial_ppm: ArrayLike, fraction_ppm: ArrayLike = PPM
) -> Whole:
    """Return ceil(notional * initial_ppm * fraction_ppm / 1e12) in quantums.

    With fraction_ppm left out, initial_ppm is the maintenance rate itself.
    """
    numbers, out = _maintenance(notional, initial_ppm, fraction_ppm)
    return numbers.shaped(out[1])


def partial_bankruptcy_price(
    notional_change: ArrayLike,
    maintenance_change: ArrayLike,
    net_collateral: ArrayLike,
    maintenance: ArrayLike,
) -> Whole:
    """Return the quantums that closing a part must bring so that the account's rest is not poorer.

        -notional_change - floor(net_collateral |maintenance_change| / maintenance)

    Above 0 it is received (a long is sold), below 0 it is paid. net_collateral and maintenance are
    the account's before the trade; the part releases collateral in proportion to the maintenance it
    releases. Rounding is up, for the account.
    """
    numbers = integers(
        Field("notional_change", notional_change, _ANY),
        Field("maintenance_change", maintenance_change, _ANY),
        Field("net_collateral", net_collateral, _ANY),
        Field("maintenance", maintenance, _ABOVE_ZERO),
    )
    return numbers.shaped(numbers.ask(core.bankruptcy_arrays))


def account_bankruptcy_price(
    balance: int,
    notionals: Sequence[int],
    maintenance_ppm: Sequence[int],
    closing: int,
    notional_after: int,
) -> int:
    """Return partial_bankruptcy_price of an account's position number `closing`.

    balance and the signed notionals are in quantums; notional_after is what the position has left.
    Raises ValueError if there is no such position, or it would grow or turn over.
    """
    if len(notionals) != len(maintenance_ppm):
        raise ValueError(
            f"notionals and maintenance_ppm differ: {len(notionals)}, {len(maintenance_ppm)}"
        )
    if not 0 <= closing < len(notionals):
        raise ValueError(f"closing {closing} must be 0 to {len(notionals) - 1}")
    before = notionals[closing]
    if before == notional_after or not min(before, 0) <= notional_after <= max(before, 0):
        raise ValueError(f"notional_after {notional_after} must lie between {before} and 0")
    sizes = [abs(notional) for notional in (*notionals, notional_after)]
    rates = [*maintenance_ppm, maintenance_ppm[closing]]
    *margins, margin_after = np.asarray(fraction_maintenance_margin(sizes, rates)).tolist()
    return int(
        partial_bankruptcy_price(
            notional_after - before,
            margin_after - margins[closing],
            balance + sum(notionals),
            sum(margins),
        )
    )
