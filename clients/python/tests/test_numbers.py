"""Laws of exact numbers: decimals to whole steps and back."""

from decimal import Decimal

import pytest

from riskd_client.errors import InvalidInput, OffLot, OffMinorUnit, OffTick, OutOfRange
from riskd_client.numbers import (
    STEPS_MAX,
    Amount,
    exact,
    minor_units,
    money,
    step_value,
    text,
    whole,
    whole_steps,
)


def ticks(value: Amount, step: str = "0.1", per_step: int = 1) -> int:
    return whole_steps(value, Decimal(step), per_step, "price", OffTick)


@pytest.mark.parametrize("value", [65000.5, float("nan"), True, None, b"1", 1j])
def test_what_is_not_exact_is_refused_with_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"price is .* write an exact number"):
        exact(value, "price")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["", "abc", "1.2.3", "NaN", "Infinity", "-inf", "0x10"])
def test_text_that_is_no_finite_number_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="price"):
        exact(value, "price")


@pytest.mark.parametrize("value", ["1e1000000000", "1e40", "1e-41", "0." + "1" * 41])
def test_a_number_of_too_many_digits_is_refused_without_expanding_it(value: str) -> None:
    with pytest.raises(OutOfRange, match="more than 40 digits"):
        text(value, "amount")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("1E+3", "1000"),
        ("-0.50", "-0.50"),
        (7, "7"),
        ("0E+1000000", "0"),
        ("1e-12", "0." + "0" * 11 + "1"),
    ],
)
def test_text_is_plain_and_never_has_an_exponent(value: Amount, plain: str) -> None:
    assert text(value, "amount") == plain


@pytest.mark.parametrize("value", ["65000.5", Decimal("65000.50"), "6.50005e4"])
def test_the_same_price_is_the_same_ticks_however_it_is_written(value: Amount) -> None:
    assert ticks(value) == 650005


@pytest.mark.parametrize(
    ("value", "lower", "upper"),
    [("65000.53", "65000.5", "65000.6"), ("0.1000000001", "0.1", "0.2"), ("0.05", None, "0.1")],
)
def test_an_off_tick_price_names_its_valid_neighbours(
    value: str, lower: str | None, upper: str
) -> None:
    with pytest.raises(OffTick, match=f"price {value} is not a multiple of the tick 0.1") as caught:
        ticks(value)
    assert caught.value.lower == (lower if lower is None else Decimal(lower))
    assert caught.value.upper == Decimal(upper)
    assert str(caught.value.upper) in str(caught.value)


@pytest.mark.parametrize("value", ["0", "-0.1", "-65000.55", "0.00"])
def test_a_price_that_is_not_above_zero_is_out_of_range(value: str) -> None:
    with pytest.raises(OutOfRange, match="not above zero"):
        ticks(value)


def test_two_to_the_53_steps_pass_and_one_more_does_not() -> None:
    largest = step_value(STEPS_MAX, Decimal("0.00000001"))
    assert ticks(largest, "0.00000001") == STEPS_MAX
    with pytest.raises(OutOfRange, match=r"is above 90071992\.54740992, the largest"):
        ticks(largest + Decimal("0.00000001"), "0.00000001")


def test_a_third_of_a_tick_is_counted_exactly() -> None:
    assert ticks("0.2", "0.1", per_step=3) == 6
    with pytest.raises(OffTick, match=r"0\.1 / 3"):
        ticks("0.05", "0.1", per_step=3)


@pytest.mark.parametrize("count", [1, 2, 9, 10, 649_999, STEPS_MAX - 1, STEPS_MAX])
@pytest.mark.parametrize("step", ["0.1", "0.5", "0.00000001", "25", "0.125", "1e-12"])
def test_steps_of_the_value_of_steps_are_the_steps(count: int, step: str) -> None:
    assert (
        whole_steps(step_value(count, Decimal(step)), Decimal(step), 1, "quantity", OffLot) == count
    )


@pytest.mark.parametrize("minor", [0, 1, -1, 2**63 - 1, -(2**63 - 1)])
@pytest.mark.parametrize("scale", [0, 6, 12])
def test_minor_units_of_money_are_the_minor_units(minor: int, scale: int) -> None:
    assert minor_units(money(minor, scale), scale, "fee", OffMinorUnit) == minor


@pytest.mark.parametrize(
    ("value", "lower", "upper"), [("0.015", "0.01", "0.02"), ("-0.015", "-0.02", "-0.01")]
)
def test_money_between_minor_units_names_its_neighbours_on_the_number_line(
    value: str, lower: str, upper: str
) -> None:
    with pytest.raises(OffMinorUnit) as caught:
        minor_units(value, 2, "fee", OffMinorUnit)
    assert (caught.value.lower, caught.value.upper) == (Decimal(lower), Decimal(upper))


def test_money_beyond_64_bits_is_out_of_range() -> None:
    with pytest.raises(OutOfRange, match="64 bits"):
        minor_units(2**63, 0, "fee", OffMinorUnit)


@pytest.mark.parametrize("value", [0, -1, 2**64])
def test_an_id_outside_its_bits_is_out_of_range(value: int) -> None:
    with pytest.raises(OutOfRange, match=r"account -?\d+ is not within 1 to 2\^64 - 1"):
        whole(value, "account", 64)


@pytest.mark.parametrize("value", ["1", 1.0, True])
def test_an_id_that_is_no_int_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="account"):
        whole(value, "account", 64)  # type: ignore[arg-type]
