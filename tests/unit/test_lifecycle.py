"""What an order can be and what becomes of it, in the compiled engine: expectations by hand.

A lot at a tick is 100 minor units. The mark is 650,000 ticks and the market buffer 1 per cent, so
10 lots at the mark are worth 650,000,000 and need a tenth of it.
"""

from collections.abc import Sequence

import pytest

from riskd.core.engine import (
    METHOD_ADVANCE_TIME,
    METHOD_BATCH_CHECK_ORDERS,
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_GET_RESERVATION,
    METHOD_REPORT_EXECUTION,
    Engine,
)
from riskd.core.rows import BalanceRow, GatewayRow
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.desk import NOW_NS, PRICE_TICKS, SIZES, Desk, reservation_in

SECOND = 10**9
CASH = 10**15
BUY, SELL = t.SIDE_BUY, t.SIDE_SELL
LONG, SHORT = t.POSITION_SIDE_LONG, t.POSITION_SIDE_SHORT
STOP, TAKE_PROFIT = t.ORDER_TYPE_STOP, t.ORDER_TYPE_TAKE_PROFIT
REDUCE_ONLY = orders_pb.ORDER_FLAG_REDUCE_ONLY
CLOSE_POSITION = orders_pb.ORDER_FLAG_CLOSE_POSITION
NONE = t.REASON_CODE_NONE
BAD_TRIGGER = t.REASON_CODE_TRIGGER_PRICE_OUT_OF_RANGE
BAD_EXPIRY = t.REASON_CODE_EXPIRE_TIME_OUT_OF_RANGE
WOULD_INCREASE = t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE
NO_ORIGINAL = t.REASON_CODE_ORIGINAL_EXECUTION_UNKNOWN
ORDER_LINE = (
    *("reservation", "account", "instrument", "position_side", "gateway", "client_order_id"),
    *("side", "type", "time_in_force", "flags", "price_ticks", "quantity", "remaining"),
    *("margin_price", "open_loss", "trigger_price", "trailing_offset", "expire_ns", "accepted_ns"),
)


