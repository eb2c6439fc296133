"""How many calls does the native door answer for a second of CPU, and how fast?

A process with both doors of riskd (the native one and the control server) on one engine is called
beside peers that decide nothing: an echo in C++ gRPC, one in grpcio, one over bare libnghttp2, and
a TCP ping-pong. peers/build.py builds them; what cannot be built is in `missing`, and its figures
are null. The load is peers/load.c on one core, the servers are on another, and they take turns
within each round. Every check is a new order that must be accepted and reserved.

The figures' percentiles are drawn into build/bench/listener.html.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Json, Samples, print_figures, quick_asked, rounded
from benchmarks.market import Market, marks
from benchmarks.peers.build import MissingError, build
from benchmarks.peers.page import Curve, write_page
from riskd.settings import Settings
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from riskd.wiring import build_engine, build_server

CHECK = "/riskd.v1.OrderRiskService/CheckOrder"
BATCH = "/riskd.v1.OrderRiskService/BatchCheckOrders"
STREAM = "/riskd.v1.OrderRiskService/StreamOrders"
REPORT_MARKS = "/riskd.v1.MarketDataService/ReportMarks"
PEERS = Path(__file__).resolve().parent / "peers"
PAGE = Path(__file__).resolve().parents[1] / "build" / "bench" / "listener.html"

LISTINGS = 5
POSITIONS = 4
# Ids of 64 bits, as many venues have: with them a request has 46 to 48 bytes.
FIRST_ACCOUNT = 1 << 55
BATCH_ORDERS = 64
CONNECTIONS = 4
STREAMS = 32
OVERLOAD_CONNECTIONS = 32
# Ids of the runs of one server are that far apart.
RUN_IDS = 1 << 32
TIMEOUT_S = 60
SHARES = (50.0, 99.0, 99.9, 99.99)
# What an echo answers: the reply to an accepted order, as long as those of the engine are.
REPLY = orders_pb.CheckOrderResponse(
    decision=types_pb2.DECISION_ACCEPTED,
    reservation_id=1 << 20,
    revision=1 << 27,
    initial_margin_minor=1 << 33,
    available_minor=1 << 56,
    liquidation_price_ticks=1 << 20,
    liquidation_status=types_pb2.LIQUIDATION_STATUS_AT_PRICE,
    reserved_minor=1 << 33,
).SerializeToString()


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done."""

    rounds: int
    seconds: float
    warm_up: float
    accounts: int
    single_calls: int
    orders: int
    # With the peers and the client in C++, which take long to build, and all variants.
    whole: bool


FULL = Scale(5, 1.5, 0.3, accounts=4096, single_calls=4_000, orders=1 << 14, whole=True)
QUICK = Scale(1, 0.05, 0.01, accounts=16, single_calls=20, orders=256, whole=False)


# riskd is served in several ways, each by a process of its own; `native` is the one to compare.
VARIANTS: dict[str, dict[str, Any]] = {
    "native": {},
    "native_none": {"durability": "none"},
    "native_machine": {"durability": "machine"},
    "native_threads": {"threads": 2},
    "native_sleeping": {"busy_poll_us": 0},
    # What timing one call in 64 costs: beside none, and one in 16.
    "native_untimed": {"calls_per_timed": 0},
    "native_timed_16": {"calls_per_timed": 16},
    "native_tls": {},
    # Millions of orders: overload, batches and streams.
    "native_bulk": {"orders_max": 1 << 23},
}
# Whose latencies are measured on a schedule.
SCHEDULED = ("native", "native_tls", "native_machine", "cpp_echo", "nghttp2_echo")


# --- servers -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and where its doors are."""

    pid: int
    addresses: dict[str, str]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate, which is its own authority, and its key."""

    certificate: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate for localhost. Raises MissingError without openssl."""
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    words = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "1", "-subj", "/CN=riskd", "-addext", "subjectAltName=DNS:localhost"),
        *("-out", str(made.certificate), "-keyout", str(made.key)),
    ]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise MissingError(f"TLS needs Debian's openssl: {error}") from None
    return made


