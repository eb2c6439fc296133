"""Each venue's layout of tiers becomes a rulebook and survives a round trip; damage is named."""

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from riskd.rulebooks import RulebookError, loads, to_toml
from riskd.rulebooks.importers import export_ccxt, import_tiers
from riskd.rulebooks.layouts import LAYOUTS, detect

SHARED = Path(__file__).parents[3] / "shared/data/tiers"
DAY = date(2026, 1, 31)

# Answers of each venue cut to one or two symbols, in its own layout.
ANSWERS: dict[str, Any] = {
    "ascendex": {
        "code": 0,
        "data": [
            {
                "symbol": "BTC-PERP",
                "settlementAsset": "USDT",
                "priceFilter": {"tickSize": "1"},
                "lotSizeFilter": {"lotSize": "0.0001"},
                "marginRequirements": [
                    {
                        "positionNotionalLowerBound": "0",
                        "positionNotionalUpperBound": "50000",
                        "initialMarginRate": "0.01",
                        "maintenanceMarginRate": "0.006",
                    },
                    {
                        "positionNotionalLowerBound": "50000",
                        "positionNotionalUpperBound": "200000",
                        "initialMarginRate": "0.02",
                        "maintenanceMarginRate": "0.012",
                    },
                ],
            }
        ],
    },
    "binance": [
        {
            "symbol": "BTCUSDT",
            "brackets": [
                {
                    "bracket": 1,
                    "initialLeverage": 125,
                    "notionalCap": 50000,
                    "notionalFloor": 0,
                    "maintMarginRatio": 0.004,
                    "cum": 0.0,
                },
                {
                    "bracket": 2,
                    "initialLeverage": 100,
                    "notionalCap": 600000,
                    "notionalFloor": 50000,
                    "maintMarginRatio": 0.005,
                    "cum": 50.0,
                },
            ],
        },
        {
            "symbol": "BTCUSD_PERP",
            "brackets": [
                {
                    "bracket": 1,
                    "initialLeverage": 125,
                    "qtyCap": 50,
                    "qtyFloor": 0,
                    "maintMarginRatio": 0.004,
                    "cum": 0.0,
                }
            ],
        },
    ],
    "bingx": {
        "0G/USDT": {
            "leverage": {"max": 75},
            "risk": [
                {"id": 1, "limit": 10000, "max_leverage": 50},
                {"id": 2, "limit": 5000, "max_leverage": 75},
            ],
        }
    },
    "bitmex": [
        {
            "symbol": "XBTUSD",
            "settlCurrency": "XBt",
            "isInverse": True,
            "isQuanto": False,
            "expiry": None,
            "tickSize": 0.5,
            "lotSize": 100,
            "multiplier": -100000000,
            "initMargin": 0.01,
            "maintMargin": 0.0035,
            "riskLimit": 20000000000,
            "riskStep": 10000000000,
        },
        {
            "symbol": "ETHUSD",
            "settlCurrency": "XBt",
            "isInverse": False,
            "isQuanto": True,
            "expiry": None,
            "tickSize": 0.05,
            "lotSize": 1,
            "multiplier": 100,
            "initMargin": 0.01,
            "maintMargin": 0.005,
            "riskLimit": 7500000000,
            "riskStep": 7500000000,
        },
    ],
    "ccxt": {
        "BTC/USDT:USDT": [
            {
                "tier": 1.0,
                "currency": "USDT",
                "minNotional": 0.0,
                "maxNotional": 50000.0,
                "maintenanceMarginRate": 0.004,
                "maxLeverage": 125.0,
            },
            {
                "tier": 2.0,
                "currency": "USDT",
                "minNotional": 50000.0,
                "maxNotional": 600000.0,
                "maintenanceMarginRate": 0.005,
                "maxLeverage": 100.0,
            },
        ]
    },
    "delta": {
        "result": [
            {
                "symbol": "BTCUSDT",
                "contract_type": "perpetual_futures",
                "initial_margin": "1",
                "maintenance_margin": "0.5",
                "max_leverage_notional": "200000",
                "contract_value": "0.001",
                "notional_type": "vanilla",
                "is_quanto": False,
                "tick_size": "0.5",
                "settlement_time": None,
                "settling_asset": {"symbol": "USDT"},
            }
        ]
    },
    "dydx_v3": {
        "markets": {
            "BTC-USD": {
                "quoteAsset": "USD",
                "stepSize": "0.0001",
                "tickSize": "1",
                "initialMarginFraction": "0.04",
                "maintenanceMarginFraction": "0.03",
                "incrementalInitialMarginFraction": "0.01",
                "incrementalPositionSize": "1.5",
                "baselinePositionSize": "9",
                "maxPositionSize": "12",
            }
        }
    },
    "dydx_v4": {
        "perpetuals": {
            "perpetuals": [
                {
                    "params": {
                        "ticker": "BTC-USD",
                        "id": 0,
                        "atomic_resolution": -10,
                        "liquidity_tier": 1,
                    }
                }
            ],
            "liquidity_tiers": [
                {
                    "id": 1,
                    "initial_margin_ppm": 100000,
                    "maintenance_fraction_ppm": 500000,
                    "open_interest_lower_cap": 20000000000000,
                    "open_interest_upper_cap": 50000000000000,
                }
            ],
        },
        "clob": {
            "clob_pairs": [
                {
                    "perpetual_clob_metadata": {"perpetual_id": 0},
                    "step_base_quantums": 1000000,
                    "subticks_per_tick": 100000,
                    "quantum_conversion_exponent": -9,
                }
            ]
        },
    },
    "gate": [
        {
            "name": "BTC_USDT",
            "maintenance_rate": "0.005",
            "leverage_max": "100",
            "risk_limit_base": "1000000",
            "risk_limit_step": "1000000",
            "risk_limit_max": "3000000",
            "quanto_multiplier": "0.0001",
            "order_price_round": "0.1",
            "taker_fee_rate": "0.00075",
        }
    ],
    "hyperliquid": {
        "universe": [
            {"name": "BTC", "szDecimals": 5, "maxLeverage": 40, "marginTableId": 56},
            {
                "name": "ATOM",
                "szDecimals": 2,
                "maxLeverage": 5,
                "marginTableId": 5,
                "onlyIsolated": True,
            },
        ],
        "marginTables": [
            [
                56,
                {
                    "description": "tiered 40x",
                    "marginTiers": [
                        {"lowerBound": "0.0", "maxLeverage": 40},
                        {"lowerBound": "150000000.0", "maxLeverage": 20},
                    ],
                },
            ]
        ],
    },
    "kraken": {
        "instruments": [
            {
                "symbol": "pi_xbtusd",
                "type": "futures_inverse",
                "tickSize": 0.5,
                "contractSize": 1,
                "tradeable": True,
                "marginLevels": [
                    {"contracts": 0, "initialMargin": 0.02, "maintenanceMargin": 0.01},
                    {"contracts": 500000, "initialMargin": 0.04, "maintenanceMargin": 0.02},
                ],
            },
            {"symbol": "in_xbtusd", "type": "spot index", "tradeable": False},
        ]
    },
    "okx": {
        "data": [
            {
                "instId": "BTC-USD-220624",
                "ctType": "inverse",
                "ctVal": "100",
                "ctMult": "1",
                "lever": "125",
                "lotSz": "1",
                "tickSz": "0.1",
                "settleCcy": "BTC",
                "expTime": "1656057600000",
            }
        ]
    },
    "phemex": {
        "data": {
            "products": [
                {
                    "symbol": "BTCUSD",
                    "settleCurrency": "BTC",
                    "quoteCurrency": "USD",
                    "contractSize": 1.0,
                    "lotSize": 1,
                    "tickSize": 0.5,
                }
            ],
            "riskLimits": [
                {
                    "symbol": "BTCUSD",
                    "riskLimits": [
                        {
                            "limit": 100,
                            "initialMarginEr": 1000000,
                            "maintenanceMarginEr": 500000,
                        },
                        {
                            "limit": 150,
                            "initialMarginEr": 1500000,
                            "maintenanceMarginEr": 1000000,
                        },
                    ],
                }
            ],
        }
    },
}


