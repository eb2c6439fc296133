"""What commands that talk to a running service share."""

import argparse
import getpass
import sys
from collections.abc import Callable
from typing import Any, cast

import grpc

from riskd.commands.connection import open_channel
from riskd.v1 import instrument_service_pb2
from riskd.v1.instrument_service_pb2_grpc import InstrumentServiceStub

PAGE_SIZE = 1000


def account_id(text: str) -> int:
    """Return the id that an argument says. Raises ArgumentTypeError, naming the bound."""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) < 2**64):
        raise argparse.ArgumentTypeError(f"{text!r}: must be 1 to 2^64 - 1")
    return int(text)


class Service:
    """The calls of a running service, with symbols for ids of instruments."""

    def __init__(self, channel: grpc.Channel, arguments: argparse.Namespace) -> None:
        self.channel = channel
        self._timeout_s = arguments.timeout_s
        actor = getattr(arguments, "actor", None) or getpass.getuser()
        self._metadata = (("riskd-actor", actor),)
        self.instruments = self._load_instruments()

    def call(self, method: Any, request: Any) -> Any:
        """Make a call in the time there is, under the name of the actor."""
        return method(request, timeout=self._timeout_s, metadata=self._metadata)

    def instrument_id(self, symbol: str) -> int:
        """Return the id of an instrument. Raises ValueError, naming some that there are."""
        if symbol not in self.instruments:
            shown = ", ".join(list(self.instruments)[:10]) or "none"
            raise ValueError(f"symbol {symbol!r} is unknown: the service has {shown}")
        return self.instruments[symbol].instrument_id

    def _load_instruments(self) -> dict[str, instrument_service_pb2.Instrument]:
        stub = InstrumentServiceStub(self.channel)
        found: dict[str, instrument_service_pb2.Instrument] = {}
        token = ""
        while True:
            request = instrument_service_pb2.ListInstrumentsRequest(
                page_size=PAGE_SIZE, page_token=token
            )
            page = self.call(stub.ListInstruments, request)
            found |= {row.symbol: row for row in page.instruments}
            token = page.next_page_token
            if not token:
                return found


def with_service(command: str, arguments: argparse.Namespace, act: Callable[[Service], int]) -> int:
    """Return what act returns, or say why it failed and return 1."""
    try:
        with open_channel(arguments) as channel:
            return act(Service(channel, arguments))
    except grpc.RpcError as error:
        call = cast(grpc.Call, error)  # What a stub raises is both; the type stubs do not say so.
        text = f"{arguments.address}: {call.code().name}: {call.details()}"
    except (OSError, ValueError) as error:
        text = str(error)
    print(f"riskd {command}: {text}", file=sys.stderr)
    return 1
