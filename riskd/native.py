"""The native listener of the settings: the hot service, beside the control server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from riskd.guard import Guard, check_guarded
from riskd.settings import LISTENER_BUFFERED_BYTES, Settings, SettingsError

if TYPE_CHECKING:
    from riskd.core.engine import Engine
    from riskd.core.listener import Listener
    from riskd.core.tls import Tls

NOT_BUILT = (
    "native listener: none, riskd was built without libnghttp2 or OpenSSL: "
    "only the control server runs"
)


class NativeDoor:
    """A running native listener, or none. Start once, stop once."""

    def __init__(self, settings: Settings, engine: Engine, guard: Guard | None = None) -> None:
        check_guarded(settings, guard)
        self._settings = settings
        self._engine = engine
        self._guard = guard
        self._listener: Listener | None = None
        self._tls: Tls | None = None
        self._stopping: threading.Thread | None = None

    def start(self) -> list[str]:
        """Listen and answer; return a line for each address, or one that says why there is none.

        Raises SettingsError if an address or a certificate cannot be used.
        """
        settings = self._settings
        if not settings.listener_addresses:
            return ["native listener: none, listener_addresses is empty"]
        try:
            from riskd.core.listener import Listener  # noqa: PLC0415
            from riskd.core.tls import Tls  # noqa: PLC0415
        except ImportError:
            if settings.certificate_file:
                raise SettingsError(f"certificate_file: {NOT_BUILT}") from None
            return [NOT_BUILT]
        if settings.certificate_file:
            try:
                self._tls = Tls(
                    settings.certificate_file,
                    settings.key_file,
                    settings.client_ca_file or None,
                )
            except ValueError as error:
                raise SettingsError(f"certificate_file: {error}") from None
        try:
            listener = self._listener_of(Listener)
        except ValueError as error:
            raise SettingsError(f"listener_cpus: {error}") from None
        lines = []
        try:
            for address in settings.listener_addresses:
                tls = None if address.startswith("unix:") else self._tls
                bound = listener.listen(address, tls)
                lines.append(f"native listener: {bound}, {settings.security_of(bound, '1.3')}")
            listener.start()
        except (OSError, ValueError) as error:
            listener.stop()
            raise SettingsError(f"listener_addresses {address!r}: cannot listen: {error}") from None
        self._listener = listener
        return lines

    @property
    def listener(self) -> Listener | None:
        """What listens, once it was started."""
        return self._listener

    def _listener_of(self, kind: type[Listener]) -> Listener:
        """Make the listener. Raises ValueError if a thread cannot run where it should."""
        settings = self._settings
        return kind(
            self._engine,
            threads=settings.listener_threads,
            cpus=[int(cpu) for cpu in settings.listener_cpus],
            busy_poll_us=settings.listener_busy_poll_us,
            connections_max=settings.listener_connections_max,
            connections_per_address_max=settings.listener_connections_per_address_max,
            calls_max=settings.listener_calls_max,
            message_bytes_max=settings.receive_message_bytes_max,
            buffered_bytes_max=LISTENER_BUFFERED_BYTES,
            room_wait_ms_max=settings.journal_wait_ms_max,
            idle_ms_max=settings.listener_idle_ms_max,
            age_ms_max=settings.listener_age_ms_max,
            age_grace_ms=settings.listener_age_grace_ms,
            calls_per_timed=settings.listener_calls_per_timed,
            permits=None if self._guard is None else self._guard.permits,
        )

    def reload(self) -> None:
        """Read the certificates again, for new connections. Raises SettingsError if they are bad.

        What is in use then stays.
        """
        if self._tls is None:
            return
        try:
            self._tls.reload()
        except ValueError as error:
            raise SettingsError(str(error)) from None

    def begin_stop(self) -> None:
        """Refuse new calls from now on, while others stop too."""
        if self._listener is not None:
            grace_ms = self._settings.shutdown_grace_ms
            self._stopping = threading.Thread(target=self._listener.stop, args=(grace_ms,))
            self._stopping.start()

    def stop(self) -> None:
        """Wait for the end of what begin_stop began; end at once if it did not."""
        if self._stopping is not None:
            self._stopping.join()
        elif self._listener is not None:
            self._listener.stop()
