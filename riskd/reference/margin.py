"""Arithmetic of docs/decision.md on tiers, positions and fills: no state."""

from dataclasses import dataclass
from fractions import Fraction

from riskd.core.rows import (
    InstrumentRow,
    ScheduleRow,
    Tier,
)
from riskd.reference.numbers import BILLION, COUNT_MAX, ceil, ceil_div, fits, floor, sign_of
from riskd.reference.state import Position


def tick_value(instrument: InstrumentRow, scale: int) -> Fraction:
    """Return tick_size * lot_size * 10^scale: one lot at one tick, in minor units."""
    exponent = instrument.tick_exponent + instrument.lot_exponent + scale
    return instrument.tick_mantissa * instrument.lot_mantissa * Fraction(10) ** exponent


# --- Margin of a notional -------------------------------------------------------------------------


def tier_index(schedule: ScheduleRow, notional: int | Fraction) -> int:
    """Return the largest k with f_k < N, 0 for N = 0."""
    below = [k for k, tier in enumerate(schedule.tiers) if tier.floor < notional]
    return max(below, default=0)


def tier_of(schedule: ScheduleRow, notional: int | Fraction) -> Tier:
    return schedule.tiers[tier_index(schedule, notional)]


def maintenance(schedule: ScheduleRow, notional: int) -> int:
    tier = tier_of(schedule, notional)
    return ceil_div(tier.maintenance_rate_ppb * notional, BILLION) - tier.deduction


def liquidation_requirement(schedule: ScheduleRow, notional: int) -> int:
    tier = tier_of(schedule, notional)
    rate = tier.maintenance_rate_ppb + schedule.liquidation_fee_ppb
    return ceil_div(rate * notional, BILLION) - tier.deduction


def initial_in_tier(tier: Tier, leverage: int, notional: int) -> int:
    """Return the larger of notional / leverage and the tier's rate of the notional."""
    return max(
        ceil_div(notional * 100, leverage), ceil_div(tier.initial_rate_ppb * notional, BILLION)
    )


def initial(schedule: ScheduleRow, leverage: int, notional: int) -> int:
    return initial_in_tier(tier_of(schedule, notional), leverage, notional)


def notional_max(schedule: ScheduleRow, leverage: int) -> int | None:
    """Return the largest side notional at a leverage; None is no bound.

    A leverage that not even the first tier allows leaves a bound of 0.
    """
    bounds = [tier.floor for tier in schedule.tiers if tier.leverage_max < leverage][:1]
    if schedule.notional_max != 0:
        bounds.append(schedule.notional_max)
    return min(bounds, default=None)


# --- Liquidation and bankruptcy price -------------------------------------------------------------


def can_be_liquidated(
    schedule: ScheduleRow, lots: int, entry_value: int, money: int, notional: Fraction
) -> bool:
    """Return whether w + s (N - V) <= (m_k + phi) N - d_k for the tier k of N, as fractions."""
    tier = tier_of(schedule, notional)
    rate = Fraction(tier.maintenance_rate_ppb + schedule.liquidation_fee_ppb, BILLION)
    return money + sign_of(lots) * (notional - entry_value) <= rate * notional - tier.deduction


def liquidation_price(
    schedule: ScheduleRow, lots: int, entry_value: int, money: int, unit_value: Fraction
) -> int | None:
    """Return the liquidation price in mark units, None if it cannot be liquidated.

    unit_value is v, what one lot is worth at one mark unit; money is w.
    """
    prices = []
    for tier in schedule.tiers:
        rate = tier.maintenance_rate_ppb + schedule.liquidation_fee_ppb
        if lots > 0:
            numerator = (entry_value - money - tier.deduction) * BILLION
            prices.append(numerator / ((BILLION - rate) * lots * unit_value))
        else:
            numerator = (entry_value + money + tier.deduction) * BILLION
            prices.append(numerator / ((BILLION + rate) * -lots * unit_value))
    if lots > 0:
        price = floor(max(prices))
        return None if price < 1 else price
    price = ceil(min(prices))
    return None if price > COUNT_MAX else max(1, price)


def bankruptcy_price(lots: int, entry_value: int, money: int, unit_value: Fraction) -> int | None:
    """Return the price in mark units at which equity is zero, against the account; None if none."""
    if lots > 0:
        price = ceil((entry_value - money) / (lots * unit_value))
    else:
        price = floor((entry_value + money) / (-lots * unit_value))
    return None if price <= 0 else price


