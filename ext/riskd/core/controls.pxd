"""Limits of accounts, firms and gateways (docs/limits.md): how they are checked and counted."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from riskd.core.book cimport Book
from riskd.core.money cimport i128
from riskd.core.types cimport (
    ORDERS_PER_BATCH_MAX,
    Account,
    DecisionDetail,
    Instrument,
    Level,
    LevelSums,
    Limit,
    Order,
)

cdef enum:
    # An order's account, the parent account, the firm; and the gateway.
    LEVELS_MAX = 3
    STANDS_MAX = 4
    # Of each the limits of the instrument and those of all.
    CHAINS_MAX = 7
    GREEKS = 3

# What an order adds, and what the price of it is measured against.
ctypedef struct Ask:
    i128 lots
    i128 value                      # at its price
    i128 margin_value               # at its margin price
    i128 reference                  # mark units; 0 = unknown
    int64_t price_ticks
    int64_t leverage                # hundredths; 0 = of none
    uint32_t side
    bint has_limit_price
    bint only_collars               # a strictly reducing order
    bint is_amendment

# Where one level stands without the order, and without the one that it would replace.
ctypedef struct Stand:
    const Account *account          # NULL of a firm
    const Level *level              # NULL of a gateway
    bint is_summed
    LevelSums here                  # of the instrument of the order
    i128 working_value
    uint64_t working_orders
    uint64_t scope_id
    uint32_t scope
    uint32_t owner
    bint has_allowed                # an ALLOWED of the instrument
    # What the marks make of its instruments, once it is asked for.
    bint is_valued
    bint mark_missing
    uint32_t mark_reason            # S-10, S-11
    i128 gross_elsewhere            # exposure in other instruments
    i128 unrealised
    i128 equity
    bint is_analysed
    bint greeks_known
    bint greeks_fit[GREEKS]
    i128 high[GREEKS]               # sums over the other instruments, in 1e-6
    i128 low[GREEKS]
    i128 factors[GREEKS]            # of one lot of the order's instrument

# The limits that one order meets.
ctypedef struct Controls:
    const Book *book
    const Instrument *instrument
    const Order *replaced           # the order that an amendment would replace, or NULL
    uint64_t now_ns
    uint32_t instrument_id
    uint32_t stand_count
    uint32_t chain_count
    Stand stands[STANDS_MAX]
    uint32_t chains[CHAINS_MAX]     # their first limits
    uint8_t chain_stands[CHAINS_MAX]

# What the order rates of a batch were before it.
ctypedef struct Tally:
    uint32_t count
    uint32_t places[ORDERS_PER_BATCH_MAX * STANDS_MAX]
    uint64_t due_ns[ORDERS_PER_BATCH_MAX * STANDS_MAX]

cdef Limit *limit_find(
    const Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id, uint32_t kind
) noexcept nogil
cdef bint is_minimum(uint32_t kind) noexcept nogil

cdef bint controls_of(
    const Book *book,
    const Account *account,
    const Instrument *instrument,
    uint32_t instrument_id,
    uint32_t gateway_id,
    const Order *replaced,
    uint64_t now_ns,
    Controls *controls,
) noexcept nogil
cdef void controls_check(
    Controls *controls, const Ask *ask, DecisionDetail *detail, uint32_t *first, uint32_t *soft
) noexcept nogil
cdef i128 controls_smallest(const Controls *controls, int64_t price_ticks) noexcept nogil
cdef bint controls_has_largest(uint32_t reason) noexcept nogil

cdef void controls_count_order(
    Book *book, const Account *account, uint32_t gateway_id, uint64_t now_ns, Tally *tally
) noexcept nogil
cdef void controls_uncount(Book *book, const Tally *tally) noexcept nogil
cdef void controls_count_execution(
    Book *book, const Account *account, uint64_t now_ns
) noexcept nogil
cdef void controls_raise_peaks(Book *book, const Account *account) noexcept nogil
cdef void controls_move_peaks(Book *book, const Account *account, i128 amount) noexcept nogil
cdef void peak_move(Book *book, const Level *level, i128 amount) noexcept nogil
cdef bint equity_of(
    const Book *book, const Account *account, const Level *level, int64_t *equity
) noexcept nogil
cdef inline int64_t limit_bound(const Limit *limit, uint64_t now_ns) noexcept nogil:
    """Return the value that counts now."""
    return limit.raised_value if now_ns < limit.raise_until_ns else limit.value

# Whether orders and executions use it up; others are compared with one order alone.
cdef bint limit_is_used_up(uint32_t kind) noexcept nogil
cdef bint limit_use(
    const Book *book, const Limit *limit, uint64_t now_ns, int64_t *use
) noexcept nogil
