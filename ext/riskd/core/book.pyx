"""State: accounts, positions, working orders, instruments, remembered answers. Tables over flat
memory.

Capacities are a part of the state, because they decide what is refused and how long an answer is
remembered. A full table is the caller's reason, not a crash; only `book_resize` changes capacities.
Nothing depends on where an entry lies: indexes are looked up, never walked, and an account's
positions are chained by rising instrument id.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from riskd.core.index cimport (
    Index,
    IndexEntry,
    index_add as _index_add,
    index_candidate as _candidate,
    index_drop as _index_drop,
    index_hash as _hash,
)
from riskd.core.money cimport debug_assert
from riskd.core.types cimport (
    NOWHERE,
    TRADING_STATE_NORMAL,
    Account,
    Instrument,
    Order,
    Position,
    Schedule,
)

cdef extern from "core.h" nogil:
    void size_is "riskd_size_is"(AnswerHead object, int size) noexcept
    void prefetch "__builtin_prefetch"(const void *address) noexcept
    void *table_open "riskd_table_open"(size_t count, size_t size) noexcept
    void *lazy_open "riskd_lazy_open"(size_t count, size_t size) noexcept
    void lazy_close "riskd_lazy_close"(void *memory, size_t count, size_t size) noexcept


# --- index -----------------------------------------------------------------------------------

cdef uint64_t _index_size(uint64_t capacity) noexcept nogil:
    """At most half full, so that a probe is short."""
    cdef uint64_t size = 16
    while size < 2 * capacity:
        size *= 2
    return size


cdef bint _index_open(Index *index, uint64_t capacity, uint64_t seed) noexcept nogil:
    cdef uint64_t size = _index_size(capacity)
    index.entries = <IndexEntry *>table_open(size, sizeof(IndexEntry))
    index.mask = size - 1
    index.seed = seed
    return index.entries != NULL


# --- book ------------------------------------------------------------------------------------

cdef void book_tables(Book *book, Table *tables) noexcept nogil:
    """Describe the tables, each at its number. A new table is a new entry here.

    And it is a line in _index_all or _move_links, if it has an index or names positions.
    """
    cdef Position position
    cdef Order order
    cdef Table *table
    memset(tables, 0, TABLES * sizeof(Table))

    table = &tables[TABLE_ASSETS]
    table.name = "assets"
    table.entries = <void **>&book.assets
    table.count = &book.asset_count
    table.capacity = &book.asset_capacity
    table.entry_size = sizeof(Asset)

    table = &tables[TABLE_SCHEDULES]
    table.name = "schedules"
    table.entries = <void **>&book.schedules
    table.count = &book.schedule_count
    table.capacity = &book.schedule_capacity
    table.entry_size = sizeof(Schedule)

    table = &tables[TABLE_INSTRUMENTS]
    table.name = "instruments"
    table.entries = <void **>&book.instruments
    table.count = &book.instrument_count
    table.capacity = &book.instrument_capacity
    table.entry_size = sizeof(Instrument)

    table = &tables[TABLE_GATEWAYS]
    table.name = "gateways"
    table.entries = <void **>&book.gateways
    table.count = &book.gateway_count
    table.capacity = &book.gateway_capacity
    table.entry_size = sizeof(Gateway)

    table = &tables[TABLE_ACCOUNTS]
    table.name = "accounts"
    table.entries = <void **>&book.accounts
    table.count = &book.account_count
    table.capacity = &book.account_capacity
    table.entry_size = sizeof(Account)

    table = &tables[TABLE_POSITIONS]
    table.name = "positions"
    table.entries = <void **>&book.positions
    table.count = &book.position_count
    table.capacity = &book.position_capacity
    table.top = &book.position_top
    table.free = &book.position_free
    table.in_use_offset = <uint32_t>(<char *>&position.in_use - <char *>&position)
    table.link_offset = <uint32_t>(<char *>&position.next_of_account - <char *>&position)
    table.entry_size = sizeof(Position)

    table = &tables[TABLE_ORDERS]
    table.name = "orders"
    table.entries = <void **>&book.orders
    table.count = &book.order_count
    table.capacity = &book.order_capacity
    table.top = &book.order_top
    table.free = &book.order_free
    table.in_use_offset = <uint32_t>(<char *>&order.in_use - <char *>&order)
    table.link_offset = <uint32_t>(<char *>&order.position_index - <char *>&order)
    table.entry_size = sizeof(Order)


cdef void book_capacities(const Book *book, Capacities *capacities) noexcept nogil:
    cdef Table tables[TABLES]
    cdef uint32_t id
    book_tables(<Book *>book, tables)
    for id in range(<uint32_t>TABLES):
        capacities.entries[id] = tables[id].capacity[0]
    capacities.answer_bytes = book.answer_capacity


cdef bint book_open(Book *book, const Capacities *capacities, uint64_t seed) noexcept nogil:
    """Allocate everything; False when memory is short (then close the book)."""
    cdef Table tables[TABLES]
    cdef uint32_t id
    cdef bint is_whole = True
    memset(book, 0, sizeof(Book))
    book.service_state = TRADING_STATE_NORMAL
    book.answer_capacity = capacities.answer_bytes
    book_tables(book, tables)
    for id in range(<uint32_t>TABLES):
        tables[id].capacity[0] = capacities.entries[id]
        tables[id].entries[0] = table_open(capacities.entries[id], tables[id].entry_size)
        if tables[id].entries[0] == NULL:
            is_whole = False
        if tables[id].free != NULL:
            tables[id].free[0] = NOWHERE
    return (
        is_whole
        and _index_open(&book.account_index, book.account_capacity, seed)
        and _index_open(&book.position_index, book.position_capacity, seed + 1)
        and _index_open(&book.order_index, book.order_capacity, seed + 2)
        and _index_open(&book.client_order_index, book.order_capacity, seed + 5)
        and _index_open(&book.gateway_index, book.gateway_capacity, seed + 3)
        and _rings_open(book, seed + 4)
    )


cdef void book_close(Book *book) noexcept nogil:
    cdef Table tables[TABLES]
    cdef uint32_t id
    book_tables(book, tables)
    for id in range(<uint32_t>TABLES):
        free(tables[id].entries[0])
    free(book.rings)
    lazy_close(book.ring_memory, 2 * <size_t>book.gateway_capacity, book.ring_size)
    free(book.account_index.entries)
    free(book.position_index.entries)
    free(book.order_index.entries)
    free(book.client_order_index.entries)
    free(book.gateway_index.entries)
    memset(book, 0, sizeof(Book))


# --- resizing --------------------------------------------------------------------------------

cdef uint32_t book_resize(
    Book *book, const Capacities *capacities, uint32_t *table
) noexcept nogil:
    """Move everything into tables of other sizes; of answers the newest that fit.

    If a table holds more than its new capacity, `*table` says which. Nothing has changed unless it
    is DONE. Both books are in memory for a moment.
    """
    cdef Table tables[TABLES]
    cdef Book resized
    cdef uint32_t id
    # Where each position went.
    cdef uint32_t *moved
    memset(&resized, 0, sizeof(Book))
    book_tables(book, tables)
    for id in range(<uint32_t>TABLES):
        if tables[id].count[0] > capacities.entries[id]:
            table[0] = id
            return RESIZE_IN_USE
    moved = <uint32_t *>malloc((<size_t>book.position_top + 1) * sizeof(uint32_t))
    if moved == NULL or not book_open(&resized, capacities, book.account_index.seed):
        free(moved)
        book_close(&resized)
        return RESIZE_NO_MEMORY
    resized.revision = book.revision
    resized.service_state = book.service_state
    _move_entries(book, &resized, moved)
    _move_links(&resized, moved)
    _index_all(&resized)
    _move_answers(book, &resized)
    free(moved)
    book_close(book)
    book[0] = resized
    return RESIZE_DONE


cdef void _move_entries(Book *book, Book *resized, uint32_t *moved) noexcept nogil:
    """Copy all entries, closing up the places that are not in use."""
    cdef Table old[TABLES]
    cdef Table new[TABLES]
    cdef uint32_t id, place, count
    cdef size_t size
    cdef const uint8_t *entry
    book_tables(book, old)
    book_tables(resized, new)
    for id in range(<uint32_t>TABLES):
        size = old[id].entry_size
        new[id].count[0] = old[id].count[0]
        if old[id].top == NULL:
            memcpy(new[id].entries[0], old[id].entries[0], old[id].count[0] * size)
            continue
        count = 0
        for place in range(old[id].top[0]):
            entry = <const uint8_t *>old[id].entries[0] + place * size
            if not entry[old[id].in_use_offset]:
                continue
            memcpy(<uint8_t *>new[id].entries[0] + count * size, entry, size)
            if id == TABLE_POSITIONS:
                moved[place] = count
            count += 1
        debug_assert(count == old[id].count[0])
        new[id].top[0] = count


cdef void _move_links(Book *book, const uint32_t *moved) noexcept nogil:
    """Let everything that names a position by its place name the new one."""
    cdef uint32_t place
    cdef uint32_t *link
    for place in range(book.account_count):
        link = &book.accounts[place].first_position
        if link[0] != NOWHERE:
            link[0] = moved[link[0]]
    for place in range(book.position_count):
        link = &book.positions[place].next_of_account
        if link[0] != NOWHERE:
            link[0] = moved[link[0]]
    for place in range(book.order_count):
        book.orders[place].position_index = moved[book.orders[place].position_index]


cdef void _move_answers(const Book *book, Book *resized) noexcept nogil:
    cdef size_t place
    cdef const Ring *ring
    cdef uint64_t done, offset
    cdef AnswerHead head
    cdef uint8_t reply[REMEMBERED_SIZE_MAX]
    for place in range(2 * <size_t>book.gateway_count):
        ring = &book.rings[place]
        done = 0
        while done < ring.used:
            offset = ring.start + done
            answer_copy(ring, offset, <uint8_t *>&head, sizeof(AnswerHead))
            answer_copy(ring, offset + sizeof(AnswerHead), reply, head.reply_size)
            answer_add(&resized.rings[place], &head, reply)
            done += answer_size(head.reply_size)


cdef void _index_all(Book *book) noexcept nogil:
    """Enter everything that is in the tables into the indexes, which are empty."""
    cdef uint32_t place
    for place in range(book.account_count):
        _index_account(book, place)
    for place in range(book.position_top):
        if book.positions[place].in_use:
            _index_position(book, place)
    for place in range(book.order_top):
        if book.orders[place].in_use:
            _index_order(book, place)
            order_name(book, &book.orders[place])
    for place in range(book.gateway_count):
        _index_gateway(book, place)


# --- accounts, instruments -------------------------------------------------------------------

cdef Account *account_find(Book *book, uint64_t account_id) noexcept nogil:
    cdef uint32_t tag = _hash(&book.account_index, 0, account_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.account_index, tag, &at)
    while place != NOWHERE and book.accounts[place].account_id != account_id:
        place = _candidate(&book.account_index, tag, &at)
    return NULL if place == NOWHERE else &book.accounts[place]


cdef Account *account_add(Book *book, uint64_t account_id) noexcept nogil:
    """Return a new account, or NULL when the table is full."""
    cdef Account *account
    if book.account_count == book.account_capacity:
        return NULL
    account = &book.accounts[book.account_count]
    account.account_id = account_id
    account.first_position = NOWHERE
    account.trading_state = TRADING_STATE_NORMAL
    _index_account(book, book.account_count)
    book.account_count += 1
    return account


cdef inline void _index_account(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.account_index
    _index_add(index, _hash(index, 0, book.accounts[place].account_id), place)


cdef uint32_t account_place(const Book *book, const Account *account) noexcept nogil:
    return <uint32_t>(account - book.accounts)


cdef Instrument *instrument_find(Book *book, uint32_t instrument_id) noexcept nogil:
    """Ids count from 1 in the order of creation."""
    if instrument_id == 0 or instrument_id > book.instrument_count:
        return NULL
    return &book.instruments[instrument_id - 1]


# --- positions -------------------------------------------------------------------------------

cdef Position *position_find(
    Book *book, const Account *account, uint32_t instrument_id
) noexcept nogil:
    cdef uint32_t owner = account_place(book, account)
    cdef uint32_t tag = _hash(&book.position_index, owner, instrument_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.position_index, tag, &at)
    while place != NOWHERE and (
        book.positions[place].account_index != owner
        or book.positions[place].instrument_id != instrument_id
    ):
        place = _candidate(&book.position_index, tag, &at)
    return NULL if place == NOWHERE else &book.positions[place]


cdef Position *position_add(Book *book, Account *account, uint32_t instrument_id) noexcept nogil:
    """Return a new position, or NULL when the table is full."""
    cdef Position *position
    cdef uint32_t place = book.position_free
    cdef uint32_t *link = &account.first_position
    if place != NOWHERE:
        book.position_free = book.positions[place].next_of_account
    elif book.position_top < book.position_capacity:
        place = book.position_top
        book.position_top += 1
    else:
        return NULL
    position = &book.positions[place]
    memset(position, 0, sizeof(Position))
    position.account_index = account_place(book, account)
    position.instrument_id = instrument_id
    position.in_use = 1
    while link[0] != NOWHERE and book.positions[link[0]].instrument_id < instrument_id:
        link = &book.positions[link[0]].next_of_account
    position.next_of_account = link[0]
    link[0] = place
    _index_position(book, place)
    book.position_count += 1
    return position


cdef inline void _index_position(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.position_index
    cdef const Position *position = &book.positions[place]
    _index_add(index, _hash(index, position.account_index, position.instrument_id), place)


cdef void position_drop_if_absent(Book *book, Position *position) noexcept nogil:
    """Free a position that says nothing any more: flat, no orders, no settings of its own."""
    cdef uint32_t place = <uint32_t>(position - book.positions)
    cdef uint32_t *link
    if position.lots != 0 or position.working_orders != 0:
        return
    if position.margin_mode != 0 or position.leverage != 0:
        return
    debug_assert(position.wallet == 0 and position.entry_value == 0)
    debug_assert(position.buy.value == 0 and position.sell.value == 0)
    link = &book.accounts[position.account_index].first_position
    while link[0] != place:
        link = &book.positions[link[0]].next_of_account
    link[0] = position.next_of_account
    _index_drop(
        &book.position_index,
        _hash(&book.position_index, position.account_index, position.instrument_id),
        place,
    )
    position.in_use = 0
    position.next_of_account = book.position_free
    book.position_free = place
    book.position_count -= 1


# --- working orders --------------------------------------------------------------------------

cdef Order *order_find(Book *book, uint64_t reservation_id) noexcept nogil:
    cdef uint32_t tag = _hash(&book.order_index, 0, reservation_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.order_index, tag, &at)
    while place != NOWHERE and book.orders[place].reservation_id != reservation_id:
        place = _candidate(&book.order_index, tag, &at)
    return NULL if place == NOWHERE else &book.orders[place]


cdef Order *order_add(Book *book, uint64_t reservation_id) noexcept nogil:
    """Return a new order, or NULL when the table is full."""
    cdef Order *order
    cdef uint32_t place = book.order_free
    if place != NOWHERE:
        book.order_free = book.orders[place].position_index
    elif book.order_top < book.order_capacity:
        place = book.order_top
        book.order_top += 1
    else:
        return NULL
    order = &book.orders[place]
    memset(order, 0, sizeof(Order))
    order.reservation_id = reservation_id
    order.in_use = 1
    _index_order(book, place)
    book.order_count += 1
    return order


cdef inline void _index_order(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.order_index
    _index_add(index, _hash(index, 0, book.orders[place].reservation_id), place)


cdef void order_name(Book *book, Order *order) noexcept nogil:
    """Enter an order under its gateway's own id.

    Answers are forgotten in time, working orders not.
    """
    _index_add(
        &book.client_order_index,
        _hash(&book.client_order_index, order.gateway_id, order.client_order_id),
        <uint32_t>(order - book.orders),
    )


cdef Order *order_find_named(
    const Book *book, uint32_t gateway_id, uint64_t client_order_id
) noexcept nogil:
    """Return the working order with the gateway's own id, or NULL."""
    cdef uint32_t tag = _hash(&book.client_order_index, gateway_id, client_order_id)
    cdef uint64_t at = tag
    cdef uint32_t place
    while True:
        place = _candidate(&book.client_order_index, tag, &at)
        if place == NOWHERE:
            return NULL
        if book.orders[place].gateway_id == gateway_id and (
            book.orders[place].client_order_id == client_order_id
        ):
            return &book.orders[place]


