"""The engine's sense of time: what has ended is released also while nobody calls.

GTD orders expire, leases end and margin levels change by commands that carry the time
(docs/decision.md, Time), so that a replay does the same at the same place.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from riskd.core.journal import JournalClosedError, JournalFailedError, JournalFullError
from riskd.services.commits import Commits

# Number of the engine's method, as riskd.core.engine.METHOD_ADVANCE_TIME has it.
METHOD_ADVANCE_TIME = 7

# Field 3 of the reply, the last one: there may be more that is due.
_MORE = b"\x18\x01"

_logger = logging.getLogger("riskd.ticker")


# What is told of: less is how clocks are kept right.
_BEHIND_NS_MIN = 1_000_000_000


class ClockWatch:
    """Logs that the clock was set back behind the engine's time, and when it has caught up.

    The engine's time never goes back, and stands still until then: nothing ends, limits of a rate
    do not recover, and marks of now look as old as the clock is behind.
    """

    def __init__(self, engine_time: Callable[[], int], clock: Callable[[], int]) -> None:
        self._engine_time = engine_time
        self._clock = clock
        self._is_behind = False

    def look(self) -> None:
        """Compare the two; to be called again and again."""
        behind_ns = self._engine_time() - self._clock()
        if behind_ns >= _BEHIND_NS_MIN and not self._is_behind:
            self._is_behind = True
            _logger.warning(
                "the clock is behind the engine's time, which stands still until it has caught up",
                extra={"fields": {"seconds": behind_ns / 1e9}},
            )
        elif behind_ns <= 0 and self._is_behind:
            self._is_behind = False
            _logger.info("the clock has caught up with the engine's time")


async def keep_time(
    commits: Commits,
    clock: Callable[[], int],
    interval_s: float,
    evaluate: Callable[[], Coroutine[Any, Any, None]] | None,
) -> None:
    """Tell the engine the time in every interval, until cancelled or the journal has failed.

    evaluate then looks at the margin levels of some accounts.
    """
    while True:
        await asyncio.sleep(interval_s)
        try:
            while (await commits.handle(METHOD_ADVANCE_TIME, b"", clock)).endswith(_MORE):
                # Calls that came meanwhile go first.
                await asyncio.sleep(0)
            if evaluate is not None:
                await evaluate()
        except JournalFullError as error:
            _logger.warning("time stands still", extra={"fields": {"reason": str(error)}})
        except (JournalFailedError, JournalClosedError):
            return  # The server says so, and nothing is answered any more.
