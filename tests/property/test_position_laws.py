"""Laws of requirements and liquidation prices under any rule record, in exact arithmetic."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from riskd.margin import (
    Held,
    Position,
    Rule,
    Tier,
    TierSchedule,
    bankruptcy_price_of,
    equity_of_ratio,
    isolated_liquidation_price,
    leverage_tiers,
    liquidation_price_of,
    maintenance_margin,
    margin_ratio_of,
    profit_of,
    requirement_of,
)

LINEAR, INVERSE = Rule(), Rule(contract="inverse")
WHOLE = Rule(tier_mode="whole")
CLOSE = Decimal("1e-25")


def decimals(low: str, high: str, places: int) -> st.SearchStrategy[Decimal]:
    return st.decimals(Decimal(low), Decimal(high), places=places)


@st.composite
def tiers(draw: st.DrawFn) -> TierSchedule:
    count = draw(st.integers(1, 10))
    steps = draw(st.lists(decimals("1", "90000", 2), min_size=count - 1, max_size=count - 1))
    rates = draw(st.sets(st.integers(1, 400), min_size=count, max_size=count))
    floors = [sum(steps[:index], Decimal(0)) for index in range(count)]
    return TierSchedule(
        tuple(
            Tier.of(floor, Decimal(rate) / 1000, initial_rate=Decimal(rate) / 500)
            for floor, rate in zip(floors, sorted(rates), strict=True)
        )
    )


prices = decimals("0.5", "90000", 3)
sizes = decimals("0.001", "500", 3)
sides = st.sampled_from([Decimal(1), Decimal(-1)])
fees = st.sampled_from([Decimal(0), Decimal("0.0005")])
contracts = st.sampled_from([LINEAR, INVERSE])


@st.composite
def positions(draw: st.DrawFn) -> Position:
    entry = draw(prices)
    return Position(
        quantity=draw(sizes) * draw(sides),
        entry_price=entry,
        mark_price=entry,
        wallet=draw(decimals("0", "100000", 2)),
        leverage=draw(decimals("1", "100", 1)),
        fee_rate=draw(fees),
    )


def at(position: Position, price: Decimal) -> Position:
    return replace(position, mark_price=price)


def equity_less_requirement(
    position: Position, schedule: TierSchedule, rule: Rule, price: Decimal
) -> Fraction:
    """The rule itself at a price, without the library: its tiers are looked through one by one."""
    size, mark = abs(Fraction(position.quantity)), Fraction(price)
    assert position.entry_price is not None
    assert position.wallet is not None
    entry = Fraction(position.entry_price)
    long = position.quantity > 0
    if rule.contract == "linear":
        value, profit = size * mark, size * (mark - entry)
    else:
        value, profit = size / mark, size * (1 / entry - 1 / mark)
    fee = Fraction(position.fee_rate) if rule.fee_in_liquidation == "at_liquidation" else 0
    required = deduction = below = Fraction(0)
    for tier in schedule.tiers:
        rate = Fraction(tier.maintenance_rate)
        deduction += Fraction(tier.floor) * (rate - below)
        below = rate
        if value > tier.floor:
            required = rate * value - (0 if rule.tier_mode == "whole" else deduction)
    equity = Fraction(position.wallet) + (profit if long else -profit)
    return equity - required - fee * value


def largest_value(position: Position, price: Decimal) -> Fraction:
    """What a figure of a position at a price is at most, linear or inverse."""
    at_price = Fraction(price)
    return abs(Fraction(position.quantity)) * max(at_price, 1 / at_price, Fraction(1))


@given(tiers(), st.integers(1, 9), contracts)
def test_a_requirement_is_continuous_where_tiers_meet(
    schedule: TierSchedule, index: int, rule: Rule
) -> None:
    assume(index < len(schedule.tiers))
    tier = schedule.tiers[index]
    one = Position(
        quantity=Decimal(1), entry_price=Decimal(1), entry_value=tier.floor, mark_value=tier.floor
    )
    step = Decimal("1e-15")
    at_floor = requirement_of(one, schedule, rule).maintenance
    above = requirement_of(replace(one, mark_value=tier.floor + step), schedule, rule).maintenance
    assert 0 < above - at_floor == tier.maintenance_rate * step


@given(tiers(), st.integers(1, 9))
def test_a_whole_requirement_jumps_where_tiers_meet(schedule: TierSchedule, index: int) -> None:
    assume(index < len(schedule.tiers))
    tier, below = schedule.tiers[index], schedule.tiers[index - 1]
    one = Position(
        quantity=Decimal(1), entry_price=Decimal(1), entry_value=tier.floor, mark_value=tier.floor
    )
    above = replace(one, mark_value=tier.floor + Decimal("1e-15"))
    jump = (tier.maintenance_rate - below.maintenance_rate) * tier.floor
    got = requirement_of(above, schedule, WHOLE).maintenance
    assert got - requirement_of(one, schedule, WHOLE).maintenance >= jump


@given(positions(), tiers(), contracts, decimals("1.001", "3", 3))
def test_requirements_rise_with_price_and_size_and_fall_with_leverage(
    position: Position, schedule: TierSchedule, rule: Rule, factor: Decimal
) -> None:
    assert position.mark_price is not None
    assert position.leverage is not None
    now = requirement_of(position, schedule, rule)
    larger = requirement_of(replace(position, quantity=position.quantity * factor), schedule, rule)
    dearer = requirement_of(at(position, position.mark_price * factor), schedule, rule)
    if rule.contract == "inverse":
        now, dearer = dearer, now
        assert larger.maintenance > dearer.maintenance
    else:
        assert larger.maintenance > now.maintenance
    assert dearer.maintenance > now.maintenance
    assert dearer.initial > now.initial
    plain = requirement_of(position, schedule, rule)
    more = requirement_of(replace(position, leverage=position.leverage * factor), schedule, rule)
    assert more.initial <= plain.initial
    assert more.maintenance == plain.maintenance


@given(positions(), tiers(), contracts)
def test_a_liquidation_price_comes_nearer_with_size_and_leverage(
    position: Position, schedule: TierSchedule, rule: Rule
) -> None:
    geared = replace(position, wallet=None)
    assert geared.leverage is not None
    more = replace(geared, leverage=geared.leverage * 2)
    near, nearer = (liquidation_price_of(each, schedule, rule) for each in (geared, more))
    larger = liquidation_price_of(replace(position, quantity=position.quantity * 2), schedule, rule)
    before = liquidation_price_of(position, schedule, rule)
    for low, high in ((near, nearer), (before, larger)):
        if position.quantity > 0:
            # None is no price: below every other for a long, above for a short.
            assert high is not None or low is None
            assert low is None or high is None or low <= high
        else:
            assert high is not None or low is None
            assert low is None or high is None or high <= low


@given(
    positions(),
    tiers(),
    st.builds(
        lambda contract, fee, rounding: Rule(
            contract=contract, fee_in_liquidation=fee, liquidation_rounding=rounding
        ),
        st.sampled_from(["linear", "inverse"]),
        st.sampled_from(["none", "at_liquidation"]),
        st.just("against_account"),
    ),
    st.sampled_from([Decimal("0.0001"), Decimal("0.5"), Decimal("0.05")]),
)
def test_a_liquidation_price_is_a_root_and_its_neighbour_lies_on_the_other_side(
    position: Position, schedule: TierSchedule, rule: Rule, tick: Decimal
) -> None:
    raw = liquidation_price_of(position, schedule, rule)
    assume(raw is not None and raw.is_finite() and raw > 2 * tick)
    assert raw is not None
    gap = equity_less_requirement(position, schedule, rule, raw)
    # The price has 34 digits, and so has the root.
    scale = largest_value(position, raw)
    assert abs(gap) <= scale / 10**28
    printed = liquidation_price_of(replace(position, tick=tick), schedule, rule)
    assert printed is not None
    assert printed % tick == 0
    toward = -tick if position.quantity > 0 else tick
    # At the printed price the position still stands, one tick further it does not.
    assert equity_less_requirement(position, schedule, rule, printed) >= -scale / 10**28
    beyond = printed + toward
    assert equity_less_requirement(position, schedule, rule, beyond) < 0


@given(positions(), tiers())
def test_a_whole_tier_liquidation_price_is_the_first_from_the_mark(
    position: Position, schedule: TierSchedule
) -> None:
    assert position.mark_price is not None
    # One tier does not jump: there the root counts wherever the mark is.
    assume(len(schedule.tiers) > 1)
    price = liquidation_price_of(position, schedule, WHOLE)
    safe = equity_less_requirement(position, schedule, WHOLE, position.mark_price) > 0
    if not safe:
        # 34 digits are as good as the mark itself.
        assert price is not None
        assert abs(price - position.mark_price) <= CLOSE * position.mark_price
        return
    end = Decimal(0) if price is None else price
    step = (end - position.mark_price) / 16
    for index in range(16):
        between = position.mark_price + index * step
        if between > 0:
            assert equity_less_requirement(position, schedule, WHOLE, between) > 0
    if price is not None:
        away = Decimal("-1e-20") if position.quantity > 0 else Decimal("1e-20")
        past = price * (1 + away)
        assert equity_less_requirement(position, schedule, WHOLE, past) <= 0


@given(positions(), tiers())
def test_an_inverse_long_is_a_linear_short_in_the_price_of_quote(
    position: Position, schedule: TierSchedule
) -> None:
    """At Q = 1 / P: the value is |q| Q coin, and the coin's price in quote falls as Q rises."""
    fee = Rule(fee_in_liquidation="at_liquidation")
    inverse = liquidation_price_of(position, schedule, replace(fee, contract="inverse"))
    assert position.entry_price is not None
    # 1 / P need not be a decimal: the value at entry is given to both.
    value = Decimal(abs(position.quantity) / position.entry_price).quantize(Decimal("1e-20"))
    mirrored = replace(
        position, quantity=-position.quantity, entry_price=None, entry_value=value, mark_price=None
    )
    linear = liquidation_price_of(mirrored, schedule, fee)
    inverse = liquidation_price_of(
        replace(position, entry_value=value), schedule, replace(fee, contract="inverse")
    )
    if inverse is None or linear is None:
        assert inverse is linear is None
    elif inverse.is_infinite() or linear == 0:
        assert inverse.is_infinite()
        assert linear == 0
    else:
        assert abs(inverse * linear - 1) < CLOSE


