"""What a rulebook says, and the laws that it keeps.

Values are in the units that people use: money in units of the asset, rates as fractions of 1,
prices in quote currency, quantities in units of the underlying. `docs/rulebooks.md` describes each
key. Methods convert to the integers of `docs/decision.md`, exactly.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Final, TypeVar

from riskd.numbers import normalise

FORMAT: Final = 1

# Bounds of the engine: docs/decision.md, Numbers, and proto/riskd/v1/instrument_service.proto.
INT64_MAX: Final = 2**63 - 1
LOTS_MAX: Final = 2**53
UNITS_MAX: Final = 2**53
TICK_VALUE_MAX: Final = 2**40
MARK_UNITS_MAX: Final = 10**9
STEP_MANTISSA_MAX: Final = 10**12
STEP_EXPONENT_MAX: Final = 12
SCALE_MAX: Final = 12
TIERS_MAX: Final = 32
LEVERAGE_MIN: Final = Decimal(1)
LEVERAGE_MAX: Final = Decimal(1000)
RATE_PLACES: Final = 9
LEVERAGE_PLACES: Final = 2
MARK_AGE_MS_MAX: Final = INT64_MAX // 10**6

LINEAR_PERPETUAL: Final = "linear_perpetual"
LINEAR_OPTION: Final = "linear_option"
KINDS: Final = (LINEAR_PERPETUAL, LINEAR_OPTION)
OPTION_TYPES: Final = ("call", "put")
TRADING_STATES: Final = ("normal", "reduce_only", "halted")

ASSET_SYMBOL: Final = re.compile(r"[A-Z0-9]{1,15}")
# No space: docs/state.md writes names between spaces.
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
NAME: Final = re.compile(r"[!-~]{1,31}")
RULEBOOK_NAME: Final = re.compile(r"[a-z0-9_]{1,31}")

Rule = TypeVar("Rule")

ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Sums and products of numbers of at most 40 digits fit; anything that does not raises.
EXACT: Final = Context(prec=200, traps=[Inexact, InvalidOperation, Overflow])


class RulebookError(ValueError):
    """A rulebook cannot be used: names the file, the key, its value and the broken bound."""

    def __init__(self, path: str, key: str, reason: str, value: object = None) -> None:
        self.path = path
        self.key = key
        self.reason = reason
        shown = key if value is None else f"{key} = {show(value)}"
        super().__init__(f"{path}: {shown}: {reason}" if key else f"{path}: {reason}")


def show(value: object) -> str:
    """Return a value as error messages and tables print it."""
    if isinstance(value, Decimal):
        return plain(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def plain(value: Decimal) -> str:
    """Return the decimal text without exponent and without zeros at its end."""
    # An error message quotes 1e999999999 as it stands: written out it would fill the memory.
    if not value.is_finite() or abs(value.adjusted()) > 100:
        return str(value)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def key_text(name: str) -> str:
    """Return a name as it stands in a key of TOML, quoted where it must be."""
    if BARE_KEY.fullmatch(name):
        return name
    escaped = "".join(
        f"\\u{ord(c):04X}" if c < " " or c == "\x7f" else f"\\{c}" if c in '"\\' else c
        for c in name
    )
    return f'"{escaped}"'


def scaled(value: Decimal, places: int) -> int | None:
    """Return value * 10^places, or None if that is not a whole number."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return None
    number = int("".join(map(str, digits)) or "0") * (-1 if sign else 1)
    shift = exponent + places
    if shift >= 0:
        return int(number * 10**shift)
    quotient, remainder = divmod(number, 10**-shift)
    return None if remainder else quotient


def whole(value: Decimal, places: int) -> int:
    """Return value * 10^places. Raises ValueError if that is not a whole number."""
    number = scaled(value, places)
    if number is None:
        raise ValueError(f"{plain(value)} has more than {places} decimals")
    return number


def multiple(value: Decimal, step: Decimal) -> int | None:
    """Return value / step, or None if that is not a whole number."""
    places = max(0, -_exponent(value), -_exponent(step))
    quotient, remainder = divmod(whole(value, places), whole(step, places))
    return None if remainder else quotient


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is not a number")
    return exponent


