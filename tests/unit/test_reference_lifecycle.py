"""Order types, executions, batches and time in the reference engine, computed by hand.

The units are those of tests/unit/reference_desk.py: one lot at one tick is one minor unit, the mark
counts in half ticks. The mark of XBT is 2000, which is 1000 ticks.
"""

from typing import Any

import pytest

from riskd import reference
from riskd.core.rows import BalanceRow, GatewayRow
from riskd.reference import Order
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import BUY, CALL, CROSS, ETH, ISOLATED, NOW, SELL, XBT, Desk

REDUCE_ONLY = orders_pb.ORDER_FLAG_REDUCE_ONLY
CLOSE_POSITION = orders_pb.ORDER_FLAG_CLOSE_POSITION
QUOTE_QUANTITY = orders_pb.ORDER_FLAG_QUOTE_QUANTITY
FILL = orders_pb.EXECUTION_KIND_FILL
CANCEL = orders_pb.EXECUTION_KIND_CANCEL
BUST = orders_pb.EXECUTION_KIND_BUST
CORRECTION = orders_pb.EXECUTION_KIND_CORRECTION
LONG, SHORT = t.POSITION_SIDE_LONG, t.POSITION_SIDE_SHORT
NONE = t.REASON_CODE_NONE
ALL_OR_NONE = orders_pb.BATCH_MODE_ALL_OR_NONE
STOP = {"order_type": t.ORDER_TYPE_STOP}


def desk_at(mode: int = CROSS, cash: int = 100_000, **rest: Any) -> Desk:
    """Return a desk whose account has 10x leverage, with XBT at 1000 ticks."""
    desk = Desk(**rest)
    desk.account(mode, 1000, cash)
    desk.mark(XBT, 2000)
    return desk


def lines(desk: Desk, name: str) -> list[str]:
    return [line for line in desk.engine.state_lines() if line.startswith(f"{name} ")]


def working(desk: Desk, reservation_id: int) -> Order:
    (order,) = [
        each for each in desk.engine.working_orders() if each.reservation_id == reservation_id
    ]
    return order


def advance(desk: Desk, now_ns: int) -> bytes:
    desk.now_ns = now_ns
    return desk.engine.handle(reference.METHOD_ADVANCE_TIME, b"", now_ns)


# --- Types, prices and quantities -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("order_type", "side", "price", "trigger", "offset", "margin_price", "open_loss"),
    [
        # A buy of 10 counts with p; it loses 10 times what p is above R.
        ("LIMIT", BUY, 1010, 0, 0, 1010, 100),
        ("MARKET", BUY, 0, 0, 0, 1010, 100),  # 1000 + 1 %
        ("STOP", BUY, 0, 1100, 0, 1111, 110),  # R = 1100
        ("STOP", BUY, 0, 900, 0, 1010, 100),  # past its trigger: at the mark
        ("STOP_LIMIT", BUY, 1105, 1100, 0, 1105, 50),
        ("TAKE_PROFIT", BUY, 0, 900, 0, 909, 90),  # R = 900
        ("TAKE_PROFIT", BUY, 0, 1100, 0, 1010, 100),
        ("TAKE_PROFIT_LIMIT", BUY, 905, 900, 0, 905, 50),
        ("TRAILING_STOP", BUY, 0, 0, 50, 1061, 110),  # R = 1050: ceil(1060.5)
        # A sell counts with p, R or the mark, the largest; it loses what p is below R.
        ("MARKET", SELL, 0, 0, 0, 1000, 100),  # p = 990
        ("STOP", SELL, 0, 900, 0, 1000, 90),  # R = 900, p = 891
        ("STOP", SELL, 0, 1100, 0, 1000, 100),
        ("STOP_LIMIT", SELL, 895, 900, 0, 1000, 50),
        ("TAKE_PROFIT", SELL, 0, 1100, 0, 1100, 110),  # R = 1100, p = 1089
        ("TAKE_PROFIT_LIMIT", SELL, 1095, 1100, 0, 1100, 50),
        ("TRAILING_STOP", SELL, 0, 0, 50, 1000, 100),  # R = 950, p = floor(940.5)
        ("TRAILING_STOP", SELL, 0, 0, 2000, 1000, 0),  # R = 1 half tick, p = 1
    ],
)
def test_an_order_counts_at_the_price_its_type_assumes(
    order_type: str,
    side: int,
    price: int,
    trigger: int,
    offset: int,
    margin_price: int,
    open_loss: int,
) -> None:
    desk = desk_at(market_buffer_ppb=10_000_000)
    reply = desk.check(
        XBT,
        side,
        price,
        10,
        order_type=t.OrderType.Value(f"ORDER_TYPE_{order_type}"),
        trigger_price_ticks=trigger,
        trailing_offset_ticks=offset,
    )
    assert reply.reason == NONE
    order = working(desk, reply.reservation_id)
    assert (order.margin_price, order.open_loss) == (margin_price, open_loss)
    assert (order.trigger_price, order.trailing_offset) == (trigger, offset)
    assert reply.reserved_minor == margin_price + open_loss  # 10 lots at 10x, and the loss


