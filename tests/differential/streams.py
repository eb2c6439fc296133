"""Seeded streams of commands that reach every rule, and a runner that applies them to an engine.

A command is a plain tuple, so that a stream can be printed, cut and run again:

    ("check", fields, now_ns)               CheckOrder; fields of CheckOrderRequest
    ("amend", fields, order, now_ns)        CheckAmendment
    ("execute", fields, order, now_ns)      ReportExecution
    ("reservation", fields, order, now_ns)  GetReservation
    ("marks", list of fields, now_ns)       ReportMarks
    ("raw", method, bytes, now_ns)          bytes as they are
    ("set_capacities", capacities)          by name
    ("batch", mode, list of fields, now_ns) BatchCheckOrders
    ("time", now_ns)                        time passes: GTD orders expire, leases end
    ("cancel", fields, orders, now_ns)      cancel_orders, by name; orders are those to keep
    (name of a method, *arguments)          any other method of the engine; a dict at the end are
                                            arguments by name

order names a reservation by its (gateway id, client order id), because reservation ids change when
commands before it are cut; None leaves the reservation_id that is in fields.
"""

import math
import random
from collections.abc import Callable
from typing import Any, TypeAlias

from riskd import reference
from riskd.reference import Order, ReferenceEngine
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb

Command: TypeAlias = tuple[Any, ...]
Fields: TypeAlias = dict[str, Any]
OrderKey: TypeAlias = tuple[int, int]

BILLION = 10**9
START_NS = 1_750_000_000 * BILLION
COUNT_MAX = 2**53
SETTINGS_ROOMY = {
    "accounts_max": 34,
    "positions_max": 400,
    "orders_max": 400,
    "instruments_max": 10,
    "schedules_max": 5,
    "gateways_max": 4,
    "balances_max": 30,
    "answer_bytes": 1 << 18,
}
SETTINGS_TIGHT = SETTINGS_ROOMY | {
    "positions_max": 45,
    "orders_max": 12,
    "gateways_max": 3,
    "balances_max": 2,
    "answer_bytes": 1 << 13,
}

RESIZES = {
    "accounts_max": (0, 30, 34, 34, 40, 2**30 + 1),
    "positions_max": (20, 45, 45, 70, 400),
    "orders_max": (8, 12, 12, 30, 400),
    "instruments_max": (9, 10, 11, 2**20 + 1),
    "schedules_max": (4, 5, 6),
    "gateways_max": (3, 3, 4, 4, 6),
    "balances_max": (2, 2, 3, 30),
    "answer_bytes": (4095, 4096, 4104, 1 << 13, 1 << 14, 1 << 18),
}


