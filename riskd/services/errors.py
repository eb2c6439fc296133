"""The error model: one exception, one mapping to gRPC, one place where it is applied.

A servicer raises RefusalError. ErrorInterceptor turns it into a gRPC status with google.rpc.Status
and exactly one ErrorInfo (domain "riskd"), and anything unexpected into INTERNAL with an opaque id
whose traceback is in the log. docs/services.md lists the reasons.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import (  # type: ignore[import-untyped]
    code_pb2,
    error_details_pb2,
    status_pb2,
)
from grpc_status import rpc_status

from riskd.core.engine import DeniedError, MalformedRequestError
from riskd.core.journal import JournalClosedError, JournalFailedError, JournalFullError
from riskd.numbers import NumberError
from riskd.roles import OPEN_SERVICES
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from riskd.core.permits import Permission
    from riskd.guard import Admission, Guard

DOMAIN = "riskd"
ACTOR_KEY = "riskd-actor"
SERVICE_PREFIX = "/riskd.v1."

REQUEST_MALFORMED = "REQUEST_MALFORMED"
FIELD_INVALID = "FIELD_INVALID"
SCOPE_NOT_HALTED = "SCOPE_NOT_HALTED"
INTERNAL_ERROR = "INTERNAL_ERROR"
JOURNAL_FAILED = "JOURNAL_FAILED"
JOURNAL_FULL = "JOURNAL_FULL"
DECISION_UNKNOWN = "DECISION_UNKNOWN"
DECISION_NOT_KEPT = "DECISION_NOT_KEPT"
EXPLAIN_BUSY = "EXPLAIN_BUSY"
EXPLAIN_TIMEOUT = "EXPLAIN_TIMEOUT"
STREAMS_FULL = "STREAMS_FULL"
SERVICE_STOPPING = "SERVICE_STOPPING"
CREDENTIALS_MISSING = "CREDENTIALS_MISSING"
CERTIFICATE_UNKNOWN = "CERTIFICATE_UNKNOWN"
TOKEN_UNKNOWN = "TOKEN_UNKNOWN"
METHOD_NOT_PERMITTED = "METHOD_NOT_PERMITTED"
ACCOUNT_NOT_PERMITTED = "ACCOUNT_NOT_PERMITTED"
GATEWAY_NOT_PERMITTED = "GATEWAY_NOT_PERMITTED"

_REASON = types_pb2.ReasonCode
_ACTOR = re.compile(r"[ -~]{1,64}", re.ASCII)

# Reasons that are not here are INVALID_ARGUMENT: the request is wrong whatever the state is.
_CODES: dict[str, Any] = {
    INTERNAL_ERROR: code_pb2.INTERNAL,
    JOURNAL_FAILED: code_pb2.UNAVAILABLE,
    JOURNAL_FULL: code_pb2.RESOURCE_EXHAUSTED,
    SCOPE_NOT_HALTED: code_pb2.FAILED_PRECONDITION,
    DECISION_UNKNOWN: code_pb2.NOT_FOUND,
    DECISION_NOT_KEPT: code_pb2.FAILED_PRECONDITION,
    EXPLAIN_BUSY: code_pb2.RESOURCE_EXHAUSTED,
    EXPLAIN_TIMEOUT: code_pb2.DEADLINE_EXCEEDED,
    STREAMS_FULL: code_pb2.RESOURCE_EXHAUSTED,
    SERVICE_STOPPING: code_pb2.UNAVAILABLE,
    CREDENTIALS_MISSING: code_pb2.UNAUTHENTICATED,
    CERTIFICATE_UNKNOWN: code_pb2.UNAUTHENTICATED,
    TOKEN_UNKNOWN: code_pb2.UNAUTHENTICATED,
    METHOD_NOT_PERMITTED: code_pb2.PERMISSION_DENIED,
    ACCOUNT_NOT_PERMITTED: code_pb2.PERMISSION_DENIED,
    GATEWAY_NOT_PERMITTED: code_pb2.PERMISSION_DENIED,
    "ACCOUNT_UNKNOWN": code_pb2.NOT_FOUND,
    "INSTRUMENT_UNKNOWN": code_pb2.NOT_FOUND,
    "SCHEDULE_UNKNOWN": code_pb2.NOT_FOUND,
    "ASSET_UNKNOWN": code_pb2.NOT_FOUND,
    "ALREADY_EXISTS": code_pb2.ALREADY_EXISTS,
    "ACCOUNTS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "POSITIONS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "ORDERS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "INSTRUMENTS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "FIRM_UNKNOWN": code_pb2.NOT_FOUND,
    "LIMIT_UNKNOWN": code_pb2.NOT_FOUND,
    "GATEWAYS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "SCHEDULES_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "BALANCES_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "LIMITS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "FIRMS_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "HOLDINGS_FULL": code_pb2.RESOURCE_EXHAUSTED,
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
    "OWNER_INVALID": code_pb2.FAILED_PRECONDITION,
    "OWNER_HAS_USAGE": code_pb2.FAILED_PRECONDITION,
    "LIMIT_LOOSER_THAN_PARENT": code_pb2.FAILED_PRECONDITION,
    "INSTRUMENT_NOT_EXPIRED": code_pb2.FAILED_PRECONDITION,
    "INSTRUMENT_SETTLED": code_pb2.FAILED_PRECONDITION,
    "FUNDING_OUT_OF_ORDER": code_pb2.FAILED_PRECONDITION,
    "BORN_LIQUIDATABLE_IN_MODE": code_pb2.FAILED_PRECONDITION,
    "ISOLATED_ONLY": code_pb2.FAILED_PRECONDITION,
    "SHORT_OPTION_NOT_PERMITTED": code_pb2.FAILED_PRECONDITION,
}

_logger = logging.getLogger("riskd.services")

Metadata = dict[str, str]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def reason_name(reason: int) -> str:
    """Return the name of a ReasonCode without its prefix, as ErrorInfo carries it."""
    return types_pb2.ReasonCode.Name(_REASON.ValueType(reason)).removeprefix("REASON_CODE_")


def enum_name(items: Iterable[tuple[str, int]], value: int, prefix: str) -> str:
    """Return the name of an enum's value without its prefix, or its number if it has none."""
    names = {number: name.removeprefix(prefix) for name, number in items}
    return names.get(value, str(value))


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


