"""Option price and Greeks in one pass: Black-76 on a forward, Black-Scholes on a spot price."""


cdef struct Greeks:
    double price
    double delta               # per 1 of the forward
    double gamma               # per 1 of the forward, twice
    double vega_per_vol_point  # per 0.01 of volatility
    double theta_per_day       # 1/365 of a year passes, the forward stays
    double rho_per_point       # per 0.01 of the rate, the forward stays


cdef struct SpotGreeks:
    double price
    double delta               # per 1 of spot
    double gamma               # per 1 of spot, twice
    double vega_per_vol_point  # per 0.01 of volatility
    double theta_per_day       # 1/365 of a year passes, the spot price stays
    double rho_per_point       # per 0.01 of the rate, the dividend yield stays
    double dividend_rho_per_point  # per 0.01 of the dividend yield, the rate stays
    double delta_forward                   # forwards that hedge: N(d1), without a discount
    double delta_premium_adjusted          # delta less the premium, which is paid in the underlying
    double delta_forward_premium_adjusted


# Of one long option on 1 of the underlying. False, and nothing written, if an input is not finite
# or out of its domain, or if a figure does not fit a double.
cdef bint black76(
    bint is_call, double forward, double strike, double volatility, double years, double rate,
    Greeks *out,
) noexcept nogil

cdef bint black_scholes(
    bint is_call, double spot, double strike, double volatility, double years, double rate,
    double carry, SpotGreeks *out,
) noexcept nogil
