"""State: accounts, positions, working and closed orders, instruments, remembered answers. Tables
over flat memory.

Capacities are a part of the state, because they decide what is refused and how long an answer is
remembered. A full table is the caller's reason, not a crash; only `book_resize` changes capacities.
Nothing depends on where an entry lies: indexes are looked up, never walked, and an account's
positions are chained by rising instrument id and position side.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
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
from riskd.core.money cimport debug_assert, i128
from riskd.core.orders cimport is_protective
from riskd.core.types cimport (
    ASSETS_MAX,
    COLLATERALS_MAX,
    COLLATERAL_TIERS_MAX,
    LIMIT_KINDS,
    LIMIT_SCOPE_ACCOUNT,
    LIMIT_SCOPE_FIRM,
    LIMIT_SCOPE_GATEWAY,
    NAME_SIZE,
    NOWHERE,
    OWNER_IS_FIRM,
    POSITION_MODE_HEDGE,
    POSITION_MODE_ONE_WAY,
    POSITION_SIDE_LONG,
    POSITION_SIDE_NET,
    POSITION_SIDE_SHORT,
    RISK_EVENTS_MAX,
    TIERS_MAX,
    TRADING_STATE_NORMAL,
    Account,
    ClosedOrder,
    Collateral,
    Firm,
    Instrument,
    Level,
    LevelHolding,
    Limit,
    Order,
    OrderRequest,
    Position,
    RiskEvent,
    Schedule,
)
from riskd.core.value cimport is_spot

cdef extern from "core.h" nogil:
    void size_is "riskd_size_is"(AnswerHead object, int size) noexcept
    void clear "riskd_clear"(void *object, size_t size) noexcept
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

    And it is a line in book_index, and in _move_links if it names others by their places.
    """
    cdef Position position
    cdef Order order
    cdef Limit limit
    cdef LevelHolding holding
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

    table = &tables[TABLE_BALANCES]
    table.name = "balances"
    table.entries = <void **>&book.balances
    table.count = &book.balance_count
    table.capacity = &book.balance_capacity
    table.entry_size = sizeof(Balance)

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

    table = &tables[TABLE_CLOSED]
    table.name = "closed orders"
    table.entries = <void **>&book.closed
    table.count = &book.closed_count
    table.capacity = &book.closed_capacity
    table.start = &book.closed_start
    table.entry_size = sizeof(ClosedOrder)

    table = &tables[TABLE_FIRMS]
    table.name = "firms"
    table.entries = <void **>&book.firms
    table.count = &book.firm_count
    table.capacity = &book.firm_capacity
    table.entry_size = sizeof(Firm)

    table = &tables[TABLE_LIMITS]
    table.name = "limits"
    table.entries = <void **>&book.limits
    table.count = &book.limit_count
    table.capacity = &book.limit_capacity
    table.top = &book.limit_top
    table.free = &book.limit_free
    table.in_use_offset = <uint32_t>(<char *>&limit.in_use - <char *>&limit)
    table.link_offset = <uint32_t>(<char *>&limit.next - <char *>&limit)
    table.entry_size = sizeof(Limit)

    table = &tables[TABLE_HOLDINGS]
    table.name = "holdings"
    table.entries = <void **>&book.holdings
    table.count = &book.holding_count
    table.capacity = &book.holding_capacity
    table.top = &book.holding_top
    table.free = &book.holding_free
    table.in_use_offset = <uint32_t>(<char *>&holding.in_use - <char *>&holding)
    table.link_offset = <uint32_t>(<char *>&holding.next_of_level - <char *>&holding)
    table.entry_size = sizeof(LevelHolding)

    table = &tables[TABLE_RISK_EVENTS]
    table.name = "risk events"
    table.entries = <void **>&book.risk_events
    table.count = &book.risk_event_count
    table.capacity = &book.risk_event_capacity
    table.start = &book.risk_event_start
    table.entry_size = sizeof(RiskEvent)

    table = &tables[TABLE_COLLATERALS]
    table.name = "collaterals"
    table.entries = <void **>&book.collaterals
    table.count = &book.collateral_count
    table.capacity = &book.collateral_capacity
    table.entry_size = sizeof(Collateral)


cdef void book_scalars(const Book *book, Scalars *scalars) noexcept nogil:
    memset(scalars, 0, sizeof(Scalars))
    scalars.answer_bytes = book.answer_capacity
    scalars.service_state = book.service_state
    scalars.search_ppm = book.search_ppm
    scalars.release_ppm = book.release_ppm


cdef void book_set_scalars(Book *book, const Scalars *scalars) noexcept nogil:
    """Of a book that was opened with this room for answers."""
    debug_assert(book.answer_capacity == scalars.answer_bytes)
    book.service_state = scalars.service_state
    book.search_ppm = scalars.search_ppm
    book.release_ppm = scalars.release_ppm


cdef void book_capacities(const Book *book, Capacities *capacities) noexcept nogil:
    cdef Table tables[TABLES]
    cdef uint32_t id
    book_tables(<Book *>book, tables)
    for id in range(<uint32_t>TABLES):
        capacities.entries[id] = tables[id].capacity[0]
    capacities.answer_bytes = book.answer_capacity


cdef void capacities_fixed(Capacities *capacities) noexcept nogil:
    capacities.entries[TABLE_ASSETS] = ASSETS_MAX
    capacities.entries[TABLE_RISK_EVENTS] = RISK_EVENTS_MAX
    capacities.entries[TABLE_COLLATERALS] = COLLATERALS_MAX


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
    book.expiries = <uint32_t *>table_open(book.order_capacity, sizeof(uint32_t))
    book.sums = <Sums *>table_open(book.account_capacity, sizeof(Sums))
    # Rows begin at age 0: nothing is known.
    book.sums_age = 1
    return (
        is_whole
        and book.expiries != NULL
        and book.sums != NULL
        and _index_open(&book.account_index, book.account_capacity, seed)
        and _index_open(&book.position_index, book.position_capacity, seed + 1)
        and _index_open(&book.order_index, book.order_capacity, seed + 2)
        and _index_open(&book.client_order_index, book.order_capacity, seed + 5)
        and _index_open(&book.gateway_index, book.gateway_capacity, seed + 3)
        and _index_open(&book.closed_index, book.closed_capacity, seed + 6)
        and _index_open(&book.balance_index, book.balance_capacity, seed + 7)
        and _index_open(&book.firm_index, book.firm_capacity, seed + 8)
        and _index_open(&book.limit_index, book.limit_capacity, seed + 9)
        and _index_open(&book.holding_index, book.holding_capacity, seed + 10)
        and _index_open(&book.collateral_index, book.collateral_capacity, seed + 11)
        and _rings_open(book, seed + 4)
    )


cdef void book_close(Book *book) noexcept nogil:
    cdef Table tables[TABLES]
    cdef uint32_t id
    book_tables(book, tables)
    for id in range(<uint32_t>TABLES):
        free(tables[id].entries[0])
    free(book.expiries)
    free(book.sums)
    free(book.rings)
    lazy_close(book.ring_memory, 2 * <size_t>book.gateway_capacity, book.ring_size)
    free(book.account_index.entries)
    free(book.position_index.entries)
    free(book.order_index.entries)
    free(book.client_order_index.entries)
    free(book.closed_index.entries)
    free(book.gateway_index.entries)
    free(book.balance_index.entries)
    free(book.firm_index.entries)
    free(book.limit_index.entries)
    free(book.holding_index.entries)
    free(book.collateral_index.entries)
    memset(book, 0, sizeof(Book))


