"""Kraken Futures' instruments and their margin levels."""

from collections.abc import Mapping
from typing import Final

from riskd.rulebooks.layouts.common import contract_kind, has, inside, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    SymbolError,
    TierRow,
    by_floor,
    figure,
    iso_time,
    number,
    table,
    tables,
    text,
)
from riskd.rulebooks.schema import (
    ONE,
)


def _kraken_markets(document: object) -> Mapping[str, object]:
    found = listed(inside(document, "response", "instruments"), "symbol")
    # Indices stand in the same list, without margin.
    return {
        name: row for name, row in found.items() if isinstance(row, dict) and "marginLevels" in row
    }


def _kraken(symbol: str, found: object) -> Market:
    market = table(found, symbol)
    size = figure(market, "contractSize")
    rows = []
    for k, row in enumerate(tables(market, "marginLevels")):
        key = "contracts" if "contracts" in row else "numNonContractUnits"
        floor = number(k, row, key) * (size if key == "contracts" else ONE)
        maintenance = number(k, row, "maintenanceMargin")
        rows.append(TierRow(floor, maintenance, number(k, row, "initialMargin")))
    is_inverse = text(market, "type") == "futures_inverse"
    pair = symbol.split("_")[1] if symbol.count("_") else ""
    if not pair.endswith("usd"):
        raise SymbolError("is no symbol like pi_xbtusd or fi_xbtusd_210924")
    settle = pair.removesuffix("usd").upper() if is_inverse else "USD"
    expiry = None
    if "lastTradingTime" in market:
        expiry = iso_time(market, "lastTradingTime")
    kind = contract_kind(is_inverse=is_inverse, is_dated=expiry is not None)
    steps = Steps(kind, figure(market, "tickSize"), size, expiry=expiry)
    return Market(symbol.upper(), settle, by_floor(rows), steps=steps)


KRAKEN: Final = Layout(
    name="kraken",
    what="Kraken Futures GET /derivatives/api/v3/instruments",
    is_it=lambda document: has(document, ("response", "instruments"), "symbol", "tradeable"),
    markets=_kraken_markets,
    read=_kraken,
    keys={"initial_rate": "initialMargin", "maintenance_rate": "maintenanceMargin"},
    tier_key="quantity",
)
