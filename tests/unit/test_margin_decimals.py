"""riskd.margin: decimals in, decimals out, the same figures as fractions give."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from riskd.margin import (
    CrossPosition,
    Position,
    Rule,
    Tier,
    TierSchedule,
    bankruptcy_price,
    cross_liquidation_price,
    decimal,
    deductions,
    initial_margin,
    isolated_liquidation_price,
    liquidation_price_of,
    maintenance_margin,
    maintenance_rate_of_leverage,
    max_leverage_for_stake,
    notional,
    round_rate_up,
    tier_at,
    unrealised_pnl,
)

# Three brackets with the deductions 0, 50 and 1300 (Binance BTCUSDT in 2021).
LADDER = TierSchedule(
    (
        Tier.of(0, "0.004", max_leverage=125),
        Tier.of(50_000, "0.005", max_leverage=100),
        Tier.of(250_000, "0.01", max_leverage=50),
    ),
    Decimal(1_000_000),
)


def requirement(amount: Fraction, fee: Fraction) -> Fraction:
    """Return maintenance of LADDER plus the fee, as the largest of the tiers' lines."""
    lines = zip(LADDER.tiers, deductions(LADDER), strict=True)
    return max(
        (Fraction(tier.maintenance_rate) + fee) * amount - Fraction(off) for tier, off in lines
    )


def equity(quantity: Decimal, entry: Decimal, wallet: Decimal, price: Fraction) -> Fraction:
    return Fraction(wallet) + Fraction(quantity) * (price - Fraction(entry))


decimals = st.decimals(
    min_value=Decimal("0.001"), max_value=Decimal(100_000), places=6, allow_nan=False
)


@example(quantity=Decimal("169.061"), side=1, entry=Decimal("0.215601"), leverage=1, fee="0")
@given(
    quantity=st.decimals(min_value=Decimal("0.001"), max_value=Decimal(1000), places=3),
    side=st.sampled_from([1, -1]),
    entry=decimals,
    leverage=st.integers(1, 150),
    fee=st.sampled_from(["0", "0.0005"]),
)
def test_at_the_liquidation_price_equity_is_the_requirement(
    quantity: Decimal, side: int, entry: Decimal, leverage: int, fee: str
) -> None:
    wallet = (quantity * entry / leverage).quantize(Decimal("1e-8"))
    found = isolated_liquidation_price(
        quantity * side, entry, wallet, LADDER, liquidation_fee_rate=fee
    )
    if found is None:
        assert side == 1
        assert wallet * (1 + Decimal("1e-10")) >= quantity * entry
        return
    price = Fraction(found)
    gap = equity(quantity * side, entry, wallet, price) - requirement(
        Fraction(quantity) * price, Fraction(fee)
    )
    # A liquidation price is on the side where the position can be liquidated, within 12 digits.
    worth = Fraction(quantity) * price + Fraction(wallet)
    assert -worth / 10**11 <= gap <= worth / 10**15


@given(quantity=decimals, entry=decimals, wallet=decimals, side=st.sampled_from([1, -1]))
def test_at_the_bankruptcy_price_equity_is_zero_or_just_above(
    quantity: Decimal, entry: Decimal, wallet: Decimal, side: int
) -> None:
    found = bankruptcy_price(quantity * side, entry, wallet)
    if found is None:
        assert side == 1
        assert equity(quantity, entry, wallet, Fraction(entry) / 10**10) >= 0
        return
    left = equity(quantity * side, entry, wallet, Fraction(found))
    worth = Fraction(quantity) * (Fraction(found) + Fraction(entry)) + Fraction(wallet)
    assert -worth / 10**15 <= left <= worth / 10**11


def test_deductions_make_maintenance_continuous() -> None:
    assert list(map(int, deductions(LADDER))) == [0, 50, 1300]
    assert maintenance_margin(50_000, LADDER) == 200
    assert maintenance_margin("50000.01", LADDER) == Decimal("200.00005")
    assert maintenance_margin(250_000, LADDER) == 1200
    assert maintenance_margin(1_000_000, LADDER) == 8700
    assert maintenance_margin(1_000_000, LADDER, liquidation_fee_rate="0.001") == 9700
    assert maintenance_margin(0, LADDER) == 0


def test_a_stated_deduction_is_taken_as_it_is() -> None:
    # Binance FAQ on liquidation prices, ETHUSDT and BTCUSDT.
    eth, btc = TierSchedule.flat("0.1", 135365), TierSchedule.flat("0.025", 16300)
    found = isolated_liquidation_price("3683.979", "1456.84", "1535443.01", eth)
    assert found is not None
    assert round(found, 2) == Decimal("1114.78")
    other = CrossPosition.of("109.488", "32481.98", "31967.27", btc)
    found = cross_liquidation_price("3683.979", "1456.84", "1535443.01", eth, [other])
    assert found is not None
    assert round(found, 2) == Decimal("1153.26")


def test_the_tier_at_a_floor_is_the_one_below() -> None:
    assert tier_at(LADDER, 50_000) is LADDER.tiers[0]
    assert tier_at(LADDER, "50000.000000001") is LADDER.tiers[1]
    assert tier_at(LADDER, 10**12) is LADDER.tiers[2]


