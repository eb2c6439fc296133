"""Which rules a venue chose, and in which units it quotes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Venue:
    """How a venue chooses among the rules, and in which units it quotes Greeks."""

    # Of the domain futures, the models in which the library's rule is the venue's.
    models: frozenset[str] = frozenset()
    # Modules adapters_<domain> that know the venue's rules; option pricing is the same everywhere.
    domains: tuple[str, ...] = ("futures",)
    # The taker fee on the notional at the liquidation price is part of the requirement.
    fee_in_liquidation: bool = False
    # Tiers count the position's size, and the whole position has the rate of its tier.
    tiers_by_size: bool = False
    # A maintenance rate that a row does not state is this part of 1 / max_leverage.
    maintenance_of_initial: Decimal | None = None
    # A wallet called isolated_margin has the unrealised profit in it.
    margin_includes_pnl: bool = False
    # The isolated price of a long is printed one tick above the formula's.
    isolated_long_adds_tick: bool = False
    # vega and theta without a unit in their names are per 0.01 and per day; rho is not comparable.
    greeks_per_point: bool = False
    # Gamma and theta of the last day are not compared: the venue scales at least one of them.
    scales_last_day: bool = False


_TIERS = frozenset({"maintenance_tier", "maintenance_tier_table", "max_leverage_for_stake"})
_LIQUIDATION = frozenset({"isolated_liquidation_linear", "cross_liquidation"})
_MARGIN = frozenset({"margin_linear"})

# By the venue's name or its beginning. A venue that is not here, or a model that is not among its
# models, follows a rule of another family: maintenance on the entry value, rates as functions of
# size, coin-settled contracts.
VENUES: Mapping[str, Venue] = {
    # The venue's FAQ on liquidation prices, as in freqtrade@c9ae5e1e
    # tests/exchange/test_binance.py; the tier at that price: positionRisk responses of 2024-10-24.
    "Binance USD-M": Venue(_TIERS | _LIQUIDATION | _MARGIN, margin_includes_pnl=True),
    # The venue's FAQ on COIN-M leverage and margin: brackets in coin, the same table.
    "Binance COIN-M": Venue(frozenset({"maintenance_tier_table"})),
    # Live position responses: mgnRatio = equity / (maintenance + taker fee), liqPx; tiers as in
    # freqtrade@c9ae5e1e tests/exchange/test_okx.py. Three isolated longs were one tick higher.
    "OKX": Venue(
        frozenset({"maintenance_tier"}) | _LIQUIDATION | _MARGIN,
        fee_in_liquidation=True,
        tiers_by_size=True,
        isolated_long_adds_tick=True,
    ),
    # freqtrade@c9ae5e1e tests/exchange/test_exchange.py
    "Gate": Venue(frozenset({"isolated_liquidation_linear"}), fee_in_liquidation=True),
    # phemex.com/help-center/liq-price-for-USDTM
    "Phemex": Venue(frozenset({"isolated_liquidation_linear"}), fee_in_liquidation=True),
    # Half of the initial rate at the asset's largest leverage: freqtrade@3b1fb5af
    # tests/exchange/test_hyperliquid.py.
    "Hyperliquid": Venue(_TIERS | _LIQUIDATION | _MARGIN, maintenance_of_initial=Decimal("0.5")),
    # kucoin.com/support/26694703491737: maintenance on the notional. Its liquidation price is of
    # another family.
    "KuCoin": Venue(frozenset({"maintenance_tier"})),
    # Units of the tickers' Greeks, seen in captures. Below one day Deribit's theta, and Bybit's
    # gamma and theta, are not those of the formula.
    "Deribit": Venue(greeks_per_point=True, scales_last_day=True),
    "Bybit": Venue(greeks_per_point=True, scales_last_day=True),
}
_ANY_VENUE = Venue()


def venue_of(name: str) -> Venue:
    """Return the record whose key is the longest beginning of the name that ends with a word."""
    keys = [
        key
        for key in VENUES
        if name.startswith(key) and not name[len(key) : len(key) + 1].isalnum()
    ]
    return VENUES[max(keys, key=len)] if keys else _ANY_VENUE
