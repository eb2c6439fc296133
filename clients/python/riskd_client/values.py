"""The values that callers give and get: enums and frozen dataclasses, with exact decimals.

Prices are in quote currency per unit of the underlying, quantities in units of the underlying,
money in units of the settlement asset.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Protocol, Self

from riskd_client.numbers import Amount, exact


class WireEnum(IntEnum):
    """An enum of the contract, by its numbers.

    Servers are upgraded before their clients, so a reply may hold a number that is not listed
    here: it becomes a member named UNRECOGNISED_<number>, never an error.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNRECOGNISED_{value}"
        member._value_ = value
        return member


class Side(WireEnum):
    """Side of an order."""

    UNSPECIFIED = 0
    BUY = 1
    SELL = 2


class PositionSide(WireEnum):
    """Which position of an account on an instrument; NET unless in hedge mode."""

    UNSPECIFIED = 0
    NET = 1
    LONG = 2
    SHORT = 3


class OrderType(WireEnum):
    """Type of an order; docs/decision.md says which price each is margined at."""

    UNSPECIFIED = 0
    LIMIT = 1
    MARKET = 2
    STOP = 3
    STOP_LIMIT = 4
    TAKE_PROFIT = 5
    TAKE_PROFIT_LIMIT = 6
    TRAILING_STOP = 7


class TimeInForce(WireEnum):
    """How long an order lives."""

    UNSPECIFIED = 0
    GTC = 1
    IOC = 2
    FOK = 3
    GTD = 4


class MarginMode(WireEnum):
    """How a position is margined."""

    UNSPECIFIED = 0
    CROSS = 1
    ISOLATED = 2


class PositionMode(WireEnum):
    """Whether an account has one position or two per instrument."""

    UNSPECIFIED = 0
    ONE_WAY = 1
    HEDGE = 2


class LeaseAction(WireEnum):
    """What happens when a gateway's lease ends: CANCEL also releases its working orders."""

    UNSPECIFIED = 0
    BLOCK = 1
    CANCEL = 2


class LimitKind(WireEnum):
    """What a limit bounds; docs/limits.md has units and formulas."""

    UNSPECIFIED = 0
    ORDER_QUANTITY_MIN = 1
    ORDER_QUANTITY_MAX = 2
    ORDER_NOTIONAL_MIN = 3
    ORDER_NOTIONAL_MAX = 4
    COLLAR_PPB = 5
    COLLAR_TICKS = 6
    POSITION_LOTS_MAX = 7
    POSITION_NOTIONAL_MAX = 8
    GROSS_EXPOSURE_MAX = 9
    OPEN_ORDERS_MAX = 10
    OPEN_NOTIONAL_MAX = 11
    ORDER_RATE_MAX = 12
    EXECUTION_RATE_MAX = 13
    DAILY_TRADED_MAX = 14
    DAILY_LOSS_MAX = 15
    DRAWDOWN_MAX = 16
    LEVERAGE_MAX = 17
    DELTA_MAX = 18
    GAMMA_MAX = 19
    VEGA_MAX = 20
    CONCENTRATION_MAX = 21
    DENIED = 22
    ALLOWED = 23


class LimitAction(WireEnum):
    """Whether a broken limit stops the order: SOFT ones only warn."""

    UNSPECIFIED = 0
    HARD = 1
    SOFT = 2


class TradingState(WireEnum):
    """What may be traded of a scope."""

    UNSPECIFIED = 0
    NORMAL = 1
    REDUCE_ONLY = 2
    HALTED = 3


class Decision(WireEnum):
    """The answer to an order or an execution."""

    UNSPECIFIED = 0
    ACCEPTED = 1
    REJECTED = 2
    ACCEPTED_WITH_WARNING = 3


class LiquidationStatus(WireEnum):
    """What a liquidation price says."""

    UNSPECIFIED = 0
    AT_PRICE = 1
    CANNOT_BE_LIQUIDATED = 2
    NO_POSITION = 3


class DecisionView(WireEnum):
    """How much of the explanation a decision carries."""

    UNSPECIFIED = 0
    BASIC = 1
    MARGIN = 2
    FULL = 3


class ReservationState(WireEnum):
    """Where an order stands.

    CLOSED was decided and holds nothing now: rejected, filled, cancelled or expired. UNKNOWN asked
    by client_order_id: no answer is remembered, and the order may still be on its way; asked by
    reservation_id: nothing works under it, and it is not among the last that did.
    """

    UNSPECIFIED = 0
    UNKNOWN = 1
    WORKING = 2
    CLOSED = 3


class InstrumentKind(WireEnum):
    """What an instrument is."""

    UNSPECIFIED = 0
    LINEAR_PERPETUAL = 1
    LINEAR_OPTION = 2
    INVERSE_PERPETUAL = 3
    LINEAR_FUTURE = 4
    INVERSE_FUTURE = 5
    INVERSE_OPTION = 6
    SPOT = 7
    QUANTO_PERPETUAL = 8


