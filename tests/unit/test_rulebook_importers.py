"""Tiers in the ccxt layout become schedules, and each mistake names its symbol, tier and key."""

import gzip
import io
import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from riskd.rulebooks import RulebookError, import_ccxt, load, loads, to_toml
from riskd.rulebooks.layouts.ccxt import is_linear_perpetual, unified_name

TWO_SYMBOLS = Path(__file__).parent.parent / "data" / "ccxt_two_symbols.json"
# The venue's whole file is not part of the project; beside a checkout it is tested too.
WHOLE_FILE = Path(__file__).parents[3] / "shared/data/tiers/binance_leverage_tiers_20241024.json.gz"
DAY = date(2024, 10, 24)

BTC = "BTC/USDT:USDT"
ETH = "ETH/BTC:BTC-241227"

Document = dict[str, Any]


def test_each_symbol_becomes_a_schedule_in_its_settlement_asset() -> None:
    book = import_ccxt(TWO_SYMBOLS, as_of=DAY)
    assert [rule.name for rule in book.schedules] == ["BTCUSDT", "ETHBTC_241227"]
    assert {rule.symbol: rule.scale for rule in book.assets} == {"BTC": 8, "USDT": 8}
    assert book.name == "ccxt_two_symbols"
    assert book.instruments == ()
    btc, eth = book.schedules
    # 9.22e18 is no bound.
    assert btc.notional_max is None
    assert eth.notional_max == 10
    assert btc.tiers[2].deduction == 950
    assert btc.tiers[2].initial_rate == Decimal("0.013333333")
    assert eth.tiers[1].deduction == Decimal("0.06")
    assert loads(to_toml(book)) == book


def test_gzip_and_open_files_are_read_like_plain_ones(tmp_path: Path) -> None:
    packed = tmp_path / "ccxt_two_symbols.json.gz"
    packed.write_bytes(gzip.compress(TWO_SYMBOLS.read_bytes()))
    plain = import_ccxt(TWO_SYMBOLS, as_of=DAY)
    assert import_ccxt(packed, as_of=DAY).schedules[0].tiers == plain.schedules[0].tiers
    with packed.open("rb") as file:
        assert import_ccxt(file, as_of=DAY).schedules[1].tiers == plain.schedules[1].tiers


def test_the_date_comes_from_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tiers_20241024.json"
    path.write_bytes(TWO_SYMBOLS.read_bytes())
    assert import_ccxt(path).provenance.as_of == DAY
    with pytest.raises(RulebookError, match="as_of: the file has no date"):
        import_ccxt(io.BytesIO(TWO_SYMBOLS.read_bytes()))


@pytest.mark.parametrize("symbol", [ETH, "ETHBTC_241227"])
def test_symbols_select_by_either_name(symbol: str) -> None:
    book = import_ccxt(TWO_SYMBOLS, as_of=DAY, symbols=[symbol])
    assert [rule.name for rule in book.schedules] == ["ETHBTC_241227"]
    with pytest.raises(RulebookError, match="XRPUSDT: is not among the 2 symbols"):
        import_ccxt(TWO_SYMBOLS, as_of=DAY, symbols=["XRPUSDT"])


@pytest.mark.parametrize(
    ("symbol", "name", "is_linear"),
    [
        ("BTC/USDT:USDT", "BTCUSDT", True),
        ("BTC/USDC:USDC", "BTCUSDC", True),
        ("BTC/USDT:USDT-241227", "BTCUSDT_241227", False),
        ("BTC/USD:BTC", "BTCUSD", False),
        ("BTC/USD:USDT", "BTCUSD:USDT", False),
    ],
)
def test_a_symbol_is_named_as_its_venue_does(symbol: str, name: str, is_linear: bool) -> None:
    assert unified_name(symbol) == name
    assert is_linear_perpetual(symbol) is is_linear


