"""The engine for Python: one book under one lock, and the journal of all that changed it.

What a hot request does is in apply.pyx, what other commands do in admin.pyx and definitions.pyx.

Durability
    With a journal (`open_journal`), a command that raised the revision is a record, appended under
    the lock right after it was applied: the order of the journal is the order of the changes. A
    reply, also of a read, a repeat or a check alone, leaves when all that was appended before it is
    as durable as was promised, because it may show any of it. The wait holds neither the lock nor
    the GIL. Room for the record is made before the command is applied, so a journal that is full
    refuses it and nothing has happened. Once the journal has failed, what is in memory may be more
    than what was kept: nothing is applied or shown any more.

A record's payload
    Its time is the command's, its revision that of the book after it. Its kind is

    1 to 63   a hot request, kind = the method's number: the CRC-32C of the reply (4 bytes) and the
              reply's size (4 bytes), both little endian, then the request as it came
    64        any other change: a JSON object in ASCII, keys sorted, no spaces, numbers whole:
              {"actor": who, "arguments": {name: value}, "change": name}. An argument that is not
              there has its default, so arguments can be added; an unknown change or argument is
              of a newer program and refused.

    The first record is the change "create_book": the capacities of the empty book, at revision 0.
    Capacities decide what is remembered and what is full, so they are part of the state.

    What changed nothing is not recorded: repeats, checks alone, reads, refused changes, malformed
    requests. (A rejected order is remembered, so it raises the revision and is a record.)

Replay
    The same code applies the records in their order, each at its recorded time, and must come to
    the recorded revision: else the journal is refused. The same holds for a hot reply's checksum. A
    reply that differs means that this program would have decided or said something else than was
    acknowledged, so it is refused as well, unless the caller accepts differences, which are then
    counted. Nothing of a reply is in the state but the reply itself, for repeats.

Time
    Each command comes with its time, but never goes back behind an earlier change, nor behind the
    last record after a restart: then it is taken to come at that time.
"""

import contextlib
import functools
import hashlib
import json
import os
import sys

from riskd.core.journal import JournalDamagedError, JournalFailedError, JournalFullError
from riskd.core.rows import (
    CollateralRow,
    FundingRow,
    InstrumentRow,
    Replay,
    ScheduleRow,
    SettlementRow,
)
from riskd.core.snapshot import SnapshotInvalidError, snapshot_head, snapshot_paths

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport INT64_MAX, UINT32_MAX, UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cimport riskd.core.admin as admin
cimport riskd.core.limit_changes as limit_changes
cimport riskd.core.settlement as settlement
from riskd.core.admin cimport CANCEL_IDS_MAX, Change, OrderFilter
from riskd.core.apply cimport (
    APPLY_ANSWERED,
    APPLY_DENIED,
    HOT_ADVANCE_TIME,
    HOT_BATCH_CHECK_ORDERS,
    HOT_CHECK_AMENDMENT,
    HOT_CHECK_ORDER,
    HOT_GET_RESERVATION,
    HOT_REPORT_EXECUTION,
    HOT_REPORT_MARKS,
    REPLY_SIZE_MAX,
    engine_apply,
    release_order,
)
from riskd.core.book cimport (
    RESIZE_IN_USE,
    RESIZE_NO_MEMORY,
    TABLE_ACCOUNTS,
    TABLE_BALANCES,
    TABLE_CLOSED,
    TABLE_FIRMS,
    TABLE_GATEWAYS,
    TABLE_HOLDINGS,
    TABLE_INSTRUMENTS,
    TABLE_LIMITS,
    TABLE_ORDERS,
    TABLE_POSITIONS,
    TABLE_SCHEDULES,
    TABLES,
    Book,
    Capacities,
    Table,
    account_find,
    balance_set,
    book_capacities,
    book_close,
    book_open,
    book_resize,
    book_tables,
    capacities_fixed,
    order_find,
)
from riskd.core.collateral cimport define_collateral
from riskd.core.controls cimport limit_find, limit_use
from riskd.core.credit cimport set_credit_line
from riskd.core.decision cimport max_order_lots
from riskd.core.definitions cimport (
    define_account,
    define_asset,
    define_instrument,
    define_option_rule,
    define_schedule,
)
from riskd.core.histogram cimport (
    Sampler,
    Timer,
    clock_ns,
    sampler_start,
    sampler_takes,
    stages_add_timer,
    timer_start,
)
from riskd.core.hot cimport (
    HotCounts,
    HotDoor,
    HotHead,
    hot_count,
    hot_queue,
    hot_streamed_method,
    pthread_mutex_t,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
)
from riskd.core.journal cimport (
    JOURNAL_FULL,
    JOURNAL_OK,
    JOURNAL_PAYLOAD_TOO_LARGE,
    Journal,
    JournalRecord,
    JournalState,
    Scan,
    journal_append,
    journal_call,
    journal_crc32c,
    journal_durable,
    journal_make_room,
    journal_status,
    journal_wait,
)
from riskd.core.margin_levels cimport evaluate_levels, set_margin_levels
from riskd.core.money cimport PPB
from riskd.core.mode_switch cimport ModeSwitch, change_margin_mode
from riskd.core.permits cimport Caller, Permission
from riskd.core.settlement cimport Funding, Settlement
from riskd.core.snapshot cimport snapshot_read, snapshot_write
from riskd.core.types cimport *
from riskd.core.views cimport (
    account_row_of,
    account_rows,
    answer_lines_of,
    asset_rows,
    firm_rows,
    balance_rows,
    collateral_values,
    collateral_rows,
    gateway_rows,
    instrument_rows,
    limit_rows,
    mark_row,
    position_rows,
    risk_event_rows,
    schedule_rows,
    state_lines_of,
    summary_row,
    trading_state_rows,
    working_reservation_ids,
)
from riskd.core.what_if cimport PositionChange, what_if_copy, what_if_put, what_if_room
from riskd.core.wire cimport (
    MALFORMED_TEXT_SIZE,
    Malformed,
    Writer,
    decode_streamed,
    inner_writer,
    malformed_text,
    write_bytes,
)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutexattr_t:
        pass
    enum:
        PTHREAD_MUTEX_RECURSIVE
    int pthread_mutexattr_init(pthread_mutexattr_t *attributes)
    int pthread_mutexattr_settype(pthread_mutexattr_t *attributes, int kind)
    int pthread_mutexattr_destroy(pthread_mutexattr_t *attributes)
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)

cdef enum:
    KIND_CHANGE = 64
    # What a record holds at most, but for the head.
    REQUEST_SIZE_MAX = (1 << 20) - 8
    # Room that the journal has for what is done under one _Held before it is waited for.
    HELD_ROOM = 1 << 19
    # Accounts that are looked at in one step.
    LEVELS_PER_STEP_MAX = 65536
    # Replay looks for Ctrl-C and reports once in so many records.
    PROGRESS_RECORDS = 1 << 15
    # Of the hot requests, how many there are to one that is timed: that costs the clock, five times
    # 28 ns, where a request takes a microsecond.
    REQUESTS_PER_TIMED = 64

METHOD_CHECK_ORDER = HOT_CHECK_ORDER
METHOD_REPORT_EXECUTION = HOT_REPORT_EXECUTION
METHOD_GET_RESERVATION = HOT_GET_RESERVATION
METHOD_REPORT_MARKS = HOT_REPORT_MARKS
METHOD_CHECK_AMENDMENT = HOT_CHECK_AMENDMENT
METHOD_BATCH_CHECK_ORDERS = HOT_BATCH_CHECK_ORDERS
METHOD_ADVANCE_TIME = HOT_ADVANCE_TIME

SCOPE_SERVICE = admin.SCOPE_SERVICE
SCOPE_GATEWAY = admin.SCOPE_GATEWAY
SCOPE_ACCOUNT = admin.SCOPE_ACCOUNT
SCOPE_INSTRUMENT = admin.SCOPE_INSTRUMENT
SCOPE_FIRM = admin.SCOPE_FIRM


class DeniedError(Exception):
    """The caller has no permission for what the request names. Nothing changed.

    reason is a DenialReason, value the account or the gateway.
    """

    def __init__(self, reason, value):
        super().__init__(f"denied: reason {reason}, value {value}")
        self.reason = reason
        self.value = value


class MalformedRequestError(ValueError):
    """The request's bytes are not a valid message.

    Names the field and what is wrong. Nothing changed.
    """


cdef object _malformed_error(const Malformed *malformed):
    cdef char text[MALFORMED_TEXT_SIZE]
    malformed_text(malformed, text)
    return MalformedRequestError(text.decode("ascii"))


