"""ControlService: kill switches, trading states, gateway leases and mass cancels."""

import grpc
from google.protobuf.message import Message

from riskd.services.backend import Backend, check_comment, enum_name
from riskd.services.errors import FIELD_INVALID, SCOPE_NOT_HALTED, RefusalError, reason_name
from riskd.services.messages import (
    SCOPE_ACCOUNT,
    SCOPE_GATEWAY,
    SCOPE_INSTRUMENT,
    SCOPE_SERVICE,
)
from riskd.v1 import control_service_pb2 as pb
from riskd.v1 import types_pb2
from riskd.v1.control_service_pb2_grpc import ControlServiceServicer

RESERVATIONS_LISTED_MAX = 10_000

_SCOPES = {
    "service": SCOPE_SERVICE,
    "gateway_id": SCOPE_GATEWAY,
    "account_id": SCOPE_ACCOUNT,
    "instrument_id": SCOPE_INSTRUMENT,
}
_FIELDS = {number: field for field, number in _SCOPES.items()}


class ControlService(ControlServiceServicer):
    """Stops and restricts trading."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def EngageKillSwitch(
        self, request: pb.EngageKillSwitchRequest, context: grpc.ServicerContext
    ) -> pb.EngageKillSwitchResponse:
        check_comment(request.comment)
        scope, scope_id = read_scope(request.scope)
        engine = self._backend.engine
        with self._backend.change_lock:
            revision = self._set_state(
                context, request, scope, scope_id, types_pb2.TRADING_STATE_HALTED
            )
        # After the halt: no order of the scope can be accepted any more, so the list is complete.
        reservations = engine.working_reservations(scope, scope_id, RESERVATIONS_LISTED_MAX + 1)
        return pb.EngageKillSwitchResponse(
            trading_state=types_pb2.TRADING_STATE_HALTED,
            reservation_ids=reservations[:RESERVATIONS_LISTED_MAX],
            truncated=len(reservations) > RESERVATIONS_LISTED_MAX,
            revision=revision,
        )

    def ReleaseKillSwitch(
        self, request: pb.ReleaseKillSwitchRequest, context: grpc.ServicerContext
    ) -> pb.ReleaseKillSwitchResponse:
        check_comment(request.comment)
        scope, scope_id = read_scope(request.scope)
        state = request.trading_state
        if state not in (types_pb2.TRADING_STATE_NORMAL, types_pb2.TRADING_STATE_REDUCE_ONLY):
            raise _bad_state(state, "NORMAL or REDUCE_ONLY")
        with self._backend.change_lock:
            held = self._state(scope, scope_id)
            # A release must not lift a restriction that someone else set; repeating one is fine.
            if held not in (types_pb2.TRADING_STATE_HALTED, state):
                raise RefusalError(
                    SCOPE_NOT_HALTED,
                    f"{_scope_text(scope, scope_id)} is {_state_name(held)}, not HALTED: "
                    "use ChangeTradingState",
                    trading_state=_state_name(held),
                )
            revision = self._set_state(context, request, scope, scope_id, state)
        return pb.ReleaseKillSwitchResponse(trading_state=state, revision=revision)

    def ChangeTradingState(
        self, request: pb.ChangeTradingStateRequest, context: grpc.ServicerContext
    ) -> pb.ChangeTradingStateResponse:
        check_comment(request.comment)
        scope, scope_id = read_scope(request.scope)
        state = request.trading_state
        if state not in (
            types_pb2.TRADING_STATE_NORMAL,
            types_pb2.TRADING_STATE_REDUCE_ONLY,
            types_pb2.TRADING_STATE_HALTED,
        ):
            raise _bad_state(state, "NORMAL, REDUCE_ONLY or HALTED")
        with self._backend.change_lock:
            revision = self._set_state(context, request, scope, scope_id, state)
        return pb.ChangeTradingStateResponse(trading_state=state, revision=revision)

    def ListTradingStates(
        self, request: pb.ListTradingStatesRequest, context: grpc.ServicerContext
    ) -> pb.ListTradingStatesResponse:
        engine = self._backend.engine
        response = pb.ListTradingStatesResponse(revision=engine.revision)
        for scope, scope_id, state in engine.trading_states():
            response.states.add(
                scope=self._backend.messages.scope(scope, scope_id),
                trading_state=types_pb2.TradingState.ValueType(state),
            )
        return response

    def _state(self, scope: int, scope_id: int) -> int:
        """Return the state of a scope; NORMAL has no row."""
        for row_scope, row_id, state in self._backend.engine.trading_states():
            if (row_scope, row_id) == (scope, scope_id):
                return state
        return types_pb2.TRADING_STATE_NORMAL

    def _set_state(
        self,
        context: grpc.ServicerContext,
        request: Message,
        scope: int,
        scope_id: int,
        state: int,
    ) -> int:
        """Set the state of a scope, and return the revision."""
        reason = self._backend.change(
            context,
            request,
            "set_trading_state",
            scope=scope,
            scope_id=scope_id,
            trading_state=state,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise RefusalError(
                reason,
                f"{_scope_text(scope, scope_id)}: {reason_name(reason)}",
                field=_FIELDS[scope],
                value=scope_id,
            )
        return self._backend.engine.revision


def read_scope(scope: pb.Scope) -> tuple[int, int]:
    """Return (scope, id) as the engine takes them."""
    target = scope.WhichOneof("target")
    if target is None:
        raise RefusalError(
            FIELD_INVALID,
            "scope is empty: must be service, gateway_id, account_id or instrument_id",
            field="scope",
        )
    if target == "service":
        if not scope.service:
            raise RefusalError(FIELD_INVALID, "scope.service is false: must be true", field="scope")
        return SCOPE_SERVICE, 0
    return _SCOPES[target], int(getattr(scope, target))


def _scope_text(scope: int, scope_id: int) -> str:
    return "the service" if scope == SCOPE_SERVICE else f"{_FIELDS[scope]} {scope_id}"


def _state_name(state: int) -> str:
    return enum_name(types_pb2.TradingState.items(), state, "TRADING_STATE_")


def _bad_state(state: int, bound: str) -> RefusalError:
    return RefusalError(
        FIELD_INVALID,
        f"trading_state is {_state_name(state)}: must be {bound}",
        field="trading_state",
        value=state,
        bound=bound,
    )
