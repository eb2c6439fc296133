"""Numbers of the exact functions: finite decimals with bounds on what a text may hold."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from fractions import Fraction

Number = Decimal | int | float | str

_EXPONENT_MAX = 400
_DIGITS_MAX = 64
_DIGITS = 34

# Products and sums of inputs are exact; a quotient has far more digits than any figure keeps.
EXACT = Context(prec=200)


def decimal(name: str, value: Number) -> Decimal:
    """Return the exact decimal; a float stands for its shortest representation.

    Raises ValueError, naming the field, if it is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str):
        raise ValueError(f"{name} must be a number, got {value!r}")
    try:
        result = Decimal(repr(float(value))) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{name} must be a number, got {value!r}") from None
    if not result.is_finite():
        raise ValueError(f"{name} must be finite, got {value!r}")
    # Checked before anything expands it: 1e999999999 is a short text.
    if result != 0 and abs(result.adjusted()) > _EXPONENT_MAX:
        raise ValueError(f"{name} {value} must be within 1e-{_EXPONENT_MAX} to 1e{_EXPONENT_MAX}")
    if len(result.as_tuple().digits) > _DIGITS_MAX:
        raise ValueError(f"{name} must have at most {_DIGITS_MAX} digits")
    return result


def positive(name: str, value: Number) -> Decimal:
    result = decimal(name, value)
    if result <= 0:
        raise ValueError(f"{name} {result} must be above 0")
    return result


def not_negative(name: str, value: Number) -> Decimal:
    result = decimal(name, value)
    if result < 0:
        raise ValueError(f"{name} {result} must not be below 0")
    return result


def quotient(dividend: Decimal, divisor: Decimal) -> Decimal:
    """Return the quotient to as many digits as a number may have, halves to the even one."""
    return Context(prec=_DIGITS_MAX).divide(dividend, divisor)


def rounded_up(value: Fraction) -> Decimal:
    return to_decimal(value, ROUND_CEILING)


def to_decimal(value: Fraction, rounding: str, digits: int = _DIGITS) -> Decimal:
    """Return a fraction as a decimal, exact if it has no more digits, without trailing zeros."""
    context = Context(prec=digits, rounding=rounding)
    quotient = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    result = quotient.normalize(context)
    exponent = result.as_tuple().exponent
    # One that is too long to write out keeps its exponent.
    if (isinstance(exponent, int) and exponent <= 0) or result.adjusted() >= EXACT.prec:
        return result
    return result.quantize(Decimal(1), context=EXACT)


def units(name: str, value: Number, places: int) -> int:
    """Return the value as a whole number of 10^-places. Raises ValueError if it is not one."""
    scaled = decimal(name, value).scaleb(places, EXACT)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{name} {value} is not a whole number of 1e-{places}")
    return int(scaled)
