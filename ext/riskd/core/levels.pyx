"""Firms, owners, and the sums of a level: of an account with its sub-accounts, or of a firm.

A firm, and an account that has sub-accounts, keeps sums over all its accounts and one row of sums
for each instrument in which one of them holds or works something. They move with every change of a
position, so that no check goes through other accounts. An account without sub-accounts keeps none:
its positions are its sums.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.book cimport Book, account_place, holding_add, holding_drop, holding_find
from riskd.core.money cimport clamp, debug_assert, i128, magnitude
from riskd.core.types cimport (
    NOWHERE,
    OWNER_IS_FIRM,
    Account,
    Level,
    LevelHolding,
    LevelSums,
    Position,
    Usage,
)


# --- sums ------------------------------------------------------------------------------------

cdef uint32_t owners_of(const Book *book, const Account *account, Owner *owners) noexcept nogil:
    """Write the levels that keep sums in which the account counts; return how many."""
    cdef uint32_t count = 0
    cdef uint32_t place = account_place(book, account) if account.sub_accounts else account.parent
    if place != NOWHERE:
        owners[count].level = &book.accounts[place].level
        owners[count].key = place
        count += 1
    if account.firm != NOWHERE:
        owners[count].level = &book.firms[account.firm].level
        owners[count].key = OWNER_IS_FIRM | account.firm
        count += 1
    return count


cdef void footprint_set(
    const Account *account, const Position *position, Footprint *footprint
) noexcept nogil:
    """Copy what counts in the sums; a position that does not exist (NULL) adds nothing."""
    memset(footprint, 0, sizeof(Footprint))
    footprint.money = account.cash
    if position == NULL:
        return
    footprint.lots = position.lots
    footprint.entry_value = position.entry_value if position.lots > 0 else -position.entry_value
    footprint.buy_lots = position.buy.lots
    footprint.buy_value = position.buy.value
    footprint.sell_lots = position.sell.lots
    footprint.sell_value = position.sell.value
    footprint.money += position.wallet
    footprint.working_orders = position.working_orders


cdef void _move(
    Book *book,
    const Owner *owner,
    uint32_t instrument_id,
    const Footprint *before,
    const Footprint *after,
) noexcept nogil:
    cdef Level *level = owner.level
    cdef LevelHolding *holding = holding_find(book, owner.key, instrument_id)
    cdef LevelSums *sums
    level.money += after.money - before.money
    if holding == NULL:
        if after.lots == 0 and after.working_orders == 0:
            return
        holding = holding_add(book, owner.key, instrument_id)
    sums = &holding.sums
    sums.lots += <i128>after.lots - before.lots
    sums.gross_lots += magnitude(after.lots) - magnitude(before.lots)
    sums.entry_value += <i128>after.entry_value - before.entry_value
    sums.buy_lots += <i128>after.buy_lots - before.buy_lots
    sums.buy_value += <i128>after.buy_value - before.buy_value
    sums.sell_lots += <i128>after.sell_lots - before.sell_lots
    sums.sell_value += <i128>after.sell_value - before.sell_value
    sums.working_orders += <uint64_t>after.working_orders - before.working_orders
    level.working_value += (
        <i128>after.buy_value - before.buy_value + after.sell_value - before.sell_value
    )
    level.working_orders += <uint64_t>after.working_orders - before.working_orders
    debug_assert(sums.gross_lots >= 0 and sums.buy_lots >= 0 and sums.sell_lots >= 0)
    debug_assert(sums.buy_value >= 0 and sums.sell_value >= 0 and level.working_value >= 0)
    if sums.gross_lots == 0 and sums.working_orders == 0:
        debug_assert(sums.lots == 0 and sums.entry_value == 0)
        debug_assert(sums.buy_value == 0 and sums.sell_value == 0)
        holding_drop(book, holding)


cdef void levels_set(
    Book *book, const Account *account, const Position *position, const Footprint *before
) noexcept nogil:
    """Move the sums of an account's levels by what a position changed."""
    cdef Owner owners[OWNERS_MAX]
    cdef Footprint after
    cdef uint32_t count = owners_of(book, account, owners)
    cdef uint32_t index
    footprint_set(account, position, &after)
    for index in range(count):
        _move(book, &owners[index], position.instrument_id, before, &after)


cdef void level_move_money(Book *book, const Account *account, i128 amount) noexcept nogil:
    """Let the levels of an account follow a deposit (or a withdrawal: below 0)."""
    cdef Owner owners[OWNERS_MAX]
    cdef uint32_t count = owners_of(book, account, owners)
    cdef uint32_t index
    for index in range(count):
        owners[index].level.money += amount


cdef bint level_finds_room(
    const Book *book, const Account *account, uint32_t instrument_id
) noexcept nogil:
    cdef Owner owners[OWNERS_MAX]
    cdef uint32_t count = owners_of(book, account, owners)
    cdef uint32_t index
    cdef uint32_t missing = 0
    for index in range(count):
        if holding_find(book, owners[index].key, instrument_id) == NULL:
            missing += 1
    return missing <= book.holding_capacity - book.holding_count


# --- days ------------------------------------------------------------------------------------