class Market(Desk):
    """A desk whose market orders are assumed 1 per cent away from the mark."""

    def __init__(self, **sizes: int) -> None:
        super().__init__(Engine(**(SIZES | sizes)))
        listed = self.engine.upsert_instrument(
            "BTC-PERP", 1, 1, 1, 1, -1, 1, -3, market_buffer_ppb=10_000_000
        )
        assert listed == (NONE, 1)
        self.ids = 0

    def send(self, now_ns: int = NOW_NS, **fields: int) -> orders_pb.CheckOrderResponse:
        """Return the decision on a limit order of 10 lots of gateway 1, but for what is given."""
        request = self.request(**fields)
        reply = self.engine.handle(METHOD_CHECK_ORDER, request.SerializeToString(), now_ns)
        return orders_pb.CheckOrderResponse.FromString(reply)

    def request(self, **fields: int) -> orders_pb.CheckOrderRequest:
        self.ids += 1
        request = orders_pb.CheckOrderRequest(
            account_id=1,
            instrument_id=1,
            gateway_id=1,
            client_order_id=self.ids,
            side=BUY,
            order_type=t.ORDER_TYPE_LIMIT,
            quantity_lots=10,
        )
        for name, value in fields.items():
            setattr(request, name, value)
        if request.order_type == t.ORDER_TYPE_LIMIT and request.price_ticks == 0:
            request.price_ticks = PRICE_TICKS
        return request

    def amend(self, reservation_id: int, **fields: int) -> orders_pb.CheckOrderResponse:
        self.ids += 1
        request = orders_pb.CheckAmendmentRequest(
            gateway_id=1, client_order_id=self.ids, reservation_id=reservation_id
        )
        for name, value in fields.items():
            setattr(request, name, value)
        reply = self.engine.handle(METHOD_CHECK_AMENDMENT, request.SerializeToString(), NOW_NS)
        return orders_pb.CheckAmendmentResponse.FromString(reply).order

    def batch(
        self, mode: orders_pb.BatchMode.ValueType, requests: Sequence[orders_pb.CheckOrderRequest]
    ) -> list[orders_pb.CheckOrderResponse]:
        batch = orders_pb.BatchCheckOrdersRequest(mode=mode, orders=requests)
        reply = self.engine.handle(METHOD_BATCH_CHECK_ORDERS, batch.SerializeToString(), NOW_NS)
        return list(orders_pb.BatchCheckOrdersResponse.FromString(reply).decisions)

    def execute(self, reservation_id: int, **fields: int) -> orders_pb.ReportExecutionResponse:
        """Report a fill of 10 lots at the mark, but for what is given."""
        self.ids += 1
        request = orders_pb.ReportExecutionRequest(
            gateway_id=1,
            execution_id=self.ids,
            reservation_id=reservation_id,
            kind=orders_pb.EXECUTION_KIND_FILL,
        )
        for name, value in fields.items():
            setattr(request, name, value)
        if request.kind == orders_pb.EXECUTION_KIND_FILL:
            request.price_ticks = request.price_ticks or PRICE_TICKS
            request.quantity_lots = request.quantity_lots or 10
        reply = self.engine.handle(METHOD_REPORT_EXECUTION, request.SerializeToString(), NOW_NS)
        return orders_pb.ReportExecutionResponse.FromString(reply)

    def hold(self, lots: int = 10, **fields: int) -> int:
        """Buy, and return the reservation of the order that was filled."""
        reservation_id = self.accepted(quantity_lots=lots, **fields)
        assert self.execute(reservation_id, quantity_lots=lots).decision == t.DECISION_ACCEPTED
        return reservation_id

    def accepted(self, **fields: int) -> int:
        reply = self.send(**fields)
        assert reply.decision == t.DECISION_ACCEPTED, reply
        return reply.reservation_id

    def advance(self, now_ns: int) -> bytes:
        return self.engine.handle(METHOD_ADVANCE_TIME, b"", now_ns)

    def line(self, reservation_id: int) -> dict[str, int]:
        """Return a working order's numbers, by their names in docs/state.md."""
        (line,) = (
            line
            for line in self.engine.state_lines()
            if line.startswith(f"order {reservation_id} ")
        )
        return dict(zip(ORDER_LINE, map(int, line.split()[1:]), strict=True))

    def works(self, reservation_id: int) -> bool:
        return reservation_id in self.engine.working_reservations(1, 0, 1000)

    def cash(self) -> int:
        row = self.engine.account(1)
        assert row is not None
        return row.cash

    def lots(self) -> list[tuple[int, int]]:
        """Return (position side, lots) of the account's positions."""
        return [(row.position_side, row.lots) for row in self.engine.positions(1) or []]


