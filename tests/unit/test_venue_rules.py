"""The rules that venues add, by hand and with venues' numbers, in the engine and the reference."""

from typing import Any

import pytest

from riskd.core.engine import Engine
from riskd.core.rows import PositionRow
from riskd.reference import ReferenceEngine
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import BUY, CROSS, ISOLATED, NOW, SELL
from tests.unit.rule_desk import (
    AT_BANKRUPTCY,
    BY_LOTS,
    CONTRACT,
    ENTRY,
    IN_MAINTENANCE,
    INVALID,
    INVERSE,
    LONG,
    NONE,
    OPTION,
    RESERVED,
    RISK_FACTOR,
    SHORT,
    SPOT,
    WHOLE,
    NewEngine,
    RuleDesk,
)


@pytest.fixture(params=[Engine, ReferenceEngine])
def engine(request: pytest.FixtureRequest) -> NewEngine:
    made: NewEngine = request.param
    return made


# --- Closing fee ----------------------------------------------------------------------------------


def test_the_fee_for_closing_is_in_both_requirements_as_bybit_reports_it(engine: NewEngine) -> None:
    """XRPUSDT long, value 27.1125 at 10x: margins 2.72589075 and 0.28576575.

    Rates 1 per cent and 0.06 per cent; the case bybit-live-margin-1 of the margin vectors.
    """
    desk = RuleDesk(
        engine,
        [(0, 0, 10_000_000, 5_000)],
        {"maintenance_basis": ENTRY, "closing_fee": AT_BANKRUPTCY},
        scale=8,
        steps=(1, -4, 1, 0, 100),
        taker_fee_ppb=600_000,
    )
    desk.account(ISOLATED, 1000, 10**10)
    desk.mark(CONTRACT, 361_500)
    order = desk.check(CONTRACT, BUY, 3615, 75)
    # The fee of the order itself, 0.01626750, comes on top.
    assert order.initial_margin_minor == 272_589_075 + 1_626_750
    assert order.detail.position_initial_margin_minor == 272_589_075
    assert order.detail.position_maintenance_margin_minor == 28_576_575
    desk.fill(order.reservation_id, 3615, 75)
    (row,) = desk.rows
    assert row.isolated_wallet == 272_589_075
    assert (row.maintenance, row.liquidation_requirement) == (28_576_575, 28_576_575)
    # Entry (1 - 1 / 10 + 0.01) and entry (1 - 1 / 10): the fee is in neither.
    assert (row.liquidation_price, row.bankruptcy_price) == (328_965, 325_350)


