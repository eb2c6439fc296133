"""A book of one account, to ask what would be: a copy that shares nothing with its source."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.book cimport Book, Capacities
from riskd.core.types cimport Account

# What takes the place of a position. Mode and leverage 0 leave the settings as they are.
ctypedef struct PositionChange:
    int64_t lots                    # signed
    int64_t entry_value
    int64_t wallet
    uint32_t instrument_id
    uint32_t position_side
    uint32_t margin_mode
    uint32_t leverage

# Write the room that a copy takes; `account` is NULL for one without an account.
cdef void what_if_room(
    const Book *source, const Account *account, Capacities *room
) noexcept nogil
# Copy definitions, marks and, unless NULL, an account without orders, firm, parent and limits;
# False if there is no room for them any more.
cdef bint what_if_copy(Book *source, const Account *account, Book *target) noexcept nogil
# Put what is given in the place of a position; working orders stay. False if the table is full.
cdef bint what_if_put(Book *book, Account *account, const PositionChange *change) noexcept nogil
