"""Recorded streams run again: as they were without other limits, and to their end under others.

RISKD_RERUN_COMMANDS says how long the streams are.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riskd import limits_file
from riskd.core.engine import Engine
from riskd.journal import Entries
from riskd.reference import ReferenceEngine
from riskd.rerun import Rerun
from tests.differential.limit_streams import LimitStream
from tests.differential.streams import Runner, Stream

COMMANDS = int(os.environ.get("RISKD_RERUN_COMMANDS", "600"))


def record(stream: Any, directory: Path) -> Engine:
    engine = Engine(**stream.settings)
    engine.open_journal(directory, durability="process")
    runner, mirror = Runner(engine), Runner(ReferenceEngine(**stream.settings))
    for _ in range(COMMANDS):
        command = stream.next(mirror.engine)
        mirror.run(command)
        runner.run(command)
    engine.close_journal()
    return engine


@pytest.mark.parametrize("make", [Stream, LimitStream])
@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_differs_from_itself(make: Callable[[int], Any], seed: int, tmp_path: Path) -> None:
    record(make(seed), tmp_path)
    rerun = Rerun(tmp_path, None)
    assert [each.text() for each in rerun] == []
    assert rerun.unlike_record == rerun.without_order == rerun.differences == 0
    assert rerun.records == sum(1 for _ in Entries(tmp_path))
    assert rerun.decisions > COMMANDS // 5


def test_other_limits_than_those_of_a_stream(tmp_path: Path) -> None:
    record(LimitStream(0), tmp_path)
    firsts = [each for each in Entries(tmp_path) if each.name == "create_account"]
    account = firsts[0].fields["account_id"]
    text = f"""
        [[limit]]
        account = {account}
        kind = "OPEN_ORDERS_MAX"
        value = 0
    """
    rerun = Rerun(tmp_path, limits_file.loads(text))
    found = list(rerun)
    assert rerun.differences == len(found) == rerun.totals.total() > 0
    assert rerun.unlike_record == 0
    # Of all limits only that one stops an order: of the account, or of one that is under it.
    reasons = {each.after.reason for each in found if each.after.reason.startswith("LIMIT_")}
    assert reasons == {"LIMIT_OPEN_ORDERS_MAX"}
    numbers = {
        (rule.scope_id, rule.limit)
        for each in found
        if each.after.reason == "LIMIT_OPEN_ORDERS_MAX"
        and (rule := each.after.violation) is not None
    }
    assert numbers == {(account, 0)}
    assert rerun.without_order > 0
