"""Short options of the reference against venues' examples and figures by hand."""

from typing import Any

import pytest

from riskd.core.rows import InstrumentRow, PositionRow, ScheduleRow, Tier
from riskd.reference import ReferenceEngine
from riskd.reference.options import short_margin
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import BUY, CROSS, NOW, SELL, Desk

UNDERLYING, OPTION, OTHER = 1, 2, 3
CALL, PUT = 1, 2
LINEAR_OPTION, INVERSE_OPTION = 2, 6
NONE = t.REASON_CODE_NONE
RULE = (150_000_000, 100_000_000, 75_000_000)


class OptionDesk(Desk):
    """Account 7, an underlying with ticks of 0.1, and an option on it with or without a rule.

    The rule and the schedule are 1 and 2; lots are 1, marks count in ticks.
    """

    def __init__(
        self,
        option_type: int,
        strike: int,
        *,
        kind: int = LINEAR_OPTION,
        scale: int = 2,
        tick: tuple[int, int] = (1, -1),
        lot: tuple[int, int] = (1, 0),
        rule: tuple[int, int, int] = RULE,
        put_maintenance: int = 0,
        has_rule: bool = True,
        cash: int = 10**9,
        **terms: Any,
    ) -> None:
        self.engine = ReferenceEngine()
        self.now_ns = NOW
        self.next_id = 0
        assert self.engine.create_asset("COIN", scale)[0] == NONE
        assert self.engine.upsert_option_rule("rule", 1, *rule, put_maintenance) == (NONE, 1)
        tiers = [(0, 20_000_000, 10_000_000, 2_000)]
        assert self.engine.upsert_schedule("s", 1, tiers) == (NONE, 2)
        # A lot of it is small: its tick value must be whole whatever the scale.
        listed = self.engine.upsert_instrument("U", 1, 1, 2, 1, -1, 1, 1)
        assert listed == (NONE, UNDERLYING)
        self.terms = {
            "expiry_ns": 10**18,
            "strike_units": strike,
            "option_type": option_type,
            "underlying_id": UNDERLYING,
            "option_rule_id": 1 if has_rule else 0,
        } | terms
        self.steps = (*tick, *lot)
        assert self.define("O", kind) == (NONE, OPTION)
        assert self.engine.create_account(7, 1, CROSS, 1000, cash) == NONE

    def define(self, symbol: str, kind: int, **terms: Any) -> tuple[int, int]:
        return self.engine.upsert_instrument(symbol, kind, 1, 0, *self.steps, **self.terms | terms)

    @property
    def option(self) -> PositionRow:
        rows = self.engine.positions(7)
        assert rows is not None
        (row,) = [each for each in rows if each.instrument_id == OPTION]
        return row


def bitcom_put(**rest: Any) -> OptionDesk:
    """The put at 1850 of bit.com's example: underlying 2098, mark 2.4."""
    desk = OptionDesk(PUT, 18_500, put_maintenance=1, **rest)
    desk.mark(UNDERLYING, 20_980)
    desk.mark(OPTION, 24)
    return desk


# --- Venues' examples -----------------------------------------------------------------------------


def test_bitcom_example_of_a_short_put() -> None:
    # Source: hc.bitexch.dev/en/articles/9771460: 50 puts require 10,610 and 7,987.50.
    desk = bitcom_put()
    desk.trade(OPTION, SELL, 24, 50)
    assert desk.option.initial_margin == 1_061_000
    assert (desk.option.maintenance, desk.option.liquidation_requirement) == (798_750, 798_750)
    summary = desk.engine.summary(7)
    assert summary is not None
    assert (summary.initial_margin, summary.cross_maintenance) == (1_061_000, 798_750)
    assert summary.cross_liquidation_requirement == 798_750
    assert summary.cross_pnl == 0
    assert summary.cash == 10**9 + 50 * 240


def test_deribit_position_of_a_short_call_in_coin() -> None:
    # Source: a live position response of Deribit, ETH-25AUG23-2100-C: 0.117497423, 0.092497423.
    desk = OptionDesk(CALL, 21_000, kind=INVERSE_OPTION, scale=9, tick=(1, -9))
    desk.mark(UNDERLYING, 18_824)
    desk.mark(OPTION, 17_497_423)
    desk.trade(OPTION, SELL, 17_497_423, 1)
    assert desk.option.initial_margin == 117_497_423
    assert desk.option.maintenance == 92_497_423


