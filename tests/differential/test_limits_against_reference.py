"""Streams about limits into the compiled engine and its slow twin: equal bytes, equal state.

RISKD_LIMIT_SEEDS and RISKD_LIMIT_COMMANDS say how many streams and how long they are.
"""

import os
from collections import Counter
from typing import Any

import pytest

from riskd.core.engine import Engine
from riskd.reference import ReferenceEngine
from riskd.v1 import types_pb2 as t
from tests.differential.limit_streams import LimitStream
from tests.differential.streams import Command, Runner
from tests.differential.test_engine_against_reference import decision_in, reasons_in, run_stream

SEEDS = int(os.environ.get("RISKD_LIMIT_SEEDS", "6"))
COMMANDS = int(os.environ.get("RISKD_LIMIT_COMMANDS", "1000"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_engine_and_reference_limit_alike(seed: int) -> None:
    run_stream(LimitStream(seed), COMMANDS)


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


def test_streams_reach_every_limit_hard_and_soft() -> None:
    reached: Counter[Any] = Counter()
    hard: Counter[Any] = Counter()
    soft: Counter[Any] = Counter()
    scopes: Counter[Any] = Counter()
    decisions: Counter[Any] = Counter()
    uses: Counter[bool] = Counter()

    def count(command: Command, outcome: Any) -> None:
        if command[0] == "limit_use":
            uses[outcome is None] += 1
        reached.update(reasons_in(command, outcome))
        decision = decision_in(command, outcome)
        if decision is None:
            return
        decisions[decision.decision] += 1
        (hard if decision.decision == t.DECISION_REJECTED else soft)[decision.reason] += 1
        for each in decision.detail.violations:
            (soft if each.soft else hard)[each.reason] += 1
            scopes[each.scope] += 1

    for seed in range(8):
        stream = LimitStream(seed)
        runner = Runner(Engine(**stream.settings))
        mirror = Runner(ReferenceEngine(**stream.settings))
        for _ in range(1500):
            command = stream.next(mirror.engine)
            mirror.run(command)
            count(command, runner.run(command))
    name = t.ReasonCode.Name
    assert [name(each) for each in sorted(REASONS - set(reached))] == []
    assert [name(each) for each in sorted(LIMIT_REASONS - set(hard))] == []
    assert [name(each) for each in sorted(LIMIT_REASONS - set(soft))] == []
    assert set(scopes) == {0, 2, 3, 5}
    assert set(uses) == {True, False}
    share = 1 - decisions[t.DECISION_REJECTED] / decisions.total()
    assert 0.3 < share < 0.8
