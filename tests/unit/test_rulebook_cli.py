"""`riskd rulebook` prints tables, checks files and imports them; mistakes go to standard error."""

import argparse
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from riskd.commands import margin
from riskd.rulebooks import cli, load, names, to_toml

DATA = Path(__file__).parents[1] / "data"
TWO_SYMBOLS = str(DATA / "ccxt_two_symbols.json")


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="riskd rulebook")
    cli.add_arguments(parser)
    return cli.run(parser.parse_args(arguments))


def test_list_names_all_packaged_rulebooks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *names()]


def test_show_prints_the_tiers_of_a_symbol(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "binance_usdm", "BTCUSDT") == 0
    out = capsys.readouterr().out
    assert "   2         600,000   1.3333333%        0.65%          950       75x" in out
    assert "largest position: 1,800,000,000" in out
    assert "assumption: 0.05 %" in out


def test_show_prints_what_a_rulebook_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "textbook_options") == 0
    out = capsys.readouterr().out
    assert "BTC-USDT-301227-80000-C  linear_option     USDT" in out
    assert run("show", "textbook_options", "BTC-USDT-301227-80000-C") == 0
    assert "2030-12-27T08:00:00+00:00" in capsys.readouterr().out


def test_show_prints_an_asset_and_what_else_has_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("show", "binance_usdm", "USDT") == 0
    out = capsys.readouterr().out
    assert out.startswith("asset USDT\nas of ")
    assert re.search(r"^scale +8$", out, re.MULTILINE)
    assert run("show", "drift", "SOL") == 0
    assert re.findall(r"^(asset|collateral) SOL$", capsys.readouterr().out, re.MULTILINE) == [
        "asset",
        "collateral",
    ]


def test_show_refuses_an_unknown_symbol(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "textbook", "XYZ") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "rulebook textbook has no schedule 'XYZ'; it has TEXTBOOK" in captured.err


def test_check_goes_on_after_a_wrong_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("format = 1\n")
    assert run("check", str(wrong), "textbook") == 1
    captured = capsys.readouterr()
    assert captured.out == "textbook: ok: 1 asset, 1 schedule, 1 instrument\n"
    assert captured.err == f"riskd rulebook: {wrong}: name: is missing\n"
    assert run("check", "binance_usdm") == 0


def test_import_writes_a_rulebook_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "venue.toml"
    options = ("--symbol", "BTC/USDT:USDT", "--name", "venue", "--as-of", "2024-10-24")
    assert run("import", "--layout", "ccxt", TWO_SYMBOLS, "--out", str(out), *options) == 0
    assert capsys.readouterr().out == f"{out}: wrote 1 asset, 1 schedule, 0 instruments\n"
    assert load(out).schedule("BTCUSDT").tiers[1].deduction == 50
    assert run("import", "--layout", "ccxt", TWO_SYMBOLS, *options) == 0
    assert capsys.readouterr().out == out.read_text()


def test_import_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "--layout", "ccxt", str(tmp_path / "absent.json")) == 1
    assert "absent.json: No such file" in capsys.readouterr().err
    away = str(tmp_path / "no" / "such" / "directory.toml")
    assert run("import", "--layout", "ccxt", TWO_SYMBOLS, "--out", away) == 1
    assert "directory.toml: No such file" in capsys.readouterr().err


def test_show_prints_rules_levels_and_option_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "vega") == 0
    out = capsys.readouterr().out
    assert "order_margin          one_side_covered" in out
    assert "engine: cannot do yet: rule.order_margin = 'one_side_covered'\n" in out
    assert "engine leaves out: schedule.SLIPPAGE.family = 'risk_factor': no instrument has" in out
    assert "search                 1.1" in out
    assert run("show", "deribit", "ETH") == 0
    assert "put_initial_over_maintenance                              1" in capsys.readouterr().out
    assert run("show", "deribit", "BTC_USDC") == 0
    assert "initial_slope             0.00005" in capsys.readouterr().out
    assert run("show", "drift", "SOL") == 0
    assert "asset_weight  maintenance_asset_weight" in capsys.readouterr().out


