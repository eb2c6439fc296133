"""State: accounts, positions, working orders, instruments, remembered answers.

Tables over flat memory.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from riskd.core.index cimport Index
from riskd.core.money cimport i128
from riskd.core.types cimport (
    Account,
    ClosedOrder,
    Collateral,
    Firm,
    Instrument,
    LevelHolding,
    Limit,
    Order,
    OrderRequest,
    Position,
    RiskEvent,
    Schedule,
)

ctypedef struct Asset:
    uint32_t scale
    char symbol[16]
    int64_t deficit

ctypedef struct Gateway:
    uint32_t gateway_id
    uint32_t trading_state
    uint64_t lease_end_ns           # 0 = it has no lease
    uint32_t lease_action
    uint32_t lease_swept            # whether what worked at its end was released

# What an account has of another asset than its own.
ctypedef struct Balance:
    int64_t amount
    uint32_t account_index
    uint32_t asset_id
    uint32_t next_of_account        # by rising asset
    uint32_t reserved

# What is kept of an answered request: its kind and key, its content for comparison, its reply's
# size.
ctypedef struct AnswerHead:
    uint64_t id
    uint32_t gateway_id
    uint32_t kind
    uint32_t reply_size
    uint32_t fact                   # of an execution
    # An OrderRequest or an ExecutionRequest without its time.
    uint8_t content[104]

# The largest reply that is remembered: an amendment's with every detail has less than 2400 bytes.
cdef enum: REMEMBERED_SIZE_MAX = 4096

cdef enum AnswerKind:
    ANSWER_ORDER = 1
    ANSWER_EXECUTION = 2
    ANSWER_AMENDMENT = 3

# Remembered answers, oldest first, in a ring of bytes with an index of its own: nobody but the
# ring's gateway can fill it or lengthen its chains.
ctypedef struct Ring:
    uint8_t *bytes
    uint64_t capacity
    uint64_t start
    uint64_t used
    Index index
# What became of a remembered execution.
cdef enum AnswerFact:
    ANSWER_FACT_NONE = 0
    ANSWER_FACT_APPLIED = 1
    ANSWER_FACT_UNDONE = 2

# In the order of the canonical state.
cdef enum:
    TABLE_ASSETS = 0
    TABLE_SCHEDULES = 1
    TABLE_INSTRUMENTS = 2
    TABLE_GATEWAYS = 3
    TABLE_ACCOUNTS = 4
    TABLE_BALANCES = 5
    TABLE_POSITIONS = 6
    TABLE_ORDERS = 7
    TABLE_CLOSED = 8
    TABLE_FIRMS = 9
    TABLE_LIMITS = 10
    TABLE_HOLDINGS = 11
    TABLE_RISK_EVENTS = 12
    TABLE_COLLATERALS = 13
    TABLES = 14

# What opening, resizing and snapshots need to know of a table, whatever is in it.
ctypedef struct Table:
    const char *name
    void **entries
    uint32_t *count
    uint32_t *capacity
    # Where entries come and go: how many places were ever taken, the first free one of them, and of
    # an entry whether it is in use and the next free place. Elsewhere NULL, and 0.
    uint32_t *top
    uint32_t *free
    uint32_t in_use_offset
    uint32_t link_offset
    uint32_t entry_size
    # Where the oldest entry is, if the table is a ring: it forgets what it has no room for.
    uint32_t *start

ctypedef struct Capacities:
    uint32_t entries[TABLES]
    uint64_t answer_bytes           # of one ring

# What all positions of an account add to its pool, kept while nothing but its own orders and fills
# changes it. It is not a part of the state: it is summed anew whenever it is not known.
ctypedef struct Sums:
    int64_t initial_margin
    int64_t isolated_wallets
    uint64_t age                    # Book.sums_age when it was summed; another: it is not known
    bint are_still                  # else a mark, or another asset, is in the figures: not kept

# What a book holds beside its tables and answers; the revision apart.
ctypedef struct Scalars:
    uint64_t answer_bytes
    uint32_t service_state
    uint32_t reserved
    uint32_t search_ppm
    uint32_t release_ppm

ctypedef struct Book:
    uint64_t revision

    Asset *assets
    uint32_t asset_count
    uint32_t asset_capacity

    Schedule *schedules
    uint32_t schedule_count
    uint32_t schedule_capacity

    Instrument *instruments
    uint32_t instrument_count
    uint32_t instrument_capacity

    Account *accounts
    uint32_t account_count
    uint32_t account_capacity
    Index account_index
    Sums *sums                      # of each account, at its place
    uint64_t sums_age               # of the sums that count
    uint64_t sums_revision          # another than the revision: none of them does any more

    Position *positions
    uint32_t position_count
    uint32_t position_capacity
    uint32_t position_top
    uint32_t position_free
    Index position_index

    Order *orders
    uint32_t order_count
    uint32_t order_capacity
    uint32_t order_top
    uint32_t order_free
    Index order_index
    Index client_order_index        # (gateway, client order id) of working orders
    uint32_t *expiries              # a heap of orders' places, the next to expire on top
    uint32_t expiry_count

    ClosedOrder *closed             # a ring
    uint32_t closed_count
    uint32_t closed_capacity
    uint32_t closed_start
    Index closed_index

    Balance *balances
    uint32_t balance_count
    uint32_t balance_capacity
    Index balance_index

    Gateway *gateways
    uint32_t gateway_count
    uint32_t gateway_capacity
    Index gateway_index

    # Two a gateway, at twice its place: of its orders and amendments, of its executions.
    Ring *rings
    void *ring_memory
    uint64_t ring_size              # bytes of memory of one ring with its index
    uint64_t answer_capacity        # bytes of one ring

    uint32_t service_state
    # Where the margin levels lie, of the liquidation requirement; 0 = off.
    uint32_t search_ppm
    uint32_t release_ppm

    Firm *firms
    uint32_t firm_count
    uint32_t firm_capacity
    Index firm_index

    Limit *limits
    uint32_t limit_count
    uint32_t limit_capacity
    uint32_t limit_top
    uint32_t limit_free
    uint32_t gateway_limit_count
    Index limit_index               # the first of each (scope, id, instrument)

    LevelHolding *holdings
    uint32_t holding_count
    uint32_t holding_capacity
    uint32_t holding_top
    uint32_t holding_free
    Index holding_index

    RiskEvent *risk_events          # a ring
    uint32_t risk_event_count
    uint32_t risk_event_capacity
    uint32_t risk_event_start

    Collateral *collaterals
    uint32_t collateral_count
    uint32_t collateral_capacity
    Index collateral_index

cdef enum:
    RESIZE_DONE = 1
    # A table holds more than it would have room for.
    RESIZE_IN_USE = 2
    RESIZE_NO_MEMORY = 3

# The room of the tables whose size is nobody's choice.
cdef void capacities_fixed(Capacities *capacities) noexcept nogil
cdef bint book_open(Book *book, const Capacities *capacities, uint64_t seed) noexcept nogil
cdef void book_close(Book *book) noexcept nogil
cdef void book_tables(Book *book, Table *tables) noexcept nogil
cdef void book_scalars(const Book *book, Scalars *scalars) noexcept nogil
cdef void book_set_scalars(Book *book, const Scalars *scalars) noexcept nogil
cdef const char *book_index(Book *book) noexcept nogil
cdef void book_capacities(const Book *book, Capacities *capacities) noexcept nogil
cdef uint32_t book_resize(
    Book *book, const Capacities *capacities, uint32_t *table
) noexcept nogil

cdef inline void book_step(Book *book) noexcept nogil:
    """Raise the revision for a change after which the sums that are kept are still right.

    Whoever raises it otherwise lets go of all of them.
    """
    if book.sums_revision == book.revision:
        book.sums_revision += 1
    book.revision += 1

cdef inline void book_step_back(Book *book) noexcept nogil:
    """Take a step back; the caller lets go of the sums that it changes."""
    if book.sums_revision == book.revision:
        book.sums_revision -= 1
    book.revision -= 1

cdef inline void sums_forget(Book *book, const Account *account) noexcept nogil:
    """Let go of an account's sums: its positions are changed."""
    book.sums[account - book.accounts].age = 0

