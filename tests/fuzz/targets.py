"""What is fuzzed: functions of bytes that must not raise, whatever the bytes are.

They run under libFuzzer (harness.c) with instrumented modules, and over the corpus in every test
run. Each says what must hold beside the absence of faults that the sanitizers see.
"""

from __future__ import annotations

import importlib
import os
import struct
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import riskd.core

# Before the first module of the core is loaded.
if "RISKD_FUZZ_CORE" in os.environ:
    riskd.core.__path__.insert(0, os.environ["RISKD_FUZZ_CORE"])

from google.protobuf.message import Message

from riskd.core.engine import (
    METHOD_BATCH_CHECK_ORDERS,
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_GET_RESERVATION,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    Engine,
    MalformedRequestError,
)
from riskd.core.journal import JournalDamagedError, crc32c, repair, scan
from riskd.core.permits import Permits
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2

# An ordinary module would be fuzzed as well, blindly.
if "RISKD_FUZZ_CORE" in os.environ:
    for instrumented in Path(os.environ["RISKD_FUZZ_CORE"]).glob("*.so"):
        module = importlib.import_module(f"riskd.core.{instrumented.name.partition('.')[0]}")
        if module.__file__ != str(instrumented):
            raise ImportError(f"{module.__file__} was loaded, and not {instrumented}")

NOW_NS = 1_700_000_000_000_000_000
METHODS: list[tuple[int, type[Message], type[Message]]] = [
    (METHOD_CHECK_ORDER, orders_pb.CheckOrderRequest, orders_pb.CheckOrderResponse),
    (METHOD_REPORT_EXECUTION, orders_pb.ReportExecutionRequest, orders_pb.ReportExecutionResponse),
    (METHOD_GET_RESERVATION, orders_pb.GetReservationRequest, orders_pb.GetReservationResponse),
    (METHOD_REPORT_MARKS, marks_pb.ReportMarksRequest, marks_pb.ReportMarksResponse),
    (METHOD_CHECK_AMENDMENT, orders_pb.CheckAmendmentRequest, orders_pb.CheckAmendmentResponse),
    (
        METHOD_BATCH_CHECK_ORDERS,
        orders_pb.BatchCheckOrdersRequest,
        orders_pb.BatchCheckOrdersResponse,
    ),
]


def small_engine() -> Engine:
    """Return an engine with account 7, instrument 1 at 60,000 ticks, and tables that fill soon."""
    engine = Engine(
        accounts_max=4,
        positions_max=8,
        orders_max=64,
        instruments_max=2,
        schedules_max=2,
        gateways_max=2,
        answer_bytes=8192,
    )
    engine.create_asset("USDT", 8)
    engine.upsert_schedule("TEST", 1, [(0, 0, 4_000_000, 12_500)])
    engine.upsert_instrument("BTCUSDT", 1, 1, 1, 1, -1, 1, -3, mark_units_per_tick=10)
    engine.create_account(7, 1, 2, 1000, 10**15)
    mark = marks_pb.Mark(instrument_id=1, mark_price=600_000, time_ns=NOW_NS)
    engine.handle(
        METHOD_REPORT_MARKS, marks_pb.ReportMarksRequest(marks=[mark]).SerializeToString(), NOW_NS
    )
    return engine


ENGINE = small_engine()


# --- the decoder -------------------------------------------------------------------------------


def wire(content: bytes) -> None:
    """Decode a request: the first byte says of which method, the rest are the message's bytes.

    What the strict decoder takes, protobuf takes too, with no unknown field; what it refuses
    changes nothing; a reply is a message.
    """
    if not content:
        return
    method, request_type, reply_type = METHODS[content[0] % len(METHODS)]
    request = content[1:]
    before = ENGINE.state_hash(), ENGINE.answers_hash(), ENGINE.revision
    try:
        reply = ENGINE.handle(method, request, NOW_NS)
    except MalformedRequestError:
        now = ENGINE.state_hash(), ENGINE.answers_hash(), ENGINE.revision
        assert now == before, "a refused message changed the state"
        return
    parsed = request_type.FromString(request)
    size = parsed.ByteSize()
    parsed.DiscardUnknownFields()
    assert parsed.ByteSize() == size, "an unknown field was taken"
    reply_type.FromString(reply)


