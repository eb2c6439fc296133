"""Loading, funding, settling positions and switching their mode: expectations by hand.

A lot at a tick is 100 minor units. The mark is 650,000 ticks, so that 10 lots are worth
650,000,000 there; initial margin is a tenth of it, maintenance a hundredth.
"""

from riskd.core.engine import METHOD_REPORT_MARKS, Engine
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.desk import NOW_NS, PRICE_TICKS, SIZES, Desk, reservation_in

CASH = 10**15
NONE = t.REASON_CODE_NONE
CROSS, ISOLATED = t.MARGIN_MODE_CROSS, t.MARGIN_MODE_ISOLATED
NET, LONG, SHORT = t.POSITION_SIDE_NET, t.POSITION_SIDE_LONG, t.POSITION_SIDE_SHORT
BUY, SELL = t.SIDE_BUY, t.SIDE_SELL
LINEAR_PERPETUAL, LINEAR_OPTION = 1, 2
EXPIRY_NS = NOW_NS + 10**15
HALTED = t.TRADING_STATE_HALTED


class Floor(Desk):
    """Accounts 1 (cross) and 2 (isolated) on a perpetual, and a call and a put on it."""

    def __init__(self) -> None:
        super().__init__(
            Engine(**(SIZES | {"accounts_max": 4, "positions_max": 12, "instruments_max": 4}))
        )
        engine = self.engine
        assert engine.create_account(2, 1, ISOLATED, 1000, CASH) == NONE
        for symbol, option_type in (("BTC-C", 1), ("BTC-P", 2)):
            reason, _ = engine.upsert_instrument(
                *(symbol, LINEAR_OPTION, 1, 0, 1, -1, 1, -3),
                expiry_ns=EXPIRY_NS,
                strike_units=PRICE_TICKS,
                option_type=option_type,
                underlying_id=1,
            )
            assert reason == NONE

    def load(
        self, account_id: int, lots: int, entry: int, wallet: int = 0, side: int = NET, of: int = 1
    ) -> None:
        reason, kept, _ = self.engine.load_position(
            account_id, of, side, lots, entry, wallet, now_ns=NOW_NS
        )
        assert (reason, kept) == (NONE, wallet)

    def mark(self, price: int, time_ns: int = NOW_NS) -> list[int]:
        """Report the perpetual's mark; return why not."""
        report = market_pb.Mark(instrument_id=1, mark_price=price, time_ns=time_ns)
        marks = market_pb.ReportMarksRequest(marks=[report])
        reply = self.engine.handle(METHOD_REPORT_MARKS, marks.SerializeToString(), time_ns)
        answer = market_pb.ReportMarksResponse.FromString(reply)
        return [each.reason for each in answer.refusals]

    def cash(self, account_id: int) -> int:
        row = self.engine.account(account_id)
        assert row is not None
        return row.cash

    def position(self, account_id: int, side: int = NET, of: int = 1) -> tuple[int, int, int]:
        """Return (lots, entry value, wallet)."""
        for row in self.engine.positions(account_id) or []:
            if (row.instrument_id, row.position_side) == (of, side):
                return row.lots, row.entry_value, row.isolated_wallet
        return 0, 0, 0

    def usage(self) -> list[str]:
        return [line for line in self.engine.state_lines() if line.startswith("usage")]

    def deficits(self) -> list[str]:
        return [line for line in self.engine.state_lines() if line.startswith("deficit")]

    def halt(self) -> None:
        assert self.engine.set_trading_state(4, 1, HALTED) == NONE


# --- load -----------------------------------------------------------------------------------------


def test_a_loaded_position_has_margin_and_profit_as_if_it_had_been_traded() -> None:
    floor = Floor()
    answer = floor.engine.load_position(1, 1, NET, 10, 640_000_000, 0, now_ns=NOW_NS)
    assert answer == (NONE, 0, CASH + 10_000_000 - 65_000_000)
    summary = floor.engine.summary(1)
    assert summary is not None
    assert (summary.cash, summary.cross_pnl) == (CASH, 10_000_000)
    assert floor.position(1) == (10, 640_000_000, 0)


def test_a_loaded_wallet_is_new_money() -> None:
    floor = Floor()
    answer = floor.engine.load_position(2, 1, NET, -10, 650_000_000, 70_000_000, now_ns=NOW_NS)
    assert answer == (NONE, 70_000_000, CASH)
    assert floor.position(2) == (-10, 650_000_000, 70_000_000)


