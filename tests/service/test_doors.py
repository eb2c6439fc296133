"""Whatever way a request comes in, the same bytes come out: library, control server, native door.

RISKD_PARITY_COMMANDS and RISKD_PARITY_SEED say how many commands, and from which seed; they come in
rounds, each of another kind of stream on a market of its own.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.differential.family_streams import FamilyStream
from tests.differential.limit_streams import LimitStream
from tests.differential.money_streams import MoneyStream
from tests.differential.odd_limit_streams import OddLimitStream
from tests.differential.streams import Runner, Stream
from tests.service.doors import Doors, Watched
from tests.unit.test_reasons import CASES, case_id, prepared

COMMANDS = int(os.environ.get("RISKD_PARITY_COMMANDS", "5000"))
SEED = int(os.environ.get("RISKD_PARITY_SEED", "1"))
ROUND_COMMANDS = 5_000 if COMMANDS > 50_000 else 1_000
STREAMS: list[Any] = [Stream, LimitStream, OddLimitStream, FamilyStream, MoneyStream]
# Commands at the same time, on average: those go out together.
COMMANDS_AT_ONCE = 12


@pytest.mark.parametrize("number", range(COMMANDS // ROUND_COMMANDS))
def test_a_stream_is_answered_alike_by_all_doors(number: int, tmp_path: Path) -> None:
    seed = SEED + 10_001 * number
    stream = STREAMS[number % len(STREAMS)](seed)
    chance = random.Random(seed)
    pass_time = stream.pass_time
    stream.pass_time = lambda: pass_time() if chance.randrange(COMMANDS_AT_ONCE) == 0 else None
    directory = tmp_path if number // len(STREAMS) % 2 == 0 else None
    with Doors(seed=seed, directory=directory, **stream.settings) as doors:
        runner = Runner(doors)
        watched = Watched(runner, doors.library)
        for _ in range(ROUND_COMMANDS):
            command = stream.next(watched)
            watched.see(command, runner.run(command))
    assert min(doors.unary_count, doors.streamed_count) > ROUND_COMMANDS // 20


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_the_vectors_are_answered_alike_by_all_doors(case: dict[str, Any]) -> None:
    desk = prepared(case, Doors)
    with desk.engine:
        answer = desk.run(case["inputs"]["request"])
    assert answer["reason"] == case["expected"]["reason"]
