"""One contract on an engine or its reference, for the rules that venues add."""

from collections.abc import Callable
from typing import Any, TypeAlias

from riskd.core.rows import PositionRow, SummaryRow
from riskd.v1 import types_pb2 as t
from tests.unit.reference_desk import NOW, Desk

NewEngine: TypeAlias = Callable[..., Any]
NONE = t.REASON_CODE_NONE
INVALID = t.REASON_CODE_DEFINITION_INVALID
BY_NOTIONAL, WHOLE, BY_LOTS, RISK_FACTOR = 1, 2, 3, 9
MARK, ENTRY = 1, 2
IN_MAINTENANCE, RESERVED, AT_BANKRUPTCY = 1, 2, 3
LINEAR, OPTION, INVERSE, SPOT = 1, 2, 3, 7
LONG, SHORT = t.POSITION_SIDE_LONG, t.POSITION_SIDE_SHORT
CONTRACT = 1
FLAT = [(0, 20_000_000, 10_000_000, 5_000)]
SIZES = {"accounts_max": 4, "positions_max": 8, "orders_max": 64, "answer_bytes": 1 << 16}


class RuleDesk(Desk):
    """Account 7 on a contract: a lot at a tick is 1 minor unit, marks are in tenths of a tick."""

    def __init__(
        self,
        engine: NewEngine,
        tiers: Any = FLAT,
        schedule: dict[str, int] | None = None,
        *,
        kind: int = LINEAR,
        scale: int = 0,
        steps: tuple[int, ...] = (1, 0, 1, 0, 10),
        **terms: Any,
    ) -> None:
        self.engine = engine(**SIZES)
        self.now_ns = NOW
        self.next_id = 0
        self.tiers = tiers
        self.steps = steps
        assert self.engine.create_asset("MONEY", scale) == (NONE, 1)
        assert self.schedule(**(schedule or {})) == NONE
        assert self.define(kind, **terms) == NONE

    def schedule(self, **rest: int) -> int:
        reason, _ = self.engine.upsert_schedule("s", 1, self.tiers, **rest)
        return int(reason)

    def define(self, kind: int = LINEAR, schedule_id: int = 1, **terms: Any) -> int:
        terms = {"symbol": "CONTRACT"} | terms
        symbol = terms.pop("symbol")
        made = self.engine.upsert_instrument(symbol, kind, 1, schedule_id, *self.steps, **terms)
        return int(made[0])

    def load(self, lots: int, entry_value: int, wallet: int = 0, position_side: int = 0) -> None:
        """Take over a position that exists already."""
        reason, *_ = self.engine.load_position(
            7, CONTRACT, position_side, lots, entry_value, wallet
        )
        assert reason == NONE

    @property
    def rows(self) -> list[PositionRow]:
        rows = self.engine.positions(7)
        assert rows is not None
        return list(rows)

    @property
    def summary(self) -> SummaryRow:
        summary = self.engine.summary(7)
        assert summary is not None
        return summary
