"""The native door's sockets: an epoll for each thread, no GIL.

A round of the thread: take what has come on each connection, decide all whole requests under one
lock, have the journal written once, send what may leave. session.pyx says what a session answers;
here is how its bytes come and go.

The first thread accepts, and gives each connection to the thread that has the fewest, which keeps
it. Threads share the engine, under its mutex, and nothing else.

Fairness: a connection gives at most one buffer of bytes a round. A connection whose client does not
take its answers is not read until it does, and is closed when that takes too long.
"""

import errno
import os
import re
import socket
import threading

cimport cython

from libc cimport errno as c_errno
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from cpython.pycapsule cimport PyCapsule_GetPointer

from riskd.core.histogram cimport count_one, count_up
from riskd.core.hot cimport HotDoor
from riskd.core.journal cimport journal_attach
from riskd.core.permits cimport PEER_SIZE, Permits
from riskd.core.session cimport (
    Front,
    Gauges,
    Limits,
    Session,
    front_close,
    front_decide,
    front_dirty,
    front_drain,
    front_guard,
    front_look,
    front_open,
    front_sent,
    front_wake,
    gauges_add,
    gauges_row,
    limits_default,
    session_close,
    session_drain,
    session_feed,
    session_is_over,
    session_open,
    session_take,
    session_tick,
    set_number,
)

