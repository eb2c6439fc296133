"""A rulebook's versions begin at their times, in a selection and in a server that runs on."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from riskd.core.engine import Engine
from riskd.rulebooks import (
    ApplyError,
    Rulebook,
    RulebookError,
    apply,
    has_versions,
    load,
    loads,
    next_change,
    select,
)
from riskd.services.backend import Backend
from riskd.services.rules import RuleVersions, time_of
from riskd.settings import Settings, SettingsError
from riskd.wiring import build_engine

DATA = Path(__file__).parents[1] / "data"

TWO_VERSIONS = """\
format = 2
name = "two"
title = "A perpetual whose rates rise in June, a future's in July"
source = "made up"
as_of = 2026-01-01

[asset.USD]
scale = 6
source = "made up"
as_of = 2026-01-01

[[schedule.A]]
settlement_asset = "USD"
source = "made up"
as_of = 2026-01-01
tier = [{ floor = "0", maintenance_rate = "0.01", max_leverage = "50" }]

[[schedule.A]]
settlement_asset = "USD"
effective_from = 2026-06-01T00:00:00Z
source = "made up"
as_of = 2026-05-01
tier = [{ floor = "0", maintenance_rate = "0.02", max_leverage = "25" }]

[[schedule.B]]
settlement_asset = "USD"
effective_from = 2026-02-01T00:00:00Z
source = "made up"
as_of = 2026-01-01
tier = [{ floor = "0", maintenance_rate = "0.03", max_leverage = "10" }]

[[schedule.B]]
settlement_asset = "USD"
effective_from = 2026-06-01T00:00:00Z
source = "made up"
as_of = 2026-05-01
tier = [{ floor = "0", maintenance_rate = "0.04", max_leverage = "10" }]

[[schedule.B]]
settlement_asset = "USD"
effective_from = 2026-07-01T00:00:00Z
source = "made up"
as_of = 2026-05-01
tier = [{ floor = "0", maintenance_rate = "0.05", max_leverage = "10" }]

[instrument.A]
kind = "linear_perpetual"
settlement_asset = "USD"
margin_schedule = "A"
tick_size = "0.1"
lot_size = "0.001"
source = "made up"
as_of = 2026-01-01

