"""Margin of short options: what an option rule asks for (docs/instruments.md)."""

from libc.stdint cimport uint32_t, uint64_t

from riskd.core.margin cimport Terms
from riskd.core.money cimport i128
from riskd.core.types cimport REASON_NONE
from riskd.core.value cimport mark_reason_of

cdef void short_margin_of(
    const Terms *terms, i128 lots, i128 *initial, i128 *maintenance
) noexcept nogil
cdef i128 opening_margin_of(const Terms *terms, i128 lots) noexcept nogil

cdef inline bint may_be_short(i128 lots, i128 sold) noexcept nogil:
    """Whether lots are short, or would be once the sells are filled."""
    return lots < 0 or sold > lots

cdef inline bint has_marks(const Terms *terms) noexcept nogil:
    return terms.instrument.mark.price != 0 and terms.underlying.mark.price != 0

cdef inline uint32_t marks_reason_of(const Terms *terms, uint64_t now_ns) noexcept nogil:
    """S-10, S-11 of the option, then of the underlying."""
    cdef uint32_t reason = mark_reason_of(terms.instrument, now_ns)
    return reason if reason != REASON_NONE else mark_reason_of(terms.underlying, now_ns)
