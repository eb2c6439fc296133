"""The power law: rates, roots, orders, withdrawals, and errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from riskd.margin import (
    IsolatedPosition,
    account_rate,
    gross_notional,
    isolated_after_order,
    leverage_after_order,
    liquidation_price_after_order,
    maintenance_factor,
    max_order_cross,
    max_order_isolated,
    max_withdrawal,
    max_withdrawal_of_asset,
    order_fee,
    power_initial_rate,
    power_isolated_liquidation_price,
    power_liquidation_price,
    power_maintenance_rate,
    power_rate,
)


def test_the_rate_is_the_base_up_to_the_kink_and_a_power_above() -> None:
    # 1e-6 * 32^5 with N = 2^25 and the power 0.2 * 5: an exact case of N^0.8 = 2^20.
    assert power_rate(2**25, 0.01, 1e-6) == pytest.approx(2**20 * 1e-6)
    assert power_rate([0, 1, 2**25], 0.01, 1e-9, 0.8).tolist() == [0.01, 0.01, 0.01]  # type: ignore[union-attr]
    assert power_maintenance_rate(2**25, 0.006, 0.01, 1e-6) == pytest.approx(0.6 * 2**20 * 1e-6)


def test_the_initial_rate_is_at_least_that_of_the_accounts_leverage() -> None:
    assert power_initial_rate(100, 0.05, 1e-9, 10) == 0.1
    assert power_initial_rate(100, 0.2, 1e-9, 10) == 0.2
    assert power_initial_rate(2**25, 0.2, 1e-6, 10) == pytest.approx(2**20 * 1e-6)


@pytest.mark.parametrize(
    ("quantity", "collateral", "base", "factor", "expected"),
    [
        # Flat rates: 10 (100 - L) = 500 - 10 L / 10, the other way for the short.
        (10, 500, 0.1, 0, 500 / 9),
        (-10, 500, 0.1, 0, 1500 / 11),
        # Money for the whole position: no price is too low; none left: every price is too high.
        (10, 1000, 0.1, 0, math.nan),
        (-10, -1000, 0.1, 0, 0),
        # A rate of one or more of a long takes more than its value, at any price.
        (10, 500, 1.0, 0, math.inf),
        (10, 500, 0.1, 1.0, math.inf),
    ],
)
def test_the_liquidation_price_at_the_edges(
    quantity: float, collateral: float, base: float, factor: float, expected: float
) -> None:
    found = power_liquidation_price(quantity, 100, collateral, 0, base, factor)
    assert found == pytest.approx(expected, nan_ok=True)


def test_a_long_beyond_the_largest_safe_notional_is_past_it_at_every_price() -> None:
    # N (1 - 1e-4 N^0.8) is at most 17,857 or so: a debt of 30,000 cannot be covered.
    assert power_liquidation_price(1000, 100, 70_000, 0, 0.01, 1e-4) == math.inf


def test_gross_notional_of_no_positions_is_zero() -> None:
    assert gross_notional([], []) == 0
    assert gross_notional([[1, -2], [3, 0]], 10, 0.5).tolist() == [15, 15]  # type: ignore[union-attr]


def test_an_order_adds_reduces_or_turns_an_isolated_position() -> None:
    held = IsolatedPosition(10, 1000, 100)
    assert isolated_after_order(held, 10, 110, 10, 0) == IsolatedPosition(20, 2100, 210)
    assert isolated_after_order(held, -4, 110, 10, 0) == IsolatedPosition(6, 560, 60)
    assert isolated_after_order(held, -10, 110, 10, 0) == IsolatedPosition(0, -100, 0)
    assert isolated_after_order(held, -15, 110, 10, 0) == IsolatedPosition(-5, -550, 55)
    flat = IsolatedPosition(0, 0, 0)
    assert isolated_after_order(flat, -5, 100, 10, 0.01) == IsolatedPosition(-5, -500, 55)


def test_an_isolated_position_that_cannot_be_liquidated_has_no_price() -> None:
    paid = IsolatedPosition(1, 100, 100)
    assert math.isnan(power_isolated_liquidation_price(paid, 100, 0.05, 0))
    flat = IsolatedPosition(0, 0, 0)
    assert math.isnan(power_isolated_liquidation_price(flat, 100, 0.05, 0))


def test_funding_since_the_settlement_moves_an_isolated_price() -> None:
    held = IsolatedPosition(2, 200, 20)
    still = power_isolated_liquidation_price(held, 100, 0.05, 0)
    paid = power_isolated_liquidation_price(held, 100, 0.05, 0, funding=5, funding_settled=4)
    assert still == pytest.approx(180 / 1.9)
    assert paid == pytest.approx(182 / 1.9)


def test_an_order_that_closes_all_has_no_liquidation_price() -> None:
    assert liquidation_price_after_order(1, 100, 0.1, -1, 100, 0, 50, 0, 100, 0.1, 0) == 0.0


def test_the_largest_order_is_the_smallest_of_its_bounds() -> None:
    # (1000 - 100) / (100 * 0.1) less what is held and ordered, without safety.
    free = max_order_cross("buy", 100, 1000, 100, 0.1, 0, 20, 10, safety=1)
    assert free == pytest.approx(60)
    assert max_order_cross("sell", 100, 1000, 100, 0.1, 0, 20, 10, safety=1) == pytest.approx(100)
    assert max_order_cross("buy", 100, 1000, 100, 0.1, 0, 20, 10, quantity_max=5) == 5
    # (900 / factor)^(1 / 1.8) = 2000: 20 units.
    factor = 900 / 2000**1.8
    assert max_order_cross("buy", 100, 1000, 100, 0.1, 0, 1, 0, factor=factor, safety=1) == (
        pytest.approx(19)
    )
    # An account without a position or orders is not bound by the factor.
    assert max_order_cross("buy", 100, 1000, 100, 0.1, 0, factor=factor, safety=1) == (
        pytest.approx(90)
    )


def test_the_largest_isolated_order_stops_at_the_bound_of_its_leverage() -> None:
    # (10 * factor)^(-1 / 0.8) = 1000.
    factor = 1000**-0.8 / 10
    assert max_order_isolated("buy", 10, 1e6, 10, factor=factor) == pytest.approx(100)
    assert max_order_isolated(
        "sell", 10, 1e6, 10, factor=factor, position_quantity=-30, pending_notional=200
    ) == pytest.approx(50)
    assert max_order_isolated("buy", 10, 1e6, 10, position_quantity=200, notional_max=1000) == 0.0


def test_what_can_be_withdrawn() -> None:
    assert max_withdrawal(1000, 800, 100) == 700
    assert max_withdrawal(-5, 800, 0) == 0
    assert max_withdrawal_of_asset(100, 501, 10, 0.5, -1) == pytest.approx(100)
    assert max_withdrawal_of_asset(1000, 501, 10, 0.5, -1) == pytest.approx(100)
    assert max_withdrawal_of_asset(1000, -1, 10, 0.5) == 0


def test_fees_and_leverage() -> None:
    assert order_fee(-0.1, 26000, 0.0006) == pytest.approx(1.56)
    assert leverage_after_order(100, 300, 2, 100, -3, 100) == 4
    assert account_rate(200, 10) == 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_rate(-1, 0, 0), "notional -1.0 must be finite and not below 0"),
        (lambda: power_rate(1, [0, -1], 0), r"base_rate -1.0 must be finite .* \(element 1\)"),
        (lambda: power_rate(1, 0, math.nan), "factor nan must be finite and not below 0"),
        (lambda: power_rate(1, 0, 0, 0), "power 0.0 must be finite and above 0"),
        (lambda: power_rate(1e300, 0, 1e300), "a result is too large: notional 1e[+]300"),
        (lambda: maintenance_factor(0.1, 0, 1), "base_initial_rate 0.0 must be finite and above"),
        (lambda: power_initial_rate(1, 0, 0, 0), "max_leverage 0.0 must be finite and above 0"),
        (lambda: power_liquidation_price(0, 1, 1, 0, 0, 0), "quantity 0.0 must be finite and not"),
        (lambda: power_liquidation_price(1, 0, 1, 0, 0, 0), "mark_price 0.0 must be finite and"),
        (lambda: power_liquidation_price(1, 1, 1, -1, 0, 0), "other_maintenance -1.0 must be"),
        (lambda: gross_notional(1, 1), "quantity has no positions"),
        (lambda: gross_notional([1e308, 1e308], 1.0), "the sum of notionals is too large"),
        (lambda: account_rate(0, 1), "notional 0.0 must be finite and above 0"),
        (lambda: order_fee(1, 0, 0), "price 0.0 must be finite and above 0"),
        (lambda: leverage_after_order(0, 1, 1, 1, 1, 1), "collateral 0.0 must be finite and above"),
        (
            lambda: liquidation_price_after_order(1, 1, 0, 1, 1, 0, 1, 0, 1, 2, 0),
            "base_rate 2.0 must be 0.0 to 1.0",
        ),
        (
            lambda: isolated_after_order(IsolatedPosition(1, 1, 1), 1, 1, 0),
            "leverage 0.0 must be finite and above 0",
        ),
        (
            lambda: power_isolated_liquidation_price(IsolatedPosition(math.inf, 1, 1), 1, 0, 0),
            "position.quantity inf must be finite",
        ),
        (lambda: max_order_cross("hold", 1, 1, 0, 1, 0), "side 'hold' is not one of buy, sell"),  # type: ignore[arg-type]
        (lambda: max_order_cross("buy", 1, -1, 0, 1, 0), "collateral -1.0 must be finite and not"),
        (lambda: max_order_isolated("hold", 1, 1, 1), "side 'hold' is not one of buy, sell"),  # type: ignore[arg-type]
        (lambda: max_order_isolated("buy", 1, 1, 1, safety=2), "safety 2.0 must be 0.0 to 1.0"),
        (lambda: max_withdrawal(1, math.nan, 1), "free_collateral nan must be finite"),
        (lambda: max_withdrawal_of_asset(-1, 1, 1, 1), "quantity -1.0 must be finite and not"),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_bound(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_arrays_broadcast() -> None:
    found = power_liquidation_price(np.array([[5], [-5]]), [90, 100, 110], 300, 0, 0.05, 1e-6)
    assert np.shape(found) == (2, 3)
