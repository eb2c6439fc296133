"""Binance's leverage brackets, USD-M and COIN-M."""

from decimal import Decimal
from typing import Final

from riskd.rulebooks.layouts.common import has, inside, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    SymbolError,
    TierError,
    TierRow,
    capped,
    joined,
    number,
    table,
    tables,
)
from riskd.rulebooks.schema import (
    ZERO,
)

QUOTES: Final = ("USDT", "USDC", "FDUSD", "BUSD", "BTC")


def _binance_settle(symbol: str) -> str:
    """Return what a symbol settles in: BTCUSDT in USDT, BTCUSD_PERP and BTCUSD in BTC."""
    pair = symbol.partition("_")[0]
    for quote in QUOTES:
        if pair.endswith(quote) and pair != quote:
            return quote
    if pair.endswith("USD") and pair != "USD":
        return pair.removesuffix("USD")
    raise SymbolError("has no quote currency that is known")


def _binance(symbol: str, found: object) -> Market:
    rows: list[TierRow] = []
    ceiling: Decimal | None = ZERO
    for k, row in enumerate(tables(table(found, symbol), "brackets")):
        if number(k, row, "bracket") != k + 1:
            raise TierError(k, "bracket", row["bracket"], f"is out of order, must be {k + 1}")
        unit = "qty" if "qtyFloor" in row else "notional"
        floor = number(k, row, f"{unit}Floor")
        joined(k, floor, ceiling, f"{unit}Floor", f"{unit}Cap")
        ceiling = capped(k, number(k, row, f"{unit}Cap"), floor, f"{unit}Cap", f"{unit}Floor")
        rows.append(
            TierRow(
                floor,
                number(k, row, "maintMarginRatio"),
                None,
                number(k, row, "initialLeverage"),
                number(k, row, "cum"),
            )
        )
    return Market(symbol, _binance_settle(symbol), tuple(rows), ceiling)


BINANCE: Final = Layout(
    name="binance",
    what="Binance GET /fapi/v1/leverageBracket, /dapi/v2/leverageBracket",
    is_it=lambda document: has(document, ("response",), "symbol", "brackets"),
    markets=lambda document: listed(inside(document, "response"), "symbol"),
    read=_binance,
    keys={
        "floor": "notionalFloor",
        "initial_rate": "initialLeverage (1 / initialLeverage is the initial rate)",
        "maintenance_rate": "maintMarginRatio",
        "deduction": "cum",
        "max_leverage": "initialLeverage",
    },
    tier_mode="marginal",
    mode_source="the deductions cum that the venue prints",
)
