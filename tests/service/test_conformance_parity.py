"""Golden vectors through the service: its figures are the library's, and those of the venues.

Rows that are a portfolio under a rule that a margin schedule can say go through SimulatePortfolio,
with the rule as a schedule of the request. The library answers the same question.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from riskd import margin
from riskd.conform.adapters_futures import (
    Question,
    liquidation_question,
    position_of,
    schedule_of,
)
from riskd.conform.inputs import NotCoveredError, spelled, with_position, without_units
from riskd.conform.venues import venue_of
from riskd.margin import Held, Position, Rule, TierSchedule
from riskd.v1 import instrument_service_pb2 as instruments_pb
from riskd.v1 import margin_service_pb2 as pb
from riskd.v1 import types_pb2
from tests.service.conftest import Clock, serving

if TYPE_CHECKING:
    from tests.service.conftest import Rig

OURS = Path(__file__).parents[1] / "vectors"
BESIDE = Path(__file__).parents[3] / "shared" / "vectors"

# Coin positions are small, and their requirements round to minor units.
SCALES = {"MONEY": 8, "COIN": 12}
PPB = Decimal(10**9)
# Money is rounded to minor units on its way in: 1e-8 of a wallet of 10.
SLACK = Decimal("5e-9")
LIQUIDATION_MODELS = (
    "isolated_liquidation_linear",
    "isolated_liquidation_inverse",
    "cross_liquidation",
    "cross_liquidation_inverse",
)


# Instruments of a name keep their steps, so each has one of its own.
_numbers = itertools.count(1)


def new_name() -> str:
    return f"ROW-{next(_numbers)}"


class NotSayableError(Exception):
    """A schedule and a position of the service do not have what the row asks for."""


def rows(*names: str) -> list[Any]:
    """Return the rows of our own vectors, and of those beside the repository if they are there."""
    found: dict[str, Any] = {}
    for folder in (BESIDE, OURS):
        for name in names:
            path = folder / f"{name}.jsonl"
            if path.exists():
                lines = path.read_text(encoding="utf-8").splitlines()
                found |= {row["id"]: row for row in map(json.loads, filter(None, lines))}
    return list(found.values())


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One service for all rows: each has instruments of its own."""
    with serving(Clock()) as found:
        for symbol, scale in SCALES.items():
            found.instruments.CreateAsset(
                instruments_pb.CreateAssetRequest(symbol=symbol, scale=scale)
            )
        yield found


