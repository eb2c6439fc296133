"""What all layouts of margin tiers have in common: a symbol, its tiers, and what is wrong with it.

A layout reads one symbol of a venue's answer at a time into a Market. Tiers become schedules by the
same laws as those of a rulebook, so that a damaged file is refused with its symbol and tier.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from riskd.rulebooks.laws import ladder_violation, next_deduction
from riskd.rulebooks.loader import inverse_leverage, leverage_of_rate, leverage_tier
from riskd.rulebooks.schema import (
    ASSET_SYMBOL,
    LEVERAGE,
    LEVERAGE_MIN,
    NAME,
    ONE,
    TIERED,
    TIERS_MAX,
    ZERO,
    InstrumentRule,
    Provenance,
    ScheduleRule,
    TierRule,
    Value,
    show,
)
from riskd.rulebooks.sections import read_number

# Enough for coins (1 satoshi) and for stablecoins alike; Binance prints 8 decimals of both.
ASSET_SCALE: Final = 8
# Venues print the largest 64-bit integer, or the double next to it, where there is no bound.
UNBOUNDED: Final = Decimal("9.2e18")


class SymbolError(ValueError):
    """What is wrong with one symbol."""


class TierError(SymbolError):
    """What is wrong with one tier, counted from 0."""

    def __init__(self, k: int, key: str, value: object, reason: str) -> None:
        shown = "" if value is None else f" = {show(value)}"
        super().__init__(f"tier {k + 1}: {key}{shown}: {reason}")


@dataclass(frozen=True, slots=True)
class Steps:
    """What a venue's answer says about an instrument, in the units of a rulebook."""

    kind: str
    tick_size: Decimal
    lot_size: Decimal
    contract_multiplier: Decimal = ONE
    expiry: datetime | None = None
    is_isolated_only: bool = False


