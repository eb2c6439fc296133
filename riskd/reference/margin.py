"""Arithmetic of docs/decision.md and docs/instruments.md on contracts and fills: no state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from riskd.core.rows import InstrumentRow, ScheduleRow
from riskd.reference.families import (
    BASIS_ENTRY,
    CLOSING_FEE_AT_BANKRUPTCY,
    CLOSING_FEE_IN_MAINTENANCE,
    CLOSING_FEE_RESERVED,
    FAMILY_POWER,
    FAMILY_TIERED,
    FAMILY_TIERED_QUANTITY,
    FAMILY_TIERED_WHOLE,
    Rates,
    rates_of,
)
from riskd.reference.numbers import BILLION, COUNT_MAX, ceil, ceil_div, fits, floor, sign_of
from riskd.reference.state import Position, is_inverse


@lru_cache
def tick_value(instrument: InstrumentRow, scale: int) -> Fraction:
    """Return tick_size * lot_size * multiplier * 10^scale: one lot at one tick, in minor units."""
    return lot_money(instrument, scale) * tick_size(instrument)


@lru_cache
def inverse_quotient(instrument: InstrumentRow, scale: int) -> Fraction:
    """Return Q = lot_size * multiplier * 10^scale / tick_size: one lot at one tick, inverse."""
    return lot_money(instrument, scale) / tick_size(instrument)


def tick_size(instrument: InstrumentRow) -> Fraction:
    return instrument.tick_mantissa * Fraction(10) ** instrument.tick_exponent


def lot_money(instrument: InstrumentRow, scale: int) -> Fraction:
    """Return minor units of one lot for a price of 1."""
    exponent = instrument.lot_exponent + instrument.multiplier_exponent + scale
    return instrument.lot_mantissa * instrument.multiplier_mantissa * Fraction(10) ** exponent


@lru_cache
def base_of_lot(instrument: InstrumentRow, scale: int) -> Fraction:
    """Return B = lot_size * 10^scale of a spot pair, scale that of its base asset."""
    return instrument.lot_mantissa * Fraction(10) ** (instrument.lot_exponent + scale)


@lru_cache
def unit_value(instrument: InstrumentRow, scale: int) -> Fraction:
    """Return v of one lot, of an inverse contract Q U: its notional times the mark."""
    units = instrument.mark_units_per_tick
    if is_inverse(instrument.kind):
        return inverse_quotient(instrument, scale) * units
    return tick_value(instrument, scale) / units


def value_at(instrument: InstrumentRow, scale: int, lots: int, price: int) -> Fraction:
    """Return what lots are worth at a price in mark units, unrounded."""
    lot = unit_value(instrument, scale)
    if is_inverse(instrument.kind):
        return Fraction(lots * lot.numerator, lot.denominator * price)
    return Fraction(lots * lot.numerator * price, lot.denominator)


@dataclass(frozen=True, slots=True)
class Contract:
    """An instrument that is no option, as margin arithmetic sees it."""

    instrument: InstrumentRow
    schedule: ScheduleRow
    scale: int
    leverage: int
    """Of an account's positions in it, in hundredths."""
    open_interest: int = 0
    """Its notional at the mark; 0 if it is not known."""

    @property
    def fee_ppb(self) -> int:
        """Return phi."""
        return self.schedule.liquidation_fee_ppb

    @property
    def is_inverse(self) -> bool:
        return is_inverse(self.instrument.kind)

    def sigma(self, lots: int) -> int:
        """Return 1 for what is long in the notional, -1 for what is short in it, 0 for no lots."""
        return -sign_of(lots) if self.is_inverse else sign_of(lots)

    @property
    def unit_value(self) -> Fraction:
        """Return v of one lot, of an inverse contract Q U: its notional times the mark."""
        return unit_value(self.instrument, self.scale)

    def notional(self, lots: int, price: int) -> Fraction:
        """Return N of |lots| at a price in mark units."""
        return value_at(self.instrument, self.scale, abs(lots), price)

    def rates(self, sign: int, lots: int, notional: int | Fraction) -> Rates:
        """Return i, m and d of lots on a side, 1 long or -1 short, with their notional."""
        return rates_of(self.schedule, self.scale, self.open_interest, sign, abs(lots), notional)

    def is_entry_based(self) -> bool:
        return self.schedule.maintenance_basis == BASIS_ENTRY

    def closing_fee(self, sigma: int, value: int) -> int:
        """Return c, what is put aside for closing a notional or an entry value."""
        if self.schedule.closing_fee == CLOSING_FEE_RESERVED:
            sigma = -1  # As of a short, whose value rises on the way.
        elif self.schedule.closing_fee != CLOSING_FEE_AT_BANKRUPTCY:
            return 0
        fee_ppb = self.instrument.taker_fee_ppb
        at_bankruptcy = self.leverage - 100 * sigma
        return ceil_div(fee_ppb * value * at_bankruptcy, BILLION * self.leverage)


