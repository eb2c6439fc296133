"""`riskd serve` as it is, with a market, for programs that are not ours.

Three times: in plain text, with TLS, and with TLS that asks clients for a certificate.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from riskd.v1 import account_service_pb2 as accounts_pb
from riskd.v1 import instrument_service_pb2 as instruments_pb
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1.account_service_pb2_grpc import AccountServiceStub
from riskd.v1.instrument_service_pb2_grpc import InstrumentServiceStub
from riskd.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from tests.processes import running
from tests.service.authority import Authority
from tests.service.conftest import btc_instrument, btc_schedule

STOP_S = 30


@dataclass(frozen=True, slots=True)
class Door:
    """Where a server listens; tls has the paths ca, and certificate and key of a client."""

    name: str
    address: str
    tls: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """What runs, and what is to be said about it."""

    doors: list[Door]
    notes: list[str]
    pid: int


@contextmanager
def serving() -> Iterator[Service]:
    """Start services with account 7 and instrument 1 at 60,000; they are gone at the end.

    Raises FileNotFoundError if there is no openssl.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="riskd-interop-")))
        make_certificates(folder)
        service = stack.enter_context(started())
        if len(service.doors) < 2:
            yield service
            return
        tls = {"ca": folder / "ca.pem"}
        flags = [f"--certificate-file={folder}/server.pem"]
        flags.append(f"--key-file={folder}/server.key")
        secured = stack.enter_context(started(*flags, suffix="-tls", tls=tls)).doors
        flags.append(f"--client-ca-file={folder}/ca.pem")
        tls |= {"certificate": folder / "client.pem", "key": folder / "client.key"}
        secured += stack.enter_context(started(*flags, suffix="-mtls", tls=tls)).doors
        yield Service([*service.doors, *secured], service.notes, service.pid)


def make_certificates(folder: Path) -> None:
    """Write an authority, a server's certificate for localhost and a client's: NAME.pem, .key."""
    authority = Authority(folder, "ca")
    authority.sign("server")
    authority.sign("client", subject="/CN=gateway-3")


@contextmanager
def started(*flags: str, suffix: str = "", tls: dict[str, Path] | None = None) -> Iterator[Service]:
    """Start a service with a market; its doors have names with this suffix, TLS if there is one.

    The tls of a Unix socket is none.
    """
    with tempfile.TemporaryDirectory(prefix="riskd-interop-") as directory:
        words = [
            *("--control-address", "127.0.0.1:0", "--listener-addresses", "127.0.0.1:0"),
            *("--metrics-address", ""),
            *("--durability", "process", "--journal-directory", f"{directory}/journal"),
            *("--orders-max", "1000000", "--log-level", "error", *flags),
        ]
        with running(*words) as (process, said):
            doors = []
            for line in said:
                found = re.match(r"(control server|native listener): (\S+:\S+), ", line)
                if found:
                    name, address = found[1].partition(" ")[0] + suffix, found[2]
                    secured = {} if address.startswith("unix:") else dict(tls or {})
                    doors.append(Door(name, address, secured))
            _open_market(doors[0])
            notes = [line.strip() for line in said if line.startswith("native listener: none")]
            yield Service(doors, notes, process.pid)
            process.terminate()
            if process.wait(STOP_S) != 0:
                raise RuntimeError(f"riskd serve ended with status {process.returncode}")


def _open_channel(door: Door) -> grpc.Channel:
    if not door.tls:
        return grpc.insecure_channel(door.address)
    ca, key, certificate = (
        door.tls[name].read_bytes() if name in door.tls else None
        for name in ("ca", "key", "certificate")
    )
    # The certificate is localhost's.
    options = [("grpc.ssl_target_name_override", "localhost")]
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(door.address, credentials, options)


def _open_market(door: Door) -> None:
    with _open_channel(door) as channel:
        instruments = InstrumentServiceStub(channel)
        instruments.CreateAsset(instruments_pb.CreateAssetRequest(symbol="USDT", scale=6))
        instruments.UpsertMarginSchedule(
            instruments_pb.UpsertMarginScheduleRequest(schedule=btc_schedule())
        )
        instruments.UpsertInstrument(
            instruments_pb.UpsertInstrumentRequest(instrument=btc_instrument())
        )
        AccountServiceStub(channel).CreateAccount(
            accounts_pb.CreateAccountRequest(
                account_id=7, settlement_asset="USDT", initial_collateral="1000000000"
            )
        )
        mark = marks_pb.Mark(instrument_id=1, mark_price=1_200_000, time_ns=time.time_ns())
        MarketDataServiceStub(channel).ReportMarks(marks_pb.ReportMarksRequest(marks=[mark]))
