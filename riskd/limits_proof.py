"""One synthetic breaching order for each limit, on an engine that is thrown away afterwards.

Each limit is tried alone, the others put aside, so that the engine's own ladder gives its reason
and not that of a tighter one. The order is the one nearest to the limit that breaks it, found by
bisection. For limits that count what has happened (orders, rates, losses, leverage), orders, fills
and fees are made until they are broken. What else could stop an order is put out of the way first:
halts and leases are lifted, marks are reported anew at the same price, and accounts get money.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from riskd import limits
from riskd.catalogue import Catalogue, Instrument
from riskd.services.errors import reason_name
from riskd.services.messages import SCOPE_FIRM, Messages
from riskd.v1 import instrument_service_pb2, market_data_service_pb2, types_pb2
from riskd.v1 import order_risk_service_pb2 as pb

if TYPE_CHECKING:
    from riskd.core.engine import Engine, InstrumentRow, LimitRow

METHOD_CHECK_ORDER = 1
METHOD_REPORT_EXECUTION = 2
METHOD_REPORT_MARKS = 4

# What the proof's own orders, accounts and instruments are called.
GATEWAY_ID = 2**32 - 1
ACCOUNT_ID_MAX = 2**64 - 1
SYMBOL = "PROOF"

LOTS_MAX = 2**53
MONEY = 2**59
FEE_MAX = 2**53
ORDERS_MAX = 100_000
DESKS_MAX = 10
MARK_TICKS = 10_000
YEAR_NS = 365 * 86_400 * 10**9
VOLATILITY_PPB = 500_000_000

_PERPETUAL = instrument_service_pb2.INSTRUMENT_KIND_LINEAR_PERPETUAL
_OPTION = instrument_service_pb2.INSTRUMENT_KIND_LINEAR_OPTION
_COIN_OPTION = instrument_service_pb2.INSTRUMENT_KIND_INVERSE_OPTION
_OPTIONS = frozenset({_OPTION, _COIN_OPTION})
_INVERSE = frozenset(
    {
        instrument_service_pb2.INSTRUMENT_KIND_INVERSE_PERPETUAL,
        instrument_service_pb2.INSTRUMENT_KIND_INVERSE_FUTURE,
    }
)
# What an instrument has become, and what none is created with.
_STATE = ("instrument_id", "settlement_price", "funding_time_ns", "open_interest_lots")
_MINIMA = (types_pb2.LIMIT_KIND_ORDER_QUANTITY_MIN, types_pb2.LIMIT_KIND_ORDER_NOTIONAL_MIN)
_COLLARS = (types_pb2.LIMIT_KIND_COLLAR_PPB, types_pb2.LIMIT_KIND_COLLAR_TICKS)
_LISTS = (types_pb2.LIMIT_KIND_DENIED, types_pb2.LIMIT_KIND_ALLOWED)
_CURVED = (types_pb2.LIMIT_KIND_GAMMA_MAX, types_pb2.LIMIT_KIND_VEGA_MAX)
_WITH_MEMORY = (
    types_pb2.LIMIT_KIND_OPEN_ORDERS_MAX,
    types_pb2.LIMIT_KIND_ORDER_RATE_MAX,
    types_pb2.LIMIT_KIND_EXECUTION_RATE_MAX,
    types_pb2.LIMIT_KIND_DAILY_LOSS_MAX,
    types_pb2.LIMIT_KIND_DRAWDOWN_MAX,
    types_pb2.LIMIT_KIND_LEVERAGE_MAX,
)


class ProofError(ValueError):
    """There is nothing that a limit could be proved with: says what is missing."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of a limit's breaching order."""

    limit: str
    order: str
    reason: str
    ok: bool


@dataclass(frozen=True, slots=True)
class _Desk:
    """Who sends the order that is to break a limit, and where."""

    account_id: int
    is_hedged: bool
    gateway_id: int
    instrument: Instrument
    is_option: bool
    mark: int
    """In ticks."""


