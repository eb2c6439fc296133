"""Snapshots: what is read back is what was written, or nothing is taken from it."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riskd.core.engine import Engine
from riskd.core.journal import JournalDamagedError, crc32c
from riskd.core.snapshot import SnapshotInvalidError, snapshot_head, snapshot_paths
from riskd.reference import ReferenceEngine
from tests.differential.limit_streams import LimitStream
from tests.differential.streams import Command, Runner, Stream
from tests.unit.desk import SIZES, Desk, reservation_in

HEAD = struct.Struct("<8sIIQQQII32sQI")
SECTION = struct.Struct("<16sIIIIQQIQ")
# Segments and buffers so small that a few hundred records fill several.
JOURNAL: dict[str, Any] = {
    "durability": "process",
    "segment_bytes": 40 + (1 << 14),
    "buffer_bytes": 1 << 14,
}


def commands_of(stream: Stream | LimitStream, count: int) -> list[Command]:
    """Return commands of a stream, as a mirror makes it send them."""
    mirror = Runner(ReferenceEngine(**stream.settings))
    commands = []
    for _ in range(count):
        commands.append(stream.next(mirror.engine))
        mirror.run(commands[-1])
    return commands


def recovered(directory: Path, **rest: Any) -> Engine:
    engine = Engine(**SIZES)
    engine.recover(directory, **rest)
    return engine


def seen(engine: Engine) -> tuple[Any, ...]:
    return engine.revision, engine.state_hash(), engine.answers_hash(), engine.capacities()


class Kept:
    """A desk whose journal is kept, and what was there when it was closed."""

    def __init__(self, directory: Path, orders: int = 3) -> None:
        self.directory = directory
        engine = Engine(**SIZES)
        engine.open_journal(directory, **JOURNAL)
        self.desk = Desk(engine)
        self.reservations = [
            reservation_in(self.desk.order(1, number)) for number in range(1, orders + 1)
        ]
        self.desk.fill(1, 1, self.reservations[0], 4)
        self.desk.cancel(1, 2, self.reservations[1])
        self.seen = seen(engine)
        engine.close_journal()

    def snapshot(self, until_sequence: int | None = None) -> Path:
        engine = recovered(self.directory, until_sequence=until_sequence)
        return Path(engine.write_snapshot(self.directory))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


# --- Round trip -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Stream, LimitStream])
@pytest.mark.parametrize("seed", range(3))
def test_a_snapshot_and_its_tail_are_as_good_as_the_whole_journal(
    kind: type[Stream] | type[LimitStream], seed: int, tmp_path: Path
) -> None:
    """State, answers and capacities are the same, and so is every reply from there on."""
    stream = kind(seed)
    commands = commands_of(stream, 1500)
    engine = Engine(**stream.settings)
    engine.open_journal(tmp_path, **JOURNAL)
    live = Runner(engine)
    for command in commands[:1200]:
        live.run(command)
    last = engine.durable_sequence
    engine.close_journal()
    recovered(tmp_path, until_sequence=last // 2).write_snapshot(tmp_path)

    replayed = Engine(**SIZES)
    assert replayed.recover(tmp_path).snapshot == str(tmp_path / f"{last // 2:020}.snapshot")
    Path(snapshot_paths(tmp_path)[0][1]).rename(tmp_path / "elsewhere")
    whole = Engine(**SIZES)
    assert whole.recover(tmp_path).snapshot is None
    assert seen(replayed) == seen(whole)
    ours, theirs = Runner(replayed), Runner(whole)
    ours.reservations = dict(live.reservations)
    theirs.reservations = dict(live.reservations)
    # Repeats of what was answered, then what is new.
    for command in commands[900:]:
        assert ours.run(command) == theirs.run(command), command
    assert seen(replayed) == seen(whole)


@pytest.mark.parametrize("kind", [Stream, LimitStream])
def test_a_snapshot_of_a_snapshot_is_the_same_file(
    kind: type[Stream] | type[LimitStream], tmp_path: Path
) -> None:
    """Places and free places are kept as they were, so only the history decides the bytes."""
    stream = kind(2)
    engine = Engine(**stream.settings)
    engine.open_journal(tmp_path, **JOURNAL)
    live = Runner(engine)
    for command in commands_of(stream, 1200):
        live.run(command)
    last = engine.durable_sequence
    engine.close_journal()
    path = Path(recovered(tmp_path).write_snapshot(tmp_path))
    whole = path.read_bytes()
    path.unlink()
    recovered(tmp_path, until_sequence=last // 3).write_snapshot(tmp_path)
    assert Path(recovered(tmp_path).write_snapshot(tmp_path)) == path
    assert path.read_bytes() == whole


def test_an_engine_goes_on_where_its_snapshot_ends(kept: Kept) -> None:
    kept.snapshot()
    engine = Engine(**SIZES)
    replay = engine.open_journal(kept.directory, **JOURNAL)
    assert (replay.records, replay.refused_snapshots) == (0, ())
    assert replay.snapshot is not None
    assert seen(engine) == kept.seen
    desk = Desk(engine, fills=False)
    desk.fill(1, 3, kept.reservations[2], 1)
    before = seen(engine)
    engine.close_journal()
    assert seen(recovered(kept.directory)) == before
    # Definitions can be told from others by name again.
    assert recovered(kept.directory).create_asset("USDT", 6)[0] != 1


def test_a_snapshot_head_says_what_it_stands_for(kept: Kept) -> None:
    path = kept.snapshot()
    head = snapshot_head(path)
    assert (head.revision, f"{head.sequence:020}.snapshot") == (kept.seen[0], path.name)
    assert head.size_bytes == path.stat().st_size


def test_only_what_was_read_back_can_be_a_snapshot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read back"):
        Desk().engine.write_snapshot(tmp_path)
    engine = Engine(**SIZES)
    engine.open_journal(tmp_path, **JOURNAL)
    with pytest.raises(ValueError, match="read back"):
        engine.write_snapshot(tmp_path)
    with pytest.raises(ValueError, match="new engine"):
        engine.recover(tmp_path)
    engine.close_journal()
    assert snapshot_paths(tmp_path) == []


# --- Damage ---------------------------------------------------------------------------------------


def test_each_flipped_byte_is_found_and_the_one_before_is_taken(tmp_path: Path) -> None:
    kept = Kept(tmp_path, orders=2)
    older = kept.snapshot(until_sequence=4)
    newest = kept.snapshot()
    content = newest.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        newest.write_bytes(damaged)
        engine = Engine(**SIZES)
        replay = engine.recover(tmp_path)
        assert replay.snapshot == str(older), place
        assert len(replay.refused_snapshots) == 1
        assert replay.refused_snapshots[0].startswith(f"{newest}: "), place
        assert engine.revision == kept.seen[0], place
        if place % 50 == 0:
            assert seen(engine) == kept.seen, place


def test_each_cut_is_found(tmp_path: Path) -> None:
    kept = Kept(tmp_path, orders=2)
    newest = kept.snapshot()
    content = newest.read_bytes()
    for size in [*range(200), *range(200, len(content), 7), len(content) - 1]:
        newest.write_bytes(content[:size])
        engine = Engine(**SIZES)
        replay = engine.recover(tmp_path)
        assert (replay.snapshot, len(replay.refused_snapshots)) == (None, 1), size
        assert seen(engine) == kept.seen, size
    newest.write_bytes(content + b"\0")
    assert Engine(**SIZES).recover(tmp_path).snapshot is None


def test_damage_without_another_way_is_an_error(kept: Kept) -> None:
    """Nothing is made up: the journal's beginning is gone, and so is what stood for it."""
    path = kept.snapshot()
    for segment in kept.directory.glob("*.journal"):
        segment.unlink()
    with pytest.raises(JournalDamagedError, match="ends before record"):
        Engine(**SIZES).recover(kept.directory)
    path.unlink()
    engine = Engine(**SIZES)
    assert engine.recover(kept.directory).records == 0
    assert engine.revision == 0


