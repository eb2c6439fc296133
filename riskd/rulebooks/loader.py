"""Read rulebooks: TOML files of formats 1 and 2, described in docs/rulebooks.md.

The reader is strict. A key that it does not know is refused, because a misspelt bound would
otherwise be no bound; a number is read as the decimal that is written, never as a double.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

from riskd.margin import maintenance_rate_of_leverage
from riskd.rulebooks.keys import (
    COLLATERAL,
    LEVELS,
    OPTION_FAMILIES,
    RULE,
    SCHEDULE_FAMILIES,
    Key,
)
from riskd.rulebooks.laws import next_deduction, validate
from riskd.rulebooks.schema import (
    EXACT,
    FORMAT,
    FORMATS,
    KINDS_OF_FORMAT_1,
    LEVERAGE,
    LEVERAGE_MAX,
    LEVERAGE_MIN,
    LEVERAGE_PLACES,
    ONE,
    OPTIONS,
    RATE_PLACES,
    SPOT,
    TIERED,
    ZERO,
    AssetRule,
    InstrumentRule,
    LevelsRule,
    ParameterRule,
    Provenance,
    Rulebook,
    RulebookError,
    ScheduleRule,
    TierRule,
    Value,
    VenueRule,
    number_of,
)
from riskd.rulebooks.sections import Section, parse, read_file


def names() -> list[str]:
    """Return the names of the rulebooks that come with riskd."""
    packaged = files("riskd.rulebooks").iterdir()
    return sorted(entry.name[:-5] for entry in packaged if entry.name.endswith(".toml"))


def load(name_or_path: str | Path) -> Rulebook:
    """Load a packaged rulebook by its name, or a file by its path (with a / or ending in .toml).

    Raises RulebookError, naming the file, the key and the bound, if it cannot be read or used.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith(".toml"):
        return loads(read_file(name_or_path), text)
    if text not in names():
        known = ", ".join(names())
        reason = f"no such rulebook; there are {known}, or give the path of a .toml file"
        raise RulebookError(text, "", reason)
    content = (files("riskd.rulebooks") / f"{text}.toml").read_bytes()
    return loads(content, f"{text}.toml")


def loads(content: bytes | str, path: str = "<text>") -> Rulebook:
    """Load a rulebook from TOML; path is what errors call it."""
    rulebook = _read_rulebook(Section(path, "", parse(content, path)))
    validate(rulebook, path)
    return rulebook


def _read_rulebook(root: Section) -> Rulebook:
    number = read_format(root)
    name, title = root.text("name"), root.text("title")
    assets = root.sections("asset")
    schedules = root.versions("schedule")
    instruments = root.sections("instrument")
    is_new = number > 1
    effective_from = root.optional_time("effective_from") if is_new else None
    rule = root.section("rule") if is_new else None
    option_rules = root.versions("option_rule") if is_new else []
    collateral = root.versions("collateral") if is_new else []
    levels = root.section("levels") if is_new else None
    provenance = root.provenance()
    root.done()
    venue = None if rule is None else _read_rule(rule)
    return Rulebook(
        name=name,
        title=title,
        provenance=provenance,
        assets=tuple(_read_asset(symbol, section) for symbol, section in assets.items()),
        schedules=tuple(_read_schedule(key, section, venue, number) for key, section in schedules),
        instruments=tuple(
            read_instrument(symbol, section, number) for symbol, section in instruments.items()
        ),
        rule=venue,
        option_rules=tuple(_read_option_rule(key, section) for key, section in option_rules),
        collateral=tuple(
            _read_parameters(key, "", section, COLLATERAL) for key, section in collateral
        ),
        levels=None if levels is None else _read_levels(levels),
        effective_from=effective_from,
    )


def read_format(root: Section) -> int:
    """Return the number of the file's format; refuse one that is not read here."""
    number = root.integer("format")
    if number not in FORMATS:
        raise root.refuse("format", f"this riskd reads formats 1 and {FORMAT}", number)
    return number


def _read_rule(section: Section) -> VenueRule:
    common = section.values(RULE)
    modes: dict[str, dict[str, Value]] = {}
    for mode in ("isolated", "cross"):
        changes = section.section(mode)
        modes[mode] = {} if changes is None else changes.values(RULE, has_defaults=False)
        if changes is not None:
            changes.done()
    provenance = section.provenance()
    section.done()
    return VenueRule(common, provenance, modes["isolated"], modes["cross"])


