"""Limits of accounts, parents and firms in the compiled engine: expectations by hand.

A lot at a tick is 100 minor units, a mark unit is half a tick. The perpetual's mark is 100 ticks,
so a lot is worth 10,000; the call on it is marked at 10 ticks. Accounts 1 and 2 are of firm 7, 2 a
sub-account of 1; account 3 is of the firm alone.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from riskd.core.black import black76_greeks
from riskd.core.engine import (
    METHOD_BATCH_CHECK_ORDERS,
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    Engine,
)
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

SECOND = 10**9
DAY = 86_400 * SECOND
NOW_NS = 20_000 * DAY + 3600 * SECOND
NONE = t.REASON_CODE_NONE
HARD, SOFT = t.LIMIT_ACTION_HARD, t.LIMIT_ACTION_SOFT
BUY, SELL = t.SIDE_BUY, t.SIDE_SELL
PARENT, CHILD, OTHER, ALONE = 1, 2, 3, 4
FIRM = 7
PERP, CALL = 1, 2
LOT = 10_000
CASH = 10_000_000
EXPIRY_NS = NOW_NS + 73 * DAY


class Desk:
    """An engine and short names for what is asked of it. Time is now_ns, and moved by the tests."""

    def __init__(self, **sizes: int) -> None:
        self.engine = engine = Engine(accounts_max=8, positions_max=20, orders_max=50, **sizes)
        self.now_ns = NOW_NS
        self.ids = 0
        assert engine.create_asset("USDT", 2) == (NONE, 1)
        tiers = [(0, 0, 5_000_000, 1000)]
        assert engine.upsert_schedule("single", 1, tiers) == (NONE, 1)
        assert engine.upsert_instrument("PERP", 1, 1, 1, 1, 0, 1, 0, 2) == (NONE, PERP)
        option: dict[str, Any] = {"expiry_ns": EXPIRY_NS, "strike_units": 210, "option_type": 1}
        option["underlying_id"] = 1
        assert engine.upsert_instrument("CALL", 2, 1, 0, 1, 0, 1, 0, 2, **option) == (NONE, CALL)
        for account_id in (PARENT, CHILD, OTHER, ALONE):
            assert engine.create_account(account_id, 1, 1, 1000, CASH) == NONE
        assert engine.create_firm(FIRM, 1) == NONE
        for account_id, parent_id in ((PARENT, 0), (CHILD, PARENT), (OTHER, 0)):
            assert engine.set_account_owner(account_id, FIRM, parent_id, NOW_NS) == NONE
        self.mark(200)
        self.mark(20, CALL)

    def mark(self, price: int, instrument_id: int = PERP, **rest: int) -> None:
        fields: dict[str, Any] = {"mark_price": price, "time_ns": self.now_ns} | rest
        mark = market_pb.Mark(instrument_id=instrument_id, **fields)
        request = market_pb.ReportMarksRequest(marks=[mark])
        self.engine.handle(METHOD_REPORT_MARKS, request.SerializeToString(), self.now_ns)

    def limit(
        self,
        kind: int,
        value: int,
        level: tuple[int, int] = (SCOPE_ACCOUNT, ALONE),
        instrument_id: int = 0,
        burst: int = 0,
        action: int = HARD,
    ) -> None:
        set_limit = self.engine.set_limit
        reason = set_limit(*level, instrument_id, kind, value, burst, action, self.now_ns)
        assert reason == NONE

    def use(
        self, kind: int, level: tuple[int, int] = (SCOPE_ACCOUNT, ALONE), instrument_id: int = 0
    ) -> int | None:
        return self.engine.limit_use(*level, instrument_id, kind, self.now_ns)

    def request(self, lots: int, **fields: int) -> orders_pb.CheckOrderRequest:
        """Return a limit order of account 4 at the mark, but for what is given."""
        self.ids += 1
        request = orders_pb.CheckOrderRequest(
            account_id=ALONE,
            instrument_id=PERP,
            gateway_id=1,
            client_order_id=self.ids,
            side=BUY,
            order_type=t.ORDER_TYPE_LIMIT,
            price_ticks=10 if fields.get("instrument_id") == CALL else 100,
            quantity_lots=lots,
            view=orders_pb.DECISION_VIEW_FULL,
        )
        for name, value in fields.items():
            setattr(request, name, value)
        return request

    def order(self, lots: int, **fields: int) -> orders_pb.CheckOrderResponse:
        request = self.request(lots, **fields)
        reply = self.engine.handle(METHOD_CHECK_ORDER, request.SerializeToString(), self.now_ns)
        return orders_pb.CheckOrderResponse.FromString(reply)

    def batch(
        self, orders: Sequence[orders_pb.CheckOrderRequest]
    ) -> orders_pb.BatchCheckOrdersResponse:
        mode = orders_pb.BATCH_MODE_ALL_OR_NONE
        request = orders_pb.BatchCheckOrdersRequest(orders=orders, mode=mode)
        method = METHOD_BATCH_CHECK_ORDERS
        reply = self.engine.handle(method, request.SerializeToString(), self.now_ns)
        return orders_pb.BatchCheckOrdersResponse.FromString(reply)

    def amend(self, reservation_id: int, lots: int) -> orders_pb.CheckOrderResponse:
        self.ids += 1
        request = orders_pb.CheckAmendmentRequest(
            gateway_id=1,
            client_order_id=self.ids,
            reservation_id=reservation_id,
            price_ticks=100,
            quantity_lots=lots,
        )
        reply = self.engine.handle(METHOD_CHECK_AMENDMENT, request.SerializeToString(), self.now_ns)
        return orders_pb.CheckAmendmentResponse.FromString(reply).order

    def execute(self, reservation_id: int, kind: Any = 1, **fields: int) -> int:
        """Report an execution; return its id."""
        self.ids += 1
        request = orders_pb.ReportExecutionRequest(
            gateway_id=1, execution_id=self.ids, reservation_id=reservation_id, kind=kind
        )
        for name, value in fields.items():
            setattr(request, name, value)
        method = METHOD_REPORT_EXECUTION
        reply = self.engine.handle(method, request.SerializeToString(), self.now_ns)
        decision = orders_pb.ReportExecutionResponse.FromString(reply).decision
        assert decision != t.DECISION_REJECTED
        return self.ids

    def trade(self, lots: int, price_ticks: int = 100, fee_minor: int = 0, **fields: int) -> int:
        """Order and fill; return the reservation."""
        reply = self.order(lots, price_ticks=price_ticks, **fields)
        assert reply.decision != t.DECISION_REJECTED, reply
        fill = {"price_ticks": price_ticks, "quantity_lots": lots, "fee_minor": fee_minor}
        self.execute(reply.reservation_id, **fill)
        return reply.reservation_id


Numbers = tuple[int, int, int, int, int, int, bool]


def violations(reply: orders_pb.CheckOrderResponse) -> list[Numbers]:
    return [
        (v.reason, v.limit, v.use, v.order_use, v.scope, v.scope_id, v.soft)
        for v in reply.detail.violations
    ]


# --- Levels ---------------------------------------------------------------------------------------


def test_what_a_level_uses_is_that_of_all_accounts_under_it() -> None:
    desk = Desk()
    kind = t.LIMIT_KIND_OPEN_NOTIONAL_MAX
    levels = ((SCOPE_ACCOUNT, CHILD), (SCOPE_ACCOUNT, PARENT), (SCOPE_FIRM, FIRM))
    for level in reversed(levels):
        desk.limit(kind, 100 * LOT, level)
    first = desk.order(10, account_id=CHILD).reservation_id
    second = desk.order(20, account_id=PARENT, side=SELL).reservation_id
    desk.order(30, account_id=OTHER)
    assert [desk.use(kind, level) for level in levels] == [10 * LOT, 30 * LOT, 60 * LOT]
    reply = desk.order(41, account_id=CHILD)
    reason = t.REASON_CODE_LIMIT_OPEN_NOTIONAL_MAX
    assert violations(reply) == [(reason, 100 * LOT, 60 * LOT, 41 * LOT, SCOPE_FIRM, FIRM, False)]
    assert (reply.reason, reply.max_quantity_lots) == (reason, 40)
    assert desk.amend(first, 15).decision == t.DECISION_ACCEPTED
    desk.execute(first, price_ticks=100, quantity_lots=5)
    desk.execute(second, orders_pb.EXECUTION_KIND_CANCEL)
    assert [desk.use(kind, level) for level in levels] == [10 * LOT, 10 * LOT, 40 * LOT]


def test_the_levels_are_checked_from_the_account_up_in_the_order_of_kinds() -> None:
    desk = Desk()
    desk.limit(t.LIMIT_KIND_ORDER_QUANTITY_MAX, 6, (SCOPE_FIRM, FIRM))
    desk.limit(t.LIMIT_KIND_ORDER_QUANTITY_MAX, 5, (SCOPE_ACCOUNT, PARENT), action=SOFT)
    desk.limit(t.LIMIT_KIND_ORDER_QUANTITY_MAX, 4, (SCOPE_ACCOUNT, CHILD))
    desk.limit(t.LIMIT_KIND_ORDER_QUANTITY_MAX, 3, (SCOPE_ACCOUNT, CHILD), PERP)
    desk.limit(t.LIMIT_KIND_ORDER_QUANTITY_MIN, 8, (SCOPE_FIRM, FIRM), action=SOFT)
    low = t.REASON_CODE_LIMIT_ORDER_QUANTITY_MIN
    high = t.REASON_CODE_LIMIT_ORDER_QUANTITY_MAX
    assert violations(desk.order(7, account_id=CHILD)) == [
        (low, 8, 0, 7, SCOPE_FIRM, FIRM, True),
        (high, 3, 0, 7, SCOPE_ACCOUNT, CHILD, False),
        (high, 4, 0, 7, SCOPE_ACCOUNT, CHILD, False),
        (high, 5, 0, 7, SCOPE_ACCOUNT, PARENT, True),
        (high, 6, 0, 7, SCOPE_FIRM, FIRM, False),
    ]


def test_an_order_that_only_breaks_soft_limits_is_accepted_with_the_first() -> None:
    desk = Desk()
    desk.limit(t.LIMIT_KIND_ORDER_QUANTITY_MAX, 4, action=SOFT)
    desk.limit(t.LIMIT_KIND_OPEN_ORDERS_MAX, 0, action=SOFT)
    reply = desk.order(5)
    assert reply.decision == t.DECISION_ACCEPTED_WITH_WARNING
    assert reply.reason == t.REASON_CODE_LIMIT_ORDER_QUANTITY_MAX
    assert reply.reservation_id != 0
    assert violations(reply) == [
        (t.REASON_CODE_LIMIT_ORDER_QUANTITY_MAX, 4, 0, 5, SCOPE_ACCOUNT, ALONE, True),
        (t.REASON_CODE_LIMIT_OPEN_ORDERS_MAX, 0, 0, 1, SCOPE_ACCOUNT, ALONE, True),
    ]
    assert len(desk.engine.working_reservations(SCOPE_ACCOUNT, ALONE, 9)) == 1
    # A warning lets it be amended as well.
    amended = desk.amend(reply.reservation_id, 6)
    assert amended.decision == t.DECISION_ACCEPTED_WITH_WARNING
    assert desk.order(7).max_quantity_lots == 0


@pytest.mark.parametrize(
    ("scope", "scope_id", "state", "reason"),
    [
        (SCOPE_FIRM, FIRM, t.TRADING_STATE_HALTED, t.REASON_CODE_FIRM_HALTED),
        (SCOPE_FIRM, FIRM, t.TRADING_STATE_REDUCE_ONLY, t.REASON_CODE_FIRM_REDUCE_ONLY),
        (SCOPE_ACCOUNT, PARENT, t.TRADING_STATE_HALTED, t.REASON_CODE_ACCOUNT_HALTED),
        (SCOPE_ACCOUNT, PARENT, t.TRADING_STATE_REDUCE_ONLY, t.REASON_CODE_ACCOUNT_REDUCE_ONLY),
    ],
)
def test_a_sub_account_stands_still_with_its_parent_and_its_firm(
    scope: int, scope_id: int, state: int, reason: int
) -> None:
    desk = Desk()
    desk.trade(5, account_id=CHILD)
    assert desk.engine.set_trading_state(scope, scope_id, state) == NONE
    assert desk.order(1, account_id=CHILD).reason == reason
    closing = desk.order(5, account_id=CHILD, side=SELL)
    halted = state == t.TRADING_STATE_HALTED
    assert closing.reason == (reason if halted else NONE)
    assert desk.order(1, account_id=ALONE).reason == NONE
    assert (scope, scope_id, state) in desk.engine.trading_states()


# --- Positions and exposure -----------------------------------------------------------------------


def test_a_position_limit_counts_the_worst_side_and_lets_a_position_turn() -> None:
    desk = Desk()
    kind, reason = t.LIMIT_KIND_POSITION_LOTS_MAX, t.REASON_CODE_LIMIT_POSITION_LOTS_MAX
    desk.limit(kind, 10, instrument_id=PERP)
    desk.trade(10)
    assert violations(desk.order(1))[0][:4] == (reason, 10, 10, 1)
    # 10 long: 20 lots sold leave 10 short.
    assert desk.order(21, side=SELL).max_quantity_lots == 20
    assert desk.order(20, side=SELL).reason == NONE
    # All sells may fill: 10 short already, though 10 are held.
    assert violations(desk.order(1, side=SELL))[0][:4] == (reason, 10, 10, 1)
    assert desk.use(kind, instrument_id=PERP) == 10


def test_gross_exposure_counts_both_legs_and_all_orders() -> None:
    desk = Desk()
    kind = t.LIMIT_KIND_GROSS_EXPOSURE_MAX
    desk.limit(kind, 10**6, (SCOPE_FIRM, FIRM))
    desk.trade(10, account_id=PARENT)
    desk.trade(10, account_id=OTHER, side=SELL)
    desk.trade(3, account_id=CHILD, instrument_id=CALL)
    desk.order(2, account_id=CHILD, side=SELL, price_ticks=105)
    desk.mark(201)
    # 20 lots at 100.5 ticks; 3 options at 10 ticks; a sell counts at its limit price.
    assert desk.use(kind, (SCOPE_FIRM, FIRM)) == 20 * 10_050 + 3 * 1000 + 2 * 10_500


def test_a_share_is_rounded_up_and_one_that_falls_breaks_nothing() -> None:
    desk = Desk()
    kind, reason = t.LIMIT_KIND_CONCENTRATION_MAX, t.REASON_CODE_LIMIT_CONCENTRATION_MAX
    desk.trade(3)
    desk.trade(60, instrument_id=CALL)
    desk.limit(kind, 400_000_000)
    # 30,000 of 90,000; with a lot 40,000 of 100,000; with another 50,000 of 110,000.
    assert desk.use(kind) == 666_666_667
    assert desk.order(1).reason == NONE
    assert violations(desk.order(1))[0][:4] == (reason, 400_000_000, 400_000_000, 54_545_455)
    # The call's own share is 60 of 100.
    reply = desk.order(1, instrument_id=CALL)
    assert violations(reply)[0][:3] == (reason, 400_000_000, 600_000_000)


def test_delta_is_the_mark_value_of_what_may_be_held_on_the_worse_side() -> None:
    desk = Desk()
    kind, reason = t.LIMIT_KIND_DELTA_MAX, t.REASON_CODE_LIMIT_DELTA_MAX
    desk.limit(kind, 12 * LOT)
    desk.trade(5)
    desk.order(4)
    desk.order(9, side=SELL, price_ticks=101)
    # 9 long, or 4 short.
    assert desk.use(kind) == 9 * LOT
    assert violations(desk.order(4))[0][:4] == (reason, 12 * LOT, 9 * LOT, 4 * LOT)
    assert desk.order(8, side=SELL).reason == NONE


def test_greeks_of_options_are_those_of_the_model_rounded_up() -> None:
    desk = Desk()
    desk.mark(20, CALL, implied_volatility_ppb=500_000_000)
    for kind in (t.LIMIT_KIND_DELTA_MAX, t.LIMIT_KIND_GAMMA_MAX, t.LIMIT_KIND_VEGA_MAX):
        desk.limit(kind, 10**9)
    desk.trade(7, instrument_id=CALL)
    # Forward 100, strike 105, a fifth of a year: d1 = -0.1064, N(d1) = 0.45763, phi(d1) = 0.39669.
    # Of one lot, in minor units: delta 4576.3 for the whole price, gamma 177.4 for one per cent,
    # vega 17.74 for a point.
    _, delta, gamma, vega, _, _ = black76_greeks(True, 100.0, 105.0, 0.5, 0.2, 0.0)
    assert (delta, gamma, vega) == pytest.approx((0.45763, 0.017740, 0.17740), rel=1e-4)
    assert desk.use(t.LIMIT_KIND_DELTA_MAX) == 32_035
    assert desk.use(t.LIMIT_KIND_GAMMA_MAX) == 1242
    assert desk.use(t.LIMIT_KIND_VEGA_MAX) == 125


def test_a_limit_that_needs_a_mark_that_is_missing_stops_the_order() -> None:
    desk = Desk()
    desk.trade(7, instrument_id=CALL)
    desk.limit(t.LIMIT_KIND_VEGA_MAX, 10**9, action=SOFT)
    # The call has no volatility.
    assert desk.use(t.LIMIT_KIND_VEGA_MAX) is None
    reply = desk.order(1)
    missing = (t.REASON_CODE_MARK_MISSING, 0, 0, 0, SCOPE_ACCOUNT, ALONE, False)
    assert violations(reply) == [missing]
    assert reply.reason == t.REASON_CODE_MARK_MISSING


# --- Rates ----------------------------------------------------------------------------------------


def test_a_rate_lets_a_burst_pass_and_then_one_an_interval() -> None:
    desk = Desk()
    reason = t.REASON_CODE_LIMIT_ORDER_RATE_MAX
    desk.limit(t.LIMIT_KIND_ORDER_RATE_MAX, 2, burst=3)
    assert [desk.order(1).reason for _ in range(4)] == [NONE, NONE, NONE, reason]
    desk.now_ns += SECOND // 2 - 1
    assert violations(desk.order(1)) == [(reason, 2, 0, 1, SCOPE_ACCOUNT, ALONE, False)]
    desk.now_ns += 1
    assert [desk.order(1).reason for _ in range(2)] == [NONE, reason]
    assert desk.use(t.LIMIT_KIND_ORDER_RATE_MAX) == 3
    desk.now_ns += 2 * SECOND
    assert desk.use(t.LIMIT_KIND_ORDER_RATE_MAX) == 0


def test_what_counts_in_an_order_rate() -> None:
    desk = Desk()
    desk.trade(5)
    desk.limit(t.LIMIT_KIND_ORDER_RATE_MAX, 1, burst=10)

    def taken() -> int | None:
        return desk.use(t.LIMIT_KIND_ORDER_RATE_MAX)

    reservation_id = desk.order(1).reservation_id
    assert taken() == 1
    assert desk.amend(reservation_id, 2).reason == NONE
    assert taken() == 2
    # Refused for something else.
    assert desk.order(10**9).reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert taken() == 3
    # Strictly reducing, only checked, lighter, refused for its form.
    assert desk.order(5, side=SELL).reason == NONE
    assert desk.order(1, mode=orders_pb.CHECK_MODE_CHECK_ONLY).reason == NONE
    assert desk.amend(reservation_id, 1).reason == NONE
    assert desk.order(0).reason == t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE
    assert taken() == 3


def test_a_batch_that_is_taken_back_gives_its_sums_back_but_not_its_rate() -> None:
    desk = Desk()
    desk.limit(t.LIMIT_KIND_ORDER_RATE_MAX, 1, burst=10)
    desk.limit(t.LIMIT_KIND_OPEN_ORDERS_MAX, 2, (SCOPE_FIRM, FIRM))
    desk.limit(t.LIMIT_KIND_ORDER_RATE_MAX, 1, (SCOPE_FIRM, FIRM), burst=10)
    desk.limit(t.LIMIT_KIND_DRAWDOWN_MAX, CASH, (SCOPE_FIRM, FIRM))
    accounts = (PARENT, CHILD, OTHER)
    check = orders_pb.CHECK_MODE_CHECK_ONLY

    def state() -> list[str]:
        return [line for line in desk.engine.state_lines() if not line.startswith("limit")]

    before, limits = state(), desk.engine.limits()
    reply = desk.batch([desk.request(1, account_id=each, mode=check) for each in accounts])
    refused = t.REASON_CODE_BATCH_ORDER_REJECTED
    reasons = [refused, refused, t.REASON_CODE_LIMIT_OPEN_ORDERS_MAX]
    assert [each.reason for each in reply.decisions] == reasons
    assert desk.engine.limits() == limits
    reply = desk.batch([desk.request(1, account_id=each) for each in accounts])
    assert [each.reason for each in reply.decisions] == reasons
    assert state() == before
    assert desk.use(t.LIMIT_KIND_ORDER_RATE_MAX, (SCOPE_FIRM, FIRM)) == 3
    assert desk.use(t.LIMIT_KIND_OPEN_ORDERS_MAX, (SCOPE_FIRM, FIRM)) == 0
    reply = desk.batch([desk.request(1, account_id=each) for each in accounts[:2]])
    assert [each.reason for each in reply.decisions] == [NONE, NONE]
    assert desk.use(t.LIMIT_KIND_OPEN_ORDERS_MAX, (SCOPE_FIRM, FIRM)) == 2


def test_a_gateway_has_an_order_rate_of_its_own() -> None:
    desk = Desk()
    desk.limit(t.LIMIT_KIND_ORDER_RATE_MAX, 1, (SCOPE_GATEWAY, 5), burst=1)
    assert desk.order(1, gateway_id=5).reason == NONE
    reason = t.REASON_CODE_LIMIT_ORDER_RATE_MAX
    assert violations(desk.order(1, gateway_id=5)) == [(reason, 1, 0, 1, SCOPE_GATEWAY, 5, False)]
    assert desk.order(1, gateway_id=6).reason == NONE


def test_repeated_executions_stop_new_orders_until_time_passes_or_a_reset() -> None:
    desk = Desk()
    kind = t.LIMIT_KIND_EXECUTION_RATE_MAX
    desk.limit(kind, 1, burst=2)
    reservation_id = desk.order(10).reservation_id
    for _ in range(5):
        desk.execute(reservation_id, price_ticks=100, quantity_lots=1)
    reason = t.REASON_CODE_LIMIT_EXECUTION_RATE_MAX
    assert violations(desk.order(1)) == [(reason, 1, 0, 0, SCOPE_ACCOUNT, ALONE, False)]
    # However many came, no more than burst + 1 intervals are owed.
    assert desk.use(kind) == 2
    desk.now_ns += SECOND
    assert desk.order(1).reason == NONE
    desk.execute(reservation_id, price_ticks=100, quantity_lots=1)
    assert desk.order(1).reason == reason
    assert desk.engine.reset_usage(SCOPE_ACCOUNT, ALONE, 0, kind, desk.now_ns) == NONE
    assert desk.use(kind) == 0
    assert desk.order(1).reason == NONE


# --- Days -----------------------------------------------------------------------------------------


def test_traded_value_is_that_of_the_day_and_of_what_works() -> None:
    desk = Desk()
    kind = t.LIMIT_KIND_DAILY_TRADED_MAX
    levels = ((SCOPE_FIRM, FIRM), (SCOPE_ACCOUNT, PARENT), (SCOPE_ACCOUNT, CHILD))
    for level in levels:
        desk.limit(kind, 50 * LOT, level)
    reservation_id = desk.trade(10, account_id=CHILD)
    fill_id = desk.ids
    desk.trade(6, account_id=OTHER)
    desk.order(4, account_id=PARENT)
    assert [desk.use(kind, level) for level in levels] == [20 * LOT, 14 * LOT, 10 * LOT]
    # A correction adds what it undoes and what it puts in its place.
    corrected = {"original_execution_id": fill_id, "price_ticks": 90, "quantity_lots": 10}
    desk.execute(reservation_id, orders_pb.EXECUTION_KIND_CORRECTION, **corrected)
    assert desk.use(kind, (SCOPE_ACCOUNT, CHILD)) == 10 * LOT + 10 * LOT + 10 * 9000
    desk.now_ns += DAY
    assert [desk.use(kind, level) for level in levels] == [4 * LOT, 4 * LOT, 0]


def test_a_loss_of_the_day_is_realised_and_unrealised_but_no_unrealised_profit() -> None:
    desk = Desk()
    kind, reason = t.LIMIT_KIND_DAILY_LOSS_MAX, t.REASON_CODE_LIMIT_DAILY_LOSS_MAX
    desk.limit(kind, 3000)
    desk.trade(10, fee_minor=100)
    desk.trade(4, price_ticks=95, fee_minor=50, side=SELL)
    # 4 lots lost 5 ticks each, and 150 of fees.
    assert desk.use(kind) == 2150
    desk.mark(199)
    # 6 lots are half a tick below their entry.
    assert desk.use(kind) == 2450
    desk.mark(202)
    assert desk.use(kind) == 2150
    desk.mark(196)
    assert violations(desk.order(1))[0][:4] == (reason, 3000, 3350, 0)
    assert desk.order(6, side=SELL).reason == NONE
    desk.now_ns += DAY
    desk.mark(196)
    assert desk.use(kind) == 1200


def test_a_premium_is_no_loss() -> None:
    desk = Desk()
    desk.limit(t.LIMIT_KIND_DAILY_LOSS_MAX, 10**6)
    desk.limit(t.LIMIT_KIND_DRAWDOWN_MAX, 10**6)
    desk.trade(5, price_ticks=10, instrument_id=CALL)
    assert desk.use(t.LIMIT_KIND_DAILY_LOSS_MAX) == 0
    assert desk.use(t.LIMIT_KIND_DRAWDOWN_MAX) == 0
    desk.mark(14, CALL)
    assert desk.use(t.LIMIT_KIND_DAILY_LOSS_MAX) == 1500
    assert desk.use(t.LIMIT_KIND_DRAWDOWN_MAX) == 1500
    desk.trade(5, price_ticks=7, instrument_id=CALL, side=SELL)
    assert desk.use(t.LIMIT_KIND_DAILY_LOSS_MAX) == 1500
    assert desk.use(t.LIMIT_KIND_DRAWDOWN_MAX) == 1500


# --- Drawdown -------------------------------------------------------------------------------------


def test_a_drawdown_is_measured_from_the_highest_equity() -> None:
    desk = Desk()
    kind, reason = t.LIMIT_KIND_DRAWDOWN_MAX, t.REASON_CODE_LIMIT_DRAWDOWN_MAX
    firm = (SCOPE_FIRM, FIRM)
    desk.limit(kind, 5000, firm)
    desk.trade(10, account_id=CHILD)
    desk.mark(212)
    # An order sees that equity is 6 ticks a lot higher.
    assert desk.order(1, account_id=OTHER).reason == NONE
    (row,) = desk.engine.limits()
    assert row.peak == 3 * CASH + 6000
    desk.mark(204)
    assert desk.use(kind, firm) == 4000
    desk.mark(200)
    reply = desk.order(1, account_id=PARENT)
    assert violations(reply) == [(reason, 5000, 6000, 0, SCOPE_FIRM, FIRM, False)]
    # Money that comes or goes is no profit and no loss.
    for amount in (-1000, 7000):
        assert desk.engine.adjust_collateral(OTHER, 1, amount, False, desk.now_ns)[0] == NONE
    assert desk.use(kind, firm) == 6000
    assert desk.engine.set_account_owner(ALONE, FIRM, 0, desk.now_ns) == NONE
    assert desk.use(kind, firm) == 6000
    assert desk.engine.reset_usage(*firm, 0, kind, desk.now_ns) == NONE
    assert desk.use(kind, firm) == 0


# --- Raises, owners, tables -----------------------------------------------------------------------


def test_a_raise_counts_until_its_time() -> None:
    desk = Desk()
    kind = t.LIMIT_KIND_ORDER_QUANTITY_MAX
    desk.limit(kind, 5)
    until_ns = desk.now_ns + 7 * DAY
    raise_limit = desk.engine.raise_limit
    name = (SCOPE_ACCOUNT, ALONE, 0, kind)
    assert raise_limit(*name, 5, until_ns, desk.now_ns) == t.REASON_CODE_DEFINITION_INVALID
    assert raise_limit(*name, 8, until_ns + 1, desk.now_ns) == t.REASON_CODE_DEFINITION_INVALID
    assert raise_limit(*name, 8, until_ns, desk.now_ns) == NONE
    assert violations(desk.order(9))[0][:4] == (t.REASON_CODE_LIMIT_ORDER_QUANTITY_MAX, 8, 0, 9)
    desk.now_ns = until_ns - 1
    assert desk.order(8).reason == NONE
    desk.now_ns = until_ns
    assert desk.order(8).max_quantity_lots == 5


def test_the_largest_order_that_limits_let_pass_is_above_their_minima() -> None:
    desk = Desk()
    desk.limit(t.LIMIT_KIND_ORDER_QUANTITY_MAX, 20)
    desk.limit(t.LIMIT_KIND_ORDER_NOTIONAL_MIN, 7 * LOT)
    assert desk.order(30).max_quantity_lots == 20
    desk.limit(t.LIMIT_KIND_OPEN_NOTIONAL_MAX, 6 * LOT)
    assert desk.order(30).max_quantity_lots == 0


def test_an_owner_changes_only_while_nothing_is_open_or_traded_today() -> None:
    desk = Desk()
    own = desk.engine.set_account_owner
    invalid = t.REASON_CODE_OWNER_INVALID
    # Its sub-account would be left with another firm; a parent has no parent; of another firm.
    assert own(PARENT, 0, 0, desk.now_ns) == invalid
    assert own(OTHER, FIRM, CHILD, desk.now_ns) == invalid
    assert own(ALONE, 0, PARENT, desk.now_ns) == invalid
    assert own(ALONE, 0, ALONE, desk.now_ns) == invalid
    desk.trade(2, account_id=CHILD)
    assert own(CHILD, FIRM, 0, desk.now_ns) == t.REASON_CODE_POSITION_NOT_FLAT
    desk.trade(2, account_id=CHILD, side=SELL)
    assert own(CHILD, FIRM, 0, desk.now_ns) == t.REASON_CODE_OWNER_HAS_USAGE
    desk.now_ns += DAY
    assert own(CHILD, FIRM, 0, desk.now_ns) == NONE
    assert own(PARENT, 0, 0, desk.now_ns) == NONE
    row = desk.engine.account(PARENT)
    assert row is not None
    assert (row.firm_id, row.parent_account_id) == (0, 0)


def test_an_order_needs_a_row_for_each_level_that_keeps_sums() -> None:
    desk = Desk(holdings_max=3)
    assert desk.order(1, account_id=CHILD).reason == NONE
    assert desk.order(1, account_id=OTHER).reason == NONE
    # The firm and the parent would need a row each for the call.
    full = t.REASON_CODE_HOLDINGS_FULL
    assert desk.order(1, account_id=CHILD, instrument_id=CALL).reason == full
    assert desk.order(1, account_id=OTHER, instrument_id=CALL).reason == NONE
    assert desk.order(1, account_id=ALONE, instrument_id=CALL).reason == NONE
    desk.trade(1, account_id=ALONE)
    desk.now_ns += DAY
    # Account 4 would need two rows as a parent.
    assert desk.engine.create_account(5, 1, 1, 1000, 0) == NONE
    assert desk.engine.set_account_owner(5, 0, ALONE, desk.now_ns) == full
    assert desk.engine.set_capacities(holdings_max=5) is True
    assert desk.engine.set_account_owner(5, 0, ALONE, desk.now_ns) == NONE


def test_tables_that_move_keep_limits_and_sums() -> None:
    desk = Desk(limits_max=6, holdings_max=6, firms_max=2)
    kind = t.LIMIT_KIND_GROSS_EXPOSURE_MAX
    levels = ((SCOPE_FIRM, FIRM), (SCOPE_ACCOUNT, PARENT))
    for level in levels:
        desk.limit(t.LIMIT_KIND_DENIED, 0, level, CALL)
        desk.limit(kind, 10**6, level)
    assert desk.engine.remove_limit(SCOPE_FIRM, FIRM, CALL, t.LIMIT_KIND_DENIED) == NONE
    reservation_id = desk.order(3, account_id=OTHER, instrument_id=CALL).reservation_id
    desk.trade(4, account_id=CHILD)
    desk.execute(reservation_id, orders_pb.EXECUTION_KIND_CANCEL)
    before = desk.engine.state_hash(), [desk.use(kind, level) for level in levels]
    assert before[1] == [4 * LOT, 4 * LOT]
    sizes: dict[str, Any] = {"limits_max": 3, "holdings_max": 2, "firms_max": 1}
    assert desk.engine.set_capacities(**sizes) is True
    assert (desk.engine.state_hash(), [desk.use(kind, level) for level in levels]) == before
    desk.trade(1, account_id=CHILD)
    assert [desk.use(kind, level) for level in levels] == [5 * LOT, 5 * LOT]
    denied = desk.order(1, account_id=CHILD, instrument_id=CALL)
    assert denied.reason == t.REASON_CODE_LIMIT_DENIED
