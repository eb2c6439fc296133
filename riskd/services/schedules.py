"""Margin schedules and option rules: messages to arguments of the engine and back.

The engine checks every definition again; the checks here exist for their messages.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riskd.catalogue import Asset
from riskd.numbers import (
    INT64_MAX,
    LEVERAGE_SCALE,
    NUMBER_MAX,
    RATE_SCALE,
    decimal_text,
    leverage_text,
    money_text,
    rate_text,
    to_units,
)
from riskd.services.errors import RefusalError, enum_name, reading
from riskd.v1 import instrument_service_pb2 as pb
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from riskd.core.engine import ScheduleRow

TIERS_MAX = 32
PPB = 10**RATE_SCALE
LEVERAGE_MIN = 100
LEVERAGE_MAX = 100_000
PUT_OVER_MAX = 10 * PPB
# Option rules are rows of the engine's table of schedules, with this family.
FAMILY_OPTION_RULE = 20

# No space: docs/state.md writes names between spaces.
_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,31}", re.ASCII)
_NAME_BOUND = "1 to 31 of A-Z, a-z, 0-9 and _./:-"

# (floor, initial rate, maintenance rate, leverage) as Engine.upsert_schedule takes them.
TierTuple = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a family: its field, and its bounds in 10^-scale (None: minor units)."""

    field: str
    scale: int | None
    minimum: int
    maximum: int


# For what is 0 in a family.
_NO_PARAMETER = Parameter("", 0, 0, 0)

# The field of MarginSchedule.parameters, and what of it is parameter_a, _b and _c of the engine.
_PARAMETERS: dict[int, tuple[str, tuple[Parameter, ...]]] = {
    pb.MARGIN_FAMILY_SIZE_LINEAR: (
        "size_linear",
        (
            Parameter("initial_rate_per_lot", 15, 0, 10**15),
            Parameter("maintenance_rate_per_lot", 15, 0, 10**15),
        ),
    ),
    pb.MARGIN_FAMILY_PER_CONTRACT: (
        "per_contract",
        (
            Parameter("initial_per_lot", None, 1, NUMBER_MAX),
            Parameter("maintenance_per_lot", None, 0, NUMBER_MAX),
        ),
    ),
    pb.MARGIN_FAMILY_OPEN_INTEREST: (
        "open_interest",
        (
            Parameter("lower_notional", None, 0, INT64_MAX),
            Parameter("upper_notional", None, 0, INT64_MAX),
        ),
    ),
    pb.MARGIN_FAMILY_SIZE_SQRT: (
        "size_sqrt",
        (
            Parameter("factor", 9, 0, 10**15),
            _NO_PARAMETER,
            Parameter("size_per_lot", 12, 0, 10**15),
        ),
    ),
    pb.MARGIN_FAMILY_POWER: (
        "power",
        (Parameter("factor", 18, 1, 10**18), Parameter("exponent", 9, 1, PPB)),
    ),
    pb.MARGIN_FAMILY_RISK_FACTOR: (
        "risk_factor",
        (
            Parameter("short_rate", RATE_SCALE, 1, PPB),
            Parameter("slippage_rate_per_lot", 15, 0, 10**15),
            Parameter("initial_factor", RATE_SCALE, PPB + 1, 10**12),
        ),
    ),
}
_TIERED = (
    pb.MARGIN_FAMILY_TIERED,
    pb.MARGIN_FAMILY_TIERED_WHOLE,
    pb.MARGIN_FAMILY_TIERED_QUANTITY,
)


# Fees that are put aside: what is asked of the schedule that has one.
_RESERVED = (pb.CLOSING_FEE_RESERVED, pb.CLOSING_FEE_AT_BANKRUPTCY)