def test_okx_example_of_orders() -> None:
    # Source: a copy of OKX's guide (365shuku.com/13503): 100 contracts of 0.1 coin with a margin of
    # 0.01932 each, sold at a premium of 0.006 with a fee of 0.00002: 1.334 coins once the premium
    # is there. 0.01932 of a lot with its mark of 0.0575 is a rate of 13.57 per cent.
    steps: dict[str, Any] = {"kind": INVERSE_OPTION, "scale": 8, "tick": (5, -4), "lot": (1, -1)}
    rule = (135_700_000, 135_700_000, 0)
    desk = OptionDesk(CALL, 60_000, rule=rule, taker_fee_ppb=3_333_333, **steps)
    desk.mark(UNDERLYING, 59_000)
    desk.mark(OPTION, 115)
    order = desk.check(OPTION, SELL, 120, 100)
    assert order.initial_margin_minor == 193_200_000 + 200_000
    filled = desk.fill(order.reservation_id, 120, 100, fee=200_000)
    assert 10**9 - filled.available_minor == 133_400_000
    # Bought for 0.0475 of a coin, with the same fee: 0.477 coins.
    desk = OptionDesk(CALL, 60_000, rule=rule, taker_fee_ppb=4_210_526, **steps)
    desk.mark(OPTION, 115)
    assert desk.check(OPTION, BUY, 95, 100).initial_margin_minor == 47_700_000


# --- By hand --------------------------------------------------------------------------------------


def row_of(kind: int, option_type: int, strike: int) -> InstrumentRow:
    terms = {"strike_units": strike, "option_type": option_type}
    return InstrumentRow(2, "O", kind, 1, 0, 1, -1, 1, 0, **terms)


def rule_of(a: int, b: int, c: int, put_maintenance: int) -> ScheduleRow:
    million = 10**6
    tiers = (Tier(0, a * million, c * million, 0, 100),)
    return ScheduleRow(1, "r", 1, 1, 0, 0, tiers, 20, 1, b * million, put_maintenance, 1)


@pytest.mark.parametrize(
    ("option_type", "strike", "put_maintenance", "initial", "maintenance"),
    [
        # S = 1000 ticks, T = 40, a lot at a tick is 10: max(150 - otm, 100) + 40, 75 + 40.
        (CALL, 900, 0, 1900, 1150),
        (CALL, 1030, 0, 1600, 1150),
        (CALL, 1100, 0, 1400, 1150),
        (PUT, 1100, 0, 1900, 1150),
        (PUT, 970, 0, 1600, 1150),
        (PUT, 970, 1, 1600, 1150),  # 75 of a mark of 40 is less
    ],
)
def test_what_a_lot_requires(
    option_type: int, strike: int, put_maintenance: int, initial: int, maintenance: int
) -> None:
    rule = rule_of(150, 100, 75, put_maintenance)
    margin = short_margin(row_of(LINEAR_OPTION, option_type, strike), rule, 2, 1000, 40)
    assert (float(margin.initial), float(margin.maintenance)) == (initial, maintenance)


def test_a_dear_put_is_maintained_on_its_mark() -> None:
    # T = 2000 above S = 1000: 0.075 * 2000 + 2000; initial max(150, 100) + 2000 is no less.
    put = row_of(LINEAR_OPTION, PUT, 3000)
    margin = short_margin(put, rule_of(150, 100, 75, 1), 2, 1000, 2000)
    assert (float(margin.initial), float(margin.maintenance)) == (21_500, 21_500)
    margin = short_margin(put, rule_of(150, 100, 75, 0), 2, 1000, 2000)
    assert (float(margin.initial), float(margin.maintenance)) == (21_500, 20_750)
    # In coin: T = 20 ticks of 0.1, 2 coins of 100 minor units: 0.075 * 2 + 2; 0.15 + 2.
    put = row_of(INVERSE_OPTION, PUT, 3000)
    margin = short_margin(put, rule_of(100, 100, 75, 1), 2, 1000, 20)
    assert (float(margin.initial), float(margin.maintenance)) == (215, 215)
    margin = short_margin(put, rule_of(100, 100, 75, 0), 2, 1000, 20)
    assert (float(margin.initial), float(margin.maintenance)) == (210, 207.5)


