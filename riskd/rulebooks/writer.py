"""Write rulebooks: `loads(to_toml(rulebook)) == rulebook`."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TypeVar

from riskd.rulebooks.keys import COLLATERAL, LEVELS, OPTION_FAMILIES, RULE, SCHEDULE_FAMILIES, Key
from riskd.rulebooks.schema import (
    FORMAT,
    LEVERAGE,
    ONE,
    InstrumentRule,
    ParameterRule,
    Provenance,
    Rulebook,
    ScheduleRule,
    TierRule,
    Value,
    VenueRule,
    key_text,
    plain,
)

INSTRUMENT_KEYS = (
    "kind",
    "settlement_asset",
    "base_asset",
    "margin_schedule",
    "tick_size",
    "lot_size",
    "contract_multiplier",
    "mark_units_per_tick",
    "order_quantity_min",
    "order_quantity_max",
    "order_notional_min",
    "order_notional_max",
    "price_collar_rate",
    "market_order_buffer_rate",
    "taker_fee_rate",
    "mark_age_max_ms",
    "trading_state",
    "isolated_only",
    "funding_interval_ms",
    "expiry",
    "strike",
    "option_type",
    "interest_rate",
    "underlying",
    "option_rule",
)
# Written only where they are not these.
INSTRUMENT_DEFAULTS: Mapping[str, object] = {
    "contract_multiplier": ONE,
    "isolated_only": False,
    "funding_interval_ms": 0,
}
VersionedT = TypeVar("VersionedT", ScheduleRule, ParameterRule)

TIER_KEYS = ("floor", "initial_rate", "maintenance_rate", "deduction", "max_leverage")
LEVERAGE_TIER_KEYS = ("floor", "max_leverage")


def to_toml(rulebook: Rulebook) -> str:
    """Return the rulebook as TOML of the newest format."""
    return "\n".join(_lines(rulebook)) + "\n"


def instrument_values(instrument: InstrumentRule) -> dict[str, str | int | Decimal | date]:
    """Return the values of an instrument that are not absent, by key."""
    values = {key: getattr(instrument, key) for key in INSTRUMENT_KEYS}
    return {
        key: value
        for key, value in values.items()
        if value not in (None, "")
        and not (key in INSTRUMENT_DEFAULTS and value == INSTRUMENT_DEFAULTS[key])
    }


def schedule_values(schedule: ScheduleRule) -> dict[str, Value | datetime]:
    """Return the values of a schedule that are not absent, by key, but its tiers."""
    values: dict[str, Value | datetime | None] = {
        "settlement_asset": schedule.settlement_asset,
        "family": schedule.family,
        "effective_from": schedule.effective_from,
        "notional_max": schedule.notional_max,
        "quantity_max": schedule.quantity_max,
        "liquidation_fee_rate": schedule.liquidation_fee_rate,
        **_in_order(SCHEDULE_FAMILIES[schedule.family], schedule.parameters),
    }
    return {key: value for key, value in values.items() if value is not None}


def parameter_values(rule: ParameterRule) -> dict[str, Value | datetime]:
    """Return the values of an option rule or of collateral, by key."""
    values: dict[str, Value | datetime] = {}
    if rule.family:
        values["family"] = rule.family
    if rule.effective_from is not None:
        values["effective_from"] = rule.effective_from
    keys = OPTION_FAMILIES[rule.family] if rule.family else COLLATERAL
    return values | _in_order(keys, rule.parameters)


def tier_keys(schedule: ScheduleRule) -> tuple[str, ...]:
    """Return the keys of a schedule's tiers: rates that follow from others are not written."""
    if schedule.family == LEVERAGE:
        return LEVERAGE_TIER_KEYS
    if schedule.tier_mode == "whole":
        return tuple(key for key in TIER_KEYS if key != "deduction")
    return TIER_KEYS


