"""How many CheckOrder calls does the control server answer, and how fast?

A server process of the parts that riskd serves with (default settings: threads, limits, error
model) answers CheckOrder, and beside it an empty echo method that returns its request's bytes. The
client is grpcio in this process, on the same machine, so that a rate is one of client and server
together. Rates are closed loops with few connections; latencies are of one call at a time. Rounds
of checks and of echoes alternate. Every check is a new order that is accepted and reserved, which
is verified after the timing.
"""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import grpc
import grpc.aio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import (
    Json,
    Samples,
    no_collection,
    percentile,
    print_figures,
    quick_asked,
    rounded,
)
from benchmarks.market import Market, Trader, accepted, marks
from riskd.server import ControlServer
from riskd.services.backend import Backend
from riskd.services.market_data import add_market_data_service
from riskd.services.order_risk import add_order_risk_service
from riskd.services.ticker import keep_time
from riskd.settings import Settings
from riskd.v1 import types_pb2
from riskd.wiring import build_engine

CHECK = "/riskd.v1.OrderRiskService/CheckOrder"
REPORT_MARKS = "/riskd.v1.MarketDataService/ReportMarks"
ECHO_SERVICE = "benchmarks.Echo"
ECHO = f"/{ECHO_SERVICE}/Echo"
CPU_TIME = f"/{ECHO_SERVICE}/CpuTime"

LISTINGS = 5
POSITIONS = 4
TIMEOUT_S = 30
# What the client asks for, check and peer.
METHODS = {"": CHECK, "echo_": ECHO}

# A call from request bytes to reply bytes.
Call = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done."""

    rounds: int
    calls: int
    accounts: int


FULL = Scale(rounds=10, calls=1_000, accounts=256)
QUICK = Scale(rounds=1, calls=40, accounts=8)


# --- the server's process ----------------------------------------------------------------------


def serve(account_count: int) -> None:
    """Serve on a free port of loopback, print it, and stop when standard input ends."""
    settings = Settings(control_address="127.0.0.1:0", durability="none")
    engine = build_engine(settings)
    market = Market(engine, LISTINGS, time.time_ns())
    market.add_traders(account_count, POSITIONS, types_pb2.MARGIN_MODE_ISOLATED)
    backend = Backend(engine, time.time_ns, settings.journal_wait_ms_max / 1000)
    server = ControlServer(
        settings,
        {
            "riskd.v1.OrderRiskService": lambda server: add_order_risk_service(server, backend),
            "riskd.v1.MarketDataService": lambda server: add_market_data_service(server, backend),
            ECHO_SERVICE: add_echo_service,
        },
        backend.commits,
        lambda: keep_time(backend.commits, time.time_ns, settings.tick_interval_ms / 1000, None),
        lambda: None,
    )
    print(server.start(), flush=True)
    sys.stdin.read()
    server.stop(0)


def add_echo_service(server: grpc.aio.Server) -> None:
    """Register the empty peer, and the CPU time that the process has used, in nanoseconds."""

    async def echo(request: bytes, context: object) -> bytes:
        return request

    async def cpu_time(request: bytes, context: object) -> bytes:
        return str(time.process_time_ns()).encode()

    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "CpuTime": grpc.unary_unary_rpc_method_handler(cpu_time),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO_SERVICE, handlers),))


@contextmanager
def server_process(account_count: int) -> Iterator[str]:
    """Start the server; gives its address, and the process is gone at the end."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(account_count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


# --- the client --------------------------------------------------------------------------------


def open_channel(address: str) -> grpc.Channel:
    # Without a pool of its own, a channel shares the connection of another.
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def open_call(channel: grpc.Channel, method: str) -> Call:
    call: Any = channel.unary_unary(method)
    return lambda request: call(request, timeout=TIMEOUT_S)


