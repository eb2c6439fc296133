"""Integers and fractions: rounding, and what fits."""

from fractions import Fraction
from typing import Final

BILLION: Final = 10**9
COUNT_MAX: Final = 2**53
"""Largest price in ticks or mark units, and largest quantity in lots."""
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
YEAR_NS: Final = 365 * 86400 * 10**9


def ceil_div(numerator: int, denominator: int) -> int:
    """Return numerator / denominator towards plus infinity; the denominator is positive."""
    return -(-numerator // denominator)


def ceil(value: Fraction) -> int:
    return ceil_div(value.numerator, value.denominator)


def floor(value: Fraction) -> int:
    return value.numerator // value.denominator


def fits(*figures: int) -> bool:
    """Return whether every figure is a signed 64-bit integer (M-3)."""
    return all(INT64_MIN <= figure <= INT64_MAX for figure in figures)


def clamp(figure: int) -> int:
    return max(INT64_MIN, min(INT64_MAX, figure))


def sign_of(figure: int) -> int:
    return (figure > 0) - (figure < 0)
