"""A rulebook is read exactly, and each mistake is refused with file, key, value and bound."""

from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from riskd.rulebooks import (
    Rulebook,
    RulebookError,
    ScheduleRule,
    load,
    loads,
    names,
    to_toml,
)
from riskd.rulebooks.schema import mantissa_exponent, multiple, plain, scaled

GOOD = """\
format = 1
name = "tiny"
title = "For tests"
source = "made up"
as_of = 2026-01-01

[asset.USDT]
scale = 8
source = "made up"
as_of = 2026-01-01

[schedule.BTCUSDT]
settlement_asset = "USDT"
notional_max = "5000000"
liquidation_fee_rate = "0.001"
source = "made up"
as_of = 2026-01-01
tier = [
  { floor = 0, initial_rate = "0.01", maintenance_rate = 4e-3, deduction = 0, max_leverage = 100 },
 { floor = 50000, initial_rate = 0.02, maintenance_rate = 0.01, deduction = 300, max_leverage = 50},
  { floor = "600000", maintenance_rate = "0.025", max_leverage = "20" },
]

[instrument.BTCUSDT]
kind = "linear_perpetual"
settlement_asset = "USDT"
margin_schedule = "BTCUSDT"
tick_size = "0.10"
lot_size = "0.001"
mark_units_per_tick = 10000000
order_quantity_min = "0.001"
order_quantity_max = "1000"
order_notional_min = "5"
order_notional_max = "1000000"
price_collar_rate = "0.05"
market_order_buffer_rate = "0.0005"
taker_fee_rate = "0.0005"
mark_age_max_ms = 5000
source = "made up"
as_of = 2026-01-01
sources.taker_fee_rate = "also made up"

[instrument.BTC-CALL]
kind = "linear_option"
settlement_asset = "USDT"
tick_size = "5"
lot_size = "0.01"
mark_units_per_tick = 500
expiry = 2030-12-27T09:00:00+01:00
strike = "80000"
option_type = "call"
interest_rate = "-0.01"
underlying = "BTCUSDT"
source = "made up"
as_of = 2026-01-01
"""