def test_an_inverse_long_pays_for_closing_what_bybit_reports(engine: NewEngine) -> None:
    """BTCUSD, 5 USD of 0.00069470 BTC at 1x: closing 0.00000105, bankrupt 3599, liquidated 3608.

    Rates 0.5 per cent and 0.075 per cent; bybit-live-inverse-1 of the liquidation vectors.
    """
    desk = RuleDesk(
        engine,
        [(0, 0, 5_000_000, 5_000)],
        {"maintenance_basis": ENTRY, "closing_fee": AT_BANKRUPTCY},
        kind=INVERSE,
        scale=8,
        steps=(5, -1, 1, 0, 100),
        taker_fee_ppb=750_000,
    )
    desk.account(ISOLATED, 100, 10**8)
    desk.load(5, 69_470, 69_470 + 105)
    desk.mark(CONTRACT, 14_395 * 100)
    (row,) = desk.rows
    assert row.maintenance == 348 + 105  # 347.35
    ticks = [-(-price // 100) for price in (row.bankruptcy_price, row.liquidation_price)]
    assert [tick * 0.5 for tick in ticks] == [3599, 3608]


def test_an_amount_for_closing_is_reserved_as_kucoin_reports_it(engine: NewEngine) -> None:
    """0.02 ETH at 4182.1, 23x: posInit 3.6366087, posComm 0.05236717, of a long too.

    The taker's rate is 0.06 per cent; kucoin-report-eth-20211204-fee of the liquidation vectors.
    """
    desk = RuleDesk(
        engine,
        [(0, 0, 5_000_000, 10_000)],
        {"maintenance_basis": ENTRY, "closing_fee": RESERVED},
        scale=8,
        steps=(5, -2, 1, -2, 100),
        taker_fee_ppb=600_000,
    )
    desk.account(ISOLATED, 2300, 10**10)
    desk.mark(CONTRACT, 8_364_200)
    desk.trade(CONTRACT, BUY, 83_642, 2)
    (row,) = desk.rows
    assert row.isolated_wallet == 363_660_870 + 5_236_717
    assert row.maintenance == 41_821_000 + 5_236_717


def test_a_reserved_fee_is_in_the_maintenance_that_bitmex_reports(engine: NewEngine) -> None:
    """XBTUSD, 500 short at 6725, 25x: posComm 5800, posMaint 42975 satoshi; liquidated at 6968.5.

    Rates 0.5 and 0.075 per cent; bitmex-report-xbt-20180827 of the liquidation vectors. The
    bankruptcy price there is half a dollar lower, for the value of one contract is whole in it.
    """
    desk = RuleDesk(
        engine,
        [(0, 0, 5_000_000, 10_000)],
        {"maintenance_basis": ENTRY, "closing_fee": RESERVED},
        kind=INVERSE,
        scale=8,
        steps=(5, -1, 1, 0, 100),
        taker_fee_ppb=750_000,
    )
    desk.account(ISOLATED, 2500, 10**8)
    desk.load(-500, 500 * 14_870, 303_200)
    desk.mark(CONTRACT, 13_450 * 100)
    (row,) = desk.rows
    assert row.maintenance == 37_175 + 5_800 == 42_975
    assert row.liquidation_price // 100 * 0.5 == 6968.5
    assert row.bankruptcy_price // 100 * 0.5 == 7005


@pytest.mark.parametrize(
    ("closing_fee", "side", "fee"),
    [
        # 0.0006 of what 100_000 is when a tenth is lost; RESERVED is that of a short.
        (RESERVED, BUY, 66),
        (RESERVED, SELL, 66),
        (AT_BANKRUPTCY, BUY, 54),
        (AT_BANKRUPTCY, SELL, 66),
    ],
)
def test_a_closing_fee_is_put_aside_by_side(
    engine: NewEngine, closing_fee: int, side: int, fee: int
) -> None:
    desk = RuleDesk(
        engine,
        schedule={"maintenance_basis": ENTRY, "closing_fee": closing_fee},
        taker_fee_ppb=600_000,
    )
    desk.account(ISOLATED, 1000, 50_000)
    desk.mark(CONTRACT, 10_000)
    order = desk.check(CONTRACT, side, 1000, 100)
    assert order.initial_margin_minor == 10_000 + fee + 60
    desk.fill(order.reservation_id, 1000, 100)
    (row,) = desk.rows
    assert (row.isolated_wallet, row.maintenance) == (10_000 + fee, 1_000 + fee)
    # w - d = 10_000 - 1_000: the fee is in both. 91_000 and 109_000 of 10 a mark unit.
    sign = 1 if side == BUY else -1
    assert row.liquidation_price == 10_000 - sign * 900
    assert row.bankruptcy_price == 10_000 - sign * 1000
    # What may leave it: all above the initial margin, which has the fee.
    assert desk.engine.transfer_margin(7, CONTRACT, 1, False, NOW)[0] == NONE
    refused, *_ = desk.engine.transfer_margin(7, CONTRACT, -2, False, NOW)
    assert refused == t.REASON_CODE_EXCEEDS_REMOVABLE_MARGIN
    assert desk.engine.transfer_margin(7, CONTRACT, -1, False, NOW)[0] == NONE


def test_a_cross_side_puts_aside_the_fee_of_all_that_it_holds(engine: NewEngine) -> None:
    desk = RuleDesk(
        engine,
        schedule={"maintenance_basis": ENTRY, "closing_fee": AT_BANKRUPTCY},
        taker_fee_ppb=600_000,
    )
    desk.account(CROSS, 1000, 50_000)
    desk.load(100, 90_000)
    desk.mark(CONTRACT, 10_000)
    # Held at the mark: 10_000 and ceil(0.00054 * 100_000).
    assert desk.summary.initial_margin == 10_054
    order = desk.check(CONTRACT, BUY, 1000, 50)
    # 150_000: 15_000 and 81; the fee of the order 30.
    assert order.initial_margin_minor == 15_000 + 81 + 30
    # The other side: 50 of 150 open. 50_000: 5_000 and 33, less than what is held.
    sell = desk.check(CONTRACT, SELL, 1000, 150)
    assert sell.initial_margin_minor == 15_000 + 81 + 30 + 90
    # Maintenance of 90_000: 900 and ceil(48.6).
    assert desk.summary.cross_maintenance == 949


def test_maintenance_may_have_the_liquidation_fee_inside(engine: NewEngine) -> None:
    """Bitget's maintenance rate is 0.4 per cent and the taker's 0.06 (venues' own rule record)."""
    desk = RuleDesk(engine, [(0, 0, 4_000_000, 5_000)], {"liquidation_fee_ppb": 600_000})
    desk.account(ISOLATED, 1000, 50_000)
    desk.load(100, 90_000, 10_000)
    desk.mark(CONTRACT, 10_000)
    (before,) = desk.rows
    assert (before.maintenance, before.liquidation_requirement) == (400, 460)
    assert desk.schedule(liquidation_fee_ppb=600_000, closing_fee=IN_MAINTENANCE) == NONE
    assert desk.rows == [before._replace(maintenance=460)]
    by_entry = {"liquidation_fee_ppb": 600_000, "maintenance_basis": ENTRY}
    assert desk.schedule(**by_entry) == NONE
    (before,) = desk.rows
    assert (before.maintenance, before.liquidation_requirement) == (360, 420)
    assert desk.schedule(**by_entry, closing_fee=IN_MAINTENANCE) == NONE
    assert desk.rows == [before._replace(maintenance=414)]


def test_a_closing_fee_needs_a_requirement_that_does_not_move(engine: NewEngine) -> None:
    desk = RuleDesk(engine)
    by_entry = {"maintenance_basis": ENTRY, "closing_fee": RESERVED}
    assert [desk.schedule(**by_entry, family=family) for family in (1, 2, 3)] == [NONE] * 3
    assert desk.schedule(**by_entry, family=4) == INVALID
    assert desk.schedule(**by_entry, liquidation_fee_ppb=1) == INVALID
    assert desk.schedule(closing_fee=AT_BANKRUPTCY) == INVALID
    assert desk.schedule(closing_fee=IN_MAINTENANCE, family=4) == NONE
    assert [desk.schedule(closing_fee=each) for each in (-1, 4)] == [INVALID] * 2


def test_figures_follow_the_taker_fee(engine: NewEngine) -> None:
    schedule = {"maintenance_basis": ENTRY, "closing_fee": RESERVED}
    desk = RuleDesk(engine, schedule=schedule, taker_fee_ppb=600_000)
    desk.account(ISOLATED, 1000, 50_000)
    desk.load(-100, 100_000, 10_066)
    desk.mark(CONTRACT, 10_000)
    assert [(row.maintenance, row.liquidation_price) for row in desk.rows] == [(1066, 10_900)]
    assert desk.define(taker_fee_ppb=700_000) == NONE
    # (100_000 + 10_066 - 1_077) / 10
    assert [(row.maintenance, row.liquidation_price) for row in desk.rows] == [(1077, 10_899)]


# --- Isolated only --------------------------------------------------------------------------------


def test_a_contract_that_is_isolated_only_never_joins_the_pool(engine: NewEngine) -> None:
    desk = RuleDesk(engine, isolated_only=1)
    desk.account(CROSS, 1000, 50_000)
    desk.mark(CONTRACT, 10_000)
    named = desk.check(CONTRACT, BUY, 1000, 100, margin_mode=CROSS)
    assert named.reason == t.REASON_CODE_MARGIN_MODE_MISMATCH
    order = desk.check(CONTRACT, BUY, 1000, 100, margin_mode=ISOLATED)
    desk.fill(order.reservation_id, 1000, 100)
    (row,) = desk.rows
    assert (row.margin_mode, row.isolated_wallet) == (ISOLATED, 10_000)
    desk.mark(CONTRACT, 9_500)
    summary = desk.summary
    assert (summary.cross_pnl, summary.initial_margin, summary.available) == (0, 0, 40_000)
    refused, *_ = desk.engine.change_margin_mode(7, CONTRACT, CROSS, False, NOW)
    assert refused == t.REASON_CODE_ISOLATED_ONLY
    assert desk.engine.change_margin_mode(7, CONTRACT, 9, False, NOW)[0] == (
        t.REASON_CODE_MARGIN_MODE_MISMATCH
    )
    assert desk.engine.change_margin_mode(7, CONTRACT, ISOLATED, False, NOW)[0] == NONE


def test_a_contract_is_isolated_only_from_the_first(engine: NewEngine) -> None:
    desk = RuleDesk(engine, isolated_only=1)
    desk.account(CROSS, 1000, 0)
    refused, *_ = desk.engine.change_margin_mode(7, CONTRACT, CROSS, False, NOW)
    assert refused == t.REASON_CODE_ISOLATED_ONLY
    assert desk.define(isolated_only=0) == t.REASON_CODE_FIELD_IMMUTABLE
    assert desk.define(isolated_only=1, order_lots_min=2) == NONE
    assert [desk.define(symbol="NEW", isolated_only=each) for each in (-1, 2)] == [INVALID] * 2
    option: dict[str, Any] = {"expiry_ns": 10**18, "strike_units": 5, "option_type": 1}
    option["symbol"] = "O"
    assert desk.define(OPTION, 0, **option) == NONE
    assert desk.define(OPTION, 0, **option | {"symbol": "P"}, isolated_only=1) == INVALID
    assert desk.engine.create_asset("BASE", 0)[0] == NONE
    assert desk.define(SPOT, 0, symbol="S", base_asset_id=2, isolated_only=1) == INVALID
    assert desk.define(SPOT, 0, symbol="S", base_asset_id=2) == NONE


# --- Largest quantity -----------------------------------------------------------------------------

# ETH of OKX in contracts: 1, 1.5 and 2 per cent to 2000, 4000, 8000; nobody may hold more. Source:
# freqtrade, tests/exchange/test_okx.py.
OKX = [(0, 0, 10_000_000, 5_000), (2000, 0, 15_000_000, 4_000), (4000, 0, 20_000_000, 3_000)]


def test_a_side_holds_no_more_lots_than_the_last_tier_of_okx(engine: NewEngine) -> None:
    desk = RuleDesk(engine, OKX, {"family": BY_LOTS, "parameter_a": 8_000})
    desk.account(CROSS, 1000, 10**9)
    desk.mark(CONTRACT, 10_000)
    desk.load(3_000, 3_000_000)
    refused = desk.check(CONTRACT, BUY, 1000, 5_001)
    assert refused.reason == t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX
    (violation,) = refused.detail.violations
    assert (violation.limit, violation.use, violation.order_use) == (8_000, 3_000, 5_001)
    assert refused.max_quantity_lots == 5_000
    assert desk.check(CONTRACT, BUY, 1000, 5_000).reason == NONE
    assert desk.check(CONTRACT, SELL, 1000, 11_001).max_quantity_lots == 11_000


def test_a_largest_quantity_lies_above_the_tiers(engine: NewEngine) -> None:
    desk = RuleDesk(engine, OKX)
    made = [desk.schedule(family=BY_LOTS, parameter_a=each) for each in (-1, 4_000, 4_001, 2**53)]
    assert made == [INVALID, INVALID, NONE, NONE]
    assert desk.schedule(family=BY_LOTS, parameter_a=2**53 + 1) == INVALID
    assert desk.schedule(family=WHOLE, parameter_a=8_000) == INVALID
    assert desk.schedule(family=BY_LOTS, parameter_b=1) == INVALID


def test_leverage_is_not_set_for_more_than_the_largest_quantity(engine: NewEngine) -> None:
    desk = RuleDesk(engine, OKX, {"family": BY_LOTS})
    desk.account(CROSS, 1000, 10**9)
    desk.mark(CONTRACT, 10_000)
    desk.load(-5_000, 5_000_000)
    assert desk.engine.set_leverage(7, CONTRACT, 900, True, NOW)[0] == NONE
    assert desk.schedule(family=BY_LOTS, parameter_a=4_999) == NONE
    refused, *_ = desk.engine.set_leverage(7, CONTRACT, 900, True, NOW)
    assert refused == t.REASON_CODE_LEVERAGE_OUT_OF_RANGE


# --- Short options --------------------------------------------------------------------------------


class OptionDesk(RuleDesk):
    """An option of instrument 2 on contract 1, whose rule is schedule 2. Prices are in cents."""

    def __init__(
        self,
        engine: NewEngine,
        rule: tuple[int, ...],
        *,
        option_type: int,
        strike: int,
        kind: int = OPTION,
        units: int = 1,
        **numbers: int,
    ) -> None:
        super().__init__(engine, scale=8, steps=(1, -2, 1, 0, units))
        made = self.engine.upsert_option_rule("rule", 1, *rule, **numbers)
        assert made == (NONE, 2)
        terms: dict[str, Any] = {"expiry_ns": 10**18, "strike_units": strike}
        terms |= {"option_type": option_type}
        terms |= {"underlying_id": CONTRACT, "option_rule_id": 2, "symbol": "O"}
        assert self.define(kind, 0, **terms) == NONE
        self.account(CROSS, 1000, 10**13)

    def short(self) -> PositionRow:
        """Return the row of one lot short."""
        reason, *_ = self.engine.load_position(7, 2, 0, -1, 1, 0)
        assert reason == NONE
        (row,) = self.rows
        return row


DERIVE = (150_000_000, 100_000_000, 75_000_000, 1)


@pytest.mark.parametrize(
    ("strike", "mark", "initial", "maintenance"),
    [
        # derivexyz/v2-core, test/risk-managers/unit-tests/StandardManager/test-cases.json, Test4
        # and Test21: ETH at 1500.
        (1300, 14.322794294374036, 164.32279429437403, 126.82279429437403),
        (4500, 2999.1667228613637, 3385.309438429764, 3224.104227075966),
    ],
)
def test_a_put_needs_a_part_more_than_its_maintenance_as_derive_tests_it(
    engine: NewEngine, strike: int, mark: float, initial: float, maintenance: float
) -> None:
    factor = 1_050_000_000
    units = 10**7
    desk = OptionDesk(
        engine, DERIVE, option_type=2, strike=strike * 100 * units, units=units, parameter_d=factor
    )
    desk.mark(CONTRACT, 1500 * 100 * units)
    desk.mark(2, round(mark * 100 * units))
    row = desk.short()
    assert row.initial_margin / 10**8 == pytest.approx(initial, rel=1e-9)
    assert row.maintenance / 10**8 == pytest.approx(maintenance, rel=1e-9)


def test_calls_too_may_be_kept_by_their_own_mark(engine: NewEngine) -> None:
    """Bybit: max(c index, c mark) + mark + liquidation fee; 1260 for a call at 30_000 and 300.

    The fee is 0.2 per cent of the index and stands in c. Source: Bybit help, article 000001546. A
    mark above the index is a made up one.
    """
    rule = (150_000_000, 100_000_000, 32_000_000, 2)
    desk = OptionDesk(engine, rule, option_type=1, strike=31_000 * 100)
    desk.mark(CONTRACT, 30_000 * 100)
    desk.mark(2, 300 * 100)
    assert desk.short().maintenance == 1260 * 10**8
    desk.mark(2, 40_000 * 100)
    (row,) = desk.rows
    assert row.maintenance == (1280 + 40_000) * 10**8
    assert desk.engine.upsert_option_rule("rule", 1, *rule[:3], 1)[0] == NONE
    (row,) = desk.rows
    assert row.maintenance == (960 + 40_000) * 10**8


def test_what_a_sell_opens_holds_a_least_part_of_the_reference(engine: NewEngine) -> None:
    rule = (150_000_000, 10_000_000, 10_000_000)
    desk = OptionDesk(engine, rule, option_type=1, strike=40_000 * 100, parameter_e=20_000_000)
    desk.mark(CONTRACT, 30_000 * 100)
    desk.mark(2, 10 * 100)
    order = desk.check(2, SELL, 1000, 3)
    # 1 per cent and the mark is 310 a lot, 2 per cent are 600.
    assert order.initial_margin_minor == 3 * 600 * 10**8
    desk.fill(order.reservation_id, 1000, 3)
    (row,) = desk.rows
    assert (row.initial_margin, row.maintenance) == (930 * 10**8, 930 * 10**8)
    # What closes holds nothing, and what opens beyond the position as before.
    assert desk.check(2, SELL, 1000, 1).initial_margin_minor == (930 + 600) * 10**8


def test_the_least_part_of_a_coin_option_is_in_coin(engine: NewEngine) -> None:
    rule = (150_000_000, 10_000_000, 10_000_000)
    desk = OptionDesk(
        engine, rule, kind=6, option_type=1, strike=40_000 * 100, parameter_e=20_000_000
    )
    desk.mark(CONTRACT, 30_000 * 100)
    desk.mark(2, 1)  # 0.01 coin
    # 0.01 and the mark, 0.02: as much as the least part.
    assert desk.check(2, SELL, 1, 5).initial_margin_minor == 5 * 2_000_000
    numbers = {"parameter_e": 30_000_001}
    assert desk.engine.upsert_option_rule("rule", 1, *rule, **numbers)[0] == NONE
    assert desk.summary.initial_margin == 15_000_001  # 5 * 3_000_000.1


def test_the_numbers_of_a_rule_have_bounds(engine: NewEngine) -> None:
    desk = OptionDesk(engine, DERIVE, option_type=1, strike=100)

    def reason(**numbers: int) -> int:
        return int(desk.engine.upsert_option_rule("rule", 1, *DERIVE[:3], **numbers)[0])

    assert [reason(put_maintenance=each) for each in (-1, 3)] == [INVALID] * 2
    assert [reason(parameter_d=each) for each in (0, 10**9, 10**10)] == [NONE] * 3
    assert [reason(parameter_d=each) for each in (-1, 10**9 - 1, 10**10 + 1)] == [INVALID] * 3
    assert [reason(parameter_e=each) for each in (0, 10**9)] == [NONE] * 2
    assert [reason(parameter_e=each) for each in (-1, 10**9 + 1)] == [INVALID] * 2


# --- Both sides of a contract ---------------------------------------------------------------------


def hedged(
    engine: NewEngine,
    longs: tuple[int, int],
    shorts: tuple[int, int],
    cash: int,
    mark: int = 10_000,
    **schedule: int,
) -> RuleDesk:
    """Return a desk with lots and entry values of both sides."""
    desk = RuleDesk(engine, schedule=schedule)
    desk.account(CROSS, 1000, cash)
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE) == NONE
    desk.load(longs[0], longs[1], position_side=LONG)
    desk.load(-shorts[0], shorts[1], position_side=SHORT)
    if mark:
        desk.mark(CONTRACT, mark)
    return desk


def prices(desk: RuleDesk) -> set[tuple[int, int]]:
    return {(row.liquidation_status, row.liquidation_price) for row in desk.rows if row.lots != 0}


AT_PRICE = t.LIQUIDATION_STATUS_AT_PRICE
SAFE = t.LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED


@pytest.mark.parametrize(
    ("longs", "shorts", "cash", "expected"),
    [
        # Binance's formula for both sides of a symbol:
        # (wallet - qL EL + qS ES) / (qL m + qS m - qL + qS), of 10 mark units a tick.
        ((100, 100_000), (40, 40_000), 20_000, 6_825),  # (-40_000) / (1.4 - 60) = 682.59
        ((40, 40_000), (100, 100_000), 20_000, 13_030),  # 80_000 / 61.4 = 1302.93
        # As large on both sides: only the requirement moves, up.
        ((100, 100_000), (100, 101_000), 2_000, 15_000),  # 3_000 / 2
        # Nearly as large: the long side is larger, but the requirement grows faster than it.
        ((100, 100_000), (99, 101_000), 2_000, 30_304),  # 3_000 / 0.99
        ((100, 100_000), (99, 101_000), 900, 19_192),  # 1_900 / 0.99
    ],
)
def test_both_sides_share_a_liquidation_price(
    engine: NewEngine,
    longs: tuple[int, int],
    shorts: tuple[int, int],
    cash: int,
    expected: int,
) -> None:
    desk = hedged(engine, longs, shorts, cash)
    assert prices(desk) == {(AT_PRICE, expected)}
    desk.mark(CONTRACT, expected)
    assert prices(desk) == {(AT_PRICE, expected)}
    assert all(row.liquidatable for row in desk.rows)
    desk.mark(CONTRACT, expected + (1 if expected < 10_000 else -1))
    assert not any(row.liquidatable for row in desk.rows)


def test_a_shared_price_is_rounded_against_the_account(engine: NewEngine) -> None:
    desk = hedged(engine, (100, 100_000), (40, 40_000), 20_030)
    # 101 and 40 lots: (20_030 - 101_000 + 40_000) / (1.41 - 61) = 687.53, below the mark.
    order = desk.check(CONTRACT, BUY, 1000, 1, position_side=LONG)
    assert (order.liquidation_status, order.liquidation_price_ticks) == (AT_PRICE, 688)
    filled = desk.fill(order.reservation_id, 1000, 1)
    assert (filled.liquidation_status, filled.liquidation_price_ticks) == (AT_PRICE, 688)
    assert prices(desk) == {(AT_PRICE, 6_875)}
    desk = hedged(engine, (40, 40_000), (100, 100_000), 20_000)
    # (20_000 - 41_000 + 100_000) / (1.41 + 59) = 1307.73, above it.
    order = desk.check(CONTRACT, BUY, 1000, 1, position_side=LONG)
    assert order.liquidation_price_ticks == 1307
    desk.fill(order.reservation_id, 1000, 1)
    assert prices(desk) == {(AT_PRICE, 13_078)}


def test_an_order_is_judged_with_both_sides_where_it_fills(engine: NewEngine) -> None:
    desk = hedged(engine, (100, 100_000), (40, 40_000), 19_000)

    def stop(lots: int) -> orders_pb.CheckOrderResponse:
        terms = {"order_type": t.ORDER_TYPE_STOP, "trigger_price_ticks": 700}
        return desk.check(CONTRACT, SELL, 0, lots, position_side=SHORT, **terms)

    # At 700 the long side has lost 30_000, the short one won 12_000. 700 and 7 a lot are required.
    refused = stop(3)
    assert refused.reason == t.REASON_CODE_BORN_LIQUIDATABLE
    (violation,) = refused.detail.violations
    assert (violation.limit, violation.order_use) == (1_000, 700 + 43 * 7)
    assert refused.max_quantity_lots == 2
    order = stop(2)
    assert order.reason == NONE
    assert (order.detail.equity_minor, order.detail.margin_ratio_ppm) == (1_000, 994_000)
    # As it stands once it is filled: (19_000 - 100_000 + 41_400) / (1.42 - 58) = 699.89.
    assert order.liquidation_price_ticks == 700


def test_orders_bring_a_shared_price_nearer_to_the_mark(engine: NewEngine) -> None:
    desk = hedged(engine, (100, 100_000), (40, 40_000), 20_000)
    assert desk.check(CONTRACT, BUY, 1000, 50, position_side=LONG).reason == NONE
    assert desk.check(CONTRACT, SELL, 1000, 10, position_side=SHORT).reason == NONE
    rows = {row.position_side: row.liquidation_price_with_orders for row in desk.rows}
    # 150 and 40: (20_000 - 150_000 + 40_000) / (1.9 - 110); 100 and 50 lie further off.
    assert rows == {LONG: 8_325, SHORT: 0}


def test_sides_share_nothing_without_a_mark_or_a_pool(engine: NewEngine) -> None:
    desk = hedged(engine, (100, 100_000), (40, 40_000), 20_000, mark=0)
    assert prices(desk) == {(t.LIQUIDATION_STATUS_UNSPECIFIED, 0)}
    desk = RuleDesk(engine)
    desk.account(ISOLATED, 1000, 0)
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE) == NONE
    desk.load(100, 100_000, 10_000, LONG)
    desk.load(-40, 40_000, 4_000, SHORT)
    # 90_000 / 99 and 44_000 / 40.4.
    assert prices(desk) == {(AT_PRICE, 9_090), (AT_PRICE, 10_892)}
    desk.mark(CONTRACT, 10_000)
    # In the pool of 14_000: (14_000 - 60_000) / (1.4 - 60).
    assert desk.engine.change_margin_mode(7, CONTRACT, CROSS, False, NOW)[0] == NONE
    assert prices(desk) == {(AT_PRICE, 7_849)}


