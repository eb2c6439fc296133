"""How many margins and liquidation prices does the library compute a second?

Arrays of tiered positions, long and short, in the twelve tiers of a real ladder, through
riskd.margin.Calculator: bounds checked, results in new arrays. Peers in the same rounds, results
compared: the same formulas in NumPy on whole arrays, and again in blocks that stay in the cache,
which is the fastest that we could write. And both margins of one position in one call from Python,
against the same call of nautilus_trader, a public trading engine (one margin of its two, without
tiers), which is installed in an environment of its own (benchmarks/peers/nautilus.py).
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Json, Samples, no_collection, print_figures, quick_asked
from benchmarks.peers.nautilus import RELEASE, Peer, install
from riskd.margin import Calculator, Requirements, Tier, TierSchedule

Floats = NDArray[np.float64]

# Binance BTCUSDT on 2024-10-24: floor and maintenance rate, the initial rate 1 / max_leverage.
TIERS = (
    (0, 0.004, 125),
    (50_000, 0.005, 100),
    (600_000, 0.0065, 75),
    (3_000_000, 0.01, 50),
    (12_000_000, 0.02, 25),
    (70_000_000, 0.025, 20),
    (100_000_000, 0.05, 10),
    (230_000_000, 0.1, 5),
    (480_000_000, 0.125, 4),
    (600_000_000, 0.15, 3),
    (800_000_000, 0.25, 2),
    (1_200_000_000, 0.5, 1),
)
BLOCK = 16_384


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Positions from 1,000 to 1.5 billion of notional, as many in each order of magnitude."""

    quantity: Floats
    entry_price: Floats
    mark_price: Floats
    leverage: Floats
    wallet: Floats

    @classmethod
    def of(cls, count: int) -> "Portfolio":
        random = np.random.default_rng(20241024)
        notional = np.exp(random.uniform(np.log(1e3), np.log(1.5e9), count))
        entry_price = 60_000 * np.exp(random.normal(0, 0.05, count))
        leverage = random.uniform(1, 50, count)
        return cls(
            random.choice([-1.0, 1.0], count) * notional / entry_price,
            entry_price,
            entry_price * np.exp(random.normal(0, 0.02, count)),
            leverage,
            notional / leverage,
        )

    def part(self, rows: slice) -> "Portfolio":
        return Portfolio(
            self.quantity[rows],
            self.entry_price[rows],
            self.mark_price[rows],
            self.leverage[rows],
            self.wallet[rows],
        )


class InNumpy:
    """The formulas of riskd/margin/positions.py for linear contracts, vectorised.

    A position's tier is counted by comparisons with the floors: with a dozen of them that is twice
    as fast as searchsorted.
    """

    def __init__(self) -> None:
        self.floors, self.rates, leverages = np.array(TIERS, dtype=float).T
        # To the nine places that a schedule holds.
        self.initial_rates = np.ceil(1e9 / leverages - 1e-6) / 1e9
        steps = np.diff(self.rates, prepend=0.0)
        self.deductions = np.cumsum(self.floors * steps)
        self.owed = self.rates * self.floors - self.deductions

    def requirements(self, book: Portfolio) -> tuple[Floats, Floats]:
        value = np.abs(book.quantity) * book.mark_price
        count = np.zeros(len(value), np.int8)
        for floor in self.floors[1:]:
            count += value > floor
        tier = count.astype(np.intp)
        initial = np.maximum(value / book.leverage, self.initial_rates[tier] * value)
        return initial, self.rates[tier] * value - self.deductions[tier]

    def liquidation_prices(self, book: Portfolio) -> Floats:
        size, sign = np.abs(book.quantity), np.sign(book.quantity)
        y = size * book.entry_price - sign * book.wallet
        count = np.zeros(len(y), np.int8)
        for floor, owed in zip(self.floors[1:], self.owed[1:], strict=True):
            count += y > floor - sign * owed
        tier = count.astype(np.intp)
        notional = (y - sign * self.deductions[tier]) / (1 - sign * self.rates[tier])
        return np.where(notional > 0, notional / size, np.where(sign > 0, np.nan, 0.0))

    def requirements_in_blocks(self, book: Portfolio) -> tuple[Floats, Floats]:
        count = len(book.quantity)
        initial, maintenance = np.empty(count), np.empty(count)
        for start in range(0, count, BLOCK):
            rows = slice(start, start + BLOCK)
            initial[rows], maintenance[rows] = self.requirements(book.part(rows))
        return initial, maintenance

    def liquidation_prices_in_blocks(self, book: Portfolio) -> Floats:
        prices = np.empty(len(book.quantity))
        for start in range(0, len(prices), BLOCK):
            rows = slice(start, start + BLOCK)
            prices[rows] = self.liquidation_prices(book.part(rows))
        return prices