cdef void order_drop(Book *book, Order *order) noexcept nogil:
    cdef uint32_t place = <uint32_t>(order - book.orders)
    debug_assert(order.in_use)
    _index_drop(&book.order_index, _hash(&book.order_index, 0, order.reservation_id), place)
    _index_drop(
        &book.client_order_index,
        _hash(&book.client_order_index, order.gateway_id, order.client_order_id),
        place,
    )
    order.in_use = 0
    order.position_index = book.order_free
    book.order_free = place
    book.order_count -= 1


# --- gateways --------------------------------------------------------------------------------

cdef uint32_t _gateway_place(const Book *book, uint32_t gateway_id) noexcept nogil:
    cdef uint32_t tag = _hash(&book.gateway_index, 0, gateway_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.gateway_index, tag, &at)
    while place != NOWHERE and book.gateways[place].gateway_id != gateway_id:
        place = _candidate(&book.gateway_index, tag, &at)
    return place


cdef uint32_t gateway_state(const Book *book, uint32_t gateway_id) noexcept nogil:
    cdef uint32_t place = _gateway_place(book, gateway_id)
    return TRADING_STATE_NORMAL if place == NOWHERE else book.gateways[place].trading_state


cdef uint32_t _gateway_take(Book *book, uint32_t gateway_id) noexcept nogil:
    """Return a gateway's place, a new one if it has none; NOWHERE when the table is full.

    A gateway keeps its place: its answers stay remembered.
    """
    cdef uint32_t place = _gateway_place(book, gateway_id)
    if place != NOWHERE or book.gateway_count == book.gateway_capacity:
        return place
    place = book.gateway_count
    book.gateway_count += 1
    book.gateways[place].gateway_id = gateway_id
    book.gateways[place].trading_state = TRADING_STATE_NORMAL
    _index_gateway(book, place)
    return place


