"""Snapshots of a journal: who makes them, when, and what may go after that.

They are made by a process of its own (`riskd journal snapshot`), which only reads what the service
writes: segments that are closed. The service starts it now and then and goes on as before.
"""

import errno
import fcntl
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from riskd.core.engine import Engine
from riskd.core.snapshot import snapshot_paths
from riskd.journal import Segment, closed_sequence, segments_of
from riskd.services.changes import CHANGES_SUFFIX, ChangeTrail

LOCK_NAME = "snapshot.lock"
_RETRY_S = 300.0
_STOP_S = 10.0
_OUTPUT_BYTES_MAX = 2000

_logger = logging.getLogger("riskd.snapshots")


class SnapshotBusyError(Exception):
    """Another process is making a snapshot of this journal."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What making a snapshot did."""

    path: str
    sequence: int
    records: int
    """Replayed after the snapshot before."""
    refused: tuple[str, ...]
    """Snapshots that could not be used, and why."""
    removed: tuple[str, ...]
    archived: tuple[str, ...]
    seconds: float


def bytes_since(segments: Sequence[Segment], sequence: int) -> int:
    """Return the size of the closed segments with records after the sequence."""
    return sum(
        each.path.stat().st_size
        for each, following in pairwise(segments)
        if following.first_sequence - 1 > sequence
    )


def take_snapshot(
    directory: str | os.PathLike[str],
    *,
    kept: int = 2,
    archive_directory: str | os.PathLike[str] | None = None,
    accept_differences: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Taken | None:
    """Replay the closed segments into a snapshot, and remove what nobody needs any more.

    None if the newest snapshot has them all. Raises SnapshotBusyError, ValueError, MemoryError,
    OSError, and what Engine.recover and Engine.write_snapshot raise; the journal is as it was then.
    """
    start = time.monotonic()
    with _alone(directory):
        for unfinished in Path(directory).glob("*.tmp"):
            if unfinished.stem.endswith((".snapshot", CHANGES_SUFFIX)):
                unfinished.unlink()
        until = closed_sequence(segments_of(directory))
        engine = Engine(accounts_max=1, positions_max=1, orders_max=1, answer_bytes=4096)
        trail = ChangeTrail(engine)
        engine.watch_replay(trail.replay)
        replay = engine.recover(
            directory,
            until_sequence=until,
            accept_differences=accept_differences,
            progress=progress,
        )
        if replay.records == 0:
            return None
        if replay.snapshot is not None:
            load_changes(trail, replay.snapshot)
        # First, so that no snapshot is without them.
        trail.save(Path(directory) / f"{until:020}{CHANGES_SUFFIX}")
        path = engine.write_snapshot(directory)
        # Only now: it was read back.
        used = int(Path(replay.snapshot).stem) if replay.snapshot is not None else 0
        good = [each for each in snapshot_paths(directory) if not used < each[0] < until]
        removed, archived = _remove_older(directory, good, kept, archive_directory)
        return Taken(
            path,
            until,
            replay.records,
            replay.refused_snapshots,
            removed,
            archived,
            time.monotonic() - start,
        )


def load_changes(trail: ChangeTrail, snapshot: str) -> None:
    """Give a trail the changes before a snapshot; what is wrong with them is logged."""
    try:
        trail.load(Path(snapshot).with_suffix(CHANGES_SUFFIX))
    except (OSError, ValueError) as error:
        _logger.warning(
            "changes before the snapshot are not listed", extra={"fields": {"reason": str(error)}}
        )


@contextmanager
def _alone(directory: str | os.PathLike[str]) -> Iterator[None]:
    with open(Path(directory) / LOCK_NAME, "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SnapshotBusyError(f"{directory}: another process is making a snapshot") from None
        yield


def _remove_older(
    directory: str | os.PathLike[str],
    good: Sequence[tuple[int, str]],
    kept: int,
    archive: str | os.PathLike[str] | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove all but the newest good snapshots, and the segments that only others need.

    Oldest first, so that what is left is whole whenever this ends. As long as there are fewer good
    snapshots than are kept, every segment stays: a damaged one is then not the end. Return what was
    removed, and what was archived.
    """
    if len(good) < kept:
        return (), ()
    removed = []
    archived = []
    for sequence, path in reversed(snapshot_paths(directory)):
        if (sequence, path) not in good[:kept]:
            os.unlink(path)
            removed.append(path)
    for changes in Path(directory).glob(f"*{CHANGES_SUFFIX}"):
        if not changes.with_suffix(".snapshot").exists():
            changes.unlink()
    oldest, _ = good[kept - 1]
    segments = segments_of(directory)
    for each, following in pairwise(segments):
        # The record that the snapshot stands for stays: it says that they belong together.
        if following.first_sequence > oldest:
            break
        if archive is None:
            each.path.unlink()
            removed.append(str(each.path))
        else:
            _move(each.path, Path(archive))
            archived.append(str(each.path))
    return tuple(removed), tuple(archived)


def _move(path: Path, archive: Path) -> None:
    """Move a file, also to another disk: it is there and whole before it is gone here."""
    archive.mkdir(parents=True, exist_ok=True)
    target = archive / path.name
    try:
        path.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = target.with_name(target.name + ".tmp")
        shutil.copy2(path, copy)
        with open(copy, "rb") as file:
            os.fsync(file.fileno())
        copy.rename(target)
        _sync(archive)
        path.unlink()


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class SnapshotKeeper:
    """Has snapshots made while the service runs. Its failures are logged and counted, never raised.

    One process at a time, at the lowest priority.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every_bytes: int,
        kept: int,
        archive_directory: str | None,
        accept_differences: bool,
        look_every_s: float = 5.0,
    ) -> None:
        self._directory = directory
        self._every_bytes = every_bytes
        self._look_every_s = look_every_s
        self._command = [sys.executable, "-m", "riskd.cli", "journal", "snapshot"]
        self._command += [os.fspath(directory), "--keep", str(kept), "--nice", "19"]
        if archive_directory:
            self._command += ["--archive", archive_directory]
        if accept_differences:
            self._command.append("--accept-differences")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.taken_count = 0
        self.failed_count = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End a snapshot that is being made; the next start of the service does without it."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        wait_s = self._look_every_s
        while not self._stopping.wait(wait_s):
            wait_s = self._look_every_s
            try:
                if self._is_due():
                    self._take()
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                if not self._stopping.is_set():
                    self._fail(str(error))
                    wait_s = max(self._look_every_s, _RETRY_S)

    def _is_due(self) -> bool:
        snapshots = snapshot_paths(self._directory)
        newest = snapshots[0][0] if snapshots else 0
        return bytes_since(segments_of(self._directory), newest) >= self._every_bytes

    def _take(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if self._stopping.is_set():
            self._process.terminate()
        output, _ = self._process.communicate()
        text = output[-_OUTPUT_BYTES_MAX:].decode(errors="replace").strip()
        if self._process.returncode != 0:
            raise subprocess.SubprocessError(
                f"exit status {self._process.returncode}: {text or 'it said nothing'}"
            )
        self.taken_count += 1
        _logger.info("snapshot taken", extra={"fields": {"said": text, "taken": self.taken_count}})

    def _fail(self, reason: str) -> None:
        self.failed_count += 1
        fields = {"reason": reason, "failed": self.failed_count}
        _logger.error("no snapshot; the service goes on without", extra={"fields": fields})
