"""The reference engine against figures computed by hand from docs/decision.md.

The units are those of tests/unit/reference_desk.py.
"""

from decimal import Decimal, localcontext
from fractions import Fraction

import mpmath  # type: ignore[import-untyped]
import pytest

from riskd import reference
from riskd.reference import MalformedRequestError, ReferenceEngine
from riskd.reference.margin import Contract, maintenance
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import BUY, CALL, CROSS, ETH, ISOLATED, NOW, SELL, XBT, Desk


def margin_in_tier(contract: Contract, notional: int) -> tuple[int, int]:
    """Return the maintenance margin of a notional and the number of its tier."""
    tier = contract.rates(1, 1, notional).tier
    return maintenance(contract, 1, 0, notional), tier


def test_deductions_make_maintenance_continuous() -> None:
    desk = Desk()
    (schedule,) = desk.engine.schedules()
    assert [tier.deduction for tier in schedule.tiers] == [0, 10_000, 160_000]
    # At the floor 1_000_000 both neighbours give 10_000; 1 minor unit more is in the next tier:
    # ceil(0.02 * 1_000_001) - 10_000 = 20_001 - 10_000.
    contract = Contract(desk.engine.instruments()[0], schedule, scale=2, leverage=100)
    assert margin_in_tier(contract, 1_000_000) == (10_000, 0)
    assert margin_in_tier(contract, 1_000_001) == (10_001, 1)
    # ceil(0.05 * 6_000_000) - 160_000 = 140_000.
    assert margin_in_tier(contract, 6_000_000) == (140_000, 2)
    assert margin_in_tier(contract, 0) == (0, 0)


def test_isolated_long_at_ten_times_leverage() -> None:
    desk = Desk()
    desk.account(ISOLATED, 1000, 50_000)
    desk.mark(XBT, 2000)  # 1000 ticks
    order = desk.check(XBT, BUY, 1000, 100)
    # value = 1000 * 100 = 100_000; margin 100_000 / 10 = 10_000, no open loss, no fee.
    assert (order.initial_margin_minor, order.available_minor) == (10_000, 40_000)
    assert order.reserved_minor == 10_000
    # Long, w = 10_000, v = 1/2: (V - w) / ((1 - 0.01) |x| v) = 90_000 / (0.99 * 100 / 2) = 1818.18.
    # floor: 1818 mark units, ceil(1818 / 2) = 909 ticks.
    assert order.liquidation_status == t.LIQUIDATION_STATUS_AT_PRICE
    assert order.liquidation_price_ticks == 909
    # Bankrupt at 90_000 / 50 = 1800 units = 900 ticks.
    assert order.detail.bankruptcy_price_ticks == 900
    assert order.detail.position_maintenance_margin_minor == 1000
    assert order.detail.equity_minor == 10_000
    assert order.detail.margin_ratio_ppm == 100_000  # 1000 / 10_000
    assert order.detail.leverage_hundredths == 1000
    execution = desk.fill(order.reservation_id, 1000, 100, fee=50)
    assert execution.isolated_wallet_minor == 10_000
    assert execution.available_minor == 39_950
    assert execution.liquidation_price_ticks == 909
    assert desk.position.liquidation_price == 1818
    assert desk.position.bankruptcy_price == 1800
    desk.mark(XBT, 1819)  # N = 90_950, equity 950, requirement 909.5
    assert not desk.position.liquidatable
    desk.mark(XBT, 1818)  # N = 90_900, equity 900, requirement 909
    assert desk.position.liquidatable


def test_isolated_short_is_liquidated_above_its_entry() -> None:
    desk = Desk()
    desk.account(ISOLATED, 1000, 50_000)
    desk.mark(XBT, 2000)
    order = desk.check(XBT, SELL, 1000, 100)
    # (V + w) / ((1 + 0.01) |x| v) = 110_000 / (1.01 * 50) = 2178.2: ceil 2179, 1089 ticks.
    assert order.liquidation_price_ticks == 1089
    # Bankrupt at floor(110_000 / 50) = 2200 units = 1100 ticks.
    assert order.detail.bankruptcy_price_ticks == 1100


