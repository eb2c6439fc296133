"""What the gate lets through can be filled: accepted orders alone ruin no account."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from riskd.core.engine import (
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    Engine,
)
from riskd.v1 import market_data_service_pb2 as market
from riskd.v1 import order_risk_service_pb2 as order_risk
from riskd.v1 import types_pb2 as types

NOW = 10**18
MARK_TICKS = 10_000
TICK_VALUE = 1000
TAKER_FEE_PPB = 500_000
CROSS, ISOLATED = 1, 2
TIERS = [
    (0, 0, 4_000_000, 12_500),
    (10**9, 0, 10_000_000, 5_000),
    (10**10, 0, 25_000_000, 2_000),
]


@dataclass(frozen=True, slots=True)
class Placed:
    """An order as it was sent, and what became of it."""

    side: int
    price_ticks: int
    quantity_lots: int
    reservation_id: int


orders = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),
        st.integers(MARK_TICKS * 80 // 100, MARK_TICKS * 120 // 100),
        st.integers(1, 3000),
    ),
    min_size=1,
    max_size=8,
)


def fresh(mode: int, leverage: int) -> Engine:
    engine = Engine(
        accounts_max=2,
        positions_max=4,
        orders_max=64,
        instruments_max=1,
        schedules_max=1,
        gateways_max=1,
        answer_bytes=1 << 16,
    )
    engine.create_asset("USDT", 6)
    engine.upsert_schedule("TIERS", 1, TIERS, 0, 2_000_000)
    engine.upsert_instrument("BTCUSDT", 1, 1, 1, 1, -1, 1, -2, taker_fee_ppb=TAKER_FEE_PPB)
    engine.create_account(1, 1, mode, leverage, 10**9)
    mark = market.Mark(instrument_id=1, mark_price=MARK_TICKS, time_ns=NOW)
    report = market.ReportMarksRequest(marks=[mark]).SerializeToString()
    engine.handle(METHOD_REPORT_MARKS, report, NOW)
    return engine


def place(engine: Engine, number: int, side: int, price: int, lots: int) -> Placed | None:
    """Send an order; return it if it was accepted and left nothing short."""
    before = engine.summary(1)
    assert before is not None
    request = order_risk.CheckOrderRequest(
        account_id=1,
        instrument_id=1,
        client_order_id=number,
        gateway_id=1,
        side=types.Side.ValueType(side),
        order_type=types.ORDER_TYPE_LIMIT,
        price_ticks=price,
        quantity_lots=lots,
    )
    reply = order_risk.CheckOrderResponse.FromString(
        engine.handle(METHOD_CHECK_ORDER, request.SerializeToString(), NOW)
    )
    if reply.decision != types.DECISION_ACCEPTED:
        return None
    if reply.available_minor < 0:
        # A strictly reducing order is let through at any price inside the collar: the trader's own
        # choice of a loss. It is taken back, because here nobody chooses one.
        release(engine, 10**6 + number, reply.reservation_id)
        return None
    return Placed(side, price, lots, reply.reservation_id)


def release(engine: Engine, execution_id: int, reservation_id: int) -> None:
    request = order_risk.ReportExecutionRequest(
        gateway_id=1,
        execution_id=execution_id,
        reservation_id=reservation_id,
        kind=order_risk.EXECUTION_KIND_CANCEL,
    )
    engine.handle(METHOD_REPORT_EXECUTION, request.SerializeToString(), NOW)


def fill(engine: Engine, execution_id: int, order: Placed, lots: int) -> None:
    """Fill at the limit, with the taker fee that is reserved."""
    value = order.price_ticks * lots * TICK_VALUE
    request = order_risk.ReportExecutionRequest(
        gateway_id=1,
        execution_id=execution_id,
        reservation_id=order.reservation_id,
        kind=order_risk.EXECUTION_KIND_FILL,
        price_ticks=order.price_ticks,
        quantity_lots=lots,
        fee_minor=value * TAKER_FEE_PPB // 10**9,
    )
    reply = order_risk.ReportExecutionResponse.FromString(
        engine.handle(METHOD_REPORT_EXECUTION, request.SerializeToString(), NOW)
    )
    assert reply.decision == types.DECISION_ACCEPTED


@settings(max_examples=600)
@given(
    st.sampled_from([CROSS, ISOLATED]),
    st.integers(1, 125),
    orders,
    orders,
    st.randoms(use_true_random=False),
)
def test_accepted_orders_filled_at_their_limits_leave_nothing_liquidatable(
    mode: int,
    leverage: int,
    opening: list[tuple[int, int, int]],
    working: list[tuple[int, int, int]],
    chance: object,
) -> None:
    """In any order of fills, any part of them, at an unchanged mark."""
    shuffle = chance.shuffle  # type: ignore[attr-defined]
    engine = fresh(mode, leverage * 100)
    number = 0
    for batch in (opening, working):
        placed = []
        for row in batch:
            number += 1
            order = place(engine, number, *row)
            if order is not None:
                placed.append(order)
        shuffle(placed)
        for order in placed:
            number += 1
            parts = [order.quantity_lots]
            if order.quantity_lots > 1 and number % 2:
                parts = [order.quantity_lots // 2, order.quantity_lots - order.quantity_lots // 2]
            for part, lots in enumerate(parts):
                fill(engine, number * 10 + part, order, lots)
                summary = engine.summary(1)
                assert summary is not None
                equity = summary.cash + summary.cross_pnl
                assert equity >= 0
                required = summary.cross_liquidation_requirement
                assert required == 0 or equity > required
                assert not any(row.liquidatable for row in engine.positions(1) or [])
    assert "deficit" not in " ".join(engine.state_lines())
