"""Changes from outside the hot door: collateral, margin transfers, modes, leverage, leases, trading
states.

Each is whole or not at all: every check comes before the first change. The rules are those of
docs/decision.md, "Changes from outside the hot door".
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.book cimport (
    Book,
    account_find,
    balance_has_room,
    balance_of,
    balance_set,
    base_held,
    collateral_find,
    firm_find,
    gateway_set,
    instrument_find,
    lease_set,
    money_has_room,
    money_of,
    money_set,
    position_add,
    position_find,
    settings_of,
    takes_position_side,
)
from riskd.core.collateral cimport is_foreign, may_trade
from riskd.core.controls cimport controls_move_peaks
from riskd.core.credit cimport credit_follow
from riskd.core.levels cimport level_move_money
from riskd.core.families cimport liquidation_margin_of, lots_max_at, position_initial_of
from riskd.core.margin cimport notional_max_at
from riskd.core.money cimport LEVERAGE_ONE, fits, i128, larger, magnitude
from riskd.core.pool cimport (
    Holding,
    Pool,
    Purse,
    Share,
    Terms,
    available_of,
    holding_of,
    mark_value_up,
    own_available_of,
    pool_beside,
    pool_fits,
    pool_join,
    pool_of,
    share_clear,
    share_of,
    terms_of,
    unrealised_pnl_of,
)
from riskd.core.types cimport *
from riskd.core.value cimport mark_reason_of

# A day.
cdef uint64_t LEASE_NS_MAX = 86_400_000_000_000


cdef int64_t available_or_zero(const Pool *pool) noexcept nogil:
    return <int64_t>available_of(pool) if pool_fits(pool) else 0


cdef bint covers_margin(const Pool *pool) noexcept nogil:
    """A-2: whether what there is covers the margin without credit."""
    return pool_fits(pool) and own_available_of(pool) >= 0


cdef uint32_t target_find(
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
    if not may_trade(book, account[0], instrument[0]):
        return REASON_SETTLEMENT_ASSET_MISMATCH
    return REASON_NONE


cdef uint32_t _leaves_pool(const Account *account, const Pool *pool, i128 amount) noexcept nogil:
    """Whether an amount may leave the pool.

    Unrealised profit backs orders, but cannot be paid out.
    """
    if pool.mark_reason != REASON_NONE:
        return pool.mark_reason
    if not pool_fits(pool):
        return REASON_EXCEEDS_AVAILABLE
    if amount > own_available_of(pool) or amount > account.cash:
        return REASON_EXCEEDS_AVAILABLE
    return REASON_NONE


cdef uint32_t _adjust_balance(
    Book *book,
    Account *account,
    uint32_t asset_id,
    int64_t amount,
    bint validate_only,
    uint64_t now_ns,
    Pool *pool,
    Change *change,
) noexcept nogil:
    """Change what an account, of which `pool` are the sums, has of another asset than its own."""
    cdef int64_t before = balance_of(book, account, asset_id)
    cdef i128 balance = <i128>before + amount
    cdef bint is_paid_out
    cdef uint32_t reason = REASON_NONE
    change.figure = before
    if amount == 0 or not fits(balance):
        return REASON_AMOUNT_OUT_OF_RANGE
    if asset_id == 0 or asset_id > book.asset_count:
        return REASON_ASSET_UNKNOWN
    # What spot orders sell stays.
    if amount < 0 and balance < base_held(book, account, asset_id, NULL):
        return REASON_EXCEEDS_AVAILABLE
    is_paid_out = amount < 0 and collateral_find(book, asset_id, account.asset_id) != NULL
    if is_paid_out and pool.mark_reason != REASON_NONE:
        return pool.mark_reason
    if balance != 0 and not balance_has_room(book, account, asset_id):
        return REASON_BALANCES_FULL
    # What it comes to is seen when it is there; it is taken back if that is too little.
    balance_set(book, account, asset_id, <int64_t>balance)
    pool_of(book, account, NULL, now_ns, pool)
    if is_paid_out and not covers_margin(pool):
        reason = REASON_EXCEEDS_AVAILABLE
    else:
        change.figure = <int64_t>balance
        change.available = available_or_zero(pool)
    if reason != REASON_NONE or validate_only:
        balance_set(book, account, asset_id, before)
        return reason
    credit_follow(book, account)
    book.revision += 1
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
    """Deposit or withdraw; the figure is the pool's cash, or the balance of another asset."""
    cdef Account *account = account_find(book, account_id)
    cdef Pool pool
    cdef uint32_t reason
    memset(change, 0, sizeof(Change))
    if account == NULL:
        return REASON_ACCOUNT_UNKNOWN
    pool_of(book, account, NULL, now_ns, &pool)
    change.available = available_or_zero(&pool)
    if asset_id != account.asset_id:
        return _adjust_balance(
            book, account, asset_id, amount, validate_only, now_ns, &pool, change
        )
    change.figure = account.cash
    if amount == 0 or not fits(<i128>account.cash + amount):
        return REASON_AMOUNT_OUT_OF_RANGE
    if amount < 0:
        reason = _leaves_pool(account, &pool, -<i128>amount)
        if reason != REASON_NONE:
            return reason
    pool.cash += amount
    change.figure = <int64_t>pool.cash
    change.available = available_or_zero(&pool)
    if not validate_only:
        account.cash = change.figure
        level_move_money(book, account, amount)
        controls_move_peaks(book, account, amount)
        credit_follow(book, account)
        book.revision += 1
    return REASON_NONE


