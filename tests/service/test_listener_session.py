"""A session of the native door, byte by byte: HTTP/2 as no well-behaved client sends it."""

from __future__ import annotations

import base64
import hashlib
import random
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest
from grpc_health.v1 import health_pb2
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from riskd.core.permits import Permits
from riskd.v1 import order_risk_service_pb2 as pb
from tests.service.conftest import Rig, new_order

if TYPE_CHECKING:
    from riskd.core.session import Loopback
else:
    Loopback = pytest.importorskip("riskd.core.session").Loopback

CHECK = "/riskd.v1.OrderRiskService/CheckOrder"
BATCH = "/riskd.v1.OrderRiskService/BatchCheckOrders"
STREAM = "/riskd.v1.OrderRiskService/StreamOrders"
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
# HealthCheckResponse.
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
ANSWER = [HeadersFrame.type, DataFrame.type, HeadersFrame.type]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OK, INVALID, EXPIRED, EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = (
    "0", "3", "4", "8", "12", "13", "14",
)  # fmt: skip


LANE_EXPIRED = "the deadline has passed: what has no reply was not done"


def framed(message: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(message)) + message


class Client:
    """The h2 library's client on a Loopback; what came is kept by stream."""

    def __init__(self, engine: Any, **options: Any) -> None:
        self.server = Loopback(engine, **options)
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.headers: dict[int, dict[str, str]] = {}
        self.bytes: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.http.initiate_connection()
        self.exchange()

    def exchange(self) -> None:
        """Send what the library has, take what the server answers, until nothing moves."""
        while sent := self.http.data_to_send():
            self.take(self.server.feed(sent))

    def take(self, received: bytes) -> None:
        for event in self.http.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                pairs: Any = event.headers
                self.headers.setdefault(event.stream_id, {}).update(pairs)
            elif isinstance(event, h2.events.DataReceived):
                self.bytes[event.stream_id] = self.bytes.get(event.stream_id, b"") + event.data
                if self.acknowledges:
                    self.http.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.resets[event.stream_id] = int(event.error_code)

    acknowledges = True

    def begin(self, path: str = CHECK, *, end: bool = False, **headers: Any) -> int:
        """Send the headers of a call; return its stream."""
        stream = self.http.get_next_available_stream_id()
        named = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "riskd",
            "content-type": "application/grpc",
            "te": "trailers",
        } | {key.replace("_", "-"): value for key, value in headers.items()}
        named[":method"] = named.pop("method", "POST")
        self.http.send_headers(stream, list(named.items()), end_stream=end)
        self.exchange()
        return stream

    def send(
        self, stream: int, data: bytes, *, end: bool = False, padding: int | None = None
    ) -> None:
        while len(data) > (room := self.http.local_flow_control_window(stream)):
            assert room > 0
            part = min(room, self.http.max_outbound_frame_size, len(data))
            self.http.send_data(stream, data[:part])
            data = data[part:]
            self.exchange()
        size = self.http.max_outbound_frame_size - 256
        while len(data) > size:
            self.http.send_data(stream, data[:size])
            data = data[size:]
            self.exchange()
        self.http.send_data(stream, data, end_stream=end, pad_length=padding)
        self.exchange()

    def call(self, message: bytes, path: str = CHECK, **headers: Any) -> tuple[str, bytes]:
        """Make a whole call; return its status and its reply."""
        stream = self.begin(path, **headers)
        self.send(stream, framed(message), end=True)
        return self.outcome(stream)

    def outcome(self, stream: int) -> tuple[str, bytes]:
        return self.headers[stream]["grpc-status"], self.bytes.get(stream, b"")[5:]

    def raw(self, *frames: Frame) -> None:
        """Send frames that the library would not."""
        self.take(self.server.feed(b"".join(frame.serialize() for frame in frames)))


@pytest.fixture
def client(market: Rig) -> Client:
    return Client(market.engine)


def details_of(client: Client, stream: int) -> bytes:
    """Return the google.rpc.Status of a call."""
    return base64.b64decode(client.headers[stream]["grpc-status-details-bin"] + "==")


def order_bytes(number: int = 1) -> bytes:
    return new_order(number).SerializeToString()


def streamed_order(number: int = 1) -> bytes:
    """Return a message of a stream."""
    order = order_bytes(number)
    return framed(b"\x0a" + bytes([len(order)]) + order)


def literal(name: str, value: str) -> bytes:
    """Return a header that needs no state of the connection."""
    # RFC 7541, 6.2.2: literal without indexing, new name, no Huffman.
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


FIELDS = {
    ":method": "POST", ":scheme": "http", ":path": CHECK, ":authority": "riskd",
    "content-type": "application/grpc",
}  # fmt: skip


def block(*pairs: tuple[str, str]) -> bytes:
    """Return a block of headers that needs no state of the connection."""
    # RFC 7541, 6.2.2: literal without indexing, new name, no Huffman.
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode("latin-1")
        for name, value in pairs
    )


def encoded(path: str = CHECK) -> bytes:
    """Return the headers of a call."""
    return block(*(FIELDS | {":path": path}).items())


def test_a_call_that_comes_byte_by_byte_is_answered_as_a_whole_one(market: Rig) -> None:
    client = Client(market.engine)
    stream = client.http.get_next_available_stream_id()
    client.http.send_headers(
        stream,
        [(":method", "POST"), (":scheme", "http"), (":path", CHECK), (":authority", "x"),
         ("content-type", "application/grpc+proto")],
    )  # fmt: skip
    client.http.send_data(stream, framed(order_bytes()), end_stream=True)
    for byte in client.http.data_to_send():
        client.take(client.server.feed(bytes([byte])))
    status, reply = client.outcome(stream)
    assert status == OK
    assert Client(market.engine).call(order_bytes()) == (OK, reply)
    assert client.server.calls == 0


