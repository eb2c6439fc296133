"""The benchmarks run and say what they promise. Nothing here looks at a time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"

FIGURES = {
    "engine": {"check_isolated_ns", "check_cross_ns", "greeks_scalar_ns"},
    "journal": {
        "check_journaled_ns",
        *(f"checks_per_s_{each}_{n}" for each in ("process", "machine") for n in (1, 16, 256)),
        "sync_p50_us",
        "recover_records_per_s",
        "snapshot_s",
        "snapshot_load_s",
        "stall_with_snapshot_ms",
        "bytes_per_position",
    },
    "margin": {
        "liquidation_prices_per_s",
        "margins_per_s",
        "numpy_ratio",
        "margin_call_ns",
    },
    "service": {
        "grpcio_calls_per_s",
        "p50_us",
        "p99_us",
        "p999_us",
        "echo_calls_per_s",
        "echo_p50_us",
    },
}


def run_quickly(name: str, out: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the lines that run.py printed, and the report's part of the benchmark."""
    done = subprocess.run(
        [sys.executable, str(RUN), "--quick", "--out", str(out), name],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    (benchmark,) = report["benchmarks"]
    return done.stdout.splitlines(), benchmark


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_benchmark_prints_and_reports_its_figures(name: str, tmp_path: Path) -> None:
    lines, benchmark = run_quickly(name, tmp_path)
    figures = benchmark["figures"]
    assert json.loads(lines[-2]) == figures
    assert json.loads(lines[-1]) == {"report": str(tmp_path / "report.md")}
    for figure in FIGURES[name]:
        assert figures[figure] > 0
        assert f"| {figure} | {figures[figure]} |" in (tmp_path / "report.md").read_text()
    assert figures["ratios"]


def test_unknown_benchmark_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), "--quick", "--out", str(tmp_path), "weather"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "no benchmark weather: there are engine, " in done.stderr
