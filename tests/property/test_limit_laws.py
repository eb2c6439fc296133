"""Laws of limits (docs/limits.md), on random firms, accounts, positions and limits.

On the compiled engine: the streams of tests/differential hold the reference to it.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riskd import reference
from riskd.core.engine import Engine
from riskd.reference import SCOPE_ACCOUNT, SCOPE_FIRM, SCOPE_GATEWAY
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

SECOND = 10**9
NOW = 1_750_000_000 * SECOND
HUGE = 2**62
NONE = t.REASON_CODE_NONE
HARD = t.LIMIT_ACTION_HARD
SOFT = t.LIMIT_ACTION_SOFT
KINDS = range(t.LIMIT_KIND_ORDER_QUANTITY_MIN, t.LIMIT_KIND_ALLOWED + 1)
RATES = (t.LIMIT_KIND_ORDER_RATE_MAX, t.LIMIT_KIND_EXECUTION_RATE_MAX)
OF_ONE_INSTRUMENT = (
    t.LIMIT_KIND_POSITION_LOTS_MAX,
    t.LIMIT_KIND_DENIED,
    t.LIMIT_KIND_ALLOWED,
)
BROAD_KINDS = tuple(kind for kind in KINDS if kind not in OF_ONE_INSTRUMENT)
LIMIT_REASONS = range(t.REASON_CODE_LIMIT_ORDER_QUANTITY_MIN, t.REASON_CODE_LIMIT_ALLOWED + 1)

BTC, ETH, CALL, UNMARKED = 1, 2, 3, 4
MARKS = {BTC: 60_000, ETH: 3_000, CALL: 2_500}
FIRM = 7
PARENT, CHILD, OTHER, LONER = 1, 2, 3, 4
"""PARENT with its sub-account CHILD, and OTHER, are the firm's; LONER is nobody's."""
OWNERS = {PARENT: (FIRM, 0), CHILD: (FIRM, PARENT), OTHER: (FIRM, 0)}
LEVELS_OF_CHILD = ((SCOPE_ACCOUNT, CHILD), (SCOPE_ACCOUNT, PARENT), (SCOPE_FIRM, FIRM))

Fields = dict[str, Any]
seeds = st.integers(0, 2**32 - 1)


class Closing(NamedTuple):
    """What closes a position, and how much of it no working order closes already."""

    account_id: int
    instrument_id: int
    side: int
    lots: int


class Desk:
    """An engine with a market, a firm and four accounts, and short names for what is asked."""

    def __init__(self, order: Callable[[list[Any]], list[Any]] = list) -> None:
        self.engine = Engine()
        self.now = NOW
        self.next_id = 1
        engine = self.engine
        engine.create_asset("USD", 2)
        engine.upsert_schedule("flat", 1, [(0, 0, 5_000_000, 10000)])
        for symbol in ("BTC", "ETH"):
            engine.upsert_instrument(symbol, 1, 1, 1, 1, 0, 1, -2, 1, mark_age_max_ns=60 * SECOND)
        terms: Fields = {"expiry_ns": NOW + 10**16, "strike_units": 60_000, "option_type": 1}
        engine.upsert_instrument("CALL", 2, 1, 0, 1, 0, 1, -2, 1, underlying_id=BTC, **terms)
        engine.upsert_instrument("UNMARKED", 1, 1, 1, 1, 0, 1, -2, 1)
        for account_id in order([PARENT, CHILD, OTHER, LONER]):
            assert engine.create_account(account_id, 1, 1, 1000, 10**9) == NONE
        assert engine.create_firm(FIRM, 1) == NONE
        # A sub-account has its parent's firm, so the parent joins first.
        assert engine.set_account_owner(PARENT, FIRM, 0, NOW) == NONE
        for account_id in order([CHILD, OTHER]):
            assert engine.set_account_owner(account_id, *OWNERS[account_id], NOW) == NONE
        self.report_marks(MARKS)

    def report_marks(self, prices: dict[int, int], volatility_ppb: int = 600_000_000) -> None:
        marks = [
            market_pb.Mark(
                instrument_id=instrument_id,
                mark_price=price,
                time_ns=self.now,
                implied_volatility_ppb=volatility_ppb if instrument_id == CALL else 0,
            )
            for instrument_id, price in prices.items()
        ]
        request = market_pb.ReportMarksRequest(marks=marks)
        self.handle(reference.METHOD_REPORT_MARKS, request)

    def handle(self, method: int, request: Any) -> bytes:
        reply = self.engine.handle(method, request.SerializeToString(), self.now)
        assert isinstance(reply, bytes)
        return reply

    def fresh_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def order(self, **fields: Any) -> orders_pb.CheckOrderResponse:
        """Send an order: by default a market buy of 1 BTC lot of CHILD, with the full view."""
        request = orders_pb.CheckOrderRequest(
            **{
                "account_id": CHILD,
                "instrument_id": BTC,
                "client_order_id": self.fresh_id(),
                "gateway_id": 1,
                "side": t.SIDE_BUY,
                "order_type": t.ORDER_TYPE_MARKET,
                "quantity_lots": 1,
                "view": orders_pb.DECISION_VIEW_FULL,
            }
            | fields
        )
        reply = self.handle(reference.METHOD_CHECK_ORDER, request)
        return orders_pb.CheckOrderResponse.FromString(reply)

    def check(self, **fields: Any) -> orders_pb.CheckOrderResponse:
        return self.order(mode=orders_pb.CHECK_MODE_CHECK_ONLY, **fields)

    def execute(self, **fields: Any) -> orders_pb.ReportExecutionResponse:
        request = orders_pb.ReportExecutionRequest(
            **{"gateway_id": 1, "execution_id": self.fresh_id()} | fields
        )
        reply = self.handle(reference.METHOD_REPORT_EXECUTION, request)
        return orders_pb.ReportExecutionResponse.FromString(reply)

    def limit(
        self,
        kind: int,
        value: int,
        scope: int = SCOPE_FIRM,
        scope_id: int = FIRM,
        instrument_id: int = 0,
        action: int = HARD,
        burst: int | None = None,
    ) -> int:
        if burst is None:
            burst = 1000 if kind in RATES else 0
        reason = self.engine.set_limit(
            scope, scope_id, instrument_id, kind, value, burst, action, self.now
        )
        assert isinstance(reason, int)
        return reason

    def use(self, kind: int, scope: int, scope_id: int, instrument_id: int = 0) -> int | None:
        use = self.engine.limit_use(scope, scope_id, instrument_id, kind, self.now)
        assert use is None or isinstance(use, int)
        return use

    def closings(self) -> list[Closing]:
        found = []
        for account_id in (PARENT, CHILD, OTHER, LONER):
            for row in self.engine.positions(account_id) or []:
                side, working = t.SIDE_SELL, row.sell_lots
                if row.lots < 0:
                    side, working = t.SIDE_BUY, row.buy_lots
                if abs(row.lots) > working:
                    lots = abs(row.lots) - working
                    found.append(Closing(account_id, row.instrument_id, side, lots))
        return found

    def trade(self, rng: random.Random, count: int) -> None:
        """Let accounts trade: orders near the mark, fills, cancels, marks, time."""
        prices = dict(MARKS)
        for _ in range(count):
            self.now += rng.choice((1, 10**6, SECOND))
            if rng.random() < 0.2:
                for instrument_id, price in prices.items():
                    prices[instrument_id] = price + price * rng.randint(-20, 20) // 1000
                self.report_marks(prices)
            answer = self.order(**self.random_order(rng, prices))
            if not answer.reservation_id or rng.random() < 0.3:
                continue
            if rng.random() < 0.2:
                self.execute(
                    reservation_id=answer.reservation_id, kind=orders_pb.EXECUTION_KIND_CANCEL
                )
                continue
            order = self.working(answer.reservation_id)
            self.execute(
                reservation_id=answer.reservation_id,
                kind=orders_pb.EXECUTION_KIND_FILL,
                price_ticks=prices[order.instrument_id],
                quantity_lots=rng.randint(1, order.remaining_lots),
                fee_minor=rng.randint(-10, 50),
            )
        self.report_marks(prices)

    def working(self, reservation_id: int) -> orders_pb.GetReservationResponse:
        request = orders_pb.GetReservationRequest(reservation_id=reservation_id)
        reply = self.handle(reference.METHOD_GET_RESERVATION, request)
        return orders_pb.GetReservationResponse.FromString(reply)

    def random_order(self, rng: random.Random, prices: dict[int, int]) -> Fields:
        instrument_id = rng.choice((BTC, BTC, ETH, CALL))
        is_limit = rng.random() < 0.5
        price = prices[instrument_id] + prices[instrument_id] * rng.randint(-10, 10) // 1000
        return {
            "account_id": rng.choice((PARENT, CHILD, OTHER, LONER)),
            "instrument_id": instrument_id,
            "side": t.SIDE_BUY
            if instrument_id == CALL and rng.random() < 0.7
            else rng.choice((1, 2)),
            "order_type": t.ORDER_TYPE_LIMIT if is_limit else t.ORDER_TYPE_MARKET,
            "price_ticks": price if is_limit else 0,
            "quantity_lots": rng.choice((1, 5, rng.randint(1, 100))),
        }

    def random_limits(self, rng: random.Random, count: int) -> None:
        """Set limits that some orders break and some do not."""
        for _ in range(count):
            scope, scope_id = rng.choice(
                (*LEVELS_OF_CHILD, (SCOPE_ACCOUNT, LONER), (SCOPE_GATEWAY, 1))
            )
            kind = rng.choice(KINDS)
            value = int(10 ** rng.uniform(0, 9))
            action = rng.choice((HARD, HARD, SOFT))
            instrument_id = rng.choice((0, BTC, CALL))
            self.limit(kind, value, scope, scope_id, instrument_id, action, rng.choice((None, 1)))


def lines_but(desk: Desk, *names: str) -> list[str]:
    """Return the state with some fields of its limits left out."""
    columns = {"due": 10, "peak": 11}
    lines = []
    for line in desk.engine.state_lines():
        fields = line.split()
        if fields[0] == "limit":
            for name in names:
                fields[columns[name]] = "-"
        lines.append(" ".join(fields))
    return lines


def a_desk(seed: int, trades: int = 40, limits: int = 12) -> tuple[Any, Desk]:
    """Return a desk that traded, then got limits, then traded on."""
    rng = random.Random(seed)
    desk = Desk()
    desk.trade(rng, trades // 2)
    desk.random_limits(rng, limits)
    desk.trade(rng, trades // 2)
    return rng, desk


@settings(max_examples=40)
@given(seeds)
def test_a_strictly_reducing_order_meets_no_limit(seed: int) -> None:
    """Limits of 0 on all kinds and levels stop every opening order and no closing one."""
    rng = random.Random(seed)
    desk = Desk()
    desk.trade(rng, 30)
    for scope, scope_id in (*LEVELS_OF_CHILD, (SCOPE_ACCOUNT, OTHER), (SCOPE_ACCOUNT, LONER)):
        for kind in BROAD_KINDS:
            value = 1 if kind in RATES else 0
            burst = 1 if kind in RATES else 0
            if kind not in (t.LIMIT_KIND_COLLAR_PPB, t.LIMIT_KIND_COLLAR_TICKS):
                assert desk.limit(kind, value, scope, scope_id, burst=burst) == NONE
        assert desk.limit(t.LIMIT_KIND_DENIED, 0, scope, scope_id, BTC) == NONE
        assert desk.limit(t.LIMIT_KIND_ALLOWED, 0, scope, scope_id, UNMARKED) == NONE
    desk.now += 3600 * SECOND  # All marks are stale now.
    for account_id, instrument_id, side, lots in desk.closings():
        closing = {"account_id": account_id, "instrument_id": instrument_id, "side": side}
        answer = desk.order(**closing, quantity_lots=lots)
        assert answer.reason == NONE, answer
        assert desk.order(**closing).decision == t.DECISION_REJECTED


@settings(max_examples=40)
@given(seeds)
def test_a_limit_more_never_lets_an_order_pass(seed: int) -> None:
    rng, desk = a_desk(seed)
    orders = [desk.random_order(rng, MARKS) for _ in range(10)]
    before = [desk.check(**order) for order in orders]
    set_now = {
        (row.scope, row.scope_id, row.instrument_id, row.kind) for row in desk.engine.limits()
    }
    for scope, scope_id in LEVELS_OF_CHILD:
        kind = rng.choice(BROAD_KINDS)
        if (scope, scope_id, 0, kind) not in set_now:
            desk.limit(kind, int(10 ** rng.uniform(0, 9)), scope, scope_id)
    for order, answer in zip(orders, before, strict=True):
        after = desk.check(**order)
        if answer.decision == t.DECISION_REJECTED:
            assert after.decision == t.DECISION_REJECTED
            assert after.max_quantity_lots <= answer.max_quantity_lots or (
                answer.max_quantity_lots == 0
            )


@given(seeds)
def test_a_child_may_not_have_a_looser_limit(seed: int) -> None:
    rng = random.Random(seed)
    desk = Desk()
    kind = rng.choice(BROAD_KINDS)
    value = rng.randint(2, 10**9 - 1)
    assert desk.limit(kind, value, *rng.choice(LEVELS_OF_CHILD[1:])) == NONE
    is_minimum = kind in (t.LIMIT_KIND_ORDER_QUANTITY_MIN, t.LIMIT_KIND_ORDER_NOTIONAL_MIN)
    looser, tighter = (value - 1, value + 1) if is_minimum else (value + 1, value - 1)
    before = desk.engine.state_hash()
    refused = t.REASON_CODE_LIMIT_LOOSER_THAN_PARENT
    assert desk.limit(kind, looser, SCOPE_ACCOUNT, CHILD, action=SOFT) == refused
    assert desk.engine.state_hash() == before
    assert desk.limit(kind, value, SCOPE_ACCOUNT, CHILD) == NONE
    assert desk.limit(kind, tighter, SCOPE_ACCOUNT, CHILD) == NONE


@settings(max_examples=40)
@given(seeds)
def test_the_use_of_a_level_is_the_sum_of_its_accounts(seed: int) -> None:
    """What adds up does; a long and a short of two accounts do not add up to more."""
    rng = random.Random(seed)
    desk = Desk()
    summed = (
        t.LIMIT_KIND_GROSS_EXPOSURE_MAX,
        t.LIMIT_KIND_OPEN_ORDERS_MAX,
        t.LIMIT_KIND_OPEN_NOTIONAL_MAX,
        t.LIMIT_KIND_DAILY_TRADED_MAX,
    )
    netted = (t.LIMIT_KIND_POSITION_LOTS_MAX, t.LIMIT_KIND_POSITION_NOTIONAL_MAX)
    accounts = [(SCOPE_ACCOUNT, each) for each in (PARENT, CHILD, OTHER)]
    for kind in summed + netted:
        for level in [(SCOPE_FIRM, FIRM), *accounts]:
            assert desk.limit(kind, HUGE, *level, BTC if kind in netted else 0) == NONE
    desk.trade(rng, 60)
    for kind in summed + netted:
        instrument_id = BTC if kind in netted else 0
        uses = [desk.use(kind, *level, instrument_id) for level in accounts]
        # The parent's use has its sub-account's in it.
        of_parent, of_child, of_other = (each or 0 for each in uses)
        of_firm = desk.use(kind, SCOPE_FIRM, FIRM, instrument_id)
        assert of_firm is not None
        if kind in summed:
            assert of_firm == of_parent + of_other
            assert of_parent >= of_child
        else:
            assert of_firm <= of_parent + of_other


@settings(max_examples=40)
@given(seeds)
def test_hold_then_release_is_nothing(seed: int) -> None:
    rng, desk = a_desk(seed)
    for _ in range(20):
        before = lines_but(desk, "due", "peak")
        answer = desk.order(**desk.random_order(rng, MARKS))
        if answer.reservation_id:
            cancel = orders_pb.EXECUTION_KIND_CANCEL
            desk.execute(reservation_id=answer.reservation_id, kind=cancel)
        assert lines_but(desk, "due", "peak") == before


@settings(max_examples=40)
@given(seeds)
def test_a_check_changes_nothing(seed: int) -> None:
    rng, desk = a_desk(seed)
    for level in ((SCOPE_FIRM, FIRM), (SCOPE_ACCOUNT, LONER), (SCOPE_GATEWAY, 1)):
        desk.limit(t.LIMIT_KIND_ORDER_RATE_MAX, 1, *level, action=SOFT)
        desk.limit(t.LIMIT_KIND_DRAWDOWN_MAX, 1, *level, action=SOFT)
    desk.report_marks({BTC: 70_000, ETH: 3_500})  # Equity has changed, so peaks would rise.
    before = (desk.engine.state_hash(), desk.engine.answers_hash(), desk.engine.revision)
    for _ in range(10):
        desk.check(**desk.random_order(rng, MARKS))
    assert (desk.engine.state_hash(), desk.engine.answers_hash(), desk.engine.revision) == before


@settings(max_examples=40)
@given(seeds)
def test_a_refused_order_leaves_its_answer_and_the_rates(seed: int) -> None:
    rng, desk = a_desk(seed)
    desk.limit(t.LIMIT_KIND_ORDER_RATE_MAX, 1, burst=3)
    for _ in range(20):
        before = lines_but(desk, "due")
        rates = [row.due_ns for row in desk.engine.limits() if row.kind not in RATES[:1]]
        answer = desk.order(**desk.random_order(rng, MARKS))
        if answer.decision == t.DECISION_REJECTED:
            assert lines_but(desk, "due") == before
            others = [row.due_ns for row in desk.engine.limits() if row.kind not in RATES[:1]]
            assert others == rates


@settings(max_examples=40)
@given(seeds)
def test_the_largest_quantity_passes_and_one_lot_more_does_not(seed: int) -> None:
    rng, desk = a_desk(seed)
    for _ in range(15):
        order = desk.random_order(rng, MARKS) | {"quantity_lots": rng.choice((50, 10**4, 10**9))}
        lots = desk.check(**order).max_quantity_lots
        if lots:
            assert desk.check(**order | {"quantity_lots": lots}).decision != t.DECISION_REJECTED
            more = order | {"quantity_lots": lots + 1}
            assert desk.check(**more).decision == t.DECISION_REJECTED


@pytest.mark.parametrize(
    ("kind", "lots"),
    [
        (t.LIMIT_KIND_ORDER_QUANTITY_MAX, 7),
        (t.LIMIT_KIND_ORDER_NOTIONAL_MAX, 7 * 60_000),
        (t.LIMIT_KIND_POSITION_NOTIONAL_MAX, 7 * 60_000),
        (t.LIMIT_KIND_GROSS_EXPOSURE_MAX, 7 * 60_000),
        (t.LIMIT_KIND_OPEN_NOTIONAL_MAX, 7 * 60_000),
        (t.LIMIT_KIND_DAILY_TRADED_MAX, 7 * 60_000),
        (t.LIMIT_KIND_DELTA_MAX, 7 * 60_000),
    ],
)
def test_a_limit_of_seven_lots_lets_seven_pass(kind: int, lots: int) -> None:
    desk = Desk()
    for scope, scope_id in LEVELS_OF_CHILD:
        assert desk.limit(kind, lots, scope, scope_id) == NONE
        assert desk.check(quantity_lots=7).reason == NONE
        answer = desk.check(quantity_lots=8)
        assert answer.reason == t.REASON_CODE_LIMIT_ORDER_QUANTITY_MAX - 2 + kind
        assert answer.max_quantity_lots == 7
        desk.engine.remove_limit(scope, scope_id, 0, kind)


@settings(max_examples=40)
@given(seeds)
def test_the_order_of_creation_is_irrelevant(seed: int) -> None:
    """Accounts, limits, positions and working orders made in another order: the same answers."""
    rng = random.Random(seed)
    sizes = {
        (account_id, instrument_id): rng.randint(1, 50)
        for account_id in (PARENT, CHILD, OTHER)
        for instrument_id in (BTC, ETH, CALL)
    }
    limits = [
        (kind, int(10 ** rng.uniform(3, 9)), *level)
        for kind in BROAD_KINDS
        for level in reversed(LEVELS_OF_CHILD)
        if rng.random() < 0.5
    ]
    # A parent's looser limit after a tighter one of its child is allowed, the reverse is not.
    limits.sort(key=lambda limit: limit[1])
    straight = answers_to_all(Desk(), sizes, limits)
    mixed = random.Random(seed + 1)

    def mix(values: list[Any]) -> list[Any]:
        return mixed.sample(values, len(values))

    shuffled = {key: sizes[key] for key in mix(list(sizes))}
    assert answers_to_all(Desk(mix), shuffled, limits_apart(limits, mixed)) == straight


def answers_to_all(desk: Desk, sizes: dict[tuple[int, int], int], limits: list[Any]) -> Any:
    """Build positions of these sizes, orders as large, and limits; return uses and decisions."""
    for (account_id, instrument_id), lots in sizes.items():
        order = {"account_id": account_id, "instrument_id": instrument_id}
        filled = desk.order(**order, quantity_lots=lots)
        desk.order(**order, quantity_lots=lots)
        fill = {"kind": orders_pb.EXECUTION_KIND_FILL, "price_ticks": MARKS[instrument_id]}
        desk.execute(reservation_id=filled.reservation_id, quantity_lots=lots, **fill)
    for kind, value, scope, scope_id in limits:
        desk.limit(kind, value, scope, scope_id)
    uses = [(row, desk.use(row.kind, row.scope, row.scope_id)) for row in desk.engine.limits()]
    decisions = []
    for account_id, instrument_id in sorted(sizes):
        for quantity in (1, 100, 10**5):
            order = {"account_id": account_id, "instrument_id": instrument_id}
            answer = desk.check(**order, quantity_lots=quantity)
            answer.revision = 0
            decisions.append(answer)
    return uses, decisions


def limits_apart(limits: list[Any], rng: random.Random) -> list[Any]:
    """Return the limits in another order of kinds, those of a kind as they are."""
    kinds = list({limit[0] for limit in limits})
    rng.shuffle(kinds)
    return [limit for kind in kinds for limit in limits if limit[0] == kind]


@given(seeds)
def test_a_raise_that_has_ended_counts_no_more(seed: int) -> None:
    rng = random.Random(seed)
    desk = Desk()
    kind = t.LIMIT_KIND_ORDER_QUANTITY_MAX
    value = rng.randint(1, 100)
    raised = rng.randint(value + 1, 200)
    until = desk.now + rng.randint(1, 50 * SECOND)
    level = rng.choice(LEVELS_OF_CHILD)
    assert desk.limit(kind, value, *level) == NONE
    assert desk.engine.raise_limit(*level, 0, kind, raised, until, desk.now) == NONE
    for now, bound in ((desk.now, raised), (until - 1, raised), (until, value), (until + 1, value)):
        desk.now = now
        assert desk.check(quantity_lots=bound).reason == NONE
        answer = desk.check(quantity_lots=bound + 1)
        assert answer.reason == t.REASON_CODE_LIMIT_ORDER_QUANTITY_MAX
        assert answer.detail.violations[0].limit == answer.max_quantity_lots == bound


def test_a_level_whose_marks_are_not_known_takes_no_order() -> None:
    """A position of another account of the firm is as good a reason as one's own."""
    marked = (
        t.LIMIT_KIND_GROSS_EXPOSURE_MAX,
        t.LIMIT_KIND_DAILY_LOSS_MAX,
        t.LIMIT_KIND_DRAWDOWN_MAX,
        t.LIMIT_KIND_DELTA_MAX,
        t.LIMIT_KIND_GAMMA_MAX,
        t.LIMIT_KIND_VEGA_MAX,
        t.LIMIT_KIND_CONCENTRATION_MAX,
    )
    for kind in marked:
        desk = Desk()
        bought = desk.order(account_id=OTHER, instrument_id=ETH)
        fill = {"kind": orders_pb.EXECUTION_KIND_FILL, "price_ticks": 3_000, "quantity_lots": 1}
        desk.execute(reservation_id=bought.reservation_id, **fill)
        assert desk.limit(kind, HUGE, action=SOFT) == NONE
        assert desk.check().reason == NONE
        desk.now += 61 * SECOND
        desk.report_marks({BTC: 60_000})
        assert desk.use(kind, SCOPE_FIRM, FIRM) is None
        answer = desk.check()
        assert answer.reason == t.REASON_CODE_MARK_STALE
        assert [(each.scope, each.scope_id) for each in answer.detail.violations] == [
            (SCOPE_FIRM, FIRM)
        ]
        assert desk.check(account_id=LONER).reason == NONE
        closing = {"account_id": OTHER, "instrument_id": ETH, "side": t.SIDE_SELL}
        assert desk.check(**closing).reason == NONE


