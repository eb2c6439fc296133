"""The audit of changes: who changed what, when, from what to what.

A change goes to the engine through ChangeTrail.make, which reads what the change names before and
after it. A change that is replayed goes the same way, with the origin that is on record, so that
the trail after a restart is that of before; the changes before a snapshot are in a file beside it.
It is bounded: the oldest changes go first.
"""

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from riskd.catalogue import Catalogue
from riskd.numbers import leverage_text
from riskd.services.messages import (
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    SCOPE_INSTRUMENT,
    SCOPE_SERVICE,
    Messages,
    level_text,
)
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from riskd.core.engine import Engine

CHANGES_MAX = 10_000
CHANGES_SUFFIX = ".changes"
# A list of 10,000 ids is no use in an audit; the count of them is beside it.
VALUE_CHARS_MAX = 512

# What a start does by its settings, and the service as time goes on: nobody asked for it.
_UNASKED = ("create_book", "set_capacities", "evaluate_levels")

_SUBJECTS = {
    "account_id": SCOPE_ACCOUNT,
    "parent_account_id": SCOPE_ACCOUNT,
    "gateway_id": SCOPE_GATEWAY,
    "instrument_id": SCOPE_INSTRUMENT,
    "firm_id": SCOPE_FIRM,
}

Values = dict[str, str]
Subject = tuple[int, int]

_logger = logging.getLogger("riskd.changes")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for a change, and with which request. Goes on record with the change."""

    actor: str
    method: str
    arguments: Values

    @classmethod
    def of(cls, actor: str, request: Message) -> "Origin":
        """Return the origin of a request."""
        method = request.DESCRIPTOR.name.removesuffix("Request")
        return cls(actor, method, dict(flatten(request)))

    def to_text(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps([self.actor, self.method, self.arguments], separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str, command: str, arguments: Mapping[str, Any]) -> "Origin":
        """Return what to_text wrote.

        Any other text is an actor that called the engine itself: command and arguments are then
        those of the engine.
        """
        try:
            match json.loads(text):
                case [str(actor), str(method), dict(values)]:
                    return cls(actor, method, {str(key): str(values[key]) for key in values})
        except ValueError:
            pass
        return cls(text, command, {key: str(value) for key, value in arguments.items()})


@dataclass(frozen=True, slots=True)
class ChangedValue:
    """A fact before and after a change; empty where it is not there."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was made."""

    revision: int
    time_ns: int
    origin: Origin
    changes: tuple[ChangedValue, ...]
    subjects: frozenset[Subject]


