"""Limits of docs/limits.md on an order: what each counts, and whether it is broken."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, NamedTuple

# A limit's Greeks are doubles by definition (docs/limits.md), so that both engines round alike:
# tests/unit/test_black.py holds this function to 50 digits.
from riskd.core.black import black76_greeks
from riskd.core.rows import InstrumentRow
from riskd.reference.levels import DAY_NS, Holding, Level, Levels
from riskd.reference.numbers import BILLION, YEAR_NS, ceil, ceil_div, clamp, fits
from riskd.reference.state import (
    INVERSE_OPTION,
    NONE,
    SCOPE_ACCOUNT,
    SCOPE_GATEWAY,
    Account,
    Limit,
    LimitKey,
    Reason,
    Usage,
    Violation,
    is_contract,
    is_option,
)
from riskd.v1 import types_pb2 as t

MINIMUM_KINDS: Final = (t.LIMIT_KIND_ORDER_QUANTITY_MIN, t.LIMIT_KIND_ORDER_NOTIONAL_MIN)
COLLAR_KINDS: Final = (t.LIMIT_KIND_COLLAR_PPB, t.LIMIT_KIND_COLLAR_TICKS)
RATE_KINDS: Final = (t.LIMIT_KIND_ORDER_RATE_MAX, t.LIMIT_KIND_EXECUTION_RATE_MAX)
STATE_KINDS: Final = (t.LIMIT_KIND_DAILY_LOSS_MAX, t.LIMIT_KIND_DRAWDOWN_MAX)
"""Broken by what is there already, whatever an order adds."""
GREEK_KINDS: Final = (t.LIMIT_KIND_DELTA_MAX, t.LIMIT_KIND_GAMMA_MAX, t.LIMIT_KIND_VEGA_MAX)
LIST_KINDS: Final = (t.LIMIT_KIND_DENIED, t.LIMIT_KIND_ALLOWED)
MARKED_KINDS: Final = (
    t.LIMIT_KIND_GROSS_EXPOSURE_MAX,
    *STATE_KINDS,
    *GREEK_KINDS,
    t.LIMIT_KIND_CONCENTRATION_MAX,
)
"""Kinds that need the marks of all that the level holds; see needs_all_marks."""
KINDS: Final = tuple(range(t.LIMIT_KIND_ORDER_QUANTITY_MIN, t.LIMIT_KIND_ALLOWED + 1))
MAX_QUANTITY_KINDS: Final = (
    t.LIMIT_KIND_ORDER_QUANTITY_MAX,
    t.LIMIT_KIND_ORDER_NOTIONAL_MAX,
    t.LIMIT_KIND_POSITION_LOTS_MAX,
    t.LIMIT_KIND_POSITION_NOTIONAL_MAX,
    t.LIMIT_KIND_GROSS_EXPOSURE_MAX,
    t.LIMIT_KIND_OPEN_NOTIONAL_MAX,
    t.LIMIT_KIND_DAILY_TRADED_MAX,
    *GREEK_KINDS,
    t.LIMIT_KIND_CONCENTRATION_MAX,
)
"""Kinds that a smaller order may not break."""
DIFFERENCE_KINDS: Final = (
    t.LIMIT_KIND_POSITION_LOTS_MAX,
    t.LIMIT_KIND_POSITION_NOTIONAL_MAX,
    *GREEK_KINDS,
    t.LIMIT_KIND_CONCENTRATION_MAX,
)
"""Kinds to which an order adds the difference of the use with it and without."""
FIRST_REASON: Final = 219
"""The reason of a limit is this plus the number of its kind."""
MICRO: Final = 10**6
GREEK_MAX: Final = 1e36
"""In millionths of a minor unit: far beyond any money."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An order as limits see it."""

    account: Account
    instrument: InstrumentRow
    gateway_id: int
    sign: int
    quantity: int
    price: int
    """p in ticks."""
    reference: int | None
    """R in mark units; None for types without a limit price, or while it is unknown."""
    working_value: int
    """value(pm, q)."""
    leverage: int
    is_reducing: bool
    """Strictly reducing, or protective."""
    is_lighter: bool
    """An amendment that only takes risk away."""
    is_amendment: bool
    is_counted: bool
    """Whether the order rates count it: it does not only ask."""


