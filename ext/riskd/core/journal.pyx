"""The journal: records appended in memory, written in batches by a thread of its own, read back
with everything checked. A record's payload is the caller's.

The directory
    A file `lock`, which the one writer holds locked (flock), and segments named by the first
    sequence in them: `%020d.journal`. Other names are not looked at. Each segment begins with the
    sequence after the last of the one before. Sequences begin with 1; oldest segments may be gone.

A segment
    All numbers are little endian and unsigned. A header of 40 bytes, then records back to back.

         0  8  magic, "RISKDJNL"
         8  4  format version, 1
        12  4  checksum of the record before the first one, 0 if there never was one
        16  8  first sequence, as in the name
        24  8  creation time in ns: that of the first record written to it
        32  4  zero
        36  4  CRC-32C of bytes 0 to 35

A record
    A head of 40 bytes, the payload, and zeros up to a multiple of 8 bytes.

         0  4  checksum: CRC-32C of bytes 4 to the end, the zeros too
         4  4  size of the payload in bytes, at most 1 MiB
         8  4  checksum of the record before this one
        12  4  kind
        16  8  sequence, that of the record before and 1
        24  8  time in ns
        32  8  revision

    A checksum covers the one before, so a record that is missing, doubled or from elsewhere is
    found. It is stored twice, so a record can be checked without those before it.

How it is written
    `append` copies into one of two buffers; the writer thread takes a whole buffer, writes it with
    write(), with durability "machine" syncs it with fdatasync(), and only then tells those who wait
    for its records. Meanwhile the other buffer fills. A batch lies in one segment: if it does not
    fit, the segment is synced and closed, and the next one's header is written and synced and its
    directory entry synced before any record goes there. So only the last segment can be torn.
    Nothing is allocated ahead: a file system that orders data before size (ext4, xfs) then leaves
    no hole before bytes that arrived.

    Any error of a system call is for ever: what a failed sync left behind is not known, and the
    next sync would say that all is well (the kernel marks the pages clean). So it is never retried.

    The native door appends a round of records under one lock, and where a write() is all that they
    need its own thread does it (`journal_release`). Only one thread at a time has a batch.

What is torn, what is damaged
    A record is bad if its end is beyond the file's, its size is beyond the bound, or its checksum
    is wrong. It is TORN, the trace of a write that did not finish, if it is in the last segment and
    no later record follows: at no multiple of 8 bytes after it stands a record with a right
    checksum (given the one before that it stores) and a sequence from that of the bad record on
    which the rest of the file has room for. Then it and all behind it can be cut. So a flipped bit
    in a size does not make the rest look torn, nor do zeros or garbage keep a tail from being cut.
    A header that is too short or bad is torn if its segment is the last, not the only one unless it
    begins with 1, and no later record follows. All else is DAMAGE, which nobody but an operator may
    repair: the same in an earlier segment, records that are missing between segments, and a record
    with a right checksum that does not continue the one before, or whose zeros are not.

    What cannot be told apart: the last record flipped, and the last record torn; whole records cut
    off the very end, and records that never were. Whoever knows a sequence that must be there (from
    a snapshot) passes it as `from_sequence`: a journal that ends before it is damaged.
"""

import contextlib
import fcntl
import os
import re
from typing import NamedTuple

cimport cython
from libc cimport errno
from libc.errno cimport EAGAIN, EINTR, EIO
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from riskd.core.money cimport debug_assert

cdef extern from *:
    """
    /* What Cython cannot say: an instruction that only some machines have, in one function. */
    #include <fcntl.h>
    #include <pthread.h>
    #include <signal.h>
    #include <time.h>
    #include <unistd.h>

    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the journal is little endian");

    #if defined(__x86_64__)
    __attribute__((target("sse4.2")))
    static uint32_t riskd_crc32c_sse42(uint32_t crc, const uint8_t *start, size_t size) {
        uint64_t state = ~crc;
        for (; size >= 8; start += 8, size -= 8) {
            uint64_t word;
            memcpy(&word, start, 8);
            state = __builtin_ia32_crc32di(state, word);
        }
        uint32_t rest = (uint32_t)state;
        for (; size > 0; start++, size--) {
            rest = __builtin_ia32_crc32qi(rest, *start);
        }
        return ~rest;
    }
    static int riskd_has_sse42(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("sse4.2") != 0;
    }
    #else
    static uint32_t riskd_crc32c_sse42(uint32_t crc, const uint8_t *start, size_t size) {
        (void)start; (void)size;
        return crc;
    }
    static int riskd_has_sse42(void) { return 0; }
    #endif
    """
    uint32_t _crc32c_sse42 "riskd_crc32c_sse42"(
        uint32_t crc, const uint8_t *start, size_t size
    ) noexcept nogil
    bint _has_sse42 "riskd_has_sse42"() noexcept nogil
    void _store "__atomic_store_n"(uint64_t *place, uint64_t value, int order) noexcept nogil
    enum:
        _RELEASE "__ATOMIC_RELEASE"

cdef extern from "core.h" nogil:
    void size_of_header_is "riskd_size_is"(SegmentHead object, int size) noexcept
    void size_of_head_is "riskd_size_is"(RecordHead object, int size) noexcept
    void *table_open "riskd_table_open"(size_t count, size_t size) noexcept

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)
    int nanosleep(const timespec *wanted, timespec *left)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *before)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_condattr_init(pthread_condattr_t *attributes)
    int pthread_condattr_setclock(pthread_condattr_t *attributes, int clock)
    int pthread_condattr_destroy(pthread_condattr_t *attributes)
    int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes)
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
    int pthread_cond_timedwait(
        pthread_cond_t *condition, pthread_mutex_t *mutex, const timespec *deadline
    )
    int pthread_cond_signal(pthread_cond_t *condition)
    int pthread_cond_broadcast(pthread_cond_t *condition)
    int pthread_cond_destroy(pthread_cond_t *condition)
    int pthread_create(
        pthread_t *thread,
        const void *attributes,
        void *(*run)(void *) noexcept nogil,
        void *argument,
    )
    int pthread_join(pthread_t thread, void **result)

cdef extern from "<fcntl.h>" nogil:
    int O_WRONLY, O_CREAT, O_EXCL, O_APPEND, O_CLOEXEC
    int openat(int directory, const char *name, int flags, ...)

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t write(int file, const void *start, size_t size)
    Py_ssize_t pread(int file, void *start, size_t size, long offset)
    int fdatasync(int file)
    int fsync(int file)
    int close(int file)
    int getpid()

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_CLOEXEC, EFD_NONBLOCK
    int eventfd(unsigned int count, int flags)
    int eventfd_write(int file, uint64_t count)

cdef struct SegmentHead:
    char magic[8]
    uint32_t version
    uint32_t chain
    uint64_t first_sequence
    uint64_t time_ns
    uint32_t reserved
    uint32_t checksum