@given(positions(), tiers(), contracts, decimals("0.01", "100", 2))
def test_what_scales_together_keeps_its_price(
    position: Position, schedule: TierSchedule, rule: Rule, factor: Decimal
) -> None:
    """k times the size, the wallet and the floors: the same price, k times the requirement."""
    assert position.wallet is not None
    scaled = TierSchedule(
        tuple(replace(tier, floor=tier.floor * factor) for tier in schedule.tiers)
    )
    many = replace(position, quantity=position.quantity * factor, wallet=position.wallet * factor)
    one, more = (
        liquidation_price_of(position, schedule, rule),
        liquidation_price_of(many, scaled, rule),
    )
    assert (one is None) == (more is None)
    if one is not None and more is not None and one.is_finite():
        assert abs(one - more) <= CLOSE * max(one, Decimal(1))
    needed = requirement_of(position, schedule, rule).maintenance * factor
    got = requirement_of(many, scaled, rule).maintenance
    assert abs(got - needed) <= CLOSE * max(needed, Decimal(1))


@given(positions(), contracts, st.booleans())
def test_nothing_is_left_at_the_bankruptcy_price(
    position: Position, rule: Rule, with_fee: bool
) -> None:
    rule = replace(rule, fee_in_bankruptcy=with_fee, fee_in_liquidation="at_liquidation")
    price = bankruptcy_price_of(position, rule)
    assume(price is not None and price.is_finite() and price > 0)
    assert price is not None
    free = TierSchedule((Tier.of(0, 0),))
    bare = position if with_fee else replace(position, fee_rate=Decimal(0))
    left = equity_less_requirement(bare, free, rule, price)
    scale = largest_value(position, price)
    assert abs(left) <= scale / 10**28


