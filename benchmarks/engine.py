"""How long does the engine take for one request?

Encoded requests in, encoded replies out, through Engine.handle, which is what both doors of the
service call, in an engine of the service's default sizes. Every check is of an order with an id of
its own, is accepted (its reply is decoded after the timing) and reserves; between rounds, not
timed, the orders are cancelled. The memory of answers is full before the first round, so every
answer that is remembered lets an older one go. Times include the Python loop around the call.

Peers in the same rounds: a call of zlib.crc32 with the request's bytes (what any call from Python
costs), parsing the request and serialising the reply with protobuf's own C library (upb), and
Greeks in plain Python.
"""

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from zlib import crc32

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import (
    Json,
    Samples,
    no_collection,
    print_figures,
    quick_asked,
    time_each,
)
from benchmarks.market import USDT, Market, Trader, accepted, marks
from riskd.core.black import black76_arrays, black76_greeks
from riskd.core.engine import (
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
)
from riskd.settings import Settings
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from riskd.wiring import build_engine

NOW_NS = 1_700_000_000_000_000_000
LISTINGS = 16

Order = orders_pb.CheckOrderRequest
Reply = orders_pb.CheckOrderResponse


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done."""

    rounds: int
    calls: int
    accounts: int
    answer_bytes: int


FULL = Scale(rounds=9, calls=20_480, accounts=512, answer_bytes=32 << 20)
QUICK = Scale(rounds=2, calls=640, accounts=32, answer_bytes=1 << 20)

# Figure over its peer.
RATIOS = {
    "check_isolated_to_protobuf": ("check_isolated_ns", "protobuf_roundtrip_ns"),
    "check_cross_to_protobuf": ("check_cross_ns", "protobuf_roundtrip_ns"),
    "check_isolated_to_crc32_call": ("check_isolated_ns", "crc32_call_ns"),
    "check_cross_to_crc32_call": ("check_cross_ns", "crc32_call_ns"),
    "greeks_scalar_to_python": ("greeks_scalar_ns", "greeks_python_ns"),
}


class EngineRounds:
    """The traders of each case and one round of each."""

    def __init__(self, scale: Scale, samples: Samples) -> None:
        engine = build_engine(Settings(answer_bytes=scale.answer_bytes, durability="none"))
        self._samples = samples
        self._scale = scale
        self._market = market = Market(engine, LISTINGS, NOW_NS)
        isolated, cross = types_pb2.MARGIN_MODE_ISOLATED, types_pb2.MARGIN_MODE_CROSS
        # Positions that each account holds; its orders are for their instruments.
        self._isolated = {count: self._orders(isolated, count) for count in (1, 4)}
        self._in_firm = market.orders(
            market.add_firm(scale.accounts, 4, isolated, firm_id=1), scale.calls
        )
        limited = market.add_firm(scale.accounts, 4, isolated, firm_id=2)
        _limit(market, limited, firm_id=2)
        self._limited = market.orders(limited, scale.calls)
        self._cross = {count: self._orders(cross, count) for count in (1, 4, 16)}
        poor = market.add_traders(scale.accounts, 4, cross, cash_usdt=100_000)
        self._too_large = market.orders(poor, scale.calls, (2_000_000, 5_000_000))
        self._explained = [
            _like(order, view=orders_pb.DECISION_VIEW_FULL) for order in self._cross[4]
        ]
        self._only_checked = [
            _like(order, mode=orders_pb.CHECK_MODE_CHECK_ONLY) for order in self._cross[4]
        ]

    def fill_memory(self) -> None:
        """Check and cancel until both rings of answers have been round once, and warm up by it."""
        answers = self._scale.answer_bytes // 128
        for _ in range(answers // self._scale.calls + 1):
            self._cancel(self._checked(self._isolated[4], None))

    def run(self) -> None:
        """Run one round of every case."""
        for count, orders in self._isolated.items():
            name = "check_isolated_ns" if count == 4 else f"check_isolated_{count}_ns"
            self._cancel(self._checked(orders, name))
        self._cancel(self._checked(self._in_firm, "check_in_firm_ns"))
        self._cancel(self._checked(self._limited, "check_limits_ns"))
        for count, orders in self._cross.items():
            name = "check_cross_ns" if count == 4 else f"check_cross_{count}_ns"
            self._cancel(self._checked(orders, name))
        self._run_scattered()
        self._run_repeats()
        self._run_views()
        self._run_rejects()
        self._run_fills()
        self._run_marks()

    def _orders(self, mode: int, positions: int) -> list[Order]:
        traders = self._market.add_traders(self._scale.accounts, positions, mode)
        return self._market.orders(traders, self._scale.calls)

    def _time(self, name: str | None, method: int, requests: Sequence[bytes]) -> list[bytes]:
        handle = self._market.engine.handle
        with no_collection():
            cpu_start = thread_time_ns()
            start = perf_counter_ns()
            replies = [handle(method, request, NOW_NS) for request in requests]
            elapsed = perf_counter_ns() - start
            cpu_elapsed = thread_time_ns() - cpu_start
        if name is not None:
            self._samples.add(name, elapsed / len(requests))
        if name in ("check_isolated_ns", "check_cross_ns"):
            self._samples.add(name.replace("_ns", "_cpu_ns"), cpu_elapsed / len(requests))
        return replies

    def _checked(self, orders: Sequence[Order], name: str | None) -> list[Reply]:
        return accepted(self._time(name, METHOD_CHECK_ORDER, self._market.encoded(orders)))

    def _cancel(self, replies: Sequence[Reply]) -> None:
        _applied(self._time(None, METHOD_REPORT_EXECUTION, self._market.cancels(replies)))

    def _run_scattered(self) -> None:
        """Ids of which no two lie together, so that nothing of a lookup is in a cache."""
        requests = self._market.encoded(self._isolated[4], scattered=True)
        replies = accepted(self._time("check_scattered_ids_ns", METHOD_CHECK_ORDER, requests))
        self._cancel(replies)

    def _run_repeats(self) -> None:
        """The same bytes again, and the peers that handle the same bytes."""
        requests = self._market.encoded(self._isolated[4])
        first = self._time(None, METHOD_CHECK_ORDER, requests)
        again = self._time("duplicate_ns", METHOD_CHECK_ORDER, requests)
        assert again == first
        self._samples.add("crc32_call_ns", time_each(crc32, requests)[0])
        replies = accepted(first)
        parse, parsed = time_each(Order.FromString, requests)
        serialise, written = time_each(Reply.SerializeToString, replies)
        assert written == first
        assert len(parsed) == len(requests)
        self._samples.add("protobuf_roundtrip_ns", parse + serialise)
        self._cancel(replies)

    def _run_views(self) -> None:
        replies = self._checked(self._explained, "full_view_ns")
        assert all(reply.HasField("detail") for reply in replies)
        self._cancel(replies)
        revision = self._market.engine.revision
        requests = self._market.encoded(self._only_checked)
        for reply in map(
            Reply.FromString, self._time("check_only_ns", METHOD_CHECK_ORDER, requests)
        ):
            assert reply.decision == types_pb2.DECISION_ACCEPTED, reply
        assert self._market.engine.revision == revision

    def _run_rejects(self) -> None:
        """Orders beyond the margin: each reply says how much would have passed."""
        requests = self._market.encoded(self._too_large)
        for reply in map(
            Reply.FromString, self._time("reject_margin_ns", METHOD_CHECK_ORDER, requests)
        ):
            assert reply.reason == types_pb2.REASON_CODE_MARGIN_INSUFFICIENT, reply
            assert reply.max_quantity_lots > 0, reply

    def _run_fills(self) -> None:
        orders = self._cross[4]
        fills = self._market.fills(orders, self._checked(orders, None))
        _applied(self._time("report_fill_ns", METHOD_REPORT_EXECUTION, fills))

    def _run_marks(self) -> None:
        market = self._market
        wobbles = list(market.wobbles(self._scale.calls))
        self._time("report_mark_ns", METHOD_REPORT_MARKS, wobbles)
        market.call(METHOD_REPORT_MARKS, marks(market.listings, NOW_NS))


def _limit(market: Market, traders: Sequence[Trader], firm_id: int) -> None:
    """Set ten limits over the levels of each trader that is no parent, none of which is broken."""
    account, firm = types_pb2.LIMIT_SCOPE_ACCOUNT, types_pb2.LIMIT_SCOPE_FIRM
    money = 10**10 * USDT
    for index, trader in enumerate(traders):
        if index % 16:
            market.limit(account, trader.account_id, types_pb2.LIMIT_KIND_ORDER_QUANTITY_MAX, 10**9)
            market.limit(account, trader.account_id, types_pb2.LIMIT_KIND_ORDER_NOTIONAL_MAX, money)
            market.limit(
                account, trader.account_id, types_pb2.LIMIT_KIND_POSITION_NOTIONAL_MAX, money
            )
            market.limit(account, trader.account_id, types_pb2.LIMIT_KIND_OPEN_ORDERS_MAX, 10**6)
        else:
            market.limit(account, trader.account_id, types_pb2.LIMIT_KIND_COLLAR_PPB, 10**8)
            market.limit(account, trader.account_id, types_pb2.LIMIT_KIND_OPEN_NOTIONAL_MAX, money)
            market.limit(
                account, trader.account_id, types_pb2.LIMIT_KIND_ORDER_RATE_MAX, 10**9, 10**6
            )
    market.limit(firm, firm_id, types_pb2.LIMIT_KIND_GROSS_EXPOSURE_MAX, money)
    market.limit(firm, firm_id, types_pb2.LIMIT_KIND_ORDER_RATE_MAX, 10**9, 10**6)
    market.limit(firm, firm_id, types_pb2.LIMIT_KIND_DAILY_TRADED_MAX, money)


def _like(order: Order, **fields: int) -> Order:
    """Return a copy of an order with other fields."""
    other = Order()
    other.CopyFrom(order)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _applied(replies: Sequence[bytes]) -> None:
    """Decode replies to executions, none of which may be a refusal."""
    for reply in map(orders_pb.ReportExecutionResponse.FromString, replies):
        assert reply.decision == types_pb2.DECISION_ACCEPTED, reply


# --- Greeks ------------------------------------------------------------------------------------

Inputs = tuple[bool, float, float, float, float, float]
Figures = tuple[float, float, float, float, float, float]


class GreeksRounds:
    """The same options through the core's scalar entry, its arrays and plain Python."""

    def __init__(self, scale: Scale, samples: Samples) -> None:
        self._samples = samples
        draw = random.Random(1973)
        self._inputs: list[Inputs] = [
            (
                draw.random() < 0.5,
                60_000.0 * draw.uniform(0.98, 1.02),
                1_000.0 * draw.randint(40, 80),
                draw.uniform(0.3, 1.2),
                draw.uniform(1, 365) / 365,
                draw.uniform(0.0, 0.08),
            )
            for _ in range(scale.calls)
        ]
        columns = list(zip(*self._inputs, strict=True))
        self._is_call = np.array(columns[0], dtype=np.uint8)
        self._columns = [np.array(column, dtype=np.float64) for column in columns[1:]]
        self._out = np.empty((6, scale.calls))

    def run(self) -> None:
        count = len(self._inputs)
        with no_collection():
            times = [perf_counter_ns()]
            ours = list(starmap(black76_greeks, self._inputs))
            times.append(perf_counter_ns())
            theirs = list(starmap(python_greeks, self._inputs))
            times.append(perf_counter_ns())
            forward, strike, volatility, years, rate = self._columns
            outside = black76_arrays(
                self._is_call, forward, strike, volatility, years, rate, self._out
            )
            times.append(perf_counter_ns())
        assert outside == -1
        for figures, others, column in zip(ours, theirs, self._out.T.tolist(), strict=True):
            assert list(figures) == column
            for figure, other in zip(figures, others, strict=True):
                assert math.isclose(figure, other, rel_tol=1e-7, abs_tol=1e-7), (figures, others)
        names = ("greeks_scalar_ns", "greeks_python_ns", "greeks_array_ns")
        for name, (start, end) in zip(names, pairwise(times), strict=True):
            self._samples.add(name, (end - start) / count)


