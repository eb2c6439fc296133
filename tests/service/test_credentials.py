"""What clients show: the Python client, the commands, and where tokens must never turn up."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from riskd import cli
from riskd.commands.token import new_token
from riskd.identities import token_hash
from riskd.native import NativeDoor
from riskd.settings import Settings
from riskd.wiring import build_server
from riskd_client import (
    Client,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    tls_credentials,
)
from tests.processes import running
from tests.service.authority import Authority, needs_openssl
from tests.service.conftest import NOW_NS, Clock, Rig, new_order, open_market
from tests.service.native import needs_native
from tests.service.test_identities import ORDERS, ask, guarded_door, identity, token_of

pytestmark = needs_openssl

TOKEN = new_token()
TABLES = (
    identity(
        "desk",
        ["gateway", "trader", "admin", "feed", "auditor"],
        'accounts = "all"',
        "gateways = [1]",
        f'token_hashes = ["{token_hash(TOKEN)}"]',
        'common_names = ["desk"]',
    ),
    identity("viewer", ["trader"], "accounts = [8]"),
)


@dataclass
class Secured:
    """A control server with TLS that asks for certificates, and identities."""

    rig: Rig
    authority: Authority
    desk: tuple[Path, Path]

    @property
    def address(self) -> str:
        return f"localhost:{self.rig.port}"

    def credentials(self, name: str = "") -> grpc.ChannelCredentials:
        certificate, key = self.authority.sign(name) if name else self.desk
        return tls_credentials(self.authority.certificate, certificate, key)


@pytest.fixture
def secured(tmp_path: Path, clock: Clock, new_rig: Callable[..., Rig]) -> Secured:
    authority = Authority(tmp_path, "authority")
    path = tmp_path / "identities.toml"
    path.write_text("".join(TABLES))
    certificate, key = authority.sign("server")
    rig = new_rig(
        clock,
        identities_file=str(path),
        certificate_file=str(certificate),
        key_file=str(key),
        client_ca_file=str(authority.certificate),
    )
    service = Secured(rig, authority, authority.sign("desk"))
    with grpc.secure_channel(service.address, service.credentials()) as channel:
        open_market(Rig(rig.server, rig.engine, rig.clock, rig.port, channel))
    return service


def test_a_client_is_known_by_its_certificate_or_token(secured: Secured) -> None:
    with Client(secured.address, credentials=secured.credentials()) as client:
        assert client.get_account(7).account_id == 7
    stranger = secured.credentials("stranger")
    # with has its first call, and closes it after that fails.
    with pytest.raises(Unauthenticated) as unknown, Client(secured.address, credentials=stranger):
        pass
    assert unknown.value.reason == "CERTIFICATE_UNKNOWN"
    with Client(secured.address, credentials=stranger, token=TOKEN) as client:
        assert client.get_account(7).account_id == 7
        (denial,) = client.list_denials()
        assert (denial.reason, denial.identity, denial.count) == ("CERTIFICATE_UNKNOWN", "", 1)
        assert denial.certificate == "CN=stranger"
        assert denial.method == "riskd.v1.InstrumentService/ListInstruments"
        assert denial.first_time_ns == denial.last_time_ns > 0
        assert denial.peer
    viewer = Client(secured.address, credentials=stranger, token=token_of("viewer"))
    with viewer as client, pytest.raises(PermissionDenied) as denied:
        client.get_account(7)
    assert denied.value.reason == "ACCOUNT_NOT_PERMITTED"
    assert denied.value.metadata["account_id"] == "7"
    without = tls_credentials(secured.authority.certificate)
    with pytest.raises(Unavailable), Client(secured.address, credentials=without):
        pass


def test_a_client_sends_no_token_in_plain_text_to_another_machine() -> None:
    for target in ("risk.example.com:50051", "192.0.2.1:50051", "[2001:db8::1]:50051"):
        with pytest.raises(ValueError, match="a token is sent with credentials only"):
            Client(target, token=TOKEN)
    for target in ("localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/x"):
        Client(target, token=TOKEN).close()
    with pytest.raises(ValueError, match="token is not") as refused:
        Client("localhost:1", token="a b")
    assert "a b" not in str(refused.value)
    with pytest.raises(ValueError, match="both be given"):
        tls_credentials("x", "y")


@pytest.mark.parametrize("by", ["certificate", "token"])
def test_commands_show_who_calls(
    secured: Secured, tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    certificate, key = secured.desk if by == "certificate" else secured.authority.sign("nobody")
    monkeypatch.setenv("RISKD_TLS_CA", str(secured.authority.certificate))
    words = ["--address", secured.address, "--tls-certificate", str(certificate)]
    words += ["--tls-key", str(key)]
    if by == "token":
        words += ["--token-file", str(token_file)]
    order = ["--account", "7", "--symbol", "BTC-PERP", "--side", "buy", "--quantity", "0.1"]
    assert cli.main(["check", *order, "--price", "60000", *words]) == 0
    assert cli.main(["market", "list", *words]) == 0
    assert cli.main(["limits", "list", *words]) == 0
    assert cli.main(["what-if", "--account", "7", *words]) == 0
    capsys.readouterr()
    assert cli.main(["check", *order, "--gateway", "2", "--price", "60000", *words]) == 1
    assert "identity desk may not act as gateway_id 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--address", "192.0.2.1:1", "--token-file", "TOKEN"], "not sent to 192.0.2.1:1 in plain"),
        (["--token-file", "missing"], "missing"),
        (["--token-file", "EMPTY"], "must hold one token"),
        (["--tls-certificate", "x"], "must both be given"),
        (["--tls-certificate", "x", "--tls-key", "y"], "needs --tls-ca"),
    ],
)
def test_commands_refuse_what_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (tmp_path / "TOKEN").write_text(TOKEN)
    (tmp_path / "EMPTY").write_text("")
    files = [str(tmp_path / each) if each.isupper() else each for each in words]
    order = ["--account", "7", "--symbol", "X", "--side", "buy", "--quantity", "1"]
    assert cli.main(["check", *order, *files]) == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert TOKEN not in shown


def test_a_new_token_is_shown_once_or_written_for_its_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["token"]) == 0
    shown = re.fullmatch(
        r'token: (riskd_[A-Za-z0-9_-]{43})\ntoken_hashes = \["([0-9a-f]{64})"\]\n',
        capsys.readouterr().out,
    )
    assert shown is not None
    assert token_hash(shown[1]) == shown[2]
    path = tmp_path / "token"
    assert cli.main(["token", "--output", str(path)]) == 0
    token = path.read_text().strip()
    assert token != shown[1]
    assert path.stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr().out == f'token_hashes = ["{token_hash(token)}"]\n'
    assert cli.main(["token", "--output", str(path)]) == 1
    assert "File exists" in capsys.readouterr().err
    assert path.read_text().strip() == token


def test_native_denials_are_counted_and_listed(
    tmp_path: Path, clock: Clock, new_rig: Callable[..., Rig]
) -> None:
    path = tmp_path / "identities.toml"
    path.write_text("".join(TABLES))
    rig = new_rig(clock, identities_file=str(path), tick_interval_ms=60_000)
    assert rig.guard is not None
    with guarded_door(rig) as native:
        for _ in range(1000):
            ask(native.channel, ORDERS + "CheckOrder", new_order())
        viewer = (("authorization", f"Bearer {token_of('viewer')}"),)
        ask(native.channel, ORDERS + "CheckOrder", new_order(), viewer)
        desk = (("authorization", f"Bearer {TOKEN}"),)
        ask(native.channel, ORDERS + "CheckOrder", new_order(gateway_id=9), desk)
    rig.guard.look()
    assert rig.guard.denials.counts() == {
        ("native", "CREDENTIALS_MISSING"): 1000,
        ("native", "METHOD_NOT_PERMITTED"): 1,
        ("native", "GATEWAY_NOT_PERMITTED"): 1,
    }
    rows = {row.reason: row for row in rig.guard.denials.rows()}
    assert rows["CREDENTIALS_MISSING"].count == 1000
    assert rows["CREDENTIALS_MISSING"].peer.startswith("ipv4:127.0.0.1:")
    assert rows["METHOD_NOT_PERMITTED"].identity == "viewer"
    assert (rows["GATEWAY_NOT_PERMITTED"].identity, rows["GATEWAY_NOT_PERMITTED"].subject) == (
        "desk",
        "9",
    )


def test_a_row_has_the_first_time_and_all_else_of_the_last(
    tmp_path: Path, clock: Clock, new_rig: Callable[..., Rig]
) -> None:
    path = tmp_path / "identities.toml"
    path.write_text("".join(TABLES))
    rig = new_rig(clock, identities_file=str(path), tick_interval_ms=60_000)
    assert rig.guard is not None
    desk = (("authorization", f"Bearer {TOKEN}"),)
    peers = []
    # Three within one look, and one after it.
    for late, gateway_id in enumerate((9, 8, 7, 6)):
        with guarded_door(rig) as native:
            native.listener.set_time(NOW_NS + late)
            ask(native.channel, ORDERS + "CheckOrder", new_order(gateway_id=gateway_id), desk)
        if late >= 2:
            rig.guard.look()
            (row,) = rig.guard.denials.rows()
            assert (row.count, row.first_time_ns, row.time_ns) == (late + 1, NOW_NS, NOW_NS + late)
            assert row.subject == str(gateway_id)
            peers.append(row.peer)
    assert len(set(peers)) == 2


def test_denials_of_more_kinds_than_are_kept_are_counted_still(
    tmp_path: Path, clock: Clock, new_rig: Callable[..., Rig]
) -> None:
    path = tmp_path / "identities.toml"
    names = [f"trader-{number}" for number in range(260)]
    path.write_text("".join(identity(name, ["trader"], "accounts = [8]") for name in names))
    rig = new_rig(clock, identities_file=str(path), tick_interval_ms=60_000)
    assert rig.guard is not None
    with guarded_door(rig) as native:
        for name in names:
            token = (("authorization", f"Bearer {token_of(name)}"),)
            ask(native.channel, ORDERS + "CheckOrder", new_order(), token)
    rig.guard.look()
    assert rig.guard.denials.counts() == {
        ("native", "METHOD_NOT_PERMITTED"): 256,
        ("native", "NOT_KEPT"): 4,
    }


@needs_native
def test_a_unix_socket_wants_a_token_too(
    tmp_path: Path, clock: Clock, new_rig: Callable[..., Rig]
) -> None:
    path = tmp_path / "identities.toml"
    path.write_text("".join(TABLES))
    rig = new_rig(clock, identities_file=str(path))
    assert rig.guard is not None
    settings = Settings(
        identities_file=str(path), listener_addresses=(f"unix:{tmp_path}/riskd.sock",)
    )
    door = NativeDoor(settings, rig.engine, rig.guard)
    door.start()
    try:
        with grpc.insecure_channel(f"unix:{tmp_path}/riskd.sock") as channel:
            answer = ask(channel, ORDERS + "GetReservation", b"")
            assert answer.reason == "CREDENTIALS_MISSING"
            desk = (("authorization", f"Bearer {TOKEN}"),)
            answer = ask(channel, ORDERS + "GetReservation", b"", desk)
            assert answer.code is grpc.StatusCode.OK
    finally:
        door.begin_stop()
        door.stop()


def test_no_door_opens_without_the_identities_of_its_settings(rig: Rig) -> None:
    settings = Settings(identities_file="x")
    for door in (NativeDoor, build_server):
        with pytest.raises(ValueError, match="identities_file is 'x': the door must have a guard"):
            door(settings, rig.engine)


@needs_native
def test_no_token_is_in_a_log_an_error_or_a_row(tmp_path: Path) -> None:
    path = tmp_path / "identities.toml"
    path.write_text("".join(TABLES))
    unknown = "riskd_not-of-the-file"
    with running(
        "--control-address=127.0.0.1:0", "--listener-addresses=127.0.0.1:0", "--durability=none",
        f"--identities-file={path}", "--log-level=debug", stderr=subprocess.PIPE,
    ) as (server, lines):  # fmt: skip
        said = "".join(lines)
        assert f"identities: 2 of {path}, all else is denied" in said
        doors = ("control server: ", "native listener: ")
        addresses = [line.split()[2].removesuffix(",") for line in lines if line.startswith(doors)]
        assert len(addresses) == len(doors)
        errors = ""
        for address in addresses:
            with grpc.insecure_channel(address) as channel:
                for token in (TOKEN, unknown, token_of("viewer")):
                    metadata = (("authorization", f"Bearer {token}"),)
                    for request in (b"\xff", new_order(gateway_id=9)):
                        errors += str(ask(channel, ORDERS + "CheckOrder", request, metadata))
        with Client(addresses[0], token=TOKEN) as client:
            rows = str(client.list_denials())
        assert "TOKEN_UNKNOWN" in rows
        path.write_text("".join(TABLES).replace(token_hash(TOKEN), TOKEN))
        server.send_signal(signal.SIGHUP)
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=60)
        assert server.returncode == 0
        assert "not reloaded" in log
        assert "TOKEN_UNKNOWN" in log
        assert '"door": "native"' in log
        for token in (TOKEN, unknown, token_of("viewer")):
            for text in (said, errors, rows, log):
                assert token not in text
                assert token_hash(token) not in text
