"""Kill a service under load, again and again, and see after each restart what is there.

The seed decides what clients send and when the kill comes (after so many answers, and a moment
more; or during the start); the operating system decides what else happens, so a seed does not give
the same run twice.
"""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from riskd.core.engine import Engine
from tests.crash.clients import TIMEOUT_S, Clients, FindingError, Service
from tests.crash.power import Power, build_shim
from tests.processes import environment

Durability: TypeAlias = Literal["process", "machine"]
ROOT = Path(__file__).resolve().parents[2]
ANSWERS_MAX = 800
# How slow the disk is where no power is lost: much longer than it takes to answer.
WRITE_US = 2000


class Server:
    """A process that serves a journal's directory."""

    def __init__(self, directory: Path, durability: Durability, environment: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server", str(directory), durability],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def address(self) -> str:
        """Wait until it serves. Raises FindingError if it does not start."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise FindingError(f"the service does not start: status {self._process.wait()}")
        return f"127.0.0.1:{int(line)}"

    def state(self) -> tuple[int, str]:
        """Return revision and hash of the state that it has in memory."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        revision, state_hash = self._process.stdout.readline().split()
        return int(revision), state_hash

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait(TIMEOUT_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@dataclass
class Tally:
    """What a trial saw."""

    kills: int = 0
    kills_at_start: int = 0
    answers: int = 0
    unanswered: int = 0
    bytes_lost: int = 0
    records: int = 0
    snapshots: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.kills_at_start} of them during the start,"
            f" {self.answers} acknowledged answers, {self.unanswered} calls without an answer,"
            f" {self.records} records, {self.snapshots} snapshots,"
            f" {self.bytes_lost} bytes lost with the power"
        )


class Trial:
    """One journal and its clients through many kills. Raises FindingError."""

    def __init__(self, seed: str, durability: Durability, base: Path) -> None:
        self._rng = random.Random(f"{seed} {durability}")
        self._durability: Durability = durability
        self._directory = base / "journal"
        self._archive = base / "archive"
        self._copy = base / "copy"
        self._notes = base / "syncs"
        loaded = f"{os.environ.get('LD_PRELOAD', '')} {build_shim(base)}".strip()
        self._environment = environment() | {"LD_PRELOAD": loaded}
        if durability == "machine":
            self._environment["RISKD_TEST_SYNCS"] = str(self._notes)
        else:
            self._environment["RISKD_TEST_WRITE_US"] = str(WRITE_US)
        self._clients = Clients(f"{seed} {durability}")
        self._start_s = 0.0
        self._power = Power(self._directory, self._notes)
        self.tally = Tally()

    def run(self, kills: int) -> None:
        """Kill so often, and once more at the end, after everything was repeated."""
        server = self._start()
        try:
            address = server.address()
            with closing(Service(address)) as service:
                service.define()
            while self.tally.kills < kills:
                self._load_and_kill(server, address)
                server = self._start()
                while self._rng.random() < 0.15:
                    self._kill_at_start(server)
                    server = self._start()
                start = time.monotonic()
                address = server.address()
                self._start_s = time.monotonic() - start
                self._check(server, address)
            self._clients.check_everything(address)
        finally:
            server.kill()

    def _start(self) -> Server:
        self._power = Power(self._directory, self._notes)
        return Server(self._directory, self._durability, self._environment)

    def _load_and_kill(self, server: Server, address: str) -> None:
        answers = self._rng.randint(1, ANSWERS_MAX)
        pause_s = self._rng.uniform(0, 0.01)
        enough = threading.Event()

        def kill() -> None:
            enough.wait(TIMEOUT_S)
            time.sleep(pause_s)
            server.kill()

        killer = threading.Thread(target=kill)
        snapshot = self._start_snapshot() if self._rng.random() < 0.3 else None
        killer.start()
        try:
            self._clients.load(address, answers, enough.set)
        finally:
            enough.set()
            killer.join()
            if snapshot is not None:
                self._end_snapshot(snapshot)
        self.tally.kills += 1
        self._lose_power()

    def _start_snapshot(self) -> subprocess.Popen[bytes]:
        command = ["journal", "snapshot", str(self._directory), "--archive", str(self._archive)]
        return subprocess.Popen(
            [sys.executable, "-m", "riskd.cli", *command],
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env=self._environment,
        )

    def _end_snapshot(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it too, or let it finish beside the dead service."""
        if self._rng.random() < 0.5:
            process.kill()
        if process.wait(TIMEOUT_S) == 0:
            self.tally.snapshots += 1

    def _kill_at_start(self, server: Server) -> None:
        time.sleep(self._rng.uniform(0, 1.2 * self._start_s))
        server.kill()
        self.tally.kills += 1
        self.tally.kills_at_start += 1
        self._lose_power()

    def _lose_power(self) -> None:
        if self._durability == "machine":
            self.tally.bytes_lost += self._power.lose(self._rng)

    def _check(self, server: Server, address: str) -> None:
        self.tally.unanswered += self._clients.unanswered_count
        self._clients.check(address)
        self.tally.answers = self._clients.record_size
        # The clients are silent: what the service has in memory is what its whole journal gives,
        # from the first record on and without any snapshot.
        live = server.state()
        self._copy.mkdir()
        for folder in (self._archive, self._directory):
            for segment in folder.glob("*.journal"):
                shutil.copy(segment, self._copy)
        engine = Engine()
        self.tally.records = engine.replay(self._copy).records
        replayed = (engine.revision, engine.state_hash())
        shutil.rmtree(self._copy)
        if live != replayed:
            raise FindingError(f"revision and state in memory {live}, of the journal {replayed}")
