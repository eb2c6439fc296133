"""BatchCheckOrders: many orders, each by itself or all or none."""

from dataclasses import replace

from riskd.reference.answers import ANSWER_ORDER, Answer
from riskd.reference.decision import Decisions
from riskd.reference.state import NONE, Reason
from riskd.reference.wire import order_content, serialise
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t


class Batches(Decisions):
    """BatchCheckOrders."""

    def _batch_check_orders(
        self, request: orders_pb.BatchCheckOrdersRequest, now_ns: int
    ) -> orders_pb.BatchCheckOrdersResponse:
        if request.mode == orders_pb.BATCH_MODE_ALL_OR_NONE:
            decisions = self._all_or_none(list(request.orders), now_ns)
        else:
            decisions = [self._check_order(order, now_ns) for order in request.orders]
        reply = orders_pb.BatchCheckOrdersResponse(revision=self._revision)
        for decision in decisions:
            reply.decisions.add().ParseFromString(decision)
        return reply

    def _all_or_none(self, orders: list[orders_pb.CheckOrderRequest], now_ns: int) -> list[bytes]:
        """Return the decisions."""
        found = [self._first_answer(order) for order in orders]
        answered = [answer.reply for answer in found if answer is not None]
        if len(answered) == len(orders):
            return answered
        faults = [
            NONE if answer is not None else self._fault(orders, index)
            for index, answer in enumerate(found)
        ]
        if answered or any(fault != NONE for fault in faults):
            return [
                answer.reply if answer is not None else self._not_decided(fault)
                for answer, fault in zip(found, faults, strict=True)
            ]
        return self._decide_together(orders, now_ns)

    # --- 1. Nothing of it was answered before ---

    def _first_answer(self, order: orders_pb.CheckOrderRequest) -> Answer | None:
        """Return the answer that an order has already, if its content is the same."""
        if order.mode == orders_pb.CHECK_MODE_CHECK_ONLY:
            return None
        answer = self._answers.find(ANSWER_ORDER, order.gateway_id, order.client_order_id)
        return answer if answer is not None and answer.content == order_content(order) else None

    def _fault(self, orders: list[orders_pb.CheckOrderRequest], index: int) -> Reason:
        """F-1, F-2, C-5, I-1, F-16 of an order that was not answered before."""
        order, before = orders[index], orders[:index]
        if order.client_order_id == 0:
            return t.REASON_CODE_CLIENT_ORDER_ID_MISSING
        if order.gateway_id == 0:
            return t.REASON_CODE_GATEWAY_ID_MISSING
        key = order_key(order)
        if order.mode != orders_pb.CHECK_MODE_CHECK_ONLY:
            if not self._gets_place(order.gateway_id, before):
                return t.REASON_CODE_GATEWAYS_FULL
            is_answered = self._answers.find(ANSWER_ORDER, *key) is not None
            if is_answered or self._working_order(*key) is not None:
                return t.REASON_CODE_CLIENT_ORDER_ID_REUSED
        if key in map(order_key, before):
            return t.REASON_CODE_CLIENT_ORDER_ID_REUSED
        if mode_of(order) != mode_of(orders[0]):
            return t.REASON_CODE_CHECK_MODE_NOT_SUPPORTED
        return NONE

    def _gets_place(self, gateway_id: int, before: list[orders_pb.CheckOrderRequest]) -> bool:
        """Return whether a gateway has a place when those of the orders before have theirs."""
        places = set(self._gateways)
        for order in before:
            has_ids = order.client_order_id != 0 and order.gateway_id != 0
            is_check = order.mode == orders_pb.CHECK_MODE_CHECK_ONLY
            if has_ids and not is_check and len(places) < self._gateways_max:
                places.add(order.gateway_id)
        return gateway_id in places or len(places) < self._gateways_max

    def _not_decided(self, fault: Reason) -> bytes:
        reason = t.REASON_CODE_BATCH_PARTLY_ANSWERED if fault == NONE else fault
        return serialise(self._form_reject(reason))

    # --- 2. Decided in turn ---

    def _decide_together(
        self, orders: list[orders_pb.CheckOrderRequest], now_ns: int
    ) -> list[bytes]:
        saved = dict(self._positions), dict(self._orders), self._revision
        limits, accounts = dict(self._limits), dict(self._accounts)
        replies: list[orders_pb.CheckOrderResponse] = []
        for order in orders:
            replies.append(self._decide(order, now_ns, reserves=True))
            if replies[-1].decision == t.DECISION_REJECTED:
                break
        is_rejected = replies[-1].decision == t.DECISION_REJECTED
        is_check = orders[0].mode == orders_pb.CHECK_MODE_CHECK_ONLY
        if is_rejected or is_check:
            self._positions, self._orders, self._revision = saved
            self._accounts = accounts
            if is_check:
                self._limits = limits
            else:  # The order rates stay counted.
                for limit_key, limit in limits.items():
                    due = self._limits[limit_key].due_ns
                    self._limits[limit_key] = replace(limit, due_ns=due)
            self._revision += int(not is_check)
            for reply in replies:
                reply.revision = self._revision
                reply.reservation_id = 0
        if is_rejected:
            other = self._form_reject(t.REASON_CODE_BATCH_ORDER_REJECTED)
            rejected = len(replies) - 1
            replies = [replies[-1] if each == rejected else other for each in range(len(orders))]
        decisions = [serialise(reply) for reply in replies]
        if not is_check:
            for order, decision in zip(orders, decisions, strict=True):
                key = order_key(order)
                self._remember(Answer(ANSWER_ORDER, *key, order_content(order), decision))
        return decisions


def order_key(order: orders_pb.CheckOrderRequest) -> tuple[int, int]:
    return order.gateway_id, order.client_order_id


def mode_of(order: orders_pb.CheckOrderRequest) -> int:
    """Return the mode, an unset one as RESERVE."""
    return order.mode or orders_pb.CHECK_MODE_RESERVE
