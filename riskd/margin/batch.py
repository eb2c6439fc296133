"""Margin of arrays of positions, in double precision, in one compiled pass.

`positions` is a structured array, or a mapping of names to numbers and arrays, with these fields;
fields broadcast against each other by NumPy's rules, and a column of floats is read where it lies.

    quantity        contracts, above 0 long, below 0 short, 0: no position
    entry_price     above 0
    mark_price      above 0
    wallet          what the venue calls the position's margin: Rule.wallet says what is in it;
                    without it, the value at entry over the leverage
    leverage        at least 1; without it, requirements are those of the schedule alone
    fee_rate        of closing, a fraction of the value, 0 to below 1; without it 0
    session_price   average price of the session, above 0
    multiplier      of one contract, above 0; without it 1
    open_loss       loss that initial margin also covers, not below 0; without it 0
    open_interest   notional of the market's open interest, not below 0
    tick            price step; 0, or without it: prices are not rounded to one
    schedule        which of several schedules a position has, from 0

Prices are quote currency, money is settlement currency: quote currency for linear contracts, coin
for inverse ones. The equations are those of riskd.margin.positions, which is exact; the compiled
core says with which error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskd.core.position_margin import BOUNDS, FIELDS, Family
from riskd.margin.arrays import refuse_masked
from riskd.margin.exact import Tier, TierSchedule
from riskd.margin.rule import Rule
from riskd.margin.schedules import (
    OpenInterestScaled,
    PerContract,
    PowerLaw,
    Schedule,
    SizeLinear,
    is_continuous,
    tier_terms,
)

Floats = NDArray[np.float64]
Positions = Mapping[str, ArrayLike] | NDArray[np.void]

_ROUNDINGS = ("exact", "up", "down", "nearest", "against_account", "for_account")
_BASES = {"mark": 0, "liquidation": 0, "entry": 1, "session_average": 2}
_WALLETS = {"margin": 0, "margin_and_profit": 1, "equity": 1, "margin_and_fee": 2}
_LIQUIDATION_FEES = ("none", "at_liquidation", "at_bankruptcy", "reserved")
_MARGIN_FEES = ("none", "taker", "taker_in_maintenance", "close_at_bankruptcy")
_TIER_PRICES = ("liquidation", "entry", "mark")

# What stands for a figure that was not given: it is within bounds and changes nothing.
_ABSENT = {
    "quantity": 0.0,
    "entry_price": 1.0,
    "mark_price": 1.0,
    "wallet": 0.0,
    "leverage": np.inf,
    "fee_rate": 0.0,
    "session_price": 1.0,
    "multiplier": 1.0,
    "open_loss": 0.0,
    "open_interest": 0.0,
    "tick": 0.0,
}


class LiquidationStatus(IntEnum):
    """Why there is a price, or none; the numbers of the service's enum."""

    AT_PRICE = 1
    CANNOT_BE_LIQUIDATED = 2
    NO_POSITION = 3


class Requirements(NamedTuple):
    """Initial and maintenance margin, settlement currency."""

    initial: Any
    maintenance: Any


class Prices(NamedTuple):
    """Prices, nan where the status is not AT_PRICE; and the statuses.

    A linear short that is past it at every price has 0, an inverse long infinity.
    """

    price: Any
    status: Any


class Margin(Protocol):
    """A call for one position."""

    def __call__(
        self, quantity: float, mark_price: float, leverage: float = ...
    ) -> tuple[float, float]: ...


class LiquidationPrice(Protocol):
    """A call for one position."""

    def __call__(
        self, quantity: float, entry_price: float, wallet: float, fee_rate: float = ...
    ) -> float: ...


