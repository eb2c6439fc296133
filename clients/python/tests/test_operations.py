"""What a call becomes on the wire, and what its reply becomes."""

import inspect
import re
import threading
from dataclasses import FrozenInstanceError, replace
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from typing import Any

import pytest

from riskd_client import (
    AsyncClient,
    Client,
    ClosingFee,
    Decision,
    DecisionView,
    InstrumentKind,
    InvalidInput,
    LeaseAction,
    LimitAction,
    LimitKind,
    LiquidationStatus,
    MaintenanceBasis,
    MarginFamily,
    MarginMode,
    MarginTier,
    Mark,
    NewOrder,
    OffLot,
    OffMinorUnit,
    OffTick,
    OptionType,
    OrderType,
    OutcomeUnknown,
    OutOfRange,
    PositionMode,
    PositionSide,
    Reason,
    ReservationRef,
    ReservationState,
    Scope,
    Side,
    TimeInForce,
    TradingState,
    Unit,
    UnknownSymbol,
)
from riskd_client.catalogue import Catalogue, CatalogueIncompleteError
from riskd_client.operations import Operations, OrderIds, read_decision, read_execution
from riskd_client.session import channel_options
from riskd_client.v1 import account_service_pb2 as account_pb
from riskd_client.v1 import instrument_service_pb2 as instrument_pb
from riskd_client.v1 import limit_service_pb2 as limit_pb
from riskd_client.v1 import market_data_service_pb2 as market_pb
from riskd_client.v1 import order_risk_service_pb2 as order_pb
from riskd_client.v1 import types_pb2 as types_pb
from riskd_client.values import Asset, Instrument, WireEnum

NOW_NS = 1_700_000_000_000_000_000

BTC = Instrument(
    symbol="BTC-PERP",
    kind=InstrumentKind.LINEAR_PERPETUAL,
    settlement_asset="USDT",
    tick_size=Decimal("0.1"),
    lot_size=Decimal("0.001"),
    mark_units_per_tick=100,
    instrument_id=7,
)
ETH = replace(BTC, symbol="ETH-PERP", tick_size=Decimal("0.05"), instrument_id=8)


@pytest.fixture
def operations() -> Operations:
    catalogue = Catalogue()
    catalogue.load([Asset(1, "USDT", 6), Asset(2, "BNB", 8)], [BTC, ETH])
    return Operations(3, catalogue, OrderIds(41), clock=lambda: NOW_NS)


def test_a_limit_order_becomes_ticks_and_lots(operations: Operations) -> None:
    call = operations.check_order(
        9,
        "BTC-PERP",
        "buy",
        "0.5",
        "65000.5",
        time_in_force="ioc",
        reduce_only=True,
        post_only=True,
        margin_mode=MarginMode.ISOLATED,
        view=DecisionView.FULL,
    )
    assert call.request == order_pb.CheckOrderRequest(
        account_id=9,
        instrument_id=7,
        client_order_id=42,
        side=types_pb.SIDE_BUY,
        order_type=types_pb.ORDER_TYPE_LIMIT,
        time_in_force=types_pb.TIME_IN_FORCE_IOC,
        margin_mode=types_pb.MARGIN_MODE_ISOLATED,
        price_ticks=650005,
        quantity_lots=500,
        flags=3,
        gateway_id=3,
        sent_time_ns=NOW_NS,
        mode=order_pb.CHECK_MODE_RESERVE,
        view=order_pb.DECISION_VIEW_FULL,
    )
    assert call.client_order_id == 42