# --- Types, prices and quantities ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("order_type", "side", "price", "trigger", "offset", "margin_price", "open_loss"),
    [
        (t.ORDER_TYPE_LIMIT, BUY, 651_000, 0, 0, 651_000, 1_000_000),
        (t.ORDER_TYPE_LIMIT, SELL, 649_000, 0, 0, 650_000, 1_000_000),
        (t.ORDER_TYPE_MARKET, BUY, 0, 0, 0, 656_500, 6_500_000),
        (t.ORDER_TYPE_MARKET, SELL, 0, 0, 0, 650_000, 6_500_000),
        # Waits for 660,000 and is then assumed 1 per cent above; past its trigger it is a market
        # order now.
        (STOP, BUY, 0, 660_000, 0, 666_600, 6_600_000),
        (STOP, BUY, 0, 640_000, 0, 656_500, 6_500_000),
        (STOP, SELL, 0, 640_000, 0, 650_000, 6_400_000),
        (STOP, SELL, 0, 660_000, 0, 650_000, 6_500_000),
        (t.ORDER_TYPE_STOP_LIMIT, BUY, 661_000, 660_000, 0, 661_000, 1_000_000),
        (t.ORDER_TYPE_STOP_LIMIT, SELL, 639_000, 640_000, 0, 650_000, 1_000_000),
        (TAKE_PROFIT, BUY, 0, 640_000, 0, 646_400, 6_400_000),
        (TAKE_PROFIT, BUY, 0, 660_000, 0, 656_500, 6_500_000),
        (TAKE_PROFIT, SELL, 0, 660_000, 0, 660_000, 6_600_000),
        (t.ORDER_TYPE_TAKE_PROFIT_LIMIT, SELL, 660_000, 660_000, 0, 660_000, 0),
        (t.ORDER_TYPE_TAKE_PROFIT_LIMIT, BUY, 639_000, 640_000, 0, 639_000, 0),
        (t.ORDER_TYPE_TRAILING_STOP, BUY, 0, 0, 10_000, 666_600, 6_600_000),
        (t.ORDER_TYPE_TRAILING_STOP, SELL, 0, 0, 10_000, 650_000, 6_400_000),
    ],
)
def test_each_type_holds_what_its_fill_may_cost(
    order_type: int,
    side: int,
    price: int,
    trigger: int,
    offset: int,
    margin_price: int,
    open_loss: int,
) -> None:
    market = Market()
    reply = market.send(
        order_type=order_type,
        side=side,
        price_ticks=price,
        trigger_price_ticks=trigger,
        trailing_offset_ticks=offset,
    )
    order = market.line(reply.reservation_id)
    assert (order["margin_price"], order["open_loss"]) == (margin_price, open_loss)
    # 10 lots at 100 a tick, of which a tenth, and the loss in full.
    assert reply.reserved_minor == margin_price * 100 + open_loss


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"order_type": STOP}, BAD_TRIGGER),
        ({"trigger_price_ticks": 1}, BAD_TRIGGER),
        ({"order_type": STOP, "trigger_price_ticks": 2**53 + 1}, BAD_TRIGGER),
        ({"order_type": 7}, t.REASON_CODE_TRAILING_OFFSET_OUT_OF_RANGE),
        ({"order_type": 7, "trailing_offset_ticks": 2**53}, t.REASON_CODE_NOTIONAL_OVERFLOWS),
        ({"time_in_force": 4}, BAD_EXPIRY),
        ({"time_in_force": 4, "expire_time_ns": NOW_NS}, BAD_EXPIRY),
        ({"expire_time_ns": NOW_NS + 1}, BAD_EXPIRY),
        ({"flags": orders_pb.ORDER_FLAG_QUOTE_QUANTITY}, t.REASON_CODE_FLAG_NOT_SUPPORTED),
        ({"flags": 2, "time_in_force": 2}, t.REASON_CODE_FLAG_NOT_SUPPORTED),
        ({"flags": CLOSE_POSITION}, t.REASON_CODE_QUANTITY_OUT_OF_RANGE),
        ({"flags": CLOSE_POSITION, "quantity_lots": 0}, WOULD_INCREASE),
    ],
)
def test_a_malformed_conditional_order_is_refused(fields: dict[str, int], reason: int) -> None:
    assert Market().send(**fields).reason == reason


def test_stop_loss_and_take_profit_stand_beside_each_other_and_hold_nothing() -> None:
    market = Market()
    market.hold()
    available = market.send(mode=2).available_minor
    for order_type, trigger in ((STOP, 640_000), (TAKE_PROFIT, 660_000)):
        reply = market.send(
            order_type=order_type, side=SELL, trigger_price_ticks=trigger, flags=REDUCE_ONLY
        )
        assert (reply.decision, reply.reserved_minor) == (t.DECISION_ACCEPTED, 0)
    assert market.send(mode=2).available_minor == available
    (position,) = market.engine.positions(1) or []
    assert position.sell_lots == 0
    larger = market.send(
        order_type=STOP, side=SELL, trigger_price_ticks=640_000, flags=REDUCE_ONLY, quantity_lots=11
    )
    assert larger.reason == WOULD_INCREASE
    assert larger.max_quantity_lots == 10


def test_a_protective_order_that_closes_works_until_the_position_is_flat() -> None:
    market = Market()
    market.hold()
    reply = market.send(
        order_type=STOP,
        side=SELL,
        trigger_price_ticks=640_000,
        flags=CLOSE_POSITION,
        quantity_lots=0,
    )
    assert reply.quantity_lots == 10
    assert market.line(reply.reservation_id)["quantity"] == 0
    too_much = market.execute(reply.reservation_id, quantity_lots=11)
    assert too_much.reason == t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING
    market.execute(reply.reservation_id, quantity_lots=4)
    assert market.works(reply.reservation_id)
    market.execute(reply.reservation_id, quantity_lots=6)
    assert not market.works(reply.reservation_id)
    assert market.lots() == []


