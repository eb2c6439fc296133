"""`riskd check`: send one order to a running service and show its decision."""

import argparse
import sys
import time
from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf import json_format

from riskd import limits
from riskd.catalogue import Asset, Instrument
from riskd.commands.connection import add_connection_arguments, open_channel
from riskd.commands.output import print_figures
from riskd.commands.service import account_id
from riskd.numbers import NumberError, leverage_text, parse_decimal, rate_text
from riskd.v1 import instrument_service_pb2, types_pb2
from riskd.v1 import order_risk_service_pb2 as pb
from riskd.v1.instrument_service_pb2_grpc import InstrumentServiceStub
from riskd.v1.order_risk_service_pb2_grpc import OrderRiskServiceStub

EPILOG = """examples:
  riskd check --account 7 --symbol BTCUSDT --side buy --quantity 0.5 --price 65000
  riskd check --account 7 --symbol BTCUSDT --side sell --quantity 0.5 --view full
  riskd check --account 7 --symbol BTCUSDT --side buy --quantity 0.5 --price 65000 --reserve

Without --price it is a market order. Without --reserve nothing changes. Exit status: 0 accepted,
1 rejected or failed."""

# Units of a violation's numbers (docs/decision.md); all others are money.
_IN_LOTS = {
    types_pb2.REASON_CODE_BELOW_ORDER_QUANTITY_MIN,
    types_pb2.REASON_CODE_EXCEEDS_ORDER_QUANTITY_MAX,
    types_pb2.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE,
    types_pb2.REASON_CODE_SHORT_OPTION_NOT_PERMITTED,
    types_pb2.REASON_CODE_POSITION_SIDE_WOULD_TURN,
}
_IN_TICKS = {
    types_pb2.REASON_CODE_PRICE_OUTSIDE_COLLAR,
    types_pb2.REASON_CODE_LIMIT_COLLAR_PPB,
    types_pb2.REASON_CODE_LIMIT_COLLAR_TICKS,
}
_ACCEPTED = (types_pb2.DECISION_ACCEPTED, types_pb2.DECISION_ACCEPTED_WITH_WARNING)
_PICO_DIGITS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the order and where to send it."""
    parser.description = "Send one order to a running service and show its decision."
    parser.epilog = EPILOG
    add_connection_arguments(parser)
    parser.add_argument("--account", required=True, type=account_id, metavar="ID")
    parser.add_argument("--symbol", required=True, help="symbol of the instrument")
    parser.add_argument("--side", required=True, choices=("buy", "sell"))
    parser.add_argument("--quantity", required=True, help="units of the underlying")
    parser.add_argument("--price", help="limit price; a market order without it")
    parser.add_argument("--reduce-only", action="store_true", help="refuse it if it would open")
    parser.add_argument(
        "--reserve", action="store_true", help="reserve margin when accepted (default: only check)"
    )
    parser.add_argument(
        "--view", choices=("basic", "margin", "full"), default="margin", help="how much to show"
    )
    parser.add_argument("--gateway", type=int, default=1, metavar="ID", help="(default: 1)")
    parser.add_argument(
        "--client-order-id", type=int, metavar="ID", help="(default: the time in nanoseconds)"
    )
    parser.add_argument("--json", action="store_true", help="print the reply as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Send the order; return 0 if it is accepted."""
    try:
        with open_channel(arguments) as channel:
            instrument = find_instrument(channel, arguments.symbol, arguments.timeout_s)
            request = _request(arguments, instrument)
            reply = OrderRiskServiceStub(channel).CheckOrder(request, timeout=arguments.timeout_s)
    except grpc.RpcError as error:
        call = cast(grpc.Call, error)  # What a stub raises is both; the type stubs do not say so.
        text = f"{call.code().name}: {call.details()}"
        print(f"riskd check: {arguments.address}: {text}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"riskd check: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json_format.MessageToJson(reply, preserving_proto_field_name=True))
    else:
        _show(request, reply, instrument)
    return 0 if reply.decision in _ACCEPTED else 1


