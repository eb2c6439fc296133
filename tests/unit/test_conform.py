"""`riskd conform`: the vectors of this repository and those beside it, and what a bad row does."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from riskd import conform

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
# Cases of reason codes are commands for the engine: test_reasons.py runs them.
OWN = sorted(set(VECTORS.glob("*.jsonl")) - {VECTORS / "reasons.jsonl"})
BESIDE = ROOT.parent / "shared" / "vectors"

FLAT = {"side": "long", "qty": 2, "entry": 100, "margin_quote": 20, "mmr": 0.01}
ROW = {
    "id": "flat",
    "venue": "Binance USD-M",
    "model": "isolated_liquidation_linear",
    "inputs": FLAT,
    # (200 - 20) / (2 * 0.99)
    "expected": {"liquidation_price": 90.9090909},
    "tolerance": {"value": 1e-7, "kind": "abs"},
}
OPTION = {"option_type": "call", "spot": 60, "strike": 65, "vol": 0.3, "time_years": 0.25}
PRICE_ROW = {
    **ROW,
    "id": "haug",
    "venue": "any",
    "model": "bs_price",
    "inputs": {**OPTION, "rate_cont": 0.08},
    # Haug's textbook, as in QuantLib@2a13d455 test-suite/europeanoption.cpp:291.
    "expected": {"price": 2.1334},
    "tolerance": {"value": 1e-4, "kind": "abs"},
}


def check(*rows: Any) -> conform.Report:
    return conform.check(
        [(f"rows:{index}", json.dumps(row).encode()) for index, row in enumerate(rows, start=1)]
    )


def check_files(paths: list[Path]) -> conform.Report:
    return conform.check(
        [
            (f"{path.name}:{number}", line)
            for path in paths
            for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        ]
    )


def test_every_vector_of_this_repository_is_covered_and_passes() -> None:
    report = check_files(OWN)
    assert [failure.line() for failure in report.failures] == []
    assert report.total().rows == report.total().passed >= 80


def test_the_vectors_beside_the_repository_pass_where_they_are_covered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = sorted(BESIDE.glob("*.jsonl"))
    if not paths:
        with capsys.disabled():
            print(f"\n{BESIDE}: no vectors there, only those of the repository were checked")
        return
    report = check_files(paths)
    assert [failure.line() for failure in report.failures] == []
    assert report.total().passed >= 249


@pytest.mark.parametrize(
    "inputs",
    [
        FLAT,
        {"position": FLAT},
        {**FLAT, "side": "BUY"},
        {**FLAT, "side": "both"},
        {"posSide": "net", "currentQty": 2, "avgPx": 100, "isolatedWallet": 20, "mmr_pct": 1},
        {**FLAT, "mmr": None, "maintenanceMarginRateBps": 100},
        {**FLAT, "qty": "2.0", "maint_amount": 0},
        {"qty": 2, "entry_price": 100, "leverage": 10, "mmr": 0.01},
        {"side": "long", "lots": 20, "lot_size": 0.1, "entry": 100, "wallet": 20, "mmr": 0.01},
        {**FLAT, "margin_quote": None, "isolated_margin": 30, "unrealised_pnl": 10},
        {**FLAT, "margin_quote": None, "isolated_margin": 30, "mark": 105},
        {**FLAT, "tiers": [{"min": 0, "max": 1000, "mmr": 0.01}, {"min": 1000, "mmr": 0.5}]},
    ],
)
def test_an_input_goes_by_several_names(inputs: dict[str, Any]) -> None:
    assert check({**ROW, "inputs": inputs}).total().passed == 1


def test_a_letter_of_a_formula_is_its_name() -> None:
    inputs = {"option_type": "call", "K": 130, "S": 120, "mark": 3, "A": 0.25, "b": 0.15}
    row = {**ROW, "venue": "bit.com", "model": "option_short_margin", "inputs": inputs}
    # max(0.25 * 120 - 10, 0.15 * 120) + 3
    assert check({**row, "expected": {"IM": 23}}).total().passed == 1


@pytest.mark.parametrize(
    "change",
    [
        {"contracts_usd": 5, "equity": 0.01},
        {"contracts": 5, "face_usd": 1, "equity": 0.01},
        {"contracts": 5, "face": 1, "instrument": "ETH-USD-SWAP", "equity": 0.01},
        {"contracts": 5, "face": 1, "instId": "ETH-USD-230929", "equity": 0.01},
        {"contracts": 5, "face": 1, "equity_coin": 0.01},
        {"contracts": 5, "face": 1, "contract_type": "inverse", "eq": 0.01},
    ],
)
def test_a_contract_settled_in_coin_is_told_from_its_words(change: dict[str, Any]) -> None:
    inputs = {"side": "long", "mark": 1600, "mmr": 0.008, "taker_fee": 0.0005, **change}
    row = {**ROW, "venue": "OKX", "model": "cross_liquidation", "inputs": inputs}
    # 5 (1 + 0.0085) / (0.01 + 5 / 1600)
    assert check({**row, "expected": {"liquidation_price": 384.19047619}}).total().passed == 1


@pytest.mark.parametrize("name", ["call", "CALL", "c"])
def test_an_option_type_goes_by_several_names(name: str) -> None:
    row = {**PRICE_ROW, "inputs": {**OPTION, "rate_cont": 0.08, "option_type": name}}
    assert check(row).total().passed == 1


@pytest.mark.parametrize(
    "change",
    [
        {"model": "portfolio_margin"},
        {"venue": "Derive"},
        {"venue": "Binances"},
        {"venue": "Hyperliquids"},
        {"expected": {"liquidation_price": 90.9090909, "insurance_fund": 1}},
    ],
)
def test_what_the_library_has_no_rule_for_is_not_covered(change: dict[str, Any]) -> None:
    total = check({**ROW, **change}).total()
    assert (total.passed, total.failed, total.not_covered) == (0, 0, 1)


def test_a_figure_out_of_tolerance_fails_with_its_difference() -> None:
    report = check({**ROW, "expected": {"liquidation_price": 91}})
    assert [failure.line() for failure in report.failures] == [
        "FAILED flat liquidation_price: expected 91, got 90.909090909090907, difference -0.0909091"
    ]


@pytest.mark.parametrize("none", [None, "", "0", 0, -3.2, "MAX", 2**64 - 1])
def test_no_figure_meets_what_rows_write_for_none_and_nothing_else(none: Any) -> None:
    row = {**ROW, "expected": {"liquidation_price": none}}
    rich = {**row, "inputs": {**FLAT, "margin_quote": 200}}
    assert check(row).total().failed == 1
    assert check(rich).total().passed == (none != "0")
    # A price that is not there is not any price.
    assert check({**rich, "expected": {"liquidation_price": 90.9}}).total().failed == 1


@pytest.mark.parametrize(
    "name", ["liq_price", "liqPx", "liquidationPrice", "liquidation_price_usd"]
)
def test_an_output_goes_by_several_names(name: str) -> None:
    assert check({**ROW, "expected": {name: 90.9090909}}).total().passed == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([], "rows:1 row: a row must be a JSON object"),
        ({**ROW, "id": 7}, "rows:1 row: id must be a text, got 7"),
        ({**ROW, "inputs": 7}, "rows:1 row: inputs must be an object, got 7"),
        ({**ROW, "expected": {}}, "rows:1 row: expected must name at least one output"),
        ({**ROW, "tolerance": {"value": 1}}, "tolerance.kind must be abs or rel, got None"),
        ({**ROW, "tolerance": {"kind": "abs"}}, "tolerance.value must be a number, got None"),
        ({**ROW, "inputs": {**FLAT, "mmr": None}}, "flat inputs: inputs.mmr is missing"),
        ({**ROW, "inputs": {**FLAT, "qty": "x"}}, "inputs.qty must be a number, got 'x'"),
        ({**ROW, "inputs": {**FLAT, "qty": 0}}, "expected 90.909090899999995, got None"),
        ({**ROW, "inputs": {**FLAT, "entry": 0}}, "entry_price 0 must be above 0"),
        ({**ROW, "inputs": {**FLAT, "side": "up"}}, "inputs.side must be long or short, got 'up'"),
        ({**ROW, "inputs": {**FLAT, "tiers": 5}}, "inputs.tiers must be a list, got 5"),
        ({**ROW, "inputs": {**FLAT, "tiers": [5]}}, "inputs.tiers[0] must be an object, got 5"),
        ({**ROW, "venue": "OKX"}, "inputs.taker_fee is missing"),
        ({**ROW, "expected": {"liquidation_price": "x"}}, "must be a number, got 'x'"),
        ({**PRICE_ROW, "inputs": {**OPTION, "vol": -1}}, "volatility -1.0 must not be below 0"),
        ({**PRICE_ROW, "inputs": {**OPTION, "vol": 1e400}}, "inputs.vol must be finite"),
    ],
)
def test_a_malformed_row_fails_by_name(row: Any, says: str) -> None:
    report = check(row)
    assert report.total().failed == 1
    assert says in report.failures[0].line()


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[" * 100_000, b"1" * 5000, b'"\\ud800"'])
def test_a_line_that_is_not_json_fails_by_place(line: bytes) -> None:
    report = conform.check([("file.jsonl:3", line)])
    assert report.failures[0].row_id == "file.jsonl:3"


def test_rows_that_are_not_covered_are_listed_with_the_reason() -> None:
    asked = {**ROW, "expected": {"insurance_fund": 1}}
    report = check(asked, asked, {**ROW, "venue": "other"}, ROW)
    assert report.not_covered() == [
        "not covered: 2 of Binance USD-M, isolated_liquidation_linear: no output insurance_fund",
        "not covered: 1 of other, isolated_liquidation_linear: "
        "no rule for this model of this venue",
    ]


@pytest.mark.parametrize(
    ("long", "short"),
    [("LONG", "Short"), ("Buy", "SELL"), (" bid", "ask "), ("b", "S"), (1, -1), ("+1", "-1")],
)
def test_a_side_is_spelled_in_many_ways(long: object, short: object) -> None:
    # (200 - 20) / (2 * 0.99) and (200 + 20) / (2 * 1.01)
    for side, price in ((long, 90.9090909), (short, 108.9108911)):
        row = {**ROW, "inputs": {**FLAT, "side": side}, "expected": {"liquidation_price": price}}
        assert check(row).total().passed == 1
        orders = [{"side": side, "remaining": 10, "price": 50}]
        inputs = {"position": -10, "orders": orders, "margin_factor": 0.5}
        vega = {**ROW, "venue": "Vega", "model": "isolated_order_margin", "inputs": inputs}
        # A short covers the buy, not the sell.
        margin = 0 if side == long else 250
        assert check({**vega, "expected": {"order_margin": margin}}).total().passed == 1


@pytest.mark.parametrize("model", ["isolated_liquidation_linear", "cross_liquidation"])
def test_a_maintenance_rate_is_needed_only_for_what_counts_it(model: str) -> None:
    inputs = {name: value for name, value in FLAT.items() if name != "mmr"}
    row = {**ROW, "model": model, "inputs": inputs}
    assert check({**row, "expected": {"bankruptcy_price": 90}}).total().passed == 1
    for name in ("liquidation_price", "maintenance_margin", "margin_ratio"):
        (failure,) = check({**row, "expected": {name: 1}}).failures
        assert failure.got == "inputs.mmr is missing"
    priced = {**row, "model": "margin_linear", "inputs": {**inputs, "leverage": 10}}
    assert check({**priced, "expected": {"initial_margin": 20}}).total().passed == 1
    (failure,) = check({**priced, "expected": {"maintenance_margin": 0}}).failures
    assert failure.got == "inputs.mmr is missing"
    for each in (row, {**priced, "inputs": inputs}):
        (failure,) = check({**each, "expected": {"initial_margin": 0}}).failures
        assert failure.got == "inputs.leverage is missing"


def test_tiers_that_leave_a_hole_between_them_are_refused() -> None:
    tiers = [{"min": 0, "max": 100, "mmr": 0.01}, {"min": 101, "max": 200, "mmr": 0.02}]
    row = {**ROW, "inputs": {**FLAT, "tiers": tiers}, "expected": {"liquidation_price": 91.3265306}}
    # The value at the price is above 100: (200 - 20 - 1) / (2 * 0.98).
    assert check(row).total().passed == 1
    for wrong in (102, 99):
        tiers[1]["min"] = wrong
        (failure,) = check(row).failures
        says = f"inputs.tiers[1] begins at {wrong}, the tier below ends at 100"
        assert (failure.output, failure.got) == ("inputs", says)


def test_the_exit_status_is_one_if_a_row_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps(PRICE_ROW) + "\n")
    assert conform.main([str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "venue          model                        rows  passed  failed  not covered",
        "Binance USD-M  isolated_liquidation_linear     1       1       0            0",
        "any            bs_price                        1       1       0            0",
        "total                                          2       2       0            0",
    ]
    path.write_text(json.dumps({**ROW, "expected": {"liquidation_price": 91}}))
    assert conform.main([str(path)]) == 1
    assert conform.main([str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl: No such file" in capsys.readouterr().err


def test_json_has_totals_groups_and_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, "expected": {"liquidation_price": 91}}))
    assert conform.main([str(path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out, parse_float=Decimal)
    counts = {"rows": 1, "passed": 0, "failed": 1, "not_covered": 0}
    venue = {"venue": "Binance USD-M", "model": "isolated_liquidation_linear"}
    failure = report.pop("failures")[0]
    assert report == {**counts, "groups": [{**venue, **counts}]}
    assert (failure["id"], failure["output"]) == ("flat", "liquidation_price")
    assert failure["expected"] == 91
    assert round(failure["got"], 7) == Decimal("90.9090909")


def test_the_longest_name_of_a_venue_counts() -> None:
    assert conform.venue_of("Gate/OKX (via freqtrade)") is conform.VENUES["Gate"]
    assert conform.venue_of("Bybit (legacy inverse)") is conform.VENUES["Bybit (legacy"]
    assert conform.venue_of("bybit") is conform.VENUES["Bybit"]
    assert conform.venue_of("Bybit-style (PointPay)") is conform.VENUES["PointPay"]
    assert conform.venue_of("KuCoin (since May-2025)") is conform.VENUES["KuCoin (2025"]
    assert conform.venue_of("Reg-T") is conform.VENUES["US"]
    assert conform.venue_of("Bybit (2026 help)") is conform.VENUES["Bybit (2026"]
    assert conform.venue_of("Binance USD-M (via freqtrade)").floor_is_in
    assert not conform.venue_of("Binance USD-M").floor_is_in
    assert conform.venue_of("Gateway").domains == ()


def test_a_file_without_rows_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    assert conform.main([str(empty)]) == 2
    assert "nothing was checked" in capsys.readouterr().err


def test_markdown_has_a_line_for_each_group_and_names_what_did_not_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {**ROW, "source": "github:owner/name@0ae3e3b1:tests/test_margin.py:12"},
        {**ROW, "id": "wrong", "expected": {"liquidation_price": 91}, "source": "a page; "},
        {**ROW, "id": "new", "venue": "other", "model": "unheard_of"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert conform.main([str(path), "--markdown"]) == 1
    table = capsys.readouterr().out
    assert "| Binance USD-M | isolated_liquidation_linear | 2 | 1 | 1e-07 abs | 1, 2 |\n" in table
    assert "| **total** | | **3** | **1** | | |\n" in table
    blob = "https://github.com/owner/name/blob/0ae3e3b1/tests/test_margin.py"
    assert f"1. [owner/name@0ae3e3b1]({blob}) `tests/test_margin.py`\n2. a page\n" in table
    assert "* FAILED wrong liquidation_price: expected 91, got " in table
    assert "* not covered: 1 of other, unheard_of: no rule for this model of this venue" in table
    path.write_text(json.dumps(ROW))
    assert conform.main([str(path), "--markdown"]) == 0
    assert capsys.readouterr().out.endswith("\n\nEvery row passed.\n")


def respelled(value: Any, name_of: Callable[[str], str], is_text: bool) -> Any:
    if isinstance(value, list):
        return [respelled(item, name_of, is_text) for item in value]
    if isinstance(value, dict):
        return {name_of(name): respelled(item, name_of, is_text) for name, item in value.items()}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_text and is_number else value


@pytest.mark.parametrize("is_text", [False, True])
def test_rows_mean_the_same_in_camel_case_and_with_numbers_as_texts(is_text: bool) -> None:
    def camel(name: str) -> str:
        return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)

    names = [VECTORS / f"{name}.jsonl" for name in ("families", "liquidation", "margin")]
    rows = [json.loads(line) for path in names for line in path.read_text().splitlines()]
    for row in rows:
        row["inputs"] = respelled(row["inputs"], camel, is_text)
        row["expected"] = {camel(name): value for name, value in row["expected"].items()}
    assert [failure.line() for failure in check(*rows).failures] == []
    assert check(*rows).total().passed == len(rows) >= 100