cdef uint32_t _leaves_wallet(
    const Terms *terms, const Position *position, i128 amount, uint64_t now_ns
) noexcept nogil:
    """Whether an amount may leave the wallet of an isolated position."""
    cdef i128 notional, pnl, needed
    cdef uint32_t reason = mark_reason_of(terms.instrument, now_ns)
    if reason != REASON_NONE:
        return reason
    notional = mark_value_up(terms, magnitude(position.lots), terms.instrument.mark.price)
    pnl = unrealised_pnl_of(terms, position.lots, position.entry_value)
    needed = larger(
        position_initial_of(terms, position.lots, notional),
        liquidation_margin_of(terms, position.lots, position.entry_value, notional),
    )
    if position.wallet - amount + (pnl if pnl < 0 else 0) < needed:
        return REASON_EXCEEDS_REMOVABLE_MARGIN
    return REASON_NONE


cdef uint32_t transfer_margin(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    int64_t amount,
    bint validate_only,
    uint64_t now_ns,
    uint32_t position_side,
    Change *change,
) noexcept nogil:
    """Move margin between the pool and an isolated wallet; the figure is the wallet."""
    cdef Account *account
    cdef Instrument *instrument
    cdef Position *position
    cdef Terms terms
    cdef Pool pool
    cdef int64_t money
    cdef uint32_t reason
    memset(change, 0, sizeof(Change))
    reason = target_find(book, account_id, instrument_id, &account, &instrument)
    if reason != REASON_NONE:
        return reason
    pool_of(book, account, NULL, now_ns, &pool)
    change.available = available_or_zero(&pool)
    if not takes_position_side(book, account, instrument_id, position_side):
        return REASON_POSITION_SIDE_NOT_SUPPORTED
    position_side = max(position_side, <uint32_t>POSITION_SIDE_NET)
    position = position_find(book, account, instrument_id, position_side)
    terms_of(
        book,
        account,
        instrument,
        settings_of(book, account, position, instrument_id, position_side),
        &terms,
    )
    if position == NULL or position.lots == 0:
        return REASON_NO_ISOLATED_POSITION
    if terms.is_option or terms.margin_mode != MARGIN_MODE_ISOLATED:
        return REASON_NO_ISOLATED_POSITION
    change.figure = position.wallet
    money = money_of(book, account, instrument.asset_id)
    if amount == 0 or not fits(<i128>position.wallet + amount) or not fits(<i128>money - amount):
        return REASON_AMOUNT_OUT_OF_RANGE
    if amount < 0:
        reason = _leaves_wallet(&terms, position, -<i128>amount, now_ns)
    elif not is_foreign(account, instrument):
        reason = _leaves_pool(account, &pool, amount)
    elif pool.mark_reason != REASON_NONE:
        reason = pool.mark_reason
    elif amount > money:
        reason = REASON_EXCEEDS_AVAILABLE
    if reason != REASON_NONE:
        return reason
    if not money_has_room(book, account, instrument.asset_id):
        return REASON_BALANCES_FULL
    # What it comes to is seen when it is there; it is taken back if that is too little.
    money_set(book, account, instrument.asset_id, money - amount)
    pool_of(book, account, NULL, now_ns, &pool)
    if amount > 0 and is_foreign(account, instrument) and not covers_margin(&pool):
        reason = REASON_EXCEEDS_AVAILABLE
    else:
        change.figure = position.wallet + amount
        change.available = available_or_zero(&pool)
    if reason != REASON_NONE or validate_only:
        money_set(book, account, instrument.asset_id, money)
        return reason
    position.wallet = change.figure
    credit_follow(book, account)
    book.revision += 1
    return REASON_NONE


