"""Take over margin tiers that venues publish.

The ccxt layout (`fetchLeverageTiers`, as freqtrade stores it) is a JSON object: unified symbol to
a list of tiers with tier, currency, minNotional, maxNotional, maintenanceMarginRate, maxLeverage
and info, the venue's own row. It has no price or quantity steps, so an import gives margin
schedules; instruments are added only for the symbols whose steps a second file gives.
"""

import gzip
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Final

from riskd.rulebooks.laws import ladder_violation, next_deduction, validate
from riskd.rulebooks.loader import inverse_leverage, read_format, read_instrument
from riskd.rulebooks.schema import (
    ASSET_SYMBOL,
    LINEAR_PERPETUAL,
    TIERS_MAX,
    ZERO,
    AssetRule,
    InstrumentRule,
    Provenance,
    Rulebook,
    RulebookError,
    ScheduleRule,
    TierRule,
    plain,
    show,
)
from riskd.rulebooks.sections import Section, parse, read_number

# Enough for coins (1 satoshi) and for stablecoins alike; Binance prints 8 decimals of both.
ASSET_SCALE: Final = 8
# Venues print the largest 64-bit integer, or the double next to it, where there is no bound.
UNBOUNDED: Final = Decimal("9.2e18")
PROBLEMS_SHOWN: Final = 20

# BASE/QUOTE:SETTLE or BASE/QUOTE:SETTLE-YYMMDD.
SYMBOL: Final = re.compile(
    r"(?P<base>[^/:\s-]+)/(?P<quote>[^/:\s-]+):(?P<settle>[^/:\s-]+)(?:-(?P<expiry>[0-9]{6}))?"
)
GZIP_MAGIC: Final = b"\x1f\x8b"

# What our laws call a figure, and what the file calls it.
CCXT_KEYS: Final = {
    "floor": "minNotional",
    "initial_rate": "maxLeverage (1 / maxLeverage is the initial rate)",
    "maintenance_rate": "maintenanceMarginRate",
    "deduction": "info.cum",
    "max_leverage": "maxLeverage",
}


@dataclass(frozen=True, slots=True)
class Market:
    """A unified symbol in its parts."""

    symbol: str
    base: str
    quote: str
    settle: str
    expiry: str

    @property
    def name(self) -> str:
        """Return the name of its schedule and instrument: BTCUSDT, BTCUSDT_241227."""
        name = self.base + self.quote
        if self.settle not in (self.base, self.quote):
            name += f":{self.settle}"
        return f"{name}_{self.expiry}" if self.expiry else name

    @property
    def is_linear_perpetual(self) -> bool:
        return self.settle == self.quote and not self.expiry


class _SymbolError(ValueError):
    """What is wrong with one symbol."""


class _TierError(_SymbolError):
    """What is wrong with one tier, counted from 0."""

    def __init__(self, k: int, key: str, value: object, reason: str) -> None:
        shown = "" if value is None else f" = {show(value)}"
        super().__init__(f"tier {k + 1}: {key}{shown}: {reason}")


def import_ccxt(
    path_or_file: str | Path | BinaryIO,
    *,
    name: str | None = None,
    as_of: date | None = None,
    source: str | None = None,
    symbols: Collection[str] = (),
    steps: str | Path | None = None,
) -> Rulebook:
    """Return the rulebook of a file in the ccxt layout, plain or gzip.

    symbols selects (BTC/USDT:USDT or BTCUSDT); none is all. steps is a TOML file with price and
    quantity steps: instruments are made for the symbols in it, and for no others. as_of is the
    date of the figures; without it, a date in the file's name (20241024), or its modification.
    Raises RulebookError, naming each symbol that cannot be used, its tier, key and value.
    """
    path, content = _read(path_or_file)
    tiers_of = _select(_parse(content, path), symbols, path)
    provenance = Provenance(
        source=source or f"{Path(path).name}, ccxt fetchLeverageTiers layout",
        as_of=as_of or _date_of(path),
    )
    schedules: dict[str, ScheduleRule] = {}
    markets: dict[str, Market] = {}
    problems: list[str] = []
    for symbol, tiers in tiers_of.items():
        try:
            market = read_symbol(symbol)
            if market.name in markets:
                other = markets[market.name].symbol
                raise _SymbolError(f"has the name {market.name}, which {other} has too")
            schedules[market.name] = _schedule(market, tiers, provenance)
            markets[market.name] = market
        except _SymbolError as error:
            problems.append(f"{symbol}: {error}")
    _refuse_problems(path, problems, len(tiers_of))
    assets = sorted({schedule.settlement_asset for schedule in schedules.values()})
    stem = re.sub(r"[^a-z0-9]+", "_", Path(path).name.split(".")[0].lower()).strip("_")
    rulebook = Rulebook(
        name=name or stem[:31] or "imported",
        title=f"Margin schedules of {Path(path).name}",
        provenance=provenance,
        assets=tuple(
            AssetRule(
                asset, ASSET_SCALE, Provenance("scale chosen by the import", provenance.as_of)
            )
            for asset in assets
        ),
        schedules=tuple(schedules.values()),
        instruments=_instruments(steps, markets) if steps else (),
    )
    validate(rulebook, path)
    return rulebook


