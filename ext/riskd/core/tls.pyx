"""TLS of a server's connections: OpenSSL, TLS 1.3 only, ALPN h2 only.

No session tickets: a connection of a gateway lives for hours, and a resumed one would not show its
client's certificate again.
"""

import os

from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp

from riskd.core.permits cimport (
    KEY_COMMON_NAME,
    KEY_SPIFFE,
    KEY_SUBJECT,
    SHOWN_SIZE,
    Key,
)

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)

cdef extern from *:
    """
    #include <openssl/err.h>
    #include <openssl/sha.h>
    #include <openssl/ssl.h>
    #include <openssl/x509v3.h>

    /* The URI among the alternative names of a certificate if there is only one. */
    static int riskd_only_uri(GENERAL_NAMES *names, const unsigned char **start) {
        int size = 0;
        int count = 0;
        for (int index = 0; index < sk_GENERAL_NAME_num(names); index++) {
            const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, index);
            if (name->type == GEN_URI) {
                count++;
                *start = ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
                size = ASN1_STRING_length(name->d.uniformResourceIdentifier);
            }
        }
        return count == 1 ? size : 0;
    }
    """
    ctypedef struct X509:
        pass
    ctypedef struct X509_NAME:
        pass
    ctypedef struct X509_NAME_ENTRY:
        pass
    ctypedef struct ASN1_STRING:
        pass
    ctypedef struct GENERAL_NAMES:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    enum:
        NID_commonName
        NID_subject_alt_name
    unsigned long XN_FLAG_RFC2253
    int _only_uri "riskd_only_uri"(GENERAL_NAMES *names, const unsigned char **start) nogil
    X509 *SSL_get1_peer_certificate(const SSL *tls) nogil
    void X509_free(X509 *certificate) nogil
    void *X509_get_ext_d2i(const X509 *certificate, int nid, int *critical, int *place) nogil
    void GENERAL_NAMES_free(GENERAL_NAMES *names) nogil
    X509_NAME *X509_get_subject_name(const X509 *certificate) nogil
    int X509_NAME_get_index_by_NID(X509_NAME *name, int nid, int last) nogil
    X509_NAME_ENTRY *X509_NAME_get_entry(const X509_NAME *name, int place) nogil
    ASN1_STRING *X509_NAME_ENTRY_get_data(const X509_NAME_ENTRY *entry) nogil
    int ASN1_STRING_to_UTF8(unsigned char **start, const ASN1_STRING *text) nogil
    void OPENSSL_free(void *start) nogil
    int X509_NAME_print_ex(BIO *to, const X509_NAME *name, int indent, unsigned long flags) nogil
    const BIO_METHOD *BIO_s_mem() nogil
    BIO *BIO_new(const BIO_METHOD *kind) nogil
    int BIO_free(BIO *bio) nogil
    long BIO_get_mem_data(BIO *bio, char **start) nogil
    uint8_t *SHA256(const unsigned char *start, size_t size, unsigned char *hash) nogil
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct X509_NAMES "STACK_OF(X509_NAME)":
        pass
    enum:
        TLS1_3_VERSION
        SSL_FILETYPE_PEM
        SSL_VERIFY_PEER
        SSL_VERIFY_FAIL_IF_NO_PEER_CERT
        SSL_MODE_ENABLE_PARTIAL_WRITE
        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        SSL_MODE_RELEASE_BUFFERS
        SSL_MODE_AUTO_RETRY
        SSL_ERROR_WANT_READ
        SSL_ERROR_WANT_WRITE
        SSL_ERROR_ZERO_RETURN
        SSL_TLSEXT_ERR_OK
        SSL_TLSEXT_ERR_ALERT_FATAL
    const SSL_METHOD *TLS_server_method() nogil
    SSL_CTX *SSL_CTX_new(const SSL_METHOD *method) nogil
    void SSL_CTX_free(SSL_CTX *context) nogil
    int SSL_CTX_up_ref(SSL_CTX *context) nogil
    int SSL_CTX_set_min_proto_version(SSL_CTX *context, int version) nogil
    int SSL_CTX_set_num_tickets(SSL_CTX *context, size_t count) nogil
    long SSL_CTX_set_mode(SSL_CTX *context, long mode) nogil
    long SSL_CTX_clear_mode(SSL_CTX *context, long mode) nogil
    void SSL_CTX_set_default_passwd_cb(
        SSL_CTX *context, int (*call)(char *, int, int, void *) noexcept nogil
    ) nogil
    int SSL_CTX_use_certificate_chain_file(SSL_CTX *context, const char *path) nogil
    int SSL_CTX_use_PrivateKey_file(SSL_CTX *context, const char *path, int kind) nogil
    int SSL_CTX_check_private_key(const SSL_CTX *context) nogil
    int SSL_CTX_load_verify_locations(SSL_CTX *context, const char *file, const char *path) nogil
    X509_NAMES *SSL_load_client_CA_file(const char *path) nogil
    void SSL_CTX_set_client_CA_list(SSL_CTX *context, X509_NAMES *names) nogil
    void SSL_CTX_set_verify(SSL_CTX *context, int mode, void *call) nogil
    void SSL_CTX_set_alpn_select_cb(
        SSL_CTX *context,
        int (*call)(
            SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int,
            void *,
        ) noexcept nogil,
        void *argument,
    ) nogil
    SSL *SSL_new(SSL_CTX *context) nogil
    void SSL_free(SSL *tls) nogil
    int SSL_set_fd(SSL *tls, int file) nogil
    void SSL_set_accept_state(SSL *tls) nogil
    int SSL_do_handshake(SSL *tls) nogil
    int SSL_is_init_finished(const SSL *tls) nogil
    int SSL_read(SSL *tls, void *start, int size) nogil
    int SSL_write(SSL *tls, const void *start, int size) nogil
    int SSL_shutdown(SSL *tls) nogil
    int SSL_get_error(const SSL *tls, int result) nogil
    void SSL_get0_alpn_selected(
        const SSL *tls, const unsigned char **name, unsigned int *size
    ) nogil
    void ERR_clear_error() nogil
    unsigned long ERR_peek_error() nogil
    const char *ERR_reason_error_string(unsigned long error) nogil

