"""Several threads of the native listener are one door: one state, one set of bounds."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from riskd.core.engine import Engine
from riskd.settings import Settings, SettingsError
from tests.service.conftest import TIMEOUT_S, Rig, new_order
from tests.service.native import SERVICE, Native, call, listening

THREADS = 4


def channels(stack: ExitStack, native: Native, count: int) -> list[grpc.Channel]:
    """Return channels that share no connection."""
    return [
        stack.enter_context(
            grpc.insecure_channel(native.address, options=[("grpc.use_local_subchannel_pool", 1)])
        )
        for _ in range(count)
    ]


def is_serving(channel: grpc.Channel) -> bool:
    health: Any = health_pb2_grpc.HealthStub(channel)
    try:
        health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    except grpc.RpcError:
        return False
    return True


def threads_on(cpu: int) -> int:
    """Return how many threads of this process may run on one CPU only, this one."""
    paths = Path("/proc/self/task").glob("*/status")
    return sum(f"Cpus_allowed_list:\t{cpu}\n" in path.read_text() for path in paths)


def test_connections_of_all_threads_see_one_state(market: Rig) -> None:
    orders = [
        new_order(number, quantity_lots=1 + number % 300).SerializeToString()
        for number in range(1, 301)
    ]

    def answers(channel: grpc.Channel) -> list[bytes]:
        return [call(channel, SERVICE + "CheckOrder", order)[2] for order in orders]

    with ExitStack() as stack:
        native = stack.enter_context(listening(market.engine, threads=THREADS))
        with ThreadPoolExecutor(2 * THREADS) as pool:
            found = list(pool.map(answers, channels(stack, native, 2 * THREADS)))
    # Whoever asks first decides; the others get the remembered answer, byte for byte.
    assert all(replies == found[0] for replies in found)
    assert len(set(found[0])) == len(orders)
    assert all(found[0])


def test_connections_are_spread_evenly_and_bounded_together(market: Rig) -> None:
    with ExitStack() as stack:
        native = stack.enter_context(
            listening(market.engine, threads=THREADS, connections_max=THREADS)
        )
        # Each thread has room for one.
        first, *others = channels(stack, native, THREADS)
        assert all(map(is_serving, [first, *others]))
        (beyond,) = channels(stack, native, 1)
        assert not is_serving(beyond)
        first.close()
        while native.listener.counts()["connections_open"] == THREADS:
            pass
        (again,) = channels(stack, native, 1)
        assert is_serving(again)
        assert all(map(is_serving, others))
        counts = native.listener.counts()
    assert counts["connections_opened"] == THREADS + 1
    assert counts["connections_open"] == THREADS
    assert counts["connections_refused"] >= 1


def test_threads_stay_on_the_cpus_that_are_named(market: Rig) -> None:
    cpu = max(os.sched_getaffinity(0))
    before = threads_on(cpu)
    with listening(market.engine, threads=2, cpus=[cpu, cpu]) as native:
        assert is_serving(native.channel)
        with ExitStack() as stack:
            assert all(map(is_serving, channels(stack, native, 2)))
            assert threads_on(cpu) == before + 2


def sleeps(threads: set[str]) -> int:
    """Return how often threads of this process went to sleep."""
    found = 0
    for thread in threads:
        status = Path(f"/proc/self/task/{thread}/status").read_text()
        found += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


@pytest.mark.parametrize(("busy_poll_us", "least", "most"), [(0, 100, 1000), (1_000_000, 0, 20)])
def test_a_thread_sleeps_between_calls_unless_it_looks_for_events(
    busy_poll_us: int, least: int, most: int
) -> None:
    listener = pytest.importorskip("riskd.core.listener").Listener(
        Engine(), busy_poll_us=busy_poll_us
    )
    address = listener.listen("127.0.0.1:0")
    before = set(os.listdir("/proc/self/task"))
    listener.start()
    threads = set(os.listdir("/proc/self/task")) - before
    assert len(threads) == 1
    with grpc.insecure_channel(address) as channel:
        # After two events the thread knows that they come soon.
        assert is_serving(channel)
        assert is_serving(channel)
        slept = sleeps(threads)
        for _ in range(200):
            assert is_serving(channel)
        assert least <= sleeps(threads) - slept <= most
    listener.stop()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threads": 0}, "threads 0: must be 1 to 64"),
        ({"threads": 65}, "threads 65: must be 1 to 64"),
        ({"busy_poll_us": -1}, "busy_poll_us -1: must be 0 to 1000000"),
        ({"busy_poll_us": 1_000_001}, "busy_poll_us 1000001: must be 0 to 1000000"),
        ({"threads": 2, "cpus": [0]}, "cpus has 1 numbers for 2 threads: one for each"),
        ({"threads": 1, "cpus": [1023]}, "cpus has 1023: the process may run on "),
    ],
)
def test_threads_that_cannot_run_so_are_refused(
    market: Rig, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text), listening(market.engine, **options):
        pass


@pytest.mark.parametrize(
    ("cpus", "text"),
    [
        (("x",), "listener_cpus has 'x': must be a CPU's number, 0 to 1023"),
        (("1024",), "listener_cpus has '1024': must be a CPU's number, 0 to 1023"),
        (("0", "1"), "listener_cpus has 2 CPUs for 1 listener_threads: must have one for each"),
    ],
)
def test_cpus_that_cannot_be_are_named(cpus: tuple[str, ...], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        Settings(listener_cpus=cpus)
