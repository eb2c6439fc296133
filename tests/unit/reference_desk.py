"""A small reference engine for cases that are computed by hand.

Money is USDT with 2 decimals: 100 minor units are 1 USDT. The perpetuals have ticks of 0.5 USDT and
lots of 0.02, hence tick_value = 0.5 * 0.02 * 100 = 1: one lot at one tick is one minor unit. Marks
count in half ticks (U = 2), so that v = 1/2.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from riskd import reference
from riskd.core.rows import PositionRow
from riskd.reference import ReferenceEngine
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

XBT, ETH, CALL = 1, 2, 3
CROSS, ISOLATED = t.MARGIN_MODE_CROSS, t.MARGIN_MODE_ISOLATED
BUY, SELL = t.SIDE_BUY, t.SIDE_SELL
# Floors in minor units. d_1 = 1_000_000 * (0.02 - 0.01) = 10_000;
# d_2 = 10_000 + 5_000_000 * (0.05 - 0.02) = 160_000.
TIERS = [
    (0, 0, 10_000_000, 9_900),
    (1_000_000, 0, 20_000_000, 2_000),
    (5_000_000, 0, 50_000_000, 500),
]
NOW = 1_000_000


class Desk:
    """An engine with one schedule, two perpetuals, one call, and short ways to talk to it."""

    def __init__(self, taker_fee_ppb: int = 0, market_buffer_ppb: int = 0) -> None:
        self.engine = ReferenceEngine()
        self.now_ns = NOW
        self.next_id = 0
        assert self.engine.create_asset("USDT", 2) == (t.REASON_CODE_NONE, 1)
        assert self.engine.upsert_schedule("s", 1, TIERS) == (t.REASON_CODE_NONE, 1)
        terms = {
            "mark_units_per_tick": 2,
            "taker_fee_ppb": taker_fee_ppb,
            "market_buffer_ppb": market_buffer_ppb,
        }
        for symbol in ("XBT", "ETH"):
            reason, _ = self.engine.upsert_instrument(symbol, 1, 1, 1, 5, -1, 2, -2, **terms)
            assert reason == t.REASON_CODE_NONE
        option = {"expiry_ns": 10**18, "strike_units": 5, "option_type": 1}
        reason, _ = self.engine.upsert_instrument(
            "CALL", 2, 1, 0, 5, -1, 2, -2, taker_fee_ppb=10_000_000, **option
        )
        assert reason == t.REASON_CODE_NONE

    def account(self, mode: int, leverage: int, cash: int) -> None:
        assert self.engine.create_account(7, 1, mode, leverage, cash) == t.REASON_CODE_NONE

    def send(self, method: int, request: Message) -> bytes:
        return self.engine.handle(method, request.SerializeToString(), self.now_ns)

    def mark(self, instrument_id: int, units: int) -> None:
        mark = market_pb.Mark(instrument_id=instrument_id, mark_price=units, time_ns=self.now_ns)
        self.send(reference.METHOD_REPORT_MARKS, market_pb.ReportMarksRequest(marks=[mark]))

    def order(
        self, instrument_id: int, side: int, price: int, quantity: int, **rest: Any
    ) -> orders_pb.CheckOrderRequest:
        """Return a limit order, or a market order when the price is 0, but for what is given."""
        self.next_id += 1
        fields: dict[str, Any] = {
            "account_id": 7,
            "instrument_id": instrument_id,
            "client_order_id": self.next_id,
            "gateway_id": 1,
            "side": side,
            "order_type": t.ORDER_TYPE_LIMIT if price else t.ORDER_TYPE_MARKET,
            "price_ticks": price,
            "quantity_lots": quantity,
            "view": orders_pb.DECISION_VIEW_FULL,
        }
        return orders_pb.CheckOrderRequest(**(fields | rest))

    def check(
        self, instrument_id: int, side: int, price: int, quantity: int, **rest: Any
    ) -> orders_pb.CheckOrderResponse:
        request = self.order(instrument_id, side, price, quantity, **rest)
        reply = self.send(reference.METHOD_CHECK_ORDER, request)
        return orders_pb.CheckOrderResponse.FromString(reply)

    def batch(
        self, mode: int, orders: Sequence[orders_pb.CheckOrderRequest]
    ) -> orders_pb.BatchCheckOrdersResponse:
        request = orders_pb.BatchCheckOrdersRequest(orders=orders)
        request.mode = mode  # type: ignore[assignment]
        reply = self.send(reference.METHOD_BATCH_CHECK_ORDERS, request)
        return orders_pb.BatchCheckOrdersResponse.FromString(reply)

    def amend(
        self, reservation_id: int, price: int, quantity: int, **rest: Any
    ) -> orders_pb.CheckOrderResponse:
        self.next_id += 1
        fields: dict[str, Any] = {
            "gateway_id": 1,
            "reservation_id": reservation_id,
            "client_order_id": self.next_id,
            "price_ticks": price,
            "quantity_lots": quantity,
            "view": orders_pb.DECISION_VIEW_FULL,
        }
        request = orders_pb.CheckAmendmentRequest(**(fields | rest))
        reply = self.send(reference.METHOD_CHECK_AMENDMENT, request)
        return orders_pb.CheckAmendmentResponse.FromString(reply).order

    def execute(
        self, kind: int, reservation_id: int, price: int = 0, quantity: int = 0, **rest: Any
    ) -> orders_pb.ReportExecutionResponse:
        """Report an execution; its id is next_id afterwards."""
        self.next_id += 1
        fields: dict[str, Any] = {
            "gateway_id": 1,
            "execution_id": self.next_id,
            "reservation_id": reservation_id,
            "kind": kind,
            "price_ticks": price,
            "quantity_lots": quantity,
        }
        request = orders_pb.ReportExecutionRequest(**(fields | rest))
        reply = self.send(reference.METHOD_REPORT_EXECUTION, request)
        return orders_pb.ReportExecutionResponse.FromString(reply)

    def fill(
        self, reservation_id: int, price: int, quantity: int, fee: int = 0
    ) -> orders_pb.ReportExecutionResponse:
        kind = orders_pb.EXECUTION_KIND_FILL
        return self.execute(kind, reservation_id, price, quantity, fee_minor=fee)

    def trade(
        self, instrument_id: int, side: int, price: int, quantity: int, **rest: Any
    ) -> orders_pb.ReportExecutionResponse:
        order = self.check(instrument_id, side, price, quantity, **rest)
        assert order.reason == t.REASON_CODE_NONE
        return self.fill(order.reservation_id, price, quantity)

    @property
    def cash(self) -> int:
        row = self.engine.account(7)
        assert row is not None
        return row.cash

    @property
    def position(self) -> PositionRow:
        rows = self.engine.positions(7)
        assert rows
        return rows[0]
