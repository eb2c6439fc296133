"""Rulebooks with versions: what begins at a time is put into the engine when that time comes.

All that a version changes goes into the engine while nobody else has its book: no order, through
whichever door, is decided by one schedule of the new version and another of the old.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from riskd.rulebooks.installer import RuleEngine, apply
from riskd.rulebooks.schema import EPOCH, Rulebook
from riskd.rulebooks.versions import next_change
from riskd.services.backend import Backend
from riskd.services.changes import RecordedDefinitions, log_change

_NS_PER_US: Final = 1000

_logger = logging.getLogger("riskd.rules")


def time_of(time_ns: int) -> datetime:
    """Return a time in nanoseconds since 1970, cut to microseconds."""
    return EPOCH + timedelta(microseconds=time_ns // _NS_PER_US)


class RuleVersions:
    """The rulebooks of a server as time goes on. Its methods are of the event loop's thread."""

    def __init__(self, backend: Backend, rulebooks: Sequence[Rulebook]) -> None:
        self._backend = backend
        self._rulebooks = list(rulebooks)
        # None: not yet looked at. What began since the engine was built is due in the first call.
        self._at: datetime | None = None
        for rulebook in self._rulebooks:
            self._announce(rulebook, time_of(backend.clock()))

    def apply_due(self) -> None:
        """Apply each version whose time has come; one that is refused is logged and left out.

        Another change that is under way is waited for in the next call, not in this one.
        """
        now_ns = self._backend.clock()
        now = time_of(now_ns)
        due = [book for book in self._rulebooks if self._is_due(book, now)]
        if not due:
            return
        if not self._backend.change_lock.acquire(blocking=False):
            return
        try:
            for rulebook in due:
                self._apply(rulebook, now, now_ns)
        finally:
            self._backend.change_lock.release()
        self._at = now

    def _is_due(self, rulebook: Rulebook, now: datetime) -> bool:
        if self._at is None:
            return True
        start = next_change(rulebook, self._at)
        return start is not None and start <= now

    def _apply(self, rulebook: Rulebook, now: datetime, now_ns: int) -> None:
        backend = self._backend
        recorded = RecordedDefinitions(backend.engine, backend.trail, rulebook.name, now_ns)
        fields = {"name": rulebook.name, "at": now.isoformat()}
        before = backend.engine.revision
        try:
            with backend.engine.exclusive():
                # What the engine would refuse it refuses here, before the first change.
                rows = backend.engine.schedules()
                room = backend.engine.capacities()["schedules_max"] - len(rows)
                apply(rulebook, cast(RuleEngine, backend.engine.what_if(0, schedules=room)), now)
                apply(rulebook, cast(RuleEngine, recorded), now)
        except ValueError as error:  # RulebookError and ApplyError say which rule and why.
            _logger.error("rulebook not applied", extra={"fields": {**fields, "error": str(error)}})
            return
        finally:
            # Not under the lock, which orders wait for.
            for change in recorded.changes:
                log_change(change)
        if backend.engine.revision != before:
            _logger.info("rulebook applied", extra={"fields": fields})
            self._announce(rulebook, now)

    def _announce(self, rulebook: Rulebook, after: datetime) -> None:
        start = next_change(rulebook, after)
        if start is not None:
            fields = {"name": rulebook.name, "from": start.astimezone(UTC).isoformat()}
            _logger.info("next version of a rulebook", extra={"fields": fields})
