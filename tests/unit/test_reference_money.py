"""Funding, settlement, loaded positions, modes and margin levels, computed by hand.

The units are those of tests/unit/reference_desk.py: one lot at one tick is one minor unit, the mark
counts in half ticks, and maintenance is 1 % below a notional of 1,000,000.
"""

from typing import Any

import pytest

from riskd.core.rows import InstrumentRow, PositionRow, RiskEventRow
from riskd.reference.state import SCOPE_ACCOUNT, SCOPE_FIRM, SCOPE_INSTRUMENT
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import BUY, CALL, CROSS, ETH, ISOLATED, NOW, SELL, XBT, Desk

NONE = t.REASON_CODE_NONE
NET, LONG, SHORT = t.POSITION_SIDE_NET, t.POSITION_SIDE_LONG, t.POSITION_SIDE_SHORT
HALTED = t.TRADING_STATE_HALTED
SAFE, SEARCH, LIQUIDATION = 0, 1, 2


def desk_at(mode: int = CROSS, cash: int = 100_000) -> Desk:
    """Return a desk whose account 7 has 10x leverage, with XBT at 1000 ticks."""
    desk = Desk()
    desk.account(mode, 1000, cash)
    desk.mark(XBT, 2000)
    return desk


def lines(desk: Desk, name: str) -> list[str]:
    return [line for line in desk.engine.state_lines() if line.startswith(f"{name} ")]


def available(desk: Desk, account_id: int = 7) -> int:
    row = desk.engine.summary(account_id)
    assert row is not None
    assert row.known
    return row.available


def instrument(desk: Desk, instrument_id: int) -> InstrumentRow:
    return desk.engine.instruments()[instrument_id - 1]


def load(
    desk: Desk,
    lots: int,
    entry_value: int,
    wallet: int = 0,
    instrument_id: int = XBT,
    position_side: int = 0,
    account_id: int = 7,
    validate_only: bool = False,
) -> tuple[int, int, int]:
    return desk.engine.load_position(
        account_id,
        instrument_id,
        position_side,
        lots,
        entry_value,
        wallet,
        validate_only=validate_only,
        now_ns=desk.now_ns,
    )


def position_of(desk: Desk, account_id: int, position_side: int = NET) -> PositionRow:
    rows = desk.engine.positions(account_id) or []
    (row,) = [each for each in rows if each.position_side == position_side]
    return row


# --- Loaded positions -----------------------------------------------------------------------------


def test_a_loaded_cross_position_brings_its_profit_and_its_margin() -> None:
    desk = desk_at()
    before = desk.engine.revision
    # Worth 10,000 at the mark, bought for 9,000: 1,000 of profit, and 1,000 of margin at 10x.
    assert load(desk, 10, 9_000) == (NONE, 0, 100_000)
    assert (desk.position.lots, desk.position.entry_value, desk.cash) == (10, 9_000, 100_000)
    assert desk.engine.revision == before + 1


def test_a_loaded_wallet_is_new_money() -> None:
    desk = desk_at(ISOLATED)
    key = (SCOPE_ACCOUNT, 7, 0, t.LIMIT_KIND_DRAWDOWN_MAX)
    assert desk.engine.set_limit(*key, 5_000, 0, t.LIMIT_ACTION_HARD, NOW) == NONE
    assert load(desk, -10, 11_000, wallet=500) == (NONE, 500, 100_000)
    assert (desk.position.lots, desk.position.isolated_wallet, desk.cash) == (-10, 500, 100_000)
    assert desk.engine.limits()[0].peak == 100_500


def test_only_asking_to_load_changes_nothing() -> None:
    desk = desk_at(ISOLATED)
    before = desk.engine.state_lines()
    assert load(desk, 10, 9_000, wallet=500, validate_only=True) == (NONE, 500, 100_000)
    assert desk.engine.state_lines() == before


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ({"account_id": 8}, t.REASON_CODE_ACCOUNT_UNKNOWN),
        ({"instrument_id": 99}, t.REASON_CODE_INSTRUMENT_UNKNOWN),
        ({"position_side": LONG}, t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED),
        ({"lots": 0}, t.REASON_CODE_DEFINITION_INVALID),
        ({"lots": 2**53 + 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"lots": -(2**53) - 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"entry_value": 0}, t.REASON_CODE_DEFINITION_INVALID),
        ({"entry_value": 2**62 + 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"wallet": 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"instrument_id": CALL, "lots": -1}, t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED),
        ({"instrument_id": CALL, "wallet": 1}, t.REASON_CODE_DEFINITION_INVALID),
    ],
)
def test_what_cannot_be_loaded(rest: dict[str, Any], reason: int) -> None:
    desk = desk_at()
    before = desk.engine.state_lines()
    assert load(desk, **({"lots": 10, "entry_value": 9_000} | rest))[0] == reason
    assert desk.engine.state_lines() == before


@pytest.mark.parametrize("wallet", [-1, 2**62 + 1])
def test_a_loaded_wallet_has_bounds(wallet: int) -> None:
    desk = desk_at(ISOLATED)
    assert load(desk, 10, 9_000, wallet=wallet)[0] == t.REASON_CODE_DEFINITION_INVALID


@pytest.mark.parametrize(("position_side", "lots"), [(LONG, -1), (SHORT, 1)])
def test_a_loaded_side_has_its_sign(position_side: int, lots: int) -> None:
    desk = desk_at()
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE) == NONE
    reason, _, _ = load(desk, lots, 1_000, position_side=position_side)
    assert reason == t.REASON_CODE_DEFINITION_INVALID
    assert load(desk, -lots, 1_000, position_side=position_side)[0] == NONE


