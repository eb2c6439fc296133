"""Millions of calls to the native door, and clients of every bad habit: memory and files must stay.

`python -m tests.soak --calls 10000000` runs `riskd serve` with journal and TLS, the load generator
of the benchmarks over and over, each time with other connections and sometimes killed amid them,
and beside it connections that are reset, half-closed, abandoned, slow or nonsense. It prints a line
a round and is 1 if memory grew, a file stayed open, or a call failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame

from benchmarks.peers.build import build
from riskd.v1 import order_risk_service_pb2 as pb
from riskd.v1 import types_pb2 as t
from tests.interop.server import Door, make_certificates, started

CHECK = "/riskd.v1.OrderRiskService/CheckOrder"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ROUND_S = 1.0
# What rounds before may have left to fill: pools of OpenSSL and malloc, tables, remembered answers.
WARM_UP = 0.2
# Over ten million calls this is less than a byte a call. A moment with more connections and calls
# in flight than any before it may still raise what the process keeps, once.
GROWTH_KIB_MAX = 8192
SETTLE_S = 30


def order(client_order_id: int) -> bytes:
    """Return an order that costs much margin, so that soon all are rejected for it."""
    return pb.CheckOrderRequest(
        account_id=7,
        instrument_id=1,
        client_order_id=client_order_id,
        side=t.SIDE_BUY,
        order_type=t.ORDER_TYPE_LIMIT,
        price_ticks=120_000,
        quantity_lots=100_000,
        gateway_id=3,
    ).SerializeToString()


def template() -> bytes:
    """Return an order as load.c reads it: size, one id, where it is, the bytes."""
    mark = 0x5555_5555_5555_5555
    message = order(mark)
    return struct.pack("=III", len(message), 1, message.index(struct.pack("<Q", mark))) + message


# --- bad habits ----------------------------------------------------------------------------------


def frames(*parts: Frame) -> bytes:
    return PREFACE + b"".join(part.serialize() for part in (SettingsFrame(0), *parts))


def request(stream: int = 1) -> list[Frame]:
    """Return a call as frames, its headers literal."""
    pairs = {":method": "POST", ":scheme": "http", ":path": CHECK, ":authority": "riskd"}
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in (pairs | {"content-type": "application/grpc"}).items()
    )
    message = order(stream)
    data = b"\0" + struct.pack(">I", len(message)) + message
    return [
        HeadersFrame(stream, block, flags=["END_HEADERS"]),
        DataFrame(stream, data, flags=["END_STREAM"]),
    ]


def reset(client: socket.socket) -> None:
    """Close with a RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def leave_at_once(client: socket.socket) -> None:
    reset(client)


def leave_amid_a_request(client: socket.socket) -> None:
    client.sendall(frames(request()[0]))
    reset(client)


def leave_before_the_answers(client: socket.socket) -> None:
    client.sendall(frames(*(frame for n in range(50) for frame in request(2 * n + 1))))
    reset(client)


def close_half(client: socket.socket) -> None:
    client.sendall(frames(*request()))
    client.shutdown(socket.SHUT_WR)
    while client.recv(4096):
        pass


def write_slowly(client: socket.socket) -> None:
    for byte in frames(*request()):
        client.sendall(bytes([byte]))
        time.sleep(0.002)
    client.recv(4096)