def threads_loop(calls: Sequence[Call], requests: Sequence[bytes]) -> tuple[float, list[bytes]]:
    """Run a closed loop in a thread for each call; return calls a second and the replies."""
    shares = [requests[index :: len(calls)] for index in range(len(calls))]
    replies: list[list[bytes]] = [[] for _ in calls]
    ready = threading.Barrier(len(calls) + 1)

    def loop(call: Call, share: Sequence[bytes], answers: list[bytes]) -> None:
        ready.wait()
        answers.extend([call(request) for request in share])

    threads = [
        threading.Thread(target=loop, args=each)
        for each in zip(calls, shares, replies, strict=True)
    ]
    for thread in threads:
        thread.start()
    with no_collection():
        ready.wait()
        start = perf_counter_ns()
        for thread in threads:
            thread.join()
        elapsed = perf_counter_ns() - start
    answers = [reply for share in replies for reply in share]
    assert len(answers) == len(requests)
    return len(requests) * 1e9 / elapsed, answers


async def asyncio_loop(
    calls: Sequence[Any], in_flight: int, requests: Sequence[bytes]
) -> tuple[float, list[bytes]]:
    """Run closed loops, in_flight of them a call, in one event loop."""
    left = iter(requests)
    replies: list[bytes] = []

    async def loop(call: Any) -> None:
        for request in left:
            replies.append(await call(request, timeout=TIMEOUT_S))

    with no_collection():
        start = perf_counter_ns()
        await asyncio.gather(*(loop(call) for call in calls for _ in range(in_flight)))
        elapsed = perf_counter_ns() - start
    assert len(replies) == len(requests)
    return len(requests) * 1e9 / elapsed, replies


def latencies(call: Call, requests: Sequence[bytes]) -> tuple[list[float], list[bytes]]:
    """Call one at a time; return microseconds of each call, and the replies."""
    times = []
    replies = []
    with no_collection():
        for request in requests:
            start = perf_counter_ns()
            reply = call(request)
            times.append((perf_counter_ns() - start) / 1e3)
            replies.append(reply)
    return times, replies


class ServiceRounds:
    """A connected client, and one round of each measurement for checks and echoes."""

    def __init__(self, address: str, scale: Scale, stack: ExitStack) -> None:
        self.samples = Samples()
        self.pooled: dict[str, list[float]] = {prefix: [] for prefix in METHODS}
        self._calls_per_round = scale.calls
        # The server's market once more, from the same seed: it knows the accounts and used ids.
        self._market = Market(build_engine(Settings(durability="none")), LISTINGS, time.time_ns())
        isolated = types_pb2.MARGIN_MODE_ISOLATED
        self._traders: list[Trader] = self._market.add_traders(scale.accounts, POSITIONS, isolated)
        channels = [stack.enter_context(open_channel(address)) for _ in range(4)]
        self._calls = {
            prefix: [open_call(channel, method) for channel in channels]
            for prefix, method in METHODS.items()
        }
        self._report_marks = open_call(channels[0], REPORT_MARKS)
        self._cpu_time = open_call(channels[0], CPU_TIME)
        self._runner = stack.enter_context(asyncio.Runner())
        self._aio_calls = self._runner.run(self._open_aio(address))
        stack.callback(lambda: self._runner.run(self._close_aio()))

    def warm_up(self) -> None:
        """Make all connections and let every thread of the server start, not counted."""
        counted, self.samples = self.samples, Samples()
        self.run()
        self.samples = counted
        self.pooled = {prefix: [] for prefix in METHODS}

    def run(self) -> None:
        """Run one round of every measurement."""
        self._report_marks(marks(self._market.listings, time.time_ns()))
        for prefix, calls in self._calls.items():
            self._run_latency(prefix, calls[0])
        for count in (1, 4):
            for prefix, calls in self._calls.items():
                self._run_threads(prefix, calls[:count])
        for prefix in METHODS:
            self._run_asyncio(prefix)

    def _requests(self) -> list[bytes]:
        return self._market.encoded(self._market.orders(self._traders, self._calls_per_round))

    def _run_latency(self, prefix: str, call: Call) -> None:
        requests = self._requests()
        times, replies = latencies(call, requests)
        self.pooled[prefix] += times
        self.samples.add(f"{prefix}p50_us", percentile(times, 50))
        self.samples.add(f"{prefix}p99_us", percentile(times, 99))
        _verify(prefix, requests, replies)

    def _run_threads(self, prefix: str, calls: Sequence[Call]) -> None:
        requests = self._requests()
        before = int(self._cpu_time(b""))
        rate, replies = threads_loop(calls, requests)
        self._add_rate(f"{prefix}calls_per_s_threads_{len(calls)}", rate, prefix, before)
        _verify(prefix, requests, replies)

    def _run_asyncio(self, prefix: str) -> None:
        requests = self._requests()
        before = int(self._cpu_time(b""))
        rate, replies = self._runner.run(asyncio_loop(self._aio_calls[prefix], 8, requests))
        self._add_rate(f"{prefix}calls_per_s_asyncio", rate, prefix, before)
        _verify(prefix, requests, replies)

    def _add_rate(self, name: str, rate: float, prefix: str, cpu_before: int) -> None:
        used_ns = int(self._cpu_time(b"")) - cpu_before
        self.samples.add(name, rate)
        self.samples.add(
            name.replace("calls_per_s", "server_cpu_us"), used_ns / 1e3 / self._calls_per_round
        )

    async def _open_aio(self, address: str) -> dict[str, list[Any]]:
        self._aio_channels = [
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(4)
        ]
        return {
            prefix: [channel.unary_unary(method) for channel in self._aio_channels]
            for prefix, method in METHODS.items()
        }

    async def _close_aio(self) -> None:
        for channel in self._aio_channels:
            await channel.close()