def mantissa_exponent(value: Decimal) -> tuple[int, int]:
    """Return (mantissa, exponent) of mantissa * 10^exponent, the mantissa not a multiple of 10."""
    places = max(0, -_exponent(value))
    return normalise(whole(value, places), -places)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the figures of a section come from, and from when they are."""

    source: str
    as_of: date
    sources: Mapping[str, str] = field(default_factory=dict)
    """Keys of the section that come from elsewhere: key to source."""

    def of(self, key: str) -> str:
        """Return the source of one key."""
        return self.sources.get(key, self.source)


@dataclass(frozen=True, slots=True)
class AssetRule:
    """An asset: one minor unit is 10^-scale."""

    symbol: str
    scale: int
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class TierRule:
    """What holds for notionals above the floor, up to the next tier's."""

    floor: Decimal
    initial_rate: Decimal
    maintenance_rate: Decimal
    deduction: Decimal
    max_leverage: Decimal


@dataclass(frozen=True, slots=True)
class ScheduleRule:
    """Margin rates by notional; money in units of the settlement asset."""

    name: str
    settlement_asset: str
    tiers: tuple[TierRule, ...]
    notional_max: Decimal | None
    """Largest notional of a position; None is no bound."""
    liquidation_fee_rate: Decimal
    provenance: Provenance

    def tier_index(self, notional: Decimal) -> int:
        """Return the index of the largest tier whose floor is below the notional."""
        below = (k for k, tier in enumerate(self.tiers) if tier.floor < notional)
        return max(below, default=0)

    def maintenance(self, notional: Decimal) -> Decimal:
        """Return maintenance margin, exact and unrounded: m_k N - d_k."""
        tier = self.tiers[self.tier_index(notional)]
        product = EXACT.multiply(tier.maintenance_rate, notional)
        return EXACT.subtract(product, tier.deduction)

    def engine_tiers(self, scale: int) -> tuple[tuple[int, int, int, int, int], ...]:
        """Return (floor, initial ppb, maintenance ppb, deduction, leverage) in integers."""
        return tuple(
            (
                whole(tier.floor, scale),
                whole(tier.initial_rate, RATE_PLACES),
                whole(tier.maintenance_rate, RATE_PLACES),
                whole(tier.deduction, scale),
                whole(tier.max_leverage, LEVERAGE_PLACES),
            )
            for tier in self.tiers
        )


@dataclass(frozen=True, slots=True)
class InstrumentRule:
    """An instrument. None is "no bound", or "not an option" for the last five."""

    symbol: str
    kind: str
    settlement_asset: str
    margin_schedule: str
    """Name of the schedule; empty for options."""
    tick_size: Decimal
    lot_size: Decimal
    mark_units_per_tick: int
    provenance: Provenance
    order_quantity_min: Decimal | None = None
    order_quantity_max: Decimal | None = None
    order_notional_min: Decimal | None = None
    order_notional_max: Decimal | None = None
    price_collar_rate: Decimal | None = None
    market_order_buffer_rate: Decimal = ZERO
    taker_fee_rate: Decimal = ZERO
    mark_age_max_ms: int = 0
    """0 is no bound."""
    trading_state: str = "normal"
    expiry: datetime | None = None
    strike: Decimal | None = None
    option_type: str | None = None
    interest_rate: Decimal | None = None
    underlying: str | None = None
    """Symbol of the instrument whose mark is the forward while none was reported."""

    @property
    def is_option(self) -> bool:
        return self.kind == LINEAR_OPTION

    @property
    def mark_unit(self) -> Decimal:
        """Return the step of marks in quote currency; exact where it has a decimal form."""
        return self.tick_size / self.mark_units_per_tick

    def tick_value(self, scale: int) -> int:
        """Return the minor units of one lot at one tick."""
        return whole(EXACT.multiply(self.tick_size, self.lot_size), scale)

    def strike_units(self) -> int:
        """Return the strike in mark units; 0 for perpetuals."""
        if self.strike is None:
            return 0
        units = multiple(
            EXACT.multiply(self.strike, Decimal(self.mark_units_per_tick)), self.tick_size
        )
        if units is None:
            raise ValueError(f"strike {plain(self.strike)} is not a multiple of the mark unit")
        return units

    def expiry_ns(self) -> int:
        """Return the expiry in nanoseconds since 1970; 0 for perpetuals."""
        if self.expiry is None:
            return 0
        elapsed = self.expiry - EPOCH
        return ((elapsed.days * 86400 + elapsed.seconds) * 10**6 + elapsed.microseconds) * 1000


