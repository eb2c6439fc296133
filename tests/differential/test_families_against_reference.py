"""Streams over all kinds and families into the compiled engine and its slow twin.

RISKD_DIFFERENTIAL_SEEDS and RISKD_DIFFERENTIAL_COMMANDS say how many seeds and commands of each.
"""

import os
from collections import Counter
from functools import cache
from itertools import combinations
from typing import Any

import pytest

from riskd.core.rows import PositionRow
from riskd.reference import ReferenceEngine
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.differential.family_streams import (
    CONTRACTS,
    FAMILIES,
    ISOLATED_ONLY,
    OPTIONS,
    SPOTS,
    FamilyStream,
)
from tests.differential.streams import Command
from tests.differential.test_engine_against_reference import reasons_in, rounds, run_stream

SEEDS = int(os.environ.get("RISKD_DIFFERENTIAL_SEEDS", "8"))
COMMANDS = int(os.environ.get("RISKD_DIFFERENTIAL_COMMANDS", "1500"))
REASONS = {
    t.REASON_CODE_MARK_MISSING,
    t.REASON_CODE_MARK_STALE,
    t.REASON_CODE_INSTRUMENT_EXPIRED,
    t.REASON_CODE_NOTIONAL_OVERFLOWS,
    t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED,
    t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX,
    t.REASON_CODE_MARGIN_INSUFFICIENT,
    t.REASON_CODE_BORN_LIQUIDATABLE,
    t.REASON_CODE_MARGIN_OVERFLOWS,
    t.REASON_CODE_BALANCE_INSUFFICIENT,
    t.REASON_CODE_DEFINITION_INVALID,
    t.REASON_CODE_FIELD_IMMUTABLE,
    t.REASON_CODE_ISOLATED_ONLY,
    t.REASON_CODE_SCHEDULE_UNKNOWN,
    t.REASON_CODE_ASSET_UNKNOWN,
    t.REASON_CODE_LEVERAGE_OUT_OF_RANGE,
    t.REASON_CODE_EXCEEDS_AVAILABLE,
    t.REASON_CODE_EXCEEDS_REMOVABLE_MARGIN,
    t.REASON_CODE_EXPIRE_TIME_OUT_OF_RANGE,
}


class Counts:
    """What a stream has reached."""

    def __init__(self) -> None:
        self.reasons: Counter[int] = Counter()
        self.accepted: Counter[int] = Counter()
        """Orders by instrument."""
        self.families: Counter[int] = Counter()
        """Of schedules that were taken."""
        self.sides: Counter[tuple[int, bool]] = Counter()
        """Positions that were filled, by instrument and whether they are long."""
        self.closing_fees: Counter[int] = Counter()
        """Of schedules that were taken."""
        self.in_lots: Counter[bool] = Counter()
        """Positions that would have gone beyond the largest, by whether it is in lots."""
        self.rules: Counter[tuple[str, int]] = Counter()
        """Numbers of rules for options that were taken."""
        self.shared: Counter[str] = Counter()
        """Prices that several position sides share, by where they lie."""

    def see(self, command: Command, outcome: Any) -> None:
        self.reasons.update(reasons_in(command, outcome))
        if command[0] == "check" and isinstance(outcome, bytes):
            reply = orders_pb.CheckOrderResponse.FromString(outcome)
            if reply.decision == t.DECISION_ACCEPTED:
                self.accepted[command[1]["instrument_id"]] += 1
            for violation in reply.detail.violations:
                if violation.reason == t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX:
                    self.in_lots[violation.in_lots] += 1
        elif command[0] == "upsert_schedule" and outcome[0] == t.REASON_CODE_NONE:
            family, closing_fee = command[6], command[11]
            self.families[family] += 1
            self.closing_fees[closing_fee] += 1
        elif command[0] == "upsert_option_rule" and outcome[0] == t.REASON_CODE_NONE:
            self.rules.update(zip(("put_maintenance", "d", "e"), command[6:], strict=True))
        elif command[0] == "positions":
            self.see_positions(outcome or [])

    def see_positions(self, rows: list[PositionRow]) -> None:
        open_rows = [row for row in rows if row.lots != 0]
        for row in open_rows:
            self.sides[row.instrument_id, row.lots > 0] += 1
        cross = [row for row in open_rows if row.margin_mode == t.MARGIN_MODE_CROSS]
        at_price = [row for row in cross if row.liquidation_status == t.LIQUIDATION_STATUS_AT_PRICE]
        for row, other in combinations(at_price, 2):
            if row.instrument_id != other.instrument_id:
                continue
            assert row.liquidation_price == other.liquidation_price
            where = "below" if row.liquidation_price < row.mark else "above"
            self.shared[where] += 1
            net = row.lots + other.lots
            self.shared["against"] += net * (row.liquidation_price - row.mark) > 0
            self.shared["liquidatable"] += row.liquidatable

    def __iadd__(self, other: "Counts") -> "Counts":
        for name, counter in vars(self).items():
            counter.update(vars(other)[name])
        return self


@cache
def counts_of(seed: int) -> Counts:
    """Run the streams of a seed through both engines, once; fail where they differ."""
    counts = Counts()
    for stream, count in rounds(FamilyStream, seed, COMMANDS):
        run_stream(stream, count, see=counts.see)
    return counts


@pytest.mark.parametrize("seed", range(SEEDS))
def test_engine_and_reference_answer_alike_on_all_kinds_and_families(seed: int) -> None:
    counts_of(seed)


@pytest.mark.skipif(SEEDS * COMMANDS < 12_000, reason="streams this short reach less")
def test_streams_reach_all_kinds_and_families() -> None:
    counts = Counts()
    for seed in range(SEEDS):
        counts += counts_of(seed)
    name = t.ReasonCode.Name
    assert [name(each) for each in sorted(REASONS - set(counts.reasons))] == []
    assert set(FAMILIES) <= set(counts.families)
    assert all(counts.accepted[each] for each in (*SPOTS, *ISOLATED_ONLY))
    assert set(counts.closing_fees) == {0, 1, 2, 3}
    assert set(counts.in_lots) == {False, True}
    for name_of_number, least in (("put_maintenance", 2), ("d", 10**9), ("e", 1)):
        assert any(key[0] == name_of_number and key[1] >= least for key in counts.rules)
    assert all(counts.shared[each] for each in ("below", "above", "against", "liquidatable"))
    traded = [each for each in (*CONTRACTS, *OPTIONS) if counts.accepted[each]]
    assert len(traded) >= len(CONTRACTS) + len(OPTIONS) - 1  # One instrument has no mark.
    sides = {(each, is_long) for each, is_long in counts.sides}
    missing = {(each, True) for each in traded} | {(each, False) for each in traded}
    assert {each for each, _ in missing - sides} <= set(OPTIONS)


def test_a_stream_is_the_same_each_time() -> None:
    streams = FamilyStream(1), FamilyStream(1)
    engine = ReferenceEngine(**streams[0].settings)
    assert [streams[0].next(engine) for _ in range(40)] == [
        streams[1].next(engine) for _ in range(40)
    ]
