"""Margin of short options: what an option rule asks for (docs/instruments.md).

Of |x| lots, with S the underlying's mark, K the strike, T the option's mark, v the value of one lot
at one mark unit and otm what the option is out of the money, in the same units:

    linear   initial = (max(a S - otm, b S) + T) v |x|,  maintenance = (c S + T) v |x|
    in coin  initial = (max(a - otm / S, b) g + T v) |x|, maintenance = (c g + T v) |x|

g is one coin's worth of a lot, a whole number of minor units. A put, or any option, may ask for
more: max(c S, c T) in the place of c S, max(c, c T') in the place of c, T' the mark in coin.
Initial margin is never below maintenance, of puts never below d times it; what orders open holds at
least e S v, in coin e g, a lot. Everything is exact, and rounded up once.
"""

from libc.stdint cimport int64_t

from riskd.core.margin cimport Terms, beyond_money
from riskd.core.money cimport PPB, ceil_div, i128, larger, multiply
from riskd.core.types cimport (
    INSTRUMENT_KIND_INVERSE_OPTION,
    OPTION_TYPE_CALL,
    OPTION_TYPE_PUT,
    PUT_MAINTENANCE_ALL,
    PUT_MAINTENANCE_NONE,
    Instrument,
    Schedule,
)

# The whole part of a figure, and the rest: rest / divisor, 0 or more and below 1.
ctypedef struct Sum:
    i128 whole
    i128 rest
    i128 divisor                    # at most 2^60


cdef inline i128 _rounded_up(const Sum *exact) noexcept nogil:
    return exact.whole + (1 if exact.rest > 0 else 0)


cdef i128 _times(const Sum *exact, int64_t rate) noexcept nogil:
    """Return a figure times a rate in ppb, at most 2^34, rounded up."""
    cdef i128 product
    if not multiply(exact.whole, rate, &product):
        return beyond_money()
    return product / PPB + ceil_div(
        product % PPB * exact.divisor + exact.rest * rate, PPB * exact.divisor
    )


cdef inline i128 _out_of_the_money(const Instrument *option, i128 spot) noexcept nogil:
    if option.option_type == OPTION_TYPE_CALL:
        return larger(0, option.strike_units - spot)
    return larger(0, spot - option.strike_units)


cdef inline bint _asks_more(const Terms *terms) noexcept nogil:
    """Whether maintenance also counts the option's own mark."""
    if terms.rule.parameter_b == PUT_MAINTENANCE_NONE:
        return False
    return terms.rule.parameter_b == PUT_MAINTENANCE_ALL or (
        terms.instrument.option_type == OPTION_TYPE_PUT
    )


cdef void _money(const Terms *terms, i128 lots, i128 figure, Sum *exact) noexcept nogil:
    """Write lots at a figure of 1e-9 mark units, 0 or more.

    One that does not fit 128 bits before the division is far beyond any money after it.
    """
    cdef i128 product
    exact.divisor = <i128>PPB * terms.unit.denominator
    if not multiply(lots, figure, &product) or not multiply(
        product, terms.unit.numerator, &product
    ):
        exact.whole = beyond_money()
        exact.rest = 0
        return
    exact.whole = product / exact.divisor
    exact.rest = product % exact.divisor


cdef void _linear(
    const Terms *terms, i128 lots, i128 *initial, Sum *maintenance
) noexcept nogil:
    cdef const Schedule *rule = terms.rule
    cdef i128 spot = terms.underlying.mark.price
    cdef i128 mark = terms.instrument.mark.price
    cdef i128 otm = _out_of_the_money(terms.instrument, spot) * PPB
    cdef i128 more = rule.ladder.tiers[0].maintenance_ppb * spot
    cdef Sum exact
    if _asks_more(terms):
        more = larger(more, rule.ladder.tiers[0].maintenance_ppb * mark)
    _money(terms, lots, more + mark * PPB, maintenance)
    more = larger(
        rule.ladder.tiers[0].initial_ppb * spot - otm, rule.parameter_a * spot
    )
    _money(terms, lots, more + mark * PPB, &exact)
    initial[0] = _rounded_up(&exact)


