"""Histograms of durations in fixed memory."""

from typing import Self

from riskd.core.rows import HistogramRow

class DurationHistogram:
    """Counts of whole ns, 1 to 2^36, in buckets that are at most 1/32 of their values wide.

    0 counts as 1, what is longer as 2^36. Threads may add while others read.
    """

    def __new__(cls) -> Self: ...
    def add(self, value: int) -> None:
        """Count a duration in ns. Raises OverflowError if it is negative or beyond 2^64 - 1."""
    def read(self) -> HistogramRow:
        """Return what was counted so far."""