cdef enum:
    # More would not fit OpenSSL's int.
    PART_SIZE_MAX = 1 << 20


cdef int _select_h2(
    SSL *tls,
    const unsigned char **chosen,
    unsigned char *chosen_size,
    const unsigned char *offered,
    unsigned int size,
    void *argument,
) noexcept nogil:
    """Choose h2 of what the client offers: a size and a name each."""
    cdef unsigned int at = 0
    while at < size and offered[at] < size - at:
        if offered[at] == 2 and memcmp(&offered[at + 1], <const char *>"h2", 2) == 0:
            chosen[0] = &offered[at + 1]
            chosen_size[0] = 2
            return SSL_TLSEXT_ERR_OK
        at += 1 + <unsigned int>offered[at]
    return SSL_TLSEXT_ERR_ALERT_FATAL


cdef int _no_password(char *buffer, int size, int writes, void *argument) noexcept nogil:
    """OpenSSL would ask the terminal."""
    return 0


cdef SSL *tls_open(TlsContext *context, int file) noexcept nogil:
    cdef SSL_CTX *current
    cdef SSL *tls
    pthread_mutex_lock(&context.mutex)
    current = context.current
    SSL_CTX_up_ref(current)
    pthread_mutex_unlock(&context.mutex)
    tls = SSL_new(current)
    SSL_CTX_free(current)
    if tls == NULL:
        return NULL
    if SSL_set_fd(tls, file) != 1:
        SSL_free(tls)
        return NULL
    SSL_set_accept_state(tls)
    return tls


cdef Py_ssize_t _verdict(const SSL *tls, int result) noexcept nogil:
    cdef int error = SSL_get_error(tls, result)
    if error == SSL_ERROR_WANT_READ or error == SSL_ERROR_WANT_WRITE:
        return TLS_AGAIN
    return TLS_CLOSED if error == SSL_ERROR_ZERO_RETURN else TLS_BROKEN


cdef int tls_shake(SSL *tls) noexcept nogil:
    cdef const unsigned char *name
    cdef unsigned int size
    cdef int result
    ERR_clear_error()
    result = SSL_do_handshake(tls)
    if result != 1:
        return TLS_AGAIN if _verdict(tls, result) == TLS_AGAIN else TLS_BROKEN
    # A client that offers nothing was not asked what it speaks.
    SSL_get0_alpn_selected(tls, &name, &size)
    return 1 if size == 2 else TLS_BROKEN


cdef inline void _put_key(
    Key *key, uint32_t kind, const unsigned char *start, int size
) noexcept nogil:
    key.kind = kind
    SHA256(start, <size_t>size, key.hash)


cdef bint _put_spiffe(const X509 *certificate, Key *key, char *shown) noexcept nogil:
    """Take the SPIFFE id: the one URI of a certificate (X509-SVID, 2)."""
    cdef GENERAL_NAMES *names = <GENERAL_NAMES *>X509_get_ext_d2i(
        certificate, NID_subject_alt_name, NULL, NULL
    )
    cdef const unsigned char *start = NULL
    cdef int size
    cdef bint is_found
    if names == NULL:
        return False
    size = _only_uri(names, &start)
    is_found = size > 9 and memcmp(start, <const char *>"spiffe://", 9) == 0
    if is_found:
        _put_key(key, KEY_SPIFFE, start, size)
        snprintf(shown, SHOWN_SIZE, "%.*s", size, <const char *>start)
    GENERAL_NAMES_free(names)
    return is_found


cdef bint _put_subject(X509_NAME *subject, Key *key, char *shown) noexcept nogil:
    """Take the whole subject as RFC 2253 writes it."""
    cdef BIO *text = BIO_new(BIO_s_mem())
    cdef char *start = NULL
    cdef long size
    cdef bint is_found
    if text == NULL:
        return False
    is_found = X509_NAME_print_ex(text, subject, 0, XN_FLAG_RFC2253) > 0
    if is_found:
        size = BIO_get_mem_data(text, &start)
        _put_key(key, KEY_SUBJECT, <const unsigned char *>start, <int>size)
        snprintf(shown, SHOWN_SIZE, "%.*s", <int>size, start)
    BIO_free(text)
    return is_found


