"""Making snapshots beside a service that writes, and removing what nobody needs any more."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from riskd.cli import main
from riskd.core.engine import Engine
from riskd.core.journal import JournalDamagedError
from riskd.core.snapshot import snapshot_paths
from riskd.journal import closed_sequence, segments_of
from riskd.snapshots import LOCK_NAME, SnapshotBusyError, SnapshotKeeper, take_snapshot
from tests.processes import RISKD, environment
from tests.unit.desk import SIZES, Desk

JOURNAL: dict[str, Any] = {
    "durability": "process",
    "segment_bytes": 40 + (1 << 12),
    "buffer_bytes": 1 << 12,
}


def seen(engine: Engine) -> tuple[int, str, str]:
    return engine.revision, engine.state_hash(), engine.answers_hash()


def recovered(directory: Path) -> Engine:
    engine = Engine(**SIZES)
    engine.recover(directory)
    return engine


class Service:
    """An engine that keeps a journal of small segments, and goes on while snapshots are made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine = Engine(**SIZES)
        self.engine.open_journal(directory, **JOURNAL)
        self.desk = Desk(self.engine)
        self.sent = 0

    def fill_segments(self, count: int) -> None:
        """Send orders until so many more segments are closed."""
        wanted = len(segments_of(self.directory)) + count
        while len(segments_of(self.directory)) < wanted:
            self.sent += 1
            self.desk.order(1, self.sent, side=0)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "journal")
    yield service
    service.engine.close_journal()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# --- Making one -----------------------------------------------------------------------------------


def test_a_snapshot_is_of_all_closed_segments_and_made_once(service: Service) -> None:
    assert take_snapshot(service.directory) is None
    service.fill_segments(2)
    taken = take_snapshot(service.directory)
    assert taken is not None
    assert taken.sequence == closed_sequence(segments_of(service.directory)) == taken.records
    assert take_snapshot(service.directory) is None
    service.fill_segments(1)
    second = take_snapshot(service.directory)
    assert second is not None
    # Only what came after the first.
    assert second.records == second.sequence - taken.sequence
    assert seen(recovered(service.directory)) == seen(service.engine)


def test_the_newest_segment_may_be_empty_yet(service: Service) -> None:
    service.fill_segments(1)
    last = segments_of(service.directory)[-1].first_sequence
    taken = take_snapshot(service.directory)
    assert taken is not None
    assert taken.sequence == last - 1


def test_what_an_earlier_one_left_unfinished_is_removed(service: Service) -> None:
    service.fill_segments(1)
    unfinished = service.directory / f"{5:020}.snapshot.tmp"
    unfinished.write_bytes(b"half of it")
    assert take_snapshot(service.directory) is not None
    assert not unfinished.exists()


def test_only_one_is_made_at_a_time(service: Service) -> None:
    service.fill_segments(1)
    with open(service.directory / LOCK_NAME, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SnapshotBusyError, match="another process"):
            take_snapshot(service.directory)
    assert take_snapshot(service.directory) is not None


# --- What may go ----------------------------------------------------------------------------------


def take_several(service: Service, count: int, **options: Any) -> list[int]:
    sequences = []
    for _ in range(count):
        service.fill_segments(2)
        taken = take_snapshot(service.directory, **options)
        assert taken is not None
        sequences.append(taken.sequence)
    return sequences


def test_no_segment_goes_before_there_are_enough_snapshots(service: Service) -> None:
    service.fill_segments(2)
    before = names(service.directory)
    assert take_snapshot(service.directory, kept=2) is not None
    assert before <= names(service.directory)


def test_a_damaged_snapshot_counts_for_none_that_is_kept(service: Service) -> None:
    """Else the next one that is damaged would be the last: nothing else would reach back."""

    def damage(sequence: int) -> None:
        path = service.directory / f"{sequence:020}.snapshot"
        path.write_bytes(path.read_bytes()[:-1])

    first, second = take_several(service, 2, kept=2)
    damage(second)
    (third,) = take_several(service, 1, kept=2)
    assert [sequence for sequence, _ in snapshot_paths(service.directory)] == [third, first]
    damage(third)
    assert seen(recovered(service.directory)) == seen(service.engine)


def test_older_snapshots_and_the_segments_before_them_go(service: Service) -> None:
    sequences = take_several(service, 4)
    assert [sequence for sequence, _ in snapshot_paths(service.directory)] == sequences[:1:-1]
    first = segments_of(service.directory)[0].first_sequence
    # The segment with the record of the oldest kept snapshot is the first that stays.
    assert first <= sequences[2] < segments_of(service.directory)[1].first_sequence
    engine = Engine(**SIZES)
    assert engine.recover(service.directory).refused_snapshots == ()
    assert seen(engine) == seen(service.engine)


def test_what_is_left_is_enough_without_the_newest_snapshot(service: Service) -> None:
    take_several(service, 3)
    (_, newest), (_, older) = snapshot_paths(service.directory)
    Path(newest).write_bytes(Path(newest).read_bytes()[:-1])
    engine = Engine(**SIZES)
    replay = engine.recover(service.directory)
    assert (replay.snapshot, len(replay.refused_snapshots)) == (older, 1)
    assert seen(engine) == seen(service.engine)
    # Without either, the beginning is gone, and nothing is made up.
    Path(older).unlink()
    with pytest.raises(JournalDamagedError, match="begins with"):
        recovered(service.directory)


