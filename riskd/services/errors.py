"""The error model: one exception, one mapping to gRPC, one place where it is applied.

A servicer raises RefusalError. ErrorInterceptor turns it into a gRPC status with google.rpc.Status
and exactly one ErrorInfo (domain "riskd"), and anything unexpected into INTERNAL with an opaque id
whose traceback is in the log. docs/services.md lists the reasons.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import (  # type: ignore[import-untyped]
    code_pb2,
    error_details_pb2,
    status_pb2,
)
from grpc_status import rpc_status

from riskd.numbers import NumberError
from riskd.v1 import types_pb2

DOMAIN = "riskd"
SERVICE_PREFIX = "/riskd.v1."

REQUEST_MALFORMED = "REQUEST_MALFORMED"
FIELD_INVALID = "FIELD_INVALID"
METHOD_NOT_IMPLEMENTED = "METHOD_NOT_IMPLEMENTED"
SCOPE_NOT_HALTED = "SCOPE_NOT_HALTED"
INTERNAL_ERROR = "INTERNAL_ERROR"

_REASON = types_pb2.ReasonCode

# Reasons that are not here are INVALID_ARGUMENT: the request is wrong whatever the state is.
_CODES: dict[str, Any] = {
    METHOD_NOT_IMPLEMENTED: code_pb2.UNIMPLEMENTED,
    SCOPE_NOT_HALTED: code_pb2.FAILED_PRECONDITION,
    "ACCOUNT_UNKNOWN": code_pb2.NOT_FOUND,
    "INSTRUMENT_UNKNOWN": code_pb2.NOT_FOUND,
    "SCHEDULE_UNKNOWN": code_pb2.NOT_FOUND,
    "ASSET_UNKNOWN": code_pb2.NOT_FOUND,
    "ALREADY_EXISTS": code_pb2.ALREADY_EXISTS,
    "ACCOUNTS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "POSITIONS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "ORDERS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "INSTRUMENTS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "GATEWAYS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "SCHEDULES_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "SETTLEMENT_ASSET_MISMATCH": code_pb2.FAILED_PRECONDITION,
    "MARK_MISSING": code_pb2.FAILED_PRECONDITION,
    "MARK_STALE": code_pb2.FAILED_PRECONDITION,
    "MARGIN_INSUFFICIENT": code_pb2.FAILED_PRECONDITION,
    "MARGIN_OVERFLOWS": code_pb2.FAILED_PRECONDITION,
    "EXCEEDS_AVAILABLE": code_pb2.FAILED_PRECONDITION,
    "EXCEEDS_REMOVABLE_MARGIN": code_pb2.FAILED_PRECONDITION,
    "NO_ISOLATED_POSITION": code_pb2.FAILED_PRECONDITION,
    "LEVERAGE_LOWERED_ON_ISOLATED": code_pb2.FAILED_PRECONDITION,
    "POSITION_NOT_FLAT": code_pb2.FAILED_PRECONDITION,
    "FIELD_IMMUTABLE": code_pb2.FAILED_PRECONDITION,
}

_logger = logging.getLogger("riskd.services")

Metadata = dict[str, str]
Method = Callable[[Any, grpc.ServicerContext], Any]


def reason_name(reason: int) -> str:
    """Return the name of a ReasonCode without its prefix, as ErrorInfo carries it."""
    return types_pb2.ReasonCode.Name(_REASON.ValueType(reason)).removeprefix("REASON_CODE_")


class RefusalError(Exception):
    """A call that is not done, with what its caller needs to know: reason, message, numbers."""

    def __init__(self, reason: int | str, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason if isinstance(reason, str) else reason_name(reason)
        self.message = message
        self.metadata: Metadata = {key: str(value) for key, value in metadata.items()}

    @property
    def code(self) -> Any:
        """Number of the gRPC status code."""
        return _CODES.get(self.reason, code_pb2.INVALID_ARGUMENT)


@contextmanager
def reading(reason: int | str) -> Iterator[None]:
    """Turn a NumberError inside into a RefusalError with that reason."""
    try:
        yield
    except NumberError as error:
        raise RefusalError(
            reason, str(error), field=error.field, value=error.value, bound=error.bound
        ) from None


def abort(
    context: grpc.ServicerContext, code: int, reason: str, message: str, metadata: Metadata
) -> NoReturn:
    """End the call with a status and one ErrorInfo."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    status = status_pb2.Status(code=code, message=message, details=[detail])
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status returned")


class ErrorInterceptor(grpc.ServerInterceptor):
    """Gives every method of riskd.v1 the error model, malformed requests included."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(SERVICE_PREFIX):
            return handler
        assert handler.unary_unary is not None, "riskd.v1 has unary methods only"
        return grpc.unary_unary_rpc_method_handler(
            _guarded(
                handler_call_details.method, handler.unary_unary, handler.request_deserializer
            ),
            # grpcio answers UNKNOWN when a deserialiser raises; _guarded says what was wrong.
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )


def _guarded(
    name: str, method: Method, deserialise: Callable[[bytes], Any] | None
) -> Callable[[bytes, grpc.ServicerContext], Any]:
    """Return the method with its exceptions turned into gRPC statuses."""

    def call(request: bytes, context: grpc.ServicerContext) -> Any:
        try:
            try:
                message = deserialise(request) if deserialise else request
            except DecodeError as error:
                raise RefusalError(
                    REQUEST_MALFORMED, f"request is no valid message: {error}"
                ) from None
            return method(message, context)
        except RefusalError as refusal:
            abort(context, refusal.code, refusal.reason, refusal.message, refusal.metadata)
        except Exception:
            error_id = uuid.uuid4().hex
            _logger.exception(
                "unexpected error", extra={"fields": {"error_id": error_id, "method": name}}
            )
            abort(
                context,
                code_pb2.INTERNAL,
                INTERNAL_ERROR,
                f"internal error {error_id}: its traceback is in the server's log",
                {"error_id": error_id},
            )

    return call