cdef bint _put_common_name(X509_NAME *subject, Key *key) noexcept nogil:
    """Take the first common name, as gRPC does."""
    cdef int place = X509_NAME_get_index_by_NID(subject, NID_commonName, -1)
    cdef unsigned char *start = NULL
    cdef int size
    if place < 0:
        return False
    size = ASN1_STRING_to_UTF8(
        &start, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, place))
    )
    if size < 0:
        return False
    _put_key(key, KEY_COMMON_NAME, start, size)
    OPENSSL_free(start)
    return True


cdef uint32_t tls_keys(SSL *tls, Key *keys, char *shown) noexcept nogil:
    cdef X509 *certificate = SSL_get1_peer_certificate(tls)
    cdef X509_NAME *subject
    cdef uint32_t count = 0
    shown[0] = 0
    if certificate == NULL:
        return 0
    snprintf(shown, SHOWN_SIZE, "a certificate without a name")
    if _put_spiffe(certificate, &keys[0], shown):
        count = 1
    else:
        subject = X509_get_subject_name(certificate)
        if _put_subject(subject, &keys[count], shown):
            count += 1
        if _put_common_name(subject, &keys[count]):
            count += 1
    X509_free(certificate)
    return count


cdef Py_ssize_t tls_read(SSL *tls, uint8_t *start, size_t size) noexcept nogil:
    cdef int result
    ERR_clear_error()
    result = SSL_read(tls, start, <int>(size if size < PART_SIZE_MAX else PART_SIZE_MAX))
    return result if result > 0 else _verdict(tls, result)


cdef Py_ssize_t tls_write(SSL *tls, const uint8_t *start, size_t size) noexcept nogil:
    cdef int result
    ERR_clear_error()
    result = SSL_write(tls, start, <int>(size if size < PART_SIZE_MAX else PART_SIZE_MAX))
    return result if result > 0 else _verdict(tls, result)


cdef void tls_close(SSL *tls) noexcept nogil:
    ERR_clear_error()
    if SSL_is_init_finished(tls):
        SSL_shutdown(tls)
    SSL_free(tls)


cdef object _refusal(what, path):
    """Return the exception for a file that OpenSSL does not take."""
    cdef const char *reason = ERR_reason_error_string(ERR_peek_error())
    text = reason.decode("ascii", "replace") if reason != NULL else "not usable"
    if not os.path.exists(path):
        text = "no such file"
    return ValueError(f"{what} {os.fspath(path)!r}: {text}")


cdef class Tls:
    def __cinit__(self, certificate, key, client_ca=None):
        pthread_mutex_init(&self.context.mutex, NULL)
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self.context.current = self._load()

    def __dealloc__(self):
        SSL_CTX_free(self.context.current)
        pthread_mutex_destroy(&self.context.mutex)

    def reload(self):
        cdef SSL_CTX *loaded = self._load()
        cdef SSL_CTX *before
        pthread_mutex_lock(&self.context.mutex)
        before = self.context.current
        self.context.current = loaded
        pthread_mutex_unlock(&self.context.mutex)
        # Connections that have it keep it.
        SSL_CTX_free(before)

    cdef SSL_CTX *_load(self) except NULL:
        cdef SSL_CTX *context
        cdef X509_NAMES *names
        ERR_clear_error()
        context = SSL_CTX_new(TLS_server_method())
        if context == NULL:
            raise MemoryError("no memory for TLS")
        try:
            SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION)
            SSL_CTX_set_num_tickets(context, 0)
            SSL_CTX_set_mode(
                context,
                SSL_MODE_ENABLE_PARTIAL_WRITE
                | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                | SSL_MODE_RELEASE_BUFFERS,
            )
            # A client that only renews keys would never let SSL_read() return.
            SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY)
            SSL_CTX_set_default_passwd_cb(context, _no_password)
            SSL_CTX_set_alpn_select_cb(context, _select_h2, NULL)
            path = os.fsencode(self._certificate)
            if SSL_CTX_use_certificate_chain_file(context, path) != 1:
                raise _refusal("certificate", self._certificate)
            path = os.fsencode(self._key)
            if (
                SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) != 1
                or SSL_CTX_check_private_key(context) != 1
            ):
                raise _refusal("key", self._key)
            if self._client_ca is not None:
                path = os.fsencode(self._client_ca)
                names = SSL_load_client_CA_file(path)
                # The context has them from here on.
                SSL_CTX_set_client_CA_list(context, names)
                if names == NULL or SSL_CTX_load_verify_locations(context, path, NULL) != 1:
                    raise _refusal("client certificate authority", self._client_ca)
                SSL_CTX_set_verify(
                    context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL
                )
        except BaseException:
            SSL_CTX_free(context)
            raise
        return context
