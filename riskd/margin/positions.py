"""Margin of one position under any rule record, exact.

With s = +1 for a long and -1 for a short, q contracts of a multiplier v, the value of the position
at a price P is

    linear   N(P) = |q| v P        inverse   N(P) = |q| v / P

in settlement currency, and with V = N(entry) its profit is sigma (N - V): sigma = s for a linear
contract and -s for an inverse one, whose value in coin falls as the price rises. So an inverse long
is a linear short in 1 / P, and one equation serves all four:

    liquidation   M + sigma (N - V) = (m + phi) N + A - d
    bankruptcy    M + sigma (N - V) = f N

M is the money behind the position without its profit, m and d are the rate and deduction of its
tier, A what was frozen at entry, phi and f fee rates: riskd.margin.rule says which. It is solved
for N, then N for the price. Everything is a fraction until the last step.

A result is a Decimal of at most 34 digits: requirements are rounded up, prices against the account
(up for a long, down for a short), to a tick where the rule rounds and the position has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Self

from riskd.margin.decimals import EXACT, Number, decimal, rounded_up, to_decimal
from riskd.margin.exact import TierSchedule
from riskd.margin.rule import Rounding, Rule
from riskd.margin.schedules import (
    PowerLaw,
    Schedule,
    Terms,
    is_continuous,
    moves_with_notional,
    terms_of,
    tier_index,
    tier_terms,
)

_HALVINGS = 120
# A venue's own figures are often printed from doubles: 2^-53 of each, a few times over.
_STEP_TOLERANCE = Fraction(1, 10**15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A position and the money behind it. What is optional is needed only where the rule uses it.

    Raises ValueError, naming the field, its value and its bound.
    """

    quantity: Decimal
    """Contracts, above 0 long, below 0 short. 0: no position, which needs nothing and has no
    liquidation price."""

    entry_price: Decimal | None = None
    """Average entry price, above 0. It or entry_value must be given."""

    mark_price: Decimal | None = None
    """Above 0."""

    wallet: Decimal | None = None
    """What the venue calls the position's margin or the account's balance: Rule.wallet says what is
    in it. None: what the position needed at entry, its value over its leverage."""

    added_margin: Decimal = Decimal(0)
    """What was added since, where the wallet is not stated; not below 0."""

    leverage: Decimal | None = None
    """Chosen by the account, at least 1. None: requirements are those of the schedule alone."""

    fee_rate: Decimal = Decimal(0)
    """Fee that closing takes, of the value; 0 to below 1."""

    session_price: Decimal | None = None
    """Average price of the session, above 0: only for maintenance on the session's average."""

    multiplier: Decimal = Decimal(1)
    """Linear: units of the underlying, or for a quanto contract settlement money per point, of one
    contract. Inverse: its face value in quote currency. Above 0."""

    entry_value: Decimal | None = None
    """The value at entry where the venue states or rounds it. None: that of the entry price."""

    mark_value: Decimal | None = None
    """The value at the mark, likewise."""

    unrealised_profit: Decimal | None = None
    """The profit at the mark where the venue states it. None: that of the values."""

    closing_fee: Decimal | None = None
    """The fee reserved for closing, where the venue states it. None: by the rate and leverage."""

    frozen_maintenance: Decimal | None = None
    """Maintenance margin at entry with the reserved fee, where the venue states it; for rules whose
    maintenance_basis is entry. None: by the schedule."""

    open_loss: Decimal = Decimal(0)
    """Loss that the initial margin also covers, not below 0."""

    open_interest: Decimal | None = None
    """Notional of the market's open interest, for schedules that are scaled by it."""

    tick: Decimal | None = None
    """Price step, above 0. None: prices are not rounded to one."""

    value_step: Decimal | None = None
    """Step of the value of one contract, above 0: values are the nearest to it, and a price that is
    rounded is that of a whole number of steps, against the account. None: values are exact."""

    def __post_init__(self) -> None:
        for name in (
            "entry_price",
            "mark_price",
            "session_price",
            "multiplier",
            "tick",
            "value_step",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} {value} must be above 0")
        if self.entry_price is None and self.entry_value is None:
            raise ValueError("entry_price is missing")
        for name in (
            "entry_value",
            "mark_value",
            "closing_fee",
            "frozen_maintenance",
            "added_margin",
            "open_loss",
            "open_interest",
        ):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} {value} must not be below 0")
        if self.leverage is not None and self.leverage < 1:
            raise ValueError(f"leverage {self.leverage} must not be below 1")
        if not 0 <= self.fee_rate < 1:
            raise ValueError(f"fee_rate {self.fee_rate} must be 0 or more and below 1")

    @classmethod
    def of(cls, **figures: Number | None) -> Self:
        """Return the position from any kind of number; None is as if not given.

        Raises ValueError if a figure is not a finite number, or out of bounds.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name in figures if name not in names]
        if unknown:
            raise ValueError(f"{unknown[0]} is not one of {', '.join(names)}")
        if figures.get("quantity") is None:
            raise ValueError("quantity is missing")
        given = {name: value for name, value in figures.items() if value is not None}
        return cls(**{name: decimal(name, value) for name, value in given.items()})


@dataclass(frozen=True, slots=True)
class Requirement:
    """Settlement currency."""

    notional: Decimal
    initial: Decimal
    maintenance: Decimal


@dataclass(frozen=True, slots=True)
class Held:
    """Another position of a pool, with its own schedule and rule, at its own mark."""

    position: Position
    schedule: Schedule
    rule: Rule
    same_instrument: bool = False
    """The other side of a hedged pair: its price is the one that is looked for."""


def value_of(position: Position, price: Number, rule: Rule) -> Decimal:
    """Return the position's value at a price, in settlement currency, rounded up."""
    return rounded_up(_value(position, Fraction(decimal("price", price)), rule))


