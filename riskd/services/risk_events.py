"""Changes of margin levels: when they are looked for, and the streams that tell of them.

One thread does both for all streams, because a read of the engine may wait for the disk. A stream
holds no thread: it waits in the event loop until something was found.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from riskd.services.backend import Backend
from riskd.services.errors import FIELD_INVALID, SERVICE_STOPPING, STREAMS_FULL, RefusalError
from riskd.v1 import margin_service_pb2 as pb

if TYPE_CHECKING:
    from riskd.core.rows import RiskEventRow

EVENTS_PER_MESSAGE_MAX = 1000

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Page:
    """Some events, and up to which revision there are no others."""

    rows: "list[RiskEventRow]"
    oldest_revision: int
    revision: int


class RiskEvents:
    """Looks for changes of levels, and streams them. All methods are of the event loop's thread."""

    def __init__(self, backend: Backend, *, slice_accounts: int, streams_max: int) -> None:
        self._backend = backend
        self._slice_accounts = slice_accounts
        self._streams_max = streams_max
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="riskd-events")
        self._next_account = 0
        self._streams = 0
        self._is_stopping = False
        # Set when there may be more to tell, and then another takes its place.
        self._found = asyncio.Event()

    async def evaluate(self) -> None:
        """Look at the next slice of accounts. Raises as Engine.evaluate_levels does."""
        engine = self._backend.engine
        first, count = self._next_account, self._slice_accounts
        self._next_account, events = await self._run(
            lambda: engine.evaluate_levels(first, count, self._backend.clock())
        )
        if events:
            self._wake()

    def stop(self) -> None:
        """End all streams: they must not use up the grace of a shutdown."""
        self._is_stopping = True
        self._wake()
        self._thread.shutdown(wait=False)

    async def watch(
        self, request: pb.WatchRiskEventsRequest
    ) -> AsyncIterator[pb.WatchRiskEventsResponse]:
        """Yield events after a revision, until the client leaves or the service stops."""
        if self._streams >= self._streams_max:
            raise RefusalError(
                STREAMS_FULL,
                f"{self._streams} streams are open: setting risk_event_streams_max is their bound",
                bound=self._streams_max,
            )
        self._streams += 1
        try:
            async for message in self._messages(request):
                yield message
        finally:
            self._streams -= 1

    async def _messages(
        self, request: pb.WatchRiskEventsRequest
    ) -> AsyncIterator[pb.WatchRiskEventsResponse]:
        after = request.after_revision
        await self._run(lambda: self._check(request))
        is_first = True
        while True:
            # Taken before the read, so that what comes meanwhile is not missed.
            found = self._found
            page = await self._run(lambda: self._read(after, request.account_id))  # noqa: B023
            if page.rows or page.oldest_revision or is_first:
                yield self._message(page)
            is_first = False
            after = page.revision
            if len(page.rows) < EVENTS_PER_MESSAGE_MAX:
                await found.wait()

    def _check(self, request: pb.WatchRiskEventsRequest) -> None:
        """Refuse an account, or a revision, that is not there."""
        if request.account_id:
            self._backend.account(request.account_id)
        revision = self._backend.engine.revision
        if request.after_revision > revision:
            raise RefusalError(
                FIELD_INVALID,
                f"after_revision is {request.after_revision}: must be at most {revision}, the "
                "last of this service",
                field="after_revision",
                value=request.after_revision,
                bound=revision,
            )

    def _read(self, after: int, account_id: int) -> _Page:
        engine = self._backend.engine
        # Before the events, so that none up to it is missing from them.
        revision = engine.revision
        rows, oldest = engine.risk_events(after, account_id, EVENTS_PER_MESSAGE_MAX)
        if len(rows) == EVENTS_PER_MESSAGE_MAX:
            revision = rows[-1].revision
        return _Page(rows, oldest, max(revision, rows[-1].revision if rows else 0))

    def _message(self, page: _Page) -> pb.WatchRiskEventsResponse:
        return pb.WatchRiskEventsResponse(
            events=[self._backend.messages.risk_event(row) for row in page.rows],
            oldest_revision=page.oldest_revision,
            revision=page.revision,
        )

    async def _run(self, read: Callable[[], _Result]) -> _Result:
        if self._is_stopping:
            raise RefusalError(SERVICE_STOPPING, "the service stops: go on where it runs again")
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    def _wake(self) -> None:
        found, self._found = self._found, asyncio.Event()
        found.set()
