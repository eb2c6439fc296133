"""Which of several versions is in force, and when the next one begins."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol, TypeVar

from riskd.rulebooks.schema import ParameterRule, Rulebook, RulebookError, ScheduleRule

Version = TypeVar("Version", ScheduleRule, ParameterRule)


class _Dated(Protocol):
    @property
    def effective_from(self) -> datetime | None: ...


def select(book: Rulebook, at: datetime) -> Rulebook:
    """Return the rulebook as it is in force at a time: one version of everything.

    What begins later is left out. Raises RulebookError if the whole rulebook begins later, or
    something that an instrument needs.
    """
    if book.effective_from is not None and book.effective_from > at:
        raise _not_yet(book, "effective_from", book.effective_from, at)
    schedules = _in_force(book.schedules, at)
    option_rules = _in_force(book.option_rules, at)
    needed = {rule.margin_schedule for rule in book.instruments if rule.margin_schedule}
    for name in needed - {rule.name for rule in schedules}:
        first = next(rule for rule in book.schedules if rule.name == name)
        raise _not_yet(book, f"schedule.{name}.effective_from", first.effective_from, at)
    needed = {rule.option_rule for rule in book.instruments if rule.option_rule}
    for name in needed - {rule.name for rule in option_rules}:
        rule = next(rule for rule in book.option_rules if rule.name == name)
        raise _not_yet(book, f"option_rule.{name}.effective_from", rule.effective_from, at)
    return replace(
        book,
        schedules=schedules,
        option_rules=option_rules,
        collateral=_in_force(book.collateral, at),
    )


def next_change(book: Rulebook, at: datetime) -> datetime | None:
    """Return the first time after `at` at which another version begins; None if there is none."""
    rules: Iterable[_Dated] = (*book.schedules, *book.option_rules, *book.collateral, book)
    starts = (rule.effective_from for rule in rules)
    return min((start for start in starts if start is not None and start > at), default=None)


def in_force_since(book: Rulebook, at: datetime) -> datetime | None:
    """Return when the newest version that is in force at `at` began; None if nothing is dated."""
    rules: Iterable[_Dated] = (*book.schedules, *book.option_rules, *book.collateral, book)
    starts = (rule.effective_from for rule in rules)
    return max((start for start in starts if start is not None and start <= at), default=None)


def has_versions(book: Rulebook) -> bool:
    """Return whether what is in force depends on the time."""
    rules: Iterable[_Dated] = (*book.schedules, *book.option_rules, *book.collateral, book)
    return any(rule.effective_from is not None for rule in rules)


def _in_force(rules: Sequence[Version], at: datetime) -> tuple[Version, ...]:
    """Return the last version of each name that has begun, in the order of the names."""
    found: dict[str, Version] = {}
    for rule in rules:
        if rule.effective_from is None or rule.effective_from <= at:
            found[rule.name] = rule
    return tuple(found.values())


def _not_yet(book: Rulebook, key: str, start: datetime | None, at: datetime) -> RulebookError:
    return RulebookError(book.name, key, f"is not in force at {at.isoformat()}", start)
