"""Credit lines of accounts and firms: what of them backs an account's margin."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.book cimport Book
from riskd.core.money cimport i128, larger
from riskd.core.types cimport NOWHERE, ORDERS_PER_BATCH_MAX, Account, Firm

# What the accounts of a batch used before it.
ctypedef struct CreditTally:
    uint32_t count
    uint32_t places[ORDERS_PER_BATCH_MAX]
    int64_t used[ORDERS_PER_BATCH_MAX]

cdef inline i128 credit_of(const Book *book, const Account *account) noexcept nogil:
    """min(own line, what the firm's line has left beside the firm's other accounts)."""
    cdef const Firm *firm
    cdef i128 left
    if account.firm == NOWHERE:
        return account.credit_line
    firm = &book.firms[account.firm]
    if firm.credit_line == 0:
        return account.credit_line
    left = larger(0, firm.credit_line - (firm.credit_used - account.credit_used))
    return left if left < account.credit_line else account.credit_line

cdef void credit_take_anew(Book *book, Account *account) noexcept nogil

cdef inline void credit_follow(Book *book, Account *account) noexcept nogil:
    """Take anew what an account uses, after it changed; one without a line uses nothing."""
    if account.credit_line != 0:
        credit_take_anew(book, account)

cdef void credit_note(Book *book, uint64_t account_id, CreditTally *tally) noexcept nogil
cdef void credit_restore(Book *book, const CreditTally *tally) noexcept nogil
cdef uint32_t set_credit_line(
    Book *book, uint32_t scope, uint64_t scope_id, int64_t amount, bint validate_only
) noexcept nogil