def test_initial_margin_is_the_larger_of_leverage_and_rate() -> None:
    assert initial_margin("29.7345", 6) == Decimal("4.95575")
    assert initial_margin(1, 3) == Decimal("0.333333333333333334")
    strict = TierSchedule((Tier.of(0, "0.01", initial_rate="0.2"),))
    assert initial_margin(100, 10, strict) == 20
    assert initial_margin(100, 2, strict) == 50


def test_the_largest_leverage_fills_a_tier_or_is_its_own() -> None:
    assert max_leverage_for_stake(0, LADDER) == 125
    assert max_leverage_for_stake(400, LADDER) == 125
    assert max_leverage_for_stake(480, LADDER) == Decimal(50_000) / Decimal(480)
    assert max_leverage_for_stake(1_000_000, LADDER) == 1
    with pytest.raises(ValueError, match="stake 1000001 exceeds the largest notional 1000000"):
        max_leverage_for_stake(1_000_001, LADDER)


def test_none_and_zero_are_no_liquidation_price_and_past_it() -> None:
    flat = TierSchedule.flat("0.01")
    assert isolated_liquidation_price(1, 100, 100, flat) is None
    assert bankruptcy_price(1, 100, 100) is None
    assert isolated_liquidation_price(-1, 100, -101, flat) == 0


def test_a_figure_too_long_to_write_out_keeps_its_exponent() -> None:
    position = Position.of(quantity=1, entry_price="1e300", wallet=0)
    price = liquidation_price_of(position, TierSchedule.flat("0.5"), Rule())
    assert price == Decimal("2e300")


def test_figures_far_apart_keep_their_digits() -> None:
    flat = TierSchedule.flat("0.01")
    # (1 - 0.9999999999) / 0.99 and (1e15 + 1) / 1.01
    found = isolated_liquidation_price(1, 1, "0.9999999999", flat)
    assert found == pytest.approx(Decimal("1.01010101010101e-10"), rel=Decimal("1e-11"))
    found = isolated_liquidation_price(-1, 1, 10**15, flat)
    assert found == pytest.approx(Decimal(10**15 + 1) / Decimal("1.01"), rel=Decimal("1e-12"))


def test_notional_and_profit_are_exact() -> None:
    assert notional("-3", "0.1") == Decimal("0.3")
    assert unrealised_pnl(-2, 10, "9.5") == 1


def test_a_rate_without_a_finite_decimal_is_rounded_up() -> None:
    assert maintenance_rate_of_leverage(3) == Decimal("0.166666667")
    assert round_rate_up(1 / 6) == Decimal("0.166666667")
    assert round_rate_up("0.004") == Decimal("0.004")


def test_a_float_is_its_shortest_text() -> None:
    assert decimal("rate", 0.1) == Decimal("0.1")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: decimal("x", "NaN"), "x must be finite, got 'NaN'"),
        (lambda: decimal("x", float("inf")), "x must be finite, got inf"),
        (lambda: decimal("x", True), "x must be a number, got True"),
        (lambda: decimal("x", "one"), "x must be a number, got 'one'"),
        (lambda: decimal("x", "1e999999999"), "must be within 1e-400 to 1e400"),
        (lambda: decimal("x", "0." + "1" * 65), "x must have at most 64 digits"),
        (lambda: notional(1, 0), "price 0 must be above 0"),
        (lambda: maintenance_margin(-1, LADDER), "notional -1 must not be below 0"),
        (lambda: initial_margin(1, "0.5"), "leverage 0.5 is not within 1 to 1000"),
        (lambda: initial_margin(1, "1.005"), "leverage 1.005 is not a multiple of 1e-2"),
        (lambda: bankruptcy_price(0, 1, 1), "quantity must not be 0"),
        (lambda: bankruptcy_price("1.2345678901234567", 1, 1), "has more than 15 digits"),
        (
            lambda: isolated_liquidation_price(1, 1, 0, TierSchedule.flat("0.0000000001")),
            "maintenance_rate 1E-10 is not a multiple of 1e-9",
        ),
        (
            lambda: isolated_liquidation_price(
                1, 1, 0, TierSchedule.flat("0.9"), liquidation_fee_rate="0.1"
            ),
            "maintenance and liquidation fee rate 1.0 must be above 0 and below 1",
        ),
        (lambda: max_leverage_for_stake(1, TierSchedule.flat("0.1")), "no max_leverage"),
        (lambda: TierSchedule.flat("-0.01"), "maintenance_rate -0.01 must not be below 0"),
        (lambda: Tier.of(0, 0, initial_rate=-1), "initial_rate -1 must not be below 0"),
        (lambda: Tier.of(0, 0, max_leverage=0), "max_leverage 0 must be above 0"),
        (lambda: TierSchedule(()), "at least one tier"),
        (lambda: TierSchedule((Tier.of(1, "0.1"),)), "the first floor is 1, not 0"),
        (
            lambda: TierSchedule((Tier.of(0, "0.1"), Tier.of(0, "0.2"))),
            "floor 0 is not above 0",
        ),
        (
            lambda: TierSchedule((Tier.of(0, "0.1"), Tier.of(1, "0.2", deduction=0))),
            "some tiers state a deduction and some do not",
        ),
        (
            lambda: deductions(TierSchedule((Tier.of(0, "0.2"), Tier.of(1, "0.1")))),
            "tier 1: maintenance rate must be above that of the tier below",
        ),
    ],
)
def test_what_cannot_be_represented_is_named(call: object, says: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=says):
        call()
