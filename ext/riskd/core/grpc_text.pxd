"""What gRPC writes into headers: timeouts, messages, details of errors."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    # Of google.rpc.Code.
    GRPC_OK = 0
    GRPC_CANCELLED = 1
    GRPC_INVALID_ARGUMENT = 3
    GRPC_DEADLINE_EXCEEDED = 4
    GRPC_NOT_FOUND = 5
    GRPC_PERMISSION_DENIED = 7
    GRPC_RESOURCE_EXHAUSTED = 8
    GRPC_UNIMPLEMENTED = 12
    GRPC_INTERNAL = 13
    GRPC_UNAVAILABLE = 14
    GRPC_UNAUTHENTICATED = 16

cdef enum:
    # Of our own messages, before percent-encoding; longer ones are cut.
    MESSAGE_SIZE_MAX = 320
    ENCODED_SIZE_MAX = 960
    # Of google.rpc.Status with one ErrorInfo, in base64.
    DETAILS_SIZE_MAX = 1536
    METADATA_MAX = 3
    # With the zero at the end.
    METADATA_VALUE_SIZE = 64

# Of an ErrorInfo, in the order of the keys: a map has none, and both doors write the same bytes.
cdef struct Metadata:
    uint32_t count
    const char *keys[METADATA_MAX]
    char values[METADATA_MAX][METADATA_VALUE_SIZE]

# Read a grpc-timeout: at most 8 digits and one of H M S m u n. False if it is none.
cdef bint parse_timeout(const uint8_t *start, size_t size, uint64_t *timeout_ns) noexcept nogil

# Percent-encode what is not printable ASCII, and "%"; return the size.
cdef size_t encode_message(const char *text, uint8_t *encoded) noexcept nogil

cdef void metadata_add(Metadata *metadata, const char *key, const char *value) noexcept nogil

# Write google.rpc.Status with one ErrorInfo of the domain "riskd", in base64 without padding.
# Without metadata (NULL) it has none.
cdef size_t encode_details(
    uint32_t code, const char *text, const char *reason, const Metadata *metadata, uint8_t *encoded
) noexcept nogil
