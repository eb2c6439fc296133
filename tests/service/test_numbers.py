"""Decimal text and integers: exact both ways, and strict on the way in."""

import random
from decimal import Decimal
from fractions import Fraction

import pytest

from riskd.numbers import (
    NumberError,
    decimal_text,
    fraction_text,
    parse_decimal,
    ratio_text,
    to_step,
    to_steps,
    to_units,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0, 0)),
        ("-0", (0, 0)),
        ("0.000", (0, 0)),
        ("65000.50", (650005, -1)),
        ("-1250.5", (-12505, -1)),
        ("1000", (1, 3)),
        ("1e3", (1, 3)),
        ("1.5E-3", (15, -4)),
        ("007", (7, 0)),
        ("9223372036854775807", (2**63 - 1, 0)),
    ],
)
def test_decimal_is_read_exactly(text: str, expected: tuple[int, int]) -> None:
    assert parse_decimal(text, "price") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1 ",
        "+1",
        ".5",
        "5.",
        "1,5",
        "1_0",
        "0x10",
        "--1",
        "1e",
        "1e1.5",
        "NaN",
        "nan",
        "Infinity",
        "-inf",
        "1e31",
        "1e-31",
        "1e999",
        "1e99999",
        "١",
        "1\n",
        "1\x00",
        "9" * 65,
        "9" * 100_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_decimal_is_refused_with_field_and_value(text: str) -> None:
    with pytest.raises(NumberError, match="price is") as caught:
        parse_decimal(text, "price")
    assert caught.value.field == "price"
    assert caught.value.bound in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.25", "price is '0.25': must be a multiple of 0.5"),
        ("0", "price is '0': must be 0.5 to 50"),
        ("-0.5", "price is '-0.5': must be 0.5 to 50"),
        ("50.5", "price is '50.5': must be 0.5 to 50"),
        ("1e30", "must be 0.5 to 50"),
        ("1e-30", "must be a multiple of 0.5"),
    ],
)
def test_step_and_bounds_are_kept_and_named(text: str, message: str) -> None:
    with pytest.raises(NumberError) as caught:
        to_steps(text, "price", 5, -1, 1, 100)
    assert message in str(caught.value)


def test_steps_and_units() -> None:
    assert to_steps("65000.5", "price", 5, -1, 1, 2**53) == 130001
    assert to_steps("60000.05", "mark", 5, -1, 1, 2**53, divisor=10) == 1_200_001
    assert to_steps("3000", "quantity", 1, 3, 1, 10) == 3
    assert to_units("-1250.5", "amount", 6, -(2**63), 2**63 - 1) == -1_250_500_000


@pytest.mark.parametrize("text", ["0", "-1", "1e13", "1e-13", "1000000000001"])
def test_bad_step_is_refused(text: str) -> None:
    with pytest.raises(NumberError, match="tick_size"):
        to_step(text, "tick_size")


def test_decode_of_encode_is_the_same() -> None:
    generator = random.Random(7)
    for _ in range(2000):
        mantissa = generator.randrange(-(2**63), 2**63)
        scale = generator.randrange(13)
        text = decimal_text(mantissa, -scale)
        assert Decimal(text) == Decimal(mantissa).scaleb(-scale)
        assert "E" not in text
        assert to_units(text, "amount", scale, -(2**63), 2**63) == mantissa


def test_fraction_is_rounded_half_even() -> None:
    assert fraction_text(1, 4) == "0.25"
    assert fraction_text(1, 3, places=4) == "0.3333"
    assert fraction_text(2, 3, places=4) == "0.6667"
    assert fraction_text(5, 100, places=1) == "0"
    assert fraction_text(15, 100, places=1) == "0.2"
    assert fraction_text(-1, 3, places=4) == "-0.3333"
    assert fraction_text(7, 2, exponent=3) == "3500"
    assert fraction_text(7, 2, exponent=-20, places=3) == "0"


def test_ratio_is_rounded_up() -> None:
    assert ratio_text(1, 3) == "0.333334"
    assert ratio_text(1, 1) == "1"
    assert ratio_text(0, 5) == "0"
    assert Fraction(ratio_text(10**30, 7)) >= Fraction(10**30, 7)