@pytest.mark.parametrize("name", names())
def test_show_prints_every_part_of_every_packaged_rulebook(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    book = load(name)
    assert run("show", name) == 0
    parts = [rule.symbol for rule in book.instruments]
    parts += [asset.symbol for asset in book.assets]
    for rules in (book.schedules, book.option_rules, book.collateral):
        parts += [rule.name for rule in rules]
    listing = capsys.readouterr().out
    for part in parts:
        assert part in listing
        assert run("show", name, part) == 0
        assert part in capsys.readouterr().out


CHANGED = [
    "schedule.TEXTBOOK.tier[0].maintenance_rate: 0.01 -> 0.015",
    "instrument.BTC-PERP.tick_size: 0.1 -> 0.2",
    "schedule.TEXTBOOK.tier[1].floor: absent -> 2000",
    "schedule.TEXTBOOK.tier[1].initial_rate: absent -> 0.1",
    "schedule.TEXTBOOK.tier[1].maintenance_rate: absent -> 0.05",
    "schedule.TEXTBOOK.tier[1].deduction: absent -> 70",
    "schedule.TEXTBOOK.tier[1].max_leverage: absent -> 10",
]
# By hand: 1000 x 0.015 = 15, and 0.05 x 10000 - 2000 (0.05 - 0.015) = 430.
NEEDS = ["1,000 USD 10 15 +50.00%", "10,000 USD 100 430 +330.00%"]


def test_diff_says_what_changed_and_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = to_toml(load("textbook")).replace('tick_size = "0.1"', 'tick_size = "0.2"')
    text = text.replace('maintenance_rate = "0.01"', 'maintenance_rate = "0.015"')
    tier = '{ floor = "2000", maintenance_rate = "0.05", max_leverage = "10" },\n]'
    other = tmp_path / "other.toml"
    other.write_text(text.replace("\n]", f"\n{tier}"))
    assert run("diff", "textbook", "textbook") == 0
    assert capsys.readouterr().out == ""
    assert run("diff", "textbook", str(other)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(CHANGED)] == CHANGED
    assert [" ".join(line.split()[1:]) for line in lines if " 15 " in line or " 430 " in line] == (
        NEEDS
    )
    assert run("diff", "textbook", "nope") == 2
    assert run("diff", "textbook", "textbook@soon") == 2
    assert "must be a time" in capsys.readouterr().err


def test_diff_compares_two_times_of_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(DATA / "rulebook_format2.toml")
    assert run("diff", f"{file}@2026-02-01T00:00:00Z", f"{file}@2026-07-01", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    paths = {each["path"]: (each["old"], each["new"]) for each in found["changes"]}
    assert paths["schedule.TIERS.tier[0].maintenance_rate"] == ("0.004", "0.008")
    first = found["maintenance"][0]
    assert (first["schedule"], first["size"], first["per_cent"]) == ("TIERS", "1", "100")
    assert run("diff", f"{file}@2026-02-01", f"{file}@2026-03-01") == 0
    assert run("diff", f"{file}@2025-02-01", file) == 2
    assert "is not in force at 2025-02-01T00:00:00+00:00" in capsys.readouterr().err


def test_sources_differ_only_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(to_toml(load("textbook")).replace("2026-01-01", "2026-01-02"))
    assert run("diff", "textbook", str(other)) == 0
    assert run("diff", "--sources", "textbook", str(other)) == 1
    assert "asset.USD.as_of: 2026-01-01 -> 2026-01-02" in capsys.readouterr().out


def test_export_and_import_are_inverse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported, again = tmp_path / "tiers.json", tmp_path / "again.toml"
    assert run("export", "binance_usdm", "--out", str(exported)) == 0
    assert run("import", str(exported), "--as-of", "2024-10-24", "--out", str(again)) == 0
    capsys.readouterr()
    before, after = load("binance_usdm"), load(again)
    assert [(rule.name, rule.tiers, rule.notional_max) for rule in after.schedules] == [
        (rule.name, rule.tiers, rule.notional_max) for rule in before.schedules
    ]
    assert run("export", "kraken") == 1
    assert "rule.tier_key = 'quantity': must be notional" in capsys.readouterr().err
    assert run("import", str(exported), "--maintenance-part", "half") == 1
    assert "'half' must be a plain decimal number" in capsys.readouterr().err


def figures(*arguments: str) -> dict[str, str]:
    parser = argparse.ArgumentParser()
    margin.add_arguments(parser)
    return dict(margin.compute(parser.parse_args(arguments)))


def position(side: str, quantity: str, entry: str, name: str, symbol: str) -> tuple[str, ...]:
    words = f"--side {side} --quantity {quantity} --entry {entry} --rulebook {name}"
    return (*words.split(), "--symbol", symbol)


# The venues' own examples, as in test_rulebook_venues.py: key, value, tolerance.
EXAMPLES = [
    (
        (*position("long", "1000", "8000", "kraken", "PI_XBTUSD"), "--wallet", "0.01"),
        {"liquidation price": (7481, 0.5), "bankruptcy price": (7407, 0.5)},
    ),
    (
        (*position("long", "0.1", "50000", "mexc", "BTCUSDT"), "--leverage", "25"),
        {"liquidation price": (48200, 0)},
    ),
    (
        (*position("long", "0.5", "250", "hyperliquid", "XYZ"), "--wallet", "25"),
        {"liquidation price": (210.5263157894737, 1e-9)},
    ),
    (
        (*position("long", "0.017", "16155", "bitget", "BTCUSDT"), "--leverage", "25"),
        # Maintenance has the taker fee in it: 16155 * 0.017 * (0.004 + 0.0006).
        {"liquidation price": (15580.47, 0.01), "maintenance margin": (1.263321, 0)},
    ),
    (
        # 100 coins: max(0.1, 0.8 * 0.1 + 0.001 * 10) is 0.1, and 0.05 of maintenance.
        (*position("short", "100", "100", "drift", "SOL-PERP"), "--leverage", "10"),
        {"initial margin": (1000, 0), "maintenance margin": (500, 0)},
    ),
    (
        # 0.1 of a long, 0.5 and 2 * 0.01 of slippage, of 200; initial margin is 1.2 times that.
        (*position("long", "2", "100", "vega", "SLIPPAGE"), "--wallet", "200"),
        {"maintenance margin": (124, 0), "initial margin": (148.8, 1e-9)},
    ),
    (
        # Both requirements have the fee 0.00075 (1 + 1/50) of the value in the wallet.
        (*position("short", "100000", "8000", "bitmex", "XBTUSD"), "--leverage", "50"),
        {"wallet": (12.5 / 50 + 12.5 * 0.00075 * 1.02, 1e-12)},
    ),
    (
        # A contract is 0.000001 BTC a dollar: 0.3 BTC is in the first tier, where 50x is allowed.
        (*position("long", "100", "3000", "bitmex", "ETHUSD"), "--leverage", "50"),
        {"initial margin": (100 * 3000 * 1e-6 / 50, 1e-12)},
    ),
    (
        (
            *position("short", "1", "0.017497423", "deribit", "ETH"),
            *["--option-type", "call", "--strike", "2100", "--underlying", "1882.4"],
        ),
        {"initial margin": (0.117497423, 1e-12), "maintenance margin": (0.092497423, 1e-12)},
    ),
]


@pytest.mark.parametrize(
    ("arguments", "expect"), EXAMPLES, ids=lambda value: "" if isinstance(value, dict) else value[7]
)
def test_the_margin_command_reproduces_the_venues_examples(
    arguments: tuple[str, ...], expect: dict[str, tuple[float, float]]
) -> None:
    shown = figures(*arguments)
    for key, (value, tolerance) in expect.items():
        assert abs(float(shown[key]) - value) <= tolerance, (key, shown[key])


@pytest.mark.parametrize("name", names())
def test_the_margin_command_computes_every_packaged_schedule_and_contract(name: str) -> None:
    book = load(name)
    symbols = [rule.name for rule in book.schedules]
    symbols += [rule.symbol for rule in book.instruments if rule.is_contract]
    for symbol in symbols:
        for side in ("long", "short"):
            shown = figures(*position(side, "1", "100", name, symbol), "--leverage", "1")
            assert Decimal(shown["initial margin"]) >= Decimal(shown["maintenance margin"])
            assert shown["liquidatable"] == "no"


def test_the_margin_command_tells_the_distance_in_daily_volatilities() -> None:
    shown = figures(
        *position("short", "1000", "8000", "kraken", "PI_XBTUSD"),
        *["--wallet", "0.025", "--mark", "8000", "--volatility", "0.5"],
    )
    # 1000 * 0.99 / (0.125 - 0.025): an inverse short ends above.
    assert shown["liquidation price"] == "9900"
    assert shown["distance to liquidation"] == "23.7500%"
    assert float(shown["distance in daily volatilities"]) == pytest.approx(0.2375 * 365**0.5 / 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (position("long", "1", "1", "drift", "NO"), "rulebook drift has no schedule 'NO'; it has"),
        (position("long", "1", "1", "drift", "PERP"), "one of --leverage and --wallet is needed"),
        (
            (*position("long", "1", "1", "gate", "BTC_USDT"), "--strike", "5"),
            "--strike is of options",
        ),
        (
            (*position("long", "1", "1", "gate", "BTC_USDT"), "--leverage", "101"),
            "leverage is 101: must be 1 to 100, by the position's size",
        ),
        (
            (*position("long", "1", "1", "bybit_inverse", "BTCUSD"), "--wallet", "5"),
            "--wallet: the rule puts a fee aside by the leverage: give --leverage",
        ),
        (
            (*position("long", "1", "1", "bybit_linear", "XRPUSDT"), "--liquidation-fee-rate", "0"),
            "--liquidation-fee-rate: the rule has a fee for closing: --taker-fee-rate",
        ),
        (
            (*position("short", "1", "1", "aevo", "OPTIONS"), "--leverage", "5"),
            "--leverage is not of options",
        ),
        (
            position("short", "1", "1", "aevo", "OPTIONS"),
            "--option-type is needed for the option rule OPTIONS",
        ),
        (
            (*position("short", "1", "1", "aevo", "OPTIONS"), *["--option-type", "put"]),
            "--strike is needed for the option rule OPTIONS",
        ),
        (
            (
                *position("short", "1", "1", "aevo", "OPTIONS"),
                *["--option-type", "put", "--strike", "5"],
            ),
            "--underlying is needed: a short option counts on that price",
        ),
        (
            position("short", "1", "1", "opyn", "NAKED_PUT"),
            "option_rule NAKED_PUT: option_naked is",
        ),
    ],
)
def test_the_margin_command_says_what_it_lacks(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises((ValueError, KeyError), match=re.escape(message)):
        figures(*arguments)


def test_the_margin_command_knows_the_options_of_a_rulebook() -> None:
    call = "BTC-USDT-301227-80000-C"
    assert figures(*position("long", "2", "1000", "textbook_options", call)) == {
        "premium": "2000",
        "value at mark": "2000",
        "initial margin": "0, the premium is paid in full",
    }
    with pytest.raises(ValueError, match="has no option_rule: it cannot be short"):
        figures(*position("short", "2", "1000", "textbook_options", call))


def test_the_margin_command_counts_the_coins_of_an_option_s_contract(tmp_path: Path) -> None:
    name = "BTC-27DEC30-80000-C"
    text = (DATA / "rulebook_format2.toml").read_text(encoding="utf-8")
    before, mark, option = text.partition(f"[instrument.{name}]")
    path = tmp_path / "tiny.toml"
    path.write_text(before + mark + option.replace("lot", 'contract_multiplier = "0.1"\nlot', 1))
    shown = figures(*position("long", "2", "0.05", str(path), name), "--mark", "0.06")
    assert (shown["premium"], shown["value at mark"]) == ("0.01", "0.012")


def test_the_documentation_s_versions_differ_as_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DATA.parents[1] / "docs" / "rulebooks.md").read_text(encoding="utf-8")
    first, versions = (block.split("```")[0] for block in page.split("```toml\n")[1:3])
    before, _, rest = first.partition("[schedule.BTCUSDT]")
    text = f"{before}{versions}\n[instrument{rest.partition('[instrument')[2]}"
    (tmp_path / "my_venue.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    command, _, expected = page.partition("$ riskd rulebook diff ")[2].partition("\n")
    assert run("diff", *command.split()) == 1
    assert capsys.readouterr().out.startswith(expected.partition("...")[0])