@dataclass(frozen=True)
class Leg:
    """A position, and how the service is told of it."""

    position: Position
    schedule: TierSchedule
    rule: Rule
    name: str

    @property
    def is_inverse(self) -> bool:
        return self.rule.contract == "inverse"

    @property
    def asset(self) -> str:
        return "COIN" if self.is_inverse else "MONEY"

    @property
    def minor(self) -> Decimal:
        return Decimal(1).scaleb(-SCALES[self.asset])

    def money(self, number: Decimal) -> str:
        return text(number.quantize(self.minor, ROUND_HALF_EVEN))

    @property
    def fee_rate(self) -> Decimal:
        """What the liquidation price leaves room for, of the value at that price."""
        match self.rule.fee_in_liquidation:
            case "none" | "reserved":
                return Decimal(0)
            case "at_liquidation":
                return self.position.fee_rate
            case other:
                raise NotSayableError(f"fee_in_liquidation {other}")

    def mark(self) -> Decimal:
        price = self.position.mark_price or self.position.entry_price
        if price is None:
            raise NotSayableError("no price")
        return price

    def wallet(self) -> Decimal:
        """Return the money behind the position without its profit."""
        position = self.position
        money = position.wallet
        if money is None:
            value = margin.value_of(replace(position, mark_price=None), self.entry(), self.rule)
            return value / (position.leverage or 1)
        match self.rule.wallet:
            case "margin":
                return money
            case "margin_and_profit" | "equity":
                profit = position.unrealised_profit
                if profit is None:
                    profit = margin.profit_of(position, self.rule)
                return money - profit
            case other:
                raise NotSayableError(f"wallet {other}")

    def entry(self) -> Decimal:
        if self.position.entry_price is None:
            raise NotSayableError("no entry price")
        return self.position.entry_price

    def entry_value(self) -> Decimal:
        stated = self.position.entry_value
        return stated or margin.value_of(self.position, self.entry(), self.rule)

    def lot(self) -> Decimal:
        """Return the largest power of ten, up to 1, of which the quantity is a multiple."""
        exponent = self.position.quantity.normalize().as_tuple().exponent
        assert isinstance(exponent, int)
        return Decimal(1).scaleb(min(exponent, 0))

    def steps(self) -> tuple[Decimal, Decimal]:
        """Return the tick, and a mark unit so fine that rounding to it says nothing."""
        if self.is_inverse:
            unit = Decimal(1).scaleb(self.mark().adjusted() - 10)
            return unit.scaleb(9), unit
        unit = Decimal(1).scaleb(self.mark().adjusted() - 12)
        multiplier = self.position.multiplier.normalize().as_tuple().exponent
        assert isinstance(multiplier, int)
        return max(unit, self.minor.scaleb(-multiplier) / self.lot()), unit

    def instrument(self) -> instruments_pb.Instrument:
        tick, unit = self.steps()
        kind = "INVERSE" if self.is_inverse else "LINEAR"
        return instruments_pb.Instrument(
            symbol=self.name,
            kind=instruments_pb.InstrumentKind.Value(f"INSTRUMENT_KIND_{kind}_PERPETUAL"),
            settlement_asset=self.asset,
            margin_schedule=self.name,
            tick_size=text(tick),
            lot_size=text(self.lot()),
            mark_units_per_tick=int(tick / unit),
            multiplier=text(self.position.multiplier),
        )

    def margin_schedule(self, max_leverage: Decimal = Decimal(1)) -> instruments_pb.MarginSchedule:
        """Return the rule's part of a liquidation as a schedule: its initial rates play no role."""
        rule = self.rule
        if (rule.tier_key, rule.tier_mode) == ("quantity", "marginal"):
            raise NotSayableError("marginal tiers by quantity")
        if rule.maintenance_basis == "session_average":
            raise NotSayableError("maintenance by the session's average")
        is_entry = rule.maintenance_basis == "entry"
        if rule.fee_in_liquidation == "reserved" and not is_entry:
            raise NotSayableError("a reserved fee beside maintenance at the mark")
        is_by_lots = rule.tier_key == "quantity" and len(self.schedule.tiers) > 1
        family = "TIERED"
        if is_by_lots:
            family = "TIERED_QUANTITY"
        elif rule.tier_mode == "whole" and len(self.schedule.tiers) > 1:
            family = "TIERED_WHOLE"
        initial = "1" if max_leverage == 1 else "0"
        return instruments_pb.MarginSchedule(
            name=self.name,
            settlement_asset=self.asset,
            tiers=[
                instruments_pb.MarginTier(
                    floor_notional="" if is_by_lots else text(floor),
                    floor_lots=int(floor / self.lot()) if is_by_lots else 0,
                    initial_rate=initial,
                    maintenance_rate=text(rate),
                    max_leverage=text(max_leverage),
                )
                for floor, rate in self.tiers(family)
            ],
            liquidation_fee_rate=text(self.fee_rate),
            family=instruments_pb.MarginFamily.Value(f"MARGIN_FAMILY_{family}"),
            maintenance_basis=(
                instruments_pb.MAINTENANCE_BASIS_ENTRY
                if is_entry
                else instruments_pb.MAINTENANCE_BASIS_MARK
            ),
        )

    def tiers(self, family: str) -> list[tuple[Decimal, Decimal]]:
        """Return floor and maintenance rate of each."""
        tiers = self.schedule.tiers
        if any(tier.maintenance_rate <= 0 for tier in tiers):
            raise NotSayableError("a maintenance rate of 0")
        deduction = tiers[0].deduction or Decimal(0)
        if len(tiers) == 1 and deduction:
            # The tier that is left out below: half the rate, up to where the deduction comes from.
            low = (tiers[0].maintenance_rate / 2).quantize(1 / PPB)
            floor = deduction / (tiers[0].maintenance_rate - low)
            if deduction < 0 or floor != floor.quantize(self.minor):
                raise NotSayableError(f"no tier below gives the deduction {deduction}")
            return [(Decimal(0), low), (floor, tiers[0].maintenance_rate)]
        if family == "TIERED" and deduction == 0:
            computed = margin.deductions(replace(self.schedule, tiers=without_deductions(tiers)))
            stated = [tier.deduction for tier in tiers]
            if None not in stated and stated != list(computed):
                raise NotSayableError("deductions that are not continuous")
        return [(tier.floor, tier.maintenance_rate) for tier in tiers]


