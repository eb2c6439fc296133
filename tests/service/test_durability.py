"""A service with a journal: killed and started again, and with a disk that fails or is slow."""

from __future__ import annotations

import errno
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from riskd.core.engine import Engine
from riskd.core.journal import Faults
from riskd.server import ControlServer
from riskd.settings import Settings
from riskd.v1 import account_service_pb2, order_risk_service_pb2
from riskd.v1.account_service_pb2_grpc import AccountServiceStub
from riskd.wiring import build_server
from tests.processes import RISKD, environment, running
from tests.service.conftest import Rig

if TYPE_CHECKING:
    from tests.service.conftest import Clock

TIMEOUT_S = 60


@contextmanager
def process(directory: Path, durability: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Run `riskd serve`; gives the process, its address and what it says about the journal."""
    options = ["--control-address", "127.0.0.1:0", "--listener-addresses", "127.0.0.1:0"]
    options += ["--metrics-address", "127.0.0.1:0"]
    options += ["--rulebooks", "textbook"]
    options += ["--journal-directory", str(directory), "--durability", durability]
    with running(*options) as (server, said):
        (kept,) = (line.strip() for line in said if re.match(r"kept in|nothing is kept", line))
        yield server, said[-1].removeprefix("serving on ").strip(), kept


def call(address: str, method: str, request: bytes) -> bytes:
    with grpc.insecure_channel(address) as channel:
        bare: Any = channel.unary_unary(f"/riskd.v1.{method}")
        reply: bytes = bare(request, timeout=TIMEOUT_S)
        return reply


@pytest.mark.parametrize("durability", ["process", "machine"])
def test_a_killed_service_has_everything_that_it_acknowledged(
    tmp_path: Path, durability: str, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    directory = tmp_path / "journal"
    create = account_service_pb2.CreateAccountRequest(
        account_id=7, settlement_asset="USD", initial_collateral="10000"
    )
    get = account_service_pb2.GetAccountRequest(account_id=7)
    with process(directory, durability) as (server, address, kept):
        assert str(directory) in kept
        call(address, "AccountService/CreateAccount", create.SerializeToString())
        # Without a mark it is rejected; the answer is remembered all the same.
        first = call(address, "OrderRiskService/CheckOrder", order.SerializeToString())
        account = call(address, "AccountService/GetAccount", get.SerializeToString())
        server.send_signal(signal.SIGKILL)
        server.wait()
    size = sum(file.stat().st_size for file in directory.iterdir())
    with process(directory, durability) as (_, address, _):
        again = call(address, "OrderRiskService/CheckOrder", order.SerializeToString())
        assert again == first
        assert call(address, "AccountService/GetAccount", get.SerializeToString()) == account
    # The rulebook was there already, and a repeat is no change.
    assert sum(file.stat().st_size for file in directory.iterdir()) == size


def test_with_durability_none_nothing_is_written(tmp_path: Path) -> None:
    with process(tmp_path / "journal", "none") as (_, _, kept):
        assert kept == "nothing is kept: durability = none"
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("contents", [b"", b"x" * 400])
def test_a_journal_that_is_damaged_stops_the_start(tmp_path: Path, contents: bytes) -> None:
    directory = tmp_path / "journal"
    directory.mkdir()
    (directory / "00000000000000000001.journal").write_bytes(contents)
    (directory / "00000000000000000007.journal").write_bytes(contents)
    finished = subprocess.run(
        [*RISKD, "serve", "--journal-directory", str(directory)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert finished.returncode == 1
    assert "riskd serve: journal_directory: " in finished.stderr
    assert "00000000000000000001.journal at byte 0" in finished.stderr


@pytest.fixture
def disk() -> Faults:
    return Faults()


@pytest.fixture
def durable(tmp_path: Path, clock: Clock, disk: Faults) -> Iterator[Callable[..., Rig]]:
    """Start services on a disk that fails on demand, with account 7."""
    with ExitStack() as stack:

        def start(**options: Any) -> Rig:
            settings = Settings(control_address="127.0.0.1:0", journal_wait_ms_max=1)
            engine = Engine(accounts_max=16, positions_max=64, orders_max=64, answer_bytes=1 << 16)
            engine.open_journal(tmp_path / "journal", faults=disk, **options)
            engine.create_asset("USDT", 6)
            engine.create_account(7, 1, 1, 2000, 0)
            server: ControlServer = build_server(settings, engine, clock)
            port = server.start()
            stack.callback(server.stop, 0)
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
            return Rig(server, engine, clock, port, channel)

        yield start
        disk.release("fdatasync")


def test_failed_disk_is_unavailable_and_not_serving(
    durable: Callable[..., Rig],
    disk: Faults,
    order: order_risk_service_pb2.CheckOrderRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = durable()
    health: Any = health_pb2_grpc.HealthStub(rig.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    disk.fail("fdatasync", disk.count("fdatasync") + 1, errno.EIO)
    get = account_service_pb2.GetAccountRequest(account_id=7)
    for method, request in (
        (rig.orders.CheckOrder, order),
        (rig.orders.CheckOrder, order),
        (rig.accounts.GetAccount, get),
    ):
        failure = rig.fail(method, request)
        assert failure.code is grpc.StatusCode.UNAVAILABLE
        assert failure.reason == "JOURNAL_FAILED"
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()
    [failed] = [each for each in caplog.records if each.levelname == "ERROR"]
    # Why, and which file.
    assert "fdatasync failed" in failed.__dict__["fields"]["reason"]
    assert ".journal" in failed.__dict__["fields"]["reason"]


def test_calls_share_a_sync_and_hold_no_thread(
    durable: Callable[..., Rig], disk: Faults, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    rig = durable()
    disk.hold("fdatasync")
    synced = disk.count("fdatasync")
    calls = []
    for number in range(1, 101):
        order.client_order_id = number
        calls.append(rig.orders.CheckOrder.future(order, timeout=TIMEOUT_S))
    # 100 calls are applied while not one can be answered: the loop does not wait for the disk.
    while rig.engine.journal is not None and rig.engine.journal.next_sequence < 103:
        pass
    assert not any(call.done() for call in calls)
    disk.release("fdatasync")
    assert len({call.result(TIMEOUT_S).revision for call in calls}) == 100
    assert disk.count("fdatasync") - synced <= 2


def test_slow_disk_is_resource_exhausted_and_nothing_was_done(
    durable: Callable[..., Rig], disk: Faults, order: order_risk_service_pb2.CheckOrderRequest
) -> None:
    rig = durable(buffer_bytes=4096, append_wait_ms_max=1)
    disk.hold("fdatasync")
    calls = []
    for number in range(1, 201):
        order.client_order_id = number
        calls.append(rig.orders.CheckOrder.future(order, timeout=TIMEOUT_S))
    with ThreadPoolExecutor(1) as pool:
        # Some are refused before the disk goes on.
        refused = [call for call in calls[-1:] if call.exception(TIMEOUT_S) is not None]
        assert refused
        failure = rig.fail(lambda: refused[0].result(TIMEOUT_S))
        assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failure.reason == "JOURNAL_FULL"
        reading = pool.submit(
            AccountServiceStub(rig.channel).GetAccount,
            account_service_pb2.GetAccountRequest(account_id=7),
            timeout=TIMEOUT_S,
        )
        disk.release("fdatasync")
        assert reading.result(TIMEOUT_S).account.account_id == 7
    done = [call for call in calls if call.exception(TIMEOUT_S) is None]
    assert rig.engine.revision == 2 + len(done)