def test_a_load_that_is_only_validated_says_what_it_would_come_to() -> None:
    floor = Floor()
    before = floor.engine.state_hash(), floor.engine.revision
    answer = floor.engine.load_position(
        1, 1, NET, 10, 640_000_000, 0, validate_only=True, now_ns=NOW_NS
    )
    assert answer == (NONE, 0, CASH + 10_000_000 - 65_000_000)
    assert (floor.engine.state_hash(), floor.engine.revision) == before


def test_each_rule_of_a_load_comes_in_its_order() -> None:
    floor = Floor()
    load = floor.engine.load_position
    assert load(9, 9, 9, 0, 0, 0)[0] == t.REASON_CODE_ACCOUNT_UNKNOWN
    assert load(1, 9, 9, 0, 0, 0)[0] == t.REASON_CODE_INSTRUMENT_UNKNOWN
    assert load(1, 1, 9, 0, 0, 0)[0] == t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED
    invalid = t.REASON_CODE_DEFINITION_INVALID
    for fields in (
        (NET, 0, 1, 0),
        (NET, 2**53 + 1, 1, 0),
        (NET, 2**70, 1, 0),
        (NET, 1, 0, 0),
        (NET, 1, 2**62 + 1, 0),
        (NET, 1, 1, -1),
        (NET, 1, 1, 1),
    ):
        assert load(1, 1, *fields)[0] == invalid, fields
    assert load(2, 2, NET, 1, 1, 1)[0] == invalid
    assert load(1, 2, NET, -1, 1, 0)[0] == t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED
    floor.load(1, 2**53, 2**62)
    assert load(1, 1, NET, 0, 0, 0)[0] == t.REASON_CODE_POSITION_NOT_FLAT
    floor.order(1, 1, account_id=2)
    assert load(2, 1, NET, 0, 0, 0)[0] == t.REASON_CODE_POSITION_NOT_FLAT
    assert floor.engine.set_trading_state(4, 2, HALTED) == NONE
    assert floor.engine.settle_instrument(2, 1, now_ns=NOW_NS).reason == NONE
    assert load(1, 2, NET, 1, 1, 0)[0] == t.REASON_CODE_INSTRUMENT_SETTLED


def test_a_hedge_side_takes_only_lots_of_its_sign() -> None:
    floor = Floor()
    assert floor.engine.set_position_mode(1, t.POSITION_MODE_HEDGE) == NONE
    load = floor.engine.load_position
    for side, lots in ((LONG, -1), (SHORT, 1)):
        assert load(1, 1, side, lots, 1, 0)[0] == t.REASON_CODE_DEFINITION_INVALID
    floor.load(1, 3, 100, side=LONG)
    floor.load(1, -2, 100, side=SHORT)
    assert floor.position(1, LONG) == (3, 100, 0)
    assert floor.position(1, SHORT) == (-2, 100, 0)


# --- funding --------------------------------------------------------------------------------------


def test_longs_pay_shorts_rounded_against_whoever_it_is() -> None:
    floor = Floor()
    floor.load(1, 7, 455_000_000)
    floor.load(2, -7, 455_000_000, 50_000_000)
    # 7 lots at 649,999 are 454,999,300; a rate of 123,457 ppb makes 56,172.848...
    row = floor.engine.apply_funding(1, 123_457, 649_999, NOW_NS, now_ns=NOW_NS)
    assert row == (NONE, 2, 56_173, 56_172)
    assert floor.cash(1) == CASH - 56_173
    assert floor.position(2) == (-7, 455_000_000, 50_056_172)
    day = NOW_NS // (86400 * 10**9)
    assert floor.usage() == [f"usage 3 1 {day} 0 -56173", f"usage 3 2 {day} 0 56172"]


def test_a_negative_rate_turns_it_round_and_no_price_is_the_mark() -> None:
    floor = Floor()
    floor.load(1, 10, 650_000_000)
    floor.load(2, -10, 650_000_000, 65_000_000)
    row = floor.engine.apply_funding(1, -100_000, 0, NOW_NS, now_ns=NOW_NS)
    assert row == (NONE, 2, 65_000, 65_000)
    assert floor.cash(1) == CASH + 65_000
    assert floor.position(2)[2] == 65_000_000 - 65_000


