"""Who may do what, at both doors: by role, account and gateway, by token and certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from riskd.identities import token_hash
from riskd.roles import RULES
from riskd.v1 import account_service_pb2 as accounts_pb
from riskd.v1 import audit_service_pb2 as audit_pb
from riskd.v1 import control_service_pb2 as control_pb
from riskd.v1 import limit_service_pb2 as limits_pb
from riskd.v1 import margin_service_pb2 as margins_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from tests.service.authority import Authority, needs_openssl
from tests.service.conftest import TIMEOUT_S, Clock, Rig, new_order, open_market
from tests.service.native import Native, listening
from tests.service.test_risk_events import near_call

if TYPE_CHECKING:
    from riskd.core.tls import Tls

ROLES = ("gateway", "trader", "risk_officer", "feed", "auditor", "admin")
CODE = grpc.StatusCode

EVERYBODY = """ListAssets ListInstruments ListMarginSchedules ListOptionRules ListCollateral GetMark
ServerReflectionInfo"""
READS = """GetReservation GetAccount ListAccounts ListFirms GetMarginSummary ListPositionMargins
ComputeLiquidationPrice ComputeMaxOrderSize ComputeGreeks SimulatePortfolio WatchRiskEvents
ListTradingStates ListGateways ListLimits"""
AUDIT = "ListChanges ExplainDecision ListDenials"
# What each role may call, and nothing else.
MAY = {
    "gateway": """CheckOrder CheckAmendment BatchCheckOrders ReportExecution StreamOrders
        GetReservation GetAccount GetMarginSummary ListPositionMargins ComputeLiquidationPrice
        ComputeMaxOrderSize ComputeGreeks SimulatePortfolio TransferMargin ChangeMarginMode
        SetLeverage ChangePositionMode RenewGatewayLease CancelOrders""",
    "trader": READS,
    "risk_officer": f"""{READS} {AUDIT} EngageKillSwitch ReleaseKillSwitch ChangeTradingState
        RenewGatewayLease CancelOrders SetLimit RaiseLimit RemoveLimit ResetLimitUsage
        SetCreditLine SetMarginLevels""",
    "feed": "ReportMarks ReportOpenInterest",
    "auditor": f"{READS} {AUDIT}",
    "admin": f"""{READS} {AUDIT} EngageKillSwitch CreateAsset UpsertInstrument
        UpsertMarginSchedule UpsertOptionRule DefineCollateral ApplyFunding SettleInstrument
        CreateAccount AdjustCollateral TransferMargin ChangeMarginMode SetLeverage
        ChangePositionMode SetAccountOwner CreateFirm LoadPosition GetTopChannels GetServers
        GetServer GetServerSockets GetChannel GetSubchannel GetSocket""",
}


def token_of(name: str) -> str:
    return f"riskd_token-of-{name}"


def identity(name: str, roles: list[str], *more: str) -> str:
    """Return a table of the file; its token is that of token_of unless it is known otherwise."""
    lines = ["[[identity]]", f'name = "{name}"', f"roles = {roles}".replace("'", '"'), *more]
    if not any(line.startswith(("spiffe", "subjects", "common", "token")) for line in more):
        lines.append(f'token_hashes = ["{token_hash(token_of(name))}"]')
    return "\n".join(lines) + "\n"


def everybody() -> list[str]:
    """Return an identity for each role, with all accounts."""
    own = {
        "feed": (),
        "gateway": ('accounts = "all"', "gateways = [3]"),
    }
    return [identity(role, [role], *own.get(role, ('accounts = "all"',))) for role in ROLES]


SETUP = identity("setup", list(ROLES), 'accounts = "all"', "gateways = [3]")


@dataclass
class Guarded:
    """A service with identities at both doors."""

    rig: Rig
    # With a client that has all roles.
    setup: Rig
    path: Path
    channels: dict[str, grpc.Channel]

    def reload(self, *tables: str) -> None:
        self.path.write_text("\n".join(tables))
        assert self.rig.guard is not None
        self.rig.guard.reload()

    def call(
        self, door: str, path: str, request: Message | bytes, token: str | None = None
    ) -> Answer:
        """Call a method with a token, of whatever kind it is, with one request."""
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        return ask(self.channels[door], path, request, metadata)


@dataclass(frozen=True)
class Answer:
    """What came of a call: the status, and the bytes of its details."""

    code: grpc.StatusCode
    message: str
    replies: tuple[bytes, ...]
    details: bytes

    @property
    def info(self) -> Any:
        status = status_pb2.Status.FromString(self.details)
        info = error_details_pb2.ErrorInfo()
        assert [detail.Unpack(info) for detail in status.details] == [True]
        return info

    @property
    def reason(self) -> str:
        return str(self.info.reason) if self.details else ""


def ask(channel: grpc.Channel, path: str, request: Message | bytes, metadata: Any = ()) -> Answer:
    if isinstance(request, Message):
        request = request.SerializeToString()
    bare: Any = channel.stream_stream(path, request_serializer=None, response_deserializer=None)
    replies: list[bytes] = []
    call = bare(iter([request]), timeout=TIMEOUT_S, metadata=metadata)
    try:
        for reply in call:
            replies.append(reply)
            if path.endswith("WatchRiskEvents"):
                call.cancel()
    except grpc.RpcError:
        pass
    trailers = dict(call.trailing_metadata() or ())
    details = trailers.get("grpc-status-details-bin", b"")
    return Answer(call.code(), call.details(), tuple(replies), details)


def guarded_door(rig: Rig, tls: Tls | None = None) -> AbstractContextManager[Native]:
    """Listen with two threads, each of which has a table of its own."""
    assert rig.guard is not None
    return listening(rig.engine, tls=tls, permits=rig.guard.permits, threads=2)


class _Token(grpc.UnaryUnaryClientInterceptor):
    """Puts a token on every call."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = (("authorization", f"Bearer {self._token}"),)
        return continuation(details._replace(metadata=metadata), request)