def profit_of(position: Position, rule: Rule) -> Decimal:
    """Return the unrealised profit at the mark, in settlement currency, rounded down."""
    return to_decimal(_Question(position, TierSchedule.flat(0), rule).profit(), ROUND_FLOOR)


def quote_of_coin(amount: Number, price: Number) -> Decimal:
    """Return an amount of coin in quote currency at a price, rounded up."""
    return rounded_up(Fraction(decimal("amount", amount)) * Fraction(decimal("price", price)))


def coin_of_quote(amount: Number, price: Number) -> Decimal:
    """Return an amount of quote currency in coin at a price, rounded up."""
    return rounded_up(
        Fraction(decimal("amount", amount)) / _price("price", decimal("price", price))
    )


def next_deduction(
    deduction_below: Number, floor: Number, rate_below: Number, rate: Number
) -> Decimal:
    """Return the deduction of a tier that continues the one below: d + floor (m - m_below)."""
    step = EXACT.subtract(decimal("rate", rate), decimal("rate_below", rate_below))
    rise = EXACT.multiply(decimal("floor", floor), step)
    return EXACT.add(decimal("deduction_below", deduction_below), rise)


def available_margin(equity: Number, initial: Number) -> Decimal:
    """Return what equity leaves for further positions: equity - initial margin, exact."""
    return EXACT.subtract(decimal("equity", equity), decimal("initial", initial))


def requirement_of(position: Position, schedule: Schedule, rule: Rule) -> Requirement:
    """Return notional, initial and maintenance margin of a position.

    The notional is at the mark. Raises ValueError if a figure that the rule uses is missing.
    """
    if position.quantity == 0:
        return Requirement(Decimal(0), Decimal(0), Decimal(0))
    question = _Question(position, schedule, rule)
    initial_value = question.entry_value
    if rule.initial_basis == "mark":
        initial_value = question.mark_value
    terms = question.terms(initial_value)
    initial = max(terms.i * initial_value, terms.amount)
    if position.leverage is not None:
        initial = max(initial, initial_value / Fraction(position.leverage))
    maintenance = question.maintenance()
    if rule.fee_in_margin == "close_at_bankruptcy":
        fee = question.closing_fee(initial_value, question.sigma)
        initial, maintenance = initial + fee, maintenance + fee
    elif rule.fee_in_margin != "none":
        value = question.basis_value()
        maintenance += value * Fraction(position.fee_rate)
        if rule.fee_in_margin == "taker":
            initial += initial_value * Fraction(position.fee_rate)
    return Requirement(
        rounded_up(question.mark_value if question.has_mark() else initial_value),
        rounded_up(initial + Fraction(position.open_loss)),
        rounded_up(maintenance),
    )


def margin_ratio_of(position: Position, schedule: Schedule, rule: Rule) -> Decimal:
    """Return equity over the liquidation requirement at the mark, rounded down: 1 is the end.

    Raises ValueError if the requirement is 0.
    """
    question = _Question(position, schedule, rule)
    profit = question.sigma * (question.mark_value - question.entry_value)
    required = question.liquidation_requirement()
    if required == 0:
        raise ValueError("the requirement is 0: there is no ratio")
    return to_decimal((question.money() + profit) / required, ROUND_FLOOR)


