"""Families of margin schedules: what each asks for a position or a side (docs/instruments.md).

With n lots, a notional N and the sign of a position a family gives a rate for initial margin, a
rate for maintenance and a deduction; all formulas of docs/decision.md hold with them. With the
entry basis maintenance is that of the entry value, and stands still. A schedule may put the fee of
closing aside with all of them.

Most families have one line m N - d for a position, so that its liquidation price has a closed
form. TIERED_WHOLE jumps at its floors and POWER curves: there the price is looked for, from the
mark in the direction in which the position loses.
"""

from libc.math cimport ceil, pow
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from riskd.core.margin cimport (
    Exposure,
    Terms,
    gains_with_notional,
    is_below_line,
    is_liquidatable_at,
    ladder_fault,
    liquidation_price_of,
    notional_down,
    notional_up,
    part_up,
    price_on_line,
    scaled_down,
    scaled_up,
    tier_index_at,
    tier_index_of,
)
from riskd.core.money cimport (
    LEVERAGE_ONE,
    PPB,
    ceil_div,
    debug_assert,
    fits,
    i128,
    larger,
    magnitude,
)
from riskd.core.types cimport (
    CLOSING_FEE_AT_BANKRUPTCY,
    CLOSING_FEE_IN_MAINTENANCE,
    CLOSING_FEE_RESERVED,
    FAMILY_OPEN_INTEREST,
    FAMILY_PER_CONTRACT,
    FAMILY_POWER,
    FAMILY_RISK_FACTOR,
    FAMILY_SIZE_LINEAR,
    FAMILY_SIZE_SQRT,
    FAMILY_TIERED,
    FAMILY_TIERED_QUANTITY,
    FAMILY_TIERED_WHOLE,
    LIQUIDATION_STATUS_AT_PRICE,
    LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED,
    LIQUIDATION_STATUS_NO_POSITION,
    LIQUIDATION_STATUS_UNSPECIFIED,
    MAINTENANCE_BASIS_ENTRY,
    NUMBER_MAX,
    Instrument,
    Ladder,
    Schedule,
    Tier,
)

cdef enum:
    # Parameters count in 10^-15, rates in 10^-9.
    PARAMETER_ONE = 1000000
    # Rates are raised by whole ppm.
    PPM = 1000
    PARAMETER_MAX = 1000000000000000


# --- rates -----------------------------------------------------------------------------------

cdef inline i128 _root(i128 value) noexcept nogil:
    """Return the square root, rounded down; of a value from 0 to 2^126."""
    cdef i128 root, better
    if value < 2:
        return value
    # From above Newton's steps fall until they are there.
    root = <i128>1 << 64
    while True:
        better = (root + value / root) / 2
        if better >= root:
            return root
        root = better


cdef inline int64_t _at_most(i128 rate, int64_t bound) noexcept nogil:
    return <int64_t>rate if rate < bound else bound


cdef int64_t _raised(const Terms *terms, int64_t initial_ppb) noexcept nogil:
    """Return an initial rate as the open interest between its bounds raises it."""
    cdef const Schedule *schedule = terms.schedule
    cdef const Instrument *instrument = terms.instrument
    cdef i128 low = schedule.parameter_a
    cdef i128 high = schedule.parameter_b
    cdef i128 excess
    if high == 0 or instrument.mark.price == 0 or instrument.open_interest_lots == 0:
        return initial_ppb
    excess = notional_up(&terms.unit, instrument.open_interest_lots, instrument.mark.price)
    excess = larger(0, min(excess, high) - low)
    return initial_ppb + <int64_t>(
        (PPB - initial_ppb) * excess / ((high - low) * PPM) * PPM
    )


cdef int64_t _power(const Terms *terms, i128 notional) noexcept nogil:
    """Return r of POWER in ppb, at most 10^9."""
    cdef const Schedule *schedule = terms.schedule
    cdef double rate = ceil(
        <double>schedule.parameter_a / 1e9 * pow(
            <double>notional / pow(10.0, <double>terms.scale), <double>schedule.parameter_b / 1e9
        )
    )
    return <int64_t>rate if rate < <double>PPB else PPB


