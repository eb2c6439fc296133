"""The engine for Python: one book under one lock.

What a hot request does is in apply.pyx, what other commands do in admin.pyx and definitions.pyx.
"""

import hashlib
import os

from riskd.core.rows import InstrumentRow

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

cimport riskd.core.admin as admin
from riskd.core.admin cimport Change
from riskd.core.apply cimport (
    HOT_CHECK_AMENDMENT,
    HOT_CHECK_ORDER,
    HOT_GET_RESERVATION,
    HOT_REPORT_EXECUTION,
    HOT_REPORT_MARKS,
    REPLY_SIZE_MAX,
    engine_apply,
)
from riskd.core.book cimport Book, book_close, book_open
from riskd.core.decision cimport max_order_lots
from riskd.core.definitions cimport (
    define_account,
    define_asset,
    define_instrument,
    define_schedule,
)
from riskd.core.types cimport *
from riskd.core.views cimport (
    account_row_of,
    account_rows,
    answer_lines_of,
    asset_rows,
    instrument_rows,
    mark_row,
    position_rows,
    schedule_rows,
    state_lines_of,
    summary_row,
    trading_state_rows,
    working_reservation_ids,
)
from riskd.core.wire cimport (
    FAULT_EMPTY,
    FAULT_OUT_OF_RANGE,
    FAULT_TOO_MANY,
    FAULT_TRUNCATED,
    FAULT_UNKNOWN_FIELD,
    FAULT_VARINT_TOO_LONG,
    FAULT_WIRE_TYPE,
    Malformed,
    Writer,
)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)

METHOD_CHECK_ORDER = HOT_CHECK_ORDER
METHOD_REPORT_EXECUTION = HOT_REPORT_EXECUTION
METHOD_GET_RESERVATION = HOT_GET_RESERVATION
METHOD_REPORT_MARKS = HOT_REPORT_MARKS
METHOD_CHECK_AMENDMENT = HOT_CHECK_AMENDMENT

SCOPE_SERVICE = admin.SCOPE_SERVICE
SCOPE_GATEWAY = admin.SCOPE_GATEWAY
SCOPE_ACCOUNT = admin.SCOPE_ACCOUNT
SCOPE_INSTRUMENT = admin.SCOPE_INSTRUMENT


class MalformedRequestError(ValueError):
    """The request's bytes are not a valid message.

    Names the field and what is wrong. Nothing changed.
    """


_FAULTS = {
    FAULT_TRUNCATED: "is truncated",
    FAULT_UNKNOWN_FIELD: "is not a field of the message",
    FAULT_WIRE_TYPE: "has the wrong wire type",
    FAULT_VARINT_TOO_LONG: "is a varint of more than 64 bits",
    FAULT_OUT_OF_RANGE: "is outside the range of its type",
    FAULT_TOO_MANY: f"is repeated more than {MARKS_PER_REPORT_MAX} times",
    FAULT_EMPTY: "is missing: at least one is needed",
}


cdef object _malformed_error(const Malformed *malformed):
    what = f"field {malformed.field}" if malformed.field else "field number"
    return MalformedRequestError(f"{what} {_FAULTS[malformed.fault]}")


cdef class _Locked:
    """The book's lock as a context. Waiting for it holds no GIL, so that its holder can go on."""
    cdef Engine _engine

    def __cinit__(self, Engine engine):
        self._engine = engine

    def __enter__(self):
        with nogil:
            pthread_mutex_lock(&self._engine._mutex)

    def __exit__(self, *unused):
        pthread_mutex_unlock(&self._engine._mutex)


