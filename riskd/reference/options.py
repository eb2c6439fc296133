"""Margin of short options (docs/instruments.md, "Short options")."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from riskd.core.rows import InstrumentRow, ScheduleRow
from riskd.reference.margin import SideSums, lot_money, tick_size, tick_value
from riskd.reference.numbers import BILLION, ceil, ceil_div
from riskd.reference.state import INVERSE_OPTION

CALL: Final = 1
PUTS_ON_MARK: Final = 1
"""put_maintenance: of puts, the larger of the rates of the reference and of the own mark."""
ALL_ON_MARK: Final = 2
"""Of calls too."""


@dataclass(frozen=True, slots=True)
class ShortMargin:
    """What one short lot requires, in minor units, exact."""

    initial: Fraction
    maintenance: Fraction
    opening: Fraction
    """What a sell holds for a lot that it opens."""

    def initial_of(self, lots: int) -> int:
        return ceil(self.initial * lots)

    def opening_of(self, lots: int) -> int:
        return ceil(self.opening * lots)

    def maintenance_of(self, lots: int) -> int:
        return ceil(self.maintenance * lots)


def short_margin(
    option: InstrumentRow, rule: ScheduleRow, scale: int, underlying_mark: int, mark: int
) -> ShortMargin:
    """Return what one short lot requires. Marks are in mark units, each of its instrument's own."""
    (rates,) = rule.tiers
    a, c = Fraction(rates.initial_rate_ppb, BILLION), Fraction(rates.maintenance_rate_ppb, BILLION)
    b = Fraction(rule.parameter_a, BILLION)
    out_of_the_money = option.strike_units - underlying_mark
    if option.option_type != CALL:
        out_of_the_money = -out_of_the_money
    out_of_the_money = max(0, out_of_the_money)
    is_put = option.option_type != CALL
    is_on_mark = rule.parameter_b == ALL_ON_MARK or (is_put and rule.parameter_b == PUTS_ON_MARK)
    put_factor = Fraction(rule.parameter_d if is_put else 0, BILLION)
    least = Fraction(rule.parameter_e, BILLION)
    unit_value = tick_value(option, scale) / option.mark_units_per_tick
    if option.kind == INVERSE_OPTION:
        one_coin = lot_money(option, scale)
        mark_in_coin = mark * tick_size(option) / option.mark_units_per_tick
        by_underlying = max(a - Fraction(out_of_the_money, underlying_mark), b) * one_coin
        kept = max(c, c * mark_in_coin) if is_on_mark else c
        maintenance = kept * one_coin + mark * unit_value
        least *= one_coin
    else:
        by_underlying = max(a * underlying_mark - out_of_the_money, b * underlying_mark)
        by_underlying *= unit_value
        kept = max(c * underlying_mark, c * mark) if is_on_mark else c * underlying_mark
        maintenance = (kept + mark) * unit_value
        least *= underlying_mark * unit_value
    initial = max(by_underlying + mark * unit_value, maintenance, put_factor * maintenance)
    return ShortMargin(initial, maintenance, max(initial, least))


def option_requirement(
    option: InstrumentRow,
    lots: int,
    buys: SideSums,
    sells: SideSums,
    short: ShortMargin | None,
) -> int:
    """Return what a position of an option with a rule requires with its orders.

    short may be None where nothing is short and no sell opens.
    """
    fees = sum(ceil_div(each.value * option.taker_fee_ppb, BILLION) for each in (buys, sells))
    bought = buys.open_value(max(0, buys.lots - max(0, -lots)))
    opened = max(0, sells.lots - max(0, lots))
    if opened == 0 and lots >= 0:
        return bought + fees
    assert short is not None
    # What a sell brings counts when it is there: at a price that nobody pays it would carry others.
    return short.initial_of(max(0, -lots)) + short.opening_of(opened) + bought + fees
