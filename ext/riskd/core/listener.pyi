"""The native door: OrderRiskService and health over gRPC, in threads without the GIL."""

from collections.abc import Sequence
from typing import Self

from riskd.core.engine import Engine
from riskd.core.permits import Permits
from riskd.core.rows import DoorRow
from riskd.core.tls import Tls

class Listener:
    """A gRPC server for an engine: listen on addresses, start once, stop once.

    Once it was made, it is the one door that the engine's journal wakes by itself; the engine must
    outlive it, and its journal must be open before and close after it.
    """

    def __new__(
        cls,
        engine: Engine,
        *,
        threads: int = ...,
        cpus: Sequence[int] = ...,
        busy_poll_us: int = ...,
        connections_max: int = ...,
        connections_per_address_max: int = ...,
        calls_max: int = ...,
        streams_per_connection_max: int = ...,
        message_bytes_max: int = ...,
        buffered_bytes_max: int = ...,
        room_wait_ms_max: int = ...,
        idle_ms_max: int = ...,
        age_ms_max: int = ...,
        age_grace_ms: int = ...,
        socket_wait_ms_max: int = ...,
        handshake_ms_max: int = ...,
        calls_per_timed: int = ...,
        time_ns: int = ...,
        permits: Permits | None = None,
    ) -> Self:
        """Make a listener; time_ns is the time of all calls, 0: the clock's.

        Connections are spread over the threads, which have equal parts of the bounds and stay on
        the CPUs, if these are named. Before a thread sleeps it looks for events for busy_poll_us,
        while they come at intervals up to twice that; 0: it sleeps at once.
        Raises ValueError unless there are 1 to 64 threads, and a CPU that the process may run on
        for each.

        Callers are let in by permits; without it everybody may do everything.

        A connection without a call for idle_ms_max, or older than age_ms_max (10 % less or more),
        is asked to end with GOAWAY; 0: none is. What is open then has age_grace_ms. One whose
        socket takes nothing for socket_wait_ms_max, or whose first frame does not come within
        handshake_ms_max, is closed. One call in calls_per_timed is timed; 0: none is.
        """
    def listen(self, address: str, tls: Tls | None = None) -> str:
        """Listen on host:port, [IPv6]:port or unix:path; return the address with its port.

        In plain text unless there is a tls.

        Raises ValueError if it is none of these, OSError if it cannot be listened on.
        """
    def start(self) -> None:
        """Begin to answer. Raises OSError if there are no threads for it."""
    def stop(self, grace_ms: int = ...) -> None:
        """Refuse new calls, let those in work finish for so long, and close everything."""
    def set_time(self, time_ns: int) -> None:
        """Change the time of the calls that come from now on, as time_ns of the constructor."""
    def measured(self) -> DoorRow:
        """Return what was measured since the start; the threads go on meanwhile."""
    def counts(self) -> dict[str, int]:
        """Return what was counted since the start, by name."""
