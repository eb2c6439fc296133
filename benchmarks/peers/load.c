/* A load generator for gRPC servers: unary calls and bidirectional streams, closed and open loop.
 *
 * It must be cheaper than what it measures, or it measures itself: at three times the capacity of
 * the server, too. So it writes HTTP/2 frames by itself (a request is a copy of a prepared one with
 * new ids) and leaves only the reading of headers to nghttp2's HPACK. What it does not need it
 * refuses: a server that sends CONTINUATION or GOAWAY ends the run with a message.
 *
 * Closed loop (--rate 0): every slot sends its next request when it has its reply; latency counts
 * from the sending. Open loop: request k is due at k / rate, whatever the replies do; latency counts
 * from when it was due. A request that waits for a free slot has that wait in its latency, so that a
 * slow server cannot hide behind the calls that it kept from being made (coordinated omission).
 * With --from-sending it counts from the sending there too: under overload, what is due and never
 * sent would be all that is seen.
 *
 * --requests is a file of messages: for each uint32 size, uint32 n, n uint32 offsets of fixed64 ids,
 * and size bytes, all in the order of this machine. Messages go round; each id sent is a new one,
 * counted from --first-id. Replies are CheckOrderResponse, or messages with one or more of them as
 * field 1 (a batch, a stream); what counts is how many were accepted.
 *
 * Prints a JSON object. The server's CPU time is read from /proc at both ends of the measured time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"

enum {
    FRAME_HEADER_BYTES = 9,
    FRAME_BYTES_MAX = 16384,
    INPUT_BYTES = 1 << 18,
    OUTPUT_BYTES = 1 << 20,
    REPLY_BYTES_MAX = 1 << 13,
    IDS_MAX = 64,
    CONNECTIONS_MAX = 1024,
    WINDOW_BYTES = 1 << 30,
    DEFAULT_WINDOW_BYTES = 65535,
    HEADER_TABLE_BYTES = 4096,
    DRAIN_NS = 1000000000,
    GRPC_RESOURCE_EXHAUSTED = 8,
};

typedef struct {
    uint32_t size;
    uint32_t id_count;
    uint32_t id_offsets[IDS_MAX];
    uint8_t *bytes; /* With gRPC's prefix of five bytes. */
} Template;

/* A call in flight, or a stream with a ring of the times at which its unanswered messages were due. */
typedef struct {
    uint32_t stream; /* 0: free. */
    int32_t status;  /* grpc-status; -1: not seen yet. */
    uint64_t due_ns;
    uint64_t *ring;
    uint32_t ring_first;
    uint32_t ring_count;
    int64_t send_window;
    uint32_t consumed;
    uint32_t size;
    uint8_t reply[REPLY_BYTES_MAX];
} Slot;

typedef struct {
    int file;
    SSL *ssl;
    nghttp2_hd_inflater *inflater;
    uint32_t next_stream;
    uint32_t in_flight;
    uint32_t next_slot;
    uint32_t streams_max; /* The server's bound. */
    int64_t send_window;
    int64_t initial_window;
    uint32_t consumed;
    bool settled; /* The server's SETTINGS are known. */
    bool headers_indexed;
    bool waits_for_room;
    size_t input_size;
    size_t output_start;
    size_t output_size;
    Slot *slots;
    uint8_t *input;
    uint8_t *output;
} Connection;

static struct {
    const char *address;
    const char *path;
    const char *ca;
    const char *certificate;
    const char *key;
    uint32_t connections;
    uint32_t streams;
    uint32_t window;
    double seconds;
    double warm_up;
    double rate;
    uint64_t next_id;
    int server_pid;
    bool streaming;
    bool from_sending;
} options = {.connections = 4, .streams = 32, .seconds = 1, .window = 1};

static struct {
    uint64_t calls; /* Answered with grpc-status 0. */
    uint64_t accepted;
    uint64_t rejected;
    uint64_t refused;
    uint64_t failed;
    uint64_t started;
    Histogram latency;
    Histogram refused_latency;
} counted;

static Template *templates;
static uint32_t template_count;
static uint32_t next_template;
static Connection connections[CONNECTIONS_MAX];
static uint32_t slot_mask;
static SSL_CTX *tls;
static char first_failure[256];
static uint32_t first_reason; /* ReasonCode of the first rejected order. */
static uint64_t now;
static uint64_t measure_from_ns;
static uint64_t measure_to_ns;
static bool ended;

static void die(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    exit(1);
}