def test_a_message_comes_in_many_frames_with_padding(client: Client) -> None:
    message = framed(order_bytes())
    stream = client.begin()
    for index, byte in enumerate(message):
        client.send(stream, bytes([byte]), padding=index, end=index == len(message) - 1)
    assert client.outcome(stream)[0] == OK


def fields(*more: tuple[str, str], **changed: str | None) -> tuple[tuple[str, str], ...]:
    """Return the fields of a call with some others, left out if None; `more` come at the end."""
    named = FIELDS | {f":{name}": value for name, value in changed.items()}
    return tuple((name, value) for name, value in named.items() if value is not None) + more


def ask(client: Client, pairs: tuple[tuple[str, str], ...]) -> int:
    """Send an order with headers that the library would not; return the stream."""
    stream = client.http.get_next_available_stream_id()
    # The library must know the stream; what it says of it is not sent.
    client.http.send_headers(stream, list(fields()))
    client.http.data_to_send()
    client.raw(
        HeadersFrame(stream, block(*pairs), flags=["END_HEADERS"]),
        DataFrame(stream, framed(order_bytes()), flags=["END_STREAM"]),
    )
    return stream


@pytest.mark.parametrize(
    "pairs",
    [
        fields(method=None), fields(scheme=None), fields(path=None), fields(authority=None),
        fields(method=""), fields(scheme=""), fields(path=""), fields(authority=""),
        fields(path="riskd"), fields(path="/a b"), fields(path="/a\n"), fields(path="/\x80"),
        fields(method="CONNECT"), fields(protocol="websocket"), fields(status="200"),
        (*fields(), (":method", "POST")), ((":path", CHECK), *fields()),
        (("te", "trailers"), *fields()), (*fields(path=None), (":path", CHECK)),
        fields(("Te", "trailers")), fields(("", "x")), fields(("a b", "x")), fields(("x\x7f", "x")),
        fields(("a:b", "x")), fields(("x", "a\0")), fields(("x", "a\r\nb")), fields(("x", "\x7f")),
        fields(("te", "gzip")), fields(("te", "")), fields(("connection", "close")),
        fields(("keep-alive", "1")), fields(("proxy-connection", "x")),
        fields(("transfer-encoding", "chunked")), fields(("upgrade", "h2c")),
        fields(("host", "x"), ("host", "x")), fields(("host", "")), fields(("host", "a b")),
        fields(("content-length", "")), fields(("content-length", "x")),
        fields(("content-length", "-1")), fields(("content-length", "1" * 19)),
        fields(("content-length", "1")), fields(("content-length", "10000")),
        fields(("content-length", "46"), ("content-length", "46")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("again", [False, True])
def test_a_malformed_request_is_reset(
    client: Client, market: Rig, pairs: tuple[tuple[str, str], ...], *, again: bool
) -> None:
    revision = market.engine.revision
    if again:
        # What is known of good fields makes no bad ones good.
        assert client.call(order_bytes(9))[0] == OK
        revision += 1
    stream = ask(client, pairs)
    assert client.resets == {stream: 1}
    assert stream not in client.headers
    assert market.engine.revision == revision
    assert client.server.calls == 0
    assert client.outcome(ask(client, fields()))[0] == OK


@pytest.mark.parametrize(
    "pairs",
    [
        fields(("te", "trailers")), fields(("host", "riskd")), fields(("x", "")),
        fields(("host", "riskd"), authority=None), fields(("x", "a\tb \x80\xff")),
        fields(("x-bin", " a ")), fields(("x", "1"), ("x", "2")), fields(("cookie", "a=b")),
        fields(("content-length", str(len(framed(order_bytes()))))), fields(scheme="https"),
        fields(("!#$%&'*+-.^_`|~09az", "x")), fields(authority="[::1]:50052"),
    ],
)  # fmt: skip
def test_a_request_may_have_other_fields(
    client: Client, pairs: tuple[tuple[str, str], ...]
) -> None:
    assert client.outcome(ask(client, pairs))[0] == OK


@pytest.mark.parametrize(
    ("pairs", "flags", "is_reset"),
    [
        ((("x", "1"),), ["END_HEADERS", "END_STREAM"], False),
        ((("x", "1"),), ["END_HEADERS"], True),
        (((":path", CHECK),), ["END_HEADERS", "END_STREAM"], True),
        ((("connection", "close"),), ["END_HEADERS", "END_STREAM"], True),
        ((("grpc-timeout", "x"), ("content-type", "x")), ["END_HEADERS", "END_STREAM"], False),
    ],
)
def test_trailers_of_a_request_say_nothing_and_end_it(
    client: Client, pairs: tuple[tuple[str, str], ...], flags: list[str], *, is_reset: bool
) -> None:
    stream = client.begin()
    client.send(stream, framed(order_bytes()))
    client.raw(HeadersFrame(stream, block(*pairs), flags=flags))
    assert (stream in client.resets) == is_reset
    if not is_reset:
        assert client.outcome(stream)[0] == OK
    assert client.server.calls == 0


def test_many_fields_that_change_leave_those_known_that_do_not(client: Client) -> None:
    for number in range(40):
        more = {f"x-{number % 7}-{index}": f"{number}" for index in range(number % 5)}
        path = "/riskd.v1.OrderRiskService/GetReservation" if number % 3 else CHECK
        status, _ = client.call(b"" if number % 3 else order_bytes(number + 1), path, **more)
        assert status == OK


def test_headers_come_in_continuations(client: Client) -> None:
    whole = encoded()
    frames: list[Frame] = [HeadersFrame(1, whole[:40])]
    frames += [ContinuationFrame(1, whole[at : at + 40]) for at in range(40, len(whole), 40)]
    frames[-1].flags.add("END_HEADERS")
    # The library must know the stream to take the answer.
    client.http.send_headers(
        1, [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
    )
    client.http.data_to_send()
    client.raw(*frames, DataFrame(1, framed(order_bytes()), flags=["END_STREAM"]))
    assert client.outcome(1)[0] == OK


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", UNIMPLEMENTED),
        (framed(b"") * 2, UNIMPLEMENTED),
        (framed(order_bytes()) + b"\0", UNIMPLEMENTED),
        (framed(order_bytes())[:-1], INTERNAL),
        (b"\0\0\0", INTERNAL),
        (framed(order_bytes(), flag=1), INTERNAL),
        (framed(order_bytes(), flag=2), INTERNAL),
        (struct.pack(">BI", 0, 2**32 - 1), EXHAUSTED),
        (struct.pack(">BI", 0, (1 << 20) + 1), EXHAUSTED),
        (framed(b"\xff"), INVALID),
    ],
)
def test_what_is_not_one_message_is_refused(
    client: Client, market: Rig, data: bytes, status: str
) -> None:
    revision = market.engine.revision
    stream = client.begin()
    client.send(stream, data, end=True)
    assert client.outcome(stream) == (status, b"")
    assert market.engine.revision == revision
    assert client.call(order_bytes())[0] == OK


@pytest.mark.parametrize(
    ("content_type", "http_status"),
    [
        ("application/grpc", "200"),
        ("application/grpc+proto", "200"),
        ("application/grpc;charset=utf-8", "200"),
        ("application/grpc+json", "415"),
        ("application/grpc-web", "415"),
        ("application/json", "415"),
        ("application/grp", "415"),
        ("", "415"),
    ],
)
def test_only_grpc_with_protobuf_is_spoken(
    client: Client, content_type: str, http_status: str
) -> None:
    stream = client.begin(content_type=content_type)
    assert stream not in client.headers
    client.send(stream, framed(order_bytes()), end=True)
    assert client.headers[stream][":status"] == http_status


def test_other_http_methods_are_not_allowed(client: Client) -> None:
    stream = client.begin(method="GET", end=True)
    assert client.headers[stream] == {":status": "405"}
    assert client.server.calls == 0
    # One that does not end is told after a while.
    stream = client.begin(method="GET")
    client.take(client.server.tick(11_000_000_000))
    assert client.headers[stream] == {":status": "405"}
    assert client.server.calls == 0


@pytest.mark.parametrize(
    ("timeout", "wait_ns"),
    [
        ("1H", 3_600_000_000_000),
        ("2M", 120_000_000_000),
        ("3S", 3_000_000_000),
        ("4m", 4_000_000),
        ("5u", 5_000),
        ("6n", 6),
        ("99999999n", 99_999_999),
    ],
)
def test_a_timeout_in_any_unit_ends_a_stream_at_its_time(
    client: Client, timeout: str, wait_ns: int
) -> None:
    stream = client.begin(STREAM, grpc_timeout=timeout)
    client.take(client.server.tick(wait_ns - 1))
    client.exchange()
    client.send(stream, streamed_order())
    assert client.bytes[stream]
    assert status_of(client, stream) is None
    client.take(client.server.tick(1))
    assert client.headers[stream]["grpc-status"] == EXPIRED
    assert client.headers[stream]["grpc-message"] == LANE_EXPIRED


# In nanoseconds the first is 2^64 and a little more.
@pytest.mark.parametrize("timeout", ["5124096H", "99999999H", "99999999M", "99999999S"])
def test_a_timeout_of_years_does_not_end_now(client: Client, timeout: str) -> None:
    stream = client.begin(STREAM, grpc_timeout=timeout)
    client.take(client.server.tick(10**16))
    client.exchange()
    client.send(stream, streamed_order())
    assert status_of(client, stream) is None
    assert client.bytes[stream]


def test_a_deadline_that_passes_before_a_streams_next_turn_says_what_was_done(
    market: Rig,
) -> None:
    client = Client(market.engine)
    stream = client.begin(STREAM, grpc_timeout="5m")
    client.send(stream, streamed_order())
    # Time passes, and the message comes before the next look at the clock.
    Client(market.engine, beside=client.server).server.tick(5_000_000)
    revision = market.engine.revision
    client.send(stream, streamed_order(2))
    assert client.headers[stream]["grpc-status"] == EXPIRED
    assert client.headers[stream]["grpc-message"] == LANE_EXPIRED
    assert client.bytes[stream]
    assert market.engine.revision == revision


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("100%", "100%25"),
        ("\r\n\t\x7f", "%0D%0A%09%7F"),
        ("ünï ~!", "%C3%BCn%C3%AF ~!"),
        ("x" * 128, "x" * 128),
    ],
)
def test_a_service_that_is_unknown_is_named_in_a_header_that_is_ascii(
    client: Client, name: str, shown: str
) -> None:
    request = health_pb2.HealthCheckRequest(service=name).SerializeToString()
    stream = client.begin(HEALTH)
    client.send(stream, framed(request), end=True)
    assert client.outcome(stream) == ("5", b"")
    assert client.headers[stream]["grpc-message"] == f"service {shown} is unknown"
    # SERVICE_UNKNOWN
    stream = client.begin(WATCH)
    client.send(stream, framed(request), end=True)
    assert client.bytes[stream][5:] == b"\x08\x03"


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x0a", b"\x0a\x80", b"\x0a\x05abcd", b"\x0a\x03abcd", b"\x12\x00", b"\x0a" + b"\xff" * 9],
)
def test_what_asks_for_no_service_is_refused(client: Client, request_bytes: bytes) -> None:
    assert client.call(request_bytes, HEALTH) == (INVALID, b"")


