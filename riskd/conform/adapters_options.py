"""Margin of options: by rule, of orders, by the largest loss at expiry, naked.

A row's inputs become an OptionRule, quantities and prices; the library does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from riskd import margin
from riskd.conform.inputs import (
    LONG,
    UNITS,
    Inputs,
    NotCoveredError,
    Outputs,
    find,
    items,
    mapping,
    real,
    side_sign,
    snake,
    text,
    without_units,
)
from riskd.conform.venues import OptionVenue, Venue
from riskd.margin import OptionMargin, OptionRule
from riskd.margin.arrays import Figure
from riskd.margin.options import OrderAction, Settlement

_KIND = ("option_type", "kind", "type", "right")
_SIDE = ("side", "position_side", "direction", "action")
_QUANTITY = ("qty", "quantity", "contracts", "size", "position_size", "amount", "n")
_STRIKE = ("strike", "strike_price", "k")
_INDEX = ("index", "index_price")
_FORWARD = ("forward", "forward_price", "futures", "future_price", "future")
_SPOT = ("underlying", "underlying_price", "spot", "spot_price", "stock", "stock_price", "s", "u")
_OTM = ("otm", "otm_amount", "out_of_the_money")
_MARK = (
    "mark_coin_full_precision",
    "mark_full_precision",
    "mark",
    "mark_price",
    "option_mark",
    "mtm",
    "option_price",
    "premium",
)
_ENTRY = (
    "avg",
    "avg_price",
    "average_price",
    "position_avg_price",
    "entry",
    "entry_price",
    "entry_premium",
    "order_price",
    "premium",
)
_PREMIUM = ("premium", "order_price", "option_order_price", "price", *_ENTRY)
_FACTOR = ("tier_factor", "margin_factor", "factor")
_MULTIPLIER = ("multiplier", "mult", "contract_multiplier", "contract_size")
_MINIMUM = ("min_per_share", "minimum_per_share", "minimum")
_LIQUIDATION_FEE = ("liq_fee_rate", "liquidation_fee_rate", "liq_fee")
_MAINTENANCE_FLOOR = ("d", "min_maintenance_margin", "minMaintenanceMargin", "mm_min_factor")
_FEE_RATE = ("fee_rate", "taker_fee_rate", "taker_rate", "taker_fee")
_FEE_PART = ("fee_cap", "fee_cap_rate", "max_fee_ratio", "fee_price_part", "premium_fee_cap")
_COLLATERAL = ("collateral", "deposit")
_ACTIONS: Mapping[str, OrderAction] = {
    "sell": "sell_open",
    "short": "sell_open",
    "sell_open": "sell_open",
    "open_sell": "sell_open",
    "sell_close": "sell_close",
    "close_long": "sell_close",
    "buy": "buy_open",
    "long": "buy_open",
    "buy_open": "buy_open",
    "open_buy": "buy_open",
    "buy_close": "buy_close",
    "close_short": "buy_close",
}


def _with_units(outputs: Outputs) -> Outputs:
    """Return the outputs also under names that end with the unit of the money."""
    return outputs | {f"{name}_{unit}": outputs[name] for name in outputs for unit in UNITS}


def _option(venue: Venue) -> OptionVenue:
    if venue.option is None:
        raise NotCoveredError("no rule for options")
    return venue.option


def _given(inputs: Inputs, names: Sequence[str]) -> float | None:
    return None if find(inputs, names) is None else real(inputs, names)


def _settlement(inputs: Inputs, rule: OptionRule) -> Settlement:
    """Return what the row says it is in, in words or by the unit of its mark."""
    said = inputs.get("settlement")
    if isinstance(said, str):
        word = said.lower()
        if word.startswith(("coin", "inverse")):
            return "coin"
        if word.startswith(("cash", "linear", "usd")):
            return "cash"
        raise ValueError(f"inputs.settlement must be cash or coin, got {said!r}")
    marks = {name.rpartition("_")[2] for name in inputs if name.startswith(("mark_", "premium_"))}
    if marks & {"coin", "btc", "eth", "sol", "base"}:
        return "coin"
    if marks & {"usd", "usdt", "usdc", "quote"}:
        return "cash"
    return rule.settlement


def _rule(inputs: Inputs, option: OptionVenue) -> OptionRule:
    """Return the venue's rule with the numbers that the row states."""
    stated = {
        "initial_rate": option.initial_rate_names,
        "initial_floor": option.initial_floor_names,
        "maintenance_rate": option.maintenance_rate_names,
        "liquidation_fee_rate": _LIQUIDATION_FEE,
        "minimum": _MINIMUM,
        "maintenance_floor": _MAINTENANCE_FLOOR,
    }
    numbers = {field: _given(inputs, names) for field, names in stated.items()}
    changes: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    coin = str(find(inputs, ("coin", "currency", "underlying_asset", "base_asset")) or "").upper()
    rule = option.coins.get(coin, option.rule)
    return replace(rule, settlement=_settlement(inputs, rule), **changes)