def test_an_order_without_a_price_is_a_market_order(operations: Operations) -> None:
    call = operations.check_order(9, "BTC-PERP", Side.SELL, 2, check_only=True)
    request: Any = call.request
    assert request.order_type == types_pb.ORDER_TYPE_MARKET
    assert request.price_ticks == 0
    assert request.quantity_lots == 2000
    assert request.mode == order_pb.CHECK_MODE_CHECK_ONLY


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"order_type": "stop", "quantity": 1, "trigger_price": "70000"},
            {
                "order_type": types_pb.ORDER_TYPE_STOP,
                "quantity_lots": 1000,
                "trigger_price_ticks": 700_000,
            },
        ),
        (
            {
                "order_type": OrderType.TAKE_PROFIT_LIMIT,
                "quantity": 1,
                "price": "69999.9",
                "trigger_price": "70000",
            },
            {
                "order_type": types_pb.ORDER_TYPE_TAKE_PROFIT_LIMIT,
                "quantity_lots": 1000,
                "price_ticks": 699_999,
                "trigger_price_ticks": 700_000,
            },
        ),
        (
            {"quantity": 1, "trailing_offset": "12.5"},
            {
                "order_type": types_pb.ORDER_TYPE_TRAILING_STOP,
                "quantity_lots": 1000,
                "trailing_offset_ticks": 125,
            },
        ),
        (
            {"close_position": True, "position_side": "long"},
            {
                "order_type": types_pb.ORDER_TYPE_MARKET,
                "flags": order_pb.ORDER_FLAG_CLOSE_POSITION,
                "position_side": types_pb.POSITION_SIDE_LONG,
            },
        ),
        (
            {"quote_amount": "250.5"},
            {
                "order_type": types_pb.ORDER_TYPE_MARKET,
                "flags": order_pb.ORDER_FLAG_QUOTE_QUANTITY,
                "quantity_lots": 250_500_000,
            },
        ),
        (
            {"quantity": 1, "price": 1, "time_in_force": "gtd", "expire_time_ns": 9},
            {
                "order_type": types_pb.ORDER_TYPE_LIMIT,
                "quantity_lots": 1000,
                "price_ticks": 10,
                "time_in_force": types_pb.TIME_IN_FORCE_GTD,
                "expire_time_ns": 9,
            },
        ),
    ],
    ids=["stop", "take profit limit", "trailing stop", "close", "quote amount", "good till a time"],
)
def test_an_order_of_any_type_becomes_what_it_says(
    operations: Operations, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    request = operations.check_order(9, "BTC-PERP", "sell", **given).request
    assert request == order_pb.CheckOrderRequest(
        **{
            "account_id": 9,
            "instrument_id": 7,
            "client_order_id": 42,
            "side": types_pb.SIDE_SELL,
            "time_in_force": types_pb.TIME_IN_FORCE_GTC,
            "gateway_id": 3,
            "sent_time_ns": NOW_NS,
            "mode": order_pb.CHECK_MODE_RESERVE,
            "view": order_pb.DECISION_VIEW_BASIC,
            **expected,
        }
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of quantity, quote_amount and close_position, not none"),
        ({"quantity": 1, "close_position": True}, "not quantity and close_position"),
        ({"quantity": 1, "trigger_price": 1}, "an order with a trigger_price needs its order_type"),
        ({"quantity": 1, "order_type": "iceberg"}, "order_type 'iceberg' is not one of LIMIT"),
        ({"quote_amount": 0}, "quote_amount 0 is not above zero"),
        ({"quote_amount": "0.0000001"}, "quote_amount of BTC-PERP"),
        ({"quantity": 1, "position_side": "both"}, "position_side 'both' is not one of NET"),
        ({"quantity": 1, "expire_time_ns": -1}, "expire_time_ns -1 is not within"),
    ],
)
def test_an_order_that_contradicts_itself_is_refused(
    operations: Operations, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)):
        operations.check_order(9, "BTC-PERP", "buy", **given)
    assert operations.order_ids.take() == 42, "a refused order takes no id"


def test_a_batch_has_an_id_for_each_order_and_reads_each_decision(operations: Operations) -> None:
    call = operations.batch_check_orders(
        [
            NewOrder(9, "BTC-PERP", "buy", "0.5", "65000.5"),
            NewOrder(9, "ETH-PERP", "sell", close_position=True, client_order_id=5),
        ],
        all_or_none=True,
    )
    request: Any = call.request
    assert request.mode == order_pb.BATCH_MODE_ALL_OR_NONE
    assert [row.client_order_id for row in request.orders] == [42, 5]
    assert [row.instrument_id for row in request.orders] == [7, 8]
    result = call.read(
        order_pb.BatchCheckOrdersResponse(
            decisions=[
                order_pb.CheckOrderResponse(
                    decision=types_pb.DECISION_REJECTED,
                    reason=types_pb.REASON_CODE_LIMIT_ORDER_QUANTITY_MAX,
                    max_quantity_lots=200,
                ),
                order_pb.CheckOrderResponse(
                    decision=types_pb.DECISION_REJECTED,
                    reason=types_pb.REASON_CODE_LIMIT_ORDER_QUANTITY_MAX,
                    quantity_lots=30,
                ),
            ],
            revision=8,
        )
    )
    first, second = result.decisions
    assert (first.symbol, first.client_order_id) == ("BTC-PERP", 42)
    assert (first.max_quantity, first.quantity) == (Decimal("0.2"), None)
    # An order that did not give its quantity has no largest one.
    assert (second.max_quantity, second.quantity) == (None, Decimal("0.030"))
    assert result.revision == 8
    failed = call.advice
    assert "[42, 5]" in failed


@pytest.mark.parametrize("count", [0, 65])
def test_a_batch_has_1_to_64_orders(operations: Operations, count: int) -> None:
    with pytest.raises(OutOfRange, match=f"orders holds {count}, not 1 to 64"):
        operations.batch_check_orders([NewOrder(9, "BTC-PERP", "buy", 1)] * count)