def read_schedule(schedule: pb.MarginSchedule, asset: Asset, at: str) -> dict[str, Any]:
    """Return the arguments of Engine.upsert_schedule, or refuse. `at` is the message's path."""
    check_name(schedule.name, f"{at}.name")
    family = schedule.family or pb.MARGIN_FAMILY_TIERED
    basis = schedule.maintenance_basis or pb.MAINTENANCE_BASIS_MARK
    if family not in _TIERED and family not in _PARAMETERS:
        name = enum_name(pb.MarginFamily.items(), family, "MARGIN_FAMILY_")
        raise invalid(f"{at}.family", name, "a family of the contract")
    if basis not in (pb.MAINTENANCE_BASIS_MARK, pb.MAINTENANCE_BASIS_ENTRY):
        name = enum_name(pb.MaintenanceBasis.items(), basis, "MAINTENANCE_BASIS_")
        raise invalid(f"{at}.maintenance_basis", name, "MARK or ENTRY")
    closing_fee = _read_closing_fee(schedule, family, basis, at)
    with reading(types_pb2.REASON_CODE_DEFINITION_INVALID):
        fee = read_rate(schedule.liquidation_fee_rate, f"{at}.liquidation_fee_rate", 0, PPB - 1)
        notional_max = (
            asset.minor(schedule.notional_max, f"{at}.notional_max", 1)
            if schedule.notional_max
            else 0
        )
        parameters = _read_parameters(schedule, family, asset, at)
        tiers = _Tiers(schedule, family, asset, fee, parameters, at).read()
    if notional_max and family != pb.MARGIN_FAMILY_TIERED_QUANTITY and notional_max <= tiers[-1][0]:
        bound = f"above {asset.amount(tiers[-1][0])}, the floor of the last tier"
        raise invalid(f"{at}.notional_max", schedule.notional_max, bound)
    if closing_fee in _RESERVED and fee:
        bound = f"empty or 0 with closing_fee {_closing_fee_name(closing_fee)}"
        raise invalid(f"{at}.liquidation_fee_rate", schedule.liquidation_fee_rate, bound)
    lots_max = _read_lots_max(schedule, family, tiers, at)
    arguments: dict[str, Any] = {
        "name": schedule.name,
        "asset_id": asset.asset_id,
        "tiers": tiers,
        "notional_max": notional_max,
        "liquidation_fee_ppb": fee,
    }
    if (family, basis) != (pb.MARGIN_FAMILY_TIERED, pb.MAINTENANCE_BASIS_MARK):
        arguments |= {
            "family": int(family),
            "maintenance_basis": int(basis),
            "parameter_a": parameters[0] or lots_max,
            "parameter_b": parameters[1],
            "parameter_c": parameters[2],
        }
    if closing_fee:
        arguments["closing_fee"] = closing_fee
    return arguments


def _read_closing_fee(schedule: pb.MarginSchedule, family: int, basis: int, at: str) -> int:
    fee = int(schedule.closing_fee)
    name = _closing_fee_name(fee)
    if fee not in pb.ClosingFee.values():
        raise invalid(f"{at}.closing_fee", name, "a closing fee of the contract, or not set")
    if fee in _RESERVED and (family not in _TIERED or basis != pb.MAINTENANCE_BASIS_ENTRY):
        bound = "not set, for it needs a family with tiers and maintenance_basis ENTRY"
        raise invalid(f"{at}.closing_fee", name, bound)
    return fee


def _closing_fee_name(fee: int) -> str:
    return enum_name(pb.ClosingFee.items(), fee, "CLOSING_FEE_")


def _read_lots_max(
    schedule: pb.MarginSchedule, family: int, tiers: list[TierTuple], at: str
) -> int:
    """Return the largest position in lots, 0 for no bound."""
    lots = int(schedule.quantity_max_lots)
    if lots and family != pb.MARGIN_FAMILY_TIERED_QUANTITY:
        raise invalid(f"{at}.quantity_max_lots", lots, "0 for a family but TIERED_QUANTITY")
    if lots and not tiers[-1][0] < lots <= NUMBER_MAX:
        bound = f"above {tiers[-1][0]}, the floor of the last tier, up to {NUMBER_MAX}, or 0"
        raise invalid(f"{at}.quantity_max_lots", lots, bound)
    return lots


