"""Laws of options' margin and of the families with power laws, weights and open interest."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from riskd.margin import (
    AEVO,
    BINANCE_HYPOTHESIS,
    BIT_COM,
    BYBIT,
    DERIBIT,
    DERIVE,
    GATE,
    OKX,
    REG_T,
    REG_T_WITH_MINIMUM,
    OptionMargin,
    OptionRule,
    Slippage,
    asset_weight,
    base_to_cover_shortage,
    gross_notional,
    isolated_order_margin,
    liability_weight,
    max_loss_at_expiry,
    naked_option_margin,
    open_interest_initial_margin,
    option_margin,
    perp_bucket,
    power_liquidation_price,
    power_rate,
    risk_factor_liquidation_price,
    risk_factor_maintenance,
    spot_bucket,
)
from riskd.margin.options import Settlement

RULES = st.sampled_from(
    [
        AEVO,
        BINANCE_HYPOTHESIS,
        BIT_COM,
        BYBIT,
        DERIBIT,
        DERIVE,
        GATE,
        OKX,
        REG_T,
        REG_T_WITH_MINIMUM,
    ]
)
KINDS = st.sampled_from(["call", "put"])
PRICES = st.floats(1.0, 1e5)
MARKS = st.floats(0.0, 1e4)
SIZES = st.floats(1e-3, 1e4)
SIGNED = st.floats(-100.0, 100.0).filter(lambda size: abs(size) > 1e-3)
INT = st.integers(0, 10**15)
EPSILON = 1e-9


class Short(NamedTuple):
    """An option that is sold."""

    rule: OptionRule
    kind: str
    size: float
    price: float
    mark: float
    strike: float

    def margin(self, **changes: Any) -> OptionMargin:
        """Return its margin, with other arguments where there are some."""
        arguments = {
            "rule": self.rule,
            "option_type": self.kind,
            "quantity": -self.size,
            "reference": self.price,
            "mark": self.mark,
            "strike": self.strike,
            **changes,
        }
        return option_margin(**arguments)


def both(found: OptionMargin) -> list[NDArray[np.float64]]:
    return [np.asarray(found.initial), np.asarray(found.maintenance)]


SHORTS = st.builds(Short, RULES, KINDS, SIZES, PRICES, MARKS, PRICES)


@given(short=SHORTS, strikes=st.tuples(PRICES, PRICES))
def test_a_short_further_out_of_the_money_needs_no_more_at_the_same_mark(
    short: Short, strikes: tuple[float, float]
) -> None:
    assume(short.rule.put_floor != "strike")
    near, far = sorted(strikes, reverse=short.kind == "put")
    for amounts in both(short.margin(strike=[near, far])):
        assert amounts[1] <= amounts[0] * (1 + EPSILON)


@given(short=SHORTS, marks=st.tuples(MARKS, MARKS))
def test_margin_rises_with_the_mark_by_no_less(short: Short, marks: tuple[float, float]) -> None:
    low, high = sorted(marks)
    rise = short.size * (high - low)
    for amounts in both(short.margin(mark=[low, high])):
        if amounts[0] > short.size * short.rule.minimum:
            assert amounts[1] - amounts[0] >= rise - EPSILON * (amounts[1] + rise)


@given(short=SHORTS, parts=st.integers(2, 5))
def test_margin_is_proportional_to_the_size(short: Short, parts: int) -> None:
    for amounts in both(short.margin(quantity=[-short.size, -short.size * parts])):
        assert amounts[1] == pytest.approx(parts * amounts[0], rel=1e-12)


@given(short=SHORTS, prices=st.tuples(PRICES, PRICES))
def test_a_call_in_cash_needs_no_less_when_its_underlying_rises(
    short: Short, prices: tuple[float, float]
) -> None:
    rule = replace(short.rule, settlement="cash")
    for amounts in both(short.margin(rule=rule, option_type="call", reference=sorted(prices))):
        assert amounts[1] >= amounts[0] * (1 - EPSILON)


@given(short=SHORTS)
def test_a_long_needs_nothing_and_a_short_at_least_its_mark(short: Short) -> None:
    for amounts in both(short.margin(quantity=[short.size, -short.size])):
        assert amounts[0] == 0
        assert amounts[1] >= short.size * short.mark * (1 - EPSILON)


@given(short=SHORTS, mark=st.floats(0.0, 2.0))
def test_coin_and_cash_are_the_same_margin_in_two_moneys(short: Short, mark: float) -> None:
    assume(short.rule.minimum == 0)
    coin = short.margin(rule=replace(short.rule, settlement="coin"), mark=mark)
    cash = short.margin(rule=replace(short.rule, settlement="cash"), mark=mark * short.price)
    assert coin.initial * short.price == pytest.approx(cash.initial, rel=1e-9)
    assert coin.maintenance * short.price == pytest.approx(cash.maintenance, rel=1e-9)


@given(short=SHORTS, out=st.floats(0.0, 0.9))
def test_a_call_and_a_put_as_far_out_of_the_money_need_the_same(short: Short, out: float) -> None:
    # Where the rule has the same terms for both, below a mark at which the put's own count.
    assume(short.rule in (BIT_COM, AEVO, BINANCE_HYPOTHESIS, BYBIT))
    assume(short.mark <= short.price)
    call = short.margin(option_type="call", strike=short.price * (1 + out))
    put = short.margin(option_type="put", strike=short.price * (1 - out))
    assert call.initial == pytest.approx(put.initial, rel=1e-9)
    assert call.maintenance == pytest.approx(put.maintenance, rel=1e-9)


LEGS = st.lists(st.tuples(KINDS, st.floats(1.0, 1e3), SIGNED), min_size=1, max_size=6)


@given(legs=LEGS, price=st.floats(1e-3, 1e4), coin=st.booleans())
def test_no_price_loses_more_than_the_largest_loss(
    legs: list[tuple[str, float, float]], price: float, coin: bool
) -> None:
    kinds, strikes, sizes = (list(part) for part in zip(*legs, strict=True))
    largest = max_loss_at_expiry(kinds, strikes, sizes, settlement="coin" if coin else "cash")
    loss = sum(
        -size * max(price - strike if kind == "call" else strike - price, 0.0)
        for kind, strike, size in legs
    )
    if coin:
        loss /= price
    scale = sum(abs(size) * (strike + price) for _, strike, size in legs) / (price if coin else 1)
    assert loss <= largest + 1e-11 * scale


@given(legs=LEGS)
def test_the_largest_loss_is_attained(legs: list[tuple[str, float, float]]) -> None:
    kinds, strikes, sizes = (list(part) for part in zip(*legs, strict=True))
    largest = max_loss_at_expiry(kinds, strikes, sizes)
    assume(math.isfinite(largest))
    losses = [
        sum(
            -size * max(price - strike if kind == "call" else strike - price, 0.0)
            for kind, strike, size in legs
        )
        for price in (0.0, *strikes)
    ]
    assert largest == pytest.approx(max(0.0, *losses), rel=1e-12, abs=1e-9)


@given(
    strikes=st.tuples(st.floats(1.0, 1e3), st.floats(1.0, 1e3)),
    sizes=st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 100.0)),
)
def test_two_legs_are_the_vaults_of_opyn(
    strikes: tuple[float, float], sizes: tuple[float, float]
) -> None:
    (short, long), (sold, bought) = strikes, sizes
    put = max_loss_at_expiry("put", [short, long], [-sold, bought])
    call = max_loss_at_expiry("call", [short, long], [-sold, bought], settlement="coin")
    gross = (sold + bought) * (short + long)
    assert put == pytest.approx(max(short * sold - long * min(sold, bought), 0), abs=1e-12 * gross)
    expected = max((long - short) * sold / long, sold - bought, 0)
    assert call == pytest.approx(expected, abs=1e-12 * (1 + gross))


@given(
    kind=KINDS, strikes=st.tuples(PRICES, PRICES), sizes=st.tuples(SIZES, SIZES), coin=st.booleans()
)
def test_a_spread_never_needs_more_than_its_naked_short(
    kind: str, strikes: tuple[float, float], sizes: tuple[float, float], coin: bool
) -> None:
    settlement: Settlement = "coin" if coin else "cash"
    quantities = [-sizes[0], sizes[1]]
    spread = max_loss_at_expiry(kind, list(strikes), quantities, settlement=settlement)
    naked = max_loss_at_expiry(kind, [strikes[0]], [-sizes[0]], settlement=settlement)
    assert spread <= naked
    assert max_loss_at_expiry(kind, [strikes[1]], [sizes[1]], settlement=settlement) == 0


@given(size=SIZES, strike=PRICES, spot=PRICES, bound=st.floats(0.0, 1.0), shock=st.floats(0.1, 1.0))
def test_a_naked_short_needs_no_more_than_its_largest_loss(
    size: float, strike: float, spot: float, bound: float, shock: float
) -> None:
    put = naked_option_margin("put", -size, strike, spot, bound, shock)
    call = naked_option_margin("call", -size, strike, spot, bound, shock)
    assert 0 <= put <= size * strike * (1 + EPSILON)
    assert 0 <= call <= size * (1 + EPSILON)


BASES = st.floats(1e-3, 0.2)
FACTORS = st.floats(1e-9, 1e-3)
POWERS = st.floats(0.2, 1.5)


@given(base=BASES, factor=FACTORS, power=POWERS)
def test_the_power_law_is_continuous_at_its_kink(base: float, factor: float, power: float) -> None:
    kink = (base / factor) ** (1 / power)
    notionals = np.array([1 - 1e-9, 1, 1 + 1e-9]) * kink
    below, at, above = np.asarray(power_rate(notionals, base, factor, power))
    assert below == pytest.approx(at, rel=1e-7)
    assert above == pytest.approx(at, rel=1e-7)


@given(
    quantity=SIGNED,
    mark=PRICES,
    part=st.floats(0.0, 2.0),
    base=BASES,
    factor=st.floats(0.0, 1e-5),
    power=POWERS,
)
def test_the_liquidation_price_of_the_power_law_is_a_root(
    quantity: float, mark: float, part: float, base: float, factor: float, power: float
) -> None:
    notional = abs(quantity) * mark
    collateral = part * notional
    price = float(power_liquidation_price(quantity, mark, collateral, 0, base, factor, power))

    def gap(at: float) -> float:
        size = abs(quantity) * at
        return (
            collateral
            + quantity * (at - mark)
            - size * float(power_rate(size, base, factor, power))
        )

    scale = notional * (1 + part)
    if math.isnan(price):
        assert quantity > 0
        assert gap(0) >= -EPSILON * scale
    elif price in (0, math.inf):
        beyond = [gap(at * mark) for at in (1e-6, 0.1, 0.5, 0.9, 1, 1.1, 2, 10, 1000)]
        assert max(beyond) <= EPSILON * scale
    else:
        assert abs(gap(price)) <= 1e-9 * (scale + abs(quantity) * price)
        # A step of the price away from danger leaves room, one towards it does not.
        step = 1e-6 * price if quantity > 0 else -1e-6 * price
        assert gap(price - step) <= 1e-9 * (scale + abs(quantity) * price)


@given(
    volume=SIGNED,
    mark=PRICES,
    part=st.floats(0.0, 1.0),
    factor=st.floats(0.0, 0.4),
    linear=st.floats(0.0, 0.1),
    funding=st.floats(-10.0, 10.0),
)
def test_collateral_equal_to_maintenance_is_liquidated_at_the_mark(
    volume: float, mark: float, part: float, factor: float, linear: float, funding: float
) -> None:
    slippage = Slippage(linear)
    need = risk_factor_maintenance(mark, volume, factor, factor, slippage, funding_per_unit=funding)
    price = risk_factor_liquidation_price(mark, volume, need, factor, factor, slippage, funding)
    assert price == pytest.approx(mark, rel=1e-9)
    more = risk_factor_liquidation_price(
        mark, volume, need * (1 + part), factor, factor, slippage, funding
    )
    assert (price - more) * volume >= -EPSILON * mark * abs(volume)


@given(
    sizes=st.lists(INT, min_size=2, max_size=20),
    imf=st.integers(0, 10**6),
    weight=st.integers(0, 20_000),
)
def test_weights_move_one_way_with_size(sizes: list[int], imf: int, weight: int) -> None:
    sizes.sort()
    assets = np.asarray(asset_weight(sizes, imf, weight))
    liabilities = np.asarray(liability_weight(sizes, imf, weight))
    assert np.all(np.diff(assets) <= 0)
    assert np.all(np.diff(liabilities) >= 0)
    assert assets.max() <= weight <= liabilities.min()


@given(
    size=st.integers(0, 2**63 - 1), imf=st.integers(1, 2**32 - 1), weight=st.integers(0, 2**32 - 1)
)
def test_weights_are_those_of_exact_integers(size: int, imf: int, weight: int) -> None:
    root = math.isqrt(10 * size + 1)
    asset = min(weight, 11_000_000_000 // (1_000_000 + root * imf // 100_000))
    assert asset_weight(size, imf, weight) == asset
    liability = max(weight, weight - weight // 5 + root * imf // 10_000_000)
    assert liability_weight(size, imf, weight) == liability


@given(
    tokens=st.integers(-(10**12), 10**12),
    bids=st.integers(0, 10**12),
    asks=st.integers(0, 10**12),
    more=st.integers(0, 10**12),
)
def test_an_order_never_leaves_more_room(tokens: int, bids: int, asks: int, more: int) -> None:
    def room(bids: int, asks: int) -> int:
        found = spot_bucket(tokens, 10**8, 8000, 12_000, bids=bids, asks=asks, imf_1e6=100)
        return int(found.net_1e6)

    # Each division truncates: a unit either way.
    assert room(bids + more, asks) <= room(bids, asks) + 4
    assert room(bids, asks + more) <= room(bids, asks) + 4


@given(
    deposit=INT,
    base=st.integers(-(10**12), 10**12),
    quote=st.integers(-(10**12), 10**12),
    isolated=st.integers(-(10**12), 10**12),
)
def test_buckets_do_not_mix(deposit: int, base: int, quote: int, isolated: int) -> None:
    def cross() -> tuple[int, int]:
        found = spot_bucket(deposit, 10**6, decimals=6) + perp_bucket(base, quote, 10**8, 1000)
        return int(found.collateral_1e6), int(found.requirement_1e6)

    before = cross()
    bankrupt = perp_bucket(isolated, -abs(isolated) * 10**6, 10**8, 1000)
    assert cross() == before
    both = spot_bucket(deposit, 10**6, decimals=6) + bankrupt
    assert both.collateral_1e6 == deposit + bankrupt.collateral_1e6
    assert both.requirement_1e6 == bankrupt.requirement_1e6


@given(
    shortage=st.integers(1, 10**12),
    ratio=st.integers(100, 5000),
    fee=st.integers(0, 5000),
    price=st.integers(10**6, 10**11),
)
def test_closing_the_amount_frees_the_shortage_to_a_unit_of_the_amount(
    shortage: int, ratio: int, fee: int, price: int
) -> None:
    amount = int(base_to_cover_shortage(shortage, ratio, fee, 0, price))
    assert amount >= 0
    freed = amount * (price * (ratio * 100 - fee) // 10**6) // 10**9
    assert shortage - 1 - price // 10**9 <= freed <= shortage


@given(
    notional=INT,
    base=st.integers(0, 10**6),
    interests=st.lists(INT, min_size=2, max_size=10),
    caps=st.tuples(INT, INT),
)
def test_initial_margin_rises_with_open_interest_from_the_base_to_all(
    notional: int, base: int, interests: list[int], caps: tuple[int, int]
) -> None:
    interests.sort()
    lower, upper = sorted(caps)
    found = np.asarray(open_interest_initial_margin(notional, base, interests, lower, upper))
    assert np.all(np.diff(found) >= 0)
    assert found[0] >= -(-notional * base // 10**6)
    assert found[-1] <= notional


ORDERS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 10**6), st.integers(1, 10**6)), max_size=8
)


@given(position=st.integers(-(10**6), 10**6), orders=ORDERS, data=st.data())
def test_order_margin_is_that_of_each_side_by_hand_in_any_order(
    position: int, orders: list[tuple[bool, int, int]], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(orders))

    def of(rows: list[tuple[bool, int, int]]) -> int:
        return int(
            isolated_order_margin(
                position,
                [is_buy for is_buy, _, _ in rows],
                [size for _, size, _ in rows],
                [price for _, _, price in rows],
                "0.37",
                10,
            )
        )

    sides = []
    for side in (True, False):
        covered = max(0, -position if side else position)
        total = 0
        rows = [(size, price) for is_buy, size, price in orders if is_buy == side]
        for size, price in sorted(rows, key=lambda row: -row[1] if side else row[1]):
            counted = max(0, size - covered)
            covered = max(0, covered - size)
            total += counted * price
        sides.append(total * 37 // 1000)
    assert of(orders) == of(shuffled) == max(sides)


@given(sizes=st.lists(SIGNED, min_size=1, max_size=6), prices=st.data())
def test_gross_notional_is_the_sum_of_each(sizes: list[float], prices: st.DataObject) -> None:
    at = prices.draw(st.lists(PRICES, min_size=len(sizes), max_size=len(sizes)))
    expected = math.fsum(abs(size) * price for size, price in zip(sizes, at, strict=True))
    assert gross_notional(sizes, at) == pytest.approx(expected, rel=1e-12)