# (what is replaced, by what, key, part of the reason)
MISTAKES = [
    ("format = 1", "format = 3", "format = 3", "reads formats 1 and 2"),
    ("format = 1\n", "", "format", "is missing"),
    ("format = 1", "format = true", "format = True", "must be a number"),
    ('name = "tiny"', 'name = "Tiny!"', "name = 'Tiny!'", "1 to 31 of a-z"),
    ('title = "For tests"', 'title = ""', "title = ''", "not empty"),
    ('title = "For tests"', "title = 7", "title = 7", "must be a text"),
    ("as_of = 2026-01-01\n\n[asset", 'as_of = "x"\n\n[asset', "as_of = 'x'", "a date"),
    ("as_of = 2026-01-01\n\n[asset", "\n[asset", "as_of", "is missing"),
    (
        "as_of = 2026-01-01\n\n[asset",
        "as_of = 2026-01-01T00:00:00Z\n\n[asset",
        "as_of",
        "must be a date",
    ),
    ("[asset.USDT]", "[aset.USDT]", "aset", "unknown key; known here: format, name"),
    ("[asset.USDT]", "[asset.usdt]", "asset.usdt", "1 to 15 of A-Z"),
    ("[asset.USDT]", "[asset.USDC]", "schedule.BTCUSDT.settlement_asset = 'USDT'", "[asset.USDT]"),
    ("scale = 8", "scale = 13", "asset.USDT.scale = 13", "must be 0 to 12"),
    ("scale = 8", "scale = 1.5", "asset.USDT.scale = 1.5", "whole number"),
    ("scale = 8", "", "asset.USDT.scale", "is missing"),
    ("scale = 8", "scale = 3", "instrument.BTCUSDT.tick_size = 0.1", "not a whole number of minor"),
    ("[schedule.BTCUSDT]", '[schedule."BTC USDT"]', 'schedule."BTC USDT"', "a name is 1 to 31"),
    ("[schedule.BTCUSDT]", "[schedule.ETHUSDT]", "instrument.BTCUSDT.margin_schedule", "ETHUSDT"),
    ('notional_max = "5000000"', 'notional_max = "600000"', "notional_max = 600000", "tier[2]"),
    ('notional_max = "5000000"', 'notional_max = "1e9"', "notional_max = '1e9'", "plain decimal"),
    ('notional_max = "5000000"', "notional_max = 1e99", "notional_max", "between 10^-40 and 10^40"),
    ('notional_max = "5000000"', "notional_max = 1e18", "notional_max", "for no bound"),
    ('notional_max = "5000000"', "notional_max = nan", "notional_max", "finite"),
    ('notional_max = "5000000"', "notional_maximum = 5", "notional_maximum = 5", "unknown key"),
    ('fee_rate = "0.001"', 'fee_rate = "1"', "liquidation_fee_rate = 1", "below 1"),
    ('fee_rate = "0.001"', "fee_rate = -0.1", "liquidation_fee_rate = -0.1", "at least 0"),
    (
        'fee_rate = "0.001"',
        'fee_rate = "0.98"',
        "tier[0].initial_rate = 0.01",
        "liquidation_fee_rate 0.98",
    ),
    ("{ floor = 0,", "{ floor = 1,", "schedule.BTCUSDT.tier[0].floor = 1", "must be 0"),
    ("{ floor = 50000,", "{ floor = -1,", "tier[1].floor = -1", "must be 0 to 2^63-1"),
    ("{ floor = 50000,", "{ floor = 0.000000001,", "tier[1].floor", "more than 8 decimals"),
    ("{ floor = 50000,", "{ floor = 600000,", "tier[1].deduction = 300", "must be 3600"),
    ('floor = "600000"', 'floor = "50000"', "tier[2].floor = 50000", "above 50000, the floor of"),
    ('floor = "600000"', 'floor = "1_000"', "tier[2].floor = '1_000'", "plain decimal"),
    ('floor = "600000"', 'floor = "٣"', "tier[2].floor", "plain decimal"),
    ('floor = "600000", ', "", "tier[2].floor", "is missing"),
    ('"0.025"', '"0.01"', "tier[2].maintenance_rate = 0.01", "above 0.01, the rate of tier[1]"),
    ('"0.025"', '"0"', "tier[2].maintenance_rate = 0", "must be above 0"),
    ('"0.025"', '"0.0250000001"', "tier[2].maintenance_rate", "more than 9 decimals"),
    ('"0.025"', '"0.05"', "tier[2].initial_rate = 0.05", "above maintenance_rate 0.05"),
    ("= 4e-3,", "= 0.01,", "tier[0].initial_rate = 0.01", "above maintenance_rate 0.01"),
    ("initial_rate = 0.02", "initial_rate = 1.1", "tier[1].initial_rate = 1.1", "at most 1"),
    (
        'initial_rate = "0.01"',
        "initial_rate = 0.03",
        "tier[1].initial_rate = 0.02",
        "at least 0.03",
    ),
    ("deduction = 300", "deduction = 301", "tier[1].deduction = 301", "must be 300"),
    ("deduction = 0,", "deduction = 1,", "tier[0].deduction = 1", "must be 0"),
    ("max_leverage = 50", "max_leverage = 101", "tier[1].max_leverage = 101", "at most 100"),
    ("max_leverage = 100", "max_leverage = 1001", "tier[0].max_leverage = 1001", "1 to 1000"),
    ("max_leverage = 50", "max_leverage = 0.5", "tier[1].max_leverage = 0.5", "1 to 1000"),
    ("max_leverage = 50", "max_leverage = 50.001", "tier[1].max_leverage", "2 decimals"),
    ('max_leverage = "20"', 'max_leverage = "0"', "tier[2].max_leverage = 0", "above 0"),
    ('max_leverage = "20"', 'max_leverge = "20"', "tier[2].max_leverge = '20'", "unknown key"),
    ('max_leverage = "20"', 'max_leverage = "20", x = 1', "tier[2].x = 1", "unknown key"),
    ("tier = [", "tier = [7,", "tier[0] = 7", "must be a table"),
    ("[instrument.BTCUSDT]", '[instrument."BTC USDT"]', 'instrument."BTC USDT"', "a symbol is"),
    ('"linear_perpetual"', '"inverse_perpetual"', "kind = 'inverse_perpetual'", "one of linear_"),
    ('margin_schedule = "BTCUSDT"\n', "", "instrument.BTCUSDT.margin_schedule", "is missing"),
    ('tick_size = "0.10"', "tick_size = 0", "instrument.BTCUSDT.tick_size = 0", "above 0"),
    ('tick_size = "0.10"', "tick_size = 100000000", "tick_size = 100000000", "at most 2^40"),
    ('lot_size = "0.001"', 'lot_size = "-1"', "instrument.BTCUSDT.lot_size = -1", "above 0"),
    ("tick = 10000000", "tick = 1000000001", "mark_units_per_tick = 1000000001", "1 to 10^9"),
    ('min = "0.001"', 'min = "0.0015"', "order_quantity_min = 0.0015", "lot_size 0.001"),
    ('quantity_max = "1000"', "quantity_max = 1e13", "order_quantity_max", "must be 1 to 2^53"),
    ('min = "0.001"', 'min = "0"', "order_quantity_min = 0", "is 0 lots"),
    ('min = "0.001"', 'min = "1001"', "order_quantity_max = 1000", "order_quantity_min 1001"),
    ('notional_min = "5"', 'notional_min = "0"', "order_notional_min = 0", "1 to 2^63-1"),
    (
        'notional_min = "5"',
        "notional_min = 2e6",
        "order_notional_max",
        "order_notional_min 2000000",
    ),
    ('collar_rate = "0.05"', "collar_rate = 0", "price_collar_rate = 0", "above 0"),
    ('buffer_rate = "0.0005"', "buffer_rate = 2", "market_order_buffer_rate = 2", "0 to 1"),
    ('taker_fee_rate = "0.0005"', "taker_fee_rate = -0.1", "taker_fee_rate = -0.1", "0 to 1"),
    ('buffer_rate = "0.0005"', "buffer_rate = 1", "market_order_buffer_rate = 1", "below 1"),
    ('tick_size = "0.10"', "tick_size = 1e-13", "tick_size = 0.0000000000001", "at most 10^12"),
    ("mark_age_max_ms = 5000", "mark_age_max_ms = -1", "mark_age_max_ms = -1", "must be 0"),
    (
        "mark_age_max_ms = 5000",
        "strike = 5",
        "instrument.BTCUSDT.strike",
        "is not for linear_perpetual",
    ),
    ("mark_age_max_ms = 5000", 'trading_state = "off"', "trading_state = 'off'", "reduce_only"),
    ("sources.taker_fee_rate", "sources.taker_fee", "sources.taker_fee", "no key of this section"),
    ("+01:00", "", "instrument.BTC-CALL.expiry", "with its zone"),
    ("expiry = 2030", "expiry = 1930", "instrument.BTC-CALL.expiry", "after 1970"),
    ('strike = "80000"', 'strike = "80000.001"', "strike = 80000.001", "multiple of tick_size"),
    ('strike = "80000"\n', "", "instrument.BTC-CALL.strike", "is missing"),
    ('strike = "80000"', "strike = 0", "strike = 0", "1 to 2^53"),
    ('"call"', '"straddle"', "option_type = 'straddle'", "call, put"),
    ('interest_rate = "-0.01"', "interest_rate = -2", "interest_rate = -2", "-1 to 1"),
    ('underlying = "BTCUSDT"', 'underlying = "BTC"', "underlying = 'BTC'", "there is BTCUSDT"),
    (
        'underlying = "BTCUSDT"',
        'margin_schedule = "BTCUSDT"',
        "margin_schedule",
        "is not for linear_option",
    ),
    ("[asset.USDT]", "[asset.USDT", "", "is not TOML"),
    ("scale = 8", "scale = 8\nscale = 8", "", "is not TOML"),
]


