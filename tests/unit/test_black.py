"""Black-76 and Black-Scholes against 50 digits, their laws, the market, and bad input."""

import gzip
import itertools
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest

from riskd.pricing import (
    DeltaConvention,
    Greeks,
    SpotGreeks,
    black76,
    black_scholes,
    elasticity,
    rate_of_discount,
)

CAPTURE = Path(__file__).parents[3] / "shared" / "data" / "options" / "deribit_ws_tickers_20210722"

Option = tuple[str, float, float, float, float, float]
"""Option type, forward, strike, volatility, years, rate."""


def grid() -> Iterator[Option]:
    """Options up to 36 deviations out of the money, from one minute to ten years."""
    minutes = 1.0 / 365 / 24 / 60
    for kind, forward, deviations, volatility, years, rate in itertools.product(
        ("call", "put"),
        (0.02, 65000.0),
        (-36.0, -8.0, -4.0, -1.0, -0.01, 0.0, 1e-6, 0.5, 3.0, 6.0, 20.0),
        (0.01, 0.2, 0.65, 4.0),
        (minutes, 1.0 / 365, 0.25, 10.0),
        (-0.02, 0.0, 0.1),
    ):
        log_strike = deviations * volatility * math.sqrt(years)
        if abs(log_strike) < 60:
            yield kind, forward, forward * math.exp(log_strike), volatility, years, rate


def exact(option: Option) -> tuple[dict[str, Any], float, float]:
    """Return the Greeks with 50 digits, the larger |d|, and volatility * sqrt(T)."""
    w = 1 if option[0] == "call" else -1
    f, k, v, t, r = (mpmath.mpf(number) for number in option[1:])
    s = v * mpmath.sqrt(t)
    d1 = mpmath.log(f / k) / s + s / 2
    d2 = d1 - s
    discount = mpmath.exp(-r * t)
    density = mpmath.npdf(d1)
    first, second = (mpmath.erfc(-w * d / mpmath.sqrt(2)) / 2 for d in (d1, d2))
    price = discount * w * (f * first - k * second)
    decay = discount * f * density * v / (2 * mpmath.sqrt(t))
    greeks = {
        "price": price,
        "delta": discount * w * first,
        "gamma": discount * density / (f * s),
        "vega_per_vol_point": discount * f * density * mpmath.sqrt(t) / 100,
        "theta_per_day": (r * price - decay) / 365,
        "rho_per_point": -t * price / 100,
    }
    return greeks, float(max(abs(d1), abs(d2))), float(s)


def floats(greeks: Greeks) -> list[float]:
    return [float(getattr(greeks, name)) for name in Greeks.__dataclass_fields__]


def test_every_figure_is_within_the_stated_error_of_50_digits() -> None:
    checked = 0
    with mpmath.workdps(50):
        for option in grid():
            _, forward, strike, _, years, rate = option
            wanted, d, s = exact(option)
            got = black76(*option)
            discount = math.exp(-rate * years)
            price_error = abs(got.price - wanted["price"])
            assert price_error <= 6e-16 * discount * max(forward, strike), option
            out = forward <= strike if option[0] == "call" else strike <= forward
            # Below the smallest normal number no relative error can be kept.
            if out and wanted["price"] > 1e-290:
                relative = price_error / wanted["price"]
                assert relative <= 4e-16 * (1 + d * d) * (1 + (1 + d) / s), option
            for name in ("delta", "gamma", "vega_per_vol_point"):
                if abs(wanted[name]) > 1e-290:
                    relative = abs(getattr(got, name) / wanted[name] - 1)
                    assert relative <= 6e-16 * (1 + d * d), (option, name)
            checked += 1
    assert checked > 2000


