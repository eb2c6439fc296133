"""Levels of docs/limits.md: who counts under a firm or an account, and what is there."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from riskd.reference.figures import Figures
from riskd.reference.numbers import ceil, floor
from riskd.reference.state import (
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    Account,
    Usage,
    is_inverse,
    is_option,
)

DAY_NS = 86400 * 10**9


class Level(NamedTuple):
    scope: int
    scope_id: int


@dataclass(frozen=True, slots=True)
class Working:
    """L and A of one side of a level."""

    lots: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """What all accounts of a level have in one instrument."""

    lots: int = 0
    """X, the sum of x."""
    gross_lots: int = 0
    """The sum of abs(x)."""
    entry_value: int = 0
    """S: longs count as V, shorts as -V."""
    working: dict[int, Working] = field(default_factory=lambda: {1: Working(), -1: Working()})
    """By sign of the side."""
    orders: int = 0

    def with_order(self, sign: int, lots: int, value: int) -> "Holding":
        held = self.working[sign]
        side = Working(held.lots + lots, held.value + value)
        return replace(self, working=self.working | {sign: side})

    def worst_side(self, sign: int) -> int:
        return max(0, sign * self.lots + self.working[sign].lots)

    def has_lots(self) -> bool:
        return any((self.gross_lots, self.working[1].lots, self.working[-1].lots))

    def working_value(self) -> int:
        return self.working[1].value + self.working[-1].value


class Levels(Figures):
    """Every sum is made anew from the accounts under a level."""

    def _levels_of(self, account: Account) -> list[Level]:
        """Return the levels of an account's orders, but for the gateway."""
        levels = [Level(SCOPE_ACCOUNT, account.account_id)]
        if account.parent_account_id != 0:
            levels.append(Level(SCOPE_ACCOUNT, account.parent_account_id))
        if account.firm_id != 0:
            levels.append(Level(SCOPE_FIRM, account.firm_id))
        return levels

    def _accounts_under(self, level: Level) -> list[Account]:
        if level.scope == SCOPE_GATEWAY:
            return []
        return [each for each in self._accounts.values() if level in self._levels_of(each)]

    def _sub_accounts(self, account_id: int) -> list[Account]:
        return [each for each in self._accounts.values() if each.parent_account_id == account_id]

    def _holdings(self, level: Level) -> dict[int, Holding]:
        """Return what the level has, by instrument id, where it has x or working orders."""
        ids = {each.account_id for each in self._accounts_under(level)}
        holdings: dict[int, Holding] = {}
        for key, position in self._positions.items():
            account_id, instrument_id = key[0], key[1]
            if account_id in ids and position.lots != 0:
                held = holdings.get(instrument_id, Holding())
                signed = position.entry_value if position.lots > 0 else -position.entry_value
                holdings[instrument_id] = replace(
                    held,
                    lots=held.lots + position.lots,
                    gross_lots=held.gross_lots + abs(position.lots),
                    entry_value=held.entry_value + signed,
                )
        for order in self._orders.values():
            if order.account_id in ids:
                held = holdings.get(order.instrument_id, Holding())
                if not order.is_protective:
                    instrument = self._instruments[order.instrument_id]
                    value = self._value(instrument, order.margin_price, order.remaining)
                    held = held.with_order(order.sign, order.remaining, value)
                holdings[order.instrument_id] = replace(held, orders=held.orders + 1)
        return {each: holdings[each] for each in sorted(holdings)}

    # --- The table of sums ---

    def _holding_rows(self) -> set[tuple[Level, int]]:
        """Return the rows of the table: (firm or parent account, instrument)."""
        levels = [Level(SCOPE_FIRM, each) for each in self._firms]
        levels += [
            Level(SCOPE_ACCOUNT, each) for each in self._accounts if self._sub_accounts(each)
        ]
        return {
            (level, instrument_id) for level in levels for instrument_id in self._holdings(level)
        }

    def _has_holding_room(self, account: Account, instrument_id: int) -> bool:
        """C-10: whether an order of the account finds the rows that it needs."""
        rows = self._holding_rows()
        needed = {
            (level, instrument_id)
            for level in self._levels_of(account)
            if level.scope == SCOPE_FIRM or self._sub_accounts(level.scope_id)
        }
        return needed <= rows or len(rows | needed) <= self._holdings_max

    # --- Money ---

    def _unrealised_of(self, instrument_id: int, held: Holding) -> int:
        if is_inverse(self._instruments[instrument_id].kind):
            return held.entry_value - self._value_of(instrument_id, held)
        return self._value_of(instrument_id, held) - held.entry_value

    def _value_of(self, instrument_id: int, held: Holding) -> int:
        """Return what X is worth at the mark, rounded against the level.

        0 for X = 0, also without a mark.
        """
        if held.lots == 0:
            return 0
        value = self._mark_value(instrument_id, held.lots) * (1 if held.lots > 0 else -1)
        return ceil(value) if is_inverse(self._instruments[instrument_id].kind) else floor(value)

    def _unrealised_at(self, level: Level) -> int:
        return sum(self._unrealised_of(*item) for item in self._holdings(level).items())

    def _equity_at(self, level: Level) -> int:
        """Return cash, wallets and what the positions add; their marks must be there."""
        accounts = self._accounts_under(level)
        equity = sum(account.cash for account in accounts)
        ids = {account.account_id for account in accounts}
        equity += sum(each.wallet for key, each in self._positions.items() if key[0] in ids)
        for instrument_id, held in self._holdings(level).items():
            # The premium of an option has left the cash, so that its whole value counts.
            is_whole = is_option(self._instruments[instrument_id].kind)
            measure = self._value_of if is_whole else self._unrealised_of
            equity += measure(instrument_id, held)
        return equity

    def _has_marks(self, level: Level) -> bool:
        """Return whether each instrument in which the level has x not 0 has a mark."""
        held = self._holdings(level)
        return all(each in self._marks for each in held if held[each].gross_lots != 0)

    # --- Days ---

    def _today(self, level: Level, now_ns: int) -> Usage:
        """Return what the level traded and realised today."""
        if level.scope == SCOPE_FIRM:
            return self._of_day(level, now_ns)
        parts = [
            self._of_day(Level(SCOPE_ACCOUNT, each.account_id), now_ns)
            for each in self._accounts_under(level)
        ]
        day = now_ns // DAY_NS
        return Usage(day, sum(each.traded for each in parts), sum(each.realised for each in parts))

    def _of_day(self, level: Level, now_ns: int) -> Usage:
        """Return what is kept of an account alone or of a firm, empty if it is of another day."""
        day = now_ns // DAY_NS
        usage = self._usages.get(level, Usage(day))
        return usage if usage.day == day else Usage(day)

    def _instruments_held(self, level: Level) -> Iterator[int]:
        """Yield the instruments in which the level has x not 0, by id."""
        for instrument_id, held in self._holdings(level).items():
            if held.gross_lots != 0:
                yield instrument_id