# --- Margin of a notional -------------------------------------------------------------------------


def requirement_of(
    contract: Contract, lots: int, entry_value: int, value: int, fee_ppb: int
) -> int:
    """Return ceil((m + fee) value) - d, at the rates of a value, and what is put aside."""
    rates = contract.rates(sign_of(lots), lots, value)
    part = ceil_div((rates.maintenance_ppb + fee_ppb) * value, BILLION) - rates.deduction
    return part + contract.closing_fee(contract.sigma(lots), entry_value)


def maintenance(contract: Contract, lots: int, entry_value: int, notional: int) -> int:
    is_fee_inside = contract.schedule.closing_fee == CLOSING_FEE_IN_MAINTENANCE
    fee_ppb = contract.fee_ppb if is_fee_inside else 0
    basis = entry_value if contract.is_entry_based() else notional
    return requirement_of(contract, lots, entry_value, basis, fee_ppb)


def liquidation_requirement(contract: Contract, lots: int, entry_value: int, notional: int) -> int:
    if contract.is_entry_based():
        fee = ceil_div(contract.fee_ppb * notional, BILLION)
        return fee + requirement_of(contract, lots, entry_value, entry_value, 0)
    return requirement_of(contract, lots, entry_value, notional, contract.fee_ppb)


def initial_at(contract: Contract, rates: Rates, sign: int, notional: int, lots: int) -> int:
    """Return the initial margin of a notional, and the lots that it is of, at known rates."""
    margin = max(
        ceil_div(notional * 100, contract.leverage),
        ceil_div(rates.initial_ppb * notional, BILLION),
        rates.initial_per_lot * abs(lots),
    )
    return margin + contract.closing_fee(contract.sigma(sign), notional)


def initial(contract: Contract, lots: int, notional: int) -> int:
    sign = sign_of(lots)
    return initial_at(contract, contract.rates(sign, lots, notional), sign, notional, lots)


def notional_max(schedule: ScheduleRow, leverage: int) -> int | None:
    """Return the largest side notional at a leverage; None is no bound.

    A leverage that not even the first tier allows leaves a bound of 0.
    """
    bounds = []
    if schedule.family != FAMILY_TIERED_QUANTITY:
        bounds += floors_beyond(schedule, leverage)
    if schedule.notional_max != 0:
        bounds.append(schedule.notional_max)
    return min(bounds, default=None)


def lots_max(schedule: ScheduleRow, leverage: int) -> int | None:
    """Return the most lots of a side at a leverage; None is no bound."""
    if schedule.family != FAMILY_TIERED_QUANTITY:
        return None
    bounds = floors_beyond(schedule, leverage)
    if schedule.parameter_a != 0:
        bounds.append(schedule.parameter_a)
    return min(bounds, default=None)


def floors_beyond(schedule: ScheduleRow, leverage: int) -> list[int]:
    """Return the floors of the tiers that do not allow a leverage."""
    return [tier.floor for tier in schedule.tiers if tier.leverage_max < leverage]


# --- Liquidation and bankruptcy price -------------------------------------------------------------


class Side(NamedTuple):
    """x and V of a position side; those of one contract move together."""

    lots: int
    entry_value: int


def has_deductions(contract: Contract, sides: Sequence[Side]) -> bool:
    """Return whether each d fits: that of an amount a lot, or with a fee in it, may not."""
    lines = [line for side in sides for line in requirement_lines(contract, side)]
    return all(fits(deduction) for _, deduction in lines)


