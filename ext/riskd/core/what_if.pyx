"""A book of one account, to ask what would be: a copy that shares nothing with its source.

Definitions and marks lie in flat tables and keep their places, which are their ids: they are copied
as they are. Of the account the sums of its working orders are copied and not the orders, which no
figure needs. What is asked is then decided by the code that decides for the source.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from riskd.core.book cimport (
    TABLE_ACCOUNTS,
    TABLE_ASSETS,
    TABLE_BALANCES,
    TABLE_COLLATERALS,
    TABLE_INSTRUMENTS,
    TABLE_POSITIONS,
    TABLE_SCHEDULES,
    TABLES,
    Book,
    Scalars,
    Table,
    account_add,
    balance_of,
    balance_set,
    book_scalars,
    book_set_scalars,
    book_tables,
    collaterals_index,
    position_add,
    position_drop_if_absent,
    position_find,
)
from riskd.core.credit cimport credit_of
from riskd.core.money cimport debug_assert
from riskd.core.types cimport NOWHERE, POSITION_SIDE_NET, Account, Position


cdef inline bint _is_definition(uint32_t table) noexcept nogil:
    """Whether a table is copied whole."""
    return (
        table == TABLE_ASSETS
        or table == TABLE_SCHEDULES
        or table == TABLE_INSTRUMENTS
        or table == TABLE_COLLATERALS
    )


cdef void what_if_room(
    const Book *source, const Account *account, Capacities *room
) noexcept nogil:
    cdef Table tables[TABLES]
    cdef uint32_t id
    cdef uint32_t place = NOWHERE if account == NULL else account.first_position
    book_tables(<Book *>source, tables)
    for id in range(<uint32_t>TABLES):
        room.entries[id] = tables[id].count[0] if _is_definition(id) else 1
    room.entries[TABLE_ACCOUNTS] = 1
    room.entries[TABLE_BALANCES] = source.asset_count
    while place != NOWHERE:
        room.entries[TABLE_POSITIONS] += 1
        place = source.positions[place].next_of_account


cdef bint what_if_copy(Book *source, const Account *account, Book *target) noexcept nogil:
    cdef Table from_tables[TABLES]
    cdef Table to_tables[TABLES]
    cdef Scalars scalars
    cdef uint64_t answer_bytes = target.answer_capacity
    cdef uint32_t id
    book_tables(source, from_tables)
    book_tables(target, to_tables)
    for id in range(<uint32_t>TABLES):
        if not _is_definition(id):
            continue
        debug_assert(from_tables[id].entry_size == to_tables[id].entry_size)
        if from_tables[id].count[0] > to_tables[id].capacity[0]:
            return False
        memcpy(
            to_tables[id].entries[0],
            from_tables[id].entries[0],
            <size_t>from_tables[id].count[0] * from_tables[id].entry_size,
        )
        to_tables[id].count[0] = from_tables[id].count[0]
    collaterals_index(target)
    book_scalars(source, &scalars)
    scalars.answer_bytes = answer_bytes
    book_set_scalars(target, &scalars)
    target.revision = source.revision
    return account == NULL or _copy_account(source, account, target)


cdef bint _copy_account(
    const Book *source, const Account *account, Book *target
) noexcept nogil:
    """Copy an account with its balances and positions into a book that has none."""
    cdef Account *copy = account_add(target, account.account_id)
    cdef Account fresh = copy[0]
    cdef const Position *held
    cdef Position *position
    cdef Position linked
    cdef uint32_t place = account.first_position
    cdef uint32_t asset_id
    copy[0] = account[0]
    copy.first_position = NOWHERE
    copy.first_balance = NOWHERE
    # What its firm leaves of it: the copy has no firm.
    copy.credit_line = <int64_t>credit_of(source, account)
    copy.parent = NOWHERE
    copy.firm = NOWHERE
    copy.sub_accounts = 0
    copy.limit_count = 0
    copy.level = fresh.level
    for asset_id in range(1, source.asset_count + 1):
        balance_set(target, copy, asset_id, balance_of(source, account, asset_id))
    while place != NOWHERE:
        held = &source.positions[place]
        place = held.next_of_account
        position = position_add(target, copy, held.instrument_id, held.position_side)
        if position == NULL:
            return False
        linked = position[0]
        position[0] = held[0]
        position.account_index = linked.account_index
        position.next_of_account = linked.next_of_account
    return True


cdef bint what_if_put(Book *book, Account *account, const PositionChange *change) noexcept nogil:
    cdef Position *position
    cdef Position *settings
    if change.margin_mode != 0 or change.leverage != 0:
        settings = _taken(book, account, change.instrument_id, POSITION_SIDE_NET)
        if settings == NULL:
            return False
        if change.margin_mode != 0:
            settings.margin_mode = <uint8_t>change.margin_mode
        if change.leverage != 0:
            settings.leverage = change.leverage
    position = _taken(book, account, change.instrument_id, change.position_side)
    if position == NULL:
        return False
    position.lots = change.lots
    position.entry_value = change.entry_value
    position.wallet = change.wallet
    position_drop_if_absent(book, position)
    return True


cdef Position *_taken(
    Book *book, Account *account, uint32_t instrument_id, uint32_t position_side
) noexcept nogil:
    """Return a position, a new one if there is none, or NULL when the table is full."""
    cdef Position *position = position_find(book, account, instrument_id, position_side)
    if position == NULL:
        position = position_add(book, account, instrument_id, position_side)
    return position