class ReplayError(Exception):
    """The journal does not lead to the state that it was written from."""

    def __init__(self, file, offset, sequence, reason):
        super().__init__(file, offset, sequence, reason)
        self.file = file
        self.offset = offset
        self.sequence = sequence
        self.reason = reason

    def __str__(self):
        return f"{self.file} at byte {self.offset}: record {self.sequence}: {self.reason}"


cdef class _Locked:
    """A read: the book's lock, and at its end the wait for all that was read to be durable."""
    cdef Engine _engine

    def __cinit__(self, Engine engine):
        self._engine = engine

    def __enter__(self):
        self._engine._lock()

    def __exit__(self, kind, error, traceback):
        cdef uint64_t sequence = self._engine._sequence_to_await()
        pthread_mutex_unlock(&self._engine._mutex)
        if kind is None:
            self._engine._await(sequence)


cdef class _Held:
    """The book's lock for several changes, of which nobody sees a part."""
    cdef Engine _engine

    def __cinit__(self, Engine engine):
        self._engine = engine

    def __enter__(self):
        cdef size_t room = HELD_ROOM
        if self._engine._log != NULL:
            room = min(room, self._engine._log.payload_size_max)
        self._engine._lock_with_room(room, True)
        self._engine._holds += 1

    def __exit__(self, kind, error, traceback):
        cdef uint64_t sequence
        self._engine._holds -= 1
        sequence = self._engine._sequence_to_await()
        pthread_mutex_unlock(&self._engine._mutex)
        if kind is None:
            self._engine._await(sequence)


