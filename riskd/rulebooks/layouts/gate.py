"""Gate's USDT contracts: a base limit, and steps of it."""

from decimal import Decimal
from typing import Final

from riskd.rulebooks.layouts.common import has, inside, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    SymbolError,
    figure,
    stepped,
    table,
)
from riskd.rulebooks.schema import (
    LINEAR_PERPETUAL,
    ONE,
)


def _gate(symbol: str, found: object) -> Market:
    """Assumption: with each step both rates rise by their first value, as ccxt emulates it."""
    market = table(found, symbol)
    settle = symbol.rpartition("_")[2]
    maintenance, leverage = figure(market, "maintenance_rate"), figure(market, "leverage_max")
    if leverage < ONE:
        raise SymbolError(f"leverage_max = {leverage}: must be at least 1")
    rate = ONE / leverage
    rate = rate.quantize(Decimal("1e-9"))
    rows, end = stepped(
        rate,
        maintenance,
        figure(market, "risk_limit_base"),
        figure(market, "risk_limit_step"),
        (rate, maintenance),
    )
    largest = min(end, figure(market, "risk_limit_max"))
    lot = figure(market, "quanto_multiplier") or ONE
    return Market(
        symbol,
        settle,
        tuple(row for row in rows if row.floor < largest),
        largest,
        steps=Steps(LINEAR_PERPETUAL, figure(market, "order_price_round"), lot),
        liquidation_fee_rate=figure(market, "taker_fee_rate"),
    )


GATE: Final = Layout(
    name="gate",
    what="Gate GET /api/v4/futures/usdt/contracts",
    is_it=lambda document: has(document, ("response",), "name", "risk_limit_step"),
    markets=lambda document: listed(inside(document, "response"), "name"),
    read=_gate,
    keys={
        "initial_rate": "1 / leverage_max",
        "maintenance_rate": "maintenance_rate",
        "floor": "risk_limit_step",
    },
)
