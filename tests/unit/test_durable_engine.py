"""An engine with a journal: what was acknowledged is there after a restart, and nothing else."""

import errno
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from riskd.core.engine import (
    METHOD_CHECK_ORDER,
    METHOD_GET_RESERVATION,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    SCOPE_GATEWAY,
    Engine,
    MalformedRequestError,
    ReplayError,
)
from riskd.core.journal import (
    Faults,
    Journal,
    JournalClosedError,
    JournalDamagedError,
    JournalFailedError,
    JournalFullError,
    scan,
)
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2

NOW_NS = 1_700_000_000_000_000_000
NONE = types_pb2.REASON_CODE_NONE
TIERS = [(0, 10_000_000, 5_000_000, 10_000)]


def new_engine() -> Engine:
    return Engine(accounts_max=16, positions_max=64, orders_max=256, answer_bytes=1 << 16)


@pytest.fixture
def open_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Open engines on one directory; what is still open is closed at the end."""
    engines: list[Engine] = []

    def start(**options: Any) -> Engine:
        for engine in engines:
            close(engine)
        engines.append(new_engine())
        engines[-1].open_journal(tmp_path / "journal", **options)
        return engines[-1]

    yield start
    for engine in engines:
        close(engine)


def close(engine: Engine) -> None:
    with suppress(JournalFailedError):
        engine.close_journal()


def define(engine: Engine) -> None:
    """Make asset 1, schedule 1, instrument 1 and account 7 with a mark."""
    assert engine.create_asset("USDT", 6) == (NONE, 1)
    assert engine.upsert_schedule("BTC", 1, TIERS) == (NONE, 1)
    assert engine.upsert_instrument("BTC-PERP", 1, 1, 1, 5, -1, 1, -3) == (NONE, 1)
    assert engine.create_account(7, 1, types_pb2.MARGIN_MODE_CROSS, 2000, 10**10) == NONE
    report = marks_pb.ReportMarksRequest(
        marks=[marks_pb.Mark(instrument_id=1, mark_price=120_000, time_ns=NOW_NS)]
    )
    engine.handle(METHOD_REPORT_MARKS, report.SerializeToString(), NOW_NS)


def order(client_order_id: int, **fields: Any) -> bytes:
    return orders_pb.CheckOrderRequest(
        account_id=7,
        instrument_id=1,
        client_order_id=client_order_id,
        side=types_pb2.SIDE_BUY,
        order_type=types_pb2.ORDER_TYPE_LIMIT,
        price_ticks=120_000,
        quantity_lots=10,
        gateway_id=3,
        **fields,
    ).SerializeToString()


def fill(reservation_id: int, execution_id: int) -> bytes:
    return orders_pb.ReportExecutionRequest(
        reservation_id=reservation_id,
        execution_id=execution_id,
        gateway_id=3,
        kind=orders_pb.EXECUTION_KIND_FILL,
        price_ticks=119_990,
        quantity_lots=4,
    ).SerializeToString()


def everything(engine: Engine) -> tuple[int, str, str]:
    return engine.revision, engine.state_hash(), engine.answers_hash()


def trade(engine: Engine) -> dict[tuple[int, bytes], bytes]:
    """Do one of each change; return the hot requests and their replies."""
    requests = [(METHOD_CHECK_ORDER, order(number)) for number in range(1, 20)]
    # One that does not fit the account: a reject is remembered too.
    too_large = orders_pb.CheckOrderRequest.FromString(order(20))
    too_large.quantity_lots = 10**9
    requests.append((METHOD_CHECK_ORDER, too_large.SerializeToString()))
    replies = {each: engine.handle(*each, NOW_NS) for each in requests}
    first = orders_pb.CheckOrderResponse.FromString(replies[requests[0]])
    assert first.decision == types_pb2.DECISION_ACCEPTED
    execution = (METHOD_REPORT_EXECUTION, fill(first.reservation_id, 1))
    replies[execution] = engine.handle(*execution, NOW_NS + 1)
    assert engine.adjust_collateral(7, 1, 500, False, NOW_NS, actor="tester")[0] == NONE
    assert engine.set_leverage(7, 1, 1500, False, NOW_NS)[0] == NONE
    assert engine.set_trading_state(SCOPE_GATEWAY, 9, types_pb2.TRADING_STATE_HALTED) == NONE
    return replies


@pytest.mark.parametrize("durability", ["process", "machine"])
def test_everything_is_there_after_a_restart(
    open_engine: Callable[..., Engine], durability: str
) -> None:
    engine = open_engine(durability=durability)
    define(engine)
    replies = trade(engine)
    before = everything(engine)
    lines = engine.state_lines()
    again = open_engine(durability=durability)
    assert again.state_lines() == lines
    assert everything(again) == before
    for request, reply in replies.items():
        assert again.handle(*request, NOW_NS + 5) == reply
    assert everything(again) == before
    # And on from there.
    assert again.create_account(8, 1, types_pb2.MARGIN_MODE_CROSS, 2000, 0) == NONE
    after = everything(again)
    assert everything(open_engine()) == after


def test_journal_and_memory_alone_decide_alike(open_engine: Callable[..., Engine]) -> None:
    durable, memory = open_engine(), new_engine()
    define(durable)
    define(memory)
    assert trade(durable) == trade(memory)
    assert everything(durable) == everything(memory)


def test_each_change_is_one_record_and_what_changes_nothing_is_none(
    open_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = open_engine()
    define(engine)
    engine.handle(METHOD_CHECK_ORDER, order(1), NOW_NS)
    revision = engine.revision
    engine.handle(METHOD_CHECK_ORDER, order(1), NOW_NS)
    engine.handle(METHOD_CHECK_ORDER, order(2, mode=orders_pb.CHECK_MODE_CHECK_ONLY), NOW_NS)
    engine.handle(
        METHOD_GET_RESERVATION,
        orders_pb.GetReservationRequest(reservation_id=revision).SerializeToString(),
        NOW_NS,
    )
    with pytest.raises(MalformedRequestError):
        engine.handle(METHOD_CHECK_ORDER, b"\xff", NOW_NS)
    engine.create_asset("USDT", 6)
    engine.adjust_collateral(7, 1, 500, True, NOW_NS)
    engine.adjust_collateral(7, 1, 0, False, NOW_NS)
    assert engine.revision == revision
    engine.adjust_collateral(7, 1, 500, False, NOW_NS + 9, actor="tester")
    engine.close_journal()
    records = list(scan(tmp_path / "journal"))
    # The first one is of the empty book.
    assert [record[0] - 1 for record in records] == [record[2] for record in records]
    assert [record[3] for record in records] == [64] * 5 + [METHOD_REPORT_MARKS, 1, 64]
    assert records[6][4][8:] == order(1)
    assert records[7][1] == NOW_NS + 9
    text = b'{"actor":"tester","arguments":{"account_id":7,"amount":500,"asset_id":1},'
    assert records[7][4] == text + b'"change":"adjust_collateral"}'


def test_time_never_goes_back_behind_the_last_change(
    open_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = open_engine(now_ns=5)
    define(engine)
    engine.handle(METHOD_CHECK_ORDER, order(1), NOW_NS + 100)
    engine.handle(METHOD_CHECK_ORDER, order(2), NOW_NS)
    again = open_engine()
    again.handle(METHOD_CHECK_ORDER, order(3), NOW_NS)
    again.set_trading_state(SCOPE_GATEWAY, 9, types_pb2.TRADING_STATE_HALTED)
    again.close_journal()
    times = [record[1] for record in scan(tmp_path / "journal")]
    assert times == [5, 5, 5, 5, 5, NOW_NS] + [NOW_NS + 100] * 4


def write_journal(directory: Path, *records: tuple[int, int, bytes]) -> None:
    with Journal.open(directory) as journal:
        for kind, revision, payload in records:
            journal.append(kind, NOW_NS, revision, payload)


def change(change: str, /, **arguments: Any) -> bytes:
    return json.dumps({"actor": "", "arguments": arguments, "change": change}).encode()


def test_arguments_that_an_old_journal_lacks_have_their_defaults(tmp_path: Path) -> None:
    write_journal(
        tmp_path,
        (64, 1, change("create_asset", symbol="USDT", scale=6)),
        (64, 2, change("upsert_schedule", name="BTC", asset_id=1, tiers=TIERS)),
    )
    engine = new_engine()
    assert engine.replay(tmp_path).records == 2
    assert engine.schedules()[0].notional_max == 0


@pytest.mark.parametrize(
    ("kind", "revision", "payload", "reason"),
    [
        (64, 1, change("make_coffee"), "make_coffee"),
        (64, 1, change("create_asset", symbol="USDT", scale=6, colour=1), "colour"),
        (64, 1, b"{", "not known"),
        (64, 2, change("create_asset", symbol="USDT", scale=6), "revision 1, recorded is 2"),
        (63, 1, b"x" * 20, "kind 63"),
        (1, 1, b"x", "no head"),
        (1, 1, bytes(8) + b"\xff", "malformed"),
        (1, 1, bytes(8) + b"\x08\x07", "another reply"),
    ],
)
def test_a_record_that_cannot_be_is_refused_with_its_place(
    tmp_path: Path, kind: int, revision: int, payload: bytes, reason: str
) -> None:
    write_journal(tmp_path, (kind, revision, payload))
    engine = new_engine()
    with pytest.raises(ReplayError, match=reason) as caught:
        engine.open_journal(tmp_path)
    assert caught.value.sequence == 1
    assert caught.value.offset == 40
    assert caught.value.file.endswith("00000000000000000001.journal")
    # Half a state is no state, and the directory is free again.
    with pytest.raises(JournalClosedError):
        engine.assets()
    write_journal(tmp_path)


def test_another_reply_than_the_recorded_one_is_refused_unless_accepted(
    open_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = open_engine()
    define(engine)
    engine.handle(METHOD_CHECK_ORDER, order(1), NOW_NS)
    engine.close_journal()
    records = list(scan(tmp_path / "journal"))
    other = tmp_path / "other"
    with Journal.open(other) as journal:
        for sequence, time_ns, revision, kind, payload in records:
            # The checksum of another reply stands in the last.
            flipped = bytes([payload[0] ^ 1]) + payload[1:] if sequence == 7 else payload
            journal.append(kind, time_ns, revision, flipped)
    with pytest.raises(ReplayError, match="another reply") as caught:
        new_engine().open_journal(other)
    assert caught.value.sequence == 7
    accepting = new_engine()
    replay = accepting.open_journal(other, accept_differences=True)
    assert (replay.records, replay.differences, replay.first_difference) == (7, 1, 7)
    accepting.close_journal()


def test_capacities_are_part_of_the_state(
    open_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = open_engine()
    define(engine)
    before = everything(engine)
    engine.close_journal()
    larger = Engine(accounts_max=32, positions_max=64, orders_max=256, answer_bytes=1 << 16)
    larger.open_journal(tmp_path / "journal")
    assert larger.revision == before[0] + 1
    assert larger.capacities()["accounts_max"] == 32
    larger.close_journal()
    # Read back with no settings at all.
    alone = Engine()
    alone.replay(tmp_path / "journal")
    assert alone.capacities() == larger_capacities(alone)
    smaller = Engine(accounts_max=16, positions_max=64, orders_max=256, answer_bytes=1 << 16)
    smaller.open_journal(tmp_path / "journal")
    smaller.create_account(8, 1, types_pb2.MARGIN_MODE_CROSS, 2000, 0)
    smaller.close_journal()
    too_small = Engine(accounts_max=1, positions_max=64, orders_max=256, answer_bytes=1 << 16)
    with pytest.raises(ValueError, match="accounts_max"):
        too_small.open_journal(tmp_path / "journal")


def larger_capacities(engine: Engine) -> dict[str, int]:
    sizes = {"accounts_max": 32, "positions_max": 64, "orders_max": 256, "answer_bytes": 1 << 16}
    return engine.capacities() | sizes


def test_damage_refuses_to_start_and_a_torn_tail_is_cut(
    open_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = open_engine()
    define(engine)
    before = everything(engine)
    engine.handle(METHOD_CHECK_ORDER, order(1), NOW_NS)
    engine.close_journal()
    (file,) = (tmp_path / "journal").glob("*.journal")
    content = file.read_bytes()
    file.write_bytes(content[:-3])
    torn = new_engine()
    replay = torn.open_journal(tmp_path / "journal")
    assert replay.torn is not None
    assert everything(torn) == before
    torn.close_journal()
    file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(JournalDamagedError):
        new_engine().open_journal(tmp_path / "journal")


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_nothing_is_answered_after_the_disk_failed(
    open_engine: Callable[..., Engine], call: Any
) -> None:
    faults = Faults()
    engine = open_engine(faults=faults)
    define(engine)
    before = everything(engine)
    durable = engine.durable_sequence
    faults.fail(call, faults.count(call) + 1, errno.EIO)
    with pytest.raises(JournalFailedError, match=call):
        engine.handle(METHOD_CHECK_ORDER, order(1), NOW_NS)
    calls: list[Callable[[], object]] = [
        lambda: engine.handle(METHOD_CHECK_ORDER, order(2), NOW_NS),
        lambda: engine.submit(METHOD_CHECK_ORDER, order(2), NOW_NS),
        lambda: engine.create_asset("EUR", 2),
        lambda: engine.account(7),
        lambda: engine.revision,
        engine.state_hash,
        lambda: engine.max_order_lots(7, 1, 1, 1, 120_000, NOW_NS),
    ]
    for each in calls:
        with pytest.raises(JournalFailedError):
            each()
    assert engine.durable_sequence == durable
    again = open_engine()
    # What was not acknowledged may be there or not; here the order was not written at all, or
    # written and not synced.
    assert again.revision - before[0] == (0 if call == "write" else 1)


def test_failure_wakes_those_who_wait(open_engine: Callable[..., Engine]) -> None:
    faults = Faults()
    engine = open_engine(faults=faults)
    define(engine)
    faults.hold("fdatasync")
    faults.fail("fdatasync", faults.count("fdatasync") + 1, errno.EIO)
    errors: list[Exception] = []

    def check(number: int) -> None:
        try:
            engine.handle(METHOD_CHECK_ORDER, order(number), NOW_NS)
        except JournalFailedError as error:
            errors.append(error)

    threads = [threading.Thread(target=check, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    faults.release("fdatasync")
    for thread in threads:
        thread.join(60)
    assert len(errors) == 8


def test_replies_wait_for_what_they_show(open_engine: Callable[..., Engine]) -> None:
    faults = Faults()
    engine = open_engine(faults=faults)
    define(engine)
    durable = engine.durable_sequence
    faults.hold("fdatasync")
    reply, sequence = engine.submit(METHOD_CHECK_ORDER, order(1), NOW_NS)
    assert sequence == durable + 1
    # A repeat and a check alone wait as long: they show the order.
    assert engine.submit(METHOD_CHECK_ORDER, order(1), NOW_NS) == (reply, sequence)
    only = order(2, mode=orders_pb.CHECK_MODE_CHECK_ONLY)
    assert engine.submit(METHOD_CHECK_ORDER, only, NOW_NS)[1] == sequence
    done = threading.Event()

    def read() -> None:
        engine.account(7)
        assert engine.durable_sequence == sequence
        done.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert engine.durable_sequence == durable
    assert not done.is_set()
    faults.release("fdatasync")
    reader.join(60)
    assert done.is_set()


def test_full_journal_refuses_and_nothing_has_happened(
    open_engine: Callable[..., Engine],
) -> None:
    faults = Faults()
    engine = open_engine(faults=faults, buffer_bytes=4096, append_wait_ms_max=1)
    define(engine)
    faults.hold("fdatasync")
    synced = faults.count("fdatasync")
    accepted = {1: engine.submit(METHOD_CHECK_ORDER, order(1), NOW_NS)}
    while faults.count("fdatasync") == synced:
        pass  # From now on only one buffer has room.
    refused = 0
    for number in range(2, 200):
        try:
            accepted[number] = engine.submit(METHOD_CHECK_ORDER, order(number), NOW_NS)
        except JournalFullError:
            refused = number
            break
    assert refused > 10
    with pytest.raises(JournalFullError):
        engine.handle(METHOD_CHECK_ORDER, order(refused), NOW_NS)
    with pytest.raises(JournalFullError):
        engine.create_asset("EUR", 2)
    faults.release("fdatasync")
    # A read waits until all is on disk, and then there is room.
    assert engine.account(7) is not None
    reply = orders_pb.CheckOrderResponse.FromString(
        engine.handle(METHOD_CHECK_ORDER, order(refused), NOW_NS)
    )
    last, _ = accepted[refused - 1]
    # The refused calls took no revision.
    assert reply.revision == orders_pb.CheckOrderResponse.FromString(last).revision + 1
    assert [asset.symbol for asset in engine.assets()] == ["USDT"]
    before = everything(engine)
    assert everything(open_engine()) == before


def test_request_beyond_a_record_is_malformed(open_engine: Callable[..., Engine]) -> None:
    # A field may come many times; the last one counts.
    request = b"\x08\x07" * (1 << 19)
    for engine in (open_engine(), new_engine()):
        with pytest.raises(MalformedRequestError, match="exceeds"):
            engine.handle(METHOD_CHECK_ORDER, request, NOW_NS)


def test_only_a_new_engine_opens_a_journal_and_only_one_at_a_time(
    open_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = open_engine()
    with pytest.raises(ValueError, match="new engine"):
        engine.open_journal(tmp_path / "second")
    with pytest.raises(BlockingIOError):
        new_engine().open_journal(tmp_path / "journal")
    used = new_engine()
    used.create_asset("USDT", 6)
    with pytest.raises(ValueError, match="new engine"):
        used.open_journal(tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_closed_engine_answers_nothing(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    define(engine)
    engine.close_journal()
    engine.close_journal()
    with pytest.raises(JournalClosedError):
        engine.handle(METHOD_CHECK_ORDER, order(1), NOW_NS)
    with pytest.raises(JournalClosedError):
        engine.assets()


def test_engine_without_a_journal_keeps_nothing() -> None:
    engine = new_engine()
    define(engine)
    assert engine.journal is None
    assert engine.durable_sequence == 0
    assert engine.submit(METHOD_CHECK_ORDER, order(1), NOW_NS)[1] == 0
    engine.close_journal()
    assert engine.revision == 6
