"""`riskd conform` on rows of options and of the DeFi families that somebody has damaged."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from riskd import conform

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "vectors" / "families.jsonl").read_text().splitlines()
]
BAD: list[Any] = [None, "x", -1, 0, 1e300, -1e300, 2**70, [], {}, [[1]], [{}], True, "nan"]


def damaged(inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the inputs with each of them gone or bad, also one level down."""
    for name, value in inputs.items():
        yield {other: inputs[other] for other in inputs if other != name}
        for bad in BAD:
            yield {**inputs, name: bad}
        if isinstance(value, dict):
            for inner in damaged(value):
                yield {**inputs, name: inner}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["id"]))
def test_a_damaged_row_fails_in_words_and_never_breaks_the_run(row: dict[str, Any]) -> None:
    lines = [
        (f"{row['id']}:{number}", json.dumps({**row, "inputs": copy.deepcopy(inputs)}).encode())
        for number, inputs in enumerate(damaged(row["inputs"]), start=1)
    ]
    report = conform.check(lines)
    assert report.total().rows == len(lines)
    for failure in report.failures:
        assert len(failure.line()) < 1500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"option_type": "straddle"}, "option_type 'straddle' must be 'call' or 'put'"),
        ({"strike": None}, "strike is missing"),
        ({"premium": -1}, "mark -1.0 must be finite and not below 0"),
        ({"underlying": 0}, "reference 0.0 must be finite and above 0"),
        ({"settlement": "gold"}, "inputs.settlement must be cash or coin, got 'gold'"),
    ],
)
def test_what_is_wrong_with_an_option_is_named(changes: dict[str, Any], message: str) -> None:
    row = next(row for row in ROWS if row["id"] == "tastyworks-short-put")
    bad = {**row, "inputs": {**row["inputs"], **changes}}
    report = conform.check([("row", json.dumps(bad).encode())])
    assert [failure.got for failure in report.failures] == [message]


def test_a_venue_without_a_rule_for_options_is_not_covered() -> None:
    row = {**ROWS[0], "venue": "nobody"}
    report = conform.check([("row", json.dumps(row).encode())])
    assert report.total().not_covered == 1


@pytest.mark.parametrize("buffer", [0.1, 1000, "1000"])
def test_a_buffer_is_a_part_or_in_the_units_on_chain(buffer: object) -> None:
    inputs = {
        "cross": {"usdc": 20000, "sol_borrow": 100},
        "isolated": {"base": 100, "quote": -11000, "deposit": 100},
        "price": 100,
        "perp_initial_ratio": 0.1,
        "sol_initial_liability_weight": 1.2,
        "buffer": buffer,
    }
    # A tenth of the liabilities of 10,000 more, and of the loss of 1,000 less.
    expected = {
        "cross_requirement": 13000,
        "cross_collateral": 20000,
        "isolated_requirement": 2000,
        "isolated_collateral": -1000,
    }
    row: dict[str, Any] = {"id": "buffer", "venue": "Drift", "model": "isolated_vs_cross_margin"}
    tolerance = {"value": 1e-9, "kind": "abs"}
    row |= {"inputs": inputs, "expected": expected, "tolerance": tolerance}
    report = conform.check([("row", json.dumps(row).encode())])
    assert report.total().passed == 1


def test_the_premium_of_an_order_is_the_entry_price_of_its_short() -> None:
    inputs = {"option_type": "call", "side": "short", "qty": 1, "strike": 31000, "index": 30000}
    row = {
        "id": "order",
        "venue": "Bybit",
        "model": "option_short_margin",
        "inputs": {**inputs, "mark": 300, "premium": 500},
        # max(0.15 * 30000 - 1000, 0.10 * 30000) + max(500, 300), plus the fee, less the premium
        "expected": {"order_initial_margin": 3500 + 500 + 9 - 500},
        "tolerance": {"value": 1e-9, "kind": "abs"},
    }
    assert conform.check([("row", json.dumps(row).encode())]).total().passed == 1


def test_what_a_row_leaves_out_is_taken_from_what_it_says() -> None:
    tolerance = {"tolerance": {"value": 1e-9, "kind": "abs"}}
    # A spread without a word of its settlement is in the money of its collateral.
    spread = {
        "id": "spread",
        "venue": "Opyn Gamma",
        "model": "option_spread_max_loss",
        "inputs": {
            "option_type": "call",
            "short_strike": 200,
            "short_qty": 1,
            "long_strike": 250,
            "long_qty": 1,
            "collateral_coin": 0,
        },
        "expected": {"excess_collateral_coin": -0.2},
    }
    # A first order has no position yet: (100 - 100 (1 / 10 + 0.0006)) / (1 - 0.05).
    order = {
        "id": "order",
        "venue": "Orderly",
        "model": "isolated_liquidation_linear",
        "inputs": {
            "order_side": "BUY",
            "order_qty": 1,
            "order_price": 100,
            "leverage": 10,
            "base_mmr": 0.05,
            "base_imr": 0.1,
            "imr_factor": 0,
        },
        "expected": {"liquidation_price": 94.67368421052632},
    }
    lines = [("row", json.dumps({**row, **tolerance}).encode()) for row in (spread, order)]
    assert conform.check(lines).total().passed == 2
