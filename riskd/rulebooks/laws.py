"""The laws that a rulebook keeps: bounds of single values, and what must agree with what."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Protocol

from riskd.rulebooks.instrument_laws import InstrumentLaws
from riskd.rulebooks.keys import (
    COLLATERAL,
    LEVELS,
    OPTION_FAMILIES,
    RULE,
    SCHEDULE_FAMILIES,
    Key,
    fault,
)
from riskd.rulebooks.schema import (
    ASSET_SYMBOL,
    EXACT,
    INT64_MAX,
    LEVERAGE,
    LEVERAGE_MAX,
    LEVERAGE_MIN,
    LEVERAGE_PLACES,
    NAME,
    ONE,
    RATE_PLACES,
    RULEBOOK_NAME,
    SCALE_MAX,
    SPOT,
    TIERED,
    TIERS_MAX,
    ZERO,
    AssetRule,
    InstrumentRule,
    ParameterRule,
    Rulebook,
    RulebookError,
    ScheduleRule,
    TierRule,
    Value,
    find_asset,
    key_text,
    plain,
    scaled,
)

# Floors of quantities, and largest quantities.
QUANTITY_PLACES = 12
QUANTITY_MAX = 10**15 * 10**QUANTITY_PLACES
FUNDING_INTERVAL_MS_MAX = 7 * 86_400_000


def next_deduction(previous: TierRule, floor: Decimal, maintenance_rate: Decimal) -> Decimal:
    """Return d_k = d_(k-1) + f_k (m_k - m_(k-1)), exact.

    With it, maintenance m_k N - d_k is the same from both sides of the floor. Source:
    docs/decision.md, Margin of a position.
    """
    rise = EXACT.subtract(maintenance_rate, previous.maintenance_rate)
    return EXACT.add(previous.deduction, EXACT.multiply(floor, rise))


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken law of a tier ladder."""

    tier: int
    key: str
    value: Decimal
    reason: str


def ladder_violation(schedule: ScheduleRule, scale: int) -> Violation | None:
    """Return the first law that the tiers of a schedule break, or None."""
    places = scale if schedule.tier_key == "notional" else QUANTITY_PLACES
    is_whole = schedule.tier_mode == "whole"
    previous: TierRule | None = None
    for k, tier in enumerate(schedule.tiers):
        for violation in (
            _floor_violation(k, tier, places, schedule.tier_key),
            _tier_violation(k, tier, schedule.liquidation_fee_rate),
            _join_violation(k, previous, tier, is_whole),
            _deduction_violation(k, previous, tier, scale, is_whole),
        ):
            if violation:
                return violation
        previous = tier
    return None


def _floor_violation(k: int, tier: TierRule, places: int, tier_key: str) -> Violation | None:
    floor = scaled(tier.floor, places)
    if floor is None:
        whose = " (asset scale)" if tier_key == "notional" else ""
        return Violation(k, "floor", tier.floor, f"has more than {places} decimals{whose}")
    largest = INT64_MAX if tier_key == "notional" else QUANTITY_MAX
    if not 0 <= floor <= largest:
        bound = f"2^63-1 times 10^-{places}" if tier_key == "notional" else "10^15"
        return Violation(k, "floor", tier.floor, f"must be 0 to {bound}")
    return None


def _tier_violation(k: int, tier: TierRule, fee: Decimal) -> Violation | None:
    rates = (("initial_rate", tier.initial_rate), ("maintenance_rate", tier.maintenance_rate))
    for key, rate in rates:
        if not ZERO < rate <= ONE:
            return Violation(k, key, rate, "must be above 0 and at most 1")
        if scaled(rate, RATE_PLACES) is None:
            return Violation(k, key, rate, f"has more than {RATE_PLACES} decimals")
    if tier.initial_rate <= EXACT.add(tier.maintenance_rate, fee):
        bound = f"must be above maintenance_rate {plain(tier.maintenance_rate)}"
        if fee:
            bound += f" plus liquidation_fee_rate {plain(fee)}"
        return Violation(k, "initial_rate", tier.initial_rate, bound)
    if EXACT.add(tier.maintenance_rate, fee) >= ONE:
        bound = f"plus liquidation_fee_rate {plain(fee)} must be below 1"
        return Violation(k, "maintenance_rate", tier.maintenance_rate, bound)
    if not LEVERAGE_MIN <= tier.max_leverage <= LEVERAGE_MAX:
        bound = f"must be {LEVERAGE_MIN} to {LEVERAGE_MAX}"
        return Violation(k, "max_leverage", tier.max_leverage, bound)
    if scaled(tier.max_leverage, LEVERAGE_PLACES) is None:
        bound = f"has more than {LEVERAGE_PLACES} decimals"
        return Violation(k, "max_leverage", tier.max_leverage, bound)
    return None


