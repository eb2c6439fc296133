"""Every call of the service once: values to a request, and a reply to values. No input or output.

A method of Operations returns a Call; Client and AsyncClient differ only in how they make it.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from riskd_client.catalogue import Catalogue, CatalogueIncompleteError, Listing
from riskd_client.errors import (
    FailedCall,
    InvalidInput,
    OffMinorUnit,
    OffStep,
    OutcomeUnknown,
    OutOfRange,
    RiskdError,
    from_failed_call,
)
from riskd_client.numbers import MINOR_MAX, Amount, exact, minor_units, money, text, whole
from riskd_client.v1 import account_service_pb2 as account_pb
from riskd_client.v1 import audit_service_pb2 as audit_pb
from riskd_client.v1 import control_service_pb2 as control_pb
from riskd_client.v1 import instrument_service_pb2 as instrument_pb
from riskd_client.v1 import limit_service_pb2 as limit_pb
from riskd_client.v1 import margin_service_pb2 as margin_pb
from riskd_client.v1 import market_data_service_pb2 as market_pb
from riskd_client.v1 import order_risk_service_pb2 as order_pb
from riskd_client.v1 import types_pb2 as types_pb
from riskd_client.values import (
    Account,
    Asset,
    BatchResult,
    CancelResult,
    Change,
    ClosingFee,
    Collateral,
    CollateralBalance,
    CollateralResult,
    CollateralTier,
    CreditLine,
    Decision,
    DecisionDetail,
    DecisionView,
    Denial,
    ExecutionResult,
    Explanation,
    Firm,
    FundingResult,
    Gateway,
    Greeks,
    HasReservation,
    HeldMark,
    Instrument,
    InstrumentKind,
    KillSwitchResult,
    Lease,
    LeaseAction,
    LeverageResult,
    Limit,
    LimitAction,
    LimitKind,
    LimitResult,
    LiquidationPrice,
    LiquidationStatus,
    LoadResult,
    MaintenanceBasis,
    MarginFamily,
    MarginLevel,
    MarginMode,
    MarginSchedule,
    MarginSummary,
    MarginTier,
    Mark,
    MarksResult,
    MaxOrderSize,
    ModelGreeks,
    NewOrder,
    OptionRule,
    OptionType,
    OrderDecision,
    OrderType,
    Portfolio,
    PositionMargin,
    PositionMode,
    PositionSide,
    Reason,
    Reservation,
    ReservationState,
    RiskEvent,
    RiskEvents,
    Scope,
    ScopeState,
    SettlementResult,
    Side,
    SimulatedDecision,
    SimulatedOrder,
    SimulatedPosition,
    StateResult,
    TimeInForce,
    TradingState,
    Unit,
    Violation,
    WalletResult,
    WireEnum,
)

Result = TypeVar("Result")
Item = TypeVar("Item")
Member = TypeVar("Member", bound=WireEnum)

# The service gives as many on one page.
PAGE_SIZE = 1000
MARKS_MAX = 1024
COMMENT_BYTES_MAX = 255
# A little more than the service takes at most.
EXPLAIN_S = 35.0
BATCH_MAX = 64
LEASE_MS_MAX = 86_400_000
RESERVATIONS_KEPT_MAX = 10_000


# --- calls ----------------------------------------------------------------------------------------


class Effect(Enum):
    """What a call does to the service, and so what may be done when its answer is lost."""

    READ = "read"
    IDEMPOTENT = "idempotent"
    """A change whose repeat does nothing more: it carries an identity, a time, or a halt."""
    ONCE = "once"
    """A change whose repeat may do it again, or undo what another caller did since."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method of the contract."""

    service: str
    name: str
    response: type[Message]
    effect: Effect = Effect.READ
    is_stream: bool = False

    @property
    def path(self) -> str:
        """HTTP/2 path of the method."""
        return f"/riskd.v1.{self.service}/{self.name}"

    @property
    def is_retried(self) -> bool:
        """Whether the channel repeats it by itself when the service is unavailable."""
        return self.effect is not Effect.ONCE


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """A call to make: its request, and how to read its reply. timeout None is the client's."""

    rpc: Rpc
    request: Message
    read: Callable[[Any], Result]
    timeout: float | None
    advice: str = "read the state before repeating it"
    client_order_id: int | None = None
    execution_id: int | None = None

    def failure(self, failed: FailedCall) -> RiskdError:
        """Return the exception for a failure of this call."""
        return from_failed_call(
            failed,
            method=self.rpc.name,
            is_change=self.rpc.effect is not Effect.READ,
            is_retried=self.rpc.is_retried,
            advice=self.advice,
            client_order_id=self.client_order_id,
            execution_id=self.execution_id,
        )


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items of a list, and the token of the next page ("" after the last)."""

    items: tuple[Item, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Pages(Generic[Item]):
    """A list that comes in pages: the call for each page token, "" first."""

    call: Callable[[str], Call[Page[Item]]]


@dataclass(frozen=True, slots=True)
class Watch(Generic[Item]):
    """A stream that is opened anew when it breaks: the call for each revision to go on after."""

    call: Callable[[int], Call[Item]]
    after_revision: int
    revision_of: Callable[[Item], int]


def _account(name: str, response: type[Message], effect: Effect = Effect.READ) -> Rpc:
    return Rpc("AccountService", name, response, effect)


def _control(name: str, response: type[Message], effect: Effect = Effect.READ) -> Rpc:
    return Rpc("ControlService", name, response, effect)


def _audit(name: str, response: type[Message]) -> Rpc:
    return Rpc("AuditService", name, response)


def _limit(name: str, response: type[Message], effect: Effect = Effect.READ) -> Rpc:
    return Rpc("LimitService", name, response, effect)


def _instrument(name: str, response: type[Message], effect: Effect = Effect.READ) -> Rpc:
    return Rpc("InstrumentService", name, response, effect)


def _margin(name: str, response: type[Message], effect: Effect = Effect.READ) -> Rpc:
    return Rpc("MarginService", name, response, effect)


def _market(name: str, response: type[Message], effect: Effect = Effect.READ) -> Rpc:
    return Rpc("MarketDataService", name, response, effect)


def _order(name: str, response: type[Message], effect: Effect = Effect.READ) -> Rpc:
    return Rpc("OrderRiskService", name, response, effect)


CHECK_ORDER = _order("CheckOrder", order_pb.CheckOrderResponse, Effect.IDEMPOTENT)
CHECK_AMENDMENT = _order("CheckAmendment", order_pb.CheckAmendmentResponse, Effect.IDEMPOTENT)
BATCH_CHECK_ORDERS = _order(
    "BatchCheckOrders", order_pb.BatchCheckOrdersResponse, Effect.IDEMPOTENT
)
REPORT_EXECUTION = _order("ReportExecution", order_pb.ReportExecutionResponse, Effect.IDEMPOTENT)
GET_RESERVATION = _order("GetReservation", order_pb.GetReservationResponse)
REPORT_MARKS = _market("ReportMarks", market_pb.ReportMarksResponse, Effect.IDEMPOTENT)
GET_MARK = _market("GetMark", market_pb.GetMarkResponse)
CREATE_ACCOUNT = _account("CreateAccount", account_pb.CreateAccountResponse, Effect.ONCE)
GET_ACCOUNT = _account("GetAccount", account_pb.GetAccountResponse)
LIST_ACCOUNTS = _account("ListAccounts", account_pb.ListAccountsResponse)
ADJUST_COLLATERAL = _account("AdjustCollateral", account_pb.AdjustCollateralResponse, Effect.ONCE)
TRANSFER_MARGIN = _account("TransferMargin", account_pb.TransferMarginResponse, Effect.ONCE)
CHANGE_MARGIN_MODE = _account("ChangeMarginMode", account_pb.ChangeMarginModeResponse, Effect.ONCE)
SET_LEVERAGE = _account("SetLeverage", account_pb.SetLeverageResponse, Effect.ONCE)
CHANGE_POSITION_MODE = _account(
    "ChangePositionMode", account_pb.ChangePositionModeResponse, Effect.ONCE
)
SET_ACCOUNT_OWNER = _account("SetAccountOwner", account_pb.SetAccountOwnerResponse, Effect.ONCE)
CREATE_FIRM = _account("CreateFirm", account_pb.CreateFirmResponse, Effect.ONCE)
LIST_FIRMS = _account("ListFirms", account_pb.ListFirmsResponse)
CREATE_ASSET = _instrument("CreateAsset", instrument_pb.CreateAssetResponse, Effect.ONCE)
LIST_ASSETS = _instrument("ListAssets", instrument_pb.ListAssetsResponse)
UPSERT_INSTRUMENT = _instrument(
    "UpsertInstrument", instrument_pb.UpsertInstrumentResponse, Effect.ONCE
)
LIST_INSTRUMENTS = _instrument("ListInstruments", instrument_pb.ListInstrumentsResponse)
UPSERT_MARGIN_SCHEDULE = _instrument(
    "UpsertMarginSchedule", instrument_pb.UpsertMarginScheduleResponse, Effect.ONCE
)
UPSERT_OPTION_RULE = _instrument(
    "UpsertOptionRule", instrument_pb.UpsertOptionRuleResponse, Effect.ONCE
)
LIST_OPTION_RULES = _instrument("ListOptionRules", instrument_pb.ListOptionRulesResponse)
DEFINE_COLLATERAL = _instrument(
    "DefineCollateral", instrument_pb.DefineCollateralResponse, Effect.ONCE
)
LIST_COLLATERAL = _instrument("ListCollateral", instrument_pb.ListCollateralResponse)
# A repeat is refused: the time of a funding, and a settlement, are there already.
APPLY_FUNDING = _instrument("ApplyFunding", instrument_pb.ApplyFundingResponse, Effect.ONCE)
SETTLE_INSTRUMENT = _instrument(
    "SettleInstrument", instrument_pb.SettleInstrumentResponse, Effect.ONCE
)
REPORT_OPEN_INTEREST = _market(
    "ReportOpenInterest", market_pb.ReportOpenInterestResponse, Effect.ONCE
)
LOAD_POSITION = _account("LoadPosition", account_pb.LoadPositionResponse, Effect.ONCE)
SET_CREDIT_LINE = _account("SetCreditLine", account_pb.SetCreditLineResponse, Effect.ONCE)
SIMULATE_PORTFOLIO = _margin("SimulatePortfolio", margin_pb.SimulatePortfolioResponse)
SET_MARGIN_LEVELS = _margin("SetMarginLevels", margin_pb.SetMarginLevelsResponse, Effect.ONCE)
WATCH_RISK_EVENTS = Rpc(
    "MarginService", "WatchRiskEvents", margin_pb.WatchRiskEventsResponse, is_stream=True
)
LIST_MARGIN_SCHEDULES = _instrument(
    "ListMarginSchedules", instrument_pb.ListMarginSchedulesResponse
)
GET_MARGIN_SUMMARY = _margin("GetMarginSummary", margin_pb.GetMarginSummaryResponse)
LIST_POSITION_MARGINS = _margin("ListPositionMargins", margin_pb.ListPositionMarginsResponse)
COMPUTE_LIQUIDATION_PRICE = _margin(
    "ComputeLiquidationPrice", margin_pb.ComputeLiquidationPriceResponse
)
COMPUTE_MAX_ORDER_SIZE = _margin("ComputeMaxOrderSize", margin_pb.ComputeMaxOrderSizeResponse)
COMPUTE_GREEKS = _margin("ComputeGreeks", margin_pb.ComputeGreeksResponse)
# A halt is idempotent: to halt what is halted changes nothing, and it must get through.
ENGAGE_KILL_SWITCH = _control(
    "EngageKillSwitch", control_pb.EngageKillSwitchResponse, Effect.IDEMPOTENT
)
RELEASE_KILL_SWITCH = _control(
    "ReleaseKillSwitch", control_pb.ReleaseKillSwitchResponse, Effect.ONCE
)
CHANGE_TRADING_STATE = _control(
    "ChangeTradingState", control_pb.ChangeTradingStateResponse, Effect.ONCE
)
LIST_TRADING_STATES = _control("ListTradingStates", control_pb.ListTradingStatesResponse)
# To renew a lease again only makes it longer, and it must get through.
RENEW_GATEWAY_LEASE = _control(
    "RenewGatewayLease", control_pb.RenewGatewayLeaseResponse, Effect.IDEMPOTENT
)
LIST_GATEWAYS = _control("ListGateways", control_pb.ListGatewaysResponse)
CANCEL_ORDERS = _control("CancelOrders", control_pb.CancelOrdersResponse, Effect.ONCE)
SET_LIMIT = _limit("SetLimit", limit_pb.SetLimitResponse, Effect.ONCE)
RAISE_LIMIT = _limit("RaiseLimit", limit_pb.RaiseLimitResponse, Effect.ONCE)
REMOVE_LIMIT = _limit("RemoveLimit", limit_pb.RemoveLimitResponse, Effect.ONCE)
RESET_LIMIT_USAGE = _limit("ResetLimitUsage", limit_pb.ResetLimitUsageResponse, Effect.ONCE)
LIST_LIMITS = _limit("ListLimits", limit_pb.ListLimitsResponse)
LIST_CHANGES = _audit("ListChanges", audit_pb.ListChangesResponse)
EXPLAIN_DECISION = _audit("ExplainDecision", audit_pb.ExplainDecisionResponse)
LIST_DENIALS = _audit("ListDenials", audit_pb.ListDenialsResponse)

RPCS: tuple[Rpc, ...] = tuple(value for value in list(globals().values()) if type(value) is Rpc)


# --- values to messages ---------------------------------------------------------------------------


def _wire(member: WireEnum) -> Any:
    """Return the number of a member, as the generated constructors take it."""
    return int(member)


def _member(kind: type[Member], value: Member | str, field: str) -> Member:
    """Return a member by itself or by its name in either case. Raises InvalidInput."""
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and value.upper() in kind.__members__:
        return kind[value.upper()]
    names = ", ".join(name for name in kind.__members__ if name != "UNSPECIFIED")
    raise InvalidInput(f"{field} {value!r} is not one of {names}")


def _optional_text(value: Amount | None, field: str) -> str:
    return "" if value is None else text(value, field)


def _order_type(order: NewOrder) -> OrderType:
    """Return the type that is given, or that the prices of an order say."""
    if order.order_type is not None:
        return _member(OrderType, order.order_type, "order_type")
    if order.trigger_price is not None:
        raise InvalidInput(
            "an order with a trigger_price needs its order_type: "
            "STOP, STOP_LIMIT, TAKE_PROFIT or TAKE_PROFIT_LIMIT"
        )
    if order.trailing_offset is not None:
        return OrderType.TRAILING_STOP
    return OrderType.MARKET if order.price is None else OrderType.LIMIT


def _ticks(listing: Listing, price: Amount | None, field: str) -> int:
    return 0 if price is None else listing.price_ticks(price, field)


def _quantity(order: NewOrder, listing: Listing) -> int:
    """Return what is to be traded: lots, minor units of money, or 0 to close what is open."""
    given = [
        name
        for name, is_given in (
            ("quantity", order.quantity is not None),
            ("quote_amount", order.quote_amount is not None),
            ("close_position", order.close_position),
        )
        if is_given
    ]
    if len(given) != 1:
        named = " and ".join(given) or "none"
        raise InvalidInput(f"give one of quantity, quote_amount and close_position, not {named}")
    if order.quantity is not None:
        return listing.quantity_lots(order.quantity)
    if order.quote_amount is None:
        return 0
    amount = listing.money_minor(order.quote_amount, "quote_amount")
    if amount < 1:
        raise OutOfRange(f"quote_amount {order.quote_amount} is not above zero")
    return amount


def _limit_owner(scope: Scope) -> tuple[int, int]:
    """Return (LimitScope, id) of what has limits. Raises InvalidInput for any other scope."""
    target = scope.target
    if not isinstance(target, str):
        match scope.kind:
            case "gateway":
                return types_pb.LIMIT_SCOPE_GATEWAY, whole(target, "gateway", 32)
            case "account":
                return types_pb.LIMIT_SCOPE_ACCOUNT, whole(target, "account", 64)
            case "firm":
                return types_pb.LIMIT_SCOPE_FIRM, whole(target, "firm", 32)
    raise InvalidInput(f"limits are of an account, a firm or a gateway, not of {scope!r}")


def _comment(value: str) -> str:
    size_bytes = len(value.encode())
    if size_bytes > COMMENT_BYTES_MAX:
        raise OutOfRange(f"comment has {size_bytes} bytes, more than {COMMENT_BYTES_MAX}")
    return value


# The field of MarginSchedule that has the parameters of a family.
_FAMILY_FIELDS = {
    MarginFamily.SIZE_LINEAR: "size_linear",
    MarginFamily.PER_CONTRACT: "per_contract",
    MarginFamily.OPEN_INTEREST: "open_interest",
    MarginFamily.SIZE_SQRT: "size_sqrt",
    MarginFamily.POWER: "power",
    MarginFamily.RISK_FACTOR: "risk_factor",
}


def _schedule_message(schedule: MarginSchedule) -> instrument_pb.MarginSchedule:
    family = _member(MarginFamily, schedule.family, "family")
    is_by_lots = family is MarginFamily.TIERED_QUANTITY
    message = instrument_pb.MarginSchedule(
        name=schedule.name,
        settlement_asset=schedule.settlement_asset,
        tiers=[
            instrument_pb.MarginTier(
                floor_notional="" if is_by_lots else text(tier.floor_notional, "floor_notional"),
                initial_rate=text(tier.initial_rate, "initial_rate"),
                maintenance_rate=text(tier.maintenance_rate, "maintenance_rate"),
                max_leverage=text(tier.max_leverage, "max_leverage"),
                floor_lots=whole(tier.floor_lots, "floor_lots", 64, minimum=0),
            )
            for tier in schedule.tiers
        ],
        notional_max=_optional_text(schedule.notional_max, "notional_max"),
        liquidation_fee_rate=text(schedule.liquidation_fee_rate, "liquidation_fee_rate"),
        family=_wire(family),
        maintenance_basis=_wire(
            _member(MaintenanceBasis, schedule.maintenance_basis, "maintenance_basis")
        ),
        closing_fee=_wire(_member(ClosingFee, schedule.closing_fee, "closing_fee")),
        quantity_max_lots=whole(schedule.quantity_max_lots, "quantity_max_lots", 64, minimum=0),
    )
    if schedule.parameters:
        field = _FAMILY_FIELDS.get(family)
        target = getattr(message, field) if field else None
        names = set(target.DESCRIPTOR.fields_by_name) if target is not None else set()
        if set(schedule.parameters) != names:
            has = ", ".join(sorted(names)) or "none"
            given = ", ".join(schedule.parameters)
            raise InvalidInput(f"parameters of {family.name} are {has}, not {given}")
        for name, value in schedule.parameters.items():
            setattr(target, name, text(value, name))
    return message


def _collateral_message(collateral: Collateral, index_id: int) -> instrument_pb.Collateral:
    return instrument_pb.Collateral(
        asset=collateral.asset,
        settlement_asset=collateral.settlement_asset,
        index_instrument_id=index_id,
        tiers=[
            instrument_pb.CollateralTier(
                floor=text(tier.floor, "floor"), weight=text(tier.weight, "weight")
            )
            for tier in collateral.tiers
        ],
        cap=_optional_text(collateral.cap, "cap"),
        liability_weight=text(collateral.liability_weight, "liability_weight"),
        interest_free=text(collateral.interest_free, "interest_free"),
        forced_conversion=text(collateral.forced_conversion, "forced_conversion"),
        wrong_way_rate=text(collateral.wrong_way_rate, "wrong_way_rate"),
    )


def _instrument_message(instrument: Instrument) -> instrument_pb.Instrument:
    def number(field: str) -> str:
        return _optional_text(getattr(instrument, field), field)

    return instrument_pb.Instrument(
        symbol=instrument.symbol,
        kind=_wire(_member(InstrumentKind, instrument.kind, "kind")),
        settlement_asset=instrument.settlement_asset,
        margin_schedule=instrument.margin_schedule,
        tick_size=number("tick_size"),
        lot_size=number("lot_size"),
        mark_units_per_tick=instrument.mark_units_per_tick,
        order_quantity_min=number("order_quantity_min"),
        order_quantity_max=number("order_quantity_max"),
        order_notional_min=number("order_notional_min"),
        order_notional_max=number("order_notional_max"),
        price_collar_rate=number("price_collar_rate"),
        market_order_buffer_rate=number("market_order_buffer_rate"),
        taker_fee_rate=number("taker_fee_rate"),
        mark_age_max_ms=instrument.mark_age_max_ms,
        trading_state=_wire(_member(TradingState, instrument.trading_state, "trading_state")),
        expiry_time_ns=instrument.expiry_time_ns,
        strike=number("strike"),
        option_type=_wire(_member(OptionType, instrument.option_type, "option_type")),
        interest_rate=number("interest_rate"),
        underlying_instrument_id=instrument.underlying_instrument_id,
        multiplier=number("multiplier"),
        option_rule=instrument.option_rule,
        base_asset=instrument.base_asset,
        isolated_only=instrument.isolated_only,
    )


# --- messages to values ---------------------------------------------------------------------------

# What the numbers of a violation count, by rule.
_UNITS: dict[Reason, Unit] = {
    Reason.BELOW_ORDER_QUANTITY_MIN: Unit.QUANTITY,
    Reason.EXCEEDS_ORDER_QUANTITY_MAX: Unit.QUANTITY,
    Reason.REDUCE_ONLY_WOULD_INCREASE: Unit.QUANTITY,
    Reason.SHORT_OPTION_NOT_PERMITTED: Unit.QUANTITY,
    Reason.PRICE_OUTSIDE_COLLAR: Unit.PRICE,
    Reason.BELOW_ORDER_NOTIONAL_MIN: Unit.MONEY,
    Reason.EXCEEDS_ORDER_NOTIONAL_MAX: Unit.MONEY,
    Reason.EXCEEDS_POSITION_NOTIONAL_MAX: Unit.MONEY,
    Reason.MARGIN_INSUFFICIENT: Unit.MONEY,
    Reason.BORN_LIQUIDATABLE: Unit.MONEY,
    Reason.BALANCE_INSUFFICIENT: Unit.BASE_MONEY,
    Reason.POSITION_SIDE_WOULD_TURN: Unit.QUANTITY,
    Reason.LIMIT_ORDER_QUANTITY_MIN: Unit.QUANTITY,
    Reason.LIMIT_ORDER_QUANTITY_MAX: Unit.QUANTITY,
    Reason.LIMIT_ORDER_NOTIONAL_MIN: Unit.MONEY,
    Reason.LIMIT_ORDER_NOTIONAL_MAX: Unit.MONEY,
    Reason.LIMIT_COLLAR_PPB: Unit.PRICE,
    Reason.LIMIT_COLLAR_TICKS: Unit.PRICE,
    Reason.LIMIT_POSITION_LOTS_MAX: Unit.QUANTITY,
    Reason.LIMIT_POSITION_NOTIONAL_MAX: Unit.MONEY,
    Reason.LIMIT_GROSS_EXPOSURE_MAX: Unit.MONEY,
    Reason.LIMIT_OPEN_ORDERS_MAX: Unit.COUNT,
    Reason.LIMIT_OPEN_NOTIONAL_MAX: Unit.MONEY,
    Reason.LIMIT_ORDER_RATE_MAX: Unit.COUNT,
    Reason.LIMIT_EXECUTION_RATE_MAX: Unit.COUNT,
    Reason.LIMIT_DAILY_TRADED_MAX: Unit.MONEY,
    Reason.LIMIT_DAILY_LOSS_MAX: Unit.MONEY,
    Reason.LIMIT_DRAWDOWN_MAX: Unit.MONEY,
    Reason.LIMIT_LEVERAGE_MAX: Unit.LEVERAGE,
    Reason.LIMIT_DELTA_MAX: Unit.MONEY,
    Reason.LIMIT_GAMMA_MAX: Unit.MONEY,
    Reason.LIMIT_VEGA_MAX: Unit.MONEY,
    Reason.LIMIT_CONCENTRATION_MAX: Unit.SHARE,
}

# Rejects that come with the largest quantity that would pass, zero if none does.
_SIZED = frozenset(
    {
        Reason.QUANTITY_OUT_OF_RANGE,
        Reason.NOTIONAL_OVERFLOWS,
        Reason.EXCEEDS_ORDER_QUANTITY_MAX,
        Reason.EXCEEDS_ORDER_NOTIONAL_MAX,
        Reason.EXCEEDS_POSITION_NOTIONAL_MAX,
        Reason.REDUCE_ONLY_WOULD_INCREASE,
        Reason.SHORT_OPTION_NOT_PERMITTED,
        Reason.MARGIN_INSUFFICIENT,
        Reason.BORN_LIQUIDATABLE,
        Reason.MARGIN_OVERFLOWS,
        Reason.BALANCE_INSUFFICIENT,
        Reason.POSITION_SIDE_WOULD_TURN,
        Reason.LIMIT_ORDER_QUANTITY_MAX,
        Reason.LIMIT_ORDER_NOTIONAL_MAX,
        Reason.LIMIT_POSITION_LOTS_MAX,
        Reason.LIMIT_POSITION_NOTIONAL_MAX,
        Reason.LIMIT_GROSS_EXPOSURE_MAX,
        Reason.LIMIT_OPEN_NOTIONAL_MAX,
        Reason.LIMIT_DAILY_TRADED_MAX,
        Reason.LIMIT_DELTA_MAX,
        Reason.LIMIT_GAMMA_MAX,
        Reason.LIMIT_VEGA_MAX,
        Reason.LIMIT_CONCENTRATION_MAX,
    }
)

_ACCEPTED = frozenset({Decision.ACCEPTED, Decision.ACCEPTED_WITH_WARNING})
_ZERO = Decimal(0)


def _optional(number: str) -> Decimal | None:
    return Decimal(number) if number else None


def _number(number: str) -> Decimal:
    return Decimal(number) if number else _ZERO


def _liquidation_price(status: LiquidationStatus, ticks: int, listing: Listing) -> Decimal | None:
    return listing.price(ticks) if status is LiquidationStatus.AT_PRICE else None


def _violation(
    message: order_pb.Violation, listing: Listing, scales: Mapping[Reason, int]
) -> Violation:
    """Return a violated rule; scales: of money that is not in the instrument's settlement asset."""
    reason = Reason(message.reason)
    unit = Unit.QUANTITY if message.in_lots else _UNITS.get(reason, Unit.RAW)
    convert: Callable[[int], Decimal] = {
        Unit.QUANTITY: listing.quantity,
        Unit.PRICE: listing.price,
        Unit.MONEY: lambda minor: money(minor, scales.get(reason, listing.scale)),
        Unit.BASE_MONEY: lambda minor: money(minor, listing.base_scale),
        Unit.COUNT: Decimal,
        Unit.LEVERAGE: lambda hundredths: money(hundredths, 2),
        Unit.SHARE: lambda ppb: money(ppb, 9),
        Unit.RAW: Decimal,
    }[unit]
    return Violation(
        reason,
        unit,
        convert(message.limit),
        convert(message.use),
        convert(message.order_use),
        _limit_scope(message.scope, message.scope_id),
        message.soft,
    )