def test_liquidation_price_is_in_the_tier_at_that_price() -> None:
    desk = Desk()
    desk.account(ISOLATED, 1000, 10_000_000)
    desk.mark(XBT, 2000)
    # value 1_100_000 at entry is tier 1, margin 110_000. The price by tier:
    # tier 0: (1_100_000 - 110_000) / (0.99 * 1100 / 2) = 1818.18 (N = 1_000_000: its upper end)
    # tier 1: (1_100_000 - 110_000 - 10_000) / (0.98 * 550) = 1818.18: the same, at the floor.
    order = desk.check(XBT, BUY, 1000, 1100)
    assert order.liquidation_price_ticks == 909
    # value 1_200_000, margin 120_000: tier 0: 1_080_000 / (0.99 * 600) = 1818.18;
    # tier 1: 1_070_000 / (0.98 * 600) = 1819.73: the larger one, floor 1819, 910 ticks.
    desk.mark(XBT, 2000)
    order = desk.check(XBT, BUY, 1000, 1200, mode=orders_pb.CHECK_MODE_CHECK_ONLY)
    assert order.liquidation_price_ticks == 910


def test_cross_requirement_and_liquidation_with_another_position() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 20_000)
    desk.mark(XBT, 2000)
    desk.mark(ETH, 2000)
    desk.trade(ETH, SELL, 1000, 40)
    desk.mark(ETH, 2100)  # N = 42_000: pnl 40_000 - 42_000 = -2000, requirement 420
    order = desk.check(XBT, BUY, 1000, 100)
    # initial: 42_000 / 10 + 100_000 / 10 = 14_200; available 20_000 - 2000 - 14_200 = 3800.
    assert (order.initial_margin_minor, order.available_minor) == (14_200, 3800)
    assert order.reserved_minor == 10_000
    # w = 20_000 - 2000 - 420 = 17_580: (100_000 - 17_580) / (0.99 * 50) = 1665.05: 1665, 833 ticks.
    assert order.liquidation_price_ticks == 833
    # Bankruptcy without the requirement: (100_000 - 18_000) / 50 = 1640 units = 820 ticks.
    assert order.detail.bankruptcy_price_ticks == 820
    assert order.detail.equity_minor == 18_000
    # (1000 + 420) / 18_000 = 0.0788888...
    assert order.detail.margin_ratio_ppm == 78_889
    summary = desk.engine.summary(7)
    assert summary is not None
    assert (summary.cross_pnl, summary.cross_maintenance) == (-2000, 420)


def test_the_worst_side_counts_and_sides_are_not_summed() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 100_000)
    desk.mark(XBT, 2000)
    desk.trade(XBT, BUY, 1000, 100)
    # Sell 150: 100 of them close for free. open_value = 50_000; the buy side holds 100_000.
    order = desk.check(XBT, SELL, 1000, 150)
    assert order.reserved_minor == 0
    assert order.initial_margin_minor == 10_000
    # Sell 200 more: 250 of 350 lots open, 250_000 against 100_000 of the buy side.
    order = desk.check(XBT, SELL, 1000, 200)
    assert order.initial_margin_minor == 25_000
    # A buy of 100 brings the buy side to 200_000: still the smaller one.
    order = desk.check(XBT, BUY, 1000, 100)
    assert (order.reserved_minor, order.initial_margin_minor) == (0, 25_000)


def test_open_loss_and_fee_are_reserved() -> None:
    desk = Desk(taker_fee_ppb=1_000_000)
    desk.account(CROSS, 1000, 100_000)
    desk.mark(XBT, 2000)
    # Buy 100 at 1010: 101_000 / 10 = 10_100, loss to the mark 1000, fee 0.001 * 101_000 = 101.
    assert desk.check(XBT, BUY, 1010, 100).reserved_minor == 10_100 + 1000 + 101
    # Sell 300 at 990: margined at the mark, 300_000 / 10 = 30_000, loss 3000, fee 300. Its side is
    # the worse one, but both may fill: the loss and the fee of the buy stay.
    order = desk.check(XBT, SELL, 990, 300)
    assert order.initial_margin_minor == 30_000 + 3000 + 300 + 1000 + 101


