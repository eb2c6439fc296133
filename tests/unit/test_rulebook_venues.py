"""A venue's figures come out of its rulebook and the library: no parameter is in the tests.

Positions and expected numbers are those of the venue's own pages and reports; each test names them.
"""

from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any, Literal

import pytest

from riskd.conform.venues import venue_of
from riskd.margin import (
    Rule,
    TierSchedule,
    bankruptcy_price_of,
    isolated_order_margin,
    liquidation_price_of,
    margin_levels,
    max_loss_at_expiry,
    naked_option_margin,
    option_margin,
    rates_of,
    requirement_of,
)
from riskd.margin.positions import Position
from riskd.rulebooks import Rulebook, load, names
from riskd.rulebooks.library import (
    level_factors,
    maintenance,
    margin_schedule,
    option_rule,
    upper_bounds,
)
from riskd.rulebooks.schema import VenueRule


def venue_rule(book: Rulebook) -> VenueRule:
    assert book.rule is not None
    return book.rule


def prices(name: str, schedule: str, mode: str = "isolated", **figures: Any) -> list[str]:
    """Return the liquidation and the bankruptcy price of a position under a rulebook."""
    book = load(name)
    rule = venue_rule(book).of(mode)
    if "isolated_wallet" in figures:
        # The venue prints the margin with its profit; this figure is without.
        rule = replace(rule, wallet="margin")
        figures["wallet"] = figures.pop("isolated_wallet")
    position = Position.of(**figures)
    liquidation = liquidation_price_of(position, margin_schedule(book.schedule(schedule)), rule)
    return [str(liquidation), str(bankruptcy_price_of(position, rule))]


def requirement(name: str, schedule: str, **figures: Any) -> tuple[Decimal, Decimal]:
    """Return initial and maintenance margin of a position under a rulebook."""
    book = load(name)
    need = requirement_of(
        Position.of(**figures), margin_schedule(book.schedule(schedule)), venue_rule(book).of()
    )
    return need.initial, need.maintenance


def near(value: str, expected: float, tolerance: float) -> bool:
    return abs(float(value) - expected) <= tolerance


@pytest.mark.parametrize("name", names())
def test_each_number_of_a_packaged_rulebook_has_a_source(name: str) -> None:
    book = load(name)
    parts: list[Any] = [
        *book.assets,
        *book.schedules,
        *book.instruments,
        *book.option_rules,
        *book.collateral,
        *([book.rule] if book.rule else []),
        *([book.levels] if book.levels else []),
    ]
    for part in parts:
        assert part.provenance.source.strip()
        assert all(source.strip() for source in part.provenance.sources.values())


def test_binance_usdm_reproduces_position_reports() -> None:
    # 29.7345 USDT of BTCUSDT at 6x: maintMargin 0.118938, initialMargin 4.95575009.
    initial, maintenance_margin = requirement(
        "binance_usdm", "BTCUSDT", quantity="1", entry_price="29.7345", mark_price="29.7345",
        leverage=6,
    )  # fmt: skip
    assert maintenance_margin == Decimal("0.118938")
    assert near(str(initial), 4.95575009, 1e-7)
    # positionRisk of 2024-10-24: ETHUSDT, liquidationPrice 1623.77551366.
    liquidation, _ = prices(
        "binance_usdm", "ETHUSDT", quantity="5.737", entry_price="2614.8", mark_price="2546.86",
        isolated_wallet="5722.76987864",
    )  # fmt: skip
    assert near(liquidation, 1623.77551366, 1e-8)


def test_binance_coinm_has_the_amounts_of_its_example() -> None:
    tiers = load("binance_coinm").schedule("BTCUSD").tiers
    # The FAQ: 50 (5 % - 2.5 %) + 0.56 = 1.81 BTC.
    assert [tier.deduction for tier in tiers[3:5]] == [Decimal("0.56"), Decimal("1.81")]
    # And of 300 BTC the rate 12.5 %.
    assert tiers[load("binance_coinm").schedule("BTCUSD").tier_index(Decimal(300))] == tiers[6]
    assert tiers[6].maintenance_rate == Decimal("0.125")