def test_an_opening_sell_holds_what_it_will_require() -> None:
    desk = bitcom_put(taker_fee_ppb=10_000_000)
    # 10 * 212.20 and a fee of 1 per cent of 30.00.
    assert desk.check(OPTION, SELL, 30, 10).initial_margin_minor == 212_200 + 30
    # A sell at a price that nobody pays does not carry it.
    assert desk.check(OPTION, SELL, 10**6, 1).reserved_minor == 21_220 + 10**5
    # Filled, its premium is cash.
    desk = bitcom_put()
    order = desk.check(OPTION, SELL, 30, 10)
    assert desk.fill(order.reservation_id, 30, 10).available_minor == 10**9 + 3000 - 212_200
    assert (desk.option.lots, desk.option.entry_value) == (-10, 3000)
    # A buy that closes holds nothing but its fee; what it opens is paid in full.
    assert desk.check(OPTION, BUY, 40, 10).initial_margin_minor == 212_200
    assert desk.check(OPTION, BUY, 40, 5).initial_margin_minor == 212_200 + 5 * 400
    closing = desk.trade(OPTION, BUY, 40, 10)
    assert closing.realised_pnl_minor == 3000 - 4000


def test_a_sell_of_a_long_opens_beyond_it() -> None:
    desk = bitcom_put()
    desk.trade(OPTION, BUY, 24, 10)
    assert desk.check(OPTION, SELL, 30, 10).initial_margin_minor == 0
    # 4 of 14 open: 4 * 212.20.
    assert desk.check(OPTION, SELL, 30, 4).initial_margin_minor == 84_880


def test_a_short_option_needs_the_underlyings_mark() -> None:
    desk = OptionDesk(CALL, 21_000)
    desk.mark(OPTION, 24)
    assert desk.check(OPTION, SELL, 24, 1).reason == t.REASON_CODE_MARK_MISSING
    assert desk.check(OPTION, BUY, 24, 5, mode=2).reason == NONE
    stale = {"mark_age_max_ns": 10}
    assert desk.engine.upsert_instrument("U", 1, 1, 2, 1, -1, 1, 1, **stale)[0] == NONE
    desk.mark(UNDERLYING, 20_000)
    order = desk.check(OPTION, SELL, 24, 1)
    assert order.reason == NONE
    desk.now_ns += 11
    # The working sell opens: a buy beside it, and a withdrawal, need the mark too.
    assert desk.check(OPTION, SELL, 24, 1).reason == t.REASON_CODE_MARK_STALE
    assert desk.check(OPTION, BUY, 24, 1).reason == t.REASON_CODE_MARK_STALE
    withdrawal = desk.engine.adjust_collateral(7, 1, -1, False, desk.now_ns)
    assert withdrawal[0] == t.REASON_CODE_MARK_STALE
    # What closes does not.
    desk.now_ns -= 11
    desk.fill(order.reservation_id, 24, 1)
    desk.now_ns += 11
    assert desk.check(OPTION, BUY, 24, 1).reason == NONE


def test_a_short_that_the_pool_cannot_carry_is_refused() -> None:
    rule = (75_000_000, 75_000_000, 75_000_000)
    desk = OptionDesk(CALL, 10_000, rule=rule, cash=1_000)
    desk.mark(UNDERLYING, 10_000)
    desk.mark(OPTION, 10)
    # One requires 7500 + 100 and brings 6600: the pool after it has 7600, not more.
    reply = desk.check(OPTION, SELL, 660, 1)
    margin, born = reply.detail.violations
    assert margin.reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert (margin.limit, margin.order_use) == (1000, 7600)
    assert born.reason == t.REASON_CODE_BORN_LIQUIDATABLE
    assert (born.limit, born.order_use) == (7600, 7600)
    (margin,) = desk.check(OPTION, SELL, 661, 1).detail.violations
    assert margin.reason == t.REASON_CODE_MARGIN_INSUFFICIENT


