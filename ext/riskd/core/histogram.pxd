"""Histograms of durations in fixed memory, one writer each, read by anybody at any time.

Log-linear buckets, as of HdrHistogram (https://hdrhistogram.github.io/HdrHistogram/): a power of
two is cut into 32 buckets of one width, so a bucket is at most 1/32 of its values wide. Values are
whole ns, 1 to 2^36 (68 s); 0 counts as 1, what is longer as 2^36.

A bucket holds its upper end and not its lower one, as Prometheus counts `le`.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    int _leading_zeros "__builtin_clzll"(unsigned long long value) noexcept nogil
    uint64_t _load_count "__atomic_load_n"(const uint64_t *place, int order) noexcept nogil
    void _store_count "__atomic_store_n"(uint64_t *place, uint64_t value, int order) noexcept nogil
    enum:
        _COUNT_RELAXED "__ATOMIC_RELAXED"

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)

cdef enum:
    HISTOGRAM_BITS = 5
    HISTOGRAM_VALUE_BITS = 36
    # The first 32 buckets have one value each, and each power of two after them has 32.
    HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_BITS + 1) << HISTOGRAM_BITS

ctypedef struct Histogram:
    uint64_t sum
    uint64_t counts[HISTOGRAM_BUCKETS]

# The ways of a call through a door.
cdef enum Stage:
    # From the first byte that was read of it to its last.
    STAGE_RECEIVE = 0
    # Until its turn under the engine's lock.
    STAGE_QUEUE = 1
    STAGE_DECODE = 2
    STAGE_CHECK = 3
    STAGE_ENCODE = 4
    # Until what it is answered is as durable as was promised.
    STAGE_JOURNAL = 5
    # Until the kernel has the reply.
    STAGE_SEND = 6
    STAGES = 7

# Which calls are timed: one in `every`, at random distances, so that no rhythm of a client hides
# anything; 0: none.
ctypedef struct Sampler:
    uint32_t every
    uint32_t left
    uint64_t state

# What one request that is timed says of its time in the engine.
ctypedef struct Timer:
    # Of CLOCK_MONOTONIC.
    uint64_t begun_ns
    uint64_t decoded_ns
    uint64_t answered_ns
    # Part of the time between the last two.
    uint64_t encoding_ns


cdef inline uint64_t clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1_000_000_000 + <uint64_t>now.tv_nsec


cdef inline void count_up(uint64_t *place, uint64_t count) noexcept nogil:
    """Add to what one thread at a time writes; others may read it meanwhile."""
    _store_count(place, place[0] + count, _COUNT_RELAXED)


cdef inline void count_one(uint64_t *place) noexcept nogil:
    count_up(place, 1)


cdef inline uint64_t count_of(const uint64_t *place) noexcept nogil:
    return _load_count(place, _COUNT_RELAXED)


cdef inline uint32_t histogram_bucket(uint64_t value) noexcept nogil:
    """Return the bucket of a value: the values below its upper end of a bucket, and that end."""
    cdef uint32_t shift
    if value > 0:
        value -= 1
    if value >= <uint64_t>1 << HISTOGRAM_VALUE_BITS:
        return HISTOGRAM_BUCKETS - 1
    if value < 1 << HISTOGRAM_BITS:
        return <uint32_t>value
    shift = 63 - <uint32_t>_leading_zeros(value) - HISTOGRAM_BITS
    return (shift << HISTOGRAM_BITS) + <uint32_t>(value >> shift)


cdef inline uint64_t histogram_bound(uint32_t bucket) noexcept nogil:
    """Return the largest value of a bucket."""
    cdef uint32_t shift
    if bucket < 1 << HISTOGRAM_BITS:
        return bucket + 1
    shift = (bucket >> HISTOGRAM_BITS) - 1
    return <uint64_t>(bucket - (shift << HISTOGRAM_BITS) + 1) << shift


cdef inline void histogram_add(Histogram *histogram, uint64_t value) noexcept nogil:
    count_up(&histogram.counts[histogram_bucket(value)], 1)
    count_up(&histogram.sum, value)


cdef inline void timer_start(Timer *timer) noexcept nogil:
    timer.encoding_ns = 0
    timer.begun_ns = timer.decoded_ns = timer.answered_ns = clock_ns()


cdef inline uint64_t timer_begin(const Timer *timer) noexcept nogil:
    """Return when something began; 0 while nothing is timed (NULL)."""
    return clock_ns() if timer != NULL else 0


cdef inline void timer_encoded(Timer *timer, uint64_t begun_ns) noexcept nogil:
    if timer != NULL:
        timer.encoding_ns += clock_ns() - begun_ns


cdef inline void timer_decoded(Timer *timer) noexcept nogil:
    if timer != NULL:
        timer.decoded_ns = clock_ns()


cdef inline void sampler_start(Sampler *sampler, uint32_t every) noexcept nogil:
    sampler.every = every
    sampler.left = 1
    sampler.state = 0


cdef inline bint sampler_takes(Sampler *sampler) noexcept nogil:
    """Return whether the next call is timed."""
    if sampler.every == 0:
        return False
    sampler.left -= 1
    if sampler.left > 0:
        return False
    # Knuth's MMIX generator; the distance is 1 to 2 every - 1.
    sampler.state = sampler.state * 6364136223846793005ULL + 1442695040888963407ULL
    sampler.left = 1 + <uint32_t>(
        (sampler.state >> 33) * (2 * <uint64_t>sampler.every - 1) >> 31
    )
    return True


cdef inline void stages_add_timer(Histogram *stages, const Timer *timer) noexcept nogil:
    """Count what the engine did for a request that it answered."""
    histogram_add(&stages[<uint32_t>STAGE_DECODE], timer.decoded_ns - timer.begun_ns)
    histogram_add(
        &stages[<uint32_t>STAGE_CHECK],
        timer.answered_ns - timer.decoded_ns - timer.encoding_ns,
    )
    # Nothing is encoded for a repeat.
    if timer.encoding_ns != 0:
        histogram_add(&stages[<uint32_t>STAGE_ENCODE], timer.encoding_ns)


# Return (sum, [(upper end, count)] of buckets that are not empty).
cdef object histogram_row(const Histogram *histogram)
