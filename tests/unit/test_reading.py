"""Rates and quantiles are those of what happened between two pages."""

import math

import pytest

from riskd.metrics.reading import figures_of, parse, quantile

PAGE = """
riskd_build_info{{version="1.2"}} 1
process_start_time_seconds {started}
riskd_revision {calls}
riskd_calls_total{{door="native",method="CheckOrder",code="OK"}} {calls}
riskd_calls_total{{door="native",method="CheckOrder",code="INTERNAL"}} 3
riskd_stage_duration_seconds_bucket{{door="native",stage="check",le="1e-06"}} {low}
riskd_stage_duration_seconds_bucket{{door="native",stage="check",le="2e-06"}} {calls}
riskd_stage_duration_seconds_bucket{{door="native",stage="check",le="+Inf"}} {calls}
"""


def page(calls: int, low: int, started: int = 1, at_s: float = 10.0):  # type: ignore[no-untyped-def]
    return parse(PAGE.format(calls=calls, low=low, started=started), at_s)


def test_rates_and_spreads_are_differences() -> None:
    figures = figures_of(page(300, 100, at_s=12.0), page(100, 100))
    assert figures.window_s == 2.0
    assert not figures.is_since_start
    assert figures.calls == {"native": 100.0}
    assert figures.failed_calls == {}
    spread = figures.stages["native check"]
    assert spread.count == 200
    # All of them are between 1 and 2 us.
    assert spread.p50 == pytest.approx(1e-6 * math.sqrt(2))
    assert spread.p99 is not None
    assert spread.p99 < 2e-6


def test_a_service_that_was_started_again_counts_from_its_start() -> None:
    figures = figures_of(page(5, 5, started=2, at_s=12.0), page(100, 100))
    assert figures.is_since_start
    assert figures.stages["native check"].count == 5
    assert set(figures.failed_calls) == {"native CheckOrder INTERNAL"}


def test_nothing_in_between_has_no_quantiles() -> None:
    figures = figures_of(page(5, 5, at_s=11.0), page(5, 5))
    assert figures.stages == {}
    assert figures.calls == {}


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([(1.0, 0), (math.inf, 0)], 0.5, None),
        ([(1.0, 4), (math.inf, 4)], 0.5, 0.5),
        ([(1.0, 0), (4.0, 2), (math.inf, 2)], 0.5, 2.0),
        ([(1.0, 1), (4.0, 1), (math.inf, 2)], 0.99, 4.0),
        ([(1.0, 1), (4.0, 1), (8.0, 2), (math.inf, 2)], 1.0, 8.0),
    ],
)
def test_quantiles_lie_in_their_bucket(
    buckets: list[tuple[float, float]], share: float, expected: float | None
) -> None:
    assert quantile(buckets, share) == expected


def test_another_page_is_refused() -> None:
    with pytest.raises(ValueError, match="no riskd_build_info"):
        parse("other_metric 1\n", 0.0)
