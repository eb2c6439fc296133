"""gRPC over HTTP/2 without sockets: bytes in, calls to the engine, bytes out.

A round: `session_feed` for each connection that has bytes, `front_decide` once for all whole
requests, `session_take` for each session that has something to send. docs/listener.md has the
whole picture.

Every Call comes from a pool of fixed size; a request beyond it is refused without one. Small
messages live in their Call, large ones in memory that is counted against a bound.

Sources: RFC 9113 (HTTP/2), https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md,
https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
"""

cimport cython

from libc.stdint cimport UINT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memmove, memset, strlen

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer

from riskd.core.rows import DoorRow

from riskd.core.apply cimport (
    HOT_BATCH_CHECK_ORDERS,
    HOT_CHECK_AMENDMENT,
    HOT_CHECK_ORDER,
    HOT_GET_RESERVATION,
    HOT_REPORT_EXECUTION,
)
from riskd.core.blocks cimport blocks_close, blocks_open
from riskd.core.fields cimport (
    FIELD_AUTHORITY,
    FIELD_AUTHORIZATION,
    FIELD_CONTENT_LENGTH,
    FIELD_CONTENT_TYPE,
    FIELD_GRPC_ENCODING,
    FIELD_GRPC_TIMEOUT,
    FIELD_HOST,
    FIELD_MALFORMED,
    FIELD_METHOD,
    FIELD_OTHER,
    FIELD_PATH,
    FIELD_SCHEME,
    field_is_pseudo,
    field_of,
)
from riskd.core.grpc_text cimport *
from riskd.core.histogram cimport (
    HISTOGRAM_BUCKETS,
    STAGE_CHECK,
    STAGE_DECODE,
    STAGE_ENCODE,
    STAGE_JOURNAL,
    STAGE_QUEUE,
    STAGE_RECEIVE,
    STAGE_SEND,
    STAGES,
    Histogram,
    Timer,
    clock_ns,
    count_of,
    count_one,
    histogram_add,
    histogram_row,
    sampler_start,
    sampler_takes,
    stages_add_timer,
    timer_start,
)
from riskd.core.hot cimport (
    HOT_AHEAD,
    HOT_ANSWERED,
    HOT_DENIED,
    HOT_FAILED,
    HOT_FULL,
    HOT_MALFORMED,
    HOT_TOO_LARGE,
    HotAhead,
    hot_apply,
    hot_approach,
    hot_begin,
    hot_durable,
    hot_end,
    hot_foresee,
    hot_has_failed,
    hot_sequence,
    hot_streamed_method,
)
from riskd.core.http2 cimport *
from riskd.core.money cimport debug_assert
from riskd.core.permits cimport (
    DENIED_ACCOUNT,
    DENIED_CERTIFICATE_UNKNOWN,
    DENIED_CREDENTIALS_MISSING,
    DENIED_GATEWAY,
    DENIED_METHOD,
    DENIED_NOTHING,
    DENIED_TOKEN_UNKNOWN,
    IDENTITY_NAME_SIZE,
    KEY_TOKEN,
    Caller,
    Denial,
    Permits,
    gate_deny,
    gate_leave,
    gate_take,
    permit_has,
    table_find,
)
from riskd.core.wire cimport (
    MALFORMED_TEXT_SIZE,
    Malformed,
    Writer,
    decode_streamed,
    inner_writer,
    malformed_text,
    write_bytes,
)

cdef extern from *:
    """
    #include <openssl/sha.h>
    """
    uint8_t *SHA256(const uint8_t *start, size_t size, uint8_t *hash) nogil
    uint64_t _load "__atomic_load_n"(const uint64_t *place, int order) nogil
    enum:
        _ACQUIRE "__ATOMIC_ACQUIRE"

# What a call has of the header `authorization`.
cdef enum AuthorizationState:
    AUTHORIZATION_NONE = 0
    AUTHORIZATION_TOKEN = 1
    AUTHORIZATION_INVALID = 2

cdef enum:
    # After the numbers of the engine's hot methods.
    METHOD_UNKNOWN = 0
    METHOD_HEALTH_CHECK = 32
    METHOD_HEALTH_WATCH = 33
    METHOD_STREAM_ORDERS = 34

# What is wrong with a request's headers.
cdef enum HeaderFault:
    HEADER_FAULT_NONE = 0
    HEADER_FAULT_TIMEOUT = 1
    HEADER_FAULT_ENCODING = 2
    HEADER_FAULT_TOO_LARGE = 3
    # Its stream is reset.
    HEADER_FAULT_MALFORMED = 4

# What a field says.
cdef enum Meaning:
    MEANING_NONE = 0
    MEANING_POST = 1
    MEANING_CONNECT = 2

cdef enum:
    # Of a call's fields, by bits: some field that is no pseudo-header; which there must be.
    FIELDS_REGULAR = 1 << 30
    FIELDS_REQUEST = 1 << FIELD_METHOD | 1 << FIELD_SCHEME | 1 << FIELD_PATH
    FIELDS_AUTHORITY = 1 << FIELD_AUTHORITY | 1 << FIELD_HOST
    # A larger field is looked at each time.
    KNOWN_SIZE_MAX = 512

cdef enum:
    # What is decided under one lock: orders, and one more for each so many bytes of a request. It
    # is how long others wait for the engine, of whom one may want to stop all trading.
    ROUND_WEIGHT_MAX = 256
    WEIGHT_SIZE = 128
    # Messages of a stream that are decided in one turn; more wait for the next.
    LANE_TURN_MAX = 64
    # A reply to one, in its frame.
    LANE_REPLY_SIZE_MAX = 4096
    LANE_MESSAGE_SIZE_MAX = 16384
    # A connection that sends this much of headers in one block wants no answer.
    HEADER_SIZE_HARD_MAX = 1 << 18
    # A request up to this fits with its prefix into a stream's first window (RFC 9113, 6.9.2).
    STREAM_MESSAGE_SIZE_MAX = 65535 - PREFIX_SIZE
    CONTINUATIONS_MAX = 32
    # Calls of Health/Watch, which is open to everybody.
    WATCHERS_PER_CONNECTION_MAX = 4
    CONNECTION_WINDOW_SIZE = 1 << 22
    # Memory of a large message grows by at least this.
    BUFFER_SIZE_MIN = 16384
    # RFC 9113, 6.5.2: what a header counts beyond its bytes.
    HEADER_OVERHEAD = 32
    # Frames a second that do nothing for a call. A client that measures its bandwidth pings once
    # in a round trip, but only while it gets data, and that sets the count back.
    SETTINGS_PER_S_MAX = 32
    PINGS_PER_S_MAX = 100
    PRIORITIES_PER_S_MAX = 1000
    EMPTY_FRAMES_PER_S_MAX = 1000
    WINDOW_UPDATES_PER_S_MAX = 100_000
    # Between the announcement of GOAWAY and GOAWAY: what was on its way then is still taken.
    GOAWAY_NS = 100_000_000
    HEALTH_SERVING = 1
    HEALTH_NOT_SERVING = 2
    HEALTH_SERVICE_UNKNOWN = 3
    # "Bearer " before a token.
    SCHEME_SIZE = 7

cdef uint64_t SECOND_NS = 1_000_000_000
# A connection that had its time, and its grace, is closed so long after its last statuses.
cdef uint64_t LAST_NS = 5_000_000_000
# 2^64 divided by the golden ratio: multiples of it, modulo 2^64, are spread evenly.
cdef uint64_t GOLDEN = 0x9E3779B97F4A7C15


# --- what is written of HTTP/2 headers -------------------------------------------------------

cdef inline nghttp2_nv _header(
    const char *name, size_t name_size, const void *value, size_t value_size, uint8_t flags
) noexcept nogil:
    cdef nghttp2_nv header
    header.name = <uint8_t *>name
    header.value = <uint8_t *>value
    header.namelen = name_size
    header.valuelen = value_size
    header.flags = flags
    return header


cdef inline nghttp2_nv _constant(const char *name, const char *value) noexcept nogil:
    return _header(
        name,
        strlen(name),
        value,
        strlen(value),
        <uint8_t>(NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE),
    )


cdef nghttp2_nv REPLY_HEADERS[2]
REPLY_HEADERS[0] = _constant(":status", "200")
REPLY_HEADERS[1] = _constant("content-type", "application/grpc")

cdef nghttp2_nv OK_TRAILERS[1]
OK_TRAILERS[0] = _constant("grpc-status", "0")

# The same as a frame: its size, type, flags and stream, then a literal field without indexing,
# whose name is new (RFC 7541, 6.2.2).
cdef enum:
    FRAME_FLAGS = 4
    FRAME_STREAM = 5
    FRAME_HEAD_SIZE = 9
    TRAILERS_SIZE = FRAME_HEAD_SIZE + 15

cdef const char *OK_TRAILERS_FRAME = (
    b"\x00\x00\x0f" b"\x01" b"\x05" b"\x00\x00\x00\x00" b"\x00" b"\x0bgrpc-status" b"\x010"
)

cdef const char *STATUSES[17]
STATUSES[:] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"
]


cdef const char *EXPIRED_TEXT = "the deadline had passed: nothing was done"
cdef const char *LANE_EXPIRED_TEXT = "the deadline has passed: what has no reply was not done"
cdef const char *ENDING = "CONNECTION_ENDING"
cdef const char *ENDING_TEXT = (
    "the connection has had its time, make a new one: what has no reply was not done"
)


# --- what is measured ------------------------------------------------------------------------

cdef inline void _add_stage(
    Front *front, uint32_t stage, uint64_t begun_ns, uint64_t ended_ns
) noexcept nogil:
    histogram_add(&front.gauges.stages[stage], ended_ns - begun_ns)


cdef inline void _count_status(Front *front, uint32_t method, uint32_t status) noexcept nogil:
    debug_assert(method < METHODS)
    debug_assert(status < STATUSES_COUNT)
    count_one(&front.gauges.statuses[method][status])


cdef void front_sent(Front *front) noexcept nogil:
    cdef Gauges *gauges = &front.gauges
    cdef const Departure *departure
    cdef uint64_t now_ns
    cdef uint32_t index
    if gauges.departures_count == 0:
        return
    now_ns = clock_ns()
    for index in range(gauges.departures_count):
        departure = &gauges.departures[index]
        _add_stage(front, STAGE_SEND, departure.durable_ns, now_ns)
        if departure.method < HOT_METHODS:
            histogram_add(&gauges.calls[departure.method], now_ns - departure.first_ns)
    gauges.departures_count = 0


cdef void _depart(Call *call) noexcept nogil:
    """Remember a timed call whose reply is in what is written next."""
    cdef Front *front = call.session.front
    cdef Departure *departure
    if front.gauges.departures_count == DEPARTURES_MAX:
        front_sent(front)
    departure = &front.gauges.departures[front.gauges.departures_count]
    front.gauges.departures_count += 1
    departure.first_ns = call.first_ns
    departure.durable_ns = call.last_ns
    departure.method = call.method


# --- queues and the pool ---------------------------------------------------------------------

cdef inline size_t _places(const Limits *limits) noexcept nogil:
    """Return how many calls there can be, with those that stand beside the calls in work."""
    return (
        <size_t>limits.calls_max
        + limits.lanes_max
        + <size_t>limits.connections_max * (1 + WATCHERS_PER_CONNECTION_MAX)
    )


cdef inline void _push(Queue *queue, Call *call) noexcept nogil:
    call.next = NULL
    call.previous = queue.last
    if queue.last != NULL:
        queue.last.next = call
    else:
        queue.first = call
    queue.last = call


