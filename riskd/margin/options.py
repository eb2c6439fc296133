"""Margin of options by rule: short options, premium in full, orders.

Quantities are signed: above 0 long, below 0 short. Strikes, reference prices and indexes are quote
currency per unit. A rule that settles in cash has marks, fees and results in quote currency, one
that settles in coin in units of the underlying. Arguments broadcast; scalars give floats. What is
out of its bound is a ValueError that names field, value, bound and element.

A short option needs, per unit, with O the amount out of the money at the reference price R:

    reduced      (a U - O U / R) k + M       U the index in cash, 1 in coin; k the tier's factor
    floor        b B k + M                   B, of a put, by the rule
    maintenance  c C k + M + f U             C by the rule
    initial      max(reduced, floor, minimum, g maintenance)

A long option is paid in full and needs nothing. Sources: beside each rule below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskd.core import option_margin as core
from riskd.margin.arrays import (
    ABOVE_ZERO,
    FINITE,
    FROM_ZERO,
    Field,
    Figure,
    Kinds,
    calls,
    flags,
    floats,
    overflow_is_checked,
)

Settlement = Literal["cash", "coin"]
PutFloor = Literal["reference", "strike", "reference_and_mark"]
MaintenanceBase = Literal["reference", "larger_of_reference_and_mark"]
MarkTerm = Literal["mark", "larger_of_mark_and_entry"]
MaintenanceKind = Literal["own", "initial"]
OrderAction = Literal["buy_open", "sell_open", "buy_close", "sell_close"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionRule:
    """How a venue margins short options. Rates are fractions (0.15).

    Raises ValueError, naming the field, its value and what is allowed.
    """

    initial_rate: float
    """a: of the underlying, from which the amount out of the money is taken off."""

    initial_floor: float
    """b: the least that is left of it."""

    maintenance_rate: float
    """c."""

    settlement: Settlement = "cash"
    """What marks and margins are in: quote currency, or units of the underlying."""

    maintenance_floor: float | None = None
    """d: maintenance too shrinks by the amount out of the money, to no less than d. None: not."""

    put_floor: PutFloor = "reference"
    """What b is a part of for a put: the reference price, the strike, or reference and mark."""

    call_maintenance: MaintenanceBase = "reference"
    """What c is a part of for a call."""

    put_maintenance: MaintenanceBase = "reference"
    """What c is a part of for a put."""

    mark_term: MarkTerm = "mark"
    """What initial margin adds: the mark, or the larger of the mark and the price of entry."""

    maintenance: MaintenanceKind = "own"
    """initial: maintenance is the initial margin, of which c is then no part."""

    call_initial_over_maintenance: float = 0.0
    """g of calls: initial margin is at least so many times maintenance."""

    put_initial_over_maintenance: float = 0.0
    """g of puts."""

    liquidation_fee_rate: float = 0.0
    """f: the part of the index that maintenance adds."""

    minimum: float = 0.0
    """The least initial margin of one unit, in the money of the settlement."""

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if not (isinstance(value, str) and value in allowed):
                raise ValueError(f"rule.{name} {value!r} is not one of {', '.join(allowed)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _ALLOWED or (field.name == "maintenance_floor" and value is None):
                continue
            if isinstance(value, bool) or not isinstance(value, float | int):
                raise ValueError(f"rule.{field.name} {value!r} must be a number")
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"rule.{field.name} {value} must be finite and not below 0")


# The fields that are one of several texts, and these.
_ALLOWED = {
    name: get_args(hint)
    for name, hint in get_type_hints(OptionRule).items()
    if get_args(hint) and all(isinstance(item, str) for item in get_args(hint))
}

_PUT_FLOORS = get_args(PutFloor)

# docs.deribit.com, standard margin of inverse options; live positions of 2023-08.
DERIBIT = OptionRule(
    settlement="coin",
    initial_rate=0.15,
    initial_floor=0.10,
    maintenance_rate=0.075,
    put_maintenance="larger_of_reference_and_mark",
    put_initial_over_maintenance=1.0,
)
# hc.bitexch.dev/en/articles/9771460 and support.bit.com 4404914044441, of 2021 to 2023: the same
# with settlement in coin; a, b, c of BTC and ETH.
BIT_COM = OptionRule(
    initial_rate=0.15,
    initial_floor=0.10,
    maintenance_rate=0.075,
    put_maintenance="larger_of_reference_and_mark",
    call_initial_over_maintenance=1.0,
    put_initial_over_maintenance=1.0,
)
# Coins of the same venue with rates of their own.
BIT_COM_COINS = {
    "BCH": replace(BIT_COM, initial_rate=0.25, initial_floor=0.15, maintenance_rate=0.125),
    "TON": replace(BIT_COM, initial_rate=0.6, initial_floor=0.5, maintenance_rate=0.4),
}
# okx.com/help/ii-option-margin of 2024-04: the reference is the forward of the same expiry; c is
# 0.03 of BTC and 0.05 of ETH. In cash it is the same, and the rates count on the index.
OKX = OptionRule(
    settlement="coin",
    initial_rate=0.15,
    initial_floor=0.10,
    maintenance_rate=0.03,
    put_maintenance="larger_of_reference_and_mark",
)
# support.okexcn.com 360037743511, 2020: the reference is the future of the same expiry.
OKX_2020 = OptionRule(
    settlement="coin",
    initial_rate=0.15,
    initial_floor=0.10,
    maintenance_rate=0.03,
    put_floor="reference_and_mark",
    put_maintenance="larger_of_reference_and_mark",
)
# bybit.nl help 000001546, 2023-12, and its copy of the initial margin at mobie.io.
BYBIT = OptionRule(
    initial_rate=0.15,
    initial_floor=0.10,
    maintenance_rate=0.03,
    call_maintenance="larger_of_reference_and_mark",
    put_maintenance="larger_of_reference_and_mark",
    mark_term="larger_of_mark_and_entry",
    call_initial_over_maintenance=1.0,
    put_initial_over_maintenance=1.0,
    liquidation_fee_rate=0.002,
)
# gate.com help 28364. The ratios differ by underlying and are not on the page, nor is a maintenance
# that could be checked: a, b and c are those of the other venues.
GATE = OptionRule(
    initial_rate=0.15,
    initial_floor=0.10,
    maintenance_rate=0.075,
    put_floor="reference_and_mark",
)
# api-docs.aevo.xyz/docs/standard-margin.
AEVO = OptionRule(
    initial_rate=0.15,
    initial_floor=0.10,
    maintenance_rate=0.10,
    put_maintenance="larger_of_reference_and_mark",
    put_initial_over_maintenance=1.0,
)
# A hypothesis: exchangeInfo of the venue's options names these four numbers, and a minimum of
# maintenance makes sense only if maintenance shrinks out of the money. The formula was not found.
BINANCE_HYPOTHESIS = OptionRule(
    initial_rate=0.15,
    initial_floor=0.10,
    maintenance_rate=0.075,
    maintenance_floor=0.05,
)
# derivexyz/v2-core@7736900d, standard manager: isolated shorts, before the largest loss caps them.
DERIVE = OptionRule(
    initial_rate=0.15,
    initial_floor=0.10,
    maintenance_rate=0.075,
    put_maintenance="larger_of_reference_and_mark",
    put_initial_over_maintenance=1.05,
)
# FINRA Rule 4210(f)(2)(E) and Cboe's margin manual, equity options: 20% of the stock less the
# amount out of the money, at least 10% of the stock for a call and of the strike for a put, and the
# premium. Of broad indexes initial_rate is 0.15.
REG_T = OptionRule(
    initial_rate=0.20,
    initial_floor=0.10,
    maintenance_rate=0.0,
    put_floor="strike",
    maintenance="initial",
)
# support.tastyworks.com 43000435177 and its page on calls: at least $2.50 a share.
REG_T_WITH_MINIMUM = OptionRule(
    initial_rate=0.20,
    initial_floor=0.10,
    maintenance_rate=0.0,
    put_floor="strike",
    maintenance="initial",
    minimum=2.5,
)


@dataclass(frozen=True, slots=True)
class OptionMargin:
    """Margin of short options; floats, or arrays of the broadcast shape; 0 where not short.

    reduced, floor and minimum are the candidates of which initial is the largest.
    """

    reduced: Figure
    floor: Figure
    minimum: Figure
    initial: Figure
    maintenance: Figure


def out_of_the_money(option_type: Kinds, strike: ArrayLike, reference: ArrayLike) -> Figure:
    """Return max(strike - reference, 0) of calls and max(reference - strike, 0) of puts."""
    return _out_of_the_money(calls(option_type), strike, reference)


def _out_of_the_money(
    is_call: NDArray[np.uint8], strike: ArrayLike, reference: ArrayLike
) -> Figure:
    numbers = floats(
        Field("strike", strike, ABOVE_ZERO),
        Field("reference", reference, ABOVE_ZERO),
        kinds=is_call,
    )
    return numbers.shaped(numbers.ask(core.out_of_the_money_arrays, flags(is_call, numbers.shape)))


def option_margin(
    rule: OptionRule,
    option_type: Kinds,
    quantity: ArrayLike,
    reference: ArrayLike,
    mark: ArrayLike,
    *,
    strike: ArrayLike | None = None,
    otm: ArrayLike | None = None,
    index: ArrayLike | None = None,
    entry_price: ArrayLike | None = None,
    tier_factor: ArrayLike = 1.0,
    multiplier: ArrayLike = 1.0,
) -> OptionMargin:
    """Return the margin of options by themselves.

    option_type is "call" or "put", or booleans, True for calls: the fast way for many options.
    reference is the price against which the rule measures the amount out of the money (an index, a
    forward, the underlying); index the price that its rates count on in cash, by default the
    reference. otm is that amount where it is known and the strike is not. entry_price is the
    average price of a short, by default its mark. tier_factor is that of the position's tier, and
    multiplier the units of the underlying in one contract.
    Raises ValueError if neither strike nor otm is given, or the rule needs the strike.
    """
    is_call = calls(option_type)
    if strike is None and (otm is None or rule.put_floor == "strike"):
        raise ValueError("strike is missing")
    if otm is None:
        otm = _out_of_the_money(is_call, strike if strike is not None else 1.0, reference)
    numbers = floats(
        Field("quantity", quantity, FINITE),
        # Without a strike nothing depends on it.
        Field("strike", reference if strike is None else strike, ABOVE_ZERO),
        Field("otm", otm, FROM_ZERO),
        Field("reference", reference, ABOVE_ZERO),
        Field("index", reference if index is None else index, ABOVE_ZERO),
        Field("mark", mark, FROM_ZERO),
        Field("entry_price", mark if entry_price is None else entry_price, FROM_ZERO),
        Field("tier_factor", tier_factor, ABOVE_ZERO),
        Field("multiplier", multiplier, ABOVE_ZERO),
        kinds=is_call,
    )
    out = numbers.ask(_core_rule(rule).margins, flags(is_call, numbers.shape), rows=5)
    return OptionMargin(*(numbers.shaped(row) for row in out))


def _core_rule(rule: OptionRule) -> core.ShortOption:
    larger = "larger_of_reference_and_mark"
    return core.ShortOption(
        initial=rule.initial_rate,
        floor=rule.initial_floor,
        maintenance=rule.maintenance_rate,
        maintenance_floor=-1.0 if rule.maintenance_floor is None else rule.maintenance_floor,
        liquidation_fee=rule.liquidation_fee_rate,
        minimum=rule.minimum,
        call_over=rule.call_initial_over_maintenance,
        put_over=rule.put_initial_over_maintenance,
        coin=rule.settlement == "coin",
        put_floor=_PUT_FLOORS.index(rule.put_floor),
        call_of_mark=rule.call_maintenance == larger,
        put_of_mark=rule.put_maintenance == larger,
        entry_counts=rule.mark_term == "larger_of_mark_and_entry",
        same=rule.maintenance == "initial",
    )


@overflow_is_checked
def option_premium(quantity: ArrayLike, price: ArrayLike, multiplier: ArrayLike = 1.0) -> Figure:
    """Return |quantity| * price * multiplier: what a buyer pays in full, and a seller gets."""
    numbers = floats(
        Field("quantity", quantity, FINITE),
        Field("price", price, FROM_ZERO),
        Field("multiplier", multiplier, ABOVE_ZERO),
    )
    numbers.require()
    amounts, prices, units = numbers.arrays
    return numbers.computed(np.abs(amounts) * prices * units)


@overflow_is_checked
def option_fee(
    quantity: ArrayLike,
    index: ArrayLike,
    price: ArrayLike,
    *,
    rate: ArrayLike,
    price_part_max: ArrayLike,
    multiplier: ArrayLike = 1.0,
) -> Figure:
    """Return min(rate * index, price_part_max * price) * |quantity| * multiplier.

    In quote currency; with index 1 and a price in coin, in coin. Source: the option fees of Bybit,
    Deribit and bit.com, 0.03% of the index and at most 12.5% of the option's price.
    """
    numbers = floats(
        Field("quantity", quantity, FINITE),
        Field("index", index, ABOVE_ZERO),
        Field("price", price, FROM_ZERO),
        Field("rate", rate, FROM_ZERO),
        Field("price_part_max", price_part_max, FROM_ZERO),
        Field("multiplier", multiplier, ABOVE_ZERO),
    )
    numbers.require()
    amounts, indexes, prices, rates, parts, units = numbers.arrays
    fee = np.minimum(rates * indexes, parts * prices)
    return numbers.computed(fee * np.abs(amounts) * units)


@overflow_is_checked
def option_order_margin(
    action: OrderAction,
    contracts: ArrayLike,
    premium: ArrayLike,
    *,
    fee: ArrayLike = 0.0,
    margin: ArrayLike = 0.0,
    minimum: ArrayLike = 0.0,
) -> Figure:
    """Return what an option order locks in; premium, fee, margin and minimum are per contract.

        buy_open    premium + fee
        sell_open   max(margin - premium + fee, minimum), margin the short's own
        sell_close  max(fee - premium, 0)
        buy_close   max(premium - margin + fee, 0), margin what closing the short releases

    Sources: okx.com/help/ii-option-margin; support.okexcn.com 360037743511; Bybit's initial margin
    of an order is sell_open without a minimum.
    """
    numbers = floats(
        Field("contracts", contracts, FROM_ZERO),
        Field("premium", premium, FROM_ZERO),
        Field("fee", fee, FROM_ZERO),
        Field("margin", margin, FROM_ZERO),
        Field("minimum", minimum, FROM_ZERO),
    )
    numbers.require()
    amounts, premiums, fees, margins, minimums = numbers.arrays
    match action:
        case "buy_open":
            each = premiums + fees
        case "sell_open":
            each = np.maximum(margins - premiums + fees, minimums)
        case "sell_close":
            each = np.maximum(fees - premiums, 0.0)
        case "buy_close":
            each = np.maximum(premiums - margins + fees, 0.0)
        case _:
            raise ValueError(f"action {action!r} is not one of {', '.join(get_args(OrderAction))}")
    return numbers.computed(each * amounts)
