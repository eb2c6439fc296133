"""Snapshots: a whole book in a file."""

from libc.stdint cimport uint32_t, uint64_t

from riskd.core.book cimport Book

# Write a book as of the journal's record (its sequence, time and checksum) into the directory, and
# read it back; return its path. What was there under that name is replaced, or stays as it was.
cdef object snapshot_write(
    Book *book, directory, uint64_t sequence, uint64_t time_ns, uint32_t checksum
)

# Open a book with what is in the file; return its SnapshotHead. The book must be closed, and is
# after an error.
cdef object snapshot_read(Book *book, path, uint64_t seed)
