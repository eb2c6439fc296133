"""CheckOrder: identity, form, the answer and its explanation."""

from fractions import Fraction
from typing import Final

from riskd.core.rows import (
    InstrumentRow,
)
from riskd.reference.answers import ANSWER_ORDER, Answer
from riskd.reference.black import black76, mark_unit
from riskd.reference.figures import NewOrder, Terms
from riskd.reference.ladder import Ladder, Violation
from riskd.reference.numbers import BILLION, COUNT_MAX, YEAR_NS
from riskd.reference.state import NONE, OPTION, Mark, Order, Reason
from riskd.reference.wire import order_content, serialise
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

DETAILED_VIEWS: Final = (orders_pb.DECISION_VIEW_MARGIN, orders_pb.DECISION_VIEW_FULL)


class Decisions(Ladder):
    """CheckOrder."""

    def _check_order(self, request: orders_pb.CheckOrderRequest, now_ns: int) -> bytes:
        if request.client_order_id == 0:
            return serialise(self._form_reject(t.REASON_CODE_CLIENT_ORDER_ID_MISSING))
        if request.gateway_id == 0:
            return serialise(self._form_reject(t.REASON_CODE_GATEWAY_ID_MISSING))
        if request.mode == orders_pb.CHECK_MODE_CHECK_ONLY:
            return serialise(self._decide(request, now_ns))
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
        reply = serialise(self._decide(request, now_ns))
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


def has_valid_price(order_type: int, price_ticks: int) -> bool:
    """F-12 of an order's price."""
    if order_type == t.ORDER_TYPE_MARKET:
        return price_ticks == 0
    return 1 <= price_ticks <= COUNT_MAX
