"""Every method of every service answers through a real channel."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from riskd.core.engine import METHOD_CHECK_ORDER, METHOD_REPORT_MARKS
from riskd.logs import JsonFormatter
from riskd.settings import Settings
from riskd.v1 import (
    account_service_pb2,
    audit_service_pb2,
    control_service_pb2,
    instrument_service_pb2,
    limit_service_pb2,
    margin_service_pb2,
    market_data_service_pb2,
    order_risk_service_pb2,
    types_pb2,
)
from riskd.wiring import build_engine

if TYPE_CHECKING:
    from tests.service.conftest import Clock, Rig

FILES = (
    account_service_pb2,
    audit_service_pb2,
    control_service_pb2,
    instrument_service_pb2,
    limit_service_pb2,
    margin_service_pb2,
    market_data_service_pb2,
    order_risk_service_pb2,
)
SERVICES: list[ServiceDescriptor] = [
    service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
]
# Streams do not end by themselves: test_risk_events.py has them.
METHODS = [
    f"{service.name}/{method.name}"
    for service in SERVICES
    for method in service.methods
    if not method.server_streaming
]


@pytest.mark.parametrize("method", METHODS)
def test_method_of_the_contract_is_registered(rig: Rig, method: str) -> None:
    try:
        rig.raw(method, b"")
    except grpc.RpcError:
        failure = rig.fail(rig.raw, method, b"")
        assert failure.reason, failure
        assert failure.code is not grpc.StatusCode.UNIMPLEMENTED


def test_check_order_reserves_and_repeats_its_first_answer_byte_for_byte(
    market: Rig, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    first = market.raw("OrderRiskService/CheckOrder", order.SerializeToString())
    again = market.raw("OrderRiskService/CheckOrder", order.SerializeToString())
    reply = order_risk_service_pb2.CheckOrderResponse.FromString(first)
    assert reply.decision == types_pb2.DECISION_ACCEPTED
    assert reply.reservation_id == reply.revision == market.engine.revision
    assert again == first


def test_control_server_answers_with_the_engines_bytes(
    market: Rig, clock: Clock, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    twin = build_engine_like(market)
    request = order.SerializeToString()
    assert market.raw("OrderRiskService/CheckOrder", request) == twin(request)


def build_engine_like(market: Rig) -> Callable[[bytes], bytes]:
    """Return CheckOrder of a second engine with the same definitions, account and mark."""
    engine = build_engine(Settings(durability="none"))
    for asset in market.engine.assets():
        engine.create_asset(asset.symbol, asset.scale)
    for row in market.engine.schedules():
        tiers = [(tier[0], tier[1], tier[2], tier[4]) for tier in row.tiers]
        engine.upsert_schedule(row.name, row.asset_id, tiers)
    told = ("settlement_price", "funding_time_ns", "open_interest_lots")
    for instrument in market.engine.instruments():
        fields = instrument._asdict()
        for name in ("instrument_id", *told):
            fields.pop(name)
        engine.upsert_instrument(**fields)
    for account in market.engine.accounts(0, 10):
        engine.create_account(*account[:5])
    mark = market.engine.mark(1)
    assert mark is not None
    report = market_data_service_pb2.ReportMarksRequest(
        marks=[
            market_data_service_pb2.Mark(
                instrument_id=1, mark_price=mark.price, time_ns=mark.time_ns
            )
        ]
    )
    engine.handle(METHOD_REPORT_MARKS, report.SerializeToString(), market.clock())
    assert engine.state_lines() == market.engine.state_lines()
    return lambda request: engine.handle(METHOD_CHECK_ORDER, request, market.clock())


def test_execution_turns_a_reservation_into_a_position(
    market: Rig, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    reservation_id = market.orders.CheckOrder(order).reservation_id
    working = market.orders.GetReservation(
        order_risk_service_pb2.GetReservationRequest(reservation_id=reservation_id)
    )
    assert working.state == order_risk_service_pb2.RESERVATION_STATE_WORKING
    fill = market.orders.ReportExecution(
        order_risk_service_pb2.ReportExecutionRequest(
            gateway_id=3,
            execution_id=9,
            reservation_id=reservation_id,
            kind=order_risk_service_pb2.EXECUTION_KIND_FILL,
            price_ticks=120_000,
            quantity_lots=100,
        )
    )
    assert fill.decision == types_pb2.DECISION_ACCEPTED
    positions = market.margins.ListPositionMargins(
        margin_service_pb2.ListPositionMarginsRequest(account_id=7)
    )
    (position,) = positions.positions
    # 0.1 at 60000: value 6000, initial 6000 / 20, maintenance 6000 * 0.005.
    assert position.symbol == "BTC-PERP"
    assert position.quantity == "0.1"
    assert position.entry_price == position.mark_price == "60000"
    assert position.entry_value == position.notional == "6000"
    assert position.initial_margin == "300"
    assert position.maintenance_margin == "30"
    assert position.unrealised_pnl == "0"
    assert position.isolated_wallet == ""
    assert positions.revision == fill.revision
    price = market.margins.ComputeLiquidationPrice(
        margin_service_pb2.ComputeLiquidationPriceRequest(account_id=7, instrument_id=1)
    )
    # 10000 of the pool stand behind 6000: no price above zero liquidates.
    assert price.liquidation_status == types_pb2.LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
    assert price.liquidation_price == ""


def test_margin_summary_shows_the_account(
    market: Rig, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    market.orders.CheckOrder(order)
    reply = market.margins.GetMarginSummary(
        margin_service_pb2.GetMarginSummaryRequest(account_id=7)
    )
    summary = reply.summary
    # Order value 6000 at leverage 20 is 300, fee 6000 * 0.0005 is 3.
    assert summary.cash == summary.cross_equity == "10000"
    assert summary.initial_margin == "303"
    assert summary.available == "9697"
    assert summary.working_order_count == 1
    assert not summary.cross_liquidatable
    assert reply.revision == market.engine.revision


def test_mark_that_was_never_reported_is_absent(
    market: Rig, instrument: instrument_service_pb2.Instrument
) -> None:
    instrument.symbol = "ETH-PERP"
    eth = market.instruments.UpsertInstrument(
        instrument_service_pb2.UpsertInstrumentRequest(instrument=instrument)
    ).instrument
    reply = market.marks.GetMark(
        market_data_service_pb2.GetMarkRequest(instrument_id=eth.instrument_id)
    )
    assert not reply.HasField("mark")
    assert reply.revision == market.engine.revision
    held = market.marks.GetMark(market_data_service_pb2.GetMarkRequest(instrument_id=1))
    assert held.mark.mark_price == 1_200_000


def test_max_order_size_passes_and_one_lot_more_does_not(
    market: Rig, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    size = market.margins.ComputeMaxOrderSize(
        margin_service_pb2.ComputeMaxOrderSizeRequest(
            account_id=7,
            instrument_id=1,
            side=types_pb2.SIDE_BUY,
            order_type=types_pb2.ORDER_TYPE_LIMIT,
            price="60000",
        )
    )
    order.mode = order_risk_service_pb2.CHECK_MODE_CHECK_ONLY
    order.quantity_lots = size.quantity_lots
    assert market.orders.CheckOrder(order).decision == types_pb2.DECISION_ACCEPTED
    order.quantity_lots += 1
    rejected = market.orders.CheckOrder(order)
    assert rejected.decision == types_pb2.DECISION_REJECTED
    assert rejected.reason == size.limiting_reason
    assert size.quantity == f"{size.quantity_lots / 1000:g}"


def test_greeks_are_those_of_black_76(rig: Rig) -> None:
    reply = rig.margins.ComputeGreeks(
        margin_service_pb2.ComputeGreeksRequest(
            option_type=instrument_service_pb2.OPTION_TYPE_CALL,
            forward=100,
            strike=100,
            volatility=0.2,
            time_years=1,
        )
    )
    # At the money without interest: F (2 N(0.1) - 1), N(0.1) = 0.539827837277029.
    assert reply.price == pytest.approx(100 * (2 * 0.539827837277029 - 1), abs=1e-12)
    assert reply.delta == pytest.approx(0.539827837277029, abs=1e-15)


def test_collateral_moves_and_validate_only_changes_nothing(market: Rig) -> None:
    before = market.engine.state_hash()
    request = account_service_pb2.AdjustCollateralRequest(
        account_id=7, asset="USDT", amount="-2500.5", validate_only=True
    )
    shown = market.accounts.AdjustCollateral(request)
    assert (shown.account.cash, shown.available) == ("7499.5", "7499.5")
    assert market.engine.state_hash() == before
    request.validate_only = False
    done = market.accounts.AdjustCollateral(request)
    assert done.account == shown.account
    assert done.revision == shown.revision + 1 == market.engine.revision
    held = market.accounts.GetAccount(account_service_pb2.GetAccountRequest(account_id=7))
    assert held.account.cash == "7499.5"


def test_isolated_position_takes_margin_leverage_and_mode(
    market: Rig, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    mode = market.accounts.ChangeMarginMode(
        account_service_pb2.ChangeMarginModeRequest(
            account_id=7, instrument_id=1, margin_mode=types_pb2.MARGIN_MODE_ISOLATED
        )
    )
    assert mode.revision == market.engine.revision
    leverage = market.accounts.SetLeverage(
        account_service_pb2.SetLeverageRequest(account_id=7, instrument_id=1, leverage="10")
    )
    assert leverage.leverage == "10"
    reservation_id = market.orders.CheckOrder(order).reservation_id
    market.orders.ReportExecution(
        order_risk_service_pb2.ReportExecutionRequest(
            gateway_id=3,
            execution_id=1,
            reservation_id=reservation_id,
            kind=order_risk_service_pb2.EXECUTION_KIND_FILL,
            price_ticks=120_000,
            quantity_lots=100,
        )
    )
    moved = market.accounts.TransferMargin(
        account_service_pb2.TransferMarginRequest(account_id=7, instrument_id=1, amount="100")
    )
    # 6000 / 10 went in with the fill.
    assert moved.isolated_wallet == "700"
    assert moved.available == "9300"
    positions = market.margins.ListPositionMargins(
        margin_service_pb2.ListPositionMarginsRequest(account_id=7)
    ).positions
    assert positions[0].isolated_wallet == "700"
    assert positions[0].liquidation_status == types_pb2.LIQUIDATION_STATUS_AT_PRICE
    # (s q c E - W - d) / (q c (s - m)) = (6000 - 700) / (0.1 * 0.995), floored to a mark unit 0.05.
    assert positions[0].liquidation_price == "53266.3"
    assert positions[0].bankruptcy_price == "53000"


def test_lists_go_page_by_page(rig: Rig, instrument: instrument_service_pb2.Instrument) -> None:
    rig.instruments.CreateAsset(instrument_service_pb2.CreateAssetRequest(symbol="USDT", scale=6))
    for account_id in (2**64 - 1, 1, 5):
        rig.accounts.CreateAccount(
            account_service_pb2.CreateAccountRequest(account_id=account_id, settlement_asset="USDT")
        )
    first = rig.accounts.ListAccounts(account_service_pb2.ListAccountsRequest(page_size=2))
    assert [account.account_id for account in first.accounts] == [1, 5]
    second = rig.accounts.ListAccounts(
        account_service_pb2.ListAccountsRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [account.account_id for account in second.accounts] == [2**64 - 1]
    assert second.next_page_token == ""
    assert second.accounts[0].default_leverage == "20"


def test_definitions_read_back_as_they_were_written(
    market: Rig,
    instrument: instrument_service_pb2.Instrument,
    schedule: instrument_service_pb2.MarginSchedule,
) -> None:
    (listed,) = market.instruments.ListInstruments(
        instrument_service_pb2.ListInstrumentsRequest()
    ).instruments
    for field, value in instrument.ListFields():
        assert getattr(listed, field.name) == value
    assert listed.trading_state == types_pb2.TRADING_STATE_NORMAL
    (held,) = market.instruments.ListMarginSchedules(
        instrument_service_pb2.ListMarginSchedulesRequest()
    ).schedules
    # d_1 = 0 + 50000 (0.01 - 0.005)
    assert [tier.deduction for tier in held.tiers] == ["0", "250"]
    assert held.version == 1
    again = market.instruments.UpsertMarginSchedule(
        instrument_service_pb2.UpsertMarginScheduleRequest(schedule=held)
    )
    assert again.schedule.version == 2
    (asset,) = market.instruments.ListAssets(instrument_service_pb2.ListAssetsRequest()).assets
    assert (asset.symbol, asset.scale) == ("USDT", 6)


def test_option_is_defined_by_symbol(market: Rig) -> None:
    option = instrument_service_pb2.Instrument(
        symbol="BTC-70000-C",
        kind=instrument_service_pb2.INSTRUMENT_KIND_LINEAR_OPTION,
        settlement_asset="USDT",
        tick_size="0.5",
        lot_size="0.01",
        mark_units_per_tick=1,
        expiry_time_ns=1_800_000_000_000_000_000,
        strike="70000",
        option_type=instrument_service_pb2.OPTION_TYPE_CALL,
        interest_rate="-0.01",
        underlying_instrument_id=1,
    )
    reply = market.instruments.UpsertInstrument(
        instrument_service_pb2.UpsertInstrumentRequest(instrument=option)
    )
    for field, value in option.ListFields():
        assert getattr(reply.instrument, field.name) == value


def test_kill_switch_halts_lists_what_works_and_is_released(
    market: Rig, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    reservation_id = market.orders.CheckOrder(order).reservation_id
    scope = control_service_pb2.Scope(account_id=7)
    engaged = market.control.EngageKillSwitch(
        control_service_pb2.EngageKillSwitchRequest(scope=scope, comment="runaway strategy")
    )
    assert list(engaged.reservation_ids) == [reservation_id]
    assert not engaged.truncated
    order.client_order_id = 2
    assert market.orders.CheckOrder(order).reason == types_pb2.REASON_CODE_ACCOUNT_HALTED
    states = market.control.ListTradingStates(control_service_pb2.ListTradingStatesRequest())
    assert [(each.scope, each.trading_state) for each in states.states] == [
        (scope, types_pb2.TRADING_STATE_HALTED)
    ]
    released = market.control.ReleaseKillSwitch(
        control_service_pb2.ReleaseKillSwitchRequest(
            scope=scope, trading_state=types_pb2.TRADING_STATE_REDUCE_ONLY
        )
    )
    assert released.trading_state == types_pb2.TRADING_STATE_REDUCE_ONLY
    # Someone's restriction is not lifted by a release.
    failure = market.fail(
        market.control.ReleaseKillSwitch,
        control_service_pb2.ReleaseKillSwitchRequest(
            scope=scope, trading_state=types_pb2.TRADING_STATE_NORMAL
        ),
    )
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "SCOPE_NOT_HALTED",
    )
    market.control.ChangeTradingState(
        control_service_pb2.ChangeTradingStateRequest(
            scope=scope, trading_state=types_pb2.TRADING_STATE_NORMAL
        )
    )
    states = market.control.ListTradingStates(control_service_pb2.ListTradingStatesRequest())
    assert not states.states


@pytest.mark.parametrize(
    "scope",
    [
        control_service_pb2.Scope(service=True),
        control_service_pb2.Scope(gateway_id=3),
        control_service_pb2.Scope(account_id=7),
        control_service_pb2.Scope(instrument_id=1),
    ],
    ids=lambda scope: scope.WhichOneof("target"),
)
def test_every_scope_can_be_halted(market: Rig, scope: control_service_pb2.Scope) -> None:
    market.control.EngageKillSwitch(control_service_pb2.EngageKillSwitchRequest(scope=scope))
    states = market.control.ListTradingStates(control_service_pb2.ListTradingStatesRequest())
    assert [each.scope for each in states.states] == [scope]


def test_change_of_fees_does_not_lift_a_halt(
    market: Rig, instrument: instrument_service_pb2.Instrument
) -> None:
    market.control.EngageKillSwitch(
        control_service_pb2.EngageKillSwitchRequest(
            scope=control_service_pb2.Scope(instrument_id=1)
        )
    )
    instrument.taker_fee_rate = "0.001"
    changed = market.instruments.UpsertInstrument(
        instrument_service_pb2.UpsertInstrumentRequest(instrument=instrument)
    ).instrument
    assert changed.taker_fee_rate == "0.001"
    assert changed.trading_state == types_pb2.TRADING_STATE_HALTED


def test_changes_are_logged_and_dry_runs_are_not(
    market: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "riskd.changes")
    request = account_service_pb2.AdjustCollateralRequest(
        account_id=7, asset="USDT", amount="1", validate_only=True
    )
    market.accounts.AdjustCollateral(request)
    assert not caplog.records
    request.validate_only = False
    market.accounts.AdjustCollateral(request)
    market.control.EngageKillSwitch(
        control_service_pb2.EngageKillSwitchRequest(
            scope=control_service_pb2.Scope(gateway_id=3), comment='"}\nforged: line'
        )
    )
    texts = [JsonFormatter().format(record) for record in caplog.records]
    assert all("\n" not in text for text in texts)
    adjusted, engaged = (json.loads(text) for text in texts)
    assert adjusted["method"] == "AdjustCollateral"
    assert adjusted["arguments"]["amount"] == "1"
    assert adjusted["changes"]["cash"] == ["10000", "10001"]
    assert engaged["arguments"] == {"scope.gateway_id": "3", "comment": '"}\nforged: line'}
    assert engaged["changes"]["trading_state"] == ["NORMAL", "HALTED"]
    assert engaged["revision"] == market.engine.revision


def test_cross_positions_share_one_margin_ratio(
    market: Rig,
    order: order_risk_service_pb2.CheckOrderRequest,
    instrument: instrument_service_pb2.Instrument,
) -> None:
    """The pool backs all of them: each ratio is that of the account, and reaches 1 with it."""
    instrument.symbol = "OTHER-PERP"
    market.instruments.UpsertInstrument(
        instrument_service_pb2.UpsertInstrumentRequest(instrument=instrument)
    )
    mark = market.marks.GetMark(market_data_service_pb2.GetMarkRequest(instrument_id=1)).mark
    mark.instrument_id = 2
    market.marks.ReportMarks(market_data_service_pb2.ReportMarksRequest(marks=[mark]))
    for instrument_id in (1, 2):
        order.instrument_id = instrument_id
        order.client_order_id += 1
        reservation_id = market.orders.CheckOrder(order).reservation_id
        market.orders.ReportExecution(
            order_risk_service_pb2.ReportExecutionRequest(
                gateway_id=3,
                execution_id=instrument_id,
                reservation_id=reservation_id,
                kind=order_risk_service_pb2.EXECUTION_KIND_FILL,
                price_ticks=order.price_ticks,
                quantity_lots=10 * instrument_id,
                instrument_id=instrument_id,
            )
        )
    positions = market.margins.ListPositionMargins(
        margin_service_pb2.ListPositionMarginsRequest(account_id=7)
    ).positions
    summary = market.margins.GetMarginSummary(
        margin_service_pb2.GetMarginSummaryRequest(account_id=7)
    ).summary
    assert positions[0].maintenance_margin != positions[1].maintenance_margin
    assert positions[0].margin_ratio == positions[1].margin_ratio == summary.cross_margin_ratio


def test_amendment_is_a_delta_and_a_refused_one_leaves_the_order(
    market: Rig, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    reservation_id = market.orders.CheckOrder(order).reservation_id
    amendment = order_risk_service_pb2.CheckAmendmentRequest(
        gateway_id=3,
        reservation_id=reservation_id,
        client_order_id=1,
        price_ticks=order.price_ticks,
        quantity_lots=order.quantity_lots * 2,
    )
    amended = market.orders.CheckAmendment(amendment).order
    assert amended.decision == types_pb2.DECISION_ACCEPTED
    assert amended.reservation_id == reservation_id
    held = market.orders.GetReservation(
        order_risk_service_pb2.GetReservationRequest(reservation_id=reservation_id)
    )
    assert held.quantity_lots == held.remaining_lots == order.quantity_lots * 2
    before = market.engine.state_hash()
    amendment.client_order_id = 2
    amendment.quantity_lots = 10**9
    refused = market.orders.CheckAmendment(amendment).order
    assert refused.decision == types_pb2.DECISION_REJECTED
    assert 0 < refused.max_quantity_lots < 10**9
    assert market.engine.state_hash() == before
    amendment.client_order_id = 3
    amendment.quantity_lots = refused.max_quantity_lots
    assert market.orders.CheckAmendment(amendment).order.decision == types_pb2.DECISION_ACCEPTED
    amendment.client_order_id = 4
    amendment.quantity_lots += 1
    assert market.orders.CheckAmendment(amendment).order.decision == types_pb2.DECISION_REJECTED
