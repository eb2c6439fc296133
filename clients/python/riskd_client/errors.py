"""What can go wrong: input that the client refuses, and errors that the service answers with.

A rejected order is neither: it is an answer, with a reason.
"""
# ruff: noqa: N818 - named for what happened, as the statuses of gRPC are.

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar, Protocol

import grpc
from google.protobuf.message import DecodeError

# The package has stubs and no py.typed; which importer mypy reports that to is not ours to say.
from google.rpc import (  # type: ignore[import-untyped, unused-ignore]
    error_details_pb2,
    status_pb2,
)

# --- what the caller wrote ------------------------------------------------------------------------


class InvalidInput(ValueError):
    """The client refused a value; nothing was sent."""


class OutOfRange(InvalidInput):
    """A number is outside the range that its field can carry."""


class OffStep(InvalidInput):
    """A number is not a whole number of steps; `lower` and `upper` are the valid ones around it.

    `lower` is None where only zero would be below.
    """

    noun: ClassVar[str] = "step"

    def __init__(
        self, field: str, value: Decimal, step: str, lower: Decimal | None, upper: Decimal
    ) -> None:
        self.field = field
        self.value = value
        self.lower = lower
        self.upper = upper
        nearest = f"{upper:f}" if lower is None else f"{lower:f} or {upper:f}"
        super().__init__(
            f"{field} {value:f} is not a multiple of the {self.noun} {step}; nearest: {nearest}"
        )


class OffTick(OffStep):
    """A price is not a whole number of ticks, or a mark of mark units."""

    noun = "tick"


class OffLot(OffStep):
    """A quantity is not a whole number of lots."""

    noun = "lot"


class OffMinorUnit(OffStep):
    """An amount of money is not a whole number of the asset's minor units."""

    noun = "minor unit"


class UnknownSymbol(InvalidInput):
    """The catalogue has no such instrument; `matches` are symbols that look like it."""

    def __init__(self, symbol: str, matches: tuple[str, ...], known_count: int) -> None:
        self.symbol = symbol
        self.matches = matches
        hint = f"did you mean {' or '.join(matches)}?" if matches else f"{known_count} are known"
        super().__init__(
            f"unknown symbol {symbol!r}: {hint} (refresh() loads what was listed since)"
        )


# --- what the service answered --------------------------------------------------------------------


class RiskdError(Exception):
    """A call failed.

    `code` is the gRPC status, `reason` and `metadata` come from the error's google.rpc.ErrorInfo
    ("" and empty when it has none), `message` says it in words.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        method: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message
        self.code = code
        self.method = method
        self.reason = reason
        self.metadata = dict(metadata or {})
        super().__init__(f"{method}: {code.name}{f' ({reason})' if reason else ''}: {message}")


class InvalidArgument(RiskdError):
    """The request is malformed or a value in it is not valid."""


class NotFound(RiskdError):
    """What the request names does not exist."""


class AlreadyExists(RiskdError):
    """What the request creates exists already."""


class FailedPrecondition(RiskdError):
    """The state does not allow it; `reason` names the rule."""


class PermissionDenied(RiskdError):
    """The caller may not do this."""


class Unauthenticated(RiskdError):
    """The service does not know the caller."""


class ResourceExhausted(RiskdError):
    """The service is overloaded, or a table or quota is full."""


class Unavailable(RiskdError):
    """The service cannot be reached or does not take requests now."""


class NotImplementedByServer(RiskdError):
    """The service does not offer this call."""


class DeadlineExceeded(RiskdError):
    """A read had no answer in time. (A change raises OutcomeUnknown instead.)"""


class OutcomeUnknown(RiskdError):
    """A change was sent and no answer tells whether it was made: timeout, lost connection.

    An order carries its `client_order_id`: repeat it with that id (it returns the first answer, or
    decides now), or ask get_reservation. An execution carries its `execution_id`: repeat it with
    that. Both are None for other changes: read the state before repeating one.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        method: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        client_order_id: int | None = None,
        execution_id: int | None = None,
    ) -> None:
        super().__init__(message, code=code, method=method, reason=reason, metadata=metadata)
        self.client_order_id = client_order_id
        self.execution_id = execution_id


_CLASSES: dict[grpc.StatusCode, type[RiskdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: NotImplementedByServer,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}

# Codes that speak about the request itself: whichever attempt was answered, none was applied.
_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)

# Codes that turn a request away before it is looked at, when the service itself gives them.
_TURNED_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)


class FailedCall(Protocol):
    """What a grpc.RpcError of either API offers."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> object: ...


def error_info(trailing_metadata: object) -> error_details_pb2.ErrorInfo:
    """Return the ErrorInfo of the google.rpc.Status in trailing metadata; an empty one if none."""
    info = error_details_pb2.ErrorInfo()
    for key, value in trailing_metadata or ():  # type: ignore[attr-defined]
        if key == "grpc-status-details-bin":
            try:
                status = status_pb2.Status.FromString(value)
                for detail in status.details:
                    if detail.Unpack(info):
                        return info
            except DecodeError:
                break  # the status itself still tells what happened
    return info


def from_failed_call(
    failed: FailedCall,
    *,
    method: str,
    is_change: bool,
    is_retried: bool,
    advice: str = "",
    client_order_id: int | None = None,
    execution_id: int | None = None,
) -> RiskdError:
    """Return the exception for a failed call.

    The outcome of a change is unknown unless the answer refuses the request itself. Of a change
    that the channel does not retry, UNAVAILABLE and the like with an ErrorInfo are such an answer
    too: the service said it. Of a retried one they are not, because an earlier attempt may have
    got through; and INTERNAL never is, because a service can fail after its change.
    """
    code = failed.code()
    info = error_info(failed.trailing_metadata())
    message = failed.details() or "no details"
    is_turned_away = code in _TURNED_AWAY and bool(info.reason) and not is_retried
    if is_change and code not in _REFUSALS and not is_turned_away:
        return OutcomeUnknown(
            f"{message}; the outcome is unknown: {advice}",
            code=code,
            method=method,
            reason=info.reason,
            metadata=info.metadata,
            client_order_id=client_order_id,
            execution_id=execution_id,
        )
    return _CLASSES.get(code, RiskdError)(
        message, code=code, method=method, reason=info.reason, metadata=info.metadata
    )
