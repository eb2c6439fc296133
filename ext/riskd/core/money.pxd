"""Exact integer arithmetic of money: 128-bit intermediates, explicit rounding, no wrap.

The caller bounds its inputs so that sums stay inside 128 bits; products of three or more factors go
through `multiply`, which says when they do not.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint64_t

cdef extern from "core.h" nogil:
    # Declared as the widest integer that Cython knows, so that mixed expressions keep this type.
    ctypedef long long i128 "riskd_i128"
    void debug_assert "riskd_debug_assert"(bint condition) noexcept
    bint multiply "riskd_multiply"(i128 a, i128 b, i128 *product) noexcept

cdef enum:
    # One as a rate: rates count in 1e-9.
    PPB = 1000000000
    # Leverage counts in hundredths.
    LEVERAGE_ONE = 100

cdef inline bint fits(i128 amount) noexcept nogil:
    """Return whether the amount fits the money type: 64 bits, the least value left out."""
    return <int64_t>amount == amount and <int64_t>amount != INT64_MIN

cdef inline int64_t clamp(i128 amount) noexcept nogil:
    """Return the nearest amount that fits 64 bits."""
    if amount > <i128>INT64_MAX:
        return INT64_MAX
    if amount < <i128>INT64_MIN:
        return INT64_MIN
    return <int64_t>amount

cdef inline i128 floor_div(i128 dividend, i128 divisor) noexcept nogil:
    """Return dividend / divisor towards minus infinity; divisor > 0.

    Almost every quotient of real orders fits 64 bits, where a division costs a tenth of one of 128.
    """
    cdef i128 quotient
    debug_assert(divisor > 0)
    # Neither is below 0 nor above 2^63 - 1.
    if (dividend | divisor) >> 63 == 0:
        return <uint64_t>dividend / <uint64_t>divisor
    quotient = dividend / divisor
    if quotient * divisor > dividend:
        quotient -= 1
    return quotient

cdef inline i128 ceil_div(i128 dividend, i128 divisor) noexcept nogil:
    """Return dividend / divisor towards plus infinity; divisor > 0."""
    cdef i128 quotient
    debug_assert(divisor > 0)
    # The sum of two numbers below 2^63 fits an unsigned 64 bits.
    if (dividend | divisor) >> 63 == 0:
        return (<uint64_t>dividend + <uint64_t>divisor - 1) / <uint64_t>divisor
    quotient = dividend / divisor
    if quotient * divisor < dividend:
        quotient += 1
    return quotient

cdef inline i128 larger(i128 a, i128 b) noexcept nogil:
    return a if a > b else b

cdef inline i128 magnitude(i128 a) noexcept nogil:
    return a if a >= 0 else -a
