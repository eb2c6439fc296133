"""Gateways that trade with a service that is killed, and keep on record what they were told.

Each has a connection and a thread, sends several calls at once, and knows of each call whether it
was answered. What was not is sent again after the restart, as a gateway would.
"""

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import grpc

from riskd.v1 import account_service_pb2 as accounts_pb
from riskd.v1 import control_service_pb2 as control_pb
from riskd.v1 import instrument_service_pb2 as instruments_pb
from riskd.v1 import margin_service_pb2 as margins_pb
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from riskd.v1.account_service_pb2_grpc import AccountServiceStub
from riskd.v1.control_service_pb2_grpc import ControlServiceStub
from riskd.v1.instrument_service_pb2_grpc import InstrumentServiceStub
from riskd.v1.margin_service_pb2_grpc import MarginServiceStub

GATEWAYS = 4

ACCOUNTS = range(1, 7)
INSTRUMENTS = (1, 2)
PRICE_TICKS = 10_000
SCALE = 6
CASH = 10**9
# Repeats that are sent at once.
IN_FLIGHT = 64
# Of calls that the service does not get to answer, because it is killed.
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# Nothing takes so long: it only keeps a broken run from hanging.
TIMEOUT_S = 60.0

Holding: TypeAlias = tuple[int, int]


class FindingError(AssertionError):
    """Something acknowledged is missing, doubled or changed."""


@dataclass(slots=True)
class WorkingOrder:
    """An accepted order, as its gateway knows it."""

    account_id: int
    instrument_id: int
    side: int
    price_ticks: int
    quantity: int
    remaining: int

    @property
    def holding(self) -> Holding:
        return self.account_id, self.instrument_id


@dataclass(frozen=True, slots=True)
class Request:
    """A call whose answer is remembered by an id of the gateway's."""

    method: str
    message: Any

    @property
    def payload(self) -> bytes:
        content = self.message.SerializeToString(deterministic=True)
        assert isinstance(content, bytes)
        return content


@dataclass(slots=True)
class Books:
    """What the answers of one gateway add up to."""

    lots: Counter[Holding] = field(default_factory=Counter)
    cash: Counter[int] = field(default_factory=Counter)
    working: dict[int, WorkingOrder] = field(default_factory=dict)


