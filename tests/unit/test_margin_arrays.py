"""Array functions of riskd.margin loop in compiled code: Python does as much for 4,096 rows as for
8."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

from riskd import margin
from riskd.margin import Calculator, PowerLaw, Rule, SizeLinear, Tier, TierSchedule

TIERS = TierSchedule((Tier.of(0, "0.004"), Tier.of(50_000, "0.005"), Tier.of(600_000, "0.01")))
PLAIN = Calculator(TIERS)
OTHERS = [
    Calculator(SizeLinear.of("0.02", "0.00005", "0.01", "0.00005")),
    Calculator(PowerLaw.of("0.02", "0.012", "0.00000015", "0.8"), Rule(contract="inverse")),
    Calculator(TIERS, Rule(tier_mode="whole", wallet="equity", fee_in_liquidation="at_bankruptcy")),
]
Floats = Any


def book(x: Floats) -> dict[str, Any]:
    return {
        "quantity": x * np.where(np.arange(len(x)) % 2, 1.0, -1.0),
        "entry_price": 100 + x,
        "mark_price": 101 + x,
        "wallet": 20 * x,
        "leverage": 1 + x,
    }


def structured(x: Floats) -> Any:
    columns = book(x)
    rows = np.zeros(len(x), [(name, "f8") for name in columns])
    for name, column in columns.items():
        rows[name] = column
    return rows


def whole(x: Floats) -> Any:
    return (1000 * x).astype(np.int64)


CALLS: dict[str, Callable[[Floats], object]] = {
    "requirements": lambda x: PLAIN.requirements(book(x)),
    "requirements of a structured array": lambda x: PLAIN.requirements(structured(x)),
    "liquidation_prices": lambda x: PLAIN.liquidation_prices(book(x)),
    "bankruptcy_prices": lambda x: PLAIN.bankruptcy_prices(book(x)),
    "other families": lambda x: [
        (each.requirements(book(x)), each.liquidation_prices(book(x))) for each in OTHERS
    ],
    "option_margin": lambda x: margin.option_margin(
        margin.DERIBIT, x > 3, -x, 100 + x, 0.05, strike=110.0
    ),
    "option_order_margin": lambda x: margin.option_order_margin(
        "sell_open", 1.0, x, fee=0.1, margin=3 * x
    ),
    "option_fee": lambda x: margin.option_fee(x, 100.0, x, rate=0.0003, price_part_max=0.125),
    "max_loss_at_expiry": lambda x: margin.max_loss_at_expiry(
        ["call", "call"], [100.0, 110.0], np.stack([-x, x], axis=-1)
    ),
    "naked_option_margin": lambda x: margin.naked_option_margin("put", -x, 100.0, 90 + x, 0.2),
    "power_maintenance_rate": lambda x: margin.power_maintenance_rate(1e6 * x, 0.012, 0.02, 1e-7),
    "power_liquidation_price": lambda x: margin.power_liquidation_price(
        x, 100.0, 30 * x, 0.0, 0.012, 6e-8
    ),
    "max_order_cross": lambda x: margin.max_order_cross("buy", 100.0, 50 * x, x, 0.1, 0.0006),
    "max_withdrawal": lambda x: margin.max_withdrawal(x, 2 * x, 1.0),
    "open_interest_initial_margin": lambda x: margin.open_interest_initial_margin(
        whole(x), 50_000, whole(x), 1000, 5000
    ),
    "asset_weight": lambda x: margin.asset_weight(whole(x), 1000, 8000),
    "perp_bucket": lambda x: margin.perp_bucket(whole(x), -whole(x), 10**6, 1000),
    "risk_factor_liquidation_price": lambda x: margin.risk_factor_liquidation_price(
        100.0, x, 30 * x, 0.1, 0.1, margin.Slippage(0.01)
    ),
    "isolated_order_margin": lambda x: margin.isolated_order_margin(
        0, np.arange(len(x)) % 2 == 0, whole(x), 50, "0.5", 10
    ),
}


def python_calls(question: Callable[[Floats], object], rows: int) -> int:
    """Count the calls, of Python and of C functions, that a question makes for so many rows."""
    count = 0

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    numbers = np.linspace(0.5, 5.0, rows)
    question(numbers)
    # A collection in between would call what others have asked it to call.
    gc.collect()
    gc.disable()
    sys.setprofile(counted)
    try:
        question(numbers)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@pytest.mark.parametrize("name", CALLS)
def test_python_does_as_much_for_many_rows_as_for_few(name: str) -> None:
    assert python_calls(CALLS[name], 4096) == python_calls(CALLS[name], 8)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: margin.order_fee(x, 1.0, 0.1),
        lambda x: margin.open_interest_rate_ppm(1000, x, 1, 10),
        lambda x: margin.option_margin(margin.REG_T, "put", -1.0, 100.0, x, strike=100.0),
    ],
)
def test_masked_elements_are_refused(call: Callable[[Floats], object]) -> None:
    figures = np.ma.array([1, 2], mask=[False, True])
    with pytest.raises(ValueError, match="has masked elements"):
        call(figures)
    call(np.ma.array([1, 2], mask=False))