class Calculator:
    """A rule with one schedule or several, compiled: for many calls with the same of both.

    Raises ValueError if a rate is 1 or more, which no position could be closed with.
    """

    def __init__(self, schedule: Schedule | Sequence[Schedule], rule: Rule | None = None) -> None:
        self.rule = Rule() if rule is None else rule
        several = not isinstance(schedule, Schedule)
        schedules = list(schedule) if isinstance(schedule, Sequence) else [schedule]
        self._schedules = schedules
        self._several = several
        self._family = Family(
            _switches(self.rule), [_figures(each, self.rule) for each in schedules]
        )
        self.margin: Margin = self._family.margin
        """Both margins of one position at its mark, of the first schedule: for single calls.

        quantity, mark_price, leverage (none: those of the schedule alone)."""
        self.liquidation_price: LiquidationPrice = self._family.liquidation_price
        """The liquidation price of one position, nan if there is none: for single calls.

        quantity, entry_price, wallet, fee_rate (0)."""

    def requirements(self, positions: Positions) -> Requirements:
        """Return initial and maintenance margin of each position.

        Shapes broadcast; if all fields are single numbers, so are the results.
        Raises ValueError, naming field, index, value and bound; nothing is returned then.
        """
        needed = {"quantity"}
        if self.rule.initial_basis == "mark" or _BASES[self.rule.maintenance_basis] == 0:
            needed.add("mark_price")
        if self.rule.initial_basis == "entry" or self.rule.maintenance_basis == "entry":
            needed.add("entry_price")
        if self.rule.maintenance_basis == "session_average":
            needed.add("session_price")
        if any(isinstance(each, OpenInterestScaled) and each.upper for each in self._schedules):
            needed.add("open_interest")
        columns = _Columns(positions, needed, self._several)
        if self.rule.fee_in_margin == "close_at_bankruptcy":
            columns.need_leverage_for_fee()
        initial, maintenance = columns.empty_pair()
        index, fault = self._family.requirements(
            columns.figures, columns.which, columns.flags, initial, maintenance
        )
        columns.refuse(index, fault, len(self._schedules))
        return Requirements(columns.shaped(initial), columns.shaped(maintenance))

    def liquidation_prices(self, positions: Positions) -> Prices:
        """Return the price at which each position's equity equals its requirement.

        Shapes broadcast; if all fields are single numbers, so are the results.
        Raises ValueError, naming field, index, value and bound; nothing is returned then.
        """
        needed = {"quantity", "entry_price"}
        if self.rule.maintenance_basis == "session_average":
            needed.add("session_price")
        if self.rule.tier_price == "mark" and _BASES[self.rule.maintenance_basis] == 0:
            needed.add("mark_price")
        return self._prices(self._family.liquidation_prices, positions, needed)

    def bankruptcy_prices(self, positions: Positions) -> Prices:
        """Return the price at which nothing is left of each position's money.

        Shapes and errors as for liquidation_prices.
        """
        return self._prices(self._family.bankruptcy_prices, positions, {"quantity", "entry_price"})

    def _prices(self, fill: Any, positions: Positions, needed: set[str]) -> Prices:
        columns = _Columns(positions, needed, self._several)
        if "wallet" not in columns.given:
            columns.need("leverage")
        elif _WALLETS[self.rule.wallet] == 1:
            columns.need("mark_price")
        if self.rule.wallet == "margin_and_fee":
            columns.need_leverage_for_fee()
        price, status = columns.empty(), np.empty(columns.count, np.uint8)
        index, fault = fill(columns.figures, columns.which, columns.flags, price, status)
        columns.refuse(index, fault, len(self._schedules))
        return Prices(columns.shaped(price), columns.shaped(status))


def requirements(
    positions: Positions, schedule: Schedule | Sequence[Schedule], rule: Rule | None = None
) -> Requirements:
    """Return initial and maintenance margin of each position: Calculator.requirements."""
    return _calculator(schedule, rule).requirements(positions)


def liquidation_prices(
    positions: Positions, schedule: Schedule | Sequence[Schedule], rule: Rule | None = None
) -> Prices:
    """Return the liquidation price of each position: Calculator.liquidation_prices."""
    return _calculator(schedule, rule).liquidation_prices(positions)


def bankruptcy_prices(positions: Positions, rule: Rule | None = None) -> Prices:
    """Return the bankruptcy price of each position: Calculator.bankruptcy_prices."""
    return _calculator(TierSchedule((Tier.of(0, 0),)), rule).bankruptcy_prices(positions)


