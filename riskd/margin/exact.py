"""Margin of linear (quote-settled) positions, exact: decimals in, decimals out.

Quantities are in units of the underlying and signed: above 0 long, below 0 short. Prices are quote
currency per unit, notionals and money quote currency, rates fractions of the notional (0.004).

The arithmetic is that of the compiled core, exact integers (docs/decision.md). These functions only
choose the units: the finest power of ten in which all figures of one question fit 64 bits, that is
18 or 19 digits for the largest of them. A figure with more digits than that is rounded against the
account, and so is each result; a price has at least 12 significant digits. What cannot be
represented is a ValueError: a rate finer than 1e-9, a leverage finer than 0.01, a quantity of more
than 15 digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from typing import Self

from riskd.core import margin as core
from riskd.margin.decimals import EXACT, Number, decimal, not_negative, positive

# What the core holds: docs/decision.md, "Numbers". The value of one lot at one price unit is
# bounded like an instrument's tick value, 2^40, over mark_units_per_tick, 10^9.
_MINOR_MAX = 2**62
_UNITS_MAX = 2**53
_VALUE_PLACES_MAX = 9
_RATE_PLACES = 9
_RATE_STEP = Decimal(1).scaleb(-_RATE_PLACES)
_LEVERAGE_PLACES = 2
_LEVERAGE_MAX = Decimal(1000)
_PRICE_DIGITS_MIN = 12


def round_rate_up(rate: Number) -> Decimal:
    """Return the rate rounded up to the 1e-9 that the core holds: 1/6 has no finite decimal."""
    return decimal("rate", rate).quantize(_RATE_STEP, ROUND_CEILING, EXACT)


def maintenance_rate_of_leverage(max_leverage: Number, part: Number = "0.5") -> Decimal:
    """Return a part of the initial rate 1 / max_leverage, rounded up to 1e-9."""
    leverage = positive("max_leverage", max_leverage)
    return EXACT.divide(decimal("part", part), leverage).quantize(_RATE_STEP, ROUND_CEILING, EXACT)


@dataclass(frozen=True, slots=True)
class Tier:
    """The rates above a floor of notional.

    deduction None: the one that makes maintenance continuous. max_leverage None: no bound.
    """

    floor: Decimal
    maintenance_rate: Decimal
    initial_rate: Decimal = Decimal(0)
    deduction: Decimal | None = None
    max_leverage: Decimal | None = None

    def __post_init__(self) -> None:
        not_negative("maintenance_rate", self.maintenance_rate)
        not_negative("initial_rate", self.initial_rate)
        if self.max_leverage is not None:
            positive("max_leverage", self.max_leverage)

    @classmethod
    def of(
        cls,
        floor: Number,
        maintenance_rate: Number,
        *,
        initial_rate: Number = 0,
        deduction: Number | None = None,
        max_leverage: Number | None = None,
    ) -> Self:
        """Return the tier from any kind of number. Raises ValueError if one is not finite."""
        return cls(
            decimal("floor", floor),
            decimal("maintenance_rate", maintenance_rate),
            decimal("initial_rate", initial_rate),
            None if deduction is None else decimal("deduction", deduction),
            None if max_leverage is None else decimal("max_leverage", max_leverage),
        )


@dataclass(frozen=True, slots=True)
class TierSchedule:
    """Tiers by rising floor, the first at 0, and the largest notional (None: no bound).

    Either every tier or none states its deduction.
    """

    tiers: tuple[Tier, ...]
    notional_max: Decimal | None = None

    def __post_init__(self) -> None:
        if not self.tiers:
            raise ValueError("tiers: a schedule needs at least one tier")
        for below, above in zip(self.tiers, self.tiers[1:], strict=False):
            if above.floor <= below.floor:
                raise ValueError(f"tiers: floor {above.floor} is not above {below.floor}")
        if self.tiers[0].floor != 0:
            raise ValueError(f"tiers: the first floor is {self.tiers[0].floor}, not 0")
        if len({tier.deduction is None for tier in self.tiers}) > 1:
            raise ValueError("tiers: some tiers state a deduction and some do not")

    @classmethod
    def flat(cls, maintenance_rate: Number, deduction: Number = 0) -> Self:
        """Return one rate, and one amount off, at every notional."""
        return cls((Tier.of(0, maintenance_rate, deduction=deduction),))


@dataclass(frozen=True, slots=True)
class CrossPosition:
    """A position that shares the pool. liquidation_fee_rate is on the notional at its mark."""

    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal
    schedule: TierSchedule
    liquidation_fee_rate: Decimal = Decimal(0)

    @classmethod
    def of(
        cls,
        quantity: Number,
        entry_price: Number,
        mark_price: Number,
        schedule: TierSchedule,
        liquidation_fee_rate: Number = 0,
    ) -> Self:
        """Return the position from any kind of number. Raises ValueError if one is not finite."""
        return cls(
            decimal("quantity", quantity),
            decimal("entry_price", entry_price),
            decimal("mark_price", mark_price),
            schedule,
            decimal("liquidation_fee_rate", liquidation_fee_rate),
        )


def notional(quantity: Number, price: Number) -> Decimal:
    """Return the notional |quantity| * price, exact."""
    product = EXACT.multiply(decimal("quantity", quantity), positive("price", price))
    return product.copy_abs()


def unrealised_pnl(quantity: Number, entry_price: Number, mark_price: Number) -> Decimal:
    """Return quantity * (mark price - entry price), exact."""
    change = EXACT.subtract(
        positive("mark_price", mark_price), positive("entry_price", entry_price)
    )
    return EXACT.multiply(decimal("quantity", quantity), change)


def deductions(schedule: TierSchedule) -> tuple[Decimal, ...]:
    """Return the deductions that make maintenance continuous, whatever the tiers state.

    d_0 = 0, d_k = d_(k-1) + floor_k * (rate_k - rate_(k-1)).
    Raises ValueError if rates do not rise with the floors.
    """
    places = [0, 0]
    for tier in schedule.tiers:
        places[0] = max(places[0], _places(tier.floor))
        places[1] = max(places[1], _places(tier.maintenance_rate))
    rows = [
        (_units("floor", tier.floor, sum(places)), _ppb("maintenance_rate", tier.maintenance_rate))
        for tier in schedule.tiers
    ]
    return tuple(_decimal(amount, sum(places)) for amount in core.deductions(rows))


def tier_at(schedule: TierSchedule, notional: Number) -> Tier:
    """Return the tier of a notional: the last one whose floor is below it."""
    ladder, _, minor = _ladder_at(schedule, not_negative("notional", notional))
    return schedule.tiers[ladder.tier_index(minor)]


def maintenance_margin(
    notional: Number, schedule: TierSchedule, *, liquidation_fee_rate: Number = 0
) -> Decimal:
    """Return rate * notional - deduction of the notional's tier, plus the liquidation fee."""
    fee = _fee(liquidation_fee_rate)
    ladder, scale, minor = _ladder_at(schedule, not_negative("notional", notional), fee)
    return _decimal(ladder.liquidation_requirement(minor), scale)


