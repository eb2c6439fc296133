"""Run rows and report: counts a venue and model, and what failed."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from riskd import margin
from riskd.conform.adapters import adapter_of
from riskd.conform.inputs import NotCoveredError, mapping, output, spelled
from riskd.conform.venues import venue_of


@dataclass(frozen=True, slots=True)
class Failure:
    """An output that is out of tolerance, or, with a text instead of a figure, what is wrong."""

    row_id: str
    output: str
    expected: Any
    got: Any

    def line(self) -> str:
        if isinstance(self.got, str):
            return f"FAILED {self.row_id} {self.output}: {self.got}"
        shown = f"expected {_shown(self.expected)}, got {_shown(self.got)}"
        if _is_number(self.expected) and _is_number(self.got):
            difference = float(Decimal(self.got) - Decimal(self.expected))
            shown += f", difference {difference:.6g}"
        return f"FAILED {self.row_id} {self.output}: {shown}"


@dataclass(slots=True)
class Count:
    """Rows of one venue and model."""

    rows: int = 0
    passed: int = 0
    failed: int = 0
    not_covered: int = 0

    def add(self, other: Count) -> None:
        self.rows += other.rows
        self.passed += other.passed
        self.failed += other.failed
        self.not_covered += other.not_covered


_LINE_NUMBER = re.compile(r"(:\d+|#\S+)$")
_GITHUB = re.compile(r"github:(?P<repository>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]+):(?P<path>\S+)$")


@dataclass(slots=True)
class Report:
    """What a run found, groups in order of first appearance."""

    groups: dict[tuple[str, str], Count] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    # How many rows of a venue and model are not covered, by reason.
    uncovered: dict[tuple[str, str, str], int] = field(default_factory=dict)
    sources: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    # The widest tolerance of each kind.
    tolerances: dict[tuple[str, str], dict[str, Decimal]] = field(default_factory=dict)

    def note(self, group: tuple[str, str], row: Mapping[str, Any]) -> None:
        """Remember where a row of a group is from, and how near it must be met."""
        source = _LINE_NUMBER.sub("", str(row.get("source", ""))).strip(" ;")
        sources = self.sources.setdefault(group, [])
        if source and source not in sources:
            sources.append(source)
        kind, value = _tolerance(row)
        widest = self.tolerances.setdefault(group, {})
        widest[kind] = max(value, widest.get(kind, value))

    def total(self) -> Count:
        total = Count()
        for count in self.groups.values():
            total.add(count)
        return total

    def table(self) -> str:
        """Return the text table with one line a venue and model, and the total."""
        lines: list[tuple[str, ...]] = [("venue", "model", *Count.__slots__)]
        for (venue, model), count in [*self.groups.items(), (("total", ""), self.total())]:
            lines.append((venue, model, *(str(getattr(count, name)) for name in Count.__slots__)))
        lines[0] = tuple(word.replace("_", " ") for word in lines[0])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        return "\n".join(
            "  ".join(
                text.ljust(width) if column < 2 else text.rjust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def markdown(self) -> str:
        """Return the conformance table by venue, its sources, and what did not pass and why."""
        lines = [
            "| venue | model | rows | passed | precision | sources |",
            "|---|---|---:|---:|---|---|",
        ]
        numbers: dict[str, int] = {}
        for group in sorted(self.groups, key=_by_name):
            count = self.groups[group]
            found = [
                numbers.setdefault(source, len(numbers) + 1)
                for source in self.sources.get(group, [])
            ]
            widest = self.tolerances.get(group, {})
            precision = [
                f"{float(value):.3g} {kind}" if value else "exact" for kind, value in widest.items()
            ]
            cells = (
                *(name.replace("|", " ") for name in group),
                str(count.rows),
                str(count.passed),
                ", ".join(precision),
                ", ".join(map(str, sorted(found))),
            )
            lines.append(f"| {' | '.join(cells)} |")
        total = self.total()
        lines += [f"| **total** | | **{total.rows}** | **{total.passed}** | | |", ""]
        if numbers:
            lines += ["Sources:", ""]
            lines += [f"{number}. {_link(source)}" for source, number in numbers.items()]
            lines.append("")
        if total.passed == total.rows:
            return "\n".join([*lines, "Every row passed."])
        lines += ["Rows that did not pass:", ""]
        lines += [f"* {failure.line()}" for failure in self.failures]
        lines += [f"* {line}" for line in self.not_covered()]
        return "\n".join(lines)

    def not_covered(self) -> list[str]:
        """Return a line for each reason why rows of a venue and model are not covered."""
        return [
            f"not covered: {count} of {venue}, {model}: {reason}"
            for (venue, model, reason), count in self.uncovered.items()
        ]

    def json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        counts = {name: getattr(self.total(), name) for name in Count.__slots__}
        groups = [
            {"venue": venue, "model": model}
            | {name: getattr(count, name) for name in Count.__slots__}
            for (venue, model), count in self.groups.items()
        ]
        failures = [
            {
                "id": failure.row_id,
                "output": failure.output,
                "expected": _plain(failure.expected),
                "got": _plain(failure.got),
            }
            for failure in self.failures
        ]
        return {**counts, "groups": groups, "failures": failures}


def check(lines: Sequence[tuple[str, bytes]]) -> Report:
    """Run rows, given as (place, line); the place names a line that is not a row."""
    report = Report()
    for place, line in lines:
        venue = model = "?"
        try:
            row = _row(line)
            venue, model = row["venue"], row["model"]
            report.note((venue, model), row)
            failures = _check_row(row)
        except NotCoveredError as error:
            outcome = Count(rows=1, not_covered=1)
            reason = (venue, model, f"{error}")
            report.uncovered[reason] = report.uncovered.get(reason, 0) + 1
        except (ValueError, RecursionError) as error:
            outcome = Count(rows=1, failed=1)
            report.failures.append(Failure(place, "row", None, f"{error}"))
        else:
            outcome = Count(rows=1, failed=1) if failures else Count(rows=1, passed=1)
            report.failures += failures
        report.groups.setdefault((venue, model), Count()).add(outcome)
    return report


def _row(line: bytes) -> dict[str, Any]:
    """Return a row whose fields have their types. Raises ValueError, naming the field."""
    row = json.loads(line.decode(), parse_float=Decimal)
    if not isinstance(row, dict):
        raise ValueError("a row must be a JSON object")
    for name in ("id", "venue", "model"):
        if not isinstance(row.get(name), str) or not row[name]:
            raise ValueError(f"{name} must be a text, got {row.get(name)!r}")
    for name in ("inputs", "expected", "tolerance"):
        mapping(name, row.get(name))
    if not row["expected"]:
        raise ValueError("expected must name at least one output")
    return row


def _tolerance(row: Mapping[str, Any]) -> tuple[str, Decimal]:
    """Return kind and width. Raises ValueError, naming the field."""
    kind = row["tolerance"].get("kind")
    if kind not in ("abs", "rel"):
        raise ValueError(f"tolerance.kind must be abs or rel, got {kind!r}")
    value = margin.decimal("tolerance.value", row["tolerance"].get("value"))
    if value < 0:
        raise ValueError(f"tolerance.value {value} must not be below 0")
    return kind, value


def _by_name(group: tuple[str, str]) -> tuple[str, str]:
    venue, model = group
    return venue.lower(), model


def _link(source: str) -> str:
    """Return a source as Markdown: a file of a public repository is a link to it."""
    found = _GITHUB.match(source)
    if found is None:
        return f"<{source}>" if source.startswith("https://") and " " not in source else source
    place = f"{found['repository']}/blob/{found['commit']}/{found['path']}"
    name = "/".join(found["path"].split("/")[-2:])
    return f"[{found['repository']}@{found['commit'][:8]}](https://github.com/{place}) `{name}`"


def _check_row(row: Mapping[str, Any]) -> list[Failure]:
    """Return the outputs of one row that are out of tolerance. Raises NotCoveredError."""
    venue = venue_of(row["venue"])
    adapter = adapter_of(row["model"], venue)
    kind, tolerance = _tolerance(row)
    failures: list[Failure] = []
    try:
        outputs = adapter(spelled(row["inputs"]), venue)
        asked = {name: output(outputs, name) for name in row["expected"]}
        unknown = [name for name, figure in asked.items() if figure is None]
        if unknown:
            raise NotCoveredError(f"no output {', '.join(unknown)}")
        for name, expected in row["expected"].items():
            got = asked[name]()
            for place, wanted, figure in _pairs(name, expected, got):
                if not _within(place, wanted, figure, tolerance, kind == "rel"):
                    failures.append(Failure(row["id"], place, wanted, figure))
    except (ValueError, ArithmeticError) as error:
        failures.append(Failure(row["id"], "inputs", None, str(error) or type(error).__name__))
    return failures


def _pairs(name: str, expected: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each expected figure with its name and what was computed."""
    if not isinstance(expected, list):
        yield name, expected, got
        return
    figures = got if isinstance(got, list) else [got]
    yield f"{name} count", len(expected), len(figures)
    for index, (wanted, figure) in enumerate(zip(expected, figures, strict=False)):
        yield f"{name}[{index}]", wanted, figure