# Its own methods are called without a table of them.
@cython.final
cdef class Engine:
    cdef Book _book
    # Recursive: who holds it for several changes makes each of them by itself.
    cdef pthread_mutex_t _mutex
    # Who has it is the next to have the other.
    cdef pthread_mutex_t _turn
    # How many _Held have it.
    cdef uint32_t _holds
    cdef uint8_t _reply[REPLY_SIZE_MAX]
    # None and NULL: nothing is kept.
    cdef Journal _journal
    cdef JournalState *_log
    # Of the last record; no command comes at an earlier time.
    cdef uint64_t _sequence
    cdef uint64_t _time_ns
    # Of the last record that was read back.
    cdef uint32_t _checksum
    # Of the last change from outside the hot door.
    cdef uint64_t _change_revision
    # What sees changes that are replayed, or None.
    cdef object _watcher
    cdef bint _is_what_if
    # Of native threads.
    cdef HotDoor _door
    # Of all doors; and which requests of Python are timed.
    cdef HotCounts _counts
    cdef Sampler _sampler
    cdef dict _asset_ids
    cdef dict _schedule_ids
    cdef dict _instrument_ids

    def __cinit__(
        self,
        *,
        accounts_max=100_000,
        positions_max=200_000,
        orders_max=200_000,
        instruments_max=4096,
        schedules_max=4096,
        gateways_max=256,
        balances_max=100_000,
        firms_max=4096,
        limits_max=65_536,
        holdings_max=65_536,
        answer_bytes=2 << 20,
    ):
        cdef pthread_mutexattr_t attributes
        cdef Capacities capacities
        memset(&capacities, 0, sizeof(Capacities))
        capacities_fixed(&capacities)
        _take_capacities(
            {
                "accounts_max": accounts_max,
                "positions_max": positions_max,
                "orders_max": orders_max,
                "instruments_max": instruments_max,
                "schedules_max": schedules_max,
                "gateways_max": gateways_max,
                "balances_max": balances_max,
                "firms_max": firms_max,
                "limits_max": limits_max,
                "holdings_max": holdings_max,
                "answer_bytes": answer_bytes,
            },
            &capacities,
        )
        pthread_mutexattr_init(&attributes)
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE)
        pthread_mutex_init(&self._mutex, &attributes)
        pthread_mutexattr_destroy(&attributes)
        pthread_mutex_init(&self._turn, NULL)
        if not book_open(&self._book, &capacities, int.from_bytes(os.urandom(8), "little")):
            book_close(&self._book)
            raise MemoryError("the tables do not fit in memory")
        sampler_start(&self._sampler, REQUESTS_PER_TIMED)
        self._asset_ids = {}
        self._schedule_ids = {}
        self._instrument_ids = {}

    def __dealloc__(self):
        book_close(&self._book)
        pthread_mutex_destroy(&self._turn)
        pthread_mutex_destroy(&self._mutex)

    @property
    def revision(self):
        with _Locked(self):
            return self._book.revision

    def handle(self, method, request, now_ns):
        cdef uint64_t sequence = 0
        reply = self._take(method, request, now_ns, None, True, &sequence)
        self._await(sequence)
        return reply

    def submit(self, method, request, now_ns, Permission permission=None):
        cdef uint64_t sequence = 0
        try:
            reply = self._take(method, request, now_ns, permission, False, &sequence)
        except JournalFullError:
            journal_call(self._log, 0)
            raise
        if self._log != NULL and sequence > journal_durable(self._log):
            journal_call(self._log, sequence)
        return reply, sequence

    def submit_streamed(self, bytes request not None, now_ns, Permission permission=None):
        cdef const uint8_t *start = <const uint8_t *><const char *>request
        cdef uint8_t framed[REPLY_SIZE_MAX + 16]
        cdef const uint8_t *inner
        cdef size_t size
        cdef uint32_t field
        cdef Malformed malformed
        cdef Writer writer = inner_writer(framed, sizeof(framed))
        if not decode_streamed(
            start, <size_t>len(request), &field, &inner, &size, &malformed
        ):
            raise _malformed_error(&malformed)
        reply, sequence = self.submit(
            hot_streamed_method(field), inner[:<Py_ssize_t>size], now_ns, permission
        )
        write_bytes(&writer, field, <const uint8_t *><const char *>reply, <size_t>len(reply))
        return framed[:<Py_ssize_t>writer.size], sequence

    def door(self):
        self._door = HotDoor(
            &self._mutex,
            &self._turn,
            &self._book,
            self._log,
            &self._sequence,
            &self._time_ns,
            &self._counts,
        )
        return PyCapsule_New(&self._door, "riskd.core.hot.HotDoor", NULL)

    cdef bytes _take(
        self,
        uint32_t method,
        bytes request,
        uint64_t now_ns,
        Permission permission,
        bint waits,
        uint64_t *sequence,
    ):
        """Apply a hot request; the reply may leave when the sequence is durable."""
        cdef const uint8_t *start
        cdef size_t size
        cdef uint64_t revision
        cdef uint32_t verdict
        cdef Malformed malformed
        cdef Caller caller
        cdef Timer timer
        cdef Writer writer = inner_writer(self._reply, REPLY_SIZE_MAX)
        if permission is not None:
            caller.permit = permission.permit
        if not _is_hot(method):
            raise ValueError(
                f"method {method} is not within {HOT_CHECK_ORDER} to {HOT_ADVANCE_TIME}"
            )
        if request is None:
            raise TypeError("request is None: must be bytes")
        start = <const uint8_t *><const char *>request
        size = <size_t>len(request)
        if size > REQUEST_SIZE_MAX:
            raise MalformedRequestError(f"request of {size} bytes exceeds {REQUEST_SIZE_MAX}")
        self._lock_with_room(sizeof(HotHead) + size, waits)
        try:
            if sampler_takes(&self._sampler):
                timer_start(&timer)
                writer.timer = &timer
            if now_ns < self._time_ns:
                now_ns = self._time_ns
            revision = self._book.revision
            verdict = engine_apply(
                &self._book,
                method,
                start,
                size,
                now_ns,
                NULL if permission is None else &caller,
                &writer,
                &malformed,
            )
            if verdict == APPLY_ANSWERED:
                if writer.timer != NULL:
                    timer.answered_ns = clock_ns()
                    stages_add_timer(self._counts.stages, &timer)
                hot_count(&self._counts, method, &writer)
                if self._book.revision != revision:
                    self._time_ns = now_ns
                    if self._log != NULL:
                        self._record_hot(method, start, size, &writer)
                sequence[0] = self._sequence
                return self._reply[:<Py_ssize_t>writer.size]
        finally:
            pthread_mutex_unlock(&self._mutex)
        if verdict == APPLY_DENIED:
            raise DeniedError(caller.fault, caller.value)
        raise _malformed_error(&malformed)

    # Durability

    cdef int _lock(self) except -1:
        """Take the lock, or raise if the journal has failed: then nothing may be shown."""
        cdef uint32_t status
        # A request takes less time than handing the GIL over and back: it is let go only to wait.
        if pthread_mutex_trylock(&self._mutex) != 0:
            with nogil:
                hot_queue(&self._turn, &self._mutex)
        if self._log == NULL:
            return 0
        status = journal_status(self._log)
        if status != JOURNAL_OK:
            pthread_mutex_unlock(&self._mutex)
            raise self._journal.refusal(status, 0)
        return 0

    cdef int _lock_with_room(self, size_t size, bint waits) except -1:
        """Take the lock while the journal has room for a payload, or raise.

        Nobody else appends, so the room stays. It is waited for without the lock.
        """
        cdef uint32_t status
        while True:
            if pthread_mutex_trylock(&self._mutex) != 0:
                with nogil:
                    hot_queue(&self._turn, &self._mutex)
            if self._log == NULL:
                return 0
            status = journal_make_room(self._log, size, False)
            if status == JOURNAL_OK:
                return 0
            pthread_mutex_unlock(&self._mutex)
            if status == JOURNAL_FULL and waits:
                with nogil:
                    status = journal_make_room(self._log, size, True)
            if status == JOURNAL_PAYLOAD_TOO_LARGE:
                raise MalformedRequestError(
                    f"request of {size} bytes exceeds {self._log.payload_size_max}"
                )
            if status != JOURNAL_OK:
                raise self._journal.refusal(status, size)

    cdef int _record_hot(
        self, uint32_t method, const uint8_t *request, size_t size, const Writer *writer
    ) except -1:
        cdef HotHead head
        head.reply_checksum = journal_crc32c(writer.start, writer.size)
        head.reply_size = <uint32_t>writer.size
        return self._record(method, <const uint8_t *>&head, sizeof(HotHead), request, size)

    cdef int _record(
        self,
        uint32_t kind,
        const uint8_t *prefix,
        size_t prefix_size,
        const uint8_t *rest,
        size_t rest_size,
    ) except -1:
        """Append what was just applied. There is room, so only a failure can refuse it."""
        cdef uint32_t status = journal_append(
            self._log,
            kind,
            self._time_ns,
            self._book.revision,
            prefix,
            prefix_size,
            rest,
            rest_size,
            &self._sequence,
        )
        if status != JOURNAL_OK:
            raise self._journal.refusal(status, prefix_size + rest_size)
        return 0

    cdef uint64_t _sequence_to_await(self) noexcept:
        """Return what to wait for after the lock, 0 while it is held on for more changes."""
        return 0 if self._holds != 0 else self._sequence

    def exclusive(self):
        return _Held(self)

    cdef int _await(self, uint64_t sequence) except -1:
        """Block until a record is as durable as was promised; raise if it never will be."""
        cdef uint32_t status
        if self._log == NULL or sequence <= journal_durable(self._log):
            return 0
        with nogil:
            status = journal_wait(self._log, sequence)
        if status != JOURNAL_OK:
            raise self._journal.refusal(status, 0)
        return 0

    cdef object _change(self, name, dict arguments, now_ns, actor):
        """Make a change of the table at the end of this file: the one way from outside.

        A change that is only validated never raises the revision, so no record has the argument.
        """
        cdef uint64_t now = now_ns
        cdef uint64_t sequence
        cdef bytes payload = b""
        if self._log != NULL and not arguments.get("validate_only"):
            arguments.pop("validate_only", None)
            payload = _change_payload(name, actor, arguments)
        self._lock_with_room(<size_t>len(payload), True)
        try:
            now = max(now, self._time_ns)
            outcome = self._apply_change(name, arguments, now, payload)
            sequence = self._sequence_to_await()
        finally:
            pthread_mutex_unlock(&self._mutex)
        self._await(sequence)
        return outcome

    cdef object _apply_change(self, name, dict arguments, uint64_t now_ns, bytes payload):
        """Apply, and record what raised the revision, be it that something is raised after it."""
        cdef uint64_t revision = self._book.revision
        try:
            return _CHANGES[name](self, now_ns, **arguments)
        finally:
            if self._book.revision != revision:
                # That levels change is no change of anybody's.
                if name != "evaluate_levels":
                    self._change_revision = self._book.revision
                self._time_ns = now_ns
                if self._log != NULL:
                    self._record(
                        KIND_CHANGE,
                        <const uint8_t *><const char *>payload,
                        <size_t>len(payload),
                        NULL,
                        0,
                    )

    def open_journal(
        self,
        directory,
        *,
        durability="machine",
        segment_bytes=1 << 28,
        buffer_bytes=1 << 23,
        append_wait_ms_max=10_000,
        accept_differences=False,
        now_ns=0,
        progress=None,
        faults=None,
    ):
        if self._journal is not None or self._book.revision != 0:
            raise ValueError("only a new engine can open a journal")
        if self._door.mutex != NULL:
            # Who has it would answer without a record.
            raise ValueError("a journal is opened before a listener or monitor takes the engine")
        capacities = self.capacities()
        newest = next(_usable_snapshots(directory, None, []), None)
        journal = Journal.open(
            directory,
            durability=durability,
            segment_bytes=segment_bytes,
            buffer_bytes=buffer_bytes,
            append_wait_ms_max=append_wait_ms_max,
            from_sequence=newest[1].next_sequence if newest is not None else 1,
            faults=faults,
        )
        try:
            replay = self._load(journal, capacities, accept_differences, now_ns, progress)
        except BaseException:
            # A part of the state, which nobody may take for the whole.
            self._attach(journal)
            _close(journal)
            raise
        return replay._replace(torn=journal.torn)

    cdef object _load(
        self, Journal journal, dict capacities, accept_differences, now_ns, progress
    ):
        replay = self.recover(
            journal.directory, accept_differences=accept_differences, progress=progress
        )
        self._attach(journal)
        self._time_ns = max(self._time_ns, now_ns)
        if replay.sequence == 0:
            self._begin(_change_payload("create_book", "riskd", capacities))
        else:
            self.set_capacities(**capacities)
        return replay

    cdef _attach(self, Journal journal):
        self._journal = journal
        self._log = &journal.state
        self._sequence = journal.state.next_sequence - 1

    cdef int _begin(self, bytes payload) except -1:
        """Append the first record."""
        self._lock_with_room(<size_t>len(payload), True)
        try:
            self._record(
                KIND_CHANGE, <const uint8_t *><const char *>payload, <size_t>len(payload), NULL, 0
            )
        finally:
            pthread_mutex_unlock(&self._mutex)
        return self._await(self._sequence)

    def close_journal(self):
        if self._journal is not None:
            self._journal.close()

    @property
    def journal(self):
        return self._journal

    @property
    def durable_sequence(self):
        return journal_durable(self._log) if self._log != NULL else 0

    def watch_replay(self, watcher):
        self._watcher = watcher

    @property
    def change_revision(self):
        with _Locked(self):
            return self._change_revision

    def recover(
        self,
        directory,
        *,
        until_sequence=None,
        from_oldest=False,
        accept_differences=False,
        progress=None,
    ):
        if self._journal is not None or self._book.revision != 0:
            raise ValueError("only a new engine can recover")
        refused = []
        for path, scan in _usable_snapshots(
            directory, until_sequence, refused, from_oldest
        ):
            if self._load_snapshot(path, refused):
                break
        else:
            path, scan = None, Scan(directory)
        replay = self._replay(scan, until_sequence, accept_differences, progress)
        return replay._replace(snapshot=path, refused_snapshots=tuple(refused))

    cdef bint _load_snapshot(self, path, list refused) except -1:
        """Put what is in a snapshot in the place of what is here; False if it is not valid."""
        cdef Book book
        try:
            head = snapshot_read(&book, path, self._book.account_index.seed)
        except SnapshotInvalidError:
            refused.append(str(sys.exception()))
            return False
        book_close(&self._book)
        self._book = book
        self._sequence = head.sequence
        self._time_ns = head.time_ns
        self._checksum = head.checksum
        self._asset_ids = {row.symbol: row.asset_id for row in asset_rows(&self._book)}
        self._schedule_ids = {row.name: row.schedule_id for row in schedule_rows(&self._book)}
        self._instrument_ids = {
            row.symbol: row.instrument_id for row in instrument_rows(&self._book)
        }
        return True

    def write_snapshot(self, directory):
        if self._journal is not None or self._sequence == 0:
            raise ValueError("only what was read back from a journal can be a snapshot")
        with _Locked(self):
            return snapshot_write(
                &self._book, directory, self._sequence, self._time_ns, self._checksum
            )

    def replay(
        self,
        directory,
        *,
        from_sequence=1,
        until_sequence=None,
        accept_differences=False,
        progress=None,
    ):
        scan = Scan(directory, from_sequence)
        if until_sequence is not None and until_sequence < from_sequence:
            raise ValueError(f"until_sequence {until_sequence} is before {from_sequence}")
        return self._replay(scan, until_sequence, accept_differences, progress)

    cdef object _replay(self, Scan scan, until_sequence, bint accept_differences, progress):
        cdef uint64_t until = UINT64_MAX if until_sequence is None else until_sequence
        cdef uint64_t records = 0
        cdef uint64_t differences = 0
        cdef uint64_t first_difference = 0
        cdef bint same
        while scan.next_sequence <= until and scan.advance():
            if scan.record.kind == KIND_CHANGE:
                same = self._replay_change(scan)
            else:
                same = self._replay_hot(scan)
            if not same and not accept_differences:
                raise _replay_error(
                    scan, "this program gives another reply than the one that was recorded"
                )
            if not same and differences == 0:
                first_difference = scan.record.sequence
            differences += not same
            self._time_ns = scan.record.time_ns
            self._sequence = scan.record.sequence
            self._checksum = scan._chain
            if self._book.revision != scan.record.revision:
                raise _replay_error(
                    scan,
                    f"it leads to revision {self._book.revision},"
                    f" recorded is {scan.record.revision}",
                )
            records += 1
            if records % PROGRESS_RECORDS == 0:
                PyErr_CheckSignals()
                if progress is not None:
                    progress(records)
        return Replay(
            records, scan.next_sequence - 1, differences, first_difference, self._time_ns, scan.torn
        )

    cdef bint _replay_hot(self, Scan scan) except -1:
        """Return whether the reply is the recorded one."""
        cdef const JournalRecord *record = &scan.record
        cdef HotHead head
        cdef Malformed malformed
        cdef Writer writer = inner_writer(self._reply, REPLY_SIZE_MAX)
        if not _is_hot(record.kind):
            raise _replay_error(scan, f"kind {record.kind} is not known: of a newer program?")
        if record.size < sizeof(HotHead):
            raise _replay_error(scan, f"a hot record of {record.size} bytes has no head")
        memcpy(&head, record.payload, sizeof(HotHead))
        if engine_apply(
            &self._book,
            record.kind,
            record.payload + sizeof(HotHead),
            record.size - sizeof(HotHead),
            record.time_ns,
            NULL,
            &writer,
            &malformed,
        ) != APPLY_ANSWERED:
            raise _replay_error(scan, f"the request is malformed: {_malformed_error(&malformed)}")
        return (
            head.reply_size == writer.size
            and head.reply_checksum == journal_crc32c(writer.start, writer.size)
        )

    cdef bint _replay_change(self, Scan scan) except -1:
        """Return True: only hot records have a reply."""
        fault = _change_fault(
            self, scan.record.time_ns, (<const char *>scan.record.payload)[:scan.record.size]
        )
        if fault is not None:
            raise _replay_error(scan, f"the change is not known ({fault}): of a newer program?")
        return True

    # Changes

    def create_asset(self, symbol, scale, *, now_ns=0, actor="riskd"):
        return self._change("create_asset", {"symbol": symbol, "scale": scale}, now_ns, actor)

    def upsert_schedule(
        self,
        name,
        asset_id,
        tiers,
        notional_max=0,
        liquidation_fee_ppb=0,
        family=FAMILY_TIERED,
        maintenance_basis=MAINTENANCE_BASIS_MARK,
        parameter_a=0,
        parameter_b=0,
        parameter_c=0,
        closing_fee=CLOSING_FEE_NONE,
        *,
        now_ns=0,
        actor="riskd",
    ):
        arguments = {
            "name": name,
            "asset_id": asset_id,
            "tiers": tiers,
            "notional_max": notional_max,
            "liquidation_fee_ppb": liquidation_fee_ppb,
            "family": family,
            "maintenance_basis": maintenance_basis,
            "parameter_a": parameter_a,
            "parameter_b": parameter_b,
            "parameter_c": parameter_c,
            "closing_fee": closing_fee,
        }
        return self._change("upsert_schedule", arguments, now_ns, actor)

    def upsert_instrument(
        self,
        symbol,
        kind,
        asset_id,
        schedule_id,
        tick_mantissa,
        tick_exponent,
        lot_mantissa,
        lot_exponent,
        mark_units_per_tick=1,
        order_lots_min=0,
        order_lots_max=0,
        order_notional_min=0,
        order_notional_max=0,
        price_collar_ppb=0,
        market_buffer_ppb=0,
        taker_fee_ppb=0,
        mark_age_max_ns=0,
        trading_state=0,
        expiry_ns=0,
        strike_units=0,
        option_type=0,
        interest_rate_ppb=0,
        underlying_id=0,
        multiplier_mantissa=1,
        multiplier_exponent=0,
        option_rule_id=0,
        base_asset_id=0,
        isolated_only=0,
        *,
        now_ns=0,
        actor="riskd",
    ):
        arguments = {
            "symbol": symbol,
            "kind": kind,
            "asset_id": asset_id,
            "schedule_id": schedule_id,
            "tick_mantissa": tick_mantissa,
            "tick_exponent": tick_exponent,
            "lot_mantissa": lot_mantissa,
            "lot_exponent": lot_exponent,
            "mark_units_per_tick": mark_units_per_tick,
            "order_lots_min": order_lots_min,
            "order_lots_max": order_lots_max,
            "order_notional_min": order_notional_min,
            "order_notional_max": order_notional_max,
            "price_collar_ppb": price_collar_ppb,
            "market_buffer_ppb": market_buffer_ppb,
            "taker_fee_ppb": taker_fee_ppb,
            "mark_age_max_ns": mark_age_max_ns,
            "trading_state": trading_state,
            "expiry_ns": expiry_ns,
            "strike_units": strike_units,
            "option_type": option_type,
            "interest_rate_ppb": interest_rate_ppb,
            "underlying_id": underlying_id,
            "multiplier_mantissa": multiplier_mantissa,
            "multiplier_exponent": multiplier_exponent,
            "option_rule_id": option_rule_id,
            "base_asset_id": base_asset_id,
            "isolated_only": isolated_only,
        }
        return self._change("upsert_instrument", arguments, now_ns, actor)

    def upsert_option_rule(
        self,
        name,
        asset_id,
        initial_ppb,
        initial_min_ppb,
        maintenance_ppb,
        put_maintenance=0,
        parameter_d=0,
        parameter_e=0,
        *,
        now_ns=0,
        actor="riskd",
    ):
        arguments = {
            "name": name,
            "asset_id": asset_id,
            "initial_ppb": initial_ppb,
            "initial_min_ppb": initial_min_ppb,
            "maintenance_ppb": maintenance_ppb,
            "put_maintenance": put_maintenance,
            "parameter_d": parameter_d,
            "parameter_e": parameter_e,
        }
        return self._change("upsert_option_rule", arguments, now_ns, actor)

    def report_open_interest(
        self, instrument_id, lots, *, validate_only=False, now_ns=0, actor="riskd"
    ):
        arguments = {
            "instrument_id": instrument_id,
            "lots": lots,
            "validate_only": validate_only,
        }
        return self._change("report_open_interest", arguments, now_ns, actor)

    def create_account(
        self, account_id, asset_id, margin_mode, leverage, cash, *, now_ns=0, actor="riskd"
    ):
        arguments = {
            "account_id": account_id,
            "asset_id": asset_id,
            "margin_mode": margin_mode,
            "leverage": leverage,
            "cash": cash,
        }
        return self._change("create_account", arguments, now_ns, actor)

    def adjust_collateral(
        self, account_id, asset_id, amount, validate_only, now_ns, *, actor="riskd"
    ):
        arguments = {
            "account_id": account_id,
            "asset_id": asset_id,
            "amount": amount,
            "validate_only": validate_only,
        }
        return self._change("adjust_collateral", arguments, now_ns, actor)

    def transfer_margin(
        self,
        account_id,
        instrument_id,
        amount,
        validate_only,
        now_ns,
        position_side=0,
        *,
        actor="riskd",
    ):
        arguments = {
            "account_id": account_id,
            "instrument_id": instrument_id,
            "amount": amount,
            "validate_only": validate_only,
            "position_side": position_side,
        }
        return self._change("transfer_margin", arguments, now_ns, actor)

    def change_margin_mode(
        self, account_id, instrument_id, margin_mode, validate_only, now_ns, *, actor="riskd"
    ):
        arguments = {
            "account_id": account_id,
            "instrument_id": instrument_id,
            "margin_mode": margin_mode,
            "validate_only": validate_only,
        }
        return self._change("change_margin_mode", arguments, now_ns, actor)

    def set_leverage(
        self, account_id, instrument_id, leverage, validate_only, now_ns, *, actor="riskd"
    ):
        arguments = {
            "account_id": account_id,
            "instrument_id": instrument_id,
            "leverage": leverage,
            "validate_only": validate_only,
        }
        return self._change("set_leverage", arguments, now_ns, actor)

    def set_position_mode(self, account_id, position_mode, *, now_ns=0, actor="riskd"):
        arguments = {"account_id": account_id, "position_mode": position_mode}
        return self._change("set_position_mode", arguments, now_ns, actor)

    def renew_lease(self, gateway_id, duration_ns, action, now_ns, *, actor="riskd"):
        arguments = {"gateway_id": gateway_id, "duration_ns": duration_ns, "action": action}
        return self._change("renew_lease", arguments, now_ns, actor)

    def cancel_orders(
        self,
        gateway_id,
        account_id,
        instrument_id,
        side,
        accepted_before_ns,
        keep,
        validate_only,
        now_ns,
        *,
        actor="riskd",
    ):
        arguments = {
            "gateway_id": gateway_id,
            "account_id": account_id,
            "instrument_id": instrument_id,
            "side": side,
            "accepted_before_ns": accepted_before_ns,
            "keep": list(keep),
            "validate_only": validate_only,
        }
        return self._change("cancel_orders", arguments, now_ns, actor)

    def set_trading_state(self, scope, scope_id, trading_state, *, now_ns=0, actor="riskd"):
        arguments = {"scope": scope, "scope_id": scope_id, "trading_state": trading_state}
        return self._change("set_trading_state", arguments, now_ns, actor)

    def set_capacities(self, *, now_ns=0, actor="riskd", **capacities):
        return self._change("set_capacities", capacities, now_ns, actor)

    def create_firm(self, firm_id, asset_id, *, now_ns=0, actor="riskd"):
        arguments = {"firm_id": firm_id, "asset_id": asset_id}
        return self._change("create_firm", arguments, now_ns, actor)

    def set_account_owner(self, account_id, firm_id, parent_account_id, now_ns, *, actor="riskd"):
        arguments = {
            "account_id": account_id,
            "firm_id": firm_id,
            "parent_account_id": parent_account_id,
        }
        return self._change("set_account_owner", arguments, now_ns, actor)

    def set_limit(
        self,
        scope,
        scope_id,
        instrument_id,
        kind,
        value,
        burst,
        action,
        now_ns,
        *,
        actor="riskd",
    ):
        arguments = {
            "scope": scope,
            "scope_id": scope_id,
            "instrument_id": instrument_id,
            "kind": kind,
            "value": value,
            "burst": burst,
            "action": action,
        }
        return self._change("set_limit", arguments, now_ns, actor)

    def raise_limit(
        self, scope, scope_id, instrument_id, kind, value, until_ns, now_ns, *, actor="riskd"
    ):
        arguments = {
            "scope": scope,
            "scope_id": scope_id,
            "instrument_id": instrument_id,
            "kind": kind,
            "value": value,
            "until_ns": until_ns,
        }
        return self._change("raise_limit", arguments, now_ns, actor)

    def remove_limit(self, scope, scope_id, instrument_id, kind, *, now_ns=0, actor="riskd"):
        arguments = {
            "scope": scope,
            "scope_id": scope_id,
            "instrument_id": instrument_id,
            "kind": kind,
        }
        return self._change("remove_limit", arguments, now_ns, actor)

    def reset_usage(self, scope, scope_id, instrument_id, kind, now_ns, *, actor="riskd"):
        arguments = {
            "scope": scope,
            "scope_id": scope_id,
            "instrument_id": instrument_id,
            "kind": kind,
        }
        return self._change("reset_usage", arguments, now_ns, actor)

    def load_position(
        self,
        account_id,
        instrument_id,
        position_side,
        lots,
        entry_value,
        wallet,
        *,
        validate_only=False,
        now_ns=0,
        actor="riskd",
    ):
        arguments = {
            "account_id": account_id,
            "instrument_id": instrument_id,
            "position_side": position_side,
            "lots": lots,
            "entry_value": entry_value,
            "wallet": wallet,
            "validate_only": validate_only,
        }
        return self._change("load_position", arguments, now_ns, actor)

    def apply_funding(
        self,
        instrument_id,
        rate_ppb,
        price,
        time_ns,
        *,
        validate_only=False,
        now_ns=0,
        actor="riskd",
    ):
        arguments = {
            "instrument_id": instrument_id,
            "rate_ppb": rate_ppb,
            "price": price,
            "time_ns": time_ns,
            "validate_only": validate_only,
        }
        return self._change("apply_funding", arguments, now_ns, actor)

    def settle_instrument(
        self, instrument_id, price, *, validate_only=False, now_ns=0, actor="riskd"
    ):
        arguments = {
            "instrument_id": instrument_id,
            "price": price,
            "validate_only": validate_only,
        }
        return self._change("settle_instrument", arguments, now_ns, actor)

    def set_margin_levels(
        self, search_ppm, release_ppm, *, validate_only=False, now_ns=0, actor="riskd"
    ):
        arguments = {
            "search_ppm": search_ppm,
            "release_ppm": release_ppm,
            "validate_only": validate_only,
        }
        return self._change("set_margin_levels", arguments, now_ns, actor)

    def evaluate_levels(self, first, count, now_ns):
        if not _in(first, 0, UINT32_MAX):
            raise ValueError(f"first {first} is not within 0 to {UINT32_MAX}")
        if not _in(count, 1, LEVELS_PER_STEP_MAX):
            raise ValueError(f"count {count} is not within 1 to {LEVELS_PER_STEP_MAX}")
        return self._change(
            "evaluate_levels", {"first": first, "count": count}, now_ns, "riskd"
        )

    def define_collateral(
        self,
        asset_id,
        settlement_asset_id,
        index_instrument_id,
        tiers,
        cap=0,
        liability_ppb=PPB,
        interest_free=0,
        forced_conversion=0,
        wrong_way_ppb=0,
        *,
        validate_only=False,
        now_ns=0,
        actor="riskd",
    ):
        arguments = {
            "asset_id": asset_id,
            "settlement_asset_id": settlement_asset_id,
            "index_instrument_id": index_instrument_id,
            "tiers": tiers,
            "cap": cap,
            "liability_ppb": liability_ppb,
            "interest_free": interest_free,
            "forced_conversion": forced_conversion,
            "wrong_way_ppb": wrong_way_ppb,
            "validate_only": validate_only,
        }
        return self._change("define_collateral", arguments, now_ns, actor)

    def set_credit_line(
        self, scope, scope_id, amount, *, validate_only=False, now_ns=0, actor="riskd"
    ):
        arguments = {
            "scope": scope,
            "scope_id": scope_id,
            "amount": amount,
            "validate_only": validate_only,
        }
        return self._change("set_credit_line", arguments, now_ns, actor)

    # Reads

    def collateral(self):
        with _Locked(self):
            return collateral_rows(&self._book)

    def margin_levels(self):
        with _Locked(self):
            return self._book.search_ppm, self._book.release_ppm

    def risk_events(self, after_revision, account_id, limit):
        with _Locked(self):
            return risk_event_rows(&self._book, after_revision, account_id, limit)

    def firms(self):
        with _Locked(self):
            return firm_rows(&self._book)

    def limits(self):
        with _Locked(self):
            return limit_rows(&self._book)

    def limit_use(self, scope, scope_id, instrument_id, kind, now_ns):
        cdef const Limit *limit = NULL
        cdef int64_t use
        cdef uint64_t now = now_ns
        with _Locked(self):
            if _names_limit(scope, scope_id, instrument_id, kind):
                limit = limit_find(&self._book, scope, scope_id, instrument_id, kind)
            if limit == NULL:
                raise KeyError(
                    f"scope {scope} {scope_id}, instrument {instrument_id}, kind {kind}: no limit"
                )
            return use if limit_use(&self._book, limit, max(now, self._time_ns), &use) else None

    def capacities(self):
        cdef Capacities capacities
        with _Locked(self):
            book_capacities(&self._book, &capacities)
        return {
            name: capacities.entries[<uint32_t>bounds[0]] if bounds[0] < TABLES
            else capacities.answer_bytes
            for name, bounds in _CAPACITIES.items()
        }

    def assets(self):
        with _Locked(self):
            return asset_rows(&self._book)

    def schedules(self):
        with _Locked(self):
            return schedule_rows(&self._book)

    def instruments(self):
        with _Locked(self):
            return instrument_rows(&self._book)

    def mark(self, instrument_id):
        with _Locked(self):
            return mark_row(&self._book, instrument_id)

    def account(self, account_id):
        with _Locked(self):
            return account_row_of(&self._book, account_id)

    def accounts(self, after_id, count_max):
        with _Locked(self):
            return account_rows(&self._book, after_id, count_max)

    def summary(self, account_id):
        with _Locked(self):
            return summary_row(&self._book, account_id)

    def positions(self, account_id):
        with _Locked(self):
            return position_rows(&self._book, account_id)

    def max_order_lots(
        self,
        account_id,
        instrument_id,
        side,
        order_type,
        price_ticks,
        now_ns,
        position_side=0,
    ):
        cdef OrderRequest request
        cdef uint64_t lots
        cdef uint32_t reason
        memset(&request, 0, sizeof(OrderRequest))
        request.account_id = account_id
        request.instrument_id = instrument_id
        request.side = side
        request.order_type = order_type
        request.price_ticks = price_ticks
        request.position_side = position_side
        request.quantity_lots = 1
        request.mode = CHECK_MODE_CHECK_ONLY
        with _Locked(self):
            max_order_lots(&self._book, &request, now_ns, &lots, &reason)
        return lots, reason

    def balances(self, account_id):
        with _Locked(self):
            return balance_rows(&self._book, account_id)

    def collateral_values(self, account_id):
        with _Locked(self):
            return collateral_values(&self._book, account_id)

    def gateways(self):
        with _Locked(self):
            return gateway_rows(&self._book)

    def trading_states(self):
        with _Locked(self):
            return trading_state_rows(&self._book)

    def working_reservations(self, scope, scope_id, count_max):
        with _Locked(self):
            return working_reservation_ids(&self._book, scope, scope_id, count_max)

    # What would be

    def what_if(self, account_id, *, positions=0, schedules=0, orders=0):
        cdef Capacities room
        cdef const Account *account = NULL
        cdef Engine copy
        cdef uint64_t id = account_id
        cdef bint done = False
        while not done:
            memset(&room, 0, sizeof(Capacities))
            with _Locked(self):
                account = self._account_or_none(id)
                what_if_room(&self._book, account, &room)
            # Settings of an instrument are a position, and each order may take one of its own.
            copy = _engine_with_room(&room, 2 * positions + orders, schedules, orders)
            with _Locked(self):
                account = self._account_or_none(id)
                with nogil:
                    done = what_if_copy(&self._book, account, &copy._book)
                copy._schedule_ids = dict(self._schedule_ids)
                copy._time_ns = self._time_ns
        copy._is_what_if = True
        return copy

    cdef const Account *_account_or_none(self, uint64_t account_id) except? NULL:
        """Return an account, NULL for 0. Raises KeyError if it is not known."""
        cdef const Account *account
        if account_id == 0:
            return NULL
        account = account_find(&self._book, account_id)
        if account == NULL:
            raise KeyError(f"account {account_id} is not known")
        return account

    cdef Account *_account_to_change(self, account_id) except NULL:
        cdef Account *account
        if not self._is_what_if:
            raise ValueError("only a what-if takes what no rule has looked at")
        account = account_find(&self._book, account_id)
        if account == NULL:
            raise KeyError(f"account {account_id} is not known")
        return account

    def put_balance(self, account_id, asset_id, amount):
        cdef Account *account = self._account_to_change(account_id)
        if not _in(asset_id, 1, self._book.asset_count):
            raise ValueError(f"asset {asset_id} is not known")
        if not _in(amount, -_FIGURE_MAX, _FIGURE_MAX):
            raise ValueError(f"amount {amount} is not within -2^62 to 2^62")
        if asset_id == account.asset_id:
            account.cash = amount
        else:
            balance_set(&self._book, account, asset_id, amount)

    def put_position(self, account_id, position):
        cdef Account *account = self._account_to_change(account_id)
        cdef PositionChange change
        for name, value, low, high in (
            ("instrument_id", position.instrument_id, 1, self._book.instrument_count),
            ("position_side", position.position_side, POSITION_SIDE_NET, POSITION_SIDE_SHORT),
            ("lots", position.lots, -NUMBER_MAX, NUMBER_MAX),
            ("entry_value", position.entry_value, 0, _FIGURE_MAX),
            ("wallet", position.wallet, -_FIGURE_MAX, _FIGURE_MAX),
            ("margin_mode", position.margin_mode, 0, MARGIN_MODE_ISOLATED),
            ("leverage", position.leverage, 0, 100_000),
        ):
            if not _in(value, low, high):
                raise ValueError(f"{name} {value} is not within {low} to {high}")
        change.instrument_id = position.instrument_id
        change.position_side = position.position_side
        change.lots = position.lots
        change.entry_value = position.entry_value
        change.wallet = position.wallet
        change.margin_mode = position.margin_mode
        change.leverage = position.leverage
        if not what_if_put(&self._book, account, &change):
            raise MemoryError("the copy was made without room for this position")

    # Canonical state

    def state_lines(self):
        with _Locked(self):
            return state_lines_of(&self._book)

    def state_hash(self):
        return _digest(self.state_lines())

    def answers_hash(self):
        with _Locked(self):
            lines = answer_lines_of(&self._book)
        return _digest(lines)


