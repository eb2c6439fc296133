"""`riskd market`: list instruments of a service, fund, settle, and tell open interest."""

import argparse
import time
from typing import Any

from riskd.commands.connection import add_connection_arguments
from riskd.commands.output import print_figures, print_table
from riskd.commands.service import Service, with_service
from riskd.services.errors import enum_name
from riskd.v1 import instrument_service_pb2 as pb
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import types_pb2
from riskd.v1.instrument_service_pb2_grpc import InstrumentServiceStub
from riskd.v1.market_data_service_pb2_grpc import MarketDataServiceStub

EPILOG = """examples:
  riskd market list
  riskd market funding --symbol BTC-PERP --rate 0.0001 --dry-run
  riskd market settle --symbol BTC-240329 --price 70123.5
  riskd market open-interest --symbol BTC-PERP --quantity 81234

A funding rate above 0 is paid by longs to shorts; the time of a funding is above that of the last,
so that none is paid twice. A settlement closes every position for good; the instrument has expired
or is halted. --dry-run shows what would happen. Exit status: 0 done, 1 refused or failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a command for each thing to do with instruments."""
    parser.epilog = EPILOG
    commands = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    _command(commands, "list", "show all instruments")
    funding = _command(commands, "funding", "pay funding between positions")
    _add_change(funding)
    funding.add_argument("--rate", required=True, help="what longs pay of the notional")
    funding.add_argument("--price", default="", help="of the notional (default: the mark)")
    funding.add_argument(
        "--time-ns", type=int, metavar="NS", help="since 1970, of the funding (default: now)"
    )
    settling = _command(commands, "settle", "close every position at a price, for good")
    _add_change(settling)
    settling.add_argument("--price", required=True, help="of an option: of its underlying")
    interest = _command(commands, "open-interest", "tell the open interest")
    interest.add_argument("--symbol", required=True)
    interest.add_argument("--quantity", required=True, help="in units of the underlying")
    interest.add_argument("--actor", help="who, for the audit (default: this user)")


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary)
    add_connection_arguments(parser)
    return parser


def _add_change(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--symbol", required=True)
    parser.add_argument("--dry-run", action="store_true", help="only show what would happen")
    parser.add_argument("--actor", help="who, for the audit (default: this user)")


def run(arguments: argparse.Namespace) -> int:
    """Do it; return 0 if it is done."""
    actions = {
        "list": _list,
        "funding": _funding,
        "settle": _settle,
        "open-interest": _open_interest,
    }

    def act(service: Service) -> int:
        actions[arguments.action](service, arguments)
        return 0

    return with_service("market", arguments, act)


def _list(service: Service, arguments: argparse.Namespace) -> None:
    header = ("ID", "SYMBOL", "KIND", "ASSET", "SCHEDULE", "TICK", "LOT", "STATE")
    rows = [
        (
            str(row.instrument_id),
            row.symbol,
            enum_name(pb.InstrumentKind.items(), row.kind, "INSTRUMENT_KIND_").lower(),
            row.settlement_asset,
            row.margin_schedule or row.option_rule,
            row.tick_size,
            row.lot_size,
            _state(row),
        )
        for row in service.instruments.values()
    ]
    print_table(header, rows, "><<<<>><")


def _state(row: pb.Instrument) -> str:
    if row.settlement_price:
        return f"settled at {row.settlement_price}"
    return enum_name(types_pb2.TradingState.items(), row.trading_state, "TRADING_STATE_").lower()


def _funding(service: Service, arguments: argparse.Namespace) -> None:
    now_ns = time.time_ns()
    reply = service.call(
        InstrumentServiceStub(service.channel).ApplyFunding,
        pb.ApplyFundingRequest(
            instrument_id=service.instrument_id(arguments.symbol),
            rate=arguments.rate,
            price=arguments.price,
            time_ns=now_ns if arguments.time_ns is None else arguments.time_ns,
            validate_only=arguments.dry_run,
        ),
    )
    asset = service.instruments[arguments.symbol].settlement_asset
    print_figures(
        (
            ("positions", str(reply.position_count)),
            ("paid", f"{reply.paid} {asset}"),
            ("received", f"{reply.received} {asset}"),
        )
    )


def _settle(service: Service, arguments: argparse.Namespace) -> None:
    reply = service.call(
        InstrumentServiceStub(service.channel).SettleInstrument,
        pb.SettleInstrumentRequest(
            instrument_id=service.instrument_id(arguments.symbol),
            price=arguments.price,
            validate_only=arguments.dry_run,
        ),
    )
    asset = service.instruments[arguments.symbol].settlement_asset
    print_figures(
        (
            ("positions", str(reply.position_count)),
            ("released orders", str(reply.released_order_count)),
            ("profit", f"{reply.profit} {asset}"),
            ("loss", f"{reply.loss} {asset}"),
            ("deficit", f"{reply.deficit} {asset}"),
        )
    )


def _open_interest(service: Service, arguments: argparse.Namespace) -> None:
    reply = service.call(
        MarketDataServiceStub(service.channel).ReportOpenInterest,
        market_pb.ReportOpenInterestRequest(
            instrument_id=service.instrument_id(arguments.symbol),
            open_interest=arguments.quantity,
        ),
    )
    print_figures((("revision", str(reply.revision)),))