def test_the_position_after_a_stop_is_judged_where_it_triggers() -> None:
    desk = desk_at(ISOLATED)
    # Bought at 1100 for 1100 of its own: equity at R = 1100 is 1100, at the mark it would be 100.
    reply = desk.check(XBT, BUY, 0, 10, trigger_price_ticks=1100, **STOP)
    assert reply.detail.equity_minor == 1_100
    assert reply.detail.position_unrealised_pnl_minor == 0
    assert reply.detail.position_initial_margin_minor == 1_100
    assert reply.detail.mark_price == 2000


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ({"order_type": 8}, t.REASON_CODE_ORDER_TYPE_NOT_SUPPORTED),
        ({"time_in_force": 5}, t.REASON_CODE_TIME_IN_FORCE_NOT_SUPPORTED),
        ({"flags": 16}, t.REASON_CODE_FLAG_NOT_SUPPORTED),
        ({"flags": 2, "time_in_force": 2}, t.REASON_CODE_FLAG_NOT_SUPPORTED),
        ({"flags": 2, "price_ticks": 0, "order_type": 2}, t.REASON_CODE_FLAG_NOT_SUPPORTED),
        ({"flags": QUOTE_QUANTITY}, t.REASON_CODE_FLAG_NOT_SUPPORTED),
        ({"position_side": LONG}, t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED),
        ({"position_side": 4}, t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED),
        ({"order_type": 3}, t.REASON_CODE_PRICE_OUT_OF_RANGE),
        ({"order_type": 4}, t.REASON_CODE_TRIGGER_PRICE_OUT_OF_RANGE),
        ({"trigger_price_ticks": 1}, t.REASON_CODE_TRIGGER_PRICE_OUT_OF_RANGE),
        # 2^53 / U = 2^52 is the last trigger.
        (
            {"order_type": 4, "trigger_price_ticks": 2**52 + 1},
            t.REASON_CODE_TRIGGER_PRICE_OUT_OF_RANGE,
        ),
        ({"order_type": 7, "price_ticks": 0}, t.REASON_CODE_TRAILING_OFFSET_OUT_OF_RANGE),
        ({"trailing_offset_ticks": 1}, t.REASON_CODE_TRAILING_OFFSET_OUT_OF_RANGE),
        ({"time_in_force": 4, "expire_time_ns": NOW}, t.REASON_CODE_EXPIRE_TIME_OUT_OF_RANGE),
        ({"expire_time_ns": NOW + 1}, t.REASON_CODE_EXPIRE_TIME_OUT_OF_RANGE),
        ({"flags": CLOSE_POSITION}, t.REASON_CODE_QUANTITY_OUT_OF_RANGE),
        (
            {"flags": CLOSE_POSITION, "quantity_lots": 0},
            t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE,
        ),
    ],
)
def test_each_field_has_its_form(rest: dict[str, Any], reason: int) -> None:
    desk = desk_at()
    reply = desk.check(XBT, BUY, 1000, 10, **rest)
    assert (reply.reason, reply.margin_unknown, reply.max_quantity_lots) == (reason, True, 0)
    assert reply.revision == desk.engine.revision


def test_a_stop_that_is_too_high_for_a_price_is_refused() -> None:
    desk = desk_at(market_buffer_ppb=10_000_000)
    # p = 1.01 * 2^52 is a price, but 2^53 lots of it are no amount of money.
    reply = desk.check(XBT, BUY, 0, 2**53, trigger_price_ticks=2**52, **STOP)
    assert reply.reason == t.REASON_CODE_NOTIONAL_OVERFLOWS
    # R = 2000 + 2 * 2^52 is more than 2^53, whatever the quantity.
    trailing = {"order_type": t.ORDER_TYPE_TRAILING_STOP, "trailing_offset_ticks": 2**52}
    reply = desk.check(XBT, BUY, 0, 1, **trailing)
    assert (reply.reason, reply.max_quantity_lots) == (t.REASON_CODE_NOTIONAL_OVERFLOWS, 0)