static void fail(const char *call) {
    die("%s: %s", call, strerror(errno));
}

static uint64_t clock_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* --- writing frames --------------------------------------------------------------------------- */

static void put_u32(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

static uint32_t get_u32(const uint8_t *from) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static uint8_t *reserve(Connection *connection, size_t size) {
    if (connection->output_size + size > OUTPUT_BYTES) {
        memmove(connection->output, connection->output + connection->output_start,
                connection->output_size - connection->output_start);
        connection->output_size -= connection->output_start;
        connection->output_start = 0;
        if (connection->output_size + size > OUTPUT_BYTES) {
            die("the server does not read");
        }
    }
    uint8_t *start = connection->output + connection->output_size;
    connection->output_size += size;
    return start;
}

static uint8_t *put_frame(Connection *connection, uint8_t type, uint8_t flags, uint32_t stream,
                          uint32_t size) {
    uint8_t *start = reserve(connection, FRAME_HEADER_BYTES + size);
    put_u32(start, size << 8 | type);
    start[4] = flags;
    put_u32(start + 5, stream);
    return start + FRAME_HEADER_BYTES;
}

static uint8_t *put_string(uint8_t *to, const char *text) {
    size_t size = strlen(text);
    if (size > 126) {
        die("%s: too long", text);
    }
    *to = (uint8_t)size;
    memcpy(to + 1, text, size);
    return to + 1 + size;
}

/* RFC 7541: the first request's headers go into the dynamic table, whose newest entry is 62; the
 * requests after it name them by index. */
static void put_headers(Connection *connection, uint32_t stream) {
    uint8_t block[600];
    uint8_t *to = block;
    *to++ = 0x80 | 3;                /* :method: POST */
    *to++ = 0x80 | (tls ? 7 : 6);    /* :scheme */
    if (connection->headers_indexed) {
        for (uint8_t index = 65; index >= 62; index--) {
            *to++ = 0x80 | index;
        }
    } else {
        *to++ = 0x40 | 4;
        to = put_string(to, options.path);
        *to++ = 0x40 | 1;
        to = put_string(to, "localhost");
        *to++ = 0x40 | 31;
        to = put_string(to, "application/grpc");
        *to++ = 0x40;
        to = put_string(to, "te");
        to = put_string(to, "trailers");
        connection->headers_indexed = true;
    }
    uint32_t size = (uint32_t)(to - block);
    memcpy(put_frame(connection, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, stream, size), block,
           size);
}

static void put_message(Connection *connection, uint32_t stream, uint8_t flags) {
    Template *template = &templates[next_template];
    next_template = next_template + 1 < template_count ? next_template + 1 : 0;
    for (uint32_t index = 0; index < template->id_count; index++) {
        memcpy(template->bytes + template->id_offsets[index], &options.next_id, 8);
        options.next_id++;
    }
    memcpy(put_frame(connection, NGHTTP2_DATA, flags, stream, template->size), template->bytes,
           template->size);
    connection->send_window -= template->size;
}

static void put_window_update(Connection *connection, uint32_t stream, uint32_t size) {
    put_u32(put_frame(connection, NGHTTP2_WINDOW_UPDATE, 0, stream, 4), size);
}

static void put_preface(Connection *connection) {
    static const uint16_t names[] = {NGHTTP2_SETTINGS_ENABLE_PUSH,
                                     NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE};
    static const uint32_t values[] = {0, WINDOW_BYTES};
    memcpy(reserve(connection, NGHTTP2_CLIENT_MAGIC_LEN), NGHTTP2_CLIENT_MAGIC,
           NGHTTP2_CLIENT_MAGIC_LEN);
    uint8_t *to = put_frame(connection, NGHTTP2_SETTINGS, 0, 0, sizeof names / 2 * 6);
    for (size_t index = 0; index < sizeof names / 2; index++) {
        to[0] = 0;
        to[1] = (uint8_t)names[index];
        put_u32(to + 2, values[index]);
        to += 6;
    }
    put_window_update(connection, 0, WINDOW_BYTES - DEFAULT_WINDOW_BYTES);
}

/* --- calls ------------------------------------------------------------------------------------ */

static Slot *slot_of(Connection *connection, uint32_t stream) {
    Slot *slot = &connection->slots[(stream >> 1) & slot_mask];
    return slot->stream == stream ? slot : NULL;
}

/* Count a CheckOrderResponse: field 1 is the decision, 1 = accepted, field 2 the reason. */
static void count_decision(const uint8_t *reply, size_t size) {
    if (size >= 2 && reply[0] == 0x08 && reply[1] == 1) {
        counted.accepted++;
        return;
    }
    counted.rejected++;
    if (!first_reason && size >= 5 && reply[2] == 0x10) {
        first_reason = (reply[3] & 0x7fu) | (reply[3] & 0x80u ? (uint32_t)reply[4] << 7 : 0);
    }
}

/* Count the reply to what was due then. */
static void count_reply(uint64_t due_ns, int32_t status, const uint8_t *reply, size_t size) {
    if (now < measure_from_ns || now >= measure_to_ns) {
        return;
    }
    Histogram *histogram = &counted.latency;
    if (status == GRPC_RESOURCE_EXHAUSTED) {
        counted.refused++;
        histogram = &counted.refused_latency;
    } else if (status != 0) {
        counted.failed++;
        return;
    } else if (size >= 2 && reply[0] == 0x08) {
        counted.calls++;
        count_decision(reply, size);
    } else {
        counted.calls++;
        /* Field 1 as a message: replies of less than 128 bytes, one after the other. */
        for (size_t at = 0; at + 3 < size && reply[at] == 0x0a; at += 2 + (size_t)reply[at + 1]) {
            count_decision(reply + at + 2, size - at - 2);
        }
    }
    if (due_ns >= measure_from_ns) {
        histogram_record(histogram, now - due_ns);
    }
}

static void finish(Connection *connection, Slot *slot) {
    if (options.streaming) {
        die("the server ended a stream with grpc-status %d %s", slot->status, first_failure);
    }
    if (slot->status == 0 && (slot->size < 5 || get_u32(slot->reply + 1) != slot->size - 5)) {
        slot->status = -1;
    }
    count_reply(slot->due_ns, slot->status, slot->reply + 5, slot->size - 5);
    slot->stream = 0;
    connection->in_flight--;
}

static Slot *open_slot(Connection *connection) {
    Slot *slot = &connection->slots[(connection->next_stream >> 1) & slot_mask];
    if (slot->stream != 0) { /* A call that is much older than its neighbours still has it. */
        return NULL;
    }
    slot->stream = connection->next_stream;
    slot->status = -1;
    slot->size = 0;
    slot->consumed = 0;
    slot->send_window = connection->initial_window;
    connection->next_stream += 2;
    connection->in_flight++;
    put_headers(connection, slot->stream);
    return slot;
}

static bool has_room(const Connection *connection, const Template *template) {
    return connection->settled && connection->send_window >= template->size &&
           connection->output_size - connection->output_start < OUTPUT_BYTES / 2;
}

/* Send the next message that was due then; false if this connection cannot now. */
static bool start(Connection *connection, uint64_t due_ns) {
    const Template *template = &templates[next_template];
    if (!has_room(connection, template)) {
        return false;
    }
    if (!options.streaming) {
        if (connection->in_flight >= options.streams ||
            connection->in_flight >= connection->streams_max) {
            return false;
        }
        if (connection->initial_window < template->size) {
            die("the server's windows are smaller than a message");
        }
        Slot *slot = open_slot(connection);
        if (!slot) {
            return false;
        }
        slot->due_ns = options.from_sending ? now : due_ns;
        put_message(connection, slot->stream, NGHTTP2_FLAG_END_STREAM);
    } else {
        Slot *slot = NULL;
        for (uint32_t tried = 0; tried < options.streams && !slot; tried++) {
            Slot *next = &connection->slots[connection->next_slot];
            connection->next_slot = (connection->next_slot + 1) % options.streams;
            if (next->ring_count < options.window && next->send_window >= template->size) {
                slot = next;
            }
        }
        if (!slot) {
            return false;
        }
        slot->ring[(slot->ring_first + slot->ring_count++) % options.window] = due_ns;
        slot->send_window -= template->size;
        put_message(connection, slot->stream, 0);
    }
    counted.started++;
    return true;
}

/* The streams of the streaming mode are opened once, in the first slots. */
static void open_streams(Connection *connection) {
    if (connection->streams_max < options.streams) {
        die("the server allows %u streams a connection", connection->streams_max);
    }
    for (uint32_t index = 0; index < options.streams; index++) {
        open_slot(connection);
    }
}

/* --- reading frames --------------------------------------------------------------------------- */

static void take_headers(Connection *connection, Slot *slot, const uint8_t *block, size_t size) {
    for (;;) {
        nghttp2_nv header;
        int flags = 0;
        ssize_t taken =
            nghttp2_hd_inflate_hd2(connection->inflater, &header, &flags, block, size, 1);
        if (taken < 0) {
            die("headers: %s", nghttp2_strerror((int)taken));
        }
        block += taken;
        size -= (size_t)taken;
        if (flags & NGHTTP2_HD_INFLATE_EMIT && slot) {
            if (header.namelen == 11 && !memcmp(header.name, "grpc-status", 11)) {
                slot->status = atoi((const char *)header.value);
            } else if (header.namelen == 12 && !memcmp(header.name, "grpc-message", 12) &&
                       !first_failure[0]) {
                snprintf(first_failure, sizeof first_failure, "%s", (const char *)header.value);
            }
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) {
            nghttp2_hd_inflate_end_headers(connection->inflater);
            return;
        }
    }
}

static void take_settings(Connection *connection, const uint8_t *from, size_t size) {
    for (; size >= 6; size -= 6, from += 6) {
        uint32_t value = get_u32(from + 2);
        switch (from[0] << 8 | from[1]) {
            case NGHTTP2_SETTINGS_HEADER_TABLE_SIZE:
                if (value < HEADER_TABLE_BYTES) {
                    die("the server's header table is smaller than %d bytes", HEADER_TABLE_BYTES);
                }
                break;
            case NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS:
                connection->streams_max = value;
                break;
            case NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE:
                for (uint32_t index = 0; index <= slot_mask; index++) {
                    connection->slots[index].send_window += value - connection->initial_window;
                }
                connection->initial_window = value;
                break;
            default:
                break;
        }
    }
    put_frame(connection, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, 0);
    if (!connection->settled) {
        connection->settled = true;
        if (options.streaming) {
            open_streams(connection);
        }
    }
}

static void take_messages(Slot *slot) {
    uint32_t at = 0;
    while (slot->size - at >= 5) {
        uint32_t size = get_u32(slot->reply + at + 1);
        if (slot->size - at - 5 < size) {
            break;
        }
        if (slot->ring_count == 0) {
            die("more replies than requests");
        }
        count_reply(slot->ring[slot->ring_first], 0, slot->reply + at + 5, size);
        slot->ring_first = (slot->ring_first + 1) % options.window;
        slot->ring_count--;
        at += 5 + size;
    }
    slot->size -= at;
    memmove(slot->reply, slot->reply + at, slot->size);
}

static void take_data(Connection *connection, Slot *slot, const uint8_t *from, size_t size,
                      uint32_t frame_size) {
    connection->consumed += frame_size;
    if (connection->consumed >= WINDOW_BYTES / 4) {
        put_window_update(connection, 0, connection->consumed);
        connection->consumed = 0;
    }
    if (!slot) {
        return;
    }
    if (slot->size + size > REPLY_BYTES_MAX) {
        die("a reply of more than %d bytes", REPLY_BYTES_MAX);
    }
    memcpy(slot->reply + slot->size, from, size);
    slot->size += (uint32_t)size;
    if (options.streaming) {
        slot->consumed += frame_size;
        if (slot->consumed >= WINDOW_BYTES / 4) {
            put_window_update(connection, slot->stream, slot->consumed);
            slot->consumed = 0;
        }
        take_messages(slot);
    }
}

static void take_frame(Connection *connection, const uint8_t *frame, uint32_t size) {
    uint8_t type = frame[3];
    uint8_t flags = frame[4];
    uint32_t stream = get_u32(frame + 5) & 0x7fffffff;
    const uint8_t *from = frame + FRAME_HEADER_BYTES;
    Slot *slot = stream ? slot_of(connection, stream) : NULL;
    size_t left = size;
    if ((type == NGHTTP2_DATA || type == NGHTTP2_HEADERS) && flags & NGHTTP2_FLAG_PADDED) {
        if (left < 1 || left - 1 < from[0]) {
            die("bad padding");
        }
        left -= 1 + (size_t)from[0];
        from++;
    }
    switch (type) {
        case NGHTTP2_DATA:
            take_data(connection, slot, from, left, size);
            break;
        case NGHTTP2_HEADERS:
            if (!(flags & NGHTTP2_FLAG_END_HEADERS) || flags & NGHTTP2_FLAG_PRIORITY) {
                die("headers in several frames or with a priority");
            }
            take_headers(connection, slot, from, left);
            break;
        case NGHTTP2_RST_STREAM:
            /* After a whole reply it only says that the request need not be sent to its end. */
            if (slot) {
                slot->status = -1;
                finish(connection, slot);
            }
            return;
        case NGHTTP2_SETTINGS:
            if (!(flags & NGHTTP2_FLAG_ACK)) {
                take_settings(connection, from, left);
            }
            return;
        case NGHTTP2_PING:
            if (!(flags & NGHTTP2_FLAG_ACK) && left == 8) {
                memcpy(put_frame(connection, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, 8), from, 8);
            }
            return;
        case NGHTTP2_GOAWAY:
            die("the server says GOAWAY, error %u: %.*s", get_u32(from + 4), (int)(left - 8),
                (const char *)from + 8);
            return;
        case NGHTTP2_WINDOW_UPDATE:
            if (stream == 0) {
                connection->send_window += get_u32(from);
            } else if (slot) {
                slot->send_window += get_u32(from);
            }
            return;
        default:
            die("a frame of type %u", type);
    }
    if (slot && flags & NGHTTP2_FLAG_END_STREAM) {
        finish(connection, slot);
    }
}

/* --- sockets ---------------------------------------------------------------------------------- */

static ssize_t receive_some(Connection *connection, uint8_t *to, size_t size) {
    if (!connection->ssl) {
        return recv(connection->file, to, size, 0);
    }
    int count = SSL_read(connection->ssl, to, (int)size);
    if (count <= 0) {
        int error = SSL_get_error(connection->ssl, count);
        errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
        return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
    }
    return count;
}

static ssize_t send_some(Connection *connection, const uint8_t *from, size_t size) {
    if (!connection->ssl) {
        return send(connection->file, from, size, MSG_NOSIGNAL);
    }
    int count = SSL_write(connection->ssl, from, (int)size);
    if (count <= 0) {
        int error = SSL_get_error(connection->ssl, count);
        errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
        return -1;
    }
    return count;
}

static void receive(Connection *connection) {
    for (;;) {
        ssize_t count = receive_some(connection, connection->input + connection->input_size,
                                     INPUT_BYTES - connection->input_size);
        if (count == 0) {
            die("the server closed the connection");
        }
        if (count < 0) {
            if (errno == EAGAIN || errno == EINTR) {
                return;
            }
            fail("recv");
        }
        connection->input_size += (size_t)count;
        bool drained = !connection->ssl && connection->input_size < INPUT_BYTES;
        now = clock_ns();
        size_t at = 0;
        while (connection->input_size - at >= FRAME_HEADER_BYTES) {
            uint32_t size = get_u32(connection->input + at) >> 8;
            if (size > FRAME_BYTES_MAX) {
                die("a frame of %u bytes", size);
            }
            if (connection->input_size - at - FRAME_HEADER_BYTES < size) {
                break;
            }
            take_frame(connection, connection->input + at, size);
            at += FRAME_HEADER_BYTES + size;
        }
        connection->input_size -= at;
        memmove(connection->input, connection->input + at, connection->input_size);
        if (drained) {
            return;
        }
    }
}

static void watch(int epoll_file, Connection *connection, int operation) {
    struct epoll_event event = {
        .events = EPOLLIN | (connection->waits_for_room ? (uint32_t)EPOLLOUT : 0),
        .data.ptr = connection};
    if (epoll_ctl(epoll_file, operation, connection->file, &event)) {
        fail("epoll_ctl");
    }
}

static void transmit(int epoll_file, Connection *connection) {
    while (connection->output_start < connection->output_size) {
        ssize_t count = send_some(connection, connection->output + connection->output_start,
                                  connection->output_size - connection->output_start);
        if (count < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                fail("send");
            }
            break;
        }
        connection->output_start += (size_t)count;
    }
    if (connection->output_start == connection->output_size) {
        connection->output_start = connection->output_size = 0;
    }
    bool waits = connection->output_size > 0;
    if (waits != connection->waits_for_room) {
        connection->waits_for_room = waits;
        watch(epoll_file, connection, EPOLL_CTL_MOD);
    }
}

