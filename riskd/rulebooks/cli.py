"""`riskd rulebook`: list, show, check and import rulebooks."""

import argparse
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

from riskd.commands.output import print_table
from riskd.rulebooks.importers import import_ccxt
from riskd.rulebooks.loader import load, names
from riskd.rulebooks.schema import (
    InstrumentRule,
    Provenance,
    Rulebook,
    RulebookError,
    ScheduleRule,
    plain,
)
from riskd.rulebooks.writer import INSTRUMENT_KEYS, to_toml

LAYOUTS = {"ccxt": import_ccxt}

EXAMPLES = """examples:
  riskd rulebook list
  riskd rulebook show binance_usdm
  riskd rulebook show binance_usdm BTCUSDT
  riskd rulebook check my_venue.toml
  riskd rulebook import --layout ccxt tiers.json.gz --symbol BTC/USDT:USDT --out my_venue.toml
"""


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

    importer = actions.add_parser(
        "import",
        help="make a rulebook from a venue's margin tiers",
        description="Make a rulebook from a venue's margin tiers. The layouts have no price or"
        " quantity steps: instruments are made only for symbols in the file of --steps.",
    )
    importer.add_argument("file", metavar="FILE", help="file of tiers, plain or .gz")
    importer.add_argument("--layout", required=True, choices=sorted(LAYOUTS), help="its layout")
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
    actions = {"list": _list, "show": _show, "check": _check, "import": _import}
    try:
        return actions[args.rulebook_action](args)
    except (RulebookError, KeyError) as error:
        print(f"riskd rulebook: {error.args[0]}", file=sys.stderr)
        return 1


def _list(_: argparse.Namespace) -> int:
    rows = []
    for name in names():
        book = load(name)
        counts = (str(len(book.schedules)), str(len(book.instruments)))
        rows.append((name, str(book.provenance.as_of), *counts, book.title))
    print_table(("name", "as of", "schedules", "instruments", "title"), rows, "<<>><")
    return 0


def _show(args: argparse.Namespace) -> int:
    book = load(args.name)
    if args.symbol is None:
        _show_book(book)
        return 0
    instrument = next((rule for rule in book.instruments if rule.symbol == args.symbol), None)
    if instrument:
        _show_instrument(instrument)
    if instrument is None or instrument.margin_schedule:
        name = instrument.margin_schedule if instrument else args.symbol
        _show_schedule(book.schedule(name))
    return 0


def _show_book(book: Rulebook) -> None:
    print(f"{book.name}: {book.title}")
    _print_provenance(book.provenance)
    assets = ", ".join(f"{asset.symbol} (scale {asset.scale})" for asset in book.assets)
    print(f"assets: {assets or 'none'}")
    schedules = {schedule.name: schedule for schedule in book.schedules}
    if book.instruments:
        print("\ninstruments")
        rows = [
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
        header = ("symbol", "kind", "asset", "tick", "lot", "schedule", "taker fee")
        print_table(header, rows, "<<<>><>")
    if schedules:
        print("\nschedules")
        rows = [
            (
                name,
                rule.settlement_asset,
                str(len(rule.tiers)),
                f"{plain(rule.tiers[0].max_leverage)}x",
                _rate(rule.tiers[0].maintenance_rate),
                _rate(rule.tiers[-1].maintenance_rate),
                _bound(rule.notional_max),
            )
            for name, rule in schedules.items()
        ]
        header = ("name", "asset", "tiers", "leverage", "lowest rate", "highest rate", "largest")
        print_table(header, rows, "<<>>>>>")


def _show_instrument(rule: InstrumentRule) -> None:
    print(f"instrument {rule.symbol}")
    _print_provenance(rule.provenance)
    rows = []
    for key in INSTRUMENT_KEYS:
        value = getattr(rule, key)
        if value in (None, ""):
            continue
        shown = plain(value) if isinstance(value, Decimal) else str(value)
        rows.append((key, shown, rule.provenance.sources.get(key, "")))
    print_table(("key", "value", "source, where another"), rows, "<><")
    print()


def _show_schedule(rule: ScheduleRule) -> None:
    print(f"schedule {rule.name}, in {rule.settlement_asset}")
    _print_provenance(rule.provenance)
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
    header = ("tier", "notional above", "initial", "maintenance", "deduction", "leverage")
    print_table(header, rows, ">>>>>>")
    print(f"largest position: {_bound(rule.notional_max)}")
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
    return 1 if wrong else 0


def _import(args: argparse.Namespace) -> int:
    book = LAYOUTS[args.layout](
        args.file,
        name=args.name,
        as_of=args.as_of,
        source=args.source,
        symbols=args.symbols,
        steps=args.steps,
    )
    text = to_toml(book)
    if args.out is None:
        sys.stdout.write(text)
        return 0
    try:
        Path(args.out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RulebookError(args.out, "", error.strerror or str(error)) from error
    counts = (len(book.assets), len(book.schedules), len(book.instruments))
    print(f"{args.out}: wrote {_counted(*counts)}")
    return 0


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
