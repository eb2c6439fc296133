"""The native door answers real clients as the control server does, byte for byte."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from grpc_health.v1 import health_pb2
from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from riskd.core.engine import Engine
from riskd.core.journal import Faults, JournalFailedError
from riskd.native import NOT_BUILT, NativeDoor
from riskd.settings import Settings, SettingsError
from riskd.v1 import order_risk_service_pb2 as pb
from riskd.v1 import types_pb2
from riskd.v1.order_risk_service_pb2_grpc import OrderRiskServiceStub
from tests.processes import running
from tests.service.conftest import TIMEOUT_S, Clock, Rig, new_order, open_market
from tests.service.native import DEFAULTS, SERVICE, Native, call, listening, seconds_open

if TYPE_CHECKING:
    from riskd.core.listener import Listener
else:
    Listener = pytest.importorskip("riskd.core.listener").Listener

NewRig = Callable[..., Rig]


# Every test of this file is one of one thread and one of two.
@pytest.fixture(autouse=True, params=[1, 2], ids=["one_thread", "two_threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(DEFAULTS, "threads", request.param)
    return int(request.param)


@pytest.fixture
def native(market: Rig) -> Iterator[Native]:
    """A native listener on the engine of `market`."""
    with listening(market.engine) as found:
        yield found


def streamed(seed: int, count: int) -> list[bytes]:
    """Return messages of StreamOrders, all of them well-formed, some refused or repeated."""
    chance = random.Random(seed)

    def message() -> pb.StreamOrdersRequest:
        kind = chance.randrange(7)
        if kind == 0:
            amendment = pb.CheckAmendmentRequest(
                gateway_id=3,
                reservation_id=chance.randrange(1, count),
                client_order_id=chance.randrange(count, 2 * count),
                price_ticks=chance.randrange(118_000, 122_000),
                quantity_lots=chance.randrange(1, 300),
                view=pb.DECISION_VIEW_FULL,
            )
            return pb.StreamOrdersRequest(amendment=amendment)
        if kind == 1:
            execution = pb.ReportExecutionRequest(
                gateway_id=3,
                execution_id=chance.randrange(1, count),
                reservation_id=chance.randrange(1, count),
                kind=pb.ExecutionKind.ValueType(chance.randrange(0, 5)),
                price_ticks=chance.randrange(119_000, 121_000),
                quantity_lots=chance.randrange(1, 100),
            )
            return pb.StreamOrdersRequest(execution=execution)
        order = new_order(
            chance.randrange(1, count),
            account_id=chance.choice([7, 7, 7, 8]),
            side=chance.choice([types_pb2.SIDE_BUY, types_pb2.SIDE_SELL]),
            price_ticks=chance.randrange(118_000, 122_000),
            quantity_lots=chance.randrange(1, 300),
            view=pb.DecisionView.ValueType(chance.randrange(0, 4)),
        )
        return pb.StreamOrdersRequest(order=order)

    return [message().SerializeToString() for _ in range(count)]


def exchange(channel: grpc.Channel, messages: list[bytes]) -> tuple[list[bytes], Any]:
    """Send messages on one stream; return the replies and the call."""
    bare: Any = channel.stream_stream(
        SERVICE + "StreamOrders", request_serializer=None, response_deserializer=None
    )
    ended = bare(iter(messages), timeout=TIMEOUT_S)
    replies = []
    with contextlib.suppress(grpc.RpcError):
        replies.extend(ended)
    return replies, ended


def test_a_stream_is_answered_in_order_with_the_same_bytes_by_both_doors(new_rig: NewRig) -> None:
    here, there = open_market(new_rig(Clock())), open_market(new_rig(Clock()))
    messages = streamed(2, 2000)
    with listening(there.engine) as native:
        expected, _ = exchange(here.channel, messages)
        replies, ended = exchange(native.channel, messages)
    assert len(expected) == len(messages)
    assert replies == expected
    assert ended.code() is grpc.StatusCode.OK
    assert here.engine.state_hash() == there.engine.state_hash()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"", "field number is missing: at least one is needed"),
        (b"\x22\x00", "field 4 is not a field of the message"),
        (b"\x08\x00", "field 1 has the wrong wire type"),
        (b"\x0a\x05", "field 1 is truncated"),
        (b"\x0a\x00\x12\x00", "field 2 comes after another: a message of a stream has one"),
        (b"\x0a\x02\xff\x01", "field 31 is not a field of the message"),
    ],
)
def test_a_malformed_message_ends_a_stream_after_the_replies_before_it(
    market: Rig, native: Native, message: bytes, text: str
) -> None:
    messages = [*streamed(3, 20), message, *streamed(4, 20)]
    for channel in (market.channel, native.channel):
        replies, ended = exchange(channel, messages)
        assert len(replies) == len(streamed(3, 20))
        assert (ended.code(), ended.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)
        status = dict(ended.trailing_metadata())["grpc-status-details-bin"]
        assert b"REQUEST_MALFORMED" in status


def test_a_long_stream_and_calls_beside_it_on_one_connection_all_end(market: Rig) -> None:
    taken = []

    def messages() -> Iterator[bytes]:
        for message in streamed(5, 40_000):
            taken.append(message)
            yield message

    with listening(market.engine) as native:
        bare: Any = native.channel.stream_stream(
            SERVICE + "StreamOrders", request_serializer=None, response_deserializer=None
        )
        replies = bare(messages(), timeout=TIMEOUT_S)
        first = next(replies)
        # Calls beside it on the same connection go on.
        for _ in range(100):
            native.health.Check(health_pb2.HealthCheckRequest())
        rest = list(replies)
    assert first
    assert 1 + len(rest) == len(taken)
    assert replies.code() is grpc.StatusCode.OK


def test_an_idle_stream_ends_with_the_service(market: Rig) -> None:
    done = threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"\x0a\x00"
        done.wait(TIMEOUT_S)

    with listening(market.engine) as native:
        bare: Any = native.channel.stream_stream(
            SERVICE + "StreamOrders", request_serializer=None, response_deserializer=None
        )
        replies = bare(messages(), timeout=TIMEOUT_S)
        assert next(replies)
        native.listener.stop(TIMEOUT_S * 1000)
        with pytest.raises(grpc.RpcError):
            next(replies)
        done.set()
        assert (replies.code(), replies.details()) == (
            grpc.StatusCode.UNAVAILABLE, "the service is stopping",
        )  # fmt: skip


def test_many_threads_of_both_doors_share_one_engine(market: Rig, native: Native) -> None:
    def check(channel: grpc.Channel, first: int) -> int:
        stub = OrderRiskServiceStub(channel)
        for number in range(first, first + 200):
            stub.CheckOrder(
                pb.CheckOrderRequest(
                    account_id=7, instrument_id=1, client_order_id=number, gateway_id=3
                ),
                timeout=TIMEOUT_S,
            )
        return first

    channels = [market.channel, native.channel] * 2
    with ThreadPoolExecutor(4) as threads:
        tasks = [threads.submit(check, channel, 1 + 200 * n) for n, channel in enumerate(channels)]
        assert [task.result() for task in tasks] == [1, 201, 401, 601]
    assert native.listener.counts()["calls_answered"] == 400
    reply = native.orders.GetReservation(
        pb.GetReservationRequest(gateway_id=3, client_order_id=800), timeout=TIMEOUT_S
    )
    assert reply.first_answer.decision == types_pb2.DECISION_REJECTED


@pytest.mark.parametrize("durability", ["process", "machine"])
def test_replies_of_both_doors_are_on_record_when_they_leave(
    new_rig: NewRig, tmp_path: Path, durability: str, order: pb.CheckOrderRequest
) -> None:
    rig = open_market(
        new_rig(Clock(), durability=durability, journal_directory=str(tmp_path / "journal"))
    )
    with listening(rig.engine) as native:
        for number in range(1, 200):
            order.client_order_id = number
            stub = native.orders if number % 2 else rig.orders
            reply = stub.CheckOrder(order, timeout=TIMEOUT_S)
            # The state cannot be older than the reply that was seen.
            assert rig.engine.durable_sequence >= reply.revision
        assert rig.engine.revision == reply.revision
    # Without the listener the control server is woken as before.
    order.client_order_id = 1000
    rig.orders.CheckOrder(order, timeout=TIMEOUT_S)
    found = Engine()
    found.recover(tmp_path / "journal")
    assert found.state_hash() == rig.engine.state_hash()


@pytest.mark.parametrize("durability", ["process", "machine"])
def test_a_killed_service_has_everything_that_it_acknowledged(
    tmp_path: Path, durability: str, threads: int, order: pb.CheckOrderRequest
) -> None:
    options = {
        "control-address": "127.0.0.1:0",
        "listener-addresses": f"unix:{tmp_path}/riskd.sock",
        "metrics-address": "127.0.0.1:0",
        "journal-directory": str(tmp_path / "journal"),
        "durability": durability,
        "listener-threads": threads,
    }
    answers = {}
    with (
        running(*(f"--{name}={value}" for name, value in options.items())) as (server, _),
        grpc.insecure_channel(f"unix:{tmp_path}/riskd.sock") as channel,
    ):
        for number in range(1, 100):
            order.client_order_id = number
            request = order.SerializeToString()
            answers[request] = call(channel, SERVICE + "CheckOrder", request)[2]
        server.kill()
        server.wait()
    found = Engine(answer_bytes=2 << 20)
    found.recover(tmp_path / "journal")
    # A repeat is answered with the first answer, whatever the time is.
    assert [found.handle(1, request, 0) for request in answers] == list(answers.values())
    assert len(set(answers.values())) == 99


@pytest.mark.parametrize("address", ["[::1]:0", "unix:"])
def test_it_listens_on_ipv6_and_unix_sockets(
    market: Rig, tmp_path: Path, address: str, order: pb.CheckOrderRequest
) -> None:
    if address == "unix:":
        address += str(tmp_path / "riskd.sock")
    with listening(market.engine, address) as native:
        assert native.orders.CheckOrder(order).decision == types_pb2.DECISION_ACCEPTED
        with pytest.raises(OSError, match="in use"):
            Listener(market.engine).listen(native.address)
    assert not (tmp_path / "riskd.sock").exists()


@pytest.mark.parametrize("address", ["", "1.2.3.4", "host:", "x:65536", "::1:1", "[::1]"])
def test_an_address_that_is_none_is_refused(market: Rig, address: str) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        Listener(market.engine).listen(address)


def test_health_is_known_for_its_services_alone(native: Native) -> None:
    for name in ("", "riskd.v1.OrderRiskService", "grpc.health.v1.Health"):
        reply = native.health.Check(health_pb2.HealthCheckRequest(service=name))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    request = health_pb2.HealthCheckRequest(service="riskd.v1.AccountService")
    with pytest.raises(grpc.RpcError) as caught:
        native.health.Check(request)
    failed: Any = caught.value
    assert failed.code() is grpc.StatusCode.NOT_FOUND
    watch = native.health.Watch(request)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_a_stop_tells_watchers_refuses_new_calls_and_ends(market: Rig) -> None:
    with listening(market.engine) as native:
        watch = native.health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stopping = threading.Thread(target=native.listener.stop, args=(TIMEOUT_S * 1000,))
        stopping.start()
        assert [reply.status for reply in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]
        stopping.join()
        assert native.call("CheckOrder", b"")[0] is grpc.StatusCode.UNAVAILABLE


def test_what_is_not_understood_has_its_status(native: Native) -> None:
    for path in (
        SERVICE + "Nope",
        "/riskd.v1.Nope/CheckOrder",
        "/riskd.v1.AccountService/GetAccount",
    ):
        code, message, *_ = call(native.channel, path, b"")
        assert (code, message) == (grpc.StatusCode.UNIMPLEMENTED, "unknown service or method")
    code, message, *_ = native.call("CheckOrder", b"x" * 300, compression=grpc.Compression.Gzip)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    code, message, *_ = native.call("CheckOrder", bytes((1 << 20) + 1))
    assert (code, message) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED, "request of 1048577 bytes exceeds 1048576",
    )  # fmt: skip
    code, *_ = native.call("CheckOrder", b"", metadata=[("riskd-x", "y" * 9000)])
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    code, message, *_ = native.call("CheckOrder", bytes(1 << 20))
    assert (code, message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "field number is not a field of the message",
    )


def test_calls_beyond_capacity_are_refused_and_change_nothing(market: Rig) -> None:
    done = threading.Event()

    def never() -> Iterator[bytes]:
        done.wait(TIMEOUT_S)
        yield from ()

    with listening(market.engine, calls_max=1) as native:
        bare: Any = native.channel.stream_unary(
            SERVICE + "CheckOrder", request_serializer=None, response_deserializer=None
        )
        begun = bare.future(never(), timeout=TIMEOUT_S)
        while native.listener.counts()["calls_begun"] == 0:
            pass
        revision = market.engine.revision
        code, message, _, trailers = native.call("CheckOrder", b"")
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "nothing was done" in message
        assert b"CALLS_FULL" in dict(trailers)["grpc-status-details-bin"]
        assert market.engine.revision == revision
        assert native.listener.counts()["calls_overloaded"] == 1
        begun.cancel()
        done.set()


def test_an_old_connection_is_asked_to_end_and_no_call_fails(market: Rig) -> None:
    with listening(market.engine, age_ms_max=200) as native:
        # The client makes a new connection each time.
        while native.listener.counts()["connections_opened"] < 3:
            native.health.Check(health_pb2.HealthCheckRequest())


def test_a_stream_on_an_old_connection_ends_after_its_grace(market: Rig) -> None:
    done = threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"\x0a\x00"
        done.wait(TIMEOUT_S)

    with listening(market.engine, age_ms_max=200, age_grace_ms=200) as native:
        bare: Any = native.channel.stream_stream(
            SERVICE + "StreamOrders", request_serializer=None, response_deserializer=None
        )
        replies = bare(messages(), timeout=TIMEOUT_S)
        assert next(replies)
        with pytest.raises(grpc.RpcError):
            next(replies)
        assert replies.code() is grpc.StatusCode.UNAVAILABLE
        assert replies.details().startswith("the connection has had its time")
        while native.listener.counts()["connections_open"] > 0:
            pass
        done.set()


@pytest.mark.parametrize("failing", ["write", "fdatasync"])
def test_when_the_disk_fails_all_calls_do_and_health_says_so(
    tmp_path: Path, order: pb.CheckOrderRequest, failing: Any
) -> None:
    faults = Faults()
    engine = Engine()
    durability: Any = "process" if failing == "write" else "machine"
    engine.open_journal(tmp_path / "journal", durability=durability, faults=faults)
    with listening(engine) as native:
        watch = native.health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert native.orders.CheckOrder(order).reason == types_pb2.REASON_CODE_ACCOUNT_UNKNOWN
        faults.fail(failing, 0, errno.EIO)
        order.client_order_id += 1
        code, message, _, trailers = native.call("CheckOrder", order.SerializeToString())
        assert code is grpc.StatusCode.UNAVAILABLE
        assert message.startswith("the journal has failed")
        assert b"JOURNAL_FAILED" in dict(trailers)["grpc-status-details-bin"]
        assert [reply.status for reply in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]
        reply = native.health.Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(JournalFailedError):
        engine.close_journal()


def test_without_the_library_serve_says_that_there_is_no_native_listener(
    monkeypatch: pytest.MonkeyPatch, market: Rig
) -> None:
    # None makes its import fail, as if it had not been built.
    monkeypatch.setitem(sys.modules, "riskd.core.listener", None)
    door = NativeDoor(Settings(), market.engine)
    assert door.start() == [NOT_BUILT]
    door.begin_stop()
    door.stop()
    secured = Settings(certificate_file="x", key_file="y")
    with pytest.raises(SettingsError, match="built without"):
        NativeDoor(secured, market.engine).start()


def test_an_address_that_is_taken_is_named(market: Rig, native: Native) -> None:
    settings = Settings(listener_addresses=(native.address,))
    with pytest.raises(SettingsError, match=f"'{native.address}': cannot listen: .*in use"):
        NativeDoor(settings, market.engine).start()


def test_connections_that_come_and_go_leave_no_descriptor(market: Rig) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    with listening(market.engine, connections_max=8) as native:
        host, port = native.address.split(":")
        for number in range(400):
            with socket.create_connection((host, int(port))) as client:
                client.sendall((b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET", b"")[number % 3])
        seen = 0
        while seen < 400:
            counts = native.listener.counts()
            seen = counts["connections_opened"] + counts["connections_refused"]
    # The listener itself goes with its last reference.
    del native
    assert open_files() == before


@contextmanager
def held(faults: Faults) -> Iterator[None]:
    """No sync of the disk ends within the block."""
    faults.hold("fdatasync")
    try:
        yield
    finally:
        faults.release("fdatasync")


def test_calls_wait_for_room_in_the_journal(tmp_path: Path, order: pb.CheckOrderRequest) -> None:
    faults = Faults()
    engine = Engine()
    engine.open_journal(
        tmp_path / "journal", durability="machine", buffer_bytes=2048, segment_bytes=1 << 20,
        faults=faults,
    )  # fmt: skip
    with listening(engine, room_wait_ms_max=200) as native:
        with held(faults):
            pending = []
            for number in range(1, 100):
                order.client_order_id = number
                pending.append(native.orders.CheckOrder.future(order, timeout=TIMEOUT_S))
            # What found no room was not done, and says so; what did waits for the disk.
            while not any(call.done() for call in pending):
                pass
        outcomes = [call.code() for call in pending]
        assert set(outcomes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert engine.revision == outcomes.count(grpc.StatusCode.OK)
    engine.close_journal()


def test_a_deadline_that_passes_while_the_journal_waits_undoes_nothing(
    tmp_path: Path, order: pb.CheckOrderRequest
) -> None:
    faults = Faults()
    engine = Engine()
    engine.open_journal(tmp_path / "journal", durability="machine", faults=faults)
    journal = engine.journal
    assert journal is not None
    request = order.SerializeToString()
    with listening(engine) as native:
        with held(faults):
            pending = native.orders.CheckOrder.future(order, timeout=1)
            # It is decided, and on its way to the disk, before its time is over.
            while journal.next_sequence == 1 and not pending.done():
                pass
            assert not pending.done()
            assert pending.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # The same request once more says what became of it.
        code, _, reply, _ = native.call("CheckOrder", request)
        assert code is grpc.StatusCode.OK
        assert pb.CheckOrderResponse.FromString(reply).revision == engine.revision == 1
    engine.close_journal()
    found = Engine()
    found.recover(tmp_path / "journal")
    assert found.handle(1, request, 0) == reply


def test_connections_beyond_capacity_are_closed(market: Rig) -> None:
    with listening(market.engine, connections_max=1) as native:
        native.health.Check(health_pb2.HealthCheckRequest())
        # Else both channels would share one connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(native.address, options) as second:
            code, *_ = call(second, SERVICE + "CheckOrder", b"")
            assert code is grpc.StatusCode.UNAVAILABLE
        native.health.Check(health_pb2.HealthCheckRequest())


def is_taken(host: str, port: int, source: str, stack: contextlib.ExitStack) -> bool:
    """Connect from an address; say whether the server speaks, and stay connected."""
    client = stack.enter_context(
        socket.create_connection((host, port), TIMEOUT_S, source_address=(source, 0))
    )
    with contextlib.suppress(ConnectionResetError):
        # Its SETTINGS.
        return client.recv(9)[3:4] == b"\x04"
    return False


@pytest.mark.parametrize(
    ("address", "source", "other"),
    [("127.0.0.1:0", "127.0.0.5", "127.0.0.6"), ("[::1]:0", "::1", None)],
    ids=["ipv4", "ipv6"],
)
def test_one_address_does_not_take_all_connections(
    market: Rig, address: str, source: str, other: str | None
) -> None:
    with (
        listening(
            market.engine, address, connections_max=6, connections_per_address_max=3
        ) as native,
        contextlib.ExitStack() as others,
    ):
        host, port = native.address.removeprefix("[").replace("]", "").rsplit(":", 1)
        for _ in range(3):
            # Those that are closed do not count any more.
            with contextlib.ExitStack() as stack:
                taken = [is_taken(host, int(port), source, stack) for _ in range(5)]
                assert taken == [True] * 3 + [False] * 2
                if other is not None:
                    assert is_taken(host, int(port), other, stack)
            while native.listener.counts()["connections_open"] > 0:
                pass
        assert native.listener.counts()["connections_refused"] == 6
        if other is not None:
            assert [is_taken(host, int(port), other, others) for _ in range(4)] == [True] * 3 + [
                False
            ]


def test_a_service_that_is_unknown_is_named_to_clients_as_they_named_it(
    market: Rig, native: Native
) -> None:
    for name in ("100%", "%41", "\r\n\t\x7f", "ünï ☃", "x" * 200):
        request = health_pb2.HealthCheckRequest(service=name).SerializeToString()
        code, message, *_ = call(native.channel, "/grpc.health.v1.Health/Check", request)
        assert (code, message) == (grpc.StatusCode.NOT_FOUND, f"service {name} is unknown")
        code, *_ = call(market.channel, "/grpc.health.v1.Health/Check", request)
        assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("opening", [b"", b"PRI * HTTP/2.0"])
def test_a_connection_that_does_not_begin_is_closed(market: Rig, opening: bytes) -> None:
    with listening(market.engine, handshake_ms_max=300) as native:
        assert seconds_open(native.address, opening) > 0.2
        native.health.Check(health_pb2.HealthCheckRequest())


def test_unix_sockets_are_not_counted_by_address(market: Rig, tmp_path: Path) -> None:
    path = tmp_path / "riskd.sock"
    with (
        listening(market.engine, f"unix:{path}", connections_per_address_max=1),
        contextlib.ExitStack() as stack,
    ):
        for _ in range(3):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(TIMEOUT_S)
            client.connect(str(path))
            assert client.recv(9)[3] == 4


@contextmanager
def no_file_left() -> Iterator[None]:
    """Let this process open no file, inside the with block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open(os.devnull, os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_files_for_connections_those_that_are_there_are_answered_and_nothing_spins(
    market: Rig,
) -> None:
    request = pb.GetReservationRequest(reservation_id=1).SerializeToString()
    with listening(market.engine) as native, socket.socket() as late:
        host, port = native.address.split(":")
        before = native.call("GetReservation", request)
        with no_file_left():
            late.connect((host, int(port)))
            rounds = native.listener.counts()["rounds"]
            for _ in range(100):
                assert native.call("GetReservation", request) == before
            # Each thread has a round for a call, and for a tick in 100 ms; spinning, thousands.
            assert native.listener.counts()["rounds"] - rounds < 1000
        late.settimeout(TIMEOUT_S)
        # The server's SETTINGS, once there is a file again.
        assert late.recv(9)[3] == 4


def send_for_ever(
    client: socket.socket, http: Any, headers: list[tuple[str, str]], message: bytes
) -> None:
    """Make calls, and take nothing of what comes back."""
    while True:
        stream = http.get_next_available_stream_id()
        http.send_headers(stream, headers)
        http.send_data(stream, message, end_stream=True)
        left = http.data_to_send()
        while left:
            with contextlib.suppress(TimeoutError):
                left = left[client.send(left) :]


def test_a_connection_whose_socket_takes_nothing_is_closed(market: Rig) -> None:
    config = h2.config.H2Configuration(header_encoding="utf-8")
    http = h2.connection.H2Connection(config)
    http.initiate_connection()
    http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: (1 << 31) - 1})
    http.increment_flow_control_window((1 << 31) - 1 - 65_535)
    # What the server says is not read: the library takes its windows for large.
    settings = SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: (1 << 31) - 1})
    window = WindowUpdateFrame(0, (1 << 31) - 1 - 65_535)
    http.receive_data(settings.serialize() + window.serialize())
    batch = pb.BatchCheckOrdersRequest(
        mode=pb.BATCH_MODE_INDEPENDENT,
        orders=[pb.CheckOrderRequest(account_id=7, view=pb.DECISION_VIEW_FULL)] * 64,
    ).SerializeToString()
    headers = [
        (":method", "POST"), (":scheme", "http"), (":path", SERVICE + "BatchCheckOrders"),
        (":authority", "riskd"), ("content-type", "application/grpc"), ("te", "trailers"),
    ]  # fmt: skip
    with listening(market.engine, socket_wait_ms_max=500) as native, socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = native.address.split(":")
        stuck.connect((host, int(port)))
        stuck.settimeout(0.1)
        # After a while the server reads no more, as nothing of its replies is taken.
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_for_ever(stuck, http, headers, struct.pack(">BI", 0, len(batch)) + batch)
        while native.listener.counts()["connections_open"] > 0:
            pass
        # Another, which has nothing to take, stays.
        native.health.Check(health_pb2.HealthCheckRequest())