cdef inline void _unlink(Queue *queue, Call *call) noexcept nogil:
    if call.previous != NULL:
        call.previous.next = call.next
    else:
        queue.first = call.next
    if call.next != NULL:
        call.next.previous = call.previous
    else:
        queue.last = call.previous


cdef inline Call *_call_open(Session *session, int32_t stream) noexcept nogil:
    """Return a call of the pool, or NULL.

    A connection has at most as many as are free. As calls end, n connections that want all come to
    have a part of n + 1 each, and leave one to all others (Choudhury and Hahne 1998, dynamic queue
    length thresholds). What may last for ever would keep what it got first: it has no place here.
    """
    cdef Front *front = session.front
    cdef Call *call = front.free
    if front.calls_free == 0 or session.calls_count >= front.calls_free:
        return NULL
    if call != NULL:
        front.free = call.next
    else:
        call = front.fresh
        front.fresh += 1
    debug_assert(front.fresh <= front.calls + _places(&front.limits))
    debug_assert(call.state == CALL_FREE)
    set_number(&front.calls_free, front.calls_free - 1)
    # All but the bytes of a message.
    memset(call, 0, sizeof(Call) - CALL_INLINE_SIZE)
    call.session = session
    call.stream = stream
    call.state = CALL_RECEIVING
    call.since_ns = front.now_ns
    if sampler_takes(&front.gauges.sampler):
        call.is_timed = True
        call.first_ns = clock_ns()
    call.bytes = call.inline_
    call.capacity = CALL_INLINE_SIZE
    call.session_next = session.calls
    if session.calls != NULL:
        session.calls.session_previous = call
    session.calls = call
    session.calls_count += 1
    count_one(&front.calls_begun)
    return call


cdef inline void _stand_aside(Call *call) noexcept nogil:
    """Give the place of a call that may last for ever back to the calls in work."""
    cdef Front *front = call.session.front
    debug_assert(not call.is_standing)
    call.is_standing = True
    call.session.calls_count -= 1
    set_number(&front.calls_free, front.calls_free + 1)


cdef inline Call *_call_of(Session *session, int32_t stream) noexcept nogil:
    """Return the call of a stream; NULL if it has none."""
    cdef Call *call = session.current
    if call == NULL or call.stream != stream:
        call = <Call *>nghttp2_session_get_stream_user_data(session.http, stream)
        session.current = call
    return call


cdef void _drop_bytes(Front *front, Call *call) noexcept nogil:
    if call.bytes != call.inline_:
        front.buffered_size -= call.capacity
        call.session.buffered_size -= call.capacity
        free(call.bytes)
        call.bytes = call.inline_
        call.capacity = CALL_INLINE_SIZE


cdef void _call_close(Call *call) noexcept nogil:
    cdef Session *session = call.session
    cdef Front *front = session.front
    if call.state == CALL_READY:
        _unlink(&front.ready, call)
    elif call.state == CALL_WAITING:
        _unlink(&front.waiting, call)
    if call.state == CALL_ANSWERING:
        if call.is_timed and call.sent == call.size:
            _depart(call)
    elif call.state != CALL_REFUSED and call.state != CALL_WATCHING:
        # Whoever closes a stream that was not answered has cancelled it.
        _count_status(front, call.method, GRPC_CANCELLED)
    _drop_bytes(front, call)
    if call.lane != NULL:
        set_number(&front.lanes_count, front.lanes_count - 1)
        session.lanes_count -= 1
        if session.lanes_count > 0:
            front.lanes_shared -= 1
        free(call.lane)
        call.lane = NULL
    elif call.is_standing:
        session.watchers_count -= 1
    else:
        session.calls_count -= 1
        set_number(&front.calls_free, front.calls_free + 1)
    if call.session_previous != NULL:
        call.session_previous.session_next = call.session_next
    else:
        debug_assert(session.calls == call)
        session.calls = call.session_next
    if call.session_next != NULL:
        call.session_next.session_previous = call.session_previous
    if session.current == call:
        session.current = NULL
    session.busy_ns = front.now_ns
    call.state = CALL_FREE
    call.next = front.free
    front.free = call


cdef inline uint64_t _free_size(const Front *front) noexcept nogil:
    """Return what is left of the memory of large messages: as much may one connection have."""
    if front.buffered_size >= front.limits.buffered_size_max:
        return 0
    return front.limits.buffered_size_max - front.buffered_size


cdef bint _make_room(Front *front, Call *call, uint32_t wanted, bint is_bounded) noexcept nogil:
    """Give a call bytes for so much, keeping what is there; False if there is no memory for it."""
    cdef uint32_t capacity = call.capacity
    cdef uint32_t added
    cdef uint64_t held
    cdef uint8_t *bytes_
    if wanted <= call.capacity:
        return True
    if capacity < BUFFER_SIZE_MIN:
        capacity = BUFFER_SIZE_MIN
    while capacity < wanted:
        capacity *= 2
    if is_bounded:
        # Of a request: it has the size that was announced, and no more.
        capacity = min(capacity, max(call.message_size, <uint32_t>CALL_INLINE_SIZE))
        held = call.session.buffered_size
        if call.bytes != call.inline_:
            held -= call.capacity
        if capacity + held > _free_size(front):
            return False
    bytes_ = <uint8_t *>realloc(call.bytes if call.bytes != call.inline_ else NULL, capacity)
    if bytes_ == NULL:
        return False
    added = capacity
    if call.bytes == call.inline_:
        memcpy(bytes_, call.inline_, CALL_INLINE_SIZE)
    else:
        added -= call.capacity
    front.buffered_size += added
    call.session.buffered_size += added
    call.bytes = bytes_
    call.capacity = capacity
    return True


cdef inline void _mark_dirty(Session *session) noexcept nogil:
    if not session.is_dirty:
        session.is_dirty = True
        session.dirty_next = session.front.dirty
        session.front.dirty = session


cdef Session *front_dirty(Front *front) noexcept nogil:
    cdef Session *session = front.dirty
    if session != NULL:
        front.dirty = session.dirty_next
        session.is_dirty = False
    return session


# --- answers ---------------------------------------------------------------------------------

cdef Py_ssize_t _read_watcher(Call *call, size_t size, uint32_t *flags) noexcept nogil:
    """Say what follows all that there is now for who watches: more, or the connection's end."""
    cdef Status status
    if not call.session.is_ending:
        return <Py_ssize_t>size if size > 0 else <Py_ssize_t>NGHTTP2_ERR_DEFERRED
    flags[0] = NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
    call.state = CALL_REFUSED
    _write_status(&status, GRPC_UNAVAILABLE, ENDING_TEXT, ENDING, NULL)
    if nghttp2_submit_trailer(
        call.session.http, call.stream, status.headers, status.count
    ) != 0:
        return NGHTTP2_ERR_CALLBACK_FAILURE
    return <Py_ssize_t>size


cdef Py_ssize_t _read_reply(
    nghttp2_session *http,
    int32_t stream,
    uint8_t *start,
    size_t size,
    uint32_t *flags,
    nghttp2_data_source *source,
    void *user,
) noexcept nogil:
    """Give nghttp2 the next bytes of a reply, and the trailers after the last."""
    cdef Call *call = <Call *>source.ptr
    cdef uint32_t left = call.size - call.sent
    debug_assert(call.stream == stream and call.session == user)
    # The trailers and the end are next.
    call.session.current = call
    if size > left:
        size = left
    if size == left and call.state == CALL_ANSWERING and not call.session.is_resettled:
        call.sent = call.size
        flags[0] = NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_COPY
        return <Py_ssize_t>size
    call.since_ns = call.session.front.now_ns
    memcpy(start, call.bytes + call.sent, size)
    call.sent += <uint32_t>size
    if call.sent < call.size:
        return <Py_ssize_t>size
    if call.state == CALL_WATCHING:
        return _read_watcher(call, size, flags)
    flags[0] = NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
    if nghttp2_submit_trailer(http, stream, OK_TRAILERS, 1) != 0:
        return NGHTTP2_ERR_CALLBACK_FAILURE
    return <Py_ssize_t>size


cdef int _send_end(
    nghttp2_session *http,
    nghttp2_frame *frame,
    const uint8_t *head,
    size_t size,
    nghttp2_data_source *source,
    void *user,
) noexcept nogil:
    """Write the last bytes of a reply and its trailers, as one piece.

    To nghttp2 this is a frame of DATA that ends the stream; on the wire the trailers behind it do.
    They are always the same and touch no table of HPACK, so they need no block of their own from
    nghttp2, which costs a thirteenth of a call. But a change of the table's size must be said at
    the beginning of the next block (RFC 7541, 4.2): `is_resettled` leaves that one to nghttp2.
    """
    cdef Session *session = <Session *>user
    cdef const Call *call = <const Call *>source.ptr
    cdef uint8_t *start = session.given + session.given_size
    debug_assert(call.stream == frame.hd.stream_id and call.sent == call.size)
    if session.given_capacity - session.given_size < FRAME_HEAD_SIZE + size + TRAILERS_SIZE:
        return NGHTTP2_ERR_WOULDBLOCK
    memcpy(start, head, FRAME_HEAD_SIZE)
    start[FRAME_FLAGS] = NGHTTP2_FLAG_NONE
    start += FRAME_HEAD_SIZE
    memcpy(start, call.bytes + call.size - size, size)
    start += size
    memcpy(start, OK_TRAILERS_FRAME, TRAILERS_SIZE)
    memcpy(start + FRAME_STREAM, head + FRAME_STREAM, FRAME_HEAD_SIZE - FRAME_STREAM)
    session.given_size += FRAME_HEAD_SIZE + size + TRAILERS_SIZE
    return 0


cdef void _send_reply(Call *call) noexcept nogil:
    """Send the bytes of a call, whose state says whether they are all."""
    cdef nghttp2_data_provider provider
    cdef Session *session = call.session
    debug_assert(call.state == CALL_ANSWERING or call.state == CALL_WATCHING)
    call.since_ns = session.front.now_ns
    provider.source.ptr = call
    provider.read_callback = _read_reply
    if nghttp2_submit_response(session.http, call.stream, REPLY_HEADERS, 2, &provider) != 0:
        session.is_broken = True
    count_one(&session.front.calls_answered)
    _count_status(session.front, call.method, GRPC_OK)
    _mark_dirty(session)


cdef inline void _put_prefix(uint8_t *start, uint32_t size) noexcept nogil:
    start[0] = 0
    start[1] = <uint8_t>(size >> 24)
    start[2] = <uint8_t>(size >> 16)
    start[3] = <uint8_t>(size >> 8)
    start[4] = <uint8_t>size


cdef bint _put_message(Front *front, Call *call, const uint8_t *start, size_t size) noexcept nogil:
    """Put a message in the place of the request; False if there is no memory for it."""
    cdef uint32_t total = <uint32_t>size + PREFIX_SIZE
    if not _make_room(front, call, total, False):
        return False
    _put_prefix(call.bytes, <uint32_t>size)
    memcpy(call.bytes + PREFIX_SIZE, start, size)
    call.size = total
    call.sent = 0
    return True


cdef struct Status:
    # The headers of an error, and what they point to.
    nghttp2_nv headers[4]
    size_t count
    uint8_t message[ENCODED_SIZE_MAX]
    uint8_t details[DETAILS_SIZE_MAX]