class Gateway:
    """One gateway: its own ids, orders, record, and an account for deposits."""

    def __init__(self, gateway_id: int, seed: str) -> None:
        self.gateway_id = gateway_id
        self.rng = random.Random(f"{seed} gateway {gateway_id}")
        self.books = Books()
        self.record: list[tuple[Request, bytes]] = []
        self.unanswered: list[Request] = []
        # Deposits have no id of their own: what is on the account says whether one happened.
        self.deposit_account = 1000 + gateway_id
        self.deposited = 0
        self.unanswered_deposit = 0
        self.trading_state: int = types_pb2.TRADING_STATE_NORMAL
        self._next_id = 0

    # What it sends

    def trade(self, service: "Service", answered: Callable[[int], None]) -> None:
        """Send groups of calls until the service is gone; answered is told of each group."""
        while True:
            draw = self.rng.random()
            if draw < 0.08:
                alive = self._change_something(service)
                count = 1
            elif draw < 0.13 and self.record:
                again = self.rng.choices(self.record, k=4)
                alive = service.confirm(again)
                count = len(again)
            elif draw < 0.18:
                alive = service.report_marks(self._some_marks())
                count = 1
            else:
                requests = self._requests(self.rng.randint(1, 6))
                count = self.send(service, requests)
                alive = count == len(requests)
            answered(count)
            if not alive:
                return

    def send(self, service: "Service", requests: Sequence[Request]) -> int:
        """Send at once, note what comes back; return how many were answered."""
        count = 0
        for request, reply in zip(requests, service.call(requests), strict=True):
            if reply is None:
                self.unanswered.append(request)
            else:
                self.learn(request, reply)
                count += 1
        return count

    def _change_something(self, service: "Service") -> bool:
        if self.rng.random() < 0.5:
            self.unanswered_deposit = self.rng.randint(1, 1000)
            return self.deposit(service)
        states = (types_pb2.TRADING_STATE_REDUCE_ONLY, types_pb2.TRADING_STATE_NORMAL)
        self.trading_state = states[self.trading_state != types_pb2.TRADING_STATE_NORMAL]
        return service.set_state(self.gateway_id, self.trading_state)

    def deposit(self, service: "Service") -> bool:
        if not service.deposit(self.deposit_account, self.unanswered_deposit):
            return False
        self.deposited += self.unanswered_deposit
        self.unanswered_deposit = 0
        return True

    def _requests(self, count: int) -> list[Request]:
        """Return calls that do not depend on each other: each of another order."""
        touched: set[int] = set()
        requests = []
        for _ in range(count):
            free = [each for each in self.books.working if each not in touched]
            draw = self.rng.random()
            if free and draw < 0.45:
                reservation_id = self.rng.choice(free)
                touched.add(reservation_id)
                make = self._execution if draw < 0.36 else self._amendment
                requests.append(make(reservation_id))
            elif draw < 0.55:
                requests.append(self._batch())
            else:
                requests.append(Request("CheckOrder", self._order()))
        return requests

    def _fresh_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _order(self) -> orders_pb.CheckOrderRequest:
        rng = self.rng
        return orders_pb.CheckOrderRequest(
            account_id=rng.choice(ACCOUNTS),
            instrument_id=rng.choice(INSTRUMENTS),
            client_order_id=self._fresh_id(),
            gateway_id=self.gateway_id,
            side=rng.choice((types_pb2.SIDE_BUY, types_pb2.SIDE_SELL)),
            order_type=types_pb2.ORDER_TYPE_LIMIT,
            price_ticks=PRICE_TICKS + rng.randint(-200, 200),
            # One in thirty is more than any account can carry.
            quantity_lots=rng.randint(1, 100) if rng.random() < 0.97 else 10**9,
            view=rng.choice(orders_pb.DecisionView.values()),
        )

    def _batch(self) -> Request:
        orders = [self._order() for _ in range(self.rng.randint(1, 4))]
        mode = self.rng.choice((orders_pb.BATCH_MODE_INDEPENDENT, orders_pb.BATCH_MODE_ALL_OR_NONE))
        return Request(
            "BatchCheckOrders", orders_pb.BatchCheckOrdersRequest(mode=mode, orders=orders)
        )

    def _execution(self, reservation_id: int) -> Request:
        order = self.books.working[reservation_id]
        message = orders_pb.ReportExecutionRequest(
            gateway_id=self.gateway_id,
            reservation_id=reservation_id,
            execution_id=self._fresh_id(),
            kind=orders_pb.EXECUTION_KIND_CANCEL,
        )
        if self.rng.random() < 0.7:
            message.kind = orders_pb.EXECUTION_KIND_FILL
            message.price_ticks = order.price_ticks
            message.quantity_lots = self.rng.randint(1, order.remaining)
            message.fee_minor = self.rng.randint(-50, 500)
        return Request("ReportExecution", message)

    def _amendment(self, reservation_id: int) -> Request:
        order = self.books.working[reservation_id]
        filled = order.quantity - order.remaining
        return Request(
            "CheckAmendment",
            orders_pb.CheckAmendmentRequest(
                gateway_id=self.gateway_id,
                reservation_id=reservation_id,
                client_order_id=self._fresh_id(),
                price_ticks=PRICE_TICKS + self.rng.randint(-200, 200),
                quantity_lots=filled + self.rng.randint(1, 100),
            ),
        )

    def _some_marks(self) -> marks_pb.ReportMarksRequest:
        return marks_pb.ReportMarksRequest(
            marks=[
                marks_pb.Mark(
                    instrument_id=each,
                    mark_price=PRICE_TICKS + self.rng.randint(-50, 50),
                    time_ns=self._fresh_id(),
                )
                for each in INSTRUMENTS
            ]
        )

    # What it knows

    def learn(self, request: Request, reply: bytes) -> None:
        """Put an answer on record and into the books. Each request comes here once."""
        self.record.append((request, reply))
        message = request.message
        if request.method == "CheckOrder":
            self._learn_order(message, orders_pb.CheckOrderResponse.FromString(reply))
        elif request.method == "BatchCheckOrders":
            answer = orders_pb.BatchCheckOrdersResponse.FromString(reply)
            for order, decision in zip(message.orders, answer.decisions, strict=True):
                self._learn_order(order, decision)
        elif request.method == "CheckAmendment":
            decision = orders_pb.CheckAmendmentResponse.FromString(reply).order
            if is_accepted(decision.decision):
                order = self.books.working[message.reservation_id]
                order.remaining += message.quantity_lots - order.quantity
                order.quantity = message.quantity_lots
                order.price_ticks = message.price_ticks
        else:
            self._learn_execution(message, orders_pb.ReportExecutionResponse.FromString(reply))

    def _learn_order(
        self, order: orders_pb.CheckOrderRequest, answer: orders_pb.CheckOrderResponse
    ) -> None:
        if is_accepted(answer.decision):
            self.books.working[answer.reservation_id] = WorkingOrder(
                account_id=order.account_id,
                instrument_id=order.instrument_id,
                side=order.side,
                price_ticks=order.price_ticks,
                quantity=order.quantity_lots,
                remaining=order.quantity_lots,
            )

    def _learn_execution(
        self,
        execution: orders_pb.ReportExecutionRequest,
        answer: orders_pb.ReportExecutionResponse,
    ) -> None:
        order = self.books.working[execution.reservation_id]
        if not is_accepted(answer.decision):
            raise FindingError(f"{execution} of {order} was refused: {answer}")
        if execution.kind == orders_pb.EXECUTION_KIND_FILL:
            signed = 1 if order.side == types_pb2.SIDE_BUY else -1
            self.books.lots[order.holding] += signed * execution.quantity_lots
            self.books.cash[order.account_id] += answer.realised_pnl_minor - execution.fee_minor
            order.remaining -= execution.quantity_lots
        else:
            order.remaining = 0
        if order.remaining != answer.remaining_lots:
            raise FindingError(f"{order.remaining} lots of {order} are left, not as in {answer}")
        if order.remaining == 0:
            del self.books.working[execution.reservation_id]

    # After a restart

    def settle(self, service: "Service") -> None:
        """Send what was not answered again, twice: it has one effect and one answer."""
        unanswered, self.unanswered = self.unanswered, []
        for request in unanswered:
            (reply,) = service.call([request])
            if reply is None:
                raise FindingError(f"{request} gets no answer")
            self.learn(request, reply)
            service.confirm([(request, reply)])
        service.set_state(self.gateway_id, self.trading_state)
        cash = service.cash(self.deposit_account)
        due = {self.deposited, self.deposited + self.unanswered_deposit}
        if cash not in due:
            raise FindingError(f"gateway {self.gateway_id} deposited {due}, and {cash} is there")
        if cash == self.deposited and self.unanswered_deposit:
            self.deposit(service)
        self.deposited += self.unanswered_deposit
        self.unanswered_deposit = 0

    def confirm(self, service: "Service", fresh: int) -> None:
        """See that the newest answers, and some older ones, are given again byte for byte."""
        older = self.rng.choices(self.record, k=min(len(self.record), 50))
        service.confirm([*self.record[fresh:], *older])


