"""The log has a line for each change of rules and of money, and none for an order."""

from __future__ import annotations

import json
import logging

import pytest

from riskd.logs import JsonFormatter
from riskd.services.changes import ChangeTrail, RecordedDefinitions, log_change
from riskd.v1 import control_service_pb2 as control_pb
from riskd.v1 import limit_service_pb2 as limits_pb
from riskd.v1 import order_risk_service_pb2 as pb
from riskd.v1 import types_pb2
from tests.service.conftest import NOW_NS, Rig, new_order
from tests.service.native import listening


def test_orders_fills_and_marks_leave_no_line(
    market: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "riskd")
    accepted, rejected = types_pb2.DECISION_ACCEPTED, types_pb2.DECISION_REJECTED
    with listening(market.engine) as native:
        for base, door in ((0, market.orders), (10, native.orders)):
            first = door.CheckOrder(new_order(base + 1))
            other = door.CheckOrder(new_order(base + 2, account_id=99))
            batch = door.BatchCheckOrders(pb.BatchCheckOrdersRequest(orders=[new_order(base + 3)]))
            streams = [pb.StreamOrdersRequest(order=new_order(base + 4))]
            (streamed,) = door.StreamOrders(iter(streams))
            found = [first, other, *batch.decisions, streamed.order]
            assert [each.decision for each in found] == [accepted, rejected, accepted, accepted]
            report = pb.ReportExecutionRequest(
                reservation_id=first.reservation_id,
                gateway_id=3,
                execution_id=base + 5,
                kind=pb.EXECUTION_KIND_FILL,
                quantity_lots=1,
                price_ticks=120_000,
            )
            assert door.ReportExecution(report).decision == accepted
    market.mark(1, 1_200_100)
    assert caplog.records == []
    # That all levels are seen here.
    logging.getLogger("riskd.test").debug("seen")
    assert caplog.messages == ["seen"]


def test_each_change_is_one_line_with_who_and_what(
    market: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "riskd")
    key = limits_pb.LimitKey(
        scope=types_pb2.LIMIT_SCOPE_ACCOUNT,
        scope_id=7,
        kind=types_pb2.LIMIT_KIND_OPEN_ORDERS_MAX,
    )
    for value in ("5", "6"):
        request = limits_pb.SetLimitRequest(
            key=key, value=value, action=types_pb2.LIMIT_ACTION_HARD
        )
        market.limits.SetLimit(request, metadata=(("riskd-actor", "alice"),))
    market.control.CancelOrders(control_pb.CancelOrdersRequest(account_id=7))
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    # Nothing was cancelled, so that was no change.
    assert [(line["logger"], line["method"], line["actor"]) for line in lines] == [
        ("riskd.changes", "SetLimit", "alice"),
        ("riskd.changes", "SetLimit", "alice"),
    ]
    assert lines[0]["changes"]["value"] == ["", "5"]
    assert lines[1]["changes"]["value"] == ["5", "6"]
    assert lines[1]["revision"] == market.engine.revision


def test_what_a_rulebook_changes_is_logged_as_any_other_change(
    market: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "riskd")
    recorded = RecordedDefinitions(market.engine, ChangeTrail(market.engine), "some_venue", NOW_NS)
    recorded.create_asset("XYZ", 6)
    recorded.create_asset("XYZ", 6)
    assert not caplog.records, "the one who applies the rules may hold the engine's lock"
    (change,) = recorded.changes
    log_change(change)
    (record,) = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert (line["actor"], line["method"]) == ("riskd", "ApplyRulebook")
    assert line["arguments"] == {"rulebook": "some_venue"}
    assert line["changes"]["symbol"] == ["", "XYZ"]