def test_an_amount_buys_as_many_lots_as_it_can_come_to() -> None:
    desk = desk_at(market_buffer_ppb=10_000_000)
    # The lowest price of the buffer is 990: floor(10_000 / 990) = 10 lots, margined at 1010.
    reply = desk.check(XBT, BUY, 0, 10_000, flags=QUOTE_QUANTITY)
    assert (reply.reason, reply.quantity_lots) == (NONE, 10)
    order = working(desk, reply.reservation_id)
    assert (order.quantity, order.remaining) == (10, 10)
    reply = desk.check(XBT, BUY, 0, 989, flags=QUOTE_QUANTITY)
    assert (reply.reason, reply.quantity_lots) == (t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE, 0)
    reply = desk.check(XBT, BUY, 0, 2**62, flags=QUOTE_QUANTITY)  # 4.6e15 lots are below 2^53
    too_large = t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX
    assert (reply.reason, reply.quantity_lots) == (too_large, 2**62 // 990)
    assert reply.max_quantity_lots == 0  # an amount is no quantity
    reply = desk.check(XBT, BUY, 0, 2**62 + 1, flags=QUOTE_QUANTITY)
    assert reply.reason == t.REASON_CODE_QUANTITY_OUT_OF_RANGE
    reply = desk.check(ETH, BUY, 0, 10_000, flags=QUOTE_QUANTITY)
    assert (reply.reason, reply.margin_unknown) == (t.REASON_CODE_MARK_MISSING, True)


def test_a_closing_order_takes_what_no_other_order_closes() -> None:
    desk = desk_at()
    desk.trade(XBT, BUY, 1000, 10)
    desk.check(XBT, SELL, 1000, 4)
    reply = desk.check(XBT, SELL, 0, 0, flags=CLOSE_POSITION)
    assert (reply.reason, reply.quantity_lots) == (NONE, 6)
    order = working(desk, reply.reservation_id)
    assert (order.quantity, order.remaining) == (6, 6)
    for side in (BUY, SELL):  # nothing is left to close, and a buy closes nothing
        reply = desk.check(XBT, side, 0, 0, flags=CLOSE_POSITION)
        assert reply.reason == t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE


# --- Protective orders ----------------------------------------------------------------------------


def test_stop_loss_and_take_profit_stand_beside_each_other_and_hold_nothing() -> None:
    desk = desk_at()
    desk.trade(XBT, BUY, 1000, 10)
    orders = []
    for order_type, trigger in ((t.ORDER_TYPE_STOP, 900), (t.ORDER_TYPE_TAKE_PROFIT, 1200)):
        reply = desk.check(
            XBT,
            SELL,
            0,
            10,
            order_type=order_type,
            trigger_price_ticks=trigger,
            flags=REDUCE_ONLY,
        )
        assert (reply.reason, reply.reserved_minor) == (NONE, 0)
        assert reply.liquidation_status == t.LIQUIDATION_STATUS_NO_POSITION
        order = working(desk, reply.reservation_id)
        assert (order.remaining, order.margin_price, order.open_loss) == (10, 0, 0)
        orders.append(reply.reservation_id)
    assert (desk.position.sell_lots, desk.position.initial_margin) == (0, 1_000)
    # A plain sell of all of it is still strictly reducing; one lot more than there is, is not.
    assert desk.check(XBT, SELL, 1000, 10, flags=REDUCE_ONLY).reason == NONE
    reply = desk.check(XBT, SELL, 0, 11, trigger_price_ticks=900, flags=REDUCE_ONLY, **STOP)
    assert reply.reason == t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE
    assert reply.max_quantity_lots == 10
    (violation,) = reply.detail.violations
    assert (violation.limit, violation.order_use) == (10, 11)
    # Both fill: the second was a fact too, and opens.
    assert desk.fill(orders[0], 900, 10).realised_pnl_minor == -1_000
    assert desk.fill(orders[1], 1200, 10).position_lots == -10


def test_a_position_has_at_most_64_protective_orders() -> None:
    desk = desk_at()
    desk.trade(XBT, BUY, 1000, 10)
    stop = STOP | {"trigger_price_ticks": 900, "flags": REDUCE_ONLY}
    orders = [desk.check(XBT, SELL, 0, 1, **stop) for _ in range(64)]
    assert {each.reason for each in orders} == {NONE}
    refused = desk.check(XBT, SELL, 0, 11, **stop)
    first, second = refused.detail.violations
    assert (first.reason, first.limit) == (t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE, 10)
    assert second.reason == t.REASON_CODE_PROTECTIVE_ORDERS_MAX
    assert (second.limit, second.use, second.order_use) == (64, 64, 1)
    refused = desk.check(XBT, SELL, 0, 1, **stop)
    assert (refused.reason, refused.max_quantity_lots) == (t.REASON_CODE_PROTECTIVE_ORDERS_MAX, 0)
    # Amending one, an order that is none of them, and the next after one are as ever.
    amended = desk.amend(orders[0].reservation_id, 0, 2, trigger_price_ticks=950)
    assert amended.reason == NONE
    assert desk.check(XBT, SELL, 1000, 1).reason == NONE
    desk.execute(CANCEL, orders[0].reservation_id)
    assert desk.check(XBT, SELL, 0, 1, **stop).reason == NONE


def test_a_protective_order_that_closes_the_position_has_no_quantity() -> None:
    desk = desk_at()
    desk.trade(XBT, BUY, 1000, 10)
    stop = {"trigger_price_ticks": 900, "flags": CLOSE_POSITION, **STOP}
    reply = desk.check(XBT, SELL, 0, 0, **stop)
    assert (reply.reason, reply.quantity_lots) == (NONE, 10)
    order = working(desk, reply.reservation_id)
    assert (order.quantity, order.remaining, order.margin_price, order.open_loss) == (0, 0, 0, 0)
    desk.trade(XBT, BUY, 1000, 5)  # more to close than there was
    assert desk.fill(reply.reservation_id, 900, 12).remaining_lots == 0
    assert len(lines(desk, "order")) == 1
    exceeding = desk.fill(reply.reservation_id, 900, 4)
    assert exceeding.reason == t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING
    assert desk.fill(reply.reservation_id, 900, 3).position_lots == 0
    assert lines(desk, "order") == []
    # It was cancelled in time, says the venue later: what it closed counts up to what is open.
    desk.trade(XBT, BUY, 1000, 5)
    late = desk.fill(reply.reservation_id, 900, 5)
    assert (late.reason, late.position_lots) == (t.REASON_CODE_RESERVATION_CLOSED, 0)
    late = desk.fill(reply.reservation_id, 900, 1)
    assert late.reason == t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING


# --- Hedge mode -----------------------------------------------------------------------------------


def hedged() -> Desk:
    """Return a desk with 100 lots long and 100 short, both at 1000."""
    desk = desk_at(cash=20_000)
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE) == NONE
    for side, position_side in ((BUY, LONG), (SELL, SHORT)):
        order = desk.check(XBT, side, 1000, 100, position_side=position_side)
        assert order.reason == NONE
        desk.fill(order.reservation_id, 1000, 100)
    return desk


