"""Positions settled in another asset than their account, and wrong-way collateral, by hand.

The units are those of tests/unit/reference_desk.py. COIN, with 3 decimals, is collateral at XBT's
mark of 500 USDT: one minor unit of it is worth 50 minor units, of which 90 % count. FAR is settled
in COIN: one lot at one tick is one minor unit of COIN, and its mark counts in half ticks.
"""

from typing import Any

import pytest

from riskd.reference.state import SCOPE_ACCOUNT, SCOPE_INSTRUMENT
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import BUY, CROSS, ISOLATED, NOW, SELL, TIERS, XBT, Desk

NONE = t.REASON_CODE_NONE
FULL = t.REASON_CODE_BALANCES_FULL
COIN, FAR = 2, 4


def desk_abroad(mode: int = CROSS, cash: int = 10_000, *, is_collateral: bool = True) -> Desk:
    """Return a desk with FAR at 100 ticks and an account of 10x leverage."""
    desk = Desk()
    desk.account(mode, 1000, cash)
    desk.mark(XBT, 2_000)
    assert desk.engine.create_asset("COIN", 3) == (NONE, COIN)
    assert desk.engine.upsert_schedule("coins", COIN, TIERS) == (NONE, 2)
    steps = (1, -3, 1, 0, 2)
    assert desk.engine.upsert_instrument("FAR", 1, COIN, 2, *steps) == (NONE, FAR)
    if is_collateral:
        assert desk.engine.define_collateral(COIN, 1, XBT, [(0, 900_000_000)]) == NONE
    desk.mark(FAR, 200)
    return desk


def balance(desk: Desk) -> int:
    return sum(row.amount for row in desk.engine.balances(7) or [] if row.asset_id == COIN)


def deposit(desk: Desk, amount: int) -> None:
    assert desk.engine.adjust_collateral(7, COIN, amount, False, NOW)[0] == NONE


def figures(desk: Desk) -> tuple[int, int, int, int]:
    """Return collateral value, initial margin, liquidation requirement and available."""
    row = desk.engine.summary(7)
    assert row is not None
    assert row.known
    requirement = row.cross_liquidation_requirement
    return row.collateral_value, row.initial_margin, requirement, row.available


def test_margin_is_converted_and_profit_counts_with_the_balance() -> None:
    desk = desk_abroad()
    order = desk.check(FAR, BUY, 100, 10)
    # 10 % of 1,000 COIN units, at 50.
    assert (order.reason, order.reserved_minor, order.available_minor) == (NONE, 5_000, 5_000)
    desk.fill(order.reservation_id, 100, 10)
    assert (desk.cash, balance(desk)) == (10_000, 0)
    desk.mark(FAR, 220)
    # 100 units of profit count 4,500; 10 % and 1 % of 1,100 are 110 and 11.
    assert figures(desk) == (4_500, 5_500, 550, 9_000)
    desk.mark(FAR, 190)
    # A loss of 50 units is a debt: it counts in full.
    assert figures(desk) == (-2_500, 4_750, 500, 2_750)
    deposit(desk, 60)
    assert figures(desk) == (450, 4_750, 500, 5_700)


def test_each_asset_is_converted_once() -> None:
    desk = desk_abroad()
    desk.engine.upsert_instrument("FAR-2", 1, COIN, 2, 1, -3, 1, 0, 2)
    desk.mark(5, 2)
    desk.mark(XBT, 1_999)  # 49.975 a unit
    desk.trade(FAR, BUY, 100, 1)
    desk.trade(5, BUY, 1, 1)
    # 10 and 1 units of margin: 549.725; a unit of requirement each: 99.95.
    assert figures(desk) == (0, 550, 100, 9_450)


def test_an_order_in_another_asset_is_refused_on_the_money_of_all() -> None:
    desk = desk_abroad(cash=5_000)
    order = desk.check(FAR, BUY, 100, 11)
    assert order.reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    (violation,) = order.detail.violations
    assert (violation.limit, violation.order_use) == (5_000, 5_500)
    assert order.max_quantity_lots == 10
    deposit(desk, 11)  # 550 of 11 units, 495 count.
    assert desk.check(FAR, BUY, 100, 11).reason == t.REASON_CODE_MARGIN_INSUFFICIENT
    deposit(desk, 1)
    assert desk.check(FAR, BUY, 100, 11).reason == NONE


