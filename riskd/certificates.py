"""Certificates of the control server, which change without a restart.

gRPC asks for them at each handshake. The files are read and checked before they are handed over, so
that a bad one leaves what is in use.
"""

import ssl
import threading
from pathlib import Path

import grpc

from riskd.settings import Settings, SettingsError


class Certificates:
    """Certificate, key and clients' authorities of the settings, as gRPC takes them.

    Raises SettingsError if they cannot be used. Thread-safe.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        # What the next handshake takes in the place of what is in use.
        self._fresh: grpc.ServerCertificateConfiguration | None = None
        self._first = self._load()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a server listens with."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._take_fresh,  # type: ignore[arg-type]  # None, for no change, is documented.
            bool(self._settings.client_ca_file),
        )

    def reload(self) -> None:
        """Read the files again, for new connections. Raises SettingsError, and nothing changes."""
        loaded = self._load()
        with self._lock:
            self._fresh = loaded

    def _take_fresh(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            fresh, self._fresh = self._fresh, None
        return fresh

    def _load(self) -> grpc.ServerCertificateConfiguration:
        settings = self._settings
        certificate = _read("certificate_file", settings.certificate_file)
        key = _read("key_file", settings.key_file)
        authorities = None
        # gRPC would tell only those who connect that it cannot use them.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # OpenSSL would ask the terminal for the password of a key that has one.
            context.load_cert_chain(settings.certificate_file, settings.key_file, lambda: "")
        except (OSError, ValueError) as error:  # An SSLError is an OSError.
            both = f"certificate_file {settings.certificate_file!r}, key_file {settings.key_file!r}"
            raise SettingsError(f"{both}: {_reason(error)}") from None
        if settings.client_ca_file:
            authorities = _read("client_ca_file", settings.client_ca_file)
            try:
                context.load_verify_locations(settings.client_ca_file)
            except OSError as error:
                raise SettingsError(
                    f"client_ca_file {settings.client_ca_file!r}: {_reason(error)}"
                ) from None
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{name} {path!r}: {error.strerror}") from None


def _reason(error: Exception) -> str:
    """Return what OpenSSL says of a file."""
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if isinstance(reason, str) else "not usable"
