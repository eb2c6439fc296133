"""The native door over TLS 1.3: who is let in, and what stays shut."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from riskd.settings import Settings, SettingsError
from tests.processes import running
from tests.service.authority import Authority, needs_openssl
from tests.service.conftest import TIMEOUT_S, Rig
from tests.service.native import SERVICE, call, listening, seconds_open

if TYPE_CHECKING:
    from riskd.core.listener import Listener
    from riskd.core.tls import Tls
else:
    Listener = pytest.importorskip("riskd.core.listener").Listener
    Tls = pytest.importorskip("riskd.core.tls").Tls

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


def code_of(
    address: str, trusted: Authority, client: tuple[Path, Path] | None = None, request: bytes = b""
) -> Any:
    """Return the status code of a call by a client of its own connection."""
    certificate, key = client or (None, None)
    credentials = grpc.ssl_channel_credentials(
        trusted.certificate.read_bytes(),
        key.read_bytes() if key else None,
        certificate.read_bytes() if certificate else None,
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options) as channel:
        return call(channel, SERVICE + "GetReservation", request)[0]


def test_a_client_that_trusts_the_certificate_is_answered(
    market: Rig, authority: Authority
) -> None:
    with listening(market.engine, tls=Tls(*authority.sign("server"))) as native:
        address = native.address
        assert code_of(address, authority) is grpc.StatusCode.OK
        # A request of many records, and its answer.
        assert code_of(address, authority, None, bytes(1 << 20)) is grpc.StatusCode.INVALID_ARGUMENT
        other = Authority(authority.directory, "other")
        assert code_of(address, other) is grpc.StatusCode.UNAVAILABLE
        assert native.call("CheckOrder", b"")[0] is grpc.StatusCode.UNAVAILABLE
        assert native.listener.counts()["handshakes_failed"] >= 2


@pytest.mark.parametrize("opening", [b"", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_a_handshake_that_stops_is_closed(
    market: Rig, authority: Authority, opening: bytes
) -> None:
    tls = Tls(*authority.sign("patient"))
    with listening(market.engine, tls=tls, handshake_ms_max=300) as native:
        assert seconds_open(native.address, opening) > 0.2


def test_with_an_authority_only_its_clients_are_answered(market: Rig, authority: Authority) -> None:
    other = Authority(authority.directory, "stranger")
    tls = Tls(*authority.sign("server"), authority.certificate)
    with listening(market.engine, tls=tls) as native:
        address = native.address
        assert code_of(address, authority, authority.sign("client")) is grpc.StatusCode.OK
        assert code_of(address, authority) is grpc.StatusCode.UNAVAILABLE
        for client in (other.sign("unknown"), authority.sign("late", days=-1)):
            assert code_of(address, authority, client) is grpc.StatusCode.UNAVAILABLE


def test_certificates_change_without_a_restart(market: Rig, authority: Authority) -> None:
    other = Authority(authority.directory, "next")
    certificate, key = authority.sign("rotated")
    tls = Tls(certificate, key)
    with listening(market.engine, tls=tls) as native:
        address = native.address
        assert code_of(address, authority) is grpc.StatusCode.OK
        for old, new in zip((certificate, key), other.sign("newer"), strict=True):
            old.write_bytes(new.read_bytes())
        assert code_of(address, authority) is grpc.StatusCode.OK
        tls.reload()
        assert code_of(address, other) is grpc.StatusCode.OK
        key.write_text("broken")
        with pytest.raises(ValueError, match=r"key .*rotated\.key"):
            tls.reload()
        assert code_of(address, other) is grpc.StatusCode.OK


def test_the_authority_of_clients_changes_without_a_restart(
    market: Rig, authority: Authority
) -> None:
    other = Authority(authority.directory, "next_clients")
    taken = authority.directory / "clients.pem"
    taken.write_bytes(authority.certificate.read_bytes())
    old, new = authority.sign("old_client"), other.sign("new_client")
    tls = Tls(*authority.sign("server"), taken)
    with listening(market.engine, tls=tls) as native:
        address = native.address
        assert code_of(address, authority, old) is grpc.StatusCode.OK
        assert code_of(address, authority, new) is grpc.StatusCode.UNAVAILABLE
        taken.write_bytes(other.certificate.read_bytes())
        tls.reload()
        assert code_of(address, authority, old) is grpc.StatusCode.UNAVAILABLE
        assert code_of(address, authority, new) is grpc.StatusCode.OK
        taken.write_text("broken")
        with pytest.raises(ValueError, match=r"client certificate authority .*clients\.pem"):
            tls.reload()
        # What was in use stays: nobody else is let in.
        assert code_of(address, authority, new) is grpc.StatusCode.OK
        for client in (old, None):
            assert code_of(address, authority, client) is grpc.StatusCode.UNAVAILABLE


def bytes_of(context: ssl.SSLContext, plain: socket.socket) -> bytes:
    """Return what a server says before it ends the connection; nothing if it is never secured."""
    received = b""
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        while part := secured.recv(100):
            received += part
    return received


@pytest.mark.parametrize(
    ("version", "protocols"),
    [(ssl.TLSVersion.TLSv1_2, ["h2"]), (ssl.TLSVersion.TLSv1_3, ["http/1.1"]),
     (ssl.TLSVersion.TLSv1_3, [])],
)  # fmt: skip
def test_older_tls_and_other_protocols_get_no_connection(
    market: Rig, authority: Authority, version: ssl.TLSVersion, protocols: list[str]
) -> None:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(protocols)
    with listening(market.engine, tls=Tls(*authority.sign("server"))) as native:
        address = native.address
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as plain:
            assert bytes_of(context, plain) == b""
        assert code_of(address, authority) is grpc.StatusCode.OK


def test_files_that_cannot_be_used_are_named(authority: Authority) -> None:
    certificate, key = authority.sign("server")
    _, other_key = authority.sign("another")
    missing = authority.directory / "missing.pem"
    for files, message in (
        ((missing, key), "certificate .*missing.pem.*no such file"),
        ((key, key), "certificate .*server.key"),
        ((certificate, missing), "key .*missing.pem.*no such file"),
        ((certificate, other_key), "key .*another.key"),
        ((certificate, key, missing), "client certificate authority .*missing.pem"),
    ):
        with pytest.raises(ValueError, match=message):
            Tls(*files)


def test_serve_says_what_listens_where_and_reloads_on_sighup(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.sign("serving")
    options = {
        "control-address": "127.0.0.1:0",
        "listener-addresses": f"127.0.0.1:0,unix:{tmp_path}/riskd.sock",
        "metrics-address": "127.0.0.1:0",
        "certificate-file": str(certificate),
        "key-file": str(key),
        "client-ca-file": str(authority.certificate),
        "durability": "none",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    with running(*words, stderr=subprocess.PIPE) as (server, lines):
        assert server.stderr is not None
        control, secured, local, identities, _ = lines[-6:-1]
        assert identities == ("identities: none, everybody who can connect may do everything\n")
        of_authority = f"clients with a certificate of {authority.certificate}\n"
        assert re.fullmatch(rf"control server: (\S+), TLS 1\.2 or 1\.3, {of_authority}", control)
        assert re.fullmatch(rf"native listener: (\S+), TLS 1\.3, {of_authority}", secured)
        assert local.endswith("riskd.sock, plain text, this machine only\n")
        doors = [line.split()[2].removesuffix(",") for line in (control, secured)]
        client = authority.sign("client")
        other = Authority(tmp_path, "later")
        for door in doors:
            assert code_of(door, authority, client) is grpc.StatusCode.OK
        for old, new in zip((certificate, key), other.sign("newer"), strict=True):
            old.write_bytes(new.read_bytes())
        server.send_signal(signal.SIGHUP)
        for what in ("control server", "native listener"):
            line = next(line for line in server.stderr if "reloaded" in line)
            assert '"reloaded"' in line
            assert what in line
        for door in doors:
            assert code_of(door, other, client) is grpc.StatusCode.OK
            assert code_of(door, authority, client) is grpc.StatusCode.UNAVAILABLE
        key.write_text("broken")
        server.send_signal(signal.SIGHUP)
        for _ in range(2):
            refusal = next(line for line in server.stderr if "not reloaded" in line)
            assert str(key) in refusal
        for door in doors:
            assert code_of(door, other, client) is grpc.StatusCode.OK
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"certificate_file": "x"}, "must both be set"),
        ({"client_ca_file": "x"}, "needs a certificate_file"),
        ({"listener_addresses": ("0.0.0.0:0",)}, "listener_addresses .* is not loopback"),
        ({"listener_addresses": ("x",)}, "listener_addresses is 'x': must be host:port"),
        ({"listener_addresses": ("127.0.0.1:0",) * 9}, "must have at most 8"),
    ],
)
def test_settings_that_contradict_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(**values)


def test_an_address_for_other_machines_needs_tls_and_identities() -> None:
    addresses = ("0.0.0.0:0", "unix:/x")
    secured: dict[str, Any] = {"certificate_file": "x", "key_file": "y"}
    for values in (
        {"allow_plaintext_off_loopback": True},
        secured | {"identities_file": "z"},
        secured | {"allow_off_loopback_without_identities": True},
    ):
        found: Settings = Settings(listener_addresses=addresses, **values)
        assert found.listener_addresses == addresses
    tokens = {"identities_file": "z", "allow_plaintext_off_loopback": True}
    for values, message in (
        ({}, "no TLS: set certificate_file, use 127.0.0.1"),
        ({"allow_off_loopback_without_identities": True}, "no TLS: set certificate_file"),
        (secured, "no identities_file: set it, use 127.0.0.1"),
        (tokens, "no TLS, so that tokens of identities_file could be read"),
    ):
        for where in ({"listener_addresses": addresses}, {"control_address": "[::]:0"}):
            with pytest.raises(SettingsError, match=message):
                Settings(**where, **values)


class Renewer:
    """A client in a thread that renews its keys for ever, which Python's ssl cannot."""

    def __init__(self, address: str) -> None:
        library = ctypes.CDLL(ctypes.util.find_library("ssl"))
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(library, name).restype = ctypes.c_void_p
        self._library = library
        host, port = address.split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._context = ctypes.c_void_p(
            library.SSL_CTX_new(ctypes.c_void_p(library.TLS_client_method()))
        )
        self._tls = ctypes.c_void_p(library.SSL_new(self._context))
        library.SSL_set_alpn_protos(self._tls, b"\2h2", 3)
        library.SSL_set_fd(self._tls, self._socket.fileno())
        assert library.SSL_connect(self._tls) == 1
        self._asked_to_stop = False
        self._thread = threading.Thread(target=self._renew)
        self.count = 0

    def _renew(self) -> None:
        library = self._library
        while not self._asked_to_stop and library.SSL_key_update(self._tls, 0) == 1:
            if library.SSL_do_handshake(self._tls) != 1:
                return
            self.count += 1

    def __enter__(self) -> Renewer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._asked_to_stop = True
        # It may wait for a server that reads no more.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._library.SSL_free(self._tls)
        self._library.SSL_CTX_free(self._context)
        self._socket.close()


@pytest.mark.skipif(ctypes.util.find_library("ssl") is None, reason="no libssl to renew keys with")
def test_a_client_that_only_renews_its_keys_keeps_no_other_waiting(
    market: Rig, authority: Authority
) -> None:
    with (
        listening(market.engine, tls=Tls(*authority.sign("server"))) as native,
        Renewer(native.address) as renewer,
    ):
        for _ in range(10):
            before = renewer.count
            end_s = time.monotonic() + TIMEOUT_S
            while renewer.count < before + 1000:
                assert time.monotonic() < end_s
                time.sleep(0.001)
            assert code_of(native.address, authority) is grpc.StatusCode.OK
