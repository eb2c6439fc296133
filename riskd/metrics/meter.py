"""What the control server measures: every call, by method and status."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import grpc
import grpc.aio

from riskd.core.histogram import DurationHistogram
from riskd.core.rows import HistogramRow
from riskd.wrapping import Context, Handler, code_of, wrapped

OTHER = "other"


class CallMeter(grpc.aio.ServerInterceptor):
    """Counts calls and times them. Written in the event loop, read from any thread.

    Names that no service has count as one method, so clients cannot add to what is kept.
    """

    def __init__(self, journal: DurationHistogram) -> None:
        self.journal = journal
        """How long replies to hot calls waited for the journal, in ns."""
        self._counts: dict[tuple[str, str], int] = {}
        self._durations: dict[str, DurationHistogram] = {}
        self._handlers: dict[str, Handler] = {}

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many calls have ended, by method and status."""
        return dict(self._counts)

    def durations(self) -> dict[str, HistogramRow]:
        """Return how long calls took, by method; of streams nothing is said."""
        return {name: each.read() for name, each in dict(self._durations).items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        path = handler_call_details.method
        if path not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                self._count(OTHER, grpc.StatusCode.UNIMPLEMENTED.name)
                return None
            self._handlers[path] = self._measured(path.rpartition("/")[2], handler)
        return self._handlers[path]

    def _measured(self, method: str, handler: Handler) -> Handler:
        durations = None
        if not handler.response_streaming:
            durations = self._durations.setdefault(method, DurationHistogram())

        @contextmanager
        def around(context: Context) -> Iterator[None]:
            started_ns = time.perf_counter_ns()
            try:
                yield
            finally:
                if durations is not None:
                    durations.add(time.perf_counter_ns() - started_ns)
                self._count(method, code_of(context))

        return wrapped(handler, around)

    def _count(self, method: str, code: str) -> None:
        key = method, code
        self._counts[key] = self._counts.get(key, 0) + 1