def wire_seeds() -> Iterator[bytes]:
    """Yield a message of each method, with every scalar field set."""
    for index, (_, request_type, _) in enumerate(METHODS):
        message = request_type()
        for field in message.DESCRIPTOR.fields:
            if field.message_type is None:
                setattr(message, field.name, 1)
        yield bytes([index]) + message.SerializeToString()
    order = orders_pb.CheckOrderRequest.FromString(ORDER)
    yield b"\0" + ORDER
    yield b"\5" + orders_pb.BatchCheckOrdersRequest(orders=[order] * 3).SerializeToString()
    mark = marks_pb.Mark(instrument_id=1, mark_price=600_000, time_ns=NOW_NS)
    yield b"\3" + marks_pb.ReportMarksRequest(marks=[mark] * 2).SerializeToString()


# --- the session -------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAMS_MAX = 8
BUFFERED_MAX = 1 << 20
FRAME_TYPES = 10
TICKS_NS = (1, 10**6, 10**9, 30 * 10**9)

ORDER = orders_pb.CheckOrderRequest(
    account_id=7,
    instrument_id=1,
    client_order_id=1,
    side=types_pb2.SIDE_BUY,
    order_type=types_pb2.ORDER_TYPE_LIMIT,
    price_ticks=60_000,
    quantity_lots=1,
    gateway_id=3,
).SerializeToString()


TOKEN = "riskd_fuzz"
PERMITS = Permits()
# Gateway 3 with account 7, and who may call nothing but GetReservation.
PERMITS.replace(
    [
        ("gateway", 0, 2**64 - 1, ((7, 7),), ((3, 3),), [(1, sha256(TOKEN.encode()).digest())]),
        ("reader", 1 << METHOD_GET_RESERVATION, 0, ((8, 8),), (), [(1, sha256(b"r").digest())]),
    ]
)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return an HTTP/2 frame."""
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def unpack_frames(content: bytes) -> bytes:
    """Return frames from content: a byte each of type, flags, stream and size, then a payload.

    So a mutation changes what is in a frame, and not where all those after it begin.
    """
    frames = []
    at = 0
    while at + 4 <= len(content):
        kind, flags, stream, size = content[at : at + 4]
        payload = content[at + 4 : at + 4 + size]
        frames.append(frame(kind % FRAME_TYPES, flags, stream, payload))
        at += 4 + size
    return b"".join(frames)


def session(content: bytes) -> None:
    """Feed a connection; the first byte chooses how, the second where the bytes are cut in two.

    What is sent are whole frames of sizes that a peer must take; calls and memory stay in their
    bounds; a closed session says nothing more; and the end of time closes it.
    """
    from riskd.core.session import Loopback  # noqa: PLC0415

    if len(content) < 2:
        return
    how, cut = content[0], content[1]
    received = content[2:] if how & 1 else PREFACE + unpack_frames(content[2:])
    loopback = Loopback(
        ENGINE,
        time_ns=NOW_NS,
        calls_max=STREAMS_MAX,
        streams_per_connection_max=STREAMS_MAX,
        message_bytes_max=1 << 16,
        buffered_bytes_max=BUFFERED_MAX,
        permits=PERMITS if how & 8 else None,
    )
    at = len(received) * cut // 256
    sent = loopback.feed(received[:at])
    if how & 2:
        sent += loopback.tick(TICKS_NS[how >> 4 & 3])
    sent += loopback.feed(received[at:])
    assert loopback.calls <= STREAMS_MAX, loopback.calls
    # A reply that is being written may go over the bound, one at a time.
    assert loopback.buffered_bytes <= 2 * BUFFERED_MAX, loopback.buffered_bytes
    if how & 4:
        sent += loopback.drain()
    was_open = loopback.is_open
    later = loopback.tick(3600 * 10**9)
    assert was_open or not later, "a closed session sends"
    for _ in range(8):
        later += loopback.tick(3600 * 10**9)
    assert not loopback.is_open, "a session without end"
    check_frames(sent + later)


def check_frames(sent: bytes) -> None:
    """Raise AssertionError if these are not whole frames of known types."""
    at = 0
    while at < len(sent):
        assert at + 9 <= len(sent), "half a frame"
        size = int.from_bytes(sent[at : at + 3], "big")
        assert size <= 16384, size
        assert sent[at + 3] < FRAME_TYPES, sent[at + 3]
        at += 9 + size
    assert at == len(sent), "half a frame"


def literal(name: str, value: str) -> bytes:
    """Return a header field that is not indexed."""
    return b"".join([b"\0", bytes([len(name)]), name.encode(), bytes([len(value)]), value.encode()])


def headers(path: str, *more: tuple[str, str]) -> bytes:
    """Return the header block of a gRPC request."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
    fields += [("content-type", "application/grpc"), ("te", "trailers"), *more]
    return b"".join(literal(*field) for field in fields)


