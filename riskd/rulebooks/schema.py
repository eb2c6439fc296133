"""What a rulebook says.

Values are in the units that people use: money in units of the asset, rates as fractions of 1,
prices in quote currency, quantities in units of the underlying. `docs/rulebooks.md` describes each
key. Methods convert to the integers of `docs/decision.md`, exactly.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Final, TypeVar

from riskd.margin import Rule
from riskd.numbers import normalise

FORMAT: Final = 2
FORMATS: Final = (1, 2)

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

LOT_VALUE_MAX: Final = 2**60
INVERSE_UNITS_MAX: Final = 2**70

SPOT: Final = "spot"
LINEAR_PERPETUAL: Final = "linear_perpetual"
LINEAR_FUTURE: Final = "linear_future"
QUANTO_PERPETUAL: Final = "quanto_perpetual"
INVERSE_PERPETUAL: Final = "inverse_perpetual"
INVERSE_FUTURE: Final = "inverse_future"
LINEAR_OPTION: Final = "linear_option"
INVERSE_OPTION: Final = "inverse_option"
PERPETUALS: Final = (LINEAR_PERPETUAL, QUANTO_PERPETUAL, INVERSE_PERPETUAL)
FUTURES: Final = (LINEAR_FUTURE, INVERSE_FUTURE)
OPTIONS: Final = (LINEAR_OPTION, INVERSE_OPTION)
KINDS: Final = (SPOT, *PERPETUALS, *FUTURES, *OPTIONS)
KINDS_OF_FORMAT_1: Final = (LINEAR_PERPETUAL, LINEAR_OPTION)
TIERED: Final = "tiered"
LEVERAGE: Final = "leverage"
OPTION_TYPES: Final = ("call", "put")
TRADING_STATES: Final = ("normal", "reduce_only", "halted")

ASSET_SYMBOL: Final = re.compile(r"[A-Z0-9]{1,15}")
# No space: docs/state.md writes names between spaces.
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
NAME: Final = re.compile(r"[!-~]{1,31}")
RULEBOOK_NAME: Final = re.compile(r"[a-z0-9_]{1,31}")

Item = TypeVar("Item")

Row = Mapping[str, Decimal]
Value = Decimal | str | bool | tuple[Row, ...]
"""A number, a word, yes or no, or rows of numbers."""

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
    if isinstance(value, date):
        return value.isoformat()
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


def number_of(values: Mapping[str, Value], key: str) -> Decimal:
    """Return a number of a section. Raises KeyError if it is not there, TypeError if it is none."""
    value = values[key]
    if not isinstance(value, Decimal):
        raise TypeError(f"{key} is not a number")
    return value


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
    """Margin requirements by size; money in units of the settlement asset.

    family says by which formula. tiered and leverage have tiers (of leverage, the rates come from
    its leverage), the other families have one value of each of their keys.
    """

    name: str
    settlement_asset: str
    tiers: tuple[TierRule, ...]
    notional_max: Decimal | None
    """Largest notional of a position; None is no bound."""
    liquidation_fee_rate: Decimal
    provenance: Provenance
    family: str = TIERED
    tier_mode: str = "marginal"
    tier_key: str = "notional"
    quantity_max: Decimal | None = None
    """Largest quantity of a position; None is no bound."""
    parameters: Mapping[str, Value] = field(default_factory=dict)
    effective_from: datetime | None = None
    """None: since ever."""

    def tier_index(self, size: Decimal) -> int:
        """Return the index of the largest tier whose floor is below the size.

        The size is a notional, or a quantity where tier_key says so.
        """
        below = (k for k, tier in enumerate(self.tiers) if tier.floor < size)
        return max(below, default=0)

    def maintenance(self, notional: Decimal, quantity: Decimal | None = None) -> Decimal:
        """Return maintenance margin of tiers, exact and unrounded: m_k N - d_k.

        Tiers by quantity need it. Raises ValueError for a family without tiers.
        """
        if not self.tiers:
            raise ValueError(f"schedule {self.name}: family {self.family} has no tiers")
        size = notional if self.tier_key == "notional" else quantity
        if size is None:
            raise ValueError(f"schedule {self.name}: its tiers are by quantity")
        tier = self.tiers[self.tier_index(size)]
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
class ParameterRule:
    """A section of named values: an option rule, or how an asset counts as collateral."""

    name: str
    """Of the option rule, or the asset."""
    family: str
    """Of the option rule; empty for collateral."""
    parameters: Mapping[str, Value]
    provenance: Provenance
    effective_from: datetime | None = None

    def number(self, key: str) -> Decimal:
        """Return a number. Raises KeyError if it is not there, TypeError if it is none."""
        return number_of(self.parameters, key)


@dataclass(frozen=True, slots=True)
class VenueRule:
    """The switches of a venue: docs/rulebooks.md, [rule]."""

    common: Mapping[str, Value]
    provenance: Provenance
    isolated: Mapping[str, Value] = field(default_factory=dict)
    """Where isolated positions differ."""
    cross: Mapping[str, Value] = field(default_factory=dict)
    """Where cross positions differ."""

    def of(self, margin_mode: str = "isolated", contract: str | None = None) -> Rule:
        """Return the rule record for a margin mode, isolated or cross.

        contract is linear or inverse, where the instrument says another than the section.
        """
        changes = self.isolated if margin_mode == "isolated" else self.cross
        values = {**self.common, **changes}
        if contract is not None:
            values["contract"] = contract
        plain_values = {
            key: int(value) if isinstance(value, Decimal) else value
            for key, value in values.items()
        }
        return Rule.of(plain_values)


@dataclass(frozen=True, slots=True)
class LevelsRule:
    """Factors on the maintenance requirement at which search, initial and release begin."""

    parameters: Mapping[str, Value]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class InstrumentRule:
    """An instrument. None is "no bound", or "its kind has none"."""

    symbol: str
    kind: str
    settlement_asset: str
    margin_schedule: str
    """Name of the schedule; empty for options and spot."""
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
    contract_multiplier: Decimal = ONE
    """Money of one unit of quantity at a price of 1, where it is not 1."""
    base_asset: str | None = None
    """What spot delivers."""
    isolated_only: bool = False
    funding_interval_ms: int = 0
    """0: not stated, or no perpetual."""
    expiry: datetime | None = None
    strike: Decimal | None = None
    option_type: str | None = None
    interest_rate: Decimal | None = None
    underlying: str | None = None
    """Symbol of the instrument whose mark is the forward while none was reported."""
    option_rule: str | None = None
    """Name of the option rule that a short position obeys; None: it cannot be short."""

    @property
    def is_option(self) -> bool:
        return self.kind in OPTIONS

    @property
    def is_inverse(self) -> bool:
        """Whether its value is quantity over price."""
        return self.kind in (INVERSE_PERPETUAL, INVERSE_FUTURE)

    @property
    def is_contract(self) -> bool:
        """Whether it has a margin schedule: neither an option nor spot."""
        return self.kind in PERPETUALS or self.kind in FUTURES

    @property
    def mark_unit(self) -> Decimal:
        """Return the step of marks in quote currency; exact where it has a decimal form."""
        return self.tick_size / self.mark_units_per_tick

    def value_step(self) -> Decimal:
        """Return the settlement money of one lot at one tick; of linear contracts and options."""
        lot = EXACT.multiply(self.lot_size, self.contract_multiplier)
        return EXACT.multiply(self.tick_size, lot)

    def tick_value(self, scale: int) -> int:
        """Return the minor units of one lot at one tick; 0 for inverse contracts."""
        return 0 if self.is_inverse else whole(self.value_step(), scale)

    def lot_value(self, scale: int) -> int | None:
        """Return the minor units of one lot at a price of one tick; None if that is not whole.

        Of inverse contracts: lot_size contract_multiplier 10^scale / tick_size.
        """
        minor = EXACT.multiply(self.lot_size, self.contract_multiplier).scaleb(scale, EXACT)
        return multiple(minor, self.tick_size)

    def strike_units(self, underlying: "InstrumentRule | None" = None) -> int:
        """Return the strike in mark units; 0 for what is no option.

        The strike of a coin-settled option counts in the mark units of its underlying, because its
        own prices are in coin.
        """
        if self.strike is None:
            return 0
        unit = self if self.kind == LINEAR_OPTION or underlying is None else underlying
        units = multiple(
            EXACT.multiply(self.strike, Decimal(unit.mark_units_per_tick)), unit.tick_size
        )
        if units is None:
            raise ValueError(f"strike {plain(self.strike)} is not a multiple of the mark unit")
        return units

    def expiry_ns(self) -> int:
        """Return the expiry in nanoseconds since 1970; 0 for what does not expire."""
        return 0 if self.expiry is None else time_ns(self.expiry)


def time_ns(time: datetime) -> int:
    """Return nanoseconds since 1970, exact."""
    elapsed = time - EPOCH
    return ((elapsed.days * 86400 + elapsed.seconds) * 10**6 + elapsed.microseconds) * 1000


@dataclass(frozen=True, slots=True)
class Rulebook:
    """The rules of one venue, of one date or with versions from dates on.

    Schedules, option rules and collateral may be there several times under one name, by rising
    effective_from: riskd.rulebooks.select leaves the one that is in force. The methods below find
    the newest.
    """

    name: str
    title: str
    provenance: Provenance
    assets: tuple[AssetRule, ...] = ()
    schedules: tuple[ScheduleRule, ...] = ()
    instruments: tuple[InstrumentRule, ...] = ()
    rule: VenueRule | None = None
    """None: docs/decision.md as it is."""
    option_rules: tuple[ParameterRule, ...] = ()
    collateral: tuple[ParameterRule, ...] = ()
    levels: LevelsRule | None = None
    effective_from: datetime | None = None
    """Of the whole file; None: since ever."""

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

    def option_rule(self, name: str) -> ParameterRule:
        """Return an option rule. Raises KeyError, naming what there is."""
        return _find(
            name, {rule.name: rule for rule in self.option_rules}, self.name, "option rule"
        )

    def collateral_of(self, asset: str) -> ParameterRule:
        """Return how an asset counts as collateral. Raises KeyError, naming what there is."""
        return _find(asset, {rule.name: rule for rule in self.collateral}, self.name, "collateral")

    def margin_rule(self, symbol: str, margin_mode: str = "isolated") -> Rule:
        """Return the rule record of an instrument in a margin mode, isolated or cross.

        Raises KeyError, naming what there is.
        """
        contract = "inverse" if self.instrument(symbol).is_inverse else "linear"
        if self.rule is None:
            return Rule.of({"contract": contract})
        return self.rule.of(margin_mode, contract)


def _find(name: str, rules: Mapping[str, Item], rulebook: str, what: str) -> Item:
    if name not in rules:
        there = ", ".join(list(rules)[:10]) or "none"
        raise KeyError(f"rulebook {rulebook} has no {what} {name!r}; it has {there}")
    return rules[name]


def find_asset(symbol: str, assets: Mapping[str, AssetRule], key: str, path: str) -> AssetRule:
    if symbol not in assets:
        there = ", ".join(assets) or "none"
        raise RulebookError(path, key, f"has no section [asset.{symbol}]; there is {there}", symbol)
    return assets[symbol]
