"""LimitService: limits are set, raised, used and listed; bad ones are refused by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from riskd.v1 import account_service_pb2 as accounts
from riskd.v1 import audit_service_pb2 as audit
from riskd.v1 import control_service_pb2 as control
from riskd.v1 import instrument_service_pb2 as instruments
from riskd.v1 import limit_service_pb2 as limits
from riskd.v1 import order_risk_service_pb2 as orders
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from tests.service.conftest import Clock, Rig

HARD = types_pb2.LIMIT_ACTION_HARD
SOFT = types_pb2.LIMIT_ACTION_SOFT
SECOND_NS = 10**9


def key(kind: str, instrument_id: int = 0, scope: str = "ACCOUNT", scope_id: int = 7) -> Any:
    return limits.LimitKey(
        scope=types_pb2.LimitScope.Value(f"LIMIT_SCOPE_{scope}"),
        scope_id=scope_id,
        instrument_id=instrument_id,
        kind=types_pb2.LimitKind.Value(f"LIMIT_KIND_{kind}"),
    )


def limit_of(kind: str, value: str = "", **values: Any) -> limits.SetLimitRequest:
    named = {
        name: values.pop(name) for name in ("instrument_id", "scope", "scope_id") if name in values
    }
    return limits.SetLimitRequest(
        key=key(kind, **named), value=value, **({"action": HARD} | values)
    )


def listed(rig: Rig, **values: Any) -> list[limits.Limit]:
    return list(rig.limits.ListLimits(limits.ListLimitsRequest(**values)).limits)


def test_limit_stops_an_order_and_says_how_much_would_pass(
    market: Rig, order: orders.CheckOrderRequest
) -> None:
    reply = market.limits.SetLimit(limit_of("POSITION_LOTS_MAX", "0.08", instrument_id=1))
    assert reply.revision == market.engine.revision
    assert reply.limit == limits.Limit(
        key=key("POSITION_LOTS_MAX", 1),
        value="0.08",
        action=HARD,
        bound="0.08",
        use="0",
        remaining="0.08",
        utilisation="0",
    )
    rejected = market.orders.CheckOrder(order)
    assert rejected.reason == types_pb2.REASON_CODE_LIMIT_POSITION_LOTS_MAX
    assert rejected.max_quantity_lots == 80
    (violation,) = rejected.detail.violations
    assert (violation.limit, violation.use, violation.order_use) == (80, 0, 100)
    assert (violation.scope, violation.scope_id) == (types_pb2.LIMIT_SCOPE_ACCOUNT, 7)
    assert not violation.soft


def test_soft_limit_warns(market: Rig, order: orders.CheckOrderRequest) -> None:
    market.limits.SetLimit(limit_of("ORDER_NOTIONAL_MAX", "5000", action=SOFT))
    reply = market.orders.CheckOrder(order)
    assert reply.decision == types_pb2.DECISION_ACCEPTED_WITH_WARNING
    assert reply.reason == types_pb2.REASON_CODE_LIMIT_ORDER_NOTIONAL_MAX
    assert reply.detail.violations[0].soft


def test_use_is_listed_with_what_remains(market: Rig, order: orders.CheckOrderRequest) -> None:
    market.limits.SetLimit(limit_of("GROSS_EXPOSURE_MAX", "9000"))
    market.limits.SetLimit(limit_of("OPEN_ORDERS_MAX", "3"))
    market.limits.SetLimit(limit_of("ORDER_RATE_MAX", "10", burst=4))
    market.limits.SetLimit(limit_of("ORDER_QUANTITY_MAX", "1000"))
    market.limits.SetLimit(limit_of("ALLOWED", instrument_id=1))
    assert market.orders.CheckOrder(order).decision == types_pb2.DECISION_ACCEPTED
    rows = {types_pb2.LimitKind.Name(row.key.kind)[11:]: row for row in listed(market)}
    gross = rows["GROSS_EXPOSURE_MAX"]
    # 0.1 at 60000 works; 6000 of 9000 is two thirds.
    assert (gross.use, gross.remaining, gross.utilisation) == ("6000", "3000", "0.666667")
    count = rows["OPEN_ORDERS_MAX"]
    assert (count.value, count.use, count.remaining) == ("3", "1", "2")
    rate = rows["ORDER_RATE_MAX"]
    assert (rate.value, rate.burst, rate.bound, rate.use) == ("10", 4, "4", "1")
    size = rows["ORDER_QUANTITY_MAX"]
    assert (size.value, size.bound, size.use, size.use_unknown) == ("1000", "1000", "", False)
    allowed = rows["ALLOWED"]
    assert (allowed.value, allowed.bound, allowed.use) == ("", "", "")


def test_values_are_in_the_units_of_their_kind(market: Rig) -> None:
    for request in (
        limit_of("ORDER_QUANTITY_MAX", "2.5", instrument_id=1),
        limit_of("ORDER_QUANTITY_MAX", "2500"),
        limit_of("COLLAR_TICKS", "12.5", instrument_id=1),
        limit_of("COLLAR_TICKS", "25"),
        limit_of("COLLAR_PPB", "0.015"),
        limit_of("LEVERAGE_MAX", "12.5"),
        limit_of("CONCENTRATION_MAX", "0.4"),
        limit_of("DAILY_LOSS_MAX", "1000.000001"),
    ):
        reply = market.limits.SetLimit(request)
        assert reply.limit.value == request.value
    values = {(row.kind, row.instrument_id): row.value for row in market.engine.limits()}
    assert values == {
        (types_pb2.LIMIT_KIND_ORDER_QUANTITY_MAX, 1): 2_500,
        (types_pb2.LIMIT_KIND_ORDER_QUANTITY_MAX, 0): 2_500,
        (types_pb2.LIMIT_KIND_COLLAR_TICKS, 1): 25,
        (types_pb2.LIMIT_KIND_COLLAR_TICKS, 0): 25,
        (types_pb2.LIMIT_KIND_COLLAR_PPB, 0): 15_000_000,
        (types_pb2.LIMIT_KIND_LEVERAGE_MAX, 0): 1_250,
        (types_pb2.LIMIT_KIND_CONCENTRATION_MAX, 0): 400_000_000,
        (types_pb2.LIMIT_KIND_DAILY_LOSS_MAX, 0): 1_000_000_001,
    }


def test_raise_counts_until_its_end(
    market: Rig, clock: Clock, order: orders.CheckOrderRequest
) -> None:
    market.limits.SetLimit(limit_of("ORDER_NOTIONAL_MAX", "5000"))
    until = clock.now_ns + SECOND_NS
    raised = market.limits.RaiseLimit(
        limits.RaiseLimitRequest(
            key=key("ORDER_NOTIONAL_MAX"), value="7000", until_time_ns=until, comment="expiry day"
        )
    ).limit
    assert (raised.value, raised.raised_value, raised.bound) == ("5000", "7000", "7000")
    assert raised.raised_until_time_ns == until
    order.mode = orders.CHECK_MODE_CHECK_ONLY
    assert market.orders.CheckOrder(order).decision == types_pb2.DECISION_ACCEPTED
    clock.now_ns = until
    assert market.orders.CheckOrder(order).reason == types_pb2.REASON_CODE_LIMIT_ORDER_NOTIONAL_MAX
    (row,) = listed(market)
    assert (row.raised_value, row.bound) == ("", "5000")


def test_removed_limit_is_gone(market: Rig, order: orders.CheckOrderRequest) -> None:
    market.limits.SetLimit(limit_of("DENIED", instrument_id=1))
    assert market.orders.CheckOrder(order).reason == types_pb2.REASON_CODE_LIMIT_DENIED
    request = limits.RemoveLimitRequest(key=key("DENIED", 1))
    market.limits.RemoveLimit(request)
    assert not listed(market)
    order.client_order_id += 1
    assert market.orders.CheckOrder(order).decision == types_pb2.DECISION_ACCEPTED
    failure = market.fail(market.limits.RemoveLimit, request)
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "LIMIT_UNKNOWN")
    assert failure.message == "limit DENIED on BTC-PERP of account 7 is not set"


def test_drawdown_starts_anew_when_it_is_reset(
    market: Rig, order: orders.CheckOrderRequest
) -> None:
    market.limits.SetLimit(limit_of("DRAWDOWN_MAX", "100"))
    market.trade(order, fee_minor=150_000_000)
    (row,) = listed(market)
    assert (row.use, row.remaining, row.utilisation) == ("150", "-50", "1.5")
    order.client_order_id += 1
    assert market.orders.CheckOrder(order).reason == types_pb2.REASON_CODE_LIMIT_DRAWDOWN_MAX
    reset = market.limits.ResetLimitUsage(
        limits.ResetLimitUsageRequest(key=key("DRAWDOWN_MAX"), comment="talked to the desk")
    )
    assert reset.limit.use == "0"
    order.client_order_id += 1
    assert market.orders.CheckOrder(order).decision == types_pb2.DECISION_ACCEPTED


def test_use_that_needs_a_fresh_mark_says_so(
    market: Rig,
    clock: Clock,
    order: orders.CheckOrderRequest,
    instrument: instruments.Instrument,
) -> None:
    market.limits.SetLimit(limit_of("GROSS_EXPOSURE_MAX", "9000"))
    market.trade(order)
    assert listed(market)[0].use == "6000"
    instrument.mark_age_max_ms = 1000
    market.instruments.UpsertInstrument(instruments.UpsertInstrumentRequest(instrument=instrument))
    clock.now_ns += 2 * SECOND_NS
    (row,) = listed(market)
    assert row.use_unknown
    assert (row.use, row.remaining, row.utilisation) == ("", "", "")
    assert row.bound == "9000"


def test_child_can_only_tighten(market: Rig) -> None:
    market.accounts.CreateFirm(accounts.CreateFirmRequest(firm_id=1, settlement_asset="USDT"))
    market.accounts.SetAccountOwner(accounts.SetAccountOwnerRequest(account_id=7, firm_id=1))
    market.limits.SetLimit(limit_of("OPEN_NOTIONAL_MAX", "1000", scope="FIRM", scope_id=1))
    failure = market.fail(market.limits.SetLimit, limit_of("OPEN_NOTIONAL_MAX", "1000.5"))
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "LIMIT_LOOSER_THAN_PARENT",
    )
    assert failure.message == (
        "limit OPEN_NOTIONAL_MAX of account 7 would be looser than that of a level above, "
        "1000 of limit OPEN_NOTIONAL_MAX of firm 1"
    )
    market.limits.SetLimit(limit_of("OPEN_NOTIONAL_MAX", "999.5"))
    assert [row.key.scope for row in listed(market)] == [
        types_pb2.LIMIT_SCOPE_ACCOUNT,
        types_pb2.LIMIT_SCOPE_FIRM,
    ]


def test_limits_are_listed_by_scope_and_in_pages(market: Rig) -> None:
    market.accounts.CreateFirm(accounts.CreateFirmRequest(firm_id=1, settlement_asset="USDT"))
    for request in (
        limit_of("ORDER_RATE_MAX", "5", burst=5, scope="GATEWAY", scope_id=3),
        limit_of("OPEN_ORDERS_MAX", "5"),
        limit_of("OPEN_ORDERS_MAX", "5", instrument_id=1),
        limit_of("DAILY_LOSS_MAX", "5"),
        limit_of("DAILY_LOSS_MAX", "5", scope="FIRM", scope_id=1),
    ):
        market.limits.SetLimit(request)
    whole = listed(market)
    order_of = [(row.key.scope, row.key.instrument_id, row.key.kind) for row in whole]
    assert order_of == sorted(order_of)
    pages: list[limits.Limit] = []
    token = ""
    while True:
        page = market.limits.ListLimits(limits.ListLimitsRequest(page_size=2, page_token=token))
        pages += page.limits
        token = page.next_page_token
        if not token:
            break
    assert pages == whole
    of_account = listed(market, scope=types_pb2.LIMIT_SCOPE_ACCOUNT)
    assert of_account == listed(market, scope=types_pb2.LIMIT_SCOPE_ACCOUNT, scope_id=7)
    assert len(of_account) == 3
    assert not listed(market, scope=types_pb2.LIMIT_SCOPE_ACCOUNT, scope_id=8)


def test_change_of_a_limit_is_on_record_with_before_and_after(market: Rig) -> None:
    market.limits.SetLimit(limit_of("OPEN_ORDERS_MAX", "5", comment="first"))
    market.limits.SetLimit(limit_of("OPEN_ORDERS_MAX", "4", action=SOFT))
    scope = control.Scope(account_id=7)
    changes = market.audit.ListChanges(audit.ListChangesRequest(scope=scope)).changes
    newest = {row.name: (row.before, row.after) for row in changes[0].changes}
    assert newest == {"value": ("5", "4"), "action": ("HARD", "SOFT")}
    arguments = {row.name: row.value for row in changes[1].arguments}
    assert arguments == {
        "key.scope": "ACCOUNT",
        "key.scope_id": "7",
        "key.kind": "OPEN_ORDERS_MAX",
        "value": "5",
        "action": "HARD",
        "comment": "first",
    }


@dataclass(frozen=True)
class Row:
    """A request that must be refused, and how."""

    id: str
    method: str
    request: Any
    reason: str
    message: str
    code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT


INVALID = "DEFINITION_INVALID"
NOT_FOUND = grpc.StatusCode.NOT_FOUND
NO_SCOPE = limits.LimitKey(scope_id=7, kind=types_pb2.LIMIT_KIND_OPEN_ORDERS_MAX)
NO_KIND = limits.LimitKey(scope=types_pb2.LIMIT_SCOPE_ACCOUNT, scope_id=7)
ROWS = [
    Row(
        "no scope",
        "SetLimit",
        limits.SetLimitRequest(key=NO_SCOPE, value="1", action=HARD),
        INVALID,
        "key.scope is UNSPECIFIED: must be GATEWAY, ACCOUNT or FIRM",
    ),
    Row(
        "no kind",
        "SetLimit",
        limits.SetLimitRequest(key=NO_KIND, value="1", action=HARD),
        INVALID,
        "key.kind is 0: must be a kind of docs/limits.md",
    ),
    Row(
        "unknown account",
        "SetLimit",
        limit_of("OPEN_ORDERS_MAX", "1", scope_id=8),
        "ACCOUNT_UNKNOWN",
        "account_id 8 is unknown",
        NOT_FOUND,
    ),
    Row(
        "unknown firm",
        "SetLimit",
        limit_of("OPEN_ORDERS_MAX", "1", scope="FIRM", scope_id=8),
        "FIRM_UNKNOWN",
        "firm_id 8 is unknown",
        NOT_FOUND,
    ),
    Row(
        "gateway 0",
        "SetLimit",
        limit_of("ORDER_RATE_MAX", "1", burst=1, scope="GATEWAY", scope_id=0),
        "GATEWAY_ID_MISSING",
        "key.scope_id is 0: must be a gateway, 1 to 2^32 - 1",
    ),
    Row(
        "gateway of 33 bits",
        "SetLimit",
        limit_of("ORDER_RATE_MAX", "1", burst=1, scope="GATEWAY", scope_id=2**32),
        "GATEWAY_ID_MISSING",
        "key.scope_id is 4294967296: must be a gateway, 1 to 2^32 - 1",
    ),
    Row(
        "money of a gateway",
        "SetLimit",
        limit_of("OPEN_NOTIONAL_MAX", "1", scope="GATEWAY", scope_id=3),
        INVALID,
        "key.kind is OPEN_NOTIONAL_MAX: must be ORDER_RATE_MAX on a gateway",
    ),
    Row(
        "unknown instrument",
        "SetLimit",
        limit_of("OPEN_ORDERS_MAX", "1", instrument_id=2),
        "INSTRUMENT_UNKNOWN",
        "instrument_id 2 is unknown",
        NOT_FOUND,
    ),
    Row(
        "no instrument",
        "SetLimit",
        limit_of("POSITION_LOTS_MAX", "1"),
        INVALID,
        "key.instrument_id is 0: must be an instrument for POSITION_LOTS_MAX",
    ),
    Row(
        "instrument where none counts",
        "SetLimit",
        limit_of("DAILY_LOSS_MAX", "1", instrument_id=1),
        INVALID,
        "key.instrument_id is 1: must be 0 for DAILY_LOSS_MAX",
    ),
    Row(
        "value that is negative",
        "SetLimit",
        limit_of("DAILY_LOSS_MAX", "-1"),
        INVALID,
        "value is '-1': must be 0 to 4611686018427.387904",
    ),
    Row(
        "value off the lot",
        "SetLimit",
        limit_of("ORDER_QUANTITY_MAX", "0.0015", instrument_id=1),
        INVALID,
        "value is '0.0015': must be a multiple of 0.001",
    ),
    Row(
        "value that is no number",
        "SetLimit",
        limit_of("OPEN_ORDERS_MAX", "many"),
        INVALID,
        "value is 'many': must be a decimal number",
    ),
    Row(
        "value of a list",
        "SetLimit",
        limit_of("DENIED", "1", instrument_id=1),
        INVALID,
        "value is 1: must be empty for DENIED",
    ),
    Row(
        "rate of 0",
        "SetLimit",
        limit_of("ORDER_RATE_MAX", "0", burst=1),
        INVALID,
        "value is '0': must be 1 to 1000000000",
    ),
    Row(
        "rate without a burst",
        "SetLimit",
        limit_of("ORDER_RATE_MAX", "1"),
        INVALID,
        "burst is 0: must be 1 to 1000000",
    ),
    Row(
        "burst of what is no rate",
        "SetLimit",
        limit_of("OPEN_ORDERS_MAX", "1", burst=1),
        INVALID,
        "burst is 1: must be 0 for OPEN_ORDERS_MAX",
    ),
    Row(
        "no action",
        "SetLimit",
        limit_of("OPEN_ORDERS_MAX", "1", action=0),
        INVALID,
        "action is UNSPECIFIED: must be HARD or SOFT",
    ),
    Row(
        "comment that is too long",
        "SetLimit",
        limit_of("OPEN_ORDERS_MAX", "1", comment="x" * 256),
        "FIELD_INVALID",
        "comment has 256 bytes: must have at most 255",
    ),
    Row(
        "raise of what is not set",
        "RaiseLimit",
        limits.RaiseLimitRequest(
            key=key("OPEN_NOTIONAL_MAX"), value="1", until_time_ns=1_700_000_000_000_000_001
        ),
        "LIMIT_UNKNOWN",
        "limit OPEN_NOTIONAL_MAX of account 7 is not set",
        NOT_FOUND,
    ),
    Row(
        "raise that lowers",
        "RaiseLimit",
        limits.RaiseLimitRequest(
            key=key("DAILY_TRADED_MAX"), value="49.5", until_time_ns=1_700_000_000_000_000_001
        ),
        INVALID,
        "limit DAILY_TRADED_MAX of account 7: value must be looser than the 50 that is set",
    ),
    Row(
        "raise until now",
        "RaiseLimit",
        limits.RaiseLimitRequest(
            key=key("DAILY_TRADED_MAX"), value="51", until_time_ns=1_700_000_000_000_000_000
        ),
        INVALID,
        "until_time_ns is 1700000000000000000: must be 1700000000000000001 to "
        "1700604800000000000: at most 7 days from now",
    ),
    Row(
        "raise of a list",
        "RaiseLimit",
        limits.RaiseLimitRequest(key=key("ALLOWED", 1), until_time_ns=1),
        INVALID,
        "key.kind is ALLOWED: must be a kind with a value",
    ),
    Row(
        "reset of what has no memory",
        "ResetLimitUsage",
        limits.ResetLimitUsageRequest(key=key("DAILY_TRADED_MAX")),
        INVALID,
        "key.kind is DAILY_TRADED_MAX: must be EXECUTION_RATE_MAX or DRAWDOWN_MAX",
    ),
    Row(
        "list of an id without a scope",
        "ListLimits",
        limits.ListLimitsRequest(scope_id=7),
        INVALID,
        "scope_id is 7: must be 0 without a scope",
    ),
    Row(
        "list of the service",
        "ListLimits",
        limits.ListLimitsRequest(scope=types_pb2.LimitScope.ValueType(1)),
        INVALID,
        "scope is 1: must be GATEWAY, ACCOUNT or FIRM",
    ),
    Row(
        "page token",
        "ListLimits",
        limits.ListLimitsRequest(page_token="3.7.0"),
        "FIELD_INVALID",
        "page_token is '3.7.0': must be a next_page_token of this method",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_bad_request_is_refused_by_field_and_changes_nothing(market: Rig, row: Row) -> None:
    market.limits.SetLimit(limit_of("DAILY_TRADED_MAX", "50"))
    before = market.engine.state_hash(), market.engine.revision
    failure = market.fail(getattr(market.limits, row.method), row.request)
    assert (failure.code, failure.reason) == (row.code, row.reason), failure.message
    assert row.message in failure.message
    assert (market.engine.state_hash(), market.engine.revision) == before


def test_table_of_limits_that_is_full_names_its_setting(new_rig: Any, clock: Clock) -> None:
    rig: Rig = new_rig(clock, limits_max=1)
    request = limit_of("ORDER_RATE_MAX", "1", burst=1, scope="GATEWAY", scope_id=3)
    rig.limits.SetLimit(request)
    request.key.scope_id = 4
    failure = rig.fail(rig.limits.SetLimit, request)
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "LIMITS_FULL",
    )
    assert "limits_max" in failure.message
