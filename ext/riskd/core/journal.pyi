"""The journal: append-only records in segments, group commit, reading with everything checked.

The file format, and what is torn and what damaged, is at the top of journal.pyx.
"""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeAlias, final

class Torn(NamedTuple):
    """The trace of a write that did not finish, at the end of the last segment."""

    file: str
    # Where the file is to be cut; 0 if the whole segment goes.
    offset: int
    reason: str

class JournalDamagedError(Exception):
    """The journal is not what was written, and cutting a tail would not make it so."""

    file: str
    offset: int
    reason: str
    def __init__(self, file: str, offset: int, reason: str) -> None: ...

class JournalFailedError(OSError):
    """A system call failed: nothing more becomes durable. Names call, errno and file."""

class JournalClosedError(ValueError):
    """The journal is closed."""

class JournalFullError(TimeoutError):
    """The disk did not make room in time; nothing was appended."""

@final
class Journal:
    """The one writer of a directory. Thread-safe. A forked child can only drop or close it."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raise TypeError: a Journal is made with Journal.open()."""
    @staticmethod
    def open(
        directory: str | os.PathLike[str],
        *,
        durability: Literal["process", "machine"] = "machine",
        segment_bytes: int = ...,
        buffer_bytes: int = ...,
        append_wait_ms_max: int = ...,
        from_sequence: int = 1,
        faults: Faults | None = None,
    ) -> Journal:
        """Lock the directory (made if missing), check all of it, cut a torn tail, and go on after
        it.

        "process" survives the end of the process (written before `wait` returns), "machine" that of
        the machine (synced). segment_bytes is the largest size of a file and must hold a header of
        40 bytes and a buffer; buffer_bytes is that of each of two buffers, a multiple of 8;
        append_wait_ms_max bounds how long `append` waits for room; from_sequence is as in `scan`.
        Raises JournalDamagedError, BlockingIOError if there is another writer, OSError.
        """
    @property
    def directory(self) -> str: ...
    @property
    def torn(self) -> Torn | None:
        """What `open` cut off."""
    @property
    def durability(self) -> Literal["process", "machine"]: ...
    @property
    def payload_size_max(self) -> int:
        """1 MiB, or less if the buffer is smaller."""
    @property
    def next_sequence(self) -> int:
        """The sequence of the next record."""
    @property
    def durable_sequence(self) -> int:
        """The last sequence that is as durable as was promised; 0 before the first."""
    @property
    def commit_file(self) -> int:
        """An eventfd that becomes readable when more is durable, and at the end, failed or not.

        It is this object's, and closed with it.
        """
    @property
    def status(self) -> Literal["open", "failed", "closed"]: ...
    @property
    def error(self) -> JournalFailedError | None:
        """Why the journal failed, or None."""
    def append(self, kind: int, time_ns: int, revision: int, payload: bytes) -> int:
        """Copy a record into the buffer and return its sequence. It is not durable yet.

        A full buffer makes it wait. Raises ValueError for a payload that is too large,
        JournalFullError, JournalFailedError, JournalClosedError; then nothing was appended.
        """
    def wait(self, sequence: int) -> None:
        """Block, without the GIL, until the record is as durable as was promised.

        Raises JournalFailedError if it never will be (what was durable before a failure stays so),
        ValueError for a sequence that was not given.
        """
    def close(self) -> None:
        """Write what is in the buffer, end the writer thread, unlock the directory.

        Raises JournalFailedError if the journal failed, now or before. Twice is as once.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

@final
class Scan(Iterator[tuple[int, int, int, int, bytes]]):
    """The records of a journal in order, each checked; see `scan`."""

    def __new__(cls, directory: str | os.PathLike[str], from_sequence: int = 1) -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> tuple[int, int, int, int, bytes]: ...
    @property
    def torn(self) -> Torn | None:
        """The torn tail that the scan ended at, or None (also before its end)."""
    @property
    def next_sequence(self) -> int:
        """The sequence after the last record read."""
    @property
    def file(self) -> str | None:
        """The file of the last record read, or None before the first."""
    @property
    def offset(self) -> int:
        """Where the last record read begins in its file."""

def scan(directory: str | os.PathLike[str], from_sequence: int = 1) -> Scan:
    """Return an iterator of (sequence, time_ns, revision, kind, payload).

    Starts with from_sequence, and leaves out the segments before it (all but the last two). A torn
    tail ends it, and is then in `torn`. Takes no lock: the tail of a journal that is being written
    may look torn. Raises JournalDamagedError, also if the journal begins after from_sequence or
    ends before from_sequence - 1, and OSError.
    """

def repair(directory: str | os.PathLike[str], from_sequence: int = 1) -> Torn | None:
    """Check the whole journal and cut a torn tail; return what was cut.

    Raises JournalDamagedError (and changes nothing), BlockingIOError if there is a writer, OSError.
    """

def crc32c(content: bytes, *, hardware: bool | None = None) -> int:
    """Return the CRC-32C (RFC 3720), with the instruction or the tables, or the better of them.

    Raises RuntimeError for an instruction that the processor does not have.
    """

def has_hardware_crc32c() -> bool:
    """Return whether the processor has the instruction of SSE 4.2."""

_Call: TypeAlias = Literal["write", "fdatasync", "openat", "fsync"]

@final
class Faults:
    """For tests: a disk that fails on demand, given to Journal.open.

    It stands between the writer thread and the system calls, which are counted from 1. openat makes
    a segment, fsync syncs the directory, everything else is the segments'. Up to 16 faults.
    """

    def __new__(cls) -> Self: ...
    def fail(self, call: _Call, nth: int, error: int) -> None:
        """Make the nth call (0: each) fail with this errno, and do nothing."""
    def shorten(self, nth: int, size: int) -> None:
        """Make the nth write (0: each) take at most so many bytes."""
    def delay(self, call: _Call, nth: int, wait_ns: int) -> None:
        """Make the nth call (0: each) take so much longer."""
    def hold(self, call: _Call, nth: int = 0) -> None:
        """Keep the nth call (0: the next) and all later ones waiting, and with them `close`.

        Until `release`, or until it is said anew, which lets through those before the new nth.
        """
    def release(self, call: _Call) -> None: ...
    def count(self, call: _Call) -> int:
        """Return how many calls there were, those that are held included."""