def without_deductions(tiers: tuple[margin.Tier, ...]) -> tuple[margin.Tier, ...]:
    return tuple(replace(tier, deduction=None) for tier in tiers)


def text(number: Decimal) -> str:
    return f"{number:f}"


def ask(
    rig: Rig, legs: list[Leg], mode: types_pb2.MarginMode.ValueType, leverage: Decimal | None = None
) -> pb.PositionMargin:
    """Return what the service says of the first leg."""
    for leg in legs:
        # The schedule that the instrument has is another: that of the request must count.
        tier = instruments_pb.MarginTier(initial_rate="1", maintenance_rate="0.9", max_leverage="1")
        rig.instruments.UpsertMarginSchedule(
            instruments_pb.UpsertMarginScheduleRequest(
                schedule=instruments_pb.MarginSchedule(
                    name=leg.name, settlement_asset=leg.asset, tiers=[tier]
                )
            )
        )
    ids = [
        rig.instruments.UpsertInstrument(
            instruments_pb.UpsertInstrumentRequest(instrument=leg.instrument())
        ).instrument.instrument_id
        for leg in legs
    ]
    first = legs[0]
    is_isolated = mode == types_pb2.MARGIN_MODE_ISOLATED
    reply = rig.margins.SimulatePortfolio(
        pb.SimulatePortfolioRequest(
            settlement_asset=first.asset,
            margin_mode=mode,
            schedules=[leg.margin_schedule(leverage or Decimal(1)) for leg in legs],
            balances=[
                pb.SimulatedBalance(
                    asset=first.asset, amount="0" if is_isolated else first.money(first.wallet())
                )
            ],
            positions=[
                pb.SimulatedPosition(
                    instrument_id=instrument_id,
                    quantity=text(leg.position.quantity),
                    entry_value=leg.money(leg.entry_value()),
                    isolated_wallet=leg.money(leg.wallet()) if is_isolated else "",
                    leverage="" if leverage is None else text(leverage),
                )
                for instrument_id, leg in zip(ids, legs, strict=True)
            ],
            marks=[
                pb.SimulatedMark(
                    instrument_id=instrument_id,
                    mark_price=text(leg.mark().quantize(leg.steps()[1])),
                )
                for instrument_id, leg in zip(ids, legs, strict=True)
            ],
        )
    )
    return reply.positions[0]


def legs_of(asked: Question) -> list[Leg]:
    """Return the position of a question and those beside it in the pool."""
    held = (Held(asked.position, asked.schedule, asked.rule), *asked.others)
    legs = []
    for each in held:
        if not isinstance(each.schedule, TierSchedule):
            raise NotSayableError("a schedule without tiers")
        stated = (each.position.frozen_maintenance, each.position.value_step)
        if stated != (None, None) or each.same_instrument:
            raise NotSayableError("figures as a venue printed them, or a hedged pair")
        leg = Leg(each.position, each.schedule, each.rule, new_name())
        # Whatever cannot be said is found before anything is asked.
        leg.margin_schedule()
        leg.wallet()
        legs.append(leg)
    return legs