@given(positions(), tiers(), contracts)
def test_the_margin_ratio_is_one_at_the_liquidation_price(
    position: Position, schedule: TierSchedule, rule: Rule
) -> None:
    price = liquidation_price_of(position, schedule, rule)
    assume(price is not None and price.is_finite() and price > Decimal("1e-6"))
    assert price is not None
    ratio = margin_ratio_of(at(position, price), schedule, rule)
    assert abs(ratio - 1) < Decimal("1e-12")


@given(positions(), tiers(), contracts, decimals("0.01", "50", 2))
def test_the_equity_of_a_ratio_has_that_ratio(
    position: Position, schedule: TierSchedule, rule: Rule, ratio: Decimal
) -> None:
    equity = equity_of_ratio(ratio, position, schedule, rule)
    held = replace(position, wallet=equity)
    got = margin_ratio_of(held, schedule, replace(rule, wallet="equity"))
    assert abs(got - ratio) <= ratio * Decimal("1e-25")


@given(positions(), st.lists(positions(), max_size=3), tiers())
def test_a_pool_is_one_wallet_less_what_the_others_need(
    position: Position, others: list[Position], schedule: TierSchedule
) -> None:
    assert position.wallet is not None
    moved = [at(other, Decimal(100)) for other in others]
    held = [Held(other, schedule, LINEAR) for other in moved]
    behind = Fraction(position.wallet)
    for other in moved:
        assert other.entry_price is not None
        behind += Fraction(other.quantity) * (100 - Fraction(other.entry_price))
        behind -= Fraction(requirement_of(other, schedule, LINEAR).maintenance)
    alone = replace(position, wallet=Decimal(behind.numerator) / Decimal(behind.denominator))
    pooled = liquidation_price_of(position, schedule, LINEAR, held)
    single = liquidation_price_of(alone, schedule, LINEAR)
    assert (pooled is None) == (single is None)
    if pooled is not None and single is not None:
        assert abs(pooled - single) <= Decimal("1e-18") * max(pooled, Decimal(1))


