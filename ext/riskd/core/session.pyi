"""gRPC over HTTP/2 without sockets: bytes in, calls to the engine, bytes out."""

from typing import Self

from riskd.core.engine import Engine
from riskd.core.permits import Permits

class Loopback:
    """A session that a caller feeds with a client's bytes: for tests and fuzzing.

    Time stands still at time_ns until it is moved. Not thread-safe.

    Beside another it is one more connection to the same pools: the engine and the other options are
    that one's. What it is sent while the other is fed comes with its next feed.
    """

    def __new__(
        cls,
        engine: Engine,
        *,
        beside: Loopback | None = ...,
        time_ns: int = ...,
        connections_max: int = ...,
        calls_max: int = ...,
        streams_max: int = ...,
        streams_per_connection_max: int = ...,
        message_bytes_max: int = ...,
        header_bytes_max: int = ...,
        resets_per_s_max: int = ...,
        buffered_bytes_max: int = ...,
        idle_ns: int = ...,
        age_ns: int = ...,
        grace_ns: int = ...,
        permits: Permits | None = ...,
    ) -> Self: ...
    def feed(self, received: bytes) -> bytes:
        """Take bytes from the client and return those for it, whole requests answered."""
    def tick(self, wait_ns: int) -> bytes:
        """Let time pass, and return the bytes that this leads to."""
    def drain(self) -> bytes:
        """Begin to stop, and return the bytes that this leads to."""
    @property
    def is_open(self) -> bool:
        """Whether the server would keep the connection."""
    @property
    def calls(self) -> int:
        """Calls in work, without streams of orders and calls that watch the health."""
    @property
    def buffered_bytes(self) -> int:
        """Memory of large requests and replies."""