cdef void rates_of(const Terms *terms, const Size *size, Rates *rates) noexcept nogil:
    """Write what the schedule of a contract asks for."""
    cdef const Ladder *ladder = terms.ladder
    cdef const Schedule *schedule = terms.schedule
    cdef const Tier *tier
    cdef uint32_t family = ladder.family
    cdef int64_t maintenance_max = PPB - 1 - ladder.liquidation_fee_ppb
    cdef i128 rise, maintenance
    rates.tier_index = tier_index_of(
        ladder, size.lots if family == FAMILY_TIERED_QUANTITY else size.notional
    )
    tier = &ladder.tiers[rates.tier_index]
    rates.initial_ppb = tier.initial_ppb
    rates.maintenance_ppb = tier.maintenance_ppb
    rates.deduction = 0
    if family == FAMILY_TIERED:
        rates.deduction = tier.deduction
    elif family == FAMILY_SIZE_LINEAR:
        rise = ceil_div(schedule.parameter_a * size.lots, PARAMETER_ONE)
        rates.initial_ppb = _at_most(tier.initial_ppb + rise, PPB)
        rise = ceil_div(schedule.parameter_b * size.lots, PARAMETER_ONE)
        rates.maintenance_ppb = _at_most(tier.maintenance_ppb + rise, maintenance_max)
    elif family == FAMILY_PER_CONTRACT:
        rates.deduction = -schedule.parameter_b * size.lots
    elif family == FAMILY_OPEN_INTEREST:
        rates.initial_ppb = _raised(terms, tier.initial_ppb)
    elif family == FAMILY_SIZE_SQRT:
        rise = ceil_div(
            schedule.parameter_a * _root(size.lots * schedule.parameter_c), PARAMETER_ONE
        )
        rates.initial_ppb = _at_most(
            larger(tier.initial_ppb, ceil_div(<i128>tier.initial_ppb * 4, 5) + rise), PPB
        )
        rates.maintenance_ppb = _at_most(
            larger(tier.maintenance_ppb, ceil_div(<i128>tier.maintenance_ppb * 4, 5) + rise),
            maintenance_max,
        )
    elif family == FAMILY_POWER:
        rise = _power(terms, size.notional)
        rates.initial_ppb = <int64_t>larger(tier.initial_ppb, rise)
        rates.maintenance_ppb = _at_most(
            larger(
                tier.maintenance_ppb, ceil_div(rise * tier.maintenance_ppb, tier.initial_ppb)
            ),
            maintenance_max,
        )
    elif family == FAMILY_RISK_FACTOR:
        maintenance = schedule.parameter_a if size.is_short else tier.maintenance_ppb
        maintenance += ceil_div(schedule.parameter_b * size.lots, PARAMETER_ONE)
        rates.maintenance_ppb = _at_most(maintenance, maintenance_max)
        rates.initial_ppb = _at_most(
            ceil_div(<i128>rates.maintenance_ppb * schedule.parameter_c, PPB), PPB
        )


cdef i128 reserved_fee_of(const Terms *terms, i128 amount, bint is_short) noexcept nogil:
    """c: what is put aside for closing what an amount opens; f the taker fee.

    RESERVED f A (1 + 1 / leverage), AT_BANKRUPTCY f A (1 - sigma / leverage): what the position is
    worth when the margin that leverage asks for is lost.
    """
    cdef uint32_t kind = terms.ladder.closing_fee
    cdef i128 leverage = terms.leverage + LEVERAGE_ONE
    if kind < CLOSING_FEE_RESERVED:
        return 0
    if kind == CLOSING_FEE_AT_BANKRUPTCY and gains_with_notional(
        &terms.unit, -1 if is_short else 1
    ):
        leverage = terms.leverage - LEVERAGE_ONE
    return scaled_up(
        amount, terms.instrument.taker_fee_ppb * leverage, <i128>PPB * terms.leverage
    )


