"""Histograms count each value within 1/32 of it, in memory that does not grow."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskd.core.histogram import DurationHistogram
from riskd.metrics.collector import DURATION_BOUNDS_NS

LONGEST = 2**36


def read(*values: int) -> tuple[tuple[int, int], ...]:
    histogram = DurationHistogram()
    for value in values:
        histogram.add(value)
    row = histogram.read()
    assert row.sum == sum(values)
    assert sum(count for _, count in row.counts) == len(values)
    return row.counts


@given(st.integers(1, LONGEST))
def test_a_value_counts_as_at_least_itself_and_at_most_a_thirty_second_more(value: int) -> None:
    ((largest, count),) = read(value)
    assert count == 1
    assert value <= largest <= value + max(0, (value - 1) // 32)


@given(st.integers(1, LONGEST), st.integers(1, LONGEST))
def test_a_longer_value_is_not_counted_before_a_shorter_one(one: int, other: int) -> None:
    ((lower, _),), ((upper, _),) = read(min(one, other)), read(max(one, other))
    assert lower <= upper


@pytest.mark.parametrize(
    ("value", "largest"), [(0, 1), (LONGEST + 1, LONGEST), (2**64 - 1, LONGEST)]
)
def test_what_is_out_of_range_counts_at_its_end(value: int, largest: int) -> None:
    assert read(value) == ((largest, 1),)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_what_is_no_duration_is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        DurationHistogram().add(value)


@pytest.mark.parametrize("bound", DURATION_BOUNDS_NS)
def test_each_bound_that_is_served_is_the_end_of_a_bucket(bound: int) -> None:
    (last, _), (next_, _) = read(bound, bound + 1)
    assert last == bound
    assert next_ > bound


def test_nothing_is_lost_while_others_read() -> None:
    histogram = DurationHistogram()
    stop = threading.Event()
    added = 0

    def read_on() -> list[int]:
        """Return how many values there were, until that has changed 20 times."""
        seen = [0]
        while len(seen) <= 20 and not stop.is_set():
            count = sum(count for _, count in histogram.read().counts)
            if count != seen[-1]:
                seen.append(count)
        return seen

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_on)
        try:
            while not reading.done():
                histogram.add(added)
                added += 1
        finally:
            stop.set()
        seen = reading.result()
    assert len(seen) == 21
    assert seen == sorted(seen)
    assert sum(count for _, count in histogram.read().counts) == added
