"""Cross or isolated: the margin mode of an account's positions on an instrument, be they open or
not (docs/decision.md, Changes; docs/instruments.md, Commands).

Money only moves between the pool and wallets, so that the sums of the account's levels stay.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.admin cimport available_or_zero, covers_margin, is_engaged, target_find
from riskd.core.book cimport (
    Book,
    money_has_room,
    money_of,
    money_set,
    position_add,
    position_find,
)
from riskd.core.collateral cimport is_foreign
from riskd.core.credit cimport credit_follow
from riskd.core.families cimport position_initial_of
from riskd.core.hedge cimport Group, group_add, is_liquidatable
from riskd.core.margin cimport Exposure
from riskd.core.money cimport clamp, fits, i128, larger, magnitude
from riskd.core.pool cimport (
    Holding,
    Pool,
    Purse,
    Share,
    Terms,
    equity_of_pool,
    exposure_of,
    holding_of,
    mark_value_up,
    pool_beside,
    pool_join,
    pool_of,
    share_clear,
    share_of,
    terms_of,
)
from riskd.core.types cimport *
from riskd.core.value cimport mark_reason_of

# A position of the instrument in the mode that it would have.
ctypedef struct Leg:
    Position *position
    Share share
    i128 wallet


cdef uint32_t _find_legs(
    Book *book, const Account *account, uint32_t instrument_id, Leg *legs
) noexcept nogil:
    """Find the positions of an instrument, at most one of each position side; return how many."""
    cdef uint32_t count = 0
    cdef uint32_t side
    for side in range(<uint32_t>POSITION_SIDE_NET, <uint32_t>POSITION_SIDE_SHORT + 1):
        legs[count].position = position_find(book, account, instrument_id, side)
        if legs[count].position != NULL:
            count += 1
    return count


cdef void _add_difference(
    Share *change, const Share *before, const Share *after
) noexcept nogil:
    """Add what a position's share changes by; the figures of the one before are known."""
    change.pnl += after.pnl - before.pnl
    change.initial_margin += after.initial_margin - before.initial_margin
    change.maintenance += after.maintenance - before.maintenance
    change.requirement += after.requirement - before.requirement
    change.unknown |= after.unknown


cdef bint _is_liquidatable(
    const Terms *terms,
    bint has_price,
    const Pool *pool,
    const Leg *legs,
    uint32_t count,
    uint32_t index,
) noexcept nogil:
    """A-21: by its wallet, or by what the pool has left for all legs when the others are served;
    where it has no liquidation price, with all of the pool.

    What does not fit is taken for yes.
    """
    cdef Exposure exposure
    cdef Group group
    cdef uint32_t other
    cdef i128 backing = legs[index].wallet
    group.count = 0
    if not has_price:
        return equity_of_pool(pool) <= pool.requirement
    if terms.margin_mode == MARGIN_MODE_CROSS:
        backing = equity_of_pool(pool) - pool.requirement
        for other in range(count):
            backing -= legs[other].share.pnl - legs[other].share.requirement
            if other != index:
                group_add(&group, legs[other].position)
    if not fits(backing):
        return True
    exposure.lots = legs[index].position.lots
    exposure.entry_value = legs[index].position.entry_value
    exposure.wallet = <int64_t>backing
    return is_liquidatable(terms, &exposure, &group, terms.instrument.mark.price)


