"""Margin of options on doubles: rule-based shorts, naked shorts, the largest loss at expiry.

A short option, per unit of the underlying. U is the money's unit of price (1 in coin, the index in
cash), O the amount out of the money at the reference price R, M the mark, k the tier's factor, and
a, b, c, d, f, g are the rule's numbers:

    reduced      (a U - O U / R) k + M'                M' = M, or max(M, entry price)
    floor        b B k + M'                            B = U; of a put also K U / R or U + M
    maintenance  c C k + M + f U                       C = U or max(U, M)
                 max(c U - O U / R, d U) k + M + f U   where the rule shrinks it out of the money
    initial      max(reduced, floor, minimum, g maintenance)

The largest loss of options of one expiry is that of a piecewise linear function: in cash of the
price S, in coin of 1/S, where a call of strike K is K puts of strike 1/K and a put K calls.

What is out of its domain, or does not fit a double, stops the loop at its index.
"""

from libc.math cimport INFINITY, fabs, fmax, fmin, isfinite


cdef enum:
    FLOOR_OF_REFERENCE = 0
    FLOOR_OF_STRIKE = 1
    FLOOR_OF_REFERENCE_AND_MARK = 2

cdef double NET_EPSILON = 1e-12


cdef struct Rates:
    double initial            # a
    double floor              # b
    double maintenance        # c
    double maintenance_floor  # d; below 0: maintenance does not shrink
    double liquidation_fee    # f
    double minimum            # per unit
    double call_over          # g of calls
    double put_over           # g of puts
    bint coin
    int put_floor
    bint call_of_mark
    bint put_of_mark
    bint entry_counts
    bint same


cdef struct Short:
    double reduced
    double floor
    double initial
    double maintenance


cdef Short short_of(
    const Rates *rates, bint is_call, double strike, double otm, double reference, double index,
    double mark, double entry, double factor,
) noexcept nogil:
    """Return the amounts of one unit short."""
    cdef Short short
    cdef double unit = 1.0 if rates.coin else index
    cdef double per_reference = unit / reference
    cdef double out = otm if unit == reference else otm * per_reference
    cdef double shown = fmax(mark, entry) if rates.entry_counts else mark
    cdef double base = unit
    cdef double rated
    if not is_call and rates.put_floor == FLOOR_OF_STRIKE:
        base = strike if unit == reference else strike * per_reference
    elif not is_call and rates.put_floor == FLOOR_OF_REFERENCE_AND_MARK:
        base = unit + mark
    short.reduced = (rates.initial * unit - out) * factor + shown
    short.floor = rates.floor * base * factor + shown
    short.initial = fmax(fmax(short.reduced, short.floor), rates.minimum)
    if rates.same:
        short.maintenance = short.initial
        return short
    if rates.maintenance_floor >= 0.0:
        rated = fmax(rates.maintenance * unit - out, rates.maintenance_floor * unit)
    elif rates.call_of_mark if is_call else rates.put_of_mark:
        rated = rates.maintenance * fmax(unit, mark)
    else:
        rated = rates.maintenance * unit
    short.maintenance = rated * factor + mark + rates.liquidation_fee * unit
    short.initial = fmax(
        short.initial, (rates.call_over if is_call else rates.put_over) * short.maintenance
    )
    return short


cdef class ShortOption:
    cdef Rates _rates

    def __init__(
        self,
        double initial,
        double floor,
        double maintenance,
        double maintenance_floor,
        double liquidation_fee,
        double minimum,
        double call_over,
        double put_over,
        bint coin,
        int put_floor,
        bint call_of_mark,
        bint put_of_mark,
        bint entry_counts,
        bint same,
    ):
        self._rates = Rates(
            initial=initial,
            floor=floor,
            maintenance=maintenance,
            maintenance_floor=maintenance_floor,
            liquidation_fee=liquidation_fee,
            minimum=minimum,
            call_over=call_over,
            put_over=put_over,
            coin=coin,
            put_floor=put_floor,
            call_of_mark=call_of_mark,
            put_of_mark=put_of_mark,
            entry_counts=entry_counts,
            same=same,
        )

    def margins(
        self,
        const unsigned char[::1] is_call,
        const double[::1] quantity,
        const double[::1] strike,
        const double[::1] otm,
        const double[::1] reference,
        const double[::1] index,
        const double[::1] mark,
        const double[::1] entry,
        const double[::1] factor,
        const double[::1] multiplier,
        double[:, ::1] out,
    ):
        cdef Py_ssize_t count = is_call.shape[0]
        cdef Py_ssize_t i
        cdef Short short
        cdef double size
        if not (
            quantity.shape[0] == strike.shape[0] == otm.shape[0] == reference.shape[0]
            == index.shape[0] == mark.shape[0] == entry.shape[0] == factor.shape[0]
            == multiplier.shape[0] == out.shape[1] == count
        ):
            raise ValueError("the arrays differ in length")
        if out.shape[0] != 5:
            raise ValueError(f"out has {out.shape[0]} rows, not 5")
        with nogil:
            for i in range(count):
                # A sum that is not finite has a part that is not.
                if not (
                    isfinite(quantity[i] + strike[i] + otm[i] + mark[i] + entry[i])
                    and isfinite(reference[i] + index[i] + factor[i] + multiplier[i])
                    and strike[i] > 0.0 and otm[i] >= 0.0 and reference[i] > 0.0
                    and index[i] > 0.0 and mark[i] >= 0.0 and entry[i] >= 0.0
                    and factor[i] > 0.0 and multiplier[i] > 0.0
                ):
                    break
                # A long option is paid in full: there is nothing left to margin.
                size = fmax(-quantity[i], 0.0) * multiplier[i]
                short = short_of(
                    &self._rates, is_call[i] != 0, strike[i], otm[i], reference[i], index[i],
                    mark[i], entry[i], factor[i],
                )
                out[0, i] = size * short.reduced
                out[1, i] = size * short.floor
                out[2, i] = size * self._rates.minimum
                out[3, i] = size * short.initial
                out[4, i] = size * short.maintenance
                if not (isfinite(out[1, i] + out[2, i]) and isfinite(out[3, i] + out[4, i])):
                    break
            else:
                i = -1
        return i


