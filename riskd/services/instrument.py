"""InstrumentService: assets, margin schedules and instruments.

The engine checks every definition again; the checks here exist for their messages.
"""

import re
from typing import TYPE_CHECKING, Any

import grpc

from riskd.catalogue import Asset, Instrument
from riskd.core.rows import CollateralRow
from riskd.numbers import (
    INT64_MAX,
    RATE_SCALE,
    money_text,
    to_step,
    to_units,
)
from riskd.services.backend import Backend, page_bounds
from riskd.services.errors import RefusalError, enum_name, reading, reason_name
from riskd.services.messages import NS_PER_MS
from riskd.services.schedules import (
    FAMILY_OPTION_RULE,
    PPB,
    check_name,
    invalid,
    read_option_rule,
    read_rate,
    read_schedule,
)
from riskd.v1 import instrument_service_pb2 as pb
from riskd.v1 import types_pb2
from riskd.v1.instrument_service_pb2_grpc import InstrumentServiceServicer

if TYPE_CHECKING:
    from riskd.core.engine import InstrumentRow, ScheduleRow

SCALE_MAX = 12
TICK_VALUE_MAX = 2**40
LOT_VALUE_MAX = 2**60
LOT_UNITS_MAX = 2**70
MARK_UNITS_MAX = 10**9
COLLATERAL_TIERS_MAX = 8
AMOUNT_MAX = 2**62

_ASSET_SYMBOL = re.compile(r"[A-Z0-9]{1,15}", re.ASCII)

_INVALID = types_pb2.REASON_CODE_DEFINITION_INVALID

_OPTIONS = (pb.INSTRUMENT_KIND_LINEAR_OPTION, pb.INSTRUMENT_KIND_INVERSE_OPTION)
_FUTURES = (pb.INSTRUMENT_KIND_LINEAR_FUTURE, pb.INSTRUMENT_KIND_INVERSE_FUTURE)
_PERPETUALS = (
    pb.INSTRUMENT_KIND_LINEAR_PERPETUAL,
    pb.INSTRUMENT_KIND_INVERSE_PERPETUAL,
    pb.INSTRUMENT_KIND_QUANTO_PERPETUAL,
)
_KINDS = (*_PERPETUALS, *_FUTURES, *_OPTIONS, pb.INSTRUMENT_KIND_SPOT)

# Arguments of Engine.upsert_instrument that cannot change, and the field that each comes from.
_IMMUTABLE = {
    "kind": "kind",
    "asset_id": "settlement_asset",
    "tick_mantissa": "tick_size",
    "tick_exponent": "tick_size",
    "lot_mantissa": "lot_size",
    "lot_exponent": "lot_size",
    "mark_units_per_tick": "mark_units_per_tick",
    "multiplier_mantissa": "multiplier",
    "multiplier_exponent": "multiplier",
    "strike_units": "strike",
    "option_type": "option_type",
    "expiry_ns": "expiry_time_ns",
    "interest_rate_ppb": "interest_rate",
    "underlying_id": "underlying_instrument_id",
    "base_asset_id": "base_asset",
    "isolated_only": "isolated_only",
}
_OPTION_FIELDS = ("strike", "option_type", "underlying_instrument_id", "option_rule")
_DEFAULTS = {"multiplier_mantissa": 1}


