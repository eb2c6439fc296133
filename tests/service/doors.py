"""One engine behind each way in: the library, the control server, the native door.

`Doors` is used as an engine is. Hot requests go to all three, as unary calls and as messages of
StreamOrders; whatever else an engine can do is done to the three engines. Each reply, error and
result must be the same, and in the end the state.
"""

from __future__ import annotations

import asyncio
import queue
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest

from riskd.core.engine import Engine, MalformedRequestError
from riskd.reference import Order
from riskd.server import ControlServer
from riskd.services.backend import Backend
from riskd.services.market_data import add_market_data_service
from riskd.services.order_risk import add_order_risk_service
from riskd.settings import Settings
from riskd.v1 import order_risk_service_pb2 as pb
from riskd.v1 import types_pb2 as t
from tests.differential.streams import Command, Fields, Runner
from tests.service.conftest import TIMEOUT_S, Clock

if TYPE_CHECKING:
    from riskd.core.listener import Listener
else:
    Listener = pytest.importorskip("riskd.core.listener").Listener

SERVICE = "/riskd.v1.OrderRiskService/"
GET_RESERVATION = 3
REPORT_MARKS = 4
HOT = {
    1: "CheckOrder",
    2: "ReportExecution",
    GET_RESERVATION: "GetReservation",
    5: "CheckAmendment",
    6: "BatchCheckOrders",
}
# Fields of StreamOrdersRequest, and of its response.
STREAMED = {1: 1, 5: 2, 2: 3}
# Calls that are collected before they are sent.
CALLS_MAX = 64
SCOPE_SERVICE = 1

# A reply, or status, message and trailers.
Answer = bytes | tuple[Any, ...]


def call(channel: grpc.Channel, path: str, request: bytes, **options: Any) -> Callable[[], Answer]:
    """Begin a call with bytes; what is returned waits for its answer."""
    bare: Any = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
    pending = bare.future(request, **({"timeout": TIMEOUT_S} | options))

    def answer() -> Answer:
        try:
            reply: bytes = pending.result()
        except grpc.RpcError:
            return failure_of(pending)
        return reply

    return answer


def failure_of(ended: Any) -> tuple[Any, ...]:
    return ended.code(), ended.details(), tuple(ended.trailing_metadata())