def _read_option_rule(name: str, section: Section) -> ParameterRule:
    family = section.text("family")
    if family not in OPTION_FAMILIES:
        raise section.refuse("family", f"must be one of {', '.join(OPTION_FAMILIES)}", family)
    return _read_parameters(name, family, section, OPTION_FAMILIES[family])


def _read_parameters(
    name: str, family: str, section: Section, keys: Sequence[Key]
) -> ParameterRule:
    effective_from = section.optional_time("effective_from")
    values = section.values(keys)
    provenance = section.provenance()
    section.done()
    return ParameterRule(name, family, values, provenance, effective_from)


def _read_levels(section: Section) -> LevelsRule:
    values = section.values(LEVELS)
    provenance = section.provenance()
    section.done()
    return LevelsRule(values, provenance)


def _read_asset(symbol: str, section: Section) -> AssetRule:
    scale = section.integer("scale")
    provenance = section.provenance()
    section.done()
    return AssetRule(symbol, scale, provenance)


def _read_schedule(
    name: str, section: Section, rule: VenueRule | None, number: int
) -> ScheduleRule:
    settlement_asset = section.text("settlement_asset")
    notional_max = section.optional_number("notional_max")
    fee = section.number("liquidation_fee_rate", ZERO)
    family, quantity_max, effective_from = TIERED, None, None
    values: dict[str, Value] = {}
    if number > 1:
        family = section.text("family", TIERED)
        if family not in SCHEDULE_FAMILIES:
            raise section.refuse("family", f"must be one of {', '.join(SCHEDULE_FAMILIES)}", family)
        quantity_max = section.optional_number("quantity_max")
        effective_from = section.optional_time("effective_from")
        values = section.values(SCHEDULE_FAMILIES[family])
    tier_mode, tier_key = _tier_switches(rule, family)
    tiers: list[TierRule] = []
    for row in section.rows("tier") if family in (TIERED, LEVERAGE) else ():
        previous = tiers[-1] if tiers else None
        if family == LEVERAGE:
            tiers.append(_read_leverage_tier(row, previous, values))
        else:
            tiers.append(_read_tier(row, previous, is_whole=tier_mode == "whole"))
    provenance = section.provenance()
    section.done()
    return ScheduleRule(
        name,
        settlement_asset,
        tuple(tiers),
        notional_max,
        fee,
        provenance,
        family,
        tier_mode,
        tier_key,
        quantity_max,
        values,
        effective_from,
    )


def _tier_switches(rule: VenueRule | None, family: str) -> tuple[str, str]:
    """Return tier_mode and tier_key of a schedule; families without tiers have the defaults."""
    if rule is None or family not in (TIERED, LEVERAGE):
        return "marginal", "notional"
    return str(rule.common["tier_mode"]), str(rule.common["tier_key"])


def _read_tier(row: Section, previous: TierRule | None, *, is_whole: bool) -> TierRule:
    floor = row.number("floor")
    maintenance_rate = row.number("maintenance_rate")
    initial_rate = row.optional_number("initial_rate")
    # Of the two one is enough; where a venue prints both, both count.
    max_leverage = row.optional_number("max_leverage")
    deduction = row.optional_number("deduction")
    row.done()
    if max_leverage is None:
        if initial_rate is None:
            raise row.refuse("max_leverage", "is missing")
        if not ZERO < initial_rate <= ONE:
            raise row.refuse("initial_rate", "must be above 0 and at most 1", initial_rate)
        max_leverage = leverage_of_rate(initial_rate)
    if initial_rate is None:
        if max_leverage <= ZERO:
            raise row.refuse("max_leverage", "must be above 0", max_leverage)
        initial_rate = inverse_leverage(max_leverage)
    if deduction is None:
        deduction = ZERO
        if previous is not None and not is_whole:
            deduction = next_deduction(previous, floor, maintenance_rate)
    return TierRule(floor, initial_rate, maintenance_rate, deduction, max_leverage)


def _read_leverage_tier(
    row: Section, previous: TierRule | None, values: Mapping[str, Value]
) -> TierRule:
    floor, max_leverage = row.number("floor"), row.number("max_leverage")
    row.done()
    if not LEVERAGE_MIN <= max_leverage <= LEVERAGE_MAX:
        reason = f"must be {LEVERAGE_MIN} to {LEVERAGE_MAX}"
        raise row.refuse("max_leverage", reason, max_leverage)
    part = number_of(values, "maintenance_part")
    if not ZERO < part < ONE:
        # The laws name the key; this keeps the rates below from being none.
        part = ONE
    return leverage_tier(floor, max_leverage, part, previous)


