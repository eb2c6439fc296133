"""Delta Exchange's products."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from riskd.rulebooks.layouts.common import contract_kind, has, inside, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    TierRow,
    figure,
    iso_time,
    table,
    text,
)
from riskd.rulebooks.schema import (
    ZERO,
)

PERCENT: Final = Decimal("0.01")


def _delta_markets(document: object) -> Mapping[str, object]:
    found = listed(inside(document, "response", "result"), "symbol")
    kinds = ("perpetual_futures", "futures")
    return {
        name: row
        for name, row in found.items()
        if isinstance(row, dict) and row.get("contract_type") in kinds
    }


def _delta(symbol: str, found: object) -> Market:
    """Above max_leverage_notional the rates grow by a factor: no family has that, so it ends."""
    market = table(found, symbol)
    settle = text(table(market.get("settling_asset"), "settling_asset"), "symbol")
    row = TierRow(
        ZERO,
        figure(market, "maintenance_margin") * PERCENT,
        figure(market, "initial_margin") * PERCENT,
    )
    is_inverse = text(market, "notional_type") == "inverse"
    expiry = None if market.get("settlement_time") is None else iso_time(market, "settlement_time")
    steps = None
    # Of a quanto contract the unit of contract_value is another asset: its steps are left out.
    if market.get("is_quanto") is not True:
        kind = contract_kind(is_inverse=is_inverse, is_dated=expiry is not None)
        value = figure(market, "contract_value")
        steps = Steps(kind, figure(market, "tick_size"), value, expiry=expiry)
    return Market(symbol, settle, (row,), figure(market, "max_leverage_notional"), steps=steps)


DELTA: Final = Layout(
    name="delta",
    what="Delta Exchange GET /v2/products",
    is_it=lambda document: has(document, ("response", "result"), "symbol", "initial_margin"),
    markets=_delta_markets,
    read=_delta,
    keys={"initial_rate": "initial_margin", "maintenance_rate": "maintenance_margin"},
)
