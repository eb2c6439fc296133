"""The end of an instrument: every position is closed at the settlement price."""

from dataclasses import replace
from fractions import Fraction

from riskd.core.rows import InstrumentRow
from riskd.reference.limits import Limits
from riskd.reference.margin import Fill, lot_money, profit, tick_value
from riskd.reference.numbers import COUNT_MAX, ceil, fits, floor
from riskd.reference.state import (
    INVERSE_OPTION,
    NONE,
    SPOT,
    Position,
    PositionKey,
    Reason,
    is_option,
)
from riskd.v1 import types_pb2 as t


class Settlement(Limits):
    """settle_instrument, and what a position is worth in it."""

    def settle_instrument(
        self, instrument_id: int, price: int, *, validate_only: bool = False, now_ns: int = 0
    ) -> tuple[int, int, int, int, int, int]:
        """Return (reason, positions, released orders, sum of profits, sum of losses, deficit).

        The price is in mark units; of options it is the underlying's, in the units of the strike.
        """
        reason = self._settlement_reason(instrument_id, price, now_ns)
        if reason != NONE:
            return reason, 0, 0, 0, 0, 0
        closed = {
            key: self._settled(key, position, price)
            for key, position in sorted(self._positions.items())
            if key.instrument_id == instrument_id and position.lots != 0
        }
        profits = sum(max(0, each.realised) for each in closed.values())
        losses = sum(max(0, -each.realised) for each in closed.values())
        deficit = sum(each.deficit_change for each in closed.values())
        if not (fits(profits, losses, deficit) and self._settlement_fits(instrument_id, closed)):
            return t.REASON_CODE_MARGIN_OVERFLOWS, 0, 0, 0, 0, 0
        asset_id = self._asset_of(instrument_id)
        if not self._has_balance_room(*((key.account_id, asset_id) for key in closed)):
            return t.REASON_CODE_BALANCES_FULL, 0, 0, 0, 0, 0
        orders = [each for each in self._orders.values() if each.instrument_id == instrument_id]
        if not validate_only:
            for order in sorted(orders, key=lambda each: each.reservation_id):
                self._close(order)
            for key, filled in closed.items():
                self._close_position(key, filled, now_ns)
            settled = self._instruments[instrument_id]._replace(settlement_price=price)
            self._instruments[instrument_id] = settled
            self._revision += 1
            touched = {each.account_id for each in orders} | {key.account_id for key in closed}
            for account_id in touched:
                self._take_credit(account_id)
            self._marks.pop(instrument_id, None)
        return NONE, len(closed), len(orders), profits, losses, deficit

    def _settlement_reason(self, instrument_id: int, price: int, now_ns: int) -> Reason:
        """F-4, A-9, A-20, A-19."""
        instrument = self._instruments.get(instrument_id)
        if instrument is None:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if instrument.kind == SPOT or not 1 <= price <= COUNT_MAX:
            return t.REASON_CODE_DEFINITION_INVALID
        if self._is_settled(instrument_id):
            return t.REASON_CODE_INSTRUMENT_SETTLED
        is_expired = instrument.expiry_ns != 0 and instrument.expiry_ns <= now_ns
        if not is_expired and instrument.trading_state != t.TRADING_STATE_HALTED:
            return t.REASON_CODE_INSTRUMENT_NOT_EXPIRED
        return NONE

    def _settlement_fits(self, instrument_id: int, closed: dict[PositionKey, Fill]) -> bool:
        """M-3."""
        asset_id = self._instruments[instrument_id].asset_id
        deficit = self._deficits.get(asset_id, 0)
        deficit += sum(each.deficit_change for each in closed.values())
        money = {key.account_id: self._money_of(key) for key in closed}
        for key, filled in closed.items():
            money[key.account_id] += filled.cash_change
        figures = [each.realised for each in closed.values()]
        return fits(deficit, *money.values(), *figures)

    def _settled(self, key: PositionKey, position: Position, price: int) -> Fill:
        """Return a position as it is when it has been closed at a settlement price."""
        instrument = self._instruments[key.instrument_id]
        deficit = 0
        if is_option(instrument.kind):
            worth = self._intrinsic_value(instrument, price) * abs(position.lots)
            value = floor(worth) if position.lots > 0 else -ceil(worth)
            signed_entry = position.entry_value if position.lots > 0 else -position.entry_value
            cash, realised = value, value - signed_entry
        else:
            contract = self._contract(key)
            notional = contract.notional(position.lots, price)
            realised = profit(contract.sigma(position.lots), position.entry_value, notional)
            cash = realised
            if self._is_isolated(key):
                left = position.wallet + realised
                cash, deficit = max(0, left), max(0, -left)
        return Fill(
            lots=0,
            entry_value=0,
            wallet=0,
            cash_change=cash,
            deficit_change=deficit,
            realised=realised,
        )

    def _intrinsic_value(self, instrument: InstrumentRow, price: int) -> Fraction:
        """Return what one lot of an option pays, in minor units."""
        is_call = instrument.option_type == 1
        ahead = price - instrument.strike_units if is_call else instrument.strike_units - price
        scale = self._scale(instrument)
        if instrument.kind == INVERSE_OPTION:
            return Fraction(max(0, ahead), price) * lot_money(instrument, scale)
        return max(0, ahead) * tick_value(instrument, scale) / instrument.mark_units_per_tick

    def _close_position(self, key: PositionKey, filled: Fill, now_ns: int) -> None:
        asset_id = self._asset_of(key.instrument_id)
        self._book(key.account_id, asset_id, filled.cash_change)
        deficit = self._deficits.get(asset_id, 0)
        self._deficits[asset_id] = deficit + filled.deficit_change
        self._positions[key] = replace(self._position(key), lots=0, entry_value=0, wallet=0)
        # What a bankrupt isolated position cannot pay is not the account's loss.
        realised = filled.realised + filled.deficit_change
        if not self._is_foreign(key):
            self._count_realised(key.account_id, 0, realised, now_ns)
        self._drop_empty_position(key)
