"""CheckOrder: identity, form, the answer and its explanation."""

from dataclasses import replace
from fractions import Fraction
from typing import Final

from riskd.core.rows import (
    InstrumentRow,
)
from riskd.reference.answers import ANSWER_ORDER, Answer
from riskd.reference.black import black76, mark_unit
from riskd.reference.figures import NewOrder, Terms
from riskd.reference.ladder import Ladder, verdict
from riskd.reference.margin import Fill
from riskd.reference.numbers import BILLION, COUNT_MAX, YEAR_NS, clamp, floor
from riskd.reference.state import (
    DERIVES_QUANTITY,
    LIMIT_PRICED,
    NONE,
    ONLY_CLOSES,
    TRIGGERED,
    Decision,
    Mark,
    Order,
    Position,
    Reason,
    Status,
    Violation,
    is_contract,
    is_inverse,
    is_option,
)
from riskd.reference.wire import order_content, serialise
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

DETAILED_VIEWS: Final = (orders_pb.DECISION_VIEW_MARGIN, orders_pb.DECISION_VIEW_FULL)
VIOLATIONS_MAX: Final = 32
"""As many as a reply lists."""


KNOWN_FLAGS: Final = ONLY_CLOSES | orders_pb.ORDER_FLAG_POST_ONLY | DERIVES_QUANTITY
QUOTE_MAX: Final = 2**62
"""Largest amount of QUOTE_QUANTITY, in minor units."""


