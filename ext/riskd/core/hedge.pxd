"""One liquidation price for the position sides of a contract (docs/instruments.md)."""

from libc.stdint cimport int64_t, uint32_t

from riskd.core.book cimport Book
from riskd.core.families cimport can_be_liquidated, liquidation_units_of
from riskd.core.margin cimport Exposure, Terms
from riskd.core.money cimport i128
from riskd.core.types cimport Account, Position

# NET may be left over beside LONG and SHORT.
cdef enum: OTHER_SIDES_MAX = 2

# The open cross positions of an account in a contract but one, which they move with. Wallets do not
# count: what is behind them all is the wallet of the one.
ctypedef struct Group:
    Exposure sides[OTHER_SIDES_MAX]
    i128 pnl                        # at the mark
    i128 requirement                # at the mark
    uint32_t count

cdef void group_of(
    const Book *book,
    const Account *account,
    const Terms *terms,
    uint32_t instrument_id,
    const Position *left_out,
    Group *group,
) noexcept nogil
cdef void group_add(Group *group, const Position *position) noexcept nogil
cdef void group_sums(
    const Terms *terms, const Group *group, int64_t price, i128 *pnl, i128 *requirement
) noexcept nogil
cdef bint group_is_liquidatable(
    const Terms *terms, const Exposure *exposure, const Group *group, int64_t price
) noexcept nogil
cdef uint32_t group_price(
    const Terms *terms, const Exposure *exposure, const Group *group, int64_t *price
) noexcept nogil

cdef inline bint is_liquidatable(
    const Terms *terms, const Exposure *exposure, const Group *group, int64_t price
) noexcept nogil:
    """Whether a position, with those that move with it, can be liquidated at a price."""
    if group.count == 0:
        return can_be_liquidated(terms, exposure, price)
    return group_is_liquidatable(terms, exposure, group, price)

cdef inline uint32_t shared_units_of(
    const Terms *terms, const Exposure *exposure, const Group *group, int64_t *price
) noexcept nogil:
    """Write the liquidation price in mark units and return its status."""
    if group.count == 0:
        return liquidation_units_of(terms, exposure, price)
    return group_price(terms, exposure, group, price)