cdef i128 family_initial(
    const Terms *terms, i128 amount, i128 amount_lots, const Size *size
) noexcept nogil:
    """max(ceil(A / leverage), ceil(i A)) + c, of lots that have a price of their own max(.., a n).
    """
    cdef Rates rates
    cdef i128 by_leverage = part_up(amount, LEVERAGE_ONE, terms.leverage)
    if terms.ladder.family == FAMILY_PER_CONTRACT:
        return larger(by_leverage, terms.schedule.parameter_a * amount_lots)
    rates_of(terms, size, &rates)
    by_leverage = larger(by_leverage, part_up(amount, rates.initial_ppb, PPB))
    return by_leverage + reserved_fee_of(terms, amount, size.is_short)


cdef void _rates_at(
    const Terms *terms, i128 lots, i128 notional, Rates *rates
) noexcept nogil:
    """Write what is asked for of signed lots."""
    cdef Size size
    size.notional = notional
    size.lots = magnitude(lots)
    size.is_short = lots < 0
    rates_of(terms, &size, rates)


cdef inline bint _is_by_entry(const Terms *terms) noexcept nogil:
    return terms.ladder.basis == MAINTENANCE_BASIS_ENTRY


cdef inline bint _is_marginal(const Terms *terms) noexcept nogil:
    """Whether it can be liquidated where the plain schedule can, though that is not all of it."""
    return terms.ladder.family == FAMILY_TIERED and not _is_by_entry(terms)


cdef i128 _asked(const Terms *terms, i128 lots, i128 amount, i128 fee_ppb) noexcept nogil:
    """ceil((m + fee) A) - d of signed lots."""
    cdef Rates rates
    _rates_at(terms, lots, amount, &rates)
    return part_up(amount, rates.maintenance_ppb + fee_ppb, PPB) - rates.deduction


cdef i128 _entry_maintenance(const Terms *terms, i128 lots, i128 entry_value) noexcept nogil:
    """What stands still of the requirement of the entry basis."""
    return _asked(terms, lots, entry_value, 0) + reserved_fee_of(terms, entry_value, lots < 0)


cdef i128 family_maintenance(
    const Terms *terms, i128 lots, i128 entry_value, i128 notional
) noexcept nogil:
    if terms.ladder.closing_fee == CLOSING_FEE_IN_MAINTENANCE:
        return _asked(
            terms,
            lots,
            entry_value if _is_by_entry(terms) else notional,
            terms.ladder.liquidation_fee_ppb,
        )
    if _is_by_entry(terms):
        return _entry_maintenance(terms, lots, entry_value)
    return _asked(terms, lots, notional, 0)


cdef i128 family_requirement(
    const Terms *terms, i128 lots, i128 entry_value, i128 notional
) noexcept nogil:
    cdef i128 fee_ppb = terms.ladder.liquidation_fee_ppb
    if _is_by_entry(terms):
        return _entry_maintenance(terms, lots, entry_value) + part_up(notional, fee_ppb, PPB)
    return _asked(terms, lots, notional, fee_ppb)


cdef int64_t lots_max_at(const Schedule *schedule, int64_t leverage) noexcept nogil:
    """Return the most lots that a side may have at a leverage."""
    cdef const Ladder *ladder = &schedule.ladder
    cdef int64_t bound = INT64_MAX
    cdef uint32_t index
    if ladder.family != FAMILY_TIERED_QUANTITY:
        return bound
    if schedule.parameter_a != 0:
        bound = schedule.parameter_a
    for index in range(ladder.count):
        if ladder.tiers[index].leverage_max < leverage:
            return min(bound, ladder.tiers[index].floor)
    return bound


# --- liquidation -----------------------------------------------------------------------------