def read_symbol(symbol: str) -> Market:
    """Return the parts of a unified symbol. Raises ValueError if it is not one."""
    match = SYMBOL.fullmatch(symbol)
    if match is None:
        raise _SymbolError("is no symbol like BTC/USDT:USDT or BTC/USDT:USDT-241227")
    return Market(symbol, match["base"], match["quote"], match["settle"], match["expiry"] or "")


def _read(path_or_file: str | Path | BinaryIO) -> tuple[str, bytes]:
    if isinstance(path_or_file, str | Path):
        path = str(path_or_file)
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise RulebookError(path, "", error.strerror or str(error)) from error
    else:
        path = str(getattr(path_or_file, "name", "<file>"))
        content = path_or_file.read()
    if not content.startswith(GZIP_MAGIC):
        return path, content
    try:
        return path, gzip.decompress(content)
    except (OSError, EOFError, ValueError) as error:
        raise RulebookError(path, "", f"is not gzip: {error}") from error


def _date_of(path: str) -> date:
    match = re.search(r"(?<![0-9])20[0-9]{6}(?![0-9])", Path(path).name)
    if match:
        try:
            return datetime.strptime(match[0], "%Y%m%d").date()
        except ValueError:
            pass
    try:
        return date.fromtimestamp(Path(path).stat().st_mtime)
    except OSError as error:
        raise RulebookError(path, "as_of", "the file has no date: give one") from error


