"""What surrounds calls of a grpc.aio server, whatever their shape."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import grpc
import grpc.aio

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# Names of the status codes.
STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

# By whether requests are a stream, and responses.
_MAKERS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def wrapped(handler: Handler, around: Callable[[Context], AbstractContextManager[None]]) -> Handler:
    """Return the handler with `around` entered for each call, and left when it has its status.

    What grpcio runs in its own threads (channelz), and what writes its answers itself (Watch of
    health), is returned as it is.
    """
    inner: Any = (
        handler.stream_stream or handler.unary_stream or handler.stream_unary or handler.unary_unary
    )

    async def answer(request: Any, context: Context) -> Any:
        with around(context):
            return await inner(request, context)

    async def answer_on(request: Any, context: Context) -> AsyncIterator[Any]:
        with around(context):
            async for message in inner(request, context):
                yield message

    if handler.response_streaming:
        if not inspect.isasyncgenfunction(inner):
            return handler
    elif not inspect.iscoroutinefunction(inner):
        return handler
    make = _MAKERS[handler.request_streaming, handler.response_streaming]
    made: Handler = make(
        answer_on if handler.response_streaming else answer,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
    return made


def code_of(context: Context) -> str:
    """Return the name of the status that a call has at its end."""
    if context.cancelled():
        return grpc.StatusCode.CANCELLED.name
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return STATUS_NAMES.get(code or 0, str(code))