def serve(options: dict[str, Any]) -> None:
    """Open both doors for the benchmark's market, print where, stop when standard input ends."""
    settings = Settings(
        control_address="127.0.0.1:0",
        durability=options["durability"],
        journal_directory=options["directory"],
        orders_max=options["orders_max"],
    )
    engine = build_engine(settings)
    market = Market(engine, LISTINGS, time.time_ns(), FIRST_ACCOUNT)
    market.add_traders(options["accounts"], POSITIONS, types_pb2.MARGIN_MODE_ISOLATED)
    server = build_server(settings, engine)
    addresses = {"control": f"127.0.0.1:{server.start()}"}
    listener: Any = None
    # Not everywhere built: it needs libnghttp2.
    with suppress(ModuleNotFoundError):
        listener = import_module("riskd.core.listener").Listener(
            engine,
            threads=options["threads"],
            busy_poll_us=options["busy_poll_us"],
            calls_per_timed=options["calls_per_timed"],
        )
        addresses["native"] = listener.listen("127.0.0.1:0")
        if options["certificate"]:
            tls = import_module("riskd.core.tls").Tls(options["certificate"], options["key"], None)
            addresses["tls"] = listener.listen("127.0.0.1:0", tls)
        addresses["unix"] = listener.listen(f"unix:{options['directory']}.socket")
        listener.start()
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()
    if listener is not None:
        listener.stop(0)
    server.stop(0)
    engine.close_journal()


def on_core(core: int, command: Sequence[str | Path]) -> list[str]:
    """Return the command of a process that runs on one core only."""
    return ["taskset", "--cpu-list", str(core), *map(str, command)]