def find_instrument(channel: grpc.Channel, symbol: str, timeout_s: float) -> Instrument:
    """Return an instrument of the service. Raises ValueError, naming some that there are."""
    stub = InstrumentServiceStub(channel)
    assets = {
        asset.symbol: Asset(asset.asset_id, asset.symbol, asset.scale)
        for asset in stub.ListAssets(
            instrument_service_pb2.ListAssetsRequest(), timeout=timeout_s
        ).assets
    }
    seen: list[str] = []
    token = ""
    while True:
        page = stub.ListInstruments(
            instrument_service_pb2.ListInstrumentsRequest(page_size=1000, page_token=token),
            timeout=timeout_s,
        )
        for row in page.instruments:
            if row.symbol == symbol:
                return Instrument(
                    row.instrument_id,
                    row.symbol,
                    row.kind,
                    assets[row.settlement_asset],
                    *parse_decimal(row.tick_size, "tick_size"),
                    *parse_decimal(row.lot_size, "lot_size"),
                    row.mark_units_per_tick,
                )
            seen.append(row.symbol)
        token = page.next_page_token
        if not token:
            shown = ", ".join(seen[:10]) or "none"
            raise ValueError(f"symbol {symbol!r} is unknown: the service has {shown}")


def _request(arguments: argparse.Namespace, instrument: Instrument) -> pb.CheckOrderRequest:
    """Return the order in the engine's integers. Raises NumberError."""
    is_limit = arguments.price is not None
    for field, value, bound in (
        ("account", arguments.account, 2**64),
        ("gateway", arguments.gateway, 2**32),
        ("client-order-id", arguments.client_order_id or 1, 2**64),
    ):
        if not 0 < value < bound:
            raise NumberError(field, str(value), f"must be 1 to {bound - 1}")
    return pb.CheckOrderRequest(
        account_id=arguments.account,
        instrument_id=instrument.instrument_id,
        client_order_id=arguments.client_order_id or time.time_ns(),
        side=types_pb2.SIDE_BUY if arguments.side == "buy" else types_pb2.SIDE_SELL,
        order_type=types_pb2.ORDER_TYPE_LIMIT if is_limit else types_pb2.ORDER_TYPE_MARKET,
        price_ticks=instrument.ticks(arguments.price, "price") if is_limit else 0,
        quantity_lots=instrument.lots(arguments.quantity, "quantity"),
        flags=pb.ORDER_FLAG_REDUCE_ONLY if arguments.reduce_only else 0,
        gateway_id=arguments.gateway,
        mode=pb.CHECK_MODE_RESERVE if arguments.reserve else pb.CHECK_MODE_CHECK_ONLY,
        view=pb.DecisionView.Value(f"DECISION_VIEW_{arguments.view.upper()}"),
        sent_time_ns=time.time_ns(),
    )


@dataclass(frozen=True, slots=True)
class _Texts:
    """Writes the integers of a reply as people read them."""

    instrument: Instrument

    def money(self, minor: int) -> str:
        return f"{self.instrument.asset.amount(minor)} {self.instrument.asset.symbol}"

    def price(self, ticks: int) -> str:
        return self.instrument.price(ticks) if ticks else "none"

    def violation(self, reason: int, number: int) -> str:
        if reason in _IN_LOTS:
            return self.instrument.quantity(number)
        if reason in _IN_TICKS:
            return self.instrument.price(number)
        kind = reason - limits.REASON_OFFSET
        if not limits.is_kind(kind):
            return self.money(number)
        text = limits.write_value(number, kind, self.instrument.asset, self.instrument)
        is_money = limits.unit_of(kind) is limits.Unit.MONEY
        return f"{text} {self.instrument.asset.symbol}" if is_money else text