@given(positions(), st.lists(positions(), max_size=3), tiers(), st.booleans())
def test_the_equity_of_an_account_stands_for_its_wallet_and_all_profits(
    position: Position, others: list[Position], schedule: TierSchedule, paired: bool
) -> None:
    assert position.wallet is not None
    assert position.mark_price is not None
    one = at(position, position.mark_price * 2)
    moved = [at(other, one.mark_price or Decimal(1)) for other in others]
    held = [
        Held(other, schedule, LINEAR, same_instrument=paired and index == 0)
        for index, other in enumerate(moved)
    ]
    profits = sum((profit_of(each, LINEAR) for each in (one, *moved)), Decimal(0))
    rich = replace(one, wallet=position.wallet + profits)
    by_wallet = liquidation_price_of(one, schedule, LINEAR, held)
    by_equity = liquidation_price_of(rich, schedule, replace(LINEAR, wallet="equity"), held)
    assert by_wallet == by_equity


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Position, Position]:
    """A long and a short of one instrument at one mark, with one wallet."""
    mark = draw(prices)
    one = replace(draw(positions()), mark_price=mark)
    size = draw(sizes) * (-1 if one.quantity > 0 else 1)
    return one, Position(quantity=size, entry_price=draw(prices), mark_price=mark)


@given(pairs(), tiers(), tiers(), st.sampled_from([LINEAR, INVERSE, WHOLE]))
def test_a_hedged_pair_has_one_price_the_first_from_the_mark(
    pair: tuple[Position, Position], schedule: TierSchedule, other: TierSchedule, rule: Rule
) -> None:
    """Whatever side is asked: before it the pair stands, a step further it does not."""
    one, two = pair
    assert one.mark_price is not None
    price = liquidation_price_of(
        one, schedule, rule, [Held(two, other, rule, same_instrument=True)]
    )
    swapped = liquidation_price_of(
        replace(two, wallet=one.wallet),
        other,
        rule,
        [Held(replace(one, wallet=None), schedule, rule, same_instrument=True)],
    )
    if price is None or price.is_infinite():
        assert swapped == price
    else:
        assert swapped is not None
        assert abs(price - swapped) <= CLOSE * max(price, Decimal(1))

    def room(at_price: Decimal) -> Fraction:
        bare = replace(two, wallet=Decimal(0))
        return equity_less_requirement(one, schedule, rule, at_price) + equity_less_requirement(
            bare, other, rule, at_price
        )

    if room(one.mark_price) <= 0:
        assert price is not None
        assert abs(price - one.mark_price) <= CLOSE * one.mark_price
        return
    if price is None or price.is_infinite() or price == 0:
        # A short side gains without end where a coin's price falls, a long inverse one where it
        # rises: only there a pair cannot be liquidated.
        far = Decimal("1e15") if rule.contract == "inverse" else Decimal("1e-15")
        assert room(one.mark_price * far) > 0
        return
    step = (price - one.mark_price) / 16
    for index in range(16):
        assert room(one.mark_price + index * step) > 0
    past = price * (1 + (Decimal("-1e-20") if price < one.mark_price else Decimal("1e-20")))
    scale = largest_value(one, price) + largest_value(two, price) + Fraction(one.wallet or 0)
    assert room(past) <= scale / 10**18


