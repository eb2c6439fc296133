"""Cross or isolated: the margin mode of an account's positions on an instrument."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.book cimport Book

# What a switch comes to. A refused one reports the figures as they are.
ctypedef struct ModeSwitch:
    int64_t wallet                  # of all positions on the instrument
    int64_t available
    int64_t cash_flow               # what the pool gets; below 0 it pays

cdef uint32_t change_margin_mode(
    Book *book,
    uint64_t account_id,
    uint32_t instrument_id,
    uint32_t mode,
    bint validate_only,
    uint64_t now_ns,
    ModeSwitch *outcome,
) noexcept nogil
