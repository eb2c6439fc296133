"""Spot pairs of the reference, by hand.

Money is USDT with 2 decimals, the base is BTC with 8: a tick is 1 USDT, a lot 0.01 BTC, so that one
lot at one tick is 1 minor unit and B = 10^6. HALF is the same pair in lots of 0.005 with B = 5 10^5
and ticks of 2 USDT.
"""

from typing import Any

import pytest

from riskd.core.rows import BalanceRow
from riskd.reference import ReferenceEngine
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import BUY, CROSS, NOW, SELL, Desk

USDT, BTC = 1, 2
PAIR, HALF = 1, 2
SPOT = 7
NONE = t.REASON_CODE_NONE
LOT = 10**6


class SpotDesk(Desk):
    """Account 7 with a fee of 1 per cent; both pairs are marked at 1000 USDT."""

    def __init__(self, cash: int = 100_000, coins: int = 0, **settings: int) -> None:
        self.engine = ReferenceEngine(**settings)
        self.now_ns = NOW
        self.next_id = 0
        assert self.engine.create_asset("USDT", 2) == (NONE, USDT)
        assert self.engine.create_asset("BTC", 8) == (NONE, BTC)
        assert self.define("PAIR", (1, 0, 1, -2)) == (NONE, PAIR)
        assert self.define("HALF", (2, 0, 5, -3)) == (NONE, HALF)
        assert self.engine.create_account(7, USDT, CROSS, 1000, cash) == NONE
        self.mark(PAIR, 1000)
        self.mark(HALF, 500)
        if coins:
            reason, *_ = self.engine.adjust_collateral(7, BTC, coins, False, NOW)
            assert reason == NONE

    def define(self, symbol: str, steps: tuple[int, ...], **terms: Any) -> tuple[int, int]:
        terms = {"base_asset_id": BTC, "taker_fee_ppb": 10_000_000} | terms
        kind, asset_id = terms.pop("kind", SPOT), terms.pop("asset_id", USDT)
        schedule_id = terms.pop("schedule_id", 0)
        return self.engine.upsert_instrument(symbol, kind, asset_id, schedule_id, *steps, **terms)

    @property
    def coins(self) -> int:
        """Return the balance of the base asset."""
        rows = self.engine.balances(7)
        assert rows is not None
        return sum(row.amount for row in rows if row.asset_id == BTC)


def test_a_buy_is_paid_in_full() -> None:
    desk = SpotDesk()
    order = desk.check(PAIR, BUY, 1000, 50)
    # 50 lots at 1000 are 50_000, and a fee of 500.
    assert (order.initial_margin_minor, order.available_minor) == (50_500, 49_500)
    assert order.liquidation_status == t.LIQUIDATION_STATUS_UNSPECIFIED
    refused = desk.check(PAIR, BUY, 1000, 50)
    assert refused.reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert refused.max_quantity_lots == 49  # 49_490 of 49_500
    filled = desk.fill(order.reservation_id, 990, 20, fee=198)
    assert (filled.position_lots, filled.realised_pnl_minor) == (0, 0)
    assert desk.cash == 100_000 - 19_800 - 198
    assert desk.engine.balances(7) == [BalanceRow(BTC, 20 * LOT)]
    # 30 are left: 30_300.
    assert filled.available_minor == 80_002 - 30_300


def test_a_sell_needs_what_it_sells() -> None:
    desk = SpotDesk(cash=1_000, coins=10 * LOT)
    first = desk.check(PAIR, SELL, 1000, 4)
    assert (first.reason, first.initial_margin_minor) == (NONE, 40)
    # The other pair sells the same coins: 8 lots of it take 4.
    assert desk.check(HALF, SELL, 500, 8).reason == NONE
    refused = desk.check(PAIR, SELL, 1000, 3)
    assert refused.reason == t.REASON_CODE_BALANCE_INSUFFICIENT
    assert refused.max_quantity_lots == 2
    (violation,) = refused.detail.violations
    numbers = (violation.limit, violation.use, violation.order_use)
    assert numbers == (10 * LOT, 8 * LOT, 3 * LOT)
    # What is for sale cannot be withdrawn: 2 may go.
    withdraw = desk.engine.adjust_collateral
    assert withdraw(7, BTC, -2 * LOT - 1, False, NOW)[0] == t.REASON_CODE_EXCEEDS_AVAILABLE
    assert withdraw(7, BTC, -2 * LOT, False, NOW)[0] == NONE
    desk.fill(first.reservation_id, 1010, 4)
    assert (desk.cash, desk.coins) == (1_000 + 4_040, 4 * LOT)


