"""Credit lines of accounts and firms (docs/instruments.md): how much of them is used.

Credit counts as equity of the cross pool up to the line, and cannot be paid out. What an account
uses is kept, because the firm's other accounts have only what it leaves.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t

from riskd.core.admin cimport SCOPE_ACCOUNT, SCOPE_FIRM
from riskd.core.book cimport Book, account_find, account_place, firm_find
from riskd.core.money cimport i128, larger
from riskd.core.pool cimport Pool, own_available_of, pool_fits, pool_of
from riskd.core.types cimport *

cdef extern from *:
    """
    #define RISKD_CREDIT_MAX (1LL << 62)
    """
    const int64_t CREDIT_MAX "RISKD_CREDIT_MAX"


cdef void _use(Book *book, Account *account, int64_t used) noexcept nogil:
    if account.firm != NOWHERE:
        book.firms[account.firm].credit_used += <i128>used - account.credit_used
    account.credit_used = used


cdef void credit_take_anew(Book *book, Account *account) noexcept nogil:
    """used = clamp(initial margin - own equity, 0, 2^62); it stays while these are not known."""
    cdef Pool pool
    cdef i128 used = 0
    if account.credit_line != 0:
        pool_of(book, account, NULL, 0, &pool)
        if not pool_fits(&pool):
            return
        used = larger(0, -own_available_of(&pool))
    _use(book, account, <int64_t>min(used, <i128>CREDIT_MAX))


cdef void credit_note(Book *book, uint64_t account_id, CreditTally *tally) noexcept nogil:
    """Note what an account uses, unless it has no line (or is not there)."""
    cdef const Account *account = account_find(book, account_id)
    if account == NULL or account.credit_line == 0:
        return
    tally.places[tally.count] = account_place(book, account)
    tally.used[tally.count] = account.credit_used
    tally.count += 1


cdef void credit_restore(Book *book, const CreditTally *tally) noexcept nogil:
    """Let accounts use what they did when it was noted."""
    cdef uint32_t index
    for index in range(tally.count):
        _use(book, &book.accounts[tally.places[index]], tally.used[index])


cdef uint32_t set_credit_line(
    Book *book, uint32_t scope, uint64_t scope_id, int64_t amount, bint validate_only
) noexcept nogil:
    """Set how much credit backs the margin of an account, or of all accounts of a firm."""
    cdef Account *account = NULL
    cdef Firm *firm = NULL
    if scope == SCOPE_ACCOUNT:
        account = account_find(book, scope_id)
        if account == NULL:
            return REASON_ACCOUNT_UNKNOWN
    elif scope == SCOPE_FIRM:
        firm = firm_find(book, <uint32_t>scope_id) if scope_id <= UINT32_MAX else NULL
        if firm == NULL:
            return REASON_FIRM_UNKNOWN
    else:
        return REASON_DEFINITION_INVALID
    if amount < 0 or amount > CREDIT_MAX:
        return REASON_DEFINITION_INVALID
    if validate_only:
        return REASON_NONE
    if firm != NULL:
        firm.credit_line = amount
    else:
        account.credit_line = amount
        credit_take_anew(book, account)
    book.revision += 1
    return REASON_NONE