def written(tmp_path: Path, answer: object) -> Path:
    path = tmp_path / "answer_20260131.json"
    path.write_text(json.dumps(answer))
    return path


def options(layout: str) -> dict[str, Any]:
    return {} if LAYOUTS[layout].has_maintenance else {"maintenance_part": Decimal("0.5")}


def test_there_is_an_answer_of_each_layout() -> None:
    assert set(ANSWERS) == set(LAYOUTS)


@pytest.mark.parametrize("layout", sorted(ANSWERS))
def test_a_layout_is_recognised_and_survives_a_round_trip(layout: str, tmp_path: Path) -> None:
    found = detect(json.loads(json.dumps(ANSWERS[layout]), parse_float=Decimal))
    assert found is LAYOUTS[layout]
    path = written(tmp_path, ANSWERS[layout])
    book = import_tiers(path, **options(layout))
    assert book.provenance.as_of == DAY
    assert book == import_tiers(path, layout=layout, **options(layout))
    assert loads(to_toml(book)) == book


@pytest.mark.parametrize("layout", ["binance", "ccxt", "bingx"])
def test_import_write_load_export_import_gives_the_same_tiers(layout: str, tmp_path: Path) -> None:
    book = import_tiers(written(tmp_path, ANSWERS[layout]), **options(layout))
    # The ccxt layout has our names of linear contracts only.
    kept = tuple(rule for rule in book.schedules if rule.name.isalnum())
    stripped = loads(to_toml(book))
    text = export_ccxt(
        type(book)(book.name, book.title, book.provenance, book.assets, kept, rule=book.rule)
    )
    path = tmp_path / "exported.json"
    path.write_text(text)
    mode = kept[0].tier_mode if kept else "marginal"
    again = import_tiers(path, layout="ccxt", tier_mode=mode, as_of=DAY)
    for rule in again.schedules:
        before = stripped.schedule(rule.name)
        assert [tier.floor for tier in rule.tiers] == [tier.floor for tier in before.tiers]
        for ours, theirs in zip(rule.tiers, before.tiers, strict=True):
            assert ours.maintenance_rate == theirs.maintenance_rate
            assert ours.deduction == theirs.deduction
            assert ours.max_leverage == theirs.max_leverage
        assert rule.notional_max == before.notional_max
    assert len(again.schedules) == len(kept)


