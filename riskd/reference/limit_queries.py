"""What is listed of firms and limits: use and bound as they are now."""

from typing import Final

from riskd.core.rows import FirmRow, LimitRow
from riskd.reference.levels import Level
from riskd.reference.limits import (
    LIST_KINDS,
    RATE_KINDS,
    STATE_KINDS,
    Limits,
    interval,
    needs_all_marks,
)
from riskd.reference.numbers import ceil_div, clamp
from riskd.reference.state import NONE, LimitKey
from riskd.v1 import types_pb2 as t

ORDER_KINDS: Final = (
    t.LIMIT_KIND_ORDER_QUANTITY_MIN,
    t.LIMIT_KIND_ORDER_QUANTITY_MAX,
    t.LIMIT_KIND_ORDER_NOTIONAL_MIN,
    t.LIMIT_KIND_ORDER_NOTIONAL_MAX,
    t.LIMIT_KIND_COLLAR_PPB,
    t.LIMIT_KIND_COLLAR_TICKS,
    t.LIMIT_KIND_LEVERAGE_MAX,
    *LIST_KINDS,
)
"""Kinds that look at the order alone."""
KINDS_OF_THE_ORDERS_INSTRUMENT: Final = (
    t.LIMIT_KIND_POSITION_NOTIONAL_MAX,
    t.LIMIT_KIND_CONCENTRATION_MAX,
)
"""Kinds that look at one instrument also when they are set on all."""


class LimitQueries(Limits):
    """Rows of firms and limits, and what counts without an order."""

    def firms(self) -> list[FirmRow]:
        rows = (self._firms[each] for each in sorted(self._firms))
        return [
            FirmRow(
                each.firm_id,
                each.asset_id,
                each.trading_state,
                each.credit_line,
                clamp(self._firm_credit_used(each.firm_id)),
            )
            for each in rows
        ]

    def limits(self) -> list[LimitRow]:
        """Return all limits by scope, id, instrument and kind."""
        rows = []
        for key in sorted(self._limits):
            limit = self._limits[key]
            rows.append(
                LimitRow(
                    *key,
                    value=limit.value,
                    burst=limit.burst,
                    action=limit.action,
                    raised_value=limit.raised_value,
                    raise_until_ns=limit.raise_until_ns,
                    due_ns=limit.due_ns,
                    peak=limit.peak,
                )
            )
        return rows

    def limit_use(
        self, scope: int, scope_id: int, instrument_id: int, kind: int, now_ns: int
    ) -> int | None:
        """Return what counts against a limit now, None when it cannot be known.

        Raises KeyError if there is no such limit.
        """
        key = LimitKey(scope, scope_id, instrument_id, kind)
        limit = self._limits[key]
        if kind in RATE_KINDS:
            return ceil_div(max(0, limit.due_ns - now_ns), interval(limit, now_ns))
        if kind in ORDER_KINDS:
            return 0
        level = Level(scope, scope_id)
        if not self._is_use_known(level, key, now_ns):
            return None
        if kind in STATE_KINDS:
            return clamp(self._state_use(level, kind, limit, now_ns))
        holdings = self._holdings(level)
        looked_at = {instrument_id}
        if instrument_id == 0 and kind in KINDS_OF_THE_ORDERS_INSTRUMENT:
            looked_at.update(holdings)
        uses = [self._held_use(key, holdings, each, (1, -1), now_ns) for each in looked_at]
        return clamp(max(uses))

    def _is_use_known(self, level: Level, key: LimitKey, now_ns: int) -> bool:
        one = key.instrument_id
        is_exposure = key.kind == t.LIMIT_KIND_GROSS_EXPOSURE_MAX
        if needs_all_marks(key.kind, one):
            return self._unknown_reason(level, key.kind, set(), now_ns) == NONE
        needed = set()
        for instrument_id, held in self._holdings(level).items():
            by_position = is_exposure and held.gross_lots != 0
            sides = held.worst_side(1), held.worst_side(-1)
            by_side = key.kind == t.LIMIT_KIND_POSITION_NOTIONAL_MAX and any(sides)
            if one in (0, instrument_id) and (by_position or by_side):
                needed.add(instrument_id)
        return all(self._mark_reason(self._instruments[each], now_ns) == NONE for each in needed)