def _size(inputs: Inputs) -> float:
    """Return the quantity, below 0: these rows are of shorts unless they say long."""
    size = abs(real(inputs, _QUANTITY, 1.0))
    return size if f"{inputs.get('side')}".strip().lower() in LONG else -size


@dataclass(frozen=True, slots=True)
class _Short:
    """A row's option and its rule."""

    inputs: Inputs
    option: OptionVenue

    @property
    def kind(self) -> str:
        return text(self.inputs, _KIND)

    @property
    def rule(self) -> OptionRule:
        return _rule(self.inputs, self.option)

    @property
    def reference(self) -> float:
        first = (*_FORWARD, *_SPOT) if self.option.forward_first else (*_INDEX, *_SPOT)
        return real(self.inputs, (*first, *_INDEX, *_FORWARD))

    @property
    def multiplier(self) -> float:
        return real(self.inputs, _MULTIPLIER, 1.0)

    def otm(self) -> Figure:
        return margin.out_of_the_money(self.kind, real(self.inputs, _STRIKE), self.reference)

    def of_size(self, quantity: float, multiplier: float) -> OptionMargin:
        return margin.option_margin(
            self.rule,
            self.kind,
            quantity,
            self.reference,
            real(self.inputs, _MARK),
            strike=_given(self.inputs, _STRIKE),
            otm=_given(self.inputs, _OTM),
            index=_given(self.inputs, _INDEX),
            entry_price=_given(self.inputs, _ENTRY),
            tier_factor=real(self.inputs, _FACTOR, 1.0),
            multiplier=multiplier,
        )

    def position(self) -> OptionMargin:
        return self.of_size(_size(self.inputs), self.multiplier)

    def unit(self) -> OptionMargin:
        return self.of_size(-1.0, 1.0)

    def order(self) -> Figure:
        """Return the margin of the order that opens the short: its premium is credited."""
        size = abs(_size(self.inputs))
        return margin.option_order_margin(
            "sell_open",
            1.0,
            margin.option_premium(size, real(self.inputs, _PREMIUM), self.multiplier),
            fee=_fee(self.inputs, self.option),
            margin=self.position().initial,
        )

    def initial(self) -> Figure:
        """Return the figure that the venue calls initial margin: of an order, if it is one."""
        stated = find(self.inputs, ("premium", "order_price", "fee", *_FEE_RATE))
        if self.option.order_is_initial and stated is not None:
            return self.order()
        return self.position().initial