def test_bybit_reproduces_position_reports() -> None:
    need = requirement(
        "bybit_linear", "XRPUSDT", quantity="1", entry_price="27.1125", mark_price="27.1125",
        leverage=10, fee_rate="0.0006",
    )  # fmt: skip
    assert need == (Decimal("2.72589075"), Decimal("0.28576575"))
    legacy = {"fee_rate": "0.00075", "tick": "0.5"}
    assert prices(
        "bybit_inverse", "BTCUSD", quantity=5, entry_price="7197.35137469",
        entry_value="0.0006947", wallet="0.0006947", leverage=1, **legacy,
    ) == ["3608", "3599"]  # fmt: skip
    # help.bybit.com 360039261334: cross, 0.5 BTC behind 10,000 USD at 8,000.
    liquidation, bankruptcy = prices(
        "bybit_inverse", "BTCUSD", "cross", quantity=10000, entry_price=8000, wallet="0.5", **legacy
    )
    assert float(liquidation) == 5739.5
    assert near(bankruptcy, 5718.57, 0.005)


def test_bybit_options_reproduce_the_help_page() -> None:
    rule = option_rule(load("bybit_options").option_rule("BTC"))
    assert option_margin(rule, "call", -1, 30000, 300, strike=31000).maintenance == 1260


def test_okx_has_tiers_by_contracts_that_jump() -> None:
    schedule = load("okx").schedule("ETH-USDT-SWAP")
    contract = load("okx").instrument("ETH-USDT-SWAP").lot_size
    rates = [
        schedule.tiers[schedule.tier_index(contract * contracts)].maintenance_rate
        for contracts in (2000, 2001, 4001, 8000)
    ]
    assert rates == [Decimal(rate) for rate in ("0.01", "0.015", "0.02", "0.02")]
    assert venue_rule(load("okx")).of("isolated").extra_ticks == 1
    assert venue_rule(load("okx")).of("cross").extra_ticks == 0


def test_okx_options_reproduce_the_example() -> None:
    book = load("okx").option_rule("BTC-USD")
    table = book.parameters["factor_tier"]
    assert isinstance(table, tuple)
    need = option_margin(
        option_rule(book), "call", -1, 5900, 0.0575, otm=100,
        tier_factor=float(table[0]["factor"]), multiplier=float(book.number("multiplier")),
    )  # fmt: skip
    assert round(float(need.initial), 5) == 0.01932


@pytest.mark.parametrize(
    ("schedule", "size", "initial", "maintenance_rate"),
    [
        ("BTC_USDC", 25, "0.02125", "0.01125"),
        ("BTC_USDC", 350, "0.0375", None),
        ("SOL_USDC", 25, "0.040125", "0.020125"),
        ("SOL_USDC", 6000, "0.07", None),
    ],
)
def test_deribit_rates_grow_with_the_size(
    schedule: str, size: int, initial: str, maintenance_rate: str | None
) -> None:
    rates = rates_of(margin_schedule(load("deribit").schedule(schedule)), size, 1)
    assert rates.initial_rate == Decimal(initial)
    assert maintenance_rate is None or rates.maintenance_rate == Decimal(maintenance_rate)


def test_deribit_options_reproduce_a_position_report() -> None:
    rule = option_rule(load("deribit").option_rule("ETH"))
    need = option_margin(rule, "call", -1, 1882.4, 0.017497423, strike=2100)
    assert near(str(need.initial), 0.117497423, 1e-12)
    assert near(str(need.maintenance), 0.092497423, 1e-12)


def test_hyperliquid_derives_maintenance_from_leverage() -> None:
    liquidation, _ = prices(
        "hyperliquid", "XYZ", quantity="0.5", entry_price=250, mark_price=250, wallet=25
    )
    assert near(liquidation, 210.5263157894737, 1e-12)
    assert load("hyperliquid").instrument("XYZ-AAPL").isolated_only
    tiers = load("hyperliquid").schedule("BTC").tiers
    # 40x to 150 million, then 20x: 1.25 % and 2.5 %, continuous.
    assert [(tier.maintenance_rate, tier.deduction) for tier in tiers] == [
        (Decimal("0.0125"), 0),
        (Decimal("0.025"), Decimal(1_875_000)),
    ]


def test_dydx_raises_the_initial_rate_with_the_open_interest() -> None:
    schedule = margin_schedule(load("dydx_v4").schedule("MID-CAP"))
    for interest, rate in ((0, "0.1"), (20e6, "0.1"), (35e6, "0.55"), (50e6, "1"), (9e9, "1")):
        rates = rates_of(schedule, 1, 1, open_interest=interest)
        assert (rates.initial_rate, rates.maintenance_rate) == (Decimal(rate), Decimal("0.05"))
    # By hand: floor(50000 x 600000 / 10^6) = 30000 ppm.
    large = rates_of(margin_schedule(load("dydx_v4").schedule("LARGE-CAP")), 1, 1)
    assert large.maintenance_rate == Decimal("0.03")


