"""Streams about money into the compiled engine and its slow twin: equal bytes, equal state.

RISKD_DIFFERENTIAL_SEEDS and RISKD_DIFFERENTIAL_COMMANDS say how many seeds and commands of each.
"""

import os
from collections import Counter
from functools import cache
from typing import Any

import pytest

from riskd.v1 import types_pb2 as t
from tests.differential.money_streams import COIN, IN_COIN, USDT, MoneyStream
from tests.differential.streams import BILLION, Command
from tests.differential.test_engine_against_reference import reasons_in, rounds, run_stream

SEEDS = int(os.environ.get("RISKD_DIFFERENTIAL_SEEDS", "8"))
COMMANDS = int(os.environ.get("RISKD_DIFFERENTIAL_COMMANDS", "1500"))
# What the streams are made to reach, by command.
REASONS: dict[str, tuple[int, ...]] = {
    "load_position": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_ACCOUNT_UNKNOWN,
        t.REASON_CODE_INSTRUMENT_UNKNOWN,
        t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH,
        t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED,
        t.REASON_CODE_POSITION_NOT_FLAT,
        t.REASON_CODE_DEFINITION_INVALID,
        t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED,
        t.REASON_CODE_INSTRUMENT_SETTLED,
        t.REASON_CODE_POSITIONS_FULL,
        t.REASON_CODE_HOLDINGS_FULL,
    ),
    "apply_funding": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_INSTRUMENT_UNKNOWN,
        t.REASON_CODE_DEFINITION_INVALID,
        t.REASON_CODE_INSTRUMENT_SETTLED,
        t.REASON_CODE_FUNDING_OUT_OF_ORDER,
        t.REASON_CODE_MARK_MISSING,
        t.REASON_CODE_MARGIN_OVERFLOWS,
        t.REASON_CODE_BALANCES_FULL,
    ),
    "settle_instrument": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_INSTRUMENT_UNKNOWN,
        t.REASON_CODE_DEFINITION_INVALID,
        t.REASON_CODE_INSTRUMENT_SETTLED,
        t.REASON_CODE_INSTRUMENT_NOT_EXPIRED,
        t.REASON_CODE_MARGIN_OVERFLOWS,
        t.REASON_CODE_BALANCES_FULL,
    ),
    "change_margin_mode": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_MARGIN_MODE_MISMATCH,
        t.REASON_CODE_POSITION_NOT_FLAT,
        t.REASON_CODE_MARK_MISSING,
        t.REASON_CODE_MARK_STALE,
        t.REASON_CODE_EXCEEDS_AVAILABLE,
        t.REASON_CODE_BORN_LIQUIDATABLE_IN_MODE,
        t.REASON_CODE_POSITIONS_FULL,
    ),
    "set_margin_levels": (t.REASON_CODE_NONE, t.REASON_CODE_DEFINITION_INVALID),
    "define_collateral": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_ASSET_UNKNOWN,
        t.REASON_CODE_INSTRUMENT_UNKNOWN,
        t.REASON_CODE_DEFINITION_INVALID,
    ),
    "adjust_collateral": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_EXCEEDS_AVAILABLE,
        t.REASON_CODE_MARK_MISSING,
        t.REASON_CODE_MARK_STALE,
        t.REASON_CODE_BALANCES_FULL,
    ),
    "set_credit_line": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_ACCOUNT_UNKNOWN,
        t.REASON_CODE_FIRM_UNKNOWN,
        t.REASON_CODE_DEFINITION_INVALID,
    ),
    "marks": (t.REASON_CODE_INSTRUMENT_SETTLED,),
    "set_limit": (t.REASON_CODE_POSITION_NOT_FLAT,),
    "set_account_owner": (t.REASON_CODE_POSITION_NOT_FLAT,),
}
# And where the instrument is settled in another asset than the account.
REASONS_ABROAD: dict[str, tuple[int, ...]] = {
    "check": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH,
        t.REASON_CODE_MARK_MISSING,
        t.REASON_CODE_MARK_STALE,
        t.REASON_CODE_MARGIN_INSUFFICIENT,
        t.REASON_CODE_BORN_LIQUIDATABLE,
        t.REASON_CODE_MARGIN_OVERFLOWS,
        t.REASON_CODE_BALANCES_FULL,
    ),
    "load_position": (t.REASON_CODE_NONE, t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH),
    "change_margin_mode": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_EXCEEDS_AVAILABLE,
        t.REASON_CODE_BORN_LIQUIDATABLE_IN_MODE,
        t.REASON_CODE_BALANCES_FULL,
    ),
    "transfer_margin": (
        t.REASON_CODE_NONE,
        t.REASON_CODE_EXCEEDS_AVAILABLE,
        t.REASON_CODE_EXCEEDS_REMOVABLE_MARGIN,
        t.REASON_CODE_BALANCES_FULL,
    ),
}


