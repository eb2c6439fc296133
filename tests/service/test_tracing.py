"""Spans say what was called and how it ended, under the client's trace, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collector_grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from riskd import tracing, wiring
from riskd.settings import Settings, SettingsError
from riskd.v1 import account_service_pb2 as accounts_pb
from riskd.v1 import instrument_service_pb2 as instruments_pb
from tests.service.conftest import Clock, Rig, new_order

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def spans(
    new_rig: Callable[..., Rig], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> tuple[Rig, Any]:
    """A service that keeps its spans in memory."""
    exporter = InMemorySpanExporter()
    build = tracing.build_provider
    monkeypatch.setattr(wiring, "build_provider", lambda settings: build(settings, exporter))
    return new_rig(clock, traces_endpoint="http://127.0.0.1:4317"), exporter


def finished(rig: Rig, exporter: Any) -> list[Any]:
    """Return all spans; a span ends after its status has left."""
    rig.server.stop(0)
    return list(exporter.get_finished_spans())


def test_a_span_has_method_status_and_revision_under_the_clients_trace(
    spans: tuple[Rig, Any],
) -> None:
    rig, exporter = spans
    rig.instruments.CreateAsset(
        instruments_pb.CreateAssetRequest(symbol="USDT", scale=6),
        metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"), ("authorization", "Bearer secret")),
    )
    rig.fail(rig.accounts.GetAccount, accounts_pb.GetAccountRequest(account_id=99))
    rig.orders.CheckOrder(new_order(1))
    created, failed, checked = finished(rig, exporter)
    assert created.name == "riskd.v1.InstrumentService/CreateAsset"
    assert f"{created.context.trace_id:032x}" == TRACE
    assert f"{created.parent.span_id:016x}" == PARENT
    assert dict(created.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "riskd.v1.InstrumentService",
        "rpc.method": "CreateAsset",
        "rpc.grpc.status_code": 0,
        "riskd.revision": 1,
    }
    assert failed.attributes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    # The client's mistake is no fault of the server.
    assert failed.status.is_ok
    assert failed.parent is None
    assert checked.name == "riskd.v1.OrderRiskService/CheckOrder"
    assert checked.attributes["riskd.revision"] == 2
    assert "secret" not in "".join(span.to_json() for span in (created, failed, checked))


def test_a_client_that_does_not_sample_gets_no_span(spans: tuple[Rig, Any]) -> None:
    rig, exporter = spans
    for symbol, traceparent in (("A", f"00-{TRACE}-{PARENT}-00"), ("B", "nonsense")):
        request = instruments_pb.CreateAssetRequest(symbol=symbol, scale=6)
        rig.instruments.CreateAsset(request, metadata=(("traceparent", traceparent),))
    (span,) = finished(rig, exporter)
    assert f"{span.context.trace_id:032x}" != TRACE


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Run a collector that speaks OTLP over gRPC; gives its address and what it gets."""
    got: list[Any] = []

    class Service(collector_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
            got.append(request)
            return collector_pb.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    collector_grpc.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", got
    finally:
        server.stop(None).wait()


def test_a_collector_gets_the_spans_over_otlp(new_rig: Callable[..., Rig], clock: Clock) -> None:
    with collector() as (address, got):
        rig = new_rig(clock, traces_endpoint=f"http://{address}")
        rig.orders.CheckOrder(new_order(1))
        rig.server.stop(0)
    (resource,) = [each for request in got for each in request.resource_spans]
    assert {each.key: each.value.string_value for each in resource.resource.attributes}[
        "service.name"
    ] == "riskd"
    (span,) = resource.scope_spans[0].spans
    assert span.name == "riskd.v1.OrderRiskService/CheckOrder"


def test_without_the_setting_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, riskd.wiring; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SettingsError, match=r"pip install 'riskd\[traces\]'"):
        tracing.build_provider(Settings(traces_endpoint="http://127.0.0.1:4317"))


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("127.0.0.1:4317", "must be http://host:port or https://host:port"),
        ("ftp://127.0.0.1:1", "must be http://host:port or https://host:port"),
        ("http://10.0.0.1:4317", "is not loopback and has no TLS: use https"),
        ("http://127.0.0.1:0", "port must not be 0"),
        ("https://x", "must be host:port"),
    ],
)
def test_endpoints_that_cannot_be_used_are_refused(endpoint: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(traces_endpoint=endpoint)
    allowed = Settings(traces_endpoint="https://collector.example:4317")
    assert allowed.traces_endpoint.startswith("https")
