"""Margin of contracts: tiers, requirements, liquidation and bankruptcy price.

With s the sign of the position, N its notional at a price, V its entry value and w the money behind
it, equity is w + sigma (N - V): sigma = s where the notional rises with the price (N = |x| P v, v
the value of one lot at one price unit), sigma = -s for inverse contracts (N = |x| Q / P). The
requirement of tier k is the line (m_k + phi) N - d_k. Because rates rise and deductions make the
requirement continuous, it is the largest of all tiers' lines: convex in N, so equity minus
requirement is concave, monotone for any rate below 1, and has one root or none.

Everything is exact. A price is rounded to the last unit, seen from the safe side, at which the
position can be liquidated: floored for a long, ceiled for a short.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.string cimport memset

from riskd.core.money cimport (
    LEVERAGE_ONE,
    PPB,
    ceil_div,
    clamp,
    debug_assert,
    fits,
    floor_div,
    i128,
    larger,
    magnitude,
    multiply,
)
from riskd.core.types cimport (
    FAMILY_PER_CONTRACT,
    FAMILY_TIERED,
    FAMILY_TIERED_QUANTITY,
    LIQUIDATION_STATUS_AT_PRICE,
    LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED,
    LIQUIDATION_STATUS_NO_POSITION,
    NUMBER_MAX,
    TIERS_MAX,
    Ladder,
    Tier,
)


cdef int64_t notional_max_at(const Ladder *ladder, int64_t leverage) noexcept nogil:
    """Return the largest notional at a leverage.

    The floor of the first tier that allows less, or the schedule's own bound; 0 is no bound.
    """
    cdef int64_t bound = ladder.notional_max
    cdef uint32_t index
    if ladder.family == FAMILY_TIERED_QUANTITY:
        # Its floors are lots.
        return bound
    for index in range(ladder.count):
        if ladder.tiers[index].leverage_max < leverage:
            if bound == 0 or ladder.tiers[index].floor < bound:
                bound = ladder.tiers[index].floor
            # No room at all is a bound of its own: 0 would read as none.
            return bound if bound > 0 else -1
    return bound


cdef i128 scaled_down(i128 value, i128 rate, i128 divisor) noexcept nogil:
    """Return floor(value rate / divisor); value, rate >= 0, divisor > 0, divisor and rate so that
    their product fits.
    """
    cdef i128 whole = value / divisor
    cdef i128 product
    if not multiply(whole, rate, &product) or product > <i128>1 << 126:
        return <i128>1 << 126
    return product + (value - whole * divisor) * rate / divisor


cdef i128 scaled_up(i128 value, i128 rate, i128 divisor) noexcept nogil:
    """Return ceil(value rate / divisor), as scaled_down."""
    cdef i128 whole = value / divisor
    cdef i128 product
    if not multiply(whole, rate, &product) or product > <i128>1 << 126:
        return <i128>1 << 126
    return product + ((value - whole * divisor) * rate + divisor - 1) / divisor


cdef i128 _gap_at(
    const Exposure *exposure, const Ladder *ladder, uint32_t index, i128 notional, bint gains
) noexcept nogil:
    """Return (equity - requirement of tier k) * 10^9 at a whole notional."""
    cdef const Tier *tier = &ladder.tiers[index]
    cdef i128 change = notional - exposure.entry_value
    if not gains:
        change = -change
    return (exposure.wallet + change + tier.deduction) * PPB - (
        <i128>(tier.maintenance_ppb + ladder.liquidation_fee_ppb) * notional
    )


cdef uint32_t liquidation_price_of(
    const Exposure *exposure, const Ladder *ladder, const UnitValue *unit, int64_t *price
) noexcept nogil:
    """Write the liquidation price in price units and return its status.

    The root lies on the line of the tier k of the notional at that price, found by the sign of the
    gap at the tiers' floors.
    """
    cdef uint32_t index = 0
    cdef const Tier *tier
    cdef bint gains = gains_with_notional(unit, exposure.lots)
    if exposure.lots == 0:
        price[0] = 0
        return LIQUIDATION_STATUS_NO_POSITION
    if gains:
        # The gap rises with the notional: the root lies above the last floor where it is not
        # positive.
        while index + 1 < ladder.count and (
            _gap_at(exposure, ladder, index + 1, ladder.tiers[index + 1].floor, True) <= 0
        ):
            index += 1
    else:
        while index + 1 < ladder.count and (
            _gap_at(exposure, ladder, index + 1, ladder.tiers[index + 1].floor, False) > 0
        ):
            index += 1
    tier = &ladder.tiers[index]
    return price_on_line(
        exposure,
        unit,
        tier.maintenance_ppb + ladder.liquidation_fee_ppb,
        tier.deduction,
        price,
    )


cdef uint32_t price_on_line(
    const Exposure *exposure, const UnitValue *unit, i128 rate, i128 deduction, int64_t *price
) noexcept nogil:
    """Write where equity meets the line rate N - deduction, in price units; return the status.

    sigma > 0: N* = (V - w - d) / (1 - rate), at and below which the position can be liquidated.
    sigma < 0: N* = (V + w + d) / (1 + rate), at and above.
    """
    cdef i128 lots = magnitude(exposure.lots)
    cdef i128 dividend, divisor, root
    cdef bint gains = gains_with_notional(unit, exposure.lots)
    price[0] = 0
    if lots == 0:
        return LIQUIDATION_STATUS_NO_POSITION
    debug_assert(0 <= rate < PPB)
    # Money is below 2^63 each, so that the dividend is below 2^95.
    if gains:
        dividend = (<i128>exposure.entry_value - exposure.wallet - deduction) * PPB
        divisor = PPB - rate
    else:
        dividend = (<i128>exposure.entry_value + exposure.wallet + deduction) * PPB
        divisor = PPB + rate
    if unit.numerator == 0:
        return _inverse_price(exposure.lots, unit, dividend, divisor, price)
    # 2^95 * 2^30 and 2^31 * 2^53 * 2^40 stay below 2^127.
    dividend *= unit.denominator
    divisor *= lots * unit.numerator
    if gains:
        root = floor_div(dividend, divisor)
        if root < 1:
            return LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
    else:
        root = ceil_div(dividend, divisor)
        if root > NUMBER_MAX:
            return LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
        if root < 1:
            root = 1
    price[0] = clamp(root)
    return LIQUIDATION_STATUS_AT_PRICE


cdef uint32_t _inverse_price(
    int64_t lots, const UnitValue *unit, i128 dividend, i128 divisor, int64_t *price
) noexcept nogil:
    """Write |x| Q / N* for N* = dividend / divisor: a long's down, a short's up."""
    cdef i128 value = magnitude(lots) * unit.quotient
    cdef i128 root
    if lots > 0:
        # A long owes what does not shrink with the price: none of it is left at any price.
        root = NUMBER_MAX if dividend <= 0 else scaled_down(value, divisor, dividend)
        if root < 1:
            return LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
        if root > NUMBER_MAX:
            root = NUMBER_MAX
    else:
        if dividend <= 0:
            return LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
        root = scaled_up(value, divisor, dividend)
        if root > NUMBER_MAX:
            return LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
    price[0] = <int64_t>root
    return LIQUIDATION_STATUS_AT_PRICE


cdef i128 bankruptcy_price_of(const Exposure *exposure, const UnitValue *unit) noexcept nogil:
    """Return the price at which equity is zero, against the account; 0 if it is not above zero.

    Linear: long ceil((V - w) / (|x| v)), short floor((V + w) / (|x| v)). Inverse: long
    ceil(|x| Q / (V + w)), short floor(|x| Q / (V - w)), 0 above the largest price.
    """
    cdef i128 lots = magnitude(exposure.lots)
    cdef i128 divisor, money, root
    if lots == 0:
        return 0
    if gains_with_notional(unit, exposure.lots):
        money = <i128>exposure.entry_value - exposure.wallet
    else:
        money = <i128>exposure.entry_value + exposure.wallet
    if unit.numerator == 0:
        if money <= 0:
            return 0
        if exposure.lots > 0:
            root = ceil_div(lots * unit.quotient, money)
        else:
            root = floor_div(lots * unit.quotient, money)
        return root if root <= NUMBER_MAX else 0
    divisor = lots * unit.numerator
    money *= unit.denominator
    root = ceil_div(money, divisor) if exposure.lots > 0 else floor_div(money, divisor)
    return larger(0, root)


cdef uint32_t tier_index_at(
    const Ladder *ladder, const UnitValue *unit, i128 lots, int64_t price
) noexcept nogil:
    """Return the tier of a notional at a price, as a fraction."""
    cdef uint32_t index = 0
    cdef i128 notional, scale
    if unit.numerator == 0:
        notional = lots * unit.quotient
        scale = price
    else:
        scale = unit.denominator
        if not multiply(lots * price, unit.numerator, &notional):
            return ladder.count - 1
    while index + 1 < ladder.count and ladder.tiers[index + 1].floor * scale < notional:
        index += 1
    return index


cdef bint is_below_line(
    const Exposure *exposure, const UnitValue *unit, i128 rate, i128 deduction, int64_t price
) noexcept nogil:
    """Return whether equity is at or below the line rate N - deduction at a price, unrounded.

    w + sigma (N - V) <= rate N - d, that is: (w - sigma V + d) 10^9 <= (rate - sigma 10^9) N.
    """
    cdef i128 lots = magnitude(exposure.lots)
    cdef i128 money, value, divisor
    cdef bint gains = gains_with_notional(unit, exposure.lots)
    if lots == 0:
        return False
    if unit.numerator == 0:
        value = lots * unit.quotient
        divisor = price
    else:
        # Far beyond any money it decides by its sign.
        if not multiply(lots * price, unit.numerator, &value):
            return not gains
        divisor = unit.denominator
    if gains:
        money = (<i128>exposure.entry_value - exposure.wallet - deduction) * PPB
        return money >= scaled_up(value, PPB - rate, divisor)
    money = (<i128>exposure.entry_value + exposure.wallet + deduction) * PPB
    return money <= scaled_down(value, PPB + rate, divisor)


cdef bint is_liquidatable_at(
    const Exposure *exposure, const Ladder *ladder, const UnitValue *unit, int64_t price
) noexcept nogil:
    """Return whether equity is at or below the requirement at a price, as fractions, unrounded.

    Of a linear position everything is multiplied by the unit's denominator and 10^9. Where that
    would leave 128 bits the notional is far beyond any money, and decides by its sign.
    """
    cdef i128 notional, equity, rate
    cdef const Tier *tier
    cdef uint32_t index = 0
    if exposure.lots == 0:
        return False
    if unit.numerator == 0:
        tier = &ladder.tiers[tier_index_at(ladder, unit, magnitude(exposure.lots), price)]
        rate = tier.maintenance_ppb + ladder.liquidation_fee_ppb
        return is_below_line(exposure, unit, rate, tier.deduction, price)
    if not multiply(magnitude(exposure.lots) * price, unit.numerator, &notional):
        return exposure.lots < 0
    if notional > <i128>1 << 96:
        return exposure.lots < 0
    while index + 1 < ladder.count and (
        <i128>ladder.tiers[index + 1].floor * unit.denominator < notional
    ):
        index += 1
    tier = &ladder.tiers[index]
    rate = tier.maintenance_ppb + ladder.liquidation_fee_ppb
    if exposure.lots > 0:
        equity = notional + (<i128>exposure.wallet - exposure.entry_value) * unit.denominator
    else:
        equity = (<i128>exposure.wallet + exposure.entry_value) * unit.denominator - notional
    return (equity + <i128>tier.deduction * unit.denominator) * PPB <= rate * notional


cdef const char *ladder_fault(Ladder *ladder, uint32_t *index) noexcept nogil:
    """Compute the deductions; return NULL if the ladder is lawful, else what is wrong with tier
    `index`.

    Laws: floors rise from 0; maintenance rates rise and with the liquidation fee stay below 1;
    initial rates never fall; leverage never rises; where tiers meet without a jump, d_k = d_(k-1) +
    f_k (m_k - m_(k-1)) is whole. PER_CONTRACT has no rates.
    """
    cdef Tier *tier
    cdef Tier *below
    cdef i128 deduction
    cdef uint32_t position
    index[0] = 0
    if ladder.count == 0 or ladder.count > TIERS_MAX:
        return b"must have 1 to 32 tiers"
    if ladder.liquidation_fee_ppb < 0 or ladder.liquidation_fee_ppb >= PPB:
        return b"liquidation fee rate must be 0 or more and below 1"
    for position in range(ladder.count):
        index[0] = position
        tier = &ladder.tiers[position]
        if ladder.family == FAMILY_PER_CONTRACT:
            if tier.maintenance_ppb != 0 or tier.initial_ppb != 0:
                return b"rates must be 0"
        elif tier.maintenance_ppb < 1 or (
            tier.maintenance_ppb + ladder.liquidation_fee_ppb >= PPB
        ):
            return b"maintenance rate must be above 0, and with the liquidation fee below 1"
        if tier.initial_ppb < 0 or tier.initial_ppb > PPB:
            return b"initial rate must be 0 to 1"
        if tier.leverage_max < LEVERAGE_ONE or tier.leverage_max > 1000 * LEVERAGE_ONE:
            return b"maximum leverage must be 1 to 1000"
        if position == 0:
            if tier.floor != 0:
                return b"floor of the first tier must be 0"
            tier.deduction = 0
            continue
        below = &ladder.tiers[position - 1]
        if tier.floor <= below.floor:
            return b"floor must be above the floor of the tier below"
        if tier.maintenance_ppb <= below.maintenance_ppb:
            return b"maintenance rate must be above that of the tier below"
        if tier.initial_ppb < below.initial_ppb:
            return b"initial rate must not be below that of the tier below"
        if tier.leverage_max > below.leverage_max:
            return b"maximum leverage must not be above that of the tier below"
        if ladder.family != FAMILY_TIERED:
            continue
        deduction = <i128>tier.floor * (tier.maintenance_ppb - below.maintenance_ppb)
        if deduction % PPB != 0:
            return b"deduction is not a whole number of minor units"
        deduction = below.deduction + deduction / PPB
        if not fits(deduction):
            return b"deduction does not fit 64 bits"
        tier.deduction = <int64_t>deduction
    index[0] = ladder.count - 1
    if ladder.family == FAMILY_TIERED_QUANTITY:
        # Its floors are lots, and not beside notionals.
        if ladder.tiers[ladder.count - 1].floor > NUMBER_MAX:
            return b"floor must be at most 2^53 lots"
        return NULL
    if ladder.notional_max != 0 and ladder.notional_max <= ladder.tiers[ladder.count - 1].floor:
        return b"largest notional must be above the floor of the last tier"
    return NULL


cdef int64_t _whole(value, name, low, high) except? -1:
    """Return a Python int that lies in [low, high], or raise an error that says so."""
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} {value} is not within {low} to {high}")
    return value


def deductions(tiers):
    cdef Ladder ladder
    cdef uint32_t index
    cdef const char *fault
    memset(&ladder, 0, sizeof(Ladder))
    ladder.family = FAMILY_TIERED
    if not 1 <= len(tiers) <= TIERS_MAX:
        raise ValueError(f"tiers: {len(tiers)} is not within 1 to {TIERS_MAX}")
    ladder.count = <uint32_t>len(tiers)
    for index, (floor, rate) in enumerate(tiers):
        ladder.tiers[index].floor = _whole(floor, f"tier {index}: floor", 0, INT64_MAX)
        ladder.tiers[index].maintenance_ppb = _whole(
            rate, f"tier {index}: maintenance rate", 1, PPB - 1
        )
        ladder.tiers[index].leverage_max = LEVERAGE_ONE
    fault = ladder_fault(&ladder, &index)
    if fault != NULL:
        raise ValueError(f"tier {index}: {fault.decode()}")
    return [ladder.tiers[index].deduction for index in range(ladder.count)]


cdef class TierLadder:
    cdef Ladder _ladder

    def __init__(self, tiers, *, notional_max=0, liquidation_fee_ppb=0):
        cdef uint32_t index
        cdef const char *fault
        cdef Tier *tier
        cdef Ladder checked
        if not 1 <= len(tiers) <= TIERS_MAX:
            raise ValueError(f"tiers: {len(tiers)} is not within 1 to {TIERS_MAX}")
        memset(&self._ladder, 0, sizeof(Ladder))
        self._ladder.family = FAMILY_TIERED
        self._ladder.count = <uint32_t>len(tiers)
        self._ladder.notional_max = _whole(notional_max, "notional_max", 0, INT64_MAX)
        self._ladder.liquidation_fee_ppb = _whole(
            liquidation_fee_ppb, "liquidation_fee_ppb", 0, PPB - 1
        )
        for index, (floor, initial, maintenance, deduction, leverage) in enumerate(tiers):
            tier = &self._ladder.tiers[index]
            tier.floor = _whole(floor, f"tier {index}: floor", 0, INT64_MAX)
            tier.initial_ppb = _whole(initial, f"tier {index}: initial rate", 0, PPB)
            tier.maintenance_ppb = _whole(
                maintenance, f"tier {index}: maintenance rate", 1, PPB - 1
            )
            tier.leverage_max = _whole(
                leverage, f"tier {index}: maximum leverage", LEVERAGE_ONE, 1000 * LEVERAGE_ONE
            )
        checked = self._ladder
        fault = ladder_fault(&checked, &index)
        # Deductions that a venue publishes are taken as they are, also where their sum is not ours
        # to know.
        if fault != NULL and not all(row[3] is not None for row in tiers):
            raise ValueError(f"tier {index}: {fault.decode()}")
        for index, row in enumerate(tiers):
            if row[3] is None:
                self._ladder.tiers[index].deduction = checked.tiers[index].deduction
            else:
                self._ladder.tiers[index].deduction = _whole(
                    row[3], f"tier {index}: deduction", -INT64_MAX, INT64_MAX
                )

    def tier_index(self, notional):
        return tier_index_of(&self._ladder, _whole(notional, "notional", 0, INT64_MAX))

    def maintenance(self, notional):
        return clamp(maintenance_of(&self._ladder, _whole(notional, "notional", 0, INT64_MAX)))

    def initial(self, notional, leverage):
        cdef int64_t amount = _whole(notional, "notional", 0, INT64_MAX)
        return clamp(
            initial_of(
                &self._ladder,
                amount,
                amount,
                _whole(leverage, "leverage", LEVERAGE_ONE, 1000 * LEVERAGE_ONE),
            ),
        )

    def liquidation_requirement(self, notional):
        return clamp(
            liquidation_requirement_of(&self._ladder, _whole(notional, "notional", 0, INT64_MAX))
        )

    def notional_max_at(self, leverage):
        return notional_max_at(
            &self._ladder, _whole(leverage, "leverage", LEVERAGE_ONE, 1000 * LEVERAGE_ONE)
        )

    def liquidation_price(self, lots, entry_value, wallet, value_numerator, value_denominator):
        cdef Exposure exposure = _exposure(lots, entry_value, wallet)
        cdef UnitValue unit = _unit(value_numerator, value_denominator)
        cdef int64_t price
        if liquidation_price_of(
            &exposure, &self._ladder, &unit, &price
        ) != LIQUIDATION_STATUS_AT_PRICE:
            return None
        return price

    def is_liquidatable(self, lots, entry_value, wallet, value_numerator, value_denominator, price):
        cdef Exposure exposure = _exposure(lots, entry_value, wallet)
        cdef UnitValue unit = _unit(value_numerator, value_denominator)
        return bool(
            is_liquidatable_at(
                &exposure, &self._ladder, &unit, _whole(price, "price", 1, NUMBER_MAX)
            ),
        )


cdef Exposure _exposure(lots, entry_value, wallet) except *:
    cdef Exposure exposure
    exposure.lots = _whole(lots, "lots", -NUMBER_MAX, NUMBER_MAX)
    if exposure.lots == 0:
        raise ValueError("lots must not be 0")
    exposure.entry_value = _whole(entry_value, "entry_value", 0, INT64_MAX)
    exposure.wallet = _whole(wallet, "wallet", -INT64_MAX, INT64_MAX)
    return exposure


cdef UnitValue _unit(numerator, denominator) except *:
    cdef UnitValue unit
    unit.numerator = _whole(numerator, "value_numerator", 1, 1 << 40)
    unit.denominator = _whole(denominator, "value_denominator", 1, PPB)
    unit.quotient = 0
    return unit


def bankruptcy_price(lots, entry_value, wallet, value_numerator, value_denominator):
    cdef Exposure exposure = _exposure(lots, entry_value, wallet)
    cdef UnitValue unit = _unit(value_numerator, value_denominator)
    cdef i128 price = bankruptcy_price_of(&exposure, &unit)
    return clamp(price) if price > 0 else None
