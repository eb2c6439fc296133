"""Snapshots: a whole book in a file; its format is at the top of snapshot.pyx.

Engines write and read them: `Engine.write_snapshot`, `Engine.recover`, `Engine.open_journal`.
"""

import os
from typing import NamedTuple

class SnapshotInvalidError(Exception):
    """The file is not a snapshot that this program wrote or can read."""

    file: str
    reason: str
    def __init__(self, file: str, reason: str) -> None: ...

class SnapshotHead(NamedTuple):
    """What a snapshot stands for: the journal up to a record."""

    sequence: int
    revision: int
    time_ns: int
    # Of the record, as in the journal.
    checksum: int
    program_version: str
    sections: int
    size_bytes: int

def snapshot_paths(directory: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """Return (sequence, path) of the files with the name of a snapshot, newest first.

    Raises OSError.
    """

def snapshot_head(path: str | os.PathLike[str]) -> SnapshotHead:
    """Return the head of a snapshot, whose contents are not read.

    Raises SnapshotInvalidError if it or a section's head is not whole, OSError.
    """