# How many orders ahead each step of order_expect is taken.
cdef enum:
    EXPECT_ENTRIES = 3
    EXPECT_ACCOUNT = 2
    EXPECT_POSITIONS = 1

cdef void order_expect(
    const Book *book, const OrderRequest *order, uint32_t distance
) noexcept nogil
cdef void book_prefetch(
    const Book *book, const Ring *ring, uint32_t kind, uint32_t gateway_id, uint64_t id
) noexcept nogil

cdef Account *account_find(Book *book, uint64_t account_id) noexcept nogil
cdef Account *account_add(Book *book, uint64_t account_id) noexcept nogil
cdef uint32_t account_place(const Book *book, const Account *account) noexcept nogil

cdef Instrument *instrument_find(Book *book, uint32_t instrument_id) noexcept nogil

cdef Position *position_find(
    Book *book, const Account *account, uint32_t instrument_id, uint32_t position_side
) noexcept nogil
cdef bint takes_position_side(
    const Book *book, const Account *account, uint32_t instrument_id, uint32_t position_side
) noexcept nogil
cdef const Position *settings_of(
    const Book *book,
    const Account *account,
    const Position *position,
    uint32_t instrument_id,
    uint32_t position_side,
) noexcept nogil
cdef Position *position_add(
    Book *book, Account *account, uint32_t instrument_id, uint32_t position_side
) noexcept nogil
cdef void position_drop_if_absent(Book *book, Position *position) noexcept nogil

