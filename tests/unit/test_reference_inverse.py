"""Inverse contracts of the reference against venues' examples and figures by hand.

Money is a coin with 8 decimals, a lot is 1 USD, a tick 1 USD: Q = 10^8 and N = n 10^8 / price.
"""

import pytest

from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.contract_desk import CONTRACT, ContractDesk
from tests.unit.reference_desk import BUY, CROSS, ISOLATED, NOW, SELL

INVERSE_PERPETUAL, INVERSE_FUTURE = 3, 5
COIN = 10**8


def inverse(mode: int = CROSS, cash: int = 10 * COIN, leverage: int = 1000) -> ContractDesk:
    desk = ContractDesk(INVERSE_PERPETUAL, (1, 0), (1, 0), scale=8)
    desk.account(mode, leverage, cash)
    return desk


def price_of(desk: ContractDesk) -> float:
    """Return the liquidation price of the position in USD."""
    return desk.position.liquidation_price / 100


def test_kraken_example_of_an_isolated_long() -> None:
    # 1000 contracts at 8000 with 0.01 BTC, 2 per cent initial, 1 per cent maintenance at the mark.
    # Source: support.kraken.com/hc/en-us/articles/360022835671: 0.0025, 0.00125, 7481 and 7407.
    desk = inverse(ISOLATED, leverage=5000)
    desk.mark(CONTRACT, 800_000)
    desk.load(1000, 12_500_000, 1_000_000)
    assert desk.position.initial_margin == 250_000
    assert desk.position.maintenance == 125_000
    # 10^13 / (13_500_000 / 1.01) = 748_148.1; bankrupt at 10^13 / 13_500_000 = 740_740.7.
    assert desk.position.liquidation_price == 748_148
    assert price_of(desk) == pytest.approx(7481, abs=0.5)
    assert desk.position.bankruptcy_price == 740_741
    desk.mark(CONTRACT, 748_149)
    assert not desk.position.liquidatable
    desk.mark(CONTRACT, 748_148)
    assert desk.position.liquidatable


