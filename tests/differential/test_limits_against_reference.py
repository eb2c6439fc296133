"""Streams about limits into the compiled engine and its slow twin: equal bytes, equal state.

RISKD_DIFFERENTIAL_SEEDS and RISKD_DIFFERENTIAL_COMMANDS say how many seeds and commands of each.
"""

import os
from collections import Counter
from functools import cache
from typing import Any

import pytest

from riskd.v1 import types_pb2 as t
from tests.differential.limit_streams import LimitStream
from tests.differential.odd_limit_streams import OddLimitStream
from tests.differential.streams import Command
from tests.differential.test_engine_against_reference import (
    decision_in,
    reasons_in,
    rounds,
    run_stream,
)

SEEDS = int(os.environ.get("RISKD_DIFFERENTIAL_SEEDS", "12"))
COMMANDS = int(os.environ.get("RISKD_DIFFERENTIAL_COMMANDS", "1500"))
ODD_SEEDS = max(1, SEEDS // 3)

LIMIT_REASONS = {each for each in t.ReasonCode.values() if 220 <= each <= 242}
REASONS = LIMIT_REASONS | {
    t.REASON_CODE_FIRM_HALTED,
    t.REASON_CODE_FIRM_REDUCE_ONLY,
    t.REASON_CODE_GATEWAY_ID_MISSING,
    t.REASON_CODE_GATEWAYS_FULL,
    t.REASON_CODE_HOLDINGS_FULL,
    t.REASON_CODE_LIMITS_FULL,
    t.REASON_CODE_FIRMS_FULL,
    t.REASON_CODE_ALREADY_EXISTS,
    t.REASON_CODE_DEFINITION_INVALID,
    t.REASON_CODE_ASSET_UNKNOWN,
    t.REASON_CODE_ACCOUNT_UNKNOWN,
    t.REASON_CODE_INSTRUMENT_UNKNOWN,
    t.REASON_CODE_MARK_MISSING,
    t.REASON_CODE_MARK_STALE,
    t.REASON_CODE_OWNER_INVALID,
    t.REASON_CODE_OWNER_HAS_USAGE,
    t.REASON_CODE_POSITION_NOT_FLAT,
    t.REASON_CODE_LIMIT_LOOSER_THAN_PARENT,
    t.REASON_CODE_LIMIT_UNKNOWN,
    t.REASON_CODE_FIRM_UNKNOWN,
}


class Counts:
    """What a stream has reached."""

    def __init__(self) -> None:
        self.reached: Counter[int] = Counter()
        self.hard: Counter[int] = Counter()
        self.soft: Counter[int] = Counter()
        self.scopes: Counter[int] = Counter()
        self.decisions: Counter[int] = Counter()
        self.known: Counter[bool] = Counter()

    def see(self, command: Command, outcome: Any) -> None:
        if command[0] == "limit_use" and not isinstance(outcome, str):
            self.known[outcome is not None] += 1
        self.reached.update(reasons_in(command, outcome))
        decision = decision_in(command, outcome)
        if decision is None:
            return
        self.decisions[decision.decision] += 1
        is_rejected = decision.decision == t.DECISION_REJECTED
        (self.hard if is_rejected else self.soft)[decision.reason] += 1
        for each in decision.detail.violations:
            (self.soft if each.soft else self.hard)[each.reason] += 1
            self.scopes[each.scope] += 1

    def __iadd__(self, other: "Counts") -> "Counts":
        for name, counter in vars(self).items():
            counter.update(vars(other)[name])
        return self


@cache
def counts_of(seed: int) -> Counts:
    """Run the streams of a seed through both engines, once; fail where they differ."""
    counts = Counts()
    for stream, count in rounds(LimitStream, seed, COMMANDS):
        run_stream(stream, count, see=counts.see)
    return counts


@pytest.mark.parametrize("seed", range(SEEDS))
def test_engine_and_reference_answer_alike_under_limits(seed: int) -> None:
    counts_of(seed)


@pytest.mark.parametrize("seed", range(ODD_SEEDS))
def test_engine_and_reference_answer_alike_about_what_is_odd_or_extreme(seed: int) -> None:
    for stream, count in rounds(OddLimitStream, seed, COMMANDS):
        run_stream(stream, count)


@pytest.mark.skipif(SEEDS * COMMANDS < 18_000, reason="streams this short reach less")
def test_streams_reach_every_limit_hard_and_soft() -> None:
    counts = Counts()
    for seed in range(SEEDS):
        counts += counts_of(seed)
    name = t.ReasonCode.Name
    assert [name(each) for each in sorted(REASONS - set(counts.reached))] == []
    assert [name(each) for each in sorted(LIMIT_REASONS - set(counts.hard))] == []
    assert [name(each) for each in sorted(LIMIT_REASONS - set(counts.soft))] == []
    assert set(counts.scopes) == {0, 2, 3, 5}
    assert set(counts.known) == {True, False}
    share = 1 - counts.decisions[t.DECISION_REJECTED] / counts.decisions.total()
    assert 0.3 < share < 0.8