def test_theta_and_rho_are_within_twelve_digits_of_their_terms() -> None:
    with mpmath.workdps(50):
        for option in grid():
            wanted, _, _ = exact(option)
            got = black76(*option)
            scale = math.exp(-option[5] * option[4]) * max(option[1], option[2])
            decay = abs(wanted["theta_per_day"])
            theta_error = abs(got.theta_per_day - wanted["theta_per_day"])
            assert theta_error <= 1e-12 * decay + 1e-15 * scale, option
            rho_error = abs(got.rho_per_point - wanted["rho_per_point"])
            assert rho_error <= 1e-15 * scale * option[4], option


def test_call_less_put_is_the_discounted_forward_less_strike() -> None:
    for option in grid():
        kind, forward, strike, _, years, rate = option
        if kind == "put":
            continue
        call, put = black76(*option), black76("put", *option[1:])
        discount = math.exp(-rate * years)
        gap = float(call.price) - float(put.price) - discount * (forward - strike)
        assert abs(gap) <= 3e-16 * discount * (forward + strike), option
        assert float(call.delta) - float(put.delta) == pytest.approx(discount, rel=1e-15)
        assert (call.gamma, call.vega_per_vol_point) == (put.gamma, put.vega_per_vol_point)


@pytest.mark.parametrize("kind", ["call", "put"])
@pytest.mark.parametrize("carry", [0.0, 0.03, -0.4])
def test_greeks_are_the_derivatives_of_the_price(kind: str, carry: float) -> None:
    spot, strike, volatility, years, rate = 105.0, 98.0, 0.45, 0.7, 0.05

    def price(s: float, v: float, t: float, r: float, b: float) -> Any:
        f = s * mpmath.exp(b * t)
        return exact((kind, f, strike, v, t, r))[0]["price"]

    def derivative(argument: int, order: int = 1) -> float:
        point = (spot, volatility, years, rate, carry)

        def along(x: Any) -> Any:
            return price(*(x if index == argument else y for index, y in enumerate(point)))

        return float(mpmath.diff(along, point[argument], order))

    with mpmath.workdps(50):
        got = black_scholes(kind, spot, strike, volatility, years, rate, cost_of_carry=carry)
        assert got.delta == pytest.approx(derivative(0), rel=1e-13)
        assert got.gamma == pytest.approx(derivative(0, 2), rel=1e-13)
        assert got.vega_per_vol_point == pytest.approx(derivative(1) / 100, rel=1e-13)
        assert got.theta_per_day == pytest.approx(-derivative(2) / 365, rel=1e-12)
        # The yield stays: carry moves with the rate; and the other way round.
        with_carry = derivative(4) / 100
        assert got.rho_per_point == pytest.approx(derivative(3) / 100 + with_carry, rel=1e-12)
        assert got.dividend_rho_per_point == pytest.approx(-with_carry, rel=1e-12)


def test_black_scholes_without_carry_is_black76() -> None:
    for option in grid():
        spot = black_scholes(*option, cost_of_carry=0.0)
        forward = black76(*option)
        names = ("price", "delta", "gamma", "vega_per_vol_point")
        for name in names:
            assert getattr(spot, name) == pytest.approx(getattr(forward, name), rel=1e-15, abs=0)
        assert spot.theta_per_day == pytest.approx(forward.theta_per_day, rel=1e-9, abs=1e-12)


def test_a_premium_adjusted_delta_is_the_delta_less_the_premium_in_the_underlying() -> None:
    for kind in ("call", "put"):
        greeks = black_scholes(kind, 1.4, 1.6, 0.2, 0.5, 0.03, dividend_yield=0.01)
        premium = float(greeks.price) / 1.4
        assert greeks.delta_premium_adjusted == pytest.approx(float(greeks.delta) - premium)
        growth = math.exp(-0.01 * 0.5)
        assert greeks.delta == pytest.approx(growth * float(greeks.delta_forward))
        assert greeks.delta_as(DeltaConvention.SPOT) == greeks.delta
        assert greeks.delta_as(DeltaConvention.FORWARD) == greeks.delta_forward
        adjusted = DeltaConvention.PREMIUM_ADJUSTED_SPOT
        assert greeks.delta_as(adjusted) == greeks.delta_premium_adjusted
        adjusted = DeltaConvention.PREMIUM_ADJUSTED_FORWARD
        assert greeks.delta_as(adjusted) == greeks.delta_forward_premium_adjusted