# What HTTP does not allow in a header costs as much.
@pytest.mark.parametrize("byte", [b"y", b"\0"], ids=["valid", "invalid"])
@pytest.mark.parametrize("calls_max", [8, 1], ids=["", "with no room for the call"])
def test_headers_that_unpack_to_too_much_end_the_connection(
    market: Rig, byte: bytes, calls_max: int
) -> None:
    # RFC 7541, 6.2.1: a literal that is put into the table, of 127 + 1 + 30 * 128 bytes; then its
    # index. In the table it counts 4001.
    bomb = b"\x40\x01x\x7f\x81\x1e" + byte * 3968
    for count, is_open in ((65, True), (66, False)):
        server = Loopback(market.engine, calls_max=calls_max)
        server.feed(PREFACE + SettingsFrame(0).serialize())
        server.feed(HeadersFrame(1, encoded(), flags=["END_HEADERS"]).serialize())
        block = encoded() + bomb + b"\xbe" * (count - 1)
        sent = server.feed(HeadersFrame(3, block, flags=["END_HEADERS"]).serialize())
        assert server.is_open is is_open
        if is_open and (calls_max == 1 or byte == b"y"):
            assert statuses_in(hpack.Decoder(), frames_of(sent))[3][0] == EXHAUSTED


def test_headers_that_stop_half_way_hold_nothing_for_long(market: Rig) -> None:
    server = Loopback(market.engine)
    server.feed(PREFACE + SettingsFrame(0).serialize())
    server.feed(HeadersFrame(1, encoded()[:40]).serialize())
    assert server.calls == 1
    server.tick(11 * 10**9)
    assert server.calls == 0
    # The rest is of no call.
    server.feed(ContinuationFrame(1, encoded()[40:], flags=["END_HEADERS"]).serialize())
    assert (server.is_open, server.calls) == (True, 0)
    # Without it the connection is asked whether it is there, and cannot answer.
    server.feed(HeadersFrame(3, encoded()[:40]).serialize())
    assert server.calls == 1
    server.tick(61 * 10**9)
    server.tick(21 * 10**9)
    assert not server.is_open


