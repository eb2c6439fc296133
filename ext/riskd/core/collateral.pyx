"""What balances of other assets count as collateral (docs/instruments.md)."""

import math

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from riskd.core.book cimport Book, collateral_add, collateral_find
from riskd.core.money cimport PPB, ceil_div, debug_assert, floor_div, i128, magnitude, multiply
from riskd.core.types cimport *

cdef extern from *:
    """
    #define RISKD_COLLATERAL_MAX (1LL << 62)
    """
    const int64_t COLLATERAL_MAX "RISKD_COLLATERAL_MAX"

# What is more is taken for this: a loss below 2^95 does not bring it back to what fits 64 bits, and
# a billion times as much is below 2^127.
cdef inline i128 _beyond() noexcept nogil:
    return <i128>1 << 96


cdef i128 _product_over(
    i128 factor, i128 other, i128 divisor, bint rounds_up
) noexcept nogil:
    """Return factor * other / divisor, all at least 0, exactly and then rounded; or beyond().

    The product may have 256 bits: then the quotient is found bit by bit of the other factor, from
    the top, as in long division. A remainder stays below three divisors; one is below 2^93, of 62
    bits and 10^9.
    """
    cdef i128 product, whole, rest
    cdef i128 quotient = 0
    cdef i128 remainder = 0
    cdef int bit = 126
    debug_assert(factor >= 0 and other >= 0 and 0 < divisor)
    if multiply(factor, other, &product):
        product = ceil_div(product, divisor) if rounds_up else floor_div(product, divisor)
        return min(product, _beyond())
    whole = factor / divisor
    rest = factor - whole * divisor
    if whole >= _beyond():
        return _beyond()
    while bit >= 0:
        quotient *= 2
        remainder *= 2
        if (other >> bit) & 1:
            quotient += whole
            remainder += rest
        while remainder >= divisor:
            remainder -= divisor
            quotient += 1
        if quotient >= _beyond():
            return _beyond()
        bit -= 1
    return quotient + (1 if rounds_up and remainder > 0 else 0)


cdef i128 _weighted(const Collateral *collateral, i128 amount) noexcept nogil:
    """Return the sum over tiers of weight times what of the amount lies in them, times 10^9."""
    cdef i128 sum = 0
    cdef i128 top
    cdef uint32_t index
    if collateral.cap != 0 and amount > collateral.cap:
        amount = collateral.cap
    for index in range(collateral.tier_count):
        if amount <= collateral.tiers[index].floor:
            break
        top = amount
        if index + 1 < collateral.tier_count and top > collateral.tiers[index + 1].floor:
            top = collateral.tiers[index + 1].floor
        sum += (top - collateral.tiers[index].floor) * collateral.tiers[index].weight_ppb
    return sum


cdef i128 collateral_value_of(
    const Collateral *collateral, int64_t balance, int64_t price
) noexcept nogil:
    """Return what a balance counts at a mark of its index, in minor units of settlement.

    A balance is rounded down, a debt up; what does not fit 64 bits does not fit here either.
    """
    cdef i128 unit = <i128>price * collateral.unit_numerator
    cdef i128 divisor = <i128>collateral.unit_denominator * PPB
    if balance >= 0:
        return _product_over(unit, _weighted(collateral, balance), divisor, False)
    return -_product_over(
        unit, magnitude(balance) * collateral.liability_ppb, divisor, True
    )


cdef i128 converted_up(
    const Collateral *collateral, i128 amount, int64_t price
) noexcept nogil:
    """Return what an amount of an asset is at a mark of its index, rounded up, without a weight."""
    cdef i128 unit = <i128>price * collateral.unit_numerator
    if amount < 0:
        return -_product_over(unit, -amount, collateral.unit_denominator, False)
    return _product_over(unit, amount, collateral.unit_denominator, True)


# --- definitions -----------------------------------------------------------------------------

cdef bint _in(value, low, high):
    """Whether a value from Python is a whole number within bounds."""
    return isinstance(value, int) and low <= value <= high