def test_a_snapshot_of_another_journal_is_not_taken(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    other = Kept(first, orders=4).snapshot(until_sequence=8)
    kept = Kept(second, orders=3)
    (second / other.name).write_bytes(other.read_bytes())
    engine = Engine(**SIZES)
    replay = engine.recover(second)
    assert replay.snapshot is not None or "another journal" in replay.refused_snapshots[0]
    assert seen(engine) == kept.seen


def test_a_snapshot_with_another_name_is_not_taken(kept: Kept) -> None:
    path = kept.snapshot()
    path.rename(path.with_name(f"{3:020}.snapshot"))
    engine = Engine(**SIZES)
    (reason,) = engine.recover(kept.directory).refused_snapshots
    assert "it is of record" in reason
    assert seen(engine) == kept.seen


def test_what_a_crash_leaves_before_the_name_is_not_looked_at(kept: Kept) -> None:
    path = kept.snapshot()
    temporary = path.with_name(path.name + ".tmp")
    path.rename(temporary)
    engine = Engine(**SIZES)
    replay = engine.recover(kept.directory)
    assert (replay.snapshot, replay.refused_snapshots) == (None, ())
    # The next one takes its place.
    assert kept.snapshot() == path
    assert not temporary.exists()


# --- Versions -------------------------------------------------------------------------------------


class Edited:
    """A snapshot taken apart, to be put together as another program would have written it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes()
        self.head = list(HEAD.unpack_from(content))
        self.sections: list[tuple[list[Any], bytes]] = []
        offset = HEAD.size + 4
        for _ in range(self.head[2]):
            fields = list(SECTION.unpack_from(content, offset))
            offset += SECTION.size + 4
            self.sections.append((fields, content[offset : offset + fields[6]]))
            offset += fields[6]

    def resize_entries(self, name: bytes, change: int) -> None:
        """Cut bytes, all zero, from each entry of a table, or put some behind it."""
        for index, (fields, content) in enumerate(self.sections):
            if fields[0].rstrip(b"\0") != name:
                continue
            size = fields[1]
            entries = [content[place : place + size] for place in range(0, len(content), size)]
            if change < 0:
                assert all(not any(entry[change:]) for entry in entries)
            resized = b"".join(
                (entry + bytes(max(0, change)))[: size + change] for entry in entries
            )
            fields[1] = size + change
            self.sections[index] = (fields, resized)

    def cut_answers(self, size: int) -> None:
        """Cut bytes, all zero, from the end of each answer's head."""
        for index, (fields, content) in enumerate(self.sections):
            if fields[0].rstrip(b"\0") != b"answers":
                continue
            cut, offset = b"", 0
            for _ in range(fields[5]):
                (reply_size,) = struct.unpack_from("<I", content, offset + 16)
                kept = fields[1] - size
                assert not any(content[offset + kept : offset + fields[1]])
                cut += content[offset : offset + kept]
                cut += content[offset + fields[1] : offset + fields[1] + reply_size]
                offset += fields[1] + reply_size
            fields[1] -= size
            self.sections[index] = (fields, cut)

    def write(self) -> None:
        heads = []
        for fields, content in self.sections:
            fields[6:8] = [len(content), crc32c(content)]
            head = SECTION.pack(*fields)
            heads.append(head + crc32c(head).to_bytes(4, "little"))
        self.head[2] = len(heads)
        size = HEAD.size + 4 + sum(map(len, heads)) + 16
        self.head[9] = size + sum(len(content) for _, content in self.sections)
        packed = HEAD.pack(*self.head)
        packed += crc32c(packed).to_bytes(4, "little")
        end = struct.pack("<8sII", b"RISKDEND", crc32c(packed + b"".join(heads)), 0)
        bodies = [head + content for head, (_, content) in zip(heads, self.sections, strict=True)]
        self.path.write_bytes(packed + b"".join(bodies) + end)


def test_putting_a_snapshot_together_again_gives_the_same_file(kept: Kept) -> None:
    """So what follows tests the program and not the test."""
    path = kept.snapshot()
    content = path.read_bytes()
    Edited(path).write()
    assert path.read_bytes() == content


def test_smaller_entries_of_an_older_program_get_zeros_behind_them(kept: Kept) -> None:
    edited = Edited(kept.snapshot())
    for name, size in ((b"schedules", 8), (b"instruments", 16), (b"assets", 8), (b"book", 4)):
        edited.resize_entries(name, -size)
    edited.cut_answers(4)
    edited.write()
    engine = Engine(**SIZES)
    replay = engine.recover(kept.directory)
    assert replay.refused_snapshots == ()
    assert (replay.snapshot, replay.records) == (str(edited.path), 0)
    assert seen(engine) == kept.seen
    # A repeat, whose content is compared with what was kept.
    assert reservation_in(Desk(engine, fills=False).order(1, 3)) == kept.reservations[2]
    assert seen(engine) == kept.seen


def add_section(edited: Edited) -> None:
    edited.sections.append(([b"weather", 8, 1, 1, 0xFFFFFFFF, 1, 8, 0, 0], bytes(8)))


def double_section(edited: Edited) -> None:
    edited.sections.append(edited.sections[1])


def point_order_nowhere(edited: Edited) -> None:
    for index, (fields, content) in enumerate(edited.sections):
        if fields[0].rstrip(b"\0") == b"positions":
            edited.sections[index] = (fields, bytes(len(content)))


def raise_format(edited: Edited) -> None:
    edited.head[1] = 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda edited: edited.resize_entries(b"accounts", 8), "of a newer program"),
        (add_section, "section weather is not known: of a newer program"),
        (double_section, "section assets is there twice"),
        (raise_format, "its format is 2, of .*; this program reads 1"),
        (lambda edited: edited.sections.pop(0), "section book is missing"),
        (point_order_nowhere, "a table's count is not that of its entries"),
        (lambda edited: edited.sections[1][0].__setitem__(3, 0), "has free places"),
        (lambda edited: edited.sections[1][0].__setitem__(2, 0), "more than it has room for"),
    ],
)
def test_what_a_newer_or_broken_program_wrote_is_refused(
    kept: Kept, change: Callable[[Edited], None], reason: str
) -> None:
    edited = Edited(kept.snapshot())
    change(edited)
    edited.write()
    engine = Engine(**SIZES)
    (refusal,) = engine.recover(kept.directory).refused_snapshots
    assert str(edited.path) in refusal
    assert re.search(reason, refusal)
    assert seen(engine) == kept.seen


def test_the_head_of_what_is_no_snapshot_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / f"{7:020}.snapshot"
    path.write_bytes(b"x" * 500)
    with pytest.raises(SnapshotInvalidError, match="does not begin as a snapshot") as caught:
        snapshot_head(path)
    assert caught.value.file == str(path)
