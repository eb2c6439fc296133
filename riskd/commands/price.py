"""`riskd price`: Black-76 from the command line."""

import argparse
import sys

from riskd import pricing
from riskd.commands.output import print_figures, print_json

DAYS_PER_YEAR = 365

EPILOG = """examples:
  riskd price --type call --forward 65000 --strike 70000 --volatility 0.65 --days 30
  riskd price --type put --forward 100 --strike 100 --volatility 0.2 --years 1 --rate 0.03 --json

Volatility and rate are fractions for one year (0.65 is 65 per cent); a day is 1/365 of a year."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option's parameters."""
    parser.description = "Black-76 price and Greeks of a long option of 1 underlying."
    parser.epilog = EPILOG
    parser.add_argument("--type", required=True, choices=("call", "put"), help="right")
    parser.add_argument("--forward", required=True, type=float, metavar="PRICE")
    parser.add_argument("--strike", required=True, type=float, metavar="PRICE")
    parser.add_argument(
        "--volatility", required=True, type=float, metavar="FRACTION", help="for one year: 0.65"
    )
    life = parser.add_mutually_exclusive_group(required=True)
    life.add_argument("--days", type=float, help="days to expiry")
    life.add_argument("--years", type=float, help="years to expiry")
    parser.add_argument(
        "--rate",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="interest rate, continuously compounded (default: 0)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print price and Greeks."""
    years = arguments.years if arguments.days is None else arguments.days / DAYS_PER_YEAR
    try:
        greeks = pricing.black76(
            arguments.type,
            arguments.forward,
            arguments.strike,
            arguments.volatility,
            years,
            arguments.rate,
        )
    except ValueError as error:
        print(f"riskd price: {error}", file=sys.stderr)
        return 1
    figures = [
        (name.replace("_", " "), f"{float(getattr(greeks, name)):.12g}")
        for name in (
            "price",
            "delta",
            "gamma",
            "vega_per_vol_point",
            "theta_per_day",
            "rho_per_point",
        )
    ]
    if arguments.json:
        print_json(figures)
    else:
        print_figures(figures)
    return 0
