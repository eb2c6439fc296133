"""Every change from outside the hot door is on record: who, when, what, before, after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from riskd.services.changes import ChangeTrail, Origin, flatten
from riskd.settings import Settings
from riskd.v1 import account_service_pb2 as accounts
from riskd.v1 import audit_service_pb2 as audit
from riskd.v1 import control_service_pb2 as control
from riskd.v1 import instrument_service_pb2 as instruments
from riskd.v1 import order_risk_service_pb2 as orders
from riskd.v1 import types_pb2
from riskd.wiring import build_engine

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
        deposit("2.5"), metadata=[("riskd-actor", "alice of risk")]
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
    metadata = [] if actor is None else [("riskd-actor", actor)]
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


def test_trail_keeps_the_newest(rig: Rig) -> None:
    engine = build_engine(Settings())
    trail = ChangeTrail(engine, count_max=3)
    for index in range(5):
        request = instruments.CreateAssetRequest(symbol=f"A{index}", scale=2)
        arguments = {"symbol": request.symbol, "scale": request.scale}
        answer, change = trail.make(
            Origin.of("me", request),
            index,
            "create_asset",
            arguments,
            lambda arguments=arguments: engine.create_asset(**arguments),
        )
        assert answer[0] == types_pb2.REASON_CODE_NONE
        assert change is not None
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
