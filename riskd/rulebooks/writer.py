"""Write rulebooks: `loads(to_toml(rulebook)) == rulebook`."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

from riskd.rulebooks.schema import (
    FORMAT,
    InstrumentRule,
    Provenance,
    Rulebook,
    ScheduleRule,
    TierRule,
    key_text,
    plain,
)

INSTRUMENT_KEYS = (
    "kind",
    "settlement_asset",
    "margin_schedule",
    "tick_size",
    "lot_size",
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
    "expiry",
    "strike",
    "option_type",
    "interest_rate",
    "underlying",
)
TIER_KEYS = ("floor", "initial_rate", "maintenance_rate", "deduction", "max_leverage")


def to_toml(rulebook: Rulebook) -> str:
    """Return the rulebook as TOML of format 1."""
    return "\n".join(_lines(rulebook)) + "\n"


def text(value: str) -> str:
    """Return a TOML basic string."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    return '"' + "".join(escapes.get(c) or _character(c) for c in value) + '"'


def _character(c: str) -> str:
    return f"\\u{ord(c):04X}" if c < " " or c == "\x7f" else c


def _value(value: str | int | Decimal | date) -> str:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Decimal):
        return text(plain(value))
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    return str(value)


def _lines(rulebook: Rulebook) -> Iterator[str]:
    yield f"format = {FORMAT}"
    yield f"name = {text(rulebook.name)}"
    yield f"title = {text(rulebook.title)}"
    yield from _provenance(rulebook.provenance)
    for asset in rulebook.assets:
        yield from ("", f"[asset.{key_text(asset.symbol)}]", f"scale = {asset.scale}")
        yield from _provenance(asset.provenance)
    for schedule in rulebook.schedules:
        yield from _schedule(schedule)
    for instrument in rulebook.instruments:
        yield from _instrument(instrument)


def _provenance(provenance: Provenance) -> Iterator[str]:
    yield f"source = {text(provenance.source)}"
    yield f"as_of = {provenance.as_of.isoformat()}"
    for key, source in provenance.sources.items():
        yield f"sources.{key_text(key)} = {text(source)}"


def _schedule(schedule: ScheduleRule) -> Iterator[str]:
    yield from ("", f"[schedule.{key_text(schedule.name)}]")
    yield f"settlement_asset = {text(schedule.settlement_asset)}"
    if schedule.notional_max is not None:
        yield f"notional_max = {_value(schedule.notional_max)}"
    yield f"liquidation_fee_rate = {_value(schedule.liquidation_fee_rate)}"
    yield from _provenance(schedule.provenance)
    yield "tier = ["
    yield from (f"    {_tier(tier)}," for tier in schedule.tiers)
    yield "]"


def _tier(tier: TierRule) -> str:
    cells = (f"{key} = {_value(getattr(tier, key))}" for key in TIER_KEYS)
    return f"{{ {', '.join(cells)} }}"


def _instrument(instrument: InstrumentRule) -> Iterator[str]:
    yield from ("", f"[instrument.{key_text(instrument.symbol)}]")
    for key in INSTRUMENT_KEYS:
        value = getattr(instrument, key)
        if value not in (None, ""):
            yield f"{key} = {_value(value)}"
    yield from _provenance(instrument.provenance)