def _calculator(schedule: Schedule | Sequence[Schedule], rule: Rule | None) -> Calculator:
    if isinstance(schedule, Schedule):
        return _compiled(schedule, rule)
    return Calculator(schedule, rule)


@lru_cache(maxsize=256)
def _compiled(schedule: Schedule, rule: Rule | None) -> Calculator:
    return Calculator(schedule, rule)


class _Columns:
    """The fields of positions as columns of one length."""

    def __init__(self, positions: Positions, needed: set[str], several: bool) -> None:
        fields = _fields(positions)
        unknown = [name for name in fields if name not in _ABSENT and name != "schedule"]
        if unknown:
            raise ValueError(f"positions.{unknown[0]} is not one of {', '.join(FIELDS)}, schedule")
        self.given = frozenset(fields)
        for name in FIELDS:
            if name in needed:
                self.need(name)
        arrays = {name: _column(name, value) for name, value in fields.items()}
        try:
            self.shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
        except ValueError:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise ValueError(f"positions: shapes do not broadcast: {shapes}") from None
        self.count = int(np.prod(self.shape, dtype=np.int64))
        self.figures = tuple(
            self._flat(arrays[name]) if name in arrays else self._constant(_ABSENT[name])
            for name in FIELDS
        )
        self.which: NDArray[np.int64] | None = None
        if several:
            self.need("schedule")
            self.which = _indices(fields["schedule"], self.shape)
        elif "schedule" in fields:
            raise ValueError("positions.schedule is given, but there is one schedule for all")
        self.flags = ("mark_price" in fields, "wallet" in fields)

    def need(self, name: str) -> None:
        if name not in self.given:
            raise ValueError(f"positions.{name} is missing")

    def need_leverage_for_fee(self) -> None:
        if "fee_rate" in self.given:
            self.need("leverage")

    def empty(self) -> Floats:
        return np.empty(self.count)

    def empty_pair(self) -> tuple[Floats, Floats]:
        """Return two columns of one allocation: the C library gives two large ones back to the
        kernel at each call, and then touching their pages anew takes longer than the margins."""
        pair = np.empty((2, self.count))
        return pair[0], pair[1]

    def shaped(self, values: NDArray[Any]) -> Any:
        """Return the values in the positions' shape; a single one as a number."""
        return values[0].item() if self.shape == () else values.reshape(self.shape)

    def refuse(self, index: int, fault: int, schedules: int) -> None:
        """Raise the error of a fault at a position; an index of -1 is none."""
        if index < 0:
            return
        place = ", ".join(str(i) for i in np.unravel_index(index, self.shape))
        at = f"[{place}]" if self.shape else ""
        if fault < len(FIELDS):
            value = self.figures[fault][index]
            raise ValueError(f"positions.{FIELDS[fault]}{at} {value} {BOUNDS[fault]}")
        if fault == len(FIELDS):
            raise ValueError(f"positions{at}: maintenance and fee rate must be below 1")
        if fault == len(FIELDS) + 1:
            raise ValueError(f"positions{at}: figures are beyond double precision")
        assert self.which is not None
        which = self.which[index]
        raise ValueError(f"positions.schedule{at} {which} is not within 0 to {schedules - 1}")

    def _constant(self, value: float) -> Floats:
        return np.broadcast_to(np.float64(value), (self.count,))

    def _flat(self, array: Floats) -> Floats:
        """Return one figure for each position: a view where one stride leads through them."""
        if array.size == 1:
            return np.broadcast_to(array.reshape(()), (self.count,))
        whole = np.broadcast_to(array, self.shape)
        return whole if whole.ndim == 1 else whole.reshape(-1)


def _fields(positions: Positions) -> Mapping[str, ArrayLike]:
    if isinstance(positions, np.ndarray | np.void):
        names = positions.dtype.names
        if names is None:
            raise ValueError(f"positions: an array of {positions.dtype} has no fields")
        return {name: positions[name] for name in names}
    if not isinstance(positions, Mapping):
        raise ValueError(f"positions must be a mapping or a structured array, got {positions!r}")
    return positions