cdef i128 _sum_up(
    const Terms *terms, i128 coins, int64_t rate, i128 otm, i128 premium
) noexcept nogil:
    """Return coins (rate - otm / S) + premium / U, rounded up.

    Each quotient is whole with a rest; the rests have a common denominator of less than 2^114.
    """
    cdef i128 spot = terms.underlying.mark.price
    cdef i128 units = terms.instrument.units_per_tick
    cdef i128 whole = coins / PPB * rate
    cdef i128 rest = coins % PPB * rate
    cdef i128 off, rests
    whole += rest / PPB
    rests = rest % PPB * spot * units
    off = coins % spot * otm
    whole -= coins / spot * otm + off / spot
    rests -= off % spot * units * PPB
    whole += premium / units
    rests += premium % units * PPB * spot
    # A rest below 0 is above -1.
    return whole + (ceil_div(rests, <i128>PPB * spot * units) if rests > 0 else 0)


cdef void _coin_maintenance(
    const Terms *terms, i128 coins, i128 premium, Sum *exact
) noexcept nogil:
    """Write c g + T v of all lots, or T v (1 + c) where that is more."""
    cdef const Instrument *option = terms.instrument
    cdef i128 rate = terms.rule.ladder.tiers[0].maintenance_ppb
    cdef i128 units = option.units_per_tick
    exact.divisor = PPB * units
    if _asks_more(terms) and (
        option.mark.price * <i128>option.tick_value > option.coin_value * units
    ):
        rate += PPB
        exact.whole = premium / exact.divisor * rate
        exact.rest = premium % exact.divisor * rate
    else:
        exact.whole = coins / PPB * rate + premium / units
        exact.rest = coins % PPB * rate * units + premium % units * PPB
    exact.whole += exact.rest / exact.divisor
    exact.rest %= exact.divisor


cdef void _in_coin(
    const Terms *terms, i128 lots, i128 *initial, Sum *maintenance
) noexcept nogil:
    cdef const Schedule *rule = terms.rule
    cdef const Instrument *option = terms.instrument
    cdef i128 spot = terms.underlying.mark.price
    cdef i128 otm = _out_of_the_money(option, spot)
    cdef i128 coins = lots * option.coin_value
    cdef i128 premium, product
    if not multiply(lots * option.mark.price, option.tick_value, &premium) or premium >> 110:
        initial[0] = beyond_money()
        maintenance.whole = beyond_money()
        maintenance.rest = 0
        maintenance.divisor = 1
        return
    _coin_maintenance(terms, coins, premium, maintenance)
    # a - otm / S or b, whichever is more: what is below b is not looked at, and the rest fits.
    product = rule.ladder.tiers[0].initial_ppb * spot - otm * PPB
    if product >= rule.parameter_a * spot:
        initial[0] = _sum_up(terms, coins, rule.ladder.tiers[0].initial_ppb, otm, premium)
    else:
        initial[0] = _sum_up(terms, coins, rule.parameter_a, 0, premium)


cdef void short_margin_of(
    const Terms *terms, i128 lots, i128 *initial, i128 *maintenance
) noexcept nogil:
    """Write the margin of short lots, at marks that are there."""
    cdef int64_t ratio_ppb = terms.rule.parameter_d
    cdef Sum exact
    if terms.instrument.kind == INSTRUMENT_KIND_INVERSE_OPTION:
        _in_coin(terms, lots, initial, &exact)
    else:
        _linear(terms, lots, initial, &exact)
    maintenance[0] = _rounded_up(&exact)
    initial[0] = larger(initial[0], maintenance[0])
    if ratio_ppb != 0 and terms.instrument.option_type == OPTION_TYPE_PUT:
        initial[0] = larger(initial[0], _times(&exact, ratio_ppb))


cdef i128 opening_margin_of(const Terms *terms, i128 lots) noexcept nogil:
    """Return what lots hold that a sell opens, at marks that are there."""
    cdef int64_t rate = terms.rule.parameter_e
    cdef i128 initial, maintenance, coins
    cdef Sum least
    short_margin_of(terms, lots, &initial, &maintenance)
    if rate == 0:
        return initial
    if terms.instrument.kind == INSTRUMENT_KIND_INVERSE_OPTION:
        coins = lots * terms.instrument.coin_value
        return larger(initial, coins / PPB * rate + ceil_div(coins % PPB * rate, PPB))
    _money(terms, lots, <i128>rate * terms.underlying.mark.price, &least)
    return larger(initial, _rounded_up(&least))