cdef struct RecordHead:
    uint32_t checksum
    uint32_t size
    uint32_t previous
    uint32_t kind
    uint64_t sequence
    uint64_t time_ns
    uint64_t revision

cdef enum:
    FORMAT_VERSION = 1
    HEAD_SIZE = 40
    PAYLOAD_SIZE_MAX = 1 << 20
    RECORD_SIZE_MAX = HEAD_SIZE + PAYLOAD_SIZE_MAX
    # Twice the largest record, so that reading one does not throw away all that was read ahead.
    WINDOW_SIZE = 2 * RECORD_SIZE_MAX
    # Twenty digits, ".journal" and the end.
    NAME_SIZE = 29

cdef const char *MAGIC = "RISKDJNL"


cdef inline uint64_t _record_size(uint64_t payload_size) noexcept nogil:
    return (HEAD_SIZE + payload_size + 7) & ~<uint64_t>7


# --- CRC-32C ---------------------------------------------------------------------------------

# _tables[0] is the table of one byte; _tables[k][b] is that of b with k zero bytes behind it
# (slicing-by-8; Kounavis, Berry 2005). The polynomial is Castagnoli's, reflected (RFC 3720, 12.1).
cdef uint32_t _tables[8][256]

cdef void _fill_tables() noexcept nogil:
    cdef uint32_t byte, crc, k, _bit
    for byte in range(256):
        crc = byte
        for _bit in range(8):
            crc = (crc >> 1) ^ (<uint32_t>0x82F63B78 if crc & 1 else <uint32_t>0)
        _tables[0][byte] = crc
    for byte in range(256):
        for k in range(1, 8):
            crc = _tables[k - 1][byte]
            _tables[k][byte] = (crc >> 8) ^ _tables[0][crc & 0xFF]


cdef uint32_t _crc32c_table(uint32_t crc, const uint8_t *start, size_t size) noexcept nogil:
    cdef uint32_t low, high
    crc = ~crc
    while size >= 8:
        memcpy(&low, start, 4)
        memcpy(&high, start + 4, 4)
        low ^= crc
        crc = (
            _tables[7][low & 0xFF]
            ^ _tables[6][(low >> 8) & 0xFF]
            ^ _tables[5][(low >> 16) & 0xFF]
            ^ _tables[4][low >> 24]
            ^ _tables[3][high & 0xFF]
            ^ _tables[2][(high >> 8) & 0xFF]
            ^ _tables[1][(high >> 16) & 0xFF]
            ^ _tables[0][high >> 24]
        )
        start += 8
        size -= 8
    while size > 0:
        crc = (crc >> 8) ^ _tables[0][(crc ^ start[0]) & 0xFF]
        start += 1
        size -= 1
    return ~crc


_fill_tables()
cdef bint _hardware = _has_sse42()


cdef inline uint32_t _crc32c(const uint8_t *start, size_t size) noexcept nogil:
    if _hardware:
        return _crc32c_sse42(0, start, size)
    return _crc32c_table(0, start, size)


cdef uint32_t journal_crc32c(const uint8_t *start, size_t size) noexcept nogil:
    return _crc32c(start, size)


def has_hardware_crc32c():
    return _hardware


def crc32c(bytes content not None, *, hardware=None):
    cdef const uint8_t *start = <const uint8_t *><const char *>content
    cdef size_t size = <size_t>len(content)
    if hardware is None:
        return _crc32c(start, size)
    if not hardware:
        return _crc32c_table(0, start, size)
    if not _hardware:
        raise RuntimeError("the processor has no CRC-32C instruction")
    return _crc32c_sse42(0, start, size)


# --- append and wait -------------------------------------------------------------------------

cdef uint32_t _await_room(JournalState *state, uint64_t size) noexcept nogil:
    """Wait, at most as long as was set, until the buffer has room. Under the mutex."""
    cdef timespec deadline
    cdef bint timed = False
    cdef bint late = False
    while state.status == JOURNAL_OK:
        if state.filling.size + size <= state.buffer_size_max:
            return JOURNAL_OK
        if late:
            return JOURNAL_FULL
        if not timed:
            timed = True
            clock_gettime(CLOCK_MONOTONIC, &deadline)
            deadline.tv_sec += <time_t>(state.append_wait_ms_max / 1000)
            deadline.tv_nsec += <long>(state.append_wait_ms_max % 1000) * 1000000
            if deadline.tv_nsec >= 1000000000:
                deadline.tv_nsec -= 1000000000
                deadline.tv_sec += 1
        late = pthread_cond_timedwait(&state.emptied, &state.mutex, &deadline) != 0
    return state.status


cdef uint64_t _put(
    JournalState *state,
    uint32_t kind,
    uint64_t time_ns,
    uint64_t revision,
    const uint8_t *prefix,
    size_t prefix_size,
    const uint8_t *rest,
    size_t rest_size,
) noexcept nogil:
    """Copy a record into the buffer, which has room, and return its sequence. Under the mutex."""
    cdef uint8_t *start = state.filling.start + state.filling.size
    cdef uint64_t size = prefix_size + rest_size
    cdef uint64_t total = _record_size(size)
    cdef RecordHead head
    debug_assert(state.filling.size + total <= state.buffer_size_max)
    head.checksum = 0
    head.size = <uint32_t>size
    head.previous = state.chain
    head.kind = kind
    head.sequence = state.next_sequence
    head.time_ns = time_ns
    head.revision = revision
    memcpy(start, &head, HEAD_SIZE)
    if prefix_size > 0:
        memcpy(start + HEAD_SIZE, prefix, prefix_size)
    if rest_size > 0:
        memcpy(start + HEAD_SIZE + prefix_size, rest, rest_size)
    memset(start + HEAD_SIZE + size, 0, total - HEAD_SIZE - size)
    state.chain = _crc32c(start + 4, total - 4)
    memcpy(start, &state.chain, 4)
    state.filling.size += total
    state.next_sequence += 1
    return head.sequence


cdef uint32_t _append(
    JournalState *state,
    uint32_t kind,
    uint64_t time_ns,
    uint64_t revision,
    const uint8_t *prefix,
    size_t prefix_size,
    const uint8_t *rest,
    size_t rest_size,
    bint waits,
    uint64_t *sequence,
) noexcept nogil:
    cdef uint64_t size = prefix_size + rest_size
    cdef uint32_t status
    cdef bint wake = False
    if size > state.payload_size_max:
        return JOURNAL_PAYLOAD_TOO_LARGE
    pthread_mutex_lock(&state.mutex)
    status = state.status
    if status == JOURNAL_OK:
        if state.filling.size + _record_size(size) > state.buffer_size_max:
            status = _await_room(state, _record_size(size)) if waits else <uint32_t>JOURNAL_FULL
    if status == JOURNAL_OK:
        sequence[0] = _put(
            state, kind, time_ns, revision, prefix, prefix_size, rest, rest_size
        )
        wake = state.idle
        state.idle = False
    pthread_mutex_unlock(&state.mutex)
    # After the mutex, for which the writer would only queue.
    if wake:
        pthread_cond_signal(&state.filled)
    return status


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
) noexcept nogil:
    return _append(
        state, kind, time_ns, revision, prefix, prefix_size, rest, rest_size, True, sequence
    )


