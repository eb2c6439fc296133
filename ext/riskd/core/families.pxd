"""Families of margin schedules: what each asks for a position or a side (docs/instruments.md).

The tiered family at the mark, which most of all contracts have, is answered here at once; the
others are in families.pyx.
"""

from libc.stdint cimport int64_t, uint32_t

from riskd.core.margin cimport (
    Exposure,
    Terms,
    initial_of,
    is_liquidatable_at,
    liquidation_price_of,
    liquidation_requirement_of,
    maintenance_of,
    tier_index_of,
)
from riskd.core.money cimport i128
from riskd.core.types cimport FAMILY_POWER, MAINTENANCE_BASIS_ENTRY, Schedule

# What a schedule asks for of some lots: i N and m N - d.
ctypedef struct Rates:
    int64_t initial_ppb
    int64_t maintenance_ppb
    i128 deduction
    uint32_t tier_index

# A position, or the side of one: n lots of a notional N, sold or bought.
ctypedef struct Size:
    i128 notional
    i128 lots
    bint is_short

cdef void rates_of(const Terms *terms, const Size *size, Rates *rates) noexcept nogil
cdef i128 family_initial(
    const Terms *terms, i128 amount, i128 amount_lots, const Size *size
) noexcept nogil
cdef i128 family_maintenance(
    const Terms *terms, i128 lots, i128 entry_value, i128 notional
) noexcept nogil
cdef i128 family_requirement(
    const Terms *terms, i128 lots, i128 entry_value, i128 notional
) noexcept nogil
cdef bint line_at(
    const Terms *terms, const Exposure *exposure, int64_t price, i128 *rate, i128 *deduction
) noexcept nogil
cdef bint family_is_liquidatable(
    const Terms *terms, const Exposure *exposure, int64_t price
) noexcept nogil
cdef uint32_t family_price(
    const Terms *terms, const Exposure *exposure, int64_t *price
) noexcept nogil
cdef i128 reserved_fee_of(const Terms *terms, i128 amount, bint is_short) noexcept nogil
cdef int64_t lots_max_at(const Schedule *schedule, int64_t leverage) noexcept nogil
cdef const char *schedule_fault(Schedule *schedule) noexcept nogil

cdef inline bint is_curved(const Terms *terms) noexcept nogil:
    """Whether the requirement is that of a whole notional, at a rate that moves with it."""
    return terms.ladder.family == FAMILY_POWER and terms.ladder.basis != MAINTENANCE_BASIS_ENTRY

cdef inline i128 initial_margin_of(
    const Terms *terms, i128 amount, i128 amount_lots, const Size *size
) noexcept nogil:
    """Return what an amount of money, of some lots, needs in a position or side of a size."""
    if terms.is_plain:
        return initial_of(terms.ladder, amount, size.notional, terms.leverage)
    return family_initial(terms, amount, amount_lots, size)

cdef inline i128 position_initial_of(const Terms *terms, i128 lots, i128 notional) noexcept nogil:
    """Return the initial margin of signed lots."""
    cdef Size size
    size.notional = notional
    size.lots = lots if lots >= 0 else -lots
    size.is_short = lots < 0
    return initial_margin_of(terms, notional, size.lots, &size)

cdef inline i128 maintenance_margin_of(
    const Terms *terms, i128 lots, i128 entry_value, i128 notional
) noexcept nogil:
    """ceil(m N) - d of signed lots."""
    if terms.is_plain:
        return maintenance_of(terms.ladder, notional)
    return family_maintenance(terms, lots, entry_value, notional)

cdef inline i128 liquidation_margin_of(
    const Terms *terms, i128 lots, i128 entry_value, i128 notional
) noexcept nogil:
    """ceil((m + phi) N) - d of signed lots."""
    if terms.is_plain:
        return liquidation_requirement_of(terms.ladder, notional)
    return family_requirement(terms, lots, entry_value, notional)

cdef inline uint32_t tier_of(const Terms *terms, i128 lots, i128 notional) noexcept nogil:
    """Return the tier of signed lots."""
    cdef Size size
    cdef Rates rates
    if terms.is_plain:
        return tier_index_of(terms.ladder, notional)
    size.notional = notional
    size.lots = lots if lots >= 0 else -lots
    size.is_short = lots < 0
    rates_of(terms, &size, &rates)
    return rates.tier_index

cdef inline bint can_be_liquidated(
    const Terms *terms, const Exposure *exposure, int64_t price
) noexcept nogil:
    """Whether equity is at or below the requirement at a price, as fractions, unrounded."""
    if terms.is_plain:
        return is_liquidatable_at(exposure, terms.ladder, &terms.unit, price)
    return family_is_liquidatable(terms, exposure, price)

cdef inline uint32_t liquidation_units_of(
    const Terms *terms, const Exposure *exposure, int64_t *price
) noexcept nogil:
    """Write the liquidation price in mark units and return its status."""
    if terms.is_plain:
        return liquidation_price_of(exposure, terms.ladder, &terms.unit, price)
    return family_price(terms, exposure, price)
