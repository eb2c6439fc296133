"""Weights by size, worst fills, isolated and cross buckets, sizes of liquidations.

Rows state numbers as decimals, or as whole numbers of the unit at the end of a name (_1e4, _1e6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from riskd import margin
from riskd.conform.inputs import Inputs, Outputs, find, mapping, need, number, real
from riskd.conform.venues import Venue
from riskd.margin import Bucket
from riskd.margin.decimals import units

_SIZE_PLACES = 9
_MONEY_PLACES = 6
_WEIGHT_PLACES = 4
_FACTOR_PLACES = 6
_QUOTE = ("usdc", "quote_deposit", "deposit")
_OWN_RATIO = (
    "user_custom_margin_ratio",
    "user_custom_ratio",
    "user_max_margin_ratio",
    "custom_margin_ratio",
    "custom_ratio",
    "max_margin_ratio",
)
_OVERRIDE = ("margin_ratio_override", "context_override", "context_margin_ratio")
_BASE_WEIGHT = ("base_weight", "weight", "asset_weight", "liability_weight")


def _units(inputs: Inputs, names: tuple[str, ...], places: int, default: int | None = None) -> int:
    """Return the first of the names in units of 10^-places, stated in them or as a decimal."""
    for name in names:
        for whole in (f"{name}_1e{places}", f"{name}_tokens_1e{places}"):
            if inputs.get(whole) is not None:
                return units(f"inputs.{whole}", need(inputs, (whole,)), 0)
        for plain in (name, f"{name}_usd", f"{name}_tokens"):
            if inputs.get(plain) is not None:
                return units(f"inputs.{plain}", need(inputs, (plain,)), places)
    if default is None:
        raise ValueError(f"inputs.{names[0]} is missing")
    return default


def _kind(inputs: Inputs) -> str:
    """Return initial, maintenance or fill: the requirement that a row asks for."""
    said = inputs.get("requirement", inputs.get("margin_type", "initial"))
    for kind in ("maintenance", "fill", "initial"):
        if isinstance(said, str) and said.lower().startswith(kind):
            return kind
    raise ValueError(f"inputs.requirement must be initial, fill or maintenance, got {said!r}")


def _base_weight(inputs: Inputs) -> int:
    """Return the base weight of the requirement: stated, or from the market's two."""
    if any(find(inputs, (name, f"{name}_1e4")) is not None for name in _BASE_WEIGHT):
        return _units(inputs, _BASE_WEIGHT, _WEIGHT_PLACES)
    initial = _units(inputs, ("initial_weight", "initial_asset_weight"), _WEIGHT_PLACES)
    kind = _kind(inputs)
    if kind == "initial":
        return initial
    names = ("maintenance_weight", "maint_weight", "maintenance_asset_weight")
    maintenance = _units(inputs, names, _WEIGHT_PLACES)
    if kind == "maintenance":
        return maintenance
    return int(margin.fill_weight(initial, maintenance))


def _weight(of: Callable[[int, int, int], Any]) -> Callable[[Inputs, Venue], Outputs]:
    def adapter(inputs: Inputs, _venue: Venue) -> Outputs:
        def weight() -> Any:
            return of(
                _units(inputs, ("size",), _SIZE_PLACES),
                _units(inputs, ("imf_factor", "imf"), _FACTOR_PLACES, 0),
                _base_weight(inputs),
            )

        return {"weight_1e4": weight, "weight": lambda: Decimal(weight()).scaleb(-_WEIGHT_PLACES)}

    return adapter


def pool_scaled_weight(inputs: Inputs, _venue: Venue) -> Outputs:
    def weight() -> Any:
        value = margin.token_value(
            _units(inputs, ("pool_deposits", "pool_tokens"), _SIZE_PLACES),
            _units(inputs, ("oracle_price", "price"), _MONEY_PLACES),
            _SIZE_PLACES,
        )
        start = _units(inputs, ("scale_start", "scale_initial_asset_weight_start"), _MONEY_PLACES)
        return margin.pool_scaled_weight(_base_weight(inputs), value, start)

    return {"weight_1e4": weight, "weight": lambda: Decimal(weight()).scaleb(-_WEIGHT_PLACES)}


def _custom_ratio(inputs: Inputs) -> int:
    """Return the account's own ratio, which is of initial margin, or one set over both."""
    override = _units(inputs, _OVERRIDE, _WEIGHT_PLACES, 0)
    if _kind(inputs) != "initial":
        return override
    return max(override, _units(inputs, _OWN_RATIO, _WEIGHT_PLACES, 0))