def test_a_closing_limit_order_takes_what_other_orders_leave() -> None:
    market = Market()
    market.hold()
    market.accepted(side=SELL, quantity_lots=3)
    reply = market.send(side=SELL, flags=CLOSE_POSITION, quantity_lots=0)
    assert (reply.quantity_lots, market.line(reply.reservation_id)["quantity"]) == (7, 7)


def test_a_quote_quantity_is_as_many_lots_as_the_amount_can_come_to() -> None:
    market = Market()
    quote = {"order_type": t.ORDER_TYPE_MARKET, "flags": orders_pb.ORDER_FLAG_QUOTE_QUANTITY}
    # 1 per cent below the mark a lot costs 643,500 * 100.
    reply = market.send(**quote, quantity_lots=1_000_000_000)
    assert (reply.decision, reply.quantity_lots) == (t.DECISION_ACCEPTED, 15)
    assert market.line(reply.reservation_id)["remaining"] == 15
    too_little = market.send(**quote, quantity_lots=64_349_999)
    assert too_little.reason == t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE


def test_an_amendment_moves_the_trigger_of_a_stop_and_its_hold() -> None:
    market = Market()
    order = {"order_type": STOP, "trigger_price_ticks": 660_000}
    reservation_id = market.accepted(**order)
    kept = market.amend(reservation_id, trigger_price_ticks=660_000, quantity_lots=5)
    assert kept.reserved_minor == -(66_660_000 + 6_600_000) // 2
    moved = market.amend(reservation_id, trigger_price_ticks=670_000, quantity_lots=10)
    assert moved.decision == t.DECISION_ACCEPTED
    line = market.line(reservation_id)
    assert (line["trigger_price"], line["margin_price"], line["open_loss"]) == (
        670_000,
        676_700,
        6_700_000,
    )
    without = market.amend(reservation_id, quantity_lots=10)
    assert without.reason == BAD_TRIGGER
    trailing = market.amend(
        reservation_id, trigger_price_ticks=1, trailing_offset_ticks=1, quantity_lots=10
    )
    assert trailing.reason == t.REASON_CODE_TRAILING_OFFSET_OUT_OF_RANGE


# --- Time ----------------------------------------------------------------------------------------


def test_orders_expire_at_their_time_and_late_fills_still_count() -> None:
    market = Market()
    late, soon, never = (
        market.accepted(**fields)
        for fields in (
            {"time_in_force": 4, "expire_time_ns": NOW_NS + 2 * SECOND},
            {"time_in_force": 4, "expire_time_ns": NOW_NS + SECOND},
            {},
        )
    )
    revision = market.engine.revision
    nothing = b"\x10" + bytes([revision])
    assert market.advance(NOW_NS + SECOND - 1) == nothing
    assert market.advance(NOW_NS + SECOND) == b"\x08\x01\x10" + bytes([revision + 1])
    assert [market.works(each) for each in (late, soon, never)] == [True, False, True]
    assert market.advance(NOW_NS + 100 * SECOND) == b"\x08\x01\x10" + bytes([revision + 2])
    assert market.works(never)
    fill = market.execute(soon, quantity_lots=4)
    assert (fill.reason, fill.position_lots) == (t.REASON_CODE_RESERVATION_CLOSED, 4)


def test_a_step_of_time_expires_1024_orders_and_says_that_there_may_be_more() -> None:
    market = Market(orders_max=1030)
    for number in range(1025):
        expire_ns = NOW_NS + SECOND + number % 7
        market.accepted(quantity_lots=1, time_in_force=4, expire_time_ns=expire_ns)
    first = market.advance(NOW_NS + 60 * SECOND)
    assert first.startswith(b"\x08\x80\x08\x10")
    assert first.endswith(b"\x18\x01")
    # The one of the latest time, and of those the last.
    (left,) = market.engine.working_reservations(1, 0, 10)
    assert market.line(left)["expire_ns"] == NOW_NS + SECOND + 6
    assert market.advance(NOW_NS + 60 * SECOND).startswith(b"\x08\x01\x10")
    assert market.engine.working_reservations(1, 0, 10) == []


