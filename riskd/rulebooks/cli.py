"""`riskd rulebook`: list, show, check, compare, import and export rulebooks."""

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from riskd.commands.output import print_table
from riskd.rulebooks.diff import Change, RequirementChange, changes, requirement_changes
from riskd.rulebooks.importers import export_ccxt, import_tiers
from riskd.rulebooks.layouts import LAYOUTS
from riskd.rulebooks.loader import load, names
from riskd.rulebooks.schema import (
    AssetRule,
    InstrumentRule,
    ParameterRule,
    Provenance,
    Rulebook,
    RulebookError,
    ScheduleRule,
    Value,
    plain,
    show,
)
from riskd.rulebooks.sections import read_number
from riskd.rulebooks.terms import left_out, unsupported
from riskd.rulebooks.versions import next_change, select
from riskd.rulebooks.writer import (
    instrument_values,
    parameter_values,
    schedule_values,
    to_toml,
)

EXAMPLES = """examples:
  riskd rulebook list
  riskd rulebook show binance_usdm
  riskd rulebook show binance_usdm BTCUSDT
  riskd rulebook check my_venue.toml
  riskd rulebook diff binance_usdm my_venue.toml
  riskd rulebook diff my_venue.toml@2026-01-01T00:00:00Z my_venue.toml@2026-06-01T00:00:00Z
  riskd rulebook import tiers.json.gz --symbol BTC/USDT:USDT --out my_venue.toml
"""
SAME, DIFFERENT, TROUBLE = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands of `riskd rulebook`."""
    parser.description = "Venue rules as data: list, show, check and import rulebooks."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="rulebook_action", metavar="ACTION", required=True)
    actions.add_parser("list", help="list the rulebooks that come with riskd")

    show = actions.add_parser("show", help="print a rulebook, or one of its symbols")
    show.add_argument("name", metavar="NAME", help="name of a rulebook, or path of a .toml file")
    show.add_argument("symbol", metavar="SYMBOL", nargs="?", help="instrument or schedule")

    check = actions.add_parser("check", help="check files: exit status 1 if one is wrong")
    check.add_argument("files", metavar="FILE", nargs="+", help=".toml file, or a name")

    differ = actions.add_parser(
        "diff",
        help="compare two rulebooks: exit status 1 if they differ",
        description="What differs, by path, and what that does to maintenance margin. Exit status:"
        " 0 the same, 1 different, 2 trouble.",
    )
    for which in ("old", "new"):
        differ.add_argument(
            which, metavar=which.upper(), help="name or .toml file; @TIME: as in force at a time"
        )
    differ.add_argument("--sources", action="store_true", help="compare sources and dates too")
    differ.add_argument("--json", action="store_true", help="print one JSON object")

    exporter = actions.add_parser("export", help="write margin tiers in the ccxt layout")
    exporter.add_argument("name", metavar="NAME", help="name of a rulebook, or path of a file")
    exporter.add_argument("--out", metavar="FILE", help="file to write; standard output if absent")

    importer = actions.add_parser(
        "import",
        help="make a rulebook from a venue's margin tiers",
        description="Make a rulebook from a venue's margin tiers. Instruments are made where the"
        " answer has price and quantity steps, or for the symbols in the file of --steps.",
    )
    importer.add_argument("file", metavar="FILE", help="file of tiers, plain or .gz")
    importer.add_argument(
        "--layout", choices=sorted(LAYOUTS), help="its layout; if absent, the one it can only be"
    )
    importer.add_argument(
        "--tier-mode",
        choices=("marginal", "whole"),
        help="of the ccxt layout: marginal (if absent), or a tier holds for the whole position",
    )
    importer.add_argument(
        "--maintenance-part",
        metavar="PART",
        help="for layouts without maintenance rates: they are this part of 1 / leverage",
    )
    importer.add_argument(
        "--schedules-only", action="store_true", help="no instruments, whatever the answer has"
    )
    importer.add_argument("--out", metavar="FILE", help="file to write; standard output if absent")
    importer.add_argument(
        "--symbol",
        metavar="SYMBOL",
        dest="symbols",
        nargs="+",
        action="extend",
        default=[],
        help="only these (BTC/USDT:USDT or BTCUSDT)",
    )
    importer.add_argument("--steps", metavar="FILE", help="TOML with [instrument.SYMBOL] sections")
    importer.add_argument("--name", help="name of the rulebook; from the file's if absent")
    importer.add_argument("--source", help="where the figures come from")
    importer.add_argument(
        "--as-of",
        metavar="DATE",
        type=date.fromisoformat,
        help="date of the figures, 2024-10-24; if absent the one in the file's name, or the file's",
    )


def run(args: argparse.Namespace) -> int:
    """Run what add_arguments parsed; return the exit status."""
    actions = {
        "list": _list,
        "show": _show,
        "check": _check,
        "diff": _diff,
        "import": _import,
        "export": _export,
    }
    try:
        return actions[args.rulebook_action](args)
    except (RulebookError, KeyError) as error:
        print(f"riskd rulebook: {error.args[0]}", file=sys.stderr)
        return TROUBLE if args.rulebook_action == "diff" else 1


def _list(_: argparse.Namespace) -> int:
    rows = []
    for name in names():
        book = load(name)
        parts = (book.schedules, book.instruments, book.option_rules, book.collateral)
        counts = [str(len(part)) for part in parts]
        rows.append((name, str(book.provenance.as_of), *counts, book.title))
    header = ("name", "as of", "schedules", "instruments", "option rules", "collateral", "title")
    print_table(header, rows, "<<>>>><")
    return 0


def _show(args: argparse.Namespace) -> int:
    book = _at_time(args.name)
    if args.symbol is None:
        _show_book(book)
        return 0
    instrument = next((rule for rule in book.instruments if rule.symbol == args.symbol), None)
    name = args.symbol
    if instrument:
        _show_instrument(instrument)
        name = instrument.margin_schedule
    for asset in book.assets:
        if asset.symbol == args.symbol:
            _show_asset(asset)
            name = name if instrument else ""
    for rule in (*book.option_rules, *book.collateral):
        if rule.name in (args.symbol, instrument.option_rule if instrument else None):
            _show_parameters(rule)
            name = name if instrument else ""
    versions = [rule for rule in book.schedules if rule.name in (name, args.symbol)]
    if name and not versions:
        # Says what there is.
        book.schedule(name)
    for schedule in versions:
        _show_schedule(schedule)
    return 0


def _at_time(name: str) -> Rulebook:
    """Return a rulebook by NAME or NAME@TIME."""
    path, at, time = name.rpartition("@")
    if not at:
        return load(name)
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        raise RulebookError(name, "", "after @ must be a time like 2026-06-01T00:00:00Z") from None
    return select(load(path), moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _diff(args: argparse.Namespace) -> int:
    old, new = _at_time(args.old), _at_time(args.new)
    found = changes(old, new, has_sources=args.sources)
    needs = requirement_changes(old, new)
    if args.json:
        print(json.dumps(_diff_object(found, needs), indent=1))
    else:
        _print_diff(found, needs)
    return DIFFERENT if found else SAME


def _diff_object(
    found: list[Change], needs: list[RequirementChange]
) -> dict[str, list[dict[str, str | None]]]:
    return {
        "changes": [{"path": each.path, "old": each.old, "new": each.new} for each in found],
        "maintenance": [
            {
                "schedule": each.schedule,
                "size": plain(each.size),
                "unit": each.unit,
                "old": plain(each.old),
                "new": plain(each.new),
                "per_cent": None if each.per_cent is None else plain(each.per_cent),
            }
            for each in needs
        ],
    }


def _print_diff(found: list[Change], needs: list[RequirementChange]) -> None:
    for each in found:
        print(f"{each.path}: {each.old or 'absent'} -> {each.new or 'absent'}")
    if not needs:
        return
    print("\nmaintenance")
    rows = [
        (
            each.schedule,
            f"{_money(each.size)} {each.unit}",
            _money(each.old),
            _money(each.new),
            "-" if each.per_cent is None else f"{each.per_cent:+}%",
        )
        for each in needs
    ]
    print_table(("schedule", "of", "old", "new", "change"), rows, "<>>>>")


def _show_book(book: Rulebook) -> None:
    print(f"{book.name}: {book.title}")
    _print_provenance(book.provenance)
    later = next_change(book, datetime.now(UTC))
    if later is not None:
        print(f"next change: {later.isoformat()}")
    missing = unsupported(book)
    print(f"engine: {'cannot do yet: ' + '; '.join(missing) if missing else 'takes it'}")
    for row in left_out(book):
        print(f"engine leaves out: {row}")
    assets = ", ".join(f"{asset.symbol} (scale {asset.scale})" for asset in book.assets)
    print(f"assets: {assets or 'none'}")
    if book.rule is not None:
        print("\nrule")
        rule = book.rule
        switches = [(key, _word(value), "") for key, value in rule.common.items()]
        switches += [(key, _word(value), "isolated") for key, value in rule.isolated.items()]
        switches += [(key, _word(value), "cross") for key, value in rule.cross.items()]
        print_table(("key", "value", "where only"), switches, "<<<")
    if book.levels is not None:
        print("\nlevels")
        levels = [(key, _word(value)) for key, value in book.levels.parameters.items()]
        print_table(("level", "times maintenance"), levels, "<>")
    if book.instruments:
        print("\ninstruments")
        listed = [
            (
                rule.symbol,
                rule.kind,
                rule.settlement_asset,
                plain(rule.tick_size),
                plain(rule.lot_size),
                rule.margin_schedule or "-",
                _rate(rule.taker_fee_rate),
            )
            for rule in book.instruments
        ]
        print_table(
            ("symbol", "kind", "asset", "tick", "lot", "schedule", "taker fee"), listed, "<<<>><>"
        )
    if book.schedules:
        print("\nschedules")
        header = (
            "name",
            "asset",
            "family",
            "tiers",
            "leverage",
            "lowest rate",
            "highest rate",
            "largest",
        )
        print_table(header, [_schedule_row(rule) for rule in book.schedules], "<<<>>>>>")
    for what, rules in (("option rules", book.option_rules), ("collateral", book.collateral)):
        if rules:
            print(f"\n{what}")
            for rule_of in rules:
                values = parameter_values(rule_of).items()
                shown = ", ".join(
                    f"{key} {_word(value)}" for key, value in values if not isinstance(value, tuple)
                )
                print(f"{rule_of.name}: {shown}")


def _schedule_row(rule: ScheduleRule) -> tuple[str, ...]:
    name = rule.name
    if rule.effective_from is not None:
        name += f" from {rule.effective_from.isoformat()}"
    tiers = rule.tiers
    figures = ("-", "-", "-")
    if tiers:
        figures = (
            f"{plain(tiers[0].max_leverage)}x",
            _rate(tiers[0].maintenance_rate),
            _rate(tiers[-1].maintenance_rate),
        )
    family = rule.family if rule.tier_mode == "marginal" else f"{rule.family}, {rule.tier_mode}"
    largest = _bound(rule.notional_max)
    if rule.quantity_max is not None:
        largest = f"{_money(rule.quantity_max)} units"
    return (name, rule.settlement_asset, family, str(len(tiers)), *figures, largest)


def _show_instrument(rule: InstrumentRule) -> None:
    print(f"instrument {rule.symbol}")
    _print_provenance(rule.provenance)
    _print_values(instrument_values(rule), rule.provenance)
    print()


def _show_asset(asset: AssetRule) -> None:
    print(f"asset {asset.symbol}")
    _print_provenance(asset.provenance)
    _print_values({"scale": asset.scale}, asset.provenance)
    print()


def _show_parameters(rule: ParameterRule) -> None:
    print(f"{rule.family or 'collateral'} {rule.name}")
    _print_provenance(rule.provenance)
    values = parameter_values(rule)
    _print_values(values, rule.provenance)
    for key, value in values.items():
        if isinstance(value, tuple):
            print(f"\n{key}")
            header = tuple(value[0])
            rows = [tuple(plain(row[column]) for column in header) for row in value]
            print_table(header, rows, ">" * len(header))
    print()


def _print_values(values: Mapping[str, Value | int | date], provenance: Provenance) -> None:
    rows = [
        (key, _word(value), provenance.sources.get(key, ""))
        for key, value in values.items()
        if not isinstance(value, tuple)
    ]
    print_table(("key", "value", "source, where another"), rows, "<><")


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else show(value)


def _show_schedule(rule: ScheduleRule) -> None:
    print(f"schedule {rule.name}, in {rule.settlement_asset}")
    _print_provenance(rule.provenance)
    if not rule.tiers:
        _print_values(schedule_values(rule), rule.provenance)
        return
    by = "notional" if rule.tier_key == "notional" else "quantity"
    rows = [
        (
            str(k),
            _money(tier.floor),
            _rate(tier.initial_rate),
            _rate(tier.maintenance_rate),
            _money(tier.deduction),
            f"{plain(tier.max_leverage)}x",
        )
        for k, tier in enumerate(rule.tiers)
    ]
    header = ("tier", f"{by} above", "initial", "maintenance", "deduction", "leverage")
    print_table(header, rows, ">>>>>>")
    largest = rule.notional_max if rule.tier_key == "notional" else rule.quantity_max
    print(f"largest position: {_bound(largest)}")
    print(f"liquidation fee: {_rate(rule.liquidation_fee_rate)}")


def _check(args: argparse.Namespace) -> int:
    wrong = 0
    for file in args.files:
        try:
            book = load(file)
        except RulebookError as error:
            wrong += 1
            print(f"riskd rulebook: {error}", file=sys.stderr)
            continue
        counts = (len(book.assets), len(book.schedules), len(book.instruments))
        print(f"{file}: ok: {_counted(*counts)}")
        refused = unsupported(book)
        for row in refused:
            print(f"  an engine refuses it: {row}")
        for row in () if refused else left_out(book):
            print(f"  an engine leaves out: {row}")
    return 1 if wrong else 0


def _import(args: argparse.Namespace) -> int:
    book = import_tiers(
        args.file,
        layout=args.layout,
        name=args.name,
        as_of=args.as_of,
        source=args.source,
        symbols=args.symbols,
        steps=args.steps,
        tier_mode=args.tier_mode,
        maintenance_part=_part(args.maintenance_part),
        has_instruments=not args.schedules_only,
    )
    if not _write(to_toml(book), args.out):
        counts = (len(book.assets), len(book.schedules), len(book.instruments))
        print(f"{args.out}: wrote {_counted(*counts)}")
    return 0


def _export(args: argparse.Namespace) -> int:
    book = _at_time(args.name)
    if not _write(export_ccxt(book), args.out):
        print(f"{args.out}: wrote {_counted(0, len(book.schedules), 0)}")
    return 0


def _part(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        return read_number(text)
    except ValueError as error:
        raise RulebookError("--maintenance-part", "", f"{text!r} {error}") from error


def _write(text: str, path: str | None) -> bool:
    """Write a file, or standard output if there is none; return whether it was the latter."""
    if path is None:
        sys.stdout.write(text)
        return True
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RulebookError(path, "", error.strerror or str(error)) from error
    return False


def _counted(assets: int, schedules: int, instruments: int) -> str:
    counts = {"asset": assets, "schedule": schedules, "instrument": instruments}
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items())


def _print_provenance(provenance: Provenance) -> None:
    print(f"as of {provenance.as_of}; source: {provenance.source}")


def _money(value: Decimal) -> str:
    whole, _, part = plain(value).partition(".")
    grouped = f"{int(whole):,}"
    return f"{grouped}.{part}" if part else grouped


def _bound(value: Decimal | None) -> str:
    return "no bound" if value is None else _money(value)


def _rate(rate: Decimal) -> str:
    return f"{plain(rate.scaleb(2))}%"
