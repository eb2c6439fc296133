"""Margin of perpetuals and futures in double precision: one position, and arrays of them.

The equations are those of riskd/margin/positions.py, which is exact. With sigma = +1 for a linear
long and an inverse short, -1 for the others, V the value at entry, x the money behind the position
less what was frozen at entry, phi the liquidation fee rate, tier k has the root

    N_k = (y - sigma d_k) / (1 - sigma (m_k + phi)),   y = V - sigma x

and where the requirement is continuous it lies above the floor f_k of its tier if and only if

    y > f_k - sigma (m_k f_k - d_k + phi f_k)

which rises with k. So one search without branches finds the tier, and there is no bracket to try.

Error against exact arithmetic: a requirement is a product and a difference, 3 ulp of m N; N_k has
an error of 4 ulp of (V + |x| + |d_k|) over the divisor. A position that is nearly as large as its
entry value has all its digits, one whose root is a small difference of large figures loses those
that cancel.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.float cimport DBL_MAX
from libc.math cimport INFINITY, NAN, ceil, copysign, fabs, floor, pow, rint
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset

from riskd.core.types cimport (
    LIQUIDATION_STATUS_AT_PRICE,
    LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED,
    LIQUIDATION_STATUS_NO_POSITION,
)

FIELDS = (
    "quantity",
    "entry_price",
    "mark_price",
    "wallet",
    "leverage",
    "fee_rate",
    "session_price",
    "multiplier",
    "open_loss",
    "open_interest",
    "tick",
)
# By the number that an entry point returns for a position that it refuses.
BOUNDS = (
    "must be finite",
    "must be above 0",
    "must be above 0",
    "must be finite",
    "must not be below 1",
    "must be 0 or more and below 1",
    "must be above 0",
    "must be above 0",
    "must not be below 0",
    "must not be below 0",
    "must not be below 0",
)

cdef enum:
    TABLE_COUNT = 5
    HALVINGS_MAX = 200

# What Cython cannot say: loops in vectors, in a variant for each kind of processor.
cdef extern from "position_margin.h":
    void riskd_tiers_below(
        const double *keys, const double *floors, int tiers, int count, int64_t *below
    ) nogil
    void riskd_signed_tiers_below(
        const double *keys, const double *signs, const double *floors, const double *owed,
        int tiers, int count, int64_t *below
    ) nogil
    void riskd_values(
        const double *quantity, const double *multiplier, const double *price, int inverse,
        int count, double *size, double *value, double *sign
    ) nogil
    void riskd_requirements(
        const double *value, const double *leverage, const int64_t *tier,
        const double *initial_rates, const double *maintenance_rates, const double *deductions,
        int count, double *initial, double *maintenance
    ) nogil
    void riskd_changes(
        const double *value, const double *sign, const double *wallet, int count, double *change
    ) nogil
    void riskd_terms(
        const double *sign, const int64_t *tier, const double *deductions, const double *rates,
        int count, double *change, double *part
    ) nogil
    void riskd_prices(
        const double *change, const double *part, const double *size, int inverse, int count,
        double *price
    ) nogil
    bint riskd_all_within(const double *figures, double low, double high, int count) nogil

cdef enum:
    # Positions that are worked on at a time, a multiple of the vectors' lanes: their figures stay
    # in the first cache.
    BLOCK = 256
    BLOCK_TIERS_MAX = 128
    # Fewer positions are worked on one by one.
    LANES_MIN = 16

# Figures of a block. Members of one struct do not overlap, so loops over them become vectors.
cdef struct Block:
    double quantity[BLOCK]
    double price[BLOCK]
    double other[BLOCK]
    double multiplier[BLOCK]
    double size[BLOCK]
    double sign[BLOCK]
    double value[BLOCK]
    double first[BLOCK]
    double second[BLOCK]
    int64_t tier[BLOCK]

# A schedule's tables with one liquidation fee rate in them.
cdef struct FeeTables:
    # m_k + phi, and that of the floor less the deduction.
    double rate[BLOCK_TIERS_MAX]
    double owed[BLOCK_TIERS_MAX]

cdef enum:
    FIGURE_REQUIREMENT = 0
    FIGURE_LIQUIDATION = 1
    FIGURE_BANKRUPTCY = 2

# The least double above 0.
cdef double LEAST = 5e-324

# A price within this part of itself of a whole number of ticks is that number: what is left of
# rounding, 2^-40.
cdef double TICK_TOLERANCE = 9.094947017729282e-13


cdef inline bint is_positive(double x) noexcept nogil:
    return x > 0.0 and x < INFINITY


cdef inline bint is_not_negative(double x) noexcept nogil:
    return x >= 0.0 and x < INFINITY


# The number of the first figure that is out of its bounds, plus 1; 0 is none. Figures that were not
# given hold a number that is within. In two parts, because those of the second are seldom columns.
cdef inline int fault_of_first(const Position *position) noexcept nogil:
    if not fabs(position.quantity) < INFINITY:
        return FIELD_QUANTITY + 1
    if not is_positive(position.entry_price):
        return FIELD_ENTRY_PRICE + 1
    if not is_positive(position.mark_price):
        return FIELD_MARK_PRICE + 1
    if not fabs(position.wallet) < INFINITY:
        return FIELD_WALLET + 1
    if not position.leverage >= 1.0:
        return FIELD_LEVERAGE + 1
    return 0


cdef inline int fault_of_rest(const Position *position) noexcept nogil:
    if not (0.0 <= position.fee_rate < 1.0):
        return FIELD_FEE_RATE + 1
    if not is_positive(position.session_price):
        return FIELD_SESSION_PRICE + 1
    if not is_positive(position.multiplier):
        return FIELD_MULTIPLIER + 1
    if not is_not_negative(position.open_loss):
        return FIELD_OPEN_LOSS + 1
    if not is_not_negative(position.open_interest):
        return FIELD_OPEN_INTEREST + 1
    if not is_not_negative(position.tick):
        return FIELD_TICK + 1
    return 0


cdef inline double value_at(
    const Position *position, const Switches *rule, double price
) noexcept nogil:
    cdef double size = fabs(position.quantity) * position.multiplier
    return size / price if rule.inverse else size * price


cdef inline double sigma_of(const Position *position, const Switches *rule) noexcept nogil:
    return copysign(1.0, -position.quantity if rule.inverse else position.quantity)


# The last entry below the key; entry 0 is not read. The table's length is a power of two.
cdef inline Py_ssize_t last_below(
    const double *table, int table_size, double key
) noexcept nogil:
    cdef Py_ssize_t index = 0
    cdef Py_ssize_t half = table_size >> 1
    while half > 0:
        index += half * (table[index + half] < key)
        half >>= 1
    return index


# The tier that holds the root: the last floor whose threshold is below y.
cdef inline Py_ssize_t last_below_signed(
    const Schedule *schedule, double sigma, double phi, double y
) noexcept nogil:
    cdef Py_ssize_t index = 0
    cdef Py_ssize_t half = schedule.table_size >> 1
    cdef Py_ssize_t k
    cdef double owed
    while half > 0:
        k = index + half
        owed = schedule.owed[k] + phi * schedule.floors[k]
        index += half * (schedule.floors[k] - sigma * owed < y)
        half >>= 1
    return index


cdef inline double power_rate(
    const Schedule *schedule, double base, double notional
) noexcept nogil:
    cdef double rate = base / schedule.initial[0] * schedule.factor * pow(notional, schedule.power)
    return min(1.0, max(base, rate))


cdef inline double scaled_rate(
    const Schedule *schedule, double base, double open_interest
) noexcept nogil:
    cdef double share = (open_interest - schedule.interest_lower) / (
        schedule.interest_upper - schedule.interest_lower
    )
    cdef double raised = base + (1.0 - base) * min(1.0, max(0.0, share))
    # Cut to whole millionths, but for what is left of rounding.
    return max(base, floor(raised * 1e6 + 1e-6) / 1e6)


cdef inline void terms_at(
    const Position *position, const Schedule *schedule, double notional, Terms *out
) noexcept nogil:
    cdef double size = fabs(position.quantity)
    cdef double key = size if schedule.by_quantity else notional
    cdef Py_ssize_t k = last_below(schedule.floors, schedule.table_size, key)
    out.initial_rate = schedule.initial[k] + schedule.initial_slope * size
    out.maintenance_rate = schedule.maintenance[k] + schedule.maintenance_slope * size
    out.deduction = schedule.deduction[k] - schedule.deduction_slope * size
    out.initial_amount = schedule.initial_amount_slope * size
    if schedule.initial_slope > 0.0 or schedule.maintenance_slope > 0.0:
        out.initial_rate = min(1.0, out.initial_rate)
        out.maintenance_rate = min(1.0, out.maintenance_rate)
    if schedule.quantity_deduction:
        out.maintenance_rate -= out.deduction / size if size > 0.0 else 0.0
        out.deduction = 0.0
    if schedule.interest_upper > 0.0:
        out.initial_rate = scaled_rate(schedule, out.initial_rate, position.open_interest)
    if schedule.is_power:
        out.initial_rate = power_rate(schedule, schedule.initial[0], notional)
        out.maintenance_rate = power_rate(schedule, schedule.maintenance[0], notional)


cdef inline double frozen_maintenance(
    const Position *position, const Schedule *schedule, double value
) noexcept nogil:
    cdef Terms terms
    terms_at(position, schedule, value, &terms)
    return max(0.0, terms.maintenance_rate * value - terms.deduction)


# The fee of closing at the bankruptcy price of the leverage.
cdef inline double closing_fee(const Position *position, double sigma, double value) noexcept nogil:
    return position.fee_rate * value * (1.0 - sigma / position.leverage)


# A reserved fee is that of the worse side, whose value grows up to its bankruptcy, for both.
cdef inline double side_of_fee(const Switches *rule, double sigma) noexcept nogil:
    return -1.0 if rule.fee_in_liquidation == LIQUIDATION_FEE_RESERVED else sigma


cdef int requirement_of(
    const Position *position, const Schedule *schedule, const Switches *rule,
    double *initial, double *maintenance,
) noexcept nogil:
    cdef double price = position.mark_price
    cdef double value
    cdef double basis
    cdef double fee
    cdef Terms terms
    value = value_at(
        position, rule, position.entry_price if rule.initial_entry else position.mark_price
    )
    terms_at(position, schedule, value, &terms)
    initial[0] = max(
        max(terms.initial_rate * value, terms.initial_amount), value / position.leverage
    )
    if rule.basis == BASIS_MARK and not rule.initial_entry:
        basis = value
    else:
        if rule.basis == BASIS_ENTRY:
            price = position.entry_price
        elif rule.basis == BASIS_SESSION:
            price = position.session_price
        basis = value_at(position, rule, price)
        terms_at(position, schedule, basis, &terms)
    maintenance[0] = max(0.0, terms.maintenance_rate * basis - terms.deduction)
    if rule.fee_in_margin != MARGIN_FEE_NONE:
        if rule.fee_in_margin == MARGIN_FEE_AT_BANKRUPTCY:
            fee = closing_fee(position, sigma_of(position, rule), value)
            initial[0] += fee
            maintenance[0] += fee
        else:
            maintenance[0] += position.fee_rate * basis
            if rule.fee_in_margin == MARGIN_FEE_TAKER:
                initial[0] += position.fee_rate * value
    initial[0] += position.open_loss
    if not (initial[0] < INFINITY and maintenance[0] < INFINITY):
        return FAULT_RANGE + 1
    return 0


# M, the money behind the position without its unrealised profit.
cdef inline double money_of(
    const Position *position, const Switches *rule, double sigma, double value
) noexcept nogil:
    cdef double money
    if not rule.has_wallet:
        money = value / position.leverage
        if rule.wallet == WALLET_WITH_FEE:
            money += closing_fee(position, side_of_fee(rule, sigma), value)
        return money
    if rule.wallet == WALLET_WITH_PROFIT:
        return position.wallet - sigma * (value_at(position, rule, position.mark_price) - value)
    return position.wallet


cdef inline double reserved_fee(
    const Position *position, const Switches *rule, double sigma, double value
) noexcept nogil:
    if rule.fee_in_liquidation != LIQUIDATION_FEE_RESERVED or rule.wallet != WALLET_WITH_FEE:
        return 0.0
    return closing_fee(position, side_of_fee(rule, sigma), value)


cdef inline double bankruptcy_value(
    const Position *position, const Switches *rule, double sigma, double value, double money
) noexcept nogil:
    if rule.fee_in_bankruptcy and position.fee_rate > 0.0:
        return (value - sigma * money) / (1.0 - sigma * position.fee_rate)
    return value - sigma * (money - reserved_fee(position, rule, sigma, value))


# The price of a value N, rounded. A value that is not above 0 is no price for sigma = +1, and for
# -1 the end of all prices: 0 for a linear short, infinity for an inverse long.
cdef inline void print_price(
    const Position *position, const Switches *rule, double sigma, double notional, int rounding,
    int extra_ticks, double *price, uint8_t *status,
) noexcept nogil:
    cdef double size = fabs(position.quantity) * position.multiplier
    cdef double side = copysign(1.0, position.quantity)
    cdef double count
    cdef double whole
    status[0] = LIQUIDATION_STATUS_AT_PRICE
    if not notional > 0.0:
        if sigma > 0.0:
            price[0] = NAN
            status[0] = LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
        else:
            price[0] = INFINITY if rule.inverse else 0.0
        return
    price[0] = size / notional if rule.inverse else notional / size
    if position.tick == 0.0:
        return
    if rounding != ROUND_EXACT:
        count = price[0] / position.tick
        whole = rint(count)
        if fabs(count - whole) > TICK_TOLERANCE * count:
            if rounding == ROUND_NEAREST:
                whole = floor(count + 0.5)
            elif rounding == ROUND_UP or (
                rounding != ROUND_DOWN and (rounding == ROUND_AGAINST_ACCOUNT) == (side > 0.0)
            ):
                whole = ceil(count)
            else:
                whole = floor(count)
        price[0] = whole * position.tick
    price[0] = max(0.0, price[0] + side * extra_ticks * position.tick)


cdef int bankruptcy_price_of(
    const Position *position, const Switches *rule, double *price, uint8_t *status
) noexcept nogil:
    cdef double sigma
    cdef double value
    cdef double notional
    if position.quantity == 0.0:
        price[0] = NAN
        status[0] = LIQUIDATION_STATUS_NO_POSITION
        return 0
    sigma = sigma_of(position, rule)
    value = value_at(position, rule, position.entry_price)
    notional = bankruptcy_value(
        position, rule, sigma, value, money_of(position, rule, sigma, value)
    )
    if not fabs(notional) < INFINITY:
        return FAULT_RANGE + 1
    print_price(
        position, rule, sigma, notional, rule.bankruptcy_rounding, 0, price, status
    )
    return 0


# Where the requirement jumps at a floor: the first notional, from `begin` in the losing direction,
# at which equity is not above it, or what is not above 0.
cdef double first_notional(
    const Schedule *schedule, double sigma, double y, double phi, double begin
) noexcept nogil:
    cdef Py_ssize_t k = last_below(schedule.floors, schedule.table_size, begin)
    cdef double bound = begin
    cdef double root
    if sigma > 0.0:
        while True:
            root = (y - schedule.deduction[k]) / (1.0 - schedule.maintenance[k] - phi)
            if k == 0 or root > schedule.floors[k]:
                return min(root, bound)
            bound = schedule.floors[k]
            k -= 1
    while True:
        root = (y + schedule.deduction[k]) / (1.0 + schedule.maintenance[k] + phi)
        if k + 1 == schedule.tier_count or root <= schedule.floors[k + 1]:
            return max(root, bound)
        bound = schedule.floors[k + 1]
        k += 1


# The same for rates of a power of the notional, by halving.
cdef double halved_notional(
    const Schedule *schedule, double sigma, double y, double phi, double begin
) noexcept nogil:
    cdef double safe = begin
    cdef double lost = 0.0 if sigma > 0.0 else y
    cdef double middle
    cdef double rate
    cdef int round
    if sigma > 0.0 and y < 0.0:
        return 0.0
    for round in range(HALVINGS_MAX):
        # Equity less requirement is sigma (N - y) - rate N; the first look is at `begin` itself.
        middle = 0.5 * (safe + lost) if round > 0 else begin
        rate = power_rate(schedule, schedule.maintenance[0], middle) + phi
        if sigma * (middle - y) - rate * middle > 0.0:
            if round > 0 and middle == safe:
                break
            safe = middle
        else:
            if round == 0:
                return begin
            if middle == lost:
                break
            lost = middle
    return lost


cdef int liquidation_price_of(
    const Position *position, const Schedule *schedule, const Switches *rule,
    double *price, uint8_t *status,
) noexcept nogil:
    cdef double sigma
    cdef double value
    cdef double money
    cdef double y
    cdef double notional
    cdef double phi = 0.0
    cdef double rate = 0.0
    cdef double begin
    cdef Py_ssize_t index
    cdef Terms terms
    if position.quantity == 0.0:
        price[0] = NAN
        status[0] = LIQUIDATION_STATUS_NO_POSITION
        return 0
    sigma = sigma_of(position, rule)
    value = value_at(position, rule, position.entry_price)
    money = money_of(position, rule, sigma, value)
    if rule.fee_in_liquidation != LIQUIDATION_FEE_NONE:
        if rule.fee_in_liquidation == LIQUIDATION_FEE_AT_LIQUIDATION:
            phi = position.fee_rate
        elif rule.fee_in_liquidation == LIQUIDATION_FEE_AT_BANKRUPTCY:
            money -= position.fee_rate * max(
                0.0, bankruptcy_value(position, rule, sigma, value, money)
            )
        else:
            money -= reserved_fee(position, rule, sigma, value)
    if (
        rule.basis == BASIS_MARK and schedule.continuous
        and rule.tier_price == TIER_PRICE_LIQUIDATION
    ):
        y = value - sigma * money
        index = last_below_signed(schedule, sigma, phi, y)
        rate = schedule.maintenance[index] + phi
        notional = (y - sigma * schedule.deduction[index]) / (1.0 - sigma * rate)
    elif rule.basis != BASIS_MARK:
        money -= frozen_maintenance(
            position, schedule, value if rule.basis == BASIS_ENTRY else value_at(
                position, rule, position.session_price
            )
        )
        rate = phi
        y = value - sigma * money
        notional = y / (1.0 - sigma * phi)
    else:
        y = value - sigma * money
        begin = value_at(position, rule, position.mark_price) if rule.has_mark else value
        if (
            rule.tier_price == TIER_PRICE_LIQUIDATION
            and not schedule.by_quantity
            and (schedule.is_power or schedule.tier_count > 1)
        ):
            rate = schedule.maintenance[schedule.tier_count - 1] + phi
            if schedule.is_power:
                notional = halved_notional(schedule, sigma, y, phi, begin)
            else:
                notional = first_notional(schedule, sigma, y, phi, begin)
        else:
            terms_at(
                position, schedule, begin if rule.tier_price == TIER_PRICE_MARK else value, &terms
            )
            rate = terms.maintenance_rate + phi
            notional = (y - sigma * terms.deduction) / (1.0 - sigma * rate)
    if rate >= 1.0:
        return FAULT_RATE + 1
    if not fabs(notional) < INFINITY:
        return FAULT_RANGE + 1
    print_price(
        position, rule, sigma, notional, rule.liquidation_rounding, rule.extra_ticks, price, status
    )
    return 0


cdef inline double figure_at(const Column *column, Py_ssize_t i) noexcept nogil:
    return (<const double *>(column.first + i * column.stride_bytes))[0]


cdef inline int read_first(const Column *columns, Py_ssize_t i, Position *out) noexcept nogil:
    out.quantity = figure_at(&columns[FIELD_QUANTITY], i)
    out.entry_price = figure_at(&columns[FIELD_ENTRY_PRICE], i)
    out.mark_price = figure_at(&columns[FIELD_MARK_PRICE], i)
    out.wallet = figure_at(&columns[FIELD_WALLET], i)
    out.leverage = figure_at(&columns[FIELD_LEVERAGE], i)
    return fault_of_first(out)


cdef inline int read_rest(const Column *columns, Py_ssize_t i, Position *out) noexcept nogil:
    out.fee_rate = figure_at(&columns[FIELD_FEE_RATE], i)
    out.session_price = figure_at(&columns[FIELD_SESSION_PRICE], i)
    out.multiplier = figure_at(&columns[FIELD_MULTIPLIER], i)
    out.open_loss = figure_at(&columns[FIELD_OPEN_LOSS], i)
    out.open_interest = figure_at(&columns[FIELD_OPEN_INTEREST], i)
    out.tick = figure_at(&columns[FIELD_TICK], i)
    return fault_of_rest(out)


# Fill the columns from the arrays. The arrays must outlive them.
cdef int open_columns(tuple figures, Py_ssize_t count, Column *columns) except -1:
    cdef const double[:] column
    cdef int field
    if len(figures) != FIELD_COUNT:
        raise ValueError(f"figures: {len(figures)} columns, not {FIELD_COUNT}")
    for field in range(FIELD_COUNT):
        column = figures[field]
        if column.shape[0] != count:
            raise ValueError(f"{FIELDS[field]} has {column.shape[0]} figures, not {count}")
        columns[field].first = <const char *>&column[0]
        columns[field].stride_bytes = column.strides[0]
    return 0


# Whether one of the last columns has more than one figure.
cdef bint rest_varies(const Column *columns) noexcept nogil:
    cdef int field
    for field in range(FIELD_FEE_RATE, FIELD_COUNT):
        if columns[field].stride_bytes != 0:
            return True
    return False


# Return the next figures of a column, padded with `pad` to whole lanes: where they lie if that can
# be, else copied to `room`. One figure for all is copied with the first block.
cdef inline const double *read_column(
    const Column *column, Py_ssize_t start, int count, double pad, double *room
) noexcept nogil:
    cdef int i
    if column.stride_bytes == sizeof(double) and count % 8 == 0:
        return <const double *>(column.first + start * column.stride_bytes)
    if column.stride_bytes == 0:
        if start == 0:
            for i in range(BLOCK):
                room[i] = figure_at(column, 0)
        return room
    for i in range(count):
        room[i] = figure_at(column, start + i)
    for i in range(count, (count + 7) & ~7):
        room[i] = pad
    return room


# Read the next positions, their sizes, signs and values at a price; 0 if a figure is out of its
# bounds.
cdef inline bint read_block(
    const Column *columns, int price_field, Py_ssize_t start, int count, int inverse, Block *block
) noexcept nogil:
    cdef int lanes = (count + 7) & ~7
    cdef const double *quantity = read_column(
        &columns[FIELD_QUANTITY], start, count, 1.0, block.quantity
    )
    cdef const double *multiplier = read_column(
        &columns[FIELD_MULTIPLIER], start, count, 1.0, block.multiplier
    )
    cdef const double *price = read_column(
        &columns[price_field], start, count, 1.0, block.price
    )
    riskd_values(
        quantity, multiplier, price, inverse, lanes, block.size, block.value, block.sign
    )
    return (
        riskd_all_within(price, LEAST, DBL_MAX, lanes)
        # The multiplier is one figure for all, and was looked at. Quantities are finite where sizes
        # are; sizes and values that overflow are looked at one by one.
        and riskd_all_within(block.size, 0.0, DBL_MAX, lanes)
        and riskd_all_within(block.value, 0.0, DBL_MAX, lanes)
    )


# Whether requirements are those of the tiers at the mark and nothing else.
cdef bint is_plain_requirement(
    const Column *columns, const Schedule *schedule, const Switches *rule
) noexcept nogil:
    if rule.basis != BASIS_MARK or rule.initial_entry or rule.fee_in_margin != MARGIN_FEE_NONE:
        return False
    if schedule.by_quantity or schedule.is_power or schedule.interest_upper > 0.0:
        return False
    if schedule.initial_slope > 0.0 or schedule.maintenance_slope > 0.0:
        return False
    if schedule.deduction_slope > 0.0 or schedule.initial_amount_slope > 0.0:
        return False
    return figure_at(&columns[FIELD_OPEN_LOSS], 0) == 0.0


# 0: a figure is out of its bounds, nothing is written.
cdef bint requirements_of_block(
    const Column *columns, Py_ssize_t start, int count, const Schedule *schedule,
    const Switches *rule, Block *block, double *initial, double *maintenance,
) noexcept nogil:
    cdef int lanes = (count + 7) & ~7
    cdef const double *leverage = read_column(
        &columns[FIELD_LEVERAGE], start, count, 1.0, block.other
    )
    if not read_block(columns, FIELD_MARK_PRICE, start, count, rule.inverse, block):
        return False
    if not riskd_all_within(leverage, 1.0, INFINITY, lanes):
        return False
    riskd_tiers_below(block.value, schedule.floors, schedule.tier_count, lanes, block.tier)
    riskd_requirements(
        block.value, leverage, block.tier, schedule.initial, schedule.maintenance,
        schedule.deduction, count, initial + start, maintenance + start,
    )
    return True


# Whether the liquidation equation is that of continuous tiers with one fee rate for all. Fills the
# tables for it.
cdef bint is_plain_liquidation(
    const Column *columns, const Schedule *schedule, const Switches *rule, FeeTables *tables
) noexcept nogil:
    cdef int k
    cdef double phi = 0.0
    cdef double rate
    if rule.basis != BASIS_MARK or rule.tier_price != TIER_PRICE_LIQUIDATION:
        return False
    if not schedule.continuous or schedule.tier_count > BLOCK_TIERS_MAX:
        return False
    if rule.wallet != WALLET_MARGIN or not rule.has_wallet:
        return False
    if rule.fee_in_liquidation == LIQUIDATION_FEE_AT_LIQUIDATION:
        phi = figure_at(&columns[FIELD_FEE_RATE], 0)
    elif rule.fee_in_liquidation == LIQUIDATION_FEE_AT_BANKRUPTCY:
        return False
    for k in range(schedule.tier_count):
        rate = schedule.maintenance[k] + phi
        if rate >= 1.0:
            return False
        tables.owed[k] = rate * schedule.floors[k] - schedule.deduction[k]
        tables.rate[k] = rate
    return True


# 0: a figure is out of its bounds, nothing is written.
cdef bint liquidation_prices_of_block(
    const Column *columns, Py_ssize_t start, int count, const Schedule *schedule,
    const Switches *rule, const FeeTables *tables, Block *block, double *price, uint8_t *status,
) noexcept nogil:
    cdef int i
    cdef int lanes = (count + 7) & ~7
    cdef Position position
    cdef const double *wallet = read_column(
        &columns[FIELD_WALLET], start, count, 0.0, block.other
    )
    if not read_block(columns, FIELD_ENTRY_PRICE, start, count, rule.inverse, block):
        return False
    if not riskd_all_within(wallet, -DBL_MAX, DBL_MAX, lanes):
        return False
    riskd_changes(block.value, block.sign, wallet, lanes, block.first)
    riskd_signed_tiers_below(
        block.first, block.sign, schedule.floors, tables.owed, schedule.tier_count, lanes,
        block.tier,
    )
    riskd_terms(
        block.sign, block.tier, schedule.deduction, tables.rate, lanes, block.first, block.second
    )
    if not riskd_all_within(block.first, -DBL_MAX, DBL_MAX, lanes):
        return False
    if (
        figure_at(&columns[FIELD_TICK], 0) == 0.0
        and riskd_all_within(block.first, LEAST, DBL_MAX, lanes)
        and riskd_all_within(block.size, LEAST, DBL_MAX, lanes)
    ):
        # Every position has a price and no price is rounded.
        memset(status + start, LIQUIDATION_STATUS_AT_PRICE, <size_t>count)
        riskd_prices(
            block.first, block.second, block.size, rule.inverse, count, price + start
        )
        return True
    for i in range(count):
        read_first(columns, start + i, &position)
        read_rest(columns, start + i, &position)
        if position.quantity == 0.0:
            price[start + i] = NAN
            status[start + i] = LIQUIDATION_STATUS_NO_POSITION
            continue
        print_price(
            &position, rule, block.sign[i], block.first[i] / block.second[i],
            rule.liquidation_rounding, rule.extra_ticks, &price[start + i], &status[start + i],
        )
    return True


# What stands for figures that were not given.
cdef Position ABSENT = Position(
    quantity=0.0, entry_price=1.0, mark_price=1.0, wallet=0.0, leverage=INFINITY, fee_rate=0.0,
    session_price=1.0, multiplier=1.0, open_loss=0.0, open_interest=0.0, tick=0.0,
)


cdef raise_fault(const Position *position, int fault):
    if fault <= FIELD_COUNT:
        value = (<const double *>position)[fault - 1]
        raise ValueError(f"{FIELDS[fault - 1]} {value} {BOUNDS[fault - 1]}")
    if fault == FAULT_RATE + 1:
        raise ValueError("maintenance and fee rate must be below 1")
    raise ValueError("figures are beyond double precision")


cdef class Family:
    def __cinit__(self):
        self._schedules = NULL
        self._schedule_count = 0

    def __init__(self, rule, schedules):
        cdef dict switches = dict(rule)
        memset(&self._rule, 0, sizeof(Switches))
        self._rule.inverse = switches["inverse"]
        self._rule.initial_entry = switches["initial_entry"]
        self._rule.basis = switches["basis"]
        self._rule.wallet = switches["wallet"]
        self._rule.fee_in_liquidation = switches["fee_in_liquidation"]
        self._rule.fee_in_margin = switches["fee_in_margin"]
        self._rule.fee_in_bankruptcy = switches["fee_in_bankruptcy"]
        self._rule.tier_price = switches["tier_price"]
        self._rule.liquidation_rounding = switches["liquidation_rounding"]
        self._rule.bankruptcy_rounding = switches["bankruptcy_rounding"]
        self._rule.extra_ticks = switches["extra_ticks"]
        if not schedules:
            raise ValueError("schedules: at least one is needed")
        if self._schedules != NULL:
            raise ValueError("schedules: they cannot be replaced")
        self._schedules = <Schedule *>PyMem_Calloc(<size_t>len(schedules), sizeof(Schedule))
        if self._schedules == NULL:
            raise MemoryError
        self._schedule_count = len(schedules)
        for index, figures in enumerate(schedules):
            self._open(index, figures)

    def __dealloc__(self):
        cdef Py_ssize_t index
        if self._schedules == NULL:
            return
        for index in range(self._schedule_count):
            # All tables of a schedule are one piece of memory, floors first.
            PyMem_Free(self._schedules[index].floors)
        PyMem_Free(self._schedules)

    cdef int _open(self, Py_ssize_t index, dict figures) except -1:
        cdef Schedule *schedule = &self._schedules[index]
        cdef list tiers = figures["tiers"]
        cdef Py_ssize_t count = len(tiers)
        cdef Py_ssize_t size = 1
        cdef Py_ssize_t k
        while size < count:
            size *= 2
        schedule.tier_count = <int>count
        schedule.table_size = <int>size
        schedule.by_quantity = figures["by_quantity"]
        schedule.quantity_deduction = figures["quantity_deduction"]
        schedule.continuous = figures["continuous"]
        schedule.is_power = figures["is_power"]
        schedule.initial_slope = figures["initial_slope"]
        schedule.maintenance_slope = figures["maintenance_slope"]
        schedule.deduction_slope = figures["deduction_slope"]
        schedule.initial_amount_slope = figures["initial_amount_slope"]
        schedule.interest_lower = figures["interest_lower"]
        schedule.interest_upper = figures["interest_upper"]
        schedule.factor = figures["factor"]
        schedule.power = figures["power"]
        schedule.floors = <double *>PyMem_Calloc(
            <size_t>(TABLE_COUNT * size), sizeof(double)
        )
        if schedule.floors == NULL:
            raise MemoryError
        schedule.initial = schedule.floors + size
        schedule.maintenance = schedule.floors + 2 * size
        schedule.deduction = schedule.floors + 3 * size
        schedule.owed = schedule.floors + 4 * size
        for k in range(size):
            if k >= count:
                # No key is above it. What is owed there stays 0: infinity less infinity is none.
                schedule.floors[k] = INFINITY
                continue
            (
                schedule.floors[k], schedule.initial[k], schedule.maintenance[k],
                schedule.deduction[k], schedule.owed[k],
            ) = tiers[k]
        return 0

    cdef const Schedule *_schedule_at(self, int64_t which) noexcept nogil:
        if not 0 <= which < self._schedule_count:
            return NULL
        return &self._schedules[which]

    # Fill the outputs of `figure`; return the number of the fault plus 1, at position stopped[0].
    cdef int _fill(
        self, int figure, const Switches *rule, const Column *columns, const int64_t[:] which,
        Py_ssize_t count, double *first, double *second, uint8_t *status, Py_ssize_t *stopped,
    ) noexcept nogil:
        cdef Position position
        cdef const Schedule *schedule = &self._schedules[0]
        cdef bint varies = rest_varies(columns)
        cdef int fault = read_rest(columns, 0, &position)
        cdef Py_ssize_t i = 0
        cdef Block block
        cdef FeeTables tables
        cdef bint in_blocks = False
        cdef bint done
        cdef int length
        stopped[0] = 0
        if fault != 0:
            return fault
        # The last columns are one figure for all: it was looked at.
        if which is None and count >= LANES_MIN and not varies:
            if figure == FIGURE_REQUIREMENT:
                in_blocks = is_plain_requirement(columns, schedule, rule)
            elif figure == FIGURE_LIQUIDATION:
                in_blocks = is_plain_liquidation(columns, schedule, rule, &tables)
        while in_blocks and i < count:
            length = <int>min(BLOCK, count - i)
            if figure == FIGURE_REQUIREMENT:
                done = requirements_of_block(
                    columns, i, length, schedule, rule, &block, first, second
                )
            else:
                done = liquidation_prices_of_block(
                    columns, i, length, schedule, rule, &tables, &block, first, status
                )
            if not done:
                break
            i += length
        for i in range(i, count):
            fault = read_first(columns, i, &position)
            if varies and fault == 0:
                fault = read_rest(columns, i, &position)
            if which is not None and fault == 0:
                schedule = self._schedule_at(which[i])
                if schedule == NULL:
                    fault = FAULT_SCHEDULE + 1
            if fault == 0:
                if figure == FIGURE_REQUIREMENT:
                    fault = requirement_of(&position, schedule, rule, &first[i], &second[i])
                elif figure == FIGURE_LIQUIDATION:
                    fault = liquidation_price_of(&position, schedule, rule, &first[i], &status[i])
                else:
                    fault = bankruptcy_price_of(&position, rule, &first[i], &status[i])
            if fault != 0:
                stopped[0] = i
                return fault
        return 0

    cdef _run(self, int figure, tuple figures, which, flags, first, second, status):
        cdef Column columns[FIELD_COUNT]
        cdef const int64_t[:] schedules = which
        cdef double[::1] one = first
        cdef double[::1] two = second
        cdef uint8_t[::1] codes = status
        cdef Py_ssize_t count = one.shape[0]
        cdef Py_ssize_t stopped = 0
        cdef Switches rule = self._rule
        cdef int fault
        rule.has_mark, rule.has_wallet = flags
        if schedules is not None and schedules.shape[0] != count:
            raise ValueError(f"schedule has {schedules.shape[0]} figures, not {count}")
        if count == 0:
            return -1, 0
        if two is not None and two.shape[0] != count:
            raise ValueError(f"the second output has {two.shape[0]} figures, not {count}")
        if codes is not None and codes.shape[0] != count:
            raise ValueError(f"the status has {codes.shape[0]} figures, not {count}")
        open_columns(figures, count, columns)
        with nogil:
            fault = self._fill(
                figure, &rule, columns, schedules, count, &one[0],
                &two[0] if two is not None else NULL, &codes[0] if codes is not None else NULL,
                &stopped,
            )
        if fault == 0:
            return -1, 0
        return stopped, fault - 1

    def requirements(self, figures, which, flags, initial, maintenance):
        if maintenance is None:
            raise ValueError("the second output is missing")
        return self._run(FIGURE_REQUIREMENT, figures, which, flags, initial, maintenance, None)

    def liquidation_prices(self, figures, which, flags, price, status):
        if status is None:
            raise ValueError("the status is missing")
        return self._run(FIGURE_LIQUIDATION, figures, which, flags, price, None, status)

    def bankruptcy_prices(self, figures, which, flags, price, status):
        if status is None:
            raise ValueError("the status is missing")
        return self._run(FIGURE_BANKRUPTCY, figures, which, flags, price, None, status)

    def margin(self, double quantity, double mark_price, double leverage=INFINITY):
        cdef Position position = ABSENT
        cdef double initial = 0.0
        cdef double maintenance = 0.0
        cdef int fault
        position.quantity = quantity
        position.mark_price = position.entry_price = position.session_price = mark_price
        position.leverage = leverage
        fault = fault_of_first(&position)
        if fault == 0:
            fault = requirement_of(
                &position, &self._schedules[0], &self._rule, &initial, &maintenance
            )
        if fault != 0:
            raise_fault(&position, fault)
        return initial, maintenance

    def liquidation_price(
        self, double quantity, double entry_price, double wallet, double fee_rate=0.0
    ):
        cdef Position position = ABSENT
        cdef Switches rule = self._rule
        cdef double price = NAN
        cdef uint8_t status = 0
        cdef int fault
        position.quantity = quantity
        position.entry_price = position.mark_price = position.session_price = entry_price
        position.wallet = wallet
        position.fee_rate = fee_rate
        rule.has_wallet = True
        fault = fault_of_first(&position)
        if fault == 0:
            fault = fault_of_rest(&position)
        if fault == 0:
            fault = liquidation_price_of(&position, &self._schedules[0], &rule, &price, &status)
        if fault != 0:
            raise_fault(&position, fault)
        return price
