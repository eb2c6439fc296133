"""A small engine with one funded account on one perpetual, and the bytes that gateways send it."""

from riskd.core.engine import (
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    Engine,
)
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

NOW_NS = 1_750_000_000 * 10**9
PRICE_TICKS = 650_000
SIZES = {
    "accounts_max": 2,
    "positions_max": 4,
    "orders_max": 100,
    "instruments_max": 2,
    "schedules_max": 1,
    "gateways_max": 2,
    "balances_max": 2,
    "firms_max": 2,
    "limits_max": 30,
    "holdings_max": 4,
    "answer_bytes": 4096,
}


class Desk:
    """The engine's sizes are SIZES but for those that are given, unless it is given itself."""

    def __init__(self, engine: Engine | None = None, *, fills: bool = True, **sizes: int) -> None:
        self.engine = engine = engine or Engine(**(SIZES | sizes))
        if fills:
            self.fill_tables(engine)

    def fill_tables(self, engine: Engine) -> None:
        assert engine.create_asset("USDT", 6) == (t.REASON_CODE_NONE, 1)
        tiers = [(0, 20_000_000, 10_000_000, 5000)]
        assert engine.upsert_schedule("single", 1, tiers) == (t.REASON_CODE_NONE, 1)
        listed = engine.upsert_instrument("BTC-PERP", 1, 1, 1, 1, -1, 1, -3)
        assert listed == (t.REASON_CODE_NONE, 1)
        assert engine.create_account(1, 1, 1, 1000, 10**15) == t.REASON_CODE_NONE
        mark = market_pb.Mark(instrument_id=1, mark_price=PRICE_TICKS, time_ns=NOW_NS)
        marks = market_pb.ReportMarksRequest(marks=[mark])
        engine.handle(METHOD_REPORT_MARKS, marks.SerializeToString(), NOW_NS)

    def order(self, gateway_id: int, client_order_id: int, **rest: int) -> bytes:
        """Return the reply to a limit order of 10 lots, but for what is given."""
        fields: dict[str, int] = {
            "account_id": 1,
            "instrument_id": 1,
            "side": t.SIDE_BUY,
            "order_type": t.ORDER_TYPE_LIMIT,
            "price_ticks": PRICE_TICKS,
            "quantity_lots": 10,
        }
        request = orders_pb.CheckOrderRequest(
            gateway_id=gateway_id, client_order_id=client_order_id
        )
        for name, value in (fields | rest).items():
            setattr(request, name, value)
        return self.engine.handle(METHOD_CHECK_ORDER, request.SerializeToString(), NOW_NS)

    def amendment(
        self, gateway_id: int, client_order_id: int, reservation_id: int, quantity_lots: int
    ) -> bytes:
        request = orders_pb.CheckAmendmentRequest(
            gateway_id=gateway_id,
            client_order_id=client_order_id,
            reservation_id=reservation_id,
            price_ticks=PRICE_TICKS,
            quantity_lots=quantity_lots,
        )
        return self.engine.handle(METHOD_CHECK_AMENDMENT, request.SerializeToString(), NOW_NS)

    def fill(self, gateway_id: int, execution_id: int, reservation_id: int, lots: int) -> bytes:
        request = orders_pb.ReportExecutionRequest(
            gateway_id=gateway_id,
            execution_id=execution_id,
            reservation_id=reservation_id,
            kind=orders_pb.EXECUTION_KIND_FILL,
            price_ticks=PRICE_TICKS,
            quantity_lots=lots,
        )
        return self.engine.handle(METHOD_REPORT_EXECUTION, request.SerializeToString(), NOW_NS)

    def cancel(self, gateway_id: int, execution_id: int, reservation_id: int) -> bytes:
        request = orders_pb.ReportExecutionRequest(
            gateway_id=gateway_id,
            execution_id=execution_id,
            reservation_id=reservation_id,
            kind=orders_pb.EXECUTION_KIND_CANCEL,
        )
        return self.engine.handle(METHOD_REPORT_EXECUTION, request.SerializeToString(), NOW_NS)


def reservation_in(reply: bytes) -> int:
    """Return the reservation of an accepted order."""
    answer = orders_pb.CheckOrderResponse.FromString(reply)
    assert answer.decision == t.DECISION_ACCEPTED
    return answer.reservation_id
