"""What does it cost that nothing acknowledged is lost?

A check with its record appended in memory, through Engine.submit, against the same check in an
engine without a journal. Checks a second that are answered once their record is as durable as was
promised: so many clients, each with one call at a time, in the event loop as in the service, and
one disk. The start after a crash: a journal of millions of records, orders and fills in turn, is
opened by a new engine, which checks all of it, replays it and comes to the same state.

A snapshot of an engine with a million positions: how long it takes to write and to load, how much
memory a position costs, and for how long at most the serving engine keeps a client waiting while
the process that makes it runs.

Peers in the same rounds: a bare write and fdatasync of a record's size on the same disk; for the
start, the check of the same journal alone (riskd.core.journal.repair).
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter_ns
from typing import Literal, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import (
    Json,
    Samples,
    no_collection,
    percentile,
    print_figures,
    rounded,
    time_each,
)
from benchmarks.market import Market, Trader, accepted, marks
from riskd.core.engine import (
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    Engine,
)
from riskd.core.journal import repair
from riskd.core.snapshot import snapshot_paths
from riskd.journal import closed_sequence, segments_of
from riskd.services.commits import Commits
from riskd.settings import Settings
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from riskd.wiring import build_engine

NOW_NS = 1_700_000_000_000_000_000
LISTINGS = 16
POSITIONS = 4
CLIENTS = (1, 16, 256)
# A record is its head, the head of a hot request, and the request; docs at the top of journal.pyx.
RECORD_HEAD = 40
HOT_HEAD = 8

Durability: TypeAlias = Literal["process", "machine"]
DURABILITIES: tuple[Durability, ...] = ("process", "machine")
Order: TypeAlias = orders_pb.CheckOrderRequest


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done."""

    rounds: int
    calls: int
    # Of a case with so many clients.
    calls_by_clients: dict[int, int]
    syncs: int
    accounts: int
    records: int
    # In a snapshot, 16 of an account.
    positions: int


FULL = Scale(
    rounds=7,
    calls=20_480,
    calls_by_clients={1: 400, 16: 4_000, 256: 20_480},
    syncs=200,
    accounts=512,
    records=10_000_000,
    positions=1_000_000,
)
QUICK = Scale(
    rounds=2,
    calls=640,
    calls_by_clients={1: 20, 16: 64, 256: 512},
    syncs=10,
    accounts=32,
    records=5_000,
    positions=512,
)


class Desk:
    """An engine, with a journal or without, and orders of its traders."""

    def __init__(self, scale: Scale, durability: Durability | None, directory: Path) -> None:
        self.engine = new_engine()
        if durability is not None:
            self.engine.open_journal(directory, durability=durability)
        self.market = Market(self.engine, LISTINGS, NOW_NS)
        traders = self.market.add_traders(scale.accounts, POSITIONS, types_pb2.MARGIN_MODE_ISOLATED)
        self.orders = self.market.orders(traders, scale.calls)

    def submit_all(self, method: int, requests: Sequence[bytes]) -> tuple[float, list[bytes]]:
        """Return nanoseconds a request, and the replies, whose records are durable by then."""

        def submit(request: bytes) -> bytes:
            return self.engine.submit(method, request, NOW_NS)[0]

        each_ns, replies = time_each(submit, requests)
        self.wait()
        return each_ns, replies

    def wait(self) -> None:
        """Wait until everything is durable."""
        if self.engine.journal is not None:
            self.engine.journal.wait(self.engine.journal.next_sequence - 1)

    def cancel(self, replies: Sequence[bytes]) -> None:
        _applied(
            self.submit_all(METHOD_REPORT_EXECUTION, self.market.cancels(accepted(replies)))[1]
        )

    def fill(self, orders: Sequence[Order], replies: Sequence[bytes]) -> None:
        fills = self.market.fills(orders, accepted(replies))
        _applied(self.submit_all(METHOD_REPORT_EXECUTION, fills)[1])


def new_engine() -> Engine:
    """Return an engine of the service's default sizes."""
    return build_engine(Settings(durability="none"))


def _applied(replies: Sequence[bytes]) -> None:
    for reply in map(orders_pb.ReportExecutionResponse.FromString, replies):
        assert reply.decision == types_pb2.DECISION_ACCEPTED, reply


# --- the serving engine ------------------------------------------------------------------------


