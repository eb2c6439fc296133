"""riskd.margin on arrays: shapes, structured arrays, single numbers, and what is refused."""

from typing import Any

import numpy as np
import pytest

from riskd.margin import (
    Calculator,
    LiquidationStatus,
    Rule,
    Schedule,
    SizeLinear,
    Tier,
    TierSchedule,
    bankruptcy_prices,
    liquidation_prices,
    requirements,
)

# Binance BTCUSDT in 2021.
TIERS = TierSchedule(
    (
        Tier.of(0, "0.004", max_leverage=125),
        Tier.of(50_000, "0.005", max_leverage=100),
        Tier.of(250_000, "0.01", max_leverage=50),
    )
)
ONE: dict[str, Any] = {"quantity": 1.0, "entry_price": 50_000.0, "wallet": 5_000.0}


def test_numbers_in_numbers_out() -> None:
    found = requirements({"quantity": 2, "mark_price": 50_000, "leverage": 20}, TIERS)
    # 0.005 * 100,000 - 50
    assert (found.initial, found.maintenance) == (5_000.0, 450.0)
    assert type(found.maintenance) is float
    # (50,000 - 5,000) / 0.996: still in the first tier
    prices = liquidation_prices(ONE, TIERS)
    assert prices.price == pytest.approx(45_000 / 0.996, rel=1e-15)
    assert prices.status == LiquidationStatus.AT_PRICE
    assert bankruptcy_prices(ONE).price == 45_000.0


def test_fields_broadcast() -> None:
    sizes = np.array([[1.0], [-2.0]])
    marks = np.array([40_000.0, 50_000.0, 60_000.0])
    found = requirements({"quantity": sizes, "mark_price": marks, "leverage": 10}, TIERS)
    assert found.initial.tolist() == [[4_000, 5_000, 6_000], [8_000, 10_000, 12_000]]
    assert found.maintenance.tolist() == [[160, 200, 250], [350, 450, 550]]


def test_structured_arrays_and_strided_columns_give_the_same() -> None:
    count = 1_000
    rows = np.zeros(count, [("quantity", "f8"), ("mark_price", "f4"), ("leverage", "i4")])
    rows["quantity"] = np.linspace(-9, 9, count)
    rows["mark_price"] = 50_000
    rows["leverage"] = 1 + np.arange(count) % 100
    columns: Any = {name: np.ascontiguousarray(rows[name], "f8") for name in rows.dtype.names or ()}
    whole = requirements(rows, TIERS)
    for got, wanted in zip(whole, requirements(columns, TIERS), strict=True):
        assert np.array_equal(got, wanted)
    for got, wanted in zip(whole, requirements(rows[::-3], TIERS), strict=True):
        assert np.array_equal(got[::-3], wanted)
    assert requirements(rows[7], TIERS) == (whole.initial[7], whole.maintenance[7])


def test_no_positions_are_no_figures() -> None:
    found = requirements({"quantity": [], "mark_price": 1.0}, TIERS)
    assert found.initial.shape == (0,)


def test_a_status_says_why_there_is_no_price() -> None:
    columns: dict[str, Any] = {"quantity": [1, 0, -1], "entry_price": 100}
    found = liquidation_prices(columns | {"wallet": [100, 1, -200]}, TIERS)
    assert found.status.tolist() == [
        LiquidationStatus.CANNOT_BE_LIQUIDATED,
        LiquidationStatus.NO_POSITION,
        LiquidationStatus.AT_PRICE,
    ]
    assert np.isnan(found.price[:2]).all()
    assert found.price[2] == 0.0


def test_single_calls_are_the_arrays() -> None:
    calculator = Calculator(TIERS)
    assert calculator.margin(2.0, 50_000.0, 20.0) == (5_000.0, 450.0)
    assert calculator.liquidation_price(1.0, 50_000.0, 5_000.0) == (
        calculator.liquidation_prices(ONE).price
    )
    with pytest.raises(ValueError, match=r"leverage 0.5 must not be below 1"):
        calculator.margin(2.0, 50_000.0, 0.5)
    with pytest.raises(ValueError, match=r"fee_rate 1.0 must be 0 or more and below 1"):
        calculator.liquidation_price(1.0, 1.0, 1.0, 1.0)


MANY = 300