# --- changes from outside the hot door -------------------------------------------------------

# Each takes the engine, whose lock is held, the time, and by name what the record keeps: names and
# defaults are promises. A change raises the revision as its last step, or changes nothing.

def _create_asset(Engine engine, now_ns, *, symbol, scale):
    return define_asset(&engine._book, engine._asset_ids, symbol, scale)


def _upsert_schedule(
    Engine engine, now_ns, *, notional_max=0, liquidation_fee_ppb=0, **fields
):
    row = ScheduleRow(
        0,
        version=0,
        notional_max=notional_max,
        liquidation_fee_ppb=liquidation_fee_ppb,
        **fields,
    )
    return define_schedule(&engine._book, engine._schedule_ids, row)


def _upsert_option_rule(
    Engine engine, now_ns, *, name, asset_id, initial_ppb, initial_min_ppb, maintenance_ppb,
    put_maintenance=0, parameter_d=0, parameter_e=0
):
    return define_option_rule(
        &engine._book,
        engine._schedule_ids,
        name,
        asset_id,
        initial_ppb,
        initial_min_ppb,
        maintenance_ppb,
        put_maintenance,
        parameter_d,
        parameter_e,
    )


def _report_open_interest(
    Engine engine, now_ns, *, instrument_id, lots, validate_only=False
):
    cdef Book *book = &engine._book
    if not _in(instrument_id, 1, book.instrument_count):
        return REASON_INSTRUMENT_UNKNOWN
    if not _in(lots, 0, NUMBER_MAX):
        return REASON_DEFINITION_INVALID
    if not validate_only:
        book.instruments[<uint32_t>instrument_id - 1].open_interest_lots = lots
        book.revision += 1
    return REASON_NONE