class ChangeTrail:
    """The last changes of an engine. Thread-safe; changes themselves must come one at a time."""

    def __init__(self, engine: "Engine", count_max: int = CHANGES_MAX) -> None:
        self._engine = engine
        self._messages = Messages(engine, Catalogue(engine))
        self._changes: deque[Change] = deque(maxlen=count_max)
        self._lock = threading.Lock()

    def make(
        self,
        origin: Origin,
        time_ns: int,
        command: str,
        arguments: Mapping[str, Any],
        apply: Callable[[], Any],
    ) -> tuple[Any, Change | None]:
        """Make a change; return what the engine answered, and the change unless it made none.

        command and arguments are those of the engine's method that apply calls. The caller logs
        the change (log_change) once it holds no lock: the log can be slow.
        """
        before = self._facts(command, arguments, time_ns)
        revision = self._engine.change_revision
        answer = apply()
        reason, *figures = answer if isinstance(answer, tuple) else (answer,)
        # Mass cancels that find nothing, and a mode that is there already, change nothing.
        is_changed = self._engine.change_revision != revision
        if reason != types_pb2.REASON_CODE_NONE or not is_changed:
            return answer, None
        change = Change(
            self._engine.change_revision,
            time_ns,
            origin,
            *self._seen(origin, time_ns, command, arguments, before, figures),
        )
        with self._lock:
            self._changes.append(change)
        return answer, change

    def replay(
        self,
        command: str,
        arguments: Mapping[str, Any],
        actor: str,
        time_ns: int,
        apply: Callable[[], Any],
    ) -> None:
        """Make a change that is on record again: Engine.watch_replay takes this."""
        origin = Origin.from_text(actor, command, arguments)
        before = self._facts(command, arguments, time_ns)
        answer = apply()
        figures = list(answer[1:]) if isinstance(answer, tuple) else []
        if command not in _UNASKED:
            seen = self._seen(origin, time_ns, command, arguments, before, figures)
            with self._lock:
                self._changes.append(Change(self._engine.revision, time_ns, origin, *seen))

    def _seen(
        self,
        origin: Origin,
        time_ns: int,
        command: str,
        arguments: Mapping[str, Any],
        before: Values,
        figures: list[Any],
    ) -> tuple[tuple[ChangedValue, ...], frozenset[Subject]]:
        """Return what a change that was just made changed, and whom it is about."""
        after = self._facts(command, arguments, time_ns)
        moved = self._moved(command, arguments, figures)
        changes = (*_differences(before, after), *moved)
        return changes, frozenset(_subjects(origin.arguments)) | frozenset(_subjects(after))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the changes to a file, one line of JSON each: it is there as a whole or not."""
        with self._lock:
            held = list(self._changes)
        unfinished = f"{os.fspath(path)}.tmp"
        with open(unfinished, "w", encoding="ascii") as file:
            for change in held:
                fields = [
                    change.revision,
                    change.time_ns,
                    change.origin.to_text(),
                    [[each.name, each.before, each.after] for each in change.changes],
                    sorted(change.subjects),
                ]
                file.write(json.dumps(fields, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take the changes of a file before those that are here.

        Raises OSError, and ValueError if it is not what save wrote; then nothing was taken.
        """
        before: list[Change] = []
        with open(path, encoding="ascii") as file:
            for line in file:
                try:
                    revision, time_ns, text, changes, subjects = json.loads(line)
                    change = Change(
                        int(revision),
                        int(time_ns),
                        Origin.from_text(text, "", {}),
                        tuple(ChangedValue(*each) for each in changes),
                        frozenset((int(scope), int(of)) for scope, of in subjects),
                    )
                except (TypeError, ValueError):
                    raise ValueError(
                        f"{os.fspath(path)}: line {len(before) + 1} is no change"
                    ) from None
                before.append(change)
        with self._lock:
            self._changes = deque([*before, *self._changes], maxlen=self._changes.maxlen)

    def newest(self, subject: Subject | None, before: int, count_max: int) -> list[Change]:
        """Return changes of lower revisions than before (0: all), newest first."""
        with self._lock:
            held = list(self._changes)
        found = []
        for change in reversed(held):
            if before and change.revision >= before:
                continue
            if subject is None or subject in change.subjects:
                found.append(change)
                if len(found) == count_max:
                    break
        return found

    def _facts(self, command: str, arguments: Mapping[str, Any], time_ns: int) -> Values:
        """Return what a command can change and orders and fills cannot."""
        engine, messages = self._engine, self._messages
        found: Iterable[Message | None]
        match command:
            case "create_asset":
                symbols = {row.symbol: row for row in engine.assets()}
                row = symbols.get(arguments["symbol"])
                return {} if row is None else {"symbol": row.symbol, "scale": str(row.scale)}
            case "upsert_schedule":
                name = arguments["name"]
                found = [messages.schedule(row) for row in engine.schedules() if row.name == name]
            case "upsert_option_rule":
                name = arguments["name"]
                found = [
                    messages.option_rule(row) for row in engine.schedules() if row.name == name
                ]
            case "define_collateral":
                pair = arguments["asset_id"], arguments["settlement_asset_id"]
                found = [
                    messages.collateral(row)
                    for row in engine.collateral()
                    if (row.asset_id, row.settlement_asset_id) == pair
                ]
            case "set_margin_levels":
                names = "search", "release"
                levels = map(level_text, engine.margin_levels())
                return dict(zip(names, levels, strict=True))
            case "report_open_interest" | "apply_funding" | "settle_instrument":
                return self._told_of(arguments["instrument_id"])
            case "set_credit_line":
                return self._credit_line(arguments)
            case "load_position":
                return self._position(arguments)
            case "upsert_instrument":
                symbol = arguments["symbol"]
                found = [
                    messages.instrument(row) for row in engine.instruments() if row.symbol == symbol
                ]
            case "create_account" | "set_account_owner" | "set_position_mode":
                account = engine.account(arguments["account_id"])
                if account is None:
                    return {}
                values = dict(flatten(messages.account(account)))
                for name in ("cash", "balances"):
                    values.pop(name, None)
                return values
            case "change_margin_mode" | "set_leverage":
                return self._position_settings(arguments)
            case "set_trading_state":
                key = arguments["scope"], arguments["scope_id"]
                states = {(scope, of): state for scope, of, state in engine.trading_states()}
                state = states.get(key, types_pb2.TRADING_STATE_NORMAL)
                name = types_pb2.TradingState.Name(types_pb2.TradingState.ValueType(state))
                return {"trading_state": name.removeprefix("TRADING_STATE_")}
            case "create_firm":
                firm_id = arguments["firm_id"]
                found = [messages.firm(row) for row in engine.firms() if row.firm_id == firm_id]
            case "renew_lease":
                gateway_id = arguments["gateway_id"]
                found = [
                    messages.gateway(row)
                    for row in engine.gateways()
                    if row.gateway_id == gateway_id
                ]
            case "set_limit" | "raise_limit" | "remove_limit" | "reset_usage":
                return self._limit(arguments, time_ns)
            case _:
                return {}
        return {name: value for message in found if message for name, value in flatten(message)}

    def _told_of(self, instrument_id: int) -> Values:
        """Return what an instrument is told of beside its definition."""
        for row in self._engine.instruments():
            if row.instrument_id == instrument_id:
                values = dict(flatten(self._messages.instrument(row)))
                names = ("open_interest", "funding_time_ns", "settlement_price")
                told = {name: values[name] for name in names if name in values}
                return told | {"instrument_id": str(instrument_id)}
        return {}

    def _credit_line(self, arguments: Mapping[str, Any]) -> Values:
        scope, scope_id = arguments["scope"], arguments["scope_id"]
        asset = self._messages.limit_asset(scope, scope_id)
        row = (
            self._engine.account(scope_id)
            if scope == SCOPE_ACCOUNT
            else next((row for row in self._engine.firms() if row.firm_id == scope_id), None)
        )
        if asset is None or row is None:
            return {}
        owner = "account_id" if scope == SCOPE_ACCOUNT else "firm_id"
        return {owner: str(scope_id), "credit_line": asset.amount(row.credit_line)}

    def _position(self, arguments: Mapping[str, Any]) -> Values:
        key = arguments["instrument_id"], arguments["position_side"]
        for row in self._engine.positions(arguments["account_id"]) or []:
            if (row.instrument_id, row.position_side) == key and row.lots:
                instrument = self._messages.instrument_of(row.instrument_id)
                amount = instrument.asset.amount
                return {
                    "quantity": instrument.quantity(row.lots),
                    "entry_value": amount(row.entry_value),
                    "isolated_wallet": amount(row.isolated_wallet),
                }
        return {}

    def _position_settings(self, arguments: Mapping[str, Any]) -> Values:
        for row in self._engine.positions(arguments["account_id"]) or []:
            if row.instrument_id == arguments["instrument_id"]:
                mode = types_pb2.MarginMode.Name(types_pb2.MarginMode.ValueType(row.margin_mode))
                return {
                    "margin_mode": mode.removeprefix("MARGIN_MODE_"),
                    "leverage": leverage_text(row.leverage),
                }
        return {}

    def _limit(self, arguments: Mapping[str, Any], time_ns: int) -> Values:
        names = ("scope", "scope_id", "instrument_id", "kind")
        key = tuple(arguments[name] for name in names)
        for row in self._engine.limits():
            if (row.scope, row.scope_id, row.instrument_id, row.kind) == key:
                values = dict(flatten(self._messages.bare_limit(row, time_ns)))
                return values | {"due_ns": str(row.due_ns), "peak": str(row.peak)}
        return {}

    def _moved(
        self, command: str, arguments: Mapping[str, Any], figures: list[Any]
    ) -> Iterator[ChangedValue]:
        """Yield what also orders and fills can change, from the engine's own answer."""
        match command:
            case "create_account":
                row = self._engine.account(arguments["account_id"])
                assert row is not None, "it was just created"
                asset = self._messages.asset_of(row.asset_id)
                yield ChangedValue("cash", "", asset.amount(arguments["cash"]))
            case "adjust_collateral":
                row = self._engine.account(arguments["account_id"])
                assert row is not None, "its collateral was just changed"
                asset = self._messages.asset_of(arguments["asset_id"])
                name = "cash" if row.asset_id == asset.asset_id else f"balance {asset.symbol}"
                before = asset.amount(figures[0] - arguments["amount"])
                yield ChangedValue(name, before, asset.amount(figures[0]))
            case "transfer_margin":
                steps = self._messages.instrument_of(arguments["instrument_id"])
                wallet = figures[0]
                before = steps.asset.amount(wallet - arguments["amount"])
                yield ChangedValue("isolated_wallet", before, steps.asset.amount(wallet))
            case "change_margin_mode":
                steps = self._messages.instrument_of(arguments["instrument_id"])
                yield ChangedValue("cash_flow", "", steps.asset.amount(figures[2]))
            case "apply_funding":
                steps = self._messages.instrument_of(arguments["instrument_id"])
                positions, *sums = figures
                yield ChangedValue("positions", "", str(positions))
                for name, value in zip(("paid", "received"), sums, strict=True):
                    yield ChangedValue(name, "", steps.asset.amount(value))
            case "settle_instrument":
                steps = self._messages.instrument_of(arguments["instrument_id"])
                positions, orders, *sums = figures
                yield ChangedValue("positions", str(positions), "0")
                yield ChangedValue("released_orders", str(orders), "0")
                for name, value in zip(("profit", "loss", "deficit"), sums, strict=True):
                    yield ChangedValue(name, "", steps.asset.amount(value))
            case "cancel_orders":
                count, reservations = figures
                yield ChangedValue("released_orders", str(count), "0")
                yield ChangedValue("released_reservations", _cut(reservations), "")