# --- resizing --------------------------------------------------------------------------------

cdef uint32_t book_resize(
    Book *book, const Capacities *capacities, uint32_t *table
) noexcept nogil:
    """Move everything into tables of other sizes; of answers and closed orders the newest that fit.

    If a table holds more than its new capacity, `*table` says which. Nothing has changed unless it
    is DONE. Both books are in memory for a moment.
    """
    cdef Table tables[TABLES]
    cdef Book resized
    cdef uint32_t id
    # Of each table with free places, where each entry went.
    cdef uint32_t *moved[TABLES]
    cdef Scalars scalars
    memset(&resized, 0, sizeof(Book))
    book_tables(book, tables)
    for id in range(<uint32_t>TABLES):
        if tables[id].count[0] > capacities.entries[id] and tables[id].start == NULL:
            table[0] = id
            return RESIZE_IN_USE
    if not _open_moved(book, moved) or not book_open(
        &resized, capacities, book.account_index.seed
    ):
        _close_moved(moved)
        book_close(&resized)
        return RESIZE_NO_MEMORY
    resized.revision = book.revision
    book_scalars(book, &scalars)
    scalars.answer_bytes = capacities.answer_bytes
    book_set_scalars(&resized, &scalars)
    _move_entries(book, &resized, moved)
    _move_links(&resized, moved)
    if book_index(&resized) != NULL:
        debug_assert(False)
    _move_answers(book, &resized)
    _close_moved(moved)
    book_close(book)
    book[0] = resized
    return RESIZE_DONE


cdef bint _open_moved(Book *book, uint32_t **moved) noexcept nogil:
    cdef Table tables[TABLES]
    cdef uint32_t id
    cdef bint is_whole = True
    book_tables(book, tables)
    for id in range(<uint32_t>TABLES):
        moved[id] = NULL
        if tables[id].top != NULL:
            moved[id] = <uint32_t *>malloc((<size_t>tables[id].top[0] + 1) * sizeof(uint32_t))
            is_whole = is_whole and moved[id] != NULL
    return is_whole


cdef void _close_moved(uint32_t **moved) noexcept nogil:
    cdef uint32_t id
    for id in range(<uint32_t>TABLES):
        free(moved[id])


cdef void _move_entries(Book *book, Book *resized, uint32_t **moved) noexcept nogil:
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
        if old[id].start != NULL:
            _move_ring(&old[id], &new[id])
            continue
        if old[id].top == NULL:
            memcpy(new[id].entries[0], old[id].entries[0], old[id].count[0] * size)
            continue
        count = 0
        for place in range(old[id].top[0]):
            entry = <const uint8_t *>old[id].entries[0] + place * size
            if not entry[old[id].in_use_offset]:
                continue
            memcpy(<uint8_t *>new[id].entries[0] + count * size, entry, size)
            moved[id][place] = count
            count += 1
        debug_assert(count == old[id].count[0])
        new[id].top[0] = count


cdef void _move_ring(const Table *old, const Table *new) noexcept nogil:
    """Copy the newest entries that there is room for, the oldest of them to the first place."""
    cdef uint32_t count = min(old.count[0], new.capacity[0])
    cdef uint64_t at = <uint64_t>old.start[0] + old.count[0] - count
    cdef size_t size = old.entry_size
    cdef uint32_t place
    new.count[0] = count
    for place in range(count):
        memcpy(
            <uint8_t *>new.entries[0] + place * size,
            <const uint8_t *>old.entries[0] + (at + place) % old.capacity[0] * size,
            size,
        )


cdef inline void _move_link(uint32_t *link, const uint32_t *moved) noexcept nogil:
    if link[0] != NOWHERE:
        link[0] = moved[link[0]]


cdef void _move_links(Book *book, uint32_t **moved) noexcept nogil:
    """Let everything that names an entry by its place name the new one; limits are chained anew."""
    cdef const uint32_t *positions = moved[TABLE_POSITIONS]
    cdef const uint32_t *holdings = moved[TABLE_HOLDINGS]
    cdef uint32_t place
    for place in range(book.account_count):
        _move_link(&book.accounts[place].first_position, positions)
        _move_link(&book.accounts[place].level.first_holding, holdings)
    for place in range(book.firm_count):
        _move_link(&book.firms[place].level.first_holding, holdings)
    for place in range(book.position_count):
        _move_link(&book.positions[place].next_of_account, positions)
    for place in range(book.order_count):
        _move_link(&book.orders[place].position_index, positions)
    for place in range(book.holding_count):
        _move_link(&book.holdings[place].next_of_level, holdings)
        _move_link(&book.holdings[place].previous_of_level, holdings)


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


# --- taking over tables that are filled --------------------------------------------------------

cdef const char *book_index(Book *book) noexcept nogil:
    """Enter everything that is in the tables into the indexes, which are empty.

    Return NULL, or what is wrong with the tables: nothing in them can then lead outside of them.
    """
    cdef uint32_t place
    cdef const char *fault = _free_places_fault(book)
    if fault == NULL:
        fault = _definitions_fault(book)
    if fault == NULL:
        fault = _positions_fault(book)
    if fault != NULL:
        return fault
    for place in range(book.position_top):
        if book.positions[place].in_use:
            _index_position(book, place)
            book.positions[place].protective_orders = 0
    for place in range(book.order_top):
        if not book.orders[place].in_use:
            continue
        if book.orders[place].position_index >= book.position_top:
            return "an order names no position"
        if not book.positions[book.orders[place].position_index].in_use:
            return "an order names no position"
        if order_find(book, book.orders[place].reservation_id) != NULL:
            return "two orders have one reservation"
        _index_order(book, place)
        order_name(book, &book.orders[place])
        _count_protective(book, &book.orders[place])
    fault = _expiries_fault(book)
    if fault == NULL:
        fault = _closed_fault(book)
    if fault != NULL:
        return fault
    fault = _balances_fault(book)
    if fault == NULL:
        fault = _collaterals_fault(book)
    if fault == NULL:
        fault = _risk_events_fault(book)
    if fault != NULL:
        return fault
    for place in range(book.gateway_count):
        if _gateway_place(book, book.gateways[place].gateway_id) != NOWHERE:
            return "two gateways have one id"
        _index_gateway(book, place)
    return _levels_fault(book)


cdef inline void _count_protective(Book *book, const Order *order) noexcept nogil:
    # Older snapshots do not say how many there are.
    if is_protective(order.order_type, order.flags):
        book.positions[order.position_index].protective_orders += 1


cdef const char *_free_places_fault(Book *book) noexcept nogil:
    """Check that the free places of each table, and no others, are in its chain of free places."""
    cdef Table tables[TABLES]
    cdef uint32_t id, place, used, free_count
    cdef const uint8_t *entries
    book_tables(book, tables)
    for id in range(<uint32_t>TABLES):
        if tables[id].top == NULL:
            continue
        entries = <const uint8_t *>tables[id].entries[0]
        used = 0
        for place in range(tables[id].top[0]):
            used += entries[place * <size_t>tables[id].entry_size + tables[id].in_use_offset] != 0
        if used != tables[id].count[0]:
            return "a table's count is not that of its entries"
        free_count = 0
        place = tables[id].free[0]
        while place != NOWHERE:
            if place >= tables[id].top[0] or free_count == tables[id].top[0] - used:
                return "a chain of free places leads astray"
            entries = <const uint8_t *>tables[id].entries[0]
            entries += place * <size_t>tables[id].entry_size
            if entries[tables[id].in_use_offset]:
                return "a free place is in use"
            free_count += 1
            memcpy(&place, entries + tables[id].link_offset, sizeof(uint32_t))
        if free_count != tables[id].top[0] - used:
            return "a free place is in no chain"
    return NULL