def test_nothing_is_loaded_over_a_position_or_orders() -> None:
    desk = desk_at()
    reply = desk.check(XBT, BUY, 1000, 1)
    assert load(desk, 10, 9_000)[0] == t.REASON_CODE_POSITION_NOT_FLAT
    desk.fill(reply.reservation_id, 1000, 1)
    assert load(desk, 10, 9_000)[0] == t.REASON_CODE_POSITION_NOT_FLAT


def test_a_loaded_position_needs_room() -> None:
    desk = desk_at()
    load(desk, 10, 9_000)
    desk.engine.set_capacities(positions_max=1)
    reason, _, _ = load(desk, 10, 9_000, instrument_id=ETH)
    assert reason == t.REASON_CODE_POSITIONS_FULL


# --- Funding --------------------------------------------------------------------------------------


def fund(
    desk: Desk,
    rate_ppb: int,
    price: int = 0,
    time_ns: int = NOW,
    instrument_id: int = XBT,
    validate_only: bool = False,
) -> tuple[int, int, int, int]:
    return desk.engine.apply_funding(
        instrument_id, rate_ppb, price, time_ns, validate_only=validate_only, now_ns=desk.now_ns
    )


def desk_of_two() -> Desk:
    """Return a desk where account 7 is long 10 and account 8 is short 10, both at 1000 ticks."""
    desk = desk_at()
    assert desk.engine.create_account(8, 1, CROSS, 1000, 100_000) == NONE
    assert load(desk, 10, 10_000)[0] == NONE
    assert load(desk, -10, 10_000, account_id=8)[0] == NONE
    return desk


@pytest.mark.parametrize(
    ("rate_ppb", "price", "paid", "received"),
    [
        (150_000, 0, 2, 1),  # 1.5 of 10,000: the long pays 2, the short gets 1
        (-150_000, 0, 2, 1),
        (100_000, 0, 1, 1),
        (100_000, 1_990, 1, 0),  # 0.995 of 9,950
        (0, 0, 0, 0),
    ],
)
def test_funding_is_paid_up_and_received_down(
    rate_ppb: int, price: int, paid: int, received: int
) -> None:
    desk = desk_of_two()
    before = desk.engine.revision
    assert fund(desk, rate_ppb, price) == (NONE, 2, paid, received)
    sign = 1 if rate_ppb > 0 else -1
    payer, payee = (7, 8) if sign > 0 else (8, 7)
    cash = {each.account_id: each.cash for each in desk.engine.accounts(0, 9)}
    assert cash == {payer: 100_000 - paid, payee: 100_000 + received}
    assert desk.engine.revision == before + 1
    assert instrument(desk, XBT).funding_time_ns == NOW


def test_funding_counts_as_realised_profit_of_the_day() -> None:
    desk = desk_of_two()
    day_ns = 86_400 * 10**9
    desk.now_ns = 3 * day_ns
    fund(desk, 150_000, time_ns=3 * day_ns)
    assert lines(desk, "usage") == ["usage 3 7 3 0 -2", "usage 3 8 3 0 1"]


def test_an_isolated_wallet_pays_its_own_funding_even_below_zero() -> None:
    desk = desk_at(ISOLATED)
    load(desk, 10, 10_000, wallet=400)
    assert fund(desk, 50_000_000) == (NONE, 1, 500, 0)
    assert (desk.position.isolated_wallet, desk.cash) == (-100, 100_000)
    # Half is closed at 2 ticks more: 10 of profit, and half of what the wallet owes.
    order = desk.check(XBT, SELL, 1002, 5)
    desk.fill(order.reservation_id, 1002, 5)
    assert (desk.position.isolated_wallet, desk.cash) == (-50, 100_000)
    assert lines(desk, "deficit") == ["deficit 1 40"]


def test_only_asking_for_funding_changes_nothing() -> None:
    desk = desk_of_two()
    before = desk.engine.state_lines()
    assert fund(desk, 150_000, validate_only=True) == (NONE, 2, 2, 1)
    assert desk.engine.state_lines() == before


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ({"instrument_id": 99}, t.REASON_CODE_INSTRUMENT_UNKNOWN),
        ({"instrument_id": CALL}, t.REASON_CODE_DEFINITION_INVALID),
        ({"rate_ppb": 10**9 + 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"rate_ppb": -(10**9) - 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"price": -1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"price": 2**53 + 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"time_ns": 0}, t.REASON_CODE_FUNDING_OUT_OF_ORDER),
        ({"time_ns": NOW + 10**9 + 1}, t.REASON_CODE_FUNDING_OUT_OF_ORDER),
        ({"instrument_id": ETH}, t.REASON_CODE_MARK_MISSING),
    ],
)
def test_what_funding_is_refused(rest: dict[str, Any], reason: int) -> None:
    desk = desk_of_two()
    before = desk.engine.state_lines()
    assert fund(desk, **({"rate_ppb": 100_000} | rest)) == (reason, 0, 0, 0)
    assert desk.engine.state_lines() == before


def test_funding_comes_once_and_in_order() -> None:
    desk = desk_of_two()
    assert fund(desk, 100_000)[0] == NONE
    for time_ns in (NOW, NOW - 1):
        assert fund(desk, 100_000, time_ns=time_ns)[0] == t.REASON_CODE_FUNDING_OUT_OF_ORDER
    assert fund(desk, 100_000, time_ns=NOW + 1)[0] == NONE


