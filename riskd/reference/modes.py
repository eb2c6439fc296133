"""change_margin_mode: between cross and isolated, with a position and orders too."""

from dataclasses import replace

from riskd.reference.ladder import Ladder
from riskd.reference.margin import can_be_liquidated, initial
from riskd.reference.numbers import ceil, fits
from riskd.reference.state import NONE, SPOT, Account, PositionKey, Reason, is_option
from riskd.v1 import types_pb2 as t


class Modes(Ladder):
    """The mode is a setting of (account, instrument): it holds for all position sides."""

    def change_margin_mode(
        self,
        account_id: int,
        instrument_id: int,
        margin_mode: int,
        validate_only: bool,
        now_ns: int,
    ) -> tuple[int, int, int, int]:
        """Return (reason, isolated wallets, available, change of the cash) as after it.

        When it is refused, as they are.
        """
        reason = self._position_reason(account_id, instrument_id)
        if reason != NONE:
            return reason, 0, 0, 0
        account = self._accounts[account_id]
        money = self._money(account_id, self._asset_of(instrument_id))
        reason = self._mode_reason(account_id, instrument_id, margin_mode, now_ns)
        if reason != NONE or self._stays(account_id, instrument_id, margin_mode):
            return (reason, *self._mode_result(account_id, instrument_id, money))
        held = dict(self._positions), dict(self._balances)
        has_room = self._has_balance_room((account_id, self._asset_of(instrument_id)))
        is_flat = self._is_flat_in(account_id, instrument_id)
        self._turn(account, instrument_id, margin_mode)
        if not is_flat:
            reason = self._turned_reason(account_id, instrument_id)
        if reason == NONE and len(self._positions) > self._positions_max:
            reason = t.REASON_CODE_POSITIONS_FULL
        if reason == NONE and not is_flat and not has_room:
            reason = t.REASON_CODE_BALANCES_FULL
        after = self._mode_result(account_id, instrument_id, money)
        if reason == NONE and not validate_only:
            self._take_credit(account_id)
            self._revision += 1
            return (NONE, *after)
        self._accounts[account_id] = account
        self._positions, self._balances = held
        if reason != NONE:
            after = self._mode_result(account_id, instrument_id, money)
        return (reason, *after)

    def _sides(self, account_id: int, instrument_id: int) -> list[PositionKey]:
        """Return the positions that settings of an account and instrument hold for, NET first."""
        sides = (t.POSITION_SIDE_NET, t.POSITION_SIDE_LONG, t.POSITION_SIDE_SHORT)
        return [PositionKey(account_id, instrument_id, side) for side in sides]

    def _open_sides(self, account_id: int, instrument_id: int) -> list[PositionKey]:
        sides = self._sides(account_id, instrument_id)
        return [key for key in sides if self._position(key).lots != 0]

    def _is_flat(self, key: PositionKey) -> bool:
        return self._position(key).lots == 0 and not self._has_orders(key)

    def _is_flat_in(self, account_id: int, instrument_id: int) -> bool:
        return all(self._is_flat(key) for key in self._sides(account_id, instrument_id))

    def _stays(self, account_id: int, instrument_id: int, margin_mode: int) -> bool:
        """Return whether there is something open and it has that mode already."""
        is_flat = self._is_flat_in(account_id, instrument_id)
        return not is_flat and self._mode(account_id, instrument_id) == margin_mode

    def _mode_reason(
        self, account_id: int, instrument_id: int, margin_mode: int, now_ns: int
    ) -> Reason:
        """F-15, A-22, A-7 of options and spot, S-10, S-11."""
        if margin_mode not in (t.MARGIN_MODE_CROSS, t.MARGIN_MODE_ISOLATED):
            return t.REASON_CODE_MARGIN_MODE_MISMATCH
        instrument = self._instruments[instrument_id]
        if instrument.isolated_only and margin_mode == t.MARGIN_MODE_CROSS:
            return t.REASON_CODE_ISOLATED_ONLY
        if instrument.kind == SPOT:
            return t.REASON_CODE_POSITION_NOT_FLAT
        if self._is_flat_in(account_id, instrument_id):
            return NONE
        if is_option(instrument.kind):
            return t.REASON_CODE_POSITION_NOT_FLAT
        if self._mode(account_id, instrument_id) == margin_mode:
            return NONE
        reason: Reason = NONE
        if self._open_sides(account_id, instrument_id):
            reason = self._mark_reason(instrument, now_ns)
        return reason if reason != NONE else self._pool_mark_reason(account_id, now_ns)

    def _turn(self, account: Account, instrument_id: int, margin_mode: int) -> None:
        """Set the mode; money moves between the pool and the wallets of what is open."""
        account_id = account.account_id
        for key in self._open_sides(account_id, instrument_id):
            position = self._position(key)
            wallet = 0
            if margin_mode == t.MARGIN_MODE_ISOLATED:
                wallet = self._wallet_needed(key)
            self._book(account_id, self._asset_of(instrument_id), position.wallet - wallet)
            self._positions[key] = replace(position, wallet=wallet)
        net = PositionKey(account_id, instrument_id, t.POSITION_SIDE_NET)
        self._positions[net] = replace(self._position(net), own_mode=margin_mode)

    def _wallet_needed(self, key: PositionKey) -> int:
        """Return initial(Nup) + max(0, -unrealised)."""
        position = self._position(key)
        notional = ceil(self._mark_value(key.instrument_id, position.lots))
        pnl = self._unrealised(key.instrument_id, position.lots, position.entry_value)
        return initial(self._contract(key), position.lots, notional) + max(0, -pnl)

    def _turned_reason(self, account_id: int, instrument_id: int) -> Reason:
        """A-2, A-21 of what the change leads to."""
        account = self._accounts[account_id]
        isolated = self._mode(account_id, instrument_id) == t.MARGIN_MODE_ISOLATED
        money = self._money(account_id, self._asset_of(instrument_id))
        if not self._covers_margin(account) or not fits(money) or (isolated and money < 0):
            return t.REASON_CODE_EXCEEDS_AVAILABLE
        for key in self._open_sides(account_id, instrument_id):
            if self._is_liquidatable(key):
                return t.REASON_CODE_BORN_LIQUIDATABLE_IN_MODE
        return NONE

    def _is_liquidatable(self, key: PositionKey) -> bool:
        """Return whether a position whose figures are known can be liquidated at the mark."""
        position = self._position(key)
        if self._is_foreign(key) and not self._is_isolated(key):
            part = self._pool_part(key, position)
            assert part is not None
            pool = self._pool_with(key, (key,), self._money_of(key), part)
            assert pool is not None
            return pool[0] <= pool[1]
        group = self._group(key, position)
        behind = self._money_behind(key, group, position.wallet, self._money_of(key))
        assert behind is not None
        price = self._marks[key.instrument_id].price
        return can_be_liquidated(self._contract(key), list(group.values()), behind, price)

    def _mode_result(
        self, account_id: int, instrument_id: int, money_before: int
    ) -> tuple[int, int, int]:
        """Return wallets, available and how the money outside of wallets changed."""
        sides = self._sides(account_id, instrument_id)
        wallets = sum(self._position(key).wallet for key in sides)
        change = self._money(account_id, self._asset_of(instrument_id)) - money_before
        return wallets, self._available(self._accounts[account_id]), change