def python_greeks(
    is_call: bool, forward: float, strike: float, volatility: float, years: float, rate: float
) -> Figures:
    """Black-76 as a textbook writes it, with the standard library: the peer.

    Price, delta, gamma, vega per point of volatility, theta per day, rho per point of rate.
    """
    root = math.sqrt(years)
    discount = math.exp(-rate * years)
    d1 = (math.log(forward / strike) + 0.5 * volatility * volatility * years) / (volatility * root)
    d2 = d1 - volatility * root
    sign = 1.0 if is_call else -1.0
    n1 = 0.5 * math.erfc(-sign * d1 / math.sqrt(2))
    n2 = 0.5 * math.erfc(-sign * d2 / math.sqrt(2))
    density = math.exp(-0.5 * d1 * d1) / math.sqrt(2 * math.pi)
    price = discount * sign * (forward * n1 - strike * n2)
    decay = discount * forward * density * volatility / (2 * root)
    return (
        price,
        discount * sign * n1,
        discount * density / (forward * volatility * root),
        discount * forward * density * root / 100,
        (rate * price - decay) / 365,
        -years * price / 100,
    )


def main() -> None:
    """Run everything and print the figures."""
    scale = QUICK if quick_asked(__doc__) else FULL
    samples = Samples()
    engine_rounds = EngineRounds(scale, samples)
    greeks_rounds = GreeksRounds(scale, samples)
    engine_rounds.fill_memory()
    for _ in range(scale.rounds):
        engine_rounds.run()
        greeks_rounds.run()
    figures: Json = samples.medians()
    figures["ratios"] = {name: samples.ratio(*pair) for name, pair in RATIOS.items()}
    figures["spread"] = samples.spread()
    figures["rounds"] = scale.rounds
    figures["calls_per_round"] = scale.calls
    print_figures(figures)


if __name__ == "__main__":
    main()
