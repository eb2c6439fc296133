"""BingX's risk limits: leverages, no maintenance rates."""

from typing import Final

from riskd.rulebooks.layouts.ccxt import ccxt_markets
from riskd.rulebooks.layouts.common import has
from riskd.rulebooks.markets import (
    Layout,
    Market,
    SymbolError,
    TierRow,
    number,
    table,
    tables,
)
from riskd.rulebooks.schema import (
    LEVERAGE,
    ZERO,
)


def _bingx(symbol: str, found: object) -> Market:
    base, _, settle = symbol.partition("/")
    if not base or not settle:
        raise SymbolError("is no symbol like BTC/USDT")
    limits = [
        (number(k, row, "limit"), number(k, row, "max_leverage"))
        for k, row in enumerate(tables(table(found, symbol), "risk"))
    ]
    rows, floor = [], ZERO
    for limit, leverage in sorted(limits):
        rows.append(TierRow(floor, max_leverage=leverage))
        floor = limit
    return Market(base + settle, settle, tuple(rows), floor, LEVERAGE)


BINGX: Final = Layout(
    name="bingx",
    what="BingX risk limits as CornixIO/cornix_ccxt keeps them: leverages, no maintenance",
    is_it=lambda document: has(document, (), "leverage", "risk"),
    markets=ccxt_markets,
    read=_bingx,
    keys={"floor": "limit", "max_leverage": "max_leverage"},
    tier_mode="marginal",
    has_maintenance=False,
)
