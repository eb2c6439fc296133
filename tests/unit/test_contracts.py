"""Inverse and dated contracts through the compiled engine: venues' examples, and hand computing."""

from typing import Any

import pytest

from riskd.core.engine import (
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    Engine,
)
from riskd.v1 import instrument_service_pb2 as instrument_pb
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

NOW_NS = 1_750_000_000 * 10**9
YEAR_NS = 365 * 86400 * 10**9
COIN = 10**8
CROSS, ISOLATED = t.MARGIN_MODE_CROSS, t.MARGIN_MODE_ISOLATED
INVERSE = instrument_pb.INSTRUMENT_KIND_INVERSE_PERPETUAL
INVERSE_FUTURE = instrument_pb.INSTRUMENT_KIND_INVERSE_FUTURE
FUTURE = instrument_pb.INSTRUMENT_KIND_LINEAR_FUTURE
QUANTO = instrument_pb.INSTRUMENT_KIND_QUANTO_PERPETUAL
BUY, SELL = t.SIDE_BUY, t.SIDE_SELL


class Desk:
    """One account of 10 coins, of 8 digits, on contracts of 1 USD with ticks of half a dollar."""

    def __init__(
        self,
        maintenance_ppb: int,
        mode: int,
        leverage: int,
        cash: int = 10 * COIN,
        kind: int = INVERSE,
        **listing: int,
    ) -> None:
        self.engine = Engine(accounts_max=2, positions_max=4, orders_max=64, answer_bytes=1 << 16)
        self.engine.create_asset("BTC", 8)
        tiers = [(0, 0, maintenance_ppb, 5000)]
        assert self.engine.upsert_schedule("inverse", 1, tiers) == (t.REASON_CODE_NONE, 1)
        listing = {"tick_mantissa": 5, "tick_exponent": -1, "mark_units_per_tick": 100} | listing
        assert self.list("BTCUSD", kind, **listing) == (t.REASON_CODE_NONE, 1)
        assert self.engine.create_account(1, 1, mode, leverage, cash) == t.REASON_CODE_NONE
        self._ids = 0

    def list(self, symbol: str, kind: int, **listing: int) -> tuple[int, int]:
        numbers: dict[str, Any] = {
            "schedule_id": 1,
            "tick_mantissa": 1,
            "tick_exponent": 0,
            "lot_mantissa": 1,
            "lot_exponent": 0,
        }
        return self.engine.upsert_instrument(symbol, kind, 1, **(numbers | listing))

    def mark(self, units: int) -> None:
        mark = market_pb.Mark(instrument_id=1, mark_price=units, time_ns=NOW_NS)
        request = market_pb.ReportMarksRequest(marks=[mark])
        self.engine.handle(METHOD_REPORT_MARKS, request.SerializeToString(), NOW_NS)

    def order(
        self, side: int, price_ticks: int, lots: int, **rest: Any
    ) -> orders_pb.CheckOrderResponse:
        self._ids += 1
        request = orders_pb.CheckOrderRequest(
            account_id=1,
            instrument_id=1,
            gateway_id=1,
            client_order_id=self._ids,
            side=t.Side.ValueType(side),
            order_type=t.ORDER_TYPE_LIMIT,
            price_ticks=price_ticks,
            quantity_lots=lots,
            view=orders_pb.DECISION_VIEW_FULL,
        )
        for name, value in rest.items():
            setattr(request, name, value)
        reply = self.engine.handle(METHOD_CHECK_ORDER, request.SerializeToString(), NOW_NS)
        return orders_pb.CheckOrderResponse.FromString(reply)

    def trade(self, side: int, price_ticks: int, lots: int) -> orders_pb.ReportExecutionResponse:
        """Place an order and fill it at its price."""
        placed = self.order(side, price_ticks, lots)
        assert placed.decision == t.DECISION_ACCEPTED, placed
        self._ids += 1
        request = orders_pb.ReportExecutionRequest(
            gateway_id=1,
            execution_id=self._ids,
            reservation_id=placed.reservation_id,
            kind=orders_pb.EXECUTION_KIND_FILL,
            price_ticks=price_ticks,
            quantity_lots=lots,
        )
        reply = self.engine.handle(METHOD_REPORT_EXECUTION, request.SerializeToString(), NOW_NS)
        return orders_pb.ReportExecutionResponse.FromString(reply)

    def position(self) -> Any:
        rows = self.engine.positions(1)
        assert rows is not None
        return rows[0]

    def cash(self) -> int:
        row = self.engine.account(1)
        assert row is not None
        return row.cash


