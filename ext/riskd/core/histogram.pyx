"""Histograms for Python: those that the core fills, and its own."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from riskd.core.rows import HistogramRow


cdef object histogram_row(const Histogram *histogram):
    cdef uint32_t bucket
    cdef uint64_t count
    counts = []
    for bucket in range(<uint32_t>HISTOGRAM_BUCKETS):
        count = count_of(&histogram.counts[bucket])
        if count != 0:
            counts.append((histogram_bound(bucket), count))
    return HistogramRow(count_of(&histogram.sum), tuple(counts))


cdef class DurationHistogram:
    cdef Histogram _histogram

    def __cinit__(self):
        memset(&self._histogram, 0, sizeof(Histogram))

    def add(self, uint64_t value):
        histogram_add(&self._histogram, value)

    def read(self):
        return histogram_row(&self._histogram)