def test_kraken_reproduces_its_help_page() -> None:
    need = requirement(
        "kraken", "PI_XBTUSD", quantity=1000, entry_price=8000, mark_price=8000, wallet="0.01"
    )
    assert need == (Decimal("0.0025"), Decimal("0.00125"))
    liquidation, bankruptcy = prices(
        "kraken", "PI_XBTUSD", quantity=1000, entry_price=8000, mark_price=8000, wallet="0.01"
    )
    assert near(liquidation, 7481, 0.5)
    assert near(bankruptcy, 7407, 0.5)


def test_bitmex_has_the_rates_of_its_quanto_example() -> None:
    # 20 contracts at 1000 with 50x: initial 400, maintenance 200.
    book = load("bitmex")
    rule = replace(venue_rule(book).of(), fee_in_margin="none")
    position = Position.of(quantity=20, entry_price=1000, mark_price=1000, leverage=50)
    rates = replace(book.schedule("XRPUSD"), tiers=book.schedule("XRPUSD").tiers[:1])
    need = requirement_of(position, margin_schedule(rates), rule)
    assert [need.initial, need.maintenance] == [400, 200]
    # A point of ETHUSD is 100 satoshi.
    assert book.instrument("ETHUSD").contract_multiplier == Decimal("0.000001")


def test_kucoin_phemex_mexc_and_bitget_reproduce_their_examples() -> None:
    _, maintenance_margin = requirement(
        "kucoin", "XBTUSDTM", quantity=10, entry_price=30000, mark_price=30000
    )
    assert maintenance_margin == 1200
    phemex, _ = prices(
        "phemex", "USDTM", quantity=500, entry_price="0.4", wallet="40.096", fee_rate="0.0006"
    )
    assert near(phemex, 0.3232, 5e-5)
    mexc, _ = prices("mexc", "BTCUSDT", quantity="0.1", entry_price=50000, leverage=25)
    assert Decimal(mexc) == 48200
    bitget, _ = prices(
        "bitget", "BTCUSDT", quantity="0.017", entry_price=16155, leverage=25, fee_rate="0.0006"
    )
    assert near(bitget, 15580.47, 0.01)


def test_gate_steps_end_at_its_largest_limit() -> None:
    schedule = load("gate").schedule("BTC_USDT")
    # risk_limit_max 30,000,000 in steps of 1,000,000 from 0.5 % and 1 % on.
    assert len(schedule.tiers) == 30
    assert schedule.notional_max == 30_000_000
    assert schedule.tiers[29].maintenance_rate == Decimal("0.15")


@pytest.mark.parametrize(
    ("schedule", "notional", "rate"),
    [
        ("PERP_BTC_USDC", "5197.2", "0.05"),
        ("PERP_ETH_USDC", "4915.23", "0.05"),
        ("EXAMPLE", 255000, "0.025"),
    ],
)
def test_orderly_reproduces_its_library_s_tests(
    schedule: str, notional: str | int, rate: str
) -> None:
    rates = rates_of(margin_schedule(load("orderly").schedule(schedule)), 1, notional)
    assert rates.maintenance_rate == Decimal(rate)


def test_drift_reproduces_its_tests() -> None:
    book = load("drift")
    # isolated 100 SOL at 100: requirement 1000; 5 % of it in maintenance.
    rate = maintenance(book.schedule("PERP"), Decimal(100), Decimal(100), Rule())
    assert rate == 500
    weights = book.collateral_of("SOL")
    table = weights.parameters["haircut"]
    assert isinstance(table, tuple)
    assert table[0] == {
        "floor": 0,
        "asset_weight": Decimal("0.8"),
        "maintenance_asset_weight": Decimal("0.9"),
    }
    # 100 SOL borrowed at 100: requirement 12000.
    assert weights.number("liability_weight") * 100 * 100 == 12000


@pytest.mark.parametrize(
    ("schedule", "volume", "mark", "expected"),
    [
        ("PLAIN", 40000, "123.4", 493600.0),
        ("SLIPPAGE", 41, "110", 4555.1),
        ("SLIPPAGE", -400, "1234.5", 2276418.0),
    ],
)
def test_vega_reproduces_its_tests(schedule: str, volume: int, mark: str, expected: float) -> None:
    book = load("vega")
    got = maintenance(book.schedule(schedule), Decimal(volume), Decimal(mark), Rule())
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_vega_has_four_levels_and_margins_orders_by_side() -> None:
    book = load("vega")
    assert book.levels is not None
    levels = margin_levels(1000, level_factors(book.levels))
    assert (levels.search, levels.initial, levels.release) == (1100, 1200, 1400)
    assert venue_rule(book).of().order_margin == "one_side_covered"
    assert isolated_order_margin(-4, [True] * 3, [10, 20, 30], [50, 40, 20], "0.5", 10) == 85


