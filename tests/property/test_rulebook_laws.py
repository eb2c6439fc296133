"""Laws of rulebooks: what is written is read again, and layouts lose nothing that they can say."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO

from hypothesis import assume, given
from hypothesis import strategies as st

from riskd.core.engine import Engine
from riskd.rulebooks import (
    AssetRule,
    Provenance,
    Rulebook,
    ScheduleRule,
    TierRule,
    apply,
    export_ccxt,
    import_ccxt,
    loads,
    next_change,
    select,
    to_toml,
    validate,
)
from riskd.rulebooks.diff import changes, requirement_changes
from riskd.rulebooks.laws import next_deduction

DAY = date(2026, 1, 1)
START = datetime(2026, 1, 1, tzinfo=UTC)
SOURCES = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() != "")
PROVENANCE = st.builds(Provenance, SOURCES, st.just(DAY))


@st.composite
def ladders(draw: st.DrawFn) -> tuple[TierRule, ...]:
    """Return marginal tiers that keep the laws: floors and rates rise, leverages fall."""
    count = draw(st.integers(1, 8))
    floors = sorted(draw(st.sets(st.integers(1, 10**9), min_size=count - 1, max_size=count - 1)))
    leverages = sorted(draw(st.sets(st.integers(1, 125), min_size=count, max_size=count)))[::-1]
    tiers: list[TierRule] = []
    for floor, leverage in zip((0, *floors), leverages, strict=True):
        initial = Decimal(10**9 // leverage).scaleb(-9)
        part = draw(st.integers(1, 99))
        maintenance = Decimal(10**6 * part // (100 * leverage)).scaleb(-6)
        assume(Decimal(0) < maintenance < initial)
        assume(not tiers or maintenance > tiers[-1].maintenance_rate)
        deduction = next_deduction(tiers[-1], Decimal(floor), maintenance) if tiers else Decimal(0)
        tiers.append(TierRule(Decimal(floor), initial, maintenance, deduction, Decimal(leverage)))
    return tuple(tiers)


@st.composite
def rulebooks(draw: st.DrawFn) -> Rulebook:
    """Return a rulebook of schedules in USDT, each with one or two versions."""
    schedules = []
    for name in draw(st.sets(st.sampled_from(["BTCUSDT", "ETHUSDT", "1000XUSDT"]), min_size=1)):
        start = None
        for _ in range(draw(st.integers(1, 2))):
            tiers = draw(ladders())
            largest = draw(st.none() | st.integers(1, 10**6).map(Decimal))
            top = None if largest is None else tiers[-1].floor + largest
            schedules.append(
                ScheduleRule(
                    name, "USDT", tiers, top, Decimal(0), draw(PROVENANCE), effective_from=start
                )
            )
            start = (start or START) + timedelta(days=draw(st.integers(1, 100)))
    own = draw(PROVENANCE)
    asset = AssetRule("USDT", 8, draw(PROVENANCE))
    book = Rulebook("any", draw(SOURCES), own, (asset,), tuple(schedules))
    validate(book, "any.toml")
    return book


@given(rulebooks())
def test_what_is_written_is_read_again(book: Rulebook) -> None:
    assert loads(to_toml(book)) == book


@given(rulebooks(), st.integers(0, 250))
def test_a_time_has_one_version_of_each_name(book: Rulebook, days: int) -> None:
    at = START + timedelta(days=days)
    chosen = select(book, at)
    names = [rule.name for rule in chosen.schedules]
    assert sorted(names) == sorted({rule.name for rule in book.schedules})
    # Nothing changes before the next change.
    later = next_change(book, at)
    if later is not None:
        assert select(book, later - timedelta(microseconds=1)) == chosen
        assert select(book, later) != chosen


@given(rulebooks())
def test_export_and_import_give_the_same_tiers(book: Rulebook) -> None:
    now = select(book, START)
    text = export_ccxt(now)
    again = import_ccxt(BytesIO(text.encode()), as_of=DAY)
    before = {rule.name: (rule.tiers, rule.notional_max) for rule in now.schedules}
    assert {rule.name: (rule.tiers, rule.notional_max) for rule in again.schedules} == before
    assert json.loads(export_ccxt(again)) == json.loads(text)


@given(rulebooks(), rulebooks())
def test_rulebooks_differ_where_diff_says_so_and_nowhere_else(
    first: Rulebook, second: Rulebook
) -> None:
    assert changes(first, first, has_sources=True) == []
    assert requirement_changes(first, first) == []
    there, back = changes(first, second), changes(second, first)
    assert {(each.path, each.old, each.new) for each in there} == {
        (each.path, each.new, each.old) for each in back
    }


@given(rulebooks())
def test_a_second_application_changes_nothing(book: Rulebook) -> None:
    engine = Engine(accounts_max=1, positions_max=1, orders_max=1)
    now = select(book, START)
    apply(now, engine, START)
    revision = engine.revision
    apply(now, engine, START)
    assert engine.revision == revision
    held = {row.name: [tier.deduction for tier in row.tiers] for row in engine.schedules()}
    for rule in now.schedules:
        assert held[rule.name] == [int(tier.deduction * 10**8) for tier in rule.tiers]
