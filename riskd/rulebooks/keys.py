"""The keys of the sections of format 2: which there are, and their bounds.

Sections whose values are only named numbers and words are described here, as data: the loader
reads them, the laws check them, the writer and `riskd rulebook` print them by these tables.
`docs/rulebooks.md` has a line for each key.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Final, get_args, get_type_hints

from riskd.margin import Rule
from riskd.rulebooks.schema import (
    LEVERAGE_MAX,
    LEVERAGE_MIN,
    LEVERAGE_PLACES,
    ONE,
    RATE_PLACES,
    ZERO,
    Value,
    plain,
    scaled,
)

ROWS_MAX: Final = 32
PRICES_MAX: Final = Decimal(10) ** 18
# Slopes are per unit of quantity: Deribit's are 5e-6, Orderly's factor is 2e-7.
SLOPE_PLACES: Final = 15
TICKS_MAX: Final = Decimal(1000)
DAYS_MAX: Final = Decimal(3660)


@dataclass(frozen=True, slots=True)
class Key:
    """A key: a number within bounds, one of several words, yes or no, or rows of numbers."""

    name: str
    low: Decimal = ZERO
    high: Decimal = ONE
    is_above_low: bool = False
    """The low bound itself is out."""
    is_below_high: bool = False
    """The high bound itself is out."""
    places: int = RATE_PLACES
    words: tuple[str, ...] = ()
    is_flag: bool = False
    is_name: bool = False
    """A name of the file, that the laws look up."""
    columns: tuple["Key", ...] = ()
    """Of rows: the first column rises, and begins with 0 if it is called floor."""
    default: Value | None = None
    is_required: bool = False

    @property
    def bound(self) -> str:
        """Return the bounds of a number in words."""
        low, high = plain(self.low), plain(self.high)
        if not self.is_above_low and not self.is_below_high:
            return f"must be {low} to {high}"
        start = f"above {low}" if self.is_above_low else f"at least {low}"
        return f"must be {start} and {'below' if self.is_below_high else 'at most'} {high}"


def rate(name: str, default: Value | None = None, *, is_required: bool = False) -> Key:
    """Return a key for a fraction, 0 to 1."""
    return Key(name, default=default, is_required=is_required)


def above(name: str, high: Decimal = ONE, places: int = RATE_PLACES) -> Key:
    """Return a required key for a number above 0."""
    return Key(name, high=high, is_above_low=True, places=places, is_required=True)


def amount(name: str, default: Value | None = None, *, is_required: bool = False) -> Key:
    """Return a key for money or a quantity, 0 and more."""
    return Key(name, high=PRICES_MAX, places=12, default=default, is_required=is_required)


def word(name: str, *words: str, default: str | None = None) -> Key:
    """Return a key for one of several words; required without a default."""
    return Key(name, words=words, default=default, is_required=default is None)


def flag(name: str) -> Key:
    """Return a key for yes or no; absent is no."""
    return Key(name, is_flag=True, default=False)


def rows(name: str, *columns: Key, is_required: bool = False) -> Key:
    """Return a key for an array of tables of numbers."""
    return Key(name, columns=columns, is_required=is_required)


def leverage(name: str) -> Key:
    """Return an optional key for a leverage."""
    return Key(name, LEVERAGE_MIN, LEVERAGE_MAX, places=LEVERAGE_PLACES)


def _rule_keys() -> tuple[Key, ...]:
    """Return the keys of [rule]: the fields of riskd.margin.Rule, with its words and defaults."""
    hints = get_type_hints(Rule)
    defaults = Rule()
    keys = []
    for each in fields(Rule):
        default = getattr(defaults, each.name)
        if isinstance(default, bool):
            keys.append(flag(each.name))
        elif isinstance(default, int):
            keys.append(Key(each.name, high=TICKS_MAX, places=0, default=Decimal(default)))
        else:
            keys.append(word(each.name, *get_args(hints[each.name]), default=default))
    return tuple(keys)


RULE: Final = _rule_keys()

# Besides settlement_asset, notional_max, quantity_max, liquidation_fee_rate, which all have.
SCHEDULE_FAMILIES: Final[Mapping[str, tuple[Key, ...]]] = {
    "tiered": (),
    "leverage": (
        Key(
            "maintenance_part",
            is_above_low=True,
            is_below_high=True,
            default=Decimal("0.5"),
        ),
    ),
    "per_contract": (
        above("initial_per_contract", PRICES_MAX, 12),
        amount("maintenance_per_contract", is_required=True),
        leverage("max_leverage"),
    ),
    "size_linear": (
        above("initial_base"),
        Key("initial_slope", places=SLOPE_PLACES, is_required=True),
        above("maintenance_base"),
        Key("maintenance_slope", places=SLOPE_PLACES, is_required=True),
        leverage("max_leverage"),
    ),
    "size_sqrt": (
        above("initial_rate"),
        above("maintenance_rate"),
        Key("imf_factor", places=SLOPE_PLACES, is_required=True),
        leverage("max_leverage"),
    ),
    "power": (
        above("initial_base"),
        above("maintenance_base"),
        Key("factor", places=SLOPE_PLACES, is_required=True),
        above("exponent"),
        leverage("max_leverage"),
    ),
    "open_interest": (
        above("initial_rate"),
        rate("maintenance_fraction", is_required=True),
        amount("open_interest_lower", ZERO),
        amount("open_interest_upper", ZERO),
        leverage("max_leverage"),
    ),
    "risk_factor": (
        above("risk_factor_long"),
        above("risk_factor_short", Decimal(10)),
        rate("linear_slippage", ZERO),
        Key("quadratic_slippage", places=SLOPE_PLACES, default=ZERO),
        leverage("max_leverage"),
    ),
}

LARGER: Final = "larger_of_reference_and_mark"

# The names are those of riskd.margin's OptionRule and UpperBounds.
OPTION_FAMILIES: Final[Mapping[str, tuple[Key, ...]]] = {
    "short_option": (
        word("settlement", "cash", "coin", default="cash"),
        word("reference", "index", "forward", "underlying", "spot"),
        above("initial_rate"),
        above("initial_floor"),
        rate("maintenance_rate", is_required=True),
        rate("maintenance_floor"),
        word("put_floor", "reference", "strike", "reference_and_mark", default="reference"),
        word("call_maintenance", "reference", LARGER, default="reference"),
        word("put_maintenance", "reference", LARGER, default="reference"),
        word("mark_term", "mark", "larger_of_mark_and_entry", default="mark"),
        word("maintenance", "own", "initial", default="own"),
        Key("call_initial_over_maintenance", high=Decimal(10), default=ZERO),
        Key("put_initial_over_maintenance", high=Decimal(10), default=ZERO),
        rate("liquidation_fee_rate", ZERO),
        amount("minimum", ZERO),
        flag("is_premium_credited"),
        amount("order_margin_min", ZERO),
        Key("multiplier", high=PRICES_MAX, is_above_low=True, places=12, default=ONE),
        rows("factor_tier", amount("floor", is_required=True), above("factor", Decimal(1000))),
    ),
    "reg_t": (
        above("initial_rate"),
        above("initial_floor"),
        amount("minimum", ZERO),
        Key("multiplier", high=PRICES_MAX, is_above_low=True, places=12, default=ONE),
    ),
    "option_spread": (word("settlement", "cash", "coin", default="cash"),),
    "option_naked": (
        word("settlement", "cash", "coin", default="cash"),
        above("spot_shock"),
        rows("time", above("days_max", DAYS_MAX), above("upper_bound"), is_required=True),
    ),
}

COLLATERAL: Final = (
    Key("index", is_name=True),
    rows(
        "haircut",
        amount("floor", is_required=True),
        rate("asset_weight", is_required=True),
        rate("maintenance_asset_weight"),
    ),
    amount("cap"),
    Key("liability_weight", ONE, Decimal(10)),
    Key("maintenance_liability_weight", ONE, Decimal(10)),
    Key("imf_factor", places=SLOPE_PLACES),
    amount("interest_free"),
    amount("forced_conversion"),
    word("wrong_way", "none", "excluded", "own_asset_excluded", default="none"),
)

# Above the maintenance requirement, which is 1.
LEVELS: Final = (
    Key("search", ONE, Decimal(10), is_above_low=True, places=6),
    Key("initial", ONE, Decimal(10), is_above_low=True, places=6),
    Key("release", ONE, Decimal(10), is_above_low=True, places=6),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A value out of bounds: where below its section, what it is, and the bound."""

    key: str
    value: object
    reason: str