@pytest.mark.parametrize(("volatility", "years"), [(0.5, 0.0), (0.0, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize(
    ("kind", "forward", "price", "delta"),
    [
        ("call", 120.0, 20.0, 1.0),
        ("call", 100.0, 0.0, 0.5),
        ("call", 80.0, 0.0, 0.0),
        ("put", 120.0, 0.0, 0.0),
        ("put", 100.0, 0.0, -0.5),
        ("put", 80.0, 20.0, -1.0),
    ],
)
def test_without_time_or_volatility_an_option_is_its_discounted_intrinsic_value(
    volatility: float, years: float, kind: str, forward: float, price: float, delta: float
) -> None:
    discount = math.exp(-0.1 * years)
    wanted = [discount * price, discount * delta, 0.0, 0.0, 0.0, 0.0]
    assert floats(black76(kind, forward, 100.0, volatility, years, 0.1)) == wanted
    spot = black_scholes(kind, forward, 100.0, volatility, years, 0.1, cost_of_carry=0.0)
    assert floats(spot) == wanted
    assert spot.dividend_rho_per_point == 0.0


def test_the_limit_of_little_volatility_is_the_intrinsic_value() -> None:
    for kind in ("call", "put"):
        for strike in (80.0, 120.0):
            little = floats(black76(kind, 100.0, strike, 1e-200, 0.5, 0.1))
            none = floats(black76(kind, 100.0, strike, 0.0, 0.5, 0.1))
            assert little[:4] == none[:4]


def test_arrays_broadcast_and_equal_scalars() -> None:
    strikes = np.array([[80.0], [100.0], [125.0]])
    kinds = np.array(["call", "put", "C", "p"])
    got = black76(kinds, 100.0, strikes, 0.6, 0.25, [0.0, 0.0, 0.05, 0.05])
    spot = black_scholes(kinds, 100.0, strikes, 0.6, 0.25, 0.05, dividend_yield=0.01)
    for row, column in itertools.product(range(3), range(4)):
        kind, strike, rate = kinds[column], strikes[row, 0], 0.05 * (column > 1)
        one = black76(str(kind), 100.0, float(strike), 0.6, 0.25, rate)
        for name in Greeks.__dataclass_fields__:
            figures = getattr(got, name)
            assert figures.shape == (3, 4)
            assert figures[row, column] == getattr(one, name)
        two = black_scholes(str(kind), 100.0, float(strike), 0.6, 0.25, 0.05, dividend_yield=0.01)
        for name in SpotGreeks.__dataclass_fields__:
            assert getattr(spot, name)[row, column] == getattr(two, name)
    assert np.asarray(black76([], [], 1.0, 1.0, 1.0).price).shape == (0,)


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"forward": 0.0}, "forward 0.0 must be above 0"),
        ({"forward": math.nan}, "forward nan must be finite"),
        ({"strike": -1.0}, "strike -1.0 must be above 0"),
        ({"strike": math.inf}, "strike inf must be finite"),
        ({"volatility": -0.1}, "volatility -0.1 must not be below 0"),
        ({"volatility": math.nan}, "volatility nan must be finite"),
        ({"time_years": -1e-9}, "time_years -1e-09 must not be below 0"),
        ({"time_years": math.inf}, "time_years inf must be finite"),
        ({"rate": math.nan}, "rate nan must be finite"),
        ({"rate": -1e4, "time_years": 1.0}, "a figure does not fit a double"),
        ({"option_type": "straddle"}, "option_type 'straddle' must be 'call' or 'put'"),
    ],
)
def test_an_input_out_of_its_domain_is_named_with_its_bound(
    change: dict[str, Any], says: str, array: bool
) -> None:
    arguments: dict[str, Any] = {
        "option_type": "call",
        "forward": 100.0,
        "strike": 100.0,
        "volatility": 0.5,
        "time_years": 0.5,
        "rate": 0.0,
    } | change
    if array:
        kind = arguments["option_type"]
        first = {"option_type": "call", "rate": 0.0, "time_years": 0.5}
        arguments = {name: [first.get(name, 100.0), value] for name, value in arguments.items()} | {
            "option_type": ["call", kind]
        }
        says = says if "option_type" in change else says + ".*element 1"
    with pytest.raises(ValueError, match=says):
        black76(**arguments)
    spot = {"spot" if name == "forward" else name: value for name, value in arguments.items()}
    with pytest.raises(ValueError, match=says.replace("forward", "spot")):
        black_scholes(**spot)


