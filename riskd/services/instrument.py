"""InstrumentService: assets, margin schedules and instruments.

The engine checks every definition again; the checks here exist for their messages.
"""

import re

import grpc

from riskd.catalogue import Asset, Instrument
from riskd.numbers import (
    INT64_MAX,
    LEVERAGE_SCALE,
    RATE_SCALE,
    decimal_text,
    money_text,
    to_step,
    to_units,
)
from riskd.services.account import LEVERAGE_MAX, LEVERAGE_MIN
from riskd.services.backend import Backend, enum_name, page_bounds
from riskd.services.errors import RefusalError, reading, reason_name
from riskd.services.messages import NS_PER_MS
from riskd.v1 import instrument_service_pb2 as pb
from riskd.v1 import types_pb2
from riskd.v1.instrument_service_pb2_grpc import InstrumentServiceServicer

SCALE_MAX = 12
TIERS_MAX = 32
TICK_VALUE_MAX = 2**40
MARK_UNITS_MAX = 10**9
PPB = 10**RATE_SCALE

_ASSET_SYMBOL = re.compile(r"[A-Z0-9]{1,15}", re.ASCII)
# No space: docs/state.md writes names between spaces.
_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,31}", re.ASCII)

_INVALID = types_pb2.REASON_CODE_DEFINITION_INVALID

# Arguments of Engine.upsert_instrument that cannot change, and the field that each comes from.
_IMMUTABLE = {
    "kind": "kind",
    "asset_id": "settlement_asset",
    "tick_mantissa": "tick_size",
    "tick_exponent": "tick_size",
    "lot_mantissa": "lot_size",
    "lot_exponent": "lot_size",
    "mark_units_per_tick": "mark_units_per_tick",
    "strike_units": "strike",
    "option_type": "option_type",
    "expiry_ns": "expiry_time_ns",
    "interest_rate_ppb": "interest_rate",
    "underlying_id": "underlying_instrument_id",
}


