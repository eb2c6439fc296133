"""Margin in the integer arithmetic of chains: every product exact, every division with its side.

Units are in the names: 1e4, 1e6 and 1e9 are parts of one, ppm is 1e6, ppb 1e9, a quantum the
smallest unit of quote currency. Divisions of amounts truncate towards zero unless it says floor or
ceil. What is out of its domain, or does not fit 64 bits, stops the loop at its index.
"""

from libc.math cimport sqrt
from libc.stdint cimport INT64_MAX, int64_t

from riskd.core.money cimport (
    PPB,
    ceil_div,
    debug_assert,
    fits,
    floor_div,
    i128,
    larger,
    magnitude,
    multiply,
)


cdef enum:
    WEIGHT_ONE = 10000
    IMF_ONE = 1000000
    PPM = 1000000
    # A size of 1e9 a token has 1e5 a token under the root of ten times itself.
    ROOT_ONE = 100000
    # root * imf in the unit of weights: ROOT_ONE * IMF_ONE / WEIGHT_ONE.
    ROOT_STEP = 10000000
    # An open order costs 0.01 of the quote currency.
    OPEN_ORDER_1E6 = 10000
    DECIMALS_MAX = 18
    # Weights, ratios and factors are 32-bit numbers on the chain.
    U32_MAX = 4294967295


cdef inline i128 trunc_div(i128 dividend, i128 divisor) noexcept nogil:
    """Return dividend / divisor towards zero; divisor > 0."""
    debug_assert(divisor > 0)
    return dividend / divisor


cdef inline i128 power_of_ten(int64_t exponent) noexcept nogil:
    cdef i128 result = 1
    cdef int64_t _step
    debug_assert(0 <= exponent <= DECIMALS_MAX)
    for _step in range(exponent):
        result *= 10
    return result


cdef i128 integer_root(i128 square) noexcept nogil:
    """Return the largest integer whose square is at most this, 0 to 2^67."""
    cdef i128 root = <i128>sqrt(<double>square)
    debug_assert(square >= 0)
    # The double is within a few units of the root.
    while root * root > square:
        root -= 1
    while (root + 1) * (root + 1) <= square:
        root += 1
    return root


cdef i128 liability_weight_of(i128 size_1e9, int64_t imf_1e6, int64_t weight_1e4) noexcept nogil:
    """max(w, w - w div 5 + root * imf div 1e7), root = isqrt(10 size + 1)."""
    if imf_1e6 == 0:
        return weight_1e4
    return larger(
        weight_1e4,
        weight_1e4 - weight_1e4 / 5
        + trunc_div(integer_root(10 * size_1e9 + 1) * imf_1e6, ROOT_STEP),
    )


cdef i128 asset_weight_of(i128 size_1e9, int64_t imf_1e6, int64_t weight_1e4) noexcept nogil:
    """min(w, 1.1 / (1 + root * imf)), root = isqrt(10 size + 1)."""
    cdef i128 sized
    if imf_1e6 == 0:
        return weight_1e4
    sized = trunc_div(
        <i128>(IMF_ONE + IMF_ONE / 10) * WEIGHT_ONE,
        IMF_ONE + trunc_div(integer_root(10 * size_1e9 + 1) * imf_1e6, ROOT_ONE),
    )
    return sized if sized < weight_1e4 else weight_1e4


def weight_arrays(
    bint asset,
    const int64_t[::1] size_1e9,
    const int64_t[::1] imf_1e6,
    const int64_t[::1] weight_1e4,
    int64_t[::1] out,
):
    cdef Py_ssize_t count = size_1e9.shape[0]
    cdef Py_ssize_t i
    cdef i128 weight
    if not imf_1e6.shape[0] == weight_1e4.shape[0] == out.shape[0] == count:
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (
                size_1e9[i] >= 0 and 0 <= imf_1e6[i] <= U32_MAX and 0 <= weight_1e4[i] <= U32_MAX
            ):
                break
            if asset:
                weight = asset_weight_of(size_1e9[i], imf_1e6[i], weight_1e4[i])
            else:
                weight = liability_weight_of(size_1e9[i], imf_1e6[i], weight_1e4[i])
            out[i] = <int64_t>weight
        else:
            i = -1
    return i


