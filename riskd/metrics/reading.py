"""Two readings of the metrics endpoint, and what happened between them: what `riskd top` shows."""

from __future__ import annotations

import http.client
import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

# A page has some hundred kilobytes.
PAGE_BYTES_MAX = 16 << 20
LINES_MAX = 8

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999}

Labels = frozenset[tuple[str, str]]

# The endpoint is asked itself, whatever proxy the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Reading:
    """The samples of a page, by name and labels, and when it was read (monotonic, seconds)."""

    at_s: float
    samples: Mapping[str, Mapping[Labels, float]]

    def value(self, name: str, **labels: str) -> float:
        """Return a sample, 0 if it is not there."""
        return self.samples.get(name, {}).get(frozenset(labels.items()), 0.0)

    def rows(self, name: str) -> dict[Labels, float]:
        """Return all samples of a name."""
        return dict(self.samples.get(name, {}))


def parse(text: str, at_s: float) -> Reading:
    """Return a page of the endpoint as a reading. Raises ValueError if it is none."""
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    if "riskd_build_info" not in samples:
        raise ValueError("the page has no riskd_build_info: it is not of riskd")
    return Reading(at_s, samples)


def read(address: str, timeout_s: float) -> Reading:
    """Read the endpoint at host:port. Raises OSError if it is not there, ValueError if it errs."""
    try:
        with _opener.open(f"http://{address}/metrics", timeout=timeout_s) as response:
            text = response.read(PAGE_BYTES_MAX).decode()
    except http.client.HTTPException as error:
        raise ValueError(f"no answer of HTTP: {error!r}") from None
    except urllib.error.URLError as error:
        # Its own text shows a Python object.
        raise OSError(getattr(error.reason, "strerror", None) or error.reason) from None
    return parse(text, time.monotonic())


@dataclass(frozen=True, slots=True)
class Spread:
    """Durations in seconds: how many, and quantiles, None of nothing."""

    count: float
    p50: float | None
    p99: float | None
    p99_9: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened in window_s seconds, or since the start of the service. Rates per second."""

    version: str
    revision: int
    up_s: float
    window_s: float
    is_since_start: bool
    memory_bytes: float
    cpu: float
    """Seconds of CPU a second."""
    calls: dict[str, float]
    """By door."""
    failed_calls: dict[str, float]
    """By door, method and status, those that were not OK."""
    answers: dict[str, float]
    """By request, decision and reason."""
    stages: dict[str, Spread]
    """By door and stage."""
    durations: dict[str, Spread]
    """Of whole calls, by door and method."""
    connections: dict[str, float]
    journal: dict[str, float]
    mark_age_max_s: float
    marks_missing: int
    oldest_marks: dict[str, float]
    limits: dict[str, float]
    """Part that is used, by scope, kind and instrument."""
    tables: dict[str, float]
    """Part that is used of each table's room."""
    denials: dict[str, float] = field(default_factory=dict)
    """By door and reason."""