def _join_violation(
    k: int, previous: TierRule | None, tier: TierRule, is_whole: bool
) -> Violation | None:
    if previous is None:
        if tier.floor != ZERO:
            return Violation(k, "floor", tier.floor, "must be 0 in the first tier")
        return None
    of_previous = f"of tier[{k - 1}]"
    if tier.floor <= previous.floor:
        bound = f"must be above {plain(previous.floor)}, the floor {of_previous}"
        return Violation(k, "floor", tier.floor, bound)
    if tier.maintenance_rate <= previous.maintenance_rate and not is_whole:
        bound = f"must be above {plain(previous.maintenance_rate)}, the rate {of_previous}"
        return Violation(k, "maintenance_rate", tier.maintenance_rate, bound)
    if tier.maintenance_rate < previous.maintenance_rate:
        bound = f"must be at least {plain(previous.maintenance_rate)}, the rate {of_previous}"
        return Violation(k, "maintenance_rate", tier.maintenance_rate, bound)
    if tier.initial_rate < previous.initial_rate:
        bound = f"must be at least {plain(previous.initial_rate)}, the rate {of_previous}"
        return Violation(k, "initial_rate", tier.initial_rate, bound)
    if tier.max_leverage > previous.max_leverage:
        bound = f"must be at most {plain(previous.max_leverage)}, the leverage {of_previous}"
        return Violation(k, "max_leverage", tier.max_leverage, bound)
    return None


def _deduction_violation(
    k: int, previous: TierRule | None, tier: TierRule, scale: int, is_whole: bool
) -> Violation | None:
    if is_whole:
        if tier.deduction != ZERO:
            bound = "must be 0: the rate of a tier holds for the whole position"
            return Violation(k, "deduction", tier.deduction, bound)
        return None
    if previous is None:
        expected = ZERO
    else:
        expected = next_deduction(previous, tier.floor, tier.maintenance_rate)
    if tier.deduction != expected:
        bound = f"must be {plain(expected)}, which makes maintenance continuous at the floor"
        return Violation(k, "deduction", tier.deduction, bound)
    deduction = scaled(tier.deduction, scale)
    if deduction is None:
        bound = f"is not a whole number of minor units (10^-{scale})"
        return Violation(k, "deduction", tier.deduction, bound)
    if deduction > INT64_MAX:
        bound = f"must be at most 2^63-1 times 10^-{scale}"
        return Violation(k, "deduction", tier.deduction, bound)
    return None


class _Named(Protocol):
    @property
    def effective_from(self) -> datetime | None: ...


def validate(rulebook: Rulebook, path: str) -> None:
    """Raise RulebookError for the first bound or law that the rulebook breaks."""
    if not RULEBOOK_NAME.fullmatch(rulebook.name):
        raise RulebookError(path, "name", "must be 1 to 31 of a-z, 0-9 and _", rulebook.name)
    assets = {rule.symbol: rule for rule in rulebook.assets}
    symbols = {rule.symbol for rule in rulebook.instruments}
    for what, rules, count in (
        ("asset", set(assets), len(rulebook.assets)),
        ("instrument", symbols, len(rulebook.instruments)),
    ):
        if len(rules) != count:
            raise RulebookError(path, what, "a name is there twice")
    for what, versions in (
        ("schedule", [(rule.name, rule) for rule in rulebook.schedules]),
        ("option_rule", [(rule.name, rule) for rule in rulebook.option_rules]),
        ("collateral", [(rule.name, rule) for rule in rulebook.collateral]),
    ):
        _validate_versions(what, versions, path)
    for asset in rulebook.assets:
        _validate_asset(asset, path)
    _validate_rule(rulebook, path)
    for schedule, key in zip(
        rulebook.schedules, section_keys("schedule", rulebook.schedules), strict=True
    ):
        _ScheduleLaws(schedule, rulebook, assets, path, key).validate()
    for rule, key in zip(
        rulebook.option_rules, section_keys("option_rule", rulebook.option_rules), strict=True
    ):
        _validate_option_rule(rule, path, key)
    for rule, key in zip(
        rulebook.collateral, section_keys("collateral", rulebook.collateral), strict=True
    ):
        _validate_collateral(rule, rulebook, path, key)
    if rulebook.levels is not None:
        _validate_levels(rulebook.levels.parameters, path)
    for instrument in rulebook.instruments:
        InstrumentLaws(instrument, rulebook, path).validate()


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