class Figure(NamedTuple):
    """What counts against a limit before an order, and what the order adds."""

    use: int
    added: int


def interval(limit: Limit, now_ns: int) -> int:
    """Return I of a rate, in nanoseconds."""
    return ceil_div(BILLION, limit.bound(now_ns))


def slack(limit: Limit, now_ns: int) -> int:
    return interval(limit, now_ns) * (limit.burst - 1)


def is_rate_broken(limit: Limit, now_ns: int) -> bool:
    return now_ns + slack(limit, now_ns) < limit.due_ns


def counted_once(limit: Limit, now_ns: int) -> Limit:
    """Return a rate after one order or execution more."""
    step = interval(limit, now_ns)
    due = min(max(now_ns, limit.due_ns) + step, now_ns + slack(limit, now_ns) + step)
    return replace(limit, due_ns=due)


class Limits(Levels):
    """The limits of an order's levels."""

    # --- What an order breaks ---

    def _level_violations(self, asked: Asked, now_ns: int) -> list[Violation]:
        """Return the broken limits by number, level, and the instrument's before that of all."""
        found: list[Violation] = []
        is_known = True
        for kind, level in self._places(asked):
            if kind == t.LIMIT_KIND_ALLOWED:
                found += self._allowed_violations(asked, level)
                continue
            for instrument_id in (asked.instrument.instrument_id, 0):
                limit = self._limits.get(LimitKey(*level, instrument_id, kind))
                needs_marks = needs_all_marks(kind, instrument_id)
                if limit is None or (needs_marks and not is_known):
                    continue
                if needs_marks:
                    own = {asked.instrument.instrument_id}
                    missing = self._unknown_reason(level, kind, own, now_ns)
                    if missing != NONE:
                        is_known = False
                        found.append(Violation(missing, scope=level.scope, scope_id=level.scope_id))
                        continue
                broken = self._broken(asked, level, instrument_id, kind, limit, now_ns)
                if broken is not None:
                    limit_figure, use, added = broken
                    found.append(
                        Violation(
                            reason_of(kind),
                            clamp(limit_figure),
                            clamp(use),
                            clamp(added),
                            *level,
                            soft=limit.action == t.LIMIT_ACTION_SOFT,
                        )
                    )
        return found

    def _places(self, asked: Asked) -> Iterator[tuple[int, Level]]:
        for kind in KINDS:
            if asked.is_lighter:
                return
            # A strictly reducing order meets no limit but the collar.
            if asked.is_reducing and kind not in COLLAR_KINDS:
                continue
            for level in self._levels_of(asked.account):
                yield kind, level
            if kind == t.LIMIT_KIND_ORDER_RATE_MAX:
                yield kind, Level(SCOPE_GATEWAY, asked.gateway_id)

    def _allowed_violations(self, asked: Asked, level: Level) -> list[Violation]:
        allowed = {
            key.instrument_id: limit
            for key, limit in self._limits.items()
            if (key.scope, key.scope_id, key.kind) == (*level, t.LIMIT_KIND_ALLOWED)
        }
        if not allowed or asked.instrument.instrument_id in allowed:
            return []
        soft = all(each.action == t.LIMIT_ACTION_SOFT for each in allowed.values())
        return [Violation(reason_of(t.LIMIT_KIND_ALLOWED), 0, 0, 0, *level, soft=soft)]

    def _broken(
        self,
        asked: Asked,
        level: Level,
        instrument_id: int,
        kind: int,
        limit: Limit,
        now_ns: int,
    ) -> tuple[int, int, int] | None:
        """Return limit, use and order_use of a broken limit, None if it holds."""
        bound = limit.bound(now_ns)
        if kind == t.LIMIT_KIND_DENIED:
            return 0, 0, 0
        if kind in RATE_KINDS:
            added = 1 if kind == t.LIMIT_KIND_ORDER_RATE_MAX else 0
            return (bound, 0, added) if is_rate_broken(limit, now_ns) else None
        if kind in COLLAR_KINDS:
            last_inside = last_price_inside(asked, kind, bound)
            if last_inside is None or asked.sign * (asked.price - last_inside) <= 0:
                return None
            return last_inside, 0, asked.price
        figure = self._figure(asked, level, instrument_id, kind, limit, now_ns)
        if figure is None:
            return None
        use, added = figure
        if kind in MINIMUM_KINDS:
            is_broken = added < bound
        elif kind in STATE_KINDS:
            is_broken = use > bound
        else:
            is_broken = use + added > bound and added > 0
        if not is_broken and fits(use, use + added):
            return None
        if kind in DIFFERENCE_KINDS:
            added = clamp(use + added) - clamp(use)
        return bound, use, added

    def _figure(
        self,
        asked: Asked,
        level: Level,
        instrument_id: int,
        kind: int,
        limit: Limit,
        now_ns: int,
    ) -> Figure | None:
        """Return use and order's part of a kind that has them; None where it does not apply."""
        if kind in (t.LIMIT_KIND_ORDER_QUANTITY_MIN, t.LIMIT_KIND_ORDER_QUANTITY_MAX):
            return Figure(0, asked.quantity)
        if kind in (t.LIMIT_KIND_ORDER_NOTIONAL_MIN, t.LIMIT_KIND_ORDER_NOTIONAL_MAX):
            return Figure(0, self._value(asked.instrument, asked.price, asked.quantity))
        if kind == t.LIMIT_KIND_LEVERAGE_MAX:
            return Figure(0, asked.leverage) if is_contract(asked.instrument.kind) else None
        if kind in STATE_KINDS:
            return Figure(self._state_use(level, kind, limit, now_ns), 0)
        own_id = asked.instrument.instrument_id
        before = self._holdings(level)
        own = before.get(own_id, Holding()).with_order(
            asked.sign, asked.quantity, asked.working_value
        )
        if not asked.is_amendment:
            own = replace(own, orders=own.orders + 1)
        key = LimitKey(*level, instrument_id, kind)
        use = self._held_use(key, before, own_id, (asked.sign,), now_ns)
        after = self._held_use(key, before | {own_id: own}, own_id, (asked.sign,), now_ns)
        return Figure(use, after - use)

    def _held_use(
        self,
        key: LimitKey,
        holdings: dict[int, Holding],
        own_id: int,
        signs: tuple[int, ...],
        now_ns: int,
    ) -> int:
        """Return the use of a kind that counts positions and working orders.

        own_id is the instrument that is looked at, signs its sides.
        """
        counted = holdings
        if key.instrument_id != 0:
            counted = {own_id: holdings[own_id]} if own_id in holdings else {}
        held = holdings.get(own_id, Holding())
        kind = key.kind
        if kind == t.LIMIT_KIND_POSITION_LOTS_MAX:
            return max(held.worst_side(sign) for sign in signs)
        if kind == t.LIMIT_KIND_POSITION_NOTIONAL_MAX:
            return max(self._mark_value_up(own_id, held.worst_side(sign)) for sign in signs)
        if kind == t.LIMIT_KIND_GROSS_EXPOSURE_MAX:
            return sum(self._exposure(*item) for item in counted.items())
        if kind == t.LIMIT_KIND_OPEN_ORDERS_MAX:
            return sum(each.orders for each in counted.values())
        if kind == t.LIMIT_KIND_OPEN_NOTIONAL_MAX:
            return sum(each.working_value() for each in counted.values())
        if kind == t.LIMIT_KIND_DAILY_TRADED_MAX:
            traded = self._today(Level(key.scope, key.scope_id), now_ns).traded
            return traded + sum(each.working_value() for each in counted.values())
        if kind == t.LIMIT_KIND_CONCENTRATION_MAX:
            whole = sum(self._exposure(*item) for item in holdings.items())
            return ceil_div(BILLION * self._exposure(own_id, held), whole) if whole else 0
        assert kind in GREEK_KINDS
        return self._greek_use(kind, holdings, now_ns)

    def _mark_value_up(self, instrument_id: int, lots: int) -> int:
        return ceil(self._mark_value(instrument_id, lots)) if lots != 0 else 0

    def _exposure(self, instrument_id: int, held: Holding) -> int:
        return self._mark_value_up(instrument_id, held.gross_lots) + held.working_value()

    def _state_use(self, level: Level, kind: int, limit: Limit, now_ns: int) -> int:
        if kind == t.LIMIT_KIND_DRAWDOWN_MAX:
            return max(0, limit.peak - self._equity_at(level))
        realised = self._today(level, now_ns).realised
        return max(0, -(realised + min(0, self._unrealised_at(level))))

    # --- What must be known ---

    def _unknown_reason(self, level: Level, kind: int, own: set[int], now_ns: int) -> Reason:
        """Return S-10 or S-11 of the first instrument that is held, or own, by id."""
        for instrument_id in sorted(own.union(self._instruments_held(level))):
            reason = self._mark_reason(self._instruments[instrument_id], now_ns)
            if reason != NONE:
                return reason
        if kind in GREEK_KINDS:
            with_lots = {each for each, held in self._holdings(level).items() if held.has_lots()}
            for instrument_id in own | with_lots:
                if self._lot_greek(instrument_id, kind, now_ns) is None:
                    return t.REASON_CODE_MARK_MISSING
        return NONE

    # --- Greeks ---

    def _greek_use(self, kind: int, holdings: dict[int, Holding], now_ns: int) -> int:
        highest = lowest = 0
        for instrument_id, held in holdings.items():
            if not held.has_lots():
                continue
            one_lot = self._lot_greek(instrument_id, kind, now_ns)
            assert one_lot is not None
            with_buys = (held.lots + held.working[1].lots) * one_lot
            with_sells = (held.lots - held.working[-1].lots) * one_lot
            highest += max(with_buys, with_sells)
            lowest += min(with_buys, with_sells)
        return ceil_div(max(abs(highest), abs(lowest)), MICRO)

    def _lot_greek(self, instrument_id: int, kind: int, now_ns: int) -> int | None:
        """Return g of an instrument in 10^-6 minor units; None when it is not known."""
        instrument = self._instruments[instrument_id]
        if not is_option(instrument.kind):
            if kind != t.LIMIT_KIND_DELTA_MAX:
                return 0
            if instrument_id not in self._marks:
                return None
            return round(self._mark_value(instrument_id, 1) * MICRO)
        mark = self._marks.get(instrument_id)
        if mark is None or mark.volatility_ppb == 0:
            return None
        quoted = self._quoted(instrument)
        forward = mark.forward * unit_of(quoted)
        if mark.forward == 0:
            underlying = self._marks.get(instrument.underlying_id)
            if underlying is None:
                return None
            forward = underlying.price * unit_of(self._instruments[instrument.underlying_id])
        scale = self._assets[instrument.asset_id].scale
        size = instrument.lot_mantissa * 10.0 ** (instrument.lot_exponent + scale)
        size *= instrument.multiplier_mantissa
        size *= 10.0**instrument.multiplier_exponent
        try:
            _, delta, gamma, vega, _, _ = black76_greeks(
                instrument.option_type == 1,
                forward,
                instrument.strike_units * unit_of(quoted),
                mark.volatility_ppb * 1e-9,
                float(max(0, instrument.expiry_ns - now_ns)) / YEAR_NS,
                instrument.interest_rate_ppb * 1e-9,
            )
        except ValueError:
            return None
        figures = (
            delta * forward * size * 1e6,
            gamma * forward * forward * 0.01 * size * 1e6,
            vega * size * 1e6,
        )
        if instrument.kind == INVERSE_OPTION:  # In coin.
            figures = (
                delta * size * 1e6,
                gamma * forward * 0.01 * size * 1e6,
                vega / forward * size * 1e6,
            )
        if not all(abs(figure) < GREEK_MAX for figure in figures):
            return None
        return round(figures[GREEK_KINDS.index(kind)])

    # --- What an order or an execution leaves behind ---

    def _count_order(self, asked: Asked, found: list[Violation], now_ns: int) -> None:
        """Count an order that reached step 5 in the order rates of its levels."""
        broke_rate = any(
            each.reason == reason_of(t.LIMIT_KIND_ORDER_RATE_MAX) and not each.soft
            for each in found
        )
        if not asked.is_counted or asked.is_reducing or asked.is_lighter or broke_rate:
            return
        for level in (*self._levels_of(asked.account), Level(SCOPE_GATEWAY, asked.gateway_id)):
            self._count_rate(LimitKey(*level, 0, t.LIMIT_KIND_ORDER_RATE_MAX), now_ns)

    def _count_execution(self, account_id: int, traded: int, realised: int, now_ns: int) -> None:
        """Count an applied FILL, BUST or CORRECTION: its value, what it brought, its pace."""
        for level in self._levels_of(self._accounts[account_id]):
            self._count_rate(LimitKey(*level, 0, t.LIMIT_KIND_EXECUTION_RATE_MAX), now_ns)
        self._count_realised(account_id, traded, realised, now_ns)
        self._raise_peaks(account_id)

    def _count_realised(self, account_id: int, traded: int, realised: int, now_ns: int) -> None:
        account = self._accounts[account_id]
        for level in self._levels_of(account):
            # What a parent traded is the sum of its accounts' own.
            if level != Level(SCOPE_ACCOUNT, account.parent_account_id):
                today = self._of_day(level, now_ns)
                self._usages[level] = Usage(
                    now_ns // DAY_NS,
                    clamp(today.traded + traded),
                    clamp(today.realised + realised),
                )

    def _count_rate(self, key: LimitKey, now_ns: int) -> None:
        if key in self._limits:
            self._limits[key] = counted_once(self._limits[key], now_ns)

    def _raise_peaks(self, account_id: int) -> None:
        """Take the equity of an account's levels into their peaks, where it is known."""
        for level in self._levels_of(self._accounts[account_id]):
            key = LimitKey(*level, 0, t.LIMIT_KIND_DRAWDOWN_MAX)
            limit = self._limits.get(key)
            if limit is not None and self._has_marks(level):
                peak = max(limit.peak, clamp(self._equity_at(level)))
                self._limits[key] = replace(limit, peak=peak)

    def _move_peaks(self, levels: list[Level], amount: int) -> None:
        """Let the peaks follow money that comes or goes, not below 0."""
        for level in levels:
            key = LimitKey(*level, 0, t.LIMIT_KIND_DRAWDOWN_MAX)
            if key in self._limits:
                limit = self._limits[key]
                self._limits[key] = replace(limit, peak=clamp(max(0, limit.peak + amount)))

    def _smallest_allowed(
        self, account: Account, instrument: InstrumentRow, price: int, now_ns: int
    ) -> int:
        """Return the smallest quantity that meets the hard minima of an account's levels."""
        smallest = 1
        for level in self._levels_of(account):
            for kind in MINIMUM_KINDS:
                for instrument_id in (instrument.instrument_id, 0):
                    limit = self._limits.get(LimitKey(*level, instrument_id, kind))
                    if limit is None or limit.action == t.LIMIT_ACTION_SOFT:
                        continue
                    bound = limit.bound(now_ns)
                    if kind == t.LIMIT_KIND_ORDER_NOTIONAL_MIN:
                        bound = self._smallest_of_value(instrument, price, bound)
                    smallest = max(smallest, bound)
        return smallest


def reason_of(kind: int) -> Reason:
    return t.ReasonCode.ValueType(FIRST_REASON + kind)


def needs_all_marks(kind: int, instrument_id: int) -> bool:
    """Return whether a limit needs the marks of all that its level holds."""
    is_exposure_of_one = kind == t.LIMIT_KIND_GROSS_EXPOSURE_MAX and instrument_id != 0
    return kind in MARKED_KINDS and not is_exposure_of_one


def unit_of(instrument: InstrumentRow) -> float:
    """Return one mark unit in quote currency, as docs/limits.md rounds it."""
    tick = instrument.tick_mantissa * 10.0**instrument.tick_exponent
    return tick / instrument.mark_units_per_tick


def last_price_inside(asked: Asked, kind: int, bound: int) -> int | None:
    """Return the last price in ticks inside a collar; None where none applies."""
    if asked.reference is None:
        return None
    away = Fraction(asked.reference * bound, BILLION)
    units = asked.instrument.mark_units_per_tick
    if kind == t.LIMIT_KIND_COLLAR_TICKS:
        away = Fraction(bound * units)
    edge = (asked.reference + asked.sign * away) / units
    return math.floor(edge) if asked.sign > 0 else math.ceil(edge)