/* HOST:PORT with an IPv4 address or [IPv6], or unix:PATH. */
static socklen_t parse_address(struct sockaddr_storage *storage) {
    memset(storage, 0, sizeof *storage);
    if (!strncmp(options.address, "unix:", 5)) {
        struct sockaddr_un *address = (struct sockaddr_un *)storage;
        address->sun_family = AF_UNIX;
        if (strlen(options.address + 5) >= sizeof address->sun_path) {
            die("%s: too long", options.address);
        }
        strcpy(address->sun_path, options.address + 5);
        return sizeof *address;
    }
    char host[64];
    const char *colon = strrchr(options.address, ':');
    if (!colon || (size_t)(colon - options.address) >= sizeof host) {
        die("%s is no address", options.address);
    }
    bool six = options.address[0] == '[';
    snprintf(host, sizeof host, "%.*s", (int)(colon - options.address) - (six ? 2 : 0),
             options.address + six);
    uint16_t port = htons((uint16_t)atoi(colon + 1));
    struct sockaddr_in *four = (struct sockaddr_in *)storage;
    struct sockaddr_in6 *address = (struct sockaddr_in6 *)storage;
    if (six) {
        address->sin6_family = AF_INET6;
        address->sin6_port = port;
    } else {
        four->sin_family = AF_INET;
        four->sin_port = port;
    }
    void *bytes = six ? (void *)&address->sin6_addr : (void *)&four->sin_addr;
    if (inet_pton(storage->ss_family, host, bytes) != 1) {
        die("%s is no address", options.address);
    }
    return six ? sizeof *address : sizeof *four;
}

