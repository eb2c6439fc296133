/* Which tier: the loop over tiers for eight positions at a time, in the machine's widest vectors. */
#ifndef RISKD_POSITION_MARGIN_H
#define RISKD_POSITION_MARGIN_H

#include <stdint.h>

/* A wheel runs on any x86-64; the loader takes the variant that the processor can run. No variant
 * fuses multiplications, so all give the same bits. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(RISKD_DEBUG) && \
    !defined(__SANITIZE_ADDRESS__)
#define RISKD_VARIANTS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define RISKD_VARIANTS
#endif

#define RISKD_LANES 8

/* No alignment is assumed, and the lanes alias the doubles that they are read from. */
typedef double riskd_doubles
    __attribute__((vector_size(RISKD_LANES * sizeof(double)), aligned(8), may_alias));
typedef int64_t riskd_integers
    __attribute__((vector_size(RISKD_LANES * sizeof(int64_t)), aligned(8), may_alias));

/* For each key, how many of floors[1] to floors[tiers - 1] are below it. count is a multiple of
 * RISKD_LANES. */
RISKD_VARIANTS
static void riskd_tiers_below(const double *keys, const double *floors, int tiers, int count,
                              int64_t *below) {
    for (int i = 0; i < count; i += RISKD_LANES) {
        const riskd_doubles key = *(const riskd_doubles *)(keys + i);
        riskd_integers found = {0};
        for (int k = 1; k < tiers; k++) {
            found -= key > floors[k];
        }
        *(riskd_integers *)(below + i) = found;
    }
}

/* The same for thresholds that depend on a sign: floors[k] - sign * owed[k]. */
RISKD_VARIANTS
static void riskd_signed_tiers_below(const double *keys, const double *signs, const double *floors,
                                     const double *owed, int tiers, int count, int64_t *below) {
    for (int i = 0; i < count; i += RISKD_LANES) {
        const riskd_doubles key = *(const riskd_doubles *)(keys + i);
        const riskd_doubles sign = *(const riskd_doubles *)(signs + i);
        riskd_integers found = {0};
        for (int k = 1; k < tiers; k++) {
            found -= key > floors[k] - sign * owed[k];
        }
        *(riskd_integers *)(below + i) = found;
    }
}

/* Whether all of count figures lie in [low, high]; a figure that is no number does not. */
RISKD_VARIANTS
static int riskd_all_within(const double *figures, double low, double high, int count) {
    /* A comparison is counted, not combined: gcc makes vectors of counts only. */
    riskd_integers kept = {0};
    int64_t sum = 0;
    for (int i = 0; i < count; i += RISKD_LANES) {
        const riskd_doubles figure = *(const riskd_doubles *)(figures + i);
        kept -= figure >= low;
        kept -= figure <= high;
    }
    for (int lane = 0; lane < RISKD_LANES; lane++) {
        sum += kept[lane];
    }
    return sum == 2 * (int64_t)count;
}

#endif
