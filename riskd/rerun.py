"""The flow of a journal once more, under other limits or other margin rules: what would have been.

Two engines take the same records at the same times: one is what was, in the other limits and rules
are others. The decisions of both are compared one by one. What the other engine cannot know:

* An order that only it accepts has no executions on record. It is released at once; until then it
  counted, and rates count it.
* An order that only it rejects never was: its amendments and executions are left out, and counted.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from riskd import limits_file
from riskd.catalogue import Catalogue
from riskd.core import engine as core
from riskd.core.engine import Engine
from riskd.core.journal import Scan, crc32c, scan
from riskd.core.snapshot import SnapshotInvalidError, snapshot_head, snapshot_paths
from riskd.journal import KIND_CHANGE, Record, change_of, segments_of
from riskd.limits_file import LimitRule
from riskd.rulebooks import installer
from riskd.rulebooks.schema import Rulebook
from riskd.v1 import order_risk_service_pb2 as pb
from riskd.v1 import types_pb2

_HEAD = struct.Struct("<II")
_LIMIT_CHANGES = ("set_limit", "raise_limit", "remove_limit")
# Arguments that a record leaves out because they are always the same there.
_VALIDATING = (
    "adjust_collateral",
    "transfer_margin",
    "change_margin_mode",
    "set_leverage",
    "cancel_orders",
)
_DECIDING = (
    core.METHOD_CHECK_ORDER,
    core.METHOD_CHECK_AMENDMENT,
    core.METHOD_BATCH_CHECK_ORDERS,
    core.METHOD_REPORT_EXECUTION,
)
_UINT64_MAX = 2**64 - 1


class RerunError(ValueError):
    """The flow cannot be run again: names the record and why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an engine decided: names of enums without prefixes, and the violated rule's numbers."""

    decision: str
    reason: str
    violation: pb.Violation | None

    def text(self) -> str:
        """Return it in words."""
        if self.reason == "NONE":
            return self.decision
        parts = [self.decision, self.reason]
        if self.violation is not None:
            rule = self.violation
            parts.append(f"limit {rule.limit} use {rule.use} order {rule.order_use}")
            if rule.scope:
                parts.append(f"of {_name(types_pb2.LimitScope, rule.scope)} {rule.scope_id}")
        return " ".join(parts)

    def fields(self) -> dict[str, Any]:
        """Return it for JSON."""
        found: dict[str, Any] = {"decision": self.decision, "reason": self.reason}
        if self.violation is not None:
            rule = self.violation
            found |= {"limit": rule.limit, "use": rule.use, "order_use": rule.order_use}
            if rule.scope:
                found |= {
                    "scope": _name(types_pb2.LimitScope, rule.scope),
                    "scope_id": rule.scope_id,
                }
        return found