def equity_of_ratio(ratio: Number, position: Position, schedule: Schedule, rule: Rule) -> Decimal:
    """Return the equity at the mark that has this margin ratio, rounded down.

    What is behind the position is not asked, so that the rule must not freeze a fee of it.
    """
    required = _Question(position, schedule, rule).liquidation_requirement()
    return to_decimal(Fraction(decimal("ratio", ratio)) * required, ROUND_FLOOR)


def reserved_fee_of(position: Position, rule: Rule) -> Decimal:
    """Return the fee of closing that a wallet margin_and_fee holds, rounded up."""
    return rounded_up(_Question(position, TierSchedule.flat(0), rule).fee_in_wallet())


def closing_fee_of(position: Position, rule: Rule, step: Number | None = None) -> Decimal:
    """Return the fee of closing at the printed bankruptcy price, rounded up to a step of money."""
    price = bankruptcy_price_of(position, rule)
    if price is None or not price.is_finite() or price == 0:
        raise ValueError("there is no bankruptcy price, so no fee of closing there")
    fee = Fraction(position.fee_rate) * _value(position, Fraction(price), rule)
    if step is None:
        return rounded_up(fee)
    unit = _price("step", decimal("step", step))
    return rounded_up(_steps(fee / unit, "up", is_long=True) * unit)


def liquidation_price_of(
    position: Position, schedule: Schedule, rule: Rule, others: Sequence[Held] = ()
) -> Decimal | None:
    """Return the price at which equity equals the requirement, or None if there is none.

    The position's own tier is the one at the returned price (rule.tier_price liquidation). Where
    the requirement jumps at a floor it is the first price, going from the mark (the entry price
    while there is no mark), at which equity is not above it. The others stay at their marks: their
    profit counts for this position (a wallet that is equity has it already), their requirements
    against it. One on the same instrument moves
    with this one: a hedged pair has one price, the first at which it is not above its requirement,
    going from the mark to where the pair loses (down and up if it is balanced, the nearer counts).
    0 for a linear short and Infinity for an inverse long: liquidated at every price.
    Raises ValueError for a pair of different contracts, or by a power law.
    """
    question = _Question(position, schedule, rule)
    pool = Fraction(0)
    moving = [question]
    for other in others:
        at_mark = _Question(other.position, other.schedule, other.rule)
        if other.position.quantity == 0:
            continue
        # The account's equity has every position's profit at its mark in it.
        profit = Fraction(0) if rule.wallet == "equity" else at_mark.profit()
        if other.same_instrument:
            moving.append(at_mark)
            pool += profit - at_mark.profit()
        else:
            pool += profit - at_mark.liquidation_requirement()
    money = question.money() + pool
    if len(moving) > 1:
        return _price_of_pair(moving, money)
    if position.quantity == 0:
        return None
    return question.printed(question.solve(money), rule.liquidation_rounding, rule.extra_ticks)


def bankruptcy_price_of(position: Position, rule: Rule) -> Decimal | None:
    """Return the price at which equity is zero, or None if it is zero nowhere.

    With rule.fee_in_bankruptcy equity is what the fee of closing there takes.
    """
    if position.quantity == 0:
        return None
    question = _Question(position, TierSchedule.flat(0), rule)
    return question.printed(question.bankruptcy_value(), rule.bankruptcy_rounding, 0)


