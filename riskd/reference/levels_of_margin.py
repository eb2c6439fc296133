"""Margin levels: how near accounts and isolated positions are to liquidation, and the events."""

from dataclasses import dataclass, replace
from typing import Final

from riskd.core.rows import RiskEventRow
from riskd.reference.figures import Figures
from riskd.reference.margin import liquidation_requirement
from riskd.reference.numbers import ceil, fits
from riskd.reference.state import NONE, Account, Position, PositionKey, Reason, is_option
from riskd.v1 import types_pb2 as t

SAFE: Final = 0
SEARCH: Final = 1
LIQUIDATION: Final = 2
MILLION: Final = 10**6
RELEASE_MAX: Final = 10 * MILLION
EVENTS_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands against what is required."""

    equity: int
    requirement: int
    is_open: bool

    def level_after(self, level: int, search_ppm: int, release_ppm: int) -> int:
        equity, requirement = self.equity, self.requirement
        if not self.is_open:
            return SAFE
        if equity <= requirement:
            return LIQUIDATION
        if equity * MILLION >= requirement * release_ppm:
            return SAFE
        is_above_search = equity * MILLION > requirement * search_ppm
        if level == SAFE:
            return SAFE if is_above_search else SEARCH
        return SEARCH if is_above_search else level


class MarginLevels(Figures):
    """set_margin_levels, evaluate_levels, risk_events."""

    def set_margin_levels(
        self, search_ppm: int, release_ppm: int, *, validate_only: bool = False, now_ns: int = 0
    ) -> int:
        """Return the reason. 0 and 0: no levels."""
        reason = levels_reason(search_ppm, release_ppm)
        if reason == NONE and not validate_only:
            self._levels_ppm = (search_ppm, release_ppm)
            self._revision += 1
        return reason

    def evaluate_levels(self, first: int, count: int, now_ns: int) -> tuple[int, int]:
        """Look at count accounts from a place on; return (next place, events).

        The place of an account is how many were created before it; the next one after the last
        is 0.
        """
        before = self._revision
        accounts = list(self._accounts.values())[first : first + count]
        if self._levels_ppm != (0, 0):
            for account in accounts:
                self._evaluate_pool(account, now_ns)
                for key, position in self._positions_of(account.account_id):
                    self._evaluate_position(key, position, now_ns)
        end = first + count
        return end if end < len(self._accounts) else 0, self._revision - before

    def _evaluate_pool(self, account: Account, now_ns: int) -> None:
        standing = self._pool_standing(account)
        if standing is None:
            return
        after = standing.level_after(account.margin_level, *self._levels_ppm)
        if after != account.margin_level:
            key = PositionKey(account.account_id, 0, 0)
            self._record_event(key, account.margin_level, after, standing, now_ns)
            self._accounts[account.account_id] = replace(account, margin_level=after)

    def _evaluate_position(self, key: PositionKey, position: Position, now_ns: int) -> None:
        standing = self._isolated_standing(key, position)
        if standing is None:
            return
        after = standing.level_after(position.margin_level, *self._levels_ppm)
        if after != position.margin_level:
            self._record_event(key, position.margin_level, after, standing, now_ns)
            self._positions[key] = replace(position, margin_level=after)
            self._drop_empty_position(key)

    def _pool_standing(self, account: Account) -> Standing | None:
        """Return the standing of the cross pool, None if it is not known."""
        figures = self._account_figures(account)
        if figures is None or not figures.fits():
            return None
        equity = account.cash + figures.cross_pnl + figures.collateral + figures.credit
        if not fits(equity, figures.requirement):
            return None
        is_open = any(
            self._is_open_cross(*each) or self._is_short_option(*each)
            for each in self._positions_of(account.account_id)
        )
        return Standing(equity, figures.requirement, is_open)

    def _isolated_standing(self, key: PositionKey, position: Position) -> Standing | None:
        """Return the standing of a position by its own wallet, None if it is not known."""
        is_contract_open = position.lots != 0 and not self._is_option_of(key)
        if not (is_contract_open and self._is_isolated(key)):
            return Standing(0, 0, is_open=False)
        if key.instrument_id not in self._marks:
            return None
        notional = ceil(self._mark_value(key.instrument_id, position.lots))
        pnl = self._unrealised(key.instrument_id, position.lots, position.entry_value)
        equity = position.wallet + pnl
        requirement = liquidation_requirement(
            self._contract(key), position.lots, position.entry_value, notional
        )
        return Standing(equity, requirement, is_open=True) if fits(equity, requirement) else None

    def _is_option_of(self, key: PositionKey) -> bool:
        return is_option(self._instruments[key.instrument_id].kind)

    def _record_event(
        self, key: PositionKey, before: int, after: int, standing: Standing, now_ns: int
    ) -> None:
        self._revision += 1
        event = RiskEventRow(
            self._revision, now_ns, *key, before, after, standing.equity, standing.requirement
        )
        self._events = [*self._events, event][-EVENTS_MAX:]

    def risk_events(
        self, after_revision: int, account_id: int, limit: int
    ) -> tuple[list[RiskEventRow], int]:
        """Return events after a revision, of an account or (0) of all, the oldest first.

        Beside them 0, or the revision of the oldest that is kept when older ones may be gone.
        """
        first = self._events[0].revision if len(self._events) == EVENTS_MAX else 0
        found = [
            each
            for each in self._events
            if each.revision > after_revision and account_id in (0, each.account_id)
        ]
        return found[:limit], first


def levels_reason(search_ppm: int, release_ppm: int) -> Reason:
    """A-9."""
    is_off = (search_ppm, release_ppm) == (0, 0)
    if is_off or MILLION < search_ppm < release_ppm <= RELEASE_MAX:
        return NONE
    return t.REASON_CODE_DEFINITION_INVALID
