"""The public layouts of margin tiers: how each venue answers, and what that means.

The envelope of a venue's answer ({"response": ...}, {"data": ...}) may be there or not. A layout
reads what is printed; what follows from it by the venue's documentation says so beside the code.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from riskd.rulebooks.markets import (
    Layout,
    Market,
    Steps,
    SymbolError,
    TierError,
    TierRow,
    asset_symbol,
    by_floor,
    capped,
    figure,
    iso_time,
    joined,
    milliseconds,
    number,
    stepped,
    table,
    tables,
    text,
)
from riskd.rulebooks.schema import (
    INVERSE_FUTURE,
    INVERSE_PERPETUAL,
    LEVERAGE,
    LINEAR_FUTURE,
    LINEAR_PERPETUAL,
    ONE,
    QUANTO_PERPETUAL,
    ZERO,
)

# BASE/QUOTE:SETTLE or BASE/QUOTE:SETTLE-YYMMDD.
UNIFIED: Final = re.compile(
    r"(?P<base>[^/:\s-]+)/(?P<quote>[^/:\s-]+):(?P<settle>[^/:\s-]+)(?:-(?P<expiry>[0-9]{6}))?"
)
QUOTES: Final = ("USDT", "USDC", "FDUSD", "BUSD", "BTC")
PERCENT: Final = Decimal("0.01")
PPM: Final = Decimal("0.000001")
SATOSHI: Final = Decimal("1e-8")


def _listed(found: object, key: str) -> Mapping[str, object]:
    """Return a list of objects by the name that each has under a key. Raises ValueError."""
    if not isinstance(found, list) or not found:
        raise ValueError("must have a list of symbols")
    markets: dict[str, object] = {}
    for row in found:
        name = row.get(key) if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise ValueError(f"has an entry without {key}")
        if name in markets:
            raise ValueError(f"{name}: is there twice")
        markets[name] = row
    return markets


def _list(found: object) -> list[object]:
    return found if isinstance(found, list) else []


def _inside(document: object, *path: str) -> object:
    """Return what is at a path of keys, any of which may be left out."""
    for key in path:
        if isinstance(document, dict) and key in document:
            document = document[key]
    return document


def _has(document: object, path: Sequence[str], *keys: str) -> bool:
    """Return whether the first entry at a path has all keys."""
    found = _inside(document, *path)
    if isinstance(found, dict):
        found = list(found.values())
    first = found[0] if isinstance(found, list) and found else None
    return isinstance(first, dict) and all(key in first for key in keys)


def _kind(*, is_inverse: bool, is_dated: bool) -> str:
    if is_inverse:
        return INVERSE_FUTURE if is_dated else INVERSE_PERPETUAL
    return LINEAR_FUTURE if is_dated else LINEAR_PERPETUAL


# ccxt ------------------------------------------------------------------------------------------


def unified_name(symbol: str) -> str:
    """Return the name of a unified symbol: BTCUSDT, BTCUSDT_241227. Raises ValueError."""
    parts = UNIFIED.fullmatch(symbol)
    if parts is None:
        raise SymbolError("is no symbol like BTC/USDT:USDT or BTC/USDT:USDT-241227")
    name = parts["base"] + parts["quote"]
    if parts["settle"] not in (parts["base"], parts["quote"]):
        name += f":{parts['settle']}"
    return f"{name}_{parts['expiry']}" if parts["expiry"] else name


def is_linear_perpetual(symbol: str) -> bool:
    """Return whether a unified symbol is settled in its quote currency and has no expiry."""
    parts = UNIFIED.fullmatch(symbol)
    return parts is not None and parts["settle"] == parts["quote"] and not parts["expiry"]


def _ccxt_markets(document: object) -> Mapping[str, object]:
    if not isinstance(document, dict):
        raise ValueError("must be an object of symbols and their tiers")
    if not document:
        raise ValueError("has no symbols")
    return document


def _ccxt(symbol: str, found: object) -> Market:
    name = unified_name(symbol)
    parts = UNIFIED.fullmatch(symbol)
    settle = parts["settle"] if parts else ""
    asset_symbol(settle)
    if not isinstance(found, list) or not found:
        raise SymbolError("must have a list of 1 to 32 tiers")
    rows: list[TierRow] = []
    ceiling: Decimal | None = ZERO
    for k, row in enumerate(tables({"tiers": found}, "tiers")):
        if "tier" in row and number(k, row, "tier") != k + 1:
            raise TierError(k, "tier", row["tier"], f"is out of order, must be {k + 1}")
        if row.get("currency") != settle:
            reason = f"must be {settle}, in which the symbol settles"
            raise TierError(k, "currency", row.get("currency"), reason)
        floor = number(k, row, "minNotional")
        joined(k, floor, ceiling, "minNotional", "maxNotional")
        ceiling = None
        if row.get("maxNotional") is not None:
            top = number(k, row, "maxNotional")
            ceiling = capped(k, top, floor, "maxNotional", "minNotional")
        own = row.get("info")
        cum = None
        if isinstance(own, dict) and own.get("cum") is not None:
            cum = number(k, own, "cum", "info.cum")
        rate = number(k, row, "maintenanceMarginRate")
        rows.append(TierRow(floor, rate, None, number(k, row, "maxLeverage"), cum))
    return Market(name, settle, tuple(rows), ceiling)


CCXT: Final = Layout(
    name="ccxt",
    what="fetchLeverageTiers of ccxt",
    is_it=lambda document: (
        isinstance(document, dict)
        and bool(document)
        and all(UNIFIED.fullmatch(key) is not None for key in document)
    ),
    markets=_ccxt_markets,
    read=_ccxt,
    keys={
        "floor": "minNotional",
        "initial_rate": "maxLeverage (1 / maxLeverage is the initial rate)",
        "maintenance_rate": "maintenanceMarginRate",
        "deduction": "info.cum",
        "max_leverage": "maxLeverage",
    },
    tier_mode="marginal",
    mode_source="the deductions that the venue prints, or assumption: maintenance is continuous",
)


# Binance ---------------------------------------------------------------------------------------


def _binance_settle(symbol: str) -> str:
    """Return what a symbol settles in: BTCUSDT in USDT, BTCUSD_PERP and BTCUSD in BTC."""
    pair = symbol.partition("_")[0]
    for quote in QUOTES:
        if pair.endswith(quote) and pair != quote:
            return quote
    if pair.endswith("USD") and pair != "USD":
        return pair.removesuffix("USD")
    raise SymbolError("has no quote currency that is known")


def _binance(symbol: str, found: object) -> Market:
    rows: list[TierRow] = []
    ceiling: Decimal | None = ZERO
    for k, row in enumerate(tables(table(found, symbol), "brackets")):
        if number(k, row, "bracket") != k + 1:
            raise TierError(k, "bracket", row["bracket"], f"is out of order, must be {k + 1}")
        unit = "qty" if "qtyFloor" in row else "notional"
        floor = number(k, row, f"{unit}Floor")
        joined(k, floor, ceiling, f"{unit}Floor", f"{unit}Cap")
        ceiling = capped(k, number(k, row, f"{unit}Cap"), floor, f"{unit}Cap", f"{unit}Floor")
        rows.append(
            TierRow(
                floor,
                number(k, row, "maintMarginRatio"),
                None,
                number(k, row, "initialLeverage"),
                number(k, row, "cum"),
            )
        )
    return Market(symbol, _binance_settle(symbol), tuple(rows), ceiling)


BINANCE: Final = Layout(
    name="binance",
    what="Binance GET /fapi/v1/leverageBracket, /dapi/v2/leverageBracket",
    is_it=lambda document: _has(document, ("response",), "symbol", "brackets"),
    markets=lambda document: _listed(_inside(document, "response"), "symbol"),
    read=_binance,
    keys={
        "floor": "notionalFloor",
        "initial_rate": "initialLeverage (1 / initialLeverage is the initial rate)",
        "maintenance_rate": "maintMarginRatio",
        "deduction": "cum",
        "max_leverage": "initialLeverage",
    },
    tier_mode="marginal",
    mode_source="the deductions cum that the venue prints",
)


# Phemex ----------------------------------------------------------------------------------------


def _phemex_markets(document: object) -> Mapping[str, object]:
    data = _inside(document, "response", "data")
    if not isinstance(data, dict):
        raise ValueError("must have riskLimits and products")
    products = _listed(data.get("products"), "symbol")
    limits = _listed(data.get("riskLimits"), "symbol")
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
        isinstance(data := _inside(document, "response", "data"), dict)
        and {"riskLimits", "products"} <= set(data)
    ),
    markets=_phemex_markets,
    read=_phemex,
    keys={"initial_rate": "initialMarginEr", "maintenance_rate": "maintenanceMarginEr"},
)


# AscendEX --------------------------------------------------------------------------------------


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
    is_it=lambda document: _has(document, ("response", "data"), "symbol", "marginRequirements"),
    markets=lambda document: _listed(_inside(document, "response", "data"), "symbol"),
    read=_ascendex,
    keys={
        "floor": "positionNotionalLowerBound",
        "initial_rate": "initialMarginRate",
        "maintenance_rate": "maintenanceMarginRate",
    },
)


# Kraken Futures --------------------------------------------------------------------------------


def _kraken_markets(document: object) -> Mapping[str, object]:
    found = _listed(_inside(document, "response", "instruments"), "symbol")
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
    kind = _kind(is_inverse=is_inverse, is_dated=expiry is not None)
    steps = Steps(kind, figure(market, "tickSize"), size, expiry=expiry)
    return Market(symbol.upper(), settle, by_floor(rows), steps=steps)


KRAKEN: Final = Layout(
    name="kraken",
    what="Kraken Futures GET /derivatives/api/v3/instruments",
    is_it=lambda document: _has(document, ("response", "instruments"), "symbol", "tradeable"),
    markets=_kraken_markets,
    read=_kraken,
    keys={"initial_rate": "initialMargin", "maintenance_rate": "maintenanceMargin"},
    tier_key="quantity",
)


# BitMEX ----------------------------------------------------------------------------------------

# The venue's names of its currencies: symbol and decimals.
BITMEX_CURRENCIES: Final = {"XBt": ("XBT", 8), "USDt": ("USDT", 6), "Gwei": ("ETH", 9)}


def _bitmex_markets(document: object) -> Mapping[str, object]:
    found = _listed(_inside(document, "response"), "symbol")
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
    kind = _kind(is_inverse=is_inverse, is_dated=expiry is not None)
    if is_quanto and expiry is None:
        kind = QUANTO_PERPETUAL
    multiplier = ONE if is_inverse else figure(market, "multiplier") * minor
    steps = Steps(kind, figure(market, "tickSize"), figure(market, "lotSize"), multiplier, expiry)
    return Market(symbol, settle, rows, top, steps=steps)


BITMEX: Final = Layout(
    name="bitmex",
    what="BitMEX GET /api/v1/instrument/active",
    is_it=lambda document: _has(document, ("response",), "symbol", "settlCurrency"),
    markets=_bitmex_markets,
    read=_bitmex,
    keys={"initial_rate": "initMargin", "maintenance_rate": "maintMargin", "floor": "riskStep"},
    mode_source="bitmex.com/app/riskLimitsExamples: a limit holds for the whole position",
)


# Gate ------------------------------------------------------------------------------------------


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
    is_it=lambda document: _has(document, ("response",), "name", "risk_limit_step"),
    markets=lambda document: _listed(_inside(document, "response"), "name"),
    read=_gate,
    keys={
        "initial_rate": "1 / leverage_max",
        "maintenance_rate": "maintenance_rate",
        "floor": "risk_limit_step",
    },
)


# OKX -------------------------------------------------------------------------------------------


def _okx_markets(document: object) -> Mapping[str, object]:
    found = _listed(_inside(document, "response", "data"), "instId")
    return {name: row for name, row in found.items() if isinstance(row, dict) and row.get("lever")}


def _okx(symbol: str, found: object) -> Market:
    market = table(found, symbol)
    is_inverse = text(market, "ctType") == "inverse"
    expiry = milliseconds(market, "expTime") if market.get("expTime") else None
    kind = _kind(is_inverse=is_inverse, is_dated=expiry is not None)
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
    is_it=lambda document: _has(document, ("response", "data"), "instId", "lever"),
    markets=_okx_markets,
    read=_okx,
    keys={"max_leverage": "lever"},
    tier_mode="marginal",
    has_maintenance=False,
)


# Delta -----------------------------------------------------------------------------------------


def _delta_markets(document: object) -> Mapping[str, object]:
    found = _listed(_inside(document, "response", "result"), "symbol")
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
        kind = _kind(is_inverse=is_inverse, is_dated=expiry is not None)
        value = figure(market, "contract_value")
        steps = Steps(kind, figure(market, "tick_size"), value, expiry=expiry)
    return Market(symbol, settle, (row,), figure(market, "max_leverage_notional"), steps=steps)


DELTA: Final = Layout(
    name="delta",
    what="Delta Exchange GET /v2/products",
    is_it=lambda document: _has(document, ("response", "result"), "symbol", "initial_margin"),
    markets=_delta_markets,
    read=_delta,
    keys={"initial_rate": "initial_margin", "maintenance_rate": "maintenance_margin"},
)


# dYdX ------------------------------------------------------------------------------------------


def _dydx_v3_markets(document: object) -> Mapping[str, object]:
    found = _inside(document, "response", "markets")
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
    is_it=lambda document: _has(document, ("response", "markets"), "incrementalPositionSize"),
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
    root = _inside(document, "app_state") if isinstance(document, dict) else None
    perpetuals = root.get("perpetuals") if isinstance(root, dict) else None
    if not isinstance(root, dict) or not isinstance(perpetuals, dict):
        raise ValueError("must have perpetuals and their liquidity_tiers")
    tiers = {
        str(row.get("id")): row
        for row in _list(perpetuals.get("liquidity_tiers"))
        if isinstance(row, dict)
    }
    pairs: dict[str, object] = {}
    for row in _list(_inside(root.get("clob"), "clob_pairs")):
        if isinstance(row, dict) and isinstance(row.get("perpetual_clob_metadata"), dict):
            pairs[str(row["perpetual_clob_metadata"].get("perpetual_id"))] = row
    found = [_inside(row, "params") for row in _list(perpetuals.get("perpetuals"))]
    return {
        symbol: {
            "params": row,
            "tier": tiers.get(str(row.get("liquidity_tier"))) if isinstance(row, dict) else None,
            "pair": pairs.get(str(row.get("id"))) if isinstance(row, dict) else None,
        }
        for symbol, row in _listed(found, "ticker").items()
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
        isinstance(root := _inside(document, "app_state"), dict)
        and isinstance(root.get("perpetuals"), dict)
        and "liquidity_tiers" in root["perpetuals"]
    ),
    markets=_dydx_v4_markets,
    read=_dydx_v4,
    tier_mode="marginal",
)


# BingX -----------------------------------------------------------------------------------------


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
    is_it=lambda document: _has(document, (), "leverage", "risk"),
    markets=_ccxt_markets,
    read=_bingx,
    keys={"floor": "limit", "max_leverage": "max_leverage"},
    tier_mode="marginal",
    has_maintenance=False,
)


# Hyperliquid -----------------------------------------------------------------------------------


def _hyperliquid_markets(document: object) -> Mapping[str, object]:
    meta = _inside(document, "response", "verbatim")
    if not isinstance(meta, dict):
        raise ValueError("must have universe and marginTables")
    pairs = meta.get("marginTables")
    tables_by_id = {
        str(pair[0]): pair[1] for pair in _list(pairs) if isinstance(pair, list) and len(pair) == 2
    }
    return {
        name: {"asset": row, "table": tables_by_id.get(str(row.get("marginTableId")))}
        for name, row in _listed(meta.get("universe"), "name").items()
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
        isinstance(meta := _inside(document, "response", "verbatim"), dict)
        and {"universe", "marginTables"} <= set(meta)
    ),
    markets=_hyperliquid_markets,
    read=_hyperliquid,
    keys={"floor": "lowerBound", "max_leverage": "maxLeverage"},
    tier_mode="marginal",
    mode_source="29 live positions of freqtrade@3b1fb5af: maintenance is continuous",
)

LAYOUTS: Final[Mapping[str, Layout]] = {
    layout.name: layout
    for layout in (
        ASCENDEX,
        BINANCE,
        BINGX,
        BITMEX,
        CCXT,
        DELTA,
        DYDX_V3,
        DYDX_V4,
        GATE,
        HYPERLIQUID,
        KRAKEN,
        OKX,
        PHEMEX,
    )
}


def detect(document: object) -> Layout | None:
    """Return the only layout that a document can be; None if there is none, or several."""
    found = [layout for layout in LAYOUTS.values() if layout.is_it(document)]
    return found[0] if len(found) == 1 else None
