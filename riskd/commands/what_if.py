"""`riskd what-if`: margin of a portfolio that need not exist, as a running service has it."""

import argparse
from collections.abc import Iterator

from google.protobuf import json_format

from riskd.commands.connection import add_connection_arguments
from riskd.commands.output import print_figures, print_table
from riskd.commands.service import Service, account_id, with_service
from riskd.services.errors import enum_name
from riskd.v1 import margin_service_pb2 as pb
from riskd.v1 import types_pb2
from riskd.v1.margin_service_pb2_grpc import MarginServiceStub

EPILOG = """examples:
  riskd what-if --account 7
  riskd what-if --account 7 --order BTC-PERP=-0.5@64000 --mark BTC-PERP=61000
  riskd what-if --asset USDT --balance USDT=10000 --position BTC-PERP=0.5@65000,leverage=20
  riskd what-if --asset USDT --position BTC-PERP=-2@65000,wallet=900 --json

It starts from an account of the service, or from an empty one, and changes nothing there. Positions
take the place of those that are there, orders come on top: a quantity below 0 is short, or a sell;
an order without @PRICE is a market order. A position with a wallet is isolated. Exit status: 0 if
every order is accepted, else 1."""

_SIDES = {"long": types_pb2.POSITION_SIDE_LONG, "short": types_pb2.POSITION_SIDE_SHORT}
_ACCEPTED = (types_pb2.DECISION_ACCEPTED, types_pb2.DECISION_ACCEPTED_WITH_WARNING)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the portfolio and where the service is."""
    parser.description = "Margin of a portfolio that need not exist, from a running service."
    parser.epilog = EPILOG
    add_connection_arguments(parser)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--account", type=account_id, metavar="ID", help="start from this account")
    start.add_argument("--asset", metavar="SYMBOL", help="start from nothing, settled in this")
    parser.add_argument("--hedge", action="store_true", help="with --asset: two position sides")
    for name, form, summary in (
        ("balance", "ASSET=AMOUNT", "cash, or a balance of another asset"),
        ("position", "SYMBOL=QUANTITY@ENTRY[,leverage=X][,wallet=X][,side=long]", "a position"),
        ("order", "SYMBOL=QUANTITY[@PRICE][,side=long]", "an order, checked and reserved"),
        ("mark", "SYMBOL=PRICE", "a mark price"),
    ):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar=form, help=f"{summary}; repeatable"
        )
    parser.add_argument("--json", action="store_true", help="print the reply as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the portfolio's margin."""
    return with_service("what-if", arguments, lambda service: _simulate(service, arguments))


def _simulate(service: Service, arguments: argparse.Namespace) -> int:
    request = pb.SimulatePortfolioRequest(
        account_id=arguments.account or 0,
        settlement_asset=arguments.asset or "",
        balances=[
            pb.SimulatedBalance(asset=asset, amount=amount)
            for asset, amount in (_pair(text, "balance") for text in arguments.balance)
        ],
        positions=[_position(service, text) for text in arguments.position],
        orders=[_order(service, text) for text in arguments.order],
        marks=[
            pb.SimulatedMark(instrument_id=service.instrument_id(symbol), mark_price=price)
            for symbol, price in (_pair(text, "mark") for text in arguments.mark)
        ],
    )
    if arguments.hedge:
        request.position_mode = types_pb2.POSITION_MODE_HEDGE
    reply = service.call(MarginServiceStub(service.channel).SimulatePortfolio, request)
    if arguments.json:
        print(json_format.MessageToJson(reply, preserving_proto_field_name=True))
    else:
        _show(arguments, reply)
    return 0 if all(each.decision in _ACCEPTED for each in reply.decisions) else 1


def _pair(text: str, name: str) -> tuple[str, str]:
    """Return what stands before and after the first =. Raises ValueError."""
    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise ValueError(f"--{name} {text!r}: must be NAME=VALUE")
    return key, value


