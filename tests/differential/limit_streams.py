"""Seeded streams of commands about firms, owners and limits, in a market so small that every limit
is met often.

The commands are those of streams.py. One tick of one lot is a whole unit of the asset, prices are
about 100 ticks, orders of a few lots.
"""

import random
from collections.abc import Callable
from typing import Any

from riskd.reference import ReferenceEngine
from riskd.v1 import types_pb2 as t
from tests.differential.streams import BILLION, Command, Fields, perpetual, upsert

START_NS = 20_000 * 86_400 * BILLION - 3600 * BILLION
SETTINGS_ROOMY = {
    "accounts_max": 12,
    "positions_max": 60,
    "orders_max": 150,
    "instruments_max": 6,
    "schedules_max": 2,
    "gateways_max": 3,
    "firms_max": 3,
    "limits_max": 80,
    "holdings_max": 40,
    "answer_bytes": 1 << 18,
}
SETTINGS_TIGHT = SETTINGS_ROOMY | {
    "gateways_max": 2,
    "firms_max": 2,
    "limits_max": 6,
    "holdings_max": 3,
}
USDT, COIN = 1, 2
PERP, OTHER, CALL, PUT, COINED = range(1, 6)
MARKS = {PERP: 200, OTHER: 300, CALL: 20, PUT: 24, COINED: 100}
ACCOUNTS = range(1, 10)
HEDGED = 6
COIN_ACCOUNT = 9
FIRMS = (1, 2)
GATEWAYS = (1, 2, 3)
GATEWAY_SCOPE, ACCOUNT_SCOPE, FIRM_SCOPE = 2, 3, 5
LIMIT_VALUE_MAX = 2**62

OF_INSTRUMENTS = (
    t.LIMIT_KIND_POSITION_LOTS_MAX,
    t.LIMIT_KIND_DENIED,
    t.LIMIT_KIND_ALLOWED,
)
OF_ALL = (
    t.LIMIT_KIND_ORDER_RATE_MAX,
    t.LIMIT_KIND_EXECUTION_RATE_MAX,
    t.LIMIT_KIND_DAILY_TRADED_MAX,
    t.LIMIT_KIND_DAILY_LOSS_MAX,
    t.LIMIT_KIND_DRAWDOWN_MAX,
    t.LIMIT_KIND_DELTA_MAX,
    t.LIMIT_KIND_GAMMA_MAX,
    t.LIMIT_KIND_VEGA_MAX,
)
RATES = (t.LIMIT_KIND_ORDER_RATE_MAX, t.LIMIT_KIND_EXECUTION_RATE_MAX)
# What is tight now and then for orders of a few lots.
VALUES: dict[int, tuple[int, ...]] = {
    t.LIMIT_KIND_ORDER_QUANTITY_MIN: (0, 2, 4),
    t.LIMIT_KIND_ORDER_QUANTITY_MAX: (5, 10, 18),
    t.LIMIT_KIND_ORDER_NOTIONAL_MIN: (10_000, 30_000),
    t.LIMIT_KIND_ORDER_NOTIONAL_MAX: (100_000, 200_000),
    t.LIMIT_KIND_COLLAR_PPB: (0, 10_000_000, 50_000_000, 2_000_000_000),
    t.LIMIT_KIND_COLLAR_TICKS: (0, 1, 5),
    t.LIMIT_KIND_POSITION_LOTS_MAX: (10, 25, 40),
    t.LIMIT_KIND_POSITION_NOTIONAL_MAX: (100_000, 300_000, 600_000),
    t.LIMIT_KIND_GROSS_EXPOSURE_MAX: (200_000, 500_000, 1_500_000),
    t.LIMIT_KIND_OPEN_ORDERS_MAX: (1, 2, 4),
    t.LIMIT_KIND_OPEN_NOTIONAL_MAX: (100_000, 400_000),
    t.LIMIT_KIND_ORDER_RATE_MAX: (1, 3, 700, BILLION),
    t.LIMIT_KIND_EXECUTION_RATE_MAX: (1, 2, 300_000_007),
    t.LIMIT_KIND_DAILY_TRADED_MAX: (300_000, 2_000_000),
    t.LIMIT_KIND_DAILY_LOSS_MAX: (0, 2_000, 50_000),
    t.LIMIT_KIND_DRAWDOWN_MAX: (0, 5_000, 100_000),
    t.LIMIT_KIND_LEVERAGE_MAX: (500, 1000, 2000),
    t.LIMIT_KIND_DELTA_MAX: (50_000, 200_000, 800_000),
    t.LIMIT_KIND_GAMMA_MAX: (0, 100, 1_000),
    t.LIMIT_KIND_VEGA_MAX: (0, 100, 1_000),
    t.LIMIT_KIND_CONCENTRATION_MAX: (300_000_000, 600_000_000, 999_999_999),
    t.LIMIT_KIND_DENIED: (0,),
    t.LIMIT_KIND_ALLOWED: (0, 7),
}
MINIMA = (t.LIMIT_KIND_ORDER_QUANTITY_MIN, t.LIMIT_KIND_ORDER_NOTIONAL_MIN)

