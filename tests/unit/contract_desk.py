"""A small reference engine with one contract of any kind and family, for cases by hand."""

from collections.abc import Sequence
from typing import Any

from riskd.reference import ReferenceEngine
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import NOW, Desk

CONTRACT = 1
Tiers = Sequence[tuple[int, int, int, int]]
PLAIN: Tiers = [(0, 20_000_000, 10_000_000, 9_900)]


class ContractDesk(Desk):
    """Account 7 of reference_desk.py on one contract; marks count in 100 units a tick."""

    def __init__(
        self,
        kind: int,
        tick: tuple[int, int],
        lot: tuple[int, int],
        *,
        scale: int,
        tiers: Tiers = PLAIN,
        schedule: dict[str, int] | None = None,
        **terms: Any,
    ) -> None:
        self.engine = ReferenceEngine()
        self.now_ns = NOW
        self.next_id = 0
        assert self.engine.create_asset("COIN", scale) == (t.REASON_CODE_NONE, 1)
        self.schedule(tiers, **(schedule or {}))
        terms = {"mark_units_per_tick": 100} | terms
        listed = self.engine.upsert_instrument("CONTRACT", kind, 1, 1, *tick, *lot, **terms)
        assert listed == (t.REASON_CODE_NONE, CONTRACT)

    def schedule(self, tiers: Tiers, **family: int) -> None:
        assert self.engine.upsert_schedule("s", 1, tiers, **family) == (t.REASON_CODE_NONE, 1)

    def load(self, lots: int, entry_value: int, wallet: int = 0) -> None:
        """Take over a position that exists already."""
        reason, *_ = self.engine.load_position(7, CONTRACT, 0, lots, entry_value, wallet)
        assert reason == t.REASON_CODE_NONE
