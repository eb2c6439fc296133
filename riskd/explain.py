"""A decision made again: what was asked, the reply, and everything that it stood on.

The state just before it is that of the newest snapshot at or below and of the records that follow,
replayed into an engine that is thrown away. A replay holds the interpreter, and calls would wait
for it, so a service has a process of its own do it: `python -m riskd.explain DIRECTORY REVISION`.
"""

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from google.protobuf.message import Message

from riskd import __version__
from riskd.catalogue import Catalogue
from riskd.core import engine as core
from riskd.core.engine import Engine, ReplayError
from riskd.core.journal import JournalDamagedError, crc32c, scan
from riskd.core.snapshot import SnapshotInvalidError, snapshot_head, snapshot_paths
from riskd.journal import KIND_CHANGE, Record, change_of, segments_of
from riskd.services.messages import (
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    SCOPE_INSTRUMENT,
    SCOPE_SERVICE,
    Messages,
)
from riskd.v1 import audit_service_pb2 as pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2

EXPLAIN_S_MAX = 30.0

_HEAD = struct.Struct("<II")
# Below the service: nobody waits for an explanation as for a decision.
_NICE = 10


class _Status(IntEnum):
    """Exit status of the process."""

    DONE = 0
    FAILED = 1
    UNKNOWN = 3
    TOO_OLD = 4


class _Method(NamedTuple):
    """A hot method that decides: its field in DecidedRequest and DecidedReply, and its messages."""

    field: str
    request: type[Any]
    reply: type[Any]


_METHODS = {
    core.METHOD_CHECK_ORDER: _Method(
        "order", orders_pb.CheckOrderRequest, orders_pb.CheckOrderResponse
    ),
    core.METHOD_CHECK_AMENDMENT: _Method(
        "amendment", orders_pb.CheckAmendmentRequest, orders_pb.CheckAmendmentResponse
    ),
    core.METHOD_REPORT_EXECUTION: _Method(
        "execution", orders_pb.ReportExecutionRequest, orders_pb.ReportExecutionResponse
    ),
    core.METHOD_BATCH_CHECK_ORDERS: _Method(
        "batch", orders_pb.BatchCheckOrdersRequest, orders_pb.BatchCheckOrdersResponse
    ),
}


class DecisionUnknownError(LookupError):
    """The journal has no decision of that revision."""


class DecisionTooOldError(LookupError):
    """The journal does not reach back to the state that the decision was made on."""


class ExplainBusyError(Exception):
    """Another decision is being explained."""


class ExplainTimeoutError(TimeoutError):
    """The state of that time was not there in time."""


class ExplainFailedError(Exception):
    """The journal cannot be read or replayed: says why."""


def explain(directory: str | os.PathLike[str], revision: int) -> pb.ExplainDecisionResponse:
    """Make the decision of a revision again; the journal is only read, also of a running service.

    Raises DecisionUnknownError, DecisionTooOldError, and what Engine.recover raises.
    """
    record = _find(directory, revision)
    method = _METHODS[record.kind]
    size, checksum = _head(record)
    content = record.payload[_HEAD.size :]
    request = method.request.FromString(content)
    engine, versions = _state_before(directory, record)
    subjects = _subjects(engine, request, record.time_ns)
    inputs = _inputs(engine, subjects, record.time_ns)
    full_content = _full(request).SerializeToString()
    if record.kind == core.METHOD_CHECK_ORDER:
        full_reply = engine.handle(record.kind, full_content, record.time_ns)
    elif full_content == content:
        full_reply = b""
    else:
        # Only an order can be checked without its effects.
        other, _ = _state_before(directory, record)
        full_reply = other.handle(record.kind, full_content, record.time_ns)
    reply = engine.handle(record.kind, content, record.time_ns)
    if record.kind == core.METHOD_BATCH_CHECK_ORDERS and _verdicts(full_reply) != _verdicts(reply):
        # An order that repeats a remembered one is another request in another view.
        full_reply = reply
    return pb.ExplainDecisionResponse(
        revision=record.revision,
        time_ns=record.time_ns,
        request=pb.DecidedRequest(**{method.field: request}),
        reply=pb.DecidedReply(**{method.field: method.reply.FromString(reply)}),
        recomputed=pb.DecidedReply(**{method.field: method.reply.FromString(full_reply or reply)}),
        equal=(len(reply), crc32c(reply)) == (size, checksum),
        inputs=inputs,
        versions=versions,
        reply_bytes=reply,
        instrument_id=subjects.of_order,
    )