def test_an_inverse_long_is_margined_and_liquidated_as_kraken_shows() -> None:
    """1000 USD at 8000 with 0.01 coins: liquidation 7481, bankruptcy 7407; the example
    (kraken-epp-inverse of the liquidation vectors) has initial rate 2 per cent, maintenance 1."""
    desk = Desk(10_000_000, ISOLATED, 5000)
    desk.mark(16_000 * 100)
    filled = desk.trade(BUY, 16_000, 1000)
    position = desk.position()
    assert position.entry_value == 12_500_000
    assert position.isolated_wallet == 250_000  # 0.0025 coins
    assert position.maintenance == 125_000
    assert filled.isolated_wallet_minor == 250_000
    reason, wallet, _ = desk.engine.transfer_margin(1, 1, 750_000, False, NOW_NS)
    assert (reason, wallet) == (t.REASON_CODE_NONE, 1_000_000)
    position = desk.position()
    # In mark units of half a cent: 1000 * 1.01 / 0.135 and 1000 / 0.135.
    assert position.liquidation_price == 1_010_000 * 200 // 135
    assert position.bankruptcy_price == -(-1_000_000 * 200 // 135)


def test_a_long_wins_less_coin_than_a_short_of_the_same_price_change_loses() -> None:
    """1000 USD from 10,000 to 12,500 are 0.1 to 0.08 coins; to 8000, 0.1 to 0.125."""
    desk = Desk(10_000_000, CROSS, 1000)
    desk.mark(20_000 * 100)
    desk.trade(BUY, 20_000, 1000)
    desk.mark(25_000 * 100)
    assert desk.position().unrealised_pnl == 2_000_000
    desk.mark(16_000 * 100)
    assert desk.position().unrealised_pnl == -2_500_000
    closed = desk.trade(SELL, 16_000, 1000)
    assert closed.realised_pnl_minor == -2_500_000
    assert desk.cash() == 10 * COIN - 2_500_000


def test_what_is_traded_of_an_inverse_contract_is_rounded_against_the_account() -> None:
    """A dollar at 7197 is 13,894.67 satoshi: a long owes fewer, a short gets no more."""
    desk = Desk(10_000_000, CROSS, 1000)
    desk.mark(14_394 * 100)
    desk.trade(BUY, 14_394, 1)
    assert desk.position().entry_value == 13_894
    assert desk.trade(SELL, 14_394, 1).realised_pnl_minor == -1
    desk.trade(SELL, 14_394, 1)
    assert desk.position().entry_value == 13_895
    assert desk.trade(BUY, 14_394, 1).realised_pnl_minor == -1


def test_an_inverse_short_cannot_be_liquidated_while_it_owns_its_coin() -> None:
    desk = Desk(10_000_000, ISOLATED, 100)
    desk.mark(20_000 * 100)
    placed = desk.order(SELL, 20_000, 1000)
    assert placed.liquidation_status == t.LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
    desk = Desk(10_000_000, ISOLATED, 1000)
    desk.mark(20_000 * 100)
    placed = desk.order(SELL, 20_000, 1000)
    # 0.1 coins short with 0.01: N* = 0.09 / 0.99, price 11,000 in half dollars.
    assert placed.liquidation_status == t.LIQUIDATION_STATUS_AT_PRICE
    assert placed.liquidation_price_ticks == 22_000


def test_an_order_of_an_amount_of_coin_is_as_many_contracts_as_it_can_come_to() -> None:
    """0.1 coins at 10,000 are 1000 contracts; a buffer of 1 per cent allows for a higher price."""
    desk = Desk(10_000_000, CROSS, 1000, market_buffer_ppb=10_000_000)
    desk.mark(20_000 * 100)
    placed = desk.order(
        BUY,
        0,
        10_000_000,
        order_type=t.ORDER_TYPE_MARKET,
        flags=orders_pb.ORDER_FLAG_QUOTE_QUANTITY,
    )
    assert placed.decision == t.DECISION_ACCEPTED
    assert placed.quantity_lots == 1010


@pytest.mark.parametrize(
    ("kind", "listing", "reason"),
    [
        (INVERSE, {}, "NONE"),
        (INVERSE, {"lot_mantissa": 100}, "NONE"),
        (INVERSE, {"multiplier_mantissa": 100}, "NONE"),
        (INVERSE, {"expiry_ns": NOW_NS}, "DEFINITION_INVALID"),
        (INVERSE, {"tick_mantissa": 3}, "DEFINITION_INVALID"),
        (INVERSE, {"lot_mantissa": 10**12}, "DEFINITION_INVALID"),
        (INVERSE, {"multiplier_mantissa": 0}, "DEFINITION_INVALID"),
        (INVERSE_FUTURE, {}, "DEFINITION_INVALID"),
        (INVERSE_FUTURE, {"expiry_ns": NOW_NS}, "NONE"),
        (FUTURE, {}, "DEFINITION_INVALID"),
        (FUTURE, {"expiry_ns": NOW_NS}, "NONE"),
        (QUANTO, {"multiplier_exponent": -8}, "NONE"),
        (QUANTO, {"multiplier_exponent": -9}, "DEFINITION_INVALID"),
        (QUANTO, {"underlying_id": 1}, "DEFINITION_INVALID"),
        (instrument_pb.INSTRUMENT_KIND_SPOT, {}, "DEFINITION_INVALID"),
    ],
)
def test_kinds_have_their_numbers(kind: int, listing: dict[str, int], reason: str) -> None:
    desk = Desk(10_000_000, CROSS, 1000)
    assert desk.list("NEW", kind, **listing)[0] == t.ReasonCode.Value(f"REASON_CODE_{reason}")


def test_the_multiplier_of_a_contract_cannot_change() -> None:
    desk = Desk(10_000_000, CROSS, 1000)
    assert desk.list("NEW", INVERSE, multiplier_mantissa=100)[0] == t.REASON_CODE_NONE
    assert desk.list("NEW", INVERSE)[0] == t.REASON_CODE_FIELD_IMMUTABLE


def test_a_future_stops_at_its_expiry() -> None:
    desk = Desk(10_000_000, CROSS, 1000, kind=INVERSE_FUTURE, expiry_ns=NOW_NS)
    desk.mark(20_000 * 100)
    assert desk.order(BUY, 20_000, 1).reason == t.REASON_CODE_INSTRUMENT_EXPIRED
    desk = Desk(10_000_000, CROSS, 1000, kind=INVERSE_FUTURE, expiry_ns=NOW_NS + YEAR_NS)
    desk.mark(20_000 * 100)
    assert desk.order(BUY, 20_000, 1).decision == t.DECISION_ACCEPTED


def test_a_quanto_pays_its_rate_of_exchange() -> None:
    """One lot at a price of 1 is 100 satoshi: 250 ticks up, two lots, 50,000 satoshi."""
    desk = Desk(
        10_000_000,
        CROSS,
        1000,
        kind=QUANTO,
        tick_mantissa=1,
        tick_exponent=0,
        multiplier_mantissa=1,
        multiplier_exponent=-6,
    )
    desk.mark(3000 * 100)
    desk.trade(BUY, 3000, 2)
    assert desk.position().entry_value == 600_000
    assert desk.trade(SELL, 3250, 2).realised_pnl_minor == 50_000
