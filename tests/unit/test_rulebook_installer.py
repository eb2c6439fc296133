"""A rulebook goes into an engine once, exactly, and without lifting halts."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from riskd.core.engine import Engine
from riskd.reference import ReferenceEngine
from riskd.rulebooks import ApplyError, apply, load, names, unsupported
from riskd.v1 import types_pb2

SCOPE_INSTRUMENT = 4


def new_engine(kind: str, **capacities: int) -> Any:
    if kind == "reference":
        return ReferenceEngine(**capacities)
    return Engine(**capacities)


@pytest.fixture(params=["reference", "core"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


TAKEN = [name for name in names() if not unsupported(load(name))]


@pytest.mark.parametrize("name", TAKEN)
def test_a_packaged_rulebook_is_taken_and_changes_nothing_the_second_time(
    kind: str, name: str
) -> None:
    engine = new_engine(kind)
    book = load(name)
    ids = apply(book, engine)
    assert list(ids) == [rule.symbol for rule in book.instruments]
    assert {row.symbol: row.instrument_id for row in engine.instruments()} == ids
    held = (engine.revision, engine.state_lines())
    assert apply(book, engine) == ids
    assert (engine.revision, engine.state_lines()) == held


def test_the_engine_computes_the_deductions_that_the_venue_printed(kind: str) -> None:
    engine = new_engine(kind)
    book = load("binance_usdm")
    apply(book, engine)
    for row in engine.schedules():
        printed = [tier.deduction for tier in book.schedule(row.name).tiers]
        assert [Decimal(tier.deduction) / 10**8 for tier in row.tiers] == printed


@pytest.mark.parametrize("name", sorted(set(names()) - set(TAKEN)))
def test_what_the_engine_cannot_do_is_refused_by_key_and_changes_nothing(
    kind: str, name: str
) -> None:
    engine = new_engine(kind)
    held = (engine.revision, engine.state_lines())
    with pytest.raises(ApplyError) as caught:
        apply(load(name), engine)
    assert str(caught.value).startswith(f"rulebook {name}: the engine cannot do it yet: ")
    assert unsupported(load(name))[0] in str(caught.value)
    assert (engine.revision, engine.state_lines()) == held


def test_several_rulebooks_fit_into_one_engine(kind: str) -> None:
    engine = new_engine(kind)
    ids = [apply(load(name), engine) for name in ("binance_usdm", "textbook", "textbook_options")]
    assert len({value for each in ids for value in each.values()}) == sum(map(len, ids))


def test_figures_reach_the_engine_in_its_units(kind: str) -> None:
    engine = new_engine(kind)
    ids = apply(load("binance_usdm"), engine)
    row = next(row for row in engine.instruments() if row.instrument_id == ids["BTCUSDT"])
    assert (row.tick_mantissa, row.tick_exponent) == (1, -1)
    assert (row.lot_mantissa, row.lot_exponent) == (1, -3)
    assert row.mark_units_per_tick == 10**7
    assert (row.order_lots_min, row.order_lots_max) == (1, 10**6)
    assert row.order_notional_min == 5 * 10**8
    assert (row.price_collar_ppb, row.market_buffer_ppb) == (150_000_000, 500_000)
    assert row.taker_fee_ppb == 500_000
    assert row.mark_age_max_ns == 10 * 10**9
    ids = apply(load("textbook_options"), engine)
    call = engine.instruments()[ids["BTC-USDT-301227-80000-C"] - 1]
    assert (call.strike_units, call.option_type, call.schedule_id) == (8_000_000, 1, 0)
    assert call.underlying_id == ids["BTC-USDT-PERP"]


def test_a_halt_stays_when_the_rules_are_applied_again(kind: str) -> None:
    engine = new_engine(kind)
    book = load("textbook")
    instrument_id = apply(book, engine)["BTC-PERP"]
    halted = types_pb2.TRADING_STATE_HALTED
    engine.set_trading_state(SCOPE_INSTRUMENT, instrument_id, halted)
    (rule,) = book.instruments
    apply(replace(book, instruments=(replace(rule, taker_fee_rate=Decimal("0.001")),)), engine)
    (row,) = engine.instruments()
    assert (row.trading_state, row.taker_fee_ppb) == (halted, 1_000_000)


def test_other_tiers_replace_those_held_and_raise_the_version(kind: str) -> None:
    engine = new_engine(kind)
    book = load("textbook")
    apply(book, engine)
    (schedule,) = book.schedules
    (tier,) = schedule.tiers
    other = replace(schedule, tiers=(replace(tier, maintenance_rate=Decimal("0.015")),))
    apply(replace(book, schedules=(other,)), engine)
    (row,) = engine.schedules()
    assert (row.version, row.tiers[0].maintenance_rate_ppb) == (2, 15_000_000)


def test_a_conflict_with_what_cannot_change_changes_nothing(kind: str) -> None:
    engine = new_engine(kind)
    book = load("textbook")
    apply(book, engine)
    held = engine.state_lines()
    (asset,), (rule,) = book.assets, book.instruments
    with pytest.raises(ApplyError, match="asset USD: scale 5, the engine has it with 6"):
        apply(replace(book, assets=(replace(asset, scale=5),)), engine)
    other = replace(book, instruments=(replace(rule, lot_size=Decimal("0.01")),))
    with pytest.raises(ApplyError, match="instrument BTC-PERP: lot_exponent is -2, the engine"):
        apply(other, engine)
    assert engine.state_lines() == held


def test_a_refusal_names_the_rule_and_the_reason(kind: str) -> None:
    engine = new_engine(kind, schedules_max=1)
    message = "rulebook binance_usdm: schedule ETHUSDT: .* REASON_CODE_SCHEDULES_FULL"
    with pytest.raises(ApplyError, match=message):
        apply(load("binance_usdm"), engine)