def _limit_scope(scope: int, scope_id: int) -> Scope | None:
    """Return the level of a limit; None where there is none."""
    match scope:
        case types_pb.LIMIT_SCOPE_UNSPECIFIED:
            return None
        case types_pb.LIMIT_SCOPE_GATEWAY:
            return Scope.gateway(scope_id)
        case types_pb.LIMIT_SCOPE_ACCOUNT:
            return Scope.account(scope_id)
        case types_pb.LIMIT_SCOPE_FIRM:
            return Scope.firm(scope_id)
        case _:
            return Scope("unrecognised", scope_id)  # a kind of scope newer than this client


def _greeks(message: order_pb.Greeks) -> Greeks:
    return Greeks(
        price=money(message.price_pico, 12),
        delta=money(message.delta_pico, 12),
        gamma=money(message.gamma_pico, 12),
        vega_per_vol_point=money(message.vega_per_vol_point_pico, 12),
        theta_per_day=money(message.theta_per_day_pico, 12),
        rho_per_point=money(message.rho_per_point_pico, 12),
    )


def read_detail(
    message: order_pb.DecisionDetail, listing: Listing, account_scale: int
) -> DecisionDetail:
    """Return the explanation of a decision on an instrument; account_scale: of the margins."""
    equity_scale = account_scale if message.equity_in_account_asset else listing.scale
    scales = {
        Reason.MARGIN_INSUFFICIENT: account_scale,
        Reason.BORN_LIQUIDATABLE: equity_scale,
    }
    ratio = message.margin_ratio_ppm
    bankruptcy = message.bankruptcy_price_ticks
    return DecisionDetail(
        position_initial_margin=listing.money(message.position_initial_margin_minor),
        position_maintenance_margin=listing.money(message.position_maintenance_margin_minor),
        position_unrealised_pnl=listing.money(message.position_unrealised_pnl_minor),
        equity=money(message.equity_minor, equity_scale),
        margin_ratio=None if ratio == MINOR_MAX else money(ratio, 6),
        bankruptcy_price=listing.price(bankruptcy) if bankruptcy else None,
        position=listing.quantity(message.position_lots),
        mark_price=listing.mark_price(message.mark_price) if message.mark_price else None,
        mark_time_ns=message.mark_time_ns,
        schedule_version=message.schedule_version,
        tier_index=message.tier_index,
        leverage=money(message.leverage_hundredths, 2),
        greeks=_greeks(message.greeks) if message.HasField("greeks") else None,
        violations=tuple(_violation(row, listing, scales) for row in message.violations),
    )