def _verdicts(reply: bytes) -> list[tuple[int, int]]:
    batch = orders_pb.BatchCheckOrdersResponse.FromString(reply)
    return [(each.decision, each.reason) for each in batch.decisions]


def _head(record: Record) -> tuple[int, int]:
    """Return size and checksum of the reply that was sent."""
    checksum, size = _HEAD.unpack_from(record.payload)
    return size, checksum


def _find(directory: str | os.PathLike[str], revision: int) -> Record:
    """Return the record of a decision."""
    segments = segments_of(directory)
    first = segments[0].first_sequence if segments else 1
    oldest = None
    start = None
    for sequence, path in snapshot_paths(directory):
        try:
            oldest = snapshot_head(path).revision
        except SnapshotInvalidError:
            continue
        if oldest < revision:
            start = max(first, sequence + 1)
            break
    if start is None and first > 1:
        reach = "no snapshot can be used" if oldest is None else f"it reaches back to {oldest + 1}"
        raise DecisionTooOldError(
            f"revision {revision}: the journal begins with record {first}, and {reach}"
        )
    for record in map(Record._make, scan(directory, start or first)):
        if record.revision < revision:
            continue
        if record.kind not in _METHODS:
            what = "no order, amendment or execution"
            if record.kind == KIND_CHANGE:
                what = f"the change {change_of(record.payload)[0]}"
            raise DecisionUnknownError(f"revision {revision} is {what}, no decision")
        return record
    raise DecisionUnknownError(f"revision {revision}: the journal has none so high")


def _state_before(
    directory: str | os.PathLike[str], record: Record
) -> tuple[Engine, list[pb.NamedValue]]:
    # As small as can be: the first record, or a snapshot, has the capacities.
    engine = Engine(accounts_max=1, positions_max=1, orders_max=1, answer_bytes=4096)
    replay = engine.recover(directory, until_sequence=record.sequence - 1, accept_differences=True)
    versions = [pb.NamedValue(name="recomputed", value=__version__)]
    if replay.snapshot is not None:
        version = snapshot_head(replay.snapshot).program_version
        versions.append(pb.NamedValue(name="snapshot", value=version))
    return engine, versions


def _full(request: Message) -> Message:
    """Return the same in the FULL view; an order that reserves nothing."""
    copy = type(request)()
    copy.CopyFrom(request)
    if isinstance(copy, orders_pb.CheckOrderRequest):
        copy.mode = orders_pb.CHECK_MODE_CHECK_ONLY
        copy.view = orders_pb.DECISION_VIEW_FULL
    elif isinstance(copy, orders_pb.CheckAmendmentRequest):
        copy.view = orders_pb.DECISION_VIEW_FULL
    elif isinstance(copy, orders_pb.BatchCheckOrdersRequest):
        for order in copy.orders:
            order.view = orders_pb.DECISION_VIEW_FULL
    return copy


# --- what it stood on -----------------------------------------------------------------------------


@dataclass
class _Subjects:
    """Whom and what a request names. Keys only: their order is that of the request."""

    accounts: dict[int, None] = field(default_factory=dict)
    gateways: dict[int, None] = field(default_factory=dict)
    instruments: dict[int, None] = field(default_factory=dict)
    of_order: int = 0
    """The instrument that the request does not name itself, but the order that it is about."""

    def add(self, account_id: int, gateway_id: int, instrument_id: int) -> None:
        self.accounts[account_id] = None
        self.gateways[gateway_id] = None
        self.instruments[instrument_id] = None


def _subjects(engine: Engine, request: Message, time_ns: int) -> _Subjects:
    found = _Subjects()
    match request:
        case orders_pb.CheckOrderRequest():
            found.add(request.account_id, request.gateway_id, request.instrument_id)
        case orders_pb.BatchCheckOrdersRequest():
            for order in request.orders:
                found.add(order.account_id, order.gateway_id, order.instrument_id)
        case orders_pb.CheckAmendmentRequest() | orders_pb.ReportExecutionRequest():
            question = orders_pb.GetReservationRequest(reservation_id=request.reservation_id)
            held = orders_pb.GetReservationResponse.FromString(
                engine.handle(core.METHOD_GET_RESERVATION, question.SerializeToString(), time_ns)
            )
            found.add(held.account_id, request.gateway_id, held.instrument_id)
            found.of_order = held.instrument_id
    return found