def test_yield_and_carry_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="dividend_yield and cost_of_carry exclude each other"):
        black_scholes("call", 1.0, 1.0, 1.0, 1.0, dividend_yield=0.0, cost_of_carry=0.0)
    with pytest.raises(ValueError, match="cost_of_carry nan must be finite"):
        black_scholes("call", 1.0, 1.0, 1.0, 1.0, cost_of_carry=math.nan)


def test_a_rate_and_its_discount_are_inverse() -> None:
    assert math.exp(-rate_of_discount(0.9, 2.5) * 2.5) == pytest.approx(0.9, rel=1e-15)
    assert rate_of_discount(1.0, 0.0) == 0.0
    with pytest.raises(ValueError, match=r"discount 0\.0 must be above 0"):
        rate_of_discount(0.0, 1.0)
    with pytest.raises(ValueError, match=r"time_years 0\.0 must be above 0 for discount 0\.9"):
        rate_of_discount(0.9, 0.0)


def test_elasticity_needs_a_price() -> None:
    worthless = black_scholes("call", 1.0, 2.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="price 0 has no elasticity"):
        elasticity(worthless, 1.0)


def tickers() -> list[dict[str, Any]]:
    """Return the tickers of the capture: a time, then the message, a line."""
    with gzip.open(CAPTURE / "DERIBIT.ws.1.0.gz", "rt") as lines:
        messages = [json.loads(line.partition(": ")[2]) for line in lines if line[:1].isdigit()]
    return [
        message["params"]["data"]
        for message in messages
        if message.get("params", {}).get("channel", "").startswith("ticker.")
    ]


def test_greeks_are_those_of_a_venue(capsys: pytest.CaptureFixture[str]) -> None:
    """Deribit, 22 July 2021: 89 tickers of ten BTC and ETH options.

    Black-76 on the ticker's own underlying price, rate 0, years of 365 days, expiry 08:00 UTC. The
    Greeks are printed with five decimals; mark and underlying are not from the same instant.
    """
    if not CAPTURE.exists():
        with capsys.disabled():
            print(f"\n{CAPTURE}: no capture there, the venue's Greeks were not compared")
        return
    found = tickers()
    assert len(found) == 89
    for ticker in found:
        _, date, strike, kind = ticker["instrument_name"].split("-")
        expiry = datetime.strptime(f"{date} 08", "%d%b%y %H").replace(tzinfo=UTC)
        years = (expiry.timestamp() - ticker["timestamp"] / 1000) / (365 * 86400)
        forward = ticker["underlying_price"]
        got = black76(kind, forward, float(strike), ticker["mark_iv"] / 100, years)
        assert abs(got.delta - ticker["greeks"]["delta"]) <= 9.8e-6
        assert abs(got.gamma - ticker["greeks"]["gamma"]) <= 5.0e-6
        assert abs(got.vega_per_vol_point - ticker["greeks"]["vega"]) <= 1.7e-3
        assert abs(got.price / forward - ticker["mark_price"]) <= 2.1e-4