cdef const char *_expiries_fault(Book *book) noexcept nogil:
    """Put the orders that expire into the heap, where they say that they are in it."""
    cdef uint32_t place, at
    cdef uint32_t count = 0
    cdef const Order *order
    for place in range(book.order_top):
        order = &book.orders[place]
        if order.in_use and (order.expire_ns != 0) != (order.expiry_place != 0):
            return "an order that expires is not in the heap, or one that does not is"
        if order.in_use and order.expiry_place != 0:
            count += 1
    for at in range(count):
        book.expiries[at] = NOWHERE
    for place in range(book.order_top):
        order = &book.orders[place]
        if not order.in_use or order.expiry_place == 0:
            continue
        if order.expiry_place > count or book.expiries[order.expiry_place - 1] != NOWHERE:
            return "two orders are in one place of the heap, or one is outside of it"
        book.expiries[order.expiry_place - 1] = place
    book.expiry_count = count
    for at in range(1, count):
        if _expires_before(
            &book.orders[book.expiries[at]], &book.orders[book.expiries[(at - 1) / 2]]
        ):
            return "the heap of orders that expire is out of order"
    return NULL


cdef const char *_closed_fault(Book *book) noexcept nogil:
    """Index the closed orders, and check that each names what is there."""
    cdef uint32_t place
    cdef const ClosedOrder *closed
    if book.closed_start != 0 and (
        book.closed_count != book.closed_capacity or book.closed_start >= book.closed_count
    ):
        return "the ring of closed orders does not begin in it"
    for place in range(book.closed_count):
        closed = &book.closed[place]
        if closed.account_index >= book.account_count:
            return "a closed order names no account"
        if closed.instrument_id == 0 or closed.instrument_id > book.instrument_count:
            return "a closed order names no instrument"
        if closed_find(book, closed.reservation_id) != NULL:
            return "two closed orders have one reservation"
        _index_closed(book, place)
    return NULL


cdef const char *_balances_fault(Book *book) noexcept nogil:
    """Index the balances, and chain those of each account anew: there is only one order."""
    cdef uint32_t place
    cdef const Balance *balance
    for place in range(book.account_count):
        book.accounts[place].first_balance = NOWHERE
    for place in range(book.balance_count):
        balance = &book.balances[place]
        if balance.account_index >= book.account_count:
            return "a balance names no account"
        if balance.asset_id == 0 or balance.asset_id > book.asset_count:
            return "a balance names no asset"
        if _balance_place(book, balance.account_index, balance.asset_id) != NOWHERE:
            return "two balances are one"
        _index_balance(book, place)
        _link_balance(book, place)
    return NULL


cdef const char *_collaterals_fault(Book *book) noexcept nogil:
    cdef uint32_t place
    cdef const Collateral *collateral
    for place in range(book.collateral_count):
        collateral = &book.collaterals[place]
        if collateral.asset_id == 0 or collateral.asset_id > book.asset_count:
            return "a collateral names no asset"
        if collateral.settlement_asset_id == 0 or (
            collateral.settlement_asset_id > book.asset_count
        ):
            return "a collateral names no settlement asset"
        if collateral.index_instrument_id == 0 or (
            collateral.index_instrument_id > book.instrument_count
        ):
            return "a collateral names no index"
        if collateral.tier_count == 0 or collateral.tier_count > COLLATERAL_TIERS_MAX:
            return "a collateral has an impossible number of tiers"
        if collateral.unit_numerator < 1 or collateral.unit_denominator < 1:
            return "a collateral has an impossible unit"
        if collateral_find(
            book, collateral.asset_id, collateral.settlement_asset_id
        ) != NULL:
            return "two collaterals are one"
        _index_collateral(book, place)
    return NULL


cdef const char *_risk_events_fault(Book *book) noexcept nogil:
    cdef uint32_t place
    if book.risk_event_start != 0 and (
        book.risk_event_count != book.risk_event_capacity
        or book.risk_event_start >= book.risk_event_count
    ):
        return "the ring of risk events does not begin in it"
    for place in range(book.risk_event_count):
        if book.risk_events[place].account_index >= book.account_count:
            return "a risk event names no account"
        if book.risk_events[place].instrument_id > book.instrument_count:
            return "a risk event names no instrument"
    return NULL


cdef const char *_definitions_fault(Book *book) noexcept nogil:
    cdef uint32_t place
    cdef const Schedule *schedule
    cdef const Instrument *instrument
    for place in range(book.asset_count):
        if book.assets[place].symbol[sizeof(book.assets[place].symbol) - 1] != 0:
            return "an asset's symbol has no end"
    for place in range(book.schedule_count):
        schedule = &book.schedules[place]
        if schedule.asset_id == 0 or schedule.asset_id > book.asset_count:
            return "a schedule names no asset"
        if schedule.ladder.count == 0 or schedule.ladder.count > TIERS_MAX:
            return "a schedule has an impossible number of tiers"
        if schedule.name[NAME_SIZE - 1] != 0:
            return "a schedule's name has no end"
    for place in range(book.instrument_count):
        instrument = &book.instruments[place]
        if instrument.asset_id == 0 or instrument.asset_id > book.asset_count:
            return "an instrument names no asset"
        if instrument.schedule_id > book.schedule_count:
            return "an instrument names no schedule"
        if instrument.underlying_id > book.instrument_count:
            return "an instrument names no underlying"
        if instrument.symbol[NAME_SIZE - 1] != 0:
            return "an instrument's symbol has no end"
    return NULL


cdef const char *_positions_fault(Book *book) noexcept nogil:
    """Index the accounts, and check that their chains hold all positions, each once."""
    cdef uint32_t place, link
    cdef uint32_t chained = 0
    cdef const Account *account
    cdef const Position *position
    cdef const Position *previous
    for place in range(book.account_count):
        account = &book.accounts[place]
        if account.asset_id == 0 or account.asset_id > book.asset_count:
            return "an account names no asset"
        if account_find(book, account.account_id) != NULL:
            return "two accounts have one id"
        _index_account(book, place)
        previous = NULL
        link = account.first_position
        while link != NOWHERE:
            if link >= book.position_top:
                return "a chain of positions leads astray"
            position = &book.positions[link]
            if not position.in_use or position.account_index != place:
                return "a chain holds a position that is not its account's"
            if position.instrument_id == 0 or position.instrument_id > book.instrument_count:
                return "a position names no instrument"
            if previous != NULL and not _comes_before(
                previous, position.instrument_id, position.position_side
            ):
                return "a chain of positions is out of order"
            previous = position
            chained += 1
            link = position.next_of_account
    if chained != book.position_count:
        return "a position is in no chain"
    return NULL


