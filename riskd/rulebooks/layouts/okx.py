"""OKX's instruments: the largest leverage, no tiers."""

from collections.abc import Mapping
from typing import Final

from riskd.rulebooks.layouts.common import contract_kind, has, inside, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    TierRow,
    figure,
    milliseconds,
    table,
    text,
)
from riskd.rulebooks.schema import (
    LEVERAGE,
    ZERO,
)


def _okx_markets(document: object) -> Mapping[str, object]:
    found = listed(inside(document, "response", "data"), "instId")
    return {name: row for name, row in found.items() if isinstance(row, dict) and row.get("lever")}


def _okx(symbol: str, found: object) -> Market:
    market = table(found, symbol)
    is_inverse = text(market, "ctType") == "inverse"
    expiry = milliseconds(market, "expTime") if market.get("expTime") else None
    kind = contract_kind(is_inverse=is_inverse, is_dated=expiry is not None)
    lot = figure(market, "ctVal") * figure(market, "ctMult") * figure(market, "lotSz")
    return Market(
        symbol,
        text(market, "settleCcy"),
        (TierRow(ZERO, max_leverage=figure(market, "lever")),),
        family=LEVERAGE,
        steps=Steps(kind, figure(market, "tickSz"), lot, expiry=expiry),
    )


OKX: Final = Layout(
    name="okx",
    what="OKX GET /api/v5/public/instruments: the largest leverage, no tiers",
    is_it=lambda document: has(document, ("response", "data"), "instId", "lever"),
    markets=_okx_markets,
    read=_okx,
    keys={"max_leverage": "lever"},
    tier_mode="marginal",
    has_maintenance=False,
)