def _column(name: str, value: ArrayLike) -> Floats:
    refuse_masked(f"positions.{name}", value)
    raw = np.asarray(value)
    # No elements have no kind; Decimals are objects to NumPy. Times, texts and truths are no sizes.
    if raw.size and raw.dtype.kind not in "iufO":
        raise ValueError(f"positions.{name} must be numbers, got {raw.dtype}")
    try:
        column = raw.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"positions.{name} must be numbers") from None
    return column if column.flags.aligned else column.copy()


def _indices(value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
    indices = np.asarray(value)
    if indices.dtype.kind not in "iu":
        raise ValueError(f"positions.schedule must be whole numbers, got {indices.dtype}")
    return np.ascontiguousarray(np.broadcast_to(indices, shape), np.int64).reshape(-1)


def _switches(rule: Rule) -> dict[str, int]:
    return {
        "inverse": int(rule.contract == "inverse"),
        "initial_entry": int(rule.initial_basis == "entry"),
        "basis": _BASES[rule.maintenance_basis],
        "wallet": _WALLETS[rule.wallet],
        "fee_in_liquidation": _LIQUIDATION_FEES.index(rule.fee_in_liquidation),
        "fee_in_margin": _MARGIN_FEES.index(rule.fee_in_margin),
        "fee_in_bankruptcy": int(rule.fee_in_bankruptcy),
        "tier_price": _TIER_PRICES.index(rule.tier_price),
        "liquidation_rounding": _ROUNDINGS.index(rule.liquidation_rounding),
        "bankruptcy_rounding": _ROUNDINGS.index(rule.bankruptcy_rounding),
        "extra_ticks": rule.extra_ticks,
    }


def _figures(schedule: Schedule, rule: Rule) -> dict[str, Any]:
    """Return a schedule as the compiled core takes it."""
    figures: dict[str, Any] = {
        "by_quantity": 0,
        "quantity_deduction": 0,
        "continuous": 0,
        "is_power": 0,
        "initial_slope": 0.0,
        "maintenance_slope": 0.0,
        "deduction_slope": 0.0,
        "initial_amount_slope": 0.0,
        "interest_lower": 0.0,
        "interest_upper": 0.0,
        "factor": 0.0,
        "power": 0.0,
    }
    if isinstance(schedule, TierSchedule):
        by_quantity = rule.tier_key == "quantity"
        figures["by_quantity"] = int(by_quantity)
        figures["quantity_deduction"] = int(by_quantity and rule.tier_mode == "marginal")
        figures["continuous"] = int(not by_quantity and is_continuous(schedule, rule))
        figures["tiers"] = [
            _tier(floor, terms.i, terms.m, terms.d) for floor, terms in tier_terms(schedule, rule)
        ]
        return figures
    if isinstance(schedule, PerContract):
        figures["deduction_slope"] = float(schedule.maintenance_per_contract)
        figures["initial_amount_slope"] = float(schedule.initial_per_contract)
        figures["tiers"] = [_tier(*(Fraction(0),) * 4)]
        return figures
    rates: tuple[Decimal, Decimal]
    if isinstance(schedule, SizeLinear):
        rates = schedule.initial_base, schedule.maintenance_base
        figures["initial_slope"] = float(schedule.initial_slope)
        figures["maintenance_slope"] = float(schedule.maintenance_slope)
    elif isinstance(schedule, OpenInterestScaled):
        rates = schedule.initial_rate, schedule.maintenance_rate
        figures["interest_lower"] = float(schedule.lower)
        figures["interest_upper"] = float(schedule.upper)
    else:
        if not isinstance(schedule, PowerLaw):
            raise TypeError(f"schedule must be one of riskd.margin.Schedule, got {schedule!r}")
        rates = schedule.initial_base, schedule.maintenance_base
        figures |= {"is_power": 1, "factor": float(schedule.factor), "power": float(schedule.power)}
    figures["tiers"] = [_tier(Fraction(0), Fraction(rates[0]), Fraction(rates[1]), Fraction(0))]
    return figures


def _tier(floor: Fraction, i: Fraction, m: Fraction, d: Fraction) -> tuple[float, ...]:
    """Return a tier's row of the compiled tables."""
    return tuple(float(figure) for figure in (floor, i, m, d, m * floor - d))
