"""ControlService: kill switches, trading states, gateway leases and mass cancels."""

import grpc
from google.protobuf.message import Message

from riskd.services.backend import Backend, check_comment, page_bounds
from riskd.services.errors import (
    FIELD_INVALID,
    SCOPE_NOT_HALTED,
    RefusalError,
    enum_name,
    reason_name,
)
from riskd.services.messages import (
    NS_PER_MS,
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    SCOPE_INSTRUMENT,
    SCOPE_SERVICE,
)
from riskd.v1 import control_service_pb2 as pb
from riskd.v1 import types_pb2
from riskd.v1.control_service_pb2_grpc import ControlServiceServicer

RESERVATIONS_LISTED_MAX = 10_000
RESERVATIONS_KEPT_MAX = 10_000
LEASE_MS_MAX = 86_400_000

_SCOPES = {
    "service": SCOPE_SERVICE,
    "gateway_id": SCOPE_GATEWAY,
    "account_id": SCOPE_ACCOUNT,
    "instrument_id": SCOPE_INSTRUMENT,
    "firm_id": SCOPE_FIRM,
}
_LEASE_ACTIONS = (types_pb2.LEASE_ACTION_BLOCK, types_pb2.LEASE_ACTION_CANCEL)
_SIDES = (types_pb2.SIDE_UNSPECIFIED, types_pb2.SIDE_BUY, types_pb2.SIDE_SELL)
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

    def RenewGatewayLease(
        self, request: pb.RenewGatewayLeaseRequest, context: grpc.ServicerContext
    ) -> pb.RenewGatewayLeaseResponse:
        backend = self._backend
        _check_gateway(request.gateway_id)
        if request.duration_ms > LEASE_MS_MAX:
            raise _invalid("duration_ms", request.duration_ms, f"0 to {LEASE_MS_MAX}")
        if request.duration_ms and request.action not in _LEASE_ACTIONS:
            name = enum_name(types_pb2.LeaseAction.items(), request.action, "LEASE_ACTION_")
            raise _invalid("action", name, "BLOCK or CANCEL")
        now_ns = backend.clock()
        duration_ns = request.duration_ms * NS_PER_MS
        reason = backend.change(
            context,
            request,
            "renew_lease",
            gateway_id=request.gateway_id,
            duration_ns=duration_ns,
            action=request.action,
            now_ns=now_ns,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise RefusalError(
                reason,
                "the gateway table is full: setting gateways_max is its size",
                field="gateway_id",
                value=request.gateway_id,
            )
        return pb.RenewGatewayLeaseResponse(
            lease_end_time_ns=now_ns + duration_ns if duration_ns else 0,
            revision=backend.engine.revision,
        )

    def ListGateways(
        self, request: pb.ListGatewaysRequest, context: grpc.ServicerContext
    ) -> pb.ListGatewaysResponse:
        backend = self._backend
        after_id, count_max = page_bounds(request.page_size, request.page_token)
        revision = backend.engine.revision
        rows = [row for row in backend.engine.gateways() if row.gateway_id > after_id]
        return pb.ListGatewaysResponse(
            gateways=[backend.messages.gateway(row) for row in rows[:count_max]],
            next_page_token=str(rows[count_max - 1].gateway_id) if len(rows) > count_max else "",
            revision=revision,
        )

    def CancelOrders(
        self, request: pb.CancelOrdersRequest, context: grpc.ServicerContext
    ) -> pb.CancelOrdersResponse:
        backend = self._backend
        check_comment(request.comment)
        if not (request.gateway_id or request.account_id or request.instrument_id):
            raise _invalid(
                "gateway_id, account_id and instrument_id", 0, "at least one of them not 0"
            )
        if request.side not in _SIDES:
            raise _invalid("side", request.side, "BUY, SELL or not set")
        if request.account_id:
            backend.account(request.account_id)
        if request.instrument_id:
            backend.instrument(request.instrument_id)
        kept = len(request.keep_reservation_ids)
        if kept > RESERVATIONS_KEPT_MAX:
            raise _invalid(
                "keep_reservation_ids", f"{kept} ids", f"at most {RESERVATIONS_KEPT_MAX}"
            )
        reason, count, reservations = backend.change(
            context,
            request,
            "cancel_orders",
            gateway_id=request.gateway_id,
            account_id=request.account_id,
            instrument_id=request.instrument_id,
            side=request.side,
            accepted_before_ns=request.accepted_before_time_ns,
            keep=list(request.keep_reservation_ids),
            validate_only=request.validate_only,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise RefusalError(reason, f"cancelling orders: {reason_name(reason)}")
        return pb.CancelOrdersResponse(
            count=count, reservation_ids=reservations, revision=backend.engine.revision
        )

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
            "scope is empty: must be service, gateway_id, account_id, instrument_id or firm_id",
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


def _check_gateway(gateway_id: int) -> None:
    if gateway_id == 0:
        raise RefusalError(
            types_pb2.REASON_CODE_GATEWAY_ID_MISSING,
            "gateway_id is 0: must be 1 to 2^32 - 1",
            field="gateway_id",
            value=0,
        )


def _invalid(field: str, value: object, bound: str) -> RefusalError:
    return RefusalError(
        types_pb2.REASON_CODE_DEFINITION_INVALID,
        f"{field} is {value}: must be {bound}",
        field=field,
        value=value,
        bound=bound,
    )
