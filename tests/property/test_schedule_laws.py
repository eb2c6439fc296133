"""Laws of every family of schedules, with the families' formulas written again here."""

from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from riskd.margin import (
    OpenInterestScaled,
    PerContract,
    Position,
    PowerLaw,
    Rule,
    Schedule,
    SizeLinear,
    Tier,
    TierSchedule,
    leverage_tiers,
    liquidation_price_of,
    requirement_of,
)

LINEAR, INVERSE = Rule(), Rule(contract="inverse")
BY_QUANTITY = Rule(tier_key="quantity", tier_mode="whole")
CLOSE = Decimal("1e-25")


def decimals(low: str, high: str, places: int = 3) -> st.SearchStrategy[Decimal]:
    return st.decimals(Decimal(low), Decimal(high), places=places)


tiered = st.builds(
    lambda step, rates: TierSchedule(
        tuple(
            Tier.of(step * index, Decimal(rate) / 1000, initial_rate=Decimal(rate) / 500)
            for index, rate in enumerate(sorted(rates))
        )
    ),
    decimals("1", "90000", 2),
    st.sets(st.integers(1, 400), min_size=1, max_size=8),
)
by_leverage = st.builds(
    lambda step, most: leverage_tiers(
        [(step * index, leverage) for index, leverage in enumerate(sorted(most, reverse=True))]
    ),
    decimals("1", "90000", 2),
    st.sets(st.integers(2, 200), min_size=1, max_size=6),
)
per_contract = st.builds(
    lambda initial, part: PerContract(initial, initial * part),
    decimals("0.01", "500", 2),
    decimals("0", "1", 2),
)
size_linear = st.builds(
    lambda base, part, slope: SizeLinear(base, slope, base * part, slope),
    decimals("0.001", "0.4"),
    decimals("0.1", "1", 2),
    decimals("0", "0.001", 6),
)
scaled = st.builds(
    lambda base, part, lower, width: OpenInterestScaled(base, base * part, lower, lower + width),
    decimals("0.001", "0.4"),
    decimals("0.1", "1", 2),
    decimals("0", "1000000", 0),
    decimals("1", "1000000", 0),
)
power = st.builds(
    lambda base, part, factor, exponent: PowerLaw(base, base * part, factor, exponent),
    decimals("0.001", "0.1"),
    decimals("0.1", "1", 2),
    decimals("0", "0.0001", 9),
    decimals("0.1", "1", 2),
)
families = st.one_of(
    st.tuples(tiered, st.sampled_from([LINEAR, INVERSE, BY_QUANTITY])),
    st.tuples(by_leverage, st.sampled_from([LINEAR, INVERSE])),
    st.tuples(per_contract, st.just(LINEAR)),
    st.tuples(size_linear, st.sampled_from([LINEAR, INVERSE])),
    st.tuples(scaled, st.sampled_from([LINEAR, INVERSE])),
    st.tuples(power, st.sampled_from([LINEAR, INVERSE])),
)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    entry = draw(decimals("0.5", "90000"))
    return Position(
        quantity=draw(decimals("0.001", "500")) * draw(st.sampled_from([1, -1])),
        entry_price=entry,
        mark_price=entry,
        wallet=draw(decimals("0", "100000", 2)),
        leverage=draw(decimals("1", "100", 1)),
        open_interest=draw(decimals("0", "2000000", 0)),
    )


def maintenance(schedule: Schedule, rule: Rule, size: Fraction, value: Fraction) -> Fraction:
    """The family's formula, without the library."""
    if isinstance(schedule, PerContract):
        return size * Fraction(schedule.maintenance_per_contract)
    if isinstance(schedule, SizeLinear):
        rate = Fraction(schedule.maintenance_base) + Fraction(schedule.maintenance_slope) * size
        return min(Fraction(1), rate) * value
    if isinstance(schedule, OpenInterestScaled):
        return Fraction(schedule.maintenance_rate) * value
    if isinstance(schedule, PowerLaw):
        with localcontext(prec=60):
            notional = Decimal(value.numerator) / Decimal(value.denominator)
            grown = Fraction(schedule.factor * notional**schedule.power)
        part = Fraction(schedule.maintenance_base) / Fraction(schedule.initial_base)
        return min(Fraction(1), max(Fraction(schedule.maintenance_base), part * grown)) * value
    key = size if rule.tier_key == "quantity" else value
    below = [tier for tier in schedule.tiers if tier.floor == 0 or key > tier.floor]
    if rule.tier_mode == "whole":
        return Fraction(below[-1].maintenance_rate) * value
    # The integral of the marginal rate: no deduction is needed to write it.
    ends = [*(Fraction(tier.floor) for tier in below[1:]), value]
    return sum(
        (
            Fraction(tier.maintenance_rate) * (end - Fraction(tier.floor))
            for tier, end in zip(below, ends, strict=True)
        ),
        Fraction(0),
    )


