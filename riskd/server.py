"""The control server: every service over grpcio, with health, reflection and channelz.

Calls arrive in an event loop, in a thread of its own. It answers the hot methods itself and hands
the cold ones to a fixed number of threads, each once its whole request is there: a client that
sends headers and nothing else holds no thread. Shutdown has three steps: health says NOT_SERVING,
new calls are refused, calls in flight get shutdown_grace_ms to finish.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc.aio
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from riskd.certificates import Certificates
from riskd.core.journal import JournalFailedError
from riskd.guard import Guard, check_guarded
from riskd.metrics.meter import CallMeter
from riskd.services.commits import Commits
from riskd.services.errors import ErrorInterceptor
from riskd.settings import Settings, SettingsError, parse_address
from riskd.tracing import TraceInterceptor

Register = Callable[[grpc.aio.Server], None]

# A call of riskd.v1 that has sent no request by then ends, which frees its slot.
REQUEST_WAIT_S = 10.0
# A quarter of the default concurrent_rpcs_max: one connection cannot take all slots.
STREAMS_PER_CONNECTION_MAX = 256

_logger = logging.getLogger("riskd.server")


class _Health(health.aio.HealthServicer):
    """Names the service that it does not know, as the native listener does."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = names

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> Any:
        if request.service not in ("", *self._names):
            message = f"service {request.service} is unknown"
            await context.abort(grpc.StatusCode.NOT_FOUND, message)
        return await super().Check(request, context)


class ControlServer:
    """A gRPC server for registered services. Start once, stop once.

    services maps full service names to what registers each of them; keep_time runs beside them, and
    end_streams ends answers that would never end, in the loop, when a stop begins. guard says who
    may call; None: everybody. tracing gets a span of each call; None: there are none.
    When the journal fails, health says NOT_SERVING; calls are still answered, each with its error.
    Raises SettingsError if the certificates of the settings cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        services: dict[str, Register],
        commits: Commits,
        keep_time: Callable[[], Coroutine[Any, Any, None]],
        end_streams: Callable[[], None],
        guard: Guard | None = None,
        tracing: TraceInterceptor | None = None,
    ) -> None:
        check_guarded(settings, guard)
        self._settings = settings
        self._services = services
        self._commits = commits
        self.meter = CallMeter(commits.waits)
        self._keep_time = keep_time
        self._end_streams = end_streams
        self._guard = guard
        self._tracing = tracing
        self._certificates = Certificates(settings) if settings.certificate_file else None
        self._asked_to_stop: Future[int] = Future()
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen and serve; return the port, which matters when the setting was 0.

        Raises SettingsError if the address cannot be bound.
        """
        host, _ = parse_address(self._settings.control_address)
        started: Future[int] = Future()
        # A daemon: a process that fails without stop() must end all the same.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="riskd-loop", daemon=True
        )
        self._thread.start()
        try:
            port = started.result()
        except RuntimeError as error:
            self._thread.join()
            raise SettingsError(
                f"control_address {self._settings.control_address!r}: cannot listen: {error}"
            ) from None
        _logger.info("serving", extra={"fields": {"host": host, "port": port}})
        return port

    def reload(self) -> None:
        """Read the certificates again, for new connections. Raises SettingsError if they are bad.

        What is in use then stays.
        """
        if self._certificates is not None:
            self._certificates.reload()

    def stop(self, grace_ms: int | None = None) -> None:
        """Refuse new calls, let those in flight finish for grace_ms (default: the setting)."""
        grace_ms = self._settings.shutdown_grace_ms if grace_ms is None else grace_ms
        if self._thread is None:
            return
        if not self._asked_to_stop.done():
            self._asked_to_stop.set_result(grace_ms)
        self._thread.join()
        if self._tracing is not None:
            self._tracing.close()

    async def _serve(self, started: Future[int]) -> None:
        """Serve until asked to stop; started gets the port, or why there is none."""
        settings = self._settings
        threads = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="riskd")
        server = grpc.aio.server(
            interceptors=[
                self.meter,
                *([] if self._tracing is None else [self._tracing]),
                ErrorInterceptor(threads, REQUEST_WAIT_S, self._guard),
            ],
            options=_options(settings),
            maximum_concurrent_rpcs=settings.concurrent_rpcs_max,
        )
        try:
            servicer = await self._register(server)
            if self._certificates is None:
                port = server.add_insecure_port(settings.control_address)
            else:
                port = server.add_secure_port(
                    settings.control_address, self._certificates.credentials()
                )
            await server.start()
        except BaseException as error:
            started.set_exception(error)
            return
        tasks: list[asyncio.Task[None]] = []

        def fail(error: JournalFailedError) -> None:
            _logger.error(
                "the journal has failed: nothing is answered any more",
                extra={"fields": {"reason": str(error)}},
            )
            tasks.append(asyncio.create_task(servicer.enter_graceful_shutdown()))

        self._commits.watch(fail)
        ticking = asyncio.create_task(self._keep_time())
        started.set_result(port)
        grace_ms = await asyncio.wrap_future(self._asked_to_stop)
        await servicer.enter_graceful_shutdown()
        self._end_streams()
        _logger.info("stopping", extra={"fields": {"grace_ms": grace_ms}})
        await server.stop(grace_ms / 1000)
        ticking.cancel()
        # Calls that were cut off end by themselves; grpcio complains of each that is cancelled.
        ending = asyncio.all_tasks() - {asyncio.current_task()}
        if ending:
            await asyncio.wait(ending, timeout=1)
        self._commits.unwatch()
        threads.shutdown(wait=False)
        _logger.info("stopped")

    async def _register(self, server: grpc.aio.Server) -> health.aio.HealthServicer:
        """Register every service; return that of health, which says SERVING for each."""
        for register in self._services.values():
            register(server)
        names: list[str] = [*self._services, health.SERVICE_NAME]
        servicer = _Health(names)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        if self._settings.reflection:
            channelz.add_channelz_servicer(server)
            names.append(channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name)
            names.append(reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        for name in ("", *names):
            await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        return servicer


def _options(settings: Settings) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", settings.receive_message_bytes_max),
        # Pages of answers are bounded by count, and a schedule can have long tiers.
        ("grpc.max_send_message_length", 64 << 20),
        # Two servers on one port would share its connections without a word.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
        # The server pings too: a peer that is gone does not keep its slots.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping every 10 s, also without calls, to notice a dead server.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    )