cdef uint32_t journal_make_room(JournalState *state, uint64_t size, bint waits) noexcept nogil:
    cdef uint32_t status
    if size > state.payload_size_max:
        return JOURNAL_PAYLOAD_TOO_LARGE
    pthread_mutex_lock(&state.mutex)
    status = state.status
    if status == JOURNAL_OK:
        if state.filling.size + _record_size(size) > state.buffer_size_max:
            status = _await_room(state, _record_size(size)) if waits else <uint32_t>JOURNAL_FULL
    pthread_mutex_unlock(&state.mutex)
    return status


cdef uint32_t journal_hold(JournalState *state) noexcept nogil:
    pthread_mutex_lock(&state.mutex)
    return state.status


cdef uint32_t journal_room(const JournalState *state, uint64_t size) noexcept nogil:
    if size > state.payload_size_max:
        return JOURNAL_PAYLOAD_TOO_LARGE
    if state.status != JOURNAL_OK:
        return state.status
    if state.filling.size + _record_size(size) > state.buffer_size_max:
        return JOURNAL_FULL
    return JOURNAL_OK


cdef uint64_t journal_put(
    JournalState *state,
    uint32_t kind,
    uint64_t time_ns,
    uint64_t revision,
    const uint8_t *prefix,
    size_t prefix_size,
    const uint8_t *rest,
    size_t rest_size,
) noexcept nogil:
    debug_assert(journal_room(state, prefix_size + rest_size) == JOURNAL_OK)
    return _put(state, kind, time_ns, revision, prefix, prefix_size, rest, rest_size)


cdef inline bint _can_write_now(const JournalState *state) noexcept nogil:
    """Whether a write() of the caller's is all that the batch needs: no sync, no new segment.

    A write takes a microsecond, waking the writer and being woken by it twenty.
    """
    return (
        state.durability == DURABILITY_PROCESS
        and state.status == JOURNAL_OK
        and state.idle
        and not state.busy
        and state.filling.size > 0
        and state.segment_file >= 0
        and state.segment_size + state.filling.size <= state.segment_size_max
    )


cdef void journal_release(JournalState *state) noexcept nogil:
    cdef bint wake
    if _can_write_now(state):
        _commit(state, False)
    # Others may have appended meanwhile, and a close may have begun.
    wake = state.idle and not state.busy and (
        state.filling.size > 0 or state.closing or state.status == JOURNAL_FAILED
    )
    if wake:
        state.idle = False
    pthread_mutex_unlock(&state.mutex)
    if wake:
        pthread_cond_signal(&state.filled)


cdef void journal_attach(JournalState *state, int file) noexcept nogil:
    pthread_mutex_lock(&state.mutex)
    state.native_file = file
    state.awaited_sequence = 0 if file >= 0 else UINT64_MAX
    # Who called before is woken with the next batch; one may already be done.
    eventfd_write(state.commit_file, 1)
    pthread_mutex_unlock(&state.mutex)


cdef void journal_call(JournalState *state, uint64_t sequence) noexcept nogil:
    pthread_mutex_lock(&state.mutex)
    if sequence == 0:
        sequence = state.next_sequence
    if sequence > state.awaited_sequence:
        state.awaited_sequence = sequence
    # Nothing is on its way, so nothing would wake the caller.
    if state.durable_sequence + 1 == state.next_sequence:
        eventfd_write(state.commit_file, 1)
    pthread_mutex_unlock(&state.mutex)


cdef uint32_t journal_status(JournalState *state) noexcept nogil:
    cdef uint32_t status
    pthread_mutex_lock(&state.mutex)
    status = state.status
    pthread_mutex_unlock(&state.mutex)
    return status


cdef void journal_lag(JournalState *state, JournalLag *lag) noexcept nogil:
    cdef const uint8_t *oldest = NULL
    cdef RecordHead head
    pthread_mutex_lock(&state.mutex)
    lag.records = state.next_sequence - 1 - state.durable_sequence
    lag.size = state.filling.size + (state.writing.size if state.busy else 0)
    lag.batches = state.batch
    lag.status = state.status
    lag.time_ns = 0
    if state.busy:
        oldest = state.writing.start
    elif state.filling.size > 0:
        oldest = state.filling.start
    if oldest != NULL:
        memcpy(&head, oldest, sizeof(RecordHead))
        lag.time_ns = head.time_ns
    pthread_mutex_unlock(&state.mutex)


cdef uint32_t journal_wait(JournalState *state, uint64_t sequence) noexcept nogil:
    """What was durable before a failure stays so: OK is the truth about it."""
    cdef pthread_cond_t *reached
    cdef uint32_t status
    if 1 <= sequence <= journal_durable(state):
        return JOURNAL_OK
    pthread_mutex_lock(&state.mutex)
    if sequence == 0 or sequence >= state.next_sequence:
        status = JOURNAL_SEQUENCE_UNKNOWN
        if state.status == JOURNAL_FAILED:
            status = JOURNAL_FAILED
        pthread_mutex_unlock(&state.mutex)
        return status
    # The batch being written has the number before that of the one that fills.
    reached = &state.reached[(state.batch - (sequence <= state.taken_sequence)) & 1]
    while (
        sequence > state.durable_sequence and not state.ended and state.status != JOURNAL_FAILED
    ):
        pthread_cond_wait(reached, &state.mutex)
    status = JOURNAL_OK if sequence <= state.durable_sequence else state.status
    pthread_mutex_unlock(&state.mutex)
    return status


# --- the writer thread -----------------------------------------------------------------------

cdef void _fail(JournalState *state, uint32_t call) noexcept nogil:
    """Note what failed; errno is the call's."""
    cdef int reason = errno.errno
    pthread_mutex_lock(&state.mutex)
    state.status = JOURNAL_FAILED
    state.failed_errno = reason
    state.failed_call = call
    state.failed_segment = state.segment_sequence
    pthread_mutex_unlock(&state.mutex)


cdef bint _write_all(JournalState *state, const uint8_t *start, uint64_t size) noexcept nogil:
    cdef Py_ssize_t written
    while size > 0:
        written = state.calls.write(state.calls.context, state.segment_file, start, size)
        if written < 0 and errno.errno == EINTR:
            continue
        if written == 0:
            # Not an error by the letter, but going on could be for ever.
            errno.errno = EIO
        if written <= 0:
            _fail(state, CALL_WRITE)
            return False
        debug_assert(<uint64_t>written <= size)
        start += written
        size -= <uint64_t>written
        state.segment_size += <uint64_t>written
    return True