cdef const char *_levels_fault(Book *book) noexcept nogil:
    """Index firms, limits and sums; chain the limits anew, which have only one order."""
    cdef uint32_t place
    cdef const char *fault
    cdef Account *account
    for place in range(book.firm_count):
        if book.firms[place].asset_id == 0 or book.firms[place].asset_id > book.asset_count:
            return "a firm names no asset"
        if firm_find(book, book.firms[place].firm_id) != NULL:
            return "two firms have one id"
        _index_firm(book, place)
        book.firms[place].level.first_limit = NOWHERE
    for place in range(book.account_count):
        account = &book.accounts[place]
        if account.firm != NOWHERE and account.firm >= book.firm_count:
            return "an account names no firm"
        if account.parent != NOWHERE and account.parent >= book.account_count:
            return "an account names no parent"
        account.level.first_limit = NOWHERE
    book.gateway_limit_count = 0
    for place in range(book.limit_top):
        if book.limits[place].in_use:
            fault = _limit_fault(book, &book.limits[place])
            if fault != NULL:
                return fault
            _link_limit(book, place)
    return _holdings_fault(book)


cdef const char *_holdings_fault(Book *book) noexcept nogil:
    """Index the sums, and check that the chains of their levels hold all of them, each once."""
    cdef uint32_t place
    cdef uint32_t chained = 0
    cdef const char *fault = NULL
    for place in range(book.account_count):
        fault = _holding_chain_fault(book, place, &book.accounts[place].level, &chained)
        if fault != NULL:
            return fault
    for place in range(book.firm_count):
        fault = _holding_chain_fault(
            book, place | OWNER_IS_FIRM, &book.firms[place].level, &chained
        )
        if fault != NULL:
            return fault
    if chained != book.holding_count:
        return "sums are in no chain"
    return NULL


cdef const char *_holding_chain_fault(
    Book *book, uint32_t owner, const Level *level, uint32_t *chained
) noexcept nogil:
    cdef const LevelHolding *holding
    cdef uint32_t place = level.first_holding
    cdef uint32_t previous = NOWHERE
    while place != NOWHERE:
        if place >= book.holding_top or not book.holdings[place].in_use:
            return "a chain of sums leads astray"
        holding = &book.holdings[place]
        if holding.owner != owner or holding.previous_of_level != previous:
            return "a chain holds sums that are not its level's"
        if holding.sums.instrument_id == 0 or holding.sums.instrument_id > book.instrument_count:
            return "sums name no instrument"
        if holding_find(book, owner, holding.sums.instrument_id) != NULL:
            return "two sums are one"
        _index_holding(book, place)
        chained[0] += 1
        previous = place
        place = holding.next_of_level
    return NULL


cdef const char *_limit_fault(Book *book, const Limit *limit) noexcept nogil:
    cdef uint32_t first
    if limit.scope == LIMIT_SCOPE_ACCOUNT:
        if account_find(book, limit.scope_id) == NULL:
            return "a limit names no account"
    elif limit.scope == LIMIT_SCOPE_FIRM:
        if limit.scope_id > UINT32_MAX or firm_find(book, <uint32_t>limit.scope_id) == NULL:
            return "a limit names no firm"
    elif limit.scope != LIMIT_SCOPE_GATEWAY:
        return "a limit has no scope"
    if limit.kind == 0 or limit.kind > LIMIT_KINDS or limit.instrument_id > book.instrument_count:
        return "a limit names no kind or no instrument"
    first = limit_first(book, limit.scope, limit.scope_id, limit.instrument_id)
    if limit_of_kind(book, first, limit.kind) != NULL:
        return "two limits are one"
    return NULL


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
    account.position_mode = POSITION_MODE_ONE_WAY
    account.first_balance = NOWHERE
    account.parent = NOWHERE
    account.firm = NOWHERE
    account.level.first_limit = NOWHERE
    account.level.first_holding = NOWHERE
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

cdef inline uint32_t _position_tag(
    const Book *book, uint32_t owner, uint32_t instrument_id, uint32_t position_side
) noexcept nogil:
    return _hash(&book.position_index, owner, <uint64_t>position_side << 32 | instrument_id)


cdef Position *position_find(
    Book *book, const Account *account, uint32_t instrument_id, uint32_t position_side
) noexcept nogil:
    cdef uint32_t owner = account_place(book, account)
    cdef uint32_t tag = _position_tag(book, owner, instrument_id, position_side)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.position_index, tag, &at)
    while place != NOWHERE and (
        book.positions[place].account_index != owner
        or book.positions[place].instrument_id != instrument_id
        or book.positions[place].position_side != position_side
    ):
        place = _candidate(&book.position_index, tag, &at)
    return NULL if place == NOWHERE else &book.positions[place]


cdef bint takes_position_side(
    const Book *book, const Account *account, uint32_t instrument_id, uint32_t position_side
) noexcept nogil:
    """F-9: NET or none in one-way mode and of spot, LONG or SHORT in hedge mode.

    Also a side that is open in the other mode: a late fill can leave one, and it must be closed.
    """
    cdef const Position *position
    if is_spot(&book.instruments[instrument_id - 1]):
        return position_side <= POSITION_SIDE_NET
    if account.position_mode == POSITION_MODE_HEDGE:
        if position_side == POSITION_SIDE_LONG or position_side == POSITION_SIDE_SHORT:
            return True
    elif position_side <= POSITION_SIDE_NET:
        return True
    position = position_find(
        <Book *>book, account, instrument_id, max(position_side, <uint32_t>POSITION_SIDE_NET)
    )
    return position != NULL and position.lots != 0


cdef const Position *settings_of(
    const Book *book,
    const Account *account,
    const Position *position,
    uint32_t instrument_id,
    uint32_t position_side,
) noexcept nogil:
    """Return the position that has the settings of a position (which may be NULL): that of NET."""
    if position_side == POSITION_SIDE_NET:
        return position
    return position_find(<Book *>book, account, instrument_id, POSITION_SIDE_NET)


cdef inline bint _comes_before(
    const Position *position, uint32_t instrument_id, uint32_t position_side
) noexcept nogil:
    if position.instrument_id != instrument_id:
        return position.instrument_id < instrument_id
    return position.position_side < position_side


cdef Position *position_add(
    Book *book, Account *account, uint32_t instrument_id, uint32_t position_side
) noexcept nogil:
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
    position.position_side = <uint8_t>position_side
    position.in_use = 1
    while link[0] != NOWHERE and _comes_before(
        &book.positions[link[0]], instrument_id, position_side
    ):
        link = &book.positions[link[0]].next_of_account
    position.next_of_account = link[0]
    link[0] = place
    _index_position(book, place)
    book.position_count += 1
    return position


