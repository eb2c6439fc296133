"""What an operator watches of an engine, read while it works."""

from typing import Self

from riskd.core.engine import Engine
from riskd.core.rows import HistogramRow, JournalLagRow, LimitUses, MarkAges

class Monitor:
    """Readings of an engine, whose journal must be open before if it has one.

    No reading holds the engine's lock for long, none is of one moment, and none waits for the disk
    or ends with the journal: what is counted here may not yet be durable.
    """

    def __new__(cls, engine: Engine) -> Self: ...
    def answers(self) -> dict[tuple[str, int, int], int]:
        """Return how many answers were given, by "order", "amendment" or "execution", decision and
        reason.

        Since the engine was made, of all doors; each order of a batch is one, a repeat counts
        again, what is replayed does not.
        """
    def stages(self) -> dict[str, HistogramRow]:
        """Return how long decode, check and encode took (ns), of one call in 64 from Python."""
    def revision(self) -> int:
        """Return the number of the last change."""
    def time_ns(self) -> int:
        """Return the time of the last change (ns since 1970): the engine's is never before."""
    def tables(self) -> dict[str, tuple[int, int]]:
        """Return (rows, room for rows) of each table, by name."""
    def symbol(self, instrument_id: int) -> str:
        """Return the symbol of an instrument. Raises KeyError."""
    def marks(self, count_max: int) -> MarkAges:
        """Return the count_max oldest marks, 1 to 1024."""
    def limits(self, now_ns: int, count_max: int) -> LimitUses:
        """Return the count_max limits (1 to 1024) that are nearest to be used up."""
    def journal(self) -> JournalLagRow | None:
        """Return what is not yet durable; None if nothing is kept."""