def _verify(prefix: str, requests: Sequence[bytes], replies: Sequence[bytes]) -> None:
    """Checks must be reservations, echoes what was sent."""
    if METHODS[prefix] == CHECK:
        accepted(replies)
    else:
        assert sorted(replies) == sorted(requests)


def main() -> None:
    """Run everything and print the figures."""
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
        return
    scale = QUICK if quick_asked(__doc__) else FULL
    with server_process(scale.accounts) as address, ExitStack() as stack:
        rounds = ServiceRounds(address, scale, stack)
        rounds.warm_up()
        for _ in range(scale.rounds):
            rounds.run()
    print_figures(_figures(rounds, scale))


def _figures(rounds: ServiceRounds, scale: Scale) -> Json:
    samples = rounds.samples
    loops = [name.removeprefix("calls_per_s_") for name in samples.names("calls_per_s_")]
    best = max(loops, key=lambda loop: samples.median(f"calls_per_s_{loop}"))
    figures: Json = {
        "grpcio_calls_per_s": rounded(samples.median(f"calls_per_s_{best}")),
        "echo_calls_per_s": rounded(samples.median(f"echo_calls_per_s_{best}")),
        "calls_per_s_loop": best,
        **samples.medians(),
    }
    for prefix, times in rounds.pooled.items():
        for name, share in (("p50_us", 50), ("p99_us", 99), ("p999_us", 99.9)):
            figures[prefix + name] = rounded(percentile(times, share))
    figures["ratios"] = {
        "calls_per_s_to_echo": samples.ratio(f"calls_per_s_{best}", f"echo_calls_per_s_{best}"),
        "p50_to_echo": samples.ratio("p50_us", "echo_p50_us"),
        "p99_to_echo": samples.ratio("p99_us", "echo_p99_us"),
        "server_cpu_to_echo": samples.ratio(f"server_cpu_us_{best}", f"echo_server_cpu_us_{best}"),
    }
    figures["spread"] = samples.spread()
    figures["rounds"] = scale.rounds
    figures["calls_per_round"] = scale.calls
    return figures


if __name__ == "__main__":
    main()
