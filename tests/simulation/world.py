"""One seed drives clients, clock, disk and restarts against the real engine and its journal.

The reference judges: each reply byte for byte when it is made, and after every restart the state,
the remembered answers and the revision. What may come back after a restart is a prefix of the
commands that were sent, never shorter than what had been acknowledged.

Why a seed always gives the same run: one thread sends everything, and the journal's writer is held
at a system call (`Faults`) while a group of commands is sent. So the first record of a group is
written alone and the others together, whatever the machine does meanwhile; and a crash comes at
the nth call of a kind, where the writer is stopped while what the disk then holds is copied.
"""

import contextlib
import copy
import errno
import hashlib
import inspect
import random
import shutil
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from riskd.core.engine import Engine
from riskd.core.journal import Faults, JournalFailedError, JournalFullError
from riskd.reference import ReferenceEngine
from riskd.snapshots import take_snapshot
from tests.differential.streams import Command, Runner, Stream
from tests.differential.test_engine_against_reference import method_of, same_reply

Call: TypeAlias = Literal["write", "fdatasync", "openat", "fsync"]
Leaves: TypeAlias = Literal["nothing", "part", "zeros"]
CALLS: tuple[Call, ...] = ("write", "fdatasync", "openat", "fsync")
COMMANDS = 400
TRACE_LINES = 12
# Nothing takes so long: it only keeps a broken run from hanging.
TIMEOUT_S = 30.0
SEGMENT_HEAD = 40
RECORD_HEAD = 40


class DifferenceError(AssertionError):
    """The engine is not what it must be. Says the seed's last steps."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One life of the service: how its journal is kept, what fails, how it ends."""

    durability: Literal["process", "machine"]
    segment_bytes: int
    buffer_bytes: int
    commands: int
    # The writer stops at the nth call of this kind, and that is the crash; else it comes between
    # two groups, after so many commands.
    crash: tuple[Call, int] | None
    closes: bool


@dataclass(slots=True)
class Sent:
    """A command that the engine has taken, and the record that its reply waits for."""

    command: Command
    sequence: int
    revision: int


@dataclass(slots=True)
class Network:
    """What is on its way: delivered in any order, some of it twice, some replies not at all."""

    rng: random.Random
    ordered: bool = True
    messages: list[Command] = field(default_factory=list)

    def take(self) -> Command:
        if self.ordered:
            return self.messages.pop(0)
        index = self.rng.randrange(len(self.messages))
        if self.rng.random() < 0.04:
            return self.messages[index]
        return self.messages.pop(index)


def time_index(command: Command) -> int | None:
    """Return where the time stands in a command, None if it has none."""
    if method_of(command) is not None or command[0] == "cancel":
        return len(command) - 1
    method = getattr(ReferenceEngine, command[0])
    names = list(inspect.signature(method).parameters) if callable(method) else []
    # The first is self, as the first of a command is the name.
    index = names.index("now_ns") if "now_ns" in names else len(command)
    return index if index < len(command) else None


def time_of(command: Command) -> int:
    index = time_index(command)
    return 0 if index is None else command[index]


def at_time(command: Command, now_ns: int) -> Command:
    """Return the command at another time, if it has one."""
    index = time_index(command)
    return command if index is None else (*command[:index], now_ns, *command[index + 1 :])


