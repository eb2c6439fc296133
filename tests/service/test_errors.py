"""Bad input gets its own clear answer, changes nothing, and the server goes on answering."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.message import Message

from riskd.v1 import account_service_pb2 as accounts
from riskd.v1 import audit_service_pb2 as audit
from riskd.v1 import control_service_pb2 as control
from riskd.v1 import instrument_service_pb2 as instruments
from riskd.v1 import margin_service_pb2 as margins
from riskd.v1 import market_data_service_pb2 as marks
from riskd.v1 import order_risk_service_pb2 as orders
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from tests.service.conftest import Rig

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
FAILED = grpc.StatusCode.FAILED_PRECONDITION
EXISTS = grpc.StatusCode.ALREADY_EXISTS

INT64_MAX = 2**63 - 1


def assert_answers(rig: Rig) -> None:
    """Fail if the server does not answer any more."""
    rig.control.ListTradingStates(control.ListTradingStatesRequest())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"client_order_id": 0}, "CLIENT_ORDER_ID_MISSING"),
        ({"gateway_id": 0}, "GATEWAY_ID_MISSING"),
        ({"account_id": 8}, "ACCOUNT_UNKNOWN"),
        ({"account_id": 2**64 - 1}, "ACCOUNT_UNKNOWN"),
        ({"instrument_id": 2}, "INSTRUMENT_UNKNOWN"),
        ({"instrument_id": 2**32 - 1}, "INSTRUMENT_UNKNOWN"),
        ({"side": 9}, "SIDE_INVALID"),
        ({"order_type": types_pb2.ORDER_TYPE_STOP}, "PRICE_OUT_OF_RANGE"),
        ({"order_type": types_pb2.ORDER_TYPE_STOP_LIMIT}, "TRIGGER_PRICE_OUT_OF_RANGE"),
        ({"trailing_offset_ticks": 1}, "TRAILING_OFFSET_OUT_OF_RANGE"),
        ({"time_in_force": types_pb2.TIME_IN_FORCE_GTD}, "EXPIRE_TIME_OUT_OF_RANGE"),
        ({"order_type": 99}, "ORDER_TYPE_NOT_SUPPORTED"),
        ({"time_in_force": 99}, "TIME_IN_FORCE_NOT_SUPPORTED"),
        ({"flags": 2**31}, "FLAG_NOT_SUPPORTED"),
        ({"position_side": types_pb2.POSITION_SIDE_LONG}, "POSITION_SIDE_NOT_SUPPORTED"),
        ({"quantity_lots": 0}, "QUANTITY_MUST_BE_POSITIVE"),
        ({"quantity_lots": INT64_MAX}, "QUANTITY_OUT_OF_RANGE"),
        ({"quantity_lots": 2**53}, "NOTIONAL_OVERFLOWS"),
        ({"price_ticks": 0}, "PRICE_OUT_OF_RANGE"),
        ({"price_ticks": -1}, "PRICE_OUT_OF_RANGE"),
        ({"price_ticks": INT64_MAX}, "PRICE_OUT_OF_RANGE"),
        ({"margin_mode": types_pb2.MARGIN_MODE_ISOLATED}, "MARGIN_MODE_MISMATCH"),
        ({"mode": 9}, "CHECK_MODE_NOT_SUPPORTED"),
        ({"view": 9}, "VIEW_NOT_SUPPORTED"),
        ({"price_ticks": 200_000}, "PRICE_OUTSIDE_COLLAR"),
        ({"quantity_lots": 100_001}, "EXCEEDS_ORDER_QUANTITY_MAX"),
        ({"quantity_lots": 4_000}, "MARGIN_INSUFFICIENT"),
    ],
    ids=str,
)
def test_bad_order_is_rejected_with_its_reason(
    market: Rig, order: orders.CheckOrderRequest, changes: dict[str, Any], reason: str
) -> None:
    before = market.engine.state_hash()
    for field, value in changes.items():
        setattr(order, field, value)
    reply = market.orders.CheckOrder(order)
    assert reply.decision == types_pb2.DECISION_REJECTED
    assert types_pb2.ReasonCode.Name(reply.reason) == f"REASON_CODE_{reason}"
    assert reply.reservation_id == 0
    assert market.engine.state_hash() == before


def test_order_without_a_mark_is_rejected(
    market: Rig, order: orders.CheckOrderRequest, instrument: instruments.Instrument
) -> None:
    instrument.symbol = "ETH-PERP"
    made = market.instruments.UpsertInstrument(
        instruments.UpsertInstrumentRequest(instrument=instrument)
    )
    order.instrument_id = made.instrument.instrument_id
    assert market.orders.CheckOrder(order).reason == types_pb2.REASON_CODE_MARK_MISSING


def test_bad_mark_is_refused_by_itself(market: Rig) -> None:
    reply = market.marks.ReportMarks(
        marks.ReportMarksRequest(
            marks=[
                marks.Mark(instrument_id=9, mark_price=1, time_ns=2**63),
                marks.Mark(instrument_id=1, mark_price=0, time_ns=2**63),
                marks.Mark(instrument_id=1, mark_price=INT64_MAX, time_ns=2**63),
                marks.Mark(instrument_id=1, mark_price=1, time_ns=1),
                marks.Mark(instrument_id=1, mark_price=1_200_001, time_ns=market.clock()),
                marks.Mark(instrument_id=1, mark_price=1, time_ns=2**63),
            ]
        )
    )
    assert reply.taken_count == 1
    assert [(refusal.index, refusal.reason) for refusal in reply.refusals] == [
        (0, types_pb2.REASON_CODE_INSTRUMENT_UNKNOWN),
        (1, types_pb2.REASON_CODE_MARK_OUT_OF_RANGE),
        (2, types_pb2.REASON_CODE_MARK_OUT_OF_RANGE),
        (3, types_pb2.REASON_CODE_MARK_OUT_OF_ORDER),
        (5, types_pb2.REASON_CODE_MARK_FROM_FUTURE),
    ]


HOT_METHODS = [
    "OrderRiskService/CheckOrder",
    "OrderRiskService/ReportExecution",
    "OrderRiskService/GetReservation",
    "MarketDataService/ReportMarks",
]


@pytest.mark.parametrize("method", HOT_METHODS)
@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"\x08", id="truncated varint"),
        pytest.param(b"\x08" + b"\xff" * 10 + b"\x01", id="varint of 11 bytes"),
        pytest.param(b"\x19\x01\x02", id="truncated fixed64"),
        pytest.param(b"\x0a\x7f\x01", id="length beyond the end"),
        pytest.param(b"\x0a" + b"\xff" * 9 + b"\x01", id="length of 2^64 - 1"),
        pytest.param(b"\x98\x06\x01", id="unknown field 99"),
        pytest.param(b"\x00\x00", id="field number 0"),
        pytest.param(b"\x0f\x00", id="wire type 7"),
        pytest.param(b"\x0b\x0c", id="group"),
    ],
)
def test_malformed_hot_request_is_invalid_and_changes_nothing(
    market: Rig, method: str, request_bytes: bytes
) -> None:
    before = market.engine.state_hash(), market.engine.answers_hash(), market.engine.revision
    failure = market.fail(market.raw, method, request_bytes)
    assert (failure.code, failure.reason) == (INVALID, "REQUEST_MALFORMED")
    assert "field" in failure.message
    after = market.engine.state_hash(), market.engine.answers_hash(), market.engine.revision
    assert after == before
    assert_answers(market)


def test_unknown_field_beside_a_good_order_is_invalid(
    market: Rig, order: orders.CheckOrderRequest
) -> None:
    failure = market.fail(
        market.raw, "OrderRiskService/CheckOrder", order.SerializeToString() + b"\x98\x06\x01"
    )
    assert (failure.code, failure.reason) == (INVALID, "REQUEST_MALFORMED")
    assert "99" in failure.message


def test_every_truncation_of_an_order_is_invalid_or_rejected(
    market: Rig, order: orders.CheckOrderRequest
) -> None:
    before = market.engine.state_hash()
    whole = order.SerializeToString()
    for size in range(len(whole)):
        try:
            reply = market.raw("OrderRiskService/CheckOrder", whole[:size])
        except grpc.RpcError:
            failure = market.fail(market.raw, "OrderRiskService/CheckOrder", whole[:size])
            assert failure.reason == "REQUEST_MALFORMED"
        else:
            decision = orders.CheckOrderResponse.FromString(reply).decision
            # Only the view, the last field, can be missing from an order that passes.
            assert decision == types_pb2.DECISION_REJECTED or size >= len(whole) - 2
    # The one order that passed is the same as the whole but for its view.
    assert (market.engine.state_hash() == before) == (
        not market.engine.working_reservations(1, 0, 1)
    )


@pytest.mark.parametrize("method", HOT_METHODS)
def test_random_bytes_never_change_the_state_or_stop_the_server(market: Rig, method: str) -> None:
    generator = random.Random(20_231_114)
    before = market.engine.state_hash()
    for _ in range(300):
        request = generator.randbytes(generator.randrange(60))
        try:
            market.raw(method, request)
        except grpc.RpcError:
            failure = market.fail(market.raw, method, request)
            assert (failure.code, failure.reason) == (INVALID, "REQUEST_MALFORMED"), request
    assert market.engine.state_hash() == before
    assert_answers(market)


@pytest.mark.parametrize("method", ["OrderRiskService/CheckOrder", "AccountService/GetAccount"])
def test_message_of_10_mb_is_resource_exhausted(market: Rig, method: str) -> None:
    failure = market.fail(market.raw, method, b"\x00" * 10_000_000)
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert_answers(market)


@pytest.mark.parametrize(
    "method", ["AccountService/CreateAccount", "ControlService/EngageKillSwitch"]
)
def test_malformed_cold_request_is_invalid(market: Rig, method: str) -> None:
    failure = market.fail(market.raw, method, b"\x0a\x7f\x01")
    assert (failure.code, failure.reason) == (INVALID, "REQUEST_MALFORMED")


@dataclass(frozen=True)
class Row:
    """A request that must be refused, and how."""

    id: str
    method: str
    request: Message
    code: grpc.StatusCode
    reason: str
    message: str


def collateral(amount: str, account_id: int = 7, asset: str = "USDT") -> Message:
    return accounts.AdjustCollateralRequest(account_id=account_id, asset=asset, amount=amount)


def bad_number(amount: str, bound: str) -> Row:
    return Row(
        f"amount {amount[:20]}",
        "accounts.AdjustCollateral",
        collateral(amount),
        INVALID,
        "AMOUNT_OUT_OF_RANGE",
        bound,
    )


def new_account(**values: Any) -> accounts.CreateAccountRequest:
    defaults: dict[str, Any] = {"account_id": 9, "settlement_asset": "USDT"}
    return accounts.CreateAccountRequest(**defaults | values)


def max_size(**values: Any) -> Message:
    defaults: dict[str, Any] = {
        "account_id": 7,
        "instrument_id": 1,
        "side": types_pb2.SIDE_BUY,
        "order_type": types_pb2.ORDER_TYPE_LIMIT,
        "price": "60000",
    }
    return margins.ComputeMaxOrderSizeRequest(**defaults | values)


def greeks(**values: Any) -> Message:
    defaults: dict[str, Any] = {
        "option_type": instruments.OPTION_TYPE_CALL,
        "forward": 100,
        "strike": 100,
        "volatility": 0.5,
        "time_years": 1,
    }
    return margins.ComputeGreeksRequest(**defaults | values)


SERVICE = control.Scope(service=True)

ROWS = [
    bad_number("NaN", "must be a decimal number"),
    bad_number("Infinity", "must be a decimal number"),
    bad_number("-inf", "must be a decimal number"),
    bad_number("", "must be a decimal number"),
    bad_number("1e999", "exponent must be -30 to 30"),
    bad_number("1e-9999", "must be a decimal number"),
    bad_number("0", "must not be 0"),
    bad_number("0.0000001", "must be a multiple of 0.000001"),
    bad_number("9223372036854.775808", "must be -9223372036854.775807 to 9223372036854.775807"),
    bad_number("9" * 65, "at most 64 characters"),
    bad_number("٣", "must be a decimal number"),
    bad_number("1_000", "must be a decimal number"),
    bad_number(" 1", "must be a decimal number"),
    Row(
        "unknown account",
        "accounts.AdjustCollateral",
        collateral("1", account_id=8),
        NOT_FOUND,
        "ACCOUNT_UNKNOWN",
        "account_id 8 is unknown",
    ),
    Row(
        "unknown asset",
        "accounts.AdjustCollateral",
        collateral("1", asset="XYZ"),
        NOT_FOUND,
        "ASSET_UNKNOWN",
        "asset 'XYZ' is unknown: the assets are USDT",
    ),
    Row(
        "withdrawal above available",
        "accounts.AdjustCollateral",
        collateral("-12000"),
        FAILED,
        "EXCEEDS_AVAILABLE",
        "amount 12000 exceeds available 10000 (USDT)",
    ),
    Row(
        "taken account id",
        "accounts.CreateAccount",
        new_account(account_id=7),
        EXISTS,
        "ALREADY_EXISTS",
        "account_id 7 exists already",
    ),
    Row(
        "account id 0",
        "accounts.CreateAccount",
        new_account(account_id=0),
        INVALID,
        "FIELD_INVALID",
        "account_id is 0: must be 1 to 2^64 - 1",
    ),
    Row(
        "unknown mode",
        "accounts.CreateAccount",
        new_account(default_margin_mode=9),
        INVALID,
        "MARGIN_MODE_MISMATCH",
        "default_margin_mode is 9: must be CROSS or ISOLATED",
    ),
    Row(
        "leverage 0.5",
        "accounts.CreateAccount",
        new_account(default_leverage="0.5"),
        INVALID,
        "LEVERAGE_OUT_OF_RANGE",
        "default_leverage is '0.5': must be 1 to 1000",
    ),
    Row(
        "leverage 2.345",
        "accounts.CreateAccount",
        new_account(default_leverage="2.345"),
        INVALID,
        "LEVERAGE_OUT_OF_RANGE",
        "must be a multiple of 0.01",
    ),
    Row(
        "negative first deposit",
        "accounts.CreateAccount",
        new_account(initial_collateral="-1"),
        INVALID,
        "AMOUNT_OUT_OF_RANGE",
        "initial_collateral is '-1': must be 0 to",
    ),
    Row(
        "unknown account to read",
        "accounts.GetAccount",
        accounts.GetAccountRequest(account_id=8),
        NOT_FOUND,
        "ACCOUNT_UNKNOWN",
        "account_id 8",
    ),
    Row(
        "page of 1001",
        "accounts.ListAccounts",
        accounts.ListAccountsRequest(page_size=1001),
        INVALID,
        "FIELD_INVALID",
        "page_size is 1001: must be 0 to 1000",
    ),
    Row(
        "foreign page token",
        "accounts.ListAccounts",
        accounts.ListAccountsRequest(page_token="x'; --"),
        INVALID,
        "FIELD_INVALID",
        "page_token",
    ),
    Row(
        "transfer without a position",
        "accounts.TransferMargin",
        accounts.TransferMarginRequest(account_id=7, instrument_id=1, amount="1"),
        FAILED,
        "NO_ISOLATED_POSITION",
        "account 7 has no isolated position on BTC-PERP",
    ),
    Row(
        "transfer on an unknown instrument",
        "accounts.TransferMargin",
        accounts.TransferMarginRequest(account_id=7, instrument_id=2, amount="1"),
        NOT_FOUND,
        "INSTRUMENT_UNKNOWN",
        "instrument_id 2 is unknown",
    ),
    Row(
        "hedge mode",
        "accounts.TransferMargin",
        accounts.TransferMarginRequest(
            account_id=7,
            instrument_id=1,
            amount="1",
            position_side=types_pb2.POSITION_SIDE_SHORT,
        ),
        INVALID,
        "POSITION_SIDE_NOT_SUPPORTED",
        "position_side is SHORT: must be NET or not set",
    ),
    Row(
        "mode not set",
        "accounts.ChangeMarginMode",
        accounts.ChangeMarginModeRequest(account_id=7, instrument_id=1),
        INVALID,
        "MARGIN_MODE_MISMATCH",
        "margin_mode is UNSPECIFIED: must be CROSS or ISOLATED",
    ),
    Row(
        "leverage above the schedule's",
        "accounts.SetLeverage",
        accounts.SetLeverageRequest(account_id=7, instrument_id=1, leverage="101"),
        INVALID,
        "LEVERAGE_OUT_OF_RANGE",
        "leverage 101 is out of range on BTC-PERP: must be 1 to 100",
    ),
    Row(
        "asset symbol in lower case",
        "instruments.CreateAsset",
        instruments.CreateAssetRequest(symbol="usdc", scale=6),
        INVALID,
        "DEFINITION_INVALID",
        "symbol is 'usdc': must be 1 to 15 of A-Z and 0-9",
    ),
    Row(
        "asset scale 13",
        "instruments.CreateAsset",
        instruments.CreateAssetRequest(symbol="USDC", scale=13),
        INVALID,
        "DEFINITION_INVALID",
        "scale is '13': must be 0 to 12",
    ),
    Row(
        "taken asset",
        "instruments.CreateAsset",
        instruments.CreateAssetRequest(symbol="USDT", scale=6),
        EXISTS,
        "ALREADY_EXISTS",
        "asset USDT exists already",
    ),
    Row(
        "size on an unknown instrument",
        "margins.ComputeMaxOrderSize",
        max_size(instrument_id=2),
        NOT_FOUND,
        "INSTRUMENT_UNKNOWN",
        "instrument_id 2",
    ),
    Row(
        "size at a price between ticks",
        "margins.ComputeMaxOrderSize",
        max_size(price="60000.25"),
        INVALID,
        "PRICE_OUT_OF_RANGE",
        "price is '60000.25': must be a multiple of 0.5",
    ),
    Row(
        "size at a negative price",
        "margins.ComputeMaxOrderSize",
        max_size(price="-0.5"),
        INVALID,
        "PRICE_OUT_OF_RANGE",
        "price is '-0.5': must be 0.5 to",
    ),
    Row(
        "size of a market order with a price",
        "margins.ComputeMaxOrderSize",
        max_size(order_type=types_pb2.ORDER_TYPE_MARKET),
        INVALID,
        "PRICE_OUT_OF_RANGE",
        "must be empty for a market order",
    ),
    Row(
        "size without a side",
        "margins.ComputeMaxOrderSize",
        max_size(side=0),
        INVALID,
        "SIDE_INVALID",
        "side is UNSPECIFIED: must be BUY or SELL",
    ),
    Row(
        "size of a stop order",
        "margins.ComputeMaxOrderSize",
        max_size(order_type=types_pb2.ORDER_TYPE_STOP),
        INVALID,
        "ORDER_TYPE_NOT_SUPPORTED",
        "order_type is STOP: must be LIMIT or MARKET",
    ),
    Row(
        "summary of an unknown account",
        "margins.GetMarginSummary",
        margins.GetMarginSummaryRequest(account_id=8),
        NOT_FOUND,
        "ACCOUNT_UNKNOWN",
        "account_id 8",
    ),
    Row(
        "liquidation price on an unknown instrument",
        "margins.ComputeLiquidationPrice",
        margins.ComputeLiquidationPriceRequest(account_id=7, instrument_id=2),
        NOT_FOUND,
        "INSTRUMENT_UNKNOWN",
        "instrument_id 2",
    ),
    Row(
        "Greeks at forward NaN",
        "margins.ComputeGreeks",
        greeks(forward=float("nan")),
        INVALID,
        "FIELD_INVALID",
        "forward is nan: must be above 0, finite",
    ),
    Row(
        "Greeks at volatility infinity",
        "margins.ComputeGreeks",
        greeks(volatility=float("inf")),
        INVALID,
        "FIELD_INVALID",
        "volatility is inf: must be zero or more, finite",
    ),
    Row(
        "Greeks of neither call nor put",
        "margins.ComputeGreeks",
        greeks(option_type=0),
        INVALID,
        "FIELD_INVALID",
        "option_type is UNSPECIFIED: must be CALL or PUT",
    ),
    Row(
        "mark of an unknown instrument",
        "marks.GetMark",
        marks.GetMarkRequest(instrument_id=2),
        NOT_FOUND,
        "INSTRUMENT_UNKNOWN",
        "instrument_id 2",
    ),
    Row(
        "no scope",
        "control.EngageKillSwitch",
        control.EngageKillSwitchRequest(),
        INVALID,
        "FIELD_INVALID",
        "scope is empty",
    ),
    Row(
        "scope service false",
        "control.EngageKillSwitch",
        control.EngageKillSwitchRequest(scope=control.Scope(service=False)),
        INVALID,
        "FIELD_INVALID",
        "scope.service is false",
    ),
    Row(
        "gateway 0",
        "control.EngageKillSwitch",
        control.EngageKillSwitchRequest(scope=control.Scope(gateway_id=0)),
        INVALID,
        "GATEWAY_ID_MISSING",
        "gateway_id",
    ),
    Row(
        "halt of an unknown account",
        "control.EngageKillSwitch",
        control.EngageKillSwitchRequest(scope=control.Scope(account_id=8)),
        NOT_FOUND,
        "ACCOUNT_UNKNOWN",
        "account_id 8",
    ),
    Row(
        "halt of an unknown instrument",
        "control.EngageKillSwitch",
        control.EngageKillSwitchRequest(scope=control.Scope(instrument_id=2)),
        NOT_FOUND,
        "INSTRUMENT_UNKNOWN",
        "instrument_id 2",
    ),
    Row(
        "comment of 256 bytes",
        "control.EngageKillSwitch",
        control.EngageKillSwitchRequest(scope=SERVICE, comment="é" * 128),
        INVALID,
        "FIELD_INVALID",
        "comment has 256 bytes: must have at most 255",
    ),
    Row(
        "release to HALTED",
        "control.ReleaseKillSwitch",
        control.ReleaseKillSwitchRequest(
            scope=SERVICE, trading_state=types_pb2.TRADING_STATE_HALTED
        ),
        INVALID,
        "FIELD_INVALID",
        "trading_state is HALTED: must be NORMAL or REDUCE_ONLY",
    ),
    Row(
        "no state",
        "control.ChangeTradingState",
        control.ChangeTradingStateRequest(scope=SERVICE),
        INVALID,
        "FIELD_INVALID",
        "trading_state is UNSPECIFIED",
    ),
    Row(
        "simulation of nothing",
        "margins.SimulatePortfolio",
        margins.SimulatePortfolioRequest(),
        grpc.StatusCode.NOT_FOUND,
        "ASSET_UNKNOWN",
        "settlement_asset '' is unknown",
    ),
    Row(
        "empty batch",
        "orders.BatchCheckOrders",
        orders.BatchCheckOrdersRequest(),
        INVALID,
        "REQUEST_MALFORMED",
        "missing",
    ),
    Row(
        "explanation",
        "audit.ExplainDecision",
        audit.ExplainDecisionRequest(revision=1),
        grpc.StatusCode.FAILED_PRECONDITION,
        "DECISION_NOT_KEPT",
        "durability is none",
    ),
    Row(
        "position mode",
        "accounts.ChangePositionMode",
        accounts.ChangePositionModeRequest(account_id=7),
        INVALID,
        "DEFINITION_INVALID",
        "position_mode is UNSPECIFIED: must be ONE_WAY or HEDGE",
    ),
    Row(
        "position mode of an unknown account",
        "accounts.ChangePositionMode",
        accounts.ChangePositionModeRequest(
            account_id=8, position_mode=types_pb2.POSITION_MODE_HEDGE
        ),
        NOT_FOUND,
        "ACCOUNT_UNKNOWN",
        "account_id 8 is unknown",
    ),
    Row(
        "firm 0",
        "accounts.CreateFirm",
        accounts.CreateFirmRequest(settlement_asset="USDT"),
        INVALID,
        "FIELD_INVALID",
        "firm_id is 0: must be 1 to 2^32 - 1",
    ),
    Row(
        "firm of an unknown asset",
        "accounts.CreateFirm",
        accounts.CreateFirmRequest(firm_id=1, settlement_asset="EUR"),
        NOT_FOUND,
        "ASSET_UNKNOWN",
        "settlement_asset 'EUR' is unknown: the assets are USDT",
    ),
    Row(
        "unknown firm",
        "accounts.SetAccountOwner",
        accounts.SetAccountOwnerRequest(account_id=7, firm_id=9),
        NOT_FOUND,
        "FIRM_UNKNOWN",
        "firm_id 9 is unknown",
    ),
    Row(
        "unknown parent",
        "accounts.SetAccountOwner",
        accounts.SetAccountOwnerRequest(account_id=7, parent_account_id=9),
        FAILED,
        "OWNER_INVALID",
        "parent_account_id 9 is unknown",
    ),
    Row(
        "account as its own parent",
        "accounts.SetAccountOwner",
        accounts.SetAccountOwnerRequest(account_id=7, parent_account_id=7),
        FAILED,
        "OWNER_INVALID",
        "parent_account_id 7 is the account itself",
    ),
    Row(
        "lease of gateway 0",
        "control.RenewGatewayLease",
        control.RenewGatewayLeaseRequest(duration_ms=1, action=types_pb2.LEASE_ACTION_BLOCK),
        INVALID,
        "GATEWAY_ID_MISSING",
        "gateway_id is 0: must be 1 to 2^32 - 1",
    ),
    Row(
        "lease of more than a day",
        "control.RenewGatewayLease",
        control.RenewGatewayLeaseRequest(
            gateway_id=3, duration_ms=86_400_001, action=types_pb2.LEASE_ACTION_BLOCK
        ),
        INVALID,
        "DEFINITION_INVALID",
        "duration_ms is 86400001: must be 0 to 86400000",
    ),
    Row(
        "lease without an action",
        "control.RenewGatewayLease",
        control.RenewGatewayLeaseRequest(gateway_id=3, duration_ms=1),
        INVALID,
        "DEFINITION_INVALID",
        "action is UNSPECIFIED: must be BLOCK or CANCEL",
    ),
    Row(
        "cancel of everything",
        "control.CancelOrders",
        control.CancelOrdersRequest(side=types_pb2.SIDE_BUY),
        INVALID,
        "DEFINITION_INVALID",
        "gateway_id, account_id and instrument_id is 0: must be at least one of them not 0",
    ),
    Row(
        "cancel of an unknown side",
        "control.CancelOrders",
        control.CancelOrdersRequest(gateway_id=3, side=types_pb2.Side.ValueType(9)),
        INVALID,
        "DEFINITION_INVALID",
        "side is 9: must be BUY, SELL or not set",
    ),
    Row(
        "cancel in an unknown account",
        "control.CancelOrders",
        control.CancelOrdersRequest(account_id=8),
        NOT_FOUND,
        "ACCOUNT_UNKNOWN",
        "account_id 8 is unknown",
    ),
    Row(
        "cancel on an unknown instrument",
        "control.CancelOrders",
        control.CancelOrdersRequest(instrument_id=2),
        NOT_FOUND,
        "INSTRUMENT_UNKNOWN",
        "instrument_id 2 is unknown",
    ),
    Row(
        "cancel that keeps too many",
        "control.CancelOrders",
        control.CancelOrdersRequest(gateway_id=3, keep_reservation_ids=range(1, 10_002)),
        INVALID,
        "DEFINITION_INVALID",
        "keep_reservation_ids is 10001 ids: must be at most 10000",
    ),
    Row(
        "comment of a cancel",
        "control.CancelOrders",
        control.CancelOrdersRequest(gateway_id=3, comment="x" * 256),
        INVALID,
        "FIELD_INVALID",
        "comment has 256 bytes: must have at most 255",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_bad_cold_request_has_its_own_error_and_changes_nothing(market: Rig, row: Row) -> None:
    before = market.engine.state_hash(), market.engine.revision
    stub, _, method = row.method.partition(".")
    failure = market.fail(getattr(getattr(market, stub), method), row.request)
    assert (failure.code, failure.reason) == (row.code, row.reason), failure.message
    assert row.message in failure.message
    assert (market.engine.state_hash(), market.engine.revision) == before
    assert_answers(market)


def change_instrument(**values: Any) -> Callable[[instruments.Instrument], None]:
    def change(instrument: instruments.Instrument) -> None:
        for field, value in values.items():
            setattr(instrument, field, value)

    return change


@pytest.mark.parametrize(
    ("values", "reason", "message"),
    [
        ({"symbol": ""}, "DEFINITION_INVALID", "instrument.symbol"),
        ({"symbol": "A B"}, "DEFINITION_INVALID", "instrument.symbol is 'A B'"),
        ({"kind": 0}, "DEFINITION_INVALID", "instrument.kind is 'UNSPECIFIED'"),
        ({"kind": 9}, "DEFINITION_INVALID", "instrument.kind is '9'"),
        ({"settlement_asset": "XYZ"}, "ASSET_UNKNOWN", "instrument.settlement_asset 'XYZ'"),
        ({"margin_schedule": "XYZ"}, "SCHEDULE_UNKNOWN", "the schedules are BTC"),
        ({"tick_size": "0"}, "DEFINITION_INVALID", "instrument.tick_size is '0'"),
        ({"tick_size": "-1"}, "DEFINITION_INVALID", "must be above 0"),
        ({"tick_size": "0.0000001"}, "DEFINITION_INVALID", "whole minor units"),
        ({"tick_size": "1e30"}, "DEFINITION_INVALID", "instrument.tick_size is '1e30'"),
        ({"lot_size": "NaN"}, "DEFINITION_INVALID", "instrument.lot_size is 'NaN'"),
        ({"lot_size": "1000000000000"}, "DEFINITION_INVALID", "1 to 2^40 whole minor units"),
        ({"mark_units_per_tick": 0}, "DEFINITION_INVALID", "instrument.mark_units_per_tick is '0'"),
        (
            {"order_quantity_min": "0.0005"},
            "DEFINITION_INVALID",
            "instrument.order_quantity_min is '0.0005': must be a multiple of 0.001",
        ),
        (
            {"order_quantity_min": "200"},
            "DEFINITION_INVALID",
            "instrument.order_quantity_max is '100': must be at least order_quantity_min 200",
        ),
        ({"order_quantity_min": "0"}, "DEFINITION_INVALID", "must be 0.001 to"),
        ({"order_quantity_max": "-1"}, "DEFINITION_INVALID", "must be 0.001 to"),
        ({"order_quantity_max": "1e999"}, "DEFINITION_INVALID", "exponent must be -30 to 30"),
        ({"order_notional_max": "-5"}, "DEFINITION_INVALID", "instrument.order_notional_max"),
        ({"price_collar_rate": "1.1"}, "DEFINITION_INVALID", "must be 0 to 1"),
        ({"taker_fee_rate": "1e-10"}, "DEFINITION_INVALID", "must be a multiple of 0.000000001"),
        ({"mark_age_max_ms": 2**64 - 1}, "DEFINITION_INVALID", "instrument.mark_age_max_ms"),
        ({"trading_state": 9}, "DEFINITION_INVALID", "instrument.trading_state is '9'"),
        ({"strike": "1"}, "DEFINITION_INVALID", "instrument.strike is '1': must be not set"),
        (
            {"interest_rate": "0.01"},
            "DEFINITION_INVALID",
            "must be empty or 0 for a LINEAR_PERPETUAL",
        ),
    ],
    ids=str,
)
def test_bad_instrument_is_refused(
    market: Rig,
    instrument: instruments.Instrument,
    values: dict[str, Any],
    reason: str,
    message: str,
) -> None:
    before = market.engine.state_hash(), market.engine.revision
    instrument.symbol = "NEW-PERP"
    change_instrument(**values)(instrument)
    failure = market.fail(
        market.instruments.UpsertInstrument,
        instruments.UpsertInstrumentRequest(instrument=instrument),
    )
    assert failure.reason == reason
    assert message in failure.message
    assert (market.engine.state_hash(), market.engine.revision) == before


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"tick_size": "1"}, "tick_size is 0.5 and cannot change to 1"),
        ({"lot_size": "0.01"}, "lot_size is 0.001 and cannot change to 0.01"),
        ({"mark_units_per_tick": 1}, "mark_units_per_tick is 10"),
    ],
    ids=str,
)
def test_contract_terms_cannot_change(
    market: Rig, instrument: instruments.Instrument, values: dict[str, Any], field: str
) -> None:
    change_instrument(**values)(instrument)
    failure = market.fail(
        market.instruments.UpsertInstrument,
        instruments.UpsertInstrumentRequest(instrument=instrument),
    )
    assert (failure.code, failure.reason) == (FAILED, "FIELD_IMMUTABLE")
    assert field in failure.message


@pytest.mark.parametrize(
    ("tier", "values", "message"),
    [
        (0, {"floor_notional": "1"}, "tiers[0].floor_notional is '1': must be 0 in the first"),
        (0, {"maintenance_rate": "0"}, "tiers[0].maintenance_rate is '0'"),
        (0, {"maintenance_rate": "1"}, "tiers[0].maintenance_rate is '1'"),
        (0, {"max_leverage": "0.99"}, "tiers[0].max_leverage is '0.99': must be 1 to 1000"),
        (1, {"floor_notional": "0"}, "tiers[1].floor_notional is '0': must be above 0"),
        (1, {"initial_rate": "0.009"}, "tiers[1].initial_rate is '0.009': must be at least 0.01"),
        (1, {"maintenance_rate": "0.005"}, "must be above 0.005 of the tier below"),
        (1, {"max_leverage": "101"}, "must be at most 100 of the tier below"),
        (1, {"floor_notional": "50000.000001"}, "the deduction 250.000000005 is a whole number"),
        (1, {"deduction": "251"}, "tiers[1].deduction is '251': must be empty, or 250"),
    ],
    ids=str,
)
def test_bad_schedule_is_refused(
    market: Rig,
    schedule: instruments.MarginSchedule,
    tier: int,
    values: dict[str, Any],
    message: str,
) -> None:
    before = market.engine.state_hash()
    for field, value in values.items():
        setattr(schedule.tiers[tier], field, value)
    failure = market.fail(
        market.instruments.UpsertMarginSchedule,
        instruments.UpsertMarginScheduleRequest(schedule=schedule),
    )
    assert (failure.code, failure.reason) == (INVALID, "DEFINITION_INVALID")
    assert message in failure.message
    assert market.engine.state_hash() == before


def test_full_table_is_resource_exhausted(
    new_rig: Callable[..., Rig], clock: Callable[[], int]
) -> None:
    rig = new_rig(clock, accounts_max=1)
    rig.instruments.CreateAsset(instruments.CreateAssetRequest(symbol="USDT", scale=6))
    rig.accounts.CreateAccount(new_account())
    failure = rig.fail(rig.accounts.CreateAccount, new_account(account_id=10))
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.reason == "ACCOUNTS_FULL"
    assert "accounts_max" in failure.message


def test_withdrawals_name_both_sides(market: Rig, order: orders.CheckOrderRequest) -> None:
    market.orders.CheckOrder(order)
    failure = market.fail(market.accounts.AdjustCollateral, collateral("-9697.000001"))
    assert failure.message == "amount 9697.000001 exceeds available 9697 (USDT)"
    assert failure.metadata["available"] == "9697"
    assert failure.metadata["amount"] == "9697.000001"
