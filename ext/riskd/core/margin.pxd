"""Margin of contracts: tiers, requirements, liquidation and bankruptcy price."""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t

from riskd.core.money cimport LEVERAGE_ONE, PPB, ceil_div, floor_div, i128, larger, multiply
from riskd.core.types cimport Instrument, Ladder, Schedule, Tier

# One lot at one price unit is numerator / denominator minor units, in lowest terms; an inverse
# contract has the numerator 0, and is worth quotient / price.
ctypedef struct UnitValue:
    int64_t numerator
    int64_t denominator
    i128 quotient

# What a position is margined with: the effective settings and the instrument's numbers.
ctypedef struct Terms:
    const Instrument *instrument
    const Ladder *ladder            # NULL for options
    const Schedule *schedule        # whose ladder that is
    UnitValue unit
    int64_t leverage
    const Schedule *rule            # of an option that may be short, else NULL
    const Instrument *underlying    # of such an option
    uint32_t scale                  # of the asset
    uint32_t margin_mode
    bint is_option                  # or spot: paid for in full
    bint is_spot
    bint is_plain                   # the tiered family at the mark

# A position and the money behind it. `wallet` is the isolated wallet, or for cross what the pool
# has left for this position when the others are served.
ctypedef struct Exposure:
    int64_t lots
    int64_t entry_value
    int64_t wallet

# What a value that does not fit 128 bits is taken for: far above any money, so that no check passes
# it.
cdef inline i128 beyond_money() noexcept nogil:
    return <i128>INT64_MAX * 4

cdef inline i128 notional_up(const UnitValue *unit, i128 lots, int64_t price) noexcept nogil:
    """Nup: the value of lots at a mark, rounded up."""
    cdef i128 value
    if unit.numerator == 0:
        if not multiply(lots, unit.quotient, &value):
            return beyond_money() if lots > 0 else -beyond_money()
        return ceil_div(value, price)
    if not multiply(lots, <i128>price * unit.numerator, &value):
        return beyond_money() if lots > 0 else -beyond_money()
    return ceil_div(value, unit.denominator)

cdef inline i128 notional_down(const UnitValue *unit, i128 lots, int64_t price) noexcept nogil:
    """Ndown: the value of lots at a mark, rounded down."""
    cdef i128 value
    if unit.numerator == 0:
        if not multiply(lots, unit.quotient, &value):
            return beyond_money() if lots > 0 else -beyond_money()
        return floor_div(value, price)
    if not multiply(lots, <i128>price * unit.numerator, &value):
        return beyond_money() if lots > 0 else -beyond_money()
    return floor_div(value, unit.denominator)

# Products of three factors that may not fit 128 bits, saturated far above any money.
cdef i128 scaled_down(i128 value, i128 rate, i128 divisor) noexcept nogil
cdef i128 scaled_up(i128 value, i128 rate, i128 divisor) noexcept nogil

cdef inline i128 part_up(i128 amount, i128 rate, i128 divisor) noexcept nogil:
    """Return ceil(A rate / divisor) of any notional, at a rate below 2^32.

    What a mark makes of a position may be far above any money, and that of the other side in hedge
    mode the same: neither may wrap.
    """
    if amount < <i128>1 << 95:
        return ceil_div(amount * rate, divisor)
    return scaled_up(amount, rate, divisor)

cdef inline bint gains_with_notional(const UnitValue *unit, i128 lots) noexcept nogil:
    """Whether sigma is above 0: of a long linear or a short inverse position."""
    return (lots > 0) != (unit.numerator == 0)

cdef inline uint32_t tier_index_of(const Ladder *ladder, i128 notional) noexcept nogil:
    """Return the index of the largest tier whose floor is below the notional."""
    cdef uint32_t index = 0
    while index + 1 < ladder.count and ladder.tiers[index + 1].floor < notional:
        index += 1
    return index

cdef inline i128 maintenance_of(const Ladder *ladder, i128 notional) noexcept nogil:
    """ceil(m_k N) - d_k, k the tier of N."""
    cdef const Tier *tier = &ladder.tiers[tier_index_of(ladder, notional)]
    return part_up(notional, tier.maintenance_ppb, PPB) - tier.deduction

cdef inline i128 liquidation_requirement_of(const Ladder *ladder, i128 notional) noexcept nogil:
    """ceil((m_k + phi) N) - d_k, k the tier of N."""
    cdef const Tier *tier = &ladder.tiers[tier_index_of(ladder, notional)]
    cdef i128 rate = tier.maintenance_ppb + ladder.liquidation_fee_ppb
    return part_up(notional, rate, PPB) - tier.deduction

cdef inline i128 initial_of(
    const Ladder *ladder, i128 amount, i128 notional, i128 leverage
) noexcept nogil:
    """max(ceil(A / leverage), ceil(i_k A)), k the tier of N.

    What an amount A needs in a position of N.
    """
    cdef const Tier *tier = &ladder.tiers[tier_index_of(ladder, notional)]
    cdef i128 by_leverage = part_up(amount, LEVERAGE_ONE, leverage)
    # i_k at or below 1 / leverage cannot need more: no second division.
    if tier.initial_ppb * leverage <= <i128>PPB * LEVERAGE_ONE:
        return by_leverage
    return larger(by_leverage, part_up(amount, tier.initial_ppb, PPB))

cdef uint32_t price_on_line(
    const Exposure *exposure, const UnitValue *unit, i128 rate, i128 deduction, int64_t *price
) noexcept nogil
cdef bint is_below_line(
    const Exposure *exposure, const UnitValue *unit, i128 rate, i128 deduction, int64_t price
) noexcept nogil
cdef uint32_t tier_index_at(
    const Ladder *ladder, const UnitValue *unit, i128 lots, int64_t price
) noexcept nogil
cdef int64_t notional_max_at(const Ladder *ladder, int64_t leverage) noexcept nogil
cdef uint32_t liquidation_price_of(
    const Exposure *exposure, const Ladder *ladder, const UnitValue *unit, int64_t *price
) noexcept nogil
cdef i128 bankruptcy_price_of(const Exposure *exposure, const UnitValue *unit) noexcept nogil
cdef bint is_liquidatable_at(
    const Exposure *exposure, const Ladder *ladder, const UnitValue *unit, int64_t price
) noexcept nogil
cdef const char *ladder_fault(Ladder *ladder, uint32_t *index) noexcept nogil