def _upsert_instrument(Engine engine, now_ns, **fields):
    return define_instrument(&engine._book, engine._instrument_ids, InstrumentRow(0, **fields))


def _create_account(Engine engine, now_ns, *, account_id, asset_id, margin_mode, leverage, cash):
    return define_account(&engine._book, account_id, asset_id, margin_mode, leverage, cash)


def _adjust_collateral(Engine engine, now_ns, *, account_id, asset_id, amount, validate_only=False):
    cdef Change change
    cdef uint32_t reason
    if not _in(account_id, 0, (1 << 64) - 1):
        return REASON_ACCOUNT_UNKNOWN, 0, 0
    # An amount that does not fit is an amount of 0: A-1.
    reason = admin.adjust_collateral(
        &engine._book,
        account_id,
        asset_id if _in(asset_id, 0, ASSETS_MAX) else 0,
        _fitting(amount),
        validate_only,
        now_ns,
        &change,
    )
    return reason, change.figure, change.available


def _transfer_margin(
    Engine engine, now_ns, *, account_id, instrument_id, amount, validate_only=False,
    position_side=0
):
    cdef Change change
    cdef uint32_t reason = admin.transfer_margin(
        &engine._book,
        account_id,
        instrument_id,
        _fitting(amount),
        validate_only,
        now_ns,
        position_side,
        &change,
    )
    return reason, change.figure, change.available


