"""The state of docs/decision.md: rows, tables and their look-ups."""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from riskd.core.rows import (
    AssetRow,
    CollateralRow,
    InstrumentRow,
    RiskEventRow,
    ScheduleRow,
)
from riskd.reference.answers import Answer, AnswerMemory
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

Reason: TypeAlias = "t.ReasonCode.ValueType"
Decision: TypeAlias = "t.Decision.ValueType"
Status: TypeAlias = "t.LiquidationStatus.ValueType"
NONE: Final = t.REASON_CODE_NONE

SCOPE_SERVICE: Final = 1
SCOPE_GATEWAY: Final = 2
SCOPE_ACCOUNT: Final = 3
SCOPE_INSTRUMENT: Final = 4
SCOPE_FIRM: Final = 5

LINEAR_PERPETUAL: Final = 1
LINEAR_OPTION: Final = 2
INVERSE_PERPETUAL: Final = 3
LINEAR_FUTURE: Final = 4
INVERSE_FUTURE: Final = 5
INVERSE_OPTION: Final = 6
SPOT: Final = 7
QUANTO_PERPETUAL: Final = 8
PERPETUALS: Final = (LINEAR_PERPETUAL, INVERSE_PERPETUAL, QUANTO_PERPETUAL)
FUTURES: Final = (LINEAR_FUTURE, INVERSE_FUTURE)
INVERSE_CONTRACTS: Final = (INVERSE_PERPETUAL, INVERSE_FUTURE)
OPTIONS: Final = (LINEAR_OPTION, INVERSE_OPTION)

LIMIT_PRICED: Final = (
    t.ORDER_TYPE_LIMIT,
    t.ORDER_TYPE_STOP_LIMIT,
    t.ORDER_TYPE_TAKE_PROFIT_LIMIT,
)
TRIGGERED: Final = (
    t.ORDER_TYPE_STOP,
    t.ORDER_TYPE_STOP_LIMIT,
    t.ORDER_TYPE_TAKE_PROFIT,
    t.ORDER_TYPE_TAKE_PROFIT_LIMIT,
)
CONDITIONAL: Final = (*TRIGGERED, t.ORDER_TYPE_TRAILING_STOP)
ONLY_CLOSES: Final = orders_pb.ORDER_FLAG_REDUCE_ONLY | orders_pb.ORDER_FLAG_CLOSE_POSITION
DERIVES_QUANTITY: Final = orders_pb.ORDER_FLAG_CLOSE_POSITION | orders_pb.ORDER_FLAG_QUOTE_QUANTITY


@dataclass(frozen=True, slots=True)
class Mark:
    price: int
    time_ns: int
    volatility_ppb: int
    forward: int


@dataclass(frozen=True, slots=True)
class Gateway:
    trading_state: int = t.TRADING_STATE_NORMAL
    lease_end_ns: int = 0
    """0 without a lease."""
    lease_action: int = 0
    lease_swept: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    account_id: int
    asset_id: int
    margin_mode: int
    leverage: int
    cash: int
    trading_state: int = t.TRADING_STATE_NORMAL
    position_mode: int = t.POSITION_MODE_ONE_WAY
    firm_id: int = 0
    parent_account_id: int = 0
    credit_line: int = 0
    credit_used: int = 0
    margin_level: int = 0
    """Of the cross pool, as it was last looked at."""


class PositionKey(NamedTuple):
    account_id: int
    instrument_id: int
    position_side: int


@dataclass(frozen=True, slots=True)
class Position:
    """Signed lots x, entry value V, isolated wallet W, own settings (0 = the default)."""

    lots: int = 0
    entry_value: int = 0
    wallet: int = 0
    own_mode: int = 0
    own_leverage: int = 0
    margin_level: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """A working order."""

    reservation_id: int
    account_id: int
    instrument_id: int
    position_side: int
    gateway_id: int
    client_order_id: int
    side: int
    order_type: int
    time_in_force: int
    flags: int
    price_ticks: int
    quantity: int
    remaining: int
    margin_price: int
    open_loss: int
    trigger_price: int
    trailing_offset: int
    expire_ns: int
    accepted_ns: int

    @property
    def sign(self) -> int:
        return sign_of_side(self.side)

    @property
    def key(self) -> PositionKey:
        return PositionKey(self.account_id, self.instrument_id, self.position_side)

    @property
    def is_protective(self) -> bool:
        return is_protective(self.order_type, self.flags)

    @property
    def closes_position(self) -> bool:
        """Return whether it is protective with CLOSE_POSITION: it has no quantity of its own."""
        return self.is_protective and bool(self.flags & orders_pb.ORDER_FLAG_CLOSE_POSITION)


