"""Margin as a library: requirements, liquidation and bankruptcy prices.

`Rule` holds the switches in which venues differ. The functions on decimals are exact.
"""

from riskd.margin.decimals import Number, decimal
from riskd.margin.exact import (
    CrossPosition,
    Tier,
    TierSchedule,
    bankruptcy_price,
    cross_liquidation_price,
    deductions,
    initial_margin,
    isolated_liquidation_price,
    maintenance_margin,
    maintenance_rate_of_leverage,
    max_leverage_for_stake,
    notional,
    round_rate_up,
    tier_at,
    unrealised_pnl,
)
from riskd.margin.rule import Rule

__all__ = [
    "CrossPosition",
    "Number",
    "Rule",
    "Tier",
    "TierSchedule",
    "bankruptcy_price",
    "cross_liquidation_price",
    "decimal",
    "deductions",
    "initial_margin",
    "isolated_liquidation_price",
    "maintenance_margin",
    "maintenance_rate_of_leverage",
    "max_leverage_for_stake",
    "notional",
    "round_rate_up",
    "tier_at",
    "unrealised_pnl",
]
