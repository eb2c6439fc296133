"""The array functions give the exact functions' figures, under every switch of the rule."""

from dataclasses import replace
from decimal import Decimal
from typing import Any, get_args

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from riskd.margin import (
    Calculator,
    LiquidationStatus,
    OpenInterestScaled,
    PerContract,
    Position,
    PowerLaw,
    Rule,
    Schedule,
    SizeLinear,
    Tier,
    TierSchedule,
    bankruptcy_price_of,
    liquidation_price_of,
    requirement_of,
)
from riskd.margin import rule as rules

# More than a block of the compiled loops, and no whole number of vectors.
COPIES = 277
CLOSE = Decimal("1e-9")


def decimals(low: str, high: str, places: int = 6) -> st.SearchStrategy[Decimal]:
    return st.decimals(Decimal(low), Decimal(high), places=places)


@st.composite
def tier_schedules(draw: st.DrawFn) -> TierSchedule:
    """Tiers with deductions of their own, or those that continue, by rising floors."""
    count = draw(st.integers(1, 13))
    steps = draw(st.lists(decimals("1", "900000", 2), min_size=count - 1, max_size=count - 1))
    rates = sorted(draw(st.lists(decimals("0.001", "0.5"), min_size=count, max_size=count)))
    stated = draw(st.booleans()) and count > 1
    tiers, floor = [], Decimal(0)
    for step, rate in zip([Decimal(0), *steps], rates, strict=True):
        floor += step
        deduction = draw(decimals("0", "100", 2)) if stated else None
        tiers.append(Tier(floor, rate, min(Decimal(1), rate * 2), deduction))
    return TierSchedule(tuple(tiers))


families: st.SearchStrategy[Schedule] = st.one_of(
    tier_schedules(),
    tier_schedules(),
    st.builds(
        lambda most, part: PerContract(most, most * part),
        decimals("0", "50"),
        decimals("0", "1"),
    ),
    st.builds(
        lambda base, part, slopes: SizeLinear(base, slopes[0], base * part, slopes[1]),
        decimals("0.001", "0.4"),
        decimals("0", "1"),
        st.tuples(decimals("0", "0.00001", 8), decimals("0", "0.00001", 8)),
    ),
    st.builds(
        lambda base, part, lower, width: OpenInterestScaled(
            base, base * part, lower, lower + width
        ),
        decimals("0.001", "0.4"),
        decimals("0", "1"),
        decimals("0", "1000000", 0),
        decimals("1", "1000000", 0),
    ),
    st.builds(
        lambda base, part, factor, power: PowerLaw(base, base * part, factor, power),
        decimals("0.001", "0.1"),
        decimals("0.1", "1", 2),
        decimals("0", "0.0001", 9),
        decimals("0.1", "1", 2),
    ),
)