cdef void _write_status(
    Status *status, uint32_t code, const char *text, const char *reason, const Metadata *metadata
) noexcept nogil:
    cdef size_t size
    debug_assert(GRPC_OK < code < 17)
    status.headers[0] = _constant("grpc-status", STATUSES[code])
    size = encode_message(text, status.message)
    status.headers[1] = _header(
        "grpc-message", 12, status.message, size, NGHTTP2_NV_FLAG_NO_COPY_NAME
    )
    status.count = 2
    if reason != NULL:
        size = encode_details(code, text, reason, metadata, status.details)
        status.headers[2] = _header(
            "grpc-status-details-bin", 23, status.details, size, NGHTTP2_NV_FLAG_NO_COPY_NAME
        )
        status.count += 1
    if code == GRPC_UNIMPLEMENTED:
        status.headers[status.count] = _constant("grpc-accept-encoding", "identity")
        status.count += 1


cdef void _refuse_stream(
    Session *session,
    int32_t stream,
    uint32_t code,
    const char *text,
    const char *reason,
    const Metadata *metadata,
) noexcept nogil:
    """Answer a stream with a status and nothing else (Trailers-Only)."""
    cdef Status status
    cdef nghttp2_nv headers[6]
    _write_status(&status, code, text, reason, metadata)
    memcpy(headers, REPLY_HEADERS, sizeof(REPLY_HEADERS))
    memcpy(headers + 2, status.headers, status.count * sizeof(nghttp2_nv))
    if nghttp2_submit_response(session.http, stream, headers, 2 + status.count, NULL) != 0:
        session.is_broken = True
    count_one(&session.front.calls_refused)
    _mark_dirty(session)


cdef void _refuse_with(
    Call *call, uint32_t code, const char *text, const char *reason, const Metadata *metadata
) noexcept nogil:
    debug_assert(call.state == CALL_RECEIVING)
    call.state = CALL_REFUSED
    _count_status(call.session.front, call.method, code)
    _drop_bytes(call.session.front, call)
    _refuse_stream(call.session, call.stream, code, text, reason, metadata)


cdef void _refuse(Call *call, uint32_t code, const char *text, const char *reason) noexcept nogil:
    _refuse_with(call, code, text, reason, NULL)


cdef void _refuse_http(Call *call) noexcept nogil:
    """Answer what is not gRPC, with a status of HTTP alone."""
    cdef nghttp2_nv headers[1]
    debug_assert(call.state == CALL_DOOMED)
    headers[0] = _constant(":status", "415" if call.is_post else "405")
    call.state = CALL_REFUSED
    if nghttp2_submit_response(call.session.http, call.stream, headers, 1, NULL) != 0:
        call.session.is_broken = True
    count_one(&call.session.front.calls_refused)
    count_one(&call.session.front.gauges.http_refused)
    _mark_dirty(call.session)


cdef void _refuse_expired(Call *call) noexcept nogil:
    _refuse(call, GRPC_DEADLINE_EXCEEDED, EXPIRED_TEXT, NULL)


# --- health ----------------------------------------------------------------------------------

cdef bint _find_service(
    const uint8_t *request, size_t size, const uint8_t **name, size_t *name_size
) noexcept nogil:
    """Find what a HealthCheckRequest asks for; False if it is none."""
    cdef size_t index = 1
    cdef uint32_t shift = 0
    name[0] = request
    name_size[0] = 0
    if size == 0:
        return True
    # One field: service = 1, a string, which is not longer than the largest message.
    if request[0] != 0x0A:
        return False
    while index < size and shift < 32:
        name_size[0] |= <size_t>(request[index] & 0x7F) << shift
        shift += 7
        index += 1
        if request[index - 1] < 0x80:
            name[0] = request + index
            return name_size[0] == size - index
    return False


cdef uint32_t _health_of(Front *front, const uint8_t *name, size_t size) noexcept nogil:
    """Return the state of a service."""
    if (
        size > 0
        and not _is(name, size, "riskd.v1.OrderRiskService")
        and not _is(name, size, "grpc.health.v1.Health")
    ):
        return HEALTH_SERVICE_UNKNOWN
    if front.is_draining or front.has_failed:
        return HEALTH_NOT_SERVING
    return HEALTH_SERVING


cdef void _answer_health(Call *call) noexcept nogil:
    cdef Front *front = call.session.front
    cdef uint32_t health
    cdef uint8_t message[2]
    cdef char text[MESSAGE_SIZE_MAX]
    cdef const uint8_t *name
    cdef size_t size
    if not _find_service(call.bytes, call.size, &name, &size):
        _refuse(call, GRPC_INVALID_ARGUMENT, "not a HealthCheckRequest", "REQUEST_MALFORMED")
        return
    health = _health_of(front, name, size)
    if health == HEALTH_SERVICE_UNKNOWN and call.method == METHOD_HEALTH_CHECK:
        # Whatever a client calls it: on its way in a header it is encoded.
        snprintf(
            text,
            sizeof(text),
            "service %.*s is unknown",
            <int>min(size, <size_t>MESSAGE_SIZE_MAX),
            <const char *>name,
        )
        _refuse(call, GRPC_NOT_FOUND, text, NULL)
        return
    if call.method == METHOD_HEALTH_CHECK:
        call.state = CALL_ANSWERING
    elif call.session.watchers_count == WATCHERS_PER_CONNECTION_MAX:
        _refuse(
            call,
            GRPC_RESOURCE_EXHAUSTED,
            "the connection watches as often as it may",
            "STREAMS_FULL",
        )
        return
    else:
        call.state = CALL_WATCHING
        call.session.watchers_count += 1
        _stand_aside(call)
    # HealthCheckResponse.status = 1.
    message[0] = 0x08
    message[1] = <uint8_t>health
    _put_message(front, call, message, 2)
    _send_reply(call)


cdef void _tell_watchers(Session *session) noexcept nogil:
    """Say NOT_SERVING to who watches, and end these streams."""
    cdef Call *call = session.calls
    cdef uint8_t message[2]
    message[0] = 0x08
    message[1] = HEALTH_NOT_SERVING
    while call != NULL:
        if call.state == CALL_WATCHING:
            if call.sent < call.size:
                # Its last byte at least is not sent: what goes out is already the new state.
                call.bytes[call.size - 1] = HEALTH_NOT_SERVING
            else:
                _put_message(session.front, call, message, 2)
            call.state = CALL_ANSWERING
            call.since_ns = session.front.now_ns
            nghttp2_session_resume_data(session.http, call.stream)
            _mark_dirty(session)
        call = call.session_next


# --- streams of requests ---------------------------------------------------------------------

cdef inline uint32_t _size_in(const uint8_t *prefix) noexcept nogil:
    return (
        <uint32_t>prefix[1] << 24 | <uint32_t>prefix[2] << 16 | <uint32_t>prefix[3] << 8 | prefix[4]
    )


cdef inline bint _has_message(const Lane *lane) noexcept nogil:
    """Whether the first message of the input is whole, or cannot become one."""
    cdef uint32_t size
    if lane.input_size < PREFIX_SIZE:
        return False
    size = _size_in(lane.input)
    return (
        lane.input[0] != 0
        or size > LANE_MESSAGE_SIZE_MAX
        or lane.input_size - PREFIX_SIZE >= size
    )


cdef bint _make_lane_room(Lane *lane) noexcept nogil:
    """Whether the output has room for a reply, or gets it by moving what is not sent."""
    if LANE_OUTPUT_SIZE - lane.output_size >= LANE_REPLY_SIZE_MAX:
        return True
    if lane.sent_size == 0:
        return False
    memmove(lane.output, lane.output + lane.sent_size, lane.output_size - lane.sent_size)
    lane.output_size -= lane.sent_size
    lane.visible_size -= lane.sent_size
    lane.sent_size = 0
    return LANE_OUTPUT_SIZE - lane.output_size >= LANE_REPLY_SIZE_MAX


cdef void _end_lane(
    Call *call, uint32_t code, const char *text, const char *reason
) noexcept nogil:
    """Send what is visible, then the status; nothing more is decided."""
    cdef Lane *lane = call.lane
    lane.is_ended = True
    lane.output_size = lane.visible_size
    lane.code = code
    lane.reason = reason
    snprintf(lane.text, LANE_TEXT_SIZE, "%s", text)
    nghttp2_session_resume_data(call.session.http, call.stream)
    _mark_dirty(call.session)


cdef void _advance_lane(Call *call) noexcept nogil:
    """Queue a stream that can be decided, or end one that is over."""
    cdef Lane *lane = call.lane
    if call.state != CALL_STREAMING or lane.is_ended:
        return
    if call.session.is_ending:
        _end_lane(call, GRPC_UNAVAILABLE, ENDING_TEXT, ENDING)
    elif _has_message(lane):
        if _make_lane_room(lane):
            call.state = CALL_READY
            call.since_ns = call.session.front.now_ns
            _push(&call.session.front.ready, call)
    elif lane.is_half_closed:
        if lane.input_size > 0:
            _end_lane(call, GRPC_INTERNAL, "the request ends inside a message", NULL)
        else:
            _end_lane(call, GRPC_OK, "", NULL)
    elif call.session.front.is_draining:
        _end_lane(call, GRPC_UNAVAILABLE, "the service is stopping", "SERVICE_STOPPING")


cdef Py_ssize_t _read_lane(
    nghttp2_session *http,
    int32_t stream,
    uint8_t *start,
    size_t size,
    uint32_t *flags,
    nghttp2_data_source *source,
    void *user,
) noexcept nogil:
    cdef Call *call = <Call *>source.ptr
    cdef Lane *lane = call.lane
    cdef Status status
    cdef uint32_t left = lane.visible_size - lane.sent_size
    cdef int error
    debug_assert(call.stream == stream and call.session == user)
    if size > left:
        size = left
    if size > 0:
        memcpy(start, lane.output + lane.sent_size, size)
        lane.sent_size += <uint32_t>size
        lane.since_ns = call.session.front.now_ns
    if lane.sent_size == lane.output_size:
        lane.output_size = lane.visible_size = lane.sent_size = 0
    _advance_lane(call)
    if not lane.is_ended or lane.sent_size < lane.output_size:
        return <Py_ssize_t>size if size > 0 else <Py_ssize_t>NGHTTP2_ERR_DEFERRED
    flags[0] = NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
    call.state = CALL_REFUSED
    _count_status(call.session.front, call.method, lane.code)
    if lane.code == GRPC_OK:
        error = nghttp2_submit_trailer(http, stream, OK_TRAILERS, 1)
    else:
        _write_status(&status, lane.code, lane.text, lane.reason, &lane.metadata)
        error = nghttp2_submit_trailer(http, stream, status.headers, status.count)
    return NGHTTP2_ERR_CALLBACK_FAILURE if error != 0 else <Py_ssize_t>size


cdef void _open_lane(Call *call) noexcept nogil:
    """Begin a call with streams: its headers go at once, and what it answers as it comes.

    It may last for ever, so a connection always gets its first. Beyond that it has at most as many
    as are free.
    """
    cdef Session *session = call.session
    cdef Front *front = session.front
    cdef nghttp2_data_provider provider
    if session.lanes_count > front.limits.lanes_max - front.lanes_shared:
        _refuse(call, GRPC_RESOURCE_EXHAUSTED, "as many streams are open as can be", "STREAMS_FULL")
        return
    call.lane = <Lane *>calloc(1, sizeof(Lane))
    if call.lane == NULL:
        _refuse(call, GRPC_RESOURCE_EXHAUSTED, "no memory for a stream", "STREAMS_FULL")
        return
    set_number(&front.lanes_count, front.lanes_count + 1)
    if session.lanes_count > 0:
        front.lanes_shared += 1
    session.lanes_count += 1
    _stand_aside(call)
    call.state = CALL_STREAMING
    provider.source.ptr = call
    provider.read_callback = _read_lane
    if nghttp2_submit_response(session.http, call.stream, REPLY_HEADERS, 2, &provider) != 0:
        session.is_broken = True
    count_one(&front.calls_answered)
    _mark_dirty(session)


