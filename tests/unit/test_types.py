"""The core's enums are those of the contract."""

import re
from pathlib import Path

import pytest

from riskd.v1 import instrument_service_pb2, order_risk_service_pb2, types_pb2

TYPES_PXD = Path(__file__).parents[2] / "ext/riskd/core/types.pxd"

# The core's prefix and the enum of the contract whose numbers it repeats.
ENUMS = {
    "SIDE_": types_pb2.Side,
    "POSITION_SIDE_": types_pb2.PositionSide,
    "ORDER_TYPE_": types_pb2.OrderType,
    "TIME_IN_FORCE_": types_pb2.TimeInForce,
    "MARGIN_MODE_": types_pb2.MarginMode,
    "TRADING_STATE_": types_pb2.TradingState,
    "DECISION_": types_pb2.Decision,
    "LIQUIDATION_STATUS_": types_pb2.LiquidationStatus,
    "ORDER_FLAG_": order_risk_service_pb2.OrderFlag,
    "CHECK_MODE_": order_risk_service_pb2.CheckMode,
    "DECISION_VIEW_": order_risk_service_pb2.DecisionView,
    "EXECUTION_KIND_": order_risk_service_pb2.ExecutionKind,
    "RESERVATION_STATE_": order_risk_service_pb2.ReservationState,
    "INSTRUMENT_KIND_": instrument_service_pb2.InstrumentKind,
    "OPTION_TYPE_": instrument_service_pb2.OptionType,
}


def core_constants() -> dict[str, int]:
    """Return every NAME = number of types.pxd."""
    found = re.findall(r"^    ([A-Z][A-Z_0-9]+) = (\d+)$", TYPES_PXD.read_text(), re.MULTILINE)
    return {name: int(number) for name, number in found}


@pytest.mark.parametrize("prefix", ENUMS)
def test_core_enum_has_the_numbers_of_the_contract(prefix: str) -> None:
    # DECISION_VIEW_BASIC also starts with DECISION_: the longest prefix is a constant's own.
    mine = {
        name: number
        for name, number in core_constants().items()
        if max((p for p in ENUMS if name.startswith(p)), key=len, default="") == prefix
    }
    assert mine, f"types.pxd has no {prefix} constants"
    for name, number in mine.items():
        assert ENUMS[prefix].Value(name) == number, name


def test_core_reasons_are_exactly_those_of_the_contract() -> None:
    core = {
        name.replace("REASON_", "REASON_CODE_", 1): number
        for name, number in core_constants().items()
        if name.startswith("REASON_")
    }
    assert core == dict(types_pb2.ReasonCode.items())


def test_every_reason_has_its_rule_in_the_book_of_rules() -> None:
    """Each rule id that the contract names stands in a page that says what it means."""
    proto = (TYPES_PXD.parents[3] / "proto/riskd/v1/types.proto").read_text()
    docs = TYPES_PXD.parents[3] / "docs"
    table = (docs / "limits.md").read_text()
    rules = table + "".join((docs / page).read_text() for page in ("decision.md", "instruments.md"))
    named = re.findall(r"// ([A-Z]-\d+): ", proto)
    limits = [int(number) for number in re.findall(r"// Limit (\d+) of docs/limits.md: ", proto)]
    assert len(named) == len(set(named))
    assert len(named) + len(limits) == len(types_pb2.ReasonCode.items()) - 2
    assert limits == [int(number) for number in re.findall(r"^\| (\d+) \| [A-Z]", table, re.M)]
    ranges = re.findall(r"([A-Z])-(\d+) to [A-Z]-(\d+)", rules)
    spelled = set(re.findall(r"\b([A-Z]-\d+)\b", rules)) | {
        f"{letter}-{number}"
        for letter, first, last in ranges
        for number in range(int(first), int(last) + 1)
    }
    assert set(named) - spelled == set()