class Service:
    """A connection to the service."""

    def __init__(self, address: str) -> None:
        # A pool of its own for each channel: several connections, not one.
        self._channel = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._accounts = AccountServiceStub(self._channel)
        self._control = ControlServiceStub(self._channel)
        self._instruments = InstrumentServiceStub(self._channel)
        self._margins = MarginServiceStub(self._channel)
        names = ("CheckOrder", "BatchCheckOrders", "CheckAmendment", "ReportExecution")
        self._hot: dict[str, Any] = {
            name: self._channel.unary_unary(
                f"/riskd.v1.OrderRiskService/{name}",
                request_serializer=None,
                response_deserializer=None,
            )
            for name in names
        }
        self._marks: Any = self._channel.unary_unary(
            "/riskd.v1.MarketDataService/ReportMarks",
            request_serializer=None,
            response_deserializer=None,
        )

    def close(self) -> None:
        self._channel.close()

    def call(self, requests: Sequence[Request]) -> list[bytes | None]:
        """Send all at once; None where the service was gone before it answered."""
        calls = [
            self._hot[each.method].future(each.payload, timeout=TIMEOUT_S) for each in requests
        ]
        return [_answer(each.result) for each in calls]

    def confirm(self, exchanges: Sequence[tuple[Request, bytes]]) -> bool:
        """Repeat requests; the answers must be the first ones. False if the service is gone."""
        for start in range(0, len(exchanges), IN_FLIGHT):
            some = exchanges[start : start + IN_FLIGHT]
            replies = self.call([request for request, _ in some])
            for (request, first), reply in zip(some, replies, strict=True):
                if reply is None:
                    return False
                if comparable(request, reply) != comparable(request, first):
                    raise FindingError(f"{request}: first {first.hex()}, now {reply.hex()}")
        return True

    def report_marks(self, marks: marks_pb.ReportMarksRequest) -> bool:
        payload = marks.SerializeToString()
        return _answer(lambda: self._marks(payload, timeout=TIMEOUT_S)) is not None

    def deposit(self, account_id: int, amount: int) -> bool:
        request = accounts_pb.AdjustCollateralRequest(
            account_id=account_id, asset="USDT", amount=str(amount)
        )
        return (
            _answer(lambda: self._accounts.AdjustCollateral(request, timeout=TIMEOUT_S)) is not None
        )

    def set_state(self, gateway_id: int, state: int) -> bool:
        request = control_pb.ChangeTradingStateRequest(
            scope=control_pb.Scope(gateway_id=gateway_id),
            trading_state=types_pb2.TradingState.ValueType(state),
        )
        return (
            _answer(lambda: self._control.ChangeTradingState(request, timeout=TIMEOUT_S))
            is not None
        )

    def cash(self, account_id: int) -> int:
        request = accounts_pb.GetAccountRequest(account_id=account_id)
        return int(self._accounts.GetAccount(request, timeout=TIMEOUT_S).account.cash)

    def cash_minor(self, account_id: int) -> int:
        request = accounts_pb.GetAccountRequest(account_id=account_id)
        text = self._accounts.GetAccount(request, timeout=TIMEOUT_S).account.cash
        whole, _, part = text.partition(".")
        return int(whole + part.ljust(SCALE, "0"))

    def holdings(self, account_id: int) -> Iterator[tuple[Holding, tuple[int, int, int]]]:
        """Give each position with its lots and working lots to buy and sell."""
        request = margins_pb.ListPositionMarginsRequest(account_id=account_id)
        reply = self._margins.ListPositionMargins(request, timeout=TIMEOUT_S)
        for each in reply.positions:
            texts = (each.quantity, each.working_buy_quantity, each.working_sell_quantity)
            lots, buys, sells = (int(text) for text in texts)
            yield (account_id, each.instrument_id), (lots, buys, sells)

    def define(self) -> None:
        """Make what is traded: one lot is 1, a tick is 0.1."""
        create = self._instruments
        create.CreateAsset(instruments_pb.CreateAssetRequest(symbol="USDT", scale=SCALE))
        tier = instruments_pb.MarginTier(
            floor_notional="0", initial_rate="0.02", maintenance_rate="0.01", max_leverage="20"
        )
        create.UpsertMarginSchedule(
            instruments_pb.UpsertMarginScheduleRequest(
                schedule=instruments_pb.MarginSchedule(
                    name="FLAT", settlement_asset="USDT", tiers=[tier]
                )
            )
        )
        for instrument_id in INSTRUMENTS:
            create.UpsertInstrument(
                instruments_pb.UpsertInstrumentRequest(
                    instrument=instruments_pb.Instrument(
                        symbol=f"PERP-{instrument_id}",
                        kind=instruments_pb.INSTRUMENT_KIND_LINEAR_PERPETUAL,
                        settlement_asset="USDT",
                        margin_schedule="FLAT",
                        tick_size="0.1",
                        lot_size="1",
                        mark_units_per_tick=1,
                        taker_fee_rate="0.0005",
                    )
                )
            )
        for account_id in (*ACCOUNTS, *(1000 + each for each in range(1, GATEWAYS + 1))):
            cash = CASH if account_id in ACCOUNTS else 0
            self._accounts.CreateAccount(
                accounts_pb.CreateAccountRequest(
                    account_id=account_id, settlement_asset="USDT", initial_collateral=str(cash)
                )
            )
        marks = [marks_pb.Mark(instrument_id=each, mark_price=PRICE_TICKS) for each in INSTRUMENTS]
        self.report_marks(marks_pb.ReportMarksRequest(marks=marks))