def test_a_fill_through_zero_closes_and_opens() -> None:
    desk = Desk()
    desk.account(ISOLATED, 1000, 50_000)
    desk.mark(XBT, 2000)
    desk.trade(XBT, BUY, 1000, 100)  # wallet 10_000, cash 40_000
    execution = desk.trade(XBT, SELL, 1020, 150)
    # Closes 100 at a profit of 2000: cash 40_000 + 10_000 + 2000; opens 50: 51_000 / 10 = 5100.
    assert execution.realised_pnl_minor == 2000
    assert execution.position_lots == -50
    assert execution.isolated_wallet_minor == 5100
    assert desk.cash == 52_000 - 5100
    assert desk.position.entry_value == 51_000


def test_part_of_a_position_releases_its_part_of_entry_and_wallet() -> None:
    desk = Desk()
    desk.account(ISOLATED, 1000, 50_000)
    desk.mark(XBT, 2000)
    # V = 3003, need 300.3 and the loss of 3 to the mark: wallet 304, cash 49_696.
    desk.trade(XBT, BUY, 1001, 3)
    execution = desk.trade(XBT, SELL, 1000, 1)
    # released = ceil(3003 / 3) = 1001, pnl = -1, freed = floor(304 / 3) = 101: cash + 100.
    assert execution.realised_pnl_minor == -1
    assert execution.isolated_wallet_minor == 203
    assert desk.cash == 49_696 + 100


def test_a_bankrupt_isolated_position_takes_nothing_from_the_pool() -> None:
    desk = Desk()
    desk.account(ISOLATED, 1000, 50_000)
    desk.mark(XBT, 2000)
    desk.trade(XBT, BUY, 1000, 100)
    desk.mark(XBT, 1700)
    # Sold at 850: loss 15_000, wallet 10_000: 5000 are the asset's deficit.
    execution = desk.trade(XBT, SELL, 850, 100)
    assert execution.realised_pnl_minor == -15_000
    assert execution.liquidation_status == t.LIQUIDATION_STATUS_NO_POSITION
    assert desk.cash == 40_000
    assert desk.engine.state_lines()[-1] == "deficit 1 5000"


def test_a_loss_beyond_the_freed_part_is_paid_by_the_rest_of_the_wallet() -> None:
    desk = Desk()
    desk.account(ISOLATED, 1000, 50_000)
    desk.mark(XBT, 2000)
    desk.trade(XBT, BUY, 1000, 100)
    # Half at 880: freed 5000, loss 6000: the other half of the wallet pays 1000.
    desk.mark(XBT, 1760)
    execution = desk.trade(XBT, SELL, 880, 50)
    assert execution.isolated_wallet_minor == 4000
    assert desk.cash == 40_000


def test_option_premium_is_held_in_full() -> None:
    desk = Desk()
    desk.account(ISOLATED, 1000, 50_000)
    desk.mark(CALL, 100)
    # 100 lots at 100: 10_000 and 1 per cent fee.
    order = desk.check(CALL, BUY, 100, 100)
    assert order.reserved_minor == 10_100
    assert order.liquidation_status == t.LIQUIDATION_STATUS_UNSPECIFIED
    execution = desk.fill(order.reservation_id, 90, 100)
    assert (execution.position_lots, desk.cash) == (100, 41_000)
    # Sold 40 at 95: 3800 come in; profit 3800 - 3600.
    execution = desk.trade(CALL, SELL, 95, 40)
    assert (execution.realised_pnl_minor, desk.cash) == (200, 44_800)
    refusal = desk.check(CALL, SELL, 95, 61)
    assert refusal.reason == t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED
    assert refusal.max_quantity_lots == 60


def test_margin_reject_names_the_largest_quantity() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 5_050)
    desk.mark(XBT, 2000)
    # 51 lots need 5100; 50 need 5000.
    refusal = desk.check(XBT, BUY, 1000, 51)
    assert refusal.reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert refusal.max_quantity_lots == 50
    (violation,) = refusal.detail.violations
    assert (violation.limit, violation.use, violation.order_use) == (5050, 0, 5100)


