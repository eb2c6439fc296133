/* Blocks of positions in the machine's widest vectors: sizes and values, tiers, requirements and
 * prices of plain rules. Figures of one call do not overlap. */
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

/* Sizes, values at a price and the signs of the profit: sigma. */
RISKD_VARIANTS
static void riskd_values(const double *restrict quantity, const double *restrict multiplier,
                         const double *restrict price, int inverse, int count,
                         double *restrict size, double *restrict value, double *restrict sign) {
    if (inverse) {
        for (int i = 0; i < count; i++) {
            size[i] = __builtin_fabs(quantity[i]) * multiplier[i];
            value[i] = size[i] / price[i];
            sign[i] = __builtin_copysign(1.0, -quantity[i]);
        }
    } else {
        for (int i = 0; i < count; i++) {
            size[i] = __builtin_fabs(quantity[i]) * multiplier[i];
            value[i] = size[i] * price[i];
            sign[i] = __builtin_copysign(1.0, quantity[i]);
        }
    }
}

/* initial = max(i N, N / leverage), maintenance = max(m N - d, 0), by each position's tier. */
RISKD_VARIANTS
static void riskd_requirements(const double *restrict value, const double *restrict leverage,
                               const int64_t *restrict tier, const double *restrict initial_rates,
                               const double *restrict maintenance_rates,
                               const double *restrict deductions, int count,
                               double *restrict initial, double *restrict maintenance) {
    for (int i = 0; i < count; i++) {
        const double least = value[i] / leverage[i];
        const double needed = initial_rates[tier[i]] * value[i];
        const double kept = maintenance_rates[tier[i]] * value[i] - deductions[tier[i]];
        initial[i] = needed > least ? needed : least;
        maintenance[i] = kept > 0.0 ? kept : 0.0;
    }
}

/* What the value at entry leaves for the loss: V - sigma M. */
RISKD_VARIANTS
static void riskd_changes(const double *restrict value, const double *restrict sign,
                          const double *restrict wallet, int count, double *restrict change) {
    for (int i = 0; i < count; i++) {
        change[i] = value[i] - sign[i] * wallet[i];
    }
}

/* Both sides of (1 - sigma rate) N = change - sigma d, by each position's tier. */
RISKD_VARIANTS
static void riskd_terms(const double *restrict sign, const int64_t *restrict tier,
                        const double *restrict deductions, const double *restrict rates, int count,
                        double *restrict change, double *restrict part) {
    for (int i = 0; i < count; i++) {
        change[i] = change[i] - sign[i] * deductions[tier[i]];
        part[i] = 1.0 - sign[i] * rates[tier[i]];
    }
}

/* N / size of a linear contract, size / N of an inverse one. */
RISKD_VARIANTS
static void riskd_prices(const double *restrict change, const double *restrict part,
                         const double *restrict size, int inverse, int count,
                         double *restrict price) {
    if (inverse) {
        for (int i = 0; i < count; i++) {
            price[i] = size[i] * part[i] / change[i];
        }
    } else {
        for (int i = 0; i < count; i++) {
            price[i] = change[i] / (part[i] * size[i]);
        }
    }
}

#endif