def is_near(got: Decimal, wanted: Decimal, slack: Decimal) -> bool:
    with localcontext(prec=60):
        return abs(got - wanted) <= slack


ASKED = rows("liquidation")
# A fee at the bankruptcy price, a venue whose prices are of orders with a flip, margin with the fee
# in it, figures as a venue printed them, a hedged pair.
NOT_SAYABLE = {
    "bybit-inverse-cross-8000",
    "orderly-iso-liq-1",
    "orderly-iso-liq-2",
    "kucoin-report-eth-20211204",
    "kucoin-report-xbt-20250115",
    "bitmex-report-xbt-20180827",
    "bitmex-report-xbt-20190720",
    "binance-faq-hedge-pair",
    "bybit-uta-inverse-iso-long",
}


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in ASKED
        if row["model"] in LIQUIDATION_MODELS and "liquidation_price" in row["expected"]
    ],
    ids=lambda row: row["id"],
)
def test_a_liquidation_price_is_the_librarys_and_the_venues(rig: Rig, row: Any) -> None:
    legs: list[Leg] = []
    why = ""
    try:
        asked = liquidation_question(row["model"], row["inputs"], venue_of(row["venue"]))
        legs = legs_of(asked)
    except (NotCoveredError, NotSayableError) as error:
        why = str(error)
    assert (row["id"] in NOT_SAYABLE) == bool(why), why
    if why:
        pytest.skip(f"not a portfolio of the service: {why}")
    is_cross = row["model"].startswith("cross")
    mode = types_pb2.MARGIN_MODE_CROSS if is_cross else types_pb2.MARGIN_MODE_ISOLATED
    answer = ask(rig, legs, mode)
    exact_rule = replace(asked.rule, liquidation_rounding="exact", extra_ticks=0)
    exact = margin.liquidation_price_of(asked.position, asked.schedule, exact_rule, asked.others)
    assert exact is not None
    assert exact > 0
    assert answer.liquidation_status == types_pb2.LIQUIDATION_STATUS_AT_PRICE
    price = Decimal(answer.liquidation_price)
    assert is_near(price, exact, exact * SLACK)
    expected = Decimal(str(row["expected"]["liquidation_price"]))
    tolerance = Decimal(str(row["tolerance"]["value"]))
    if row["tolerance"]["kind"] == "rel":
        tolerance *= expected
    if asked.rule.liquidation_rounding != "exact" and asked.position.tick is not None:
        tolerance += asked.position.tick * (1 + asked.rule.extra_ticks)
    assert is_near(price, expected, max(tolerance, exact * SLACK))


def requirement(row: Any) -> tuple[Position, TierSchedule, Rule]:
    """Return what the library is asked about the requirements of a row."""
    inputs = without_units(with_position(spelled(row["inputs"])))
    contract: Any = "inverse" if row["model"].endswith("inverse") else "linear"
    rule = venue_of(row["venue"]).rule(contract, "isolated")
    assert rule is not None
    if "rate" in inputs:
        rate = Decimal(str(inputs["rate"])) / Decimal(str(inputs.get("leverage", 1)))
        schedule = TierSchedule((margin.Tier.of(0, rate, initial_rate=rate),))
        return replace(position_of(inputs), leverage=None), schedule, rule
    value = inputs.get("notional_at_mark") or inputs.get("notional")
    if value is not None:
        one = position_of(inputs, entry_price=Decimal(str(value)), entry_value=None)
        position = replace(one, mark_value=None, mark_price=Decimal(str(value)))
    else:
        position = position_of(inputs)
    return position, schedule_of(inputs, venue_of(row["venue"]), rate_needed=False), rule