def _assets(inputs: Inputs) -> list[str]:
    """Return the assets beside the quote currency, by the names of markets and balances."""
    found = {name.removesuffix("_market") for name in inputs if name.endswith("_market")}
    found |= {name.removesuffix("_borrow") for name in inputs if name.endswith("_borrow")}
    return sorted(found - {"usdc"})


def _quote(inputs: Inputs) -> Bucket:
    """Return the bucket of the quote currency, which weighs in full."""
    tokens = _units(inputs, _QUOTE, _MONEY_PLACES, 0)
    borrowed = _units(inputs, ("usdc_borrow",), _MONEY_PLACES, 0)
    buckets = [
        margin.spot_bucket(amount, 10**_MONEY_PLACES, decimals=_MONEY_PLACES)
        for amount in (tokens, -borrowed)
    ]
    return buckets[0] + buckets[1]


def _asset(inputs: Inputs, market: Inputs, asset: str, ratio: int) -> Bucket:
    """Return the bucket of one asset, with its working orders."""
    kind = "maint" if _kind(inputs) == "maintenance" else "initial"
    names = {
        side: tuple(
            f"{part}{word}_{side}_weight"
            for part in (f"{asset}_", "")
            for word in ((kind, "maintenance") if kind == "maint" else (kind,))
        )
        for side in ("asset", "liability")
    }
    both = {**inputs, **market}
    weights = [
        _units(both, names[side], _WEIGHT_PLACES, margin.WEIGHT_ONE)
        for side in ("asset", "liability")
    ]
    amounts = [
        _units(inputs, (name,), _SIZE_PLACES, 0)
        for name in (asset, f"{asset}_borrow", f"open_bids_{asset}", f"open_asks_{asset}")
    ]
    return margin.spot_bucket(
        amounts[0] if amounts[0] else -amounts[1],
        _units(both, ("price", f"{asset}_price", "oracle_price"), _MONEY_PLACES),
        *weights,
        bids=amounts[2],
        asks=abs(amounts[3]),
        open_orders=int(real(inputs, (f"open_orders_{asset}", "open_orders"), 0)),
        imf_1e6=_units(both, ("imf_factor", "imf"), _FACTOR_PLACES, 0),
        custom_ratio_1e4=ratio,
    )


def _perp(inputs: Inputs, market: Inputs, ratio: int) -> Bucket:
    """Return the bucket of a perpetual: base and what it cost.

    Without a price of its own it has that of the asset whose market the row states.
    """
    both = {**market, **inputs}
    for name, value in market.items():
        if name.endswith("_market"):
            both.setdefault("oracle_price", mapping(f"inputs.{name}", value).get("price"))
    kinds = ("maint", "maintenance") if _kind(market) == "maintenance" else ("initial",)
    ratios = [
        f"{part}{name}"
        for part in ("perp_", "")
        for kind in kinds
        for name in (f"{kind}_ratio", f"{kind}_margin_ratio", f"margin_ratio_{kind}")
    ]
    return margin.perp_bucket(
        _units(inputs, ("base", "perp_base", "perp_base_amount"), _SIZE_PLACES, 0),
        _units(inputs, ("quote", "perp_quote", "perp_quote_amount"), _MONEY_PLACES, 0),
        _units(both, ("perp_price", "price", "oracle_price"), _MONEY_PLACES),
        _units(both, (*ratios, "margin_ratio"), _WEIGHT_PLACES),
        bids_1e9=_units(inputs, ("open_bids",), _SIZE_PLACES, 0),
        asks_1e9=abs(_units(inputs, ("open_asks",), _SIZE_PLACES, 0)),
        imf_1e6=_units(both, ("perp_imf_factor",), _FACTOR_PLACES, 0),
        custom_ratio_1e4=ratio,
    )


def _cross(inputs: Inputs, market: Inputs) -> Bucket:
    """Return the bucket of a cross account: the sum of its balances and perpetuals."""
    ratio = _custom_ratio(market)
    bucket = _quote(inputs)
    for asset in _assets(inputs):
        own = mapping(f"inputs.{asset}_market", inputs.get(f"{asset}_market") or {})
        bucket += _asset({**market, **inputs}, own, asset, ratio)
    perp = inputs.get("perp")
    if perp is not None:
        bucket += _perp(mapping("inputs.perp", perp), {**market, **inputs}, ratio)
    elif find(inputs, ("perp_base", "perp_base_amount")) is not None:
        bucket += _perp(inputs, market, ratio)
    return bucket


