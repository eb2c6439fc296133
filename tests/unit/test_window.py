"""What is remembered of each gateway, and for how long: docs/decision.md."""

import pytest

from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.unit.desk import SIZES, Desk, reservation_in

# No ring holds more answers: each takes 128 bytes and its reply, and a reply is never empty.
ANSWERS_MAX = SIZES["answer_bytes"] // 144


def flood_with_orders(desk: Desk, gateway_id: int) -> None:
    """Send more orders than a ring can hold; none of them works."""
    for number in range(ANSWERS_MAX + 1):
        reply = desk.order(gateway_id, 10_000 + number, side=0)
        assert orders_pb.CheckOrderResponse.FromString(reply).reason == t.REASON_CODE_SIDE_INVALID


def flood_with_executions(desk: Desk, gateway_id: int) -> None:
    for number in range(ANSWERS_MAX + 1):
        reply = desk.cancel(gateway_id, 10_000 + number, 2**63)
        reason = orders_pb.ReportExecutionResponse.FromString(reply).reason
        assert reason == t.REASON_CODE_RESERVATION_UNKNOWN


def test_orders_do_not_push_out_executions() -> None:
    desk = Desk()
    reservation_id = reservation_in(desk.order(1, 1))
    first = desk.fill(1, 1, reservation_id, 4)
    flood_with_orders(desk, 1)
    state = desk.engine.state_hash()
    assert desk.fill(1, 1, reservation_id, 4) == first
    assert desk.engine.state_hash() == state


def test_executions_do_not_push_out_orders_and_amendments() -> None:
    desk = Desk()
    order = desk.order(1, 1)
    amendment = desk.amendment(1, 1, reservation_in(order), 8)
    flood_with_executions(desk, 1)
    assert desk.order(1, 1) == order
    assert desk.amendment(1, 1, reservation_in(order), 8) == amendment


def test_a_flood_of_one_gateway_forgets_nothing_of_another() -> None:
    desk = Desk()
    order = desk.order(1, 1)
    fill = desk.fill(1, 1, reservation_in(order), 4)
    flood_with_orders(desk, 2)
    flood_with_executions(desk, 2)
    assert desk.order(1, 1) == order
    assert desk.fill(1, 1, reservation_in(order), 4) == fill


def test_a_ring_forgets_its_oldest_answers_first() -> None:
    desk = Desk()
    replies = {number: desk.order(1, number, side=0) for number in range(1, ANSWERS_MAX + 2)}
    revision = desk.engine.revision
    # The last of an older one would push out a newer: so the newest are asked for first.
    remembered = 0
    for number in reversed(replies):
        if desk.order(1, number, side=0) != replies[number]:
            break
        remembered += 1
    assert desk.engine.revision == revision + 1
    reply_bytes = max(map(len, replies.values()))
    assert remembered >= SIZES["answer_bytes"] // ((128 + reply_bytes + 15) // 16 * 16)
    assert remembered < len(replies)


def test_at_least_as_many_answers_fit_as_is_promised() -> None:
    """The figures of docs/decision.md: 224 bytes an answer without a detail."""
    desk = Desk(orders_max=10_000, answer_bytes=2 << 20)
    replies = [desk.order(1, number, side=0) for number in range(1, 9363)]
    revision = desk.engine.revision
    assert [desk.order(1, number, side=0) for number in range(1, 9363)] == replies
    assert desk.engine.revision == revision


def test_a_gateway_without_a_place_is_refused_and_nothing_changes() -> None:
    desk = Desk()
    reservation_id = reservation_in(desk.order(1, 1))
    desk.order(2, 1)
    before = (desk.engine.revision, desk.engine.state_hash(), desk.engine.answers_hash())
    order = orders_pb.CheckOrderResponse.FromString(desk.order(3, 1))
    amendment = orders_pb.CheckAmendmentResponse.FromString(
        desk.amendment(3, 1, reservation_id, 8)
    ).order
    fill = orders_pb.ReportExecutionResponse.FromString(desk.fill(3, 1, reservation_id, 1))
    for reply in (order, amendment, fill):
        assert reply.decision == t.DECISION_REJECTED
        assert reply.reason == t.REASON_CODE_GATEWAYS_FULL
    halted = desk.engine.set_trading_state(2, 3, t.TRADING_STATE_HALTED)
    assert halted == t.REASON_CODE_GATEWAYS_FULL
    after = (desk.engine.revision, desk.engine.state_hash(), desk.engine.answers_hash())
    assert after == before
    # What is only checked is not remembered, and needs no place.
    checked = desk.order(3, 2, mode=orders_pb.CHECK_MODE_CHECK_ONLY)
    assert orders_pb.CheckOrderResponse.FromString(checked).decision == t.DECISION_ACCEPTED


@pytest.mark.parametrize("state", [t.TRADING_STATE_HALTED, t.TRADING_STATE_REDUCE_ONLY])
def test_a_halted_gateway_has_a_place_and_keeps_it(state: int) -> None:
    desk = Desk()
    assert desk.engine.set_trading_state(2, 3, state) == t.REASON_CODE_NONE
    assert desk.engine.set_trading_state(2, 3, t.TRADING_STATE_NORMAL) == t.REASON_CODE_NONE
    assert desk.engine.trading_states() == []
    desk.order(1, 1)
    reply = orders_pb.CheckOrderResponse.FromString(desk.order(2, 1))
    assert reply.reason == t.REASON_CODE_GATEWAYS_FULL
    reservation_in(desk.order(3, 1))
