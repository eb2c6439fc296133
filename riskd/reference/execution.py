"""ReportExecution and GetReservation: what became of an order."""

from dataclasses import dataclass, replace
from typing import Final

from riskd.reference.answers import ANSWER_EXECUTION, ANSWER_ORDER, Answer
from riskd.reference.margin import Fill
from riskd.reference.numbers import COUNT_MAX, fits
from riskd.reference.settlement import Settlement
from riskd.reference.state import (
    DERIVES_QUANTITY,
    LIMIT_PRICED,
    NONE,
    SPOT,
    ClosedOrder,
    Order,
    Position,
    PositionKey,
    Reason,
)
from riskd.reference.wire import execution_content, serialise
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

TRADED_KINDS: Final = (orders_pb.EXECUTION_KIND_FILL, orders_pb.EXECUTION_KIND_CORRECTION)
UNDOING_KINDS: Final = (orders_pb.EXECUTION_KIND_BUST, orders_pb.EXECUTION_KIND_CORRECTION)


@dataclass(frozen=True, slots=True)
class Effect:
    """What an execution does: up to two fills of one position, and a fee."""

    order: Order | ClosedOrder
    position: Position
    """After all fills."""
    fills: list[Fill]
    values: list[int]
    asset_id: int
    """In which it is settled."""
    fee: int
    """In the same asset."""
    changes: dict[int, int]
    """Of money in other assets, by their ids: fees, and what spot fills exchange."""

    @property
    def realised(self) -> int:
        return sum(each.realised for each in self.fills)