@dataclass(frozen=True, slots=True)
class Difference:
    """A decision that is another one now."""

    time_ns: int
    sequence: int
    revision: int
    kind: str
    account_id: int
    instrument: str
    gateway_id: int
    client_order_id: int
    """Of an execution its own id."""
    side: str
    lots: int
    price_ticks: int
    before: Verdict
    after: Verdict

    def text(self) -> str:
        """Return one line for people."""
        seconds, rest_ns = divmod(self.time_ns, 10**9)
        when = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return (
            f"{when}.{rest_ns:09d}Z #{self.sequence} r{self.revision} {self.kind}"
            f" account {self.account_id} {self.instrument} gateway {self.gateway_id}"
            f" id {self.client_order_id} {self.side} {self.lots} lots at {self.price_ticks} ticks:"
            f" {self.before.text()} -> {self.after.text()}"
        )

    def fields(self) -> dict[str, Any]:
        """Return it for JSON."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        return found | {"before": self.before.fields(), "after": self.after.fields()}


_FIELDS = (
    "time_ns",
    "sequence",
    "revision",
    "kind",
    "account_id",
    "instrument",
    "gateway_id",
    "client_order_id",
    "side",
    "lots",
    "price_ticks",
)


class _Order(NamedTuple):
    """What a line says of the order that was decided on."""

    account_id: int
    instrument_id: int
    gateway_id: int
    client_order_id: int
    side: int
    lots: int
    price_ticks: int


class Rerun:
    """Runs a journal again. Iterate it once, for the differences; the counts are whole after that.

    rules None: the recorded limits stand. Raises LimitsFileError for limits that cannot be set or
    whose account, firm or instrument never was, ApplyError, RerunError, and what
    reading and replaying raise. Only reads.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        rules: Sequence[LimitRule] | None,
        rulebooks: Sequence[Rulebook] = (),
    ) -> None:
        self._directory = directory
        self._rules = rules
        self._pending = list(rules or ())
        self._rulebooks = list(rulebooks)
        self._is_ruled = False
        # Of orders that are other ones in the other engine; 0: none there.
        self._ids: dict[int, int] = {}
        self._ids_max = 1 << 20
        self._release_id = _UINT64_MAX
        self.records = 0
        self.decisions = 0
        self.differences = 0
        self.without_order = 0
        """Amendments and executions of orders that the other engine did not accept."""
        self.unlike_record = 0
        """Replies of this program, under the recorded limits, that are not the recorded ones."""
        self.totals: Counter[tuple[str, str]] = Counter()
        """By (before, after): decision and reason."""

    def __iter__(self) -> Iterator[Difference]:
        for record in map(Record._make, self._open()):
            self.records += 1
            if record.kind == KIND_CHANGE:
                self._change(record)
            else:
                yield from self._hot(record)
            if self._was.revision != record.revision:
                raise RerunError(
                    f"record {record.sequence} leads to revision {self._was.revision},"
                    f" recorded is {record.revision}"
                )
        self._set_limits(0)
        for rule in self._pending:
            key, value = self._missing(rule) or ("", "")
            raise rule.refuse(key, value, "the journal has none")

    def _open(self) -> Scan:
        """Make both engines, as of the oldest snapshot if the journal does not begin with 1."""
        segments = segments_of(self._directory)
        first = segments[0].first_sequence if segments else 1
        small = {"accounts_max": 1, "positions_max": 1, "orders_max": 1, "answer_bytes": 4096}
        self._was, self._is = Engine(**small), Engine(**small)
        if first > 1:
            sequence = _oldest_snapshot(self._directory)
            for engine in (self._was, self._is):
                engine.recover(
                    self._directory,
                    until_sequence=sequence,
                    from_oldest=True,
                    accept_differences=True,
                )
            if self._rules is not None:
                for row in self._is.limits():
                    self._is.remove_limit(*row[:4])
            first = sequence + 1
        self._catalogue = Catalogue(self._was)
        return scan(self._directory, first)

    # Changes.

    def _change(self, record: Record) -> None:
        try:
            name, arguments = change_of(record.payload)
        except (KeyError, ValueError) as error:
            raise RerunError(
                f"record {record.sequence} is no change that can be read: {error!r}"
            ) from None
        if name == "create_book":
            self._was, self._is = Engine(**arguments), Engine(**arguments)
            self._catalogue = Catalogue(self._was)
            return
        answer = _apply(self._was, record, name, arguments)
        if self._rules is not None and name in _LIMIT_CHANGES:
            return
        if self._is_ruled and self._is_of_rulebook(name, arguments):
            return
        if "keep" in arguments:
            kept = [self._ids.get(each, each) for each in arguments["keep"]]
            arguments = arguments | {"keep": kept}
        other = _apply(self._is, record, name, arguments)
        if name in ("upsert_instrument", "upsert_schedule", "create_asset") and other != answer:
            raise RerunError(
                f"record {record.sequence}: {name} gives {other} after the rulebooks, and gave"
                f" {answer}: a rulebook may only name what the journal defines before its first"
                " order"
            )

    def _is_of_rulebook(self, name: str, arguments: dict[str, Any]) -> bool:
        """Return whether a change sets what a rulebook has set already, which stands."""
        books = self._rulebooks
        match name:
            case "upsert_schedule":
                return arguments["name"] in [each.name for book in books for each in book.schedules]
            case "upsert_option_rule":
                names = [each.name for book in books for each in book.option_rules]
                return arguments["name"] in names
            case "upsert_instrument":
                names = [each.symbol for book in books for each in book.instruments]
                return arguments["symbol"] in names
            case "define_collateral":
                symbols = {row.asset_id: row.symbol for row in self._was.assets()}
                asset, settlement = (
                    symbols.get(arguments[key]) for key in ("asset_id", "settlement_asset_id")
                )
                return (asset, settlement) in [
                    (each.name, book.instrument(str(each.parameters["index"])).settlement_asset)
                    for book in books
                    for each in book.collateral
                ]
            case "set_margin_levels":
                return any(book.levels is not None for book in books)
        return False

    def _set_rules(self, now_ns: int) -> None:
        """Install what is to be others, before the first decision and when more is there."""
        if not self._is_ruled:
            for book in self._rulebooks:
                installer.apply(book, self._is)
            self._is_ruled = True
        if self._pending:
            self._set_limits(now_ns)

    def _set_limits(self, now_ns: int) -> None:
        ready = [rule for rule in self._pending if not self._missing(rule)]
        if ready:
            limits_file.apply(ready, self._is, now_ns)
            self._pending = [rule for rule in self._pending if rule not in ready]

    def _missing(self, rule: LimitRule) -> tuple[str, object] | None:
        """Return what a limit names that is not there: key and value."""
        engine = self._is
        match rule.scope:
            case types_pb2.LIMIT_SCOPE_ACCOUNT if engine.account(rule.scope_id) is None:
                return "account", rule.scope_id
            case types_pb2.LIMIT_SCOPE_FIRM:
                if rule.scope_id not in [row.firm_id for row in engine.firms()]:
                    return "firm", rule.scope_id
        if rule.instrument and self._catalogue.instrument_by_symbol(rule.instrument) is None:
            return "instrument", rule.instrument
        return None

    # Hot requests.

    def _hot(self, record: Record) -> Iterator[Difference]:
        if len(record.payload) < _HEAD.size:
            raise RerunError(f"record {record.sequence} is no hot request")
        checksum, size = _HEAD.unpack_from(record.payload)
        content = record.payload[_HEAD.size :]
        if record.kind in _DECIDING:
            self._set_rules(record.time_ns)
        match record.kind:
            case core.METHOD_CHECK_ORDER:
                found = self._order(record, content)
            case core.METHOD_BATCH_CHECK_ORDERS:
                found = self._batch(record, content)
            case core.METHOD_CHECK_AMENDMENT:
                found = self._amendment(record, content)
            case core.METHOD_REPORT_EXECUTION:
                found = self._execution(record, content)
            case _:
                self._was_reply = self._was.handle(record.kind, content, record.time_ns)
                self._is.handle(record.kind, content, record.time_ns)
                found = iter(())
        yield from found
        if (len(self._was_reply), crc32c(self._was_reply)) != (size, checksum):
            self.unlike_record += 1

    def _order(self, record: Record, content: bytes) -> Iterator[Difference]:
        request = pb.CheckOrderRequest.FromString(content)
        # Asked beforehand, for the numbers of the violated rule as they were just then.
        request.mode = pb.CHECK_MODE_CHECK_ONLY
        request.view = pb.DECISION_VIEW_FULL
        question = request.SerializeToString()
        details = [
            engine.handle(record.kind, question, record.time_ns) for engine in (self._was, self._is)
        ]
        self._was_reply = self._was.handle(record.kind, content, record.time_ns)
        reply = self._is.handle(record.kind, content, record.time_ns)
        before = pb.CheckOrderResponse.FromString(self._was_reply)
        after = pb.CheckOrderResponse.FromString(reply)
        order = _order_of(request)
        explained = [pb.CheckOrderResponse.FromString(each).detail for each in details]
        yield from self._compare(record, "CheckOrder", order, (before, after), explained)
        self._settle(record, order, before, after)

    def _batch(self, record: Record, content: bytes) -> Iterator[Difference]:
        request = pb.BatchCheckOrdersRequest.FromString(content)
        self._was_reply = self._was.handle(record.kind, content, record.time_ns)
        # As it is: another view would be another request where an id comes again.
        reply = self._is.handle(record.kind, content, record.time_ns)
        pairs = zip(
            request.orders,
            pb.BatchCheckOrdersResponse.FromString(self._was_reply).decisions,
            pb.BatchCheckOrdersResponse.FromString(reply).decisions,
            strict=True,
        )
        for leg, before, after in pairs:
            order = _order_of(leg)
            details = [before.detail, after.detail]
            yield from self._compare(record, "BatchCheckOrders", order, (before, after), details)
            self._settle(record, order, before, after)

    def _amendment(self, record: Record, content: bytes) -> Iterator[Difference]:
        request = pb.CheckAmendmentRequest.FromString(content)
        held = self._held(request.reservation_id, record)
        self._was_reply = self._was.handle(record.kind, content, record.time_ns)
        before = pb.CheckAmendmentResponse.FromString(self._was_reply).order
        known = request.reservation_id
        request.reservation_id = self._ids.get(known, known)
        if known and not request.reservation_id:
            self.without_order += 1
            if before.reservation_id:
                self._map(record, before.reservation_id, 0)
            return
        reply = self._is.handle(record.kind, request.SerializeToString(), record.time_ns)
        after = pb.CheckAmendmentResponse.FromString(reply).order
        order = _Order(
            held.account_id,
            held.instrument_id,
            request.gateway_id,
            request.client_order_id,
            held.side,
            request.quantity_lots,
            request.price_ticks,
        )
        details = [before.detail, after.detail]
        yield from self._compare(record, "CheckAmendment", order, (before, after), details)
        if before.reservation_id:
            # What the other engine refuses leaves the old order as it was.
            self._map(record, before.reservation_id, after.reservation_id or request.reservation_id)

    def _execution(self, record: Record, content: bytes) -> Iterator[Difference]:
        request = pb.ReportExecutionRequest.FromString(content)
        held = self._held(request.reservation_id, record)
        self._was_reply = self._was.handle(record.kind, content, record.time_ns)
        known = request.reservation_id
        request.reservation_id = self._ids.get(known, known)
        if known and not request.reservation_id:
            self.without_order += 1
            return
        reply = self._is.handle(record.kind, request.SerializeToString(), record.time_ns)
        order = _Order(
            held.account_id,
            held.instrument_id,
            request.gateway_id,
            request.execution_id,
            held.side,
            request.quantity_lots,
            request.price_ticks,
        )
        before = pb.ReportExecutionResponse.FromString(self._was_reply)
        after = pb.ReportExecutionResponse.FromString(reply)
        yield from self._compare(record, "ReportExecution", order, (before, after), [None, None])

    # What both decided.

    def _compare(
        self,
        record: Record,
        kind: str,
        order: _Order,
        replies: tuple[Any, Any],
        details: Sequence[pb.DecisionDetail | None],
    ) -> Iterator[Difference]:
        self.decisions += 1
        before, after = replies
        if (before.decision, before.reason) == (after.decision, after.reason):
            return
        self.differences += 1
        verdicts = [_verdict(reply, detail) for reply, detail in zip(replies, details, strict=True)]
        was, now = verdicts
        self.totals[f"{was.decision} {was.reason}", f"{now.decision} {now.reason}"] += 1
        instrument = self._catalogue.instrument(order.instrument_id)
        yield Difference(
            time_ns=record.time_ns,
            sequence=record.sequence,
            revision=record.revision,
            kind=kind,
            account_id=order.account_id,
            instrument=instrument.symbol if instrument else f"instrument {order.instrument_id}",
            gateway_id=order.gateway_id,
            client_order_id=order.client_order_id,
            side=_name(types_pb2.Side, order.side).lower(),
            lots=order.lots,
            price_ticks=order.price_ticks,
            before=was,
            after=now,
        )

    def _settle(
        self,
        record: Record,
        order: _Order,
        before: pb.CheckOrderResponse,
        after: pb.CheckOrderResponse,
    ) -> None:
        """Note which order is which, and release one that never was."""
        if before.reservation_id:
            self._map(record, before.reservation_id, after.reservation_id)
        elif after.reservation_id:
            release = pb.ReportExecutionRequest(
                gateway_id=order.gateway_id,
                execution_id=self._release_id,
                reservation_id=after.reservation_id,
                kind=pb.EXECUTION_KIND_CANCEL,
            )
            self._release_id -= 1
            self._is.handle(
                core.METHOD_REPORT_EXECUTION, release.SerializeToString(), record.time_ns
            )

    def _map(self, record: Record, was: int, now: int) -> None:
        if was == now:
            self._ids.pop(was, None)
            return
        self._ids[was] = now
        if len(self._ids) > self._ids_max:
            # Nobody can ask any more for those that the engine itself does not know.
            unknown = pb.RESERVATION_STATE_UNKNOWN
            self._ids = {
                each: other
                for each, other in self._ids.items()
                if self._held(each, record).state != unknown
            }
            self._ids_max = max(1 << 20, 2 * len(self._ids))

    def _held(self, reservation_id: int, record: Record) -> pb.GetReservationResponse:
        question = pb.GetReservationRequest(reservation_id=reservation_id)
        content = question.SerializeToString()
        return pb.GetReservationResponse.FromString(
            self._was.handle(core.METHOD_GET_RESERVATION, content, record.time_ns)
        )