LimitName = tuple[int, int, int, int]


def setup() -> list[Command]:
    """Return the commands that define the market, the accounts, two firms and two parents."""
    tiers = [(0, 0, 5_000_000, 10_000)]
    option = {"kind": 2, "expiry_ns": START_NS + 40 * 86_400 * BILLION, "underlying_id": PERP}
    commands: list[Command] = [
        ("create_asset", "USDT", 2),
        ("create_asset", "COIN", 2),
        ("upsert_schedule", "plain", USDT, tiers, 0, 0),
        ("upsert_schedule", "coin", COIN, tiers, 0, 0),
        upsert(perpetual("PERP", 1, (1, 0, 1, 0, 2), mark_age_max_ns=60 * BILLION)),
        upsert(perpetual("OTHER", 1, (1, 0, 1, 0, 3))),
        upsert(perpetual("CALL", 0, (1, 0, 1, 0, 2), strike_units=220, option_type=1) | option),
        upsert(perpetual("PUT", 0, (1, 0, 3, -1, 4), strike_units=380, option_type=2) | option),
        upsert(perpetual("COINED", 2, (1, 0, 1, 0, 1)) | {"asset_id": COIN}),
    ]
    for account_id in ACCOUNTS:
        asset_id = COIN if account_id == COIN_ACCOUNT else USDT
        leverage = 500 * (1 + account_id % 3)
        cash = 3 * 10**6 if account_id % 2 else 4 * 10**5
        commands.append(
            ("create_account", account_id, asset_id, 1 + account_id % 2, leverage, cash)
        )
    commands.append(("set_position_mode", HEDGED, 2))
    commands += [("create_firm", firm_id, USDT) for firm_id in FIRMS]
    # Firm 1 has a parent with sub-accounts and an account; 5 is a parent of no firm.
    owners = ((1, 1, 0), (2, 1, 1), (3, 1, 1), (4, 1, 0), (6, 0, 5), (7, 2, 0))
    commands += [("set_account_owner", *owner, START_NS) for owner in owners]
    return commands


