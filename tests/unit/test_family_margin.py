"""Open interest, risk factors, weights and buckets: figures by hand, edges, and errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest

from riskd.margin import (
    Bucket,
    LevelFactors,
    MarginLevels,
    MarginTransfer,
    Slippage,
    account_bankruptcy_price,
    asset_weight,
    base_to_cover_shortage,
    fill_weight,
    fraction_maintenance_margin,
    isolated_order_margin,
    isolated_transfer,
    liability_to_cover_shortage,
    liability_weight,
    lognormal_risk_factors,
    maintenance_rate_ppm,
    margin_levels,
    open_interest_initial_margin,
    open_interest_rate_ppm,
    partial_bankruptcy_price,
    perp_bucket,
    pool_scaled_weight,
    quote_quantums,
    risk_factor_liquidation_price,
    risk_factor_maintenance,
    spot_bucket,
    token_value,
)

MAX = 2**63 - 1
ONE = 10**9
USD = 10**6


def test_quantums_are_rounded_down() -> None:
    assert quote_quantums("0.1", 50000) == 5_000_000_000
    assert quote_quantums("1e-7", "0.9") == 0
    assert quote_quantums("-1e-7", "0.9") == -1


def test_the_rate_rises_on_a_line_between_the_caps() -> None:
    found = open_interest_rate_ppm(200_000, [0, 100, 150, 199, 200, MAX], 100, 200)
    assert np.array_equal(found, [200_000, 200_000, 600_000, 992_000, 1_000_000, 1_000_000])
    assert open_interest_rate_ppm(200_000, 150, 100, 200, custom_ppm=700_000) == 700_000
    assert open_interest_rate_ppm(200_000, MAX, 0, 0) == 200_000
    # One cap: a step.
    assert np.array_equal(open_interest_rate_ppm(1, [100, 101], 100, 100), [1, 1_000_000])


def test_margins_of_chains_are_rounded_up_and_rates_down() -> None:
    assert open_interest_initial_margin(1, 1, 0, 0, 0) == 1
    assert open_interest_initial_margin(MAX, 1_000_000, 0, 0, 0) == MAX
    assert maintenance_rate_ppm(637_239, 289_284) == 184_343
    assert fraction_maintenance_margin(1_000_000, 637_239, 289_284) == 184_344
    assert fraction_maintenance_margin(MAX, 1_000_000) == MAX


def test_a_part_releases_collateral_in_proportion_to_its_maintenance() -> None:
    assert partial_bankruptcy_price(-100, -10, 30, 20) == 100 - 15
    assert partial_bankruptcy_price(-100, -10, -3, 20) == 100 + 2
    assert partial_bankruptcy_price(100, -10, 3, 20) == -100 - 1
    assert account_bankruptcy_price(-40, [100, -50], [100_000, 200_000], 0, 50) == 50 - 2


def test_risk_factors_are_expected_shortfalls() -> None:
    # mpmath at 50 digits: level 1e-8, horizon 0.1 years, volatility 1.
    found = lognormal_risk_factors(1e-8, 0.1, 0, 1)
    assert found.short == pytest.approx(4.92568393513631162, rel=1e-13)
    assert found.long == pytest.approx(0.84689037923178410, rel=1e-12)
    assert (
        lognormal_risk_factors(0.1, 0.1, 0.5, 1).short
        > lognormal_risk_factors(0.1, 0.1, 0, 1).short
    )


def test_maintenance_is_of_the_riskier_side() -> None:
    slip = Slippage(0.1, 0.01)
    assert risk_factor_maintenance(100, 2, 0.2, 0.3, slip) == pytest.approx(20 + 4 + 40)
    assert risk_factor_maintenance(100, -2, 0.2, 0.3, slip) == pytest.approx(20 + 4 + 60)
    assert risk_factor_maintenance(100, 0, 0.2, 0.3, slip) == 0
    # Sells of 5 make a short of 3, whose orders need 5 * 0.3; the long position needs less.
    assert risk_factor_maintenance(100, 2, 0.2, 0.3, slip, sell_volume=5) == pytest.approx(150)
    assert risk_factor_maintenance(100, 2, 0.2, 0.3, slip, buy_volume=5) == pytest.approx(164)
    assert risk_factor_maintenance(
        100, 2, 0.2, 0.3, slip, exit_slippage_per_unit=1
    ) == pytest.approx(42)
    assert risk_factor_maintenance(100, 2, 0.2, 0.3, slip, funding_per_unit=3) == pytest.approx(70)
    assert risk_factor_maintenance(100, 2, 0.2, 0.3, slip, funding_per_unit=-3) == pytest.approx(64)


def test_the_liquidation_price_by_a_risk_factor_at_the_edges() -> None:
    none = Slippage()
    assert risk_factor_liquidation_price(100, 1, 50, 0.2, 0.2, none) == pytest.approx(62.5)
    assert risk_factor_liquidation_price(100, -1, 50, 0.2, 0.2, none) == pytest.approx(125)
    assert risk_factor_liquidation_price(100, 1, 150, 0.2, 0.2, none) == 0
    assert math.isnan(risk_factor_liquidation_price(100, 0, 50, 0.2, 0.2, none))
    assert math.isnan(risk_factor_liquidation_price(100, 1, 50, 1, 0.2, none))


def test_levels_are_rounded_down_and_rise() -> None:
    factors = LevelFactors(Decimal("1.1"), Decimal("1.25"), Decimal("1.5"))
    assert margin_levels(101, factors) == MarginLevels(101, 111, 126, 151)
    largest = margin_levels(2**49, LevelFactors(Decimal(2), Decimal(3), Decimal(10_000)))
    assert largest.release == 2**49 * 10_000


def test_orders_of_many_accounts_in_any_order() -> None:
    found = isolated_order_margin(
        [0, 4],
        [True, False, False, True],
        [10, 10, 10, 20],
        [50, 60, 20, 40],
        "0.5",
        10,
        account=[0, 1, 1, 1],
    )
    # 10 * 50; and of the second: sells 6 * 20 + 10 * 60 against buys 20 * 40.
    assert np.array_equal(found, [25, 40])
    assert isolated_order_margin(7, [], [], [], 1, 1) == 0


def test_a_margin_is_truncated_from_the_exact_product() -> None:
    # 3 * 7 * 0.3 = 6.3; in doubles 10 * 3 * 0.1 is not quite 3.
    assert isolated_order_margin(0, [True], [3], [7], "0.3", 1) == 6
    assert isolated_order_margin(0, [True], [10], [3], 0.1, 1) == 3


def test_nothing_moves_when_a_turned_position_keeps_its_balance() -> None:
    found = isolated_transfer(-5, [(25, 10)], False, 25, "0.5", 1)
    assert found == MarginTransfer("none", 0)


def test_a_reduced_position_without_balance_releases_nothing() -> None:
    found = isolated_transfer(5, [(5, 1)], False, 10, "0.5", 1, mark_price=100)
    assert found == MarginTransfer("release", 0)


def test_weights_fall_and_rise_with_size() -> None:
    assert asset_weight(10**18, 10, 9000) == 8357
    assert liability_weight(10**12, 10_000, 11_000) == 11_962
    assert asset_weight(MAX, 2**32 - 1, 9000) == 0
    assert liability_weight(MAX, 2**32 - 1, 0) == math.isqrt(10 * MAX + 1) * (2**32 - 1) // 10**7
    assert fill_weight(9000, 9501) == 9250
    assert pool_scaled_weight(9000, MAX, 0) == 9000
    assert pool_scaled_weight(9000, 3 * USD, 2 * USD) == 6000


def test_values_truncate_towards_zero() -> None:
    assert token_value([15, -15], 1, 1).tolist() == [1, -1]  # type: ignore[union-attr]


def test_an_order_counts_at_its_worse_side() -> None:
    # Bids: 10 at 100 weigh 800 against 1000 paid. Asks: -10 weigh -1200 against 1000.
    both = spot_bucket(0, 100 * USD, 8000, 12000, bids=10 * ONE, asks=10 * ONE, open_orders=2)
    assert both == Bucket(1000 * USD, 1200 * USD + 20_000, 1000 * USD, 0)
    perp = perp_bucket(5 * ONE, -500 * USD, 100 * USD, 1000, bids_1e9=ONE, asks_1e9=20 * ONE)
    assert perp == Bucket(0, 150 * USD, 1500 * USD, 0)


def test_profit_is_weighted_and_loss_is_not() -> None:
    profit = perp_bucket(ONE, -60 * USD, 100 * USD, 1000, profit_weight_1e4=5000)
    assert profit.collateral_1e6 == 20 * USD
    loss = perp_bucket(ONE, -160 * USD, 100 * USD, 1000, profit_weight_1e4=5000)
    assert (loss.collateral_1e6, loss.loss_1e6) == (-60 * USD, 60 * USD)


def test_a_buffer_counts_on_liabilities_and_losses() -> None:
    loss = perp_bucket(ONE, -160 * USD, 100 * USD, 1000)
    assert loss.with_buffer(1000) == Bucket(-66 * USD, 20 * USD, 100 * USD, 60 * USD)
    assert loss.with_buffer(0) == loss


def test_buckets_add_up() -> None:
    rows = spot_bucket([USD, -USD], USD, decimals=6)
    assert rows.total() == Bucket(USD, USD, USD, 0)
    assert rows.total().net_1e6 == 0
    twice = rows + rows
    assert np.array_equal(twice.collateral_1e6, [2 * USD, 0])


def test_no_amount_covers_a_shortage_where_closing_frees_nothing() -> None:
    assert base_to_cover_shortage(10, 100, 10_000, 0, USD) == -1
    assert base_to_cover_shortage(10, 100, 0, 0, 0) == -1
    assert liability_to_cover_shortage(10, 12_000, USD, 12_000, USD, 9, USD) == -1
    assert liability_to_cover_shortage(10 * USD, 8000, USD, 12_000, USD, 2, 100 * USD) == 25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: open_interest_rate_ppm(1, 0, 2, 1), "lower_cap 2 must not be above upper_cap 1"),
        (lambda: open_interest_rate_ppm(1_000_001, 0, 0, 0), "base_ppm 1000001 must be 0 to"),
        (lambda: open_interest_initial_margin(-1, 0, 0, 0, 0), "notional -1 must not be below 0"),
        (lambda: open_interest_initial_margin(1.5, 0, 0, 0, 0), "notional 1.5 must be a whole"),
        (lambda: open_interest_initial_margin(2**63, 0, 0, 0, 0), "notional 9.* not fit 64 bits"),
        (lambda: maintenance_rate_ppm(1, [0, 2_000_000]), r"fraction_ppm 2000000 .*\(element 1\)"),
        (lambda: partial_bankruptcy_price(1, 1, 1, 0), "maintenance 0 must be above 0"),
        (lambda: partial_bankruptcy_price(1, 30, 1, 20), "a result is too large: notional_change"),
        (lambda: partial_bankruptcy_price(-MAX, 1, -MAX, 1), "a result is too large"),
        (lambda: account_bankruptcy_price(0, [1], [1, 2], 0, 0), "notionals and maintenance_ppm"),
        (lambda: account_bankruptcy_price(0, [1], [1], 1, 0), "closing 1 must be 0 to 0"),
        (lambda: account_bankruptcy_price(0, [10], [1], 0, 11), "notional_after 11 must lie"),
        (lambda: account_bankruptcy_price(0, [10], [1], 0, 10), "notional_after 10 must lie"),
        (lambda: account_bankruptcy_price(0, [-10], [1], 0, 1), "notional_after 1 must lie"),
        (lambda: lognormal_risk_factors(1, 1, 0, 1), "risk_aversion 1 must be above 0 and below"),
        (lambda: lognormal_risk_factors(0.1, 0, 0, 1), "time_years 0 must be finite and above 0"),
        (lambda: lognormal_risk_factors(0.1, 1, math.inf, 1), "drift inf must be finite"),
        (lambda: lognormal_risk_factors(0.1, 1, 1000, 1), "drift 1000 over 1 years is too large"),
        (lambda: lognormal_risk_factors(0.1, 1, 0, math.nan), "volatility nan must be finite"),
        (
            lambda: risk_factor_maintenance(0, 1, 0, 0, Slippage()),
            "mark_price 0.0 must be finite and above 0",
        ),
        (
            lambda: risk_factor_maintenance(1, 1, 0, 0, Slippage(-1)),
            "slippage.linear -1.0 must be finite and not below 0",
        ),
        (
            lambda: risk_factor_liquidation_price(1, 1, 1e308, 1, 1, Slippage(1e308, 1e308)),
            "a result is too large|slippage",
        ),
        (
            lambda: LevelFactors(Decimal(1), Decimal(2), Decimal(3)),
            "level factors must rise from above 1: search 1",
        ),
        (
            lambda: margin_levels(2**49 + 1, LevelFactors(Decimal(2), Decimal(3), Decimal(4))),
            "maintenance 562949953421313 must be 0 to 2\\^49",
        ),
        (
            lambda: margin_levels(1, LevelFactors(Decimal("1.000001"), Decimal(3), Decimal(4))),
            "search 1.000001 is not a whole number of 1e-5",
        ),
        (
            lambda: margin_levels(1, LevelFactors(Decimal(2), Decimal(3), Decimal(10_001))),
            "release 10001 must be at most 10000",
        ),
        (lambda: isolated_order_margin(0, [1], [-1], [1], 1, 1), r"quantity -1 must not be below"),
        (lambda: isolated_order_margin(0, [2], [1], [1], 1, 1), r"is_buy 2 must be 0 or 1"),
        (
            lambda: isolated_order_margin([0, 0], [1], [1], [1], 1, 1, account=[2]),
            r"account 2 must be an account's index",
        ),
        (lambda: isolated_order_margin(0, [1], [1], [1], -1, 1), "margin_factor -1 must not be"),
        (lambda: isolated_order_margin(0, [1], [1], [1], 1001, 1), "margin_factor 1001 must be at"),
        (lambda: isolated_order_margin(0, [1], [1], [1], 1, 0), "position_factor 0 must be 1 to"),
        (lambda: isolated_order_margin(0, [1], [MAX], [MAX], 1, 1), "a result is too large"),
        (lambda: isolated_transfer(1, [], True, 0, 1, 1), r"trades \[\] must have quantities"),
        (
            lambda: isolated_order_margin(0, ["x"], [1], [1], 1, 1),
            "is_buy .* must be a whole number",
        ),
        (
            lambda: isolated_transfer(1, [(1.5, 1)], True, 0, 1, 1),  # type: ignore[list-item]
            "trades 1.5 must be a whole number",
        ),
        (
            lambda: perp_bucket(1, 1, USD, 1).with_buffer(0.1),
            "buffer_1e4 0.1 must be a whole number",
        ),
        (lambda: isolated_transfer(1, [(0, 1)], True, 0, 1, 1), r"trades \[\(0, 1\)\] must have"),
        (lambda: isolated_transfer(1, [(1, 1)], True, -1, 1, 1), "margin_balance -1 must not be"),
        (lambda: isolated_transfer(1, [(1, 1)], True, 0, 1, 0), "position_factor 0 must be above"),
        (lambda: isolated_transfer(1, [(1, 1)], False, 0, 1, 1), "mark_price is missing"),
        (lambda: asset_weight(-1, 0, 0), "size_1e9 -1 must not be below 0"),
        (lambda: asset_weight(1, 2**32, 0), "imf_1e6 4294967296 must be 0 to 4294967295"),
        (lambda: asset_weight(True, 1, 1), "size_1e9 True must be a whole number"),
        (lambda: fill_weight(-1, 0), "initial_1e4 -1 must be 0 to 4294967295"),
        (lambda: pool_scaled_weight(1, -1, 0), "pool_value_1e6 -1 must not be below 0"),
        (lambda: token_value(MAX, MAX, 0), "a result is too large: tokens"),
        (lambda: token_value(1, 1, 19), "decimals 19 must be 0 to 18"),
        (lambda: spot_bucket(1, 0), "price_1e6 0 must be above 0"),
        (lambda: spot_bucket(1, 1, bids=-1), "bids -1 must not be below 0"),
        (lambda: spot_bucket(MAX, USD, bids=MAX), "a result is too large"),
        (lambda: perp_bucket(1, 1, 1, 1, asks_1e9=-1), "asks_1e9 -1 must not be below 0"),
        (lambda: perp_bucket(-MAX, 0, 1, 1, asks_1e9=MAX), "a result is too large"),
        (lambda: perp_bucket(1, 1, 1, 1, profit_weight_1e4=10_001), "profit_weight_1e4 10001 must"),
        (lambda: perp_bucket(1, 1, USD, 1).with_buffer(10_001), "buffer_1e4 10001 must be 0 to"),
        (
            lambda: Bucket(np.array([MAX]), 0, 0, 0) + Bucket(np.array([1]), 0, 0, 0),
            "a sum of buckets does not fit 64 bits",
        ),
        (lambda: Bucket(np.array([MAX, MAX]), 0, 0, 0).total(), "a sum of buckets does not fit"),
        (lambda: base_to_cover_shortage(-1, 1, 0, 0, 1), "shortage_1e6 -1 must not be below 0"),
        (
            lambda: liability_to_cover_shortage(1, 1, 1, 1, 0, 1, 1),
            "liability_multiplier_1e6 0 must be 1 to 4294967295",
        ),
        (
            lambda: liability_to_cover_shortage(MAX, 0, 0, 1, 1, 18, 1),
            "a result is too large",
        ),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_bound(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