def can_be_liquidated(contract: Contract, sides: Sequence[Side], money: int, price: int) -> bool:
    """Return whether equity is at or below the liquidation requirement, as fractions."""
    if not has_deductions(contract, sides):
        return False
    equity, required = Fraction(money), Fraction(0)
    for side in sides:
        notional = contract.notional(side.lots, price)
        equity += contract.sigma(side.lots) * (notional - side.entry_value)
        required += exact_requirement(contract, side, notional)
    return equity <= required


def exact_requirement(contract: Contract, side: Side, notional: Fraction) -> Fraction:
    """Return the liquidation requirement unrounded, as far as it moves with the price."""
    if not contract.is_entry_based() and contract.schedule.family == FAMILY_POWER:
        # The rate is that of a whole notional, and so is the requirement.
        return Fraction(liquidation_requirement(contract, *side, ceil(notional)))
    if contract.is_entry_based():
        ((rate, deduction),) = requirement_lines(contract, side)
    else:
        rates = contract.rates(sign_of(side.lots), side.lots, notional)
        rate, deduction = rates.maintenance_ppb + contract.fee_ppb, rates.deduction
    return Fraction(rate, BILLION) * notional - deduction


def liquidation_price(
    contract: Contract, sides: Sequence[Side], money: int, mark: int | None
) -> int | None:
    """Return the liquidation price in mark units, None if there is none. money is w.

    Of several sides, with which there must be a mark, it is the one that they share.
    """
    if len(sides) > 1:
        assert mark is not None
        return shared_price(contract, sides, money, mark)
    (side,) = sides
    lots, entry_value = side
    if not contract.is_entry_based():
        if contract.schedule.family == FAMILY_TIERED_WHOLE:
            return price_by_tier(contract, side, money, mark)
        if contract.schedule.family == FAMILY_POWER:
            start = first_price(contract, side, mark)
            end = 1 if lots > 0 else COUNT_MAX
            return first_liquidated(contract, sides, money, start, end)
    bounds = []
    for rate, deduction in requirement_lines(contract, side):
        if contract.sigma(lots) > 0:
            bounds.append(Fraction((entry_value - money - deduction) * BILLION, BILLION - rate))
        else:
            bounds.append(Fraction((entry_value + money + deduction) * BILLION, BILLION + rate))
    # The notional up to which, or from which on, it can be liquidated.
    notional = max(bounds) if contract.sigma(lots) > 0 else min(bounds)
    of_all_lots = contract.unit_value * abs(lots)
    if not contract.is_inverse:
        price = floor(notional / of_all_lots) if lots > 0 else ceil(notional / of_all_lots)
        if lots > 0:
            return None if price < 1 else price
        return None if price > COUNT_MAX else max(1, price)
    if lots < 0:
        price = ceil(of_all_lots / notional) if notional > 0 else COUNT_MAX + 1
        return None if price > COUNT_MAX else price
    price = floor(of_all_lots / notional) if notional > 0 else COUNT_MAX
    return None if price < 1 else min(COUNT_MAX, price)


def shared_price(contract: Contract, sides: Sequence[Side], money: int, mark: int) -> int | None:
    """Return the price nearest to the mark, the lower of two, at which all sides are liquidated.

    Sides that are nearly equal gain and lose little, but their requirements rise with the notional:
    so they may be liquidated against the direction in which they lose.
    """
    ends = [first_liquidated(contract, sides, money, mark, end) for end in (1, COUNT_MAX)]
    found = [price for price in ends if price is not None]
    return min(found, key=lambda price: abs(price - mark), default=None)


def requirement_lines(contract: Contract, side: Side) -> list[tuple[int, int]]:
    """Return (rate, deduction) of the lines whose largest one is the liquidation requirement."""
    lots, entry_value = side
    fee_ppb = contract.fee_ppb
    if contract.is_entry_based():
        return [(fee_ppb, -requirement_of(contract, lots, entry_value, entry_value, 0))]
    if contract.schedule.family == FAMILY_TIERED:
        tiers = contract.schedule.tiers
        return [(each.maintenance_rate_ppb + fee_ppb, each.deduction) for each in tiers]
    rates = contract.rates(sign_of(lots), lots, 0)  # Other families do not look at the notional.
    return [(rates.maintenance_ppb + fee_ppb, rates.deduction)]


