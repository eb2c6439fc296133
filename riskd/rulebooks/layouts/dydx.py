"""dYdX: the markets of version 3, the genesis of version 4."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from riskd.rulebooks.layouts.common import has, inside, list_of, listed
from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    SymbolError,
    figure,
    stepped,
    table,
    text,
)
from riskd.rulebooks.schema import (
    LINEAR_PERPETUAL,
    ZERO,
)

PPM: Final = Decimal("0.000001")


def _dydx_v3_markets(document: object) -> Mapping[str, object]:
    found = inside(document, "response", "markets")
    if not isinstance(found, dict) or not found:
        raise ValueError("must have an object of markets")
    return found


def _dydx_v3(symbol: str, found: object) -> Market:
    """The initial rate rises with each increment of size above the baseline; maintenance stays."""
    market = table(found, symbol)
    rows, end = stepped(
        figure(market, "initialMarginFraction"),
        figure(market, "maintenanceMarginFraction"),
        figure(market, "baselinePositionSize"),
        figure(market, "incrementalPositionSize"),
        (figure(market, "incrementalInitialMarginFraction"), ZERO),
    )
    largest = min(end, figure(market, "maxPositionSize"))
    steps = Steps(LINEAR_PERPETUAL, figure(market, "tickSize"), figure(market, "stepSize"))
    kept = tuple(row for row in rows if row.floor < largest)
    return Market(symbol, text(market, "quoteAsset"), kept, largest, steps=steps)


DYDX_V3: Final = Layout(
    name="dydx_v3",
    what="dYdX v3 GET /v3/markets",
    is_it=lambda document: has(document, ("response", "markets"), "incrementalPositionSize"),
    markets=_dydx_v3_markets,
    read=_dydx_v3,
    keys={
        "initial_rate": "initialMarginFraction",
        "maintenance_rate": "maintenanceMarginFraction",
        "floor": "incrementalPositionSize",
    },
    tier_key="quantity",
    mode_source="dYdX v3: the fraction holds for the whole position",
)


def _dydx_v4_markets(document: object) -> Mapping[str, object]:
    root = inside(document, "app_state") if isinstance(document, dict) else None
    perpetuals = root.get("perpetuals") if isinstance(root, dict) else None
    if not isinstance(root, dict) or not isinstance(perpetuals, dict):
        raise ValueError("must have perpetuals and their liquidity_tiers")
    tiers = {
        str(row.get("id")): row
        for row in list_of(perpetuals.get("liquidity_tiers"))
        if isinstance(row, dict)
    }
    pairs: dict[str, object] = {}
    for row in list_of(inside(root.get("clob"), "clob_pairs")):
        if isinstance(row, dict) and isinstance(row.get("perpetual_clob_metadata"), dict):
            pairs[str(row["perpetual_clob_metadata"].get("perpetual_id"))] = row
    found = [inside(row, "params") for row in list_of(perpetuals.get("perpetuals"))]
    return {
        symbol: {
            "params": row,
            "tier": tiers.get(str(row.get("liquidity_tier"))) if isinstance(row, dict) else None,
            "pair": pairs.get(str(row.get("id"))) if isinstance(row, dict) else None,
        }
        for symbol, row in listed(found, "ticker").items()
    }


def _dydx_v4(symbol: str, found: object) -> Market:
    market = table(found, symbol)
    params, tier = table(market.get("params"), "params"), table(market.get("tier"), "tier")
    values = {
        "initial_rate": figure(tier, "initial_margin_ppm") * PPM,
        "maintenance_fraction": figure(tier, "maintenance_fraction_ppm") * PPM,
    }
    for key in ("lower", "upper"):
        cap = f"open_interest_{key}_cap"
        # Quote quantums; genesis files of 2023 have none.
        values[f"open_interest_{key}"] = figure(tier, cap) * PPM if cap in tier else ZERO
    steps = None
    if market.get("pair") is not None:
        pair = table(market["pair"], "clob_pair")
        places = int(figure(params, "atomic_resolution"))
        exponent = int(figure(pair, "quantum_conversion_exponent")) - 6 - places
        if abs(places) > 18 or abs(exponent) > 36:
            raise SymbolError(f"atomic_resolution = {places}: must be -18 to 18")
        steps = Steps(
            LINEAR_PERPETUAL,
            figure(pair, "subticks_per_tick").scaleb(exponent),
            figure(pair, "step_base_quantums").scaleb(places),
        )
    return Market(symbol, "USDC", family="open_interest", parameters=values, steps=steps)


DYDX_V4: Final = Layout(
    name="dydx_v4",
    what="dYdX v4 genesis: perpetuals and liquidity tiers",
    is_it=lambda document: (
        isinstance(root := inside(document, "app_state"), dict)
        and isinstance(root.get("perpetuals"), dict)
        and "liquidity_tiers" in root["perpetuals"]
    ),
    markets=_dydx_v4_markets,
    read=_dydx_v4,
    tier_mode="marginal",
)
