"""TLS of a server's connections: OpenSSL, TLS 1.3 only, ALPN h2 only."""

from libc.stdint cimport uint8_t, uint32_t

from riskd.core.permits cimport Key

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass

cdef struct TlsContext:
    # Of `current`, which a reload puts another in the place of.
    pthread_mutex_t mutex
    SSL_CTX *current

cdef enum:
    # In the place of a count of bytes.
    TLS_CLOSED = 0
    TLS_AGAIN = -1
    TLS_BROKEN = -2

# Begin a connection on a socket; NULL if there is no memory for it.
cdef SSL *tls_open(TlsContext *context, int file) noexcept nogil
# Go on with the handshake: 1 when it is done and both speak h2, TLS_AGAIN, TLS_BROKEN.
cdef int tls_shake(SSL *tls) noexcept nogil
# Say what the client's certificate is known by, and a name to show; 0 if it has none of these. The
# name is empty if there is no certificate.
cdef uint32_t tls_keys(SSL *tls, Key *keys, char *shown) noexcept nogil
cdef Py_ssize_t tls_read(SSL *tls, uint8_t *start, size_t size) noexcept nogil
cdef Py_ssize_t tls_write(SSL *tls, const uint8_t *start, size_t size) noexcept nogil
# Say goodbye, if the socket takes it, and free everything.
cdef void tls_close(SSL *tls) noexcept nogil

cdef class Tls:
    cdef TlsContext context
    cdef object _certificate
    cdef object _key
    cdef object _client_ca
    cdef SSL_CTX *_load(self) except NULL
