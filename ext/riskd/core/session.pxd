"""gRPC over HTTP/2 without sockets: bytes in, calls to the engine, bytes out.

A Front is what all sessions of one thread share; a Session is one connection, a Call one stream.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from riskd.core.apply cimport REPLY_SIZE_MAX
from riskd.core.histogram cimport STAGES, Histogram, Sampler
from riskd.core.hot cimport HotDoor
from riskd.core.grpc_text cimport Metadata
from riskd.core.blocks cimport Blocks
from riskd.core.http2 cimport (
    nghttp2_mem,
    nghttp2_option,
    nghttp2_rcbuf,
    nghttp2_session,
    nghttp2_session_callbacks,
)
from riskd.core.permits cimport (
    CERTIFICATE_KEYS_MAX,
    PEER_SIZE,
    SHOWN_SIZE,
    Gate,
    Key,
    Permit,
    Table,
)

cdef extern from *:
    void _store_number "__atomic_store_n"(uint32_t *place, uint32_t value, int order) noexcept nogil
    enum:
        _NUMBER_RELAXED "__ATOMIC_RELAXED"

cdef inline void set_number(uint32_t *place, uint32_t value) noexcept nogil:
    """Change a number in the one thread that does; others may read."""
    _store_number(place, value, _NUMBER_RELAXED)

cdef enum CallState:
    CALL_FREE = 0
    # Its request is on its way.
    CALL_RECEIVING = 1
    # Its request is whole and waits for its turn.
    CALL_READY = 2
    # It is decided and waits for the journal.
    CALL_WAITING = 3
    # Its reply is on its way.
    CALL_ANSWERING = 4
    # It has its status, and what still comes of its request is thrown away.
    CALL_REFUSED = 5
    # A stream of answers that may go on.
    CALL_WATCHING = 6
    # A stream of requests, none of which can be decided now; else it is READY or WAITING.
    CALL_STREAMING = 7
    # It is not gRPC, and is told so once it has ended.
    CALL_DOOMED = 8

cdef enum:
    PREFIX_SIZE = 5
    # Requests and replies up to this need no memory of their own.
    CALL_INLINE_SIZE = 512
    # Types of RFC 9113 have the numbers 0 to 9.
    FRAME_TYPES = 16
    # HTTP/2's first window: a client cannot send more of a stream than is taken.
    LANE_INPUT_SIZE = 65535
    LANE_OUTPUT_SIZE = 65536
    LANE_TEXT_SIZE = 192
    # The header of a bearer token; a longer one is of nobody.
    AUTHORIZATION_SIZE_MAX = 160
    # Methods have the numbers below, those of the engine the numbers below 8.
    METHODS = 40
    HOT_METHODS = 8
    STATUSES_COUNT = 17
    # A frame of DATA, which nghttp2 makes up to 16,384 bytes long, with trailers.
    TAKEN_SIZE_MIN = 1 << 15
    # More than the fields of most clients.
    KNOWN_MAX = 16
    # Timed calls whose replies are on their way into one write.
    DEPARTURES_MAX = 64

# The bytes of a call with streams in both directions.
cdef struct Lane:
    uint32_t input_size
    # Written, of that visible to the client (its records are durable), of that sent.
    uint32_t output_size
    uint32_t visible_size
    uint32_t sent_size
    # Since when nothing of what is visible was taken.
    uint64_t since_ns
    # Nothing more comes; nothing more is decided, and the status is to be sent after the output.
    bint is_half_closed
    bint is_ended
    uint32_t code
    const char *reason
    char text[LANE_TEXT_SIZE]
    Metadata metadata
    uint8_t input[LANE_INPUT_SIZE]
    uint8_t output[LANE_OUTPUT_SIZE]

cdef struct Limits:
    uint32_t connections_max
    uint32_t calls_max
    uint32_t streams_per_connection_max
    uint32_t message_size_max
    uint32_t header_size_max
    uint32_t resets_per_s_max
    # Streams of requests beyond the first of each connection.
    uint32_t lanes_max
    uint64_t buffered_size_max
    uint64_t request_wait_ns
    uint64_t reply_wait_ns
    uint64_t room_wait_ns
    uint64_t handshake_ns
    uint64_t idle_ns
    uint64_t age_ns
    uint64_t grace_ns
    uint64_t keepalive_ns
    uint64_t keepalive_wait_ns
    # One call in so many is timed; 0: none.
    uint32_t calls_per_timed

cdef struct Call:
    Session *session
    # Neighbours in the free list or in a queue.
    Call *next
    Call *previous
    Call *session_next
    Call *session_previous
    # Since when it waits for what its state waits for; of a reply, since when nothing was taken.
    uint64_t since_ns
    # 0: none.
    uint64_t deadline_ns
    # The record that must be durable before the reply leaves.
    uint64_t sequence
    # The message, or what is sent of a reply: inline_, or memory of its own.
    uint8_t *bytes
    # NULL: one request, one reply.
    Lane *lane
    # What the caller may do by the table of a generation; NULL: nobody.
    const Permit *permit
    uint64_t generation
    uint32_t capacity
    uint32_t size
    uint32_t sent
    uint32_t message_size
    uint32_t prefix_size
    uint32_t header_size
    int32_t stream
    uint32_t state
    uint32_t method
    # What is wrong with the headers; 0 if nothing is.
    uint32_t fault
    # Which fields came, by bits, and the body that was announced and that came.
    uint32_t fields
    uint64_t announced_size
    uint64_t body_size
    bint is_connect
    bint is_post
    bint has_content_type
    # The client has sent all that it will.
    bint is_whole
    bint is_due
    # It may last for ever, and has no place among the calls in work.
    bint is_standing
    # AuthorizationState; and what a token is found by in another table.
    uint32_t authorization
    Key token
    # If it is timed: when it began, was queued or decided, and was durable.
    bint is_timed
    uint64_t first_ns
    uint64_t last_ns
    uint8_t prefix[8]
    # Last: it is not cleared.
    uint8_t inline_[CALL_INLINE_SIZE]

cdef struct Queue:
    Call *first
    Call *last

# A field that came before: that is known by its memory, which is held, and need not be read again.
cdef struct Known:
    nghttp2_rcbuf *name
    nghttp2_rcbuf *value
    # A Field; as bytes of a header's list (RFC 9113, 6.5.2); what it says.
    uint32_t field
    uint32_t size
    uint32_t meaning

cdef struct Session:
    nghttp2_session *http
    Front *front
    Call *calls
    # In work; and beside them: who watches the health, and streams of requests.
    uint32_t calls_count
    uint32_t watchers_count
    uint32_t lanes_count
    # Of its calls' messages that need memory of their own.
    uint64_t buffered_size
    # The call that came last, which the next frame is most often of; NULL: none.
    Call *current
    # In a ring: as they came first, and which is expected next, and given up next.
    Known known[KNOWN_MAX]
    uint32_t known_next
    uint32_t known_oldest
    # The last field that is none of these.
    Known unknown
    # The socket that it belongs to.
    void *owner
    Session *dirty_next
    bint is_dirty
    # The bytes that are being given to the taker.
    uint8_t *given
    size_t given_size
    size_t given_capacity
    # What nghttp2 gave and the taker had no room for.
    const uint8_t *left
    size_t left_size
    uint64_t opened_ns
    # How old it may become.
    uint64_t age_ns
    uint64_t heard_ns
    uint64_t pinged_ns
    uint64_t drained_ns
    uint64_t busy_ns
    # Frames received within the second that began then, by type.
    uint64_t second_ns
    uint32_t frames[FRAME_TYPES]
    uint32_t empty_frames
    uint32_t continuations
    # Of the block of headers that comes.
    uint32_t headers_size
    # The newest stream that the client opened, and of that and the 63 before which were, by bits.
    int64_t newest_stream
    uint64_t opened
    # The client's SETTINGS came, which may ask for a word in the next block of headers.
    bint is_resettled
    # Whether the client's first frame came; whether GOAWAY was announced, and sent.
    bint has_begun
    bint is_draining
    bint has_goaway
    # What is open has had its time after that: nothing more is decided.
    bint is_ending
    # Nothing more is read; it is closed once what is to be sent is sent.
    bint is_broken
    # What its certificate is known by, and who that was by the table of a generation.
    uint32_t keys_count
    Key keys[CERTIFICATE_KEYS_MAX]
    const Permit *permit
    uint64_t generation
    # The token of the last call that had one, so that the next need not be hashed: its header.
    uint32_t authorization_size
    uint8_t authorization[AUTHORIZATION_SIZE_MAX]
    Key token
    const Permit *token_permit
    uint64_t token_generation
    # For the audit: the other end, and the name in its certificate.
    char peer[PEER_SIZE]
    char shown[SHOWN_SIZE]

# A timed call whose reply is on its way.
cdef struct Departure:
    uint64_t first_ns
    uint64_t durable_ns
    uint32_t method

# What is measured; written by the front's thread, read anywhere.
cdef struct Gauges:
    Sampler sampler
    Histogram stages[STAGES]
    # Of whole calls, by method of the engine.
    Histogram calls[HOT_METHODS]
    # Calls decided in one round.
    Histogram rounds
    # By method and gRPC status, each call once.
    uint64_t statuses[METHODS][STATUSES_COUNT]
    # Answered with a status of HTTP alone.
    uint64_t http_refused
    uint64_t messages_streamed
    uint64_t resets
    uint32_t departures_count
    Departure departures[DEPARTURES_MAX]

cdef struct Front:
    HotDoor door
    # Of all sessions.
    Blocks blocks
    nghttp2_mem memory
    Limits limits
    nghttp2_session_callbacks *callbacks
    nghttp2_option *option
    # NULL: everybody may do everything.
    Gate *gate
    Table *table
    # Places of calls: those that were given back, and those from `fresh` on that nobody had yet.
    Call *calls
    Call *free
    Call *fresh
    # Calls in work that there may be yet.
    uint32_t calls_free
    Queue ready
    Queue waiting
    # What was decided since the lock was taken.
    uint32_t round_weight
    Session *dirty
    uint64_t buffered_size
    # All, and those that are not the first of their connection.
    uint32_t lanes_count
    uint32_t lanes_shared
    # Of this round: monotonic, and since 1970.
    uint64_t now_ns
    uint64_t time_ns
    bint is_draining
    bint has_failed
    uint64_t sessions_opened
    uint64_t calls_begun
    uint64_t calls_answered
    uint64_t calls_refused
    uint64_t calls_overloaded
    uint64_t sessions_abused
    Gauges gauges
    uint8_t reply[REPLY_SIZE_MAX]

# Add what one thread measured to a total that nobody else has.
cdef void gauges_add(Gauges *total, const Gauges *gauges) noexcept nogil
cdef object gauges_row(const Gauges *gauges)
cdef Limits limits_default() noexcept nogil
cdef bint front_open(Front *front, const HotDoor *door, const Limits *limits) noexcept nogil
cdef void front_close(Front *front) noexcept nogil
# Let in only whom the gate knows; and look, at the beginning of a round, whom it knows now.
cdef void front_guard(Front *front, Gate *gate) noexcept nogil
cdef void front_look(Front *front) noexcept nogil
# Decide what is ready, answer what may leave; True if more is ready and can be decided now.
cdef bint front_decide(Front *front) noexcept nogil
# Answer what became durable, or refuse everything once nothing will; `wake` when the journal calls.
cdef void front_wake(Front *front) noexcept nogil
cdef void front_commit(Front *front) noexcept nogil
# Say that the kernel has what was taken of a session.
cdef void front_sent(Front *front) noexcept nogil
# Take no new calls from now on.
cdef void front_drain(Front *front) noexcept nogil
# Return a session that has something to send, or NULL.
cdef Session *front_dirty(Front *front) noexcept nogil

cdef bint session_open(Session *session, Front *front, void *owner) noexcept nogil
cdef void session_close(Session *session) noexcept nogil
# Take bytes of the client; False if the connection has to be closed.
cdef bint session_feed(Session *session, const uint8_t *start, size_t size) noexcept nogil
# Give bytes for the client; 0 if there are none now. The capacity is TAKEN_SIZE_MIN or more.
cdef size_t session_take(Session *session, uint8_t *start, size_t capacity) noexcept nogil
# Whether nothing will be sent or read any more.
cdef bint session_is_over(Session *session) noexcept nogil
cdef void session_drain(Session *session) noexcept nogil
# Look at the times of a session and its calls; False if it has to be closed.
cdef bint session_tick(Session *session) noexcept nogil
