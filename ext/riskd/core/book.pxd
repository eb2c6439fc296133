"""State: accounts, positions, working orders, instruments, remembered answers.

Tables over flat memory.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from riskd.core.index cimport Index
from riskd.core.types cimport (
    ASSETS_MAX,
    Account,
    Instrument,
    Order,
    Position,
    Schedule,
)

ctypedef struct Asset:
    uint32_t scale
    char symbol[16]
    int64_t deficit

ctypedef struct Gateway:
    uint32_t gateway_id
    uint32_t trading_state

# What is kept of an answered request: its kind and key, its content for comparison, its reply's
# size.
ctypedef struct AnswerHead:
    uint64_t id
    uint32_t gateway_id
    uint32_t kind
    uint32_t reply_size
    uint32_t reserved
    # An OrderRequest or an ExecutionRequest without its time.
    uint8_t content[104]

cdef enum AnswerKind:
    ANSWER_ORDER = 1
    ANSWER_EXECUTION = 2
    ANSWER_AMENDMENT = 3

# Remembered answers, oldest first, in a ring of bytes with an index of its own: nobody but the
# ring's gateway can fill it or lengthen its chains.
ctypedef struct Ring:
    uint8_t *bytes
    uint64_t capacity
    uint64_t start
    uint64_t used
    Index index

ctypedef struct Book:
    uint64_t revision

    Asset assets[ASSETS_MAX]
    uint32_t asset_count

    Schedule *schedules
    uint32_t schedule_count
    uint32_t schedule_capacity

    Instrument *instruments
    uint32_t instrument_count
    uint32_t instrument_capacity

    Account *accounts
    uint32_t account_count
    uint32_t account_capacity
    Index account_index

    Position *positions
    uint32_t position_count
    uint32_t position_capacity
    uint32_t position_top
    uint32_t position_free
    Index position_index

    Order *orders
    uint32_t order_count
    uint32_t order_capacity
    uint32_t order_top
    uint32_t order_free
    Index order_index
    Index client_order_index        # (gateway, client order id) of working orders

    Gateway *gateways
    uint32_t gateway_count
    uint32_t gateway_capacity
    Index gateway_index

    # Two a gateway, at twice its place: of its orders and amendments, of its executions.
    Ring *rings
    void *ring_memory
    uint64_t ring_size              # bytes of memory of one ring with its index
    uint64_t answer_capacity        # bytes of one ring

    uint32_t service_state

cdef bint book_open(
    Book *book,
    uint32_t accounts,
    uint32_t positions,
    uint32_t orders,
    uint32_t instruments,
    uint32_t schedules,
    uint32_t gateways,
    uint64_t answer_bytes,
    uint64_t seed,
) noexcept nogil
cdef void book_close(Book *book) noexcept nogil

cdef void book_prefetch(
    const Book *book, const Ring *ring, uint32_t kind, uint32_t gateway_id, uint64_t id
) noexcept nogil

cdef Account *account_find(Book *book, uint64_t account_id) noexcept nogil
cdef Account *account_add(Book *book, uint64_t account_id) noexcept nogil
cdef uint32_t account_place(const Book *book, const Account *account) noexcept nogil

cdef Instrument *instrument_find(Book *book, uint32_t instrument_id) noexcept nogil

cdef Position *position_find(
    Book *book, const Account *account, uint32_t instrument_id
) noexcept nogil
cdef Position *position_add(Book *book, Account *account, uint32_t instrument_id) noexcept nogil
cdef void position_drop_if_absent(Book *book, Position *position) noexcept nogil

cdef Order *order_find(Book *book, uint64_t reservation_id) noexcept nogil
cdef Order *order_add(Book *book, uint64_t reservation_id) noexcept nogil
cdef void order_name(Book *book, Order *order) noexcept nogil
cdef Order *order_find_named(
    const Book *book, uint32_t gateway_id, uint64_t client_order_id
) noexcept nogil
cdef void order_drop(Book *book, Order *order) noexcept nogil

cdef uint32_t gateway_state(const Book *book, uint32_t gateway_id) noexcept nogil
cdef bint gateway_set(Book *book, uint32_t gateway_id, uint32_t trading_state) noexcept nogil

cdef Ring *ring_take(Book *book, uint32_t kind, uint32_t gateway_id) noexcept nogil
cdef const Ring *ring_find(const Book *book, uint32_t kind, uint32_t gateway_id) noexcept nogil
cdef bint answer_find(
    const Ring *ring, uint32_t kind, uint64_t id, AnswerHead *head, uint64_t *reply_offset
) noexcept nogil
cdef void answer_copy(
    const Ring *ring, uint64_t offset, uint8_t *target, uint64_t size
) noexcept nogil
cdef void answer_add(Ring *ring, const AnswerHead *head, const uint8_t *reply) noexcept nogil
cdef uint64_t answer_size(uint32_t reply_size) noexcept nogil