cdef bint is_engaged(
    const Book *book, const Account *account, uint32_t instrument_id
) noexcept nogil:
    """Whether an account has a position or working orders: on an instrument, or (0) on any."""
    cdef const Position *position
    cdef uint32_t place = account.first_position
    while place != NOWHERE:
        position = &book.positions[place]
        place = position.next_of_account
        if instrument_id != 0 and position.instrument_id != instrument_id:
            continue
        if position.lots != 0 or position.working_orders != 0:
            return True
    return False


cdef uint32_t set_leverage(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    int64_t leverage,
    bint validate_only,
    uint64_t now_ns,
    Change *change,
) noexcept nogil:
    """Set the leverage of an instrument's positions; the figure is the leverage."""
    cdef Account *account
    cdef Instrument *instrument
    cdef Position *settings
    cdef const Position *position
    cdef Terms terms, after_terms
    cdef Holding holding
    cdef Share before, after, rise
    cdef Pool pool, others
    cdef Purse purse
    cdef int64_t notional_max, lots_max
    cdef uint32_t reason, place
    cdef bint is_open = False
    cdef bint is_too_large
    cdef bint lowers
    memset(change, 0, sizeof(Change))
    reason = target_find(book, account_id, instrument_id, &account, &instrument)
    if reason != REASON_NONE:
        return reason
    settings = position_find(book, account, instrument_id, POSITION_SIDE_NET)
    terms_of(book, account, instrument, settings, &terms)
    pool_of(book, account, NULL, now_ns, &pool)
    change.figure = terms.leverage
    change.available = available_or_zero(&pool)
    if terms.is_option:
        return REASON_LEVERAGE_OUT_OF_RANGE
    pool_beside(book, account, instrument, NULL, False, 0, now_ns, &others, &purse)
    share_clear(&rise)
    # A leverage that is out of range is refused, whatever is figured out with it before.
    is_too_large = leverage < LEVERAGE_ONE or leverage > terms.ladder.tiers[0].leverage_max
    leverage = max(<int64_t>LEVERAGE_ONE, leverage)
    lowers = leverage < terms.leverage
    notional_max = notional_max_at(terms.ladder, leverage)
    lots_max = lots_max_at(terms.schedule, leverage)
    # One position, or in hedge mode the two of the instrument.
    place = account.first_position
    while place != NOWHERE:
        position = &book.positions[place]
        place = position.next_of_account
        if position.instrument_id != instrument_id:
            continue
        holding_of(position, &holding)
        if holding.lots != 0:
            is_open = True
        share_of(&terms, &holding, &before)
        after_terms = terms
        after_terms.leverage = leverage
        share_of(&after_terms, &holding, &after)
        rise.initial_margin += after.initial_margin - before.initial_margin
        if notional_max != 0 and (
            after.buy_notional > notional_max or after.sell_notional > notional_max
        ):
            is_too_large = True
        if after.buy_lots > lots_max or after.sell_lots > lots_max:
            is_too_large = True
    if is_open and terms.margin_mode == MARGIN_MODE_CROSS and instrument.mark.price == 0:
        return REASON_MARK_MISSING
    if is_too_large:
        return REASON_LEVERAGE_OUT_OF_RANGE
    if is_open and terms.margin_mode == MARGIN_MODE_ISOLATED and lowers:
        return REASON_LEVERAGE_LOWERED_ON_ISOLATED
    pool_join(book, &others, &purse, &rise, False, 0, &pool)
    if rise.initial_margin > 0:
        if pool.mark_reason != REASON_NONE:
            return pool.mark_reason
        if not covers_margin(&pool):
            return REASON_EXCEEDS_AVAILABLE
    if settings == NULL and book.position_count == book.position_capacity:
        return REASON_POSITIONS_FULL
    change.figure = leverage
    change.available = available_or_zero(&pool)
    if not validate_only:
        if settings == NULL:
            settings = position_add(book, account, instrument_id, POSITION_SIDE_NET)
        settings.leverage = <uint32_t>leverage
        credit_follow(book, account)
        book.revision += 1
    return REASON_NONE


