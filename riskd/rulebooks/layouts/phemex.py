"""Phemex's products and their risk limits."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from riskd.rulebooks.layouts.common import inside, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    TierError,
    TierRow,
    figure,
    number,
    table,
    tables,
    text,
)
from riskd.rulebooks.schema import (
    INVERSE_PERPETUAL,
    LINEAR_PERPETUAL,
    ZERO,
)

SATOSHI: Final = Decimal("1e-8")


def _phemex_markets(document: object) -> Mapping[str, object]:
    data = inside(document, "response", "data")
    if not isinstance(data, dict):
        raise ValueError("must have riskLimits and products")
    products = listed(data.get("products"), "symbol")
    limits = listed(data.get("riskLimits"), "symbol")
    # Limits stay in the answer after a product has gone.
    return {
        name: {"limits": limits[name], "product": products[name]}
        for name in limits
        if name in products
    }


def _phemex(symbol: str, found: object) -> Market:
    market = table(found, symbol)
    product = table(market.get("product"), "product")
    rows: list[TierRow] = []
    floor = ZERO
    for k, row in enumerate(tables(table(market.get("limits"), "riskLimits"), "riskLimits")):
        top = number(k, row, "limit")
        if top <= floor:
            raise TierError(k, "limit", top, f"must be above {floor}, that of the tier before")
        maintenance = number(k, row, "maintenanceMarginEr") * SATOSHI
        rows.append(TierRow(floor, maintenance, number(k, row, "initialMarginEr") * SATOSHI))
        floor = top
    settle, quote = text(product, "settleCurrency"), text(product, "quoteCurrency")
    steps = Steps(
        LINEAR_PERPETUAL if settle == quote else INVERSE_PERPETUAL,
        figure(product, "tickSize"),
        figure(product, "contractSize") * figure(product, "lotSize"),
    )
    return Market(symbol, settle, tuple(rows), floor, steps=steps)


PHEMEX: Final = Layout(
    name="phemex",
    what="Phemex GET /exchange/public/cfg/v2/products",
    is_it=lambda document: (
        isinstance(data := inside(document, "response", "data"), dict)
        and {"riskLimits", "products"} <= set(data)
    ),
    markets=_phemex_markets,
    read=_phemex,
    keys={"initial_rate": "initialMarginEr", "maintenance_rate": "maintenanceMarginEr"},
)
