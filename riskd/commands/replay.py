"""`riskd replay`: the flow that a service kept, decided again under other limits or rules."""

import argparse
import json
import sys

from riskd import limits_file
from riskd.commands.output import print_table
from riskd.core.engine import ReplayError
from riskd.core.journal import JournalDamagedError
from riskd.core.snapshot import SnapshotInvalidError
from riskd.rerun import Rerun
from riskd.rulebooks import loader

DESCRIPTION = """Run the flow in a journal again, in memory, and show each decision that would
have been another one, then totals by reason. The journal is only read; its service can go on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("directory", metavar="DIR", help="the journal")
    parser.add_argument(
        "--limits", metavar="FILE.toml", help="stand instead of all limits that were set"
    )
    parser.add_argument(
        "--rulebook",
        metavar="NAME",
        action="append",
        default=[],
        help="name or .toml file: its margin schedules and instruments stand instead of those that"
        " were there (can be given again)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Run what add_arguments parsed; return the exit status."""
    try:
        rules = None if arguments.limits is None else limits_file.load(arguments.limits)
        books = [loader.load(name) for name in arguments.rulebook]
        rerun = Rerun(arguments.directory, rules, books)
        for difference in rerun:
            print(json.dumps(difference.fields()) if arguments.json else difference.text())
    except (
        JournalDamagedError,
        MemoryError,
        OSError,
        ReplayError,
        SnapshotInvalidError,
        ValueError,  # RulebookError, LimitsFileError, ApplyError and RerunError.
    ) as error:
        print(f"riskd replay: {error}", file=sys.stderr)
        return 1
    _print_totals(rerun, as_json=arguments.json)
    if rerun.unlike_record:
        print(
            f"riskd replay: {rerun.unlike_record} replies of this version are not the recorded ones"
            " even under the recorded limits",
            file=sys.stderr,
        )
    return 0


def _print_totals(rerun: Rerun, *, as_json: bool) -> None:
    totals = sorted(rerun.totals.items(), key=lambda each: (-each[1], each[0]))
    if as_json:
        figures = {
            "records": rerun.records,
            "decisions": rerun.decisions,
            "differences": rerun.differences,
            "without_order": rerun.without_order,
            "totals": [{"before": was, "after": now, "count": n} for (was, now), n in totals],
        }
        print(json.dumps(figures))
        return
    if totals:
        rows = [(was, now, f"{count:,}") for (was, now), count in totals]
        print_table(("before", "after", "decisions"), rows, "<<>")
    print(
        f"{rerun.differences:,} of {rerun.decisions:,} decisions differ;"
        f" {rerun.without_order:,} amendments and executions without an order"
    )