cdef void _receive_lane(Call *call, const uint8_t *start, size_t size) noexcept nogil:
    cdef Lane *lane = call.lane
    if lane.is_ended:
        nghttp2_session_consume_stream(call.session.http, call.stream, size)
        return
    # The stream's window is the room: it grows only by what was decided.
    debug_assert(size <= LANE_INPUT_SIZE - lane.input_size)
    if size > LANE_INPUT_SIZE - lane.input_size:
        call.session.is_broken = True
        return
    memcpy(lane.input + lane.input_size, start, size)
    lane.input_size += <uint32_t>size
    _advance_lane(call)


# --- who may ---------------------------------------------------------------------------------

cdef const char *_method_name(uint32_t method) noexcept nogil:
    if method == HOT_CHECK_ORDER:
        return "riskd.v1.OrderRiskService/CheckOrder"
    if method == HOT_BATCH_CHECK_ORDERS:
        return "riskd.v1.OrderRiskService/BatchCheckOrders"
    if method == HOT_REPORT_EXECUTION:
        return "riskd.v1.OrderRiskService/ReportExecution"
    if method == HOT_CHECK_AMENDMENT:
        return "riskd.v1.OrderRiskService/CheckAmendment"
    if method == HOT_GET_RESERVATION:
        return "riskd.v1.OrderRiskService/GetReservation"
    debug_assert(method == METHOD_STREAM_ORDERS)
    return "riskd.v1.OrderRiskService/StreamOrders"


cdef bint _is_bearer(const uint8_t *value) noexcept nogil:
    """Whether a header begins with "Bearer ", in letters of either case."""
    cdef const uint8_t *scheme = <const uint8_t *><const char *>"bearer "
    cdef int index
    for index in range(SCHEME_SIZE):
        if (value[index] | 0x20) != scheme[index]:
            return False
    return value[SCHEME_SIZE - 1] == c" "


cdef bint _is_last_token(const Session *session, const uint8_t *value, size_t size) noexcept nogil:
    """Compare with the header of the last call, in a time that does not tell how much is alike.

    A proxy may send the calls of several clients over one connection.
    """
    cdef uint8_t difference = 0
    cdef size_t index
    if size != session.authorization_size:
        return False
    for index in range(size):
        difference |= session.authorization[index] ^ value[index]
    return difference == 0


cdef void _take_authorization(Call *call, const uint8_t *value, size_t size) noexcept nogil:
    cdef Session *session = call.session
    cdef const Table *table = session.front.table
    if (
        call.authorization != AUTHORIZATION_NONE
        or size <= SCHEME_SIZE
        or size > AUTHORIZATION_SIZE_MAX
        or not _is_bearer(value)
    ):
        call.authorization = AUTHORIZATION_INVALID
        # A header before it may have named one, of a table that can be gone by then.
        call.permit = NULL
        return
    if not _is_last_token(session, value, size):
        session.authorization_size = <uint32_t>size
        memcpy(session.authorization, value, size)
        session.token.kind = KEY_TOKEN
        SHA256(value + SCHEME_SIZE, size - SCHEME_SIZE, session.token.hash)
        session.token_permit = table_find(table, &session.token)
        session.token_generation = table.generation
    elif session.token_generation != table.generation:
        session.token_permit = table_find(table, &session.token)
        session.token_generation = table.generation
    call.authorization = AUTHORIZATION_TOKEN
    call.token = session.token
    call.permit = session.token_permit
    call.generation = table.generation


cdef const Permit *_certificate_permit(Session *session) noexcept nogil:
    cdef const Table *table = session.front.table
    cdef uint32_t index
    if session.generation != table.generation:
        session.generation = table.generation
        session.permit = NULL
        for index in range(session.keys_count):
            session.permit = table_find(table, &session.keys[index])
            if session.permit != NULL:
                break
    return session.permit


cdef uint32_t _denial_of(Call *call) noexcept nogil:
    """Return why a caller may not call its method, by the table of now; DENIED_NOTHING if it may.

    A token, if there is one, says alone who calls.
    """
    cdef const Table *table = call.session.front.table
    if call.authorization == AUTHORIZATION_INVALID:
        return DENIED_TOKEN_UNKNOWN
    if call.authorization == AUTHORIZATION_NONE:
        call.permit = _certificate_permit(call.session)
    elif call.generation != table.generation:
        call.permit = table_find(table, &call.token)
    call.generation = table.generation
    if call.permit != NULL:
        return DENIED_NOTHING if permit_has(call.permit, call.method) else DENIED_METHOD
    if call.authorization == AUTHORIZATION_TOKEN:
        return DENIED_TOKEN_UNKNOWN
    if call.session.keys_count > 0 or call.session.shown[0] != 0:
        return DENIED_CERTIFICATE_UNKNOWN
    return DENIED_CREDENTIALS_MISSING


cdef void _count_denial(Call *call, uint32_t reason, uint64_t value) noexcept nogil:
    cdef Session *session = call.session
    cdef Denial denial
    memset(&denial, 0, sizeof(Denial))
    denial.time_ns = session.front.time_ns
    denial.value = value
    denial.reason = reason
    denial.method = call.method
    memcpy(denial.peer, session.peer, PEER_SIZE)
    if call.permit != NULL:
        memcpy(denial.identity, call.permit.name, IDENTITY_NAME_SIZE)
    elif reason == DENIED_CERTIFICATE_UNKNOWN:
        memcpy(denial.shown, session.shown, SHOWN_SIZE)
    gate_deny(session.front.gate, &denial)


cdef void _deny(Call *call, uint32_t reason, uint64_t value) noexcept nogil:
    """Refuse a call that has come, or that is ready, and count it.

    The words are those of riskd/guard.py.
    """
    cdef Front *front = call.session.front
    cdef const char *method = _method_name(call.method)
    cdef const char *identity = ""
    cdef char text[LANE_TEXT_SIZE]
    cdef char number[24]
    cdef const char *name = NULL
    cdef uint32_t code = GRPC_PERMISSION_DENIED
    cdef Metadata metadata
    if call.permit != NULL:
        identity = &call.permit.name[0]
    metadata.count = 0
    _count_denial(call, reason, value)
    snprintf(number, sizeof(number), "%llu", <unsigned long long>value)
    if reason == DENIED_METHOD:
        name = "METHOD_NOT_PERMITTED"
        snprintf(text, sizeof(text), "identity %s may not call %s", identity, method)
    elif reason == DENIED_ACCOUNT:
        name = "ACCOUNT_NOT_PERMITTED"
        snprintf(text, sizeof(text), "identity %s may not touch account_id %s", identity, number)
        metadata_add(&metadata, "account_id", number)
    elif reason == DENIED_GATEWAY:
        name = "GATEWAY_NOT_PERMITTED"
        snprintf(text, sizeof(text), "identity %s may not act as gateway_id %s", identity, number)
        metadata_add(&metadata, "gateway_id", number)
    else:
        code = GRPC_UNAUTHENTICATED
        if reason == DENIED_TOKEN_UNKNOWN:
            name = "TOKEN_UNKNOWN"
            snprintf(text, sizeof(text), "the bearer token is of no identity")
        elif reason == DENIED_CERTIFICATE_UNKNOWN:
            name = "CERTIFICATE_UNKNOWN"
            snprintf(text, sizeof(text), "the client's certificate is of no identity")
        else:
            debug_assert(reason == DENIED_CREDENTIALS_MISSING)
            name = "CREDENTIALS_MISSING"
            snprintf(text, sizeof(text), "the call has neither a bearer token nor a certificate")
    if code == GRPC_PERMISSION_DENIED:
        metadata_add(&metadata, "identity", identity)
    metadata_add(&metadata, "method", method)
    if call.state == CALL_READY:
        _unlink(&front.ready, call)
        call.state = CALL_RECEIVING if call.lane == NULL else CALL_STREAMING
    if call.lane != NULL:
        call.lane.metadata = metadata
        _end_lane(call, code, text, name)
    else:
        _refuse_with(call, code, text, name, &metadata)


cdef inline bint _is_admitted(Call *call) noexcept nogil:
    """Whether a call may be made at all: it is denied if not. Health is for everybody."""
    cdef uint32_t reason
    if call.session.front.gate == NULL or call.method == METHOD_HEALTH_CHECK or (
        call.method == METHOD_HEALTH_WATCH
    ):
        return True
    reason = _denial_of(call)
    if reason == DENIED_NOTHING:
        return True
    _deny(call, reason, 0)
    return False


cdef inline bint _asks(Call *call, Caller *caller) noexcept nogil:
    """Say who asks what is ready; False if that may not be any more, and is denied."""
    if call.generation != call.session.front.table.generation and not _is_admitted(call):
        return False
    caller.permit = call.permit
    return True


cdef void front_guard(Front *front, Gate *gate) noexcept nogil:
    front.gate = gate
    front.table = gate_take(gate, NULL)


cdef void front_look(Front *front) noexcept nogil:
    if front.gate != NULL and _load(&front.gate.generation, _ACQUIRE) != front.table.generation:
        front.table = gate_take(front.gate, front.table)


# --- requests --------------------------------------------------------------------------------

cdef inline bint _is(const uint8_t *start, size_t size, const char *text) noexcept nogil:
    return size == strlen(text) and memcmp(start, text, size) == 0


cdef uint32_t _method_of(const uint8_t *path, size_t size) noexcept nogil:
    if _is(path, size, "/riskd.v1.OrderRiskService/CheckOrder"):
        return HOT_CHECK_ORDER
    if _is(path, size, "/riskd.v1.OrderRiskService/BatchCheckOrders"):
        return HOT_BATCH_CHECK_ORDERS
    if _is(path, size, "/riskd.v1.OrderRiskService/ReportExecution"):
        return HOT_REPORT_EXECUTION
    if _is(path, size, "/riskd.v1.OrderRiskService/CheckAmendment"):
        return HOT_CHECK_AMENDMENT
    if _is(path, size, "/riskd.v1.OrderRiskService/GetReservation"):
        return HOT_GET_RESERVATION
    if _is(path, size, "/riskd.v1.OrderRiskService/StreamOrders"):
        return METHOD_STREAM_ORDERS
    if _is(path, size, "/grpc.health.v1.Health/Check"):
        return METHOD_HEALTH_CHECK
    if _is(path, size, "/grpc.health.v1.Health/Watch"):
        return METHOD_HEALTH_WATCH
    return METHOD_UNKNOWN


cdef bint _is_grpc(const uint8_t *value, size_t size) noexcept nogil:
    """Whether a content type is that of gRPC with protobuf."""
    if size < 16 or memcmp(value, <const char *>"application/grpc", 16) != 0:
        return False
    value += 16
    size -= 16
    if size >= 6 and memcmp(value, <const char *>"+proto", 6) == 0:
        value += 6
        size -= 6
    return size == 0 or value[0] == c";"


cdef bint _may_open(Session *session, int64_t stream) noexcept nogil:
    """Note which streams the client opens; False for one that it has skipped (RFC 9113, 5.1.1).

    nghttp2 takes that for a closed one. Older streams than the 64 below the newest are not known.
    """
    cdef int64_t steps = (stream - session.newest_stream) // 2
    if stream % 2 == 0:
        # None of a client's: nghttp2 says so.
        return True
    if steps > 0:
        session.newest_stream = stream
        session.opened = (session.opened << steps if steps < 64 else 0) | 1
        return True
    return steps <= -64 or (session.opened >> -steps) & 1


