"""`riskd journal` on a journal that an engine has written, closed and open."""

import json
import sys
from pathlib import Path

import pytest
from pyarrow import parquet  # type: ignore[import-untyped]

from riskd.cli import main
from riskd.core.engine import METHOD_CHECK_ORDER, METHOD_REPORT_MARKS, Engine
from riskd.core.journal import Journal, scan
from riskd.journal import Entries, RecordError
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2

Capture = pytest.CaptureFixture[str]

NOW_NS = 1_700_000_000_000_000_001


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A journal of 9 records: the book, four definitions, a mark, three orders."""
    path = tmp_path / "journal"
    engine = Engine(accounts_max=16, positions_max=64, orders_max=256, answer_bytes=1 << 16)
    engine.open_journal(path)
    engine.create_asset("USDT", 6, now_ns=NOW_NS, actor="ipv4:10.0.0.1:5")
    engine.upsert_schedule("BTC", 1, [(0, 10_000_000, 5_000_000, 10_000)])
    engine.upsert_instrument("BTC-PERP", 1, 1, 1, 5, -1, 1, -3)
    engine.create_account(7, 1, types_pb2.MARGIN_MODE_CROSS, 2000, 10**10)
    mark = marks_pb.Mark(instrument_id=1, mark_price=120_000, time_ns=NOW_NS)
    report = marks_pb.ReportMarksRequest(marks=[mark])
    engine.handle(METHOD_REPORT_MARKS, report.SerializeToString(), NOW_NS)
    for number in (1, 2, 3):
        order = orders_pb.CheckOrderRequest(
            account_id=7 if number < 3 else 8,
            instrument_id=1,
            client_order_id=number,
            side=types_pb2.SIDE_SELL,
            order_type=types_pb2.ORDER_TYPE_LIMIT,
            price_ticks=120_000,
            quantity_lots=10,
            gateway_id=number,
        )
        engine.handle(METHOD_CHECK_ORDER, order.SerializeToString(), NOW_NS)
    (path / "hash").write_text(engine.state_hash())
    engine.close_journal()
    return path


def test_verify_says_what_the_state_is(directory: Path, capsys: Capture) -> None:
    assert main(["journal", "verify", str(directory), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["state_hash"] == (directory / "hash").read_text()
    assert (figures["records"], figures["revision"], figures["differences"]) == (9, 8, 0)
    assert figures["torn"] == "no"


def test_verify_works_while_the_journal_is_written(directory: Path, capsys: Capture) -> None:
    engine = Engine(accounts_max=16, positions_max=64, orders_max=256, answer_bytes=1 << 16)
    engine.open_journal(directory)
    engine.create_account(9, 1, types_pb2.MARGIN_MODE_CROSS, 2000, 0)
    assert main(["journal", "verify", str(directory)]) == 0
    assert engine.state_hash() in capsys.readouterr().out
    engine.close_journal()


def test_damage_is_1_with_file_and_byte(directory: Path, capsys: Capture) -> None:
    (file,) = directory.glob("*.journal")
    content = bytearray(file.read_bytes())
    content[90] ^= 1
    file.write_bytes(content)
    for action in (["verify"], ["inspect"], ["export"]):
        target = [str(directory / "x.parquet")] if action == ["export"] else []
        assert main(["journal", *action, str(directory), *target]) == 1
        assert f"{file} at byte 40: " in capsys.readouterr().err
    assert not list(directory.glob("x.parquet*"))


def test_another_reply_is_1_with_its_record(
    directory: Path, tmp_path: Path, capsys: Capture
) -> None:
    with Journal.open(tmp_path / "other") as journal:
        for sequence, time_ns, revision, kind, payload in scan(directory):
            flipped = bytes([payload[0] ^ 1]) + payload[1:] if sequence == 8 else payload
            journal.append(kind, time_ns, revision, flipped)
    assert main(["journal", "verify", str(tmp_path / "other")]) == 1
    assert "1 replies are not the recorded ones, the first at record 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("filters", "sequences"),
    [
        ([], list(range(1, 10))),
        (["--account", "7"], [5, 7, 8]),
        (["--gateway", "2"], [8]),
        (["--kind", "CheckOrder"], [7, 8, 9]),
        (["--kind", "create_asset", "--kind", "ReportMarks"], [2, 6]),
        (["--revisions", "2-4"], [3, 4, 5]),
        (["--revisions", "7-"], [8, 9]),
        (["--revisions", "3"], [4]),
        (["--account", "7", "--limit", "2"], [5, 7]),
        (["--account", "70"], []),
    ],
)
def test_inspect_lists_what_is_asked_for(
    directory: Path, capsys: Capture, filters: list[str], sequences: list[int]
) -> None:
    assert main(["journal", "inspect", str(directory), "--json", *filters]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["sequence"] for line in lines] == sequences
    assert main(["journal", "inspect", str(directory), *filters]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(sequences)


def test_inspect_shows_who_when_and_what(directory: Path, capsys: Capture) -> None:
    assert main(["journal", "inspect", str(directory), "--revisions", "1"]) == 0
    expected = (
        "       2 r1 2023-11-14T22:13:20.000000001Z create_asset ipv4:10.0.0.1:5"
        ' {"scale":6,"symbol":"USDT"}\n'
    )
    assert capsys.readouterr().out == expected
    assert main(["journal", "inspect", str(directory), "--gateway", "1", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)["fields"]
    assert (fields["account_id"], fields["side"], fields["quantity_lots"]) == (
        "7", "SIDE_SELL", "10",
    )  # fmt: skip


def test_torn_tail_is_told(directory: Path, capsys: Capture) -> None:
    (file,) = directory.glob("*.journal")
    file.write_bytes(file.read_bytes()[:-1])
    assert main(["journal", "inspect", str(directory)]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 8
    assert f"{file} at byte " in printed.err


def test_export_has_every_record(directory: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "journal.parquet"
    assert main(["journal", "export", str(directory), str(file)]) == 0
    assert "9 records" in capsys.readouterr().out
    table = parquet.read_table(file)
    assert table["time"].cast("int64").to_pylist()[1:] == [NOW_NS] * 8
    rows = table.drop_columns("time").to_pylist()
    assert [row["sequence"] for row in rows] == list(range(1, 10))
    assert rows[1]["actor"] == "ipv4:10.0.0.1:5"
    order = rows[7]
    assert (order["kind"], order["account_id"], order["gateway_id"], order["side"]) == (
        "CheckOrder", 7, 2, "SELL",
    )  # fmt: skip
    assert (order["price_ticks"], order["quantity_lots"]) == (120_000, 10)
    assert rows[5]["account_id"] is None
    assert json.loads(rows[5]["fields"])["marks"][0]["mark_price"] == "120000"
    assert not list(tmp_path.glob("*.partial"))


def test_export_without_pyarrow_says_what_to_install(
    directory: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["journal", "export", str(directory), str(tmp_path / "x")]) == 1
    assert "riskd[export]" in capsys.readouterr().err


def test_missing_directory_and_a_wrong_range_are_errors(tmp_path: Path, capsys: Capture) -> None:
    assert main(["journal", "verify", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
    assert main(["journal", "inspect", str(tmp_path), "--revisions", "x-y"]) == 2
    assert "'x-y' is not a range" in capsys.readouterr().err
    assert main(["journal", "inspect", str(tmp_path), "--revisions", "9-3"]) == 2
    assert "'9-3' ends before it begins" in capsys.readouterr().err
    assert main(["journal", "inspect", str(tmp_path), "--kind", "Chekc"]) == 2
    assert "'Chekc' is not one of CheckOrder, " in capsys.readouterr().err


def test_record_of_a_newer_program_is_an_error_with_its_place(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(60, 0, 1, b"12345678")
    with pytest.raises(RecordError, match=r"00000000000000000001\.journal at byte 40: record 1"):
        list(Entries(tmp_path))