def test_funding_that_does_not_fit_is_not_paid_at_all() -> None:
    desk = desk_at()
    assert desk.engine.create_account(8, 1, CROSS, 1000, 2**62) == NONE
    load(desk, 10, 10_000)
    # 2^53 lots are worth 9.007e18, which fits; with the cash of 2^62 it does not.
    load(desk, -(2**53), 2**62, account_id=8)
    before = desk.engine.state_lines()
    assert fund(desk, 10**9) == (t.REASON_CODE_MARGIN_OVERFLOWS, 0, 0, 0)
    assert desk.engine.state_lines() == before


# --- Settlement -----------------------------------------------------------------------------------


def halt(desk: Desk, instrument_id: int = XBT) -> None:
    assert desk.engine.set_trading_state(SCOPE_INSTRUMENT, instrument_id, HALTED) == NONE


def settle(
    desk: Desk, price: int, instrument_id: int = XBT, validate_only: bool = False
) -> tuple[int, int, int, int, int, int]:
    return desk.engine.settle_instrument(
        instrument_id, price, validate_only=validate_only, now_ns=desk.now_ns
    )


def test_settlement_closes_cross_positions_and_releases_orders() -> None:
    desk = desk_of_two()
    reply = desk.check(XBT, BUY, 900, 3)
    halt(desk)
    before = desk.engine.revision
    # 10 lots at 950 ticks: the long loses 500, the short gains it.
    assert settle(desk, 1_900) == (NONE, 2, 1, 500, 500, 0)
    assert [each.cash for each in desk.engine.accounts(0, 9)] == [99_500, 100_500]
    assert desk.engine.positions(7) == []
    assert desk.engine.working_orders() == []
    assert [each.reservation_id for each in desk.engine.closed_orders()] == [reply.reservation_id]
    assert desk.engine.revision == before + 1
    assert instrument(desk, XBT).settlement_price == 1_900
    assert desk.engine.mark(XBT) is None


@pytest.mark.parametrize(
    ("price", "cash", "deficit"),
    [(1_900, 100_100, 0), (1_880, 100_000, 0), (1_800, 100_000, 400)],
)
def test_an_isolated_position_settles_into_its_wallet(price: int, cash: int, deficit: int) -> None:
    desk = desk_at(ISOLATED)
    load(desk, 10, 10_000, wallet=600)
    halt(desk)
    loss = (2_000 - price) * 10 // 2
    assert settle(desk, price) == (NONE, 1, 0, 0, loss, deficit)
    assert desk.cash == cash
    assert lines(desk, "deficit") == ([f"deficit 1 {deficit}"] if deficit else [])
    assert desk.engine.positions(7) == []


@pytest.mark.parametrize(
    ("option_type", "lots", "price", "cash_change", "profit"),
    [
        # 3 lots bought or sold for 2. The strike is 5 units, a unit of a lot half a minor unit.
        (1, 3, 9, 6, 4),
        (1, 3, 8, 4, 2),  # of 4.5
        (1, 3, 5, 0, -2),
        (1, -3, 8, -5, -3),
        (1, -3, 1, 0, 2),
        (2, 3, 2, 4, 2),
        (2, -3, 2, -5, -3),
        (2, -3, 5, 0, 2),
    ],
)
def test_an_option_settles_at_its_intrinsic_value(
    option_type: int, lots: int, price: int, cash_change: int, profit: int
) -> None:
    desk = desk_at()
    reason, rule_id = desk.engine.upsert_option_rule("rule", 1, 10**8, 10**7, 10**7)
    assert reason == NONE
    reason, half_id = desk.engine.upsert_instrument(
        *("HALF", 2, 1, 0, 5, -1, 2, -2),
        mark_units_per_tick=2,
        expiry_ns=10**18,
        strike_units=5,
        option_type=option_type,
        underlying_id=XBT,
        option_rule_id=rule_id,
    )
    assert reason == NONE
    assert load(desk, lots, 2, instrument_id=half_id)[0] == NONE
    halt(desk, half_id)
    expected = (NONE, 1, 0, max(0, profit), max(0, -profit), 0)
    assert settle(desk, price, half_id, validate_only=True) == expected
    assert settle(desk, price, half_id) == expected
    assert desk.cash == 100_000 + cash_change


def test_settlement_needs_an_end_and_comes_once() -> None:
    desk = desk_at()
    load(desk, 3, 2, instrument_id=CALL)
    assert settle(desk, 9, CALL)[0] == t.REASON_CODE_INSTRUMENT_NOT_EXPIRED
    desk.now_ns = 10**18 - 1
    assert settle(desk, 9, CALL)[0] == t.REASON_CODE_INSTRUMENT_NOT_EXPIRED
    desk.now_ns = 10**18
    assert settle(desk, 9, CALL)[0] == NONE
    assert settle(desk, 9, CALL)[0] == t.REASON_CODE_INSTRUMENT_SETTLED


@pytest.mark.parametrize(
    ("instrument_id", "price", "reason"),
    [
        (99, 1, t.REASON_CODE_INSTRUMENT_UNKNOWN),
        (XBT, 0, t.REASON_CODE_DEFINITION_INVALID),
        (XBT, 2**53 + 1, t.REASON_CODE_DEFINITION_INVALID),
        (XBT, 1, t.REASON_CODE_INSTRUMENT_NOT_EXPIRED),
    ],
)
def test_what_settlement_is_refused(instrument_id: int, price: int, reason: int) -> None:
    desk = desk_of_two()
    before = desk.engine.state_lines()
    assert settle(desk, price, instrument_id) == (reason, 0, 0, 0, 0, 0)
    assert desk.engine.state_lines() == before