def test_position_notional_is_bounded_by_leverage() -> None:
    desk = Desk()
    desk.account(CROSS, 2500, 10**9)
    desk.mark(XBT, 2000)
    # 25x is allowed up to the floor of the first tier that allows less: 1_000_000.
    assert desk.check(XBT, BUY, 1000, 1000).reason == t.REASON_CODE_NONE
    refusal = desk.check(XBT, BUY, 1000, 7)
    assert refusal.reason == t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX
    (violation,) = refusal.detail.violations
    assert (violation.limit, violation.use, violation.order_use) == (1_000_000, 1_000_000, 7000)


def test_a_repeat_returns_the_first_answer() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 5_000)
    desk.mark(XBT, 2000)
    first = desk.check(XBT, BUY, 1000, 10)
    revision = desk.engine.revision
    desk.next_id -= 1
    assert desk.check(XBT, BUY, 1000, 10, sent_time_ns=99) == first
    desk.next_id -= 1
    other = desk.check(XBT, BUY, 1000, 11)
    assert other.reason == t.REASON_CODE_CLIENT_ORDER_ID_REUSED
    assert desk.engine.revision == revision


def test_an_amendment_is_a_delta() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 20_000)
    desk.mark(XBT, 2000)
    order = desk.check(XBT, BUY, 1000, 100)  # 100_000 / 10 = 10_000 held
    # 150 lots need 15_000: more than the 10_000 that are left, but the old order's 10_000 go.
    reply = desk.amend(order.reservation_id, 1000, 150)
    assert (reply.decision, reply.reason) == (t.DECISION_ACCEPTED, t.REASON_CODE_NONE)
    assert (reply.reservation_id, reply.revision) == (order.reservation_id, order.revision + 1)
    assert (reply.initial_margin_minor, reply.available_minor) == (15_000, 5_000)
    assert reply.reserved_minor == 5_000
    # From the fill of all 150: w = 20_000, (150_000 - 20_000) / (0.99 * 75) = 1750.8: 875.4 ticks.
    assert reply.liquidation_price_ticks == 875
    # Down to 900 ticks: 135_000 / 10, which gives 1500 back.
    reply = desk.amend(order.reservation_id, 900, 150)
    assert (reply.initial_margin_minor, reply.available_minor) == (13_500, 6_500)
    assert reply.reserved_minor == -1_500
    # Up to 1010, above the mark: 10.1 * 150 = 15_150 and the open loss of 10 * 150.
    reply = desk.amend(order.reservation_id, 1010, 150)
    assert reply.reserved_minor == 15_150 + 1_500 - 13_500
    line = f"order {order.reservation_id} 7 1 1 1 1 1 1 0 0 1010 150 150 1010 1500 0 0 0 {NOW}"
    assert line in desk.engine.state_lines()


def test_an_amendment_counts_what_is_filled() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 20_000)
    desk.mark(XBT, 2000)
    order = desk.check(XBT, BUY, 1000, 100)
    desk.fill(order.reservation_id, 1000, 40)
    for quantity in (39, 40):
        reply = desk.amend(order.reservation_id, 1000, quantity)
        assert reply.reason == t.REASON_CODE_AMENDMENT_BELOW_FILLED
        assert (reply.reservation_id, reply.margin_unknown) == (0, True)
    # 41 in all: the 40 held and the 1 left need 41_000 / 10.
    reply = desk.amend(order.reservation_id, 1000, 41)
    assert (reply.initial_margin_minor, reply.reserved_minor) == (4_100, 4_100 - 10_000)
    assert reply.detail.position_lots == 41
    # 200 are all that 20_000 can buy at ten times: 40 filled and 160 working.
    reply = desk.amend(order.reservation_id, 1000, 201)
    assert reply.reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert reply.max_quantity_lots == 200
    (violation,) = reply.detail.violations
    # Without the old order 4000 are held; 161 lots more need 16_100.
    assert (violation.limit, violation.use, violation.order_use) == (16_000, 0, 16_100)


