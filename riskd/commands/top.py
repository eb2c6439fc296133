"""`riskd top`: what a running service does, again and again."""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

from riskd.metrics.reading import Figures, Reading, Spread, figures_of, read
from riskd.settings import Settings, SettingsError, parse_address

INTERVAL_S_MIN, INTERVAL_S_MAX = 0.5, 3600.0
TIMEOUT_S = 5.0

# Another screen and no cursor, and back; the top of the screen, the rest of a line, of the screen.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_TOP, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

_STAGES = ("receive", "queue", "decode", "check", "encode", "journal", "send")
# The title, the stages, and the most frequent call as a whole.
_STAGE_LINES = len(_STAGES) + 2
_METHODS = ("CheckOrder", "BatchCheckOrders", "CheckAmendment", "ReportExecution", "GetReservation")

EPILOG = """examples:
  riskd top
  riskd top --metrics-address 127.0.0.1:9100 --interval 5
  riskd top --once                     figures since the start of the service
  riskd top --json | jq .calls         one object a reading

It reads the metrics endpoint (metrics_address of the service) and nothing else. Quantiles are
interpolated within its buckets, whose ends are a third or a half apart. Ctrl-C ends it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--metrics-address",
        metavar="HOST:PORT",
        default=os.environ.get("RISKD_METRICS_ADDRESS") or Settings().metrics_address,
        help="metrics_address of the service (default: %(default)s)",
    )
    parser.add_argument(
        "--interval",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help=f"time between readings, {INTERVAL_S_MIN} to {INTERVAL_S_MAX:g} (default: 1)",
    )
    parser.add_argument("--once", action="store_true", help="one reading, since the start")
    parser.add_argument("--json", action="store_true", help="JSON, one object a reading")


def run(arguments: argparse.Namespace) -> int:
    """Show readings until Ctrl-C; return 0, or 1 if the only one fails."""
    try:
        parse_address(arguments.metrics_address, "--metrics-address")
        if not INTERVAL_S_MIN <= arguments.interval <= INTERVAL_S_MAX:
            raise SettingsError(
                f"--interval is {arguments.interval:g}: must be {INTERVAL_S_MIN} to "
                f"{INTERVAL_S_MAX:g} s"
            )
    except SettingsError as error:
        print(f"riskd top: {error}", file=sys.stderr)
        return 1
    if arguments.once:
        return _show_once(arguments)
    # However it is ended, the terminal is left as it was.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    is_screen = sys.stdout.isatty() and not arguments.json
    if is_screen:
        sys.stdout.write(_ENTER)
    try:
        _watch(arguments, is_screen=is_screen)
    except KeyboardInterrupt:
        return 0
    finally:
        if is_screen:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()


def _show_once(arguments: argparse.Namespace) -> int:
    try:
        figures = figures_of(read(arguments.metrics_address, TIMEOUT_S), None)
    except (OSError, ValueError) as error:
        print(f"riskd top: {arguments.metrics_address}: {error}", file=sys.stderr)
        return 1
    print(as_json(figures) if arguments.json else "\n".join(lines_of(figures, 1000)))
    return 0


def _watch(arguments: argparse.Namespace, *, is_screen: bool) -> NoReturn:
    """Read and show for ever. A service that does not answer is asked again."""
    before: Reading | None = None
    while True:
        columns, rows = shutil.get_terminal_size((80, 24))
        try:
            now = read(arguments.metrics_address, TIMEOUT_S)
        except (OSError, ValueError) as error:
            reason = f"{arguments.metrics_address}: {error}"
            lines = [json.dumps({"error": reason}) if arguments.json else f"no figures: {reason}"]
        else:
            figures = figures_of(now, before)
            lines = [as_json(figures)] if arguments.json else list(lines_of(figures, rows - 1))
            before = now
        if is_screen:
            shown = "".join(f"{line[:columns]}{_END_OF_LINE}\n" for line in lines[: rows - 1])
            sys.stdout.write(_TOP + shown + _END_OF_SCREEN)
        else:
            print("\n".join(lines) + ("" if arguments.json else "\n"))
        sys.stdout.flush()
        time.sleep(arguments.interval)


def as_json(figures: Figures) -> str:
    """Return the figures as one line of JSON; durations in seconds, rates per second."""
    return json.dumps(dataclasses.asdict(figures), allow_nan=False)


def lines_of(figures: Figures, rows: int) -> Iterator[str]:
    """Yield a screen of 80 columns, at most so many rows: what is rarely needed is left out."""
    yield from _fitting(list(_head(figures)), [list(each) for each in _sections(figures)], rows)


def _fitting(head: list[str], sections: list[list[str]], rows: int) -> Iterator[str]:
    """Yield the head and of each section as many lines as there is room for, in turns.

    The first section, of stages, comes before the others.
    """
    taken = [0] * len(sections)
    left = rows - len(head)
    taken[0] = max(0, min(left, len(sections[0]), _STAGE_LINES))
    left -= taken[0]
    while left > 0 and any(map(int.__lt__, taken, map(len, sections))):
        for place, section in enumerate(sections):
            if taken[place] < len(section) and left > 0:
                taken[place] += 1
                left -= 1
    yield from head[:rows]
    for count, section in zip(taken, sections, strict=True):
        yield from section[:count]


def _head(figures: Figures) -> Iterator[str]:
    window = "since the start" if figures.is_since_start else f"last {figures.window_s:.1f} s"
    yield (
        f"riskd {figures.version}  up {_time(figures.up_s)}  revision {figures.revision:,}  "
        f"cpu {figures.cpu:.0%}  memory {figures.memory_bytes / 2**20:,.0f} MiB  {window}"
    )
    links = figures.connections
    yield (
        f"calls/s   native {figures.calls.get('native', 0):,.0f}"
        f"  control {figures.calls.get('control', 0):,.0f}"
        f"  overloaded {links['overloaded']:,.0f}  open calls {links['calls_open']:,.0f}"
        f"  streams {links['streams_open']:,.0f}"
    )
    yield (
        f"connected {links['open']:,.0f}  opened/s {links['opened']:,.1f}"
        f"  refused/s {links['refused']:,.1f}"
        f"  denials/s {sum(figures.denials.values()):,.1f}"
    )
    journal = figures.journal
    state = "FAILED" if journal["failed"] else f"batches/s {journal['batches']:,.0f}"
    yield (
        f"journal   lag {journal['records']:,.0f} records, {journal['bytes']:,.0f} bytes, "
        f"{_duration(journal['seconds'])}  {state}"
    )
    yield (f"marks     oldest {_duration(figures.mark_age_max_s)}  missing {figures.marks_missing}")


def _sections(figures: Figures) -> Iterator[Iterator[str]]:
    yield _table(
        "stage",
        [(f"native {stage}", figures.stages.get(f"native {stage}")) for stage in _STAGES]
        + [(f"native {each}", figures.durations.get(f"native {each}")) for each in _METHODS]
        + [
            (name, spread)
            for name, spread in {**figures.stages, **figures.durations}.items()
            if name.startswith("control ")
        ],
    )
    yield _values("answers/s", figures.answers, "{:,.1f}")
    yield _values("limits", {**figures.limits}, "{:.1%}")
    yield _values("not OK/s", figures.failed_calls, "{:,.1f}")
    yield _values("denials/s", figures.denials, "{:,.1f}")
    yield _values("mark age", figures.oldest_marks, "{:,.1f} s")
    yield _values("tables", figures.tables, "{:.1%}")


def _table(title: str, rows: list[tuple[str, Spread | None]]) -> Iterator[str]:
    known = [(name, spread) for name, spread in rows if spread is not None]
    if known:
        yield f"{title:<32}{'timed':>10}{'p50':>10}{'p99':>10}{'p99.9':>10}"
    for name, spread in known:
        yield (
            f"  {name:<30}{spread.count:>10,.0f}{_duration(spread.p50):>10}"
            f"{_duration(spread.p99):>10}{_duration(spread.p99_9):>10}"
        )


def _values(title: str, values: dict[str, float], form: str) -> Iterator[str]:
    if values:
        yield title
    for name, value in values.items():
        yield f"  {name:<52}{form.format(value):>18}"


def _duration(seconds: float | None) -> str:
    """Return a duration with three digits and its unit."""
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1e5 else f"{seconds:,.0f} s"
    return f"{seconds * 1e9:.0f} ns" if seconds else "0"


def _time(seconds: float) -> str:
    """Return a long time as days, hours and minutes, a short one in seconds."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    days, rest = divmod(int(seconds), 86400)
    return f"{days} d " * bool(days) + f"{rest // 3600}:{rest % 3600 // 60:02}"