class Exchange:
    """StreamOrders of one channel, opened when it is needed and again after each error."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies: Any = None

    def send(self, messages: Sequence[bytes]) -> Callable[[], list[Answer]]:
        """Send messages, of which only the last may fail; what is returned waits for the answers"""
        if self._replies is None:
            bare: Any = self._channel.stream_stream(
                SERVICE + "StreamOrders", request_serializer=None, response_deserializer=None
            )
            self._messages = queue.SimpleQueue()
            self._replies = bare(iter(self._messages.get, None))
        for message in messages:
            self._messages.put(message)

        def answers() -> list[Answer]:
            found: list[Answer] = []
            try:
                found.extend(next(self._replies) for _ in messages)
            except grpc.RpcError:
                found.append(failure_of(self._replies))
                self._messages.put(None)
                self._replies = None
            return found

        return answers

    def end(self) -> None:
        """Close the stream in good order."""
        if self._replies is not None:
            self._messages.put(None)
            assert list(self._replies) == []
            assert self._replies.code() is grpc.StatusCode.OK
            self._replies = None


@dataclass(frozen=True, slots=True)
class Call:
    """A hot request and what the library answered."""

    method: int
    request: bytes
    reply: bytes | MalformedRequestError

    @property
    def is_refused(self) -> bool:
        return not isinstance(self.reply, bytes)


class Doors:
    """Three engines that must answer alike. A stream of seeds says which way a request goes."""

    def __init__(self, *, directory: Path | None = None, seed: int = 0, **settings: int) -> None:
        """Open the doors; with a directory, those of the services have journals there."""
        self._random = random.Random(seed)
        self.library = Engine(**settings)
        self._engines = [Engine(**settings), Engine(**settings)]
        self._directories = [] if directory is None else [directory / "control", directory / "it"]
        for engine, journal in zip(self._engines, self._directories, strict=False):
            engine.open_journal(journal, durability="process")
        self._clock = Clock(0)
        control, native = self._engines
        self._control = control_server(control, self._clock)
        self._listener = Listener(native)
        addresses = [self._listener.listen("127.0.0.1:0")]
        self._listener.start()
        addresses.insert(0, f"127.0.0.1:{self._control.start()}")
        self._channels = [grpc.insecure_channel(address) for address in addresses]
        self._exchanges = [Exchange(channel) for channel in self._channels]
        self._calls: list[Call] = []
        self.unary_count = self.streamed_count = self.refused_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._compare_ends()
        finally:
            for channel in self._channels:
                channel.close()
            self._listener.stop()
            self._control.stop(0)
            for engine in self._engines:
                engine.close_journal()
        if error is None:
            self._compare_journals()

    # --- as an engine ---------------------------------------------------------------------------

    def handle(self, method: int, request: bytes, now_ns: int) -> bytes:
        """Answer a hot request as the library does; the doors are asked for the same later."""
        if method not in HOT and method != REPORT_MARKS:
            return bytes(self._on_all("handle", method, request, now_ns))
        if now_ns != self._clock.now_ns:
            self._send_calls()
            self._clock.now_ns = now_ns
            self._listener.set_time(now_ns)
        if method == REPORT_MARKS:
            return self._report_marks(request, now_ns)
        reply: bytes | MalformedRequestError
        try:
            reply = self.library.handle(method, request, now_ns)
        except MalformedRequestError as error:
            reply = error
        self._calls.append(Call(method, request, reply))
        if len(self._calls) == CALLS_MAX:
            self._send_calls()
        if isinstance(reply, MalformedRequestError):
            raise reply
        return reply

    def __getattr__(self, name: str) -> Any:
        if not callable(getattr(self.library, name)):
            return self._on_all(name)
        return lambda *arguments, **by_name: self._on_all(name, *arguments, **by_name)

    def _on_all(self, name: str, /, *arguments: Any, **by_name: Any) -> Any:
        """Return what a method or property of the library is, as it is of the engines."""
        self._send_calls()
        expected = outcome_of(self.library, name, *arguments, **by_name)
        for door, engine in zip(("control server", "native"), self._engines, strict=True):
            found = outcome_of(engine, name, *arguments, **by_name)
            assert repr(found) == repr(expected), f"{door}: {name} {arguments} {by_name}"
        if isinstance(expected, Exception):
            raise expected
        return expected

    # --- hot requests ---------------------------------------------------------------------------

    def _report_marks(self, request: bytes, now_ns: int) -> bytes:
        """Report marks, which the native door does not take."""
        self._send_calls()
        path = "/riskd.v1.MarketDataService/ReportMarks"
        answer = call(self._channels[0], path, request)()
        expected = outcome_of(self.library, "handle", REPORT_MARKS, request, now_ns)
        beside = outcome_of(self._engines[1], "handle", REPORT_MARKS, request, now_ns)
        assert repr(beside) == repr(expected), f"marks {request.hex()}"
        if isinstance(expected, Exception):
            assert answer[:2] == (grpc.StatusCode.INVALID_ARGUMENT, str(expected)), request.hex()
            raise expected
        assert answer == expected, f"marks {request.hex()}"
        return bytes(expected)

    def _send_calls(self) -> None:
        """Send what was collected through both doors and compare."""
        calls, self._calls = self._calls, []
        while calls:
            count = self._streamable(calls)
            if count and self._random.random() < 0.6:
                self._stream(calls[:count])
            else:
                count = 1
                self._call(calls[0])
            calls = calls[count:]

    def _streamable(self, calls: list[Call]) -> int:
        """Return how many calls at the beginning one stream can carry."""
        for index, each in enumerate(calls):
            if each.method not in STREAMED:
                return index
            if each.is_refused:
                return index + 1
        return len(calls)

    def _call(self, asked: Call) -> None:
        path = SERVICE + HOT[asked.method]
        pending = [call(channel, path, asked.request) for channel in self._channels]
        self._compare(asked, asked.reply, [answer() for answer in pending])
        self.unary_count += 1

    def _stream(self, calls: list[Call]) -> None:
        messages = [wrapped(each.method, each.request) for each in calls]
        pending = [exchange.send(messages) for exchange in self._exchanges]
        answers = [wait() for wait in pending]
        assert [len(found) for found in answers] == [len(calls)] * 2, answers
        for asked, *found in zip(calls, *answers, strict=True):
            expected = asked.reply
            if isinstance(expected, bytes):
                expected = wrapped(asked.method, expected)
            self._compare(asked, expected, found)
        self.streamed_count += len(calls)

    def _compare(
        self, asked: Call, expected: bytes | MalformedRequestError, answers: list[Any]
    ) -> None:
        control, native = answers
        text = f"{HOT[asked.method]} {asked.request.hex()}: {expected!r}, {control!r}, {native!r}"
        assert control == native, text
        if isinstance(expected, bytes):
            assert native == expected, text
        else:
            self.refused_count += 1
            code, message, trailers = native
            assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, str(expected)), text
            assert b"REQUEST_MALFORMED" in dict(trailers)["grpc-status-details-bin"], text

    # --- the end --------------------------------------------------------------------------------

    def _compare_ends(self) -> None:
        self._send_calls()
        for exchange in self._exchanges:
            exchange.end()
        for engine in self._engines:
            assert engine.state_hash() == self.library.state_hash()
            assert engine.answers_hash() == self.library.answers_hash()

    def _compare_journals(self) -> None:
        """What the doors recorded, byte for byte the same, leads to the same state."""
        records = []
        for directory in self._directories:
            again = Engine()
            again.recover(directory)
            assert again.state_hash() == self.library.state_hash()
            records.append([path.read_bytes() for path in sorted(directory.iterdir())])
        assert records[1:] == records[:-1]


def outcome_of(engine: Engine, name: str, /, *arguments: Any, **by_name: Any) -> Any:
    """Return a result, or the error that was raised."""
    found = getattr(engine, name)
    if not callable(found):
        return found
    try:
        return found(*arguments, **by_name)
    except (ValueError, KeyError) as error:
        return error


def control_server(engine: Engine, clock: Clock) -> ControlServer:
    """Return a control server of the hot methods, in which no time passes by itself."""
    backend = Backend(engine, clock, TIMEOUT_S)

    async def stand_still() -> None:
        await asyncio.Event().wait()

    return ControlServer(
        Settings(control_address="127.0.0.1:0", durability="none"),
        {
            "riskd.v1.OrderRiskService": lambda server: add_order_risk_service(server, backend),
            "riskd.v1.MarketDataService": lambda server: add_market_data_service(server, backend),
        },
        backend.commits,
        stand_still,
        lambda: None,
    )


def wrapped(method: int, message: bytes) -> bytes:
    """Return a message of StreamOrders, there or back."""
    size, length = len(message), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([STREAMED[method] << 3 | 2]) + length + bytes([size]) + message


class Watched:
    """The library's engine as streams read one: the orders too, as the reference shows them."""

    def __init__(self, runner: Runner, engine: Engine) -> None:
        self._runner = runner
        self._engine = engine
        self._orders: dict[int, Fields] = {}
        self._closed: dict[int, Order] = {}
        self._rows: list[Order] = []
        self._rows_revision = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def see(self, command: Command, outcome: Any) -> None:
        """Remember what an order is, from the command that sent or amended it."""
        if command[0] == "check":
            self._remember(command[1])
        if command[0] == "batch":
            for fields in command[2]:
                self._remember(fields)
        if command[0] == "amend" and isinstance(outcome, bytes):
            answer = pb.CheckAmendmentResponse.FromString(outcome).order
            if answer.decision == t.DECISION_ACCEPTED and answer.reservation_id in self._orders:
                names = ("trigger_price_ticks", "trailing_offset_ticks")
                changed = {name: command[1].get(name, 0) for name in names}
                self._orders[answer.reservation_id] |= changed

    def _remember(self, fields: Fields) -> None:
        key = fields["gateway_id"], fields["client_order_id"]
        reservation_id = self._runner.reservations.get(key)
        if reservation_id is not None:
            self._orders.setdefault(reservation_id, dict(fields))

    def working_orders(self) -> list[Order]:
        """Return the working orders in the order of their reservation ids."""
        if self._engine.revision != self._rows_revision:
            # What broken bytes came to is not known here, if they were an order after all.
            rows = [
                self._row(each, self._orders[each])
                for each in self._engine.working_reservations(SCOPE_SERVICE, 0, 10**6)
                if each in self._orders
            ]
            working = {each.reservation_id for each in rows}
            ended = [each for each in self._rows if each.reservation_id not in working]
            self._closed |= {each.reservation_id: each for each in ended}
            self._rows, self._rows_revision = rows, self._engine.revision
        return self._rows

    def closed_orders(self) -> list[Order]:
        """Return orders that worked when they were last looked at, and do not any more."""
        self.working_orders()
        return list(self._closed.values())[-100:]

    def _row(self, reservation_id: int, fields: Fields) -> Order:
        query = pb.GetReservationRequest(reservation_id=reservation_id).SerializeToString()
        now = pb.GetReservationResponse.FromString(self._engine.handle(GET_RESERVATION, query, 0))
        return Order(
            reservation_id=reservation_id,
            account_id=now.account_id,
            instrument_id=now.instrument_id,
            position_side=fields.get("position_side", 0),
            gateway_id=fields["gateway_id"],
            client_order_id=fields["client_order_id"],
            side=now.side,
            order_type=fields["order_type"],
            time_in_force=fields.get("time_in_force", 0),
            flags=fields.get("flags", 0),
            price_ticks=now.price_ticks,
            quantity=now.quantity_lots,
            remaining=now.remaining_lots,
            margin_price=0,
            open_loss=0,
            trigger_price=fields.get("trigger_price_ticks", 0),
            trailing_offset=fields.get("trailing_offset_ticks", 0),
            expire_ns=fields.get("expire_time_ns", 0),
            accepted_ns=0,
        )
