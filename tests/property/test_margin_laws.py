"""Laws of tiers and prices, on random ladders and positions, in exact arithmetic of its own."""

from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from riskd.core.margin import TierLadder, bankruptcy_price, deductions

PPB = 10**9
MINOR = 10**8

Rows = list[tuple[int, int, int, int | None, int]]


@st.composite
def ladders(draw: st.DrawFn) -> tuple[Rows, int]:
    """Return the tiers of a lawful ladder and a liquidation fee rate."""
    count = draw(st.integers(1, 12))
    steps = st.lists(st.integers(1, 10**6), min_size=count - 1, max_size=count - 1)
    floors = [0]
    for step in draw(steps):
        floors.append(floors[-1] + step * 1000 * MINOR)
    rates = sorted(draw(st.sets(st.integers(1, 90_000), min_size=count, max_size=count)))
    fee = draw(st.sampled_from([0, 500_000, 5_000_000]))
    rows: Rows = [
        (floor, 0, rate * 10_000, None, 12_500) for floor, rate in zip(floors, rates, strict=True)
    ]
    return rows, fee


positions = st.tuples(
    st.integers(-(10**9), 10**9).filter(bool),  # lots
    st.integers(1, 10**7),  # entry price in price units
    st.integers(0, 10**15),  # wallet
    st.sampled_from([(1, 1), (10_000, 1), (1, 1000), (7, 3), (10**8, 1)]),  # unit value
)


def requirement(rows: Rows, fee: int, notional: Fraction) -> Fraction:
    """The largest of the tiers' lines: the rule itself, without a search for the tier."""
    owed = deductions([(row[0], row[2]) for row in rows])
    return max(
        Fraction(row[2] + fee, PPB) * notional - deduction
        for row, deduction in zip(rows, owed, strict=True)
    )


@given(ladders())
def test_maintenance_is_continuous_where_tiers_meet(ladder: tuple[Rows, int]) -> None:
    rows, _ = ladder
    owed = deductions([(row[0], row[2]) for row in rows])
    for k in range(1, len(rows)):
        floor = rows[k][0]
        below = Fraction(rows[k - 1][2], PPB) * floor - owed[k - 1]
        above = Fraction(rows[k][2], PPB) * floor - owed[k]
        assert below == above


@given(ladders(), st.integers(0, 10**17), st.integers(0, 10**15))
def test_requirements_never_fall_as_the_notional_rises(
    ladder: tuple[Rows, int], notional: int, more: int
) -> None:
    rows, fee = ladder
    tiers = TierLadder(rows, liquidation_fee_ppb=fee)
    assert tiers.maintenance(notional) <= tiers.maintenance(notional + more)
    assert tiers.initial(notional, 1000) <= tiers.initial(notional + more, 1000)
    assert tiers.liquidation_requirement(notional) >= tiers.maintenance(notional)


@given(ladders(), st.integers(0, 10**17))
def test_maintenance_is_the_exact_requirement_rounded_up(
    ladder: tuple[Rows, int], notional: int
) -> None:
    rows, _ = ladder
    exact = requirement(rows, 0, Fraction(notional))
    assert 0 <= TierLadder(rows).maintenance(notional) - exact < 1


@given(st.integers(0, 10**17), st.integers(100, 100_000), st.integers(0, 1000))
def test_initial_margin_never_rises_with_leverage(notional: int, leverage: int, more: int) -> None:
    tiers = TierLadder([(0, 0, 4_000_000, None, 100_000)])
    assume(leverage + more <= 100_000)
    assert tiers.initial(notional, leverage) >= tiers.initial(notional, leverage + more)


@settings(max_examples=400)
@given(ladders(), positions)
def test_liquidation_price_is_the_last_unit_on_the_bad_side(
    ladder: tuple[Rows, int], position: tuple[int, int, int, tuple[int, int]]
) -> None:
    """At the price equity is at or below the requirement, one unit towards safety it is above."""
    rows, fee = ladder
    lots, entry, wallet, (numerator, denominator) = position
    unit = Fraction(numerator, denominator)
    entry_value = int(abs(lots) * entry * unit)
    assume(entry_value < 2**62)
    tiers = TierLadder(rows, liquidation_fee_ppb=fee)

    def short_of_requirement(price: int) -> bool:
        notional = abs(lots) * price * unit
        profit = notional - entry_value if lots > 0 else entry_value - notional
        return wallet + profit <= requirement(rows, fee, notional)

    price = tiers.liquidation_price(lots, entry_value, wallet, numerator, denominator)
    if price is None:
        assert not short_of_requirement(1 if lots > 0 else 2**53)
        return
    assert short_of_requirement(price)
    safer = price + 1 if lots > 0 else price - 1
    if safer >= 1:
        assert not short_of_requirement(safer)
    for at in {price, max(1, safer), entry}:
        if at <= 2**53 and abs(lots) * at * unit < 2**62:
            liquidatable = tiers.is_liquidatable(
                lots, entry_value, wallet, numerator, denominator, at
            )
            assert liquidatable == short_of_requirement(at)


@given(ladders(), positions, st.integers(1, 10**12))
def test_more_margin_moves_the_liquidation_price_away(
    ladder: tuple[Rows, int], position: tuple[int, int, int, tuple[int, int]], more: int
) -> None:
    rows, fee = ladder
    lots, entry, wallet, (numerator, denominator) = position
    entry_value = abs(lots) * entry * numerator // denominator
    assume(entry_value < 2**62)
    tiers = TierLadder(rows, liquidation_fee_ppb=fee)
    before = tiers.liquidation_price(lots, entry_value, wallet, numerator, denominator)
    after = tiers.liquidation_price(lots, entry_value, wallet + more, numerator, denominator)
    if before is None:
        assert after is None
    elif after is not None:
        assert after <= before if lots > 0 else after >= before


@given(positions)
def test_bankruptcy_price_leaves_no_equity(
    position: tuple[int, int, int, tuple[int, int]],
) -> None:
    """Rounded against the account: at the price equity is zero or more, one unit on it is below."""
    lots, entry, wallet, (numerator, denominator) = position
    unit = Fraction(numerator, denominator)
    entry_value = abs(lots) * entry * numerator // denominator
    assume(entry_value < 2**62)
    price = bankruptcy_price(lots, entry_value, wallet, numerator, denominator)
    sign = 1 if lots > 0 else -1

    def equity(at: int) -> Fraction:
        return wallet + sign * (abs(lots) * at * unit - entry_value)

    if price is None:
        assert equity(1) > 0 if lots > 0 else equity(1) < 0
        return
    assert equity(price) >= 0
    assert equity(price - sign) < 0