def test_profits_fees_and_funding_are_of_the_balance() -> None:
    desk = desk_abroad()
    order = desk.check(FAR, BUY, 100, 10)
    desk.fill(order.reservation_id, 100, 10, fee=3)
    assert (desk.cash, balance(desk)) == (10_000, -3)
    assert desk.engine.apply_funding(FAR, 1_000_000, 0, NOW, now_ns=NOW) == (NONE, 1, 1, 0)
    assert (desk.cash, balance(desk)) == (10_000, -4)
    order = desk.check(FAR, SELL, 120, 10)
    kind = orders_pb.EXECUTION_KIND_FILL
    reply = desk.execute(kind, order.reservation_id, 120, 10, fee_minor=7, fee_asset_id=1)
    assert (reply.realised_pnl_minor, desk.cash, balance(desk)) == (200, 9_993, 196)
    assert not [line for line in desk.engine.state_lines() if line.startswith("usage")]


def test_a_settlement_pays_the_balance_and_leaves_a_deficit_in_its_own_asset() -> None:
    desk = desk_abroad()
    load(desk, 10, 1_000)
    assert desk.engine.set_trading_state(SCOPE_INSTRUMENT, FAR, t.TRADING_STATE_HALTED) == NONE
    assert desk.engine.settle_instrument(FAR, 140, now_ns=NOW) == (NONE, 1, 0, 0, 300, 0)
    assert (desk.cash, balance(desk)) == (10_000, -300)
    desk = desk_abroad(ISOLATED)
    load(desk, 10, 1_000, wallet=100)
    assert desk.engine.set_trading_state(SCOPE_INSTRUMENT, FAR, t.TRADING_STATE_HALTED) == NONE
    assert desk.engine.settle_instrument(FAR, 140, now_ns=NOW) == (NONE, 1, 0, 0, 300, 200)
    assert (desk.cash, balance(desk)) == (10_000, 0)
    assert f"deficit {COIN} 200" in desk.engine.state_lines()


def load(
    desk: Desk, lots: int, entry_value: int, wallet: int = 0, instrument_id: int = FAR
) -> None:
    arguments = (7, instrument_id, 0, lots, entry_value, wallet)
    assert desk.engine.load_position(*arguments, now_ns=NOW)[0] == NONE


@pytest.mark.parametrize(("mark", "expected"), [(101, False), (100, True)])
def test_a_pool_abroad_is_liquidatable_on_rounded_figures(mark: int, expected: bool) -> None:
    desk = desk_abroad(cash=25_250)
    load(desk, 10, 1_000)
    desk.mark(FAR, mark)
    # At 50.5: 25,250 - 50 * 495 = 500 over ceil(5.05) * 50 = 300; at 50: 250 and 250.
    assert desk.position.liquidatable is expected
    assert desk.position.liquidation_status == t.LIQUIDATION_STATUS_UNSPECIFIED
    assert (desk.position.liquidation_price, desk.position.bankruptcy_price) == (0, 0)


def test_prices_at_home_hold_what_is_abroad() -> None:
    desk = desk_abroad(cash=10_000)
    load(desk, 10, 1_000)
    desk.mark(FAR, 190)
    desk.trade(XBT, BUY, 1_000, 20)
    # w = 10,000 - 2,500 - 500: V - w over 0.99 is 13,131.3, of 20 lots, in half ticks down.
    row = next(each for each in desk.engine.positions(7) or [] if each.instrument_id == XBT)
    assert row.liquidation_price == 1_313
    # 7,500 are left to lose.
    assert row.bankruptcy_price == 1_250