cdef bint _sync(JournalState *state) noexcept nogil:
    if state.calls.fdatasync(state.calls.context, state.segment_file) == 0:
        return True
    _fail(state, CALL_FDATASYNC)
    return False


cdef bint _rotate(JournalState *state, const RecordHead *first) noexcept nogil:
    """Leave the segment whole on disk and begin the one of the record."""
    cdef SegmentHead head
    cdef char name[NAME_SIZE]
    if state.segment_file >= 0:
        # Else only the newer segment may survive a crash of the machine, and nobody could tell
        # whether what the older one lacks was ever promised.
        if state.durability != DURABILITY_MACHINE and not _sync(state):
            return False
        close(state.segment_file)
    state.segment_sequence = first.sequence
    state.segment_size = 0
    snprintf(name, NAME_SIZE, "%020llu.journal", <unsigned long long>first.sequence)
    state.segment_file = state.calls.openat(state.calls.context, state.directory_file, name)
    if state.segment_file < 0:
        _fail(state, CALL_OPENAT)
        return False
    memset(&head, 0, HEAD_SIZE)
    memcpy(head.magic, MAGIC, 8)
    head.version = FORMAT_VERSION
    head.chain = first.previous
    head.first_sequence = first.sequence
    head.time_ns = first.time_ns
    head.checksum = _crc32c(<const uint8_t *>&head, HEAD_SIZE - 4)
    if not _write_all(state, <const uint8_t *>&head, HEAD_SIZE) or not _sync(state):
        return False
    if state.calls.fsync(state.calls.context, state.directory_file) != 0:
        _fail(state, CALL_FSYNC)
        return False
    return True


cdef bint _write_batch(JournalState *state) noexcept nogil:
    """Make the written buffer as durable as was promised; False after a failure."""
    cdef RecordHead first
    debug_assert(state.writing.size >= HEAD_SIZE)
    if state.segment_file < 0 or (
        state.segment_size > HEAD_SIZE
        and state.segment_size + state.writing.size > state.segment_size_max
    ):
        memcpy(&first, state.writing.start, HEAD_SIZE)
        if not _rotate(state, &first):
            return False
    if not _write_all(state, state.writing.start, state.writing.size):
        return False
    return state.durability != DURABILITY_MACHINE or _sync(state)


cdef void _commit(JournalState *state, bint is_writer) noexcept nogil:
    """Take the batch that fills and make it durable. Under the mutex, which is let go meanwhile."""
    cdef JournalBuffer batch = state.filling
    cdef uint64_t number = state.batch
    cdef uint64_t before = state.durable_sequence
    cdef bint written
    debug_assert(not state.busy and batch.size > 0)
    state.busy = True
    state.filling = state.writing
    state.filling.size = 0
    state.writing = batch
    state.taken_sequence = state.next_sequence - 1
    state.batch += 1
    pthread_cond_broadcast(&state.emptied)
    pthread_mutex_unlock(&state.mutex)
    written = _write_batch(state)
    pthread_mutex_lock(&state.mutex)
    state.busy = False
    if not written:
        debug_assert(state.status == JOURNAL_FAILED)
        return
    _store(&state.durable_sequence, state.taken_sequence, _RELEASE)
    pthread_cond_broadcast(&state.reached[number & 1])
    if state.awaited_sequence > before:
        eventfd_write(state.commit_file, 1)
    if is_writer and state.native_file >= 0:
        eventfd_write(state.native_file, 1)


cdef void *_run(void *argument) noexcept nogil:
    """The writer thread: whole batches until it is closed and drained, or fails."""
    cdef JournalState *state = <JournalState *>argument
    pthread_mutex_lock(&state.mutex)
    while True:
        while state.busy or (
            state.filling.size == 0 and not state.closing and state.status != JOURNAL_FAILED
        ):
            state.idle = True
            pthread_cond_wait(&state.filled, &state.mutex)
        state.idle = False
        if state.filling.size == 0 or state.status == JOURNAL_FAILED:
            break
        _commit(state, True)
    state.ended = True
    pthread_cond_broadcast(&state.reached[0])
    pthread_cond_broadcast(&state.reached[1])
    pthread_cond_broadcast(&state.emptied)
    eventfd_write(state.commit_file, 1)
    if state.native_file >= 0:
        eventfd_write(state.native_file, 1)
    pthread_mutex_unlock(&state.mutex)
    return NULL


# --- system calls, real and with faults ------------------------------------------------------

cdef Py_ssize_t _real_write(
    void *context, int file, const void *start, size_t size
) noexcept nogil:
    return write(file, start, size)


cdef int _real_fdatasync(void *context, int file) noexcept nogil:
    return fdatasync(file)


cdef int _real_openat(void *context, int directory, const char *name) noexcept nogil:
    # It must not be there: a segment that nobody read is not written over.
    return openat(
        directory, name, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, <unsigned int>0o640
    )


cdef int _real_fsync(void *context, int file) noexcept nogil:
    return fsync(file)


cdef enum:
    FAULT_FAIL = 1
    FAULT_SHORT = 2
    FAULT_DELAY = 3


cdef bint _meets_fault(FaultPlan *plan, uint32_t call, size_t *size) noexcept nogil:
    """Count a call, hold and delay it; True if it shall fail, with errno set."""
    cdef const FaultRule *rule
    cdef timespec delay
    cdef uint64_t nth
    cdef uint64_t delay_ns = 0
    cdef int reason = 0
    cdef uint32_t index
    pthread_mutex_lock(&plan.mutex)
    plan.counts[call] += 1
    nth = plan.counts[call]
    while 0 < plan.held_from[call] <= nth:
        pthread_cond_wait(&plan.released, &plan.mutex)
    for index in range(plan.rules_count):
        rule = &plan.rules[index]
        if rule.call != call or (rule.nth != 0 and rule.nth != nth):
            continue
        if rule.fault == FAULT_FAIL:
            reason = <int>rule.value
        elif rule.fault == FAULT_DELAY:
            delay_ns = rule.value
        elif size != NULL and rule.value < size[0]:
            size[0] = rule.value
    pthread_mutex_unlock(&plan.mutex)
    if delay_ns > 0:
        delay.tv_sec = <time_t>(delay_ns / 1000000000)
        delay.tv_nsec = <long>(delay_ns % 1000000000)
        nanosleep(&delay, NULL)
    errno.errno = reason
    return reason != 0


cdef Py_ssize_t _faulty_write(
    void *context, int file, const void *start, size_t size
) noexcept nogil:
    if _meets_fault(<FaultPlan *>context, CALL_WRITE, &size):
        return -1
    return write(file, start, size)