def test_a_long_and_a_short_have_margin_of_their_own() -> None:
    desk = hedged()
    assert lines(desk, "position") == [
        f"position 7 1 {LONG} 0 0 100 100000 0 0",
        f"position 7 1 {SHORT} 0 0 -100 100000 0 0",
    ]
    summary = desk.engine.summary(7)
    assert summary is not None
    assert (summary.initial_margin, summary.cross_maintenance) == (20_000, 2_000)
    rows = desk.engine.positions(7)
    assert rows is not None
    assert [row.position_side for row in rows] == [LONG, SHORT]
    # What one side gains the other loses; their requirements are 20_000 at 10_000 ticks, where each
    # is worth 1_000_000.
    assert [row.liquidation_price for row in rows] == [20_000, 20_000]


def test_an_order_closes_only_its_own_position_side() -> None:
    desk = hedged()
    for position_side in (0, t.POSITION_SIDE_NET, 4):
        reply = desk.check(XBT, SELL, 1000, 10, position_side=position_side)
        assert reply.reason == t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED
    for side, position_side in ((SELL, LONG), (BUY, SHORT)):
        reply = desk.check(XBT, side, 1000, 101, position_side=position_side)
        assert reply.reason == t.REASON_CODE_POSITION_SIDE_WOULD_TURN
        assert reply.max_quantity_lots == 100
        assert desk.check(XBT, side, 1000, 100, position_side=position_side).reason == NONE


def test_leverage_and_mode_are_of_both_position_sides() -> None:
    desk = hedged()
    state = desk.engine.state_hash()
    # 2 * 100_000 / 9.99 do not fit into 20_000; at 20x they take 10_000.
    assert desk.engine.set_leverage(7, XBT, 999, False, NOW) == (
        t.REASON_CODE_EXCEEDS_AVAILABLE,
        1000,
        0,
    )
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_ONE_WAY) == (
        t.REASON_CODE_POSITION_NOT_FLAT
    )
    # All of the pool would go into the two wallets.
    moved = desk.engine.change_margin_mode(7, XBT, ISOLATED, True, NOW)
    assert moved == (NONE, 20_000, 0, -20_000)
    assert desk.engine.state_hash() == state
    assert desk.engine.set_leverage(7, XBT, 2000, False, NOW) == (NONE, 2000, 10_000)
    assert lines(desk, "position")[0] == "position 7 1 1 0 2000 0 0 0 0"


def test_a_late_fill_can_be_closed_in_the_other_position_mode() -> None:
    desk = desk_at()
    order = desk.check(XBT, BUY, 1000, 10)
    desk.execute(CANCEL, order.reservation_id)
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE) == NONE
    desk.fill(order.reservation_id, 1000, 10)
    assert desk.check(XBT, SELL, 1000, 10).reason == NONE


# --- Closed orders, busts and corrections ---------------------------------------------------------


def test_a_fill_of_a_closed_order_is_booked() -> None:
    desk = desk_at()
    order = desk.check(XBT, BUY, 1000, 10)
    assert desk.fill(order.reservation_id, 1000, 2).remaining_lots == 8
    assert desk.execute(CANCEL, order.reservation_id).reason == NONE
    late = desk.fill(order.reservation_id, 1000, 5)
    assert late.decision == t.DECISION_ACCEPTED_WITH_WARNING
    assert late.reason == t.REASON_CODE_RESERVATION_CLOSED
    assert (late.remaining_lots, late.position_lots) == (0, 7)
    exceeding = desk.fill(order.reservation_id, 1000, 4)
    assert exceeding.reason == t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING
    again = desk.execute(CANCEL, order.reservation_id)
    assert (again.reason, again.position_lots) == (t.REASON_CODE_RESERVATION_CLOSED, 7)


def test_a_bust_undoes_a_fill_at_its_price() -> None:
    desk = desk_at()
    order = desk.check(XBT, BUY, 1000, 10)
    desk.fill(order.reservation_id, 1010, 4, fee=5)
    original = desk.next_id
    desk.mark(XBT, 3000)
    bust = desk.execute(BUST, order.reservation_id, original_execution_id=original, fee_minor=-5)
    assert (bust.reason, bust.realised_pnl_minor) == (NONE, 0)
    assert (bust.position_lots, bust.remaining_lots, desk.cash) == (0, 6, 100_000)
    again = desk.execute(BUST, order.reservation_id, original_execution_id=original)
    assert again.reason == t.REASON_CODE_EXECUTION_ALREADY_UNDONE