from riskd.core.tls cimport (
    SSL,
    TLS_AGAIN,
    TLS_BROKEN,
    Tls,
    TlsContext,
    tls_close,
    tls_keys,
    tls_open,
    tls_read,
    tls_shake,
    tls_write,
)

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_REALTIME
    int clock_gettime(int clock, timespec *now)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *before)

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(
        pthread_t *thread,
        const void *attributes,
        void *(*run)(void *) noexcept nogil,
        void *argument,
    )
    int pthread_join(pthread_t thread, void **result)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE 1
    #endif
    #include <arpa/inet.h>
    #include <fcntl.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef SO_BUSY_POLL
    #define SO_BUSY_POLL 46
    #endif
    extern long syscall(long number, ...);
    extern int pipe2(int files[2], int flags);
    /* glibc declares it only for _GNU_SOURCE, which Python's headers may come too late for. */
    extern int accept4(int file, struct sockaddr *address, socklen_t *size, int flags);

    /* Accept a connection and write where it comes from: for people; and the network, in which one
     * client may have many addresses: an IPv4 address, as IPv6 writes it, or an IPv6 /64. A Unix
     * socket is of none. */
    static int riskd_accept(
        int listening, char *peer, size_t size, unsigned char network[16], int *is_unix
    ) {
        union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } from;
        char host[INET6_ADDRSTRLEN] = "";
        socklen_t from_size = sizeof(from);
        int file = accept4(listening, &from.any, &from_size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (file < 0)
            return file;
        memset(network, 0, 16);
        *is_unix = 0;
        if (from.any.sa_family == AF_INET) {
            inet_ntop(AF_INET, &from.v4.sin_addr, host, sizeof(host));
            snprintf(peer, size, "ipv4:%s:%u", host, ntohs(from.v4.sin_port));
            memset(network + 10, 0xff, 2);
            memcpy(network + 12, &from.v4.sin_addr, 4);
        } else if (from.any.sa_family == AF_INET6) {
            inet_ntop(AF_INET6, &from.v6.sin6_addr, host, sizeof(host));
            snprintf(peer, size, "ipv6:[%s]:%u", host, ntohs(from.v6.sin6_port));
            memcpy(network, &from.v6.sin6_addr, 8);
        } else {
            snprintf(peer, size, "unix");
            *is_unix = 1;
        }
        return file;
    }

    /* Keep the calling thread on one CPU. */
    static void riskd_pin(unsigned int cpu) {
        unsigned long mask[16] = {0};
        const unsigned int bits = 8 * sizeof(mask[0]);
        if (cpu < 8 * sizeof(mask)) {
            mask[cpu / bits] = 1ul << cpu % bits;
            (void)syscall(SYS_sched_setaffinity, 0, sizeof(mask), mask);
        }
    }
    """
    void _pin "riskd_pin"(unsigned int cpu) nogil
    int _accept_from "riskd_accept"(
        int listening, char *peer, size_t size, uint8_t *network, bint *is_unix
    ) nogil
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLET
    int epoll_create1(int flags) nogil
    int epoll_ctl(int epoll, int operation, int file, epoll_event *event) nogil
    int epoll_wait(int epoll, epoll_event *events, int count, int timeout_ms) nogil
    int EFD_CLOEXEC, EFD_NONBLOCK
    int eventfd(unsigned int count, int flags) nogil
    int eventfd_write(int file, uint64_t count) nogil
    int IPPROTO_TCP, TCP_NODELAY, MSG_NOSIGNAL, SOL_SOCKET, SO_BUSY_POLL
    int O_CLOEXEC, O_NONBLOCK
    int pipe2(int *files, int flags) nogil
    Py_ssize_t read(int file, void *start, size_t size) nogil
    Py_ssize_t write(int file, const void *start, size_t size) nogil
    int setsockopt(int file, int level, int name, const void *value, unsigned int size) nogil
    Py_ssize_t recv(int file, void *start, size_t size, int flags) nogil
    Py_ssize_t send(int file, const void *start, size_t size, int flags) nogil
    int close(int file) nogil
    uint32_t _load "__atomic_load_n"(const uint32_t *place, int order) nogil
    uint64_t _load_long "__atomic_load_n"(const uint64_t *place, int order) nogil
    void _store_long "__atomic_store_n"(uint64_t *place, uint64_t value, int order) nogil
    void _store "__atomic_store_n"(uint32_t *place, uint32_t value, int order) nogil
    uint32_t _add "__atomic_add_fetch"(uint32_t *place, uint32_t value, int order) nogil
    uint32_t _subtract "__atomic_sub_fetch"(uint32_t *place, uint32_t value, int order) nogil
    enum:
        _ACQUIRE "__ATOMIC_ACQUIRE"
        _RELEASE "__ATOMIC_RELEASE"
        _RELAXED "__ATOMIC_RELAXED"

cdef enum:
    THREADS_MAX = 64
    SOCKETS_MAX = 8
    EVENTS_MAX = 256
    ACCEPTS_PER_ROUND_MAX = 64
    READ_SIZE = 1 << 16
    # Of TLS, of at most 16 KiB each.
    RECORDS_PER_ROUND_MAX = 4
    WRITE_SIZE = 1 << 16
    TICK_MS = 100
    BACKLOG = 1024
    NETWORK_SIZE = 16
    BUSY_POLL_US_MAX = 1_000_000
    CPUS_MAX = 1024
    # Places in an event's data, before those of connections.
    EVENT_WAKE = 0
    EVENT_COMMIT = 1
    EVENT_GIVEN = 2
    EVENT_SOCKETS = 3
    EVENT_CONNECTIONS = 16

cdef uint64_t SECOND_NS = 1_000_000_000

# The thread's state; it only grows.
cdef enum Phase:
    PHASE_SERVING = 1
    PHASE_DRAINING = 2

# Where connections come from, and how many are open: each thread takes its own away.
cdef struct Network:
    uint8_t address[NETWORK_SIZE]
    uint32_t count

cdef struct Connection:
    Session session
    # In the list of those that are open, or free, or closed; the latter have no previous.
    Connection *next
    Connection *previous
    # NULL: a Unix socket.
    Network *network
    int file
    bint is_open
    # NULL: plain text; and whether bytes can be sent.
    SSL *tls
    bint is_secured
    # What the socket did not take, and since when.
    uint8_t *left
    size_t left_size
    size_t left_sent
    uint64_t stuck_ns

# A connection on its way from the thread that accepted it to its own.
cdef struct Given:
    Network *network
    int file
    uint32_t place
    char peer[PEER_SIZE]

# A thread.
cdef struct State:
    Front front
    Connection *connections
    Connection *open
    Connection *free
    # Closed in this round: an event of it may still be on its way.
    Connection *closed
    uint32_t connections_max
    uint32_t connections_count
    int epoll
    # Of all threads: each write to them is an event of every epoll, and nobody reads them.
    int wake_file
    int commit_file
    # A pipe of Given; the first thread has no other that gives to it.
    int given_read
    int given_write
    # Where it runs: a CPU's number, or -1.
    int cpu
    uint64_t busy_poll_ns
    # A client whose socket takes nothing for so long is gone, or an attack.
    uint64_t socket_wait_ns
    # Whether the last event came soon, so that the next one may.
    bint is_lively
    # All threads, of which the first has the listening sockets, and counts what it gave to each.
    State **threads
    uint32_t threads_count
    uint32_t connections_all_max
    # Of the first thread: those with connections, and up to the last the free ones among them.
    Network *networks
    uint32_t networks_count
    uint32_t connections_per_address_max
    uint64_t given[THREADS_MAX]
    # Of those: refused, or closed.
    uint64_t ended
    int sockets[SOCKETS_MAX]
    # They are not watched until the next tick: a connection could not be accepted.
    bint is_paused
    TlsContext *contexts[SOCKETS_MAX]
    uint32_t sockets_count
    # 0: the clock's. Written by Python.
    uint64_t fixed_time_ns
    uint64_t ticked_ns
    uint64_t end_ns
    # Written by Python.
    uint32_t phase
    uint64_t grace_ns
    uint64_t connections_opened
    uint64_t connections_refused
    uint64_t handshakes_failed
    uint64_t rounds
    uint64_t bytes_received
    uint64_t bytes_sent
    uint8_t incoming[READ_SIZE]
    uint8_t outgoing[WRITE_SIZE]


# --- time ------------------------------------------------------------------------------------

cdef inline uint64_t _now_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <uint64_t>now.tv_sec * SECOND_NS + <uint64_t>now.tv_nsec


cdef inline void _read_clocks(State *state) noexcept nogil:
    state.front.now_ns = _now_ns(CLOCK_MONOTONIC)
    state.front.time_ns = _load_long(&state.fixed_time_ns, _RELAXED)
    if state.front.time_ns == 0:
        state.front.time_ns = _now_ns(CLOCK_REALTIME)


# --- connections -----------------------------------------------------------------------------

cdef void _watch(
    State *state, Connection *connection, int operation, uint32_t events
) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = EVENT_CONNECTIONS + <uint64_t>(connection - state.connections)
    epoll_ctl(state.epoll, operation, connection.file, &event)


cdef inline void _leave(Network *network) noexcept nogil:
    if network != NULL:
        _subtract(&network.count, 1, _RELEASE)


cdef void _close_connection(State *state, Connection *connection) noexcept nogil:
    if not connection.is_open:
        return
    session_close(&connection.session)
    if connection.tls != NULL:
        tls_close(connection.tls)
        connection.tls = NULL
    close(connection.file)
    free(connection.left)
    connection.left = NULL
    connection.left_size = 0
    connection.is_open = False
    if connection.previous != NULL:
        connection.previous.next = connection.next
    else:
        state.open = connection.next
    if connection.next != NULL:
        connection.next.previous = connection.previous
    connection.next = state.closed
    state.closed = connection
    _leave(connection.network)
    count_one(&state.ended)
    set_number(&state.connections_count, state.connections_count - 1)


cdef void _free_closed(State *state) noexcept nogil:
    cdef Connection *connection
    while state.closed != NULL:
        connection = state.closed
        state.closed = connection.next
        connection.next = state.free
        state.free = connection


cdef void _refuse_connection(State *state, const Given *given) noexcept nogil:
    count_one(&state.connections_refused)
    _leave(given.network)
    count_one(&state.ended)
    close(given.file)


cdef void _give_up(State *state, Connection *connection, const Given *given) noexcept nogil:
    """Undo the beginning of a connection that there is no memory for."""
    if connection.tls != NULL:
        tls_close(connection.tls)
        connection.tls = NULL
    connection.next = state.free
    state.free = connection
    _refuse_connection(state, given)


cdef void _open_connection(State *state, const Given *given) noexcept nogil:
    cdef TlsContext *context = state.contexts[given.place]
    cdef int file = given.file
    cdef Connection *connection = state.free
    cdef int one = 1
    cdef int busy_poll_us = <int>(state.busy_poll_ns / 1000)
    if connection == NULL or _load(&state.phase, _ACQUIRE) != PHASE_SERVING:
        _refuse_connection(state, given)
        return
    state.free = connection.next
    # It fails on a Unix socket, which has nothing to delay.
    setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    if busy_poll_us > 0:
        # Where the network's driver can be polled, and the process may ask for it.
        setsockopt(file, SOL_SOCKET, SO_BUSY_POLL, &busy_poll_us, sizeof(busy_poll_us))
    connection.file = file
    connection.network = given.network
    connection.left = NULL
    connection.left_size = 0
    connection.left_sent = 0
    connection.tls = tls_open(context, file) if context != NULL else NULL
    connection.is_secured = context == NULL
    if context != NULL and connection.tls == NULL:
        _give_up(state, connection, given)
        return
    if not session_open(&connection.session, &state.front, connection):
        _give_up(state, connection, given)
        return
    memcpy(connection.session.peer, given.peer, PEER_SIZE)
    connection.is_open = True
    connection.previous = NULL
    connection.next = state.open
    if state.open != NULL:
        state.open.previous = connection
    state.open = connection
    set_number(&state.connections_count, state.connections_count + 1)
    count_one(&state.connections_opened)
    _watch(state, connection, EPOLL_CTL_ADD, EPOLLIN)


cdef Network *_network_of(State *state, const uint8_t *address) noexcept nogil:
    """Return where it is counted what comes from an address; NULL if all places are taken.

    There are as many as connections, so that those that have one leave a place for one more.
    """
    cdef Network *network
    cdef Network *vacant = NULL
    cdef uint32_t index
    for index in range(state.networks_count):
        network = &state.networks[index]
        if _load(&network.count, _ACQUIRE) == 0:
            vacant = network
        elif memcmp(network.address, address, NETWORK_SIZE) == 0:
            return network
    if vacant == NULL and state.networks_count < state.connections_all_max:
        vacant = &state.networks[state.networks_count]
        state.networks_count += 1
    if vacant != NULL:
        memcpy(vacant.address, address, NETWORK_SIZE)
    return vacant


cdef bint _enter(State *state, Network *network) noexcept nogil:
    """Count one more connection of a network; False if it has as many as it may."""
    if network == NULL:
        return True
    if _load(&network.count, _RELAXED) >= state.connections_per_address_max:
        return False
    _add(&network.count, 1, _RELAXED)
    return True


cdef void _give(State *state, const Given *given) noexcept nogil:
    """Give an accepted connection to the thread that has the fewest."""
    cdef State *thread
    cdef uint32_t index
    cdef uint32_t chosen = 0
    cdef uint64_t open, all_open = 0
    cdef uint64_t fewest = UINT64_MAX
    for index in range(state.threads_count):
        thread = state.threads[index]
        open = state.given[index] - _load_long(&thread.ended, _ACQUIRE)
        all_open += open
        if open < fewest:
            fewest = open
            chosen = index
    thread = state.threads[chosen]
    if all_open >= state.connections_all_max or not _enter(state, given.network):
        count_one(&state.connections_refused)
        close(given.file)
    elif thread == state:
        state.given[chosen] += 1
        _open_connection(state, given)
    elif write(thread.given_write, given, sizeof(Given)) == sizeof(Given):
        state.given[chosen] += 1
    else:
        # It takes nothing: thousands are on their way.
        _leave(given.network)
        count_one(&state.connections_refused)
        close(given.file)


cdef void _take_given(State *state) noexcept nogil:
    cdef Given given
    while read(state.given_read, &given, sizeof(Given)) == sizeof(Given):
        _open_connection(state, &given)


cdef void _watch_sockets(State *state, uint32_t events) noexcept nogil:
    cdef epoll_event event
    cdef uint32_t place
    event.events = events
    for place in range(state.sockets_count):
        event.data.u64 = EVENT_SOCKETS + <uint64_t>place
        epoll_ctl(state.epoll, EPOLL_CTL_MOD, state.sockets[place], &event)


cdef void _accept(State *state, uint32_t place) noexcept nogil:
    cdef Given given
    cdef uint8_t address[NETWORK_SIZE]
    cdef bint is_unix
    cdef int _index
    given.place = place
    for _index in range(ACCEPTS_PER_ROUND_MAX):
        given.file = _accept_from(state.sockets[place], given.peer, PEER_SIZE, address, &is_unix)
        if given.file >= 0:
            given.network = NULL if is_unix else _network_of(state, address)
            if given.network == NULL and not is_unix:
                count_one(&state.connections_refused)
                close(given.file)
            else:
                _give(state, &given)
        elif c_errno.errno == EAGAIN:
            return
        elif c_errno.errno != EINTR and c_errno.errno != ECONNABORTED:
            # No file or no memory for it: the socket stays readable, and would be an event of every
            # round.
            state.is_paused = True
            _watch_sockets(state, 0)
            return


cdef bint _write(
    Connection *connection, const uint8_t *start, size_t size, size_t *written
) noexcept nogil:
    """Write what the socket takes; False if it is broken."""
    cdef Py_ssize_t taken
    written[0] = 0
    while written[0] < size:
        if connection.tls != NULL:
            taken = tls_write(connection.tls, start + written[0], size - written[0])
            if taken <= 0:
                return taken == TLS_AGAIN
            written[0] += <size_t>taken
            continue
        taken = send(connection.file, start + written[0], size - written[0], MSG_NOSIGNAL)
        if taken >= 0:
            written[0] += <size_t>taken
        elif c_errno.errno == EAGAIN:
            return True
        elif c_errno.errno != EINTR:
            return False
    return True


cdef bint _write_left(State *state, Connection *connection) noexcept nogil:
    """Go on with what the socket did not take; False if it is broken."""
    cdef size_t written
    if not _write(
        connection,
        connection.left + connection.left_sent,
        connection.left_size - connection.left_sent,
        &written,
    ):
        return False
    connection.left_sent += written
    if written > 0:
        connection.stuck_ns = state.front.now_ns
    if connection.left_sent == connection.left_size:
        free(connection.left)
        connection.left = NULL
        connection.left_size = 0
        connection.left_sent = 0
        _watch(state, connection, EPOLL_CTL_MOD, EPOLLIN)
    return True


cdef bint _keep(State *state, Connection *connection, size_t written, size_t size) noexcept nogil:
    """Keep what the socket did not take; the client is not read until it is gone."""
    connection.left = <uint8_t *>malloc(size - written)
    if connection.left == NULL:
        return False
    memcpy(connection.left, state.outgoing + written, size - written)
    connection.left_size = size - written
    connection.left_sent = 0
    connection.stuck_ns = state.front.now_ns
    _watch(state, connection, EPOLL_CTL_MOD, EPOLLOUT)
    return True


cdef void _flush(State *state, Connection *connection) noexcept nogil:
    """Send what a session has, as far as the socket takes it."""
    cdef size_t size, written
    if not connection.is_open or not connection.is_secured:
        return
    if connection.left_size > 0 and not _write_left(state, connection):
        _close_connection(state, connection)
        return
    while connection.left_size == 0:
        size = session_take(&connection.session, state.outgoing, WRITE_SIZE)
        if size == 0:
            break
        count_up(&state.bytes_sent, size)
        if not _write(connection, state.outgoing, size, &written) or (
            written < size and not _keep(state, connection, written, size)
        ):
            _close_connection(state, connection)
            return
    front_sent(&state.front)
    if connection.left_size == 0 and session_is_over(&connection.session):
        _close_connection(state, connection)


cdef bint _feed(State *state, Connection *connection, size_t size) noexcept nogil:
    """Give what has come to the session; False if the connection is closed for it."""
    count_up(&state.bytes_received, size)
    if session_feed(&connection.session, state.incoming, size):
        return True
    # What it has to say about that, if anything, is sent; then it is over.
    _flush(state, connection)
    _close_connection(state, connection)
    return False


cdef void _read_tls(State *state, Connection *connection) noexcept nogil:
    """As _read, but what comes is decrypted, a record at a time."""
    cdef Py_ssize_t size
    cdef int _index
    if not connection.is_secured:
        size = tls_shake(connection.tls)
        if size == TLS_BROKEN:
            count_one(&state.handshakes_failed)
            _close_connection(state, connection)
        if size != 1:
            return
        connection.is_secured = True
        connection.session.keys_count = tls_keys(
            connection.tls, connection.session.keys, connection.session.shown
        )
        _flush(state, connection)
    for _index in range(RECORDS_PER_ROUND_MAX):
        if not connection.is_open:
            return
        size = tls_read(connection.tls, state.incoming, READ_SIZE)
        if size == TLS_AGAIN:
            return
        if size <= 0:
            _close_connection(state, connection)
            return
        if not _feed(state, connection, <size_t>size):
            return


cdef void _read(State *state, Connection *connection) noexcept nogil:
    """Feed what has come, at most one buffer of it."""
    cdef Py_ssize_t size
    if connection.tls != NULL:
        _read_tls(state, connection)
        return
    size = recv(connection.file, state.incoming, READ_SIZE, 0)
    if size < 0 and (c_errno.errno == EAGAIN or c_errno.errno == EINTR):
        return
    if size <= 0:
        _close_connection(state, connection)
    else:
        _feed(state, connection, <size_t>size)


# --- rounds ----------------------------------------------------------------------------------

cdef void _tick(State *state) noexcept nogil:
    """Look at all times, once in TICK_MS."""
    cdef Connection *connection
    cdef Connection *next = state.open
    state.ticked_ns = state.front.now_ns
    if state.is_paused:
        state.is_paused = False
        _watch_sockets(state, EPOLLIN)
    while next != NULL:
        connection = next
        next = connection.next
        if not session_tick(&connection.session) or (
            connection.left_size > 0
            and state.front.now_ns - connection.stuck_ns > state.socket_wait_ns
        ):
            _close_connection(state, connection)


cdef void _begin_drain(State *state) noexcept nogil:
    cdef uint32_t index
    state.end_ns = state.front.now_ns + state.grace_ns
    front_drain(&state.front)
    for index in range(state.sockets_count):
        close(state.sockets[index])
    state.sockets_count = 0
    for index in range(state.connections_max):
        if state.connections[index].is_open:
            session_drain(&state.connections[index].session)


cdef void _handle(State *state, const epoll_event *event) noexcept nogil:
    cdef uint64_t place = event.data.u64
    cdef Connection *connection
    if place == EVENT_WAKE:
        # The phase is looked at after each round.
        return
    if place == EVENT_COMMIT:
        front_wake(&state.front)
    elif place == EVENT_GIVEN:
        _take_given(state)
    elif place < EVENT_CONNECTIONS:
        if place - EVENT_SOCKETS < state.sockets_count:
            _accept(state, <uint32_t>(place - EVENT_SOCKETS))
    else:
        connection = &state.connections[place - EVENT_CONNECTIONS]
        if connection.is_open and event.events & EPOLLOUT:
            _flush(state, connection)
        if connection.is_open and event.events & (EPOLLIN | EPOLLERR | EPOLLHUP):
            _read(state, connection)


cdef bint _send_all(State *state) noexcept nogil:
    """Send what sessions have; True if anything was sent."""
    cdef Session *session = front_dirty(&state.front)
    cdef bint any = session != NULL
    while session != NULL:
        _flush(state, <Connection *>session.owner)
        session = front_dirty(&state.front)
    return any


cdef int _wait(State *state, epoll_event *events) noexcept nogil:
    """Wait for events; without going to sleep, as long as they come at short intervals."""
    cdef uint64_t begun_ns = _now_ns(CLOCK_MONOTONIC)
    cdef uint64_t now_ns = begun_ns
    cdef int count = 0
    while state.is_lively and count == 0 and now_ns - begun_ns < state.busy_poll_ns:
        count = epoll_wait(state.epoll, events, EVENTS_MAX, 0)
        now_ns = _now_ns(CLOCK_MONOTONIC)
        if count == 0:
            # To the client, if it has no CPU of its own.
            sched_yield()
    if count == 0:
        count = epoll_wait(state.epoll, events, EVENTS_MAX, TICK_MS)
        now_ns = _now_ns(CLOCK_MONOTONIC)
    # Twice: to wake a thread takes about as long as what it would have waited for.
    state.is_lively = count > 0 and now_ns - begun_ns < 2 * state.busy_poll_ns
    return count


cdef void _decide_all(State *state) noexcept nogil:
    # What is sent can make room for the next messages of a stream, so until nothing moves.
    while front_decide(&state.front) or _send_all(state):
        pass


cdef void _round(State *state) noexcept nogil:
    cdef epoll_event events[EVENTS_MAX]
    cdef int count = _wait(state, events)
    cdef int index
    _read_clocks(state)
    front_look(&state.front)
    for index in range(count):
        _handle(state, &events[index])
        # To refuse a call costs about half of what it costs to decide it: under more load than can
        # be answered the pool is emptied before it is full, and what comes waits in its socket.
        if state.front.calls_free < state.front.limits.calls_max // 2:
            _decide_all(state)
    if state.front.now_ns - state.ticked_ns >= TICK_MS * <uint64_t>1_000_000:
        _tick(state)
    _decide_all(state)
    _free_closed(state)
    count_one(&state.rounds)


cdef void *_run(void *argument) noexcept nogil:
    cdef State *state = <State *>argument
    cdef bint is_draining = False
    if state.cpu >= 0:
        _pin(<unsigned int>state.cpu)
    _read_clocks(state)
    state.ticked_ns = state.front.now_ns
    while True:
        _round(state)
        if not is_draining and _load(&state.phase, _ACQUIRE) == PHASE_DRAINING:
            is_draining = True
            _begin_drain(state)
            _send_all(state)
        if is_draining and (
            state.connections_count == 0 or state.front.now_ns >= state.end_ns
        ):
            return NULL


# --- for Python ------------------------------------------------------------------------------

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})", re.ASCII)


def _open_socket(address):
    """Return a listening socket."""
    if address.startswith("unix:"):
        listening = socket.socket(socket.AF_UNIX)
        target = address.removeprefix("unix:")
    else:
        match = _ADDRESS.fullmatch(address)
        if match is None or int(match[3]) > 65535:
            raise ValueError(
                f"address {address!r}: must be host:port, [IPv6]:port or unix:path,"
                " port 0 to 65535"
            )
        family, kind, protocol, _, target = socket.getaddrinfo(
            match[1] or match[2], int(match[3]), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    try:
        if listening.family == socket.AF_UNIX:
            _remove_stale(target)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(target)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path):
    """Remove the socket that a server left behind which is gone: nobody answers there."""
    with socket.socket(socket.AF_UNIX) as probe:
        found = probe.connect_ex(path)
    if found == errno.ECONNREFUSED:
        os.unlink(path)
    elif found != errno.ENOENT:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def _name_of(listening):
    """Return the address that a socket has, as it was given."""
    if listening.family == socket.AF_UNIX:
        return "unix:" + listening.getsockname()
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _part_of(whole, parts):
    """Return a part of a bound; all together are at least the whole."""
    return (whole + parts - 1) // parts


def _check_threads(threads, cpus, busy_poll_us):
    """Raise ValueError if threads cannot run so."""
    if not 1 <= threads <= THREADS_MAX:
        raise ValueError(f"threads {threads}: must be 1 to {THREADS_MAX}")
    if not 0 <= busy_poll_us <= BUSY_POLL_US_MAX:
        raise ValueError(f"busy_poll_us {busy_poll_us}: must be 0 to {BUSY_POLL_US_MAX}")
    if cpus and len(cpus) != threads:
        raise ValueError(f"cpus has {len(cpus)} numbers for {threads} threads: one for each")
    allowed = os.sched_getaffinity(0)
    for cpu in cpus:
        if cpu not in allowed or cpu >= CPUS_MAX:
            raise ValueError(
                f"cpus has {cpu}: the process may run on {', '.join(map(str, sorted(allowed)))}"
            )


cdef dict _counts_of(State *state):
    return {
        "calls_begun": _load_long(&state.front.calls_begun, _RELAXED),
        "calls_answered": _load_long(&state.front.calls_answered, _RELAXED),
        "calls_refused": _load_long(&state.front.calls_refused, _RELAXED),
        "calls_overloaded": _load_long(&state.front.calls_overloaded, _RELAXED),
        "connections_abused": _load_long(&state.front.sessions_abused, _RELAXED),
        "connections_opened": _load_long(&state.connections_opened, _RELAXED),
        "connections_refused": _load_long(&state.connections_refused, _RELAXED),
        "handshakes_failed": _load_long(&state.handshakes_failed, _RELAXED),
        "rounds": _load_long(&state.rounds, _RELAXED),
        "http_refused": _load_long(&state.front.gauges.http_refused, _RELAXED),
        "messages_streamed": _load_long(&state.front.gauges.messages_streamed, _RELAXED),
        "resets": _load_long(&state.front.gauges.resets, _RELAXED),
        "bytes_received": _load_long(&state.bytes_received, _RELAXED),
        "bytes_sent": _load_long(&state.bytes_sent, _RELAXED),
        "connections_open": _load(&state.connections_count, _RELAXED),
        "streams_open": _load(&state.front.lanes_count, _RELAXED),
        "calls_open": state.front.limits.calls_max - _load(&state.front.calls_free, _RELAXED),
    }


cdef int _add_event(int epoll, int file, uint64_t place, uint32_t events) except -1:
    cdef epoll_event event
    event.events = events
    event.data.u64 = place
    if epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event) != 0:
        raise OSError(c_errno.errno, os.strerror(c_errno.errno))
    return 0


cdef void _free_state(State *state) noexcept:
    for file in (state.epoll, state.given_read, state.given_write):
        if file >= 0:
            close(file)
    front_close(&state.front)
    free(state.connections)
    free(state.networks)
    free(state)


# Its threads use the engine until it is deallocated, in a cycle of garbage too.
@cython.no_gc_clear
cdef class Listener:
    # Each thread's; the first has the listening sockets.
    cdef State *_states[THREADS_MAX]
    cdef pthread_t _threads[THREADS_MAX]
    cdef uint32_t _count
    cdef uint32_t _running
    cdef int _wake_file
    cdef int _commit_file
    cdef bint _is_attached
    cdef object _engine
    cdef object _permits
    # Who stops it second waits for the first.
    cdef object _stopping
    # Of addresses with TLS, kept alive.
    cdef list _secured
    cdef list _paths

    def __cinit__(
        self,
        engine,
        *,
        threads=1,
        cpus=(),
        busy_poll_us=50,
        connections_max=1024,
        connections_per_address_max=256,
        calls_max=4096,
        streams_per_connection_max=256,
        message_bytes_max=1 << 20,
        buffered_bytes_max=64 << 20,
        room_wait_ms_max=10_000,
        idle_ms_max=0,
        age_ms_max=0,
        age_grace_ms=10_000,
        socket_wait_ms_max=20_000,
        handshake_ms_max=5_000,
        calls_per_timed=64,
        time_ns=0,
        Permits permits=None,
    ):
        cdef Limits limits = limits_default()
        cdef uint32_t index
        self._wake_file = self._commit_file = -1
        _check_threads(threads, cpus, busy_poll_us)
        # An equal part of what all have.
        limits.calls_max = _part_of(calls_max, threads)
        limits.lanes_max = _part_of(limits.lanes_max, threads)
        limits.buffered_size_max = _part_of(buffered_bytes_max, threads)
        limits.streams_per_connection_max = streams_per_connection_max
        limits.message_size_max = message_bytes_max
        limits.room_wait_ns = room_wait_ms_max * 1_000_000
        limits.idle_ns = idle_ms_max * 1_000_000 or UINT64_MAX
        limits.age_ns = age_ms_max * 1_000_000 or UINT64_MAX
        limits.grace_ns = age_grace_ms * 1_000_000
        limits.handshake_ns = handshake_ms_max * 1_000_000
        limits.calls_per_timed = calls_per_timed
        self._paths = []
        self._secured = []
        self._engine = engine
        self._permits = permits
        self._stopping = threading.Lock()
        self._wake_file = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        self._commit_file = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self._wake_file < 0 or self._commit_file < 0:
            raise OSError(c_errno.errno, os.strerror(c_errno.errno))
        limits.connections_max = _part_of(connections_max, threads)
        for _index in range(threads):
            self._open_state(&limits, time_ns)
        for index in range(self._count):
            self._states[index].threads = self._states
            self._states[index].threads_count = self._count
            self._states[index].connections_all_max = connections_max
            self._states[index].connections_per_address_max = connections_per_address_max
            self._states[index].cpu = cpus[index] if cpus else -1
            self._states[index].busy_poll_ns = busy_poll_us * 1000
            self._states[index].socket_wait_ns = socket_wait_ms_max * 1_000_000
        self._states[0].networks = <Network *>calloc(connections_max, sizeof(Network))
        if self._states[0].networks == NULL:
            raise MemoryError("no memory for the networks of connections")
        if self._states[0].front.door.log != NULL:
            journal_attach(self._states[0].front.door.log, self._commit_file)
            self._is_attached = True

    cdef int _open_state(self, const Limits *limits, uint64_t time_ns) except -1:
        """Make the state of one more thread."""
        cdef Permits permits = self._permits
        cdef int given[2]
        cdef uint32_t index = limits.connections_max
        cdef State *state = <State *>calloc(1, sizeof(State))
        if state == NULL:
            raise MemoryError("no memory for a listener")
        state.epoll = state.given_read = state.given_write = -1
        self._states[self._count] = state
        self._count += 1
        state.wake_file = self._wake_file
        state.commit_file = self._commit_file
        state.fixed_time_ns = time_ns
        state.phase = PHASE_SERVING
        state.connections_max = limits.connections_max
        state.connections = <Connection *>calloc(limits.connections_max, sizeof(Connection))
        capsule = self._engine.door()
        if state.connections == NULL or not front_open(
            &state.front,
            <const HotDoor *>PyCapsule_GetPointer(capsule, "riskd.core.hot.HotDoor"),
            limits,
        ):
            raise MemoryError("the pools of connections and calls do not fit in memory")
        if permits is not None:
            front_guard(&state.front, &permits.gate)
        while index > 0:
            index -= 1
            state.connections[index].next = state.free
            state.free = &state.connections[index]
        state.epoll = epoll_create1(EPOLL_CLOEXEC)
        if state.epoll < 0 or pipe2(given, O_CLOEXEC | O_NONBLOCK) != 0:
            raise OSError(c_errno.errno, os.strerror(c_errno.errno))
        state.given_read, state.given_write = given[0], given[1]
        _add_event(state.epoll, state.wake_file, EVENT_WAKE, EPOLLIN | EPOLLET)
        _add_event(state.epoll, state.commit_file, EVENT_COMMIT, EPOLLIN | EPOLLET)
        _add_event(state.epoll, state.given_read, EVENT_GIVEN, EPOLLIN)
        return 0

    def __dealloc__(self):
        cdef uint32_t index
        if self._count > 0:
            self._end(0)
        for index in range(self._count):
            _free_state(self._states[index])
        for file in (self._wake_file, self._commit_file):
            if file >= 0:
                close(file)

    def listen(self, address, Tls tls=None):
        cdef State *state = self._states[0]
        cdef uint32_t index
        if self._running > 0 or state.phase != PHASE_SERVING:
            raise ValueError("addresses are listened on before the start")
        if state.sockets_count == SOCKETS_MAX:
            raise ValueError(f"at most {SOCKETS_MAX} addresses can be listened on")
        listening = _open_socket(address)
        name = _name_of(listening)
        if listening.family == socket.AF_UNIX:
            self._paths.append(listening.getsockname())
        if tls is not None:
            self._secured.append(tls)
        for index in range(self._count):
            self._states[index].contexts[state.sockets_count] = (
                NULL if tls is None else &tls.context
            )
        state.sockets[state.sockets_count] = listening.detach()
        state.sockets_count += 1
        return name

    def start(self):
        cdef State *state = self._states[0]
        cdef sigset_t all_signals, before
        cdef uint32_t index
        cdef int error = 0
        if self._running > 0 or state.phase != PHASE_SERVING:
            raise ValueError("a listener is started once")
        for index in range(state.sockets_count):
            _add_event(state.epoll, state.sockets[index], EVENT_SOCKETS + index, EPOLLIN)
        sigfillset(&all_signals)
        pthread_sigmask(SIG_SETMASK, &all_signals, &before)
        # The first is the last to start: it gives connections to the others.
        index = self._count
        while index > 0 and error == 0:
            index -= 1
            error = pthread_create(&self._threads[index], NULL, _run, self._states[index])
            if error == 0:
                self._running += 1
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if error != 0:
            self._end(0)
            raise OSError(error, os.strerror(error))

    def stop(self, grace_ms=0):
        with self._stopping:
            # Before the sockets are shut: then another may listen there.
            for path in self._paths:
                if os.path.exists(path):
                    os.unlink(path)
            self._paths.clear()
            self._end(grace_ms)

    cdef _end(self, grace_ms):
        """End all threads, and close all that is open."""
        cdef State *state
        cdef Given given
        cdef uint32_t index, place
        cdef uint32_t first = self._count - self._running
        for index in range(self._count):
            self._states[index].grace_ns = <uint64_t>grace_ms * 1_000_000
            _store(&self._states[index].phase, PHASE_DRAINING, _RELEASE)
        if self._running > 0:
            self._running = 0
            eventfd_write(self._wake_file, 1)
            for index in range(first, self._count):
                with nogil:
                    pthread_join(self._threads[index], NULL)
        for index in range(self._count):
            state = self._states[index]
            for place in range(state.sockets_count):
                close(state.sockets[place])
            state.sockets_count = 0
            while state.given_read >= 0 and (
                read(state.given_read, &given, sizeof(Given)) == sizeof(Given)
            ):
                close(given.file)
            for place in range(state.connections_max if state.connections != NULL else 0):
                _close_connection(state, &state.connections[place])
        if self._is_attached:
            # Now: engine and journal may be gone when the listener goes.
            self._is_attached = False
            journal_attach(self._states[0].front.door.log, -1)

    def set_time(self, uint64_t time_ns):
        cdef uint32_t index
        for index in range(self._count):
            _store_long(&self._states[index].fixed_time_ns, time_ns, _RELAXED)

    def measured(self):
        cdef uint32_t index
        cdef Gauges *total
        if self._count == 1:
            return gauges_row(&self._states[0].front.gauges)
        total = <Gauges *>calloc(1, sizeof(Gauges))
        if total == NULL:
            raise MemoryError("no memory for what all threads measured")
        try:
            for index in range(self._count):
                gauges_add(total, &self._states[index].front.gauges)
            return gauges_row(total)
        finally:
            free(total)

    def counts(self):
        cdef uint32_t index
        counts = _counts_of(self._states[0])
        for index in range(1, self._count):
            for name, count in _counts_of(self._states[index]).items():
                counts[name] += count
        return counts
