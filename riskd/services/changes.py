"""The audit of changes: who changed what, when, from what to what.

A change goes to the engine through ChangeTrail.make, which reads what the change names before and
after it. A change that is replayed goes the same way, with the origin that is on record, so that
the trail after a restart is that of before. It is bounded: the oldest changes go first.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
)
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from riskd.core.engine import Engine

CHANGES_MAX = 10_000
# A list of 10,000 ids is no use in an audit; the count of them is beside it.
VALUE_CHARS_MAX = 512

_SUBJECTS = {
    "account_id": SCOPE_ACCOUNT,
    "parent_account_id": SCOPE_ACCOUNT,
    "gateway_id": SCOPE_GATEWAY,
    "instrument_id": SCOPE_INSTRUMENT,
    "firm_id": SCOPE_FIRM,
}

Values = dict[str, str]
Subject = tuple[int, int]


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

        command and arguments are those of the engine's method that apply calls.
        """
        revision_before = self._engine.revision
        before = self._facts(command, arguments, time_ns)
        answer = apply()
        reason, *figures = answer if isinstance(answer, tuple) else (answer,)
        # Mass cancels that find nothing change nothing.
        if reason != types_pb2.REASON_CODE_NONE or (command == "cancel_orders" and not figures[0]):
            return answer, None
        revision = self._engine.revision
        assert revision > revision_before, f"{command} changed something and left the revision"
        after = self._facts(command, arguments, time_ns)
        moved = self._moved(command, arguments, figures)
        changes = (*_differences(before, after), *moved)
        subjects = frozenset(_subjects(origin.arguments)) | frozenset(_subjects(after))
        change = Change(revision, time_ns, origin, changes, subjects)
        with self._lock:
            self._changes.append(change)
        return answer, change

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
            case _:
                return {}
        return {name: value for message in found if message for name, value in flatten(message)}

    def _position_settings(self, arguments: Mapping[str, Any]) -> Values:
        for row in self._engine.positions(arguments["account_id"]) or []:
            if row.instrument_id == arguments["instrument_id"]:
                mode = types_pb2.MarginMode.Name(types_pb2.MarginMode.ValueType(row.margin_mode))
                return {
                    "margin_mode": mode.removeprefix("MARGIN_MODE_"),
                    "leverage": leverage_text(row.leverage),
                }
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
            case "cancel_orders":
                count, reservations = figures
                yield ChangedValue("released_orders", str(count), "0")
                yield ChangedValue("released_reservations", _cut(reservations), "")


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
