"""What is listed of firms and limits: use and bound as they are now."""

from typing import Final

from riskd.core.rows import FirmRow, LimitRow
from riskd.reference.levels import Level
from riskd.reference.limits import (
    LIST_KINDS,
    MARKED_KINDS,
    RATE_KINDS,
    STATE_KINDS,
    Limits,
    interval,
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


class LimitQueries(Limits):
    """Rows of firms and limits, and what counts without an order."""

    def firms(self) -> list[FirmRow]:
        rows = (self._firms[each] for each in sorted(self._firms))
        return [FirmRow(each.firm_id, each.asset_id, each.trading_state) for each in rows]

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
        looked_at = [instrument_id] if instrument_id else [*holdings, 0]
        if kind not in (t.LIMIT_KIND_POSITION_NOTIONAL_MAX, t.LIMIT_KIND_CONCENTRATION_MAX):
            looked_at = looked_at[-1:]
        uses = [self._held_use(key, holdings, each, (1, -1), now_ns) for each in looked_at]
        return clamp(max(uses))

    def _is_use_known(self, level: Level, key: LimitKey, now_ns: int) -> bool:
        one = key.instrument_id
        if key.kind in MARKED_KINDS and not (one and key.kind == t.LIMIT_KIND_GROSS_EXPOSURE_MAX):
            return self._unknown_reason(level, key.kind, set(), now_ns) == NONE
        needed = []
        for instrument_id, held in self._holdings(level).items():
            if one in (0, instrument_id):
                if key.kind == t.LIMIT_KIND_POSITION_NOTIONAL_MAX:
                    needed += [instrument_id] * (
                        held.worst_side(1) != 0 or held.worst_side(-1) != 0
                    )
                elif key.kind == t.LIMIT_KIND_GROSS_EXPOSURE_MAX:
                    needed += [instrument_id] * (held.gross_lots != 0)
        return all(self._mark_reason(self._instruments[each], now_ns) == NONE for each in needed)