def test_a_client_that_takes_no_replies_stops_no_other(market: Rig) -> None:
    http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    http.initiate_connection()
    http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    # Below 512 bytes, and a reply above them.
    batch = pb.BatchCheckOrdersRequest(
        mode=pb.BATCH_MODE_INDEPENDENT, orders=[pb.CheckOrderRequest(account_id=7)] * 64
    ).SerializeToString()
    headers = [
        (":method", "POST"), (":scheme", "http"), (":path", SERVICE + "BatchCheckOrders"),
        (":authority", "riskd"), ("content-type", "application/grpc"), ("te", "trailers"),
    ]  # fmt: skip
    statuses: list[str] = []
    with listening(market.engine, buffered_bytes_max=1 << 19) as native:
        host, port = native.address.split(":")
        with socket.create_connection((host, int(port)), TIMEOUT_S) as greedy:
            for _ in range(60):
                stream = http.get_next_available_stream_id()
                http.send_headers(stream, headers)
                http.send_data(stream, struct.pack(">BI", 0, len(batch)) + batch, end_stream=True)
            greedy.sendall(http.data_to_send())
            while len(statuses) < 60:
                for event in http.receive_data(greedy.recv(65536)):
                    if isinstance(event, h2.events.ResponseReceived):
                        pairs: Any = event.headers
                        statuses.append(dict(pairs).get("grpc-status", ""))
            # Replies wait for the window until others would lack the memory.
            assert "" in statuses
            assert "8" in statuses
            order = pb.CheckOrderRequest(account_id=7).SerializeToString()
            assert native.call("CheckOrder", order)[0] is grpc.StatusCode.OK
            code, _, reply, _ = native.call("BatchCheckOrders", batch)
            assert code is grpc.StatusCode.OK
            assert len(reply) > 512