async def abort(context: Context, refusal: RefusalError) -> NoReturn:
    """End the call with a status and one ErrorInfo."""
    detail = any_pb2.Any()
    # The metadata in the order of its keys, as the native listener has it.
    detail.Pack(
        error_details_pb2.ErrorInfo(
            reason=refusal.reason, domain=DOMAIN, metadata=refusal.metadata
        ),
        deterministic=True,
    )
    status = status_pb2.Status(code=refusal.code, message=refusal.message, details=[detail])
    await context.abort_with_status(rpc_status.to_status(status))


class Caller:
    """Context of a cold method: all that is left of the call once it is in a thread.

    The context of grpc.aio belongs to the event loop, and ends with a call that is cancelled
    while its thread goes on.
    """

    def __init__(
        self, peer: str, metadata: Iterable[tuple[str, str | bytes]], identity: str = ""
    ) -> None:
        self._peer = peer
        named = dict(metadata).get(ACTOR_KEY)
        if not isinstance(named, str) or not _ACTOR.fullmatch(named):
            named = "" if identity else peer
        self.actor = "/".join(each for each in (identity, named) if each)
        """Who calls: its identity if it has one, and how it names itself.

        Without both (or with a name that is not valid) it is the client's address.
        """

    def peer(self) -> str:
        """Return the client's address."""
        return self._peer


