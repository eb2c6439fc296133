"""One liquidation price for the position sides of a contract (docs/instruments.md).

Long and short of one contract move together: with N the notional of one lot, w the money behind
them all, and of each side the line r n N - d of its own size and tier, they can be liquidated where

    w - sum(sigma V) + sum(d) <= sum(r - sigma) n N.

The price is looked for in both directions from the mark: sides that are nearly equal gain and lose
little, while what they require rises with the notional.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.book cimport Book
from riskd.core.families cimport is_curved, line_at, liquidation_margin_of
from riskd.core.margin cimport (
    Exposure,
    Terms,
    gains_with_notional,
    notional_down,
    notional_up,
    scaled_down,
    scaled_up,
)
from riskd.core.money cimport PPB, debug_assert, i128, magnitude
from riskd.core.types cimport (
    LIQUIDATION_STATUS_AT_PRICE,
    LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED,
    LIQUIDATION_STATUS_UNSPECIFIED,
    MARGIN_MODE_CROSS,
    NOWHERE,
    NUMBER_MAX,
    Account,
    Position,
)


cdef void group_add(Group *group, const Position *position) noexcept nogil:
    """Add a position if it is open."""
    cdef Exposure *side
    if position.lots == 0:
        return
    debug_assert(group.count < OTHER_SIDES_MAX)
    side = &group.sides[group.count]
    side.lots = position.lots
    side.entry_value = position.entry_value
    side.wallet = 0
    group.count += 1


cdef void group_of(
    const Book *book,
    const Account *account,
    const Terms *terms,
    uint32_t instrument_id,
    const Position *left_out,
    Group *group,
) noexcept nogil:
    """Find what moves with a position (NULL: one that does not exist yet) of an account."""
    cdef const Position *position
    cdef uint32_t place = account.first_position
    group.count = 0
    group.pnl = 0
    group.requirement = 0
    if terms.is_option or terms.margin_mode != MARGIN_MODE_CROSS:
        return
    while place != NOWHERE:
        position = &book.positions[place]
        place = position.next_of_account
        if position.instrument_id == instrument_id and position != left_out:
            group_add(group, position)
    if terms.instrument.mark.price != 0:
        group_sums(
            terms, group, terms.instrument.mark.price, &group.pnl, &group.requirement
        )


cdef void group_sums(
    const Terms *terms, const Group *group, int64_t price, i128 *pnl, i128 *requirement
) noexcept nogil:
    """Sum unrealised profit and liquidation requirement at a price."""
    cdef const Exposure *side
    cdef i128 notional
    cdef uint32_t index
    pnl[0] = 0
    requirement[0] = 0
    for index in range(group.count):
        side = &group.sides[index]
        notional = notional_up(&terms.unit, magnitude(side.lots), price)
        requirement[0] += liquidation_margin_of(terms, side.lots, side.entry_value, notional)
        if gains_with_notional(&terms.unit, side.lots):
            pnl[0] += notional_down(&terms.unit, magnitude(side.lots), price) - side.entry_value
        else:
            pnl[0] += side.entry_value - notional


cdef bint _add_side(
    const Terms *terms,
    const Exposure *side,
    int64_t price,
    int64_t one,
    i128 *money,
    i128 *slope,
) noexcept nogil:
    """Add what a side has on the left and on the right; rates count in 1 / `one`.

    False when its line does not fit.
    """
    cdef i128 rate, deduction
    if not line_at(terms, side, price, &rate, &deduction):
        return False
    money[0] += deduction
    if gains_with_notional(&terms.unit, side.lots):
        money[0] -= side.entry_value
        rate -= one
    else:
        money[0] += side.entry_value
        rate += one
    slope[0] += rate * magnitude(side.lots)
    return True


cdef bint group_is_liquidatable(
    const Terms *terms, const Exposure *exposure, const Group *group, int64_t price
) noexcept nogil:
    """Whether equity is at or below the requirement of all, as fractions, unrounded.

    As of a price that is not known where a line does not fit.
    """
    # A requirement that is no line is a whole amount, which may be too large for 10^9 of it.
    cdef int64_t one = 1 if is_curved(terms) else PPB
    cdef i128 money = exposure.wallet
    cdef i128 slope = 0
    cdef i128 rate, divisor
    cdef uint32_t index
    if not _add_side(terms, exposure, price, one, &money, &slope):
        return False
    for index in range(group.count):
        if not _add_side(terms, &group.sides[index], price, one, &money, &slope):
            return False
    money *= one
    if terms.unit.numerator == 0:
        rate = terms.unit.quotient
        divisor = price
    else:
        rate = <i128>price * terms.unit.numerator
        divisor = terms.unit.denominator
    if slope >= 0:
        return money <= scaled_down(slope, rate, divisor)
    return -money >= scaled_up(-slope, rate, divisor)


cdef int64_t _first_towards(
    const Terms *terms, const Exposure *exposure, const Group *group, int64_t far
) noexcept nogil:
    """Return the first price from the mark, which cannot be liquidated at, towards another one; 0
    if that cannot be either.
    """
    cdef int64_t near = terms.instrument.mark.price
    cdef int64_t middle
    if not group_is_liquidatable(terms, exposure, group, far):
        return 0
    while far - near > 1 or near - far > 1:
        middle = <int64_t>((<uint64_t>near + <uint64_t>far) / 2)
        if group_is_liquidatable(terms, exposure, group, middle):
            far = middle
        else:
            near = middle
    return far


cdef bint _lines_fit(
    const Terms *terms, const Exposure *exposure, const Group *group
) noexcept nogil:
    """Whether the lines of all fit, as they do at any price if at one."""
    cdef i128 rate, deduction
    cdef uint32_t index
    if not line_at(terms, exposure, 1, &rate, &deduction):
        return False
    for index in range(group.count):
        if not line_at(terms, &group.sides[index], 1, &rate, &deduction):
            return False
    return True


cdef uint32_t group_price(
    const Terms *terms, const Exposure *exposure, const Group *group, int64_t *price
) noexcept nogil:
    """Write the price nearest to the mark, the lower one of two; return the status."""
    cdef int64_t mark = terms.instrument.mark.price
    cdef int64_t below, above
    price[0] = 0
    if mark == 0 or not _lines_fit(terms, exposure, group):
        return LIQUIDATION_STATUS_UNSPECIFIED
    price[0] = mark
    if group_is_liquidatable(terms, exposure, group, mark):
        return LIQUIDATION_STATUS_AT_PRICE
    below = _first_towards(terms, exposure, group, 1)
    above = _first_towards(terms, exposure, group, NUMBER_MAX)
    if below == 0 and above == 0:
        price[0] = 0
        return LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED
    if below == 0 or (above != 0 and above - mark < mark - below):
        price[0] = above
    else:
        price[0] = below
    return LIQUIDATION_STATUS_AT_PRICE