def test_opyn_reproduces_its_tests() -> None:
    book = load("opyn")
    rule = book.option_rule("NAKED_PUT")
    bound = upper_bounds(rule).at(7)
    shock = float(rule.number("spot_shock"))
    margin = naked_option_margin("put", -1, 100, 150, bound, shock)
    assert float(margin) == pytest.approx(16.77778677, rel=1e-3)
    two_weeks = naked_option_margin("put", -1, 100, 150, upper_bounds(rule).at(14), shock)
    assert float(two_weeks) == pytest.approx(23.6996538, rel=1e-3)
    settlement = book.option_rule("CALL_SPREAD").parameters["settlement"]
    assert settlement == "coin"
    loss = max_loss_at_expiry("call", [200, 250], [-1, 1], settlement="coin")
    assert float(loss) == pytest.approx(0.2)


def test_reg_t_reproduces_its_examples() -> None:
    book = load("reg_t")
    rule = book.option_rule("EQUITY")
    shares = float(rule.number("multiplier"))
    need = option_margin(option_rule(rule), "call", -5, 52, 4, strike=55, multiplier=shares)
    assert float(need.initial) == 5700
    least = book.option_rule("EQUITY_WITH_MINIMUM")
    need = option_margin(option_rule(least), "call", -1, 65, 1.5, strike=68, multiplier=shares)
    assert [float(need.reduced), float(need.floor), float(need.minimum)] == [1150, 800, 250]


def test_aevo_and_derive_margin_puts_by_the_larger_of_spot_and_mark() -> None:
    # By hand, spot 100, strike 90, mark 2: out of the money 10.
    aevo = option_margin(option_rule(load("aevo").option_rule("OPTIONS")), "put", -1, 100, 2,
                         strike=90)  # fmt: skip
    assert (float(aevo.initial), float(aevo.maintenance)) == (12, 12)
    derive = option_margin(option_rule(load("derive").option_rule("OPTIONS")), "put", -1, 100, 2,
                           strike=90)  # fmt: skip
    assert (float(derive.initial), float(derive.maintenance)) == (12, 9.5)
    perp = load("derive").schedule("PERP").tiers[0]
    assert (perp.initial_rate, perp.maintenance_rate) == (Decimal("0.065"), Decimal("0.05"))


def test_the_textbook_is_one_tier() -> None:
    liquidation, bankruptcy = prices(
        "textbook", "TEXTBOOK", quantity=1, entry_price=50000, leverage=10
    )
    # By hand: 45000 / (1 - 0.01), and 50000 - 5000.
    assert near(liquidation, 45454.5454545, 1e-6)
    assert Decimal(bankruptcy) == 45000
    assert isinstance(margin_schedule(load("textbook").schedule("TEXTBOOK")), TierSchedule)


@pytest.mark.parametrize(
    ("name", "venue", "contract"),
    [
        ("binance_usdm", "Binance USD-M", "linear"),
        ("binance_coinm", "Binance COIN-M", "inverse"),
        ("bybit_linear", "Bybit", "linear"),
        ("bybit_inverse", "Bybit (legacy inverse)", "inverse"),
        ("okx", "OKX", "linear"),
        ("deribit", "Deribit", "linear"),
        ("hyperliquid", "Hyperliquid", "linear"),
        ("kraken", "Kraken Futures", "inverse"),
        ("bitmex", "BitMEX", "linear"),
        ("kucoin", "KuCoin (2025)", "linear"),
        ("gate", "Gate", "linear"),
        ("phemex", "Phemex", "linear"),
        ("mexc", "MEXC", "linear"),
        ("bitget", "Bitget", "linear"),
    ],
)
@pytest.mark.parametrize("mode", ["isolated", "cross"])
def test_a_rulebook_s_switches_are_those_that_pass_the_venue_s_vectors(
    name: str, venue: str, contract: Literal["linear", "inverse"], mode: str
) -> None:
    ours = asdict(venue_rule(load(name)).of(mode, contract))
    conform = venue_of(venue).rule(contract, mode)
    assert conform is not None
    for key, value in asdict(conform).items():
        # Vectors bring their own tiers, most of them with deductions.
        if not key.startswith("tier_"):
            assert ours[key] == value, key