cdef bint _line_of(
    const Terms *terms, const Exposure *exposure, i128 *rate, i128 *deduction
) noexcept nogil:
    """Write the line that the requirement is at every price; False if there is not just one."""
    cdef Rates rates
    cdef uint32_t family = terms.ladder.family
    if _is_by_entry(terms):
        rate[0] = terms.ladder.liquidation_fee_ppb
        deduction[0] = -_entry_maintenance(terms, exposure.lots, exposure.entry_value)
        return True
    if (
        family == FAMILY_TIERED or family == FAMILY_TIERED_WHOLE or family == FAMILY_POWER
    ):
        return False
    _rates_at(terms, exposure.lots, 0, &rates)
    rate[0] = rates.maintenance_ppb + terms.ladder.liquidation_fee_ppb
    deduction[0] = rates.deduction
    return True


cdef bint line_at(
    const Terms *terms, const Exposure *exposure, int64_t price, i128 *rate, i128 *deduction
) noexcept nogil:
    """Write the line that the requirement is at a price; False if it does not fit.

    Of a curved one the rate is 0.
    """
    cdef i128 lots = magnitude(exposure.lots)
    cdef const Tier *tier
    if _line_of(terms, exposure, rate, deduction):
        return fits(deduction[0])
    if is_curved(terms):
        rate[0] = 0
        deduction[0] = -family_requirement(
            terms, exposure.lots, exposure.entry_value, notional_up(&terms.unit, lots, price)
        )
        return True
    tier = &terms.ladder.tiers[tier_index_at(terms.ladder, &terms.unit, lots, price)]
    rate[0] = tier.maintenance_ppb + terms.ladder.liquidation_fee_ppb
    deduction[0] = tier.deduction
    return True


cdef bint family_is_liquidatable(
    const Terms *terms, const Exposure *exposure, int64_t price
) noexcept nogil:
    cdef i128 rate, deduction, requirement, notional
    cdef const Tier *tier
    if exposure.lots == 0:
        return False
    if _is_marginal(terms):
        return is_liquidatable_at(exposure, terms.ladder, &terms.unit, price)
    if _line_of(terms, exposure, &rate, &deduction):
        # As of a price that is not known.
        return fits(deduction) and is_below_line(
            exposure, &terms.unit, rate, deduction, price
        )
    if is_curved(terms):
        notional = notional_up(&terms.unit, magnitude(exposure.lots), price)
        requirement = family_requirement(
            terms, exposure.lots, exposure.entry_value, notional
        ) - exposure.wallet
        if gains_with_notional(&terms.unit, exposure.lots):
            return notional <= requirement + exposure.entry_value
        notional = notional_down(&terms.unit, magnitude(exposure.lots), price)
        return notional >= exposure.entry_value - requirement
    debug_assert(terms.ladder.family == FAMILY_TIERED_WHOLE)
    tier = &terms.ladder.tiers[
        tier_index_at(terms.ladder, &terms.unit, magnitude(exposure.lots), price)
    ]
    return is_below_line(
        exposure, &terms.unit, tier.maintenance_ppb + terms.ladder.liquidation_fee_ppb, 0, price
    )


cdef int64_t _price_of_notional(
    const Terms *terms, i128 lots, int64_t notional, bint up
) noexcept nogil:
    """Return the price at which lots have a notional, rounded, inside 1 to the largest price.

    The notional is above 0.
    """
    cdef i128 value, price, divisor
    if terms.unit.numerator == 0:
        value = lots * terms.unit.quotient
        divisor = notional
    else:
        value = <i128>notional * terms.unit.denominator
        divisor = lots * terms.unit.numerator
    price = scaled_up(value, 1, divisor) if up else scaled_down(value, 1, divisor)
    return <int64_t>min(larger(1, price), <i128>NUMBER_MAX)


cdef int64_t _start_of(const Terms *terms, const Exposure *exposure) noexcept nogil:
    """Return the mark, or without one the price of the entry, rounded against the account."""
    if terms.instrument.mark.price != 0:
        return terms.instrument.mark.price
    if exposure.entry_value == 0:
        # Of inverse contracts only: so few that they are worth nothing.
        return NUMBER_MAX
    return _price_of_notional(
        terms, magnitude(exposure.lots), exposure.entry_value, exposure.lots > 0
    )