def _fee(inputs: Inputs, option: OptionVenue) -> Figure:
    """Return the fee of a whole order: what the row states, or by the venue's rates."""
    size = real(inputs, _QUANTITY, 1.0)
    multiplier = real(inputs, _MULTIPLIER, 1.0)
    if find(inputs, ("fee_per_contract",)) is not None:
        return margin.option_premium(size, real(inputs, ("fee_per_contract",)))
    if find(inputs, ("fee",)) is not None:
        # Of one unit of the underlying where there is a multiplier, else of the order.
        stated = real(inputs, ("fee",))
        if find(inputs, _MULTIPLIER) is None:
            return stated
        return margin.option_premium(size, stated, multiplier)
    rate = _given(inputs, _FEE_RATE)
    if rate is None:
        rate = option.fee_rate
    part = _given(inputs, _FEE_PART)
    if rate is None:
        return 0.0
    # In coin the rate is a part of one coin.
    in_coin = _settlement(inputs, option.rule) == "coin"
    return margin.option_fee(
        size,
        1.0 if in_coin else real(inputs, (*_INDEX, *_SPOT, *_FORWARD)),
        real(inputs, _PREMIUM),
        rate=rate,
        price_part_max=option.fee_price_part if part is None else part,
        multiplier=multiplier,
    )


def option_short_margin(inputs: Inputs, venue: Venue) -> Outputs:
    inputs = without_units(inputs)
    short = _Short(inputs, _option(venue))
    outputs: Outputs = {
        "initial_margin": short.initial,
        "maintenance_margin": lambda: short.position().maintenance,
        "position_initial_margin": lambda: short.position().initial,
        "position_maintenance_margin": lambda: short.position().maintenance,
        "position_margin": lambda: short.position().initial,
        "margin": lambda: short.position().initial,
        "required": lambda: short.position().initial,
        "requirement": lambda: short.position().initial,
        "initial_margin_unit": lambda: short.unit().initial,
        "maintenance_margin_unit": lambda: short.unit().maintenance,
        "order_margin": short.order,
        "order_initial_margin": short.order,
        "buying_power": short.order,
        "otm_amount": short.otm,
        "otm": short.otm,
        "fee": lambda: _fee(inputs, short.option),
        "method1": lambda: short.position().reduced,
        "method2": lambda: short.position().floor,
        "method3": lambda: short.position().minimum,
    }
    outputs |= {"im": outputs["initial_margin"], "mm": outputs["maintenance_margin"]}
    return _with_units(outputs)


def _action(inputs: Inputs) -> OrderAction:
    said = re.sub(r"[ -]+", "_", snake(text(inputs, _SIDE).strip()))
    if said not in _ACTIONS:
        raise ValueError(f"inputs.side {said!r} is not one of {', '.join(_ACTIONS)}")
    return _ACTIONS[said]


def option_order(inputs: Inputs, venue: Venue) -> Outputs:
    """Premium, fee and margin are per contract in a row: per unit where it has a multiplier."""
    inputs = without_units(inputs)
    option = _option(venue)
    size = real(inputs, _QUANTITY, 1.0)

    def premium() -> Figure:
        if find(inputs, ("premium_per_contract",)) is not None:
            return margin.option_premium(size, real(inputs, ("premium_per_contract",)))
        return margin.option_premium(size, real(inputs, _PREMIUM), real(inputs, _MULTIPLIER, 1.0))

    def held() -> Figure:
        names = ("position_margin_per_contract", "released_margin_per_contract", "released_margin")
        if find(inputs, (*names, "position_margin")) is not None:
            return margin.option_premium(size, real(inputs, (*names, "position_margin")))
        if find(inputs, _STRIKE) is None and find(inputs, _OTM) is None:
            return 0.0
        short = _Short(inputs, option)
        return short.of_size(-size, short.multiplier).initial

    def order() -> Figure:
        minimum = margin.option_premium(size, real(inputs, ("min_order_margin",), 0.0))
        return margin.option_order_margin(
            _action(inputs),
            1.0,
            premium(),
            fee=_fee(inputs, option),
            margin=held(),
            minimum=minimum,
        )

    return _with_units(
        {
            "order_cost": order,
            "order_margin": order,
            "cost": order,
            "initial_margin": order,
            "fee": lambda: _fee(inputs, option),
            "premium": premium,
        }
    )


