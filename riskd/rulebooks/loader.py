"""Read rulebooks: TOML files of format 1, described in docs/rulebooks.md.

The reader is strict. A key that it does not know is refused, because a misspelt bound would
otherwise be no bound; a number is read as the decimal that is written, never as a double.
"""

import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Final

from riskd.rulebooks.schema import (
    EXACT,
    FORMAT,
    LINEAR_OPTION,
    ONE,
    RATE_PLACES,
    ZERO,
    AssetRule,
    InstrumentRule,
    Provenance,
    Rulebook,
    RulebookError,
    ScheduleRule,
    TierRule,
    key_text,
    next_deduction,
    scaled,
    validate,
)

# Plain decimal text: no exponent, no underscore, no digit outside ASCII.
NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
DIGITS_MAX: Final = 40

PROVENANCE_KEYS: Final = ("source", "as_of", "sources")


def names() -> list[str]:
    """Return the names of the rulebooks that come with riskd."""
    packaged = files("riskd.rulebooks").iterdir()
    return sorted(entry.name[:-5] for entry in packaged if entry.name.endswith(".toml"))


def load(name_or_path: str | Path) -> Rulebook:
    """Load a packaged rulebook by its name, or a file by its path (with a / or ending in .toml).

    Raises RulebookError, naming the file, the key and the bound, if it cannot be read or used.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith(".toml"):
        try:
            content = Path(name_or_path).read_bytes()
        except OSError as error:
            raise RulebookError(text, "", error.strerror or str(error)) from error
        return loads(content, text)
    if text not in names():
        known = ", ".join(names())
        reason = f"no such rulebook; there are {known}, or give the path of a .toml file"
        raise RulebookError(text, "", reason)
    content = (files("riskd.rulebooks") / f"{text}.toml").read_bytes()
    return loads(content, f"{text}.toml")


def loads(content: bytes | str, path: str = "<text>") -> Rulebook:
    """Load a rulebook from TOML; path is what errors call it."""
    rulebook = _read_rulebook(Section(path, "", parse(content, path)))
    validate(rulebook, path)
    return rulebook


def parse(content: bytes | str, path: str) -> dict[str, object]:
    """Return the TOML document, its numbers as Decimal. Raises RulebookError if it is not TOML."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        return tomllib.loads(text, parse_float=Decimal)
    except UnicodeDecodeError as error:
        raise RulebookError(path, "", f"is not UTF-8: byte {error.start}") from error
    except (tomllib.TOMLDecodeError, RecursionError, ValueError, ArithmeticError) as error:
        raise RulebookError(path, "", f"is not TOML: {error}") from error


