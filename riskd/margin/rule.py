"""The rule record: every switch in which margin venues differ.

With s = +1 for a long and -1 for a short, q the size, E the entry price, L the liquidation price,
M the money behind the position without its unrealised profit, m and d the maintenance rate and the
deduction of its tier, f the fee rate and A the amounts that were frozen at entry, a position is
liquidated where equity equals its requirement:

    linear    M + s q (L - E)     = q L (m + f) + A - d
    inverse   M + s q (1/E - 1/L) = q / L (m + f) + A - d

The record says what M, A and f are, which tier m and d come from, and how L is rounded. Values are
the texts that rulebooks use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self, get_args, get_type_hints

Contract = Literal["linear", "inverse"]
Wallet = Literal["margin", "margin_and_profit", "equity", "margin_and_fee"]
MaintenanceBasis = Literal["mark", "entry", "session_average", "liquidation"]
FeeInLiquidation = Literal["none", "at_liquidation", "at_bankruptcy", "reserved"]
FeeInMargin = Literal["none", "taker", "taker_in_maintenance", "close_at_bankruptcy"]
InitialBasis = Literal["mark", "entry"]
TierMode = Literal["marginal", "whole"]
TierKey = Literal["notional", "quantity"]
TierPrice = Literal["mark", "entry", "liquidation"]
Rounding = Literal["exact", "up", "down", "nearest", "against_account", "for_account"]
OpenLoss = Literal["none", "mark", "last"]
OrderMargin = Literal["worse_side", "sum", "one_side_covered"]

_EXTRA_TICKS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a venue computes margin.

    Raises ValueError, naming the field, its value and the values allowed.
    """

    contract: Contract = "linear"
    """linear: settled in quote currency (a quanto contract too, with a multiplier in settlement
    money). inverse: settled in coin, quantities are face values in quote currency."""

    wallet: Wallet = "margin"
    """What the figure that the venue calls margin holds. margin: M. margin_and_profit and equity: M
    and the unrealised profit at the mark, of the position and of the account. margin_and_fee: M and
    the fee that is reserved for closing."""

    initial_basis: InitialBasis = "mark"
    """The value that initial margin is a part of."""

    maintenance_basis: MaintenanceBasis = "mark"
    """The value that the maintenance rate applies to. mark and liquidation: at the mark where
    maintenance is shown and at L where L is solved for. entry and session_average: at the entry
    price and at the session's average price, so that maintenance is one of the frozen amounts A."""

    fee_in_liquidation: FeeInLiquidation = "none"
    """The fee that the liquidation price leaves room for. at_liquidation: on the value at L.
    at_bankruptcy: on the value at the bankruptcy price. reserved: as frozen at entry beside the
    margin; a wallet margin_and_fee is used up but for it. Then it is rate times value times
    (1 + 1 / leverage) for both sides."""

    fee_in_margin: FeeInMargin = "none"
    """What initial and maintenance margin add. taker: rate times value; taker_in_maintenance: only
    to maintenance. close_at_bankruptcy: rate times the value at the bankruptcy price of the
    leverage, value (1 -/+ 1 / leverage)."""

    fee_in_bankruptcy: bool = False
    """The bankruptcy price leaves room for the fee on the value at that price."""

    tier_mode: TierMode = "marginal"
    """marginal: the deduction makes the requirement continuous. whole: the tier's rate counts for
    the whole position, so that the requirement jumps at a tier's floor."""

    tier_key: TierKey = "notional"
    """What a tier's floor counts: notional, or quantity (contracts, coins)."""

    tier_price: TierPrice = "liquidation"
    """The price of the notional that chooses the tier in a liquidation price."""

    liquidation_rounding: Rounding = "exact"
    """To ticks. against_account: up for a long, down for a short, so that it comes early;
    for_account: the other way."""

    bankruptcy_rounding: Rounding = "exact"
    """To ticks, like liquidation_rounding."""

    extra_ticks: int = 0
    """Ticks by which the liquidation price is moved against the account after rounding, 0 to 1000:
    up for a long, down for a short."""

    open_loss: OpenLoss = "none"
    """The price against which an order's loss, if it fills, is locked in."""

    order_margin: OrderMargin = "worse_side"
    """Requirement of working orders. worse_side: the larger of all buys filled and all sells
    filled, with the position. sum: each order by itself. one_side_covered: buys and sells by
    themselves, of which the position covers what would close it."""

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if not (isinstance(value, str) and value in allowed):
                raise ValueError(f"rule.{name} {value!r} is not one of {', '.join(allowed)}")
        if not isinstance(self.fee_in_bankruptcy, bool):
            raise ValueError(
                f"rule.fee_in_bankruptcy {self.fee_in_bankruptcy!r} is not one of true, false"
            )
        ticks = self.extra_ticks
        if isinstance(ticks, bool) or not isinstance(ticks, int):
            raise ValueError(f"rule.extra_ticks {ticks!r} is not a whole number")
        if not 0 <= ticks <= _EXTRA_TICKS_MAX:
            raise ValueError(f"rule.extra_ticks {ticks} is not within 0 to {_EXTRA_TICKS_MAX}")

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """Return the rule from the keys and values of a rulebook; a key left out is the default.

        Raises ValueError for a key that is not a field, and as the constructor does.
        """
        names = [field.name for field in fields(cls)]
        unknown = [key for key in values if key not in names]
        if unknown:
            raise ValueError(f"rule.{unknown[0]} is not one of {', '.join(names)}")
        return cls(**values)  # type: ignore[arg-type]  # checked by __post_init__


# The fields that are one of several texts, and these.
_ALLOWED = {name: get_args(hint) for name, hint in get_type_hints(Rule).items() if get_args(hint)}