class Clients:
    """All gateways together."""

    def __init__(self, seed: str) -> None:
        self.gateways = [Gateway(each, seed) for each in range(1, GATEWAYS + 1)]
        self._fresh = [0] * GATEWAYS

    @property
    def record_size(self) -> int:
        return sum(len(each.record) for each in self.gateways)

    @property
    def unanswered_count(self) -> int:
        return sum(len(each.unanswered) for each in self.gateways)

    def load(self, address: str, answers: int, enough: Callable[[], None]) -> None:
        """Trade until the service is gone; enough is called once so many answers are there."""
        counter = _Counter(answers, enough)
        self._each(address, lambda gateway, service: gateway.trade(service, counter.add))

    def check(self, address: str) -> None:
        """After a restart: nothing acknowledged is missing or doubled, and the rest is settled."""

        def confirm(gateway: Gateway, service: Service) -> None:
            fresh = self._fresh[gateway.gateway_id - 1]
            gateway.confirm(service, fresh)
            gateway.settle(service)
            self._fresh[gateway.gateway_id - 1] = len(gateway.record)

        self._each(address, confirm)
        with closing(Service(address)) as service:
            self._check_sums(service)

    def check_everything(self, address: str) -> None:
        """Repeat all that was ever acknowledged."""
        self._each(address, lambda gateway, service: gateway.confirm(service, 0))

    def _each(self, address: str, work: Callable[[Gateway, Service], None]) -> None:
        def run(gateway: Gateway) -> None:
            with closing(Service(address)) as service:
                work(gateway, service)

        with ThreadPoolExecutor(GATEWAYS) as threads:
            list(threads.map(run, self.gateways))

    def _check_sums(self, service: Service) -> None:
        """Compare positions, working lots and cash with what all answers add up to."""
        lots: Counter[Holding] = Counter()
        cash: Counter[int] = Counter()
        working: defaultdict[Holding, list[int]] = defaultdict(lambda: [0, 0])
        for gateway in self.gateways:
            lots.update(gateway.books.lots)
            cash.update(gateway.books.cash)
            for order in gateway.books.working.values():
                is_sale = order.side == types_pb2.SIDE_SELL
                working[order.holding][is_sale] += order.remaining
        for account_id in ACCOUNTS:
            there = dict(service.holdings(account_id))
            for instrument_id in INSTRUMENTS:
                holding = (account_id, instrument_id)
                due = (lots[holding], *working[holding])
                if there.get(holding, (0, 0, 0)) != due:
                    raise FindingError(f"{holding} has {there.get(holding)}, due are {due}")
            due_cash = CASH * 10**SCALE + cash[account_id]
            if service.cash_minor(account_id) != due_cash:
                found = service.cash_minor(account_id)
                raise FindingError(f"account {account_id} has {found}, due are {due_cash}")


class _Counter:
    """Counts answers of all threads, and says once that there are enough."""

    def __init__(self, enough_count: int, enough: Callable[[], None]) -> None:
        self._left = enough_count
        self._enough = enough
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            was = self._left
            self._left -= count
            if was <= 0 or self._left > 0:
                return
        self._enough()


def is_accepted(decision: int) -> bool:
    return decision in (types_pb2.DECISION_ACCEPTED, types_pb2.DECISION_ACCEPTED_WITH_WARNING)


def comparable(request: Request, reply: bytes) -> Any:
    """Return what a repeat must give again: all of it, but the revision of now of a batch."""
    if request.method != "BatchCheckOrders":
        return reply
    decisions = orders_pb.BatchCheckOrdersResponse.FromString(reply).decisions
    return [each.SerializeToString(deterministic=True) for each in decisions]


def _answer(call: Callable[[], Any]) -> Any:
    """Return the call's result, None if the service is gone."""
    try:
        return call()
    except grpc.RpcError as error:
        if cast(grpc.Call, error).code() in GONE:
            return None
        raise FindingError(f"{error}") from error
