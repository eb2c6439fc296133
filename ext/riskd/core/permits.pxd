"""Who may do what: identities by the keys that they are known by.

A Table is what an identities file says, and never changes; a reload puts another in its place. Each
thread takes the table of now at the beginning of its round, so that nothing of an older one is read
once it is gone: what is remembered of a table carries its generation.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef enum:
    # With the zero at their ends.
    IDENTITY_NAME_SIZE = 64
    PEER_SIZE = 64
    SHOWN_SIZE = 128
    KEY_HASH_SIZE = 32
    # Of a certificate: by its SPIFFE id alone, or by its subject and its common name.
    CERTIFICATE_KEYS_MAX = 2
    # Kinds of denials between two looks at them; the same kind again is one more of it.
    DENIALS_KEPT_MAX = 256

cdef enum KeyKind:
    KEY_TOKEN = 1
    KEY_SPIFFE = 2
    KEY_SUBJECT = 3
    KEY_COMMON_NAME = 4

cdef enum DenialReason:
    DENIED_NOTHING = 0
    DENIED_CREDENTIALS_MISSING = 1
    DENIED_CERTIFICATE_UNKNOWN = 2
    DENIED_TOKEN_UNKNOWN = 3
    DENIED_METHOD = 4
    DENIED_ACCOUNT = 5
    DENIED_GATEWAY = 6

# Both ends are within.
cdef struct Range:
    uint64_t first
    uint64_t last

cdef struct Permit:
    # Rising, and apart from each other.
    const Range *accounts
    const Range *gateways
    uint32_t accounts_count
    uint32_t gateways_count
    # Bits by the number of a method: for orders of every gateway, and only of those above.
    uint64_t methods
    uint64_t own_methods
    char name[IDENTITY_NAME_SIZE]

# A token, or a name in a certificate, by its SHA-256.
cdef struct Key:
    uint32_t kind
    uint32_t place
    uint8_t hash[KEY_HASH_SIZE]

cdef struct Table:
    Permit *permits
    # By kind and hash, rising.
    Key *keys
    Range *ranges
    uint32_t permits_count
    uint32_t keys_count
    uint32_t users
    uint64_t generation

cdef struct Denial:
    uint64_t count
    # Since 1970, of the first; all below is of the last.
    uint64_t first_time_ns
    uint64_t time_ns
    # What it was about.
    uint64_t value
    uint32_t reason
    uint32_t method
    char identity[IDENTITY_NAME_SIZE]
    char peer[PEER_SIZE]
    # The name in a certificate that is not known.
    char shown[SHOWN_SIZE]

cdef struct Gate:
    # Of all that follows; the generation is read without it.
    pthread_mutex_t mutex
    Table *current
    uint64_t generation
    Denial denials[DENIALS_KEPT_MAX]
    uint32_t denials_count
    uint64_t denials_beyond

# Who asks, and what was not permitted: DenialReason, and the account or gateway.
cdef struct Caller:
    const Permit *permit
    uint32_t fault
    uint64_t value

# Take the table of now in the place of one that was taken before (NULL: none).
cdef Table *gate_take(Gate *gate, Table *before) noexcept nogil
cdef void gate_leave(Gate *gate, Table *table) noexcept nogil
cdef const Permit *table_find(const Table *table, const Key *key) noexcept nogil
cdef void gate_deny(Gate *gate, const Denial *denial) noexcept nogil

cdef bint ranges_have(const Range *ranges, uint32_t count, uint64_t value) noexcept nogil

cdef inline bint permit_has(const Permit *permit, uint32_t method) noexcept nogil:
    return (permit.methods | permit.own_methods) >> method & 1

cdef inline bint caller_is(Caller *caller, uint32_t method, uint64_t gateway_id) noexcept nogil:
    """Whether the caller may act as a gateway, in a method that it may call."""
    cdef const Permit *permit = caller.permit
    if permit.methods >> method & 1 or ranges_have(
        permit.gateways, permit.gateways_count, gateway_id
    ):
        return True
    caller.fault = DENIED_GATEWAY
    caller.value = gateway_id
    return False

cdef inline bint caller_reaches(Caller *caller, uint64_t account_id) noexcept nogil:
    if ranges_have(caller.permit.accounts, caller.permit.accounts_count, account_id):
        return True
    caller.fault = DENIED_ACCOUNT
    caller.value = account_id
    return False

cdef inline bint caller_reaches_all(const Caller *caller) noexcept nogil:
    """Whether there is no account that the caller may not touch."""
    cdef const Range *ranges = caller.permit.accounts
    return caller.permit.accounts_count == 1 and ranges.first == 0 and ranges.last == <uint64_t>-1

# One identity of a table, for requests that come through Python.
cdef class Permission:
    cdef Gate *gate
    cdef Table *table
    cdef const Permit *permit
    cdef object _permits

cdef class Permits:
    cdef Gate gate
