"""SimulatePortfolio: a portfolio that need not exist, on a copy of the engine.

The copy is an engine like any other, so that a figure or a decision here is what the service would
say. Nothing of it goes on record, and the engine is locked only while it is copied.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riskd.catalogue import ENTRY_VALUE_MAX, Asset, Instrument
from riskd.core.engine import METHOD_CHECK_ORDER, METHOD_REPORT_MARKS
from riskd.core.rows import WhatIfPosition
from riskd.numbers import LEVERAGE_SCALE, RATE_SCALE, leverage_text, to_units
from riskd.services.backend import Backend
from riskd.services.errors import RefusalError, enum_name, reading, reason_name
from riskd.services.messages import Messages
from riskd.services.schedules import (
    LEVERAGE_MAX,
    LEVERAGE_MIN,
    PPB,
    check_quantity,
    invalid,
    read_schedule,
)
from riskd.v1 import instrument_service_pb2 as instrument_pb
from riskd.v1 import margin_service_pb2 as pb
from riskd.v1 import market_data_service_pb2 as mark_pb
from riskd.v1 import order_risk_service_pb2 as order_pb
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from riskd.core.engine import AccountRow, Engine, InstrumentRow

MARKS_PER_REPORT_MAX = 1024
VOLATILITY_MAX = 10 * PPB
# In a copy the account that starts empty has an id too.
EMPTY_ACCOUNT = 1
EMPTY_LEVERAGE = 2000

_MODES = (types_pb2.MARGIN_MODE_CROSS, types_pb2.MARGIN_MODE_ISOLATED)


def simulate(
    backend: Backend, request: pb.SimulatePortfolioRequest
) -> pb.SimulatePortfolioResponse:
    """Answer a what-if, or refuse it with the path of the field."""
    portfolio = _Portfolio.of(backend, request)
    revision = portfolio.engine.revision
    portfolio.take_schedules(request)
    portfolio.take_balances(request)
    portfolio.take_positions(request)
    portfolio.take_marks(request)
    decisions = [portfolio.decide(order, index) for index, order in enumerate(request.orders)]
    account_id = portfolio.account_id
    summary = portfolio.messages.summary(account_id)
    positions = portfolio.messages.positions(account_id)
    summary.account_id = request.account_id
    if request.account_id and summary.credit_line:
        # A copy has no firm: its line is what the firm leaves of it.
        summary.credit_line = portfolio.asset.amount(backend.account(account_id).credit_line)
    for position in positions:
        position.account_id = summary.account_id
    return pb.SimulatePortfolioResponse(
        summary=summary, positions=positions, decisions=decisions, revision=revision
    )


@dataclass(frozen=True, slots=True)
class _Portfolio:
    """A copy of the engine with one account, as it is changed by a request."""

    backend: Backend
    engine: "Engine"
    messages: Messages
    account_id: int
    asset: Asset
    instruments: "dict[int, InstrumentRow]"
    now_ns: int

    @classmethod
    def of(cls, backend: Backend, request: pb.SimulatePortfolioRequest) -> "_Portfolio":
        """Return a copy with the account of the request, or an empty one."""
        account_id = request.account_id
        if account_id:
            asset = backend.asset_of(backend.account(account_id).asset_id)
            for field in ("settlement_asset", "margin_mode", "position_mode"):
                if getattr(request, field):
                    value = getattr(request, field)
                    raise invalid(field, value, "not set, it is that of the account")
        else:
            asset = backend.asset(request.settlement_asset, "settlement_asset")
        engine = backend.engine.what_if(
            account_id,
            positions=len(request.positions),
            schedules=len(request.schedules),
            orders=len(request.orders),
        )
        messages = Messages(engine, backend.catalogue)
        portfolio = cls(
            backend,
            engine,
            messages,
            account_id or EMPTY_ACCOUNT,
            asset,
            {row.instrument_id: row for row in engine.instruments()},
            backend.clock(),
        )
        if not account_id:
            portfolio._open(request)
        return portfolio

    def _open(self, request: pb.SimulatePortfolioRequest) -> None:
        """Create the account that starts empty."""
        mode = request.margin_mode or types_pb2.MARGIN_MODE_CROSS
        if mode not in _MODES:
            name = enum_name(types_pb2.MarginMode.items(), mode, "MARGIN_MODE_")
            raise invalid("margin_mode", name, "CROSS, ISOLATED or not set")
        position_mode = request.position_mode or types_pb2.POSITION_MODE_ONE_WAY
        if position_mode not in (
            types_pb2.POSITION_MODE_ONE_WAY,
            types_pb2.POSITION_MODE_HEDGE,
        ):
            name = enum_name(types_pb2.PositionMode.items(), position_mode, "POSITION_MODE_")
            raise invalid("position_mode", name, "ONE_WAY, HEDGE or not set")
        self.engine.create_account(
            self.account_id, self.asset.asset_id, mode, EMPTY_LEVERAGE, 0, now_ns=self.now_ns
        )
        self.engine.set_position_mode(self.account_id, position_mode, now_ns=self.now_ns)

    def account(self) -> "AccountRow":
        """Return the account as it is now."""
        row = self.engine.account(self.account_id)
        assert row is not None, "a copy is made with its account"
        return row

    def take_schedules(self, request: pb.SimulatePortfolioRequest) -> None:
        """Put schedules in the place of those with the same name."""
        held = {row.name: row for row in self.engine.schedules()} if request.schedules else {}
        for index, schedule in enumerate(request.schedules):
            at = f"schedules[{index}]"
            asset = self.backend.asset(schedule.settlement_asset, f"{at}.settlement_asset")
            arguments = read_schedule(schedule, asset, at)
            row = held.get(schedule.name)
            if row is not None and row.asset_id != asset.asset_id:
                symbol = self.backend.asset_of(row.asset_id).symbol
                raise invalid(
                    f"{at}.settlement_asset", asset.symbol, f"{symbol} as of {schedule.name}"
                )
            reason, _ = self.engine.upsert_schedule(**arguments)
            if reason != types_pb2.REASON_CODE_NONE:
                raise RefusalError(reason, f"{at}: {reason_name(reason)}", field=at)

    def take_balances(self, request: pb.SimulatePortfolioRequest) -> None:
        """Put balances in the place of the account's."""
        seen: set[str] = set()
        for index, balance in enumerate(request.balances):
            at = f"balances[{index}]"
            asset = self.backend.asset(balance.asset, f"{at}.asset")
            if asset.symbol in seen:
                raise invalid(f"{at}.asset", asset.symbol, "an asset that is not there before")
            seen.add(asset.symbol)
            with reading(types_pb2.REASON_CODE_AMOUNT_OUT_OF_RANGE):
                amount = asset.minor(
                    balance.amount, f"{at}.amount", -ENTRY_VALUE_MAX, ENTRY_VALUE_MAX
                )
            self.engine.put_balance(self.account_id, asset.asset_id, amount)

    def take_positions(self, request: pb.SimulatePortfolioRequest) -> None:
        """Put positions in the place of the account's."""
        if not request.positions:
            return
        account = self.account()
        held = self.engine.positions(self.account_id) or []
        modes = {row.instrument_id: row.margin_mode for row in held}
        settings: dict[int, tuple[str, int, int]] = {}
        seen: dict[tuple[int, int], str] = {}
        for index, position in enumerate(request.positions):
            at = f"positions[{index}]"
            instrument = self._held(account, position.instrument_id, at)
            side = self._side(account, position.position_side, instrument, at)
            before = seen.setdefault((instrument.instrument_id, side), at)
            if before != at:
                bound = f"another instrument or position side than {before}"
                raise invalid(f"{at}.instrument_id", instrument.instrument_id, bound)
            mode, leverage = self._settings(position, instrument, at)
            # Both position sides have one mode and leverage.
            first, *both = settings.setdefault(instrument.instrument_id, (at, mode, leverage))
            for field, value, other in zip(
                ("margin_mode", "leverage"), (mode, leverage), both, strict=True
            ):
                if value != other:
                    raise invalid(f"{at}.{field}", getattr(position, field), f"that of {first}")
            effective = mode or modes.get(instrument.instrument_id, account.margin_mode)
            if instrument.isolated_only:
                if mode == types_pb2.MARGIN_MODE_CROSS:
                    bound = f"ISOLATED or not set, for {instrument.symbol} is isolated_only"
                    raise invalid(f"{at}.margin_mode", "CROSS", bound)
                effective = types_pb2.MARGIN_MODE_ISOLATED
            taken = self._position(position, instrument, side, effective, at)
            self.engine.put_position(
                self.account_id, taken._replace(margin_mode=mode, leverage=leverage)
            )

    def _held(self, account: "AccountRow", instrument_id: int, at: str) -> Instrument:
        """Return an instrument of which the account can have a position, or refuse."""
        found = self._known(instrument_id, at)
        if found.is_spot:
            raise invalid(f"{at}.instrument_id", found.symbol, "no SPOT pair: it has no position")
        if not self.backend.can_trade(account, found):
            raise RefusalError(
                types_pb2.REASON_CODE_SETTLEMENT_ASSET_MISMATCH,
                f"{at}.instrument_id: {found.symbol} settles in {found.asset.symbol}, the account "
                f"in {self.asset.symbol}",
                field=f"{at}.instrument_id",
                value=found.asset.symbol,
                bound=self.asset.symbol,
            )
        return found

    def _known(self, instrument_id: int, at: str) -> Instrument:
        """Return an instrument, or refuse; one that came after the copy is not known."""
        if instrument_id not in self.instruments:
            raise RefusalError(
                types_pb2.REASON_CODE_INSTRUMENT_UNKNOWN,
                f"{at}.instrument_id {instrument_id} is unknown",
                field=f"{at}.instrument_id",
                value=instrument_id,
            )
        return self.messages.instrument_of(instrument_id)

    def _side(
        self, account: "AccountRow", position_side: int, instrument: Instrument, at: str
    ) -> int:
        try:
            return self.backend.position_side(account, position_side, instrument)
        except RefusalError as refusal:
            field = f"{at}.position_side"
            raise RefusalError(
                types_pb2.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED,
                f"{at}.{refusal.message}",
                **(refusal.metadata | {"field": field}),
            ) from None

    def _settings(
        self,
        position: pb.SimulatedPosition,
        instrument: Instrument,
        at: str,
    ) -> tuple[int, int]:
        """Return mode and leverage as they are given; 0 where they are not."""
        mode = position.margin_mode
        if instrument.is_option:
            for field in ("margin_mode", "leverage"):
                if getattr(position, field):
                    raise invalid(
                        f"{at}.{field}", getattr(position, field), "not set for an option"
                    )
            return 0, 0
        if mode and mode not in _MODES:
            name = enum_name(types_pb2.MarginMode.items(), mode, "MARGIN_MODE_")
            raise invalid(f"{at}.margin_mode", name, "CROSS, ISOLATED or not set")
        if not position.leverage:
            return mode, 0
        schedule_id = self.instruments[instrument.instrument_id].schedule_id
        schedule = next(row for row in self.engine.schedules() if row.schedule_id == schedule_id)
        with reading(types_pb2.REASON_CODE_LEVERAGE_OUT_OF_RANGE):
            leverage = to_units(
                position.leverage, f"{at}.leverage", LEVERAGE_SCALE, LEVERAGE_MIN, LEVERAGE_MAX
            )
        top = schedule.tiers[0].leverage_max
        if leverage > top:
            bound = f"1 to {leverage_text(top)} by schedule {schedule.name}"
            raise RefusalError(
                types_pb2.REASON_CODE_LEVERAGE_OUT_OF_RANGE,
                f"{at}.leverage is {position.leverage!r}: must be {bound}",
                field=f"{at}.leverage",
                value=position.leverage,
                bound=bound,
            )
        return mode, leverage

    def _position(
        self,
        position: pb.SimulatedPosition,
        instrument: Instrument,
        side: int,
        mode: int,
        at: str,
    ) -> WhatIfPosition:
        """Return quantity, entry value and wallet, or refuse."""
        row = self.instruments[instrument.instrument_id]
        with reading(types_pb2.REASON_CODE_DEFINITION_INVALID):
            lots = instrument.lots(position.quantity, f"{at}.quantity", -(2**53))
        check_quantity(lots, side, f"{at}.quantity", position.quantity)
        if instrument.is_option and lots < 0 and not row.option_rule_id:
            raise RefusalError(
                types_pb2.REASON_CODE_SHORT_OPTION_NOT_PERMITTED,
                f"{at}.quantity is {position.quantity!r}: {instrument.symbol} has no option_rule, "
                "so that it may not be short",
                field=f"{at}.quantity",
                value=position.quantity,
                bound="0 or more",
            )
        if lots and row.settlement_price:
            raise invalid(f"{at}.quantity", position.quantity, f"0: {instrument.symbol} is settled")
        entry_value = _entry_value(position, instrument, lots, at)
        has_wallet = (
            not instrument.is_option and mode == types_pb2.MARGIN_MODE_ISOLATED and lots != 0
        )
        if has_wallet != bool(position.isolated_wallet):
            bound = "given for an isolated position" if has_wallet else "empty: it is not isolated"
            raise invalid(f"{at}.isolated_wallet", position.isolated_wallet, bound)
        wallet = 0
        if has_wallet:
            with reading(types_pb2.REASON_CODE_AMOUNT_OUT_OF_RANGE):
                wallet = instrument.asset.minor(
                    position.isolated_wallet, f"{at}.isolated_wallet", 0, ENTRY_VALUE_MAX
                )
        return WhatIfPosition(instrument.instrument_id, side, lots, entry_value, wallet)

    def take_marks(self, request: pb.SimulatePortfolioRequest) -> None:
        """Put marks in the place of the live ones; they are of now."""
        seen: dict[int, str] = {}
        marks: list[mark_pb.Mark] = []
        for index, mark in enumerate(request.marks):
            at = f"marks[{index}]"
            before = seen.setdefault(mark.instrument_id, at)
            if before != at:
                raise invalid(
                    f"{at}.instrument_id", mark.instrument_id, f"another than that of {before}"
                )
            marks.append(self._mark(mark, at))
        for start in range(0, len(marks), MARKS_PER_REPORT_MAX):
            report = mark_pb.ReportMarksRequest(marks=marks[start : start + MARKS_PER_REPORT_MAX])
            reply = mark_pb.ReportMarksResponse.FromString(
                self.engine.handle(METHOD_REPORT_MARKS, report.SerializeToString(), self.now_ns)
            )
            for refusal in reply.refusals:
                at = f"marks[{start + refusal.index}]"
                raise RefusalError(refusal.reason, f"{at}: {reason_name(refusal.reason)}", field=at)

    def _mark(self, mark: pb.SimulatedMark, at: str) -> mark_pb.Mark:
        instrument = self._known(mark.instrument_id, at)
        held = self.engine.mark(mark.instrument_id)
        with reading(types_pb2.REASON_CODE_MARK_OUT_OF_RANGE):
            price = instrument.mark_units(mark.mark_price, f"{at}.mark_price")
        with reading(types_pb2.REASON_CODE_OPTION_MARK_OUT_OF_RANGE):
            volatility = to_units(
                mark.implied_volatility or "0",
                f"{at}.implied_volatility",
                RATE_SCALE,
                0,
                VOLATILITY_MAX,
            )
            quoted = self._quoted(instrument)
            forward = quoted.mark_units(mark.forward, f"{at}.forward") if mark.forward else 0
        return mark_pb.Mark(
            instrument_id=mark.instrument_id,
            mark_price=price,
            # A mark that is held may be of a clock ahead of this one.
            time_ns=max(self.now_ns, held.time_ns if held else 0),
            implied_volatility_ppb=volatility,
            forward_price=forward,
        )

    def _quoted(self, instrument: Instrument) -> Instrument:
        """Return the instrument in whose mark units strike and forward are."""
        if instrument.kind != instrument_pb.INSTRUMENT_KIND_INVERSE_OPTION:
            return instrument
        underlying_id = self.instruments[instrument.instrument_id].underlying_id
        return self.messages.instrument_of(underlying_id)

    def decide(self, order: pb.SimulatedOrder, index: int) -> pb.SimulatedDecision:
        """Check and reserve an order as the service would."""
        at = f"orders[{index}]"
        instrument = self._known(order.instrument_id, at)
        side = self._side(self.account(), order.position_side, instrument, at)
        if order.side not in (types_pb2.SIDE_BUY, types_pb2.SIDE_SELL):
            name = enum_name(types_pb2.Side.items(), order.side, "SIDE_")
            raise _of(types_pb2.REASON_CODE_SIDE_INVALID, f"{at}.side", name, "BUY or SELL")
        order_type = order.order_type or types_pb2.ORDER_TYPE_LIMIT
        price = 0
        if order_type == types_pb2.ORDER_TYPE_LIMIT:
            with reading(types_pb2.REASON_CODE_PRICE_OUT_OF_RANGE):
                price = instrument.ticks(order.price, f"{at}.price")
        elif order_type != types_pb2.ORDER_TYPE_MARKET:
            name = enum_name(types_pb2.OrderType.items(), order_type, "ORDER_TYPE_")
            raise _of(
                types_pb2.REASON_CODE_ORDER_TYPE_NOT_SUPPORTED,
                f"{at}.order_type",
                name,
                "LIMIT, MARKET or not set",
            )
        elif order.price:
            raise _of(
                types_pb2.REASON_CODE_PRICE_OUT_OF_RANGE,
                f"{at}.price",
                order.price,
                "empty for a market order",
            )
        with reading(types_pb2.REASON_CODE_QUANTITY_OUT_OF_RANGE):
            lots = instrument.lots(order.quantity, f"{at}.quantity")
        check = order_pb.CheckOrderRequest(
            account_id=self.account_id,
            instrument_id=instrument.instrument_id,
            client_order_id=index + 1,
            side=order.side,
            order_type=order_type,
            price_ticks=price,
            quantity_lots=lots,
            gateway_id=1,
            position_side=types_pb2.PositionSide.ValueType(side),
        )
        reply = order_pb.CheckOrderResponse.FromString(
            self.engine.handle(METHOD_CHECK_ORDER, check.SerializeToString(), self.now_ns)
        )
        return pb.SimulatedDecision(
            decision=reply.decision,
            reason=reply.reason,
            reserved="" if reply.margin_unknown else self.asset.amount(reply.reserved_minor),
        )


def _entry_value(position: pb.SimulatedPosition, instrument: Instrument, lots: int, at: str) -> int:
    """Return the value at entry in minor units, or refuse."""
    if lots == 0:
        for field in ("entry_price", "entry_value"):
            if getattr(position, field):
                value = getattr(position, field)
                raise invalid(f"{at}.{field}", value, "empty where quantity is 0")
        return 0
    if bool(position.entry_price) == bool(position.entry_value):
        given = "given, unless entry_value is"
        bound = "empty where entry_value is given" if position.entry_value else given
        raise invalid(f"{at}.entry_price", position.entry_price, bound)
    with reading(types_pb2.REASON_CODE_DEFINITION_INVALID):
        if position.entry_price:
            return instrument.entry_value(position.entry_price, lots, f"{at}.entry_price")
        return instrument.asset.minor(position.entry_value, f"{at}.entry_value", 1, ENTRY_VALUE_MAX)


def _of(reason: int, field: str, value: object, bound: str) -> RefusalError:
    shown = str(value)[:64]
    return RefusalError(
        reason, f"{field} is {shown!r}: must be {bound}", field=field, value=shown, bound=bound
    )
