"""Which rules a venue chose, and in which units it quotes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from riskd import margin
from riskd.margin import OptionRule, Rule
from riskd.margin.rule import Contract


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionVenue:
    """A venue's rule for options, and how its rows are read."""

    rule: OptionRule
    # Rules of single coins that differ.
    coins: Mapping[str, OptionRule] = field(default_factory=dict)
    # The amount out of the money is measured against the forward, not the index.
    forward_first: bool = False
    # Names of the rule's rates; venues disagree about which is a and which is b.
    initial_rate_names: tuple[str, ...] = ("a", "initialMargin", "im_factor", "im_rate")
    initial_floor_names: tuple[str, ...] = ("b", "minInitialMargin", "im_min_factor", "im_floor")
    maintenance_rate_names: tuple[str, ...] = ("c", "maintenanceMargin", "mm_factor", "mm_rate")
    # Taker fee of the index, and the most of it as a part of the option's price.
    fee_rate: float | None = None
    fee_price_part: float = 0.125
    # What the venue calls initial margin of a short is that of the order: with fee, less premium.
    order_is_initial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """A venue's rule records. None: it has none, or none is known."""

    # Of linear and inverse contracts: the model says which.
    isolated: Rule | None = None
    # Where a pool's prices are not printed like an isolated position's.
    cross: Rule | None = None
    # Where inverse contracts have rules of their own.
    inverse: Rule | None = None
    inverse_cross: Rule | None = None
    option: OptionVenue | None = None
    # Modules adapters_<domain> that know the venue's rules; option pricing is the same everywhere.
    domains: tuple[str, ...] = ()
    # A maintenance rate that a row does not state is this part of 1 / max_leverage.
    maintenance_of_initial: Decimal | None = None
    # The price step of a pool's inverse positions where a row states none.
    inverse_cross_tick: Decimal | None = None
    # A fee is rounded up to this step of the settlement currency.
    fee_step: Decimal | None = None
    # The value of one inverse contract is a whole number of these.
    value_step: Decimal | None = None
    # What is exactly at a tier's floor is said to be of that tier, not of the one below.
    floor_is_in: bool = False
    # vega and theta without a unit in their names are per 0.01 and per day; rho is not comparable.
    greeks_per_point: bool = False
    # Gamma and theta of the last day are not compared: the venue scales at least one of them.
    scales_last_day: bool = False

    def rule(self, contract: Contract, mode: str) -> Rule | None:
        """Return the record of linear or inverse contracts, isolated or cross."""
        inverse = contract == "inverse"
        found = (self.inverse if inverse else None) or self.isolated
        if mode == "cross":
            found = (self.inverse_cross if inverse else None) or self.cross or found
        return None if found is None else replace(found, contract=contract)


_FUTURES = ("futures",)
_BOTH = ("futures", "options")
_OPTIONS = ("options",)

# Taker fee on the value at the liquidation price; tiers by contracts, of the whole position.
_OKX = Rule(fee_in_liquidation="at_liquidation", tier_mode="whole", tier_key="quantity")

# Bybit to 2025: maintenance on the entry value, the closing fee kept beside both requirements.
_BYBIT = Rule(
    initial_basis="entry",
    maintenance_basis="entry",
    fee_in_liquidation="reserved",
    fee_in_margin="close_at_bankruptcy",
    liquidation_rounding="against_account",
    bankruptcy_rounding="against_account",
)
# Since 2025: maintenance on the value at L, the fee at bankruptcy taken from the margin.
_BYBIT_2025 = replace(
    _BYBIT,
    wallet="margin_and_fee",
    maintenance_basis="liquidation",
    fee_in_liquidation="at_bankruptcy",
    fee_in_bankruptcy=True,
)
_BYBIT_POOL = replace(
    _BYBIT,
    fee_in_liquidation="at_bankruptcy",
    fee_in_bankruptcy=True,
    bankruptcy_rounding="exact",
)
# Margin and maintenance with the fee of closing at bankruptcy, all of the entry value.
_BITMEX = Rule(
    wallet="margin_and_fee",
    initial_basis="entry",
    maintenance_basis="entry",
    fee_in_liquidation="reserved",
    tier_mode="whole",
    liquidation_rounding="against_account",
    bankruptcy_rounding="for_account",
)
_FEE_AT_LIQUIDATION = Rule(fee_in_liquidation="at_liquidation")

# The venue's a is the floor, its b what the amount out of the money is taken off.
_OKX_OPTION = OptionVenue(
    rule=margin.OKX,
    forward_first=True,
    initial_rate_names=("b", "im_rate"),
    initial_floor_names=("a", "im_floor"),
)