cdef bint value_of(i128 amount, int64_t price_1e6, i128 one, i128 *value) noexcept nogil:
    """Write amount * price / one, towards zero; False if it does not fit."""
    cdef i128 product
    if not multiply(amount, price_1e6, &product):
        return False
    value[0] = trunc_div(product, one)
    return fits(value[0])


def token_value_arrays(
    const int64_t[::1] tokens,
    const int64_t[::1] price_1e6,
    const int64_t[::1] decimals,
    int64_t[::1] out,
):
    cdef Py_ssize_t count = tokens.shape[0]
    cdef Py_ssize_t i
    cdef i128 value
    if not price_1e6.shape[0] == decimals.shape[0] == out.shape[0] == count:
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (
                price_1e6[i] > 0 and 0 <= decimals[i] <= DECIMALS_MAX
                and value_of(tokens[i], price_1e6[i], power_of_ten(decimals[i]), &value)
            ):
                break
            out[i] = <int64_t>value
        else:
            i = -1
    return i


def pool_weight_arrays(
    const int64_t[::1] weight_1e4,
    const int64_t[::1] pool_value_1e6,
    const int64_t[::1] scale_start_1e6,
    int64_t[::1] out,
):
    cdef Py_ssize_t count = weight_1e4.shape[0]
    cdef Py_ssize_t i
    if not pool_value_1e6.shape[0] == scale_start_1e6.shape[0] == out.shape[0] == count:
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (
                0 <= weight_1e4[i] <= U32_MAX and pool_value_1e6[i] >= 0
                and scale_start_1e6[i] >= 0
            ):
                break
            if scale_start_1e6[i] == 0 or pool_value_1e6[i] < scale_start_1e6[i]:
                out[i] = weight_1e4[i]
            else:
                out[i] = <int64_t>trunc_div(
                    <i128>weight_1e4[i] * scale_start_1e6[i], pool_value_1e6[i]
                )
        else:
            i = -1
    return i


cdef struct Spot:
    int64_t decimals
    int64_t price_1e6
    int64_t imf_1e6
    int64_t asset_weight_1e4
    int64_t liability_weight_1e4


cdef struct Fill:
    i128 value
    i128 weighted
    i128 orders_value


cdef bint fill_of(
    const Spot *spot, i128 tokens, i128 bought, i128 one, i128 asset_cap, i128 liability_floor,
    Fill *fill,
) noexcept nogil:
    """Write the balance after an order of this size fills at the price; False if it overflows."""
    cdef i128 held = tokens + bought
    cdef i128 size_1e9, weight, product
    if not (
        value_of(held, spot.price_1e6, one, &fill.value)
        and value_of(-bought, spot.price_1e6, one, &fill.orders_value)
    ):
        return False
    if spot.decimals >= 9:
        size_1e9 = magnitude(held) / power_of_ten(spot.decimals - 9)
    else:
        size_1e9 = magnitude(held) * power_of_ten(9 - spot.decimals)
    if size_1e9 > INT64_MAX:
        return False
    if fill.value < 0:
        weight = liability_weight_of(size_1e9, spot.imf_1e6, spot.liability_weight_1e4)
        weight = larger(weight, liability_floor)
    else:
        weight = asset_weight_of(size_1e9, spot.imf_1e6, spot.asset_weight_1e4)
        weight = asset_cap if asset_cap < weight else weight
    if not multiply(fill.value, weight, &product):
        return False
    fill.weighted = trunc_div(product, WEIGHT_ONE)
    return fits(fill.weighted)


