"""Black-76: price and Greeks in decimals of 90 digits."""

from decimal import Decimal, localcontext
from fractions import Fraction

from riskd.core.rows import (
    InstrumentRow,
)
from riskd.reference.numbers import clamp
from riskd.v1 import order_risk_service_pb2 as orders_pb


def mark_unit(instrument: InstrumentRow) -> Fraction:
    """Return one mark unit in quote currency."""
    tick_size = instrument.tick_mantissa * Fraction(10) ** instrument.tick_exponent
    return tick_size / instrument.mark_units_per_tick


def decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def circle() -> Decimal:
    """Return pi by Machin's formula, 16 arctan(1/5) - 4 arctan(1/239)."""

    def arctan_inverse(n: int) -> Decimal:
        total = Decimal(0)
        for k in range(60):
            total += Decimal((-1) ** k) / ((2 * k + 1) * Decimal(n) ** (2 * k + 1))
        return total

    return 16 * arctan_inverse(5) - 4 * arctan_inverse(239)


def normal_density(x: Decimal) -> Decimal:
    return (-x * x / 2).exp() / (2 * circle()).sqrt()


def normal_cdf(x: Decimal) -> Decimal:
    """Return N(x): up to |x| = 8 by its series, beyond by the continued fraction of the tail.

    N(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...); 1 - N(x) = phi(x) / (x + 1/(x + 2/(x + ...))).
    Source: Abramowitz and Stegun 26.2.11 and 26.2.14.
    """
    if abs(x) <= 8:
        term = total = x
        n = 1
        while abs(term) > Decimal(10) ** -70:
            n += 2
            term = term * x * x / n
            total += term
        return Decimal("0.5") + normal_density(x) * total
    fraction = abs(x)
    for n in range(200, 0, -1):
        fraction = abs(x) + n / fraction
    tail = normal_density(x) / fraction
    return 1 - tail if x > 0 else tail


def black76(
    *,
    is_call: bool,
    forward: Fraction,
    strike: Fraction,
    volatility: Fraction,
    years: Fraction,
    rate: Fraction,
) -> orders_pb.Greeks:
    """Return price and Greeks of a long option of 1 underlying, years and volatility above 0.

    With w = 1 for a call and -1 for a put, D = exp(-r T), d1 = ln(F/K) / (s sqrt T) + s sqrt T / 2,
    d2 = d1 - s sqrt T:
    price = D w (F N(w d1) - K N(w d2)), delta = D w N(w d1), gamma = D phi(d1) / (F s sqrt T),
    vega = D F phi(d1) sqrt T, theta = r price - D F phi(d1) s / (2 sqrt T), rho = -T price.
    Source: F. Black, The pricing of commodity contracts, 1976.
    """
    with localcontext() as context:
        context.prec = 90
        f, k, s, years_d, r = map(decimal, (forward, strike, volatility, years, rate))
        deviation = s * years_d.sqrt()
        d1 = (f / k).ln() / deviation + deviation / 2
        d2 = d1 - deviation
        discount = (-r * years_d).exp()
        w = 1 if is_call else -1
        density = normal_density(d1)
        price = discount * w * (f * normal_cdf(w * d1) - k * normal_cdf(w * d2))
        decay = discount * f * density * s / (2 * years_d.sqrt())
        return orders_pb.Greeks(
            price_pico=pico(price),
            delta_pico=pico(discount * w * normal_cdf(w * d1)),
            gamma_pico=pico(discount * density / (f * deviation)),
            vega_per_vol_point_pico=pico(discount * f * density * years_d.sqrt() / 100),
            theta_per_day_pico=pico((r * price - decay) / 365),
            rho_per_point_pico=pico(-years_d * price / 100),
        )


def pico(value: Decimal) -> int:
    """Return value in units of 1e-12, rounded half to even, clamped to 64 bits."""
    return clamp(int((value * 10**12).to_integral_value()))