def log_change(change: Change, peer: str = "") -> None:
    """Write the log's line of a change that was made, with the address of the client."""
    line = {
        "method": change.origin.method,
        "actor": change.origin.actor,
        "peer": peer,
        "revision": change.revision,
        "arguments": change.origin.arguments,
        "changes": {each.name: [each.before, each.after] for each in change.changes},
    }
    _logger.info("changed", extra={"fields": line})


class RecordedDefinitions:
    """An engine as a rulebook sees it: what it defines goes on record under its name.

    changes are those that were made; the caller logs them once it holds no lock.
    """

    def __init__(self, engine: "Engine", trail: ChangeTrail, rulebook: str, time_ns: int) -> None:
        self._engine = engine
        self._trail = trail
        self._origin = Origin("riskd", "ApplyRulebook", {"rulebook": rulebook})
        self._time_ns = time_ns
        self.changes: list[Change] = []
        self.assets = engine.assets
        self.schedules = engine.schedules
        self.instruments = engine.instruments
        self.collateral = engine.collateral
        self.margin_levels = engine.margin_levels

    def create_asset(self, symbol: str, scale: int) -> tuple[int, int]:
        """Return as Engine.create_asset does."""
        return cast(tuple[int, int], self._make("create_asset", symbol=symbol, scale=scale))

    def upsert_schedule(
        self,
        name: str,
        asset_id: int,
        tiers: Sequence[tuple[int, int, int, int]],
        notional_max: int = 0,
        liquidation_fee_ppb: int = 0,
        **arguments: int,
    ) -> tuple[int, int]:
        """Return as Engine.upsert_schedule does."""
        answer: tuple[int, int] = self._make(
            "upsert_schedule",
            name=name,
            asset_id=asset_id,
            tiers=tiers,
            notional_max=notional_max,
            liquidation_fee_ppb=liquidation_fee_ppb,
            **arguments,
        )
        return answer

    def upsert_option_rule(self, name: str, asset_id: int, **arguments: int) -> tuple[int, int]:
        """Return as Engine.upsert_option_rule does."""
        return cast(
            tuple[int, int],
            self._make("upsert_option_rule", name=name, asset_id=asset_id, **arguments),
        )

    def define_collateral(self, asset_id: int, settlement_asset_id: int, **arguments: Any) -> int:
        """Return as Engine.define_collateral does."""
        answer: int = self._make(
            "define_collateral",
            asset_id=asset_id,
            settlement_asset_id=settlement_asset_id,
            **arguments,
        )
        return answer

    def set_margin_levels(self, search_ppm: int, release_ppm: int) -> int:
        """Return as Engine.set_margin_levels does."""
        return cast(
            int, self._make("set_margin_levels", search_ppm=search_ppm, release_ppm=release_ppm)
        )

    def upsert_instrument(self, symbol: str, **arguments: int) -> tuple[int, int]:
        """Return as Engine.upsert_instrument does."""
        return cast(tuple[int, int], self._make("upsert_instrument", symbol=symbol, **arguments))

    def _make(self, command: str, **arguments: Any) -> Any:
        answer, change = self._trail.make(
            self._origin,
            self._time_ns,
            command,
            arguments,
            lambda: getattr(self._engine, command)(
                **arguments, now_ns=self._time_ns, actor=self._origin.to_text()
            ),
        )
        if change is not None:
            self.changes.append(change)
        return answer