@dataclass(frozen=True, slots=True)
class ClosedOrder:
    """What is kept of an order that stopped working; the quantity is 0 where it had none."""

    reservation_id: int
    account_id: int
    instrument_id: int
    position_side: int
    gateway_id: int
    client_order_id: int
    side: int
    order_type: int
    price_ticks: int
    quantity: int
    unfilled: int

    @property
    def sign(self) -> int:
        return sign_of_side(self.side)

    @property
    def key(self) -> PositionKey:
        return PositionKey(self.account_id, self.instrument_id, self.position_side)

    @property
    def closes_position(self) -> bool:
        return self.quantity == 0


def is_option(kind: int) -> bool:
    return kind in OPTIONS


def is_contract(kind: int) -> bool:
    """Return whether it is any kind but an option and spot."""
    return kind in PERPETUALS or kind in FUTURES


def is_inverse(kind: int) -> bool:
    """Return whether it is a contract that is settled in its base coin."""
    return kind in INVERSE_CONTRACTS


def sign_of_side(side: int) -> int:
    return 1 if side == t.SIDE_BUY else -1


def is_protective(order_type: int, flags: int) -> bool:
    return order_type in CONDITIONAL and bool(flags & ONLY_CLOSES)


@dataclass(frozen=True, slots=True)
class Firm:
    firm_id: int
    asset_id: int
    trading_state: int
    credit_line: int = 0


class LimitKey(NamedTuple):
    scope: int
    scope_id: int
    instrument_id: int
    kind: int


@dataclass(frozen=True, slots=True)
class Limit:
    value: int
    burst: int
    action: int
    raised_value: int = 0
    raise_until_ns: int = 0
    due_ns: int = 0
    """Of a rate."""
    peak: int = 0
    """Of a drawdown."""

    def bound(self, now_ns: int) -> int:
        """Return the value that counts."""
        return self.raised_value if now_ns < self.raise_until_ns else self.value


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account by itself, or a firm, traded and realised on a day."""

    day: int
    traded: int = 0
    realised: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule with its numbers; scope and id of the level if it is a limit."""

    reason: Reason
    limit: int = 0
    use: int = 0
    order_use: int = 0
    scope: int = 0
    scope_id: int = 0
    soft: bool = False
    in_lots: bool = False


