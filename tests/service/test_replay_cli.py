"""`riskd replay`: the flow of a journal under other limits and rules, decided by hand here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from riskd.cli import main
from riskd.core.engine import (
    METHOD_BATCH_CHECK_ORDERS,
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    Engine,
)
from riskd.core.journal import Journal, scan
from riskd.journal import segments_of
from riskd.snapshots import take_snapshot
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as pb
from riskd.v1 import types_pb2

Capture = pytest.CaptureFixture[str]

NOW_NS = 1_700_000_000_000_000_001
CAPACITIES = {"accounts_max": 16, "positions_max": 64, "orders_max": 256, "answer_bytes": 1 << 16}


RULEBOOK = """
format = 1
name = "strict"
title = "As the desk, without leverage"
source = "synthetic"
as_of = 2026-01-01

[asset.USDT]
scale = 6
source = "synthetic"
as_of = 2026-01-01

[schedule.BTC]
settlement_asset = "USDT"
source = "synthetic"
as_of = 2026-01-01
tier = [
    { floor = 0, initial_rate = 1, maintenance_rate = 0.5, deduction = 0, max_leverage = 1 },
]

[instrument.BTC-PERP]
kind = "linear_perpetual"
settlement_asset = "USDT"
margin_schedule = "BTC"
tick_size = "0.5"
lot_size = "0.001"
source = "synthetic"
as_of = 2026-01-01
"""


class Desk:
    """A book with a journal: asset USDT, BTC-PERP at 60000, account 7 with 10000 USDT."""

    def __init__(self, directory: Path, **journal: Any) -> None:
        self.engine = Engine(**CAPACITIES)
        self.engine.open_journal(directory, **journal)
        self.now_ns = NOW_NS
        self.engine.create_asset("USDT", 6, now_ns=NOW_NS)
        self.engine.upsert_schedule("BTC", 1, [(0, 10_000_000, 5_000_000, 10_000)])
        self.engine.upsert_instrument("BTC-PERP", 1, 1, 1, 5, -1, 1, -3)
        self.engine.create_account(7, 1, types_pb2.MARGIN_MODE_CROSS, 2000, 10**10)
        mark = marks_pb.Mark(instrument_id=1, mark_price=120_000, time_ns=NOW_NS)
        self.handle(METHOD_REPORT_MARKS, marks_pb.ReportMarksRequest(marks=[mark]))
        self.ids = 0

    def handle(self, method: int, request: Any) -> bytes:
        self.now_ns += 1_000_000
        return self.engine.handle(method, request.SerializeToString(), self.now_ns)

    def request(self, lots: int, **values: Any) -> pb.CheckOrderRequest:
        self.ids += 1
        fields = {
            "account_id": 7,
            "instrument_id": 1,
            "client_order_id": self.ids,
            "side": types_pb2.SIDE_BUY,
            "order_type": types_pb2.ORDER_TYPE_LIMIT,
            "price_ticks": 120_000,
            "quantity_lots": lots,
            "gateway_id": 3,
        }
        return pb.CheckOrderRequest(**fields | values)

    def order(self, lots: int, **values: Any) -> pb.CheckOrderResponse:
        reply = self.handle(METHOD_CHECK_ORDER, self.request(lots, **values))
        return pb.CheckOrderResponse.FromString(reply)

    def batch(self, *lots: int) -> pb.BatchCheckOrdersResponse:
        request = pb.BatchCheckOrdersRequest(orders=[self.request(each) for each in lots])
        reply = self.handle(METHOD_BATCH_CHECK_ORDERS, request)
        return pb.BatchCheckOrdersResponse.FromString(reply)

    def amend(self, reservation_id: int, lots: int) -> pb.CheckOrderResponse:
        self.ids += 1
        request = pb.CheckAmendmentRequest(
            gateway_id=3,
            reservation_id=reservation_id,
            client_order_id=self.ids,
            price_ticks=120_000,
            quantity_lots=lots,
        )
        reply = self.handle(METHOD_CHECK_AMENDMENT, request)
        return pb.CheckAmendmentResponse.FromString(reply).order

    def fill(self, reservation_id: int, lots: int) -> pb.ReportExecutionResponse:
        self.ids += 1
        request = pb.ReportExecutionRequest(
            gateway_id=3,
            execution_id=self.ids,
            reservation_id=reservation_id,
            kind=pb.EXECUTION_KIND_FILL,
            price_ticks=120_000,
            quantity_lots=lots,
        )
        reply = self.handle(METHOD_REPORT_EXECUTION, request)
        return pb.ReportExecutionResponse.FromString(reply)

    def limit(self, kind: int, value: int) -> None:
        of_instrument = 1 if kind == types_pb2.LIMIT_KIND_POSITION_LOTS_MAX else 0
        hard = types_pb2.LIMIT_ACTION_HARD
        reason = self.engine.set_limit(
            types_pb2.LIMIT_SCOPE_ACCOUNT, 7, of_instrument, kind, value, 0, hard, self.now_ns
        )
        assert reason == types_pb2.REASON_CODE_NONE


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def desk(directory: Path) -> Iterator[Desk]:
    desk = Desk(directory)
    yield desk
    desk.engine.close_journal()


def replay(capsys: Capture, directory: Path, *options: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the differences and the totals."""
    assert main(["replay", str(directory), "--json", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    *differences, totals = map(json.loads, captured.out.splitlines())
    return differences, totals


def limits_file(tmp_path: Path, kind: str, value: float, **values: Any) -> str:
    table = {"account": 7, "kind": kind, "value": value} | values
    lines = [f"{key} = {json.dumps(each)}" for key, each in table.items()]
    path = tmp_path / "limits.toml"
    path.write_text("\n".join(["[[limit]]", *lines]))
    return str(path)


def trade(desk: Desk) -> None:
    """Every kind of record, a limit that refuses an order, and ids that come again later."""
    desk.limit(types_pb2.LIMIT_KIND_ORDER_QUANTITY_MAX, 50)
    small, large = desk.order(10), desk.order(40)
    assert desk.order(60).reason == types_pb2.REASON_CODE_LIMIT_ORDER_QUANTITY_MAX
    assert desk.amend(small.reservation_id, 20).decision == types_pb2.DECISION_ACCEPTED
    assert [each.reason for each in desk.batch(5, 45).decisions] == [types_pb2.REASON_CODE_NONE] * 2
    assert desk.fill(large.reservation_id, 15).decision == types_pb2.DECISION_ACCEPTED
    desk.engine.cancel_orders(3, 7, 0, 0, 0, [large.reservation_id], False, desk.now_ns)
    assert desk.fill(large.reservation_id, 25).decision == types_pb2.DECISION_ACCEPTED
    desk.order(30, side=types_pb2.SIDE_SELL)


def test_without_other_limits_nothing_differs(desk: Desk, directory: Path, capsys: Capture) -> None:
    trade(desk)
    differences, totals = replay(capsys, directory)
    # 4 orders, an amendment, a batch of 2, 2 fills.
    assert differences == []
    assert (totals["decisions"], totals["differences"], totals["without_order"]) == (9, 0, 0)
    assert totals["totals"] == []
    assert main(["replay", str(directory)]) == 0
    assert capsys.readouterr().out == (
        "0 of 9 decisions differ; 0 amendments and executions without an order\n"
    )


def test_tighter_limit_is_shown_with_its_numbers(
    desk: Desk, directory: Path, tmp_path: Path, capsys: Capture
) -> None:
    trade(desk)
    # In units of the underlying: 0.03 is 30 lots.
    file = limits_file(tmp_path, "ORDER_QUANTITY_MAX", 0.03, instrument="BTC-PERP")
    differences, totals = replay(capsys, directory, "--limits", file)
    large, leg = differences
    assert large["client_order_id"] == 2
    assert (large["account_id"], large["instrument"], large["gateway_id"]) == (7, "BTC-PERP", 3)
    assert (large["side"], large["lots"], large["price_ticks"]) == ("buy", 40, 120_000)
    assert large["before"] == {"decision": "ACCEPTED", "reason": "NONE"}
    refused = {
        "decision": "REJECTED",
        "reason": "LIMIT_ORDER_QUANTITY_MAX",
        "limit": 30,
        "use": 0,
        "scope": "ACCOUNT",
        "scope_id": 7,
    }
    assert large["after"] == refused | {"order_use": 40}
    assert (leg["kind"], leg["lots"]) == ("BatchCheckOrders", 45)
    # In the view of the request: without numbers.
    assert leg["after"] == {"decision": "REJECTED", "reason": "LIMIT_ORDER_QUANTITY_MAX"}
    # Both fills are of the order that was not accepted.
    assert (totals["differences"], totals["without_order"]) == (2, 2)
    assert totals["totals"] == [
        {"before": "ACCEPTED NONE", "after": "REJECTED LIMIT_ORDER_QUANTITY_MAX", "count": 2}
    ]
    assert main(["replay", str(directory), "--limits", file]) == 0
    line, *_ = capsys.readouterr().out.splitlines()
    assert line.endswith(
        " CheckOrder account 7 BTC-PERP gateway 3 id 2 buy 40 lots at 120000 ticks:"
        " ACCEPTED -> REJECTED LIMIT_ORDER_QUANTITY_MAX limit 30 use 0 order 40 of ACCOUNT 7"
    )


def test_orders_that_go_on_are_followed_under_their_new_ids(
    desk: Desk, directory: Path, tmp_path: Path, capsys: Capture
) -> None:
    # The recorded limit refuses at step 5, which raises the revision; the other one lets 2 pass, so
    # that all later reservations have other ids.
    desk.limit(types_pb2.LIMIT_KIND_POSITION_LOTS_MAX, 25)
    desk.order(30)
    kept = desk.order(20)
    desk.fill(kept.reservation_id, 5)
    desk.amend(kept.reservation_id, 25)
    desk.fill(kept.reservation_id, 20)
    desk.order(1)
    file = limits_file(tmp_path, "POSITION_LOTS_MAX", 0.03, instrument="BTC-PERP")
    differences, totals = replay(capsys, directory, "--limits", file)
    first, last = differences
    # The first passes alone and is released at once: were it held, 20 more would not pass.
    assert (first["lots"], first["before"]["limit"], first["after"]["decision"]) == (
        30,
        25,
        "ACCEPTED",
    )
    # 25 are held: the fills went on, under another id.
    assert last["before"] == {
        "decision": "REJECTED",
        "reason": "LIMIT_POSITION_LOTS_MAX",
        "limit": 25,
        "use": 25,
        "order_use": 1,
        "scope": "ACCOUNT",
        "scope_id": 7,
    }
    assert totals["without_order"] == 0


def test_limit_of_a_later_account_stands_from_its_first_order(
    desk: Desk, directory: Path, tmp_path: Path, capsys: Capture
) -> None:
    desk.order(10)
    desk.engine.create_account(8, 1, types_pb2.MARGIN_MODE_CROSS, 2000, 10**10)
    desk.order(10, account_id=8)
    file = limits_file(tmp_path, "ORDER_QUANTITY_MAX", 0.005, instrument="BTC-PERP", account=8)
    differences, _ = replay(capsys, directory, "--limits", file)
    assert [each["account_id"] for each in differences] == [8]


def test_other_margin_rules(desk: Desk, directory: Path, tmp_path: Path, capsys: Capture) -> None:
    # A lot is 60 USDT, 10000 USDT are there: 2000 lots need 6000 at 20x, 120000 at 1x.
    desk.order(2000)
    desk.order(100)
    rulebook = tmp_path / "strict.toml"
    rulebook.write_text(RULEBOOK)
    differences, totals = replay(capsys, directory, "--rulebook", str(rulebook))
    assert [(each["lots"], each["after"]["reason"]) for each in differences] == [
        (2000, "MARGIN_INSUFFICIENT")
    ]
    assert totals["decisions"] == 2
    assert main(["replay", str(directory), "--rulebook", str(tmp_path / "no.toml")]) == 1
    assert "no.toml" in capsys.readouterr().err


COLLATERAL = """
[asset.BTC]
scale = 8
source = "synthetic"
as_of = 2026-01-01

[collateral.BTC]
index = "BTC-PERP"
haircut = [{ floor = "0", asset_weight = "0.1" }]
source = "synthetic"
as_of = 2026-01-01
"""


def test_collateral_of_a_rulebook_stands_when_the_journal_defines_it_again(
    desk: Desk, directory: Path, tmp_path: Path, capsys: Capture
) -> None:
    whole = [(0, 10**9)]
    desk.engine.create_asset("BTC", 8)
    assert desk.engine.define_collateral(2, 1, 1, whole) == types_pb2.REASON_CODE_NONE
    desk.engine.adjust_collateral(7, 2, 10**8, False, desk.now_ns)
    desk.order(1)
    assert desk.engine.define_collateral(2, 1, 1, whole) == types_pb2.REASON_CODE_NONE
    # 10000 USDT and a coin of 60000; a lot needs 3.
    desk.order(10_000)
    book = RULEBOOK.replace("format = 1", "format = 2").replace(
        "max_leverage = 1 ", "max_leverage = 20 "
    )
    book = book.replace(
        "initial_rate = 1, maintenance_rate = 0.5", "initial_rate = 0.05, maintenance_rate = 0.01"
    )
    file = tmp_path / "coins.toml"
    file.write_text(book + COLLATERAL)
    differences, totals = replay(capsys, directory, "--rulebook", str(file))
    assert [(each["lots"], each["after"]["reason"]) for each in differences] == [
        (10_000, "MARGIN_INSUFFICIENT")
    ]
    assert totals["decisions"] == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"account": 9}, "limit[0].account = 9: the journal has none"),
        ({"instrument": "ETH-PERP"}, "limit[0].instrument = 'ETH-PERP': the journal has none"),
        ({"value": -1}, "limit[0].value"),
        ({"kind": "SPEED"}, "limit[0].kind = 'SPEED': must be one of"),
    ],
)
def test_limits_that_cannot_be_are_named(
    desk: Desk,
    directory: Path,
    tmp_path: Path,
    capsys: Capture,
    values: dict[str, Any],
    message: str,
) -> None:
    desk.order(10)
    kind = values.pop("kind", "ORDER_QUANTITY_MAX")
    value = values.pop("value", 1)
    file = limits_file(tmp_path, kind, value, **{"instrument": "BTC-PERP"} | values)
    assert main(["replay", str(directory), "--limits", file]) == 1
    error = capsys.readouterr().err
    assert file in error
    assert message in error.replace('"', "'")