cdef uint32_t _figure(
    const Book *book,
    const Account *account,
    const Terms *terms,
    Leg *legs,
    uint32_t count,
    uint64_t now_ns,
    ModeSwitch *outcome,
    i128 *money,
) noexcept nogil:
    """Figure the wallets, and the account's money in the instrument's asset, after the switch to
    the mode of the terms.
    """
    cdef Pool pool, beside
    cdef Purse purse
    cdef Terms before = terms[0]
    cdef Holding holding
    cdef Share share, change
    cdef Leg *leg
    cdef i128 notional
    cdef i128 wallets = 0
    cdef i128 flow = 0
    cdef i128 exposed = 0
    cdef uint32_t index
    cdef uint32_t reason = REASON_NONE
    cdef bint has_price = terms.margin_mode == MARGIN_MODE_ISOLATED or not (
        is_foreign(account, terms.instrument)
    )
    share_clear(&change)
    pool_beside(book, account, terms.instrument, NULL, False, 0, now_ns, &beside, &purse)
    for index in range(count):
        if legs[index].position.lots != 0:
            reason = mark_reason_of(terms.instrument, now_ns)
    if reason == REASON_NONE:
        reason = beside.mark_reason
    if reason != REASON_NONE:
        return reason
    before.margin_mode = MARGIN_MODE_CROSS
    if terms.margin_mode == MARGIN_MODE_CROSS:
        before.margin_mode = MARGIN_MODE_ISOLATED
    for index in range(count):
        leg = &legs[index]
        holding_of(leg.position, &holding)
        share_of(&before, &holding, &share)
        share_of(terms, &holding, &leg.share)
        _add_difference(&change, &share, &leg.share)
        exposed += exposure_of(terms, &holding) - exposure_of(&before, &holding)
        leg.wallet = 0
        if terms.margin_mode == MARGIN_MODE_ISOLATED and holding.lots != 0:
            notional = mark_value_up(
                terms, magnitude(holding.lots), terms.instrument.mark.price
            )
            leg.wallet = position_initial_of(terms, holding.lots, notional)
            leg.wallet += larger(0, -share.pnl)
        wallets += leg.wallet
        flow += holding.wallet - leg.wallet
    if exposed != 0:
        pool_beside(
            book, account, terms.instrument, NULL, False, exposed, now_ns, &beside, &purse
        )
    pool_join(book, &beside, &purse, &change, False, flow, &pool)
    money[0] = money_of(book, account, terms.instrument.asset_id) + flow
    if not covers_margin(&pool) or not fits(wallets) or not fits(money[0]):
        return REASON_EXCEEDS_AVAILABLE
    if terms.margin_mode == MARGIN_MODE_ISOLATED and money[0] < 0:
        return REASON_EXCEEDS_AVAILABLE
    for index in range(count):
        if legs[index].position.lots != 0 and _is_liquidatable(
            terms, has_price, &pool, legs, count, index
        ):
            return REASON_BORN_LIQUIDATABLE_IN_MODE
    outcome.wallet = <int64_t>wallets
    outcome.cash_flow = <int64_t>flow
    outcome.available = available_or_zero(&pool)
    return REASON_NONE


cdef uint32_t change_margin_mode(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    uint32_t mode,
    bint validate_only,
    uint64_t now_ns,
    ModeSwitch *outcome,
) noexcept nogil:
    cdef Account *account
    cdef Instrument *instrument
    cdef Position *settings
    cdef Leg legs[3]
    cdef Terms terms
    cdef Pool pool
    cdef ModeSwitch after
    cdef i128 wallets = 0
    cdef i128 money = 0
    cdef uint32_t count, index, reason
    cdef bint is_open
    memset(outcome, 0, sizeof(ModeSwitch))
    reason = target_find(book, account_id, instrument_id, &account, &instrument)
    if reason != REASON_NONE:
        return reason
    count = _find_legs(book, account, instrument_id, legs)
    settings = position_find(book, account, instrument_id, POSITION_SIDE_NET)
    pool_of(book, account, NULL, now_ns, &pool)
    outcome.available = available_or_zero(&pool)
    for index in range(count):
        wallets += legs[index].position.wallet
    outcome.wallet = clamp(wallets)
    if mode != MARGIN_MODE_CROSS and mode != MARGIN_MODE_ISOLATED:
        return REASON_MARGIN_MODE_MISMATCH
    if instrument.isolated_only and mode == MARGIN_MODE_CROSS:
        return REASON_ISOLATED_ONLY
    terms_of(book, account, instrument, settings, &terms)
    after = outcome[0]
    is_open = is_engaged(book, account, instrument_id)
    if terms.is_spot or (is_open and terms.is_option):
        return REASON_POSITION_NOT_FLAT
    if is_open and terms.margin_mode == mode:
        return REASON_NONE
    if is_open:
        terms.margin_mode = mode
        reason = _figure(book, account, &terms, legs, count, now_ns, &after, &money)
        if reason != REASON_NONE:
            return reason
    if settings == NULL and book.position_count == book.position_capacity:
        return REASON_POSITIONS_FULL
    if is_open and not money_has_room(book, account, instrument.asset_id):
        return REASON_BALANCES_FULL
    outcome[0] = after
    if validate_only:
        return REASON_NONE
    if is_open:
        money_set(book, account, instrument.asset_id, <int64_t>money)
        for index in range(count):
            legs[index].position.wallet = <int64_t>legs[index].wallet
    if settings == NULL:
        settings = position_add(book, account, instrument_id, POSITION_SIDE_NET)
    settings.margin_mode = <uint8_t>mode
    credit_follow(book, account)
    book.revision += 1
    return REASON_NONE