def test_an_amendment_counts_without_the_old_order() -> None:
    desk = SpotDesk(cash=1_000, coins=10 * LOT)
    order = desk.check(PAIR, SELL, 1000, 8)
    assert desk.amend(order.reservation_id, 1001, 10).reason == NONE
    refused = desk.amend(order.reservation_id, 1001, 11)
    assert refused.reason == t.REASON_CODE_BALANCE_INSUFFICIENT
    assert refused.max_quantity_lots == 10


def test_a_late_fill_may_leave_a_debt_and_a_bust_takes_it_back() -> None:
    desk = SpotDesk(coins=5 * LOT)
    order = desk.check(PAIR, SELL, 1000, 5)
    desk.execute(orders_pb.EXECUTION_KIND_CANCEL, order.reservation_id)
    assert desk.engine.adjust_collateral(7, BTC, -5 * LOT, False, NOW)[0] == NONE
    late = desk.fill(order.reservation_id, 1000, 3)
    assert late.reason == t.REASON_CODE_RESERVATION_CLOSED
    assert (desk.cash, desk.coins) == (103_000, -3 * LOT)
    # A debt in an asset without a definition cannot be valued.
    assert late.margin_unknown
    original = {"original_execution_id": desk.next_id}
    corrected = desk.execute(
        orders_pb.EXECUTION_KIND_CORRECTION, order.reservation_id, 1010, 1, **original
    )
    assert corrected.reason == NONE
    assert (desk.cash, desk.coins) == (101_010, -LOT)
    original = {"original_execution_id": desk.next_id}
    desk.execute(orders_pb.EXECUTION_KIND_BUST, order.reservation_id, **original)
    assert (desk.cash, desk.coins) == (100_000, 0)


def test_a_fee_in_the_base_asset_comes_off_what_is_bought() -> None:
    desk = SpotDesk()
    order = desk.check(PAIR, BUY, 1000, 10)
    fill = orders_pb.EXECUTION_KIND_FILL
    fee = {"fee_minor": 1_000, "fee_asset_id": BTC}
    desk.execute(fill, order.reservation_id, 1000, 10, **fee)
    assert (desk.cash, desk.coins) == (90_000, 10 * LOT - 1_000)


def test_what_is_bought_is_no_drawdown() -> None:
    desk = SpotDesk()
    drawdown = (3, 7, 0, t.LIMIT_KIND_DRAWDOWN_MAX)
    loss = (3, 7, 0, t.LIMIT_KIND_DAILY_LOSS_MAX)
    for limit in (drawdown, loss):
        assert desk.engine.set_limit(*limit, 1_000, 0, 1, NOW) == NONE
    order = desk.check(PAIR, BUY, 1000, 50)
    desk.fill(order.reservation_id, 1000, 50, fee=500)
    assert desk.engine.limit_use(*drawdown, NOW) == 500
    assert desk.engine.limit_use(*loss, NOW) == 500


def test_room_for_the_base_balance_is_looked_up_with_the_order() -> None:
    desk = SpotDesk(balances_max=1)
    assert desk.engine.create_asset("ETH", 8)[0] == NONE
    assert desk.engine.adjust_collateral(7, 3, 5, False, NOW)[0] == NONE
    assert desk.check(PAIR, BUY, 1000, 1).reason == t.REASON_CODE_BALANCES_FULL
    assert desk.check(PAIR, BUY, 1000, 1, mode=2).reason == NONE
    assert desk.engine.adjust_collateral(7, 3, -5, False, NOW)[0] == NONE
    order = desk.check(PAIR, BUY, 1000, 1)
    assert order.reason == NONE
    assert desk.engine.adjust_collateral(7, 3, 5, False, NOW)[0] == NONE
    full = desk.fill(order.reservation_id, 1000, 1)
    assert full.reason == t.REASON_CODE_BALANCES_FULL


