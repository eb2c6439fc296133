/* What a round trip over loopback costs without any protocol: 100 bytes there and 100 back.
 *
 * pingpong serve              listens on a free port of loopback, prints it, echoes for one client
 * pingpong call PORT COUNT    prints {"histogram": ...} of COUNT round trips, one at a time
 *
 * Both sides wait in epoll, as a server of many connections must, and as riskd's does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"

enum { MESSAGE_BYTES = 100 };

static void fail(const char *call) {
    perror(call);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int watch(int socket_file) {
    int one = 1;
    struct epoll_event event = {.events = EPOLLIN};
    int epoll_file = epoll_create1(EPOLL_CLOEXEC);
    if (setsockopt(socket_file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) ||
        epoll_file < 0 || epoll_ctl(epoll_file, EPOLL_CTL_ADD, socket_file, &event)) {
        fail("epoll");
    }
    return epoll_file;
}

/* Receive a whole message; false at the end of the stream. */
static int receive(int epoll_file, int socket_file, char *message) {
    struct epoll_event event;
    size_t size = 0;
    while (size < MESSAGE_BYTES) {
        if (epoll_wait(epoll_file, &event, 1, -1) < 0 && errno != EINTR) {
            fail("epoll_wait");
        }
        ssize_t count = recv(socket_file, message + size, MESSAGE_BYTES - size, MSG_DONTWAIT);
        if (count == 0 || (count < 0 && errno == ECONNRESET)) {
            return 0;
        }
        if (count < 0 && errno != EAGAIN && errno != EINTR) {
            fail("recv");
        }
        size += count > 0 ? (size_t)count : 0;
    }
    return 1;
}

static void transmit(int socket_file, const char *message) {
    if (send(socket_file, message, MESSAGE_BYTES, MSG_NOSIGNAL) != MESSAGE_BYTES) {
        fail("send");
    }
}

static void serve(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    char message[MESSAGE_BYTES];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&address, &size)) {
        fail("listen");
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        if (peer < 0) {
            fail("accept");
        }
        int epoll_file = watch(peer);
        while (receive(epoll_file, peer, message)) {
            transmit(peer, message);
        }
        close(epoll_file);
        close(peer);
    }
}

static void call(int port, long count) {
    static Histogram histogram;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char message[MESSAGE_BYTES] = {0};
    int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (peer < 0 || connect(peer, (struct sockaddr *)&address, sizeof address)) {
        fail("connect");
    }
    int epoll_file = watch(peer);
    for (long index = 0; index < count; index++) {
        uint64_t start_ns = now_ns();
        transmit(peer, message);
        if (!receive(epoll_file, peer, message)) {
            fputs("pingpong: the server is gone\n", stderr);
            exit(1);
        }
        histogram_record(&histogram, now_ns() - start_ns);
    }
    fputs("{\"histogram\": ", stdout);
    histogram_print(&histogram, stdout);
    fputs("}\n", stdout);
}

int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "serve")) {
        serve();
    } else if (count == 4 && !strcmp(words[1], "call")) {
        call(atoi(words[2]), atol(words[3]));
    } else {
        fputs("usage: pingpong serve | pingpong call PORT COUNT\n", stderr);
        return 2;
    }
    return 0;
}