cdef int _faulty_fdatasync(void *context, int file) noexcept nogil:
    if _meets_fault(<FaultPlan *>context, CALL_FDATASYNC, NULL):
        return -1
    return fdatasync(file)


cdef int _faulty_openat(void *context, int directory, const char *name) noexcept nogil:
    if _meets_fault(<FaultPlan *>context, CALL_OPENAT, NULL):
        return -1
    return _real_openat(NULL, directory, name)


cdef int _faulty_fsync(void *context, int file) noexcept nogil:
    if _meets_fault(<FaultPlan *>context, CALL_FSYNC, NULL):
        return -1
    return fsync(file)


_CALL_NAMES = ("write", "fdatasync", "openat", "fsync")


@cython.final
cdef class Faults:
    """For tests: a disk that fails on demand."""

    def __cinit__(self):
        pthread_mutex_init(&self._plan.mutex, NULL)
        pthread_cond_init(&self._plan.released, NULL)

    def __dealloc__(self):
        pthread_cond_destroy(&self._plan.released)
        pthread_mutex_destroy(&self._plan.mutex)

    def fail(self, call, nth, error):
        self._add(call, FAULT_FAIL, nth, error)

    def shorten(self, nth, size):
        self._add("write", FAULT_SHORT, nth, size)

    def delay(self, call, nth, wait_ns):
        self._add(call, FAULT_DELAY, nth, wait_ns)

    def hold(self, call, nth=0):
        cdef uint32_t index = _call_of(call)
        cdef uint64_t first = nth
        pthread_mutex_lock(&self._plan.mutex)
        self._plan.held_from[index] = first or self._plan.counts[index] + 1
        pthread_cond_broadcast(&self._plan.released)
        pthread_mutex_unlock(&self._plan.mutex)

    def release(self, call):
        cdef uint32_t index = _call_of(call)
        pthread_mutex_lock(&self._plan.mutex)
        self._plan.held_from[index] = 0
        pthread_cond_broadcast(&self._plan.released)
        pthread_mutex_unlock(&self._plan.mutex)

    def count(self, call):
        cdef uint32_t index = _call_of(call)
        cdef uint64_t count
        pthread_mutex_lock(&self._plan.mutex)
        count = self._plan.counts[index]
        pthread_mutex_unlock(&self._plan.mutex)
        return count

    cdef int _add(self, call, uint32_t fault, uint64_t nth, uint64_t value) except -1:
        cdef FaultRule rule
        rule.call = _call_of(call)
        rule.fault = fault
        rule.nth = nth
        rule.value = value
        pthread_mutex_lock(&self._plan.mutex)
        if self._plan.rules_count == RULES_MAX:
            pthread_mutex_unlock(&self._plan.mutex)
            raise ValueError(f"more than {RULES_MAX} faults")
        self._plan.rules[self._plan.rules_count] = rule
        self._plan.rules_count += 1
        pthread_mutex_unlock(&self._plan.mutex)
        return 0


cdef uint32_t _call_of(name) except? 0xFFFFFFFF:
    if name not in _CALL_NAMES:
        raise ValueError(f"call {name!r} is not one of {', '.join(_CALL_NAMES)}")
    return _CALL_NAMES.index(name)


# --- reading ---------------------------------------------------------------------------------

class Torn(NamedTuple):
    """The trace of a write that did not finish."""

    file: str
    offset: int
    reason: str


class JournalDamagedError(Exception):
    """The journal is not what was written."""

    def __init__(self, file, offset, reason):
        super().__init__(file, offset, reason)
        self.file = file
        self.offset = offset
        self.reason = reason

    def __str__(self):
        return f"{self.file} at byte {self.offset}: {self.reason}"


cdef enum:
    FLAW_NONE = 0
    FLAW_READ = 1
    FLAW_HEAD_CUT = 2
    FLAW_SIZE = 3
    FLAW_CUT = 4
    FLAW_CHECKSUM = 5

_FLAWS = {
    FLAW_HEAD_CUT: "the file ends inside a record's head",
    FLAW_SIZE: f"a record's size exceeds {PAYLOAD_SIZE_MAX} bytes",
    FLAW_CUT: "the file ends inside a record",
    FLAW_CHECKSUM: "a record's checksum is wrong",
}


cdef const uint8_t *_view(JournalWindow *window, uint64_t offset, uint64_t size) noexcept nogil:
    """Return bytes of the file, which it has, reading on if need be; NULL after an error."""
    cdef Py_ssize_t got
    cdef uint64_t wanted
    debug_assert(size <= WINDOW_SIZE and offset + size <= window.file_size)
    if offset >= window.offset and offset + size <= window.offset + window.size:
        return window.start + (offset - window.offset)
    window.offset = offset
    window.size = 0
    wanted = window.file_size - offset
    if wanted > WINDOW_SIZE:
        wanted = WINDOW_SIZE
    while window.size < wanted:
        got = pread(
            window.file,
            window.start + window.size,
            wanted - window.size,
            <long>(offset + window.size),
        )
        if got < 0 and errno.errno == EINTR:
            continue
        if got == 0:
            # It was as long when it was opened.
            errno.errno = EIO
        if got <= 0:
            window.size = 0
            return NULL
        window.size += <uint64_t>got
    return window.start


cdef uint32_t _check_record(
    JournalWindow *window, uint64_t offset, RecordHead *head, const uint8_t **record
) noexcept nogil:
    """Read the record at the offset; FLAW_NONE if its checksum is right."""
    cdef const uint8_t *start
    cdef uint64_t left = window.file_size - offset
    cdef uint64_t total
    if left < HEAD_SIZE:
        return FLAW_HEAD_CUT
    start = _view(window, offset, HEAD_SIZE)
    if start == NULL:
        return FLAW_READ
    memcpy(head, start, HEAD_SIZE)
    if head.size > PAYLOAD_SIZE_MAX:
        return FLAW_SIZE
    total = _record_size(head.size)
    if total > left:
        return FLAW_CUT
    start = _view(window, offset, total)
    if start == NULL:
        return FLAW_READ
    if _crc32c(start + 4, total - 4) != head.checksum:
        return FLAW_CHECKSUM
    record[0] = start
    return FLAW_NONE


cdef bint _pads_with_zeros(const uint8_t *record, uint32_t payload_size) noexcept nogil:
    cdef uint64_t place
    for place in range(HEAD_SIZE + payload_size, _record_size(payload_size)):
        if record[place] != 0:
            return False
    return True


