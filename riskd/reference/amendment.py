"""CheckAmendment: a working order changed as a delta."""

from dataclasses import replace

from riskd.reference.answers import ANSWER_AMENDMENT, Answer
from riskd.reference.decision import DETAILED_VIEWS, Decisions, price_form_reason
from riskd.reference.figures import Terms
from riskd.reference.ladder import verdict
from riskd.reference.numbers import COUNT_MAX
from riskd.reference.state import NONE, Decision, Order, Reason, Violation
from riskd.reference.wire import amendment_content, serialise
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t


class Amendments(Decisions):
    """CheckAmendment."""

    def _check_amendment(self, request: orders_pb.CheckAmendmentRequest, now_ns: int) -> bytes:
        if request.client_order_id == 0:
            return self._amendment_form_reject(t.REASON_CODE_CLIENT_ORDER_ID_MISSING)
        if request.gateway_id == 0:
            return self._amendment_form_reject(t.REASON_CODE_GATEWAY_ID_MISSING)
        if not self._has_gateway_room(request.gateway_id):
            return self._amendment_form_reject(t.REASON_CODE_GATEWAYS_FULL)
        content = amendment_content(request)
        answer = self._answers.find(ANSWER_AMENDMENT, request.gateway_id, request.client_order_id)
        if answer is not None:
            if answer.content == content:
                return answer.reply
            return self._amendment_form_reject(t.REASON_CODE_CLIENT_ORDER_ID_REUSED)
        self._revision += 1
        decision = self._decide_amendment(request, now_ns)
        reply = serialise(orders_pb.CheckAmendmentResponse(order=decision))
        self._remember(
            Answer(ANSWER_AMENDMENT, request.gateway_id, request.client_order_id, content, reply)
        )
        return reply

    def _amendment_form_reject(self, reason: Reason) -> bytes:
        return serialise(orders_pb.CheckAmendmentResponse(order=self._form_reject(reason)))

    def _decide_amendment(
        self, request: orders_pb.CheckAmendmentRequest, now_ns: int
    ) -> orders_pb.CheckOrderResponse:
        """Decide from step 2 on; put the new order in the old one's place if it is accepted."""
        reason = self._amendment_form_reason(request, now_ns)
        if reason not in (NONE, t.REASON_CODE_QUANTITY_OUT_OF_RANGE):
            return self._form_reject(reason)
        order = self._orders[request.reservation_id]
        terms = amended_terms(request, order)
        with_old = self._account_figures(self._accounts[order.account_id])
        del self._orders[order.reservation_id]  # Until it is decided, the old order is gone.
        if order.closes_position:
            left = self._largest_reducing(terms)
        else:
            left = request.quantity_lots - (order.quantity - order.remaining)
        reply, amended = self._decide_left(terms, order, left, reason, request.view, now_ns)
        self._orders[order.reservation_id] = amended or order
        if amended is not None:
            self._raise_peaks(order.account_id)
            self._take_credit(order.account_id)
        if reason != NONE:
            return reply
        reply.reservation_id = order.reservation_id
        figures = self._account_figures(self._accounts[order.account_id])
        is_known = figures is not None and figures.fits()
        if amended is not None:
            is_known = is_known and with_old is not None and with_old.fits()
        if figures is not None and is_known:
            reply.initial_margin_minor = figures.initial_margin
            reply.available_minor = figures.available
            reply.margin_unknown = False
            reply.account_asset_id = self._foreign_account_asset(order.key)
        if amended is not None and figures is not None and with_old is not None and is_known:
            reply.reserved_minor = figures.initial_margin - with_old.initial_margin
        return reply

    def _amendment_form_reason(
        self, request: orders_pb.CheckAmendmentRequest, now_ns: int
    ) -> Reason:
        """F-17, E-1, F-12, F-18, F-19, F-20, F-10, E-6, F-11."""
        if request.view > orders_pb.DECISION_VIEW_FULL:
            return t.REASON_CODE_VIEW_NOT_SUPPORTED
        order = self._orders.get(request.reservation_id)
        if order is None or order.gateway_id != request.gateway_id:
            return t.REASON_CODE_RESERVATION_UNKNOWN
        reason = price_form_reason(
            self._instruments[order.instrument_id],
            order.order_type,
            request.price_ticks,
            request.trigger_price_ticks,
            request.trailing_offset_ticks,
        )
        if reason != NONE:
            return reason
        if order.time_in_force == t.TIME_IN_FORCE_GTD and order.expire_ns <= now_ns:
            return t.REASON_CODE_EXPIRE_TIME_OUT_OF_RANGE
        if order.closes_position:
            is_valid = request.quantity_lots == 0
            return NONE if is_valid else t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        if request.quantity_lots == 0:
            return t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE
        if request.quantity_lots <= order.quantity - order.remaining:
            return t.REASON_CODE_AMENDMENT_BELOW_FILLED
        if request.quantity_lots > COUNT_MAX:
            return t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        return NONE

    def _decide_left(
        self,
        terms: Terms,
        old: Order,
        left: int,
        form_reason: Reason,
        view: int,
        now_ns: int,
    ) -> tuple[orders_pb.CheckOrderResponse, Order | None]:
        """Decide on what would be left, the old order gone; return the reply and the new order.

        The reply has no figures of the account yet, and no order comes with a reject.
        """
        filled_lots = old.quantity - old.remaining
        detail = None
        decision: Decision = t.DECISION_REJECTED
        reason = form_reason
        violations: list[Violation] | None = None
        if reason == NONE:
            reason = self._state_reason(terms, left, now_ns)
            if reason == NONE:
                violations = self._violations(terms, left, now_ns)
                decision, reason = verdict(violations)
                if view in DETAILED_VIEWS:
                    detail = self._detail(terms, left, now_ns, violations, view)
        amended = None
        if decision != t.DECISION_REJECTED:
            price = self._known_price(terms)
            new = self._new_order(terms, left, price)
            amended = replace(
                old,
                price_ticks=terms.price_ticks,
                trigger_price=terms.trigger_price,
                trailing_offset=terms.trailing_offset,
                quantity=0 if old.closes_position else filled_lots + left,
                remaining=0 if old.closes_position else left,
                margin_price=new.margin_price,
                open_loss=new.sums.open_loss,
            )
            reply = orders_pb.CheckOrderResponse(
                decision=decision,
                reason=reason,
                revision=self._revision,
                margin_unknown=True,
            )
            filled = self._fill(terms, left, price)
            reply.liquidation_status, reply.liquidation_price_ticks = self._liquidation_after(
                terms, filled
            )
        else:
            reply = self._form_reject(reason)
            # The total, filled lots included, is not above 2^53 either.
            asked = min(left, COUNT_MAX + 1 - filled_lots)
            if not old.closes_position:
                lots = self._max_quantity(terms, asked, reason, now_ns)
                reply.max_quantity_lots = filled_lots + lots if lots else 0
        if violations is not None:
            self._count_order(self._asked(terms, left), violations, now_ns)
        if detail is not None:
            reply.detail.CopyFrom(detail)
        return reply, amended


def amended_terms(request: orders_pb.CheckAmendmentRequest, order: Order) -> Terms:
    """Return the terms of an order that is like the old one but for its prices."""
    prices = (request.price_ticks, request.trigger_price_ticks, request.trailing_offset_ticks)
    keeps_prices = prices == (order.price_ticks, order.trigger_price, order.trailing_offset)
    kept_lots = COUNT_MAX if order.closes_position else order.remaining
    return Terms(
        account_id=order.account_id,
        instrument_id=order.instrument_id,
        position_side=order.position_side,
        gateway_id=request.gateway_id,
        side=order.side,
        order_type=order.order_type,
        flags=order.flags,
        price_ticks=request.price_ticks,
        trigger_price=request.trigger_price_ticks,
        trailing_offset=request.trailing_offset_ticks,
        reserves=False,
        is_amendment=True,
        kept_lots=kept_lots if keeps_prices else 0,
    )