class OptionType(WireEnum):
    """Right of an option."""

    UNSPECIFIED = 0
    CALL = 1
    PUT = 2


class Reason(WireEnum):
    """Why: one stable number for each rule. The comments name the rules of docs/decision.md.

    Limits are those of docs/limits.md.
    """

    UNSPECIFIED = 0
    NONE = 1

    CLIENT_ORDER_ID_MISSING = 10  # F-1
    GATEWAY_ID_MISSING = 11  # F-2
    ACCOUNT_UNKNOWN = 12  # F-3
    INSTRUMENT_UNKNOWN = 13  # F-4
    SIDE_INVALID = 14  # F-5
    ORDER_TYPE_NOT_SUPPORTED = 15  # F-6
    TIME_IN_FORCE_NOT_SUPPORTED = 16  # F-7
    FLAG_NOT_SUPPORTED = 17  # F-8
    POSITION_SIDE_NOT_SUPPORTED = 18  # F-9
    QUANTITY_MUST_BE_POSITIVE = 19  # F-10
    QUANTITY_OUT_OF_RANGE = 20  # F-11
    PRICE_OUT_OF_RANGE = 21  # F-12
    NOTIONAL_OVERFLOWS = 22  # F-13
    SETTLEMENT_ASSET_MISMATCH = 23  # F-14
    MARGIN_MODE_MISMATCH = 24  # F-15
    CHECK_MODE_NOT_SUPPORTED = 25  # F-16
    VIEW_NOT_SUPPORTED = 26  # F-17
    TRIGGER_PRICE_OUT_OF_RANGE = 27  # F-18
    TRAILING_OFFSET_OUT_OF_RANGE = 28  # F-19
    EXPIRE_TIME_OUT_OF_RANGE = 29  # F-20

    SERVICE_HALTED = 40  # S-1
    GATEWAY_HALTED = 41  # S-2
    ACCOUNT_HALTED = 42  # S-3
    INSTRUMENT_HALTED = 43  # S-4
    INSTRUMENT_EXPIRED = 44  # S-5
    SERVICE_REDUCE_ONLY = 45  # S-6
    GATEWAY_REDUCE_ONLY = 46  # S-7
    ACCOUNT_REDUCE_ONLY = 47  # S-8
    INSTRUMENT_REDUCE_ONLY = 48  # S-9
    MARK_MISSING = 49  # S-10
    MARK_STALE = 50  # S-11
    GATEWAY_LEASE_ENDED = 51  # S-12
    FIRM_HALTED = 52  # S-13
    FIRM_REDUCE_ONLY = 53  # S-14

    CLIENT_ORDER_ID_REUSED = 60  # I-1
    EXECUTION_ID_REUSED = 61  # I-2
    EXECUTION_ID_MISSING = 62  # I-3

    BELOW_ORDER_QUANTITY_MIN = 80  # L-1
    EXCEEDS_ORDER_QUANTITY_MAX = 81  # L-2
    BELOW_ORDER_NOTIONAL_MIN = 82  # L-3
    EXCEEDS_ORDER_NOTIONAL_MAX = 83  # L-4
    PRICE_OUTSIDE_COLLAR = 84  # L-5
    EXCEEDS_POSITION_NOTIONAL_MAX = 85  # L-6
    REDUCE_ONLY_WOULD_INCREASE = 86  # L-7
    SHORT_OPTION_NOT_PERMITTED = 87  # L-8
    POSITION_SIDE_WOULD_TURN = 88  # L-9
    PROTECTIVE_ORDERS_MAX = 89  # L-10

    MARGIN_INSUFFICIENT = 100  # M-1
    BORN_LIQUIDATABLE = 101  # M-2
    MARGIN_OVERFLOWS = 102  # M-3
    BALANCE_INSUFFICIENT = 103  # M-4

    RESERVATION_UNKNOWN = 120  # E-1
    EXECUTION_EXCEEDS_REMAINING = 121  # E-2
    EXECUTION_KIND_NOT_SUPPORTED = 122  # E-3
    EXECUTION_QUANTITY_MISMATCH = 123  # E-4
    EXECUTION_INSTRUMENT_MISMATCH = 124  # E-5
    AMENDMENT_BELOW_FILLED = 125  # E-6
    EXECUTION_BEYOND_LIMIT = 126  # E-7, a warning
    RESERVATION_CLOSED = 127  # E-8, a warning
    ORIGINAL_EXECUTION_UNKNOWN = 128  # E-9
    EXECUTION_ALREADY_UNDONE = 129  # E-10

    ACCOUNTS_FULL = 140  # C-1
    POSITIONS_FULL = 141  # C-2
    ORDERS_FULL = 142  # C-3
    INSTRUMENTS_FULL = 143  # C-4
    GATEWAYS_FULL = 144  # C-5
    SCHEDULES_FULL = 145  # C-6
    BALANCES_FULL = 146  # C-7
    LIMITS_FULL = 147  # C-8
    FIRMS_FULL = 148  # C-9
    HOLDINGS_FULL = 149  # C-10

    MARK_OUT_OF_RANGE = 160  # D-1
    MARK_OUT_OF_ORDER = 161  # D-2
    OPTION_MARK_OUT_OF_RANGE = 162  # D-3
    MARK_FROM_FUTURE = 163  # D-4

    AMOUNT_OUT_OF_RANGE = 180
    EXCEEDS_AVAILABLE = 181
    EXCEEDS_REMOVABLE_MARGIN = 182
    NO_ISOLATED_POSITION = 183
    LEVERAGE_OUT_OF_RANGE = 184
    LEVERAGE_LOWERED_ON_ISOLATED = 185
    POSITION_NOT_FLAT = 186
    ALREADY_EXISTS = 187
    DEFINITION_INVALID = 188
    FIELD_IMMUTABLE = 189
    SCHEDULE_UNKNOWN = 190
    ASSET_UNKNOWN = 191
    OWNER_INVALID = 192
    LIMIT_LOOSER_THAN_PARENT = 193
    LIMIT_UNKNOWN = 194
    FIRM_UNKNOWN = 195
    OWNER_HAS_USAGE = 196
    FUNDING_OUT_OF_ORDER = 197
    INSTRUMENT_NOT_EXPIRED = 198
    INSTRUMENT_SETTLED = 199

    BATCH_PARTLY_ANSWERED = 200  # B-1
    BATCH_ORDER_REJECTED = 201  # B-2
    BORN_LIQUIDATABLE_IN_MODE = 210
    ISOLATED_ONLY = 211

    LIMIT_ORDER_QUANTITY_MIN = 220  # limit 1
    LIMIT_ORDER_QUANTITY_MAX = 221  # limit 2
    LIMIT_ORDER_NOTIONAL_MIN = 222  # limit 3
    LIMIT_ORDER_NOTIONAL_MAX = 223  # limit 4
    LIMIT_COLLAR_PPB = 224  # limit 5
    LIMIT_COLLAR_TICKS = 225  # limit 6
    LIMIT_POSITION_LOTS_MAX = 226  # limit 7
    LIMIT_POSITION_NOTIONAL_MAX = 227  # limit 8
    LIMIT_GROSS_EXPOSURE_MAX = 228  # limit 9
    LIMIT_OPEN_ORDERS_MAX = 229  # limit 10
    LIMIT_OPEN_NOTIONAL_MAX = 230  # limit 11
    LIMIT_ORDER_RATE_MAX = 231  # limit 12
    LIMIT_EXECUTION_RATE_MAX = 232  # limit 13
    LIMIT_DAILY_TRADED_MAX = 233  # limit 14
    LIMIT_DAILY_LOSS_MAX = 234  # limit 15
    LIMIT_DRAWDOWN_MAX = 235  # limit 16
    LIMIT_LEVERAGE_MAX = 236  # limit 17
    LIMIT_DELTA_MAX = 237  # limit 18
    LIMIT_GAMMA_MAX = 238  # limit 19
    LIMIT_VEGA_MAX = 239  # limit 20
    LIMIT_CONCENTRATION_MAX = 240  # limit 21
    LIMIT_DENIED = 241  # limit 22
    LIMIT_ALLOWED = 242  # limit 23


