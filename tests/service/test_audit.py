"""Every change from outside the hot door is on record: who, when, what, before, after."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from riskd.core.engine import Engine
from riskd.core.snapshot import snapshot_paths
from riskd.services.changes import ChangeTrail, Origin, flatten
from riskd.settings import Settings
from riskd.snapshots import load_changes, take_snapshot
from riskd.v1 import account_service_pb2 as accounts
from riskd.v1 import audit_service_pb2 as audit
from riskd.v1 import control_service_pb2 as control
from riskd.v1 import instrument_service_pb2 as instruments
from riskd.v1 import limit_service_pb2 as limits
from riskd.v1 import order_risk_service_pb2 as orders
from riskd.v1 import types_pb2
from riskd.wiring import build_audited_engine

if TYPE_CHECKING:
    from tests.service.conftest import Clock, Rig


def listed(rig: Rig, **values: Any) -> list[audit.Change]:
    return list(rig.audit.ListChanges(audit.ListChangesRequest(**values)).changes)


def changed(change: audit.Change) -> dict[str, tuple[str, str]]:
    return {each.name: (each.before, each.after) for each in change.changes}


def deposit(amount: str, *, validate_only: bool = False) -> accounts.AdjustCollateralRequest:
    return accounts.AdjustCollateralRequest(
        account_id=7, asset="USDT", amount=amount, validate_only=validate_only
    )


def test_change_names_its_actor_time_revision_arguments_before_and_after(
    market: Rig, clock: Clock
) -> None:
    clock.now_ns += 5
    reply, _ = market.accounts.AdjustCollateral.with_call(
        deposit("2.5"), metadata=(("riskd-actor", "alice of risk"),)
    )
    (newest, *_) = listed(market)
    assert newest.actor == "alice of risk"
    assert newest.method == "AdjustCollateral"
    assert (newest.time_ns, newest.revision) == (clock.now_ns, reply.revision)
    assert [(each.name, each.value) for each in newest.arguments] == [
        ("account_id", "7"),
        ("asset", "USDT"),
        ("amount", "2.5"),
    ]
    assert changed(newest) == {"cash": ("10000", "10002.5")}


@pytest.mark.parametrize("actor", [None, "", "x" * 65])
def test_caller_that_does_not_name_itself_validly_is_its_address(
    market: Rig, actor: str | None
) -> None:
    metadata = () if actor is None else (("riskd-actor", actor),)
    market.accounts.AdjustCollateral.with_call(deposit("1"), metadata=metadata)
    assert listed(market)[0].actor.startswith("ipv4:127.0.0.1:")


def test_what_changes_nothing_is_not_listed(market: Rig) -> None:
    before = listed(market)
    market.accounts.AdjustCollateral(deposit("1", validate_only=True))
    assert market.fail(market.accounts.AdjustCollateral, deposit("-99999999")).reason
    market.orders.CheckOrder(orders.CheckOrderRequest(account_id=7, client_order_id=1))
    assert listed(market) == before


def test_changes_of_definitions_show_only_what_differs(
    market: Rig, instrument: instruments.Instrument
) -> None:
    made = listed(market)[1]
    assert made.method == "UpsertInstrument"
    assert changed(made)["tick_size"] == ("", "0.5")
    instrument.taker_fee_rate = "0.001"
    market.instruments.UpsertInstrument(instruments.UpsertInstrumentRequest(instrument=instrument))
    assert changed(listed(market)[0]) == {"taker_fee_rate": ("0.0005", "0.001")}


def test_kill_switch_is_listed_under_its_own_name_with_its_comment(market: Rig) -> None:
    scope = control.Scope(instrument_id=1)
    market.control.EngageKillSwitch(
        control.EngageKillSwitchRequest(scope=scope, comment="venue is down")
    )
    market.control.ReleaseKillSwitch(
        control.ReleaseKillSwitchRequest(
            scope=scope, trading_state=types_pb2.TRADING_STATE_REDUCE_ONLY
        )
    )
    released, engaged = listed(market, scope=scope)[:2]
    assert engaged.method == "EngageKillSwitch"
    assert {each.name: each.value for each in engaged.arguments}["comment"] == "venue is down"
    assert changed(engaged) == {"trading_state": ("NORMAL", "HALTED")}
    assert changed(released) == {"trading_state": ("HALTED", "REDUCE_ONLY")}


def test_changes_are_listed_by_scope(market: Rig) -> None:
    market.accounts.SetLeverage(
        accounts.SetLeverageRequest(account_id=7, instrument_id=1, leverage="10")
    )
    by_account = [each.method for each in listed(market, scope=control.Scope(account_id=7))]
    assert by_account == ["SetLeverage", "CreateAccount"]
    by_instrument = [each.method for each in listed(market, scope=control.Scope(instrument_id=1))]
    assert by_instrument == ["SetLeverage", "UpsertInstrument"]
    assert not listed(market, scope=control.Scope(account_id=8))
    assert not listed(market, scope=control.Scope(service=True))
    (newest, *_) = listed(market)
    assert changed(newest)["leverage"] == ("", "10")


def test_pages_of_changes_join_without_gap_or_overlap(market: Rig) -> None:
    whole = listed(market)
    pages: list[audit.Change] = []
    token = ""
    while True:
        page = market.audit.ListChanges(audit.ListChangesRequest(page_size=2, page_token=token))
        # A change that comes between the pages is newer than all that are left.
        market.accounts.AdjustCollateral(deposit("1"))
        pages += page.changes
        token = page.next_page_token
        if not token:
            break
    assert pages == whole
    revisions = [change.revision for change in pages]
    assert revisions == sorted(set(revisions), reverse=True)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"page_size": 1001}, "page_size"),
        ({"page_token": "x"}, "page_token"),
        ({"scope": control.Scope()}, "scope"),
        ({"scope": control.Scope(service=False)}, "scope"),
    ],
)
def test_bad_question_is_refused_by_field(market: Rig, values: Any, field: str) -> None:
    failure = market.fail(market.audit.ListChanges, audit.ListChangesRequest(**values))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.metadata["field"] == field


def test_changes_of_before_a_restart_are_listed_as_they_were(
    new_rig: Callable[..., Rig],
    clock: Clock,
    tmp_path: Path,
    order: orders.CheckOrderRequest,
) -> None:
    # Later than now: rulebooks are loaded at the time of the machine, and time does not go back.
    clock.now_ns = 2**62
    values: dict[str, Any] = {
        "durability": "process",
        "journal_directory": str(tmp_path),
        "rulebooks": ("textbook",),
    }
    rig = new_rig(clock, **values)
    (asset,) = rig.instruments.ListAssets(instruments.ListAssetsRequest()).assets
    rig.accounts.CreateAccount(
        accounts.CreateAccountRequest(
            account_id=7, settlement_asset=asset.symbol, initial_collateral="1000"
        )
    )
    # What comes between raises the revision, and is no change from outside the hot door.
    rig.orders.CheckOrder(order)
    rig.accounts.AdjustCollateral.with_call(
        accounts.AdjustCollateralRequest(account_id=7, asset=asset.symbol, amount="2.5"),
        metadata=(("riskd-actor", "alice"),),
    )
    rig.limits.SetLimit(
        limits.SetLimitRequest(
            key=limits.LimitKey(
                scope=types_pb2.LIMIT_SCOPE_ACCOUNT,
                scope_id=7,
                kind=types_pb2.LIMIT_KIND_OPEN_ORDERS_MAX,
            ),
            value="3",
            action=types_pb2.LIMIT_ACTION_SOFT,
            comment="new desk",
        )
    )
    rig.control.EngageKillSwitch(
        control.EngageKillSwitchRequest(scope=control.Scope(account_id=7), comment="stop")
    )
    before = listed(rig)
    assert [change.method for change in before][:4] == [
        "EngageKillSwitch",
        "SetLimit",
        "AdjustCollateral",
        "CreateAccount",
    ]
    assert {change.method for change in before[4:]} == {"ApplyRulebook"}
    rig.server.stop(0)
    rig.engine.close_journal()
    again = new_rig(clock, **values)
    assert listed(again) == before


def create_assets(engine: Engine, trail: ChangeTrail, symbols: Iterable[str]) -> None:
    for symbol in symbols:
        request = instruments.CreateAssetRequest(symbol=symbol, scale=2)
        origin = Origin.of("me", request)
        arguments: dict[str, Any] = {"symbol": symbol, "scale": 2}
        create = functools.partial(
            engine.create_asset, **arguments, now_ns=1, actor=origin.to_text()
        )
        answer, change = trail.make(origin, 1, "create_asset", arguments, create)
        assert answer[0] == types_pb2.REASON_CODE_NONE
        assert change is not None


def test_changes_of_before_a_snapshot_are_beside_it(tmp_path: Path) -> None:
    engine = Engine()
    trail = ChangeTrail(engine)
    # Segments that a few changes close, so that snapshots can be of them.
    engine.open_journal(
        tmp_path, durability="process", segment_bytes=40 + (1 << 12), buffer_bytes=1 << 12
    )
    for first in (0, 50, 100):
        create_assets(engine, trail, (f"A{number}" for number in range(first, first + 50)))
        assert take_snapshot(tmp_path) is not None
    create_assets(engine, trail, ["LAST"])
    engine.close_journal()
    settings = Settings(durability="process", journal_directory=str(tmp_path))
    again, recovered = build_audited_engine(settings)
    again.close_journal()
    before = trail.newest(None, 0, 1000)
    assert len(before) == 151
    assert len(snapshot_paths(tmp_path)) == len(list(tmp_path.glob("*.changes"))) == 2
    assert recovered.newest(None, 0, 1000) == before


def test_damaged_file_of_changes_is_named_and_only_shortens_the_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trail = ChangeTrail(Engine())
    path = tmp_path / "1.changes"
    path.write_text('[1,2,"me",[],[]]\n[3]\n')
    with pytest.raises(ValueError, match="line 2 is no change"):
        trail.load(path)
    assert trail.newest(None, 0, 10) == []
    load_changes(trail, str(tmp_path / "1.snapshot"))
    assert "changes before the snapshot are not listed" in caplog.text


def test_trail_keeps_the_newest(rig: Rig) -> None:
    engine = Engine()
    trail = ChangeTrail(engine, count_max=3)
    create_assets(engine, trail, (f"A{index}" for index in range(5)))
    kept = [change.origin.arguments["symbol"] for change in trail.newest(None, 0, 10)]
    assert kept == ["A4", "A3", "A2"]


def test_origin_comes_back_from_its_text() -> None:
    request = control.EngageKillSwitchRequest(
        scope=control.Scope(gateway_id=3), comment='"}\nforged: line'
    )
    origin = Origin.of("bob", request)
    text = origin.to_text()
    assert "\n" not in text
    assert Origin.from_text(text, "set_trading_state", {}) == origin


@pytest.mark.parametrize("text", ["", "riskd", "[]", "{}", '["a", "b"]', '["a", "b", "c"]'])
def test_actor_that_called_the_engine_itself_stays_as_it_is(text: str) -> None:
    origin = Origin.from_text(text, "create_asset", {"symbol": "USD", "scale": 2})
    assert origin == Origin(text, "create_asset", {"symbol": "USD", "scale": "2"})


def test_long_lists_are_cut() -> None:
    request = control.CancelOrdersRequest(keep_reservation_ids=range(1, 10_001))
    ((name, text),) = flatten(request)
    assert name == "keep_reservation_ids"
    assert text.startswith("1, 2, 3, ")
    assert text.endswith("... (10000)")
    assert len(text) < 600


def test_an_actor_of_its_own_tells_whether_a_lost_command_was_executed(market: Rig) -> None:
    def done(actor: str) -> list[str]:
        scope = control.Scope(account_id=7)
        changes = listed(market, scope=scope)
        return [change.changes[0].after for change in changes if change.actor == actor]

    assert done("treasury/17") == []
    market.accounts.AdjustCollateral(deposit("2.5"), metadata=(("riskd-actor", "treasury/17"),))
    market.accounts.AdjustCollateral(deposit("2.5"), metadata=(("riskd-actor", "treasury/18"),))
    assert done("treasury/17") == ["10002.5"]