@pytest.mark.parametrize("timeout", ["", "1", "S", "123456789S", "1x", "-1S", "1 S", "1.5S"])
def test_a_timeout_that_is_none_is_refused(client: Client, timeout: str) -> None:
    stream = client.begin(grpc_timeout=timeout)
    assert client.outcome(stream)[0] == INTERNAL


@pytest.mark.parametrize(
    ("timeout", "wait_ns"), [("0n", 0), ("0H", 0), ("5m", 5_000_000), ("5u", 5_000)]
)
def test_a_deadline_that_passes_before_the_turn_changes_nothing(
    client: Client, market: Rig, timeout: str, wait_ns: int
) -> None:
    revision = market.engine.revision
    stream = client.begin(grpc_timeout=timeout)
    if wait_ns:
        assert stream not in client.headers
        client.take(client.server.tick(wait_ns))
    assert client.outcome(stream) == (EXPIRED, b"")
    assert market.engine.revision == revision


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "snappy"])
def test_compression_is_refused_with_what_is_accepted(client: Client, encoding: str) -> None:
    stream = client.begin(grpc_encoding=encoding)
    assert client.outcome(stream)[0] == UNIMPLEMENTED
    assert client.headers[stream]["grpc-accept-encoding"] == "identity"
    assert client.call(order_bytes(), grpc_encoding="identity")[0] == OK


def test_a_call_without_its_request_ends_after_a_while(client: Client) -> None:
    stream = client.begin()
    client.take(client.server.tick(9_000_000_000))
    assert client.server.calls == 1
    client.take(client.server.tick(2_000_000_000))
    assert client.outcome(stream)[0] == EXPIRED
    assert client.resets[stream] == 0
    assert client.server.calls == 0


def test_a_large_request_passes_both_windows(client: Client, market: Rig) -> None:
    status, _ = client.call(bytes(1 << 20))
    assert status == INVALID
    assert client.server.buffered_bytes == 0
    small = Client(market.engine, buffered_bytes_max=1 << 18)
    stream = small.begin()
    small.http.send_data(stream, struct.pack(">BI", 0, 1 << 20))
    for _ in range(40):
        if stream not in small.headers:
            small.http.send_data(stream, bytes(8192))
            small.exchange()
    assert small.outcome(stream)[0] == EXHAUSTED
    assert small.server.buffered_bytes == 0


@pytest.mark.parametrize("size", [1 << 20, 700_001, 16_385, 16_384, 600])
def test_a_request_of_half_the_memory_is_taken_in_pieces(market: Rig, size: int) -> None:
    client = Client(market.engine, message_bytes_max=size, buffered_bytes_max=2 * size)
    stream = client.begin()
    message = framed(bytes(size))
    for at in range(0, len(message), 5000):
        client.send(stream, message[at : at + 5000])
    # It is read as a whole, and is no CheckOrderRequest.
    client.http.end_stream(stream)
    client.exchange()
    assert client.outcome(stream)[0] == INVALID
    assert client.server.buffered_bytes == 0


