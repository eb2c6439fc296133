"""Definitions from outside: assets, margin schedules, instruments, accounts."""

from libc.stdint cimport uint32_t

from riskd.core.book cimport Book

cdef tuple define_asset(Book *book, dict ids, symbol, scale)
cdef tuple define_schedule(Book *book, dict ids, row)
cdef tuple define_option_rule(
    Book *book,
    dict ids,
    name,
    asset_id,
    initial_ppb,
    initial_min_ppb,
    maintenance_ppb,
    put_maintenance,
    parameter_d,
    parameter_e,
)
cdef tuple define_instrument(Book *book, dict ids, row)
cdef uint32_t define_account(
    Book *book, account_id, asset_id, margin_mode, leverage, cash
) except 0