cdef inline void _index_position(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.position_index
    cdef const Position *position = &book.positions[place]
    _index_add(
        index,
        _position_tag(
            book, position.account_index, position.instrument_id, position.position_side
        ),
        place,
    )


cdef void position_drop_if_absent(Book *book, Position *position) noexcept nogil:
    """Free a position that says nothing any more: flat, no orders, no settings of its own."""
    cdef uint32_t place = <uint32_t>(position - book.positions)
    cdef uint32_t *link
    if position.lots != 0 or position.working_orders != 0:
        return
    if position.margin_mode != 0 or position.leverage != 0 or position.margin_level != 0:
        return
    debug_assert(position.wallet == 0 and position.entry_value == 0)
    debug_assert(position.buy.value == 0 and position.sell.value == 0)
    link = &book.accounts[position.account_index].first_position
    while link[0] != place:
        link = &book.positions[link[0]].next_of_account
    link[0] = position.next_of_account
    _index_drop(
        &book.position_index,
        _position_tag(
            book, position.account_index, position.instrument_id, position.position_side
        ),
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
    clear(order, sizeof(Order))
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
    if order.expiry_place != 0:
        expiry_drop(book, order)
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


# --- orders that expire ----------------------------------------------------------------------
#
# A binary heap of the places of working orders, by rising (expire time, reservation).

cdef inline bint _expires_before(const Order *order, const Order *other) noexcept nogil:
    if order.expire_ns != other.expire_ns:
        return order.expire_ns < other.expire_ns
    return order.reservation_id < other.reservation_id


cdef inline void _expiry_put(Book *book, uint32_t at, uint32_t place) noexcept nogil:
    book.expiries[at] = place
    book.orders[place].expiry_place = at + 1


cdef void _expiry_settle(Book *book, uint32_t at) noexcept nogil:
    """Move an entry up or down to where it belongs."""
    cdef uint32_t place = book.expiries[at]
    cdef const Order *order = &book.orders[place]
    cdef uint32_t next
    while at > 0:
        next = (at - 1) / 2
        if not _expires_before(order, &book.orders[book.expiries[next]]):
            break
        _expiry_put(book, at, book.expiries[next])
        at = next
    while 2 * <uint64_t>at + 1 < book.expiry_count:
        next = 2 * at + 1
        if next + 1 < book.expiry_count and _expires_before(
            &book.orders[book.expiries[next + 1]], &book.orders[book.expiries[next]]
        ):
            next += 1
        if not _expires_before(&book.orders[book.expiries[next]], order):
            break
        _expiry_put(book, at, book.expiries[next])
        at = next
    _expiry_put(book, at, place)


cdef void expiry_add(Book *book, Order *order) noexcept nogil:
    """Enter a working order that is not there: there is room for all of them."""
    cdef uint32_t at = book.expiry_count
    debug_assert(order.expiry_place == 0)
    book.expiry_count += 1
    _expiry_put(book, at, <uint32_t>(order - book.orders))
    _expiry_settle(book, at)


cdef void expiry_drop(Book *book, Order *order) noexcept nogil:
    cdef uint32_t at = order.expiry_place - 1
    debug_assert(order.expiry_place != 0)
    book.expiry_count -= 1
    order.expiry_place = 0
    if at != book.expiry_count:
        _expiry_put(book, at, book.expiries[book.expiry_count])
        _expiry_settle(book, at)


cdef Order *expiry_first(Book *book) noexcept nogil:
    """Return the next order to expire, or NULL."""
    return NULL if book.expiry_count == 0 else &book.orders[book.expiries[0]]


# --- closed orders ---------------------------------------------------------------------------

cdef void closed_prefetch(const Book *book, uint64_t reservation_id) noexcept nogil:
    """Ask for what closing an order will touch."""
    cdef const Index *index = &book.closed_index
    cdef uint32_t tag = _hash(index, 0, reservation_id)
    prefetch(&index.entries[tag & index.mask])
    if book.closed_count == book.closed_capacity:
        tag = _hash(index, 0, book.closed[book.closed_start].reservation_id)
        prefetch(&index.entries[tag & index.mask])


cdef ClosedOrder *closed_find(const Book *book, uint64_t reservation_id) noexcept nogil:
    cdef uint32_t tag = _hash(&book.closed_index, 0, reservation_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.closed_index, tag, &at)
    while place != NOWHERE and book.closed[place].reservation_id != reservation_id:
        place = _candidate(&book.closed_index, tag, &at)
    return NULL if place == NOWHERE else &book.closed[place]


cdef void closed_add(Book *book, const Order *order) noexcept nogil:
    """Keep what late executions of an order need; the oldest is forgotten for it."""
    cdef const Position *position = &book.positions[order.position_index]
    cdef uint32_t place = book.closed_start
    cdef ClosedOrder *closed
    if book.closed_count < book.closed_capacity:
        place = (place + book.closed_count) % book.closed_capacity
        book.closed_count += 1
    else:
        _index_drop(
            &book.closed_index,
            _hash(&book.closed_index, 0, book.closed[place].reservation_id),
            place,
        )
        book.closed_start = (place + 1) % book.closed_capacity
    closed = &book.closed[place]
    closed.reservation_id = order.reservation_id
    closed.client_order_id = order.client_order_id
    closed.price_ticks = order.price_ticks
    closed.quantity_lots = order.quantity_lots
    closed.unfilled_lots = order.remaining_lots
    closed.account_index = position.account_index
    closed.instrument_id = position.instrument_id
    closed.gateway_id = order.gateway_id
    closed.position_side = position.position_side
    closed.side = order.side
    closed.order_type = order.order_type
    closed.reserved = 0
    _index_closed(book, place)


cdef inline void _index_closed(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.closed_index
    _index_add(index, _hash(index, 0, book.closed[place].reservation_id), place)


# --- gateways --------------------------------------------------------------------------------

cdef uint32_t _gateway_place(const Book *book, uint32_t gateway_id) noexcept nogil:
    cdef uint32_t tag = _hash(&book.gateway_index, 0, gateway_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.gateway_index, tag, &at)
    while place != NOWHERE and book.gateways[place].gateway_id != gateway_id:
        place = _candidate(&book.gateway_index, tag, &at)
    return place


cdef const Gateway *gateway_find(const Book *book, uint32_t gateway_id) noexcept nogil:
    """Return what is known of a gateway; NULL when it is NORMAL and has no lease."""
    cdef uint32_t place = _gateway_place(book, gateway_id)
    return NULL if place == NOWHERE else &book.gateways[place]


cdef uint32_t gateway_take(Book *book, uint32_t gateway_id) noexcept nogil:
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
    place = gateway_take(book, gateway_id)
    if place == NOWHERE:
        return False
    book.gateways[place].trading_state = trading_state
    return True


cdef bint lease_set(
    Book *book, uint32_t gateway_id, uint64_t end_ns, uint32_t action
) noexcept nogil:
    """Give a gateway a lease, or take it (end 0). Return False when the table is full."""
    cdef Gateway *gateway
    cdef uint32_t place = _gateway_place(book, gateway_id)
    if place == NOWHERE and end_ns == 0:
        return True
    place = gateway_take(book, gateway_id)
    if place == NOWHERE:
        return False
    gateway = &book.gateways[place]
    gateway.lease_end_ns = end_ns
    gateway.lease_action = action if end_ns != 0 else 0
    gateway.lease_swept = 0
    return True


# --- balances --------------------------------------------------------------------------------

cdef uint32_t _balance_place(
    const Book *book, uint32_t owner, uint32_t asset_id
) noexcept nogil:
    cdef uint32_t tag = _hash(&book.balance_index, owner, asset_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.balance_index, tag, &at)
    while place != NOWHERE and (
        book.balances[place].account_index != owner or book.balances[place].asset_id != asset_id
    ):
        place = _candidate(&book.balance_index, tag, &at)
    return place


cdef i128 base_held(
    const Book *book, const Account *account, uint32_t asset_id, const Position *left_out
) noexcept nogil:
    """Return what the working sells of spot need of an asset, but for one position's (or NULL)."""
    cdef const Position *position
    cdef const Instrument *instrument
    cdef uint32_t place = account.first_position
    cdef i128 held = 0
    while place != NOWHERE:
        position = &book.positions[place]
        place = position.next_of_account
        instrument = &book.instruments[position.instrument_id - 1]
        if position != left_out and instrument.base_asset_id == asset_id:
            held += <i128>position.sell.lots * instrument.base_value
    return held


cdef int64_t balance_of(
    const Book *book, const Account *account, uint32_t asset_id
) noexcept nogil:
    cdef uint32_t place = _balance_place(book, account_place(book, account), asset_id)
    return 0 if place == NOWHERE else book.balances[place].amount


cdef bint balance_has_room(
    const Book *book, const Account *account, uint32_t asset_id
) noexcept nogil:
    return book.balance_count < book.balance_capacity or (
        _balance_place(book, account_place(book, account), asset_id) != NOWHERE
    )


cdef uint32_t money_rows_missing(
    const Book *book, const Account *account, uint32_t asset_id
) noexcept nogil:
    """Return how many rows of balances money in an asset needs that are not there: 0 or 1."""
    if asset_id == account.asset_id:
        return 0
    return _balance_place(book, account_place(book, account), asset_id) == NOWHERE


cdef void balance_set(
    Book *book, const Account *account, uint32_t asset_id, int64_t amount
) noexcept nogil:
    """Set a balance; the caller has made sure of the room. A balance of 0 takes none."""
    cdef Index *index = &book.balance_index
    cdef uint32_t owner = account_place(book, account)
    cdef uint32_t place = _balance_place(book, owner, asset_id)
    cdef uint32_t last
    cdef const Balance *moved
    if place == NOWHERE:
        if amount == 0:
            return
        place = book.balance_count
        debug_assert(place < book.balance_capacity)
        book.balance_count += 1
        book.balances[place].account_index = owner
        book.balances[place].asset_id = asset_id
        _index_balance(book, place)
        _link_balance(book, place)
    book.balances[place].amount = amount
    if amount != 0:
        return
    # The last one moves into its place.
    _index_drop(index, _hash(index, owner, asset_id), place)
    _link_to_balance(book, place)[0] = book.balances[place].next_of_account
    book.balance_count -= 1
    last = book.balance_count
    if place != last:
        moved = &book.balances[last]
        _index_drop(index, _hash(index, moved.account_index, moved.asset_id), last)
        _link_to_balance(book, last)[0] = place
        book.balances[place] = moved[0]
        _index_balance(book, place)


cdef inline void _index_balance(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.balance_index
    cdef const Balance *balance = &book.balances[place]
    _index_add(index, _hash(index, balance.account_index, balance.asset_id), place)


cdef void _link_balance(Book *book, uint32_t place) noexcept nogil:
    """Put a balance into the chain of its account, by rising asset."""
    cdef Balance *balance = &book.balances[place]
    cdef uint32_t *link = &book.accounts[balance.account_index].first_balance
    while link[0] != NOWHERE and book.balances[link[0]].asset_id < balance.asset_id:
        link = &book.balances[link[0]].next_of_account
    balance.next_of_account = link[0]
    link[0] = place


cdef uint32_t *_link_to_balance(Book *book, uint32_t place) noexcept nogil:
    cdef uint32_t *link = &book.accounts[book.balances[place].account_index].first_balance
    while link[0] != place:
        link = &book.balances[link[0]].next_of_account
    return link


# --- collateral of other assets --------------------------------------------------------------

cdef Collateral *collateral_find(
    const Book *book, uint32_t asset_id, uint32_t settlement_asset_id
) noexcept nogil:
    cdef uint32_t tag = _hash(&book.collateral_index, asset_id, settlement_asset_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.collateral_index, tag, &at)
    while place != NOWHERE and (
        book.collaterals[place].asset_id != asset_id
        or book.collaterals[place].settlement_asset_id != settlement_asset_id
    ):
        place = _candidate(&book.collateral_index, tag, &at)
    return NULL if place == NOWHERE else &book.collaterals[place]


cdef Collateral *collateral_add(
    Book *book, uint32_t asset_id, uint32_t settlement_asset_id
) noexcept nogil:
    """Return a new definition, or NULL when the table is full."""
    cdef Collateral *collateral
    if book.collateral_count == book.collateral_capacity:
        return NULL
    collateral = &book.collaterals[book.collateral_count]
    collateral.asset_id = asset_id
    collateral.settlement_asset_id = settlement_asset_id
    _index_collateral(book, book.collateral_count)
    book.collateral_count += 1
    return collateral


cdef void collaterals_index(Book *book) noexcept nogil:
    cdef uint32_t place
    for place in range(book.collateral_count):
        _index_collateral(book, place)


cdef inline void _index_collateral(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.collateral_index
    cdef const Collateral *collateral = &book.collaterals[place]
    _index_add(
        index, _hash(index, collateral.asset_id, collateral.settlement_asset_id), place
    )


# --- risk events -----------------------------------------------------------------------------

cdef RiskEvent *risk_event_add(Book *book) noexcept nogil:
    """Return room for the newest event; the oldest gives its own when there is none left."""
    cdef uint32_t place = book.risk_event_count
    if place == book.risk_event_capacity:
        place = book.risk_event_start
        book.risk_event_start = (place + 1) % book.risk_event_capacity
    else:
        book.risk_event_count += 1
    memset(&book.risk_events[place], 0, sizeof(RiskEvent))
    return &book.risk_events[place]


cdef const RiskEvent *risk_event_at(const Book *book, uint32_t index) noexcept nogil:
    """Return an event by its age, 0 for the oldest."""
    return &book.risk_events[
        (<uint64_t>book.risk_event_start + index) % book.risk_event_capacity
    ]


# --- firms, limits, sums of levels -----------------------------------------------------------

cdef Firm *firm_find(const Book *book, uint32_t firm_id) noexcept nogil:
    cdef uint32_t tag = _hash(&book.firm_index, 0, firm_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.firm_index, tag, &at)
    while place != NOWHERE and book.firms[place].firm_id != firm_id:
        place = _candidate(&book.firm_index, tag, &at)
    return NULL if place == NOWHERE else &book.firms[place]


cdef Firm *firm_add(Book *book, uint32_t firm_id) noexcept nogil:
    """Return a new firm, or NULL when the table is full."""
    cdef Firm *firm
    if book.firm_count == book.firm_capacity:
        return NULL
    firm = &book.firms[book.firm_count]
    firm.firm_id = firm_id
    firm.trading_state = TRADING_STATE_NORMAL
    firm.level.first_limit = NOWHERE
    firm.level.first_holding = NOWHERE
    _index_firm(book, book.firm_count)
    book.firm_count += 1
    return firm


cdef inline void _index_firm(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.firm_index
    _index_add(index, _hash(index, 0, book.firms[place].firm_id), place)


cdef inline Level *_level_of_owner(Book *book, uint32_t owner) noexcept nogil:
    if owner & OWNER_IS_FIRM:
        return &book.firms[owner & ~<uint32_t>OWNER_IS_FIRM].level
    return &book.accounts[owner].level


cdef Level *_level_of_scope(Book *book, const Limit *limit) noexcept nogil:
    """Return the level that has a limit; NULL of a gateway."""
    if limit.scope == LIMIT_SCOPE_ACCOUNT:
        return &account_find(book, limit.scope_id).level
    if limit.scope == LIMIT_SCOPE_FIRM:
        return &firm_find(book, <uint32_t>limit.scope_id).level
    return NULL


cdef LevelHolding *holding_find(
    const Book *book, uint32_t owner, uint32_t instrument_id
) noexcept nogil:
    cdef uint32_t tag = _hash(&book.holding_index, owner, instrument_id)
    cdef uint64_t at = tag
    cdef uint32_t place = _candidate(&book.holding_index, tag, &at)
    while place != NOWHERE and (
        book.holdings[place].owner != owner
        or book.holdings[place].sums.instrument_id != instrument_id
    ):
        place = _candidate(&book.holding_index, tag, &at)
    return NULL if place == NOWHERE else &book.holdings[place]


cdef LevelHolding *holding_add(Book *book, uint32_t owner, uint32_t instrument_id) noexcept nogil:
    """Return new sums of nothing; the caller has made sure that there is room."""
    cdef LevelHolding *holding
    cdef uint32_t place = book.holding_free
    debug_assert(book.holding_count < book.holding_capacity)
    if place != NOWHERE:
        book.holding_free = book.holdings[place].next_of_level
    else:
        place = book.holding_top
        book.holding_top += 1
    holding = &book.holdings[place]
    memset(holding, 0, sizeof(LevelHolding))
    holding.owner = owner
    holding.sums.instrument_id = instrument_id
    holding.in_use = 1
    book.holding_count += 1
    _link_holding(book, place)
    return holding


cdef void _link_holding(Book *book, uint32_t place) noexcept nogil:
    """Put sums into the chain of their level and into the index."""
    cdef LevelHolding *holding = &book.holdings[place]
    cdef Level *level = _level_of_owner(book, holding.owner)
    holding.previous_of_level = NOWHERE
    holding.next_of_level = level.first_holding
    if level.first_holding != NOWHERE:
        book.holdings[level.first_holding].previous_of_level = place
    level.first_holding = place
    _index_holding(book, place)


cdef inline void _index_holding(Book *book, uint32_t place) noexcept nogil:
    cdef Index *index = &book.holding_index
    cdef const LevelHolding *holding = &book.holdings[place]
    _index_add(index, _hash(index, holding.owner, holding.sums.instrument_id), place)


cdef void holding_drop(Book *book, LevelHolding *holding) noexcept nogil:
    cdef uint32_t place = <uint32_t>(holding - book.holdings)
    debug_assert(holding.in_use)
    if holding.previous_of_level == NOWHERE:
        _level_of_owner(book, holding.owner).first_holding = holding.next_of_level
    else:
        book.holdings[holding.previous_of_level].next_of_level = holding.next_of_level
    if holding.next_of_level != NOWHERE:
        book.holdings[holding.next_of_level].previous_of_level = holding.previous_of_level
    _index_drop(
        &book.holding_index,
        _hash(&book.holding_index, holding.owner, holding.sums.instrument_id),
        place,
    )
    holding.in_use = 0
    holding.next_of_level = book.holding_free
    book.holding_free = place
    book.holding_count -= 1


cdef inline uint32_t _limit_tag(
    const Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id
) noexcept nogil:
    return _hash(&book.limit_index, <uint64_t>scope << 32 | instrument_id, scope_id)


cdef uint32_t limit_first(
    const Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id
) noexcept nogil:
    """Return the first of the limits of a scope and an instrument, by rising kind; or NOWHERE."""
    cdef uint32_t tag = _limit_tag(book, scope, scope_id, instrument_id)
    cdef uint64_t at = tag
    cdef uint32_t place
    cdef const Limit *limit
    while True:
        place = _candidate(&book.limit_index, tag, &at)
        if place == NOWHERE:
            return NOWHERE
        limit = &book.limits[place]
        if (
            limit.scope == scope
            and limit.scope_id == scope_id
            and limit.instrument_id == instrument_id
        ):
            return place


cdef Limit *limit_of_kind(const Book *book, uint32_t place, uint32_t kind) noexcept nogil:
    """Return the limit of a kind in a chain, or NULL."""
    while place != NOWHERE and book.limits[place].kind < kind:
        place = book.limits[place].next
    if place == NOWHERE or book.limits[place].kind != kind:
        return NULL
    return &book.limits[place]


cdef Limit *limit_add(
    Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id, uint32_t kind
) noexcept nogil:
    """Return a new limit of a scope that exists, or NULL when the table is full."""
    cdef Limit *limit
    cdef uint32_t place = book.limit_free
    if place != NOWHERE:
        book.limit_free = book.limits[place].next
    elif book.limit_top < book.limit_capacity:
        place = book.limit_top
        book.limit_top += 1
    else:
        return NULL
    limit = &book.limits[place]
    memset(limit, 0, sizeof(Limit))
    limit.scope = <uint8_t>scope
    limit.scope_id = scope_id
    limit.instrument_id = instrument_id
    limit.kind = <uint8_t>kind
    limit.in_use = 1
    book.limit_count += 1
    _link_limit(book, place)
    return limit


cdef void _link_limit(Book *book, uint32_t place) noexcept nogil:
    """Put a limit into its chain; the index knows where a chain begins."""
    cdef Limit *limit = &book.limits[place]
    cdef uint32_t tag = _limit_tag(book, limit.scope, limit.scope_id, limit.instrument_id)
    cdef uint32_t first = limit_first(book, limit.scope, limit.scope_id, limit.instrument_id)
    cdef uint32_t before = first
    if first == NOWHERE or book.limits[first].kind > limit.kind:
        if first != NOWHERE:
            _index_drop(&book.limit_index, tag, first)
        limit.next = first
        _index_add(&book.limit_index, tag, place)
        _begin_chain(book, limit, place)
    else:
        while book.limits[before].next != NOWHERE and (
            book.limits[book.limits[before].next].kind < limit.kind
        ):
            before = book.limits[before].next
        limit.next = book.limits[before].next
        book.limits[before].next = place
    if limit.scope == LIMIT_SCOPE_GATEWAY:
        book.gateway_limit_count += 1


cdef void _begin_chain(Book *book, const Limit *limit, uint32_t first) noexcept nogil:
    """A level knows where its limits of all instruments begin."""
    cdef Level *level = _level_of_scope(book, limit)
    if level != NULL and limit.instrument_id == 0:
        level.first_limit = first


cdef void limit_drop(Book *book, Limit *limit) noexcept nogil:
    cdef uint32_t place = <uint32_t>(limit - book.limits)
    cdef uint32_t tag = _limit_tag(book, limit.scope, limit.scope_id, limit.instrument_id)
    cdef uint32_t before = limit_first(book, limit.scope, limit.scope_id, limit.instrument_id)
    debug_assert(limit.in_use)
    if before == place:
        _index_drop(&book.limit_index, tag, place)
        if limit.next != NOWHERE:
            _index_add(&book.limit_index, tag, limit.next)
        _begin_chain(book, limit, limit.next)
    else:
        while book.limits[before].next != place:
            before = book.limits[before].next
        book.limits[before].next = limit.next
    if limit.scope == LIMIT_SCOPE_GATEWAY:
        book.gateway_limit_count -= 1
    limit.in_use = 0
    limit.next = book.limit_free
    book.limit_free = place
    book.limit_count -= 1


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
    cdef uint32_t place = gateway_take(book, gateway_id)
    return NULL if place == NOWHERE else _ring_at(book, kind, place)


cdef const Ring *ring_find(const Book *book, uint32_t kind, uint32_t gateway_id) noexcept nogil:
    """Return a gateway's ring, or NULL if nothing of the gateway is known."""
    cdef uint32_t place = _gateway_place(book, gateway_id)
    return NULL if place == NOWHERE else _ring_at(book, kind, place)


cdef inline uint64_t _in_ring(const Ring *ring, uint64_t offset) noexcept nogil:
    """Return where an offset is that may be beyond the end, by a little more than a round."""
    while offset >= ring.capacity:
        offset -= ring.capacity
    return offset


cdef inline void _copy_out(
    const Ring *ring, uint64_t offset, uint8_t *target, uint64_t size
) noexcept nogil:
    cdef uint64_t first
    offset = _in_ring(ring, offset)
    first = ring.capacity - offset
    if size <= first:
        # By itself, so that a size that is known costs no loop.
        memcpy(target, ring.bytes + offset, size)
        return
    memcpy(target, ring.bytes + offset, first)
    memcpy(target + first, ring.bytes, size - first)


cdef void answer_copy(
    const Ring *ring, uint64_t offset, uint8_t *target, uint64_t size
) noexcept nogil:
    """Copy bytes out of the ring."""
    _copy_out(ring, offset, target, size)


cdef inline void _copy_in(
    Ring *ring, uint64_t offset, const uint8_t *source, uint64_t size
) noexcept nogil:
    cdef uint64_t first
    offset = _in_ring(ring, offset)
    first = ring.capacity - offset
    if size <= first:
        memcpy(ring.bytes + offset, source, size)
        return
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
        _copy_out(ring, offset, <uint8_t *>key, sizeof(key))
        if key[0] == id and key[1] >> 32 == kind:
            _copy_out(ring, offset, <uint8_t *>head, sizeof(AnswerHead))
            reply_offset[0] = offset + sizeof(AnswerHead)
            return True


cdef void _forget_oldest(Ring *ring) noexcept nogil:
    cdef AnswerHead oldest
    cdef uint64_t size
    _copy_out(ring, ring.start, <uint8_t *>&oldest, sizeof(AnswerHead))
    _index_drop(
        &ring.index, _hash(&ring.index, oldest.kind, oldest.id), <uint32_t>(ring.start / 16)
    )
    size = answer_size(oldest.reply_size)
    ring.start = _in_ring(ring, ring.start + size)
    ring.used -= size


cdef void answer_add(Ring *ring, const AnswerHead *head, const uint8_t *reply) noexcept nogil:
    """Remember an answer; the oldest are forgotten as far as the room is needed."""
    cdef uint64_t size = answer_size(head.reply_size)
    cdef uint64_t offset
    size_is(head[0], 128)
    debug_assert(size <= ring.capacity)
    while ring.used + size > ring.capacity:
        _forget_oldest(ring)
    offset = _in_ring(ring, ring.start + ring.used)
    _copy_in(ring, offset, <const uint8_t *>head, sizeof(AnswerHead))
    _copy_in(ring, offset + sizeof(AnswerHead), reply, head.reply_size)
    _index_add(&ring.index, _hash(&ring.index, head.kind, head.id), <uint32_t>(offset / 16))
    ring.used += size


cdef void answer_undo(Ring *ring, uint64_t reply_offset, AnswerHead *head) noexcept nogil:
    """Note that a remembered execution, as `answer_find` returned it, was undone."""
    debug_assert(head.fact == ANSWER_FACT_APPLIED)
    head.fact = ANSWER_FACT_UNDONE
    _copy_in(
        ring, reply_offset - sizeof(AnswerHead), <const uint8_t *>head, sizeof(AnswerHead)
    )


cdef void order_expect(
    const Book *book, const OrderRequest *order, uint32_t distance
) noexcept nogil:
    """Ask for the lines that an order will touch, while those before it are being decided.

    Each step needs what the one before it asked for: entries of indexes at a distance of
    EXPECT_ENTRIES orders, the account at EXPECT_ACCOUNT, its positions at EXPECT_POSITIONS. A guess
    that turns out wrong (another order changes what this one will touch) costs only time.
    """
    cdef const Index *accounts = &book.account_index
    cdef const Ring *ring
    cdef uint32_t tag = _hash(accounts, 0, order.account_id)
    cdef uint64_t at = tag
    cdef uint32_t place
    if distance == EXPECT_ENTRIES:
        prefetch(&accounts.entries[tag & accounts.mask])
        tag = _hash(&book.client_order_index, order.gateway_id, order.client_order_id)
        prefetch(&book.client_order_index.entries[tag & book.client_order_index.mask])
        tag = _hash(&book.order_index, 0, book.revision + EXPECT_ENTRIES + 1)
        prefetch(&book.order_index.entries[tag & book.order_index.mask])
        ring = ring_find(book, ANSWER_ORDER, order.gateway_id)
        if ring != NULL:
            tag = _hash(&ring.index, ANSWER_ORDER, order.client_order_id)
            prefetch(&ring.index.entries[tag & ring.index.mask])
        return
    place = _candidate(accounts, tag, &at)
    if place == NOWHERE:
        return
    if distance == EXPECT_ACCOUNT:
        prefetch(&book.accounts[place])
        prefetch(&book.accounts[place].level)
        prefetch(&book.sums[place])
        tag = _position_tag(
            book, place, order.instrument_id, max(order.position_side, <uint32_t>1)
        )
        prefetch(&book.position_index.entries[tag & book.position_index.mask])
        return
    tag = _position_tag(book, place, order.instrument_id, max(order.position_side, <uint32_t>1))
    at = tag
    place = _candidate(&book.position_index, tag, &at)
    if place != NOWHERE:
        prefetch(&book.positions[place])
        prefetch(<const char *>&book.positions[place] + 64)


cdef void book_prefetch(
    const Book *book, const Ring *ring, uint32_t kind, uint32_t gateway_id, uint64_t id
) noexcept nogil:
    """Ask for the lines that remembering an answer will touch, while the decision is being made.

    They are spread over more memory than any cache: the answer's place in the index, the end of the
    ring, the oldest answer and its place in the index, and the next reservation's.
    """
    cdef const AnswerHead *oldest
    cdef uint64_t end = _in_ring(ring, ring.start + ring.used)
    cdef uint32_t tag = _hash(&ring.index, kind, id)
    prefetch(&ring.index.entries[tag & ring.index.mask])
    tag = _hash(&book.order_index, 0, book.revision + 1)
    prefetch(&book.order_index.entries[tag & book.order_index.mask])
    tag = _hash(&book.client_order_index, gateway_id, id)
    prefetch(&book.client_order_index.entries[tag & book.client_order_index.mask])
    prefetch(ring.bytes + end)
    prefetch(ring.bytes + _in_ring(ring, end + 64))
    prefetch(ring.bytes + _in_ring(ring, ring.start + 1024))
    if ring.used + 1024 > ring.capacity and ring.start + sizeof(AnswerHead) <= ring.capacity:
        oldest = <const AnswerHead *>(ring.bytes + ring.start)
        tag = _hash(&ring.index, oldest.kind, oldest.id)
        prefetch(&ring.index.entries[tag & ring.index.mask])