def _show(
    request: pb.CheckOrderRequest, reply: pb.CheckOrderResponse, instrument: Instrument
) -> None:
    """Print the decision and its figures."""
    texts = _Texts(instrument)
    decision = types_pb2.Decision.Name(reply.decision).removeprefix("DECISION_")
    reason = _reason(reply.reason)
    print(decision if reason == "NONE" else f"{decision}: {reason}")
    price = texts.price(request.price_ticks) if request.price_ticks else "market"
    side = types_pb2.Side.Name(request.side).removeprefix("SIDE_").lower()
    status = types_pb2.LiquidationStatus.Name(reply.liquidation_status)
    liquidation = {
        types_pb2.LIQUIDATION_STATUS_AT_PRICE: texts.price(reply.liquidation_price_ticks),
        types_pb2.LIQUIDATION_STATUS_UNSPECIFIED: "not computed",
    }.get(reply.liquidation_status, status.removeprefix("LIQUIDATION_STATUS_").lower())
    figures = [
        (
            "order",
            f"{side} {instrument.quantity(request.quantity_lots)} {instrument.symbol} at {price}, "
            f"account {request.account_id}",
        ),
        ("client order id", str(request.client_order_id)),
    ]
    if reply.reservation_id:
        figures.append(("reservation", str(reply.reservation_id)))
    figures += [
        (name, "not known" if reply.margin_unknown else texts.money(minor))
        for name, minor in (
            ("margin of this order", reply.reserved_minor),
            ("initial margin", reply.initial_margin_minor),
            ("available", reply.available_minor),
        )
    ]
    figures += [
        ("liquidation price", liquidation),
    ]
    if reply.decision == types_pb2.DECISION_REJECTED:
        figures.append(("largest size", instrument.quantity(reply.max_quantity_lots)))
    if reply.HasField("detail"):
        figures += _detail_figures(reply.detail, texts)
    print_figures([*figures, ("revision", str(reply.revision))])
    for violation in reply.detail.violations:
        limit, use, order_use = (
            texts.violation(violation.reason, number)
            for number in (violation.limit, violation.use, violation.order_use)
        )
        level = ""
        if violation.scope:
            scope = types_pb2.LimitScope.Name(violation.scope).removeprefix("LIMIT_SCOPE_").lower()
            level = f" of {scope} {violation.scope_id}{' (a warning)' if violation.soft else ''}"
        print(
            f"  violated {_reason(violation.reason)}{level}: limit {limit}, in use {use}, "
            f"this order {order_use}"
        )


def _detail_figures(detail: pb.DecisionDetail, texts: _Texts) -> list[tuple[str, str]]:
    """Return the figures of the position after the fill."""
    instrument = texts.instrument
    figures = [
        ("position after", instrument.quantity(detail.position_lots)),
        ("  initial margin", texts.money(detail.position_initial_margin_minor)),
        ("  maintenance margin", texts.money(detail.position_maintenance_margin_minor)),
        ("  unrealised pnl", texts.money(detail.position_unrealised_pnl_minor)),
        ("  equity", texts.money(detail.equity_minor)),
        ("  margin ratio", _ratio(detail.margin_ratio_ppm)),
        ("  bankruptcy price", texts.price(detail.bankruptcy_price_ticks)),
        ("  leverage", leverage_text(detail.leverage_hundredths)),
        ("  tier", str(detail.tier_index)),
        ("mark", instrument.mark_price(detail.mark_price) if detail.mark_price else "none"),
        ("schedule version", str(detail.schedule_version)),
    ]
    if detail.HasField("greeks"):
        figures += [
            (field.name.removesuffix("_pico").replace("_", " "), f"{value / 10**_PICO_DIGITS:.12g}")
            for field, value in detail.greeks.ListFields()
        ]
    return figures


def _ratio(ppm: int) -> str:
    return "no equity" if ppm == 2**63 - 1 else rate_text(ppm * 1000)


def _reason(reason: types_pb2.ReasonCode.ValueType) -> str:
    return types_pb2.ReasonCode.Name(reason).removeprefix("REASON_CODE_")