def initial_margin(
    notional: Number, leverage: Number, schedule: TierSchedule | None = None
) -> Decimal:
    """Return the larger of notional / leverage and the tier's initial rate of the notional."""
    ladder, scale, minor = _ladder_at(
        schedule or TierSchedule.flat(_RATE_STEP), not_negative("notional", notional)
    )
    return _decimal(ladder.initial(minor, _hundredths(decimal("leverage", leverage))), scale)


def max_leverage_for_stake(stake: Number, schedule: TierSchedule) -> Decimal:
    """Return the largest leverage at which stake * leverage is a notional that its tier allows.

    Raises ValueError if a tier has no max_leverage, or if not even leverage 1 is allowed.
    """
    money = not_negative("stake", stake)
    leverages = [tier.max_leverage for tier in schedule.tiers if tier.max_leverage is not None]
    if len(leverages) < len(schedule.tiers):
        raise ValueError("tiers: a tier has no max_leverage")
    ladder, scale = _ladder(schedule, Decimal(0), None)
    allowed = Decimal(0)
    bound = Decimal(0)
    for leverage in leverages:
        minor = ladder.notional_max_at(_hundredths(leverage))
        bound = _decimal(minor, scale)
        # At this leverage the stake fills the notional up to the bound; a bound of 0 is none.
        filled = leverage if minor == 0 or money == 0 else EXACT.divide(bound, money)
        allowed = max(allowed, min(leverage, filled))
    if allowed < 1:
        raise ValueError(f"stake {money:f} exceeds the largest notional {bound:f}")
    return +allowed