def read_decision(
    message: order_pb.CheckOrderResponse,
    listing: Listing,
    client_order_id: int,
    scale_of: Callable[[int], int],
    *,
    is_sized: bool = True,
) -> OrderDecision:
    """Return the decision on an order of an instrument; is_sized: the order gave its quantity.

    scale_of: of an asset, by its id. Raises OutcomeUnknown for a reply without a verdict: zero is
    neither yes nor no.
    """
    decision = Decision(message.decision)
    if decision is Decision.UNSPECIFIED:
        raise OutcomeUnknown(
            "the reply holds no decision; the outcome is unknown",
            code=grpc.StatusCode.INTERNAL,
            method="CheckOrder",
            client_order_id=client_order_id,
        )
    reason = Reason(message.reason)
    accepted = decision in _ACCEPTED
    max_lots = message.max_quantity_lots
    has_max = not accepted and (max_lots > 0 or (is_sized and reason in _SIZED))
    unknown = message.margin_unknown
    status = LiquidationStatus(message.liquidation_status)
    other_asset_id = message.account_asset_id
    scale = scale_of(other_asset_id) if other_asset_id else listing.scale
    return OrderDecision(
        accepted=accepted,
        decision=decision,
        reason=reason,
        symbol=listing.instrument.symbol,
        client_order_id=client_order_id,
        reservation_id=message.reservation_id,
        revision=message.revision,
        initial_margin=None if unknown else money(message.initial_margin_minor, scale),
        available=None if unknown else money(message.available_minor, scale),
        reserved=None if unknown else money(message.reserved_minor, scale),
        liquidation_status=status,
        liquidation_price=_liquidation_price(status, message.liquidation_price_ticks, listing),
        max_quantity=listing.quantity(max_lots) if has_max else None,
        detail=read_detail(message.detail, listing, scale) if message.HasField("detail") else None,
        quantity=listing.quantity(message.quantity_lots) if message.quantity_lots else None,
    )


def read_execution(
    message: order_pb.ReportExecutionResponse,
    listing: Listing,
    execution_id: int,
    scale_of: Callable[[int], int],
) -> ExecutionResult:
    """Return what an execution changed; scale_of as in read_decision.

    Raises OutcomeUnknown without a verdict.
    """
    decision = Decision(message.decision)
    if decision is Decision.UNSPECIFIED:
        raise OutcomeUnknown(
            "the reply holds no decision; the outcome is unknown",
            code=grpc.StatusCode.INTERNAL,
            method="ReportExecution",
            execution_id=execution_id,
        )
    status = LiquidationStatus(message.liquidation_status)
    other_asset_id = message.account_asset_id
    scale = scale_of(other_asset_id) if other_asset_id else listing.scale
    return ExecutionResult(
        accepted=decision in _ACCEPTED,
        decision=decision,
        reason=Reason(message.reason),
        revision=message.revision,
        remaining=listing.quantity(message.remaining_lots),
        position=listing.quantity(message.position_lots),
        realised_pnl=listing.money(message.realised_pnl_minor),
        available=None if message.margin_unknown else money(message.available_minor, scale),
        liquidation_status=status,
        liquidation_price=_liquidation_price(status, message.liquidation_price_ticks, listing),
        isolated_wallet=listing.money(message.isolated_wallet_minor),
    )


def _read_account(message: account_pb.Account, revision: int) -> Account:
    return Account(
        account_id=message.account_id,
        settlement_asset=message.settlement_asset,
        default_margin_mode=MarginMode(message.default_margin_mode),
        default_leverage=_number(message.default_leverage),
        cash=_number(message.cash),
        trading_state=TradingState(message.trading_state),
        revision=revision,
        position_mode=PositionMode(message.position_mode),
        firm_id=message.firm_id,
        parent_account_id=message.parent_account_id,
        balances={row.asset: _number(row.amount) for row in message.balances},
    )


def _read_firm(message: account_pb.Firm, revision: int) -> Firm:
    return Firm(
        message.firm_id, message.settlement_asset, TradingState(message.trading_state), revision
    )


def _read_gateway(message: control_pb.Gateway) -> Gateway:
    return Gateway(
        gateway_id=message.gateway_id,
        trading_state=TradingState(message.trading_state),
        lease_end_time_ns=message.lease_end_time_ns,
        lease_action=LeaseAction(message.lease_action),
        orders_released=message.orders_released,
    )


def _read_change(message: audit_pb.Change) -> Change:
    return Change(
        revision=message.revision,
        time_ns=message.time_ns,
        actor=message.actor,
        method=message.method,
        arguments={row.name: row.value for row in message.arguments},
        changes={row.name: (row.before, row.after) for row in message.changes},
    )


def _read_denial(message: audit_pb.Denial) -> Denial:
    return Denial(
        reason=message.reason,
        identity=message.identity,
        method=message.method,
        door=message.door,
        count=message.count,
        first_time_ns=message.first_time_ns,
        last_time_ns=message.last_time_ns,
        peer=message.peer,
        subject=message.subject,
        certificate=message.certificate,
    )


def _read_asset(message: instrument_pb.Asset) -> Asset:
    return Asset(message.asset_id, message.symbol, message.scale)


def _read_schedule(message: instrument_pb.MarginSchedule) -> MarginSchedule:
    return MarginSchedule(
        name=message.name,
        settlement_asset=message.settlement_asset,
        tiers=tuple(
            MarginTier(
                floor_notional=_number(tier.floor_notional),
                initial_rate=_number(tier.initial_rate),
                maintenance_rate=_number(tier.maintenance_rate),
                max_leverage=_number(tier.max_leverage),
                deduction=_number(tier.deduction),
                floor_lots=tier.floor_lots,
            )
            for tier in message.tiers
        ),
        notional_max=_optional(message.notional_max),
        liquidation_fee_rate=_number(message.liquidation_fee_rate),
        schedule_id=message.schedule_id,
        version=message.version,
        family=MarginFamily(message.family),
        maintenance_basis=MaintenanceBasis(message.maintenance_basis),
        parameters=_read_parameters(message),
        closing_fee=ClosingFee(message.closing_fee),
        quantity_max_lots=message.quantity_max_lots,
    )


def _read_parameters(message: instrument_pb.MarginSchedule) -> dict[str, Decimal]:
    field = message.WhichOneof("parameters")
    if field is None:
        return {}
    parameters = getattr(message, field)
    names = parameters.DESCRIPTOR.fields_by_name
    return {name: _number(getattr(parameters, name)) for name in names}


def _read_option_rule(message: instrument_pb.OptionRule) -> OptionRule:
    return OptionRule(
        name=message.name,
        settlement_asset=message.settlement_asset,
        initial_rate=_number(message.initial_rate),
        initial_rate_min=_number(message.initial_rate_min),
        maintenance_rate=_number(message.maintenance_rate),
        put_maintenance_on_mark=message.put_maintenance_on_mark,
        call_maintenance_on_mark=message.call_maintenance_on_mark,
        put_initial_over_maintenance=exact(
            message.put_initial_over_maintenance or "1", "put_initial_over_maintenance"
        ),
        order_initial_rate_min=_number(message.order_initial_rate_min),
        option_rule_id=message.option_rule_id,
        version=message.version,
    )


def read_instrument(message: instrument_pb.Instrument) -> Instrument:
    """Return an instrument."""
    return Instrument(
        symbol=message.symbol,
        kind=InstrumentKind(message.kind),
        settlement_asset=message.settlement_asset,
        tick_size=exact(message.tick_size, "tick_size"),
        lot_size=exact(message.lot_size, "lot_size"),
        margin_schedule=message.margin_schedule,
        mark_units_per_tick=message.mark_units_per_tick,
        order_quantity_min=_optional(message.order_quantity_min),
        order_quantity_max=_optional(message.order_quantity_max),
        order_notional_min=_optional(message.order_notional_min),
        order_notional_max=_optional(message.order_notional_max),
        price_collar_rate=_optional(message.price_collar_rate),
        market_order_buffer_rate=_number(message.market_order_buffer_rate),
        taker_fee_rate=_number(message.taker_fee_rate),
        mark_age_max_ms=message.mark_age_max_ms,
        trading_state=TradingState(message.trading_state),
        expiry_time_ns=message.expiry_time_ns,
        strike=_optional(message.strike),
        option_type=OptionType(message.option_type),
        interest_rate=_optional(message.interest_rate),
        underlying_instrument_id=message.underlying_instrument_id,
        instrument_id=message.instrument_id,
        multiplier=exact(message.multiplier or "1", "multiplier"),
        option_rule=message.option_rule,
        settlement_price=_optional(message.settlement_price),
        funding_time_ns=message.funding_time_ns,
        open_interest=_optional(message.open_interest),
        base_asset=message.base_asset,
        isolated_only=message.isolated_only,
    )


def _read_summary(message: margin_pb.MarginSummary, revision: int) -> MarginSummary:
    return MarginSummary(
        account_id=message.account_id,
        settlement_asset=message.settlement_asset,
        cash=_number(message.cash),
        cross_unrealised_pnl=_optional(message.cross_unrealised_pnl),
        cross_equity=_optional(message.cross_equity),
        initial_margin=_optional(message.initial_margin),
        cross_maintenance_margin=_optional(message.cross_maintenance_margin),
        available=_optional(message.available),
        isolated_wallets=_optional(message.isolated_wallets),
        cross_margin_ratio=_optional(message.cross_margin_ratio),
        cross_liquidatable=message.cross_liquidatable,
        working_order_count=message.working_order_count,
        revision=revision,
        margin_level=MarginLevel(message.margin_level),
        maintenance_level=_optional(message.maintenance_level),
        search_level=_optional(message.search_level),
        release_level=_optional(message.release_level),
        collateral=tuple(
            CollateralBalance(
                asset=row.asset,
                balance=_number(row.balance),
                value=_optional(row.value),
                bears_interest=row.bears_interest,
                to_be_converted=row.to_be_converted,
            )
            for row in message.collateral
        ),
        collateral_value=_optional(message.collateral_value),
        credit_line=_optional(message.credit_line),
        credit_used=_optional(message.credit_used),
    )