def _inputs(engine: Engine, subjects: _Subjects, time_ns: int) -> pb.DecisionInputs:
    """Return what is there of whom and what a request names: it can name what is not."""
    messages = Messages(engine, Catalogue(engine))
    inputs = pb.DecisionInputs(revision=engine.revision)
    named = [row for each in subjects.accounts if (row := engine.account(each)) is not None]
    parents = {row.parent_account_id: None for row in named if row.parent_account_id}
    above = [row for each in parents if (row := engine.account(each)) is not None]
    instruments = dict(subjects.instruments)
    for account in named:
        positions = messages.positions(account.account_id)
        inputs.positions.extend(positions)
        instruments |= {row.instrument_id: None for row in positions}
    accounts = {row.account_id: row for row in (*named, *above)}
    inputs.accounts.extend(messages.account(row) for row in accounts.values())
    _add_market(inputs, engine, messages, instruments)
    scopes = {
        SCOPE_ACCOUNT: set(accounts),
        SCOPE_FIRM: {row.firm_id for row in accounts.values() if row.firm_id},
        SCOPE_GATEWAY: set(subjects.gateways),
        SCOPE_INSTRUMENT: {row.instrument_id for row in inputs.instruments},
        SCOPE_SERVICE: {0},
    }
    inputs.limits.extend(
        messages.limit(row, time_ns)
        for row in engine.limits()
        if row.scope_id in scopes.get(row.scope, ())
    )
    for scope, scope_id, state in engine.trading_states():
        if scope_id in scopes.get(scope, ()):
            inputs.trading_states.add(
                scope=messages.scope(scope, scope_id),
                trading_state=types_pb2.TradingState.ValueType(state),
            )
    return inputs


def _add_market(
    inputs: pb.DecisionInputs, engine: Engine, messages: Messages, wanted: Iterable[int]
) -> None:
    held = {row.instrument_id: row for row in engine.instruments()}
    found = {each: held[each] for each in wanted if each in held}
    for row in list(found.values()):
        if row.underlying_id in held:
            found.setdefault(row.underlying_id, held[row.underlying_id])
    schedules = {row.schedule_id for row in found.values()}
    inputs.instruments.extend(messages.instrument(row) for row in found.values())
    marks = [mark for each in found if (mark := engine.mark(each)) is not None]
    inputs.marks.extend(messages.mark(mark) for mark in marks)
    inputs.schedules.extend(
        messages.schedule(row) for row in engine.schedules() if row.schedule_id in schedules
    )


# --- in a process of its own ----------------------------------------------------------------------


class Explainer:
    """Has decisions explained beside the service, one at a time. Thread-safe."""

    def __init__(self, directory: str, seconds_max: float = EXPLAIN_S_MAX) -> None:
        self._directory = directory
        self._seconds_max = seconds_max
        self._busy = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def explain(self, revision: int) -> pb.ExplainDecisionResponse:
        """Return what `explain` returns, and raise its errors.

        Raises also ExplainBusyError, ExplainTimeoutError, and ExplainFailedError for a journal that
        cannot be read.
        """
        if not self._busy.acquire(blocking=False):
            raise ExplainBusyError
        try:
            return self._run(revision)
        finally:
            self._process = None
            self._busy.release()

    def stop(self) -> None:
        """End the process that is at work, if there is one."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.kill()

    def _run(self, revision: int) -> pb.ExplainDecisionResponse:
        process = subprocess.Popen(
            [sys.executable, "-m", "riskd.explain", self._directory, str(revision)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._process = process
        if self._stopping.is_set():
            process.kill()
        try:
            output, complaint = process.communicate(timeout=self._seconds_max)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise ExplainTimeoutError(
                f"revision {revision}: the state of that time was not there within"
                f" {self._seconds_max:g} s; more frequent snapshots (snapshot_every_bytes) help"
            ) from None
        text = complaint.decode(errors="replace").strip()
        match process.returncode:
            case _Status.DONE:
                return pb.ExplainDecisionResponse.FromString(output)
            case _Status.UNKNOWN:
                raise DecisionUnknownError(text)
            case _Status.TOO_OLD:
                raise DecisionTooOldError(text)
        raise ExplainFailedError(f"exit status {process.returncode}: {text[-2000:]}")


def main() -> int:
    """Write the explanation to standard output as bytes; the exit status says what went wrong."""
    os.nice(_NICE)
    directory, revision = sys.argv[1:]
    try:
        explanation = explain(directory, int(revision))
    except DecisionUnknownError as error:
        status, text = _Status.UNKNOWN, str(error)
    except DecisionTooOldError as error:
        status, text = _Status.TOO_OLD, str(error)
    except (JournalDamagedError, MemoryError, OSError, ReplayError, ValueError) as error:
        status, text = _Status.FAILED, str(error)
    else:
        sys.stdout.buffer.write(explanation.SerializeToString())
        return _Status.DONE
    print(text, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