def test_requests_that_stop_half_way_leave_memory_for_others(market: Rig) -> None:
    greedy = Client(market.engine, buffered_bytes_max=1 << 20, message_bytes_max=1 << 19)
    statuses = []
    for _ in range(8):
        stream = greedy.begin(BATCH)
        greedy.http.send_data(stream, struct.pack(">BI", 0, 200_000))
        for _ in range(20):
            if stream not in greedy.headers:
                greedy.http.send_data(stream, bytes(8192))
                greedy.exchange()
        statuses.append(status_of(greedy, stream))
    assert statuses == [None] * 2 + [EXHAUSTED] * 6
    other = Client(market.engine, beside=greedy.server)
    orders = [new_order(number) for number in range(1, 65)]
    batch = pb.BatchCheckOrdersRequest(mode=pb.BATCH_MODE_INDEPENDENT, orders=orders)
    status, reply = other.call(batch.SerializeToString(), BATCH)
    assert status == OK
    assert len(pb.BatchCheckOrdersResponse.FromString(reply).decisions) == 64


def test_a_reply_waits_for_the_clients_window(market: Rig) -> None:
    client = Client(market.engine)
    client.acknowledges = False
    client.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 3})
    client.exchange()
    stream = client.begin()
    client.send(stream, framed(order_bytes()), end=True)
    assert len(client.bytes[stream]) == 3
    assert client.server.calls == 1
    while stream not in client.ended:
        client.http.increment_flow_control_window(7, stream)
        client.exchange()
    assert Client(market.engine).call(order_bytes()) == client.outcome(stream)


def test_a_table_of_headers_that_shrinks_under_a_reply_is_followed_at_once(market: Rig) -> None:
    client = Client(market.engine)
    client.acknowledges = False
    client.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 3})
    client.exchange()
    stream = client.begin()
    client.send(stream, framed(order_bytes()), end=True)
    assert len(client.bytes[stream]) == 3
    # The trailers are the first block after it: they begin with the new size (RFC 7541, 4.2).
    client.http.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0})
    client.exchange()
    client.http.increment_flow_control_window(1000, stream)
    client.exchange()
    assert client.outcome(stream)[0] == OK
    client.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    client.exchange()
    assert client.call(order_bytes())[0] == OK


def test_a_reset_gives_the_place_back(client: Client) -> None:
    for size in (0, 3, 100, 100_000):
        stream = client.begin()
        client.send(stream, framed(bytes(200_000))[:size])
        assert client.server.calls == 1
        client.http.reset_stream(stream)
        client.exchange()
        assert client.server.calls == 0
        assert client.server.buffered_bytes == 0
    assert client.call(order_bytes())[0] == OK


def test_more_streams_than_announced_are_refused(market: Rig) -> None:
    client = Client(market.engine, streams_per_connection_max=2)
    client.begin()
    client.begin()
    # The library refuses to: it knows the setting.
    client.raw(HeadersFrame(5, encoded(), flags=["END_HEADERS"]))
    assert client.server.calls == 2


def test_metadata_has_a_bound(client: Client) -> None:
    stream = client.begin(riskd_x="y" * 9000)
    assert client.outcome(stream)[0] == EXHAUSTED
    assert client.call(order_bytes())[0] == OK


def rapid_resets() -> list[Frame]:
    return [
        frame
        for stream in range(1, 4001, 2)
        for frame in (
            HeadersFrame(stream, encoded(), flags=["END_HEADERS"]),
            RstStreamFrame(stream, 8),
        )
    ]


@pytest.mark.parametrize(
    "frames",
    [
        rapid_resets,
        lambda: [PingFrame(0, bytes(8)) for _ in range(200)],
        lambda: [SettingsFrame(0) for _ in range(100)],
        lambda: [PriorityFrame(1) for _ in range(2000)],
        lambda: [WindowUpdateFrame(0, 1)] * 100_001,
        lambda: [
            HeadersFrame(1, encoded(), flags=["END_HEADERS"]),
            *[DataFrame(1) for _ in range(2000)],
        ],
        lambda: [HeadersFrame(1, encoded()), *[ContinuationFrame(1) for _ in range(100)]],
        lambda: [
            HeadersFrame(1, encoded()),
            *[ContinuationFrame(1, b"\x00\x01x\x7f\x81\x7f" + bytes(256)) for _ in range(5000)],
        ],
    ],
    ids=[
        "resets",
        "pings",
        "settings",
        "priorities",
        "windows",
        "empty data",
        "continuations",
        "headers",
    ],
)
def test_a_flood_ends_its_connection(market: Rig, frames: Callable[[], list[Frame]]) -> None:
    server = Loopback(market.engine)
    server.feed(PREFACE + SettingsFrame(0).serialize())
    revision = market.engine.revision
    for frame in frames():
        server.feed(frame.serialize())
        if not server.is_open:
            break
    assert not server.is_open
    assert market.engine.revision == revision


@pytest.mark.parametrize(
    "opening", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", bytes(24), PREFACE + bytes(9)]
)
def test_what_is_not_http2_is_closed(market: Rig, opening: bytes) -> None:
    server = Loopback(market.engine)
    server.feed(opening)
    assert not server.is_open


def test_a_client_that_says_nothing_is_closed(market: Rig) -> None:
    server = Loopback(market.engine)
    server.tick(4_000_000_000)
    assert server.is_open
    server.tick(2_000_000_000)
    assert not server.is_open


def test_silence_is_asked_about_and_then_closed(client: Client) -> None:
    ping = client.server.tick(61_000_000_000)
    assert ping == PingFrame(0, bytes(8)).serialize()
    client.take(ping)
    client.exchange()
    client.server.tick(21_000_000_000)
    assert client.server.is_open
    assert client.server.tick(61_000_000_000) == ping
    client.server.tick(21_000_000_000)
    assert not client.server.is_open