def test_settlement_that_does_not_fit_is_not_done_at_all() -> None:
    desk = desk_at()
    assert desk.engine.create_account(8, 1, CROSS, 1000, 2**62) == NONE
    load(desk, 10, 10_000)
    load(desk, 2**53, 1, account_id=8)
    halt(desk)
    before = desk.engine.state_lines()
    assert settle(desk, 2_000) == (t.REASON_CODE_MARGIN_OVERFLOWS, 0, 0, 0, 0, 0)
    assert desk.engine.state_lines() == before


def test_a_settled_instrument_takes_nothing_any_more() -> None:
    desk = desk_of_two()
    halt(desk)
    settle(desk, 2_000)
    assert desk.engine.set_trading_state(SCOPE_INSTRUMENT, XBT, t.TRADING_STATE_NORMAL) == NONE
    before = desk.engine.state_lines()
    desk.mark(XBT, 2_000)
    assert fund(desk, 1)[0] == t.REASON_CODE_INSTRUMENT_SETTLED
    assert load(desk, 1, 1)[0] == t.REASON_CODE_INSTRUMENT_SETTLED
    assert desk.engine.state_lines() == before
    assert desk.check(XBT, BUY, 1000, 1).reason == t.REASON_CODE_INSTRUMENT_EXPIRED


def test_a_late_fill_of_a_settled_instrument_is_closed_at_once() -> None:
    desk = desk_at()
    reply = desk.check(XBT, BUY, 1000, 3)
    halt(desk)
    settle(desk, 1_900)
    # Bought at 1000 ticks, settled at 950: 150 are lost, and nothing is left.
    late = desk.fill(reply.reservation_id, 1000, 3)
    assert late.reason == t.REASON_CODE_RESERVATION_CLOSED
    assert (late.position_lots, late.realised_pnl_minor, desk.cash) == (0, -150, 99_850)
    assert desk.engine.positions(7) == []
    bust = desk.execute(
        orders_pb.EXECUTION_KIND_BUST, reply.reservation_id, original_execution_id=desk.next_id
    )
    assert (bust.position_lots, bust.realised_pnl_minor, desk.cash) == (0, 150, 100_000)


# --- Modes ----------------------------------------------------------------------------------------


def change_mode(
    desk: Desk, mode: int, instrument_id: int = XBT, validate_only: bool = False
) -> tuple[int, int, int, int]:
    return desk.engine.change_margin_mode(7, instrument_id, mode, validate_only, desk.now_ns)


def test_an_isolated_wallet_is_the_initial_margin_and_the_loss() -> None:
    desk = desk_at()
    load(desk, 10, 10_000)
    desk.mark(XBT, 1_900)
    # 9,500 at 10x, and the loss of 500. In the pool: 100,000 - 500 - 950; out of it 98,550.
    assert available(desk) == 98_550
    assert change_mode(desk, ISOLATED, validate_only=True) == (NONE, 1_450, 98_550, -1_450)
    assert desk.cash == 100_000
    assert change_mode(desk, ISOLATED) == (NONE, 1_450, 98_550, -1_450)
    assert (desk.cash, desk.position.isolated_wallet, available(desk)) == (98_550, 1_450, 98_550)
    assert change_mode(desk, CROSS) == (NONE, 0, 98_550, 1_450)
    assert (desk.cash, desk.position.isolated_wallet, available(desk)) == (100_000, 0, 98_550)


def test_a_profit_stays_with_the_position() -> None:
    desk = desk_at()
    load(desk, 10, 9_000)
    assert available(desk) == 100_000
    assert change_mode(desk, ISOLATED) == (NONE, 1_000, 99_000, -1_000)


def test_orders_hold_what_the_new_mode_says() -> None:
    desk = desk_at()
    load(desk, 10, 10_000)
    desk.check(XBT, SELL, 1000, 30)
    # Cross: the larger of 10,000 and 20,000 at 10x. Isolated: 1,000 of its own, 2,000 of orders.
    assert available(desk) == 98_000
    assert change_mode(desk, ISOLATED) == (NONE, 1_000, 97_000, -1_000)


def test_the_mode_it_has_changes_nothing_of_what_is_open() -> None:
    desk = desk_at()
    desk.check(XBT, BUY, 1000, 1)
    before = desk.engine.revision, desk.engine.state_lines()
    assert change_mode(desk, CROSS) == (NONE, 0, 99_900, 0)
    assert (desk.engine.revision, desk.engine.state_lines()) == before


def test_the_mode_it_has_becomes_its_own_when_nothing_is_open() -> None:
    desk = desk_at()
    before = desk.engine.revision
    assert change_mode(desk, CROSS) == (NONE, 0, 100_000, 0)
    assert desk.engine.revision == before + 1
    assert lines(desk, "position") == [f"position 7 {XBT} {NET} {CROSS} 0 0 0 0 0"]


def test_both_sides_change_together() -> None:
    desk = desk_at()
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE) == NONE
    load(desk, 10, 10_000, position_side=LONG)
    load(desk, -20, 19_000, position_side=SHORT)
    # Long: 1,000. Short: 2,000 and the loss of 1,000.
    assert change_mode(desk, ISOLATED) == (NONE, 4_000, 96_000, -4_000)
    assert position_of(desk, 7, LONG).isolated_wallet == 1_000
    assert position_of(desk, 7, SHORT).isolated_wallet == 3_000


