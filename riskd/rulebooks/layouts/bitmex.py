"""BitMEX's instruments: a base limit, and steps of it."""

from collections.abc import Mapping
from typing import Final

from riskd.rulebooks.layouts.common import contract_kind, has, inside, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    SymbolError,
    figure,
    iso_time,
    stepped,
    table,
    text,
)
from riskd.rulebooks.schema import (
    ONE,
    QUANTO_PERPETUAL,
)

# The venue's names of its currencies: symbol and decimals.
BITMEX_CURRENCIES: Final = {"XBt": ("XBT", 8), "USDt": ("USDT", 6), "Gwei": ("ETH", 9)}


def _bitmex_markets(document: object) -> Mapping[str, object]:
    found = listed(inside(document, "response"), "symbol")
    return {
        name: row
        for name, row in found.items()
        if isinstance(row, dict) and row.get("riskLimit") is not None
    }


def _bitmex(symbol: str, found: object) -> Market:
    """At each step both rates rise by the base maintenance: bitmex.com/app/riskLimitsExamples."""
    market = table(found, symbol)
    currency = text(market, "settlCurrency")
    if currency not in BITMEX_CURRENCIES:
        known = ", ".join(BITMEX_CURRENCIES)
        raise SymbolError(f"settlCurrency = {currency!r}: must be one of {known}")
    settle, places = BITMEX_CURRENCIES[currency]
    minor = ONE.scaleb(-places)
    maintenance = figure(market, "maintMargin")
    rows, top = stepped(
        figure(market, "initMargin"),
        maintenance,
        figure(market, "riskLimit") * minor,
        figure(market, "riskStep") * minor,
        (maintenance, maintenance),
    )
    is_inverse, is_quanto = market.get("isInverse") is True, market.get("isQuanto") is True
    expiry = None if market.get("expiry") is None else iso_time(market, "expiry")
    kind = contract_kind(is_inverse=is_inverse, is_dated=expiry is not None)
    if is_quanto and expiry is None:
        kind = QUANTO_PERPETUAL
    multiplier = ONE if is_inverse else figure(market, "multiplier") * minor
    steps = Steps(kind, figure(market, "tickSize"), figure(market, "lotSize"), multiplier, expiry)
    return Market(symbol, settle, rows, top, steps=steps)


BITMEX: Final = Layout(
    name="bitmex",
    what="BitMEX GET /api/v1/instrument/active",
    is_it=lambda document: has(document, ("response",), "symbol", "settlCurrency"),
    markets=_bitmex_markets,
    read=_bitmex,
    keys={"initial_rate": "initMargin", "maintenance_rate": "maintMargin", "floor": "riskStep"},
    mode_source="bitmex.com/app/riskLimitsExamples: a limit holds for the whole position",
)