class MarginFamily(WireEnum):
    """How a schedule's rates depend on notional and size: docs/instruments.md."""

    UNSPECIFIED = 0
    TIERED = 1
    TIERED_WHOLE = 2
    TIERED_QUANTITY = 3
    SIZE_LINEAR = 4
    PER_CONTRACT = 5
    OPEN_INTEREST = 6
    SIZE_SQRT = 7
    POWER = 8
    RISK_FACTOR = 9


class MaintenanceBasis(WireEnum):
    """The value that maintenance rates apply to."""

    UNSPECIFIED = 0
    MARK = 1
    ENTRY = 2


class ClosingFee(WireEnum):
    """The fee for closing that is put aside with the margin: docs/instruments.md.

    UNSPECIFIED is none.
    """

    UNSPECIFIED = 0
    IN_MAINTENANCE = 1
    RESERVED = 2
    AT_BANKRUPTCY = 3


class MarginLevel(WireEnum):
    """How much of its margin an account, or an isolated position, has left."""

    UNSPECIFIED = 0
    SAFE = 1
    SEARCH = 2
    LIQUIDATION = 3


# --- catalogue ------------------------------------------------------------------------------------


def _normalise(record: object, *fields: str) -> None:
    """Turn the named amounts of a frozen dataclass into decimals; None stays."""
    for field in fields:
        value = getattr(record, field)
        if value is not None:
            object.__setattr__(record, field, exact(value, field))