def test_a_bust_of_a_closing_fill_opens_it_again_at_the_fills_price() -> None:
    desk = desk_at()
    desk.trade(XBT, BUY, 1000, 10)
    order = desk.check(XBT, SELL, 1100, 10)
    assert desk.fill(order.reservation_id, 1100, 10).realised_pnl_minor == 1_000
    bust = desk.execute(BUST, order.reservation_id, original_execution_id=desk.next_id)
    # What it had won stays in the cash; the position costs that much more.
    assert (bust.position_lots, bust.realised_pnl_minor, desk.cash) == (10, 0, 101_000)
    assert lines(desk, "position") == ["position 7 1 1 0 0 10 11000 0 0"]


def test_a_correction_gives_a_fill_another_price_and_quantity() -> None:
    desk = desk_at()
    order = desk.check(XBT, BUY, 1000, 10)
    desk.fill(order.reservation_id, 1000, 10)
    first = desk.next_id
    reply = desk.execute(CORRECTION, order.reservation_id, 1010, 6, original_execution_id=first)
    second = desk.next_id
    assert (reply.position_lots, reply.realised_pnl_minor) == (6, 0)
    assert reply.reason == t.REASON_CODE_EXECUTION_BEYOND_LIMIT  # 1010 for a limit of 1000
    assert lines(desk, "position") == ["position 7 1 1 0 0 6 6060 0 0"]
    reply = desk.execute(CORRECTION, order.reservation_id, 1000, 11, original_execution_id=second)
    assert reply.reason == t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING
    reply = desk.execute(BUST, order.reservation_id, original_execution_id=second)
    assert (reply.reason, reply.position_lots, desk.cash) == (NONE, 0, 100_000)


def test_only_an_applied_fill_of_the_same_reservation_can_be_undone() -> None:
    desk = desk_at()
    order = desk.check(XBT, BUY, 1000, 10)
    desk.fill(order.reservation_id, 1000, 11)  # too much
    refused = desk.next_id
    other = desk.check(XBT, BUY, 1000, 10)
    desk.fill(other.reservation_id, 1000, 10)
    of_other = desk.next_id
    desk.execute(BUST, other.reservation_id, original_execution_id=of_other)
    bust = desk.next_id
    for original in (0, 999, refused, of_other, bust):
        reply = desk.execute(BUST, order.reservation_id, original_execution_id=original)
        assert reply.reason == t.REASON_CODE_ORIGINAL_EXECUTION_UNKNOWN
    reply = desk.execute(BUST, other.reservation_id, original_execution_id=bust)
    assert reply.reason == t.REASON_CODE_ORIGINAL_EXECUTION_UNKNOWN
    reply = desk.execute(CANCEL, order.reservation_id, original_execution_id=of_other)
    assert reply.reason == t.REASON_CODE_ORIGINAL_EXECUTION_UNKNOWN
    reply = desk.execute(BUST, other.reservation_id, 1, original_execution_id=of_other)
    assert reply.reason == t.REASON_CODE_EXECUTION_ALREADY_UNDONE


def test_a_short_option_makes_the_account_unknown() -> None:
    desk = desk_at()
    desk.mark(CALL, 100)
    order = desk.check(CALL, BUY, 100, 5)
    desk.fill(order.reservation_id, 100, 5)
    original = desk.next_id
    desk.trade(CALL, SELL, 100, 5)
    bust = desk.execute(BUST, order.reservation_id, original_execution_id=original)
    assert (bust.position_lots, bust.margin_unknown) == (-5, True)
    reply = desk.check(XBT, BUY, 1000, 1)
    assert (reply.reason, reply.margin_unknown) == (t.REASON_CODE_MARGIN_OVERFLOWS, True)
    reason, _, _ = desk.engine.adjust_collateral(7, 1, -1, False, NOW)
    assert reason == t.REASON_CODE_EXCEEDS_AVAILABLE
    assert desk.check(CALL, BUY, 100, 5).reason == NONE  # closing it is always possible


# --- Fees in another asset ------------------------------------------------------------------------


def test_a_fee_in_another_asset_leaves_its_balance() -> None:
    desk = desk_at()
    assert desk.engine.create_asset("BNB", 8) == (NONE, 2)
    reason, balance, _ = desk.engine.adjust_collateral(7, 2, 100, False, NOW)
    assert (reason, balance) == (NONE, 100)
    order = desk.check(XBT, BUY, 1000, 10)
    fee = {"fee_minor": 130, "fee_asset_id": 2}
    assert desk.execute(FILL, order.reservation_id, 1000, 4, **fee).reason == NONE
    assert desk.engine.balances(7) == [BalanceRow(2, -30)]
    assert desk.cash == 100_000
    reason, balance, _ = desk.engine.adjust_collateral(7, 2, -1, False, NOW)
    assert (reason, balance) == (t.REASON_CODE_EXCEEDS_AVAILABLE, -30)
    assert desk.engine.adjust_collateral(7, 2, 30, False, NOW)[1] == 0
    assert desk.engine.balances(7) == []
    reply = desk.execute(FILL, order.reservation_id, 1000, 4, fee_minor=1, fee_asset_id=3)
    assert reply.reason == t.REASON_CODE_ASSET_UNKNOWN
    reply = desk.execute(FILL, order.reservation_id, 1000, 4, fee_minor=1, fee_asset_id=1)
    assert (reply.reason, desk.cash) == (NONE, 99_999)


