"""The control server over TLS: who is let in, and how certificates change."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
import pytest

from riskd.settings import SettingsError
from riskd.v1 import instrument_service_pb2 as instruments_pb
from riskd.v1.instrument_service_pb2_grpc import InstrumentServiceStub
from tests.service.authority import Authority, needs_openssl
from tests.service.conftest import TIMEOUT_S, Clock, Rig

pytestmark = needs_openssl

Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture
def secured(new_rig: Callable[..., Rig], clock: Clock, authority: Authority) -> Callable[..., Rig]:
    """Start services with a certificate; their rigs' channel, in plain text, is of no use."""

    def start(files: Files, client_ca: Path | None = None) -> Rig:
        return new_rig(
            clock,
            certificate_file=str(files[0]),
            key_file=str(files[1]),
            client_ca_file=str(client_ca or ""),
        )

    return start


def code_of(port: int, trusted: Authority, client: Files | None = None) -> Any:
    """Return the status code of a call by a client of its own connection."""
    certificate, key = (each.read_bytes() for each in client) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(trusted.certificate.read_bytes(), key, certificate)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{port}", credentials, options) as channel:
        try:
            InstrumentServiceStub(channel).ListAssets(
                instruments_pb.ListAssetsRequest(), timeout=TIMEOUT_S
            )
        except grpc.RpcError as error:
            failed: Any = error
            return failed.code()
    return grpc.StatusCode.OK


def test_a_client_that_trusts_the_certificate_is_answered(
    secured: Callable[..., Rig], authority: Authority
) -> None:
    rig = secured(authority.sign("server"))
    assert code_of(rig.port, authority) is grpc.StatusCode.OK
    assert code_of(rig.port, Authority(authority.directory, "other")) is grpc.StatusCode.UNAVAILABLE
    failure = rig.fail(rig.instruments.ListAssets, instruments_pb.ListAssetsRequest())
    assert failure.code is grpc.StatusCode.UNAVAILABLE


def test_with_an_authority_only_its_clients_are_answered(
    secured: Callable[..., Rig], authority: Authority
) -> None:
    rig = secured(authority.sign("server"), authority.certificate)
    stranger = Authority(authority.directory, "stranger")
    assert code_of(rig.port, authority, authority.sign("client")) is grpc.StatusCode.OK
    for client in (None, stranger.sign("unknown"), authority.sign("late", days=-1)):
        assert code_of(rig.port, authority, client) is grpc.StatusCode.UNAVAILABLE


def test_tls_before_1_2_gets_no_connection(
    secured: Callable[..., Rig], authority: Authority
) -> None:
    rig = secured(authority.sign("server"))
    context = ssl.create_default_context(cafile=str(authority.certificate))
    # The library of the client may not even offer it at its default level.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    for version, is_welcome in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
        with nullcontext() if is_welcome else pytest.warns(DeprecationWarning, match="TLS"):
            context.minimum_version = version
            context.maximum_version = version
        with socket.create_connection(("127.0.0.1", rig.port)) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="localhost") as channel:
                    assert channel.version() == "TLSv1.2"
                    assert is_welcome
            except (ssl.SSLError, ConnectionError):
                assert not is_welcome


def test_certificates_change_without_a_restart(
    secured: Callable[..., Rig], authority: Authority
) -> None:
    other = Authority(authority.directory, "next")
    certificate, key = authority.sign("rotated")
    rig = secured((certificate, key))
    assert code_of(rig.port, authority) is grpc.StatusCode.OK
    for old, new in zip((certificate, key), other.sign("newer"), strict=True):
        old.write_bytes(new.read_bytes())
    assert code_of(rig.port, authority) is grpc.StatusCode.OK
    rig.server.reload()
    assert code_of(rig.port, other) is grpc.StatusCode.OK
    assert code_of(rig.port, authority) is grpc.StatusCode.UNAVAILABLE
    key.write_text("broken")
    with pytest.raises(SettingsError, match=r"key_file .*rotated\.key"):
        rig.server.reload()
    assert code_of(rig.port, other) is grpc.StatusCode.OK


def test_the_authority_of_clients_changes_without_a_restart(
    secured: Callable[..., Rig], authority: Authority
) -> None:
    other = Authority(authority.directory, "next_clients")
    taken = authority.directory / "clients.pem"
    taken.write_bytes(authority.certificate.read_bytes())
    old, new = authority.sign("old_client"), other.sign("new_client")
    rig = secured(authority.sign("server"), taken)
    assert code_of(rig.port, authority, old) is grpc.StatusCode.OK
    assert code_of(rig.port, authority, new) is grpc.StatusCode.UNAVAILABLE
    taken.write_bytes(other.certificate.read_bytes())
    rig.server.reload()
    assert code_of(rig.port, authority, old) is grpc.StatusCode.UNAVAILABLE
    assert code_of(rig.port, authority, new) is grpc.StatusCode.OK
    taken.write_text("broken")
    with pytest.raises(SettingsError, match=r"client_ca_file .*clients\.pem"):
        rig.server.reload()
    # What was in use stays: nobody else is let in.
    assert code_of(rig.port, authority, new) is grpc.StatusCode.OK
    for client in (old, None):
        assert code_of(rig.port, authority, client) is grpc.StatusCode.UNAVAILABLE


def test_files_that_cannot_be_used_are_named(
    secured: Callable[..., Rig], authority: Authority
) -> None:
    certificate, key = authority.sign("server")
    _, other_key = authority.sign("another")
    missing = authority.directory / "missing.pem"
    for files, message in (
        ((missing, key), "certificate_file .*missing.pem.*No such file"),
        ((certificate, missing), "key_file .*missing.pem.*No such file"),
        ((key, key), "certificate_file .*server.key"),
        ((certificate, other_key), "key_file .*another.key.*mismatch"),
    ):
        with pytest.raises(SettingsError, match=message):
            secured(files)
    with pytest.raises(SettingsError, match=r"client_ca_file .*missing\.pem"):
        secured((certificate, key), missing)
    with pytest.raises(SettingsError, match=r"client_ca_file .*server\.key"):
        secured((certificate, key), key)