@contextmanager
def running(command: Sequence[str | Path], core: int) -> Iterator[tuple[int, str]]:
    """Run a server on a core; give its process id and its first line."""
    process = subprocess.Popen(
        on_core(core, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{command[0]} ended with status {process.wait()}")
        yield process.pid, line
    finally:
        process.stdin.close()
        process.terminate()
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def riskd(
    folder: Path, variant: dict[str, Any], certificate: Certificate | None, accounts: int, core: int
) -> Iterator[Server]:
    """Run riskd with an empty journal in the folder."""
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        options = {
            "durability": "process",
            "threads": 1,
            "busy_poll_us": Settings(durability="none").listener_busy_poll_us,
            "calls_per_timed": Settings(durability="none").listener_calls_per_timed,
            "orders_max": 1 << 22,
            "directory": str(Path(directory) / "journal"),
            "accounts": accounts,
            "certificate": str(certificate.certificate) if certificate else "",
            "key": str(certificate.key) if certificate else "",
        } | variant
        with running([sys.executable, __file__, "--serve", json.dumps(options)], core) as (
            pid,
            line,
        ):
            yield Server(pid, json.loads(line))


# --- requests ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Requests:
    """Files of messages for the load generator."""

    single: Path
    batch: Path
    stream: Path


def write_requests(folder: Path, market: Market, scale: Scale) -> Requests:
    """Write the orders of all traders by themselves, in batches, and as messages of a stream."""
    traders = market.add_traders(scale.accounts, POSITIONS, types_pb2.MARGIN_MODE_ISOLATED)
    # Small, so that the millions of a run fit into the accounts' margin and tiers.
    orders = market.encoded(market.orders(traders, scale.orders, (60, 200)))
    batches = [
        orders_pb.BatchCheckOrdersRequest(
            orders=[
                orders_pb.CheckOrderRequest.FromString(order)
                for order in orders[first : first + BATCH_ORDERS]
            ]
        ).SerializeToString()
        for first in range(0, len(orders), BATCH_ORDERS)
    ]
    # Field 1 of the stream's message is an order.
    streamed = [b"\x0a" + bytes([len(order)]) + order for order in orders]
    requests = Requests(folder / "single", folder / "batch", folder / "stream")
    requests.single.write_bytes(b"".join(map(_template, orders)))
    requests.batch.write_bytes(b"".join(_template(batch, BATCH_ORDERS) for batch in batches))
    requests.stream.write_bytes(b"".join(map(_template, streamed)))
    return requests


def _template(message: bytes, count: int = 1) -> bytes:
    """Return a message of so many orders as load.c reads it: sizes, where the ids are, the bytes.

    The market's serials are small: field 3 is a fixed64 whose upper four bytes are zero.
    """
    offsets = [
        at + 1
        for at in range(len(message) - 8)
        if message[at] == 0x19 and message[at + 5 : at + 9] == bytes(4)
    ]
    assert len(offsets) == count, (message, offsets)
    return struct.pack(f"=II{count}I", len(message), count, *offsets) + message


# --- load --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Latencies:
    """Counts by nanoseconds, from the histograms of the C programs."""

    counts: dict[int, int] = field(default_factory=dict)

    def add(self, histogram: Sequence[Sequence[int]]) -> None:
        for highest_ns, count in histogram:
            self.counts[highest_ns] = self.counts.get(highest_ns, 0) + count

    def percentile_us(self, share: float) -> float:
        """Return the least latency that `share` per cent of all calls do not exceed."""
        wanted = sum(self.counts.values()) * share / 100
        seen = 0
        for highest_ns in sorted(self.counts):
            seen += self.counts[highest_ns]
            if seen >= wanted:
                return rounded(highest_ns / 1e3)
        raise ValueError("no calls")


class Load:
    """The programs that call, on a core of their own."""

    def __init__(
        self, core: int, scale: Scale, authority: Path | None, missing: dict[str, str]
    ) -> None:
        self.scale = scale
        self._authority = authority
        self._core = core
        self._next_id = RUN_IDS
        self._load = build("load")
        self._client: Path | None = None
        if scale.whole:
            try:
                self._client = build("client_grpc")
            except MissingError as error:
                missing["cpp_client"] = str(error)

    def run(
        self,
        server: Server,
        door: str,
        path: str,
        requests: Path,
        *,
        rate: float = 0,
        connections: int = CONNECTIONS,
        streams: int = STREAMS,
        window: int = 0,
        from_sending: bool = False,
    ) -> dict[str, Any]:
        """Run a closed loop, or an open one of this rate; window > 0: streams of messages.

        Latencies of an open loop count from when a call was due, or from_sending.

        Raises RuntimeError if a call fails, or an order is rejected.
        """
        more = ["--streaming", "--window", str(window)] if window else []
        if from_sending:
            more.append("--from-sending")
        if door == "tls":
            more += ["--ca", str(self._authority)]
        out = self._call(
            [
                *(self._load, "--address", server.addresses[door], "--path", path),
                *("--requests", requests, "--server-pid", str(server.pid)),
                *("--connections", str(connections), "--streams", str(streams)),
                *("--seconds", str(self.scale.seconds), "--warm-up", str(self.scale.warm_up)),
                *("--rate", str(rate), "--first-id", str(self._ids()), *more),
            ]
        )
        if out["failed"] or out["rejected"]:
            raise RuntimeError(
                f"{door} {path}: {out['failed']} calls failed, {out['rejected']} orders rejected, "
                f"the first for reason {out['first_reason']}"
            )
        return out

    def one_by_one(self, address: str, requests: Path) -> list[list[int]] | None:
        """Call through C++ gRPC, one at a time; return the histogram, None without the client."""
        if self._client is None:
            return None
        words: list[str | Path] = [
            self._client,
            address,
            requests,
            str(self._ids()),
            str(self.scale.single_calls),
        ]
        return list(self._call(words)["histogram"])

    def ping_pong(self, program: Path, port: str) -> list[list[int]]:
        """Return the histogram of bare round trips."""
        words: list[str | Path] = [program, "call", port.strip(), str(self.scale.single_calls)]
        return list(self._call(words)["histogram"])

    def _ids(self) -> int:
        self._next_id += RUN_IDS
        return self._next_id

    def _call(self, words: Sequence[str | Path]) -> dict[str, Any]:
        done = subprocess.run(
            on_core(self._core, words),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{Path(words[0]).name} failed: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


# --- rounds ------------------------------------------------------------------------------------


class ListenerRounds:
    """One round of each measurement; what is not there is left out."""

    def __init__(self, load: Load, requests: Requests, market: Market) -> None:
        self.samples = Samples()
        self.latencies: dict[str, Latencies] = {}
        self._load = load
        self._requests = requests
        self._market = market
        self._is_reversed = False

    def run(self, variants: dict[str, Server], peers: dict[str, Server]) -> None:
        """Run one round: every server in each kind of load before the next kind.

        Every other round they come in the other order: who is later meets what the earlier ones
        left to the disk.
        """
        native = variants["native"]
        bulk = variants.pop("native_bulk", native)
        doors = {name: (server, "echo") for name, server in peers.items()}
        doors["control"] = (native, "control")
        if "native" in native.addresses:
            doors |= {name: (server, "native") for name, server in variants.items()}
            doors["native_unix"] = (native, "unix")
        secured = variants.get("native_tls", native)
        if "tls" in secured.addresses:
            doors["native_tls"] = (secured, "tls")
        if self._is_reversed:
            doors = dict(reversed(doors.items()))
        self._is_reversed = not self._is_reversed
        for name, (server, door) in doors.items():
            self._closed(name, server, door)
        for name, (server, door) in doors.items():
            if door != "tls":  # The client in C++ speaks plain text.
                histogram = self._ready(server).one_by_one(
                    server.addresses[door], self._requests.single
                )
                self._add_latency(f"{name}_call", histogram)
        for name, (server, door) in doors.items():
            if name.startswith(("native", "nghttp2")):
                self._one_by_one(name, server, door)
        for share in (10, 70):
            for name, (server, door) in doors.items():
                if name in SCHEDULED:
                    self._open(name, server, door, share)
        if "native" in doors:
            self._native_only(bulk)

    def _closed(self, name: str, server: Server, door: str) -> None:
        out = self._ready(server).run(server, door, CHECK, self._requests.single)
        self._add_rate(name, "calls", out["calls"], out)

    def _one_by_one(self, name: str, server: Server, door: str) -> None:
        out = self._ready(server).run(
            server, door, CHECK, self._requests.single, connections=1, streams=1
        )
        self._add_latency(f"{name}_client", out["histogram"])

    def _open(self, name: str, server: Server, door: str, share: int) -> None:
        """Load with a share of what the closed loop of this round got, on a fixed schedule."""
        rate = self.samples.last(f"{name}_calls_per_s") * share / 100
        out = self._ready(server).run(
            server, door, CHECK, self._requests.single, rate=rate, streams=64
        )
        self._add_latency(f"{name}_at_{share}", out["histogram"])

    def _native_only(self, server: Server) -> None:
        capacity = self.samples.last("native_calls_per_s")
        # More calls at a time than the door takes: waiting in the client would be no overload.
        out = self._ready(server).run(
            *(server, "native", CHECK, self._requests.single),
            rate=3 * capacity,
            connections=OVERLOAD_CONNECTIONS,
            streams=256,
            from_sending=True,
        )
        self.samples.add("overload_offered_ratio", out["started"] / out["seconds"] / capacity)
        self.samples.add("overload_goodput_ratio", out["calls"] / out["seconds"] / capacity)
        self.samples.add("overload_refused_per_s", out["refused"] / out["seconds"])
        self._add_latency("native_overloaded", out["histogram"])
        self._add_latency("native_refused", out["refused_histogram"])
        out = self._ready(server).run(server, "native", BATCH, self._requests.batch, streams=4)
        self._add_rate("batch", "checks", out["accepted"], out)
        out = self._ready(server).run(
            server, "native", STREAM, self._requests.stream, streams=1, window=32
        )
        self._add_rate("stream", "checks", out["accepted"], out)

    def _ready(self, server: Server) -> Load:
        """Return the load, once the server has marks of now: on old ones it would reject."""
        if "control" in server.addresses:
            with grpc.insecure_channel(server.addresses["control"]) as channel:
                call: Any = channel.unary_unary(REPORT_MARKS)
                call(marks(self._market.listings, time.time_ns()), timeout=TIMEOUT_S)
        return self._load

    def _add_rate(self, name: str, unit: str, count: int, out: dict[str, Any]) -> None:
        self.samples.add(f"{name}_{unit}_per_s", count / out["seconds"])
        # The kernel counts in hundredths of a second: a very short run may show none.
        self.samples.add(f"{name}_{unit}_per_cpu_s", count / max(out["server_cpu_s"], 0.01))

    def _add_latency(self, name: str, histogram: Sequence[Sequence[int]] | None) -> None:
        if histogram:
            self.latencies.setdefault(name, Latencies()).add(histogram)
            alone = Latencies()
            alone.add(histogram)
            self.samples.add(f"{name}_p50_us", alone.percentile_us(50))

    def ping_pong(self, program: Path, port: str) -> None:
        """Measure the peer without a protocol."""
        self._add_latency("tcp_pingpong", self._load.ping_pong(program, port))


def measure(scale: Scale) -> Json:
    """Build, run all rounds and return the figures."""
    cores = sorted(os.sched_getaffinity(0))
    load_core, server_core = cores[0], cores[-1]
    missing: dict[str, str] = {}
    certificate: Certificate | None = None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="riskd-listener-")))
        try:
            certificate = make_certificate(folder)
        except MissingError as error:
            missing["tls"] = str(error)
        authority = None if certificate is None else certificate.certificate
        load = Load(load_core, scale, authority, missing)
        reply = folder / "reply"
        reply.write_bytes(REPLY)
        market = Market(
            build_engine(Settings(durability="none")), LISTINGS, time.time_ns(), FIRST_ACCOUNT
        )
        requests = write_requests(folder, market, scale)
        commands: dict[str, Callable[[], list[str | Path]]] = {
            "grpcio": lambda: [sys.executable, PEERS / "echo_grpcio.py", reply],
            "nghttp2_echo": lambda: [build("echo_nghttp2"), reply],
        }
        if scale.whole:
            commands["cpp_echo"] = lambda: [build("echo_grpc"), reply]
        peers = {}
        for name, command in commands.items():
            try:
                pid, port = stack.enter_context(running(command(), server_core))
                peers[name] = Server(pid, {"echo": f"127.0.0.1:{int(port)}"})
            except MissingError as error:
                missing[name] = str(error)
        pingpong = build("pingpong")
        _, pingpong_port = stack.enter_context(running([pingpong, "serve"], server_core))
        rounds = ListenerRounds(load, requests, market)
        for _ in range(scale.rounds):
            # A new process each round: all rounds begin with the same number of working orders.
            with ExitStack() as servers:
                variants = {
                    name: servers.enter_context(
                        riskd(folder, VARIANTS[name], certificate, scale.accounts, server_core)
                    )
                    for name in (VARIANTS if scale.whole else ("native",))
                }
                if "native" not in variants["native"].addresses:
                    missing["native"] = "riskd.core.listener was not built: needs libnghttp2-dev"
                rounds.run(variants, peers)
                rounds.ping_pong(pingpong, pingpong_port)
    figures = _figures(rounds, missing, scale)
    figures["same_core"] = load_core == server_core
    if scale.whole:
        write_page(PAGE, _curves(rounds), figures)
    return figures


