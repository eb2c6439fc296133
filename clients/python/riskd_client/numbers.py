"""Exact numbers: decimals on the caller's side, whole numbers of steps on the wire.

Nothing here rounds, except a mark that is read back (its unit need not be a finite decimal).
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation

from riskd_client.errors import InvalidInput, OffStep, OutOfRange

Amount = Decimal | str | int
"""An exact number: Decimal("65000.5"), "65000.5" or 65000. Never a float."""

# Largest number of ticks, mark units and lots.
STEPS_MAX = 2**53
MINOR_MAX = 2**63 - 1

# A number has at most so many digits on either side of its point. The product of two then fits
# EXACT, which raises instead of rounding.
DIGITS_MAX = 40
EXACT = Context(prec=4 * DIGITS_MAX, traps=[InvalidOperation, Inexact])
# A quotient with so many digits is on the right side of every tie and every whole number.
QUOTIENT = Context(prec=8 * DIGITS_MAX, traps=[InvalidOperation])
ROUNDED = Context(prec=28, rounding=ROUND_HALF_EVEN)


def exact(value: Amount, field: str) -> Decimal:
    """Return value as a Decimal.

    Raises TypeError for a float or anything else that is not exact, and InvalidInput for text that
    is not a finite number of at most 40 digits on either side of the point.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | str | int):
        raise TypeError(
            f"{field} is {value!r} ({type(value).__name__}): write an exact number, "
            f'Decimal("65000.5"), "65000.5" or 65000'
        )
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise InvalidInput(f"{field} {value!r} is not a number") from None
    if not number.is_finite():
        raise InvalidInput(f"{field} {value!r} is not a finite number")
    if not number:
        return Decimal(0)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    if number.adjusted() >= DIGITS_MAX or exponent < -DIGITS_MAX:
        raise OutOfRange(f"{field} {value!r} has more than {DIGITS_MAX} digits on a side")
    return number


def text(value: Amount, field: str) -> str:
    """Return value as a plain decimal string, as cold messages carry it: never an exponent."""
    return format(exact(value, field), "f")


def whole_steps(
    value: Amount,
    step: Decimal,
    per_step: int,
    field: str,
    off_step: type[OffStep],
) -> int:
    """Return value / (step / per_step), which must be whole and 1 to 2^53.

    Raises off_step if it is not whole, OutOfRange if it is below 1 or above 2^53.
    """
    number = exact(value, field)
    if number <= 0:
        raise OutOfRange(f"{field} {number:f} is not above zero")
    scaled = EXACT.multiply(number, per_step)
    if scaled > EXACT.multiply(step, STEPS_MAX):
        largest = step_value(STEPS_MAX, step, per_step)
        raise OutOfRange(f"{field} {number:f} is above {largest:f}, the largest (2^53 steps)")
    count = int(EXACT.divide_int(scaled, step))
    if EXACT.multiply(step, count) == scaled:
        return count
    lower = step_value(count, step, per_step) if count else None
    upper = step_value(count + 1, step, per_step)
    size = f"{step:f}" if per_step == 1 else f"{step:f} / {per_step}"
    raise off_step(field, number, size, lower, upper)


def step_value(count: int, step: Decimal, per_step: int = 1) -> Decimal:
    """Return count * step / per_step, rounded to 28 digits where it is not a finite decimal."""
    product = EXACT.multiply(step, count)
    return product if per_step == 1 else ROUNDED.divide(product, per_step)


def minor_units(value: Amount, scale: int, field: str, off_step: type[OffStep]) -> int:
    """Return value * 10^scale, which must be whole and fit a signed 64-bit integer."""
    number = exact(value, field)
    scaled = number.scaleb(scale, EXACT)
    count = int(scaled)  # towards zero
    if abs(count) > MINOR_MAX:
        raise OutOfRange(f"{field} {number:f} does not fit 64 bits of 1e-{scale}")
    if count == scaled:
        return count
    floor = count if number > 0 else count - 1
    raise off_step(field, number, f"1e-{scale}", money(floor, scale), money(floor + 1, scale))


def money(minor: int, scale: int) -> Decimal:
    """Return minor * 10^-scale."""
    return Decimal(minor).scaleb(-scale, EXACT)


def whole(value: int, field: str, bits: int, minimum: int = 1) -> int:
    """Return value, minimum (of ids 1) to 2^bits - 1. Raises TypeError or OutOfRange."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field} is {value!r} ({type(value).__name__}), not an int")
    if not minimum <= value < 1 << bits:
        raise OutOfRange(f"{field} {value} is not within {minimum} to 2^{bits} - 1")
    return value