def test_a_short_option_counts_behind_a_contract() -> None:
    desk = bitcom_put(cash=2_000_000)
    desk.trade(UNDERLYING, BUY, 20_980, 1)  # 10 of it at 2098: 2,098,000, 10x
    before = desk.position.liquidation_price
    desk.trade(OPTION, SELL, 24, 10)
    # 2400 more cash, 159,750 of requirement: (159_750 - 2400) / 99 of 100 a tick.
    assert desk.position.liquidation_price - before == pytest.approx(157_350 / 99, abs=1)
    assert desk.option.liquidation_status == t.LIQUIDATION_STATUS_UNSPECIFIED
    assert not desk.option.liquidatable
    desk.mark(OPTION, 20_000)  # 10 * (157.35 + 2000.00) are more than the pool has.
    assert desk.option.liquidatable


def test_without_a_rule_an_option_is_long_only() -> None:
    desk = OptionDesk(CALL, 21_000, has_rule=False)
    desk.mark(UNDERLYING, 20_000)
    desk.mark(OPTION, 24)
    reply = desk.check(OPTION, SELL, 24, 1)
    assert reply.reason == t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED
    # A rule may be given later.
    assert desk.define("O", LINEAR_OPTION, option_rule_id=1) == (NONE, OPTION)
    assert desk.check(OPTION, SELL, 24, 1).reason == NONE


# --- Definitions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("rule", 1, 150, 100, 75, 1), NONE),
        (("", 1, 150, 100, 75), t.REASON_CODE_DEFINITION_INVALID),
        (("new", 9, 150, 100, 75), t.REASON_CODE_ASSET_UNKNOWN),
        (("new", 1, 10**9, 10**9, 10**9), NONE),
        (("new", 1, 10**9 + 1, 1, 1), t.REASON_CODE_DEFINITION_INVALID),
        (("new", 1, 100, 101, 1), t.REASON_CODE_DEFINITION_INVALID),
        (("new", 1, 100, -1, 1), t.REASON_CODE_DEFINITION_INVALID),
        (("new", 1, 100, 1, -1), t.REASON_CODE_DEFINITION_INVALID),
        (("new", 1, 100, 1, 10**9 + 1), t.REASON_CODE_DEFINITION_INVALID),
        (("new", 1, 100, 1, 1, 3), t.REASON_CODE_DEFINITION_INVALID),
        (("s", 1, 100, 1, 1), t.REASON_CODE_FIELD_IMMUTABLE),
    ],
)
def test_an_option_rule(arguments: tuple[Any, ...], reason: int) -> None:
    desk = OptionDesk(CALL, 21_000)
    assert desk.engine.upsert_option_rule(*arguments)[0] == reason


def test_a_rule_is_no_schedule() -> None:
    desk = OptionDesk(CALL, 21_000)
    tiers = [(0, 20_000_000, 10_000_000, 2_000)]
    refused = desk.engine.upsert_schedule("rule", 1, tiers)
    assert refused == (t.REASON_CODE_FIELD_IMMUTABLE, 0)
    refused = desk.engine.upsert_instrument("V", 1, 1, 1, 1, -1, 1, 1)
    assert refused == (t.REASON_CODE_DEFINITION_INVALID, 0)
    (rule, _) = desk.engine.schedules()
    assert (rule.family, rule.version) == (20, 1)


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        (LINEAR_OPTION, {}, NONE),
        (LINEAR_OPTION, {"option_rule_id": 2}, t.REASON_CODE_DEFINITION_INVALID),
        (LINEAR_OPTION, {"option_rule_id": 3}, t.REASON_CODE_SCHEDULE_UNKNOWN),
        (LINEAR_OPTION, {"underlying_id": 0}, t.REASON_CODE_DEFINITION_INVALID),
        (LINEAR_OPTION, {"mark_units_per_tick": 2}, t.REASON_CODE_DEFINITION_INVALID),
        (INVERSE_OPTION, {"mark_units_per_tick": 2}, NONE),
        (INVERSE_OPTION, {"option_rule_id": 0}, NONE),
        (
            INVERSE_OPTION,
            {"option_rule_id": 0, "underlying_id": 0},
            t.REASON_CODE_DEFINITION_INVALID,
        ),
    ],
)
def test_an_option_with_a_rule(kind: int, change: dict[str, int], reason: int) -> None:
    desk = OptionDesk(CALL, 21_000)
    assert desk.define("NEW", kind, **change)[0] == reason