def frames_of(sent: bytes) -> list[Frame]:
    frames = []
    while sent:
        frame, size = Frame.parse_frame_header(memoryview(sent[:9]))
        frame.parse_body(memoryview(sent[9 : 9 + size]))
        frames.append(frame)
        sent = sent[9 + size :]
    return frames


def test_a_stop_announces_itself_answers_what_is_open_and_closes(market: Rig) -> None:
    # The library takes nothing after a GOAWAY, so the frames are looked at themselves.
    server = Loopback(market.engine)
    begin = HeadersFrame(1, encoded(), flags=["END_HEADERS"]).serialize()
    server.feed(PREFACE + SettingsFrame(0).serialize() + begin)
    (announced,) = frames_of(server.drain())
    assert isinstance(announced, GoAwayFrame)
    assert (announced.last_stream_id, announced.error_code) == (2**31 - 1, 0)
    # What was on its way then is still answered.
    late = HeadersFrame(3, encoded(), flags=["END_HEADERS"]).serialize()
    data = [DataFrame(n, framed(order_bytes(n)), flags=["END_STREAM"]).serialize() for n in (1, 3)]
    answers = frames_of(server.feed(late + data[1]))
    assert [frame.type for frame in answers] == ANSWER
    (final,) = frames_of(server.tick(200_000_000))
    assert isinstance(final, GoAwayFrame)
    assert (final.last_stream_id, final.error_code) == (3, 0)
    assert server.is_open
    assert not server.feed(HeadersFrame(5, encoded(), flags=["END_HEADERS"]).serialize())
    answers = frames_of(server.feed(data[0]))
    assert [frame.type for frame in answers] == ANSWER
    assert not server.is_open


def test_a_stream_that_was_skipped_is_not_opened_later(market: Rig) -> None:
    def headers(stream: int) -> bytes:
        return HeadersFrame(stream, encoded(), flags=["END_HEADERS"]).serialize()

    server = Loopback(market.engine)
    server.feed(PREFACE + SettingsFrame(0).serialize())
    opened = [1, 3, 7, 7 + 2 * 70, 9 + 2 * 70]
    for stream in opened:
        assert server.feed(headers(stream)) == b""
    # Headers at the end of what is open, also of a stream from long ago, are trailers.
    for stream in opened:
        data = DataFrame(stream, framed(order_bytes(stream))).serialize()
        trailers = HeadersFrame(stream, b"\0\1x\1y", flags=["END_HEADERS", "END_STREAM"])
        answers = frames_of(server.feed(data + trailers.serialize()))
        assert [frame.type for frame in answers] == ANSWER
    # RFC 9113, 5.1.1: a new stream is above all that were opened.
    (frame,) = frames_of(server.feed(headers(opened[-1] - 4)))
    assert isinstance(frame, GoAwayFrame)
    assert (frame.error_code, frame.last_stream_id) == (1, opened[-1])
    assert not server.is_open


@pytest.mark.parametrize("limit", ["idle_ns", "age_ns"])
def test_a_connection_that_is_old_or_idle_gets_goaway(market: Rig, limit: str) -> None:
    options: dict[str, Any] = {limit: 10**9}
    server = Loopback(market.engine, **options)
    server.feed(PREFACE + SettingsFrame(0).serialize())
    server.feed(HeadersFrame(1, encoded(), flags=["END_HEADERS"]).serialize())
    frames = frames_of(server.tick(10**9 + 1))
    assert [type(frame) for frame in frames] == ([] if limit == "idle_ns" else [GoAwayFrame])
    server.feed(DataFrame(1, framed(order_bytes()), flags=["END_STREAM"]).serialize())
    frames = frames_of(server.tick(10**9 + 1))
    assert [type(frame) for frame in frames] == [GoAwayFrame]
    server.tick(10**9)
    assert not server.is_open


def statuses_in(decoder: hpack.Decoder, frames: list[Frame]) -> dict[int, tuple[str, str]]:
    """Return status and message of the calls that end in these frames, by stream."""
    found = {}
    for frame in frames:
        if isinstance(frame, HeadersFrame):
            pairs: Any = decoder.decode(frame.data)
            headers: dict[str, str] = dict(pairs)
            if "grpc-status" in headers:
                found[frame.stream_id] = (headers["grpc-status"], headers.get("grpc-message", ""))
    return found


ENDING = "the connection has had its time, make a new one: what has no reply was not done"


