/* C that Cython cannot say: 128-bit integers, checked products, compile-time and debug assertions. */
#ifndef RISKD_CORE_H
#define RISKD_CORE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

__extension__ typedef __int128 riskd_i128;

/* For use inside a function, on an object of the type. */
#define riskd_size_is(object, size) \
    _Static_assert(sizeof(object) == (size), #object " is not " #size " bytes")

/* Ours, not theirs: aborts in the debug build, costs nothing in the other. An `assert` inside a
 * noexcept function would print and return 0. */
#ifdef RISKD_DEBUG
#define riskd_debug_assert(condition)                                                       \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                        \
        }                                                                                   \
    } while (0)
#else
#define riskd_debug_assert(condition) ((void)0)
#endif

/* Whether a * b fits 128 bits; the product goes to *product. Most factors have 64 bits, and one
 * instruction then does it. */
static inline int riskd_multiply(riskd_i128 a, riskd_i128 b, riskd_i128 *product) {
    if ((int64_t)a == a && (int64_t)b == b) {
        *product = (riskd_i128)(int64_t)a * (int64_t)b;
        return 1;
    }
    return !__builtin_mul_overflow(a, b, product);
}

/* Zero an object of a constant size. Of one memset() of more than 96 bytes GCC makes an instruction
 * with a long start. */
static inline __attribute__((always_inline)) void riskd_clear(void *object, size_t size) {
    char *at = object;
    for (; size > 64; size -= 64, at += 64) {
        memset(at, 0, 64);
    }
    memset(at, 0, size);
}

/* The varint that begins 8 readable bytes, and its size; 0 if it is longer than they are. All
 * groups of 7 bits are moved at once: little endian, as journal.pyx asserts. */
static inline size_t riskd_varint_read(const uint8_t *bytes, uint64_t *value) {
    uint64_t bits, ends;
    memcpy(&bits, bytes, sizeof(bits));
    ends = ~bits & 0x8080808080808080;
    bits &= (ends ^ (ends - 1)) & 0x7F7F7F7F7F7F7F7F;
    bits = (bits & 0x007F007F007F007F) | (bits & 0x7F007F007F007F00) >> 1;
    bits = (bits & 0x00003FFF00003FFF) | (bits & 0x3FFF00003FFF0000) >> 2;
    *value = (bits & 0x000000000FFFFFFF) | (bits & 0x0FFFFFFF00000000) >> 4;
    return ends == 0 ? 0 : (size_t)(__builtin_ctzll(ends) + 1) / 8;
}

/* Write a value below 2^56 as a varint into 8 writable bytes, and return its size. */
static inline size_t riskd_varint_write(uint8_t *bytes, uint64_t value) {
    /* (bits + 6) / 7 of at most 56 bits, without a division. */
    size_t size = ((70 - (unsigned)__builtin_clzll(value | 1)) * 37) >> 8;
    uint64_t bits = (value & 0x000000000FFFFFFF) | (value & 0x00FFFFFFF0000000) << 4;
    bits = (bits & 0x00003FFF00003FFF) | (bits & 0x0FFFC0000FFFC000) << 2;
    bits = (bits & 0x007F007F007F007F) | (bits & 0x3F803F803F803F80) << 1;
    bits |= 0x8080808080808080 & (((uint64_t)1 << 8 * (size - 1)) - 1);
    memcpy(bytes, &bits, sizeof(bits));
    return size;
}

/* Zeroed memory of a table, touched now so that no request pays for a page fault, in huge pages where
 * the kernel gives them: tables are hit at random, and small pages would miss the TLB each time.
 * NULL when memory is short. Released with free(). */
static inline void *riskd_table_open(size_t count, size_t size) {
    const size_t huge = (size_t)1 << 21;
    size_t bytes;
    void *table;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - huge) {
        return NULL;
    }
    if (bytes < huge) {
        return calloc(count, size);
    }
    bytes = (bytes + huge - 1) & ~(huge - 1);
    table = aligned_alloc(huge, bytes);
    if (table != NULL) {
        (void)madvise(table, bytes, MADV_HUGEPAGE);
        memset(table, 0, bytes);
    }
    return table;
}

/* Zeroed memory that costs nothing until it is touched, in pages of the smallest size: a fault in the
 * middle of a request must not zero 2 MiB. NULL when there is no address space for it. */
static inline void *riskd_lazy_open(size_t count, size_t size) {
    size_t bytes;
    void *memory;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        return NULL;
    }
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

static inline void riskd_lazy_close(void *memory, size_t count, size_t size) {
    if (memory != NULL) {
        (void)munmap(memory, count * size);
    }
}

#endif
