"""Initial margin scaled by open interest, and bankruptcy prices of a part, in quote quantums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from riskd import margin
from riskd.conform.inputs import Inputs, Outputs, find, mapping, need, number, text
from riskd.conform.venues import Venue
from riskd.margin.decimals import units

_BASE = ("initial_margin_ppm", "base_imf_ppm", "initial_ppm")
_FRACTION = ("maintenance_fraction_ppm", "fraction_ppm")
_NOTIONAL = ("quote_quantums", "notional_quantums", "notional_quote_quantums")
_OPEN_INTEREST = ("open_interest", "open_interest_notional", "open_interest_quote_quantums")
_LOWER = ("oi_lower_cap", "open_interest_lower_cap", "lower_cap")
_UPPER = ("oi_upper_cap", "open_interest_upper_cap", "upper_cap")
_CUSTOM = ("custom_imf_ppm", "custom_initial_margin_ppm", "custom_ppm")
_BALANCE = ("usdc_balance", "quote_balance", "balance")


def _whole(inputs: Inputs, names: tuple[str, ...], default: int | None = None) -> int:
    if default is not None and find(inputs, names) is None:
        return default
    return units(f"inputs.{names[0]}", need(inputs, names), 0)


def initial_margin(inputs: Inputs, _venue: Venue) -> Outputs:
    def market() -> tuple[int, int, int, int, int]:
        return (
            _whole(inputs, _BASE),
            _whole(inputs, _OPEN_INTEREST, 0),
            _whole(inputs, _LOWER, 0),
            _whole(inputs, _UPPER, 0),
            _whole(inputs, _CUSTOM, 0),
        )

    def rate() -> Any:
        return margin.open_interest_rate_ppm(*market())

    def amount() -> Any:
        return margin.open_interest_initial_margin(_whole(inputs, _NOTIONAL), *market())

    return {
        "initial_margin_quote_quantums": amount,
        "initial_margin_ppm": rate,
        "adjusted_initial_margin_ppm": rate,
    }


def maintenance_rate(inputs: Inputs, _venue: Venue) -> Outputs:
    def rates() -> tuple[int, int]:
        return _whole(inputs, _BASE), _whole(inputs, _FRACTION)

    return {
        "maintenance_margin_ppm": lambda: margin.maintenance_rate_ppm(*rates()),
        "maintenance_margin_quote_quantums": lambda: margin.fraction_maintenance_margin(
            _whole(inputs, _NOTIONAL), *rates()
        ),
    }


def _of(name: str, value: Any, symbol: str) -> Decimal:
    """Return a market's number: the one of its symbol, or the one of all."""
    if isinstance(value, dict):
        return need(mapping(f"inputs.{name}", value), (symbol,))
    return margin.decimal(f"inputs.{name}", value)


def bankruptcy_price(inputs: Inputs, _venue: Venue) -> Outputs:
    def price() -> int:
        positions = mapping("inputs.positions", inputs.get("positions"))
        symbols = list(positions)
        closing = text(inputs, ("close_symbol", "symbol"))
        if closing not in symbols:
            raise ValueError(f"inputs.close_symbol {closing!r} has no position")
        sizes = {symbol: _of("positions", positions, symbol) for symbol in symbols}
        prices = {symbol: _of("prices", inputs.get("prices"), symbol) for symbol in symbols}
        left = sizes[closing] + need(inputs, ("close_delta", "delta"))
        balance = number(inputs, _BALANCE)
        return margin.account_bankruptcy_price(
            units("inputs.usdc_balance", Decimal(0) if balance is None else balance, 6),
            [margin.quote_quantums(sizes[symbol], prices[symbol]) for symbol in symbols],
            [
                units("rate", _of("maintenance_rate", inputs.get("maintenance_rate"), symbol), 6)
                for symbol in symbols
            ],
            symbols.index(closing),
            margin.quote_quantums(left, prices[closing]),
        )

    return {"bankruptcy_price_quote_quantums": price}


MODELS: Mapping[str, Callable[[Inputs, Venue], Outputs]] = {
    "initial_margin_oi_scaled": initial_margin,
    "maintenance_rate": maintenance_rate,
    "bankruptcy_price_partial": bankruptcy_price,
}
