"""Readings of a running service as metric families, with bounded numbers of series."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from riskd import __version__
from riskd.limits import kind_name
from riskd.metrics.families import FAMILIES
from riskd.v1 import types_pb2
from riskd.wrapping import STATUS_NAMES

if TYPE_CHECKING:
    from riskd.core.monitor import Monitor
    from riskd.core.rows import HistogramRow
    from riskd.metrics.meter import CallMeter
    from riskd.native import NativeDoor

NS_PER_S = 1_000_000_000
PPM = 1_000_000

# Two a power of two, from 64 ns to 13 s: each is the end of a bucket of the core, so nothing is
# counted on the wrong side of it.
DURATION_BOUNDS_NS = tuple(
    bound for power in range(6, 34) for bound in (1 << power, 3 << (power - 1))
)
# Calls of a round: 256 is the most.
ROUND_BOUNDS = tuple(1 << power for power in range(9))

MARKS_SHOWN_MAX = 256
LIMITS_SHOWN_MAX = 32
# What a limit of 0 counts as when something uses it.
RATIO_MAX = 1000.0

_KINDS = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}

Labels = Sequence[str]


class Families:
    """The families of one reading, which are all there even if nothing is in them."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {
            each.name: _KINDS[each.kind](each.name, each.doc, labels=each.labels)
            for each in FAMILIES
        }

    def put(self, name: str, value: float, labels: Labels = ()) -> None:
        """Add a value of a counter or a gauge."""
        self._found[name].add_metric(labels, value)

    def put_info(self, name: str, labels: Mapping[str, str]) -> None:
        """Add an information."""
        self._found[name].add_metric((), labels)

    def put_histogram(
        self,
        name: str,
        row: HistogramRow,
        labels: Labels = (),
        bounds: Sequence[int] = DURATION_BOUNDS_NS,
        scale: int = NS_PER_S,
    ) -> None:
        """Add a histogram with these bounds, each divided by the scale."""
        counts = [0] * (len(bounds) + 1)
        for largest, count in row.counts:
            counts[bisect_left(bounds, largest)] += count
        buckets = []
        total = 0
        for bound, count in zip([*bounds, None], counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound is None else _number(bound / scale), total))
        self._found[name].add_metric(labels, buckets, row.sum / scale)

    def all(self) -> Iterable[Metric]:
        """Return the families in the order of the page."""
        return self._found.values()