def isolated_liquidation_price(
    quantity: Number,
    entry_price: Number,
    wallet: Number,
    schedule: TierSchedule,
    *,
    liquidation_fee_rate: Number = 0,
) -> Decimal | None:
    """Return the mark price at which equity equals the requirement, or None if there is none.

    wallet is the position's margin without its unrealised profit. The requirement is maintenance,
    in the tier at the returned price, plus liquidation_fee_rate of the notional at that price.
    A price below 1e-11 of the entry price counts as none; 0: a short is past it at every price.
    Raises ValueError if a figure cannot be represented. Source: docs/decision.md.
    """
    fee = _fee(liquidation_fee_rate)
    exposure = _Exposure.of(quantity, entry_price, wallet)
    # No root lies beyond: a long's N (1 - rate) is at most V - w, a short's N (1 + rate) V + w.
    # Tiers with a higher floor cannot matter, and would cost the others' figures their digits.
    rate = max(tier.maintenance_rate for tier in schedule.tiers) + fee
    if not 0 < rate < 1:
        raise ValueError(f"maintenance and liquidation fee rate {rate} must be above 0 and below 1")
    reach = (exposure.value + abs(exposure.wallet)) / (1 - Fraction(rate))
    ladder, scale = _ladder(schedule, fee, reach)
    return exposure.solve(ladder.liquidation_price, scale, reach)


def cross_liquidation_price(
    quantity: Number,
    entry_price: Number,
    wallet: Number,
    schedule: TierSchedule,
    others: Sequence[CrossPosition] = (),
    *,
    liquidation_fee_rate: Number = 0,
) -> Decimal | None:
    """Return the mark price at which the pool's equity equals its requirement, or None.

    wallet is the pool's balance without unrealised profit. The other positions stay at their
    marks: their profit adds to what is behind this one, their requirements are taken off.
    Otherwise like isolated_liquidation_price.
    """
    money = decimal("wallet", wallet)
    for other in others:
        profit = unrealised_pnl(other.quantity, other.entry_price, other.mark_price)
        requirement = maintenance_margin(
            notional(other.quantity, other.mark_price),
            other.schedule,
            liquidation_fee_rate=other.liquidation_fee_rate,
        )
        money = EXACT.subtract(EXACT.add(money, profit), requirement)
    return isolated_liquidation_price(
        quantity, entry_price, money, schedule, liquidation_fee_rate=liquidation_fee_rate
    )


def bankruptcy_price(quantity: Number, entry_price: Number, wallet: Number) -> Decimal | None:
    """Return the price at which equity is zero, or None if it is not above zero.

    Rounded against the account: up for a long, down for a short.
    """
    exposure = _Exposure.of(quantity, entry_price, wallet)
    reach = exposure.value + abs(exposure.wallet)
    return exposure.solve(core.bankruptcy_price, _places_below(_MINOR_MAX, reach), reach)