def test_figures_come_in_the_units_of_a_rulebook(tmp_path: Path) -> None:
    book = import_tiers(written(tmp_path, ANSWERS["bitmex"]))
    tiers = book.schedule("XBTUSD").tiers
    # 200 XBT, then steps of 100; both rates rise by 0.35 %.
    assert [tier.floor for tier in tiers[:3]] == [0, 200, 300]
    assert tiers[2].initial_rate == Decimal("0.0170")
    assert tiers[2].maintenance_rate == Decimal("0.0105")
    assert book.instrument("XBTUSD").kind == "inverse_perpetual"
    assert book.instrument("ETHUSD").contract_multiplier == Decimal("0.000001")
    dydx = import_tiers(written(tmp_path, ANSWERS["dydx_v4"]))
    assert dydx.schedule("BTC-USD").parameters == {
        "initial_rate": Decimal("0.1"),
        "maintenance_fraction": Decimal("0.5"),
        "open_interest_lower": Decimal(20_000_000),
        "open_interest_upper": Decimal(50_000_000),
    }
    btc = dydx.instrument("BTC-USD")
    assert [btc.tick_size, btc.lot_size] == [1, Decimal("0.0001")]
    v3 = import_tiers(written(tmp_path, ANSWERS["dydx_v3"]))
    schedule = v3.schedule("BTC-USD")
    # 9, 10.5 and no more than 12 BTC: 4 %, 5 %, 6 %.
    assert [tier.floor for tier in schedule.tiers] == [0, 9, Decimal("10.5")]
    rates = [Decimal(rate) for rate in ("0.04", "0.05", "0.06")]
    assert [tier.initial_rate for tier in schedule.tiers] == rates
    assert schedule.quantity_max == 12
    assert schedule.tier_key == "quantity"
    okx = import_tiers(written(tmp_path, ANSWERS["okx"]), maintenance_part=Decimal("0.4"))
    future = okx.instrument("BTC-USD-220624")
    assert (future.kind, str(future.expiry)) == ("inverse_future", "2022-06-24 08:00:00+00:00")
    # 0.4 / 125
    assert okx.schedule("BTC-USD-220624").tiers[0].maintenance_rate == Decimal("0.0032")
    assert import_tiers(written(tmp_path, ANSWERS["hyperliquid"])).instrument("ATOM").isolated_only
    kraken = import_tiers(written(tmp_path, ANSWERS["kraken"]))
    assert [rule.name for rule in kraken.schedules] == ["PI_XBTUSD"]
    assert kraken.asset("XBT").scale == 8