# Rows that state a portfolio: others are tables and look-ups without one, or have fees in a margin.
REQUIREMENTS = {
    "binance-live-margin-1": ("maintenance_margin", "initial_margin"),
    "bybit-uta-inverse-iso-im": ("initial_margin_btc",),
    "kucoin-help-mm-2025": ("maintenance_margin",),
    "freqtrade-tier-ADA-500": ("maintenance_margin",),
}


@pytest.mark.parametrize(
    "row",
    [row for row in rows("margin") if row["id"] in REQUIREMENTS],
    ids=lambda row: row["id"],
)
def test_requirements_are_the_librarys_and_the_venues(rig: Rig, row: Any) -> None:
    position, schedule, rule = requirement(row)
    if all(tier.maintenance_rate == 0 for tier in schedule.tiers):
        # A row of initial margin alone: any rate does.
        schedule = TierSchedule.flat(Decimal("0.001"))
    plain = replace(
        rule,
        wallet="margin",
        fee_in_liquidation="none",
        liquidation_rounding="exact",
        extra_ticks=0,
    )
    leg = Leg(replace(position, wallet=Decimal(10**5)), schedule, plain, new_name())
    leverage = position.leverage or Decimal(1)
    answer = ask(rig, [leg], types_pb2.MARGIN_MODE_ISOLATED, leverage)
    wanted = margin.requirement_of(position, schedule, plain)
    for name in REQUIREMENTS[row["id"]]:
        field = name.removesuffix("_btc")
        got = Decimal(getattr(answer, field))
        library = wanted.initial if field == "initial_margin" else wanted.maintenance
        assert is_near(got, library, leg.minor)
        tolerance = Decimal(str(row["tolerance"]["value"]))
        expected = Decimal(str(row["expected"][name]))
        if row["tolerance"]["kind"] == "rel":
            tolerance *= expected
        assert is_near(got, expected, max(tolerance, leg.minor))


@pytest.mark.parametrize(
    "row",
    [row for row in rows("margin") if row["model"] == "maintenance_tier_table"],
    ids=lambda row: row["id"],
)
def test_each_tier_of_a_venues_table_asks_for_what_its_deduction_says(rig: Rig, row: Any) -> None:
    inputs = without_units(with_position(spelled(row["inputs"])))
    schedule = schedule_of(inputs, venue_of(row["venue"]))
    cum = [Decimal(str(each)) for each in row["expected"]["cum"]]
    ceilings = [*(tier.floor for tier in schedule.tiers[1:]), schedule.tiers[-1].floor * 2 or 1000]
    for tier, ceiling, deduction in zip(schedule.tiers, ceilings, cum, strict=True):
        # A position whose value at the mark is the ceiling of its tier.
        position = Position.of(quantity=1, entry_price=ceiling, wallet=0, leverage=1)
        leg = Leg(position, schedule, Rule(), new_name())
        answer = ask(rig, [leg], types_pb2.MARGIN_MODE_ISOLATED)
        wanted = Decimal(ceiling) * tier.maintenance_rate - deduction
        tolerance = Decimal(str(row["tolerance"]["value"]))
        assert is_near(Decimal(answer.maintenance_margin), wanted, tolerance + leg.minor)


# Short options that a rule of the service can say, with what of it the row means: quantity,
# underlying, mark, rates and which figures it prints.
OPTIONS: dict[str, dict[str, Any]] = {
    "deribit-live-option-1": {
        "mark": "mark_coin_full_precision",
        "expected": {
            "initial_margin_coin": "initial_margin",
            "maintenance_margin_coin": "maintenance_margin",
        },
    },
    "bitcom-short-put-eth": {
        "expected": {
            "position_initial_margin": "initial_margin",
            "position_maintenance_margin": "maintenance_margin",
        },
    },
    "fincyclopedia-short-call": {
        "rates": ("0.2", "0.1", "0.1"),
        "expected": {"required": "initial_margin"},
    },
    "tastyworks-short-call": {
        "rates": ("0.2", "0.1", "0.1"),
        "expected": {"required": "initial_margin"},
    },
}