def _named(bucket: Callable[[], Bucket], part: str, buffer: int) -> Outputs:
    """Return a bucket's figures in quote currency; a buffer is in those that a row states with."""

    def money(amount: Callable[[Bucket], Any]) -> Callable[[], Decimal]:
        return lambda: Decimal(amount(bucket().with_buffer(buffer))).scaleb(-_MONEY_PLACES)

    figures = {
        "requirement": money(lambda found: found.requirement_1e6),
        "collateral": money(lambda found: found.collateral_1e6),
        "free_collateral": money(lambda found: found.net_1e6),
    }
    ends = ("", "_usd", "_plus_buffer", "_with_buffer")
    return {f"{part}{name}{end}": figure for name, figure in figures.items() for end in ends}


def _buffer(inputs: Inputs) -> int:
    names = ("buffer", "margin_buffer")
    stated = number(inputs, names)
    # More than all of the liabilities is no buffer: it is stated in units of 1e-4, as on chain.
    if stated is not None and stated > 1:
        return units(f"inputs.{names[0]}", stated, 0)
    return _units(inputs, names, _WEIGHT_PLACES, 0)


def cross_margin_requirement(inputs: Inputs, _venue: Venue) -> Outputs:
    def bucket() -> Bucket:
        return _cross(inputs, inputs)

    return _named(bucket, "margin_", _buffer(inputs)) | _named(bucket, "total_", _buffer(inputs))


def isolated_vs_cross(inputs: Inputs, _venue: Venue) -> Outputs:
    def cross() -> Bucket:
        return _cross(mapping("inputs.cross", inputs.get("cross")), inputs)

    def isolated() -> Bucket:
        own = mapping("inputs.isolated", inputs.get("isolated"))
        return _perp(own, inputs, _custom_ratio(inputs)) + _quote(own)

    buffer = _buffer(inputs)
    return _named(cross, "cross_", buffer) | _named(isolated, "isolated_", buffer)


def _amount(found: Any) -> Any:
    """Return an amount, None where none suffices."""
    return None if found < 0 else found


def liability_transfer(inputs: Inputs, _venue: Venue) -> Outputs:
    def transfer() -> Any:
        return margin.liability_to_cover_shortage(
            _units(inputs, ("margin_shortage", "shortage"), _MONEY_PLACES),
            _units(inputs, ("asset_weight",), _WEIGHT_PLACES),
            _units(inputs, ("asset_liq_multiplier",), _FACTOR_PLACES, 10**_FACTOR_PLACES),
            _units(inputs, ("liability_weight",), _WEIGHT_PLACES),
            _units(inputs, ("liability_liq_multiplier",), _FACTOR_PLACES, 10**_FACTOR_PLACES),
            units("inputs.liability_decimals", need(inputs, ("liability_decimals",)), 0),
            _units(inputs, ("liability_price", "price"), _MONEY_PLACES),
            _units(inputs, ("insurance_fee", "if_liquidation_fee"), _FACTOR_PLACES, 0),
        )

    return {"liability_amount": lambda: _amount(transfer())}


def liquidation_size(inputs: Inputs, _venue: Venue) -> Outputs:
    def size() -> Any:
        quote = number(inputs, ("quote_oracle_price",))
        return margin.base_to_cover_shortage(
            _units(inputs, ("margin_shortage", "shortage"), _MONEY_PLACES),
            _units(inputs, ("margin_ratio",), _WEIGHT_PLACES),
            _units(inputs, ("liquidator_fee", "liquidation_fee"), _FACTOR_PLACES, 0),
            _units(inputs, ("insurance_fee", "if_liquidation_fee"), _FACTOR_PLACES, 0),
            _units(inputs, ("oracle_price", "price"), _MONEY_PLACES),
            10**_MONEY_PLACES if quote is None else units("quote", quote, _MONEY_PLACES),
        )

    return {"base_amount_1e9": lambda: _amount(size()), "base_amount": lambda: _amount(size())}


MODELS: Mapping[str, Callable[[Inputs, Venue], Outputs]] = {
    "collateral_asset_weight": _weight(margin.asset_weight),
    "collateral_liability_weight": _weight(margin.liability_weight),
    "collateral_asset_weight_pool_scaled": pool_scaled_weight,
    "cross_margin_requirement": cross_margin_requirement,
    "isolated_vs_cross_margin": isolated_vs_cross,
    "liability_transfer_to_cover_shortage": liability_transfer,
    "liquidation_size_to_cover_shortage": liquidation_size,
}