def section_keys(table: str, rules: Sequence[_HasName]) -> list[str]:
    """Return the key of each rule's section: schedule.NAME, or schedule.NAME[1] of several."""
    names = [rule.name for rule in rules]
    seen: dict[str, int] = {}
    keys = []
    for name in names:
        k = seen[name] = seen.get(name, -1) + 1
        version = f"[{k}]" if names.count(name) > 1 else ""
        keys.append(f"{table}.{key_text(name)}{version}")
    return keys


def _validate_versions(what: str, rules: Iterable[tuple[str, _Named]], path: str) -> None:
    """Versions of one name begin later and later; only the first may have been there for ever."""
    last: dict[str, datetime | None] = {}
    count: dict[str, int] = {}
    for name, rule in rules:
        k = count[name] = count.get(name, -1) + 1
        key = f"{what}.{key_text(name)}[{k}].effective_from"
        start = rule.effective_from
        if k and start is None:
            raise RulebookError(path, key, "is missing, versions after the first need it")
        before = last.get(name)
        if start is not None and before is not None and start <= before:
            reason = f"must be after {before.isoformat()}, that of version [{k - 1}]"
            raise RulebookError(path, key, reason, start)
        last[name] = start


def _refuse_fault(
    keys: Sequence[Key], values: Mapping[str, Value], path: str, section: str
) -> None:
    found = fault(keys, values)
    if found:
        raise RulebookError(path, f"{section}.{found.key}", found.reason, found.value)


def _validate_rule(rulebook: Rulebook, path: str) -> None:
    rule = rulebook.rule
    if rule is None:
        return
    for section, values in (
        ("rule", rule.common),
        ("rule.isolated", rule.isolated),
        ("rule.cross", rule.cross),
    ):
        _refuse_fault(RULE, values, path, section)
    for section, values in (("rule.isolated", rule.isolated), ("rule.cross", rule.cross)):
        for key in ("tier_mode", "tier_key", "contract"):
            if key in values:
                reason = "is the same in all margin modes: it belongs to [rule]"
                raise RulebookError(path, f"{section}.{key}", reason, values[key])
    for schedule, key in zip(
        rulebook.schedules, section_keys("schedule", rulebook.schedules), strict=True
    ):
        fees = {rule.of(mode).fee_in_liquidation for mode in ("isolated", "cross")}
        if schedule.liquidation_fee_rate and fees == {"none"}:
            raise RulebookError(
                path,
                f"{key}.liquidation_fee_rate",
                'must be 0 or absent: rule.fee_in_liquidation is "none"',
                schedule.liquidation_fee_rate,
            )


def _validate_asset(asset: AssetRule, path: str) -> None:
    key = f"asset.{key_text(asset.symbol)}"
    if not ASSET_SYMBOL.fullmatch(asset.symbol):
        raise RulebookError(path, key, "a symbol is 1 to 15 of A-Z and 0-9")
    if not 0 <= asset.scale <= SCALE_MAX:
        raise RulebookError(path, f"{key}.scale", f"must be 0 to {SCALE_MAX}", asset.scale)