@pytest.mark.parametrize("index", [0, 299, 255, 256])
@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("quantity", np.nan, "nan must be finite"),
        ("mark_price", -1.0, "-1.0 must be above 0"),
        ("mark_price", np.inf, "inf must be above 0"),
        ("leverage", 0.5, "0.5 must not be below 1"),
        ("fee_rate", 1.0, "1.0 must be 0 or more and below 1"),
        ("multiplier", 0.0, "0.0 must be above 0"),
        ("open_loss", -1.0, "-1.0 must not be below 0"),
        ("open_interest", np.nan, "nan must not be below 0"),
    ],
)
def test_a_figure_out_of_bounds_is_named(field: str, value: float, says: str, index: int) -> None:
    columns: dict[str, Any] = {"quantity": 1.0, "mark_price": 100.0}
    columns[field] = np.full(MANY, columns.get(field, 1.0 if field != "fee_rate" else 0.0))
    columns[field][index] = value
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is compared below
        requirements(columns, TIERS)
    assert str(refused.value) == f"positions.{field}[{index}] {says}"


@pytest.mark.parametrize(
    ("positions", "rule", "says"),
    [
        ({"mark_price": 1.0}, Rule(), "positions.quantity is missing"),
        ({"quantity": 1.0, "entry_price": 1.0}, Rule(), "positions.leverage is missing"),
        (ONE | {"price": 1.0}, Rule(), "positions.price is not one of quantity, entry_price,"),
        (ONE, Rule(wallet="equity"), "positions.mark_price is missing"),
        (ONE | {"fee_rate": 0.1}, Rule(wallet="margin_and_fee"), "positions.leverage is missing"),
        (ONE, Rule(maintenance_basis="session_average"), "positions.session_price is missing"),
        (ONE | {"wallet": "much"}, Rule(), "positions.wallet must be numbers"),
        (ONE | {"wallet": "1"}, Rule(), "positions.wallet must be numbers, got <U1"),
        (ONE | {"wallet": True}, Rule(), "positions.wallet must be numbers, got bool"),
        (ONE | {"wallet": np.zeros(1, "M8[s]")}, Rule(), "must be numbers, got datetime64"),
        (
            ONE | {"wallet": np.ma.array([1.0, 2.0], mask=[False, True])},
            Rule(),
            "positions.wallet has masked elements",
        ),
        (ONE | {"schedule": 0}, Rule(), "positions.schedule is given, but there is one schedule"),
        (
            ONE | {"quantity": [1, 2], "wallet": [1, 2, 3]},
            Rule(),
            r"positions: shapes do not broadcast: quantity \(2,\), entry_price \(\), wallet \(3,\)",
        ),
        (
            ONE | {"fee_rate": 0.999},
            Rule(fee_in_liquidation="at_liquidation"),
            "positions: maintenance and fee rate must be below 1",
        ),
        (ONE | {"quantity": 1e308}, Rule(), "positions: figures are beyond double precision"),
        (np.zeros(3), Rule(), "positions: an array of float64 has no fields"),
        (7, Rule(), "positions must be a mapping or a structured array, got 7"),
    ],
)
def test_positions_that_cannot_be_answered_are_refused(
    positions: Any, rule: Rule, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        liquidation_prices(positions, TIERS, rule)


def test_what_is_no_schedule_is_named() -> None:
    with pytest.raises(TypeError, match=r"one of riskd.margin.Schedule, got None"):
        requirements(ONE, None)  # type: ignore[arg-type]  # the mistake in question


def test_a_schedule_out_of_range_is_named() -> None:
    several: list[Schedule] = [TIERS, SizeLinear.of("0.02", "0.00005", "0.01", "0.00005")]
    columns: dict[str, Any] = {"quantity": [25, 25], "mark_price": 100_000}
    found = requirements(columns | {"schedule": [0, 1]}, several)
    assert found.maintenance.tolist() == [23_700.0, 28_125.0]
    with pytest.raises(ValueError, match=r"positions.schedule\[1\] 2 is not within 0 to 1"):
        requirements(columns | {"schedule": [0, 2]}, several)
    with pytest.raises(ValueError, match=r"positions.schedule must be whole numbers"):
        requirements(columns | {"schedule": [0, 0.5]}, several)
    with pytest.raises(ValueError, match=r"positions.schedule is missing"):
        requirements(columns, several)
