"""ExplainDecision: what was decided is decided again, on the state of that time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from riskd import __version__
from riskd.core.engine import Engine
from riskd.core.journal import Journal, scan
from riskd.core.snapshot import snapshot_head
from riskd.explain import DecisionTooOldError, Explainer, ExplainTimeoutError, explain
from riskd.journal import Entries, segments_of
from riskd.snapshots import take_snapshot
from riskd.v1 import account_service_pb2 as accounts
from riskd.v1 import audit_service_pb2 as audit
from riskd.v1 import control_service_pb2 as control
from riskd.v1 import limit_service_pb2 as limits
from riskd.v1 import order_risk_service_pb2 as orders
from riskd.v1 import types_pb2
from tests.service.conftest import open_market
from tests.unit.desk import SIZES, Desk

if TYPE_CHECKING:
    from tests.service.conftest import Clock, Rig


@pytest.fixture
def kept(new_rig: Callable[..., Rig], clock: Clock, tmp_path: Path) -> Rig:
    """The market of the other tests with a journal, and a limit of 0.15 on account 7."""
    rig = new_rig(clock, durability="process", journal_directory=str(tmp_path / "journal"))
    open_market(rig)
    rig.accounts.CreateAccount(
        accounts.CreateAccountRequest(
            account_id=8, settlement_asset="USDT", initial_collateral="10000"
        )
    )
    for account_id in (7, 8):
        limit(rig, "0.15", account_id)
    rig.mark(1, 1_200_000)
    return rig


def limit(rig: Rig, value: str, account_id: int = 7) -> None:
    key = limits.LimitKey(
        scope=types_pb2.LIMIT_SCOPE_ACCOUNT,
        scope_id=account_id,
        instrument_id=1,
        kind=types_pb2.LIMIT_KIND_POSITION_LOTS_MAX,
    )
    request = limits.SetLimitRequest(key=key, value=value, action=types_pb2.LIMIT_ACTION_HARD)
    rig.limits.SetLimit(request)


def explained(rig: Rig, revision: int) -> audit.ExplainDecisionResponse:
    return rig.audit.ExplainDecision(audit.ExplainDecisionRequest(revision=revision))


def basic(order: orders.CheckOrderRequest, number: int, lots: int) -> orders.CheckOrderRequest:
    copy = orders.CheckOrderRequest()
    copy.CopyFrom(order)
    copy.client_order_id, copy.quantity_lots = number, lots
    copy.view = orders.DECISION_VIEW_BASIC
    return copy


def test_order_is_explained_by_what_was_there_then(
    kept: Rig, clock: Clock, order: orders.CheckOrderRequest
) -> None:
    kept.orders.CheckOrder(basic(order, 1, 100))
    request = basic(order, 2, 60)
    reply = kept.raw("OrderRiskService/CheckOrder", request.SerializeToString())
    answer = orders.CheckOrderResponse.FromString(reply)
    assert answer.reason == types_pb2.REASON_CODE_LIMIT_POSITION_LOTS_MAX
    # All of this is not what the decision stood on.
    clock.now_ns += 10**9
    limit(kept, "9")
    kept.mark(1, 1_300_000)
    kept.accounts.AdjustCollateral(
        accounts.AdjustCollateralRequest(account_id=7, asset="USDT", amount="5")
    )
    state = kept.engine.state_hash()
    found = explained(kept, answer.revision)
    assert kept.engine.state_hash() == state
    assert found.request.order == request
    assert (found.reply.order, found.reply_bytes, found.equal) == (answer, reply, True)
    assert kept.engine.journal is not None
    times = {each.revision: each.time_ns for each in Entries(kept.engine.journal.directory)}
    assert (found.revision, found.time_ns) == (answer.revision, times[answer.revision])
    full = found.recomputed.order
    assert (full.decision, full.reason) == (answer.decision, answer.reason)
    (violation,) = full.detail.violations
    assert (violation.limit, violation.use, violation.order_use) == (150, 100, 60)
    inputs = found.inputs
    assert inputs.revision == answer.revision - 1
    (account,) = inputs.accounts
    assert (account.account_id, account.cash) == (7, "10000")
    (position,) = inputs.positions
    assert (position.account_id, position.working_buy_quantity) == (7, "0.1")
    assert [each.symbol for each in inputs.instruments] == ["BTC-PERP"]
    assert [each.mark_price for each in inputs.marks] == [1_200_000]
    (schedule,) = inputs.schedules
    assert (schedule.name, len(schedule.tiers), schedule.version) == ("BTC", 2, 1)
    (bound,) = inputs.limits
    assert (bound.key.scope_id, bound.bound, bound.use) == (7, "0.15", "0.1")
    assert {each.name: each.value for each in found.versions} == {"recomputed": __version__}


def test_amendment_execution_and_batch_are_explained(
    kept: Rig, order: orders.CheckOrderRequest
) -> None:
    first = kept.orders.CheckOrder(basic(order, 1, 100))
    amendment = orders.CheckAmendmentRequest(
        gateway_id=3,
        reservation_id=first.reservation_id,
        client_order_id=2,
        price_ticks=120_000,
        quantity_lots=120,
    )
    amended = kept.orders.CheckAmendment(amendment)
    execution = orders.ReportExecutionRequest(
        gateway_id=3,
        execution_id=1,
        reservation_id=amended.order.reservation_id,
        kind=orders.EXECUTION_KIND_FILL,
        price_ticks=120_000,
        quantity_lots=20,
    )
    executed = kept.orders.ReportExecution(execution)
    legs = [basic(order, 3, 31), basic(order, 4, 10)]
    legs[1].account_id = 8
    batch = orders.BatchCheckOrdersRequest(orders=legs)
    decided = kept.orders.BatchCheckOrders(batch)

    found = explained(kept, amended.order.revision)
    assert (found.request.amendment, found.reply.amendment) == (amendment, amended)
    assert found.equal
    assert found.recomputed.amendment.order.decision == types_pb2.DECISION_ACCEPTED
    assert found.recomputed.amendment.order.detail.position_lots == 120
    assert [each.account_id for each in found.inputs.accounts] == [7]

    found = explained(kept, executed.revision)
    assert (found.request.execution, found.reply.execution) == (execution, executed)
    assert found.equal
    assert found.recomputed == found.reply
    assert found.instrument_id == 1

    found = explained(kept, decided.revision)
    assert (found.request.batch, found.reply.batch) == (batch, decided)
    assert found.equal
    assert [each.account_id for each in found.inputs.accounts] == [7, 8]
    rejected = found.recomputed.batch.decisions[0].detail.violations[0]
    assert (rejected.limit, rejected.use, rejected.order_use) == (150, 120, 31)
    assert [each.key.scope_id for each in found.inputs.limits] == [7, 8]


def test_states_that_are_not_normal_are_inputs(kept: Rig, order: orders.CheckOrderRequest) -> None:
    for scope in (control.Scope(account_id=7), control.Scope(account_id=8)):
        kept.control.ChangeTradingState(
            control.ChangeTradingStateRequest(
                scope=scope, trading_state=types_pb2.TRADING_STATE_HALTED
            )
        )
    answer = kept.orders.CheckOrder(basic(order, 1, 1))
    (state,) = explained(kept, answer.revision).inputs.trading_states
    assert (state.scope.account_id, state.trading_state) == (7, types_pb2.TRADING_STATE_HALTED)


def test_revision_that_is_no_decision(kept: Rig, order: orders.CheckOrderRequest) -> None:
    last = kept.orders.CheckOrder(order).revision
    for revision, text in (
        (0, f"revision is 0: must be 1 to {last}"),
        (last + 1, f"revision is {last + 1}: must be 1 to {last}"),
        (1, "revision 1 is the change create_asset, no decision"),
        (last - 1, f"revision {last - 1} is no order, amendment or execution, no decision"),
    ):
        request = audit.ExplainDecisionRequest(revision=revision)
        failure = kept.fail(kept.audit.ExplainDecision, request)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "DECISION_UNKNOWN")
        assert text in failure.message


def test_without_a_journal_there_is_nothing_to_explain_from(market: Rig) -> None:
    failure = market.fail(market.audit.ExplainDecision, audit.ExplainDecisionRequest(revision=1))
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "DECISION_NOT_KEPT"
    assert "durability is none" in failure.message


def test_one_at_a_time(kept: Rig, order: orders.CheckOrderRequest) -> None:
    revision = kept.orders.CheckOrder(order).revision
    codes = []

    def ask(_: int) -> Any:
        request = audit.ExplainDecisionRequest(revision=revision)
        try:
            return kept.audit.ExplainDecision(request).equal
        except grpc.RpcError as error:
            codes.append(error.code())
            return None

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(4)))
    assert answers.count(True) >= 1
    assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert explained(kept, revision).equal


def test_time_is_bounded(kept: Rig, order: orders.CheckOrderRequest) -> None:
    revision = kept.orders.CheckOrder(order).revision
    assert kept.engine.journal is not None
    explainer = Explainer(kept.engine.journal.directory, seconds_max=0.001)
    with pytest.raises(ExplainTimeoutError, match=r"within 0.001 s; more frequent snapshots"):
        explainer.explain(revision)


def test_snapshots_say_how_far_back_it_reaches(tmp_path: Path) -> None:
    engine = Engine(**SIZES)
    engine.open_journal(tmp_path, durability="process", segment_bytes=40 + 4096, buffer_bytes=4096)
    desk = Desk(engine)
    replies: list[bytes] = []
    while len(segments_of(tmp_path)) < 3:
        replies.append(desk.order(1, len(replies) + 1))
    taken = take_snapshot(tmp_path, kept=1)
    assert taken is not None
    for number in range(3):
        replies.append(desk.order(1, 1000 + number))
    first, *_, last = (orders.CheckOrderResponse.FromString(each).revision for each in replies)
    found = explain(tmp_path, last)
    assert (found.equal, found.reply_bytes) == (True, replies[-1])
    assert found.versions[1] == audit.NamedValue(name="snapshot", value=__version__)
    with pytest.raises(DecisionTooOldError) as caught:
        explain(tmp_path, first)
    reach = snapshot_head(taken.path).revision + 1
    assert str(caught.value).startswith(f"revision {first}: the journal begins with record ")
    assert str(caught.value).endswith(f", and it reaches back to {reach}")
    engine.close_journal()


def test_reply_that_would_be_another_is_not_equal(tmp_path: Path) -> None:
    engine = Engine(**SIZES)
    engine.open_journal(tmp_path / "journal")
    reply = orders.CheckOrderResponse.FromString(Desk(engine).order(1, 1))
    engine.close_journal()
    with Journal.open(tmp_path / "other") as journal:
        for _, time_ns, revision, kind, payload in scan(tmp_path / "journal"):
            content = bytes([payload[0] ^ 1]) + payload[1:] if kind == 1 else payload
            journal.append(kind=kind, time_ns=time_ns, revision=revision, payload=content)
    assert explain(tmp_path / "journal", reply.revision).equal
    found = explain(tmp_path / "other", reply.revision)
    assert (found.equal, found.reply.order) == (False, reply)
