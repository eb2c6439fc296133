"""What the control server measures: every call, by method and status."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from riskd.core.histogram import DurationHistogram, HistogramRow

OTHER = "other"

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


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

    def _count(self, method: str, code: str) -> None:
        key = method, code
        self._counts[key] = self._counts.get(key, 0) + 1

    def _measured(self, method: str, handler: Handler) -> Handler:
        if handler.response_streaming:
            return self._measured_stream(method, handler)
        inner: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
        if not inspect.iscoroutinefunction(inner):
            # What grpcio runs in its own threads (channelz) is left alone.
            return handler
        durations = self._durations.setdefault(method, DurationHistogram())

        async def answer(request: Any, context: Context) -> Any:
            started_ns = time.perf_counter_ns()
            try:
                return await inner(request, context)
            finally:
                durations.add(time.perf_counter_ns() - started_ns)
                self._count(method, _code_of(context))

        make: Any = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return _like(handler, make, answer)

    def _measured_stream(self, method: str, handler: Handler) -> Handler:
        inner: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
        if not inspect.isasyncgenfunction(inner):
            return handler

        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async for message in inner(request, context):
                    yield message
            finally:
                self._count(method, _code_of(context))

        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        return _like(handler, make, answer)


def _like(handler: Handler, make: Any, answer: Any) -> Handler:
    return make(  # type: ignore[no-any-return]
        answer,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _code_of(context: Context) -> str:
    """Return the name of the status that a call has at its end."""
    if context.cancelled():
        return grpc.StatusCode.CANCELLED.name
    code: Any = context.code()
    if code is None or code == 0:
        return grpc.StatusCode.OK.name
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, str(code))


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
