"""The compiled array functions answer the vectors' questions like the exact ones."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riskd import margin
from riskd.conform.adapters import adapter_of
from riskd.conform.adapters_futures import MODELS, liquidation_question
from riskd.conform.inputs import NotCoveredError
from riskd.conform.venues import venue_of
from riskd.margin import Calculator, Position

VECTORS = Path(__file__).parents[1] / "vectors" / "liquidation.jsonl"
BESIDE = Path(__file__).parents[3] / "shared" / "vectors" / "liquidation.jsonl"
FIELDS = (
    "quantity",
    "entry_price",
    "mark_price",
    "wallet",
    "leverage",
    "fee_rate",
    "session_price",
    "multiplier",
    "tick",
)


def rows() -> list[dict[str, Any]]:
    """Return the rows of one position alone that the adapters of perpetuals and futures answer."""
    lines = VECTORS.read_text().splitlines()
    if BESIDE.exists():
        lines += BESIDE.read_text().splitlines()
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        row = json.loads(line, parse_float=Decimal)
        if "liquidation_price" not in row["expected"]:
            continue
        try:
            adapter = adapter_of(row["model"], venue_of(row["venue"]))
        except NotCoveredError:
            continue
        if adapter is MODELS.get(row["model"]) and not row["inputs"].get("other_positions"):
            asked = liquidation_question(row["model"], row["inputs"], venue_of(row["venue"]))
            position = asked.position
            # What only the exact functions take: fees and values as a venue printed them.
            if (position.closing_fee, position.frozen_maintenance, position.value_step) == (
                None,
            ) * 3:
                found[row["id"]] = row
    return list(found.values())


def columns(position: Position, copies: int) -> dict[str, Any]:
    figures = {name: getattr(position, name) for name in FIELDS}
    return {
        name: np.full(copies, float(figure))
        for name, figure in figures.items()
        if figure is not None
    }


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row["id"]))
def test_a_vector_has_the_same_price_in_an_array(row: dict[str, Any]) -> None:
    asked = liquidation_question(row["model"], row["inputs"], venue_of(row["venue"]))
    # A profit that the venue states is one of the figures that arrays take from the prices.
    position = replace(asked.position, unrealised_profit=None)
    exact = margin.liquidation_price_of(position, asked.schedule, asked.rule)
    calculator = Calculator(asked.schedule, asked.rule)
    found = calculator.liquidation_prices(columns(position, 40))
    assert exact is not None
    assert found.price.tolist() == pytest.approx([float(exact)] * 40, rel=1e-12)
    expected = float(row["expected"]["liquidation_price"])
    allowed = float(row["tolerance"]["value"])
    relative = row["tolerance"]["kind"] == "rel"
    assert abs(found.price[0] - expected) <= allowed * (abs(expected) if relative else 1)
