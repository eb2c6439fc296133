"""Definitions from outside: assets, margin schedules, instruments, accounts.

With the GIL: they are rare. Every bound is checked before the first change; a refusal is a reason
and changes nothing.
"""

import math

from libc.stdint cimport INT64_MAX, uint32_t
from libc.string cimport memcpy, memset

from riskd.core.book cimport Book, account_add, account_find
from riskd.core.families cimport schedule_fault
from riskd.core.money cimport LEVERAGE_ONE, PPB
from riskd.core.types cimport *


# Of one lot at one mark unit: Q U.
_QUOTIENT_MAX = 0x400000000000000000
_OPTIONS = {INSTRUMENT_KIND_LINEAR_OPTION, INSTRUMENT_KIND_INVERSE_OPTION}
_FUTURES = {INSTRUMENT_KIND_LINEAR_FUTURE, INSTRUMENT_KIND_INVERSE_FUTURE}
_INVERSE = {INSTRUMENT_KIND_INVERSE_PERPETUAL, INSTRUMENT_KIND_INVERSE_FUTURE}
_KINDS = {
    INSTRUMENT_KIND_LINEAR_PERPETUAL,
    INSTRUMENT_KIND_QUANTO_PERPETUAL,
    INSTRUMENT_KIND_SPOT,
} | _OPTIONS | _FUTURES | _INVERSE


cdef bint _is_contract(kind):
    return kind not in _OPTIONS and kind != INSTRUMENT_KIND_SPOT


cdef bint _in(value, low, high):
    """Whether a value from Python is a whole number within bounds."""
    return isinstance(value, int) and low <= value <= high


cdef bytes _name(value, size_max):
    """Return a name of 1 to size_max printable ASCII characters as bytes, None for any other."""
    if not isinstance(value, str) or not 1 <= len(value) <= size_max:
        return None
    if any(not 33 <= ord(character) <= 126 for character in value):
        return None
    return value.encode()


cdef object _whole_power(mantissa, exponent):
    """Return mantissa * 10^exponent if it is whole, else None."""
    if exponent >= 0:
        return mantissa * 10**exponent
    quotient, remainder = divmod(mantissa, 10**-exponent)
    return quotient if remainder == 0 else None


cdef object _whole_quotient(dividend, divisor, exponent):
    """Return dividend / divisor * 10^exponent if it is whole, else None."""
    if exponent >= 0:
        dividend *= 10**exponent
    else:
        divisor *= 10**-exponent
    quotient, remainder = divmod(dividend, divisor)
    return quotient if remainder == 0 else None


cdef bint _same_contract(const Instrument *a, const Instrument *b) noexcept nogil:
    """Whether what cannot change is the same."""
    return (
        a.kind == b.kind
        and a.asset_id == b.asset_id
        and a.tick_mantissa == b.tick_mantissa
        and a.tick_exponent == b.tick_exponent
        and a.lot_mantissa == b.lot_mantissa
        and a.lot_exponent == b.lot_exponent
        and a.multiplier_mantissa == b.multiplier_mantissa
        and a.multiplier_exponent == b.multiplier_exponent
        and a.units_per_tick == b.units_per_tick
        and a.expiry_ns == b.expiry_ns
        and a.strike_units == b.strike_units
        and a.option_type == b.option_type
        and a.interest_rate_ppb == b.interest_rate_ppb
        and a.underlying_id == b.underlying_id
        and a.base_asset_id == b.base_asset_id
        and a.isolated_only == b.isolated_only
    )


cdef tuple define_asset(Book *book, dict ids, symbol, scale):
    name = _name(symbol, 15)
    if name is None or not (name.isalnum() and name == name.upper()) or not _in(scale, 0, 12):
        return REASON_DEFINITION_INVALID, 0
    if symbol in ids:
        return REASON_ALREADY_EXISTS, 0
    if book.asset_count == ASSETS_MAX:
        return REASON_DEFINITION_INVALID, 0
    memcpy(
        book.assets[book.asset_count].symbol,
        <const char *>name,
        <size_t>len(name),
    )
    book.assets[book.asset_count].scale = scale
    book.asset_count += 1
    book.revision += 1
    ids[symbol] = book.asset_count
    return REASON_NONE, book.asset_count


