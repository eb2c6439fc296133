"""What all benchmarks share: timing, medians and spread, the JSON line at the end.

A script runs its cases and their peers in turn, round by round, so that a busy minute of a shared
machine hits all of them. A figure is the median of its rounds, a ratio the median of the rounds'
own ratios.
"""

import argparse
import gc
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Json = dict[str, object]


class Samples:
    """Figures by name, one a round."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[float]] = {}

    def add(self, name: str, figure: float) -> None:
        self._rounds.setdefault(name, []).append(figure)

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in self._rounds if name.startswith(prefix)]

    def last(self, name: str) -> float:
        """Return the figure of the latest round."""
        return self._rounds[name][-1]

    def median(self, name: str) -> float:
        return statistics.median(self._rounds[name])

    def ratio(self, name: str, peer: str) -> float:
        """Return the median over rounds of one figure over another of the same round."""
        pairs = zip(self._rounds[name], self._rounds[peer], strict=True)
        return rounded(statistics.median(figure / other for figure, other in pairs))

    def medians(self) -> Json:
        return {name: rounded(self.median(name)) for name in self._rounds}

    def spread(self) -> Json:
        """Return the least and the largest figure of each name."""
        return {
            name: [rounded(min(figures)), rounded(max(figures))]
            for name, figures in self._rounds.items()
        }


def rounded(figure: float) -> float:
    """Return a figure with the digits that can mean something."""
    return round(figure, 1) if abs(figure) >= 100 else float(f"{figure:.4g}")


def percentile(figures: Sequence[float], share: float) -> float:
    """Return the least figure that `share` per cent of all do not exceed."""
    return sorted(figures)[max(0, math.ceil(len(figures) * share / 100) - 1)]


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python's cycle collector out of what is timed, as timeit does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def time_each(call: Callable[[Item], Result], items: Sequence[Item]) -> tuple[float, list[Result]]:
    """Call with each item; return nanoseconds a call, loop included, and the results."""
    with no_collection():
        start = perf_counter_ns()
        results = [call(item) for item in items]
        elapsed = perf_counter_ns() - start
    return elapsed / len(items), results


def quick_asked(question: str | None) -> bool:
    """Parse the command line that all scripts have."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument(
        "--quick", action="store_true", help="only try everything once; the figures mean nothing"
    )
    return bool(parser.parse_args().quick)


def print_figures(figures: Json) -> None:
    """Print the JSON object that is the last line of every script."""
    print(json.dumps(figures), flush=True)
