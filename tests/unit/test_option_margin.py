"""Margin of options: venues' rules by hand, orders, the largest loss, naked shorts, and errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from riskd import margin
from riskd.margin import (
    AEVO,
    BINANCE_HYPOTHESIS,
    BIT_COM,
    BYBIT,
    DERIBIT,
    DERIVE,
    GATE,
    OKX,
    OKX_2020,
    REG_T,
    REG_T_WITH_MINIMUM,
    OptionRule,
    UpperBounds,
    excess_collateral,
    max_loss_at_expiry,
    naked_option_margin,
    option_fee,
    option_margin,
    option_order_margin,
    option_premium,
    out_of_the_money,
)
from riskd.margin.options import OrderAction
from riskd.rulebooks import load
from riskd.rulebooks.library import option_rule

RULES = {
    "aevo": AEVO,
    "binance": BINANCE_HYPOTHESIS,
    "bit.com": BIT_COM,
    "bybit": BYBIT,
    "deribit": DERIBIT,
    "derive": DERIVE,
    "gate": GATE,
    "okx": OKX,
    "okx 2020": OKX_2020,
    "reg-t": REG_T,
    "reg-t with minimum": REG_T_WITH_MINIMUM,
}


@pytest.mark.parametrize(
    ("rule", "kind", "strike", "mark", "initial", "maintenance"),
    [
        # At an underlying of 1000: (a - OTM/U) or b, and the mark; c and the mark.
        (BIT_COM, "call", 1020, 30, 130 + 30, 75 + 30),
        (BIT_COM, "call", 1200, 5, 100 + 5, 75 + 5),
        (BIT_COM, "put", 960, 20, 110 + 20, 75 + 20),
        # Deep in the money: the put's maintenance is of its mark, and initial is not less.
        (BIT_COM, "put", 3000, 2000, 150 + 2000, 150 + 2000),
        (DERIVE, "put", 3000, 2000, 1.05 * 2150, 2150),
        (DERIVE, "call", 1020, 30, 160, 105),
        (AEVO, "call", 1020, 30, 160, 130),
        (AEVO, "put", 1000, 0, 150, 100),
        (BYBIT, "call", 1020, 30, 160, 30 + 30 + 2),
        (BYBIT, "put", 3000, 2000, 150 + 2000, 60 + 2000 + 2),
        # 0.10 * (1000 + 200) beats 0.15 * 1000 - 40 for a put only.
        (GATE, "put", 960, 200, 120 + 200, 75 + 200),
        (GATE, "call", 1040, 200, 110 + 200, 75 + 200),
        (BINANCE_HYPOTHESIS, "call", 1010, 30, 140 + 30, 65 + 30),
        (BINANCE_HYPOTHESIS, "call", 1100, 3, 100 + 3, 50 + 3),
        # 20% of 1000 less 150, or 10% of the stock (call) or the strike (put).
        (REG_T, "call", 1150, 4, 100 + 4, 104),
        (REG_T, "put", 850, 4, 85 + 4, 89),
        (REG_T, "put", 950, 4, 150 + 4, 154),
    ],
)
def test_a_short_option_needs_what_the_venue_says(
    rule: OptionRule, kind: str, strike: float, mark: float, initial: float, maintenance: float
) -> None:
    found = option_margin(rule, kind, -1, 1000, mark, strike=strike)
    assert found.initial == pytest.approx(initial, rel=1e-12)
    assert found.maintenance == pytest.approx(maintenance, rel=1e-12)


def test_the_floor_of_the_put_of_2020_grows_with_its_mark() -> None:
    # max(0.10 * 1.2, 0.15 - 0.05) + 0.2 in coin; a call keeps 0.10.
    put = option_margin(OKX_2020, "put", -1, 1000, 0.2, strike=950)
    call = option_margin(OKX_2020, "call", -1, 1000, 0.2, strike=1050)
    assert put.initial == pytest.approx(0.12 + 0.2)
    assert call.initial == pytest.approx(0.10 + 0.2)


def test_the_tier_factor_multiplies_rates_and_not_the_mark() -> None:
    plain = option_margin(OKX, "call", -1, 5900, 0.0575, otm=100)
    tiered = option_margin(OKX, "call", -1, 5900, 0.0575, otm=100, tier_factor=1.02)
    assert tiered.initial - 0.0575 == pytest.approx(1.02 * (plain.initial - 0.0575))
    assert tiered.maintenance - 0.0575 == pytest.approx(1.02 * (plain.maintenance - 0.0575))


def test_in_cash_the_rates_count_on_the_index_and_the_money_on_the_forward() -> None:
    cash = replace(OKX, settlement="cash")
    found = option_margin(cash, "call", -2, 1010, 30, strike=1030.2, index=1000)
    # 0.15 - 20.2 / 1010 = 0.13 of the index.
    assert found.initial == pytest.approx(2 * (130 + 30))
    assert found.maintenance == pytest.approx(2 * (30 + 30))


def test_entry_price_counts_where_the_rule_says_so() -> None:
    assert option_margin(BYBIT, "call", -1, 1000, 30, strike=1000, entry_price=50).initial == 200
    assert option_margin(BYBIT, "call", -1, 1000, 30, strike=1000, entry_price=20).initial == 180
    assert option_margin(AEVO, "call", -1, 1000, 30, strike=1000, entry_price=50).initial == 180


def test_the_minimum_is_of_a_unit_and_counts_alone() -> None:
    found = option_margin(REG_T_WITH_MINIMUM, "put", -2, 5, 0.1, strike=2, multiplier=100)
    assert found.initial == found.minimum == 2 * 100 * 2.5
    assert found.floor == pytest.approx(2 * 100 * (0.2 + 0.1))


@pytest.mark.parametrize(
    ("book", "name", "rule"),
    [
        ("aevo", "OPTIONS", AEVO),
        ("bybit_options", "BTC", BYBIT),
        ("deribit", "BTC", DERIBIT),
        ("derive", "OPTIONS", DERIVE),
        ("okx", "BTC-USD", OKX),
        ("reg_t", "EQUITY", REG_T),
        ("reg_t", "EQUITY_WITH_MINIMUM", REG_T_WITH_MINIMUM),
    ],
)
def test_the_records_are_those_of_the_rulebooks(book: str, name: str, rule: OptionRule) -> None:
    assert option_rule(load(book).option_rule(name)) == rule


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", ["call", "put"])
def test_a_long_option_needs_only_its_premium(rule: OptionRule, kind: str) -> None:
    found = option_margin(rule, kind, [3, 0], 1000, 0.01, strike=1000)
    assert np.all(found.initial == 0)
    assert np.all(found.maintenance == 0)
    assert option_premium(3, 0.01, 10) == pytest.approx(0.3)


def test_scalars_give_floats_and_arrays_broadcast() -> None:
    one = option_margin(DERIBIT, "call", -1, 1000, 0.01, strike=1000)
    assert isinstance(one.initial, float)
    many = option_margin(
        DERIBIT, ["call", "put", "P"], np.full((2, 1), -1.0), 1000, 0.01, strike=[1000, 900, 800]
    )
    assert np.shape(many.initial) == (2, 3)
    assert np.asarray(many.initial)[1, 0] == one.initial


def test_kinds_are_texts_or_booleans() -> None:
    texts = out_of_the_money(["call", "C", "Put", "p"], 110, 100)
    assert np.array_equal(texts, [10, 10, 0, 0])
    assert np.array_equal(out_of_the_money([True, False], 110, 100), [10, 0])
    assert out_of_the_money("PUT", 90, 100) == 10


@pytest.mark.parametrize(
    ("action", "expected"),
    [("buy_open", 120.0), ("sell_open", 90.0), ("sell_close", 0.0), ("buy_close", 0.0)],
)
def test_an_order_locks_in_what_filling_takes(action: OrderAction, expected: float) -> None:
    found = option_order_margin(action, 10, 10, fee=2, margin=15, minimum=9)
    assert found == expected


def test_orders_that_close_lock_in_what_is_missing() -> None:
    assert option_order_margin("sell_close", 2, 1, fee=1.5) == 1.0
    assert option_order_margin("buy_close", 2, 20, fee=1, margin=15) == 12.0
    assert option_order_margin("sell_open", 2, 20, margin=50) == 60.0


def test_the_fee_is_at_most_a_part_of_the_price() -> None:
    assert option_fee(-2, 1000, 100, rate=0.0003, price_part_max=0.125) == pytest.approx(0.6)
    assert option_fee(2, 1000, 1, rate=0.0003, price_part_max=0.125) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("kinds", "strikes", "sizes", "cash", "coin"),
    [
        (["call"], [100], [-2], math.inf, 2.0),
        (["put"], [100], [-2], 200.0, math.inf),
        (["call"], [100], [2], 0.0, 0.0),
        # A call spread. A put spread's loss of 10 in cash is any number of coins near zero.
        (["call", "call"], [100, 125], [-1, 1], 25.0, 0.2),
        (["put", "put", "call", "call"], [80, 90, 110, 120], [1, -1, -1, 1], 10.0, math.inf),
        (["put", "put", "call", "call"], [80, 80, 100, 125], [1, -1, -1, 1], 25.0, 0.2),
        (["call", "put", "call"], [100, 100, 150], [-1, -1, 1], 100.0, math.inf),
        (["call", "call"], [100, 100], [-1, 1], 0.0, 0.0),
        # The sum of these sizes is not 0 in doubles, and yet there is no open end.
        (["call"] * 3, [100, 100, 100], [0.1, 0.2, -0.3], 0.0, 0.0),
        (["call", "put"], [100, 90], [0, -1], 90.0, math.inf),
    ],
)
def test_the_largest_loss_is_at_zero_at_a_strike_or_without_end(
    kinds: list[str], strikes: list[float], sizes: list[float], cash: float, coin: float
) -> None:
    assert max_loss_at_expiry(kinds, strikes, sizes) == pytest.approx(cash, abs=1e-12)
    found = max_loss_at_expiry(kinds, strikes, sizes, settlement="coin")
    assert found == pytest.approx(coin, abs=1e-12)


def test_portfolios_are_rows() -> None:
    found = max_loss_at_expiry("put", [[250, 200], [200, 250]], [[-1, 1], [-1, 1]])
    assert np.array_equal(found, [50.0, 0.0])


def test_a_naked_short_has_a_floor_and_its_shocked_intrinsic_value() -> None:
    # Shocked to 112.5: out of the money u * K, in the money u * 112.5 and the rest.
    assert naked_option_margin("put", -1, 100, 150, 0.2) == pytest.approx(20)
    assert naked_option_margin("put", -1, 200, 150, 0.2) == pytest.approx(0.2 * 112.5 + 87.5)
    # In coin, against 200: K / 200 of the coin.
    assert naked_option_margin("call", -2, 100, 150, 0.2) == pytest.approx(2 * (0.1 + 0.5))
    assert naked_option_margin("call", 2, 100, 150, 0.2) == 0.0


def test_a_time_between_two_counts_as_the_later() -> None:
    bounds = UpperBounds((7.0, 14.0), (0.1, 0.2))
    assert bounds.at(0.5) == 0.1
    assert np.array_equal(bounds.at([7, 7.1, 14]), [0.1, 0.2, 0.2])


def short(**changes: object) -> Callable[[], object]:
    arguments: dict[str, object] = {
        "rule": AEVO,
        "option_type": "call",
        "quantity": -1,
        "reference": 1000,
        "mark": 10,
        "strike": 1000,
        **changes,
    }
    return lambda: option_margin(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (short(option_type="straddle"), "option_type 'straddle' must be 'call' or 'put'"),
        (short(option_type=1), "option_type 1 must be 'call' or 'put'"),
        (short(quantity=math.nan), "quantity nan must be finite"),
        (short(quantity="many"), "quantity 'many' must be a number"),
        (short(reference=0), "reference 0.0 must be finite and above 0"),
        (short(reference=[1, math.inf]), r"reference inf must be finite and above 0 \(element 1\)"),
        (short(mark=[0, -1]), r"mark -1.0 must be finite and not below 0 \(element 1\)"),
        (short(strike=-5), "strike -5.0 must be finite and above 0"),
        (short(index=-1), "index -1.0 must be finite and above 0"),
        (short(entry_price=-1), "entry_price -1.0 must be finite and not below 0"),
        (short(tier_factor=0), "tier_factor 0.0 must be finite and above 0"),
        (short(multiplier=0), "multiplier 0.0 must be finite and above 0"),
        (short(otm=-1), "otm -1.0 must be finite and not below 0"),
        (short(strike=None), "strike is missing"),
        (short(rule=REG_T, strike=None, otm=5), "strike is missing"),
        (short(quantity=-1e308, reference=1e308), "a result is too large: quantity -1e[+]308"),
        (short(quantity=[1, 2], mark=[1, 2, 3]), "the shapes do not broadcast: quantity"),
        (lambda: out_of_the_money("put", 1, 0), "reference 0.0 must be finite and above 0"),
        (lambda: option_premium(1, -1), "price -1.0 must be finite and not below 0"),
        (lambda: option_premium(1, 1, 0), "multiplier 0.0 must be finite and above 0"),
        (lambda: option_premium(1e308, 1e308), "a result is too large"),
        (
            lambda: option_fee(1, 1, 1, rate=-1, price_part_max=0),
            "rate -1.0 must be finite and not below 0",
        ),
        (lambda: option_order_margin("roll", 1, 1), "action 'roll' is not one of buy_open"),  # type: ignore[arg-type]
        (lambda: option_order_margin("buy_open", -1, 1), "contracts -1.0 must be finite and not"),
        (lambda: max_loss_at_expiry("call", 1, -1), "quantity has no legs"),
        (lambda: max_loss_at_expiry("call", [[]], [[]]), "quantity has no legs"),
        (
            lambda: max_loss_at_expiry("call", [1, 1], [1, math.nan]),
            r"quantity nan must be finite \(element 1\)",
        ),
        (
            lambda: max_loss_at_expiry("call", [1], [1], settlement="gold"),  # type: ignore[arg-type]
            "settlement 'gold' is not one of cash, coin",
        ),
        (lambda: naked_option_margin("put", -1, 1, 1, 1.1), "upper_bound 1.1 must be 0.0 to 1.0"),
        (lambda: naked_option_margin("put", -1, 1, 1, 0.1, 0), "spot_shock 0.0 must be above 0.0"),
        (lambda: UpperBounds((7.0,), ()), "days and values: 1 and 0"),
        (lambda: UpperBounds((7.0, 7.0), (0.1, 0.1)), "days: 7.0 is not above 7.0"),
        (lambda: UpperBounds((7.0,), (2.0,)), "values: 2.0 must be 0 to 1"),
        (lambda: UpperBounds((7.0,), (0.1,)).at(7.5), "days_left 7.5 must be above 0.0"),
        (lambda: excess_collateral(1, math.inf), "requirement inf must be finite and not below 0"),
        (lambda: replace(AEVO, initial_rate=-0.1), "rule.initial_rate -0.1 must be finite and"),
        (lambda: replace(AEVO, minimum=math.nan), "rule.minimum nan must be finite and not below"),
        (
            lambda: replace(AEVO, settlement="gold"),  # type: ignore[arg-type]
            "rule.settlement 'gold' is not one of cash, coin",
        ),
        (
            lambda: replace(AEVO, maintenance_rate="much"),  # type: ignore[arg-type]
            "rule.maintenance_rate 'much' must be a number",
        ),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_bound(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_all_that_the_library_offers_is_there() -> None:
    assert [name for name in margin.__all__ if not hasattr(margin, name)] == []
