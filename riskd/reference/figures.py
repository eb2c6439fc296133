"""Margin figures of positions and accounts, computed anew each time."""

from dataclasses import dataclass
from fractions import Fraction

from riskd.core.rows import (
    InstrumentRow,
    ScheduleRow,
)
from riskd.reference.margin import (
    Fill,
    SideMargin,
    SideSums,
    fill_option,
    fill_perpetual,
    liquidation_price,
    liquidation_requirement,
    maintenance,
    side_margin,
    tick_value,
    to_ticks,
)
from riskd.reference.numbers import BILLION, INT64_MAX, ceil, ceil_div, clamp, fits, floor
from riskd.reference.state import NONE, OPTION, PERPETUAL, Account, Position, Reason, State, Status
from riskd.v1 import types_pb2 as t


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order that does not work yet, as it counts in the sums."""

    instrument_id: int
    sign: int
    sums: SideSums
    margin_price: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What an order asks for, but its quantity."""

    account_id: int
    instrument_id: int
    gateway_id: int
    side: int
    order_type: int
    price_ticks: int
    reduce_only: bool
    reserves: bool
    kept_lots: int = 0
    """Of an amendment that keeps the price: what is left of the old order, whose risk was taken."""

    @property
    def sign(self) -> int:
        return 1 if self.side == t.SIDE_BUY else -1

    @property
    def is_market(self) -> bool:
        return self.order_type == t.ORDER_TYPE_MARKET

    def only_takes_risk_away(self, quantity: int) -> bool:
        """Return whether it is an amendment at the old price that does not raise the quantity."""
        return quantity <= self.kept_lots


@dataclass(frozen=True, slots=True)
class AccountFigures:
    cross_pnl: int
    initial_margin: int
    available: int
    maintenance: int
    requirement: int

    def fits(self) -> bool:
        return fits(self.cross_pnl, self.initial_margin, self.available)


def margin_ratio(requirement: int, equity: int) -> int:
    """Return requirement over equity in ppm, rounded up; 2^63 - 1 if there is no equity."""
    if equity <= 0:
        return INT64_MAX
    return min(INT64_MAX, ceil_div(requirement * 10**6, equity))