def at(*path: str | int) -> Callable[[Any, Any], None]:
    """Return what sets the value at a path of an answer, or drops it if the value is None."""

    def put(answer: Any, value: Any) -> None:
        for key in path[:-1]:
            answer = answer[key]
        if value is None:
            del answer[path[-1]]
        else:
            answer[path[-1]] = value

    return put


RISK = ("data", "riskLimits", 0, "riskLimits", 1)
TABLE = ("marginTables", 0, 1, "marginTiers", 1)
LEVEL = ("instruments", 0, "marginLevels", 1)
DAMAGE: list[tuple[str, Callable[[Any, Any], None], Any, str]] = [
    ("ascendex", at("data", 0, "marginRequirements", 1, "initialMarginRate"), "0.01",
     "BTC-PERP: tier 2: initialMarginRate = 0.01: must be above maintenance_rate 0.012"),
    ("ascendex", at("data", 0, "marginRequirements", 1, "positionNotionalLowerBound"), "50001",
     "BTC-PERP: tier 2: positionNotionalLowerBound = 50001: must be 50000, "
     "positionNotionalUpperBound of the tier before"),
    ("ascendex", at("data", 0, "settlementAsset"), None,
     "BTC-PERP: settlementAsset = None: must be a text"),
    ("binance", at(0, "brackets", 1, "cum"), 51,
     "BTCUSDT: tier 2: cum = 51: must be 50, which the floors and rates give"),
    ("binance", at(0, "brackets", 1, "bracket"), 3,
     "BTCUSDT: tier 2: bracket = 3: is out of order, must be 2"),
    ("binance", at(0, "brackets", 1, "notionalCap"), 50000,
     "BTCUSDT: tier 2: notionalCap = 50000: must be above notionalFloor 50000"),
    ("binance", at(1, "brackets", 0, "maintMarginRatio"), None,
     "BTCUSD_PERP: tier 1: maintMarginRatio: is missing"),
    ("binance", at(0, "symbol"), "BTC", "BTC: has no quote currency that is known"),
    ("bingx", at("0G/USDT", "risk", 0, "max_leverage"), 80,
     "0G/USDT: tier 2: max_leverage = 80: must be below 75, that of tier 1"),
    ("bingx", at("0G/USDT", "risk", 1, "limit"), "many",
     "0G/USDT: tier 2: limit = 'many': must be a plain decimal number, like 0.004"),
    ("bitmex", at(0, "maintMargin"), 0.02,
     "XBTUSD: tier 1: initMargin = 0.01: must be above maintenance_rate 0.02"),
    ("bitmex", at(0, "riskStep"), 0,
     "XBTUSD: a limit of 200 and steps of 0 must be above 0"),
    ("bitmex", at(0, "settlCurrency"), "Doge",
     "XBTUSD: settlCurrency = 'Doge': must be one of XBt, USDt, Gwei"),
    ("bitmex", at(0, "expiry"), "soon", "XBTUSD: expiry = 'soon': must be a time"),
    ("ccxt", at("BTC/USDT:USDT", 1, "maintenanceMarginRate"), 0.003,
     "BTC/USDT:USDT: tier 2: maintenanceMarginRate = 0.003: must be above 0.004, the rate of tier"),
    ("delta", at("result", 0, "maintenance_margin"), "1",
     "BTCUSDT: tier 1: initial_margin = 0.01: must be above maintenance_rate 0.01"),
    ("delta", at("result", 0, "initial_margin"), "x",
     "BTCUSDT: initial_margin = 'x': must be a plain decimal number"),
    ("dydx_v3", at("markets", "BTC-USD", "incrementalPositionSize"), "0",
     "BTC-USD: a limit of 9 and steps of 0 must be above 0"),
    ("dydx_v3", at("markets", "BTC-USD", "maintenanceMarginFraction"), "0.04",
     "BTC-USD: tier 1: initialMarginFraction = 0.04: must be above maintenance_rate 0.04"),
    ("dydx_v4", at("perpetuals", "liquidity_tiers", 0, "id"), 2,
     "BTC-USD: tier = None: must be an object"),
    ("dydx_v4", at("perpetuals", "liquidity_tiers", 0, "initial_margin_ppm"), None,
     "BTC-USD: initial_margin_ppm: is missing"),
    ("dydx_v4", at("perpetuals", "liquidity_tiers", 0, "open_interest_upper_cap"), 1,
     "schedule.BTC-USD.open_interest_upper = 0.000001: must be above open_interest_lower 20000000"),
    ("gate", at(0, "leverage_max"), "0.5", "BTC_USDT: leverage_max = 0.5: must be at least 1"),
    ("gate", at(0, "maintenance_rate"), "0.02",
     "BTC_USDT: tier 1: 1 / leverage_max = 0.01: must be above maintenance_rate 0.02"),
    ("hyperliquid", at(*TABLE, "maxLeverage"), 50,
     "BTC: tier 2: max_leverage = 50: must be below 40, that of tier 1"),
    ("hyperliquid", at(*TABLE, "lowerBound"), "0",
     "BTC: tier 2: lowerBound = 0: must be above 0, the floor of tier 1"),
    ("hyperliquid", at("universe", 0, "szDecimals"), 7,
     "BTC: szDecimals = 7: must be 0 to 6"),
    ("kraken", at(*LEVEL, "maintenanceMargin"), 0.005,
     "pi_xbtusd: tier 2: maintenanceMargin = 0.005: must be at least 0.01, the rate of tier 1"),
    ("kraken", at(*LEVEL, "contracts"), 0,
     "pi_xbtusd: tier 2: floor = 0: must be above 0, the floor of tier 1"),
    ("kraken", at("instruments", 0, "symbol"), "xbtusd", "xbtusd: is no symbol like pi_xbtusd"),
    ("okx", at("data", 0, "lever"), "0.5", "BTC-USD-220624: tier 1: max_leverage = 0.5: must be"),
    ("okx", at("data", 0, "expTime"), "1e30", "BTC-USD-220624: expTime = '1e30': must be a plain"),
    ("okx", at("data", 0, "expTime"), "9" * 30, "must be a time in milliseconds"),
    ("phemex", at(*RISK, "limit"), 100,
     "BTCUSD: tier 2: limit = 100: must be above 100, that of the tier before"),
    ("phemex", at(*RISK, "maintenanceMarginEr"), None,
     "BTCUSD: tier 2: maintenanceMarginEr: is missing"),
    ("phemex", at(*RISK), 7, "BTCUSD: tier 2: must be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "put", "value", "message"), DAMAGE)
def test_damage_is_named_by_symbol_and_tier(
    layout: str, put: Callable[[Any, Any], None], value: Any, message: str, tmp_path: Path
) -> None:
    answer = json.loads(json.dumps(ANSWERS[layout]))
    put(answer, value)
    path = written(tmp_path, answer)
    with pytest.raises(RulebookError) as caught:
        import_tiers(path, layout=layout, **options(layout))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


ODD: tuple[Any, ...] = (True, "", [], {}, -1, 10**40, "nan", "9" * 50)


@pytest.mark.parametrize("layout", sorted(ANSWERS))
def test_odd_values_are_refused_or_taken_but_never_a_crash(layout: str, tmp_path: Path) -> None:
    def places(value: Any, path: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
        items: Any = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        found = [path] if path else []
        for key, each in items:
            found += places(each, (*path, key))
        return found

    for place in places(ANSWERS[layout], ()):
        for odd in ODD:
            answer = json.loads(json.dumps(ANSWERS[layout]))
            at(*place)(answer, odd)
            path = written(tmp_path, answer)
            try:
                book = import_tiers(path, layout=layout, **options(layout))
            except RulebookError:
                continue
            assert loads(to_toml(book)) == book


def test_what_a_layout_does_not_say_must_be_given_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(RulebookError, match="maintenance_part: is missing: layout bingx"):
        import_tiers(written(tmp_path, ANSWERS["bingx"]))
    with pytest.raises(RulebookError, match="layout gate has maintenance rates of its own"):
        import_tiers(written(tmp_path, ANSWERS["gate"]), maintenance_part=Decimal("0.5"))
    with pytest.raises(RulebookError, match="maintenance_part = 1: must be above 0 and below 1"):
        import_tiers(written(tmp_path, ANSWERS["okx"]), maintenance_part=Decimal(1))
    with pytest.raises(RulebookError, match="tier_mode = 'whole': layout gate has its own"):
        import_tiers(written(tmp_path, ANSWERS["gate"]), tier_mode="whole")
    with pytest.raises(RulebookError, match="layout = 'ftx': must be one of ascendex, binance"):
        import_tiers(written(tmp_path, ANSWERS["gate"]), layout="ftx")
    with pytest.raises(RulebookError, match="is in no layout that is known; name one of ascendex"):
        import_tiers(written(tmp_path, {"symbols": []}))


COUNTS = {
    "ascendex_futures_contract_20220425.json.gz": (39, 39),
    "bingx_limits_cornix_20260303.py.gz": (631, 0),
    "bitmex_instrument_active_20210722.json.gz": (34, 34),
    "delta_products_20211128.json.gz": (126, 126),
    "dydx_v3_markets_20211028.json.gz": (27, 27),
    "dydx_v4_mainnet_genesis_20231026.json.gz": (33, 33),
    "gate_futures_usdt_contracts_20230524.json.gz": (302, 302),
    "kraken_futures_instruments_20210722.json.gz": (17, 17),
    "okx_instruments_futures_20220513.json.gz": (104, 104),
    "okx_instruments_swap_20220513.json.gz": (166, 166),
    "phemex_products_v2_20210703.json.gz": (37, 37),
}


@pytest.mark.skipif(not SHARED.exists(), reason=f"the venues' answers are not at {SHARED}")
@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_whole_answers_of_venues_are_taken(name: str, counts: tuple[int, int]) -> None:
    part = Decimal("0.5") if name.startswith(("bingx", "okx")) else None
    book = import_tiers(SHARED / "multi_venue" / name, maintenance_part=part)
    assert (len(book.schedules), len(book.instruments)) == counts
    assert loads(to_toml(book)) == book