def test_an_ended_lease_stops_opening_orders_and_releases_what_works() -> None:
    market = Market()
    market.hold()
    opening = market.accepted()
    other = market.accepted(gateway_id=2)
    assert market.engine.renew_lease(1, SECOND, 2, NOW_NS) == NONE
    market.advance(NOW_NS + SECOND - 1)
    assert market.works(opening)
    end_ns = NOW_NS + SECOND
    assert market.send(end_ns).reason == t.REASON_CODE_GATEWAY_LEASE_ENDED
    assert market.send(end_ns, side=SELL).reason == NONE  # It reduces.
    assert market.send(end_ns, gateway_id=2).reason == NONE
    assert market.advance(end_ns).startswith(b"\x08\x02\x10")
    assert not market.works(opening)
    assert market.works(other)
    assert market.engine.gateways() == [GatewayRow(1, 1, end_ns, 2, 1)]
    # Once is enough, and a new lease begins anew.
    reducing = market.send(end_ns, side=SELL).reservation_id
    market.advance(end_ns + 1)
    assert market.works(reducing)
    assert market.engine.renew_lease(1, 0, 0, end_ns) == NONE
    assert market.send(end_ns).reason == NONE
    assert market.engine.gateways() == []


@pytest.mark.parametrize(
    ("gateway_id", "duration_ns", "action", "reason"),
    [
        (0, SECOND, 1, t.REASON_CODE_GATEWAY_ID_MISSING),
        (1, 86_400 * SECOND + 1, 1, t.REASON_CODE_DEFINITION_INVALID),
        (1, SECOND, 0, t.REASON_CODE_DEFINITION_INVALID),
        (1, SECOND, 3, t.REASON_CODE_DEFINITION_INVALID),
        (9, SECOND, 1, t.REASON_CODE_GATEWAYS_FULL),
        (9, 0, 1, NONE),
    ],
)
def test_a_lease_is_checked(gateway_id: int, duration_ns: int, action: int, reason: int) -> None:
    market = Market(gateways_max=1)
    market.accepted()
    assert market.engine.renew_lease(gateway_id, duration_ns, action, NOW_NS) == reason


# --- Late fills, busts, corrections --------------------------------------------------------------


def test_a_fill_after_the_cancel_counts_up_to_what_was_unfilled() -> None:
    market = Market()
    reservation_id = market.accepted()
    market.execute(reservation_id, quantity_lots=4)
    market.execute(reservation_id, kind=orders_pb.EXECUTION_KIND_CANCEL)
    again = market.execute(reservation_id, kind=orders_pb.EXECUTION_KIND_CANCEL)
    assert again.decision == t.DECISION_ACCEPTED_WITH_WARNING
    assert again.reason == t.REASON_CODE_RESERVATION_CLOSED
    refused = market.execute(reservation_id, quantity_lots=7)
    assert refused.reason == t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING
    late = market.execute(reservation_id, quantity_lots=6)
    assert late.reason == t.REASON_CODE_RESERVATION_CLOSED
    assert (late.position_lots, late.remaining_lots) == (10, 0)
    nothing_left = market.execute(reservation_id, quantity_lots=1)
    assert nothing_left.reason == t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING


def test_the_last_orders_that_stopped_working_are_remembered() -> None:
    market = Market(orders_max=2)
    reservations = []
    for _ in range(3):
        reservations.append(market.accepted())
        market.execute(reservations[-1], kind=orders_pb.EXECUTION_KIND_CANCEL)
    oldest = market.execute(reservations[0], quantity_lots=1)
    assert oldest.reason == t.REASON_CODE_RESERVATION_UNKNOWN
    assert market.execute(reservations[1]).reason == t.REASON_CODE_RESERVATION_CLOSED
    query = orders_pb.GetReservationRequest(reservation_id=reservations[2]).SerializeToString()
    reply = market.engine.handle(METHOD_GET_RESERVATION, query, NOW_NS)
    answer = orders_pb.GetReservationResponse.FromString(reply)
    assert answer.state == orders_pb.RESERVATION_STATE_CLOSED
    assert (answer.account_id, answer.quantity_lots, answer.remaining_lots) == (1, 10, 0)


