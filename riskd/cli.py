"""The command line: `riskd COMMAND`.

Each command is a module with add_arguments(parser) and run(arguments) -> exit status. Only the
module of the command that was asked for is imported, so that none can break another.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from riskd import __version__

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

COMMANDS = {
    "serve": ("riskd.commands.serve", "run the service"),
    "demo": ("riskd.demo", "run the service with sample data and show what it decides"),
    "top": ("riskd.commands.top", "show what a running service does, again and again"),
    "check": ("riskd.commands.check", "send one order to a running service"),
    "price": ("riskd.commands.price", "price an option and show its Greeks"),
    "margin": ("riskd.commands.margin", "margin, liquidation and bankruptcy price of a position"),
    "what-if": ("riskd.commands.what_if", "margin of a portfolio that need not exist"),
    "market": ("riskd.commands.market", "list, fund and settle instruments"),
    "token": ("riskd.commands.token", "make a bearer token and its hash"),
    "journal": (
        "riskd.commands.journal",
        "verify, inspect, export and shorten what a service kept",
    ),
    "limits": ("riskd.commands.limits", "list, set, raise, remove and prove limits"),
    "replay": ("riskd.commands.replay", "decide what a service kept again, under other limits"),
    "rulebook": ("riskd.rulebooks.cli", "list, show, check and import venue rules"),
    "conform": ("riskd.conform", "run golden vectors against the library"),
}

DESCRIPTION = """Pre-trade risk and margin for crypto derivatives.

An order gateway asks before it sends an order to the market; riskd answers accepted or
rejected, with the margin that it reserved and the figures behind the decision."""

EPILOG = """examples:
  riskd demo                                    see it work
  riskd serve --rulebooks binance_usdm          run the service with a venue's rules
  riskd check --account 7 --symbol BTCUSDT --side buy --quantity 0.5 --price 65000 --view full
  riskd what-if --account 7 --order BTCUSDT=0.5@65000 --mark BTCUSDT=61000
  riskd limits list --account 7                 limits and how much of each is used
  riskd margin --side long --quantity 0.5 --entry 65000 --leverage 20 \\
      --rulebook binance_usdm --symbol BTCUSDT
  riskd price --type call --forward 65000 --strike 70000 --volatility 0.65 --days 30

`riskd COMMAND --help` explains a command. Exit status: 0 done or accepted, 1 refused or
failed, 2 wrong usage."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except SystemExit as stop:  # argparse, after --help or a message on wrong usage.
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader left, as `riskd ... | head` does. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _run(arguments: Sequence[str]) -> int:
    chosen = next((each for each in arguments if not each.startswith("-")), None)
    parser = argparse.ArgumentParser(
        prog="riskd",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"riskd {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    run = None
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary.capitalize() + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            try:
                module = importlib.import_module(module_name)
            except ImportError as error:
                print(f"riskd {name}: not available in this installation: {error}", file=sys.stderr)
                return EXIT_REFUSED
            if hasattr(module, "add_arguments"):
                module.add_arguments(command)
            run = module.run
    parsed = parser.parse_args(arguments)
    if run is None:
        parser.print_help()
        return EXIT_USAGE
    status = run(parsed)
    sys.stdout.flush()
    return int(status or EXIT_OK)


if __name__ == "__main__":
    sys.exit(main())
