"""The benchmarks run and say what they promise. Nothing here looks at a time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "benchmarks" / "run.py"

# Scripts import each other as benchmarks.*, from the repository, which is no package to install.
sys.path.insert(0, str(ROOT))
from benchmarks.listener import Latencies  # noqa: E402
from benchmarks.peers.build import MissingError, build  # noqa: E402

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
# What listener.py promises; null if its peer cannot be built.
LISTENER_FIGURES = {
    "native_calls_per_s",
    "native_calls_per_cpu_s",
    "cpp_echo_calls_per_cpu_s",
    "grpcio_calls_per_cpu_s",
    "nghttp2_echo_calls_per_cpu_s",
    "cpp_echo_calls_per_s",
    "grpcio_calls_per_s",
    "nghttp2_echo_calls_per_s",
    "batch_checks_per_s",
    "native_p50_us",
    "cpp_echo_p50_us",
    "tcp_pingpong_p50_us",
    "overload_goodput_ratio",
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


def test_listener_says_what_is_missing_and_measures_the_rest(tmp_path: Path) -> None:
    try:
        build("load")
    except MissingError as error:
        pytest.skip(str(error))
    _, benchmark = run_quickly("listener", tmp_path)
    figures = benchmark["figures"]
    for peer in ("grpcio", "nghttp2_echo", "control"):
        assert figures[f"{peer}_calls_per_s"] > 0
        assert figures[f"{peer}_calls_per_cpu_s"] > 0
    assert figures.keys() >= LISTENER_FIGURES
    assert figures["tcp_pingpong_p50_us"] > 0
    # They need C++ gRPC, which a short run does without.
    for name in ("cpp_echo_calls_per_s", "cpp_echo_calls_per_cpu_s", "cpp_echo_p50_us"):
        assert figures[name] is None
    measured = (
        "native_calls_per_s",
        "native_calls_per_cpu_s",
        "native_client_p50_us",
        "native_at_70_p99_us",
        "batch_checks_per_s",
        "stream_checks_per_s",
        "overload_goodput_ratio",
    )
    for name in measured:
        if "native" in figures["missing"]:
            assert figures.get(name) is None
        else:
            assert figures[name] > 0


def test_histogram_of_the_c_programs_gives_the_percentiles_of_all_calls() -> None:
    latencies = Latencies()
    latencies.add([[1_000, 98], [5_000, 1]])
    latencies.add([[1_000, 900], [900_000, 1]])
    assert latencies.percentile_us(50) == 1.0
    assert latencies.percentile_us(99.9) == 5.0
    assert latencies.percentile_us(99.99) == 900.0
    with pytest.raises(ValueError, match="no calls"):
        Latencies().percentile_us(50)


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
