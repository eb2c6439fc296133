"""Margin of short options: what an option rule asks for (docs/instruments.md).

Of |x| lots, with S the underlying's mark, K the strike, T the option's mark, v the value of one lot
at one mark unit and otm what the option is out of the money, in the same units:

    linear   initial = (max(a S - otm, b S) + T) v |x|,  maintenance = (c S + T) v |x|
    in coin  initial = (max(a - otm / S, b) g + T v) |x|, maintenance = (c g + T v) |x|

g is one coin's worth of a lot, a whole number of minor units. A put may ask for more: max(c S, c T)
in the place of c S, max(c, c T') in the place of c, T' the mark in coin. Everything is exact, and
rounded up once.
"""

from libc.stdint cimport int64_t

from riskd.core.margin cimport Terms, beyond_money, scaled_up
from riskd.core.money cimport PPB, ceil_div, i128, larger, multiply
from riskd.core.types cimport (
    INSTRUMENT_KIND_INVERSE_OPTION,
    OPTION_TYPE_CALL,
    OPTION_TYPE_PUT,
    Instrument,
    Schedule,
)


cdef inline i128 _out_of_the_money(const Instrument *option, i128 spot) noexcept nogil:
    if option.option_type == OPTION_TYPE_CALL:
        return larger(0, option.strike_units - spot)
    return larger(0, spot - option.strike_units)


cdef inline bint _asks_more(const Terms *terms) noexcept nogil:
    """Whether it is a put with a maintenance of its own."""
    return terms.rule.parameter_b != 0 and terms.instrument.option_type == OPTION_TYPE_PUT


cdef i128 _money(const Terms *terms, i128 lots, i128 figure) noexcept nogil:
    """Return lots at a figure of 1e-9 mark units, rounded up.

    One that does not fit 128 bits before the division is far beyond any money after it.
    """
    cdef i128 product
    if not multiply(lots, figure, &product):
        return beyond_money()
    if not multiply(product, terms.unit.numerator, &product):
        return beyond_money()
    return ceil_div(product, <i128>PPB * terms.unit.denominator)


cdef void _linear(
    const Terms *terms, i128 lots, i128 *initial, i128 *maintenance
) noexcept nogil:
    cdef const Schedule *rule = terms.rule
    cdef i128 spot = terms.underlying.mark.price
    cdef i128 mark = terms.instrument.mark.price
    cdef i128 otm = _out_of_the_money(terms.instrument, spot) * PPB
    cdef i128 more = rule.ladder.tiers[0].maintenance_ppb * spot
    if _asks_more(terms):
        more = larger(more, rule.ladder.tiers[0].maintenance_ppb * mark)
    maintenance[0] = _money(terms, lots, more + mark * PPB)
    more = larger(
        rule.ladder.tiers[0].initial_ppb * spot - otm, rule.parameter_a * spot
    )
    initial[0] = _money(terms, lots, more + mark * PPB)


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


cdef void _in_coin(
    const Terms *terms, i128 lots, i128 *initial, i128 *maintenance
) noexcept nogil:
    cdef const Schedule *rule = terms.rule
    cdef const Instrument *option = terms.instrument
    cdef i128 spot = terms.underlying.mark.price
    cdef i128 otm = _out_of_the_money(option, spot)
    cdef int64_t rate = rule.ladder.tiers[0].maintenance_ppb
    cdef i128 coins = lots * option.coin_value
    cdef i128 premium, product
    if not multiply(lots * option.mark.price, option.tick_value, &premium) or premium >> 110:
        initial[0] = beyond_money()
        maintenance[0] = beyond_money()
        return
    if _asks_more(terms) and (
        option.mark.price * <i128>option.tick_value
        > <i128>option.coin_value * option.units_per_tick
    ):
        maintenance[0] = scaled_up(
            premium, <i128>PPB + rate, <i128>PPB * option.units_per_tick
        )
    else:
        maintenance[0] = _sum_up(terms, coins, rate, 0, premium)
    # a - otm / S or b, whichever is more: what is below b is not looked at, and the rest fits.
    product = rule.ladder.tiers[0].initial_ppb * spot - otm * PPB
    if product >= rule.parameter_a * spot:
        initial[0] = _sum_up(terms, coins, rule.ladder.tiers[0].initial_ppb, otm, premium)
    else:
        initial[0] = _sum_up(terms, coins, rule.parameter_a, 0, premium)


cdef void short_margin_of(
    const Terms *terms, i128 lots, i128 *initial, i128 *maintenance
) noexcept nogil:
    """Write the margin of short lots, at marks that are there; initial is never below
    maintenance.
    """
    if terms.instrument.kind == INSTRUMENT_KIND_INVERSE_OPTION:
        _in_coin(terms, lots, initial, maintenance)
    else:
        _linear(terms, lots, initial, maintenance)
    initial[0] = larger(initial[0], maintenance[0])
