"""Changes from outside the hot door: collateral, margin, leverage, credit, trading states."""

from dataclasses import replace
from typing import Final

from riskd.reference.collateral import AMOUNT_MAX
from riskd.reference.margin import initial, liquidation_requirement, lots_max, notional_max
from riskd.reference.modes import Modes
from riskd.reference.numbers import ceil, fits
from riskd.reference.state import (
    NONE,
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    SCOPE_INSTRUMENT,
    SCOPE_SERVICE,
    Account,
    Position,
    PositionKey,
    Reason,
    is_contract,
)
from riskd.v1 import types_pb2 as t

CAPACITY_BOUNDS: Final = {
    "accounts_max": (1, 2**30),
    "positions_max": (1, 2**30),
    "orders_max": (1, 2**30),
    "instruments_max": (1, 2**20),
    "schedules_max": (1, 2**20),
    "gateways_max": (1, 2**16),
    "balances_max": (1, 2**30),
    "firms_max": (1, 2**20),
    "limits_max": (1, 2**24),
    "holdings_max": (1, 2**24),
    "answer_bytes": (4096, 2**32),
}


class Changes(Modes):
    """Each is whole or not at all."""

    def _withdrawal_reason(self, account: Account, amount: int, now_ns: int) -> Reason:
        """S-10, S-11 of cross positions, A-2: whether the pool can give an amount."""
        reason = self._pool_mark_reason(account.account_id, now_ns)
        if reason != NONE:
            return reason
        figures = self._account_figures(account)
        if figures is None or not figures.fits():
            return t.REASON_CODE_EXCEEDS_AVAILABLE
        if amount > min(figures.available_without_credit, account.cash):
            return t.REASON_CODE_EXCEEDS_AVAILABLE
        return NONE

    def adjust_collateral(
        self, account_id: int, asset_id: int, amount: int, validate_only: bool, now_ns: int
    ) -> tuple[int, int, int]:
        """Return (reason, cash, available) as after it, or as they are when it is refused.

        Of another asset than the account's it is the balance instead of the cash.
        """
        account = self._accounts.get(account_id)
        if account is None:
            return t.REASON_CODE_ACCOUNT_UNKNOWN, 0, 0
        if asset_id != account.asset_id:
            return self._adjust_balance(account, asset_id, amount, validate_only, now_ns)
        reason = self._adjust_reason(account, amount, now_ns)
        if reason != NONE:
            return reason, account.cash, self._available(account)
        changed = replace(account, cash=account.cash + amount)
        available = self._available(changed)
        if not validate_only:
            self._accounts[account_id] = changed
            self._move_peaks(self._levels_of(account), amount)
            self._take_credit(account_id)
            self._revision += 1
        return NONE, changed.cash, available

    def _adjust_reason(self, account: Account, amount: int, now_ns: int) -> Reason:
        if amount == 0 or not fits(amount, -amount, account.cash + amount):
            return t.REASON_CODE_AMOUNT_OUT_OF_RANGE
        if amount < 0:
            return self._withdrawal_reason(account, -amount, now_ns)
        return NONE

    def _adjust_balance(
        self, account: Account, asset_id: int, amount: int, validate_only: bool, now_ns: int
    ) -> tuple[int, int, int]:
        account_id = account.account_id
        balance = self._balances.get((account_id, asset_id), 0)
        reason = self._balance_reason(account_id, asset_id, balance, amount)
        is_collateral = (account.asset_id, asset_id) in self._collateral
        if reason == NONE and amount < 0 and is_collateral:
            reason = self._pool_mark_reason(account_id, now_ns)
        if reason != NONE:
            return reason, balance, self._available(account)
        self._change_balance(account_id, asset_id, amount)
        if amount < 0 and is_collateral and not self._covers_margin(account):
            reason = t.REASON_CODE_EXCEEDS_AVAILABLE
        available = self._available(account)
        if reason == NONE and not validate_only:
            self._take_credit(account_id)
            self._revision += 1
            return NONE, balance + amount, available
        self._change_balance(account_id, asset_id, -amount)
        if reason != NONE:
            return reason, balance, self._available(account)
        return NONE, balance + amount, available

    def _balance_reason(self, account_id: int, asset_id: int, balance: int, amount: int) -> Reason:
        """A-1, A-12, A-2, C-7."""
        if amount == 0 or not fits(amount, -amount, balance + amount):
            return t.REASON_CODE_AMOUNT_OUT_OF_RANGE
        if asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        for_sale = self._base_for_sale(account_id, asset_id)
        if amount < 0 and balance + amount < for_sale:
            return t.REASON_CODE_EXCEEDS_AVAILABLE
        if not self._has_balance_room((account_id, asset_id)):
            return t.REASON_CODE_BALANCES_FULL
        return NONE

    def transfer_margin(
        self,
        account_id: int,
        instrument_id: int,
        amount: int,
        validate_only: bool,
        now_ns: int,
        position_side: int = 0,
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
        position = self._position(key)
        reason = self._transfer_reason(key, amount, now_ns)
        if reason != NONE:
            return reason, position.wallet, self._available(account)
        held = self._accounts[account_id], dict(self._balances)
        self._book(account_id, self._asset_of(instrument_id), -amount)
        if self._is_foreign(key) and amount > 0 and not self._covers_margin(account):
            reason = t.REASON_CODE_EXCEEDS_AVAILABLE
        wallet = position.wallet + amount
        available = self._available(self._accounts[account_id])
        if reason == NONE and not validate_only:
            self._positions[key] = replace(position, wallet=wallet)
            self._take_credit(account_id)
            self._revision += 1
            return NONE, wallet, available
        self._accounts[account_id], self._balances = held
        if reason != NONE:
            return reason, position.wallet, self._available(account)
        return NONE, wallet, available

    def _transfer_reason(self, key: PositionKey, amount: int, now_ns: int) -> Reason:
        account = self._accounts[key.account_id]
        instrument = self._instruments[key.instrument_id]
        position = self._position(key)
        is_isolated = is_contract(instrument.kind) and self._is_isolated(key)
        if not is_isolated or position.lots == 0:
            return t.REASON_CODE_NO_ISOLATED_POSITION
        money = self._money_of(key)
        if amount == 0 or not fits(amount, -amount, money - amount, position.wallet + amount):
            return t.REASON_CODE_AMOUNT_OUT_OF_RANGE
        if amount > 0 and self._is_foreign(key):
            mark_reason = self._pool_mark_reason(key.account_id, now_ns)
            too_much = mark_reason == NONE and amount > money
            return t.REASON_CODE_EXCEEDS_AVAILABLE if too_much else mark_reason
        if amount > 0:
            return self._withdrawal_reason(account, amount, now_ns)
        reason = self._mark_reason(instrument, now_ns)
        if reason != NONE:
            return reason
        notional = ceil(self._mark_value(key.instrument_id, position.lots))
        pnl = self._unrealised(key.instrument_id, position.lots, position.entry_value)
        contract = self._contract(key)
        needed = max(
            initial(contract, position.lots, notional),
            liquidation_requirement(contract, position.lots, position.entry_value, notional),
        )
        if position.wallet + amount + min(0, pnl) < needed:
            return t.REASON_CODE_EXCEEDS_REMOVABLE_MARGIN
        if not self._has_balance_room((key.account_id, instrument.asset_id)):
            return t.REASON_CODE_BALANCES_FULL
        return NONE

    def set_leverage(
        self, account_id: int, instrument_id: int, leverage: int, validate_only: bool, now_ns: int
    ) -> tuple[int, int, int]:
        """Return (reason, leverage, available) as after it, or as they are when it is refused."""
        reason = self._position_reason(account_id, instrument_id)
        if reason != NONE:
            return reason, 0, 0
        key = PositionKey(account_id, instrument_id, t.POSITION_SIDE_NET)
        held = self._positions.get(key)
        reason = self._leverage_bound_reason(account_id, instrument_id, leverage)
        if reason == NONE:
            before = self._requirements(account_id, instrument_id)
            self._positions[key] = replace(held or Position(), own_leverage=leverage)
            reason = self._leverage_margin_reason(account_id, instrument_id, before, now_ns)
            if reason == NONE and held is None and len(self._positions) > self._positions_max:
                reason = t.REASON_CODE_POSITIONS_FULL
        result = self._leverage_result(account_id, instrument_id)
        if reason == NONE and not validate_only:
            self._take_credit(account_id)
            self._revision += 1
            return (NONE, *result)
        if held is None:
            self._positions.pop(key, None)
        else:
            self._positions[key] = held
        if reason != NONE:
            result = self._leverage_result(account_id, instrument_id)
        return (reason, *result)

    def _leverage_result(self, account_id: int, instrument_id: int) -> tuple[int, int]:
        available = self._available(self._accounts[account_id])
        return self._leverage(account_id, instrument_id), available

    def _requirements(self, account_id: int, instrument_id: int) -> int | None:
        """Return the requirements of all position sides together; None without the mark."""
        each = [self._requirement(key) for key in self._sides(account_id, instrument_id)]
        known = [requirement for requirement in each if requirement is not None]
        return sum(known) if len(known) == len(each) else None

    def _leverage_bound_reason(self, account_id: int, instrument_id: int, leverage: int) -> Reason:
        """S-10 of the instrument, A-5, A-6."""
        sides = self._sides(account_id, instrument_id)
        if not is_contract(self._instruments[instrument_id].kind):
            return t.REASON_CODE_LEVERAGE_OUT_OF_RANGE
        needs_mark = any(self._is_open_cross(key, self._position(key)) for key in sides)
        if needs_mark and instrument_id not in self._marks:
            return t.REASON_CODE_MARK_MISSING
        schedule = self._schedule_of(instrument_id)
        if not 100 <= leverage <= schedule.tiers[0].leverage_max:
            return t.REASON_CODE_LEVERAGE_OUT_OF_RANGE
        bound, bound_in_lots = notional_max(schedule, leverage), lots_max(schedule, leverage)
        for key in sides:
            for sign in (1, -1):
                side = self._side_margin(key, sign, None)
                if bound is not None and side.side_notional > bound:
                    return t.REASON_CODE_LEVERAGE_OUT_OF_RANGE
                if bound_in_lots is not None and side.side_lots > bound_in_lots:
                    return t.REASON_CODE_LEVERAGE_OUT_OF_RANGE
        is_open = any(self._position(key).lots != 0 for key in sides)
        lowered = leverage < self._leverage(account_id, instrument_id)
        if self._is_isolated(sides[0]) and is_open and lowered:
            return t.REASON_CODE_LEVERAGE_LOWERED_ON_ISOLATED
        return NONE

    def _leverage_margin_reason(
        self, account_id: int, instrument_id: int, before: int | None, now_ns: int
    ) -> Reason:
        """S-10, S-11, A-2, when the requirements rose from before to what they are now."""
        after = self._requirements(account_id, instrument_id)
        if before is None or after is None or after <= before:
            return NONE
        reason = self._pool_mark_reason(account_id, now_ns)
        if reason != NONE:
            return reason
        if not self._covers_margin(self._accounts[account_id]):
            return t.REASON_CODE_EXCEEDS_AVAILABLE
        return NONE

    def set_position_mode(self, account_id: int, position_mode: int) -> int:
        """Return the reason."""
        account = self._accounts.get(account_id)
        if account is None:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if position_mode not in (t.POSITION_MODE_ONE_WAY, t.POSITION_MODE_HEDGE):
            return t.REASON_CODE_DEFINITION_INVALID
        if not all(self._is_flat(key) for key, _ in self._positions_of(account_id)):
            return t.REASON_CODE_POSITION_NOT_FLAT
        self._accounts[account_id] = replace(account, position_mode=position_mode)
        self._revision += 1
        return NONE

    def set_credit_line(
        self,
        scope: int,
        scope_id: int,
        amount: int,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
    ) -> int:
        """Return the reason."""
        reason = self._credit_line_reason(scope, scope_id, amount)
        if reason == NONE and not validate_only:
            if scope == SCOPE_FIRM:
                self._firms[scope_id] = replace(self._firms[scope_id], credit_line=amount)
            else:
                self._accounts[scope_id] = replace(self._accounts[scope_id], credit_line=amount)
                self._take_credit(scope_id)
            self._revision += 1
        return reason

    def _credit_line_reason(self, scope: int, scope_id: int, amount: int) -> Reason:
        """A-9 of the scope, F-3, A-16, A-9."""
        if scope not in (SCOPE_ACCOUNT, SCOPE_FIRM):
            return t.REASON_CODE_DEFINITION_INVALID
        if scope == SCOPE_ACCOUNT and scope_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if scope == SCOPE_FIRM and scope_id not in self._firms:
            return t.REASON_CODE_FIRM_UNKNOWN
        return NONE if 0 <= amount <= AMOUNT_MAX else t.REASON_CODE_DEFINITION_INVALID

    def set_trading_state(self, scope: int, scope_id: int, trading_state: int) -> int:
        """Return the reason."""
        reason = self._trading_state_reason(scope, scope_id, trading_state)
        if reason != NONE:
            return reason
        if scope == SCOPE_SERVICE:
            self._service_state = trading_state
        elif scope == SCOPE_GATEWAY:
            if scope_id in self._gateways or trading_state != t.TRADING_STATE_NORMAL:
                gateway = self._gateway(scope_id)
                self._gateways[scope_id] = replace(gateway, trading_state=trading_state)
        elif scope == SCOPE_ACCOUNT:
            account = self._accounts[scope_id]
            self._accounts[scope_id] = replace(account, trading_state=trading_state)
        elif scope == SCOPE_FIRM:
            self._firms[scope_id] = replace(self._firms[scope_id], trading_state=trading_state)
        else:
            instrument = self._instruments[scope_id]
            self._instruments[scope_id] = instrument._replace(trading_state=trading_state)
        self._revision += 1
        return NONE

    def set_capacities(self, **capacities: int) -> bool:
        """Return whether anything changed; raise ValueError for what is not possible."""
        in_use = {
            "accounts_max": len(self._accounts),
            "positions_max": len(self._positions),
            "orders_max": len(self._orders),
            "instruments_max": len(self._instruments),
            "schedules_max": len(self._schedules),
            "gateways_max": len(self._gateways),
            "balances_max": len(self._balances),
            "firms_max": len(self._firms),
            "limits_max": len(self._limits),
            "holdings_max": len(self._holding_rows()),
        }
        for name, value in capacities.items():
            low, high = CAPACITY_BOUNDS[name]
            if not max(low, in_use.get(name, 0)) <= value <= high or (
                name == "answer_bytes" and value % 16
            ):
                raise ValueError(f"{name} {value} is not possible")
        changed = {
            name: value for name, value in capacities.items() if getattr(self, f"_{name}") != value
        }
        for name, value in changed.items():
            setattr(self, f"_{name}", value)
        self._answers.resize(self._answer_bytes)
        self._forget_closed()
        self._revision += bool(changed)
        return bool(changed)

    def _trading_state_reason(self, scope: int, scope_id: int, trading_state: int) -> Reason:
        normal, halted = t.TRADING_STATE_NORMAL, t.TRADING_STATE_HALTED
        if not SCOPE_SERVICE <= scope <= SCOPE_FIRM or not normal <= trading_state <= halted:
            return t.REASON_CODE_DEFINITION_INVALID
        if scope == SCOPE_ACCOUNT and scope_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if scope == SCOPE_FIRM and scope_id not in self._firms:
            return t.REASON_CODE_FIRM_UNKNOWN
        if scope == SCOPE_INSTRUMENT and scope_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if scope == SCOPE_GATEWAY:
            if not 0 < scope_id < 1 << 32:
                return t.REASON_CODE_GATEWAY_ID_MISSING
            if trading_state != normal and not self._has_gateway_room(scope_id):
                return t.REASON_CODE_GATEWAYS_FULL
        return NONE