def test_a_bust_undoes_a_fill_and_what_is_left_of_the_order_stays() -> None:
    market = Market()
    reservation_id = market.accepted()
    fill = market.execute(reservation_id, quantity_lots=4, fee_minor=500)
    assert (market.cash(), fill.position_lots) == (CASH - 500, 4)
    original = market.ids
    bust = market.execute(
        reservation_id,
        kind=orders_pb.EXECUTION_KIND_BUST,
        original_execution_id=original,
        fee_minor=-500,
    )
    assert (bust.decision, bust.position_lots, bust.remaining_lots) == (t.DECISION_ACCEPTED, 0, 6)
    assert market.cash() == CASH
    assert market.lots() == [(1, 0)]
    again = market.execute(
        reservation_id, kind=orders_pb.EXECUTION_KIND_BUST, original_execution_id=original
    )
    assert again.reason == t.REASON_CODE_EXECUTION_ALREADY_UNDONE


def test_a_correction_is_a_bust_and_a_fill_and_can_be_undone_itself() -> None:
    market = Market()
    reservation_id = market.hold()
    original = market.ids
    corrected = market.execute(
        reservation_id,
        kind=orders_pb.EXECUTION_KIND_CORRECTION,
        original_execution_id=original,
        price_ticks=649_000,
        quantity_lots=8,
    )
    assert corrected.decision == t.DECISION_ACCEPTED
    (position,) = market.engine.positions(1) or []
    assert (position.lots, position.entry_value) == (8, 649_000 * 8 * 100)
    # The undone fill has realised 0 against its own price.
    assert corrected.realised_pnl_minor == 0
    correction = market.ids
    worse = market.execute(
        reservation_id,
        kind=orders_pb.EXECUTION_KIND_CORRECTION,
        original_execution_id=correction,
        price_ticks=651_000,
        quantity_lots=10,
    )
    assert worse.reason == t.REASON_CODE_EXECUTION_BEYOND_LIMIT
    assert worse.position_lots == 10


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": 5}, NO_ORIGINAL),
        ({"kind": 5, "original_execution_id": 99}, NO_ORIGINAL),
        ({"kind": 1, "original_execution_id": 2}, NO_ORIGINAL),
        (
            {"kind": 5, "original_execution_id": 2, "price_ticks": 1},
            t.REASON_CODE_EXECUTION_QUANTITY_MISMATCH,
        ),
        (
            {"kind": 6, "original_execution_id": 2, "price_ticks": 1},
            t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE,
        ),
        (
            {"kind": 6, "original_execution_id": 2, "price_ticks": 1, "quantity_lots": 11},
            t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING,
        ),
        ({"kind": 5, "original_execution_id": 2, "fee_asset_id": 9}, t.REASON_CODE_ASSET_UNKNOWN),
        ({"kind": 7}, t.REASON_CODE_EXECUTION_KIND_NOT_SUPPORTED),
    ],
)
def test_a_bust_or_correction_that_fits_no_fill_is_refused(
    fields: dict[str, int], reason: int
) -> None:
    market = Market()
    reservation_id = market.hold()  # Order 1, execution 2.
    state = market.engine.state_hash()
    assert market.execute(reservation_id, **fields).reason == reason
    assert market.engine.state_hash() == state


