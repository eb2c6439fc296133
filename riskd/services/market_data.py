"""MarketDataService: marks in as bytes, one mark out; open interest."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from riskd.core.engine import METHOD_REPORT_MARKS
from riskd.services.backend import Backend
from riskd.services.errors import RefusalError, reading, reason_name
from riskd.services.order_risk import hot_method
from riskd.v1 import market_data_service_pb2 as pb
from riskd.v1 import types_pb2

SERVICE_NAME = "riskd.v1.MarketDataService"


class MarketDataCold:
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

    def ReportOpenInterest(
        self, request: pb.ReportOpenInterestRequest, context: grpc.ServicerContext
    ) -> pb.ReportOpenInterestResponse:
        backend = self._backend
        instrument = backend.instrument(request.instrument_id)
        with reading(types_pb2.REASON_CODE_DEFINITION_INVALID):
            lots = instrument.lots(request.open_interest, "open_interest", 0)
        reason = backend.change(
            context,
            request,
            "report_open_interest",
            instrument_id=instrument.instrument_id,
            lots=lots,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise RefusalError(reason, f"{instrument.symbol}: {reason_name(reason)}")
        return pb.ReportOpenInterestResponse(revision=backend.engine.revision)


def add_market_data_service(server: grpc.aio.Server, backend: Backend) -> None:
    """Register MarketDataService."""
    cold = MarketDataCold(backend)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ReportMarks": hot_method(backend, METHOD_REPORT_MARKS),
        "GetMark": grpc.unary_unary_rpc_method_handler(
            cold.GetMark,
            request_deserializer=pb.GetMarkRequest.FromString,
            response_serializer=pb.GetMarkResponse.SerializeToString,
        ),
        "ReportOpenInterest": grpc.unary_unary_rpc_method_handler(
            cold.ReportOpenInterest,
            request_deserializer=pb.ReportOpenInterestRequest.FromString,
            response_serializer=pb.ReportOpenInterestResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