cdef tuple define_schedule(Book *book, dict ids, row):
    """Create a schedule, or change one. `row` is a ScheduleRow whose id and version do not count.

    Its tiers are (floor, initial, maintenance, leverage).
    """
    cdef Schedule schedule
    cdef uint32_t index
    memset(&schedule, 0, sizeof(Schedule))
    encoded = _name(row.name, NAME_SIZE - 1)
    if encoded is None:
        return REASON_DEFINITION_INVALID, 0
    if not _in(row.asset_id, 1, book.asset_count):
        return REASON_ASSET_UNKNOWN, 0
    if not (
        1 <= len(row.tiers) <= TIERS_MAX
        and _in(row.notional_max, 0, INT64_MAX)
        and _in(row.liquidation_fee_ppb, 0, PPB - 1)
        and _in(row.family, FAMILY_TIERED, FAMILY_RISK_FACTOR)
        and _in(row.maintenance_basis, MAINTENANCE_BASIS_MARK, MAINTENANCE_BASIS_ENTRY)
        and _in(row.parameter_a, -INT64_MAX, INT64_MAX)
        and _in(row.parameter_b, -INT64_MAX, INT64_MAX)
        and _in(row.parameter_c, -INT64_MAX, INT64_MAX)
        and _in(row.closing_fee, CLOSING_FEE_NONE, CLOSING_FEE_AT_BANKRUPTCY)
    ):
        return REASON_DEFINITION_INVALID, 0
    schedule.ladder.count = <uint32_t>len(row.tiers)
    schedule.ladder.family = row.family
    schedule.ladder.basis = row.maintenance_basis
    schedule.ladder.closing_fee = row.closing_fee
    schedule.ladder.notional_max = row.notional_max
    schedule.ladder.liquidation_fee_ppb = row.liquidation_fee_ppb
    schedule.parameter_a = row.parameter_a
    schedule.parameter_b = row.parameter_b
    schedule.parameter_c = row.parameter_c
    for index, (floor, initial, maintenance, leverage) in enumerate(row.tiers):
        if not (
            _in(floor, 0, INT64_MAX)
            and _in(initial, 0, PPB)
            and _in(maintenance, 0, PPB - 1)
            and _in(leverage, LEVERAGE_ONE, 1000 * LEVERAGE_ONE)
        ):
            return REASON_DEFINITION_INVALID, 0
        schedule.ladder.tiers[index].floor = floor
        schedule.ladder.tiers[index].initial_ppb = initial
        schedule.ladder.tiers[index].maintenance_ppb = maintenance
        schedule.ladder.tiers[index].leverage_max = leverage
    if schedule_fault(&schedule) != NULL:
        return REASON_DEFINITION_INVALID, 0
    schedule.asset_id = row.asset_id
    return _enter_schedule(book, ids, row.name, encoded, &schedule)


cdef tuple define_option_rule(
    Book *book,
    dict ids,
    name,
    asset_id,
    initial_ppb,
    initial_min_ppb,
    maintenance_ppb,
    put_maintenance,
    parameter_d,
    parameter_e,
):
    """Create an option rule, or change one."""
    cdef Schedule rule
    memset(&rule, 0, sizeof(Schedule))
    encoded = _name(name, NAME_SIZE - 1)
    if encoded is None:
        return REASON_DEFINITION_INVALID, 0
    if not _in(asset_id, 1, book.asset_count):
        return REASON_ASSET_UNKNOWN, 0
    if not (
        _in(initial_ppb, 0, PPB)
        and _in(initial_min_ppb, 0, initial_ppb)
        and _in(maintenance_ppb, 0, PPB)
        and _in(put_maintenance, PUT_MAINTENANCE_NONE, PUT_MAINTENANCE_ALL)
        and (parameter_d == 0 or _in(parameter_d, PPB, <int64_t>PPB * 10))
        and _in(parameter_e, 0, PPB)
    ):
        return REASON_DEFINITION_INVALID, 0
    rule.asset_id = asset_id
    rule.ladder.family = FAMILY_OPTION_RULE
    rule.ladder.basis = MAINTENANCE_BASIS_MARK
    rule.ladder.count = 1
    rule.ladder.tiers[0].initial_ppb = initial_ppb
    rule.ladder.tiers[0].maintenance_ppb = maintenance_ppb
    rule.ladder.tiers[0].leverage_max = LEVERAGE_ONE
    rule.parameter_a = initial_min_ppb
    rule.parameter_b = put_maintenance
    # The reference price: the mark of the underlying.
    rule.parameter_c = 1
    rule.parameter_d = parameter_d
    rule.parameter_e = parameter_e
    return _enter_schedule(book, ids, name, encoded, &rule)