class ServingRounds:
    """One round: the append in memory, the group commit by clients, the bare sync."""

    def __init__(self, scale: Scale, samples: Samples, directory: Path) -> None:
        self._scale = scale
        self._samples = samples
        self._directory = directory
        self._plain = Desk(scale, None, directory)
        self._desks = {each: Desk(scale, each, directory / each) for each in DURABILITIES}
        self.sync_us: list[float] = []

    def run(self) -> None:
        self._run_append("check_ns", self._plain)
        self._run_append("check_journaled_ns", self._desks["machine"])
        self._run_append("check_journaled_process_ns", self._desks["process"])
        for durability, desk in self._desks.items():
            for clients in CLIENTS:
                self._run_clients(f"checks_per_s_{durability}_{clients}", desk, clients)
        self._run_syncs()

    def _run_append(self, name: str, desk: Desk) -> None:
        each_ns, replies = desk.submit_all(METHOD_CHECK_ORDER, desk.market.encoded(desk.orders))
        self._samples.add(name, each_ns)
        desk.cancel(replies)

    def _run_clients(self, name: str, desk: Desk, clients: int) -> None:
        count = self._scale.calls_by_clients[clients]
        requests = desk.market.encoded(desk.orders[:count])
        with no_collection():
            start = perf_counter_ns()
            replies = asyncio.run(closed_loops(desk.engine, requests, clients))
            elapsed = perf_counter_ns() - start
        self._samples.add(name, count * 1e9 / elapsed)
        desk.cancel(replies)

    def _run_syncs(self) -> None:
        """The peer: a record's bytes and a sync, one after the other."""
        request = self._plain.market.encoded(self._plain.orders[:1])[0]
        content = bytes((RECORD_HEAD + HOT_HEAD + len(request) + 7) // 8 * 8)
        path = self._directory / "peer"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        times = []
        for _ in range(self._scale.syncs):
            start = perf_counter_ns()
            os.write(file, content)
            os.fdatasync(file)
            times.append((perf_counter_ns() - start) / 1000)
        os.close(file)
        path.unlink()
        self.sync_us += times
        self._samples.add("sync_p50_us", percentile(times, 50))
        self._samples.add("syncs_per_s", 1e6 / percentile(times, 50))


async def closed_loops(engine: Engine, requests: Sequence[bytes], clients: int) -> list[bytes]:
    """Answer all requests, so many at a time, as the service does; return the replies."""
    commits = Commits(engine, room_wait_s=10.0)
    commits.watch(lambda _: None)
    left = iter(requests)
    replies: list[bytes] = []

    async def client() -> None:
        for request in left:
            replies.append(await commits.handle(METHOD_CHECK_ORDER, request, lambda: NOW_NS))

    await asyncio.gather(*(client() for _ in range(clients)))
    commits.unwatch()
    return replies


# --- the start after a crash -------------------------------------------------------------------


def measure_recovery(scale: Scale, directory: Path) -> Json:
    """Write a journal of orders and fills, open it with a new engine, and compare the states."""
    desk = Desk(scale, "process", directory)
    journal = desk.engine.journal
    assert journal is not None
    while journal.next_sequence <= scale.records:
        replies = desk.submit_all(METHOD_CHECK_ORDER, desk.market.encoded(desk.orders))[1]
        desk.fill(desk.orders, replies)
    records = journal.next_sequence - 1
    state_hash = desk.engine.state_hash()
    desk.engine.close_journal()
    size = sum(each.stat().st_size for each in directory.glob("*.journal"))
    samples = Samples()
    for _ in range(min(scale.rounds, 3)):
        start = perf_counter_ns()
        assert repair(directory) is None
        samples.add("scan_records_per_s", records * 1e9 / (perf_counter_ns() - start))
        engine = new_engine()
        start = perf_counter_ns()
        assert engine.open_journal(directory).records == records
        samples.add("recover_records_per_s", records * 1e9 / (perf_counter_ns() - start))
        assert engine.state_hash() == state_hash
        engine.close_journal()
    return {
        **samples.medians(),
        "recovered_records": records,
        "bytes_per_record": rounded(size / records),
        "ratios": {"recover_to_scan": samples.ratio("recover_records_per_s", "scan_records_per_s")},
        "spread": samples.spread(),
    }


# --- snapshots ---------------------------------------------------------------------------------

POSITIONS_OF_ACCOUNT = 16
SNAPSHOT_SEGMENT = 64 << 20


class Holder:
    """A serving engine with many positions, all of them in closed segments of its journal."""

    def __init__(self, scale: Scale, directory: Path) -> None:
        self.directory = directory
        self.sizes = {
            "accounts_max": scale.positions // POSITIONS_OF_ACCOUNT,
            "positions_max": scale.positions,
        }
        self.engine = Engine(**self.sizes)
        buffer_bytes = 1 << 20 if scale is QUICK else 1 << 23
        self.engine.open_journal(
            directory,
            segment_bytes=2 * buffer_bytes if scale is QUICK else SNAPSHOT_SEGMENT,
            buffer_bytes=buffer_bytes,
        )
        self.market = Market(self.engine, POSITIONS_OF_ACCOUNT, NOW_NS)
        self.traders = self.market.open_accounts(
            self.sizes["accounts_max"], POSITIONS_OF_ACCOUNT, types_pb2.MARGIN_MODE_ISOLATED
        )
        for first in range(0, len(self.traders), 1024):
            self._open(self.traders[first : first + 1024])
        last = self.engine.submit(METHOD_REPORT_MARKS, self._marks(), NOW_NS)[1]
        while closed_sequence(segments_of(directory)) < last:
            self.trade(2_000)
        self.records = closed_sequence(segments_of(directory))

    def _marks(self) -> bytes:
        return marks(self.market.listings, NOW_NS)

    def _open(self, traders: Sequence[Trader]) -> None:
        orders = self.market.opening_orders(traders)
        replies = self._submit(METHOD_CHECK_ORDER, self.market.encoded(orders))
        _applied(
            self._submit(METHOD_REPORT_EXECUTION, self.market.fills(orders, accepted(replies)))
        )

    def _submit(self, method: int, requests: Sequence[bytes]) -> list[bytes]:
        replies = []
        for request in requests:
            reply, sequence = self.engine.submit(method, request, NOW_NS)
            replies.append(reply)
        assert self.engine.journal is not None
        self.engine.journal.wait(sequence)
        return replies

    def trade(self, count: int) -> None:
        """Send orders and cancel them."""
        orders = self.market.encoded(self.market.orders(self.traders[:512], count))
        replies = self._submit(METHOD_CHECK_ORDER, orders)
        self._submit(METHOD_REPORT_EXECUTION, self.market.cancels(accepted(replies)))

    def stall_ms(self, is_over: Callable[[], bool]) -> float:
        """Have a client check and cancel, one call at a time; return its longest wait for both."""
        orders = self.market.orders(self.traders[:512], 2_048)
        longest = 0
        index = 0
        before = perf_counter_ns()
        while not is_over():
            (request,) = self.market.encoded([orders[index % len(orders)]])
            reply = self.engine.handle(METHOD_CHECK_ORDER, request, NOW_NS)
            (cancel,) = self.market.cancels(accepted([reply]))
            self.engine.handle(METHOD_REPORT_EXECUTION, cancel, NOW_NS)
            now = perf_counter_ns()
            longest = max(longest, now - before)
            before = now
            index += 1
        return longest / 1e6


def measure_snapshots(scale: Scale, directory: Path) -> Json:
    """Write and load snapshots, and look at a client's longest wait while one is made."""
    holder = Holder(scale, directory)
    samples = Samples()
    for _ in range(min(scale.rounds, 3)):
        _measure_stalls(holder, samples)
        _measure_file(holder, samples)
    size = Path(snapshot_paths(directory)[0][1]).stat().st_size
    holder.engine.close_journal()
    return {
        **samples.medians(),
        "snapshot_pause_ms": rounded(
            samples.median("stall_with_snapshot_ms") - samples.median("stall_without_ms")
        ),
        "snapshot_bytes": size,
        "snapshot_positions": scale.positions,
        "bytes_per_position": rounded(memory_of(holder.sizes) / scale.positions),
        "bytes_per_only_position": rounded(
            memory_of(dict.fromkeys(holder.sizes, scale.positions)) / scale.positions
        ),
        "ratios": {"snapshot_to_load": samples.ratio("snapshot_s", "snapshot_load_s")},
        "spread": samples.spread(),
    }


def _measure_stalls(holder: Holder, samples: Samples) -> None:
    """Let a client wait beside the process that replays all and writes, and as long without."""
    for _, path in snapshot_paths(holder.directory):
        os.unlink(path)
    command = [sys.executable, "-m", "riskd.cli", "journal", "snapshot", str(holder.directory)]
    start = perf_counter_ns()
    with subprocess.Popen([*command, "--nice", "19"], stdout=subprocess.DEVNULL) as process:
        samples.add("stall_with_snapshot_ms", holder.stall_ms(lambda: process.poll() is not None))
    elapsed = perf_counter_ns() - start
    assert process.returncode == 0
    samples.add("snapshot_process_s", elapsed / 1e9)
    end = perf_counter_ns() + elapsed
    samples.add("stall_without_ms", holder.stall_ms(lambda: perf_counter_ns() >= end))


def _measure_file(holder: Holder, samples: Samples) -> None:
    """Load what the process wrote, write it once more elsewhere, and compare the files."""
    ((sequence, path),) = snapshot_paths(holder.directory)
    engine = Engine(accounts_max=1, positions_max=1, orders_max=1)
    start = perf_counter_ns()
    assert engine.recover(holder.directory, until_sequence=sequence).snapshot == path
    samples.add("snapshot_load_s", (perf_counter_ns() - start) / 1e9)
    with workspace(holder.directory) as other:
        start = perf_counter_ns()
        written = engine.write_snapshot(other)
        samples.add("snapshot_s", (perf_counter_ns() - start) / 1e9)
        assert Path(written).read_bytes() == Path(path).read_bytes()


def memory_of(sizes: dict[str, int]) -> int:
    """Return the bytes of memory that an engine takes more than the smallest.

    In a process of its own, where there is no memory that was given back and is taken again.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_memory_taken, sizes).result()


def _memory_taken(sizes: dict[str, int]) -> int:
    # The first one also takes what all of them share, and is held like the others.
    first = Engine(accounts_max=1, positions_max=1)
    before = _resident_bytes()
    smallest = Engine(accounts_max=1, positions_max=1)
    between = _resident_bytes()
    engine = Engine(**sizes)
    taken = _resident_bytes() - between
    del first, smallest, engine
    return taken - (between - before)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- everything --------------------------------------------------------------------------------


def measure_serving(scale: Scale, directory: Path) -> Json:
    """Run the rounds of the serving engine."""
    samples = Samples()
    rounds = ServingRounds(scale, samples, directory)
    for _ in range(scale.rounds):
        rounds.run()
    pairs = {
        "check_journaled_to_check": ("check_journaled_ns", "check_ns"),
        **{
            f"machine_{clients}_to_syncs": (f"checks_per_s_machine_{clients}", "syncs_per_s")
            for clients in CLIENTS
        },
    }
    return {
        **samples.medians(),
        "sync_p99_us": rounded(percentile(rounds.sync_us, 99)),
        "ratios": {name: samples.ratio(*pair) for name, pair in pairs.items()},
        "spread": samples.spread(),
    }


# Each is given a directory of its own, and returns figures, ratios and spread.
PARTS: tuple[Callable[[Scale, Path], Json], ...] = (
    measure_serving,
    measure_recovery,
    measure_snapshots,
)


def parse(question: str | None) -> tuple[Scale, Path | None]:
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument(
        "--quick", action="store_true", help="only try everything once; the figures mean nothing"
    )
    parser.add_argument("--records", type=int, help=f"to recover (default: {FULL.records})")
    parser.add_argument("--positions", type=int, help=f"in a snapshot (default: {FULL.positions})")
    parser.add_argument("--directory", type=Path, help="on the disk to measure (default: /tmp)")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    if arguments.records is not None:
        scale = replace(scale, records=arguments.records)
    if arguments.positions is not None:
        scale = replace(scale, positions=arguments.positions)
    return scale, arguments.directory


@contextmanager
def workspace(parent: Path | None) -> Iterator[Path]:
    """Give a new directory; it is gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="riskd-bench-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def main() -> None:
    """Run everything and print the figures."""
    scale, parent = parse(__doc__)
    figures: Json = {}
    ratios: Json = {}
    spread: Json = {}
    for measure in PARTS:
        with workspace(parent) as directory:
            part = measure(scale, directory)
        for whole, name in ((ratios, "ratios"), (spread, "spread")):
            more = part.pop(name)
            assert isinstance(more, dict)
            whole.update(more)
        figures |= part
    figures |= {"ratios": ratios, "spread": spread, "rounds": scale.rounds}
    print_figures(figures)


if __name__ == "__main__":
    main()
