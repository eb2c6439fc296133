"""The metrics endpoint: plain HTTP, one answer a connection, everything bounded.

It has a thread and an event loop of its own, so that no client of it can hold up a call. A reading
is made at most once in READING_S; who asks more often gets the same one.
"""

import asyncio
import logging
import threading
import time
from concurrent.futures import Future

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from riskd.settings import SettingsError, join_address, parse_address

CONNECTIONS_MAX = 16
REQUEST_BYTES_MAX = 8192
# For the whole of a connection, from its first byte to its last.
CONNECTION_S = 5.0
READING_S = 0.5
PATH = "/metrics"

_PROMETHEUS = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
_OPEN_METRICS = openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST

_logger = logging.getLogger("riskd.metrics")


class MetricsServer:
    """Serves a registry at http://ADDRESS/metrics. Start once, stop once."""

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        self._address = address
        self._registry = registry
        self._texts: dict[str, tuple[float, bytes]] = {}
        self._connections = 0
        self._asked_to_stop: Future[None] = Future()
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen and serve; return the address with its port.

        Raises SettingsError if the address cannot be bound.
        """
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="riskd-metrics", daemon=True
        )
        self._thread.start()
        try:
            port = started.result()
        except OSError as error:
            self._thread.join()
            raise SettingsError(
                f"metrics_address {self._address!r}: cannot listen: {error}"
            ) from None
        return join_address(parse_address(self._address)[0], port)

    def stop(self) -> None:
        """Close the listening socket and all connections."""
        if self._thread is None:
            return
        if not self._asked_to_stop.done():
            self._asked_to_stop.set_result(None)
        self._thread.join()

    async def _serve(self, started: Future[int]) -> None:
        host, port = parse_address(self._address)
        try:
            server = await asyncio.start_server(
                self._answer, host, port, limit=REQUEST_BYTES_MAX, backlog=CONNECTIONS_MAX
            )
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(server.sockets[0].getsockname()[1])
        await asyncio.wrap_future(self._asked_to_stop)
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            # A client that is slow, or gone, costs its place for that long and nothing else.
            async with asyncio.timeout(CONNECTION_S):
                if self._connections > CONNECTIONS_MAX:
                    writer.write(_response("503 Service Unavailable", "text/plain", b"busy\n"))
                else:
                    writer.write(await self._respond(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError):
            pass
        finally:
            self._connections -= 1
            writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return _response("400 Bad Request", "text/plain", b"not a request\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        parts = line.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _response("400 Bad Request", "text/plain", b"not a request\n")
        if parts[0] not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", "text/plain", b"use GET\n")
        if parts[1].partition("?")[0] != PATH:
            return _response("404 Not Found", "text/plain", f"use {PATH}\n".encode())
        accepted = ""
        for header in headers:
            name, _, value = header.partition(":")
            if name.lower() == "accept":
                accepted = value.strip()
        try:
            text, content_type = self._text(accepted)
        except Exception:
            _logger.exception("reading failed")
            return _response("500 Internal Server Error", "text/plain", b"see the log\n")
        return _response("200 OK", content_type, text, is_head=parts[0] == "HEAD")

    def _text(self, accepted: str) -> tuple[bytes, str]:
        """Return (text, content type) of the newest reading in the format that is asked for."""
        is_open = "application/openmetrics-text" in accepted
        encode, content_type = _OPEN_METRICS if is_open else _PROMETHEUS
        made_s, text = self._texts.get(content_type, (0.0, b""))
        if not text or time.monotonic() - made_s > READING_S:
            text = encode(self._registry)
            self._texts[content_type] = time.monotonic(), text
        return text, content_type


def _response(status: str, content_type: str, body: bytes, *, is_head: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if is_head else body)
