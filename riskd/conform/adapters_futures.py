"""Margin of perpetuals and futures: tiers, requirements, liquidation prices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from riskd import margin
from riskd.conform.inputs import (
    CEILING,
    CONTRACTS,
    DEDUCTION,
    ENTRY,
    EQUITY,
    FEE,
    FLOOR,
    LEVERAGE,
    MARK,
    MAX_LEVERAGE,
    NOTIONAL,
    PROFIT,
    QUANTITY,
    RATE,
    STAKE,
    TICK,
    WALLET,
    Inputs,
    Outputs,
    items,
    mapping,
    need,
    number,
    signed_quantity,
    with_position,
)
from riskd.conform.venues import Venue
from riskd.margin import CrossPosition, Tier, TierSchedule


def _rate(inputs: Inputs, venue: Venue) -> Decimal:
    leverage = number(inputs, MAX_LEVERAGE)
    part = venue.maintenance_of_initial
    if number(inputs, RATE) is None and part is not None and leverage is not None:
        return margin.maintenance_rate_of_leverage(leverage, part)
    return margin.round_rate_up(need(inputs, RATE))


def _schedule(inputs: Inputs, venue: Venue) -> TierSchedule:
    """Return the tiers of a row, or its one rate and amount."""
    if inputs.get("tiers") is None:
        return TierSchedule.flat(_rate(inputs, venue), number(inputs, DEDUCTION) or 0)
    tiers: list[Tier] = []
    ceiling: Decimal | None = None
    for index, item in enumerate(items("inputs.tiers", inputs["tiers"])):
        row = mapping(f"inputs.tiers[{index}]", item)
        # Where sizes are whole numbers the next tier may begin at the ceiling and one.
        floor = ceiling if ceiling is not None else need(row, FLOOR)
        tiers.append(
            Tier.of(
                floor,
                _rate(row, venue),
                deduction=0 if venue.tiers_by_size else number(row, DEDUCTION),
                max_leverage=number(row, MAX_LEVERAGE),
            )
        )
        ceiling = number(row, CEILING)
    return TierSchedule(tuple(tiers), ceiling)


def _position_schedule(inputs: Inputs, venue: Venue) -> TierSchedule:
    """Return the tiers that apply to a position at any price."""
    schedule = _schedule(inputs, venue)
    if not venue.tiers_by_size or len(schedule.tiers) == 1:
        return schedule
    size = need(inputs, (*CONTRACTS, *QUANTITY)).copy_abs()
    return TierSchedule.flat(margin.tier_at(schedule, size).maintenance_rate)


def _fee(inputs: Inputs, venue: Venue) -> Decimal:
    return need(inputs, FEE) if venue.fee_in_liquidation else Decimal(0)


def _notional(inputs: Inputs) -> Decimal:
    stated = number(inputs, NOTIONAL)
    if stated is not None:
        return stated
    return margin.notional(signed_quantity(inputs), need(inputs, (*MARK, *ENTRY)))


def _isolated_wallet(inputs: Inputs, venue: Venue) -> Decimal:
    wallet = number(inputs, WALLET)
    if wallet is not None:
        return wallet
    wallet = number(inputs, ("isolated_margin",))
    if wallet is None:
        leverage = number(inputs, LEVERAGE)
        if leverage is None:
            raise ValueError(f"inputs.{WALLET[0]} is missing")
        entry_value = margin.notional(signed_quantity(inputs), need(inputs, ENTRY))
        return margin.initial_margin(entry_value, leverage)
    if not venue.margin_includes_pnl:
        return wallet
    profit = number(inputs, PROFIT)
    if profit is None:
        profit = margin.unrealised_pnl(
            signed_quantity(inputs), need(inputs, ENTRY), need(inputs, MARK)
        )
    return wallet - profit


def maintenance_tier(inputs: Inputs, venue: Venue) -> Outputs:
    schedule = _schedule(inputs, venue)

    def tier() -> Tier:
        sizes = (*QUANTITY, *CONTRACTS)
        amount = need(inputs, sizes) if venue.tiers_by_size else _notional(inputs)
        return margin.tier_at(schedule, amount)

    def amount_off() -> Decimal | None:
        if venue.tiers_by_size:
            return None
        found = tier()
        if found.deduction is not None:
            return found.deduction
        return margin.deductions(schedule)[schedule.tiers.index(found)]

    def maintenance() -> Decimal:
        return margin.maintenance_margin(_notional(inputs), _position_schedule(inputs, venue))

    return {
        "notional": lambda: _notional(inputs),
        "mmr": lambda: tier().maintenance_rate,
        "maint_amount": amount_off,
        "maintenance_margin": maintenance,
    }


def maintenance_tier_table(inputs: Inputs, venue: Venue) -> Outputs:
    return {"cum": lambda: list(margin.deductions(_schedule(inputs, venue)))}


def max_leverage_for_stake(inputs: Inputs, venue: Venue) -> Outputs:
    return {
        "max_leverage": lambda: margin.max_leverage_for_stake(
            need(inputs, STAKE), _schedule(inputs, venue)
        )
    }


def margin_linear(inputs: Inputs, venue: Venue) -> Outputs:
    amount = _notional(inputs)
    return {
        "notional": lambda: amount,
        "initial_margin": lambda: margin.initial_margin(amount, need(inputs, LEVERAGE)),
        "maintenance_margin": lambda: margin.maintenance_margin(
            amount, _position_schedule(inputs, venue)
        ),
    }


def isolated_liquidation_linear(inputs: Inputs, venue: Venue) -> Outputs:
    row = with_position(inputs)

    def price() -> Decimal | None:
        quantity = signed_quantity(row)
        found = margin.isolated_liquidation_price(
            quantity,
            need(row, ENTRY),
            _isolated_wallet(row, venue),
            _position_schedule(row, venue),
            liquidation_fee_rate=_fee(row, venue),
        )
        if found is None or quantity < 0 or not venue.isolated_long_adds_tick:
            return found
        return found + (number(row, TICK) or 0)

    return {"liquidation_price": price}


def cross_liquidation(inputs: Inputs, venue: Venue) -> Outputs:
    row = with_position(inputs)
    # Equity has the position's own profit up to its mark in it, so the mark stands for the entry.
    equity = number(row, EQUITY)
    others = [
        mapping(f"inputs.other_positions[{index}]", other)
        for index, other in enumerate(
            items("inputs.other_positions", inputs.get("other_positions") or [])
        )
    ]
    return {
        "liquidation_price": lambda: margin.cross_liquidation_price(
            signed_quantity(row),
            need(row, ENTRY if equity is None else MARK),
            need(row, WALLET) if equity is None else equity,
            _position_schedule(row, venue),
            [
                CrossPosition.of(
                    signed_quantity(other),
                    need(other, ENTRY),
                    need(other, MARK),
                    _position_schedule(other, venue),
                    _fee({**inputs, **other}, venue),
                )
                for other in others
            ],
            liquidation_fee_rate=_fee(row, venue),
        )
    }


MODELS: Mapping[str, Callable[[Inputs, Venue], Outputs]] = {
    "maintenance_tier": maintenance_tier,
    "maintenance_tier_table": maintenance_tier_table,
    "max_leverage_for_stake": max_leverage_for_stake,
    "margin_linear": margin_linear,
    "isolated_liquidation_linear": isolated_liquidation_linear,
    "cross_liquidation": cross_liquidation,
}