def fault(keys: Sequence[Key], values: Mapping[str, Value]) -> Fault | None:
    """Return the first value that is missing or breaks a bound."""
    return next(_faults(keys, values, ""), None)


def _faults(keys: Sequence[Key], values: Mapping[str, Value], where: str) -> Iterator[Fault]:
    for key in keys:
        value = values.get(key.name)
        place = f"{where}{key.name}"
        if value is None:
            if key.is_required:
                yield Fault(place, None, "is missing")
        elif isinstance(value, bool):
            continue
        elif isinstance(value, str):
            if not key.is_name and value not in key.words:
                yield Fault(place, value, f"must be one of {', '.join(key.words)}")
        elif isinstance(value, Decimal):
            yield from _number_faults(key, value, place)
        else:
            yield from _row_faults(key, value, place)


def _number_faults(key: Key, value: Decimal, place: str) -> Iterator[Fault]:
    is_low = value <= key.low if key.is_above_low else value < key.low
    is_high = value >= key.high if key.is_below_high else value > key.high
    if is_low or is_high:
        yield Fault(place, value, key.bound)
    elif scaled(value, key.places) is None:
        reason = f"has more than {key.places} decimals" if key.places else "must be a whole number"
        yield Fault(place, value, reason)


def _row_faults(key: Key, table: Sequence[Mapping[str, Decimal]], place: str) -> Iterator[Fault]:
    if not 1 <= len(table) <= ROWS_MAX:
        yield Fault(place, None, f"has {len(table)} rows, must have 1 to {ROWS_MAX}")
    first = key.columns[0].name
    previous: Decimal | None = None
    for k, row in enumerate(table):
        yield from _faults(key.columns, row, f"{place}[{k}].")
        value = row[first]
        if previous is None and first == "floor" and value != ZERO:
            yield Fault(f"{place}[{k}].{first}", value, "must be 0 in the first row")
        if previous is not None and value <= previous:
            reason = f"must be above {plain(previous)}, the {first} of {key.name}[{k - 1}]"
            yield Fault(f"{place}[{k}].{first}", value, reason)
        previous = value