def _read_parameters(
    schedule: pb.MarginSchedule, family: int, asset: Asset, at: str
) -> tuple[int, int, int]:
    """Return parameter_a, _b and _c. Raises NumberError."""
    given = schedule.WhichOneof("parameters")
    wanted, fields = _PARAMETERS.get(family, ("", ()))
    if (given or "") != wanted:
        name = enum_name(pb.MarginFamily.items(), family, "MARGIN_FAMILY_")
        bound = f"{wanted or 'not set'} for the family {name}"
        raise invalid(f"{at}.parameters", given or "not set", bound)
    values = [0, 0, 0]
    for index, each in enumerate(fields):
        if each is _NO_PARAMETER:
            continue
        scale = asset.scale if each.scale is None else each.scale
        text = getattr(getattr(schedule, wanted), each.field)
        path = f"{at}.{wanted}.{each.field}"
        values[index] = to_units(text or "0", path, scale, each.minimum, each.maximum)
    a, b, c = values
    if family == pb.MARGIN_FAMILY_PER_CONTRACT and b >= a:
        raise invalid(
            f"{at}.per_contract.maintenance_per_lot",
            schedule.per_contract.maintenance_per_lot,
            f"below initial_per_lot {schedule.per_contract.initial_per_lot}",
        )
    if family == pb.MARGIN_FAMILY_OPEN_INTEREST and a >= b and (a, b) != (0, 0):
        raise invalid(
            f"{at}.open_interest.upper_notional",
            schedule.open_interest.upper_notional,
            f"above lower_notional {schedule.open_interest.lower_notional}, or both 0",
        )
    return a, b, c


