"""A span of OpenTelemetry for each call of riskd.v1 at the control server.

What is needed is the extra `traces`; without traces_endpoint nothing of it is imported. Spans go
to the collector in batches, from a thread of their own and a queue that forgets what it has no room
for, so a collector that is slow or gone costs no call anything.

A span says what was called, how it ended and the revision then: nothing of the request, of its
metadata or of a message to the client. Attributes:
https://opentelemetry.io/docs/specs/semconv/registry/attributes/rpc/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from riskd import __version__
from riskd.services.errors import SERVICE_PREFIX
from riskd.settings import Settings, SettingsError
from riskd.wrapping import Context, Handler, code_of, wrapped

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

# For one batch; what is not taken by then is lost.
EXPORT_S = 5

# W3C Trace Context, and no other metadata.
_CARRIED = ("traceparent", "tracestate")
# Statuses that are the server's fault, as the conventions for spans of servers have them.
_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


def build_provider(settings: Settings, exporter: SpanExporter | None = None) -> TracerProvider:
    """Return what spans go to: traces_endpoint, or the exporter if there is one.

    Raises SettingsError if the extra is not installed.
    """
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
            BatchSpanProcessor,
            SimpleSpanProcessor,
        )
    except ImportError as error:
        raise _missing(error) from None
    resource = Resource.create({"service.name": "riskd", "service.version": __version__})
    # Which spans are taken is the SDK's affair: OTEL_TRACES_SAMPLER, by default the client's word.
    provider = TracerProvider(resource=resource)
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return provider
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
    except ImportError as error:
        raise _missing(error) from None
    endpoint = settings.traces_endpoint
    insecure = endpoint.startswith("http://")
    otlp = OTLPSpanExporter(endpoint=endpoint, insecure=insecure, timeout=EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(otlp))
    return provider


def _missing(error: ImportError) -> SettingsError:
    return SettingsError(
        f"traces_endpoint needs OpenTelemetry ({error}): pip install 'riskd[traces]'"
    )


class TraceInterceptor(grpc.aio.ServerInterceptor):
    """Puts a span around each call of riskd.v1; revision gives the number of the last change."""

    def __init__(self, provider: TracerProvider, revision: Callable[[], int]) -> None:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self._trace = trace
        self._provider = provider
        self._tracer = trace.get_tracer("riskd", __version__, provider)
        self._propagator = TraceContextTextMapPropagator()
        self._revision = revision
        self._handlers: dict[str, Handler] = {}

    def close(self) -> None:
        """Send what is left, at most for EXPORT_S; spans are lost from then on."""
        self._provider.shutdown()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        path = handler_call_details.method
        if path not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None or not path.startswith(SERVICE_PREFIX):
                return handler
            self._handlers[path] = self._traced(path.removeprefix("/"), handler)
        return self._handlers[path]

    def _traced(self, name: str, handler: Handler) -> Handler:
        service, _, method = name.partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}

        @contextmanager
        def around(context: Context) -> Iterator[None]:
            carried = {
                key: value
                for key, value in context.invocation_metadata() or ()
                if key in _CARRIED and isinstance(value, str)
            }
            span = self._tracer.start_span(
                name,
                context=self._propagator.extract(carried),
                kind=self._trace.SpanKind.SERVER,
                attributes=attributes,
            )
            try:
                yield
            finally:
                code = code_of(context)
                span.set_attribute("rpc.grpc.status_code", _NUMBERS.get(code, code))
                span.set_attribute("riskd.revision", self._revision())
                if code in _FAULTS:
                    span.set_status(self._trace.StatusCode.ERROR)
                span.end()

        return wrapped(handler, around)


_NUMBERS = {code.name: code.value[0] for code in grpc.StatusCode}
