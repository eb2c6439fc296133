"""Positions that exist elsewhere already."""

from dataclasses import replace
from typing import Final

from riskd.reference.ladder import Ladder
from riskd.reference.numbers import COUNT_MAX, sign_of
from riskd.reference.state import NONE, SPOT, Position, PositionKey, Reason, is_option
from riskd.v1 import types_pb2 as t

ENTRY_VALUE_MAX: Final = 2**62
WALLET_MAX: Final = 2**62


class Loading(Ladder):
    """load_position."""

    def load_position(
        self,
        account_id: int,
        instrument_id: int,
        position_side: int,
        lots: int,
        entry_value: int,
        wallet: int,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
    ) -> tuple[int, int, int]:
        """Return (reason, isolated wallet, available) as after it, or as they are when refused."""
        reason = self._position_reason(account_id, instrument_id)
        if reason != NONE:
            return reason, 0, 0
        account = self._accounts[account_id]
        side = self._position_side(account, instrument_id, position_side)
        if side is None:
            return t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED, 0, self._available(account)
        key = PositionKey(account_id, instrument_id, side)
        held = self._positions.get(key)
        loaded = replace(held or Position(), lots=lots, entry_value=entry_value, wallet=wallet)
        reason = self._load_reason(key, loaded)
        if reason != NONE:
            return reason, self._position(key).wallet, self._available(account)
        self._positions[key] = loaded
        available = self._available(account)
        if not validate_only:
            if not self._is_foreign(key):
                self._move_peaks(self._levels_of(account), wallet)
            self._take_credit(account_id)
            self._revision += 1
        elif held is None:
            del self._positions[key]
        else:
            self._positions[key] = held
        return NONE, wallet, available

    def _load_reason(self, key: PositionKey, loaded: Position) -> Reason:
        """A-7, A-9, L-8, A-20, C-2, C-10."""
        if self._position(key).lots != 0 or self._has_orders(key):
            return t.REASON_CODE_POSITION_NOT_FLAT
        if not self._is_load_valid(key, loaded):
            return t.REASON_CODE_DEFINITION_INVALID
        instrument = self._instruments[key.instrument_id]
        if is_option(instrument.kind) and loaded.lots < 0 and instrument.option_rule_id == 0:
            return t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED
        if self._is_settled(key.instrument_id):
            return t.REASON_CODE_INSTRUMENT_SETTLED
        if not self._has_position_room(key):
            return t.REASON_CODE_POSITIONS_FULL
        if not self._has_holding_room(self._accounts[key.account_id], key.instrument_id):
            return t.REASON_CODE_HOLDINGS_FULL
        return NONE

    def _is_load_valid(self, key: PositionKey, loaded: Position) -> bool:
        kind = self._instruments[key.instrument_id].kind
        has_wallet = self._is_isolated(key) and not is_option(kind)
        return (
            kind != SPOT
            and sign_of(loaded.lots) in signs_of(key.position_side)
            and abs(loaded.lots) <= COUNT_MAX
            and 1 <= loaded.entry_value <= ENTRY_VALUE_MAX
            and 0 <= loaded.wallet <= (WALLET_MAX if has_wallet else 0)
        )


def signs_of(position_side: int) -> tuple[int, ...]:
    """Return the signs that the lots of a position can have."""
    if position_side == t.POSITION_SIDE_NET:
        return 1, -1
    return (1,) if position_side == t.POSITION_SIDE_LONG else (-1,)