def test_what_is_unknown_is_refused() -> None:
    desk = Desk()
    engine, now = desk.engine, desk.now
    kind = t.LIMIT_KIND_ORDER_QUANTITY_MAX
    assert desk.check(account_id=99).reason == t.REASON_CODE_ACCOUNT_UNKNOWN
    assert desk.check(instrument_id=99).reason == t.REASON_CODE_INSTRUMENT_UNKNOWN
    assert desk.check(instrument_id=UNMARKED).reason == t.REASON_CODE_MARK_MISSING
    before = engine.state_hash()
    for scope, scope_id, reason in (
        (SCOPE_FIRM, 99, t.REASON_CODE_FIRM_UNKNOWN),
        (SCOPE_ACCOUNT, 99, t.REASON_CODE_ACCOUNT_UNKNOWN),
    ):
        assert desk.limit(kind, 1, scope, scope_id) == reason
    assert desk.limit(kind, 1, instrument_id=99) == t.REASON_CODE_INSTRUMENT_UNKNOWN
    assert engine.raise_limit(5, FIRM, 0, kind, 2, now + 1, now) == t.REASON_CODE_LIMIT_UNKNOWN
    assert engine.remove_limit(5, FIRM, 0, kind) == t.REASON_CODE_LIMIT_UNKNOWN
    assert engine.reset_usage(5, FIRM, 0, kind, now) == t.REASON_CODE_LIMIT_UNKNOWN
    assert engine.set_account_owner(99, 0, 0, now) == t.REASON_CODE_ACCOUNT_UNKNOWN
    assert engine.set_account_owner(LONER, 99, 0, now) == t.REASON_CODE_FIRM_UNKNOWN
    assert engine.set_account_owner(LONER, 0, 99, now) == t.REASON_CODE_OWNER_INVALID
    assert engine.state_hash() == before
    # An option without a volatility has no Greeks.
    desk = Desk()
    engine = desk.engine
    engine.upsert_instrument(
        "PUT", 2, 1, 0, 1, 0, 1, -2, 1, expiry_ns=NOW + 1, strike_units=5, option_type=2
    )
    put = 5
    desk.report_marks({put: 10})
    assert desk.check(instrument_id=put).reason == NONE
    assert desk.limit(t.LIMIT_KIND_VEGA_MAX, HUGE) == NONE
    assert desk.check(instrument_id=put).reason == t.REASON_CODE_MARK_MISSING