def test_a_pool_must_have_the_margin_in_the_new_mode() -> None:
    desk = desk_at(cash=2_999)
    load(desk, 10, 10_000)
    desk.check(XBT, SELL, 1000, 29)
    assert available(desk) == 1_099
    desk.check(XBT, SELL, 1000, 2)
    assert available(desk) == 899
    # 1,000 leave the pool and 2,100 are held: 101 too much.
    assert change_mode(desk, ISOLATED) == (t.REASON_CODE_EXCEEDS_AVAILABLE, 0, 899, 0)


def test_a_profit_cannot_pay_a_wallet() -> None:
    desk = desk_at(cash=999)
    load(desk, 10, 5_000)
    assert available(desk) == 4_999
    # Its own profit stays with it, and so it needs 1,000 of cash.
    assert change_mode(desk, ISOLATED)[0] == t.REASON_CODE_EXCEEDS_AVAILABLE
    desk.engine.adjust_collateral(7, 1, 1, False, NOW)
    assert change_mode(desk, ISOLATED) == (NONE, 1_000, 0, -1_000)


@pytest.mark.parametrize(
    ("mode", "wallet", "cash", "reason"),
    [
        # 10,000 lots are worth 10,000,000: 101,011 at 99x, but maintenance is 340,000.
        (CROSS, 0, 5_000_000, t.REASON_CODE_BORN_LIQUIDATABLE_IN_MODE),
        (ISOLATED, 340_000, 0, t.REASON_CODE_BORN_LIQUIDATABLE_IN_MODE),
        (ISOLATED, 340_001, 0, NONE),
    ],
)
def test_a_position_is_not_born_liquidatable_in_the_other_mode(
    mode: int, wallet: int, cash: int, reason: int
) -> None:
    desk = Desk()
    desk.account(mode, 9_900, cash)
    desk.mark(XBT, 2_000)
    load(desk, 10_000, 10_000_000, wallet=wallet)
    before = desk.engine.state_lines()
    assert change_mode(desk, CROSS if mode == ISOLATED else ISOLATED)[0] == reason
    assert (desk.engine.state_lines() == before) == (reason != NONE)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (0, t.REASON_CODE_MARGIN_MODE_MISMATCH),
        (3, t.REASON_CODE_MARGIN_MODE_MISMATCH),
    ],
)
def test_only_two_modes_are_known(mode: int, reason: int) -> None:
    desk = desk_at()
    load(desk, 10, 10_000)
    assert change_mode(desk, mode)[0] == reason


def test_a_mode_needs_marks() -> None:
    desk = Desk()
    desk.account(CROSS, 1000, 100_000)
    load(desk, 10, 10_000)
    assert change_mode(desk, ISOLATED)[0] == t.REASON_CODE_MARK_MISSING
    desk.mark(XBT, 2_000)
    load(desk, 10, 10_000, instrument_id=ETH)
    assert change_mode(desk, ISOLATED)[0] == t.REASON_CODE_MARK_MISSING


def test_options_keep_their_mode_while_they_are_open() -> None:
    desk = desk_at()
    load(desk, 3, 2, instrument_id=CALL)
    assert change_mode(desk, ISOLATED, CALL)[0] == t.REASON_CODE_POSITION_NOT_FLAT


# --- Margin levels --------------------------------------------------------------------------------


def evaluate(desk: Desk, first: int = 0, count: int = 10) -> tuple[int, int]:
    return desk.engine.evaluate_levels(first, count, desk.now_ns)


def test_a_pool_is_searched_liquidated_and_released() -> None:
    desk = desk_at(cash=1_000)
    load(desk, 10, 10_000)
    assert desk.engine.set_margin_levels(1_500_000, 2_000_000) == NONE
    steps = [
        # 10 lots; equity 1,000 - 5 for a half tick; requirement 1 % of the value
        (2_000, SAFE),
        (1_828, SAFE),  # 140 > 1.5 * 92 = 138
        (1_826, SEARCH),  # 130
        (1_830, SEARCH),  # 150 < 2 * 92 = 184
        (1_836, SEARCH),  # 180
        (1_838, SAFE),  # 190
        (1_818, LIQUIDATION),  # 90 <= 91
        (1_822, LIQUIDATION),  # 110 is above 92, but not above 138
        (1_828, SEARCH),  # 140
        (1_816, LIQUIDATION),  # 80
        (1_840, SAFE),  # 200
    ]
    for units, level in steps:
        desk.mark(XBT, units)
        evaluate(desk)
        (line,) = lines(desk, "account")
        assert int(line.split()[-1]) == level, units


def test_each_change_of_a_level_is_an_event() -> None:
    desk = desk_at(cash=1_000)
    load(desk, 10, 10_000)
    assert desk.engine.set_margin_levels(1_500_000, 2_000_000) == NONE
    before = desk.engine.revision
    assert evaluate(desk) == (0, 0)
    assert desk.engine.revision == before
    desk.mark(XBT, 1_816)
    desk.now_ns += 5
    revision = desk.engine.revision
    assert evaluate(desk) == (0, 1)
    event = RiskEventRow(revision + 1, NOW + 5, 7, 0, 0, SAFE, LIQUIDATION, 80, 91)
    assert desk.engine.risk_events(0, 0, 10) == ([event], 0)
    assert desk.engine.risk_events(revision + 1, 0, 10) == ([], 0)
    assert desk.engine.risk_events(0, 8, 10) == ([], 0)
    assert desk.engine.risk_events(0, 7, 0) == ([], 0)


