"""Decimal text to integers and back, exactly.

Cold messages and command lines carry decimal text ("65000.5"), the engine integers
(docs/decision.md). Nothing is rounded on the way in: what does not fit its step or its bounds
raises NumberError, which names the field, the value and the bound.
"""

import re

INT64_MAX = 2**63 - 1
NUMBER_MAX = 2**53
RATE_SCALE = 9
LEVERAGE_SCALE = 2
STEP_MANTISSA_MAX = 10**12
STEP_EXPONENT_MAX = 12

# Enough for a 64-bit integer of any scale here; more is a mistake or an attack, and a number is
# never expanded before these bounds were checked.
TEXT_LENGTH_MAX = 64
EXPONENT_MAX = 30

_DECIMAL = re.compile(
    r"(?P<sign>-?)(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]+))?(?:[eE](?P<exponent>[+-]?[0-9]{1,3}))?",
    re.ASCII,
)


class NumberError(ValueError):
    """A number is not valid: names the field, the value and the bound."""

    def __init__(self, field: str, value: str, bound: str) -> None:
        shown = value if len(value) <= TEXT_LENGTH_MAX else value[:TEXT_LENGTH_MAX] + "..."
        super().__init__(f"{field} is {shown!r}: {bound}")
        self.field = field
        self.value = shown
        self.bound = bound


def parse_decimal(text: str, field: str) -> tuple[int, int]:
    """Return (mantissa, exponent) of a decimal text, without trailing zeros in the mantissa.

    Refuses NaN, infinities, blanks, a leading plus or point, and exponents beyond 30.
    """
    if len(text) > TEXT_LENGTH_MAX:
        raise NumberError(field, text, f"must have at most {TEXT_LENGTH_MAX} characters")
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise NumberError(field, text, 'must be a decimal number such as "1250.5"')
    part = match["part"] or ""
    stated = int(match["exponent"] or 0)
    if abs(stated) > EXPONENT_MAX:
        raise NumberError(field, text, f"exponent must be -{EXPONENT_MAX} to {EXPONENT_MAX}")
    mantissa = int(match["sign"] + match["whole"] + part)
    return normalise(mantissa, stated - len(part))


def normalise(mantissa: int, exponent: int) -> tuple[int, int]:
    """Return the same number without trailing zeros in the mantissa; zero is (0, 0)."""
    if mantissa == 0:
        return 0, 0
    while mantissa % 10 == 0:
        mantissa //= 10
        exponent += 1
    return mantissa, exponent


def to_units(text: str, field: str, scale: int, minimum: int, maximum: int) -> int:
    """Return a decimal text as a whole number of 10^-scale, within minimum to maximum."""
    return to_steps(text, field, 1, -scale, minimum, maximum)


def to_steps(
    text: str,
    field: str,
    step_mantissa: int,
    step_exponent: int,
    minimum: int,
    maximum: int,
    divisor: int = 1,
) -> int:
    """Return a decimal text as a whole number of steps, within minimum to maximum steps.

    A step is step_mantissa * 10^step_exponent / divisor.
    """
    mantissa, exponent = parse_decimal(text, field)
    shift = exponent - step_exponent
    numerator = mantissa * divisor * _power_of_ten(shift)
    steps, rest = divmod(numerator, step_mantissa * _power_of_ten(-shift))
    if rest:
        step = fraction_text(step_mantissa, divisor, step_exponent)
        raise NumberError(field, text, f"must be a multiple of {step}")
    if not minimum <= steps <= maximum:
        low = fraction_text(minimum * step_mantissa, divisor, step_exponent)
        high = fraction_text(maximum * step_mantissa, divisor, step_exponent)
        raise NumberError(field, text, f"must be {low} to {high}")
    return steps


def to_step(text: str, field: str) -> tuple[int, int]:
    """Return (mantissa, exponent) of a step: a decimal above zero, with bounds on both."""
    mantissa, exponent = parse_decimal(text, field)
    if mantissa <= 0:
        raise NumberError(field, text, "must be above 0")
    if mantissa > STEP_MANTISSA_MAX or abs(exponent) > STEP_EXPONENT_MAX:
        raise NumberError(field, text, "must be 1 to 10^12, times 10^-12 to 10^12")
    return mantissa, exponent


def decimal_text(mantissa: int, exponent: int) -> str:
    """Return mantissa * 10^exponent in plain decimal notation, without trailing zeros."""
    mantissa, exponent = normalise(mantissa, exponent)
    sign = "-" if mantissa < 0 else ""
    digits = str(abs(mantissa))
    if exponent >= 0:
        return sign + digits + "0" * exponent
    digits = digits.rjust(1 - exponent, "0")
    return f"{sign}{digits[:exponent]}.{digits[exponent:]}"


def fraction_text(numerator: int, denominator: int, exponent: int = 0, places: int = 18) -> str:
    """Return numerator / denominator * 10^exponent, exact or rounded half even to places decimals.

    The denominator is above zero.
    """
    shift = exponent + places
    numerator *= _power_of_ten(shift)
    denominator *= _power_of_ten(-shift)
    quotient, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and quotient % 2):
        quotient += 1
    return decimal_text(quotient, -places)


def ratio_text(numerator: int, denominator: int, places: int = 6) -> str:
    """Return numerator / denominator rounded up to places decimals; denominator above zero."""
    return decimal_text(-(-numerator * _power_of_ten(places) // denominator), -places)


def _power_of_ten(exponent: int) -> int:
    """Return 10^exponent, 1 below zero."""
    return int(10 ** max(exponent, 0))


def money_text(minor: int, scale: int) -> str:
    """Return an amount of minor units of an asset in units of the asset."""
    return decimal_text(minor, -scale)


def rate_text(ppb: int) -> str:
    """Return a rate of 1e-9 as a decimal."""
    return decimal_text(ppb, -RATE_SCALE)


def leverage_text(hundredths: int) -> str:
    """Return a leverage of hundredths as a decimal."""
    return decimal_text(hundredths, -LEVERAGE_SCALE)