class State:
    """All state of one partition, and what can be read off it without a rule."""

    def __init__(
        self,
        *,
        accounts_max: int = 65536,
        positions_max: int = 65536,
        orders_max: int = 65536,
        instruments_max: int = 1024,
        schedules_max: int = 1024,
        gateways_max: int = 256,
        balances_max: int = 65536,
        firms_max: int = 4096,
        limits_max: int = 65536,
        holdings_max: int = 65536,
        answer_bytes: int = 2 << 20,
    ) -> None:
        self._accounts_max = accounts_max
        self._positions_max = positions_max
        self._orders_max = orders_max
        self._instruments_max = instruments_max
        self._schedules_max = schedules_max
        self._gateways_max = gateways_max
        self._balances_max = balances_max
        self._answer_bytes = answer_bytes
        self._firms_max = firms_max
        self._limits_max = limits_max
        self._holdings_max = holdings_max
        self._revision = 0
        self._assets: dict[int, AssetRow] = {}
        self._schedules: dict[int, ScheduleRow] = {}
        self._instruments: dict[int, InstrumentRow] = {}
        self._marks: dict[int, Mark] = {}
        self._accounts: dict[int, Account] = {}
        self._balances: dict[tuple[int, int], int] = {}
        """By account and asset; none is 0."""
        self._positions: dict[PositionKey, Position] = {}
        self._orders: dict[int, Order] = {}
        self._closed: dict[int, ClosedOrder] = {}
        """By rising time of closing."""
        self._deficits: dict[int, int] = {}
        self._firms: dict[int, Firm] = {}
        self._limits: dict[LimitKey, Limit] = {}
        self._usages: dict[tuple[int, int], Usage] = {}
        """By scope and id, of accounts alone and of firms."""
        self._levels_ppm = (0, 0)
        """Search and release; 0 and 0 are none."""
        self._collateral: dict[tuple[int, int], CollateralRow] = {}
        """By settlement asset and asset."""
        self._events: list[RiskEventRow] = []
        self._service_state: int = t.TRADING_STATE_NORMAL
        self._gateways: dict[int, Gateway] = {}
        """All that have a place in the table."""
        self._answers = AnswerMemory(answer_bytes)

    @property
    def revision(self) -> int:
        return self._revision

    # --- Gateways and answers ---

    def _gateway(self, gateway_id: int) -> Gateway:
        return self._gateways.get(gateway_id, Gateway())

    def _has_gateway_room(self, gateway_id: int) -> bool:
        return gateway_id in self._gateways or len(self._gateways) < self._gateways_max

    def _remember(self, answer: Answer) -> None:
        """Add an answer; its gateway has a place from the first one on."""
        self._gateways.setdefault(answer.gateway_id, Gateway())
        self._answers.remember(answer)

    # --- Orders ---

    def _is_settled(self, instrument_id: int) -> bool:
        return self._instruments[instrument_id].settlement_price != 0

    def _working_order(self, gateway_id: int, client_order_id: int) -> Order | None:
        """Return the working order with the gateway's own id, also when its answer is forgotten."""
        for order in self._orders.values():
            if (order.gateway_id, order.client_order_id) == (gateway_id, client_order_id):
                return order
        return None

    def _has_orders(self, key: PositionKey) -> bool:
        return bool(self._orders_of(key))

    def _orders_of(self, key: PositionKey) -> list[Order]:
        """Return the working orders of a position."""
        of_account = [each for each in self._orders.values() if each.account_id == key.account_id]
        return [each for each in of_account if each.key == key]

    def _close(self, order: Order) -> None:
        """Take a working order off the books; the last orders_max of them are kept as closed."""
        del self._orders[order.reservation_id]
        self._closed[order.reservation_id] = ClosedOrder(
            reservation_id=order.reservation_id,
            account_id=order.account_id,
            instrument_id=order.instrument_id,
            position_side=order.position_side,
            gateway_id=order.gateway_id,
            client_order_id=order.client_order_id,
            side=order.side,
            order_type=order.order_type,
            price_ticks=order.price_ticks,
            quantity=order.quantity,
            unfilled=order.remaining,
        )
        self._forget_closed()
        self._drop_empty_position(order.key)

    def _forget_closed(self) -> None:
        while len(self._closed) > self._orders_max:
            del self._closed[next(iter(self._closed))]

    # --- Positions ---

    def _position(self, key: PositionKey) -> Position:
        return self._positions.get(key, Position())

    def _settings(self, account_id: int, instrument_id: int) -> Position:
        """Return the NET position, where own mode and leverage stand also in hedge mode."""
        return self._position(PositionKey(account_id, instrument_id, t.POSITION_SIDE_NET))

    def _positions_of(self, account_id: int) -> list[tuple[PositionKey, Position]]:
        """Return the positions of an account by instrument id, then position side."""
        return sorted(item for item in self._positions.items() if item[0].account_id == account_id)

    def _has_position_room(self, key: PositionKey) -> bool:
        return key in self._positions or len(self._positions) < self._positions_max

    def _drop_empty_position(self, key: PositionKey) -> None:
        """Forget a position with x = 0, no own settings and no working orders."""
        if self._position(key) == Position() and not self._has_orders(key):
            self._positions.pop(key, None)

    def _position_reason(self, account_id: int, instrument_id: int) -> Reason:
        """F-3, F-4, F-14: what every change of a position needs."""
        if account_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if not self._can_trade(self._accounts[account_id], self._instruments[instrument_id]):
            return t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH
        return NONE

    def _can_trade(self, account: Account, instrument: InstrumentRow) -> bool:
        """F-14: another asset must be collateral; what is settled in it knows no limits."""
        if instrument.asset_id == account.asset_id or instrument.kind == SPOT:
            return instrument.asset_id == account.asset_id
        account_id = account.account_id
        has_owner = account.firm_id != 0 or account.parent_account_id != 0
        is_parent = any(each.parent_account_id == account_id for each in self._accounts.values())
        is_limited = any(key[:2] == (SCOPE_ACCOUNT, account_id) for key in self._limits)
        is_collateral = (account.asset_id, instrument.asset_id) in self._collateral
        return is_collateral and not (has_owner or is_parent or is_limited)

    def _asset_of(self, instrument_id: int) -> int:
        return self._instruments[instrument_id].asset_id

    def _is_foreign(self, key: PositionKey) -> bool:
        """Return whether a position is settled in another asset than its account."""
        return self._asset_of(key.instrument_id) != self._accounts[key.account_id].asset_id

    def _foreign_account_asset(self, key: PositionKey) -> int:
        """Return the account's asset where the position is settled in another one, else 0."""
        return self._accounts[key.account_id].asset_id if self._is_foreign(key) else 0

    def _has_foreign_open(self, account_id: int) -> bool:
        """Return whether an account has something in an instrument settled in another asset.

        A position with x not 0, a working order, or a closed one that a late fill may be of.
        """
        keys = [key for key, each in self._positions.items() if each.lots != 0]
        keys += [each.key for each in self._orders.values()]
        keys += [each.key for each in self._closed.values()]
        return any(key.account_id == account_id and self._is_foreign(key) for key in keys)

    def _position_side(
        self, account: Account, instrument_id: int, position_side: int
    ) -> int | None:
        """Return the side of the position that a request means; None if it is not valid (F-9)."""
        side = position_side or t.POSITION_SIDE_NET
        if self._instruments[instrument_id].kind == SPOT:
            return side if side == t.POSITION_SIDE_NET else None
        is_one_way = account.position_mode == t.POSITION_MODE_ONE_WAY
        is_known = t.POSITION_SIDE_NET <= side <= t.POSITION_SIDE_SHORT
        if is_known and is_one_way == (side == t.POSITION_SIDE_NET):
            return side
        # A late fill may leave a position of the other mode: it can be closed.
        is_open = self._position(PositionKey(account.account_id, instrument_id, side)).lots != 0
        return side if is_open else None

    # --- Balances of other assets ---

    def _has_balance_room(self, *owners: tuple[int, int]) -> bool:
        """Return whether the money of accounts and assets has its rows, or room for them."""
        needed = {
            owner
            for owner in owners
            if owner[1] != self._accounts[owner[0]].asset_id and owner not in self._balances
        }
        return not needed or len(self._balances) + len(needed) <= self._balances_max

    def _money(self, account_id: int, asset_id: int) -> int:
        """Return the cash of an account, of another asset than its own the balance."""
        account = self._accounts[account_id]
        if asset_id == account.asset_id:
            return account.cash
        return self._balances.get((account_id, asset_id), 0)

    def _money_of(self, key: PositionKey) -> int:
        """Return the money that a position takes from and gives to."""
        return self._money(key.account_id, self._asset_of(key.instrument_id))

    def _book(self, account_id: int, asset_id: int, amount: int) -> None:
        account = self._accounts[account_id]
        if asset_id == account.asset_id:
            self._accounts[account_id] = replace(account, cash=account.cash + amount)
        else:
            self._change_balance(account_id, asset_id, amount)

    def _change_balance(self, account_id: int, asset_id: int, amount: int) -> None:
        key = (account_id, asset_id)
        balance = self._balances.pop(key, 0) + amount
        if balance != 0:
            self._balances[key] = balance
