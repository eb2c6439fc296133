"""Option prices and Greeks: mathematics, the same for every venue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from riskd import margin, pricing
from riskd.conform.inputs import (
    CARRY,
    INTEREST,
    TIME,
    VOLATILITY,
    YIELD,
    Inputs,
    NotCoveredError,
    Outputs,
    find,
    items,
    real,
    text,
)
from riskd.conform.venues import Venue
from riskd.pricing import DeltaConvention, Greeks


def _interest(inputs: Inputs) -> float:
    if find(inputs, ("discount",)) is None:
        return real(inputs, INTEREST, 0.0)
    return pricing.rate_of_discount(real(inputs, ("discount",)), real(inputs, TIME))


def _spot_greeks(inputs: Inputs, option_type: str, rate: float) -> pricing.SpotGreeks:
    carry = find(inputs, CARRY)
    return pricing.black_scholes(
        option_type,
        real(inputs, ("spot",)),
        real(inputs, ("strike",)),
        real(inputs, VOLATILITY),
        real(inputs, TIME),
        rate,
        dividend_yield=real(inputs, YIELD, 0.0) if carry is None else None,
        cost_of_carry=None if carry is None else real(inputs, CARRY),
    )


def _figures(greeks: Callable[[], Greeks], inputs: Inputs, venue: Venue) -> Outputs:
    """Return the outputs of one option under all names, each in the unit of its name."""
    point = 1 if venue.greeks_per_point else 100
    day = 1 if venue.greeks_per_point else 365

    def of(name: str, factor: int = 1) -> Callable[[], float]:
        return lambda: factor * getattr(greeks(), name)

    outputs: Outputs = {
        "price": of("price"),
        "mark_price": of("price"),
        "delta": of("delta"),
        "gamma": of("gamma"),
        "vega": of("vega_per_vol_point", point),
        "vega_per_vol_point": of("vega_per_vol_point"),
        "theta": of("theta_per_day", day),
        "theta_per_year": of("theta_per_day", 365),
        "theta_per_day": of("theta_per_day"),
        "rho": of("rho_per_point", 100),
        "rho_per_pct": of("rho_per_point"),
        "rho_per_point": of("rho_per_point"),
    }
    if find(inputs, ("spot",)) is not None:
        outputs |= {
            "dividend_rho": of("dividend_rho_per_point", 100),
            "delta_forward": of("delta_forward"),
            "elasticity": lambda: pricing.elasticity(_as_spot(greeks()), real(inputs, ("spot",))),
        }
    if venue.greeks_per_point:
        del outputs["rho"]
    if venue.scales_last_day and real(inputs, TIME) < 1 / 365:
        del outputs["gamma"], outputs["theta"], outputs["theta_per_day"]
    return outputs


def _as_spot(greeks: Greeks) -> pricing.SpotGreeks:
    if not isinstance(greeks, pricing.SpotGreeks):
        raise ValueError("inputs.spot is missing")
    return greeks


def black76(inputs: Inputs, venue: Venue) -> Outputs:
    return _figures(
        lambda: pricing.black76(
            text(inputs, ("option_type",)),
            real(inputs, ("forward",)),
            real(inputs, ("strike",)),
            real(inputs, VOLATILITY),
            real(inputs, TIME),
            _interest(inputs),
        ),
        inputs,
        venue,
    )


def black_scholes(inputs: Inputs, venue: Venue) -> Outputs:
    option_type = text(inputs, ("option_type",))
    return _figures(lambda: _spot_greeks(inputs, option_type, _interest(inputs)), inputs, venue)


def black_scholes_pair(inputs: Inputs, venue: Venue) -> Outputs:
    """Return the figures of the call and the put of one strike, the common ones without prefix."""
    outputs: Outputs = {}
    for kind in ("call", "put"):

        def greeks(option_type: str = kind) -> Greeks:
            return _spot_greeks(inputs, option_type, _interest(inputs))

        figures = _figures(greeks, inputs, venue)
        outputs |= {f"{kind}_{name}": figure for name, figure in figures.items()}
        outputs[kind] = figures["price"]
        # Gamma and vega are the same of both.
        outputs |= {name: figures[name] for name in figures if name.startswith(("gamma", "vega"))}
    return outputs


def price_by_rate(inputs: Inputs, venue: Venue) -> Outputs:
    option_type = text(inputs, ("option_type",))

    def prices() -> list[float]:
        rates = items("inputs.rates_cont", inputs.get("rates_cont"))
        return [
            float(_spot_greeks(inputs, option_type, float(margin.decimal("rate", rate))).price)
            for rate in rates
        ]

    return {**black_scholes(inputs, venue), "prices_by_rate": prices}


_DELTA_TYPES = {
    "spot": DeltaConvention.SPOT,
    "fwd": DeltaConvention.FORWARD,
    "paspot": DeltaConvention.PREMIUM_ADJUSTED_SPOT,
    "pafwd": DeltaConvention.PREMIUM_ADJUSTED_FORWARD,
}


def delta_convention(inputs: Inputs, _venue: Venue) -> Outputs:
    """Discount factors and a total deviation are rates and a volatility over one year."""
    name = text(inputs, ("delta_type",))
    if name.lower() not in _DELTA_TYPES:
        raise NotCoveredError(f"delta type {name}")

    def delta() -> pricing.Figure:
        return pricing.black_scholes(
            text(inputs, ("option_type",)),
            real(inputs, ("spot",)),
            real(inputs, ("strike",)),
            real(inputs, ("std_dev",)),
            1.0,
            pricing.rate_of_discount(real(inputs, ("domestic_df",)), 1.0),
            dividend_yield=pricing.rate_of_discount(real(inputs, ("foreign_df",)), 1.0),
        ).delta_as(_DELTA_TYPES[name.lower()])

    return {"delta": delta}


MODELS: Mapping[str, Callable[[Inputs, Venue], Outputs]] = {
    "bs_price": black_scholes,
    "greeks": black_scholes,
    "black76_price": black76,
    "black76_greeks": black76,
    "bs_price_greeks": black_scholes_pair,
    "bs_price_cost_of_carry": price_by_rate,
    "greeks_delta_convention": delta_convention,
}
