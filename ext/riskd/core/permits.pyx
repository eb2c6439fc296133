"""Who may do what: identities by the keys that they are known by.

Nothing secret is in a table: a token is there as its SHA-256, and has 256 random bits, so that its
hash says nothing of it.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, strcmp

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)

cdef extern from *:
    void _store "__atomic_store_n"(uint64_t *place, uint64_t value, int order) nogil
    enum:
        _RELEASE "__ATOMIC_RELEASE"

cdef enum:
    # What a search compares of a hash; the whole of it is compared in constant time.
    PREFIX_SIZE = 8


cdef bint ranges_have(const Range *ranges, uint32_t count, uint64_t value) noexcept nogil:
    cdef uint32_t low = 0
    cdef uint32_t high = count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) >> 1
        if ranges[middle].last < value:
            low = middle + 1
        else:
            high = middle
    return low < count and ranges[low].first <= value


cdef inline int _compare(const Key *key, const Key *other) noexcept nogil:
    if key.kind != other.kind:
        return -1 if key.kind < other.kind else 1
    return memcmp(key.hash, other.hash, PREFIX_SIZE)


cdef inline bint _is_same(const Key *key, const Key *other) noexcept nogil:
    """Compare hashes in a time that does not tell how much of them is alike."""
    cdef uint8_t difference = 0
    cdef int index
    for index in range(KEY_HASH_SIZE):
        difference |= key.hash[index] ^ other.hash[index]
    return key.kind == other.kind and difference == 0


cdef const Permit *table_find(const Table *table, const Key *key) noexcept nogil:
    cdef uint32_t low = 0
    cdef uint32_t high = table.keys_count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) >> 1
        if _compare(&table.keys[middle], key) < 0:
            low = middle + 1
        else:
            high = middle
    while low < table.keys_count and _compare(&table.keys[low], key) == 0:
        if _is_same(&table.keys[low], key):
            return &table.permits[table.keys[low].place]
        low += 1
    return NULL


cdef void _free_table(Table *table) noexcept nogil:
    free(table.permits)
    free(table.keys)
    free(table.ranges)
    free(table)


cdef inline void _let_go(Table *table) noexcept nogil:
    """Use a table no more; under the gate's lock."""
    table.users -= 1
    if table.users == 0:
        _free_table(table)


cdef Table *gate_take(Gate *gate, Table *before) noexcept nogil:
    cdef Table *table
    pthread_mutex_lock(&gate.mutex)
    table = gate.current
    table.users += 1
    if before != NULL:
        _let_go(before)
    pthread_mutex_unlock(&gate.mutex)
    return table


cdef void gate_leave(Gate *gate, Table *table) noexcept nogil:
    pthread_mutex_lock(&gate.mutex)
    _let_go(table)
    pthread_mutex_unlock(&gate.mutex)


cdef void gate_deny(Gate *gate, const Denial *denial) noexcept nogil:
    """Count a denial; the last of its kind is kept whole until somebody looks."""
    cdef Denial *kept
    cdef uint64_t count, first_time_ns
    cdef uint32_t index
    pthread_mutex_lock(&gate.mutex)
    for index in range(gate.denials_count):
        kept = &gate.denials[index]
        if (
            kept.reason == denial.reason
            and kept.method == denial.method
            and strcmp(kept.identity, denial.identity) == 0
        ):
            count = kept.count
            first_time_ns = kept.first_time_ns
            kept[0] = denial[0]
            kept.count = count + 1
            kept.first_time_ns = first_time_ns
            break
    else:
        if gate.denials_count < DENIALS_KEPT_MAX:
            gate.denials[gate.denials_count] = denial[0]
            gate.denials[gate.denials_count].count = 1
            gate.denials[gate.denials_count].first_time_ns = denial.time_ns
            gate.denials_count += 1
        else:
            gate.denials_beyond += 1
    pthread_mutex_unlock(&gate.mutex)


# --- for Python ------------------------------------------------------------------------------

cdef Range *_put_ranges(Range *to, pairs) except NULL:
    """Write pairs of (first, last) and return what is behind them."""
    for first, last in pairs:
        to.first = first
        to.last = last
        to += 1
    return to