@pytest.fixture
def doors(tmp_path: Path, clock: Clock, new_rig: Callable[..., Rig]) -> Iterator[Guarded]:
    """Both doors with an identity for each role, and the market of `market`."""
    path = tmp_path / "identities.toml"
    path.write_text("\n".join([*everybody(), SETUP]))
    rig = new_rig(clock, identities_file=str(path), tick_interval_ms=1)
    channel = grpc.intercept_channel(rig.channel, _Token(token_of("setup")))
    setup = open_market(Rig(rig.server, rig.engine, rig.clock, rig.port, channel))
    with guarded_door(rig) as native:
        yield Guarded(rig, setup, path, {"control": rig.channel, "native": native.channel})


def paths() -> list[str]:
    """Return every method that is served, from the descriptors."""
    pool = descriptor_pool.Default()
    services = {name.partition("/")[0] for name in RULES}
    return [
        f"{service}/{method.name}"
        for service in sorted(services)
        for method in pool.FindServiceByName(service).methods
    ]


def test_every_method_that_is_served_has_a_rule(doors: Guarded) -> None:
    assert sorted(RULES) == sorted(paths())
    answer = ask(
        doors.rig.channel,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest(list_services=""),
        (("authorization", f"Bearer {token_of('feed')}"),),
    )
    reply = reflection_pb2.ServerReflectionResponse.FromString(answer.replies[0])
    served = {each.name for each in reply.list_services_response.service}
    assert served - {"grpc.health.v1.Health"} == {name.partition("/")[0] for name in RULES}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_call_what_it_is_for_and_nothing_else(doors: Guarded, role: str) -> None:
    may = set(f"{EVERYBODY} {MAY[role]}".split())
    assert may <= {path.partition("/")[2] for path in paths()}
    for path in paths():
        at = ["control"] + ["native"] * path.startswith("riskd.v1.OrderRiskService")
        for door in at:
            answer = doors.call(door, "/" + path, b"", token_of(role))
            if path.partition("/")[2] in may:
                assert answer.reason != "METHOD_NOT_PERMITTED", (door, path)
                assert answer.code is not CODE.UNAUTHENTICATED, (door, path)
            else:
                assert answer.code is CODE.PERMISSION_DENIED, (door, path)
                assert answer.reason == "METHOD_NOT_PERMITTED"
                assert dict(answer.info.metadata) == {"identity": role, "method": path}


