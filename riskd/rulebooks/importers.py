"""Take over margin tiers that venues publish, and write them out again.

An answer of a venue, or the ccxt layout of it (`fetchLeverageTiers`, as freqtrade stores it),
becomes a rulebook: a schedule of each symbol, and an instrument where the answer has its steps, or
a second file gives them. riskd.rulebooks.layouts knows the layouts.
"""

import gzip
import json
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from riskd.rulebooks.keys import RULE
from riskd.rulebooks.laws import validate
from riskd.rulebooks.layouts import LAYOUTS, detect
from riskd.rulebooks.layouts.ccxt import CCXT, is_linear_perpetual, unified_name
from riskd.rulebooks.loader import read_format, read_instrument
from riskd.rulebooks.markets import (
    ASSET_SCALE,
    UNBOUNDED,
    Layout,
    Market,
    SymbolError,
    instrument_of,
    schedule_of,
)
from riskd.rulebooks.schema import (
    LINEAR_PERPETUAL,
    ONE,
    ZERO,
    AssetRule,
    InstrumentRule,
    Provenance,
    Rulebook,
    RulebookError,
    ScheduleRule,
    VenueRule,
    plain,
)
from riskd.rulebooks.sections import Section, parse, read_file

PROBLEMS_SHOWN: Final = 20
GZIP_MAGIC: Final = b"\x1f\x8b"
# A packed file of a few bytes can hold very many: no answer of a venue is larger.
SIZE_MAX: Final = 256 * 2**20


def import_ccxt(
    path_or_file: str | Path | BinaryIO,
    *,
    name: str | None = None,
    as_of: date | None = None,
    source: str | None = None,
    symbols: Collection[str] = (),
    steps: str | Path | None = None,
) -> Rulebook:
    """Return import_tiers of the ccxt layout."""
    return import_tiers(
        path_or_file,
        layout="ccxt",
        name=name,
        as_of=as_of,
        source=source,
        symbols=symbols,
        steps=steps,
    )


def import_tiers(
    path_or_file: str | Path | BinaryIO,
    *,
    layout: str | None = None,
    name: str | None = None,
    as_of: date | None = None,
    source: str | None = None,
    symbols: Collection[str] = (),
    steps: str | Path | None = None,
    tier_mode: str | None = None,
    maintenance_part: Decimal | None = None,
    has_instruments: bool = True,
) -> Rulebook:
    """Return the rulebook of a venue's answer, plain or gzip.

    layout is a key of LAYOUTS; None: the one that it can only be. symbols selects, by the venue's
    name or ours; none is all. steps is a TOML file with price and quantity steps: instruments are
    made for the symbols in it, and for no others; without it for those whose steps the answer has,
    unless has_instruments is False. tier_mode, marginal or whole, is for the ccxt layout.
    maintenance_part is for layouts without maintenance rates: the part of 1 / leverage that they
    are. as_of is the date of the figures; without it, a date in the file's name (20241024), or its
    modification. Raises RulebookError, naming each symbol that cannot be used, its tier, key and
    value.
    """
    path, content = _read(path_or_file)
    document = _parse(content, path)
    how = _layout(layout, document, tier_mode, maintenance_part, path)
    try:
        found = _select(how, how.markets(document), symbols, path)
    except ValueError as error:
        if isinstance(error, RulebookError):
            raise
        raise RulebookError(path, "", str(error)) from error
    provenance = Provenance(
        source=source or f"{Path(path).name}, {how.what}", as_of=as_of or _date_of(path)
    )
    markets, schedules = _read_markets(how, found, maintenance_part, provenance, path)
    if steps:
        instruments = _instruments(steps, markets)
    else:
        instruments = tuple(
            instrument_of(market, market.steps, provenance)
            for market in markets.values()
            if market.steps is not None and has_instruments
        )
    assets = sorted({schedule.settlement_asset for schedule in schedules})
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
        schedules=tuple(schedules),
        instruments=instruments,
        rule=_rule(how, schedules, provenance),
    )
    validate(rulebook, path)
    return rulebook