def test_an_isolated_position_has_a_level_of_its_own_until_it_is_seen_closed() -> None:
    desk = desk_at(ISOLATED)
    load(desk, 10, 10_000, wallet=1_000)
    assert desk.engine.set_margin_levels(1_500_000, 2_000_000) == NONE
    desk.mark(XBT, 1_826)
    assert evaluate(desk) == (0, 1)
    assert position_of(desk, 7).margin_level == SEARCH
    order = desk.check(XBT, SELL, 913, 10)
    desk.fill(order.reservation_id, 913, 10)
    # It is gone but for its level, which ends with an event of nothing.
    assert lines(desk, "position") == [f"position 7 {XBT} {NET} 0 0 0 0 0 {SEARCH}"]
    assert evaluate(desk) == (0, 1)
    assert lines(desk, "position") == []
    events, _ = desk.engine.risk_events(0, 7, 10)
    assert [(each.level_after, each.equity, each.requirement) for each in events] == [
        (SEARCH, 130, 92),
        (SAFE, 0, 0),
    ]
    assert [each.instrument_id for each in events] == [XBT, XBT]


def test_a_position_that_joins_the_pool_ends_its_own_level() -> None:
    desk = desk_at(ISOLATED)
    load(desk, 10, 10_000, wallet=1_000)
    desk.engine.set_margin_levels(1_500_000, 2_000_000)
    desk.mark(XBT, 1_826)
    evaluate(desk)
    assert change_mode(desk, CROSS)[0] == NONE
    assert evaluate(desk) == (0, 1)
    assert position_of(desk, 7).margin_level == SAFE


def test_levels_are_looked_at_in_slices() -> None:
    desk = desk_of_two()
    assert desk.engine.create_account(9, 1, CROSS, 1000, 0) == NONE
    desk.engine.set_margin_levels(1_500_000, 2_000_000)
    # At 21,000 the short of account 8 loses 95,000 of its 100,000, and requires 1,050.
    desk.mark(XBT, 21_000)
    assert evaluate(desk, 0, 1) == (1, 0)
    assert evaluate(desk, 1, 1) == (2, 0)
    desk.mark(XBT, 21_900)
    assert evaluate(desk, 1, 1) == (2, 1)
    assert evaluate(desk, 2, 1) == (0, 0)
    assert evaluate(desk, 3, 5) == (0, 0)


def test_what_is_not_known_keeps_its_level() -> None:
    desk = desk_at(cash=1_000)
    load(desk, 10, 10_000)
    desk.engine.set_margin_levels(1_500_000, 2_000_000)
    desk.mark(XBT, 1_816)
    assert evaluate(desk) == (0, 1)
    desk.mark(XBT, 2_000)
    load(desk, 10, 10_000, instrument_id=ETH)
    assert evaluate(desk) == (0, 0)


def test_without_levels_nothing_is_found() -> None:
    desk = desk_at(cash=1_000)
    load(desk, 10, 10_000)
    desk.mark(XBT, 1_816)
    assert evaluate(desk) == (0, 0)
    desk.engine.set_margin_levels(1_500_000, 2_000_000)
    assert lines(desk, "levels") == ["levels 1500000 2000000"]
    assert evaluate(desk) == (0, 1)
    assert desk.engine.set_margin_levels(0, 0) == NONE
    desk.mark(XBT, 2_000)
    assert evaluate(desk) == (0, 0)
    assert lines(desk, "levels") == []


@pytest.mark.parametrize(
    ("search", "release", "reason"),
    [
        (1_000_000, 2_000_000, t.REASON_CODE_DEFINITION_INVALID),
        (1_000_001, 1_000_001, t.REASON_CODE_DEFINITION_INVALID),
        (1_000_001, 10_000_001, t.REASON_CODE_DEFINITION_INVALID),
        (0, 2_000_000, t.REASON_CODE_DEFINITION_INVALID),
        (-1, 0, t.REASON_CODE_DEFINITION_INVALID),
        (1_000_001, 10_000_000, NONE),
    ],
)
def test_levels_have_bounds(search: int, release: int, reason: int) -> None:
    assert desk_at().engine.set_margin_levels(search, release) == reason


# --- Collateral -----------------------------------------------------------------------------------

COIN = 2
COLLATERAL_TIERS = [(0, 900_000_000), (1_000, 500_000_000)]


def desk_with_coin(cash: int = 0, **terms: Any) -> Desk:
    """Return a desk where COIN, with 3 decimals, is collateral at XBT's mark of 500 USDT.

    One minor unit of it is worth 0.5 USDT: 50 minor units.
    """
    desk = desk_at(cash=cash)
    assert desk.engine.create_asset("COIN", 3) == (NONE, COIN)
    assert define(desk, **terms) == NONE
    return desk


def define(desk: Desk, **terms: Any) -> int:
    given: dict[str, Any] = {
        "asset_id": COIN,
        "settlement_asset_id": 1,
        "index_instrument_id": XBT,
        "tiers": COLLATERAL_TIERS,
    }
    return desk.engine.define_collateral(**(given | terms))


def adjust(desk: Desk, amount: int, asset_id: int = COIN) -> tuple[int, int, int]:
    return desk.engine.adjust_collateral(7, asset_id, amount, False, desk.now_ns)


@pytest.mark.parametrize(
    ("balance", "terms", "value"),
    [
        (100, {}, 4_500),
        (1_000, {}, 45_000),
        (1_003, {}, 45_075),  # 75 of the second tier
        (1_003, {"cap": 1_001}, 45_025),
        (1_003, {"tiers": [(0, 10**9)]}, 50_150),
        (1_003, {"tiers": [(0, 0)]}, 0),
        (1, {"tiers": [(0, 999_999_999)]}, 49),
    ],
)
def test_a_balance_counts_by_tier(balance: int, terms: dict[str, Any], value: int) -> None:
    desk = desk_with_coin(**terms)
    assert adjust(desk, balance) == (NONE, balance, value)
    assert available(desk) == value