def nautilus(quick: bool) -> tuple[Peer | None, str]:
    """Return nautilus_trader, installed if need be, and its release or why it is not there."""
    try:
        if not quick:
            install()
        return Peer(), RELEASE
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"{error}"


def measure(rounds: int, count: int, calls: int, peer: Peer | None, peer_is: str) -> Json:
    schedule = TierSchedule(
        tuple(
            Tier.of(floor, str(rate), initial_rate=f"{1 / leverage + 4.999e-10:.9f}")
            for floor, rate, leverage in TIERS
        )
    )
    calculator, numpy, book = Calculator(schedule), InNumpy(), Portfolio.of(count)
    marks = {
        "quantity": book.quantity,
        "mark_price": book.mark_price,
        "leverage": book.leverage,
    }
    entries = {
        "quantity": book.quantity,
        "entry_price": book.entry_price,
        "wallet": book.wallet,
    }
    check(calculator.requirements(marks), numpy.requirements(book))
    check(calculator.requirements(marks), numpy.requirements_in_blocks(book))
    prices = calculator.liquidation_prices(entries).price
    check((prices,), (numpy.liquidation_prices(book),))
    check((prices,), (numpy.liquidation_prices_in_blocks(book),))
    cases: dict[str, Callable[[], object]] = {
        "margins": lambda: calculator.requirements(marks),
        "numpy_margins": lambda: numpy.requirements(book),
        "numpy_blocks_margins": lambda: numpy.requirements_in_blocks(book),
        "liquidation_prices": lambda: calculator.liquidation_prices(entries),
        "numpy_liquidation_prices": lambda: numpy.liquidation_prices(book),
        "numpy_blocks_liquidation_prices": lambda: numpy.liquidation_prices_in_blocks(book),
    }
    samples = Samples()
    for _ in range(rounds):
        for name, case in cases.items():
            samples.add(f"{name}_per_s", count / (time_once(case) / 1e9))
        samples.add("margin_call_ns", time_calls(lambda: calculator.margin(1.5, 60_000, 10), calls))
        if peer is not None:
            samples.add("nautilus_call_ns", peer.time(calls))
    figures: Json = samples.medians()
    ratios: Json = {
        "numpy_ratio": samples.ratio("liquidation_prices_per_s", "numpy_liquidation_prices_per_s"),
        "numpy_margins_ratio": samples.ratio("margins_per_s", "numpy_margins_per_s"),
        "numpy_blocks_ratio": samples.ratio(
            "liquidation_prices_per_s", "numpy_blocks_liquidation_prices_per_s"
        ),
        "numpy_blocks_margins_ratio": samples.ratio("margins_per_s", "numpy_blocks_margins_per_s"),
        "nautilus_ratio": None
        if peer is None
        else samples.ratio("nautilus_call_ns", "margin_call_ns"),
    }
    figures.setdefault("nautilus_call_ns", None)
    return {
        **figures,
        "numpy_ratio": ratios["numpy_ratio"],
        "nautilus_ratio": ratios["nautilus_ratio"],
        "nautilus": peer_is,
        "positions": count,
        "tiers": len(TIERS),
        "rounds": rounds,
        "ratios": ratios,
        "spread": samples.spread(),
    }


def check(got: Requirements | tuple[Floats, ...], wanted: tuple[Floats, ...]) -> None:
    """Raise if a peer does not compute the same. A difference of large figures may lose digits."""
    for mine, theirs in zip(got, wanted, strict=True):
        assert np.allclose(mine, theirs, rtol=1e-9, equal_nan=True), "a peer's figures differ"


def time_once(case: Callable[[], object]) -> int:
    with no_collection():
        start = perf_counter_ns()
        case()
        return perf_counter_ns() - start


def time_calls(call: Callable[[], object], calls: int) -> float:
    """Return nanoseconds a call, the loop included."""
    with no_collection():
        start = perf_counter_ns()
        for _ in range(calls):
            call()
        return (perf_counter_ns() - start) / calls


def main() -> None:
    quick = quick_asked(__doc__)
    rounds, count, calls = (1, 20_000, 100) if quick else (21, 1_000_000, 20_000)
    peer, peer_is = nautilus(quick)
    try:
        print_figures(measure(rounds, count, calls, peer, peer_is))
    finally:
        if peer is not None:
            peer.close()


if __name__ == "__main__":
    main()
