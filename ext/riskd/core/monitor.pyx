"""What an operator watches of an engine, read while it works.

Nothing here holds the engine's lock for long, however much there is: tables are read in slices, and
what takes long to compute is computed one at a time, at most SLICE_NS under one lock. So a reading
is not of one moment. It waits for no disk either, and goes on after the journal has failed.
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove

from cpython.pycapsule cimport PyCapsule_GetPointer

from riskd.core.book cimport TABLES, Book, Table, book_tables
from riskd.core.controls cimport limit_bound, limit_is_used_up, limit_use
from riskd.core.histogram cimport (
    STAGE_CHECK,
    STAGE_DECODE,
    STAGE_ENCODE,
    clock_ns,
    count_of,
    histogram_row,
)
from riskd.core.hot cimport DECISIONS, REASONS, HotDoor, hot_lock, pthread_mutex_unlock
from riskd.core.journal cimport JOURNAL_FAILED, JournalLag, journal_lag
from riskd.core.rows import JournalLagRow, LimitUseRow, LimitUses, MarkAges
from riskd.core.types cimport NAME_SIZE, Instrument, Limit

cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t size)

cdef enum:
    # Rows that are copied under one lock.
    SLICE_ROWS = 256
    SLICE_NS = 20_000
    NEAREST_MAX = 1024
    THRESHOLDS = 4
    # A use of what may not be used at all.
    PPM_MAX = 1_000_000_000

cdef uint32_t[THRESHOLDS] THRESHOLDS_PPM
THRESHOLDS_PPM[:] = [500_000, 800_000, 900_000, 1_000_000]

# A mark or a limit, and its place among the others: the lowest rank comes first.
cdef struct Ranked:
    uint64_t rank
    uint64_t scope_id
    uint32_t scope
    uint32_t instrument_id
    uint32_t kind
    int64_t value
    int64_t use

cdef struct Ranking:
    uint32_t count
    uint32_t capacity
    Ranked *rows

cdef struct Tallies:
    uint64_t known
    uint64_t unknown
    uint64_t above[THRESHOLDS]


cdef void _rank(Ranking *ranking, const Ranked *row) noexcept nogil:
    """Put a row at its place, if it is among the first."""
    cdef uint32_t low = 0
    cdef uint32_t high = ranking.count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) // 2
        if ranking.rows[middle].rank <= row.rank:
            low = middle + 1
        else:
            high = middle
    if low == ranking.capacity:
        return
    if ranking.count < ranking.capacity:
        ranking.count += 1
    memmove(
        &ranking.rows[low + 1],
        &ranking.rows[low],
        (ranking.count - 1 - low) * sizeof(Ranked),
    )
    ranking.rows[low] = row[0]


cdef uint32_t _copy_marks(
    const HotDoor *door, uint32_t *next, Ranked *rows
) noexcept nogil:
    """Copy the marks of the next instruments that are not settled; 0 at the end."""
    cdef const Book *book = door.book
    cdef const Instrument *instrument
    cdef uint32_t count = 0
    hot_lock(door)
    while next[0] < book.instrument_count and count < SLICE_ROWS:
        instrument = &book.instruments[next[0]]
        next[0] += 1
        if instrument.settlement_price == 0:
            rows[count].rank = instrument.mark.time_ns if instrument.mark.price != 0 else 0
            rows[count].instrument_id = next[0]
            count += 1
    pthread_mutex_unlock(door.mutex)
    return count


cdef void _rank_marks(const HotDoor *door, Ranking *ranking, Tallies *tallies) noexcept nogil:
    cdef Ranked rows[SLICE_ROWS]
    cdef uint32_t next = 0
    cdef uint32_t index
    cdef uint32_t count = _copy_marks(door, &next, rows)
    while count > 0:
        for index in range(count):
            if rows[index].rank == 0:
                tallies.unknown += 1
            else:
                tallies.known += 1
                _rank(ranking, &rows[index])
        count = _copy_marks(door, &next, rows)


cdef uint64_t _ppm(int64_t use, int64_t value) noexcept nogil:
    if use <= 0:
        return 0
    if value <= 0 or use / value >= PPM_MAX // 1_000_000:
        return PPM_MAX
    return <uint64_t>(<double>use / <double>value * 1e6)


cdef bint _copy_limits(
    const HotDoor *door, uint64_t now_ns, uint32_t *next, Ranked *rows, uint32_t *count
) noexcept nogil:
    """Copy the next limits with their uses; False at the end."""
    cdef const Book *book = door.book
    cdef const Limit *limit
    cdef uint64_t end_ns
    count[0] = 0
    hot_lock(door)
    end_ns = clock_ns() + SLICE_NS
    now_ns = max(now_ns, door.time_ns[0])
    while next[0] < book.limit_top and count[0] < SLICE_ROWS and clock_ns() < end_ns:
        limit = &book.limits[next[0]]
        next[0] += 1
        if not limit.in_use or not limit_is_used_up(limit.kind):
            continue
        rows[count[0]].scope = limit.scope
        rows[count[0]].scope_id = limit.scope_id
        rows[count[0]].instrument_id = limit.instrument_id
        rows[count[0]].kind = limit.kind
        rows[count[0]].value = limit_bound(limit, now_ns)
        if limit_use(book, limit, now_ns, &rows[count[0]].use):
            rows[count[0]].rank = PPM_MAX - _ppm(rows[count[0]].use, rows[count[0]].value)
        else:
            rows[count[0]].rank = UINT64_MAX
        count[0] += 1
    pthread_mutex_unlock(door.mutex)
    return next[0] < book.limit_top


cdef void _rank_limits(
    const HotDoor *door, uint64_t now_ns, Ranking *ranking, Tallies *tallies
) noexcept nogil:
    cdef Ranked rows[SLICE_ROWS]
    cdef uint32_t next = 0
    cdef uint32_t count, index, threshold
    cdef bint is_more = True
    while is_more:
        is_more = _copy_limits(door, now_ns, &next, rows, &count)
        for index in range(count):
            if rows[index].rank == UINT64_MAX:
                tallies.unknown += 1
                continue
            tallies.known += 1
            for threshold in range(<uint32_t>THRESHOLDS):
                if PPM_MAX - rows[index].rank >= THRESHOLDS_PPM[threshold]:
                    tallies.above[threshold] += 1
            _rank(ranking, &rows[index])


cdef class Monitor:
    cdef HotDoor _door
    cdef object _engine

    def __cinit__(self, engine):
        self._engine = engine
        self._door = (
            <const HotDoor *>PyCapsule_GetPointer(engine.door(), "riskd.core.hot.HotDoor")
        )[0]

    def answers(self):
        cdef uint32_t decision, reason
        cdef uint64_t orders, amendments, executions
        found = {}
        for decision in range(<uint32_t>DECISIONS):
            for reason in range(<uint32_t>REASONS):
                orders = count_of(&self._door.counts.orders[decision][reason])
                amendments = count_of(&self._door.counts.amendments[decision][reason])
                executions = count_of(&self._door.counts.executions[decision][reason])
                if orders != 0:
                    found["order", decision, reason] = orders
                if amendments != 0:
                    found["amendment", decision, reason] = amendments
                if executions != 0:
                    found["execution", decision, reason] = executions
        return found

    def stages(self):
        return {
            "decode": histogram_row(&self._door.counts.stages[<uint32_t>STAGE_DECODE]),
            "check": histogram_row(&self._door.counts.stages[<uint32_t>STAGE_CHECK]),
            "encode": histogram_row(&self._door.counts.stages[<uint32_t>STAGE_ENCODE]),
        }

    def revision(self):
        cdef uint64_t revision
        with nogil:
            hot_lock(&self._door)
            revision = self._door.book.revision
            pthread_mutex_unlock(self._door.mutex)
        return revision

    def time_ns(self):
        cdef uint64_t time_ns
        with nogil:
            hot_lock(&self._door)
            time_ns = self._door.time_ns[0]
            pthread_mutex_unlock(self._door.mutex)
        return time_ns

    def tables(self):
        cdef Table tables[TABLES]
        cdef uint32_t counts[TABLES]
        cdef uint32_t capacities[TABLES]
        cdef uint32_t index
        with nogil:
            hot_lock(&self._door)
            book_tables(self._door.book, tables)
            for index in range(<uint32_t>TABLES):
                counts[index] = tables[index].count[0]
                capacities[index] = tables[index].capacity[0]
            pthread_mutex_unlock(self._door.mutex)
        return {
            (<bytes>tables[index].name).decode("ascii"): (counts[index], capacities[index])
            for index in range(<uint32_t>TABLES)
        }

    def symbol(self, uint32_t instrument_id):
        cdef char symbol[NAME_SIZE]
        cdef bint is_known
        with nogil:
            hot_lock(&self._door)
            is_known = 1 <= instrument_id <= self._door.book.instrument_count
            if is_known:
                memcpy(symbol, self._door.book.instruments[instrument_id - 1].symbol, NAME_SIZE)
            pthread_mutex_unlock(self._door.mutex)
        if not is_known:
            raise KeyError(f"instrument {instrument_id} is not known")
        return symbol[:<Py_ssize_t>strnlen(symbol, NAME_SIZE)].decode("ascii")

    def marks(self, uint32_t count_max):
        cdef Tallies tallies
        cdef Ranking ranking
        _open(&ranking, &tallies, count_max)
        with nogil:
            _rank_marks(&self._door, &ranking, &tallies)
        rows = tuple([
            (ranking.rows[index].instrument_id, ranking.rows[index].rank)
            for index in range(ranking.count)
        ])
        free(ranking.rows)
        return MarkAges(rows, tallies.known, tallies.unknown)

    def limits(self, uint64_t now_ns, uint32_t count_max):
        cdef Tallies tallies
        cdef Ranking ranking
        _open(&ranking, &tallies, count_max)
        with nogil:
            _rank_limits(&self._door, now_ns, &ranking, &tallies)
        rows = tuple([
            LimitUseRow(
                ranking.rows[index].scope,
                ranking.rows[index].scope_id,
                ranking.rows[index].instrument_id,
                ranking.rows[index].kind,
                ranking.rows[index].value,
                ranking.rows[index].use,
            )
            for index in range(ranking.count)
        ])
        free(ranking.rows)
        above = {
            THRESHOLDS_PPM[index]: tallies.above[index] for index in range(<uint32_t>THRESHOLDS)
        }
        return LimitUses(rows, tallies.known, tallies.unknown, above)

    def journal(self):
        cdef JournalLag lag
        if self._door.log == NULL:
            return None
        with nogil:
            journal_lag(self._door.log, &lag)
        return JournalLagRow(
            lag.records, lag.size, lag.time_ns, lag.batches, lag.status == JOURNAL_FAILED
        )


cdef int _open(Ranking *ranking, Tallies *tallies, uint32_t count_max) except -1:
    cdef uint32_t index
    if not 1 <= count_max <= NEAREST_MAX:
        raise ValueError(f"count_max is {count_max}: must be 1 to {NEAREST_MAX}")
    tallies.known = tallies.unknown = 0
    for index in range(<uint32_t>THRESHOLDS):
        tallies.above[index] = 0
    ranking.count = 0
    ranking.capacity = count_max
    ranking.rows = <Ranked *>calloc(count_max, sizeof(Ranked))
    if ranking.rows == NULL:
        raise MemoryError("no memory for a ranking")
    return 0