def _within(name: str, expected: Any, got: Any, tolerance: Decimal, relative: bool) -> bool:
    if got is None or (isinstance(got, float | Decimal) and math.isinf(got)):
        return _says_none(name, expected)
    if expected is None:
        return False
    if isinstance(got, list):
        return False
    # A word, such as the direction of a transfer.
    if isinstance(got, str):
        return bool(expected == got)
    wanted = margin.decimal(f"expected.{name}", expected)
    allowed = tolerance * wanted.copy_abs() if relative else tolerance
    return abs(Decimal(got) - wanted) <= allowed


# What rows write for a figure that does not exist, or has no bound.
_NO_FIGURE = ("", "none", "null", "n/a", "max", "inf", "infinity")
_LARGEST = (2**63 - 1, 2**64 - 1, 2**128 - 1)


def _says_none(name: str, expected: Any) -> bool:
    """Whether a row means that there is no figure. A price not above 0 is none: venues print 0."""
    if isinstance(expected, str):
        return expected.lower() in _NO_FIGURE
    if expected is None or expected in _LARGEST:
        return True
    return "price" in name and _is_number(expected) and bool(expected <= 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal)


def _shown(value: Any) -> str:
    return f"{float(value):.17g}" if isinstance(value, float | Decimal) else f"{value}"


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `riskd conform`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="vectors, JSON lines")
    layout = parser.add_mutually_exclusive_group()
    layout.add_argument("--json", action="store_true", help="print one JSON object instead")
    layout.add_argument("--markdown", action="store_true", help="print a table for documents")


def run(args: argparse.Namespace) -> int:
    """Print the report. Return 0, 1 if a row failed, 2 if a file cannot be read or has no row."""
    lines: list[tuple[str, bytes]] = []
    for path in args.files:
        try:
            content = path.read_bytes()
        except OSError as error:
            print(f"riskd conform: {path}: {error.strerror}", file=sys.stderr)
            return 2
        lines += [
            (f"{path}:{number}", line)
            for number, line in enumerate(content.splitlines(), start=1)
            if line.strip()
        ]
    if not lines:
        print("riskd conform: the files have no rows: nothing was checked", file=sys.stderr)
        return 2
    report = check(lines)
    if args.json:
        print(json.dumps(report.json(), indent=1))
    elif args.markdown:
        print(report.markdown())
    else:
        for failure in report.failures:
            print(failure.line())
        for line in report.not_covered():
            print(line)
        print(report.table())
    return 1 if report.failures else 0