class InstrumentService(InstrumentServiceServicer):
    """Assets, margin schedules and instruments."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def CreateAsset(
        self, request: pb.CreateAssetRequest, context: grpc.ServicerContext
    ) -> pb.CreateAssetResponse:
        if not _ASSET_SYMBOL.fullmatch(request.symbol):
            raise _invalid("symbol", request.symbol, "1 to 15 of A-Z and 0-9")
        if request.scale > SCALE_MAX:
            raise _invalid("scale", request.scale, f"0 to {SCALE_MAX}")
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
        if not _NAME.fullmatch(schedule.name):
            raise _invalid("schedule.name", schedule.name, _name_bound())
        asset = backend.asset(schedule.settlement_asset, "schedule.settlement_asset")
        with reading(_INVALID):
            fee = _rate(schedule.liquidation_fee_rate, "schedule.liquidation_fee_rate", 0, PPB - 1)
            notional_max = _amount(asset, schedule.notional_max, "schedule.notional_max")
            tiers = _read_tiers(schedule, asset, fee)
        if notional_max and notional_max <= tiers[-1][0]:
            bound = f"above {asset.amount(tiers[-1][0])}, the floor of the last tier"
            raise _invalid("schedule.notional_max", schedule.notional_max, bound)
        with backend.change_lock:
            held = next(
                (row for row in backend.engine.schedules() if row.name == schedule.name), None
            )
            if held is not None and held.asset_id != asset.asset_id:
                raise _immutable(
                    f"schedule {schedule.name}",
                    "settlement_asset",
                    asset.symbol,
                    backend.asset_of(held.asset_id).symbol,
                )
            reason, schedule_id = backend.change(
                context,
                request,
                "upsert_schedule",
                name=schedule.name,
                asset_id=asset.asset_id,
                tiers=tiers,
                notional_max=notional_max,
                liquidation_fee_ppb=fee,
            )
            _accept(reason, f"schedule {schedule.name}")
            revision = backend.engine.revision
            row = next(row for row in backend.engine.schedules() if row.schedule_id == schedule_id)
        return pb.UpsertMarginScheduleResponse(
            schedule=backend.messages.schedule(row), revision=revision
        )

    def ListMarginSchedules(
        self, request: pb.ListMarginSchedulesRequest, context: grpc.ServicerContext
    ) -> pb.ListMarginSchedulesResponse:
        after_id, count_max = page_bounds(request.page_size, request.page_token)
        revision = self._backend.engine.revision
        rows = [row for row in self._backend.engine.schedules() if row.schedule_id > after_id]
        return pb.ListMarginSchedulesResponse(
            schedules=[self._backend.messages.schedule(row) for row in rows[:count_max]],
            next_page_token=str(rows[count_max - 1].schedule_id) if len(rows) > count_max else "",
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
                    if before[argument] != arguments.get(argument, 0):
                        raise _immutable(
                            f"instrument {symbol}",
                            field,
                            str(getattr(request.instrument, field)),
                            str(getattr(self._backend.messages.instrument(held), field)),
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

    def _read_instrument(self, instrument: pb.Instrument) -> dict[str, int]:
        """Return the arguments of Engine.upsert_instrument but the symbol, or refuse."""
        if not _NAME.fullmatch(instrument.symbol):
            raise _invalid("instrument.symbol", instrument.symbol, _name_bound())
        if instrument.kind not in (
            pb.INSTRUMENT_KIND_LINEAR_PERPETUAL,
            pb.INSTRUMENT_KIND_LINEAR_OPTION,
        ):
            name = enum_name(pb.InstrumentKind.items(), instrument.kind, "INSTRUMENT_KIND_")
            raise _invalid("instrument.kind", name, "LINEAR_PERPETUAL or LINEAR_OPTION")
        asset = self._backend.asset(instrument.settlement_asset, "instrument.settlement_asset")
        units = instrument.mark_units_per_tick
        if not 1 <= units <= MARK_UNITS_MAX:
            raise _invalid("instrument.mark_units_per_tick", units, f"1 to {MARK_UNITS_MAX}")
        with reading(_INVALID):
            tick = to_step(instrument.tick_size, "instrument.tick_size")
            lot = to_step(instrument.lot_size, "instrument.lot_size")
            _check_tick_value(instrument, tick, lot, asset)
            steps = Instrument(0, instrument.symbol, instrument.kind, asset, *tick, *lot, units)
            arguments = _read_limits(instrument, steps)
            if instrument.kind == pb.INSTRUMENT_KIND_LINEAR_OPTION:
                arguments |= self._read_option(instrument, steps)
            else:
                arguments |= self._read_perpetual(instrument, asset)
        if not 0 <= instrument.trading_state <= types_pb2.TRADING_STATE_HALTED:
            raise _invalid(
                "instrument.trading_state",
                instrument.trading_state,
                "NORMAL, REDUCE_ONLY, HALTED, or not set to keep it",
            )
        return arguments | {
            "kind": instrument.kind,
            "asset_id": asset.asset_id,
            "tick_mantissa": tick[0],
            "tick_exponent": tick[1],
            "lot_mantissa": lot[0],
            "lot_exponent": lot[1],
            "mark_units_per_tick": units,
            "trading_state": instrument.trading_state,
        }

    def _read_perpetual(self, instrument: pb.Instrument, asset: Asset) -> dict[str, int]:
        for field in (
            "expiry_time_ns",
            "strike",
            "option_type",
            "underlying_instrument_id",
        ):
            if getattr(instrument, field):
                raise _invalid(
                    f"instrument.{field}", getattr(instrument, field), "not set for a perpetual"
                )
        if _rate(instrument.interest_rate, "instrument.interest_rate", -PPB, PPB):
            raise _invalid(
                "instrument.interest_rate", instrument.interest_rate, "empty or 0 for a perpetual"
            )
        name = instrument.margin_schedule
        schedule_id = self._backend.catalogue.schedule_id(name)
        if schedule_id is None:
            known = ", ".join(row.name for row in self._backend.engine.schedules()[:20]) or "none"
            raise RefusalError(
                types_pb2.REASON_CODE_SCHEDULE_UNKNOWN,
                f"instrument.margin_schedule {name[:64]!r} is unknown: the schedules are {known}",
                field="instrument.margin_schedule",
                value=name[:64],
            )
        row = next(
            row for row in self._backend.engine.schedules() if row.schedule_id == schedule_id
        )
        if row.asset_id != asset.asset_id:
            raise _invalid(
                "instrument.margin_schedule",
                name,
                f"a schedule in {asset.symbol}, it is in "
                f"{self._backend.asset_of(row.asset_id).symbol}",
            )
        return {"schedule_id": schedule_id}

    def _read_option(self, instrument: pb.Instrument, steps: Instrument) -> dict[str, int]:
        if instrument.margin_schedule:
            raise _invalid(
                "instrument.margin_schedule",
                instrument.margin_schedule,
                "empty for an option: its premium is paid in full",
            )
        if not 0 < instrument.expiry_time_ns <= INT64_MAX:
            raise _invalid("instrument.expiry_time_ns", instrument.expiry_time_ns, "1 to 2^63 - 1")
        if instrument.option_type not in (pb.OPTION_TYPE_CALL, pb.OPTION_TYPE_PUT):
            name = enum_name(pb.OptionType.items(), instrument.option_type, "OPTION_TYPE_")
            raise _invalid("instrument.option_type", name, "CALL or PUT")
        underlying_id = instrument.underlying_instrument_id
        if underlying_id:
            self._backend.instrument(underlying_id)
        return {
            "schedule_id": 0,
            "expiry_ns": instrument.expiry_time_ns,
            "strike_units": steps.mark_units(instrument.strike, "instrument.strike"),
            "option_type": instrument.option_type,
            "interest_rate_ppb": _rate(
                instrument.interest_rate, "instrument.interest_rate", -PPB, PPB
            ),
            "underlying_id": underlying_id,
        }


def _read_limits(instrument: pb.Instrument, steps: Instrument) -> dict[str, int]:
    """Return the limits and rates of an instrument; 0 is no bound. Raises NumberError."""
    age_max_ms = INT64_MAX // NS_PER_MS
    if instrument.mark_age_max_ms > age_max_ms:
        raise _invalid(
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
        "price_collar_ppb": _rate(
            instrument.price_collar_rate, "instrument.price_collar_rate", 0, PPB
        ),
        "market_buffer_ppb": _rate(
            instrument.market_order_buffer_rate, "instrument.market_order_buffer_rate", 0, PPB - 1
        ),
        "taker_fee_ppb": _rate(instrument.taker_fee_rate, "instrument.taker_fee_rate", 0, PPB),
        "mark_age_max_ns": instrument.mark_age_max_ms * NS_PER_MS,
    }
    for name, low, high in (
        ("quantity", limits["order_lots_min"], limits["order_lots_max"]),
        ("notional", limits["order_notional_min"], limits["order_notional_max"]),
    ):
        if high and low > high:
            raise _invalid(
                f"instrument.order_{name}_max",
                getattr(instrument, f"order_{name}_max"),
                f"at least order_{name}_min {getattr(instrument, f'order_{name}_min')}",
            )
    return limits


def _read_tiers(
    schedule: pb.MarginSchedule, asset: Asset, fee_ppb: int
) -> list[tuple[int, int, int, int]]:
    """Return (floor, initial rate, maintenance rate, leverage) of each tier. Raises NumberError."""
    if not 1 <= len(schedule.tiers) <= TIERS_MAX:
        raise _invalid("schedule.tiers", f"{len(schedule.tiers)} tiers", f"1 to {TIERS_MAX} tiers")
    tiers: list[tuple[int, int, int, int]] = []
    deduction_ppb = 0
    for index, tier in enumerate(schedule.tiers):
        at = f"schedule.tiers[{index}]"
        floor = asset.minor(tier.floor_notional or "0", f"{at}.floor_notional", 0)
        initial = to_units(tier.initial_rate, f"{at}.initial_rate", RATE_SCALE, 0, PPB)
        maintenance = to_units(
            tier.maintenance_rate, f"{at}.maintenance_rate", RATE_SCALE, 1, PPB - 1 - fee_ppb
        )
        leverage = to_units(
            tier.max_leverage, f"{at}.max_leverage", LEVERAGE_SCALE, LEVERAGE_MIN, LEVERAGE_MAX
        )
        if not tiers and floor:
            raise _invalid(f"{at}.floor_notional", tier.floor_notional, "0 in the first tier")
        if tiers:
            below = schedule.tiers[index - 1]
            if floor <= tiers[-1][0]:
                bound = f"above {below.floor_notional or '0'} of the tier below"
                raise _invalid(f"{at}.floor_notional", tier.floor_notional, bound)
            if initial < tiers[-1][1]:
                bound = f"at least {below.initial_rate} of the tier below"
                raise _invalid(f"{at}.initial_rate", tier.initial_rate, bound)
            if maintenance <= tiers[-1][2]:
                bound = f"above {below.maintenance_rate} of the tier below"
                raise _invalid(f"{at}.maintenance_rate", tier.maintenance_rate, bound)
            if leverage > tiers[-1][3]:
                bound = f"at most {below.max_leverage} of the tier below"
                raise _invalid(f"{at}.max_leverage", tier.max_leverage, bound)
            deduction_ppb += floor * (maintenance - tiers[-1][2])
        if deduction_ppb % PPB:
            exact = decimal_text(deduction_ppb, -RATE_SCALE - asset.scale)
            raise _invalid(
                f"{at}.floor_notional",
                tier.floor_notional,
                f"such that the deduction {exact} is a whole number of "
                f"{money_text(1, asset.scale)} {asset.symbol}",
            )
        deduction = deduction_ppb // PPB
        if tier.deduction and asset.minor(tier.deduction, f"{at}.deduction") != deduction:
            raise _invalid(
                f"{at}.deduction", tier.deduction, f"empty, or {asset.amount(deduction)}"
            )
        tiers.append((floor, initial, maintenance, leverage))
    return tiers


def _check_tick_value(
    instrument: pb.Instrument, tick: tuple[int, int], lot: tuple[int, int], asset: Asset
) -> None:
    """Refuse steps whose product is not 1 to 2^40 whole minor units."""
    mantissa, exponent = tick[0] * lot[0], tick[1] + lot[1] + asset.scale
    is_whole = exponent >= 0 or mantissa % 10**-exponent == 0
    value = mantissa * 10**exponent if exponent >= 0 else mantissa // 10**-exponent
    if not is_whole or not 1 <= value <= TICK_VALUE_MAX:
        raise _invalid(
            "instrument.tick_size",
            instrument.tick_size,
            f"such that tick_size * lot_size {instrument.lot_size} is 1 to 2^40 whole minor units "
            f"of {money_text(1, asset.scale)} {asset.symbol}",
        )


def _lots(steps: Instrument, text: str, field: str) -> int:
    """Return a quantity in lots; empty is 0, no bound."""
    return steps.lots(text, f"instrument.{field}") if text else 0


def _amount(asset: Asset, text: str, field: str) -> int:
    """Return an amount above 0 in minor units; empty is 0, no bound."""
    return asset.minor(text, field, 1) if text else 0


def _rate(text: str, field: str, minimum: int, maximum: int) -> int:
    """Return a rate in ppb; empty is 0."""
    return to_units(text or "0", field, RATE_SCALE, minimum, maximum)


def _name_bound() -> str:
    return "1 to 31 of A-Z, a-z, 0-9 and _./:-"


def _invalid(field: str, value: object, bound: str) -> RefusalError:
    shown = str(value)[:64]
    return RefusalError(
        _INVALID, f"{field} is {shown!r}: must be {bound}", field=field, value=shown, bound=bound
    )


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
