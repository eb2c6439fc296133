"""A version of a rulebook goes into the engine as one: for orders, in the journal, over a crash."""

import logging
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from riskd.core.engine import METHOD_CHECK_ORDER, METHOD_REPORT_MARKS, Engine
from riskd.rulebooks import Rulebook, apply, loads, to_toml
from riskd.services.backend import Backend
from riskd.services.rules import RuleVersions
from riskd.settings import Settings
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from riskd.wiring import build_audited_engine
from tests.service.conftest import Clock

START = datetime(2026, 1, 1, tzinfo=UTC)
START_NS = int(START.timestamp()) * 10**9
VERSIONS = 40
THREADS = 4
# Positions of 100 at 1000 on A and B and a short option: a version with rate r asks for
# 100000 r + 100000 r + 1000 r + the option's mark of 100, and counts 1 - r of 1000 of collateral.
RATES = ("0.02", "0.04")
AVAILABLE = {100_000 + 1000 * (1 - rate) - 201_000 * rate - 100 for rate in map(float, RATES)}

HEAD = """\
format = 2
name = "swap"
title = "Rates, an option rule and collateral that change together"
source = "made up"
as_of = 2026-01-01
"""
SOURCE = 'source = "made up"\nas_of = 2026-01-01\n'


def section(name: str, text: str) -> str:
    return f"\n[{name}]\n{text}{SOURCE}"


def contract(symbol: str, more: str = "") -> str:
    return section(
        f"instrument.{symbol}",
        f'kind = "linear_perpetual"\nsettlement_asset = "USD"\nmargin_schedule = "{symbol}"\n'
        f'tick_size = "1"\nlot_size = "1"\n{more}',
    )


def book_of(count: int) -> Rulebook:
    """Return a rulebook whose rates go up and down by the second, all of them at once."""
    text = HEAD + section("asset.USD", "scale = 6\n") + section("asset.BTC", "scale = 8\n")
    for k in range(count):
        rate = RATES[k % 2]
        begins = f"effective_from = {(START + timedelta(seconds=k)).isoformat()}\n" if k else ""
        for name in ("A", "B"):
            tier = f'floor = "0", initial_rate = "{rate}", maintenance_rate = "0.01"'
            text += section(
                f"[schedule.{name}]",
                f'settlement_asset = "USD"\n{begins}tier = [{{ {tier}, max_leverage = "100" }}]\n',
            )
        text += section(
            "[option_rule.SHORT]",
            f'family = "short_option"\nsettlement = "cash"\nreference = "index"\n{begins}'
            f'initial_rate = "{rate}"\ninitial_floor = "{rate}"\nmaintenance_rate = "0.01"\n',
        )
        weight = f"{1 - float(rate):.2f}"
        text += section(
            "[collateral.BTC]",
            f'index = "A"\n{begins}haircut = [{{ floor = "0", asset_weight = "{weight}" }}]\n',
        )
    text += contract("A") + contract("B")
    text += section(
        "instrument.PUT",
        'kind = "linear_option"\nsettlement_asset = "USD"\ntick_size = "1"\nlot_size = "1"\n'
        'expiry = 2030-12-27T08:00:00Z\nstrike = "1000"\noption_type = "put"\n'
        'underlying = "A"\noption_rule = "SHORT"\n',
    )
    return loads(text)


def position(engine: Engine, instrument_id: int, lots: int, value: int) -> None:
    reason, *_ = engine.load_position(1, instrument_id, types_pb2.POSITION_SIDE_NET, lots, value, 0)
    assert reason == types_pb2.REASON_CODE_NONE


def fill(engine: Engine, ids: dict[str, int], now_ns: int) -> None:
    """Give account 1 its positions: 100,000 of cash and one BTC at 1000."""
    assets = {row.symbol: row.asset_id for row in engine.assets()}
    engine.create_account(1, assets["USD"], types_pb2.MARGIN_MODE_CROSS, 10_000, 10**11)
    prices = {"A": 1000, "B": 1000, "PUT": 100}
    marks = [
        marks_pb.Mark(instrument_id=ids[name], mark_price=price, time_ns=now_ns)
        for name, price in prices.items()
    ]
    request = marks_pb.ReportMarksRequest(marks=marks)
    engine.handle(METHOD_REPORT_MARKS, request.SerializeToString(), now_ns)
    engine.adjust_collateral(1, assets["BTC"], 10**8, False, now_ns)
    position(engine, ids["A"], 100, 10**11)
    position(engine, ids["B"], 100, 10**11)
    position(engine, ids["PUT"], -1, 10**8)