def caller_of(context: grpc.ServicerContext) -> Caller:
    """Return the context of a cold method as what it is."""
    assert isinstance(context, Caller)
    return context


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Gives every method of riskd.v1 the error model, malformed requests included.

    A coroutine function is a hot method, awaited in the event loop, as streams are; anything else
    is a cold one, called in threads. None costs anything but its slot before its request has
    arrived, and a call that sends none within request_wait_s ends with DEADLINE_EXCEEDED.
    With a guard nobody calls anything but health whom it does not let in.
    """

    def __init__(
        self, threads: Executor, request_wait_s: float, guard: Guard | None = None
    ) -> None:
        self._threads = threads
        self._request_wait_s = request_wait_s
        self._guard = guard
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        name = handler_call_details.method
        if name not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            if name.startswith(SERVICE_PREFIX):
                self._handlers[name] = self._guarded(name, handler)
            elif self._guard is None or name[1:].partition("/")[0] in OPEN_SERVICES:
                self._handlers[name] = handler
            else:
                self._handlers[name] = self._foreign(name, handler)
        return self._handlers[name]

    async def _admit(self, name: str, context: Context) -> Admission | None:
        """Return that a call may be made, None where everybody may; or end the call."""
        if self._guard is None:
            return None
        try:
            return self._guard.admit_call(name[1:], context)
        except RefusalError as refusal:
            await abort(context, refusal)

    def _foreign(self, name: str, handler: Handler) -> Handler:
        """Return the handler of gRPC's own service, called by whom the guard lets in.

        These are the services of grpcio's packages, of which one streams and the others do not.
        """
        stream: Any = handler.stream_stream
        method: Any = handler.unary_unary
        if stream is not None:

            async def exchange(requests: Any, context: Context) -> AsyncIterator[Any]:
                await self._admit(name, context)
                async for message in stream(requests, context):
                    yield message

            make: Any = grpc.stream_stream_rpc_method_handler
            return cast(
                Handler, make(exchange, handler.request_deserializer, handler.response_serializer)
            )
        assert method is not None, f"{name} is neither of a stream nor of one request"

        async def answer(request: Any, context: Context) -> Any:
            await self._admit(name, context)
            reply = method(request, context)
            return await reply if inspect.isawaitable(reply) else reply

        make = grpc.unary_unary_rpc_method_handler
        return cast(
            Handler, make(answer, handler.request_deserializer, handler.response_serializer)
        )

    def _guarded(self, name: str, handler: Handler) -> Handler:
        """Return the handler with its exceptions turned into gRPC statuses.

        For grpcio it takes a stream: it calls a unary handler once there is a request, which
        leaves nobody to say that there is none. On the wire the two are the same.
        """
        deserialise = handler.request_deserializer or bytes
        if handler.unary_stream is not None:
            return self._streaming(name, handler.unary_stream, handler)
        if handler.stream_stream is not None:
            return self._exchanging(name, handler.stream_stream)
        method: Any = handler.unary_unary
        assert method is not None, "riskd.v1 has no stream of requests with one answer"
        is_hot = inspect.iscoroutinefunction(method)

        def answer_cold(request: bytes, caller: Caller, admission: Admission | None) -> Any:
            with _refusing(name, admission):
                message: Any = deserialise(request)
                if admission is not None:
                    admission.check(message)
                return method(message, caller)

        async def answer(_: object, context: Context) -> Any:
            admission = await self._admit(name, context)
            request = await _receive(context, self._request_wait_s)
            try:
                if is_hot:
                    with _refusing(name, admission):
                        return await method(request, _permission(admission))
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, answer_cold, request, _caller(context, admission), admission
                )
            except RefusalError as refusal:
                await abort(context, refusal)

        return grpc.stream_unary_rpc_method_handler(
            answer,
            # grpcio answers UNKNOWN when a deserialiser raises; answer_cold says what was wrong.
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )

    def _streaming(self, name: str, method: Any, handler: Handler) -> Handler:
        """Return the handler of a method that answers with a stream, an asynchronous generator.

        It runs in the event loop, and waits there.
        """
        deserialise: Any = handler.request_deserializer
        assert deserialise is not None, "streams are not of the hot methods"

        async def answer(_: object, context: Context) -> AsyncIterator[Any]:
            admission = await self._admit(name, context)
            request = await _receive(context, self._request_wait_s)
            try:
                with _refusing(name, admission):
                    asked = deserialise(request)
                    if admission is not None:
                        admission.check(asked)
                    async for message in method(asked, _caller(context, admission)):
                        if admission is not None and not admission.is_current():
                            admission = admission.again()
                            admission.check(asked)
                        yield message
            except RefusalError as refusal:
                await abort(context, refusal)

        return grpc.stream_stream_rpc_method_handler(
            answer, request_deserializer=None, response_serializer=handler.response_serializer
        )

    def _exchanging(self, name: str, method: Any) -> Handler:
        """Return the handler of a hot method with streams both ways, of bytes, in the event loop.

        How long a client takes between its messages is its own affair.
        """

        async def answer(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            admission = await self._admit(name, context)

            def permission() -> Permission | None:
                nonlocal admission
                if admission is not None and not admission.is_current():
                    admission = admission.again()
                return _permission(admission)

            try:
                with _refusing(name, admission):
                    async for message in method(requests, permission):
                        yield message
            except RefusalError as refusal:
                await abort(context, refusal)

        return grpc.stream_stream_rpc_method_handler(answer)


def _caller(context: Context, admission: Admission | None) -> Caller:
    identity = "" if admission is None else admission.identity.name
    return Caller(context.peer(), context.invocation_metadata() or (), identity)


def _permission(admission: Admission | None) -> Permission | None:
    return None if admission is None else admission.permission


async def _receive(context: Context, wait_s: float) -> bytes:
    """Return the request, or end the call when there is none."""
    loop = asyncio.get_running_loop()
    overdue: list[asyncio.Task[NoReturn]] = []

    def give_up() -> None:
        # Cancelling the read would free what grpcio still writes to. Once the status is sent,
        # grpcio ends the read itself.
        message = f"no request within {wait_s:g} s"
        abortion = context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, message)
        overdue.append(loop.create_task(abortion))

    timer = loop.call_later(wait_s, give_up)
    try:
        request: Any = await context.read()
    finally:
        timer.cancel()
        for abortion in overdue:
            await abortion
    if request is grpc.aio.EOF:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the call has no request message")
    return cast(bytes, request)


@contextmanager
def _refusing(name: str, admission: Admission | None) -> Iterator[None]:
    """Turn whatever is raised inside into a RefusalError, and log what is a fault of ours."""
    try:
        yield
    except RefusalError:
        raise
    except DeniedError as error:
        assert admission is not None, "nothing is denied without a guard"
        raise admission.denied(error) from None
    except DecodeError as error:
        raise RefusalError(REQUEST_MALFORMED, f"request is no valid message: {error}") from None
    except MalformedRequestError as error:
        raise RefusalError(REQUEST_MALFORMED, str(error)) from None
    except JournalFullError as error:
        raise RefusalError(JOURNAL_FULL, f"nothing was done: {error}") from None
    except (JournalFailedError, JournalClosedError) as error:
        # Where the disk is and what is wrong with it is for the log, not for a client.
        raise RefusalError(
            JOURNAL_FAILED,
            "the journal has failed or is closed: whether this call was done is known after a"
            " restart; repeat it then",
        ) from error
    except Exception:
        error_id = uuid.uuid4().hex
        _logger.exception(
            "unexpected error", extra={"fields": {"error_id": error_id, "method": name}}
        )
        raise RefusalError(
            INTERNAL_ERROR,
            f"internal error {error_id}: its traceback is in the server's log",
            error_id=error_id,
        ) from None
