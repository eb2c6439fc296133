"""The state of docs/decision.md: rows, tables and their look-ups."""

from dataclasses import dataclass
from typing import Final, TypeAlias

from riskd.core.rows import (
    AssetRow,
    InstrumentRow,
    ScheduleRow,
)
from riskd.reference.answers import Answer, AnswerMemory
from riskd.v1 import types_pb2 as t

Reason: TypeAlias = "t.ReasonCode.ValueType"
Status: TypeAlias = "t.LiquidationStatus.ValueType"
NONE: Final = t.REASON_CODE_NONE

SCOPE_SERVICE: Final = 1
SCOPE_GATEWAY: Final = 2
SCOPE_ACCOUNT: Final = 3
SCOPE_INSTRUMENT: Final = 4

PERPETUAL: Final = 1
OPTION: Final = 2


@dataclass(frozen=True, slots=True)
class Mark:
    price: int
    time_ns: int
    volatility_ppb: int
    forward: int


@dataclass(frozen=True, slots=True)
class Account:
    account_id: int
    asset_id: int
    margin_mode: int
    leverage: int
    cash: int
    trading_state: int


@dataclass(frozen=True, slots=True)
class Position:
    """Signed lots x, entry value V, isolated wallet W, own settings (0 = the default)."""

    lots: int = 0
    entry_value: int = 0
    wallet: int = 0
    own_mode: int = 0
    own_leverage: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    reservation_id: int
    account_id: int
    instrument_id: int
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

    @property
    def sign(self) -> int:
        return 1 if self.side == t.SIDE_BUY else -1


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
        answer_bytes: int = 2 << 20,
    ) -> None:
        self._accounts_max = accounts_max
        self._positions_max = positions_max
        self._orders_max = orders_max
        self._instruments_max = instruments_max
        self._schedules_max = schedules_max
        self._gateways_max = gateways_max
        self._answer_bytes = answer_bytes

        self._revision = 0
        self._assets: dict[int, AssetRow] = {}
        self._schedules: dict[int, ScheduleRow] = {}
        self._instruments: dict[int, InstrumentRow] = {}
        self._marks: dict[int, Mark] = {}
        self._accounts: dict[int, Account] = {}
        self._positions: dict[tuple[int, int], Position] = {}
        self._orders: dict[int, Order] = {}
        self._deficits: dict[int, int] = {}
        self._service_state: int = t.TRADING_STATE_NORMAL
        # Of every gateway that has a place in the table.
        self._gateway_states: dict[int, int] = {}
        self._answers = AnswerMemory(answer_bytes)

    @property
    def revision(self) -> int:
        return self._revision

    def _has_gateway_room(self, gateway_id: int) -> bool:
        return gateway_id in self._gateway_states or (
            len(self._gateway_states) < self._gateways_max
        )

    def _remember(self, answer: Answer) -> None:
        """Add an answer; its gateway has a place from the first one on."""
        self._gateway_states.setdefault(answer.gateway_id, t.TRADING_STATE_NORMAL)
        self._answers.remember(answer)

    def _working_order(self, gateway_id: int, client_order_id: int) -> Order | None:
        """Return the working order with the gateway's own id, also when its answer is forgotten."""
        for order in self._orders.values():
            if (order.gateway_id, order.client_order_id) == (gateway_id, client_order_id):
                return order
        return None

    def _position(self, account_id: int, instrument_id: int) -> Position:
        return self._positions.get((account_id, instrument_id), Position())

    def _positions_of(self, account_id: int) -> list[tuple[int, Position]]:
        """Return (instrument id, position) of an account in the order of instrument ids."""
        return sorted(
            (instrument_id, position)
            for (owner_id, instrument_id), position in self._positions.items()
            if owner_id == account_id
        )

    def _has_position_room(self, account_id: int, instrument_id: int) -> bool:
        return (account_id, instrument_id) in self._positions or (
            len(self._positions) < self._positions_max
        )

    def _position_slot(self, account_id: int, instrument_id: int) -> Position:
        return self._positions.setdefault((account_id, instrument_id), Position())

    def _has_orders(self, account_id: int, instrument_id: int) -> bool:
        key = (account_id, instrument_id)
        return any((each.account_id, each.instrument_id) == key for each in self._orders.values())

    def _drop_empty_position(self, account_id: int, instrument_id: int) -> None:
        """Forget a position with x = 0, no own settings and no working orders."""
        position = self._position(account_id, instrument_id)
        if position == Position() and not self._has_orders(account_id, instrument_id):
            self._positions.pop((account_id, instrument_id), None)

    def _position_reason(self, account_id: int, instrument_id: int) -> Reason:
        """F-3, F-4, F-14: what every change of a position needs."""
        if account_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if self._accounts[account_id].asset_id != self._instruments[instrument_id].asset_id:
            return t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH
        return NONE
