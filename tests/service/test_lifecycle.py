"""Starting, health, reflection, channelz, unexpected errors and an orderly end."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from riskd.settings import Settings, SettingsError
from riskd.v1 import (
    account_service_pb2,
    control_service_pb2,
    order_risk_service_pb2,
    types_pb2,
)
from riskd.v1.account_service_pb2_grpc import AccountServiceStub
from riskd.v1.control_service_pb2_grpc import ControlServiceStub
from riskd.v1.order_risk_service_pb2_grpc import OrderRiskServiceStub
from riskd.wiring import build_engine, build_server

if TYPE_CHECKING:
    from tests.service.conftest import Clock, Rig

SERVICES = {
    "riskd.v1.AccountService",
    "riskd.v1.AuditService",
    "riskd.v1.ControlService",
    "riskd.v1.LimitService",
    "riskd.v1.InstrumentService",
    "riskd.v1.MarginService",
    "riskd.v1.MarketDataService",
    "riskd.v1.OrderRiskService",
}
TIMEOUT_S = 60
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("service", ["", *sorted(SERVICES)])
def test_health_is_serving_for_each_service(rig: Rig, service: str) -> None:
    health: Any = health_pb2_grpc.HealthStub(rig.channel)
    assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING


def test_health_of_an_unknown_service_is_not_found(rig: Rig) -> None:
    health: Any = health_pb2_grpc.HealthStub(rig.channel)
    failure = rig.fail(health.Check, health_pb2.HealthCheckRequest(service="no.such.Service"))
    assert failure.code is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_every_service(rig: Rig) -> None:
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(rig.channel)
    requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
    (reply,) = reflection.ServerReflectionInfo(iter(requests))
    names = {service.name for service in reply.list_services_response.service}
    assert names == SERVICES | {
        "grpc.channelz.v1.Channelz",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_reflection_describes_a_hot_method(rig: Rig) -> None:
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(rig.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="riskd.v1.OrderRiskService")
    ]
    (reply,) = reflection.ServerReflectionInfo(iter(requests))
    assert reply.file_descriptor_response.file_descriptor_proto


def test_channelz_shows_the_server(rig: Rig) -> None:
    channelz: Any = channelz_pb2_grpc.ChannelzStub(rig.channel)
    servers = channelz.GetServers(channelz_pb2.GetServersRequest()).server
    assert any(server.data.calls_started for server in servers)


def test_reflection_and_channelz_can_be_off(new_rig: Callable[..., Rig], clock: Clock) -> None:
    rig = new_rig(clock, reflection=False)
    channelz: Any = channelz_pb2_grpc.ChannelzStub(rig.channel)
    failure = rig.fail(channelz.GetServers, channelz_pb2.GetServersRequest())
    assert failure.code is grpc.StatusCode.UNIMPLEMENTED


def test_unknown_method_is_unimplemented(rig: Rig) -> None:
    failure = rig.fail(rig.raw, "OrderRiskService/NoSuchMethod", b"")
    assert failure.code is grpc.StatusCode.UNIMPLEMENTED


def test_port_in_use_is_an_error_that_names_the_address(
    rig: Rig, new_rig: Callable[..., Rig]
) -> None:
    settings = Settings(control_address=f"127.0.0.1:{rig.port}", durability="none")
    server = build_server(settings, build_engine(settings), rig.clock)
    with pytest.raises(SettingsError, match=f"control_address '127.0.0.1:{rig.port}'"):
        server.start()


def test_unexpected_error_is_internal_with_an_id_that_the_log_has(
    new_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    faults = [RuntimeError("secret detail")]

    def clock() -> int:
        if faults:
            raise faults.pop()
        return 0

    rig = new_rig(clock)
    caplog.set_level(logging.ERROR, "riskd")
    request = order_risk_service_pb2.CheckOrderRequest()
    failure = rig.fail(rig.orders.CheckOrder, request)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
    assert "secret" not in failure.message
    (record,) = caplog.records
    assert failure.metadata["error_id"] in failure.message
    assert failure.metadata["error_id"] == record.__dict__["fields"]["error_id"]
    assert "secret detail" in caplog.text
    reply = rig.orders.CheckOrder(request)
    assert reply.reason == types_pb2.REASON_CODE_CLIENT_ORDER_ID_MISSING


# The longest that there is, which is as long as a test waits for anything.
TICK_INTERVAL_MS = 60_000


class Gate:
    """A clock that lets nothing pass until it is released; it holds a cold call in its thread.

    A tick would be held too, and with it the event loop: the service must not tick meanwhile.
    """

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def __call__(self) -> int:
        self.entered.set()
        assert self.release.wait(TIMEOUT_S)
        return 0


def deposit(rig: Rig) -> Any:
    """Begin a deposit, which reads the clock in its thread."""
    rig.engine.create_asset("USDT", 6)
    rig.engine.create_account(7, 1, types_pb2.MARGIN_MODE_CROSS, 2000, 0)
    return rig.accounts.AdjustCollateral.future(
        account_service_pb2.AdjustCollateralRequest(account_id=7, asset="USDT", amount="5"),
        timeout=TIMEOUT_S,
    )


def test_shutdown_turns_health_off_refuses_new_calls_and_finishes_those_in_flight(
    new_rig: Callable[..., Rig],
) -> None:
    gate = Gate()
    rig = new_rig(gate, tick_interval_ms=TICK_INTERVAL_MS)
    health: Any = health_pb2_grpc.HealthStub(rig.channel)
    watch = health.Watch(
        health_pb2.HealthCheckRequest(service="riskd.v1.OrderRiskService"), timeout=TIMEOUT_S
    )
    assert next(watch).status == SERVING
    in_flight = deposit(rig)
    assert gate.entered.wait(TIMEOUT_S)
    with ThreadPoolExecutor(1) as pool:
        try:
            stopping = pool.submit(rig.server.stop, TIMEOUT_S * 1000)
            assert next(watch).status == NOT_SERVING
            watch.cancel()
            # grpcio drops a call that arrives in the moment of the stop as CANCELLED; it never ran.
            assert first_refusal(rig) in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
            )
            assert not stopping.done()
        finally:
            gate.release.set()
        assert in_flight.result(TIMEOUT_S).available == "5"
        stopping.result(TIMEOUT_S)


def test_call_cancelled_in_its_thread_harms_nothing(new_rig: Callable[..., Rig]) -> None:
    gate = Gate()
    rig = new_rig(gate, tick_interval_ms=TICK_INTERVAL_MS, worker_threads=1)
    in_flight = deposit(rig)
    assert gate.entered.wait(TIMEOUT_S)
    in_flight.cancel()
    gate.release.set()
    # The one thread is free again, and what the cancelled call did is done.
    request = account_service_pb2.GetAccountRequest(account_id=7)
    assert rig.accounts.GetAccount(request, timeout=TIMEOUT_S).account.cash == "5"


SERVER = """
import sys
from riskd import server
from riskd.settings import Settings
from riskd.wiring import build_engine, serving
server.REQUEST_WAIT_S = float(sys.argv[1])
settings = Settings(
    control_address="127.0.0.1:0",
    durability="none",
    worker_threads=2,
    concurrent_rpcs_max=int(sys.argv[2]),
)
with serving(settings, build_engine(settings)) as port:
    print(port, flush=True)
    sys.stdin.read()
