"""An open-addressing index from a key's hash to a place in a table; the key itself stands in the
table."""

from libc.stdint cimport uint32_t, uint64_t

from riskd.core.money cimport debug_assert
from riskd.core.types cimport NOWHERE

ctypedef struct IndexEntry:
    uint32_t tag                    # the hash; its low bits are the entry's home
    uint32_t place_and_one          # 0 = empty

ctypedef struct Index:
    IndexEntry *entries
    uint64_t mask
    uint64_t seed

cdef inline uint32_t index_hash(const Index *index, uint64_t major, uint64_t minor) noexcept nogil:
    """Mix a key with the index's secret seed: ids come from outside, and must not choose their
    chain.

    The finaliser is that of SplitMix64 (Steele, Lea, Flood 2014).
    """
    cdef uint64_t bits = major * <uint64_t>0x9E3779B97F4A7C15 ^ minor ^ index.seed
    bits = (bits ^ (bits >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    bits = (bits ^ (bits >> 27)) * <uint64_t>0x94D049BB133111EB
    return <uint32_t>(bits ^ (bits >> 31))

cdef inline uint32_t index_candidate(const Index *index, uint32_t tag, uint64_t *at) noexcept nogil:
    """Return the next place whose key has the hash, from entry `at` on; NOWHERE at the chain's end.

    A search begins with `at` = tag; the caller compares the key in its table.
    """
    cdef const IndexEntry *entry
    while True:
        entry = &index.entries[at[0] & index.mask]
        at[0] += 1
        if entry.place_and_one == 0:
            return NOWHERE
        if entry.tag == tag:
            return entry.place_and_one - 1

cdef inline void index_add(Index *index, uint32_t tag, uint32_t place) noexcept nogil:
    """Add a key that is not there."""
    cdef uint64_t at = tag & index.mask
    while index.entries[at].place_and_one != 0:
        at = (at + 1) & index.mask
    index.entries[at].tag = tag
    index.entries[at].place_and_one = place + 1

cdef inline void index_drop(Index *index, uint32_t tag, uint32_t place) noexcept nogil:
    """Drop a key that is there; later entries of its chain move back, so that no grave is left."""
    cdef uint64_t hole = tag & index.mask
    cdef uint64_t at, home
    while index.entries[hole].place_and_one != place + 1:
        debug_assert(index.entries[hole].place_and_one != 0)
        hole = (hole + 1) & index.mask
    at = hole
    while True:
        at = (at + 1) & index.mask
        if index.entries[at].place_and_one == 0:
            break
        home = index.entries[at].tag & index.mask
        # An entry may move into the hole if its home is not between the hole and itself.
        if ((at - home) & index.mask) >= ((at - hole) & index.mask):
            index.entries[hole] = index.entries[at]
            hole = at
    index.entries[hole].place_and_one = 0