def read_nothing(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(1)
    with contextlib.suppress(TimeoutError):
        client.sendall(frames(*(frame for n in range(200) for frame in request(2 * n + 1))))
    time.sleep(1)


def talk_nonsense(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nHost: riskd\r\n\r\n")
    client.recv(4096)


def say_nothing(client: socket.socket) -> None:
    client.settimeout(1)
    with contextlib.suppress(TimeoutError):
        client.recv(1)


HABITS: tuple[Callable[[socket.socket], None], ...] = (
    *(leave_at_once, leave_amid_a_request, leave_before_the_answers, close_half),
    *(write_slowly, read_nothing, talk_nonsense, say_nothing),
)


class Nuisance:
    """Threads of clients with bad habits, all of them in turn; counts has those that connected."""

    def __init__(self, doors: list[Door], threads: int) -> None:
        self.counts = dict.fromkeys((each.__name__ for each in HABITS), 0)
        self._doors = doors
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        while not self._stopped.is_set():
            habit = HABITS[number % len(HABITS)]
            number += 1
            # The server may be quicker to close, or busy with the load.
            with contextlib.suppress(OSError, ValueError):
                self._connect(habit, chance.choice(self._doors), shakes=chance.random() < 0.8)

    def _connect(self, habit: Callable[[socket.socket], None], door: Door, *, shakes: bool) -> None:
        with opened(door) as client:
            if not door.tls or not shakes:
                # Without a handshake, TLS's door gets nonsense.
                self._misbehave(habit, client)
                return
            context = ssl.create_default_context(cafile=str(door.tls["ca"]))
            context.set_alpn_protocols(["h2"])
            with context.wrap_socket(client, server_hostname="localhost") as secured:
                self._misbehave(habit, secured)

    def _misbehave(self, habit: Callable[[socket.socket], None], client: socket.socket) -> None:
        with self._lock:
            self.counts[habit.__name__] += 1
        habit(client)


def opened(door: Door) -> socket.socket:
    if door.address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(door.address.removeprefix("unix:"))
        return client
    host, _, port = door.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


# --- the server ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """What a process has."""

    resident_kib: int
    files: int
    threads: int


def read(pid: int) -> Reading:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return Reading(
        int(values["VmRSS"].split()[0]),
        len(os.listdir(f"/proc/{pid}/fd")),
        int(values["Threads"]),
    )


def settled(pid: int, files: int) -> Reading:
    """Return a reading once no more files are open than these, or the time for that is over."""
    end = time.monotonic() + SETTLE_S
    while (found := read(pid)).files > files and time.monotonic() < end:
        time.sleep(0.1)
    return found


# --- rounds --------------------------------------------------------------------------------------


class Soak:
    """Rounds of load on doors."""

    def __init__(self, doors: list[Door], requests: Path) -> None:
        self.calls = 0
        self.connections = 0
        self.failed = 0
        self._doors = doors
        self._requests = requests
        self._chance = random.Random(1)
        self._next_id = 1
        self._load = build("load")

    def round(self) -> None:
        """Load all doors at the same time, some with a client that is killed."""
        running = [self._start(door) for door in self._doors]
        victim = self._chance.choice((*running, None, None))
        if victim is not None:
            time.sleep(self._chance.random() * ROUND_S)
            victim.kill()
        for process in running:
            out, error = process.communicate()
            if process is victim:
                continue
            if process.returncode != 0:
                raise RuntimeError(f"the load generator failed: {error}")
            found = json.loads(out)
            self.calls += found["calls"]
            self.failed += found["failed"] + found["unanswered"]
            self._next_id = max(self._next_id, found["next_id"])

    def _start(self, door: Door) -> subprocess.Popen[str]:
        connections = self._chance.choice((1, 4, 16, 64))
        self.connections += connections
        tls = ["--ca", str(door.tls["ca"])] if door.tls else []
        return subprocess.Popen(
            [
                *(str(self._load), "--address", door.address, "--path", CHECK, *tls),
                *("--requests", str(self._requests), "--first-id", str(self._next_id)),
                *("--connections", str(connections), "--warm-up", "0"),
                *("--streams", str(self._chance.choice((1, 8, 32)))),
                *("--seconds", str(ROUND_S)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def run(calls: int, pid: int, soak: Soak, doors: list[Door]) -> list[str]:
    """Run rounds until so many calls were answered; return what is wrong."""
    before = read(pid)
    nuisance = Nuisance(doors, 8)
    warm: Reading | None = None
    highest = 0
    try:
        while soak.calls < calls:
            soak.round()
            now = read(pid)
            print(f"{soak.calls:>10} calls {now}", flush=True)
            if warm is None and soak.calls >= WARM_UP * calls:
                warm = now
            highest = max(highest, now.resident_kib)
    finally:
        nuisance.stop()
    after = settled(pid, before.files)
    assert warm is not None
    growth = max(highest, after.resident_kib) - warm.resident_kib
    bad = ", ".join(f"{name} {count}" for name, count in nuisance.counts.items())
    print(f"calls {soak.calls}, failed {soak.failed}, connections of load {soak.connections}")
    print(f"bad habits: {bad}")
    print(f"at the start  {before}\nwarm          {warm}\nat the end    {after}")
    print(f"growth since warm: {growth} KiB")
    wrong = []
    if growth > GROWTH_KIB_MAX:
        wrong.append(f"memory grew by {growth} KiB, more than {GROWTH_KIB_MAX}")
    if after.files > before.files:
        wrong.append(f"{after.files} files are open, {before.files} were")
    if soak.failed:
        wrong.append(f"{soak.failed} calls failed")
    wrong += [f"nobody could {name}" for name, count in nuisance.counts.items() if count == 0]
    return wrong


def flags(folder: Path) -> Iterator[str]:
    """Yield how the service is run: its tables fill soon."""
    yield f"--listener-addresses=unix:{folder}/riskd.sock,127.0.0.1:0"
    yield f"--certificate-file={folder}/server.pem"
    yield f"--key-file={folder}/server.key"
    yield "--answer-bytes=1048576"
    yield "--orders-max=100000"


def main() -> int:
    """Print what was found; the exit status is 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="riskd-soak-") as name:
        folder = Path(name)
        make_certificates(folder)
        requests = folder / "requests"
        requests.write_bytes(template())
        with started(*flags(folder), tls={"ca": folder / "ca.pem"}) as service:
            doors = [door for door in service.doors if door.name == "native"]
            wrong = run(arguments.calls, service.pid, Soak(doors, requests), doors)
    for each in wrong:
        print(f"soak: {each}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