cdef int _on_begin_frame(
    nghttp2_session *http, const nghttp2_frame_hd *head, void *user
) noexcept nogil:
    """Count frames before their content costs anything; a block of headers has few."""
    cdef Session *session = <Session *>user
    if head.type == NGHTTP2_HEADERS and not _may_open(session, head.stream_id):
        nghttp2_session_terminate_session(http, NGHTTP2_PROTOCOL_ERROR)
    if head.type != NGHTTP2_CONTINUATION:
        session.continuations = 0
        return 0
    session.continuations += 1
    if session.continuations <= CONTINUATIONS_MAX:
        return 0
    count_one(&session.front.sessions_abused)
    return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int _on_begin_headers(
    nghttp2_session *http, const nghttp2_frame *frame, void *user
) noexcept nogil:
    cdef Session *session = <Session *>user
    cdef Call *call
    session.headers_size = 0
    if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0
    call = _call_open(session, frame.hd.stream_id)
    session.current = call
    if call != NULL:
        nghttp2_session_set_stream_user_data(http, frame.hd.stream_id, call)
    return 0


cdef inline bint _count_header(Session *session, size_t size) noexcept nogil:
    """Whether a block of headers may go on, whoever's it is and whatever is in it.

    An index of a byte can stand for a header of 4 KiB, which is read again each time.
    """
    if session.headers_size + size > HEADER_SIZE_HARD_MAX:
        count_one(&session.front.sessions_abused)
        return False
    session.headers_size += <uint32_t>size
    return True


cdef uint32_t _meaning_of(uint32_t field, const uint8_t *value, size_t size) noexcept nogil:
    if field == FIELD_PATH:
        return _method_of(value, size)
    if field == FIELD_METHOD:
        if _is(value, size, "POST"):
            return MEANING_POST
        return MEANING_CONNECT if _is(value, size, "CONNECT") else MEANING_NONE
    if field == FIELD_CONTENT_TYPE:
        return <uint32_t>_is_grpc(value, size)
    if field == FIELD_GRPC_ENCODING:
        return <uint32_t>_is(value, size, "identity")
    return MEANING_NONE


cdef const Known *_learn(
    Session *session, nghttp2_rcbuf *name, nghttp2_rcbuf *value
) noexcept nogil:
    """Look at a field that is not known, and remember it unless it is large or read each time."""
    cdef nghttp2_vec name_bytes = nghttp2_rcbuf_get_buf(name)
    cdef nghttp2_vec value_bytes = nghttp2_rcbuf_get_buf(value)
    cdef size_t size = name_bytes.len + value_bytes.len + HEADER_OVERHEAD
    cdef uint32_t field = field_of(
        name_bytes.base, name_bytes.len, value_bytes.base, value_bytes.len
    )
    cdef Known *known = &session.unknown
    if size <= KNOWN_SIZE_MAX and (
        FIELD_OTHER <= field <= FIELD_HOST
        or field == FIELD_CONTENT_TYPE
        or field == FIELD_GRPC_ENCODING
    ):
        known = &session.known[session.known_oldest]
        session.known_oldest = (session.known_oldest + 1) % KNOWN_MAX
        nghttp2_rcbuf_incref(name)
        nghttp2_rcbuf_incref(value)
        nghttp2_rcbuf_decref(known.name)
        nghttp2_rcbuf_decref(known.value)
        known.name = name
        known.value = value
    known.field = field
    # nghttp2 takes at most 64 KiB of a name or a value.
    known.size = <uint32_t>size
    known.meaning = _meaning_of(field, value_bytes.base, value_bytes.len)
    return known


cdef inline const Known *_look(
    Session *session, nghttp2_rcbuf *name, nghttp2_rcbuf *value
) noexcept nogil:
    """Return what a field is; most often the one that came after the last before, too."""
    cdef uint32_t index = session.known_next
    cdef const Known *known
    cdef uint32_t _tried
    for _tried in range(<uint32_t>KNOWN_MAX):
        known = &session.known[index]
        index = (index + 1) % KNOWN_MAX
        if known.value == value and known.name == name:
            session.known_next = index
            return known
    return _learn(session, name, value)


cdef void _reset_malformed(Call *call) noexcept nogil:
    """A malformed request is an error of its stream (RFC 9113, 8.1.1)."""
    cdef Session *session = call.session
    if call.fault == HEADER_FAULT_MALFORMED:
        return
    call.fault = HEADER_FAULT_MALFORMED
    if call.state == CALL_RECEIVING or call.state == CALL_DOOMED:
        call.state = CALL_REFUSED
        _count_status(session.front, call.method, GRPC_INTERNAL)
    nghttp2_submit_rst_stream(
        session.http, NGHTTP2_FLAG_NONE, call.stream, NGHTTP2_PROTOCOL_ERROR
    )
    _mark_dirty(session)


cdef bint _take_length(Call *call, const uint8_t *value, size_t size) noexcept nogil:
    """Take a content-length; False if it is none."""
    cdef size_t index
    if size == 0 or size > 18:
        return False
    for index in range(size):
        if value[index] < c"0" or value[index] > c"9":
            return False
        call.announced_size = 10 * call.announced_size + value[index] - c"0"
    return True


cdef void _take_value(Call *call, uint32_t field, nghttp2_vec value) noexcept nogil:
    """Take a field that is read each time."""
    cdef uint64_t timeout_ns = 0
    if field == FIELD_GRPC_TIMEOUT:
        if not parse_timeout(value.base, value.len, &timeout_ns):
            call.fault = HEADER_FAULT_TIMEOUT
        call.deadline_ns = call.session.front.now_ns + timeout_ns
        call.is_due = timeout_ns == 0
    elif field == FIELD_AUTHORIZATION:
        if call.session.front.gate != NULL:
            _take_authorization(call, value.base, value.len)
    elif field == FIELD_CONTENT_LENGTH:
        if not _take_length(call, value.base, value.len):
            _reset_malformed(call)


cdef inline bint _is_in_order(Call *call, uint32_t field, bint is_trailer) noexcept nogil:
    """Note that a field came; False if it may not come here, or not again."""
    cdef uint32_t seen = call.fields
    cdef uint32_t bit = <uint32_t>1 << field
    call.fields |= bit
    if field_is_pseudo(field):
        return not is_trailer and seen & (bit | FIELDS_REGULAR) == 0
    call.fields |= FIELDS_REGULAR
    if field == FIELD_HOST or field == FIELD_CONTENT_LENGTH:
        return not seen & bit
    return field != FIELD_MALFORMED


cdef int _on_header(
    nghttp2_session *http,
    const nghttp2_frame *frame,
    nghttp2_rcbuf *name,
    nghttp2_rcbuf *value,
    uint8_t flags,
    void *user,
) noexcept nogil:
    cdef Session *session = <Session *>user
    cdef Call *call = _call_of(session, frame.hd.stream_id)
    cdef bint is_trailer = frame.headers.cat != NGHTTP2_HCAT_REQUEST
    cdef const Known *known = _look(session, name, value)
    if not _count_header(session, known.size):
        return NGHTTP2_ERR_CALLBACK_FAILURE
    if call == NULL:
        return 0
    call.header_size += known.size
    if not _is_in_order(call, known.field, is_trailer):
        _reset_malformed(call)
    if call.header_size > session.front.limits.header_size_max and (
        call.fault != HEADER_FAULT_MALFORMED
    ):
        call.fault = HEADER_FAULT_TOO_LARGE
        return 0
    # Trailers of a request say nothing.
    if is_trailer or call.fault == HEADER_FAULT_MALFORMED or known.field == FIELD_OTHER:
        return 0
    if known.field == FIELD_PATH:
        call.method = known.meaning
    elif known.field == FIELD_METHOD:
        call.is_post = known.meaning == MEANING_POST
        call.is_connect = known.meaning == MEANING_CONNECT
    elif known.field == FIELD_CONTENT_TYPE:
        call.has_content_type = known.meaning != MEANING_NONE
    elif known.field == FIELD_GRPC_ENCODING:
        if known.meaning == MEANING_NONE:
            call.fault = HEADER_FAULT_ENCODING
    elif known == &session.unknown:
        _take_value(call, known.field, nghttp2_rcbuf_get_buf(value))
    return 0


cdef inline bint _has_its_fields(const Call *call) noexcept nogil:
    """Whether the fields came that every request has (RFC 9113, 8.3.1 and 8.5)."""
    if call.is_connect:
        return call.fields & FIELDS_REQUEST == 1 << FIELD_METHOD and (
            call.fields & FIELDS_AUTHORITY != 0
        )
    return call.fields & FIELDS_REQUEST == FIELDS_REQUEST and call.fields & FIELDS_AUTHORITY != 0


cdef void _begin(Call *call) noexcept nogil:
    """Look at the headers of a call, all of which have come."""
    cdef Front *front = call.session.front
    if call.fault == HEADER_FAULT_MALFORMED:
        return
    if call.fault == HEADER_FAULT_TOO_LARGE:
        _refuse(call, GRPC_RESOURCE_EXHAUSTED, "the request's metadata is too large", NULL)
    elif not call.is_post or not call.has_content_type:
        # It is answered at its end, so that the rest of it is still held against HTTP/2's rules.
        call.state = CALL_DOOMED
    elif call.method == METHOD_UNKNOWN:
        _refuse(call, GRPC_UNIMPLEMENTED, "unknown service or method", NULL)
    elif call.fault == HEADER_FAULT_TIMEOUT:
        _refuse(call, GRPC_INTERNAL, "grpc-timeout is malformed", NULL)
    elif call.fault == HEADER_FAULT_ENCODING:
        _refuse(call, GRPC_UNIMPLEMENTED, "grpc-encoding is not supported: use identity", NULL)
    elif call.is_due:
        _refuse_expired(call)
    elif front.is_draining and call.session.has_goaway:
        _refuse(call, GRPC_UNAVAILABLE, "the service is stopping", "SERVICE_STOPPING")
    elif not _is_admitted(call):
        return
    elif call.method == METHOD_STREAM_ORDERS:
        _open_lane(call)


cdef bint _begin_message(Call *call) noexcept nogil:
    """Look at the five bytes before a message; False if the call is refused for them."""
    cdef Front *front = call.session.front
    cdef char text[MESSAGE_SIZE_MAX]
    cdef uint32_t size = _size_in(call.prefix)
    if call.prefix[0] == 1:
        # Identity was named or nothing: else the headers would have been refused.
        _refuse(call, GRPC_INTERNAL, "a message is compressed, without a grpc-encoding", NULL)
        return False
    if call.prefix[0] != 0:
        _refuse(call, GRPC_INTERNAL, "a message's first byte is neither 0 nor 1", NULL)
        return False
    if size > front.limits.message_size_max:
        snprintf(
            text, MESSAGE_SIZE_MAX, "request of %u bytes exceeds %u",
            size, front.limits.message_size_max,
        )
        _refuse(call, GRPC_RESOURCE_EXHAUSTED, text, NULL)
        return False
    call.message_size = size
    return True


cdef void _receive(Call *call, const uint8_t *start, size_t size) noexcept nogil:
    """Take bytes of a request."""
    cdef Front *front = call.session.front
    cdef size_t part
    while size > 0 and call.state == CALL_RECEIVING:
        if call.prefix_size < PREFIX_SIZE:
            part = min(size, <size_t>PREFIX_SIZE - call.prefix_size)
            memcpy(call.prefix + call.prefix_size, start, part)
            call.prefix_size += <uint32_t>part
            if call.prefix_size == PREFIX_SIZE and not _begin_message(call):
                return
        else:
            part = min(size, <size_t>call.message_size - call.size)
            if part == 0:
                _refuse(call, GRPC_UNIMPLEMENTED, "the call has several request messages", NULL)
                return
            if not _make_room(front, call, call.size + <uint32_t>part, True):
                _refuse(
                    call, GRPC_RESOURCE_EXHAUSTED, "no room for a large request now", "CALLS_FULL"
                )
                return
            memcpy(call.bytes + call.size, start, part)
            call.size += <uint32_t>part
        start += part
        size -= part


