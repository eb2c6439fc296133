"""The slow, obvious twin of the compiled engine: the oracle of the tests.

Written from docs/decision.md and docs/state.md, in their order and words, with exact integers and
fractions, decimals of 90 digits for Black-76, no caches and no code in common with ext/riskd/core.
Every figure is computed anew from accounts, positions and working orders when it is asked for.
"""

import hashlib
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Final, TypeAlias, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from riskd.core.rows import (
    AccountRow,
    AssetRow,
    InstrumentRow,
    MarkRow,
    PositionRow,
    ScheduleRow,
    SummaryRow,
    Tier,
)
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

METHOD_CHECK_ORDER: Final = 1
METHOD_REPORT_EXECUTION: Final = 2
METHOD_GET_RESERVATION: Final = 3
METHOD_REPORT_MARKS: Final = 4
METHOD_CHECK_AMENDMENT: Final = 5

SCOPE_SERVICE: Final = 1
SCOPE_GATEWAY: Final = 2
SCOPE_ACCOUNT: Final = 3
SCOPE_INSTRUMENT: Final = 4

BILLION: Final = 10**9
COUNT_MAX: Final = 2**53
"""Largest price in ticks or mark units, and largest quantity in lots."""
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
ASSETS_MAX: Final = 256
TIERS_MAX: Final = 32
MARKS_MAX: Final = 1024
YEAR_NS: Final = 365 * 86400 * 10**9

PERPETUAL: Final = 1
OPTION: Final = 2
ANSWER_ORDER: Final = 1
ANSWER_EXECUTION: Final = 2
ANSWER_AMENDMENT: Final = 3

AnyMessage = TypeVar("AnyMessage", bound=Message)

Reason: TypeAlias = "t.ReasonCode.ValueType"
Status: TypeAlias = "t.LiquidationStatus.ValueType"
NONE: Final = t.REASON_CODE_NONE


class MalformedRequestError(ValueError):
    """The request's bytes are not a valid message. Nothing changed."""


# --- State ----------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Answer:
    """A remembered reply. content is the request without its time."""

    kind: int
    gateway_id: int
    request_id: int
    content: bytes
    reply: bytes

    @property
    def size_bytes(self) -> int:
        return (128 + len(self.reply) + 15) // 16 * 16


# --- Arithmetic -----------------------------------------------------------------------------------