cdef int64_t _end_of_tier(
    const Terms *terms, const Exposure *exposure, int64_t price
) noexcept nogil:
    """Return the last price in the losing direction that is in the tier of a price."""
    cdef const Ladder *ladder = terms.ladder
    cdef i128 lots = magnitude(exposure.lots)
    cdef uint32_t index = tier_index_at(ladder, &terms.unit, lots, price)
    cdef int64_t end
    if gains_with_notional(&terms.unit, exposure.lots):
        # The notional falls: its tier ends above its own floor.
        if index == 0:
            return 1 if exposure.lots > 0 else NUMBER_MAX
        if exposure.lots > 0:
            end = _price_of_notional(terms, lots, ladder.tiers[index].floor, False)
            # A floor below the price 1 is the floor of a tier that ends there.
            return min(end + 1, price)
        end = _price_of_notional(terms, lots, ladder.tiers[index].floor, True)
        return max(end - 1, price)
    # The notional rises: its tier ends at the next floor.
    if index + 1 == ladder.count:
        return 1 if exposure.lots > 0 else NUMBER_MAX
    if exposure.lots > 0:
        end = _price_of_notional(terms, lots, ladder.tiers[index + 1].floor, True)
        return min(end, price)
    end = _price_of_notional(terms, lots, ladder.tiers[index + 1].floor, False)
    return max(end, price)


cdef int64_t _first_between(
    const Terms *terms, const Exposure *exposure, int64_t near, int64_t far
) noexcept nogil:
    """Return the first price after `near`, which cannot be liquidated at, on to `far`, which
    can.
    """
    cdef int64_t middle
    while far - near > 1 or near - far > 1:
        middle = <int64_t>((<uint64_t>near + <uint64_t>far) / 2)
        if family_is_liquidatable(terms, exposure, middle):
            far = middle
        else:
            near = middle
    return far


cdef uint32_t family_price(
    const Terms *terms, const Exposure *exposure, int64_t *price
) noexcept nogil:
    cdef i128 rate, deduction
    cdef int64_t near, far
    cdef int64_t last = 1 if exposure.lots > 0 else NUMBER_MAX
    cdef int64_t step = -1 if exposure.lots > 0 else 1
    price[0] = 0
    if exposure.lots == 0:
        return LIQUIDATION_STATUS_NO_POSITION
    if _is_marginal(terms):
        return liquidation_price_of(exposure, terms.ladder, &terms.unit, price)
    if _line_of(terms, exposure, &rate, &deduction):
        if not fits(deduction):
            return LIQUIDATION_STATUS_UNSPECIFIED
        return price_on_line(exposure, &terms.unit, rate, deduction, price)
    near = _start_of(terms, exposure)
    while True:
        if family_is_liquidatable(terms, exposure, near):
            price[0] = near
            return LIQUIDATION_STATUS_AT_PRICE
        far = last
        if terms.ladder.family == FAMILY_TIERED_WHOLE:
            far = _end_of_tier(terms, exposure, near)
        if family_is_liquidatable(terms, exposure, far):
            price[0] = _first_between(terms, exposure, near, far)
            return LIQUIDATION_STATUS_AT_PRICE
        if far == last:
            return LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
        near = far + step


# --- what is lawful --------------------------------------------------------------------------

cdef inline bint _is_in(int64_t value, int64_t low, int64_t high) noexcept nogil:
    return low <= value <= high


cdef inline i128 _initial_of_factor(i128 maintenance, int64_t c) noexcept nogil:
    """Return i of RISK_FACTOR."""
    return min(ceil_div(maintenance * c, PPB), <i128>PPB)