@dataclass(frozen=True, slots=True)
class Rulebook:
    """The rules of one venue at one date."""

    name: str
    title: str
    provenance: Provenance
    assets: tuple[AssetRule, ...] = ()
    schedules: tuple[ScheduleRule, ...] = ()
    instruments: tuple[InstrumentRule, ...] = ()

    def asset(self, symbol: str) -> AssetRule:
        """Return an asset. Raises KeyError, naming what there is."""
        return _find(symbol, {rule.symbol: rule for rule in self.assets}, self.name, "asset")

    def schedule(self, name: str) -> ScheduleRule:
        """Return a margin schedule. Raises KeyError, naming what there is."""
        return _find(name, {rule.name: rule for rule in self.schedules}, self.name, "schedule")

    def instrument(self, symbol: str) -> InstrumentRule:
        """Return an instrument. Raises KeyError, naming what there is."""
        rules = {rule.symbol: rule for rule in self.instruments}
        return _find(symbol, rules, self.name, "instrument")


def _find(name: str, rules: Mapping[str, Rule], rulebook: str, what: str) -> Rule:
    if name not in rules:
        there = ", ".join(list(rules)[:10]) or "none"
        raise KeyError(f"rulebook {rulebook} has no {what} {name!r}; it has {there}")
    return rules[name]


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


def ladder_violation(
    tiers: Sequence[TierRule], scale: int, liquidation_fee_rate: Decimal
) -> Violation | None:
    """Return the first law that a ladder breaks, or None."""
    for k, tier in enumerate(tiers):
        for violation in (
            _tier_violation(k, tier, scale, liquidation_fee_rate),
            _join_violation(k, tiers[k - 1] if k else None, tier),
            _deduction_violation(k, tiers[k - 1] if k else None, tier, scale),
        ):
            if violation:
                return violation
    return None


def _tier_violation(k: int, tier: TierRule, scale: int, fee: Decimal) -> Violation | None:
    floor = scaled(tier.floor, scale)
    if floor is None:
        return Violation(k, "floor", tier.floor, f"has more than {scale} decimals (asset scale)")
    if not 0 <= floor <= INT64_MAX:
        return Violation(k, "floor", tier.floor, f"must be 0 to 2^63-1 times 10^-{scale}")
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


def _join_violation(k: int, previous: TierRule | None, tier: TierRule) -> Violation | None:
    if previous is None:
        if tier.floor != ZERO:
            return Violation(k, "floor", tier.floor, "must be 0 in the first tier")
        return None
    of_previous = f"of tier[{k - 1}]"
    if tier.floor <= previous.floor:
        bound = f"must be above {plain(previous.floor)}, the floor {of_previous}"
        return Violation(k, "floor", tier.floor, bound)
    if tier.maintenance_rate <= previous.maintenance_rate:
        bound = f"must be above {plain(previous.maintenance_rate)}, the rate {of_previous}"
        return Violation(k, "maintenance_rate", tier.maintenance_rate, bound)
    if tier.initial_rate < previous.initial_rate:
        bound = f"must be at least {plain(previous.initial_rate)}, the rate {of_previous}"
        return Violation(k, "initial_rate", tier.initial_rate, bound)
    if tier.max_leverage > previous.max_leverage:
        bound = f"must be at most {plain(previous.max_leverage)}, the leverage {of_previous}"
        return Violation(k, "max_leverage", tier.max_leverage, bound)
    return None


def _deduction_violation(
    k: int, previous: TierRule | None, tier: TierRule, scale: int
) -> Violation | None:
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