@given(positions(), tiers(), fees)
def test_the_engines_arithmetic_gives_the_same_linear_prices(
    position: Position, schedule: TierSchedule, fee: Decimal
) -> None:
    assert position.entry_price is not None
    assert position.wallet is not None
    rule = Rule(fee_in_liquidation="at_liquidation")
    exact = liquidation_price_of(replace(position, fee_rate=fee), schedule, rule)
    try:
        engine = isolated_liquidation_price(
            position.quantity,
            position.entry_price,
            position.wallet,
            schedule,
            liquidation_fee_rate=fee,
        )
    except ValueError:
        # A price of less than 12 digits is refused there.
        assume(False)
        raise
    if exact is None or engine is None:
        # A price below 1e-11 of the entry price counts as none.
        assert (exact or 0) <= position.entry_price * Decimal("1e-11")
        assert not engine
        return
    assert abs(exact - engine) <= Decimal("1e-10") * max(exact, position.entry_price)
    needed = requirement_of(position, schedule, Rule()).maintenance
    notional = abs(position.quantity) * position.entry_price
    assert abs(maintenance_margin(notional, schedule) - needed) <= notional * Decimal("1e-15")


@given(st.integers(1, 5), decimals("1", "100", 0), prices, sizes)
def test_leverage_tiers_need_half_of_what_opening_needs(
    count: int, most: Decimal, price: Decimal, size: Decimal
) -> None:
    rows = [(index * 1000, most / 2**index) for index in range(count) if most / 2**index >= 1]
    assume(rows)
    schedule = leverage_tiers(rows)
    position = Position(quantity=size, entry_price=price, mark_price=price)
    needed = requirement_of(position, schedule, LINEAR)
    first = schedule.tiers[0]
    if needed.notional <= 1000 or len(rows) == 1:
        assert needed.maintenance == first.maintenance_rate * needed.notional
        assert abs(needed.initial - 2 * needed.maintenance) <= needed.notional / 10**8
    else:
        assert first.maintenance_rate * needed.notional < needed.maintenance < needed.initial