@pytest.mark.parametrize("takes", [True, False], ids=["", "a client that takes nothing"])
def test_what_is_open_on_an_old_connection_ends_after_its_grace(market: Rig, takes: bool) -> None:
    server = Loopback(market.engine, age_ns=2 * 10**9, grace_ns=3 * 10**9)
    window = SettingsFrame(0, {4: 65_535 if takes else 0}).serialize()
    order = framed(b"\x0a" + bytes([len(order_bytes())]) + order_bytes())
    decoder = hpack.Decoder()
    opened = server.feed(PREFACE + window)
    for stream, path in ((1, STREAM), (3, WATCH), (5, CHECK)):
        opened += server.feed(
            HeadersFrame(stream, encoded(path), flags=["END_HEADERS"]).serialize()
        )
    opened += server.feed(DataFrame(1, order).serialize())
    opened += server.feed(DataFrame(3, framed(b""), flags=["END_STREAM"]).serialize())
    assert statuses_in(decoder, frames_of(opened)) == {}
    (announced,) = frames_of(server.tick(2 * 10**9 + 2 * 10**8))
    assert isinstance(announced, GoAwayFrame)
    (final,) = frames_of(server.tick(10**8))
    assert isinstance(final, GoAwayFrame)
    # Within the grace all goes on.
    assert server.tick(3 * 10**9 - 1) == b""
    replies = frames_of(server.feed(DataFrame(1, order).serialize()))
    assert [frame.type for frame in replies] == [DataFrame.type] * takes
    revision = market.engine.revision
    ended = server.tick(1)
    assert server.is_open is not takes
    late = server.feed(DataFrame(1, order).serialize())
    assert market.engine.revision == revision
    if takes:
        assert statuses_in(decoder, frames_of(ended)) == dict.fromkeys((1, 3, 5), ("14", ENDING))
        assert late == b""
    else:
        # It has no room for what comes before a status.
        assert statuses_in(decoder, frames_of(ended)) == {5: ("14", ENDING)}
        server.tick(5 * 10**9 - 1)
        assert server.is_open
        server.tick(1)
        assert not server.is_open


def test_connections_that_began_together_do_not_end_together(market: Rig) -> None:
    first = Loopback(market.engine, age_ns=10 * 10**9, connections_max=100)
    servers = [first, *(Loopback(market.engine, beside=first) for _ in range(99))]
    for server in servers:
        server.feed(PREFACE + SettingsFrame(0).serialize())
    first.tick(9 * 10**9 - 1)
    counts = []
    for _ in range(10):
        announced = [first.tick(2 * 10**8), *(server.tick(0) for server in servers[1:])]
        frames: list[Any] = [frame for sent in announced for frame in frames_of(sent)]
        assert all(isinstance(frame, GoAwayFrame) for frame in frames)
        counts.append(len([frame for frame in frames if frame.last_stream_id == 2**31 - 1]))
    # All between 9 and 11 s, in each fifth of a second about as many.
    assert sum(counts) == len(servers)
    assert 8 <= min(counts) <= max(counts) <= 12


def test_a_stop_is_told_on_an_old_connection_too(market: Rig) -> None:
    server = Loopback(market.engine, age_ns=10**9)
    decoder = hpack.Decoder()
    opened = server.feed(PREFACE + SettingsFrame(0).serialize())
    for stream, path in ((1, STREAM), (3, WATCH)):
        opened += server.feed(
            HeadersFrame(stream, encoded(path), flags=["END_HEADERS"]).serialize()
        )
    opened += server.feed(DataFrame(3, framed(b""), flags=["END_STREAM"]).serialize())
    assert statuses_in(decoder, frames_of(opened)) == {}
    assert server.tick(2 * 10**9)
    frames = frames_of(server.drain())
    assert [frame.data[5:] for frame in frames if isinstance(frame, DataFrame)] == [NOT_SERVING]
    stopping = ("14", "the service is stopping")
    assert statuses_in(decoder, frames) == {1: stopping, 3: (OK, "")}


def test_a_greedy_connection_leaves_room_for_others(market: Rig) -> None:
    client = Client(market.engine, calls_max=10)
    streams = [client.begin() for _ in range(6)]
    assert [stream in client.headers for stream in streams] == [False] * 5 + [True]
    assert client.outcome(streams[5])[0] == EXHAUSTED
    assert client.server.calls == 5


def watch(client: Client) -> int:
    stream = client.begin(WATCH)
    client.send(stream, framed(b""), end=True)
    return stream


def test_whoever_only_watches_takes_no_room_from_orders(market: Rig) -> None:
    first = Client(market.engine, calls_max=2, connections_max=20)
    watching = [first, *(Client(market.engine, beside=first.server) for _ in range(18))]
    for client in watching:
        for _ in range(4):
            assert client.bytes[watch(client)][5:] == SERVING
        assert client.call(b"", WATCH) == (EXHAUSTED, b"")
        assert client.server.calls == 0
    other = Client(market.engine, beside=first.server)
    assert other.call(order_bytes())[0] == OK
    assert other.call(b"", HEALTH) == (OK, SERVING)
    # Who stops watching may begin again.
    first.http.reset_stream(1)
    first.exchange()
    stream = watch(first)
    assert first.bytes[stream][5:] == SERVING
    # All are told of the end.
    told = [frame for frame in frames_of(first.server.drain()) if isinstance(frame, DataFrame)]
    assert [frame.data[5:] for frame in told] == [NOT_SERVING] * 4


def wait(client: Client, seconds: int) -> None:
    """Let time pass, in which the client answers when it is asked whether it is there."""
    while seconds > 0:
        client.take(client.server.tick(min(seconds, 10) * 10**9))
        client.exchange()
        seconds -= 10


def small_windows(market: Rig) -> Client:
    """Return a client that takes 3 bytes of a stream, and more when it says so."""
    client = Client(market.engine)
    client.acknowledges = False
    client.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 3})
    client.exchange()
    return client


def test_a_reply_of_which_nothing_is_taken_for_a_minute_is_given_up(market: Rig) -> None:
    client = small_windows(market)
    stream = client.begin()
    # The request may take its time: that is none of the reply's.
    wait(client, 9)
    client.send(stream, framed(order_bytes()), end=True)
    for _ in range(3):
        wait(client, 59)
        assert client.server.calls == 1
        client.http.increment_flow_control_window(1, stream)
        client.exchange()
    wait(client, 60)
    assert client.server.calls == 1
    wait(client, 1)
    # CANCEL
    assert client.resets == {stream: 8}
    assert client.server.calls == 0