class Decisions(Ladder):
    """CheckOrder."""

    def _check_order(self, request: orders_pb.CheckOrderRequest, now_ns: int) -> bytes:
        if request.client_order_id == 0:
            return serialise(self._form_reject(t.REASON_CODE_CLIENT_ORDER_ID_MISSING))
        if request.gateway_id == 0:
            return serialise(self._form_reject(t.REASON_CODE_GATEWAY_ID_MISSING))
        if request.mode == orders_pb.CHECK_MODE_CHECK_ONLY:
            return serialise(self._decide(request, now_ns, reserves=False))
        if not self._has_gateway_room(request.gateway_id):
            return serialise(self._form_reject(t.REASON_CODE_GATEWAYS_FULL))
        content = order_content(request)
        answer = self._answers.find(ANSWER_ORDER, request.gateway_id, request.client_order_id)
        if answer is not None:
            if answer.content == content:
                return answer.reply
            return serialise(self._form_reject(t.REASON_CODE_CLIENT_ORDER_ID_REUSED))
        if self._working_order(request.gateway_id, request.client_order_id) is not None:
            return serialise(self._form_reject(t.REASON_CODE_CLIENT_ORDER_ID_REUSED))
        reply = serialise(self._decide(request, now_ns, reserves=True))
        self._remember(
            Answer(ANSWER_ORDER, request.gateway_id, request.client_order_id, content, reply)
        )
        return reply

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
            reply.account_asset_id = self._foreign_account_asset(terms.key)
        return reply

    def _decide(
        self, request: orders_pb.CheckOrderRequest, now_ns: int, *, reserves: bool
    ) -> orders_pb.CheckOrderResponse:
        """Decide from step 3 on; reserve if the order is accepted and that is asked for."""
        form_reason = self._form_reason(request, now_ns)
        if form_reason not in (NONE, t.REASON_CODE_QUANTITY_OUT_OF_RANGE):
            self._revision += int(reserves)
            return self._form_reject(form_reason)
        terms = self._terms(request, reserves)
        quantity = request.quantity_lots
        is_given = not request.flags & DERIVES_QUANTITY
        if form_reason == NONE and not is_given:
            form_reason, quantity = self._derived_quantity(request, terms)
        decision: Decision = t.DECISION_REJECTED
        reason = form_reason
        violations: list[Violation] | None = None
        detail = None
        if reason == NONE:
            reason = self._state_reason(terms, quantity, now_ns)
            if reason == NONE:
                violations = self._violations(terms, quantity, now_ns)
                decision, reason = verdict(violations)
                if request.view in DETAILED_VIEWS:
                    detail = self._detail(terms, quantity, now_ns, violations, request.view)
        is_rejected = decision == t.DECISION_REJECTED
        max_quantity = 0
        if is_rejected and is_given:
            max_quantity = self._max_quantity(terms, quantity, reason, now_ns)
        if violations is not None:
            self._count_order(self._asked(terms, quantity), violations, now_ns)
        self._revision += int(reserves)
        if not is_rejected:
            reply = self._accept(request, terms, quantity, now_ns)
            reply.decision, reply.reason = decision, reason
        elif form_reason != NONE:
            reply = self._form_reject(reason)
        else:
            reply = self._reject(terms, reason)
        reply.max_quantity_lots = max_quantity
        if form_reason == NONE and not is_given:
            reply.quantity_lots = quantity
        if detail is not None:
            reply.detail.CopyFrom(detail)
        return reply

    def _terms(self, request: orders_pb.CheckOrderRequest, reserves: bool) -> Terms:
        account = self._accounts[request.account_id]
        position_side = self._position_side(account, request.instrument_id, request.position_side)
        assert position_side is not None
        return Terms(
            account_id=request.account_id,
            instrument_id=request.instrument_id,
            position_side=position_side,
            gateway_id=request.gateway_id,
            side=request.side,
            order_type=request.order_type,
            flags=request.flags,
            price_ticks=request.price_ticks,
            trigger_price=request.trigger_price_ticks,
            trailing_offset=request.trailing_offset_ticks,
            reserves=reserves,
        )

    def _accept(
        self, request: orders_pb.CheckOrderRequest, terms: Terms, quantity: int, now_ns: int
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
            reply.account_asset_id = self._foreign_account_asset(terms.key)
        filled = self._fill(terms, quantity, price)
        reply.liquidation_status, reply.liquidation_price_ticks = self._liquidation_after(
            terms, filled
        )
        if terms.reserves:
            self._reserve(request, terms, new, quantity, now_ns)
            self._raise_peaks(terms.account_id)
            self._take_credit(terms.account_id)
        return reply

    def _liquidation_after(self, terms: Terms, filled: Fill) -> tuple[Status, int]:
        """Return status and liquidation price in ticks after the fill of a whole order."""
        money = self._money_of(terms.key) + filled.cash_change
        # An order that only takes risk away is not stopped by a fill that does not fit.
        if filled.lots != 0 and not filled.fits(money):
            return t.LIQUIDATION_STATUS_UNSPECIFIED, 0
        return self._liquidation_ticks(terms.key, filled, money)

    def _reserve(
        self,
        request: orders_pb.CheckOrderRequest,
        terms: Terms,
        new: NewOrder,
        quantity: int,
        now_ns: int,
    ) -> None:
        self._positions.setdefault(terms.key, Position())
        order = Order(
            reservation_id=self._revision,
            account_id=request.account_id,
            instrument_id=request.instrument_id,
            position_side=terms.position_side,
            gateway_id=request.gateway_id,
            client_order_id=request.client_order_id,
            side=request.side,
            order_type=request.order_type,
            time_in_force=request.time_in_force,
            flags=request.flags,
            price_ticks=request.price_ticks,
            quantity=quantity,
            remaining=quantity,
            margin_price=new.margin_price,
            open_loss=new.sums.open_loss,
            trigger_price=request.trigger_price_ticks,
            trailing_offset=request.trailing_offset_ticks,
            expire_ns=request.expire_time_ns,
            accepted_ns=now_ns,
        )
        if order.closes_position:  # It closes what is open then, not what is open now.
            order = replace(order, quantity=0, remaining=0)
        self._orders[self._revision] = order

    # --- Step 3: form ---

    def _form_reason(self, request: orders_pb.CheckOrderRequest, now_ns: int) -> Reason:
        """F-17, F-16, F-3 to F-9, F-10, F-12, F-18 to F-20, F-14, F-15, F-11."""
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
        if not t.ORDER_TYPE_LIMIT <= request.order_type <= t.ORDER_TYPE_TRAILING_STOP:
            return t.REASON_CODE_ORDER_TYPE_NOT_SUPPORTED
        if request.time_in_force > t.TIME_IN_FORCE_GTD:
            return t.REASON_CODE_TIME_IN_FORCE_NOT_SUPPORTED
        if not has_valid_flags(request):
            return t.REASON_CODE_FLAG_NOT_SUPPORTED
        account = self._accounts[request.account_id]
        instrument = self._instruments[request.instrument_id]
        if self._position_side(account, request.instrument_id, request.position_side) is None:
            return t.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED
        closes = bool(request.flags & orders_pb.ORDER_FLAG_CLOSE_POSITION)
        if request.quantity_lots == 0 and not closes:
            return t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE
        reason = price_form_reason(
            instrument,
            request.order_type,
            request.price_ticks,
            request.trigger_price_ticks,
            request.trailing_offset_ticks,
        )
        if reason != NONE:
            return reason
        if request.time_in_force == t.TIME_IN_FORCE_GTD:
            if request.expire_time_ns <= now_ns:
                return t.REASON_CODE_EXPIRE_TIME_OUT_OF_RANGE
        elif request.expire_time_ns != 0:
            return t.REASON_CODE_EXPIRE_TIME_OUT_OF_RANGE
        if not self._can_trade(account, instrument):
            return t.REASON_CODE_SETTLEMENT_ASSET_MISMATCH
        mode = self._mode(request.account_id, request.instrument_id)
        if request.margin_mode not in (t.MARGIN_MODE_UNSPECIFIED, mode):
            return t.REASON_CODE_MARGIN_MODE_MISMATCH
        in_quote = request.flags & orders_pb.ORDER_FLAG_QUOTE_QUANTITY
        if request.quantity_lots > (QUOTE_MAX if in_quote else COUNT_MAX):
            return t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        if closes and request.quantity_lots != 0:
            return t.REASON_CODE_QUANTITY_OUT_OF_RANGE
        return NONE

    def _derived_quantity(
        self, request: orders_pb.CheckOrderRequest, terms: Terms
    ) -> tuple[Reason, int]:
        """Return the quantity of an order that does not give it in lots, or why there is none."""
        if request.flags & orders_pb.ORDER_FLAG_CLOSE_POSITION:
            largest = self._largest_reducing(terms)
            return (NONE if largest else t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE), largest
        reference = self._reference_price(terms)
        if reference is None:
            return t.REASON_CODE_MARK_MISSING, 0
        # As many lots as the amount can come to, at the cheapest price that the buffer reaches.
        # Of an inverse contract a lot is worth less coin at a higher price.
        instrument = self._instruments[terms.instrument_id]
        sign = 1 if is_inverse(instrument.kind) else -1
        price = self._moved_by_buffer(terms.instrument_id, reference, sign)
        one_lot = self._value_in_ticks(instrument, price, 1)
        quantity = floor(request.quantity_lots / one_lot)
        if quantity == 0:
            return t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE, 0
        if quantity > COUNT_MAX:
            return t.REASON_CODE_QUANTITY_OUT_OF_RANGE, 0
        return NONE, quantity

    # --- The explanation ---

    def _detail(
        self, terms: Terms, quantity: int, now_ns: int, violations: list[Violation], view: int
    ) -> orders_pb.DecisionDetail:
        instrument = self._instruments[terms.instrument_id]
        mark = self._marks.get(terms.instrument_id)
        detail = orders_pb.DecisionDetail(
            mark_price=mark.price if mark else 0,
            mark_time_ns=mark.time_ns if mark else 0,
            leverage_hundredths=self._leverage(terms.account_id, terms.instrument_id),
            equity_in_account_asset=self._is_foreign(terms.key)
            and not self._is_isolated(terms.key),
        )
        filled = self._fill(terms, quantity, self._known_price(terms))
        fill_fits = self._fill_fits(terms, filled)
        if not is_contract(instrument.kind):
            detail.position_lots = filled.lots if fill_fits else 0
        else:
            detail.schedule_version = self._schedule_of(terms.instrument_id).version
            after = self._position_after(terms, filled) if mark and fill_fits else None
            if after is not None:
                detail.position_initial_margin_minor = clamp(after.initial_margin)
                detail.position_maintenance_margin_minor = clamp(after.maintenance)
                detail.position_unrealised_pnl_minor = after.unrealised_pnl
                detail.equity_minor = after.equity
                detail.margin_ratio_ppm = after.margin_ratio
                detail.bankruptcy_price_ticks = after.bankruptcy_ticks
                detail.position_lots = after.lots
                detail.tier_index = after.tier
        if view == orders_pb.DECISION_VIEW_FULL:
            for each in violations[:VIOLATIONS_MAX]:
                detail.violations.add(
                    reason=each.reason,
                    limit=each.limit,
                    use=each.use,
                    order_use=each.order_use,
                    scope=t.LimitScope.ValueType(each.scope),
                    scope_id=each.scope_id,
                    soft=each.soft,
                    in_lots=each.in_lots,
                )
            greeks = self._greeks(instrument, now_ns)
            if greeks is not None:
                detail.greeks.CopyFrom(greeks)
        return detail

    def _greeks(self, instrument: InstrumentRow, now_ns: int) -> orders_pb.Greeks | None:
        mark = self._marks.get(instrument.instrument_id)
        if not is_option(instrument.kind) or mark is None or mark.volatility_ppb == 0:
            return None
        forward = self._forward(instrument, mark)
        if forward is None:
            return None
        return black76(
            is_call=instrument.option_type == 1,
            forward=forward,
            strike=instrument.strike_units * mark_unit(self._quoted(instrument)),
            volatility=Fraction(mark.volatility_ppb, BILLION),
            years=Fraction(max(0, instrument.expiry_ns - now_ns), YEAR_NS),
            rate=Fraction(instrument.interest_rate_ppb, BILLION),
        )

    def _forward(self, instrument: InstrumentRow, mark: Mark) -> Fraction | None:
        """Return the forward in quote currency: the reported one, or the underlying's mark."""
        if mark.forward != 0:
            return mark.forward * mark_unit(self._quoted(instrument))
        underlying_mark = self._marks.get(instrument.underlying_id)
        if underlying_mark is None:
            return None
        return underlying_mark.price * mark_unit(self._instruments[instrument.underlying_id])


def has_valid_flags(request: orders_pb.CheckOrderRequest) -> bool:
    """F-8."""
    if request.flags & ~KNOWN_FLAGS:
        return False
    has_limit_price = request.order_type in LIMIT_PRICED
    takes_at_once = request.time_in_force in (t.TIME_IN_FORCE_IOC, t.TIME_IN_FORCE_FOK)
    if request.flags & orders_pb.ORDER_FLAG_POST_ONLY and (not has_limit_price or takes_at_once):
        return False
    in_quote = bool(request.flags & orders_pb.ORDER_FLAG_QUOTE_QUANTITY)
    closes = bool(request.flags & orders_pb.ORDER_FLAG_CLOSE_POSITION)
    return not (in_quote and (has_limit_price or closes))


def price_form_reason(
    instrument: InstrumentRow, order_type: int, price: int, trigger: int, offset: int
) -> Reason:
    """F-12, F-18, F-19: each price is there exactly when the type has it."""
    in_ticks_max = COUNT_MAX // instrument.mark_units_per_tick
    is_trailing = order_type == t.ORDER_TYPE_TRAILING_STOP
    if not is_price(price, order_type in LIMIT_PRICED, COUNT_MAX):
        return t.REASON_CODE_PRICE_OUT_OF_RANGE
    if not is_price(trigger, order_type in TRIGGERED, in_ticks_max):
        return t.REASON_CODE_TRIGGER_PRICE_OUT_OF_RANGE
    if not is_price(offset, is_trailing, in_ticks_max):
        return t.REASON_CODE_TRAILING_OFFSET_OUT_OF_RANGE
    return NONE


def is_price(ticks: int, is_needed: bool, ticks_max: int) -> bool:
    return 1 <= ticks <= ticks_max if is_needed else ticks == 0