def test_without_credentials_only_health_answers(doors: Guarded) -> None:
    for path in paths():
        for door in ["control"] + ["native"] * path.startswith("riskd.v1.OrderRiskService"):
            answer = doors.call(door, "/" + path, b"")
            assert (answer.code, answer.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_MISSING")
    for door in doors.channels:
        answer = doors.call(door, "/grpc.health.v1.Health/Check", b"")
        assert health_pb2.HealthCheckResponse.FromString(answer.replies[0]).status == 1


def test_a_method_that_nobody_serves_is_unimplemented(doors: Guarded) -> None:
    for door in doors.channels:
        answer = doors.call(door, "/riskd.v1.OrderRiskService/Nothing", b"", token_of("admin"))
        assert answer.code is CODE.UNIMPLEMENTED


ORDERS = "/riskd.v1.OrderRiskService/"


def narrow() -> list[str]:
    """Return gateways and a trader with a part of the accounts and gateways."""
    return [
        *everybody(),
        identity("narrow", ["gateway"], 'accounts = ["1-9", 20]', 'gateways = [3, "10-12"]'),
        identity("elsewhere", ["gateway"], "accounts = [8]", "gateways = [3]"),
        identity("reader", ["trader"], "accounts = [8]"),
        identity("owner", ["trader"], "accounts = [7]"),
    ]


def test_both_doors_refuse_with_the_same_bytes(doors: Guarded) -> None:
    doors.reload(*narrow())
    batch = orders_pb.BatchCheckOrdersRequest(orders=[new_order(), new_order(account_id=10)])
    streamed = orders_pb.StreamOrdersRequest(order=new_order(gateway_id=4))
    cases: list[tuple[str, Message | bytes, str | None]] = [
        ("CheckOrder", new_order(), None),
        ("CheckOrder", new_order(), "nobody"),
        ("CheckOrder", new_order(), "trader"),
        ("CheckOrder", new_order(account_id=10), "narrow"),
        ("CheckOrder", new_order(account_id=2**64 - 1), "narrow"),
        ("CheckOrder", new_order(gateway_id=4), "narrow"),
        ("BatchCheckOrders", batch, "narrow"),
        ("StreamOrders", streamed, "narrow"),
        ("GetReservation", orders_pb.GetReservationRequest(gateway_id=9), "narrow"),
        ("ReportExecution", orders_pb.ReportExecutionRequest(gateway_id=13), "narrow"),
        ("CheckAmendment", orders_pb.CheckAmendmentRequest(gateway_id=1), "narrow"),
        ("CheckOrder", b"\xff", "narrow"),
        ("StreamOrders", streamed, "feed"),
    ]
    before = doors.rig.engine.state_hash()
    reasons = set()
    for method, request, name in cases:
        token = None if name is None else token_of(name)
        control, native = (
            doors.call(door, ORDERS + method, request, token) for door in ("control", "native")
        )
        assert control == native, (method, name)
        assert control.details
        assert not control.replies
        reasons.add(control.reason)
    assert reasons == {
        "CREDENTIALS_MISSING",
        "TOKEN_UNKNOWN",
        "METHOD_NOT_PERMITTED",
        "ACCOUNT_NOT_PERMITTED",
        "GATEWAY_NOT_PERMITTED",
        "REQUEST_MALFORMED",
    }
    assert doors.rig.engine.state_hash() == before


@pytest.mark.parametrize("door", ["control", "native"])
def test_a_denied_order_leaves_no_trace(doors: Guarded, door: str) -> None:
    doors.reload(*narrow())
    before = doors.rig.engine.state_hash(), doors.rig.engine.revision
    request = new_order()
    denied = doors.call(door, ORDERS + "CheckOrder", request, token_of("elsewhere"))
    assert denied.info.metadata["account_id"] == "7"
    assert (doors.rig.engine.state_hash(), doors.rig.engine.revision) == before
    # Its id is as new as before.
    accepted = doors.call(door, ORDERS + "CheckOrder", request, token_of("narrow"))
    reply = orders_pb.CheckOrderResponse.FromString(accepted.replies[0])
    assert reply.decision == types_pb2.DECISION_ACCEPTED


@pytest.mark.parametrize("door", ["control", "native"])
def test_an_order_of_another_account_cannot_be_touched_by_its_reservation(
    doors: Guarded, door: str
) -> None:
    doors.reload(*narrow())
    accepted = doors.call(door, ORDERS + "CheckOrder", new_order(), token_of("narrow"))
    reservation_id = orders_pb.CheckOrderResponse.FromString(accepted.replies[0]).reservation_id
    assert reservation_id
    amendment = orders_pb.CheckAmendmentRequest(
        gateway_id=3, reservation_id=reservation_id, client_order_id=5, price_ticks=120_000,
        quantity_lots=2,
    )  # fmt: skip
    cancel = orders_pb.ReportExecutionRequest(
        gateway_id=3, execution_id=1, reservation_id=reservation_id,
        kind=orders_pb.EXECUTION_KIND_CANCEL,
    )  # fmt: skip
    by_number = orders_pb.GetReservationRequest(gateway_id=3, reservation_id=reservation_id)
    by_name = orders_pb.GetReservationRequest(gateway_id=3, client_order_id=1)
    before = doors.rig.engine.state_hash()
    for method, request in (
        ("CheckAmendment", amendment),
        ("ReportExecution", cancel),
        ("GetReservation", by_number),
        ("GetReservation", by_name),
    ):
        answer = doors.call(door, ORDERS + method, request, token_of("elsewhere"))
        assert answer.reason == "ACCOUNT_NOT_PERMITTED"
        assert answer.info.metadata["account_id"] == "7"
    assert doors.rig.engine.state_hash() == before
    for name, code in (("reader", CODE.PERMISSION_DENIED), ("owner", CODE.OK)):
        for request in (by_number, by_name):
            # Who reads needs no gateway of its own, but the account.
            answer = doors.call(door, ORDERS + "GetReservation", request, token_of(name))
            assert answer.code is code
    assert doors.call(door, ORDERS + "ReportExecution", cancel, token_of("narrow")).code is CODE.OK
    # The order is closed now, and as little to be known.
    for request in (by_number, by_name):
        answer = doors.call(door, ORDERS + "GetReservation", request, token_of("elsewhere"))
        assert answer.reason == "ACCOUNT_NOT_PERMITTED"


def test_cold_methods_touch_only_the_accounts_of_the_caller(doors: Guarded) -> None:
    doors.reload(*narrow(), identity("local", ["risk_officer"], "accounts = [7]"))
    account = control_pb.Scope(account_id=7)
    other = control_pb.Scope(account_id=8)
    firm = control_pb.Scope(firm_id=1)
    key = limits_pb.LimitKey(scope=types_pb2.LIMIT_SCOPE_ACCOUNT, scope_id=7)
    wrong = limits_pb.LimitKey(scope=types_pb2.LIMIT_SCOPE_ACCOUNT, scope_id=8)
    of_gateway = limits_pb.LimitKey(scope=types_pb2.LIMIT_SCOPE_GATEWAY, scope_id=7)
    cases: list[tuple[str, str, Message, str]] = [
        ("owner", "AccountService/GetAccount", accounts_pb.GetAccountRequest(account_id=7), ""),
        ("owner", "AccountService/GetAccount", accounts_pb.GetAccountRequest(account_id=8), "8"),
        ("owner", "AccountService/GetAccount", accounts_pb.GetAccountRequest(), "all"),
        ("owner", "AccountService/ListAccounts", accounts_pb.ListAccountsRequest(), "all"),
        ("trader", "AccountService/ListAccounts", accounts_pb.ListAccountsRequest(), ""),
        ("owner", "MarginService/WatchRiskEvents", margins_pb.WatchRiskEventsRequest(), "all"),
        ("owner", "MarginService/WatchRiskEvents",
         margins_pb.WatchRiskEventsRequest(account_id=7), ""),
        ("owner", "MarginService/SimulatePortfolio",
         margins_pb.SimulatePortfolioRequest(account_id=8), "8"),
        ("local", "LimitService/SetLimit", limits_pb.SetLimitRequest(key=key), ""),
        ("local", "LimitService/SetLimit", limits_pb.SetLimitRequest(key=wrong), "8"),
        ("local", "LimitService/SetLimit", limits_pb.SetLimitRequest(key=of_gateway), "all"),
        ("local", "LimitService/ListLimits", limits_pb.ListLimitsRequest(), "all"),
        ("local", "LimitService/ListLimits", limits_pb.ListLimitsRequest(
            scope=types_pb2.LIMIT_SCOPE_ACCOUNT, scope_id=8), "8"),
        ("local", "AuditService/ListChanges", audit_pb.ListChangesRequest(scope=account), ""),
        ("local", "AuditService/ListChanges", audit_pb.ListChangesRequest(scope=other), "8"),
        ("local", "AuditService/ListChanges", audit_pb.ListChangesRequest(), "all"),
        ("local", "ControlService/EngageKillSwitch",
         control_pb.EngageKillSwitchRequest(scope=firm), "all"),
        ("local", "ControlService/CancelOrders",
         control_pb.CancelOrdersRequest(instrument_id=1), "all"),
        ("local", "ControlService/CancelOrders",
         control_pb.CancelOrdersRequest(instrument_id=1, account_id=7), ""),
        ("narrow", "ControlService/CancelOrders", control_pb.CancelOrdersRequest(gateway_id=3), ""),
        ("narrow", "ControlService/CancelOrders",
         control_pb.CancelOrdersRequest(gateway_id=3, account_id=10), "10"),
    ]  # fmt: skip
    for name, method, request, denied in cases:
        answer = doors.call("control", f"/riskd.v1.{method}", request, token_of(name))
        if denied:
            assert answer.reason == "ACCOUNT_NOT_PERMITTED", (name, method, request)
            assert answer.info.metadata["account_id"] == denied
        else:
            assert answer.code not in (CODE.PERMISSION_DENIED, CODE.UNAUTHENTICATED)
    for request in (
        control_pb.CancelOrdersRequest(gateway_id=4),
        control_pb.CancelOrdersRequest(account_id=7),
    ):
        answer = doors.call(
            "control", "/riskd.v1.ControlService/CancelOrders", request, token_of("narrow")
        )
        assert answer.reason == "GATEWAY_NOT_PERMITTED"


@pytest.mark.parametrize("door", ["control", "native"])
@pytest.mark.parametrize(
    "headers",
    [
        ["Basic abc"],
        ["Bearer"],
        ["Bearer " + "x" * 200],
        [f"Bearer {token_of('gateway')}", f"Bearer {token_of('gateway')}"],
        [f"Bearer  {token_of('gateway')}"],
        [token_of("gateway")],
        [f"Bearer {token_hash(token_of('gateway'))}"],
    ],
)
def test_what_is_no_token_of_the_file_is_nobody(
    doors: Guarded, door: str, headers: list[str]
) -> None:
    metadata = tuple(("authorization", value) for value in headers)
    answer = ask(doors.channels[door], ORDERS + "CheckOrder", new_order(), metadata)
    assert (answer.code, answer.reason) == (CODE.UNAUTHENTICATED, "TOKEN_UNKNOWN")


@pytest.mark.parametrize("door", ["control", "native"])
def test_a_reload_holds_for_the_next_request_also_within_a_stream(
    doors: Guarded, door: str
) -> None:
    token = token_of("gateway")
    stub: Any = doors.channels[door].stream_stream(
        ORDERS + "StreamOrders",
        request_serializer=orders_pb.StreamOrdersRequest.SerializeToString,
        response_deserializer=orders_pb.StreamOrdersResponse.FromString,
    )
    requests: SimpleQueue[orders_pb.StreamOrdersRequest | None] = SimpleQueue()
    metadata = (("authorization", f"Bearer {token}"),)
    call = stub(iter(requests.get, None), metadata=metadata, timeout=TIMEOUT_S)
    requests.put(orders_pb.StreamOrdersRequest(order=new_order()))
    assert next(call).order.decision == types_pb2.DECISION_ACCEPTED
    doors.reload(*[table for table in everybody() if '"gateway"' not in table])
    requests.put(orders_pb.StreamOrdersRequest(order=new_order(client_order_id=2)))
    with pytest.raises(grpc.RpcError):
        next(call)
    requests.put(None)
    assert call.code() is CODE.UNAUTHENTICATED
    answer = doors.call(door, ORDERS + "CheckOrder", new_order(client_order_id=3), token)
    assert answer.reason == "TOKEN_UNKNOWN"
    doors.reload(*everybody())
    answer = doors.call(door, ORDERS + "CheckOrder", new_order(client_order_id=3), token)
    assert answer.code is CODE.OK
    with pytest.raises(ValueError, match="identity 1"):
        doors.reload("[[identity]]")
    answer = doors.call(door, ORDERS + "CheckOrder", new_order(client_order_id=4), token)
    assert answer.code is CODE.OK


def test_a_reload_ends_a_stream_of_events_with_its_next_message(doors: Guarded) -> None:
    near_call(doors.setup)
    stub: Any = doors.rig.channel.unary_stream(
        "/riskd.v1.MarginService/WatchRiskEvents",
        request_serializer=margins_pb.WatchRiskEventsRequest.SerializeToString,
        response_deserializer=margins_pb.WatchRiskEventsResponse.FromString,
    )
    request = margins_pb.WatchRiskEventsRequest(account_id=7)
    metadata = (("authorization", f"Bearer {token_of('trader')}"),)
    stream = stub(request, metadata=metadata, timeout=TIMEOUT_S)
    next(stream)
    doors.reload(SETUP, identity("trader", ["trader"], "accounts = [7]"))
    doors.setup.mark(1, 1_144_000)
    assert len(next(stream).events) == 1
    doors.reload(SETUP, identity("trader", ["trader"], "accounts = [8]"))
    doors.setup.mark(1, 1_140_000)
    with pytest.raises(grpc.RpcError):
        next(stream)
    assert stream.code() is CODE.PERMISSION_DENIED
    assert stream.details() == "identity trader may not touch account_id 7"


def test_changes_are_on_record_with_the_identity(doors: Guarded) -> None:
    stub: Any = doors.rig.channel.unary_unary(
        "/riskd.v1.AccountService/AdjustCollateral",
        request_serializer=accounts_pb.AdjustCollateralRequest.SerializeToString,
        response_deserializer=None,
    )
    request = accounts_pb.AdjustCollateralRequest(account_id=7, asset="USDT", amount="1")
    authorization = ("authorization", f"Bearer {token_of('admin')}")
    stub(request, metadata=(authorization,))
    stub(request, metadata=(authorization, ("riskd-actor", "auditor")))
    answer = doors.call(
        "control",
        "/riskd.v1.AuditService/ListChanges",
        audit_pb.ListChangesRequest(page_size=2),
        token_of("auditor"),
    )
    changes = audit_pb.ListChangesResponse.FromString(answer.replies[0]).changes
    assert [each.actor for each in changes] == ["admin/auditor", "admin"]


# --- certificates ------------------------------------------------------------------------------

SUBJECT = "/C=CH/O=Müller, Söhne & Co/CN=desk"
RFC_2253 = "CN=desk,O=M\\C3\\BCller\\, S\\C3\\B6hne & Co,C=CH"


@needs_openssl
def test_certificates_are_known_by_spiffe_id_subject_and_common_name(
    tmp_path: Path, clock: Clock, new_rig: Callable[..., Rig]
) -> None:
    authority = Authority(tmp_path, "authority")
    path = tmp_path / "identities.toml"
    more = ('accounts = "all"', "gateways = [3]")
    spiffe = "spiffe://example.com/gateway/3"
    subject = RFC_2253.replace("\\", "\\\\")
    path.write_text(
        "\n".join(
            [
                identity("by-spiffe", ["gateway"], *more, f'spiffe_ids = ["{spiffe}"]'),
                identity("by-subject", ["gateway"], *more, f'subjects = ["{subject}"]'),
                identity("by-name", ["gateway"], *more, 'common_names = ["gateway-3"]'),
                identity("reader", ["trader"], 'accounts = "all"'),
            ]
        )
    )
    certificate, key = authority.sign("server")
    rig = new_rig(
        clock,
        identities_file=str(path),
        certificate_file=str(certificate),
        key_file=str(key),
        client_ca_file=str(authority.certificate),
    )
    clients: dict[str, tuple[tuple[Path, Path], str]] = {
        "spiffe": (authority.sign("a", f"URI:{spiffe}"), "by-spiffe"),
        "subject": (authority.sign("b", subject=SUBJECT), "by-subject"),
        "common name": (authority.sign("gateway-3"), "by-name"),
        # The SPIFFE id alone says who it is, and there may be but one.
        "other id": (
            authority.sign("d", "URI:spiffe://example.com/other", subject="/CN=gateway-3"),
            "",
        ),
        "two ids": (authority.sign("c", f"URI:{spiffe},URI:spiffe://example.com/other"), ""),
        "unknown": (authority.sign("stranger"), ""),
    }
    tls = pytest.importorskip("riskd.core.tls").Tls(certificate, key, authority.certificate)
    with guarded_door(rig, tls) as native:
        for address in (f"localhost:{rig.port}", native.address.replace("127.0.0.1", "localhost")):
            for name, ((its_certificate, its_key), expected) in clients.items():
                credentials = grpc.ssl_channel_credentials(
                    authority.certificate.read_bytes(),
                    its_key.read_bytes(),
                    its_certificate.read_bytes(),
                )
                options = [("grpc.use_local_subchannel_pool", 1)]
                with grpc.secure_channel(address, credentials, options) as channel:
                    answer = ask(channel, ORDERS + "CheckOrder", new_order(gateway_id=4))
                    if expected:
                        assert answer.reason == "GATEWAY_NOT_PERMITTED", (address, name)
                        assert answer.info.metadata["identity"] == expected
                    else:
                        assert answer.reason == "CERTIFICATE_UNKNOWN", (address, name)
                    # A token says alone who calls.
                    reader = (("authorization", f"bearer {token_of('reader')}"),)
                    answer = ask(channel, ORDERS + "CheckOrder", new_order(), reader)
                    assert answer.info.metadata["identity"] == "reader"
                    wrong = (("authorization", "Bearer wrong"),)
                    answer = ask(channel, ORDERS + "CheckOrder", new_order(), wrong)
                    assert answer.reason == "TOKEN_UNKNOWN"