NAMED = (
    "native_calls_per_s",
    *(f"{name}_calls_per_cpu_s" for name in ("native", "cpp_echo", "grpcio", "nghttp2_echo")),
    *(f"{name}_calls_per_s" for name in ("cpp_echo", "grpcio", "nghttp2_echo")),
    "batch_checks_per_s",
    "native_p50_us",
    "cpp_echo_p50_us",
    "tcp_pingpong_p50_us",
    "overload_goodput_ratio",
)


def _figures(rounds: ListenerRounds, missing: dict[str, str], scale: Scale) -> Json:
    samples = rounds.samples
    medians = samples.medians()
    for name in ("native", "cpp_echo"):  # Through the same C++ client.
        if f"{name}_call_p50_us" in medians:
            medians[f"{name}_p50_us"] = medians[f"{name}_call_p50_us"]
    figures: Json = {name: medians.get(name) for name in NAMED}
    for name, latencies in rounds.latencies.items():
        for share in SHARES:
            key = f"{name}_p{f'{share:g}'.replace('.', '')}_us"
            figures[key] = latencies.percentile_us(share)
    figures.update({name: value for name, value in medians.items() if name not in figures})
    pairs = {
        "cpu_to_cpp_echo": ("native_calls_per_cpu_s", "cpp_echo_calls_per_cpu_s"),
        "cpu_to_grpcio": ("native_calls_per_cpu_s", "grpcio_calls_per_cpu_s"),
        "cpu_to_nghttp2_echo": ("native_calls_per_cpu_s", "nghttp2_echo_calls_per_cpu_s"),
        "cpp_echo_cpu_to_grpcio": ("cpp_echo_calls_per_cpu_s", "grpcio_calls_per_cpu_s"),
        "p50_to_cpp_echo": ("native_call_p50_us", "cpp_echo_call_p50_us"),
        "client_p50_to_pingpong": ("native_client_p50_us", "tcp_pingpong_p50_us"),
        "tls_cpu_to_plain": ("native_tls_calls_per_cpu_s", "native_calls_per_cpu_s"),
        "machine_cpu_to_process": ("native_machine_calls_per_cpu_s", "native_calls_per_cpu_s"),
        "none_cpu_to_process": ("native_none_calls_per_cpu_s", "native_calls_per_cpu_s"),
        "threads_cpu_to_one": ("native_threads_calls_per_cpu_s", "native_calls_per_cpu_s"),
        "untimed_cpu_to_native": ("native_untimed_calls_per_cpu_s", "native_calls_per_cpu_s"),
        "timed_16_cpu_to_native": ("native_timed_16_calls_per_cpu_s", "native_calls_per_cpu_s"),
        "sleeping_cpu_to_native": ("native_sleeping_calls_per_cpu_s", "native_calls_per_cpu_s"),
        "sleeping_p50_to_native": ("native_sleeping_call_p50_us", "native_call_p50_us"),
        "sleeping_p50_to_cpp_echo": ("native_sleeping_call_p50_us", "cpp_echo_call_p50_us"),
        "nghttp2_echo_client_p50_to_pingpong": (
            "nghttp2_echo_client_p50_us",
            "tcp_pingpong_p50_us",
        ),
    }
    known = set(samples.names())
    figures["ratios"] = {
        name: samples.ratio(*pair) for name, pair in pairs.items() if known.issuperset(pair)
    }
    figures["spread"] = samples.spread()
    figures["missing"] = missing
    figures["rounds"] = scale.rounds
    figures["seconds_per_run"] = scale.seconds
    return figures


def _curves(rounds: ListenerRounds) -> list[Curve]:
    return [Curve(name, latencies.counts) for name, latencies in rounds.latencies.items()]


def main() -> None:
    """Run everything and print the figures."""
    if sys.argv[1:2] == ["--serve"]:
        serve(json.loads(sys.argv[2]))
        return
    try:
        figures = measure(QUICK if quick_asked(__doc__) else FULL)
    except MissingError as error:
        sys.exit(f"listener: {error}")
    print_figures(figures)


if __name__ == "__main__":
    main()
