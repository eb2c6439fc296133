"""Margin of linear positions: tiers, requirements, liquidation and bankruptcy price."""

from libc.stdint cimport int64_t, uint32_t

from riskd.core.money cimport LEVERAGE_ONE, PPB, ceil_div, i128, larger
from riskd.core.types cimport Ladder, Tier

# One lot at one price unit is numerator / denominator minor units, in lowest terms.
ctypedef struct UnitValue:
    int64_t numerator
    int64_t denominator

# A position and the money behind it. `wallet` is the isolated wallet, or for cross what the pool
# has left for this position when the others are served.
ctypedef struct Exposure:
    int64_t lots
    int64_t entry_value
    int64_t wallet

cdef inline uint32_t tier_index_of(const Ladder *ladder, i128 notional) noexcept nogil:
    """Return the index of the largest tier whose floor is below the notional."""
    cdef uint32_t index = 0
    while index + 1 < ladder.count and ladder.tiers[index + 1].floor < notional:
        index += 1
    return index

cdef inline i128 maintenance_of(const Ladder *ladder, i128 notional) noexcept nogil:
    """ceil(m_k N) - d_k, k the tier of N."""
    cdef const Tier *tier = &ladder.tiers[tier_index_of(ladder, notional)]
    return ceil_div(notional * tier.maintenance_ppb, PPB) - tier.deduction

cdef inline i128 liquidation_requirement_of(const Ladder *ladder, i128 notional) noexcept nogil:
    """ceil((m_k + phi) N) - d_k, k the tier of N."""
    cdef const Tier *tier = &ladder.tiers[tier_index_of(ladder, notional)]
    cdef i128 rate = tier.maintenance_ppb + ladder.liquidation_fee_ppb
    return ceil_div(notional * rate, PPB) - tier.deduction

cdef inline i128 initial_of(
    const Ladder *ladder, i128 amount, i128 notional, i128 leverage
) noexcept nogil:
    """max(ceil(A / leverage), ceil(i_k A)), k the tier of N.

    What an amount A needs in a position of N.
    """
    cdef const Tier *tier = &ladder.tiers[tier_index_of(ladder, notional)]
    cdef i128 by_leverage = ceil_div(amount * LEVERAGE_ONE, leverage)
    # i_k at or below 1 / leverage cannot need more: no second division.
    if tier.initial_ppb * leverage <= <i128>PPB * LEVERAGE_ONE:
        return by_leverage
    return larger(by_leverage, ceil_div(amount * tier.initial_ppb, PPB))

cdef int64_t notional_max_at(const Ladder *ladder, int64_t leverage) noexcept nogil
cdef uint32_t liquidation_price_of(
    const Exposure *exposure, const Ladder *ladder, const UnitValue *unit, int64_t *price
) noexcept nogil
cdef i128 bankruptcy_price_of(const Exposure *exposure, const UnitValue *unit) noexcept nogil
cdef bint is_liquidatable_at(
    const Exposure *exposure, const Ladder *ladder, const UnitValue *unit, int64_t price
) noexcept nogil
cdef const char *ladder_fault(Ladder *ladder, uint32_t *index) noexcept nogil