def _change_margin_mode(
    Engine engine, now_ns, *, account_id, instrument_id, margin_mode, validate_only=False
):
    cdef ModeSwitch outcome
    cdef uint32_t reason = change_margin_mode(
        &engine._book, account_id, instrument_id, margin_mode, validate_only, now_ns, &outcome
    )
    return reason, outcome.wallet, outcome.available, outcome.cash_flow


def _set_leverage(
    Engine engine, now_ns, *, account_id, instrument_id, leverage, validate_only=False
):
    cdef Change change
    cdef uint32_t reason = admin.set_leverage(
        &engine._book, account_id, instrument_id, _fitting(leverage), validate_only, now_ns, &change
    )
    return reason, change.figure, change.available


def _set_position_mode(Engine engine, now_ns, *, account_id, position_mode):
    return admin.set_position_mode(&engine._book, account_id, position_mode)


def _renew_lease(Engine engine, now_ns, *, gateway_id, duration_ns, action):
    # What does not fit is no duration and no action that there is: A-9.
    if not _in(duration_ns, 0, UINT64_MAX):
        duration_ns = UINT64_MAX
    if not _in(action, 0, UINT32_MAX):
        action = UINT32_MAX
    return admin.renew_lease(&engine._book, gateway_id, duration_ns, action, now_ns)


