"""What instruments are, and what lots of them are worth: of linear contracts and options
p q tick_value, of inverse ones q Q / p.

An inverse contract has a tick value of 0 (docs/instruments.md). Orders and what is traded are
measured in ticks here; marks are in margin.pxd.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.money cimport ceil_div, floor_div, i128, multiply
from riskd.core.types cimport (
    INSTRUMENT_KIND_INVERSE_OPTION,
    INSTRUMENT_KIND_LINEAR_OPTION,
    INSTRUMENT_KIND_SPOT,
    REASON_MARK_MISSING,
    REASON_MARK_STALE,
    REASON_NONE,
    SIDE_BUY,
    Instrument,
    Order,
)

cdef inline bint is_option(const Instrument *instrument) noexcept nogil:
    return (
        instrument.kind == INSTRUMENT_KIND_LINEAR_OPTION
        or instrument.kind == INSTRUMENT_KIND_INVERSE_OPTION
    )

cdef inline bint is_spot(const Instrument *instrument) noexcept nogil:
    return instrument.kind == INSTRUMENT_KIND_SPOT

cdef inline bint is_inverse(const Instrument *instrument) noexcept nogil:
    return instrument.tick_value == 0

cdef inline uint32_t mark_reason_of(const Instrument *instrument, uint64_t now_ns) noexcept nogil:
    """S-10, S-11: whether the mark may be used now. A mark from the future counts as of now."""
    if instrument.mark.price == 0:
        return REASON_MARK_MISSING
    if (
        instrument.mark_age_max_ns != 0
        and now_ns > instrument.mark.time_ns
        and now_ns - instrument.mark.time_ns > instrument.mark_age_max_ns
    ):
        return REASON_MARK_STALE
    return REASON_NONE

cdef inline bint value_of(
    const Instrument *instrument, i128 price_ticks, i128 lots, i128 *value
) noexcept nogil:
    """Write value(p, q), rounded up; False if it does not fit 128 bits.

    A price above zero and lots below 2^62.
    """
    if is_inverse(instrument):
        value[0] = ceil_div(lots * instrument.quotient, price_ticks)
        return True
    return multiply(price_ticks * lots, instrument.tick_value, value)

cdef inline int64_t order_value_of(
    const Instrument *instrument, const Order *order, int64_t lots
) noexcept nogil:
    """Return what lots of a working order count with in the working sums."""
    if is_inverse(instrument):
        return <int64_t>ceil_div(<i128>lots * instrument.quotient, order.margin_price_ticks)
    return order.margin_price_ticks * instrument.tick_value * lots

cdef inline i128 traded_of(
    const Instrument *instrument, i128 price_ticks, i128 lots, uint32_t side
) noexcept nogil:
    """Return what a fill counts with: of inverse contracts a buy's value down, a sell's up.

    The caller knows that the value fits.
    """
    if not is_inverse(instrument):
        return price_ticks * lots * instrument.tick_value
    if side == SIDE_BUY:
        return floor_div(lots * instrument.quotient, price_ticks)
    return ceil_div(lots * instrument.quotient, price_ticks)

cdef inline i128 least_lots_of(
    const Instrument *instrument, int64_t price_ticks, i128 value
) noexcept nogil:
    """Return the smallest quantity that has at least a value; 0 while the price is unknown."""
    if price_ticks <= 0 or value <= 0:
        return 0
    if is_inverse(instrument):
        return floor_div((value - 1) * price_ticks, instrument.quotient) + 1
    return ceil_div(value, <i128>price_ticks * instrument.tick_value)
