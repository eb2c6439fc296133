"""The page of latencies by percentile: what is drawn is what was counted."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.page import AIMS, Curve, points, write_page

# 900 calls of 1 us, 90 of 10 us, 9 of 100 us and one of 1 ms.
TENTHS = {1_000: 900, 10_000: 90, 100_000: 9, 1_000_000: 1}
FIGURES: dict[str, Any] = {
    "native_calls_per_s": 1234,
    "batch_checks_per_s": 1_500_000,
    "overload_goodput_ratio": 0.89,
    "ratios": {"cpu_to_cpp_echo": 5.5, "p50_to_cpp_echo": 1.25},
    "missing": {"grpcio": "no <grpcio>"},
    "spread": {"native_calls_per_s": 0.1},
}


def test_a_point_stands_at_the_nines_of_the_calls_that_took_no_longer() -> None:
    # One call in ten took longer than 1 us, one in a hundred longer than 10 us, and so on; the
    # slowest stands at half a call.
    expected = [(1.0, 1.0), (2.0, 10.0), (3.0, 100.0), (3.30103, 1000.0)]
    # The order in which they were counted says nothing.
    found = points(dict(reversed(TENTHS.items())))
    assert found == [pytest.approx(each) for each in expected]


def polylines(picture: str) -> list[list[tuple[float, float]]]:
    """Return the points of the curves of a picture."""
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]
        for line in re.findall(r'<polyline[^>]* points="([^"]*)"', picture)
    ]


def test_a_page_has_a_picture_for_each_kind_of_load_and_all_figures(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    slower = {10 * ns: count for ns, count in TENTHS.items()}
    curves = [
        Curve("native_call", TENTHS),
        Curve("cpp_echo_call", slower),
        Curve("tcp_pingpong", TENTHS),
        Curve("native_client", slower),
    ]
    write_page(path, curves, FIGURES)
    page = path.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "Aims",
        "One call at a time, C++ gRPC client",
        "One call at a time, client over bare frames",
        "Figures",
    ]
    calls, client = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    for picture, names in ((calls, ("native", "cpp_echo")), (client, ("tcp_pingpong", "native"))):
        assert [name for name in names if f">{name}</text>" in picture] == list(names)
        first, second = polylines(picture)
        assert len(first) == len(second) == len(TENTHS)
        # More calls lie to the right, longer ones higher, ten times as long by one power of ten.
        assert first == sorted(first)
        assert [x for x, _ in first] == [x for x, _ in second]
        power = first[0][1] - first[1][1]
        assert power > 0
        for low, high in zip(first, second, strict=True):
            assert low[1] - high[1] == pytest.approx(power, abs=0.2)
    rows = dict(re.findall("<tr><td>([^<]*)</td><td>([^<]*)</td></tr>", page))
    assert rows == {
        "native_calls_per_s": "1234",
        "batch_checks_per_s": "1500000",
        "overload_goodput_ratio": "0.89",
        "ratio: cpu_to_cpp_echo": "5.5",
        "ratio: p50_to_cpp_echo": "1.25",
        "missing: grpcio": "no &lt;grpcio&gt;",
    }
    aims = re.findall("<tr><td>([^<]*)</td><td>([^<]*)</td><td>[^<]*</td><td>(.*?)</td></tr>", page)
    assert {unescape(words): (here, met) for words, here, met in aims} == {
        AIMS["cpu_to_cpp_echo"][0]: ("5.5", "yes"),
        AIMS["cpu_to_nghttp2_echo"][0]: ("not measured", ""),
        AIMS["batch_checks_per_s"][0]: ("1,500,000", "yes"),
        AIMS["p50_to_cpp_echo"][0]: ("1.25", "no"),
        AIMS["client_p50_to_pingpong"][0]: ("not measured", ""),
        AIMS["overload_goodput_ratio"][0]: ("0.89", "no"),
    }
    # It opens without a network and without scripts.
    assert not re.search(r"<script|src=|@import|href=.http", page)