class Runner:
    """Applies commands to one engine. An outcome is the method's result or the exception's name."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.reservations: dict[OrderKey, int] = {}

    def run(self, command: Command) -> Any:
        try:
            return self._run(command)
        except (ValueError, KeyError) as error:
            return f"raised {type(error).__name__}"

    def _run(self, command: Command) -> Any:
        name, *arguments = command
        if name == "check":
            fields, now_ns = arguments
            reply = self._handle(
                reference.METHOD_CHECK_ORDER, orders_pb.CheckOrderRequest(**fields), now_ns
            )
            answer = orders_pb.CheckOrderResponse.FromString(reply)
            if answer.reservation_id:
                key = (fields["gateway_id"], fields["client_order_id"])
                self.reservations[key] = answer.reservation_id
            return reply
        if name == "amend":
            fields, order, now_ns = arguments
            amendment = orders_pb.CheckAmendmentRequest(**self._resolved(fields, order))
            return self._handle(reference.METHOD_CHECK_AMENDMENT, amendment, now_ns)
        if name == "execute":
            fields, order, now_ns = arguments
            execution = orders_pb.ReportExecutionRequest(**self._resolved(fields, order))
            return self._handle(reference.METHOD_REPORT_EXECUTION, execution, now_ns)
        if name == "reservation":
            fields, order, now_ns = arguments
            query = orders_pb.GetReservationRequest(**self._resolved(fields, order))
            return self._handle(reference.METHOD_GET_RESERVATION, query, now_ns)
        if name == "batch":
            return self._batch(*arguments)
        if name == "time":
            return self.engine.handle(reference.METHOD_ADVANCE_TIME, b"", *arguments)
        if name == "cancel":
            fields, keep, now_ns = arguments
            kept = [self.reservations.get(each, 0) for each in keep]
            return self.engine.cancel_orders(**fields, keep=kept, now_ns=now_ns)
        if name == "marks":
            marks, now_ns = arguments
            batch = market_pb.ReportMarksRequest(marks=[market_pb.Mark(**mark) for mark in marks])
            return self._handle(reference.METHOD_REPORT_MARKS, batch, now_ns)
        if name == "set_capacities":
            return self.engine.set_capacities(**arguments[0])
        if name == "raw":
            return self.engine.handle(*arguments)
        result = getattr(self.engine, name)
        by_name = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
        return result(*arguments, **by_name) if callable(result) else result

    def _batch(self, mode: int, orders: list[Fields], now_ns: int) -> bytes:
        batch = orders_pb.BatchCheckOrdersRequest(
            mode=orders_pb.BatchMode.ValueType(mode),
            orders=[orders_pb.CheckOrderRequest(**fields) for fields in orders],
        )
        reply = self._handle(reference.METHOD_BATCH_CHECK_ORDERS, batch, now_ns)
        answers = orders_pb.BatchCheckOrdersResponse.FromString(reply).decisions
        for fields, answer in zip(orders, answers, strict=True):
            if answer.reservation_id:
                key = (fields["gateway_id"], fields["client_order_id"])
                self.reservations[key] = answer.reservation_id
        return reply

    def _resolved(self, fields: Fields, order: OrderKey | None) -> Fields:
        if order is None:
            return fields
        return fields | {"reservation_id": self.reservations.get(order, 0)}

    def _handle(self, method: int, request: Any, now_ns: int) -> bytes:
        reply = self.engine.handle(method, request.SerializeToString(deterministic=True), now_ns)
        assert isinstance(reply, bytes)
        return reply


# --- What every stream starts with ----------------------------------------------------------------

USDT, COIN = 1, 2
SCHEDULES: list[tuple[Any, ...]] = [
    ("single", USDT, [(0, 0, 5_000_000, 12500)], 0, 0),
    (
        "twelve",
        USDT,
        [
            (k * k * 20_000 * 10**6, 8_000_000 * (k + 1), 4_000_000 * (k + 1), 12500 // (k + 1))
            for k in range(12)
        ],
        5_000_000 * 10**6,
        0,
    ),
    (
        "fee",
        USDT,
        [
            (0, 20_000_000, 10_000_000, 5000),
            (100_000 * 10**6, 40_000_000, 25_000_000, 2000),
            (1_000_000 * 10**6, 500_000_000, 400_000_000, 200),
        ],
        0,
        5_000_000,
    ),
    ("coin", COIN, [(0, 10_000_000, 5_000_000, 10000), (10**11, 10**8, 10**8 // 2, 1000)], 0, 0),
]
BTC, ETH, DOGE, ODD, WIDE, CALL, PUT, COINED, UNMARKED = range(1, 10)
PERPETUALS = (BTC, ETH, DOGE, ODD, WIDE)
OPTIONS = (CALL, PUT)
EXPIRY_NS = START_NS + 30 * 86400 * BILLION

Definition: TypeAlias = dict[str, Any]


def perpetual(symbol: str, schedule_id: int, steps: tuple[int, ...], **rest: Any) -> Definition:
    return {
        "symbol": symbol,
        "kind": 1,
        "asset_id": USDT,
        "schedule_id": schedule_id,
        "tick_mantissa": steps[0],
        "tick_exponent": steps[1],
        "lot_mantissa": steps[2],
        "lot_exponent": steps[3],
        "mark_units_per_tick": steps[4],
    } | rest


INSTRUMENTS: list[Definition] = [
    perpetual(
        "BTCUSDT",
        2,
        (1, -1, 1, -3, 10),
        order_lots_max=20_000,
        order_notional_min=200 * 10**6,
        order_notional_max=1_200_000 * 10**6,
        price_collar_ppb=50_000_000,
        market_buffer_ppb=5_000_000,
        taker_fee_ppb=550_000,
        mark_age_max_ns=60 * BILLION,
    ),
    perpetual("ETHUSDT", 3, (1, -2, 1, -2, 1), taker_fee_ppb=400_001, order_lots_min=3),
    perpetual(
        "DOGEUSDT",
        1,
        (1, -5, 1, 0, 100),
        price_collar_ppb=200_000_000,
        market_buffer_ppb=999_999_999,
        mark_age_max_ns=600 * BILLION,
    ),
    perpetual("ODDUSDT", 2, (5, -1, 1, 1, 3), taker_fee_ppb=999_999, order_lots_min=1),
    perpetual("WIDE", 1, (2**39, -12, 2, 6, 1), market_buffer_ppb=10_000_000),
    perpetual(
        "BTC-C",
        0,
        (1, -1, 1, -2, 10),
        kind=2,
        expiry_ns=EXPIRY_NS,
        strike_units=6_600_000,
        option_type=1,
        interest_rate_ppb=30_000_000,
        underlying_id=1,
        taker_fee_ppb=300_000,
        price_collar_ppb=500_000_000,
    ),
    perpetual(
        "BTC-P",
        0,
        (1, -1, 1, -2, 4),
        kind=2,
        expiry_ns=START_NS + 3600 * BILLION,
        strike_units=2_560_000,
        option_type=2,
        mark_age_max_ns=3600 * BILLION,
        order_lots_max=100_000,
    ),
    perpetual("COINED", 4, (1, -1, 1, -3, 1), asset_id=COIN),
    perpetual("UNMARKED", 1, (1, -1, 1, -3, 1)),
]
MARKS = {BTC: 6_500_000, ETH: 350_000, DOGE: 1_700_000, ODD: 1000, WIDE: 40}
MARKS |= {CALL: 20_000, PUT: 5_000, COINED: 10_000}
LEVERAGES = (100, 300, 500, 500, 1000, 1000, 1000, 2000, 5000, 12500, 100_000)
GATEWAYS = (1, 2, 3)
HEDGED = (3, 4, 7, 13, 14)  # accounts that begin in hedge mode
STRANGE_GATEWAYS = (7, 8)  # for which there may be no room


def setup(rng: random.Random) -> list[Command]:
    """Return the commands that define assets, schedules, instruments, accounts and first marks."""
    commands: list[Command] = [("create_asset", "USDT", 6), ("create_asset", "COIN", 8)]
    commands += [("upsert_schedule", *schedule) for schedule in SCHEDULES]
    commands += [upsert(definition) for definition in INSTRUMENTS]
    for account_id in range(1, 31):
        asset_id = COIN if account_id % 10 == 0 else USDT
        cash = int(10 ** rng.uniform(11 if account_id <= 5 else 9, 13))
        commands.append(
            (
                "create_account",
                account_id,
                asset_id,
                1 + account_id % 2,
                rng.choice(LEVERAGES),
                cash,
            )
        )
    commands.append(("create_account", 31, USDT, 1, 1000, 2**62))
    commands.append(("create_account", 32, USDT, 2, 100_000, 0))
    commands.append(("create_account", 33, USDT, 2, 2000, 2**62))
    commands += [("set_position_mode", account_id, 2) for account_id in HEDGED]
    return commands


SCOPES = (
    *((1, 0), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (2, 9), (3, 1), (3, 2), (3, 4), (3, 999)),
    *((4, BTC), (4, ETH), (4, ODD), (4, CALL), (4, 99)),
)
ORDER_OF_TERMS = (
    "symbol",
    "kind",
    "asset_id",
    "schedule_id",
    "tick_mantissa",
    "tick_exponent",
    "lot_mantissa",
    "lot_exponent",
    "mark_units_per_tick",
    "order_lots_min",
    "order_lots_max",
    "order_notional_min",
    "order_notional_max",
    "price_collar_ppb",
    "market_buffer_ppb",
    "taker_fee_ppb",
    "mark_age_max_ns",
    "trading_state",
    "expiry_ns",
    "strike_units",
    "option_type",
    "interest_rate_ppb",
    "underlying_id",
)


def upsert(definition: Definition) -> Command:
    """Return the command that creates or changes an instrument; what is newer goes by name."""
    full = dict.fromkeys(ORDER_OF_TERMS, 0) | {"trading_state": 1} | definition
    by_name = {name: value for name, value in full.items() if name not in ORDER_OF_TERMS}
    return ("upsert_instrument", *(full[name] for name in ORDER_OF_TERMS), by_name)


def has_limit_price(order_type: int) -> bool:
    return order_type in (1, 4, 6)


# --- The stream -----------------------------------------------------------------------------------


class Stream:
    """Chooses the next command by the state of a reference engine that has run all before it."""

    # The market, by instrument id.
    definitions: list[Definition] = INSTRUMENTS
    first_marks: dict[int, int] = MARKS
    options: tuple[int, ...] = OPTIONS

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        # Every other stream keeps Greeks, which may differ in the last digit, out of the answers
        # that are remembered, so that their hash can be compared.
        self.remembers_greeks = seed % 2 == 1
        self.settings = SETTINGS_TIGHT if seed % 4 == 3 else SETTINGS_ROOMY
        self.now_ns = START_NS
        self.marks = dict(self.first_marks)
        self.next_id = 1
        self.queue = setup(self.rng)
        self.sent_orders: list[Command] = []
        self.sent_amendments: list[Command] = []
        self.sent_executions: list[Command] = []
        self.sent_batches: list[Command] = []
        self.ended: list[tuple[OrderKey, Fields]] = []
        self.not_normal: list[tuple[int, int]] = []
        self.queue += [self.marks_command([each]) for each in self.marks]

    def next(self, engine: ReferenceEngine) -> Command:
        if self.queue:
            return self.queue.pop(0)
        self.pass_time()
        if self.not_normal and self.rng.random() < 0.15:
            scope = self.not_normal.pop()
            return ("set_trading_state", *scope, 1)
        choices: list[tuple[float, Callable[[ReferenceEngine], Command]]] = [
            (37, self.order),
            (6, self.batch),
            (0.5, self.bad_batch),
            (3, self.bad_order),
            (2, self.edge_order),
            (40 if any(scope == 3 for scope, _ in self.not_normal) else 10, self.amendment),
            (2, self.bad_amendment),
            (4, self.repeat),
            (20, self.execution),
            (3, self.late_execution),
            (4, self.undoing),
            (2, self.bad_execution),
            (2, self.time),
            (0.7, self.lease),
            (0.7, self.cancel),
            (0.7, self.position_mode),
            (12, self.some_marks),
            (1, self.bad_marks),
            (2, self.reservation),
            (2, self.collateral),
            (3, self.transfer),
            (2, self.mode),
            (3, self.leverage),
            (3, self.halt),
            (0.7, self.resize),
            (1.6, self.schedule),
            (1.3, self.instrument),
            (1.3, self.definition),
            (2, self.malformed),
        ]
        weights = [weight for weight, _ in choices]
        make = self.rng.choices([each for _, each in choices], weights)[0]
        return make(engine)

    # Time and marks

    def pass_time(self) -> None:
        step = self.rng.choice((1, 1000, 10**6, 10**8))
        if self.rng.random() < 0.01:
            step = self.rng.choice((40, 70, 700)) * BILLION
        self.now_ns += step

    def marks_command(self, instrument_ids: list[int]) -> Command:
        marks = []
        for instrument_id in instrument_ids:
            mark = {
                "instrument_id": instrument_id,
                "mark_price": self.marks[instrument_id],
                "time_ns": self.now_ns,
            }
            if instrument_id in self.options:
                mark["implied_volatility_ppb"] = self.rng.choice((0, 600_000_000, 10**10))
                if instrument_id == PUT:
                    mark["forward_price"] = self.rng.choice((0, 2_600_000, 2_555_555))
            marks.append(mark)
        return ("marks", marks, self.now_ns)

    def some_marks(self, _: ReferenceEngine) -> Command:
        count = self.rng.choice((1, 1, 2, 8))
        instrument_ids = self.rng.sample(sorted(self.marks), count)
        for instrument_id in instrument_ids:
            self.move(instrument_id)
        return self.marks_command(instrument_ids)

    def move(self, instrument_id: int) -> None:
        factor = math.exp(self.rng.gauss(0, 0.003))
        if self.rng.random() < 0.06:
            factor = self.rng.choice((0.6, 0.8, 0.93, 1.07, 1.2, 1.5))
        # Pulled back to where it began, so that prices stay what the streams are made for.
        first = self.first_marks[instrument_id]
        if not 0.25 < self.marks[instrument_id] / first < 4:
            self.marks[instrument_id] = first
        self.marks[instrument_id] = max(1, round(self.marks[instrument_id] * factor))

    def bad_marks(self, _: ReferenceEngine) -> Command:
        good = {"instrument_id": BTC, "mark_price": self.marks[BTC], "time_ns": self.now_ns}
        bad = self.rng.choice(
            (
                {"instrument_id": 0},
                {"instrument_id": 99},
                {"mark_price": 0},
                {"mark_price": -5},
                {"mark_price": COUNT_MAX + 1},
                {"time_ns": 1},
                {"time_ns": self.now_ns + 2 * BILLION},
                {"implied_volatility_ppb": 10**10 + 1},
                {"forward_price": -1},
                {"forward_price": COUNT_MAX + 1},
            )
        )
        marks = [good | bad]
        if self.rng.random() < 0.5:
            marks.insert(self.rng.randrange(2), good)
        return ("marks", marks, self.now_ns)

    # Orders

    def fresh_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def some_account(self) -> int:
        # The first few trade most, so that their positions grow, cross and turn.
        if self.rng.random() < 0.6:
            return int(self.rng.choice((1, 2, 3, 4, 5, 31)))
        return int(self.rng.choice((*range(6, 10), *range(11, 20), 10, 20, 32, 33)))

    def some_instrument(self, account_id: int) -> int:
        if account_id in (10, 20, 30):
            return COINED
        if self.rng.random() < 0.01:
            return UNMARKED
        return self.rng.choice((BTC, BTC, BTC, ETH, ETH, ETH, DOGE, ODD, ODD, CALL, PUT, WIDE))

    def order_fields(self, engine: ReferenceEngine) -> Fields:
        account_id = self.some_account()
        instrument_id = self.some_instrument(account_id)
        held = self.held_lots(engine, account_id, instrument_id)
        side = self.rng.choice((1, 2))
        if instrument_id in self.options and held == 0 and self.rng.random() < 0.9:
            side = 1
        position_side = self.some_position_side(engine, account_id, side)
        order_type = self.rng.choice((1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7))
        time_in_force = self.rng.choice((0, 1, 2, 3, 4))
        fields = {
            "account_id": account_id,
            "instrument_id": instrument_id,
            "client_order_id": self.fresh_id(),
            "gateway_id": self.rng.choice(GATEWAYS),
            "side": side,
            "position_side": position_side,
            "order_type": order_type,
            "time_in_force": time_in_force,
            **self.some_prices(instrument_id, order_type),
            "expire_time_ns": self.some_expiry() if time_in_force == 4 else 0,
            "quantity_lots": self.some_quantity(instrument_id, abs(held)),
            "flags": 2 if order_type == 1 and self.rng.random() < 0.1 else 0,
            "sent_time_ns": self.now_ns,
            "mode": self.rng.choice((0, 1, 1, 1, 1, 2)),
            "view": self.rng.choice((0, 1, 1, 2, 3)),
        }
        if held and self.rng.random() < (0.5 if order_type > 2 else 0.15):
            self.only_close(fields, held)
        elif not has_limit_price(order_type) and self.rng.random() < 0.2:
            fields["flags"] |= 8
            fields["quantity_lots"] = int(10 ** self.rng.uniform(5, 12))
        if instrument_id in self.options and fields["view"] == 3 and not self.remembers_greeks:
            fields["mode"] = 2
        return fields

    def only_close(self, fields: Fields, held: int) -> None:
        fields["side"] = 2 if held > 0 else 1
        if fields["position_side"] > 1:
            fields["position_side"] = 2 if held > 0 else 3
        fields["flags"] |= self.rng.choice((1, 1, 4, 5))
        if fields["flags"] & 4:
            fields["quantity_lots"] = 0

    def some_position_side(self, engine: ReferenceEngine, account_id: int, side: int) -> int:
        """Return what fits the account's mode; in hedge mode mostly one that opens."""
        account = engine.account(account_id)
        if account is None or account.position_mode == 1:
            return self.rng.choice((0, 0, 1))
        if self.rng.random() < 0.75:
            return 1 + side
        return self.rng.choice((2, 3))

    def some_prices(self, instrument_id: int, order_type: int) -> Fields:
        prices = {"price_ticks": 0, "trigger_price_ticks": 0, "trailing_offset_ticks": 0}
        if has_limit_price(order_type):
            prices["price_ticks"] = self.some_price(instrument_id)
        if order_type in (3, 4, 5, 6):
            prices["trigger_price_ticks"] = self.some_price(instrument_id)
        if order_type == 7:
            part = self.rng.choice((0.0001, 0.01, 0.5, 1.5))
            prices["trailing_offset_ticks"] = max(1, int(self.some_price(instrument_id) * part))
        return prices

    def some_expiry(self) -> int:
        return self.now_ns + self.rng.choice((1, 10**8, BILLION, 30 * BILLION, 600 * BILLION))

    def held_lots(self, engine: ReferenceEngine, account_id: int, instrument_id: int) -> int:
        held = [
            int(row.lots)
            for row in engine.positions(account_id) or []
            if row.instrument_id == instrument_id and row.lots
        ]
        return self.rng.choice(held) if held else 0

    def some_price(self, instrument_id: int) -> int:
        units = int(self.definitions[instrument_id - 1]["mark_units_per_tick"])
        mark = self.marks.get(instrument_id, 1000) / units
        deviation = self.rng.choice((0.0005, 0.003, 0.02, 0.1))
        price = round(mark * math.exp(self.rng.gauss(0, deviation)))
        if self.rng.random() < 0.01:
            price = self.rng.choice((1, 2, COUNT_MAX, COUNT_MAX - 1))
        return max(1, price)

    def some_quantity(self, instrument_id: int, held: int) -> int:
        draw = self.rng.random()
        if held and draw < 0.35:
            return max(1, round(held * self.rng.choice((0.1, 0.5, 1, 1, 1.1, 2))))
        if draw < 0.985:
            largest = {DOGE: 6, ODD: 3, WIDE: 2, CALL: 3, PUT: 3}.get(instrument_id, 4.2)
            return int(10 ** self.rng.uniform(0, largest))
        return self.rng.choice((COUNT_MAX, COUNT_MAX - 1, COUNT_MAX + 1, 2**64 - 1, 2**45))

    def send(self, fields: Fields) -> Command:
        command = ("check", fields, self.now_ns)
        self.sent_orders.append(command)
        return command

    def order(self, engine: ReferenceEngine) -> Command:
        return self.send(self.order_fields(engine))

    def edge_order(self, engine: ReferenceEngine) -> Command:
        """An order of exactly the largest size that passes, or of one lot more."""
        fields = self.order_fields(engine) | {"flags": 0}
        lots, _ = engine.max_order_lots(
            fields["account_id"],
            fields["instrument_id"],
            fields["side"],
            fields["order_type"],
            fields["price_ticks"],
            self.now_ns,
            fields["position_side"],
        )
        return self.send(fields | {"quantity_lots": max(1, lots + self.rng.choice((0, 0, 1)))})

    def bad_order(self, engine: ReferenceEngine) -> Command:
        bad = self.rng.choice(
            (
                {"client_order_id": 0},
                {"gateway_id": 0},
                {"gateway_id": self.rng.choice(STRANGE_GATEWAYS)},
                {"account_id": 0},
                {"account_id": 2**64 - 1},
                {"instrument_id": 0},
                {"instrument_id": 77},
                {"instrument_id": COINED},
                {"side": 0},
                {"side": 3},
                {"order_type": 0},
                {"order_type": 8},
                {"order_type": 2**31 - 1},
                {"time_in_force": 4},
                {"time_in_force": 4, "expire_time_ns": self.now_ns},
                {"time_in_force": 5},
                {"flags": 2},
                {"flags": 4},
                {"flags": 8},
                {"flags": 12},
                {"flags": 16},
                {"flags": 2**32 - 1},
                {"flags": 2, "time_in_force": 2},
                {"position_side": 0},
                {"position_side": 1},
                {"position_side": 2},
                {"position_side": 4},
                {"quantity_lots": 2**62 + 1, "flags": 8, "order_type": 2, "price_ticks": 0},
                {"quantity_lots": 1, "flags": 8, "order_type": 2, "price_ticks": 0},
                {"quantity_lots": 0},
                {"quantity_lots": 2**60},
                {"quantity_lots": 2**60, "price_ticks": 0, "order_type": 1},
                {"price_ticks": 0, "order_type": 1},
                {"price_ticks": -1},
                {"price_ticks": COUNT_MAX + 1},
                {"price_ticks": 5, "order_type": 2},
                {"trigger_price_ticks": 0},
                {"trigger_price_ticks": -1},
                {"trigger_price_ticks": COUNT_MAX},
                {"trigger_price_ticks": COUNT_MAX // 10, "order_type": 3, "price_ticks": 0},
                {"trailing_offset_ticks": 0},
                {"trailing_offset_ticks": -1},
                {"trailing_offset_ticks": COUNT_MAX},
                {"expire_time_ns": 1},
                {"margin_mode": 1},
                {"margin_mode": 2},
                {"margin_mode": 3},
                {"mode": 3},
                {"view": 4},
            )
        )
        return self.send(self.order_fields(engine) | bad)

    def repeat(self, engine: ReferenceEngine) -> Command:
        if not self.sent_orders or not self.sent_executions or not self.sent_amendments:
            return self.order(engine)
        if self.rng.random() < 0.3:
            _, fields, order, _ = self.rng.choice(self.sent_amendments[-40:])
            fields = fields | {"sent_time_ns": self.now_ns}
            if self.rng.random() < 0.3:
                name = self.rng.choice(("price_ticks", "quantity_lots"))
                fields[name] ^= 1
            return ("amend", fields, order, self.now_ns)
        if self.rng.random() < 0.6:
            _, fields, _ = self.rng.choice(self.sent_orders[-60:])
            fields = fields | {"sent_time_ns": self.now_ns}
            if self.rng.random() < 0.3:
                fields["quantity_lots"] ^= 1
            return ("check", fields, self.now_ns)
        _, fields, order, _ = self.rng.choice(self.sent_executions[-60:])
        fields = fields | {"venue_time_ns": self.now_ns}
        if self.rng.random() < 0.3:
            fields["fee_minor"] = 7
        return ("execute", fields, order, self.now_ns)

    # Amendments

    def some_working_order(self, engine: ReferenceEngine) -> Order | None:
        """Return one that is partly filled or stopped by a trading state more often than others."""
        working = engine.working_orders()
        stopped = [
            each
            for each in working
            if {(3, each.account_id), (4, each.instrument_id), (2, each.gateway_id)}
            & set(self.not_normal)
        ]
        # Accounts are many, so that one of a stopped account is rare.
        rare = [each for each in stopped if (3, each.account_id) in self.not_normal]
        part_filled = [each for each in working if each.remaining < each.quantity]
        choices = self.rng.choice((working, rare or stopped or working, part_filled or working))
        return self.rng.choice(choices) if choices else None

    def amendment_fields(self, order: Order) -> Fields:
        """One side of an amendment often stays as it is: then it may be lighter, or a new price."""
        view = self.rng.choice((0, 1, 1, 2, 3))
        if order.instrument_id in self.options and view == 3 and not self.remembers_greeks:
            view = 2
        return {
            "gateway_id": self.rng.choice((order.gateway_id, order.gateway_id, *GATEWAYS)),
            "client_order_id": self.fresh_id(),
            "price_ticks": self.amended_price(order, order.price_ticks),
            "trigger_price_ticks": self.amended_price(order, order.trigger_price),
            "trailing_offset_ticks": self.amended_price(order, order.trailing_offset),
            "quantity_lots": self.amended_quantity(order),
            "sent_time_ns": self.now_ns,
            "view": view,
        }

    def amended_price(self, order: Order, price: int) -> int:
        """Return another price, or offset, where the order has one."""
        if price == 0 or self.rng.random() < 0.4:
            return price
        step = self.rng.choice((-1, 1, -20, 20, None))
        if step is None:
            return self.some_price(order.instrument_id)
        return min(COUNT_MAX, max(1, price + step))

    def amended_quantity(self, order: Order) -> int:
        filled = order.quantity - order.remaining
        draw = self.rng.random()
        if draw < 0.25 or (order.quantity == 0 and draw < 0.9):
            return order.quantity
        if draw < 0.5:
            return filled + max(1, int(order.remaining * self.rng.choice((0.01, 0.3, 0.9, 1))))
        if draw < 0.9:
            return filled + order.remaining * self.rng.choice((1, 2, 3, 10, 100)) + 1
        return filled + self.some_quantity(order.instrument_id, 0) % 2**63

    def send_amendment(self, fields: Fields, order: Order | OrderKey) -> Command:
        key = order if isinstance(order, tuple) else (order.gateway_id, order.client_order_id)
        command = ("amend", fields, key, self.now_ns)
        self.sent_amendments.append(command)
        return command

    def amendment(self, engine: ReferenceEngine) -> Command:
        order = self.some_working_order(engine)
        if order is None:
            return self.order(engine)
        fields = self.amendment_fields(order)
        if self.rng.random() < 0.15:
            # About as much as passes: exactly so where the old order at the new price would pass.
            lots, _ = engine.max_order_lots(
                order.account_id,
                order.instrument_id,
                order.side,
                order.order_type,
                fields["price_ticks"],
                self.now_ns,
                order.position_side,
            )
            fields["quantity_lots"] = order.quantity + lots + self.rng.choice((0, 0, 1))
        return self.send_amendment(fields, order)

    def bad_amendment(self, engine: ReferenceEngine) -> Command:
        order = self.some_working_order(engine)
        if order is None:
            return self.order(engine)
        fields = self.amendment_fields(order)
        filled = order.quantity - order.remaining
        bad: Fields | None = self.rng.choice(
            (
                None,
                {"reservation_id": self.rng.choice((0, 1, self.rng.randrange(3000), 2**64 - 1))},
                {"client_order_id": 0},
                {"gateway_id": 0},
                {"gateway_id": self.rng.choice(STRANGE_GATEWAYS)},
                {"view": 4},
                {"view": 2**31 - 1},
                {"price_ticks": 0 if order.price_ticks else 1},
                {"price_ticks": -1},
                {"price_ticks": COUNT_MAX + 1},
                {"trigger_price_ticks": 0 if order.trigger_price else 1},
                {"trigger_price_ticks": COUNT_MAX + 1},
                {"trailing_offset_ticks": 0 if order.trailing_offset else 1},
                {"trailing_offset_ticks": -1},
                {"price_ticks": COUNT_MAX} if order.price_ticks else {},
                {"quantity_lots": 0},
                {"quantity_lots": filled},
                {"quantity_lots": max(1, filled - 1)},
                {"quantity_lots": filled + 1},
                {"quantity_lots": COUNT_MAX},
                {"quantity_lots": COUNT_MAX + 1},
                {"quantity_lots": 2**64 - 1},
                {"quantity_lots": COUNT_MAX + 1, "price_ticks": 0 if order.price_ticks else 1},
            )
        )
        if bad is None:
            # Of an order that was refused, filled or cancelled, or still works.
            _, sent, _ = self.rng.choice(self.sent_orders)
            fields["view"] = min(2, fields["view"])  # It may be of an option.
            return self.send_amendment(fields, (sent["gateway_id"], sent["client_order_id"]))
        if "reservation_id" in bad:
            fields["view"] = min(2, fields["view"])  # It may be of an option.
            command = ("amend", fields | bad, None, self.now_ns)
            self.sent_amendments.append(command)
            return command
        return self.send_amendment(fields | bad, order)

    # Batches

    def batch(self, engine: ReferenceEngine) -> Command:
        """Some orders of one gateway and mostly one account, now and then with one again."""
        first = self.batch_fields(engine)
        orders = [first]
        for _ in range(self.rng.choice((0, 1, 2, 2, 3, 7))):
            fields = self.batch_fields(engine) | {"mode": first["mode"]}
            if self.rng.random() < 0.8:
                fields["gateway_id"] = first["gateway_id"]
            if self.rng.random() < 0.1:
                fields["mode"] = self.rng.choice((0, 1, 2, 3))
            if self.rng.random() < 0.05:
                fields[self.rng.choice(("client_order_id", "gateway_id"))] = 0
            if self.rng.random() < 0.05:
                fields["gateway_id"] = self.rng.choice(STRANGE_GATEWAYS)
            orders.append(fields)
        if self.rng.random() < 0.1:
            orders.append(self.rng.choice(orders))
        if self.sent_orders and self.rng.random() < 0.07:
            fields = self.rng.choice(self.sent_orders[-20:])[1]
            orders.append(fields | {"view": min(2, fields["view"])})
        command = ("batch", self.rng.choice((0, 1, 2, 2, 2, 2)), orders, self.now_ns)
        if self.sent_batches and self.rng.random() < 0.12:
            _, mode, orders, _ = self.rng.choice(self.sent_batches[-10:])
            command = ("batch", mode, orders, self.now_ns)
        self.sent_batches.append(command)
        self.sent_orders += [("check", fields, self.now_ns) for fields in orders]
        return command

    def batch_fields(self, engine: ReferenceEngine) -> Fields:
        """Return an order that can be in a batch: Greeks, which may differ, are compared singly."""
        fields = self.order_fields(engine)
        if fields["instrument_id"] in self.options:
            fields["view"] = min(2, fields["view"])
        return fields

    def bad_batch(self, engine: ReferenceEngine) -> Command:
        fields = self.batch_fields(engine)
        mode, orders = self.rng.choice(((3, [fields]), (2, []), (0, [fields] * 65)))
        return ("batch", mode, orders, self.now_ns)

    # Executions

    def execution(self, engine: ReferenceEngine) -> Command:
        working = list(engine.working_orders())
        if not working:
            return self.order(engine)
        order = self.rng.choice(working)
        fields: Fields = {
            "gateway_id": order.gateway_id,
            "execution_id": self.fresh_id(),
            "kind": self.rng.choice((1, 1, 1, 1, 2, 3, 4)),
            "venue_time_ns": self.now_ns,
            "instrument_id": self.rng.choice((0, order.instrument_id)),
        }
        if fields["kind"] == 1:
            lots = order.remaining
            if order.quantity == 0:
                lots = abs(self.held_lots(engine, order.account_id, order.instrument_id))
            self.add_fill(fields, order, lots)
        key = (order.gateway_id, order.client_order_id)
        if fields["kind"] in (2, 3):
            asked = {
                "price_ticks": order.price_ticks,
                "instrument_id": order.instrument_id,
                "quantity_lots": order.remaining,
            }
            self.ended.append((key, asked))
        return self.send_execution(fields, key)

    def add_fill(self, fields: Fields, order: Order, lots: int) -> None:
        """Give an execution what a fill has."""
        price = order.price_ticks or self.some_price(order.instrument_id)
        if self.rng.random() < 0.3:
            price = self.some_price(order.instrument_id)
        fields["price_ticks"] = price
        part = self.rng.choice((0.2, 0.5, 1, 1, 1))
        fields["quantity_lots"] = max(1, int(lots * part))
        fields["fee_minor"] = self.rng.choice((0, 0, -5, 1234, 10**7))
        if self.rng.random() < 0.15:
            fields["fee_asset_id"] = self.rng.choice((USDT, COIN, COIN, 3))

    def late_execution(self, engine: ReferenceEngine) -> Command:
        """What is reported of an order that may not work any more."""
        if not self.sent_orders:
            return self.order(engine)
        _, asked, _ = self.rng.choice(self.sent_orders[-100:])
        key = (asked["gateway_id"], asked["client_order_id"])
        if self.ended and self.rng.random() < 0.9:
            key, asked = self.rng.choice(self.ended[-15:])
        fields: Fields = {
            "gateway_id": key[0],
            "execution_id": self.fresh_id(),
            "kind": self.rng.choice((1, 1, 1, 2, 3)),
            "venue_time_ns": self.now_ns,
        }
        if fields["kind"] == 1:
            fields["price_ticks"] = asked["price_ticks"] or self.some_price(asked["instrument_id"])
            fields["quantity_lots"] = max(1, int(asked["quantity_lots"] * self.rng.random()))
        return self.send_execution(fields, key)

    def undoing(self, engine: ReferenceEngine) -> Command:
        """A bust or a correction of an execution, mostly of a fill of the same order."""
        if not self.sent_executions:
            return self.execution(engine)
        _, undone, key, _ = self.rng.choice(self.sent_executions[-30:])
        if self.rng.random() < 0.05:
            key = self.rng.choice(self.sent_executions[-30:])[2]
        fields: Fields = {
            "gateway_id": undone["gateway_id"],
            "execution_id": self.fresh_id(),
            "reservation_id": undone.get("reservation_id", 0),
            "kind": self.rng.choice((5, 6, 6)),
            "original_execution_id": undone["execution_id"],
            "venue_time_ns": self.now_ns,
            "fee_minor": self.rng.choice((0, 0, -1234)),
        }
        if fields["kind"] == 6:
            step = self.rng.choice((-3, -1, 0, 1, 3))
            fields["price_ticks"] = max(1, undone.get("price_ticks", 0) + step)
            part = self.rng.choice((0.3, 1, 1, 1, 1.5))
            fields["quantity_lots"] = max(1, int(undone.get("quantity_lots", 0) * part))
        return self.send_execution(fields, key)

    def send_execution(self, fields: Fields, order: OrderKey | None) -> Command:
        command = ("execute", fields, order, self.now_ns)
        self.sent_executions.append(command)
        return command

    def bad_execution(self, engine: ReferenceEngine) -> Command:
        command = self.execution(engine)
        if command[0] != "execute":
            return command
        _, fields, order, now_ns = command
        # A fill at 2^53 ticks is a fact too, but ruins an account for the rest of the stream; of
        # this instrument it does not fit.
        is_wide = any(
            (each.gateway_id, each.client_order_id, each.instrument_id) == (*order, WIDE)
            for each in engine.working_orders()
        )
        highest = COUNT_MAX if is_wide else 0
        bad = self.rng.choice(
            (
                {"gateway_id": 0},
                {"gateway_id": self.rng.choice(STRANGE_GATEWAYS)},
                {"execution_id": 0},
                {"kind": 0},
                {"kind": 5},
                {"kind": 5, "price_ticks": 1},
                {"kind": 6},
                {"kind": 7},
                {"original_execution_id": 5},
                {"fee_asset_id": 2**32 - 1},
                {"kind": 1, "price_ticks": 1, "quantity_lots": 1, "fee_asset_id": 77},
                {"kind": 1, "price_ticks": 0},
                {"kind": 1, "price_ticks": COUNT_MAX + 1, "quantity_lots": 1},
                {"kind": 1, "price_ticks": 1, "quantity_lots": 0},
                {"kind": 1, "price_ticks": 1, "quantity_lots": COUNT_MAX + 1},
                {"kind": 1, "price_ticks": 1, "quantity_lots": COUNT_MAX},
                {"kind": 1, "price_ticks": highest, "quantity_lots": 1},
                {"kind": 1, "price_ticks": 1, "quantity_lots": 1, "fee_minor": COUNT_MAX + 1},
                {"kind": 1, "price_ticks": 1, "quantity_lots": 1, "fee_minor": -COUNT_MAX},
                {"kind": 2, "price_ticks": 1},
                {"kind": 3, "quantity_lots": 1},
                {"kind": 4, "fee_minor": -1},
                {"instrument_id": 2**32 - 1},
                {"reservation_id": 2**63},
            )
        )
        if "reservation_id" in bad:
            order = None
        changed = ("execute", fields | bad, order, now_ns)
        self.sent_executions[-1] = changed
        return changed

    # Time, leases, mass cancels

    def time(self, _: ReferenceEngine) -> Command:
        return ("time", self.now_ns)

    def lease(self, _: ReferenceEngine) -> Command:
        gateway_id = self.rng.choice((*GATEWAYS, *GATEWAYS, *STRANGE_GATEWAYS, 0))
        duration_ns = self.rng.choice((0, 0, 0, 0, 1, BILLION, 100 * BILLION, 86400 * BILLION))
        if self.rng.random() < 0.05:
            duration_ns = 86400 * BILLION + 1
        action = self.rng.choice((1, 2, 2, 2, 0, 3))
        return ("renew_lease", gateway_id, duration_ns, action, self.now_ns)

    def cancel(self, engine: ReferenceEngine) -> Command:
        fields: Fields = {
            "gateway_id": self.rng.choice((0, *GATEWAYS, 99)),
            "account_id": self.rng.choice((0, 0, self.some_account(), 999)),
            "instrument_id": self.rng.choice((0, 0, BTC, ETH, 77)),
            "side": self.rng.choice((0, 0, 0, 1, 2, 3)),
            "accepted_before_ns": self.rng.choice((0, 0, self.now_ns - 10**9, self.now_ns)),
            "validate_only": self.is_trial(),
        }
        working = [(each.gateway_id, each.client_order_id) for each in engine.working_orders()]
        keep = self.rng.sample(working, self.rng.randrange(len(working) + 1))
        return ("cancel", fields, keep, self.now_ns)

    def position_mode(self, _: ReferenceEngine) -> Command:
        account_id = self.rng.choice((*range(1, 20), 999))
        return ("set_position_mode", account_id, self.rng.choice((1, 2, 1, 2, 1, 2, 0, 3)))

    def reservation(self, engine: ReferenceEngine) -> Command:
        if not self.sent_orders or self.rng.random() < 0.1:
            return ("reservation", {"reservation_id": self.rng.randrange(3000)}, None, self.now_ns)
        _, fields, _ = self.rng.choice(self.sent_orders[-200:])
        key = (fields["gateway_id"], fields["client_order_id"])
        if self.rng.random() < 0.5:
            return ("reservation", {}, key, self.now_ns)
        query = {"gateway_id": key[0], "client_order_id": key[1]}
        return ("reservation", query, None, self.now_ns)

    # Changes from outside the hot door

    def some_amount(
        self, engine: ReferenceEngine, account_id: int, into_wallet: bool = False
    ) -> int:
        summary = engine.summary(account_id)
        if summary is None or self.rng.random() < 0.1:
            # Never so much that the equity of an account comes near 2^63.
            too_much = 2**63 - 1 if summary is not None and summary.cash > 0 else 1
            return int(self.rng.choice((0, 1, -1, 2**45, too_much, -(2**63))))
        amount = int(10 ** self.rng.uniform(0, 12))
        if self.rng.random() < 0.3:
            # All there is, or one more: to take out, or to move into a wallet.
            amount = max(0, min(summary.available, summary.cash)) + self.rng.choice((0, 1))
            return amount if into_wallet else -amount
        return int(self.rng.choice((-1, 1))) * amount

    def collateral(self, engine: ReferenceEngine) -> Command:
        account_id = self.some_account()
        if self.rng.random() < 0.05:
            account_id = 999
        asset_id = COIN if account_id in (10, 20, 30) else USDT
        if self.rng.random() < 0.1:
            asset_id = self.rng.choice((0, 1, 2, 3))
        amount = self.some_amount(engine, account_id)
        return ("adjust_collateral", account_id, asset_id, amount, self.is_trial(), self.now_ns)

    def is_trial(self) -> bool:
        return self.rng.random() < 0.2

    def some_position(self, engine: ReferenceEngine) -> tuple[int, int]:
        """Return an account and an instrument, mostly of a position that exists."""
        account_id = self.some_account()
        instrument_id = self.some_instrument(account_id)
        rows = [row for row in engine.positions(account_id) or [] if row.lots]
        if rows and self.rng.random() < 0.7:
            instrument_id = self.rng.choice(rows).instrument_id
        if self.rng.random() < 0.03:
            account_id, instrument_id = self.rng.choice(((999, 1), (1, 99), (1, COINED), (10, 1)))
        return account_id, instrument_id

    def transfer(self, engine: ReferenceEngine) -> Command:
        account_id, instrument_id = self.some_position(engine)
        if self.rng.random() < 0.7:
            isolated = [
                (each, row.instrument_id)
                for each in (2, 4, 6, 8, 1, 3, 5)
                for row in engine.positions(each) or []
                if row.isolated_wallet
            ]
            account_id, instrument_id = self.rng.choice(isolated or [(account_id, instrument_id)])
        amount = self.some_amount(engine, account_id, into_wallet=True)
        position_side = self.some_position_side(engine, account_id, self.rng.choice((1, 2)))
        if self.rng.random() < 0.05:
            position_side = self.rng.choice((0, 1, 2, 3, 4))
        arguments = (account_id, instrument_id, amount, self.is_trial(), self.now_ns)
        return ("transfer_margin", *arguments, position_side)

    def mode(self, engine: ReferenceEngine) -> Command:
        account_id, instrument_id = self.some_position(engine)
        if self.rng.random() < 0.6:
            instrument_id = self.some_instrument(account_id)
        mode = self.rng.choice((1, 2, 1, 2, 1, 2, 0, 3))
        return ("change_margin_mode", account_id, instrument_id, mode, self.is_trial(), self.now_ns)

    def leverage(self, engine: ReferenceEngine) -> Command:
        account_id, instrument_id = self.some_position(engine)
        value = self.rng.choice((*LEVERAGES, 99, 0, 1234, 777))
        return ("set_leverage", account_id, instrument_id, value, self.is_trial(), self.now_ns)

    def halt(self, _: ReferenceEngine) -> Command:
        scope, scope_id = self.rng.choice(SCOPES)
        state = self.rng.choice((2, 2, 3, 3, 1))
        if self.rng.random() < 0.05:
            return (
                "set_trading_state",
                *self.rng.choice(((0, 0, 1), (6, 0, 1), (1, 0, 0), (1, 0, 4))),
            )
        self.not_normal.append((scope, scope_id))
        return ("set_trading_state", scope, scope_id, state)

    def resize(self, unused: ReferenceEngine) -> Command:
        """Around what is in use, so that some are refused, and tables still get full."""
        sizes: Fields = {}
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            name = self.rng.choice(tuple(RESIZES))
            sizes[name] = self.rng.choice(RESIZES[name])
        return ("set_capacities", sizes)

    # Definitions

    def schedule(self, _: ReferenceEngine) -> Command:
        name, asset_id, tiers, bound, fee = self.rng.choice(SCHEDULES)
        factor = self.rng.choice((1, 1, 2))
        changed = [(f, i, m * factor, lev) for f, i, m, lev in tiers]
        if self.rng.random() < 0.2:
            changed = [(f, i, m, max(100, lev // 5)) for f, i, m, lev in tiers]
        if self.rng.random() < 0.4:
            last = tiers[-1]
            wrong: list[Any] = self.rng.choice(
                (
                    [],
                    [(1, 0, 5, 100)],
                    [*tiers, last],
                    [*tiers, (last[0] + 1, last[1], last[2] + 1, last[3])],
                    [*tiers, (last[0] + 10**9, last[1] - 1, last[2] + 1, last[3])],
                    [*tiers, (last[0] + 10**9, last[1], last[2] + 1, last[3] + 1)],
                    [(0, 0, 0, 100)],
                    [(0, 0, 10**9, 100)],
                    [(0, 10**9 + 1, 1, 100)],
                    [(0, 0, 1, 99)],
                    [(0, 0, 1, 100_001)],
                    [(k * 10**9, 0, k + 1, 100) for k in range(33)],
                )
            )
            changed = wrong
        if self.rng.random() < 0.1:
            bound = self.rng.choice((-1, 1, tiers[-1][0], tiers[-1][0] + 1))
        if self.rng.random() < 0.1:
            fee = self.rng.choice((-1, 10**9, 10**9 - 1))
        if self.rng.random() < 0.3:
            name = self.rng.choice(("new-a", "new-b", "new-c", "", "a b", "x" * 32, "é"))
        if self.rng.random() < 0.1:
            asset_id = self.rng.choice((0, 1, 2, 3))
        return ("upsert_schedule", name, asset_id, changed, bound, fee)

    def instrument(self, _: ReferenceEngine) -> Command:
        definition = self.rng.choice(INSTRUMENTS)
        change: Definition = self.rng.choice(
            (
                {},
                {"schedule_id": 1},
                {"schedule_id": 2},
                {"schedule_id": 4},
                {"schedule_id": 9},
                {"order_lots_min": 5, "order_lots_max": 4},
                {"order_lots_max": 10**6},
                {"order_notional_min": -1},
                {"price_collar_ppb": 10**9},
                {"market_buffer_ppb": 10**9},
                {"market_buffer_ppb": 10**6},
                {"taker_fee_ppb": 10**9 + 1},
                {"mark_age_max_ns": -1},
                {"trading_state": 0},
                {"trading_state": 4},
                {"kind": 1},
                {"kind": 2},
                {"kind": 3},
                {"asset_id": 2},
                {"asset_id": 7},
                {"tick_mantissa": 2},
                {"tick_mantissa": 0},
                {"tick_mantissa": 10**12},
                {"lot_exponent": -12},
                {"lot_exponent": 13},
                {"mark_units_per_tick": 0},
                {"mark_units_per_tick": 7},
                {"strike_units": 1},
                {"expiry_ns": 1},
                {"option_type": 3},
                {"interest_rate_ppb": 10**9 + 1},
                {"underlying_id": 2},
                {"underlying_id": 50},
                {"symbol": "NEW-1"},
                {"symbol": "NEW-2"},
                {"symbol": "NEW-3"},
                {"symbol": ""},
                {"symbol": "with space"},
            )
        )
        return upsert(definition | change)

    def definition(self, _: ReferenceEngine) -> Command:
        command: Command = self.rng.choice(
            (
                ("create_asset", "USDT", 6),
                ("create_asset", "", 6),
                ("create_asset", "lower", 6),
                ("create_asset", "A" * 16, 6),
                ("create_asset", "OK", 13),
                ("create_asset", f"X{self.rng.randrange(300)}", 2),
                ("create_account", 0, 1, 1, 1000, 0),
                ("create_account", 1, 1, 1, 1000, 0),
                ("create_account", 500, 9, 1, 1000, 0),
                ("create_account", 500, 1, 0, 1000, 0),
                ("create_account", 500, 1, 3, 1000, 0),
                ("create_account", 500, 1, 1, 99, 0),
                ("create_account", 500, 1, 1, 100_001, 0),
                ("create_account", 500, 1, 1, 1000, -1),
                ("create_account", 500, 1, 1, 1000, 2**62 + 1),
                *[("create_account", 1000 + self.rng.randrange(20), 1, 1, 1000, 10**9)] * 4,
                ("mark", 99),
                ("mark", 1),
                ("assets",),
                ("schedules",),
                ("instruments",),
                ("trading_states",),
                ("accounts", 5, 7),
                ("account", 1),
                ("account", 999),
                ("summary", 999),
                ("positions", 999),
                ("working_reservations", 1, 0, 1000),
                ("working_reservations", 2, 1, 10),
                ("working_reservations", 3, 1, 10),
                ("working_reservations", 4, 1, 3),
            )
        )
        return command

    # Bytes

    def malformed(self, engine: ReferenceEngine) -> Command:
        rng = self.rng
        method = rng.choice((1, 1, 2, 3, 4, 5, 6, 7))
        message: Any
        if method == 1:
            message = orders_pb.CheckOrderRequest(**self.order_fields(engine))
        elif method == 2:
            message = orders_pb.ReportExecutionRequest(
                gateway_id=1, execution_id=self.fresh_id(), price_ticks=5, quantity_lots=6
            )
        elif method == 3:
            message = orders_pb.GetReservationRequest(reservation_id=300, gateway_id=1)
        elif method == 5:
            message = orders_pb.CheckAmendmentRequest(
                gateway_id=1,
                reservation_id=300,
                client_order_id=self.fresh_id(),
                price_ticks=5,
                quantity_lots=6,
            )
        elif method == 6:
            order = orders_pb.CheckOrderRequest(**self.order_fields(engine) | {"view": 1})
            message = orders_pb.BatchCheckOrdersRequest(
                mode=orders_pb.BATCH_MODE_ALL_OR_NONE, orders=[order, order]
            )
        else:
            message = market_pb.ReportMarksRequest(
                marks=[market_pb.Mark(instrument_id=BTC, mark_price=self.marks[BTC], time_ns=1)]
            )
        good = message.SerializeToString()
        bad = rng.choice(
            (
                good[: rng.randrange(len(good))],
                good[: rng.randrange(len(good))],
                rng.randbytes(rng.randrange(1, 40)),
                good + b"\x98\x06\x01",  # field 99
                good + b"\x00\x01",  # field 0
                good + b"\x08" + b"\xff" * 10,  # a number of more than ten bytes
                good + b"\x10\x80\x80\x80\x80\x10",  # field 2 = 2^32
                good + b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # field 4 = -1
                good + b"\x20\x80\x80\x80\x80\x08",  # field 4 = 2^31
                good + b"\x0b\x0c",  # a group
                good + b"\x10\x81\x00",  # 1 in two bytes where one is enough
                good + b"\x10\x81\x80\x80\x80\x80\x80\x80\x80\x80\x02",  # 2^64 + 1
                good + good,
                good + b"\x0a\x05\x08",
                good[:3] + bytes([rng.randrange(256)]) + good[4:],
            )
        )
        if rng.random() < 0.05:
            method = rng.choice((0, 8))
        return ("raw", method, bad, self.now_ns)