cdef bint _are_lawful(tiers):
    """Whether floors rise from 0 and weights never rise."""
    if not 1 <= len(tiers) <= COLLATERAL_TIERS_MAX:
        return False
    below = None
    for floor, weight in tiers:
        if not _in(floor, 0, COLLATERAL_MAX) or not _in(weight, 0, PPB):
            return False
        if below is None:
            if floor != 0:
                return False
        elif floor <= below[0] or weight > below[1]:
            return False
        below = floor, weight
    return True


cdef tuple _unit_of(const Book *book, const Instrument *index, asset_id, settlement_asset_id):
    """Return what one minor unit of the asset is worth at one mark unit, as a fraction in lowest
    terms.
    """
    cdef int64_t exponent = index.tick_exponent
    exponent += <int64_t>book.assets[<uint32_t>(settlement_asset_id - 1)].scale
    exponent -= <int64_t>book.assets[<uint32_t>(asset_id - 1)].scale
    numerator = <object>index.tick_mantissa * 10 ** <object>max(<int64_t>0, exponent)
    denominator = <object>index.units_per_tick * 10 ** <object>max(<int64_t>0, -exponent)
    divisor = math.gcd(numerator, denominator)
    return numerator // divisor, denominator // divisor


cdef bint _is_index(const Instrument *instrument, settlement_asset_id):
    """Whether it is a linear contract in the settlement asset."""
    return instrument.asset_id == settlement_asset_id and instrument.kind in (
        INSTRUMENT_KIND_LINEAR_PERPETUAL,
        INSTRUMENT_KIND_LINEAR_FUTURE,
        INSTRUMENT_KIND_QUANTO_PERPETUAL,
        INSTRUMENT_KIND_SPOT,
    )


cdef uint32_t define_collateral(Book *book, row, bint validate_only) except 0:
    """Define what an asset counts, by a CollateralRow, in the place of what is there."""
    cdef Collateral terms
    cdef Collateral *collateral
    cdef uint32_t index
    for asset_id in (row.asset_id, row.settlement_asset_id):
        if not _in(asset_id, 1, book.asset_count):
            return REASON_ASSET_UNKNOWN
    if row.asset_id == row.settlement_asset_id or not (
        _are_lawful(row.tiers)
        and _in(row.cap, 0, COLLATERAL_MAX)
        and _in(row.liability_ppb, PPB, 10 * <int64_t>PPB)
        and _in(row.interest_free, 0, COLLATERAL_MAX)
        and _in(row.forced_conversion, row.interest_free, COLLATERAL_MAX)
        and _in(row.wrong_way_ppb, 0, PPB)
    ):
        return REASON_DEFINITION_INVALID
    if not _in(row.index_instrument_id, 1, book.instrument_count):
        return REASON_INSTRUMENT_UNKNOWN
    index = row.index_instrument_id - 1
    if not _is_index(&book.instruments[index], row.settlement_asset_id):
        return REASON_DEFINITION_INVALID
    numerator, denominator = _unit_of(
        book, &book.instruments[index], row.asset_id, row.settlement_asset_id
    )
    if numerator > COLLATERAL_MAX or denominator > COLLATERAL_MAX:
        return REASON_DEFINITION_INVALID
    memset(&terms, 0, sizeof(Collateral))
    terms.asset_id = row.asset_id
    terms.settlement_asset_id = row.settlement_asset_id
    terms.index_instrument_id = row.index_instrument_id
    terms.cap = row.cap
    terms.liability_ppb = row.liability_ppb
    terms.interest_free = row.interest_free
    terms.forced_conversion = row.forced_conversion
    terms.wrong_way_ppb = row.wrong_way_ppb
    terms.unit_numerator = numerator
    terms.unit_denominator = denominator
    terms.tier_count = <uint32_t>len(row.tiers)
    for index, (floor, weight) in enumerate(row.tiers):
        terms.tiers[index].floor = floor
        terms.tiers[index].weight_ppb = weight
    collateral = collateral_find(book, terms.asset_id, terms.settlement_asset_id)
    if collateral == NULL and book.collateral_count == book.collateral_capacity:
        return REASON_DEFINITION_INVALID
    if validate_only:
        return REASON_NONE
    if collateral == NULL:
        collateral = collateral_add(book, terms.asset_id, terms.settlement_asset_id)
    collateral[0] = terms
    book.revision += 1
    return REASON_NONE