def test_a_journal_is_opened_before_anybody_can_answer_without_it(tmp_path: Path) -> None:
    engine = Engine()
    Listener(engine)
    with pytest.raises(ValueError, match="before a listener"):
        engine.open_journal(tmp_path / "journal")
    assert not (tmp_path / "journal").exists()


def test_who_stops_it_second_waits_for_the_first(market: Rig) -> None:
    listener = Listener(market.engine, **DEFAULTS)
    host, port = listener.listen("127.0.0.1:0").split(":")
    listener.start()
    with socket.create_connection((host, int(port)), TIMEOUT_S) as client:
        # A connection that says nothing is open for 5 s.
        assert client.recv(9)
        began_s = time.monotonic()
        first = threading.Thread(target=listener.stop, args=(500,))
        first.start()
        # Refused, or reset in the moment that the socket is shut.
        with contextlib.suppress(ConnectionError):
            while True:
                socket.create_connection((host, int(port)), TIMEOUT_S).close()
        listener.stop(0)
        assert time.monotonic() - began_s >= 0.4
        first.join()
    assert listener.counts()["connections_open"] == 0


def test_a_stop_leaves_the_socket_of_who_listens_there_next(market: Rig, tmp_path: Path) -> None:
    path = tmp_path / "riskd.sock"
    address = f"unix:{path}"
    first, second = (Listener(market.engine, **DEFAULTS) for _ in range(2))
    first.listen(address)
    first.start()
    with socket.socket(socket.AF_UNIX) as client, grpc.insecure_channel(address) as channel:
        client.connect(str(path))
        assert client.recv(9)
        # A connection that says nothing keeps it from its end for a while.
        stopping = threading.Thread(target=first.stop, args=(500,))
        stopping.start()
        bound = ""
        while not bound:
            with contextlib.suppress(OSError):
                bound = second.listen(address)
        second.start()
        try:
            stopping.join()
            assert call(channel, SERVICE + "GetReservation", b"")[0] is grpc.StatusCode.OK
        finally:
            second.stop()