@pytest.mark.parametrize(("old", "new", "key", "reason"), MISTAKES)
def test_a_mistake_is_refused_with_path_key_and_bound(
    old: str, new: str, key: str, reason: str
) -> None:
    assert old in GOOD
    with pytest.raises(RulebookError) as caught:
        loads(GOOD.replace(old, new, 1), "tiny.toml")
    message = str(caught.value)
    assert message.startswith("tiny.toml: ")
    assert key in message
    assert reason in message


def test_numbers_are_read_as_they_are_written() -> None:
    book = loads(GOOD)
    tiers = book.schedule("BTCUSDT").tiers
    assert tiers[0].maintenance_rate == Decimal("0.004")
    assert tiers[2].initial_rate == Decimal("0.05")  # 1 / max_leverage
    # By hand: 300 + 600000 (0.025 - 0.01) = 9300.
    assert tiers[2].deduction == Decimal(9300)
    call = book.instrument("BTC-CALL")
    assert call.expiry == datetime(2030, 12, 27, 8, tzinfo=UTC)
    # `date -u -d 2030-12-27T08:00:00Z +%s` prints 1924588800.
    assert call.expiry_ns() == 1924588800 * 10**9
    # A mark unit is 5 / 500 = 0.01.
    assert call.strike_units() == 8_000_000
    perpetual = book.instrument("BTCUSDT")
    assert perpetual.tick_value(8) == 10_000
    assert perpetual.provenance.of("taker_fee_rate") == "also made up"
    assert perpetual.provenance.of("tick_size") == "made up"
    assert perpetual.provenance.as_of == date(2026, 1, 1)