@pytest.fixture(params=["same disk", "other disk"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "same disk":
        yield tmp_path / "archive"
    elif not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    else:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
            yield Path(name) / "archive"


def test_with_an_archive_nothing_of_the_journal_is_lost(
    service: Service, archive: Path, tmp_path: Path
) -> None:
    take_several(service, 4, archive_directory=archive)
    moved = names(archive)
    assert moved
    assert all(name.endswith(".journal") for name in moved)
    whole = tmp_path / "whole"
    shutil.copytree(archive, whole)
    for segment in segments_of(service.directory):
        shutil.copy(segment.path, whole)
    engine = Engine(**SIZES)
    assert engine.recover(whole).snapshot is None
    assert seen(engine) == seen(service.engine)


def test_nothing_goes_if_there_is_no_new_snapshot(service: Service) -> None:
    take_several(service, 1)
    service.fill_segments(3)
    broken = segments_of(service.directory)[-2].path
    content = bytearray(broken.read_bytes())
    content[100] ^= 1
    broken.write_bytes(content)
    before = names(service.directory)
    with pytest.raises(JournalDamagedError, match=broken.name):
        take_snapshot(service.directory, kept=1)
    assert names(service.directory) == before


# --- The command and the keeper -------------------------------------------------------------------


def test_the_command_says_what_it_did(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["journal", "snapshot", str(service.directory)]
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    service.fill_segments(2)
    assert main([*command, "--keep", "1"]) == 0
    said = capsys.readouterr().out
    ((sequence, path),) = snapshot_paths(service.directory)
    assert said.startswith(f"{path}: up to record {sequence}, {sequence} replayed, ")
    assert f"removed: {service.directory}/{1:020}.journal" in said
    assert main([*command, "--keep", "0"]) == 2
    assert "'0' is not a whole number from 1" in capsys.readouterr().err
    assert main(["journal", "snapshot", str(service.directory / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_journal_without_its_beginning_can_be_verified_and_read(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    take_several(service, 4)
    _, (oldest, path) = snapshot_paths(service.directory)
    assert main(["journal", "verify", str(service.directory), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    last = service.engine.durable_sequence
    assert (figures["snapshot"], figures["records"]) == (path, last - oldest)
    assert (figures["revision"], figures["state_hash"], figures["answers_hash"]) == seen(
        service.engine
    )
    assert main(["journal", "inspect", str(service.directory), "--limit", "1"]) == 0
    first = segments_of(service.directory)[0].first_sequence
    assert int(capsys.readouterr().out.split()[0]) == first > 1


def test_a_snapshot_that_is_killed_leaves_what_was_there(service: Service) -> None:
    service.fill_segments(30)
    before = names(service.directory)
    command = [*RISKD, "journal", "snapshot", str(service.directory)]
    for wait_s in (0.0, 0.1, 0.2, 0.3, 0.4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
        time.sleep(wait_s)
        process.kill()
        process.wait()
        left = names(service.directory) - before
        assert all(name.endswith((".lock", ".tmp", ".snapshot", ".changes")) for name in left)
        assert seen(recovered(service.directory)) == seen(service.engine)


def keeper(service: Service, **options: Any) -> SnapshotKeeper:
    settings: dict[str, Any] = {
        "every_bytes": 1,
        "kept": 2,
        "archive_directory": None,
        "accept_differences": False,
        "look_every_s": 0.02,
    }
    return SnapshotKeeper(service.directory, **(settings | options))


def await_event(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_the_keeper_has_snapshots_made_while_the_service_runs(service: Service) -> None:
    kept = keeper(service)
    kept.start()
    try:
        for count in (1, 2, 3):
            service.fill_segments(2)
            await_event(lambda count=count: kept.taken_count >= count)  # type: ignore[misc]
    finally:
        kept.stop()
    assert kept.failed_count == 0
    assert seen(recovered(service.directory)) == seen(service.engine)
    assert segments_of(service.directory)[0].first_sequence > 1


def test_a_snapshot_that_fails_is_counted_and_the_service_goes_on(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.fill_segments(2)
    broken = segments_of(service.directory)[0].path
    content = bytearray(broken.read_bytes())
    content[100] ^= 1
    broken.write_bytes(content)
    kept = keeper(service)
    kept.start()
    await_event(lambda: kept.failed_count == 1)
    kept.stop()
    assert kept.taken_count == 0
    (record,) = caplog.records
    assert broken.name in record.__dict__["fields"]["reason"]
    service.fill_segments(1)


def test_the_keeper_waits_for_enough_and_can_be_stopped_at_once(service: Service) -> None:
    service.fill_segments(2)
    kept = keeper(service, every_bytes=1 << 30)
    kept.start()
    time.sleep(0.1)
    kept.stop()
    assert (kept.taken_count, kept.failed_count) == (0, 0)
    assert snapshot_paths(service.directory) == []