def spot_arrays(
    const int64_t[::1] tokens,
    const int64_t[::1] bids,
    const int64_t[::1] asks,
    const int64_t[::1] orders,
    const int64_t[::1] decimals,
    const int64_t[::1] price_1e6,
    const int64_t[::1] imf_1e6,
    const int64_t[::1] asset_weight_1e4,
    const int64_t[::1] liability_weight_1e4,
    const int64_t[::1] custom_ratio_1e4,
    int64_t[:, ::1] out,
):
    cdef Py_ssize_t count = tokens.shape[0]
    cdef Py_ssize_t i
    cdef Spot spot
    cdef Fill bid, ask, worst
    cdef i128 one, asset_cap, liability_floor, collateral, requirement, liability
    if not (
        bids.shape[0] == asks.shape[0] == orders.shape[0] == decimals.shape[0]
        == price_1e6.shape[0] == imf_1e6.shape[0] == asset_weight_1e4.shape[0]
        == liability_weight_1e4.shape[0] == custom_ratio_1e4.shape[0] == out.shape[1] == count
    ):
        raise ValueError("the arrays differ in length")
    if out.shape[0] != 3:
        raise ValueError(f"out has {out.shape[0]} rows, not 3")
    with nogil:
        for i in range(count):
            if not (
                bids[i] >= 0 and asks[i] >= 0 and 0 <= orders[i] <= U32_MAX
                and 0 <= decimals[i] <= DECIMALS_MAX and price_1e6[i] > 0
                and 0 <= imf_1e6[i] <= U32_MAX and 0 <= asset_weight_1e4[i] <= U32_MAX
                and 0 <= liability_weight_1e4[i] <= U32_MAX
                and 0 <= custom_ratio_1e4[i] <= U32_MAX
            ):
                break
            spot.decimals = decimals[i]
            spot.price_1e6 = price_1e6[i]
            spot.imf_1e6 = imf_1e6[i]
            spot.asset_weight_1e4 = asset_weight_1e4[i]
            spot.liability_weight_1e4 = liability_weight_1e4[i]
            one = power_of_ten(decimals[i])
            # The riskier side is chosen before the account's own ratio weighs in.
            if not (
                fill_of(&spot, tokens[i], bids[i], one, U32_MAX, 0, &bid)
                and fill_of(&spot, tokens[i], -<i128>asks[i], one, U32_MAX, 0, &ask)
            ):
                break
            if ask.weighted + ask.orders_value <= bid.weighted + bid.orders_value:
                worst = ask
                collateral = -<i128>asks[i]
            else:
                worst = bid
                collateral = bids[i]
            if custom_ratio_1e4[i] > 0:
                asset_cap = larger(0, WEIGHT_ONE - custom_ratio_1e4[i])
                liability_floor = WEIGHT_ONE + custom_ratio_1e4[i]
                if not fill_of(
                    &spot, tokens[i], collateral, one, asset_cap, liability_floor, &worst
                ):
                    break
            collateral = larger(0, worst.weighted) + larger(0, worst.orders_value)
            requirement = (
                orders[i] * <i128>OPEN_ORDER_1E6
                + larger(0, -worst.weighted) + larger(0, -worst.orders_value)
            )
            liability = larger(0, -worst.value) + larger(0, -worst.orders_value)
            if not (fits(collateral) and fits(requirement) and fits(liability)):
                break
            out[0, i] = <int64_t>collateral
            out[1, i] = <int64_t>requirement
            out[2, i] = <int64_t>liability
        else:
            i = -1
    return i