@dataclass(frozen=True, slots=True)
class _ScheduleLaws:
    """The bounds of one margin schedule."""

    rule: ScheduleRule
    rulebook: Rulebook
    assets: Mapping[str, AssetRule]
    path: str
    section: str

    def refuse(self, key: str, value: object, reason: str) -> RulebookError:
        return RulebookError(
            self.path, f"{self.section}.{key}" if key else self.section, reason, value
        )

    def validate(self) -> None:
        rule = self.rule
        if not NAME.fullmatch(rule.name):
            raise self.refuse("", None, "a name is 1 to 31 printable ASCII characters, no space")
        if rule.family not in SCHEDULE_FAMILIES:
            reason = f"must be one of {', '.join(SCHEDULE_FAMILIES)}"
            raise self.refuse("family", rule.family, reason)
        asset = find_asset(
            rule.settlement_asset, self.assets, f"{self.section}.settlement_asset", self.path
        )
        fee = rule.liquidation_fee_rate
        if not ZERO <= fee < ONE:
            raise self.refuse("liquidation_fee_rate", fee, "must be at least 0 and below 1")
        if scaled(fee, RATE_PLACES) is None:
            reason = f"has more than {RATE_PLACES} decimals"
            raise self.refuse("liquidation_fee_rate", fee, reason)
        _refuse_fault(SCHEDULE_FAMILIES[rule.family], rule.parameters, self.path, self.section)
        if rule.family in (TIERED, LEVERAGE):
            self.validate_tiers(asset.scale)
        else:
            self.validate_family()
        self.validate_maximum("notional_max", rule.notional_max, asset.scale, "(asset scale)")
        self.validate_maximum("quantity_max", rule.quantity_max, QUANTITY_PLACES, "")

    def validate_tiers(self, scale: int) -> None:
        rule = self.rule
        if not 1 <= len(rule.tiers) <= TIERS_MAX:
            reason = f"has {len(rule.tiers)} tiers, must have 1 to {TIERS_MAX}"
            raise self.refuse("tier", None, reason)
        if rule.tier_mode == "marginal" and rule.tier_key == "quantity":
            reason = "must be whole, where tier_key is quantity: a deduction is of a notional"
            raise RulebookError(self.path, "rule.tier_mode", reason, rule.tier_mode)
        if rule.family == LEVERAGE and (rule.tier_mode, rule.tier_key) != ("marginal", "notional"):
            reason = "must be tiered, where tiers are whole or by quantity"
            raise self.refuse("family", rule.family, reason)
        if rule.family == LEVERAGE:
            self.validate_leverages()
        violation = ladder_violation(rule, scale)
        if violation:
            where = f"tier[{violation.tier}].{violation.key}"
            raise self.refuse(where, violation.value, violation.reason)
        bounds = {"notional": rule.notional_max, "quantity": rule.quantity_max}
        largest, last = bounds[rule.tier_key], rule.tiers[-1].floor
        if largest is not None and largest <= last:
            reason = f"must be above {plain(last)}, the floor of tier[{len(rule.tiers) - 1}]"
            raise self.refuse(f"{rule.tier_key}_max", largest, reason)

    def validate_leverages(self) -> None:
        """Refuse a leverage that does not fall: the rates, which follow from it, would not rise."""
        for k, (low, high) in enumerate(pairwise(self.rule.tiers), start=1):
            if high.max_leverage >= low.max_leverage:
                reason = f"must be below {plain(low.max_leverage)}, that of tier[{k - 1}]"
                raise self.refuse(f"tier[{k}].max_leverage", high.max_leverage, reason)

    def validate_family(self) -> None:
        """Refuse a position that could be liquidated as soon as it has its initial margin."""
        rule = self.rule
        if rule.tiers:
            raise self.refuse("tier", None, f"belongs to tiered and leverage, not {rule.family}")
        values = rule.parameters
        number = {key: value for key, value in values.items() if isinstance(value, Decimal)}
        pairs = {
            "per_contract": ("maintenance_per_contract", "initial_per_contract"),
            "size_linear": ("maintenance_base", "initial_base"),
            "size_sqrt": ("maintenance_rate", "initial_rate"),
            "power": ("maintenance_base", "initial_base"),
        }
        if rule.family in pairs:
            low, high = pairs[rule.family]
            if number[low] >= number[high]:
                raise self.refuse(low, number[low], f"must be below {high} {plain(number[high])}")
        if rule.family == "size_linear" and number["maintenance_slope"] > number["initial_slope"]:
            reason = f"must be at most initial_slope {plain(number['initial_slope'])}"
            raise self.refuse("maintenance_slope", number["maintenance_slope"], reason)
        if rule.family == "open_interest":
            low_oi, high_oi = number["open_interest_lower"], number["open_interest_upper"]
            if (low_oi or high_oi) and high_oi <= low_oi:
                reason = f"must be above open_interest_lower {plain(low_oi)}, or both 0"
                raise self.refuse("open_interest_upper", high_oi, reason)
            if number["maintenance_fraction"] == ONE:
                raise self.refuse("maintenance_fraction", ONE, "must be below 1")

    def validate_maximum(self, key: str, largest: Decimal | None, places: int, whose: str) -> None:
        if largest is None:
            return
        if largest <= ZERO:
            raise self.refuse(key, largest, "must be above 0")
        units = scaled(largest, places)
        if units is None:
            reason = f"has more than {places} decimals {whose}".rstrip()
            raise self.refuse(key, largest, reason)
        is_notional = key == "notional_max"
        if units > (INT64_MAX if is_notional else QUANTITY_MAX):
            bound = f"2^63-1 times 10^-{places}" if is_notional else "10^15"
            reason = f"must be at most {bound}; leave it out for no bound"
            raise self.refuse(key, largest, reason)