def test_bybit_position_with_maintenance_of_its_entry() -> None:
    # 5 contracts at 7197.35 and 1x: value and margin 0.0006947, maintenance 0.5 per cent of it.
    # Source: position response in Bybit's API docs (v2): liquidation at 3608, bankrupt at 3599.
    desk = ContractDesk(
        INVERSE_PERPETUAL,
        (5, -1),
        (1, 0),
        scale=8,
        tiers=[(0, 10_000_000, 5_000_000, 10_000)],
        schedule={"maintenance_basis": 2},
    )
    desk.account(ISOLATED, 100, COIN)
    desk.mark(CONTRACT, 1_439_500)
    desk.load(5, 69_470, 69_470)
    assert desk.position.maintenance == 348  # of 347.35
    # 5 * 2 * 10^10 / (138_940 - 348) = 721_542.4 units of 0.005 USD, in ticks of 0.5 up: 3608.
    assert desk.position.liquidation_price == 721_542
    assert -(-desk.position.liquidation_price // 100) * 0.5 == 3608
    assert -(-desk.position.bankruptcy_price // 100) * 0.5 == 3599
    desk.mark(CONTRACT, 800_000)
    assert desk.position.maintenance == 348


def test_value_and_initial_margin_of_venues_examples() -> None:
    # Bybit UTA: 60,000 contracts at 50,000 and 10x are 1.2 BTC, 0.12 BTC.
    desk = inverse(ISOLATED)
    desk.mark(CONTRACT, 5_000_000)
    assert desk.check(CONTRACT, SELL, 50_000, 60_000).initial_margin_minor == 12_000_000
    # nautilus_trader: 100,000 USD at 11,493.6: 1 per cent are 0.08700494, 0.35 per cent 0.03045173.
    desk = ContractDesk(
        INVERSE_PERPETUAL, (1, -1), (1, 0), scale=8, tiers=[(0, 10_000_000, 3_500_000, 10_000)]
    )
    desk.account(CROSS, 10_000, COIN)
    desk.mark(CONTRACT, 11_493_600)
    desk.load(100_000, 870_049_418)
    assert desk.position.initial_margin == pytest.approx(8_700_494, abs=1)
    assert desk.position.maintenance == pytest.approx(3_045_173, abs=1)


def test_a_fill_is_rounded_against_the_position() -> None:
    desk = inverse(cash=10**9)
    desk.mark(CONTRACT, 700)
    # A buy of 3 at 7: 3 * 10^8 / 7 = 42_857_142.9 down: the long holds less coin than it bought.
    desk.trade(CONTRACT, BUY, 7, 3)
    assert desk.position.entry_value == 42_857_142
    # Worth 3 * 10^10 / 701 at 7.01: V - ceil(42_796_005.7).
    desk.mark(CONTRACT, 701)
    assert desk.position.unrealised_pnl == 42_857_142 - 42_796_006
    # A sell of 1 at 8 releases floor(V / 3) = 14_285_714 and costs ceil(10^8 / 8) = 12_500_000.
    closing = desk.trade(CONTRACT, SELL, 8, 1)
    assert closing.realised_pnl_minor == 1_785_714
    assert desk.cash == 10**9 + 1_785_714
    assert desk.position.entry_value == 42_857_142 - 14_285_714
    # A sell of 5 closes 2, released 28_571_428, at ceil(2 * 10^8 / 9), and opens 3 at
    # ceil(3 * 10^8 / 9) = 33_333_334.
    turning = desk.trade(CONTRACT, SELL, 9, 5)
    assert turning.realised_pnl_minor == 28_571_428 - 22_222_223
    assert (desk.position.lots, desk.position.entry_value) == (-3, 33_333_334)
    # The short gains as the notional falls: floor(3 * 10^10 / 1100) - V is a profit below zero for
    # it when the price rises.
    desk.mark(CONTRACT, 1100)
    assert desk.position.unrealised_pnl == 27_272_727 - 33_333_334


def test_a_cheap_buy_is_margined_at_its_own_price() -> None:
    desk = inverse()
    desk.mark(CONTRACT, 790_000)
    # Below the mark: 1000 at 7000 are ceil(10^11 / 7000) = 14_285_715, 10x.
    assert desk.check(CONTRACT, BUY, 7000, 1000).reserved_minor == 1_428_572
    desk = inverse()
    desk.mark(CONTRACT, 790_000)
    # Above: it is margined at the mark, ceil(10^11 / 7900) = 12_658_228, and loses what that is
    # above floor(10^11 / 8000) = 12_500_000.
    assert desk.check(CONTRACT, BUY, 8000, 1000).reserved_minor == 1_265_823 + 158_228


def test_a_sell_is_margined_at_its_own_price() -> None:
    desk = inverse()
    desk.mark(CONTRACT, 790_000)
    # Below the mark: 14_285_715 at its price, floor(10^11 / 7900) = 12_658_227 at the mark.
    assert desk.check(CONTRACT, SELL, 7000, 1000).reserved_minor == 1_428_572 + 1_627_488
    desk = inverse()
    desk.mark(CONTRACT, 790_000)
    # Above: 10^11 / 8000 = 12_500_000.
    assert desk.check(CONTRACT, SELL, 8000, 1000).reserved_minor == 1_250_000


def test_a_short_cannot_be_liquidated_with_its_whole_value_behind_it() -> None:
    desk = inverse(ISOLATED)
    desk.mark(CONTRACT, 800_000)
    desk.load(-1000, 12_500_000, 1_000_000)
    # (12_500_000 - 1_000_000) / 0.99 = 11_616_161.6: 10^13 / that = 860_869.6, up.
    assert desk.position.liquidation_price == 860_870
    assert desk.position.bankruptcy_price == 869_565  # 10^13 / 11_500_000 = 869_565.2, down
    desk = inverse(ISOLATED)
    desk.mark(CONTRACT, 800_000)
    desk.load(-1000, 12_500_000, 12_500_000)
    status = desk.position.liquidation_status
    assert status == t.LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
    assert desk.position.bankruptcy_price == 0


def test_an_amount_of_coin_buys_what_it_can_come_to() -> None:
    desk = ContractDesk(INVERSE_PERPETUAL, (1, 0), (1, 0), scale=8, market_buffer_ppb=10_000_000)
    desk.account(CROSS, 1000, COIN)
    desk.mark(CONTRACT, 800_000)
    # At 8080, 1 per cent above the mark, 10^6 of 10^-8 coin are 80.8 USD.
    flags = orders_pb.ORDER_FLAG_QUOTE_QUANTITY
    assert desk.check(CONTRACT, BUY, 0, 10**6, flags=flags).quantity_lots == 80
    reply = desk.check(CONTRACT, SELL, 0, 12_376, flags=flags)  # 0.99999 lots
    assert reply.reason == t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE


def test_the_smallest_notional_is_met_by_the_fewest_lots() -> None:
    desk = ContractDesk(INVERSE_PERPETUAL, (1, 0), (1, 0), scale=8, order_notional_min=12_501)
    desk.account(CROSS, 100, 30_000)
    desk.mark(CONTRACT, 800_000)
    # One lot at 8000 is 12_500, too little; two are 25_000; three more than the cash.
    assert desk.check(CONTRACT, BUY, 8000, 1).reason == t.REASON_CODE_BELOW_ORDER_NOTIONAL_MIN
    assert desk.check(CONTRACT, BUY, 8000, 3).max_quantity_lots == 2


def test_a_level_counts_its_unrealised_loss_in_coin() -> None:
    desk = inverse(cash=COIN)
    desk.mark(CONTRACT, 800_000)
    assert desk.engine.create_firm(1, 1) == t.REASON_CODE_NONE
    assert desk.engine.set_account_owner(7, 1, 0, NOW) == t.REASON_CODE_NONE
    desk.load(1000, 12_500_000)
    limit = (5, 1, 0, t.LIMIT_KIND_DAILY_LOSS_MAX)
    assert desk.engine.set_limit(*limit, 1, 0, 2, NOW) == t.REASON_CODE_NONE
    desk.mark(CONTRACT, 790_000)
    # 12_500_000 - ceil(10^13 / 790_000).
    assert desk.engine.limit_use(*limit, NOW) == 158_228


def test_a_future_expires() -> None:
    desk = ContractDesk(INVERSE_FUTURE, (1, 0), (1, 0), scale=8, expiry_ns=NOW + 1)
    desk.account(CROSS, 1000, COIN)
    desk.mark(CONTRACT, 800_000)
    assert desk.check(CONTRACT, BUY, 8000, 10).reason == t.REASON_CODE_NONE
    desk.now_ns += 1
    assert desk.check(CONTRACT, BUY, 8000, 10).reason == t.REASON_CODE_INSTRUMENT_EXPIRED


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (INVERSE_PERPETUAL, {"expiry_ns": 5}),
        (INVERSE_FUTURE, {}),
        (INVERSE_PERPETUAL, {"lot_exponent": -9}),  # Q = 0.1
        (INVERSE_PERPETUAL, {"lot_exponent": 11}),  # Q = 10^19
        (INVERSE_PERPETUAL, {"lot_exponent": 10, "mark_units_per_tick": 10**4}),  # Q U = 10^22
        (INVERSE_PERPETUAL, {"multiplier_mantissa": 0}),
        (INVERSE_PERPETUAL, {"multiplier_exponent": 13}),
        (9, {}),
    ],
)
def test_a_contract_that_cannot_be(kind: int, change: dict[str, int]) -> None:
    desk = inverse()
    steps = {"tick_mantissa": 1, "tick_exponent": 0, "lot_mantissa": 1, "lot_exponent": 0}
    reason, _ = desk.engine.upsert_instrument("NEW", kind, 1, 1, **(steps | change))
    assert reason == t.REASON_CODE_DEFINITION_INVALID


def test_a_multiplier_is_money_of_a_price() -> None:
    # Quanto: 0.01 coin of 10^-6 for a price of 1: a lot at 300 is 3 coins.
    desk = ContractDesk(8, (1, 0), (1, 0), scale=6, multiplier_exponent=-2)
    desk.account(CROSS, 1000, 10**8)
    desk.mark(CONTRACT, 30_000)
    assert desk.check(CONTRACT, BUY, 300, 4).initial_margin_minor == 1_200_000
    changed = desk.engine.upsert_instrument("CONTRACT", 8, 1, 1, 1, 0, 1, 0, 100)
    assert changed == (t.REASON_CODE_FIELD_IMMUTABLE, 0)