def price_by_tier(contract: Contract, side: Side, money: int, mark: int | None) -> int | None:
    """Return the first price that liquidates from the mark on, of tiers with jumps.

    In a tier, what can be liquidated at a price can be at all further ones.
    """
    start = first_price(contract, side, mark)
    lots = side.lots
    found = []
    floors = [tier.floor for tier in contract.schedule.tiers]
    for index, floor_k in enumerate(floors):
        lowest, highest = 1, COUNT_MAX
        of_all_lots = contract.unit_value * abs(lots)
        if contract.is_inverse:
            if floor_k > 0:
                highest = min(highest, ceil(of_all_lots / floor_k) - 1)
            if index + 1 < len(floors):
                lowest = max(lowest, ceil(of_all_lots / floors[index + 1]))
        else:
            lowest = max(lowest, floor(floor_k / of_all_lots) + 1)
            if index + 1 < len(floors):
                highest = min(highest, floor(floors[index + 1] / of_all_lots))
        if lots > 0:
            near, far = min(highest, start), lowest
        else:
            near, far = max(lowest, start), highest
        if sign_of(lots) * (near - far) >= 0:
            price = first_liquidated(contract, [side], money, near, far)
            found += [] if price is None else [price]
    if not found:
        return None
    return max(found) if lots > 0 else min(found)


def first_price(contract: Contract, side: Side, mark: int | None) -> int:
    """Return where to begin: the mark, else the average price, rounded against the account."""
    if mark is not None:
        return mark
    lots, entry_value = side
    of_all_lots = contract.unit_value * abs(lots)
    if contract.is_inverse:
        price = of_all_lots / entry_value if entry_value > 0 else Fraction(COUNT_MAX)
    else:
        price = entry_value / of_all_lots
    return max(1, min(COUNT_MAX, ceil(price) if lots > 0 else floor(price)))


def first_liquidated(
    contract: Contract, sides: Sequence[Side], money: int, near: int, far: int
) -> int | None:
    """Return the first price from near to far at which it can be liquidated, by bisection."""
    if can_be_liquidated(contract, sides, money, near):
        return near
    if not can_be_liquidated(contract, sides, money, far):
        return None
    while abs(far - near) > 1:
        middle = (near + far) // 2
        if can_be_liquidated(contract, sides, money, middle):
            far = middle
        else:
            near = middle
    return far


def bankruptcy_price(contract: Contract, lots: int, entry_value: int, money: int) -> int | None:
    """Return the price in mark units at which equity is zero, against the account; None if none."""
    of_all_lots = contract.unit_value * abs(lots)
    money -= contract.closing_fee(contract.sigma(lots), entry_value)
    if not fits(money):
        return None
    notional = entry_value - contract.sigma(lots) * money
    if contract.is_inverse:
        if notional <= 0:
            return None
        price = ceil(of_all_lots / notional) if lots > 0 else floor(of_all_lots / notional)
        return price if 0 < price <= COUNT_MAX else None
    price = ceil(notional / of_all_lots) if lots > 0 else floor(notional / of_all_lots)
    return None if price <= 0 else price