def figures_of(now: Reading, before: Reading | None) -> Figures:
    """Return what happened between two readings, or since the start.

    A service that was started again in between counts from its start.
    """
    started = "process_start_time_seconds"
    if before is not None and now.value(started) != before.value(started):
        before = None
    up_s = max(0.0, time.time() - now.value(started)) if now.value(started) else 0.0
    window_s = now.at_s - before.at_s if before is not None else up_s
    since = _Since(now, before, max(window_s, 1e-9))
    calls: dict[str, float] = {}
    failed: dict[str, float] = {}
    for labels, rate in since.rates("riskd_calls_total").items():
        named = dict(labels)
        calls[named["door"]] = calls.get(named["door"], 0.0) + rate
        if named["code"] != "OK":
            failed[f"{named['door']} {named['method']} {named['code']}"] = rate
    stages = since.spreads("riskd_stage_duration_seconds", "door", "stage")
    limits = now.rows("riskd_limit_use_ratio")
    return Figures(
        version=_version(now),
        revision=int(now.value("riskd_revision")),
        up_s=up_s,
        window_s=window_s,
        is_since_start=before is None,
        memory_bytes=now.value("process_resident_memory_bytes"),
        cpu=since.rate("process_cpu_seconds_total"),
        calls=calls,
        failed_calls=_largest(failed),
        answers=_largest(
            {
                _joined(labels, "request", "decision", "reason"): rate
                for labels, rate in since.rates("riskd_answers_total").items()
            }
        ),
        stages=stages,
        durations=since.spreads("riskd_call_duration_seconds", "door", "method"),
        connections={
            "open": now.value("riskd_connections_open"),
            "calls_open": now.value("riskd_calls_open"),
            "streams_open": now.value("riskd_streams_open"),
            "opened": since.rate("riskd_connections_opened_total"),
            "refused": sum(since.rates("riskd_connections_refused_total").values()),
            "overloaded": since.rate("riskd_calls_overloaded_total"),
        },
        journal={
            "records": now.value("riskd_journal_lag_records"),
            "bytes": now.value("riskd_journal_lag_bytes"),
            "seconds": now.value("riskd_journal_lag_seconds"),
            "batches": since.rate("riskd_journal_batches_total"),
            "failed": now.value("riskd_journal_failed"),
        },
        mark_age_max_s=now.value("riskd_mark_age_max_seconds"),
        marks_missing=int(now.value("riskd_marks_missing")),
        oldest_marks=_largest(
            {
                _joined(labels, "instrument"): age
                for labels, age in now.rows("riskd_mark_age_seconds").items()
            }
        ),
        limits=_largest(
            {
                _joined(labels, "scope", "scope_id", "kind", "instrument"): ratio
                for labels, ratio in limits.items()
            }
        ),
        tables=_largest(_fill(now)),
        denials=_largest(
            {
                _joined(labels, "door", "reason"): rate
                for labels, rate in since.rates("riskd_denials_total").items()
            }
        ),
    )


class _Since:
    """Differences of counters and histograms."""

    def __init__(self, now: Reading, before: Reading | None, window_s: float) -> None:
        self._now = now
        self._before = before
        self._window_s = window_s

    def _more(self, name: str) -> dict[Labels, float]:
        before = {} if self._before is None else self._before.rows(name)
        return {
            labels: max(0.0, value - before.get(labels, 0.0))
            for labels, value in self._now.rows(name).items()
        }

    def rates(self, name: str) -> dict[Labels, float]:
        """Return the rates of all samples of a counter that moved."""
        return {key: more / self._window_s for key, more in self._more(name).items() if more}

    def rate(self, name: str) -> float:
        """Return the rate of a counter without labels."""
        return self.rates(name).get(frozenset(), 0.0)

    def spreads(self, name: str, *keys: str) -> dict[str, Spread]:
        """Return the spread of each histogram in which something was counted."""
        found: dict[str, list[tuple[float, float]]] = {}
        for labels, more in self._more(f"{name}_bucket").items():
            bound = float(dict(labels)["le"])
            found.setdefault(_joined(labels, *keys), []).append((bound, more))
        spreads = {}
        for key, buckets in found.items():
            buckets.sort()
            if buckets[-1][1] > 0:
                each = {short: quantile(buckets, share) for short, share in QUANTILES.items()}
                spreads[key] = Spread(buckets[-1][1], **each)
        return spreads


def quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """Return a quantile of cumulative counts by rising bound, the last of which is infinite.

    Within a bucket values are taken to be evenly spread over its logarithm; None of nothing.
    """
    wanted = share * buckets[-1][1]
    if buckets[-1][1] <= 0:
        return None
    lower, seen = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted and count > seen:
            if math.isinf(bound):
                return lower
            part = (wanted - seen) / (count - seen)
            # Below the first bound there is no logarithm to spread over.
            return lower * (bound / lower) ** part if lower else bound * part
        lower, seen = bound, count
    return lower


def _joined(labels: Labels, *keys: str) -> str:
    named = dict(labels)
    return " ".join(filter(None, (named.get(key, "") for key in keys)))


def _largest(values: dict[str, float]) -> dict[str, float]:
    kept = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:LINES_MAX]
    return dict(kept)


def _fill(now: Reading) -> dict[str, float]:
    rooms = now.rows("riskd_table_rows_max")
    used = now.rows("riskd_table_rows")
    return {_joined(key, "table"): used[key] / room for key, room in rooms.items() if room}


def _version(now: Reading) -> str:
    labels = next(iter(now.samples["riskd_build_info"]))
    return dict(labels)["version"]
