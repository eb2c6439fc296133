"""Every byte of a journal cut off, every bit of it flipped: what the engine then starts with.

The longest valid prefix if the tail is torn, nothing and where the damage is if it is in the
middle, and never a state that was not there. `test_journal.py` does the same for records without a
meaning; here they are commands, and what counts is the state that comes out.
RISKD_RECOVERY_BITS says how many bits of each byte are flipped, one after the other.
"""

import itertools
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from riskd.core.engine import (
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    Engine,
)
from riskd.core.journal import JournalDamagedError
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2

BITS = int(os.environ.get("RISKD_RECOVERY_BITS", "8"))
HEAD = 40
NOW_NS = 1_700_000_000 * 10**9
BUFFER_BYTES = 1024
SEGMENT_BYTES = 1900
RECORDS = 25
# In the second segment.
SNAPSHOT_SEQUENCE = 20
# All as small as it goes: what is left out takes tens of megabytes of each of thousands of engines.
SETTINGS = {
    "accounts_max": 4,
    "positions_max": 8,
    "orders_max": 64,
    "instruments_max": 2,
    "schedules_max": 2,
    "gateways_max": 2,
    "balances_max": 4,
    "firms_max": 2,
    "limits_max": 2,
    "holdings_max": 2,
    "answer_bytes": 1 << 14,
}


