"""Rates that grow with a power of the notional, and what such a venue asks of orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from riskd import margin
from riskd.conform.inputs import (
    Inputs,
    Outputs,
    find,
    is_buy,
    items,
    mapping,
    need,
    real,
    text,
    with_position,
)
from riskd.conform.venues import Venue
from riskd.margin.arrays import Figure
from riskd.margin.power import POWER
from riskd.margin.previews import FEE_BUFFER, SAFETY, Side

_QUANTITY = ("position_qty", "qty", "quantity", "size")
_MARK = ("mark", "mark_price")
_BASE = ("base_mmr", "mmr", "maintenance_rate")
_BASE_INITIAL = ("base_imr", "imr", "initial_rate")
_FACTOR = ("imr_factor", "factor")
_COLLATERAL = ("total_collateral", "collateral")
_FEE = ("taker_fee", "taker_fee_rate", "fee_rate", "taker_rate")
_SYMBOL = ("symbol",)


def _power(inputs: Inputs) -> float:
    return real(inputs, ("power", "imr_factor_power"), POWER)


def _maintenance_factor(inputs: Inputs) -> Figure:
    """Return the factor of the maintenance rate; without one the rate is flat."""
    factor = real(inputs, _FACTOR, 0.0)
    if factor == 0.0:
        return 0.0
    return margin.maintenance_factor(real(inputs, _BASE), real(inputs, _BASE_INITIAL), factor)


def _positions(inputs: Inputs, name: str) -> list[Inputs]:
    rows = items(f"inputs.{name}", inputs.get(name) or [])
    return [mapping(f"inputs.{name}[{index}]", row) for index, row in enumerate(rows)]


def _gross(positions: Sequence[Inputs], rated: bool) -> Figure:
    """Return the positions' notional, or their maintenance at the rates they state."""
    return margin.gross_notional(
        [real(position, _QUANTITY) for position in positions],
        [real(position, _MARK) for position in positions],
        [real(position, ("mmr", "maintenance_rate")) if rated else 1.0 for position in positions],
    )


def _notional(inputs: Inputs) -> float:
    """Return the notional; a short's may be stated below 0."""
    return abs(real(inputs, ("notional", "position_notional")))


def maintenance_rate(inputs: Inputs, _venue: Venue) -> Outputs:
    def notional() -> float:
        return _notional(inputs)

    def rate() -> Figure:
        return margin.power_rate(
            notional(), real(inputs, _BASE), _maintenance_factor(inputs), _power(inputs)
        )

    return {
        "mmr": rate,
        "maintenance_rate": rate,
        "maintenance_margin": lambda: margin.order_fee(1.0, notional(), rate()),
    }


def initial_rate(inputs: Inputs, _venue: Venue) -> Outputs:
    def rate() -> Figure:
        return margin.power_initial_rate(
            _notional(inputs),
            real(inputs, _BASE_INITIAL),
            real(inputs, _FACTOR, 0.0),
            real(inputs, ("max_leverage", "leverage")),
            _power(inputs),
        )

    return {"imr": rate, "initial_rate": rate}


def _order(inputs: Inputs) -> Inputs:
    return mapping("inputs.order", inputs.get("order"))


def _own_and_others(inputs: Inputs) -> tuple[Inputs | None, list[Inputs]]:
    """Return the position of the order's symbol, if there is one, and the other positions."""
    symbol = text(_order(inputs), _SYMBOL)
    positions = _positions(inputs, "positions")
    own = [position for position in positions if text(position, _SYMBOL) == symbol]
    others = [position for position in positions if text(position, _SYMBOL) != symbol]
    return (own[0] if own else None), others


def estimated_leverage(inputs: Inputs, _venue: Venue) -> Outputs:
    def leverage() -> Figure:
        if inputs.get("order") is None:
            positions = _positions(inputs, "positions")
            return margin.account_leverage(
                real(inputs, _COLLATERAL), _gross(positions, rated=False)
            )
        own, others = _own_and_others(inputs)
        order = _order(inputs)
        price = real(order, ("price",))
        return margin.leverage_after_order(
            real(inputs, _COLLATERAL),
            _gross(others, rated=False),
            0.0 if own is None else real(own, _QUANTITY),
            price if own is None else real(own, _MARK),
            real(order, _QUANTITY),
            price,
        )

    return {"leverage": leverage, "estimated_leverage": leverage}