@pytest.mark.parametrize(
    "row",
    [row for row in rows("options_margin") if row["id"] in OPTIONS],
    ids=lambda row: row["id"],
)
def test_a_short_option_requires_what_the_venue_prints(rig: Rig, row: Any) -> None:
    inputs, told = row["inputs"], OPTIONS[row["id"]]
    is_coin = row["venue"] == "Deribit"
    asset = "COIN" if is_coin else "MONEY"
    rates = told.get("rates") or tuple(str(inputs[name]) for name in ("a", "b", "c"))
    underlying_price = Decimal(str(inputs.get("underlying") or inputs["index"]))
    mark = Decimal(str(inputs[told["mark"]] if "mark" in told else premium_of(inputs)))
    name, rule_name = new_name(), new_name()
    rig.instruments.UpsertOptionRule(
        instruments_pb.UpsertOptionRuleRequest(
            rule=instruments_pb.OptionRule(
                name=rule_name,
                settlement_asset=asset,
                initial_rate=rates[0],
                initial_rate_min=rates[1],
                maintenance_rate=rates[2],
                put_maintenance_on_mark=True,
            )
        )
    )
    rig.instruments.UpsertMarginSchedule(
        instruments_pb.UpsertMarginScheduleRequest(
            schedule=instruments_pb.MarginSchedule(
                name=name,
                settlement_asset="MONEY",
                tiers=[
                    instruments_pb.MarginTier(
                        initial_rate="1", maintenance_rate="0.9", max_leverage="1"
                    )
                ],
            )
        )
    )
    underlying = rig.instruments.UpsertInstrument(
        instruments_pb.UpsertInstrumentRequest(
            instrument=instruments_pb.Instrument(
                symbol=name,
                kind=instruments_pb.INSTRUMENT_KIND_LINEAR_PERPETUAL,
                settlement_asset="MONEY",
                margin_schedule=name,
                tick_size="0.1",
                lot_size="1",
                mark_units_per_tick=1,
            )
        )
    ).instrument
    option = rig.instruments.UpsertInstrument(
        instruments_pb.UpsertInstrumentRequest(
            instrument=instruments_pb.Instrument(
                symbol=new_name(),
                kind=instruments_pb.InstrumentKind.Value(
                    f"INSTRUMENT_KIND_{'INVERSE' if is_coin else 'LINEAR'}_OPTION"
                ),
                settlement_asset=asset,
                tick_size="0.000000001" if is_coin else "0.1",
                lot_size="1",
                mark_units_per_tick=1,
                multiplier=str(inputs.get("multiplier", 1)),
                expiry_time_ns=2**62,
                strike=str(inputs["strike"]),
                option_type=instruments_pb.OptionType.Value(
                    f"OPTION_TYPE_{inputs['option_type'].upper()}"
                ),
                underlying_instrument_id=underlying.instrument_id,
                option_rule=rule_name,
            )
        )
    ).instrument
    quantity = Decimal(str(inputs.get("qty") or inputs.get("contracts") or 1))
    reply = rig.margins.SimulatePortfolio(
        pb.SimulatePortfolioRequest(
            settlement_asset=asset,
            positions=[
                pb.SimulatedPosition(
                    instrument_id=option.instrument_id, quantity=text(-quantity), entry_value="1"
                )
            ],
            marks=[
                pb.SimulatedMark(instrument_id=option.instrument_id, mark_price=text(mark)),
                pb.SimulatedMark(
                    instrument_id=underlying.instrument_id, mark_price=text(underlying_price)
                ),
            ],
        )
    )
    for key, field in told["expected"].items():
        expected = Decimal(str(row["expected"][key]))
        tolerance = Decimal(str(row["tolerance"]["value"]))
        assert is_near(Decimal(getattr(reply.positions[0], field)), expected, tolerance)


def premium_of(inputs: Any) -> Any:
    return inputs["mark"] if "mark" in inputs else inputs["premium"]
