"""Changes from outside the hot door: collateral, margin transfers, modes, leverage, trading states.

Each is whole or not at all: every check comes before the first change. The rules are those of
docs/decision.md, "Changes from outside the hot door".
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.book cimport (
    Book,
    account_find,
    gateway_set,
    instrument_find,
    position_add,
    position_find,
)
from riskd.core.margin cimport initial_of, notional_max_at
from riskd.core.money cimport LEVERAGE_ONE, fits, i128, magnitude
from riskd.core.pool cimport (
    Holding,
    Pool,
    Share,
    Terms,
    available_of,
    holding_of,
    mark_reason_of,
    mark_value_up,
    pool_add,
    pool_fits,
    pool_of,
    share_of,
    terms_of,
    unrealised_pnl_of,
)
from riskd.core.types cimport *


cdef inline int64_t _available_or_zero(const Pool *pool) noexcept nogil:
    return <int64_t>available_of(pool) if pool.known and pool_fits(pool) else 0


cdef uint32_t _target(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    Account **account,
    Instrument **instrument,
) noexcept nogil:
    """F-3, F-4, F-14."""
    account[0] = account_find(book, account_id)
    if account[0] == NULL:
        return REASON_ACCOUNT_UNKNOWN
    instrument[0] = instrument_find(book, instrument_id)
    if instrument[0] == NULL:
        return REASON_INSTRUMENT_UNKNOWN
    if account[0].asset_id != instrument[0].asset_id:
        return REASON_SETTLEMENT_ASSET_MISMATCH
    return REASON_NONE


cdef uint32_t _leaves_pool(const Account *account, const Pool *pool, i128 amount) noexcept nogil:
    """Whether an amount may leave the pool.

    Unrealised profit backs orders, but cannot be paid out.
    """
    if pool.mark_reason != REASON_NONE:
        return pool.mark_reason
    if not pool_fits(pool) or amount > available_of(pool) or amount > account.cash:
        return REASON_EXCEEDS_AVAILABLE
    return REASON_NONE


cdef uint32_t adjust_collateral(
    Book *book,
    uint64_t account_id,
    uint32_t asset_id,
    int64_t amount,
    bint validate_only,
    uint64_t now_ns,
    Change *change,
) noexcept nogil:
    """Deposit or withdraw; the figure is the pool's cash."""
    cdef Account *account = account_find(book, account_id)
    cdef Pool pool
    cdef uint32_t reason
    memset(change, 0, sizeof(Change))
    if account == NULL:
        return REASON_ACCOUNT_UNKNOWN
    if asset_id == 0 or asset_id > book.asset_count:
        return REASON_ASSET_UNKNOWN
    if asset_id != account.asset_id:
        return REASON_SETTLEMENT_ASSET_MISMATCH
    pool_of(book, account, 0, now_ns, &pool)
    change.figure = account.cash
    change.available = _available_or_zero(&pool)
    if amount == 0 or not fits(<i128>account.cash + amount):
        return REASON_AMOUNT_OUT_OF_RANGE
    if amount < 0:
        reason = _leaves_pool(account, &pool, -<i128>amount)
        if reason != REASON_NONE:
            return reason
    pool.cash += amount
    change.figure = <int64_t>pool.cash
    change.available = _available_or_zero(&pool)
    if not validate_only:
        account.cash = change.figure
        book.revision += 1
    return REASON_NONE


cdef uint32_t transfer_margin(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    int64_t amount,
    bint validate_only,
    uint64_t now_ns,
    Change *change,
) noexcept nogil:
    """Move margin between the pool and an isolated wallet; the figure is the wallet."""
    cdef Account *account
    cdef Instrument *instrument
    cdef Position *position
    cdef Terms terms
    cdef Pool pool
    cdef i128 notional, pnl
    cdef uint32_t reason
    memset(change, 0, sizeof(Change))
    reason = _target(book, account_id, instrument_id, &account, &instrument)
    if reason != REASON_NONE:
        return reason
    position = position_find(book, account, instrument_id)
    terms_of(book, account, instrument, position, &terms)
    pool_of(book, account, 0, now_ns, &pool)
    change.available = _available_or_zero(&pool)
    if position == NULL or position.lots == 0:
        return REASON_NO_ISOLATED_POSITION
    if terms.is_option or terms.margin_mode != MARGIN_MODE_ISOLATED:
        return REASON_NO_ISOLATED_POSITION
    change.figure = position.wallet
    if amount == 0 or not fits(
        <i128>position.wallet + amount
    ) or not fits(<i128>account.cash - amount):
        return REASON_AMOUNT_OUT_OF_RANGE
    if amount > 0:
        reason = _leaves_pool(account, &pool, amount)
        if reason != REASON_NONE:
            return reason
    else:
        reason = mark_reason_of(instrument, now_ns)
        if reason != REASON_NONE:
            return reason
        notional = mark_value_up(&terms, magnitude(position.lots), instrument.mark.price)
        pnl = unrealised_pnl_of(&terms, position.lots, position.entry_value)
        if <i128>position.wallet + amount + (pnl if pnl < 0 else 0) < initial_of(
            terms.ladder, notional, notional, terms.leverage
        ):
            return REASON_EXCEEDS_REMOVABLE_MARGIN
    pool.cash -= amount
    change.figure = position.wallet + amount
    change.available = _available_or_zero(&pool)
    if not validate_only:
        position.wallet = change.figure
        account.cash = <int64_t>pool.cash
        book.revision += 1
    return REASON_NONE