# --- Amendments -----------------------------------------------------------------------------------


def test_an_amendment_moves_the_trigger() -> None:
    desk = desk_at()
    order = desk.check(XBT, BUY, 0, 10, trigger_price_ticks=1100, **STOP)
    reply = desk.amend(order.reservation_id, 0, 10, trigger_price_ticks=1200)
    assert (reply.reason, reply.reserved_minor, reply.quantity_lots) == (NONE, 100, 0)
    amended = working(desk, order.reservation_id)
    assert (amended.margin_price, amended.open_loss, amended.trigger_price) == (1200, 0, 1200)
    reply = desk.amend(order.reservation_id, 0, 10)
    assert reply.reason == t.REASON_CODE_TRIGGER_PRICE_OUT_OF_RANGE
    # At the same trigger fewer lots pass in a reduce-only state, at another one they do not.
    desk.engine.set_trading_state(reference.SCOPE_ACCOUNT, 7, t.TRADING_STATE_REDUCE_ONLY)
    reply = desk.amend(order.reservation_id, 0, 5, trigger_price_ticks=1100)
    assert reply.reason == t.REASON_CODE_ACCOUNT_REDUCE_ONLY
    assert desk.amend(order.reservation_id, 0, 5, trigger_price_ticks=1200).reason == NONE


def test_a_closing_stop_is_amended_without_a_quantity() -> None:
    desk = desk_at()
    opened = desk.trade(XBT, BUY, 1000, 10)
    assert opened.position_lots == 10
    stop = {"trigger_price_ticks": 900, "flags": CLOSE_POSITION, **STOP}
    order = desk.check(XBT, SELL, 0, 0, **stop)
    reply = desk.amend(order.reservation_id, 0, 10, trigger_price_ticks=950)
    assert (reply.reason, reply.max_quantity_lots) == (t.REASON_CODE_QUANTITY_OUT_OF_RANGE, 0)
    assert desk.amend(order.reservation_id, 0, 0, trigger_price_ticks=950).reason == NONE
    amended = working(desk, order.reservation_id)
    assert (amended.quantity, amended.remaining, amended.trigger_price) == (0, 0, 950)
    desk.trade(XBT, SELL, 1000, 10)  # nothing is left to protect
    reply = desk.amend(order.reservation_id, 0, 0, trigger_price_ticks=960)
    assert reply.reason == t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE


# --- Batches --------------------------------------------------------------------------------------


def test_independent_orders_are_decided_each_by_itself() -> None:
    desk = desk_at(cash=1_500)
    orders = [desk.order(XBT, BUY, 1000, quantity) for quantity in (10, 10, 5)]
    reply = desk.batch(0, orders)
    reasons = [each.reason for each in reply.decisions]
    assert reasons == [NONE, t.REASON_CODE_MARGIN_INSUFFICIENT, NONE]
    assert reply.revision == desk.engine.revision == reply.decisions[2].revision
    assert desk.batch(0, orders).decisions == reply.decisions


def test_all_of_a_batch_are_accepted_or_none() -> None:
    desk = desk_at(cash=1_500)
    before = desk.engine.revision
    state = desk.engine.state_hash()
    orders = [desk.order(XBT, BUY, 1000, quantity) for quantity in (10, 6, 1)]
    reply = desk.batch(ALL_OR_NONE, orders)
    undone = t.REASON_CODE_BATCH_ORDER_REJECTED
    reasons = [each.reason for each in reply.decisions]
    assert reasons == [undone, t.REASON_CODE_MARGIN_INSUFFICIENT, undone]
    assert {each.revision for each in reply.decisions} == {before + 1} == {reply.revision}
    # The one that was too much saw the 10 before it: 1500 - 1000 are left.
    assert reply.decisions[1].available_minor == 500
    assert reply.decisions[1].max_quantity_lots == 5
    assert [each.margin_unknown for each in reply.decisions] == [True, False, True]
    assert desk.engine.state_hash() == state
    assert desk.batch(ALL_OR_NONE, orders) == reply

    orders = [desk.order(XBT, BUY, 1000, quantity) for quantity in (10, 5)]
    reply = desk.batch(ALL_OR_NONE, orders)
    assert [each.reservation_id for each in reply.decisions] == [before + 2, before + 3]
    assert [each.available_minor for each in reply.decisions] == [500, 0]
    assert desk.batch(ALL_OR_NONE, orders) == reply