cdef void _complete(Call *call) noexcept nogil:
    """The client has sent all that it will."""
    if call.lane != NULL:
        call.lane.is_half_closed = True
        _advance_lane(call)
        return
    if call.state == CALL_DOOMED:
        _refuse_http(call)
    if call.state != CALL_RECEIVING:
        return
    if call.prefix_size == 0:
        _refuse(call, GRPC_UNIMPLEMENTED, "the call has no request message", NULL)
    elif call.prefix_size < PREFIX_SIZE or call.size < call.message_size:
        _refuse(call, GRPC_INTERNAL, "the request ends inside a message", NULL)
    elif call.method == METHOD_HEALTH_CHECK or call.method == METHOD_HEALTH_WATCH:
        _answer_health(call)
    else:
        call.state = CALL_READY
        call.since_ns = call.session.front.now_ns
        _push(&call.session.front.ready, call)
        if call.is_timed:
            call.last_ns = clock_ns()
            _add_stage(call.session.front, STAGE_RECEIVE, call.first_ns, call.last_ns)


cdef bint _is_flood(Session *session, const nghttp2_frame *frame) noexcept nogil:
    """Count a frame; True if there were too many of its kind within a second."""
    cdef Front *front = session.front
    cdef uint32_t kind = frame.hd.type
    cdef uint32_t count
    if front.now_ns - session.second_ns >= SECOND_NS:
        session.second_ns = front.now_ns
        session.empty_frames = 0
        memset(session.frames, 0, sizeof(session.frames))
    if kind == NGHTTP2_DATA:
        if frame.hd.length == 0 and not frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            session.empty_frames += 1
        return session.empty_frames > EMPTY_FRAMES_PER_S_MAX
    if kind >= FRAME_TYPES or kind == NGHTTP2_HEADERS:
        return False
    session.frames[kind % FRAME_TYPES] += 1
    count = session.frames[kind % FRAME_TYPES]
    if kind == NGHTTP2_RST_STREAM:
        count_one(&front.gauges.resets)
        return count > front.limits.resets_per_s_max
    if kind == NGHTTP2_PING:
        return count > PINGS_PER_S_MAX
    if kind == NGHTTP2_SETTINGS:
        return count > SETTINGS_PER_S_MAX
    if kind == NGHTTP2_PRIORITY:
        return count > PRIORITIES_PER_S_MAX
    return kind == NGHTTP2_WINDOW_UPDATE and count > WINDOW_UPDATES_PER_S_MAX


cdef int _on_frame(nghttp2_session *http, const nghttp2_frame *frame, void *user) noexcept nogil:
    cdef Session *session = <Session *>user
    cdef Call *call
    session.has_begun = True
    if _is_flood(session, frame):
        count_one(&session.front.sessions_abused)
        nghttp2_session_terminate_session(http, NGHTTP2_ENHANCE_YOUR_CALM)
        return 0
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        if frame.hd.type == NGHTTP2_SETTINGS and not frame.hd.flags & NGHTTP2_FLAG_ACK:
            session.is_resettled = True
        return 0
    call = _call_of(session, frame.hd.stream_id)
    if frame.hd.type == NGHTTP2_HEADERS and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
        if call == NULL:
            count_one(&session.front.calls_overloaded)
            _count_status(session.front, METHOD_UNKNOWN, GRPC_RESOURCE_EXHAUSTED)
            _refuse_stream(
                session,
                frame.hd.stream_id,
                GRPC_RESOURCE_EXHAUSTED,
                "as many calls are in work as can be: nothing was done",
                "CALLS_FULL",
                NULL,
            )
            return 0
        if _has_its_fields(call):
            _begin(call)
        else:
            _reset_malformed(call)
    elif frame.hd.type == NGHTTP2_HEADERS and call != NULL:
        if not frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            # Trailers are the end (RFC 9113, 8.1).
            _reset_malformed(call)
    if call != NULL and frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        call.is_whole = True
        if call.fields & 1 << FIELD_CONTENT_LENGTH and call.body_size != call.announced_size:
            _reset_malformed(call)
        if call.fault != HEADER_FAULT_MALFORMED:
            _complete(call)
    return 0


cdef int _on_data(
    nghttp2_session *http,
    uint8_t flags,
    int32_t stream,
    const uint8_t *start,
    size_t size,
    void *user,
) noexcept nogil:
    cdef Call *call = _call_of(<Session *>user, stream)
    if call != NULL:
        call.body_size += size
        if call.fields & 1 << FIELD_CONTENT_LENGTH and call.body_size > call.announced_size:
            _reset_malformed(call)
    if call != NULL and call.lane != NULL:
        # One stream that waits must not keep the others of its connection from coming.
        _receive_lane(call, start, size)
        return nghttp2_session_consume_connection(http, size)
    if call != NULL:
        _receive(call, start, size)
        if call.state == CALL_RECEIVING and call.message_size <= STREAM_MESSAGE_SIZE_MAX:
            return nghttp2_session_consume_connection(http, size)
    # A request has its room, or is thrown away: both make the window free again.
    return nghttp2_session_consume(http, stream, size)


cdef int _on_close(
    nghttp2_session *http, int32_t stream, uint32_t error, void *user
) noexcept nogil:
    cdef Call *call = _call_of(<Session *>user, stream)
    if call != NULL:
        _call_close(call)
    return 0


cdef int _on_sent(nghttp2_session *http, const nghttp2_frame *frame, void *user) noexcept nogil:
    cdef Session *session = <Session *>user
    cdef const Call *call
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        return 0
    # A client that is answered may well ask whether the line is still as fast.
    session.frames[<uint32_t>NGHTTP2_PING] = 0
    if frame.hd.type == NGHTTP2_HEADERS:
        session.is_resettled = False
    if frame.hd.flags & NGHTTP2_FLAG_END_STREAM == 0:
        return 0
    call = _call_of(session, frame.hd.stream_id)
    if call != NULL and call.is_whole:
        return 0
    if nghttp2_session_get_stream_remote_close(http, frame.hd.stream_id) == 0:
        # RFC 9113, 8.1: the answer is whole, the rest of the request is not wanted.
        return nghttp2_submit_rst_stream(
            http, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR
        )
    return 0


# --- rounds ----------------------------------------------------------------------------------

cdef void _refuse_queued(
    Queue *queue, Call *call, uint32_t code, const char *text, const char *reason
) noexcept nogil:
    _unlink(queue, call)
    if call.lane != NULL:
        call.state = CALL_STREAMING
        _end_lane(call, code, text, reason)
        return
    call.state = CALL_RECEIVING
    _refuse(call, code, text, reason)


cdef void _refuse_verdict(
    Front *front, Call *call, uint32_t verdict, const Malformed *malformed, const Caller *caller
) noexcept nogil:
    """Refuse a ready call for what the engine said of it."""
    cdef char text[MALFORMED_TEXT_SIZE]
    if verdict == HOT_DENIED:
        _deny(call, caller.fault, caller.value)
    elif verdict == HOT_MALFORMED:
        malformed_text(malformed, text)
        _refuse_queued(&front.ready, call, GRPC_INVALID_ARGUMENT, text, "REQUEST_MALFORMED")
    elif verdict == HOT_TOO_LARGE:
        _refuse_queued(
            &front.ready, call, GRPC_INVALID_ARGUMENT, "the request is too large to be recorded",
            "REQUEST_MALFORMED",
        )
    else:
        debug_assert(verdict == HOT_FULL)
        _refuse_queued(
            &front.ready, call, GRPC_RESOURCE_EXHAUSTED,
            "nothing was done: the journal's buffer was full for too long", "JOURNAL_FULL",
        )


cdef uint32_t _decide_message(
    Front *front, Call *call, Caller *caller, Malformed *malformed
) noexcept nogil:
    """Decide the first message of a stream, and put its reply behind the others."""
    cdef Lane *lane = call.lane
    cdef uint32_t size = _size_in(lane.input)
    cdef uint32_t verdict, method, field
    cdef const uint8_t *request
    cdef size_t request_size
    cdef Writer writer = inner_writer(front.reply, REPLY_SIZE_MAX)
    cdef Writer framed = inner_writer(
        lane.output + lane.output_size + PREFIX_SIZE,
        LANE_OUTPUT_SIZE - lane.output_size - PREFIX_SIZE,
    )
    cdef Timer timer
    front.round_weight += 1
    if not decode_streamed(
        lane.input + PREFIX_SIZE, size, &field, &request, &request_size, malformed
    ):
        return HOT_MALFORMED
    method = hot_streamed_method(field)
    if sampler_takes(&front.gauges.sampler):
        timer_start(&timer)
        writer.timer = &timer
    verdict = hot_apply(
        &front.door, method, request, request_size, front.time_ns, caller, &writer, malformed
    )
    if verdict != HOT_ANSWERED:
        return verdict
    if writer.timer != NULL:
        stages_add_timer(front.gauges.stages, &timer)
    count_one(&front.gauges.messages_streamed)
    write_bytes(&framed, field, writer.start, writer.size)
    _put_prefix(lane.output + lane.output_size, <uint32_t>framed.size)
    lane.output_size += PREFIX_SIZE + <uint32_t>framed.size
    size += PREFIX_SIZE
    lane.input_size -= size
    memmove(lane.input, lane.input + size, lane.input_size)
    nghttp2_session_consume_stream(call.session.http, call.stream, size)
    _mark_dirty(call.session)
    return HOT_ANSWERED


cdef bint _decide_lane(Front *front, Call *call) noexcept nogil:
    """Take a turn of a stream, in the order of its messages; False as `_decide`."""
    cdef Lane *lane = call.lane
    cdef Malformed malformed
    cdef Caller caller
    cdef Caller *asking = NULL if front.gate == NULL else &caller
    cdef uint32_t verdict = HOT_ANSWERED
    cdef uint32_t decided = 0
    if asking != NULL and not _asks(call, asking):
        return True
    while _has_message(lane) and _make_lane_room(lane) and decided < LANE_TURN_MAX:
        if lane.input[0] != 0 or _size_in(lane.input) > LANE_MESSAGE_SIZE_MAX:
            break
        verdict = _decide_message(front, call, asking, &malformed)
        if verdict != HOT_ANSWERED:
            break
        decided += 1
    if verdict == HOT_FAILED:
        front.has_failed = True
        return False
    if decided > 0:
        # What stopped it is looked at again in its next turn, after these replies.
        _unlink(&front.ready, call)
        call.state = CALL_WAITING
        call.sequence = hot_sequence(&front.door)
        _push(&front.waiting, call)
        return verdict != HOT_FULL
    if verdict == HOT_FULL and front.now_ns - call.since_ns < front.limits.room_wait_ns:
        return False
    if verdict != HOT_ANSWERED:
        _refuse_verdict(front, call, verdict, &malformed, &caller)
    elif lane.input[0] != 0:
        _refuse_queued(
            &front.ready, call, GRPC_INTERNAL, "a message is compressed, without a grpc-encoding",
            NULL,
        )
    else:
        _refuse_queued(
            &front.ready, call, GRPC_RESOURCE_EXHAUSTED,
            "a message of a stream exceeds 16384 bytes", NULL,
        )
    return True


