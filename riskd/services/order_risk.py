"""OrderRiskService and the hot half of MarketDataService: bytes in, bytes out.

The engine decodes, decides and encodes; nothing here reads the message. Both doors of the service
thus answer with the same bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from riskd.core.engine import (
    METHOD_BATCH_CHECK_ORDERS,
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_GET_RESERVATION,
    METHOD_REPORT_EXECUTION,
)
from riskd.core.permits import Permission
from riskd.services.backend import Backend
from riskd.v1 import order_risk_service_pb2 as pb

# The messages are not read here, but reflection describes what has been loaded.
SERVICE_NAME = pb.DESCRIPTOR.services_by_name["OrderRiskService"].full_name


def hot_method(backend: Backend, method: int) -> grpc.RpcMethodHandler[bytes, bytes]:
    """Return the handler of a method that the engine answers from the request's bytes.

    The engine takes a microsecond, less than the way to a thread and back, so that the event loop
    calls it itself; what waits for the disk waits without a thread.
    """
    handle = backend.commits.handle
    clock = backend.clock

    async def call(request: bytes, permission: Permission | None) -> bytes:
        return await handle(method, request, clock, permission)

    return grpc.unary_unary_rpc_method_handler(call)


def stream_method(backend: Backend) -> grpc.RpcMethodHandler[bytes, bytes]:
    """Return the handler of StreamOrders, which answers each message before it takes the next."""
    handle = backend.commits.handle_streamed
    clock = backend.clock

    async def call(
        requests: AsyncIterator[bytes], permission: Callable[[], Permission | None]
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await handle(request, clock, permission())

    return grpc.stream_stream_rpc_method_handler(call)


def add_order_risk_service(server: grpc.aio.Server, backend: Backend) -> None:
    """Register OrderRiskService."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "CheckOrder": hot_method(backend, METHOD_CHECK_ORDER),
        "CheckAmendment": hot_method(backend, METHOD_CHECK_AMENDMENT),
        "ReportExecution": hot_method(backend, METHOD_REPORT_EXECUTION),
        "BatchCheckOrders": hot_method(backend, METHOD_BATCH_CHECK_ORDERS),
        "GetReservation": hot_method(backend, METHOD_GET_RESERVATION),
        "StreamOrders": stream_method(backend),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