class InstrumentService(InstrumentServiceServicer):
    """Assets, margin schedules and instruments."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def CreateAsset(
        self, request: pb.CreateAssetRequest, context: grpc.ServicerContext
    ) -> pb.CreateAssetResponse:
        if not _ASSET_SYMBOL.fullmatch(request.symbol):
            raise invalid("symbol", request.symbol, "1 to 15 of A-Z and 0-9")
        if request.scale > SCALE_MAX:
            raise invalid("scale", request.scale, f"0 to {SCALE_MAX}")
        reason, asset_id = self._backend.change(
            context, request, "create_asset", symbol=request.symbol, scale=request.scale
        )
        _accept(reason, f"asset {request.symbol}")
        return pb.CreateAssetResponse(
            asset=pb.Asset(asset_id=asset_id, symbol=request.symbol, scale=request.scale),
            revision=self._backend.engine.revision,
        )

    def ListAssets(
        self, request: pb.ListAssetsRequest, context: grpc.ServicerContext
    ) -> pb.ListAssetsResponse:
        engine = self._backend.engine
        revision = engine.revision
        return pb.ListAssetsResponse(
            assets=[
                pb.Asset(asset_id=row.asset_id, symbol=row.symbol, scale=row.scale)
                for row in engine.assets()
            ],
            revision=revision,
        )

    def UpsertMarginSchedule(
        self, request: pb.UpsertMarginScheduleRequest, context: grpc.ServicerContext
    ) -> pb.UpsertMarginScheduleResponse:
        backend = self._backend
        schedule = request.schedule
        asset = backend.asset(schedule.settlement_asset, "schedule.settlement_asset")
        arguments = read_schedule(schedule, asset, "schedule")
        with backend.change_lock:
            self._check_name_and_asset(schedule.name, asset, is_rule=False)
            reason, schedule_id = backend.change(context, request, "upsert_schedule", **arguments)
            _accept(reason, f"schedule {schedule.name}")
            revision = backend.engine.revision
            row = self._schedule_row(schedule_id)
        return pb.UpsertMarginScheduleResponse(
            schedule=backend.messages.schedule(row), revision=revision
        )

    def ListMarginSchedules(
        self, request: pb.ListMarginSchedulesRequest, context: grpc.ServicerContext
    ) -> pb.ListMarginSchedulesResponse:
        after_id, count_max = page_bounds(request.page_size, request.page_token)
        revision = self._backend.engine.revision
        rows = [row for row in self._schedules(is_rule=False) if row.schedule_id > after_id]
        return pb.ListMarginSchedulesResponse(
            schedules=[self._backend.messages.schedule(row) for row in rows[:count_max]],
            next_page_token=str(rows[count_max - 1].schedule_id) if len(rows) > count_max else "",
            revision=revision,
        )

    def UpsertOptionRule(
        self, request: pb.UpsertOptionRuleRequest, context: grpc.ServicerContext
    ) -> pb.UpsertOptionRuleResponse:
        backend = self._backend
        rule = request.rule
        asset = backend.asset(rule.settlement_asset, "rule.settlement_asset")
        arguments = read_option_rule(rule, asset, "rule")
        with backend.change_lock:
            self._check_name_and_asset(rule.name, asset, is_rule=True)
            reason, rule_id = backend.change(context, request, "upsert_option_rule", **arguments)
            _accept(reason, f"option rule {rule.name}")
            revision = backend.engine.revision
            row = self._schedule_row(rule_id)
        return pb.UpsertOptionRuleResponse(
            rule=backend.messages.option_rule(row), revision=revision
        )

    def ListOptionRules(
        self, request: pb.ListOptionRulesRequest, context: grpc.ServicerContext
    ) -> pb.ListOptionRulesResponse:
        revision = self._backend.engine.revision
        return pb.ListOptionRulesResponse(
            rules=[
                self._backend.messages.option_rule(row) for row in self._schedules(is_rule=True)
            ],
            revision=revision,
        )

    def UpsertInstrument(
        self, request: pb.UpsertInstrumentRequest, context: grpc.ServicerContext
    ) -> pb.UpsertInstrumentResponse:
        backend = self._backend
        arguments = self._read_instrument(request.instrument)
        symbol = request.instrument.symbol
        with backend.change_lock:
            held = next((row for row in backend.engine.instruments() if row.symbol == symbol), None)
            if held is not None:
                before = held._asdict()
                for argument, field in _IMMUTABLE.items():
                    if before[argument] != arguments.get(argument, _DEFAULTS.get(argument, 0)):
                        raise _immutable(
                            f"instrument {symbol}",
                            field,
                            _shown(getattr(request.instrument, field)),
                            _shown(getattr(self._backend.messages.instrument(held), field)),
                        )
            if arguments["trading_state"] == types_pb2.TRADING_STATE_UNSPECIFIED:
                # A change of fees must not lift a halt.
                arguments["trading_state"] = (
                    held.trading_state if held else types_pb2.TRADING_STATE_NORMAL
                )
            reason, instrument_id = backend.change(
                context, request, "upsert_instrument", symbol=symbol, **arguments
            )
            _accept(reason, f"instrument {symbol}")
            revision = backend.engine.revision
            row = next(
                row for row in backend.engine.instruments() if row.instrument_id == instrument_id
            )
        return pb.UpsertInstrumentResponse(
            instrument=backend.messages.instrument(row), revision=revision
        )

    def ListInstruments(
        self, request: pb.ListInstrumentsRequest, context: grpc.ServicerContext
    ) -> pb.ListInstrumentsResponse:
        after_id, count_max = page_bounds(request.page_size, request.page_token)
        revision = self._backend.engine.revision
        rows = [row for row in self._backend.engine.instruments() if row.instrument_id > after_id]
        return pb.ListInstrumentsResponse(
            instruments=[self._backend.messages.instrument(row) for row in rows[:count_max]],
            next_page_token=str(rows[count_max - 1].instrument_id) if len(rows) > count_max else "",
            revision=revision,
        )

    def DefineCollateral(
        self, request: pb.DefineCollateralRequest, context: grpc.ServicerContext
    ) -> pb.DefineCollateralResponse:
        backend = self._backend
        arguments = self._read_collateral(request.collateral)
        reason = backend.change(
            context,
            request,
            "define_collateral",
            validate_only=request.validate_only,
            **arguments,
        )
        _accept(reason, f"collateral {request.collateral.asset}")
        row = CollateralRow(**(arguments | {"tiers": tuple(arguments["tiers"])}))
        return pb.DefineCollateralResponse(
            collateral=backend.messages.collateral(row), revision=backend.engine.revision
        )

    def ListCollateral(
        self, request: pb.ListCollateralRequest, context: grpc.ServicerContext
    ) -> pb.ListCollateralResponse:
        engine = self._backend.engine
        revision = engine.revision
        return pb.ListCollateralResponse(
            collateral=[self._backend.messages.collateral(row) for row in engine.collateral()],
            revision=revision,
        )

    def ApplyFunding(
        self, request: pb.ApplyFundingRequest, context: grpc.ServicerContext
    ) -> pb.ApplyFundingResponse:
        backend = self._backend
        instrument = backend.instrument(request.instrument_id)
        if instrument.kind not in _PERPETUALS:
            kind = _kind_name(instrument.kind)
            raise invalid("instrument_id", request.instrument_id, f"a perpetual, it is {kind}")
        if request.time_ns > INT64_MAX:
            raise invalid("time_ns", request.time_ns, "1 to 2^63 - 1")
        with reading(_INVALID):
            rate = to_units(request.rate, "rate", RATE_SCALE, -PPB, PPB)
            price = instrument.mark_units(request.price, "price") if request.price else 0
        row = backend.change(
            context,
            request,
            "apply_funding",
            instrument_id=instrument.instrument_id,
            rate_ppb=rate,
            price=price,
            time_ns=request.time_ns,
            validate_only=request.validate_only,
        )
        if row.reason != types_pb2.REASON_CODE_NONE:
            raise self._money_refusal(row.reason, instrument, request.time_ns)
        amount = instrument.asset.amount
        return pb.ApplyFundingResponse(
            position_count=row.positions,
            paid=amount(row.paid),
            received=amount(row.received),
            revision=backend.engine.revision,
        )

    def SettleInstrument(
        self, request: pb.SettleInstrumentRequest, context: grpc.ServicerContext
    ) -> pb.SettleInstrumentResponse:
        backend = self._backend
        instrument = backend.instrument(request.instrument_id)
        if instrument.is_spot:
            bound = "a contract or an option, it is a SPOT pair"
            raise invalid("instrument_id", instrument.symbol, bound)
        with reading(_INVALID):
            price = self._strikes(instrument).mark_units(request.price, "price")
        row = backend.change(
            context,
            request,
            "settle_instrument",
            instrument_id=instrument.instrument_id,
            price=price,
            validate_only=request.validate_only,
        )
        if row.reason != types_pb2.REASON_CODE_NONE:
            raise self._money_refusal(row.reason, instrument, 0)
        amount = instrument.asset.amount
        return pb.SettleInstrumentResponse(
            position_count=row.positions,
            released_order_count=row.orders,
            profit=amount(row.profit),
            loss=amount(row.loss),
            deficit=amount(row.deficit),
            revision=backend.engine.revision,
        )

    def _strikes(self, instrument: Instrument) -> Instrument:
        """Return the instrument in whose mark units a strike or settlement price is."""
        if instrument.kind != pb.INSTRUMENT_KIND_INVERSE_OPTION:
            return instrument
        return self._backend.instrument(self._row(instrument).underlying_id)

    def _row(self, instrument: Instrument) -> "InstrumentRow":
        return next(
            row
            for row in self._backend.engine.instruments()
            if row.instrument_id == instrument.instrument_id
        )

    def _money_refusal(self, reason: int, instrument: Instrument, time_ns: int) -> RefusalError:
        """Return the refusal of a funding or settlement, with both sides where known."""
        row = self._row(instrument)
        symbol = instrument.symbol
        numbers: dict[str, object] = {"instrument": symbol}
        text = f"{symbol}: {reason_name(reason)}"
        match reason:
            case types_pb2.REASON_CODE_INSTRUMENT_SETTLED:
                price = self._strikes(instrument).mark_price(row.settlement_price)
                numbers["settlement_price"] = price
                text = f"{symbol} is settled, at {price}"
            case types_pb2.REASON_CODE_INSTRUMENT_NOT_EXPIRED:
                numbers["expiry_time_ns"] = row.expiry_ns
                expiry = f"expires at {row.expiry_ns}" if row.expiry_ns else "never expires"
                text = f"{symbol} {expiry} and is not HALTED: halt it, or settle it after expiry"
            case types_pb2.REASON_CODE_FUNDING_OUT_OF_ORDER:
                bound = f"above {row.funding_time_ns}, at most a second from now"
                numbers |= {"field": "time_ns", "value": time_ns, "bound": bound}
                text = f"time_ns is {time_ns}: must be {bound}"
            case types_pb2.REASON_CODE_MARK_MISSING:
                text = f"price is empty and no mark was reported of {symbol}"
            case types_pb2.REASON_CODE_MARGIN_OVERFLOWS:
                text = f"{symbol}: a payment, a wallet, cash or a sum does not fit: nothing is done"
        return RefusalError(reason, text, **numbers)

    def _read_collateral(self, collateral: pb.Collateral) -> dict[str, Any]:
        """Return the arguments of Engine.define_collateral, or refuse."""
        at = "collateral"
        asset = self._backend.asset(collateral.asset, f"{at}.asset")
        settlement = self._backend.asset(collateral.settlement_asset, f"{at}.settlement_asset")
        if asset == settlement:
            raise invalid(f"{at}.asset", asset.symbol, "another than the settlement asset")
        index = self._backend.instrument(collateral.index_instrument_id)
        if index.kind in _OPTIONS or index.is_inverse or index.asset != settlement:
            raise invalid(
                f"{at}.index_instrument_id",
                index.symbol,
                f"a linear contract or SPOT in {settlement.symbol}",
            )
        if not 1 <= len(collateral.tiers) <= COLLATERAL_TIERS_MAX:
            count = f"{len(collateral.tiers)} tiers"
            raise invalid(f"{at}.tiers", count, f"1 to {COLLATERAL_TIERS_MAX} tiers")
        with reading(_INVALID):
            tiers = _read_collateral_tiers(collateral, asset, at)
            cap = asset.minor(collateral.cap, f"{at}.cap", 1, AMOUNT_MAX) if collateral.cap else 0
            free = asset.minor(collateral.interest_free or "0", f"{at}.interest_free", 0)
            forced = asset.minor(collateral.forced_conversion or "0", f"{at}.forced_conversion", 0)
            liability = to_units(
                collateral.liability_weight or "1",
                f"{at}.liability_weight",
                RATE_SCALE,
                PPB,
                10 * PPB,
            )
            wrong_way = to_units(
                collateral.wrong_way_rate or "0", f"{at}.wrong_way_rate", RATE_SCALE, 0, PPB
            )
        if forced and forced < free:
            bound = f"at least interest_free {collateral.interest_free}, or 0"
            raise invalid(f"{at}.forced_conversion", collateral.forced_conversion, bound)
        return {
            "asset_id": asset.asset_id,
            "settlement_asset_id": settlement.asset_id,
            "index_instrument_id": index.instrument_id,
            "tiers": tiers,
            "cap": cap,
            "liability_ppb": liability,
            "interest_free": free,
            "forced_conversion": forced,
            "wrong_way_ppb": wrong_way,
        }

    def _schedules(self, *, is_rule: bool) -> list["ScheduleRow"]:
        """Return the margin schedules, or the option rules, which are in the same table."""
        return [
            row
            for row in self._backend.engine.schedules()
            if (row.family == FAMILY_OPTION_RULE) == is_rule
        ]

    def _schedule_row(self, schedule_id: int) -> "ScheduleRow":
        return next(
            row for row in self._backend.engine.schedules() if row.schedule_id == schedule_id
        )

    def _check_name_and_asset(self, name: str, asset: Asset, *, is_rule: bool) -> None:
        """Refuse to make a rule of a schedule, a schedule of a rule, or to change the asset."""
        kinds = {False: "margin schedule", True: "option rule"}
        for row in self._backend.engine.schedules():
            if row.name != name:
                continue
            if (row.family == FAMILY_OPTION_RULE) != is_rule:
                raise _immutable(name, "what it is", kinds[is_rule], kinds[not is_rule])
            if row.asset_id != asset.asset_id:
                held = self._backend.asset_of(row.asset_id).symbol
                what = "option rule" if is_rule else "schedule"
                raise _immutable(f"{what} {name}", "settlement_asset", asset.symbol, held)

    def _read_instrument(self, instrument: pb.Instrument) -> dict[str, int]:
        """Return the arguments of Engine.upsert_instrument but the symbol, or refuse."""
        check_name(instrument.symbol, "instrument.symbol")
        if instrument.kind not in _KINDS:
            name = enum_name(pb.InstrumentKind.items(), instrument.kind, "INSTRUMENT_KIND_")
            raise invalid("instrument.kind", name, f"one of {', '.join(map(_kind_name, _KINDS))}")
        asset = self._backend.asset(instrument.settlement_asset, "instrument.settlement_asset")
        units = instrument.mark_units_per_tick
        if not 1 <= units <= MARK_UNITS_MAX:
            raise invalid("instrument.mark_units_per_tick", units, f"1 to {MARK_UNITS_MAX}")
        with reading(_INVALID):
            tick = to_step(instrument.tick_size, "instrument.tick_size")
            lot = to_step(instrument.lot_size, "instrument.lot_size")
            multiplier = to_step(instrument.multiplier or "1", "instrument.multiplier")
            steps = Instrument(
                0, instrument.symbol, instrument.kind, asset, *tick, *lot, units, *multiplier
            )
            _check_value(instrument, steps)
            arguments = _read_limits(instrument, steps)
            if steps.is_option:
                arguments |= self._read_option(instrument, steps)
            elif steps.is_spot:
                arguments |= self._read_spot(instrument, steps)
            else:
                arguments |= self._read_contract(instrument, asset)
        if instrument.base_asset and steps.is_option:
            kind = _kind_name(instrument.kind)
            raise invalid("instrument.base_asset", instrument.base_asset, f"not set for a {kind}")
        if instrument.isolated_only and (steps.is_option or steps.is_spot):
            bound = f"false for a {_kind_name(instrument.kind)}"
            raise invalid("instrument.isolated_only", "true", bound)
        if not 0 <= instrument.trading_state <= types_pb2.TRADING_STATE_HALTED:
            raise invalid(
                "instrument.trading_state",
                instrument.trading_state,
                "NORMAL, REDUCE_ONLY, HALTED, or not set to keep it",
            )
        arguments |= {
            "kind": instrument.kind,
            "asset_id": asset.asset_id,
            "tick_mantissa": tick[0],
            "tick_exponent": tick[1],
            "lot_mantissa": lot[0],
            "lot_exponent": lot[1],
            "mark_units_per_tick": units,
            "trading_state": instrument.trading_state,
        }
        if instrument.isolated_only:
            arguments["isolated_only"] = 1
        if multiplier != (1, 0):
            arguments |= {
                "multiplier_mantissa": multiplier[0],
                "multiplier_exponent": multiplier[1],
            }
        return arguments

    def _read_contract(self, instrument: pb.Instrument, asset: Asset) -> dict[str, int]:
        kind = _kind_name(instrument.kind)
        _check_not_set(instrument, _OPTION_FIELDS)
        expiry_ns = instrument.expiry_time_ns
        if instrument.kind in _FUTURES:
            _check_expiry(expiry_ns)
        elif expiry_ns:
            raise invalid("instrument.expiry_time_ns", expiry_ns, f"not set for a {kind}")
        schedule_id = self._definition(
            "instrument.margin_schedule", instrument.margin_schedule, asset, is_rule=False
        )
        arguments = {"schedule_id": schedule_id, "expiry_ns": expiry_ns}
        if instrument.base_asset:
            base = self._backend.asset(instrument.base_asset, "instrument.base_asset")
            arguments["base_asset_id"] = base.asset_id
        return arguments

    def _read_spot(self, instrument: pb.Instrument, steps: Instrument) -> dict[str, int]:
        _check_not_set(instrument, (*_OPTION_FIELDS, "margin_schedule", "expiry_time_ns"))
        if (steps.multiplier_mantissa, steps.multiplier_exponent) != (1, 0):
            raise invalid("instrument.multiplier", instrument.multiplier, "empty or 1 for a SPOT")
        base = self._backend.asset(instrument.base_asset, "instrument.base_asset")
        if base == steps.asset:
            raise invalid("instrument.base_asset", base.symbol, "another than settlement_asset")
        exponent = steps.lot_exponent + base.scale
        value, rest = divmod(
            steps.lot_mantissa * int(10 ** max(exponent, 0)), int(10 ** max(-exponent, 0))
        )
        if rest or not 1 <= value <= TICK_VALUE_MAX:
            unit = f"{money_text(1, base.scale)} {base.symbol}"
            bound = f"1 to 2^40 whole minor units of {unit}"
            raise invalid("instrument.lot_size", instrument.lot_size, bound)
        return {"schedule_id": 0, "base_asset_id": base.asset_id}

    def _definition(self, field: str, name: str, asset: Asset, *, is_rule: bool) -> int:
        """Return the id of a schedule or an option rule in an asset, or refuse."""
        rows = self._schedules(is_rule=is_rule)
        row = next((row for row in rows if row.name == name), None)
        if row is None:
            known = ", ".join(row.name for row in rows[:20]) or "none"
            what = "option rules" if is_rule else "schedules"
            raise RefusalError(
                types_pb2.REASON_CODE_SCHEDULE_UNKNOWN,
                f"{field} {name[:64]!r} is unknown: the {what} are {known}",
                field=field,
                value=name[:64],
            )
        if row.asset_id != asset.asset_id:
            held = self._backend.asset_of(row.asset_id).symbol
            what = "an option rule" if is_rule else "a schedule"
            raise invalid(field, name, f"{what} in {asset.symbol}, it is in {held}")
        return row.schedule_id

    def _read_option(self, instrument: pb.Instrument, steps: Instrument) -> dict[str, int]:
        if instrument.margin_schedule:
            raise invalid(
                "instrument.margin_schedule",
                instrument.margin_schedule,
                "empty for an option: option_rule is what it may have",
            )
        _check_expiry(instrument.expiry_time_ns)
        if instrument.option_type not in (pb.OPTION_TYPE_CALL, pb.OPTION_TYPE_PUT):
            name = enum_name(pb.OptionType.items(), instrument.option_type, "OPTION_TYPE_")
            raise invalid("instrument.option_type", name, "CALL or PUT")
        underlying_id = instrument.underlying_instrument_id
        underlying = self._backend.instrument(underlying_id) if underlying_id else None
        is_in_coin = instrument.kind == pb.INSTRUMENT_KIND_INVERSE_OPTION
        if underlying is None and (is_in_coin or instrument.option_rule):
            bound = "the instrument whose mark counts for " + (
                "an INVERSE_OPTION" if is_in_coin else f"option_rule {instrument.option_rule}"
            )
            raise invalid("instrument.underlying_instrument_id", 0, bound)
        strikes = steps
        if underlying is not None:
            if underlying.kind in _OPTIONS:
                bound = f"a contract, {underlying.symbol} is an option"
                raise invalid("instrument.underlying_instrument_id", underlying_id, bound)
            if is_in_coin:
                strikes = underlying
            elif instrument.option_rule and not _same_unit(steps, underlying):
                raise invalid(
                    "instrument.tick_size",
                    instrument.tick_size,
                    f"such that tick_size / mark_units_per_tick is that of {underlying.symbol}: "
                    "a short option counts the mark of its underlying",
                )
        arguments = {
            "schedule_id": 0,
            "expiry_ns": instrument.expiry_time_ns,
            "strike_units": strikes.mark_units(instrument.strike, "instrument.strike"),
            "option_type": instrument.option_type,
            "interest_rate_ppb": read_rate(
                instrument.interest_rate, "instrument.interest_rate", -PPB, PPB
            ),
            "underlying_id": underlying_id,
        }
        if instrument.option_rule:
            arguments["option_rule_id"] = self._definition(
                "instrument.option_rule", instrument.option_rule, steps.asset, is_rule=True
            )
        return arguments


def _read_collateral_tiers(
    collateral: pb.Collateral, asset: Asset, at: str
) -> list[tuple[int, int]]:
    """Return (floor, weight) of each tier. Raises NumberError."""
    tiers: list[tuple[int, int]] = []
    for index, tier in enumerate(collateral.tiers):
        path = f"{at}.tiers[{index}]"
        floor = asset.minor(tier.floor or "0", f"{path}.floor", 0, AMOUNT_MAX)
        weight = to_units(tier.weight, f"{path}.weight", RATE_SCALE, 0, PPB)
        if not tiers and floor:
            raise invalid(f"{path}.floor", tier.floor, "0 in the first tier")
        if tiers:
            below = collateral.tiers[index - 1]
            if floor <= tiers[-1][0]:
                raise invalid(f"{path}.floor", tier.floor, f"above {below.floor} of the tier below")
            if weight > tiers[-1][1]:
                bound = f"at most {below.weight} of the tier below"
                raise invalid(f"{path}.weight", tier.weight, bound)
        tiers.append((floor, weight))
    return tiers


def _read_limits(instrument: pb.Instrument, steps: Instrument) -> dict[str, int]:
    """Return the limits and rates of an instrument; 0 is no bound. Raises NumberError."""
    age_max_ms = INT64_MAX // NS_PER_MS
    if instrument.mark_age_max_ms > age_max_ms:
        raise invalid(
            "instrument.mark_age_max_ms", instrument.mark_age_max_ms, f"0 to {age_max_ms}"
        )
    limits = {
        "order_lots_min": _lots(steps, instrument.order_quantity_min, "order_quantity_min"),
        "order_lots_max": _lots(steps, instrument.order_quantity_max, "order_quantity_max"),
        "order_notional_min": _amount(
            steps.asset, instrument.order_notional_min, "instrument.order_notional_min"
        ),
        "order_notional_max": _amount(
            steps.asset, instrument.order_notional_max, "instrument.order_notional_max"
        ),
        "price_collar_ppb": read_rate(
            instrument.price_collar_rate, "instrument.price_collar_rate", 0, PPB
        ),
        "market_buffer_ppb": read_rate(
            instrument.market_order_buffer_rate, "instrument.market_order_buffer_rate", 0, PPB - 1
        ),
        "taker_fee_ppb": read_rate(instrument.taker_fee_rate, "instrument.taker_fee_rate", 0, PPB),
        "mark_age_max_ns": instrument.mark_age_max_ms * NS_PER_MS,
    }
    for name, low, high in (
        ("quantity", limits["order_lots_min"], limits["order_lots_max"]),
        ("notional", limits["order_notional_min"], limits["order_notional_max"]),
    ):
        if high and low > high:
            raise invalid(
                f"instrument.order_{name}_max",
                getattr(instrument, f"order_{name}_max"),
                f"at least order_{name}_min {getattr(instrument, f'order_{name}_min')}",
            )
    return limits


def _kind_name(kind: int) -> str:
    return enum_name(pb.InstrumentKind.items(), kind, "INSTRUMENT_KIND_")


def _check_not_set(instrument: pb.Instrument, fields: tuple[str, ...]) -> None:
    """Refuse what an instrument of this kind does not have."""
    kind = _kind_name(instrument.kind)
    for field in fields:
        if getattr(instrument, field):
            value = getattr(instrument, field)
            raise invalid(f"instrument.{field}", value, f"not set for a {kind}")
    if read_rate(instrument.interest_rate, "instrument.interest_rate", -PPB, PPB):
        value = instrument.interest_rate
        raise invalid("instrument.interest_rate", value, f"empty or 0 for a {kind}")


def _check_expiry(expiry_ns: int) -> None:
    if not 0 < expiry_ns <= INT64_MAX:
        raise invalid("instrument.expiry_time_ns", expiry_ns, "1 to 2^63 - 1")


def _same_unit(a: Instrument, b: Instrument) -> bool:
    """Whether marks of both count in the same step."""
    return a.tick_size * b.mark_units_per_tick == b.tick_size * a.mark_units_per_tick


def _check_value(instrument: pb.Instrument, steps: Instrument) -> None:
    """Refuse steps that do not make a whole number of minor units, within bounds."""
    asset = steps.asset
    numerator = steps.lot_mantissa * steps.multiplier_mantissa
    denominator = 1
    exponent = steps.lot_exponent + steps.multiplier_exponent + asset.scale
    if steps.is_inverse:
        denominator = steps.tick_mantissa
        exponent -= steps.tick_exponent
    else:
        numerator *= steps.tick_mantissa
        exponent += steps.tick_exponent
    numerator *= int(10 ** max(exponent, 0))
    denominator *= int(10 ** max(-exponent, 0))
    value, rest = divmod(numerator, denominator)
    unit = f"{money_text(1, asset.scale)} {asset.symbol}"
    factors = f"lot_size {instrument.lot_size} * multiplier {instrument.multiplier or '1'}"
    if steps.is_inverse:
        formula, bound = f"{factors} / tick_size", "1 to 2^60"
        fits = value <= LOT_VALUE_MAX and value * steps.mark_units_per_tick <= LOT_UNITS_MAX
        bound += ", and 2^70 times mark_units_per_tick,"
    else:
        formula, bound = f"tick_size * {factors}", "1 to 2^40"
        fits = value <= TICK_VALUE_MAX
    if rest or value < 1 or not fits:
        raise invalid(
            "instrument.tick_size",
            instrument.tick_size,
            f"such that {formula} is {bound} whole minor units of {unit}",
        )


def _lots(steps: Instrument, text: str, field: str) -> int:
    """Return a quantity in lots; empty is 0, no bound."""
    return steps.lots(text, f"instrument.{field}") if text else 0


def _amount(asset: Asset, text: str, field: str) -> int:
    """Return an amount above 0 in minor units; empty is 0, no bound."""
    return asset.minor(text, field, 1) if text else 0


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"


def _immutable(what: str, field: str, value: str, held: str) -> RefusalError:
    return RefusalError(
        types_pb2.REASON_CODE_FIELD_IMMUTABLE,
        f"{what}: {field} is {held} and cannot change to {value}",
        field=field,
        value=value,
        bound=held,
    )


def _accept(reason: int, what: str) -> None:
    """Refuse what the engine refused."""
    if reason == types_pb2.REASON_CODE_NONE:
        return
    match reason:
        case types_pb2.REASON_CODE_ALREADY_EXISTS:
            text = f"{what} exists already"
        case types_pb2.REASON_CODE_INSTRUMENTS_FULL:
            text = f"{what}: the instrument table is full: setting instruments_max is its size"
        case types_pb2.REASON_CODE_SCHEDULES_FULL:
            text = f"{what}: the schedule table is full: setting schedules_max is its size"
        case _:
            text = f"{what}: {reason_name(reason)}"
    raise RefusalError(reason, text)
