"""grpcio, synchronous. What it prints is in ../README.md."""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from riskd.v1.order_risk_service_pb2_grpc import OrderRiskServiceStub

TIMEOUT_S = 60.0
HEADERS = (("x-text", "interop"), ("x-raw-bin", b"\x00\xff\x80"))
SERVICE = "riskd.v1.OrderRiskService"
NOBODY = "\tno body\r\n\u263a \U0001f608 %41\n"

ids = count(int(os.environ["INTEROP_FIRST_ID"]))


def order() -> orders_pb.CheckOrderRequest:
    return orders_pb.CheckOrderRequest(
        account_id=7,
        instrument_id=1,
        client_order_id=next(ids),
        side=types_pb2.SIDE_BUY,
        order_type=types_pb2.ORDER_TYPE_LIMIT,
        price_ticks=120_000,
        quantity_lots=1,
        gateway_id=3,
    )


def accepted(reply: orders_pb.CheckOrderResponse) -> int:
    """Return the reservation of an accepted order."""
    assert reply.decision == types_pb2.DECISION_ACCEPTED, reply
    assert reply.reservation_id != 0, reply
    return reply.reservation_id


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def expect(found: object, wanted: object) -> None:
    assert found == wanted, f"{found}, not {wanted}"


class Cases:
    """A method a case."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._orders = OrderRiskServiceStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)

    def unary(self) -> None:
        accepted(self._orders.CheckOrder(order(), timeout=TIMEOUT_S))

    def repeat(self) -> None:
        request = order()
        first = self._orders.CheckOrder(request, timeout=TIMEOUT_S)
        accepted(first)
        expect(self._orders.CheckOrder(request, timeout=TIMEOUT_S), first)

    def metadata(self) -> None:
        request = order()
        first = self._orders.CheckOrder(request, timeout=TIMEOUT_S)
        expect(self._orders.CheckOrder(request, timeout=TIMEOUT_S, metadata=HEADERS), first)

    def batch(self) -> None:
        request = orders_pb.BatchCheckOrdersRequest(orders=[order() for _ in range(64)])
        reply = self._orders.BatchCheckOrders(request, timeout=TIMEOUT_S)
        expect(len({accepted(each) for each in reply.decisions}), 64)

    def details(self) -> None:
        try:
            self._orders.BatchCheckOrders(orders_pb.BatchCheckOrdersRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            expect(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
            status = rpc_status.from_call(cast(grpc.Call, error))
            assert status is not None, "no details"
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            expect((info.domain, info.reason), ("riskd", "REQUEST_MALFORMED"))
        else:
            raise AssertionError("OK")

    def large(self) -> None:
        request = orders_pb.BatchCheckOrdersRequest(orders=[order()] * (2**20 // 25))
        assert request.ByteSize() > 2**20
        code = code_of(lambda: self._orders.BatchCheckOrders(request, timeout=TIMEOUT_S))
        assert code in (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.INVALID_ARGUMENT,
        ), code
        self.unary()

    def unimplemented(self) -> None:
        for method in (f"/{SERVICE}/Nothing", "/nobody.Nothing/Nothing"):
            call: Any = self._channel.unary_unary(method)
            code = code_of(partial(call, b"", timeout=TIMEOUT_S))
            expect(code, grpc.StatusCode.UNIMPLEMENTED)

    def deadline(self) -> None:
        self.unary()
        stop = Event()

        def nothing() -> Iterator[orders_pb.StreamOrdersRequest]:
            stop.wait(TIMEOUT_S)
            yield from ()

        code = code_of(lambda: next(self._orders.StreamOrders(nothing(), timeout=0.2)))
        stop.set()
        expect(code, grpc.StatusCode.DEADLINE_EXCEEDED)

    def cancel(self) -> None:
        stop = Event()

        def one() -> Iterator[orders_pb.StreamOrdersRequest]:
            yield orders_pb.StreamOrdersRequest(order=order())
            stop.wait(TIMEOUT_S)

        call = self._orders.StreamOrders(one(), timeout=TIMEOUT_S)
        accepted(next(call).order)
        call.cancel()
        expect(code_of(lambda: next(call)), grpc.StatusCode.CANCELLED)
        stop.set()
        self.unary()

    def stream(self) -> None:
        requests = [orders_pb.StreamOrdersRequest(order=order()) for _ in range(1000)]
        call = self._orders.StreamOrders(iter(requests), timeout=TIMEOUT_S)
        found = [accepted(each.order) for each in call]
        expect(len(found), 1000)
        expect(found, sorted(set(found)))
        expect(call.code(), grpc.StatusCode.OK)

    def health(self) -> None:
        for service in ("", SERVICE):
            request = health_pb2.HealthCheckRequest(service=service)
            reply = self._health.Check(request, timeout=TIMEOUT_S)
            expect(reply.status, health_pb2.HealthCheckResponse.SERVING)
        request = health_pb2.HealthCheckRequest(service=NOBODY)
        try:
            self._health.Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            failed: Any = error
            expect(failed.code(), grpc.StatusCode.NOT_FOUND)
            expect(failed.details(), f"service {NOBODY} is unknown")
        else:
            raise AssertionError("no error")

    def concurrent(self) -> None:
        calls = int(os.environ["INTEROP_CALLS"])
        requests = [order() for _ in range(calls)]
        with ThreadPoolExecutor(64) as threads:
            replies = threads.map(
                lambda request: self._orders.CheckOrder(request, timeout=TIMEOUT_S), requests
            )
            expect(len({accepted(reply) for reply in replies}), calls)


def open_channel() -> grpc.Channel:
    address = os.environ["INTEROP_ADDRESS"]
    if "INTEROP_CA" not in os.environ:
        return grpc.insecure_channel(address)
    pem = {
        name: Path(os.environ[f"INTEROP_{name}"]).read_bytes()
        for name in ("CA", "CERTIFICATE", "KEY")
        if f"INTEROP_{name}" in os.environ
    }
    credentials = grpc.ssl_channel_credentials(pem["CA"], pem.get("KEY"), pem.get("CERTIFICATE"))
    options = [("grpc.ssl_target_name_override", "localhost")]
    return grpc.secure_channel(address, credentials, options)


def main() -> None:
    """Run all cases."""
    with open_channel() as channel:
        cases = Cases(channel)
        for name, case in vars(Cases).items():
            if name.startswith("_"):
                continue
            try:
                case(cases)
            except (AssertionError, grpc.RpcError, StopIteration) as error:
                print(f"{name}\tFAIL\t{type(error).__name__}: {' '.join(str(error).split())}")
            else:
                print(f"{name}\tok")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