@dataclass(frozen=True, slots=True)
class _Tiers:
    """The tiers of a schedule as they are read."""

    schedule: pb.MarginSchedule
    family: int
    asset: Asset
    fee_ppb: int
    parameters: tuple[int, int, int]
    at: str

    def read(self) -> list[TierTuple]:
        """Return all of them. Raises NumberError."""
        count = len(self.schedule.tiers)
        count_max = TIERS_MAX if self.family in _TIERED else 1
        if not 1 <= count <= count_max:
            bound = f"1 to {TIERS_MAX} tiers" if self.family in _TIERED else "1 tier"
            raise invalid(f"{self.at}.tiers", f"{count} tiers", bound)
        tiers: list[TierTuple] = []
        deduction_ppb = 0
        for index, tier in enumerate(self.schedule.tiers):
            path = f"{self.at}.tiers[{index}]"
            row = self._tier(tier, path)
            self._check_order(tiers, row, index, path)
            if tiers and self.family == pb.MARGIN_FAMILY_TIERED:
                deduction_ppb += row[0] * (row[2] - tiers[-1][2])
            self._check_deduction(tier, deduction_ppb, path)
            self._check_covers(tier, row, path)
            tiers.append(row)
        return tiers

    def _tier(self, tier: pb.MarginTier, path: str) -> TierTuple:
        if self.family == pb.MARGIN_FAMILY_TIERED_QUANTITY:
            floor = tier.floor_lots
            if tier.floor_notional:
                raise invalid(f"{path}.floor_notional", tier.floor_notional, "empty: floor_lots")
            if floor > NUMBER_MAX:
                raise invalid(f"{path}.floor_lots", floor, f"0 to {NUMBER_MAX}")
        else:
            floor = self.asset.minor(tier.floor_notional or "0", f"{path}.floor_notional", 0)
            if tier.floor_lots:
                raise invalid(f"{path}.floor_lots", tier.floor_lots, "0: floor_notional")
        rate_max = PPB - 1 - self.fee_ppb
        if self.family == pb.MARGIN_FAMILY_PER_CONTRACT:
            initial = read_rate(tier.initial_rate, f"{path}.initial_rate", 0, 0)
            maintenance = read_rate(tier.maintenance_rate, f"{path}.maintenance_rate", 0, 0)
        else:
            maintenance = to_units(
                tier.maintenance_rate, f"{path}.maintenance_rate", RATE_SCALE, 1, rate_max
            )
            if self.family == pb.MARGIN_FAMILY_RISK_FACTOR:
                initial = min(PPB, -(-maintenance * self.parameters[2] // PPB))
                if tier.initial_rate:
                    read_rate(tier.initial_rate, f"{path}.initial_rate", initial, initial)
            else:
                least = 1 if self.family == pb.MARGIN_FAMILY_POWER else 0
                initial = to_units(
                    tier.initial_rate, f"{path}.initial_rate", RATE_SCALE, least, PPB
                )
        leverage = to_units(
            tier.max_leverage, f"{path}.max_leverage", LEVERAGE_SCALE, LEVERAGE_MIN, LEVERAGE_MAX
        )
        return floor, initial, maintenance, leverage

    def _check_order(self, tiers: list[TierTuple], row: TierTuple, index: int, path: str) -> None:
        is_by_lots = self.family == pb.MARGIN_FAMILY_TIERED_QUANTITY
        floor_field = "floor_lots" if is_by_lots else "floor_notional"
        floor, initial, maintenance, leverage = row
        shown = str(floor) if is_by_lots else self.asset.amount(floor)
        if not tiers:
            if floor:
                raise invalid(f"{path}.{floor_field}", shown, "0 in the first tier")
            return
        below, last = self.schedule.tiers[index - 1], tiers[-1]
        if floor <= last[0]:
            held = str(last[0]) if is_by_lots else self.asset.amount(last[0])
            raise invalid(f"{path}.{floor_field}", shown, f"above {held} of the tier below")
        if initial < last[1]:
            bound = f"at least {below.initial_rate} of the tier below"
            raise invalid(f"{path}.initial_rate", rate_text(initial), bound)
        if maintenance <= last[2]:
            bound = f"above {below.maintenance_rate} of the tier below"
            raise invalid(f"{path}.maintenance_rate", rate_text(maintenance), bound)
        if leverage > last[3]:
            bound = f"at most {below.max_leverage} of the tier below"
            raise invalid(f"{path}.max_leverage", leverage_text(leverage), bound)

    def _check_deduction(self, tier: pb.MarginTier, deduction_ppb: int, path: str) -> None:
        asset = self.asset
        if deduction_ppb % PPB:
            exact = decimal_text(deduction_ppb, -RATE_SCALE - asset.scale)
            raise invalid(
                f"{path}.floor_notional",
                tier.floor_notional,
                f"such that the deduction {exact} is a whole number of "
                f"{money_text(1, asset.scale)} {asset.symbol}",
            )
        deduction = deduction_ppb // PPB
        if tier.deduction and asset.minor(tier.deduction, f"{path}.deduction") != deduction:
            raise invalid(
                f"{path}.deduction", tier.deduction, f"empty, or {asset.amount(deduction)}"
            )

    def _check_covers(self, tier: pb.MarginTier, row: TierTuple, path: str) -> None:
        """A position with its initial margin must not be liquidatable at once."""
        _, initial, maintenance, leverage = row
        if self.family == pb.MARGIN_FAMILY_PER_CONTRACT:
            return
        for name, rate in (
            ("maintenance_rate", maintenance),
            ("short_rate", self.parameters[0]),
        ):
            if name == "short_rate" and self.family != pb.MARGIN_FAMILY_RISK_FACTOR:
                continue
            need = rate + self.fee_ppb
            if initial <= need and need * leverage >= PPB * LEVERAGE_MIN:
                raise invalid(
                    f"{path}.initial_rate",
                    rate_text(initial),
                    f"above {rate_text(need)} ({name} and liquidation_fee_rate), or max_leverage "
                    f"{tier.max_leverage} below {_inverse_text(need)}",
                )


def _inverse_text(rate_ppb: int) -> str:
    """Return one over a rate, rounded down to hundredths."""
    return leverage_text(PPB * LEVERAGE_MIN // rate_ppb)


def read_option_rule(rule: pb.OptionRule, asset: Asset, at: str) -> dict[str, Any]:
    """Return the arguments of Engine.upsert_option_rule, or refuse."""
    check_name(rule.name, f"{at}.name")
    with reading(types_pb2.REASON_CODE_DEFINITION_INVALID):
        initial = to_units(rule.initial_rate, f"{at}.initial_rate", RATE_SCALE, 0, PPB)
        least = read_rate(rule.initial_rate_min, f"{at}.initial_rate_min", 0, initial)
        maintenance = to_units(rule.maintenance_rate, f"{at}.maintenance_rate", RATE_SCALE, 0, PPB)
        over = to_units(
            rule.put_initial_over_maintenance or "1",
            f"{at}.put_initial_over_maintenance",
            RATE_SCALE,
            PPB,
            PUT_OVER_MAX,
        )
        order_least = read_rate(rule.order_initial_rate_min, f"{at}.order_initial_rate_min", 0, PPB)
    if rule.call_maintenance_on_mark and not rule.put_maintenance_on_mark:
        raise invalid(f"{at}.call_maintenance_on_mark", "true", "false without that of puts")
    arguments = {
        "name": rule.name,
        "asset_id": asset.asset_id,
        "initial_ppb": initial,
        "initial_min_ppb": least,
        "maintenance_ppb": maintenance,
        "put_maintenance": int(rule.put_maintenance_on_mark) + int(rule.call_maintenance_on_mark),
    }
    # 1 is what an engine does anyway: initial margin is never below maintenance.
    if over > PPB:
        arguments["parameter_d"] = over
    if order_least:
        arguments["parameter_e"] = order_least
    return arguments


def schedule_message(row: "ScheduleRow", asset: Asset) -> pb.MarginSchedule:
    """Return a margin schedule."""
    is_by_lots = row.family == pb.MARGIN_FAMILY_TIERED_QUANTITY
    message = pb.MarginSchedule(
        schedule_id=row.schedule_id,
        name=row.name,
        settlement_asset=asset.symbol,
        tiers=[
            pb.MarginTier(
                floor_notional="" if is_by_lots else asset.amount(tier.floor),
                initial_rate=rate_text(tier.initial_rate_ppb),
                maintenance_rate=rate_text(tier.maintenance_rate_ppb),
                deduction=asset.amount(tier.deduction),
                max_leverage=leverage_text(tier.leverage_max),
                floor_lots=tier.floor if is_by_lots else 0,
            )
            for tier in row.tiers
        ],
        notional_max=asset.amount(row.notional_max) if row.notional_max else "",
        liquidation_fee_rate=rate_text(row.liquidation_fee_ppb),
        version=row.version,
        family=pb.MarginFamily.ValueType(row.family),
        maintenance_basis=pb.MaintenanceBasis.ValueType(row.maintenance_basis),
        closing_fee=pb.ClosingFee.ValueType(row.closing_fee),
        quantity_max_lots=row.parameter_a if is_by_lots else 0,
    )
    if row.family in _PARAMETERS:
        field, fields = _PARAMETERS[row.family]
        values = (row.parameter_a, row.parameter_b, row.parameter_c)
        for each, value in zip(fields, values, strict=False):
            if each is _NO_PARAMETER:
                continue
            scale = asset.scale if each.scale is None else each.scale
            setattr(getattr(message, field), each.field, decimal_text(value, -scale))
    return message


def option_rule_message(row: "ScheduleRow", asset: Asset) -> pb.OptionRule:
    """Return an option rule, which is a row of the table of schedules."""
    return pb.OptionRule(
        option_rule_id=row.schedule_id,
        name=row.name,
        settlement_asset=asset.symbol,
        initial_rate=rate_text(row.tiers[0].initial_rate_ppb),
        initial_rate_min=rate_text(row.parameter_a),
        maintenance_rate=rate_text(row.tiers[0].maintenance_rate_ppb),
        put_maintenance_on_mark=row.parameter_b > 0,
        call_maintenance_on_mark=row.parameter_b > 1,
        put_initial_over_maintenance=rate_text(row.parameter_d) if row.parameter_d else "",
        order_initial_rate_min=rate_text(row.parameter_e) if row.parameter_e else "",
        version=row.version,
    )


def check_name(name: str, field: str) -> None:
    """Refuse what cannot be the name of a schedule, a rule or an instrument."""
    if not _NAME.fullmatch(name):
        raise invalid(field, name, _NAME_BOUND)


def check_quantity(lots: int, position_side: int, field: str, text: str) -> None:
    """Refuse a long on the short side of hedge mode, and the other way."""
    if position_side == types_pb2.POSITION_SIDE_LONG and lots < 0:
        raise invalid(field, text, "0 or more on the LONG side")
    if position_side == types_pb2.POSITION_SIDE_SHORT and lots > 0:
        raise invalid(field, text, "0 or less on the SHORT side")


def read_rate(text: str, field: str, minimum: int, maximum: int) -> int:
    """Return a rate in ppb; empty is 0. Raises NumberError."""
    return to_units(text or "0", field, RATE_SCALE, minimum, maximum)


def invalid(field: str, value: object, bound: str) -> RefusalError:
    """Return the refusal of a definition's field."""
    shown = str(value)[:64]
    return RefusalError(
        types_pb2.REASON_CODE_DEFINITION_INVALID,
        f"{field} is {shown!r}: must be {bound}",
        field=field,
        value=shown,
        bound=bound,
    )
