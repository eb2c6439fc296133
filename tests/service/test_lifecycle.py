"""Starting, health, reflection, channelz, unexpected errors and an orderly end."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from riskd.settings import Settings, SettingsError
from riskd.v1 import control_service_pb2, order_risk_service_pb2, types_pb2
from riskd.v1.control_service_pb2_grpc import ControlServiceStub
from riskd.wiring import build_engine, build_server

if TYPE_CHECKING:
    from tests.service.conftest import Clock, Rig

SERVICES = {
    "riskd.v1.AccountService",
    "riskd.v1.ControlService",
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
    settings = Settings(control_address=f"127.0.0.1:{rig.port}")
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


def test_call_above_the_bound_is_resource_exhausted(new_rig: Callable[..., Rig]) -> None:
    entered = threading.Event()
    release = threading.Event()

    def clock() -> int:
        entered.set()
        assert release.wait(TIMEOUT_S)
        return 0

    rig = new_rig(clock, concurrent_rpcs_max=1)
    request = order_risk_service_pb2.CheckOrderRequest()
    in_flight = rig.orders.CheckOrder.future(request, timeout=TIMEOUT_S)
    try:
        assert entered.wait(TIMEOUT_S)
        failure = rig.fail(rig.orders.CheckOrder, request)
    finally:
        release.set()
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert in_flight.result(TIMEOUT_S).reason == types_pb2.REASON_CODE_CLIENT_ORDER_ID_MISSING


def test_shutdown_turns_health_off_refuses_new_calls_and_finishes_those_in_flight(
    new_rig: Callable[..., Rig],
) -> None:
    entered = threading.Event()
    release = threading.Event()

    def clock() -> int:
        entered.set()
        assert release.wait(TIMEOUT_S)
        return 0

    rig = new_rig(clock)
    health: Any = health_pb2_grpc.HealthStub(rig.channel)
    watch = health.Watch(
        health_pb2.HealthCheckRequest(service="riskd.v1.OrderRiskService"), timeout=TIMEOUT_S
    )
    assert next(watch).status == SERVING
    in_flight = rig.orders.CheckOrder.future(
        order_risk_service_pb2.CheckOrderRequest(), timeout=TIMEOUT_S
    )
    assert entered.wait(TIMEOUT_S)
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
            release.set()
        assert in_flight.result(TIMEOUT_S).reason == types_pb2.REASON_CODE_CLIENT_ORDER_ID_MISSING
        stopping.result(TIMEOUT_S)


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
