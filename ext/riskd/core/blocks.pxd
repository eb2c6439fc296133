"""Memory of one thread in blocks of a few sizes, for a library that takes and gives back many.

A stream of HTTP/2 takes ten blocks and gives them back within a millisecond. Here that is a list's
first entry each time; malloc() would look for neighbours to join and locks to hold.

What is given back stays here for the next; so this has as much memory as was ever in use at a time,
which the bounds of sessions and calls bound. The debug build has malloc() only, so that ASan sees
each block.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from riskd.core.http2 cimport nghttp2_mem

cdef extern from *:
    """
    #ifdef RISKD_DEBUG
    #define RISKD_BLOCK_SIZE_MAX 0
    #else
    #define RISKD_BLOCK_SIZE_MAX 1024
    #endif
    """
    enum:
        # Larger ones are malloc()'s.
        BLOCK_SIZE_MAX "RISKD_BLOCK_SIZE_MAX"

cdef enum:
    BLOCK_SIZE_MIN = 64
    # 64, 128, 256, 512, 1024.
    BLOCK_KINDS = 5
    SLAB_SIZE = 1 << 16

# Before each block; 16 bytes, so that what follows is aligned for everything.
ctypedef struct BlockHead:
    BlockHead *next
    # BLOCK_KINDS: from malloc(), and then how large.
    uint32_t kind
    uint32_t size

ctypedef struct Blocks:
    BlockHead *free[BLOCK_KINDS]
    # The memory that blocks are cut from, in a list.
    BlockHead *slabs
    size_t slab_left


cdef inline void *_block_large(size_t size) noexcept nogil:
    cdef BlockHead *head
    if size > <size_t>(<uint32_t>-1) - sizeof(BlockHead):
        return NULL
    head = <BlockHead *>malloc(sizeof(BlockHead) + size)
    if head == NULL:
        return NULL
    head.kind = BLOCK_KINDS
    head.size = <uint32_t>size
    return head + 1


cdef inline void *_block_new(Blocks *blocks, uint32_t kind) noexcept nogil:
    """Cut a block from the newest slab, or from one more."""
    cdef size_t size = sizeof(BlockHead) + (<size_t>BLOCK_SIZE_MIN << kind)
    cdef BlockHead *head
    if blocks.slab_left < size:
        head = <BlockHead *>malloc(SLAB_SIZE)
        if head == NULL:
            return NULL
        head.next = blocks.slabs
        blocks.slabs = head
        blocks.slab_left = SLAB_SIZE - sizeof(BlockHead)
    head = <BlockHead *>(<char *>blocks.slabs + SLAB_SIZE - blocks.slab_left)
    blocks.slab_left -= size
    head.kind = kind
    head.size = <uint32_t>BLOCK_SIZE_MIN << kind
    return head + 1


cdef inline void *block_take(size_t size, void *user) noexcept nogil:
    cdef Blocks *blocks = <Blocks *>user
    cdef BlockHead *head
    cdef uint32_t kind = 0
    if size > <size_t>BLOCK_SIZE_MAX:
        return _block_large(size)
    while <size_t>BLOCK_SIZE_MIN << kind < size:
        kind += 1
    head = blocks.free[kind]
    if head == NULL:
        return _block_new(blocks, kind)
    blocks.free[kind] = head.next
    return head + 1


cdef inline void block_give(void *memory, void *user) noexcept nogil:
    cdef Blocks *blocks = <Blocks *>user
    cdef BlockHead *head
    if memory == NULL:
        return
    head = <BlockHead *>memory - 1
    if head.kind == BLOCK_KINDS:
        free(head)
        return
    head.next = blocks.free[head.kind]
    blocks.free[head.kind] = head


cdef inline void *block_take_zeroed(size_t count, size_t size, void *user) noexcept nogil:
    cdef void *memory
    if size != 0 and count > <size_t>-1 // size:
        return NULL
    memory = block_take(count * size, user)
    if memory != NULL:
        memset(memory, 0, count * size)
    return memory


cdef inline void *block_resize(void *memory, size_t size, void *user) noexcept nogil:
    cdef BlockHead *head
    cdef void *larger
    if memory == NULL:
        return block_take(size, user)
    head = <BlockHead *>memory - 1
    if size <= head.size:
        return memory
    larger = block_take(size, user)
    if larger != NULL:
        memcpy(larger, memory, head.size)
        block_give(memory, user)
    return larger


cdef inline void blocks_open(Blocks *blocks, nghttp2_mem *memory) noexcept nogil:
    """Begin without memory, and tell the library how to ask for it."""
    memset(blocks, 0, sizeof(Blocks))
    memory.mem_user_data = blocks
    memory.malloc = block_take
    memory.free = block_give
    memory.calloc = block_take_zeroed
    memory.realloc = block_resize


cdef inline void blocks_close(Blocks *blocks) noexcept nogil:
    """Give all memory back; none of it is in use."""
    cdef BlockHead *slab = blocks.slabs
    cdef BlockHead *next
    while slab != NULL:
        next = slab.next
        free(slab)
        slab = next
    memset(blocks, 0, sizeof(Blocks))
