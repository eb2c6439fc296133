"""Limits in words: the kinds, the unit of each, and their values between text and integers.

docs/limits.md has the rules. A value is a decimal text whose unit the kind decides; the engine
holds integers. Lots and ticks are quantities and prices where the limit names an instrument, and
whole lots and ticks where it counts all of them, because each has steps of its own.
"""

from enum import Enum

from riskd.catalogue import Asset, Instrument
from riskd.numbers import (
    LEVERAGE_SCALE,
    RATE_SCALE,
    leverage_text,
    rate_text,
    to_units,
)
from riskd.v1 import types_pb2

# A limit's reason is that plus its number.
REASON_OFFSET = 219
VALUE_MAX = 2**62
RATE_MAX = 10**9
BURST_MAX = 10**6


class Unit(Enum):
    """What the value of a limit counts."""

    LOTS = "lots"
    TICKS = "ticks"
    MONEY = "money"
    SHARE = "share"
    LEVERAGE = "leverage"
    COUNT = "count"
    PER_SECOND = "per second"
    NONE = "none"


_UNITS: dict[int, Unit] = {
    types_pb2.LIMIT_KIND_ORDER_QUANTITY_MIN: Unit.LOTS,
    types_pb2.LIMIT_KIND_ORDER_QUANTITY_MAX: Unit.LOTS,
    types_pb2.LIMIT_KIND_ORDER_NOTIONAL_MIN: Unit.MONEY,
    types_pb2.LIMIT_KIND_ORDER_NOTIONAL_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_COLLAR_PPB: Unit.SHARE,
    types_pb2.LIMIT_KIND_COLLAR_TICKS: Unit.TICKS,
    types_pb2.LIMIT_KIND_POSITION_LOTS_MAX: Unit.LOTS,
    types_pb2.LIMIT_KIND_POSITION_NOTIONAL_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_GROSS_EXPOSURE_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_OPEN_ORDERS_MAX: Unit.COUNT,
    types_pb2.LIMIT_KIND_OPEN_NOTIONAL_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_ORDER_RATE_MAX: Unit.PER_SECOND,
    types_pb2.LIMIT_KIND_EXECUTION_RATE_MAX: Unit.PER_SECOND,
    types_pb2.LIMIT_KIND_DAILY_TRADED_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_DAILY_LOSS_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_DRAWDOWN_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_LEVERAGE_MAX: Unit.LEVERAGE,
    types_pb2.LIMIT_KIND_DELTA_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_GAMMA_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_VEGA_MAX: Unit.MONEY,
    types_pb2.LIMIT_KIND_CONCENTRATION_MAX: Unit.SHARE,
    types_pb2.LIMIT_KIND_DENIED: Unit.NONE,
    types_pb2.LIMIT_KIND_ALLOWED: Unit.NONE,
}

# Kinds that look at the order alone: nothing is used up.
_PER_ORDER = frozenset(
    {
        types_pb2.LIMIT_KIND_ORDER_QUANTITY_MIN,
        types_pb2.LIMIT_KIND_ORDER_QUANTITY_MAX,
        types_pb2.LIMIT_KIND_ORDER_NOTIONAL_MIN,
        types_pb2.LIMIT_KIND_ORDER_NOTIONAL_MAX,
        types_pb2.LIMIT_KIND_COLLAR_PPB,
        types_pb2.LIMIT_KIND_COLLAR_TICKS,
        types_pb2.LIMIT_KIND_LEVERAGE_MAX,
        types_pb2.LIMIT_KIND_DENIED,
        types_pb2.LIMIT_KIND_ALLOWED,
    }
)

_NEED_INSTRUMENT = frozenset(
    {
        types_pb2.LIMIT_KIND_POSITION_LOTS_MAX,
        types_pb2.LIMIT_KIND_DENIED,
        types_pb2.LIMIT_KIND_ALLOWED,
    }
)

# The kinds marked * in docs/limits.md.
_WITHOUT_INSTRUMENT = frozenset(
    {
        types_pb2.LIMIT_KIND_ORDER_RATE_MAX,
        types_pb2.LIMIT_KIND_EXECUTION_RATE_MAX,
        types_pb2.LIMIT_KIND_DAILY_TRADED_MAX,
        types_pb2.LIMIT_KIND_DAILY_LOSS_MAX,
        types_pb2.LIMIT_KIND_DRAWDOWN_MAX,
        types_pb2.LIMIT_KIND_DELTA_MAX,
        types_pb2.LIMIT_KIND_GAMMA_MAX,
        types_pb2.LIMIT_KIND_VEGA_MAX,
    }
)

KINDS = {
    name.removeprefix("LIMIT_KIND_"): number
    for name, number in types_pb2.LimitKind.items()
    if number
}
_NAMES: dict[int, str] = {number: name for name, number in KINDS.items()}


def is_kind(kind: int) -> bool:
    """Return whether there is such a kind."""
    return kind in _UNITS


def kind_name(kind: int) -> str:
    """Return the name of a kind without its prefix, or its number if it has none."""
    return _NAMES.get(kind, str(kind))


def unit_of(kind: int) -> Unit:
    """Return what the value of a kind counts."""
    return _UNITS[kind]


def has_use(kind: int) -> bool:
    """Return whether something counts against a limit of that kind before an order comes."""
    return kind not in _PER_ORDER


def has_burst(kind: int) -> bool:
    """Return whether a limit of that kind is a rate with a burst."""
    return _UNITS[kind] is Unit.PER_SECOND


def needs_instrument(kind: int) -> bool:
    """Return whether a limit of that kind must name an instrument."""
    return kind in _NEED_INSTRUMENT


def takes_instrument(kind: int) -> bool:
    """Return whether a limit of that kind may name an instrument."""
    return kind not in _WITHOUT_INSTRUMENT


def read_value(
    text: str, kind: int, asset: Asset | None, instrument: Instrument | None, field: str
) -> int:
    """Return the value of a limit in the engine's integers, 0 to 2^62. Raises NumberError.

    asset is that of the account or firm, and may be None where the kind counts no money.
    """
    unit = _UNITS[kind]
    match unit:
        case Unit.MONEY:
            assert asset is not None, "only a gateway has no asset, and no limit in money"
            return asset.minor(text, field, 0, VALUE_MAX)
        case Unit.LOTS if instrument is not None:
            return instrument.lots(text, field, 0)
        case Unit.TICKS if instrument is not None:
            return instrument.ticks(text, field, 0)
        case Unit.SHARE:
            return to_units(text, field, RATE_SCALE, 0, VALUE_MAX)
        case Unit.LEVERAGE:
            return to_units(text, field, LEVERAGE_SCALE, 0, VALUE_MAX)
        case Unit.PER_SECOND:
            return to_units(text, field, 0, 1, RATE_MAX)
        case _:
            return to_units(text, field, 0, 0, VALUE_MAX)


def write_value(value: int, kind: int, asset: Asset | None, instrument: Instrument | None) -> str:
    """Return a value, or a use, of a limit as text; empty where the kind has none."""
    match _UNITS[kind]:
        case Unit.NONE:
            return ""
        case Unit.MONEY:
            assert asset is not None, "only a gateway has no asset, and no limit in money"
            return asset.amount(value)
        case Unit.LOTS if instrument is not None:
            return instrument.quantity(value)
        case Unit.TICKS if instrument is not None:
            return instrument.price(value)
        case Unit.SHARE:
            return rate_text(value)
        case Unit.LEVERAGE:
            return leverage_text(value)
        case _:
            return str(value)