@dataclass(frozen=True, slots=True)
class _Exposure:
    """Signed lots of 10^-lot_places, their value at the entry price, the money behind them."""

    lots: int
    lot_places: int
    value: Fraction
    wallet: Fraction

    @classmethod
    def of(cls, quantity: Number, entry_price: Number, wallet: Number) -> Self:
        amount = decimal("quantity", quantity).normalize(EXACT)
        price = positive("entry_price", entry_price)
        if amount == 0:
            raise ValueError("quantity must not be 0")
        lot_places = _places(amount, whole_too=True)
        lots = _units("quantity", amount, lot_places)
        if abs(lots) > _UNITS_MAX:
            raise ValueError(f"quantity {amount} has more than 15 digits")
        return cls(
            lots, lot_places, Fraction(notional(amount, price)), Fraction(decimal("wallet", wallet))
        )

    def solve(
        self,
        question: Callable[[int, int, int, int, int], int | None],
        scale: int,
        reach: Fraction,
    ) -> Decimal | None:
        """Ask the core for a price of at most reach / |quantity|, in as fine units as it takes."""
        bound = reach / abs(self.lots) * _power(self.lot_places)
        places = self._price_places(scale, _places_below(_UNITS_MAX, bound))
        price = self._ask(question, scale, places)
        if price is None:
            return None
        # A price far below the bound can have more digits.
        finer = self._price_places(scale, places + _places_below(_UNITS_MAX // 2, Fraction(price)))
        if finer > places:
            price, places = self._ask(question, scale, finer), finer
        if price == 1 and self.lots < 0:
            return Decimal(0)
        # A price near zero may have few digits of its own: the entry price is what it is told from.
        entry = self.value / abs(self.lots) * _power(self.lot_places)
        if price is None or max(price, entry * _power(places)) < 10 ** (_PRICE_DIGITS_MIN - 1):
            raise ValueError(f"{abs(self.lots)} lots leave a price less than 12 digits")
        return _decimal(price, places)

    def _price_places(self, scale: int, wanted: int) -> int:
        return min(wanted, scale - self.lot_places + _VALUE_PLACES_MAX)

    def _ask(
        self, question: Callable[[int, int, int, int, int], int | None], scale: int, places: int
    ) -> int | None:
        value = _power(scale)
        entry_value = _ceil(self.value * value) if self.lots > 0 else _floor(self.value * value)
        unit = _power(scale - self.lot_places - places)
        return question(
            self.lots, entry_value, _floor(self.wallet * value), unit.numerator, unit.denominator
        )


def _ladder(
    schedule: TierSchedule, fee: Decimal, reach: Fraction | None
) -> tuple[core.TierLadder, int]:
    """Return the core's ladder and its scale: one minor unit is 10^-scale.

    Holds the tiers that a notional up to `reach` can fall in; None is all of them.
    """
    tiers = schedule.tiers
    bound = schedule.notional_max or Decimal(0)
    if reach is not None:
        tiers = tuple(tier for tier in tiers if tier.floor == 0 or tier.floor < reach)
        bound = Decimal(0)
    figures = [Fraction(tier.floor) for tier in tiers]
    figures += [abs(Fraction(tier.deduction or 0)) for tier in tiers]
    scale = _places_below(_MINOR_MAX, max(*figures, Fraction(bound), reach or Fraction(0)))
    rows = [
        (
            _units("floor", tier.floor, scale),
            _ppb("initial_rate", tier.initial_rate),
            _ppb("maintenance_rate", tier.maintenance_rate),
            None if tier.deduction is None else _floor(Fraction(tier.deduction) * _power(scale)),
            _hundredths(_LEVERAGE_MAX if tier.max_leverage is None else tier.max_leverage),
        )
        for tier in tiers
    ]
    ladder = core.TierLadder(
        rows,
        notional_max=_units("notional_max", bound, scale),
        liquidation_fee_ppb=_ppb("liquidation_fee_rate", fee),
    )
    return ladder, scale


def _ladder_at(
    schedule: TierSchedule, notional: Decimal, fee: Decimal = Decimal(0)
) -> tuple[core.TierLadder, int, int]:
    """Return the ladder of the tiers up to a notional, its scale, and the notional in its units."""
    ladder, scale = _ladder(schedule, fee, Fraction(notional))
    return ladder, scale, _ceil(Fraction(notional) * _power(scale))


def _fee(rate: Number) -> Decimal:
    return not_negative("liquidation_fee_rate", rate)


def _ppb(name: str, rate: Decimal) -> int:
    return _units(name, rate, _RATE_PLACES)


def _hundredths(leverage: Decimal) -> int:
    if not 1 <= leverage <= _LEVERAGE_MAX:
        raise ValueError(f"leverage {leverage} is not within 1 to {_LEVERAGE_MAX}")
    return _units("leverage", leverage, _LEVERAGE_PLACES)


def _units(name: str, value: Decimal, places: int) -> int:
    """Return the value in units of 10^-places. Raises ValueError if it is not a whole number."""
    units = Fraction(value) * _power(places)
    if units.denominator != 1:
        raise ValueError(f"{name} {value} is not a multiple of 1e{-places}")
    return units.numerator


def _decimal(units: int, places: int) -> Decimal:
    """Return units * 10^-places without trailing zeros."""
    result = Decimal(units).scaleb(-places, EXACT).normalize(EXACT)
    return result if _places(result, whole_too=True) >= 0 else result.quantize(Decimal(1))


def _places(value: Decimal, *, whole_too: bool = False) -> int:
    """Return the number of decimal places; for a multiple of ten below 0, if that is asked for."""
    exponent = value.normalize(EXACT).as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{value} must be finite")
    return -exponent if whole_too else max(0, -exponent)


def _places_below(bound: int, value: Fraction) -> int:
    """Return the largest p with value * 10^p <= bound; 18 for 0, which fits in any unit."""
    if value == 0:
        return 18
    room = bound / value
    if room >= 1:
        return len(str(_floor(room))) - 1
    return -len(str(_ceil(1 / room) - 1))


def _power(exponent: int) -> Fraction:
    return Fraction(10) ** exponent


def _floor(value: Fraction) -> int:
    return value.numerator // value.denominator


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