def owe(desk: Desk, amount: int) -> None:
    """Let a fee in COIN be paid by an account that has none."""
    order = desk.check(XBT, BUY, 1, 1)
    assert order.reason == NONE
    desk.execute(
        orders_pb.EXECUTION_KIND_FILL,
        order.reservation_id,
        1000,
        1,
        fee_minor=amount,
        fee_asset_id=COIN,
    )


def test_a_debt_counts_more_than_its_value() -> None:
    desk = desk_with_coin(cash=1_000, liability_ppb=1_010_000_001)
    owe(desk, 3)
    # 150 at 1.010000001 are 151.50000015; the position holds 100 of its 1,000.
    assert available(desk) == 1_000 - 152 - 100


def test_a_debt_of_what_is_no_collateral_cannot_be_valued() -> None:
    desk = desk_at(cash=1_000)
    desk.engine.create_asset("COIN", 3)
    owe(desk, 3)
    row = desk.engine.summary(7)
    assert row is not None
    assert not row.known
    assert desk.check(ETH, BUY, 1, 1).reason == t.REASON_CODE_MARK_MISSING
    desk.mark(ETH, 2)
    assert desk.check(ETH, BUY, 1, 1).reason == t.REASON_CODE_MARGIN_OVERFLOWS
    assert adjust(desk, -1, 1)[0] == t.REASON_CODE_EXCEEDS_AVAILABLE
    assert adjust(desk, 3)[0] == NONE
    assert available(desk) == 900


def test_collateral_backs_orders_and_positions() -> None:
    desk = desk_with_coin(cash=0)
    adjust(desk, 100)
    assert desk.check(XBT, BUY, 1000, 46).reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    reply = desk.check(XBT, BUY, 1000, 45)
    assert (reply.reason, reply.available_minor) == (NONE, 0)
    # 45,000 - 4,500 of collateral: the notional where 1 % is left is 40,909.09, of 45 lots.
    desk.fill(reply.reservation_id, 1000, 45)
    assert desk.position.liquidation_price == 1_818
    assert desk.position.bankruptcy_price == 1_800
    assert desk.position.equity == 4_500


def test_collateral_needs_its_index() -> None:
    desk = desk_with_coin(cash=1_000, index_instrument_id=ETH)
    adjust(desk, 100)
    assert desk.check(XBT, BUY, 1000, 1).reason == t.REASON_CODE_MARK_MISSING
    assert adjust(desk, -1, 1)[0] == t.REASON_CODE_MARK_MISSING
    assert adjust(desk, -1)[0] == t.REASON_CODE_MARK_MISSING
    desk.mark(ETH, 2_000)
    assert desk.check(XBT, BUY, 1000, 1).reason == NONE


def test_collateral_that_is_needed_cannot_be_withdrawn() -> None:
    desk = desk_with_coin(cash=0)
    adjust(desk, 100)
    assert desk.check(XBT, BUY, 1000, 44).reason == NONE  # 4,400 of 4,500
    assert adjust(desk, -3) == (t.REASON_CODE_EXCEEDS_AVAILABLE, 100, 100)
    assert adjust(desk, -101)[0] == t.REASON_CODE_EXCEEDS_AVAILABLE
    assert adjust(desk, -2) == (NONE, 98, 10)
    # It is no cash: that of the settlement asset is 0.
    assert adjust(desk, -1, 1)[0] == t.REASON_CODE_EXCEEDS_AVAILABLE


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"asset_id": 9}, t.REASON_CODE_ASSET_UNKNOWN),
        ({"settlement_asset_id": 9}, t.REASON_CODE_ASSET_UNKNOWN),
        ({"asset_id": 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"tiers": []}, t.REASON_CODE_DEFINITION_INVALID),
        ({"tiers": [(k, 1) for k in range(9)]}, t.REASON_CODE_DEFINITION_INVALID),
        ({"tiers": [(1, 1)]}, t.REASON_CODE_DEFINITION_INVALID),
        ({"tiers": [(0, 1), (0, 1)]}, t.REASON_CODE_DEFINITION_INVALID),
        ({"tiers": [(0, 1), (1, 2)]}, t.REASON_CODE_DEFINITION_INVALID),
        ({"tiers": [(0, 10**9 + 1)]}, t.REASON_CODE_DEFINITION_INVALID),
        ({"tiers": [(0, 1), (1, -1)]}, t.REASON_CODE_DEFINITION_INVALID),
        ({"cap": -1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"liability_ppb": 10**9 - 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"liability_ppb": 10**10 + 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"interest_free": 2, "forced_conversion": 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"interest_free": -1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"wrong_way_ppb": -1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"wrong_way_ppb": 10**9 + 1}, t.REASON_CODE_DEFINITION_INVALID),
        ({"index_instrument_id": 99}, t.REASON_CODE_INSTRUMENT_UNKNOWN),
        ({"index_instrument_id": CALL}, t.REASON_CODE_DEFINITION_INVALID),
        ({"asset_id": 1, "settlement_asset_id": COIN}, t.REASON_CODE_DEFINITION_INVALID),
    ],
)
def test_what_collateral_is_refused(terms: dict[str, Any], reason: int) -> None:
    desk = desk_with_coin()
    before = desk.engine.state_lines()
    assert define(desk, **terms) == reason
    assert desk.engine.state_lines() == before


