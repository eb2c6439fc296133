"""Run every benchmark and write a report.

A benchmark is a script in this folder whose docstring begins with a question. It takes --quick and
prints one JSON object as its last line: figures by name, and optionally `ratios` (of figures to
peers of the same run), `spread` (least and largest figure of the rounds) and how much was done.
"""

import argparse
import ast
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
PACKAGES = ("riskd", "grpcio", "protobuf", "numpy", "cython")
TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one script said, and the load averages (1, 5, 15 minutes) around it."""

    name: str
    question: str
    load_before: tuple[float, ...]
    load_after: tuple[float, ...]
    figures: dict[str, Any]


def question_of(path: Path) -> str | None:
    """Return the question that a script answers, or None if it is not a benchmark."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
    return lines[0] if lines and lines[0].endswith("?") else None


def scripts() -> dict[str, str]:
    """Return the question of each benchmark by its name."""
    questions = {path.stem: question_of(path) for path in sorted(FOLDER.glob("*.py"))}
    return {name: question for name, question in questions.items() if question is not None}


def run(name: str, question: str, flags: list[str]) -> Outcome:
    """Run a script.

    Raises CalledProcessError if it fails, ValueError if its last line is not a JSON object.
    """
    before = os.getloadavg()
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *flags],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    lines = done.stdout.splitlines()
    figures = json.loads(lines[-1]) if lines else None
    if not isinstance(figures, dict):
        raise ValueError(f"{name}: the last line is not a JSON object: {lines[-1:]}")
    return Outcome(name, question, before, os.getloadavg(), figures)


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    return {
        "time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES if _installed(package)},
        "commit": _commit(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except ModuleNotFoundError:
        return False


def _commit() -> str:
    """Return the short hash of what is checked out, or "unknown" outside a repository."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def markdown(facts: dict[str, str], outcomes: list[Outcome]) -> str:
    """Return the report as a page."""
    return "\n".join(_lines(facts, outcomes)) + "\n"


def _lines(facts: dict[str, str], outcomes: list[Outcome]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Only ratios of one run can be compared between machines; see benchmarks/README.md."
    yield ""
    yield from _table(["fact", "value"], list(facts.items()))
    for outcome in outcomes:
        figures = outcome.figures
        spread = figures.get("spread", {})
        plain = [(name, value) for name, value in figures.items() if not isinstance(value, dict)]
        yield ""
        yield f"## {outcome.name}: {outcome.question}"
        yield ""
        yield (
            f"Load average before {_load(outcome.load_before)}, after {_load(outcome.load_after)}."
        )
        yield ""
        yield from _table(
            ["figure", "value", "least round", "largest round"],
            [(name, value, *spread.get(name, ["", ""])) for name, value in plain],
        )
        if "ratios" in figures:
            yield ""
            yield from _table(["ratio", "value"], list(figures["ratios"].items()))


def _load(averages: tuple[float, ...]) -> str:
    return " ".join(f"{average:.2f}" for average in averages)


def _table(head: list[str], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def main() -> int:
    """Run the named benchmarks, or all; return the exit status."""
    found = scripts()
    parser = argparse.ArgumentParser(description="Run the benchmarks and write a report.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(found)}")
    parser.add_argument("--quick", action="store_true", help="only try that everything runs")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(found)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}: there are {', '.join(found)}")
    outcomes = []
    failed = False
    for name in arguments.names or found:
        print(f"{name}: {found[name]}", flush=True)
        try:
            outcome = run(name, found[name], ["--quick"] if arguments.quick else [])
        except (subprocess.SubprocessError, ValueError) as error:
            print(f"{name}: failed: {error}", file=sys.stderr, flush=True)
            failed = True
            continue
        print(json.dumps(outcome.figures), flush=True)
        outcomes.append(outcome)
    facts = machine()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = {"machine": facts, "benchmarks": [asdict(outcome) for outcome in outcomes]}
    (arguments.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (arguments.out / "report.md").write_text(markdown(facts, outcomes))
    print(json.dumps({"report": str(arguments.out / "report.md")}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