cdef Order *order_find(Book *book, uint64_t reservation_id) noexcept nogil
cdef Order *order_add(Book *book, uint64_t reservation_id) noexcept nogil
cdef void order_name(Book *book, Order *order) noexcept nogil
cdef Order *order_find_named(
    const Book *book, uint32_t gateway_id, uint64_t client_order_id
) noexcept nogil
cdef void order_drop(Book *book, Order *order) noexcept nogil

cdef void expiry_add(Book *book, Order *order) noexcept nogil
cdef void expiry_drop(Book *book, Order *order) noexcept nogil
cdef Order *expiry_first(Book *book) noexcept nogil

cdef void closed_prefetch(const Book *book, uint64_t reservation_id) noexcept nogil
cdef ClosedOrder *closed_find(const Book *book, uint64_t reservation_id) noexcept nogil
cdef void closed_add(Book *book, const Order *order) noexcept nogil

cdef const Gateway *gateway_find(const Book *book, uint32_t gateway_id) noexcept nogil
cdef uint32_t gateway_take(Book *book, uint32_t gateway_id) noexcept nogil
cdef bint gateway_set(Book *book, uint32_t gateway_id, uint32_t trading_state) noexcept nogil
cdef bint lease_set(
    Book *book, uint32_t gateway_id, uint64_t end_ns, uint32_t action
) noexcept nogil

cdef i128 base_held(
    const Book *book, const Account *account, uint32_t asset_id, const Position *left_out
) noexcept nogil
cdef int64_t balance_of(
    const Book *book, const Account *account, uint32_t asset_id
) noexcept nogil
cdef bint balance_has_room(
    const Book *book, const Account *account, uint32_t asset_id
) noexcept nogil
cdef void balance_set(
    Book *book, const Account *account, uint32_t asset_id, int64_t amount
) noexcept nogil

# The money of an account in any asset: its cash, or its balance of another asset than its own.
cdef inline int64_t money_of(
    const Book *book, const Account *account, uint32_t asset_id
) noexcept nogil:
    if asset_id == account.asset_id:
        return account.cash
    return balance_of(book, account, asset_id)

cdef inline void money_set(
    Book *book, Account *account, uint32_t asset_id, int64_t amount
) noexcept nogil:
    """Set it; the caller has made sure of the room."""
    if asset_id == account.asset_id:
        account.cash = amount
    else:
        balance_set(book, account, asset_id, amount)

cdef uint32_t money_rows_missing(
    const Book *book, const Account *account, uint32_t asset_id
) noexcept nogil

cdef inline bint money_has_room(
    const Book *book, const Account *account, uint32_t asset_id
) noexcept nogil:
    return asset_id == account.asset_id or balance_has_room(book, account, asset_id)

cdef Ring *ring_take(Book *book, uint32_t kind, uint32_t gateway_id) noexcept nogil
cdef const Ring *ring_find(const Book *book, uint32_t kind, uint32_t gateway_id) noexcept nogil
cdef bint answer_find(
    const Ring *ring, uint32_t kind, uint64_t id, AnswerHead *head, uint64_t *reply_offset
) noexcept nogil
cdef void answer_copy(
    const Ring *ring, uint64_t offset, uint8_t *target, uint64_t size
) noexcept nogil
cdef void answer_add(Ring *ring, const AnswerHead *head, const uint8_t *reply) noexcept nogil
cdef void answer_undo(Ring *ring, uint64_t reply_offset, AnswerHead *head) noexcept nogil
cdef uint64_t answer_size(uint32_t reply_size) noexcept nogil

cdef Firm *firm_find(const Book *book, uint32_t firm_id) noexcept nogil
cdef Firm *firm_add(Book *book, uint32_t firm_id) noexcept nogil

cdef LevelHolding *holding_find(
    const Book *book, uint32_t owner, uint32_t instrument_id
) noexcept nogil
cdef LevelHolding *holding_add(Book *book, uint32_t owner, uint32_t instrument_id) noexcept nogil
cdef void holding_drop(Book *book, LevelHolding *holding) noexcept nogil

cdef uint32_t limit_first(
    const Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id
) noexcept nogil
cdef Limit *limit_of_kind(const Book *book, uint32_t place, uint32_t kind) noexcept nogil
cdef Limit *limit_add(
    Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id, uint32_t kind
) noexcept nogil
cdef void limit_drop(Book *book, Limit *limit) noexcept nogil

cdef Collateral *collateral_find(
    const Book *book, uint32_t asset_id, uint32_t settlement_asset_id
) noexcept nogil
# Index what was copied into the table.
cdef void collaterals_index(Book *book) noexcept nogil
cdef Collateral *collateral_add(
    Book *book, uint32_t asset_id, uint32_t settlement_asset_id
) noexcept nogil

cdef RiskEvent *risk_event_add(Book *book) noexcept nogil
cdef const RiskEvent *risk_event_at(const Book *book, uint32_t index) noexcept nogil