def session_seeds() -> Iterator[bytes]:
    """Yield well-formed conversations."""
    message = struct.pack(">BI", 0, len(ORDER)) + ORDER

    def packed(*frames: tuple[int, int, int, bytes]) -> bytes:
        return b"".join(
            bytes([kind, flags, stream, len(payload)]) + payload
            for kind, flags, stream, payload in frames
        )

    settings = (4, 0, 0, b"")
    unary = (1, 4, 1, headers("/riskd.v1.OrderRiskService/CheckOrder"))
    yield b"\0\0" + packed(settings, unary, (0, 1, 1, message))
    yield b"\0\x80" + packed(settings, unary, (0, 0, 1, message[:9]), (0, 1, 1, message[9:]))
    timed = headers("/riskd.v1.OrderRiskService/CheckOrder", ("grpc-timeout", "1m"))
    yield b"\2\xf0" + packed(settings, (1, 4, 1, timed), (0, 1, 1, message))
    packed_order = headers("/riskd.v1.OrderRiskService/CheckOrder", ("grpc-encoding", "gzip"))
    yield b"\0\0" + packed(settings, (1, 4, 1, packed_order), (0, 1, 1, message))
    stream = (1, 4, 1, headers("/riskd.v1.OrderRiskService/StreamOrders"))
    streamed = struct.pack(">BI", 0, len(ORDER) + 2) + b"\x0a" + bytes([len(ORDER)]) + ORDER
    yield b"\4\0" + packed(settings, stream, (0, 0, 1, streamed * 2), (3, 0, 1, b"\0\0\0\x08"))
    yield b"\0\0" + packed(settings, stream, (0, 1, 1, streamed))
    health = (1, 4, 1, headers("/grpc.health.v1.Health/Check"))
    watch = (1, 4, 3, headers("/grpc.health.v1.Health/Watch"))
    nothing = (0, 1, 1, bytes(5))
    yield b"\4\0" + packed(settings, health, nothing, watch, (0, 1, 3, bytes(5)))
    yield b"\0\0" + packed(settings, (6, 0, 0, bytes(8)), (8, 0, 0, b"\0\0\1\0"))
    yield b"\0\0" + packed(settings, (1, 0, 1, unary[3][:20]), (9, 4, 1, unary[3][20:]))
    yield b"\0\0" + packed((4, 0, 0, b"\0\4\0\0\0\1"), unary, (0, 9, 1, b"\3" + message + bytes(3)))
    known = ("authorization", f"Bearer {TOKEN}")
    for path in ("CheckOrder", "GetReservation", "StreamOrders"):
        for shown in ((known,), (known, known), (("authorization", "Bearer r"),), ()):
            named = (1, 4, 1, headers(f"/riskd.v1.OrderRiskService/{path}", *shown))
            content = streamed if path == "StreamOrders" else message
            again = (1, 4, 3, named[3]), (0, 1, 3, content.replace(b"\7", b"\6", 1))
            yield b"\x08\0" + packed(settings, named, (0, 1, 1, content), *again)
    yield b"\1\x10" + PREFACE + frame(4, 0, 0) + frame(7, 0, 0, bytes(8))
    # Messages with memory of their own, and a stream beyond its first window.
    order = orders_pb.CheckOrderRequest.FromString(ORDER)
    batch = orders_pb.BatchCheckOrdersRequest(orders=[order] * 64).SerializeToString()
    for method, content, count in (
        ("BatchCheckOrders", struct.pack(">BI", 0, len(batch)) + batch, 1),
        ("CheckOrder", struct.pack(">BI", 0, 60_000) + bytes(60_000), 1),
        ("StreamOrders", streamed, 70_000 // len(streamed)),
    ):
        sent = frame(1, 4, 1, headers(f"/riskd.v1.OrderRiskService/{method}"))
        for at in range(0, len(content) * count, 16_000):
            sent += frame(0, 0, 1, (content * count)[at : at + 16_000])
        yield b"\1\x80" + PREFACE + frame(4, 0, 0) + sent + frame(0, 1, 1)


# --- the journal -------------------------------------------------------------------------------

HEAD = 40
RECORD_SIZE_MAX = 1 << 12


def journal(content: bytes) -> None:
    """Read a directory of one segment.

    The first byte says whether checksums and sizes are put right first: without that no mutation
    comes past them. A scan ends with records, a torn tail or damage; what it gave, a repair leaves,
    and then nothing is torn.
    """
    if not content:
        return
    segment = put_right(content[1:]) if content[0] & 1 else content[1:]
    with tempfile.TemporaryDirectory(dir=_MEMORY, prefix="riskd-fuzz-") as folder:
        (Path(folder) / f"{1:020d}.journal").write_bytes(segment)
        records: list[tuple[int, int, int, int, bytes]] = []
        reader = scan(folder)
        try:
            records.extend(reader)
        except JournalDamagedError:
            return
        for sequence, record in enumerate(records, 1):
            assert record[0] == sequence, "a sequence out of order"
        repair(folder)
        again = scan(folder)
        assert list(again) == records, "a repair changed records"
        assert again.torn is None, "torn after a repair"


# Files are written and removed a thousand times a second.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def put_right(content: bytes) -> bytes:
    """Return a segment whose header, sizes, sequences and checksums hold, as far as bytes go."""
    head = content[:36].ljust(36, b"\0")
    head = b"RISKDJNL" + struct.pack("<IIQ", 1, 0, 1) + head[24:32] + bytes(4)
    parts = [head + struct.pack("<I", crc32c(head))]
    at = 36
    before = 0
    sequence = 1
    while at + HEAD <= len(content):
        record = content[at : at + HEAD]
        size = int.from_bytes(record[4:6], "little") % RECORD_SIZE_MAX
        payload = content[at + HEAD : at + HEAD + size]
        body = struct.pack("<II", len(payload), before) + record[12:16]
        body += struct.pack("<Q", sequence) + record[24:40] + payload
        body += bytes(-(len(body) + 4) % 8)
        before = crc32c(body)
        parts.append(struct.pack("<I", before) + body)
        sequence += 1
        at += HEAD + size
    return b"".join(parts) + content[at:]


def journal_seeds() -> Iterator[bytes]:
    """Yield segments: none, some, a torn tail."""
    record = struct.pack("<IIIIQQQ", 0, 16, 0, 1, 0, NOW_NS, 1) + bytes(range(16))
    whole = b"\1" + bytes(36) + record * 3
    yield b"\1"
    yield whole
    yield whole + b"torn"
    yield b"\0" + put_right(whole[1:])
    yield b"\0" + put_right(whole[1:])[:-9]


TARGETS = {
    "wire": (wire, wire_seeds),
    "session": (session, session_seeds),
    "journal": (journal, journal_seeds),
}
