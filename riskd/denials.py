"""What was denied, to whom: counted, kept for the auditor, and logged at a bounded rate.

Denials of one identity, reason and method at one door are one row, however many they are, so that
nobody can push out what others did by being denied often.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

ROWS_MAX = 4096
# So many lines at once, and so many a second after them; what is beyond is counted in a summary.
LINES_MAX = 100
LINES_PER_S = 10
SUMMARY_S = 10.0

CONTROL = "control"
NATIVE = "native"
# In the place of a reason: a kind of denial beyond those that the native door keeps.
NOT_KEPT = "NOT_KEPT"

_logger = logging.getLogger("riskd.denials")


@dataclass(frozen=True, slots=True)
class Denial:
    """Calls that were denied: count of them, the last with its peer and what it was about.

    identity is empty while nobody knows who it was; shown is then the name in its certificate.
    subject is the account or gateway, as the error names it. Times in nanoseconds since 1970.
    """

    door: str
    reason: str
    identity: str
    method: str
    time_ns: int
    first_time_ns: int
    peer: str
    subject: str = ""
    shown: str = ""
    count: int = 1


class Denials:
    """All denials of a service. Thread-safe."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str, str, str], Denial] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lines = float(LINES_MAX)
        self._filled_s = self._summed_s = seconds()
        self._unwritten: Counter[str] = Counter()

    def add(self, denial: Denial) -> None:
        """Count a denial, keep it, and log it if it is not one of too many."""
        key = denial.door, denial.identity, denial.reason, denial.method
        with self._lock:
            self._counts[denial.door, denial.reason] += denial.count
            before = self._rows.pop(key, None)
            if before is not None:
                count = before.count + denial.count
                denial_now = replace(denial, count=count, first_time_ns=before.first_time_ns)
            else:
                denial_now = denial
                if len(self._rows) == ROWS_MAX:
                    del self._rows[next(iter(self._rows))]
            # The newest is the last.
            self._rows[key] = denial_now
            is_written = self._take_line()
            if not is_written:
                self._unwritten[denial.reason] += denial.count
        if is_written:
            _write(denial)

    def add_unseen(self, door: str, count: int) -> None:
        """Count denials of which nothing is known but that they were."""
        with self._lock:
            self._counts[door, NOT_KEPT] += count

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many calls were denied since the start, by door and reason."""
        with self._lock:
            return dict(self._counts)

    def rows(self) -> list[Denial]:
        """Return what is kept, the newest first."""
        with self._lock:
            return list(reversed(self._rows.values()))

    def summarise(self, *, now: bool = False) -> None:
        """Log how many denials were not, once in SUMMARY_S or now; to be called again and again."""
        with self._lock:
            if not self._unwritten or not (now or self._seconds() - self._summed_s >= SUMMARY_S):
                return
            unwritten = dict(self._unwritten)
            self._unwritten.clear()
            self._summed_s = self._seconds()
        _logger.warning("denied, not logged one by one", extra={"fields": {"counts": unwritten}})

    def _take_line(self) -> bool:
        seconds = self._seconds()
        self._lines = min(LINES_MAX, self._lines + (seconds - self._filled_s) * LINES_PER_S)
        self._filled_s = seconds
        if self._lines < 1:
            return False
        self._lines -= 1
        return True


def _write(denial: Denial) -> None:
    fields = {
        "door": denial.door,
        "reason": denial.reason,
        "identity": denial.identity,
        "method": denial.method,
        "peer": denial.peer,
        "subject": denial.subject,
        "shown": denial.shown,
        "count": denial.count,
    }
    _logger.warning("denied", extra={"fields": {key: each for key, each in fields.items() if each}})
