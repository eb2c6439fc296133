"""Certificates for tests, made by openssl."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# What every gRPC library takes.
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
LOCALHOST = "DNS:localhost,IP:127.0.0.1"
# Where all that tests need must be there, its absence is a failure.
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None and not os.environ.get("CI"), reason="no openssl to make keys"
)


class Authority:
    """A certificate authority in a directory, and what it signs."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.certificate = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        self._run(
            "req", "-x509", *NEW_KEY, "-subj", f"/CN={name}",
            "-keyout", str(self._key), "-out", str(self.certificate), "-days", "2",
        )  # fmt: skip

    def _run(self, *words: str) -> None:
        # What is loaded before this process, for its sanitizer, is nothing for openssl.
        variables = {name: each for name, each in os.environ.items() if name != "LD_PRELOAD"}
        subprocess.run(["openssl", *words], check=True, capture_output=True, env=variables)

    def sign(
        self, name: str, names: str = LOCALHOST, *, subject: str = "", days: int = 2
    ) -> tuple[Path, Path]:
        """Return certificate and key, in files of that name.

        names are its alternative names, subject is /CN=name unless given; of negative days it has
        expired.
        """
        key, request, certificate, extension = (
            self.directory / f"{name}.{ending}" for ending in ("key", "csr", "pem", "ext")
        )
        extension.write_text(f"subjectAltName={names}\n")
        self._run(
            "req", *NEW_KEY, "-utf8", "-subj", subject or f"/CN={name}",
            "-keyout", str(key), "-out", str(request),
        )  # fmt: skip
        self._run(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate),
            "-days", str(days), "-CAkey", str(self._key), "-CAcreateserial",
            "-extfile", str(extension), "-out", str(certificate),
        )  # fmt: skip
        return certificate, key
