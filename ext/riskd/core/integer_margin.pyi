"""Margin in the integer arithmetic of chains; units and rounding are in integer_margin.pyx.

Arrays are contiguous and of one length. The functions fill out and return -1, or the index of the
first element that is out of its domain or does not fit 64 bits; from there on nothing in out
counts. They raise ValueError if the shapes do not fit.
"""

import numpy as np
from numpy.typing import NDArray

_Integers = NDArray[np.int64]

def weight_arrays(
    asset: bool, size_1e9: _Integers, imf_1e6: _Integers, weight_1e4: _Integers, out: _Integers
) -> int:
    """Fill out with the weights of assets, or of liabilities, of these sizes."""

def token_value_arrays(
    tokens: _Integers, price_1e6: _Integers, decimals: _Integers, out: _Integers
) -> int:
    """Fill out with the values of balances in 1e-6 of the quote currency."""

def pool_weight_arrays(
    weight_1e4: _Integers, pool_value_1e6: _Integers, scale_start_1e6: _Integers, out: _Integers
) -> int:
    """Fill out with weights scaled down by the value of the pool."""

def spot_arrays(
    tokens: _Integers,
    bids: _Integers,
    asks: _Integers,
    orders: _Integers,
    decimals: _Integers,
    price_1e6: _Integers,
    imf_1e6: _Integers,
    asset_weight_1e4: _Integers,
    liability_weight_1e4: _Integers,
    custom_ratio_1e4: _Integers,
    out: _Integers,
) -> int:
    """Fill three rows: collateral, requirement and liability, orders filled at the worse side."""

def perp_arrays(
    base_1e9: _Integers,
    quote_1e6: _Integers,
    bids_1e9: _Integers,
    asks_1e9: _Integers,
    orders: _Integers,
    price_1e6: _Integers,
    imf_1e6: _Integers,
    ratio_1e4: _Integers,
    custom_ratio_1e4: _Integers,
    profit_weight_1e4: _Integers,
    out: _Integers,
) -> int:
    """Fill four rows: profit as collateral, requirement, liability and loss of perpetuals."""

def base_to_cover_arrays(
    shortage_1e6: _Integers,
    ratio_1e4: _Integers,
    liquidation_fee_1e6: _Integers,
    insurance_fee_1e6: _Integers,
    price_1e6: _Integers,
    quote_price_1e6: _Integers,
    out: _Integers,
) -> int:
    """Fill out with the base quantity that frees the shortage; -1: none does."""

def liability_to_cover_arrays(
    shortage_1e6: _Integers,
    asset_weight_1e4: _Integers,
    asset_multiplier_1e6: _Integers,
    liability_weight_1e4: _Integers,
    liability_multiplier_1e6: _Integers,
    decimals: _Integers,
    price_1e6: _Integers,
    insurance_fee_1e6: _Integers,
    out: _Integers,
) -> int:
    """Fill out with the tokens of liability whose transfer frees the shortage; -1: none does."""

def open_interest_arrays(
    notional_quantums: _Integers,
    base_ppm: _Integers,
    open_interest: _Integers,
    lower_cap: _Integers,
    upper_cap: _Integers,
    custom_ppm: _Integers,
    out: _Integers,
) -> int:
    """Fill two rows: the initial rate in ppm and the initial margin in quantums."""

def maintenance_arrays(
    notional_quantums: _Integers, initial_ppm: _Integers, fraction_ppm: _Integers, out: _Integers
) -> int:
    """Fill two rows: the maintenance rate in ppm and the maintenance margin in quantums."""

def bankruptcy_arrays(
    notional_change: _Integers,
    maintenance_change: _Integers,
    net_collateral: _Integers,
    maintenance: _Integers,
    out: _Integers,
) -> int:
    """Fill out with the quote quantums that a closing trade must at least bring."""

def order_margin_arrays(
    position: _Integers,
    account: _Integers,
    is_buy: NDArray[np.uint8],
    quantity: _Integers,
    price: _Integers,
    factor_ppb: _Integers,
    quantity_one: _Integers,
    auction_price: _Integers,
    out: _Integers,
) -> int:
    """Fill two rows, an account a column: margin of buy and of sell orders.

    Orders are grouped by account and side, the best price first; account is an index of position.
    """
