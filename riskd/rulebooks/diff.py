"""What differs between two rulebooks, or two times of one: values by path, and requirements."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from riskd.margin import Rule
from riskd.rulebooks import library
from riskd.rulebooks.laws import section_keys
from riskd.rulebooks.schema import (
    EXACT,
    ZERO,
    Provenance,
    Rulebook,
    ScheduleRule,
    Value,
    key_text,
    show,
)
from riskd.rulebooks.writer import instrument_values, parameter_values, schedule_values, tier_keys

# Sizes at which requirements are compared: powers of ten, of notional or of quantity.
SIZES: Final = tuple(Decimal(10) ** power for power in range(10))


@dataclass(frozen=True, slots=True)
class Change:
    """A path whose value is another one; None: it is not there."""

    path: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class RequirementChange:
    """Maintenance of a position of one size under both rulebooks."""

    schedule: str
    size: Decimal
    unit: str
    """What the size counts: the settlement asset, or units of quantity at a price of 1."""
    old: Decimal
    new: Decimal

    @property
    def per_cent(self) -> Decimal | None:
        """Return the change in per cent to 0.01; None from nothing."""
        if self.old == ZERO:
            return None
        part = EXACT.subtract(self.new, self.old) / self.old
        return (part * 100).quantize(Decimal("0.01"))


def changes(old: Rulebook, new: Rulebook, *, has_sources: bool = False) -> list[Change]:
    """Return the paths whose values differ, in the order of the old rulebook, then the new.

    Names and titles of rulebooks do not count; sources and dates do where has_sources says so.
    """
    before, after = flatten(old, has_sources), flatten(new, has_sources)
    paths = [*before, *(path for path in after if path not in before)]
    return [
        Change(path, before.get(path), after.get(path))
        for path in paths
        if before.get(path) != after.get(path)
    ]


def requirement_changes(old: Rulebook, new: Rulebook) -> list[RequirementChange]:
    """Return how maintenance of the schedules that both have differs, at powers of ten.

    Of several versions the newest counts: riskd.rulebooks.select takes another.
    """
    before = {rule.name: rule for rule in old.schedules}
    after = {rule.name: rule for rule in new.schedules}
    found: list[RequirementChange] = []
    for name, schedule in after.items():
        if name in before:
            found += _compare(before[name], schedule, _rule(old), _rule(new))
    return found


def _rule(rulebook: Rulebook) -> Rule:
    return Rule() if rulebook.rule is None else rulebook.rule.of()


def _compare(
    old: ScheduleRule, new: ScheduleRule, old_rule: Rule, new_rule: Rule
) -> Iterator[RequirementChange]:
    unit = old.settlement_asset if _is_by_notional(old) and _is_by_notional(new) else "units"
    for size in SIZES:
        if any(size > largest for rule in (old, new) if (largest := _largest(rule)) is not None):
            return
        # At a price of 1 a notional is a quantity, of linear and inverse contracts.
        before = library.maintenance(old, size, Decimal(1), old_rule)
        after = library.maintenance(new, size, Decimal(1), new_rule)
        if before != after:
            yield RequirementChange(new.name, size, unit, before, after)


def _is_by_notional(rule: ScheduleRule) -> bool:
    return rule.family in ("tiered", "leverage", "power") and rule.tier_key == "notional"


def _largest(rule: ScheduleRule) -> Decimal | None:
    bounds = [each for each in (rule.notional_max, rule.quantity_max) if each is not None]
    return min(bounds, default=None)


def flatten(rulebook: Rulebook, has_sources: bool = False) -> dict[str, str]:
    """Return path to value, both as they stand in a file."""
    found: dict[str, str] = {}

    def put(section: str, values: Mapping[str, Value | int | date], own: Provenance) -> None:
        for key, value in values.items():
            if isinstance(value, tuple):
                for k, row in enumerate(value):
                    for column, cell in row.items():
                        found[f"{section}.{key}[{k}].{column}"] = show(cell)
            else:
                found[f"{section}.{key}"] = value if isinstance(value, str) else show(value)
        if has_sources:
            found[f"{section}.source"], found[f"{section}.as_of"] = own.source, str(own.as_of)
            for key, source in own.sources.items():
                found[f"{section}.sources.{key_text(key)}"] = source

    if rulebook.effective_from is not None:
        found["effective_from"] = show(rulebook.effective_from)
    if rulebook.rule is not None:
        put("rule", rulebook.rule.common, rulebook.rule.provenance)
        for mode, values in (("isolated", rulebook.rule.isolated), ("cross", rulebook.rule.cross)):
            for key, value in values.items():
                found[f"rule.{mode}.{key}"] = value if isinstance(value, str) else show(value)
    for asset in rulebook.assets:
        put(f"asset.{key_text(asset.symbol)}", {"scale": asset.scale}, asset.provenance)
    schedules = rulebook.schedules
    for schedule, section in zip(schedules, section_keys("schedule", schedules), strict=True):
        put(section, schedule_values(schedule), schedule.provenance)
        for k, tier in enumerate(schedule.tiers):
            for key in tier_keys(schedule):
                found[f"{section}.tier[{k}].{key}"] = show(getattr(tier, key))
    for what, rules in (
        ("option_rule", rulebook.option_rules),
        ("collateral", rulebook.collateral),
    ):
        for rule, section in zip(rules, section_keys(what, rules), strict=True):
            put(section, parameter_values(rule), rule.provenance)
    if rulebook.levels is not None:
        levels = rulebook.levels
        put("levels", levels.parameters, levels.provenance)
    for instrument in rulebook.instruments:
        section = f"instrument.{key_text(instrument.symbol)}"
        put(section, instrument_values(instrument), instrument.provenance)
    return found
