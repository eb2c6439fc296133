"""Seeded streams about money: loads, funding, settlement, modes, levels, collateral and credit,
between orders and fills.

The commands are those of streams.py. One tick of one lot is a whole unit of the asset, prices are
about 100 ticks, orders of a few lots, so that accounts come near every bound. An instrument that is
settled has a successor at once; its symbol is a role and a number.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from riskd.core.rows import InstrumentRow, PositionRow
from riskd.reference import Order, ReferenceEngine
from riskd.v1 import types_pb2 as t
from tests.differential.streams import BILLION, COUNT_MAX, Command, Fields, perpetual, upsert

DAY_NS = 86_400 * BILLION
START_NS = 20_000 * DAY_NS - 3600 * BILLION
SETTINGS_ROOMY = {
    "accounts_max": 16,
    "positions_max": 120,
    "orders_max": 150,
    "instruments_max": 120,
    "schedules_max": 6,
    "gateways_max": 3,
    "balances_max": 30,
    "firms_max": 3,
    "limits_max": 40,
    "holdings_max": 80,
    "answer_bytes": 1 << 18,
}
SETTINGS_TIGHT = SETTINGS_ROOMY | {
    "positions_max": 24,
    "balances_max": 2,
    "holdings_max": 5,
    "orders_max": 20,
}
USDT, COIN, ALT = 1, 2, 3
ACCOUNTS = range(1, 15)
HEDGED = (4, 6, 13)
RICH = 12
"""Has so much cash that sums do not fit."""
FIRMS = (1, 2)
GATEWAYS = (1, 2)
GATEWAY_SCOPE, ACCOUNT_SCOPE, INSTRUMENT_SCOPE, FIRM_SCOPE = 2, 3, 4, 5
IN_COIN = (9, 10)
"""Accounts that are settled in COIN."""
ABROAD = (*IN_COIN, 11, RICH, 13, 14)
"""Accounts without owners, which also trade what is settled in the other asset."""


@dataclass(frozen=True, slots=True)
class Role:
    """What an instrument is for. A successor has the same terms."""

    mark: int
    unit_value: Fraction
    """What a lot is worth at a mark of one unit, in minor units; inverse: times the mark."""
    steps: tuple[int, ...]
    kind: int = 1
    schedule_id: int = 0
    asset_id: int = USDT
    underlying: str = ""
    life_ns: int = 0
    """Until its expiry."""
    rest: Fields = field(default_factory=dict)

    @property
    def is_option(self) -> bool:
        return self.kind in (2, 6)

    def value(self, lots: int, mark: int) -> int:
        """Return what lots are worth, in minor units, about."""
        one_lot = self.unit_value / mark if self.kind in (3, 5) else self.unit_value * mark
        return int(abs(lots) * one_lot)


HOUR_NS = 3600 * BILLION
PLAIN, STEEP, COINS, USDT_RULE, COIN_RULE = range(1, 6)
CALL = {"strike_units": 220, "option_type": 1}
PUT = {"strike_units": 380, "option_type": 2}
# One tick of one lot of most in USDT is 100 minor units, of INDEX 10, of WIDE 100,000; a lot of
# the inverse ones is 100 quote units, a tick of COIN-CALL one minor unit.
ROLES: dict[str, Role] = {
    "PERP": Role(
        *(200, Fraction(50), (1, 0, 1, 0, 2), 1, PLAIN),
        rest={"taker_fee_ppb": 500_000, "mark_age_max_ns": 90 * BILLION, "base_asset_id": COIN},
    ),
    "OTHER": Role(
        *(300, Fraction(100, 3), (1, 0, 1, 0, 3), 1, STEEP),
        rest={"market_buffer_ppb": 20_000_000, "base_asset_id": ALT},
    ),
    "INDEX": Role(
        *(5_000, Fraction(10, 7), (1, -1, 1, 0, 7), 1, PLAIN),
        rest={"mark_age_max_ns": 300 * BILLION},
    ),
    "WIDE": Role(400, Fraction(100_000), (1, 0, 1, 3, 1), 1, PLAIN),
    "FUTURE": Role(
        *(200, Fraction(50), (1, 0, 1, 0, 2), 4, STEEP),
        life_ns=9 * HOUR_NS,
        rest={"base_asset_id": COIN},
    ),
    "CALL": Role(
        *(20, Fraction(50), (1, 0, 1, 0, 2), 2),
        underlying="PERP",
        life_ns=4 * HOUR_NS,
        rest=CALL | {"option_rule_id": USDT_RULE},
    ),
    "PUT": Role(
        *(24, Fraction(25), (1, 0, 1, 0, 4), 2),
        underlying="PERP",
        life_ns=5 * HOUR_NS,
        rest=PUT,
    ),
    "INVERSE": Role(
        *(200, Fraction(200_000), (1, 0, 100, 0, 2), 3, COINS, COIN), rest={"base_asset_id": COIN}
    ),
    "DATED": Role(100, Fraction(10_000), (1, 0, 10, 0, 1), 5, COINS, COIN, life_ns=8 * HOUR_NS),
    "IN-COIN": Role(
        *(100, Fraction(100), (1, -4, 1, 3, 1), 1, COINS, COIN), rest={"base_asset_id": USDT}
    ),
    "COIN-CALL": Role(
        *(40, Fraction(1, 2), (1, -3, 1, 0, 2), 6, 0, COIN),
        underlying="INVERSE",
        life_ns=6 * HOUR_NS,
        rest=CALL | {"option_rule_id": COIN_RULE},
    ),
}
CONTRACTS = tuple(name for name, role in ROLES.items() if not role.is_option)
LEVERAGES = (100, 300, 500, 1000, 2000, 5000, 9_900)
# Above 100,000 a position with a high leverage has less margin than it needs.
STEEP_TIERS = [
    (0, 0, 10_000_000, 9_900),
    (100_000, 0, 50_000_000, 1_500),
    (400_000, 200_000_000, 150_000_000, 500),
]
WHOLE, BASIS_ENTRY = 2, 2
COIN_TIERS = [(0, 0, 10_000_000, 9_900), (200_000, 0, 40_000_000, 2_000)]


def call(name: str, *arguments: Any, **options: Any) -> Command:
    """Return a command; options are arguments by name."""
    return (name, *arguments, options)


def definition(name: str, number: int, underlying_id: int, now_ns: int) -> Fields:
    """Return the number-th instrument of a role."""
    role = ROLES[name]
    terms: Fields = {"kind": role.kind, "asset_id": role.asset_id, "underlying_id": underlying_id}
    if role.life_ns:
        terms["expiry_ns"] = now_ns + role.life_ns
    return perpetual(f"{name}.{number}", role.schedule_id, role.steps, **(terms | role.rest))


def setup() -> list[Command]:
    """Return the commands that define the market, the accounts, two firms and two parents."""
    commands: list[Command] = [
        ("create_asset", "USDT", 2),
        ("create_asset", "COIN", 3),
        ("create_asset", "ALT", 0),
        ("upsert_schedule", "plain", USDT, [(0, 0, 5_000_000, 10_000)], 0, 0),
        ("upsert_schedule", "steep", USDT, STEEP_TIERS, 0, 50_000),
        ("upsert_schedule", "coins", COIN, COIN_TIERS, 0, 10_000),
        ("upsert_option_rule", "usdt-rule", USDT, 150_000_000, 100_000_000, 75_000_000),
        ("upsert_option_rule", "coin-rule", COIN, 150_000_000, 100_000_000, 75_000_000),
    ]
    ids = {name: number for number, name in enumerate(ROLES, start=1)}
    commands += [
        upsert(definition(name, 1, ids.get(role.underlying, 0), START_NS))
        for name, role in ROLES.items()
    ]
    for account_id in ACCOUNTS:
        cash = 2**62 if account_id == RICH else (3 * 10**6, 10**5, 4 * 10**5)[account_id % 3]
        asset_id = COIN if account_id in IN_COIN else USDT
        leverage = LEVERAGES[account_id % 3 + 4]
        mode = 1 + account_id % 2
        commands.append(("create_account", account_id, asset_id, mode, leverage, cash))
    commands += [("set_position_mode", account_id, 2) for account_id in HEDGED]
    commands += [("create_firm", firm_id, USDT) for firm_id in FIRMS]
    owners = ((1, 1, 0), (2, 1, 1), (3, 1, 1), (4, 1, 0), (6, 0, 5), (7, 2, 0), (8, 2, 0))
    commands += [("set_account_owner", *owner, START_NS) for owner in owners]
    for asset_id, settlement_asset_id, index in ((COIN, USDT, "INDEX"), (USDT, COIN, "IN-COIN")):
        arguments = (asset_id, settlement_asset_id, ids[index], [(0, 900_000_000)], 0, BILLION)
        commands.append(call("define_collateral", *arguments, 0, 0, 250_000_000, now_ns=START_NS))
    commands.append(call("set_margin_levels", 2_000_000, 5_000_000, now_ns=START_NS))
    return commands


class MoneyStream:
    """Chooses the next command by the state of a reference engine that has run all before it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.settings = SETTINGS_TIGHT if seed % 4 == 3 else SETTINGS_ROOMY
        self.now_ns = START_NS
        self.marks = {name: role.mark for name, role in ROLES.items()}
        self.next_id = 1
        self.place = 0
        self.fills: list[tuple[int, int, tuple[int, int], str]] = []
        self.closed: list[Order] = []
        self.not_normal: list[tuple[int, int]] = []
        self.rows: dict[str, InstrumentRow] = {}
        self.assets: dict[int, int] = {}
        """By instrument, in which it is settled."""
        self.queue = setup()
        if seed % 2:
            marks = [
                {"instrument_id": number, "mark_price": role.mark, "time_ns": START_NS}
                for number, role in enumerate(ROLES.values(), start=1)
            ]
            self.queue.append(("marks", marks, START_NS))

    def next(self, engine: ReferenceEngine) -> Command:
        if self.queue:
            return self.queue.pop(0)
        self.rows = self.live(engine)
        ended = [role for role in ROLES if role not in self.rows]
        if ended and len(engine.instruments()) < self.settings["instruments_max"]:
            return self.successor(engine, ended[0])
        if len(self.rows) < len(ROLES):
            self.rows = {row.symbol.split(".")[0]: row for row in engine.instruments()}
        self.pass_time()
        expired = [role for role, row in self.rows.items() if 0 < row.expiry_ns <= self.now_ns]
        if expired and self.rng.random() < 0.2:
            return self.settle(engine, expired[0])
        if self.not_normal and self.rng.random() < 0.2:
            return ("set_trading_state", *self.not_normal.pop(), 1)
        choices: list[tuple[float, Callable[[ReferenceEngine], Command]]] = [
            (34, self.order),
            (5, self.amendment),
            (3, self.batch),
            (18, self.execution),
            (4, self.undoing),
            (1, self.cancel),
            (2, self.time),
            (12, self.some_marks),
            (8, self.load),
            (1, self.thin),
            (2.5, self.stranded),
            (5, self.funding),
            (1.5, self.settlement),
            (9, self.mode),
            (1, self.levels),
            (10, self.evaluation),
            (3, self.events),
            (2, self.collateral),
            (9, self.adjustment),
            (3, self.credit),
            (1.5, self.owner),
            (2, self.leverage),
            (3, self.transfer),
            (1, self.position_mode),
            (1, self.trading_state),
            (2, self.limit),
            (0.5, self.schedule),
            (0.3, self.capacities),
        ]
        weights = [weight for weight, _ in choices]
        return self.rng.choices([each for _, each in choices], weights)[0](engine)

    def pass_time(self) -> None:
        step = self.rng.choice((1, 1000, 10**6, 3 * 10**8))
        if self.rng.random() < 0.01:
            step = self.rng.choice((40, 100, 400, 3600, 40_000)) * BILLION
        self.now_ns += step

    def fresh_id(self) -> int:
        self.next_id += 1
        return self.next_id

    # Instruments and marks

    def live(self, engine: ReferenceEngine) -> dict[str, InstrumentRow]:
        """Return the instrument of each role that is not settled."""
        self.assets |= {row.instrument_id: row.asset_id for row in engine.instruments()}
        rows = [row for row in engine.instruments() if row.settlement_price == 0]
        return {row.symbol.split(".")[0]: row for row in rows}

    def successor(self, engine: ReferenceEngine, role: str) -> Command:
        number = len(engine.instruments()) + 1
        underlying_id = 0
        if ROLES[role].underlying:
            underlying_id = self.rows[ROLES[role].underlying].instrument_id
        return upsert(definition(role, number, underlying_id, self.now_ns))

    def settled_id(self, engine: ReferenceEngine) -> int:
        """Return an instrument that was settled, if there is one."""
        rows = [row for row in engine.instruments() if row.settlement_price and row.asset_id == 1]
        return self.rng.choice(rows).instrument_id if rows else 1

    def id_of(self, role: str) -> int:
        return self.rows[role].instrument_id

    def role_of(self, instrument_id: int) -> str:
        """Return the role of an instrument, that of the first one if it is settled."""
        roles = [role for role, row in self.rows.items() if row.instrument_id == instrument_id]
        return roles[0] if roles else "PERP"

    def is_abroad(self, account_id: int, instrument_id: int) -> bool:
        """Return whether an instrument is settled in another asset than an account."""
        own = COIN if account_id in IN_COIN else USDT
        return self.assets.get(instrument_id, own) != own

    def some_role(self, account_id: int) -> str:
        is_abroad = self.rng.random() < (0.5 if account_id in ABROAD else 0.01)
        if (account_id in IN_COIN) != is_abroad:
            return self.rng.choice(("INVERSE", "INVERSE", "DATED", "IN-COIN", "COIN-CALL"))
        several = (*("PERP",) * 5, *("OTHER",) * 6, "FUTURE", "FUTURE", "INDEX")
        return self.rng.choice((*several, "CALL", "CALL", "PUT"))

    def some_marks(self, engine: ReferenceEngine) -> Command:
        roles = self.rng.sample(sorted(ROLES), self.rng.choice((1, 3, 11, 11)))
        marks: list[Fields] = []
        for role in roles:
            factor = self.rng.choice((0.85, 0.95, 0.98, 0.99, 1, 1.01, 1.02, 1.06, 1.17))
            moved = max(1, round(self.marks[role] * factor))
            first = ROLES[role].mark
            if not first // 3 <= moved <= 3 * first:
                moved = first
            self.marks[role] = moved
            mark: Fields = {
                "instrument_id": self.id_of(role),
                "mark_price": moved,
                "time_ns": self.now_ns,
            }
            if self.rng.random() < 0.02:
                mark["instrument_id"] = self.rng.choice(engine.instruments()).instrument_id
            marks.append(mark)
        if self.rng.random() < 0.7:
            self.queue.append(call("evaluate_levels", 0, 20, self.now_ns))
        return ("marks", marks, self.now_ns)

    # Orders

    def some_account(self) -> int:
        return self.rng.choice((1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 9, 9, 10, 10, 11, 13, 13, 14, 14))

    def some_price(self, role: str) -> int:
        units = self.rows[role].mark_units_per_tick
        price = self.marks[role] / units * self.rng.choice((0.9, 0.98, 1, 1, 1.02, 1.1))
        return max(1, round(price))

    def open_rows(self, engine: ReferenceEngine, account_id: int) -> list[PositionRow]:
        return [row for row in engine.positions(account_id) or [] if row.lots]

    def order(self, engine: ReferenceEngine) -> Command:
        account_id = self.some_account()
        role = self.some_role(account_id)
        order_type = self.rng.choice((1, 1, 1, 1, 1, 2, 3, 5))
        side = self.rng.choice((1, 1, 1, 2) if role == "PUT" else (1, 2))
        fields: Fields = {
            "account_id": account_id,
            "instrument_id": self.id_of(role),
            "client_order_id": self.fresh_id(),
            "gateway_id": self.rng.choice(GATEWAYS),
            "side": side,
            "order_type": order_type,
            "quantity_lots": self.rng.choice((1, 2, 3, 5, 8, 13, 21, 60)),
            "mode": self.rng.choice((0, 1, 1, 1, 2)),
            "view": self.rng.choice((0, 2, 3)),
        }
        if order_type == 1:
            fields["price_ticks"] = self.some_price(role)
        if order_type in (3, 5):
            fields["trigger_price_ticks"] = self.some_price(role)
        if self.rng.random() < 0.1:
            fields |= {"time_in_force": 4, "expire_time_ns": self.now_ns + 2 * BILLION}
        if account_id in HEDGED:
            fields["position_side"] = self.rng.choice((2, 3))
        rows = self.open_rows(engine, account_id)
        if rows and self.rng.random() < 0.25:
            row = self.rng.choice(rows)
            fields["instrument_id"] = row.instrument_id
            fields["side"] = 1 if row.lots < 0 else 2
            fields["position_side"] = row.position_side
            fields["quantity_lots"] = min(COUNT_MAX, max(1, abs(row.lots) // 2))
            fields["flags"] = self.rng.choice((0, 1))
        # Greeks in remembered answers would keep their hash from being compared.
        fields["view"] = min(2, fields["view"]) if fields["mode"] != 2 else 3
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
            "view": 2,
        }
        if order.price_ticks and self.rng.random() < 0.6:
            fields["price_ticks"] = self.some_price(self.role_of(order.instrument_id))
        return ("amend", fields, (order.gateway_id, order.client_order_id), self.now_ns)

    def batch(self, engine: ReferenceEngine) -> Command:
        orders: list[Fields] = []
        for _ in range(self.rng.choice((2, 2, 3))):
            _, fields, _ = self.order(engine)
            orders.append(fields | {"mode": self.rng.choice((1, 1, 1, 2)), "view": 1})
        for fields in orders:
            fields["mode"] = orders[0]["mode"]
        return ("batch", self.rng.choice((1, 2, 2)), orders, self.now_ns)

    def execution(self, engine: ReferenceEngine) -> Command:
        working = list(engine.working_orders())
        if not working:
            return self.order(engine)
        order = self.rng.choice(working)
        key = (order.gateway_id, order.client_order_id)
        role = self.role_of(order.instrument_id)
        fields: Fields = {
            "gateway_id": order.gateway_id,
            "execution_id": self.fresh_id(),
            "kind": self.rng.choice((1, 1, 1, 1, 2)),
        }
        if fields["kind"] == 1:
            fields["price_ticks"] = order.price_ticks or self.some_price(role)
            fields["quantity_lots"] = max(1, order.remaining)
            if self.rng.random() < 0.4:
                fields["quantity_lots"] = self.rng.randint(1, max(1, order.remaining))
            fields["fee_minor"] = self.rng.choice((0, 0, 15, -3, 700))
            fields["fee_asset_id"] = self.rng.choice((0, 0, 0, 0, 0, COIN, COIN, USDT, ALT))
        self.fills.append((order.gateway_id, fields["execution_id"], key, role))
        return ("execute", fields, key, self.now_ns)

    def undoing(self, engine: ReferenceEngine) -> Command:
        """A bust or a correction of a fill, or a late fill; also of what was settled."""
        if not self.fills:
            return self.execution(engine)
        gateway_id, original_id, key, role = self.rng.choice(self.fills[-30:])
        fields: Fields = {
            "gateway_id": gateway_id,
            "execution_id": self.fresh_id(),
            "kind": self.rng.choice((1, 1, 5, 6)),
            "fee_minor": self.rng.choice((0, -15)),
        }
        if fields["kind"] != 1:
            fields["original_execution_id"] = original_id
        if fields["kind"] != 5:
            fields["price_ticks"] = self.some_price(role)
            fields["quantity_lots"] = self.rng.choice((1, 2))
        return ("execute", fields, key, self.now_ns)

    def cancel(self, engine: ReferenceEngine) -> Command:
        working = list(engine.working_orders())
        fields = {
            "gateway_id": 0,
            "account_id": self.some_account(),
            "instrument_id": self.rng.choice((0, self.id_of("OTHER"))),
            "side": 0,
            "accepted_before_ns": 0,
            "validate_only": False,
        }
        if working and self.rng.random() < 0.5:
            fields["account_id"] = self.rng.choice(working).account_id
        return ("cancel", fields, [], self.now_ns)

    def time(self, _: ReferenceEngine) -> Command:
        return ("time", self.now_ns)

    # Positions without orders

    def is_trial(self) -> bool:
        return self.rng.random() < 0.15

    def load(self, engine: ReferenceEngine) -> Command:
        account_id = self.some_account()
        role = self.some_role(account_id)
        lots = self.rng.choice((1, -1)) * self.rng.choice((1, 3, 10, 40, 200))
        if self.rng.random() < 0.08:
            account_id, role = RICH, self.rng.choice(("WIDE", "WIDE", "IN-COIN"))
            lots = self.rng.choice((1, -1)) * self.rng.choice((7, 2**40, 2**52, COUNT_MAX))
        if role == "PUT" and self.rng.random() < 0.8:
            lots = abs(lots)
        at_mark = ROLES[role].value(lots, self.marks[role])
        entry = round(at_mark * self.rng.choice((0.9, 1, 1, 1.05)))
        entry = min(2**62, max(1, entry))
        wallet = 0
        account = engine.account(account_id)
        assert account is not None
        if account.margin_mode == t.MARGIN_MODE_ISOLATED and not ROLES[role].is_option:
            wallet = at_mark // self.rng.choice((5, 20, 100))
        fields: Fields = {
            "account_id": account_id,
            "instrument_id": self.id_of(role),
            "position_side": 0,
            "lots": lots,
            "entry_value": entry,
            "wallet": min(2**62, wallet),
        }
        if account.position_mode == t.POSITION_MODE_HEDGE:
            fields["position_side"] = 2 if lots > 0 else 3
        if self.rng.random() < 0.15:
            fields |= self.rng.choice(
                (
                    {"account_id": 99},
                    {"instrument_id": 999},
                    {"instrument_id": self.rng.choice(engine.instruments()).instrument_id},
                    {"instrument_id": self.settled_id(engine)},
                    {"position_side": self.rng.choice((1, 2, 3, 4))},
                    {"lots": self.rng.choice((0, COUNT_MAX + 1, -COUNT_MAX - 1))},
                    {"entry_value": self.rng.choice((0, -1, 2**62 + 1, 2**62))},
                    {"wallet": self.rng.choice((-1, 1, 2**62 + 1))},
                )
            )
        return call(
            "load_position", *fields.values(), validate_only=self.is_trial(), now_ns=self.now_ns
        )

    def stranded(self, engine: ReferenceEngine) -> Command:
        """Load and move money where its balance may need a row that is not there."""
        poor = [account_id for account_id in (11, 13, 14) if not engine.balances(account_id)]
        if not poor:
            return self.order(engine)
        account_id = self.rng.choice(poor)
        account = engine.account(account_id)
        assert account is not None
        role = self.rng.choice(("INVERSE", "DATED", "IN-COIN"))
        instrument_id, trial = self.id_of(role), (self.is_trial(), self.now_ns)
        entry = ROLES[role].value(9, self.marks[role])
        is_isolated = account.margin_mode == t.MARGIN_MODE_ISOLATED
        position_side = 2 if account.position_mode == t.POSITION_MODE_HEDGE else 0
        loaded = (account_id, instrument_id, position_side, 9, entry, is_isolated * entry)
        self.queue += [
            ("adjust_collateral", account_id, USDT, 10**6, False, self.now_ns),
            ("transfer_margin", account_id, instrument_id, -1, *trial, position_side),
            ("change_margin_mode", account_id, instrument_id, 2 - is_isolated, *trial),
            call("apply_funding", instrument_id, 1_000, 0, self.now_ns, now_ns=self.now_ns),
            ("set_trading_state", INSTRUMENT_SCOPE, instrument_id, 3),
            call("settle_instrument", instrument_id, 100, validate_only=True, now_ns=self.now_ns),
            ("set_trading_state", INSTRUMENT_SCOPE, instrument_id, 1),
        ]
        return call("load_position", *loaded, now_ns=self.now_ns)

    def thin(self, engine: ReferenceEngine) -> Command:
        """Load so much at the highest leverage that, isolated, it could be liquidated at once."""
        role = self.rng.choice(("OTHER", "INVERSE"))
        instrument_id, asset_id = self.id_of(role), ROLES[role].asset_id
        flat = [
            account_id
            for account_id in (8, 10, 14)
            if all(row.instrument_id != instrument_id for row in engine.positions(account_id) or [])
        ]
        account_id = self.rng.choice(flat or [8])
        lots = 200 if role == "OTHER" else 500
        entry = ROLES[role].value(lots, self.marks[role])
        self.queue += [
            ("adjust_collateral", account_id, asset_id, entry // 50, False, self.now_ns),
            call("load_position", account_id, instrument_id, 0, lots, entry, 0, now_ns=self.now_ns),
            ("change_margin_mode", account_id, instrument_id, 2, False, self.now_ns),
        ]
        return ("set_leverage", account_id, instrument_id, 9_900, False, self.now_ns)

    def funding(self, engine: ReferenceEngine) -> Command:
        role = self.rng.choice(CONTRACTS)
        rate = self.rng.choice((100_000, -100_000, 1_234_567, -50_000_000, 400_000_000, 0))
        fields: Fields = {
            "instrument_id": self.id_of(role),
            "rate_ppb": rate,
            "price": self.rng.choice((0, 0, self.marks[role], self.marks[role] + 1)),
            "time_ns": self.now_ns + self.rng.choice((0, 0, -5, 10**8)),
        }
        if role == "WIDE":
            fields["rate_ppb"] = self.rng.choice((1, BILLION, -BILLION))
        unmarked = [each for each in CONTRACTS if engine.mark(self.id_of(each)) is None]
        if unmarked and self.rng.random() < 0.3:
            fields |= {"instrument_id": self.id_of(unmarked[0]), "price": 0}
        if self.rng.random() < 0.15:
            fields |= self.rng.choice(
                (
                    {"instrument_id": 999},
                    {"instrument_id": self.id_of("CALL")},
                    {"instrument_id": self.settled_id(engine)},
                    {"instrument_id": self.settled_id(engine)},
                    {"rate_ppb": self.rng.choice((BILLION + 1, -BILLION - 1))},
                    {"price": self.rng.choice((-1, COUNT_MAX, COUNT_MAX + 1))},
                    {"time_ns": self.rng.choice((0, 1, self.now_ns + 2 * BILLION))},
                )
            )
        return call(
            "apply_funding", *fields.values(), validate_only=self.is_trial(), now_ns=self.now_ns
        )

    def settlement(self, engine: ReferenceEngine) -> Command:
        """Settle something that is halted before, or not."""
        command = self.settle(engine, self.rng.choice(sorted(ROLES)))
        if self.rng.random() < 0.4:
            return command
        instrument_id = command[1]
        self.queue.append(command)
        self.not_normal.append((INSTRUMENT_SCOPE, instrument_id))
        return ("set_trading_state", INSTRUMENT_SCOPE, instrument_id, 3)

    def settle(self, engine: ReferenceEngine, role: str) -> Command:
        row = self.rows[role]
        price = max(1, round(self.marks[role] * self.rng.choice((0.5, 0.97, 1, 1.06))))
        if ROLES[role].is_option:
            price = max(1, round(row.strike_units * self.rng.choice((0.7, 0.98, 1, 1.1))))
        if self.rng.random() < 0.1:
            price = self.rng.choice((0, -1, 1, COUNT_MAX, COUNT_MAX + 1))
        instrument_id = row.instrument_id
        if self.rng.random() < 0.1:
            instrument_id = self.rng.choice((999, self.settled_id(engine)))
        return call(
            "settle_instrument",
            *(instrument_id, price),
            validate_only=self.rng.random() < 0.3,
            now_ns=self.now_ns,
        )

    def mode(self, engine: ReferenceEngine) -> Command:
        account_id = self.some_account()
        instrument_id = self.id_of(self.some_role(account_id))
        rows = engine.positions(account_id) or []
        if rows and self.rng.random() < 0.9:
            row = self.rng.choice(self.open_rows(engine, account_id) or rows)
            instrument_id = row.instrument_id
        mode = self.rng.choice((1, 2))
        if self.rng.random() < 0.05:
            account_id, instrument_id, mode = self.rng.choice(
                ((99, 1, 1), (1, 999, 1), (1, 1, 0), (2, 1, 3))
            )
        return (
            *("change_margin_mode", account_id, instrument_id, mode),
            *(self.is_trial(), self.now_ns),
        )

    def leverage(self, engine: ReferenceEngine) -> Command:
        account_id = self.some_account()
        value = self.rng.choice((*LEVERAGES, 9_900, 9_900))
        instrument_id = self.id_of(self.some_role(account_id))
        return ("set_leverage", account_id, instrument_id, value, self.is_trial(), self.now_ns)

    def transfer(self, engine: ReferenceEngine) -> Command:
        isolated = [
            (account_id, row)
            for account_id in ACCOUNTS
            for row in self.open_rows(engine, account_id)
            if row.isolated_wallet
        ]
        if not isolated:
            return self.order(engine)
        account_id, row = self.rng.choice(isolated)
        amount = self.rng.choice((1, 500, 20_000, -1, -500, -20_000, -row.isolated_wallet))
        arguments = (account_id, row.instrument_id, amount, self.is_trial(), self.now_ns)
        return ("transfer_margin", *arguments, row.position_side)

    def position_mode(self, _: ReferenceEngine) -> Command:
        return ("set_position_mode", self.rng.choice(ACCOUNTS[:-1]), self.rng.choice((1, 2)))

    # Levels

    def levels(self, _: ReferenceEngine) -> Command:
        levels = self.rng.choice(
            (
                *((2_000_000, 5_000_000), (1_100_000, 3_000_000), (3_000_000, 10_000_000)),
                *((2_000_000, 5_000_000), (4_000_000, 4_000_001)),
                *((0, 0), (0, 0), (0, 1_500_000), (1_000_000, 1_500_000), (1_500_000, 1_500_000)),
                *((1_500_000, 10_000_001), (-1, 0), (2**40, 2**41)),
            )
        )
        return call("set_margin_levels", *levels, now_ns=self.now_ns)

    def evaluation(self, engine: ReferenceEngine) -> Command:
        count = self.rng.choice((1, 2, 5, 20))
        first = self.place
        if self.rng.random() < 0.05:
            first = self.rng.choice((0, 11, 12, 13, 500))
        self.place = first + count if first + count < len(ACCOUNTS) else 0
        return call("evaluate_levels", first, count, self.now_ns)

    def events(self, engine: ReferenceEngine) -> Command:
        """Ask what changed, or what all of it comes to."""
        if self.rng.random() < 0.3:
            values = call("collateral_values", self.rng.choice((self.some_account(), 99)))
            return self.rng.choice((values, values, call("collateral"), call("margin_levels")))
        after = self.rng.choice((0, 0, self.rng.randint(0, engine.revision)))
        account_id = self.rng.choice((0, 0, 1, 2, 99))
        return call("risk_events", after, account_id, self.rng.choice((0, 1, 1000, 1000)))

    # Collateral and credit

    def collateral(self, engine: ReferenceEngine) -> Command:
        tiers = self.rng.choice(
            (
                [(0, BILLION)],
                [(0, 950_000_000), (2_000, 800_000_000), (50_000, 333_333_333)],
                [(0, 0)],
            )
        )
        interest_free = self.rng.choice((0, 0, 20))
        fields: Fields = {
            "asset_id": self.rng.choice((COIN, COIN, ALT)),
            "settlement_asset_id": USDT,
            "index_instrument_id": self.id_of(self.rng.choice(("INDEX", "INDEX", "FUTURE"))),
            "tiers": tiers,
            "cap": self.rng.choice((0, 0, 1_000, 30_000)),
            "liability_ppb": self.rng.choice((BILLION, 1_050_000_001, 10 * BILLION)),
            "interest_free": interest_free,
            "forced_conversion": interest_free + self.rng.choice((0, 500)),
            "wrong_way_ppb": self.rng.choice((0, 333_333_333, BILLION, BILLION)),
        }
        if self.rng.random() < 0.2:
            fields |= {"asset_id": USDT, "settlement_asset_id": COIN}
            fields["index_instrument_id"] = self.id_of(self.rng.choice(("IN-COIN", "INVERSE")))
        if self.rng.random() < 0.3:
            fields |= self.rng.choice(
                (
                    {"asset_id": self.rng.choice((0, USDT, 9))},
                    {"settlement_asset_id": self.rng.choice((COIN, 9))},
                    {"index_instrument_id": self.rng.choice((0, 999, self.id_of("CALL")))},
                    {"tiers": [(k, 9 - k) for k in range(9)]},
                    {"tiers": self.rng.choice(([], [(1, 1)], [(0, 1), (0, 1)], [(0, 1), (5, 2)]))},
                    {"tiers": self.rng.choice(([(0, -1)], [(0, BILLION + 1)]))},
                    {"cap": self.rng.choice((-1, 2**62 + 1))},
                    {"liability_ppb": self.rng.choice((BILLION - 1, 10 * BILLION + 1))},
                    {"interest_free": -1},
                    {"interest_free": fields["forced_conversion"] + 1},
                    {"wrong_way_ppb": self.rng.choice((-1, BILLION + 1))},
                )
            )
        for account_id in (4, 8, 14):  # Little of COIN beside what is open.
            held = [row.amount for row in engine.balances(account_id) or [] if row.asset_id == COIN]
            amount = self.rng.choice((50, 1_000)) - sum(held)
            self.queue += [
                ("adjust_collateral", account_id, COIN, amount, False, self.now_ns),
                call("collateral_values", account_id),
            ]
        return call(
            "define_collateral",
            *fields.values(),
            validate_only=self.is_trial(),
            now_ns=self.now_ns,
        )

    def adjustment(self, engine: ReferenceEngine) -> Command:
        account_id = self.some_account()
        asset_id = self.rng.choice((USDT, COIN, COIN, COIN, ALT))
        amounts = (1, 301, 5_000, 80_000, -1, -301, -5_000, -80_000)
        if asset_id == COIN:
            amounts = (1, 31, 700, 9_000, -1, -31, -700, -9_000)
        amount = self.rng.choice(amounts)
        if self.rng.random() < 0.05:
            account_id, amount = RICH, self.rng.choice((2**62, -(2**62)))
        summary = engine.summary(account_id)
        if summary is not None and summary.cross_liquidation_requirement and amount % 2:
            # To somewhere between the levels.
            needed = summary.cross_liquidation_requirement * self.rng.choice((2, 3, 6)) // 2
            equity = summary.cash + summary.cross_pnl + summary.collateral_value + summary.credit
            asset_id, amount = summary.asset_id, needed - equity
        owed = [row for row in engine.balances(account_id) or [] if row.amount < 0]
        if owed and self.rng.random() < 0.5:
            asset_id, amount = owed[0].asset_id, -owed[0].amount
        if self.rng.random() < 0.02:
            account_id = self.rng.choice((account_id, 99))
            amount = self.rng.choice((0, 2**63 - 1, -(2**63)))
        return ("adjust_collateral", account_id, asset_id, amount, self.is_trial(), self.now_ns)

    def credit(self, _: ReferenceEngine) -> Command:
        scope, scope_id = self.rng.choice(
            (
                *((ACCOUNT_SCOPE, each) for each in (1, 2, 2, 3, 4, 7, 8, 9)),
                *((FIRM_SCOPE, 1), (FIRM_SCOPE, 1), (FIRM_SCOPE, 2)),
                *((ACCOUNT_SCOPE, 99), (FIRM_SCOPE, 9), (INSTRUMENT_SCOPE, 1), (0, 1)),
            )
        )
        amounts = (0, 0, 0, 1_000, 1_000, 50_000, 400_000, 2**62, -1, 2**62 + 1)
        amount = self.rng.choice(amounts)
        return call(
            "set_credit_line",
            *(scope, scope_id, amount),
            validate_only=self.is_trial(),
            now_ns=self.now_ns,
        )

    def owner(self, _: ReferenceEngine) -> Command:
        owner = self.rng.choice(
            (
                *((2, 1, 1), (2, 0, 0), (4, 1, 0), (4, 2, 0), (8, 0, 13), (8, 2, 0)),
                *((11, 2, 0), (11, 0, 0), (9, 1, 0)),
            )
        )
        return ("set_account_owner", *owner, self.now_ns)

    def trading_state(self, _: ReferenceEngine) -> Command:
        scope, scope_id = self.rng.choice(
            ((ACCOUNT_SCOPE, self.some_account()), (INSTRUMENT_SCOPE, self.id_of("PERP")))
        )
        self.not_normal.append((scope, scope_id))
        return ("set_trading_state", scope, scope_id, self.rng.choice((2, 3)))

    # What counts money that moves

    def limit(self, _: ReferenceEngine) -> Command:
        scope, scope_id = self.rng.choice(
            (
                *((ACCOUNT_SCOPE, 1), (ACCOUNT_SCOPE, 2), (ACCOUNT_SCOPE, 7), (FIRM_SCOPE, 1)),
                (ACCOUNT_SCOPE, 14),
            )
        )
        kind = self.rng.choice((t.LIMIT_KIND_DAILY_LOSS_MAX, t.LIMIT_KIND_DRAWDOWN_MAX))
        value = self.rng.choice((2_000, 100_000, 10**7))
        return ("set_limit", scope, scope_id, 0, kind, value, 0, 2, self.now_ns)

    def schedule(self, _: ReferenceEngine) -> Command:
        """Requirements that jump, or that do not move with the mark."""
        changed: Fields = self.rng.choice(
            ({}, {}, {"family": WHOLE}, {"maintenance_basis": BASIS_ENTRY})
        )
        if self.rng.random() < 0.5:
            return ("upsert_schedule", "coins", COIN, COIN_TIERS, 0, 10_000, changed)
        return ("upsert_schedule", "steep", USDT, STEEP_TIERS, 0, 50_000, changed)

    def capacities(self, _: ReferenceEngine) -> Command:
        name = self.rng.choice(("accounts_max", "positions_max", "balances_max", "holdings_max"))
        return ("set_capacities", {name: self.settings[name] + self.rng.choice((0, 1, 9))})
