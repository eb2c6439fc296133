"""Firms, owners and limits: how they are set (docs/limits.md, "Changes").

Each change is whole or not at all: every check comes before the first change.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t

from riskd.core.book cimport (
    Book,
    account_find,
    account_place,
    firm_add,
    firm_find,
    gateway_take,
    instrument_find,
    limit_add,
    limit_drop,
)
from riskd.core.collateral cimport is_foreign
from riskd.core.controls cimport equity_of, is_minimum, limit_find, peak_move
from riskd.core.credit cimport credit_follow
from riskd.core.levels cimport day_of, level_can_open, level_close, level_open
from riskd.core.money cimport PPB, debug_assert, i128
from riskd.core.types cimport *

cdef enum:
    BURST_MAX = 1000000

cdef extern from *:
    """
    #define RISKD_LIMIT_VALUE_MAX (1LL << 62)
    #define RISKD_RAISE_NS_MAX (7ULL * 86400 * 1000000000)
    """
    const int64_t LIMIT_VALUE_MAX "RISKD_LIMIT_VALUE_MAX"
    # A raise is a help for a while, not a way round whoever sets limits.
    const uint64_t RAISE_NS_MAX "RISKD_RAISE_NS_MAX"


# --- firms and owners ------------------------------------------------------------------------

cdef uint32_t create_firm(Book *book, uint32_t firm_id, uint32_t asset_id) noexcept nogil:
    cdef Firm *firm
    if firm_id == 0:
        return REASON_DEFINITION_INVALID
    if asset_id == 0 or asset_id > book.asset_count:
        return REASON_ASSET_UNKNOWN
    if firm_find(book, firm_id) != NULL:
        return REASON_ALREADY_EXISTS
    firm = firm_add(book, firm_id)
    if firm == NULL:
        return REASON_FIRMS_FULL
    firm.asset_id = asset_id
    book.revision += 1
    return REASON_NONE


cdef bint _is_flat(const Book *book, const Account *account) noexcept nogil:
    cdef uint32_t place = account.first_position
    while place != NOWHERE:
        if book.positions[place].lots != 0:
            return False
        place = book.positions[place].next_of_account
    return account.working_orders == 0


cdef bint _has_foreign(const Book *book, const Account *account) noexcept nogil:
    """Whether an account has, or may yet get by a late execution, a position that is settled in
    another asset: sums and limits would add what cannot be added.
    """
    cdef uint32_t owner = account_place(book, account)
    cdef uint32_t place = account.first_position
    cdef const Position *position
    # Without these there is no such position.
    if book.collateral_count == 0:
        return False
    while place != NOWHERE:
        position = &book.positions[place]
        place = position.next_of_account
        if is_foreign(account, &book.instruments[position.instrument_id - 1]) and (
            position.lots != 0 or position.working_orders != 0
        ):
            return True
    for place in range(book.closed_count):
        if book.closed[place].account_index == owner and is_foreign(
            account, &book.instruments[book.closed[place].instrument_id - 1]
        ):
            return True
    return False


cdef void _leave(Book *book, Account *account, Level *level) noexcept nogil:
    level.money -= account.cash
    peak_move(book, level, -<i128>account.cash)


cdef void _join(Book *book, Account *account, Level *level) noexcept nogil:
    level.money += account.cash
    peak_move(book, level, account.cash)


cdef uint32_t set_account_owner(
    Book *book, uint64_t account_id, uint64_t firm_id, uint64_t parent_id, uint64_t now_ns
) noexcept nogil:
    """Give an account its firm and its parent account, 0 for none."""
    cdef Account *account = account_find(book, account_id)
    cdef Account *parent = NULL
    cdef Account *old = NULL
    cdef const Level *closing = NULL
    cdef Firm *firm = NULL
    cdef uint32_t firm_place = NOWHERE
    cdef uint32_t parent_place = NOWHERE
    if account == NULL:
        return REASON_ACCOUNT_UNKNOWN
    if firm_id != 0:
        firm = firm_find(book, <uint32_t>firm_id) if firm_id <= UINT32_MAX else NULL
        if firm == NULL:
            return REASON_FIRM_UNKNOWN
        firm_place = <uint32_t>(firm - book.firms)
    if parent_id != 0:
        parent = account_find(book, parent_id)
        if parent == NULL or parent == account or parent.parent != NOWHERE:
            return REASON_OWNER_INVALID
        if parent.firm != firm_place or parent.asset_id != account.asset_id:
            return REASON_OWNER_INVALID
        parent_place = account_place(book, parent)
    if account.sub_accounts != 0 or (firm != NULL and firm.asset_id != account.asset_id):
        return REASON_OWNER_INVALID
    if not _is_flat(book, account) or _has_foreign(book, account):
        return REASON_POSITION_NOT_FLAT
    if parent != NULL and _has_foreign(book, parent):
        return REASON_POSITION_NOT_FLAT
    if account.usage.day == day_of(now_ns) and (
        account.usage.traded != 0 or account.usage.realised != 0
    ):
        return REASON_OWNER_HAS_USAGE
    if account.parent != NOWHERE:
        old = &book.accounts[account.parent]
        if old.sub_accounts == 1:
            closing = &old.level
    if parent != NULL and parent.sub_accounts == 0 and not level_can_open(book, parent, closing):
        return REASON_HOLDINGS_FULL

    if account.parent != parent_place:
        if old != NULL:
            _leave(book, account, &old.level)
            old.sub_accounts -= 1
            if old.sub_accounts == 0:
                level_close(book, old)
        if parent != NULL:
            if parent.sub_accounts == 0:
                level_open(book, parent)
            parent.sub_accounts += 1
            _join(book, account, &parent.level)
        account.parent = parent_place
    if account.firm != firm_place:
        # What it uses goes with it.
        if account.firm != NOWHERE:
            _leave(book, account, &book.firms[account.firm].level)
            book.firms[account.firm].credit_used -= account.credit_used
        if firm != NULL:
            _join(book, account, &firm.level)
            firm.credit_used += account.credit_used
        account.firm = firm_place
    credit_follow(book, account)
    book.revision += 1
    return REASON_NONE


# --- limits ----------------------------------------------------------------------------------

cdef inline bint _is_rate(uint32_t kind) noexcept nogil:
    return kind == LIMIT_KIND_ORDER_RATE_MAX or kind == LIMIT_KIND_EXECUTION_RATE_MAX


cdef inline bint _is_of_instruments(uint32_t kind) noexcept nogil:
    """Whether a kind is what an instrument is for, and needs one."""
    return (
        kind == LIMIT_KIND_POSITION_LOTS_MAX
        or kind == LIMIT_KIND_DENIED
        or kind == LIMIT_KIND_ALLOWED
    )


cdef inline bint _is_of_all(uint32_t kind) noexcept nogil:
    """Whether a kind is of all instruments together, and can have none."""
    return (
        LIMIT_KIND_ORDER_RATE_MAX <= kind <= LIMIT_KIND_DRAWDOWN_MAX
        or LIMIT_KIND_DELTA_MAX <= kind <= LIMIT_KIND_VEGA_MAX
    )


cdef bint _is_lawful(
    uint32_t scope,
    uint32_t instrument_id,
    uint32_t kind,
    int64_t value,
    int64_t burst,
    uint32_t action,
) noexcept nogil:
    """A-9 of a limit."""
    if scope != LIMIT_SCOPE_GATEWAY and scope != LIMIT_SCOPE_ACCOUNT and scope != LIMIT_SCOPE_FIRM:
        return False
    if kind < LIMIT_KIND_ORDER_QUANTITY_MIN or kind > LIMIT_KIND_ALLOWED:
        return False
    if action != LIMIT_ACTION_HARD and action != LIMIT_ACTION_SOFT:
        return False
    if value < 0 or value > LIMIT_VALUE_MAX:
        return False
    if _is_rate(kind):
        if value < 1 or value > PPB or burst < 1 or burst > BURST_MAX:
            return False
    elif burst != 0:
        return False
    if _is_of_instruments(kind) and instrument_id == 0:
        return False
    if _is_of_all(kind) and instrument_id != 0:
        return False
    return scope != LIMIT_SCOPE_GATEWAY or kind == LIMIT_KIND_ORDER_RATE_MAX


cdef inline bint _is_tighter(uint32_t kind, int64_t value, int64_t than) noexcept nogil:
    return value > than if is_minimum(kind) else value < than


cdef bint _is_looser_than(
    const Book *book,
    uint32_t scope,
    uint64_t scope_id,
    uint32_t instrument_id,
    uint32_t kind,
    int64_t value,
) noexcept nogil:
    """Whether a level above has a tighter limit of the same instrument and kind."""
    cdef const Limit *limit = limit_find(book, scope, scope_id, instrument_id, kind)
    return limit != NULL and _is_tighter(kind, limit.value, value)


cdef void _count_limit(Book *book, const Limit *limit, int by) noexcept nogil:
    """Let the level know how many limits it has, when one comes (1) or goes (-1)."""
    cdef Account *account
    cdef Firm *firm
    cdef Level *level
    cdef uint32_t change = <uint32_t>by
    if limit.scope == LIMIT_SCOPE_ACCOUNT:
        account = account_find(book, limit.scope_id)
        account.limit_count += change
        level = &account.level
    elif limit.scope == LIMIT_SCOPE_FIRM:
        firm = firm_find(book, <uint32_t>limit.scope_id)
        firm.limit_count += change
        level = &firm.level
    else:
        return
    if limit.instrument_id != 0:
        level.instrument_limit_count += change
    if limit.kind == LIMIT_KIND_ALLOWED:
        if limit.action == LIMIT_ACTION_HARD:
            level.allowed_hard += change
        else:
            level.allowed_soft += change


cdef uint32_t set_limit(
    Book *book,
    uint32_t scope,
    uint64_t scope_id,
    uint32_t instrument_id,
    uint32_t kind,
    int64_t value,
    int64_t burst,
    uint32_t action,
) noexcept nogil:
    """Set a limit, or change one: its raise ends, its rate goes on, and its peak is taken anew if
    its value is another.
    """
    cdef const Account *account = NULL
    cdef const Account *parent
    cdef const Level *level = NULL
    cdef Firm *firm = NULL
    cdef Limit *limit
    cdef int64_t peak = 0
    if not _is_lawful(scope, instrument_id, kind, value, burst, action):
        return REASON_DEFINITION_INVALID
    if scope == LIMIT_SCOPE_FIRM:
        firm = firm_find(book, <uint32_t>scope_id) if scope_id <= UINT32_MAX else NULL
        if firm == NULL:
            return REASON_FIRM_UNKNOWN
        level = &firm.level
    elif scope == LIMIT_SCOPE_ACCOUNT:
        account = account_find(book, scope_id)
        if account == NULL:
            return REASON_ACCOUNT_UNKNOWN
        level = &account.level
    elif scope_id == 0 or scope_id > UINT32_MAX:
        return REASON_GATEWAY_ID_MISSING
    if instrument_id != 0 and instrument_find(book, instrument_id) == NULL:
        return REASON_INSTRUMENT_UNKNOWN
    if account != NULL and kind != LIMIT_KIND_DENIED and kind != LIMIT_KIND_ALLOWED:
        if account.parent != NOWHERE:
            parent = &book.accounts[account.parent]
            if _is_looser_than(
                book, LIMIT_SCOPE_ACCOUNT, parent.account_id, instrument_id, kind, value
            ):
                return REASON_LIMIT_LOOSER_THAN_PARENT
        if account.firm != NOWHERE and _is_looser_than(
            book, LIMIT_SCOPE_FIRM, book.firms[account.firm].firm_id, instrument_id, kind, value
        ):
            return REASON_LIMIT_LOOSER_THAN_PARENT
    if account != NULL and _has_foreign(book, account):
        return REASON_POSITION_NOT_FLAT
    limit = limit_find(book, scope, scope_id, instrument_id, kind)
    if limit != NULL and limit.value == value:
        peak = limit.peak
    elif kind == LIMIT_KIND_DRAWDOWN_MAX and not equity_of(book, account, level, &peak):
        return REASON_MARK_MISSING
    if limit == NULL:
        if book.limit_count == book.limit_capacity:
            return REASON_LIMITS_FULL
        if scope == LIMIT_SCOPE_GATEWAY and gateway_take(book, <uint32_t>scope_id) == NOWHERE:
            return REASON_GATEWAYS_FULL
        limit = limit_add(book, scope, scope_id, instrument_id, kind)
        debug_assert(limit != NULL)
    else:
        _count_limit(book, limit, -1)
    limit.value = value
    limit.burst = <uint32_t>burst
    limit.action = <uint8_t>action
    limit.raised_value = 0
    limit.raise_until_ns = 0
    limit.peak = peak
    _count_limit(book, limit, 1)
    book.revision += 1
    return REASON_NONE


cdef uint32_t raise_limit(
    Book *book,
    uint32_t scope,
    uint64_t scope_id,
    uint32_t instrument_id,
    uint32_t kind,
    int64_t value,
    uint64_t until_ns,
    uint64_t now_ns,
) noexcept nogil:
    """Let a looser value count for a while."""
    cdef Limit *limit = limit_find(book, scope, scope_id, instrument_id, kind)
    if limit == NULL:
        return REASON_LIMIT_UNKNOWN
    if kind == LIMIT_KIND_DENIED or kind == LIMIT_KIND_ALLOWED:
        return REASON_DEFINITION_INVALID
    if value < 0 or value > (PPB if _is_rate(kind) else LIMIT_VALUE_MAX):
        return REASON_DEFINITION_INVALID
    if not _is_tighter(kind, limit.value, value):
        return REASON_DEFINITION_INVALID
    if until_ns <= now_ns or until_ns - now_ns > RAISE_NS_MAX:
        return REASON_DEFINITION_INVALID
    limit.raised_value = value
    limit.raise_until_ns = until_ns
    book.revision += 1
    return REASON_NONE


cdef uint32_t remove_limit(
    Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id, uint32_t kind
) noexcept nogil:
    cdef Limit *limit = limit_find(book, scope, scope_id, instrument_id, kind)
    if limit == NULL:
        return REASON_LIMIT_UNKNOWN
    _count_limit(book, limit, -1)
    limit_drop(book, limit)
    book.revision += 1
    return REASON_NONE


cdef uint32_t reset_usage(
    Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id, uint32_t kind
) noexcept nogil:
    """Let a level trade again that its executions or its drawdown had stopped."""
    cdef Limit *limit = limit_find(book, scope, scope_id, instrument_id, kind)
    cdef const Account *account = NULL
    cdef const Level *level
    cdef int64_t peak
    if limit == NULL:
        return REASON_LIMIT_UNKNOWN
    if kind == LIMIT_KIND_EXECUTION_RATE_MAX:
        limit.due_ns = 0
    elif kind == LIMIT_KIND_DRAWDOWN_MAX:
        if scope == LIMIT_SCOPE_ACCOUNT:
            account = account_find(book, scope_id)
            level = &account.level
        else:
            level = &firm_find(book, <uint32_t>scope_id).level
        if not equity_of(book, account, level, &peak):
            return REASON_MARK_MISSING
        limit.peak = peak
    else:
        return REASON_DEFINITION_INVALID
    book.revision += 1
    return REASON_NONE
