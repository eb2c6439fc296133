"""Bytes: strict reading, and the content that a repeat must share."""

from typing import Final, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb

AnyMessage = TypeVar("AnyMessage", bound=Message)
MARKS_MAX: Final = 1024
BATCH_MAX: Final = 64


class MalformedRequestError(ValueError):
    """The request's bytes are not a valid message. Nothing changed."""


def serialise(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def order_content(request: orders_pb.CheckOrderRequest) -> bytes:
    """Return what a repeat must have in common with the first request: all but the time."""
    copy = orders_pb.CheckOrderRequest()
    copy.CopyFrom(request)
    copy.sent_time_ns = 0
    return serialise(copy)


def amendment_content(request: orders_pb.CheckAmendmentRequest) -> bytes:
    """Return what a repeat must have in common with the first request: all but the time."""
    copy = orders_pb.CheckAmendmentRequest()
    copy.CopyFrom(request)
    copy.sent_time_ns = 0
    return serialise(copy)


def execution_content(request: orders_pb.ReportExecutionRequest) -> bytes:
    """Return what a repeat must have in common with the first request: all but the time."""
    copy = orders_pb.ReportExecutionRequest()
    copy.CopyFrom(request)
    copy.venue_time_ns = 0
    return serialise(copy)


def decode_check_order(request: bytes) -> orders_pb.CheckOrderRequest:
    check_wire(request, orders_pb.CheckOrderRequest.DESCRIPTOR)
    return parse(request, orders_pb.CheckOrderRequest())


def decode_check_amendment(request: bytes) -> orders_pb.CheckAmendmentRequest:
    check_wire(request, orders_pb.CheckAmendmentRequest.DESCRIPTOR)
    return parse(request, orders_pb.CheckAmendmentRequest())


def decode_report_execution(request: bytes) -> orders_pb.ReportExecutionRequest:
    check_wire(request, orders_pb.ReportExecutionRequest.DESCRIPTOR)
    return parse(request, orders_pb.ReportExecutionRequest())


def decode_get_reservation(request: bytes) -> orders_pb.GetReservationRequest:
    check_wire(request, orders_pb.GetReservationRequest.DESCRIPTOR)
    return parse(request, orders_pb.GetReservationRequest())


def decode_report_marks(request: bytes) -> market_pb.ReportMarksRequest:
    check_wire(request, market_pb.ReportMarksRequest.DESCRIPTOR)
    message = parse(request, market_pb.ReportMarksRequest())
    if not 1 <= len(message.marks) <= MARKS_MAX:
        raise MalformedRequestError(f"marks {len(message.marks)} is not 1 to {MARKS_MAX}")
    return message


def decode_batch(request: bytes) -> orders_pb.BatchCheckOrdersRequest:
    check_wire(request, orders_pb.BatchCheckOrdersRequest.DESCRIPTOR)
    message = parse(request, orders_pb.BatchCheckOrdersRequest())
    if not 1 <= len(message.orders) <= BATCH_MAX:
        raise MalformedRequestError(f"orders {len(message.orders)} is not 1 to {BATCH_MAX}")
    if message.mode > orders_pb.BATCH_MODE_ALL_OR_NONE:
        raise MalformedRequestError(f"batch mode {message.mode} is not known")
    return message


def decode_advance_time(request: bytes) -> None:
    """The request of advance_time is empty."""
    if request:
        raise MalformedRequestError(f"{len(request)} bytes where none are expected")


def encode_varint_fields(*values: int) -> bytes:
    """Return unsigned fields 1, 2, ... as protobuf has them; a zero is left out."""
    encoded = bytearray()
    for number, value in enumerate(values, start=1):
        if value != 0:
            encoded += bytes([number << 3]) + varint(value)
    return bytes(encoded)


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def parse(request: bytes, message: AnyMessage) -> AnyMessage:
    try:
        message.ParseFromString(request)
    except DecodeError as error:
        raise MalformedRequestError(str(error)) from error
    return message


WIRE_VARINT: Final = 0
WIRE_FIXED64: Final = 1
WIRE_BYTES: Final = 2
WIRE_TYPES: Final = {
    FieldDescriptor.TYPE_ENUM: WIRE_VARINT,
    FieldDescriptor.TYPE_UINT32: WIRE_VARINT,
    FieldDescriptor.TYPE_UINT64: WIRE_VARINT,
    FieldDescriptor.TYPE_SINT64: WIRE_VARINT,
    FieldDescriptor.TYPE_FIXED64: WIRE_FIXED64,
    FieldDescriptor.TYPE_MESSAGE: WIRE_BYTES,
}
VARINT_MAX: Final = {
    FieldDescriptor.TYPE_ENUM: 2**31 - 1,
    FieldDescriptor.TYPE_UINT32: 2**32 - 1,
    FieldDescriptor.TYPE_UINT64: 2**64 - 1,
    FieldDescriptor.TYPE_SINT64: 2**64 - 1,
}


def check_wire(request: bytes, descriptor: Descriptor) -> None:
    """Check what the protobuf library forgives: unknown fields, numbers out of their type's range.

    The library keeps unknown fields and takes the low bits of a number that is too large. Raises
    MalformedRequestError.
    """
    position = 0
    while position < len(request):
        tag, position = read_varint(request, position)
        number, wire_type = tag >> 3, tag & 7
        field = descriptor.fields_by_number.get(number)
        if field is None or tag >= 2**32:
            raise MalformedRequestError(f"{descriptor.name} has no field {number}")
        if wire_type != WIRE_TYPES[field.type]:
            raise MalformedRequestError(f"{field.full_name} has wire type {wire_type}")
        if wire_type == WIRE_VARINT:
            value, position = read_varint(request, position)
            if value > VARINT_MAX[field.type]:
                raise MalformedRequestError(f"{field.full_name} {value} is out of range")
        elif wire_type == WIRE_FIXED64:
            position += 8
        else:
            size_bytes, position = read_varint(request, position)
            if size_bytes > len(request) - position:
                raise MalformedRequestError(f"{field.full_name} is cut short")
            message_type = field.message_type
            assert message_type is not None
            check_wire(request[position : position + size_bytes], message_type)
            position += size_bytes
    if position > len(request):
        raise MalformedRequestError(f"{descriptor.name} is cut short")


def read_varint(request: bytes, position: int) -> tuple[int, int]:
    """Return a number of up to 64 bits in up to ten bytes, and the position after it."""
    value = 0
    for count in range(10):
        if position >= len(request):
            raise MalformedRequestError("a number is cut short")
        byte = request[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value >= 2**64:
                break
            return value, position
    raise MalformedRequestError("a number has more than 64 bits")