def to_ticks(price: int, lots: int, mark_units_per_tick: int) -> int:
    """Round a price in mark units to ticks against the account: a long's up, a short's down."""
    if lots > 0:
        return ceil_div(price, mark_units_per_tick)
    return max(1, price // mark_units_per_tick)


def profit(lots: int, entry_value: int, value: Fraction) -> int:
    """Return the unrealised profit of a position whose |lots| are worth value; 0 for no lots."""
    if lots == 0:
        return 0
    return floor(value) - entry_value if lots > 0 else entry_value - ceil(value)


# --- A fill ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fill:
    """A position after a fill, and what the fill moved. The fee is not in it."""

    lots: int
    entry_value: int
    wallet: int
    cash_change: int
    deficit_change: int
    realised: int

    def fits(self, cash: int) -> bool:
        """Return whether all figures, and the cash after it, fit (M-3)."""
        return abs(self.lots) <= COUNT_MAX and fits(
            self.entry_value, self.wallet, self.realised, self.deficit_change, cash
        )


def fill_option(position: Position, sign: int, value_one: int, quantity: int) -> Fill:
    """Fill an option: the premium moves, nothing else. value_one is what one lot costs."""
    reduce, released, realised = close_part(position, sign, value_one, quantity)
    return Fill(
        lots=position.lots + sign * quantity,
        entry_value=position.entry_value - released + value_one * (quantity - reduce),
        wallet=0,
        cash_change=-sign * value_one * quantity,
        deficit_change=0,
        realised=realised,
    )


def close_part(
    position: Position, sign: int, value_one: int, quantity: int
) -> tuple[int, int, int]:
    """Return the lots a fill closes, the entry value it releases and the profit it realises."""
    size = abs(position.lots)
    reduce = min(quantity, size) if sign_of(position.lots) == -sign else 0
    if reduce == 0:
        return 0, 0, 0
    if position.lots > 0:
        released = ceil_div(position.entry_value * reduce, size)
        return reduce, released, value_one * reduce - released
    released = position.entry_value * reduce // size
    return reduce, released, released - value_one * reduce


def fill_perpetual(
    schedule: ScheduleRow,
    leverage: int,
    isolated: bool,
    position: Position,
    sign: int,
    value_one: int,
    quantity: int,
    open_loss: int,
) -> Fill:
    """open_loss is what leaves the order's hold with the fill."""
    reduce, released, realised = close_part(position, sign, value_one, quantity)
    opened = quantity - reduce
    wallet = position.wallet
    cash_change = 0
    deficit_change = 0
    if not isolated:
        cash_change += realised
    elif reduce > 0:
        freed = wallet * reduce // abs(position.lots)
        wallet -= freed
        credit = freed + realised
        if credit >= 0:
            cash_change += credit
        else:
            held_for_closing = open_loss - open_loss * opened // quantity
            covered = min(-credit, held_for_closing)
            cash_change -= covered
            paid = min(wallet, -credit - covered)
            wallet -= paid
            deficit_change = -credit - covered - paid
    entry_value = position.entry_value - released + value_one * opened
    if isolated and opened > 0:
        need = initial_in_tier(tier_of(schedule, entry_value), leverage, value_one * opened)
        need += open_loss * opened // quantity
        cash_change -= need
        wallet += need
    return Fill(
        lots=position.lots + sign * quantity,
        entry_value=entry_value,
        wallet=wallet,
        cash_change=cash_change,
        deficit_change=deficit_change,
        realised=realised,
    )


# --- Working orders of a position -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SideSums:
    """L, A and O of one side of a position."""

    lots: int
    value: int
    open_loss: int

    def plus(self, other: "SideSums") -> "SideSums":
        return SideSums(
            self.lots + other.lots, self.value + other.value, self.open_loss + other.open_loss
        )

    def fits(self) -> bool:
        return self.lots <= COUNT_MAX and fits(self.value, self.open_loss)


@dataclass(frozen=True, slots=True)
class SideMargin:
    """One side of a perpetual: what opens, and the margin of it."""

    side_notional: int
    order_margin: int
    """max(open_value / leverage, i_k open_value): what an isolated position's orders hold."""
    side_margin: int
    """The same with side_notional: what a cross position with its orders requires."""


def side_margin(
    schedule: ScheduleRow,
    leverage: int,
    lots: int,
    sign: int,
    sums: SideSums,
    held: int,
) -> SideMargin:
    closable = max(0, -sign * lots)
    open_lots = max(0, sums.lots - closable)
    open_value = ceil_div(sums.value * open_lots, sums.lots) if sums.lots else 0
    side_notional = (held if sign * lots > 0 else 0) + open_value
    tier = tier_of(schedule, side_notional)
    return SideMargin(
        side_notional,
        initial_in_tier(tier, leverage, open_value),
        initial_in_tier(tier, leverage, side_notional),
    )
