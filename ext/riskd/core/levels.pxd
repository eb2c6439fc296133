"""Owners, and the sums of a level: of an account with its sub-accounts, or of a firm."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.book cimport Book
from riskd.core.money cimport i128
from riskd.core.types cimport NOWHERE, Account, Level, LevelSums, Position

# What a position and its account's cash add to the sums of the levels above it.
ctypedef struct Footprint:
    int64_t lots
    int64_t entry_value             # signed as the lots
    int64_t buy_lots
    int64_t buy_value
    int64_t sell_lots
    int64_t sell_value
    i128 money                      # cash, and the wallet
    uint32_t working_orders

# Goes through the instruments of a level: those of the positions of an account without
# sub-accounts, or the sums that are kept of another level.
ctypedef struct Walk:
    uint32_t place
    bint over_positions

cdef enum:
    # An account is at most in two levels that keep sums: its parent's or its own, and its firm's.
    OWNERS_MAX = 2

ctypedef struct Owner:
    Level *level
    uint32_t key                    # the owner of its holdings

cdef inline bint has_owners(const Account *account) noexcept nogil:
    """Whether some level keeps sums in which the account counts."""
    return account.parent != NOWHERE or account.firm != NOWHERE or account.sub_accounts != 0

cdef inline bint may_be_limited(const Account *account) noexcept nogil:
    """Whether a level of the account can have limits; the gateway apart."""
    return account.limit_count != 0 or account.parent != NOWHERE or account.firm != NOWHERE

cdef inline uint64_t day_of(uint64_t now_ns) noexcept nogil:
    return now_ns / <uint64_t>86400000000000

cdef uint32_t owners_of(const Book *book, const Account *account, Owner *owners) noexcept nogil
cdef void footprint_set(
    const Account *account, const Position *position, Footprint *footprint
) noexcept nogil
cdef void levels_set(
    Book *book, const Account *account, const Position *position, const Footprint *before
) noexcept nogil

cdef inline void footprint_of(
    const Account *account, const Position *position, Footprint *footprint
) noexcept nogil:
    """Remember what counts in the sums before a change of a position (NULL while there is none)."""
    if has_owners(account):
        footprint_set(account, position, footprint)

cdef inline void level_follow(
    Book *book, const Account *account, const Position *position, const Footprint *before
) noexcept nogil:
    """Let the levels of an account follow a change of a position, and of the cash with it."""
    if has_owners(account):
        levels_set(book, account, position, before)

cdef void level_move_money(Book *book, const Account *account, i128 amount) noexcept nogil
cdef bint level_finds_room(
    const Book *book, const Account *account, uint32_t instrument_id
) noexcept nogil

cdef inline bint level_has_room(
    const Book *book, const Account *account, uint32_t instrument_id
) noexcept nogil:
    """C-10: whether there are the rows that a position of the account needs."""
    # Only a nearly full table is worth a look.
    return book.holding_capacity - book.holding_count >= OWNERS_MAX or (
        level_finds_room(book, account, instrument_id)
    )

cdef void level_count_fill(
    Book *book, Account *account, i128 traded, i128 realised, uint64_t now_ns
) noexcept nogil

cdef bint level_can_open(
    const Book *book, const Account *account, const Level *closing
) noexcept nogil
cdef void level_open(Book *book, Account *account) noexcept nogil
cdef void level_close(Book *book, Account *account) noexcept nogil

cdef void walk_start(
    const Book *book, const Account *account, const Level *level, Walk *walk
) noexcept nogil
cdef bint walk_next(const Book *book, Walk *walk, LevelSums *sums) noexcept nogil
cdef void sums_of(
    const Book *book,
    const Account *account,
    uint32_t owner,
    uint32_t instrument_id,
    LevelSums *sums,
) noexcept nogil
