"""Margin levels: how much of their margin accounts and isolated positions have left."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.book cimport Book

cdef uint32_t set_margin_levels(
    Book *book, int64_t search_ppm, int64_t release_ppm, bint validate_only
) noexcept nogil
cdef uint32_t evaluate_levels(
    Book *book, uint32_t first, uint32_t count, uint64_t now_ns, uint32_t *next_place
) noexcept nogil
