"""Margin by a risk factor a side: orders, isolated transfers, liquidation, risk factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from riskd import margin
from riskd.conform.inputs import Inputs, Outputs, find, is_buy, items, mapping, need, number, real
from riskd.conform.venues import Venue
from riskd.margin.arrays import Figure
from riskd.margin.decimals import units

_REMAINING = ("remaining", "qty", "quantity", "size", "volume")
_AFTER = ("pos_after", "position_after")
_VOLUME = ("open_volume", "volume", "position")
_MARK = ("mark", "mark_price")


def _whole(inputs: Inputs, names: tuple[str, ...], default: int | None = None) -> int:
    if default is not None and find(inputs, names) is None:
        return default
    return units(f"inputs.{names[0]}", need(inputs, names), 0)


def _pairs(name: str, value: Any) -> list[tuple[int, int]]:
    pairs = [
        items(f"inputs.{name}[{index}]", pair) for index, pair in enumerate(items(name, value))
    ]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"inputs.{name} must hold pairs of quantity and price")
    return [(units(name, size, 0), units(name, price, 0)) for size, price in pairs]


def _orders(inputs: Inputs) -> list[tuple[bool, int, int]]:
    """Return (is_buy, quantity, price) of the working orders, of one list or one a side."""
    orders: list[tuple[bool, int, int]] = []
    for index, item in enumerate(items("inputs.orders", inputs.get("orders") or [])):
        order = mapping(f"inputs.orders[{index}]", item)
        orders.append((is_buy(order), _whole(order, _REMAINING), _whole(order, ("price",))))
    for name, buys in (("buy_orders", True), ("sell_orders", False)):
        if inputs.get(name) is not None:
            orders += [(buys, size, price) for size, price in _pairs(name, inputs[name])]
    return orders


def isolated_order_margin(inputs: Inputs, _venue: Venue) -> Outputs:
    def order_margin() -> Any:
        orders = _orders(inputs)
        return margin.isolated_order_margin(
            _whole(inputs, ("position", *_VOLUME), 0),
            [buys for buys, _, _ in orders],
            [size for _, size, _ in orders],
            [price for _, _, price in orders],
            need(inputs, ("margin_factor",)),
            _whole(inputs, ("position_factor",), 1),
            auction_price=_whole(inputs, ("auction_price",), 0),
        )

    return {"order_margin": order_margin}


def isolated_transfer(inputs: Inputs, _venue: Venue) -> Outputs:
    def transfer() -> margin.MarginTransfer:
        return margin.isolated_transfer(
            _whole(inputs, _AFTER),
            _pairs("trades", inputs.get("trades")),
            is_buy(inputs),
            _whole(inputs, ("margin_balance",), 0),
            need(inputs, ("margin_factor",)),
            _whole(inputs, ("position_factor",), 1),
            None if find(inputs, _MARK) is None else _whole(inputs, _MARK),
        )

    return {"direction": lambda: transfer().direction, "amount": lambda: transfer().amount}


def risk_factors(inputs: Inputs, _venue: Venue) -> Outputs:
    def factors() -> margin.RiskFactors:
        return margin.lognormal_risk_factors(
            real(inputs, ("risk_aversion", "lambda")),
            real(inputs, ("tau_years", "tau")),
            real(inputs, ("mu", "drift"), 0.0),
            real(inputs, ("sigma", "volatility")),
        )

    outputs: Outputs = {
        "risk_factor_long": lambda: factors().long,
        "risk_factor_short": lambda: factors().short,
    }
    outputs["risk_factor"] = lambda: factors().long if is_buy(inputs) else factors().short
    return outputs


def cross_liquidation(inputs: Inputs, _venue: Venue) -> Outputs:
    def factors() -> tuple[float, float]:
        names = ("risk_factor_long", "risk_factor"), ("risk_factor_short", "risk_factor")
        return real(inputs, names[0], 0.0), real(inputs, names[1], 0.0)

    def slippage() -> margin.Slippage:
        return margin.Slippage(
            real(inputs, ("linear_slippage", "linear_slippage_factor"), 0.0),
            real(inputs, ("quadratic_slippage", "quadratic_slippage_factor"), 0.0),
        )

    def maintenance() -> Figure:
        return margin.risk_factor_maintenance(
            real(inputs, _MARK),
            real(inputs, _VOLUME),
            *factors(),
            slippage(),
            funding_per_unit=real(inputs, ("funding_per_unit", "funding"), 0.0),
        )

    def price() -> Figure | None:
        stated = number(inputs, ("collateral_value", "collateral_available"))
        found = margin.risk_factor_liquidation_price(
            real(inputs, _MARK),
            real(inputs, _VOLUME),
            # "equal to maintenance margin", in words alone.
            maintenance() if stated is None else float(stated),
            *factors(),
            slippage(),
            real(inputs, ("funding_per_unit", "funding"), 0.0),
        )
        return None if math.isnan(float(found)) else found

    return {"liquidation_price": price, "maintenance_margin": maintenance}


def margin_levels(inputs: Inputs, _venue: Venue) -> Outputs:
    def levels() -> margin.MarginLevels:
        factors = [
            need(inputs, (f"{name}_factor", f"{name}_level_factor"))
            for name in ("search", "initial", "release")
        ]
        return margin.margin_levels(
            _whole(inputs, ("maintenance_margin", "maintenance")),
            margin.LevelFactors(*(Decimal(factor) for factor in factors)),
        )

    return {
        "maintenance": lambda: levels().maintenance,
        "search": lambda: levels().search,
        "initial": lambda: levels().initial,
        "release": lambda: levels().release,
    }


MODELS: Mapping[str, Callable[[Inputs, Venue], Outputs]] = {
    "isolated_order_margin": isolated_order_margin,
    "isolated_position_change_transfer": isolated_transfer,
    "risk_factor_lognormal_es": risk_factors,
    "cross_liquidation_property": cross_liquidation,
    "margin_levels": margin_levels,
}
