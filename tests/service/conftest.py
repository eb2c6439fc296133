"""A service of its own for each test: real engine, real server, real channel, on a free port."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from riskd.core.engine import Engine
from riskd.guard import Guard
from riskd.server import ControlServer
from riskd.settings import Settings
from riskd.v1 import account_service_pb2 as accounts_pb
from riskd.v1 import instrument_service_pb2 as instruments_pb
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from riskd.v1.account_service_pb2_grpc import AccountServiceStub
from riskd.v1.audit_service_pb2_grpc import AuditServiceStub
from riskd.v1.control_service_pb2_grpc import ControlServiceStub
from riskd.v1.instrument_service_pb2_grpc import InstrumentServiceStub
from riskd.v1.limit_service_pb2_grpc import LimitServiceStub
from riskd.v1.margin_service_pb2_grpc import MarginServiceStub
from riskd.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from riskd.v1.order_risk_service_pb2_grpc import OrderRiskServiceStub
from riskd.wiring import build_audited_engine, build_guard, build_server

NOW_NS = 1_700_000_000_000_000_000
# No test waits for it: it only keeps a broken one from hanging.
TIMEOUT_S = 60


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now_ns: int = NOW_NS

    def __call__(self) -> int:
        return self.now_ns


@dataclass(frozen=True)
class Failure:
    """What a client sees of a failed call."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]