@dataclass(frozen=True, slots=True)
class _Question:
    """The terms of the equation for one position."""

    position: Position
    schedule: Schedule
    rule: Rule

    @property
    def sigma(self) -> int:
        return _sigma(self.position, self.rule)

    @property
    def size(self) -> Fraction:
        return abs(Fraction(self.position.quantity)) * Fraction(self.position.multiplier)

    @property
    def entry_value(self) -> Fraction:
        return _entry_value(self.position, self.rule)

    @property
    def mark_value(self) -> Fraction:
        if self.position.mark_value is not None:
            return Fraction(self.position.mark_value)
        return self._value_at("mark_price")

    def profit(self) -> Fraction:
        """Unrealised profit at the mark."""
        if self.position.unrealised_profit is not None:
            return Fraction(self.position.unrealised_profit)
        return self.sigma * (self.mark_value - self.entry_value)

    def has_mark(self) -> bool:
        return self.position.mark_price is not None or self.position.mark_value is not None

    def liquidation_requirement(self) -> Fraction:
        """What equity is compared with at the mark."""
        moving = Fraction(0) if self.is_frozen() else self.maintenance()
        if self.phi:
            moving += self.phi * self.mark_value
        return self.frozen() + moving

    @property
    def phi(self) -> Fraction:
        at_liquidation = self.rule.fee_in_liquidation == "at_liquidation"
        return Fraction(self.position.fee_rate) if at_liquidation else Fraction(0)

    def _value_at(self, name: str) -> Fraction:
        price = getattr(self.position, name)
        if price is None:
            raise ValueError(f"{name} is missing")
        return _value(self.position, Fraction(price), self.rule)

    def terms(self, notional: Fraction) -> Terms:
        interest = self.position.open_interest
        return terms_of(
            self.schedule,
            abs(Fraction(self.position.quantity)),
            notional,
            self.rule,
            None if interest is None else Fraction(interest),
        )

    def basis_value(self) -> Fraction:
        """The value that the maintenance rate applies to, where maintenance is shown."""
        if self.rule.maintenance_basis == "entry":
            return self.entry_value
        if self.rule.maintenance_basis == "session_average":
            return self._value_at("session_price")
        return self.mark_value

    def maintenance(self) -> Fraction:
        value = self.basis_value()
        terms = self.terms(value)
        return max(Fraction(0), terms.m * value - terms.d)

    def closing_fee(self, value: Fraction, sigma: int) -> Fraction:
        """The fee of closing at the bankruptcy price of the leverage of a side."""
        if self.position.closing_fee is not None:
            return Fraction(self.position.closing_fee)
        if self.position.fee_rate == 0:
            return Fraction(0)
        if self.position.leverage is None:
            raise ValueError("leverage is missing: the fee of closing at bankruptcy depends on it")
        left = 1 - sigma / Fraction(self.position.leverage)
        return Fraction(self.position.fee_rate) * value * left

    def money(self) -> Fraction:
        """M, the money behind the position without its unrealised profit."""
        kind = self.rule.wallet
        if self.position.wallet is None:
            if self.position.leverage is None:
                raise ValueError("wallet is missing, and so is the leverage that it comes from")
            money = self.entry_value / Fraction(self.position.leverage)
            money += Fraction(self.position.added_margin)
            return money + self.fee_in_wallet() if self._has_fee() else money
        wallet = Fraction(self.position.wallet)
        if kind in ("margin_and_profit", "equity"):
            return wallet - self.profit()
        return wallet

    def _has_fee(self) -> bool:
        return self.rule.wallet == "margin_and_fee"

    def fee_in_wallet(self) -> Fraction:
        """The closing fee in a wallet margin_and_fee; a reserved one is that of the worse side."""
        reserved = self.rule.fee_in_liquidation == "reserved"
        return self.closing_fee(self.entry_value, -1 if reserved else self.sigma)

    def _reserved_fee(self) -> Fraction:
        """The closing fee inside the wallet, which no loss may use up."""
        if self.rule.fee_in_liquidation == "reserved" and self._has_fee():
            return self.fee_in_wallet()
        return Fraction(0)

    def frozen_fees(self) -> Fraction:
        """The fees that the liquidation price leaves room for and that do not depend on it."""
        if self.rule.fee_in_liquidation == "at_bankruptcy":
            rate = Fraction(self.position.fee_rate)
            return rate * max(Fraction(0), self.bankruptcy_value())
        return self._reserved_fee()

    def is_frozen(self) -> bool:
        """Whether maintenance does not move with the price."""
        return self.rule.maintenance_basis in ("entry", "session_average")

    def frozen(self) -> Fraction:
        """A: the part of the requirement that does not move with the price."""
        stated = self.position.frozen_maintenance
        if stated is not None and self.rule.maintenance_basis == "entry":
            return Fraction(stated)
        return self.frozen_fees() + (self.maintenance() if self.is_frozen() else 0)

    def bankruptcy_value(self) -> Fraction:
        """N of M + sigma (N - V) = f N, a reserved fee taken off M."""
        rate = Fraction(self.position.fee_rate) if self.rule.fee_in_bankruptcy else Fraction(0)
        money = self.money() if rate else self.money() - self._reserved_fee()
        return (self.entry_value - self.sigma * money) / (1 - self.sigma * rate)

    def solve(self, money: Fraction) -> Fraction:
        """Return N of the liquidation equation; not above 0 if there is none."""
        money -= self.frozen()
        if not self.has_moving_tiers():
            return self._root(money, self.terms_at(self.entry_value))
        if isinstance(self.schedule, PowerLaw):
            return self._bisect(money)
        return self._search(money)

    def has_moving_tiers(self) -> bool:
        """Whether the terms are those of the value that is looked for."""
        moves = moves_with_notional(self.schedule, self.rule)
        return moves and self.rule.tier_price == "liquidation" and not self.is_frozen()

    def terms_at(self, value: Fraction) -> Terms:
        """The terms of the liquidation equation at a value."""
        if self.is_frozen():
            return Terms(Fraction(0), Fraction(0))
        if self.rule.tier_price == "mark" and moves_with_notional(self.schedule, self.rule):
            return self.terms(self.mark_value)
        return self.terms(self.entry_value if self.rule.tier_price == "entry" else value)

    def _root(self, money: Fraction, terms: Terms) -> Fraction:
        rate = terms.m + self.phi
        if rate >= 1:
            raise ValueError(f"maintenance and fee rate {float(rate)} must be below 1")
        change = self.entry_value - self.sigma * (money + terms.d)
        return change / (1 - self.sigma * rate)

    def _search(self, money: Fraction) -> Fraction:
        """Go from tier to tier in the losing direction: the first that holds its own root.

        Where the requirement is continuous that is the only one, and the search begins at its end;
        where it jumps it begins at the mark, and the root may be the floor that was stepped over.
        """
        assert isinstance(self.schedule, TierSchedule)
        tiers = tier_terms(self.schedule, self.rule)
        begin: Fraction | None = None
        if not is_continuous(self.schedule, self.rule):
            begin = self.mark_value if self.has_mark() else self.entry_value
        if self.sigma > 0:
            top = len(tiers) - 1 if begin is None else tier_index(tiers, begin)
            above = begin
            for floor, terms in reversed(tiers[: top + 1]):
                root = self._root(money, terms)
                if root > floor or floor == 0:
                    return root if above is None else min(root, above)
                above = floor
        bottom = 0 if begin is None else tier_index(tiers, begin)
        below = begin
        for index in range(bottom, len(tiers)):
            root = self._root(money, tiers[index][1])
            if index + 1 == len(tiers) or root <= tiers[index + 1][0]:
                return root if below is None else max(root, below)
            below = tiers[index + 1][0]
        raise AssertionError("the last tier has no ceiling")

    def _bisect(self, money: Fraction) -> Fraction:
        """Return the first N, going from the mark in the losing direction, by halving.

        To 2^-120 of where it began, on the side where the position can be liquidated.
        """
        value, sigma, phi = self.entry_value, self.sigma, self.phi

        def gap(notional: Fraction) -> Fraction:
            rate = self.terms(notional).m + phi
            return money + sigma * (notional - value) - rate * notional

        safe = self.mark_value if self.has_mark() else self.entry_value
        if gap(safe) <= 0:
            return safe
        lost = Fraction(0)
        if sigma > 0:
            if money - value > 0:
                return Fraction(0)
        else:
            # Equity is at most money + value - N, and no requirement is below 0.
            lost = money + value
        for _ in range(_HALVINGS):
            middle = Fraction(to_decimal((safe + lost) / 2, ROUND_DOWN, 40))
            safe, lost = (middle, lost) if gap(middle) > 0 else (safe, middle)
        return lost

    def printed(self, notional: Fraction, rounding: Rounding, extra_ticks: int) -> Decimal | None:
        """Return the price of a value N, rounded as the rule says; None or the end of all prices
        if N is not above 0."""
        is_long = self.position.quantity > 0
        if notional <= 0:
            if self.sigma > 0:
                return None
            return Decimal("Infinity") if is_long else Decimal(0)
        linear = self.rule.contract == "linear"
        price = notional / self.size if linear else self.size / notional
        tick = self.position.tick
        if tick is not None:
            unit = Fraction(tick)
            if self.position.value_step is not None:
                price = self._price_of_step(notional, Fraction(self.position.value_step))
            if rounding != "exact":
                price = _steps(price / unit, rounding, is_long=is_long) * unit
            price += extra_ticks * (unit if is_long else -unit)
        # A short's price that is rounded away is liquidated at every price.
        return max(Decimal(0), to_decimal(price, ROUND_CEILING if is_long else ROUND_FLOOR))

    def _price_of_step(self, notional: Fraction, step: Fraction) -> Fraction:
        """The price of the next whole value of one contract, against the account."""
        count = abs(Fraction(self.position.quantity))
        is_long = self.position.quantity > 0
        grows = self.rule.contract == "linear"
        steps = _steps(notional / count / step, "up" if is_long == grows else "down", is_long=True)
        value = steps * step
        multiplier = Fraction(self.position.multiplier)
        return value / multiplier if grows else multiplier / value