@dataclass(frozen=True, slots=True)
class TierRow:
    """A tier as a venue prints it; what it does not print is None."""

    floor: Decimal
    maintenance_rate: Decimal | None = None
    initial_rate: Decimal | None = None
    max_leverage: Decimal | None = None
    deduction: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Market:
    """One symbol of a venue's answer."""

    name: str
    """Of the schedule and the instrument."""
    settlement_asset: str
    rows: tuple[TierRow, ...] = ()
    size_max: Decimal | None = None
    """Largest notional or quantity, as the layout counts its tiers."""
    family: str = TIERED
    parameters: Mapping[str, Value] = field(default_factory=dict)
    steps: Steps | None = None
    liquidation_fee_rate: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Layout:
    """A venue's layout: how it is recognised and how its symbols are read."""

    name: str
    what: str
    is_it: Callable[[object], bool]
    markets: Callable[[object], Mapping[str, object]]
    """Symbol to what the answer has of it; raises ValueError if it has none."""
    read: Callable[[str, object], Market]
    """Raises SymbolError."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """What our laws call a figure, and what the file calls it."""
    tier_mode: str = "whole"
    tier_key: str = "notional"
    mode_source: str = "assumption: the tier that a position is in holds for all of it"
    has_maintenance: bool = True
    """Whether it prints maintenance rates: else they are a part of 1 / leverage, and given."""


def number(k: int, row: Mapping[str, object], key: str, shown: str = "") -> Decimal:
    """Return a number of a tier, counted from 0. Raises TierError."""
    value = row.get(key)
    if value is None:
        raise TierError(k, shown or key, None, "is missing")
    try:
        return read_number(value)
    except ValueError as error:
        raise TierError(k, shown or key, value, str(error)) from error


def figure(row: Mapping[str, object], key: str) -> Decimal:
    """Return a number of a symbol. Raises SymbolError."""
    value = row.get(key)
    if value is None:
        raise SymbolError(f"{key}: is missing")
    try:
        return read_number(value)
    except ValueError as error:
        raise SymbolError(f"{key} = {show(value)}: {error}") from error


def text(row: Mapping[str, object], key: str) -> str:
    """Return a text of a symbol. Raises SymbolError."""
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise SymbolError(f"{key} = {show(value)}: must be a text")
    return value


def table(value: object, what: str) -> Mapping[str, object]:
    """Return a JSON object. Raises SymbolError."""
    if not isinstance(value, dict):
        raise SymbolError(f"{what} = {show(value)}: must be an object")
    return value


def tables(row: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    """Return a list of tiers. Raises SymbolError, or TierError for one that is no object."""
    value = row.get(key)
    if not isinstance(value, list) or not value:
        raise SymbolError(f"{key}: must be a list of tiers")
    for k, each in enumerate(value):
        if not isinstance(each, dict):
            raise SymbolError(f"tier {k + 1}: must be an object")
    return value


def milliseconds(row: Mapping[str, object], key: str) -> datetime:
    """Return a time that a venue prints in milliseconds since 1970. Raises SymbolError."""
    value = figure(row, key)
    try:
        return datetime.fromtimestamp(int(value) // 1000, UTC)
    except (OverflowError, OSError, ValueError):
        raise SymbolError(f"{key} = {show(value)}: must be a time in milliseconds") from None


def iso_time(row: Mapping[str, object], key: str) -> datetime:
    """Return a time like 2021-09-24T12:00:00.000Z. Raises SymbolError."""
    value = text(row, key)
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise SymbolError(f"{key} = {value!r}: must be a time") from None
    if time.tzinfo is None:
        raise SymbolError(f"{key} = {value!r}: must be a time with its zone")
    return time.astimezone(UTC)


def stepped(
    initial: Decimal,
    maintenance: Decimal,
    first: Decimal,
    step: Decimal,
    rise: tuple[Decimal, Decimal],
) -> tuple[tuple[TierRow, ...], Decimal]:
    """Return tiers whose rates rise by the same with each step, and where the last one ends.

    They end at the thirty-second, or before the initial rate would be above 1.
    """
    if step <= ZERO or first <= ZERO:
        raise SymbolError(f"a limit of {show(first)} and steps of {show(step)} must be above 0")
    rows: list[TierRow] = []
    for k in range(TIERS_MAX):
        i, m = initial + k * rise[0], maintenance + k * rise[1]
        if i > ONE:
            break
        rows.append(TierRow(ZERO if k == 0 else first + (k - 1) * step, m, i))
    return tuple(rows), first + (len(rows) - 1) * step


def asset_symbol(settle: str) -> None:
    """Refuse what is no symbol of an asset."""
    if not ASSET_SYMBOL.fullmatch(settle):
        raise SymbolError(f"settles in {settle!r}, must be 1 to 15 of A-Z and 0-9")


def schedule_of(
    market: Market, layout: Layout, part: Decimal | None, provenance: Provenance
) -> ScheduleRule:
    """Return the schedule of a market. Raises SymbolError."""
    asset_symbol(market.settlement_asset)
    if len(market.name) > 31:
        raise SymbolError(f"has a name of {len(market.name)} characters, at most 31")
    if not NAME.fullmatch(market.name):
        raise SymbolError("has a name that is not printable ASCII without space")
    family = market.family
    parameters = dict(market.parameters)
    if family == LEVERAGE:
        if not layout.has_maintenance:
            parameters["maintenance_part"] = part or ZERO
        part_of = parameters["maintenance_part"]
        tiers = _leverage_tiers(market, part_of if isinstance(part_of, Decimal) else ZERO)
    else:
        tiers = _tiers(market, layout)
    is_tiered = family in (TIERED, LEVERAGE)
    by_notional = not is_tiered or layout.tier_key == "notional"
    schedule = ScheduleRule(
        market.name,
        market.settlement_asset,
        tiers,
        market.size_max if by_notional else None,
        market.liquidation_fee_rate,
        provenance,
        family,
        layout.tier_mode if is_tiered else "marginal",
        layout.tier_key if is_tiered else "notional",
        None if by_notional else market.size_max,
        parameters,
    )
    if is_tiered:
        _refuse_violation(schedule, layout)
    return schedule


def _refuse_violation(schedule: ScheduleRule, layout: Layout) -> None:
    if not 1 <= len(schedule.tiers) <= TIERS_MAX:
        raise SymbolError(f"must have a list of 1 to {TIERS_MAX} tiers")
    violation = ladder_violation(schedule, ASSET_SCALE)
    if violation:
        # Messages count tiers as the files do, from 1; our laws from 0.
        reason = re.sub(r"tier\[([0-9]+)\]", lambda m: f"tier {int(m[1]) + 1}", violation.reason)
        key = layout.keys.get(violation.key, violation.key)
        raise TierError(violation.tier, key, violation.value, reason)


def _tiers(market: Market, layout: Layout) -> tuple[TierRule, ...]:
    tiers: list[TierRule] = []
    for k, row in enumerate(market.rows):
        if row.maintenance_rate is None:
            raise TierError(k, "maintenance_rate", None, "is missing")
        leverage, rate = row.max_leverage, row.initial_rate
        if leverage is None:
            if rate is None or not ZERO < rate <= ONE:
                key = layout.keys.get("initial_rate", "initial_rate")
                raise TierError(k, key, rate, "must be above 0 and at most 1")
            leverage = leverage_of_rate(rate)
        elif leverage < LEVERAGE_MIN:
            key = layout.keys.get("max_leverage", "max_leverage")
            raise TierError(k, key, leverage, "must be at least 1")
        deduction = ZERO
        if tiers and layout.tier_mode == "marginal":
            deduction = next_deduction(tiers[-1], row.floor, row.maintenance_rate)
        if row.deduction is not None and row.deduction != deduction:
            key = layout.keys.get("deduction", "deduction")
            reason = f"must be {show(deduction)}, which the floors and rates give"
            raise TierError(k, key, row.deduction, reason)
        if rate is None:
            rate = inverse_leverage(leverage)
        tiers.append(TierRule(row.floor, rate, row.maintenance_rate, deduction, leverage))
    return tuple(tiers)


def _leverage_tiers(market: Market, part: Decimal) -> tuple[TierRule, ...]:
    tiers: list[TierRule] = []
    for k, row in enumerate(market.rows):
        leverage = row.max_leverage
        if leverage is None or leverage < LEVERAGE_MIN:
            raise TierError(k, "max_leverage", leverage, "must be at least 1")
        if tiers and leverage >= tiers[-1].max_leverage:
            reason = f"must be below {show(tiers[-1].max_leverage)}, that of tier {k}"
            raise TierError(k, "max_leverage", leverage, reason)
        tiers.append(leverage_tier(row.floor, leverage, part, tiers[-1] if tiers else None))
    return tuple(tiers)


def joined(
    k: int, floor: Decimal, ceiling: Decimal | None, floor_key: str, ceiling_key: str
) -> None:
    """Refuse a floor that is not where the tier before ends; ceiling None: it has no end."""
    if ceiling is None:
        raise TierError(k, floor_key, floor, "comes after a tier without bound")
    if floor != ceiling:
        what = f"{ceiling_key} of the tier before" if k else "in the first tier"
        raise TierError(k, floor_key, floor, f"must be {show(ceiling)}, {what}")


def capped(
    k: int, top: Decimal, floor: Decimal, ceiling_key: str, floor_key: str
) -> Decimal | None:
    """Return where a tier ends, None for no bound; refuse an end that is not above the floor."""
    if top >= UNBOUNDED:
        return None
    if top <= floor:
        raise TierError(k, ceiling_key, top, f"must be above {floor_key} {show(floor)}")
    return top


def instrument_of(market: Market, steps: Steps, provenance: Provenance) -> InstrumentRule:
    """Return the instrument of a market whose venue prints its steps."""
    return InstrumentRule(
        symbol=market.name,
        kind=steps.kind,
        settlement_asset=market.settlement_asset,
        margin_schedule=market.name,
        tick_size=steps.tick_size,
        lot_size=steps.lot_size,
        mark_units_per_tick=1,
        provenance=provenance,
        contract_multiplier=steps.contract_multiplier,
        isolated_only=steps.is_isolated_only,
        expiry=steps.expiry,
    )


def by_floor(rows: Sequence[TierRow]) -> tuple[TierRow, ...]:
    """Return the rows by rising floor."""
    return tuple(sorted(rows, key=lambda row: row.floor))
