"""Laws of closing fees, of isolated-only contracts, and of the price that two sides share."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from riskd.core.engine import Engine
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import BUY, CROSS, ISOLATED, NOW, SELL
from tests.unit.rule_desk import (
    AT_BANKRUPTCY,
    CONTRACT,
    ENTRY,
    INVERSE,
    LINEAR,
    LONG,
    MARK,
    RESERVED,
    SHORT,
    RuleDesk,
)

BILLION = 10**9
PRICE_MAX = 2**53
UNITS = 10**6
"""Of a tick: few enough money that a mark unit more or less is no minor unit."""
# d_1 = 200_000 * 0.01.
TIERS = [(0, 20_000_000, 10_000_000, 5_000), (200_000, 40_000_000, 20_000_000, 2_500)]
RATES = ((10_000_000, 0), (20_000_000, 2_000))
LINEAR_LOT, INVERSE_LOT = (1, 0, 1, 0, UNITS), (1, 0, 1, 9, UNITS)
AT_PRICE = t.LIQUIDATION_STATUS_AT_PRICE
CANNOT = t.LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
LOTS = st.integers(1, 500)
TICKS = st.integers(500, 2_000)
KINDS = pytest.mark.parametrize("kind", [LINEAR, INVERSE])


@dataclass(frozen=True, slots=True)
class Terms:
    """A contract with its schedule, and the law's own arithmetic on it."""

    kind: int
    basis: int = MARK
    liquidation_fee_ppb: int = 0
    closing_fee: int = 0
    taker_fee_ppb: int = 0
    leverage: int = 1_000

    def desk(self, mode: int, cash: int, **terms: int) -> RuleDesk:
        schedule = {
            "maintenance_basis": self.basis,
            "liquidation_fee_ppb": self.liquidation_fee_ppb,
            "closing_fee": self.closing_fee,
        }
        lot = INVERSE_LOT if self.kind == INVERSE else LINEAR_LOT
        terms = {"taker_fee_ppb": self.taker_fee_ppb} | terms
        desk = RuleDesk(Engine, TIERS, schedule, kind=self.kind, steps=lot, **terms)
        desk.account(mode, self.leverage, cash)
        return desk

    def notional(self, lots: int, mark: int) -> Fraction:
        if self.kind == INVERSE:
            return Fraction(abs(lots) * BILLION * UNITS, mark)
        return Fraction(abs(lots) * mark, UNITS)

    def profit(self, lots: int, entry_value: int, mark: int) -> Fraction:
        rises = (lots > 0) != (self.kind == INVERSE)
        moved = self.notional(lots, mark) - entry_value
        return moved if rises else -moved

    def reserve(self, lots: int, entry_value: int) -> int:
        """Return what closing an entry value costs at the bankruptcy price."""
        falls = (lots > 0) != (self.kind == INVERSE) and self.closing_fee == AT_BANKRUPTCY
        part = 1 - Fraction(100, self.leverage) if falls else 1 + Fraction(100, self.leverage)
        return ceil(Fraction(self.taker_fee_ppb, BILLION) * entry_value * part)

    def requirement(self, lots: int, entry_value: int, mark: int) -> Fraction:
        """Return the liquidation requirement, the highest line of the tiers, unrounded."""
        fee = self.liquidation_fee_ppb
        notional = self.notional(lots, mark)
        if self.basis == ENTRY:
            kept = max(ceil(Fraction(m * entry_value, BILLION)) - d for m, d in RATES)
            kept += self.reserve(lots, entry_value) if self.closing_fee else 0
            return kept + Fraction(fee, BILLION) * notional
        return max(Fraction(m + fee, BILLION) * notional - d for m, d in RATES)