cdef tuple _enter_schedule(Book *book, dict ids, name, bytes encoded, Schedule *schedule):
    """Put a lawful schedule in the place of the one of its name, or in a new one."""
    cdef Schedule *held
    schedule_id = ids.get(name)
    if schedule_id is None:
        if book.schedule_count == book.schedule_capacity:
            return REASON_SCHEDULES_FULL, 0
        book.schedule_count += 1
        schedule_id = book.schedule_count
        ids[name] = schedule_id
    else:
        held = &book.schedules[schedule_id - 1]
        if held.asset_id != schedule.asset_id:
            return REASON_FIELD_IMMUTABLE, 0
        if (held.ladder.family == FAMILY_OPTION_RULE) != (
            schedule.ladder.family == FAMILY_OPTION_RULE
        ):
            return REASON_FIELD_IMMUTABLE, 0
        schedule.version = held.version
    memcpy(schedule.name, <const char *>encoded, <size_t>len(encoded))
    schedule.version += 1
    book.schedules[schedule_id - 1] = schedule[0]
    book.revision += 1
    return REASON_NONE, schedule_id


cdef bint _numbers_lawful(const Book *book, row):
    """Whether an instrument's numbers are inside their bounds."""
    return (
        _in(row.tick_mantissa, 1, 10**12)
        and _in(row.tick_exponent, -12, 12)
        and _in(row.lot_mantissa, 1, 10**12)
        and _in(row.lot_exponent, -12, 12)
        and _in(row.multiplier_mantissa, 1, 10**12)
        and _in(row.multiplier_exponent, -12, 12)
        and _in(row.mark_units_per_tick, 1, PPB)
        and _in(row.order_lots_min, 0, NUMBER_MAX)
        and _in(row.order_lots_max, 0, NUMBER_MAX)
        and (row.order_lots_max == 0 or row.order_lots_max >= row.order_lots_min)
        and _in(row.order_notional_min, 0, INT64_MAX)
        and _in(row.order_notional_max, 0, INT64_MAX)
        and _in(row.price_collar_ppb, 0, PPB)
        and _in(row.market_buffer_ppb, 0, PPB - 1)
        and _in(row.taker_fee_ppb, 0, PPB)
        and _in(row.mark_age_max_ns, 0, INT64_MAX)
        and _in(row.trading_state, 0, TRADING_STATE_HALTED)
        and _in(row.isolated_only, 0, int(_is_contract(row.kind)))
        and (_option_lawful(book, row) if row.kind in _OPTIONS else _contract_lawful(row))
    )


cdef bint _option_lawful(const Book *book, row):
    if row.option_rule_id != 0 and not _can_be_short(book, row):
        return False
    return (
        _in(row.expiry_ns, 1, INT64_MAX)
        and _in(row.strike_units, 1, NUMBER_MAX)
        and _in(row.option_type, OPTION_TYPE_CALL, OPTION_TYPE_PUT)
        and _in(row.interest_rate_ppb, -PPB, PPB)
        # An option that is settled in coin has its strike in the units of its underlying.
        and _in(
            row.underlying_id,
            int(row.kind == INSTRUMENT_KIND_INVERSE_OPTION),
            book.instrument_count,
        )
    )


cdef bint _contract_lawful(row):
    expiry_min = expiry_max = 0
    if row.kind in _FUTURES:
        expiry_min, expiry_max = 1, INT64_MAX
    return _in(row.expiry_ns, expiry_min, expiry_max) and not any(
        (row.strike_units, row.option_type, row.interest_rate_ppb, row.underlying_id)
    )


cdef tuple _values(row, scale, base_scale):
    """Return (tick value, quotient, coin value, base value), or None if one is not whole or too
    large.
    """
    exponent = row.lot_exponent + row.multiplier_exponent + scale
    coin_value = base_value = 0
    if row.kind == INSTRUMENT_KIND_SPOT:
        base_value = _whole_power(row.lot_mantissa, row.lot_exponent + base_scale)
        if base_value is None or base_value > 1 << 40:
            return None
        if (row.multiplier_mantissa, row.multiplier_exponent) != (1, 0):
            return None
    if row.kind == INSTRUMENT_KIND_INVERSE_OPTION:
        coin_value = _whole_power(row.lot_mantissa * row.multiplier_mantissa, exponent)
        if coin_value is None or coin_value > 1 << 60:
            return None
    if row.kind in _INVERSE:
        quotient = _whole_quotient(
            row.lot_mantissa * row.multiplier_mantissa,
            row.tick_mantissa,
            exponent - row.tick_exponent,
        )
        if quotient is None or not 1 <= quotient <= 1 << 60:
            return None
        return None if quotient * row.mark_units_per_tick > _QUOTIENT_MAX else (0, quotient, 0, 0)
    tick_value = _whole_power(
        row.tick_mantissa * row.lot_mantissa * row.multiplier_mantissa,
        row.tick_exponent + exponent,
    )
    if tick_value is None or not 1 <= tick_value <= 1 << 40:
        return None
    return tick_value, 0, coin_value, base_value