def order_fee(inputs: Inputs, _venue: Venue) -> Outputs:
    return {
        "fee": lambda: margin.order_fee(
            real(inputs, _QUANTITY), real(inputs, ("price", "order_price")), real(inputs, _FEE)
        )
    }


def _side(inputs: Inputs) -> Side:
    return "buy" if is_buy(inputs, ("side", "order_side")) else "sell"


def max_order_cross(inputs: Inputs, _venue: Venue) -> Outputs:
    def quantity() -> Figure:
        side = _side(inputs)
        orders = ("buy_orders", "buy_orders_qty") if side == "buy" else ("sell_orders",)
        rate: Figure = real(inputs, ("imr", "base_imr", "initial_rate"))
        if find(inputs, ("max_leverage",)) is not None:
            rate = margin.power_initial_rate(0.0, rate, 0.0, real(inputs, ("max_leverage",)))
        most = ("base_max", "base_max_qty", "max_qty")
        return margin.max_order_cross(
            side,
            real(inputs, _MARK),
            real(inputs, _COLLATERAL),
            real(inputs, ("other_im", "other_ims", "others_im"), 0.0),
            rate,
            real(inputs, _FEE, 0.0),
            real(inputs, ("position_qty",), 0.0),
            abs(real(inputs, (*orders, "sell_orders_qty"), 0.0)),
            factor=real(inputs, _FACTOR, 0.0),
            power=_power(inputs),
            safety=real(inputs, ("safety", "safety_factor"), SAFETY),
            quantity_max=None if find(inputs, most) is None else real(inputs, most),
        )

    return {"max_qty": quantity}


def max_order_isolated(inputs: Inputs, _venue: Venue) -> Outputs:
    def quantity() -> Figure:
        side = _side(inputs)
        pending = _positions(inputs, f"pending_{'long' if side == 'buy' else 'sell'}_orders")
        frozen = f"frozen_{'long' if side == 'buy' else 'short'}"
        most = ("max_notional", "symbol_max_notional", "notional_max")
        notional = margin.gross_notional(
            [real(order, _QUANTITY) for order in pending],
            [real(order, ("reference_price", "price")) for order in pending],
        )
        price = ("reference_price", "price", "order_price", *_MARK)
        return margin.max_order_isolated(
            side,
            real(inputs, price),
            real(inputs, ("available", "available_balance")),
            real(inputs, ("leverage",)),
            factor=real(inputs, _FACTOR, 0.0),
            power=_power(inputs),
            mark_price=real(inputs, (*_MARK, *price)),
            position_quantity=real(inputs, ("position_qty",), 0.0),
            pending_notional=real(inputs, ("pending_notional",), float(notional)),
            frozen=real(inputs, ("frozen", frozen, f"iso_order_{frozen}"), 0.0),
            notional_max=None if find(inputs, most) is None else real(inputs, most),
            fee_buffer=real(inputs, ("fee_buffer",), FEE_BUFFER),
            safety=real(inputs, ("safety", "safety_factor"), SAFETY),
        )

    return {"max_qty": quantity}


def account_rate(inputs: Inputs, _venue: Venue) -> Outputs:
    def rate() -> Figure | None:
        notional = real(inputs, ("positions_notional", "notional"))
        # An account without positions has no rate.
        if notional == 0.0:
            return None
        return margin.account_rate(notional, real(inputs, ("positions_mm", "maintenance_margin")))

    return {"mmr": rate}


def max_withdrawal(inputs: Inputs, _venue: Venue) -> Outputs:
    balance = ("usdc_balance", "balance")

    def of_balance() -> Figure:
        return margin.max_withdrawal(
            real(inputs, balance), real(inputs, ("free_collateral",)), real(inputs, ("upnl",), 0.0)
        )

    def of_asset() -> Figure:
        return margin.max_withdrawal_of_asset(
            real(inputs, ("collateral_qty", "qty", "quantity")),
            real(inputs, ("free_collateral",)),
            real(inputs, ("index", "index_price")),
            real(inputs, ("weight", "collateral_ratio")),
            real(inputs, balance, 0.0),
        )

    return {"max_withdrawal": of_balance, "max_withdrawal_qty": of_asset}


def _shown(price: Figure, none: float | None) -> Figure | None:
    """Return the price as the venue prints it where the position cannot be liquidated."""
    return none if math.isnan(float(price)) else price


