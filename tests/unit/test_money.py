"""Margin levels, collateral of other assets and credit lines: expectations by hand.

A lot at a tick is 100 minor units (6 decimals of USDT). The mark is 650,000 ticks: 10 lots are
650,000,000, need a tenth of it, and are liquidated at a hundredth. COIN has 8 decimals; its index
is the perpetual itself, 65,000.0 USDT: one minor unit of COIN is 650 of USDT.
"""

from pathlib import Path
from typing import Any

import pytest

from riskd.core.engine import Engine
from riskd.core.rows import RiskEventRow
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.desk import NOW_NS, PRICE_TICKS, reservation_in
from tests.unit.test_settlement import CASH, ISOLATED, NET, NONE, Floor

COIN = 2
SAFE, SEARCH, LIQUIDATION = range(3)
ACCOUNT, FIRM = 3, 5
BILLION = 10**9
HALF = ((0, BILLION // 2),)


class Bank(Floor):
    """Account 1 has no money but what a test gives it; COIN counts nothing yet."""

    def __init__(self) -> None:
        super().__init__()
        assert self.engine.create_asset("COIN", 8) == (NONE, COIN)
        assert self.engine.adjust_collateral(1, 1, -CASH, False, NOW_NS)[0] == NONE

    def deposit(self, amount: int, asset_id: int = 1) -> int:
        """Change what account 1 has of an asset; return the reason."""
        return self.engine.adjust_collateral(1, asset_id, amount, False, NOW_NS)[0]

    def define(self, tiers: tuple[tuple[int, int], ...] = HALF, **rest: Any) -> None:
        assert self.engine.define_collateral(COIN, 1, 1, tiers, **rest) == NONE

    def available(self) -> int | None:
        row = self.engine.summary(1)
        assert row is not None
        return row.available if row.known else None

    def worth(self) -> int | None:
        """Return what account 1 has of COIN counts."""
        rows = self.engine.collateral_values(1)
        assert rows is not None
        return rows[0][2]

    def fee(self, amount: int) -> None:
        """Buy a lot with money that comes for it; pay a fee of COIN, whatever there is of it."""
        assert self.deposit(10**9) == NONE
        order = reservation_in(self.order(1, self.engine.revision, quantity_lots=1))
        request = orders_pb.ReportExecutionRequest(
            gateway_id=1,
            execution_id=order,
            reservation_id=order,
            kind=orders_pb.EXECUTION_KIND_FILL,
            price_ticks=PRICE_TICKS,
            quantity_lots=1,
            fee_minor=amount,
            fee_asset_id=COIN,
        )
        self.engine.handle(2, request.SerializeToString(), NOW_NS)

    def changes(self) -> list[tuple[int, int, int, int]]:
        """Evaluate; return (instrument, level after, equity, requirement) of what changed."""
        before = self.engine.revision
        assert self.engine.evaluate_levels(0, 10, NOW_NS) == (0, self.engine.revision - before)
        rows, gone = self.engine.risk_events(before, 0, 100)
        assert gone == 0
        return [(row.instrument_id, row.level_after, row.equity, row.requirement) for row in rows]


# --- levels ---------------------------------------------------------------------------------------


def test_levels_change_at_their_bounds_and_not_between() -> None:
    bank = Bank()
    assert bank.engine.set_margin_levels(1_500_000, 2_000_000) == NONE
    bank.load(1, 10, 650_000_000)
    # The requirement is 6,500,000: search is at 9,750,000, release at 13,000,000.
    steps = (
        (9_750_001, None),
        (9_750_000, SEARCH),
        (12_999_999, None),
        (13_000_000, SAFE),
        (9_750_001, None),
        (6_500_000, LIQUIDATION),
        (6_500_001, None),
        (9_750_000, None),
        (9_750_001, SEARCH),
        (6_500_000, LIQUIDATION),
        (13_000_000, SAFE),
    )
    for equity, level in steps:
        set_cash(bank, equity)
        expected = [] if level is None else [(0, level, equity, 6_500_000)]
        assert bank.changes() == expected, (equity, level)


def set_cash(bank: Bank, cash: int) -> None:
    """Bring account 1 to an amount of cash by a deposit, or by funding: it needs no margin."""
    row = bank.engine.account(1)
    assert row is not None
    if cash >= row.cash:
        if cash > row.cash:
            assert bank.deposit(cash - row.cash) == NONE
        return
    # 10 lots at 1,000,000 ticks are 10^9: each ppb of them is one minor unit.
    time_ns = bank.engine.instruments()[0].funding_time_ns + 1
    paid = bank.engine.apply_funding(1, row.cash - cash, 1_000_000, time_ns, now_ns=NOW_NS)
    assert paid.paid == row.cash - cash


def test_an_isolated_position_has_a_level_of_its_own() -> None:
    bank = Bank()
    assert bank.engine.set_margin_levels(1_500_000, 2_000_000) == NONE
    bank.load(2, 10, 650_000_000, 9_000_000)
    assert bank.changes() == [(1, SEARCH, 9_000_000, 6_500_000)]
    account = bank.engine.account(2)
    assert account is not None
    assert account.margin_level == SAFE
    bank.halt()
    bank.engine.settle_instrument(1, 650_000, now_ns=NOW_NS)
    # The position is kept until its level is SAFE.
    assert [row.margin_level for row in bank.engine.positions(2) or []] == [SEARCH]
    assert bank.changes() == [(1, SAFE, 0, 0)]
    assert bank.engine.positions(2) == []


def test_a_switch_to_cross_ends_the_level_of_the_position() -> None:
    bank = Bank()
    assert bank.engine.set_margin_levels(1_500_000, 9_999_999) == NONE
    bank.load(2, 10, 650_000_000, 9_000_000)
    assert bank.changes() == [(1, SEARCH, 9_000_000, 6_500_000)]
    assert bank.engine.change_margin_mode(2, 1, 1, False, NOW_NS)[0] == NONE
    assert bank.changes() == [(1, SAFE, 0, 0)]


def test_unknown_figures_leave_a_level_and_off_leaves_all() -> None:
    bank = Bank()
    reason, other = bank.engine.upsert_instrument("ETH-PERP", 1, 1, 1, 1, -1, 1, -3)
    assert reason == NONE
    bank.load(1, 10, 650_000_000)
    assert bank.changes() == []
    assert bank.engine.set_margin_levels(1_500_000, 2_000_000, validate_only=True) == NONE
    assert bank.engine.margin_levels() == (0, 0)
    assert bank.engine.set_margin_levels(1_500_000, 2_000_000) == NONE
    bank.load(1, 1, 1, of=other)
    assert bank.changes() == []
    for levels in (
        (1_000_000, 2),
        (3_000_000, 3_000_000),
        (2_000_000, 10_000_001),
        (0, 1),
        (-1, 0),
    ):
        assert bank.engine.set_margin_levels(*levels) == t.REASON_CODE_DEFINITION_INVALID


def test_events_are_listed_by_account_and_revision() -> None:
    bank = Bank()
    assert bank.engine.set_margin_levels(1_500_000, 2_000_000) == NONE
    bank.load(1, 10, 650_000_000)
    bank.load(2, 10, 650_000_000, 1)
    first = bank.engine.revision
    assert bank.engine.evaluate_levels(0, 1, NOW_NS) == (1, 1)
    assert bank.engine.evaluate_levels(1, 1, NOW_NS + 1) == (0, 1)
    assert bank.engine.evaluate_levels(7, 1, NOW_NS + 1) == (0, 0)
    of_pool = RiskEventRow(first + 1, NOW_NS, 1, 0, 0, SAFE, LIQUIDATION, 0, 6_500_000)
    of_position = RiskEventRow(first + 2, NOW_NS + 1, 2, 1, NET, SAFE, LIQUIDATION, 1, 6_500_000)
    events = bank.engine.risk_events
    assert events(0, 0, 10) == ([of_pool, of_position], 0)
    assert events(0, 0, 1) == ([of_pool], 0)
    assert events(first + 1, 0, 10) == ([of_position], 0)
    assert events(0, 2, 10) == ([of_position], 0)
    for first_place, count in ((-1, 1), (2**32, 1), (0, 0), (0, 65_537)):
        with pytest.raises(ValueError, match="is not within"):
            bank.engine.evaluate_levels(first_place, count, NOW_NS)


def test_the_ring_keeps_the_newest_events_and_says_that_others_are_gone() -> None:
    bank = Bank()
    bank.load(1, 10, 650_000_000)
    assert bank.deposit(9_000_000) == NONE
    engine = bank.engine
    # 9,000,000 is below 1.5 times the requirement and above 1.2 times.
    for _ in range(65_538 // 2):
        assert engine.set_margin_levels(1_500_000, 2_000_000) == NONE
        assert engine.evaluate_levels(0, 2, NOW_NS) == (0, 1)
        assert engine.set_margin_levels(1_100_000, 1_200_000) == NONE
        assert engine.evaluate_levels(0, 2, NOW_NS) == (0, 1)
    rows, oldest = engine.risk_events(0, 0, 70_000)
    assert len(rows) == 65_536
    assert (rows[0].revision, rows[-1].revision) == (oldest, engine.revision)
    assert [row.level_after for row in rows[:2]] == [SEARCH, SAFE]
    assert engine.risk_events(oldest - 1, 0, 1) == ([rows[0]], 0)
    assert engine.risk_events(oldest, 0, 1) == ([rows[1]], 0)


# --- collateral -----------------------------------------------------------------------------------


def test_a_balance_counts_by_tiers_up_to_its_cap() -> None:
    bank = Bank()
    assert bank.deposit(1001, COIN) == NONE
    assert bank.available() == 0
    bank.define()
    assert bank.available() == bank.worth() == 1001 * 650 // 2
    tiers = ((0, BILLION), (500, 900_000_000), (900, 333_333_333))
    bank.define(tiers)
    # (500 + 0.9 * 400 + 0.333333333 * 101) * 650 = 580,883.33...
    assert bank.worth() == 580_883
    bank.define(tiers, cap=600)
    assert bank.worth() == (500 + 90) * 650
    rows = bank.engine.collateral()
    assert [(row.asset_id, row.cap, row.tiers) for row in rows] == [(COIN, 600, tiers)]


def test_a_debt_counts_more_than_it_is() -> None:
    bank = Bank()
    bank.define(liability_ppb=1_100_000_001, interest_free=2, forced_conversion=3)
    bank.fee(3)
    # 3 * 650 * 1.100000001 = 2,145.00000195
    assert bank.engine.collateral_values(1) == [(COIN, -3, -2146)]
    assert bank.available() == 10**9 - 6_500_000 - 2146


def test_a_debt_without_a_price_makes_all_unknown_until_it_is_paid() -> None:
    bank = Bank()
    bank.fee(3)
    assert bank.available() is bank.worth() is None
    answer = orders_pb.CheckOrderResponse.FromString(bank.order(1, 100, quantity_lots=1))
    assert answer.reason == t.REASON_CODE_MARGIN_OVERFLOWS
    assert bank.deposit(-1) == t.REASON_CODE_EXCEEDS_AVAILABLE
    reason, balance, available = bank.engine.adjust_collateral(1, COIN, 3, True, NOW_NS)
    assert (reason, balance, available) == (NONE, 0, 10**9 - 6_500_000)
    assert bank.available() is None
    assert bank.deposit(3, COIN) == NONE
    assert bank.available() == 10**9 - 6_500_000


def test_collateral_carries_margin_and_only_what_is_free_can_go() -> None:
    bank = Bank()
    bank.define()
    assert bank.deposit(1_000_000, COIN) == NONE
    # Half of 650,000,000 carries 50 lots at a tenth of 3,250,000,000.
    answer = orders_pb.CheckOrderResponse.FromString(bank.order(1, 1, quantity_lots=50))
    assert (answer.reason, answer.available_minor) == (NONE, 0)
    assert bank.deposit(-1, COIN) == t.REASON_CODE_EXCEEDS_AVAILABLE
    assert bank.deposit(-1_000_001, COIN) == t.REASON_CODE_EXCEEDS_AVAILABLE
    bank.cancel(1, 1, answer.reservation_id)
    assert bank.deposit(-1_000_000, COIN) == NONE
    # Cash does not rise by what collateral counts: it cannot be paid out.
    assert bank.deposit(2, COIN) == NONE
    assert bank.deposit(-1) == t.REASON_CODE_EXCEEDS_AVAILABLE


def test_collateral_is_behind_cross_positions_and_moves_their_prices() -> None:
    bank = Bank()
    bank.define()
    bank.load(1, 10, 650_000_000)
    before = (bank.engine.positions(1) or [])[0]
    assert before.liquidatable
    assert bank.deposit(1_000_000, COIN) == NONE
    after = (bank.engine.positions(1) or [])[0]
    # (650,000,000 - 325,000,000) / (0.99 * 10 * 100) with the index held
    assert (after.liquidatable, after.liquidation_price) == (False, 328_282)
    assert after.equity == 325_000_000


def test_collateral_beyond_64_bits_does_not_come_back_with_a_loss() -> None:
    bank = Bank()
    bank.define()
    assert bank.deposit(2**63 - 1, COIN) == NONE
    # It counts 3 * 10^21, and the loss is 6.5 * 10^19 - 2^62.
    bank.load(1, -(10**12), 2**62)
    (row,) = bank.engine.positions(1) or []
    assert (row.unrealised_pnl, row.equity) == (-(2**63), 2**63 - 1)
    assert not row.liquidatable


def test_an_index_without_a_mark_makes_all_unknown() -> None:
    bank = Bank()
    reason, index = bank.engine.upsert_instrument("COINUSDT", 1, 1, 1, 1, -2, 1, -2)
    assert reason == NONE
    assert bank.engine.define_collateral(COIN, 1, index, HALF) == NONE
    assert bank.deposit(1, COIN) == NONE
    assert bank.available() is None
    answer = orders_pb.CheckOrderResponse.FromString(bank.order(1, 1))
    assert answer.reason == t.REASON_CODE_MARK_MISSING
    assert bank.deposit(-1, COIN) == t.REASON_CODE_MARK_MISSING


def test_each_rule_of_a_definition_comes_in_its_order() -> None:
    bank = Bank()
    define = bank.engine.define_collateral
    invalid = t.REASON_CODE_DEFINITION_INVALID
    assert define(9, 1, 9, ()) == define(1, 9, 9, ()) == t.REASON_CODE_ASSET_UNKNOWN
    assert define(1, 1, 9, ()) == invalid
    for tiers in (
        (),
        ((1, 0),),
        ((0, BILLION + 1),),
        ((0, -1),),
        ((0, 1), (0, 1)),
        ((0, 1), (5, 2)),
        ((0, 1), (2**62 + 1, 1)),
        tuple((place, 0) for place in range(9)),
    ):
        assert define(COIN, 1, 1, tiers) == invalid, tiers
    bad: tuple[dict[str, Any], ...] = (
        {"cap": -1},
        {"cap": 2**62 + 1},
        {"liability_ppb": BILLION - 1},
        {"liability_ppb": 10 * BILLION + 1},
        {"interest_free": -1},
        {"interest_free": 2, "forced_conversion": 1},
        {"forced_conversion": 2**62 + 1},
    )
    for rest in bad:
        assert define(COIN, 1, 1, HALF, **rest) == invalid, rest
    assert define(COIN, 1, 9, HALF) == t.REASON_CODE_INSTRUMENT_UNKNOWN
    assert define(COIN, 1, 2, HALF) == invalid
    assert define(1, COIN, 1, HALF) == invalid
    revision = bank.engine.revision
    assert define(COIN, 1, 1, HALF, validate_only=True) == NONE
    assert (bank.engine.revision, bank.engine.collateral()) == (revision, [])


# --- credit ---------------------------------------------------------------------------------------


def test_credit_backs_margin_and_cannot_be_paid_out() -> None:
    bank = Bank()
    assert bank.engine.set_credit_line(ACCOUNT, 1, 55_000_000) == NONE
    assert bank.available() == 55_000_000
    # It carries a position with nothing else.
    answer = orders_pb.CheckOrderResponse.FromString(bank.order(1, 1, quantity_lots=1))
    assert (answer.reason, answer.available_minor) == (NONE, 48_500_000)
    bank.cancel(1, 1, answer.reservation_id)
    assert bank.deposit(10_000_000) == NONE
    answer = orders_pb.CheckOrderResponse.FromString(bank.order(1, 2, quantity_lots=10))
    assert (answer.reason, answer.available_minor) == (NONE, 0)
    assert used(bank, 1) == 55_000_000
    assert bank.deposit(-1) == t.REASON_CODE_EXCEEDS_AVAILABLE
    bank.cancel(1, 2, answer.reservation_id)
    assert used(bank, 1) == 0
    assert bank.deposit(-10_000_001) == t.REASON_CODE_EXCEEDS_AVAILABLE
    assert bank.deposit(-10_000_000) == NONE


def used(bank: Bank, account_id: int) -> int:
    row = bank.engine.account(account_id)
    assert row is not None
    return row.credit_used


def test_a_firms_line_bounds_what_its_accounts_use_together() -> None:
    bank = Bank()
    engine = bank.engine
    assert engine.create_firm(1, 1) == NONE
    assert engine.adjust_collateral(2, 1, 10_000_000 - CASH, False, NOW_NS)[0] == NONE
    assert bank.deposit(10_000_000) == NONE
    for account_id in (1, 2):
        assert engine.set_account_owner(account_id, 1, 0, NOW_NS) == NONE
        assert engine.set_credit_line(ACCOUNT, account_id, 55_000_000) == NONE
    assert engine.set_credit_line(FIRM, 1, 85_000_000) == NONE
    order = reservation_in(bank.order(1, 1, quantity_lots=10))
    assert (used(bank, 1), engine.firms()[0].credit_used) == (55_000_000, 55_000_000)
    # 30,000,000 are left, which with the 10,000,000 of its own carry 6 lots.
    answer = orders_pb.CheckOrderResponse.FromString(
        bank.order(1, 2, account_id=2, quantity_lots=7)
    )
    assert answer.reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert answer.max_quantity_lots == 6
    summary = engine.summary(2)
    assert summary is not None
    assert summary.credit == 30_000_000
    # A line that is lowered below its use leaves nothing, and takes nothing away.
    assert engine.set_credit_line(FIRM, 1, 1) == NONE
    summary = engine.summary(2)
    assert summary is not None
    assert (summary.credit, summary.available) == (0, 10_000_000)
    assert engine.set_credit_line(ACCOUNT, 1, 0) == NONE
    assert (used(bank, 1), engine.firms()[0].credit_used) == (0, 0)
    assert engine.set_credit_line(ACCOUNT, 1, 1) == NONE
    assert engine.firms()[0].credit_used == 55_000_000
    bank.cancel(1, 1, order)
    assert (used(bank, 1), engine.firms()[0].credit_used) == (0, 0)


def test_each_rule_of_a_credit_line_comes_in_its_order() -> None:
    bank = Bank()
    line = bank.engine.set_credit_line
    assert line(ACCOUNT, 9, -1) == t.REASON_CODE_ACCOUNT_UNKNOWN
    assert line(FIRM, 9, -1) == line(FIRM, 2**32, -1) == t.REASON_CODE_FIRM_UNKNOWN
    invalid = t.REASON_CODE_DEFINITION_INVALID
    assert line(4, 1, 0) == invalid
    for amount in (-1, 2**62 + 1, 2**64):
        assert line(ACCOUNT, 1, amount) == invalid
    revision = bank.engine.revision
    assert line(ACCOUNT, 1, 2**62, validate_only=True) == NONE
    assert (bank.engine.revision, bank.available()) == (revision, 0)


def test_a_batch_that_is_taken_back_uses_no_credit() -> None:
    bank = Bank()
    assert bank.deposit(10_000_000) == NONE
    assert bank.engine.set_credit_line(ACCOUNT, 1, 55_000_000) == NONE
    orders = [
        orders_pb.CheckOrderRequest(
            account_id=1,
            instrument_id=1,
            gateway_id=1,
            client_order_id=client_order_id,
            side=t.SIDE_BUY,
            order_type=t.ORDER_TYPE_LIMIT,
            price_ticks=PRICE_TICKS,
            quantity_lots=6,
        )
        for client_order_id in (1, 2)
    ]
    batch = orders_pb.BatchCheckOrdersRequest(mode=orders_pb.BATCH_MODE_ALL_OR_NONE, orders=orders)
    reply = bank.engine.handle(6, batch.SerializeToString(), NOW_NS)
    decisions = orders_pb.BatchCheckOrdersResponse.FromString(reply).decisions
    assert decisions[1].reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert used(bank, 1) == 0


# --- what is kept ---------------------------------------------------------------------------------


def test_journal_and_snapshot_keep_all_of_it(tmp_path: Path) -> None:
    bank = Bank()
    kept = Engine(
        accounts_max=8, positions_max=20, orders_max=20, gateways_max=4, answer_bytes=8192
    )
    kept.open_journal(tmp_path, durability="process")
    bank.engine = kept
    bank.fill_tables(kept)
    assert kept.create_account(2, 1, ISOLATED, 1000, CASH) == NONE
    assert kept.create_asset("COIN", 8) == (NONE, COIN)
    bank.define(((0, BILLION), (7, 5)), cap=9)
    bank.load(1, 100, 6_500_000_000)
    bank.load(2, -10, 650_000_000, 9_000_000)
    assert kept.create_firm(1, 1) == NONE
    assert kept.adjust_collateral(1, 1, -CASH, False, NOW_NS)[0] != NONE
    assert kept.set_credit_line(ACCOUNT, 1, 700_000_000) == NONE
    assert kept.set_credit_line(FIRM, 1, 1) == NONE
    assert kept.adjust_collateral(1, COIN, 12, False, NOW_NS)[0] == NONE
    assert kept.apply_funding(1, 5, 0, NOW_NS, now_ns=NOW_NS).positions == 2
    assert kept.set_margin_levels(1_500_000, 2_000_000) == NONE
    assert kept.change_revision == kept.revision
    assert kept.evaluate_levels(0, 10, NOW_NS) == (0, 1)
    assert kept.change_revision == kept.revision - 1
    assert kept.evaluate_levels(0, 10, NOW_NS) == (0, 0)
    bank.order(1, 1, quantity_lots=1)
    expected = kept.state_lines(), kept.answers_hash(), kept.revision, kept.risk_events(0, 0, 10)
    kept.close_journal()
    for by_snapshot in (False, True):
        again = Engine()
        replay = again.recover(tmp_path)
        assert (replay.snapshot is not None) is by_snapshot
        found = again.state_lines(), again.answers_hash(), again.revision
        assert (*found, again.risk_events(0, 0, 10)) == expected
        if not by_snapshot:
            again.write_snapshot(tmp_path)