def perp_arrays(
    const int64_t[::1] base_1e9,
    const int64_t[::1] quote_1e6,
    const int64_t[::1] bids_1e9,
    const int64_t[::1] asks_1e9,
    const int64_t[::1] orders,
    const int64_t[::1] price_1e6,
    const int64_t[::1] imf_1e6,
    const int64_t[::1] ratio_1e4,
    const int64_t[::1] custom_ratio_1e4,
    const int64_t[::1] profit_weight_1e4,
    int64_t[:, ::1] out,
):
    cdef Py_ssize_t count = base_1e9.shape[0]
    cdef Py_ssize_t i
    cdef i128 one = 1000000000
    cdef i128 value, worst, worst_value, profit, weighted, ratio, requirement
    if not (
        quote_1e6.shape[0] == bids_1e9.shape[0] == asks_1e9.shape[0] == orders.shape[0]
        == price_1e6.shape[0] == imf_1e6.shape[0] == ratio_1e4.shape[0]
        == custom_ratio_1e4.shape[0] == profit_weight_1e4.shape[0] == out.shape[1] == count
    ):
        raise ValueError("the arrays differ in length")
    if out.shape[0] != 4:
        raise ValueError(f"out has {out.shape[0]} rows, not 4")
    with nogil:
        for i in range(count):
            if not (
                bids_1e9[i] >= 0 and asks_1e9[i] >= 0 and 0 <= orders[i] <= U32_MAX
                and price_1e6[i] > 0 and 0 <= imf_1e6[i] <= U32_MAX
                and 0 <= ratio_1e4[i] <= U32_MAX and 0 <= custom_ratio_1e4[i] <= U32_MAX
                and 0 <= profit_weight_1e4[i] <= WEIGHT_ONE
            ):
                break
            worst = larger(
                magnitude(<i128>base_1e9[i] + bids_1e9[i]),
                magnitude(<i128>base_1e9[i] - asks_1e9[i]),
            )
            if worst > INT64_MAX or not (
                value_of(base_1e9[i], price_1e6[i], one, &value)
                and value_of(worst, price_1e6[i], one, &worst_value)
            ):
                break
            ratio = larger(
                custom_ratio_1e4[i], liability_weight_of(worst, imf_1e6[i], ratio_1e4[i])
            )
            if not multiply(worst_value, ratio, &requirement):
                break
            requirement = trunc_div(requirement, WEIGHT_ONE) + orders[i] * <i128>OPEN_ORDER_1E6
            profit = value + quote_1e6[i]
            weighted = profit
            if profit > 0:
                weighted = trunc_div(profit * profit_weight_1e4[i], WEIGHT_ONE)
            if not (fits(weighted) and fits(requirement) and fits(worst_value)):
                break
            out[0, i] = <int64_t>weighted
            out[1, i] = <int64_t>requirement
            out[2, i] = <int64_t>worst_value
            out[3, i] = <int64_t>larger(0, -profit)
        else:
            i = -1
    return i


def base_to_cover_arrays(
    const int64_t[::1] shortage_1e6,
    const int64_t[::1] ratio_1e4,
    const int64_t[::1] liquidation_fee_1e6,
    const int64_t[::1] insurance_fee_1e6,
    const int64_t[::1] price_1e6,
    const int64_t[::1] quote_price_1e6,
    int64_t[::1] out,
):
    cdef Py_ssize_t count = shortage_1e6.shape[0]
    cdef Py_ssize_t i
    cdef i128 price, freed, amount
    if not (
        ratio_1e4.shape[0] == liquidation_fee_1e6.shape[0] == insurance_fee_1e6.shape[0]
        == price_1e6.shape[0] == quote_price_1e6.shape[0] == out.shape[0] == count
    ):
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (
                shortage_1e6[i] >= 0 and 0 <= ratio_1e4[i] <= U32_MAX
                and 0 <= liquidation_fee_1e6[i] <= U32_MAX
                and 0 <= insurance_fee_1e6[i] <= U32_MAX
                and price_1e6[i] >= 0 and quote_price_1e6[i] > 0
            ):
                break
            price = trunc_div(<i128>price_1e6[i] * quote_price_1e6[i], IMF_ONE)
            freed = ratio_1e4[i] * <i128>(IMF_ONE / WEIGHT_ONE) - liquidation_fee_1e6[i]
            if not multiply(price, freed, &freed):
                break
            freed = trunc_div(freed, IMF_ONE) - trunc_div(
                <i128>price_1e6[i] * insurance_fee_1e6[i], IMF_ONE
            )
            if freed <= 0:
                out[i] = -1
                continue
            amount = trunc_div(shortage_1e6[i] * <i128>PPB, freed)
            if not fits(amount):
                break
            out[i] = <int64_t>amount
        else:
            i = -1
    return i


