"""Each number of the metrics page is that of what it is named after, at both doors."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry, generate_latest

from riskd.core.engine import Engine
from riskd.core.journal import Faults
from riskd.core.monitor import Monitor
from riskd.metrics.collector import RiskdCollector
from riskd.native import NativeDoor
from riskd.settings import Settings
from riskd.v1 import instrument_service_pb2 as instruments_pb
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as pb
from riskd.v1 import types_pb2
from riskd.wiring import build_guard, build_server
from tests.service.authority import Authority, needs_openssl
from tests.service.conftest import (
    TIMEOUT_S,
    Clock,
    Rig,
    btc_instrument,
    new_order,
    open_market,
)
from tests.service.test_identities import SETUP, _Token, token_of
from tests.service.test_metrics import Samples, find, samples_of

pytest.importorskip("riskd.core.listener")
pytestmark = needs_openssl

METHODS = "/riskd.v1.OrderRiskService/"
TOKEN = token_of("setup")
SECOND_NS = 1_000_000_000
CONNECTIONS_MAX = 4
# What this test does so many times; all differ, so that no number can stand for another.
FULL, HANDSHAKES, ABUSES = 3, 2, 1
# In the journal, of an order of this test.
RECORD_SIZE = 80
NOT_POSTED, RESETS, OVERLOADED, STREAMED, HELD = 10, 5, 6, 8, 3
# A connection has half of them at most; streams of orders have places of their own.
CALLS_MAX = 2 * HELD


class Peer:
    """An HTTP/2 client on the native door's Unix socket, whose bytes are counted."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(str(path))
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.sent_size = self.received_size = self.pings = 0
        self.statuses: dict[int, str] = {}
        self.http.initiate_connection()

    def call(self, method: str, *messages: Message, token: str = TOKEN, **changes: Any) -> int:
        """Say a call with its messages, if it has any; return its stream."""
        stream: int = self.http.get_next_available_stream_id()
        headers = {
            ":method": "POST", ":scheme": "http", ":path": METHODS + method, ":authority": "riskd",
            "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        self.http.send_headers(stream, [*(headers | changes.get("headers", {})).items()])
        for message in messages:
            content = message.SerializeToString()
            framed = struct.pack(">BI", 0, len(content)) + content
            is_last = message is messages[-1] and changes.get("ends", True)
            self.http.send_data(stream, framed, end_stream=is_last)
        return stream

    def _send(self) -> None:
        sent = self.http.data_to_send()
        self.socket.sendall(sent)
        self.sent_size += len(sent)

    def exchange(self) -> None:
        """Send all that was said, and take what comes until the server has read it."""
        self.http.ping(bytes(8))
        self.pings += 1
        while self.pings > 0:
            self._receive()
        self._send()

    def answered(self, *streams: int) -> set[str]:
        """Return the statuses of calls, once all have one."""
        while any(self.statuses.get(each, "HTTP 200") == "HTTP 200" for each in streams):
            self._receive()
        self._send()
        return {self.statuses[stream] for stream in streams}

    def _receive(self) -> None:
        self._send()
        part = self.socket.recv(65536)
        assert part
        self.received_size += len(part)
        for event in self.http.receive_data(part):
            self._take(event)

    def _take(self, event: Any) -> None:
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            pairs: Any = event.headers
            headers: dict[str, str] = dict(pairs)
            status = headers.get("grpc-status") or f"HTTP {headers[':status']}"
            self.statuses[event.stream_id] = status
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings -= 1


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s


def take_until_closed(connection: socket.socket) -> None:
    def is_closed() -> bool:
        try:
            return not connection.recv(65536)
        except ConnectionError:
            return True

    with connection:
        until(is_closed)


@dataclass
class Service:
    """Both doors and the metrics of an engine whose journal is on a disk that can be held."""

    rig: Rig
    # With a client that may do everything.
    setup: Rig
    native: NativeDoor
    disk: Faults
    door: Path
    secured: str
    registry: CollectorRegistry
    journal: Path

    def samples(self) -> Samples:
        return samples_of(generate_latest(self.registry).decode())

    def journal_size(self) -> int:
        return sum(path.stat().st_size for path in self.journal.glob("*.journal"))

    def counts(self) -> dict[str, int]:
        assert self.native.listener is not None
        return self.native.listener.counts()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[Service]:
    """Serve the market of `market` and two instruments more, of which one is marked."""
    path = tmp_path / "identities.toml"
    path.write_text(SETUP)
    certificate, key = Authority(tmp_path, "authority").sign("server")
    door = tmp_path / "door"
    common: dict[str, Any] = {"identities_file": str(path), "control_address": "127.0.0.1:0"}
    # Nothing comes into the journal but what the test does.
    settings = Settings(**common, tick_interval_ms=60_000)
    of_native = Settings(
        **common,
        listener_addresses=(f"unix:{door}", "127.0.0.1:0"),
        listener_connections_max=CONNECTIONS_MAX,
        listener_calls_max=CALLS_MAX,
        listener_calls_per_timed=1,
        certificate_file=str(certificate),
        key_file=str(key),
    )
    disk = Faults()
    guard = build_guard(settings)
    assert guard is not None
    with ExitStack() as stack:
        engine = Engine()
        engine.open_journal(tmp_path / "journal", durability="machine", faults=disk)
        server = build_server(settings, engine, clock, None, guard)
        port = server.start()
        stack.callback(server.stop, 0)
        stack.callback(disk.release, "fdatasync")
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
        rig = Rig(server, engine, clock, port, channel, guard)
        tokened = grpc.intercept_channel(channel, _Token(TOKEN))
        setup = open_market(Rig(server, engine, clock, port, tokened, guard))
        for symbol in ("ETH-PERP", "SOL-PERP"):
            instrument = btc_instrument()
            instrument.symbol = symbol
            setup.instruments.UpsertInstrument(
                instruments_pb.UpsertInstrumentRequest(instrument=instrument)
            )
        clock.now_ns += 2 * SECOND_NS
        mark = marks_pb.Mark(instrument_id=2, mark_price=1_000_000, time_ns=clock.now_ns)
        setup.marks.ReportMarks(marks_pb.ReportMarksRequest(marks=[mark]))
        native = NativeDoor(of_native, engine, guard)
        lines = native.start()
        stack.callback(native.stop)
        assert native.listener is not None
        native.listener.set_time(clock.now_ns)
        registry = CollectorRegistry()
        registry.register(
            RiskdCollector(
                Monitor(engine),
                native,
                server.meter,
                lambda: [("a", "2026-01-01")],
                guard.denials.counts,
                clock,
            )
        )
        secured = lines[1].split()[2].removesuffix(",")
        yield Service(rig, setup, native, disk, door, secured, registry, tmp_path / "journal")


def test_connections_are_counted_by_what_became_of_them(service: Service) -> None:
    host, port = service.secured.split(":")
    for _ in range(HANDSHAKES):
        plain = socket.create_connection((host, int(port)), TIMEOUT_S)
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        take_until_closed(plain)
    for _ in range(ABUSES):
        flood = Peer(service.door)
        for _ in range(1000):
            flood.http.ping(bytes(8))
        flood.socket.sendall(flood.http.data_to_send())
        take_until_closed(flood.socket)
    until(lambda: service.counts()["connections_open"] == 0)
    peers = [Peer(service.door) for _ in range(CONNECTIONS_MAX)]
    for peer in peers:
        peer.exchange()
    for _ in range(FULL):
        take_until_closed(Peer(service.door).socket)
    samples = service.samples()
    refused = "riskd_connections_refused_total"
    assert find(samples, refused, cause="full") == FULL
    assert find(samples, refused, cause="handshake") == HANDSHAKES
    assert find(samples, refused, cause="abuse") == ABUSES
    assert find(samples, "riskd_connections_open") == CONNECTIONS_MAX
    opened = HANDSHAKES + ABUSES + CONNECTIONS_MAX
    assert find(samples, "riskd_connections_opened_total") == opened
    for peer in peers:
        peer.socket.close()


def test_each_sample_is_what_was_done(service: Service, clock: Clock) -> None:
    engine, setup = service.rig.engine, service.setup
    kinds = {"OPEN_ORDERS_MAX": (0, 16), "POSITION_LOTS_MAX": (1, 64)}
    for kind, (instrument, value) in kinds.items():
        limit = types_pb2.LimitKind.Value(f"LIMIT_KIND_{kind}")
        engine.set_limit(3, 7, instrument, limit, value, 0, 1, clock.now_ns)
    # The control server: two orders, a repeat, and two that nobody may send.
    for number in (1, 2, 2):
        assert setup.orders.CheckOrder(new_order(number)).decision == types_pb2.DECISION_ACCEPTED
    for _ in range(2):
        with pytest.raises(grpc.RpcError):
            service.rig.orders.CheckOrder(new_order(3))
    # The native door: orders, what is no gRPC, what is taken back, who is nobody, a stream.
    peer = Peer(service.door)
    assert peer.answered(peer.call("CheckOrder", new_order(11))) == {"0"}
    for _ in range(NOT_POSTED):
        got = peer.call("CheckOrder", new_order(12), headers={":method": "GET"})
        assert peer.answered(got) == {"HTTP 405"}
    for _ in range(RESETS):
        stream = peer.call("CheckOrder")
        peer.exchange()
        peer.http.reset_stream(stream)
        peer.exchange()
    for token, count in (("", 1), (token_of("nobody"), 4)):
        for _ in range(count):
            assert peer.answered(peer.call("CheckOrder", new_order(13), token=token)) == {"16"}
    messages = [
        pb.StreamOrdersRequest(order=new_order(number)) for number in range(20, 20 + STREAMED)
    ]
    peer.call("StreamOrders", *messages, ends=False)
    peer.exchange()
    until(lambda: find(service.samples(), "riskd_streamed_messages_total") == STREAMED)
    until(lambda: find(service.samples(), "riskd_journal_lag_records") == 0)
    before = of_journal(service.samples())
    # A batch has one sync, and a segment's head another.
    batches = service.disk.count("fdatasync") - service.disk.count("openat")
    assert before == {
        "lag_records": 0, "lag_bytes": 0, "lag_seconds": 0, "failed": 0, "batches_total": batches
    }  # fmt: skip
    durable_size, revision = service.journal_size(), engine.revision
    # The disk stands still: three calls wait for it, and there is no place for six more.
    service.disk.hold("fdatasync")
    held = []
    for number in range(HELD):
        held.append(peer.call("CheckOrder", new_order(30 + number)))
        peer.exchange()
    beyond = [peer.call("CheckOrder", new_order(40 + number)) for number in range(OVERLOADED)]
    assert peer.answered(*beyond) == {"8"}
    # All that was sent is read.
    peer.exchange()
    clock.now_ns += 3 * SECOND_NS
    assert service.rig.guard is not None
    service.rig.guard.look()
    rounds = service.counts()["rounds"]
    samples = service.samples()
    assert rounds <= find(samples, "riskd_rounds_total") <= service.counts()["rounds"]
    open_orders = 2 + 1 + STREAMED + HELD
    assert of_journal(samples) == {
        "lag_records": HELD,
        # As many as the file grows by in the end.
        "lag_bytes": HELD * RECORD_SIZE,
        "lag_seconds": 3,
        # The first is on its way; the others are the next.
        "batches_total": batches + 1,
        "failed": 0,
    }
    for name, value in {
        "revision": revision + HELD,
        "calls_open": HELD,
        "streams_open": 1,
        "connections_open": 1,
        "connections_opened_total": 1,
        "calls_overloaded_total": OVERLOADED,
        "resets_total": RESETS,
        "http_refused_total": NOT_POSTED,
        "streamed_messages_total": STREAMED,
        "received_bytes_total": peer.sent_size,
        "sent_bytes_total": peer.received_size,
        "mark_age_max_seconds": 5,
        "marks_missing": 1,
        "limits_known": 2,
        "limits_unknown": 0,
    }.items():
        assert find(samples, f"riskd_{name}") == value, name
    assert labelled(samples, "riskd_denials_total") == {
        ("control", "CREDENTIALS_MISSING"): 2,
        ("native", "CREDENTIALS_MISSING"): 1,
        ("native", "TOKEN_UNKNOWN"): 4,
    }
    calls = labelled(samples, "riskd_calls_total")
    assert {
        key: count for key, count in calls.items() if "Order" in key[2] or key[2] == "other"
    } == {
        ("OK", "control", "CheckOrder"): 3,
        ("UNAUTHENTICATED", "control", "CheckOrder"): 2,
        ("OK", "native", "CheckOrder"): 1,
        ("CANCELLED", "native", "CheckOrder"): RESETS,
        ("UNAUTHENTICATED", "native", "CheckOrder"): 5,
        ("RESOURCE_EXHAUSTED", "native", "other"): OVERLOADED,
    }
    # A repeat is an answer, and opens no order.
    answered = {("ACCEPTED", "NONE", "order"): open_orders + 1}
    assert labelled(samples, "riskd_answers_total") == answered
    assert find(samples, "riskd_table_rows", table="orders") == open_orders
    assert labelled(samples, "riskd_mark_age_seconds") == {("BTC-PERP",): 5, ("ETH-PERP",): 3}
    assert labelled(samples, "riskd_limit_use_ratio") == {
        ("", "OPEN_ORDERS_MAX", "ACCOUNT", "7"): open_orders / 16,
        ("BTC-PERP", "POSITION_LOTS_MAX", "ACCOUNT", "7"): open_orders / 64,
    }
    above = {("0.5",): 1, ("0.8",): 1, ("0.9",): 0, ("1",): 0}
    assert labelled(samples, "riskd_limits_above") == above
    # It goes on, and then it fails.
    service.disk.release("fdatasync")
    assert peer.answered(*held) == {"0"}
    # The second and third went with one sync, after that of the first.
    assert of_journal(service.samples()) == before | {"batches_total": batches + 2}
    assert service.journal_size() - durable_size == find(samples, "riskd_journal_lag_bytes")
    service.disk.fail("fdatasync", 0, errno.EIO)
    assert peer.answered(peer.call("CheckOrder", new_order(50))) == {"14"}
    assert find(service.samples(), "riskd_journal_failed") == 1
    peer.socket.close()


def labelled(samples: Samples, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a name by the values of their labels, in the order of their names."""
    return {
        tuple(value for _, value in sorted(labels)): number
        for (each, labels), number in samples.items()
        if each == name
    }


def of_journal(samples: Samples) -> dict[str, float]:
    """Return the samples of the journal."""
    prefix = "riskd_journal_"
    return {
        name.removeprefix(prefix): value
        for (name, _), value in samples.items()
        if name.startswith(prefix)
    }
