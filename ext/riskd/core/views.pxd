"""What Python sees of a book: rows, and the canonical state as text."""

from libc.stdint cimport uint32_t, uint64_t

from riskd.core.book cimport Book

cdef asset_rows(Book *book)
cdef schedule_rows(Book *book)
cdef instrument_rows(Book *book)
cdef mark_row(Book *book, uint32_t instrument_id)
cdef account_row_of(Book *book, uint64_t account_id)
cdef account_rows(Book *book, after_id, count_max)
cdef summary_row(Book *book, uint64_t account_id)
cdef position_rows(Book *book, uint64_t account_id)
cdef balance_rows(Book *book, uint64_t account_id)
cdef gateway_rows(Book *book)
cdef trading_state_rows(Book *book)
cdef working_reservation_ids(Book *book, scope, scope_id, count_max)
cdef state_lines_of(Book *book)
cdef answer_lines_of(Book *book)
cdef firm_rows(Book *book)
cdef limit_rows(Book *book)
cdef collateral_values(Book *book, uint64_t account_id)
cdef collateral_rows(Book *book)
cdef risk_event_rows(Book *book, uint64_t after_revision, uint64_t account_id, limit)
