"""How a command reaches a running service: address, TLS and token, of flags or environment."""

import argparse
import os
from pathlib import Path
from typing import Any

import grpc

from riskd.settings import (
    TLS_CA_VARIABLE,
    TLS_CERTIFICATE_VARIABLE,
    TLS_KEY_VARIABLE,
    TOKEN_FILE_VARIABLE,
    is_loopback,
    parse_address,
)


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the service is, and how it is known who calls."""
    parser.add_argument(
        "--address", default="127.0.0.1:50051", help="of the service (default: 127.0.0.1:50051)"
    )
    parser.add_argument("--timeout-s", type=float, default=5.0, help="(default: 5)")
    for flag, variable, what in (
        ("--tls-ca", TLS_CA_VARIABLE, "authorities (PEM) of the service's certificate: use TLS"),
        ("--tls-certificate", TLS_CERTIFICATE_VARIABLE, "certificate (PEM) to show the service"),
        ("--tls-key", TLS_KEY_VARIABLE, "its private key (PEM)"),
        ("--token-file", TOKEN_FILE_VARIABLE, "file with a bearer token, as riskd token writes it"),
    ):
        parser.add_argument(
            flag,
            metavar="FILE",
            default=os.environ.get(variable) or None,
            help=f"{what} (default: ${variable})",
        )


def open_channel(arguments: argparse.Namespace) -> grpc.Channel:
    """Return a channel to the service. Raises OSError or ValueError for what cannot be used."""
    if bool(arguments.tls_certificate) != bool(arguments.tls_key):
        raise ValueError("--tls-certificate and --tls-key must both be given, or neither")
    if arguments.tls_certificate and not arguments.tls_ca:
        raise ValueError("--tls-certificate needs --tls-ca")
    token = _read_token(arguments.token_file) if arguments.token_file else None
    if arguments.tls_ca:
        ca, certificate, key = (
            Path(path).read_bytes() if path else None
            for path in (arguments.tls_ca, arguments.tls_certificate, arguments.tls_key)
        )
        channel = grpc.secure_channel(
            arguments.address, grpc.ssl_channel_credentials(ca, key, certificate)
        )
    else:
        address = arguments.address
        if token and not address.startswith("unix:") and not is_loopback(parse_address(address)[0]):
            raise ValueError(
                f"--token-file: a token is not sent to {address} in plain text: give --tls-ca"
            )
        channel = grpc.insecure_channel(address)
    return channel if token is None else grpc.intercept_channel(channel, _WithToken(token))


def _read_token(path: str) -> str:
    """Return the token of a file. Raises ValueError, and does not show what is there."""
    token = Path(path).read_text(encoding="utf-8").strip()
    if not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ValueError(f"--token-file {path}: must hold one token")
    return token


class _WithToken(grpc.UnaryUnaryClientInterceptor):
    """Puts a token on every call."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), self._header)
        return continuation(details._replace(metadata=metadata), request)