def liability_to_cover_arrays(
    const int64_t[::1] shortage_1e6,
    const int64_t[::1] asset_weight_1e4,
    const int64_t[::1] asset_multiplier_1e6,
    const int64_t[::1] liability_weight_1e4,
    const int64_t[::1] liability_multiplier_1e6,
    const int64_t[::1] decimals,
    const int64_t[::1] price_1e6,
    const int64_t[::1] insurance_fee_1e6,
    int64_t[::1] out,
):
    cdef Py_ssize_t count = shortage_1e6.shape[0]
    cdef Py_ssize_t i
    cdef i128 freed, fee, amount
    if not (
        asset_weight_1e4.shape[0] == asset_multiplier_1e6.shape[0]
        == liability_weight_1e4.shape[0] == liability_multiplier_1e6.shape[0]
        == decimals.shape[0] == price_1e6.shape[0] == insurance_fee_1e6.shape[0]
        == out.shape[0] == count
    ):
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (
                shortage_1e6[i] >= 0 and 0 <= asset_weight_1e4[i] <= U32_MAX
                and 0 <= asset_multiplier_1e6[i] <= U32_MAX
                and 0 <= liability_weight_1e4[i] <= U32_MAX
                and 0 < liability_multiplier_1e6[i] <= U32_MAX
                and 0 <= decimals[i] <= DECIMALS_MAX and price_1e6[i] > 0
                and 0 <= insurance_fee_1e6[i] <= U32_MAX
            ):
                break
            # Weights count in 1e-5 here, one digit finer than they are stored.
            freed = <i128>liability_weight_1e4[i] * 10 - trunc_div(
                <i128>asset_weight_1e4[i] * 10 * asset_multiplier_1e6[i],
                liability_multiplier_1e6[i],
            )
            fee = trunc_div(<i128>price_1e6[i] * insurance_fee_1e6[i], IMF_ONE)
            if not (
                multiply(price_1e6[i], freed, &freed)
                and multiply(fee, <i128>liability_weight_1e4[i] * 10, &fee)
            ):
                break
            freed -= fee
            if freed <= 0:
                out[i] = -1
                continue
            amount = shortage_1e6[i] * <i128>IMF_ONE * WEIGHT_ONE * 10
            if decimals[i] > 6 and not multiply(amount, power_of_ten(decimals[i] - 6), &amount):
                break
            amount = trunc_div(amount, freed)
            if decimals[i] < 6:
                amount = trunc_div(amount, power_of_ten(6 - decimals[i]))
            if not fits(amount):
                break
            out[i] = <int64_t>amount
        else:
            i = -1
    return i


cdef i128 open_interest_rate_of(
    int64_t base_ppm, int64_t open_interest, int64_t lower, int64_t upper
) noexcept nogil:
    """base + floor((1 - base) (OI - lower) / (upper - lower)) in ppm; upper 0 switches it off."""
    if upper == 0 or open_interest <= lower:
        return base_ppm
    if open_interest >= upper:
        return PPM
    return base_ppm + floor_div(
        <i128>(PPM - base_ppm) * (open_interest - lower), <i128>upper - lower
    )


def open_interest_arrays(
    const int64_t[::1] notional_quantums,
    const int64_t[::1] base_ppm,
    const int64_t[::1] open_interest,
    const int64_t[::1] lower_cap,
    const int64_t[::1] upper_cap,
    const int64_t[::1] custom_ppm,
    int64_t[:, ::1] out,
):
    cdef Py_ssize_t count = notional_quantums.shape[0]
    cdef Py_ssize_t i
    cdef i128 rate
    if not (
        base_ppm.shape[0] == open_interest.shape[0] == lower_cap.shape[0] == upper_cap.shape[0]
        == custom_ppm.shape[0] == out.shape[1] == count
    ):
        raise ValueError("the arrays differ in length")
    if out.shape[0] != 2:
        raise ValueError(f"out has {out.shape[0]} rows, not 2")
    with nogil:
        for i in range(count):
            if not (
                notional_quantums[i] >= 0 and 0 <= base_ppm[i] <= PPM and open_interest[i] >= 0
                and 0 <= lower_cap[i] <= upper_cap[i] and 0 <= custom_ppm[i] <= PPM
            ):
                break
            rate = larger(
                custom_ppm[i],
                open_interest_rate_of(base_ppm[i], open_interest[i], lower_cap[i], upper_cap[i]),
            )
            out[0, i] = <int64_t>rate
            out[1, i] = <int64_t>ceil_div(notional_quantums[i] * rate, PPM)
        else:
            i = -1
    return i