class State(NamedTuple):
    """What is compared: by it a prefix is known."""

    revision: int
    state_hash: str
    answers_hash: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A journal of two segments, where its records lie, and the state after each."""

    directory: Path
    # Name and whole content.
    segments: list[tuple[str, bytes]]
    # Where each record of a segment begins, and where the last one ends.
    offsets: list[list[int]]
    # states[n] is that after n records.
    states: list[State]
    # Name and content of one that stands beside it.
    snapshot: tuple[str, bytes]

    def count_before(self, segment: int) -> int:
        """Return how many records the segments before this one have."""
        return sum(len(offsets) - 1 for offsets in self.offsets[:segment])


def state_of(engine: Engine) -> State:
    return State(engine.revision, engine.state_hash(), engine.answers_hash())


def commands(engine: Engine) -> Iterator[None]:
    """Run a few dozen commands, each of which becomes a record; stop after each."""
    engine.create_asset("USDT", 6)
    yield
    engine.upsert_schedule("FLAT", 1, [(0, 20_000_000, 10_000_000, 2000)])
    yield
    engine.upsert_instrument("PERP", 1, 1, 1, 1, -1, 1, 0)
    yield
    for account_id in (1, 2):
        engine.create_account(account_id, 1, account_id, 1000, 10**12)
        yield
    mark = marks_pb.Mark(instrument_id=1, mark_price=10_000, time_ns=NOW_NS)
    batch = marks_pb.ReportMarksRequest(marks=[mark])
    engine.handle(METHOD_REPORT_MARKS, batch.SerializeToString(), NOW_NS)
    yield
    for number in range(1, 7):
        order = orders_pb.CheckOrderRequest(
            account_id=1 + number % 2,
            instrument_id=1,
            client_order_id=number,
            gateway_id=1,
            side=types_pb2.SIDE_BUY,
            order_type=types_pb2.ORDER_TYPE_LIMIT,
            price_ticks=10_000 + number,
            quantity_lots=number if number % 5 else 10**9,
        )
        content = engine.handle(METHOD_CHECK_ORDER, order.SerializeToString(), NOW_NS + number)
        yield
        reservation_id = orders_pb.CheckOrderResponse.FromString(content).reservation_id
        amendment = orders_pb.CheckAmendmentRequest(
            gateway_id=1,
            reservation_id=reservation_id,
            client_order_id=number,
            price_ticks=9_990,
            quantity_lots=2 * number,
        )
        engine.handle(METHOD_CHECK_AMENDMENT, amendment.SerializeToString(), NOW_NS + number)
        yield
        fill = orders_pb.ReportExecutionRequest(
            gateway_id=1,
            reservation_id=reservation_id,
            execution_id=number,
            kind=orders_pb.EXECUTION_KIND_FILL,
            price_ticks=9_990,
            quantity_lots=1,
            fee_minor=number,
        )
        engine.handle(METHOD_REPORT_EXECUTION, fill.SerializeToString(), NOW_NS + number)
        yield


def opened(directory: Path) -> Engine:
    engine = Engine(**SETTINGS)
    engine.open_journal(directory, segment_bytes=SEGMENT_BYTES, buffer_bytes=BUFFER_BYTES)
    return engine


def record_offsets(content: bytes) -> list[int]:
    offsets = [HEAD]
    while offsets[-1] < len(content):
        (size,) = struct.unpack_from("<I", content, offsets[-1] + 4)
        offsets.append(offsets[-1] + (HEAD + size + 7) // 8 * 8)
    return offsets


@pytest.fixture(scope="module")
def sample() -> Iterator[Sample]:
    # In memory where there is such a directory: thousands of journals are opened.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="riskd-recovery-", dir=memory))
    journaled, plain = opened(directory), Engine(**SETTINGS)
    # The first record is the empty book.
    states = [state_of(plain)] * 2
    for _ in zip(commands(journaled), commands(plain), strict=True):
        states.append(state_of(plain))
        assert state_of(journaled) == states[-1]
    journaled.close_journal()
    segments = [(each.name, each.read_bytes()) for each in sorted(directory.glob("*.journal"))]
    offsets = [record_offsets(content) for _, content in segments]
    assert [offset[-1] for offset in offsets] == [len(content) for _, content in segments]
    assert len(segments) == 2
    assert len(states) == 1 + sum(len(each) - 1 for each in offsets) == RECORDS + 1
    assert len(set(states)) == len(states) - 1
    reader = Engine(**SETTINGS)
    reader.recover(directory, until_sequence=SNAPSHOT_SEQUENCE)
    path = Path(reader.write_snapshot(directory))
    snapshot = (path.name, path.read_bytes())
    yield Sample(directory, segments, offsets, states, snapshot)
    shutil.rmtree(directory)


def recovered(sample: Sample, files: dict[str, bytes]) -> Engine | JournalDamagedError:
    """Start with just these files; return the engine, or why it does not start."""
    for path in sample.directory.iterdir():
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        (sample.directory / name).write_bytes(content)
    try:
        return opened(sample.directory)
    except JournalDamagedError as damage:
        # Nothing is changed then.
        for name, content in files.items():
            assert (sample.directory / name).read_bytes() == content
        return damage


def recovered_state(sample: Sample, files: dict[str, bytes]) -> State | JournalDamagedError:
    outcome = recovered(sample, files)
    if isinstance(outcome, JournalDamagedError):
        return outcome
    state = state_of(outcome)
    outcome.close_journal()
    return state


def files_with(
    sample: Sample, segment: int, content: bytes, has_snapshot: bool
) -> dict[str, bytes]:
    files = dict(sample.segments) | {sample.segments[segment][0]: content}
    return files | dict([sample.snapshot]) if has_snapshot else files


@pytest.mark.parametrize("has_snapshot", [False, True])
def test_every_cut_of_the_last_segment_gives_the_records_before_it(
    sample: Sample, has_snapshot: bool
) -> None:
    """And what is done then goes on from there. But never less than there was at a snapshot."""
    _, content = sample.segments[1]
    for size in range(len(content) + 1):
        whole = sum(end <= size for end in sample.offsets[1][1:])
        count = sample.count_before(1) + whole
        files = files_with(sample, 1, content[:size], has_snapshot)
        outcome = recovered(sample, files)
        if has_snapshot and count < SNAPSHOT_SEQUENCE:
            assert isinstance(outcome, JournalDamagedError), size
            assert Path(outcome.file).parent == sample.directory
            continue
        assert isinstance(outcome, Engine), size
        assert state_of(outcome) == sample.states[count], size
        outcome.create_account(3, 1, 1, 1000, 1)
        after = state_of(outcome)
        outcome.close_journal()
        again = opened(sample.directory)
        assert state_of(again) == after, size
        again.close_journal()


def test_every_cut_of_an_earlier_segment_is_refused(sample: Sample) -> None:
    name, content = sample.segments[0]
    for size in range(len(content)):
        outcome = recovered_state(sample, files_with(sample, 0, content[:size], False))
        assert isinstance(outcome, JournalDamagedError), size
        assert Path(outcome.file) == sample.directory / name
        begun = [offset for offset in sample.offsets[0] if offset <= size]
        assert outcome.offset == (begun[-1] if begun else 0), size


@pytest.mark.parametrize(("has_snapshot", "bits"), [(False, BITS), (True, 1)])
def test_every_flipped_bit_is_found(sample: Sample, has_snapshot: bool, bits: int) -> None:
    """In the last record it looks like a torn write, anywhere else it is damage, with its place."""
    for segment, (name, content) in enumerate(sample.segments):
        offsets = sample.offsets[segment]
        for place, number in itertools.product(range(len(content)), range(bits)):
            bit = (place + number) % 8
            begun = [offset for offset in offsets if offset <= place]
            files = files_with(sample, segment, flipped(content, place, bit), has_snapshot)
            outcome = recovered_state(sample, files)
            if segment == 1 and place >= offsets[-2]:
                assert outcome == sample.states[-2], (place, bit)
                continue
            assert isinstance(outcome, JournalDamagedError), (segment, place, bit)
            assert Path(outcome.file) == sample.directory / name
            # In the header, the place of the wrong field, or of all of it.
            assert outcome.offset == begun[-1] if begun else outcome.offset <= place, place


def test_a_snapshot_that_is_not_whole_is_not_used(sample: Sample) -> None:
    """The journal is, if it reaches back; else nothing is: no byte of it goes unnoticed."""
    name, content = sample.snapshot
    cuts = [content[:size] for size in range(0, len(content), 32)]
    flips = [flipped(content, place, place % 8) for place in range(len(content))]
    newest = dict(sample.segments[1:])
    assert recovered_state(sample, dict([*sample.segments, sample.snapshot])) == sample.states[-1]
    for damaged in (*cuts, *flips):
        (sample.directory / name).write_bytes(damaged)
        reader = Engine(**SETTINGS)
        replay = reader.recover(sample.directory)
        assert replay.snapshot is None
        assert len(replay.refused_snapshots) == 1
        assert state_of(reader) == sample.states[-1]
    for damaged in (cuts[0], cuts[-1], *flips[::97]):
        outcome = recovered_state(sample, newest | {name: damaged})
        assert isinstance(outcome, JournalDamagedError)
        assert "is missing" in outcome.reason
    assert recovered_state(sample, newest | {name: content}) == sample.states[-1]


def flipped(content: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)
