"""Margin levels: how much of their margin accounts and isolated positions have left
(docs/instruments.md, Margin levels and events).

An account is looked at when its turn comes, not with each mark: levels are for people and for
whoever liquidates, and nothing that is decided depends on them.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.book cimport (
    Book,
    position_drop_if_absent,
    risk_event_add,
    settings_of,
)
from riskd.core.money cimport fits, i128
from riskd.core.pool cimport (
    Holding,
    Pool,
    Share,
    Terms,
    equity_of_pool,
    pool_of,
    share_of,
    terms_of,
)
from riskd.core.types cimport *

cdef enum:
    # One as a margin level: they count in parts per million of the requirement.
    LEVEL_ONE = 1000000
    LEVEL_MAX = 10000000


cdef uint32_t set_margin_levels(
    Book *book, int64_t search_ppm, int64_t release_ppm, bint validate_only
) noexcept nogil:
    """Set where the levels lie, 0 and 0 for none; all accounts keep theirs until they are looked
    at.
    """
    if search_ppm != 0 or release_ppm != 0:
        if search_ppm <= LEVEL_ONE or release_ppm <= search_ppm or release_ppm > LEVEL_MAX:
            return REASON_DEFINITION_INVALID
    if not validate_only:
        book.search_ppm = <uint32_t>search_ppm
        book.release_ppm = <uint32_t>release_ppm
        book.revision += 1
    return REASON_NONE


cdef uint8_t _level_after(
    const Book *book, uint8_t before, i128 equity, i128 requirement
) noexcept nogil:
    """Between search and release a level stays, so that what is on the edge does not flap."""
    if equity <= requirement:
        return MARGIN_LEVEL_LIQUIDATION
    if equity * LEVEL_ONE >= requirement * book.release_ppm:
        return MARGIN_LEVEL_SAFE
    if before == MARGIN_LEVEL_SAFE and equity * LEVEL_ONE <= requirement * book.search_ppm:
        return MARGIN_LEVEL_SEARCH
    if before == MARGIN_LEVEL_LIQUIDATION and equity * LEVEL_ONE > requirement * book.search_ppm:
        return MARGIN_LEVEL_SEARCH
    return before


cdef inline bint _all_fit(i128 pnl, i128 equity, i128 requirement) noexcept nogil:
    return fits(pnl) and fits(equity) and fits(requirement)


cdef void _note(
    Book *book,
    uint32_t place,
    const Position *position,
    uint8_t before,
    uint8_t after,
    i128 equity,
    i128 requirement,
    uint64_t now_ns,
) noexcept nogil:
    """Add an event; `position` is NULL for the cross pool."""
    cdef RiskEvent *event = risk_event_add(book)
    book.revision += 1
    event.revision = book.revision
    event.time_ns = now_ns
    event.account_index = place
    event.equity = <int64_t>equity
    event.requirement = <int64_t>requirement
    event.level_before = before
    event.level_after = after
    if position != NULL:
        event.instrument_id = position.instrument_id
        event.position_side = position.position_side


cdef void _evaluate_pool(
    Book *book, uint32_t place, bint is_open, uint64_t now_ns
) noexcept nogil:
    cdef Account *account = &book.accounts[place]
    cdef uint8_t after = MARGIN_LEVEL_SAFE
    cdef Pool pool
    cdef i128 equity
    if not is_open and account.margin_level == MARGIN_LEVEL_SAFE:
        return
    pool_of(book, account, NULL, now_ns, &pool)
    equity = equity_of_pool(&pool)
    if pool.unknown != 0 or not _all_fit(pool.pnl, equity, pool.requirement):
        return
    if is_open:
        after = _level_after(book, account.margin_level, equity, pool.requirement)
    if after != account.margin_level:
        _note(
            book, place, NULL, account.margin_level, after, equity, pool.requirement, now_ns
        )
        account.margin_level = after


cdef void _evaluate_position(
    Book *book, uint32_t place, Position *position, const Terms *terms, uint64_t now_ns
) noexcept nogil:
    """Look at a position: an isolated contract, or one that has nothing open (any more)."""
    cdef Terms cross = terms[0]
    cdef uint8_t after = MARGIN_LEVEL_SAFE
    cdef Holding holding
    cdef Share share
    cdef i128 equity = 0
    cdef i128 requirement = 0
    if not terms.is_option and terms.margin_mode == MARGIN_MODE_ISOLATED and position.lots != 0:
        # Its part in a pool of its own, without orders.
        cross.margin_mode = MARGIN_MODE_CROSS
        memset(&holding, 0, sizeof(Holding))
        holding.lots = position.lots
        holding.entry_value = position.entry_value
        share_of(&cross, &holding, &share)
        equity = position.wallet + share.pnl
        requirement = share.requirement
        if share.unknown != 0 or not _all_fit(share.pnl, equity, requirement):
            return
        after = _level_after(book, position.margin_level, equity, requirement)
    if after != position.margin_level:
        _note(
            book, place, position, position.margin_level, after, equity, requirement, now_ns
        )
        position.margin_level = after


cdef void _evaluate_account(Book *book, uint32_t place, uint64_t now_ns) noexcept nogil:
    """Look at the cross pool, then at the positions in their order."""
    cdef Account *account = &book.accounts[place]
    cdef Position *position
    cdef uint32_t link = account.first_position
    cdef bint is_open = False
    cdef Terms terms
    while link != NOWHERE:
        position = &book.positions[link]
        link = position.next_of_account
        _terms_of_position(book, account, position, &terms)
        if terms.is_option:
            is_open = is_open or position.lots < 0
        elif terms.margin_mode == MARGIN_MODE_CROSS:
            is_open = is_open or position.lots != 0
    _evaluate_pool(book, place, is_open, now_ns)
    link = account.first_position
    while link != NOWHERE:
        position = &book.positions[link]
        link = position.next_of_account
        _terms_of_position(book, account, position, &terms)
        _evaluate_position(book, place, position, &terms, now_ns)
        # A level that is not SAFE had kept it.
        position_drop_if_absent(book, position)


cdef void _terms_of_position(
    const Book *book, const Account *account, const Position *position, Terms *terms
) noexcept nogil:
    terms_of(
        book,
        account,
        &book.instruments[position.instrument_id - 1],
        settings_of(
            book, account, position, position.instrument_id, position.position_side
        ),
        terms,
    )


cdef uint32_t evaluate_levels(
    Book *book, uint32_t first, uint32_t count, uint64_t now_ns, uint32_t *next_place
) noexcept nogil:
    """Look at accounts by their places; return how many levels changed, each an event.

    `next_place` is where to go on, 0 after the last account.
    """
    cdef uint64_t before = book.revision
    cdef uint64_t place = first
    cdef uint64_t end = min(<uint64_t>first + count, <uint64_t>book.account_count)
    if book.release_ppm != 0:
        while place < end:
            _evaluate_account(book, <uint32_t>place, now_ns)
            place += 1
    next_place[0] = <uint32_t>end if end < book.account_count else 0
    return <uint32_t>(book.revision - before)