def to_ticks(price: int, is_below: bool, mark_units_per_tick: int) -> int:
    """Round a price in mark units to ticks against the account: a long's, below the mark, up."""
    if is_below:
        return ceil_div(price, mark_units_per_tick)
    return max(1, price // mark_units_per_tick)


def profit(sigma: int, entry_value: int, value: Fraction) -> int:
    """Return the unrealised profit of a position that is worth value; 0 for no lots."""
    if sigma == 0:
        return 0
    return floor(value) - entry_value if sigma > 0 else entry_value - ceil(value)


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
    base_change: int = 0
    """Of a spot pair, in the base asset."""

    def fits(self, cash: int) -> bool:
        """Return whether all figures, and the cash after it, fit (M-3)."""
        return abs(self.lots) <= COUNT_MAX and fits(
            self.entry_value, self.wallet, self.realised, self.deficit_change, cash
        )


@dataclass(frozen=True, slots=True)
class ClosedPart:
    """What a fill takes off a position."""

    lots: int
    released: int
    """Of the entry value."""
    realised: int


def close_part(
    position: Position, sigma: int, sign: int, quantity: int, traded: Callable[[int], int]
) -> ClosedPart:
    """Return what a fill closes. sigma is the position's; traded gives the money of some lots."""
    size = abs(position.lots)
    reduce = min(quantity, size) if sign_of(position.lots) == -sign else 0
    if reduce == 0:
        return ClosedPart(0, 0, 0)
    if sigma > 0:
        released = ceil_div(position.entry_value * reduce, size)
        return ClosedPart(reduce, released, traded(reduce) - released)
    released = position.entry_value * reduce // size
    return ClosedPart(reduce, released, released - traded(reduce))


def fill_option(position: Position, sign: int, quantity: int, traded: Callable[[int], int]) -> Fill:
    """Fill an option: the premium moves, nothing else."""
    closed = close_part(position, sign_of(position.lots), sign, quantity, traded)
    return Fill(
        lots=position.lots + sign * quantity,
        entry_value=position.entry_value - closed.released + traded(quantity - closed.lots),
        wallet=0,
        cash_change=-sign * traded(quantity),
        deficit_change=0,
        realised=closed.realised,
    )


def fill_spot(sign: int, quantity: int, one_lot: int, traded: Callable[[int], int]) -> Fill:
    """Exchange money for the base asset, of which a lot is one_lot: no position is left."""
    return Fill(
        lots=0,
        entry_value=0,
        wallet=0,
        cash_change=-sign * traded(quantity),
        deficit_change=0,
        realised=0,
        base_change=sign * quantity * one_lot,
    )


def fill_contract(
    contract: Contract,
    isolated: bool,
    position: Position,
    sign: int,
    quantity: int,
    open_loss: int,
    traded: Callable[[int], int],
) -> Fill:
    """open_loss is what leaves the order's hold with the fill."""
    sigma = contract.sigma(position.lots)
    closed = close_part(position, sigma, sign, quantity, traded)
    opened = quantity - closed.lots
    wallet = position.wallet
    cash_change = 0
    deficit_change = 0
    if not isolated:
        cash_change += closed.realised
    elif closed.lots > 0:
        freed = wallet * closed.lots // abs(position.lots)
        wallet -= freed
        credit = freed + closed.realised
        if credit >= 0:
            cash_change += credit
        else:
            held_for_closing = open_loss - open_loss * opened // quantity
            covered = min(-credit, held_for_closing)
            cash_change -= covered
            paid = min(max(0, wallet), -credit - covered)
            wallet -= paid
            deficit_change = -credit - covered - paid
    lots = position.lots + sign * quantity
    money = traded(opened)
    entry_value = position.entry_value - closed.released + money
    if isolated and opened > 0:
        rates = contract.rates(sign_of(lots), lots, entry_value)
        need = initial_at(contract, rates, sign_of(lots), money, opened)
        need += open_loss * opened // quantity
        cash_change -= need
        wallet += need
    return Fill(
        lots=lots,
        entry_value=entry_value,
        wallet=wallet,
        cash_change=cash_change,
        deficit_change=deficit_change,
        realised=closed.realised,
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

    def open_value(self, open_lots: int) -> int:
        """Return what some of its lots count, at the average price of its orders."""
        return ceil_div(self.value * open_lots, self.lots) if self.lots else 0


@dataclass(frozen=True, slots=True)
class SideMargin:
    """One side of a contract: what opens, and the margin of it."""

    side_notional: int
    side_lots: int
    """n: what is held on the side, and what its orders open."""
    order_margin: int
    """max(open_value / leverage, i open_value): what an isolated position's orders hold."""
    side_margin: int
    """The same with side_notional: what a cross position with its orders requires."""


def side_margin(
    contract: Contract,
    lots: int,
    sign: int,
    sums: SideSums,
    held: int,
) -> SideMargin:
    open_lots = max(0, sums.lots - max(0, -sign * lots))
    open_value = sums.open_value(open_lots)
    side_notional = (held if sign * lots > 0 else 0) + open_value
    side_lots = max(0, sign * lots) + open_lots
    rates = contract.rates(sign, side_lots, side_notional)
    return SideMargin(
        side_notional,
        side_lots,
        initial_at(contract, rates, sign, open_value, open_lots),
        initial_at(contract, rates, sign, side_notional, side_lots),
    )
