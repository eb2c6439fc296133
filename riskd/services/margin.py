"""MarginService: reads of margin. Figures that need a mark that was never reported are empty."""

import math
from collections.abc import AsyncIterator, Callable, Iterable

import grpc

from riskd.numbers import to_units
from riskd.services.backend import Backend
from riskd.services.errors import FIELD_INVALID, RefusalError, enum_name, reading, reason_name
from riskd.services.risk_events import RiskEvents
from riskd.services.what_if import simulate
from riskd.v1 import instrument_service_pb2, types_pb2
from riskd.v1 import margin_service_pb2 as pb
from riskd.v1.margin_service_pb2_grpc import MarginServiceServicer

# Margin levels are multiples of the requirement in parts per million.
LEVEL_SCALE = 6
LEVEL_ONE = 10**LEVEL_SCALE
LEVEL_MAX = 10 * LEVEL_ONE

# (is_call, forward, strike, volatility, years, rate) to price and Greeks: riskd.core.black has it.
Greeks = Callable[
    [bool, float, float, float, float, float], tuple[float, float, float, float, float, float]
]


class MarginService(MarginServiceServicer):
    """Reads of margin. The revision of a reply is that of the state read, or a little older."""

    def __init__(self, backend: Backend, events: RiskEvents, greeks: Greeks) -> None:
        self._backend = backend
        self._events = events
        self._greeks = greeks

    def GetMarginSummary(
        self, request: pb.GetMarginSummaryRequest, context: grpc.ServicerContext
    ) -> pb.GetMarginSummaryResponse:
        backend = self._backend
        revision = backend.engine.revision
        summary = backend.messages.summary(backend.account(request.account_id).account_id)
        return pb.GetMarginSummaryResponse(summary=summary, revision=revision)

    def ListPositionMargins(
        self, request: pb.ListPositionMarginsRequest, context: grpc.ServicerContext
    ) -> pb.ListPositionMarginsResponse:
        backend = self._backend
        revision = backend.engine.revision
        account = backend.account(request.account_id)
        return pb.ListPositionMarginsResponse(
            positions=backend.messages.positions(account.account_id), revision=revision
        )

    def ComputeLiquidationPrice(
        self, request: pb.ComputeLiquidationPriceRequest, context: grpc.ServicerContext
    ) -> pb.ComputeLiquidationPriceResponse:
        backend = self._backend
        revision = backend.engine.revision
        account = backend.account(request.account_id)
        instrument = backend.instrument(request.instrument_id)
        side = backend.position_side(account, request.position_side, instrument)
        for position in backend.messages.positions(account.account_id):
            if (position.instrument_id, position.position_side) == (request.instrument_id, side):
                return pb.ComputeLiquidationPriceResponse(
                    liquidation_status=position.liquidation_status,
                    liquidation_price=position.liquidation_price,
                    bankruptcy_price=position.bankruptcy_price,
                    revision=revision,
                )
        return pb.ComputeLiquidationPriceResponse(
            liquidation_status=types_pb2.LIQUIDATION_STATUS_NO_POSITION, revision=revision
        )

    def ComputeMaxOrderSize(
        self, request: pb.ComputeMaxOrderSizeRequest, context: grpc.ServicerContext
    ) -> pb.ComputeMaxOrderSizeResponse:
        backend = self._backend
        account = backend.account(request.account_id)
        instrument = backend.instrument(request.instrument_id)
        side = backend.position_side(account, request.position_side, instrument)
        if request.side not in (types_pb2.SIDE_BUY, types_pb2.SIDE_SELL):
            raise _unknown("side", types_pb2.Side.items(), request.side, "BUY or SELL")
        price_ticks = 0
        if request.order_type == types_pb2.ORDER_TYPE_LIMIT:
            with reading(types_pb2.REASON_CODE_PRICE_OUT_OF_RANGE):
                price_ticks = instrument.ticks(request.price, "price")
        elif request.order_type != types_pb2.ORDER_TYPE_MARKET:
            raise _unknown(
                "order_type", types_pb2.OrderType.items(), request.order_type, "LIMIT or MARKET"
            )
        elif request.price:
            raise RefusalError(
                types_pb2.REASON_CODE_PRICE_OUT_OF_RANGE,
                f"price is {request.price[:64]!r}: must be empty for a market order",
                field="price",
                value=request.price[:64],
            )
        revision = backend.engine.revision
        lots, reason = backend.engine.max_order_lots(
            request.account_id,
            request.instrument_id,
            request.side,
            request.order_type,
            price_ticks,
            backend.clock(),
            side,
        )
        return pb.ComputeMaxOrderSizeResponse(
            quantity=instrument.quantity(lots),
            quantity_lots=lots,
            limiting_reason=types_pb2.ReasonCode.ValueType(reason),
            revision=revision,
        )

    def ComputeGreeks(
        self, request: pb.ComputeGreeksRequest, context: grpc.ServicerContext
    ) -> pb.ComputeGreeksResponse:
        option_types = instrument_service_pb2.OptionType
        if request.option_type not in (
            instrument_service_pb2.OPTION_TYPE_CALL,
            instrument_service_pb2.OPTION_TYPE_PUT,
        ):
            raise _unknown("option_type", option_types.items(), request.option_type, "CALL or PUT")
        _check_finite(request)
        try:
            price, delta, gamma, vega, theta, rho = self._greeks(
                request.option_type == instrument_service_pb2.OPTION_TYPE_CALL,
                request.forward,
                request.strike,
                request.volatility,
                request.time_years,
                request.interest_rate,
            )
        except ValueError as error:
            raise RefusalError(FIELD_INVALID, str(error)) from None
        return pb.ComputeGreeksResponse(
            price=price,
            delta=delta,
            gamma=gamma,
            vega_per_vol_point=vega,
            theta_per_day=theta,
            rho_per_point=rho,
            revision=self._backend.engine.revision,
        )

    def SimulatePortfolio(
        self, request: pb.SimulatePortfolioRequest, context: grpc.ServicerContext
    ) -> pb.SimulatePortfolioResponse:
        return simulate(self._backend, request)

    def SetMarginLevels(
        self, request: pb.SetMarginLevelsRequest, context: grpc.ServicerContext
    ) -> pb.SetMarginLevelsResponse:
        backend = self._backend
        with reading(types_pb2.REASON_CODE_DEFINITION_INVALID):
            search = to_units(request.search, "search", LEVEL_SCALE, 0, LEVEL_MAX)
            release = to_units(request.release, "release", LEVEL_SCALE, 0, LEVEL_MAX)
        if (search, release) != (0, 0) and not LEVEL_ONE < search < release:
            raise RefusalError(
                types_pb2.REASON_CODE_DEFINITION_INVALID,
                f"search is {request.search!r}, release {request.release!r}: must be above 1, and "
                "release above search, or both 0",
                field="search",
                value=request.search,
                bound="above 1, below release, or both 0",
            )
        reason = backend.change(
            context,
            request,
            "set_margin_levels",
            search_ppm=search,
            release_ppm=release,
            validate_only=request.validate_only,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise RefusalError(reason, f"margin levels: {reason_name(reason)}")
        return pb.SetMarginLevelsResponse(revision=backend.engine.revision)

    async def WatchRiskEvents(
        self, request: pb.WatchRiskEventsRequest, context: grpc.ServicerContext
    ) -> AsyncIterator[pb.WatchRiskEventsResponse]:
        async for message in self._events.watch(request):
            yield message


def _check_finite(request: pb.ComputeGreeksRequest) -> None:
    """Refuse NaN, infinities and numbers below the field's bound."""
    for field, value, is_in_bound, bound in (
        ("forward", request.forward, request.forward > 0, "above 0, finite"),
        ("strike", request.strike, request.strike > 0, "above 0, finite"),
        ("volatility", request.volatility, request.volatility >= 0, "zero or more, finite"),
        ("time_years", request.time_years, request.time_years >= 0, "zero or more, finite"),
        ("interest_rate", request.interest_rate, True, "finite"),
    ):
        if not is_in_bound or not math.isfinite(value):
            raise RefusalError(
                FIELD_INVALID,
                f"{field} is {value}: must be {bound}",
                field=field,
                value=value,
                bound=bound,
            )


def _unknown(field: str, items: Iterable[tuple[str, int]], value: int, bound: str) -> RefusalError:
    reasons = {
        "side": types_pb2.REASON_CODE_SIDE_INVALID,
        "order_type": types_pb2.REASON_CODE_ORDER_TYPE_NOT_SUPPORTED,
    }
    name = enum_name(items, value, f"{field.upper()}_")
    return RefusalError(
        reasons.get(field, FIELD_INVALID),
        f"{field} is {name}: must be {bound}",
        field=field,
        value=value,
        bound=bound,
    )
