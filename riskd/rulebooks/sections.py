"""Read the tables of a TOML file strictly: each value once, exact, and none left over."""

import re
import tomllib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from riskd.rulebooks.keys import Key
from riskd.rulebooks.schema import (
    Provenance,
    Row,
    RulebookError,
    Value,
    key_text,
    scaled,
)

# Plain decimal text: no exponent, no underscore, no digit outside ASCII.
NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
DIGITS_MAX: Final = 40

PROVENANCE_KEYS: Final = ("source", "as_of", "sources")

# Some 100 times the largest rulebook of a venue.
FILE_BYTES_MAX: Final = 16 * 2**20


def read_file(path: str | Path, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """Return what the file holds. Raises RulebookError if it cannot be read or is larger."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise RulebookError(str(path), "", error.strerror or str(error)) from error
    if len(content) > bytes_max:
        raise RulebookError(str(path), "", f"is more than {bytes_max} bytes")
    return content


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

    def flag(self, key: str) -> bool:
        """Return true or false; false if it is not there."""
        value = self.take(key)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(key, "must be true or false", value)
        return value or False

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
        return {
            name: Section(self.path, f"{self.at(key)}.{key_text(name)}", table)
            for name, table in self._tables(key).items()
        }

    def versions(self, key: str) -> list[tuple[str, "Section"]]:
        """Return the tables below a key with their names; of an array of tables, each of them."""
        found = []
        for name, value in self._tables(key).items():
            where = f"{self.at(key)}.{key_text(name)}"
            if not isinstance(value, list):
                found.append((name, Section(self.path, where, value)))
                continue
            for k, table in enumerate(value):
                found.append((name, Section(self.path, f"{where}[{k}]", table)))
        return found

    def section(self, key: str) -> "Section | None":
        """Return the table of a key, None if it is not there."""
        value = self.take(key)
        return None if value is None else Section(self.path, self.at(key), value)

    def values(self, keys: Sequence[Key], *, has_defaults: bool = True) -> dict[str, Value]:
        """Return the values that are there, and defaults; bounds are left to the laws."""
        found: dict[str, Value] = {}
        for key in keys:
            value = self._value(key)
            if value is None and has_defaults:
                value = key.default
            if value is not None:
                found[key.name] = value
        return found

    def _value(self, key: Key) -> Value | None:
        if key.words or key.is_name:
            return self.optional_text(key.name)
        if key.is_flag:
            return self.flag(key.name) if self._has(key.name) else None
        if not key.columns:
            return self.optional_number(key.name)
        return self._rows_of(key) if self._has(key.name) else None

    def _rows_of(self, key: Key) -> tuple[Row, ...]:
        table = []
        for row in self.rows(key.name):
            cells: dict[str, Decimal] = {}
            for column in key.columns:
                cell = row.number(column.name) if column.is_required else None
                if cell is None:
                    cell = row.optional_number(column.name)
                if cell is not None:
                    cells[column.name] = cell
            row.done()
            table.append(cells)
        return tuple(table)

    def _tables(self, key: str) -> dict[str, object]:
        value = self.take(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.refuse(key, "must be a table of tables", value)
        return value

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