def ask(engine: Engine, ids: dict[str, int], number: int) -> float:
    """Return what an order far too large finds available."""
    request = orders_pb.CheckOrderRequest(
        account_id=1,
        instrument_id=ids["A"],
        client_order_id=number,
        gateway_id=1,
        side=types_pb2.SIDE_BUY,
        order_type=types_pb2.ORDER_TYPE_LIMIT,
        price_ticks=1000,
        quantity_lots=10**6,
    )
    reply = orders_pb.CheckOrderResponse()
    reply.ParseFromString(engine.handle(METHOD_CHECK_ORDER, request.SerializeToString(), START_NS))
    assert reply.reason == types_pb2.REASON_CODE_MARGIN_INSUFFICIENT
    return reply.available_minor / 10**6


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("has_journal", [False, True])
def test_no_order_is_decided_by_a_part_of_a_version(
    tmp_path: Path, has_journal: bool, quick_switches: None
) -> None:
    book, clock, engine = book_of(VERSIONS), Clock(START_NS), Engine()
    if has_journal:
        engine.open_journal(tmp_path, durability="process")
    ids = apply(book, engine, START)
    fill(engine, ids, clock())
    versions = RuleVersions(Backend(engine, clock, 1.0), [book])
    found: list[set[float]] = [set() for _ in range(THREADS)]
    stop = threading.Event()
    faults: list[BaseException] = []

    def work(place: int) -> None:
        number = place * 10**9
        try:
            while not stop.is_set():
                number += 1
                found[place].add(ask(engine, ids, number))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(VERSIONS):
            versions.apply_due()
            clock.now_ns += 10**9
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not faults
    assert set.union(*found) == AVAILABLE
    if has_journal:
        held = engine.state_hash()
        engine.close_journal()
        again = Engine()
        again.open_journal(tmp_path, durability="process")
        assert again.state_hash() == held
        again.close_journal()


def test_a_version_that_a_crash_cut_in_two_is_completed_before_the_service_answers(
    tmp_path: Path,
) -> None:
    rulebook = tmp_path / "swap.toml"
    # Of two versions, the second has been in force for long.
    book = book_of(2)
    rulebook.write_text(to_toml(book))
    values: dict[str, Any] = {"durability": "process", "journal_directory": str(tmp_path / "j")}
    before = Engine()
    before.open_journal(values["journal_directory"], durability="process")
    ids = apply(book, before, START)
    fill(before, ids, START_NS)
    # Of its four changes the first is on record when the process dies.
    usd = next(row.asset_id for row in before.assets() if row.symbol == "USD")
    tiers = [(0, 40_000_000, 10_000_000, 10_000)]
    assert before.upsert_schedule("A", usd, tiers)[0] == types_pb2.REASON_CODE_NONE
    assert ask(before, ids, 1) not in AVAILABLE
    before.close_journal()
    settings = Settings(rulebooks=(str(rulebook),), **values)
    engine, _ = build_audited_engine(settings)
    assert ask(engine, ids, 2) == min(AVAILABLE)
    engine.close_journal()


def test_a_version_that_the_engine_refuses_in_its_middle_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, engine = Clock(START_NS), Engine(schedules_max=3)
    apply(book_of(1), engine, START)
    more = section(
        "schedule.C",
        'settlement_asset = "USD"\neffective_from = 2026-01-01T00:00:01Z\n'
        'tier = [{ floor = "0", maintenance_rate = "0.01", max_leverage = "20" }]\n',
    )
    book = loads(to_toml(book_of(2)) + more)
    versions = RuleVersions(Backend(engine, clock, 1.0), [book])
    held = engine.state_lines()
    clock.now_ns += 10**9
    versions.apply_due()
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.message == "rulebook not applied"
    assert "schedule C" in vars(record)["fields"]["error"]
    assert engine.state_lines() == held
    # The same with room for C.
    roomy = Engine(schedules_max=4)
    apply(book_of(1), roomy, START)
    held = roomy.state_lines()
    RuleVersions(Backend(roomy, clock, 1.0), [book]).apply_due()
    assert roomy.state_lines() != held