class Counts:
    """What a stream has reached."""

    def __init__(self) -> None:
        self.stream: MoneyStream | None = None
        self.reasons: Counter[tuple[str, int]] = Counter()
        self.abroad: Counter[tuple[str, int]] = Counter()
        self.levels: Counter[tuple[int, int, bool]] = Counter()
        """Level before and after, and whether it is that of a pool."""
        self.excludes: dict[tuple[int, int], bool] = {}
        """By settlement asset and asset, whether what is exposed to it does not count at all."""
        self.excluded = 0
        """Balances that count nothing for this."""

    def see(self, command: Command, outcome: Any) -> None:
        reasons = [(command[0], reason) for reason in reasons_in(command, outcome)]
        self.reasons.update(reasons)
        if self.stream is not None and command[0] in REASONS_ABROAD:
            account_id, instrument_id = command[1:3]
            if command[0] == "check":
                account_id, instrument_id = command[1]["account_id"], command[1]["instrument_id"]
            if self.stream.is_abroad(account_id, instrument_id):
                self.abroad.update(reasons)
        if command[0] == "risk_events":
            for each in outcome[0]:
                self.levels[each.level_before, each.level_after, each.instrument_id == 0] += 1
        if command[0] == "define_collateral" and outcome == t.REASON_CODE_NONE:
            asset_id, settlement_asset_id, _, tiers, *_, wrong_way_ppb, options = command[1:]
            if not options.get("validate_only"):
                is_full = tiers[0][1] != 0 and wrong_way_ppb == BILLION
                self.excludes[settlement_asset_id, asset_id] = is_full
        if command[0] == "collateral_values" and outcome is not None:
            own = COIN if command[1] in IN_COIN else USDT
            for asset_id, balance, value in outcome:
                is_full = self.excludes.get((own, asset_id), False)
                self.excluded += is_full and balance > 0 and value == 0

    def __iadd__(self, other: "Counts") -> "Counts":
        self.reasons.update(other.reasons)
        self.abroad.update(other.abroad)
        self.levels.update(other.levels)
        self.excluded += other.excluded
        return self


@cache
def counts_of(seed: int) -> Counts:
    """Run the streams of a seed through both engines, once; fail where they differ."""
    counts = Counts()
    for stream, count in rounds(MoneyStream, seed, COMMANDS):
        counts.stream = stream
        run_stream(stream, count, see=counts.see)
    return counts


@pytest.mark.parametrize("seed", range(SEEDS))
def test_engine_and_reference_answer_alike_about_money(seed: int) -> None:
    counts_of(seed)


@pytest.mark.skipif(SEEDS * COMMANDS < 12_000, reason="streams this short reach less")
def test_streams_reach_every_refusal_and_every_change_of_level() -> None:
    counts = Counts()
    for seed in range(SEEDS):
        counts += counts_of(seed)
    missing = [
        (command, t.ReasonCode.Name(t.ReasonCode.ValueType(reason)))
        for wanted, reached in ((REASONS, counts.reasons), (REASONS_ABROAD, counts.abroad))
        for command, reasons in wanted.items()
        for reason in reasons
        if reached[command, reason] == 0
    ]
    assert missing == []
    changes = [(before, after) for before in range(3) for after in range(3) if before != after]
    assert [
        (*change, is_pool)
        for change in changes
        for is_pool in (True, False)
        if counts.levels[*change, is_pool] == 0
    ] == []
    assert counts.excluded > 0