def cross_liquidation(inputs: Inputs, _venue: Venue) -> Outputs:
    inputs = with_position(inputs)

    def price() -> Figure | None:
        symbol = inputs.get("symbol")
        others = [
            *_positions(inputs, "other_positions"),
            *_positions(inputs, "others"),
            # The position itself can be among these.
            *(
                position
                for position in _positions(inputs, "positions")
                if symbol is None or position.get("symbol") != symbol
            ),
        ]
        found = margin.power_liquidation_price(
            real(inputs, _QUANTITY),
            real(inputs, _MARK),
            real(inputs, _COLLATERAL),
            _gross(others, rated=True),
            real(inputs, _BASE),
            _maintenance_factor(inputs),
            _power(inputs),
        )
        return _shown(found, 0.0)

    return {"liquidation_price": price}


def cross_liquidation_with_order(inputs: Inputs, _venue: Venue) -> Outputs:
    def price() -> Figure:
        own, others = _own_and_others(inputs)
        order = _order(inputs)
        order_price = real(order, ("price",))
        size = real(order, _QUANTITY)
        fee: Figure = real(inputs, ("order_fee", "fee"), 0.0)
        if find(inputs, ("order_fee", "fee")) is None and find(inputs, _FEE) is not None:
            fee = margin.order_fee(size, order_price, real(inputs, _FEE))
        held = bool(own or others)
        return margin.liquidation_price_after_order(
            0.0 if own is None else real(own, _QUANTITY),
            order_price if own is None else real(own, _MARK),
            real(inputs if own is None else own, ("mmr", *_BASE)),
            size,
            order_price,
            fee,
            real(inputs, _COLLATERAL),
            _gross(others, rated=True),
            real(inputs, _MARK) if held else order_price,
            real(inputs, _BASE),
            _maintenance_factor(inputs),
            _power(inputs),
        )

    return {"liquidation_price": price}


def isolated_liquidation(inputs: Inputs, _venue: Venue) -> Outputs:
    inputs = with_position(inputs)

    def price() -> Figure | None:
        has_order = find(inputs, ("order_qty",)) is not None and need(inputs, ("order_qty",)) != 0
        # An order can be the first: then there is no position.
        flat = 0.0 if has_order and find(inputs, _QUANTITY) is None else None
        position = margin.IsolatedPosition(
            real(inputs, _QUANTITY, flat),
            real(inputs, ("cost_position", "cost"), flat),
            real(inputs, ("isolated_margin", "isolated_position_margin", "margin"), flat),
        )
        reference = ("order_price", "reference_price", *_MARK)
        factor = _maintenance_factor(inputs)
        if has_order:
            size = need(inputs, ("order_qty",)).copy_abs()
            signed = size if _side({"side": inputs.get("order_side")}) == "buy" else -size
            position = margin.isolated_after_order(
                position,
                float(signed),
                real(inputs, reference),
                real(inputs, ("leverage",)),
                real(inputs, ("fee_buffer",), FEE_BUFFER),
            )
        elif find(inputs, reference) is None:
            # Without a price there is no notional, and the rate is the base rate.
            factor = 0.0
        found = margin.power_isolated_liquidation_price(
            position,
            real(inputs, reference, 1.0),
            real(inputs, _BASE),
            factor,
            funding=real(inputs, ("sum_unitary_funding",), 0.0),
            funding_settled=real(inputs, ("last_sum_unitary_funding",), 0.0),
            power=_power(inputs),
        )
        return _shown(found, None)

    return {"liquidation_price": price}


MODELS: Mapping[str, Callable[[Inputs, Venue], Outputs]] = {
    "maintenance_margin_size_function": maintenance_rate,
    "initial_margin_size_function": initial_rate,
    "estimated_leverage": estimated_leverage,
    "order_fee": order_fee,
    "max_order_qty_cross": max_order_cross,
    "max_order_qty_isolated": max_order_isolated,
    "account_mmr": account_rate,
    "max_withdrawal": max_withdrawal,
    "cross_liquidation": cross_liquidation,
    "cross_liquidation_linear": cross_liquidation,
    "cross_liquidation_size_dependent_mmr": cross_liquidation,
    "cross_liquidation_with_pending_order": cross_liquidation_with_order,
    "isolated_liquidation_linear": isolated_liquidation,
}