def test_a_refused_amendment_leaves_everything() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 20_000)
    desk.mark(XBT, 2000)
    order = desk.check(XBT, BUY, 1000, 100)
    state = desk.engine.state_hash()
    reply = desk.amend(order.reservation_id, 1000, 201)  # needs 20_100
    assert reply.reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert (reply.reservation_id, reply.revision) == (order.reservation_id, order.revision + 1)
    # The figures are those with the old order.
    assert (reply.initial_margin_minor, reply.available_minor) == (10_000, 10_000)
    assert (reply.reserved_minor, reply.max_quantity_lots) == (0, 200)
    assert desk.amend(order.reservation_id, 0, 100).reason == t.REASON_CODE_PRICE_OUT_OF_RANGE
    assert desk.amend(99, 1000, 100).reason == t.REASON_CODE_RESERVATION_UNKNOWN
    assert desk.engine.state_hash() == state


def test_a_lighter_amendment_passes_while_available_is_negative() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 20_000)
    desk.mark(XBT, 2000)
    desk.trade(XBT, BUY, 1000, 100)
    order = desk.check(XBT, BUY, 950, 80)
    assert order.initial_margin_minor == 10_000 + 7_600
    # Mark 900: N = 90_000, loss 10_000; 9000 + 7600 held of 10_000.
    desk.mark(XBT, 1800)
    state = desk.engine.state_hash()
    for price, quantity in ((950, 81), (949, 80)):
        reply = desk.amend(order.reservation_id, price, quantity)
        assert reply.reason == t.REASON_CODE_MARGIN_INSUFFICIENT
        assert reply.available_minor == 10_000 - 16_600
        # At the old price the 80 lots can stay. Another price must be paid from 10_000 - 9000:
        # a lot at 949 needs 94.9 and its open loss of 49, so six lots 864, and seven 1008.
        assert reply.max_quantity_lots == (80 if price == 950 else 6)
    assert desk.engine.state_hash() == state
    # Half of it: 9000 + 3800, and the loss of 50 ticks to the mark on 40 lots.
    reply = desk.amend(order.reservation_id, 950, 40)
    assert reply.reason == t.REASON_CODE_NONE
    assert reply.initial_margin_minor == 9_000 + 3_800 + 2_000
    assert reply.available_minor == -4_800
    assert reply.reserved_minor == 14_800 - 16_600
    # It passes in reduce-only, but not when halted.
    set_state = desk.engine.set_trading_state
    assert set_state(reference.SCOPE_ACCOUNT, 7, t.TRADING_STATE_REDUCE_ONLY) == t.REASON_CODE_NONE
    assert desk.amend(order.reservation_id, 950, 30).reason == t.REASON_CODE_NONE
    assert desk.amend(order.reservation_id, 950, 31).reason == t.REASON_CODE_ACCOUNT_REDUCE_ONLY
    assert set_state(reference.SCOPE_ACCOUNT, 7, t.TRADING_STATE_HALTED) == t.REASON_CODE_NONE
    assert desk.amend(order.reservation_id, 950, 20).reason == t.REASON_CODE_ACCOUNT_HALTED


def test_the_old_order_is_gone_when_an_amendment_reduces() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 20_000)
    desk.mark(XBT, 2000)
    desk.trade(XBT, BUY, 1000, 100)
    order = desk.check(XBT, SELL, 1000, 60, flags=orders_pb.ORDER_FLAG_REDUCE_ONLY)
    # 100 do not fit beside the 60, but in their place.
    assert desk.amend(order.reservation_id, 1100, 100).reason == t.REASON_CODE_NONE
    reply = desk.amend(order.reservation_id, 1100, 101)
    assert reply.reason == t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE
    assert reply.max_quantity_lots == 100