def _read_position(message: margin_pb.PositionMargin, revision: int) -> PositionMargin:
    return PositionMargin(
        instrument_id=message.instrument_id,
        symbol=message.symbol,
        position_side=PositionSide(message.position_side),
        margin_mode=MarginMode(message.margin_mode),
        leverage=_number(message.leverage),
        quantity=_number(message.quantity),
        entry_price=_optional(message.entry_price),
        entry_value=_optional(message.entry_value),
        mark_price=_optional(message.mark_price),
        notional=_optional(message.notional),
        unrealised_pnl=_optional(message.unrealised_pnl),
        initial_margin=_optional(message.initial_margin),
        maintenance_margin=_optional(message.maintenance_margin),
        isolated_wallet=_optional(message.isolated_wallet),
        margin_ratio=_optional(message.margin_ratio),
        liquidation_status=LiquidationStatus(message.liquidation_status),
        liquidation_price=_optional(message.liquidation_price),
        bankruptcy_price=_optional(message.bankruptcy_price),
        liquidatable=message.liquidatable,
        working_buy_quantity=_optional(message.working_buy_quantity),
        working_sell_quantity=_optional(message.working_sell_quantity),
        revision=revision,
        margin_level=MarginLevel(message.margin_level),
        liquidation_distance=_optional(message.liquidation_distance),
        liquidation_distance_daily_volatilities=_optional(
            message.liquidation_distance_daily_volatilities
        ),
        liquidation_price_with_orders=_optional(message.liquidation_price_with_orders),
    )


def _read_portfolio(reply: margin_pb.SimulatePortfolioResponse) -> Portfolio:
    return Portfolio(
        summary=_read_summary(reply.summary, reply.revision),
        positions=tuple(_read_position(row, reply.revision) for row in reply.positions),
        decisions=tuple(
            SimulatedDecision(Decision(row.decision), Reason(row.reason), _optional(row.reserved))
            for row in reply.decisions
        ),
        revision=reply.revision,
    )


def _read_risk_events(reply: margin_pb.WatchRiskEventsResponse) -> RiskEvents:
    events = tuple(
        RiskEvent(
            revision=row.revision,
            time_ns=row.time_ns,
            account_id=row.account_id,
            instrument_id=row.instrument_id,
            position_side=PositionSide(row.position_side),
            level_before=MarginLevel(row.level_before),
            level_after=MarginLevel(row.level_after),
            equity=_number(row.equity),
            requirement=_number(row.requirement),
        )
        for row in reply.events
    )
    return RiskEvents(events, reply.oldest_revision, reply.revision)


def _read_wallet(
    message: account_pb.TransferMarginResponse | account_pb.ChangeMarginModeResponse,
) -> WalletResult:
    cash_flow = None
    if isinstance(message, account_pb.ChangeMarginModeResponse):
        cash_flow = _number(message.cash_flow)
    return WalletResult(
        _number(message.isolated_wallet), _optional(message.available), message.revision, cash_flow
    )


def _read_state(
    message: control_pb.ReleaseKillSwitchResponse | control_pb.ChangeTradingStateResponse,
) -> StateResult:
    return StateResult(TradingState(message.trading_state), message.revision)


# --- the calls of the service ---------------------------------------------------------------------


class OrderIds:
    """Client order ids: a random start of 63 bits, then one up. Safe to share between threads.

    A restarted gateway so does not meet the ids of its last run.
    """

    def __init__(self, start: int | None = None) -> None:
        self._next = secrets.randbits(63) if start is None else start
        self._taking = threading.Lock()

    def take(self) -> int:
        """Return the next id, 1 to 2^64 - 1."""
        with self._taking:
            self._next = self._next % (2**64 - 1) + 1
            return self._next


