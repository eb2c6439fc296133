"""Laws of the wire codec: any bytes decode or refuse, and errors change nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riskd.core.engine import METHOD_CHECK_ORDER, METHOD_REPORT_MARKS, MalformedRequestError
from riskd.v1 import market_data_service_pb2 as market
from riskd.v1 import order_risk_service_pb2 as order_risk
from tests.fuzz.targets import METHODS, small_engine, wire

ENGINE = small_engine()


@settings(max_examples=2000)
@given(st.sampled_from(range(len(METHODS))), st.binary(max_size=120))
def test_any_bytes_decode_or_are_refused(method: int, request: bytes) -> None:
    wire(bytes([method]) + request)


uint64 = st.integers(0, 2**64 - 1)
uint32 = st.integers(0, 2**32 - 1)
sint64 = st.integers(-(2**63), 2**63 - 1)
enum = st.integers(0, 2**31 - 1)

orders = st.builds(
    order_risk.CheckOrderRequest,
    account_id=uint64,
    instrument_id=uint32,
    client_order_id=uint64,
    side=enum,
    order_type=enum,
    time_in_force=enum,
    margin_mode=enum,
    price_ticks=sint64,
    quantity_lots=uint64,
    flags=uint32,
    gateway_id=uint32,
    sent_time_ns=uint64,
    mode=enum,
    view=enum,
    position_side=enum,
    trigger_price_ticks=sint64,
    trailing_offset_ticks=sint64,
    expire_time_ns=uint64,
)


@settings(max_examples=500)
@given(orders)
def test_what_a_protobuf_library_writes_is_read_whole(
    order: order_risk.CheckOrderRequest,
) -> None:
    """Every field reaches the engine: changing one, but the time of sending, is other content."""
    engine = small_engine()
    order.client_order_id = order.client_order_id or 1
    order.gateway_id = order.gateway_id or 1
    if order.mode == order_risk.CHECK_MODE_CHECK_ONLY:
        order.mode = order_risk.CHECK_MODE_RESERVE
    first = engine.handle(METHOD_CHECK_ORDER, order.SerializeToString(), 1)
    order.sent_time_ns ^= 1
    assert engine.handle(METHOD_CHECK_ORDER, order.SerializeToString(), 2) == first
    for field in order.DESCRIPTOR.fields:
        if field.name in ("sent_time_ns", "client_order_id", "gateway_id", "mode"):
            continue
        changed = order_risk.CheckOrderRequest.FromString(order.SerializeToString())
        setattr(changed, field.name, getattr(order, field.name) ^ 1)
        reply = order_risk.CheckOrderResponse.FromString(
            engine.handle(METHOD_CHECK_ORDER, changed.SerializeToString(), 3)
        )
        assert reply.reason == 60, field.name


@given(orders, st.data())
def test_a_truncated_message_is_refused_or_is_a_shorter_message(
    order: order_risk.CheckOrderRequest, data: st.DataObject
) -> None:
    whole = order.SerializeToString()
    cut = data.draw(st.integers(0, max(0, len(whole) - 1)))
    try:
        ENGINE.handle(METHOD_CHECK_ORDER, whole[:cut], 1)
    except MalformedRequestError:
        return
    # Accepted as a message: then it ends where a field ends, and a protobuf library agrees.
    order_risk.CheckOrderRequest.FromString(whole[:cut])


@pytest.mark.parametrize(
    ("request_bytes", "message"),
    [
        (b"\x08", "field 1 is truncated"),
        (b"\x19\x01\x02", "field 3 is truncated"),
        (b"\x0a\x01\x00", "field 1 has the wrong wire type"),
        (b"\x98\x06\x01", "field 99 is not a field of the message"),
        (b"\x00\x01", "field number is not a field of the message"),
        (b"\x10\x80\x80\x80\x80\x10", "field 2 is outside the range of its type"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "field 1 is a varint of more bytes than it may have"),
        (
            b"\x88\x80\x80\x80\x80\x00\x01",
            "field number is a varint of more bytes than it may have",
        ),
        (
            b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            "field 4 is outside the range of its type",
        ),
    ],
)
def test_a_malformed_message_names_its_field(request_bytes: bytes, message: str) -> None:
    with pytest.raises(MalformedRequestError, match=message):
        ENGINE.handle(METHOD_CHECK_ORDER, request_bytes, 1)


def test_a_batch_of_marks_has_bounds() -> None:
    with pytest.raises(MalformedRequestError, match="at least one"):
        ENGINE.handle(METHOD_REPORT_MARKS, b"", 1)
    with pytest.raises(MalformedRequestError, match="at most 1024"):
        ENGINE.handle(METHOD_REPORT_MARKS, b"\x0a\x00" * 1025, 1)
    refused = market.ReportMarksResponse.FromString(
        ENGINE.handle(METHOD_REPORT_MARKS, b"\x0a\x00" * 1024, 1)
    )
    assert len(refused.refusals) == 1024
