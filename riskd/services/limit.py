"""LimitService: limits, raises, and how much of each is used."""

import re
from typing import TYPE_CHECKING

import grpc

from riskd import limits
from riskd.catalogue import Asset, Instrument
from riskd.services.backend import Backend, check_comment, page_count
from riskd.services.errors import FIELD_INVALID, RefusalError, enum_name, reading, reason_name
from riskd.services.messages import SCOPE_ACCOUNT, SCOPE_FIRM, SCOPE_GATEWAY
from riskd.v1 import limit_service_pb2 as pb
from riskd.v1 import types_pb2
from riskd.v1.limit_service_pb2_grpc import LimitServiceServicer

if TYPE_CHECKING:
    from riskd.core.engine import LimitRow

RAISE_NS_MAX = 7 * 86_400 * 10**9

_INVALID = types_pb2.REASON_CODE_DEFINITION_INVALID
_ACTIONS = (types_pb2.LIMIT_ACTION_HARD, types_pb2.LIMIT_ACTION_SOFT)
_RESETTABLE = (types_pb2.LIMIT_KIND_EXECUTION_RATE_MAX, types_pb2.LIMIT_KIND_DRAWDOWN_MAX)
# scope.scope_id.instrument_id.kind of the last limit of the page before.
_TOKEN = re.compile(r"([0-9]{1,20})\.([0-9]{1,20})\.([0-9]{1,20})\.([0-9]{1,20})", re.ASCII)


