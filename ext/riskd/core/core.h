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

/* Whether a * b fits 128 bits; the product goes to *product. */
static inline int riskd_multiply(riskd_i128 a, riskd_i128 b, riskd_i128 *product) {
    return !__builtin_mul_overflow(a, b, product);
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