def test_an_isolated_wallet_may_fall_below_zero_and_then_pays_no_loss() -> None:
    floor = Floor()
    floor.load(2, 10, 600_000_000, 1000)
    row = floor.engine.apply_funding(1, 1_000_000, 0, NOW_NS, now_ns=NOW_NS)
    assert row.paid == 650_000
    assert floor.position(2)[2] == 1000 - 650_000
    # Half of it is sold at 599,999 ticks: a loss of 500, and half of the debt is paid with it.
    assert floor.engine.set_trading_state(4, 1, HALTED) == NONE
    settled = floor.engine.settle_instrument(1, 600_001, now_ns=NOW_NS)
    assert settled == (NONE, 1, 0, 1000, 0, 648_000)
    assert floor.deficits() == ["deficit 1 648000"]
    assert floor.cash(2) == CASH


def test_each_rule_of_funding_comes_in_its_order() -> None:
    floor = Floor()
    fund = floor.engine.apply_funding
    assert fund(9, 2**80, -1, 0).reason == t.REASON_CODE_INSTRUMENT_UNKNOWN
    invalid = t.REASON_CODE_DEFINITION_INVALID
    assert fund(2, 0, 0, NOW_NS).reason == invalid
    for rate, price in ((10**9 + 1, 0), (-(10**9) - 1, 0), (0, -1), (0, 2**53 + 1)):
        assert fund(1, rate, price, 0).reason == invalid
    out_of_order = t.REASON_CODE_FUNDING_OUT_OF_ORDER
    assert fund(1, 0, 0, 0, now_ns=NOW_NS).reason == out_of_order
    assert fund(1, 0, 0, NOW_NS + 10**9 + 1, now_ns=NOW_NS).reason == out_of_order
    assert fund(1, 0, 0, NOW_NS, now_ns=NOW_NS).reason == NONE
    assert fund(1, 0, 0, NOW_NS, now_ns=NOW_NS).reason == out_of_order
    bare = Floor()
    bare.halt()
    assert bare.engine.settle_instrument(1, 5, now_ns=NOW_NS).reason == NONE
    assert bare.engine.apply_funding(1, 0, 0, 0).reason == t.REASON_CODE_INSTRUMENT_SETTLED


def test_funding_that_does_not_fit_an_account_changes_nobody() -> None:
    floor = Floor()
    floor.load(1, 10, 650_000_000)
    floor.load(2, 2**53, 2**62, 2**62)
    before = floor.engine.state_hash()
    row = floor.engine.apply_funding(1, 10**9, 2**53, NOW_NS, now_ns=NOW_NS)
    assert row == (t.REASON_CODE_MARGIN_OVERFLOWS, 0, 0, 0)
    assert floor.engine.state_hash() == before


# --- settlement -----------------------------------------------------------------------------------


def test_a_settlement_closes_positions_and_releases_orders() -> None:
    floor = Floor()
    floor.load(1, 10, 640_000_000)
    floor.load(2, -10, 640_000_000, 64_000_000)
    kept = reservation_in(floor.order(1, 1, quantity_lots=3, price_ticks=600_000))
    floor.halt()
    row = floor.engine.settle_instrument(1, 645_000, now_ns=NOW_NS)
    assert row == (NONE, 2, 1, 5_000_000, 5_000_000, 0)
    assert (floor.cash(1), floor.cash(2)) == (CASH + 5_000_000, CASH + 59_000_000)
    assert floor.position(1) == floor.position(2) == (0, 0, 0)
    lines = floor.engine.state_lines()
    assert not [each for each in lines if each.split()[0] in ("position", "order", "deficit")]
    assert floor.engine.mark(1) is None
    # A late cancel still finds its order, and no mark comes back.
    reply = orders_pb.ReportExecutionResponse.FromString(floor.cancel(1, 1, kept))
    assert reply.reason == t.REASON_CODE_RESERVATION_CLOSED
    assert floor.mark(650_000, NOW_NS + 1) == [t.REASON_CODE_INSTRUMENT_SETTLED]


def test_a_settled_instrument_takes_no_order_and_keeps_its_price() -> None:
    floor = Floor()
    floor.halt()
    assert floor.engine.settle_instrument(1, 645_000, now_ns=NOW_NS).reason == NONE
    assert floor.engine.set_trading_state(4, 1, t.TRADING_STATE_NORMAL) == NONE
    answer = orders_pb.CheckOrderResponse.FromString(floor.order(1, 1))
    assert answer.reason == t.REASON_CODE_INSTRUMENT_EXPIRED
    listed = floor.engine.upsert_instrument("BTC-PERP", 1, 1, 1, 1, -1, 1, -3)
    assert listed == (NONE, 1)
    assert floor.engine.instruments()[0].settlement_price == 645_000
    again = floor.engine.settle_instrument(1, 645_000, now_ns=NOW_NS)
    assert again.reason == t.REASON_CODE_INSTRUMENT_SETTLED


