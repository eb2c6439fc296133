"""The metrics by name: a promise, of which docs/observability.md has the table."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name without the suffix that its kind adds, its labels, and what it says."""

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The name as it is served."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


FAMILIES = (
    Family("riskd_build", "info", "Always 1.", ("version",)),
    Family("riskd_revision", "gauge", "Number of the last change of state."),
    Family(
        "riskd_clock_behind_seconds",
        "gauge",
        "How far the clock is behind the engine's time, which never goes back; 0 unless it was set "
        "back.",
    ),
    Family(
        "riskd_answers",
        "counter",
        "Answers to orders, amendments and executions, by decision and reason code. Each order of "
        "a batch is one; a repeat is answered as it was, and counts again.",
        ("request", "decision", "reason"),
    ),
    Family(
        "riskd_calls",
        "counter",
        "Calls that have ended, by gRPC status. Of names that do not exist: method other.",
        ("door", "method", "code"),
    ),
    Family(
        "riskd_call_duration_seconds",
        "histogram",
        "From the first byte of a call to its last. At the native door of calls that were "
        "answered, one in listener_calls_per_timed.",
        ("door", "method"),
    ),
    Family(
        "riskd_stage_duration_seconds",
        "histogram",
        "How long each stage took: receive, queue, decode, check, encode, journal, send.",
        ("door", "stage"),
    ),
    Family(
        "riskd_round_calls",
        "histogram",
        "Calls that the native door decided under one lock; of a stream, a turn is one.",
    ),
    Family("riskd_rounds", "counter", "Rounds of the native door's threads."),
    Family("riskd_streamed_messages", "counter", "Messages of StreamOrders at the native door."),
    Family("riskd_calls_open", "gauge", "Calls in work at the native door."),
    Family("riskd_streams_open", "gauge", "Open calls of StreamOrders at the native door."),
    Family("riskd_connections_open", "gauge", "Open connections of the native door."),
    Family("riskd_connections_opened", "counter", "Connections that the native door took."),
    Family(
        "riskd_connections_refused",
        "counter",
        "Connections that the native door did not take or ended: full = no room, handshake = TLS "
        "failed, abuse = more than a client may.",
        ("cause",),
    ),
    Family(
        "riskd_calls_overloaded",
        "counter",
        "Calls that the native door refused because as many were in work as can be.",
    ),
    Family("riskd_resets", "counter", "Streams that clients of the native door reset."),
    Family("riskd_http_refused", "counter", "Requests of the native door that were not gRPC."),
    Family("riskd_received_bytes", "counter", "Bytes that the native door read, without TLS."),
    Family("riskd_sent_bytes", "counter", "Bytes that the native door wrote, without TLS."),
    Family(
        "riskd_journal_lag_records", "gauge", "Records that are not yet as durable as promised."
    ),
    Family("riskd_journal_lag_bytes", "gauge", "Bytes of these records."),
    Family("riskd_journal_lag_seconds", "gauge", "Age of the oldest of these records; 0 if none."),
    Family("riskd_journal_batches", "counter", "Batches that the journal has begun to write."),
    Family(
        "riskd_journal_failed",
        "gauge",
        "1 once the journal has failed: nothing is answered any more.",
    ),
    Family("riskd_table_rows", "gauge", "Rows in use of the engine's tables.", ("table",)),
    Family("riskd_table_rows_max", "gauge", "Room for rows, from the settings.", ("table",)),
    Family(
        "riskd_mark_age_seconds",
        "gauge",
        "Age of an instrument's mark, of the 256 oldest; none of what is settled.",
        ("instrument",),
    ),
    Family("riskd_mark_age_max_seconds", "gauge", "Age of the oldest mark; 0 if there is none."),
    Family(
        "riskd_marks_missing", "gauge", "Instruments that were never marked and are not settled."
    ),
    Family(
        "riskd_limit_use_ratio",
        "gauge",
        "Use of a limit over its value, of the 32 nearest to be used up; 1000 where the value "
        "is 0.",
        ("scope", "scope_id", "instrument", "kind"),
    ),
    Family(
        "riskd_limits_above",
        "gauge",
        "Limits of which at least this part is used.",
        ("ratio",),
    ),
    Family("riskd_limits_known", "gauge", "Limits whose use is known."),
    Family("riskd_limits_unknown", "gauge", "Limits whose use is not known, for want of a mark."),
    Family(
        "riskd_rulebook",
        "info",
        "Always 1; version = the date from which the rules in force hold, empty if they have none.",
        ("name", "version"),
    ),
    Family(
        "riskd_denials",
        "counter",
        "Calls that were denied for who their client is, by the reason of the error; NOT_KEPT: by "
        "the native door, of more kinds than it keeps until somebody looks.",
        ("door", "reason"),
    ),
    Family("riskd_scrape_duration_seconds", "gauge", "How long the last reading took."),
)


def reference_table() -> str:
    """Return the Markdown table of all metrics that docs/observability.md shows."""
    lines = ["| metric | type | labels | what it says |", "|---|---|---|---|"]
    lines += [
        f"| `{each.shown}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} "
        f"| {each.doc} |"
        for each in FAMILIES
    ]
    return "\n".join(lines)