def test_isolated_margin_comes_out_of_the_balance() -> None:
    desk = desk_abroad(ISOLATED)
    deposit(desk, 150)
    desk.trade(FAR, BUY, 100, 10)
    assert (desk.position.isolated_wallet, desk.cash, balance(desk)) == (100, 10_000, 50)
    transfer = desk.engine.transfer_margin
    assert transfer(7, FAR, 51, False, NOW)[0] == t.REASON_CODE_EXCEEDS_AVAILABLE
    assert transfer(7, FAR, 50, False, NOW) == (NONE, 150, 10_000)
    assert balance(desk) == 0
    assert transfer(7, FAR, -20, False, NOW) == (NONE, 130, 10_900)
    assert (desk.cash, balance(desk)) == (10_000, 20)
    row = desk.engine.summary(7)
    assert row is not None
    assert row.isolated_wallets == 0
    # V - W over 0.99 is 878.8, of 10 lots, in half ticks down.
    assert desk.position.liquidation_price == 175


def test_a_switch_of_mode_moves_the_balance() -> None:
    desk = desk_abroad()
    load(desk, 10, 1_000)
    change = desk.engine.change_margin_mode
    assert change(7, FAR, ISOLATED, False, NOW)[0] == t.REASON_CODE_EXCEEDS_AVAILABLE
    deposit(desk, 100)
    assert change(7, FAR, ISOLATED, False, NOW) == (NONE, 100, 10_000, -100)
    assert (desk.cash, balance(desk)) == (10_000, 0)
    assert change(7, FAR, CROSS, False, NOW) == (NONE, 0, 9_500, 100)
    assert (desk.cash, balance(desk)) == (10_000, 100)


def test_the_index_is_needed_without_a_balance() -> None:
    desk = desk_abroad()
    desk.engine.upsert_instrument("INDEX", 1, 1, 1, 5, -1, 2, -2, 2)
    assert desk.engine.define_collateral(COIN, 1, 5, [(0, 900_000_000)]) == NONE
    assert desk.check(FAR, BUY, 100, 10).reason == t.REASON_CODE_MARK_MISSING
    assert desk.check(XBT, BUY, 1_000, 1).reason == NONE
    load(desk, 10, 1_000)
    assert desk.check(XBT, BUY, 1_000, 1).reason == t.REASON_CODE_MARK_MISSING
    desk.mark(5, 2_000)
    assert desk.check(XBT, BUY, 1_000, 1).reason == NONE


def test_only_collateral_is_traded_abroad() -> None:
    desk = desk_abroad(is_collateral=False)
    mismatch = t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH
    assert desk.check(FAR, BUY, 100, 1).reason == mismatch
    assert desk.engine.load_position(7, FAR, 0, 1, 100, 0, now_ns=NOW)[0] == mismatch
    assert desk.engine.set_leverage(7, FAR, 200, False, NOW)[0] == mismatch
    assert desk.engine.change_margin_mode(7, FAR, ISOLATED, False, NOW)[0] == mismatch


def test_an_account_under_limits_trades_at_home() -> None:
    desk = desk_abroad()
    limit = (SCOPE_ACCOUNT, 7, 0, t.LIMIT_KIND_DAILY_LOSS_MAX, 5_000, 0, t.LIMIT_ACTION_HARD, NOW)
    order = desk.check(FAR, BUY, 100, 1)
    assert desk.engine.set_limit(*limit) == t.REASON_CODE_POSITION_NOT_FLAT
    desk.fill(order.reservation_id, 100, 1)
    order = desk.check(FAR, SELL, 100, 1)
    desk.fill(order.reservation_id, 100, 1)
    # Flat, but a late fill of the closed orders may still come.
    assert desk.engine.set_limit(*limit) == t.REASON_CODE_POSITION_NOT_FLAT
    desk = desk_abroad()
    assert desk.engine.set_limit(*limit) == NONE
    assert desk.check(FAR, BUY, 100, 1).reason == t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH


def test_an_account_abroad_has_no_owner_and_owns_none() -> None:
    desk = desk_abroad()
    assert desk.engine.create_account(8, 1, CROSS, 1000, 0) == NONE
    assert desk.engine.create_firm(1, 1) == NONE
    desk.trade(FAR, BUY, 100, 1)
    owners: list[tuple[int, int, int]] = [(8, 0, 7), (7, 0, 8), (7, 1, 0)]
    for owner in owners:
        reason = desk.engine.set_account_owner(*owner, NOW)
        assert reason == t.REASON_CODE_POSITION_NOT_FLAT
    for owner in owners:
        fresh = desk_abroad()
        fresh.engine.create_account(8, 1, CROSS, 1000, 0)
        fresh.engine.create_firm(1, 1)
        assert fresh.engine.set_account_owner(*owner, NOW) == NONE
        assert fresh.check(FAR, BUY, 100, 1).reason == t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH


def fill_up(desk: Desk) -> None:
    """Let another account have the only row of balances."""
    assert desk.engine.create_account(8, 1, CROSS, 1000, 0) == NONE
    assert desk.engine.adjust_collateral(8, COIN, 5, False, NOW)[0] == NONE
    desk.engine.set_capacities(balances_max=1)


def test_money_abroad_needs_a_row() -> None:
    desk = desk_abroad()
    load(desk, 10, 1_000)
    reservation_id = desk.check(FAR, BUY, 100, 1).reservation_id
    fill_up(desk)
    assert desk.engine.set_trading_state(SCOPE_INSTRUMENT, FAR, t.TRADING_STATE_HALTED) == NONE
    before = desk.engine.state_lines()
    assert desk.fill(reservation_id, 100, 1).reason == FULL
    assert desk.engine.apply_funding(FAR, 0, 0, NOW, now_ns=NOW)[0] == FULL
    assert desk.engine.settle_instrument(FAR, 200, now_ns=NOW)[0] == FULL
    assert desk.engine.state_lines() == before
    assert desk.engine.set_trading_state(SCOPE_INSTRUMENT, FAR, t.TRADING_STATE_NORMAL) == NONE
    assert desk.check(FAR, SELL, 100, 5).reason == FULL


def test_a_wallet_needs_a_row_to_be_paid_out() -> None:
    desk = desk_abroad(ISOLATED)
    load(desk, 10, 1_000, wallet=200)
    fill_up(desk)
    before = desk.engine.state_lines()
    assert desk.engine.transfer_margin(7, FAR, -1, False, NOW)[0] == FULL
    assert desk.engine.change_margin_mode(7, FAR, CROSS, False, NOW)[0] == FULL
    assert desk.engine.state_lines() == before


# --- Wrong-way collateral -------------------------------------------------------------------------

ABOUT_COIN = 5


def desk_exposed(mode: int = CROSS, wrong_way_ppb: int = 400_000_000) -> Desk:
    """Return a desk with 100 units of COIN, 4,500 by themselves, and a contract about COIN."""
    desk = desk_abroad(mode, cash=20_000)
    deposit(desk, 100)
    steps = (1, 1, 5, -1, 2, -2, 2)
    listed = desk.engine.upsert_instrument("ABOUT", 1, *steps, base_asset_id=COIN)
    assert listed == (NONE, ABOUT_COIN)
    desk.mark(ABOUT_COIN, 2_000)
    tiers = [(0, 900_000_000)]
    defined = desk.engine.define_collateral(COIN, 1, XBT, tiers, wrong_way_ppb=wrong_way_ppb)
    assert defined == NONE
    return desk


def value(desk: Desk) -> int | None:
    ((asset_id, _, counted),) = desk.engine.collateral_values(7) or []
    assert asset_id == COIN
    return counted


@pytest.mark.parametrize(
    ("lots", "wrong_way_ppb", "expected"),
    [
        (2, 400_000_000, 3_700),
        (10, 400_000_000, 2_700),  # 10,000 are exposed, 4,500 have value.
        (2, 333_333_333, 3_833),  # 666.666666 do not count.
        (2, 10**9, 2_500),
        (10, 10**9, 0),
        (10, 0, 4_500),
        (-10, 10**9, 4_500),
    ],
)
def test_what_falls_together_counts_less(lots: int, wrong_way_ppb: int, expected: int) -> None:
    desk = desk_exposed(wrong_way_ppb=wrong_way_ppb)
    load(desk, lots, abs(lots) * 1_000, instrument_id=ABOUT_COIN)
    assert value(desk) == expected
    assert figures(desk)[0] == expected