class Operations:
    """Plans calls: each method checks and converts its arguments and returns the Call.

    Every method takes `timeout` in seconds; None is the client's.
    """

    def __init__(
        self,
        gateway_id: int,
        catalogue: Catalogue,
        order_ids: OrderIds,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.gateway_id = whole(gateway_id, "gateway_id", 32)
        self.catalogue = catalogue
        self.order_ids = order_ids
        self.clock = clock

    # Orders.

    def check_order(
        self,
        account: int,
        symbol: str,
        side: Side | str,
        quantity: Amount | None = None,
        price: Amount | None = None,
        *,
        order_type: OrderType | str | None = None,
        trigger_price: Amount | None = None,
        trailing_offset: Amount | None = None,
        client_order_id: int | None = None,
        time_in_force: TimeInForce | str = TimeInForce.GTC,
        expire_time_ns: int = 0,
        position_side: PositionSide | str = PositionSide.UNSPECIFIED,
        reduce_only: bool = False,
        post_only: bool = False,
        close_position: bool = False,
        quote_amount: Amount | None = None,
        margin_mode: MarginMode | str = MarginMode.UNSPECIFIED,
        view: DecisionView | str = DecisionView.BASIC,
        check_only: bool = False,
        timeout: float | None = None,
    ) -> Call[OrderDecision]:
        """Decide on an order and, unless check_only, reserve what it needs if it is accepted.

        Without order_type it is a limit order with a price, a trailing stop with trailing_offset,
        and else a market order; a stop or take profit needs its order_type and trigger_price.
        expire_time_ns ends a GTD order. position_side is LONG or SHORT in hedge mode. Instead of a
        quantity, close_position closes what is open, and quote_amount spends or gets so much money,
        in orders without a limit price. client_order_id is generated unless given; the same order
        with the same id gets the first answer again. margin_mode must be the position's, or
        UNSPECIFIED. The decision's detail comes with view MARGIN or FULL.

        Raises OffTick, OffLot, UnknownSymbol, OutOfRange, InvalidInput or TypeError before
        anything is sent; OutcomeUnknown when no answer came.
        """
        order = NewOrder(
            account,
            symbol,
            side,
            quantity,
            price,
            order_type=order_type,
            trigger_price=trigger_price,
            trailing_offset=trailing_offset,
            time_in_force=time_in_force,
            expire_time_ns=expire_time_ns,
            position_side=position_side,
            reduce_only=reduce_only,
            post_only=post_only,
            close_position=close_position,
            quote_amount=quote_amount,
            margin_mode=margin_mode,
            view=view,
            check_only=check_only,
            client_order_id=client_order_id,
        )
        listing = self.catalogue.listing(symbol)
        request = self._order_message(order, listing)
        order_id = request.client_order_id
        return Call(
            CHECK_ORDER,
            request,
            lambda reply: read_decision(
                reply, listing, order_id, self.catalogue.scale_of, is_sized=quantity is not None
            ),
            timeout,
            advice=f"repeat the same order with client_order_id={order_id}, or ask "
            f"get_reservation(client_order_id={order_id})",
            client_order_id=order_id,
        )

    def batch_check_orders(
        self,
        orders: Sequence[NewOrder],
        *,
        all_or_none: bool = False,
        timeout: float | None = None,
    ) -> Call[BatchResult]:
        """Decide on 1 to 64 orders in one call: one by one, or, with all_or_none, all or none.

        The legs of all_or_none count together. Repeat a batch with its client_order_ids, which are
        generated unless given, and are in the message of OutcomeUnknown.

        Raises as check_order does.
        """
        if not 1 <= len(orders) <= BATCH_MAX:
            raise OutOfRange(f"orders holds {len(orders)}, not 1 to {BATCH_MAX}")
        listings = [self.catalogue.listing(order.symbol) for order in orders]
        request = order_pb.BatchCheckOrdersRequest(
            mode=order_pb.BATCH_MODE_ALL_OR_NONE
            if all_or_none
            else order_pb.BATCH_MODE_INDEPENDENT,
            orders=[
                self._order_message(order, listing)
                for order, listing in zip(orders, listings, strict=True)
            ],
        )
        order_ids = [message.client_order_id for message in request.orders]

        def read(reply: order_pb.BatchCheckOrdersResponse) -> BatchResult:
            decisions = zip(reply.decisions, listings, order_ids, orders, strict=True)
            return BatchResult(
                tuple(
                    read_decision(
                        row,
                        listing,
                        order_id,
                        self.catalogue.scale_of,
                        is_sized=order.quantity is not None,
                    )
                    for row, listing, order_id, order in decisions
                ),
                reply.revision,
            )

        advice = f"repeat the same batch with the client_order_ids {order_ids}"
        return Call(BATCH_CHECK_ORDERS, request, read, timeout, advice=advice)

    def _order_message(self, order: NewOrder, listing: Listing) -> order_pb.CheckOrderRequest:
        """Return an order in ticks and lots, with an id of its own unless it has one."""
        flags = sum(
            flag
            for flag, is_set in (
                (order_pb.ORDER_FLAG_REDUCE_ONLY, order.reduce_only),
                (order_pb.ORDER_FLAG_POST_ONLY, order.post_only),
                (order_pb.ORDER_FLAG_CLOSE_POSITION, order.close_position),
                (order_pb.ORDER_FLAG_QUOTE_QUANTITY, order.quote_amount is not None),
            )
            if is_set
        )
        expires = order.expire_time_ns
        message = order_pb.CheckOrderRequest(
            account_id=whole(order.account, "account", 64),
            instrument_id=listing.instrument.instrument_id,
            side=_wire(_member(Side, order.side, "side")),
            order_type=_wire(_order_type(order)),
            time_in_force=_wire(_member(TimeInForce, order.time_in_force, "time_in_force")),
            margin_mode=_wire(_member(MarginMode, order.margin_mode, "margin_mode")),
            price_ticks=_ticks(listing, order.price, "price"),
            quantity_lots=_quantity(order, listing),
            flags=flags,
            gateway_id=self.gateway_id,
            sent_time_ns=self.clock(),
            mode=order_pb.CHECK_MODE_CHECK_ONLY
            if order.check_only
            else order_pb.CHECK_MODE_RESERVE,
            view=_wire(_member(DecisionView, order.view, "view")),
            position_side=_wire(_member(PositionSide, order.position_side, "position_side")),
            trigger_price_ticks=_ticks(listing, order.trigger_price, "trigger_price"),
            trailing_offset_ticks=_ticks(listing, order.trailing_offset, "trailing_offset"),
            expire_time_ns=whole(expires, "expire_time_ns", 64) if expires else 0,
        )
        # Last: an order that is refused takes no id.
        if order.client_order_id is None:
            message.client_order_id = self.order_ids.take()
        else:
            message.client_order_id = whole(order.client_order_id, "client_order_id", 64)
        return message

    def check_amendment(
        self,
        order: HasReservation,
        quantity: Amount | None,
        price: Amount | None = None,
        *,
        trigger_price: Amount | None = None,
        trailing_offset: Amount | None = None,
        client_order_id: int | None = None,
        view: DecisionView | str = DecisionView.BASIC,
        timeout: float | None = None,
    ) -> Call[OrderDecision]:
        """Change prices and total quantity (its filled part included) of a working order.

        A refusal leaves the order and its hold as they were. All prices that the order has are
        given, changed or not; quantity None is that of an order that closes the position.
        client_order_id is the amendment's own id, generated unless given; the same amendment with
        the same id gets the first answer again. max_quantity counts what is filled too.

        Raises as check_order does.
        """
        listing = self.catalogue.listing(order.symbol)
        if order.reservation_id == 0:
            raise InvalidInput(f"nothing is reserved by {order!r}: reservation_id is 0")
        if client_order_id is None:
            amendment_id = self.order_ids.take()
        else:
            amendment_id = whole(client_order_id, "client_order_id", 64)
        request = order_pb.CheckAmendmentRequest(
            gateway_id=self.gateway_id,
            reservation_id=whole(order.reservation_id, "reservation_id", 64),
            client_order_id=amendment_id,
            price_ticks=_ticks(listing, price, "price"),
            quantity_lots=0 if quantity is None else listing.quantity_lots(quantity),
            sent_time_ns=self.clock(),
            view=_wire(_member(DecisionView, view, "view")),
            trigger_price_ticks=_ticks(listing, trigger_price, "trigger_price"),
            trailing_offset_ticks=_ticks(listing, trailing_offset, "trailing_offset"),
        )
        return Call(
            CHECK_AMENDMENT,
            request,
            lambda reply: read_decision(
                reply.order,
                listing,
                amendment_id,
                self.catalogue.scale_of,
                is_sized=quantity is not None,
            ),
            timeout,
            advice=f"repeat the same amendment with client_order_id={amendment_id}",
            client_order_id=amendment_id,
        )

    def report_fill(
        self,
        order: HasReservation,
        price: Amount,
        quantity: Amount,
        *,
        execution_id: int,
        fee: Amount = 0,
        fee_asset: str | None = None,
        time_ns: int | None = None,
        timeout: float | None = None,
    ) -> Call[ExecutionResult]:
        """Report a fill, whole or in part, of a reserved order.

        order is the OrderDecision, the Reservation, or a ReservationRef; if its symbol is not that
        of the reserved order, the answer is EXECUTION_INSTRUMENT_MISMATCH. execution_id is the
        venue's, unique per gateway: a repeat gets the first answer again. fee is in fee_asset, else
        in the settlement asset, negative for a rebate. time_ns is the venue's time, for statistics.
        """
        listing = self.catalogue.listing(order.symbol)
        return self._report(
            order,
            listing,
            order_pb.EXECUTION_KIND_FILL,
            execution_id,
            time_ns,
            timeout,
            price_ticks=listing.price_ticks(price),
            quantity_lots=listing.quantity_lots(quantity),
            fee=fee,
            fee_asset=fee_asset,
        )

    def report_bust(
        self,
        order: HasReservation,
        *,
        execution_id: int,
        original_execution_id: int,
        fee: Amount = 0,
        fee_asset: str | None = None,
        time_ns: int | None = None,
        timeout: float | None = None,
    ) -> Call[ExecutionResult]:
        """Report that the venue undid a fill; a fee that is given back is negative."""
        listing = self.catalogue.listing(order.symbol)
        return self._report(
            order,
            listing,
            order_pb.EXECUTION_KIND_BUST,
            execution_id,
            time_ns,
            timeout,
            original_execution_id=original_execution_id,
            fee=fee,
            fee_asset=fee_asset,
        )

    def report_correction(
        self,
        order: HasReservation,
        price: Amount,
        quantity: Amount,
        *,
        execution_id: int,
        original_execution_id: int,
        fee: Amount = 0,
        fee_asset: str | None = None,
        time_ns: int | None = None,
        timeout: float | None = None,
    ) -> Call[ExecutionResult]:
        """Report that the venue gave a fill another price or quantity.

        fee is what is paid more than for the original, negative if it is less.
        """
        listing = self.catalogue.listing(order.symbol)
        return self._report(
            order,
            listing,
            order_pb.EXECUTION_KIND_CORRECTION,
            execution_id,
            time_ns,
            timeout,
            price_ticks=listing.price_ticks(price),
            quantity_lots=listing.quantity_lots(quantity),
            original_execution_id=original_execution_id,
            fee=fee,
            fee_asset=fee_asset,
        )

    def report_cancel(
        self,
        order: HasReservation,
        *,
        execution_id: int,
        time_ns: int | None = None,
        timeout: float | None = None,
    ) -> Call[ExecutionResult]:
        """Report that a reserved order was cancelled: what is left of it is released."""
        listing = self.catalogue.listing(order.symbol)
        kind = order_pb.EXECUTION_KIND_CANCEL
        return self._report(order, listing, kind, execution_id, time_ns, timeout)

    def report_expire(
        self,
        order: HasReservation,
        *,
        execution_id: int,
        time_ns: int | None = None,
        timeout: float | None = None,
    ) -> Call[ExecutionResult]:
        """Report that a reserved order expired: what is left of it is released."""
        listing = self.catalogue.listing(order.symbol)
        kind = order_pb.EXECUTION_KIND_EXPIRE
        return self._report(order, listing, kind, execution_id, time_ns, timeout)

    def report_venue_reject(
        self,
        order: HasReservation,
        *,
        execution_id: int,
        time_ns: int | None = None,
        timeout: float | None = None,
    ) -> Call[ExecutionResult]:
        """Report that the venue refused a reserved order: what is left of it is released."""
        listing = self.catalogue.listing(order.symbol)
        kind = order_pb.EXECUTION_KIND_VENUE_REJECT
        return self._report(order, listing, kind, execution_id, time_ns, timeout)

    def _report(
        self,
        order: HasReservation,
        listing: Listing,
        kind: order_pb.ExecutionKind.ValueType,
        execution_id: int,
        time_ns: int | None,
        timeout: float | None,
        *,
        price_ticks: int = 0,
        quantity_lots: int = 0,
        original_execution_id: int = 0,
        fee: Amount = 0,
        fee_asset: str | None = None,
    ) -> Call[ExecutionResult]:
        if original_execution_id:
            whole(original_execution_id, "original_execution_id", 64)
        fee_asset_id = 0
        if fee_asset is None:
            fee_minor = listing.money_minor(fee, "fee")
        else:
            asset = self.catalogue.asset(fee_asset)
            if asset is None:
                raise InvalidInput(f"fee_asset {fee_asset!r} is not an asset of the service")
            fee_asset_id = asset.asset_id
            fee_minor = minor_units(fee, asset.scale, f"fee in {fee_asset}", OffMinorUnit)
        if order.reservation_id == 0:
            raise InvalidInput(f"nothing is reserved by {order!r}: reservation_id is 0")
        identity = whole(execution_id, "execution_id", 64)
        request = order_pb.ReportExecutionRequest(
            gateway_id=self.gateway_id,
            execution_id=identity,
            reservation_id=whole(order.reservation_id, "reservation_id", 64),
            kind=kind,
            price_ticks=price_ticks,
            quantity_lots=quantity_lots,
            fee_minor=fee_minor,
            venue_time_ns=0 if time_ns is None else whole(time_ns, "time_ns", 64),
            instrument_id=listing.instrument.instrument_id,
            original_execution_id=original_execution_id,
            fee_asset_id=fee_asset_id,
        )
        return Call(
            REPORT_EXECUTION,
            request,
            lambda reply: read_execution(reply, listing, identity, self.catalogue.scale_of),
            timeout,
            advice=f"repeat the same report with execution_id={identity}",
            execution_id=identity,
        )

    def get_reservation(
        self,
        *,
        client_order_id: int | None = None,
        reservation_id: int | None = None,
        timeout: float | None = None,
    ) -> Call[Reservation]:
        """Say where an order stands, by this gateway's client_order_id or by reservation_id.

        UNKNOWN right after a timeout is no
        proof: the order may still arrive. Repeating it with the same client_order_id is.
        """
        if (client_order_id is None) == (reservation_id is None):
            raise InvalidInput("give either client_order_id or reservation_id")
        if client_order_id is not None:
            request = order_pb.GetReservationRequest(
                gateway_id=self.gateway_id,
                client_order_id=whole(client_order_id, "client_order_id", 64),
            )
        else:
            assert reservation_id is not None
            request = order_pb.GetReservationRequest(
                reservation_id=whole(reservation_id, "reservation_id", 64)
            )

        def read(reply: order_pb.GetReservationResponse) -> Reservation:
            listing = None
            if reply.instrument_id:
                listing = self.catalogue.listing_of(reply.instrument_id)
                # An order on an instrument that does not exist is remembered, too.
                is_listed = reply.first_answer.reason != types_pb.REASON_CODE_INSTRUMENT_UNKNOWN
                if listing is None and is_listed:
                    raise CatalogueIncompleteError(f"no instrument {reply.instrument_id} in it")
            answer = None
            if listing and client_order_id is not None and reply.HasField("first_answer"):
                answer = read_decision(
                    reply.first_answer, listing, client_order_id, self.catalogue.scale_of
                )
            return Reservation(
                state=ReservationState(reply.state),
                revision=reply.revision,
                reservation_id=reply.reservation_id,
                symbol=listing.instrument.symbol if listing else "",
                account_id=reply.account_id,
                side=Side(reply.side),
                price=listing.price(reply.price_ticks) if listing and reply.price_ticks else None,
                quantity=listing.quantity(reply.quantity_lots) if listing else _ZERO,
                remaining=listing.quantity(reply.remaining_lots) if listing else _ZERO,
                first_answer=answer,
            )

        return Call(GET_RESERVATION, request, read, timeout)

    # Marks.

    def report_marks(
        self, marks: Mapping[str, Amount | Mark], *, timeout: float | None = None
    ) -> Call[MarksResult]:
        """Report mark prices by symbol, 1 to 1024; a Mark also carries a time and option inputs.

        A mark that the service refuses is in the result's refusals; the others count.
        """
        if not 1 <= len(marks) <= MARKS_MAX:
            raise OutOfRange(f"marks holds {len(marks)}, not 1 to {MARKS_MAX}")
        now_ns = self.clock()
        symbols = list(marks)
        request = market_pb.ReportMarksRequest(
            marks=[self._mark_message(symbol, marks[symbol], now_ns) for symbol in symbols]
        )

        def read(reply: market_pb.ReportMarksResponse) -> MarksResult:
            refusals = {symbols[row.index]: Reason(row.reason) for row in reply.refusals}
            return MarksResult(reply.revision, reply.taken_count, refusals)

        advice = "report the marks again; an older one is refused"
        return Call(REPORT_MARKS, request, read, timeout, advice=advice)

    def _mark_message(self, symbol: str, value: Amount | Mark, now_ns: int) -> market_pb.Mark:
        listing = self.catalogue.listing(symbol)
        mark = value if isinstance(value, Mark) else Mark(value)
        message = market_pb.Mark(
            instrument_id=listing.instrument.instrument_id,
            mark_price=listing.mark_units(mark.price),
            time_ns=now_ns if mark.time_ns is None else whole(mark.time_ns, "time_ns", 64),
        )
        if mark.implied_volatility is not None:
            volatility = exact(mark.implied_volatility, "implied_volatility")
            if not 0 < volatility <= 10:
                raise OutOfRange(f"implied_volatility {volatility:f} is not above 0, up to 10")
            message.implied_volatility_ppb = minor_units(
                volatility, 9, "implied_volatility", OffStep
            )
        if mark.forward is not None:
            quoted = self._quoted(listing)
            message.forward_price = quoted.mark_units(mark.forward, "forward")
        return message

    def _quoted(self, listing: Listing) -> Listing:
        """Return the instrument in whose mark units a forward is: for coin the underlying."""
        if listing.instrument.kind is not InstrumentKind.INVERSE_OPTION:
            return listing
        return self._listing_of(listing.instrument.underlying_instrument_id)

    def report_open_interest(
        self, symbol: str, open_interest: Amount, *, timeout: float | None = None
    ) -> Call[int]:
        """Tell the open interest in units of the underlying, 0 if it is not known.

        Return the revision.
        """
        request = market_pb.ReportOpenInterestRequest(
            instrument_id=self._instrument_id(symbol),
            open_interest=text(open_interest, "open_interest"),
        )
        return Call(REPORT_OPEN_INTEREST, request, lambda reply: int(reply.revision), timeout)

    def get_mark(self, symbol: str, *, timeout: float | None = None) -> Call[HeldMark | None]:
        """Return the mark that decisions use now, or None if none was reported."""
        listing = self.catalogue.listing(symbol)
        request = market_pb.GetMarkRequest(instrument_id=listing.instrument.instrument_id)

        def read(reply: market_pb.GetMarkResponse) -> HeldMark | None:
            if not reply.HasField("mark"):
                return None
            mark = reply.mark
            volatility = mark.implied_volatility_ppb
            return HeldMark(
                symbol=symbol,
                price=listing.mark_price(mark.mark_price),
                time_ns=mark.time_ns,
                implied_volatility=money(volatility, 9) if volatility else None,
                forward=(
                    self._quoted(listing).mark_price(mark.forward_price)
                    if mark.forward_price
                    else None
                ),
                revision=reply.revision,
            )

        return Call(GET_MARK, request, read, timeout)

    # Accounts.

    def create_account(
        self,
        account: int,
        settlement_asset: str,
        *,
        default_margin_mode: MarginMode | str = MarginMode.CROSS,
        default_leverage: Amount | None = None,
        initial_collateral: Amount = 0,
        timeout: float | None = None,
    ) -> Call[Account]:
        """Open an account. default_leverage None is the service's default, 20."""
        mode = _member(MarginMode, default_margin_mode, "default_margin_mode")
        request = account_pb.CreateAccountRequest(
            account_id=whole(account, "account", 64),
            settlement_asset=settlement_asset,
            default_margin_mode=_wire(mode),
            default_leverage=_optional_text(default_leverage, "default_leverage"),
            initial_collateral=text(initial_collateral, "initial_collateral"),
        )
        return Call(
            CREATE_ACCOUNT,
            request,
            lambda reply: _read_account(reply.account, reply.revision),
            timeout,
        )

    def get_account(self, account: int, *, timeout: float | None = None) -> Call[Account]:
        """Return an account. Raises NotFound."""
        request = account_pb.GetAccountRequest(account_id=whole(account, "account", 64))
        return Call(
            GET_ACCOUNT,
            request,
            lambda reply: _read_account(reply.account, reply.revision),
            timeout,
        )

    def list_accounts(self, *, timeout: float | None = None) -> Pages[Account]:
        """Iterate over all accounts in the order of their ids; timeout is for each page."""

        def read(reply: account_pb.ListAccountsResponse) -> Page[Account]:
            rows = tuple(_read_account(row, reply.revision) for row in reply.accounts)
            return Page(rows, reply.next_page_token)

        def call(token: str) -> Call[Page[Account]]:
            request = account_pb.ListAccountsRequest(page_size=PAGE_SIZE, page_token=token)
            return Call(LIST_ACCOUNTS, request, read, timeout)

        return Pages(call)

    def adjust_collateral(
        self,
        account: int,
        asset: str,
        amount: Amount,
        *,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[CollateralResult]:
        """Deposit (positive) to or withdraw (negative) from the pool of an account.

        Of another asset than the settlement asset it changes the balance. validate_only shows the
        result and changes nothing. It carries no identity: after OutcomeUnknown read the account
        before repeating it.
        """
        request = account_pb.AdjustCollateralRequest(
            account_id=whole(account, "account", 64),
            asset=asset,
            amount=text(amount, "amount"),
            validate_only=validate_only,
        )
        return Call(
            ADJUST_COLLATERAL,
            request,
            lambda reply: CollateralResult(
                _read_account(reply.account, reply.revision),
                _optional(reply.available),
                reply.revision,
            ),
            timeout,
        )

    def transfer_margin(
        self,
        account: int,
        symbol: str,
        amount: Amount,
        *,
        position_side: PositionSide | str = PositionSide.UNSPECIFIED,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[WalletResult]:
        """Add to (positive) or take from (negative) the wallet of an isolated position.

        validate_only shows the result and changes nothing. It carries no identity: after
        OutcomeUnknown read the position before repeating it.
        """
        request = account_pb.TransferMarginRequest(
            account_id=whole(account, "account", 64),
            instrument_id=self._instrument_id(symbol),
            amount=text(amount, "amount"),
            validate_only=validate_only,
            position_side=_wire(_member(PositionSide, position_side, "position_side")),
        )
        return Call(TRANSFER_MARGIN, request, _read_wallet, timeout)

    def change_margin_mode(
        self,
        account: int,
        symbol: str,
        margin_mode: MarginMode | str,
        *,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[WalletResult]:
        """Change the margin mode of an instrument's positions; one that is open takes its margin.

        validate_only shows the cash flow and changes nothing.
        """
        request = account_pb.ChangeMarginModeRequest(
            account_id=whole(account, "account", 64),
            instrument_id=self._instrument_id(symbol),
            margin_mode=_wire(_member(MarginMode, margin_mode, "margin_mode")),
            validate_only=validate_only,
        )
        return Call(CHANGE_MARGIN_MODE, request, _read_wallet, timeout)

    def set_leverage(
        self,
        account: int,
        symbol: str,
        leverage: Amount,
        *,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[LeverageResult]:
        """Set the leverage of a position, in steps of 0.01."""
        request = account_pb.SetLeverageRequest(
            account_id=whole(account, "account", 64),
            instrument_id=self._instrument_id(symbol),
            leverage=text(leverage, "leverage"),
            validate_only=validate_only,
        )
        return Call(
            SET_LEVERAGE,
            request,
            lambda reply: LeverageResult(
                _number(reply.leverage), _optional(reply.available), reply.revision
            ),
            timeout,
        )

    def change_position_mode(
        self, account: int, position_mode: PositionMode | str, *, timeout: float | None = None
    ) -> Call[Account]:
        """Change between one position an instrument and two; the account must be flat."""
        request = account_pb.ChangePositionModeRequest(
            account_id=whole(account, "account", 64),
            position_mode=_wire(_member(PositionMode, position_mode, "position_mode")),
        )
        return Call(
            CHANGE_POSITION_MODE,
            request,
            lambda reply: _read_account(reply.account, reply.revision),
            timeout,
        )

    def set_account_owner(
        self,
        account: int,
        *,
        firm: int | None = None,
        parent: int | None = None,
        timeout: float | None = None,
    ) -> Call[Account]:
        """Set the firm and the parent account of an account that is flat; None is none."""
        request = account_pb.SetAccountOwnerRequest(
            account_id=whole(account, "account", 64),
            firm_id=0 if firm is None else whole(firm, "firm", 32),
            parent_account_id=0 if parent is None else whole(parent, "parent", 64),
        )
        return Call(
            SET_ACCOUNT_OWNER,
            request,
            lambda reply: _read_account(reply.account, reply.revision),
            timeout,
        )

    def create_firm(
        self, firm: int, settlement_asset: str, *, timeout: float | None = None
    ) -> Call[Firm]:
        """Create a firm."""
        request = account_pb.CreateFirmRequest(
            firm_id=whole(firm, "firm", 32), settlement_asset=settlement_asset
        )
        return Call(
            CREATE_FIRM, request, lambda reply: _read_firm(reply.firm, reply.revision), timeout
        )

    def list_firms(self, *, timeout: float | None = None) -> Pages[Firm]:
        """Iterate over all firms in the order of their ids; timeout is for each page."""

        def read(reply: account_pb.ListFirmsResponse) -> Page[Firm]:
            rows = tuple(_read_firm(row, reply.revision) for row in reply.firms)
            return Page(rows, reply.next_page_token)

        def call(token: str) -> Call[Page[Firm]]:
            request = account_pb.ListFirmsRequest(page_size=PAGE_SIZE, page_token=token)
            return Call(LIST_FIRMS, request, read, timeout)

        return Pages(call)

    def load_position(
        self,
        account: int,
        symbol: str,
        quantity: Amount,
        entry_value: Amount,
        *,
        isolated_wallet: Amount | None = None,
        position_side: PositionSide | str = PositionSide.UNSPECIFIED,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[LoadResult]:
        """Take over a position that exists elsewhere already; no margin is checked.

        quantity is signed, isolated_wallet is new money.
        """
        request = account_pb.LoadPositionRequest(
            account_id=whole(account, "account", 64),
            instrument_id=self._instrument_id(symbol),
            position_side=_wire(_member(PositionSide, position_side, "position_side")),
            quantity=text(quantity, "quantity"),
            entry_value=text(entry_value, "entry_value"),
            isolated_wallet=_optional_text(isolated_wallet, "isolated_wallet"),
            validate_only=validate_only,
        )
        return Call(
            LOAD_POSITION,
            request,
            lambda reply: LoadResult(_optional(reply.available), reply.revision),
            timeout,
        )

    def set_credit_line(
        self,
        owner: Scope,
        amount: Amount,
        *,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[CreditLine]:
        """Set the credit of an account or of a firm's accounts together; 0 is none."""
        scope, scope_id = _limit_owner(owner)
        request = account_pb.SetCreditLineRequest(
            amount=text(amount, "amount"), validate_only=validate_only
        )
        if scope == types_pb.LIMIT_SCOPE_ACCOUNT:
            request.account_id = scope_id
        elif scope == types_pb.LIMIT_SCOPE_FIRM:
            request.firm_id = scope_id
        else:
            raise InvalidInput("a credit line is of an account or a firm")
        return Call(
            SET_CREDIT_LINE,
            request,
            lambda reply: CreditLine(_number(reply.amount), _number(reply.used), reply.revision),
            timeout,
        )

    # Instruments.

    def create_asset(self, symbol: str, scale: int, *, timeout: float | None = None) -> Call[Asset]:
        """Create an asset whose minor unit is 10^-scale, scale 0 to 12."""
        if isinstance(scale, bool) or not isinstance(scale, int):
            raise TypeError(f"scale is {scale!r} ({type(scale).__name__}), not an int")
        if not 0 <= scale <= 12:
            raise OutOfRange(f"scale {scale} is not within 0 to 12")
        request = instrument_pb.CreateAssetRequest(symbol=symbol, scale=scale)
        return Call(
            CREATE_ASSET,
            request,
            lambda reply: self.catalogue.add_asset(_read_asset(reply.asset)),
            timeout,
        )

    def list_assets(self, *, timeout: float | None = None) -> Call[tuple[Asset, ...]]:
        """Return all assets in the order of their ids."""
        return Call(
            LIST_ASSETS,
            instrument_pb.ListAssetsRequest(),
            lambda reply: tuple(_read_asset(row) for row in reply.assets),
            timeout,
        )

    def upsert_instrument(
        self, instrument: Instrument, *, timeout: float | None = None
    ) -> Call[Instrument]:
        """Create an instrument, or change limits, fees, schedule or state of the one so named.

        trading_state UNSPECIFIED keeps the one in force. Start a change from what is there, but not
        from its state, which the catalogue may have from before a halt:
        `dataclasses.replace(client.catalogue.instrument("BTC-PERP"), order_quantity_max=...,
        trading_state=TradingState.UNSPECIFIED)`.
        """
        request = instrument_pb.UpsertInstrumentRequest(instrument=_instrument_message(instrument))
        return Call(
            UPSERT_INSTRUMENT,
            request,
            lambda reply: self.catalogue.add_instrument(read_instrument(reply.instrument)),
            timeout,
        )

    def list_instruments(self, *, timeout: float | None = None) -> Pages[Instrument]:
        """Iterate over all instruments in the order of their ids; timeout is for each page."""

        def read(reply: instrument_pb.ListInstrumentsResponse) -> Page[Instrument]:
            return Page(tuple(map(read_instrument, reply.instruments)), reply.next_page_token)

        def call(token: str) -> Call[Page[Instrument]]:
            request = instrument_pb.ListInstrumentsRequest(page_size=PAGE_SIZE, page_token=token)
            return Call(LIST_INSTRUMENTS, request, read, timeout)

        return Pages(call)

    def upsert_margin_schedule(
        self, schedule: MarginSchedule, *, timeout: float | None = None
    ) -> Call[MarginSchedule]:
        """Create a margin schedule, or replace the tiers of the one so named."""
        request = instrument_pb.UpsertMarginScheduleRequest(schedule=_schedule_message(schedule))
        return Call(
            UPSERT_MARGIN_SCHEDULE, request, lambda reply: _read_schedule(reply.schedule), timeout
        )

    def list_margin_schedules(self, *, timeout: float | None = None) -> Pages[MarginSchedule]:
        """Iterate over all margin schedules in the order of their ids; timeout is for each page."""

        def read(reply: instrument_pb.ListMarginSchedulesResponse) -> Page[MarginSchedule]:
            return Page(tuple(map(_read_schedule, reply.schedules)), reply.next_page_token)

        def call(token: str) -> Call[Page[MarginSchedule]]:
            request = instrument_pb.ListMarginSchedulesRequest(
                page_size=PAGE_SIZE, page_token=token
            )
            return Call(LIST_MARGIN_SCHEDULES, request, read, timeout)

        return Pages(call)

    def upsert_option_rule(
        self, rule: OptionRule, *, timeout: float | None = None
    ) -> Call[OptionRule]:
        """Create a rule for short options, or replace the rates of the one so named."""
        request = instrument_pb.UpsertOptionRuleRequest(
            rule=instrument_pb.OptionRule(
                name=rule.name,
                settlement_asset=rule.settlement_asset,
                initial_rate=text(rule.initial_rate, "initial_rate"),
                initial_rate_min=text(rule.initial_rate_min, "initial_rate_min"),
                maintenance_rate=text(rule.maintenance_rate, "maintenance_rate"),
                put_maintenance_on_mark=rule.put_maintenance_on_mark,
                call_maintenance_on_mark=rule.call_maintenance_on_mark,
                put_initial_over_maintenance=text(
                    rule.put_initial_over_maintenance, "put_initial_over_maintenance"
                ),
                order_initial_rate_min=text(rule.order_initial_rate_min, "order_initial_rate_min"),
            )
        )
        return Call(
            UPSERT_OPTION_RULE, request, lambda reply: _read_option_rule(reply.rule), timeout
        )

    def list_option_rules(self, *, timeout: float | None = None) -> Call[tuple[OptionRule, ...]]:
        """Return the rules for short options in the order of their ids."""
        return Call(
            LIST_OPTION_RULES,
            instrument_pb.ListOptionRulesRequest(),
            lambda reply: tuple(map(_read_option_rule, reply.rules)),
            timeout,
        )

    def define_collateral(
        self,
        collateral: Collateral,
        *,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[Collateral]:
        """Say what an asset counts as collateral: replaces what was said before."""
        index_id = self._instrument_id(collateral.index)
        request = instrument_pb.DefineCollateralRequest(
            collateral=_collateral_message(collateral, index_id), validate_only=validate_only
        )
        return Call(
            DEFINE_COLLATERAL,
            request,
            lambda reply: self._read_collateral(reply.collateral),
            timeout,
        )

    def list_collateral(self, *, timeout: float | None = None) -> Call[tuple[Collateral, ...]]:
        """Return what counts as collateral, by settlement asset, then asset."""
        return Call(
            LIST_COLLATERAL,
            instrument_pb.ListCollateralRequest(),
            lambda reply: tuple(map(self._read_collateral, reply.collateral)),
            timeout,
        )

    def _read_collateral(self, message: instrument_pb.Collateral) -> Collateral:
        return Collateral(
            asset=message.asset,
            settlement_asset=message.settlement_asset,
            index=self._listing_of(message.index_instrument_id).instrument.symbol,
            tiers=tuple(
                CollateralTier(_number(tier.floor), _number(tier.weight)) for tier in message.tiers
            ),
            cap=_optional(message.cap),
            liability_weight=_number(message.liability_weight),
            interest_free=_number(message.interest_free),
            forced_conversion=_number(message.forced_conversion),
            wrong_way_rate=_number(message.wrong_way_rate),
        )

    def apply_funding(
        self,
        symbol: str,
        rate: Amount,
        time_ns: int,
        *,
        price: Amount | None = None,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[FundingResult]:
        """Let longs pay shorts a rate of the notional at the price, or at the mark without one.

        time_ns (since 1970) is that of the funding: one that is not above the last is refused, so
        that a repeat after OutcomeUnknown does nothing twice.
        """
        request = instrument_pb.ApplyFundingRequest(
            instrument_id=self._instrument_id(symbol),
            rate=text(rate, "rate"),
            price=_optional_text(price, "price"),
            time_ns=whole(time_ns, "time_ns", 64),
            validate_only=validate_only,
        )
        return Call(
            APPLY_FUNDING,
            request,
            lambda reply: FundingResult(
                reply.position_count,
                _number(reply.paid),
                _number(reply.received),
                reply.revision,
            ),
            timeout,
            advice="repeat it with the same time: one that was done is refused",
        )

    def settle_instrument(
        self,
        symbol: str,
        price: Amount,
        *,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[SettlementResult]:
        """Close every position of an instrument that has expired or is halted, for good.

        price is that of the contract, of an option that of its underlying.
        """
        request = instrument_pb.SettleInstrumentRequest(
            instrument_id=self._instrument_id(symbol),
            price=text(price, "price"),
            validate_only=validate_only,
        )
        return Call(
            SETTLE_INSTRUMENT,
            request,
            lambda reply: SettlementResult(
                position_count=reply.position_count,
                released_order_count=reply.released_order_count,
                profit=_number(reply.profit),
                loss=_number(reply.loss),
                deficit=_number(reply.deficit),
                revision=reply.revision,
            ),
            timeout,
            advice="repeat it: one that was done is refused",
        )

    # Margin.

    def simulate_portfolio(
        self,
        account: int | None = None,
        *,
        settlement_asset: str = "",
        balances: Mapping[str, Amount] | None = None,
        positions: Sequence[SimulatedPosition] = (),
        orders: Sequence[SimulatedOrder] = (),
        marks: Mapping[str, Amount | Mark] | None = None,
        schedules: Sequence[MarginSchedule] = (),
        margin_mode: MarginMode | str = MarginMode.UNSPECIFIED,
        position_mode: PositionMode | str = PositionMode.UNSPECIFIED,
        timeout: float | None = None,
    ) -> Call[Portfolio]:
        """Return the margin of a portfolio that need not exist; nothing of the service changes.

        It starts from an account, or from an empty one in settlement_asset with margin_mode and
        position_mode. balances, positions, marks and schedules take the place of those that are
        there; orders are decided in their order.
        """
        request = margin_pb.SimulatePortfolioRequest(
            account_id=0 if account is None else whole(account, "account", 64),
            settlement_asset=settlement_asset,
            balances=[
                margin_pb.SimulatedBalance(asset=asset, amount=text(amount, f"balance {asset}"))
                for asset, amount in (balances or {}).items()
            ],
            positions=[self._simulated_position(each) for each in positions],
            orders=[self._simulated_order(each) for each in orders],
            marks=[self._simulated_mark(*each) for each in (marks or {}).items()],
            schedules=[_schedule_message(each) for each in schedules],
            margin_mode=_wire(_member(MarginMode, margin_mode, "margin_mode")),
            position_mode=_wire(_member(PositionMode, position_mode, "position_mode")),
        )
        return Call(SIMULATE_PORTFOLIO, request, _read_portfolio, timeout)

    def _simulated_position(self, position: SimulatedPosition) -> margin_pb.SimulatedPosition:
        return margin_pb.SimulatedPosition(
            instrument_id=self._instrument_id(position.symbol),
            quantity=text(position.quantity, "quantity"),
            entry_price=_optional_text(position.entry_price, "entry_price"),
            entry_value=_optional_text(position.entry_value, "entry_value"),
            margin_mode=_wire(_member(MarginMode, position.margin_mode, "margin_mode")),
            isolated_wallet=_optional_text(position.isolated_wallet, "isolated_wallet"),
            leverage=_optional_text(position.leverage, "leverage"),
            position_side=_wire(_member(PositionSide, position.position_side, "position_side")),
        )

    def _simulated_order(self, order: SimulatedOrder) -> margin_pb.SimulatedOrder:
        is_market = order.price is None
        return margin_pb.SimulatedOrder(
            instrument_id=self._instrument_id(order.symbol),
            side=_wire(_member(Side, order.side, "side")),
            price=_optional_text(order.price, "price"),
            quantity=text(order.quantity, "quantity"),
            position_side=_wire(_member(PositionSide, order.position_side, "position_side")),
            order_type=types_pb.ORDER_TYPE_MARKET if is_market else types_pb.ORDER_TYPE_LIMIT,
        )

    def _simulated_mark(self, symbol: str, value: Amount | Mark) -> margin_pb.SimulatedMark:
        mark = value if isinstance(value, Mark) else Mark(value)
        if mark.time_ns is not None:
            raise InvalidInput(f"time_ns of the mark of {symbol} is given: a what-if is of now")
        return margin_pb.SimulatedMark(
            instrument_id=self._instrument_id(symbol),
            mark_price=text(mark.price, f"mark of {symbol}"),
            implied_volatility=_optional_text(mark.implied_volatility, "implied_volatility"),
            forward=_optional_text(mark.forward, "forward"),
        )

    def set_margin_levels(
        self,
        search: Amount,
        release: Amount,
        *,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Call[int]:
        """Set where the search and release levels lie, as multiples of the requirement.

        Both 0: no levels. Return the revision.
        """
        request = margin_pb.SetMarginLevelsRequest(
            search=text(search, "search"),
            release=text(release, "release"),
            validate_only=validate_only,
        )
        return Call(SET_MARGIN_LEVELS, request, lambda reply: int(reply.revision), timeout)

    def watch_risk_events(
        self, account: int | None = None, *, after_revision: int = 0
    ) -> Watch[RiskEvents]:
        """Iterate over changes of margin levels as they happen, for ever.

        The first item tells those that are kept after after_revision, be it none. When the service
        is not available the stream is opened again, and goes on where it was. account None is all.
        """
        account_id = 0 if account is None else whole(account, "account", 64)

        def call(revision: int) -> Call[RiskEvents]:
            request = margin_pb.WatchRiskEventsRequest(
                after_revision=revision, account_id=account_id
            )
            return Call(WATCH_RISK_EVENTS, request, _read_risk_events, None)

        start = whole(after_revision, "after_revision", 64, minimum=0)
        return Watch(call, start, lambda events: events.revision)

    def margin_summary(self, account: int, *, timeout: float | None = None) -> Call[MarginSummary]:
        """Return the sums of an account."""
        request = margin_pb.GetMarginSummaryRequest(account_id=whole(account, "account", 64))
        return Call(
            GET_MARGIN_SUMMARY,
            request,
            lambda reply: _read_summary(reply.summary, reply.revision),
            timeout,
        )

    def position_margins(
        self, account: int, *, timeout: float | None = None
    ) -> Call[tuple[PositionMargin, ...]]:
        """Return the positions of an account with their margin, in the order of instrument ids."""
        request = margin_pb.ListPositionMarginsRequest(account_id=whole(account, "account", 64))
        return Call(
            LIST_POSITION_MARGINS,
            request,
            lambda reply: tuple(_read_position(row, reply.revision) for row in reply.positions),
            timeout,
        )

    def liquidation_price(
        self,
        account: int,
        symbol: str,
        *,
        position_side: PositionSide | str = PositionSide.UNSPECIFIED,
        timeout: float | None = None,
    ) -> Call[LiquidationPrice]:
        """Return liquidation and bankruptcy price of a position, to one mark unit."""
        request = margin_pb.ComputeLiquidationPriceRequest(
            account_id=whole(account, "account", 64),
            instrument_id=self._instrument_id(symbol),
            position_side=_wire(_member(PositionSide, position_side, "position_side")),
        )
        return Call(
            COMPUTE_LIQUIDATION_PRICE,
            request,
            lambda reply: LiquidationPrice(
                LiquidationStatus(reply.liquidation_status),
                _optional(reply.liquidation_price),
                _optional(reply.bankruptcy_price),
                reply.revision,
            ),
            timeout,
        )

    def max_order_size(
        self,
        account: int,
        symbol: str,
        side: Side | str,
        price: Amount | None = None,
        *,
        position_side: PositionSide | str = PositionSide.UNSPECIFIED,
        timeout: float | None = None,
    ) -> Call[MaxOrderSize]:
        """Return the largest order that would be accepted; without a price, of a market order."""
        listing = self.catalogue.listing(symbol)
        is_market = price is None
        if price is not None:
            listing.price_ticks(price)
        request = margin_pb.ComputeMaxOrderSizeRequest(
            account_id=whole(account, "account", 64),
            instrument_id=listing.instrument.instrument_id,
            side=_wire(_member(Side, side, "side")),
            order_type=types_pb.ORDER_TYPE_MARKET if is_market else types_pb.ORDER_TYPE_LIMIT,
            price=_optional_text(price, "price"),
            position_side=_wire(_member(PositionSide, position_side, "position_side")),
        )
        return Call(
            COMPUTE_MAX_ORDER_SIZE,
            request,
            lambda reply: MaxOrderSize(
                _number(reply.quantity), Reason(reply.limiting_reason), reply.revision
            ),
            timeout,
        )

    def greeks(
        self,
        option_type: OptionType | str,
        *,
        forward: float,
        strike: float,
        volatility: float,
        time_years: float,
        interest_rate: float = 0.0,
        timeout: float | None = None,
    ) -> Call[ModelGreeks]:
        """Return Black-76 price and Greeks of a long option of 1 underlying.

        volatility is for one year (0.65), interest_rate continuously compounded. A model, not
        money: floats are taken here.
        """
        request = margin_pb.ComputeGreeksRequest(
            option_type=_wire(_member(OptionType, option_type, "option_type")),
            forward=forward,
            strike=strike,
            volatility=volatility,
            time_years=time_years,
            interest_rate=interest_rate,
        )
        return Call(
            COMPUTE_GREEKS,
            request,
            lambda reply: ModelGreeks(
                price=reply.price,
                delta=reply.delta,
                gamma=reply.gamma,
                vega_per_vol_point=reply.vega_per_vol_point,
                theta_per_day=reply.theta_per_day,
                rho_per_point=reply.rho_per_point,
                revision=reply.revision,
            ),
            timeout,
        )

    # Control.

    def engage_kill_switch(
        self, scope: Scope, *, comment: str = "", timeout: float | None = None
    ) -> Call[KillSwitchResult]:
        """Halt a scope at once: no order of it is accepted any more, not even a reducing one.

        The result lists its working reservations, which are to be cancelled at the venue.
        """
        request = control_pb.EngageKillSwitchRequest(
            scope=self._scope_message(scope), comment=_comment(comment)
        )
        return Call(
            ENGAGE_KILL_SWITCH,
            request,
            lambda reply: KillSwitchResult(
                TradingState(reply.trading_state),
                tuple(reply.reservation_ids),
                reply.truncated,
                reply.revision,
            ),
            timeout,
            advice="engage it again",
        )

    def release_kill_switch(
        self,
        scope: Scope,
        trading_state: TradingState | str = TradingState.NORMAL,
        *,
        comment: str = "",
        timeout: float | None = None,
    ) -> Call[StateResult]:
        """End a halt: the scope goes to NORMAL or REDUCE_ONLY."""
        request = control_pb.ReleaseKillSwitchRequest(
            scope=self._scope_message(scope),
            trading_state=_wire(_member(TradingState, trading_state, "trading_state")),
            comment=_comment(comment),
        )
        return Call(RELEASE_KILL_SWITCH, request, _read_state, timeout)

    def change_trading_state(
        self,
        scope: Scope,
        trading_state: TradingState | str,
        *,
        comment: str = "",
        timeout: float | None = None,
    ) -> Call[StateResult]:
        """Set the trading state of a scope."""
        request = control_pb.ChangeTradingStateRequest(
            scope=self._scope_message(scope),
            trading_state=_wire(_member(TradingState, trading_state, "trading_state")),
            comment=_comment(comment),
        )
        return Call(CHANGE_TRADING_STATE, request, _read_state, timeout)

    def list_trading_states(self, *, timeout: float | None = None) -> Call[tuple[ScopeState, ...]]:
        """Return every scope that is not in state NORMAL."""

        def read(reply: control_pb.ListTradingStatesResponse) -> tuple[ScopeState, ...]:
            return tuple(
                ScopeState(self._read_scope(row.scope), TradingState(row.trading_state))
                for row in reply.states
            )

        return Call(LIST_TRADING_STATES, control_pb.ListTradingStatesRequest(), read, timeout)

    def renew_gateway_lease(
        self,
        duration_ms: int,
        action: LeaseAction | str = LeaseAction.BLOCK,
        *,
        gateway: int | None = None,
        timeout: float | None = None,
    ) -> Call[Lease]:
        """Give this gateway (or another) a lease from now on, or renew it; 0 ends having one.

        At its end orders that do not reduce are refused, and CANCEL releases what works.
        """
        if isinstance(duration_ms, bool) or not isinstance(duration_ms, int):
            raise TypeError(f"duration_ms is {duration_ms!r}, not an int")
        if not 0 <= duration_ms <= LEASE_MS_MAX:
            raise OutOfRange(f"duration_ms {duration_ms} is not within 0 to {LEASE_MS_MAX}")
        request = control_pb.RenewGatewayLeaseRequest(
            gateway_id=self.gateway_id if gateway is None else whole(gateway, "gateway", 32),
            duration_ms=duration_ms,
            action=_wire(_member(LeaseAction, action, "action")),
        )
        return Call(
            RENEW_GATEWAY_LEASE,
            request,
            lambda reply: Lease(reply.lease_end_time_ns, reply.revision),
            timeout,
            advice="renew it again",
        )

    def list_gateways(self, *, timeout: float | None = None) -> Pages[Gateway]:
        """Iterate over the gateways that have a lease or are not NORMAL, by id."""

        def read(reply: control_pb.ListGatewaysResponse) -> Page[Gateway]:
            return Page(tuple(map(_read_gateway, reply.gateways)), reply.next_page_token)

        def call(token: str) -> Call[Page[Gateway]]:
            request = control_pb.ListGatewaysRequest(page_size=PAGE_SIZE, page_token=token)
            return Call(LIST_GATEWAYS, request, read, timeout)

        return Pages(call)

    def cancel_orders(
        self,
        *,
        gateway: int | None = None,
        account: int | None = None,
        symbol: str | None = None,
        side: Side | str = Side.UNSPECIFIED,
        accepted_before_time_ns: int | None = None,
        keep: Iterable[int] = (),
        validate_only: bool = False,
        comment: str = "",
        timeout: float | None = None,
    ) -> Call[CancelResult]:
        """Release the orders that do not work at the venue any more and fit all that is given.

        For after a mass cancel, and for orphans: keep are the reservations (at most 10000) that the
        gateway still knows, accepted_before_time_ns spares those that came since it looked. One of
        gateway, account and symbol is needed. Fills that come late still count.
        """
        if gateway is None and account is None and symbol is None:
            raise InvalidInput("give at least one of gateway, account and symbol")
        kept = [whole(each, "keep", 64) for each in keep]
        if len(kept) > RESERVATIONS_KEPT_MAX:
            raise OutOfRange(f"keep holds {len(kept)}, more than {RESERVATIONS_KEPT_MAX}")
        before = accepted_before_time_ns
        request = control_pb.CancelOrdersRequest(
            gateway_id=0 if gateway is None else whole(gateway, "gateway", 32),
            account_id=0 if account is None else whole(account, "account", 64),
            instrument_id=0 if symbol is None else self._instrument_id(symbol),
            side=_wire(_member(Side, side, "side")),
            accepted_before_time_ns=0
            if before is None
            else whole(before, "accepted_before_time_ns", 64),
            keep_reservation_ids=kept,
            validate_only=validate_only,
            comment=_comment(comment),
        )
        return Call(
            CANCEL_ORDERS,
            request,
            lambda reply: CancelResult(reply.count, tuple(reply.reservation_ids), reply.revision),
            timeout,
        )

    # Limits.

    def set_limit(
        self,
        scope: Scope,
        kind: LimitKind | str,
        value: Amount | None = None,
        *,
        symbol: str | None = None,
        burst: int = 0,
        action: LimitAction | str = LimitAction.HARD,
        comment: str = "",
        timeout: float | None = None,
    ) -> Call[LimitResult]:
        """Set a limit of an account, firm or gateway, or change it, which ends its raise.

        Limit says what value counts; None is for DENIED and ALLOWED. symbol None counts all
        instruments. The rates also have a burst, 1 to 1000000.
        """
        request = limit_pb.SetLimitRequest(
            key=self._limit_key(scope, kind, symbol),
            value=_optional_text(value, "value"),
            burst=whole(burst, "burst", 32) if burst else 0,
            action=_wire(_member(LimitAction, action, "action")),
            comment=_comment(comment),
        )
        return Call(SET_LIMIT, request, self._read_limit_result, timeout)

    def raise_limit(
        self,
        scope: Scope,
        kind: LimitKind | str,
        value: Amount,
        until_time_ns: int,
        *,
        symbol: str | None = None,
        comment: str = "",
        timeout: float | None = None,
    ) -> Call[LimitResult]:
        """Let a looser value count until a time, at most 7 days from now."""
        request = limit_pb.RaiseLimitRequest(
            key=self._limit_key(scope, kind, symbol),
            value=text(value, "value"),
            until_time_ns=whole(until_time_ns, "until_time_ns", 64),
            comment=_comment(comment),
        )
        return Call(RAISE_LIMIT, request, self._read_limit_result, timeout)

    def remove_limit(
        self,
        scope: Scope,
        kind: LimitKind | str,
        *,
        symbol: str | None = None,
        comment: str = "",
        timeout: float | None = None,
    ) -> Call[int]:
        """Remove a limit; return the revision."""
        request = limit_pb.RemoveLimitRequest(
            key=self._limit_key(scope, kind, symbol), comment=_comment(comment)
        )
        return Call(REMOVE_LIMIT, request, lambda reply: int(reply.revision), timeout)

    def reset_limit_usage(
        self,
        scope: Scope,
        kind: LimitKind | str,
        *,
        comment: str = "",
        timeout: float | None = None,
    ) -> Call[LimitResult]:
        """Start an EXECUTION_RATE_MAX or a DRAWDOWN_MAX anew."""
        request = limit_pb.ResetLimitUsageRequest(
            key=self._limit_key(scope, kind, None), comment=_comment(comment)
        )
        return Call(RESET_LIMIT_USAGE, request, self._read_limit_result, timeout)

    def list_limits(
        self, scope: Scope | None = None, *, timeout: float | None = None
    ) -> Pages[Limit]:
        """Iterate over limits with their use: of one account, firm or gateway, or all."""
        wanted = (0, 0) if scope is None else _limit_owner(scope)

        def read(reply: limit_pb.ListLimitsResponse) -> Page[Limit]:
            return Page(tuple(map(self._read_limit, reply.limits)), reply.next_page_token)

        def call(token: str) -> Call[Page[Limit]]:
            request = limit_pb.ListLimitsRequest(
                scope=types_pb.LimitScope.ValueType(wanted[0]),
                scope_id=wanted[1],
                page_size=PAGE_SIZE,
                page_token=token,
            )
            return Call(LIST_LIMITS, request, read, timeout)

        return Pages(call)

    def _limit_key(
        self, scope: Scope, kind: LimitKind | str, symbol: str | None
    ) -> limit_pb.LimitKey:
        owner, owner_id = _limit_owner(scope)
        return limit_pb.LimitKey(
            scope=types_pb.LimitScope.ValueType(owner),
            scope_id=owner_id,
            instrument_id=0 if symbol is None else self._instrument_id(symbol),
            kind=_wire(_member(LimitKind, kind, "kind")),
        )

    def _read_limit_result(
        self,
        reply: limit_pb.SetLimitResponse
        | limit_pb.RaiseLimitResponse
        | limit_pb.ResetLimitUsageResponse,
    ) -> LimitResult:
        return LimitResult(self._read_limit(reply.limit), reply.revision)

    def _read_limit(self, message: limit_pb.Limit) -> Limit:
        key = message.key
        symbol = None
        if key.instrument_id:
            symbol = self._listing_of(key.instrument_id).instrument.symbol
        scope = _limit_scope(key.scope, key.scope_id)
        return Limit(
            scope=Scope("unrecognised") if scope is None else scope,
            kind=LimitKind(key.kind),
            symbol=symbol,
            value=_optional(message.value),
            burst=message.burst,
            action=LimitAction(message.action),
            raised_value=_optional(message.raised_value),
            raised_until_time_ns=message.raised_until_time_ns,
            bound=_optional(message.bound),
            use=_optional(message.use),
            remaining=_optional(message.remaining),
            utilisation=_optional(message.utilisation),
            use_unknown=message.use_unknown,
        )

    # Audit.

    def list_changes(
        self, scope: Scope | None = None, *, timeout: float | None = None
    ) -> Pages[Change]:
        """Iterate over the changes that were made, newest first: those of a scope, or all."""

        def read(reply: audit_pb.ListChangesResponse) -> Page[Change]:
            return Page(tuple(map(_read_change, reply.changes)), reply.next_page_token)

        def call(token: str) -> Call[Page[Change]]:
            request = audit_pb.ListChangesRequest(page_size=PAGE_SIZE, page_token=token)
            if scope is not None:
                request.scope.CopyFrom(self._scope_message(scope))
            return Call(LIST_CHANGES, request, read, timeout)

        return Pages(call)

    def list_denials(self, *, timeout: float | None = None) -> Call[tuple[Denial, ...]]:
        """Return what was denied since the service's start, newest first, to whom and how often."""

        def read(reply: audit_pb.ListDenialsResponse) -> tuple[Denial, ...]:
            return tuple(map(_read_denial, reply.denials))

        return Call(LIST_DENIALS, audit_pb.ListDenialsRequest(), read, timeout)

    def explain_decision(
        self, revision: int, *, timeout: float | None = EXPLAIN_S
    ) -> Call[Explanation]:
        """Decide again what was decided at a revision, on the state of that time.

        The service takes seconds, at most 30, and does one at a time.
        """
        request = audit_pb.ExplainDecisionRequest(revision=whole(revision, "revision", 64))
        return Call(EXPLAIN_DECISION, request, self._read_explanation, timeout)

    def _read_explanation(self, reply: audit_pb.ExplainDecisionResponse) -> Explanation:
        request, again, inputs = reply.request, reply.recomputed, reply.inputs
        named: list[tuple[order_pb.CheckOrderResponse, int, int]] = []
        execution = None
        match again.WhichOneof("reply"):
            case "order":
                order = request.order
                named = [(again.order, order.instrument_id, order.client_order_id)]
            case "batch":
                named = [
                    (decision, order.instrument_id, order.client_order_id)
                    for order, decision in zip(
                        request.batch.orders, again.batch.decisions, strict=True
                    )
                ]
            case "amendment":
                amendment = request.amendment
                named = [(again.amendment.order, reply.instrument_id, amendment.client_order_id)]
            case "execution":
                listing = self._listing_of(reply.instrument_id)
                execution = read_execution(
                    again.execution,
                    listing,
                    request.execution.execution_id,
                    self.catalogue.scale_of,
                )
        return Explanation(
            revision=reply.revision,
            time_ns=reply.time_ns,
            decisions=tuple(
                read_decision(
                    message,
                    self._listing_of(instrument_id),
                    client_order_id,
                    self.catalogue.scale_of,
                )
                for message, instrument_id, client_order_id in named
            ),
            execution=execution,
            equal=reply.equal,
            accounts=tuple(_read_account(row, inputs.revision) for row in inputs.accounts),
            positions=tuple(_read_position(row, inputs.revision) for row in inputs.positions),
            limits=tuple(map(self._read_limit, inputs.limits)),
            schedules=tuple(map(_read_schedule, inputs.schedules)),
            versions={row.name: row.value for row in reply.versions},
            reply_bytes=reply.reply_bytes,
        )

    def _listing_of(self, instrument_id: int) -> Listing:
        listing = self.catalogue.listing_of(instrument_id)
        if listing is None:
            raise CatalogueIncompleteError(f"no instrument {instrument_id} in it")
        return listing

    def _instrument_id(self, symbol: str) -> int:
        return self.catalogue.listing(symbol).instrument.instrument_id

    def _scope_message(self, scope: Scope) -> control_pb.Scope:
        target = scope.target
        if scope.kind == "instrument" and isinstance(target, str):
            return control_pb.Scope(instrument_id=self._instrument_id(target))
        if scope.kind == "service":
            return control_pb.Scope(service=True)
        if isinstance(target, str):
            raise TypeError(f"{scope.kind} is {target!r}, not an int")
        match scope.kind:
            case "gateway":
                return control_pb.Scope(gateway_id=whole(target, "gateway", 32))
            case "account":
                return control_pb.Scope(account_id=whole(target, "account", 64))
            case "instrument":
                return control_pb.Scope(instrument_id=whole(target, "instrument", 32))
            case "firm":
                return control_pb.Scope(firm_id=whole(target, "firm", 32))
        raise InvalidInput(f"no such scope: {scope!r}")

    def _read_scope(self, message: control_pb.Scope) -> Scope:
        match message.WhichOneof("target"):
            case "service":
                return Scope.service()
            case "gateway_id":
                return Scope.gateway(message.gateway_id)
            case "account_id":
                return Scope.account(message.account_id)
            case "firm_id":
                return Scope.firm(message.firm_id)
            case "instrument_id":
                listing = self.catalogue.listing_of(message.instrument_id)
                return Scope.instrument(
                    listing.instrument.symbol if listing else message.instrument_id
                )
            case _:
                return Scope("unrecognised")  # a kind of scope that is newer than this client
