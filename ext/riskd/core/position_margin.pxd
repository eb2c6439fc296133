"""Margin of perpetuals and futures in double precision: one position, and arrays of them."""

from libc.stdint cimport int64_t, uint8_t

cdef enum:
    # Figures of a position, in the order of Position and of FIELDS.
    FIELD_QUANTITY = 0
    FIELD_ENTRY_PRICE = 1
    FIELD_MARK_PRICE = 2
    FIELD_WALLET = 3
    FIELD_LEVERAGE = 4
    FIELD_FEE_RATE = 5
    FIELD_SESSION_PRICE = 6
    FIELD_MULTIPLIER = 7
    FIELD_OPEN_LOSS = 8
    FIELD_OPEN_INTEREST = 9
    FIELD_TICK = 10
    FIELD_COUNT = 11
    # What else can be wrong with a position.
    FAULT_RATE = 11
    FAULT_RANGE = 12
    FAULT_SCHEDULE = 13

cdef enum:
    BASIS_MARK = 0
    BASIS_ENTRY = 1
    BASIS_SESSION = 2

cdef enum:
    WALLET_MARGIN = 0
    WALLET_WITH_PROFIT = 1
    WALLET_WITH_FEE = 2

cdef enum:
    LIQUIDATION_FEE_NONE = 0
    LIQUIDATION_FEE_AT_LIQUIDATION = 1
    LIQUIDATION_FEE_AT_BANKRUPTCY = 2
    LIQUIDATION_FEE_RESERVED = 3

cdef enum:
    MARGIN_FEE_NONE = 0
    MARGIN_FEE_TAKER = 1
    MARGIN_FEE_IN_MAINTENANCE = 2
    MARGIN_FEE_AT_BANKRUPTCY = 3

cdef enum:
    TIER_PRICE_LIQUIDATION = 0
    TIER_PRICE_ENTRY = 1
    TIER_PRICE_MARK = 2

cdef enum:
    ROUND_EXACT = 0
    ROUND_UP = 1
    ROUND_DOWN = 2
    ROUND_NEAREST = 3
    ROUND_AGAINST_ACCOUNT = 4
    ROUND_FOR_ACCOUNT = 5

cdef struct Position:
    double quantity
    double entry_price
    double mark_price
    double wallet
    double leverage
    double fee_rate
    double session_price
    double multiplier
    double open_loss
    double open_interest
    double tick

# The switches of riskd.margin.Rule, and which figures are there.
cdef struct Switches:
    int inverse
    int initial_entry
    int basis
    int wallet
    int fee_in_liquidation
    int fee_in_margin
    int fee_in_bankruptcy
    int tier_price
    int liquidation_rounding
    int bankruptcy_rounding
    int extra_ticks
    int has_mark
    int has_wallet

# i = initial[k] + initial_slope |q|, m and d likewise; d is negative where it is an amount on top.
cdef struct Schedule:
    int tier_count
    # The tables' length: a power of two, floors beyond the last tier are infinite.
    int table_size
    int by_quantity
    # Deductions are contracts: a part of the rate.
    int quantity_deduction
    int continuous
    int is_power
    double initial_slope
    double maintenance_slope
    double deduction_slope
    double initial_amount_slope
    double interest_lower
    double interest_upper
    double factor
    double power
    double *floors
    double *initial
    double *maintenance
    double *deduction
    # m_k f_k - d_k
    double *owed

cdef struct Terms:
    double initial_rate
    double maintenance_rate
    double deduction
    double initial_amount

# Where a column of a position's figures lies; a stride of 0 is one figure for all.
cdef struct Column:
    const char *first
    Py_ssize_t stride_bytes

cdef int requirement_of(
    const Position *position, const Schedule *schedule, const Switches *rule,
    double *initial, double *maintenance,
) noexcept nogil

cdef int liquidation_price_of(
    const Position *position, const Schedule *schedule, const Switches *rule,
    double *price, uint8_t *status,
) noexcept nogil

cdef int bankruptcy_price_of(
    const Position *position, const Switches *rule, double *price, uint8_t *status
) noexcept nogil


cdef class Family:
    cdef Switches _rule
    cdef Schedule *_schedules
    cdef Py_ssize_t _schedule_count

    cdef int _open(self, Py_ssize_t index, dict figures) except -1
    cdef const Schedule *_schedule_at(self, int64_t which) noexcept nogil
    cdef int _fill(
        self, int figure, const Switches *rule, const Column *columns, const int64_t[:] which,
        Py_ssize_t count, double *first, double *second, uint8_t *status, Py_ssize_t *stopped,
    ) noexcept nogil
    cdef _run(self, int figure, tuple figures, which, flags, first, second, status)