def test_a_buy_is_an_exposure_from_its_check_on() -> None:
    desk = desk_exposed()
    order = desk.check(ABOUT_COIN, BUY, 900, 2)
    # It holds 180, and 40 % of 1,800 do not count any more.
    assert (order.reason, order.reserved_minor, order.available_minor) == (NONE, 180, 23_600)
    assert (value(desk), figures(desk)[3]) == (3_780, 23_600)
    assert desk.check(ABOUT_COIN, SELL, 1_000, 1).available_minor == 23_600


def test_longs_and_shorts_offset() -> None:
    desk = desk_exposed()
    load(desk, 5, 5_000, instrument_id=ABOUT_COIN)
    desk.engine.upsert_instrument("SHORT", 1, 1, 1, 5, -1, 2, -2, 2, base_asset_id=COIN)
    desk.mark(6, 2_000)
    load(desk, -3, 3_000, instrument_id=6)
    assert value(desk) == 3_700
    load(desk, 9, 9_000, instrument_id=XBT)  # About nothing that is named.
    assert value(desk) == 3_700


def test_isolated_positions_are_no_exposure() -> None:
    desk = desk_exposed(ISOLATED)
    load(desk, 10, 10_000, wallet=1_000, instrument_id=ABOUT_COIN)
    assert value(desk) == 4_500


def test_an_exposure_abroad_is_converted() -> None:
    desk = desk_exposed()
    # One lot is 1,000 / p units of COIN.
    steps = (1, 0, 1, 0, 1)
    listed = desk.engine.upsert_instrument("COIN-INV", 3, COIN, 2, *steps, base_asset_id=COIN)
    assert listed == (NONE, 6)
    desk.mark(6, 300)
    load(desk, 9, 30, instrument_id=6)
    # 9 lots are 30 units, 1,500 in USDT; 40 % of them.
    assert value(desk) == 3_900


def test_a_loss_of_what_is_exposed_comes_out_of_the_rest() -> None:
    """The price of a liquidation holds what counts now."""
    desk = desk_exposed()
    load(desk, 20, 20_000, instrument_id=ABOUT_COIN)
    # w = 20,000 + 2,700: no price takes that from a position worth 20,000.
    cannot = t.LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
    assert desk.position.liquidation_status == cannot
    desk.engine.adjust_collateral(7, 1, -15_000, False, NOW)
    # V - 7,700 over 0.99 is 12,424.2, of 20 lots, in half ticks down.
    assert desk.position.liquidation_price == 1_242


def test_an_exposure_needs_its_mark() -> None:
    desk = desk_exposed()
    desk.engine.upsert_instrument("DARK", 1, 1, 1, 5, -1, 2, -2, 2, base_asset_id=COIN)
    load(desk, 1, 1_000, instrument_id=6)
    assert value(desk) is None
    assert desk.check(XBT, BUY, 1_000, 1).reason == t.REASON_CODE_MARK_MISSING
    desk.mark(6, 2_000)
    assert value(desk) == 4_100


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ({"base_asset_id": 9}, t.REASON_CODE_ASSET_UNKNOWN),
        ({"base_asset_id": 0}, t.REASON_CODE_FIELD_IMMUTABLE),
        ({"base_asset_id": 1}, t.REASON_CODE_FIELD_IMMUTABLE),
        ({"base_asset_id": COIN}, NONE),
    ],
)
def test_a_contract_names_a_coin_once(rest: dict[str, Any], reason: int) -> None:
    desk = desk_exposed()
    named = ("ABOUT", 1, 1, 1, 5, -1, 2, -2, 2)
    assert desk.engine.upsert_instrument(*named, **rest)[0] == reason


def test_an_option_names_none() -> None:
    desk = desk_exposed()
    reason, _ = desk.engine.upsert_instrument(
        *("PUT", 2, 1, 0, 5, -1, 2, -2),
        expiry_ns=10**18,
        strike_units=5,
        option_type=1,
        base_asset_id=COIN,
    )
    assert reason == t.REASON_CODE_DEFINITION_INVALID