def room(position: Position, schedule: Schedule, rule: Rule, price: Decimal) -> Fraction:
    """Equity less maintenance at a price."""
    assert position.entry_price is not None
    assert position.wallet is not None
    size, entry = abs(Fraction(position.quantity)), Fraction(position.entry_price)
    linear = rule.contract == "linear"
    value = size * Fraction(price) if linear else size / Fraction(price)
    profit = value - (size * entry if linear else size / entry)
    sign = 1 if (position.quantity > 0) == linear else -1
    return Fraction(position.wallet) + sign * profit - maintenance(schedule, rule, size, value)


@given(positions(), families)
def test_maintenance_is_the_familys_formula_and_blind_to_the_side(
    position: Position, family: tuple[Schedule, Rule]
) -> None:
    schedule, rule = family
    got = requirement_of(position, schedule, rule)
    assert got == requirement_of(replace(position, quantity=-position.quantity), schedule, rule)
    assert position.mark_price is not None
    size, mark = abs(Fraction(position.quantity)), Fraction(position.mark_price)
    value = size * mark if rule.contract == "linear" else size / mark
    wanted = maintenance(schedule, rule, size, value)
    # Rounded up to 34 digits; powers are rounded a little further off.
    assert -value / 10**30 <= Fraction(got.maintenance) - wanted <= value / 10**30


@given(positions(), families, decimals("1.001", "3"))
def test_requirements_rise_with_price_and_size_and_never_with_leverage(
    position: Position, family: tuple[Schedule, Rule], factor: Decimal
) -> None:
    schedule, rule = family
    assert position.mark_price is not None
    assert position.leverage is not None
    now = requirement_of(position, schedule, rule)
    larger = requirement_of(replace(position, quantity=position.quantity * factor), schedule, rule)
    dearer = replace(position, mark_price=position.mark_price * factor)
    moved = requirement_of(dearer, schedule, rule)
    low, high = (moved, now) if rule.contract == "inverse" else (now, moved)
    assert low.initial <= high.initial
    assert low.maintenance <= high.maintenance
    assert now.initial < larger.initial
    assert now.maintenance <= larger.maintenance
    geared = replace(position, leverage=position.leverage * factor)
    more = requirement_of(geared, schedule, rule)
    assert more.initial <= now.initial
    assert more.maintenance == now.maintenance


@given(positions(), families, st.sampled_from([Decimal("0.5"), Decimal("0.001")]))
def test_a_liquidation_price_is_a_root_and_the_next_tick_lies_beyond_it(
    position: Position, family: tuple[Schedule, Rule], tick: Decimal
) -> None:
    schedule, rule = family
    price = liquidation_price_of(position, schedule, rule)
    assume(price is not None and price.is_finite() and price > 2 * tick)
    assert price is not None
    at_price = Fraction(price)
    scale = abs(Fraction(position.quantity)) * max(at_price, 1 / at_price, Fraction(1))
    inside = room(position, schedule, rule, price)
    if isinstance(schedule, PowerLaw) and room(position, schedule, rule, _mark(position)) <= 0:
        # Found from the mark on: there the position is past it.
        assert price == position.mark_price
        return
    assert abs(inside) <= scale / 10**24
    printed = liquidation_price_of(
        replace(position, tick=tick),
        schedule,
        replace(rule, liquidation_rounding="against_account"),
    )
    assert printed is not None
    assert printed % tick == 0
    beyond = printed - tick if position.quantity > 0 else printed + tick
    assert room(position, schedule, rule, printed) >= -scale / 10**24
    assert room(position, schedule, rule, beyond) < scale / 10**24


def _mark(position: Position) -> Decimal:
    assert position.mark_price is not None
    return position.mark_price


@given(positions(), st.one_of(size_linear, scaled, power, by_leverage))
def test_an_inverse_long_is_a_linear_short_in_the_price_of_quote(
    position: Position, schedule: Schedule
) -> None:
    assert position.entry_price is not None
    # 1 / P need not be a decimal: the value at entry is given to both.
    value = Decimal(abs(position.quantity) / position.entry_price).quantize(Decimal("1e-20"))
    mirrored = replace(
        position, quantity=-position.quantity, entry_price=None, entry_value=value, mark_price=None
    )
    straight = replace(position, entry_value=value, mark_value=value)
    linear = liquidation_price_of(replace(mirrored, mark_value=value), schedule, LINEAR)
    inverse = liquidation_price_of(straight, schedule, INVERSE)
    if inverse is None or linear is None:
        assert inverse is linear is None
    elif inverse.is_infinite() or linear == 0:
        assert inverse.is_infinite()
        assert linear == 0
    else:
        assert abs(inverse * linear - 1) < CLOSE


@given(positions(), families)
def test_a_flat_position_needs_nothing_and_has_no_price(
    position: Position, family: tuple[Schedule, Rule]
) -> None:
    schedule, rule = family
    flat = replace(position, quantity=Decimal(0))
    needed = requirement_of(flat, schedule, rule)
    assert not any((needed.notional, needed.initial, needed.maintenance))
    assert liquidation_price_of(flat, schedule, rule) is None