@dataclass(frozen=True, slots=True)
class Asset:
    """Money that accounts hold; one minor unit is 10^-scale."""

    asset_id: int
    symbol: str
    scale: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginTier:
    """What holds for notionals above floor_notional, up to the next tier's.

    deduction is computed by the service; leave it out on input. TIERED_QUANTITY has floor_lots
    instead of floor_notional.
    """

    floor_notional: Decimal = Decimal(0)
    initial_rate: Decimal
    maintenance_rate: Decimal
    max_leverage: Decimal
    deduction: Decimal | None = None
    floor_lots: int = 0

    def __post_init__(self) -> None:
        _normalise(self, "floor_notional", "initial_rate", "maintenance_rate", "max_leverage")
        _normalise(self, "deduction")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginSchedule:
    """Margin rates by notional, or as its family has it.

    parameters are those of the family, by their names in the contract ("initial_rate_per_lot");
    quantity_max_lots, 0 for no bound, is of TIERED_QUANTITY.
    schedule_id and version are given by the service.
    """

    name: str
    settlement_asset: str
    tiers: tuple[MarginTier, ...]
    notional_max: Decimal | None = None
    liquidation_fee_rate: Decimal = Decimal(0)
    schedule_id: int = 0
    version: int = 0
    family: MarginFamily = MarginFamily.TIERED
    maintenance_basis: MaintenanceBasis = MaintenanceBasis.MARK
    parameters: Mapping[str, Decimal] = dataclasses.field(default_factory=dict)
    closing_fee: ClosingFee = ClosingFee.UNSPECIFIED
    quantity_max_lots: int = 0

    def __post_init__(self) -> None:
        _normalise(self, "notional_max", "liquidation_fee_rate")
        numbers = {name: exact(value, name) for name, value in self.parameters.items()}
        object.__setattr__(self, "parameters", numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionRule:
    """What short options require, as rates of the underlying's mark.

    call_maintenance_on_mark needs put_maintenance_on_mark. order_initial_rate_min is the least that
    an order holds for what it sells. option_rule_id and version are given by the service.
    """

    name: str
    settlement_asset: str
    initial_rate: Decimal
    initial_rate_min: Decimal
    maintenance_rate: Decimal
    put_maintenance_on_mark: bool = False
    option_rule_id: int = 0
    version: int = 0
    call_maintenance_on_mark: bool = False
    put_initial_over_maintenance: Decimal = Decimal(1)
    order_initial_rate_min: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        _normalise(self, "initial_rate", "initial_rate_min", "maintenance_rate")
        _normalise(self, "put_initial_over_maintenance", "order_initial_rate_min")


@dataclass(frozen=True, slots=True)
class CollateralTier:
    """What counts of a balance above floor, up to the next tier's: one minus the haircut."""

    floor: Decimal
    weight: Decimal

    def __post_init__(self) -> None:
        _normalise(self, "floor", "weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """What an asset counts as collateral of accounts in a settlement asset.

    index is the symbol of the linear contract whose mark is its price; cap None is no bound.
    wrong_way_rate is the part, 0 to 1, that does not count of what cross contracts with this
    base_asset lose as it loses all value.
    """

    asset: str
    settlement_asset: str
    index: str
    tiers: tuple[CollateralTier, ...]
    cap: Decimal | None = None
    liability_weight: Decimal = Decimal(1)
    interest_free: Decimal = Decimal(0)
    forced_conversion: Decimal = Decimal(0)
    wrong_way_rate: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        _normalise(self, "cap", "liability_weight", "interest_free", "forced_conversion")
        _normalise(self, "wrong_way_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """An instrument. instrument_id is given by the service; None is no bound (no rate, no strike).

    expiry_time_ns is in nanoseconds since 1970, 0 for perpetuals; mark_age_max_ms 0 is no bound.
    trading_state UNSPECIFIED, on input, keeps the one in force (NORMAL for a new instrument).
    settlement_price (None: not settled), funding_time_ns and open_interest (None: not reported)
    are told to the service otherwise, and not taken on input.
    """

    symbol: str
    kind: InstrumentKind
    settlement_asset: str
    tick_size: Decimal
    lot_size: Decimal
    margin_schedule: str = ""
    mark_units_per_tick: int = 1
    order_quantity_min: Decimal | None = None
    order_quantity_max: Decimal | None = None
    order_notional_min: Decimal | None = None
    order_notional_max: Decimal | None = None
    price_collar_rate: Decimal | None = None
    market_order_buffer_rate: Decimal = Decimal(0)
    taker_fee_rate: Decimal = Decimal(0)
    mark_age_max_ms: int = 0
    trading_state: TradingState = TradingState.UNSPECIFIED
    expiry_time_ns: int = 0
    strike: Decimal | None = None
    option_type: OptionType = OptionType.UNSPECIFIED
    interest_rate: Decimal | None = None
    underlying_instrument_id: int = 0
    instrument_id: int = 0
    multiplier: Decimal = Decimal(1)
    option_rule: str = ""
    settlement_price: Decimal | None = None
    funding_time_ns: int = 0
    open_interest: Decimal | None = None
    base_asset: str = ""
    isolated_only: bool = False

    def __post_init__(self) -> None:
        _normalise(self, "tick_size", "lot_size", "order_quantity_min", "order_quantity_max")
        _normalise(self, "order_notional_min", "order_notional_max", "price_collar_rate")
        _normalise(self, "market_order_buffer_rate", "taker_fee_rate", "strike", "interest_rate")
        _normalise(self, "multiplier", "settlement_price", "open_interest")


# --- orders ---------------------------------------------------------------------------------------


class HasReservation(Protocol):
    """What an execution is reported on: an OrderDecision, a Reservation or a ReservationRef."""

    @property
    def symbol(self) -> str: ...
    @property
    def reservation_id(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ReservationRef:
    """A reservation as a gateway may have stored it.

    The symbol must be the order's: it decides what a price, a quantity and a fee mean. The service
    refuses executions with another (EXECUTION_INSTRUMENT_MISMATCH).
    """

    symbol: str
    reservation_id: int


@dataclass(frozen=True, slots=True)
class Greeks:
    """Black-76 price and Greeks of a long option of 1 underlying, to 1e-12."""

    price: Decimal
    delta: Decimal
    gamma: Decimal
    vega_per_vol_point: Decimal
    theta_per_day: Decimal
    rho_per_point: Decimal


class Unit(Enum):
    """What the numbers of a violation count."""

    QUANTITY = "quantity"
    PRICE = "price"
    MONEY = "money"
    BASE_MONEY = "base money"
    """Of the base asset of a SPOT pair."""
    COUNT = "count"
    """Orders, or orders or executions a second."""
    LEVERAGE = "leverage"
    SHARE = "share"
    """Of a whole: 0.25 is a quarter."""
    RAW = "raw"
    """As on the wire: the rule has no numbers, or is newer than this client."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated rule: its bound, what counts against it without the order, what the order adds.

    scope is the account, firm or gateway that has the limit, None for rules of the instrument and
    of margin. A soft one did not stop the order.
    """

    reason: Reason
    unit: Unit
    limit: Decimal
    use: Decimal
    order_use: Decimal
    scope: "Scope | None" = None
    soft: bool = False


@dataclass(frozen=True, slots=True)
class DecisionDetail:
    """The explanation; figures of the position are those after the fill at the order's price.

    They are zero where docs/decision.md says that they cannot be computed. margin_ratio is None
    when equity is zero or negative, bankruptcy_price when there is none, mark_price without a
    mark. greeks and violations come with DecisionView.FULL only.
    """

    position_initial_margin: Decimal
    position_maintenance_margin: Decimal
    position_unrealised_pnl: Decimal
    equity: Decimal
    margin_ratio: Decimal | None
    bankruptcy_price: Decimal | None
    position: Decimal
    mark_price: Decimal | None
    mark_time_ns: int
    schedule_version: int
    tier_index: int
    leverage: Decimal
    greeks: Greeks | None
    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class OrderDecision:
    """The decision on an order. A reject is an answer, not an error.

    accepted is True for Decision.ACCEPTED and ACCEPTED_WITH_WARNING only. reservation_id is 0
    unless margin was reserved. initial_margin and available are the account's, with the order when
    it was accepted; like reserved they are None where the service does not know them: a mark that
    they need was never reported, or the order was rejected before they were computed. They are in
    the account's settlement asset, as equity of a cross position is; other money is in the
    instrument's.
    liquidation_price is None unless liquidation_status is AT_PRICE; max_quantity is None unless
    the reject is for size or margin. quantity is what an order came to that did not give it
    (close_position, quote_amount), None for all others.
    """

    accepted: bool
    decision: Decision
    reason: Reason
    symbol: str
    client_order_id: int
    reservation_id: int
    revision: int
    initial_margin: Decimal | None
    available: Decimal | None
    reserved: Decimal | None
    liquidation_status: LiquidationStatus
    liquidation_price: Decimal | None
    max_quantity: Decimal | None
    detail: DecisionDetail | None
    quantity: Decimal | None = None


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order of a batch; the fields are the parameters of check_order."""

    account: int
    symbol: str
    side: Side | str
    quantity: Amount | None = None
    price: Amount | None = None
    _: KW_ONLY
    order_type: OrderType | str | None = None
    trigger_price: Amount | None = None
    trailing_offset: Amount | None = None
    time_in_force: TimeInForce | str = TimeInForce.GTC
    expire_time_ns: int = 0
    position_side: PositionSide | str = PositionSide.UNSPECIFIED
    reduce_only: bool = False
    post_only: bool = False
    close_position: bool = False
    quote_amount: Amount | None = None
    margin_mode: MarginMode | str = MarginMode.UNSPECIFIED
    view: DecisionView | str = DecisionView.BASIC
    check_only: bool = False
    client_order_id: int | None = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The decisions on a batch, in its order; of all_or_none either all are accepted or none."""

    decisions: tuple[OrderDecision, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What an execution changed; of a reject only decision, reason and revision count.

    accepted means applied. available is None where the service does not know it: on a reject, and
    while a mark that it needs was never reported.
    """

    accepted: bool
    decision: Decision
    reason: Reason
    revision: int
    remaining: Decimal
    position: Decimal
    realised_pnl: Decimal
    available: Decimal | None
    liquidation_status: LiquidationStatus
    liquidation_price: Decimal | None
    isolated_wallet: Decimal


@dataclass(frozen=True, slots=True)
class Reservation:
    """Where an order stands.

    Symbol, account, side, price (None for a market order) and quantity are the order's, working or
    closed; of an UNKNOWN one they are empty, 0, None or UNSPECIFIED. remaining is 0 unless it is
    working. first_answer is there when asked by client_order_id, while remembered. An order on an
    instrument that does not exist has no symbol, price, quantity or first_answer.
    """

    state: ReservationState
    revision: int
    reservation_id: int
    symbol: str
    account_id: int
    side: Side
    price: Decimal | None
    quantity: Decimal
    remaining: Decimal
    first_answer: OrderDecision | None


# --- marks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark to report. time_ns is now if None; the others keep what the service holds if None.

    implied_volatility is for one year (0.65), forward the underlying's forward price.
    """

    price: Amount
    time_ns: int | None = None
    implied_volatility: Amount | None = None
    forward: Amount | None = None


@dataclass(frozen=True, slots=True)
class HeldMark:
    """The mark that decisions use now."""

    symbol: str
    price: Decimal
    time_ns: int
    implied_volatility: Decimal | None
    forward: Decimal | None
    revision: int


@dataclass(frozen=True, slots=True)
class MarksResult:
    """What became of a batch of marks: those not in refusals were taken."""

    revision: int
    taken_count: int
    refusals: Mapping[str, Reason]


# --- accounts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """An account; cash is its pool: what it holds outside the wallets of isolated positions.

    firm_id and parent_account_id are 0 where there is none. balances are of other assets than the
    settlement asset, by symbol: fees are paid from them, and they are collateral where it is so
    defined.
    """

    account_id: int
    settlement_asset: str
    default_margin_mode: MarginMode
    default_leverage: Decimal
    cash: Decimal
    trading_state: TradingState
    revision: int
    position_mode: PositionMode = PositionMode.ONE_WAY
    firm_id: int = 0
    parent_account_id: int = 0
    balances: Mapping[str, Decimal] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Firm:
    """A firm: accounts whose limits and trading state are one."""

    firm_id: int
    settlement_asset: str
    trading_state: TradingState
    revision: int


@dataclass(frozen=True, slots=True)
class CollateralResult:
    """The account after a deposit or a withdrawal; available is None while it is not known."""

    account: Account
    available: Decimal | None
    revision: int


@dataclass(frozen=True, slots=True)
class WalletResult:
    """An isolated wallet and the pool after a transfer or a change of mode.

    available is None while it is not known. cash_flow is what a change of mode gives to the pool,
    below zero what it takes; None after a transfer.
    """

    isolated_wallet: Decimal
    available: Decimal | None
    revision: int
    cash_flow: Decimal | None = None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The pool after a position was taken over; available is None while it is not known."""

    available: Decimal | None
    revision: int


@dataclass(frozen=True, slots=True)
class CreditLine:
    """A credit line, and how much of it is used."""

    amount: Decimal
    used: Decimal
    revision: int


@dataclass(frozen=True, slots=True)
class FundingResult:
    """What funding came to: positions, and the sums that were paid and received."""

    position_count: int
    paid: Decimal
    received: Decimal
    revision: int


@dataclass(frozen=True, slots=True)
class SettlementResult:
    """What a settlement came to; deficit is the loss that isolated wallets could not pay."""

    position_count: int
    released_order_count: int
    profit: Decimal
    loss: Decimal
    deficit: Decimal
    revision: int


@dataclass(frozen=True, slots=True)
class LeverageResult:
    """The leverage of a position and the pool after it; available is None while it is not known."""

    leverage: Decimal
    available: Decimal | None
    revision: int


# --- margin ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CollateralBalance:
    """What an asset other than the settlement asset adds; a balance below zero is a debt.

    value is in the settlement asset, None while it is not known.
    """

    asset: str
    balance: Decimal
    value: Decimal | None
    bears_interest: bool
    to_be_converted: bool


@dataclass(frozen=True, slots=True)
class MarginSummary:
    """Sums of an account. A figure is None where the service leaves it empty (unknown).

    maintenance_level, search_level, initial_margin and release_level are its four levels: equity at
    or below the search level is a margin call, at or above the release level ends one.
    """

    account_id: int
    settlement_asset: str
    cash: Decimal
    cross_unrealised_pnl: Decimal | None
    cross_equity: Decimal | None
    initial_margin: Decimal | None
    cross_maintenance_margin: Decimal | None
    available: Decimal | None
    isolated_wallets: Decimal | None
    cross_margin_ratio: Decimal | None
    cross_liquidatable: bool
    working_order_count: int
    revision: int
    margin_level: MarginLevel = MarginLevel.UNSPECIFIED
    maintenance_level: Decimal | None = None
    search_level: Decimal | None = None
    release_level: Decimal | None = None
    collateral: tuple[CollateralBalance, ...] = ()
    collateral_value: Decimal | None = None
    credit_line: Decimal | None = None
    credit_used: Decimal | None = None


@dataclass(frozen=True, slots=True)
class PositionMargin:
    """A position and its margin. A figure is None where the service leaves it empty.

    liquidation_distance is a part of the mark; in daily volatilities while the instrument has one.
    """

    instrument_id: int
    symbol: str
    position_side: PositionSide
    margin_mode: MarginMode
    leverage: Decimal
    quantity: Decimal
    entry_price: Decimal | None
    entry_value: Decimal | None
    mark_price: Decimal | None
    notional: Decimal | None
    unrealised_pnl: Decimal | None
    initial_margin: Decimal | None
    maintenance_margin: Decimal | None
    isolated_wallet: Decimal | None
    margin_ratio: Decimal | None
    liquidation_status: LiquidationStatus
    liquidation_price: Decimal | None
    bankruptcy_price: Decimal | None
    liquidatable: bool
    working_buy_quantity: Decimal | None
    working_sell_quantity: Decimal | None
    revision: int
    margin_level: MarginLevel = MarginLevel.UNSPECIFIED
    liquidation_distance: Decimal | None = None
    liquidation_distance_daily_volatilities: Decimal | None = None
    liquidation_price_with_orders: Decimal | None = None


@dataclass(frozen=True, slots=True)
class LiquidationPrice:
    """Liquidation and bankruptcy price of a position; price is None unless status is AT_PRICE."""

    status: LiquidationStatus
    price: Decimal | None
    bankruptcy_price: Decimal | None
    revision: int


@dataclass(frozen=True, slots=True)
class MaxOrderSize:
    """The largest order that would be accepted, and the rule that stops one lot more."""

    quantity: Decimal
    limiting_reason: Reason
    revision: int


@dataclass(frozen=True, slots=True)
class SimulatedPosition:
    """A position that need not exist: its entry is entry_price or, exact, entry_value.

    Mode and leverage that are not given stay as they are. An isolated one needs isolated_wallet.
    """

    symbol: str
    quantity: Amount
    entry_price: Amount | None = None
    entry_value: Amount | None = None
    margin_mode: MarginMode | str = MarginMode.UNSPECIFIED
    isolated_wallet: Amount | None = None
    leverage: Amount | None = None
    position_side: PositionSide | str = PositionSide.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class SimulatedOrder:
    """An order that need not exist; without a price a market order."""

    symbol: str
    side: Side | str
    quantity: Amount
    price: Amount | None = None
    position_side: PositionSide | str = PositionSide.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class SimulatedDecision:
    """What became of an order; reserved is what it adds to initial margin, None if not known."""

    decision: Decision
    reason: Reason
    reserved: Decimal | None

    @property
    def accepted(self) -> bool:
        """Whether it was accepted, with a warning or without."""
        return self.decision in (Decision.ACCEPTED, Decision.ACCEPTED_WITH_WARNING)


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Margin of a what-if: sums, positions, and decisions on the orders in their order."""

    summary: MarginSummary
    positions: tuple[PositionMargin, ...]
    decisions: tuple[SimulatedDecision, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class RiskEvent:
    """A change of a margin level; instrument_id 0 is the cross pool."""

    revision: int
    time_ns: int
    account_id: int
    instrument_id: int
    position_side: PositionSide
    level_before: MarginLevel
    level_after: MarginLevel
    equity: Decimal
    requirement: Decimal


@dataclass(frozen=True, slots=True)
class RiskEvents:
    """Some events; all up to revision have been told.

    oldest_revision is not 0 when some before it may have been missed: read the accounts anew.
    """

    events: tuple[RiskEvent, ...]
    oldest_revision: int
    revision: int


@dataclass(frozen=True, slots=True)
class ModelGreeks:
    """Black-76 price and Greeks from given parameters, in floating point."""

    price: float
    delta: float
    gamma: float
    vega_per_vol_point: float
    theta_per_day: float
    rho_per_point: float
    revision: int


# --- control --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scope:
    """What a state or a limit is set on.

    Make one with service(), gateway(), account(), instrument() or firm().

    target is a gateway, account or firm id, or an instrument's symbol (its id, where the catalogue
    does not know it).
    """

    kind: str
    target: int | str = 0

    @classmethod
    def service(cls) -> Self:
        """Return the scope of the whole service."""
        return cls("service")

    @classmethod
    def gateway(cls, gateway_id: int) -> Self:
        """Return the scope of one gateway."""
        return cls("gateway", gateway_id)

    @classmethod
    def account(cls, account_id: int) -> Self:
        """Return the scope of one account."""
        return cls("account", account_id)

    @classmethod
    def firm(cls, firm_id: int) -> Self:
        """Return the scope of one firm, its accounts included."""
        return cls("firm", firm_id)

    @classmethod
    def instrument(cls, symbol: str | int) -> Self:
        """Return the scope of one instrument, by its symbol or id."""
        return cls("instrument", symbol)


@dataclass(frozen=True, slots=True)
class KillSwitchResult:
    """A halted scope, and its working reservations: to be cancelled at the venue.

    At most 10000 are listed; truncated tells that there are more.
    """

    trading_state: TradingState
    reservation_ids: tuple[int, ...]
    truncated: bool
    revision: int


@dataclass(frozen=True, slots=True)
class StateResult:
    """The trading state of a scope after a change."""

    trading_state: TradingState
    revision: int


@dataclass(frozen=True, slots=True)
class ScopeState:
    """A scope that is not in state NORMAL."""

    scope: Scope
    trading_state: TradingState


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease of a gateway; end_time_ns is 0 if it has none."""

    end_time_ns: int
    revision: int


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that has a lease or is not NORMAL; lease_end_time_ns is 0 without a lease.

    orders_released tells that a lease with CANCEL has ended and its working orders are released.
    """

    gateway_id: int
    trading_state: TradingState
    lease_end_time_ns: int
    lease_action: LeaseAction
    orders_released: bool


@dataclass(frozen=True, slots=True)
class CancelResult:
    """How many orders were released, and the first 10000 of them."""

    count: int
    reservation_ids: tuple[int, ...]
    revision: int


# --- limits ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit and its use.

    Money is in the settlement asset; COLLAR_PPB and CONCENTRATION_MAX are shares (0.05); lots and
    ticks are quantities and prices where there is a symbol, and whole lots and ticks where there is
    none and the limit counts all instruments. value is None for DENIED and ALLOWED. bound is what
    counts now: the raised value or the value, of rates the burst. use, remaining and utilisation
    are None for kinds that only look at the order, and, with use_unknown, where a mark is missing.
    """

    scope: Scope
    kind: LimitKind
    symbol: str | None
    value: Decimal | None
    burst: int
    action: LimitAction
    raised_value: Decimal | None
    raised_until_time_ns: int
    bound: Decimal | None
    use: Decimal | None
    remaining: Decimal | None
    utilisation: Decimal | None
    use_unknown: bool


@dataclass(frozen=True, slots=True)
class LimitResult:
    """A limit after a change."""

    limit: Limit
    revision: int


# --- audit ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision that was made again, in the FULL view, on the state just before it."""

    revision: int
    time_ns: int
    decisions: tuple[OrderDecision, ...]
    """On the order, the amended order or the orders of a batch."""
    execution: ExecutionResult | None
    equal: bool
    """Whether the reply has the size and the checksum of the one that was sent."""
    accounts: tuple[Account, ...]
    positions: tuple[PositionMargin, ...]
    limits: tuple[Limit, ...]
    schedules: tuple[MarginSchedule, ...]
    versions: Mapping[str, str]
    reply_bytes: bytes
    """As they were sent, if it is equal."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was made: what was asked for, and (before, after) of what it changed."""

    revision: int
    time_ns: int
    actor: str
    method: str
    arguments: Mapping[str, str]
    changes: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Denial:
    """Calls of an identity to a method that were denied for a reason, at a door of the service.

    reason is that of the error; identity is empty while nobody knows who called, and certificate is
    then the name in the certificate of the last. subject is the account or gateway of the last.
    """

    reason: str
    identity: str
    method: str
    door: str
    count: int
    first_time_ns: int
    last_time_ns: int
    peer: str
    subject: str
    certificate: str