def test_a_given_client_order_id_is_sent_and_takes_none_of_the_generated(
    operations: Operations,
) -> None:
    given = operations.check_order(9, "BTC-PERP", "buy", 1, client_order_id=5)
    generated = operations.check_order(9, "BTC-PERP", "buy", 1)
    assert (given.client_order_id, generated.client_order_id) == (5, 42)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"price": 65000.5}, TypeError, "price of BTC-PERP is 65000.5 (float)"),
        ({"quantity": 0.5}, TypeError, "quantity of BTC-PERP is 0.5 (float)"),
        ({"price": "65000.55"}, OffTick, "nearest: 65000.5 or 65000.6"),
        ({"quantity": "0.0005"}, OffLot, "nearest: 0.001"),
        ({"quantity": "0.0015"}, OffLot, "nearest: 0.001 or 0.002"),
        ({"quantity": 0}, OutOfRange, "not above zero"),
        ({"price": "-1"}, OutOfRange, "not above zero"),
        ({"price": "1e30"}, OutOfRange, "the largest"),
        ({"symbol": "BTC-PREP"}, UnknownSymbol, "did you mean BTC-PERP"),
        ({"symbol": "btc-perp"}, UnknownSymbol, "did you mean BTC-PERP"),
        ({"symbol": "XXXX"}, UnknownSymbol, "2 are known"),
        ({"symbol": 7}, TypeError, "symbol is 7 (int), not a str"),
        ({"side": "long"}, InvalidInput, "side 'long' is not one of BUY, SELL"),
        ({"time_in_force": "day"}, InvalidInput, "GTC, IOC, FOK, GTD"),
        ({"account": 0}, OutOfRange, "account 0 is not within"),
        ({"account": "1"}, TypeError, "account is '1' (str)"),
        ({"client_order_id": 0}, OutOfRange, "client_order_id 0"),
    ],
)
def test_bad_input_is_refused_by_name_before_anything_is_sent(
    operations: Operations, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    order: dict[str, Any] = {
        "account": 9,
        "symbol": "BTC-PERP",
        "side": "buy",
        "quantity": "0.5",
        "price": "65000.5",
    }
    with pytest.raises(error) as caught:
        operations.check_order(**{**order, **change})
    assert message in str(caught.value)
    assert operations.order_ids.take() == 42, "a refused order takes no id"


def test_nothing_is_planned_before_the_catalogue_is_loaded() -> None:
    with pytest.raises(CatalogueIncompleteError):
        Operations(1, Catalogue(), OrderIds()).check_order(1, "BTC-PERP", "buy", 1)


def test_an_instrument_of_an_unloaded_asset_asks_for_loading_again(operations: Operations) -> None:
    operations.catalogue.add_instrument(replace(BTC, symbol="SOL-PERP", settlement_asset="USDC"))
    assert operations.catalogue.instrument("BTC-PERP") is BTC
    with pytest.raises(CatalogueIncompleteError):
        operations.catalogue.instrument("SOL-PERP")


def test_an_added_instrument_can_be_traded(operations: Operations) -> None:
    operations.catalogue.add_asset(Asset(2, "USDC", 2))
    sol = replace(BTC, symbol="SOL-PERP", settlement_asset="USDC", instrument_id=9)
    operations.catalogue.add_instrument(sol)
    request: Any = operations.check_order(1, "SOL-PERP", "buy", 1).request
    assert request.instrument_id == 9
    assert operations.catalogue.symbols == ("BTC-PERP", "ETH-PERP", "SOL-PERP")


def test_rounding_to_the_grid_is_explicit(operations: Operations) -> None:
    listing = operations.catalogue.listing("BTC-PERP")
    assert listing.round_price("65000.55") == Decimal("65000.6")
    assert listing.round_price("65000.45") == Decimal("65000.4")
    assert listing.round_quantity("0.0019", ROUND_DOWN) == Decimal("0.001")
    assert listing.round_mark("65000.0001", ROUND_UP) == Decimal("65000.001")


def test_client_order_ids_stay_within_64_bits_and_never_are_zero() -> None:
    ids = OrderIds(2**64 - 2)
    assert [ids.take() for _ in range(3)] == [2**64 - 1, 1, 2]


def test_client_order_ids_of_many_threads_are_all_different() -> None:
    ids = OrderIds()
    taken: list[int] = []
    threads = [
        threading.Thread(target=lambda: taken.extend([ids.take() for _ in range(500)]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 4000


def decision(operations: Operations, **fields: Any) -> Any:
    message = order_pb.CheckOrderResponse(**fields)
    return read_decision(
        message, operations.catalogue.listing("BTC-PERP"), 42, operations.catalogue.scale_of
    )


def test_an_accepted_decision_reads_in_decimals(operations: Operations) -> None:
    result = decision(
        operations,
        decision=types_pb.DECISION_ACCEPTED,
        reason=types_pb.REASON_CODE_NONE,
        reservation_id=11,
        revision=11,
        initial_margin_minor=3_250_025_000,
        available_minor=-1,
        reserved_minor=3_250_025_000,
        liquidation_price_ticks=585_001,
        liquidation_status=types_pb.LIQUIDATION_STATUS_AT_PRICE,
    )
    assert result.accepted
    assert result.reason is Reason.NONE
    assert result.initial_margin == Decimal("3250.025")
    assert result.available == Decimal("-0.000001")
    assert result.liquidation_price == Decimal("58500.1")
    assert result.max_quantity is None
    assert result.detail is None
    with pytest.raises(FrozenInstanceError):
        result.accepted = False


@pytest.mark.parametrize(
    ("lots", "quantity"), [(0, Decimal(0)), (1500, Decimal("1.5"))], ids=["none", "some"]
)
def test_a_margin_reject_names_the_largest_quantity(
    operations: Operations, lots: int, quantity: Decimal
) -> None:
    result = decision(
        operations,
        decision=types_pb.DECISION_REJECTED,
        reason=types_pb.REASON_CODE_MARGIN_INSUFFICIENT,
        max_quantity_lots=lots,
    )
    assert not result.accepted
    assert result.max_quantity == quantity
    assert result.liquidation_price is None


def test_a_reject_that_no_size_would_cure_has_no_largest_quantity(operations: Operations) -> None:
    result = decision(
        operations,
        decision=types_pb.DECISION_REJECTED,
        reason=types_pb.REASON_CODE_SERVICE_HALTED,
    )
    assert result.max_quantity is None


def test_margin_that_is_not_known_is_none(operations: Operations) -> None:
    result = decision(operations, decision=types_pb.DECISION_ACCEPTED, margin_unknown=True)
    assert (result.initial_margin, result.available, result.reserved) == (None, None, None)
    result = decision(operations, decision=types_pb.DECISION_ACCEPTED)
    assert (result.initial_margin, result.available, result.reserved) == (0, 0, 0)


@pytest.mark.parametrize("is_unknown", [False, True])
def test_what_an_execution_leaves_is_none_while_it_is_not_known(
    operations: Operations, is_unknown: bool
) -> None:
    call = operations.report_cancel(ReservationRef("BTC-PERP", 11), execution_id=1)
    reply = order_pb.ReportExecutionResponse(
        decision=types_pb.DECISION_ACCEPTED, margin_unknown=is_unknown
    )
    assert call.read(reply).available == (None if is_unknown else Decimal(0))


def test_a_pool_that_is_not_known_is_none(operations: Operations) -> None:
    transfer = operations.transfer_margin(9, "BTC-PERP", 1)
    moved = transfer.read(account_pb.TransferMarginResponse(isolated_wallet="1"))
    assert (moved.isolated_wallet, moved.available) == (Decimal(1), None)
    deposit = operations.adjust_collateral(9, "USDT", 1)
    assert deposit.read(account_pb.AdjustCollateralResponse()).available is None
    leverage = operations.set_leverage(9, "BTC-PERP", 5)
    assert leverage.read(account_pb.SetLeverageResponse(leverage="5")).available is None


def test_a_reply_without_a_verdict_is_neither_yes_nor_no(operations: Operations) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        decision(operations)
    assert caught.value.client_order_id == 42


def test_a_decision_of_a_newer_server_is_not_an_acceptance(operations: Operations) -> None:
    result = decision(operations, decision=77, reason=999)
    assert not result.accepted
    assert result.reason.name == "UNRECOGNISED_999"
    assert result.reason == 999


def test_the_detail_reads_each_figure_in_its_unit(operations: Operations) -> None:
    result = decision(
        operations,
        decision=types_pb.DECISION_REJECTED,
        reason=types_pb.REASON_CODE_PRICE_OUTSIDE_COLLAR,
        detail=order_pb.DecisionDetail(
            equity_minor=1_500_000,
            margin_ratio_ppm=250_000,
            position_lots=-2,
            mark_price=6_500_050,
            mark_time_ns=NOW_NS,
            leverage_hundredths=2050,
            greeks=order_pb.Greeks(delta_pico=-500_000_000_000),
            violations=[
                order_pb.Violation(
                    reason=types_pb.REASON_CODE_PRICE_OUTSIDE_COLLAR, limit=10, use=0, order_use=11
                ),
                order_pb.Violation(
                    reason=types_pb.REASON_CODE_EXCEEDS_ORDER_QUANTITY_MAX, limit=5, order_use=6
                ),
                order_pb.Violation(
                    reason=types_pb.REASON_CODE_MARGIN_INSUFFICIENT, limit=-3, order_use=4
                ),
                order_pb.Violation(reason=999, limit=8),  # type: ignore[arg-type]
            ],
        ),
    )
    detail = result.detail
    assert detail.equity == Decimal("1.5")
    assert detail.margin_ratio == Decimal("0.25")
    assert detail.position == Decimal("-0.002")
    assert detail.mark_price == Decimal("6500.05")
    assert detail.leverage == Decimal("20.5")
    assert detail.bankruptcy_price is None
    assert detail.greeks.delta == Decimal("-0.5")
    assert [(row.unit, row.limit, row.order_use) for row in detail.violations] == [
        (Unit.PRICE, Decimal("1.0"), Decimal("1.1")),
        (Unit.QUANTITY, Decimal("0.005"), Decimal("0.006")),
        (Unit.MONEY, Decimal("-0.000003"), Decimal("0.000004")),
        (Unit.RAW, Decimal(8), Decimal(0)),
    ]


def test_a_margin_ratio_without_equity_is_none(operations: Operations) -> None:
    result = decision(
        operations,
        decision=types_pb.DECISION_ACCEPTED,
        detail=order_pb.DecisionDetail(margin_ratio_ppm=2**63 - 1),
    )
    assert result.detail.margin_ratio is None


def test_a_fill_becomes_ticks_lots_and_minor_units(operations: Operations) -> None:
    order = ReservationRef("BTC-PERP", 11)
    call = operations.report_fill(
        order, "65000.5", "0.25", execution_id=77, fee="-1.25", time_ns=NOW_NS
    )
    assert call.request == order_pb.ReportExecutionRequest(
        gateway_id=3,
        execution_id=77,
        reservation_id=11,
        kind=order_pb.EXECUTION_KIND_FILL,
        price_ticks=650005,
        quantity_lots=250,
        fee_minor=-1_250_000,
        venue_time_ns=NOW_NS,
        instrument_id=7,
    )
    assert call.execution_id == 77


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("report_cancel", order_pb.EXECUTION_KIND_CANCEL),
        ("report_expire", order_pb.EXECUTION_KIND_EXPIRE),
        ("report_venue_reject", order_pb.EXECUTION_KIND_VENUE_REJECT),
    ],
)
def test_an_end_of_an_order_carries_no_numbers(
    operations: Operations, method: str, kind: order_pb.ExecutionKind.ValueType
) -> None:
    call = getattr(operations, method)(ReservationRef("BTC-PERP", 11), execution_id=78)
    assert call.request == order_pb.ReportExecutionRequest(
        gateway_id=3, execution_id=78, reservation_id=11, kind=kind, instrument_id=7
    )


def test_a_correction_names_its_original_and_a_fee_its_asset(operations: Operations) -> None:
    order = ReservationRef("BTC-PERP", 11)
    request: Any = operations.report_correction(
        order,
        "65000.5",
        "0.5",
        execution_id=4,
        original_execution_id=3,
        fee="-0.5",
        fee_asset="BNB",
    ).request
    assert request.kind == order_pb.EXECUTION_KIND_CORRECTION
    assert (request.execution_id, request.original_execution_id) == (4, 3)
    assert (request.price_ticks, request.quantity_lots) == (650_005, 500)
    assert (request.fee_minor, request.fee_asset_id) == (-50_000_000, 2)
    bust: Any = operations.report_bust(order, execution_id=5, original_execution_id=4).request
    assert bust.kind == order_pb.EXECUTION_KIND_BUST
    assert (bust.price_ticks, bust.quantity_lots, bust.fee_asset_id) == (0, 0, 0)
    with pytest.raises(InvalidInput, match="fee_asset 'XYZ' is not an asset of the service"):
        operations.report_fill(order, 1, 1, execution_id=6, fee=1, fee_asset="XYZ")


def test_a_fee_finer_than_a_minor_unit_is_refused(operations: Operations) -> None:
    with pytest.raises(OffMinorUnit, match="fee of BTC-PERP"):
        operations.report_fill(
            ReservationRef("BTC-PERP", 11), 65000, 1, execution_id=1, fee="0.0000001"
        )


def test_an_execution_of_a_rejected_order_is_refused(operations: Operations) -> None:
    with pytest.raises(InvalidInput, match="nothing is reserved"):
        operations.report_cancel(ReservationRef("BTC-PERP", 0), execution_id=1)


def test_a_working_reservation_reads_in_the_numbers_of_its_instrument(
    operations: Operations,
) -> None:
    call = operations.get_reservation(reservation_id=11)
    result = call.read(
        order_pb.GetReservationResponse(
            state=order_pb.RESERVATION_STATE_WORKING,
            reservation_id=11,
            account_id=9,
            instrument_id=8,
            side=types_pb.SIDE_SELL,
            price_ticks=40_001,
            quantity_lots=3,
            remaining_lots=2,
        )
    )
    assert (result.state, result.symbol) == (ReservationState.WORKING, "ETH-PERP")
    assert (result.price, result.remaining) == (Decimal("2000.05"), Decimal("0.002"))


def closed(instrument_id: int, reason: Reason = Reason.NONE) -> order_pb.GetReservationResponse:
    rejected = types_pb.DECISION_REJECTED if reason > Reason.NONE else types_pb.DECISION_ACCEPTED
    return order_pb.GetReservationResponse(
        state=order_pb.RESERVATION_STATE_CLOSED,
        account_id=9,
        instrument_id=instrument_id,
        side=types_pb.SIDE_BUY,
        price_ticks=40_001,
        quantity_lots=3,
        first_answer=order_pb.CheckOrderResponse(
            decision=rejected,
            reason=int(reason),  # type: ignore[arg-type]
            reserved_minor=1,
        ),
    )


def test_a_closed_order_reads_in_the_numbers_of_its_instrument(operations: Operations) -> None:
    result = operations.get_reservation(client_order_id=42).read(closed(8))
    assert (result.symbol, result.account_id, result.side) == ("ETH-PERP", 9, Side.BUY)
    assert (result.price, result.quantity) == (Decimal("2000.05"), Decimal("0.003"))
    assert result.remaining == 0
    first = result.first_answer
    assert first is not None
    assert (first.symbol, first.client_order_id) == ("ETH-PERP", 42)
    assert first.reserved == Decimal("0.000001")


def test_a_closed_order_on_a_new_instrument_asks_for_loading_again(operations: Operations) -> None:
    with pytest.raises(CatalogueIncompleteError):
        operations.get_reservation(client_order_id=42).read(closed(9))


@pytest.mark.parametrize("instrument_id", [0, 9])
def test_a_closed_order_on_an_instrument_that_does_not_exist_reads_without_numbers(
    operations: Operations, instrument_id: int
) -> None:
    reply = closed(instrument_id, Reason.INSTRUMENT_UNKNOWN)
    result = operations.get_reservation(client_order_id=42).read(reply)
    assert (result.state, result.symbol) == (ReservationState.CLOSED, "")
    assert (result.price, result.quantity, result.first_answer) == (None, Decimal(0), None)


@pytest.mark.parametrize(
    "arguments", [{}, {"client_order_id": 1, "reservation_id": 1}], ids=["neither", "both"]
)
def test_a_reservation_is_asked_for_in_exactly_one_way(
    operations: Operations, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        operations.get_reservation(**arguments)


def test_marks_become_mark_units_and_refusals_name_their_symbols(operations: Operations) -> None:
    call = operations.report_marks(
        {
            "BTC-PERP": "65000.051",
            "ETH-PERP": Mark("2000", time_ns=5, implied_volatility="0.65", forward="2001"),
        }
    )
    assert call.request == market_pb.ReportMarksRequest(
        marks=[
            market_pb.Mark(instrument_id=7, mark_price=65_000_051, time_ns=NOW_NS),
            market_pb.Mark(
                instrument_id=8,
                mark_price=4_000_000,
                time_ns=5,
                implied_volatility_ppb=650_000_000,
                forward_price=4_002_000,
            ),
        ]
    )
    refusal = market_pb.MarkRefusal(index=1, reason=types_pb.REASON_CODE_MARK_OUT_OF_ORDER)
    result = call.read(market_pb.ReportMarksResponse(taken_count=1, refusals=[refusal]))
    assert result.refusals == {"ETH-PERP": Reason.MARK_OUT_OF_ORDER}


@pytest.mark.parametrize("marks", [{}, dict.fromkeys(map(str, range(1025)), 1)])
def test_a_batch_of_marks_has_1_to_1024(operations: Operations, marks: dict[str, int]) -> None:
    with pytest.raises(OutOfRange, match=f"marks holds {len(marks)}"):
        operations.report_marks(marks)


def test_an_instrument_reads_as_it_was_written(operations: Operations) -> None:
    written: Any = operations.upsert_instrument(replace(BTC, price_collar_rate="0.05")).request  # type: ignore[arg-type]
    message = instrument_pb.Instrument()
    message.CopyFrom(written.instrument)
    message.instrument_id = 7
    read = operations.upsert_instrument(BTC).read(
        instrument_pb.UpsertInstrumentResponse(instrument=message)
    )
    assert read == replace(BTC, price_collar_rate=Decimal("0.05"))


def test_a_spot_pair_counts_what_a_sale_lacks_in_its_base_asset(operations: Operations) -> None:
    operations.catalogue.add_asset(Asset(5, "BTC", 8))
    spot = replace(BTC, symbol="BTC-USDT", kind=InstrumentKind.SPOT, base_asset="BTC")
    request: Any = operations.upsert_instrument(spot).request
    message = request.instrument
    assert message.base_asset == "BTC"
    call = operations.upsert_instrument(spot)
    assert call.read(instrument_pb.UpsertInstrumentResponse(instrument=message)) == replace(
        spot, instrument_id=0
    )
    lacks = order_pb.Violation(
        reason=types_pb.REASON_CODE_BALANCE_INSUFFICIENT, limit=150_000_000, use=1, order_use=-1
    )
    reply = order_pb.CheckOrderResponse(
        decision=types_pb.DECISION_REJECTED,
        reason=types_pb.REASON_CODE_BALANCE_INSUFFICIENT,
        max_quantity_lots=1500,
        detail=order_pb.DecisionDetail(violations=[lacks]),
    )
    decision = read_decision(
        reply, operations.catalogue.listing("BTC-USDT"), 42, operations.catalogue.scale_of
    )
    assert decision.max_quantity == Decimal("1.5")
    assert decision.detail is not None
    (violation,) = decision.detail.violations
    assert violation.unit is Unit.BASE_MONEY
    assert (violation.limit, violation.use) == (Decimal("1.5"), Decimal("0.00000001"))


def test_a_pair_of_an_unloaded_base_asset_asks_for_loading_again(operations: Operations) -> None:
    spot = replace(BTC, symbol="X-USDT", kind=InstrumentKind.SPOT, base_asset="X", instrument_id=9)
    operations.catalogue.add_instrument(spot)
    with pytest.raises(CatalogueIncompleteError):
        operations.catalogue.listing("X-USDT")


def test_a_definition_with_a_float_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"initial_rate is 0\.01"):
        MarginTier(
            floor_notional=Decimal(0),
            initial_rate=0.01,  # type: ignore[arg-type]
            maintenance_rate=Decimal("0.005"),
            max_leverage=Decimal(100),
        )


@pytest.mark.parametrize(
    ("scope", "field"),
    [
        (Scope.service(), {"service": True}),
        (Scope.gateway(4), {"gateway_id": 4}),
        (Scope.account(5), {"account_id": 5}),
        (Scope.instrument("ETH-PERP"), {"instrument_id": 8}),
        (Scope.firm(6), {"firm_id": 6}),
    ],
)
def test_a_scope_is_written_and_read_by_what_it_names(
    operations: Operations, scope: Scope, field: dict[str, Any]
) -> None:
    request: Any = operations.engage_kill_switch(scope).request
    assert {row.name: value for row, value in request.scope.ListFields()} == field
    assert operations._read_scope(request.scope) == scope


def test_a_limit_is_named_by_scope_kind_and_symbol(operations: Operations) -> None:
    request: Any = operations.set_limit(
        Scope.account(5), "position_lots_max", "2.5", symbol="ETH-PERP", action="soft"
    ).request
    assert request == limit_pb.SetLimitRequest(
        key=limit_pb.LimitKey(
            scope=types_pb.LIMIT_SCOPE_ACCOUNT,
            scope_id=5,
            instrument_id=8,
            kind=types_pb.LIMIT_KIND_POSITION_LOTS_MAX,
        ),
        value="2.5",
        action=types_pb.LIMIT_ACTION_SOFT,
    )
    for scope in (Scope.service(), Scope.instrument("ETH-PERP"), Scope.instrument(8)):
        with pytest.raises(InvalidInput, match="limits are of an account, a firm or a gateway"):
            operations.set_limit(scope, "denied")
    with pytest.raises(InvalidInput, match="kind 'fun' is not one of ORDER_QUANTITY_MIN"):
        operations.remove_limit(Scope.firm(1), "fun")


def test_a_limit_reads_in_decimals_and_what_it_has_not_is_none(operations: Operations) -> None:
    call = operations.list_limits(Scope.firm(2)).call("")
    request: Any = call.request
    assert (request.scope, request.scope_id) == (types_pb.LIMIT_SCOPE_FIRM, 2)
    key = limit_pb.LimitKey(
        scope=types_pb.LIMIT_SCOPE_FIRM, scope_id=2, kind=types_pb.LIMIT_KIND_GROSS_EXPOSURE_MAX
    )
    page = call.read(
        limit_pb.ListLimitsResponse(
            limits=[
                limit_pb.Limit(
                    key=key,
                    value="100",
                    action=types_pb.LIMIT_ACTION_HARD,
                    raised_value="150",
                    raised_until_time_ns=9,
                    bound="150",
                    use="30",
                    remaining="120",
                    utilisation="0.2",
                ),
                limit_pb.Limit(key=key, value="100", bound="100", use_unknown=True),
            ]
        )
    )
    known, unknown = page.items
    assert (known.scope, known.symbol, known.kind) == (
        Scope.firm(2),
        None,
        LimitKind.GROSS_EXPOSURE_MAX,
    )
    assert (known.value, known.raised_value) == (Decimal(100), Decimal(150))
    assert known.bound == Decimal(150)
    assert (known.use, known.remaining) == (Decimal(30), Decimal(120))
    assert known.utilisation == Decimal("0.2")
    assert (unknown.use, unknown.remaining, unknown.use_unknown) == (None, None, True)


def test_a_limit_of_a_new_instrument_asks_for_loading_again(operations: Operations) -> None:
    call = operations.list_limits().call("")
    key = limit_pb.LimitKey(scope=types_pb.LIMIT_SCOPE_ACCOUNT, scope_id=1, instrument_id=99)
    with pytest.raises(CatalogueIncompleteError):
        call.read(limit_pb.ListLimitsResponse(limits=[limit_pb.Limit(key=key)]))


def test_a_violation_reads_in_the_unit_of_its_limit(operations: Operations) -> None:
    reply = order_pb.CheckOrderResponse(
        decision=types_pb.DECISION_ACCEPTED_WITH_WARNING,
        reason=types_pb.REASON_CODE_LIMIT_CONCENTRATION_MAX,
        detail=order_pb.DecisionDetail(
            violations=[
                order_pb.Violation(
                    reason=types_pb.REASON_CODE_LIMIT_CONCENTRATION_MAX,
                    limit=400_000_000,
                    use=300_000_000,
                    order_use=150_000_000,
                    scope=types_pb.LIMIT_SCOPE_ACCOUNT,
                    scope_id=9,
                    soft=True,
                ),
                order_pb.Violation(
                    reason=types_pb.REASON_CODE_LIMIT_LEVERAGE_MAX, limit=500, order_use=1000
                ),
                order_pb.Violation(
                    reason=types_pb.REASON_CODE_LIMIT_OPEN_ORDERS_MAX, limit=5, use=5, order_use=1
                ),
            ]
        ),
    )
    decision = read_decision(
        reply, operations.catalogue.listing("BTC-PERP"), 42, operations.catalogue.scale_of
    )
    assert decision.accepted
    assert decision.detail is not None
    share, leverage, count = decision.detail.violations
    assert (share.unit, share.limit, share.use) == (Unit.SHARE, Decimal("0.4"), Decimal("0.3"))
    assert (share.scope, share.soft) == (Scope.account(9), True)
    assert (leverage.unit, leverage.limit, leverage.order_use) == (
        Unit.LEVERAGE,
        Decimal(5),
        Decimal(10),
    )
    assert (leverage.scope, leverage.soft) == (None, False)
    assert count.unit is Unit.COUNT
    assert (count.limit, count.use, count.order_use) == (Decimal(5), Decimal(5), Decimal(1))


def test_cancel_orders_needs_to_know_whose(operations: Operations) -> None:
    request: Any = operations.cancel_orders(
        gateway=3, symbol="ETH-PERP", keep=[11, 12], accepted_before_time_ns=9
    ).request
    assert (request.gateway_id, request.instrument_id, request.account_id) == (3, 8, 0)
    assert list(request.keep_reservation_ids) == [11, 12]
    with pytest.raises(InvalidInput, match="at least one of gateway, account and symbol"):
        operations.cancel_orders(side="buy")
    with pytest.raises(OutOfRange, match="keep holds 10001, more than 10000"):
        operations.cancel_orders(account=1, keep=range(1, 10_002))


@pytest.mark.parametrize(
    ("duration", "error"), [(-1, OutOfRange), (86_400_001, OutOfRange), (1.5, TypeError)]
)
def test_a_lease_lasts_up_to_a_day(
    operations: Operations, duration: Any, error: type[Exception]
) -> None:
    request: Any = operations.renew_gateway_lease(86_400_000, "cancel").request
    assert (request.gateway_id, request.duration_ms) == (3, 86_400_000)
    with pytest.raises(error, match="duration_ms"):
        operations.renew_gateway_lease(duration)


@pytest.mark.parametrize("actor", ["", " x", "x ", "é", "a" * 65, "a\nb"])
def test_an_actor_that_the_audit_would_not_take_is_refused(actor: str) -> None:
    with pytest.raises(ValueError, match="actor"):
        Client("localhost:1", actor=actor)


def test_a_comment_that_is_too_long_is_refused(operations: Operations) -> None:
    with pytest.raises(OutOfRange, match="comment has 256 bytes"):
        operations.engage_kill_switch(Scope.service(), comment="é" * 128)


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (Side, types_pb.Side, "SIDE"),
        (PositionSide, types_pb.PositionSide, "POSITION_SIDE"),
        (OrderType, types_pb.OrderType, "ORDER_TYPE"),
        (PositionMode, types_pb.PositionMode, "POSITION_MODE"),
        (LeaseAction, types_pb.LeaseAction, "LEASE_ACTION"),
        (LimitKind, types_pb.LimitKind, "LIMIT_KIND"),
        (LimitAction, types_pb.LimitAction, "LIMIT_ACTION"),
        (TimeInForce, types_pb.TimeInForce, "TIME_IN_FORCE"),
        (MarginMode, types_pb.MarginMode, "MARGIN_MODE"),
        (TradingState, types_pb.TradingState, "TRADING_STATE"),
        (Decision, types_pb.Decision, "DECISION"),
        (LiquidationStatus, types_pb.LiquidationStatus, "LIQUIDATION_STATUS"),
        (Reason, types_pb.ReasonCode, "REASON_CODE"),
        (DecisionView, order_pb.DecisionView, "DECISION_VIEW"),
        (ReservationState, order_pb.ReservationState, "RESERVATION_STATE"),
        (InstrumentKind, instrument_pb.InstrumentKind, "INSTRUMENT_KIND"),
        (OptionType, instrument_pb.OptionType, "OPTION_TYPE"),
        (MarginFamily, instrument_pb.MarginFamily, "MARGIN_FAMILY"),
        (MaintenanceBasis, instrument_pb.MaintenanceBasis, "MAINTENANCE_BASIS"),
        (ClosingFee, instrument_pb.ClosingFee, "CLOSING_FEE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_enum_has_the_names_and_numbers_of_the_contract(
    ours: type[WireEnum], theirs: Any, prefix: str
) -> None:
    assert {f"{prefix}_{row.name}": row.value for row in ours} == dict(theirs.items())


def test_both_clients_have_every_operation_with_the_same_parameters() -> None:
    names = [name for name in vars(Operations) if not name.startswith("_")]
    assert len(names) == 61
    for name in names:
        planned = inspect.signature(getattr(Operations, name)).parameters
        assert inspect.signature(getattr(Client, name)).parameters == planned
        assert inspect.signature(getattr(AsyncClient, name)).parameters == planned
        assert getattr(Client, name).__doc__


def test_only_calls_that_may_be_repeated_are_retried() -> None:
    config = dict(channel_options(()))["grpc.service_config"]
    for name in (
        "CheckOrder",
        "BatchCheckOrders",
        "ReportExecution",
        "ListInstruments",
        "EngageKillSwitch",
        "RenewGatewayLease",
    ):
        assert f'"{name}"' in config
    for name in (
        "AdjustCollateral",
        "TransferMargin",
        "CreateAccount",
        "ReleaseKillSwitch",
        "CancelOrders",
        "SetLimit",
    ):
        assert f'"{name}"' not in config


def test_margins_in_the_asset_of_the_account_read_at_its_scale(operations: Operations) -> None:
    cents = Asset(asset_id=9, symbol="CENTS", scale=2)
    margin = order_pb.Violation(reason=types_pb.REASON_CODE_MARGIN_INSUFFICIENT, limit=5)
    born = order_pb.Violation(reason=types_pb.REASON_CODE_BORN_LIQUIDATABLE, limit=7)
    value = order_pb.Violation(reason=types_pb.REASON_CODE_EXCEEDS_ORDER_NOTIONAL_MAX, limit=3)
    lots = order_pb.Violation(
        reason=types_pb.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX, limit=4, in_lots=True
    )
    reply = order_pb.CheckOrderResponse(
        decision=types_pb.DECISION_REJECTED,
        reason=types_pb.REASON_CODE_MARGIN_INSUFFICIENT,
        initial_margin_minor=150,
        available_minor=-1,
        reserved_minor=2,
        account_asset_id=9,
        detail=order_pb.DecisionDetail(
            equity_minor=250,
            position_initial_margin_minor=100,
            violations=[margin, born, value, lots],
        ),
    )
    listing = operations.catalogue.listing("BTC-PERP")
    scale_of = operations.catalogue.scale_of
    with pytest.raises(CatalogueIncompleteError, match="no asset 9"):
        read_decision(reply, listing, 42, scale_of)
    operations.catalogue.add_asset(cents)
    decision = read_decision(reply, listing, 42, scale_of)
    assert (decision.initial_margin, decision.available, decision.reserved) == (
        Decimal("1.5"),
        Decimal("-0.01"),
        Decimal("0.02"),
    )
    one = listing.money(1)
    assert decision.detail is not None
    assert decision.detail.position_initial_margin == 100 * one
    assert decision.detail.equity == 250 * one
    assert [each.limit for each in decision.detail.violations] == [
        Decimal("0.05"),
        7 * one,
        3 * one,
        listing.quantity(4),
    ]
    assert decision.detail.violations[3].unit is Unit.QUANTITY
    reply.detail.equity_in_account_asset = True
    decision = read_decision(reply, listing, 42, scale_of)
    assert decision.detail is not None
    assert decision.detail.equity == Decimal("2.5")
    assert decision.detail.violations[1].limit == Decimal("0.07")
    done = order_pb.ReportExecutionResponse(
        decision=types_pb.DECISION_ACCEPTED, available_minor=150, account_asset_id=9
    )
    assert read_execution(done, listing, 1, scale_of).available == Decimal("1.5")