class RiskdCollector(Collector):
    """Reads an engine and its doors each time that it is asked."""

    def __init__(
        self,
        monitor: Monitor,
        native: NativeDoor,
        meter: CallMeter,
        rulebooks: Callable[[], Iterable[tuple[str, str]]],
        denials: Callable[[], Mapping[tuple[str, str], int]] = dict,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monitor = monitor
        self._native = native
        self._meter = meter
        self._rulebooks = rulebooks
        self._denials = denials
        self._clock = clock
        self._symbols: dict[int, str] = {}

    def describe(self) -> Iterable[Metric]:
        """Return the families without a reading."""
        return Families().all()

    def collect(self) -> Iterator[Metric]:
        """Read everything; nothing of it holds a lock of the engine for long."""
        started = time.perf_counter()
        families = Families()
        families.put_info("riskd_build", {"version": __version__})
        for name, version in self._rulebooks():
            families.put_info("riskd_rulebook", {"name": name, "version": version})
        for labels, count in self._denials().items():
            families.put("riskd_denials", count, labels)
        self._put_engine(families)
        self._put_journal(families)
        self._put_control(families)
        self._put_native(families)
        families.put("riskd_scrape_duration_seconds", time.perf_counter() - started)
        yield from families.all()

    def _put_engine(self, families: Families) -> None:
        monitor = self._monitor
        now_ns = self._clock()
        families.put("riskd_revision", monitor.revision())
        behind_ns = monitor.time_ns() - self._clock()
        families.put("riskd_clock_behind_seconds", max(0, behind_ns) / NS_PER_S)
        for (request, decision, reason), count in monitor.answers().items():
            answer = request, _decision_name(decision), _reason_name(reason)
            families.put("riskd_answers", count, answer)
        for name, (rows, rows_max) in monitor.tables().items():
            table = name.replace(" ", "_")
            families.put("riskd_table_rows", rows, (table,))
            families.put("riskd_table_rows_max", rows_max, (table,))
        marks = monitor.marks(MARKS_SHOWN_MAX)
        ages = [(each, max(0, now_ns - time_ns) / NS_PER_S) for each, time_ns in marks.oldest]
        for instrument_id, age_s in ages:
            families.put("riskd_mark_age_seconds", age_s, (self._symbol(instrument_id),))
        families.put("riskd_mark_age_max_seconds", ages[0][1] if ages else 0)
        families.put("riskd_marks_missing", marks.missing)
        limits = monitor.limits(now_ns, LIMITS_SHOWN_MAX)
        for row in limits.nearest:
            labels = (
                _scope_name(row.scope),
                str(row.scope_id),
                self._symbol(row.instrument_id) if row.instrument_id else "",
                kind_name(row.kind),
            )
            families.put("riskd_limit_use_ratio", _ratio(row.use, row.value), labels)
        for ppm, count in limits.above_ppm.items():
            families.put("riskd_limits_above", count, (_number(ppm / PPM),))
        families.put("riskd_limits_known", limits.known)
        families.put("riskd_limits_unknown", limits.unknown)

    def _put_journal(self, families: Families) -> None:
        lag = self._monitor.journal()
        if lag is None:
            return
        age_s = max(0, self._clock() - lag.time_ns) / NS_PER_S if lag.time_ns else 0.0
        families.put("riskd_journal_lag_records", lag.records)
        families.put("riskd_journal_lag_bytes", lag.size_bytes)
        families.put("riskd_journal_lag_seconds", age_s)
        families.put("riskd_journal_batches", lag.batches)
        families.put("riskd_journal_failed", int(lag.has_failed))

    def _put_control(self, families: Families) -> None:
        for stage, row in self._monitor.stages().items():
            families.put_histogram("riskd_stage_duration_seconds", row, ("control", stage))
        waits = self._meter.journal.read()
        families.put_histogram("riskd_stage_duration_seconds", waits, ("control", "journal"))
        for (method, code), count in self._meter.counts().items():
            families.put("riskd_calls", count, ("control", method, code))
        for method, row in self._meter.durations().items():
            families.put_histogram("riskd_call_duration_seconds", row, ("control", method))

    def _put_native(self, families: Families) -> None:
        listener = self._native.listener
        if listener is None:
            return
        measured = listener.measured()
        for stage, row in measured.stages.items():
            families.put_histogram("riskd_stage_duration_seconds", row, ("native", stage))
        for method, row in measured.calls.items():
            families.put_histogram("riskd_call_duration_seconds", row, ("native", method))
        for (method, code), count in measured.statuses.items():
            families.put(
                "riskd_calls", count, ("native", method, STATUS_NAMES.get(code, str(code)))
            )
        families.put_histogram("riskd_round_calls", measured.rounds, (), ROUND_BOUNDS, 1)
        counts = listener.counts()
        for family, name in _NATIVE_COUNTS.items():
            families.put(family, counts[name])
        for cause, name in _REFUSAL_COUNTS.items():
            families.put("riskd_connections_refused", counts[name], (cause,))

    def _symbol(self, instrument_id: int) -> str:
        symbol = self._symbols.get(instrument_id)
        if symbol is None:
            symbol = self._symbols[instrument_id] = self._monitor.symbol(instrument_id)
        return symbol


_NATIVE_COUNTS = {
    "riskd_rounds": "rounds",
    "riskd_streamed_messages": "messages_streamed",
    "riskd_calls_open": "calls_open",
    "riskd_streams_open": "streams_open",
    "riskd_connections_open": "connections_open",
    "riskd_connections_opened": "connections_opened",
    "riskd_calls_overloaded": "calls_overloaded",
    "riskd_resets": "resets",
    "riskd_http_refused": "http_refused",
    "riskd_received_bytes": "bytes_received",
    "riskd_sent_bytes": "bytes_sent",
}
_REFUSAL_COUNTS = {
    "full": "connections_refused",
    "handshake": "handshakes_failed",
    "abuse": "connections_abused",
}


def _number(value: float) -> str:
    """Return a number as a label: whole ones without a point."""
    return f"{value:.12g}"


def _ratio(use: int, value: int) -> float:
    if use <= 0:
        return 0.0
    return min(use / value, RATIO_MAX) if value > 0 else RATIO_MAX


def _named(items: Iterable[tuple[str, int]], prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix) for name, number in items}


_DECISIONS = _named(types_pb2.Decision.items(), "DECISION_")
_REASONS = _named(types_pb2.ReasonCode.items(), "REASON_CODE_")
_SCOPES = _named(types_pb2.LimitScope.items(), "LIMIT_SCOPE_")


def _decision_name(decision: int) -> str:
    return _DECISIONS.get(decision, str(decision))


def _reason_name(reason: int) -> str:
    return _REASONS.get(reason, str(reason))


def _scope_name(scope: int) -> str:
    return _SCOPES.get(scope, str(scope))