def validate(rulebook: Rulebook, path: str) -> None:
    """Raise RulebookError for the first bound or law that the rulebook breaks."""
    if not RULEBOOK_NAME.fullmatch(rulebook.name):
        raise RulebookError(path, "name", "must be 1 to 31 of a-z, 0-9 and _", rulebook.name)
    assets = {rule.symbol: rule for rule in rulebook.assets}
    schedules = {rule.name: rule for rule in rulebook.schedules}
    symbols = {rule.symbol for rule in rulebook.instruments}
    perpetuals = {rule.symbol for rule in rulebook.instruments if not rule.is_option}
    for what, rules, count in (
        ("asset", assets, len(rulebook.assets)),
        ("schedule", schedules, len(rulebook.schedules)),
        ("instrument", symbols, len(rulebook.instruments)),
    ):
        if len(rules) != count:
            raise RulebookError(path, what, "a name is there twice")
    for asset in rulebook.assets:
        _validate_asset(asset, path)
    for schedule in rulebook.schedules:
        _validate_schedule(schedule, assets, path)
    for instrument in rulebook.instruments:
        _InstrumentLaws(instrument, assets, schedules, perpetuals, path).validate()


def _validate_asset(asset: AssetRule, path: str) -> None:
    key = f"asset.{key_text(asset.symbol)}"
    if not ASSET_SYMBOL.fullmatch(asset.symbol):
        raise RulebookError(path, key, "a symbol is 1 to 15 of A-Z and 0-9")
    if not 0 <= asset.scale <= SCALE_MAX:
        raise RulebookError(path, f"{key}.scale", f"must be 0 to {SCALE_MAX}", asset.scale)


def _scale_of(symbol: str, assets: Mapping[str, AssetRule], key: str, path: str) -> int:
    if symbol not in assets:
        there = ", ".join(assets) or "none"
        reason = f"has no section [asset.{symbol}]; there is {there}"
        raise RulebookError(path, f"{key}.settlement_asset", reason, symbol)
    return assets[symbol].scale


def _validate_schedule(schedule: ScheduleRule, assets: Mapping[str, AssetRule], path: str) -> None:
    key = f"schedule.{key_text(schedule.name)}"
    if not NAME.fullmatch(schedule.name):
        raise RulebookError(path, key, "a name is 1 to 31 printable ASCII characters, no space")
    scale = _scale_of(schedule.settlement_asset, assets, key, path)
    fee = schedule.liquidation_fee_rate
    if not ZERO <= fee < ONE:
        reason = "must be at least 0 and below 1"
        raise RulebookError(path, f"{key}.liquidation_fee_rate", reason, fee)
    if scaled(fee, RATE_PLACES) is None:
        reason = f"has more than {RATE_PLACES} decimals"
        raise RulebookError(path, f"{key}.liquidation_fee_rate", reason, fee)
    if not 1 <= len(schedule.tiers) <= TIERS_MAX:
        reason = f"has {len(schedule.tiers)} tiers, must have 1 to {TIERS_MAX}"
        raise RulebookError(path, f"{key}.tier", reason)
    violation = ladder_violation(schedule.tiers, scale, fee)
    if violation:
        where = f"{key}.tier[{violation.tier}].{violation.key}"
        raise RulebookError(path, where, violation.reason, violation.value)
    if schedule.notional_max is not None:
        _validate_notional_max(schedule, schedule.notional_max, scale, path)


def _validate_notional_max(
    schedule: ScheduleRule, notional_max: Decimal, scale: int, path: str
) -> None:
    key = f"schedule.{key_text(schedule.name)}.notional_max"
    last = schedule.tiers[-1].floor
    if notional_max <= last:
        reason = f"must be above {plain(last)}, the floor of tier[{len(schedule.tiers) - 1}]"
        raise RulebookError(path, key, reason, notional_max)
    minor = scaled(notional_max, scale)
    if minor is None:
        reason = f"has more than {scale} decimals (asset scale)"
        raise RulebookError(path, key, reason, notional_max)
    if minor > INT64_MAX:
        reason = f"must be at most 2^63-1 times 10^-{scale}; leave it out for no bound"
        raise RulebookError(path, key, reason, notional_max)