cdef inline uint64_t _others_size(const Call *call) noexcept nogil:
    """Return what the other calls of its connection have of the memory of large messages."""
    cdef uint64_t size = call.session.buffered_size
    return size if call.bytes == call.inline_ else size - call.capacity


cdef bint _decide(Front *front, Call *call) noexcept nogil:
    """Decide the first ready call; False if the journal has no room for it now."""
    cdef Malformed malformed
    cdef Caller caller
    cdef Caller *asking = NULL if front.gate == NULL else &caller
    cdef Timer timer
    cdef Writer writer = inner_writer(front.reply, REPLY_SIZE_MAX)
    cdef uint32_t verdict
    debug_assert(call.state == CALL_READY)
    front.round_weight += 1 + call.size // WEIGHT_SIZE
    if call.deadline_ns != 0 and call.deadline_ns <= front.now_ns:
        _refuse_queued(
            &front.ready, call, GRPC_DEADLINE_EXCEEDED,
            EXPIRED_TEXT if call.lane == NULL else LANE_EXPIRED_TEXT, NULL,
        )
        return True
    if call.lane != NULL:
        return _decide_lane(front, call)
    if _others_size(call) > _free_size(front):
        # Replies that a client does not take may not fill the memory, nor keep others waiting.
        _refuse_queued(
            &front.ready, call, GRPC_RESOURCE_EXHAUSTED,
            "the connection's replies are not taken: nothing was done", "CALLS_FULL",
        )
        return True
    if asking != NULL and not _asks(call, asking):
        return True
    if call.is_timed:
        timer_start(&timer)
        writer.timer = &timer
    verdict = hot_apply(
        &front.door,
        call.method,
        call.bytes,
        call.size,
        front.time_ns,
        asking,
        &writer,
        &malformed,
    )
    if verdict == HOT_FAILED:
        front.has_failed = True
        return False
    if verdict == HOT_FULL and front.now_ns - call.since_ns < front.limits.room_wait_ns:
        return False
    if verdict != HOT_ANSWERED:
        _refuse_verdict(front, call, verdict, &malformed, &caller)
        return True
    if call.is_timed:
        _add_stage(front, STAGE_QUEUE, call.last_ns, timer.begun_ns)
        stages_add_timer(front.gauges.stages, &timer)
        call.last_ns = timer.answered_ns
    _unlink(&front.ready, call)
    call.state = CALL_WAITING
    call.sequence = hot_sequence(&front.door)
    _push(&front.waiting, call)
    if not _put_message(front, call, writer.start, writer.size):
        _refuse_queued(
            &front.waiting, call, GRPC_INTERNAL,
            "no memory for the reply: what was decided is on record, ask again", NULL,
        )
    return True


cdef void _answer_durable(Front *front) noexcept nogil:
    cdef uint64_t durable = hot_durable(&front.door)
    cdef uint64_t begun_ns
    cdef Call *call = front.waiting.first
    while call != NULL and call.sequence <= durable:
        _unlink(&front.waiting, call)
        if call.lane != NULL:
            call.state = CALL_STREAMING
            if call.lane.sent_size == call.lane.visible_size:
                call.lane.since_ns = front.now_ns
            call.lane.visible_size = call.lane.output_size
            nghttp2_session_resume_data(call.session.http, call.stream)
            _mark_dirty(call.session)
            _advance_lane(call)
        else:
            call.state = CALL_ANSWERING
            if call.is_timed:
                begun_ns = call.last_ns
                call.last_ns = clock_ns()
                _add_stage(front, STAGE_JOURNAL, begun_ns, call.last_ns)
            _send_reply(call)
        call = front.waiting.first


cdef void _refuse_all(Front *front, Queue *queue) noexcept nogil:
    while queue.first != NULL:
        _refuse_queued(
            queue,
            queue.first,
            GRPC_UNAVAILABLE,
            "the journal has failed or is closed: whether this call was done is known after a"
            " restart; repeat it then",
            "JOURNAL_FAILED",
        )


cdef bint front_decide(Front *front) noexcept nogil:
    cdef HotAhead ahead
    # Calls come to the end of the queue only, so the one that was foreseen keeps its number.
    cdef Call *next = front.ready.first
    cdef uint32_t decided = 0
    cdef bint is_full = False
    if front.ready.first == NULL:
        return False
    hot_begin(&front.door)
    ahead.count = 0
    front.round_weight = 0
    while front.ready.first != NULL and front.round_weight < ROUND_WEIGHT_MAX and not is_full:
        while next != NULL and ahead.count < decided + HOT_AHEAD:
            hot_foresee(
                &front.door,
                &ahead,
                next.method if next.lane == NULL else <uint32_t>METHOD_UNKNOWN,
                next.bytes,
                next.size,
            )
            next = next.next
        hot_approach(&front.door, &ahead, decided)
        is_full = not _decide(front, front.ready.first)
        decided += 1
    hot_end(&front.door)
    histogram_add(&front.gauges.rounds, decided)
    front_commit(front)
    return front.ready.first != NULL and not is_full


cdef void front_wake(Front *front) noexcept nogil:
    front.has_failed = front.has_failed or hot_has_failed(&front.door)
    front_commit(front)


cdef void front_commit(Front *front) noexcept nogil:
    _answer_durable(front)
    if front.waiting.first != NULL and not front.has_failed:
        front.has_failed = hot_has_failed(&front.door)
        # What was made durable just before the failure.
        _answer_durable(front)
    if front.has_failed:
        _refuse_all(front, &front.waiting)
        _refuse_all(front, &front.ready)


cdef void front_drain(Front *front) noexcept nogil:
    front.is_draining = True