cdef class Engine:
    cdef Book _book
    cdef pthread_mutex_t _mutex
    cdef uint8_t _reply[REPLY_SIZE_MAX]
    cdef dict _asset_ids
    cdef dict _schedule_ids
    cdef dict _instrument_ids

    def __cinit__(
        self,
        *,
        accounts_max=100_000,
        positions_max=200_000,
        orders_max=200_000,
        instruments_max=4096,
        schedules_max=4096,
        gateways_max=1024,
        answer_bytes=1 << 26,
    ):
        for name, value, low, high in (
            ("accounts_max", accounts_max, 1, 1 << 30),
            ("positions_max", positions_max, 1, 1 << 30),
            ("orders_max", orders_max, 1, 1 << 30),
            ("instruments_max", instruments_max, 1, 1 << 20),
            ("schedules_max", schedules_max, 1, 1 << 20),
            ("gateways_max", gateways_max, 1, 1 << 20),
            ("answer_bytes", answer_bytes, 4096, 1 << 35),
        ):
            if not _in(value, low, high):
                raise ValueError(f"{name} {value} is not within {low} to {high}")
        if answer_bytes % 16:
            raise ValueError(f"answer_bytes {answer_bytes} is not a multiple of 16")
        pthread_mutex_init(&self._mutex, NULL)
        if not book_open(
            &self._book,
            accounts_max,
            positions_max,
            orders_max,
            instruments_max,
            schedules_max,
            gateways_max,
            answer_bytes,
            int.from_bytes(os.urandom(8), "little"),
        ):
            book_close(&self._book)
            raise MemoryError("the tables do not fit in memory")
        self._asset_ids = {}
        self._schedule_ids = {}
        self._instrument_ids = {}

    def __dealloc__(self):
        book_close(&self._book)
        pthread_mutex_destroy(&self._mutex)

    @property
    def revision(self):
        with _Locked(self):
            return self._book.revision

    def handle(self, method, bytes request not None, now_ns):
        cdef const uint8_t *start = <const uint8_t *><const char *>request
        cdef size_t size = <size_t>len(request)
        cdef uint32_t hot_method = method
        cdef uint64_t now = now_ns
        cdef Malformed malformed
        cdef Writer writer
        if hot_method < HOT_CHECK_ORDER or hot_method > HOT_CHECK_AMENDMENT:
            raise ValueError(
                f"method {method} is not within {HOT_CHECK_ORDER} to {HOT_CHECK_AMENDMENT}"
            )
        # A request takes less time than handing the GIL over and back: it is let go only to wait.
        if pthread_mutex_trylock(&self._mutex) != 0:
            with nogil:
                pthread_mutex_lock(&self._mutex)
        try:
            writer.start = self._reply
            writer.capacity = REPLY_SIZE_MAX
            if engine_apply(&self._book, hot_method, start, size, now, &writer, &malformed):
                return self._reply[:<Py_ssize_t>writer.size]
        finally:
            pthread_mutex_unlock(&self._mutex)
        raise _malformed_error(&malformed)

    # Definitions

    def create_asset(self, symbol, scale):
        with _Locked(self):
            return define_asset(&self._book, self._asset_ids, symbol, scale)

    def upsert_schedule(self, name, asset_id, tiers, notional_max=0, liquidation_fee_ppb=0):
        with _Locked(self):
            return define_schedule(
                &self._book,
                self._schedule_ids,
                name,
                asset_id,
                tiers,
                notional_max,
                liquidation_fee_ppb,
            )

    def upsert_instrument(
        self,
        symbol,
        kind,
        asset_id,
        schedule_id,
        tick_mantissa,
        tick_exponent,
        lot_mantissa,
        lot_exponent,
        mark_units_per_tick=1,
        order_lots_min=0,
        order_lots_max=0,
        order_notional_min=0,
        order_notional_max=0,
        price_collar_ppb=0,
        market_buffer_ppb=0,
        taker_fee_ppb=0,
        mark_age_max_ns=0,
        trading_state=0,
        expiry_ns=0,
        strike_units=0,
        option_type=0,
        interest_rate_ppb=0,
        underlying_id=0,
    ):
        row = InstrumentRow(
            0,
            symbol,
            kind,
            asset_id,
            schedule_id,
            tick_mantissa,
            tick_exponent,
            lot_mantissa,
            lot_exponent,
            mark_units_per_tick,
            order_lots_min,
            order_lots_max,
            order_notional_min,
            order_notional_max,
            price_collar_ppb,
            market_buffer_ppb,
            taker_fee_ppb,
            mark_age_max_ns,
            trading_state,
            expiry_ns,
            strike_units,
            option_type,
            interest_rate_ppb,
            underlying_id,
        )
        with _Locked(self):
            return define_instrument(&self._book, self._instrument_ids, row)

    def create_account(self, account_id, asset_id, margin_mode, leverage, cash):
        with _Locked(self):
            return define_account(
                &self._book, account_id, asset_id, margin_mode, leverage, cash
            )

    # Changes

    def adjust_collateral(self, account_id, asset_id, amount, validate_only, now_ns):
        cdef Change change
        cdef uint32_t reason = REASON_UNSPECIFIED
        if not _in(account_id, 0, (1 << 64) - 1) or not _in(asset_id, 0, ASSETS_MAX):
            return (
                REASON_ACCOUNT_UNKNOWN if not _in(
                    account_id, 0, (1 << 64) - 1
                ) else REASON_ASSET_UNKNOWN,
            ), 0, 0
        with _Locked(self):
            # An amount that does not fit is an amount of 0: A-1.
            reason = admin.adjust_collateral(
                &self._book, account_id, asset_id, _fitting(amount), validate_only, now_ns, &change
            )
        return reason, change.figure, change.available

    def transfer_margin(self, account_id, instrument_id, amount, validate_only, now_ns):
        cdef Change change
        cdef uint32_t reason = REASON_UNSPECIFIED
        with _Locked(self):
            reason = admin.transfer_margin(
                &self._book,
                account_id,
                instrument_id,
                _fitting(amount),
                validate_only,
                now_ns,
                &change,
            )
        return reason, change.figure, change.available

    def change_margin_mode(self, account_id, instrument_id, margin_mode, validate_only, now_ns):
        cdef Change change
        cdef uint32_t reason = REASON_UNSPECIFIED
        with _Locked(self):
            reason = admin.change_margin_mode(
                &self._book, account_id, instrument_id, margin_mode, validate_only, now_ns, &change
            )
        return reason, change.figure, change.available

    def set_leverage(self, account_id, instrument_id, leverage, validate_only, now_ns):
        cdef Change change
        cdef uint32_t reason = REASON_UNSPECIFIED
        with _Locked(self):
            reason = admin.set_leverage(
                &self._book,
                account_id,
                instrument_id,
                _fitting(leverage),
                validate_only,
                now_ns,
                &change,
            )
        return reason, change.figure, change.available

    def set_trading_state(self, scope, scope_id, trading_state):
        with _Locked(self):
            return admin.set_trading_state(&self._book, scope, scope_id, trading_state)

    # Reads

    def assets(self):
        with _Locked(self):
            return asset_rows(&self._book)

    def schedules(self):
        with _Locked(self):
            return schedule_rows(&self._book)

    def instruments(self):
        with _Locked(self):
            return instrument_rows(&self._book)

    def mark(self, instrument_id):
        with _Locked(self):
            return mark_row(&self._book, instrument_id)

    def account(self, account_id):
        with _Locked(self):
            return account_row_of(&self._book, account_id)

    def accounts(self, after_id, count_max):
        with _Locked(self):
            return account_rows(&self._book, after_id, count_max)

    def summary(self, account_id):
        with _Locked(self):
            return summary_row(&self._book, account_id)

    def positions(self, account_id):
        with _Locked(self):
            return position_rows(&self._book, account_id)

    def max_order_lots(self, account_id, instrument_id, side, order_type, price_ticks, now_ns):
        cdef OrderRequest request
        cdef uint64_t lots
        cdef uint32_t reason
        memset(&request, 0, sizeof(OrderRequest))
        request.account_id = account_id
        request.instrument_id = instrument_id
        request.side = side
        request.order_type = order_type
        request.price_ticks = price_ticks
        request.quantity_lots = 1
        request.mode = CHECK_MODE_CHECK_ONLY
        with _Locked(self):
            max_order_lots(&self._book, &request, now_ns, &lots, &reason)
        return lots, reason

    def trading_states(self):
        with _Locked(self):
            return trading_state_rows(&self._book)

    def working_reservations(self, scope, scope_id, count_max):
        with _Locked(self):
            return working_reservation_ids(&self._book, scope, scope_id, count_max)

    # Canonical state

    def state_lines(self):
        with _Locked(self):
            return state_lines_of(&self._book)

    def state_hash(self):
        return _digest(self.state_lines())

    def answers_hash(self):
        with _Locked(self):
            lines = answer_lines_of(&self._book)
        return _digest(lines)


cdef _digest(lines):
    digest = hashlib.blake2b(digest_size=32)
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


cdef bint _in(value, low, high):
    """Whether a value from Python is a whole number within bounds."""
    return isinstance(value, int) and low <= value <= high


cdef int64_t _fitting(amount):
    """Return the amount, or 0 (which every change refuses) if it does not fit."""
    return amount if _in(amount, -INT64_MAX, INT64_MAX) else 0
