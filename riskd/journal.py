"""The records of a journal as Python values: what was asked of the engine, when and by whom.

Reading takes no lock, so a journal can be read while a service writes it. What a record's payload
holds is at the top of ext/riskd/core/engine.pyx.
"""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from riskd.core import engine
from riskd.core.journal import Scan, scan
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb

KIND_CHANGE = 64
# Reply checksum and reply size.
_HOT_HEAD = struct.Struct("<II")

_HOT: dict[int, tuple[str, type[Message]]] = {
    engine.METHOD_CHECK_ORDER: ("CheckOrder", orders_pb.CheckOrderRequest),
    engine.METHOD_REPORT_EXECUTION: ("ReportExecution", orders_pb.ReportExecutionRequest),
    engine.METHOD_REPORT_MARKS: ("ReportMarks", marks_pb.ReportMarksRequest),
    engine.METHOD_CHECK_AMENDMENT: ("CheckAmendment", orders_pb.CheckAmendmentRequest),
    engine.METHOD_BATCH_CHECK_ORDERS: ("BatchCheckOrders", orders_pb.BatchCheckOrdersRequest),
    engine.METHOD_ADVANCE_TIME: ("AdvanceTime", Empty),
}


NAMES: tuple[str, ...] = (*(name for name, _ in _HOT.values()), *engine.CHANGE_NAMES)
"""Every name that a record can have."""


class RecordError(ValueError):
    """A record is of a newer program, or no record of the engine's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of the engine's state.

    name is the method's: CheckOrder for a hot request, set_leverage for another change. actor is
    empty for hot requests, whose gateway is in the fields. fields are a request's as protobuf's
    JSON mapping has them (64-bit numbers are text there), a change's as they were given.
    """

    sequence: int
    time_ns: int
    revision: int
    name: str
    actor: str
    fields: dict[str, Any]

    def number(self, field: str) -> int | None:
        """Return a whole number that the request itself names, or None."""
        value = self.fields.get(field)
        return int(value) if isinstance(value, int | str) and str(value).isdecimal() else None

    def text(self) -> str:
        """Return one line for people: compact JSON after who and when."""
        return json.dumps(self.fields, separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of the journal; the records in it end before the next one's first."""

    first_sequence: int
    path: Path


def segments_of(directory: str | os.PathLike[str]) -> list[Segment]:
    """Return the journal's files by rising sequence; the last one may still be written."""
    found = [
        Segment(int(path.stem), path)
        for path in Path(directory).glob("*.journal")
        if len(path.stem) == 20 and path.stem.isdecimal()
    ]
    return sorted(found, key=lambda each: each.first_sequence)


def closed_sequence(segments: Sequence[Segment]) -> int:
    """Return the last record that is in a closed segment; 0 if there is none."""
    return segments[-1].first_sequence - 1 if segments else 0


class Record(NamedTuple):
    """A record as it is in the journal."""

    sequence: int
    time_ns: int
    revision: int
    kind: int
    payload: bytes


class Entries(Iterator[Entry]):
    """The records of a journal from a sequence on, or from the first one that is still there.

    Raises RecordError, JournalDamagedError and OSError. Ends at a torn tail.
    """

    def __init__(self, directory: str | os.PathLike[str], from_sequence: int | None = None) -> None:
        if from_sequence is None:
            segments = segments_of(directory)
            from_sequence = segments[0].first_sequence if segments else 1
        self.scan: Scan = scan(directory, from_sequence)

    def __iter__(self) -> "Entries":
        return self

    def __next__(self) -> Entry:
        sequence, time_ns, revision, kind, payload = next(self.scan)
        try:
            name, actor, fields = _decode(kind, payload)
        except (ValueError, KeyError, struct.error) as error:
            place = f"{self.scan.file} at byte {self.scan.offset}"
            raise RecordError(
                f"{place}: record {sequence} of kind {kind} cannot be read: {error!r}"
            ) from None
        return Entry(sequence, time_ns, revision, name, actor, fields)


def change_of(payload: bytes) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a change's record. Raises ValueError and KeyError."""
    change = json.loads(payload)
    return change["change"], change["arguments"]


def _decode(kind: int, payload: bytes) -> tuple[str, str, dict[str, Any]]:
    """Return (name, actor, fields)."""
    if kind == KIND_CHANGE:
        change = json.loads(payload)
        return change["change"], change["actor"], change["arguments"]
    name, message_type = _HOT[kind]
    _HOT_HEAD.unpack_from(payload)
    message = message_type.FromString(payload[_HOT_HEAD.size :])
    return name, "", MessageToDict(message, preserving_proto_field_name=True)