def _cancel_orders(
    Engine engine, now_ns, *, gateway_id=0, account_id=0, instrument_id=0, side=0,
    accepted_before_ns=0, keep=(), validate_only=False
):
    cdef Book *book = &engine._book
    cdef OrderFilter wanted
    cdef const Order *order
    cdef uint32_t place, reason
    if len(keep) > CANCEL_IDS_MAX or not _in(side, 0, SIDE_SELL):
        return REASON_DEFINITION_INVALID, 0, []
    wanted.gateway_id = gateway_id
    wanted.account_id = account_id
    wanted.instrument_id = instrument_id
    wanted.side = side
    wanted.accepted_before_ns = accepted_before_ns
    reason = admin.check_filter(book, &wanted)
    if reason != REASON_NONE:
        return reason, 0, []
    kept = set(keep)
    found = []
    for place in range(book.order_top):
        order = &book.orders[place]
        if order.in_use and admin.filter_takes(book, &wanted, order):
            if order.reservation_id not in kept:
                found.append(order.reservation_id)
    found.sort()
    if found and not validate_only:
        for reservation_id in found:
            release_order(book, order_find(book, reservation_id))
        book.revision += 1
    return reason, len(found), found[:CANCEL_IDS_MAX]


def _set_trading_state(Engine engine, now_ns, *, scope, scope_id, trading_state):
    return admin.set_trading_state(&engine._book, scope, scope_id, trading_state)


def _create_book(Engine engine, now_ns, **capacities):
    """Of an empty book, so that it is not the first change but what the first change finds."""
    _resize(engine, capacities)


def _set_capacities(Engine engine, now_ns, **capacities):
    """Return whether anything changed."""
    if not _resize(engine, capacities):
        return False
    engine._book.revision += 1
    return True


cdef bint _resize(Engine engine, dict wanted) except -1:
    """Return whether any capacity is another now."""
    cdef Capacities capacities, current
    cdef uint32_t table
    cdef uint32_t done
    book_capacities(&engine._book, &current)
    capacities = current
    _take_capacities(wanted, &capacities)
    if memcmp(&capacities, &current, sizeof(Capacities)) == 0:
        return False
    done = book_resize(&engine._book, &capacities, &table)
    if done == RESIZE_IN_USE:
        raise ValueError(_in_use(&engine._book, table, capacities.entries[table]))
    if done == RESIZE_NO_MEMORY:
        raise MemoryError("the tables do not fit in memory beside those they replace")
    return True


def _create_firm(Engine engine, now_ns, *, firm_id, asset_id):
    if not _in(firm_id, 1, UINT32_MAX):
        return REASON_DEFINITION_INVALID
    if not _in(asset_id, 1, ASSETS_MAX):
        return REASON_ASSET_UNKNOWN
    return limit_changes.create_firm(&engine._book, firm_id, asset_id)


def _set_account_owner(Engine engine, now_ns, *, account_id, firm_id, parent_account_id):
    if not _in(account_id, 1, UINT64_MAX):
        return REASON_ACCOUNT_UNKNOWN
    # One that cannot be is like one that is not there: a firm has no id 2^32, and an account is not
    # its own parent.
    return limit_changes.set_account_owner(
        &engine._book,
        account_id,
        firm_id if _in(firm_id, 0, UINT32_MAX) else <uint64_t>UINT32_MAX + 1,
        parent_account_id if _in(parent_account_id, 0, UINT64_MAX) else account_id,
        now_ns,
    )


def _set_limit(
    Engine engine, now_ns, *, scope, scope_id, instrument_id, kind, value, burst, action
):
    if not (
        _in(scope, 0, UINT32_MAX)
        and _in(kind, 0, UINT32_MAX)
        and _in(value, 0, INT64_MAX)
        and _in(burst, 0, INT64_MAX)
        and _in(action, 0, UINT32_MAX)
    ):
        return REASON_DEFINITION_INVALID
    # Nobody has the id 0, and no instrument the largest.
    return limit_changes.set_limit(
        &engine._book,
        scope,
        scope_id if _in(scope_id, 0, UINT64_MAX) else 0,
        instrument_id if _in(instrument_id, 0, UINT32_MAX) else UINT32_MAX,
        kind,
        value,
        burst,
        action,
    )


def _raise_limit(
    Engine engine, now_ns, *, scope, scope_id, instrument_id, kind, value, until_ns
):
    if not _names_limit(scope, scope_id, instrument_id, kind):
        return REASON_LIMIT_UNKNOWN
    # What cannot be is refused like what is not looser, or is over.
    return limit_changes.raise_limit(
        &engine._book,
        scope,
        scope_id,
        instrument_id,
        kind,
        value if _in(value, 0, INT64_MAX) else -1,
        until_ns if _in(until_ns, 0, UINT64_MAX) else 0,
        now_ns,
    )


def _remove_limit(Engine engine, now_ns, *, scope, scope_id, instrument_id, kind):
    if not _names_limit(scope, scope_id, instrument_id, kind):
        return REASON_LIMIT_UNKNOWN
    return limit_changes.remove_limit(&engine._book, scope, scope_id, instrument_id, kind)


def _reset_usage(Engine engine, now_ns, *, scope, scope_id, instrument_id, kind):
    if not _names_limit(scope, scope_id, instrument_id, kind):
        return REASON_LIMIT_UNKNOWN
    return limit_changes.reset_usage(&engine._book, scope, scope_id, instrument_id, kind)


def _load_position(
    Engine engine, now_ns, *, account_id, instrument_id, position_side, lots, entry_value, wallet,
    validate_only=False
):
    cdef Change change
    cdef uint32_t reason
    if not _in(account_id, 0, UINT64_MAX):
        return REASON_ACCOUNT_UNKNOWN, 0, 0
    # What does not fit is refused like what is not within its bounds: A-9, F-9, F-4.
    reason = settlement.load_position(
        &engine._book,
        account_id,
        instrument_id if _in(instrument_id, 0, UINT32_MAX) else 0,
        position_side if _in(position_side, 0, UINT32_MAX) else UINT32_MAX,
        _fitting(lots),
        _fitting(entry_value),
        wallet if _in(wallet, 0, INT64_MAX) else -1,
        validate_only,
        now_ns,
        &change,
    )
    return reason, change.figure, change.available


def _apply_funding(
    Engine engine, now_ns, *, instrument_id, rate_ppb, price, time_ns, validate_only=False
):
    cdef Funding funding
    cdef uint32_t reason = settlement.apply_funding(
        &engine._book,
        instrument_id if _in(instrument_id, 0, UINT32_MAX) else 0,
        rate_ppb if _in(rate_ppb, -INT64_MAX, INT64_MAX) else INT64_MAX,
        price if _in(price, 0, INT64_MAX) else -1,
        time_ns if _in(time_ns, 0, UINT64_MAX) else 0,
        validate_only,
        now_ns,
        &funding,
    )
    return FundingRow(
        reason, funding.positions, <int64_t>funding.paid, <int64_t>funding.received
    )


def _settle_instrument(Engine engine, now_ns, *, instrument_id, price, validate_only=False):
    cdef Book *book = &engine._book
    cdef Settlement outcome
    cdef uint32_t reason
    if not _in(instrument_id, 0, UINT32_MAX):
        instrument_id = 0
    if not _in(price, 0, INT64_MAX):
        price = 0
    reason = settlement.check_settlement(book, instrument_id, price, now_ns, &outcome)
    if reason != REASON_NONE:
        return SettlementRow(reason, 0, 0, 0, 0, 0)
    orders = working_reservation_ids(
        book, admin.SCOPE_INSTRUMENT, instrument_id, book.order_count
    )
    if not validate_only:
        for reservation_id in orders:
            release_order(book, order_find(book, reservation_id))
        settlement.settle_positions(book, instrument_id, price, now_ns)
    return SettlementRow(
        reason,
        outcome.positions,
        len(orders),
        <int64_t>outcome.profit,
        <int64_t>outcome.loss,
        <int64_t>outcome.deficit,
    )


