"""Replies that wait, in the event loop, until what they show is as durable as was promised.

The engine appends to its journal and answers at once; the journal's writer thread makes whole
batches durable and then makes a file readable, which wakes the loop. So one sync answers all calls
that came during the one before, and no call holds a thread.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from riskd.core.histogram import DurationHistogram
from riskd.core.journal import JournalFailedError, JournalFullError

if TYPE_CHECKING:
    from riskd.core.engine import Engine
    from riskd.core.permits import Permission


class Commits:
    """Hot calls on an engine. All methods are of the event loop's thread.

    A call that finds the journal full waits for room, at most room_wait_s.
    """

    def __init__(self, engine: "Engine", room_wait_s: float) -> None:
        self._engine = engine
        self._room_wait_s = room_wait_s
        self.waits = DurationHistogram()
        """How long replies waited for the journal, in ns."""
        # Set with the next commit, and then another takes its place.
        self._commit = asyncio.Event()
        self._failure: JournalFailedError | None = None
        self._on_failure: Callable[[JournalFailedError], None] = lambda error: None

    def watch(self, on_failure: Callable[[JournalFailedError], None]) -> None:
        """Begin in the running loop; on_failure is called with why when the journal fails."""
        self._on_failure = on_failure
        if self._engine.journal is not None:
            file = self._engine.journal.commit_file
            asyncio.get_running_loop().add_reader(file, self._wake)

    def unwatch(self) -> None:
        """End what `watch` began."""
        if self._engine.journal is not None:
            asyncio.get_running_loop().remove_reader(self._engine.journal.commit_file)

    async def handle(
        self,
        method: int,
        request: bytes,
        clock: Callable[[], int],
        permission: "Permission | None" = None,
    ) -> bytes:
        """Apply a hot request and return its reply when it may leave.

        Raises as Engine.handle does, and DeniedError if there is a permission that does not reach
        so far.
        """
        return await self._submit(lambda: self._engine.submit(method, request, clock(), permission))

    async def handle_streamed(
        self, request: bytes, clock: Callable[[], int], permission: "Permission | None" = None
    ) -> bytes:
        """Apply a message of StreamOrders, as `handle` does."""
        return await self._submit(
            lambda: self._engine.submit_streamed(request, clock(), permission)
        )

    async def _submit(self, submit: Callable[[], tuple[bytes, int]]) -> bytes:
        engine = self._engine
        try:
            reply, sequence = submit()
        except JournalFullError:
            reply, sequence = await self._submit_with_room(submit)
        if sequence <= engine.durable_sequence:
            self.waits.add(0)
            return reply
        began_ns = time.perf_counter_ns()
        while sequence > engine.durable_sequence:
            # Nothing becomes durable after a failure.
            if self._failure is not None:
                raise self._failure
            await self._commit.wait()
        self.waits.add(time.perf_counter_ns() - began_ns)
        return reply

    async def _submit_with_room(self, submit: Callable[[], tuple[bytes, int]]) -> tuple[bytes, int]:
        try:
            async with asyncio.timeout(self._room_wait_s):
                while True:
                    await self._commit.wait()
                    try:
                        return submit()
                    except JournalFullError:
                        continue
        except TimeoutError:
            # In time or never: this raises why.
            return submit()

    def _wake(self) -> None:
        journal = self._engine.journal
        assert journal is not None, "only a journal's file is watched"
        os.eventfd_read(journal.commit_file)
        commit, self._commit = self._commit, asyncio.Event()
        commit.set()
        if self._failure is None and journal.error is not None:
            self._failure = journal.error
            self._on_failure(self._failure)
