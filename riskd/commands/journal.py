"""`riskd journal`: verify, inspect, export and shorten what a service kept."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

from riskd.core.engine import Engine, ReplayError
from riskd.core.journal import JournalDamagedError, Torn
from riskd.core.rows import Replay
from riskd.core.snapshot import SnapshotInvalidError
from riskd.journal import NAMES, Entries, Entry, RecordError, segments_of
from riskd.snapshots import SnapshotBusyError, take_snapshot

ROWS_PER_BATCH = 1 << 16

EXAMPLES = """examples:
  riskd journal verify riskd-journal
  riskd journal inspect riskd-journal --account 7 --kind CheckOrder --json
  riskd journal inspect riskd-journal --revisions 100-120
  riskd journal export riskd-journal journal.parquet
  riskd journal snapshot riskd-journal --keep 3 --archive /mnt/archive

All work on the directory of a service that runs. Exit status: 0 done, 1 damage (with file and byte)
or replies that this version would not give. Only `snapshot` changes anything: it makes one of what
the service has closed, and removes what no kept snapshot needs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands of `riskd journal`."""
    parser.description = "Verify, inspect, export and shorten a journal."
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="journal_action", metavar="ACTION", required=True)

    verify = actions.add_parser(
        "verify", help="replay all that is there and compare every revision and reply"
    )
    verify.add_argument("directory", metavar="DIR")
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(action=_verify)

    inspect = actions.add_parser("inspect", help="list records, one a line")
    inspect.add_argument("directory", metavar="DIR")
    inspect.add_argument(
        "--kind",
        metavar="NAME",
        dest="kinds",
        type=_kind,
        action="append",
        help="only these: CheckOrder, ReportMarks, create_account, ... (can be given again)",
    )
    inspect.add_argument(
        "--account", metavar="ID", type=int, help="only what names the account itself"
    )
    inspect.add_argument(
        "--gateway", metavar="ID", type=int, help="only what names the gateway itself"
    )
    inspect.add_argument(
        "--revisions", metavar="A-B", type=_range, default=(0, 1 << 64), help="only these, 100-120"
    )
    inspect.add_argument("--limit", metavar="N", type=int, help="the first N of them")
    inspect.add_argument("--json", action="store_true", help="print a JSON object a line")
    inspect.set_defaults(action=_inspect)

    export = actions.add_parser("export", help="write records to a Parquet file")
    export.add_argument("directory", metavar="DIR")
    export.add_argument("file", metavar="FILE.parquet")
    export.set_defaults(action=_export)

    snapshot = actions.add_parser(
        "snapshot",
        help="replay it into a snapshot, so that a start need not",
        description="Replay the closed files of a journal, from the newest snapshot on, into a new"
        " one. Older snapshots, and what only they need, are removed once it was read back.",
    )
    snapshot.add_argument("directory", metavar="DIR")
    snapshot.add_argument(
        "--keep", type=_count, default=2, metavar="N", help="snapshots that stay (default: 2)"
    )
    snapshot.add_argument(
        "--archive", metavar="DIR", help="where files of the journal go that would be removed"
    )
    snapshot.add_argument(
        "--accept-differences",
        action="store_true",
        help="go on although this version gives other replies than the recorded ones",
    )
    snapshot.add_argument(
        "--nice", type=int, default=0, metavar="N", help="how far to lower the priority"
    )
    snapshot.set_defaults(action=_snapshot)


def run(arguments: argparse.Namespace) -> int:
    """Run what add_arguments parsed; return the exit status."""
    action: Callable[[argparse.Namespace], int] = arguments.action
    try:
        return action(arguments)
    except (
        JournalDamagedError,
        MemoryError,
        OSError,
        RecordError,
        ReplayError,
        SnapshotBusyError,
        SnapshotInvalidError,
    ) as error:
        print(f"riskd journal: {error}", file=sys.stderr)
        return 1


class _Progress:
    """A line on standard error once a second, if somebody looks."""

    def __init__(self) -> None:
        self._reported = time.monotonic()

    def __call__(self, records: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._reported >= 1:
            self._reported = time.monotonic()
            print(f"{records:,} records ...", file=sys.stderr)


def _verify(arguments: argparse.Namespace) -> int:
    # As small as can be: the first record has the capacities.
    engine = Engine(accounts_max=1, positions_max=1, orders_max=1, answer_bytes=4096)
    start = time.monotonic()
    segments = segments_of(arguments.directory)
    if segments and segments[0].first_sequence > 1:
        read_back: Callable[..., Replay] = partial(engine.recover, from_oldest=True)
    else:
        read_back = engine.replay
    replay = read_back(arguments.directory, accept_differences=True, progress=_Progress())
    seconds = time.monotonic() - start
    figures: dict[str, Any] = {
        "snapshot": replay.snapshot or "no",
        "records": replay.records,
        "seconds": round(seconds, 3),
        "revision": engine.revision,
        "state_hash": engine.state_hash(),
        "answers_hash": engine.answers_hash(),
        "differences": replay.differences,
        "first_difference": replay.first_difference,
        "torn": _torn_text(replay.torn),
    }
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            print(f"  {name.replace('_', ' '):<16}  {value}")
    if replay.differences:
        print(
            f"riskd journal: {replay.differences} replies are not the recorded ones, the first at"
            f" record {replay.first_difference}",
            file=sys.stderr,
        )
        return 1
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    entries = Entries(arguments.directory)
    for entry in islice(_wanted(entries, arguments), arguments.limit):
        if arguments.json:
            print(
                json.dumps(
                    {
                        "sequence": entry.sequence,
                        "time_ns": entry.time_ns,
                        "revision": entry.revision,
                        "kind": entry.name,
                        "actor": entry.actor,
                        "fields": entry.fields,
                    }
                )
            )
        else:
            seconds, rest_ns = divmod(entry.time_ns, 10**9)
            when = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            actor = f" {entry.actor}" if entry.actor else ""
            print(
                f"{entry.sequence:>8} r{entry.revision} {when}.{rest_ns:09d}Z"
                f" {entry.name}{actor} {entry.text()}"
            )
    _note_torn(entries)
    return 0


def _wanted(entries: Iterator[Entry], arguments: argparse.Namespace) -> Iterator[Entry]:
    first, last = arguments.revisions
    for entry in entries:
        if entry.revision > last:
            return
        if (
            entry.revision >= first
            and (not arguments.kinds or entry.name in arguments.kinds)
            and (arguments.account is None or entry.number("account_id") == arguments.account)
            and (arguments.gateway is None or entry.number("gateway_id") == arguments.gateway)
        ):
            yield entry


# Column: type in Arrow, value. Numbers that a request does not name are null.
_NUMBERS = {
    "account_id": "uint64",
    "gateway_id": "uint32",
    "instrument_id": "uint32",
    "client_order_id": "uint64",
    "reservation_id": "uint64",
    "execution_id": "uint64",
    "price_ticks": "int64",
    "quantity_lots": "uint64",
}


def _export(arguments: argparse.Namespace) -> int:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        print("riskd journal: export needs pyarrow: pip install 'riskd[export]'", file=sys.stderr)
        return 1
    schema = pa.schema(
        [
            ("sequence", pa.uint64()),
            ("time", pa.timestamp("ns", tz="UTC")),
            ("revision", pa.uint64()),
            ("kind", pa.string()),
            ("actor", pa.string()),
            *((name, getattr(pa, kind)()) for name, kind in _NUMBERS.items()),
            ("side", pa.string()),
            ("fields", pa.string()),
        ]
    )
    entries = Entries(arguments.directory)
    progress = _Progress()
    count = 0
    # Under another name until it is whole.
    unfinished = f"{arguments.file}.partial"
    try:
        with parquet.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            while batch := list(islice(entries, ROWS_PER_BATCH)):
                rows = [_row(entry) for entry in batch]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                count += len(rows)
                progress(count)
        os.replace(unfinished, arguments.file)
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise
    print(f"{count:,} records in {arguments.file}")
    _note_torn(entries)
    return 0


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "time": entry.time_ns,
        "revision": entry.revision,
        "kind": entry.name,
        "actor": entry.actor,
        **{name: entry.number(name) for name in _NUMBERS},
        "side": str(entry.fields["side"]).removeprefix("SIDE_") if "side" in entry.fields else None,
        "fields": entry.text(),
    }


def _snapshot(arguments: argparse.Namespace) -> int:
    os.nice(arguments.nice)
    taken = take_snapshot(
        arguments.directory,
        kept=arguments.keep,
        archive_directory=arguments.archive,
        accept_differences=arguments.accept_differences,
        progress=_Progress(),
    )
    if taken is None:
        print("nothing to do: no closed file has records after the newest snapshot")
        return 0
    print(
        f"{taken.path}: up to record {taken.sequence}, {taken.records} replayed,"
        f" {taken.seconds:.1f} s"
    )
    for reason in taken.refused:
        print(f"not used: {reason}")
    for path in taken.removed:
        print(f"removed: {path}")
    for path in taken.archived:
        print(f"archived: {path}")
    return 0


def _torn_text(torn: Torn | None) -> str:
    return f"{torn.file} at byte {torn.offset}: {torn.reason}" if torn else "no"


def _note_torn(entries: Entries) -> None:
    if entries.scan.torn is not None:
        print(
            "riskd journal: ends with a record that is not whole (of a write under way, or cut"
            f" off): {_torn_text(entries.scan.torn)}",
            file=sys.stderr,
        )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _kind(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(NAMES)}")
    return text


def _range(text: str) -> tuple[int, int]:
    start, separator, end = text.partition("-")
    try:
        first = int(start or 0)
        last = int(end or (1 << 64 if separator else start))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range like 100-120") from None
    if first > last:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins")
    return first, last