def test_a_side_alone_has_its_own_price(engine: NewEngine) -> None:
    desk = hedged(engine, (100, 100_000), (40, 40_000), 20_000)
    desk.trade(CONTRACT, BUY, 1000, 40, position_side=SHORT)
    assert prices(desk) == {(AT_PRICE, 8_080)}  # 80_000 / 99


def test_what_is_required_of_a_pair_far_above_money_does_not_wrap(engine: NewEngine) -> None:
    """2^115 of each side at the mark; its maintenance is a multiple of 2^128 before the division.

    Profit and loss cancel, so that nothing but the requirement says how much is at stake.
    """
    desk = RuleDesk(engine, [(0, 0, 600 << 13, 10_000)], steps=(1 << 20, 0, 1 << 20, 0, 1))
    desk.account(CROSS, 100, 1 << 62)
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE) == NONE
    desk.load(1 << 22, 1 << 62, position_side=LONG)
    desk.load(-(1 << 22), 1 << 62, position_side=SHORT)
    desk.mark(CONTRACT, 1 << 53)
    most = (1 << 63) - 1
    assert [row.liquidation_requirement for row in desk.rows if row.lots != 0] == [most, most]
    assert all(row.liquidatable for row in desk.rows if row.lots != 0)
    assert not desk.summary.known


# --- Risk factors ---------------------------------------------------------------------------------


def test_a_short_risk_factor_leaves_room_for_the_liquidation_fee(engine: NewEngine) -> None:
    """As the long one: it is at most 10^9 - 1 - phi. Initial rates end at the whole notional."""
    desk = RuleDesk(engine, [(0, 10**9, 500_000_000, 100)], {})
    rule = {"family": RISK_FACTOR, "parameter_c": 3 * 10**9}
    made = [desk.schedule(**rule, parameter_a=each) for each in (10**9 - 1, 10**9)]
    assert made == [NONE, INVALID]
    rule["liquidation_fee_ppb"] = 7
    made = [desk.schedule(**rule, parameter_a=each) for each in (10**9 - 8, 10**9 - 7)]
    assert made == [NONE, INVALID]