def _legs(inputs: Inputs) -> tuple[list[str], list[float], list[float]]:
    """Return kinds, strikes and signed quantities of the legs that there are."""
    legs: list[tuple[str, float, float]] = []
    if inputs.get("legs") is not None:
        for index, item in enumerate(items("inputs.legs", inputs["legs"])):
            leg = without_units(mapping(f"inputs.legs[{index}]", item))
            size = real(leg, _QUANTITY)
            signed = -abs(size) if side_sign(leg) == -1 else size
            legs.append((text(leg, _KIND), real(leg, _STRIKE), signed))
    else:
        kind = text(inputs, _KIND)
        for side, sign in (("short", -1.0), ("long", 1.0)):
            size = real(inputs, (f"{side}_qty", f"{side}_quantity"), 0.0)
            # A leg without a quantity is none, whether or not it has a strike.
            if size != 0 or find(inputs, (f"{side}_strike",)) is not None:
                legs.append((kind, real(inputs, (f"{side}_strike",)), sign * size))
    if not legs:
        raise ValueError("inputs: there are no legs")
    kinds, strikes, sizes = zip(*legs, strict=True)
    return list(kinds), list(strikes), list(sizes)


def option_spread_max_loss(inputs: Inputs, _venue: Venue) -> Outputs:
    # What a row says, else the unit of its collateral.
    coin = find(inputs, [f"{name}_coin" for name in _COLLATERAL]) is not None
    said = str(inputs.get("settlement") or ("coin" if coin else "cash")).lower()
    inputs = without_units(inputs)
    settlement: Settlement = "coin" if said.startswith(("coin", "inverse")) else "cash"

    def loss() -> Figure:
        kinds, strikes, sizes = _legs(inputs)
        return margin.max_loss_at_expiry(kinds, strikes, sizes, settlement=settlement)

    return _with_units(
        {
            "max_loss": loss,
            "margin_required": loss,
            "margin": loss,
            "requirement": loss,
            "excess_collateral": lambda: margin.excess_collateral(
                real(inputs, _COLLATERAL, 0.0), loss()
            ),
        }
    )


def naked_short_margin(inputs: Inputs, _venue: Venue) -> Outputs:
    inputs = without_units(inputs)

    def upper_bound() -> Figure:
        if find(inputs, ("upper_bound", "option_upper_bound")) is not None:
            return real(inputs, ("upper_bound", "option_upper_bound"))
        if find(inputs, ("weeks_to_expiry",)) is not None:
            return margin.OPYN_UPPER_BOUNDS.at(7.0 * real(inputs, ("weeks_to_expiry",)))
        return margin.OPYN_UPPER_BOUNDS.at(real(inputs, ("days_to_expiry",)))

    def required() -> Figure:
        return margin.naked_option_margin(
            text(inputs, _KIND),
            _size(inputs),
            real(inputs, _STRIKE),
            real(inputs, (*_SPOT, *_INDEX)),
            upper_bound(),
            real(inputs, ("spot_shock", "shock"), 0.75),
        )

    return _with_units(
        {
            "margin_reference": required,
            "margin": required,
            "margin_required": required,
            "required": required,
            "initial_margin": required,
            "maintenance_margin": required,
            "excess_collateral": lambda: margin.excess_collateral(
                real(inputs, _COLLATERAL, 0.0), required()
            ),
        }
    )


MODELS: Mapping[str, Callable[[Inputs, Venue], Outputs]] = {
    "option_short_margin": option_short_margin,
    "option_order_margin": option_order,
    "option_order_cost": option_order,
    "option_spread_max_loss": option_spread_max_loss,
}
# Vaults: fully collateralised spreads, and naked shorts with a table by the time left.
VAULT_MODELS: Mapping[str, Callable[[Inputs, Venue], Outputs]] = {
    "option_spread_max_loss": option_spread_max_loss,
    "option_short_margin": naked_short_margin,
}