def test_a_definition_replaces_the_one_before() -> None:
    desk = desk_with_coin()
    adjust(desk, 100)
    assert define(desk, tiers=[(0, 10**9)], cap=50, interest_free=3, forced_conversion=4) == NONE
    assert available(desk) == 2_500
    assert lines(desk, "collateral") == ["collateral 2 1 1 50 1000000000 3 4 0 0:1000000000"]


# --- Credit ---------------------------------------------------------------------------------------


def give(desk: Desk, scope: int, scope_id: int, amount: int) -> int:
    return desk.engine.set_credit_line(scope, scope_id, amount)


def credit_of(desk: Desk, account_id: int = 7) -> tuple[int, int]:
    """Return line and use."""
    row = desk.engine.account(account_id)
    assert row is not None
    return row.credit_line, row.credit_used


def test_credit_backs_margin_and_is_used_beyond_the_own_money() -> None:
    desk = desk_at(cash=1_000)
    assert give(desk, SCOPE_ACCOUNT, 7, 500) == NONE
    assert available(desk) == 1_500
    assert desk.check(XBT, BUY, 1000, 16).reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    first = desk.check(XBT, BUY, 1000, 9)
    assert credit_of(desk) == (500, 0)
    second = desk.check(XBT, BUY, 1000, 6)
    assert (second.available_minor, credit_of(desk)) == (0, (500, 500))
    desk.execute(orders_pb.EXECUTION_KIND_CANCEL, first.reservation_id)
    assert (available(desk), credit_of(desk)) == (900, (500, 0))


def test_credit_is_equity_but_no_money() -> None:
    desk = desk_at(cash=1_000)
    load(desk, 10, 10_000)
    assert give(desk, SCOPE_ACCOUNT, 7, 500) == NONE
    assert available(desk) == 500
    assert adjust(desk, -1, 1) == (t.REASON_CODE_EXCEEDS_AVAILABLE, 1_000, 500)
    assert change_mode(desk, ISOLATED)[0] == NONE
    assert (desk.position.isolated_wallet, desk.cash) == (1_000, 0)
    assert change_mode(desk, CROSS)[0] == NONE
    assert desk.position.equity == 1_500
    # Half the leverage takes 2,000, of which 500 is not enough; nor would 1,000 of credit be.
    assert give(desk, SCOPE_ACCOUNT, 7, 1_000) == NONE
    reason, _, _ = desk.engine.set_leverage(7, XBT, 500, False, NOW)
    assert reason == t.REASON_CODE_EXCEEDS_AVAILABLE


def test_a_firm_bounds_what_its_accounts_use_together() -> None:
    desk = desk_at(cash=100)
    engine = desk.engine
    assert engine.create_account(8, 1, CROSS, 1000, 100) == NONE
    assert engine.create_firm(3, 1) == NONE
    for account_id in (7, 8):
        assert engine.set_account_owner(account_id, 3, 0, NOW) == NONE
        assert give(desk, SCOPE_ACCOUNT, account_id, 500) == NONE
    assert available(desk) == 600  # a firm without a line does not bound
    assert give(desk, SCOPE_FIRM, 3, 700) == NONE
    assert desk.check(XBT, BUY, 1000, 5).reason == NONE
    assert (available(desk, 7), available(desk, 8)) == (100, 400)
    assert lines(desk, "firm") == ["firm 3 1 1 700 400"]
    assert desk.check(XBT, BUY, 1000, 5, account_id=8).reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    assert desk.check(XBT, BUY, 1000, 4, account_id=8).reason == NONE
    # Less than is used leaves nothing, but takes nothing away either.
    assert give(desk, SCOPE_FIRM, 3, 300) == NONE
    assert (available(desk, 7), available(desk, 8)) == (-400, -300)


def test_a_line_that_ends_is_not_used() -> None:
    desk = desk_at(cash=100)
    give(desk, SCOPE_ACCOUNT, 7, 500)
    assert desk.check(XBT, BUY, 1000, 5).reason == NONE
    assert credit_of(desk) == (500, 400)
    assert give(desk, SCOPE_ACCOUNT, 7, 0) == NONE
    assert credit_of(desk) == (0, 0)
    assert available(desk) == -400


def test_orders_that_are_released_free_their_credit() -> None:
    desk = desk_at(cash=100)
    give(desk, SCOPE_ACCOUNT, 7, 500)
    assert desk.check(XBT, BUY, 1000, 5).reason == NONE
    desk.engine.cancel_orders(0, 7, 0, 0, 0, [], False, NOW)
    assert credit_of(desk) == (500, 0)


@pytest.mark.parametrize(
    ("scope", "scope_id", "amount", "reason"),
    [
        (SCOPE_INSTRUMENT, XBT, 1, t.REASON_CODE_DEFINITION_INVALID),
        (SCOPE_ACCOUNT, 8, 1, t.REASON_CODE_ACCOUNT_UNKNOWN),
        (SCOPE_FIRM, 8, 1, t.REASON_CODE_FIRM_UNKNOWN),
        (SCOPE_ACCOUNT, 7, -1, t.REASON_CODE_DEFINITION_INVALID),
        (SCOPE_ACCOUNT, 7, 2**62 + 1, t.REASON_CODE_DEFINITION_INVALID),
        (SCOPE_ACCOUNT, 7, 2**62, NONE),
    ],
)
def test_what_credit_is_refused(scope: int, scope_id: int, amount: int, reason: int) -> None:
    assert give(desk_at(), scope, scope_id, amount) == reason