"""


@contextmanager
def half_open(
    method: str, count: int, wait_s: float = TIMEOUT_S, rpcs_max: int = 1024
) -> Iterator[tuple[grpc.Channel, list[Any]]]:
    """Open calls that send headers and never a message.

    To a server in a process of its own, as it is in service: the event loops of grpcio in one
    process, one after another, share a queue.
    """
    release = threading.Event()

    def requests() -> Iterator[bytes]:
        release.wait()
        yield from ()

    arguments = [sys.executable, "-c", SERVER, str(wait_s), str(rpcs_max)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            with grpc.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}") as channel:
                # Connected: what follows arrives in this order, over one connection.
                grpc.channel_ready_future(channel).result(TIMEOUT_S)
                call: Any = channel.stream_unary(method)
                yield channel, [call.future(requests()) for _ in range(count)]
        finally:
            release.set()
            process.kill()


def code_of_a_call(channel: grpc.Channel) -> grpc.StatusCode:
    stub = OrderRiskServiceStub(channel)
    request = order_risk_service_pb2.CheckOrderRequest()
    return stub.CheckOrder.future(request, timeout=5).code()


def test_call_above_the_bound_is_resource_exhausted() -> None:
    with half_open("", 0, rpcs_max=1) as (channel, _):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        next(watch)  # It has the only slot now.
        # A refused call must not free a slot that it did not have.
        codes = [code_of_a_call(channel) for _ in range(3)]
        assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
        watch.cancel()
        while (code := code_of_a_call(channel)) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            pass  # Its slot is free soon after.
        assert code is grpc.StatusCode.OK


def test_call_without_a_request_in_time_ends_and_frees_its_slot() -> None:
    path = "/riskd.v1.AccountService/GetAccount"
    with half_open(path, 1, wait_s=0.01, rpcs_max=1) as (channel, (call,)):
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        while (code := code_of_a_call(channel)) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            pass  # Its slot is free soon after.
        assert code is grpc.StatusCode.OK


def test_call_that_ends_without_a_request_is_unimplemented(rig: Rig) -> None:
    call: Any = rig.channel.stream_unary("/riskd.v1.OrderRiskService/CheckOrder")
    failure = rig.fail(lambda: call(iter([]), timeout=TIMEOUT_S))
    assert failure.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "method",
    [
        "/riskd.v1.OrderRiskService/CheckOrder",
        "/riskd.v1.AccountService/GetAccount",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.channelz.v1.Channelz/GetServers",
    ],
)
def test_half_open_calls_hold_no_thread(method: str) -> None:
    with half_open(method, 8) as (channel, calls):
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING
        request = account_service_pb2.GetAccountRequest(account_id=7)
        assert (
            AccountServiceStub(channel).GetAccount.future(request, timeout=5).code()
            is grpc.StatusCode.NOT_FOUND
        )
        assert code_of_a_call(channel) is grpc.StatusCode.OK
        assert not any(call.done() for call in calls)


def first_refusal(rig: Rig) -> grpc.StatusCode:
    """Call until a call is refused; return how."""
    with grpc.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        stub = ControlServiceStub(channel)
        while True:
            try:
                stub.ListTradingStates(
                    control_service_pb2.ListTradingStatesRequest(), timeout=TIMEOUT_S
                )
            except grpc.RpcError as error:
                return cast(grpc.Call, error).code()


def test_a_server_alone_can_describe_every_service() -> None:
    """In a process of its own: this one has loaded messages that a server may not have."""
    program = (
        "import riskd.wiring\n"
        "from google.protobuf.descriptor_pool import Default\n"
        "for name in ('Account', 'Control', 'Instrument', 'Margin', 'MarketData', 'OrderRisk'):\n"
        "    Default().FindServiceByName(f'riskd.v1.{name}Service')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(("connections_max", "warns"), [(1000, True), (10, False)])
def test_a_service_takes_the_files_that_it_may_open(connections_max: int, warns: bool) -> None:
    """In a process of its own: nobody gets a limit back that was lowered for good."""
    code = f"""
import logging, resource
from riskd.settings import Settings
from riskd.wiring import take_files
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1000))
take_files(Settings(listener_connections_max={connections_max}))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert ended.stdout.strip() == "1000"
    assert ("connections can take all files" in ended.stderr) == warns