def _price_of_pair(legs: Sequence[_Question], money: Fraction) -> Decimal | None:
    """Return the price that the legs of one instrument share, rounded for the side of the pair.

    In u, the price of a linear contract and the inverse of an inverse one's, each leg's value is
    its size times u and equity less requirement is a line between the floors of the tiers.
    """
    first = legs[0]
    for leg in legs:
        if leg.rule.contract != first.rule.contract:
            raise ValueError(f"a pair of {first.rule.contract} and {leg.rule.contract} contracts")
        if isinstance(leg.schedule, PowerLaw):
            raise ValueError("the pair's schedule is a power law, whose values have no lines")
    money -= sum((leg.frozen() for leg in legs), Fraction(0))
    mark = next((leg for leg in legs if leg.has_mark()), None)
    begin = first.entry_value / first.size if mark is None else mark.mark_value / mark.size
    net = sum(leg.sigma * leg.size for leg in legs)
    ends = []
    if net >= 0:
        ends.append(_end_of_pair(legs, money, begin, falling=True))
    if net <= 0:
        ends.append(_end_of_pair(legs, money, begin, falling=False))
    found = [end for end in ends if end is not None]
    if not found:
        return None
    end = min(found, key=lambda u: abs(u - begin))
    quantity = sum((leg.position.quantity for leg in legs), Decimal(0))
    side = next((leg for leg in legs if leg.position.quantity * quantity > 0), first)
    return side.printed(end * side.size, side.rule.liquidation_rounding, side.rule.extra_ticks)