@cython.final
cdef class Scan:
    """The records of a journal, each checked."""

    def __cinit__(self, directory, from_sequence=1):
        if not 1 <= from_sequence <= UINT64_MAX:
            raise ValueError(f"from_sequence {from_sequence} is not within 1 to {UINT64_MAX}")
        self._window.file = -1
        self._window.start = <uint8_t *>malloc(WINDOW_SIZE)
        if self._window.start == NULL:
            raise MemoryError("no memory to read the journal")
        self._directory = os.fspath(directory)
        self._from_sequence = from_sequence
        self._segments = self._list_segments()
        # Whole segments before the wanted sequence are not read; but a header can be torn only
        # after a segment that was.
        while len(self._segments) > 2 and self._segments[1][0] <= from_sequence:
            self._segments.pop(0)
        if self._segments:
            sequence, name = self._segments[0]
            if sequence > from_sequence:
                raise self._damaged(
                    name,
                    0,
                    f"record {from_sequence} is missing: the journal begins with {sequence}",
                )
            self.next_sequence = sequence
        else:
            self.next_sequence = 1

    def __dealloc__(self):
        if self._window.file >= 0:
            close(self._window.file)
        free(self._window.start)

    def __iter__(self):
        return self

    def __next__(self):
        if not self.advance():
            raise StopIteration
        return (
            self.record.sequence,
            self.record.time_ns,
            self.record.revision,
            self.record.kind,
            (<const char *>self.record.payload)[:self.record.size],
        )

    @property
    def file(self):
        return os.path.join(self._directory, self._name) if self._name is not None else None

    @property
    def offset(self):
        return self.record.offset

    def _list_segments(self):
        """Return (first sequence, name) by rising sequence."""
        segments = []
        for name in sorted(os.listdir(self._directory)):
            if re.fullmatch(r"[0-9]{20}\.journal", name):
                sequence = int(name[:20])
                if not 1 <= sequence <= UINT64_MAX:
                    raise self._damaged(name, 0, "the name is not of a sequence")
                segments.append((sequence, name))
        return segments

    cdef int advance(self) except -1:
        cdef RecordHead head
        cdef const uint8_t *start
        cdef uint32_t flaw
        while True:
            if self._window.file < 0 or self._offset == self._window.file_size:
                if self.torn is not None or not self._open_next():
                    return 0
                continue
            flaw = _check_record(&self._window, self._offset, &head, &start)
            if flaw != FLAW_NONE:
                self._judge(flaw)
                return 0
            if head.sequence != self.next_sequence:
                raise self._damaged(
                    self._name,
                    self._offset,
                    f"record {head.sequence} stands where {self.next_sequence} is due",
                )
            if head.previous != self._chain:
                raise self._damaged(
                    self._name, self._offset, "the record does not continue the one before it"
                )
            if not _pads_with_zeros(start, head.size):
                raise self._damaged(self._name, self._offset, "a record is not padded with zeros")
            self._chain = head.checksum
            self._offset += _record_size(head.size)
            self.next_sequence += 1
            if head.sequence < self._from_sequence:
                continue
            self.record.offset = self._offset - _record_size(head.size)
            self.record.sequence = head.sequence
            self.record.time_ns = head.time_ns
            self.record.revision = head.revision
            self.record.kind = head.kind
            self.record.size = head.size
            self.record.payload = start + HEAD_SIZE
            return 1

    cdef int _open_next(self) except -1:
        """Open the next segment and check its header; 0 if there is none or it is torn."""
        cdef SegmentHead head
        cdef const uint8_t *start
        if not self._segments:
            if self._window.file >= 0:
                close(self._window.file)
                self._window.file = -1
            if self.next_sequence < self._from_sequence:
                raise self._damaged(
                    self._name or "",
                    self._offset,
                    f"the journal ends before record {self.next_sequence},"
                    f" but must reach {self._from_sequence}",
                )
            return 0
        first, name = self._segments.pop(0)
        if self._name is not None and first > self.next_sequence:
            raise self._damaged(
                self._name,
                self._offset,
                f"records {self.next_sequence} to {first - 1} are missing after this segment",
            )
        if self._name is not None and first < self.next_sequence:
            raise self._damaged(
                name, 0, f"the segment begins before {self.next_sequence}, which is due"
            )
        if self._window.file >= 0:
            close(self._window.file)
            self._window.file = -1
        path = os.path.join(self._directory, name)
        self._window.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._window.file_size = os.fstat(self._window.file).st_size
        self._window.offset = 0
        self._window.size = 0
        if self._window.file_size < HEAD_SIZE:
            return self._judge_header(name, "the file ends inside the segment's header")
        start = _view(&self._window, 0, HEAD_SIZE)
        if start == NULL:
            raise OSError(errno.errno, os.strerror(errno.errno), path)
        memcpy(&head, start, HEAD_SIZE)
        if memcmp(head.magic, MAGIC, 8) == 0 and head.version > FORMAT_VERSION:
            # Another version's checksum may be elsewhere, so nothing says that it is torn.
            raise self._damaged(
                name, 8, f"format version {head.version} is newer than {FORMAT_VERSION}"
            )
        if (
            memcmp(head.magic, MAGIC, 8) != 0
            or head.version != FORMAT_VERSION
            or head.reserved != 0
            or head.checksum != _crc32c(start, HEAD_SIZE - 4)
        ):
            return self._judge_header(name, "the segment's header is not right")
        if head.first_sequence != first:
            raise self._damaged(
                name, 16, f"the header begins with {head.first_sequence}, the name with {first}"
            )
        if self._name is None:
            self._chain = head.chain
        elif head.chain != self._chain:
            raise self._damaged(
                name, 12, "the segment does not continue the last record of the one before it"
            )
        self._name = name
        self._offset = HEAD_SIZE
        return 1

    def _judge_header(self, name, reason):
        """Say that the segment is torn, or raise."""
        cdef uint64_t sequence = 0
        cdef uint64_t found
        if self._segments:
            raise self._damaged(name, 0, reason)
        if self._name is None and self.next_sequence != 1:
            raise self._damaged(name, 0, f"{reason}, and no segment is before it")
        found = self._find_later(0, &sequence)
        if found:
            raise self._damaged(name, 0, f"{reason}, but record {sequence} follows at {found}")
        return self._tear(name, 0, reason)

    cdef int _judge(self, uint32_t flaw) except -1:
        """Say that the journal is torn at the bad record, or raise."""
        cdef uint64_t sequence = 0
        cdef uint64_t found
        if flaw == FLAW_READ:
            raise OSError(
                errno.errno, os.strerror(errno.errno), os.path.join(self._directory, self._name)
            )
        reason = _FLAWS[flaw]
        if self._segments:
            raise self._damaged(self._name, self._offset, f"{reason}, but a segment follows")
        found = self._find_later(self._offset, &sequence)
        if found:
            raise self._damaged(
                self._name, self._offset, f"{reason}, but record {sequence} follows at {found}"
            )
        self._tear(self._name, self._offset, reason)
        return 0

    def _tear(self, name, offset, reason):
        if self.next_sequence < self._from_sequence:
            raise self._damaged(
                name, offset, f"{reason}, but the journal must reach {self._from_sequence}"
            )
        self.torn = Torn(os.path.join(self._directory, name), offset, reason)
        close(self._window.file)
        self._window.file = -1
        return 0

    cdef uint64_t _find_later(self, uint64_t offset, uint64_t *sequence) except? 0:
        """Return where after the offset a record stands that could follow; 0 if nowhere."""
        cdef RecordHead head
        cdef const uint8_t *start
        cdef uint32_t flaw = FLAW_NONE
        cdef uint64_t found = 0
        # A record takes at least its head: no later sequence has room in the rest of the file.
        cdef uint64_t count_max = (self._window.file_size - offset) / HEAD_SIZE
        with nogil:
            offset += 8
            while offset + HEAD_SIZE <= self._window.file_size:
                start = _view(&self._window, offset, HEAD_SIZE)
                if start == NULL:
                    flaw = FLAW_READ
                    break
                memcpy(&head, start, HEAD_SIZE)
                # First what costs nothing; unsigned, so an earlier sequence is too large.
                if head.sequence - self.next_sequence <= count_max:
                    flaw = _check_record(&self._window, offset, &head, &start)
                    if flaw == FLAW_NONE:
                        found = offset
                    if flaw == FLAW_NONE or flaw == FLAW_READ:
                        break
                offset += 8
        if flaw == FLAW_READ:
            raise OSError(errno.errno, os.strerror(errno.errno), str(self._directory))
        if found:
            sequence[0] = head.sequence
        return found

    cdef object _damaged(self, name, uint64_t offset, reason):
        return JournalDamagedError(os.path.join(self._directory, name), offset, reason)