class Submitting:
    """An engine whose hot requests are submitted: the reply is there, the promise is not yet."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sequence = 0

    def handle(self, method: int, request: bytes, now_ns: int) -> bytes:
        reply, self.sequence = self.engine.submit(method, request, now_ns)
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


class World:
    """A run. `loses` makes the disk lose records that were acknowledged: then it must fail."""

    def __init__(
        self, seed: int, directory: Path, commands: int = COMMANDS, *, loses: bool = False
    ) -> None:
        self.rng = random.Random(f"world {seed}")
        # Streams with odd seeds keep Greeks, whose last digit may differ, in their answers.
        self.stream = Stream(2 * seed)
        self.network = Network(self.rng)
        self.judge = Runner(ReferenceEngine(**self.stream.settings))
        self.checkpoint = copy.deepcopy(self.judge)
        self.since_checkpoint: list[Command] = []
        # The time of the last change, before which nothing comes.
        self.changed_ns = self.checkpoint_ns = 0
        self.unanswered: list[Command] = []
        self.acknowledged_revision = 0
        self.lives = 0
        self.commands_left = commands
        self.loses = loses
        self.base = directory
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self.digest = hashlib.blake2b(digest_size=16)
        self.counts: dict[str, int] = {}
        # Names of snapshots that are.
        self.damaged: set[str] = set()
        self.threads = ThreadPoolExecutor(1)
        self.faults = Faults()

    def run(self) -> str:
        """Live and die until all commands are through; return a digest of everything that was seen.

        Raises DifferenceError.
        """
        try:
            while self.commands_left > 0:
                self.live()
        finally:
            # A writer that is still held would keep the journal, and so this, from its end.
            self.release()
            self.threads.shutdown()
            shutil.rmtree(self.base / f"life-{self.lives}", ignore_errors=True)
        return self.digest.hexdigest()

    # One life

    def live(self) -> None:
        """Start, check what is there, serve until the end of this life, and leave a disk."""
        self.plan = self.draw_plan()
        self.faults = Faults()
        self.directory = self.base / f"life-{self.lives}"
        self.engine = Engine(**self.capacities())
        self.ours = Runner(Submitting(self.engine))
        self.engine.open_journal(
            self.directory,
            durability=self.plan.durability,
            segment_bytes=self.plan.segment_bytes,
            buffer_bytes=self.plan.buffer_bytes,
            append_wait_ms_max=1,
            faults=self.faults,
        )
        journal = self.engine.journal
        assert journal is not None
        self.journal = journal
        self.check_recovery()
        self.draw_faults()
        if self.plan.crash is not None:
            self.faults.hold(*self.plan.crash)
        left = self.plan.commands
        while left > 0 and self.commands_left > 0 and not self.is_over():
            left -= self.exchange()
            if self.rng.random() < 0.04 and not self.is_over():
                self.snapshot()
        self.die()

    def capacities(self) -> dict[str, int]:
        """Return those that the book has, so that the start changes nothing."""
        if self.lives == 0:
            return self.stream.settings
        scratch = Engine(**self.stream.settings)
        scratch.recover(self.directory)
        return scratch.capacities()

    def draw_plan(self) -> Plan:
        rng = self.rng
        ends = rng.random()
        crash: tuple[Call, int] | None = None
        if ends < 0.7:
            call = rng.choice(CALLS)
            crash = (call, rng.randint(1, 40 if call in ("write", "fdatasync") else 3))
        buffer_bytes = rng.choice((4096, 4096, 16384))
        return Plan(
            durability=rng.choice(("process", "machine", "machine")),
            segment_bytes=SEGMENT_HEAD + buffer_bytes * rng.choice((1, 2, 64)),
            buffer_bytes=buffer_bytes,
            commands=rng.randint(1, 150),
            crash=crash,
            closes=ends > 0.9,
        )

    def draw_faults(self) -> None:
        """Break the disk in some lives. ENOSPC comes as it does: a short write, then the error."""
        rng = self.rng
        draw = rng.random()
        nth = rng.randint(1, 20)
        error = rng.choice((errno.EIO, errno.ENOSPC, errno.EDQUOT))
        if draw < 0.15:
            self.faults.shorten(0, rng.choice((1, 7, 40, 300)) * rng.choice((1, 10)))
        elif draw < 0.25:
            self.faults.shorten(nth, rng.randint(1, 400))
            self.faults.fail("write", nth + 1, errno.ENOSPC)
        elif draw < 0.4:
            call = rng.choice(CALLS)
            self.faults.fail(call, nth if call in ("write", "fdatasync") else 1 + nth % 3, error)
        elif draw < 0.5:
            self.faults.delay(rng.choice(CALLS), rng.choice((0, nth)), 200_000)
        self.note(f"life {self.lives}: {self.plan}, fault {draw:.2f} {nth} {error}")

    def is_over(self) -> bool:
        return self.crashes() or self.journal.status == "failed"

    def crashes(self) -> bool:
        """Whether the writer stands where the crash comes."""
        crash = self.plan.crash
        return crash is not None and self.faults.count(crash[0]) >= crash[1]

    # Clients

    def exchange(self) -> int:
        """Send one group of hot commands, or one other command; return how many."""
        group = [self.next_command()]
        most = self.rng.choice((1, 3, 12, 40)) if not self.network.ordered else 1
        while method_of(group[-1]) is not None and len(group) < most:
            group.append(self.next_command())
        last = group[-1]
        if method_of(last) is not None:
            self.send_group(group)
        else:
            self.send_group(group[:-1])
            if not self.is_over():
                self.send_cold(last)
            else:
                self.unanswered.append(last)
        self.commands_left -= len(group)
        return len(group)

    def next_command(self) -> Command:
        """Return a delivery: what clients think of now, sent again, twice or late."""
        # What defines ids goes through in order, one at a time.
        self.network.ordered = self.network.ordered and bool(
            self.stream.queue or self.network.messages
        )
        while len(self.network.messages) < (1 if self.network.ordered else 6):
            if self.unanswered and (self.network.ordered or self.rng.random() < 0.5):
                index = 0 if self.network.ordered else self.rng.randrange(len(self.unanswered))
                self.network.messages.append(self.unanswered.pop(index))
            else:
                self.network.messages.append(self.stream.next(self.judge.engine))
        return self.network.take()

    def send_group(self, commands: Sequence[Command]) -> None:
        """Submit them all while the writer has at most the first one's record, then let it go."""
        written = self.faults.count("write")
        self.faults.hold("write")
        waiting: list[Sent] = []
        for command in commands:
            sent = self.submit(command)
            if sent is not None:
                waiting.append(sent)
                if sent.sequence > self.engine.durable_sequence:
                    self.await_event(lambda: self.faults.count("write") > written or self.is_over())
        if self.plan.crash is not None and self.plan.crash[0] == "write":
            self.faults.hold(*self.plan.crash)
        else:
            self.faults.release("write")
        if waiting:
            last = max(sent.sequence for sent in waiting)
            self.await_event(lambda: self.engine.durable_sequence >= last or self.is_over())
        self.acknowledge(waiting)

    def arrived(self, command: Command) -> Command:
        """Return the command at the time that the service's clock now shows, which may be wrong."""
        now_ns = self.stream.now_ns
        if self.rng.random() < 0.05:
            now_ns -= self.rng.choice((1, 10**6, 3 * 10**9))
        return at_time(command, now_ns)

    def submit(self, command: Command) -> Sent | None:
        """Run a hot command in engine and judge; None if no reply waits for a record."""
        command = self.arrived(command)
        self.ours.reservations = self.judge.reservations
        last = self.journal.next_sequence - 1
        try:
            outcome = self.ours.run(command)
        except (JournalFullError, JournalFailedError) as error:
            self.refused(command, error)
            return None
        self.judge_outcome(command, outcome)
        if isinstance(outcome, str):
            # Malformed: it shows nothing, so it waits for nothing.
            return None
        sequence = self.ours.engine.sequence
        self.require(sequence >= last, f"the reply waits for {sequence}, but {last} is there")
        return Sent(command, sequence, self.judge.engine.revision)

    def send_cold(self, command: Command) -> None:
        """Run a command that waits by itself, in a thread of its own."""
        command = self.arrived(command)
        self.ours.reservations = self.judge.reservations
        future: Future[Any] = self.threads.submit(self.ours.run, command)
        self.await_event(lambda: future.done() or self.crashes())
        if not future.done():
            # The writer is stopped where the crash comes: whether it took effect shows later.
            self.judge_runs(command)
            self.note(f"{command}: never answered")
            self.unanswered.append(command)
            return
        try:
            outcome = future.result()
        except JournalFullError as error:
            self.refused(command, error)
            return
        except JournalFailedError as error:
            # It may have been applied before its record failed.
            self.judge_runs(command)
            self.refused(command, error)
            return
        self.judge_outcome(command, outcome)
        self.acknowledge([Sent(command, 0, self.judge.engine.revision)])

    def refused(self, command: Command, error: Exception) -> None:
        self.note(f"{command}: {type(error).__name__}")
        self.unanswered.append(command)

    def acknowledge(self, waiting: Sequence[Sent]) -> None:
        """Give the clients the replies whose records are durable; some do not arrive."""
        durable = self.engine.durable_sequence
        for sent in waiting:
            arrives = self.rng.random() > 0.04
            if sent.sequence > durable or not arrives:
                self.unanswered.append(sent.command)
            if sent.sequence <= durable:
                self.acknowledged_revision = max(self.acknowledged_revision, sent.revision)
        self.note(f"{len(waiting)} replies, durable up to {durable}")

    # The judge

    def judge_outcome(self, command: Command, ours: Any) -> None:
        theirs = self.judge_runs(command)
        self.note(f"{command}: {ours!r}")
        self.require(
            same_reply(command, ours, theirs), f"engine    {ours!r}\n  reference {theirs!r}"
        )

    def judge_runs(self, command: Command) -> Any:
        """Run it in the reference, at no earlier time than the change before it."""
        command = at_time(command, max(time_of(command), self.changed_ns))
        revision = self.judge.engine.revision
        outcome = self.judge.run(command)
        if self.judge.engine.revision != revision:
            self.since_checkpoint.append(command)
            self.changed_ns = max(self.changed_ns, time_of(command))
        return outcome

    def check_recovery(self) -> None:
        """Take the reference to where the engine is, and compare."""
        revision = self.engine.revision
        acknowledged = self.acknowledged_revision
        self.require(
            revision >= acknowledged, f"revision {revision}, but {acknowledged} was acknowledged"
        )
        self.judge = copy.deepcopy(self.checkpoint)
        self.changed_ns = self.checkpoint_ns
        for command in self.since_checkpoint:
            if self.judge.engine.revision >= revision:
                break
            self.judge.run(command)
            self.changed_ns = max(self.changed_ns, time_of(command))
        theirs = self.judge.engine
        self.require(theirs.revision == revision, f"revision {revision}: {theirs.revision} at most")
        state_hash = self.engine.state_hash()
        if state_hash != theirs.state_hash():
            ours, others = set(self.engine.state_lines()), set(theirs.state_lines())
            self.require(False, f"engine    {ours - others}\n  reference {others - ours}")
        answers_hash = self.engine.answers_hash()
        self.require(answers_hash == theirs.answers_hash(), "remembered answers differ")
        self.checkpoint = copy.deepcopy(self.judge)
        self.checkpoint_ns = self.changed_ns
        self.since_checkpoint = []
        self.acknowledged_revision = revision
        self.note(f"life {self.lives} begins at {revision}: {state_hash} {answers_hash}")

    # Snapshots

    def snapshot(self) -> None:
        """Have one made of the segments that are closed, and what it makes useless removed."""
        taken = take_snapshot(self.directory, kept=self.rng.choice((1, 2)))
        if taken is not None:
            self.damaged.discard(Path(taken.path).name)
            self.count("snapshot")
            self.note(f"snapshot of {taken.sequence}, {len(taken.removed)} files removed")

    def damage_snapshot(self) -> None:
        """Change a byte of the newest one where another good one is kept, which is then taken."""
        snapshots = sorted(self.next_directory().glob("*.snapshot"))
        good = [each for each in snapshots if each.name not in self.damaged]
        if len(good) > 1 and self.rng.random() < 0.3:
            content = bytearray(good[-1].read_bytes())
            content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
            good[-1].write_bytes(content)
            self.damaged.add(good[-1].name)
            self.count("snapshot damaged")

    # The end of a life

    def die(self) -> None:
        """Leave the disk as a crash would at this point, or close as one should."""
        if self.journal.status == "failed":
            self.check_refusal()
        durable = self.engine.durable_sequence
        if self.plan.closes and not self.is_over():
            self.count("close")
            self.engine.close_journal()
            shutil.copytree(self.directory, self.next_directory())
        else:
            self.count("crash" if self.crashes() else "fail" if self.is_over() else "crash idle")
            shutil.copytree(self.directory, self.next_directory())
            if self.plan.durability == "machine":
                self.lose_power(durable)
            elif self.loses:
                cut(self.next_directory(), max(0, durable - 1), "nothing", self.rng)
        self.damage_snapshot()
        # Nothing that the old life still does is seen by the next one.
        self.release()
        with contextlib.suppress(JournalFailedError):
            self.engine.close_journal()
        self.threads.submit(int).result()
        shutil.rmtree(self.directory)
        self.lives += 1

    def release(self) -> None:
        for call in CALLS:
            self.faults.release(call)

    def next_directory(self) -> Path:
        return self.base / f"life-{self.lives + 1}"

    def check_refusal(self) -> None:
        """A failed journal takes nothing more, and what was durable stays so."""
        durable = self.engine.durable_sequence
        command = self.stream.order(self.judge.engine)
        try:
            outcome = self.ours.run(command)
        except JournalFailedError:
            outcome = None
        self.require(outcome is None, f"a failed journal answered {outcome!r} to {command}")
        self.require(self.engine.durable_sequence == durable, "more is durable after a failure")

    def lose_power(self, durable: int) -> None:
        """Throw away what was written after the last sync: all of it, some, or make it zeros."""
        if self.loses:
            durable = max(0, durable - 1)
        draw = self.rng.random()
        if draw < 0.9 or self.loses:
            leaves: Leaves = "nothing" if draw < 0.5 else "part" if draw < 0.7 else "zeros"
            size = cut(self.next_directory(), durable, leaves, self.rng)
            self.note(f"power lost after record {durable}: {size} bytes left")
            self.count("power lost")

    # Waiting, and telling

    def await_event(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not happened():
            if time.monotonic() > deadline:
                self.require(False, f"nothing happened for {TIMEOUT_S} s")
            time.sleep(0)

    def note(self, text: str) -> None:
        self.trace.append(text)
        self.digest.update(text.encode() + b"\n")

    def count(self, event: str) -> None:
        self.counts[event] = self.counts.get(event, 0) + 1

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            last = "\n  ".join(self.trace)
            raise DifferenceError(f"{text}\nthe last steps:\n  {last}")


def cut(directory: Path, durable: int, leaves: Leaves, rng: random.Random) -> int:
    """Cut the last segment after the durable record, or later, or fill it with zeros from there.

    Earlier segments were synced before it was made. Return its new size; without any durable byte,
    the file is gone, because the sync of its directory comes after that of its header.
    """
    segments = sorted(directory.glob("*.journal"))
    if not segments:
        return 0
    content = segments[-1].read_bytes()
    keep = durable_size(content, durable)
    if leaves != "nothing":
        keep = rng.randint(keep, len(content))
    if leaves == "zeros":
        content = content[:keep] + bytes(len(content) - keep)
        keep = len(content)
    if keep == 0:
        segments[-1].unlink()
    else:
        segments[-1].write_bytes(content[:keep])
    return keep


def durable_size(content: bytes, durable: int) -> int:
    """Return where the durable record ends in a segment; 0 if it is in an earlier one."""
    offset = SEGMENT_HEAD
    end = 0
    while offset + RECORD_HEAD <= len(content):
        (size,) = struct.unpack_from("<I", content, offset + 4)
        (sequence,) = struct.unpack_from("<Q", content, offset + 16)
        offset += (RECORD_HEAD + size + 7) // 8 * 8
        if sequence > durable:
            break
        end = offset
    return end
