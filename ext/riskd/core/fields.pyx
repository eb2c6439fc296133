"""What a field of a request's headers is, and whether it may be there: RFC 9113, 8.2 and 8.3."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, strlen


cdef inline bint _is(const uint8_t *start, size_t size, const char *text) noexcept nogil:
    return size == strlen(text) and memcmp(start, text, size) == 0


cdef inline bint _is_name_byte(uint8_t byte) noexcept nogil:
    """Whether a name may have a byte: a token's (RFC 9110, 5.6.2), no letter of which is large."""
    return (
        c"a" <= byte <= c"z"
        or c"0" <= byte <= c"9"
        or byte == c"-"
        or byte == c"_"
        or byte == c"."
        or byte == c"!"
        or c"#" <= byte <= c"'"
        or byte == c"*"
        or byte == c"+"
        or byte == c"^"
        or byte == c"`"
        or byte == c"|"
        or byte == c"~"
    )


cdef bint _is_name(const uint8_t *start, size_t size) noexcept nogil:
    cdef size_t index
    for index in range(size):
        if not _is_name_byte(start[index]):
            return False
    return size > 0


cdef bint _is_visible(const uint8_t *start, size_t size) noexcept nogil:
    """Whether all bytes are ASCII that is printed, no space among them, and there is one."""
    cdef size_t index
    for index in range(size):
        if start[index] <= 0x20 or start[index] >= 0x7F:
            return False
    return size > 0


cdef bint _is_value(const uint8_t *start, size_t size) noexcept nogil:
    """Whether no byte is a control character but a tab."""
    cdef size_t index
    for index in range(size):
        if (start[index] < 0x20 and start[index] != c"\t") or start[index] == 0x7F:
            return False
    return True


cdef inline bint _is_blank(uint8_t byte) noexcept nogil:
    return byte == c" " or byte == c"\t"


cdef uint32_t _pseudo_field_of(
    const uint8_t *name, size_t name_size, const uint8_t *value, size_t value_size
) noexcept nogil:
    if not _is_visible(value, value_size):
        return FIELD_MALFORMED
    if _is(name, name_size, ":path"):
        return FIELD_PATH if value[0] == c"/" or _is(value, value_size, "*") else FIELD_MALFORMED
    if _is(name, name_size, ":method"):
        return FIELD_METHOD
    if _is(name, name_size, ":scheme"):
        return FIELD_SCHEME
    if _is(name, name_size, ":authority"):
        return FIELD_AUTHORITY
    return FIELD_MALFORMED


cdef uint32_t field_of(
    const uint8_t *name, size_t name_size, const uint8_t *value, size_t value_size
) noexcept nogil:
    if name_size > 0 and name[0] == c":":
        return _pseudo_field_of(name, name_size, value, value_size)
    if not _is_name(name, name_size) or not _is_value(value, value_size):
        return FIELD_MALFORMED
    # 8.2.2: what is of one connection of HTTP/1.1.
    if (
        _is(name, name_size, "connection")
        or _is(name, name_size, "keep-alive")
        or _is(name, name_size, "proxy-connection")
        or _is(name, name_size, "transfer-encoding")
        or _is(name, name_size, "upgrade")
    ):
        return FIELD_MALFORMED
    if _is(name, name_size, "te"):
        return FIELD_OTHER if _is(value, value_size, "trailers") else FIELD_MALFORMED
    if _is(name, name_size, "host"):
        return FIELD_HOST if _is_visible(value, value_size) else FIELD_MALFORMED
    if value_size > 0 and (_is_blank(value[0]) or _is_blank(value[value_size - 1])):
        # By the letter it is malformed. But clients let people put such values into metadata, which
        # nobody here reads; where one matters it is as if it were not there.
        return FIELD_OTHER
    if _is(name, name_size, "content-type"):
        return FIELD_CONTENT_TYPE
    if _is(name, name_size, "content-length"):
        return FIELD_CONTENT_LENGTH
    if _is(name, name_size, "grpc-encoding"):
        return FIELD_GRPC_ENCODING
    if _is(name, name_size, "grpc-timeout"):
        return FIELD_GRPC_TIMEOUT
    if _is(name, name_size, "authorization"):
        return FIELD_AUTHORIZATION
    return FIELD_OTHER
