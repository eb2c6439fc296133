"""How much fits is a part of the state, and can be changed while the service runs."""

from typing import Any

import pytest

from riskd.reference import ReferenceEngine
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.differential.limit_streams import LimitStream
from tests.differential.streams import Command, Runner
from tests.differential.test_engine_against_reference import difference
from tests.unit.desk import SIZES, Desk, reservation_in


def everything(desk: Desk) -> tuple[int, str, str, dict[str, int]]:
    engine = desk.engine
    return engine.revision, engine.state_hash(), engine.answers_hash(), engine.capacities()


def reason_of(reply: bytes) -> int:
    return orders_pb.CheckOrderResponse.FromString(reply).reason


def test_capacities_are_those_of_the_constructor() -> None:
    assert Desk().engine.capacities() == SIZES


def test_a_full_table_that_grows_has_room_and_all_else_stays() -> None:
    desk = Desk(orders_max=2)
    first = desk.order(1, 1)
    desk.order(1, 2)
    assert reason_of(desk.order(1, 3)) == t.REASON_CODE_ORDERS_FULL
    revision, state, answers, sizes = everything(desk)
    assert desk.engine.set_capacities(orders_max=3) is True
    assert everything(desk) == (revision + 1, state, answers, sizes | {"orders_max": 3})
    reservation_in(desk.order(1, 4))
    # What was there before can still be found.
    assert desk.order(1, 1) == first
    amended = desk.amendment(1, 1, reservation_in(first), 8)
    decision = orders_pb.CheckAmendmentResponse.FromString(amended).order.decision
    assert decision == t.DECISION_ACCEPTED
    desk.cancel(1, 1, reservation_in(first))
    assert len(desk.engine.working_reservations(1, 0, 10)) == 2


def test_the_same_capacities_change_nothing() -> None:
    desk = Desk()
    before = everything(desk)
    same: dict[str, Any] = dict(SIZES)
    assert desk.engine.set_capacities(**same) is False
    assert desk.engine.set_capacities() is False
    assert everything(desk) == before


def test_a_table_can_shrink_to_what_is_in_use_and_not_below() -> None:
    desk = Desk(orders_max=10)
    reservations = [reservation_in(desk.order(1, number)) for number in range(1, 9)]
    for number in (0, 1, 3, 5, 6, 7):
        desk.cancel(1, number + 1, reservations[number])
    before = everything(desk)
    with pytest.raises(ValueError, match=r"^orders_max 1 is below the 2 orders in use$"):
        desk.engine.set_capacities(accounts_max=5, orders_max=1)
    assert everything(desk) == before
    assert desk.engine.set_capacities(orders_max=2) is True
    assert desk.engine.working_reservations(1, 0, 10) == [reservations[2], reservations[4]]
    assert reason_of(desk.order(1, 20)) == t.REASON_CODE_ORDERS_FULL
    desk.cancel(1, 20, reservations[4])
    reservation_in(desk.order(1, 21))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"accounts_max": 0}, "accounts_max 0 is not within 1 to 1073741824"),
        ({"orders_max": 2**30 + 1}, "orders_max 1073741825 is not within 1 to 1073741824"),
        ({"gateways_max": 65537}, "gateways_max 65537 is not within 1 to 65536"),
        ({"answer_bytes": 4080}, "answer_bytes 4080 is not within 4096 to 4294967296"),
        ({"answer_bytes": 4104}, "answer_bytes 4104 is not a multiple of 16"),
        ({"orders": 5}, "orders is not a capacity: accounts_max, positions_max"),
        ({"instruments_max": 0}, "instruments_max 0 is not within"),
    ],
)
def test_a_number_that_is_not_possible_is_refused(sizes: dict[str, Any], message: str) -> None:
    desk = Desk()
    before = everything(desk)
    with pytest.raises(ValueError, match=message):
        desk.engine.set_capacities(**sizes)
    assert everything(desk) == before


def test_too_little_memory_changes_nothing() -> None:
    desk = Desk()
    before = everything(desk)
    # More than any address space: 2^49 bytes.
    with pytest.raises(MemoryError):
        desk.engine.set_capacities(gateways_max=65536, answer_bytes=2**32)
    assert everything(desk) == before


def test_smaller_rings_keep_the_newest_answers() -> None:
    desk = Desk(answer_bytes=16384)
    replies = {number: desk.order(1, number, side=0) for number in range(1, 60)}
    fill = desk.cancel(1, 1, 2**63)
    assert desk.engine.set_capacities(answer_bytes=4096) is True
    revision = desk.engine.revision
    newest = range(60 - 4096 // 176, 60)
    assert max(len(reply) for reply in replies.values()) <= 48
    assert [desk.order(1, number, side=0) for number in newest] == [replies[n] for n in newest]
    assert desk.cancel(1, 1, 2**63) == fill
    assert desk.engine.revision == revision
    assert desk.order(1, 1, side=0) != replies[1]


@pytest.mark.parametrize("seed", range(2))
def test_moving_everything_changes_no_decision(seed: int) -> None:
    """Every table is moved, with free places in it, again and again in a stream."""
    stream = LimitStream(seed)
    mirror = Runner(ReferenceEngine(**stream.settings))
    commands: list[Command] = []
    for index in range(700):
        command = stream.next(mirror.engine)
        if index % 20 == 19:
            command = ("set_capacities", {"orders_max": stream.settings["orders_max"] + index % 40})
        commands.append(command)
        mirror.run(command)
    assert difference(stream.settings, commands) is None