cdef bint _parameters_lawful(const Schedule *schedule) noexcept nogil:
    cdef const Ladder *ladder = &schedule.ladder
    cdef int64_t a = schedule.parameter_a
    cdef int64_t b = schedule.parameter_b
    cdef int64_t c = schedule.parameter_c
    if ladder.family == FAMILY_TIERED_QUANTITY and a != 0:
        return ladder.tiers[ladder.count - 1].floor < a <= NUMBER_MAX and b == 0 and c == 0
    if ladder.family <= FAMILY_TIERED_QUANTITY:
        return a == 0 and b == 0 and c == 0
    if ladder.family == FAMILY_SIZE_LINEAR:
        return _is_in(a, 0, PARAMETER_MAX) and _is_in(b, 0, PARAMETER_MAX) and c == 0
    if ladder.family == FAMILY_PER_CONTRACT:
        return 0 <= b < a <= NUMBER_MAX and c == 0
    if ladder.family == FAMILY_OPEN_INTEREST:
        return (0 <= a < b or (a == 0 and b == 0)) and c == 0
    if ladder.family == FAMILY_SIZE_SQRT:
        return _is_in(a, 0, PARAMETER_MAX) and b == 0 and _is_in(c, 0, PARAMETER_MAX)
    if ladder.family == FAMILY_POWER:
        return (
            _is_in(a, 1, <int64_t>PPB * PPB)
            and _is_in(b, 1, PPB)
            and c == 0
            and ladder.tiers[0].initial_ppb > 0
        )
    return (
        ladder.family == FAMILY_RISK_FACTOR
        and _is_in(a, 1, <int64_t>PPB - 1 - ladder.liquidation_fee_ppb)
        and _is_in(b, 0, PARAMETER_MAX)
        and _is_in(c, <int64_t>PPB + 1, <int64_t>PPB * 1000)
        and ladder.tiers[0].initial_ppb == _initial_of_factor(
            ladder.tiers[0].maintenance_ppb, c
        )
    )


cdef bint _initial_covers(const Schedule *schedule, uint32_t index, bint is_short) noexcept nogil:
    """Whether a position with its initial margin cannot be liquidated at once, where the leverage
    is highest.

    max(i, 1 / max_leverage) > m + phi. What M-1 lets through rests on it.
    """
    cdef const Tier *tier = &schedule.ladder.tiers[index]
    cdef i128 initial = tier.initial_ppb
    cdef i128 requirement = tier.maintenance_ppb
    if is_short:
        requirement = schedule.parameter_a
        initial = _initial_of_factor(requirement, schedule.parameter_c)
    requirement += schedule.ladder.liquidation_fee_ppb
    return initial > requirement or (
        requirement * tier.leverage_max < <i128>PPB * LEVERAGE_ONE
    )


cdef const char *schedule_fault(Schedule *schedule) noexcept nogil:
    """Compute the deductions; return NULL if the schedule is lawful, else what is wrong."""
    cdef Ladder *ladder = &schedule.ladder
    cdef const char *fault
    cdef uint32_t index
    if ladder.family < FAMILY_TIERED or ladder.family > FAMILY_RISK_FACTOR:
        return b"the family is not known"
    if ladder.family > FAMILY_TIERED_QUANTITY and ladder.count != 1:
        return b"the family has one tier"
    fault = ladder_fault(ladder, &index)
    if fault != NULL:
        return fault
    if not _parameters_lawful(schedule):
        return b"a parameter is not what the family allows"
    if ladder.closing_fee >= CLOSING_FEE_RESERVED and (
        ladder.family > FAMILY_TIERED_QUANTITY
        or ladder.basis != MAINTENANCE_BASIS_ENTRY
        or ladder.liquidation_fee_ppb != 0
    ):
        return b"a closing fee is put aside by tiers of the entry value, without a liquidation fee"
    if ladder.family == FAMILY_PER_CONTRACT:
        return NULL
    for index in range(ladder.count):
        if not _initial_covers(schedule, index, False):
            return b"initial margin does not cover maintenance and the liquidation fee"
    if ladder.family == FAMILY_RISK_FACTOR and not _initial_covers(schedule, 0, True):
        return b"initial margin does not cover maintenance and the liquidation fee"
    return NULL