cdef void level_count_fill(
    Book *book, Account *account, i128 traded, i128 realised, uint64_t now_ns
) noexcept nogil:
    """Count a fill in the day of its account and of all levels above. Time never goes back."""
    cdef Usage *usage = &account.usage
    cdef Owner owners[OWNERS_MAX]
    cdef uint32_t count = owners_of(book, account, owners)
    cdef uint64_t day = day_of(now_ns)
    cdef i128 more_traded = traded
    cdef i128 more_realised = realised
    cdef Level *level
    cdef uint32_t index
    if usage.day != day:
        usage.day = day
        usage.traded = 0
        usage.realised = 0
    # What does not fit is left out everywhere: a parent has the sum of what its accounts have.
    more_traded = clamp(usage.traded + traded) - <i128>usage.traded
    more_realised = clamp(usage.realised + realised) - <i128>usage.realised
    usage.traded += <int64_t>more_traded
    usage.realised += <int64_t>more_realised
    for index in range(count):
        level = owners[index].level
        if level.day != day:
            level.day = day
            level.traded = 0
            level.realised = 0
        if owners[index].key & OWNER_IS_FIRM:
            level.traded = clamp(level.traded + traded)
            level.realised = clamp(level.realised + realised)
        else:
            level.traded += more_traded
            level.realised += more_realised


# --- parents ---------------------------------------------------------------------------------

cdef bint level_can_open(
    const Book *book, const Account *account, const Level *closing
) noexcept nogil:
    """C-10: whether there are rows for all positions of an account that keeps no sums yet, when
    another level (or NULL) gives its own back.
    """
    cdef Walk walk
    cdef LevelSums sums
    cdef uint32_t count = 0
    cdef uint32_t given_back = 0
    cdef uint32_t place = NOWHERE if closing == NULL else closing.first_holding
    while place != NOWHERE:
        given_back += 1
        place = book.holdings[place].next_of_level
    walk.over_positions = True
    walk.place = account.first_position
    while walk_next(book, &walk, &sums):
        if sums.gross_lots != 0 or sums.working_orders != 0:
            count += 1
    return count <= book.holding_capacity - book.holding_count + given_back


cdef void level_open(Book *book, Account *account) noexcept nogil:
    """Begin to keep the sums of an account, which gets its first sub-account."""
    cdef Owner owner
    cdef Footprint before, after
    cdef const Position *position
    cdef uint32_t place = account.first_position
    owner.key = account_place(book, account)
    owner.level = &account.level
    debug_assert(owner.level.first_holding == NOWHERE)
    owner.level.money = account.cash
    owner.level.working_value = 0
    owner.level.working_orders = 0
    owner.level.day = account.usage.day
    owner.level.traded = account.usage.traded
    owner.level.realised = account.usage.realised
    footprint_set(account, NULL, &before)
    while place != NOWHERE:
        position = &book.positions[place]
        place = position.next_of_account
        if position.lots != 0 or position.working_orders != 0:
            footprint_set(account, position, &after)
            _move(book, &owner, position.instrument_id, &before, &after)


cdef void level_close(Book *book, Account *account) noexcept nogil:
    """Keep sums of an account no more: it lost its last sub-account."""
    cdef Level *level = &account.level
    while level.first_holding != NOWHERE:
        holding_drop(book, &book.holdings[level.first_holding])


# --- reads -----------------------------------------------------------------------------------

cdef void walk_start(
    const Book *book, const Account *account, const Level *level, Walk *walk
) noexcept nogil:
    """Begin to go through a level's instruments. `account` is NULL for a firm."""
    walk.over_positions = account != NULL and account.sub_accounts == 0
    walk.place = account.first_position if walk.over_positions else level.first_holding


cdef inline void _add_position(LevelSums *sums, const Position *position) noexcept nogil:
    sums.lots += position.lots
    sums.gross_lots += magnitude(position.lots)
    sums.entry_value += position.entry_value if position.lots > 0 else -position.entry_value
    sums.buy_lots += position.buy.lots
    sums.buy_value += position.buy.value
    sums.sell_lots += position.sell.lots
    sums.sell_value += position.sell.value
    sums.working_orders += position.working_orders


cdef bint walk_next(const Book *book, Walk *walk, LevelSums *sums) noexcept nogil:
    """Return the sums of the next instrument; False at the end."""
    cdef const LevelHolding *holding
    cdef uint32_t instrument_id
    if walk.place == NOWHERE:
        return False
    if not walk.over_positions:
        holding = &book.holdings[walk.place]
        sums[0] = holding.sums
        walk.place = holding.next_of_level
        return True
    memset(sums, 0, sizeof(LevelSums))
    instrument_id = book.positions[walk.place].instrument_id
    sums.instrument_id = instrument_id
    # The position sides of an instrument stand together.
    while walk.place != NOWHERE and book.positions[walk.place].instrument_id == instrument_id:
        _add_position(sums, &book.positions[walk.place])
        walk.place = book.positions[walk.place].next_of_account
    return True


cdef void sums_of(
    const Book *book,
    const Account *account,
    uint32_t owner,
    uint32_t instrument_id,
    LevelSums *sums,
) noexcept nogil:
    """Copy the sums of one instrument. `account` is NULL for a firm."""
    cdef const LevelHolding *holding
    cdef uint32_t place
    memset(sums, 0, sizeof(LevelSums))
    sums.instrument_id = instrument_id
    if account == NULL or account.sub_accounts != 0:
        holding = holding_find(book, owner, instrument_id)
        if holding != NULL:
            sums[0] = holding.sums
        return
    place = account.first_position
    while place != NOWHERE and book.positions[place].instrument_id <= instrument_id:
        if book.positions[place].instrument_id == instrument_id:
            _add_position(sums, &book.positions[place])
        place = book.positions[place].next_of_account