# By the venue's name or its beginning. The rows are reproduced with these records; the source says
# where a record comes from. A venue that is not here has no rule.
VENUES: Mapping[str, Venue] = {
    # The venue's FAQ on liquidation prices, as in freqtrade@c9ae5e1e
    # tests/exchange/test_binance.py; the tier at that price: positionRisk responses of 2024-10-24.
    # isolatedMargin has the unrealised profit in it. COIN-M: its FAQ on leverage and margin.
    "Binance": Venue(
        isolated=Rule(wallet="margin_and_profit"),
        option=OptionVenue(rule=margin.BINANCE_HYPOTHESIS),
        domains=_BOTH,
    ),
    # tests/exchange/test_binance.py looks tiers up at their floors.
    "Binance USD-M (via freqtrade": Venue(
        isolated=Rule(wallet="margin_and_profit"), domains=_FUTURES, floor_is_in=True
    ),
    # Live position responses: mgnRatio = equity / (maintenance + taker fee), liqPx; tiers as in
    # freqtrade@c9ae5e1e tests/exchange/test_okx.py. Isolated prices are printed one tick early.
    "OKX": Venue(
        isolated=replace(_OKX, extra_ticks=1),
        cross=_OKX,
        option=_OKX_OPTION,
        domains=_BOTH,
    ),
    "OKX (2020": Venue(option=replace(_OKX_OPTION, rule=margin.OKX_2020), domains=_OPTIONS),
    # freqtrade@c9ae5e1e tests/exchange/test_exchange.py
    "Gate": Venue(
        isolated=_FEE_AT_LIQUIDATION,
        option=OptionVenue(
            rule=margin.GATE,
            initial_rate_names=("r2", "initial_margin_ratio_2", "a"),
            initial_floor_names=("r1", "initial_margin_ratio_1", "b"),
        ),
        domains=_BOTH,
    ),
    # Position responses of API v2 and v3. A pool has no fee beside the position, it leaves room for
    # that of closing at its end: help.bybit.com/hc/en-us/articles/360039261334. BTCUSD's tick is
    # 0.5, one satoshi the step of a fee. Tickers' Greeks: units seen in captures. Inverse contracts
    # are those of the unified account, as in "Bybit (2026".
    "Bybit": Venue(
        isolated=_BYBIT,
        inverse=_BYBIT_2025,
        inverse_cross=_BYBIT_POOL,
        inverse_cross_tick=Decimal("0.5"),
        fee_step=Decimal("1e-8"),
        option=OptionVenue(rule=margin.BYBIT, fee_rate=0.0003, order_is_initial=True),
        domains=_BOTH,
        greeks_per_point=True,
        scales_last_day=True,
    ),
    "Bybit (legacy": Venue(
        isolated=_BYBIT,
        inverse_cross=_BYBIT_POOL,
        inverse_cross_tick=Decimal("0.5"),
        fee_step=Decimal("1e-8"),
        domains=_FUTURES,
    ),
    # bybit.com/en/help-center: "Liquidation Price Calculation under Isolated Mode (UTA)", 2026.
    "Bybit (2026": Venue(isolated=_BYBIT_2025, fee_step=Decimal("1e-8"), domains=_FUTURES),
    # A position report of 2026: the fee in the margin, at L and at bankruptcy.
    "PointPay": Venue(
        isolated=replace(_BYBIT_2025, fee_in_liquidation="at_liquidation"),
        fee_step=Decimal("1e-8"),
        domains=_FUTURES,
    ),
    # Units of the tickers' Greeks, seen in captures. Below one day theta is not the formula's.
    "Deribit": Venue(
        isolated=Rule(),
        option=OptionVenue(rule=margin.DERIBIT, fee_rate=0.0003),
        domains=_BOTH,
        greeks_per_point=True,
        scales_last_day=True,
    ),
    # Half of the initial rate at the asset's largest leverage: freqtrade@3b1fb5af
    # tests/exchange/test_hyperliquid.py. marginUsed has the unrealised profit in it.
    "Hyperliquid": Venue(
        isolated=Rule(wallet="margin_and_profit", tier_price="mark"),
        maintenance_of_initial=Decimal("0.5"),
        domains=_FUTURES,
    ),
    # support.kraken.com/hc/en-us/articles/360022835671
    "Kraken": Venue(isolated=Rule(), domains=_FUTURES),
    # bitmex.com/app/isolatedMarginExamples, and position responses of 2018 and 2019, which print
    # both prices from a contract's value in whole satoshi.
    "BitMEX": Venue(
        isolated=replace(_BITMEX, bankruptcy_rounding="against_account"),
        value_step=Decimal("1e-8"),
        domains=_FUTURES,
    ),
    # kucoin.com/support/4408061803033 and position responses: to April 2025.
    "KuCoin": Venue(isolated=_BITMEX, domains=_FUTURES),
    # kucoin.com/support/26694703491737: maintenance on the mark, a liquidation fee at L.
    "KuCoin (2025": Venue(isolated=_FEE_AT_LIQUIDATION, domains=_FUTURES),
    # phemex.com/help-center/liq-price-for-USDTM
    "Phemex": Venue(isolated=_FEE_AT_LIQUIDATION, domains=_FUTURES),
    # blog.mexc.fm/liquidation-in-futures-2
    "MEXC": Venue(
        isolated=Rule(initial_basis="entry", maintenance_basis="entry"), domains=_FUTURES
    ),
    # 42 position reports of 2022: taker fee on the value at L, margin of the entry value;
    # maintenance shown with the fee.
    "Bitget": Venue(
        isolated=replace(
            _FEE_AT_LIQUIDATION, initial_basis="entry", fee_in_margin="taker_in_maintenance"
        ),
        domains=_FUTURES,
    ),
    # Asset responses: the equity of the account; the worst close price leaves room for the taker
    # fee besides.
    "edgeX": Venue(
        isolated=Rule(
            wallet="equity",
            liquidation_rounding="for_account",
            bankruptcy_rounding="for_account",
        ),
        domains=_FUTURES,
    ),
    # A position margin with the unrealised profit in it. (The venue's page has numerator and
    # denominator of the inverse formula the wrong way round.)
    "CoinEx": Venue(isolated=Rule(wallet="margin_and_profit"), domains=_FUTURES),
    # crates/model/src/accounts/margin.rs@a95c8042 of nautechsystems/nautilus_trader
    "generic": Venue(isolated=Rule(), domains=_FUTURES),
    # Sources of the rules for options are beside them in riskd/margin/options.py, those of the
    # families below at the top of their modules of riskd/margin.
    "bit.com": Venue(
        option=OptionVenue(rule=margin.BIT_COM, coins=margin.BIT_COM_COINS, fee_rate=0.0003),
        domains=_OPTIONS,
    ),
    "Aevo": Venue(option=OptionVenue(rule=margin.AEVO), domains=_OPTIONS),
    "Derive": Venue(option=OptionVenue(rule=margin.DERIVE), domains=_OPTIONS),
    "US": Venue(option=OptionVenue(rule=margin.REG_T), domains=_OPTIONS),
    "tastyworks": Venue(option=OptionVenue(rule=margin.REG_T_WITH_MINIMUM), domains=_OPTIONS),
    "Opyn": Venue(domains=("vaults",)),
    "Orderly": Venue(domains=("power",)),
    "dYdX": Venue(domains=("open_interest",)),
    "Vega": Venue(domains=("risk_factor",)),
    "Drift": Venue(domains=("weights",)),
}
# Other beginnings of venues' names.
_ALIASES: Mapping[str, str] = {
    "Binance (via freqtrade": "Binance USD-M (via freqtrade",
    "Bybit-style": "PointPay",
    "Bybit style": "PointPay",
    "Bybit (PointPay": "PointPay",
    "Bybit 2025": "PointPay",
    "Bybit 2026": "Bybit (2026",
    "KuCoin 2025": "KuCoin (2025",
    "KuCoin since": "KuCoin (2025",
    "KuCoin (since": "KuCoin (2025",
    "KuCoin (May": "KuCoin (2025",
    "Lyra": "Derive",
    "Reg": "US",
    "CBOE": "US",
    "FINRA": "US",
    "fincyclopedia": "US",
    "tastytrade": "tastyworks",
    "nautilus_trader": "generic",
    "nautilus": "generic",
    "bitcom": "bit.com",
}
_ANY_VENUE = Venue()


def venue_of(name: str) -> Venue:
    """Return the record whose key is the longest beginning of the name that ends with a word."""
    words = name.lower()
    keys = [
        key
        for key in (*VENUES, *_ALIASES)
        if words.startswith(key.lower()) and not words[len(key) : len(key) + 1].isalnum()
    ]
    if not keys:
        return _ANY_VENUE
    longest = max(keys, key=len)
    return VENUES[_ALIASES.get(longest, longest)]
