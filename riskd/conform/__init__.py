"""`riskd conform`: run golden vectors against the library.

A vector file has one JSON object a line: id, venue, model, inputs, expected, tolerance, source
(tests/vectors/README.md). A model's adapter reads a row's inputs, calls riskd.pricing or
riskd.margin and returns the outputs that it knows; it contains no formula. What differs between
venues is in VENUES. A row passes when every expected output is within tolerance. It is not covered
when the model, the venue or one of its outputs is not; it fails when a figure is out of tolerance,
an input is missing or wrong, or the line is not a row.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from riskd.conform.runner import Count, Failure, Report, add_arguments, check, run
from riskd.conform.venues import VENUES, Venue, venue_of

__all__ = [
    "VENUES",
    "Count",
    "Failure",
    "Report",
    "Venue",
    "add_arguments",
    "check",
    "main",
    "run",
    "venue_of",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `riskd conform` with these arguments."""
    parser = argparse.ArgumentParser(prog="riskd conform", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))