def prove(engine: "Engine", now_ns: int) -> list[Proof]:
    """Break each limit of the engine once, at or after a time. The engine is spoilt by it.

    A limit for which there is no instrument to trade is not proved, and says so.
    """
    return list(_Prover(engine, now_ns).proofs())


class _Prover:
    def __init__(self, engine: "Engine", now_ns: int) -> None:
        self._engine = engine
        self._now_ns = now_ns
        self._rows = engine.limits()
        self._catalogue = Catalogue(engine)
        self._messages = Messages(engine, self._catalogue)
        self._ids = itertools.count(1)
        self._accounts = itertools.count(ACCOUNT_ID_MAX, -1)

    def proofs(self) -> Iterator[Proof]:
        self._clear_the_way()
        for row in self._rows:
            self._engine.remove_limit(*row[:4], now_ns=self._now_ns)
        proved: dict[tuple[int, ...], Proof] = {}
        # Those that leave orders and positions behind come last.
        for row in sorted(self._rows, key=lambda each: each.kind in _WITH_MEMORY):
            reason = self._set(row)
            if reason != types_pb2.REASON_CODE_NONE:
                text = f"cannot be set: {reason_name(reason)}"
                proved[row[:4]] = Proof(self._name(row), "", text, ok=False)
                continue
            prove = self._prove_with_memory if row.kind in _WITH_MEMORY else self._prove
            try:
                proved[row[:4]] = prove(row)
            except ProofError as error:
                # Of this limit only: the others may have instruments.
                proved[row[:4]] = Proof(self._name(row), "", f"{error}", ok=False)
            self._engine.remove_limit(*row[:4], now_ns=self._now_ns)
        yield from (proved[row[:4]] for row in self._rows)

    def _set(self, row: "LimitRow") -> int:
        """Put a limit back as it was, with its raise; return the reason."""
        engine, now_ns = self._engine, self._now_ns
        reason = engine.set_limit(*row[:4], row.value, row.burst, row.action, now_ns)
        if reason == types_pb2.REASON_CODE_NONE and row.raise_until_ns > now_ns:
            reason = engine.raise_limit(*row[:4], row.raised_value, row.raise_until_ns, now_ns)
        return reason

    # What could be in the way.

    def _clear_the_way(self) -> None:
        engine = self._engine
        for scope, scope_id, _ in engine.trading_states():
            engine.set_trading_state(scope, scope_id, types_pb2.TRADING_STATE_NORMAL)
        for gateway in engine.gateways():
            if gateway.lease_end_ns:
                engine.renew_lease(gateway.gateway_id, 0, 0, self._now_ns)
        for row in engine.instruments():
            self._report_mark(row)

    def _report_mark(self, row: "InstrumentRow") -> None:
        """Report the mark of an instrument anew, or one if there is none."""
        mark = self._engine.mark(row.instrument_id)
        units = MARK_TICKS * row.mark_units_per_tick
        if row.kind == _OPTION:
            units = row.strike_units
        report = market_data_service_pb2.Mark(
            instrument_id=row.instrument_id,
            mark_price=mark.price if mark else units,
            time_ns=max(self._now_ns, mark.time_ns if mark else 0),
        )
        if row.kind in _OPTIONS:
            if not (mark and mark.volatility_ppb):
                report.implied_volatility_ppb = VOLATILITY_PPB
            if not (mark and mark.forward) and not row.underlying_id:
                report.forward_price = row.strike_units
        request = market_data_service_pb2.ReportMarksRequest(marks=[report])
        self._handle(METHOD_REPORT_MARKS, request.SerializeToString())

    # Who and where.

    def _account(self, row: "LimitRow") -> int:
        """Return an account that a limit counts, made for it if there is none."""
        match row.scope:
            case types_pb2.LIMIT_SCOPE_ACCOUNT:
                return row.scope_id
            case types_pb2.LIMIT_SCOPE_FIRM:
                after_id = 0
                while rows := self._engine.accounts(after_id, 1000):
                    for account in rows:
                        if account.firm_id == row.scope_id:
                            return account.account_id
                    after_id = rows[-1].account_id
        asset = self._messages.limit_asset(row.scope, row.scope_id)
        asset_id = asset.asset_id if asset else self._first_asset()
        account_id = next(self._accounts)
        self._engine.create_account(
            account_id, asset_id, types_pb2.MARGIN_MODE_CROSS, 100, 0, now_ns=self._now_ns
        )
        if row.scope == SCOPE_FIRM:
            self._engine.set_account_owner(account_id, row.scope_id, 0, self._now_ns)
        return account_id

    def _first_asset(self) -> int:
        for instrument in self._engine.instruments():
            return instrument.asset_id
        raise ProofError("there is no instrument to send an order for")

    def _desks(self, row: "LimitRow") -> Iterator[_Desk]:
        """Yield where an order could break a limit."""
        account = self._engine.account(self._account(row))
        assert account is not None, "limits are of accounts that exist"
        gateway_id = row.scope_id if row.scope == types_pb2.LIMIT_SCOPE_GATEWAY else GATEWAY_ID
        for instrument in self._instruments(row, account.asset_id):
            mark = self._engine.mark(instrument.instrument_id)
            steps = self._catalogue.instrument(instrument.instrument_id)
            assert mark is not None, "marks were reported"
            assert steps is not None, "the engine has just named it"
            yield _Desk(
                account.account_id,
                account.position_mode == types_pb2.POSITION_MODE_HEDGE,
                gateway_id,
                steps,
                instrument.kind in _OPTIONS,
                max(1, -(-mark.price // instrument.mark_units_per_tick)),
            )

    def _instruments(self, row: "LimitRow", asset_id: int) -> list["InstrumentRow"]:
        """Return instruments that an order can be for, made for the limit if there is none."""

        def fitting() -> list["InstrumentRow"]:
            return [
                each
                for each in self._engine.instruments()
                if each.asset_id == asset_id
                and not each.settlement_price
                and (not each.expiry_ns or each.expiry_ns > self._now_ns)
                and self._is_of(row, each)
            ]

        found = fitting()
        if not found:
            self._make_instrument(row, asset_id)
            found = fitting()
        return found

    def _is_of(self, row: "LimitRow", instrument: "InstrumentRow") -> bool:
        if row.kind == types_pb2.LIMIT_KIND_ALLOWED:
            allowed = {
                each.instrument_id
                for each in self._rows
                if (each.scope, each.scope_id, each.kind) == (row.scope, row.scope_id, row.kind)
            }
            return instrument.instrument_id not in allowed
        if row.kind in _CURVED:
            return instrument.kind in _OPTIONS
        if row.kind == types_pb2.LIMIT_KIND_LEVERAGE_MAX and instrument.kind in _OPTIONS:
            return False
        return row.instrument_id in (0, instrument.instrument_id)

    def _make_instrument(self, row: "LimitRow", asset_id: int) -> None:
        """Create what is missing: an option, or an instrument that is not allowed."""
        contracts = [
            each
            for each in self._engine.instruments()
            if each.asset_id == asset_id and each.kind not in _OPTIONS and each.schedule_id
        ]
        if not contracts:
            raise ProofError("there is no contract in the asset of the limit")
        like = min(contracts, key=lambda each: each.kind != _PERPETUAL)
        fields = like._asdict()
        for name in _STATE:
            del fields[name]
        fields["symbol"] = f"{SYMBOL}-{next(self._ids)}"
        if like.expiry_ns:
            fields["expiry_ns"] = self._now_ns + YEAR_NS
        if row.kind in _CURVED:
            fields |= {
                "kind": _OPTION,
                "schedule_id": 0,
                "base_asset_id": 0,
                "expiry_ns": self._now_ns + YEAR_NS,
                "strike_units": MARK_TICKS * like.mark_units_per_tick,
                "option_type": instrument_service_pb2.OPTION_TYPE_CALL,
            }
            if like.kind in _INVERSE:
                # Of one coin, in steps of a ten-thousandth of it.
                steps = {"tick_mantissa": 1, "tick_exponent": -4}
                lots = {"lot_mantissa": 1, "lot_exponent": 0, "mark_units_per_tick": 1}
                fields |= {"kind": _COIN_OPTION, "underlying_id": like.instrument_id}
                fields |= steps | lots | {"multiplier_mantissa": 1, "multiplier_exponent": 0}
        _, instrument_id = self._engine.upsert_instrument(**fields)
        made = next(
            (each for each in self._engine.instruments() if each.instrument_id == instrument_id),
            None,
        )
        if made is not None:
            self._report_mark(made)

    # Limits that look at orders and positions.

    def _prove(self, row: "LimitRow") -> Proof:
        last: pb.CheckOrderResponse | None = None
        for desk in self._desks(row):
            for side in (types_pb2.SIDE_BUY, types_pb2.SIDE_SELL):
                request = self._request(desk, side, 1, desk.mark)
                found, last = self._breaking(row, desk, request)
                if found is not None:
                    return self._proof(row, desk, found, last)
        return self._unproved(row, last)

    def _breaking(
        self, row: "LimitRow", desk: _Desk, request: pb.CheckOrderRequest
    ) -> tuple[pb.CheckOrderRequest | None, pb.CheckOrderResponse]:
        """Return the order nearest to the limit that breaks it, None if none does, and a reply."""

        def broken(number: int) -> bool:
            set_number(number)
            return self._breaks(row, self._check(request))

        def set_quantity(lots: int) -> None:
            request.quantity_lots = lots

        def set_distance(ticks: int) -> None:
            away = ticks if request.side == types_pb2.SIDE_BUY else -ticks
            request.price_ticks = min(max(1, desk.mark + away), LOTS_MAX)

        set_number: Callable[[int], None] = set_quantity
        if row.kind in _COLLARS:
            set_number = set_distance
        number: int | None = 1 if broken(1) else None
        if row.kind in _MINIMA and number is not None:
            passing = _first(lambda lots: not broken(lots))
            number = passing - 1 if passing else LOTS_MAX
        elif row.kind not in _MINIMA and row.kind not in _LISTS and number is None:
            number = _first(broken)
        set_number(number or 1)
        reply = self._check(request)
        return (request if number is not None else None), reply

    # Limits with a memory.

    def _prove_with_memory(self, row: "LimitRow") -> Proof:
        """Make what a limit remembers until it is broken, then show the order that it stops."""
        last: pb.CheckOrderResponse | None = None
        for desk in itertools.islice(self._desks(row), DESKS_MAX):
            asset_id = desk.instrument.asset.asset_id
            self._engine.adjust_collateral(desk.account_id, asset_id, MONEY, False, self._now_ns)
            request = self._smallest(desk)
            request.mode = pb.CHECK_MODE_RESERVE
            for _ in self._happen(row, desk, request):
                last = self._check(request)
                if self._breaks(row, last):
                    return self._proof(row, desk, request, last)
        return self._unproved(row, last)

    def _happen(
        self, row: "LimitRow", desk: _Desk, request: pb.CheckOrderRequest
    ) -> Iterator[None]:
        """Do what counts against a limit, step by step; the order is tried after each."""
        match row.kind:
            case types_pb2.LIMIT_KIND_LEVERAGE_MAX:
                schedule_id = next(
                    each.schedule_id
                    for each in self._engine.instruments()
                    if each.instrument_id == desk.instrument.instrument_id
                )
                for schedule in self._engine.schedules():
                    if schedule.schedule_id == schedule_id:
                        self._engine.set_leverage(
                            desk.account_id,
                            desk.instrument.instrument_id,
                            schedule.tiers[0].leverage_max,
                            False,
                            self._now_ns,
                        )
                request.mode = pb.CHECK_MODE_CHECK_ONLY
                yield
            case types_pb2.LIMIT_KIND_EXECUTION_RATE_MAX:
                report = self._filled(desk, request)
                request.mode = pb.CHECK_MODE_CHECK_ONLY
                for _ in range(row.burst):
                    yield
                    self._correct(report, 0)
                yield
            case types_pb2.LIMIT_KIND_DAILY_LOSS_MAX | types_pb2.LIMIT_KIND_DRAWDOWN_MAX:
                report = self._filled(desk, request)
                request.mode = pb.CHECK_MODE_CHECK_ONLY
                use = self._engine.limit_use(*row[:4], self._now_ns)
                short = 0 if use is None else row.value + 1 - use
                while short > 0:
                    self._correct(report, min(short, FEE_MAX))
                    short -= min(short, FEE_MAX)
                yield
            case _:
                # Each order that is tried is one more.
                yield from itertools.repeat(
                    None, max(row.burst + 1, min(row.value + 1, ORDERS_MAX))
                )

    def _filled(self, desk: _Desk, order: pb.CheckOrderRequest) -> pb.ReportExecutionRequest:
        """Return the report of an order's fill, which was applied."""
        reply = self._check(order)
        report = pb.ReportExecutionRequest(
            gateway_id=desk.gateway_id,
            execution_id=next(self._ids),
            reservation_id=reply.reservation_id,
            kind=pb.EXECUTION_KIND_FILL,
            price_ticks=desk.mark,
            quantity_lots=order.quantity_lots,
        )
        self._handle(METHOD_REPORT_EXECUTION, report.SerializeToString())
        return report

    def _correct(self, report: pb.ReportExecutionRequest, fee_minor: int) -> None:
        """Correct an execution to what it was, with one more fee: one more execution."""
        report.kind = pb.EXECUTION_KIND_CORRECTION
        report.original_execution_id = report.execution_id
        report.execution_id = next(self._ids)
        report.fee_minor = fee_minor
        self._handle(METHOD_REPORT_EXECUTION, report.SerializeToString())

    def _smallest(self, desk: _Desk) -> pb.CheckOrderRequest:
        """Return a small order that its instrument takes, on the side of the position."""
        position = next(
            (
                each
                for each in self._engine.positions(desk.account_id) or []
                if each.instrument_id == desk.instrument.instrument_id
            ),
            None,
        )
        is_short = position is not None and position.lots < 0
        side = types_pb2.SIDE_SELL if is_short else types_pb2.SIDE_BUY
        row = next(
            each
            for each in self._engine.instruments()
            if each.instrument_id == desk.instrument.instrument_id
        )
        request = self._request(desk, side, 1, desk.mark)
        # Steps of tick and lot make value exact; the engine says when it is enough.
        lots = max(1, row.order_lots_min)
        while row.order_notional_min and lots < LOTS_MAX:
            request.quantity_lots = lots
            reply = self._check(request)
            if reply.reason != types_pb2.REASON_CODE_BELOW_ORDER_NOTIONAL_MIN:
                break
            lots *= 2
        request.quantity_lots = lots
        return request

    # Orders.

    def _request(
        self, desk: _Desk, side: "types_pb2.Side.ValueType", lots: int, price_ticks: int
    ) -> pb.CheckOrderRequest:
        request = pb.CheckOrderRequest(
            account_id=desk.account_id,
            instrument_id=desk.instrument.instrument_id,
            side=side,
            order_type=types_pb2.ORDER_TYPE_LIMIT,
            price_ticks=price_ticks,
            quantity_lots=lots,
            gateway_id=desk.gateway_id,
            mode=pb.CHECK_MODE_CHECK_ONLY,
            view=pb.DECISION_VIEW_FULL,
        )
        if desk.is_hedged:
            is_buy = side == types_pb2.SIDE_BUY
            request.position_side = (
                types_pb2.POSITION_SIDE_LONG if is_buy else types_pb2.POSITION_SIDE_SHORT
            )
        return request

    def _check(self, request: pb.CheckOrderRequest) -> pb.CheckOrderResponse:
        request.client_order_id = next(self._ids)
        reply = self._handle(METHOD_CHECK_ORDER, request.SerializeToString())
        return pb.CheckOrderResponse.FromString(reply)

    def _handle(self, method: int, request: bytes) -> bytes:
        return self._engine.handle(method, request, self._now_ns)

    def _violation(self, row: "LimitRow", reply: pb.CheckOrderResponse) -> pb.Violation | None:
        """Return the violation of a limit in a reply."""
        for each in reply.detail.violations:
            name = each.reason - limits.REASON_OFFSET, each.scope, each.scope_id
            has_bound = row.kind not in _COLLARS and row.kind not in _LISTS
            if name == (row.kind, *row[:2]) and (not has_bound or each.limit == self._bound(row)):
                return each
        return None

    def _bound(self, row: "LimitRow") -> int:
        return row.raised_value if row.raise_until_ns > self._now_ns else row.value

    def _breaks(self, row: "LimitRow", reply: pb.CheckOrderResponse) -> bool:
        """Return whether a reply says that the limit is broken, and does what its action says."""
        violation = self._violation(row, reply)
        if violation is None:
            return False
        if row.action == types_pb2.LIMIT_ACTION_SOFT:
            return violation.soft
        return not violation.soft and reply.decision == types_pb2.DECISION_REJECTED

    # In words.

    def _proof(
        self,
        row: "LimitRow",
        desk: _Desk,
        request: pb.CheckOrderRequest,
        reply: pb.CheckOrderResponse,
    ) -> Proof:
        name = reason_name(row.kind + limits.REASON_OFFSET)
        if row.action == types_pb2.LIMIT_ACTION_SOFT:
            name = f"{name} (a warning)"
        elif reply.reason != row.kind + limits.REASON_OFFSET:
            name = f"{name}, after {reason_name(reply.reason)}"
        return Proof(self._name(row), self._order(desk, request), name, ok=True)

    def _unproved(self, row: "LimitRow", reply: pb.CheckOrderResponse | None) -> Proof:
        text = "no order could be made"
        if reply is not None and reply.decision == types_pb2.DECISION_REJECTED:
            text = f"not broken by any order: the last was {reason_name(reply.reason)}"
        elif reply is not None:
            text = "not broken by any order: the largest was accepted"
        return Proof(self._name(row), "", text, ok=False)

    def _name(self, row: "LimitRow") -> str:
        bound = self._messages.limit_text(row, self._bound(row))
        scope = types_pb2.LimitScope.Name(types_pb2.LimitScope.ValueType(row.scope))
        of = f"{scope.removeprefix('LIMIT_SCOPE_').lower()} {row.scope_id}"
        steps = self._catalogue.instrument(row.instrument_id) if row.instrument_id else None
        parts = [of, limits.kind_name(row.kind), steps.symbol if steps else "", bound]
        return " ".join(part for part in parts if part)

    def _order(self, desk: _Desk, request: pb.CheckOrderRequest) -> str:
        side = types_pb2.Side.Name(request.side).removeprefix("SIDE_").lower()
        steps = desk.instrument
        return (
            f"{side} {steps.quantity(request.quantity_lots)} {steps.symbol} at "
            f"{steps.price(request.price_ticks)}, account {desk.account_id}"
        )


def _first(holds: Callable[[int], bool]) -> int | None:
    """Return the least number from 1 to 2^53 that holds, where each above it does; None if none."""
    high = 1
    while not holds(high):
        if high >= LOTS_MAX:
            return None
        high = min(high * 2, LOTS_MAX)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