def test_a_batch_with_an_old_order_changes_nothing() -> None:
    desk = desk_at()
    old, new = desk.order(XBT, BUY, 1000, 1), desk.order(XBT, BUY, 1000, 1)
    first = desk.batch(ALL_OR_NONE, [old]).decisions[0]
    state, revision = desk.engine.state_hash(), desk.engine.revision
    twice = desk.order(XBT, BUY, 1000, 2, client_order_id=new.client_order_id)
    anonymous = desk.order(XBT, BUY, 1000, 2, client_order_id=0)
    other_mode = desk.order(XBT, BUY, 1000, 2, mode=orders_pb.CHECK_MODE_CHECK_ONLY)
    partly = t.REASON_CODE_BATCH_PARTLY_ANSWERED
    reused = t.REASON_CODE_CLIENT_ORDER_ID_REUSED
    for orders, reasons in (
        ([old, new], [NONE, partly]),
        ([new, twice], [partly, reused]),
        ([new, anonymous], [partly, t.REASON_CODE_CLIENT_ORDER_ID_MISSING]),
        ([new, other_mode], [partly, t.REASON_CODE_CHECK_MODE_NOT_SUPPORTED]),
    ):
        reply = desk.batch(ALL_OR_NONE, orders)
        assert [each.reason for each in reply.decisions] == reasons
    assert desk.batch(ALL_OR_NONE, [old, new]).decisions[0] == first
    assert (desk.engine.state_hash(), desk.engine.revision) == (state, revision)
    assert desk.batch(ALL_OR_NONE, [new]).decisions[0].reason == NONE  # it was not remembered


def test_a_batch_can_be_checked_without_reserving() -> None:
    desk = desk_at(cash=1_500)
    state, revision = desk.engine.state_hash(), desk.engine.revision
    check_only = {"mode": orders_pb.CHECK_MODE_CHECK_ONLY}
    orders = [desk.order(XBT, BUY, 1000, quantity, **check_only) for quantity in (10, 5)]
    reply = desk.batch(ALL_OR_NONE, orders)
    assert [each.available_minor for each in reply.decisions] == [500, 0]
    assert {(each.reservation_id, each.revision) for each in reply.decisions} == {(0, revision)}
    assert (desk.engine.state_hash(), desk.engine.revision) == (state, revision)


@pytest.mark.parametrize("request_bytes", [b"", b"\x08\x03\x12\x00", b"\x12\x00" * 65])
def test_malformed_batches_are_refused(request_bytes: bytes) -> None:
    with pytest.raises(reference.MalformedRequestError):
        desk_at().engine.handle(reference.METHOD_BATCH_CHECK_ORDERS, request_bytes, 0)


# --- Time, leases, mass cancels -------------------------------------------------------------------


def test_orders_are_released_at_their_time() -> None:
    desk = desk_at()
    good_till = {"time_in_force": t.TIME_IN_FORCE_GTD}
    first = desk.check(XBT, BUY, 1000, 1, expire_time_ns=NOW + 20, **good_till)
    second = desk.check(XBT, BUY, 1000, 2, expire_time_ns=NOW + 10, **good_till)
    third = desk.check(XBT, BUY, 1000, 3, expire_time_ns=NOW + 21, **good_till)
    revision = desk.engine.revision
    assert advance(desk, NOW + 9) == bytes([0x10, revision])
    assert advance(desk, NOW + 20) == bytes([0x08, 2, 0x10, revision + 1])
    assert desk.engine.working_orders() == [working(desk, third.reservation_id)]
    late = desk.fill(first.reservation_id, 1000, 1)
    assert late.reason == t.REASON_CODE_RESERVATION_CLOSED
    late = desk.fill(second.reservation_id, 1000, 3)
    assert late.reason == t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING


def test_an_order_is_not_amended_after_its_time() -> None:
    desk = desk_at()
    good_till = {"time_in_force": t.TIME_IN_FORCE_GTD, "expire_time_ns": NOW + 10}
    order = desk.check(XBT, BUY, 1000, 5, **good_till)
    desk.now_ns = NOW + 9
    assert desk.amend(order.reservation_id, 1000, 4).reason == NONE
    desk.now_ns = NOW + 10
    # Nobody has told the engine the time yet: the order still works, but only to end.
    refused = desk.amend(order.reservation_id, 1000, 3)
    assert refused.reason == t.REASON_CODE_EXPIRE_TIME_OUT_OF_RANGE
    assert refused.reservation_id == 0
    assert working(desk, order.reservation_id).quantity == 4
    # Its price goes before it, its quantity after it.
    amended = desk.amend(order.reservation_id, 0, 3)
    assert amended.reason == t.REASON_CODE_PRICE_OUT_OF_RANGE
    amended = desk.amend(order.reservation_id, 1000, 0)
    assert amended.reason == t.REASON_CODE_EXPIRE_TIME_OUT_OF_RANGE


def test_a_drawdown_that_is_set_again_keeps_its_peak() -> None:
    desk = desk_at(cash=100_000)
    limit = (3, 7, 0, t.LIMIT_KIND_DRAWDOWN_MAX)
    assert desk.engine.set_limit(*limit, 5_000, 0, 1, NOW) == NONE
    desk.trade(XBT, BUY, 1000, 100)
    desk.mark(XBT, 1900)  # a loss of 5000
    assert desk.engine.limit_use(*limit, NOW) == 5_000
    assert desk.engine.set_limit(*limit, 5_000, 0, 2, NOW) == NONE
    (row,) = desk.engine.limits()
    assert (row.peak, row.action) == (100_000, 2)
    # Another value begins anew.
    assert desk.engine.set_limit(*limit, 5_001, 0, 2, NOW) == NONE
    (row,) = desk.engine.limits()
    assert row.peak == 95_000


