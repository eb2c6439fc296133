"""The native listener of the settings: the hot service, beside the control server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from riskd.settings import Settings, SettingsError

if TYPE_CHECKING:
    from riskd.core.engine import Engine
    from riskd.core.listener import Listener

NOT_BUILT = (
    "native listener: none, riskd was built without libnghttp2: only the control server runs"
)


class NativeDoor:
    """A running native listener, or none. Start once, stop once."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._listener: Listener | None = None
        self._stopping: threading.Thread | None = None

    def start(self) -> list[str]:
        """Listen and answer; return a line for each address, or one that says why there is none.

        Raises SettingsError if an address cannot be listened on.
        """
        settings = self._settings
        if not settings.listener_addresses:
            return ["native listener: none, listener_addresses is empty"]
        try:
            from riskd.core.listener import Listener  # noqa: PLC0415
        except ImportError:
            return [NOT_BUILT]
        listener = Listener(
            self._engine,
            connections_max=settings.listener_connections_max,
            calls_max=settings.listener_calls_max,
            message_bytes_max=settings.receive_message_bytes_max,
            room_wait_ms_max=settings.journal_wait_ms_max,
        )
        lines = []
        for address in settings.listener_addresses:
            try:
                bound = listener.listen(address)
            except (OSError, ValueError) as error:
                listener.stop()
                raise SettingsError(
                    f"listener_addresses {address!r}: cannot listen: {error}"
                ) from None
            lines.append(f"native listener: {bound}, plain text")
        listener.start()
        self._listener = listener
        return lines

    def begin_stop(self) -> None:
        """Refuse new calls from now on, while others stop too."""
        if self._listener is not None:
            grace_ms = self._settings.shutdown_grace_ms
            self._stopping = threading.Thread(target=self._listener.stop, args=(grace_ms,))
            self._stopping.start()

    def stop(self) -> None:
        """Wait for the end of what begin_stop began."""
        if self._listener is not None and self._stopping is None:
            self._listener.stop()
        if self._stopping is not None:
            self._stopping.join()