def export_ccxt(rulebook: Rulebook) -> str:
    """Return the schedules as JSON in the ccxt layout; importing it gives the same tiers.

    A schedule XXXYYY in asset YYY is XXX/YYY:YYY. Raises RulebookError, naming what the layout
    cannot say: another family than tiers, tiers by quantity, a name without its asset.
    """
    document = {}
    for schedule in rulebook.schedules:
        symbol = _unified(schedule, rulebook.name)
        document[symbol] = [
            {
                "tier": k + 1,
                "currency": schedule.settlement_asset,
                "minNotional": plain(tier.floor),
                "maxNotional": _ceiling(schedule, k),
                "maintenanceMarginRate": plain(tier.maintenance_rate),
                "maxLeverage": plain(tier.max_leverage),
                "info": {"cum": plain(tier.deduction)},
            }
            for k, tier in enumerate(schedule.tiers)
        ]
    return json.dumps(document, indent=1) + "\n"


def _ceiling(schedule: ScheduleRule, k: int) -> str:
    if k + 1 < len(schedule.tiers):
        return plain(schedule.tiers[k + 1].floor)
    return plain(UNBOUNDED if schedule.notional_max is None else schedule.notional_max)


def _unified(schedule: ScheduleRule, path: str) -> str:
    key = f"schedule.{schedule.name}"
    if not schedule.tiers:
        raise RulebookError(path, f"{key}.family", "has no tiers", schedule.family)
    if schedule.tier_key != "notional":
        raise RulebookError(path, "rule.tier_key", "must be notional", schedule.tier_key)
    asset, (pair, _, expiry) = schedule.settlement_asset, schedule.name.partition("_")
    suffix = f"-{expiry}" if expiry else ""
    base = pair.removesuffix(asset)
    if base != pair and base:
        symbol = f"{base}/{asset}:{asset}{suffix}"
    else:
        symbol = f"{asset}/{pair.removeprefix(asset)}:{asset}{suffix}"
    try:
        if unified_name(symbol) == schedule.name:
            return symbol
    except SymbolError:
        pass
    raise RulebookError(path, key, f"is no name like BTC{asset} or BTC{asset}_241227")


def _layout(
    name: str | None,
    document: object,
    tier_mode: str | None,
    maintenance_part: Decimal | None,
    path: str,
) -> Layout:
    how = LAYOUTS.get(name) if name else detect(document)
    if how is None:
        known = ", ".join(LAYOUTS)
        if name:
            raise RulebookError(path, "layout", f"must be one of {known}", name)
        raise RulebookError(path, "", f"is in no layout that is known; name one of {known}")
    if tier_mode is not None and how is not CCXT:
        raise RulebookError(path, "tier_mode", f"layout {how.name} has its own", tier_mode)
    if how.has_maintenance and maintenance_part is not None:
        reason = f"layout {how.name} has maintenance rates of its own"
        raise RulebookError(path, "maintenance_part", reason, maintenance_part)
    if not how.has_maintenance and maintenance_part is None:
        reason = f"is missing: layout {how.name} has no maintenance rates; say which part of"
        raise RulebookError(path, "maintenance_part", f"{reason} 1 / leverage they are")
    if maintenance_part is not None and not ZERO < maintenance_part < ONE:
        reason = "must be above 0 and below 1"
        raise RulebookError(path, "maintenance_part", reason, maintenance_part)
    if tier_mode is None or tier_mode == how.tier_mode:
        return how
    return replace(how, tier_mode=tier_mode, mode_source="said when it was imported")


def _rule(
    how: Layout, schedules: Sequence[ScheduleRule], provenance: Provenance
) -> VenueRule | None:
    """Return the switches of tiers; None where they are those of a rulebook without [rule]."""
    if how.tier_mode == "marginal" and how.tier_key == "notional":
        return None
    values = {key.name: key.default for key in RULE if key.default is not None}
    values |= {"tier_mode": how.tier_mode, "tier_key": how.tier_key}
    if any(schedule.liquidation_fee_rate for schedule in schedules):
        values["fee_in_liquidation"] = "at_liquidation"
    source = "assumption: what an answer does not say is as riskd does it"
    own = {"tier_mode": how.mode_source, "tier_key": how.what}
    return VenueRule(values, Provenance(source, provenance.as_of, own))