def leverage_tier(
    floor: Decimal, max_leverage: Decimal, part: Decimal, previous: TierRule | None
) -> TierRule:
    """Return the tier whose maintenance rate is a part of 1 / max_leverage, rounded up to 1e-9."""
    maintenance_rate = maintenance_rate_of_leverage(max_leverage, part)
    deduction = next_deduction(previous, floor, maintenance_rate) if previous else ZERO
    return TierRule(
        floor, inverse_leverage(max_leverage), maintenance_rate, deduction, max_leverage
    )


def leverage_of_rate(initial_rate: Decimal) -> Decimal:
    """Return 1 / initial_rate rounded up to 0.01, at most 1000.

    Up, so that the leverage never asks for more than the rate, which counts too.
    """
    hundredths, rest = divmod(Decimal(10**LEVERAGE_PLACES), initial_rate)
    rounded = hundredths + (1 if rest else 0)
    return min(LEVERAGE_MAX, EXACT.scaleb(rounded, -LEVERAGE_PLACES))


def inverse_leverage(max_leverage: Decimal) -> Decimal:
    """Return 1 / max_leverage, rounded down to 1e-9.

    Down, so that the leverage that a venue allows is not refused by the rounding of its inverse;
    the requirement itself is the larger of this rate's and the one of the leverage, rounded up.
    """
    places = 10**RATE_PLACES
    quotient = EXACT.divide_int(Decimal(places), max_leverage)
    return min(ONE, EXACT.scaleb(quotient, -RATE_PLACES))


def read_instrument(
    symbol: str,
    section: Section,
    number: int,
    defaults: Mapping[str, str] | None = None,
    inherited: Provenance | None = None,
) -> InstrumentRule:
    """Read one [instrument.SYMBOL] of a format; defaults are for kind, asset and schedule."""
    given = defaults or {}
    kind = section.text("kind", given.get("kind"))
    if number == 1 and kind not in KINDS_OF_FORMAT_1:
        reason = f"must be one of {', '.join(KINDS_OF_FORMAT_1)}; format 2 has more kinds"
        raise section.refuse("kind", reason, kind)
    settlement_asset = section.text("settlement_asset", given.get("settlement_asset"))
    schedule = section.optional_text("margin_schedule") or given.get("margin_schedule")
    if schedule is None and kind not in (*OPTIONS, SPOT):
        raise section.refuse("margin_schedule", "is missing, only options and spot have none")
    is_new = number > 1
    rule = InstrumentRule(
        symbol=symbol,
        kind=kind,
        settlement_asset=settlement_asset,
        margin_schedule=schedule or "",
        tick_size=section.number("tick_size"),
        lot_size=section.number("lot_size"),
        mark_units_per_tick=section.integer("mark_units_per_tick", 1),
        order_quantity_min=section.optional_number("order_quantity_min"),
        order_quantity_max=section.optional_number("order_quantity_max"),
        order_notional_min=section.optional_number("order_notional_min"),
        order_notional_max=section.optional_number("order_notional_max"),
        price_collar_rate=section.optional_number("price_collar_rate"),
        market_order_buffer_rate=section.number("market_order_buffer_rate", ZERO),
        taker_fee_rate=section.number("taker_fee_rate", ZERO),
        mark_age_max_ms=section.integer("mark_age_max_ms", 0),
        trading_state=section.text("trading_state", "normal"),
        contract_multiplier=section.number("contract_multiplier", ONE) if is_new else ONE,
        base_asset=section.optional_text("base_asset") if is_new else None,
        isolated_only=section.flag("isolated_only") if is_new else False,
        funding_interval_ms=section.integer("funding_interval_ms", 0) if is_new else 0,
        expiry=section.optional_time("expiry"),
        strike=section.optional_number("strike"),
        option_type=section.optional_text("option_type"),
        interest_rate=section.optional_number("interest_rate"),
        underlying=section.optional_text("underlying"),
        option_rule=section.optional_text("option_rule") if is_new else None,
        provenance=section.provenance(inherited),
    )
    section.done()
    return rule