static void make_tls(void) {
    tls = SSL_CTX_new(TLS_client_method());
    if (!tls || !SSL_CTX_load_verify_locations(tls, options.ca, NULL) ||
        SSL_CTX_set_alpn_protos(tls, (const uint8_t *)"\2h2", 3) ||
        (options.certificate &&
         (SSL_CTX_use_certificate_chain_file(tls, options.certificate) != 1 ||
          SSL_CTX_use_PrivateKey_file(tls, options.key, SSL_FILETYPE_PEM) != 1))) {
        ERR_print_errors_fp(stderr);
        die("TLS cannot be set up");
    }
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static void open_connection(int epoll_file, Connection *connection) {
    struct sockaddr_storage address;
    socklen_t size = parse_address(&address);
    int one = 1;
    connection->file = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->file < 0 || connect(connection->file, (struct sockaddr *)&address, size)) {
        fail(options.address);
    }
    if (address.ss_family != AF_UNIX) {
        setsockopt(connection->file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    if (tls) {
        connection->ssl = SSL_new(tls);
        if (!connection->ssl || !SSL_set1_host(connection->ssl, "localhost") ||
            !SSL_set_fd(connection->ssl, connection->file) || SSL_connect(connection->ssl) != 1) {
            ERR_print_errors_fp(stderr);
            die("the TLS handshake failed");
        }
    }
    fcntl(connection->file, F_SETFL, O_NONBLOCK);
    connection->next_stream = 1;
    connection->streams_max = UINT32_MAX;
    connection->send_window = connection->initial_window = DEFAULT_WINDOW_BYTES;
    connection->input = malloc(INPUT_BYTES);
    connection->output = malloc(OUTPUT_BYTES);
    connection->slots = calloc(slot_mask + 1, sizeof *connection->slots);
    if (!connection->input || !connection->output || !connection->slots ||
        nghttp2_hd_inflate_new(&connection->inflater)) {
        die("no memory");
    }
    for (uint32_t index = 0; options.streaming && index < options.streams; index++) {
        connection->slots[index].ring = calloc(options.window, sizeof(uint64_t));
        if (!connection->slots[index].ring) {
            die("no memory");
        }
    }
    put_preface(connection);
    watch(epoll_file, connection, EPOLL_CTL_ADD);
    transmit(epoll_file, connection);
}

/* --- the run ---------------------------------------------------------------------------------- */

static double server_cpu_seconds(void) {
    char path[64];
    unsigned long user = 0;
    unsigned long kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", options.server_pid);
    FILE *file = fopen(path, "r");
    /* The second field is a name in brackets and may have spaces, not those of our servers. */
    if (!file || fscanf(file,
                        "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                        &user, &kernel) != 2) {
        die("%s cannot be read", path);
    }
    fclose(file);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* Send what may be sent now. */
static void start_all(uint64_t first_due_ns, uint64_t *due_count) {
    if (options.rate == 0) {
        for (uint32_t index = 0; index < options.connections; index++) {
            while (start(&connections[index], now)) {
            }
        }
        return;
    }
    static uint32_t turn;
    uint32_t full = 0;
    while (full < options.connections) {
        uint64_t due_ns = first_due_ns + (uint64_t)((double)*due_count * 1e9 / options.rate);
        if (due_ns > now) {
            return;
        }
        turn = turn + 1 < options.connections ? turn + 1 : 0;
        if (start(&connections[turn], due_ns)) {
            (*due_count)++;
            full = 0;
        } else {
            full++;
        }
    }
}

static bool idle(void) {
    for (uint32_t index = 0; index < options.connections; index++) {
        if (options.streaming) {
            for (uint32_t slot = 0; slot < options.streams; slot++) {
                if (connections[index].slots[slot].ring_count) {
                    return false;
                }
            }
        } else if (connections[index].in_flight) {
            return false;
        }
    }
    return true;
}

static bool all_settled(void) {
    for (uint32_t index = 0; index < options.connections; index++) {
        if (!connections[index].settled) {
            return false;
        }
    }
    return true;
}

static void poll_once(int epoll_file, int timeout_ms) {
    struct epoll_event events[64];
    int ready = epoll_wait(epoll_file, events, 64, timeout_ms);
    for (int index = 0; index < ready; index++) {
        if (events[index].events & ~(uint32_t)EPOLLOUT) {
            receive(events[index].data.ptr);
        }
    }
    now = clock_ns();
}

static void transmit_all(int epoll_file) {
    for (uint32_t index = 0; index < options.connections; index++) {
        if (connections[index].output_size) {
            transmit(epoll_file, &connections[index]);
        }
    }
}

static void run(int epoll_file) {
    uint64_t limit_ns = clock_ns() + 10u * DRAIN_NS;
    while (!all_settled()) {
        poll_once(epoll_file, 100);
        if (now > limit_ns) {
            die("no SETTINGS from the server within 10 s");
        }
        transmit_all(epoll_file);
    }
    uint64_t start_ns = now;
    uint64_t due_count = 0;
    uint64_t due_before = 0;
    double cpu_before = 0;
    double cpu_after = 0;
    bool measuring = false;
    measure_from_ns = start_ns + (uint64_t)(options.warm_up * 1e9);
    measure_to_ns = measure_from_ns + (uint64_t)(options.seconds * 1e9);
    for (;;) {
        if (!measuring && now >= measure_from_ns) {
            measuring = true;
            /* From the moment that is written down: reading /proc takes a while. */
            cpu_before = options.server_pid ? server_cpu_seconds() : 0;
            counted.started = 0;
            due_before = due_count;
        }
        if (!ended && now >= measure_to_ns) {
            cpu_after = options.server_pid ? server_cpu_seconds() : 0;
            ended = true;
        }
        if (ended && (idle() || now > measure_to_ns + DRAIN_NS)) {
            break;
        }
        if (!ended) {
            start_all(start_ns, &due_count);
        }
        transmit_all(epoll_file);
        /* An open loop does not sleep: waking up late would count as the server's time. */
        poll_once(epoll_file, options.rate == 0 || ended ? 100 : 0);
    }
    double due = options.rate == 0 ? (double)counted.started : options.rate * options.seconds;
    printf("{\"seconds\": %.6f, \"due\": %.0f, \"started\": %" PRIu64 ", \"calls\": %" PRIu64
           ", \"accepted\": %" PRIu64 ", \"rejected\": %" PRIu64 ", \"refused\": %" PRIu64
           ", \"failed\": %" PRIu64 ", \"first_reason\": %" PRIu32
           ", \"unanswered\": %d, \"server_cpu_s\": %.2f, \"next_id\": %" PRIu64
           ", \"histogram\": ",
           options.seconds, due, due_count > due_before ? due_count - due_before : counted.started,
           counted.calls, counted.accepted, counted.rejected, counted.refused, counted.failed,
           first_reason, !idle(), cpu_after - cpu_before, options.next_id);
    histogram_print(&counted.latency, stdout);
    printf(", \"refused_histogram\": ");
    histogram_print(&counted.refused_latency, stdout);
    printf("}\n");
    if (counted.failed) {
        fprintf(stderr, "load: %" PRIu64 " calls failed: %s\n", counted.failed, first_failure);
    }
}

static void read_templates(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t sizes[2];
    if (!file) {
        fail(path);
    }
    while (fread(sizes, sizeof sizes, 1, file) == 1) {
        if (sizes[0] > FRAME_BYTES_MAX - 5 || sizes[1] > IDS_MAX) {
            die("%s: a message of %u bytes with %u ids", path, sizes[0], sizes[1]);
        }
        templates = realloc(templates, (template_count + 1) * sizeof *templates);
        if (!templates) {
            die("no memory");
        }
        Template *template = &templates[template_count++];
        template->size = sizes[0] + 5;
        template->id_count = sizes[1];
        template->bytes = calloc(1, template->size);
        if (!template->bytes ||
            fread(template->id_offsets, 4, sizes[1], file) != sizes[1] ||
            fread(template->bytes + 5, 1, sizes[0], file) != sizes[0]) {
            die("%s is damaged", path);
        }
        put_u32(template->bytes + 1, sizes[0]);
        for (uint32_t index = 0; index < sizes[1]; index++) {
            if (template->id_offsets[index] + 8 > sizes[0]) {
                die("%s: an id outside its message", path);
            }
            template->id_offsets[index] += 5;
        }
    }
    fclose(file);
    if (template_count == 0) {
        die("%s is empty", path);
    }
}

int main(int count, char **words) {
    enum { ADDRESS, PATH, REQUESTS, CONNECTIONS, STREAMS, WINDOW, SECONDS, WARM_UP, RATE, FIRST_ID,
           SERVER_PID, STREAMING, FROM_SENDING, CA, CERTIFICATE, KEY };
    static const struct option names[] = {
        {"address", required_argument, NULL, ADDRESS},
        {"path", required_argument, NULL, PATH},
        {"requests", required_argument, NULL, REQUESTS},
        {"connections", required_argument, NULL, CONNECTIONS},
        {"streams", required_argument, NULL, STREAMS},
        {"window", required_argument, NULL, WINDOW},
        {"seconds", required_argument, NULL, SECONDS},
        {"warm-up", required_argument, NULL, WARM_UP},
        {"rate", required_argument, NULL, RATE},
        {"first-id", required_argument, NULL, FIRST_ID},
        {"server-pid", required_argument, NULL, SERVER_PID},
        {"streaming", no_argument, NULL, STREAMING},
        {"from-sending", no_argument, NULL, FROM_SENDING},
        {"ca", required_argument, NULL, CA},
        {"certificate", required_argument, NULL, CERTIFICATE},
        {"key", required_argument, NULL, KEY},
        {0},
    };
    for (int name; (name = getopt_long(count, words, "", names, NULL)) != -1;) {
        switch (name) {
            case ADDRESS: options.address = optarg; break;
            case PATH: options.path = optarg; break;
            case REQUESTS: read_templates(optarg); break;
            case CONNECTIONS: options.connections = (uint32_t)atoi(optarg); break;
            case STREAMS: options.streams = (uint32_t)atoi(optarg); break;
            case WINDOW: options.window = (uint32_t)atoi(optarg); break;
            case SECONDS: options.seconds = atof(optarg); break;
            case WARM_UP: options.warm_up = atof(optarg); break;
            case RATE: options.rate = atof(optarg); break;
            case FIRST_ID: options.next_id = strtoull(optarg, NULL, 10); break;
            case SERVER_PID: options.server_pid = atoi(optarg); break;
            case STREAMING: options.streaming = true; break;
            case FROM_SENDING: options.from_sending = true; break;
            case CA: options.ca = optarg; break;
            case CERTIFICATE: options.certificate = optarg; break;
            case KEY: options.key = optarg; break;
            default: return 2;
        }
    }
    if (!options.address || !options.path || !templates || options.connections == 0 ||
        options.connections > CONNECTIONS_MAX || options.streams == 0 || options.window == 0) {
        fputs("usage: load --address A --path P --requests FILE [--connections N] [--streams N]\n"
              "  [--streaming --window N] [--rate CALLS_PER_S] [--seconds S] [--warm-up S]\n"
              "  [--from-sending] [--first-id N] [--server-pid PID] [--ca FILE [--certificate FILE --key FILE]]\n",
              stderr);
        return 2;
    }
    /* Four times as many as are in flight: a call may be that much slower than its neighbours. In
     * the streaming mode the first slots are the streams. */
    for (slot_mask = 1; slot_mask < 4 * options.streams; slot_mask = slot_mask << 1 | 1) {
    }
    int epoll_file = epoll_create1(EPOLL_CLOEXEC);
    if (options.ca) {
        make_tls();
    }
    for (uint32_t index = 0; index < options.connections; index++) {
        open_connection(epoll_file, &connections[index]);
    }
    run(epoll_file);
    return 0;
}