# --- Closing fee ----------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("closing_fee", [RESERVED, AT_BANKRUPTCY])
@given(
    lots=LOTS,
    is_long=st.booleans(),
    entry=TICKS,
    leverage=st.integers(100, 5_000),
    taker_fee_ppb=st.integers(0, 5_000_000),
    part=st.integers(0, 1_200),
)
def test_equity_is_maintenance_and_the_fee_where_a_position_is_liquidated(
    kind: int,
    closing_fee: int,
    lots: int,
    is_long: bool,
    entry: int,
    leverage: int,
    taker_fee_ppb: int,
    part: int,
) -> None:
    terms = Terms(
        kind, ENTRY, closing_fee=closing_fee, taker_fee_ppb=taker_fee_ppb, leverage=leverage
    )
    desk = terms.desk(ISOLATED, 0)
    signed = lots if is_long else -lots
    entry_value = int(terms.notional(lots, entry * UNITS))
    desk.load(signed, entry_value, entry_value * part // 1_000)
    desk.mark(CONTRACT, entry * UNITS)
    (row,) = desk.rows
    held = terms.requirement(signed, entry_value, entry * UNITS)
    assert row.maintenance == row.liquidation_requirement == held
    assert row.liquidatable == (row.equity <= held)
    price = row.liquidation_price
    safer = price + 1 if is_long else price - 1
    assume(not row.liquidatable)
    if row.liquidation_status != AT_PRICE:
        assert row.liquidation_status == CANNOT
        desk.mark(CONTRACT, 1 if is_long else PRICE_MAX)
        assert not desk.rows[0].liquidatable
        return
    desk.mark(CONTRACT, price)
    (row,) = desk.rows
    assert row.liquidatable
    if terms.notional(lots, price) < price:  # A mark unit is less than a minor unit there.
        assert 0 <= held - row.equity <= 1
    desk.mark(CONTRACT, safer)
    assert not desk.rows[0].liquidatable


@given(
    lots=LOTS,
    is_long=st.booleans(),
    leverage=st.integers(100, 2_500),
    taker_fee_ppb=st.integers(0, 5_000_000),
    closing_fee=st.sampled_from([RESERVED, AT_BANKRUPTCY]),
    kind=st.sampled_from([LINEAR, INVERSE]),
    mode=st.sampled_from([CROSS, ISOLATED]),
)
def test_what_closing_costs_is_held_beside_the_margin_from_the_order_on(
    lots: int,
    is_long: bool,
    leverage: int,
    taker_fee_ppb: int,
    closing_fee: int,
    kind: int,
    mode: int,
) -> None:
    margins = []
    prices = []
    for kept in (closing_fee, 0):
        terms = Terms(kind, ENTRY, 0, kept, taker_fee_ppb, leverage)
        desk = terms.desk(mode, 10**12)
        desk.mark(CONTRACT, 1_000 * UNITS)
        order = desk.check(CONTRACT, BUY if is_long else SELL, 1_000, lots)
        desk.fill(order.reservation_id, 1_000, lots)
        (row,) = desk.rows
        margins.append([order.initial_margin_minor, row.initial_margin, row.isolated_wallet])
        prices.append((row.bankruptcy_price, row.liquidation_price))
    signed = lots if is_long else -lots
    reserve = Terms(kind, ENTRY, 0, closing_fee, taker_fee_ppb, leverage).reserve(
        signed, row.entry_value
    )
    more = [one - other for one, other in zip(*margins, strict=True)]
    assert more == [reserve, reserve, reserve if mode == ISOLATED else 0]
    if mode == ISOLATED:  # The money that the prices are of is the same.
        assert prices[0] == prices[1]


# --- Isolated only --------------------------------------------------------------------------------

TRADES = st.lists(
    st.tuples(
        st.sampled_from(["order", "order", "fill", "fill", "mark", "transfer", "mode", "cancel"]),
        st.booleans(),
        st.integers(900, 1_100),
        st.integers(1, 60),
    ),
    min_size=1,
    max_size=30,
)


@KINDS
@given(trades=TRADES, is_hedged=st.booleans())
def test_a_contract_that_is_isolated_only_never_counts_in_the_pool(
    kind: int, trades: list[tuple[str, bool, int, int]], is_hedged: bool
) -> None:
    """Whatever is done with it, the pool has cash and what its orders hold; no mark moves it."""
    desk = Terms(kind, taker_fee_ppb=500_000).desk(CROSS, 10**8, isolated_only=1)
    if is_hedged:
        desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE)
    desk.mark(CONTRACT, 1_000 * UNITS)
    working: list[int] = []
    for name, flag, ticks, lots in trades:
        if name == "order":
            side = BUY if flag else SELL
            position_side = 1 + side if is_hedged else 0
            order = desk.check(CONTRACT, side, ticks, lots, position_side=position_side)
            working += [order.reservation_id] if order.reservation_id else []
        elif name == "mark":
            desk.mark(CONTRACT, ticks * UNITS)
        elif name == "transfer":
            for row in desk.rows:
                amount = lots * 1_000 if flag else -lots
                where = (7, CONTRACT, amount, False, NOW, row.position_side)
                desk.engine.transfer_margin(*where)
        elif name == "mode":
            reason, *_ = desk.engine.change_margin_mode(7, CONTRACT, CROSS, False, NOW)
            assert reason == t.REASON_CODE_ISOLATED_ONLY
            desk.engine.change_margin_mode(7, CONTRACT, ISOLATED, False, NOW)
        elif working and name == "fill":
            desk.fill(working[-1], ticks, 1, fee=1)
        elif working:
            desk.execute(orders_pb.EXECUTION_KIND_CANCEL, working.pop())
        held = desk.summary
        assert {row.margin_mode for row in desk.rows} <= {ISOLATED}
        assert (held.cross_pnl, held.cross_maintenance) == (0, 0)
        assert held.cross_liquidation_requirement == 0
        assert held.isolated_wallets == sum(row.isolated_wallet for row in desk.rows)
        desk.mark(CONTRACT, ticks * UNITS * (3 if flag else 1) // (1 if flag else 3))
        assert desk.summary == held
        desk.mark(CONTRACT, 1_000 * UNITS)


# --- Both sides of a contract ---------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    ("basis", "liquidation_fee_ppb", "closing_fee"),
    [(MARK, 0, 0), (MARK, 2_000_000, 1), (ENTRY, 2_000_000, 0), (ENTRY, 0, AT_BANKRUPTCY)],
)
@given(
    longs=st.tuples(LOTS, TICKS),
    shorts=st.tuples(LOTS, TICKS),
    lots_apart=st.sampled_from([None, 0, 1, -1]),
    part=st.integers(0, 1_000),
    mark=TICKS,
)
def test_equity_of_both_sides_is_their_requirement_at_the_price_that_they_share(
    kind: int,
    basis: int,
    liquidation_fee_ppb: int,
    closing_fee: int,
    longs: tuple[int, int],
    shorts: tuple[int, int],
    lots_apart: int | None,
    part: int,
    mark: int,
) -> None:
    """To one minor unit; one mark unit nearer to the mark they cannot be liquidated."""
    terms = Terms(kind, basis, liquidation_fee_ppb, closing_fee, taker_fee_ppb=500_000)
    if lots_apart is not None:
        shorts = (max(1, longs[0] + lots_apart), shorts[1])
    sides = []
    for sign, (lots, ticks) in ((1, longs), (-1, shorts)):
        sides.append((sign * lots, int(terms.notional(lots, ticks * UNITS))))
    cash = sum(entry_value for _, entry_value in sides) * part // 1_000
    desk = terms.desk(CROSS, cash)
    assert desk.engine.set_position_mode(7, t.POSITION_MODE_HEDGE) == t.REASON_CODE_NONE
    for position_side, side in zip((LONG, SHORT), sides, strict=True):
        desk.load(*side, position_side=position_side)

    def excess(price: int) -> Fraction:
        """Return how much equity there is above the requirement at a price."""
        moved = (terms.profit(*each, price) - terms.requirement(*each, price) for each in sides)
        return sum(moved, start=Fraction(cash))

    first = mark * UNITS
    desk.mark(CONTRACT, first)
    rows = desk.rows
    assert len({(row.liquidation_status, row.liquidation_price) for row in rows}) == 1
    assert {row.liquidatable for row in rows} == {excess(first) <= 0}
    price = rows[0].liquidation_price
    if rows[0].liquidation_status != AT_PRICE:
        assert rows[0].liquidation_status == CANNOT
        assert excess(1) > 0 < excess(PRICE_MAX)
        return
    assert excess(price) <= 0
    if price == first:
        return
    nearer = price + 1 if price < first else price - 1
    assert excess(nearer) > 0
    if max(terms.notional(lots, price) for lots, _ in sides) < price:
        assert excess(price) > -1
    # As near on the other side of the mark, they cannot be liquidated.
    opposite = 2 * first - nearer
    if 1 <= opposite <= PRICE_MAX:
        assert excess(opposite) > 0
    desk.mark(CONTRACT, price)
    assert {row.liquidatable for row in desk.rows} == {True}
    assert {row.liquidation_price for row in desk.rows} == {price}
    desk.mark(CONTRACT, nearer)
    assert {row.liquidatable for row in desk.rows} == {False}