@dataclass
class Rig:
    """A running service and a client of each of its parts."""

    server: ControlServer
    engine: Engine
    clock: Callable[[], int]
    port: int
    channel: grpc.Channel
    guard: Guard | None = None
    orders: OrderRiskServiceStub = field(init=False)
    marks: MarketDataServiceStub = field(init=False)
    accounts: AccountServiceStub = field(init=False)
    instruments: InstrumentServiceStub = field(init=False)
    margins: MarginServiceStub = field(init=False)
    control: ControlServiceStub = field(init=False)
    audit: AuditServiceStub = field(init=False)
    limits: LimitServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.orders = OrderRiskServiceStub(self.channel)
        self.marks = MarketDataServiceStub(self.channel)
        self.accounts = AccountServiceStub(self.channel)
        self.instruments = InstrumentServiceStub(self.channel)
        self.margins = MarginServiceStub(self.channel)
        self.control = ControlServiceStub(self.channel)
        self.audit = AuditServiceStub(self.channel)
        self.limits = LimitServiceStub(self.channel)

    def raw(self, method: str, request: bytes) -> bytes:
        """Call /riskd.v1.<method> with bytes and return bytes."""
        call: Any = self.channel.unary_unary(
            f"/riskd.v1.{method}", request_serializer=None, response_deserializer=None
        )
        return cast(bytes, call(request, timeout=TIMEOUT_S))

    def mark(self, instrument_id: int, price: int, **fields: Any) -> None:
        """Report a mark, in its units, of now."""
        mark = marks_pb.Mark(
            instrument_id=instrument_id, mark_price=price, time_ns=self.clock(), **fields
        )
        reply = self.marks.ReportMarks(marks_pb.ReportMarksRequest(marks=[mark]))
        assert reply.taken_count == 1

    def trade(
        self, order: orders_pb.CheckOrderRequest, **fields: Any
    ) -> orders_pb.CheckOrderResponse:
        """Send an order, which must be accepted, and fill it at its price, or with these fields."""
        reply = self.orders.CheckOrder(order)
        assert reply.decision == types_pb2.DECISION_ACCEPTED, reply
        values = {"price_ticks": order.price_ticks, "quantity_lots": order.quantity_lots} | fields
        fill = orders_pb.ReportExecutionRequest(
            gateway_id=order.gateway_id,
            execution_id=order.client_order_id,
            reservation_id=reply.reservation_id,
            kind=orders_pb.EXECUTION_KIND_FILL,
            **values,
        )
        assert self.orders.ReportExecution(fill).decision == types_pb2.DECISION_ACCEPTED
        return reply

    def fail(self, method: Callable[..., Any], *arguments: Any) -> Failure:
        """Call a method that must fail, and return what its client sees."""
        with pytest.raises(grpc.RpcError) as caught:
            method(*arguments)
        call = cast(grpc.Call, caught.value)
        status = rpc_status.from_call(call)
        infos = []
        for detail in status.details if status else []:
            info = error_details_pb2.ErrorInfo()
            assert detail.Unpack(info)
            assert info.domain == "riskd"
            infos.append(info)
        assert len(infos) <= 1
        return Failure(
            code=call.code(),
            message=call.details(),
            reason=infos[0].reason if infos else "",
            metadata=dict(infos[0].metadata) if infos else {},
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def serving(clock: Callable[[], int], **values: Any) -> Iterator[Rig]:
    """Start a service; it and its channel are gone at the end of the with block."""
    settings = Settings(**({"control_address": "127.0.0.1:0", "durability": "none"} | values))
    guard = build_guard(settings)
    engine, trail = build_audited_engine(settings)
    server = build_server(settings, engine, clock, trail, guard)
    port = server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Rig(server, engine, clock, port, channel, guard)
    finally:
        server.stop(0)


@pytest.fixture
def new_rig() -> Iterator[Callable[..., Rig]]:
    """Start services; they and their channels are gone when the test ends."""
    with ExitStack() as stack:

        def start(clock: Callable[[], int], **values: Any) -> Rig:
            return stack.enter_context(serving(clock, **values))

        yield start


@pytest.fixture
def rig(new_rig: Callable[..., Rig], clock: Clock) -> Rig:
    """An empty service."""
    return new_rig(clock)


@pytest.fixture
def market(rig: Rig) -> Rig:
    """A service with asset USDT, schedule BTC, instrument BTC-PERP at 60000, account 7."""
    return open_market(rig)


def open_market(rig: Rig) -> Rig:
    rig.instruments.CreateAsset(instruments_pb.CreateAssetRequest(symbol="USDT", scale=6))
    rig.instruments.UpsertMarginSchedule(
        instruments_pb.UpsertMarginScheduleRequest(schedule=btc_schedule())
    )
    rig.instruments.UpsertInstrument(
        instruments_pb.UpsertInstrumentRequest(instrument=btc_instrument())
    )
    rig.accounts.CreateAccount(
        accounts_pb.CreateAccountRequest(
            account_id=7, settlement_asset="USDT", initial_collateral="10000"
        )
    )
    rig.mark(1, 1_200_000)
    return rig


def btc_schedule() -> instruments_pb.MarginSchedule:
    return instruments_pb.MarginSchedule(
        name="BTC",
        settlement_asset="USDT",
        tiers=[
            instruments_pb.MarginTier(
                floor_notional="0",
                initial_rate="0.01",
                maintenance_rate="0.005",
                max_leverage="100",
            ),
            instruments_pb.MarginTier(
                floor_notional="50000",
                initial_rate="0.02",
                maintenance_rate="0.01",
                max_leverage="50",
            ),
        ],
    )


def btc_instrument() -> instruments_pb.Instrument:
    """Tick 0.5, ten mark units a tick, lot 0.001: price 60000 is 120000 ticks."""
    return instruments_pb.Instrument(
        symbol="BTC-PERP",
        kind=instruments_pb.INSTRUMENT_KIND_LINEAR_PERPETUAL,
        settlement_asset="USDT",
        margin_schedule="BTC",
        tick_size="0.5",
        lot_size="0.001",
        mark_units_per_tick=10,
        order_quantity_max="100",
        price_collar_rate="0.05",
        taker_fee_rate="0.0005",
    )


def new_order(client_order_id: int = 1, **fields: Any) -> orders_pb.CheckOrderRequest:
    """Return an order of gateway 3 and account 7, to buy a lot of instrument 1 at 60000."""
    values: dict[str, Any] = {
        "account_id": 7,
        "instrument_id": 1,
        "side": types_pb2.SIDE_BUY,
        "order_type": types_pb2.ORDER_TYPE_LIMIT,
        "price_ticks": 120_000,
        "quantity_lots": 1,
        "gateway_id": 3,
    }
    return orders_pb.CheckOrderRequest(client_order_id=client_order_id, **(values | fields))


@pytest.fixture
def order() -> orders_pb.CheckOrderRequest:
    """Buy 0.1 at 60000 on account 7, whole explanation."""
    return new_order(quantity_lots=100, view=orders_pb.DECISION_VIEW_FULL)


@pytest.fixture
def schedule() -> instruments_pb.MarginSchedule:
    return btc_schedule()


@pytest.fixture
def instrument() -> instruments_pb.Instrument:
    return btc_instrument()