class Section:
    """A table of the file; each value is taken once, and `done` refuses what was not taken."""

    def __init__(self, path: str, key: str, table: object) -> None:
        if not isinstance(table, dict):
            raise RulebookError(path, key, "must be a table", table)
        self.path = path
        self.key = key
        self.table: dict[str, object] = dict(table)
        self.known: list[str] = []

    def at(self, key: str) -> str:
        """Return the full name of a key."""
        return f"{self.key}.{key_text(key)}" if self.key else key_text(key)

    def refuse(self, key: str, reason: str, value: object = None) -> RulebookError:
        return RulebookError(self.path, self.at(key), reason, value)

    def take(self, key: str) -> object:
        """Return a value, None if it is not there."""
        if key not in self.known:
            self.known.append(key)
        return self.table.pop(key, None)

    def need(self, key: str) -> object:
        value = self.take(key)
        if value is None:
            raise self.refuse(key, "is missing")
        return value

    def done(self) -> None:
        for key, value in self.table.items():
            known = ", ".join(self.known)
            raise self.refuse(key, f"unknown key; known here: {known}", value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.take(key)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.refuse(key, "is missing")
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(key, "must be a text that is not empty", value)
        return value

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if self._has(key) else None

    def number(self, key: str, default: Decimal | None = None) -> Decimal:
        value = self.take(key)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.refuse(key, "is missing")
        try:
            return read_number(value)
        except ValueError as error:
            raise self.refuse(key, str(error), value) from error

    def optional_number(self, key: str) -> Decimal | None:
        return self.number(key) if self._has(key) else None

    def integer(self, key: str, default: int | None = None) -> int:
        fallback = None if default is None else Decimal(default)
        value = self.number(key, fallback)
        number = scaled(value, 0)
        if number is None:
            raise self.refuse(key, "must be a whole number", value)
        return number

    def day(self, key: str) -> date:
        value = self.need(key)
        # A datetime is a date to isinstance.
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.refuse(key, "must be a date like 2024-10-24", value)
        return value

    def optional_time(self, key: str) -> datetime | None:
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise self.refuse(key, "must be a time with its zone, like 2030-12-27T08:00:00Z", value)
        return value.astimezone(UTC)

    def sections(self, key: str) -> dict[str, "Section"]:
        """Return the tables below a key by name; none if the key is not there."""
        value = self.take(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.refuse(key, "must be a table of tables", value)
        where = self.at(key)
        return {
            name: Section(self.path, f"{where}.{key_text(name)}", table)
            for name, table in value.items()
        }

    def rows(self, key: str) -> list["Section"]:
        """Return the tables of an array."""
        value = self.need(key)
        if not isinstance(value, list):
            raise self.refuse(key, "must be an array of tables", value)
        where = self.at(key)
        return [Section(self.path, f"{where}[{k}]", row) for k, row in enumerate(value)]

    def provenance(self, inherited: Provenance | None = None) -> Provenance:
        """Return source, as_of and sources; call it last, it checks sources against the keys."""
        keys = [key for key in self.known if key not in ("format", *PROVENANCE_KEYS)]
        source = self.text("source", inherited.source if inherited else None)
        as_of = self.day("as_of") if inherited is None or "as_of" in self.table else inherited.as_of
        raw = self.take("sources")
        if raw is None:
            return Provenance(source, as_of)
        where = Section(self.path, self.at("sources"), raw)
        sources = {}
        for key in list(where.table):
            if key not in keys:
                raise where.refuse(key, f"is no key of this section; keys are {', '.join(keys)}")
            sources[key] = where.text(key)
        return Provenance(source, as_of, sources)

    def _has(self, key: str) -> bool:
        self.known.append(key)
        return key in self.table


def read_number(value: object) -> Decimal:
    """Return a number of TOML or JSON, or one in quotes, as an exact decimal.

    Raises ValueError with the broken bound.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("must be a number, or a number in quotes")
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        raise ValueError("must be a plain decimal number, like 0.004")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError("must be a finite number")
    # Of an enormous exponent, an integer would take all memory: it ends here.
    if number and not -DIGITS_MAX < number.adjusted() < DIGITS_MAX:
        raise ValueError(f"must be between 10^-{DIGITS_MAX} and 10^{DIGITS_MAX}")
    if len(number.as_tuple().digits) > DIGITS_MAX:
        raise ValueError(f"has more than {DIGITS_MAX} digits")
    return number


def _read_rulebook(root: Section) -> Rulebook:
    read_format(root)
    name, title = root.text("name"), root.text("title")
    assets = root.sections("asset")
    schedules = root.sections("schedule")
    instruments = root.sections("instrument")
    provenance = root.provenance()
    root.done()
    return Rulebook(
        name=name,
        title=title,
        provenance=provenance,
        assets=tuple(_read_asset(symbol, section) for symbol, section in assets.items()),
        schedules=tuple(_read_schedule(key, section) for key, section in schedules.items()),
        instruments=tuple(
            read_instrument(symbol, section) for symbol, section in instruments.items()
        ),
    )


def read_format(root: Section) -> None:
    """Refuse a file of another format."""
    number = root.integer("format")
    if number != FORMAT:
        raise root.refuse("format", f"this riskd reads format {FORMAT}", number)


def _read_asset(symbol: str, section: Section) -> AssetRule:
    scale = section.integer("scale")
    provenance = section.provenance()
    section.done()
    return AssetRule(symbol, scale, provenance)


def _read_schedule(name: str, section: Section) -> ScheduleRule:
    settlement_asset = section.text("settlement_asset")
    notional_max = section.optional_number("notional_max")
    fee = section.number("liquidation_fee_rate", ZERO)
    tiers: list[TierRule] = []
    for row in section.rows("tier"):
        tiers.append(_read_tier(row, tiers[-1] if tiers else None))
    provenance = section.provenance()
    section.done()
    return ScheduleRule(name, settlement_asset, tuple(tiers), notional_max, fee, provenance)


def _read_tier(row: Section, previous: TierRule | None) -> TierRule:
    floor = row.number("floor")
    maintenance_rate = row.number("maintenance_rate")
    max_leverage = row.number("max_leverage")
    initial_rate = row.optional_number("initial_rate")
    deduction = row.optional_number("deduction")
    row.done()
    if initial_rate is None:
        if max_leverage <= ZERO:
            raise row.refuse("max_leverage", "must be above 0", max_leverage)
        initial_rate = inverse_leverage(max_leverage)
    if deduction is None:
        deduction = next_deduction(previous, floor, maintenance_rate) if previous else ZERO
    return TierRule(floor, initial_rate, maintenance_rate, deduction, max_leverage)


def inverse_leverage(max_leverage: Decimal) -> Decimal:
    """Return 1 / max_leverage, rounded down to 1e-9.

    Down, so that the leverage that a venue allows is not refused by the rounding of its inverse;
    the requirement itself is the larger of this rate's and the one of the leverage, rounded up.
    """
    places = 10**RATE_PLACES
    quotient = EXACT.divide_int(Decimal(places), max_leverage)
    return min(ONE, EXACT.scaleb(quotient, -RATE_PLACES))


def read_instrument(
    symbol: str,
    section: Section,
    defaults: Mapping[str, str] | None = None,
    inherited: Provenance | None = None,
) -> InstrumentRule:
    """Read one [instrument.SYMBOL]; defaults are for kind, settlement_asset and margin_schedule."""
    given = defaults or {}
    kind = section.text("kind", given.get("kind"))
    settlement_asset = section.text("settlement_asset", given.get("settlement_asset"))
    schedule = section.optional_text("margin_schedule") or given.get("margin_schedule")
    if schedule is None and kind != LINEAR_OPTION:
        raise section.refuse("margin_schedule", "is missing, only options have none")
    rule = InstrumentRule(
        symbol=symbol,
        kind=kind,
        settlement_asset=settlement_asset,
        margin_schedule=schedule or "",
        tick_size=section.number("tick_size"),
        lot_size=section.number("lot_size"),
        mark_units_per_tick=section.integer("mark_units_per_tick", 1),
        order_quantity_min=section.optional_number("order_quantity_min"),
        order_quantity_max=section.optional_number("order_quantity_max"),
        order_notional_min=section.optional_number("order_notional_min"),
        order_notional_max=section.optional_number("order_notional_max"),
        price_collar_rate=section.optional_number("price_collar_rate"),
        market_order_buffer_rate=section.number("market_order_buffer_rate", ZERO),
        taker_fee_rate=section.number("taker_fee_rate", ZERO),
        mark_age_max_ms=section.integer("mark_age_max_ms", 0),
        trading_state=section.text("trading_state", "normal"),
        expiry=section.optional_time("expiry"),
        strike=section.optional_number("strike"),
        option_type=section.optional_text("option_type"),
        interest_rate=section.optional_number("interest_rate"),
        underlying=section.optional_text("underlying"),
        provenance=section.provenance(inherited),
    )
    section.done()
    return rule
