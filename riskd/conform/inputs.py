"""What a row gives: its numbers and texts, under the names that vector files use for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from riskd import margin

Inputs = Mapping[str, Any]
# Each output is called when the row expects it.
Outputs = dict[str, Any]


class NotCoveredError(Exception):
    """The library has no rule for this row yet."""


# Names under which vector files hold the same input, the best first.
SIDE = ("side", "position_side", "direction")
QUANTITY = ("qty", "quantity", "size", "position_qty", "position_amt", "amount")
CONTRACTS = ("contracts", "lots")
CONTRACT_SIZE = (
    "lot_size",
    "contract_size",
    "contract_value",
    "ct_val",
    "face_value",
    "face",
    "multiplier",
)
ENTRY = ("entry", "entry_price", "avg_px", "avg_price", "open_price", "price")
MARK = ("mark", "mark_price", "mark_px", "oracle_price", "oracle")
# Money without the position's profit.
WALLET = (
    "isolated_wallet",
    "margin_quote",
    "assigned_margin",
    "wallet_balance_quote",
    "wallet_balance",
    "wallet",
    "margin",
)
# What the venue calls the position's margin: its rule says what is in it.
OWN_MARGIN = ("isolated_margin", "position_margin", "pos_margin", "posMargin", "margin_used")
# What the position needed when it was opened, without fees.
FIRST_MARGIN = ("pos_init", "posInit")
EQUITY = ("equity", "equity_from_ratio", "account_value", "account_equity", "total_equity")
PROFIT = ("unrealised_pnl", "unrealized_pnl", "unrealized_profit", "upnl", "upl")
NOTIONAL = ("notional", "notional_at_mark", "position_value", "value")
INITIAL_RATE = ("im_rate", "imr_rate", "initial_rate", "initial_margin_rate")
RATE = (
    "mmr",
    "maintenance_rate",
    "maintenance_margin_rate",
    "maintenanceMarginRate",
    "maintMarginRatio",
    "mm_rate",
)
DEDUCTION = (
    "maint_amount",
    "maintAmt",
    "maintenance_amount",
    "mm_amount",
    "mm_deduction",
    "cum",
    "deduction",
)
FLOOR = ("min", "minNotional", "min_notional", "floor", "notional_floor", "lower", "lower_bound")
CEILING = ("max", "maxNotional", "max_notional", "cap", "notional_cap", "upper", "upper_bound")
MAX_LEVERAGE = ("max_leverage", "maxLeverage", "symbol_max_leverage", "initialLeverage")
LEVERAGE = ("leverage", "leverage_chosen")
FEE = (
    "taker_fee",
    "taker",
    "taker_fee_rate",
    "taker_rate",
    "liquidation_fee",
    "liquidation_fee_rate",
    "fee_rate",
)
TICK = ("tick", "tick_size", "price_tick")
STAKE = ("stake_quote", "stake", "stake_amount")
# Words at the end of a name that only say the unit.
UNITS = ("coin", "quote", "base", "btc", "xbt", "eth", "sol", "xrp", "usd", "usdt", "usdc")
SATOSHI = ("sat", "sats", "satoshi")
VOLATILITY = ("vol", "volatility", "sigma", "iv", "implied_vol", "mark_iv")
TIME = ("time_years", "years", "time_to_expiry_years", "t")
INTEREST = ("rate_cont", "rate", "r")
YIELD = ("dividend_yield", "dividend_yield_cont", "q")
CARRY = ("cost_of_carry", "carry", "b")


def find(inputs: Inputs, names: Sequence[str]) -> Any:
    """Return the first of the names that has a value, or None."""
    return next((inputs[name] for name in names if inputs.get(name) is not None), None)


def number(inputs: Inputs, names: Sequence[str]) -> Decimal | None:
    for name in names:
        if inputs.get(name) is not None:
            return margin.decimal(f"inputs.{name}", inputs[name])
    return None


def need(inputs: Inputs, names: Sequence[str]) -> Decimal:
    found = number(inputs, names)
    if found is None:
        raise ValueError(f"inputs.{names[0]} is missing")
    return found


def real(inputs: Inputs, names: Sequence[str], default: float | None = None) -> float:
    if default is not None and find(inputs, names) is None:
        return default
    return float(need(inputs, names))


def text(inputs: Inputs, names: Sequence[str]) -> str:
    value = find(inputs, names)
    if not isinstance(value, str):
        raise ValueError(f"inputs.{names[0]} must be a text, got {value!r}")
    return value


def mapping(name: str, value: Any) -> Inputs:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, got {value!r}")
    return value


def items(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {value!r}")
    return value


def side_sign(inputs: Inputs) -> Decimal | None:
    """Return 1 for a long, -1 for a short, None without a side: then the size has the sign."""
    if find(inputs, SIDE) is None:
        return None
    side = text(inputs, SIDE).lower()
    if side in ("long", "buy"):
        return Decimal(1)
    if side in ("short", "sell"):
        return Decimal(-1)
    raise ValueError(f"inputs.side must be long or short, got {side!r}")


def without_units(inputs: Inputs) -> Inputs:
    """Return the inputs with those whose names end with a unit also without it."""
    plain = dict(inputs)
    for name, value in inputs.items():
        stem, _, unit = name.rpartition("_")
        if unit in UNITS and stem:
            plain.setdefault(stem, value)
        elif unit in SATOSHI and stem:
            plain.setdefault(stem, margin.decimal(f"inputs.{name}", value).scaleb(-8))
    return plain


def with_position(inputs: Inputs) -> Inputs:
    """Return the inputs with those of the object `position`, if there is one, beside them."""
    if inputs.get("position") is None:
        return inputs
    return {**inputs, **mapping("inputs.position", inputs["position"])}
