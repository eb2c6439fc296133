"""Every reason code has a case in tests/vectors/reasons.jsonl, which both engines answer alike."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from riskd import reference
from riskd.core.engine import Engine
from riskd.reference import ReferenceEngine
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

VECTORS = Path(__file__).parents[1] / "vectors" / "reasons.jsonl"
ROWS = [json.loads(line) for line in VECTORS.read_text().splitlines()]
MARKET = ROWS[0]
CASES = ROWS[1:]
HOT: dict[str, tuple[int, type[Message], type[Message]]] = {
    "check_order": (
        reference.METHOD_CHECK_ORDER,
        orders_pb.CheckOrderRequest,
        orders_pb.CheckOrderResponse,
    ),
    "report_execution": (
        reference.METHOD_REPORT_EXECUTION,
        orders_pb.ReportExecutionRequest,
        orders_pb.ReportExecutionResponse,
    ),
    "report_marks": (
        reference.METHOD_REPORT_MARKS,
        market_pb.ReportMarksRequest,
        market_pb.ReportMarksResponse,
    ),
    "check_amendment": (
        reference.METHOD_CHECK_AMENDMENT,
        orders_pb.CheckAmendmentRequest,
        orders_pb.CheckAmendmentResponse,
    ),
    "batch_check_orders": (
        reference.METHOD_BATCH_CHECK_ORDERS,
        orders_pb.BatchCheckOrdersRequest,
        orders_pb.BatchCheckOrdersResponse,
    ),
}


class Desk:
    """Runs the commands of rows on an engine and returns the answers as plain values."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.reservations: dict[tuple[int, int], int] = {}

    def run(self, command: dict[str, Any]) -> dict[str, Any]:
        if command["call"] in HOT:
            return self._hot(command)
        arguments = {name: value for name, value in command.items() if name != "call"}
        result = getattr(self.engine, command["call"])(**arguments)
        reason, *figures = result if isinstance(result, tuple) else (result,)
        return {"reason": t.ReasonCode.Name(reason), "figures": figures}

    def _hot(self, command: dict[str, Any]) -> dict[str, Any]:
        method, request_type, response_type = HOT[command["call"]]
        request = dict(command["request"])
        if "reservation_of" in command:
            gateway_id, client_order_id = command["reservation_of"]
            request["reservation_id"] = self.reservations[gateway_id, client_order_id]
        message = ParseDict(request, request_type())
        reply = response_type()
        reply.ParseFromString(
            self.engine.handle(method, message.SerializeToString(), command["now_ns"])
        )
        return self._answer(message, reply)

    def _answer(self, message: Message, reply: Message) -> dict[str, Any]:
        """Return the fields of the reply, or of the decision in it that a row is about."""
        if isinstance(reply, market_pb.ReportMarksResponse):
            reason = reply.refusals[0].reason if reply.refusals else t.REASON_CODE_NONE
            return {"reason": t.ReasonCode.Name(reason)}
        if isinstance(reply, orders_pb.BatchCheckOrdersResponse):
            reply = reply.decisions[0]
        if isinstance(reply, orders_pb.CheckAmendmentResponse):
            reply = reply.order
        fields = plain(reply)
        if isinstance(message, orders_pb.CheckOrderRequest):
            assert isinstance(reply, orders_pb.CheckOrderResponse)
            key = message.gateway_id, message.client_order_id
            self.reservations[key] = reply.reservation_id
            of_reason = [each for each in reply.detail.violations if each.reason == reply.reason]
            fields["violation"] = plain(of_reason[0]) if of_reason else {}
        return fields


def plain(message: Message) -> dict[str, Any]:
    """Return all fields, numbers as numbers."""
    fields = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {
        name: int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value
        for name, value in fields.items()
    }


def prepared(case: dict[str, Any], make: type[Any]) -> Desk:
    desk = Desk(make(**case["inputs"].get("settings", {})))
    for command in MARKET["inputs"]["setup"] + case["inputs"].get("setup", []):
        answer = desk.run(command)
        assert answer["reason"] == "REASON_CODE_NONE", (command, answer)
    return desk


def instead(request: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a request with some fields changed: those of the message, or of a cold call."""
    if "request" in request:
        return request | {"request": request["request"] | changes}
    return request | changes


def case_id(case: dict[str, Any]) -> str:
    return str(case["id"])


def test_every_reason_of_the_contract_has_a_case() -> None:
    covered = {case["expected"]["reason"] for case in CASES}
    assert covered == set(t.ReasonCode.keys()) - {"REASON_CODE_UNSPECIFIED"}
    assert len({case["id"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("make", [ReferenceEngine, Engine])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_the_request_of_a_case_gets_its_reason_and_numbers(
    case: dict[str, Any], make: type[Any]
) -> None:
    answer = prepared(case, make).run(case["inputs"]["request"])
    for name, expected in case["expected"].items():
        found = answer[name]
        if name == "violation":
            found = {field: found[field] for field in expected}
        assert found == expected, name


@pytest.mark.parametrize("make", [ReferenceEngine, Engine])
@pytest.mark.parametrize(
    "case", [case for case in CASES if "instead" in case["inputs"]], ids=case_id
)
def test_the_same_request_without_what_breaks_the_rule_is_accepted(
    case: dict[str, Any], make: type[Any]
) -> None:
    desk = prepared(case, make)
    answer = desk.run(instead(case["inputs"]["request"], case["inputs"]["instead"]))
    assert answer["reason"] == "REASON_CODE_NONE"