def test_an_initial_rate_from_leverage_is_rounded_down() -> None:
    text = GOOD.replace('initial_rate = "0.01", ', "").replace(
        "max_leverage = 100", "max_leverage = 75"
    )
    assert loads(text).schedule("BTCUSDT").tiers[0].initial_rate == Decimal("0.013333333")


def test_the_example_of_the_documentation_loads() -> None:
    page = Path(__file__).parents[2] / "docs" / "rulebooks.md"
    example = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    assert loads(example).schedule("BTCUSDT").tiers[1].deduction == 300


ODD_VALUES = ("true", '""', "[]", "{}", "nan", "-inf", "-1", "1e39", "1e999999999", "1979-05-27")


def test_an_odd_value_is_refused_or_taken_but_never_a_crash() -> None:
    lines = GOOD.splitlines()
    for number, line in enumerate(lines):
        for odd in ODD_VALUES if " = " in line else ():
            changed = [f"{line.split(' = ')[0]} = {odd}"]
            text = "\n".join(lines[:number] + changed + lines[number + 1 :])
            try:
                book = loads(text, "odd.toml")
            except RulebookError:
                continue
            assert loads(to_toml(book)) == book


def test_an_unknown_name_lists_the_packaged_rulebooks() -> None:
    with pytest.raises(
        RulebookError, match=r"nope: no such rulebook; there are aevo, binance_coinm"
    ):
        load("nope")


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(RulebookError) as refused:
        load("/dev/zero")
    assert str(refused.value) == "/dev/zero: is more than 16777216 bytes"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RulebookError, match=r"absent\.toml: No such file"):
        load(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'title = "\xe9"')
    with pytest.raises(RulebookError, match=r"latin\.toml: is not UTF-8: byte 9"):
        load(str(tmp_path / "latin.toml"))


