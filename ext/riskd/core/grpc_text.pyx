"""What gRPC writes into headers: timeouts, messages, details of errors.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport strlen

from riskd.core.money cimport debug_assert
from riskd.core.wire cimport Writer, inner_writer, write_bytes, write_unsigned

cdef enum:
    TIMEOUT_DIGITS_MAX = 8
    STATUS_SIZE_MAX = 1024

cdef const char *ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
cdef const char *DOMAIN = "riskd"
cdef const char *HEX = "0123456789ABCDEF"
cdef const char *BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef inline uint64_t _unit_ns(uint8_t unit) noexcept nogil:
    if unit == c"H":
        return 3_600_000_000_000
    if unit == c"M":
        return 60_000_000_000
    if unit == c"S":
        return 1_000_000_000
    if unit == c"m":
        return 1_000_000
    if unit == c"u":
        return 1_000
    return 1 if unit == c"n" else 0


cdef bint parse_timeout(const uint8_t *start, size_t size, uint64_t *timeout_ns) noexcept nogil:
    cdef uint64_t count = 0
    cdef uint64_t unit_ns
    cdef size_t index
    if size < 2 or size > TIMEOUT_DIGITS_MAX + 1:
        return False
    for index in range(size - 1):
        if start[index] < c"0" or start[index] > c"9":
            return False
        count = count * 10 + (start[index] - <uint64_t>c"0")
    unit_ns = _unit_ns(start[size - 1])
    # 8 digits of hours are 3.6e20 ns, more than 64 bits hold and than anybody waits.
    if start[size - 1] == c"H" and count > 1_000_000:
        count = 1_000_000
    timeout_ns[0] = count * unit_ns
    return unit_ns != 0


cdef size_t encode_message(const char *text, uint8_t *encoded) noexcept nogil:
    cdef size_t size = 0
    cdef size_t index = 0
    cdef uint8_t byte
    while text[index] != 0 and index < MESSAGE_SIZE_MAX:
        byte = <uint8_t>text[index]
        index += 1
        if byte < 0x20 or byte > 0x7E or byte == c"%":
            encoded[size] = c"%"
            encoded[size + 1] = <uint8_t>HEX[byte >> 4]
            encoded[size + 2] = <uint8_t>HEX[byte & 15]
            size += 3
        else:
            encoded[size] = byte
            size += 1
    debug_assert(size <= ENCODED_SIZE_MAX)
    return size


cdef inline uint8_t _digit(uint32_t bits) noexcept nogil:
    return <uint8_t>BASE64[bits & 63]


cdef size_t _encode_base64(const uint8_t *start, size_t size, uint8_t *encoded) noexcept nogil:
    cdef size_t written = 0
    cdef uint32_t bits
    while size >= 3:
        bits = <uint32_t>start[0] << 16 | <uint32_t>start[1] << 8 | start[2]
        encoded[written] = _digit(bits >> 18)
        encoded[written + 1] = _digit(bits >> 12)
        encoded[written + 2] = _digit(bits >> 6)
        encoded[written + 3] = _digit(bits)
        written += 4
        start += 3
        size -= 3
    if size == 0:
        return written
    bits = <uint32_t>start[0] << 16
    if size == 2:
        bits |= <uint32_t>start[1] << 8
    encoded[written] = _digit(bits >> 18)
    encoded[written + 1] = _digit(bits >> 12)
    if size == 2:
        encoded[written + 2] = _digit(bits >> 6)
    return written + size + 1


cdef inline void _write_text(Writer *writer, uint32_t field, const char *text) noexcept nogil:
    cdef size_t size = strlen(text)
    write_bytes(
        writer, field, <const uint8_t *>text, size if size < MESSAGE_SIZE_MAX else MESSAGE_SIZE_MAX
    )


cdef void metadata_add(Metadata *metadata, const char *key, const char *value) noexcept nogil:
    debug_assert(metadata.count < METADATA_MAX)
    debug_assert(strlen(value) < METADATA_VALUE_SIZE)
    metadata.keys[metadata.count] = key
    snprintf(metadata.values[metadata.count], METADATA_VALUE_SIZE, "%s", value)
    metadata.count += 1


cdef inline void _write_pair(Writer *writer, const char *key, const char *value) noexcept nogil:
    """Write an entry of the field metadata = 3, a map."""
    cdef uint8_t entry_bytes[128]
    cdef Writer entry = inner_writer(entry_bytes, sizeof(entry_bytes))
    _write_text(&entry, 1, key)
    _write_text(&entry, 2, value)
    write_bytes(writer, 3, entry.start, entry.size)


cdef size_t encode_details(
    uint32_t code, const char *text, const char *reason, const Metadata *metadata, uint8_t *encoded
) noexcept nogil:
    cdef uint8_t info_bytes[400]
    cdef uint8_t any_bytes[512]
    cdef uint8_t status_bytes[STATUS_SIZE_MAX]
    cdef uint32_t index
    cdef Writer info = inner_writer(info_bytes, sizeof(info_bytes))
    cdef Writer any = inner_writer(any_bytes, sizeof(any_bytes))
    cdef Writer status = inner_writer(status_bytes, sizeof(status_bytes))
    _write_text(&info, 1, reason)
    _write_text(&info, 2, DOMAIN)
    if metadata != NULL:
        for index in range(metadata.count):
            _write_pair(&info, metadata.keys[index], metadata.values[index])
    _write_text(&any, 1, ERROR_INFO)
    write_bytes(&any, 2, info.start, info.size)
    write_unsigned(&status, 1, code)
    _write_text(&status, 2, text)
    write_bytes(&status, 3, any.start, any.size)
    return _encode_base64(status.start, status.size, encoded)
