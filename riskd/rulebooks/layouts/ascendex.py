"""AscendEX's futures contracts."""

from decimal import Decimal
from typing import Final

from riskd.rulebooks.layouts.common import has, inside, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    TierRow,
    capped,
    figure,
    joined,
    number,
    table,
    tables,
    text,
)
from riskd.rulebooks.schema import (
    LINEAR_PERPETUAL,
    ZERO,
)


def _ascendex(symbol: str, found: object) -> Market:
    market = table(found, symbol)
    rows: list[TierRow] = []
    ceiling: Decimal | None = ZERO
    low, high = "positionNotionalLowerBound", "positionNotionalUpperBound"
    for k, row in enumerate(tables(market, "marginRequirements")):
        floor = number(k, row, low)
        joined(k, floor, ceiling, low, high)
        ceiling = capped(k, number(k, row, high), floor, high, low)
        maintenance = number(k, row, "maintenanceMarginRate")
        rows.append(TierRow(floor, maintenance, number(k, row, "initialMarginRate")))
    tick = figure(table(market.get("priceFilter"), "priceFilter"), "tickSize")
    lot = figure(table(market.get("lotSizeFilter"), "lotSizeFilter"), "lotSize")
    steps = Steps(LINEAR_PERPETUAL, tick, lot)
    return Market(symbol, text(market, "settlementAsset"), tuple(rows), ceiling, steps=steps)


ASCENDEX: Final = Layout(
    name="ascendex",
    what="AscendEX GET /api/pro/v2/futures/contract",
    is_it=lambda document: has(document, ("response", "data"), "symbol", "marginRequirements"),
    markets=lambda document: listed(inside(document, "response", "data"), "symbol"),
    read=_ascendex,
    keys={
        "floor": "positionNotionalLowerBound",
        "initial_rate": "initialMarginRate",
        "maintenance_rate": "maintenanceMarginRate",
    },
)