def _in_order(keys: Sequence[Key], values: Mapping[str, Value]) -> dict[str, Value]:
    return {key.name: values[key.name] for key in keys if key.name in values}


def text(value: str) -> str:
    """Return a TOML basic string."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    return '"' + "".join(escapes.get(c) or _character(c) for c in value) + '"'


def _character(c: str) -> str:
    return f"\\u{ord(c):04X}" if c < " " or c == "\x7f" else c


def _value(value: str | int | Decimal | date) -> str:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return text(plain(value))
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    return str(value)


def _lines(rulebook: Rulebook) -> Iterator[str]:
    yield f"format = {FORMAT}"
    yield f"name = {text(rulebook.name)}"
    yield f"title = {text(rulebook.title)}"
    if rulebook.effective_from is not None:
        yield f"effective_from = {_value(rulebook.effective_from)}"
    yield from _provenance(rulebook.provenance)
    if rulebook.rule is not None:
        yield from _rule(rulebook.rule)
    for asset in rulebook.assets:
        yield from ("", f"[asset.{key_text(asset.symbol)}]", f"scale = {asset.scale}")
        yield from _provenance(asset.provenance)
    for head, schedule in _versions("schedule", rulebook.schedules):
        yield from ("", head)
        yield from _schedule(schedule)
    for table, rules in (
        ("option_rule", rulebook.option_rules),
        ("collateral", rulebook.collateral),
    ):
        for head, rule in _versions(table, rules):
            yield from ("", head)
            yield from _pairs(parameter_values(rule))
            yield from _provenance(rule.provenance)
    if rulebook.levels is not None:
        yield from ("", "[levels]")
        yield from _pairs(_in_order(LEVELS, rulebook.levels.parameters))
        yield from _provenance(rulebook.levels.provenance)
    for instrument in rulebook.instruments:
        yield from ("", f"[instrument.{key_text(instrument.symbol)}]")
        yield from _pairs(instrument_values(instrument))
        yield from _provenance(instrument.provenance)


def _provenance(provenance: Provenance) -> Iterator[str]:
    yield f"source = {text(provenance.source)}"
    yield f"as_of = {provenance.as_of.isoformat()}"
    for key, source in provenance.sources.items():
        yield f"sources.{key_text(key)} = {text(source)}"


def _rule(rule: VenueRule) -> Iterator[str]:
    yield from ("", "[rule]")
    yield from _pairs(_in_order(RULE, rule.common))
    yield from _provenance(rule.provenance)
    for mode, changes in (("isolated", rule.isolated), ("cross", rule.cross)):
        if changes:
            yield from ("", f"[rule.{mode}]")
            yield from _pairs(_in_order(RULE, changes))


def _versions(table: str, rules: Sequence[VersionedT]) -> Iterator[tuple[str, VersionedT]]:
    """Yield each rule with the head of its table: [[...]] where a name has several."""
    names = [rule.name for rule in rules]
    for rule in rules:
        head = f"{table}.{key_text(rule.name)}"
        yield (f"[[{head}]]" if names.count(rule.name) > 1 else f"[{head}]"), rule


def _pairs(values: Mapping[str, Value | int | date]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, tuple):
            yield f"{key} = ["
            for row in value:
                yield f"    {_row(row)},"
            yield "]"
        else:
            yield f"{key} = {_value(value)}"


def _row(row: Mapping[str, Decimal]) -> str:
    return f"{{ {', '.join(f'{key} = {_value(value)}' for key, value in row.items())} }}"


def _schedule(schedule: ScheduleRule) -> Iterator[str]:
    yield from _pairs(schedule_values(schedule))
    yield from _provenance(schedule.provenance)
    if schedule.tiers:
        yield "tier = ["
        for tier in schedule.tiers:
            yield f"    {_tier(tier, tier_keys(schedule))},"
        yield "]"


def _tier(tier: TierRule, keys: Sequence[str]) -> str:
    return _row({key: getattr(tier, key) for key in keys})
