"""Firms, owners and limits: how they are set (docs/limits.md, "Changes")."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from riskd.core.book cimport Book

cdef uint32_t create_firm(Book *book, uint32_t firm_id, uint32_t asset_id) noexcept nogil
cdef uint32_t set_account_owner(
    Book *book, uint64_t account_id, uint64_t firm_id, uint64_t parent_id, uint64_t now_ns
) noexcept nogil
cdef uint32_t set_limit(
    Book *book,
    uint32_t scope,
    uint64_t scope_id,
    uint32_t instrument_id,
    uint32_t kind,
    int64_t value,
    int64_t burst,
    uint32_t action,
) noexcept nogil
cdef uint32_t raise_limit(
    Book *book,
    uint32_t scope,
    uint64_t scope_id,
    uint32_t instrument_id,
    uint32_t kind,
    int64_t value,
    uint64_t until_ns,
    uint64_t now_ns,
) noexcept nogil
cdef uint32_t remove_limit(
    Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id, uint32_t kind
) noexcept nogil
cdef uint32_t reset_usage(
    Book *book, uint32_t scope, uint64_t scope_id, uint32_t instrument_id, uint32_t kind
) noexcept nogil