def words(kind: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(get_args(kind))


any_rule = st.builds(
    Rule,
    contract=words(rules.Contract),
    wallet=words(rules.Wallet),
    initial_basis=words(rules.InitialBasis),
    maintenance_basis=words(rules.MaintenanceBasis),
    fee_in_liquidation=words(rules.FeeInLiquidation),
    fee_in_margin=words(rules.FeeInMargin),
    fee_in_bankruptcy=st.booleans(),
    tier_mode=words(rules.TierMode),
    tier_key=words(rules.TierKey),
    tier_price=words(rules.TierPrice),
    liquidation_rounding=words(rules.Rounding),
    bankruptcy_rounding=words(rules.Rounding),
    extra_ticks=st.integers(0, 2),
)
# The switches that most venues leave alone: what the compiled loops take in vectors.
plain_rule = st.builds(
    Rule,
    contract=words(rules.Contract),
    fee_in_liquidation=st.sampled_from(["none", "at_liquidation"]),
)


@st.composite
def positions(draw: st.DrawFn, *, with_wallet: bool | None = None) -> Position:
    entry = draw(decimals("0.5", "90000", 4))
    wallet = draw(st.booleans()) if with_wallet is None else with_wallet
    size = draw(decimals("0.001", "2000", 3)) * draw(st.sampled_from([1, -1]))
    return Position(
        quantity=size,
        entry_price=entry,
        mark_price=entry * draw(decimals("0.8", "1.25", 4)),
        wallet=draw(decimals("-1000", "100000", 2)) if wallet else None,
        leverage=draw(decimals("1", "125", 2)),
        fee_rate=draw(st.sampled_from([Decimal(0), Decimal("0.0006")])),
        session_price=entry * draw(decimals("0.8", "1.25", 4)),
        multiplier=draw(st.sampled_from([Decimal(1), Decimal("0.01"), Decimal(10)])),
        open_loss=draw(st.sampled_from([Decimal(0), Decimal(7)])),
        open_interest=draw(decimals("0", "2000000", 0)),
    )


def fields(position: Position) -> dict[str, Any]:
    names = (
        "quantity",
        "entry_price",
        "mark_price",
        "wallet",
        "leverage",
        "fee_rate",
        "session_price",
        "multiplier",
        "open_loss",
        "open_interest",
        "tick",
    )
    figures = {name: getattr(position, name) for name in names}
    return {name: float(value) for name, value in figures.items() if value is not None}


def copied(position: Position) -> dict[str, Any]:
    """The position many times: what is in columns, and what is one number for all."""
    columns = fields(position)
    for name in ("quantity", "entry_price", "mark_price", "wallet", "leverage"):
        if name in columns:
            columns[name] = np.full(COPIES, columns[name])
    return columns


def agree(got: Any, exact: Decimal, scale: Decimal) -> bool:
    if not np.isfinite(got) or not exact.is_finite():
        return bool(np.isinf(got)) and exact.is_infinite()
    return abs(Decimal(float(got)) - exact) <= CLOSE * max(abs(exact), scale)


@settings(max_examples=200, deadline=None)
@given(positions(), families, st.one_of(any_rule, plain_rule))
def test_requirements_are_the_exact_ones(
    position: Position, schedule: Schedule, rule: Rule
) -> None:
    exact = requirement_of(position, schedule, rule)
    calculator = Calculator(schedule, rule)
    one = calculator.requirements(fields(position))
    # Maintenance is a difference where there is a deduction.
    assert agree(one.initial, exact.initial, exact.notional)
    assert agree(one.maintenance, exact.maintenance, exact.notional)
    many = calculator.requirements(copied(position))
    assert np.array_equal(many.initial, np.full(COPIES, one.initial))
    assert np.array_equal(many.maintenance, np.full(COPIES, one.maintenance))


@settings(max_examples=300, deadline=None)
@given(positions(), families, st.one_of(any_rule, plain_rule))
def test_liquidation_prices_are_the_exact_ones(
    position: Position, schedule: Schedule, rule: Rule
) -> None:
    try:
        exact = liquidation_price_of(position, schedule, rule)
    except ValueError:
        # Maintenance and fee are the whole value: no price is one.
        assume(False)
        raise
    calculator = Calculator(schedule, rule)
    one = calculator.liquidation_prices(fields(position))
    many = calculator.liquidation_prices(copied(position))
    assert np.unique(many.status).tolist() == [one.status]
    assert position.entry_price is not None
    if exact is None:
        assert one.status == LiquidationStatus.CANNOT_BE_LIQUIDATED
        assert np.isnan(one.price)
        assert np.isnan(many.price).all()
        return
    # A root that is next to nothing may be on either side of it; far beyond the entry price the
    # digits of an inverse one are gone.
    assume(exact == 0 or position.entry_price * CLOSE < exact < position.entry_price / CLOSE)
    assert one.status == LiquidationStatus.AT_PRICE
    scale = position.entry_price * (1 + exact / position.entry_price)
    assert agree(one.price, exact, scale)
    assert np.allclose(many.price, one.price, rtol=1e-12, atol=0)


@given(positions(with_wallet=True), any_rule, decimals("0.01", "5", 2))
def test_prices_are_rounded_like_the_exact_ones(
    position: Position, rule: Rule, tick: Decimal
) -> None:
    on_ticks = replace(position, tick=tick)
    exact = bankruptcy_price_of(on_ticks, rule)
    raw = bankruptcy_price_of(replace(on_ticks, tick=None), rule)
    got = Calculator(TierSchedule.flat("0.01"), rule).bankruptcy_prices(fields(on_ticks))
    if exact is None or raw is None or not exact.is_finite():
        assert got.status == LiquidationStatus.CANNOT_BE_LIQUIDATED or np.isinf(got.price)
        return
    # So close to the end of a step doubles may go to the next one.
    steps = raw / tick
    assume(abs(steps * 2 - round(steps * 2)) > Decimal("1e-6") * (1 + steps / 1000))
    assert agree(got.price, exact, raw)


@given(st.lists(positions(), min_size=1, max_size=40), families, families, plain_rule, st.data())
def test_each_position_has_the_schedule_that_it_names(
    rows: list[Position], first: Schedule, second: Schedule, rule: Rule, data: st.DataObject
) -> None:
    which = data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows)))
    columns = {
        name: np.array([fields(row)[name] for row in rows])
        for name in ("quantity", "mark_price", "leverage", "open_interest")
    }
    both = Calculator([first, second], rule).requirements(columns | {"schedule": which})
    for index, choice in enumerate(which):
        alone = Calculator((first, second)[choice], rule).requirements(
            {name: column[index] for name, column in columns.items()}
        )
        assert (both.initial[index], both.maintenance[index]) == alone