@dataclass(frozen=True, slots=True)
class _InstrumentLaws:
    """The bounds of one instrument."""

    rule: InstrumentRule
    assets: Mapping[str, AssetRule]
    schedules: Mapping[str, ScheduleRule]
    perpetuals: set[str]
    path: str

    def refuse(self, key: str, value: object, reason: str) -> RulebookError:
        section = f"instrument.{key_text(self.rule.symbol)}"
        return RulebookError(self.path, f"{section}.{key}" if key else section, reason, value)

    def validate(self) -> None:
        if not NAME.fullmatch(self.rule.symbol):
            raise self.refuse("", None, "a symbol is 1 to 31 printable ASCII characters, no space")
        if self.rule.kind not in KINDS:
            raise self.refuse("kind", self.rule.kind, f"must be one of {', '.join(KINDS)}")
        if self.rule.trading_state not in TRADING_STATES:
            reason = f"must be one of {', '.join(TRADING_STATES)}"
            raise self.refuse("trading_state", self.rule.trading_state, reason)
        key = f"instrument.{key_text(self.rule.symbol)}"
        scale = _scale_of(self.rule.settlement_asset, self.assets, key, self.path)
        self.validate_steps(scale)
        self.validate_quantities()
        self.validate_notionals(scale)
        self.validate_rates()
        if self.rule.is_option:
            self.validate_option()
        else:
            self.validate_perpetual()

    def validate_steps(self, scale: int) -> None:
        rule = self.rule
        for key, step in (("tick_size", rule.tick_size), ("lot_size", rule.lot_size)):
            if step <= ZERO:
                raise self.refuse(key, step, "must be above 0")
            mantissa, exponent = mantissa_exponent(step)
            if mantissa > STEP_MANTISSA_MAX or abs(exponent) > STEP_EXPONENT_MAX:
                reason = "must be at most 10^12 times a power of ten from 10^-12 to 10^12"
                raise self.refuse(key, step, reason)
        product = EXACT.multiply(rule.tick_size, rule.lot_size)
        value = scaled(product, scale)
        if value is None:
            reason = (
                f"times lot_size {plain(rule.lot_size)} is {plain(product)}, "
                f"not a whole number of minor units (10^-{scale})"
            )
            raise self.refuse("tick_size", rule.tick_size, reason)
        if value > TICK_VALUE_MAX:
            reason = (
                f"times lot_size {plain(rule.lot_size)} is {value} minor units, "
                f"must be at most 2^40"
            )
            raise self.refuse("tick_size", rule.tick_size, reason)
        if not 1 <= rule.mark_units_per_tick <= MARK_UNITS_MAX:
            reason = "must be 1 to 10^9"
            raise self.refuse("mark_units_per_tick", rule.mark_units_per_tick, reason)
        if not 0 <= rule.mark_age_max_ms <= MARK_AGE_MS_MAX:
            reason = f"must be 0 (no bound) to {MARK_AGE_MS_MAX}"
            raise self.refuse("mark_age_max_ms", rule.mark_age_max_ms, reason)

    def validate_quantities(self) -> None:
        rule = self.rule
        quantities = (
            ("order_quantity_min", rule.order_quantity_min),
            ("order_quantity_max", rule.order_quantity_max),
        )
        for key, quantity in quantities:
            if quantity is None:
                continue
            lots = multiple(quantity, rule.lot_size)
            if lots is None:
                reason = f"is not a multiple of lot_size {plain(rule.lot_size)}"
                raise self.refuse(key, quantity, reason)
            if not 1 <= lots <= LOTS_MAX:
                raise self.refuse(key, quantity, f"is {lots} lots, must be 1 to 2^53")
        self.refuse_crossed("order_quantity", rule.order_quantity_min, rule.order_quantity_max)

    def validate_notionals(self, scale: int) -> None:
        rule = self.rule
        notionals = (
            ("order_notional_min", rule.order_notional_min),
            ("order_notional_max", rule.order_notional_max),
        )
        for key, notional in notionals:
            if notional is None:
                continue
            minor = scaled(notional, scale)
            if minor is None:
                raise self.refuse(key, notional, f"has more than {scale} decimals (asset scale)")
            if not 1 <= minor <= INT64_MAX:
                reason = f"is {minor} minor units, must be 1 to 2^63-1; leave it out for no bound"
                raise self.refuse(key, notional, reason)
        self.refuse_crossed("order_notional", rule.order_notional_min, rule.order_notional_max)

    def refuse_crossed(self, key: str, low: Decimal | None, high: Decimal | None) -> None:
        if low is not None and high is not None and low > high:
            reason = f"must be at least {key}_min {plain(low)}"
            raise self.refuse(f"{key}_max", high, reason)

    def validate_rates(self) -> None:
        rule = self.rule
        collar = rule.price_collar_rate
        if collar is not None and not ZERO < collar <= ONE:
            reason = "must be above 0 and at most 1; leave it out for no bound"
            raise self.refuse("price_collar_rate", collar, reason)
        rates = (
            ("price_collar_rate", collar or ZERO),
            ("market_order_buffer_rate", rule.market_order_buffer_rate),
            ("taker_fee_rate", rule.taker_fee_rate),
        )
        # A sell at the mark less the buffer must keep a price.
        if rule.market_order_buffer_rate == ONE:
            raise self.refuse("market_order_buffer_rate", ONE, "must be below 1")
        for key, rate in rates:
            if not ZERO <= rate <= ONE:
                raise self.refuse(key, rate, "must be 0 to 1")
            if scaled(rate, RATE_PLACES) is None:
                raise self.refuse(key, rate, f"has more than {RATE_PLACES} decimals")

    def validate_perpetual(self) -> None:
        rule = self.rule
        for key in ("expiry", "strike", "option_type", "interest_rate", "underlying"):
            if getattr(rule, key) is not None:
                raise self.refuse(key, None, f"belongs to options, kind is {rule.kind}")
        if rule.margin_schedule not in self.schedules:
            there = ", ".join(list(self.schedules)[:10]) or "none"
            reason = f"has no section [schedule.{rule.margin_schedule}]; there is {there}"
            raise self.refuse("margin_schedule", rule.margin_schedule, reason)
        schedule = self.schedules[rule.margin_schedule]
        if schedule.settlement_asset != rule.settlement_asset:
            reason = f"is in {schedule.settlement_asset}, settlement_asset {rule.settlement_asset}"
            raise self.refuse("margin_schedule", rule.margin_schedule, reason)

    def validate_option(self) -> None:
        rule = self.rule
        if rule.margin_schedule:
            reason = "options are long only, premium in full: they have no schedule"
            raise self.refuse("margin_schedule", rule.margin_schedule, reason)
        for key in ("expiry", "strike", "option_type"):
            if getattr(rule, key) is None:
                raise self.refuse(key, None, "is missing, options need it")
        if rule.option_type not in OPTION_TYPES:
            reason = f"must be one of {', '.join(OPTION_TYPES)}"
            raise self.refuse("option_type", rule.option_type, reason)
        if not 0 < rule.expiry_ns() <= INT64_MAX:
            raise self.refuse("expiry", str(rule.expiry), "must be after 1970 and before 2262")
        strike = rule.strike or ZERO
        units = multiple(EXACT.multiply(strike, Decimal(rule.mark_units_per_tick)), rule.tick_size)
        if units is None:
            reason = "is not a multiple of tick_size / mark_units_per_tick"
            raise self.refuse("strike", strike, reason)
        if not 1 <= units <= UNITS_MAX:
            raise self.refuse("strike", strike, f"is {units} mark units, must be 1 to 2^53")
        rate = rule.interest_rate or ZERO
        if not -ONE <= rate <= ONE:
            raise self.refuse("interest_rate", rate, "must be -1 to 1")
        if scaled(rate, RATE_PLACES) is None:
            raise self.refuse("interest_rate", rate, f"has more than {RATE_PLACES} decimals")
        if rule.underlying is not None and rule.underlying not in self.perpetuals:
            there = ", ".join(sorted(self.perpetuals)[:10]) or "none"
            reason = f"must be a perpetual of this rulebook; there is {there}"
            raise self.refuse("underlying", rule.underlying, reason)