class Figures(State):
    """What positions and accounts require, and where they are liquidated."""

    def _mode(self, account: Account, instrument_id: int) -> int:
        """Return the effective mode of a position."""
        return self._position(account.account_id, instrument_id).own_mode or account.margin_mode

    def _leverage(self, account: Account, instrument_id: int) -> int:
        """Return the effective leverage of a position."""
        if self._instruments[instrument_id].kind == OPTION:
            return 100
        own = self._position(account.account_id, instrument_id).own_leverage
        return own or min(account.leverage, self._schedule_of(instrument_id).tiers[0].leverage_max)

    def _is_open_cross(self, account: Account, instrument_id: int, position: Position) -> bool:
        """Return whether it is a cross perpetual with x not 0: what needs a mark."""
        return (
            position.lots != 0
            and self._instruments[instrument_id].kind == PERPETUAL
            and self._mode(account, instrument_id) == t.MARGIN_MODE_CROSS
        )

    def _schedule_of(self, instrument_id: int) -> ScheduleRow:
        return self._schedules[self._instruments[instrument_id].schedule_id]

    def _tick_value(self, instrument: InstrumentRow) -> int:
        value = tick_value(instrument, self._assets[instrument.asset_id].scale)
        assert value.denominator == 1
        return value.numerator

    def _unit_value(self, instrument: InstrumentRow) -> Fraction:
        """Return v: one lot at one mark unit, in minor units."""
        return Fraction(self._tick_value(instrument), instrument.mark_units_per_tick)

    def _value(self, instrument: InstrumentRow, price_ticks: int, quantity: int) -> int:
        return price_ticks * quantity * self._tick_value(instrument)

    def _mark_value(self, instrument_id: int, lots: int) -> Fraction:
        """Return the value of |lots| at the mark."""
        instrument = self._instruments[instrument_id]
        value = abs(lots) * self._marks[instrument_id].price * self._tick_value(instrument)
        return Fraction(value, instrument.mark_units_per_tick)

    def _unrealised(self, instrument_id: int, lots: int, entry_value: int) -> int:
        if lots == 0:
            return 0
        value = self._mark_value(instrument_id, lots)
        return floor(value) - entry_value if lots > 0 else entry_value - ceil(value)

    def _side_sums(self, account_id: int, instrument_id: int, sign: int) -> SideSums:
        """Return L, A and O of the working orders of a side."""
        instrument = self._instruments[instrument_id]
        sums = SideSums(0, 0, 0)
        for order in self._orders.values():
            key = (order.account_id, order.instrument_id, order.sign)
            if key == (account_id, instrument_id, sign):
                value = self._value(instrument, order.margin_price, order.remaining)
                sums = sums.plus(SideSums(order.remaining, value, order.open_loss))
        return sums

    def _new_order(self, terms: Terms, quantity: int, price: int) -> NewOrder:
        """Return how an order counts in the sums: its margin price and its open loss."""
        instrument = self._instruments[terms.instrument_id]
        mark = self._marks.get(terms.instrument_id)
        margin_price = price
        open_loss = 0
        if instrument.kind == PERPETUAL and mark is not None:
            at_mark = self._mark_value(terms.instrument_id, quantity)
            at_price = self._value(instrument, price, quantity)
            if terms.sign > 0:
                open_loss = max(0, at_price - floor(at_mark))
            else:
                margin_price = max(price, ceil_div(mark.price, instrument.mark_units_per_tick))
                open_loss = max(0, ceil(at_mark) - at_price)
        value = self._value(instrument, margin_price, quantity)
        sums = SideSums(quantity, value, open_loss)
        return NewOrder(terms.instrument_id, terms.sign, sums, margin_price)

    def _sums_with(
        self, account: Account, instrument_id: int, sign: int, new: NewOrder | None
    ) -> SideSums:
        sums = self._side_sums(account.account_id, instrument_id, sign)
        if new is not None and (new.instrument_id, new.sign) == (instrument_id, sign):
            return sums.plus(new.sums)
        return sums

    def _side_margin(
        self, account: Account, instrument_id: int, sign: int, new: NewOrder | None
    ) -> SideMargin:
        """Return one side of a perpetual. A cross position with x not 0 must have its mark."""
        position = self._position(account.account_id, instrument_id)
        held = position.entry_value
        if self._mode(account, instrument_id) == t.MARGIN_MODE_CROSS and position.lots != 0:
            held = ceil(self._mark_value(instrument_id, position.lots))
        return side_margin(
            self._schedule_of(instrument_id),
            self._leverage(account, instrument_id),
            position.lots,
            sign,
            self._sums_with(account, instrument_id, sign, new),
            held,
        )

    def _requirement(
        self, account: Account, instrument_id: int, new: NewOrder | None = None
    ) -> int | None:
        """Return what a position with its orders takes from the pool; None without its mark."""
        instrument = self._instruments[instrument_id]
        if instrument.kind == OPTION:
            premium = self._sums_with(account, instrument_id, 1, new).value
            return premium + ceil_div(premium * instrument.taker_fee_ppb, BILLION)
        position = self._position(account.account_id, instrument_id)
        needs_mark = self._is_open_cross(account, instrument_id, position)
        if needs_mark and instrument_id not in self._marks:
            return None
        sides = [self._side_margin(account, instrument_id, sign, new) for sign in (1, -1)]
        # Each order may fill: all count with the loss that they lock in and with their fee.
        costs = 0
        for sign in (1, -1):
            sums = self._sums_with(account, instrument_id, sign, new)
            costs += sums.open_loss + ceil_div(sums.value * instrument.taker_fee_ppb, BILLION)
        if self._mode(account, instrument_id) == t.MARGIN_MODE_CROSS:
            return max(side.side_margin for side in sides) + costs
        return max(side.order_margin for side in sides) + costs

    def _account_figures(
        self, account: Account, new: NewOrder | None = None
    ) -> AccountFigures | None:
        """Return the sums of an account with a new order, None if a mark they need is missing."""
        cross_pnl = 0
        initial_margin = 0
        maintenance_sum = 0
        requirement_sum = 0
        instrument_ids = {
            instrument_id for instrument_id, _ in self._positions_of(account.account_id)
        }
        if new is not None:
            instrument_ids.add(new.instrument_id)
        for instrument_id in sorted(instrument_ids):
            requirement = self._requirement(account, instrument_id, new)
            if requirement is None:
                return None
            initial_margin += requirement
            position = self._position(account.account_id, instrument_id)
            if self._is_open_cross(account, instrument_id, position):
                schedule = self._schedule_of(instrument_id)
                notional = ceil(self._mark_value(instrument_id, position.lots))
                cross_pnl += self._unrealised(instrument_id, position.lots, position.entry_value)
                maintenance_sum += maintenance(schedule, notional)
                requirement_sum += liquidation_requirement(schedule, notional)
        return AccountFigures(
            cross_pnl=cross_pnl,
            initial_margin=initial_margin,
            available=account.cash + cross_pnl - initial_margin,
            maintenance=maintenance_sum,
            requirement=requirement_sum,
        )

    def _cross_others(self, account: Account, instrument_id: int) -> tuple[int, int] | None:
        """Return profit and requirement of the other cross perpetuals; None without a mark."""
        pnl = 0
        requirement = 0
        for other_id, position in self._positions_of(account.account_id):
            if other_id == instrument_id or not self._is_open_cross(account, other_id, position):
                continue
            if other_id not in self._marks:
                return None
            notional = ceil(self._mark_value(other_id, position.lots))
            pnl += self._unrealised(other_id, position.lots, position.entry_value)
            requirement += liquidation_requirement(self._schedule_of(other_id), notional)
        return pnl, requirement

    def _money_behind(
        self, account: Account, instrument_id: int, wallet: int, cash: int
    ) -> int | None:
        """Return w of a liquidation price; None if a mark of another cross position is missing."""
        if self._mode(account, instrument_id) == t.MARGIN_MODE_ISOLATED:
            return wallet
        others = self._cross_others(account, instrument_id)
        return None if others is None else cash + others[0] - others[1]

    def _mark_reason(self, instrument: InstrumentRow, now_ns: int) -> Reason:
        """S-10, S-11 of one instrument."""
        mark = self._marks.get(instrument.instrument_id)
        if mark is None:
            return t.REASON_CODE_MARK_MISSING
        if instrument.mark_age_max_ns != 0 and now_ns - mark.time_ns > instrument.mark_age_max_ns:
            return t.REASON_CODE_MARK_STALE
        return NONE

    def _cross_mark_reason(self, account: Account, now_ns: int, skip: int = 0) -> Reason:
        """Return the first of S-10 and S-11 in the order of the account's instruments."""
        for instrument_id, position in self._positions_of(account.account_id):
            if instrument_id == skip or not self._is_open_cross(account, instrument_id, position):
                continue
            reason = self._mark_reason(self._instruments[instrument_id], now_ns)
            if reason != NONE:
                return reason
        return NONE

    def _fill(self, terms: Terms, quantity: int, price: int) -> Fill:
        account = self._accounts[terms.account_id]
        open_loss = self._new_order(terms, quantity, price).sums.open_loss
        return self._fill_of(account, terms.instrument_id, terms.sign, price, quantity, open_loss)

    def _fill_of(
        self,
        account: Account,
        instrument_id: int,
        sign: int,
        price: int,
        quantity: int,
        open_loss: int,
    ) -> Fill:
        instrument = self._instruments[instrument_id]
        position = self._position(account.account_id, instrument_id)
        value_one = self._value(instrument, price, 1)
        if instrument.kind == OPTION:
            return fill_option(position, sign, value_one, quantity)
        return fill_perpetual(
            self._schedule_of(instrument_id),
            self._leverage(account, instrument_id),
            self._mode(account, instrument_id) == t.MARGIN_MODE_ISOLATED,
            position,
            sign,
            value_one,
            quantity,
            open_loss,
        )

    def _liquidation(
        self, account: Account, instrument_id: int, position: Fill | Position, cash: int
    ) -> tuple[Status, int]:
        """Return status and liquidation price in mark units."""
        instrument = self._instruments[instrument_id]
        if instrument.kind == OPTION:
            return t.LIQUIDATION_STATUS_UNSPECIFIED, 0
        if position.lots == 0:
            return t.LIQUIDATION_STATUS_NO_POSITION, 0
        money = self._money_behind(account, instrument_id, position.wallet, cash)
        if money is None or not fits(money):
            return t.LIQUIDATION_STATUS_UNSPECIFIED, 0
        schedule = self._schedule_of(instrument_id)
        unit_value = self._unit_value(instrument)
        price = liquidation_price(schedule, position.lots, position.entry_value, money, unit_value)
        if price is None:
            return t.LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED, 0
        return t.LIQUIDATION_STATUS_AT_PRICE, clamp(price)

    def _liquidation_ticks(
        self, account: Account, instrument_id: int, position: Fill | Position, cash: int
    ) -> tuple[Status, int]:
        """Return status and liquidation price in ticks."""
        status, price = self._liquidation(account, instrument_id, position, cash)
        if status != t.LIQUIDATION_STATUS_AT_PRICE:
            return status, 0
        units = self._instruments[instrument_id].mark_units_per_tick
        return status, to_ticks(price, position.lots, units)