def out_of_the_money_arrays(
    const unsigned char[::1] is_call,
    const double[::1] strike,
    const double[::1] reference,
    double[::1] out,
):
    cdef Py_ssize_t count = is_call.shape[0]
    cdef Py_ssize_t i
    if not strike.shape[0] == reference.shape[0] == out.shape[0] == count:
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (
                isfinite(strike[i]) and isfinite(reference[i])
                and strike[i] > 0.0 and reference[i] > 0.0
            ):
                break
            out[i] = fmax(
                strike[i] - reference[i] if is_call[i] else reference[i] - strike[i], 0.0
            )
        else:
            i = -1
    return i


def naked_arrays(
    const unsigned char[::1] is_call,
    const double[::1] quantity,
    const double[::1] strike,
    const double[::1] spot,
    const double[::1] upper_bound,
    const double[::1] spot_shock,
    double[::1] out,
):
    cdef Py_ssize_t count = is_call.shape[0]
    cdef Py_ssize_t i
    cdef double shocked, part
    if not (
        quantity.shape[0] == strike.shape[0] == spot.shape[0] == upper_bound.shape[0]
        == spot_shock.shape[0] == out.shape[0] == count
    ):
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (
                isfinite(quantity[i] + strike[i] + spot[i] + upper_bound[i] + spot_shock[i])
                and strike[i] > 0.0 and spot[i] > 0.0 and 0.0 <= upper_bound[i] <= 1.0
                and 0.0 < spot_shock[i] <= 1.0
            ):
                break
            if is_call[i]:
                # In coin: the price rises to spot / shock.
                part = strike[i] * spot_shock[i] / spot[i]
                shocked = upper_bound[i] * fmin(1.0, part) + fmax(1.0 - part, 0.0)
            else:
                part = spot_shock[i] * spot[i]
                shocked = upper_bound[i] * fmin(strike[i], part) + fmax(strike[i] - part, 0.0)
            out[i] = fmax(-quantity[i], 0.0) * shocked
            if not isfinite(out[i]):
                break
        else:
            i = -1
    return i


cdef double loss_at(
    const unsigned char *is_put, const double *strike, const double *quantity, Py_ssize_t legs,
    double price,
) noexcept nogil:
    """Return minus the pay-off in cash at a price."""
    cdef double loss = 0.0
    cdef Py_ssize_t leg
    for leg in range(legs):
        if is_put[leg]:
            loss -= quantity[leg] * fmax(strike[leg] - price, 0.0)
        else:
            loss -= quantity[leg] * fmax(price - strike[leg], 0.0)
    return loss


cdef double largest_loss(
    const unsigned char *is_put, const double *strike, const double *quantity, Py_ssize_t legs,
    bint coin,
) noexcept nogil:
    """Return the largest loss over all prices: at an end, at a kink, or without bound."""
    cdef double net = 0.0
    cdef double gross = 0.0
    cdef double sold = 0.0
    cdef double loss, slope, at_strike
    cdef Py_ssize_t leg
    for leg in range(legs):
        # At the open end calls rise in cash, puts in coin; a call in coin is a coin at the other.
        if is_put[leg] == coin:
            slope = quantity[leg] * strike[leg] if coin else quantity[leg]
            net += slope
            gross += fabs(slope)
        elif coin:
            sold -= quantity[leg]
    if net < -NET_EPSILON * gross:
        return INFINITY
    loss = sold if coin else loss_at(is_put, strike, quantity, legs, 0.0)
    loss = fmax(0.0, loss)
    for leg in range(legs):
        if quantity[leg] != 0.0:
            at_strike = loss_at(is_put, strike, quantity, legs, strike[leg])
            loss = fmax(loss, at_strike / strike[leg] if coin else at_strike)
    return loss


def max_loss_arrays(
    const unsigned char[:, ::1] is_put,
    const double[:, ::1] strike,
    const double[:, ::1] quantity,
    bint coin,
    double[::1] out,
):
    cdef Py_ssize_t count = is_put.shape[0]
    cdef Py_ssize_t legs = is_put.shape[1]
    cdef Py_ssize_t i, leg
    if not (
        strike.shape[0] == quantity.shape[0] == out.shape[0] == count
        and strike.shape[1] == quantity.shape[1] == legs
    ):
        raise ValueError("the arrays differ in shape")
    if legs == 0:
        raise ValueError("there are no legs")
    with nogil:
        for i in range(count):
            for leg in range(legs):
                if not (
                    isfinite(strike[i, leg]) and isfinite(quantity[i, leg])
                    and strike[i, leg] > 0.0
                ):
                    break
            else:
                out[i] = largest_loss(
                    &is_put[i, 0], &strike[i, 0], &quantity[i, 0], legs, coin
                )
                if out[i] == out[i]:
                    continue
                leg = 0
            i = i * legs + leg
            break
        else:
            i = -1
    return i
