"""The journal keeps what it promised, finds every byte that changed, and invents nothing."""

import errno
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riskd.core.journal import (
    Faults,
    Journal,
    JournalClosedError,
    JournalDamagedError,
    JournalFailedError,
    JournalFullError,
    Torn,
    crc32c,
    has_hardware_crc32c,
    repair,
    scan,
)

Record = tuple[int, int, int, int, bytes]
Durability = Literal["process", "machine"]

HEAD = 40
BOTH: list[Durability] = ["process", "machine"]


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.journal"))


def record_offsets(segment: Path) -> list[int]:
    """Return where each record of a whole segment begins, and where the last one ends."""
    content = segment.read_bytes()
    offsets = [HEAD]
    while offsets[-1] < len(content):
        (size,) = struct.unpack_from("<I", content, offsets[-1] + 4)
        offsets.append(offsets[-1] + (HEAD + size + 7) // 8 * 8)
    return offsets


def read_prefix(directory: Path) -> tuple[list[Record], Torn | JournalDamagedError | None]:
    """Return all records that a scan gives, and what it ended at."""
    records = []
    reader = scan(directory)
    try:
        for record in reader:
            records.append(record)
    except JournalDamagedError as damage:
        return records, damage
    return records, reader.torn


def appended(journal: Journal, number: int, payload: bytes) -> Record:
    sequence = journal.append(number % 5, 1_000 + number, 7 * number, payload)
    return sequence, 1_000 + number, 7 * number, number % 5, payload


class Sample(NamedTuple):
    directory: Path
    records: list[Record]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Six records in two segments, three in each."""
    directory = tmp_path_factory.mktemp("journal") / "sample"
    records = []
    # Room for three records of 64 bytes.
    with Journal.open(directory, segment_bytes=HEAD + 3 * 64, buffer_bytes=64) as journal:
        for number in range(1, 7):
            records.append(appended(journal, number, bytes(range(17, 17 + number + 16))))
            journal.wait(number)
    assert [path.name for path in segments(directory)] == [
        "00000000000000000001.journal",
        "00000000000000000004.journal",
    ]
    return Sample(directory, records)


@pytest.fixture
def copy(sample: Sample, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample.directory, tmp_path / "copy"))


# --- checksums -------------------------------------------------------------------------------


@pytest.mark.parametrize("hardware", [False, True])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # RFC 3720, B.4; the last is the check value of the catalogue of parametrised CRCs.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_is_that_of_the_rfc(content: bytes, expected: int, hardware: bool) -> None:
    if hardware and not has_hardware_crc32c():
        pytest.skip("the processor has no CRC-32C instruction")
    assert crc32c(content, hardware=hardware) == expected
    assert crc32c(content) == expected


@given(st.binary(max_size=300))
def test_instruction_and_tables_agree(content: bytes) -> None:
    if has_hardware_crc32c():
        assert crc32c(content, hardware=True) == crc32c(content, hardware=False)


# --- round trip ------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    sizes=st.lists(st.one_of(st.integers(0, 40), st.integers(0, 3000)), max_size=40),
    durability=st.sampled_from(BOTH),
    seed=st.integers(0, 2**32),
)
def test_scan_gives_what_was_appended(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], durability: Durability, seed: int
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    source = random.Random(seed)
    records = []
    with Journal.open(
        directory, durability=durability, segment_bytes=8192, buffer_bytes=4096
    ) as journal:
        for number, size in enumerate(sizes):
            records.append(appended(journal, number, source.randbytes(size)))
    assert read_prefix(directory) == (records, None)
    assert all(path.stat().st_size <= 8192 for path in segments(directory))
    shutil.rmtree(directory)


def test_numbers_have_their_whole_range(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(2**32 - 1, 2**64 - 1, 2**64 - 1, b"")
        with pytest.raises(OverflowError):
            journal.append(2**32, 0, 0, b"")
        with pytest.raises(OverflowError):
            journal.append(0, -1, 0, b"")
    assert list(scan(tmp_path)) == [(1, 2**64 - 1, 2**64 - 1, 2**32 - 1, b"")]


def test_largest_payload_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    payload = random.Random(1).randbytes(1 << 20)
    with Journal.open(tmp_path) as journal:
        assert journal.payload_size_max == 1 << 20
        with pytest.raises(ValueError, match="1048577 bytes exceeds 1048576"):
            journal.append(1, 2, 3, payload + b"x")
        for number in range(1, 6):
            assert journal.append(1, 2, 3, payload) == number
    assert list(scan(tmp_path)) == [(number, 2, 3, 1, payload) for number in range(1, 6)]


def test_empty_journal_has_no_segment_and_no_record(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "new") as journal:
        assert journal.next_sequence == 1
        assert journal.durable_sequence == 0
    assert segments(tmp_path / "new") == []
    assert read_prefix(tmp_path / "new") == ([], None)


@pytest.mark.parametrize("durability", BOTH)
def test_reopened_journal_goes_on_where_it_ended(tmp_path: Path, durability: Durability) -> None:
    records: list[Record] = []
    for _ in range(10):
        with Journal.open(
            tmp_path, durability=durability, segment_bytes=400, buffer_bytes=200
        ) as journal:
            assert journal.torn is None
            assert journal.durability == durability
            assert journal.next_sequence == len(records) + 1
            assert journal.durable_sequence == len(records)
            for _ in range(3):
                records.append(appended(journal, len(records), b"again" * 3))
                journal.wait(len(records))
                assert journal.durable_sequence == len(records)
    assert read_prefix(tmp_path) == (records, None)
    assert len(segments(tmp_path)) > 3


def test_header_carries_first_sequence_chain_and_time(sample: Sample) -> None:
    first, second = (path.read_bytes() for path in segments(sample.directory))
    *_, last, _end = record_offsets(segments(sample.directory)[0])
    assert struct.unpack_from("<8sIIQQI", first) == (b"RISKDJNL", 1, 0, 1, 1_001, 0)
    (checksum,) = struct.unpack_from("<I", first, last)
    assert struct.unpack_from("<8sIIQQI", second) == (b"RISKDJNL", 1, checksum, 4, 1_004, 0)


def test_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    with Journal.open(tmp_path):
        with pytest.raises(BlockingIOError, match="another writer has the journal"):
            Journal.open(tmp_path)
        with pytest.raises(BlockingIOError, match="another writer has the journal"):
            repair(tmp_path)
    Journal.open(tmp_path).close()


def test_closed_journal_takes_nothing_and_has_drained(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    for _ in range(1000):
        journal.append(1, 2, 3, b"drained")
    journal.close()
    journal.close()
    assert journal.status == "closed"
    assert journal.error is None
    assert journal.durable_sequence == 1000
    journal.wait(1000)
    with pytest.raises(JournalClosedError):
        journal.append(1, 2, 3, b"")
    assert len(list(scan(tmp_path))) == 1000


def test_journal_that_is_dropped_is_drained(tmp_path: Path) -> None:
    Journal.open(tmp_path).append(1, 2, 3, b"dropped")
    assert list(scan(tmp_path)) == [(1, 2, 3, 1, b"dropped")]


def test_sequence_that_was_not_given_cannot_be_waited_for(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(1, 2, 3, b"")
        for sequence in (0, 2):
            with pytest.raises(ValueError, match=f"sequence {sequence} is not within 1 to 1"):
                journal.wait(sequence)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"durability": "moon"}, "durability 'moon' is not one of process, machine"),
        ({"buffer_bytes": 0}, "buffer_bytes 0 is not within"),
        ({"buffer_bytes": 65}, "buffer_bytes 65 is not a multiple of 8"),
        ({"buffer_bytes": 64, "segment_bytes": 103}, "segment_bytes 103 is not within 104 to"),
        ({"append_wait_ms_max": -1}, "append_wait_ms_max -1 is not within"),
        ({"from_sequence": 0}, "from_sequence 0 is not within"),
    ],
)
def test_wrong_option_is_refused_by_name(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Journal.open(tmp_path, **options)  # type: ignore[arg-type]
    Journal.open(tmp_path).close()


def test_journal_is_only_made_by_open() -> None:
    with pytest.raises(TypeError, match=r"Journal\.open"):
        Journal()


def test_killed_process_leaves_what_it_waited_for(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from riskd.core.journal import Journal\n"
        "journal = Journal.open(sys.argv[1], durability='process')\n"
        "for number in range(100):\n"
        "    journal.wait(journal.append(1, 2, number, b'kept'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
    assert ended.returncode == -signal.SIGKILL
    with Journal.open(tmp_path) as journal:
        assert journal.next_sequence == 101
    assert [record[2] for record in scan(tmp_path)] == list(range(100))


def test_forked_child_cannot_hurt_the_journal(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from riskd.core.journal import Journal\n"
        "journal = Journal.open(sys.argv[1])\n"
        "journal.wait(journal.append(1, 2, 3, b'parent'))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    journal.close()\n"
        "    del journal\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "journal.wait(journal.append(1, 2, 3, b'parent'))\n"
        "journal.close()\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True)
    assert len(list(scan(tmp_path))) == 2


# --- every byte and every bit ----------------------------------------------------------------


def continue_after_repair(directory: Path, kept: list[Record]) -> None:
    """Prove that what `repair` left is whole and takes the next record."""
    assert read_prefix(directory) == (kept, None)
    with Journal.open(directory) as journal:
        assert journal.torn is None
        assert journal.append(9, 9, 9, b"after") == len(kept) + 1
    assert read_prefix(directory) == ([*kept, (len(kept) + 1, 9, 9, 9, b"after")], None)


def test_last_segment_cut_at_any_byte_keeps_the_longest_prefix(sample: Sample, copy: Path) -> None:
    first, segment = segments(copy)
    content = segment.read_bytes()
    offsets = record_offsets(segment)
    for size in range(len(content)):
        # What goes on after a header was cut is in the first.
        shutil.copy(segments(sample.directory)[0], first)
        segment.write_bytes(content[:size])
        whole = sum(offset <= size for offset in offsets[1:])
        kept = sample.records[: 3 + whole]
        records, end = read_prefix(copy)
        assert records == kept, size
        if size in offsets:
            assert end is None, size
        else:
            assert isinstance(end, Torn), size
            assert end.file == str(segment)
            assert end.offset == (offsets[whole] if size >= HEAD else 0)
        assert repair(copy) == end
        assert read_prefix(copy) == (kept, None)
        # Each sync takes its time: not after every byte.
        if size in offsets or size % 16 == 1:
            continue_after_repair(copy, kept)


def test_earlier_segment_cut_at_any_byte_is_damage(sample: Sample, copy: Path) -> None:
    segment = segments(copy)[0]
    content = segment.read_bytes()
    offsets = record_offsets(segment)
    for size in range(len(content)):
        segment.write_bytes(content[:size])
        whole = sum(offset <= size for offset in offsets[1:])
        records, end = read_prefix(copy)
        assert records == sample.records[:whole], size
        assert isinstance(end, JournalDamagedError), size
        assert end.file == str(segment)
        assert end.offset == (offsets[whole] if size >= HEAD else 0)
        with pytest.raises(JournalDamagedError):
            repair(copy)
        with pytest.raises(JournalDamagedError):
            Journal.open(copy)
        assert segment.read_bytes() == content[:size]


@pytest.mark.parametrize("index", [0, 1])
def test_any_flipped_bit_is_found(sample: Sample, copy: Path, index: int) -> None:
    segment = segments(copy)[index]
    content = segment.read_bytes()
    offsets = record_offsets(segment)
    for place in range(len(content)):
        whole = max(sum(offset <= place for offset in offsets) - 1, 0)
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            segment.write_bytes(flipped)
            records, end = read_prefix(copy)
            assert records == sample.records[: 3 * index + whole], (place, bit)
            if index == 1 and place >= offsets[2]:
                assert isinstance(end, Torn), (place, bit)
            else:
                # A flipped bit in a size must not make the rest look torn.
                assert isinstance(end, JournalDamagedError), (place, bit)
                # Each sync takes its time: not after every bit.
                if bit == place % 8:
                    with pytest.raises(JournalDamagedError):
                        repair(copy)
                    assert segment.read_bytes() == flipped
            assert end.file == str(segment)
            if place >= HEAD:
                assert end.offset == offsets[whole], (place, bit)
            else:
                assert end.offset < HEAD
    # What a flip in the last record leaves can be gone on with.
    if index == 1:
        repair(copy)
        continue_after_repair(copy, sample.records[:5])


@pytest.mark.parametrize("fill", [b"\0", b"\xff", None])
def test_tail_of_zeros_or_garbage_is_torn(sample: Sample, copy: Path, fill: bytes | None) -> None:
    """A size can reach the disk before the bytes do."""
    segment = segments(copy)[1]
    content = segment.read_bytes()
    offsets = record_offsets(segment)
    source = random.Random(5)
    for start in range(HEAD, len(content) + 1):
        size = len(content) + 5000 - start
        segment.write_bytes(
            content[:start] + (source.randbytes(size) if fill is None else fill * size)
        )
        records, end = read_prefix(copy)
        whole = sum(offset <= start for offset in offsets[1:])
        # The bytes that were overwritten can be what they were: padding is zero anyway.
        assert len(records) >= 3 + whole
        assert records == sample.records[: len(records)]
        assert isinstance(end, Torn)
        assert end.offset == offsets[len(records) - 3]
    repair(copy)
    continue_after_repair(copy, records)


def test_tail_longer_than_what_is_read_at_once_is_torn(sample: Sample, copy: Path) -> None:
    with segments(copy)[1].open("ab") as file:
        file.truncate(file.tell() + (5 << 20))
    assert isinstance(repair(copy), Torn)
    continue_after_repair(copy, sample.records)


def test_record_far_behind_a_hole_is_found(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        for _ in range(8):
            journal.append(1, 2, 3, bytes(1 << 20))
        journal.append(1, 2, 3, b"last")
    (segment,) = segments(tmp_path)
    offsets = record_offsets(segment)
    with segment.open("r+b") as file:
        file.seek(offsets[2])
        file.write(b"\xa5" * (offsets[8] - offsets[2]))
    records, end = read_prefix(tmp_path)
    assert len(records) == 2
    assert isinstance(end, JournalDamagedError)
    assert end.offset == offsets[2]
    assert f"record 9 follows at {offsets[8]}" in str(end)


def test_earlier_records_inside_a_torn_payload_do_not_count(tmp_path: Path) -> None:
    """A payload can be anything, even a journal; its sequences are those of the past."""
    with Journal.open(tmp_path) as journal:
        for number in range(1, 4):
            journal.wait(journal.append(1, 2, number, b"quoted"))
        (segment,) = segments(tmp_path)
        quoted = segment.read_bytes()
        journal.append(1, 2, 4, quoted[HEAD:] * 4)
    os.truncate(segment, segment.stat().st_size - 8)
    records, end = read_prefix(tmp_path)
    assert [record[0] for record in records] == [1, 2, 3]
    assert isinstance(end, Torn)
    assert end.offset == len(quoted)


# --- what does not belong together -----------------------------------------------------------


Change = Callable[[list[bytes]], list[bytes]]


@pytest.mark.parametrize(
    ("change", "index"),
    [
        pytest.param(lambda r: [r[0], r[2]], 1, id="missing"),
        pytest.param(lambda r: [r[0], r[0], r[1], r[2]], 1, id="doubled"),
        pytest.param(lambda r: [r[0], r[1], r[2], r[2]], 3, id="last-doubled"),
        pytest.param(lambda r: [r[1], r[0], r[2]], 0, id="swapped"),
        pytest.param(lambda r: [r[0], bytes(8), r[1], r[2]], 1, id="pushed-apart"),
    ],
)
@pytest.mark.parametrize("segment", [0, 1])
def test_records_out_of_place_are_damage(
    sample: Sample, copy: Path, change: Change, index: int, segment: int
) -> None:
    path = segments(copy)[segment]
    content = path.read_bytes()
    offsets = record_offsets(path)
    parts = [content[a:b] for a, b in pairwise(offsets)]
    path.write_bytes(content[:HEAD] + b"".join(change(parts)))
    records, end = read_prefix(copy)
    assert records == sample.records[: 3 * segment + index]
    assert isinstance(end, JournalDamagedError)
    assert (end.file, end.offset) == (str(path), offsets[index])


def test_record_of_another_journal_is_damage(sample: Sample, copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with Journal.open(other, segment_bytes=HEAD + 3 * 64, buffer_bytes=64) as journal:
        for number in range(1, 7):
            journal.wait(appended(journal, number, bytes(number + 16))[0])
    for index in (0, 1):
        shutil.copy(segments(other)[index], segments(copy)[index])
        _, end = read_prefix(copy)
        assert isinstance(end, JournalDamagedError)
        # The header of the second segment names the record before it.
        assert (end.file, end.offset) == (str(segments(copy)[1]), 12)
        shutil.copy(segments(sample.directory)[index], segments(copy)[index])


def test_padding_that_is_not_zero_is_damage(copy: Path) -> None:
    segment = segments(copy)[1]
    content = bytearray(segment.read_bytes())
    offsets = record_offsets(segment)
    content[offsets[1] - 1] = 1
    checksum = crc32c(bytes(content[offsets[0] + 4 : offsets[1]]))
    struct.pack_into("<I", content, offsets[0], checksum)
    segment.write_bytes(content)
    with pytest.raises(JournalDamagedError, match="not padded with zeros"):
        list(scan(copy))


def rewrite_header(segment: Path, version: int, first: int) -> None:
    content = bytearray(segment.read_bytes())
    struct.pack_into("<I", content, 8, version)
    struct.pack_into("<Q", content, 16, first)
    struct.pack_into("<I", content, 36, crc32c(bytes(content[:36])))
    segment.write_bytes(content)


def test_newer_format_is_damage_even_without_records(copy: Path) -> None:
    segment = segments(copy)[1]
    segment.write_bytes(segment.read_bytes()[:HEAD])
    rewrite_header(segment, 2, 4)
    with pytest.raises(JournalDamagedError, match="format version 2 is newer than 1"):
        repair(copy)


def test_name_and_header_must_agree(copy: Path) -> None:
    rewrite_header(segments(copy)[1], 1, 5)
    with pytest.raises(JournalDamagedError, match="header begins with 5, the name with 4"):
        list(scan(copy))


def test_missing_segment_is_damage(copy: Path, sample: Sample) -> None:
    first, second = segments(copy)
    second.rename(copy / "00000000000000000007.journal")
    with pytest.raises(JournalDamagedError, match="records 4 to 6 are missing") as caught:
        list(scan(copy))
    assert (caught.value.file, caught.value.offset) == (str(first), first.stat().st_size)
    (copy / "00000000000000000007.journal").rename(copy / "00000000000000000003.journal")
    with pytest.raises(JournalDamagedError, match="begins before 4, which is due"):
        list(scan(copy))
    (copy / "00000000000000000003.journal").rename(second)
    first.unlink()
    with pytest.raises(JournalDamagedError, match="record 1 is missing"):
        scan(copy)
    assert list(scan(copy, from_sequence=4)) == sample.records[3:]


@pytest.mark.parametrize("name", ["00000000000000000000.journal", "9" * 20 + ".journal"])
def test_impossible_name_is_damage(copy: Path, name: str) -> None:
    (copy / name).touch()
    with pytest.raises(JournalDamagedError, match="the name is not of a sequence"):
        scan(copy)


def test_other_files_are_not_looked_at(copy: Path, sample: Sample) -> None:
    for name in ("snapshot", "1.journal", "00000000000000000001.journal~"):
        (copy / name).write_bytes(b"something else")
    assert read_prefix(copy) == (sample.records, None)


@pytest.mark.parametrize("sequence", range(1, 8))
def test_scan_starts_at_the_wanted_record(sample: Sample, sequence: int) -> None:
    assert list(scan(sample.directory, sequence)) == sample.records[sequence - 1 :]


def test_journal_must_reach_the_wanted_record(copy: Path) -> None:
    with pytest.raises(JournalDamagedError, match="ends before record 7, but must reach 8"):
        list(scan(copy, 8))
    segment = segments(copy)[1]
    os.truncate(segment, segment.stat().st_size - 1)
    with pytest.raises(JournalDamagedError, match="must reach 7"):
        repair(copy, 7)
    assert isinstance(repair(copy, 6), Torn)


def test_torn_header_of_a_new_segment_is_cut_when_the_older_ones_are_not_wanted(
    copy: Path, sample: Sample
) -> None:
    (copy / "00000000000000000007.journal").write_bytes(b"RISKD")
    with Journal.open(copy, from_sequence=7) as journal:
        assert journal.torn is not None
        assert journal.torn.offset == 0
        assert journal.next_sequence == 7
    assert len(segments(copy)) == 2
    assert list(scan(copy)) == sample.records


# --- many threads ----------------------------------------------------------------------------


def run_threads(count: int, work: Callable[[int], None]) -> None:
    """Run the work in threads, and raise what the first of them raised."""
    errors: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("durability", BOTH)
def test_eight_threads_get_unique_durable_sequences(tmp_path: Path, durability: Durability) -> None:
    given_out: list[list[Record]] = [[] for _ in range(8)]
    with Journal.open(
        tmp_path, durability=durability, segment_bytes=16384, buffer_bytes=1024
    ) as journal:

        def work(index: int) -> None:
            for number in range(200):
                record = appended(journal, number, index.to_bytes(1, "little") * (number % 50))
                journal.wait(record[0])
                assert journal.durable_sequence >= record[0]
                given_out[index].append(record)

        run_threads(8, work)
    assert sorted(record for records in given_out for record in records) == list(scan(tmp_path))
    assert len(list(scan(tmp_path))) == 1600


def test_sync_answers_all_that_came_while_another_ran(tmp_path: Path) -> None:
    faults = Faults()
    faults.hold("fdatasync")
    with Journal.open(tmp_path, faults=faults) as journal:
        for _ in range(1000):
            journal.append(1, 2, 3, b"grouped")
        assert journal.durable_sequence == 0
        faults.release("fdatasync")
        journal.wait(1000)
        # The header's, the first batch's, that of all the others.
        assert faults.count("fdatasync") <= 3
    assert len(list(scan(tmp_path))) == 1000


def test_slow_syncs_are_fewer_than_records(tmp_path: Path) -> None:
    faults = Faults()
    faults.delay("fdatasync", 0, 2_000_000)
    with Journal.open(tmp_path, faults=faults) as journal:

        def work(_: int) -> None:
            for _number in range(20):
                journal.wait(journal.append(1, 2, 3, b"slow"))

        run_threads(8, work)
        assert faults.count("fdatasync") < 160
        assert journal.durable_sequence == 160


def test_earlier_record_is_not_held_up_by_a_later_sync(tmp_path: Path) -> None:
    faults = Faults()
    with Journal.open(tmp_path, faults=faults) as journal:
        first = journal.append(1, 2, 3, b"")
        journal.wait(first)
        faults.hold("fdatasync")
        second = journal.append(1, 2, 3, b"")
        journal.wait(first)
        assert journal.durable_sequence == first
        faults.release("fdatasync")
        journal.wait(second)
        assert journal.durable_sequence == second


# --- faults ----------------------------------------------------------------------------------


@pytest.fixture
def faults() -> Faults:
    return Faults()


def expect_failed(journal: Journal, number: int, call: str) -> None:
    """It has failed for ever, says so to everyone, and says how."""
    durable = journal.durable_sequence
    for _ in range(2):
        with pytest.raises(JournalFailedError) as caught:
            journal.wait(durable + 1)
        assert caught.value.errno == number
        assert caught.value.strerror == f"{call} failed: {os.strerror(number)}"
        with pytest.raises(JournalFailedError):
            journal.append(1, 2, 3, b"")
    assert journal.status == "failed"
    assert journal.error is not None
    assert journal.error.errno == number
    with pytest.raises(JournalFailedError):
        journal.close()
    journal.close()
    assert journal.status == "failed"
    assert journal.durable_sequence == durable
    if durable:
        journal.wait(durable)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("durability", BOTH)
def test_failed_write_is_for_ever(
    tmp_path: Path, faults: Faults, number: int, durability: Durability
) -> None:
    faults.fail("write", 3, number)
    journal = Journal.open(tmp_path, durability=durability, faults=faults)
    journal.wait(journal.append(1, 2, 3, b"kept"))
    journal.append(1, 2, 3, b"lost")
    expect_failed(journal, number, "write")
    assert faults.count("write") == 3
    assert list(scan(tmp_path)) == [(1, 2, 3, 1, b"kept")]


def test_disk_that_fills_inside_a_record_leaves_a_torn_tail(tmp_path: Path, faults: Faults) -> None:
    faults.shorten(3, 16)
    faults.fail("write", 4, errno.ENOSPC)
    journal = Journal.open(tmp_path, faults=faults)
    journal.wait(journal.append(1, 2, 3, b"kept"))
    journal.append(1, 2, 3, b"lost")
    expect_failed(journal, errno.ENOSPC, "write")
    with Journal.open(tmp_path) as journal:
        assert journal.torn is not None
        assert journal.torn.reason == "the file ends inside a record's head"
        assert journal.append(1, 2, 3, b"anew") == 2
    assert list(scan(tmp_path)) == [(1, 2, 3, 1, b"kept"), (2, 2, 3, 1, b"anew")]


def test_short_writes_are_continued(tmp_path: Path, faults: Faults) -> None:
    faults.shorten(0, 7)
    with Journal.open(tmp_path, faults=faults, segment_bytes=400, buffer_bytes=200) as journal:
        records = [appended(journal, number, b"short" * 5) for number in range(50)]
    assert read_prefix(tmp_path) == (records, None)
    assert faults.count("write") > 500


def test_interrupted_write_is_continued(tmp_path: Path, faults: Faults) -> None:
    faults.fail("write", 2, errno.EINTR)
    with Journal.open(tmp_path, faults=faults) as journal:
        journal.wait(journal.append(1, 2, 3, b""))
    assert len(list(scan(tmp_path))) == 1


def test_write_that_takes_nothing_fails(tmp_path: Path, faults: Faults) -> None:
    faults.shorten(2, 0)
    journal = Journal.open(tmp_path, faults=faults)
    journal.append(1, 2, 3, b"")
    expect_failed(journal, errno.EIO, "write")


def test_failed_sync_is_never_retried(tmp_path: Path, faults: Faults) -> None:
    faults.fail("fdatasync", 3, errno.EIO)
    journal = Journal.open(tmp_path, faults=faults)
    journal.wait(journal.append(1, 2, 3, b"kept"))
    journal.append(1, 2, 3, b"not known")
    expect_failed(journal, errno.EIO, "fdatasync")
    assert faults.count("fdatasync") == 3


@pytest.mark.parametrize(
    ("call", "nth"), [("openat", 1), ("openat", 2), ("fsync", 1), ("fsync", 2), ("fdatasync", 1)]
)
def test_failed_rotation_is_for_ever(
    tmp_path: Path, faults: Faults, call: Literal["openat", "fsync", "fdatasync"], nth: int
) -> None:
    faults.fail(call, nth, errno.ENOSPC)
    journal = Journal.open(
        tmp_path, durability="process", segment_bytes=104, buffer_bytes=64, faults=faults
    )
    for number in range(1, nth):
        journal.wait(journal.append(1, 2, 3, b"kept"))
        assert journal.durable_sequence == number
    journal.append(1, 2, 3, b"lost")
    expect_failed(journal, errno.ENOSPC, call)
    with Journal.open(tmp_path) as journal:
        # A header alone is no record.
        assert journal.next_sequence == nth
        assert journal.append(1, 2, 3, b"anew") == nth
    assert [record[4] for record in scan(tmp_path)] == [b"kept"] * (nth - 1) + [b"anew"]


def test_old_segment_is_synced_before_the_new_one_is_made(tmp_path: Path, faults: Faults) -> None:
    """Also where records are only written: a crash of the machine must not leave a gap."""
    with Journal.open(
        tmp_path, durability="process", segment_bytes=104, buffer_bytes=64, faults=faults
    ) as journal:
        journal.wait(journal.append(1, 2, 3, b""))
        assert faults.count("fdatasync") == 1
        faults.fail("fdatasync", 2, errno.EIO)
        journal.append(1, 2, 3, b"")
        with pytest.raises(JournalFailedError):
            journal.wait(2)
        assert faults.count("openat") == 1
        with pytest.raises(JournalFailedError):
            journal.close()
    assert len(segments(tmp_path)) == 1


def test_hold_begins_at_a_call_and_can_be_moved_on(tmp_path: Path, faults: Faults) -> None:
    """The first two writes are those of the header and of the first record."""
    faults.hold("write", 2)
    with Journal.open(tmp_path, durability="process", faults=faults) as journal:
        journal.append(1, 2, 3, b"")
        while faults.count("write") < 2:
            time.sleep(0)
        (segment,) = segments(tmp_path)
        assert segment.stat().st_size == HEAD
        journal.append(1, 2, 3, b"")
        faults.hold("write", 3)
        journal.wait(1)
        while faults.count("write") < 3:
            time.sleep(0)
        assert segment.stat().st_size == HEAD + 40
        assert journal.durable_sequence == 1
        faults.release("write")
        journal.wait(2)


def test_all_who_wait_learn_of_a_failure(tmp_path: Path, faults: Faults) -> None:
    faults.hold("fdatasync")
    faults.fail("fdatasync", 2, errno.EIO)
    journal = Journal.open(tmp_path, faults=faults)
    heard = []

    def work(index: int) -> None:
        if index == 8:
            faults.release("fdatasync")
            return
        with pytest.raises(JournalFailedError) as caught:
            journal.wait(journal.append(1, 2, 3, b""))
        heard.append(caught.value.errno)

    run_threads(9, work)
    assert heard == [errno.EIO] * 8
    assert journal.durable_sequence == 0
    with pytest.raises(JournalFailedError):
        journal.close()


def test_full_buffer_makes_append_wait_and_drops_nothing(tmp_path: Path, faults: Faults) -> None:
    faults.hold("write")
    journal = Journal.open(tmp_path, segment_bytes=4096, buffer_bytes=512, faults=faults)
    records: list[Record] = []

    def work(index: int) -> None:
        if index == 1:
            faults.release("write")
            return
        records.extend(appended(journal, number, bytes(8)) for number in range(500))

    run_threads(2, work)
    journal.close()
    assert read_prefix(tmp_path) == (records, None)


def test_append_gives_up_when_the_disk_makes_no_room(tmp_path: Path, faults: Faults) -> None:
    faults.hold("write")
    with Journal.open(
        tmp_path, segment_bytes=4096, buffer_bytes=512, append_wait_ms_max=1, faults=faults
    ) as journal:

        def fill() -> None:
            for _ in range(100):
                journal.append(1, 2, 3, b"")

        with pytest.raises(JournalFullError, match="buffer of 512 bytes was full for 1 ms"):
            fill()
        count = journal.next_sequence - 1
        # One buffer is being written, the other is full.
        assert 12 <= count <= 24
        assert journal.status == "open"
        faults.release("write")
        journal.wait(count)
        journal.append(1, 2, 3, b"")
    assert len(list(scan(tmp_path))) == count + 1


def test_faults_are_bounded_and_named(faults: Faults) -> None:
    with pytest.raises(ValueError, match="call 'read' is not one of write, fdatasync"):
        faults.count("read")  # type: ignore[arg-type]
    for _ in range(16):
        faults.fail("write", 1, errno.EIO)
    with pytest.raises(ValueError, match="more than 16 faults"):
        faults.fail("write", 1, errno.EIO)


def test_faults_outlive_the_journal_that_has_them(tmp_path: Path) -> None:
    faults: Faults | None = Faults()
    journal = Journal.open(tmp_path, faults=faults)
    faults = None
    journal.append(1, 2, 3, b"")
    journal.close()
    assert len(list(scan(tmp_path))) == 1


def test_missing_directory_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        repair(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        Journal.open(tmp_path / "none" / "deeper")


@pytest.mark.parametrize("durability", BOTH)
def test_a_segment_follows_also_when_no_more_files_can_be_opened(
    tmp_path: Path, durability: Durability
) -> None:
    with Journal.open(
        tmp_path, durability=durability, segment_bytes=HEAD + 64, buffer_bytes=64
    ) as journal:
        journal.wait(journal.append(1, 0, 0, b""))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)
            journal.wait(journal.append(1, 0, 0, b"x" * 24))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(segments(tmp_path)) == 2