def maintenance_arrays(
    const int64_t[::1] notional_quantums,
    const int64_t[::1] initial_ppm,
    const int64_t[::1] fraction_ppm,
    int64_t[:, ::1] out,
):
    cdef Py_ssize_t count = notional_quantums.shape[0]
    cdef Py_ssize_t i
    cdef i128 parts
    if not initial_ppm.shape[0] == fraction_ppm.shape[0] == out.shape[1] == count:
        raise ValueError("the arrays differ in length")
    if out.shape[0] != 2:
        raise ValueError(f"out has {out.shape[0]} rows, not 2")
    with nogil:
        for i in range(count):
            if not (
                notional_quantums[i] >= 0 and 0 <= initial_ppm[i] <= PPM
                and 0 <= fraction_ppm[i] <= PPM
            ):
                break
            parts = <i128>initial_ppm[i] * fraction_ppm[i]
            out[0, i] = <int64_t>floor_div(parts, PPM)
            # At most 2^63 * 2^40.
            out[1, i] = <int64_t>ceil_div(notional_quantums[i] * parts, <i128>PPM * PPM)
        else:
            i = -1
    return i


def bankruptcy_arrays(
    const int64_t[::1] notional_change,
    const int64_t[::1] maintenance_change,
    const int64_t[::1] net_collateral,
    const int64_t[::1] maintenance,
    int64_t[::1] out,
):
    cdef Py_ssize_t count = notional_change.shape[0]
    cdef Py_ssize_t i
    cdef i128 price
    if not (
        maintenance_change.shape[0] == net_collateral.shape[0] == maintenance.shape[0]
        == out.shape[0] == count
    ):
        raise ValueError("the arrays differ in length")
    with nogil:
        for i in range(count):
            if not (maintenance[i] > 0 and magnitude(maintenance_change[i]) <= maintenance[i]):
                break
            price = -<i128>notional_change[i] - floor_div(
                net_collateral[i] * magnitude(maintenance_change[i]), maintenance[i]
            )
            if not fits(price):
                break
            out[i] = <int64_t>price
        else:
            i = -1
    return i


def order_margin_arrays(
    const int64_t[::1] position,
    const int64_t[::1] account,
    const unsigned char[::1] is_buy,
    const int64_t[::1] quantity,
    const int64_t[::1] price,
    const int64_t[::1] factor_ppb,
    const int64_t[::1] quantity_one,
    const int64_t[::1] auction_price,
    int64_t[:, ::1] out,
):
    cdef Py_ssize_t accounts = position.shape[0]
    cdef Py_ssize_t orders = account.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t owner = -1
    cdef int64_t side = 2
    cdef i128 covered = 0
    cdef i128 total = 0
    cdef i128 counted, margin
    if not (
        factor_ppb.shape[0] == quantity_one.shape[0] == auction_price.shape[0] == out.shape[1]
        == accounts
        and is_buy.shape[0] == quantity.shape[0] == price.shape[0] == orders
    ):
        raise ValueError("the arrays differ in length")
    if out.shape[0] != 2:
        raise ValueError(f"out has {out.shape[0]} rows, not 2")
    out[:, :] = 0
    with nogil:
        for i in range(orders):
            if account[i] != owner or is_buy[i] != side:
                owner = account[i]
                side = is_buy[i]
                total = 0
                # What closes the position is covered by it, the best prices first.
                covered = larger(0, -<i128>position[owner] if side else <i128>position[owner])
            counted = larger(0, quantity[i] - covered)
            covered = larger(0, covered - quantity[i])
            total += counted * larger(price[i], auction_price[owner])
            # The next product adds less than 2^126.
            if total > (<i128>1 << 96) or not multiply(total, factor_ppb[owner], &margin):
                break
            margin = trunc_div(margin, <i128>PPB * quantity_one[owner])
            if not fits(margin):
                break
            out[1 - side, owner] = <int64_t>margin
        else:
            i = -1
    return i