def test_journal_that_begins_with_a_snapshot(
    directory: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Its state stands, its limits do not."""
    desk = Desk(directory, durability="process", segment_bytes=40 + 4096, buffer_bytes=4096)
    desk.limit(types_pb2.LIMIT_KIND_ORDER_QUANTITY_MAX, 50)
    kept = desk.order(20)
    while len(segments_of(directory)) < 3:
        desk.order(60)
    taken = take_snapshot(directory, kept=1)
    assert taken is not None
    assert taken.removed
    desk.fill(kept.reservation_id, 20)
    desk.order(55)
    desk.order(45)
    file = limits_file(tmp_path, "ORDER_QUANTITY_MAX", 0.04, instrument="BTC-PERP")
    differences, totals = replay(capsys, directory, "--limits", file)
    assert [each["lots"] for each in differences] == [45]
    assert totals["without_order"] == 0
    assert replay(capsys, directory)[1]["differences"] == 0
    desk.engine.close_journal()


def test_reply_of_another_version_is_told(directory: Path, capsys: Capture) -> None:
    desk = Desk(directory)
    desk.order(10)
    desk.engine.close_journal()
    other = directory.with_name("other")
    with Journal.open(other) as journal:
        for _, time_ns, revision, kind, payload in scan(directory):
            content = bytes([payload[0] ^ 1]) + payload[1:] if kind == 1 else payload
            journal.append(kind=kind, time_ns=time_ns, revision=revision, payload=content)
    assert main(["replay", str(other)]) == 0
    captured = capsys.readouterr()
    assert "1 replies of this version are not the recorded ones" in captured.err
    assert "0 of 1 decisions differ" in captured.out


def test_missing_directory(tmp_path: Path, capsys: Capture) -> None:
    assert main(["replay", str(tmp_path / "no")]) == 1
    assert str(tmp_path / "no") in capsys.readouterr().err