class Executions(Settlement):
    """ReportExecution and GetReservation."""

    def _report_execution(self, request: orders_pb.ReportExecutionRequest, now_ns: int) -> bytes:
        if request.gateway_id == 0:
            return serialise(self._execution_reject(t.REASON_CODE_GATEWAY_ID_MISSING))
        if request.execution_id == 0:
            return serialise(self._execution_reject(t.REASON_CODE_EXECUTION_ID_MISSING))
        if not self._has_gateway_room(request.gateway_id):
            return serialise(self._execution_reject(t.REASON_CODE_GATEWAYS_FULL))
        content = execution_content(request)
        answer = self._answers.find(ANSWER_EXECUTION, request.gateway_id, request.execution_id)
        if answer is not None:
            if answer.content == content:
                return answer.reply
            return serialise(self._execution_reject(t.REASON_CODE_EXECUTION_ID_REUSED))
        reason = self._execution_reason(request)
        effect = None
        if reason == NONE:
            effect = self._effect(request)
            reason = self._effect_reason(request, effect)
        self._revision += 1
        if effect is None or reason != NONE:
            reply = serialise(self._execution_reject(reason))
        else:
            reply = serialise(self._apply(request, effect, now_ns))
        self._remember(
            Answer(ANSWER_EXECUTION, request.gateway_id, request.execution_id, content, reply)
        )
        return reply

    def _execution_reject(self, reason: Reason) -> orders_pb.ReportExecutionResponse:
        return orders_pb.ReportExecutionResponse(
            decision=t.DECISION_REJECTED,
            reason=reason,
            revision=self._revision,
            margin_unknown=True,
        )

    # --- Step 2: form ---

    def _reported_order(
        self, request: orders_pb.ReportExecutionRequest
    ) -> Order | ClosedOrder | None:
        """Return the working or closed order that an execution is of."""
        order = self._orders.get(request.reservation_id) or self._closed.get(request.reservation_id)
        if order is None or order.gateway_id != request.gateway_id:
            return None
        return order

    def _execution_reason(self, request: orders_pb.ReportExecutionRequest) -> Reason:
        """E-3, E-1, E-5, E-9, E-10, E-4, F-12, F-10, F-11, E-2, A-1, A-12."""
        first, last = orders_pb.EXECUTION_KIND_FILL, orders_pb.EXECUTION_KIND_CORRECTION
        if not first <= request.kind <= last:
            return t.REASON_CODE_EXECUTION_KIND_NOT_SUPPORTED
        order = self._reported_order(request)
        if order is None:
            return t.REASON_CODE_RESERVATION_UNKNOWN
        if request.instrument_id not in (0, order.instrument_id):
            return t.REASON_CODE_EXECUTION_INSTRUMENT_MISMATCH
        reason = self._original_reason(request)
        if reason != NONE:
            return reason
        if request.kind in TRADED_KINDS:
            reason = self._traded_reason(request, order)
            if reason != NONE:
                return reason
        else:
            if request.price_ticks != 0 or request.quantity_lots != 0:
                return t.REASON_CODE_EXECUTION_QUANTITY_MISMATCH
            if request.kind != orders_pb.EXECUTION_KIND_BUST and request.fee_minor != 0:
                return t.REASON_CODE_EXECUTION_QUANTITY_MISMATCH
        if abs(request.fee_minor) > COUNT_MAX:
            return t.REASON_CODE_AMOUNT_OUT_OF_RANGE
        if request.fee_asset_id != 0 and request.fee_asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        return NONE

    def _original_reason(self, request: orders_pb.ReportExecutionRequest) -> Reason:
        """E-9, E-10."""
        if request.kind not in UNDOING_KINDS:
            is_given = request.original_execution_id != 0
            return t.REASON_CODE_ORIGINAL_EXECUTION_UNKNOWN if is_given else NONE
        answer = self._original_answer(request)
        if answer is None:
            return t.REASON_CODE_ORIGINAL_EXECUTION_UNKNOWN
        original = execution_of(answer)
        is_applied = was_applied(answer) and original.kind in TRADED_KINDS
        if not is_applied or original.reservation_id != request.reservation_id:
            return t.REASON_CODE_ORIGINAL_EXECUTION_UNKNOWN
        return t.REASON_CODE_EXECUTION_ALREADY_UNDONE if answer.undone else NONE

    def _original_answer(self, request: orders_pb.ReportExecutionRequest) -> Answer | None:
        return self._answers.find(
            ANSWER_EXECUTION, request.gateway_id, request.original_execution_id
        )

    def _traded_reason(
        self, request: orders_pb.ReportExecutionRequest, order: Order | ClosedOrder
    ) -> Reason:
        """F-12, F-10, F-11, E-2 of a fill or correction."""
        if not 1 <= request.price_ticks <= COUNT_MAX:
            return t.REASON_CODE_PRICE_OUT_OF_RANGE
        if request.quantity_lots == 0:
            return t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE
        if request.quantity_lots > COUNT_MAX:
            return t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        if request.quantity_lots > self._fillable(request.kind, order):
            return t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING
        return NONE

    def _fillable(self, kind: int, order: Order | ClosedOrder) -> int:
        """Return the largest quantity of a fill or correction of an order."""
        if kind == orders_pb.EXECUTION_KIND_CORRECTION:
            return COUNT_MAX if order.closes_position else order.quantity
        if order.closes_position:
            return max(0, -order.sign * self._position(order.key).lots)
        return order.remaining if isinstance(order, Order) else order.unfilled

    # --- What an execution does ---

    def _effect(self, request: orders_pb.ReportExecutionRequest) -> Effect:
        """Return all figures that an execution of a valid form changes."""
        order = self._reported_order(request)
        assert order is not None
        fills: list[Fill] = []
        values: list[int] = []
        position = self._position(order.key)
        for sign, price, quantity, open_loss in self._trades(request, order):
            filled = self._fill_of(order.key, position, sign, price, quantity, open_loss)
            fills.append(filled)
            values.append(self._value(self._instruments[order.instrument_id], price, quantity))
            position = replace(
                position,
                lots=filled.lots,
                entry_value=filled.entry_value,
                wallet=filled.wallet,
            )
        price = self._instruments[order.instrument_id].settlement_price
        if fills and price != 0:  # A settled instrument has no positions.
            fills.append(self._settled(order.key, position, price))
            position = replace(position, lots=0, entry_value=0, wallet=0)
        instrument = self._instruments[order.instrument_id]
        is_fee_apart = request.fee_asset_id not in (0, instrument.asset_id)
        changes: dict[int, int] = {}
        if instrument.kind == SPOT and fills:
            changes[instrument.base_asset_id] = sum(each.base_change for each in fills)
        if is_fee_apart and request.fee_minor != 0:
            bought = changes.get(request.fee_asset_id, 0)
            changes[request.fee_asset_id] = bought - request.fee_minor
        return Effect(
            order=order,
            position=position,
            fills=fills,
            values=values,
            asset_id=instrument.asset_id,
            fee=0 if is_fee_apart else request.fee_minor,
            changes=changes,
        )

    def _trades(
        self, request: orders_pb.ReportExecutionRequest, order: Order | ClosedOrder
    ) -> list[tuple[int, int, int, int]]:
        """Return (sign, price, quantity, open loss) of the fills that an execution consists of."""
        trades = []
        if request.kind in UNDOING_KINDS:
            answer = self._original_answer(request)
            assert answer is not None
            undone = execution_of(answer)
            trades.append((-order.sign, undone.price_ticks, undone.quantity_lots, 0))
        if request.kind in TRADED_KINDS:
            released = 0
            if request.kind == orders_pb.EXECUTION_KIND_FILL and isinstance(order, Order):
                released = released_loss(order, request.quantity_lots)
            trades.append((order.sign, request.price_ticks, request.quantity_lots, released))
        return trades

    def _effect_reason(self, request: orders_pb.ReportExecutionRequest, effect: Effect) -> Reason:
        """M-3, C-2, C-10, C-7."""
        account = self._accounts[effect.order.account_id]
        money = self._money(account.account_id, effect.asset_id)
        deficit = self._deficits.get(effect.asset_id, 0)
        for filled in effect.fills:
            money += filled.cash_change
            deficit += filled.deficit_change
            is_last = filled is effect.fills[-1]
            if not filled.fits(money - effect.fee if is_last else money) or not fits(deficit):
                return t.REASON_CODE_MARGIN_OVERFLOWS
        if not fits(*effect.values, effect.realised):
            return t.REASON_CODE_MARGIN_OVERFLOWS
        for asset_id, change in effect.changes.items():
            if not fits(self._money(account.account_id, asset_id) + change):
                return t.REASON_CODE_MARGIN_OVERFLOWS
        if effect.fills and not self._has_position_room(effect.order.key):
            return t.REASON_CODE_POSITIONS_FULL
        if effect.fills and not self._has_holding_room(account, effect.order.instrument_id):
            return t.REASON_CODE_HOLDINGS_FULL
        assets = [*effect.changes]
        if effect.fills or effect.fee != 0:
            assets.append(effect.asset_id)
        if not self._has_balance_room(*((account.account_id, each) for each in assets)):
            return t.REASON_CODE_BALANCES_FULL
        return NONE

    # --- Step 3: applied ---

    def _apply(
        self, request: orders_pb.ReportExecutionRequest, effect: Effect, now_ns: int
    ) -> orders_pb.ReportExecutionResponse:
        order = effect.order
        if effect.fills:
            self._positions[order.key] = effect.position
        change = sum(each.cash_change for each in effect.fills)
        self._book(order.account_id, effect.asset_id, change - effect.fee)
        deficit = sum(each.deficit_change for each in effect.fills)
        self._deficits[effect.asset_id] = self._deficits.get(effect.asset_id, 0) + deficit
        for asset_id, amount in effect.changes.items():
            self._book(order.account_id, asset_id, amount)
        if request.kind in UNDOING_KINDS:
            self._answers.undo(request.gateway_id, request.original_execution_id)
        self._advance_order(request, order)
        if self._instruments[order.instrument_id].kind == SPOT:
            # What is bought has left the equity, as a withdrawal does; it is no loss.
            self._move_peaks(self._levels_of(self._accounts[order.account_id]), change)
        if effect.fills and not self._is_foreign(order.key):
            # What a bankrupt isolated position cannot pay is not the account's loss.
            realised = effect.realised + deficit - effect.fee
            self._count_execution(order.account_id, sum(effect.values), realised, now_ns)
        self._take_credit(order.account_id)
        working = self._orders.get(order.reservation_id)
        reply = self._execution_reply(
            order.key, 0 if working is None else working.remaining, effect.realised
        )
        warning = execution_warning(request, order)
        if warning != NONE:
            reply.decision = t.DECISION_ACCEPTED_WITH_WARNING
            reply.reason = warning
        self._drop_empty_position(order.key)
        return reply

    def _advance_order(
        self, request: orders_pb.ReportExecutionRequest, order: Order | ClosedOrder
    ) -> None:
        """Take what was filled off the order, and the order off the books if that was the end."""
        if request.kind in UNDOING_KINDS:
            return
        quantity = request.quantity_lots
        if isinstance(order, ClosedOrder):
            unfilled = 0 if order.closes_position else order.unfilled - quantity
            self._closed[order.reservation_id] = replace(order, unfilled=unfilled)
            return
        if request.kind != orders_pb.EXECUTION_KIND_FILL:
            self._close(order)
            return
        if order.closes_position:
            is_done = self._position(order.key).lots == 0
        else:
            released = released_loss(order, quantity)
            order = replace(
                order,
                remaining=order.remaining - quantity,
                open_loss=order.open_loss - released,
            )
            self._orders[order.reservation_id] = order
            is_done = order.remaining == 0
        if is_done:
            self._close(order)

    def _execution_reply(
        self, key: PositionKey, remaining: int, realised: int
    ) -> orders_pb.ReportExecutionResponse:
        account = self._accounts[key.account_id]
        position = self._position(key)
        figures = self._account_figures(account)
        is_known = figures is not None and figures.fits()
        status, ticks = self._liquidation_ticks(key, position, self._money_of(key))
        return orders_pb.ReportExecutionResponse(
            decision=t.DECISION_ACCEPTED,
            reason=NONE,
            revision=self._revision,
            remaining_lots=remaining,
            position_lots=position.lots,
            realised_pnl_minor=realised,
            available_minor=figures.available if figures is not None and is_known else 0,
            liquidation_price_ticks=ticks,
            liquidation_status=status,
            isolated_wallet_minor=position.wallet,
            margin_unknown=not is_known,
            account_asset_id=self._foreign_account_asset(key) if is_known else 0,
        )

    # --- GetReservation ---

    def _get_reservation(
        self, request: orders_pb.GetReservationRequest
    ) -> orders_pb.GetReservationResponse:
        reply = orders_pb.GetReservationResponse(
            revision=self._revision, state=orders_pb.RESERVATION_STATE_UNKNOWN
        )
        reservation_id = request.reservation_id
        answer = None
        if reservation_id == 0:
            answer = self._answers.find(ANSWER_ORDER, request.gateway_id, request.client_order_id)
            working = self._working_order(request.gateway_id, request.client_order_id)
            if answer is not None:
                reservation_id = reservation_of(answer)
            elif working is not None:
                reservation_id = working.reservation_id
        order = self._orders.get(reservation_id) or self._closed.get(reservation_id)
        if answer is not None:
            reply.state = orders_pb.RESERVATION_STATE_CLOSED
            reply.first_answer.ParseFromString(answer.reply)
            asked = orders_pb.CheckOrderRequest.FromString(answer.content)
            reply.reservation_id = reservation_id
            reply.account_id = asked.account_id
            reply.instrument_id = asked.instrument_id
            reply.side = asked.side
            reply.price_ticks = asked.price_ticks
            reply.quantity_lots = asked.quantity_lots
            if asked.flags & DERIVES_QUANTITY:
                reply.quantity_lots = reply.first_answer.quantity_lots
        if order is not None:
            reply.state = orders_pb.RESERVATION_STATE_CLOSED
            reply.reservation_id = reservation_id
            reply.account_id = order.account_id
            reply.instrument_id = order.instrument_id
            reply.side = t.SIDE_BUY if order.sign > 0 else t.SIDE_SELL
            reply.price_ticks = order.price_ticks
            reply.quantity_lots = order.quantity
        if isinstance(order, Order):
            reply.state = orders_pb.RESERVATION_STATE_WORKING
            reply.remaining_lots = order.remaining
        return reply


def reservation_of(answer: Answer) -> int:
    return orders_pb.CheckOrderResponse.FromString(answer.reply).reservation_id


def execution_of(answer: Answer) -> orders_pb.ReportExecutionRequest:
    return orders_pb.ReportExecutionRequest.FromString(answer.content)


def was_applied(answer: Answer) -> bool:
    reply = orders_pb.ReportExecutionResponse.FromString(answer.reply)
    return reply.decision != t.DECISION_REJECTED


def released_loss(order: Order, quantity: int) -> int:
    """Return the open loss that leaves a working order with a fill; a protective one has none."""
    return order.open_loss * quantity // order.remaining if order.remaining else 0


def execution_warning(
    request: orders_pb.ReportExecutionRequest, order: Order | ClosedOrder
) -> Reason:
    """E-8, E-7."""
    if isinstance(order, ClosedOrder) and request.kind not in UNDOING_KINDS:
        return t.REASON_CODE_RESERVATION_CLOSED
    is_worse = order.sign * (request.price_ticks - order.price_ticks) > 0
    if request.kind in TRADED_KINDS and order.order_type in LIMIT_PRICED and is_worse:
        return t.REASON_CODE_EXECUTION_BEYOND_LIMIT
    return NONE