def flatten(message: Message, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and the text of everything that is set in a message."""
    for field, value in message.ListFields():
        name = f"{prefix}{field.name}"
        if field.is_repeated:
            yield name, _cut(value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from flatten(value, f"{name}.")
        else:
            yield name, _scalar(field, value)


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        if named is not None:
            prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
            return str(named.name).removeprefix(prefix)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cut(values: Iterable[Any]) -> str:
    """Return a list as text, not too long."""
    rows = list(values)
    texts = (
        text_format.MessageToString(row, as_one_line=True).strip()
        if isinstance(row, Message)
        else str(row)
        for row in rows
    )
    text = ""
    for each in texts:
        text += f"{', ' if text else ''}{each}"
        if len(text) > VALUE_CHARS_MAX:
            return f"{text[:VALUE_CHARS_MAX]}... ({len(rows)})"
    return text


def _differences(before: Values, after: Values) -> Iterator[ChangedValue]:
    for name in {**before, **after}:
        values = before.get(name, ""), after.get(name, "")
        if values[0] != values[1]:
            yield ChangedValue(name, *values)


def _subjects(values: Values) -> Iterator[Subject]:
    """Yield the scopes that a request or a message names."""
    scope = values.get("key.scope")
    if scope is not None and "key.scope_id" in values:
        named = types_pb2.LimitScope.Value(f"LIMIT_SCOPE_{scope}")
        yield int(named), int(values["key.scope_id"])
    for name, value in values.items():
        last = name.rpartition(".")[2]
        if last in _SUBJECTS:
            yield _SUBJECTS[last], int(value)
        elif last == "service":
            yield SCOPE_SERVICE, 0