def _options(text: str, name: str, allowed: tuple[str, ...]) -> tuple[str, str, dict[str, str]]:
    """Return quantity, price (empty if there is none) and options. Raises ValueError."""
    amounts, *given = text.split(",")
    options: dict[str, str] = {}
    for key, value in (_pair(each, name) for each in given):
        if key not in allowed:
            raise ValueError(f"--{name}: {key!r} is not one of {', '.join(allowed)}")
        if key in options:
            raise ValueError(f"--{name}: {key} is there twice")
        options[key] = value
    quantity, at, price = amounts.partition("@")
    if at and not price:
        raise ValueError(f"--{name} {text!r}: there is no price after @")
    return quantity, price, options


def _side(options: dict[str, str], name: str) -> types_pb2.PositionSide.ValueType:
    side = options.get("side")
    if side is None:
        return types_pb2.POSITION_SIDE_UNSPECIFIED
    if side not in _SIDES:
        raise ValueError(f"--{name}: side is {side!r}: must be long or short")
    return _SIDES[side]


def _position(service: Service, text: str) -> pb.SimulatedPosition:
    symbol, rest = _pair(text, "position")
    quantity, price, options = _options(rest, "position", ("leverage", "wallet", "side"))
    position = pb.SimulatedPosition(
        instrument_id=service.instrument_id(symbol),
        quantity=quantity,
        entry_price=price,
        leverage=options.get("leverage", ""),
        isolated_wallet=options.get("wallet", ""),
        position_side=_side(options, "position"),
    )
    if "wallet" in options:
        position.margin_mode = types_pb2.MARGIN_MODE_ISOLATED
    return position


def _order(service: Service, text: str) -> pb.SimulatedOrder:
    symbol, rest = _pair(text, "order")
    quantity, price, options = _options(rest, "order", ("side",))
    is_sell = quantity.startswith("-")
    return pb.SimulatedOrder(
        instrument_id=service.instrument_id(symbol),
        side=types_pb2.SIDE_SELL if is_sell else types_pb2.SIDE_BUY,
        quantity=quantity.removeprefix("-"),
        price=price,
        order_type=types_pb2.ORDER_TYPE_LIMIT if price else types_pb2.ORDER_TYPE_MARKET,
        position_side=_side(options, "order"),
    )


def _show(arguments: argparse.Namespace, reply: pb.SimulatePortfolioResponse) -> None:
    print_figures(_figures(reply.summary))
    if reply.positions:
        header = "SYMBOL SIDE MODE QUANTITY ENTRY MARK PNL INITIAL MAINTENANCE LIQUIDATION DISTANCE"
        print()
        print_table(header.split(), list(map(_cells, reply.positions)), "<<<>>>>>>>>")
    if reply.decisions:
        print()
        rows = [
            (
                text,
                enum_name(types_pb2.Decision.items(), each.decision, "DECISION_"),
                enum_name(types_pb2.ReasonCode.items(), each.reason, "REASON_CODE_"),
                each.reserved or "unknown",
            )
            for text, each in zip(arguments.order, reply.decisions, strict=True)
        ]
        print_table(("ORDER", "DECISION", "REASON", "RESERVED"), rows, "<<<>")


def _figures(summary: pb.MarginSummary) -> Iterator[tuple[str, str]]:
    for field in (
        "cash",
        "collateral_value",
        "cross_equity",
        "isolated_wallets",
        "initial_margin",
        "available",
        "maintenance_level",
        "search_level",
        "release_level",
        "cross_margin_ratio",
        "credit_line",
    ):
        value = getattr(summary, field)
        if value:
            unit = "" if field == "cross_margin_ratio" else f" {summary.settlement_asset}"
            yield field.replace("_", " "), f"{value}{unit}"


def _cells(row: pb.PositionMargin) -> tuple[str, ...]:
    status = enum_name(
        types_pb2.LiquidationStatus.items(), row.liquidation_status, "LIQUIDATION_STATUS_"
    )
    return (
        row.symbol,
        enum_name(types_pb2.PositionSide.items(), row.position_side, "POSITION_SIDE_").lower(),
        enum_name(types_pb2.MarginMode.items(), row.margin_mode, "MARGIN_MODE_").lower(),
        row.quantity,
        row.entry_price,
        row.mark_price,
        row.unrealised_pnl,
        row.initial_margin,
        row.maintenance_margin,
        row.liquidation_price or status.lower(),
        row.liquidation_distance,
    )
