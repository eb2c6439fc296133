"""What a service measures is what happened, and reading it costs others nothing."""

from __future__ import annotations

import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from riskd.core.monitor import Monitor
from riskd.metrics.collector import DURATION_BOUNDS_NS, RiskdCollector
from riskd.metrics.families import FAMILIES, reference_table
from riskd.metrics.server import CONNECTIONS_MAX, REQUEST_BYTES_MAX, MetricsServer
from riskd.native import NativeDoor
from riskd.settings import Settings, SettingsError
from riskd.v1 import order_risk_service_pb2 as pb
from riskd.v1 import types_pb2
from tests.service.conftest import NOW_NS, TIMEOUT_S, Clock, Rig, new_order, open_market
from tests.service.native import listening

DOCS = Path(__file__).parents[2] / "docs" / "observability.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextmanager
def endpoint(rig: Rig, native: NativeDoor | None = None, at: str = "127.0.0.1:0") -> Iterator[str]:
    """Serve the metrics of a rig; gives the address."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    native = native or NativeDoor(Settings(), rig.engine)
    registry.register(
        RiskdCollector(
            Monitor(rig.engine), native, rig.server.meter, lambda: [("a", "")], clock=rig.clock
        )
    )
    server = MetricsServer(at, registry)
    try:
        yield server.start()
    finally:
        server.stop()


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=TIMEOUT_S) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(response.read().decode())


def samples_of(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def find(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def total(row: Any) -> int:
    return sum(count for _, count in row.counts)


# --- the core ----------------------------------------------------------------------------------


def test_every_call_is_counted_and_every_timed_one_has_all_stages(market: Rig) -> None:
    with listening(market.engine, calls_per_timed=1) as native:
        for number in range(1, 51):
            native.orders.CheckOrder(new_order(number), timeout=TIMEOUT_S)
    measured = native.listener.measured()
    assert measured.statuses["CheckOrder", 0] == 50
    for stage in ("receive", "queue", "decode", "check", "encode", "journal", "send"):
        assert total(measured.stages[stage]) == 50, stage
    assert total(measured.calls["CheckOrder"]) == 50
    assert total(measured.rounds) == 50
    parts = sum(row.sum for row in measured.stages.values())
    assert 0 < parts == measured.calls["CheckOrder"].sum


def test_one_call_in_so_many_is_timed_and_none_if_none_is_wanted(market: Rig) -> None:
    with listening(market.engine, calls_per_timed=4) as native:
        for number in range(1, 401):
            native.orders.CheckOrder(new_order(number, mode=pb.CHECK_MODE_CHECK_ONLY))
    # Distances are 1 to 7, with a mean of 4.
    assert 400 / 7 <= total(native.listener.measured().calls["CheckOrder"]) <= 150
    with listening(market.engine, calls_per_timed=0) as native:
        native.orders.CheckOrder(new_order(1))
    measured = native.listener.measured()
    assert measured.statuses == {("CheckOrder", 0): 1}
    assert total(measured.calls["CheckOrder"]) == total(measured.stages["check"]) == 0


def test_answers_are_counted_by_decision_and_reason_through_both_doors(market: Rig) -> None:
    monitor = Monitor(market.engine)
    accepted, none = types_pb2.DECISION_ACCEPTED, types_pb2.REASON_CODE_NONE
    rejected = types_pb2.DECISION_REJECTED
    with listening(market.engine) as native:
        for door in (market.orders, native.orders):
            before = monitor.answers()
            base = 0 if door is market.orders else 10
            first = door.CheckOrder(new_order(base + 1))
            door.CheckOrder(new_order(base + 1))
            door.CheckOrder(new_order(base + 2, account_id=99))
            orders = [new_order(base + number) for number in (3, 4, 5)]
            orders[1].instrument_id = 0
            door.BatchCheckOrders(pb.BatchCheckOrdersRequest(orders=orders))
            change = pb.CheckAmendmentRequest(
                reservation_id=first.reservation_id,
                gateway_id=3,
                client_order_id=base + 6,
                price_ticks=120_001,
                quantity_lots=1,
            )
            amended = door.CheckAmendment(change).order
            cancel = pb.ReportExecutionRequest(
                reservation_id=first.reservation_id,
                gateway_id=3,
                execution_id=base + 7,
                kind=pb.EXECUTION_KIND_CANCEL,
            )
            reported = door.ReportExecution(cancel)
            counted = {key: count - before.get(key, 0) for key, count in monitor.answers().items()}
            assert {key: count for key, count in counted.items() if count} == {
                ("order", accepted, none): 4,
                ("order", rejected, types_pb2.REASON_CODE_ACCOUNT_UNKNOWN): 1,
                ("order", rejected, types_pb2.REASON_CODE_INSTRUMENT_UNKNOWN): 1,
                ("amendment", amended.decision, amended.reason): 1,
                ("execution", reported.decision, reported.reason): 1,
            }


def test_refused_cancelled_and_streamed_calls_are_counted_once(market: Rig) -> None:
    with listening(market.engine, calls_per_timed=1) as native:
        requests = [pb.StreamOrdersRequest(order=new_order(number)) for number in range(1, 6)]
        assert len(list(native.orders.StreamOrders(iter(requests), timeout=TIMEOUT_S))) == 5
        with pytest.raises(grpc.RpcError):
            list(native.orders.StreamOrders(iter([pb.StreamOrdersRequest()]), timeout=TIMEOUT_S))
    invalid = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    measured = native.listener.measured()
    assert measured.statuses == {("StreamOrders", 0): 1, ("StreamOrders", invalid): 1}
    assert native.listener.counts()["messages_streamed"] == 5
    assert total(measured.stages["check"]) == 5


def test_limits_are_ranked_by_use_and_marks_by_age(market: Rig) -> None:
    monitor = Monitor(market.engine)
    for kind, value in (
        ("OPEN_ORDERS_MAX", 10),
        ("POSITION_LOTS_MAX", 2),
        ("ORDER_QUANTITY_MAX", 9),
    ):
        number = types_pb2.LimitKind.Value(f"LIMIT_KIND_{kind}")
        instrument = 1 if kind == "POSITION_LOTS_MAX" else 0
        market.engine.set_limit(3, 7, instrument, number, value, 0, 1, market.engine.revision)
    market.orders.CheckOrder(new_order(1))
    uses = monitor.limits(NOW_NS, 10)
    assert [(row.kind, row.value, row.use) for row in uses.nearest] == [
        (types_pb2.LIMIT_KIND_POSITION_LOTS_MAX, 2, 1),
        (types_pb2.LIMIT_KIND_OPEN_ORDERS_MAX, 10, 1),
    ]
    assert (uses.known, uses.unknown) == (2, 0)
    assert uses.above_ppm == {500_000: 1, 800_000: 0, 900_000: 0, 1_000_000: 0}
    assert len(monitor.limits(NOW_NS, 1).nearest) == 1
    marks = monitor.marks(5)
    assert marks.oldest == ((1, NOW_NS),)
    assert (marks.marked, marks.missing) == (1, 0)
    assert monitor.symbol(1) == "BTC-PERP"
    with pytest.raises(KeyError, match="instrument 2 is not known"):
        monitor.symbol(2)
    with pytest.raises(ValueError, match="count_max is 0: must be 1 to 1024"):
        monitor.marks(0)


# --- the endpoint ------------------------------------------------------------------------------


def test_the_page_has_every_metric_that_is_served_and_no_other(market: Rig) -> None:
    assert reference_table() in DOCS.read_text(encoding="utf-8")
    settings = Settings(listener_addresses=("127.0.0.1:0",), listener_calls_per_timed=1)
    native = NativeDoor(settings, market.engine)
    native.start()
    market.orders.CheckOrder(new_order(1))
    try:
        with endpoint(market, native) as address:
            text = scrape(address)
    finally:
        native.stop()
    kinds = {"info": "gauge"}
    served = dict(re.findall(r"^# TYPE (riskd_\S+) (\S+)$", text, re.MULTILINE))
    assert served == {each.shown: kinds.get(each.kind, each.kind) for each in FAMILIES}
    labels = {each.shown: set(each.labels) for each in FAMILIES}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name.startswith("riskd_") else ():
            name = re.sub(r"_(bucket|sum|count)$", "", sample.name)
            assert set(sample.labels) - {"le"} == labels[name], sample
    assert (
        find(
            samples_of(text),
            "riskd_answers_total",
            request="order",
            decision="ACCEPTED",
            reason="NONE",
        )
        == 1
    )


def test_buckets_rise_to_the_count_and_hold_what_was_measured(market: Rig) -> None:
    for number in range(1, 21):
        market.orders.CheckOrder(new_order(number))
    with endpoint(market) as address:
        samples = samples_of(scrape(address))
    labels = {"door": "control", "method": "CheckOrder"}
    name = "riskd_call_duration_seconds"
    bounds = [f"{bound / 1e9:.12g}" for bound in DURATION_BOUNDS_NS] + ["+Inf"]
    buckets = [find(samples, f"{name}_bucket", le=bound, **labels) for bound in bounds]
    assert buckets == sorted(buckets)
    assert buckets[-1] == find(samples, f"{name}_count", **labels) == 20
    assert find(samples, f"{name}_sum", **labels) > 0
    assert find(samples, "riskd_calls_total", code="OK", **labels) == 20


def test_control_calls_are_counted_by_status(rig: Rig) -> None:
    with pytest.raises(grpc.RpcError):
        rig.raw("AccountService/GetAccount", b"\x08\x63")
    with pytest.raises(grpc.RpcError):
        rig.raw("NoService/NoMethod", b"")
    with pytest.raises(grpc.RpcError):
        rig.raw("OrderRiskService/CheckOrder", b"\xff")
    # A call is counted after its status has left.
    rig.server.stop(0)
    assert rig.server.meter.counts() == {
        ("GetAccount", "NOT_FOUND"): 1,
        ("other", "UNIMPLEMENTED"): 1,
        ("CheckOrder", "INVALID_ARGUMENT"): 1,
    }


def request(address: str, payload: bytes) -> bytes:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        connection.sendall(payload)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/2\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"y" * REQUEST_BYTES_MAX + b"\r\n\r\n", b"400"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /metrics?x=1 HTTP/1.0\r\nAccept: application/openmetrics-text\r\n\r\n", b"200"),
    ],
)
def test_the_endpoint_answers_one_path_and_refuses_the_rest(
    rig: Rig, payload: bytes, status: bytes
) -> None:
    with endpoint(rig) as address:
        answer = request(address, payload)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith(b"\r\n\r\n") == payload.startswith(b"HEAD")
    if b"openmetrics" in payload:
        assert answer.endswith(b"# EOF\n")


def test_clients_that_say_nothing_hold_up_neither_scrapes_nor_calls(market: Rig) -> None:
    with endpoint(market) as address:
        host, port = address.rsplit(":", 1)
        silent = [
            socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
            for _ in range(CONNECTIONS_MAX)
        ]
        try:
            # All places are taken, by connections that came before this one.
            with pytest.raises(urllib.error.HTTPError, match="503"):
                scrape(address)
            assert market.orders.CheckOrder(new_order(1)).decision == types_pb2.DECISION_ACCEPTED
            # After their time they are closed, without a word.
            for connection in silent:
                with connection:
                    assert connection.recv(1) == b""
            assert scrape(address)
        finally:
            for connection in silent:
                connection.close()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metrics_address": "0.0.0.0:1"}, "metrics_address '0.0.0.0:1' is not loopback"),
        ({"metrics_address": "x"}, "metrics_address is 'x': must be host:port"),
    ],
)
def test_addresses_that_others_can_read_need_a_flag(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        Settings(**values)
    allowed = Settings(metrics_address="0.0.0.0:1", allow_plaintext_off_loopback=True)
    assert allowed.metrics_address == "0.0.0.0:1"


def test_an_address_that_is_taken_is_named(rig: Rig) -> None:
    with endpoint(rig) as address:
        taken = MetricsServer(address, CollectorRegistry())
        with pytest.raises(SettingsError, match=f"metrics_address '{address}': cannot listen"):
            taken.start()


def test_a_clock_that_was_set_back_is_told_of_until_it_has_caught_up(
    new_rig: Callable[..., Rig], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def said(level: str) -> list[str]:
        """Wait for lines of the ticker."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            lines = [each for each in caplog.records if each.name == "riskd.ticker"]
            if found := [each.message for each in lines if each.levelname == level]:
                return found
        raise AssertionError(f"no {level}")

    def behind_s() -> float:
        [family] = [each for each in collector.collect() if "clock_behind" in each.name]
        [sample] = family.samples
        return sample.value

    caplog.set_level("INFO")
    rig = open_market(new_rig(clock, tick_interval_ms=1))
    native = NativeDoor(Settings(), rig.engine)
    collector = RiskdCollector(Monitor(rig.engine), native, rig.server.meter, list, clock=clock)
    assert behind_s() == 0
    clock.now_ns -= 3_600_000_000_000
    assert behind_s() == 3600
    assert "the clock is behind" in said("WARNING")[0]
    clock.now_ns += 3_600_000_000_000
    assert behind_s() == 0
    assert "caught up" in said("INFO")[0]
    # Each once, however often it was looked at.
    assert len(said("WARNING")) == len(said("INFO")) == 1