def test_a_fee_in_another_asset_leaves_the_balance_of_that() -> None:
    market = Market(balances_max=1)
    assert market.engine.create_asset("FEE", 2) == (NONE, 2)
    assert market.engine.create_asset("FEX", 2) == (NONE, 3)
    reservation_id = market.accepted()
    market.execute(reservation_id, quantity_lots=1, fee_minor=7, fee_asset_id=2)
    assert market.engine.balances(1) == [BalanceRow(2, -7)]
    assert market.cash() == CASH
    full = market.execute(reservation_id, quantity_lots=1, fee_minor=7, fee_asset_id=3)
    assert full.reason == t.REASON_CODE_BALANCES_FULL
    own = market.execute(reservation_id, quantity_lots=1, fee_minor=7, fee_asset_id=1)
    assert (own.decision, market.cash()) == (t.DECISION_ACCEPTED, CASH - 7)
    reason, balance, _ = market.engine.adjust_collateral(1, 2, 7, False, NOW_NS)
    assert (reason, balance, market.engine.balances(1)) == (NONE, 0, [])
    reason, balance, _ = market.engine.adjust_collateral(1, 2, -1, False, NOW_NS)
    assert (reason, balance) == (t.REASON_CODE_EXCEEDS_AVAILABLE, 0)


# --- Hedge mode ----------------------------------------------------------------------------------


def test_in_hedge_mode_long_and_short_are_two_positions() -> None:
    market = Market()
    assert market.engine.set_position_mode(1, t.POSITION_MODE_HEDGE) == NONE
    assert market.send().reason == t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED
    market.hold(position_side=LONG)
    market.hold(4, position_side=SHORT, side=SELL)
    assert market.lots() == [(LONG, 10), (SHORT, -4)]
    turning = market.send(position_side=LONG, side=SELL, quantity_lots=11)
    assert turning.reason == t.REASON_CODE_POSITION_SIDE_WOULD_TURN
    assert turning.max_quantity_lots == 10
    # Both need their margin: 14 lots at 650,000 * 100, a tenth of it.
    summary = market.engine.summary(1)
    assert summary is not None
    assert summary.initial_margin == 91_000_000
    # One setting holds for both.
    assert market.engine.set_leverage(1, 1, 500, False, NOW_NS)[:2] == (NONE, 500)
    summary = market.engine.summary(1)
    assert summary is not None
    assert summary.initial_margin == 182_000_000
    one_way = market.engine.set_position_mode(1, t.POSITION_MODE_ONE_WAY)
    assert one_way == t.REASON_CODE_POSITION_NOT_FLAT


def test_a_side_that_a_late_fill_leaves_in_the_other_mode_can_be_closed() -> None:
    market = Market()
    assert market.engine.set_position_mode(1, t.POSITION_MODE_HEDGE) == NONE
    reservation_id = market.accepted(position_side=LONG)
    market.execute(reservation_id, kind=orders_pb.EXECUTION_KIND_CANCEL)
    assert market.engine.set_position_mode(1, t.POSITION_MODE_ONE_WAY) == NONE
    market.execute(reservation_id)
    assert market.lots() == [(LONG, 10)]
    closing = market.accepted(position_side=LONG, side=SELL)
    market.execute(closing)
    assert market.lots() == []
    assert market.send(position_side=LONG).reason == t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED


# --- Batches -------------------------------------------------------------------------------------


def test_an_all_or_none_batch_is_taken_back_as_a_whole() -> None:
    market = Market()
    good, other, bad = market.request(), market.request(), market.request(quantity_lots=10**9)
    state, revision = market.engine.state_hash(), market.engine.revision
    first, second, third = market.batch(orders_pb.BATCH_MODE_ALL_OR_NONE, [good, bad, other])
    assert first.reason == third.reason == t.REASON_CODE_BATCH_ORDER_REJECTED
    assert second.reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert second.max_quantity_lots > 0
    assert {each.revision for each in (first, second, third)} == {revision + 1}
    assert market.engine.state_hash() == state
    # The answers are remembered: of the batch, and of each order.
    again = market.batch(orders_pb.BATCH_MODE_ALL_OR_NONE, [good, bad, other])
    assert again == [first, second, third]
    assert market.engine.revision == revision + 1
    alone = market.engine.handle(METHOD_CHECK_ORDER, good.SerializeToString(), NOW_NS)
    assert orders_pb.CheckOrderResponse.FromString(alone) == first


