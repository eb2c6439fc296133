"""A slow disk, and the loss of power: what no completed sync covers is thrown away."""

import os
import random
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")


def build_shim(directory: Path) -> Path:
    """Compile disk.c; return the library."""
    library = directory / "disk.so"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", SOURCE, "-o", library],
        check=True,
    )
    return library


class Power:
    """What of a directory is on the disk: all that is there now, and what is synced from now on."""

    def __init__(self, directory: Path, notes: Path) -> None:
        self._directory = directory
        self._notes = notes
        notes.unlink(missing_ok=True)
        files = list(directory.iterdir()) if directory.exists() else []
        self._sizes = {each.stat().st_ino: each.stat().st_size for each in files}
        self._names = {each.name: each.stat().st_ino for each in files}

    def lose(self, rng: random.Random) -> int:
        """Throw away what was not synced, or, as it also comes, leave a part of it or zeros.

        Return how many bytes went or became zeros.
        """
        self._read_notes()
        files = sorted(self._directory.iterdir()) if self._directory.exists() else []
        return sum(self._lose_of(path, rng) for path in files)

    def _lose_of(self, path: Path, rng: random.Random) -> int:
        status = path.stat()
        if path.name not in self._names and not path.name.endswith("lock"):
            before = [name for name, inode in self._names.items() if inode == status.st_ino]
            # Its making is not on the disk, or its new name is not.
            if not before:
                path.unlink()
                return status.st_size
            path = path.rename(path.with_name(before[0]))
        return self._cut(path, self._sizes.get(status.st_ino, 0), rng)

    def _cut(self, path: Path, keep: int, rng: random.Random) -> int:
        size = path.stat().st_size
        if size <= keep:
            return 0
        draw = rng.random()
        if draw > 0.5:
            keep = rng.randint(keep, size)
        os.truncate(path, keep)
        if draw > 0.75:
            os.truncate(path, size)
        return size - keep

    def _read_notes(self) -> None:
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        for line in lines:
            kind, *facts = line.split()
            if kind == "F":
                self._sizes[int(facts[0])] = int(facts[1])
            else:
                pairs = (fact.rpartition("=") for fact in facts)
                names = {name: int(inode) for name, _, inode in pairs}
                if self._is_ours(names):
                    self._names = names

    def _is_ours(self, names: dict[str, int]) -> bool:
        """Whether the entries are those of the journal's directory, not of the one above it."""
        own = self._directory.stat().st_ino
        return names.get(".") == own
