"""MarketDataService: marks in as bytes, one mark out."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from riskd.services.backend import Backend
from riskd.services.order_risk import METHOD_REPORT_MARKS, hot_method
from riskd.v1 import market_data_service_pb2 as pb

SERVICE_NAME = "riskd.v1.MarketDataService"


class MarketDataReads:
    """The cold methods of MarketDataService."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def GetMark(
        self, request: pb.GetMarkRequest, context: grpc.ServicerContext
    ) -> pb.GetMarkResponse:
        backend = self._backend
        revision = backend.engine.revision
        instrument = backend.instrument(request.instrument_id)
        mark = backend.engine.mark(instrument.instrument_id)
        if mark is None:
            return pb.GetMarkResponse(revision=revision)
        return pb.GetMarkResponse(mark=backend.messages.mark(mark), revision=revision)


def add_market_data_service(server: grpc.aio.Server, backend: Backend) -> None:
    """Register MarketDataService."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ReportMarks": hot_method(backend, METHOD_REPORT_MARKS),
        "GetMark": grpc.unary_unary_rpc_method_handler(
            MarketDataReads(backend).GetMark,
            request_deserializer=pb.GetMarkRequest.FromString,
            response_serializer=pb.GetMarkResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