cdef uint32_t change_margin_mode(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    uint32_t mode,
    bint validate_only,
    uint64_t now_ns,
    Change *change,
) noexcept nogil:
    """Set the mode of a flat position without orders; the figure is its wallet."""
    cdef Account *account
    cdef Instrument *instrument
    cdef Position *position
    cdef Pool pool
    cdef uint32_t reason
    memset(change, 0, sizeof(Change))
    reason = _target(book, account_id, instrument_id, &account, &instrument)
    if reason != REASON_NONE:
        return reason
    position = position_find(book, account, instrument_id)
    pool_of(book, account, 0, now_ns, &pool)
    change.available = _available_or_zero(&pool)
    if position != NULL:
        change.figure = position.wallet
    if mode != MARGIN_MODE_CROSS and mode != MARGIN_MODE_ISOLATED:
        return REASON_MARGIN_MODE_MISMATCH
    if position != NULL and (position.lots != 0 or position.working_orders != 0):
        return REASON_POSITION_NOT_FLAT
    if position == NULL and book.position_count == book.position_capacity:
        return REASON_POSITIONS_FULL
    if not validate_only:
        if position == NULL:
            position = position_add(book, account, instrument_id)
        position.margin_mode = <uint8_t>mode
        book.revision += 1
    return REASON_NONE


cdef uint32_t set_leverage(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    int64_t leverage,
    bint validate_only,
    uint64_t now_ns,
    Change *change,
) noexcept nogil:
    """Set the leverage of a position; the figure is the leverage."""
    cdef Account *account
    cdef Instrument *instrument
    cdef Position *position
    cdef Terms terms
    cdef Holding holding
    cdef Share before, after
    cdef Pool pool, others
    cdef int64_t notional_max
    cdef uint32_t reason
    memset(change, 0, sizeof(Change))
    reason = _target(book, account_id, instrument_id, &account, &instrument)
    if reason != REASON_NONE:
        return reason
    position = position_find(book, account, instrument_id)
    terms_of(book, account, instrument, position, &terms)
    holding_of(position, &holding)
    pool_of(book, account, 0, now_ns, &pool)
    change.figure = terms.leverage
    change.available = _available_or_zero(&pool)
    if terms.is_option or leverage < LEVERAGE_ONE or leverage > terms.ladder.tiers[0].leverage_max:
        return REASON_LEVERAGE_OUT_OF_RANGE
    if holding.lots != 0 and terms.margin_mode == MARGIN_MODE_CROSS and instrument.mark.price == 0:
        return REASON_MARK_MISSING
    share_of(&terms, &holding, &before)
    if (
        terms.margin_mode == MARGIN_MODE_ISOLATED
        and holding.lots != 0
        and leverage < terms.leverage
    ):
        reason = REASON_LEVERAGE_LOWERED_ON_ISOLATED
    terms.leverage = leverage
    share_of(&terms, &holding, &after)
    notional_max = notional_max_at(terms.ladder, leverage)
    if notional_max != 0 and (
        after.buy_notional > notional_max or after.sell_notional > notional_max
    ):
        return REASON_LEVERAGE_OUT_OF_RANGE
    if reason != REASON_NONE:
        return reason
    pool_of(book, account, instrument_id, now_ns, &others)
    pool_add(&others, &after)
    if after.initial_margin > before.initial_margin:
        if pool.mark_reason != REASON_NONE:
            return pool.mark_reason
        if not pool_fits(&others) or available_of(&others) < 0:
            return REASON_EXCEEDS_AVAILABLE
    if position == NULL and book.position_count == book.position_capacity:
        return REASON_POSITIONS_FULL
    change.figure = leverage
    change.available = _available_or_zero(&others)
    if not validate_only:
        if position == NULL:
            position = position_add(book, account, instrument_id)
        position.leverage = <uint32_t>leverage
        book.revision += 1
    return REASON_NONE


cdef uint32_t set_trading_state(
    Book *book, uint32_t scope, uint64_t scope_id, uint32_t state
) noexcept nogil:
    cdef Account *account
    cdef Instrument *instrument
    if state < TRADING_STATE_NORMAL or state > TRADING_STATE_HALTED:
        return REASON_DEFINITION_INVALID
    if scope == SCOPE_SERVICE:
        book.service_state = state
    elif scope == SCOPE_GATEWAY:
        if scope_id == 0 or scope_id > UINT32_MAX:
            return REASON_GATEWAY_ID_MISSING
        if not gateway_set(book, <uint32_t>scope_id, state):
            return REASON_GATEWAYS_FULL
    elif scope == SCOPE_ACCOUNT:
        account = account_find(book, scope_id)
        if account == NULL:
            return REASON_ACCOUNT_UNKNOWN
        account.trading_state = <uint8_t>state
    elif scope == SCOPE_INSTRUMENT:
        instrument = instrument_find(book, <uint32_t>scope_id) if scope_id <= UINT32_MAX else NULL
        if instrument == NULL:
            return REASON_INSTRUMENT_UNKNOWN
        instrument.trading_state = <uint8_t>state
    else:
        return REASON_DEFINITION_INVALID
    book.revision += 1
    return REASON_NONE
