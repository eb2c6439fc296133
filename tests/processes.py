"""`riskd` as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

RISKD = (sys.executable, "-m", "riskd.cli")


def environment() -> dict[str, str]:
    """Return the variables of this process but riskd's, so that a test says what is set."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RISKD_")}


@contextmanager
def running(
    *flags: str, stderr: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run `riskd serve`; give it and what it said until it served. It is killed in the end.

    Raises RuntimeError if it ends before it serves.
    """
    server = subprocess.Popen(
        [*RISKD, "serve", *flags],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=environment(),
    )
    try:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if line.startswith("serving on "):
                break
        else:
            error = server.stderr.read() if server.stderr else said
            raise RuntimeError(f"riskd serve ended with status {server.wait()}: {error}")
        yield server, said
    finally:
        server.kill()
        server.communicate()