def put(symbol: str, tier: int, key: str, value: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document[symbol][tier][key] = value

    return change


def drop(symbol: str, tier: int, key: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        del document[symbol][tier][key]

    return change


def rename(symbol: str, new: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document[new] = document.pop(symbol)

    return change


def swap(document: Document) -> None:
    document[BTC].reverse()


def take_a_name(document: Document) -> None:
    document["BT/CUSDT:CUSDT"] = [row | {"currency": "CUSDT"} for row in document[BTC]]


def break_both(document: Document) -> None:
    document[BTC][0].pop("maxLeverage")
    document[ETH][1].pop("maxLeverage")


def empty(document: Document) -> None:
    document[ETH] = []


def no_object(document: Document) -> None:
    document[ETH][1] = 5


RATE = "maintenanceMarginRate"

MISTAKES: list[tuple[Callable[[Document], None], str, str]] = [
    (drop(BTC, 1, RATE), f"{BTC}: tier 2: {RATE}", "is missing"),
    (drop(BTC, 1, "maxLeverage"), f"{BTC}: tier 2: maxLeverage", "is missing"),
    (drop(ETH, 0, "minNotional"), f"{ETH}: tier 1: minNotional", "is missing"),
    (drop(ETH, 0, "currency"), f"{ETH}: tier 1: currency", "must be BTC"),
    (put(BTC, 1, RATE, float("nan")), f"{BTC}: tier 2: {RATE} = NaN", "finite"),
    (put(BTC, 1, "maxLeverage", float("inf")), "tier 2: maxLeverage = Infinity", "finite"),
    (put(BTC, 1, RATE, "high"), f"{BTC}: tier 2: {RATE} = 'high'", "plain decimal"),
    (put(BTC, 1, RATE, None), f"{BTC}: tier 2: {RATE}", "is missing"),
    (put(BTC, 1, RATE, True), f"{BTC}: tier 2: {RATE} = True", "must be a number"),
    (put(BTC, 1, "tier", 3), f"{BTC}: tier 2: tier = 3", "out of order, must be 2"),
    (put(BTC, 1, "minNotional", 50001), "tier 2: minNotional = 50001", "must be 50000"),
    (put(BTC, 0, "minNotional", 5), f"{BTC}: tier 1: minNotional = 5", "must be 0"),
    (put(BTC, 0, "maxNotional", 0), "tier 1: maxNotional = 0", "above minNotional 0"),
    (put(BTC, 0, "maxNotional", None), "tier 2: minNotional", "after a tier without bound"),
    (put(BTC, 1, "info", {"cum": "50.1"}), f"{BTC}: tier 2: info.cum = 50.1", "must be 50,"),
    (put(BTC, 1, "info", {"cum": "x"}), f"{BTC}: tier 2: info.cum = 'x'", "plain decimal"),
    (put(BTC, 0, "info", {"cum": "1"}), f"{BTC}: tier 1: info.cum = 1", "must be 0,"),
    (put(ETH, 1, "maxLeverage", 25), f"{ETH}: tier 2: maxLeverage", "above maintenance_rate"),
    (
        put(ETH, 0, "maxLeverage", 5),
        f"{ETH}: tier 2: maxLeverage",
        "at least 0.2, the rate of tier 1",
    ),
    (put(ETH, 0, "maxLeverage", 0.5), "tier 1: maxLeverage = 0.5", "at least 1"),
    (put(ETH, 0, "maxLeverage", 1e300), "tier 1: maxLeverage", "between 10^-40 and 10^40"),
    (put(ETH, 0, "currency", "USDT"), f"{ETH}: tier 1: currency = 'USDT'", "must be BTC"),
    (swap, f"{BTC}: tier 1: tier = 3", "out of order"),
    (empty, ETH, "list of 1 to 32 tiers"),
    (no_object, f"{ETH}: tier 2", "must be an object"),
    (rename(BTC, "BTCUSDT"), "BTCUSDT", "no symbol like"),
    (rename(BTC, "BTC/USDT"), "BTC/USDT", "no symbol like"),
    (rename(BTC, "B" * 30 + "/USDT:USDT"), "/USDT:USDT", "at most 31"),
    (rename(BTC, "BTC/usdt:usdt"), "BTC/usdt:usdt", "1 to 15 of A-Z"),
    (take_a_name, "BT/CUSDT:CUSDT", f"has the name BTCUSDT, which {BTC} has too"),
    (break_both, f"{BTC}: tier 1: maxLeverage", "2 of 2 symbols are wrong"),
    (break_both, f"{ETH}: tier 2: maxLeverage", "is missing"),
]


@pytest.mark.parametrize(("change", "where", "reason"), MISTAKES)
def test_a_mistake_names_symbol_tier_and_key(
    change: Callable[[Document], None], where: str, reason: str, tmp_path: Path
) -> None:
    document = json.loads(TWO_SYMBOLS.read_text())
    # Without the printed deductions, which venues may leave out, the other laws speak.
    if "maxLeverage" in where or where.startswith(f"{ETH}: tier 2"):
        for row in document[ETH]:
            row.pop("info")
    change(document)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(document))
    with pytest.raises(RulebookError) as caught:
        import_ccxt(path, as_of=DAY)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert where in message
    assert reason in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b"[]", "must be an object"),
        (b"{}", "has no symbols"),
        (b'{"A/B:B": [], "A/B:B": []}', "A/B:B: is there twice"),
        (b"\x1f\x8b\x00", "is not gzip"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe\xff", "is not JSON"),
    ],
)
def test_a_file_of_another_kind_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(RulebookError, match=reason):
        import_ccxt(path, as_of=DAY)


