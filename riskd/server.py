"""The control server: every service over grpcio, with health, reflection and channelz.

A call is answered by one of a fixed number of threads. Shutdown has three steps: health says
NOT_SERVING, new calls are refused, calls in flight get shutdown_grace_ms to finish.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from riskd.services.errors import ErrorInterceptor
from riskd.settings import Settings, SettingsError, parse_address

Register = Callable[[grpc.Server], None]

_logger = logging.getLogger("riskd.server")


class ControlServer:
    """A gRPC server for registered services. Start once, stop once.

    services maps full service names to what registers each of them.
    """

    def __init__(self, settings: Settings, services: dict[str, Register]) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="riskd")
        self._server = grpc.server(
            self._threads,
            interceptors=[ErrorInterceptor()],
            options=_options(settings),
            maximum_concurrent_rpcs=settings.concurrent_rpcs_max,
        )
        for register in services.values():
            register(self._server)
        # Watchers cost no thread: without a pool of its own, each would hold one of the workers.
        self._health_threads = ThreadPoolExecutor(1, thread_name_prefix="riskd-health")
        self._health = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=self._health_threads
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names: list[str] = [*services, health.SERVICE_NAME]
        if settings.reflection:
            channelz.add_channelz_servicer(self._server)
            names.append(channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name)
            names.append(reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self._names = names

    def start(self) -> int:
        """Listen and serve; return the port, which matters when the setting was 0.

        Raises SettingsError if the address cannot be bound.
        """
        host, _ = parse_address(self._settings.control_address)
        try:
            port = self._server.add_insecure_port(self._settings.control_address)
        except RuntimeError as error:
            self._release_threads()
            raise SettingsError(
                f"control_address {self._settings.control_address!r}: cannot listen: {error}"
            ) from None
        self._server.start()
        for name in ("", *self._names):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        _logger.info("serving", extra={"fields": {"host": host, "port": port}})
        return port

    def stop(self, grace_ms: int | None = None) -> None:
        """Refuse new calls, let those in flight finish for grace_ms (default: the setting)."""
        grace_ms = self._settings.shutdown_grace_ms if grace_ms is None else grace_ms
        self._health.enter_graceful_shutdown()
        _logger.info("stopping", extra={"fields": {"grace_ms": grace_ms}})
        self._server.stop(grace_ms / 1000).wait()
        self._release_threads()
        _logger.info("stopped")

    def _release_threads(self) -> None:
        self._threads.shutdown(wait=False)
        self._health_threads.shutdown(wait=False)


def _options(settings: Settings) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", settings.receive_message_bytes_max),
        # Pages of answers are bounded by count, and a schedule can have long tiers.
        ("grpc.max_send_message_length", 64 << 20),
        # Two servers on one port would share its connections without a word.
        ("grpc.so_reuseport", 0),
        # Clients may ping every 10 s, also without calls, to notice a dead server.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    )