def ceil_div(numerator: int, denominator: int) -> int:
    """Return numerator / denominator towards plus infinity; the denominator is positive."""
    return -(-numerator // denominator)


def ceil(value: Fraction) -> int:
    return ceil_div(value.numerator, value.denominator)


def floor(value: Fraction) -> int:
    return value.numerator // value.denominator


def fits(*figures: int) -> bool:
    """Return whether every figure is a signed 64-bit integer (M-3)."""
    return all(INT64_MIN <= figure <= INT64_MAX for figure in figures)


def clamp(figure: int) -> int:
    return max(INT64_MIN, min(INT64_MAX, figure))


def sign_of(figure: int) -> int:
    return (figure > 0) - (figure < 0)


# --- Numbers of an instrument ---------------------------------------------------------------------


def tick_value(instrument: InstrumentRow, scale: int) -> Fraction:
    """Return tick_size * lot_size * 10^scale: one lot at one tick, in minor units."""
    exponent = instrument.tick_exponent + instrument.lot_exponent + scale
    return instrument.tick_mantissa * instrument.lot_mantissa * Fraction(10) ** exponent


# --- Margin of a notional -------------------------------------------------------------------------


def tier_index(schedule: ScheduleRow, notional: int | Fraction) -> int:
    """Return the largest k with f_k < N, 0 for N = 0."""
    below = [k for k, tier in enumerate(schedule.tiers) if tier.floor < notional]
    return max(below, default=0)


def tier_of(schedule: ScheduleRow, notional: int | Fraction) -> Tier:
    return schedule.tiers[tier_index(schedule, notional)]


def maintenance(schedule: ScheduleRow, notional: int) -> int:
    tier = tier_of(schedule, notional)
    return ceil_div(tier.maintenance_rate_ppb * notional, BILLION) - tier.deduction


def liquidation_requirement(schedule: ScheduleRow, notional: int) -> int:
    tier = tier_of(schedule, notional)
    rate = tier.maintenance_rate_ppb + schedule.liquidation_fee_ppb
    return ceil_div(rate * notional, BILLION) - tier.deduction


def initial_in_tier(tier: Tier, leverage: int, notional: int) -> int:
    """Return the larger of notional / leverage and the tier's rate of the notional."""
    return max(
        ceil_div(notional * 100, leverage), ceil_div(tier.initial_rate_ppb * notional, BILLION)
    )


def initial(schedule: ScheduleRow, leverage: int, notional: int) -> int:
    return initial_in_tier(tier_of(schedule, notional), leverage, notional)


def notional_max(schedule: ScheduleRow, leverage: int) -> int | None:
    """Return the largest side notional at a leverage; None is no bound.

    A leverage that not even the first tier allows leaves a bound of 0.
    """
    bounds = [tier.floor for tier in schedule.tiers if tier.leverage_max < leverage][:1]
    if schedule.notional_max != 0:
        bounds.append(schedule.notional_max)
    return min(bounds, default=None)


# --- Liquidation and bankruptcy price -------------------------------------------------------------


def can_be_liquidated(
    schedule: ScheduleRow, lots: int, entry_value: int, money: int, notional: Fraction
) -> bool:
    """Return whether w + s (N - V) <= (m_k + phi) N - d_k for the tier k of N, as fractions."""
    tier = tier_of(schedule, notional)
    rate = Fraction(tier.maintenance_rate_ppb + schedule.liquidation_fee_ppb, BILLION)
    return money + sign_of(lots) * (notional - entry_value) <= rate * notional - tier.deduction


def liquidation_price(
    schedule: ScheduleRow, lots: int, entry_value: int, money: int, unit_value: Fraction
) -> int | None:
    """Return the liquidation price in mark units, None if it cannot be liquidated.

    unit_value is v, what one lot is worth at one mark unit; money is w.
    """
    prices = []
    for tier in schedule.tiers:
        rate = tier.maintenance_rate_ppb + schedule.liquidation_fee_ppb
        if lots > 0:
            numerator = (entry_value - money - tier.deduction) * BILLION
            prices.append(numerator / ((BILLION - rate) * lots * unit_value))
        else:
            numerator = (entry_value + money + tier.deduction) * BILLION
            prices.append(numerator / ((BILLION + rate) * -lots * unit_value))
    if lots > 0:
        price = floor(max(prices))
        return None if price < 1 else price
    price = ceil(min(prices))
    return None if price > COUNT_MAX else max(1, price)


def bankruptcy_price(lots: int, entry_value: int, money: int, unit_value: Fraction) -> int | None:
    """Return the price in mark units at which equity is zero, against the account; None if none."""
    if lots > 0:
        price = ceil((entry_value - money) / (lots * unit_value))
    else:
        price = floor((entry_value + money) / (-lots * unit_value))
    return None if price <= 0 else price


def to_ticks(price: int, lots: int, mark_units_per_tick: int) -> int:
    """Round a price in mark units to ticks against the account: a long's up, a short's down."""
    if lots > 0:
        return ceil_div(price, mark_units_per_tick)
    return max(1, price // mark_units_per_tick)


# --- A fill ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fill:
    """A position after a fill, and what the fill moved. The fee is not in it."""

    lots: int
    entry_value: int
    wallet: int
    cash_change: int
    deficit_change: int
    realised: int

    def fits(self, cash: int) -> bool:
        """Return whether all figures, and the cash after it, fit (M-3)."""
        return abs(self.lots) <= COUNT_MAX and fits(
            self.entry_value, self.wallet, self.realised, self.deficit_change, cash
        )


def fill_option(position: Position, sign: int, value_one: int, quantity: int) -> Fill:
    """Fill an option: the premium moves, nothing else. value_one is what one lot costs."""
    reduce, released, realised = close_part(position, sign, value_one, quantity)
    return Fill(
        lots=position.lots + sign * quantity,
        entry_value=position.entry_value - released + value_one * (quantity - reduce),
        wallet=0,
        cash_change=-sign * value_one * quantity,
        deficit_change=0,
        realised=realised,
    )


def close_part(
    position: Position, sign: int, value_one: int, quantity: int
) -> tuple[int, int, int]:
    """Return the lots a fill closes, the entry value it releases and the profit it realises."""
    size = abs(position.lots)
    reduce = min(quantity, size) if sign_of(position.lots) == -sign else 0
    if reduce == 0:
        return 0, 0, 0
    if position.lots > 0:
        released = ceil_div(position.entry_value * reduce, size)
        return reduce, released, value_one * reduce - released
    released = position.entry_value * reduce // size
    return reduce, released, released - value_one * reduce


def fill_perpetual(
    schedule: ScheduleRow,
    leverage: int,
    isolated: bool,
    position: Position,
    sign: int,
    value_one: int,
    quantity: int,
    open_loss: int,
) -> Fill:
    """open_loss is what leaves the order's hold with the fill."""
    reduce, released, realised = close_part(position, sign, value_one, quantity)
    opened = quantity - reduce
    wallet = position.wallet
    cash_change = 0
    deficit_change = 0
    if not isolated:
        cash_change += realised
    elif reduce > 0:
        freed = wallet * reduce // abs(position.lots)
        wallet -= freed
        credit = freed + realised
        if credit >= 0:
            cash_change += credit
        else:
            held_for_closing = open_loss - open_loss * opened // quantity
            covered = min(-credit, held_for_closing)
            cash_change -= covered
            paid = min(wallet, -credit - covered)
            wallet -= paid
            deficit_change = -credit - covered - paid
    entry_value = position.entry_value - released + value_one * opened
    if isolated and opened > 0:
        need = initial_in_tier(tier_of(schedule, entry_value), leverage, value_one * opened)
        need += open_loss * opened // quantity
        cash_change -= need
        wallet += need
    return Fill(
        lots=position.lots + sign * quantity,
        entry_value=entry_value,
        wallet=wallet,
        cash_change=cash_change,
        deficit_change=deficit_change,
        realised=realised,
    )


# --- Working orders of a position -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SideSums:
    """L, A and O of one side of a position."""

    lots: int
    value: int
    open_loss: int

    def plus(self, other: "SideSums") -> "SideSums":
        return SideSums(
            self.lots + other.lots, self.value + other.value, self.open_loss + other.open_loss
        )

    def fits(self) -> bool:
        return self.lots <= COUNT_MAX and fits(self.value, self.open_loss)


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order that does not work yet, as it counts in the sums."""

    instrument_id: int
    sign: int
    sums: SideSums
    margin_price: int


@dataclass(frozen=True, slots=True)
class SideMargin:
    """One side of a perpetual: what opens, and the margin of it."""

    side_notional: int
    order_margin: int
    """max(open_value / leverage, i_k open_value): what an isolated position's orders hold."""
    side_margin: int
    """The same with side_notional: what a cross position with its orders requires."""


def side_margin(
    schedule: ScheduleRow,
    leverage: int,
    lots: int,
    sign: int,
    sums: SideSums,
    held: int,
) -> SideMargin:
    closable = max(0, -sign * lots)
    open_lots = max(0, sums.lots - closable)
    open_value = ceil_div(sums.value * open_lots, sums.lots) if sums.lots else 0
    side_notional = (held if sign * lots > 0 else 0) + open_value
    tier = tier_of(schedule, side_notional)
    return SideMargin(
        side_notional,
        initial_in_tier(tier, leverage, open_value),
        initial_in_tier(tier, leverage, side_notional),
    )


# --- Figures of an account ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AccountFigures:
    cross_pnl: int
    initial_margin: int
    available: int
    maintenance: int
    requirement: int

    def fits(self) -> bool:
        return fits(self.cross_pnl, self.initial_margin, self.available)


@dataclass(frozen=True, slots=True)
class Violation:
    reason: Reason
    limit: int = 0
    use: int = 0
    order_use: int = 0


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
class PositionAfter:
    """A perpetual after the fill of a whole order, at the mark."""

    notional: int
    initial_margin: int
    maintenance: int
    unrealised_pnl: int
    equity: int
    requirement: int
    margin_ratio: int
    bankruptcy_ticks: int
    lots: int
    tier: int

    def fits(self) -> bool:
        return fits(
            self.notional,
            self.initial_margin,
            self.maintenance,
            self.unrealised_pnl,
            self.equity,
            self.bankruptcy_ticks,
        )


DETAILED_VIEWS: Final = (orders_pb.DECISION_VIEW_MARGIN, orders_pb.DECISION_VIEW_FULL)
MAX_QUANTITY_REASONS: Final = (
    t.REASON_CODE_QUANTITY_OUT_OF_RANGE,
    t.REASON_CODE_NOTIONAL_OVERFLOWS,
    t.REASON_CODE_EXCEEDS_ORDER_QUANTITY_MAX,
    t.REASON_CODE_EXCEEDS_ORDER_NOTIONAL_MAX,
    t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX,
    t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE,
    t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED,
    t.REASON_CODE_MARGIN_INSUFFICIENT,
    t.REASON_CODE_BORN_LIQUIDATABLE,
    t.REASON_CODE_MARGIN_OVERFLOWS,
)


class ReferenceEngine:
    """All state of one partition, and every rule of docs/decision.md on it."""

    def __init__(
        self,
        *,
        accounts_max: int = 65536,
        positions_max: int = 65536,
        orders_max: int = 65536,
        instruments_max: int = 1024,
        schedules_max: int = 1024,
        gateways_max: int = 1024,
        answer_bytes: int = 1 << 26,
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
        self._gateway_states: dict[int, int] = {}
        self._answers: list[Answer] = []

    @property
    def revision(self) -> int:
        return self._revision

    # --- The hot door ---

    def handle(self, method: int, request: bytes, now_ns: int) -> bytes:
        """Apply one hot request (its protobuf bytes) and return the reply's bytes."""
        if method == METHOD_CHECK_ORDER:
            return self._check_order(decode_check_order(request), now_ns)
        if method == METHOD_REPORT_EXECUTION:
            return self._report_execution(decode_report_execution(request))
        if method == METHOD_GET_RESERVATION:
            return serialise(self._get_reservation(decode_get_reservation(request)))
        if method == METHOD_REPORT_MARKS:
            return serialise(self._report_marks(decode_report_marks(request), now_ns))
        if method == METHOD_CHECK_AMENDMENT:
            return self._check_amendment(decode_check_amendment(request), now_ns)
        raise ValueError(f"method {method} is not known")

    # --- CheckOrder ---

    def _check_order(self, request: orders_pb.CheckOrderRequest, now_ns: int) -> bytes:
        if request.client_order_id == 0:
            return serialise(self._form_reject(t.REASON_CODE_CLIENT_ORDER_ID_MISSING))
        if request.gateway_id == 0:
            return serialise(self._form_reject(t.REASON_CODE_GATEWAY_ID_MISSING))
        if request.mode == orders_pb.CHECK_MODE_CHECK_ONLY:
            return serialise(self._decide(request, now_ns))
        content = order_content(request)
        answer = self._find_answer(ANSWER_ORDER, request.gateway_id, request.client_order_id)
        if answer is not None:
            if answer.content == content:
                return answer.reply
            return serialise(self._form_reject(t.REASON_CODE_CLIENT_ORDER_ID_REUSED))
        if self._working_order(request.gateway_id, request.client_order_id) is not None:
            return serialise(self._form_reject(t.REASON_CODE_CLIENT_ORDER_ID_REUSED))
        reply = serialise(self._decide(request, now_ns))
        self._remember(
            Answer(ANSWER_ORDER, request.gateway_id, request.client_order_id, content, reply)
        )
        return reply

    def _working_order(self, gateway_id: int, client_order_id: int) -> Order | None:
        """Return the working order with the gateway's own id, also when its answer is forgotten."""
        for order in self._orders.values():
            if (order.gateway_id, order.client_order_id) == (gateway_id, client_order_id):
                return order
        return None

    def _form_reject(self, reason: Reason) -> orders_pb.CheckOrderResponse:
        """Return a reject of steps 1 to 3: it carries no figures of the account."""
        return orders_pb.CheckOrderResponse(
            decision=t.DECISION_REJECTED,
            reason=reason,
            revision=self._revision,
            margin_unknown=True,
        )

    def _reject(self, terms: Terms, reason: Reason) -> orders_pb.CheckOrderResponse:
        """Return a reject of steps 4 to 7."""
        reply = self._form_reject(reason)
        figures = self._account_figures(self._accounts[terms.account_id])
        if figures is not None and figures.fits():
            reply.initial_margin_minor = figures.initial_margin
            reply.available_minor = figures.available
            reply.margin_unknown = False
        return reply

    def _decide(
        self, request: orders_pb.CheckOrderRequest, now_ns: int
    ) -> orders_pb.CheckOrderResponse:
        """Decide from step 3 on; reserve if the order is accepted and asks for it."""
        reserves = request.mode != orders_pb.CHECK_MODE_CHECK_ONLY
        terms = Terms(
            account_id=request.account_id,
            instrument_id=request.instrument_id,
            gateway_id=request.gateway_id,
            side=request.side,
            order_type=request.order_type,
            price_ticks=request.price_ticks,
            reduce_only=bool(request.flags & orders_pb.ORDER_FLAG_REDUCE_ONLY),
            reserves=reserves,
        )
        quantity = request.quantity_lots
        detail = None
        form_reason = self._form_reason(request)
        reason = form_reason
        if reason == NONE:
            reason = self._state_reason(terms, quantity, now_ns)
            if reason == NONE:
                violations = self._violations(terms, quantity, now_ns)
                reason = violations[0].reason if violations else NONE
                if request.view in DETAILED_VIEWS:
                    detail = self._detail(terms, quantity, now_ns, violations, request.view)
        max_quantity = 0
        if form_reason in (NONE, t.REASON_CODE_QUANTITY_OUT_OF_RANGE):
            max_quantity = self._max_quantity(terms, quantity, reason, now_ns)
        if reserves:
            self._revision += 1
        if reason == NONE:
            reply = self._accept(request, terms, quantity)
        elif form_reason != NONE:
            reply = self._form_reject(reason)
        else:
            reply = self._reject(terms, reason)
        reply.max_quantity_lots = max_quantity
        if detail is not None:
            reply.detail.CopyFrom(detail)
        return reply

    def _accept(
        self, request: orders_pb.CheckOrderRequest, terms: Terms, quantity: int
    ) -> orders_pb.CheckOrderResponse:
        price = self._known_price(terms)
        new = self._new_order(terms, quantity, price)
        account = self._accounts[terms.account_id]
        reply = orders_pb.CheckOrderResponse(
            decision=t.DECISION_ACCEPTED,
            reason=NONE,
            reservation_id=self._revision if terms.reserves else 0,
            revision=self._revision,
            margin_unknown=True,
        )
        before = self._account_figures(account)
        after = self._account_figures(account, new)
        if before is not None and after is not None and before.fits() and after.fits():
            reply.initial_margin_minor = after.initial_margin
            reply.available_minor = after.available
            reply.reserved_minor = after.initial_margin - before.initial_margin
            reply.margin_unknown = False
        filled = self._fill(terms, quantity, price)
        status, ticks = self._liquidation_ticks(
            account, terms.instrument_id, filled, account.cash + filled.cash_change
        )
        reply.liquidation_status = status
        reply.liquidation_price_ticks = ticks
        if terms.reserves:
            self._reserve(request, new)
        return reply

    def _reserve(self, request: orders_pb.CheckOrderRequest, new: NewOrder) -> None:
        self._position_slot(request.account_id, request.instrument_id)
        self._orders[self._revision] = Order(
            reservation_id=self._revision,
            account_id=request.account_id,
            instrument_id=request.instrument_id,
            gateway_id=request.gateway_id,
            client_order_id=request.client_order_id,
            side=request.side,
            order_type=request.order_type,
            time_in_force=request.time_in_force,
            flags=request.flags,
            price_ticks=request.price_ticks,
            quantity=request.quantity_lots,
            remaining=request.quantity_lots,
            margin_price=new.margin_price,
            open_loss=new.sums.open_loss,
        )

    # --- Step 3: form ---

    def _form_reason(self, request: orders_pb.CheckOrderRequest) -> Reason:
        """F-17, F-16, F-3 to F-10, F-12, F-14, F-15, F-11."""
        if request.view > orders_pb.DECISION_VIEW_FULL:
            return t.REASON_CODE_VIEW_NOT_SUPPORTED
        if request.mode > orders_pb.CHECK_MODE_CHECK_ONLY:
            return t.REASON_CODE_CHECK_MODE_NOT_SUPPORTED
        if request.account_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if request.instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if request.side not in (t.SIDE_BUY, t.SIDE_SELL):
            return t.REASON_CODE_SIDE_INVALID
        if request.order_type not in (t.ORDER_TYPE_LIMIT, t.ORDER_TYPE_MARKET):
            return t.REASON_CODE_ORDER_TYPE_NOT_SUPPORTED
        if request.time_in_force > t.TIME_IN_FORCE_FOK:
            return t.REASON_CODE_TIME_IN_FORCE_NOT_SUPPORTED
        if request.flags & ~(orders_pb.ORDER_FLAG_REDUCE_ONLY | orders_pb.ORDER_FLAG_POST_ONLY):
            return t.REASON_CODE_FLAG_NOT_SUPPORTED
        if request.position_side > t.POSITION_SIDE_NET:
            return t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED
        if request.quantity_lots == 0:
            return t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE
        if not has_valid_price(request.order_type, request.price_ticks):
            return t.REASON_CODE_PRICE_OUT_OF_RANGE
        if request.trigger_price_ticks or request.trailing_offset_ticks or request.expire_time_ns:
            return t.REASON_CODE_PRICE_OUT_OF_RANGE
        account = self._accounts[request.account_id]
        if account.asset_id != self._instruments[request.instrument_id].asset_id:
            return t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH
        mode = self._mode(account, request.instrument_id)
        if request.margin_mode not in (t.MARGIN_MODE_UNSPECIFIED, mode):
            return t.REASON_CODE_MARGIN_MODE_MISMATCH
        if request.quantity_lots > COUNT_MAX:
            return t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        return NONE

    # --- Step 4: state ---

    def _largest_reducing(self, terms: Terms) -> int:
        """Return the largest strictly reducing quantity, 0 if there is none."""
        lots = self._position(terms.account_id, terms.instrument_id).lots
        if sign_of(lots) != -terms.sign:
            return 0
        working = self._side_sums(terms.account_id, terms.instrument_id, terms.sign)
        return max(0, abs(lots) - working.lots)

    def _is_strictly_reducing(self, terms: Terms, quantity: int) -> bool:
        return quantity <= self._largest_reducing(terms)

    def _state_reason(self, terms: Terms, quantity: int, now_ns: int) -> Reason:
        """S-1 to S-11 and F-13."""
        instrument = self._instruments[terms.instrument_id]
        reducing = self._is_strictly_reducing(terms, quantity)
        lighter = terms.only_takes_risk_away(quantity)
        states = (
            self._service_state,
            self._gateway_states.get(terms.gateway_id, t.TRADING_STATE_NORMAL),
            self._accounts[terms.account_id].trading_state,
            instrument.trading_state,
        )
        halted = (
            t.REASON_CODE_SERVICE_HALTED,
            t.REASON_CODE_GATEWAY_HALTED,
            t.REASON_CODE_ACCOUNT_HALTED,
            t.REASON_CODE_INSTRUMENT_HALTED,
        )
        for state, reason in zip(states, halted, strict=True):
            if state == t.TRADING_STATE_HALTED:
                return reason
        if instrument.expiry_ns != 0 and instrument.expiry_ns <= now_ns:
            return t.REASON_CODE_INSTRUMENT_EXPIRED
        reduce_only = (
            t.REASON_CODE_SERVICE_REDUCE_ONLY,
            t.REASON_CODE_GATEWAY_REDUCE_ONLY,
            t.REASON_CODE_ACCOUNT_REDUCE_ONLY,
            t.REASON_CODE_INSTRUMENT_REDUCE_ONLY,
        )
        for state, reason in zip(states, reduce_only, strict=True):
            if state == t.TRADING_STATE_REDUCE_ONLY and not (reducing or lighter):
                return reason
        mark_reason = NONE if lighter else self._mark_reason(instrument, now_ns)
        if mark_reason == t.REASON_CODE_MARK_MISSING and (not reducing or terms.is_market):
            return mark_reason
        if mark_reason == t.REASON_CODE_MARK_STALE and not reducing:
            return mark_reason
        price = self._known_price(terms)
        if price > COUNT_MAX or not fits(self._value(instrument, price, quantity)):
            return t.REASON_CODE_NOTIONAL_OVERFLOWS
        return NONE

    def _mark_reason(self, instrument: InstrumentRow, now_ns: int) -> Reason:
        """S-10, S-11 of one instrument."""
        mark = self._marks.get(instrument.instrument_id)
        if mark is None:
            return t.REASON_CODE_MARK_MISSING
        if instrument.mark_age_max_ns != 0 and now_ns - mark.time_ns > instrument.mark_age_max_ns:
            return t.REASON_CODE_MARK_STALE
        return NONE

    def _assumed_price(self, terms: Terms) -> int | None:
        """Return the price an order is margined at; None for a market order without a mark."""
        if not terms.is_market:
            return terms.price_ticks
        mark = self._marks.get(terms.instrument_id)
        if mark is None:
            return None
        instrument = self._instruments[terms.instrument_id]
        one_tick = BILLION * instrument.mark_units_per_tick
        buffer = instrument.market_buffer_ppb
        if terms.sign > 0:
            return ceil_div(mark.price * (BILLION + buffer), one_tick)
        return max(1, mark.price * (BILLION - buffer) // one_tick)

    def _known_price(self, terms: Terms) -> int:
        price = self._assumed_price(terms)
        assert price is not None
        return price

    # --- Steps 5 to 7: limits, margin, room ---

    def _violations(self, terms: Terms, quantity: int, now_ns: int) -> list[Violation]:
        """Return every violated rule from step 5 on, in the order of the ladder."""
        found = self._limit_violations(terms, quantity)
        found += self._margin_violations(terms, quantity, now_ns)
        if terms.reserves:
            found += self._room_violations(terms)
        return found

    def _limit_violations(self, terms: Terms, quantity: int) -> list[Violation]:
        if terms.only_takes_risk_away(quantity):
            return []
        instrument = self._instruments[terms.instrument_id]
        price = self._known_price(terms)
        reducing = self._is_strictly_reducing(terms, quantity)
        largest = self._largest_reducing(terms)
        found = []
        if terms.reduce_only and not reducing:
            reason = t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE
            found.append(Violation(reason, largest, 0, quantity))
        if instrument.kind == OPTION and terms.side == t.SIDE_SELL and not reducing:
            reason = t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED
            found.append(Violation(reason, largest, 0, quantity))
        found += self._collar_violations(terms, instrument)
        if reducing:
            return found
        value = self._value(instrument, price, quantity)
        if quantity < instrument.order_lots_min:
            reason = t.REASON_CODE_BELOW_ORDER_QUANTITY_MIN
            found.append(Violation(reason, instrument.order_lots_min, 0, quantity))
        if instrument.order_lots_max != 0 and quantity > instrument.order_lots_max:
            reason = t.REASON_CODE_EXCEEDS_ORDER_QUANTITY_MAX
            found.append(Violation(reason, instrument.order_lots_max, 0, quantity))
        if value < instrument.order_notional_min:
            reason = t.REASON_CODE_BELOW_ORDER_NOTIONAL_MIN
            found.append(Violation(reason, instrument.order_notional_min, 0, value))
        if instrument.order_notional_max != 0 and value > instrument.order_notional_max:
            reason = t.REASON_CODE_EXCEEDS_ORDER_NOTIONAL_MAX
            found.append(Violation(reason, instrument.order_notional_max, 0, value))
        if instrument.kind == PERPETUAL:
            found += self._position_notional_violations(terms, quantity, price)
        return found

    def _collar_violations(self, terms: Terms, instrument: InstrumentRow) -> list[Violation]:
        """L-5."""
        mark = self._marks.get(instrument.instrument_id)
        collar = instrument.price_collar_ppb
        if terms.is_market or collar == 0 or mark is None:
            return []
        one_tick = BILLION * instrument.mark_units_per_tick
        if terms.sign > 0:
            bound = mark.price * (BILLION + collar)
            outside = terms.price_ticks * one_tick > bound
            last_inside = bound // one_tick
        else:
            bound = mark.price * (BILLION - collar)
            outside = terms.price_ticks * one_tick < bound
            last_inside = ceil_div(bound, one_tick)
        if not outside:
            return []
        reason = t.REASON_CODE_PRICE_OUTSIDE_COLLAR
        return [Violation(reason, clamp(last_inside), 0, terms.price_ticks)]

    def _position_notional_violations(
        self, terms: Terms, quantity: int, price: int
    ) -> list[Violation]:
        """L-6."""
        account = self._accounts[terms.account_id]
        schedule = self._schedule_of(terms.instrument_id)
        bound = notional_max(schedule, self._leverage(account, terms.instrument_id))
        new = self._new_order(terms, quantity, price)
        before = self._side_margin(account, terms.instrument_id, terms.sign, None)
        after = self._side_margin(account, terms.instrument_id, terms.sign, new)
        if bound is None or after.side_notional <= bound:
            return []
        sums = self._side_sums(terms.account_id, terms.instrument_id, terms.sign).plus(new.sums)
        if not sums.fits():
            return []  # M-3 says it
        use = before.side_notional
        added = after.side_notional - use
        reason = t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX
        return [Violation(reason, bound, clamp(use), clamp(added))]

    def _margin_violations(self, terms: Terms, quantity: int, now_ns: int) -> list[Violation]:
        """Step 6. What is missing, stale or does not fit ends it: nothing is judged on it."""
        account = self._accounts[terms.account_id]
        price = self._known_price(terms)
        new = self._new_order(terms, quantity, price)
        sums = self._side_sums(terms.account_id, terms.instrument_id, terms.sign).plus(new.sums)
        if self._is_strictly_reducing(terms, quantity) or terms.only_takes_risk_away(quantity):
            return [] if sums.fits() else [Violation(t.REASON_CODE_MARGIN_OVERFLOWS)]
        mark_reason = self._cross_mark_reason(account, now_ns, skip=terms.instrument_id)
        if mark_reason != NONE:
            return [Violation(mark_reason)]
        before = self._account_figures(account)
        after = self._account_figures(account, new)
        filled = self._fill(terms, quantity, price)
        position_fits = self._fill_fits(terms, filled)
        account_fits = before is not None and after is not None and before.fits() and after.fits()
        if not (sums.fits() and position_fits and account_fits):
            return [Violation(t.REASON_CODE_MARGIN_OVERFLOWS)]
        found = []
        if before is not None and after is not None and after.available < 0:
            reserved = after.initial_margin - before.initial_margin
            limit, order_use = clamp(before.available), clamp(reserved)
            found.append(Violation(t.REASON_CODE_MARGIN_INSUFFICIENT, limit, 0, order_use))
        if self._instruments[terms.instrument_id].kind == PERPETUAL:
            found += self._born_liquidatable_violations(terms, filled)
        return found

    def _fill_fits(self, terms: Terms, filled: Fill) -> bool:
        """Return whether the figures of a fill, and of the position after it, fit (M-3)."""
        cash = self._accounts[terms.account_id].cash + filled.cash_change
        if not filled.fits(cash):
            return False
        is_perpetual = self._instruments[terms.instrument_id].kind == PERPETUAL
        if not is_perpetual or terms.instrument_id not in self._marks:
            return True
        after = self._position_after(terms, filled)
        return after is None or after.fits()

    def _born_liquidatable_violations(self, terms: Terms, filled: Fill) -> list[Violation]:
        """M-2."""
        account = self._accounts[terms.account_id]
        instrument_id = terms.instrument_id
        cash = account.cash + filled.cash_change
        money = self._money_behind(account, instrument_id, filled.wallet, cash)
        if filled.lots == 0 or money is None:
            return []
        schedule = self._schedule_of(instrument_id)
        notional = self._mark_value(instrument_id, filled.lots)
        if not can_be_liquidated(schedule, filled.lots, filled.entry_value, money, notional):
            return []
        after = self._position_after(terms, filled)
        if after is None:
            return [Violation(t.REASON_CODE_BORN_LIQUIDATABLE)]
        reason = t.REASON_CODE_BORN_LIQUIDATABLE
        return [Violation(reason, after.equity, 0, clamp(after.requirement))]

    def _room_violations(self, terms: Terms) -> list[Violation]:
        """C-3, C-2."""
        found = []
        if len(self._orders) >= self._orders_max:
            found.append(Violation(t.REASON_CODE_ORDERS_FULL))
        if not self._has_position_room(terms.account_id, terms.instrument_id):
            found.append(Violation(t.REASON_CODE_POSITIONS_FULL))
        return found

    # --- The largest quantity that passes ---

    def _max_quantity(self, terms: Terms, quantity: int, reason: Reason, now_ns: int) -> int:
        if reason not in MAX_QUANTITY_REASONS:
            return 0
        price = self._assumed_price(terms)
        if price is None:
            return 0
        highest = min(quantity, COUNT_MAX + 1)
        lowest = max(self._largest_reducing(terms), terms.kept_lots)
        smallest = self._smallest_order(terms, price)
        if lowest < smallest < highest and self._passes(terms, smallest, now_ns):
            lowest = smallest
        if lowest == 0 or lowest >= highest or not self._passes(terms, lowest, now_ns):
            return 0
        while highest - lowest > 1:
            middle = (lowest + highest) // 2
            if self._passes(terms, middle, now_ns):
                lowest = middle
            else:
                highest = middle
        return lowest

    def _smallest_order(self, terms: Terms, price: int) -> int:
        """Return the smallest quantity that meets the instrument's minimums."""
        instrument = self._instruments[terms.instrument_id]
        for_notional = ceil_div(instrument.order_notional_min, self._value(instrument, price, 1))
        return max(1, instrument.order_lots_min, for_notional)

    def _passes(self, terms: Terms, quantity: int, now_ns: int) -> bool:
        """Return whether steps 4 to 6 find nothing."""
        return (
            self._state_reason(terms, quantity, now_ns) == NONE
            and not self._limit_violations(terms, quantity)
            and not self._margin_violations(terms, quantity, now_ns)
        )

    # --- The explanation ---

    def _detail(
        self, terms: Terms, quantity: int, now_ns: int, violations: list[Violation], view: int
    ) -> orders_pb.DecisionDetail:
        account = self._accounts[terms.account_id]
        instrument = self._instruments[terms.instrument_id]
        mark = self._marks.get(terms.instrument_id)
        detail = orders_pb.DecisionDetail(
            mark_price=mark.price if mark else 0,
            mark_time_ns=mark.time_ns if mark else 0,
            leverage_hundredths=self._leverage(account, terms.instrument_id),
        )
        filled = self._fill(terms, quantity, self._known_price(terms))
        fill_fits = self._fill_fits(terms, filled)
        if instrument.kind == OPTION:
            detail.position_lots = filled.lots if fill_fits else 0
        else:
            detail.schedule_version = self._schedule_of(terms.instrument_id).version
            after = self._position_after(terms, filled) if mark and fill_fits else None
            if after is not None:
                detail.position_initial_margin_minor = after.initial_margin
                detail.position_maintenance_margin_minor = after.maintenance
                detail.position_unrealised_pnl_minor = after.unrealised_pnl
                detail.equity_minor = after.equity
                detail.margin_ratio_ppm = after.margin_ratio
                detail.bankruptcy_price_ticks = after.bankruptcy_ticks
                detail.position_lots = after.lots
                detail.tier_index = after.tier
        if view == orders_pb.DECISION_VIEW_FULL:
            for each in violations:
                detail.violations.add(
                    reason=each.reason, limit=each.limit, use=each.use, order_use=each.order_use
                )
            greeks = self._greeks(instrument, now_ns)
            if greeks is not None:
                detail.greeks.CopyFrom(greeks)
        return detail

    def _position_after(self, terms: Terms, filled: Fill) -> PositionAfter | None:
        """Return the position after a fill, None if the mark of another position is missing."""
        account = self._accounts[terms.account_id]
        instrument = self._instruments[terms.instrument_id]
        schedule = self._schedule_of(terms.instrument_id)
        leverage = self._leverage(account, terms.instrument_id)
        notional = ceil(self._mark_value(terms.instrument_id, filled.lots))
        pnl = self._unrealised(terms.instrument_id, filled.lots, filled.entry_value)
        requirement = liquidation_requirement(schedule, notional)
        if self._mode(account, terms.instrument_id) == t.MARGIN_MODE_ISOLATED:
            money = filled.wallet
        else:
            others = self._cross_others(account, terms.instrument_id)
            if others is None:
                return None
            money = account.cash + filled.cash_change + others[0]
            requirement += others[1]
        equity = money + pnl
        bankruptcy = None
        if filled.lots != 0 and fits(money):
            unit_value = self._unit_value(instrument)
            bankruptcy = bankruptcy_price(filled.lots, filled.entry_value, money, unit_value)
        bankruptcy_ticks = 0
        if bankruptcy is not None:
            bankruptcy_ticks = to_ticks(bankruptcy, filled.lots, instrument.mark_units_per_tick)
        after = PositionAfter(
            notional=notional,
            initial_margin=initial(schedule, leverage, notional),
            maintenance=maintenance(schedule, notional),
            unrealised_pnl=pnl,
            equity=equity,
            requirement=requirement,
            margin_ratio=margin_ratio(requirement, equity),
            bankruptcy_ticks=bankruptcy_ticks,
            lots=filled.lots,
            tier=tier_index(schedule, notional),
        )
        if filled.lots == 0 and self._mode(account, terms.instrument_id) == t.MARGIN_MODE_ISOLATED:
            after = replace(after, margin_ratio=0)
        return after

    def _greeks(self, instrument: InstrumentRow, now_ns: int) -> orders_pb.Greeks | None:
        mark = self._marks.get(instrument.instrument_id)
        if instrument.kind != OPTION or mark is None or mark.volatility_ppb == 0:
            return None
        forward = self._forward(instrument, mark)
        if forward is None:
            return None
        return black76(
            is_call=instrument.option_type == 1,
            forward=forward,
            strike=instrument.strike_units * mark_unit(instrument),
            volatility=Fraction(mark.volatility_ppb, BILLION),
            years=Fraction(max(0, instrument.expiry_ns - now_ns), YEAR_NS),
            rate=Fraction(instrument.interest_rate_ppb, BILLION),
        )

    def _forward(self, instrument: InstrumentRow, mark: Mark) -> Fraction | None:
        """Return the forward in quote currency: the reported one, or the underlying's mark."""
        if mark.forward != 0:
            return mark.forward * mark_unit(instrument)
        underlying_mark = self._marks.get(instrument.underlying_id)
        if underlying_mark is None:
            return None
        return underlying_mark.price * mark_unit(self._instruments[instrument.underlying_id])

    # --- Figures of positions and accounts ---

    def _position(self, account_id: int, instrument_id: int) -> Position:
        return self._positions.get((account_id, instrument_id), Position())

    def _positions_of(self, account_id: int) -> list[tuple[int, Position]]:
        """Return (instrument id, position) of an account in the order of instrument ids."""
        return sorted(
            (instrument_id, position)
            for (owner_id, instrument_id), position in self._positions.items()
            if owner_id == account_id
        )

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

    # --- CheckAmendment ---

    def _check_amendment(self, request: orders_pb.CheckAmendmentRequest, now_ns: int) -> bytes:
        if request.client_order_id == 0:
            return self._amendment_form_reject(t.REASON_CODE_CLIENT_ORDER_ID_MISSING)
        if request.gateway_id == 0:
            return self._amendment_form_reject(t.REASON_CODE_GATEWAY_ID_MISSING)
        content = amendment_content(request)
        answer = self._find_answer(ANSWER_AMENDMENT, request.gateway_id, request.client_order_id)
        if answer is not None:
            if answer.content == content:
                return answer.reply
            return self._amendment_form_reject(t.REASON_CODE_CLIENT_ORDER_ID_REUSED)
        self._revision += 1
        decision = self._decide_amendment(request, now_ns)
        reply = serialise(orders_pb.CheckAmendmentResponse(order=decision))
        self._remember(
            Answer(ANSWER_AMENDMENT, request.gateway_id, request.client_order_id, content, reply)
        )
        return reply

    def _amendment_form_reject(self, reason: Reason) -> bytes:
        return serialise(orders_pb.CheckAmendmentResponse(order=self._form_reject(reason)))

    def _decide_amendment(
        self, request: orders_pb.CheckAmendmentRequest, now_ns: int
    ) -> orders_pb.CheckOrderResponse:
        """Decide from step 2 on; put the new order in the old one's place if it is accepted."""
        reason = self._amendment_form_reason(request)
        if reason not in (NONE, t.REASON_CODE_QUANTITY_OUT_OF_RANGE):
            return self._form_reject(reason)
        order = self._orders[request.reservation_id]
        filled = order.quantity - order.remaining
        left = request.quantity_lots - filled
        terms = Terms(
            account_id=order.account_id,
            instrument_id=order.instrument_id,
            gateway_id=request.gateway_id,
            side=order.side,
            order_type=order.order_type,
            price_ticks=request.price_ticks,
            reduce_only=bool(order.flags & orders_pb.ORDER_FLAG_REDUCE_ONLY),
            reserves=False,
            kept_lots=order.remaining if request.price_ticks == order.price_ticks else 0,
        )
        with_old = self._account_figures(self._accounts[order.account_id])
        del self._orders[order.reservation_id]  # Until it is decided, the old order is gone.
        reply, amended = self._decide_left(terms, order, left, reason, request.view, now_ns)
        self._orders[order.reservation_id] = amended or order
        if reason != NONE:
            return reply
        reply.reservation_id = order.reservation_id
        figures = self._account_figures(self._accounts[order.account_id])
        is_known = figures is not None and figures.fits()
        if amended is not None:
            is_known = is_known and with_old is not None and with_old.fits()
        if figures is not None and is_known:
            reply.initial_margin_minor = figures.initial_margin
            reply.available_minor = figures.available
            reply.margin_unknown = False
        if amended is not None and figures is not None and with_old is not None and is_known:
            reply.reserved_minor = figures.initial_margin - with_old.initial_margin
        return reply

    def _amendment_form_reason(self, request: orders_pb.CheckAmendmentRequest) -> Reason:
        """F-17, E-1, F-12, F-10, E-6, F-11."""
        if request.view > orders_pb.DECISION_VIEW_FULL:
            return t.REASON_CODE_VIEW_NOT_SUPPORTED
        order = self._orders.get(request.reservation_id)
        if order is None or order.gateway_id != request.gateway_id:
            return t.REASON_CODE_RESERVATION_UNKNOWN
        if not has_valid_price(order.order_type, request.price_ticks):
            return t.REASON_CODE_PRICE_OUT_OF_RANGE
        if request.quantity_lots == 0:
            return t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE
        if request.quantity_lots <= order.quantity - order.remaining:
            return t.REASON_CODE_AMENDMENT_BELOW_FILLED
        if request.quantity_lots > COUNT_MAX:
            return t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        return NONE

    def _decide_left(
        self,
        terms: Terms,
        old: Order,
        left: int,
        form_reason: Reason,
        view: int,
        now_ns: int,
    ) -> tuple[orders_pb.CheckOrderResponse, Order | None]:
        """Decide on what would be left, the old order gone; return the reply and the new order.

        The reply has no figures of the account yet, and no order comes with a reject.
        """
        filled_lots = old.quantity - old.remaining
        detail = None
        reason = form_reason
        if reason == NONE:
            reason = self._state_reason(terms, left, now_ns)
            if reason == NONE:
                violations = self._violations(terms, left, now_ns)
                reason = violations[0].reason if violations else NONE
                if view in DETAILED_VIEWS:
                    detail = self._detail(terms, left, now_ns, violations, view)
        amended = None
        if reason == NONE:
            price = self._known_price(terms)
            new = self._new_order(terms, left, price)
            amended = replace(
                old,
                price_ticks=terms.price_ticks,
                quantity=filled_lots + left,
                remaining=left,
                margin_price=new.margin_price,
                open_loss=new.sums.open_loss,
            )
            reply = orders_pb.CheckOrderResponse(
                decision=t.DECISION_ACCEPTED,
                reason=NONE,
                revision=self._revision,
                margin_unknown=True,
            )
            fill = self._fill(terms, left, price)
            account = self._accounts[terms.account_id]
            # One that only takes risk away is not stopped by a fill that does not fit.
            if abs(fill.lots) <= COUNT_MAX and fits(fill.entry_value, fill.wallet):
                reply.liquidation_status, reply.liquidation_price_ticks = self._liquidation_ticks(
                    account, terms.instrument_id, fill, account.cash + fill.cash_change
                )
        else:
            reply = self._form_reject(reason)
            # The total, filled lots included, is not above 2^53 either.
            asked = min(left, COUNT_MAX + 1 - filled_lots)
            lots = self._max_quantity(terms, asked, reason, now_ns)
            reply.max_quantity_lots = filled_lots + lots if lots else 0
        if detail is not None:
            reply.detail.CopyFrom(detail)
        return reply, amended

    # --- ReportExecution ---

    def _report_execution(self, request: orders_pb.ReportExecutionRequest) -> bytes:
        if request.gateway_id == 0:
            return serialise(self._execution_reject(t.REASON_CODE_GATEWAY_ID_MISSING))
        if request.execution_id == 0:
            return serialise(self._execution_reject(t.REASON_CODE_EXECUTION_ID_MISSING))
        content = execution_content(request)
        answer = self._find_answer(ANSWER_EXECUTION, request.gateway_id, request.execution_id)
        if answer is not None:
            if answer.content == content:
                return answer.reply
            return serialise(self._execution_reject(t.REASON_CODE_EXECUTION_ID_REUSED))
        reason = self._execution_reason(request)
        self._revision += 1
        if reason != NONE:
            reply = serialise(self._execution_reject(reason))
        elif request.kind == orders_pb.EXECUTION_KIND_FILL:
            reply = serialise(self._apply_fill(request))
        else:
            reply = serialise(self._apply_release(request))
        self._remember(
            Answer(ANSWER_EXECUTION, request.gateway_id, request.execution_id, content, reply)
        )
        return reply

    def _execution_reject(self, reason: Reason) -> orders_pb.ReportExecutionResponse:
        return orders_pb.ReportExecutionResponse(
            decision=t.DECISION_REJECTED,
            reason=reason,
            revision=self._revision,
            margin_unknown=True,
        )

    def _execution_reason(self, request: orders_pb.ReportExecutionRequest) -> Reason:
        """E-3, E-1, E-5, E-4; F-12, F-10, F-11, E-2, A-1, M-3 of a fill."""
        if not (
            orders_pb.EXECUTION_KIND_FILL <= request.kind <= orders_pb.EXECUTION_KIND_VENUE_REJECT
        ):
            return t.REASON_CODE_EXECUTION_KIND_NOT_SUPPORTED
        order = self._orders.get(request.reservation_id)
        if order is None or order.gateway_id != request.gateway_id:
            return t.REASON_CODE_RESERVATION_UNKNOWN
        if request.instrument_id not in (0, order.instrument_id):
            return t.REASON_CODE_EXECUTION_INSTRUMENT_MISMATCH
        if request.kind != orders_pb.EXECUTION_KIND_FILL:
            if request.price_ticks != 0 or request.quantity_lots != 0 or request.fee_minor != 0:
                return t.REASON_CODE_EXECUTION_QUANTITY_MISMATCH
            return NONE
        if not 1 <= request.price_ticks <= COUNT_MAX:
            return t.REASON_CODE_PRICE_OUT_OF_RANGE
        if request.quantity_lots == 0:
            return t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE
        if request.quantity_lots > COUNT_MAX:
            return t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        if request.quantity_lots > order.remaining:
            return t.REASON_CODE_EXECUTION_EXCEEDS_REMAINING
        if abs(request.fee_minor) > COUNT_MAX:
            return t.REASON_CODE_AMOUNT_OUT_OF_RANGE
        account = self._accounts[order.account_id]
        filled = self._fill_of(
            account,
            order.instrument_id,
            order.sign,
            request.price_ticks,
            request.quantity_lots,
            order.open_loss * request.quantity_lots // order.remaining,
        )
        cash = account.cash + filled.cash_change - request.fee_minor
        deficit = self._deficits.get(account.asset_id, 0) + filled.deficit_change
        value = self._value(
            self._instruments[order.instrument_id], request.price_ticks, request.quantity_lots
        )
        if not (filled.fits(cash) and fits(deficit, value)):
            return t.REASON_CODE_MARGIN_OVERFLOWS
        return NONE

    def _apply_fill(
        self, request: orders_pb.ReportExecutionRequest
    ) -> orders_pb.ReportExecutionResponse:
        order = self._orders[request.reservation_id]
        account = self._accounts[order.account_id]
        quantity = request.quantity_lots
        released_loss = order.open_loss * quantity // order.remaining
        filled = self._fill_of(
            account,
            order.instrument_id,
            order.sign,
            request.price_ticks,
            quantity,
            released_loss,
        )
        key = (order.account_id, order.instrument_id)
        self._positions[key] = replace(
            self._positions[key],
            lots=filled.lots,
            entry_value=filled.entry_value,
            wallet=filled.wallet,
        )
        cash = account.cash + filled.cash_change - request.fee_minor
        self._accounts[order.account_id] = replace(account, cash=cash)
        deficit = self._deficits.get(account.asset_id, 0) + filled.deficit_change
        self._deficits[account.asset_id] = deficit
        remaining = order.remaining - quantity
        open_loss = order.open_loss - released_loss
        if remaining > 0:
            self._orders[order.reservation_id] = replace(
                order, remaining=remaining, open_loss=open_loss
            )
        else:
            del self._orders[order.reservation_id]
        reply = self._execution_reply(order, remaining, filled.realised)
        if order.order_type == t.ORDER_TYPE_LIMIT and (
            order.sign * (request.price_ticks - order.price_ticks) > 0
        ):
            reply.decision = t.DECISION_ACCEPTED_WITH_WARNING
            reply.reason = t.REASON_CODE_EXECUTION_BEYOND_LIMIT
        self._drop_empty_position(*key)
        return reply

    def _apply_release(
        self, request: orders_pb.ReportExecutionRequest
    ) -> orders_pb.ReportExecutionResponse:
        order = self._orders.pop(request.reservation_id)
        reply = self._execution_reply(order, 0, 0)
        self._drop_empty_position(order.account_id, order.instrument_id)
        return reply

    def _execution_reply(
        self, order: Order, remaining: int, realised: int
    ) -> orders_pb.ReportExecutionResponse:
        account = self._accounts[order.account_id]
        position = self._position(order.account_id, order.instrument_id)
        figures = self._account_figures(account)
        is_known = figures is not None and figures.fits()
        status, ticks = self._liquidation_ticks(
            account, order.instrument_id, position, account.cash
        )
        return orders_pb.ReportExecutionResponse(
            decision=t.DECISION_ACCEPTED,
            reason=NONE,
            revision=self._revision,
            remaining_lots=remaining,
            position_lots=position.lots,
            realised_pnl_minor=realised,
            available_minor=figures.available if figures is not None and is_known else 0,
            liquidation_price_ticks=ticks,
            liquidation_status=status,
            isolated_wallet_minor=position.wallet,
            margin_unknown=not is_known,
        )

    # --- GetReservation ---

    def _get_reservation(
        self, request: orders_pb.GetReservationRequest
    ) -> orders_pb.GetReservationResponse:
        reply = orders_pb.GetReservationResponse(
            revision=self._revision, state=orders_pb.RESERVATION_STATE_UNKNOWN
        )
        reservation_id = request.reservation_id
        if reservation_id == 0:
            answer = self._find_answer(ANSWER_ORDER, request.gateway_id, request.client_order_id)
            if answer is not None:
                asked = orders_pb.CheckOrderRequest.FromString(answer.content)
                reservation_id = reservation_of(answer)
                reply.state = orders_pb.RESERVATION_STATE_CLOSED
                reply.reservation_id = reservation_id
                reply.account_id = asked.account_id
                reply.instrument_id = asked.instrument_id
                reply.side = asked.side
                reply.price_ticks = asked.price_ticks
                reply.quantity_lots = asked.quantity_lots
                reply.first_answer.ParseFromString(answer.reply)
            else:
                working = self._working_order(request.gateway_id, request.client_order_id)
                if working is not None:
                    reservation_id = working.reservation_id
        order = self._orders.get(reservation_id)
        if order is not None:
            reply.state = orders_pb.RESERVATION_STATE_WORKING
            reply.reservation_id = reservation_id
            reply.account_id = order.account_id
            reply.instrument_id = order.instrument_id
            reply.side = t.SIDE_BUY if order.sign > 0 else t.SIDE_SELL
            reply.price_ticks = order.price_ticks
            reply.quantity_lots = order.quantity
            reply.remaining_lots = order.remaining
        return reply

    # --- ReportMarks ---

    def _report_marks(
        self, request: market_pb.ReportMarksRequest, now_ns: int
    ) -> market_pb.ReportMarksResponse:
        reply = market_pb.ReportMarksResponse()
        for index, mark in enumerate(request.marks):
            reason = self._report_mark_reason(mark, now_ns)
            if reason != NONE:
                reply.refusals.add(index=index, reason=reason)
                continue
            held = self._marks.get(mark.instrument_id, Mark(0, 0, 0, 0))
            self._marks[mark.instrument_id] = Mark(
                price=mark.mark_price,
                time_ns=mark.time_ns,
                volatility_ppb=mark.implied_volatility_ppb or held.volatility_ppb,
                forward=mark.forward_price or held.forward,
            )
            reply.taken_count += 1
        if reply.taken_count > 0:
            self._revision += 1
        reply.revision = self._revision
        return reply

    def _report_mark_reason(self, mark: market_pb.Mark, now_ns: int) -> Reason:
        """F-4, D-1, D-3, D-4, D-2."""
        if mark.instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if not 1 <= mark.mark_price <= COUNT_MAX:
            return t.REASON_CODE_MARK_OUT_OF_RANGE
        if mark.implied_volatility_ppb > 10**10 or not 0 <= mark.forward_price <= COUNT_MAX:
            return t.REASON_CODE_OPTION_MARK_OUT_OF_RANGE
        if mark.time_ns > now_ns + BILLION:
            return t.REASON_CODE_MARK_FROM_FUTURE
        held = self._marks.get(mark.instrument_id)
        if held is not None and mark.time_ns < held.time_ns:
            return t.REASON_CODE_MARK_OUT_OF_ORDER
        return NONE

    # --- Remembered answers ---

    def _find_answer(self, kind: int, gateway_id: int, request_id: int) -> Answer | None:
        for answer in self._answers:
            if (answer.kind, answer.gateway_id, answer.request_id) == (
                kind,
                gateway_id,
                request_id,
            ):
                return answer
        return None

    def _remember(self, answer: Answer) -> None:
        """Add an answer; the oldest go when it needs their room."""
        self._answers.append(answer)
        while sum(each.size_bytes for each in self._answers) > self._answer_bytes:
            del self._answers[0]

    # --- The position table ---

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

    # --- Definitions ---

    def create_asset(self, symbol: str, scale: int) -> tuple[int, int]:
        """Return (reason, asset id)."""
        letters = string.ascii_uppercase + string.digits
        if not 1 <= len(symbol) <= 15 or any(each not in letters for each in symbol):
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if not 0 <= scale <= 12:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if any(asset.symbol == symbol for asset in self._assets.values()):
            return t.REASON_CODE_ALREADY_EXISTS, 0
        if len(self._assets) >= ASSETS_MAX:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        asset_id = len(self._assets) + 1
        self._assets[asset_id] = AssetRow(asset_id, symbol, scale)
        self._revision += 1
        return NONE, asset_id

    def upsert_schedule(
        self,
        name: str,
        asset_id: int,
        tiers: Sequence[tuple[int, int, int, int]],
        notional_max: int = 0,
        liquidation_fee_ppb: int = 0,
    ) -> tuple[int, int]:
        """Tiers are (floor, initial ppb, maintenance ppb, leverage_max). Return (reason, id)."""
        if not is_name(name):
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN, 0
        ladder = tier_ladder(tiers, liquidation_fee_ppb)
        if ladder is None:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        if notional_max < 0 or 0 < notional_max <= ladder[-1].floor:
            return t.REASON_CODE_DEFINITION_INVALID, 0
        held = [each for each in self._schedules.values() if each.name == name]
        if held and held[0].asset_id != asset_id:
            return t.REASON_CODE_FIELD_IMMUTABLE, 0
        if not held and len(self._schedules) >= self._schedules_max:
            return t.REASON_CODE_SCHEDULES_FULL, 0
        schedule_id = held[0].schedule_id if held else len(self._schedules) + 1
        self._schedules[schedule_id] = ScheduleRow(
            schedule_id=schedule_id,
            name=name,
            asset_id=asset_id,
            version=held[0].version + 1 if held else 1,
            notional_max=notional_max,
            liquidation_fee_ppb=liquidation_fee_ppb,
            tiers=ladder,
        )
        self._revision += 1
        return NONE, schedule_id

    def upsert_instrument(
        self,
        symbol: str,
        kind: int,
        asset_id: int,
        schedule_id: int,
        tick_mantissa: int,
        tick_exponent: int,
        lot_mantissa: int,
        lot_exponent: int,
        mark_units_per_tick: int = 1,
        order_lots_min: int = 0,
        order_lots_max: int = 0,
        order_notional_min: int = 0,
        order_notional_max: int = 0,
        price_collar_ppb: int = 0,
        market_buffer_ppb: int = 0,
        taker_fee_ppb: int = 0,
        mark_age_max_ns: int = 0,
        trading_state: int = 0,
        expiry_ns: int = 0,
        strike_units: int = 0,
        option_type: int = 0,
        interest_rate_ppb: int = 0,
        underlying_id: int = 0,
    ) -> tuple[int, int]:
        """Steps are mantissa * 10^exponent. Return (reason, instrument id)."""
        held = [each for each in self._instruments.values() if each.symbol == symbol]
        row = InstrumentRow(
            instrument_id=held[0].instrument_id if held else len(self._instruments) + 1,
            symbol=symbol,
            kind=kind,
            asset_id=asset_id,
            schedule_id=schedule_id,
            tick_mantissa=tick_mantissa,
            tick_exponent=tick_exponent,
            lot_mantissa=lot_mantissa,
            lot_exponent=lot_exponent,
            mark_units_per_tick=mark_units_per_tick,
            order_lots_min=order_lots_min,
            order_lots_max=order_lots_max,
            order_notional_min=order_notional_min,
            order_notional_max=order_notional_max,
            price_collar_ppb=price_collar_ppb,
            market_buffer_ppb=market_buffer_ppb,
            taker_fee_ppb=taker_fee_ppb,
            mark_age_max_ns=mark_age_max_ns,
            trading_state=trading_state,
            expiry_ns=expiry_ns,
            strike_units=strike_units,
            option_type=option_type,
            interest_rate_ppb=interest_rate_ppb,
            underlying_id=underlying_id,
        )
        reason = self._instrument_reason(row)
        if reason != NONE:
            return reason, 0
        if row.trading_state == 0:
            kept = held[0].trading_state if held else t.TRADING_STATE_NORMAL
            row = row._replace(trading_state=kept)
        if held and immutable_part(row) != immutable_part(held[0]):
            return t.REASON_CODE_FIELD_IMMUTABLE, 0
        if not held and len(self._instruments) >= self._instruments_max:
            return t.REASON_CODE_INSTRUMENTS_FULL, 0
        self._instruments[row.instrument_id] = row
        self._revision += 1
        return NONE, row.instrument_id

    def _instrument_reason(self, row: InstrumentRow) -> Reason:
        if not is_name(row.symbol) or row.kind not in (PERPETUAL, OPTION):
            return t.REASON_CODE_DEFINITION_INVALID
        if row.asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        if row.kind == PERPETUAL:
            if row.schedule_id not in self._schedules:
                return t.REASON_CODE_SCHEDULE_UNKNOWN
            if self._schedules[row.schedule_id].asset_id != row.asset_id:
                return t.REASON_CODE_DEFINITION_INVALID
        elif row.schedule_id != 0:
            return t.REASON_CODE_DEFINITION_INVALID
        if not has_valid_steps(row, self._assets[row.asset_id].scale):
            return t.REASON_CODE_DEFINITION_INVALID
        if not has_valid_bounds(row):
            return t.REASON_CODE_DEFINITION_INVALID
        if not has_valid_option_terms(row):
            return t.REASON_CODE_DEFINITION_INVALID
        if row.underlying_id != 0 and row.underlying_id not in self._instruments:
            return t.REASON_CODE_DEFINITION_INVALID
        return NONE

    def create_account(
        self, account_id: int, asset_id: int, margin_mode: int, leverage: int, cash: int
    ) -> int:
        """Return the reason."""
        if account_id == 0:
            return t.REASON_CODE_DEFINITION_INVALID
        if asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        if margin_mode not in (t.MARGIN_MODE_CROSS, t.MARGIN_MODE_ISOLATED):
            return t.REASON_CODE_DEFINITION_INVALID
        if not 100 <= leverage <= 100_000 or not 0 <= cash <= 2**62:
            return t.REASON_CODE_DEFINITION_INVALID
        if account_id in self._accounts:
            return t.REASON_CODE_ALREADY_EXISTS
        if len(self._accounts) >= self._accounts_max:
            return t.REASON_CODE_ACCOUNTS_FULL
        self._accounts[account_id] = Account(
            account_id, asset_id, margin_mode, leverage, cash, t.TRADING_STATE_NORMAL
        )
        self._revision += 1
        return NONE

    # --- Changes from outside the hot door ---

    def _available(self, account: Account) -> int:
        """Return what replies say is available: 0 when it is unknown or does not fit."""
        figures = self._account_figures(account)
        return figures.available if figures is not None and figures.fits() else 0

    def _withdrawal_reason(self, account: Account, amount: int, now_ns: int) -> Reason:
        """S-10, S-11 of cross positions, A-2: whether the pool can give an amount."""
        reason = self._cross_mark_reason(account, now_ns)
        if reason != NONE:
            return reason
        figures = self._account_figures(account)
        is_known = figures is not None and figures.fits()
        if figures is None or not is_known or amount > min(figures.available, account.cash):
            return t.REASON_CODE_EXCEEDS_AVAILABLE
        return NONE

    def adjust_collateral(
        self, account_id: int, asset_id: int, amount: int, validate_only: bool, now_ns: int
    ) -> tuple[int, int, int]:
        """Return (reason, cash, available) as after it, or as they are when it is refused."""
        account = self._accounts.get(account_id)
        if account is None:
            return t.REASON_CODE_ACCOUNT_UNKNOWN, 0, 0
        if asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN, 0, 0
        if asset_id != account.asset_id:
            return t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH, 0, 0
        reason = self._adjust_reason(account, amount, now_ns)
        if reason != NONE:
            return reason, account.cash, self._available(account)
        changed = replace(account, cash=account.cash + amount)
        if not validate_only:
            self._accounts[account_id] = changed
            self._revision += 1
        return NONE, changed.cash, self._available(changed)

    def _adjust_reason(self, account: Account, amount: int, now_ns: int) -> Reason:
        if amount == 0 or not fits(amount, -amount, account.cash + amount):
            return t.REASON_CODE_AMOUNT_OUT_OF_RANGE
        if amount < 0:
            return self._withdrawal_reason(account, -amount, now_ns)
        return NONE

    def _position_reason(self, account_id: int, instrument_id: int) -> Reason:
        """F-3, F-4, F-14: what every change of a position needs."""
        if account_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if self._accounts[account_id].asset_id != self._instruments[instrument_id].asset_id:
            return t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH
        return NONE

    def transfer_margin(
        self, account_id: int, instrument_id: int, amount: int, validate_only: bool, now_ns: int
    ) -> tuple[int, int, int]:
        """Return (reason, isolated wallet, available) as after it, or as they are when refused."""
        reason = self._position_reason(account_id, instrument_id)
        if reason != NONE:
            return reason, 0, 0
        account = self._accounts[account_id]
        position = self._position(account_id, instrument_id)
        reason = self._transfer_reason(account, instrument_id, amount, now_ns)
        if reason != NONE:
            return reason, position.wallet, self._available(account)
        changed = replace(account, cash=account.cash - amount)
        wallet = position.wallet + amount
        if not validate_only:
            self._accounts[account_id] = changed
            self._positions[account_id, instrument_id] = replace(position, wallet=wallet)
            self._revision += 1
        return NONE, wallet, self._available(changed)

    def _transfer_reason(
        self, account: Account, instrument_id: int, amount: int, now_ns: int
    ) -> Reason:
        instrument = self._instruments[instrument_id]
        position = self._position(account.account_id, instrument_id)
        isolated = self._mode(account, instrument_id) == t.MARGIN_MODE_ISOLATED
        if instrument.kind != PERPETUAL or not isolated or position.lots == 0:
            return t.REASON_CODE_NO_ISOLATED_POSITION
        if amount == 0 or not fits(
            amount, -amount, account.cash - amount, position.wallet + amount
        ):
            return t.REASON_CODE_AMOUNT_OUT_OF_RANGE
        if amount > 0:
            return self._withdrawal_reason(account, amount, now_ns)
        reason = self._mark_reason(instrument, now_ns)
        if reason != NONE:
            return reason
        notional = ceil(self._mark_value(instrument_id, position.lots))
        pnl = self._unrealised(instrument_id, position.lots, position.entry_value)
        needed = initial(
            self._schedule_of(instrument_id), self._leverage(account, instrument_id), notional
        )
        if position.wallet + amount + min(0, pnl) < needed:
            return t.REASON_CODE_EXCEEDS_REMOVABLE_MARGIN
        return NONE

    def change_margin_mode(
        self,
        account_id: int,
        instrument_id: int,
        margin_mode: int,
        validate_only: bool,
        now_ns: int,
    ) -> tuple[int, int, int]:
        """Return (reason, isolated wallet, available) as after it, or as they are when refused."""
        reason = self._position_reason(account_id, instrument_id)
        if reason != NONE:
            return reason, 0, 0
        account = self._accounts[account_id]
        position = self._position(account_id, instrument_id)
        reason = self._mode_reason(account_id, instrument_id, margin_mode)
        if reason == NONE and not validate_only:
            self._positions[account_id, instrument_id] = replace(position, own_mode=margin_mode)
            self._revision += 1
        return reason, position.wallet, self._available(account)

    def _mode_reason(self, account_id: int, instrument_id: int, margin_mode: int) -> Reason:
        """F-15, A-7, C-2."""
        if margin_mode not in (t.MARGIN_MODE_CROSS, t.MARGIN_MODE_ISOLATED):
            return t.REASON_CODE_MARGIN_MODE_MISMATCH
        lots = self._position(account_id, instrument_id).lots
        if lots != 0 or self._has_orders(account_id, instrument_id):
            return t.REASON_CODE_POSITION_NOT_FLAT
        if not self._has_position_room(account_id, instrument_id):
            return t.REASON_CODE_POSITIONS_FULL
        return NONE

    def set_leverage(
        self, account_id: int, instrument_id: int, leverage: int, validate_only: bool, now_ns: int
    ) -> tuple[int, int, int]:
        """Return (reason, leverage, available) as after it, or as they are when it is refused."""
        reason = self._position_reason(account_id, instrument_id)
        if reason != NONE:
            return reason, 0, 0
        account = self._accounts[account_id]
        key = (account_id, instrument_id)
        held = self._positions.get(key)
        reason = self._leverage_bound_reason(account, instrument_id, leverage)
        if reason == NONE:
            before = self._requirement(account, instrument_id)
            self._positions[key] = replace(held or Position(), own_leverage=leverage)
            reason = self._leverage_margin_reason(account, instrument_id, before, now_ns)
            if reason == NONE and held is None and len(self._positions) > self._positions_max:
                reason = t.REASON_CODE_POSITIONS_FULL
        result = self._leverage(account, instrument_id), self._available(account)
        if reason == NONE and not validate_only:
            self._revision += 1
            return (NONE, *result)
        if held is None:
            self._positions.pop(key, None)
        else:
            self._positions[key] = held
        if reason != NONE:
            result = self._leverage(account, instrument_id), self._available(account)
        return (reason, *result)

    def _leverage_bound_reason(self, account: Account, instrument_id: int, leverage: int) -> Reason:
        """S-10 of the instrument, A-5, A-6."""
        position = self._position(account.account_id, instrument_id)
        if self._instruments[instrument_id].kind == OPTION:
            return t.REASON_CODE_LEVERAGE_OUT_OF_RANGE
        needs_mark = self._is_open_cross(account, instrument_id, position)
        if needs_mark and instrument_id not in self._marks:
            return t.REASON_CODE_MARK_MISSING
        schedule = self._schedule_of(instrument_id)
        if not 100 <= leverage <= schedule.tiers[0].leverage_max:
            return t.REASON_CODE_LEVERAGE_OUT_OF_RANGE
        bound = notional_max(schedule, leverage)
        for sign in (1, -1):
            side = self._side_margin(account, instrument_id, sign, None)
            if bound is not None and side.side_notional > bound:
                return t.REASON_CODE_LEVERAGE_OUT_OF_RANGE
        isolated = self._mode(account, instrument_id) == t.MARGIN_MODE_ISOLATED
        lowered = leverage < self._leverage(account, instrument_id)
        if isolated and position.lots != 0 and lowered:
            return t.REASON_CODE_LEVERAGE_LOWERED_ON_ISOLATED
        return NONE

    def _leverage_margin_reason(
        self, account: Account, instrument_id: int, before: int | None, now_ns: int
    ) -> Reason:
        """S-10, S-11, A-2, when the requirement rose from before to what it is now."""
        after = self._requirement(account, instrument_id)
        if before is None or after is None or after <= before:
            return NONE
        reason = self._cross_mark_reason(account, now_ns)
        if reason != NONE:
            return reason
        figures = self._account_figures(account)
        if figures is None or not figures.fits() or figures.available < 0:
            return t.REASON_CODE_EXCEEDS_AVAILABLE
        return NONE

    def set_trading_state(self, scope: int, scope_id: int, trading_state: int) -> int:
        """Return the reason."""
        reason = self._trading_state_reason(scope, scope_id, trading_state)
        if reason != NONE:
            return reason
        if scope == SCOPE_SERVICE:
            self._service_state = trading_state
        elif scope == SCOPE_GATEWAY:
            self._gateway_states[scope_id] = trading_state
            if trading_state == t.TRADING_STATE_NORMAL:
                del self._gateway_states[scope_id]
        elif scope == SCOPE_ACCOUNT:
            account = self._accounts[scope_id]
            self._accounts[scope_id] = replace(account, trading_state=trading_state)
        else:
            instrument = self._instruments[scope_id]
            self._instruments[scope_id] = instrument._replace(trading_state=trading_state)
        self._revision += 1
        return NONE

    def _trading_state_reason(self, scope: int, scope_id: int, trading_state: int) -> Reason:
        normal, halted = t.TRADING_STATE_NORMAL, t.TRADING_STATE_HALTED
        if not SCOPE_SERVICE <= scope <= SCOPE_INSTRUMENT or not normal <= trading_state <= halted:
            return t.REASON_CODE_DEFINITION_INVALID
        if scope == SCOPE_ACCOUNT and scope_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if scope == SCOPE_INSTRUMENT and scope_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if scope == SCOPE_GATEWAY:
            if scope_id == 0:
                return t.REASON_CODE_GATEWAY_ID_MISSING
            is_new = scope_id not in self._gateway_states and trading_state != normal
            if is_new and len(self._gateway_states) >= self._gateways_max:
                return t.REASON_CODE_GATEWAYS_FULL
        return NONE

    # --- Queries ---

    def assets(self) -> list[AssetRow]:
        return [self._assets[each] for each in sorted(self._assets)]

    def schedules(self) -> list[ScheduleRow]:
        return [self._schedules[each] for each in sorted(self._schedules)]

    def instruments(self) -> list[InstrumentRow]:
        return [self._instruments[each] for each in sorted(self._instruments)]

    def mark(self, instrument_id: int) -> MarkRow | None:
        """Return the mark, None if none was reported; KeyError for an unknown instrument."""
        if instrument_id not in self._instruments:
            raise KeyError(instrument_id)
        mark = self._marks.get(instrument_id)
        if mark is None:
            return None
        return MarkRow(instrument_id, mark.price, mark.time_ns, mark.volatility_ppb, mark.forward)

    def account(self, account_id: int) -> AccountRow | None:
        account = self._accounts.get(account_id)
        if account is None:
            return None
        return AccountRow(
            account.account_id,
            account.asset_id,
            account.margin_mode,
            account.leverage,
            account.cash,
            account.trading_state,
        )

    def accounts(self, after_id: int, count_max: int) -> list[AccountRow]:
        """Return up to count_max accounts with larger ids, in order."""
        rows = [self.account(each) for each in sorted(self._accounts) if each > after_id]
        return [row for row in rows if row is not None][:count_max]

    def summary(self, account_id: int) -> SummaryRow | None:
        account = self._accounts.get(account_id)
        if account is None:
            return None
        positions = self._positions_of(account_id)
        figures = self._account_figures(account)
        known = figures is not None and (
            figures.fits() and fits(figures.maintenance, figures.requirement)
        )
        if figures is None or not known:
            figures = AccountFigures(0, 0, 0, 0, 0)
        return SummaryRow(
            account_id=account_id,
            asset_id=account.asset_id,
            cash=account.cash,
            cross_pnl=figures.cross_pnl,
            initial_margin=figures.initial_margin,
            cross_maintenance=figures.maintenance,
            cross_liquidation_requirement=figures.requirement,
            available=figures.available,
            isolated_wallets=sum(position.wallet for _, position in positions),
            working_orders=sum(order.account_id == account_id for order in self._orders.values()),
            known=known,
        )

    def positions(self, account_id: int) -> list[PositionRow] | None:
        """Return positions with x not 0, working orders or own settings, by instrument id."""
        account = self._accounts.get(account_id)
        if account is None:
            return None
        return [
            self._position_row(account, instrument_id, position)
            for instrument_id, position in self._positions_of(account_id)
        ]

    def _position_row(
        self, account: Account, instrument_id: int, position: Position
    ) -> PositionRow:
        mark = self._marks.get(instrument_id)
        row = PositionRow(
            instrument_id=instrument_id,
            margin_mode=self._mode(account, instrument_id),
            leverage=self._leverage(account, instrument_id),
            lots=position.lots,
            entry_value=position.entry_value,
            isolated_wallet=position.wallet,
            mark=mark.price if mark else 0,
            notional=0,
            unrealised_pnl=0,
            initial_margin=0,
            maintenance=0,
            liquidation_requirement=0,
            equity=0,
            liquidation_status=t.LIQUIDATION_STATUS_UNSPECIFIED,
            liquidation_price=0,
            bankruptcy_price=0,
            liquidatable=False,
            buy_lots=self._side_sums(account.account_id, instrument_id, 1).lots,
            sell_lots=self._side_sums(account.account_id, instrument_id, -1).lots,
            known=False,
        )
        figures = self._position_figures(account, instrument_id, position, row)
        return row if figures is None else figures

    def _position_figures(
        self, account: Account, instrument_id: int, position: Position, row: PositionRow
    ) -> PositionRow | None:
        """Return the row with its figures, None if a mark that they need is missing."""
        instrument = self._instruments[instrument_id]
        is_cross = self._mode(account, instrument_id) == t.MARGIN_MODE_CROSS
        margin = self._requirement(account, instrument_id)
        others = self._cross_others(account, instrument_id)
        if margin is None or (position.lots != 0 and instrument_id not in self._marks):
            return None
        if others is None and (is_cross or instrument.kind == OPTION):
            return None
        notional = 0
        if position.lots != 0:
            notional = ceil(self._mark_value(instrument_id, position.lots))
        pnl = self._unrealised(instrument_id, position.lots, position.entry_value)
        money = position.wallet
        if is_cross and others is not None:
            money = account.cash + others[0]
        if instrument.kind == OPTION:
            # The mode has no effect on options, and their profit does not count.
            equity = account.cash + (others[0] if others is not None else 0)
            row = row._replace(
                notional=notional,
                unrealised_pnl=pnl,
                initial_margin=margin,
                equity=equity,
                known=True,
            )
            return saturated(row)
        schedule = self._schedule_of(instrument_id)
        if not is_cross:
            margin += initial(schedule, self._leverage(account, instrument_id), notional)
        status, price = self._liquidation(account, instrument_id, position, account.cash)
        row = row._replace(
            notional=notional,
            unrealised_pnl=pnl,
            initial_margin=margin,
            maintenance=maintenance(schedule, notional),
            liquidation_requirement=liquidation_requirement(schedule, notional),
            equity=money + pnl,
            liquidation_status=status,
            liquidation_price=price,
            known=True,
        )
        if position.lots != 0:
            unit_value = self._unit_value(instrument)
            bankruptcy = None
            if fits(money):
                bankruptcy = bankruptcy_price(
                    position.lots, position.entry_value, money, unit_value
                )
            behind = self._money_behind(account, instrument_id, position.wallet, account.cash)
            assert behind is not None
            row = row._replace(
                bankruptcy_price=bankruptcy or 0,
                liquidatable=can_be_liquidated(
                    schedule,
                    position.lots,
                    position.entry_value,
                    behind,
                    self._mark_value(instrument_id, position.lots),
                ),
            )
        return saturated(row)

    def max_order_lots(
        self,
        account_id: int,
        instrument_id: int,
        side: int,
        order_type: int,
        price_ticks: int,
        now_ns: int,
    ) -> tuple[int, int]:
        """Return (lots, reason of one lot more)."""
        reason = self._max_order_form_reason(
            account_id, instrument_id, side, order_type, price_ticks
        )
        if reason != NONE:
            return 0, reason
        terms = Terms(
            account_id=account_id,
            instrument_id=instrument_id,
            gateway_id=0,
            side=side,
            order_type=order_type,
            price_ticks=price_ticks,
            reduce_only=False,
            reserves=False,
        )
        reason = t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        lots = self._max_quantity(terms, COUNT_MAX + 1, reason, now_ns)
        if lots < COUNT_MAX:
            reason = self._state_reason(terms, lots + 1, now_ns)
            if reason == NONE:
                violations = self._violations(terms, lots + 1, now_ns)
                reason = violations[0].reason if violations else NONE
        return lots, reason

    def _max_order_form_reason(
        self, account_id: int, instrument_id: int, side: int, order_type: int, price_ticks: int
    ) -> Reason:
        """F-3, F-4, F-5, F-6, F-12, F-14."""
        if account_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if side not in (t.SIDE_BUY, t.SIDE_SELL):
            return t.REASON_CODE_SIDE_INVALID
        if order_type not in (t.ORDER_TYPE_LIMIT, t.ORDER_TYPE_MARKET):
            return t.REASON_CODE_ORDER_TYPE_NOT_SUPPORTED
        if not has_valid_price(order_type, price_ticks):
            return t.REASON_CODE_PRICE_OUT_OF_RANGE
        return self._position_reason(account_id, instrument_id)

    def trading_states(self) -> list[tuple[int, int, int]]:
        """Return (scope, id, state) of everything that is not NORMAL."""
        states = [(SCOPE_SERVICE, 0, self._service_state)]
        states += [(SCOPE_GATEWAY, *item) for item in sorted(self._gateway_states.items())]
        accounts = [self._accounts[each] for each in sorted(self._accounts)]
        states += [(SCOPE_ACCOUNT, each.account_id, each.trading_state) for each in accounts]
        states += [
            (SCOPE_INSTRUMENT, each.instrument_id, each.trading_state)
            for each in self.instruments()
        ]
        return [each for each in states if each[2] != t.TRADING_STATE_NORMAL]

    def working_reservations(self, scope: int, scope_id: int, count_max: int) -> list[int]:
        """Return up to count_max reservation ids of working orders in the scope, in order."""
        ids = []
        for order in self._orders.values():
            owner_ids = {
                SCOPE_SERVICE: scope_id,
                SCOPE_GATEWAY: order.gateway_id,
                SCOPE_ACCOUNT: order.account_id,
                SCOPE_INSTRUMENT: order.instrument_id,
            }
            if owner_ids.get(scope) == scope_id:
                ids.append(order.reservation_id)
        return sorted(ids)[:count_max]

    def working_orders(self) -> list[Order]:
        """Return the working orders in the order of their reservation ids: for tests only."""
        return [self._orders[each] for each in sorted(self._orders)]

    # --- The canonical state ---

    def state_lines(self) -> list[str]:
        """Return the state as text, one fact a line, in the order of docs/state.md."""
        return list(self._state_lines())

    def _state_lines(self) -> Iterator[str]:
        for asset in self.assets():
            yield line("asset", asset)
        for schedule in self.schedules():
            tiers = (":".join(map(str, tier)) for tier in schedule.tiers)
            yield line("schedule", [*schedule[:-1], *tiers])
        for instrument in self.instruments():
            yield line("instrument", instrument)
        for instrument_id in sorted(self._marks):
            mark = self._marks[instrument_id]
            figures = (mark.price, mark.time_ns, mark.volatility_ppb, mark.forward)
            yield line("mark", [instrument_id, *figures])
        if self._service_state != t.TRADING_STATE_NORMAL:
            yield line("service", [self._service_state])
        for item in sorted(self._gateway_states.items()):
            yield line("gateway", item)
        for account_id in sorted(self._accounts):
            account = self.account(account_id)
            assert account is not None
            yield line("account", account)
        for key in sorted(self._positions):
            position = self._positions[key]
            settings = (position.own_mode, position.own_leverage)
            holdings = (position.lots, position.entry_value, position.wallet)
            if position != Position():
                yield line("position", [*key, *settings, *holdings])
        for reservation_id in sorted(self._orders):
            yield line("order", order_fields(self._orders[reservation_id]))
        for asset_id in sorted(self._deficits):
            if self._deficits[asset_id] != 0:
                yield line("deficit", [asset_id, self._deficits[asset_id]])

    def state_hash(self) -> str:
        """Return BLAKE2b-256 (hex) of the state lines, each ended by a newline."""
        return hash_lines(self._state_lines())

    def answers_hash(self) -> str:
        """Return BLAKE2b-256 (hex) of the remembered answers, oldest first."""
        return hash_lines(
            line("answer", [each.kind, each.gateway_id, each.request_id, each.reply.hex()])
            for each in self._answers
        )


# --- Text of the state ----------------------------------------------------------------------------


def line(name: str, fields: Iterable[object]) -> str:
    return " ".join([name, *map(str, fields)])


def hash_lines(lines: Iterable[str]) -> str:
    text = "".join(f"{each}\n" for each in lines)
    return hashlib.blake2b(text.encode("ascii"), digest_size=32).hexdigest()


def order_fields(order: Order) -> tuple[int, ...]:
    return (
        order.reservation_id,
        order.account_id,
        order.instrument_id,
        order.gateway_id,
        order.client_order_id,
        order.side,
        order.order_type,
        order.time_in_force,
        order.flags,
        order.price_ticks,
        order.quantity,
        order.remaining,
        order.margin_price,
        order.open_loss,
    )


# --- Checks of definitions and forms --------------------------------------------------------------


def is_name(text: str) -> bool:
    """Return whether it is 1 to 31 printable ASCII characters without spaces."""
    return 1 <= len(text) <= 31 and all("!" <= each <= "~" for each in text)


def has_valid_price(order_type: int, price_ticks: int) -> bool:
    """F-12 of an order's price."""
    if order_type == t.ORDER_TYPE_MARKET:
        return price_ticks == 0
    return 1 <= price_ticks <= COUNT_MAX


def tier_ladder(
    tiers: Sequence[tuple[int, int, int, int]], liquidation_fee_ppb: int
) -> tuple[Tier, ...] | None:
    """Return the tiers with their deductions, None if the definition is not valid."""
    if not 1 <= len(tiers) <= TIERS_MAX or not 0 <= liquidation_fee_ppb < BILLION:
        return None
    ladder: list[Tier] = []
    for floor_k, initial_k, maintenance_k, leverage_k in tiers:
        if not 0 <= initial_k <= BILLION or not 100 <= leverage_k <= 100_000:
            return None
        if not 1 <= maintenance_k < BILLION - liquidation_fee_ppb:
            return None
        initial_at_most_leverage = max(Fraction(initial_k), Fraction(100 * BILLION, leverage_k))
        if initial_at_most_leverage <= maintenance_k + liquidation_fee_ppb:
            return None
        deduction = Fraction(0)
        if not ladder:
            if floor_k != 0:
                return None
        else:
            last = ladder[-1]
            if floor_k <= last.floor or maintenance_k <= last.maintenance_rate_ppb:
                return None
            if initial_k < last.initial_rate_ppb or leverage_k > last.leverage_max:
                return None
            rise = maintenance_k - last.maintenance_rate_ppb
            deduction = last.deduction + Fraction(floor_k * rise, BILLION)
        if deduction.denominator != 1 or not fits(floor_k, deduction.numerator):
            return None
        ladder.append(Tier(floor_k, initial_k, maintenance_k, deduction.numerator, leverage_k))
    return tuple(ladder)


def has_valid_steps(row: InstrumentRow, scale: int) -> bool:
    mantissas = (row.tick_mantissa, row.lot_mantissa)
    exponents = (row.tick_exponent, row.lot_exponent)
    if not all(1 <= each <= 10**12 for each in mantissas):
        return False
    if not all(-12 <= each <= 12 for each in exponents):
        return False
    value = tick_value(row, scale)
    if value.denominator != 1 or not 1 <= value <= 2**40:
        return False
    return 1 <= row.mark_units_per_tick <= BILLION


def has_valid_bounds(row: InstrumentRow) -> bool:
    return (
        0 <= row.order_lots_min <= COUNT_MAX
        and 0 <= row.order_lots_max <= COUNT_MAX
        and (row.order_lots_max == 0 or row.order_lots_max >= row.order_lots_min)
        and row.order_notional_min >= 0
        and row.order_notional_max >= 0
        and 0 <= row.price_collar_ppb <= BILLION
        and 0 <= row.taker_fee_ppb <= BILLION
        and 0 <= row.market_buffer_ppb < BILLION
        and row.mark_age_max_ns >= 0
        and 0 <= row.trading_state <= t.TRADING_STATE_HALTED
    )


def has_valid_option_terms(row: InstrumentRow) -> bool:
    if row.kind == PERPETUAL:
        terms = (row.expiry_ns, row.strike_units, row.option_type, row.interest_rate_ppb)
        return terms == (0, 0, 0, 0) and row.underlying_id == 0
    return (
        row.expiry_ns > 0
        and 1 <= row.strike_units <= COUNT_MAX
        and row.option_type in (1, 2)
        and abs(row.interest_rate_ppb) <= BILLION
    )


def immutable_part(row: InstrumentRow) -> tuple[int, ...]:
    """Return kind, asset, steps, mark units and option terms."""
    return (
        row.kind,
        row.asset_id,
        row.tick_mantissa,
        row.tick_exponent,
        row.lot_mantissa,
        row.lot_exponent,
        row.mark_units_per_tick,
        row.expiry_ns,
        row.strike_units,
        row.option_type,
        row.interest_rate_ppb,
        row.underlying_id,
    )


def saturated(row: PositionRow) -> PositionRow:
    """Return a row with its figures clamped to 64 bits: a query cannot be refused for M-3."""
    return row._replace(
        notional=clamp(row.notional),
        unrealised_pnl=clamp(row.unrealised_pnl),
        initial_margin=clamp(row.initial_margin),
        maintenance=clamp(row.maintenance),
        liquidation_requirement=clamp(row.liquidation_requirement),
        equity=clamp(row.equity),
        bankruptcy_price=clamp(row.bankruptcy_price),
    )


def margin_ratio(requirement: int, equity: int) -> int:
    """Return requirement over equity in ppm, rounded up; 2^63 - 1 if there is no equity."""
    if equity <= 0:
        return INT64_MAX
    return min(INT64_MAX, ceil_div(requirement * 10**6, equity))


# --- Black-76 -------------------------------------------------------------------------------------


def mark_unit(instrument: InstrumentRow) -> Fraction:
    """Return one mark unit in quote currency."""
    tick_size = instrument.tick_mantissa * Fraction(10) ** instrument.tick_exponent
    return tick_size / instrument.mark_units_per_tick


def decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def circle() -> Decimal:
    """Return pi by Machin's formula, 16 arctan(1/5) - 4 arctan(1/239)."""

    def arctan_inverse(n: int) -> Decimal:
        total = Decimal(0)
        for k in range(60):
            total += Decimal((-1) ** k) / ((2 * k + 1) * Decimal(n) ** (2 * k + 1))
        return total

    return 16 * arctan_inverse(5) - 4 * arctan_inverse(239)


def normal_density(x: Decimal) -> Decimal:
    return (-x * x / 2).exp() / (2 * circle()).sqrt()


def normal_cdf(x: Decimal) -> Decimal:
    """Return N(x): up to |x| = 8 by its series, beyond by the continued fraction of the tail.

    N(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...); 1 - N(x) = phi(x) / (x + 1/(x + 2/(x + ...))).
    Source: Abramowitz and Stegun 26.2.11 and 26.2.14.
    """
    if abs(x) <= 8:
        term = total = x
        n = 1
        while abs(term) > Decimal(10) ** -70:
            n += 2
            term = term * x * x / n
            total += term
        return Decimal("0.5") + normal_density(x) * total
    fraction = abs(x)
    for n in range(200, 0, -1):
        fraction = abs(x) + n / fraction
    tail = normal_density(x) / fraction
    return 1 - tail if x > 0 else tail


def black76(
    *,
    is_call: bool,
    forward: Fraction,
    strike: Fraction,
    volatility: Fraction,
    years: Fraction,
    rate: Fraction,
) -> orders_pb.Greeks:
    """Return price and Greeks of a long option of 1 underlying, years and volatility above 0.

    With w = 1 for a call and -1 for a put, D = exp(-r T), d1 = ln(F/K) / (s sqrt T) + s sqrt T / 2,
    d2 = d1 - s sqrt T:
    price = D w (F N(w d1) - K N(w d2)), delta = D w N(w d1), gamma = D phi(d1) / (F s sqrt T),
    vega = D F phi(d1) sqrt T, theta = r price - D F phi(d1) s / (2 sqrt T), rho = -T price.
    Source: F. Black, The pricing of commodity contracts, 1976.
    """
    with localcontext() as context:
        context.prec = 90
        f, k, s, years_d, r = map(decimal, (forward, strike, volatility, years, rate))
        deviation = s * years_d.sqrt()
        d1 = (f / k).ln() / deviation + deviation / 2
        d2 = d1 - deviation
        discount = (-r * years_d).exp()
        w = 1 if is_call else -1
        density = normal_density(d1)
        price = discount * w * (f * normal_cdf(w * d1) - k * normal_cdf(w * d2))
        decay = discount * f * density * s / (2 * years_d.sqrt())
        return orders_pb.Greeks(
            price_pico=pico(price),
            delta_pico=pico(discount * w * normal_cdf(w * d1)),
            gamma_pico=pico(discount * density / (f * deviation)),
            vega_per_vol_point_pico=pico(discount * f * density * years_d.sqrt() / 100),
            theta_per_day_pico=pico((r * price - decay) / 365),
            rho_per_point_pico=pico(-years_d * price / 100),
        )


def pico(value: Decimal) -> int:
    """Return value in units of 1e-12, rounded half to even, clamped to 64 bits."""
    return clamp(int((value * 10**12).to_integral_value()))


# --- Bytes ----------------------------------------------------------------------------------------


def serialise(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def reservation_of(answer: Answer) -> int:
    return orders_pb.CheckOrderResponse.FromString(answer.reply).reservation_id


def order_content(request: orders_pb.CheckOrderRequest) -> bytes:
    """Return what a repeat must have in common with the first request: all but the time."""
    copy = orders_pb.CheckOrderRequest()
    copy.CopyFrom(request)
    copy.sent_time_ns = 0
    return serialise(copy)


def amendment_content(request: orders_pb.CheckAmendmentRequest) -> bytes:
    """Return what a repeat must have in common with the first request: all but the time."""
    copy = orders_pb.CheckAmendmentRequest()
    copy.CopyFrom(request)
    copy.sent_time_ns = 0
    return serialise(copy)


def execution_content(request: orders_pb.ReportExecutionRequest) -> bytes:
    """Return what a repeat must have in common with the first request: all but the time."""
    copy = orders_pb.ReportExecutionRequest()
    copy.CopyFrom(request)
    copy.venue_time_ns = 0
    return serialise(copy)


def decode_check_order(request: bytes) -> orders_pb.CheckOrderRequest:
    check_wire(request, orders_pb.CheckOrderRequest.DESCRIPTOR)
    return parse(request, orders_pb.CheckOrderRequest())


def decode_check_amendment(request: bytes) -> orders_pb.CheckAmendmentRequest:
    check_wire(request, orders_pb.CheckAmendmentRequest.DESCRIPTOR)
    return parse(request, orders_pb.CheckAmendmentRequest())


def decode_report_execution(request: bytes) -> orders_pb.ReportExecutionRequest:
    check_wire(request, orders_pb.ReportExecutionRequest.DESCRIPTOR)
    return parse(request, orders_pb.ReportExecutionRequest())


def decode_get_reservation(request: bytes) -> orders_pb.GetReservationRequest:
    check_wire(request, orders_pb.GetReservationRequest.DESCRIPTOR)
    return parse(request, orders_pb.GetReservationRequest())


def decode_report_marks(request: bytes) -> market_pb.ReportMarksRequest:
    check_wire(request, market_pb.ReportMarksRequest.DESCRIPTOR)
    message = parse(request, market_pb.ReportMarksRequest())
    if not 1 <= len(message.marks) <= MARKS_MAX:
        raise MalformedRequestError(f"marks {len(message.marks)} is not 1 to {MARKS_MAX}")
    return message


def parse(request: bytes, message: AnyMessage) -> AnyMessage:
    try:
        message.ParseFromString(request)
    except DecodeError as error:
        raise MalformedRequestError(str(error)) from error
    return message


WIRE_VARINT: Final = 0
WIRE_FIXED64: Final = 1
WIRE_BYTES: Final = 2
WIRE_TYPES: Final = {
    FieldDescriptor.TYPE_ENUM: WIRE_VARINT,
    FieldDescriptor.TYPE_UINT32: WIRE_VARINT,
    FieldDescriptor.TYPE_UINT64: WIRE_VARINT,
    FieldDescriptor.TYPE_SINT64: WIRE_VARINT,
    FieldDescriptor.TYPE_FIXED64: WIRE_FIXED64,
    FieldDescriptor.TYPE_MESSAGE: WIRE_BYTES,
}
VARINT_MAX: Final = {
    FieldDescriptor.TYPE_ENUM: 2**31 - 1,
    FieldDescriptor.TYPE_UINT32: 2**32 - 1,
    FieldDescriptor.TYPE_UINT64: 2**64 - 1,
    FieldDescriptor.TYPE_SINT64: 2**64 - 1,
}


def check_wire(request: bytes, descriptor: Descriptor) -> None:
    """Check what the protobuf library forgives: unknown fields, numbers out of their type's range.

    The library keeps unknown fields and takes the low bits of a number that is too large. Raises
    MalformedRequestError.
    """
    position = 0
    while position < len(request):
        tag, position = read_varint(request, position)
        number, wire_type = tag >> 3, tag & 7
        field = descriptor.fields_by_number.get(number)
        if field is None or tag >= 2**32:
            raise MalformedRequestError(f"{descriptor.name} has no field {number}")
        if wire_type != WIRE_TYPES[field.type]:
            raise MalformedRequestError(f"{field.full_name} has wire type {wire_type}")
        if wire_type == WIRE_VARINT:
            value, position = read_varint(request, position)
            if value > VARINT_MAX[field.type]:
                raise MalformedRequestError(f"{field.full_name} {value} is out of range")
        elif wire_type == WIRE_FIXED64:
            position += 8
        else:
            size_bytes, position = read_varint(request, position)
            if size_bytes > len(request) - position:
                raise MalformedRequestError(f"{field.full_name} is cut short")
            message_type = field.message_type
            assert message_type is not None
            check_wire(request[position : position + size_bytes], message_type)
            position += size_bytes
    if position > len(request):
        raise MalformedRequestError(f"{descriptor.name} is cut short")


def read_varint(request: bytes, position: int) -> tuple[int, int]:
    """Return a number of up to 64 bits in up to ten bytes, and the position after it."""
    value = 0
    for count in range(10):
        if position >= len(request):
            raise MalformedRequestError("a number is cut short")
        byte = request[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value >= 2**64:
                break
            return value, position
    raise MalformedRequestError("a number has more than 64 bits")