[instrument.B]
kind = "linear_perpetual"
settlement_asset = "USD"
margin_schedule = "B"
tick_size = "0.1"
lot_size = "0.001"
source = "made up"
as_of = 2026-01-01
"""


@pytest.fixture
def book() -> Rulebook:
    return loads(TWO_VERSIONS)


def day(month: int, number: int = 1) -> datetime:
    return datetime(2026, month, number, tzinfo=UTC)


def rates(book: Rulebook) -> list[str]:
    return [str(rule.tiers[0].maintenance_rate) for rule in book.schedules]


def test_select_leaves_the_version_in_force(book: Rulebook) -> None:
    assert rates(select(book, day(3))) == ["0.01", "0.03"]
    assert rates(select(book, day(6))) == ["0.02", "0.04"]
    assert rates(select(book, day(12))) == ["0.02", "0.05"]
    # The methods of a book with versions find the newest.
    assert str(book.schedule("B").tiers[0].maintenance_rate) == "0.05"


def test_what_begins_later_cannot_be_used_before(book: Rulebook) -> None:
    with pytest.raises(RulebookError) as caught:
        select(book, day(1))
    assert str(caught.value) == (
        "two: schedule.B.effective_from = 2026-02-01T00:00:00+00:00:"
        " is not in force at 2026-01-01T00:00:00+00:00"
    )
    later = loads((DATA / "rulebook_format2.toml").read_text())
    with pytest.raises(RulebookError, match=r"tiny: effective_from = 2026-01-01.*not in force at"):
        select(later, datetime(2025, 12, 31, tzinfo=UTC))


def test_the_next_change_is_the_first_start_after_a_time(book: Rulebook) -> None:
    assert next_change(book, day(1)) == day(2)
    assert next_change(book, day(2)) == day(6)
    assert next_change(book, day(6, 2)) == day(7)
    assert next_change(book, day(7)) is None
    assert has_versions(book)
    assert not has_versions(load("textbook"))


def test_versions_need_a_time_to_be_applied(book: Rulebook) -> None:
    engine = Engine()
    with pytest.raises(ApplyError, match="two: has versions: say at which time to apply it"):
        apply(book, engine)
    apply(book, engine, day(3))
    assert [row.tiers[0].maintenance_rate_ppb for row in engine.schedules()] == [
        10_000_000,
        30_000_000,
    ]


class Clock:
    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> int:
        return int(self.at.timestamp()) * 10**9


@pytest.fixture
def served(book: Rulebook) -> tuple[Engine, Clock, RuleVersions, Backend]:
    clock = Clock(day(3))
    engine = Engine()
    apply(book, engine, clock.at)
    backend = Backend(engine, clock, 1.0)
    return engine, clock, RuleVersions(backend, [book]), backend


def test_a_server_swaps_versions_when_their_time_comes(
    served: tuple[Engine, Clock, RuleVersions, Backend], caplog: pytest.LogCaptureFixture
) -> None:
    engine, clock, versions, _ = served
    caplog.set_level(logging.INFO, logger="riskd.rules")
    revision = engine.revision
    versions.apply_due()
    clock.at = day(5, 31)
    versions.apply_due()
    assert engine.revision == revision
    # Both schedules change with the same call, and an instrument that did not change stays.
    clock.at = day(6)
    versions.apply_due()
    assert engine.revision == revision + 2
    held = [(row.version, row.tiers[0].maintenance_rate_ppb) for row in engine.schedules()]
    assert held == [(2, 20_000_000), (2, 40_000_000)]
    versions.apply_due()
    assert engine.revision == revision + 2
    # Two versions that were slept through: the last one is in force.
    clock.at = day(9)
    versions.apply_due()
    assert [row.tiers[0].maintenance_rate_ppb for row in engine.schedules()][1] == 50_000_000
    assert [record.message for record in caplog.records] == [
        "rulebook applied",
        "next version of a rulebook",
        "rulebook applied",
    ]


def test_what_began_while_the_server_started_is_not_missed(book: Rulebook) -> None:
    engine = Engine()
    apply(book, engine, day(5, 31))
    versions = RuleVersions(Backend(engine, Clock(day(6)), 1.0), [book])
    versions.apply_due()
    assert [row.version for row in engine.schedules()] == [2, 2]


def test_another_change_under_way_is_waited_for(
    served: tuple[Engine, Clock, RuleVersions, Backend],
) -> None:
    engine, clock, versions, backend = served
    clock.at = day(6)
    revision = engine.revision

    class Held:
        def acquire(self, blocking: bool) -> bool:
            return False

    lock, backend.change_lock = backend.change_lock, Held()  # type: ignore[assignment]
    versions.apply_due()
    assert engine.revision == revision
    backend.change_lock = lock
    versions.apply_due()
    assert engine.revision == revision + 2


def test_a_version_that_the_engine_refuses_leaves_the_rules_as_they_were(
    book: Rulebook, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(day(3))
    engine = Engine()
    apply(book, engine, clock.at)
    broken = loads(TWO_VERSIONS.replace('tick_size = "0.1"', 'tick_size = "0.2"', 1))
    versions = RuleVersions(Backend(engine, clock, 1.0), [broken])
    held = engine.state_lines()
    clock.at = day(6)
    versions.apply_due()
    assert engine.state_lines() == held
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.message == "rulebook not applied"


def test_a_swap_is_on_record_under_the_rulebook_s_name(
    served: tuple[Engine, Clock, RuleVersions, Backend],
) -> None:
    _, clock, versions, backend = served
    clock.at = day(6)
    versions.apply_due()
    origins = [change.origin for change in backend.trail.newest(None, 2**62, 2)]
    assert [origin.method for origin in origins] == ["ApplyRulebook"] * 2
    assert origins[0].arguments == {"rulebook": "two"}


def test_time_is_cut_to_microseconds() -> None:
    assert time_of(1_767_225_600_000_001_999) == datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


def test_two_rulebooks_of_a_server_do_not_share_names(tmp_path: Path) -> None:
    settings = Settings(rulebooks=("binance_usdm", "kucoin", "mexc"), durability="none")
    message = "rulebooks: binance_usdm and mexc both have the schedule BTCUSDT"
    with pytest.raises(SettingsError, match=message):
        build_engine(settings)
    twice = Settings(rulebooks=("mexc", "kucoin", "mexc"), durability="none")
    with pytest.raises(SettingsError, match="rulebooks: mexc is there twice"):
        build_engine(twice)