cdef _write_instrument(const Book *book, Instrument *instrument, row, bytes symbol, values):
    """Write a lawful definition into a fresh instrument without a mark."""
    tick_value, quotient, coin_value, base_value = values
    divisor = math.gcd(tick_value, row.mark_units_per_tick)
    scale = book.assets[row.asset_id - 1].scale
    memset(instrument, 0, sizeof(Instrument))
    memcpy(instrument.symbol, <const char *>symbol, <size_t>len(symbol))
    instrument.kind = row.kind
    instrument.asset_id = row.asset_id
    instrument.schedule_id = row.schedule_id
    instrument.tick_value = tick_value
    instrument.quotient = quotient
    instrument.coin_value = coin_value
    instrument.base_value = base_value
    instrument.base_asset_id = row.base_asset_id
    instrument.isolated_only = row.isolated_only
    instrument.units_per_tick = row.mark_units_per_tick
    instrument.value_numerator = tick_value // divisor
    instrument.value_denominator = row.mark_units_per_tick // divisor
    if row.kind == INSTRUMENT_KIND_INVERSE_OPTION:
        # Its models are of the underlying: its own price is in coin.
        instrument.unit_price = book.instruments[row.underlying_id - 1].unit_price
    else:
        instrument.unit_price = (
            row.tick_mantissa * 10.0**row.tick_exponent / row.mark_units_per_tick
        )
    instrument.lot_size = (
        row.lot_mantissa
        * 10.0 ** (row.lot_exponent + scale)
        * row.multiplier_mantissa
        * 10.0**row.multiplier_exponent
    )
    instrument.tick_mantissa = row.tick_mantissa
    instrument.tick_exponent = row.tick_exponent
    instrument.lot_mantissa = row.lot_mantissa
    instrument.lot_exponent = row.lot_exponent
    instrument.multiplier_mantissa = row.multiplier_mantissa
    instrument.multiplier_exponent = row.multiplier_exponent
    instrument.order_lots_min = row.order_lots_min
    instrument.order_lots_max = row.order_lots_max
    instrument.order_notional_min = row.order_notional_min
    instrument.order_notional_max = row.order_notional_max
    instrument.price_collar_ppb = row.price_collar_ppb
    instrument.market_buffer_ppb = row.market_buffer_ppb
    instrument.taker_fee_ppb = row.taker_fee_ppb
    instrument.mark_age_max_ns = row.mark_age_max_ns
    instrument.trading_state = row.trading_state
    instrument.expiry_ns = row.expiry_ns
    instrument.strike_units = row.strike_units
    instrument.option_type = row.option_type
    instrument.interest_rate_ppb = row.interest_rate_ppb
    instrument.underlying_id = row.underlying_id
    instrument.option_rule_id = row.option_rule_id


cdef bint _is_schedule_of(const Book *book, schedule_id, asset_id, bint is_rule):
    """Whether a schedule is of an asset, and an option rule or not."""
    cdef const Schedule *schedule = &book.schedules[<uint32_t>schedule_id - 1]
    return schedule.asset_id == asset_id and (
        (schedule.ladder.family == FAMILY_OPTION_RULE) == is_rule
    )


cdef uint32_t _base_reason(const Book *book, row) except 0:
    """A-12, A-9: the base asset of spot, and of contracts that name one."""
    if row.kind != INSTRUMENT_KIND_SPOT and row.base_asset_id == 0:
        return REASON_NONE
    if not _in(row.base_asset_id, 1, book.asset_count):
        return REASON_ASSET_UNKNOWN
    if row.kind != INSTRUMENT_KIND_SPOT:
        return REASON_DEFINITION_INVALID if row.kind in _OPTIONS else REASON_NONE
    if row.base_asset_id == row.asset_id or row.option_rule_id != 0:
        return REASON_DEFINITION_INVALID
    return REASON_NONE


cdef uint32_t _schedule_reason(const Book *book, row) except 0:
    """A-11, A-9: of a contract."""
    if not _in(row.schedule_id, 1, book.schedule_count):
        return REASON_SCHEDULE_UNKNOWN
    if row.option_rule_id != 0:
        return REASON_DEFINITION_INVALID
    if not _is_schedule_of(book, row.schedule_id, row.asset_id, False):
        return REASON_DEFINITION_INVALID
    return REASON_NONE


