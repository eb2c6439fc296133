"""Limits as a TOML file: what `riskd limits set --file` sends, and what a scratch engine is given.

One table a limit, with the values of docs/limits.md in words:

    [[limit]]
    account = 7                  # or firm = 1, or gateway = 3
    kind = "POSITION_LOTS_MAX"   # in either case
    instrument = "BTC-PERP"      # left out: all instruments
    value = 2.5                  # a number, or its text; left out for DENIED and ALLOWED
    action = "HARD"              # or "SOFT"; left out: HARD

The two rates also have `burst`. A value is read as the decimal that is written, never as a double.
The reader is strict: a key that it does not know is refused, and so is a limit that is named twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from riskd import limits
from riskd.catalogue import Asset, Catalogue, Instrument
from riskd.numbers import NumberError
from riskd.rulebooks.schema import RulebookError, plain, show
from riskd.rulebooks.sections import Section, parse
from riskd.services.errors import reason_name
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from riskd.core.engine import Engine

SCOPES = {
    "gateway": types_pb2.LIMIT_SCOPE_GATEWAY,
    "account": types_pb2.LIMIT_SCOPE_ACCOUNT,
    "firm": types_pb2.LIMIT_SCOPE_FIRM,
}
_ID_BITS = {"gateway": 32, "account": 64, "firm": 32}
HARD = "HARD"
SOFT = "SOFT"
_ACTIONS = {HARD: types_pb2.LIMIT_ACTION_HARD, SOFT: types_pb2.LIMIT_ACTION_SOFT}

Name = tuple[int, int, str, int]


class LimitsFileError(ValueError):
    """A file of limits cannot be used: names the file, the key, its value and the broken bound."""


@dataclass(frozen=True, slots=True)
class LimitRule:
    """A limit as it is written: the value as text, "" where the kind has none."""

    at: str
    """File and table, for messages."""
    scope: types_pb2.LimitScope.ValueType
    scope_id: int
    instrument: str
    """Symbol, or "" for all instruments."""
    kind: types_pb2.LimitKind.ValueType
    value: str
    burst: int
    action: types_pb2.LimitAction.ValueType

    @property
    def name(self) -> Name:
        """What makes it one limit and not another."""
        return self.scope, self.scope_id, self.instrument, self.kind

    def refuse(self, key: str, value: object, bound: str) -> LimitsFileError:
        """Return the error for a value of this limit."""
        return LimitsFileError(f"{self.at}.{key} = {show(value)}: {bound}")


def load(path: str | Path) -> list[LimitRule]:
    """Return the limits of a file. Raises LimitsFileError."""
    try:
        return loads(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise LimitsFileError(f"{path}: {error.strerror or error}") from error


def loads(content: bytes | str, path: str = "<text>") -> list[LimitRule]:
    """Return the limits of a TOML text; path is what errors call it. Raises LimitsFileError."""
    try:
        whole = Section(path, "", parse(content, path))
        tables = whole.take("limit")
        whole.done()
        if not isinstance(tables, list) or not tables:
            raise whole.refuse("limit", "must be one or more tables [[limit]]", tables)
        rules = [_read(Section(path, f"limit[{k}]", table)) for k, table in enumerate(tables)]
    except RulebookError as error:
        raise LimitsFileError(str(error)) from None
    seen: dict[Name, str] = {}
    for rule in rules:
        if rule.name in seen:
            raise LimitsFileError(f"{rule.at}: the same limit is {seen[rule.name]}")
        seen[rule.name] = rule.at.rpartition(" ")[2]
    return rules


def read_table(table: dict[str, object], name: str, *, is_name_only: bool = False) -> LimitRule:
    """Return the limit of a table that is no file's, such as flags of a command line.

    is_name_only: it names the limit and has no value. Raises LimitsFileError.
    """
    try:
        return _read(Section("", name, table), is_name_only=is_name_only)
    except RulebookError as error:
        raise LimitsFileError(str(error).removeprefix(": ")) from None


def _read(section: Section, *, is_name_only: bool = False) -> LimitRule:
    given = [(scope, value) for scope in SCOPES if (value := section.take(scope)) is not None]
    if len(given) != 1:
        names = " and ".join(scope for scope, _ in given) or "none"
        raise RulebookError(
            section.path,
            section.key,
            f"must name one of gateway, account and firm, it names {names}",
        )
    ((scope, scope_id),) = given
    bits = _ID_BITS[scope]
    if isinstance(scope_id, bool) or not isinstance(scope_id, int) or not 0 < scope_id < 1 << bits:
        raise section.refuse(scope, f"must be 1 to 2^{bits} - 1", scope_id)
    kind_text = section.need("kind")
    kind = limits.KINDS.get(kind_text.upper()) if isinstance(kind_text, str) else None
    if kind is None:
        known = ", ".join(limits.KINDS)
        raise section.refuse("kind", f"must be one of {known}", kind_text)
    name = limits.kind_name(kind)
    if scope == "gateway" and kind != types_pb2.LIMIT_KIND_ORDER_RATE_MAX:
        raise section.refuse("kind", "must be ORDER_RATE_MAX on a gateway", kind_text)
    instrument = section.take("instrument")
    if instrument is not None and (not isinstance(instrument, str) or not instrument):
        raise section.refuse("instrument", "must be a symbol", instrument)
    if instrument is None and limits.needs_instrument(kind):
        raise section.refuse("instrument", f"is missing: {name} needs one")
    if instrument is not None and not limits.takes_instrument(kind):
        raise section.refuse("instrument", f"must be left out for {name}", instrument)
    action = section.take("action")
    if action is not None and (not isinstance(action, str) or action.upper() not in _ACTIONS):
        raise section.refuse("action", "must be HARD or SOFT", action)
    rule = LimitRule(
        at=f"{section.path}: {section.key}" if section.path else section.key,
        scope=SCOPES[scope],
        scope_id=scope_id,
        instrument=instrument or "",
        kind=kind,
        value="" if is_name_only else _read_value(section, kind),
        burst=0 if is_name_only else _read_burst(section, kind),
        action=_ACTIONS[action.upper()] if isinstance(action, str) else _ACTIONS[HARD],
    )
    section.done()
    return rule


def _read_value(section: Section, kind: int) -> str:
    value = section.take("value")
    name = limits.kind_name(kind)
    if limits.unit_of(kind) is limits.Unit.NONE:
        if value is not None:
            raise section.refuse("value", f"must be left out for {name}", value)
        return ""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Decimal) and value.is_finite():
        return plain(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise section.refuse("value", f"must be a number for {name}", value)


def _read_burst(section: Section, kind: int) -> int:
    burst = section.take("burst")
    name = limits.kind_name(kind)
    if not limits.has_burst(kind):
        if burst is not None:
            raise section.refuse("burst", f"must be left out for {name}", burst)
        return 0
    if isinstance(burst, bool) or not isinstance(burst, int) or not 1 <= burst <= limits.BURST_MAX:
        raise section.refuse("burst", f"must be 1 to {limits.BURST_MAX} for {name}", burst)
    return burst


def apply(
    rules: Iterable[LimitRule], engine: "Engine", now_ns: int, *, replace: bool = False
) -> int:
    """Set the limits of a file on an engine, a level before those under it; return how many.

    With replace the limits that the file does not name are removed first, so that it is the whole
    of them. Raises LimitsFileError, naming the limit and the reason; those before it are set then.
    """
    catalogue = Catalogue(engine)
    resolved = [(rule, *_resolve(rule, engine, catalogue)) for rule in rules]
    if replace:
        kept = {(rule.scope, rule.scope_id, key[0], rule.kind) for rule, *key in resolved}
        for row in engine.limits():
            if row[:4] not in kept:
                engine.remove_limit(*row[:4], now_ns=now_ns)
    for rule, instrument_id, value in sorted(resolved, key=lambda each: level(each[0], engine)):
        reason = engine.set_limit(
            rule.scope,
            rule.scope_id,
            instrument_id,
            rule.kind,
            value,
            rule.burst,
            rule.action,
            now_ns,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise LimitsFileError(f"{rule.at}: {reason_name(reason)}")
    return len(resolved)


def level(rule: LimitRule, engine: "Engine") -> int:
    """Return how deep in the tree a limit is: a parent's must be there before a child's."""
    if rule.scope != types_pb2.LIMIT_SCOPE_ACCOUNT:
        return 0
    account = engine.account(rule.scope_id)
    return 2 if account is not None and account.parent_account_id else 1


def _resolve(rule: LimitRule, engine: "Engine", catalogue: Catalogue) -> tuple[int, int]:
    """Return (instrument id, value) as the engine takes them."""
    instrument: Instrument | None = None
    if rule.instrument:
        instrument = catalogue.instrument_by_symbol(rule.instrument)
        if instrument is None:
            raise rule.refuse("instrument", rule.instrument, "no such instrument")
    asset: Asset | None = None
    if rule.scope == types_pb2.LIMIT_SCOPE_ACCOUNT:
        account = engine.account(rule.scope_id)
        if account is None:
            raise rule.refuse("account", rule.scope_id, "no such account")
        asset = catalogue.asset(account.asset_id)
    elif rule.scope == types_pb2.LIMIT_SCOPE_FIRM:
        asset = catalogue.asset_of_firm(rule.scope_id)
        if asset is None:
            raise rule.refuse("firm", rule.scope_id, "no such firm")
    if limits.unit_of(rule.kind) is limits.Unit.NONE:
        value = 0
    else:
        try:
            value = limits.read_value(rule.value, rule.kind, asset, instrument, "value")
        except NumberError as error:
            raise rule.refuse("value", rule.value, error.bound) from None
    return instrument.instrument_id if instrument else 0, value
