"""The ccxt layout: what fetchLeverageTiers returns, as freqtrade stores it."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from riskd.rulebooks.markets import (
    Layout,
    Market,
    SymbolError,
    TierError,
    TierRow,
    asset_symbol,
    capped,
    joined,
    number,
    tables,
)
from riskd.rulebooks.schema import (
    ZERO,
)

# BASE/QUOTE:SETTLE or BASE/QUOTE:SETTLE-YYMMDD.
UNIFIED: Final = re.compile(
    r"(?P<base>[^/:\s-]+)/(?P<quote>[^/:\s-]+):(?P<settle>[^/:\s-]+)(?:-(?P<expiry>[0-9]{6}))?"
)


def unified_name(symbol: str) -> str:
    """Return the name of a unified symbol: BTCUSDT, BTCUSDT_241227. Raises ValueError."""
    parts = UNIFIED.fullmatch(symbol)
    if parts is None:
        raise SymbolError("is no symbol like BTC/USDT:USDT or BTC/USDT:USDT-241227")
    name = parts["base"] + parts["quote"]
    if parts["settle"] not in (parts["base"], parts["quote"]):
        name += f":{parts['settle']}"
    return f"{name}_{parts['expiry']}" if parts["expiry"] else name


def is_linear_perpetual(symbol: str) -> bool:
    """Return whether a unified symbol is settled in its quote currency and has no expiry."""
    parts = UNIFIED.fullmatch(symbol)
    return parts is not None and parts["settle"] == parts["quote"] and not parts["expiry"]


def ccxt_markets(document: object) -> Mapping[str, object]:
    if not isinstance(document, dict):
        raise ValueError("must be an object of symbols and their tiers")
    if not document:
        raise ValueError("has no symbols")
    return document


def _ccxt(symbol: str, found: object) -> Market:
    name = unified_name(symbol)
    parts = UNIFIED.fullmatch(symbol)
    settle = parts["settle"] if parts else ""
    asset_symbol(settle)
    if not isinstance(found, list) or not found:
        raise SymbolError("must have a list of 1 to 32 tiers")
    rows: list[TierRow] = []
    ceiling: Decimal | None = ZERO
    for k, row in enumerate(tables({"tiers": found}, "tiers")):
        if "tier" in row and number(k, row, "tier") != k + 1:
            raise TierError(k, "tier", row["tier"], f"is out of order, must be {k + 1}")
        if row.get("currency") != settle:
            reason = f"must be {settle}, in which the symbol settles"
            raise TierError(k, "currency", row.get("currency"), reason)
        floor = number(k, row, "minNotional")
        joined(k, floor, ceiling, "minNotional", "maxNotional")
        ceiling = None
        if row.get("maxNotional") is not None:
            top = number(k, row, "maxNotional")
            ceiling = capped(k, top, floor, "maxNotional", "minNotional")
        own = row.get("info")
        cum = None
        if isinstance(own, dict) and own.get("cum") is not None:
            cum = number(k, own, "cum", "info.cum")
        rate = number(k, row, "maintenanceMarginRate")
        rows.append(TierRow(floor, rate, None, number(k, row, "maxLeverage"), cum))
    return Market(name, settle, tuple(rows), ceiling)


CCXT: Final = Layout(
    name="ccxt",
    what="fetchLeverageTiers of ccxt",
    is_it=lambda document: (
        isinstance(document, dict)
        and bool(document)
        and all(UNIFIED.fullmatch(key) is not None for key in document)
    ),
    markets=ccxt_markets,
    read=_ccxt,
    keys={
        "floor": "minNotional",
        "initial_rate": "maxLeverage (1 / maxLeverage is the initial rate)",
        "maintenance_rate": "maintenanceMarginRate",
        "deduction": "info.cum",
        "max_leverage": "maxLeverage",
    },
    tier_mode="marginal",
    mode_source="the deductions that the venue prints, or assumption: maintenance is continuous",
)
