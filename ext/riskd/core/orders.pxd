"""What the type and the flags of an order say about it: one pure predicate each."""

from libc.stdint cimport uint32_t

from riskd.core.types cimport (
    ORDER_FLAG_CLOSE_POSITION,
    ORDER_FLAG_REDUCE_ONLY,
    ORDER_TYPE_LIMIT,
    ORDER_TYPE_MARKET,
    ORDER_TYPE_STOP,
    ORDER_TYPE_STOP_LIMIT,
    ORDER_TYPE_TAKE_PROFIT,
    ORDER_TYPE_TAKE_PROFIT_LIMIT,
    SIDE_BUY,
    SIDE_SELL,
)

cdef inline uint32_t other_side(uint32_t side) noexcept nogil:
    return SIDE_SELL if side == SIDE_BUY else SIDE_BUY

cdef inline bint has_limit_price(uint32_t order_type) noexcept nogil:
    return (
        order_type == ORDER_TYPE_LIMIT
        or order_type == ORDER_TYPE_STOP_LIMIT
        or order_type == ORDER_TYPE_TAKE_PROFIT_LIMIT
    )

cdef inline bint is_stop(uint32_t order_type) noexcept nogil:
    """A stop with a trigger price: it waits for a worse price."""
    return order_type == ORDER_TYPE_STOP or order_type == ORDER_TYPE_STOP_LIMIT

cdef inline bint is_take_profit(uint32_t order_type) noexcept nogil:
    """It waits for a better price."""
    return order_type == ORDER_TYPE_TAKE_PROFIT or order_type == ORDER_TYPE_TAKE_PROFIT_LIMIT

cdef inline bint has_trigger_price(uint32_t order_type) noexcept nogil:
    return is_stop(order_type) or is_take_profit(order_type)

cdef inline bint is_conditional(uint32_t order_type) noexcept nogil:
    return order_type != ORDER_TYPE_LIMIT and order_type != ORDER_TYPE_MARKET

cdef inline bint is_protective(uint32_t order_type, uint32_t flags) noexcept nogil:
    """It only ever closes: it holds nothing, and is in no working sum."""
    return is_conditional(order_type) and (
        flags & (ORDER_FLAG_REDUCE_ONLY | ORDER_FLAG_CLOSE_POSITION)
    ) != 0

cdef inline bint closes_all(uint32_t order_type, uint32_t flags) noexcept nogil:
    """A protective order that closes what is open when it fills: it has no quantity of its own."""
    return is_conditional(order_type) and (flags & ORDER_FLAG_CLOSE_POSITION) != 0