def test_there_is_no_position_to_close_or_change() -> None:
    desk = SpotDesk(coins=5 * LOT)
    engine = desk.engine
    flags = orders_pb.ORDER_FLAG_REDUCE_ONLY
    refused = desk.check(PAIR, SELL, 1000, 1, flags=flags)
    assert refused.reason == t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE
    flags = orders_pb.ORDER_FLAG_CLOSE_POSITION
    refused = desk.check(PAIR, SELL, 1000, 0, flags=flags)
    assert refused.reason == t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE
    invalid = t.REASON_CODE_DEFINITION_INVALID
    assert engine.load_position(7, PAIR, 0, 1, 1000, 0)[0] == invalid
    assert engine.apply_funding(PAIR, 1, 0, NOW, now_ns=NOW)[0] == invalid
    assert engine.settle_instrument(PAIR, 1000, now_ns=NOW)[0] == invalid
    transfer = engine.transfer_margin(7, PAIR, 1, False, NOW)
    assert transfer[0] == t.REASON_CODE_NO_ISOLATED_POSITION
    mode = engine.change_margin_mode(7, PAIR, t.MARGIN_MODE_ISOLATED, False, NOW)
    assert mode[0] == t.REASON_CODE_POSITION_NOT_FLAT
    leverage = engine.set_leverage(7, PAIR, 100, False, NOW)
    assert leverage[0] == t.REASON_CODE_LEVERAGE_OUT_OF_RANGE


def test_it_has_one_position_side_in_every_mode() -> None:
    desk = SpotDesk(coins=5 * LOT)
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE) == NONE
    long = desk.check(PAIR, BUY, 1000, 1, position_side=t.POSITION_SIDE_LONG)
    assert long.reason == t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED
    for side in (t.POSITION_SIDE_UNSPECIFIED, t.POSITION_SIDE_NET):
        assert desk.check(PAIR, SELL, 1000, 1, position_side=side).reason == NONE


def test_a_bought_coin_can_be_collateral() -> None:
    desk = SpotDesk()
    half = [(0, 500_000_000)]
    assert desk.engine.define_collateral(BTC, USDT, PAIR, half) == NONE
    order = desk.check(PAIR, BUY, 1000, 50)
    filled = desk.fill(order.reservation_id, 1000, 50)
    # Half of 50 lots at 1000 counts.
    assert filled.available_minor == 50_000 + 25_000


@pytest.mark.parametrize(
    ("steps", "change", "reason"),
    [
        ((1, 0, 1, -2), {}, NONE),
        ((1, 0, 1, -2), {"base_asset_id": 0}, t.REASON_CODE_ASSET_UNKNOWN),
        ((1, 0, 1, -2), {"base_asset_id": 9}, t.REASON_CODE_ASSET_UNKNOWN),
        ((1, 0, 1, -2), {"base_asset_id": USDT}, t.REASON_CODE_DEFINITION_INVALID),
        ((1, 0, 1, -2), {"schedule_id": 1}, t.REASON_CODE_DEFINITION_INVALID),
        ((1, 0, 1, -2), {"option_rule_id": 1}, t.REASON_CODE_DEFINITION_INVALID),
        ((1, 0, 1, -2), {"expiry_ns": 5}, t.REASON_CODE_DEFINITION_INVALID),
        ((1, 0, 1, -2), {"underlying_id": 1}, t.REASON_CODE_DEFINITION_INVALID),
        ((1, 0, 1, -2), {"multiplier_mantissa": 2}, t.REASON_CODE_DEFINITION_INVALID),
        ((1, 0, 10, -2), {"multiplier_exponent": -1}, t.REASON_CODE_DEFINITION_INVALID),
        ((1, 7, 1, -9), {}, t.REASON_CODE_DEFINITION_INVALID),  # B = 0.1
        ((1, -3, 1, 5), {}, t.REASON_CODE_DEFINITION_INVALID),  # B = 10^13
        ((1, 0, 1, -2), {"kind": 2, "expiry_ns": 5}, t.REASON_CODE_DEFINITION_INVALID),
    ],
)
def test_a_pair(steps: tuple[int, ...], change: dict[str, int], reason: int) -> None:
    desk = SpotDesk()
    assert desk.define("NEW", steps, **change)[0] == reason


def test_the_base_asset_of_a_pair_stays() -> None:
    desk = SpotDesk()
    assert desk.engine.create_asset("ETH", 8) == (NONE, 3)
    changed = desk.define("PAIR", (1, 0, 1, -2), base_asset_id=3)
    assert changed == (t.REASON_CODE_FIELD_IMMUTABLE, 0)
