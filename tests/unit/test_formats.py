"""Journals that earlier versions wrote are read for ever, and lead to the same state."""

import json
import shutil
from pathlib import Path

import pytest

from riskd.core.engine import Engine
from riskd.core.journal import scan

DATA = Path(__file__).parents[1] / "data"
FORMATS = sorted(DATA.glob("journal-*"))
# Of a hot request, by kind; GetReservation changes nothing.
HOT_KINDS = {1, 2, 4, 5, 6, 7}
KIND_CHANGE = 64


def facts(engine: Engine, records: int) -> dict[str, object]:
    return {
        "records": records,
        "revision": engine.revision,
        "state_hash": engine.state_hash(),
        "answers_hash": engine.answers_hash(),
    }


def test_there_is_a_journal_of_each_format() -> None:
    assert [each.name for each in FORMATS] == ["journal-1"]


@pytest.mark.parametrize("kept", FORMATS, ids=lambda path: path.name)
@pytest.mark.parametrize("has_snapshot", [False, True])
def test_a_journal_of_an_earlier_version_leads_to_the_same_state(
    kept: Path, has_snapshot: bool, tmp_path: Path
) -> None:
    """Every recorded reply too: else `open_journal` raises ReplayError. And it can go on."""
    for path in (*kept.glob("*.journal"), *kept.glob("*.snapshot")):
        if has_snapshot or path.suffix == ".journal":
            shutil.copy(path, tmp_path)
    expected = json.loads((kept / "expected.json").read_text())
    reader = Engine()
    replay = reader.recover(tmp_path)
    assert (replay.snapshot is not None) is has_snapshot
    assert not replay.refused_snapshots
    assert facts(reader, replay.sequence) == expected
    engine = Engine(**reader.capacities())
    engine.open_journal(tmp_path)
    assert facts(engine, replay.sequence) == expected
    engine.create_asset("NEW", 2)
    state_hash = engine.state_hash()
    engine.close_journal()
    again = Engine()
    again.recover(tmp_path)
    assert again.state_hash() == state_hash


@pytest.mark.parametrize("kept", FORMATS, ids=lambda path: path.name)
def test_the_kept_journal_has_every_kind_of_record(kept: Path) -> None:
    kinds = set()
    changes = set()
    for _, _, _, kind, payload in scan(kept):
        kinds.add(kind)
        if kind == KIND_CHANGE:
            changes.add(json.loads(payload)["change"])
    assert kinds == HOT_KINDS | {KIND_CHANGE}
    assert changes == {
        "adjust_collateral",
        "cancel_orders",
        "change_margin_mode",
        "create_account",
        "create_asset",
        "create_book",
        "create_firm",
        "raise_limit",
        "remove_limit",
        "renew_lease",
        "reset_usage",
        "set_account_owner",
        "set_capacities",
        "set_leverage",
        "set_limit",
        "set_position_mode",
        "set_trading_state",
        "transfer_margin",
        "upsert_instrument",
        "upsert_schedule",
    }
