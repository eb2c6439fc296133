"""ReportExecution and GetReservation: what became of an order."""

from dataclasses import replace

from riskd.reference.answers import ANSWER_EXECUTION, ANSWER_ORDER, Answer
from riskd.reference.figures import Figures
from riskd.reference.numbers import COUNT_MAX, fits
from riskd.reference.state import NONE, Order, Reason
from riskd.reference.wire import execution_content, serialise
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t


class Executions(Figures):
    """ReportExecution and GetReservation."""

    def _report_execution(self, request: orders_pb.ReportExecutionRequest) -> bytes:
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
        self._revision += 1
        if reason != NONE:
            reply = serialise(self._execution_reject(reason))
        elif request.kind == orders_pb.EXECUTION_KIND_FILL:
            reply = serialise(self._apply_fill(request))
        else:
            reply = serialise(self._apply_release(request))
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

    def _execution_reason(self, request: orders_pb.ReportExecutionRequest) -> Reason:
        """E-3, E-1, E-5, E-4; F-12, F-10, F-11, E-2, A-1, M-3 of a fill."""
        if not (
            orders_pb.EXECUTION_KIND_FILL <= request.kind <= orders_pb.EXECUTION_KIND_VENUE_REJECT
        ):
            return t.REASON_CODE_EXECUTION_KIND_NOT_SUPPORTED
        order = self._orders.get(request.reservation_id)
        if order is None or order.gateway_id != request.gateway_id:
            return t.REASON_CODE_RESERVATION_UNKNOWN
        if request.instrument_id not in (0, order.instrument_id):
            return t.REASON_CODE_EXECUTION_INSTRUMENT_MISMATCH
        if request.kind != orders_pb.EXECUTION_KIND_FILL:
            if request.price_ticks != 0 or request.quantity_lots != 0 or request.fee_minor != 0:
                return t.REASON_CODE_EXECUTION_QUANTITY_MISMATCH
            return NONE
        if not 1 <= request.price_ticks <= COUNT_MAX:
            return t.REASON_CODE_PRICE_OUT_OF_RANGE
        if request.quantity_lots == 0:
            return t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE
        if request.quantity_lots > COUNT_MAX:
            return t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        if request.quantity_lots > order.remaining:
            return t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING
        if abs(request.fee_minor) > COUNT_MAX:
            return t.REASON_CODE_AMOUNT_OUT_OF_RANGE
        account = self._accounts[order.account_id]
        filled = self._fill_of(
            account,
            order.instrument_id,
            order.sign,
            request.price_ticks,
            request.quantity_lots,
            order.open_loss * request.quantity_lots // order.remaining,
        )
        cash = account.cash + filled.cash_change - request.fee_minor
        deficit = self._deficits.get(account.asset_id, 0) + filled.deficit_change
        value = self._value(
            self._instruments[order.instrument_id], request.price_ticks, request.quantity_lots
        )
        if not (filled.fits(cash) and fits(deficit, value)):
            return t.REASON_CODE_MARGIN_OVERFLOWS
        return NONE

    def _apply_fill(
        self, request: orders_pb.ReportExecutionRequest
    ) -> orders_pb.ReportExecutionResponse:
        order = self._orders[request.reservation_id]
        account = self._accounts[order.account_id]
        quantity = request.quantity_lots
        released_loss = order.open_loss * quantity // order.remaining
        filled = self._fill_of(
            account,
            order.instrument_id,
            order.sign,
            request.price_ticks,
            quantity,
            released_loss,
        )
        key = (order.account_id, order.instrument_id)
        self._positions[key] = replace(
            self._positions[key],
            lots=filled.lots,
            entry_value=filled.entry_value,
            wallet=filled.wallet,
        )
        cash = account.cash + filled.cash_change - request.fee_minor
        self._accounts[order.account_id] = replace(account, cash=cash)
        deficit = self._deficits.get(account.asset_id, 0) + filled.deficit_change
        self._deficits[account.asset_id] = deficit
        remaining = order.remaining - quantity
        open_loss = order.open_loss - released_loss
        if remaining > 0:
            self._orders[order.reservation_id] = replace(
                order, remaining=remaining, open_loss=open_loss
            )
        else:
            del self._orders[order.reservation_id]
        reply = self._execution_reply(order, remaining, filled.realised)
        if order.order_type == t.ORDER_TYPE_LIMIT and (
            order.sign * (request.price_ticks - order.price_ticks) > 0
        ):
            reply.decision = t.DECISION_ACCEPTED_WITH_WARNING
            reply.reason = t.REASON_CODE_EXECUTION_BEYOND_LIMIT
        self._drop_empty_position(*key)
        return reply

    def _apply_release(
        self, request: orders_pb.ReportExecutionRequest
    ) -> orders_pb.ReportExecutionResponse:
        order = self._orders.pop(request.reservation_id)
        reply = self._execution_reply(order, 0, 0)
        self._drop_empty_position(order.account_id, order.instrument_id)
        return reply

    def _execution_reply(
        self, order: Order, remaining: int, realised: int
    ) -> orders_pb.ReportExecutionResponse:
        account = self._accounts[order.account_id]
        position = self._position(order.account_id, order.instrument_id)
        figures = self._account_figures(account)
        is_known = figures is not None and figures.fits()
        status, ticks = self._liquidation_ticks(
            account, order.instrument_id, position, account.cash
        )
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
        )

    # --- GetReservation ---

    def _get_reservation(
        self, request: orders_pb.GetReservationRequest
    ) -> orders_pb.GetReservationResponse:
        reply = orders_pb.GetReservationResponse(
            revision=self._revision, state=orders_pb.RESERVATION_STATE_UNKNOWN
        )
        reservation_id = request.reservation_id
        if reservation_id == 0:
            answer = self._answers.find(ANSWER_ORDER, request.gateway_id, request.client_order_id)
            if answer is not None:
                asked = orders_pb.CheckOrderRequest.FromString(answer.content)
                reservation_id = reservation_of(answer)
                reply.state = orders_pb.RESERVATION_STATE_CLOSED
                reply.reservation_id = reservation_id
                reply.account_id = asked.account_id
                reply.instrument_id = asked.instrument_id
                reply.side = asked.side
                reply.price_ticks = asked.price_ticks
                reply.quantity_lots = asked.quantity_lots
                reply.first_answer.ParseFromString(answer.reply)
            else:
                working = self._working_order(request.gateway_id, request.client_order_id)
                if working is not None:
                    reservation_id = working.reservation_id
        order = self._orders.get(reservation_id)
        if order is not None:
            reply.state = orders_pb.RESERVATION_STATE_WORKING
            reply.reservation_id = reservation_id
            reply.account_id = order.account_id
            reply.instrument_id = order.instrument_id
            reply.side = t.SIDE_BUY if order.sign > 0 else t.SIDE_SELL
            reply.price_ticks = order.price_ticks
            reply.quantity_lots = order.quantity
            reply.remaining_lots = order.remaining
        return reply


def reservation_of(answer: Answer) -> int:
    return orders_pb.CheckOrderResponse.FromString(answer.reply).reservation_id
