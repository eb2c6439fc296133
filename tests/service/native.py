"""The native door in tests. What needs it is skipped where it is not built."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc

from riskd.core.engine import Engine
from riskd.v1.order_risk_service_pb2_grpc import OrderRiskServiceStub
from tests.service.conftest import NOW_NS, TIMEOUT_S

if TYPE_CHECKING:
    from riskd.core.listener import Listener
    from riskd.core.tls import Tls

SERVICE = "/riskd.v1.OrderRiskService/"
needs_native = pytest.mark.skipif(
    find_spec("riskd.core.listener") is None,
    reason="the native door is not built: it needs libnghttp2-dev and libssl-dev",
)
# Options of the listeners of a test, unless it says otherwise.
DEFAULTS: dict[str, Any] = {}


@dataclass
class Native:
    """A native listener and a client of it."""

    listener: Listener
    address: str
    channel: grpc.Channel

    @property
    def orders(self) -> OrderRiskServiceStub:
        return OrderRiskServiceStub(self.channel)

    @property
    def health(self) -> Any:
        return health_pb2_grpc.HealthStub(self.channel)

    def call(
        self, method: str, request: bytes, **options: Any
    ) -> tuple[grpc.StatusCode, str, bytes, Any]:
        """Call a method with bytes; return status, message, reply and trailers."""
        return call(self.channel, SERVICE + method, request, **options)


def call(
    channel: grpc.Channel, path: str, request: bytes, **options: Any
) -> tuple[grpc.StatusCode, str, bytes, Any]:
    bare: Any = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
    try:
        reply, ended = bare.with_call(request, **({"timeout": TIMEOUT_S} | options))
        return ended.code(), ended.details(), reply, ended.trailing_metadata()
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code(), failed.details(), b"", failed.trailing_metadata()


@contextmanager
def listening(
    engine: Engine,
    address: str = "127.0.0.1:0",
    *,
    tls: Tls | None = None,
    time_ns: int = NOW_NS,
    **options: Any,
) -> Iterator[Native]:
    """Start a listener; it and its channel, in plain text, are gone at the end of the block."""
    built = pytest.importorskip("riskd.core.listener")
    listener = built.Listener(engine, time_ns=time_ns, **(DEFAULTS | options))
    bound = listener.listen(address, tls)
    listener.start()
    try:
        with grpc.insecure_channel(bound) as channel:
            yield Native(listener, bound, channel)
    finally:
        listener.stop(0)


def seconds_open(address: str, opening: bytes) -> float:
    """Connect, say no more than an opening, and return how long the server waits for the rest."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), TIMEOUT_S) as client:
        begun = time.monotonic()
        client.sendall(opening)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(4096):
                pass
        return time.monotonic() - begun
