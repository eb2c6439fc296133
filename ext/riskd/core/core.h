/* C that Cython cannot say: 128-bit integers, checked products, compile-time and debug assertions. */
#ifndef RISKD_CORE_H
#define RISKD_CORE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

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

#endif