def test_an_all_or_none_batch_reserves_every_order_with_those_before_it() -> None:
    market = Market()
    buy, sell = market.request(), market.request(side=SELL)
    first, second = market.batch(orders_pb.BATCH_MODE_ALL_OR_NONE, [buy, sell])
    assert first.reserved_minor == 65_000_000
    # The margin of buys and sells is never summed.
    assert (second.reserved_minor, second.initial_margin_minor) == (0, 65_000_000)
    assert second.revision == first.revision + 1
    assert market.works(first.reservation_id)
    assert market.works(second.reservation_id)


def test_a_batch_that_is_partly_answered_changes_nothing() -> None:
    market = Market()
    known, new, twice = market.request(), market.request(), market.request()
    reply = market.engine.handle(METHOD_CHECK_ORDER, known.SerializeToString(), NOW_NS)
    revision = market.engine.revision
    answers = market.batch(orders_pb.BATCH_MODE_ALL_OR_NONE, [new, known, twice, twice])
    assert [each.reason for each in answers] == [
        t.REASON_CODE_BATCH_PARTLY_ANSWERED,
        NONE,
        t.REASON_CODE_BATCH_PARTLY_ANSWERED,
        t.REASON_CODE_CLIENT_ORDER_ID_REUSED,
    ]
    assert answers[1].reservation_id == reservation_in(reply)
    assert market.engine.revision == revision


def test_a_checked_batch_leaves_no_trace() -> None:
    market = Market()
    requests = [market.request(mode=2), market.request(mode=2, side=SELL)]
    state, answers = market.engine.state_hash(), market.engine.answers_hash()
    revision = market.engine.revision
    replies = market.batch(orders_pb.BATCH_MODE_ALL_OR_NONE, requests)
    assert [each.decision for each in replies] == [t.DECISION_ACCEPTED] * 2
    assert [each.reservation_id for each in replies] == [0, 0]
    assert (market.engine.state_hash(), market.engine.answers_hash()) == (state, answers)
    assert market.engine.revision == revision


def test_an_independent_batch_decides_each_order_by_itself() -> None:
    market = Market()
    replies = market.batch(
        orders_pb.BATCH_MODE_INDEPENDENT, [market.request(), market.request(side=0)]
    )
    assert [each.reason for each in replies] == [NONE, t.REASON_CODE_SIDE_INVALID]
    assert market.works(replies[0].reservation_id)


# --- Cancelling many -----------------------------------------------------------------------------


def test_a_mass_cancel_takes_what_fits_all_that_is_given() -> None:
    market = Market()
    buy, sell, kept = market.accepted(), market.accepted(side=SELL), market.accepted()
    foreign = market.accepted(gateway_id=2)
    later = market.send(NOW_NS + 1).reservation_id
    asked = (1, 1, 1, BUY, NOW_NS + 1, [kept])
    state = market.engine.state_hash()
    assert market.engine.cancel_orders(*asked, True, NOW_NS) == (NONE, 1, [buy])
    assert market.engine.state_hash() == state
    revision = market.engine.revision
    assert market.engine.cancel_orders(*asked, False, NOW_NS) == (NONE, 1, [buy])
    assert market.engine.revision == revision + 1
    left = [sell, kept, foreign, later]
    assert market.engine.working_reservations(1, 0, 10) == sorted(left)
    everything = market.engine.cancel_orders(0, 1, 0, 0, 0, [], False, NOW_NS)
    assert everything == (NONE, 4, sorted(left))
    assert market.lots() == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((0, 0, 0, 0, 0, []), t.REASON_CODE_DEFINITION_INVALID),
        ((1, 0, 0, 3, 0, []), t.REASON_CODE_DEFINITION_INVALID),
        ((1, 0, 0, 0, 0, [1] * 10_001), t.REASON_CODE_DEFINITION_INVALID),
        ((0, 9, 0, 0, 0, []), t.REASON_CODE_ACCOUNT_UNKNOWN),
        ((0, 0, 9, 0, 0, []), t.REASON_CODE_INSTRUMENT_UNKNOWN),
        ((9, 0, 0, 0, 0, []), NONE),
    ],
)
def test_a_mass_cancel_names_something_that_exists(
    arguments: tuple[int, int, int, int, int, list[int]], reason: int
) -> None:
    market = Market()
    market.accepted()
    assert market.engine.cancel_orders(*arguments, False, NOW_NS) == (reason, 0, [])
