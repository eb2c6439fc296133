"""Hyperliquid's meta: its universe and margin tables."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from riskd.rulebooks.layouts.common import inside, list_of, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    SymbolError,
    TierRow,
    figure,
    number,
    table,
    tables,
)
from riskd.rulebooks.schema import (
    LEVERAGE,
    LINEAR_PERPETUAL,
    ONE,
    ZERO,
)


def _hyperliquid_markets(document: object) -> Mapping[str, object]:
    meta = inside(document, "response", "verbatim")
    if not isinstance(meta, dict):
        raise ValueError("must have universe and marginTables")
    pairs = meta.get("marginTables")
    tables_by_id = {
        str(pair[0]): pair[1]
        for pair in list_of(pairs)
        if isinstance(pair, list) and len(pair) == 2
    }
    return {
        name: {"asset": row, "table": tables_by_id.get(str(row.get("marginTableId")))}
        for name, row in listed(meta.get("universe"), "name").items()
        if isinstance(row, dict) and row.get("isDelisted") is not True
    }


def _hyperliquid(symbol: str, found: object) -> Market:
    """Maintenance is half of 1 / max leverage. A table that is not printed has one tier."""
    market = table(found, symbol)
    asset = table(market.get("asset"), "asset")
    places = int(figure(asset, "szDecimals"))
    if not 0 <= places <= 6:
        raise SymbolError(f"szDecimals = {places}: must be 0 to 6")
    if market.get("table") is None:
        rows = [TierRow(ZERO, max_leverage=figure(asset, "maxLeverage"))]
    else:
        rows = [
            TierRow(number(k, row, "lowerBound"), max_leverage=number(k, row, "maxLeverage"))
            for k, row in enumerate(tables(table(market["table"], "marginTable"), "marginTiers"))
        ]
    # Prices have at most 6 - szDecimals decimals (and five significant figures).
    steps = Steps(
        LINEAR_PERPETUAL,
        ONE.scaleb(places - 6),
        ONE.scaleb(-places),
        is_isolated_only=asset.get("onlyIsolated") is True,
    )
    parameters = {"maintenance_part": Decimal("0.5")}
    return Market(symbol, "USDC", tuple(rows), None, LEVERAGE, parameters, steps)


HYPERLIQUID: Final = Layout(
    name="hyperliquid",
    what="Hyperliquid POST /info meta: universe and marginTables",
    is_it=lambda document: (
        isinstance(meta := inside(document, "response", "verbatim"), dict)
        and {"universe", "marginTables"} <= set(meta)
    ),
    markets=_hyperliquid_markets,
    read=_hyperliquid,
    keys={"floor": "lowerBound", "max_leverage": "maxLeverage"},
    tier_mode="marginal",
    mode_source="29 live positions of freqtrade@3b1fb5af: maintenance is continuous",
)