class LimitStream:
    """Chooses the next command by the state of a reference engine that has run all before it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.settings = SETTINGS_TIGHT if seed % 4 == 3 else SETTINGS_ROOMY
        self.now_ns = START_NS
        self.marks = dict(MARKS)
        self.next_id = 1
        self.fills: list[tuple[int, int, tuple[int, int], int]] = []
        self.not_normal: list[tuple[int, int]] = []
        self.queue = setup()
        # Marks come late, so that limits meet instruments without one.
        if seed % 2:
            self.queue += [self.some_marks_of(sorted(MARKS))]

    def next(self, engine: ReferenceEngine) -> Command:
        if self.queue:
            return self.queue.pop(0)
        self.pass_time()
        if self.queue:
            return self.queue.pop(0)
        if self.not_normal and self.rng.random() < 0.1:
            return ("set_trading_state", *self.not_normal.pop(), 1)
        choices: list[tuple[float, Callable[[ReferenceEngine], Command]]] = [
            (42, self.order),
            (8, self.amendment),
            (5, self.batch),
            (1, self.cancel),
            (0.3, self.capacities),
            (20, self.execution),
            (4, self.undoing),
            (9, self.some_marks),
            (10, self.set_limit),
            (1, self.bad_limit),
            (2, self.raise_limit),
            (4, self.remove_limit),
            (1, self.reset_usage),
            (4, self.limit_use),
            (2, self.owner),
            (1, self.firm),
            (1, self.trading_state),
            (2, self.collateral),
        ]
        weights = [weight for weight, _ in choices]
        return self.rng.choices([each for _, each in choices], weights)[0](engine)

    def pass_time(self) -> None:
        step = self.rng.choice((1, 1000, 10**6, 3 * 10**8))
        if self.rng.random() < 0.02:
            step = self.rng.choice((2, 70, 1800, 40_000)) * BILLION
            if self.rng.random() < 0.9:
                self.queue.append(self.some_marks_of(sorted(MARKS)))
        self.now_ns += step
        self.queue = [(*command[:-1], self.now_ns) for command in self.queue]

    def fresh_id(self) -> int:
        self.next_id += 1
        return self.next_id

    # Marks

    def some_marks_of(self, instrument_ids: list[int]) -> Command:
        marks: list[Fields] = []
        for instrument_id in instrument_ids:
            mark: Fields = {
                "instrument_id": instrument_id,
                "mark_price": self.marks[instrument_id],
                "time_ns": self.now_ns,
            }
            if instrument_id in (CALL, PUT):
                mark["implied_volatility_ppb"] = self.rng.choice((0, 500_000_000, 800_000_000))
                mark["forward_price"] = self.rng.choice((0, 200, 410))
            marks.append(mark)
        return ("marks", marks, self.now_ns)

    def some_marks(self, _: ReferenceEngine) -> Command:
        instrument_ids = self.rng.sample(sorted(MARKS), self.rng.choice((1, 2, 5, 5)))
        for instrument_id in instrument_ids:
            factor = self.rng.choice((0.9, 0.97, 1, 1.01, 1.05, 1.12))
            moved = max(1, round(self.marks[instrument_id] * factor))
            if not MARKS[instrument_id] // 2 <= moved <= 2 * MARKS[instrument_id]:
                moved = MARKS[instrument_id]
            self.marks[instrument_id] = moved
        return self.some_marks_of(instrument_ids)

    # Orders

    def some_account(self) -> int:
        return self.rng.choice((1, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, COIN_ACCOUNT))

    def some_price(self, instrument_id: int) -> int:
        units = (2, 3, 2, 4, 1)[instrument_id - 1]
        price = self.marks[instrument_id] / units * self.rng.choice((0.94, 0.99, 1, 1.01, 1.06))
        return max(1, round(price))

    def order(self, engine: ReferenceEngine) -> Command:
        account_id = self.some_account()
        instrument_id = self.rng.choice((PERP, PERP, PERP, OTHER, OTHER, CALL, PUT))
        if account_id == COIN_ACCOUNT:
            instrument_id = COINED
        is_option = instrument_id in (CALL, PUT)
        side = self.rng.choice((1, 1, 1, 1, 1, 1, 1, 2) if is_option else (1, 2))
        order_type = self.rng.choice((1, 1, 1, 1, 2, 3, 4, 5))
        fields: Fields = {
            "account_id": account_id,
            "instrument_id": instrument_id,
            "client_order_id": self.fresh_id(),
            "gateway_id": self.rng.choice(GATEWAYS),
            "side": side,
            "order_type": order_type,
            "quantity_lots": self.rng.choice((1, 2, 3, 5, 8, 13, 21)),
            "mode": self.rng.choice((0, 1, 1, 1, 2)),
            "view": self.rng.choice((0, 2, 3, 3, 3, 3)),
        }
        if order_type in (1, 4):
            fields["price_ticks"] = self.some_price(instrument_id)
        if order_type in (3, 4, 5):
            fields["trigger_price_ticks"] = self.some_price(instrument_id)
        if self.rng.random() < 0.06:
            fields["flags"] = 1
        if self.rng.random() < 0.02:
            fields["quantity_lots"] = self.rng.choice((2**40, 2**53))
        if account_id == HEDGED:
            fields["position_side"] = self.rng.choice((2, 3))
        open_rows = [row for row in engine.positions(account_id) or [] if row.lots]
        if open_rows and self.rng.random() < 0.15:
            row = self.rng.choice(open_rows)
            fields["instrument_id"] = instrument_id = row.instrument_id
            fields["side"] = 1 if row.lots < 0 else 2
            fields["quantity_lots"] = abs(row.lots)
            is_option = instrument_id in (CALL, PUT)
        # Greeks in remembered answers would keep their hash from being compared.
        if is_option and fields["mode"] != 2:
            fields["view"] = min(2, fields["view"])
        elif is_option and self.rng.random() < 0.5:
            fields["view"] = 3
        return ("check", fields, self.now_ns)

    def amendment(self, engine: ReferenceEngine) -> Command:
        working = list(engine.working_orders())
        if not working:
            return self.order(engine)
        order = self.rng.choice(working)
        fields: Fields = {
            "gateway_id": order.gateway_id,
            "client_order_id": self.fresh_id(),
            "quantity_lots": max(1, order.quantity + self.rng.choice((-1, 0, 1, 5))),
            "price_ticks": order.price_ticks,
            "trigger_price_ticks": order.trigger_price,
            "view": 2 if order.instrument_id in (CALL, PUT) else self.rng.choice((0, 3)),
        }
        if order.price_ticks and self.rng.random() < 0.6:
            fields["price_ticks"] = self.some_price(order.instrument_id)
        return ("amend", fields, (order.gateway_id, order.client_order_id), self.now_ns)

    def batch(self, engine: ReferenceEngine) -> Command:
        mode = self.rng.choice((0, 1, 1, 2))
        orders: list[Fields] = []
        for _ in range(self.rng.choice((1, 2, 2, 4))):
            _, fields, _ = self.order(engine)
            if orders and self.rng.random() < 0.5:
                # Of the same account, so that one is the limit of the next.
                names = ("account_id", "instrument_id", "position_side", "price_ticks")
                first = {name: orders[0][name] for name in names if name in orders[0]}
                kind = {name: orders[0].get(name, 0) for name in ("order_type", "side")}
                fields = {
                    name: value
                    for name, value in fields.items()
                    if name not in (*names, "trigger_price_ticks")
                }
                if "trigger_price_ticks" in orders[0]:
                    first["trigger_price_ticks"] = orders[0]["trigger_price_ticks"]
                fields |= first | kind
            if mode == 2 and orders:
                fields["mode"] = orders[0]["mode"]
            fields["quantity_lots"] = min(8, fields["quantity_lots"])
            if fields["instrument_id"] in (CALL, PUT):
                fields["view"] = min(2, fields["view"])
            orders.append(fields)
        return ("batch", mode, orders, self.now_ns)

    def cancel(self, engine: ReferenceEngine) -> Command:
        working = list(engine.working_orders())
        if not working:
            return self.order(engine)
        order = self.rng.choice(working)
        fields = {
            "gateway_id": 0,
            "account_id": order.account_id,
            "instrument_id": order.instrument_id,
            "side": 0,
            "accepted_before_ns": 0,
            "validate_only": False,
        }
        return ("cancel", fields, [], self.now_ns)

    def capacities(self, _: ReferenceEngine) -> Command:
        """The tables of limits are moved, closed up."""
        name = self.rng.choice(("firms_max", "limits_max", "holdings_max"))
        return ("set_capacities", {name: self.settings[name] + self.rng.choice((0, 1, 2))})

    def execution(self, engine: ReferenceEngine) -> Command:
        working = list(engine.working_orders())
        if not working:
            return self.order(engine)
        order = self.rng.choice(working)
        key = (order.gateway_id, order.client_order_id)
        fields: Fields = {
            "gateway_id": order.gateway_id,
            "execution_id": self.fresh_id(),
            "kind": self.rng.choice((1, 1, 1, 2)),
        }
        if fields["kind"] == 1:
            fields["price_ticks"] = order.price_ticks or self.some_price(order.instrument_id)
            fields["quantity_lots"] = max(1, order.remaining)
            if self.rng.random() < 0.4:
                fields["quantity_lots"] = self.rng.randint(1, max(1, order.remaining))
            fields["fee_minor"] = self.rng.choice((0, 0, 15, -3))
            fields["fee_asset_id"] = self.rng.choice((0, 0, 0, 2))
            # A late fill of an option may leave it short: streams.py is for that.
            if order.instrument_id not in (CALL, PUT):
                fill = (order.gateway_id, fields["execution_id"], key, order.instrument_id)
                self.fills.append(fill)
        return ("execute", fields, key, self.now_ns)

    def undoing(self, engine: ReferenceEngine) -> Command:
        """A bust or a correction of a fill, or a late fill of its order."""
        if not self.fills:
            return self.execution(engine)
        gateway_id, original_id, key, instrument_id = self.rng.choice(self.fills[-30:])
        fields: Fields = {
            "gateway_id": gateway_id,
            "execution_id": self.fresh_id(),
            "kind": self.rng.choice((1, 5, 6)),
            "fee_minor": self.rng.choice((0, -15)),
        }
        if fields["kind"] != 1:
            fields["original_execution_id"] = original_id
        if fields["kind"] != 5:
            fields["price_ticks"] = self.some_price(instrument_id)
            fields["quantity_lots"] = self.rng.choice((1, 2))
        return ("execute", fields, key, self.now_ns)

    # Limits

    def some_scope(self) -> tuple[int, int]:
        return self.rng.choice(
            (
                *((ACCOUNT_SCOPE, each) for each in (1, 1, 2, 4, 5, 6, 7, 8)),
                *((FIRM_SCOPE, each) for each in (1, 1, 1, 2)),
                *((GATEWAY_SCOPE, each) for each in (1, 2)),
            )
        )

    def some_limit(self) -> LimitName:
        scope, scope_id = self.some_scope()
        # Those that most orders pass come more often.
        kind = int(self.rng.choice((*range(1, 24), 5, 9, 9, 19, 20, 20, 20, 21)))
        if scope == GATEWAY_SCOPE:
            kind = t.LIMIT_KIND_ORDER_RATE_MAX
        instrument_id = self.rng.choice((0, PERP, PERP, OTHER, CALL))
        if kind in OF_ALL:
            instrument_id = 0
        elif kind in OF_INSTRUMENTS:
            instrument_id = self.rng.choice((PERP, OTHER, CALL, PUT))
        return scope, scope_id, instrument_id, kind

    def set_limit(self, engine: ReferenceEngine) -> Command:
        existing = [tuple(row[:4]) for row in engine.limits()]
        name: Any = self.some_limit()
        # So many that orders meet some, so few that most pass.
        if existing and (len(existing) >= 24 or self.rng.random() < 0.2):
            name = self.rng.choice(existing)
        scope, scope_id, instrument_id, kind = name
        value = self.rng.choice(VALUES[kind])
        burst = self.rng.choice((1, 2, 5)) if kind in RATES else 0
        action = self.rng.choice((1, 2, 2))
        return (
            *("set_limit", scope, scope_id, instrument_id, kind, value, burst, action),
            self.now_ns,
        )

    def bad_limit(self, _: ReferenceEngine) -> Command:
        good: dict[str, int] = {
            "scope": ACCOUNT_SCOPE,
            "scope_id": 8,
            "instrument_id": 0,
            "kind": t.LIMIT_KIND_ORDER_QUANTITY_MAX,
            "value": 18,
            "burst": 0,
            "action": 2,
        }
        bad: dict[str, int] = self.rng.choice(
            (
                {"scope": 0},
                {"scope": 1},
                {"scope": 4},
                {"scope_id": 0},
                {"scope_id": 99},
                {"scope_id": 2**64},
                {"scope": FIRM_SCOPE, "scope_id": 99},
                {"scope": FIRM_SCOPE, "scope_id": 2**32 + 1},
                {"scope": GATEWAY_SCOPE, "scope_id": 1},
                {"scope": GATEWAY_SCOPE, "scope_id": 0, "kind": 12, "burst": 1},
                {"scope": GATEWAY_SCOPE, "scope_id": 2**32, "kind": 12, "burst": 1},
                {"scope": GATEWAY_SCOPE, "scope_id": 4, "kind": 12, "burst": 1},
                {"instrument_id": 99},
                {"instrument_id": 2**32},
                {"instrument_id": PERP, "kind": 12, "burst": 1},
                {"instrument_id": PERP, "kind": 18},
                {"kind": 0},
                {"kind": 24},
                {"kind": 7},
                {"kind": 12, "value": 0, "burst": 1},
                {"kind": 13, "value": BILLION + 1, "burst": 1},
                {"kind": 13, "burst": 0},
                {"kind": 13, "burst": 10**6 + 1},
                {"value": -1},
                {"value": LIMIT_VALUE_MAX + 1},
                {"value": 2**64},
                {"value": LIMIT_VALUE_MAX},
                {"burst": 1},
                {"action": 0},
                {"action": 3},
            )
        )
        return ("set_limit", *(good | bad).values(), self.now_ns)

    def raise_limit(self, engine: ReferenceEngine) -> Command:
        rows = engine.limits()
        if not rows or self.rng.random() < 0.1:
            return ("raise_limit", *self.some_limit(), 10**6, self.now_ns + 1, self.now_ns)
        row = self.rng.choice(rows)
        looser = row.value * 2 + 3
        if row.kind in MINIMA:
            looser = row.value // 2
        value = self.rng.choice((looser, looser, looser, row.value, -1, 2**62 + 1, BILLION + 1))
        length = self.rng.choice((10**9, 10**11, 7 * 86_400 * BILLION, 7 * 86_400 * BILLION + 1, 0))
        return ("raise_limit", *row[:4], value, self.now_ns + length, self.now_ns)

    def some_name(self, engine: ReferenceEngine) -> LimitName:
        rows = engine.limits()
        if not rows or self.rng.random() < 0.1:
            return self.some_limit()
        row = self.rng.choice(rows)
        return row.scope, row.scope_id, row.instrument_id, row.kind

    def remove_limit(self, engine: ReferenceEngine) -> Command:
        # What stops everything goes first.
        hard = [row[:4] for row in engine.limits() if row.action == 1 and row.value == 0]
        if hard and self.rng.random() < 0.7:
            return ("remove_limit", *self.rng.choice(hard))
        return ("remove_limit", *self.some_name(engine))

    def reset_usage(self, engine: ReferenceEngine) -> Command:
        kinds = (t.LIMIT_KIND_EXECUTION_RATE_MAX, t.LIMIT_KIND_DRAWDOWN_MAX)
        rows = [row[:4] for row in engine.limits() if row.kind in kinds]
        if rows and self.rng.random() < 0.8:
            return ("reset_usage", *self.rng.choice(rows), self.now_ns)
        return ("reset_usage", *self.some_name(engine), self.now_ns)

    def limit_use(self, engine: ReferenceEngine) -> Command:
        return ("limit_use", *self.some_name(engine), self.now_ns)

    # Owners, firms, states, money

    def owner(self, engine: ReferenceEngine) -> Command:
        busy = {order.account_id for order in engine.working_orders()}
        flat = [
            each
            for each in ACCOUNTS
            if each not in busy and not any(row.lots for row in engine.positions(each) or [])
        ]
        if flat and self.rng.random() < 0.4:
            owner = (self.rng.choice(flat), self.rng.choice((0, 1, 2)), 0)
            return ("set_account_owner", *owner, self.now_ns)
        owner = self.rng.choice(
            (
                *((2, 1, 1), (2, 0, 0), (3, 1, 1), (3, 0, 0), (6, 0, 5), (6, 0, 0)),
                *((7, 2, 0), (7, 0, 0), (7, 1, 1), (8, 1, 1), (8, 0, 0), (8, 2, 7)),
                *((1, 2, 0), (1, 1, 0), (4, 9, 0), (4, 1, 4), (4, 1, 99), (4, 0, 6)),
                *((99, 1, 0), (COIN_ACCOUNT, 1, 0), (COIN_ACCOUNT, 0, 5), (4, 2, 1)),
                *((4, 2**32, 0), (4, 1, 2**64)),
            )
        )
        return ("set_account_owner", *owner, self.now_ns)

    def firm(self, _: ReferenceEngine) -> Command:
        firm = self.rng.choice(((0, USDT), (1, USDT), (3, 9), (3, USDT), (4, COIN), (2**32, USDT)))
        return self.rng.choice((*[("create_firm", *firm)] * 2, ("firms",), ("limits",)))

    def trading_state(self, _: ReferenceEngine) -> Command:
        scope = self.rng.choice(((FIRM_SCOPE, 1), (FIRM_SCOPE, 2), (FIRM_SCOPE, 9), (3, 1), (3, 5)))
        self.not_normal.append(scope)
        return ("set_trading_state", *scope, self.rng.choice((2, 3)))

    def collateral(self, _: ReferenceEngine) -> Command:
        account_id = self.some_account()
        asset_id = COIN if account_id == COIN_ACCOUNT else USDT
        amount = self.rng.choice((-1, 1)) * self.rng.choice((1, 5_000, 200_000))
        return ("adjust_collateral", account_id, asset_id, amount, False, self.now_ns)
