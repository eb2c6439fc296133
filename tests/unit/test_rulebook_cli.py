"""`riskd rulebook` prints tables, checks files and imports them; mistakes go to standard error."""

import argparse
from pathlib import Path

import pytest

from riskd.rulebooks import cli, load, names

TWO_SYMBOLS = str(Path(__file__).parent.parent / "data" / "ccxt_two_symbols.json")


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
    assert "2030-12-27 08:00:00+00:00" in capsys.readouterr().out


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
