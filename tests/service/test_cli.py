"""The command line: exit statuses, messages, and what `check` shows of a running service."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from riskd import __version__
from riskd.cli import COMMANDS, main
from riskd.core.engine import Engine
from riskd.rulebooks import installer, loader
from riskd.v1 import audit_service_pb2, types_pb2
from tests.processes import running

if TYPE_CHECKING:
    from tests.service.conftest import Rig

HARD = types_pb2.LIMIT_ACTION_HARD
SOFT = types_pb2.LIMIT_ACTION_SOFT

Capture = pytest.CaptureFixture[str]

BUILT_IN = ["serve", "check", "price", "margin", "what-if", "market", "limits"]


def test_version_is_the_packages(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"riskd {__version__}\n"


def test_help_lists_every_command_and_gives_examples(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in COMMANDS)
    assert "examples:" in out


@pytest.mark.parametrize("command", BUILT_IN)
def test_help_of_a_command_gives_examples(capsys: Capture, command: str) -> None:
    assert main([command, "--help"]) == 0
    assert f"  riskd {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["price"], ["check", "--account", "x"], ["serve", "--no-such-flag"]],
    ids=str,
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_missing_piece_breaks_only_its_own_command(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "demo", ("riskd.no_such_module", "gone"))
    assert main(["demo"]) == 1
    assert "riskd demo: not available in this installation" in capsys.readouterr().err
    assert main(["price", "--help"]) == 0


def test_price_shows_black_76(capsys: Capture) -> None:
    arguments = "price --type call --forward 100 --strike 100 --volatility 0.2 --years 1 --json"
    assert main(arguments.split()) == 0
    figures = json.loads(capsys.readouterr().out)
    # At the money without interest: F (2 N(0.1) - 1), N(0.1) = 0.539827837277029.
    assert float(figures["price"]) == pytest.approx(7.9655674554058, abs=1e-10)
    assert float(figures["delta"]) == pytest.approx(0.539827837277, abs=1e-11)


def test_price_out_of_domain_is_1_and_names_the_field(capsys: Capture) -> None:
    arguments = "price --type call --forward nan --strike 100 --volatility 0.2 --days 1"
    assert main(arguments.split()) == 1
    assert "forward" in capsys.readouterr().err


def test_margin_of_a_flat_rate(capsys: Capture) -> None:
    arguments = (
        "margin --side long --quantity 0.1 --entry 60000 --wallet 700 --maintenance-rate 0.005"
        " --mark 59000 --json"
    )
    assert main(arguments.split()) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["entry_value"] == "6000"
    assert figures["unrealised_pnl"] == "-100"
    assert figures["equity"] == "600"
    assert figures["maintenance_margin"] == "29.5"
    assert figures["liquidatable"] == "no"
    # (6000 - 700) / (0.1 (1 - 0.005)) and (6000 - 700) / 0.1
    assert float(figures["liquidation_price"]) == pytest.approx(5300 / 0.0995, abs=1e-4)
    assert figures["bankruptcy_price"] == "53000"


def test_margin_takes_its_rates_from_a_rulebook(capsys: Capture) -> None:
    arguments = (
        "margin --side short --quantity 0.5 --entry 65000 --leverage 20"
        " --rulebook binance_usdm --symbol BTCUSDT --json"
    )
    assert main(arguments.split()) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["wallet"] == "1625"
    assert float(figures["liquidation_price"]) > 65000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--quantity 0 --maintenance-rate 0.01 --leverage 5", "quantity is '0': must be above 0"),
        ("--quantity nan --maintenance-rate 0.01 --leverage 5", "quantity is 'nan'"),
        (
            "--quantity 1 --maintenance-rate 0.01 --leverage 0.5",
            "leverage is 0.5: must be at least",
        ),
        ("--quantity 1 --rulebook binance_usdm --leverage 5", "--rulebook needs --symbol"),
        ("--quantity 1 --rulebook no_such --symbol X --leverage 5", "no such rulebook"),
        ("--quantity 1 --rulebook binance_usdm --symbol X --leverage 5", "has no schedule 'X'"),
    ],
)
def test_bad_margin_input_is_1_and_named(capsys: Capture, arguments: str, message: str) -> None:
    assert main(["margin", "--side", "long", "--entry", "100", *arguments.split()]) == 1
    assert message in capsys.readouterr().err


def what_if(rig: Rig, arguments: str) -> int:
    return main(["what-if", "--address", f"127.0.0.1:{rig.port}", *arguments.split()])


def test_what_if_shows_an_account_with_an_order_more(market: Rig, capsys: Capture) -> None:
    before = market.engine.state_hash()
    arguments = "--account 7 --position BTC-PERP=0.2@60000 --order BTC-PERP=-0.1@61000"
    assert what_if(market, f"{arguments} --mark BTC-PERP=61000") == 0
    out = capsys.readouterr().out
    assert re.search(r"cross equity +10200 USDT", out)
    assert re.search(r"BTC-PERP +net +cross +0.2 +60000 +61000 +200 ", out)
    assert re.search(r"BTC-PERP=-0.1@61000 +ACCEPTED +NONE +", out)
    assert market.engine.state_hash() == before


def test_what_if_of_nothing_and_an_order_that_is_rejected(market: Rig, capsys: Capture) -> None:
    arguments = "--asset USDT --balance USDT=100 --order BTC-PERP=1@60000 --json"
    assert what_if(market, arguments) == 1
    reply = json.loads(capsys.readouterr().out)
    assert reply["decisions"][0]["reason"] == "REASON_CODE_MARGIN_INSUFFICIENT"
    assert reply["summary"]["cash"] == "100"


def test_what_if_of_an_isolated_hedge(market: Rig, capsys: Capture) -> None:
    arguments = (
        "--asset USDT --hedge --position BTC-PERP=1@60000,wallet=3000,leverage=20,side=long "
        "--position BTC-PERP=-1@61000,wallet=3100,leverage=20,side=short"
    )
    assert what_if(market, arguments) == 0
    out = capsys.readouterr().out
    assert re.search(r"isolated wallets +6100 USDT", out)
    # (60000 - 3000 - 250) / (1 - 0.01) and (61000 + 3100 + 250) / 1.01, on marks of 0.05
    assert re.search(r"long +isolated +1 +60000 +60000 +0 .* 57323.2 ", out)
    assert re.search(r"short +isolated +-1 +61000 +60000 +1000 .* 63712.9 ", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--account 7 --position BTC-PERP", "--position 'BTC-PERP': must be NAME=VALUE"),
        ("--account 7 --position X=1@2", "symbol 'X' is unknown: the service has BTC-PERP"),
        ("--account 7 --position BTC-PERP=1@2,size=3", "--position: 'size' is not one of"),
        ("--account 7 --order BTC-PERP=1,side=up", "--order: side is 'up': must be long or short"),
        ("--account 7 --order BTC-PERP=1@", "--order '1@': there is no price after @"),
        (
            "--account 7 --position BTC-PERP=1@2,leverage=5,leverage=6",
            "--position: leverage is there twice",
        ),
        ("--account 8", "NOT_FOUND: account_id 8 is unknown"),
        ("--account 7 --position BTC-PERP=1", "positions[0].entry_price is '': must be given"),
        ("--account 7 --mark BTC-PERP=0.01", "marks[0].mark_price is '0.01': must be a multiple"),
    ],
)
def test_what_if_names_what_is_wrong(
    market: Rig, capsys: Capture, arguments: str, message: str
) -> None:
    assert what_if(market, arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("account", ["0", "-1", "1.5", "18446744073709551616", "x"])
def test_an_account_that_cannot_be_is_named(capsys: Capture, account: str) -> None:
    assert main(["what-if", "--account", account]) == 2
    assert f"argument --account: '{account}': must be 1 to 2^64 - 1" in capsys.readouterr().err


def on_market(rig: Rig, action: str, arguments: str = "") -> int:
    address = f"--address 127.0.0.1:{rig.port}"
    return main(["market", action, *f"{address} {arguments}".split()])


def test_market_lists_funds_and_settles(market: Rig, capsys: Capture) -> None:
    assert on_market(market, "list") == 0
    assert re.search(
        r"1 +BTC-PERP +linear_perpetual +USDT +BTC +0.5 +0.001 +normal", capsys.readouterr().out
    )
    funding = f"--symbol BTC-PERP --rate 0.0001 --time-ns {market.clock()}"
    assert on_market(market, "funding", f"{funding} --dry-run") == 0
    assert re.search(r"positions +0\n +paid +0 USDT", capsys.readouterr().out)
    assert market.engine.instruments()[0].funding_time_ns == 0
    assert on_market(market, "funding", funding) == 0
    assert market.engine.instruments()[0].funding_time_ns == market.clock()
    assert on_market(market, "funding", funding) == 1
    assert "time_ns is" in capsys.readouterr().err
    assert on_market(market, "settle", "--symbol BTC-PERP --price 60000") == 1
    assert "never expires and is not HALTED" in capsys.readouterr().err
    market.engine.set_trading_state(4, 1, 3)
    assert on_market(market, "settle", "--symbol BTC-PERP --price 60000") == 0
    assert on_market(market, "list") == 0
    assert "settled at 60000" in capsys.readouterr().out


def check(rig: Rig, arguments: str) -> int:
    common = f"check --address 127.0.0.1:{rig.port} --account 7 --gateway 3"
    return main([*common.split(), *arguments.split()])


def test_check_shows_an_accepted_order_and_changes_nothing(market: Rig, capsys: Capture) -> None:
    before = market.engine.state_hash(), market.engine.revision
    assert check(market, "--symbol BTC-PERP --side buy --quantity 0.1 --price 60000") == 0
    out = capsys.readouterr().out
    assert out.startswith("ACCEPTED\n")
    assert re.search(r"margin of this order +303 USDT", out)
    assert re.search(r"available +9697 USDT", out)
    assert re.search(r"liquidation price +cannot_be_liquidated", out)
    assert (market.engine.state_hash(), market.engine.revision) == before


def test_check_reserves_only_when_asked(market: Rig, capsys: Capture) -> None:
    arguments = "--symbol BTC-PERP --side sell --quantity 0.1 --reserve --client-order-id 5"
    assert check(market, arguments) == 0
    assert re.search(r"reservation +\d+", capsys.readouterr().out)
    assert len(market.engine.working_reservations(1, 0, 10)) == 1


def test_check_of_a_rejected_order_is_1_and_explains_it(market: Rig, capsys: Capture) -> None:
    arguments = "--symbol BTC-PERP --side buy --quantity 5 --price 66000 --view full"
    assert check(market, arguments) == 1
    out = capsys.readouterr().out
    assert out.startswith("REJECTED: PRICE_OUTSIDE_COLLAR\n")
    # 60000 + 5 per cent.
    assert "violated PRICE_OUTSIDE_COLLAR: limit 63000, in use 0, this order 66000" in out
    assert "violated MARGIN_INSUFFICIENT: limit 10000 USDT" in out


def test_check_says_what_is_not_known(market: Rig, capsys: Capture) -> None:
    assert check(market, "--symbol BTC-PERP --side buy --quantity 1 --account 99") == 1
    out = capsys.readouterr().out
    assert out.startswith("REJECTED: ACCOUNT_UNKNOWN\n")
    assert re.search(r"margin of this order +not known", out)
    assert re.search(r"available +not known", out)


def test_check_prints_json(market: Rig, capsys: Capture) -> None:
    assert check(market, "--symbol BTC-PERP --side buy --quantity 0.1 --price 60000 --json") == 0
    assert json.loads(capsys.readouterr().out)["decision"] == "DECISION_ACCEPTED"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--symbol NONE --side buy --quantity 1", "symbol 'NONE' is unknown: the service has"),
        ("--symbol BTC-PERP --side buy --quantity 0.0001", "must be a multiple of 0.001"),
        ("--symbol BTC-PERP --side buy --quantity -1", "quantity is '-1'"),
        ("--symbol BTC-PERP --side buy --quantity 1 --price 0.3", "must be a multiple of 0.5"),
        ("--symbol BTC-PERP --side buy --quantity 1 --client-order-id -1", "client-order-id"),
    ],
)
def test_bad_check_input_is_1_and_named(
    market: Rig, capsys: Capture, arguments: str, message: str
) -> None:
    assert check(market, arguments) == 1
    assert message in capsys.readouterr().err


def test_check_without_a_service_is_1(market: Rig, capsys: Capture) -> None:
    market.server.stop(0)
    assert check(market, "--symbol BTC-PERP --side buy --quantity 1") == 1
    assert grpc.StatusCode.UNAVAILABLE.name in capsys.readouterr().err


def test_settings_are_shown_and_a_mistake_is_1(capsys: Capture) -> None:
    assert main(["serve", "--show-settings", "--worker-threads", "3"]) == 0
    assert re.search(r"worker_threads = 3 +# flag --worker-threads", capsys.readouterr().out)
    assert main(["serve", "--control-address", "0.0.0.0:1"]) == 1
    assert "not loopback" in capsys.readouterr().err
    address = ["--control-address", "127.0.0.1:0", "--durability", "none"]
    assert main(["serve", *address, "--rulebooks", "no_such"]) == 1
    assert "rulebooks: no_such" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_until_a_signal_and_ends_with_0(tmp_path: Path, number: int) -> None:
    options = ["--control-address", "127.0.0.1:0", "--listener-addresses", "127.0.0.1:0"]
    options += ["--metrics-address", "127.0.0.1:0"]
    options += ["--journal-directory", str(tmp_path / "journal")]
    with running(*options, stderr=subprocess.PIPE) as (process, said):
        match = re.fullmatch(r"serving on 127\.0\.0\.1:(\d+)\n", said[-1])
        assert match
        common = f"check --address 127.0.0.1:{match[1]} --account 1 --symbol X --side buy"
        assert main([*common.split(), "--quantity", "1"]) == 1
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        lines = [json.loads(line) for line in err.splitlines()]
        assert [line["message"] for line in lines] == [
            "journal opened", "serving", "stopping", "stopped",
        ]  # fmt: skip


def test_check_shows_the_limit_that_an_order_breaks(market: Rig, capsys: Capture) -> None:
    for kind, action in (("OPEN_ORDERS_MAX", HARD), ("ORDER_NOTIONAL_MAX", SOFT)):
        number = types_pb2.LimitKind.Value(f"LIMIT_KIND_{kind}")
        market.engine.set_limit(3, 7, 0, number, 0, 0, action, market.engine.revision)
    command = f"check --address 127.0.0.1:{market.port} --account 7 --symbol BTC-PERP --side buy"
    arguments = [*command.split(), "--quantity", "0.1", "--price", "60000", "--view", "full"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert out.startswith("REJECTED: LIMIT_OPEN_ORDERS_MAX\n")
    assert "violated LIMIT_OPEN_ORDERS_MAX of account 7: limit 0, in use 0, this order 1\n" in out
    assert (
        "violated LIMIT_ORDER_NOTIONAL_MAX of account 7 (a warning): limit 0 USDT, in use 0 USDT, "
        "this order 6000 USDT\n" in out
    )
    market.engine.remove_limit(3, 7, 0, types_pb2.LIMIT_KIND_OPEN_ORDERS_MAX)
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("ACCEPTED_WITH_WARNING: LIMIT_ORDER_NOTIONAL_MAX")


def limits_command(rig: Rig, *arguments: str) -> list[str]:
    return ["limits", arguments[0], "--address", f"127.0.0.1:{rig.port}", *arguments[1:]]


def test_limits_are_set_listed_raised_and_removed(market: Rig, capsys: Capture) -> None:
    named = ["--account", "7", "--kind", "order_notional_max"]
    assert main(limits_command(market, "set", *named, "--value", "5000", "--actor", "ann")) == 0
    assert capsys.readouterr().out == "1 limit set\n"
    rate = ["--gateway", "3", "--kind", "order_rate_max", "--value", "10", "--burst", "4"]
    assert main(limits_command(market, "set", *rate, "--soft")) == 0
    assert main(limits_command(market, "raise", *named, "--value", "7000", "--hours", "0.5")) == 1
    # The service's clock stands in 2023: half an hour from now is later than 7 days from then.
    assert "until_time_ns" in capsys.readouterr().err
    assert main(limits_command(market, "list")) == 0
    header, gateway, account = capsys.readouterr().out.splitlines()
    assert header.split() == ["level", "limit", "instrument", "value", "use", "remaining", "used",
                              "action"]  # fmt: skip
    assert gateway.split() == ["gateway", "3", "ORDER_RATE_MAX", "all", "10/s,", "burst", "4", "0",
                               "4", "0.0%", "soft"]  # fmt: skip
    assert account.split() == ["account", "7", "ORDER_NOTIONAL_MAX", "all", "5000", "hard"]
    assert main(limits_command(market, "list", "--account", "7")) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(limits_command(market, "remove", *named)) == 0
    assert capsys.readouterr().out == "1 limit removed\n"
    assert main(limits_command(market, "remove", *named)) == 1
    assert "NOT_FOUND: limit ORDER_NOTIONAL_MAX of account 7 is not set" in capsys.readouterr().err
    changes = market.audit.ListChanges(audit_service_pb2.ListChangesRequest()).changes
    assert changes[2].method == "SetLimit"
    assert changes[2].actor == "ann"


def test_limit_is_raised_for_some_hours(new_rig: Callable[..., Rig], capsys: Capture) -> None:
    rig = new_rig(time.time_ns)
    rate = ["--gateway", "3", "--kind", "order_rate_max", "--value"]
    assert main(limits_command(rig, "set", *rate, "10", "--burst", "4")) == 0
    assert main(limits_command(rig, "raise", *rate, "20", "--hours", "0.5")) == 0
    assert "20 instead of 10 for 0.5 hours" in capsys.readouterr().out
    assert main(limits_command(rig, "list")) == 0
    assert "20 (raised from 10)" in capsys.readouterr().out


def test_file_of_limits_is_set_parents_first(market: Rig, capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(
        '[[limit]]\naccount = 7\nkind = "OPEN_ORDERS_MAX"\nvalue = 3\n'
        '[[limit]]\naccount = 7\nkind = "DENIED"\ninstrument = "BTC-PERP"\n'
    )
    assert main(limits_command(market, "set", "--file", str(path), "--comment", "desk")) == 0
    assert capsys.readouterr().out == "2 limits set\n"
    assert len(market.engine.limits()) == 2
    path.write_text('[[limit]]\naccount = 7\nkind = "DENIED"\ninstrument = "XYZ"\n')
    assert main(limits_command(market, "set", "--file", str(path))) == 1
    shown = capsys.readouterr().err
    assert f"{path}: limit[0].instrument = 'XYZ': the service has no such instrument" in shown
    path.write_text('[[limit]]\naccount = 9\nkind = "OPEN_ORDERS_MAX"\nvalue = 3\n')
    assert main(limits_command(market, "set", "--file", str(path))) == 1
    assert "NOT_FOUND: account_id 9 is unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "--account", "7"], "limit.kind: is missing"),
        (["set", "--account", "0", "--kind", "denied"], "limit.account = 0: must be 1 to 2^64 - 1"),
        (
            ["set", "--account", "7", "--kind", "open_orders_max"],
            "limit.value: must be a number for OPEN_ORDERS_MAX",
        ),
        (
            ["set", "--account", "7", "--kind", "open_orders_max", "--value", "many"],
            "value is 'many'",
        ),
        (["set", "--file", "x.toml", "--account", "7"], "give --file or --account, not both"),
        (["set", "--file", "none.toml"], "none.toml: No such file or directory"),
        (
            ["raise", "--account", "7", "--kind", "daily_loss_max", "--value", "1", "--hours", "x"],
            "hours is 'x': must be a number above 0, up to 168",
        ),
        (
            [
                "raise",
                "--account",
                "7",
                "--kind",
                "daily_loss_max",
                "--value",
                "1",
                "--hours",
                "169",
            ],
            "hours is '169': must be a number above 0, up to 168",
        ),
    ],
)
def test_wrong_limit_is_1_and_names_the_field(
    market: Rig, capsys: Capture, arguments: list[str], message: str
) -> None:
    before = market.engine.state_hash()
    assert main(limits_command(market, *arguments)) == 1
    assert message in capsys.readouterr().err
    assert market.engine.state_hash() == before


def test_limits_of_a_file_are_proved(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(
        '[[limit]]\nfirm = 1\nkind = "GROSS_EXPOSURE_MAX"\nvalue = 100000\n'
        '[[limit]]\ngateway = 3\nkind = "ORDER_RATE_MAX"\nvalue = 10\nburst = 2\n'
    )
    command = ["limits", "prove", "--file", str(path)]
    assert main([*command, "--rulebook", "textbook"]) == 0
    out = capsys.readouterr().out
    assert "LIMIT_GROSS_EXPOSURE_MAX" in out
    assert out.endswith("2 of 2 limits stopped their order\n")
    assert main(command) == 1
    assert "--file needs --rulebook" in capsys.readouterr().err
    path.write_text('[[limit]]\naccount = 1\nkind = "CONCENTRATION_MAX"\nvalue = 1\n')
    assert main([*command, "--rulebook", "textbook"]) == 1
    out = capsys.readouterr().out
    assert "not broken by any order" in out
    assert out.endswith("1 of 1 limits did not stop their order\n")


def test_limits_of_a_journal_are_proved_and_it_is_only_read(
    capsys: Capture, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    engine = Engine()
    engine.open_journal(journal, durability="process")
    installer.apply(loader.load("textbook"), engine)
    engine.create_account(7, 1, types_pb2.MARGIN_MODE_CROSS, 1000, 0, now_ns=1)
    kind = types_pb2.LIMIT_KIND_OPEN_ORDERS_MAX
    engine.set_limit(3, 7, 0, kind, 2, 0, types_pb2.LIMIT_ACTION_HARD, 1)
    engine.close_journal()
    before = {file.name: file.read_bytes() for file in journal.iterdir()}
    assert main(["limits", "prove", "--journal", str(journal)]) == 0
    assert "account 7 OPEN_ORDERS_MAX 2" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in journal.iterdir()} == before
    assert main(["limits", "prove", "--journal", str(tmp_path / "none")]) == 1
