"""The market that the benchmarks trade in: real tiers and steps, accounts that hold positions.

Instruments are BTCUSDT and ETHUSDT of the rulebook binance_usdm, whose ladders have twelve tiers,
and copies of the two under other names. Everything is drawn from a seeded generator.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from riskd.core.engine import (
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    Engine,
)
from riskd.rulebooks import apply, load
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2

USDT = 10**8  # minor units: the rulebook's scale is 8
GATEWAY = 7
LEVERAGE = 1000  # hundredths: 10x


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument and its price. One lot at one tick is tick_value minor units."""

    instrument_id: int
    price_ticks: int
    tick_value: int
    units_per_tick: int

    def lots(self, notional_usdt: int) -> int:
        """Return about as many lots as are worth that much."""
        return max(1, notional_usdt * USDT // (self.price_ticks * self.tick_value))


@dataclass(frozen=True, slots=True)
class Trader:
    """An account and the listings of its positions."""

    account_id: int
    listings: tuple[Listing, ...]


class Market:
    """An engine with instruments and marks, to which traders are added.

    Serial numbers make every client order id and execution id a new one.
    """

    def __init__(
        self, engine: Engine, listing_count: int, now_ns: int, first_account: int = 1
    ) -> None:
        self.engine = engine
        self.now_ns = now_ns
        self.listings = _list(engine, listing_count)
        self._random = random.Random(20241024)
        self._serial = 0
        self._next_account = first_account
        self.call(METHOD_REPORT_MARKS, marks(self.listings, now_ns))

    def call(self, method: int, request: bytes) -> bytes:
        return self.engine.handle(method, request, self.now_ns)

    def serial(self) -> int:
        self._serial += 1
        return self._serial

    def add_traders(
        self, count: int, positions: int, mode: int, cash_usdt: int = 1_000_000_000
    ) -> list[Trader]:
        """Add accounts that hold positions of 5,000 to 150,000 USDT, long and short."""
        traders = self.open_accounts(count, positions, mode, cash_usdt)
        self.open_positions(traders)
        return traders

    def open_positions(self, traders: Sequence[Trader]) -> None:
        """Buy or sell what the traders will hold."""
        for trader in traders:
            for order in self.opening_orders([trader]):
                (request,) = self.encoded([order])
                reply = self.call(METHOD_CHECK_ORDER, request)
                (fill,) = self.fills([order], accepted([reply]))
                self.call(METHOD_REPORT_EXECUTION, fill)

    def add_firm(self, count: int, positions: int, mode: int, firm_id: int) -> list[Trader]:
        """Add a firm with so many accounts; of each 16 the first is the others' parent."""
        traders = self.open_accounts(count, positions, mode)
        self._change(self.engine.create_firm(firm_id, 1))
        for index, trader in enumerate(traders):
            parent = traders[index - index % 16].account_id if index % 16 else 0
            self._change(
                self.engine.set_account_owner(trader.account_id, firm_id, parent, self.now_ns)
            )
        self.open_positions(traders)
        return traders

    def limit(self, scope: int, scope_id: int, kind: int, value: int, burst: int = 0) -> None:
        """Set a hard limit for all instruments."""
        action = types_pb2.LIMIT_ACTION_HARD
        self._change(
            self.engine.set_limit(scope, scope_id, 0, kind, value, burst, action, self.now_ns)
        )

    @staticmethod
    def _change(reason: int) -> None:
        assert reason == types_pb2.REASON_CODE_NONE, reason

    def open_accounts(
        self, count: int, positions: int, mode: int, cash_usdt: int = 1_000_000_000
    ) -> list[Trader]:
        """Add accounts that will hold so many positions."""
        traders = []
        for index in range(count):
            first = index % len(self.listings)
            listings = (self.listings * 2)[first : first + positions]
            trader = Trader(self._next_account, tuple(listings))
            self._next_account += 1
            reason = self.engine.create_account(
                trader.account_id, 1, mode, LEVERAGE, cash_usdt * USDT
            )
            assert reason == types_pb2.REASON_CODE_NONE, reason
            traders.append(trader)
        return traders

    def opening_orders(self, traders: Sequence[Trader]) -> list[orders_pb.CheckOrderRequest]:
        """Return an order at the mark for each position that the traders will hold."""
        opening = []
        for trader in traders:
            for listing in trader.listings:
                order = self._order(trader, listing, self._random.randint(5_000, 150_000))
                order.price_ticks = listing.price_ticks
                opening.append(order)
        return opening

    def orders(
        self, traders: Sequence[Trader], count: int, notional_usdt: tuple[int, int] = (500, 20_000)
    ) -> list[orders_pb.CheckOrderRequest]:
        """Return orders without ids, the traders in turn, over the listings that they hold.

        A second half is the first with the sides turned: filled whole, all of them change no
        position. Prices lie within half a per cent of the mark.
        """
        half = []
        for index in range(count // 2):
            trader = traders[index % len(traders)]
            listing = self._random.choice(trader.listings)
            half.append(self._order(trader, listing, self._random.randint(*notional_usdt)))
        turned = []
        for order in half:
            other = orders_pb.CheckOrderRequest()
            other.CopyFrom(order)
            bought = order.side == types_pb2.SIDE_BUY
            other.side = types_pb2.SIDE_SELL if bought else types_pb2.SIDE_BUY
            turned.append(other)
        return half + turned

    def encoded(
        self, orders: Sequence[orders_pb.CheckOrderRequest], scattered: bool = False
    ) -> list[bytes]:
        """Return the orders' bytes, each with a client order id of its own.

        Gateways count their ids; scattered ids are drawn from all 64-bit numbers, as by hashing.
        """
        requests = []
        for order in orders:
            serial = self.serial()
            # An odd factor, 2^64 over the golden ratio, takes each serial to an id of its own.
            order.client_order_id = serial * 0x9E3779B97F4A7C15 % 2**64 if scattered else serial
            requests.append(order.SerializeToString())
        return requests

    def fills(
        self,
        orders: Sequence[orders_pb.CheckOrderRequest],
        replies: Sequence[orders_pb.CheckOrderResponse],
    ) -> list[bytes]:
        """Return reports of whole fills at the orders' prices."""
        return [
            orders_pb.ReportExecutionRequest(
                gateway_id=GATEWAY,
                execution_id=self.serial(),
                reservation_id=reply.reservation_id,
                kind=orders_pb.EXECUTION_KIND_FILL,
                price_ticks=order.price_ticks,
                quantity_lots=order.quantity_lots,
                fee_minor=USDT // 100,
                venue_time_ns=self.now_ns,
            ).SerializeToString()
            for order, reply in zip(orders, replies, strict=True)
        ]

    def cancels(self, replies: Sequence[orders_pb.CheckOrderResponse]) -> list[bytes]:
        return [
            orders_pb.ReportExecutionRequest(
                gateway_id=GATEWAY,
                execution_id=self.serial(),
                reservation_id=reply.reservation_id,
                kind=orders_pb.EXECUTION_KIND_CANCEL,
            ).SerializeToString()
            for reply in replies
        ]

    def wobbles(self, count: int) -> Iterator[bytes]:
        """Yield reports of one mark each, within a hundredth of a per cent of the first."""
        for index in range(count):
            listing = self.listings[index % len(self.listings)]
            moved = replace(
                listing, price_ticks=listing.price_ticks + self._random.randint(-20, 20)
            )
            yield marks([moved], self.now_ns)

    def _order(
        self, trader: Trader, listing: Listing, notional_usdt: int
    ) -> orders_pb.CheckOrderRequest:
        width = listing.price_ticks // 200
        return orders_pb.CheckOrderRequest(
            account_id=trader.account_id,
            instrument_id=listing.instrument_id,
            side=self._random.choice((types_pb2.SIDE_BUY, types_pb2.SIDE_SELL)),
            order_type=types_pb2.ORDER_TYPE_LIMIT,
            time_in_force=types_pb2.TIME_IN_FORCE_GTC,
            price_ticks=listing.price_ticks + self._random.randint(-width, width),
            quantity_lots=listing.lots(notional_usdt),
            gateway_id=GATEWAY,
            sent_time_ns=self.now_ns,
            mode=orders_pb.CHECK_MODE_RESERVE,
        )


def accepted(replies: Sequence[bytes]) -> list[orders_pb.CheckOrderResponse]:
    """Decode replies, all of which must be reservations."""
    decoded = [orders_pb.CheckOrderResponse.FromString(reply) for reply in replies]
    for reply in decoded:
        assert reply.decision == types_pb2.DECISION_ACCEPTED, reply
        assert reply.reservation_id != 0, reply
    return decoded


def marks(listings: Sequence[Listing], now_ns: int) -> bytes:
    """Return a report of marks at the listings' prices."""
    return marks_pb.ReportMarksRequest(
        marks=[
            marks_pb.Mark(
                instrument_id=listing.instrument_id,
                mark_price=listing.price_ticks * listing.units_per_tick,
                time_ns=now_ns,
            )
            for listing in listings
        ]
    ).SerializeToString()


def _list(engine: Engine, count: int) -> list[Listing]:
    book = load("binance_usdm")
    # Ticks of 0.1 and 0.01, lots of 0.001: 60,000 and 2,500 USDT.
    kinds = [
        (book.instrument("BTCUSDT"), 600_000, USDT // 10_000),
        (book.instrument("ETHUSDT"), 250_000, USDT // 100_000),
    ]
    rules = [
        replace(kinds[index % 2][0], symbol=f"{kinds[index % 2][0].symbol}.{index}")
        for index in range(count)
    ]
    ids = apply(replace(book, instruments=tuple(rules)), engine)
    return [
        Listing(
            ids[rule.symbol],
            kinds[index % 2][1],
            kinds[index % 2][2],
            rule.mark_units_per_tick,
        )
        for index, rule in enumerate(rules)
    ]
