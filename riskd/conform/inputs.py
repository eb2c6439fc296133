"""What a row gives: its numbers and texts, under the names that vector files use for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

from riskd import margin

Inputs = Mapping[str, Any]
# Each output is called when the row expects it.
Outputs = dict[str, Any]


class NotCoveredError(Exception):
    """The library has no rule for this row yet."""


# Names under which vector files hold the same input, the best first; spelled() knows more of each.
SIDE = ("side", "position_side", "pos_side", "direction")
LONG = ("long", "buy", "bid", "b", "1", "+1")
SHORT = ("short", "sell", "ask", "s", "-1")
QUANTITY = (
    "qty",
    "quantity",
    "size",
    "position_qty",
    "position_size",
    "position_amt",
    "current_qty",
    "pos",
    "amount",
)
CONTRACTS = ("contracts", "lots", "n_contracts", "num_contracts")
CONTRACT_SIZE = (
    "lot_size",
    "contract_size",
    "contract_value",
    "contract_multiplier",
    "ct_val",
    "face_value",
    "face",
    "multiplier",
    "quanto_multiplier",
    "mult",
)
ENTRY = (
    "entry",
    "entry_price",
    "entry_px",
    "avg_px",
    "avg_price",
    "average_price",
    "avg_entry_price",
    "avg_open_price",
    "open_price",
    "settle_price",
    "price",
)
MARK = ("mark", "mark_price", "mark_px", "oracle_price", "oracle")
SESSION = ("session_price", "session_avg_price")
# Money without the position's profit.
WALLET = (
    "isolated_wallet",
    "margin_quote",
    "assigned_margin",
    "wallet_balance_quote",
    "wallet_balance",
    "wallet",
    "margin",
    "cash_balance",
    "balance",
)
# What the venue calls the position's margin: its rule says what is in it.
OWN_MARGIN = ("isolated_margin", "position_margin", "pos_margin", "margin_used")
# What the position needed when it was opened, without fees.
FIRST_MARGIN = ("pos_init", "initial_margin", "position_im", "im")
EQUITY = (
    "equity",
    "equity_from_ratio",
    "account_value",
    "account_equity",
    "total_equity",
    "margin_balance",
    "adj_eq",
    "eq",
)
# The margin as a part of the value at entry, and equity over the requirement at the mark.
MARGIN_RATE = ("lmr", "margin_rate")
MARGIN_RATIO = ("margin_ratio", "mgn_ratio")
PROFIT = (
    "unrealised_pnl",
    "unrealized_pnl",
    "unrealised_profit",
    "unrealized_profit",
    "un_realized_profit",
    "upnl",
    "upl",
)
# The value on the basis that the venue's rule takes, and on either.
NOTIONAL = ("notional", "position_value", "value")
ENTRY_VALUE = ("entry_value", "value_at_entry", "notional_at_entry", "pos_cost", "cost")
MARK_VALUE = ("notional_at_mark", "mark_value", "value_at_mark")
INITIAL_RATE = ("im_rate", "imr_rate", "initial_rate", "initial_margin_rate")
RATE = (
    "mmr",
    "maintenance_rate",
    "maintenance_margin_rate",
    "maintenance_margin_ratio",
    "maint_margin_ratio",
    "maint_margin_req",
    "mm_rate",
)
DEDUCTION = (
    "maint_amount",
    "maint_amt",
    "maintenance_amount",
    "mm_amount",
    "mm_deduction",
    "maintenance_deduction",
    "cum",
    "deduction",
)
FLOOR = ("min", "min_notional", "floor", "notional_floor", "lower", "lower_bound")
CEILING = ("max", "max_notional", "cap", "notional_cap", "upper", "upper_bound")
MAX_LEVERAGE = ("max_leverage", "symbol_max_leverage", "initial_leverage")
LEVERAGE = ("leverage", "leverage_chosen", "chosen_leverage", "real_leverage", "lever", "lev")
FEE = (
    "taker_fee",
    "taker",
    "taker_fee_rate",
    "taker_rate",
    "liquidation_fee",
    "liquidation_fee_rate",
    "fee_rate",
)
TICK = ("tick", "tick_size", "price_tick", "tick_sz", "price_step")
STAKE = ("stake_quote", "stake", "stake_amount")
ADDED_MARGIN = ("extra_margin", "added_margin", "additional_margin", "extra")
CLOSING_FEE = ("pos_comm", "reserved_fee", "occ_closing_fee")
FROZEN_MAINTENANCE = ("pos_maint", "frozen_maintenance")
# Words at the end of a name that only say the unit.
UNITS = (
    "coin",
    "quote",
    "base",
    *("btc", "xbt", "eth", "sol", "xrp", "bch", "ton"),
    *("usd", "usdt", "usdc"),
)
SATOSHI = ("sat", "sats", "satoshi")
# Words at the end of a name that say that a rate is in these parts.
PARTS = {"bps": -4, "bp": -4, "pct": -2, "percent": -2}
VOLATILITY = ("vol", "volatility", "sigma", "iv", "implied_vol", "mark_iv")
TIME = ("time_years", "years", "time_to_expiry_years", "t")
INTEREST = ("rate_cont", "rate", "r")
YIELD = ("dividend_yield", "dividend_yield_cont", "q")
CARRY = ("cost_of_carry", "carry", "b")
# Other words for outputs.
OUTPUT_NAMES = {
    "liq_price": "liquidation_price",
    "liq_px": "liquidation_price",
    "bust_price": "bankruptcy_price",
    "bankrupt_price": "bankruptcy_price",
    "im": "initial_margin",
    "mm": "maintenance_margin",
    "maint_margin": "maintenance_margin",
    "maintenance_rate": "mmr",
    "maint_amt": "maint_amount",
    "mgn_ratio": "margin_ratio",
    "unrealized_pnl": "unrealised_pnl",
    "upnl": "unrealised_pnl",
    "upl": "unrealised_pnl",
    "pos_init": "initial_margin",
    "value": "position_value",
}


def snake(name: str) -> str:
    """Return a name in small letters with underscores: maintAmt is maint_amt."""
    return _HUMP.sub("_", name).lower()


_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[a-z])(?=1e\d)")


def spelled(value: Any, *, is_row: bool = True) -> Any:
    """Return inputs also under their names in snake case, and rates also as fractions.

    At all depths; what a row states itself stays as it is. An object within a row may be a map of
    symbols: there BTC has no other spelling.
    """
    if isinstance(value, list):
        return [spelled(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {name: spelled(item, is_row=False) for name, item in value.items()}
    for name in value:
        small = snake(name) if is_row or _HUMP.search(name) else name
        plain.setdefault(small, plain[name])
        stem, _, part = small.rpartition("_")
        # What is no number is left to whoever reads it by its own name.
        if stem and part in PARTS:
            with suppress(ValueError):
                plain.setdefault(stem, margin.decimal(name, value[name]).scaleb(PARTS[part]))
    return plain


def output(outputs: Outputs, name: str) -> Any:
    """Return the output of this name or of another word for it, or None."""
    small = snake(name)
    stem, _, unit = small.rpartition("_")
    names = [name, small, OUTPUT_NAMES.get(small, "")]
    if unit in UNITS:
        names.append(f"{OUTPUT_NAMES.get(stem, stem)}_{unit}")
    return next((outputs[known] for known in names if known in outputs), None)


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


def side_sign(inputs: Inputs, names: Sequence[str] = SIDE) -> int | None:
    """Return 1 for a long, -1 for a short, None without a side: then the size has the sign."""
    found = find(inputs, names)
    side = f"{found}".strip().lower()
    if found is None or side in ("net", "both"):
        return None
    if side in LONG:
        return 1
    if side in SHORT:
        return -1
    raise ValueError(f"inputs.{names[0]} must be long or short, got {found!r}")


def is_buy(inputs: Inputs, names: Sequence[str] = SIDE) -> bool:
    """Return whether a row's side, which it needs, is that of a long."""
    sign = side_sign(inputs, names)
    if sign is None:
        raise ValueError(f"inputs.{names[0]} is missing")
    return sign > 0


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