def _end_of_pair(
    legs: Sequence[_Question], money: Fraction, begin: Fraction, *, falling: bool
) -> Fraction | None:
    """Return the first u from `begin` at which equity is not above the requirement, or None."""
    floors = {Fraction(0)}
    for leg in legs:
        if leg.has_moving_tiers() and isinstance(leg.schedule, TierSchedule):
            floors |= {Fraction(tier.floor) / leg.size for tier in leg.schedule.tiers}
    if falling:
        edges: list[Fraction | None] = [*sorted((u for u in floors if u < begin), reverse=True)]
    else:
        edges = [*sorted(u for u in floors if u > begin), None]
    near = begin
    for far in edges:
        # The terms of the span: a floor itself is of the tier below.
        inside = near + 1 if far is None else max(near, far)
        gap, slope = money, Fraction(0)
        for leg in legs:
            terms = leg.terms_at(leg.size * inside)
            gap += terms.d - leg.sigma * leg.entry_value
            slope += leg.size * (leg.sigma - terms.m - leg.phi)
        if gap + slope * near <= 0:
            return near
        if far is None:
            return -gap / slope if slope < 0 else None
        if gap + slope * far <= 0:
            return -gap / slope
        near = far
    return None


def _sigma(position: Position, rule: Rule) -> int:
    side = 1 if position.quantity > 0 else -1
    return side if rule.contract == "linear" else -side


def _value(position: Position, price: Fraction, rule: Rule) -> Fraction:
    if price <= 0:
        raise ValueError(f"price {float(price)} must be above 0")
    count, multiplier = abs(Fraction(position.quantity)), Fraction(position.multiplier)
    one = multiplier * price if rule.contract == "linear" else multiplier / price
    if position.value_step is not None:
        step = Fraction(position.value_step)
        one = _steps(one / step, "nearest", is_long=True) * step
    return count * one


def _entry_value(position: Position, rule: Rule) -> Fraction:
    if position.entry_value is not None:
        return Fraction(position.entry_value)
    assert position.entry_price is not None
    return _value(position, Fraction(position.entry_price), rule)


def _steps(count: Fraction, rounding: Rounding, *, is_long: bool) -> int:
    """Return a number of steps as a whole one; figures that were doubles once may miss it."""
    whole = round(count)
    if abs(count - whole) <= abs(count) * _STEP_TOLERANCE:
        return whole
    if rounding == "nearest":
        return int((count + Fraction(1, 2)) // 1)
    up = {"up": True, "down": False, "against_account": is_long, "for_account": not is_long}
    return int(-(-count // 1)) if up[rounding] else int(count // 1)


def _price(name: str, value: Decimal) -> Fraction:
    if value <= 0:
        raise ValueError(f"{name} {value} must be above 0")
    return Fraction(value)