STEPS = """\
format = 1
source = "made up"
as_of = 2024-10-24

[instrument.BTCUSDT]
tick_size = "0.1"
lot_size = "0.001"
taker_fee_rate = "0.0005"
"""


def test_instruments_are_made_for_the_symbols_whose_steps_are_given(tmp_path: Path) -> None:
    steps = tmp_path / "steps.toml"
    steps.write_text(STEPS)
    book = import_ccxt(TWO_SYMBOLS, as_of=DAY, steps=steps)
    (rule,) = book.instruments
    assert (rule.symbol, rule.kind, rule.settlement_asset, rule.margin_schedule) == (
        "BTCUSDT",
        "linear_perpetual",
        "USDT",
        "BTCUSDT",
    )
    assert rule.provenance.source == "made up"
    assert loads(to_toml(book)) == book


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("instrument.BTCUSDT", "instrument.XRPUSDT", "instrument.XRPUSDT: is not among"),
        ("instrument.BTCUSDT", "instrument.ETHBTC_241227", "is not a linear perpetual"),
        ('tick_size = "0.1"\n', "", "instrument.BTCUSDT.tick_size: is missing"),
        ("format = 1", "format = 3", "this riskd reads formats 1 and 2"),
        ("[instrument", "name = 1\n[instrument", "name = 1: unknown key"),
    ],
)
def test_a_mistake_in_the_steps_is_refused(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    steps = tmp_path / "steps.toml"
    steps.write_text(STEPS.replace(old, new, 1))
    with pytest.raises(RulebookError, match=message) as caught:
        import_ccxt(TWO_SYMBOLS, as_of=DAY, steps=steps)
    assert str(caught.value).startswith(str(steps))


@pytest.mark.skipif(not WHOLE_FILE.exists(), reason=f"the venue's file is not at {WHOLE_FILE}")
def test_all_symbols_of_the_venue_load_and_are_continuous() -> None:
    book = import_ccxt(WHOLE_FILE)
    assert book.provenance.as_of == DAY
    assert len(book.schedules) == 349
    assert {rule.symbol for rule in book.assets} == {"USDT", "USDC", "BTC"}
    joins = 0
    for schedule in book.schedules:
        for below, above in pairwise(schedule.tiers):
            left = above.floor * below.maintenance_rate - below.deduction
            assert left == above.floor * above.maintenance_rate - above.deduction
            joins += 1
    # 2805 brackets of 349 symbols.
    assert joins == 2805 - 349
    assert loads(to_toml(book)) == book


@pytest.mark.skipif(not WHOLE_FILE.exists(), reason=f"the venue's file is not at {WHOLE_FILE}")
def test_the_packaged_tiers_are_those_of_the_venue() -> None:
    packaged = load("binance_usdm").schedules
    names = [rule.name for rule in packaged]
    for ours, theirs in zip(
        packaged, import_ccxt(WHOLE_FILE, symbols=names).schedules, strict=True
    ):
        assert (ours.name, ours.tiers, ours.notional_max) == (
            theirs.name,
            theirs.tiers,
            theirs.notional_max,
        )
