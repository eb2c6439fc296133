"""WatchRiskEvents: changes of margin levels as they happen, resumed, bounded, ended in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from riskd.v1 import account_service_pb2 as accounts_pb
from riskd.v1 import margin_service_pb2 as pb
from riskd.v1 import types_pb2
from tests.service.conftest import Clock, Rig, new_order

SAFE, SEARCH, LIQUIDATION = (
    pb.MARGIN_LEVEL_SAFE,
    pb.MARGIN_LEVEL_SEARCH,
    pb.MARGIN_LEVEL_LIQUIDATION,
)
# No test waits for it: it only keeps a broken one from hanging.
TIMEOUT_S = 60


def watch(rig: Rig, after_revision: int = 0, account_id: int = 0) -> Any:
    request = pb.WatchRiskEventsRequest(after_revision=after_revision, account_id=account_id)
    return rig.margins.WatchRiskEvents(request, timeout=TIMEOUT_S)


def events_of(stream: Iterator[pb.WatchRiskEventsResponse]) -> Iterator[pb.RiskEvent]:
    for message in stream:
        yield from message.events


@pytest.fixture
def called(market: Rig) -> Rig:
    """Account 7 is long 1 at 60000 with 3230, levels at 1.5 and 2 of the requirement."""
    return near_call(market)


def near_call(market: Rig) -> Rig:
    """Bring the market of `market` to the state of `called`."""
    market.accounts.AdjustCollateral(
        accounts_pb.AdjustCollateralRequest(account_id=7, asset="USDT", amount="-6770")
    )
    market.trade(new_order(quantity_lots=1000))
    market.margins.SetMarginLevels(pb.SetMarginLevelsRequest(search="1.5", release="2"))
    return market


def test_levels_are_told_as_they_change_and_summed_up(called: Rig) -> None:
    stream = watch(called)
    first = next(stream)
    assert not first.events
    assert first.oldest_revision == 0
    events = events_of(stream)
    # Equity 3230 + 1 * (58000 - 60000) = 1230; requirement 0.01 * 58000 - 250 = 330.
    called.mark(1, 1_160_000)
    summary = called.margins.GetMarginSummary(pb.GetMarginSummaryRequest(account_id=7)).summary
    assert (summary.maintenance_level, summary.search_level) == ("330", "495")
    assert (summary.release_level, summary.cross_equity) == ("660", "1230")
    # Equity 430 is between 322 and 1.5 times that.
    called.mark(1, 1_144_000)
    event = next(events)
    assert (event.account_id, event.instrument_id) == (7, 0)
    assert (event.level_before, event.level_after) == (SAFE, SEARCH)
    assert (event.equity, event.requirement) == ("430", "322")
    assert event.time_ns == called.clock()
    called.mark(1, 1_140_000)
    event = next(events)
    assert (event.level_before, event.level_after) == (SEARCH, LIQUIDATION)
    assert (event.equity, event.requirement) == ("230", "320")
    summary = called.margins.GetMarginSummary(pb.GetMarginSummaryRequest(account_id=7)).summary
    assert summary.margin_level == LIQUIDATION
    stream.cancel()


def test_a_stream_goes_on_after_a_revision(called: Rig) -> None:
    whole = watch(called)
    next(whole)
    events = events_of(whole)
    called.mark(1, 1_144_000)
    first = next(events)
    called.mark(1, 1_200_000)
    second = next(events)
    assert (second.level_before, second.level_after) == (SEARCH, SAFE)
    assert second.revision > first.revision
    rest = next(watch(called, first.revision))
    assert list(rest.events) == [second]
    assert rest.revision >= second.revision
    assert not next(watch(called, rest.revision)).events
    assert len(next(watch(called, 0, 7)).events) == 2


def test_of_another_account_nothing_is_told(called: Rig) -> None:
    called.accounts.CreateAccount(
        accounts_pb.CreateAccountRequest(account_id=8, settlement_asset="USDT")
    )
    other, own = watch(called, account_id=8), watch(called, account_id=7)
    assert not next(other).events
    next(own)
    called.mark(1, 1_144_000)
    assert next(events_of(own)).account_id == 7
    assert not next(watch(called, account_id=8)).events


def test_a_place_that_the_service_does_not_have_is_refused(called: Rig) -> None:
    failure = called.fail(lambda: list(watch(called, 10**9)))
    assert failure.reason == "FIELD_INVALID"
    revision = called.engine.revision
    text = f"after_revision is 1000000000: must be at most {revision}, the last of this service"
    assert failure.message == text
    failure = called.fail(lambda: list(watch(called, account_id=99)))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "ACCOUNT_UNKNOWN")


def test_streams_are_bounded_and_one_that_is_left_makes_room(
    new_rig: Callable[..., Rig], clock: Clock
) -> None:
    rig = new_rig(clock, risk_event_streams_max=2)
    streams = [watch(rig), watch(rig)]
    for stream in streams:
        next(stream)
    failure = rig.fail(lambda: next(watch(rig)))
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STREAMS_FULL")
    assert "2 streams are open" in failure.message
    streams[0].cancel()
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        try:
            next(watch(rig))
            return
        except grpc.RpcError:
            continue
    raise AssertionError("a stream that was left still counts")


def test_streams_hold_no_threads_and_end_at_once_when_the_service_stops(called: Rig) -> None:
    # More than there are worker threads; other calls are answered all the same.
    streams = [watch(called) for _ in range(32)]
    for stream in streams:
        next(stream)
    called.mark(1, 1_144_000)
    for stream in streams:
        assert len(next(stream).events) == 1
    start = time.monotonic()
    called.server.stop(30_000)
    assert time.monotonic() - start < 15
    failure = called.fail(lambda: next(streams[0]))
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert failure.reason == "SERVICE_STOPPING"


def test_nothing_is_looked_at_when_that_is_off(new_rig: Callable[..., Rig], clock: Clock) -> None:
    rig = new_rig(clock, margin_levels_evaluated=False, tick_interval_ms=1)
    engine = rig.engine
    engine.create_asset("USDT", 6)
    engine.upsert_schedule("BTC", 1, [(0, 10**7, 5 * 10**6, 10_000)])
    engine.upsert_instrument("BTC-PERP", 1, 1, 1, 5, -1, 1, -3)
    engine.create_account(7, 1, types_pb2.MARGIN_MODE_CROSS, 2000, 10**6)
    engine.load_position(7, 1, types_pb2.POSITION_SIDE_NET, 1000, 60_000 * 10**6, 0)
    rig.mark(1, 120_000)
    engine.set_margin_levels(1_500_000, 2_000_000)
    stream = watch(rig)
    assert not next(stream).events
    # The event is there for the first that looks.
    assert engine.evaluate_levels(0, 1, clock()) == (0, 1)


@pytest.mark.parametrize(
    ("search", "release", "text"),
    [
        ("", "2", "search is '': must be a decimal number"),
        ("1", "2", "search is '1', release '2': must be above 1, and release above search"),
        ("2", "2", "search is '2', release '2': must be above 1"),
        ("0", "2", "search is '0', release '2': must be above 1"),
        ("1.5", "10.1", "release is '10.1': must be 0 to 10"),
        ("1.0000001", "2", "search is '1.0000001': must be a multiple of 0.000001"),
    ],
)
def test_levels_out_of_bounds_are_refused(
    market: Rig, search: str, release: str, text: str
) -> None:
    request = pb.SetMarginLevelsRequest(search=search, release=release)
    before = market.engine.state_hash()
    failure = market.fail(market.margins.SetMarginLevels, request)
    assert failure.reason == "DEFINITION_INVALID"
    assert failure.message.startswith(text)
    assert market.engine.state_hash() == before


def test_levels_are_validated_set_and_put_off(market: Rig) -> None:
    def put(search: str, release: str, *, validate_only: bool = False) -> None:
        market.margins.SetMarginLevels(
            pb.SetMarginLevelsRequest(search=search, release=release, validate_only=validate_only)
        )

    put("1.25", "1.5", validate_only=True)
    assert market.engine.margin_levels() == (0, 0)
    put("1.25", "1.5")
    assert market.engine.margin_levels() == (1_250_000, 1_500_000)
    put("0", "0")
    assert market.engine.margin_levels() == (0, 0)
