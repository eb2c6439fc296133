"""A seeded stream of orders: mostly sensible ones, some mistakes of each kind."""

import random
from collections.abc import Callable
from decimal import Decimal

from riskd.demo.cast import (
    BTC,
    ETH,
    FAST_TRADER,
    NEVER_MARKED,
    SILENT,
    SILENT_MARK,
    SMALL,
    TRADERS,
    Trader,
)
from riskd.demo.desk import Desk
from riskd_client import OrderDecision

ORDERS_PER_BAR = 16
# A resting order is cancelled after so many bars.
REST_BARS = 3
# A trader beyond it trades back. In shares of the deposit.
POSITION_MAX = Decimal("1.5")
UNKNOWN_ACCOUNT = 999
SILENT_QUANTITY = Decimal(100)
UNMARKED_QUANTITY = Decimal(10)
UNMARKED_PRICE = Decimal(200)
OPTION_QUANTITY = Decimal("0.1")

_ACTIVE = tuple(trader for trader in TRADERS if trader is not FAST_TRADER)
# Below the venue's smallest notional of 5 USDT.
DUST = Decimal("0.001")


class Stream:
    """Sends orders of the traders; the same seed sends the same orders.

    option is a listed option and its price, once there is one.
    """

    option: tuple[str, Decimal] | None = None

    def __init__(self, desk: Desk, seed: int) -> None:
        self._desk = desk
        self._random = random.Random(seed)
        self._bar = 0
        self._resting: list[tuple[int, OrderDecision]] = []
        self._last: tuple[int, int, Decimal] | None = None
        self._kinds: dict[Callable[[Trader], None], int] = {
            self._sensible: 60,
            self._too_large: 8,
            self._fat_finger: 4,
            self._dust: 3,
            self._over_order_bound: 2,
            self._over_position_bound: 3,
            self._born_liquidatable: 4,
            self._stale: 2,
            self._unmarked: 2,
            self._reused_id: 2,
            self._reduce_only: 3,
            self._short_option: 1,
            self._wrong_mode: 1,
            self._unknown_account: 1,
        }

    def send(self, bar: int) -> None:
        """Send the orders of one bar, and cancel what has rested long enough."""
        self._bar = bar
        for due, decision in [row for row in self._resting if row[0] <= bar]:
            self._resting.remove((due, decision))
            self._desk.cancel(decision)
        kinds = list(self._kinds)
        weights = list(self._kinds.values())
        for _ in range(ORDERS_PER_BAR):
            (kind,) = self._random.choices(kinds, weights)
            trader = self._random.choice(_ACTIVE)
            kind(trader)

    def stop(self) -> None:
        """Cancel everything that rests."""
        for _, decision in self._resting:
            self._desk.cancel(decision)
        self._resting.clear()

    def _position(self, trader: Trader, symbol: str) -> Decimal:
        for row in self._desk.outcome.watched:
            if (row.account, row.symbol, row.is_closed) == (trader.account, symbol, False):
                return row.quantity
        return Decimal(0)

    def _sensible(self, trader: Trader) -> None:
        """A small order near the mark; it fills, fills in part, is cancelled, or rests."""
        desk, chance = self._desk, self._random
        symbol = chance.choices((BTC, ETH), (3, 1))[0]
        held = self._position(trader, symbol)
        side = chance.choice(("buy", "sell"))
        if abs(held) * desk.marks[symbol] > POSITION_MAX * trader.deposit:
            side = "sell" if held > 0 else "buy"
        rate = Decimal(chance.randint(-8, 8)).scaleb(-4)
        quantity = desk.quantity(symbol, chance.randint(50, 400) * trader.deposit // 1000)
        price = desk.price(symbol, side, rate)
        decision = desk.order(trader.account, symbol, side, quantity, price)
        if not decision.accepted:
            return
        self._last = (decision.client_order_id, trader.account, quantity)
        # A position that is lost belongs to the venue now: its owner's orders do not fill.
        fate = chance.random()
        if desk.is_lost(trader.account) or fate < 0.2:
            desk.cancel(decision)
        elif fate < 0.7:
            desk.fill(trader.account, decision, price, quantity)
        elif fate < 0.85:
            lot = desk.client.catalogue.instrument(symbol).lot_size
            part = max(lot, quantity / 2 // lot * lot)
            if not desk.fill(trader.account, decision, price, part).remaining:
                return
            desk.cancel(decision)
        else:
            self._resting.append((self._bar + REST_BARS, decision))

    def _too_large(self, trader: Trader) -> None:
        """Far more than the margin carries; half of the time it is sent again as advised."""
        side = self._random.choice(("buy", "sell"))
        quantity = self._desk.quantity(BTC, trader.deposit * self._random.randint(25, 40))
        self._send_twice(trader, BTC, side, quantity)

    def _reduce_only(self, trader: Trader) -> None:
        """A reduce-only order that is larger than the position."""
        held = self._position(trader, BTC)
        side = "buy" if held < 0 else "sell"
        quantity = abs(held) + self._desk.quantity(BTC, 5_000)
        self._send_twice(trader, BTC, side, quantity, reduce_only=True)

    def _send_twice(
        self,
        trader: Trader,
        symbol: str,
        side: str,
        quantity: Decimal,
        *,
        reduce_only: bool = False,
    ) -> None:
        desk = self._desk
        price = desk.price(symbol, side)
        decision = desk.order(
            trader.account, symbol, side, quantity, price, reduce_only=reduce_only
        )
        if not decision.max_quantity or self._random.random() < 0.5:
            return
        advised = desk.order(
            trader.account, symbol, side, decision.max_quantity, price, reduce_only=reduce_only
        )
        assert advised.accepted, advised
        desk.cancel(advised)

    def _mistake(
        self,
        account: int,
        symbol: str,
        side: str,
        quantity: Decimal,
        price: Decimal,
        *,
        client_order_id: int | None = None,
        margin_mode: str = "unspecified",
    ) -> None:
        """Send an order that should be refused; one that reduces may pass and is cancelled."""
        decision = self._desk.order(
            account,
            symbol,
            side,
            quantity,
            price,
            client_order_id=client_order_id,
            margin_mode=margin_mode,
        )
        if decision.accepted:
            self._desk.cancel(decision)

    def _fat_finger(self, trader: Trader) -> None:
        """A price with a digit off."""
        side = self._random.choice(("buy", "sell"))
        price = self._desk.price(BTC, side, Decimal(self._random.randint(20, 60)).scaleb(-2))
        self._mistake(trader.account, BTC, side, self._desk.quantity(BTC, 2_000), price)

    def _dust(self, trader: Trader) -> None:
        self._mistake(trader.account, ETH, "buy", DUST, self._desk.price(ETH, "buy"))

    def _over_order_bound(self, trader: Trader) -> None:
        quantity = Decimal(1_000 + self._random.randint(1, 500))
        self._mistake(trader.account, BTC, "buy", quantity, self._desk.price(BTC, "buy"))

    def _over_position_bound(self, _: Trader) -> None:
        """A small coin at its highest leverage, which holds for small positions only."""
        account = FAST_TRADER.account
        quantity = self._desk.quantity(SMALL, self._random.randint(6_000, 30_000))
        self._mistake(account, SMALL, "buy", quantity, self._desk.price(SMALL, "buy"))

    def _born_liquidatable(self, _: Trader) -> None:
        """Isolated at 50x, so far through the mark that the fill's loss eats the wallet."""
        account = FAST_TRADER.account
        side = self._random.choice(("buy", "sell"))
        price = self._desk.price(BTC, side, Decimal("0.03"))
        quantity = self._desk.quantity(BTC, self._random.randint(10_000, 60_000))
        self._mistake(account, BTC, side, quantity, price)

    def _stale(self, trader: Trader) -> None:
        self._mistake(trader.account, SILENT, "buy", SILENT_QUANTITY, SILENT_MARK)

    def _unmarked(self, trader: Trader) -> None:
        self._mistake(trader.account, NEVER_MARKED, "buy", UNMARKED_QUANTITY, UNMARKED_PRICE)

    def _reused_id(self, _: Trader) -> None:
        """The client order id of an earlier order, on another quantity."""
        if self._last is not None:
            order_id, account, quantity = self._last
            price = self._desk.price(BTC, "buy")
            self._mistake(account, BTC, "buy", quantity + 1, price, client_order_id=order_id)

    def _short_option(self, trader: Trader) -> None:
        if self.option is not None:
            symbol, price = self.option
            self._mistake(trader.account, symbol, "sell", OPTION_QUANTITY, price)

    def _wrong_mode(self, trader: Trader) -> None:
        mode = "isolated" if trader.mode == "cross" else "cross"
        quantity, price = self._desk.quantity(BTC, 1_000), self._desk.price(BTC, "buy")
        self._mistake(trader.account, BTC, "buy", quantity, price, margin_mode=mode)

    def _unknown_account(self, _: Trader) -> None:
        quantity, price = self._desk.quantity(BTC, 1_000), self._desk.price(BTC, "buy")
        self._mistake(UNKNOWN_ACCOUNT, BTC, "buy", quantity, price)