def scan(directory, from_sequence=1):
    return Scan(directory, from_sequence)


# --- repair ----------------------------------------------------------------------------------

cdef int _lock(directory) except -1:
    """Return the locked lock file of the directory. Raises BlockingIOError if another has it."""
    path = os.path.join(directory, "lock")
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    except BlockingIOError:
        os.close(file)
    raise BlockingIOError(EAGAIN, "another writer has the journal", path)


def _sync_path(path, *, forget=False):
    """Sync a file or a directory, and with `forget` have the kernel read it again from the disk.

    After a failed sync the page cache can hold what the disk does not; it must not be believed.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
        if forget:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


cdef Scan _repair(directory, from_sequence):
    """Read the whole journal, cut a torn tail, and return the scan. Under the lock."""
    cdef Scan reader = Scan(directory, from_sequence)
    if reader._segments:
        _, name = reader._segments[len(reader._segments) - 1]
        _sync_path(os.path.join(directory, name), forget=True)
    while reader.advance():
        pass
    if reader.torn is None:
        return reader
    if reader.torn.offset == 0:
        os.unlink(reader.torn.file)
    else:
        os.truncate(reader.torn.file, reader.torn.offset)
        _sync_path(reader.torn.file)
    _sync_path(directory)
    return reader


def repair(directory, from_sequence=1):
    directory = os.fspath(directory)
    file = _lock(directory)
    try:
        return _repair(directory, from_sequence).torn
    finally:
        os.close(file)


# --- for Python ------------------------------------------------------------------------------

class JournalFailedError(OSError):
    """A system call failed; nothing more becomes durable."""


class JournalClosedError(ValueError):
    """The journal is closed."""


class JournalFullError(TimeoutError):
    """The disk did not make room in time."""


_DURABILITIES = {"process": DURABILITY_PROCESS, "machine": DURABILITY_MACHINE}


# The writer thread uses what the object holds until it is joined, and nothing of it makes a cycle.
@cython.final
@cython.no_gc
cdef class Journal:

    def __cinit__(self):
        cdef pthread_condattr_t attributes
        pthread_mutex_init(&self.state.mutex, NULL)
        pthread_cond_init(&self.state.filled, NULL)
        pthread_cond_init(&self.state.reached[0], NULL)
        pthread_cond_init(&self.state.reached[1], NULL)
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(&self.state.emptied, &attributes)
        pthread_condattr_destroy(&attributes)
        self.state.directory_file = -1
        self.state.segment_file = -1
        self.state.commit_file = -1
        self.state.native_file = -1
        self.state.awaited_sequence = UINT64_MAX
        self.state.status = JOURNAL_CLOSED
        self.state.ended = True
        self._lock_file = -1

    def __init__(self, *args, **kwargs):
        raise TypeError("a Journal is made with Journal.open(directory)")

    @staticmethod
    def open(
        directory,
        *,
        durability="machine",
        segment_bytes=1 << 28,
        buffer_bytes=1 << 23,
        append_wait_ms_max=10_000,
        from_sequence=1,
        faults=None,
    ):
        cdef Journal journal = Journal.__new__(Journal)
        journal._open(
            directory,
            durability,
            segment_bytes,
            buffer_bytes,
            append_wait_ms_max,
            from_sequence,
            faults,
        )
        return journal

    cdef int _open(
        self,
        directory,
        durability,
        segment_bytes,
        buffer_bytes,
        append_wait_ms_max,
        from_sequence,
        Faults faults,
    ) except -1:
        cdef Scan reader
        cdef JournalState *state = &self.state
        if durability not in _DURABILITIES:
            raise ValueError(f"durability {durability!r} is not one of {', '.join(_DURABILITIES)}")
        for name, value, low, high in (
            ("buffer_bytes", buffer_bytes, 64, 1 << 32),
            ("segment_bytes", segment_bytes, HEAD_SIZE + buffer_bytes, 1 << 40),
            ("append_wait_ms_max", append_wait_ms_max, 0, 1 << 32),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} {value} is not within {low} to {high}")
        if buffer_bytes % 8:
            raise ValueError(f"buffer_bytes {buffer_bytes} is not a multiple of 8")
        state.durability = _DURABILITIES[durability]
        state.segment_size_max = segment_bytes
        state.buffer_size_max = buffer_bytes
        state.append_wait_ms_max = append_wait_ms_max
        state.payload_size_max = min(PAYLOAD_SIZE_MAX, buffer_bytes - HEAD_SIZE)
        state.calls = JournalCalls(NULL, _real_write, _real_fdatasync, _real_openat, _real_fsync)
        if faults is not None:
            self._faults = faults
            state.calls = JournalCalls(
                &faults._plan, _faulty_write, _faulty_fdatasync, _faulty_openat, _faulty_fsync
            )
        self.directory = os.fspath(directory)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.directory, 0o750)
            _sync_path(os.path.dirname(os.path.abspath(self.directory)))
        try:
            self._lock_file = _lock(self.directory)
            reader = _repair(self.directory, from_sequence)
            self.torn = reader.torn
            state.next_sequence = reader.next_sequence
            state.durable_sequence = reader.next_sequence - 1
            state.taken_sequence = reader.next_sequence - 1
            state.chain = reader._chain
            state.directory_file = os.open(
                self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            )
            if reader._name is not None:
                path = os.path.join(self.directory, reader._name)
                state.segment_file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                state.segment_sequence = int(reader._name[:20])
                state.segment_size = reader._offset
            # A crash may have come between a segment's making and its directory's sync.
            os.fsync(state.directory_file)
            self._start()
        except BaseException:
            self._release()
            raise
        return 0

    cdef int _start(self) except -1:
        """Allocate the buffers and start the writer thread, which no signal disturbs."""
        cdef JournalState *state = &self.state
        cdef sigset_t all_signals, before
        cdef int error
        cdef SegmentHead header
        cdef RecordHead head
        size_of_header_is(header, HEAD_SIZE)
        size_of_head_is(head, HEAD_SIZE)
        state.filling.start = <uint8_t *>table_open(state.buffer_size_max, 1)
        state.writing.start = <uint8_t *>table_open(state.buffer_size_max, 1)
        if state.filling.start == NULL or state.writing.start == NULL:
            raise MemoryError(f"two buffers of {state.buffer_size_max} bytes do not fit in memory")
        state.commit_file = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if state.commit_file < 0:
            raise OSError(errno.errno, os.strerror(errno.errno))
        self._process = getpid()
        state.status = JOURNAL_OK
        state.ended = False
        sigfillset(&all_signals)
        pthread_sigmask(SIG_SETMASK, &all_signals, &before)
        error = pthread_create(&state.thread, NULL, _run, state)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if error != 0:
            state.status = JOURNAL_CLOSED
            raise OSError(error, os.strerror(error))
        self._running = True
        return 0

    def append(self, kind, time_ns, revision, bytes payload not None):
        cdef uint32_t number = kind
        cdef uint64_t time = time_ns
        cdef uint64_t version = revision
        cdef const uint8_t *start = <const uint8_t *><const char *>payload
        cdef size_t size = <size_t>len(payload)
        cdef uint64_t sequence = 0
        cdef uint32_t status = JOURNAL_CLOSED
        # A copy takes less time than handing the GIL over and back: it is let go only to wait.
        status = _append(
            &self.state, number, time, version, NULL, 0, start, size, False, &sequence
        )
        if status == JOURNAL_FULL:
            with nogil:
                status = journal_append(
                    &self.state, number, time, version, NULL, 0, start, size, &sequence
                )
        if status != JOURNAL_OK:
            raise self.refusal(status, size)
        return sequence

    def wait(self, sequence):
        cdef uint64_t wanted = sequence
        cdef uint32_t status
        with nogil:
            status = journal_wait(&self.state, wanted)
        if status == JOURNAL_SEQUENCE_UNKNOWN:
            raise ValueError(
                f"sequence {wanted} is not within 1 to {self.next_sequence - 1}"
            )
        if status != JOURNAL_OK:
            raise self._failure()

    @property
    def next_sequence(self):
        cdef uint64_t sequence
        pthread_mutex_lock(&self.state.mutex)
        sequence = self.state.next_sequence
        pthread_mutex_unlock(&self.state.mutex)
        return sequence

    @property
    def durable_sequence(self):
        return journal_durable(&self.state)

    @property
    def durability(self):
        return "machine" if self.state.durability == DURABILITY_MACHINE else "process"

    @property
    def payload_size_max(self):
        return self.state.payload_size_max

    @property
    def status(self):
        cdef uint32_t status = journal_status(&self.state)
        if status == JOURNAL_FAILED:
            return "failed"
        return "open" if status == JOURNAL_OK else "closed"

    @property
    def error(self):
        return self._failure() if self.status == "failed" else None

    @property
    def commit_file(self):
        return self.state.commit_file

    cdef object refusal(self, uint32_t status, uint64_t size):
        """Return the exception for a payload that was not taken."""
        if status == JOURNAL_PAYLOAD_TOO_LARGE:
            return ValueError(f"payload of {size} bytes exceeds {self.state.payload_size_max}")
        if status == JOURNAL_FULL:
            return JournalFullError(
                f"the buffer of {self.state.buffer_size_max} bytes was full for"
                f" {self.state.append_wait_ms_max} ms"
            )
        return self._failure()

    cdef object _failure(self):
        """Return the exception that says why nothing more is taken."""
        cdef JournalState *state = &self.state
        if self.status != "failed":
            return JournalClosedError("the journal is closed")
        path = os.path.join(self.directory, f"{state.failed_segment:020d}.journal")
        if state.failed_call == CALL_FSYNC:
            path = self.directory
        reason = os.strerror(state.failed_errno)
        call = _CALL_NAMES[state.failed_call]
        return JournalFailedError(state.failed_errno, f"{call} failed: {reason}", str(path))

    def close(self):
        if not self._running:
            return
        self._stop()
        self._release()
        if self.state.status == JOURNAL_FAILED:
            raise self._failure()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        try:
            self.close()
        except JournalFailedError:
            # Whoever already knows why shall not be told something else.
            if error is None:
                raise

    cdef void _stop(self) noexcept:
        """Drain and end the writer thread; but in a forked child there is none."""
        cdef JournalState *state = &self.state
        if not self._running:
            return
        self._running = False
        if self._process != getpid():
            return
        with nogil:
            pthread_mutex_lock(&state.mutex)
            if state.status == JOURNAL_OK:
                state.status = JOURNAL_CLOSED
            state.closing = True
            pthread_cond_signal(&state.filled)
            pthread_cond_broadcast(&state.emptied)
            pthread_mutex_unlock(&state.mutex)
            pthread_join(state.thread, NULL)

    cdef void _release(self) noexcept:
        """Close the files, the lock's last."""
        if self.state.segment_file >= 0:
            close(self.state.segment_file)
        if self.state.directory_file >= 0:
            close(self.state.directory_file)
        if self._lock_file >= 0:
            close(self._lock_file)
        self.state.segment_file = -1
        self.state.directory_file = -1
        self._lock_file = -1

    def __dealloc__(self):
        self._stop()
        self._release()
        # Not before: an event loop may still watch it when the journal is closed.
        if self.state.commit_file >= 0:
            close(self.state.commit_file)
        free(self.state.filling.start)
        free(self.state.writing.start)
        if self._process != 0 and self._process != getpid():
            # In a forked child the writer thread, which is not there, still waits for a condition,
            # and to destroy that would wait for the thread.
            return
        pthread_cond_destroy(&self.state.emptied)
        pthread_cond_destroy(&self.state.reached[1])
        pthread_cond_destroy(&self.state.reached[0])
        pthread_cond_destroy(&self.state.filled)
        pthread_mutex_destroy(&self.state.mutex)
