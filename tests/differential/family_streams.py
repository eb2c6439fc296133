"""Seeded streams of orders on every kind of instrument and every family of schedules.

The commands, and much of what is random in them, are those of streams.py. A linear market in USDT
and an inverse one in COIN, each with options that may be short; schedules and rules change their
family, basis and parameters as the stream goes on. In every fourth stream marks, quantities and
parameters go up to their maxima, so that figures do not fit.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from riskd.reference import ReferenceEngine
from riskd.reference.margin import value_at
from tests.differential.streams import (
    BILLION,
    COUNT_MAX,
    START_NS,
    Command,
    Definition,
    Fields,
    Stream,
    perpetual,
    upsert,
)

SETTINGS = {
    "accounts_max": 20,
    "positions_max": 300,
    "orders_max": 400,
    "instruments_max": 20,
    "schedules_max": 16,
    "gateways_max": 5,
    "balances_max": 30,
    "answer_bytes": 1 << 18,
}
USDT, COIN = 1, 2
ASSETS = (USDT, COIN)
TIERED, WHOLE, BY_LOTS, SIZE_LINEAR, PER_CONTRACT, OPEN_INTEREST, ROOT, POWER, RISK = range(1, 10)
FAMILIES = tuple(range(1, 10))
SCHEDULES_OF_ASSET = 4
RULES = {USDT: 9, COIN: 10}  # their ids: schedules 1 to 8 come before them

LINEAR, QUANTO, FUTURE, INVERSE, DATED, COARSE = 1, 2, 3, 4, 5, 6
CALL, PUT, BARE, COIN_CALL, COIN_PUT, UNMARKED, BARE_COIN = 7, 8, 9, 10, 11, 12, 13
SPOT, SMALL_SPOT, COIN_SPOT = 14, 15, 16
APART, APART_COIN = 17, 18
IN_USDT = (LINEAR, LINEAR, QUANTO, FUTURE, APART, CALL, CALL, PUT, PUT, BARE, SPOT, SMALL_SPOT)
IN_COIN = (
    *(INVERSE, INVERSE, DATED, COARSE, APART_COIN),
    *(COIN_CALL, COIN_CALL, COIN_PUT, COIN_PUT, BARE_COIN, COIN_SPOT),
)
SPOTS = (SPOT, SMALL_SPOT, COIN_SPOT)
ISOLATED_ONLY = (APART, APART_COIN)
CONTRACTS = (LINEAR, QUANTO, FUTURE, INVERSE, DATED, COARSE, UNMARKED, *ISOLATED_ONLY)
OPTIONS = (CALL, PUT, BARE, COIN_CALL, COIN_PUT, BARE_COIN)
EXPIRY_NS = START_NS + 3000 * BILLION
LATER_NS = START_NS + 90 * 86_400 * BILLION


def option(symbol: str, steps: tuple[int, ...], strike: int, **rest: Any) -> Definition:
    terms = {"kind": 2, "strike_units": strike, "expiry_ns": LATER_NS, "option_type": 1}
    return perpetual(symbol, 0, steps, **(terms | rest))


COSTS = {"taker_fee_ppb": 500_000, "market_buffer_ppb": 5_000_000}
DEFINITIONS: list[Definition] = [
    # One lot at one tick is 1, 10 and 1 hundredth of a cent.
    perpetual("LINEAR", 1, (1, -1, 1, -3, 10), **COSTS, mark_age_max_ns=600 * BILLION),
    perpetual(
        "QUANTO",
        2,
        (5, -1, 1, 0, 2),
        kind=8,
        multiplier_mantissa=2,
        multiplier_exponent=-3,
        market_buffer_ppb=10_000_000,
    ),
    perpetual("FUTURE", 3, (1, -2, 1, -2, 1), kind=4, expiry_ns=EXPIRY_NS, taker_fee_ppb=400_001),
    # One lot at one tick is 2 * 10^10, 10^9 and 8.4 * 10^10 of 10^-8 coin.
    perpetual("INVERSE", 5, (5, -1, 100, 0, 2), kind=3, asset_id=COIN, **COSTS),
    perpetual(
        "DATED",
        6,
        (1, 0, 10, 0, 10),
        kind=5,
        asset_id=COIN,
        expiry_ns=EXPIRY_NS,
        price_collar_ppb=200_000_000,
        market_buffer_ppb=999_999_999,
    ),
    perpetual(
        "COARSE",
        7,
        (25, -3, 7, 0, 100),
        kind=3,
        asset_id=COIN,
        multiplier_mantissa=3,
        taker_fee_ppb=999_999,
        order_notional_min=10**6,
    ),
    option(
        "CALL",
        (1, -1, 1, -2, 10),
        6_600_000,
        underlying_id=LINEAR,
        option_rule_id=RULES[USDT],
        **COSTS,
    ),
    option(
        "PUT",
        (5, -2, 1, -2, 5),
        6_400_000,
        option_type=2,
        underlying_id=LINEAR,
        option_rule_id=RULES[USDT],
        mark_age_max_ns=600 * BILLION,
    ),
    option("BARE", (1, -1, 1, -2, 10), 6_600_000, taker_fee_ppb=300_000),
    option(
        "COIN-CALL",
        (5, -4, 1, -1, 10),
        264_000,
        kind=6,
        asset_id=COIN,
        underlying_id=INVERSE,
        option_rule_id=RULES[COIN],
        **COSTS,
    ),
    option(
        "COIN-PUT",
        (1, -4, 1, 0, 3),
        650_000,
        kind=6,
        option_type=2,
        asset_id=COIN,
        underlying_id=DATED,
        option_rule_id=RULES[COIN],
    ),
    perpetual("UNMARKED", 4, (1, -1, 1, -3, 1), taker_fee_ppb=100_000),
    option("BARE-COIN", (5, -4, 1, -1, 1), 264_000, kind=6, asset_id=COIN, underlying_id=INVERSE),
    perpetual("SPOT", 0, (5, -1, 1, -2, 2), kind=7, base_asset_id=COIN, **COSTS),
    perpetual("SMALL-SPOT", 0, (1, 0, 3, -3, 1), kind=7, base_asset_id=COIN, order_lots_min=2),
    perpetual("COIN-SPOT", 0, (1, -7, 10, 0, 10), kind=7, asset_id=COIN, base_asset_id=USDT),
    perpetual("APART", 1, (2, 0, 1, -3, 5), isolated_only=1, **COSTS),
    perpetual("APART-COIN", 5, (1, 0, 100, 0, 7), kind=3, asset_id=COIN, isolated_only=1),
]
MARKS = {
    LINEAR: 6_500_000,
    QUANTO: 14_000,
    FUTURE: 350_000,
    INVERSE: 260_000,
    DATED: 650_000,
    COARSE: 3_600,
    CALL: 200_000,
    PUT: 150_000,
    BARE: 180_000,
    COIN_CALL: 400,
    COIN_PUT: 700,
    BARE_COIN: 40,
    SPOT: 260_000,
    SMALL_SPOT: 65_000,
    COIN_SPOT: 1_540,
    APART: 160_000,
    APART_COIN: 450_000,
}
ACCOUNTS = range(1, 15)
OF_COIN = range(8, 15)
HEDGED = (4, 5, 10, 12)


class FamilyStream(Stream):
    """A stream of streams.py in the market above."""

    definitions = DEFINITIONS
    first_marks = MARKS
    options = OPTIONS

    def __init__(self, seed: int) -> None:
        self.is_extreme = seed % 4 == 3
        super().__init__(seed)
        self.settings = SETTINGS
        self.queue = self.market()
        self.queue += [self.marks_command([each]) for each in self.marks]

    def market(self) -> list[Command]:
        """Return the commands that define all that the stream trades."""
        commands: list[Command] = [("create_asset", "USDT", 4), ("create_asset", "COIN", 8)]
        for asset_id in ASSETS:
            for number in range(SCHEDULES_OF_ASSET):
                name = f"s{asset_id}-{number}"
                commands.append(self.schedule_of(name, asset_id, self.rng.choice(FAMILIES)))
        commands += [self.rule_of(asset_id) for asset_id in ASSETS]
        commands += [upsert(definition) for definition in DEFINITIONS]
        for account_id in ACCOUNTS:
            asset_id = COIN if account_id in OF_COIN else USDT
            leverage = self.rng.choice((100, 500, 1000, 2000, 10_000))
            cash = int(10 ** self.rng.uniform(8, 12))
            if self.is_extreme and self.rng.random() < 0.5:
                cash = 2**62
            arguments = (account_id, asset_id, 1 + account_id % 2, leverage, cash)
            commands.append(("create_account", *arguments))
            other_id, coins = (USDT, 10**8) if asset_id == COIN else (COIN, 10**8)
            if self.rng.random() < 0.7:
                deposit = (account_id, other_id, self.rng.randrange(1, 50) * coins)
                commands.append(("adjust_collateral", *deposit, False, self.now_ns))
        commands += [("set_position_mode", account_id, 2) for account_id in HEDGED]
        return commands

    def next(self, engine: ReferenceEngine) -> Command:
        if self.queue:
            return self.queue.pop(0)
        self.pass_time()
        if self.not_normal and self.rng.random() < 0.15:
            return ("set_trading_state", *self.not_normal.pop(), 1)
        choices: list[tuple[float, Callable[[ReferenceEngine], Command]]] = [
            (36, self.order),
            (4, self.edge_order),
            (3, self.batch),
            (10, self.amendment),
            (24, self.execution),
            (3, self.late_execution),
            (3, self.undoing),
            (12, self.some_marks),
            (5, self.schedule),
            (2, self.rule),
            (2, self.open_interest),
            (1, self.instrument),
            (2, self.collateral),
            (3, self.transfer),
            (2, self.mode),
            (3, self.leverage),
            (1, self.halt),
            (0.7, self.cancel),
            (0.7, self.time),
            (0.7, self.position_mode),
            (1, self.load_sides),
            (8, self.query),
        ]
        weights = [weight for weight, _ in choices]
        return self.rng.choices([each for _, each in choices], weights)[0](engine)

    # The market

    def some_account(self) -> int:
        if self.rng.random() < 0.6:
            return self.rng.choice((1, 2, 4, 5, 8, 9, 10, 12))
        return self.rng.choice(ACCOUNTS)

    def some_instrument(self, account_id: int) -> int:
        if self.rng.random() < 0.02:
            return UNMARKED
        return self.rng.choice(IN_COIN if account_id in OF_COIN else IN_USDT)

    def some_quantity(self, instrument_id: int, held: int) -> int:
        draw = self.rng.random()
        if held and draw < 0.35:
            return max(1, round(held * self.rng.choice((0.1, 0.5, 1, 1, 1.1, 2))))
        if draw < (0.8 if self.is_extreme else 0.99):
            largest = 2.5 if instrument_id in (*OPTIONS, *SPOTS, QUANTO, DATED) else 3.5
            return int(10 ** self.rng.uniform(0, largest))
        return self.rng.choice((2**20, 2**33, 2**45, COUNT_MAX - 1, COUNT_MAX))

    def order_fields(self, engine: ReferenceEngine) -> Fields:
        fields = super().order_fields(engine)
        # Half of the new positions in options are sold.
        if fields["instrument_id"] in OPTIONS and self.rng.random() < 0.5:
            fields["side"] = self.rng.choice((1, 2))
            if fields["position_side"] > 1 and not fields["flags"] & 5:
                fields["position_side"] = 1 + fields["side"]
        if fields["instrument_id"] in SPOTS and self.rng.random() < 0.9:
            fields["position_side"] = self.rng.choice((0, 1))
        if self.rng.random() < 0.4:
            self.open_other_side(engine, fields)
        return fields

    def open_other_side(self, engine: ReferenceEngine, fields: Fields) -> None:
        """Make it, in hedge mode, an order that brings a side near to what the other one has."""
        held = [
            row
            for row in engine.positions(fields["account_id"]) or []
            if row.lots and row.position_side > 1 and row.instrument_id in CONTRACTS
        ]
        if not held:
            return
        row = self.rng.choice(held)
        both = sum(abs(each.lots) for each in held if each.instrument_id == row.instrument_id)
        wanted = round(abs(row.lots) * self.rng.choice((0.2, 0.9, 1, 1, 1, 1.01, 1.1)))
        wanted += self.rng.choice((-1, 0, 1)) + abs(row.lots) - both
        fields |= {
            "instrument_id": row.instrument_id,
            "side": 2 if row.lots > 0 else 1,
            "position_side": 3 if row.lots > 0 else 2,
            "quantity_lots": min(COUNT_MAX, max(1, wanted)),
            "flags": 0,
            **self.some_prices(row.instrument_id, fields["order_type"]),
        }

    def load_sides(self, engine: ReferenceEngine) -> Command:
        """Load both sides of a contract of an account in hedge mode, as large but for a lot."""
        account_id = self.rng.choice(HEDGED)
        account = engine.account(account_id)
        assert account is not None
        in_asset = IN_COIN if account_id in OF_COIN else IN_USDT
        held = {row.instrument_id for row in engine.positions(account_id) or []}
        free = [each for each in CONTRACTS if each in in_asset and each not in held]
        instrument_id = self.rng.choice(free or CONTRACTS)
        instrument = engine.instruments()[instrument_id - 1]
        scale = engine.assets()[instrument.asset_id - 1].scale
        mark = self.marks.get(instrument_id, 1)
        one_lot = value_at(instrument, scale, 1, mark)
        lots = max(1, int(max(1, account.cash) * self.rng.uniform(0.5, 10) / one_lot))
        loads: list[Command] = []
        for position_side, size in ((2, lots), (3, -lots + self.rng.choice((-1, 0, 0, 1)))):
            entry_value = int(abs(size) * one_lot * Fraction(self.rng.uniform(0.97, 1.03)))
            loads.append(
                ("load_position", account_id, instrument_id, position_side, size, entry_value, 0)
            )
        self.queue += [loads[1], ("positions", account_id)]
        return loads[0]

    def marks_command(self, instrument_ids: list[int]) -> Command:
        marks = []
        for instrument_id in instrument_ids:
            price = self.marks[instrument_id]
            if self.is_extreme and self.rng.random() < 0.1:
                price = self.rng.choice((1, 2, 2**31, 2**45, COUNT_MAX))
            mark = {"instrument_id": instrument_id, "mark_price": price, "time_ns": self.now_ns}
            if instrument_id in OPTIONS:
                mark["implied_volatility_ppb"] = self.rng.choice((0, 600_000_000))
                mark["forward_price"] = self.some_forward(instrument_id)
            marks.append(mark)
        return ("marks", marks, self.now_ns)

    def some_forward(self, instrument_id: int) -> int:
        if self.rng.random() < 0.5:
            return 0
        return int(self.definitions[instrument_id - 1]["strike_units"]) * 51 // 50

    # Schedules and rules

    def schedule(self, _: ReferenceEngine) -> Command:
        asset_id = self.rng.choice(ASSETS)
        name = f"s{asset_id}-{self.rng.randrange(SCHEDULES_OF_ASSET)}"
        _, *arguments = self.schedule_of(name, asset_id, self.rng.choice(FAMILIES))
        if self.rng.random() < 0.25:
            self.spoil(arguments)
        return ("upsert_schedule", *arguments)

    def schedule_of(self, name: str, asset_id: int, family: int) -> Command:
        """Return a schedule that mostly is valid."""
        rng = self.rng
        fee = rng.choice((0, 0, 5_000_000))
        basis = rng.choice((1, 1, 2))
        notional_max = rng.choice((0, 0, 10**12))
        tiers = self.some_tiers(family)
        if family <= BY_LOTS and rng.random() < 0.3:
            fee, basis = 0, 2
        a = b = c = 0
        closing_fee = rng.choice((0, 0, 1))
        if family <= BY_LOTS and (basis, fee) == (2, 0):
            closing_fee = rng.choice((0, 2, 3))
        if family == BY_LOTS and rng.random() < 0.5:
            a = tiers[-1][0] + int(10 ** rng.uniform(0, 4))
        if family == SIZE_LINEAR:
            a = int(10 ** rng.uniform(8, 12))
            b = int(a * rng.random())
        elif family == PER_CONTRACT:
            tiers = [(0, 0, 0, tiers[0][3])]
            a = int(10 ** rng.uniform(2, 5))
            b = int(a * rng.random())
        elif family == OPEN_INTEREST and rng.random() < 0.9:
            a = int(10 ** rng.uniform(8, 10))
            b = a + int(10 ** rng.uniform(8, 11))
        elif family == ROOT:
            a = int(10 ** rng.uniform(6, 8))
            c = int(10 ** rng.uniform(6, 10))
        elif family == POWER:
            a = int(10 ** rng.uniform(11, 15))
            b = rng.choice((BILLION, BILLION * 4 // 5, BILLION // 2, rng.randrange(1, BILLION)))
        elif family == RISK:
            ((_, _, rate, leverage_max),) = tiers
            a = max(1, int(rate * rng.uniform(0.3, 2)))
            b = int(10 ** rng.uniform(8, 12))
            c = int(BILLION * rng.uniform(1.1, 2))
            fee = 0
            tiers = [(0, min(BILLION, -(-rate * c // BILLION)), rate, leverage_max)]
        parameters = (a, b, c, closing_fee)
        return (
            *("upsert_schedule", name, asset_id, tiers, notional_max, fee),
            *(family, basis, *parameters),
        )

    def some_tiers(self, family: int) -> list[tuple[int, int, int, int]]:
        rng = self.rng
        rate = rng.choice((5, 10, 20)) * 10**6
        initial = rng.choice((0, 2 * rate + 10**7))
        if family in (POWER, ROOT, OPEN_INTEREST, SIZE_LINEAR):
            initial = 2 * rate + 10**7
        leverage_max = rng.choice((10**11, 2 * 10**11)) // (rate + 6 * 10**6) // 3
        tiers = [(0, initial, rate, leverage_max)]
        if family > BY_LOTS:
            return tiers
        step = 10 ** rng.choice((1, 2, 3) if family == BY_LOTS else (7, 8, 9))
        for k in range(rng.randrange(4)):
            floor = step * (k * k * 3 + 2)
            tiers.append((floor, initial * (k + 2), rate * (k + 2), leverage_max // (k + 2)))
        return tiers

    def spoil(self, arguments: list[Any]) -> None:
        """Make one argument one that is seldom valid."""
        rng = self.rng
        index = rng.randrange(11)
        if index == 0:
            arguments[0] = rng.choice(("new", "", "rule-1", "rule-2"))
        elif index == 1:
            arguments[1] = rng.choice((0, 1, 2, 3))
        elif index == 2:
            tiers = [list(tier) for tier in arguments[2]]
            tier = rng.choice(tiers)
            values = (0, 1, tier[0] + 1, 100, 10**9 - 1, 10**9, COUNT_MAX, COUNT_MAX + 1)
            tier[rng.randrange(4)] = rng.choice(values)
            arguments[2] = [tuple(tier) for tier in tiers]
            if rng.random() < 0.2:
                arguments[2] = arguments[2] * 2
        else:
            powers = (10**9, 10**12, 10**15, 10**18, COUNT_MAX, 2**62)
            highest = (*powers, *(each + 1 for each in powers))
            arguments[index] = rng.choice((-1, 0, 1, 2, 3, 9, 10, 20, *highest))

    def rule(self, _: ReferenceEngine) -> Command:
        _, *arguments = self.rule_of(self.rng.choice(ASSETS))
        if self.rng.random() < 0.3:
            index = self.rng.randrange(8)
            edges = (-1, 0, 1, 2, 3, 10**9 - 1, 10**9, 10**9 + 1, 10**10, 10**10 + 1)
            arguments[index] = self.rng.choice(edges if index else ("s1-0", "rule-3", ""))
        return ("upsert_option_rule", *arguments)

    def rule_of(self, asset_id: int) -> Command:
        rng = self.rng
        a, b, c = rng.choice(
            ((150_000_000, 100_000_000, 75_000_000), (100_000_000, 50_000_000, 30_000_000))
        )
        if rng.random() < 0.2:
            b, c = rng.randrange(a), rng.randrange(2 * a)
        d = rng.choice((0, 0, 10**9, 1_050_000_000, 1_500_000_000))
        e = rng.choice((0, 0, 20_000_000, 200_000_000))
        return ("upsert_option_rule", f"rule-{asset_id}", asset_id, a, b, c, rng.randrange(3), d, e)

    def open_interest(self, _: ReferenceEngine) -> Command:
        instrument_id = self.rng.choice((*CONTRACTS, *CONTRACTS, CALL, 0, 99))
        lots = int(10 ** self.rng.uniform(0, 6))
        if self.rng.random() < 0.2:
            lots = self.rng.choice((0, 0, -1, COUNT_MAX, COUNT_MAX + 1))
        by_name = {"validate_only": True} if self.rng.random() < 0.1 else {}
        return ("report_open_interest", instrument_id, lots, by_name)

    def instrument(self, _: ReferenceEngine) -> Command:
        definition = self.rng.choice(DEFINITIONS)
        schedule_id = self.rng.randrange(1, 11)
        change: Definition = self.rng.choice(
            (
                {},
                {"schedule_id": schedule_id},
                {"schedule_id": schedule_id},
                {"option_rule_id": schedule_id},
                {"option_rule_id": 0},
                {"option_rule_id": 77},
                {"kind": self.rng.randrange(10)},
                {"expiry_ns": self.rng.choice((0, EXPIRY_NS, LATER_NS))},
                {"multiplier_mantissa": self.rng.choice((0, 1, 7, 10**12, 10**12 + 1))},
                {"multiplier_exponent": self.rng.choice((-13, -12, -1, 0, 12, 13))},
                {"underlying_id": self.rng.randrange(15)},
                {"mark_units_per_tick": self.rng.choice((1, 10**9))},
                {"tick_exponent": self.rng.choice((-12, 3, 12))},
                {"lot_exponent": self.rng.choice((-12, 3, 12))},
                {"asset_id": self.rng.choice((1, 2))},
                {"base_asset_id": self.rng.choice((0, 1, 2, 3))},
                {"isolated_only": self.rng.choice((-1, 0, 1, 2))},
                {"strike_units": 1, "option_type": 1, "expiry_ns": LATER_NS},
            )
        )
        if self.rng.random() < 0.5:
            change = change | {"symbol": f"NEW-{self.rng.randrange(8)}"}
        return upsert(definition | change)

    # Money and queries

    def collateral(self, engine: ReferenceEngine) -> Command:
        account_id = self.some_account()
        asset_id = COIN if account_id in OF_COIN else USDT
        amount = self.some_amount(engine, account_id)
        if self.rng.random() < 0.4:
            # All of a balance, or about as much as sells of spot take of it.
            asset_id = USDT if asset_id == COIN else COIN
            held = sum(row.amount for row in engine.balances(account_id) or [])
            amount = self.rng.choice((-held, -held // 2, -1, 10**6, 10**9))
        return ("adjust_collateral", account_id, asset_id, amount, self.is_trial(), self.now_ns)

    def query(self, engine: ReferenceEngine) -> Command:
        account_id = self.some_account()
        instrument_id = self.some_instrument(account_id)
        side, order_type = self.rng.choice((1, 2)), self.rng.choice((1, 2))
        price = self.some_price(instrument_id) if order_type == 1 else 0
        position_side = self.some_position_side(engine, account_id, side)
        largest = (account_id, instrument_id, side, order_type, price, self.now_ns, position_side)
        return self.rng.choice(
            (
                ("summary", account_id),
                ("positions", account_id),
                ("positions", self.rng.choice(HEDGED)),
                ("positions", self.rng.choice(HEDGED)),
                ("max_order_lots", *largest),
                ("schedules",),
                ("instruments",),
            )
        )