cdef Table *_make_table(rows) except NULL:
    """Return a table of rows as Permits.replace takes them."""
    cdef Table *table = <Table *>calloc(1, sizeof(Table))
    cdef Permit *permit
    cdef Range *ranges
    cdef Key *key
    cdef const char *text
    if table == NULL:
        raise MemoryError("no memory for identities")
    try:
        count = sum(len(row[3]) + len(row[4]) for row in rows)
        keys = sorted(
            (kind, hash_, place) for place, row in enumerate(rows) for kind, hash_ in row[5]
        )
        table.permits = <Permit *>calloc(<size_t>len(rows) + 1, sizeof(Permit))
        table.keys = <Key *>calloc(<size_t>len(keys) + 1, sizeof(Key))
        table.ranges = ranges = <Range *>calloc(count + 1, sizeof(Range))
        if table.permits == NULL or table.keys == NULL or table.ranges == NULL:
            raise MemoryError("no memory for identities")
        for name, methods, own_methods, accounts, gateways, _ in rows:
            permit = &table.permits[table.permits_count]
            encoded = name.encode("ascii")
            if not 0 < len(encoded) < IDENTITY_NAME_SIZE:
                raise ValueError(f"name {name!r}: must have 1 to {IDENTITY_NAME_SIZE - 1} bytes")
            text = encoded
            memcpy(permit.name, text, <size_t>len(encoded))
            permit.methods = methods
            permit.own_methods = own_methods
            permit.accounts = ranges
            permit.accounts_count = <uint32_t>len(accounts)
            ranges = _put_ranges(ranges, accounts)
            permit.gateways = ranges
            permit.gateways_count = <uint32_t>len(gateways)
            ranges = _put_ranges(ranges, gateways)
            table.permits_count += 1
        for kind, hash_, place in keys:
            key = &table.keys[table.keys_count]
            if len(hash_) != KEY_HASH_SIZE:
                raise ValueError(f"a key of {len(hash_)} bytes: must have {KEY_HASH_SIZE}")
            text = hash_
            key.kind = kind
            key.place = place
            memcpy(key.hash, text, KEY_HASH_SIZE)
            table.keys_count += 1
    except BaseException:
        _free_table(table)
        raise
    return table


cdef class Permission:
    def __dealloc__(self):
        if self.table != NULL:
            gate_leave(self.gate, self.table)

    @property
    def name(self):
        cdef const char *name = &self.permit.name[0]
        return name.decode("ascii")


cdef class Permits:
    def __cinit__(self):
        pthread_mutex_init(&self.gate.mutex, NULL)
        self.gate.current = _make_table(())
        self.gate.current.users = 1

    def __dealloc__(self):
        if self.gate.current != NULL:
            _let_go(self.gate.current)
        pthread_mutex_destroy(&self.gate.mutex)

    def replace(self, rows):
        cdef Table *table = _make_table(rows)
        cdef Permission permission
        cdef uint32_t place
        pthread_mutex_lock(&self.gate.mutex)
        _let_go(self.gate.current)
        table.users = 1 + table.permits_count
        table.generation = self.gate.generation + 1
        self.gate.current = table
        _store(&self.gate.generation, table.generation, _RELEASE)
        pthread_mutex_unlock(&self.gate.mutex)
        found = []
        for place in range(table.permits_count):
            permission = Permission.__new__(Permission)
            permission._permits = self
            permission.gate = &self.gate
            permission.table = table
            permission.permit = &table.permits[place]
            found.append(permission)
        return found

    def take_denials(self):
        cdef Denial *kept
        cdef uint32_t count, index
        cdef uint64_t beyond
        pthread_mutex_lock(&self.gate.mutex)
        count = self.gate.denials_count
        pthread_mutex_unlock(&self.gate.mutex)
        # It is asked many times a second, and nearly always there is nothing.
        if count == 0:
            return [], 0
        kept = <Denial *>calloc(DENIALS_KEPT_MAX, sizeof(Denial))
        if kept == NULL:
            raise MemoryError("no memory for denials")
        pthread_mutex_lock(&self.gate.mutex)
        count = self.gate.denials_count
        beyond = self.gate.denials_beyond
        memcpy(kept, self.gate.denials, count * sizeof(Denial))
        self.gate.denials_count = 0
        self.gate.denials_beyond = 0
        pthread_mutex_unlock(&self.gate.mutex)
        try:
            rows = [
                (
                    kept[index].count,
                    kept[index].first_time_ns,
                    kept[index].time_ns,
                    kept[index].reason,
                    kept[index].method,
                    kept[index].value,
                    kept[index].identity.decode("ascii"),
                    kept[index].peer.decode("ascii", "replace"),
                    kept[index].shown.decode("utf-8", "replace"),
                )
                for index in range(count)
            ]
        finally:
            free(kept)
        return rows, beyond
