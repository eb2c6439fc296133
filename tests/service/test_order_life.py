"""Order types, hedge mode, batches, leases and mass cancels through a real channel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from riskd.v1 import account_service_pb2 as accounts
from riskd.v1 import control_service_pb2 as control
from riskd.v1 import instrument_service_pb2 as instruments
from riskd.v1 import margin_service_pb2 as margins
from riskd.v1 import market_data_service_pb2 as marks
from riskd.v1 import order_risk_service_pb2 as orders
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from tests.service.conftest import Clock, Rig

ACCEPTED = types_pb2.DECISION_ACCEPTED
REJECTED = types_pb2.DECISION_REJECTED
SECOND_NS = 10**9
# No test waits so long: it only keeps a broken one from hanging.
PATIENCE_S = 60.0


def place(
    rig: Rig, order: orders.CheckOrderRequest, client_order_id: int, **changes: Any
) -> orders.CheckOrderResponse:
    request = orders.CheckOrderRequest()
    request.CopyFrom(order)
    request.client_order_id = client_order_id
    for field, value in changes.items():
        setattr(request, field, value)
    return rig.orders.CheckOrder(request)


def fill(
    rig: Rig, reservation_id: int, execution_id: int, quantity_lots: int, **values: Any
) -> None:
    reply = rig.orders.ReportExecution(
        orders.ReportExecutionRequest(
            gateway_id=3,
            execution_id=execution_id,
            reservation_id=reservation_id,
            kind=orders.EXECUTION_KIND_FILL,
            price_ticks=120_000,
            quantity_lots=quantity_lots,
            **values,
        )
    )
    assert reply.decision == ACCEPTED


def working(rig: Rig) -> list[int]:
    return list(rig.engine.working_reservations(1, 0, 100))


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the service does by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_stop_order_is_margined_at_its_trigger(
    market: Rig, order: orders.CheckOrderRequest
) -> None:
    stop = place(
        market,
        order,
        1,
        order_type=types_pb2.ORDER_TYPE_STOP,
        price_ticks=0,
        trigger_price_ticks=130_000,
    )
    assert stop.decision == ACCEPTED
    # 0.1 at 65000 with leverage 20 is 325, its fee 6500 * 0.0005 is 3.25.
    assert stop.reserved_minor == 328_250_000


def test_batch_of_all_or_none_reserves_all_legs_or_none(
    market: Rig, order: orders.CheckOrderRequest
) -> None:
    def batch(mode: orders.BatchMode.ValueType, *ids_and_lots: tuple[int, int]) -> Any:
        request = orders.BatchCheckOrdersRequest(mode=mode)
        for order_id, lots in ids_and_lots:
            order.client_order_id = order_id
            order.quantity_lots = lots
            request.orders.append(order)
        return market.orders.BatchCheckOrders(request)

    refused = batch(orders.BATCH_MODE_ALL_OR_NONE, (1, 100), (2, 4_000))
    assert [row.reason for row in refused.decisions] == [
        types_pb2.REASON_CODE_BATCH_ORDER_REJECTED,
        types_pb2.REASON_CODE_MARGIN_INSUFFICIENT,
    ]
    assert not working(market)
    partly = batch(orders.BATCH_MODE_INDEPENDENT, (3, 100), (4, 4_000))
    assert [row.decision for row in partly.decisions] == [ACCEPTED, REJECTED]
    whole = batch(orders.BATCH_MODE_ALL_OR_NONE, (5, 100), (6, 200))
    assert [row.decision for row in whole.decisions] == [ACCEPTED, ACCEPTED]
    assert len(working(market)) == 3
    assert whole.revision == market.engine.revision
    again = batch(orders.BATCH_MODE_ALL_OR_NONE, (5, 100), (6, 200))
    assert again.decisions == whole.decisions


def test_hedge_mode_holds_two_positions_beside_each_other(
    market: Rig, order: orders.CheckOrderRequest
) -> None:
    changed = market.accounts.ChangePositionMode(
        accounts.ChangePositionModeRequest(
            account_id=7, position_mode=types_pb2.POSITION_MODE_HEDGE
        )
    )
    assert changed.account.position_mode == types_pb2.POSITION_MODE_HEDGE
    long, short = types_pb2.POSITION_SIDE_LONG, types_pb2.POSITION_SIDE_SHORT
    assert place(market, order, 1).reason == types_pb2.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED
    bought = place(market, order, 2, position_side=long)
    fill(market, bought.reservation_id, 1, 100)
    sold = place(market, order, 3, position_side=short, side=types_pb2.SIDE_SELL, quantity_lots=50)
    fill(market, sold.reservation_id, 2, 50)
    positions = market.margins.ListPositionMargins(
        margins.ListPositionMarginsRequest(account_id=7)
    ).positions
    assert [(row.position_side, row.quantity) for row in positions] == [
        (long, "0.1"),
        (short, "-0.05"),
    ]
    for side in (long, short):
        reply = market.margins.ComputeLiquidationPrice(
            margins.ComputeLiquidationPriceRequest(
                account_id=7, instrument_id=1, position_side=side
            )
        )
        assert reply.liquidation_status != types_pb2.LIQUIDATION_STATUS_NO_POSITION
    failure = market.fail(
        market.margins.ComputeLiquidationPrice,
        margins.ComputeLiquidationPriceRequest(account_id=7, instrument_id=1),
    )
    assert failure.message == "position_side is UNSPECIFIED: must be LONG or SHORT in hedge mode"
    size = market.margins.ComputeMaxOrderSize(
        margins.ComputeMaxOrderSizeRequest(
            account_id=7,
            instrument_id=1,
            side=types_pb2.SIDE_SELL,
            order_type=types_pb2.ORDER_TYPE_MARKET,
            position_side=long,
        )
    )
    # A sell of LONG can only close it.
    assert size.quantity == "0.1"
    not_flat = market.fail(
        market.accounts.ChangePositionMode,
        accounts.ChangePositionModeRequest(
            account_id=7, position_mode=types_pb2.POSITION_MODE_ONE_WAY
        ),
    )
    assert not_flat.reason == "POSITION_NOT_FLAT"
    assert "BTC-PERP" in not_flat.message


def test_transfer_names_the_position_side_in_hedge_mode(
    market: Rig, order: orders.CheckOrderRequest
) -> None:
    market.accounts.ChangePositionMode(
        accounts.ChangePositionModeRequest(
            account_id=7, position_mode=types_pb2.POSITION_MODE_HEDGE
        )
    )
    market.accounts.ChangeMarginMode(
        accounts.ChangeMarginModeRequest(
            account_id=7, instrument_id=1, margin_mode=types_pb2.MARGIN_MODE_ISOLATED
        )
    )
    bought = place(market, order, 1, position_side=types_pb2.POSITION_SIDE_LONG)
    fill(market, bought.reservation_id, 1, 100)
    request = accounts.TransferMarginRequest(
        account_id=7, instrument_id=1, amount="5", position_side=types_pb2.POSITION_SIDE_LONG
    )
    # 0.1 at 60000 with leverage 20.
    assert market.accounts.TransferMargin(request).isolated_wallet == "305"
    request.position_side = types_pb2.POSITION_SIDE_SHORT
    assert market.fail(market.accounts.TransferMargin, request).reason == "NO_ISOLATED_POSITION"
    request.position_side = types_pb2.POSITION_SIDE_UNSPECIFIED
    failure = market.fail(market.accounts.TransferMargin, request)
    assert failure.reason == "POSITION_SIDE_NOT_SUPPORTED"


def test_fee_in_another_asset_is_paid_from_its_balance(
    market: Rig, order: orders.CheckOrderRequest
) -> None:
    bnb = market.instruments.CreateAsset(instruments.CreateAssetRequest(symbol="BNB", scale=8))
    deposit = accounts.AdjustCollateralRequest(account_id=7, asset="BNB", amount="1")
    reply = market.accounts.AdjustCollateral(deposit)
    assert [(row.asset, row.amount) for row in reply.account.balances] == [("BNB", "1")]
    assert reply.account.cash == reply.available == "10000"
    bought = place(market, order, 1)
    fill(
        market, bought.reservation_id, 1, 100, fee_minor=25_000_000, fee_asset_id=bnb.asset.asset_id
    )
    account = market.accounts.GetAccount(accounts.GetAccountRequest(account_id=7)).account
    assert [(row.asset, row.amount) for row in account.balances] == [("BNB", "0.75")]
    assert account.cash == "10000"
    deposit.amount = "-0.8"
    failure = market.fail(market.accounts.AdjustCollateral, deposit)
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "EXCEEDS_AVAILABLE",
    )
    assert failure.message == "amount 0.8 exceeds balance 0.75 (BNB)"
    deposit.amount = "-0.75"
    assert not market.accounts.AdjustCollateral(deposit).account.balances


def test_order_good_till_a_time_is_released_at_that_time(
    market: Rig, clock: Clock, order: orders.CheckOrderRequest
) -> None:
    placed = place(
        market,
        order,
        1,
        time_in_force=types_pb2.TIME_IN_FORCE_GTD,
        expire_time_ns=clock.now_ns + SECOND_NS,
    )
    assert placed.decision == ACCEPTED
    assert working(market) == [placed.reservation_id]
    clock.now_ns += SECOND_NS
    until(lambda: not working(market))
    summary = market.margins.GetMarginSummary(margins.GetMarginSummaryRequest(account_id=7)).summary
    assert (summary.working_order_count, summary.initial_margin) == (0, "0")


def test_more_orders_than_one_step_releases_go_all(
    market: Rig, clock: Clock, order: orders.CheckOrderRequest
) -> None:
    order.view = orders.DECISION_VIEW_BASIC
    for index in range(1, 1_101):
        placed = place(
            market,
            order,
            index,
            quantity_lots=1,
            time_in_force=types_pb2.TIME_IN_FORCE_GTD,
            expire_time_ns=clock.now_ns + SECOND_NS,
        )
        assert placed.decision == ACCEPTED
    clock.now_ns += SECOND_NS
    until(lambda: not working(market))


def test_lease_that_ends_blocks_its_gateway_until_it_is_renewed(
    market: Rig, clock: Clock, order: orders.CheckOrderRequest
) -> None:
    request = control.RenewGatewayLeaseRequest(
        gateway_id=3, duration_ms=1000, action=types_pb2.LEASE_ACTION_BLOCK
    )
    lease = market.control.RenewGatewayLease(request)
    assert lease.lease_end_time_ns == clock.now_ns + SECOND_NS
    assert place(market, order, 1).decision == ACCEPTED
    clock.now_ns += SECOND_NS
    assert place(market, order, 2).reason == types_pb2.REASON_CODE_GATEWAY_LEASE_ENDED
    assert place(market, order, 3, gateway_id=4).decision == ACCEPTED
    (listed,) = market.control.ListGateways(control.ListGatewaysRequest()).gateways
    assert listed == control.Gateway(
        gateway_id=3,
        trading_state=types_pb2.TRADING_STATE_NORMAL,
        lease_end_time_ns=lease.lease_end_time_ns,
        lease_action=types_pb2.LEASE_ACTION_BLOCK,
    )
    market.control.RenewGatewayLease(request)
    assert place(market, order, 4).decision == ACCEPTED
    request.duration_ms = 0
    assert market.control.RenewGatewayLease(request).lease_end_time_ns == 0
    assert not market.control.ListGateways(control.ListGatewaysRequest()).gateways


def test_lease_with_cancel_releases_the_gateways_orders_at_its_end(
    market: Rig, clock: Clock, order: orders.CheckOrderRequest
) -> None:
    market.control.RenewGatewayLease(
        control.RenewGatewayLeaseRequest(
            gateway_id=3, duration_ms=1000, action=types_pb2.LEASE_ACTION_CANCEL
        )
    )
    place(market, order, 1)
    kept = place(market, order, 2, gateway_id=4)
    clock.now_ns += SECOND_NS
    until(lambda: working(market) == [kept.reservation_id])
    (listed,) = market.control.ListGateways(control.ListGatewaysRequest()).gateways
    assert listed.orders_released


def test_pages_of_gateways_join(market: Rig) -> None:
    request = control.RenewGatewayLeaseRequest(
        duration_ms=1000, action=types_pb2.LEASE_ACTION_BLOCK
    )
    for gateway_id in (5, 2, 9):
        request.gateway_id = gateway_id
        market.control.RenewGatewayLease(request)
    first = market.control.ListGateways(control.ListGatewaysRequest(page_size=2))
    rest = market.control.ListGateways(
        control.ListGatewaysRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [row.gateway_id for row in (*first.gateways, *rest.gateways)] == [2, 5, 9]
    assert not rest.next_page_token


def test_cancel_orders_releases_what_fits_and_keeps_what_the_gateway_knows(
    market: Rig, clock: Clock, order: orders.CheckOrderRequest
) -> None:
    bought = place(market, order, 1)
    sold = place(market, order, 2, side=types_pb2.SIDE_SELL)
    known = place(market, order, 3)
    other = place(market, order, 4, gateway_id=4)
    clock.now_ns += 1
    late = place(market, order, 5)
    request = control.CancelOrdersRequest(
        gateway_id=3,
        side=types_pb2.SIDE_BUY,
        accepted_before_time_ns=clock.now_ns,
        keep_reservation_ids=[known.reservation_id],
        validate_only=True,
        comment="after a crash",
    )
    dry = market.control.CancelOrders(request)
    assert (dry.count, list(dry.reservation_ids)) == (1, [bought.reservation_id])
    assert len(working(market)) == 5
    request.validate_only = False
    reply = market.control.CancelOrders(request)
    assert (reply.count, list(reply.reservation_ids)) == (1, [bought.reservation_id])
    assert working(market) == [each.reservation_id for each in (sold, known, other, late)]
    again = market.control.CancelOrders(request)
    assert (again.count, again.revision) == (0, reply.revision)
    # A fill that comes late still counts.
    fill_late = orders.ReportExecutionRequest(
        gateway_id=3,
        execution_id=1,
        reservation_id=bought.reservation_id,
        kind=orders.EXECUTION_KIND_FILL,
        price_ticks=120_000,
        quantity_lots=100,
    )
    answered = market.orders.ReportExecution(fill_late)
    assert answered.decision == types_pb2.DECISION_ACCEPTED_WITH_WARNING
    assert answered.reason == types_pb2.REASON_CODE_RESERVATION_CLOSED


def test_firm_is_a_scope_of_the_kill_switch(market: Rig, order: orders.CheckOrderRequest) -> None:
    market.accounts.CreateFirm(accounts.CreateFirmRequest(firm_id=2, settlement_asset="USDT"))
    owned = market.accounts.SetAccountOwner(
        accounts.SetAccountOwnerRequest(account_id=7, firm_id=2)
    )
    assert owned.account.firm_id == 2
    placed = place(market, order, 1)
    scope = control.Scope(firm_id=2)
    halted = market.control.EngageKillSwitch(control.EngageKillSwitchRequest(scope=scope))
    assert list(halted.reservation_ids) == [placed.reservation_id]
    assert place(market, order, 2).reason == types_pb2.REASON_CODE_FIRM_HALTED
    (state,) = market.control.ListTradingStates(control.ListTradingStatesRequest()).states
    assert state.scope == scope
    (firm,) = market.accounts.ListFirms(accounts.ListFirmsRequest()).firms
    assert (firm.firm_id, firm.settlement_asset) == (2, "USDT")
    assert firm.trading_state == types_pb2.TRADING_STATE_HALTED
    unknown = control.EngageKillSwitchRequest(scope=control.Scope(firm_id=3))
    assert market.fail(market.control.EngageKillSwitch, unknown).reason == "FIRM_UNKNOWN"


def test_tree_of_accounts_has_two_levels_and_one_firm(market: Rig) -> None:
    for firm_id in (1, 2):
        market.accounts.CreateFirm(
            accounts.CreateFirmRequest(firm_id=firm_id, settlement_asset="USDT")
        )
    for account_id in (8, 9):
        market.accounts.CreateAccount(
            accounts.CreateAccountRequest(account_id=account_id, settlement_asset="USDT")
        )

    def own(account_id: int, firm_id: int, parent_id: int) -> accounts.SetAccountOwnerRequest:
        return accounts.SetAccountOwnerRequest(
            account_id=account_id, firm_id=firm_id, parent_account_id=parent_id
        )

    market.accounts.SetAccountOwner(own(7, 1, 0))
    child = market.accounts.SetAccountOwner(own(8, 1, 7)).account
    assert (child.firm_id, child.parent_account_id) == (1, 7)
    for request, text in (
        (own(9, 2, 7), "parent_account_id 7 belongs to firm 1, not to 2"),
        (own(9, 1, 8), "parent_account_id 8 is itself a sub-account of 7"),
        (own(7, 2, 0), "account 7 has sub-accounts: they must have its firm, move them first"),
    ):
        failure = market.fail(market.accounts.SetAccountOwner, request)
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "OWNER_INVALID",
        )
        assert failure.message == text
    taken = accounts.CreateFirmRequest(firm_id=1, settlement_asset="USDT")
    failure = market.fail(market.accounts.CreateFirm, taken)
    assert failure.code is grpc.StatusCode.ALREADY_EXISTS
    assert failure.message == "firm_id 1 exists already"


def test_mark_report_still_answers_while_time_advances(
    new_rig: Callable[..., Rig], clock: Clock
) -> None:
    rig = new_rig(clock, tick_interval_ms=1)
    before = rig.engine.revision
    for _ in range(200):
        rig.marks.ReportMarks(
            marks.ReportMarksRequest(marks=[marks.Mark(instrument_id=1, mark_price=1)])
        )
    # What releases nothing changes nothing.
    assert rig.engine.revision == before


def test_account_with_trades_of_today_keeps_its_owner(
    market: Rig, order: orders.CheckOrderRequest, clock: Clock
) -> None:
    market.accounts.CreateFirm(accounts.CreateFirmRequest(firm_id=1, settlement_asset="USDT"))
    bought = place(market, order, 1)
    fill(market, bought.reservation_id, 1, 100)
    sold = place(market, order, 2, side=types_pb2.SIDE_SELL)
    own = accounts.SetAccountOwnerRequest(account_id=7, firm_id=1)
    assert market.fail(market.accounts.SetAccountOwner, own).reason == "POSITION_NOT_FLAT"
    fill(market, sold.reservation_id, 2, 100)
    failure = market.fail(market.accounts.SetAccountOwner, own)
    assert failure.reason == "OWNER_HAS_USAGE"
    assert "has traded today" in failure.message
    clock.now_ns += 86_400 * SECOND_NS
    assert market.accounts.SetAccountOwner(own).account.firm_id == 1


@pytest.mark.parametrize("kind", [orders.EXECUTION_KIND_BUST, orders.EXECUTION_KIND_CORRECTION])
def test_fill_can_be_undone_or_corrected_once(
    market: Rig, order: orders.CheckOrderRequest, kind: Any
) -> None:
    bought = place(market, order, 1)
    fill(market, bought.reservation_id, 1, 100)
    is_correction = kind == orders.EXECUTION_KIND_CORRECTION
    request = orders.ReportExecutionRequest(
        gateway_id=3,
        execution_id=2,
        reservation_id=bought.reservation_id,
        kind=kind,
        original_execution_id=1,
        price_ticks=119_000 if is_correction else 0,
        quantity_lots=40 if is_correction else 0,
    )
    reply = market.orders.ReportExecution(request)
    assert reply.decision == ACCEPTED
    assert reply.position_lots == (40 if is_correction else 0)
    request.execution_id = 3
    undone = market.orders.ReportExecution(request)
    assert undone.reason == types_pb2.REASON_CODE_EXECUTION_ALREADY_UNDONE