def _validate_option_rule(rule: ParameterRule, path: str, section: str) -> None:
    if not NAME.fullmatch(rule.name):
        reason = "a name is 1 to 31 printable ASCII characters, no space"
        raise RulebookError(path, section, reason)
    if rule.family not in OPTION_FAMILIES:
        reason = f"must be one of {', '.join(OPTION_FAMILIES)}"
        raise RulebookError(path, f"{section}.family", reason, rule.family)
    _refuse_fault(OPTION_FAMILIES[rule.family], rule.parameters, path, section)
    if rule.family in ("short_option", "reg_t"):
        least, rate = rule.number("initial_floor"), rule.number("initial_rate")
        if least > rate:
            reason = f"must be at most initial_rate {plain(rate)}"
            raise RulebookError(path, f"{section}.initial_floor", reason, least)
    floor = rule.parameters.get("maintenance_floor")
    if isinstance(floor, Decimal) and floor > rule.number("maintenance_rate"):
        reason = f"must be at most maintenance_rate {plain(rule.number('maintenance_rate'))}"
        raise RulebookError(path, f"{section}.maintenance_floor", reason, floor)


def _validate_collateral(rule: ParameterRule, rulebook: Rulebook, path: str, section: str) -> None:
    find_asset(rule.name, {each.symbol: each for each in rulebook.assets}, section, path)
    _refuse_fault(COLLATERAL, rule.parameters, path, section)
    index = rule.parameters.get("index")
    contracts = [each.symbol for each in rulebook.instruments if _can_be_index(each, rule.name)]
    if index is not None and index not in contracts:
        there = ", ".join(contracts[:10]) or "none"
        reason = f"must be a linear contract or spot in another asset; there is {there}"
        raise RulebookError(path, f"{section}.index", reason, index)
    weights: Decimal | None = None
    table = rule.parameters.get("haircut", ())
    for k, row in enumerate(table if isinstance(table, tuple) else ()):
        key = f"{section}.haircut[{k}]"
        weight, maintenance = row["asset_weight"], row.get("maintenance_asset_weight")
        if weights is not None and weight > weights:
            reason = f"must be at most {plain(weights)}, that of haircut[{k - 1}]"
            raise RulebookError(path, f"{key}.asset_weight", reason, weight)
        if maintenance is not None and maintenance < weight:
            reason = f"must be at least asset_weight {plain(weight)}"
            raise RulebookError(path, f"{key}.maintenance_asset_weight", reason, maintenance)
        weights = weight
    free, forced = rule.parameters.get("interest_free"), rule.parameters.get("forced_conversion")
    if isinstance(free, Decimal) and isinstance(forced, Decimal) and forced < free:
        reason = f"must be at least interest_free {plain(free)}"
        raise RulebookError(path, f"{section}.forced_conversion", reason, forced)


def _can_be_index(rule: InstrumentRule, asset: str) -> bool:
    is_linear = rule.kind == SPOT or (rule.is_contract and not rule.is_inverse)
    return is_linear and rule.settlement_asset != asset


def _validate_levels(values: Mapping[str, Value], path: str) -> None:
    _refuse_fault(LEVELS, values, path, "levels")
    previous: tuple[str, Decimal] | None = None
    for key in LEVELS:
        value = values.get(key.name)
        if not isinstance(value, Decimal):
            continue
        if previous and value < previous[1]:
            reason = f"must be at least {previous[0]} {plain(previous[1])}"
            raise RulebookError(path, f"levels.{key.name}", reason, value)
        previous = (key.name, value)
