"""Pre-trade rules: one pure predicate each. True means that the rule is broken."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.money cimport PPB, ceil_div, clamp, floor_div, i128
from riskd.core.types cimport (
    REASON_NONE,
    SIDE_BUY,
    VIOLATIONS_MAX,
    DecisionDetail,
    Instrument,
    Violation,
)

cdef inline Violation *violate(
    DecisionDetail *detail, uint32_t *first, uint32_t reason, i128 limit, i128 use, i128 order_use
) noexcept nogil:
    """Note a broken rule: the first is the reason, all are listed.

    Return where it is listed; NULL where nothing is.
    """
    cdef Violation *violation
    if first[0] == REASON_NONE:
        first[0] = reason
    if detail == NULL or detail.violation_count == VIOLATIONS_MAX:
        return NULL
    violation = &detail.violations[detail.violation_count]
    violation.reason = reason
    violation.limit = clamp(limit)
    violation.use = clamp(use)
    violation.order_use = clamp(order_use)
    violation.scope = 0
    violation.scope_id = 0
    violation.soft = False
    violation.in_lots = False
    detail.violation_count += 1
    return violation

cdef inline bint below_order_quantity_min(const Instrument *instrument, i128 lots) noexcept nogil:
    """L-1"""
    return lots < instrument.order_lots_min

cdef inline bint exceeds_order_quantity_max(const Instrument *instrument, i128 lots) noexcept nogil:
    """L-2"""
    return instrument.order_lots_max != 0 and lots > instrument.order_lots_max

cdef inline bint below_order_notional_min(const Instrument *instrument, i128 value) noexcept nogil:
    """L-3"""
    return value < instrument.order_notional_min

cdef inline bint exceeds_order_notional_max(
    const Instrument *instrument, i128 value
) noexcept nogil:
    """L-4"""
    return instrument.order_notional_max != 0 and value > instrument.order_notional_max

cdef inline bint beyond_collar_ppb(
    uint32_t side, i128 price_ticks, i128 units_per_tick, i128 reference, i128 collar_ppb
) noexcept nogil:
    """p U > R (1 + collar) for a buy, p U < R (1 - collar) for a sell."""
    cdef i128 price = price_ticks * units_per_tick * PPB
    if side == SIDE_BUY:
        return price > reference * (PPB + collar_ppb)
    return price < reference * (PPB - collar_ppb)

cdef inline bint outside_collar(
    const Instrument *instrument, uint32_t side, int64_t price_ticks, i128 reference
) noexcept nogil:
    """L-5; R 0 is unknown."""
    return instrument.price_collar_ppb != 0 and reference != 0 and beyond_collar_ppb(
        side, price_ticks, instrument.units_per_tick, reference, instrument.price_collar_ppb
    )

cdef inline bint exceeds_position_notional_max(
    int64_t notional_max, i128 side_notional
) noexcept nogil:
    """L-6: 0 is no bound, below 0 no room."""
    return notional_max != 0 and side_notional > (notional_max if notional_max > 0 else 0)

cdef inline i128 collar_ppb_bound(
    uint32_t side, i128 units_per_tick, i128 reference, i128 collar_ppb
) noexcept nogil:
    """Return the last price inside the collar, in ticks."""
    if side == SIDE_BUY:
        return floor_div(reference * (PPB + collar_ppb), units_per_tick * PPB)
    return ceil_div(reference * (PPB - collar_ppb), units_per_tick * PPB)

cdef inline bint beyond_collar_ticks(
    uint32_t side, i128 price_ticks, i128 units_per_tick, i128 reference, i128 collar_ticks
) noexcept nogil:
    """p > R / U + collar for a buy, p < R / U - collar for a sell."""
    if side == SIDE_BUY:
        return price_ticks * units_per_tick > reference + collar_ticks * units_per_tick
    return price_ticks * units_per_tick < reference - collar_ticks * units_per_tick

cdef inline i128 collar_ticks_bound(
    uint32_t side, i128 units_per_tick, i128 reference, i128 collar_ticks
) noexcept nogil:
    """Return the last price inside the collar, in ticks."""
    if side == SIDE_BUY:
        return floor_div(reference + collar_ticks * units_per_tick, units_per_tick)
    return ceil_div(reference - collar_ticks * units_per_tick, units_per_tick)