def test_amendments_have_ids_of_their_own() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 20_000)
    desk.mark(XBT, 2000)
    order = desk.check(XBT, BUY, 1000, 100)
    first = desk.amend(order.reservation_id, 1000, 120, client_order_id=1)
    assert first.reason == t.REASON_CODE_NONE
    revision = desk.engine.revision
    again = desk.amend(order.reservation_id, 1000, 120, client_order_id=1, sent_time_ns=5)
    assert again == first
    other = desk.amend(order.reservation_id, 1000, 121, client_order_id=1)
    assert other.reason == t.REASON_CODE_CLIENT_ORDER_ID_REUSED
    missing = desk.amend(order.reservation_id, 1000, 121, client_order_id=0)
    assert missing.reason == t.REASON_CODE_CLIENT_ORDER_ID_MISSING
    missing = desk.amend(order.reservation_id, 1000, 121, gateway_id=0)
    assert missing.reason == t.REASON_CODE_GATEWAY_ID_MISSING
    assert desk.engine.revision == revision


def test_a_market_order_is_amended_at_the_mark() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 20_000)
    desk.mark(XBT, 2000)
    order = desk.check(XBT, BUY, 0, 100)
    desk.mark(XBT, 2200)  # 1100 ticks, without a buffer
    reply = desk.amend(order.reservation_id, 0, 110)
    assert (reply.initial_margin_minor, reply.reserved_minor) == (12_100, 2_100)
    assert desk.amend(order.reservation_id, 1000, 110).reason == t.REASON_CODE_PRICE_OUT_OF_RANGE


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x08",  # cut
        b"\x50\x01",  # field 10
        b"\x08\x80\x80\x80\x80\x10",  # gateway_id = 2^32
        b"\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # view = -1
        b"\x18\x01",  # client_order_id as a varint
        b"\x19\x00",  # fixed64 of one byte
    ],
)
def test_malformed_amendments_are_refused(request_bytes: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        ReferenceEngine().handle(reference.METHOD_CHECK_AMENDMENT, request_bytes, 0)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x08",  # cut
        b"\x98\x06\x01",  # field 99
        b"\x10\x80\x80\x80\x80\x10",  # instrument_id = 2^32
        b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # side = -1
        b"\x19\x00",  # fixed64 of one byte
        b"\x0d\x00\x00\x00\x00",  # account_id as fixed32
    ],
)
def test_malformed_bytes_are_refused(request_bytes: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        ReferenceEngine().handle(reference.METHOD_CHECK_ORDER, request_bytes, 0)


@pytest.mark.parametrize("x", ["-40", "-9.5", "-8", "-1", "0", "0.3", "2", "7.9", "8.1", "20"])
def test_normal_cdf_agrees_with_mpmath(x: str) -> None:
    with localcontext() as context, mpmath.workdps(80):
        context.prec = 90
        ours = mpmath.mpf(str(reference.normal_cdf(Decimal(x))))
        theirs = mpmath.ncdf(mpmath.mpf(x))
        assert abs(ours - theirs) <= abs(theirs) * mpmath.mpf(10) ** -45


def test_black76_agrees_with_a_textbook_value() -> None:
    # Hull, Options, Futures, and Other Derivatives, example of Black's model: F = 20, K = 20,
    # r = 0.09, sigma = 0.25, T = 4/12: the put is worth 1.12 (1.1166414565 by mpmath).
    greeks = reference.black76(
        is_call=False,
        forward=Fraction(20),
        strike=Fraction(20),
        volatility=Fraction(1, 4),
        years=Fraction(1, 3),
        rate=Fraction(9, 100),
    )
    with mpmath.workdps(50):
        deviation = mpmath.mpf("0.25") * mpmath.sqrt(mpmath.mpf(1) / 3)
        discount = mpmath.exp(-mpmath.mpf("0.03"))
        price = discount * 20 * (mpmath.ncdf(deviation / 2) - mpmath.ncdf(-deviation / 2))
        assert greeks.price_pico == int(mpmath.nint(price * 10**12))
        delta = -discount * mpmath.ncdf(-deviation / 2)
        assert greeks.delta_pico == int(mpmath.nint(delta * 10**12))
    assert round(greeks.price_pico / 10**12, 2) == 1.12