cdef bint front_open(Front *front, const HotDoor *door, const Limits *limits) noexcept nogil:
    memset(front, 0, sizeof(Front))
    front.door = door[0]
    front.limits = limits[0]
    sampler_start(&front.gauges.sampler, limits.calls_per_timed)
    # It is memory once it is written to.
    front.calls = <Call *>calloc(_places(limits), sizeof(Call))
    blocks_open(&front.blocks, &front.memory)
    if (
        front.calls == NULL
        or nghttp2_session_callbacks_new(&front.callbacks) != 0
        or nghttp2_option_new(&front.option) != 0
    ):
        return False
    front.fresh = front.calls
    front.calls_free = limits.calls_max
    nghttp2_session_callbacks_set_on_begin_frame_callback(front.callbacks, _on_begin_frame)
    nghttp2_session_callbacks_set_on_begin_headers_callback(front.callbacks, _on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback2(front.callbacks, _on_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(front.callbacks, _on_frame)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(front.callbacks, _on_data)
    nghttp2_session_callbacks_set_on_stream_close_callback(front.callbacks, _on_close)
    nghttp2_session_callbacks_set_on_frame_send_callback(front.callbacks, _on_sent)
    nghttp2_session_callbacks_set_send_data_callback(front.callbacks, _send_end)
    nghttp2_option_set_no_auto_window_update(front.option, 1)
    # What of HTTP is in the fields and the size of the body is looked at here: nghttp2 would read
    # every byte of every field again.
    nghttp2_option_set_no_http_messaging(front.option, 1)
    return True


cdef void front_close(Front *front) noexcept nogil:
    if front.table != NULL:
        gate_leave(front.gate, front.table)
    nghttp2_session_callbacks_del(front.callbacks)
    nghttp2_option_del(front.option)
    blocks_close(&front.blocks)
    free(front.calls)
    memset(front, 0, sizeof(Front))


# --- sessions --------------------------------------------------------------------------------

cdef uint64_t _next_age(Front *front) noexcept nogil:
    """Return how old the next connection may become: what is set, and up to 10 % less or more.

    Connections that began together, as after a start, would else all end together (gRFC A9).
    """
    cdef uint64_t age_ns = front.limits.age_ns
    cdef uint64_t part = <uint16_t>(front.sessions_opened * GOLDEN >> 48)
    front.sessions_opened += 1
    if age_ns == UINT64_MAX:
        return age_ns
    return age_ns - age_ns // 10 + (age_ns // 5 >> 16) * part


cdef bint session_open(Session *session, Front *front, void *owner) noexcept nogil:
    cdef nghttp2_settings_entry settings[2]
    memset(session, 0, sizeof(Session))
    session.front = front
    session.owner = owner
    session.opened_ns = front.now_ns
    session.age_ns = _next_age(front)
    session.heard_ns = front.now_ns
    session.busy_ns = front.now_ns
    session.second_ns = front.now_ns
    session.newest_stream = -1
    if nghttp2_session_server_new3(
        &session.http, front.callbacks, session, front.option, &front.memory
    ) != 0:
        session.http = NULL
        return False
    settings[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    settings[0].value = front.limits.streams_per_connection_max
    settings[1].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    settings[1].value = front.limits.header_size_max
    if (
        nghttp2_submit_settings(session.http, NGHTTP2_FLAG_NONE, settings, 2) != 0
        or nghttp2_session_set_local_window_size(
            session.http, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_SIZE
        ) != 0
    ):
        session_close(session)
        return False
    _mark_dirty(session)
    return True


cdef void session_close(Session *session) noexcept nogil:
    cdef Session **place = &session.front.dirty
    cdef uint32_t index
    while session.calls != NULL:
        _call_close(session.calls)
    for index in range(<uint32_t>KNOWN_MAX):
        nghttp2_rcbuf_decref(session.known[index].name)
        nghttp2_rcbuf_decref(session.known[index].value)
    if session.is_dirty:
        while place[0] != session:
            place = &place[0].dirty_next
        place[0] = session.dirty_next
        session.is_dirty = False
    nghttp2_session_del(session.http)
    session.http = NULL


cdef bint session_feed(Session *session, const uint8_t *start, size_t size) noexcept nogil:
    session.heard_ns = session.front.now_ns
    session.pinged_ns = 0
    if session.is_broken:
        return False
    _mark_dirty(session)
    # What nghttp2 cannot go on with it answers by itself, but for memory and our own refusals.
    if nghttp2_session_mem_recv(session.http, start, size) < 0:
        session.is_broken = True
    return not session.is_broken


cdef size_t session_take(Session *session, uint8_t *start, size_t capacity) noexcept nogil:
    cdef size_t part
    cdef Py_ssize_t given
    debug_assert(capacity >= TAKEN_SIZE_MIN)
    session.given = start
    session.given_size = 0
    session.given_capacity = capacity
    while session.given_size < capacity:
        if session.left_size == 0:
            # What _send_end writes comes before what this returns.
            given = nghttp2_session_mem_send(session.http, &session.left)
            if given < 0:
                session.is_broken = True
            if given <= 0:
                break
            session.left_size = <size_t>given
        part = min(session.left_size, capacity - session.given_size)
        memcpy(start + session.given_size, session.left, part)
        session.given_size += part
        session.left += part
        session.left_size -= part
    return session.given_size


cdef bint session_is_over(Session *session) noexcept nogil:
    if session.is_draining and not session.has_goaway:
        # GOAWAY was announced: what is on its way is still taken.
        return session.is_broken
    return session.is_broken or (
        session.left_size == 0
        and nghttp2_session_want_read(session.http) == 0
        and nghttp2_session_want_write(session.http) == 0
    )


cdef void _end_idle_lanes(Session *session) noexcept nogil:
    cdef Call *call = session.calls
    while call != NULL:
        if call.lane != NULL:
            _advance_lane(call)
        call = call.session_next


cdef void session_drain(Session *session) noexcept nogil:
    if session.front.is_draining:
        _tell_watchers(session)
        _end_idle_lanes(session)
    if session.is_draining:
        return
    session.is_draining = True
    session.drained_ns = session.front.now_ns
    nghttp2_submit_shutdown_notice(session.http)
    _mark_dirty(session)


cdef void _end_calls(Session *session) noexcept nogil:
    """End what is open; what is in the engine's turn, or waits for the journal, is answered yet."""
    cdef Call *call = session.calls
    session.is_ending = True
    while call != NULL:
        if call.state == CALL_RECEIVING:
            _refuse(call, GRPC_UNAVAILABLE, ENDING_TEXT, ENDING)
        elif call.state == CALL_DOOMED:
            _refuse_http(call)
        elif call.state == CALL_STREAMING:
            _advance_lane(call)
        elif call.state == CALL_WATCHING:
            nghttp2_session_resume_data(session.http, call.stream)
            _mark_dirty(session)
        call = call.session_next


cdef bint _tick_draining(Session *session) noexcept nogil:
    """Go on with the end of a connection; False if it has to be closed."""
    cdef uint64_t waited_ns = session.front.now_ns - session.drained_ns
    cdef uint64_t grace_ns = GOAWAY_NS + session.front.limits.grace_ns
    if not session.has_goaway and waited_ns >= GOAWAY_NS:
        session.has_goaway = True
        nghttp2_submit_goaway(
            session.http,
            NGHTTP2_FLAG_NONE,
            nghttp2_session_get_last_proc_stream_id(session.http),
            NGHTTP2_NO_ERROR,
            NULL,
            0,
        )
        _mark_dirty(session)
    if session.front.is_draining:
        # The service stops, which has a time of its own.
        return True
    if waited_ns >= grace_ns and not session.is_ending:
        _end_calls(session)
    return waited_ns < grace_ns + LAST_NS


cdef void _abandon(Call *call) noexcept nogil:
    """Give up a stream whose client takes nothing of its replies."""
    call.since_ns = call.session.front.now_ns
    nghttp2_submit_rst_stream(call.session.http, NGHTTP2_FLAG_NONE, call.stream, NGHTTP2_CANCEL)
    _mark_dirty(call.session)


cdef void _tick_lane(Call *call) noexcept nogil:
    cdef Front *front = call.session.front
    cdef Lane *lane = call.lane
    if call.state == CALL_STREAMING and not lane.is_ended:
        if call.deadline_ns != 0 and call.deadline_ns <= front.now_ns:
            _end_lane(call, GRPC_DEADLINE_EXCEEDED, LANE_EXPIRED_TEXT, NULL)
    if lane.sent_size < lane.visible_size:
        if front.now_ns - lane.since_ns > front.limits.reply_wait_ns:
            lane.since_ns = front.now_ns
            _abandon(call)


cdef void _tick_call(Call *call) noexcept nogil:
    """A request that does not come, and a reply that nobody takes, give their places back."""
    cdef Front *front = call.session.front
    cdef uint64_t waited_ns = front.now_ns - call.since_ns
    if call.lane != NULL:
        _tick_lane(call)
    elif call.state == CALL_RECEIVING:
        if call.deadline_ns != 0 and call.deadline_ns <= front.now_ns:
            _refuse_expired(call)
        elif waited_ns > front.limits.request_wait_ns:
            _refuse(call, GRPC_DEADLINE_EXCEEDED, "no whole request within the time", NULL)
    elif call.state == CALL_DOOMED:
        if waited_ns > front.limits.request_wait_ns:
            _refuse_http(call)
    elif call.state == CALL_ANSWERING and waited_ns > front.limits.reply_wait_ns:
        _abandon(call)


cdef bint session_tick(Session *session) noexcept nogil:
    cdef const Limits *limits = &session.front.limits
    cdef uint64_t now_ns = session.front.now_ns
    cdef Call *call = session.calls
    if session.front.has_failed:
        _tell_watchers(session)
    while call != NULL:
        _tick_call(call)
        call = call.session_next
    if not session.has_begun:
        return now_ns - session.opened_ns <= limits.handshake_ns
    if session.is_draining:
        if not _tick_draining(session):
            return False
    elif session.front.is_draining or now_ns - session.opened_ns > session.age_ns:
        session_drain(session)
    elif session.calls == NULL and now_ns - session.busy_ns > limits.idle_ns:
        session_drain(session)
    if session.pinged_ns != 0:
        return now_ns - session.pinged_ns <= limits.keepalive_wait_ns
    if now_ns - session.heard_ns > limits.keepalive_ns:
        session.pinged_ns = now_ns
        nghttp2_submit_ping(session.http, NGHTTP2_FLAG_NONE, NULL)
        _mark_dirty(session)
    return True


# --- for tests and fuzzing -------------------------------------------------------------------

cdef Limits limits_default() noexcept nogil:
    cdef Limits limits
    limits.connections_max = 1024
    limits.calls_max = 4096
    limits.streams_per_connection_max = 256
    limits.message_size_max = 1 << 20
    limits.header_size_max = 8192
    limits.resets_per_s_max = 1000
    limits.lanes_max = 256
    limits.buffered_size_max = 64 << 20
    limits.request_wait_ns = 10 * SECOND_NS
    limits.reply_wait_ns = 60 * SECOND_NS
    limits.room_wait_ns = 10 * SECOND_NS
    limits.handshake_ns = 5 * SECOND_NS
    limits.idle_ns = UINT64_MAX
    limits.age_ns = UINT64_MAX
    limits.grace_ns = 10 * SECOND_NS
    limits.keepalive_ns = 60 * SECOND_NS
    limits.keepalive_wait_ns = 20 * SECOND_NS
    limits.calls_per_timed = 64
    return limits


cdef dict _STAGE_NAMES = {
    "receive": STAGE_RECEIVE,
    "queue": STAGE_QUEUE,
    "decode": STAGE_DECODE,
    "check": STAGE_CHECK,
    "encode": STAGE_ENCODE,
    "journal": STAGE_JOURNAL,
    "send": STAGE_SEND,
}
cdef dict _METHOD_NAMES = {
    "CheckOrder": HOT_CHECK_ORDER,
    "BatchCheckOrders": HOT_BATCH_CHECK_ORDERS,
    "CheckAmendment": HOT_CHECK_AMENDMENT,
    "ReportExecution": HOT_REPORT_EXECUTION,
    "GetReservation": HOT_GET_RESERVATION,
    "StreamOrders": METHOD_STREAM_ORDERS,
    "Check": METHOD_HEALTH_CHECK,
    "Watch": METHOD_HEALTH_WATCH,
    "other": METHOD_UNKNOWN,
}


cdef void _merge(Histogram *total, const Histogram *histogram) noexcept nogil:
    cdef uint32_t bucket
    total.sum += count_of(&histogram.sum)
    for bucket in range(<uint32_t>HISTOGRAM_BUCKETS):
        total.counts[bucket] += count_of(&histogram.counts[bucket])


cdef void gauges_add(Gauges *total, const Gauges *gauges) noexcept nogil:
    cdef uint32_t number, status
    for number in range(<uint32_t>STAGES):
        _merge(&total.stages[number], &gauges.stages[number])
    for number in range(<uint32_t>HOT_METHODS):
        _merge(&total.calls[number], &gauges.calls[number])
    _merge(&total.rounds, &gauges.rounds)
    for number in range(<uint32_t>METHODS):
        for status in range(<uint32_t>STATUSES_COUNT):
            total.statuses[number][status] += count_of(&gauges.statuses[number][status])


cdef object gauges_row(const Gauges *gauges):
    cdef uint32_t number, status
    cdef uint64_t count
    stages = {
        name: histogram_row(&gauges.stages[<uint32_t>index]) for name, index in _STAGE_NAMES.items()
    }
    calls = {}
    statuses = {}
    for name, index in _METHOD_NAMES.items():
        number = index
        if METHOD_UNKNOWN < number < HOT_METHODS:
            calls[name] = histogram_row(&gauges.calls[number])
        for status in range(<uint32_t>STATUSES_COUNT):
            count = count_of(&gauges.statuses[number][status])
            if count != 0:
                statuses[name, status] = count
    return DoorRow(stages, calls, histogram_row(&gauges.rounds), statuses)


# Its session is closed before its front, in a cycle of garbage too.
@cython.no_gc_clear
cdef class Loopback:
    cdef Front _own_front
    cdef Front *_front
    # Whose front it is, kept alive; None: its own.
    cdef Loopback _first
    cdef Session _session
    cdef object _engine
    cdef object _permits
    cdef bint _is_open

    def __cinit__(
        self,
        engine,
        *,
        Loopback beside=None,
        time_ns=1_700_000_000_000_000_000,
        connections_max=64,
        calls_max=64,
        streams_max=64,
        streams_per_connection_max=32,
        message_bytes_max=1 << 20,
        header_bytes_max=8192,
        resets_per_s_max=1000,
        buffered_bytes_max=4 << 20,
        idle_ns=UINT64_MAX,
        age_ns=UINT64_MAX,
        grace_ns=10 * SECOND_NS,
        Permits permits=None,
    ):
        cdef Limits limits = limits_default()
        cdef const HotDoor *door
        self._engine = engine
        self._front = &self._own_front
        if beside is not None:
            self._first = beside
            self._front = beside._front
            self._open()
            return
        limits.connections_max = connections_max
        limits.calls_max = calls_max
        limits.lanes_max = streams_max
        limits.streams_per_connection_max = streams_per_connection_max
        limits.message_size_max = message_bytes_max
        limits.header_size_max = header_bytes_max
        limits.resets_per_s_max = resets_per_s_max
        limits.buffered_size_max = buffered_bytes_max
        limits.idle_ns = idle_ns
        limits.age_ns = age_ns
        limits.grace_ns = grace_ns
        capsule = engine.door()
        door = <const HotDoor *>PyCapsule_GetPointer(capsule, "riskd.core.hot.HotDoor")
        if not front_open(self._front, door, &limits):
            raise MemoryError("the pool of calls does not fit in memory")
        self._permits = permits
        if permits is not None:
            front_guard(self._front, &permits.gate)
        self._front.now_ns = SECOND_NS
        self._front.time_ns = time_ns
        self._open()

    cdef int _open(self) except -1:
        if not session_open(&self._session, self._front, NULL):
            raise MemoryError("no memory for a session")
        self._is_open = True
        return 0

    def __dealloc__(self):
        if self._session.http != NULL:
            session_close(&self._session)
        if self._first is None and self._front != NULL:
            front_close(self._front)

    def feed(self, bytes received not None):
        cdef const uint8_t *start = <const uint8_t *><const char *>received
        front_look(self._front)
        if self._is_open:
            self._is_open = session_feed(&self._session, start, <size_t>len(received))
        return self._answer()

    def tick(self, wait_ns):
        self._front.now_ns += <uint64_t>wait_ns
        self._front.time_ns += <uint64_t>wait_ns
        if self._is_open:
            self._is_open = session_tick(&self._session)
        return self._answer()

    def drain(self):
        front_drain(self._front)
        session_drain(&self._session)
        return self._answer()

    cdef bytes _answer(self):
        cdef uint8_t buffer[TAKEN_SIZE_MIN]
        cdef size_t size
        sent = []
        while True:
            while front_decide(self._front):
                pass
            # With a journal the reply may come later: a test asks again.
            front_commit(self._front)
            size = session_take(&self._session, buffer, sizeof(buffer))
            front_sent(self._front)
            if size == 0:
                break
            sent.append(PyBytes_FromStringAndSize(<const char *>buffer, <Py_ssize_t>size))
        if session_is_over(&self._session):
            self._is_open = False
        return b"".join(sent)

    @property
    def is_open(self):
        return self._is_open

    @property
    def calls(self):
        return self._session.calls_count

    @property
    def buffered_bytes(self):
        return self._front.buffered_size
