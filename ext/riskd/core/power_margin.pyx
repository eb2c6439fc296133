"""Maintenance that grows with a power of the notional: rates, and the price of liquidation.

The rate of notional N is m(N) = max(b, k N^p). With W the money of the pool without this position's
own part, a position is liquidated where

    long   W + N - N m(N) = 0      W = collateral - others' maintenance - Q mark
    short  W - N - N m(N) = 0      W = collateral - others' maintenance + Q mark

and N = Q L. Below the kink N = (b / k)^(1/p) the root is that of a straight line. Above it both
functions are concave in N, so Newton's method from the kink (long) or from W (short) steps to the
root from one side and needs no bracket.
"""

from libc.math cimport INFINITY, NAN, fabs, fmax, isfinite, pow


cdef enum:
    STEPS_MAX = 200

# Steps smaller than this part of the notional are rounding.
cdef double STEP_EPSILON = 1e-15


cdef double rate_of(double notional, double base, double factor, double power) noexcept nogil:
    return fmax(base, factor * pow(notional, power)) if notional > 0.0 else base


cdef double notional_at_root(
    bint is_long, double money, double base, double factor, double power
) noexcept nogil:
    """Return N at the root. NAN: there is none, the position is safe at every price.

    INFINITY (long) and 0 (short): none, and it is past it at every price.
    """
    cdef double kink, notional, gap, slope, step
    cdef double sign = 1.0 if is_long else -1.0
    cdef int _step
    if is_long and money >= 0.0:
        return NAN
    if not is_long and money <= 0.0:
        return 0.0
    kink = pow(base / factor, 1.0 / power) if factor > 0.0 else INFINITY
    if base < 1.0 or not is_long:
        notional = -sign * money / (1.0 - sign * base)
        if notional <= kink:
            return notional
    elif factor == 0.0:
        return INFINITY
    notional = kink if is_long else money
    for _step in range(STEPS_MAX):
        gap = money + sign * notional - factor * pow(notional, 1.0 + power)
        slope = sign - (1.0 + power) * factor * pow(notional, power)
        # Maintenance of a long this large grows faster than its value.
        if is_long and slope <= 0.0:
            return INFINITY
        step = gap / slope
        notional -= step
        if fabs(step) <= STEP_EPSILON * notional:
            break
    return notional


def rate_arrays(
    const double[::1] notional,
    const double[::1] base,
    const double[::1] factor,
    const double[::1] power,
    double[::1] out,
):
    cdef Py_ssize_t count = notional.shape[0]
    cdef Py_ssize_t i
    if not base.shape[0] == factor.shape[0] == power.shape[0] == out.shape[0] == count:
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (
                isfinite(notional[i] + base[i] + factor[i] + power[i])
                and notional[i] >= 0.0 and base[i] >= 0.0 and factor[i] >= 0.0 and power[i] > 0.0
            ):
                break
            out[i] = rate_of(notional[i], base[i], factor[i], power[i])
            if not isfinite(out[i]):
                break
        else:
            i = -1
    return i


def liquidation_price_arrays(
    const double[::1] quantity,
    const double[::1] mark,
    const double[::1] collateral,
    const double[::1] others,
    const double[::1] base,
    const double[::1] factor,
    const double[::1] power,
    double[::1] out,
):
    cdef Py_ssize_t count = quantity.shape[0]
    cdef Py_ssize_t i
    cdef double money
    if not (
        mark.shape[0] == collateral.shape[0] == others.shape[0] == base.shape[0]
        == factor.shape[0] == power.shape[0] == out.shape[0] == count
    ):
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (
                isfinite(quantity[i] + mark[i] + collateral[i] + others[i])
                and isfinite(base[i] + factor[i] + power[i])
                and quantity[i] != 0.0 and mark[i] > 0.0 and others[i] >= 0.0
                and base[i] >= 0.0 and factor[i] >= 0.0 and power[i] > 0.0
            ):
                break
            money = collateral[i] - others[i] - quantity[i] * mark[i]
            if not isfinite(money):
                break
            out[i] = notional_at_root(
                quantity[i] > 0.0, money, base[i], factor[i], power[i]
            ) / fabs(quantity[i])
        else:
            i = -1
    return i