def _oldest_snapshot(directory: str | os.PathLike[str]) -> int:
    """Return the record that the oldest snapshot stands for."""
    for sequence, path in reversed(snapshot_paths(directory)):
        try:
            snapshot_head(path)
        except SnapshotInvalidError:
            continue
        return sequence
    raise RerunError(f"{directory}: the journal has no beginning, and no snapshot can be used")


def _apply(engine: Engine, record: Record, name: str, arguments: dict[str, Any]) -> Any:
    """Make a recorded change; return the engine's answer, which may be a refusal."""
    if name in _VALIDATING:
        arguments = arguments | {"validate_only": False}
    try:
        return getattr(engine, name)(**arguments, now_ns=record.time_ns)
    except (AttributeError, TypeError, ValueError) as error:
        raise RerunError(
            f"record {record.sequence}: {name} cannot be made again: {error}"
        ) from None


def _order_of(request: pb.CheckOrderRequest) -> _Order:
    return _Order(
        request.account_id,
        request.instrument_id,
        request.gateway_id,
        request.client_order_id,
        request.side,
        request.quantity_lots,
        request.price_ticks,
    )


def _verdict(reply: Any, detail: pb.DecisionDetail | None) -> Verdict:
    violations = detail.violations if detail is not None else ()
    return Verdict(
        _name(types_pb2.Decision, reply.decision),
        _name(types_pb2.ReasonCode, reply.reason),
        next((each for each in violations if each.reason == reply.reason), None),
    )


def _name(enum: Any, number: int) -> str:
    """Return the name of a member without the prefix of its enum, or the number."""
    if number not in enum.values():
        return str(number)
    prefix = _PREFIXES[enum.DESCRIPTOR.name]
    name: str = enum.Name(number)
    return name.removeprefix(prefix)


_PREFIXES = {
    "Decision": "DECISION_",
    "LimitScope": "LIMIT_SCOPE_",
    "ReasonCode": "REASON_CODE_",
    "Side": "SIDE_",
}
