"""The hot requests of native threads: an engine without its Python object."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from riskd.core.apply cimport HOT_CHECK_AMENDMENT, HOT_CHECK_ORDER, HOT_REPORT_EXECUTION
from riskd.core.book cimport Book
from riskd.core.histogram cimport STAGES, Histogram
from riskd.core.journal cimport JournalState
from riskd.core.permits cimport Caller
from riskd.core.types cimport OrderRequest
from riskd.core.wire cimport Malformed, Writer

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef enum:
    DECISIONS = 4
    # Reasons have the numbers below.
    REASONS = 256

# What was answered, by decision and reason; written under the mutex, read anywhere.
cdef struct HotCounts:
    uint64_t orders[DECISIONS][REASONS]
    uint64_t amendments[DECISIONS][REASONS]
    uint64_t executions[DECISIONS][REASONS]
    # Of requests that come through Python, one in 64 is timed: decode, check and encode.
    Histogram stages[STAGES]

cdef struct HotDoor:
    # An engine's own; valid as long as the engine. Everything is under the mutex.
    pthread_mutex_t *mutex
    # Who has it is the next to have the mutex.
    pthread_mutex_t *turn
    Book *book
    # NULL: nothing is kept.
    JournalState *log
    uint64_t *sequence
    uint64_t *time_ns
    HotCounts *counts

cdef inline void hot_queue(pthread_mutex_t *turn, pthread_mutex_t *mutex) noexcept nogil:
    """Take an engine's mutex, in turn.

    A mutex alone is taken again by who gave it back before the one that was woken gets to run, and
    a kill switch would wait until nothing is left to decide.
    """
    pthread_mutex_lock(turn)
    pthread_mutex_lock(mutex)
    pthread_mutex_unlock(turn)

cdef inline void hot_lock(const HotDoor *door) noexcept nogil:
    """Take the mutex, which the same thread may have."""
    if pthread_mutex_trylock(door.mutex) != 0:
        hot_queue(door.turn, door.mutex)

# What a hot record has before its request.
cdef struct HotHead:
    uint32_t reply_checksum
    uint32_t reply_size

cdef enum HotVerdict:
    # Zero is never a verdict.
    HOT_ANSWERED = 1
    HOT_MALFORMED = 2
    HOT_TOO_LARGE = 3
    # The journal has no room: nothing was done; it can be tried again after a commit.
    HOT_FULL = 4
    HOT_FAILED = 5
    # The caller says why: nothing was done.
    HOT_DENIED = 6

# A round: begin, any number of requests, end. Begin and end take and give back the engine's lock
# and the journal's; end has the journal written.
cdef void hot_begin(const HotDoor *door) noexcept nogil
cdef uint32_t hot_apply(
    const HotDoor *door,
    uint32_t method,
    const uint8_t *request,
    size_t size,
    uint64_t now_ns,
    Caller *caller,
    Writer *writer,
    Malformed *malformed,
) noexcept nogil
# Count what an answer says.
cdef void hot_count(HotCounts *counts, uint32_t method, const Writer *answer) noexcept nogil
cdef void hot_end(const HotDoor *door) noexcept nogil

cdef enum:
    # How many requests of a round are looked at before they are applied, and the one applied.
    HOT_AHEAD = 4

# The next requests of a round, by what they will touch.
cdef struct HotAhead:
    # Looked at since the round began.
    uint32_t count
    bint is_order[HOT_AHEAD]
    OrderRequest orders[HOT_AHEAD]

# Look at the next request that will be applied; and ask for the memory of those after the one whose
# turn it is. Whatever they say, it costs only time.
cdef void hot_foresee(
    const HotDoor *door, HotAhead *ahead, uint32_t method, const uint8_t *request, size_t size
) noexcept nogil
cdef void hot_approach(
    const HotDoor *door, const HotAhead *ahead, uint32_t applied
) noexcept nogil

# The method of a message of StreamOrders whose request is this field.
cdef inline uint32_t hot_streamed_method(uint32_t field) noexcept nogil:
    if field == 1:
        return HOT_CHECK_ORDER
    return HOT_CHECK_AMENDMENT if field == 2 else HOT_REPORT_EXECUTION

# The record that must be durable before what a request of this round was answered may be seen.
cdef uint64_t hot_sequence(const HotDoor *door) noexcept nogil
# The last sequence that is durable, and whether nothing will become so any more.
cdef uint64_t hot_durable(const HotDoor *door) noexcept nogil
cdef bint hot_has_failed(const HotDoor *door) noexcept nogil
