"""What is used of libnghttp2, the HTTP/2 library of curl, Apache and Node.js."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef extern from "<nghttp2/nghttp2.h>" nogil:
    ctypedef struct nghttp2_session:
        pass
    ctypedef struct nghttp2_session_callbacks:
        pass
    ctypedef struct nghttp2_option:
        pass
    ctypedef struct nghttp2_rcbuf:
        pass
    ctypedef struct nghttp2_vec:
        uint8_t *base
        size_t len
    ctypedef struct nghttp2_mem:
        void *mem_user_data
        void *(*malloc)(size_t size, void *user) noexcept nogil
        void (*free)(void *memory, void *user) noexcept nogil
        void *(*calloc)(size_t count, size_t size, void *user) noexcept nogil
        void *(*realloc)(void *memory, size_t size, void *user) noexcept nogil
    ctypedef struct nghttp2_nv:
        uint8_t *name
        uint8_t *value
        size_t namelen
        size_t valuelen
        uint8_t flags
    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value
    ctypedef struct nghttp2_frame_hd:
        size_t length
        int32_t stream_id
        uint8_t type
        uint8_t flags
    ctypedef struct nghttp2_headers:
        int cat
    ctypedef union nghttp2_frame:
        nghttp2_frame_hd hd
        nghttp2_headers headers
    ctypedef union nghttp2_data_source:
        void *ptr
    ctypedef Py_ssize_t (*nghttp2_data_source_read_callback)(
        nghttp2_session *session, int32_t stream, uint8_t *start, size_t size, uint32_t *flags,
        nghttp2_data_source *source, void *user,
    ) noexcept nogil
    ctypedef struct nghttp2_data_provider:
        nghttp2_data_source source
        nghttp2_data_source_read_callback read_callback

    ctypedef int (*on_frame_type "nghttp2_on_frame_recv_callback")(
        nghttp2_session *session, const nghttp2_frame *frame, void *user
    ) noexcept nogil
    ctypedef int (*on_begin_frame_type "nghttp2_on_begin_frame_callback")(
        nghttp2_session *session, const nghttp2_frame_hd *head, void *user
    ) noexcept nogil
    ctypedef int (*on_header_type "nghttp2_on_header_callback2")(
        nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
        nghttp2_rcbuf *value, uint8_t flags, void *user,
    ) noexcept nogil
    ctypedef int (*on_data_type "nghttp2_on_data_chunk_recv_callback")(
        nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *start, size_t size,
        void *user,
    ) noexcept nogil
    ctypedef int (*send_data_type "nghttp2_send_data_callback")(
        nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t size,
        nghttp2_data_source *source, void *user,
    ) noexcept nogil
    ctypedef int (*on_close_type "nghttp2_on_stream_close_callback")(
        nghttp2_session *session, int32_t stream, uint32_t error, void *user
    ) noexcept nogil

    enum:
        NGHTTP2_DATA
        NGHTTP2_HEADERS
        NGHTTP2_PRIORITY
        NGHTTP2_RST_STREAM
        NGHTTP2_SETTINGS
        NGHTTP2_PING
        NGHTTP2_WINDOW_UPDATE
        NGHTTP2_CONTINUATION
        NGHTTP2_HCAT_REQUEST
        NGHTTP2_FLAG_NONE
        NGHTTP2_FLAG_END_STREAM
        NGHTTP2_FLAG_END_HEADERS
        NGHTTP2_FLAG_ACK
        NGHTTP2_NV_FLAG_NO_COPY_NAME
        NGHTTP2_NV_FLAG_NO_COPY_VALUE
        NGHTTP2_DATA_FLAG_EOF
        NGHTTP2_DATA_FLAG_NO_END_STREAM
        NGHTTP2_DATA_FLAG_NO_COPY
        NGHTTP2_NO_ERROR
        NGHTTP2_CANCEL
        NGHTTP2_ENHANCE_YOUR_CALM
        NGHTTP2_PROTOCOL_ERROR
        NGHTTP2_ERR_CALLBACK_FAILURE
        NGHTTP2_ERR_DEFERRED
        NGHTTP2_ERR_WOULDBLOCK
        NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE

    int nghttp2_session_callbacks_new(nghttp2_session_callbacks **callbacks)
    void nghttp2_session_callbacks_del(nghttp2_session_callbacks *callbacks)
    void nghttp2_session_callbacks_set_on_begin_frame_callback(
        nghttp2_session_callbacks *callbacks, on_begin_frame_type call
    )
    void nghttp2_session_callbacks_set_on_begin_headers_callback(
        nghttp2_session_callbacks *callbacks, on_frame_type call
    )
    void nghttp2_session_callbacks_set_on_header_callback2(
        nghttp2_session_callbacks *callbacks, on_header_type call
    )
    void nghttp2_session_callbacks_set_on_frame_recv_callback(
        nghttp2_session_callbacks *callbacks, on_frame_type call
    )
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        nghttp2_session_callbacks *callbacks, on_data_type call
    )
    void nghttp2_session_callbacks_set_on_stream_close_callback(
        nghttp2_session_callbacks *callbacks, on_close_type call
    )
    void nghttp2_session_callbacks_set_on_frame_send_callback(
        nghttp2_session_callbacks *callbacks, on_frame_type call
    )
    void nghttp2_session_callbacks_set_send_data_callback(
        nghttp2_session_callbacks *callbacks, send_data_type call
    )
    int nghttp2_option_new(nghttp2_option **option)
    void nghttp2_option_del(nghttp2_option *option)
    void nghttp2_option_set_no_auto_window_update(nghttp2_option *option, int value)
    void nghttp2_option_set_no_http_messaging(nghttp2_option *option, int value)

    void nghttp2_rcbuf_incref(nghttp2_rcbuf *buffer)
    void nghttp2_rcbuf_decref(nghttp2_rcbuf *buffer)
    nghttp2_vec nghttp2_rcbuf_get_buf(nghttp2_rcbuf *buffer)

    int nghttp2_session_server_new3(
        nghttp2_session **session, const nghttp2_session_callbacks *callbacks, void *user,
        const nghttp2_option *option, nghttp2_mem *memory,
    )
    void nghttp2_session_del(nghttp2_session *session)
    Py_ssize_t nghttp2_session_mem_recv(nghttp2_session *session, const uint8_t *start, size_t size)
    Py_ssize_t nghttp2_session_mem_send(nghttp2_session *session, const uint8_t **start)
    int nghttp2_session_want_read(nghttp2_session *session)
    int nghttp2_session_want_write(nghttp2_session *session)
    int nghttp2_session_set_stream_user_data(nghttp2_session *session, int32_t stream, void *user)
    void *nghttp2_session_get_stream_user_data(nghttp2_session *session, int32_t stream)
    int nghttp2_session_get_stream_remote_close(nghttp2_session *session, int32_t stream)
    int32_t nghttp2_session_get_last_proc_stream_id(nghttp2_session *session)
    int nghttp2_session_set_local_window_size(
        nghttp2_session *session, uint8_t flags, int32_t stream, int32_t size
    )
    int nghttp2_session_consume(nghttp2_session *session, int32_t stream, size_t size)
    int nghttp2_session_consume_connection(nghttp2_session *session, size_t size)
    int nghttp2_session_consume_stream(nghttp2_session *session, int32_t stream, size_t size)
    int nghttp2_session_resume_data(nghttp2_session *session, int32_t stream)
    int nghttp2_session_terminate_session(nghttp2_session *session, uint32_t error)
    int nghttp2_submit_response(
        nghttp2_session *session, int32_t stream, const nghttp2_nv *headers, size_t count,
        const nghttp2_data_provider *provider,
    )
    int nghttp2_submit_trailer(
        nghttp2_session *session, int32_t stream, const nghttp2_nv *headers, size_t count
    )
    int nghttp2_submit_rst_stream(
        nghttp2_session *session, uint8_t flags, int32_t stream, uint32_t error
    )
    int nghttp2_submit_settings(
        nghttp2_session *session, uint8_t flags, const nghttp2_settings_entry *entries, size_t count
    )
    int nghttp2_submit_ping(nghttp2_session *session, uint8_t flags, const uint8_t *opaque)
    int nghttp2_submit_shutdown_notice(nghttp2_session *session)
    int nghttp2_submit_goaway(
        nghttp2_session *session, uint8_t flags, int32_t last_stream, uint32_t error,
        const uint8_t *opaque, size_t size,
    )