def _parse(content: bytes, path: str) -> dict[str, object]:
    try:
        document = json.loads(
            content,
            parse_float=Decimal,
            # NaN and Infinity are no JSON but ccxt files have them: refused later, with their tier.
            parse_constant=Decimal,
            object_pairs_hook=lambda pairs: _without_duplicates(pairs, path),
        )
    except RulebookError:
        raise
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise RulebookError(path, "", f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RulebookError(path, "", "must be an object of symbols and their tiers")
    if not document:
        raise RulebookError(path, "", "has no symbols")
    return document


def _without_duplicates(pairs: Sequence[tuple[str, object]], path: str) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RulebookError(path, twice, "is there twice")
    return table


def _select(
    document: Mapping[str, object], symbols: Collection[str], path: str
) -> Mapping[str, object]:
    if not symbols:
        return document
    by_name = {symbol: symbol for symbol in document}
    for symbol in document:
        if SYMBOL.fullmatch(symbol):
            by_name.setdefault(read_symbol(symbol).name, symbol)
    for symbol in symbols:
        if symbol not in by_name:
            raise RulebookError(path, symbol, f"is not among the {len(document)} symbols")
    return {by_name[symbol]: document[by_name[symbol]] for symbol in symbols}


def _refuse_problems(path: str, problems: Sequence[str], count: int) -> None:
    if not problems:
        return
    shown = list(problems[:PROBLEMS_SHOWN])
    if len(problems) > PROBLEMS_SHOWN:
        shown.append(f"and {len(problems) - PROBLEMS_SHOWN} more")
    if len(problems) == 1:
        raise RulebookError(path, "", problems[0])
    lines = "\n  ".join(shown)
    raise RulebookError(path, "", f"{len(problems)} of {count} symbols are wrong:\n  {lines}")


def _schedule(market: Market, rows: object, provenance: Provenance) -> ScheduleRule:
    if not ASSET_SYMBOL.fullmatch(market.settle):
        raise _SymbolError(f"settles in {market.settle!r}, must be 1 to 15 of A-Z and 0-9")
    if len(market.name) > 31:
        raise _SymbolError(f"has a name of {len(market.name)} characters, at most 31")
    if not isinstance(rows, list) or not 1 <= len(rows) <= TIERS_MAX:
        raise _SymbolError(f"must have a list of 1 to {TIERS_MAX} tiers")
    tiers: list[TierRule] = []
    ceiling: Decimal | None = ZERO
    for k, row in enumerate(rows):
        tier, ceiling = _tier(market, k, row, tiers[-1] if tiers else None, ceiling)
        tiers.append(tier)
    schedule = ScheduleRule(market.name, market.settle, tuple(tiers), ceiling, ZERO, provenance)
    violation = ladder_violation(schedule, ASSET_SCALE)
    if violation:
        # Messages count tiers as the file does, from 1; our laws from 0.
        reason = re.sub(r"tier\[([0-9]+)\]", lambda m: f"tier {int(m[1]) + 1}", violation.reason)
        raise _TierError(violation.tier, CCXT_KEYS[violation.key], violation.value, reason)
    return schedule


def _tier(
    market: Market,
    k: int,
    row: object,
    previous: TierRule | None,
    ceiling: Decimal | None,
) -> tuple[TierRule, Decimal | None]:
    """Return the tier and its upper bound, None for none; ceiling is that of the tier before."""
    if not isinstance(row, dict):
        raise _SymbolError(f"tier {k + 1}: must be an object")
    if "tier" in row and _number(k, row, "tier") != k + 1:
        raise _TierError(k, "tier", row["tier"], f"is out of order, must be {k + 1}")
    currency = row.get("currency")
    if currency != market.settle:
        reason = f"must be {market.settle}, in which the symbol settles"
        raise _TierError(k, "currency", currency, reason)
    floor = _number(k, row, "minNotional")
    if ceiling is None:
        raise _TierError(k, "minNotional", floor, "comes after a tier without bound")
    if floor != ceiling:
        what = "maxNotional of the tier before" if previous else "in the first tier"
        raise _TierError(k, "minNotional", floor, f"must be {plain(ceiling)}, {what}")
    top = None if row.get("maxNotional") is None else _number(k, row, "maxNotional")
    if top is not None and top >= UNBOUNDED:
        top = None
    if top is not None and top <= floor:
        raise _TierError(k, "maxNotional", top, f"must be above minNotional {plain(floor)}")
    maintenance_rate = _number(k, row, "maintenanceMarginRate")
    max_leverage = _number(k, row, "maxLeverage")
    if max_leverage < 1:
        raise _TierError(k, "maxLeverage", max_leverage, "must be at least 1")
    deduction = next_deduction(previous, floor, maintenance_rate) if previous else ZERO
    own = row.get("info")
    if isinstance(own, dict) and own.get("cum") is not None:
        printed = _number(k, own, "cum", "info.cum")
        if printed != deduction:
            reason = f"must be {plain(deduction)}, which the floors and rates give"
            raise _TierError(k, "info.cum", printed, reason)
    initial_rate = inverse_leverage(max_leverage)
    return TierRule(floor, initial_rate, maintenance_rate, deduction, max_leverage), top


def _number(k: int, row: Mapping[str, object], key: str, shown: str = "") -> Decimal:
    value = row.get(key)
    if value is None:
        raise _TierError(k, shown or key, None, "is missing")
    try:
        return read_number(value)
    except ValueError as error:
        raise _TierError(k, shown or key, value, str(error)) from error


def _instruments(path: str | Path, markets: Mapping[str, Market]) -> tuple[InstrumentRule, ...]:
    """Return an instrument for each section of a file of steps.

    The file is a rulebook without assets and schedules: format, source, as_of and
    [instrument.NAME] sections, whose kind, asset and schedule are those of the import.
    """
    where = str(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise RulebookError(where, "", error.strerror or str(error)) from error
    root = Section(where, "", parse(content, where))
    number = read_format(root)
    sections = root.sections("instrument")
    provenance = root.provenance()
    root.done()
    rules = []
    for name, section in sections.items():
        market = markets.get(name)
        if market is None:
            raise RulebookError(where, section.key, "is not among the imported symbols")
        if not market.is_linear_perpetual:
            reason = f"{market.symbol} is not a linear perpetual: only its schedule can be imported"
            raise RulebookError(where, section.key, reason)
        defaults = {
            "kind": LINEAR_PERPETUAL,
            "settlement_asset": market.settle,
            "margin_schedule": name,
        }
        rules.append(read_instrument(name, section, number, defaults, provenance))
    return tuple(rules)
