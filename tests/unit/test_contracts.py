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
        fee_ppb: int = 0,
        basis: int = 1,
        **listing: int,
    ) -> None:
        self.engine = Engine(accounts_max=2, positions_max=4, orders_max=100, answer_bytes=1 << 16)
        self.engine.create_asset("BTC", 8)
        tiers = [(0, 0, maintenance_ppb, 5000)]
        taken = self.engine.upsert_schedule("inverse", 1, tiers, 0, fee_ppb, 1, basis)
        assert taken == (t.REASON_CODE_NONE, 1)
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

    def mark(self, units: int, instrument_id: int = 1) -> None:
        mark = market_pb.Mark(instrument_id=instrument_id, mark_price=units, time_ns=NOW_NS)
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
        return self.fill(placed.reservation_id, price_ticks, lots)

    def fill(
        self, reservation_id: int, price_ticks: int, lots: int
    ) -> orders_pb.ReportExecutionResponse:
        self._ids += 1
        request = orders_pb.ReportExecutionRequest(
            gateway_id=1,
            execution_id=self._ids,
            reservation_id=reservation_id,
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


def test_an_inverse_long_with_maintenance_by_entry_is_liquidated_as_bybit_shows() -> None:
    """5 USD at 1x are liquidated at 3608 and bankrupt at 3599 (bybit-live-inverse-1)."""
    desk = Desk(5_000_000, ISOLATED, 100, basis=2)
    desk.mark(14_394 * 100)
    for _ in range(5):
        filled = desk.trade(BUY, 14_394, 1)
    position = desk.position()
    assert position.entry_value == 69_470
    # Each lot takes along the satoshi that it loses to rounding.
    assert position.isolated_wallet == 69_475
    assert position.maintenance == 348
    assert filled.liquidation_price_ticks == 3608 * 2
    assert -(-position.bankruptcy_price // 100) == 3599 * 2
    desk.mark(10_000 * 100)
    assert desk.position().maintenance == 348


def test_a_cross_inverse_long_pays_its_closing_fee_as_bybit_shows() -> None:
    """10,000 USD at 8000 with half a coin: 5739.5 (bybit-inverse-cross-8000)."""
    desk = Desk(5_000_000, CROSS, 5000, COIN // 2, fee_ppb=750_000, basis=2)
    desk.mark(16_000 * 100)
    filled = desk.trade(BUY, 16_000, 10_000)
    assert filled.liquidation_price_ticks == 11_479


def test_a_short_option_in_coin_holds_its_rule_and_its_mark() -> None:
    """15 per cent less what it is out of the money, at least 10, and 7.5 to keep; by hand.

    A call struck at 11,000 with the coin at 10,000 and a mark of 0.05: a - otm / S is 0.05, so 0.1;
    with the mark 0.15 coins a lot, 0.125 to keep.
    """
    desk = Desk(10_000_000, CROSS, 1000)
    rule = desk.engine.upsert_option_rule("coin", 1, 150_000_000, 100_000_000, 75_000_000)
    assert rule == (t.REASON_CODE_NONE, 2)
    listed = desk.list(
        "BTC-CALL",
        instrument_pb.INSTRUMENT_KIND_INVERSE_OPTION,
        schedule_id=0,
        tick_mantissa=5,
        tick_exponent=-4,
        expiry_ns=NOW_NS + YEAR_NS,
        strike_units=22_000 * 100,
        option_type=instrument_pb.OPTION_TYPE_CALL,
        underlying_id=1,
        option_rule_id=2,
    )
    assert listed == (t.REASON_CODE_NONE, 2)
    desk.mark(20_000 * 100)
    desk.mark(100, instrument_id=2)
    placed = desk.order(SELL, 100, 2, instrument_id=2)
    assert placed.decision == t.DECISION_ACCEPTED
    assert placed.initial_margin_minor == 30_000_000
    desk.fill(placed.reservation_id, 100, 2)
    assert desk.cash() == 10 * COIN + 10_000_000
    position = desk.position()
    assert position.lots == -2
    assert position.initial_margin == 30_000_000
    assert position.maintenance == 25_000_000
    assert position.liquidation_status == t.LIQUIDATION_STATUS_UNSPECIFIED
    # In the money otm is 0: 0.15 and the mark.
    desk.mark(22_000 * 100)
    assert desk.position().initial_margin == 40_000_000


def test_an_option_without_a_rule_cannot_be_sold_short() -> None:
    desk = Desk(10_000_000, CROSS, 1000)
    desk.list(
        "BTC-CALL",
        instrument_pb.INSTRUMENT_KIND_INVERSE_OPTION,
        schedule_id=0,
        expiry_ns=NOW_NS + YEAR_NS,
        strike_units=22_000 * 100,
        option_type=instrument_pb.OPTION_TYPE_CALL,
        underlying_id=1,
    )
    desk.mark(1, instrument_id=2)
    placed = desk.order(SELL, 1, 1, instrument_id=2)
    assert placed.reason == t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED


def test_a_position_has_at_most_64_protective_orders() -> None:
    desk = Desk(10_000_000, CROSS, 1000)
    desk.mark(20_000 * 100)
    desk.trade(BUY, 20_000, 100)
    stop: dict[str, Any] = {
        "order_type": t.ORDER_TYPE_STOP,
        "trigger_price_ticks": 19_000,
        "flags": orders_pb.ORDER_FLAG_REDUCE_ONLY,
    }
    placed = [desk.order(SELL, 0, 100, **stop) for _ in range(64)]
    assert all(each.decision == t.DECISION_ACCEPTED for each in placed)
    assert desk.order(SELL, 0, 100, **stop).reason == t.REASON_CODE_PROTECTIVE_ORDERS_MAX
    desk.engine.cancel_orders(1, 0, 0, 0, 0, [placed[1].reservation_id], False, NOW_NS)
    assert desk.order(SELL, 0, 100, **stop).decision == t.DECISION_ACCEPTED


class Spot(Desk):
    """1000 USD of 2 digits and 5 coins of 8, on lots of a thousandth of a coin in cents."""

    def __init__(self) -> None:
        self.engine = Engine(accounts_max=2, positions_max=4, orders_max=64, answer_bytes=1 << 16)
        self.engine.create_asset("BTC", 8)
        self.engine.create_asset("USD", 2)
        listed = self.engine.upsert_instrument(
            "BTC-USD",
            instrument_pb.INSTRUMENT_KIND_SPOT,
            2,
            0,
            10,
            0,
            1,
            -3,
            taker_fee_ppb=1_000_000,
            base_asset_id=1,
        )
        assert listed == (t.REASON_CODE_NONE, 1)
        assert self.engine.create_account(1, 2, CROSS, 1000, 100_000) == t.REASON_CODE_NONE
        assert self.engine.adjust_collateral(1, 1, 5 * COIN, False, NOW_NS)[0] == 1
        self._ids = 0
        self.mark(1000)

    def coins(self) -> int:
        rows = self.engine.balances(1)
        assert rows is not None
        return dict(rows)[1]


def test_spot_changes_one_asset_for_another() -> None:
    """50 thousandths at 10,000 are 500 dollars; the fee of a thousandth is reserved beside them."""
    desk = Spot()
    placed = desk.order(BUY, 1000, 50)
    assert placed.decision == t.DECISION_ACCEPTED
    assert placed.reserved_minor == 50_000 + 50
    assert placed.liquidation_status == t.LIQUIDATION_STATUS_UNSPECIFIED
    desk.fill(placed.reservation_id, 1000, 50)
    assert desk.cash() == 50_000
    assert desk.coins() == 5 * COIN + COIN // 20
    sold = desk.trade(SELL, 1000, 100)
    assert sold.realised_pnl_minor == 0
    assert sold.position_lots == 0
    assert desk.cash() == 150_000
    assert desk.coins() == 5 * COIN - COIN // 20


def test_spot_sells_need_what_they_sell_and_keep_it() -> None:
    desk = Spot()
    assert desk.order(SELL, 1000, 3000).decision == t.DECISION_ACCEPTED
    refused = desk.order(SELL, 1000, 2001)
    assert refused.reason == t.REASON_CODE_BALANCE_INSUFFICIENT
    assert refused.max_quantity_lots == 2000
    violation = refused.detail.violations[0]
    assert (violation.limit, violation.use, violation.order_use) == (
        5 * COIN,
        3 * COIN,
        2001 * COIN // 1000,
    )
    over = desk.engine.adjust_collateral(1, 1, -2 * COIN - 1, False, NOW_NS)
    assert over[0] == t.REASON_CODE_EXCEEDS_AVAILABLE
    assert desk.engine.adjust_collateral(1, 1, -2 * COIN, False, NOW_NS)[0] == t.REASON_CODE_NONE


def test_nothing_of_spot_can_be_reduced_or_levered() -> None:
    desk = Spot()
    reducing = desk.order(SELL, 1000, 1, flags=orders_pb.ORDER_FLAG_REDUCE_ONLY)
    assert reducing.reason == t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE
    engine = desk.engine
    assert engine.set_leverage(1, 1, 200, False, NOW_NS)[0] == t.REASON_CODE_LEVERAGE_OUT_OF_RANGE
    assert engine.change_margin_mode(1, 1, ISOLATED, False, NOW_NS)[0] == (
        t.REASON_CODE_POSITION_NOT_FLAT
    )
    assert engine.transfer_margin(1, 1, 1, False, NOW_NS)[0] == t.REASON_CODE_NO_ISOLATED_POSITION
    assert engine.load_position(1, 1, 0, 1, 1, 0)[0] == t.REASON_CODE_DEFINITION_INVALID


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
        (instrument_pb.INSTRUMENT_KIND_SPOT, {}, "ASSET_UNKNOWN"),
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
