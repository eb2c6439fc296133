/* A histogram of durations in nanoseconds, log-linear as HdrHistogram's: a bucket is never wider
 * than 1/128 of its values, from 1 ns to 2^40 ns (18 minutes); longer ones go into the last bucket.
 */
#ifndef RISKD_HISTOGRAM_H
#define RISKD_HISTOGRAM_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

enum { HISTOGRAM_STEPS = 128, HISTOGRAM_BUCKETS = (40 - 7 + 1) * HISTOGRAM_STEPS };

typedef struct {
    uint64_t counts[HISTOGRAM_BUCKETS];
} Histogram;

/* Values below 128 have a bucket each. Above, the highest eight bits choose: doubling a value moves
 * it 128 buckets on. */
static inline uint32_t histogram_bucket(uint64_t value_ns) {
    if (value_ns < HISTOGRAM_STEPS) {
        return (uint32_t)value_ns;
    }
    if (value_ns >> 40) {
        return HISTOGRAM_BUCKETS - 1;
    }
    uint32_t shift = 56 - (uint32_t)__builtin_clzll(value_ns);
    return shift * HISTOGRAM_STEPS + (uint32_t)(value_ns >> shift);
}

/* The largest value of a bucket. */
static inline uint64_t histogram_highest(uint32_t bucket) {
    if (bucket < 2 * HISTOGRAM_STEPS) {
        return bucket;
    }
    uint32_t shift = bucket / HISTOGRAM_STEPS - 1;
    uint64_t step = bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS;
    return ((step + 1) << shift) - 1;
}

static inline void histogram_record(Histogram *histogram, uint64_t value_ns) {
    histogram->counts[histogram_bucket(value_ns)]++;
}

/* Write [[highest value of the bucket, count], ...] of the buckets that are not empty. */
static inline void histogram_print(const Histogram *histogram, FILE *file) {
    const char *separator = "";
    fputc('[', file);
    for (uint32_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        if (histogram->counts[bucket]) {
            fprintf(file, "%s[%" PRIu64 ", %" PRIu64 "]", separator, histogram_highest(bucket),
                    histogram->counts[bucket]);
            separator = ", ";
        }
    }
    fputc(']', file);
}

#endif