cdef uint32_t set_position_mode(
    Book *book, uint64_t account_id, uint32_t position_mode
) noexcept nogil:
    """Let an account hold one position an instrument, or a long and a short one."""
    cdef Account *account = account_find(book, account_id)
    if account == NULL:
        return REASON_ACCOUNT_UNKNOWN
    if position_mode != POSITION_MODE_ONE_WAY and position_mode != POSITION_MODE_HEDGE:
        return REASON_DEFINITION_INVALID
    if is_engaged(book, account, 0):
        return REASON_POSITION_NOT_FLAT
    account.position_mode = <uint8_t>position_mode
    book.revision += 1
    return REASON_NONE


cdef uint32_t renew_lease(
    Book *book, uint64_t gateway_id, uint64_t duration_ns, uint32_t action, uint64_t now_ns
) noexcept nogil:
    """Let a gateway trade until `duration_ns` from now; 0 frees it of its lease."""
    cdef uint64_t end_ns = 0
    if gateway_id == 0 or gateway_id > UINT32_MAX:
        return REASON_GATEWAY_ID_MISSING
    if duration_ns > LEASE_NS_MAX:
        return REASON_DEFINITION_INVALID
    if duration_ns != 0:
        if action != LEASE_ACTION_BLOCK and action != LEASE_ACTION_CANCEL:
            return REASON_DEFINITION_INVALID
        end_ns = now_ns + duration_ns
    if not lease_set(book, <uint32_t>gateway_id, end_ns, action):
        return REASON_GATEWAYS_FULL
    book.revision += 1
    return REASON_NONE


cdef uint32_t check_filter(Book *book, const OrderFilter *wanted) noexcept nogil:
    """A-9, F-3, F-4: whether a filter names something, and what it names exists."""
    if wanted.gateway_id == 0 and wanted.account_id == 0 and wanted.instrument_id == 0:
        return REASON_DEFINITION_INVALID
    if wanted.side > SIDE_SELL:
        return REASON_DEFINITION_INVALID
    if wanted.account_id != 0 and account_find(book, wanted.account_id) == NULL:
        return REASON_ACCOUNT_UNKNOWN
    if wanted.instrument_id != 0 and instrument_find(book, wanted.instrument_id) == NULL:
        return REASON_INSTRUMENT_UNKNOWN
    return REASON_NONE


cdef bint filter_takes(
    const Book *book, const OrderFilter *wanted, const Order *order
) noexcept nogil:
    cdef const Position *position = &book.positions[order.position_index]
    if wanted.gateway_id != 0 and order.gateway_id != wanted.gateway_id:
        return False
    if wanted.account_id != 0 and (
        book.accounts[position.account_index].account_id != wanted.account_id
    ):
        return False
    if wanted.instrument_id != 0 and position.instrument_id != wanted.instrument_id:
        return False
    if wanted.side != 0 and order.side != wanted.side:
        return False
    return wanted.accepted_before_ns == 0 or order.accepted_ns < wanted.accepted_before_ns


cdef uint32_t set_trading_state(
    Book *book, uint32_t scope, uint64_t scope_id, uint32_t state
) noexcept nogil:
    cdef Account *account
    cdef Firm *firm
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
    elif scope == SCOPE_FIRM:
        firm = firm_find(book, <uint32_t>scope_id) if scope_id <= UINT32_MAX else NULL
        if firm == NULL:
            return REASON_FIRM_UNKNOWN
        firm.trading_state = state
    elif scope == SCOPE_INSTRUMENT:
        instrument = instrument_find(book, <uint32_t>scope_id) if scope_id <= UINT32_MAX else NULL
        if instrument == NULL:
            return REASON_INSTRUMENT_UNKNOWN
        instrument.trading_state = <uint8_t>state
    else:
        return REASON_DEFINITION_INVALID
    book.revision += 1
    return REASON_NONE
