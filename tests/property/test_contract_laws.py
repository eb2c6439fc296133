"""Laws of inverse contracts and of all families of margin schedules, in the compiled engine."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riskd.core.engine import (
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    Engine,
)
from riskd.core.rows import PositionRow
from riskd.v1 import instrument_service_pb2 as instrument_pb
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

NOW = 10**18
MARK_TICKS = 10_000
UNITS_PER_TICK = 10
PRICE_MAX = 2**53
CASH = 10**9
FEE_PPB = 500_000
LINEAR = instrument_pb.INSTRUMENT_KIND_LINEAR_PERPETUAL
INVERSE = instrument_pb.INSTRUMENT_KIND_INVERSE_PERPETUAL
CROSS, ISOLATED = t.MARGIN_MODE_CROSS, t.MARGIN_MODE_ISOLATED
BASIS_MARK, BASIS_ENTRY = 1, 2
LIQUIDATION_FEE_PPB = 2_000_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """A family with what it needs; a lot is worth about 10^7 at the mark."""

    family: int
    tiers: tuple[tuple[int, int, int, int], ...]
    a: int = 0
    b: int = 0
    c: int = 0
    basis: int = BASIS_MARK


ONE_TIER = ((0, 20_000_000, 10_000_000, 5000),)
SCHEDULES = {
    "tiered": Schedule(1, ((0, 0, 4_000_000, 12_500), (10**9, 0, 10_000_000, 5000))),
    "tiered by entry": Schedule(
        1, ((0, 0, 4_000_000, 12_500), (10**9, 0, 10_000_000, 5000)), basis=BASIS_ENTRY
    ),
    "whole": Schedule(2, ((0, 0, 4_000_000, 12_500), (10**9, 0, 10_000_000, 5000))),
    "by lots": Schedule(3, ((0, 0, 4_000_000, 12_500), (100, 0, 10_000_000, 5000))),
    "by lots and entry": Schedule(
        3, ((0, 0, 4_000_000, 12_500), (100, 0, 10_000_000, 5000)), basis=BASIS_ENTRY
    ),
    "linear in size": Schedule(4, ONE_TIER, 100_000_000_000, 40_000_000_000),
    "per contract": Schedule(5, ((0, 0, 0, 5000),), 300_000, 100_000),
    "open interest": Schedule(6, ONE_TIER, 10**9, 10**10),
    "root of size": Schedule(7, ONE_TIER, 400_000, 0, 10**12),
    "power": Schedule(8, ONE_TIER, 3 * 10**15, 500_000_000),
    "risk factors": Schedule(
        9, ((0, 16_000_000, 10_000_000, 3000),), 15_000_000, 10_000_000_000, 1_600_000_000
    ),
}
CASES = [(kind, name) for kind in (LINEAR, INVERSE) for name in SCHEDULES]


def case_id(case: object) -> str:
    return {LINEAR: "linear", INVERSE: "inverse"}.get(case, case)  # type: ignore[call-overload, no-any-return]


class Desk:
    """An account on one contract."""

    def __init__(self, kind: int, name: str, mode: int, leverage: int) -> None:
        self.kind = kind
        self.engine = Engine(
            accounts_max=2,
            positions_max=4,
            orders_max=64,
            instruments_max=1,
            schedules_max=1,
            gateways_max=1,
            answer_bytes=1 << 16,
        )
        self.engine.create_asset("MONEY", 6)
        rules = SCHEDULES[name]
        taken = self.engine.upsert_schedule(
            "RULES",
            1,
            rules.tiers,
            0,
            LIQUIDATION_FEE_PPB,
            rules.family,
            rules.basis,
            rules.a,
            rules.b,
            rules.c,
        )
        assert taken == (t.REASON_CODE_NONE, 1)
        # A lot is worth 10^7 at the mark: linear 10^4 * 10^3, inverse 10^11 / 10^4.
        lot = (1, -2, 1, 0) if kind == INVERSE else (1, -1, 1, -2)
        multiplier = (10**3, 0) if kind == INVERSE else (1, 0)
        listed = self.engine.upsert_instrument(
            "CONTRACT",
            kind,
            1,
            1,
            *lot,
            UNITS_PER_TICK,
            taker_fee_ppb=FEE_PPB,
            multiplier_mantissa=multiplier[0],
            multiplier_exponent=multiplier[1],
        )
        assert listed == (t.REASON_CODE_NONE, 1)
        assert self.engine.report_open_interest(1, 500) == t.REASON_CODE_NONE
        assert self.engine.create_account(1, 1, mode, leverage, CASH) == t.REASON_CODE_NONE
        self._ids = 0
        self.mark(MARK_TICKS * UNITS_PER_TICK)

    def mark(self, units: int) -> None:
        mark = market_pb.Mark(instrument_id=1, mark_price=units, time_ns=NOW)
        request = market_pb.ReportMarksRequest(marks=[mark]).SerializeToString()
        self.engine.handle(METHOD_REPORT_MARKS, request, NOW)

    def place(self, side: int, price_ticks: int, lots: int) -> int:
        """Send an order; return its reservation, or 0 if it was refused or reduced at a loss."""
        self._ids += 1
        request = orders_pb.CheckOrderRequest(
            account_id=1,
            instrument_id=1,
            client_order_id=self._ids,
            gateway_id=1,
            side=t.Side.ValueType(side),
            order_type=t.ORDER_TYPE_LIMIT,
            price_ticks=price_ticks,
            quantity_lots=lots,
        )
        reply = orders_pb.CheckOrderResponse.FromString(
            self.engine.handle(METHOD_CHECK_ORDER, request.SerializeToString(), NOW)
        )
        if reply.decision != t.DECISION_ACCEPTED:
            return 0
        if reply.available_minor < 0:
            # A strictly reducing order: nobody chooses a loss here.
            self.report(reply.reservation_id, orders_pb.EXECUTION_KIND_CANCEL)
            return 0
        return reply.reservation_id

    def report(self, reservation_id: int, kind: int, price_ticks: int = 0, lots: int = 0) -> None:
        self._ids += 1
        value = price_ticks * lots * 1000
        if self.kind == INVERSE and lots:
            value = lots * 10**11 // price_ticks
        request = orders_pb.ReportExecutionRequest(
            gateway_id=1,
            execution_id=self._ids,
            reservation_id=reservation_id,
            kind=orders_pb.ExecutionKind.ValueType(kind),
            price_ticks=price_ticks,
            quantity_lots=lots,
            fee_minor=value * FEE_PPB // 10**9,
        )
        reply = orders_pb.ReportExecutionResponse.FromString(
            self.engine.handle(METHOD_REPORT_EXECUTION, request.SerializeToString(), NOW)
        )
        assert reply.decision == t.DECISION_ACCEPTED

    def position(self) -> PositionRow:
        rows = self.engine.positions(1)
        assert rows is not None
        return rows[0]


orders = st.lists(
    st.tuples(
        st.sampled_from([t.SIDE_BUY, t.SIDE_SELL]),
        st.integers(MARK_TICKS * 80 // 100, MARK_TICKS * 120 // 100),
        st.integers(1, 800),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize(("kind", "name"), CASES, ids=case_id)
@settings(max_examples=60)
@given(st.sampled_from([CROSS, ISOLATED]), st.integers(1, 50), orders, orders, st.integers())
def test_accepted_orders_filled_at_their_limits_leave_nothing_liquidatable(
    kind: int,
    name: str,
    mode: int,
    leverage: int,
    opening: list[tuple[int, int, int]],
    working: list[tuple[int, int, int]],
    seed: int,
) -> None:
    """In any order of fills, at an unchanged mark, whatever the family and the direction.

    Prices are up to a fifth off the mark, and each schedule's initial margin is more than a quarter
    above what it liquidates at: an isolated position is margined at its price, not at the mark.
    """
    desk = Desk(kind, name, mode, leverage * 100)
    for batch in (opening, working):
        placed = [(desk.place(*order), *order) for order in batch]
        placed = [order for order in placed if order[0]]
        random.Random(seed).shuffle(placed)
        for reservation_id, _, price_ticks, lots in placed:
            desk.report(reservation_id, orders_pb.EXECUTION_KIND_FILL, price_ticks, lots)
            summary = desk.engine.summary(1)
            assert summary is not None
            equity = summary.cash + summary.cross_pnl
            required = summary.cross_liquidation_requirement
            assert equity >= 0
            assert required == 0 or equity > required
            assert not any(row.liquidatable for row in desk.engine.positions(1) or [])
    assert "deficit" not in " ".join(desk.engine.state_lines())


@pytest.mark.parametrize(("kind", "name"), CASES, ids=case_id)
@settings(max_examples=60)
@given(
    st.booleans(),
    st.integers(1, 2000),
    st.integers(MARK_TICKS * 50 // 100, MARK_TICKS * 150 // 100),
    st.integers(0, 3 * 10**9),
    st.integers(MARK_TICKS * 5, MARK_TICKS * 20),
)
def test_a_position_can_be_liquidated_at_its_price_and_not_one_unit_before(
    kind: int, name: str, is_long: bool, lots: int, entry: int, wallet: int, mark: int
) -> None:
    desk = Desk(kind, name, ISOLATED, 1000)
    value = lots * entry * 1000 if kind == LINEAR else lots * 10**11 // entry
    signed = lots if is_long else -lots
    reason, *_ = desk.engine.load_position(1, 1, 0, signed, value, wallet)
    assert reason == t.REASON_CODE_NONE
    desk.mark(mark)
    row = desk.position()
    price = row.liquidation_price
    if row.liquidation_status != t.LIQUIDATION_STATUS_AT_PRICE:
        assert row.liquidation_status == t.LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
        assert not row.liquidatable
        desk.mark(1 if is_long else PRICE_MAX)
        assert not desk.position().liquidatable
        return
    if price == mark:
        assert row.liquidatable
        return
    desk.mark(price)
    assert desk.position().liquidatable
    safer = price + 1 if is_long else price - 1
    if 1 <= safer <= PRICE_MAX:
        desk.mark(safer)
        assert not desk.position().liquidatable


@pytest.mark.parametrize("name", SCHEDULES)
@given(st.integers(1, 2000), st.integers(1, 4000))
def test_a_larger_position_never_needs_less(name: str, lots: int, more: int) -> None:
    """Margin never falls with size: an order more cannot free any."""
    rows = []
    for size in (lots, lots + more):
        desk = Desk(LINEAR, name, CROSS, 1000)
        desk.engine.load_position(1, 1, 0, size, size * MARK_TICKS * 1000, 0)
        rows.append(desk.position())
    assert rows[1].initial_margin >= rows[0].initial_margin
    assert rows[1].maintenance >= rows[0].maintenance
    assert rows[1].liquidation_requirement >= rows[0].liquidation_requirement