def test_an_unknown_symbol_names_what_there_is() -> None:
    with pytest.raises(KeyError, match="no instrument 'XYZ'; it has BTCUSDT, BTC-CALL"):
        loads(GOOD).instrument("XYZ")


@pytest.mark.parametrize("name", names())
def test_a_packaged_rulebook_is_the_same_after_a_round_trip(name: str) -> None:
    assert loads(to_toml(load(name))) == load(name)


def test_the_writer_escapes_what_toml_would_read_otherwise() -> None:
    book = loads(GOOD.replace('"For tests"', '"a \\"b\\" \\\\ \\n \\u0001 é"'))
    assert book.title == 'a "b" \\ \n \x01 é'
    assert loads(to_toml(book)) == book


def marginal(book: Rulebook) -> list[ScheduleRule]:
    return [rule for rule in book.schedules if rule.tiers and rule.tier_mode == "marginal"]


@pytest.mark.parametrize("name", names())
def test_maintenance_is_continuous_at_each_join_of_a_packaged_rulebook(name: str) -> None:
    book = load(name)
    pairs = [(rule, *pair) for rule in marginal(book) for pair in pairwise(rule.tiers)]
    for schedule, below, above in pairs:
        floor = above.floor
        left = floor * below.maintenance_rate - below.deduction
        right = floor * above.maintenance_rate - above.deduction
        assert left == right == schedule.maintenance(floor)
        # A cent more is in the upper tier and asks for its rate of that cent, no more.
        cent = Decimal("0.01")
        step = schedule.maintenance(floor + cent) - schedule.maintenance(floor)
        assert step == cent * above.maintenance_rate


@pytest.mark.parametrize("name", names())
def test_a_packaged_rulebook_obeys_the_ladder_laws(name: str) -> None:
    book = load(name)
    assert book.schedules or book.option_rules
    for schedule in book.schedules:
        tiers = schedule.tiers
        if not tiers:
            continue
        assert tiers[0].floor == tiers[0].deduction == 0
        for tier in tiers:
            assert 0 < tier.maintenance_rate < tier.initial_rate <= 1
        for low, high in pairwise(tiers):
            assert low.floor < high.floor
            assert low.maintenance_rate <= high.maintenance_rate
            assert low.maintenance_rate < high.maintenance_rate or schedule.tier_mode == "whole"
            assert low.initial_rate <= high.initial_rate
            assert low.max_leverage >= high.max_leverage


def test_the_binance_rulebook_has_the_figures_that_the_venue_printed() -> None:
    book = load("binance_usdm")
    # Bracket 12 of BTCUSDT and bracket 6 of ETHUSDT on 2024-10-24, as printed.
    last = book.schedule("BTCUSDT").tiers[11]
    assert (last.floor, last.deduction) == (Decimal(1_200_000_000), Decimal(421_481_450))
    sixth = book.schedule("ETHUSDT").tiers[5]
    assert (sixth.floor, sixth.deduction) == (Decimal(50_000_000), Decimal(381_450))
    # The venue prints marks with 8 decimals.
    for rule in book.instruments:
        assert rule.mark_unit == Decimal("1e-8")


def test_decimals_become_integers_exactly_or_not_at_all() -> None:
    assert scaled(Decimal("0.10"), 1) == 1
    assert scaled(Decimal("1e3"), 2) == 100_000
    assert scaled(Decimal("-0.05"), 2) == -5
    assert scaled(Decimal("0.05"), 1) is None
    assert multiple(Decimal("0.3"), Decimal("0.1")) == 3
    assert multiple(Decimal("0.35"), Decimal("0.1")) is None
    assert mantissa_exponent(Decimal("0.10")) == (1, -1)
    assert mantissa_exponent(Decimal(250)) == (25, 1)
    assert plain(Decimal("1E+3")) == "1000"
    assert plain(Decimal("0.500")) == "0.5"
