"""`riskd rulebook` prints tables, checks files and imports them; mistakes go to standard error."""

import argparse
import json
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
    assert "engine: cannot do yet: rule.order_margin = 'one_side_covered'; schedule.SLIPPAGE" in out
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


@pytest.mark.parametrize(
    ("name", "symbol", "key"),
    [
        ("kraken", "PI_XBTUSD", "kind is inverse_perpetual"),
        ("bitmex", "ETHUSD", "kind is quanto_perpetual"),
        ("gate", "BTC_USDT", "tier_mode is whole"),
        ("orderly", "PERP_BTC_USDC", "family is power"),
        ("mexc", "BTCUSDT", "initial_basis is entry"),
    ],
)
def test_the_margin_command_refuses_what_it_would_compute_wrong(
    name: str, symbol: str, key: str
) -> None:
    parser = argparse.ArgumentParser()
    margin.add_arguments(parser)
    position = ["--side", "long", "--quantity", "1", "--entry", "100", "--leverage", "2"]
    arguments = parser.parse_args([*position, "--rulebook", name, "--symbol", symbol])
    with pytest.raises(ValueError, match=f"rulebook {name}: {key}: riskd margin computes linear"):
        margin.compute(arguments)


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