def test_a_gateway_without_its_lease_may_only_reduce() -> None:
    desk = desk_at()
    desk.trade(XBT, BUY, 1000, 10)
    assert desk.engine.renew_lease(1, 100, t.LEASE_ACTION_BLOCK, NOW) == NONE
    assert desk.engine.gateways() == [GatewayRow(1, 1, NOW + 100, t.LEASE_ACTION_BLOCK, 0)]
    desk.now_ns = NOW + 99
    assert desk.check(XBT, BUY, 1000, 1).reason == NONE
    desk.now_ns = NOW + 100
    assert desk.check(XBT, BUY, 1000, 1).reason == t.REASON_CODE_GATEWAY_LEASE_ENDED
    assert desk.check(XBT, SELL, 1000, 1).reason == NONE
    assert desk.check(XBT, BUY, 1000, 1, gateway_id=2).reason == NONE
    revision = desk.engine.revision
    assert advance(desk, NOW + 100) == bytes([0x10, revision])  # BLOCK releases nothing
    assert desk.engine.renew_lease(1, 0, 0, NOW) == NONE
    assert desk.engine.gateways() == []
    assert desk.check(XBT, BUY, 1000, 1).reason == NONE


def test_a_lease_that_ends_with_cancel_is_swept_once() -> None:
    desk = desk_at()
    desk.trade(XBT, BUY, 1000, 10)
    desk.check(XBT, BUY, 1000, 1)
    other = desk.check(XBT, BUY, 1000, 1, gateway_id=2)
    assert desk.engine.renew_lease(1, 100, t.LEASE_ACTION_CANCEL, NOW) == NONE
    revision = desk.engine.revision
    assert advance(desk, NOW + 100) == bytes([0x08, 1, 0x10, revision + 1])
    assert [each.reservation_id for each in desk.engine.working_orders()] == [other.reservation_id]
    assert lines(desk, "gateway") == [f"gateway 1 1 {NOW + 100} 2 1"]
    assert desk.check(XBT, SELL, 1000, 1).reason == NONE  # reducing: it works on
    assert advance(desk, NOW + 101) == bytes([0x10, revision + 2])


@pytest.mark.parametrize(
    ("gateway_id", "duration_ns", "action", "reason"),
    [
        (0, 1, 1, t.REASON_CODE_GATEWAY_ID_MISSING),
        (1, 86_400 * 10**9 + 1, 1, t.REASON_CODE_DEFINITION_INVALID),
        (1, 1, 0, t.REASON_CODE_DEFINITION_INVALID),
        (1, 1, 3, t.REASON_CODE_DEFINITION_INVALID),
        (1, 86_400 * 10**9, 2, NONE),
    ],
)
def test_a_lease_has_bounds(gateway_id: int, duration_ns: int, action: int, reason: int) -> None:
    assert desk_at().engine.renew_lease(gateway_id, duration_ns, action, NOW) == reason


def test_orders_that_fit_every_given_field_are_released() -> None:
    desk = desk_at()
    desk.mark(ETH, 2000)
    buy = desk.check(XBT, BUY, 1000, 1).reservation_id
    sell = desk.check(XBT, SELL, 1000, 1).reservation_id
    other = desk.check(ETH, BUY, 1000, 1, gateway_id=2).reservation_id
    desk.now_ns = NOW + 1
    later = desk.check(XBT, BUY, 1000, 1).reservation_id

    def cancel(*fields: Any, only_list: bool = True) -> tuple[int, int, list[int]]:
        return desk.engine.cancel_orders(*(*fields, only_list, NOW))

    assert cancel(0, 7, 0, 0, 0, []) == (NONE, 4, [buy, sell, other, later])
    assert cancel(1, 0, 0, 0, 0, [sell]) == (NONE, 2, [buy, later])
    assert cancel(0, 0, XBT, BUY, NOW + 1, []) == (NONE, 1, [buy])
    invalid = t.REASON_CODE_DEFINITION_INVALID
    assert cancel(0, 0, 0, BUY, 0, [])[0] == invalid
    assert cancel(1, 0, 0, 3, 0, [])[0] == invalid
    assert cancel(1, 0, 0, 0, 0, [0] * 10_001)[0] == invalid
    assert cancel(0, 8, 0, 0, 0, [])[0] == t.REASON_CODE_ACCOUNT_UNKNOWN
    assert cancel(0, 0, 9, 0, 0, [])[0] == t.REASON_CODE_INSTRUMENT_UNKNOWN
    revision = desk.engine.revision
    assert cancel(3, 0, 0, 0, 0, [], only_list=False) == (NONE, 0, [])
    assert desk.engine.revision == revision
    assert cancel(1, 0, 0, BUY, 0, [], only_list=False) == (NONE, 2, [buy, later])
    assert desk.engine.revision == revision + 1
    assert desk.fill(buy, 1000, 1).reason == t.REASON_CODE_RESERVATION_CLOSED
