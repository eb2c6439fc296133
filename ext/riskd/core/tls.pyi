"""TLS of a server's connections: OpenSSL, TLS 1.3 only, ALPN h2 only."""

import os
from typing import Self

class Tls:
    """A server's certificate and key, in PEM files, and whose clients it takes."""

    def __new__(
        cls,
        certificate: str | os.PathLike[str],
        key: str | os.PathLike[str],
        client_ca: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Read the files; with client_ca only clients with a certificate of it are taken.

        Raises ValueError, which names the file, if one cannot be used.
        """
    def reload(self) -> None:
        """Read the files again, for connections from now on.

        Raises as the constructor; then all stays as it was.
        """
