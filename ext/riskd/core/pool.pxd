"""What positions add to their account's sums, and what a fill does to a position."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.book cimport Book
from riskd.core.hedge cimport Group
from riskd.core.margin cimport Terms
from riskd.core.money cimport i128
from riskd.core.types cimport (
    MARGIN_MODE_ISOLATED,
    POSITION_SIDE_NET,
    Account,
    Collateral,
    Instrument,
    Position,
    WorkingSum,
)

ctypedef struct Holding:
    int64_t lots
    int64_t entry_value
    int64_t wallet
    WorkingSum buy
    WorkingSum sell

# Why figures are not known.
cdef enum:
    UNKNOWN_MARK = 1                # one that they need was never reported
    UNKNOWN_MARGIN = 2              # that of a short option, or of one that is sold
    # What else is behind cross positions: what a balance counts, what a short option requires.
    UNKNOWN_BACKING = 4
    UNKNOWN_EQUITY = 5              # any of what is behind cross positions

# What one position adds to the sums of its account.
ctypedef struct Share:
    i128 initial_margin
    i128 pnl
    i128 maintenance
    i128 requirement
    i128 buy_notional
    i128 sell_notional
    i128 buy_lots                   # held and opened on the side
    i128 sell_lots
    i128 buy_initial                # initial margin of the side
    i128 sell_initial
    uint32_t unknown

# The sums of an account.
ctypedef struct Pool:
    i128 cash
    i128 pnl
    i128 initial_margin
    i128 maintenance
    i128 requirement
    i128 isolated_wallets
    i128 collateral                 # what balances of other assets count
    i128 credit                     # what of a line counts as equity; it cannot be paid out
    uint32_t mark_reason            # first missing or stale mark that the sums need, or REASON_NONE
    uint32_t unknown
    bint has_sides                  # some position is of another side than NET
    bint are_still                  # each of the positions is_still

# What the caller's position adds to (or takes from) what the books say that an account loses with a
# base asset.
ctypedef struct Exposed:
    i128 amount
    uint32_t asset_id               # in which the position is settled
    uint32_t base_asset_id

# What an account has in one other asset than its own, and what its positions that are settled in
# it come to there. It is converted as a whole: the more there is of an asset, the less each of it
# counts.
ctypedef struct Purse:
    i128 money
    i128 pnl
    i128 initial_margin
    i128 maintenance
    i128 requirement
    const Collateral *collateral    # what the asset counts; NULL if nobody says
    const Account *account
    Exposed exposed
    uint32_t asset_id               # 0: there is none
    uint32_t unknown
    bint is_open                    # there is a position, or an order that holds something

ctypedef struct Fill:
    i128 lots
    i128 entry_value
    i128 wallet
    i128 cash_change
    i128 realised_pnl
    i128 deficit
    i128 base_change                # of spot
    bint fits

cdef i128 mark_value_up(const Terms *terms, i128 lots, int64_t price) noexcept nogil
cdef i128 mark_value_down(const Terms *terms, i128 lots, int64_t price) noexcept nogil
cdef void terms_of(
    const Book *book,
    const Account *account,
    const Instrument *instrument,
    const Position *settings,
    Terms *terms,
) noexcept nogil
cdef void holding_of(const Position *position, Holding *holding) noexcept nogil
cdef i128 unrealised_pnl_at(
    const Terms *terms, i128 lots, i128 entry_value, int64_t price
) noexcept nogil
cdef i128 unrealised_pnl_of(const Terms *terms, i128 lots, i128 entry_value) noexcept nogil
cdef void share_of(const Terms *terms, const Holding *holding, Share *share) noexcept nogil
cdef void share_with_order(
    const Terms *terms, const Holding *holding, uint32_t side, const Share *before, Share *share
) noexcept nogil
cdef void pool_of(
    const Book *book,
    const Account *account,
    const Position *left_out,
    uint64_t now_ns,
    Pool *pool,
) noexcept nogil
cdef void pool_beside(
    const Book *book,
    const Account *account,
    const Instrument *instrument,
    const Position *left_out,
    bint needs_index,
    i128 exposed,
    uint64_t now_ns,
    Pool *pool,
    Purse *purse,
) noexcept nogil
cdef void pool_beside_order(
    const Book *book,
    const Account *account,
    const Terms *terms,
    const Position *left_out,
    uint32_t position_side,
    const Share *share,
    bint needs_index,
    i128 exposed,
    uint64_t now_ns,
    Pool *pool,
    Purse *purse,
) noexcept nogil
cdef void sums_add(Book *book, const Account *account, i128 margin_added) noexcept nogil
cdef uint32_t next_foreign_asset(
    const Book *book, const Account *account, uint32_t last
) noexcept nogil
cdef void purse_of(
    const Book *book, const Account *account, uint32_t asset_id, Purse *purse
) noexcept nogil
cdef bint purse_value_of(const Book *book, const Purse *purse, i128 *value) noexcept nogil
cdef i128 exposure_of(const Terms *terms, const Holding *holding) noexcept nogil
cdef void share_clear(Share *share) noexcept nogil
cdef void pool_add(Pool *pool, const Share *share) noexcept nogil
cdef void pool_add_foreign(
    const Book *book,
    const Purse *purse,
    const Share *share,
    bint is_open,
    i128 flow,
    Pool *pool,
) noexcept nogil

cdef inline bint is_still(const Terms *terms, int64_t lots, uint32_t position_side) noexcept nogil:
    """Whether what a position adds to the pool is the same whatever the marks are."""
    return (
        terms.is_plain
        and position_side == POSITION_SIDE_NET
        and (lots == 0 or terms.margin_mode == MARGIN_MODE_ISOLATED)
    )

cdef inline bint holding_is_open(const Holding *holding) noexcept nogil:
    """Whether there is a position, or an order that holds something."""
    return holding.lots != 0 or holding.buy.lots != 0 or holding.sell.lots != 0

cdef inline void pool_join(
    const Book *book,
    const Pool *beside,
    const Purse *purse,
    const Share *share,
    bint is_open,
    i128 flow,
    Pool *pool,
) noexcept nogil:
    """Write the sums of pool_beside with a position, and with what flows into its money."""
    pool[0] = beside[0]
    if purse.asset_id != 0:
        pool_add_foreign(book, purse, share, is_open, flow, pool)
        return
    pool_add(pool, share)
    pool.cash += flow
cdef bint pool_fits(const Pool *pool) noexcept nogil
cdef inline i128 equity_of_pool(const Pool *pool) noexcept nogil:
    return pool.cash + pool.pnl + pool.collateral + pool.credit

cdef inline i128 available_of(const Pool *pool) noexcept nogil:
    return equity_of_pool(pool) - pool.initial_margin

cdef inline i128 own_available_of(const Pool *pool) noexcept nogil:
    """Return what is available without credit, which cannot be paid out."""
    return available_of(pool) - pool.credit
cdef void fill_of(
    const Terms *terms,
    const Holding *holding,
    uint32_t side,
    int64_t price_ticks,
    i128 lots,
    i128 open_loss,
    Fill *fill,
) noexcept nogil
cdef uint32_t liquidation_price_ticks_of(
    const Terms *terms,
    i128 lots,
    i128 entry_value,
    i128 wallet,
    const Group *group,
    int64_t *price_ticks,
) noexcept nogil
cdef int64_t bankruptcy_price_ticks_of(
    const Terms *terms, i128 lots, i128 entry_value, i128 wallet
) noexcept nogil
