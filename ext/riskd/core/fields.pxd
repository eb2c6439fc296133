"""What a field of a request's headers is, and whether it may be there: RFC 9113, 8.2 and 8.3."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum Field:
    # The request that has it is malformed.
    FIELD_MALFORMED = 0
    # It may be there, and says nothing to us.
    FIELD_OTHER = 1
    FIELD_METHOD = 2
    FIELD_SCHEME = 3
    FIELD_AUTHORITY = 4
    FIELD_PATH = 5
    FIELD_HOST = 6
    FIELD_CONTENT_LENGTH = 7
    FIELD_CONTENT_TYPE = 8
    FIELD_GRPC_ENCODING = 9
    FIELD_GRPC_TIMEOUT = 10
    FIELD_AUTHORIZATION = 11

# A field by itself: that it comes in its order, and as often as it may, is for others to see.
cdef uint32_t field_of(
    const uint8_t *name, size_t name_size, const uint8_t *value, size_t value_size
) noexcept nogil

cdef inline bint field_is_pseudo(uint32_t field) noexcept nogil:
    return FIELD_METHOD <= field <= FIELD_PATH