def _set_margin_levels(Engine engine, now_ns, *, search_ppm, release_ppm, validate_only=False):
    return set_margin_levels(
        &engine._book,
        search_ppm if _in(search_ppm, 0, INT64_MAX) else -1,
        release_ppm if _in(release_ppm, 0, INT64_MAX) else -1,
        validate_only,
    )


def _evaluate_levels(Engine engine, now_ns, *, first, count):
    cdef uint32_t next_place
    cdef uint32_t events = evaluate_levels(&engine._book, first, count, now_ns, &next_place)
    return next_place, events


def _define_collateral(
    Engine engine, now_ns, *, asset_id, settlement_asset_id, index_instrument_id, tiers, cap=0,
    liability_ppb=PPB, interest_free=0, forced_conversion=0, wrong_way_ppb=0, validate_only=False
):
    row = CollateralRow(
        asset_id,
        settlement_asset_id,
        index_instrument_id,
        cap,
        liability_ppb,
        interest_free,
        forced_conversion,
        tiers,
        wrong_way_ppb,
    )
    return define_collateral(&engine._book, row, validate_only)


def _set_credit_line(Engine engine, now_ns, *, scope, scope_id, amount, validate_only=False):
    # Nobody has the id 0.
    return set_credit_line(
        &engine._book,
        scope if _in(scope, 0, UINT32_MAX) else 0,
        scope_id if _in(scope_id, 0, UINT64_MAX) else 0,
        amount if _in(amount, 0, INT64_MAX) else -1,
        validate_only,
    )


cdef bint _names_limit(scope, scope_id, instrument_id, kind):
    """Whether these can be the names of a limit at all."""
    return (
        _in(scope, 0, UINT32_MAX)
        and _in(scope_id, 0, UINT64_MAX)
        and _in(instrument_id, 0, UINT32_MAX)
        and _in(kind, 0, UINT32_MAX)
    )


# By name: the table, or TABLES for the rings of answers; the least and the largest.
_CAPACITIES = {
    "accounts_max": (TABLE_ACCOUNTS, 1, 1 << 30),
    "positions_max": (TABLE_POSITIONS, 1, 1 << 30),
    "orders_max": (TABLE_ORDERS, 1, 1 << 30),
    "instruments_max": (TABLE_INSTRUMENTS, 1, 1 << 20),
    "schedules_max": (TABLE_SCHEDULES, 1, 1 << 20),
    "gateways_max": (TABLE_GATEWAYS, 1, 1 << 16),
    "firms_max": (TABLE_FIRMS, 1, 1 << 20),
    "limits_max": (TABLE_LIMITS, 1, 1 << 24),
    "holdings_max": (TABLE_HOLDINGS, 1, 1 << 24),
    "balances_max": (TABLE_BALANCES, 1, 1 << 30),
    "answer_bytes": (TABLES, 4096, 1 << 32),
}


# Entry values, wallets and balances of a what-if: sums of a few of them fit.
_FIGURE_MAX = 1 << 62


cdef Engine _engine_with_room(
    const Capacities *room, uint32_t positions, uint32_t schedules, uint32_t orders
):
    """Return an empty engine of this size, and so much more of what is in these tables."""
    more = {"positions_max": positions, "schedules_max": schedules, "orders_max": orders}
    return Engine(
        **{
            name: max(low, more.get(name, 0) + (
                room.entries[<uint32_t>table] if table < TABLES else 0
            ))
            for name, (table, low, _) in _CAPACITIES.items()
        }
    )


cdef int _take_capacities(dict wanted, Capacities *capacities) except -1:
    """Write those that are given; raise ValueError for a name or a number that is not possible."""
    for name, value in wanted.items():
        if name not in _CAPACITIES:
            raise ValueError(f"{name} is not a capacity: {', '.join(_CAPACITIES)}")
        table, low, high = _CAPACITIES[name]
        if not _in(value, low, high):
            raise ValueError(f"{name} {value} is not within {low} to {high}")
        if table < TABLES:
            capacities.entries[<uint32_t>table] = value
        elif value % 16:
            raise ValueError(f"{name} {value} is not a multiple of 16")
        else:
            capacities.answer_bytes = value
    capacities.entries[TABLE_CLOSED] = capacities.entries[TABLE_ORDERS]
    return 0


cdef _in_use(Book *book, uint32_t id, uint32_t capacity):
    cdef Table tables[TABLES]
    book_tables(book, tables)
    name = tables[id].name.decode()
    return f"{name}_max {capacity} is below the {tables[id].count[0]} {name} in use"


_CHANGES = {
    "create_asset": _create_asset,
    "upsert_schedule": _upsert_schedule,
    "upsert_instrument": _upsert_instrument,
    "upsert_option_rule": _upsert_option_rule,
    "report_open_interest": _report_open_interest,
    "create_account": _create_account,
    "adjust_collateral": _adjust_collateral,
    "transfer_margin": _transfer_margin,
    "change_margin_mode": _change_margin_mode,
    "set_leverage": _set_leverage,
    "set_position_mode": _set_position_mode,
    "renew_lease": _renew_lease,
    "cancel_orders": _cancel_orders,
    "set_trading_state": _set_trading_state,
    "create_firm": _create_firm,
    "set_account_owner": _set_account_owner,
    "set_limit": _set_limit,
    "raise_limit": _raise_limit,
    "remove_limit": _remove_limit,
    "reset_usage": _reset_usage,
    "load_position": _load_position,
    "apply_funding": _apply_funding,
    "settle_instrument": _settle_instrument,
    "set_margin_levels": _set_margin_levels,
    "evaluate_levels": _evaluate_levels,
    "define_collateral": _define_collateral,
    "set_credit_line": _set_credit_line,
    "set_capacities": _set_capacities,
    "create_book": _create_book,
}

CHANGE_NAMES = tuple(_CHANGES)


cdef inline bint _is_hot(uint32_t method) noexcept nogil:
    return HOT_CHECK_ORDER <= method <= HOT_ADVANCE_TIME


cdef _close(Journal journal):
    """Close a journal when why it is closed is about to be said."""
    with contextlib.suppress(JournalFailedError):
        journal.close()


cdef bytes _change_payload(name, actor, dict arguments):
    entry = {"change": name, "actor": actor, "arguments": arguments}
    return json.dumps(entry, separators=(",", ":"), sort_keys=True).encode()


cdef object _change_fault(Engine engine, now_ns, bytes payload):
    """Apply a recorded change, or return why it cannot be."""
    try:
        entry = json.loads(payload)
        arguments = entry["arguments"]
        apply = functools.partial(_CHANGES[entry["change"]], engine, now_ns, **arguments)
        if engine._watcher is None:
            apply()
        else:
            engine._watcher(entry["change"], arguments, entry["actor"], now_ns, apply)
    except (KeyError, TypeError, ValueError):
        return repr(sys.exception())
    return None


def _usable_snapshots(directory, until_sequence, list refused, from_oldest=False):
    """Give (path, scan) for the snapshots of this journal, newest first; the scan goes on after it.

    Only heads are read. Why others cannot be used is added to `refused`. Raises JournalDamagedError
    if the journal does not have the record that a snapshot stands for.
    """
    paths = snapshot_paths(directory) if os.path.isdir(directory) else []
    for sequence, path in reversed(paths) if from_oldest else paths:
        if until_sequence is None or sequence <= until_sequence:
            scan = _scan_after(directory, sequence, path, refused)
            if scan is not None:
                yield path, scan


cdef Scan _scan_after(directory, sequence, path, list refused):
    try:
        return _checked_scan(directory, sequence, path)
    except SnapshotInvalidError:
        refused.append(str(sys.exception()))
    return None


cdef Scan _checked_scan(directory, sequence, path):
    head = snapshot_head(path)
    if head.sequence != sequence:
        raise SnapshotInvalidError(path, f"it is of record {head.sequence}")
    scan = Scan(directory, sequence)
    if not scan.advance():
        raise JournalDamagedError(
            scan.file or os.fspath(directory),
            scan.offset,
            f"the journal ends before record {sequence}, which {path} has",
        )
    if (scan._chain, scan.record.revision) != (head.checksum, head.revision):
        raise SnapshotInvalidError(path, "it is of another journal")
    return scan


cdef object _replay_error(Scan scan, reason):
    return ReplayError(scan.file, scan.offset, scan.record.sequence, reason)


cdef _digest(lines):
    digest = hashlib.blake2b(digest_size=32)
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


cdef bint _in(value, low, high):
    """Whether a value from Python is a whole number within bounds."""
    return isinstance(value, int) and low <= value <= high


cdef int64_t _fitting(amount):
    """Return the amount, or 0 (which every change refuses) if it does not fit."""
    return amount if _in(amount, -INT64_MAX, INT64_MAX) else 0