cdef uint32_t _rule_reason(const Book *book, row) except 0:
    """A-11, A-9: of an option."""
    if row.schedule_id != 0:
        return REASON_DEFINITION_INVALID
    if row.option_rule_id == 0:
        return REASON_NONE
    if not _in(row.option_rule_id, 1, book.schedule_count):
        return REASON_SCHEDULE_UNKNOWN
    if not _is_schedule_of(book, row.option_rule_id, row.asset_id, True):
        return REASON_DEFINITION_INVALID
    return REASON_NONE


cdef bint _can_be_short(const Book *book, row):
    """Whether an option's underlying is known, and counts in its units or in those of its
    strike.
    """
    cdef const Instrument *underlying
    if not _in(row.underlying_id, 1, book.instrument_count):
        return False
    if row.kind == INSTRUMENT_KIND_INVERSE_OPTION:
        return True
    underlying = &book.instruments[<uint32_t>row.underlying_id - 1]
    return _whole_quotient(
        row.tick_mantissa * underlying.units_per_tick,
        underlying.tick_mantissa * row.mark_units_per_tick,
        row.tick_exponent - underlying.tick_exponent,
    ) == 1


cdef tuple define_instrument(Book *book, dict ids, row):
    """Create an instrument, or change what may change of one.

    `row` is an InstrumentRow whose id does not count.
    """
    cdef Instrument instrument
    cdef Instrument *target
    encoded = _name(row.symbol, NAME_SIZE - 1)
    if encoded is None or row.kind not in _KINDS:
        return REASON_DEFINITION_INVALID, 0
    if not _in(row.asset_id, 1, book.asset_count):
        return REASON_ASSET_UNKNOWN, 0
    reason = _base_reason(book, row)
    if reason != REASON_NONE:
        return reason, 0
    if _is_contract(row.kind):
        reason = _schedule_reason(book, row)
    else:
        reason = _rule_reason(book, row)
    if reason != REASON_NONE:
        return reason, 0
    if not _numbers_lawful(book, row):
        return REASON_DEFINITION_INVALID, 0
    base_scale = 0
    if row.base_asset_id != 0:
        base_scale = book.assets[row.base_asset_id - 1].scale
    values = _values(row, book.assets[row.asset_id - 1].scale, base_scale)
    if values is None:
        return REASON_DEFINITION_INVALID, 0
    _write_instrument(book, &instrument, row, encoded, values)
    instrument_id = ids.get(row.symbol)
    if instrument_id is None:
        if book.instrument_count == book.instrument_capacity:
            return REASON_INSTRUMENTS_FULL, 0
        book.instrument_count += 1
        instrument_id = book.instrument_count
        ids[row.symbol] = instrument_id
    else:
        target = &book.instruments[instrument_id - 1]
        if not _same_contract(target, &instrument):
            return REASON_FIELD_IMMUTABLE, 0
        instrument.mark = target.mark
        instrument.settlement_price = target.settlement_price
        instrument.funding_time_ns = target.funding_time_ns
        instrument.open_interest_lots = target.open_interest_lots
        if instrument.trading_state == 0:
            instrument.trading_state = target.trading_state
    if instrument.trading_state == 0:
        instrument.trading_state = TRADING_STATE_NORMAL
    book.instruments[instrument_id - 1] = instrument
    book.revision += 1
    return REASON_NONE, instrument_id


cdef uint32_t define_account(
    Book *book, account_id, asset_id, margin_mode, leverage, cash
) except 0:
    cdef Account *account
    if not _in(account_id, 1, (1 << 64) - 1):
        return REASON_DEFINITION_INVALID
    if not _in(asset_id, 1, book.asset_count):
        return REASON_ASSET_UNKNOWN
    if not (
        _in(margin_mode, MARGIN_MODE_CROSS, MARGIN_MODE_ISOLATED)
        and _in(leverage, LEVERAGE_ONE, 1000 * LEVERAGE_ONE)
        and _in(cash, 0, 1 << 62)
    ):
        return REASON_DEFINITION_INVALID
    if account_find(book, account_id) != NULL:
        return REASON_ALREADY_EXISTS
    account = account_add(book, account_id)
    if account == NULL:
        return REASON_ACCOUNTS_FULL
    account.asset_id = asset_id
    account.margin_mode = margin_mode
    account.leverage = leverage
    account.cash = cash
    book.revision += 1
    return REASON_NONE
