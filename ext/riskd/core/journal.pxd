"""The journal: append and wait from any thread without the GIL, records read back one by one."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef unsigned long pthread_t

cdef extern from *:
    uint64_t _load "__atomic_load_n"(const uint64_t *place, int order) noexcept nogil
    enum:
        _ACQUIRE "__ATOMIC_ACQUIRE"

cdef enum:
    # Zero is never a verdict.
    JOURNAL_OK = 1
    # For ever: a system call failed. Which one and why is in the state.
    JOURNAL_FAILED = 2
    JOURNAL_CLOSED = 3
    JOURNAL_PAYLOAD_TOO_LARGE = 4
    # The disk did not make room in time; nothing was appended.
    JOURNAL_FULL = 5
    JOURNAL_SEQUENCE_UNKNOWN = 6

cdef enum:
    DURABILITY_PROCESS = 1
    DURABILITY_MACHINE = 2

cdef enum:
    CALL_WRITE = 0
    CALL_FDATASYNC = 1
    CALL_OPENAT = 2
    CALL_FSYNC = 3
    CALLS = 4

cdef struct JournalCalls:
    # The system calls of the writer, so that a test can put itself in between. Each returns as the
    # real one does, with errno set.
    void *context
    Py_ssize_t (*write)(void *context, int file, const void *start, size_t size) noexcept nogil
    int (*fdatasync)(void *context, int file) noexcept nogil
    int (*openat)(void *context, int directory, const char *name) noexcept nogil
    int (*fsync)(void *context, int file) noexcept nogil

cdef struct JournalBuffer:
    uint8_t *start
    uint64_t size

cdef struct JournalState:
    # All but what says otherwise is read and written under the mutex.
    pthread_mutex_t mutex
    # Something to write; room to append.
    pthread_cond_t filled
    pthread_cond_t emptied
    # The batch of an even number is durable, of an odd one: it wakes only those whose record is in
    # it, and no third batch can have waiters.
    pthread_cond_t reached[2]
    # The number of the batch that fills, and the last sequence of the one before it.
    uint64_t batch
    uint64_t taken_sequence
    JournalBuffer filling
    uint64_t next_sequence
    # Written under the mutex, read anywhere.
    uint64_t durable_sequence
    uint32_t chain
    uint32_t status
    # The writer sleeps and wants to be woken; no record may follow; the writer has ended.
    bint idle
    bint closing
    bint ended
    # A batch is on its way to disk, from the writer or from `journal_release`.
    bint busy
    # Who reads the commit file waits for no record after this one.
    uint64_t awaited_sequence
    int failed_errno
    uint32_t failed_call
    uint64_t failed_segment
    # Of whoever made it busy.
    JournalBuffer writing
    uint64_t segment_sequence
    uint64_t segment_size
    int segment_file
    # Constant while it is open.
    int directory_file
    # An eventfd that becomes readable with each batch that is durable, and at the end; once
    # `journal_attach` was called, only with those that `journal_call` asked for.
    int commit_file
    # Of the native door, readable with each batch that it did not write itself, and at the end; -1.
    int native_file
    uint32_t durability
    uint64_t buffer_size_max
    uint64_t segment_size_max
    uint64_t payload_size_max
    uint64_t append_wait_ms_max
    JournalCalls calls
    pthread_t thread

cdef struct JournalRecord:
    # Where it begins in its file.
    uint64_t offset
    uint64_t sequence
    uint64_t time_ns
    uint64_t revision
    uint32_t kind
    uint32_t size
    # Valid until the next record is read.
    const uint8_t *payload

cdef struct JournalWindow:
    # The bytes of one file that are in memory.
    uint8_t *start
    uint64_t offset
    uint64_t size
    uint64_t file_size
    int file

# Copy a record into the buffer, or wait for room and then copy it; its sequence goes to *sequence.
# The payload is the prefix and the rest.
cdef uint32_t journal_append(
    JournalState *state,
    uint32_t kind,
    uint64_t time_ns,
    uint64_t revision,
    const uint8_t *prefix,
    size_t prefix_size,
    const uint8_t *rest,
    size_t rest_size,
    uint64_t *sequence,
) noexcept nogil

# OK if a payload of the size has room now; with `waits`, it is waited for as append does. Who alone
# appends can rely on it until the next append.
cdef uint32_t journal_make_room(JournalState *state, uint64_t size, bint waits) noexcept nogil

# Many records under one lock, which is held from `hold` to `release`: `put` is `append` that does
# not wait, and `release` has the batch written, by the caller's own thread if it only has to be
# handed to the kernel.
cdef uint32_t journal_hold(JournalState *state) noexcept nogil
cdef uint32_t journal_room(const JournalState *state, uint64_t size) noexcept nogil
cdef uint64_t journal_put(
    JournalState *state,
    uint32_t kind,
    uint64_t time_ns,
    uint64_t revision,
    const uint8_t *prefix,
    size_t prefix_size,
    const uint8_t *rest,
    size_t rest_size,
) noexcept nogil
cdef void journal_release(JournalState *state) noexcept nogil

# From now on the commit file wakes only who called; file becomes readable instead. -1 ends it.
cdef void journal_attach(JournalState *state, int file) noexcept nogil

# Make the commit file readable when the record is durable, or with the next batch if it is 0.
cdef void journal_call(JournalState *state, uint64_t sequence) noexcept nogil

# OK, FAILED or CLOSED.
cdef uint32_t journal_status(JournalState *state) noexcept nogil

# What is not yet as durable as was promised.
cdef struct JournalLag:
    uint64_t records
    uint64_t size
    # Of the oldest record of it; 0: there is none.
    uint64_t time_ns
    # Batches begun since it was opened.
    uint64_t batches
    # OK, FAILED or CLOSED.
    uint32_t status

cdef void journal_lag(JournalState *state, JournalLag *lag) noexcept nogil

# Block until the record is as durable as was promised, or never will be.
cdef uint32_t journal_wait(JournalState *state, uint64_t sequence) noexcept nogil

cdef inline uint64_t journal_durable(const JournalState *state) noexcept nogil:
    """Return the last sequence that is as durable as was promised, without the mutex."""
    return _load(&state.durable_sequence, _ACQUIRE)

cdef uint32_t journal_crc32c(const uint8_t *start, size_t size) noexcept nogil

cdef struct FaultRule:
    uint32_t call
    uint32_t fault
    # Which call, from 1; 0 is each.
    uint64_t nth
    # errno, bytes or ns.
    uint64_t value

cdef enum:
    RULES_MAX = 16

cdef struct FaultPlan:
    pthread_mutex_t mutex
    pthread_cond_t released
    uint64_t counts[CALLS]
    # The first call that waits; 0 if none does.
    uint64_t held_from[CALLS]
    uint32_t rules_count
    FaultRule rules[RULES_MAX]

cdef class Faults:
    cdef FaultPlan _plan
    cdef int _add(self, call, uint32_t fault, uint64_t nth, uint64_t value) except -1

cdef class Journal:
    # For callers without the GIL; valid as long as this object.
    cdef JournalState state
    cdef readonly object directory
    cdef readonly object torn
    cdef object _faults
    cdef int _lock_file
    cdef int _process
    cdef bint _running
    cdef int _open(
        self,
        directory,
        durability,
        segment_bytes,
        buffer_bytes,
        append_wait_ms_max,
        from_sequence,
        Faults faults,
    ) except -1
    cdef int _start(self) except -1
    cdef object refusal(self, uint32_t status, uint64_t size)
    cdef object _failure(self)
    cdef void _stop(self) noexcept
    cdef void _release(self) noexcept

cdef class Scan:
    # The record that `advance` read.
    cdef JournalRecord record
    cdef readonly object torn
    cdef readonly uint64_t next_sequence
    cdef object _directory
    cdef list _segments
    # The last good segment, as far as it was read.
    cdef object _name
    cdef uint64_t _offset
    cdef uint32_t _chain
    cdef uint64_t _from_sequence
    cdef JournalWindow _window
    # Read the next record of any segment, torn or not; 0 at the end. Raises JournalDamagedError.
    cdef int advance(self) except -1
    cdef int _open_next(self) except -1
    cdef int _judge(self, uint32_t flaw) except -1
    cdef uint64_t _find_later(self, uint64_t offset, uint64_t *sequence) except? 0
    cdef object _damaged(self, name, uint64_t offset, reason)
