"""What gRPC writes into headers: timeouts, messages, details of errors."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    # Of google.rpc.Code.
    GRPC_OK = 0
    GRPC_INVALID_ARGUMENT = 3
    GRPC_DEADLINE_EXCEEDED = 4
    GRPC_NOT_FOUND = 5
    GRPC_RESOURCE_EXHAUSTED = 8
    GRPC_UNIMPLEMENTED = 12
    GRPC_INTERNAL = 13
    GRPC_UNAVAILABLE = 14

cdef enum:
    # Of our own messages, before percent-encoding; longer ones are cut.
    MESSAGE_SIZE_MAX = 320
    ENCODED_SIZE_MAX = 960
    # Of google.rpc.Status with one ErrorInfo, in base64.
    DETAILS_SIZE_MAX = 1024

# Read a grpc-timeout: at most 8 digits and one of H M S m u n. False if it is none.
cdef bint parse_timeout(const uint8_t *start, size_t size, uint64_t *timeout_ns) noexcept nogil

# Percent-encode what is not printable ASCII, and "%"; return the size.
cdef size_t encode_message(const char *text, uint8_t *encoded) noexcept nogil

# Write google.rpc.Status with one ErrorInfo of the domain "riskd", in base64 without padding.
cdef size_t encode_details(
    uint32_t code, const char *text, const char *reason, uint8_t *encoded
) noexcept nogil