def test_a_late_fill_of_a_settled_instrument_is_closed_at_its_price() -> None:
    for account_id in (1, 2):
        floor = Floor()
        order = reservation_in(floor.order(1, 1, account_id=account_id, price_ticks=640_000))
        floor.halt()
        assert floor.engine.settle_instrument(1, 645_000, now_ns=NOW_NS).orders == 1
        request = orders_pb.ReportExecutionRequest(
            gateway_id=1,
            execution_id=1,
            reservation_id=order,
            kind=orders_pb.EXECUTION_KIND_FILL,
            price_ticks=640_000,
            quantity_lots=10,
        )
        reply = floor.engine.handle(2, request.SerializeToString(), NOW_NS)
        answer = orders_pb.ReportExecutionResponse.FromString(reply)
        assert (answer.position_lots, answer.realised_pnl_minor) == (0, 5_000_000)
        assert floor.cash(account_id) == CASH + 5_000_000
        assert floor.position(account_id) == (0, 0, 0)


def test_options_settle_at_what_they_are_in_the_money() -> None:
    floor = Floor()
    floor.load(1, 3, 900_000, of=2)
    floor.load(1, 5, 700_000, of=3)
    settle = floor.engine.settle_instrument
    assert settle(2, 655_000, now_ns=NOW_NS).reason == t.REASON_CODE_INSTRUMENT_NOT_EXPIRED
    # The call is 5,000 ticks in the money: 3 lots pay 1,500,000; the put pays nothing.
    assert settle(2, 655_000, now_ns=EXPIRY_NS) == (NONE, 1, 0, 600_000, 0, 0)
    assert settle(3, 655_000, now_ns=EXPIRY_NS) == (NONE, 1, 0, 0, 700_000, 0)
    assert floor.cash(1) == CASH + 1_500_000
    day = EXPIRY_NS // (86400 * 10**9)
    assert floor.usage() == [f"usage 3 1 {day} 0 -100000"]


def test_a_bankrupt_isolated_position_leaves_its_pool_alone() -> None:
    floor = Floor()
    floor.load(2, 10, 650_000_000, 20_000_000)
    floor.halt()
    before = floor.engine.state_hash()
    row = floor.engine.settle_instrument(1, 600_000, validate_only=True, now_ns=NOW_NS)
    assert floor.engine.state_hash() == before
    assert row == (NONE, 1, 0, 0, 50_000_000, 30_000_000)
    assert floor.engine.settle_instrument(1, 600_000, now_ns=NOW_NS) == row
    assert floor.cash(2) == CASH
    assert floor.deficits() == ["deficit 1 30000000"]


def test_each_rule_of_a_settlement_comes_in_its_order() -> None:
    floor = Floor()
    settle = floor.engine.settle_instrument
    assert settle(9, 0, now_ns=NOW_NS).reason == t.REASON_CODE_INSTRUMENT_UNKNOWN
    for price in (0, -1, 2**53 + 1, 2**80):
        assert settle(1, price, now_ns=NOW_NS).reason == t.REASON_CODE_DEFINITION_INVALID
    assert settle(1, 1, now_ns=NOW_NS).reason == t.REASON_CODE_INSTRUMENT_NOT_EXPIRED
    floor.halt()
    floor.load(1, 2**53, 2**62)
    overflow = settle(1, 2**53, now_ns=NOW_NS)
    assert overflow == (t.REASON_CODE_MARGIN_OVERFLOWS, 0, 0, 0, 0, 0)


# --- mode -----------------------------------------------------------------------------------------


def test_to_isolated_the_wallet_is_initial_margin_and_the_loss() -> None:
    floor = Floor()
    floor.load(1, 10, 660_000_000)
    floor.order(1, 1, quantity_lots=10)
    change = floor.engine.change_margin_mode
    # Margin of 10 lots is 65,000,000, the loss 10,000,000; the order of 10 more keeps its hold.
    expected = (NONE, 75_000_000, CASH - 75_000_000 - 65_000_000, -75_000_000)
    before = floor.engine.state_hash()
    assert change(1, 1, ISOLATED, True, NOW_NS) == expected
    assert floor.engine.state_hash() == before
    assert change(1, 1, ISOLATED, False, NOW_NS) == expected
    assert floor.position(1) == (10, 660_000_000, 75_000_000)
    assert floor.cash(1) == CASH - 75_000_000
    revision = floor.engine.revision
    again = change(1, 1, ISOLATED, False, NOW_NS)
    assert again == (NONE, 75_000_000, CASH - 140_000_000, 0)
    assert floor.engine.revision == revision
    back = (NONE, 0, CASH - 10_000_000 - 130_000_000, 75_000_000)
    assert change(1, 1, CROSS, False, NOW_NS) == back
    assert floor.cash(1) == CASH