def _read_markets(
    how: Layout,
    found: Mapping[str, object],
    part: Decimal | None,
    provenance: Provenance,
    path: str,
) -> tuple[dict[str, Market], list[ScheduleRule]]:
    """Return markets by our names, and their schedules."""
    markets: dict[str, Market] = {}
    venue_names: dict[str, str] = {}
    schedules: list[ScheduleRule] = []
    problems: list[str] = []
    if part is not None:
        own = {"maintenance_part": "assumption: given when it was imported"}
        provenance = Provenance(provenance.source, provenance.as_of, own)
    for symbol, raw in found.items():
        try:
            market = how.read(symbol, raw)
            if market.name in markets:
                other = venue_names[market.name]
                raise SymbolError(f"has the name {market.name}, which {other} has too")
            schedules.append(schedule_of(market, how, part, provenance))
            markets[market.name] = market
            venue_names[market.name] = symbol
        except SymbolError as error:
            problems.append(f"{symbol}: {error}")
    _refuse_problems(path, problems, len(found))
    return markets, schedules


def _read(path_or_file: str | Path | BinaryIO) -> tuple[str, bytes]:
    if isinstance(path_or_file, str | Path):
        path = str(path_or_file)
        content = read_file(path, SIZE_MAX)
    else:
        path = str(getattr(path_or_file, "name", "<file>"))
        content = path_or_file.read()
    if not content.startswith(GZIP_MAGIC):
        return path, content
    try:
        with gzip.GzipFile(fileobj=BytesIO(content)) as file:
            unpacked = file.read(SIZE_MAX + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RulebookError(path, "", f"is not gzip: {error}") from error
    if len(unpacked) > SIZE_MAX:
        raise RulebookError(path, "", f"is more than {SIZE_MAX} bytes when unpacked")
    return path, unpacked


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


def _parse(content: bytes, path: str) -> object:
    # BingX's limits are kept as the one assignment of a Python file, whose value is JSON.
    assignment = re.match(rb"\s*[A-Z_]+ = (?=\{)", content)
    try:
        return json.loads(
            content[assignment.end() :] if assignment else content,
            parse_float=Decimal,
            # NaN and Infinity are no JSON but ccxt files have them: refused later, with their tier.
            parse_constant=Decimal,
            object_pairs_hook=lambda pairs: _without_duplicates(pairs, path),
        )
    except RulebookError:
        raise
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise RulebookError(path, "", f"is not JSON: {error}") from error


def _without_duplicates(pairs: Sequence[tuple[str, object]], path: str) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RulebookError(path, twice, "is there twice")
    return table


def _select(
    how: Layout, found: Mapping[str, object], symbols: Collection[str], path: str
) -> Mapping[str, object]:
    if not symbols:
        return found
    by_name = {symbol: symbol for symbol in found}
    for symbol in found:
        by_name.setdefault(symbol.upper(), symbol)
        if how.name == "ccxt":
            try:
                by_name.setdefault(unified_name(symbol), symbol)
            except SymbolError:
                continue
        by_name.setdefault(symbol.replace("/", ""), symbol)
    for symbol in symbols:
        if symbol not in by_name:
            raise RulebookError(path, symbol, f"is not among the {len(found)} symbols")
    return {by_name[symbol]: found[by_name[symbol]] for symbol in symbols}


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


def _instruments(path: str | Path, markets: Mapping[str, Market]) -> tuple[InstrumentRule, ...]:
    """Return an instrument for each section of a file of steps.

    The file is a rulebook without assets and schedules: format, source, as_of and
    [instrument.NAME] sections, whose kind, asset and schedule are those of the import.
    """
    where = str(path)
    root = Section(where, "", parse(read_file(path), where))
    number = read_format(root)
    sections = root.sections("instrument")
    provenance = root.provenance()
    root.done()
    rules = []
    for name, section in sections.items():
        market = markets.get(name)
        if market is None:
            raise RulebookError(where, section.key, "is not among the imported symbols")
        defaults = {"settlement_asset": market.settlement_asset, "margin_schedule": name}
        if "kind" not in section.table:
            if not _is_linear_perpetual(market):
                reason = "is not a linear perpetual: say its kind"
                raise RulebookError(where, section.key, reason)
            defaults["kind"] = LINEAR_PERPETUAL
        rules.append(read_instrument(name, section, number, defaults, provenance))
    return tuple(rules)


def _is_linear_perpetual(market: Market) -> bool:
    asset = market.settlement_asset
    return market.name.endswith(asset) and is_linear_perpetual(
        f"{market.name.removesuffix(asset)}/{asset}:{asset}"
    )