def test_a_stream_whose_replies_nobody_takes_is_given_up_after_a_minute(market: Rig) -> None:
    client = small_windows(market)
    order = framed(b"\x0a" + bytes([len(order_bytes())]) + order_bytes())
    quiet, stuck = client.begin(STREAM), client.begin(STREAM)
    client.send(stuck, order)
    wait(client, 59)
    client.http.increment_flow_control_window(1, stuck)
    client.exchange()
    # More to take is not something taken.
    wait(client, 50)
    client.send(stuck, order)
    wait(client, 10)
    assert client.resets == {}
    wait(client, 1)
    assert client.resets == {stuck: 8}
    # One that has nothing to take may wait for ever; so may its end, which needs no window.
    wait(client, 600)
    assert client.resets == {stuck: 8}
    client.http.end_stream(quiet)
    client.exchange()
    assert client.outcome(quiet)[0] == OK


def status_of(client: Client, stream: int) -> str | None:
    return client.headers.get(stream, {}).get("grpc-status")


def test_each_connection_has_a_stream_and_of_more_as_many_as_are_free(market: Rig) -> None:
    greedy = Client(market.engine, streams_max=6, calls_max=2)
    streams = [greedy.begin(STREAM) for _ in range(5)]
    # Its first, and then of 6 as many as are left.
    assert [status_of(greedy, stream) for stream in streams] == [None] * 4 + [EXHAUSTED]
    assert b"STREAMS_FULL" in details_of(greedy, streams[4])
    assert greedy.server.calls == 0
    others = [Client(market.engine, beside=greedy.server) for _ in range(3)]
    counts = []
    for other in others:
        streams = [other.begin(STREAM) for _ in range(4)]
        counts.append([status_of(other, stream) for stream in streams].count(None))
    # With 3, 1 and none left.
    assert counts == [3, 2, 1]
    for client in (greedy, *others):
        client.send(1, framed(b"\x0a" + bytes([len(order_bytes())]) + order_bytes()))
        assert client.bytes[1][5:6] == b"\x0a"
        assert client.call(order_bytes())[0] == OK
    # What ends is free for all.
    for stream in (1, 3, 5, 7):
        greedy.http.end_stream(stream)
    greedy.exchange()
    assert [status_of(greedy, stream) for stream in (1, 3, 5, 7)] == [OK] * 4
    assert status_of(others[2], others[2].begin(STREAM)) is None


def test_messages_of_a_stream_whose_replies_nobody_takes_are_not_decided(market: Rig) -> None:
    client = Client(market.engine)
    client.acknowledges = False
    stream = client.begin(STREAM)
    message = framed(b"\x0a" + bytes([len(order_bytes())]) + order_bytes())
    sent = 0
    window = client.http.local_flow_control_window(stream)
    while (room := client.http.local_flow_control_window(stream)) >= len(message):
        count = min(room // len(message), 100)
        client.send(stream, message * count)
        sent += count
        assert sent < 100_000
    assert window == 65_535
    replies = client.bytes[stream]
    # What h2 has taken fills its window; twice as much is what the server holds at most.
    assert len(replies) == 65_535
    # Other calls of the connection have their own room, but for the connection's window.
    client.http.increment_flow_control_window(1 << 20)
    client.exchange()
    assert client.call(order_bytes())[0] == OK
    # The client takes them after all: everything is answered, in order, to the end.
    client.http.increment_flow_control_window(1 << 24)
    client.http.increment_flow_control_window(1 << 24, stream)
    client.http.end_stream(stream)
    client.exchange()
    assert stream in client.ended
    answered = client.bytes[stream]
    size = 5 + int.from_bytes(answered[1:5], "big")
    assert answered == answered[:size] * sent
    assert client.outcome(stream)[0] == OK


def test_no_bytes_break_it(market: Rig) -> None:
    chance = random.Random(1)
    whole = PREFACE + SettingsFrame(0).serialize()
    for stream, path in ((1, CHECK), (3, STREAM), (5, "/grpc.health.v1.Health/Watch")):
        whole += HeadersFrame(stream, encoded(path), flags=["END_HEADERS"]).serialize()
        whole += DataFrame(stream, framed(order_bytes()), flags=["END_STREAM"]).serialize()
    for _ in range(2000):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            broken[chance.randrange(len(PREFACE), len(broken))] = chance.randrange(256)
        server = Loopback(market.engine)
        at = 0
        while at < len(broken):
            size = chance.randrange(1, 64)
            server.feed(bytes(broken[at : at + size]))
            at += size
        server.tick(chance.randrange(10**11))
        server.drain()
    assert Client(market.engine).call(order_bytes(2))[0] == OK


def test_of_two_tokens_none_counts_and_their_table_may_be_gone(market: Rig) -> None:
    token = "t" * 43
    key = (1, hashlib.sha256(token.encode()).digest())
    everything = ((0, (1 << 64) - 1),)
    permits = Permits()
    permits.replace([("alice", 1 << 1, 0, everything, everything, (key,))])
    client = Client(market.engine, permits=permits)
    client.http.send_headers(
        1, [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
    )
    client.http.data_to_send()
    header = literal("authorization", f"Bearer {token}")
    client.raw(HeadersFrame(1, encoded() + header))
    permits.replace([("bob", 1 << 1, 0, everything, everything, (key,))])
    client.raw(ContinuationFrame(1, header, flags=["END_HEADERS"]))
    assert client.outcome(1)[0] == "16"
    [row], _ = permits.take_denials()
    *_, reason, _, _, identity, _, _ = row
    # TOKEN_UNKNOWN, of nobody.
    assert (reason, identity) == (3, "")