def test_in_hedge_mode_both_sides_switch() -> None:
    floor = Floor()
    assert floor.engine.set_position_mode(1, t.POSITION_MODE_HEDGE) == NONE
    floor.load(1, 10, 650_000_000, side=LONG)
    floor.load(1, -20, 1_290_000_000, side=SHORT)
    answer = floor.engine.change_margin_mode(1, 1, ISOLATED, False, NOW_NS)
    assert answer == (NONE, 205_000_000, CASH - 205_000_000, -205_000_000)
    assert floor.position(1, LONG)[2] == 65_000_000
    assert floor.position(1, SHORT)[2] == 140_000_000


def test_a_switch_that_cash_cannot_pay_is_refused() -> None:
    floor = Floor()
    floor.load(1, 10, 600_000_000)
    assert floor.engine.adjust_collateral(1, 1, 64_999_999 - CASH, False, NOW_NS)[0] == NONE
    # There is profit enough, but it cannot go into a wallet.
    answer = floor.engine.change_margin_mode(1, 1, ISOLATED, False, NOW_NS)
    assert answer == (t.REASON_CODE_EXCEEDS_AVAILABLE, 0, 49_999_999, 0)
    assert floor.engine.adjust_collateral(1, 1, 1, False, NOW_NS)[0] == NONE
    answer = floor.engine.change_margin_mode(1, 1, ISOLATED, False, NOW_NS)
    assert answer == (NONE, 65_000_000, 0, -65_000_000)


def test_a_position_that_a_mode_would_liquidate_at_once_stays_as_it_is() -> None:
    floor = Floor()
    # Leverage is bounded by the first tier, so a position that was loaded into the second one may
    # have an initial margin of 6,500,000 below its maintenance of 13,000,000 - 1,500,000.
    tiers = [(0, 0, 5_000_000, 10_000), (100_000_000, 0, 20_000_000, 2000)]
    assert floor.engine.upsert_schedule("single", 1, tiers) == (NONE, 1)
    assert floor.engine.set_leverage(1, 1, 10_000, False, NOW_NS)[0] == NONE
    assert floor.engine.set_leverage(2, 1, 10_000, False, NOW_NS)[0] == NONE
    born = t.REASON_CODE_BORN_LIQUIDATABLE_IN_MODE
    floor.load(1, 10, 650_000_000)
    assert floor.engine.change_margin_mode(1, 1, ISOLATED, False, NOW_NS) == (
        *(born, 0, CASH - 11_500_000, 0),
    )
    assert floor.engine.adjust_collateral(2, 1, 11_500_000 - CASH, False, NOW_NS)[0] == NONE
    floor.load(2, 10, 650_000_000)
    assert change_reason(floor, 2, CROSS) == born
    assert floor.engine.adjust_collateral(2, 1, 1, False, NOW_NS)[0] == NONE
    assert change_reason(floor, 2, CROSS) == NONE


def change_reason(floor: Floor, account_id: int, mode: int) -> int:
    return floor.engine.change_margin_mode(account_id, 1, mode, False, NOW_NS)[0]


def test_a_switch_needs_marks() -> None:
    floor = Floor()
    reason, other = floor.engine.upsert_instrument("ETH-PERP", LINEAR_PERPETUAL, 1, 1, 1, -1, 1, -3)
    assert reason == NONE
    floor.load(1, 1, 65_000_000, of=other)
    assert floor.engine.change_margin_mode(1, other, ISOLATED, False, NOW_NS)[0] == (
        t.REASON_CODE_MARK_MISSING
    )
    floor.load(1, 1, 65_000_000)
    assert change_reason(floor, 1, ISOLATED) == t.REASON_CODE_MARK_MISSING


def test_a_flat_position_without_orders_switches_as_ever() -> None:
    floor = Floor()
    revision = floor.engine.revision
    assert floor.engine.change_margin_mode(1, 1, CROSS, False, NOW_NS) == (NONE, 0, CASH, 0)
    assert floor.engine.revision == revision + 1
    floor.load(1, 1, 1, of=2)
    answer = floor.engine.change_margin_mode(1, 2, ISOLATED, False, NOW_NS)
    assert answer[0] == t.REASON_CODE_POSITION_NOT_FLAT
