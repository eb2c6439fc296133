"""The streams of limit_streams.py with what moves sums in other ways, at the ends of all ranges.

Orders that only close, trail, expire or are in quote currency, late fills that leave options short,
wallets, leases; in every other stream marks, quantities, prices and bounds up to their maxima, so
that figures do not fit.
"""

from typing import Any

from riskd.reference import ReferenceEngine
from tests.differential.limit_streams import (
    ACCOUNTS,
    CALL,
    COIN_ACCOUNT,
    GATEWAYS,
    LIMIT_VALUE_MAX,
    OTHER,
    PERP,
    PUT,
    RATES,
    START_NS,
    USDT,
    LimitStream,
)
from tests.differential.streams import BILLION, Command, Fields


class OddLimitStream(LimitStream):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.is_extreme = seed % 2 == 1
        if self.is_extreme:
            rich = [each for each in ACCOUNTS if each != COIN_ACCOUNT]
            self.queue += [
                ("adjust_collateral", each, USDT, 2**61, False, START_NS) for each in rich
            ]

    def next(self, engine: ReferenceEngine) -> Command:
        if self.queue or self.rng.random() < 0.8:
            return super().next(engine)
        self.pass_time()
        make = self.rng.choice(
            (
                self.odd_order,
                self.odd_order,
                self.odd_order,
                self.late_fill,
                self.transfer,
                self.margin_mode,
                self.lease,
                self.advance_time,
            )
        )
        return make(engine)

    # What is odd

    def odd_order(self, engine: ReferenceEngine) -> Command:
        name, order, now_ns = self.order(engine)
        fields: Fields = dict(order)
        if self.rng.random() < 0.2:
            expire_ns = now_ns + self.rng.choice((1, BILLION))
            return (name, fields | {"time_in_force": 4, "expire_time_ns": expire_ns}, now_ns)
        for price in ("price_ticks", "trigger_price_ticks"):
            fields.pop(price, None)
        trigger = {"order_type": 5, "trigger_price_ticks": self.some_price(order["instrument_id"])}
        odd: Any = self.rng.choice(
            (
                {"order_type": 7, "trailing_offset_ticks": 3},
                {"order_type": 2, "flags": 4, "quantity_lots": 0},
                {"order_type": 2, "flags": 8, "quantity_lots": self.rng.choice((50_000, 10**6))},
                trigger | {"flags": 1},
                trigger | {"flags": 4, "quantity_lots": 0},
            )
        )
        return (name, fields | odd, now_ns)

    def late_fill(self, engine: ReferenceEngine) -> Command:
        """A fill of a closed order: it may leave an option short."""
        closed = engine.closed_orders()
        if not closed:
            return self.order(engine)
        order = self.rng.choice(closed)
        fields: Fields = {
            "gateway_id": order.gateway_id,
            "execution_id": self.fresh_id(),
            "reservation_id": order.reservation_id,
            "kind": 1,
            "price_ticks": self.some_price(order.instrument_id),
            "quantity_lots": 1,
        }
        return ("execute", fields, None, self.now_ns)

    def transfer(self, _: ReferenceEngine) -> Command:
        instrument_id = self.rng.choice((PERP, OTHER))
        amount = self.rng.choice((-500, 1000, 20_000))
        account_id = self.some_account()
        return ("transfer_margin", account_id, instrument_id, amount, False, self.now_ns)

    def margin_mode(self, _: ReferenceEngine) -> Command:
        instrument_id, mode = self.rng.choice((PERP, OTHER)), self.rng.choice((1, 2))
        account_id = self.some_account()
        return ("change_margin_mode", account_id, instrument_id, mode, False, self.now_ns)

    def lease(self, _: ReferenceEngine) -> Command:
        duration_ns, action = self.rng.choice((0, BILLION, 10**11)), self.rng.choice((1, 2))
        return ("renew_lease", self.rng.choice(GATEWAYS), duration_ns, action, self.now_ns)

    def advance_time(self, _: ReferenceEngine) -> Command:
        return ("time", self.now_ns)

    # What is extreme

    def some_marks(self, engine: ReferenceEngine) -> Command:
        if not self.is_extreme or self.rng.random() < 0.85:
            return super().some_marks(engine)
        mark = {
            "instrument_id": self.rng.choice((PERP, OTHER, CALL, PUT)),
            "mark_price": self.rng.choice((1, 2**31, 2**45, 2**53)),
            "time_ns": self.now_ns,
            "implied_volatility_ppb": self.rng.choice((0, 1, 10**10)),
            "forward_price": self.rng.choice((0, 1, 2**53)),
        }
        return ("marks", [mark], self.now_ns)

    def order(self, engine: ReferenceEngine) -> Command:
        command = super().order(engine)
        fields = command[1]
        if self.is_extreme and self.rng.random() < 0.3:
            fields["quantity_lots"] = self.rng.choice((2**20, 2**33, 10**12, 2**50, 2**53))
            if "price_ticks" in fields and self.rng.random() < 0.5:
                fields["price_ticks"] = self.rng.choice((1, 2**20, 2**40))
        return command

    def set_limit(self, engine: ReferenceEngine) -> Command:
        name, *key, kind, value, burst, action, now_ns = super().set_limit(engine)
        if self.is_extreme and kind not in RATES and self.rng.random() < 0.5:
            value = self.rng.choice((10**17, 2**61, LIMIT_VALUE_MAX))
        return (name, *key, kind, value, burst, action, now_ns)