class LimitService(LimitServiceServicer):
    """Limits of firms, accounts and gateways."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def SetLimit(
        self, request: pb.SetLimitRequest, context: grpc.ServicerContext
    ) -> pb.SetLimitResponse:
        check_comment(request.comment)
        key = request.key
        asset, instrument = self._read_key(key)
        value = 0
        if limits.unit_of(key.kind) is not limits.Unit.NONE:
            with reading(_INVALID):
                value = limits.read_value(request.value, key.kind, asset, instrument, "value")
        elif request.value:
            raise _invalid("value", request.value[:64], f"empty for {limits.kind_name(key.kind)}")
        if not limits.has_burst(key.kind) and request.burst:
            raise _invalid("burst", request.burst, f"0 for {limits.kind_name(key.kind)}")
        if limits.has_burst(key.kind) and not 1 <= request.burst <= limits.BURST_MAX:
            raise _invalid("burst", request.burst, f"1 to {limits.BURST_MAX}")
        if request.action not in _ACTIONS:
            name = enum_name(types_pb2.LimitAction.items(), request.action, "LIMIT_ACTION_")
            raise _invalid("action", name, "HARD or SOFT")
        revision = self._change(
            context,
            request,
            "set_limit",
            value=value,
            burst=request.burst,
            action=request.action,
            now_ns=self._backend.clock(),
        )
        return pb.SetLimitResponse(limit=self._limit(key), revision=revision)

    def RaiseLimit(
        self, request: pb.RaiseLimitRequest, context: grpc.ServicerContext
    ) -> pb.RaiseLimitResponse:
        check_comment(request.comment)
        key = request.key
        asset, instrument = self._read_key(key)
        if limits.unit_of(key.kind) is limits.Unit.NONE:
            raise _invalid(
                "key.kind",
                limits.kind_name(key.kind),
                "a kind with a value: there is none to raise",
            )
        with reading(_INVALID):
            value = limits.read_value(request.value, key.kind, asset, instrument, "value")
        now_ns = self._backend.clock()
        if not now_ns < request.until_time_ns <= now_ns + RAISE_NS_MAX:
            raise _invalid(
                "until_time_ns",
                request.until_time_ns,
                f"{now_ns + 1} to {now_ns + RAISE_NS_MAX}: at most 7 days from now",
            )
        revision = self._change(
            context,
            request,
            "raise_limit",
            value=value,
            until_ns=request.until_time_ns,
            now_ns=now_ns,
        )
        return pb.RaiseLimitResponse(limit=self._limit(key), revision=revision)

    def RemoveLimit(
        self, request: pb.RemoveLimitRequest, context: grpc.ServicerContext
    ) -> pb.RemoveLimitResponse:
        check_comment(request.comment)
        self._read_key(request.key)
        return pb.RemoveLimitResponse(revision=self._change(context, request, "remove_limit"))

    def ResetLimitUsage(
        self, request: pb.ResetLimitUsageRequest, context: grpc.ServicerContext
    ) -> pb.ResetLimitUsageResponse:
        check_comment(request.comment)
        key = request.key
        self._read_key(key)
        if key.kind not in _RESETTABLE:
            raise _invalid(
                "key.kind", limits.kind_name(key.kind), "EXECUTION_RATE_MAX or DRAWDOWN_MAX"
            )
        revision = self._change(context, request, "reset_usage", now_ns=self._backend.clock())
        return pb.ResetLimitUsageResponse(limit=self._limit(key), revision=revision)

    def ListLimits(
        self, request: pb.ListLimitsRequest, context: grpc.ServicerContext
    ) -> pb.ListLimitsResponse:
        backend = self._backend
        if request.scope:
            _check_scope("scope", request.scope)
        elif request.scope_id:
            raise _invalid("scope_id", request.scope_id, "0 without a scope")
        after = _read_token(request.page_token)
        count_max = page_count(request.page_size)
        revision = backend.engine.revision
        now_ns = backend.clock()
        rows = [
            row
            for row in backend.engine.limits()
            if request.scope in (0, row.scope)
            and request.scope_id in (0, row.scope_id)
            and (row.scope, row.scope_id, row.instrument_id, row.kind) > after
        ]
        page = rows[:count_max]
        return pb.ListLimitsResponse(
            limits=[backend.messages.limit(row, now_ns) for row in page],
            next_page_token=".".join(map(str, page[-1][:4])) if len(rows) > count_max else "",
            revision=revision,
        )

    def _read_key(self, key: pb.LimitKey) -> tuple[Asset | None, Instrument | None]:
        """Return the asset and the instrument that a limit is counted in, or refuse its name."""
        backend = self._backend
        _check_scope("key.scope", key.scope)
        kind = limits.kind_name(key.kind)
        if not limits.is_kind(key.kind):
            raise _invalid("key.kind", kind, "a kind of docs/limits.md")
        if key.scope == SCOPE_GATEWAY and key.kind != types_pb2.LIMIT_KIND_ORDER_RATE_MAX:
            raise _invalid("key.kind", kind, "ORDER_RATE_MAX on a gateway")
        if limits.needs_instrument(key.kind) and not key.instrument_id:
            raise _invalid("key.instrument_id", 0, f"an instrument for {kind}")
        if key.instrument_id and not limits.takes_instrument(key.kind):
            raise _invalid("key.instrument_id", key.instrument_id, f"0 for {kind}")
        asset = None
        match key.scope:
            case types_pb2.LIMIT_SCOPE_ACCOUNT:
                asset = backend.asset_of(backend.account(key.scope_id).asset_id)
            case types_pb2.LIMIT_SCOPE_FIRM:
                asset = backend.firm_asset(key.scope_id)
            case _:
                if not 0 < key.scope_id < 2**32:
                    raise RefusalError(
                        types_pb2.REASON_CODE_GATEWAY_ID_MISSING,
                        f"key.scope_id is {key.scope_id}: must be a gateway, 1 to 2^32 - 1",
                        field="key.scope_id",
                        value=key.scope_id,
                    )
        return asset, backend.instrument(key.instrument_id) if key.instrument_id else None

    def _change(
        self,
        context: grpc.ServicerContext,
        request: pb.SetLimitRequest
        | pb.RaiseLimitRequest
        | pb.RemoveLimitRequest
        | pb.ResetLimitUsageRequest,
        command: str,
        **arguments: int,
    ) -> int:
        """Make a change of a limit, and return the revision, or refuse."""
        key = request.key
        reason = self._backend.change(
            context,
            request,
            command,
            scope=key.scope,
            scope_id=key.scope_id,
            instrument_id=key.instrument_id,
            kind=key.kind,
            **arguments,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise self._refusal(reason, key, arguments.get("value"))
        return self._backend.engine.revision

    def _refusal(self, reason: int, key: pb.LimitKey, value: int | None) -> RefusalError:
        """Return the refusal of a change that the engine refused."""
        backend = self._backend
        name = self._name(key)
        numbers: dict[str, object] = {
            "scope": enum_name(types_pb2.LimitScope.items(), key.scope, "LIMIT_SCOPE_"),
            "scope_id": key.scope_id,
            "instrument_id": key.instrument_id,
            "kind": limits.kind_name(key.kind),
        }
        text = f"{name}: {reason_name(reason)}"
        match reason:
            case types_pb2.REASON_CODE_LIMIT_UNKNOWN:
                text = f"{name} is not set"
            case types_pb2.REASON_CODE_LIMIT_LOOSER_THAN_PARENT:
                text = f"{name} would be looser than that of a level above"
                bound = self._bound_above(key)
                if bound:
                    numbers["bound"] = bound
                    text += f", {bound}"
            case types_pb2.REASON_CODE_LIMITS_FULL:
                text = f"{name}: the limit table is full: setting limits_max is its size"
            case types_pb2.REASON_CODE_GATEWAYS_FULL:
                text = f"{name}: the gateway table is full: setting gateways_max is its size"
            case types_pb2.REASON_CODE_MARK_MISSING:
                text = f"{name} starts at the equity, which needs a mark that was never reported"
            case types_pb2.REASON_CODE_DEFINITION_INVALID if value is not None:
                held = self._row(key)
                if held is not None:
                    bound = backend.messages.bare_limit(held, backend.clock()).value
                    numbers |= {"field": "value", "bound": bound}
                    text = f"{name}: value must be looser than the {bound} that is set"
        return RefusalError(reason, text, **numbers)

    def _bound_above(self, key: pb.LimitKey) -> str:
        """Return the same limits of the levels above, in words."""
        account = self._backend.engine.account(key.scope_id)
        if key.scope != SCOPE_ACCOUNT or account is None:
            return ""
        above = []
        for scope, scope_id in (
            (SCOPE_ACCOUNT, account.parent_account_id),
            (SCOPE_FIRM, account.firm_id),
        ):
            parent = pb.LimitKey()
            parent.CopyFrom(key)
            parent.scope = types_pb2.LimitScope.ValueType(scope)
            parent.scope_id = scope_id
            row = self._row(parent) if scope_id else None
            if row is not None:
                value = self._backend.messages.bare_limit(row, 0).value
                above.append(f"{value} of {self._name(parent)}")
        return " and ".join(above)

    def _name(self, key: pb.LimitKey) -> str:
        scope = enum_name(types_pb2.LimitScope.items(), key.scope, "LIMIT_SCOPE_").lower()
        of = ""
        if key.instrument_id:
            of = f" on {self._backend.instrument(key.instrument_id).symbol}"
        return f"limit {limits.kind_name(key.kind)}{of} of {scope} {key.scope_id}"

    def _row(self, key: pb.LimitKey) -> "LimitRow | None":
        wanted = key.scope, key.scope_id, key.instrument_id, key.kind
        return next((row for row in self._backend.engine.limits() if row[:4] == wanted), None)

    def _limit(self, key: pb.LimitKey) -> pb.Limit:
        """Return a limit that was just changed; without values if another call removed it since."""
        row = self._row(key)
        if row is None:
            return pb.Limit(key=key)
        return self._backend.messages.limit(row, self._backend.clock())


def _check_scope(field: str, scope: int) -> None:
    if scope not in (SCOPE_GATEWAY, SCOPE_ACCOUNT, SCOPE_FIRM):
        name = enum_name(types_pb2.LimitScope.items(), scope, "LIMIT_SCOPE_")
        raise _invalid(field, name, "GATEWAY, ACCOUNT or FIRM")


def _read_token(token: str) -> tuple[int, ...]:
    """Return the name of the limit that a page comes after."""
    if not token:
        return ()
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise RefusalError(
            FIELD_INVALID,
            f"page_token is {token[:64]!r}: must be a next_page_token of this method",
            field="page_token",
            value=token[:64],
        )
    return tuple(map(int, match.groups()))


def _invalid(field: str, value: object, bound: str) -> RefusalError:
    return RefusalError(
        _INVALID, f"{field} is {value}: must be {bound}", field=field, value=value, bound=bound
    )
