"""Pre-trade rules: one pure predicate each. True means that the rule is broken."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.money cimport PPB, i128
from riskd.core.types cimport SIDE_BUY, Instrument

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

cdef inline bint outside_collar(
    const Instrument *instrument, uint32_t side, int64_t price_ticks, i128 reference
) noexcept nogil:
    """L-5: p U > R (1 + collar) for a buy, p U < R (1 - collar) for a sell; R 0 is unknown."""
    cdef i128 price = <i128>price_ticks * instrument.units_per_tick * PPB
    if instrument.price_collar_ppb == 0 or reference == 0:
        return False
    if side == SIDE_BUY:
        return price > reference * (PPB + instrument.price_collar_ppb)
    return price < reference * (PPB - instrument.price_collar_ppb)

cdef inline bint exceeds_position_notional_max(
    int64_t notional_max, i128 side_notional
) noexcept nogil:
    """L-6: 0 is no bound, below 0 no room."""
    return notional_max != 0 and side_notional > (notional_max if notional_max > 0 else 0)