cdef inline void _index_gateway(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.gateway_index
    _index_add(index, _hash(index, 0, book.gateways[place].gateway_id), place)


cdef bint gateway_set(Book *book, uint32_t gateway_id, uint32_t trading_state) noexcept nogil:
    """Return False when the table is full. A gateway that was never heard of is NORMAL."""
    cdef uint32_t place = _gateway_place(book, gateway_id)
    if place == NOWHERE and trading_state == TRADING_STATE_NORMAL:
        return True
    place = _gateway_take(book, gateway_id)
    if place == NOWHERE:
        return False
    book.gateways[place].trading_state = trading_state
    return True


# --- remembered answers ----------------------------------------------------------------------
#
# A ring of bytes. An entry is an AnswerHead and the reply, together rounded up to 16 bytes; it may
# wrap around the end. Places in a ring's index count in 16 bytes.

cdef uint64_t answer_size(uint32_t reply_size) noexcept nogil:
    return (sizeof(AnswerHead) + <uint64_t>reply_size + 15) & ~<uint64_t>15


cdef bint _rings_open(Book *book, uint64_t seed) noexcept nogil:
    """Lay out the rings of all gateways; memory of a gateway that never calls is never touched."""
    cdef size_t count = 2 * <size_t>book.gateway_capacity
    cdef uint64_t index_size = _index_size(book.answer_capacity / answer_size(1))
    cdef uint8_t *memory
    cdef size_t place
    # Whole pages, so that no two gateways share one.
    book.ring_size = (
        book.answer_capacity + index_size * sizeof(IndexEntry) + 4095
    ) & ~<uint64_t>4095
    book.ring_memory = lazy_open(count, book.ring_size)
    book.rings = <Ring *>calloc(count, sizeof(Ring))
    if book.ring_memory == NULL or book.rings == NULL:
        return False
    for place in range(count):
        memory = <uint8_t *>book.ring_memory + place * book.ring_size
        book.rings[place].bytes = memory
        book.rings[place].capacity = book.answer_capacity
        book.rings[place].index.entries = <IndexEntry *>(memory + book.answer_capacity)
        book.rings[place].index.mask = index_size - 1
        book.rings[place].index.seed = seed
    return True


cdef inline Ring *_ring_at(const Book *book, uint32_t kind, uint32_t place) noexcept nogil:
    return &book.rings[2 * <size_t>place + (1 if kind == ANSWER_EXECUTION else 0)]


cdef Ring *ring_take(Book *book, uint32_t kind, uint32_t gateway_id) noexcept nogil:
    """Return a gateway's ring for a kind of answers; the gateway gets its place if it has none.

    NULL when the table is full. For requests whose answer will be remembered: for all others it is
    ring_find.
    """
    cdef uint32_t place = _gateway_take(book, gateway_id)
    return NULL if place == NOWHERE else _ring_at(book, kind, place)


cdef const Ring *ring_find(const Book *book, uint32_t kind, uint32_t gateway_id) noexcept nogil:
    """Return a gateway's ring, or NULL if nothing of the gateway is known."""
    cdef uint32_t place = _gateway_place(book, gateway_id)
    return NULL if place == NOWHERE else _ring_at(book, kind, place)


cdef void answer_copy(
    const Ring *ring, uint64_t offset, uint8_t *target, uint64_t size
) noexcept nogil:
    """Copy bytes out of the ring."""
    cdef uint64_t first
    offset %= ring.capacity
    first = min(size, ring.capacity - offset)
    memcpy(target, ring.bytes + offset, first)
    memcpy(target + first, ring.bytes, size - first)


cdef void _answer_write(
    Ring *ring, uint64_t offset, const uint8_t *source, uint64_t size
) noexcept nogil:
    cdef uint64_t first
    offset %= ring.capacity
    first = min(size, ring.capacity - offset)
    memcpy(ring.bytes + offset, source, first)
    memcpy(ring.bytes, source + first, size - first)


cdef bint answer_find(
    const Ring *ring, uint32_t kind, uint64_t id, AnswerHead *head, uint64_t *reply_offset
) noexcept nogil:
    """Whether the answer to a request is remembered: its head, and where its reply begins."""
    cdef uint32_t tag = _hash(&ring.index, kind, id)
    cdef uint64_t at = tag
    cdef uint32_t place
    cdef uint64_t offset
    cdef uint64_t key[2]
    while True:
        place = _candidate(&ring.index, tag, &at)
        if place == NOWHERE:
            return False
        offset = <uint64_t>place * 16
        # The key comes first in a head: id, then gateway and kind.
        answer_copy(ring, offset, <uint8_t *>key, sizeof(key))
        if key[0] == id and key[1] >> 32 == kind:
            answer_copy(ring, offset, <uint8_t *>head, sizeof(AnswerHead))
            reply_offset[0] = offset + sizeof(AnswerHead)
            return True


cdef void _forget_oldest(Ring *ring) noexcept nogil:
    cdef AnswerHead oldest
    cdef uint64_t size
    answer_copy(ring, ring.start, <uint8_t *>&oldest, sizeof(AnswerHead))
    _index_drop(
        &ring.index, _hash(&ring.index, oldest.kind, oldest.id), <uint32_t>(ring.start / 16)
    )
    size = answer_size(oldest.reply_size)
    ring.start = (ring.start + size) % ring.capacity
    ring.used -= size


cdef void answer_add(Ring *ring, const AnswerHead *head, const uint8_t *reply) noexcept nogil:
    """Remember an answer; the oldest are forgotten as far as the room is needed."""
    cdef uint64_t size = answer_size(head.reply_size)
    cdef uint64_t offset
    size_is(head[0], 128)
    debug_assert(size <= ring.capacity)
    while ring.used + size > ring.capacity:
        _forget_oldest(ring)
    offset = (ring.start + ring.used) % ring.capacity
    _answer_write(ring, offset, <const uint8_t *>head, sizeof(AnswerHead))
    _answer_write(ring, offset + sizeof(AnswerHead), reply, head.reply_size)
    _index_add(&ring.index, _hash(&ring.index, head.kind, head.id), <uint32_t>(offset / 16))
    ring.used += size


cdef void book_prefetch(
    const Book *book, const Ring *ring, uint32_t kind, uint32_t gateway_id, uint64_t id
) noexcept nogil:
    """Ask for the lines that remembering an answer will touch, while the decision is being made.

    They are spread over more memory than any cache: the answer's place in the index, the end of the
    ring, the oldest answer and its place in the index, and the next reservation's.
    """
    cdef const AnswerHead *oldest
    cdef uint64_t end = (ring.start + ring.used) % ring.capacity
    cdef uint32_t tag = _hash(&ring.index, kind, id)
    prefetch(&ring.index.entries[tag & ring.index.mask])
    tag = _hash(&book.order_index, 0, book.revision + 1)
    prefetch(&book.order_index.entries[tag & book.order_index.mask])
    tag = _hash(&book.client_order_index, gateway_id, id)
    prefetch(&book.client_order_index.entries[tag & book.client_order_index.mask])
    prefetch(ring.bytes + end)
    prefetch(ring.bytes + (end + 64) % ring.capacity)
    prefetch(ring.bytes + (ring.start + 1024) % ring.capacity)
    if ring.used + 1024 > ring.capacity and ring.start + sizeof(AnswerHead) <= ring.capacity:
        oldest = <const AnswerHead *>(ring.bytes + ring.start)
        tag = _hash(&ring.index, oldest.kind, oldest.id)
        prefetch(&ring.index.entries[tag & ring.index.mask])
