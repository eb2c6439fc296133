/* The least that a gRPC server over libnghttp2 can do: one thread, epoll, and each POST gets the
 * same reply. It decodes, checks and limits nothing; what riskd's door costs more is what it does.
 *
 * echo_nghttp2 REPLY_FILE    listens on a free port of loopback and prints it
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 16, WRITE_BYTES = 1 << 17, EVENTS = 64 };

#define HEADER(name, value)                                                              \
    {                                                                                    \
        (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1,      \
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE                 \
    }

typedef struct {
    int file;
    nghttp2_session *session;
    size_t unsent;
    uint8_t pending[WRITE_BYTES];
} Connection;

static uint8_t reply[1024] = {0};
static size_t reply_size;
static nghttp2_session_callbacks *callbacks;
static int epoll_file;

static void fail(const char *call) {
    perror(call);
    exit(1);
}

static ssize_t read_reply(nghttp2_session *session, int32_t stream, uint8_t *buffer, size_t size,
                          uint32_t *flags, nghttp2_data_source *source, void *context) {
    nghttp2_nv trailer = HEADER("grpc-status", "0");
    (void)size, (void)source, (void)context;
    memcpy(buffer, reply, reply_size);
    *flags = NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_submit_trailer(session, stream, &trailer, 1);
    return (ssize_t)reply_size;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *context) {
    static const nghttp2_nv headers[] = {HEADER(":status", "200"),
                                         HEADER("content-type", "application/grpc")};
    nghttp2_data_provider provider = {.read_callback = read_reply};
    (void)context;
    if (frame->hd.type == NGHTTP2_DATA && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        return nghttp2_submit_response(session, frame->hd.stream_id, headers, 2, &provider);
    }
    return 0;
}

static int transmit(Connection *connection) {
    for (;;) {
        while (connection->unsent < WRITE_BYTES / 2) {
            const uint8_t *bytes;
            ssize_t size = nghttp2_session_mem_send(connection->session, &bytes);
            if (size < 0) {
                return 0;
            }
            if (size == 0) {
                break;
            }
            memcpy(connection->pending + connection->unsent, bytes, (size_t)size);
            connection->unsent += (size_t)size;
        }
        if (connection->unsent == 0) {
            return 1;
        }
        ssize_t sent = send(connection->file, connection->pending, connection->unsent, MSG_NOSIGNAL);
        if (sent < 0) {
            return errno == EAGAIN;
        }
        connection->unsent -= (size_t)sent;
        memmove(connection->pending, connection->pending + sent, connection->unsent);
    }
}

static int receive(Connection *connection) {
    static uint8_t buffer[READ_BYTES];
    ssize_t size = recv(connection->file, buffer, sizeof buffer, 0);
    if (size < 0) {
        return errno == EAGAIN;
    }
    return size > 0 &&
           nghttp2_session_mem_recv(connection->session, buffer, (size_t)size) == size;
}

static void accept_one(int listener) {
    int one = 1;
    nghttp2_settings_entry settings = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1024};
    int file = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (file < 0) {
        return;
    }
    Connection *connection = calloc(1, sizeof *connection);
    /* Edge-triggered on writing too: room in the socket wakes what is pending. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
    if (!connection || setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) ||
        nghttp2_session_server_new(&connection->session, callbacks, connection) ||
        nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, &settings, 1) ||
        nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, 1 << 30)) {
        fail("accept");
    }
    connection->file = file;
    if (epoll_ctl(epoll_file, EPOLL_CTL_ADD, file, &event)) {
        fail("epoll_ctl");
    }
}

int main(int count, char **words) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
    if (!file) {
        fputs("usage: echo_nghttp2 REPLY_FILE\n", stderr);
        return 2;
    }
    /* A gRPC message: not compressed, its size, its bytes. */
    size_t body = fread(reply + 5, 1, sizeof reply - 5, file);
    reply[3] = (uint8_t)(body >> 8);
    reply[4] = (uint8_t)body;
    reply_size = body + 5;
    fclose(file);

    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    epoll_file = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event watched = {.events = EPOLLIN};
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) ||
        listen(listener, 128) || getsockname(listener, (struct sockaddr *)&address, &size) ||
        epoll_file < 0 || epoll_ctl(epoll_file, EPOLL_CTL_ADD, listener, &watched)) {
        fail("listen");
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll_file, events, EVENTS, -1);
        for (int index = 0; index < ready; index++) {
            Connection *connection = events[index].data.ptr;
            if (!connection) {
                accept_one(listener);
                continue;
            }
            /* Reading until EAGAIN is what edge triggering asks for. */
            int alive = 1;
            for (;;) {
                errno = 0;
                alive = receive(connection);
                if (!alive || errno == EAGAIN) {
                    break;
                }
                alive = transmit(connection);
                if (!alive) {
                    break;
                }
            }
            if (!alive || !transmit(connection)) {
                close(connection->file);
                nghttp2_session_del(connection->session);
                free(connection);
            }
        }
    }
}
