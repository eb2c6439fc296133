"""A rulebook goes into an engine once, exactly, and without lifting halts."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from riskd.core.engine import Engine
from riskd.reference import ReferenceEngine
from riskd.rulebooks import (
    ApplyError,
    Rulebook,
    apply,
    left_out,
    load,
    loads,
    names,
    to_toml,
    unsupported,
)
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


def test_an_engine_takes_all_packaged_rulebooks_but_these() -> None:
    assert sorted(set(names()) - set(TAKEN)) == [
        "bybit_inverse",
        "drift",
        "opyn",
        "reg_t",
        "vega",
    ]


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


FULL = """\
format = 2
name = "full"
title = "Everything that an engine takes"
source = "made up"
as_of = 2026-01-01

[rule]
maintenance_basis = "entry"
source = "made up"
as_of = 2026-01-01

[asset.USD]
scale = 6
source = "made up"
as_of = 2026-01-01

[asset.BTC]
scale = 8
source = "made up"
as_of = 2026-01-01

[schedule.LINEAR]
settlement_asset = "USD"
family = "size_linear"
initial_base = "0.02"
initial_slope = "0.00005"
maintenance_base = "0.01"
maintenance_slope = "0.00004"
max_leverage = "50"
source = "made up"
as_of = 2026-01-01

[schedule.CONTRACT]
settlement_asset = "USD"
family = "per_contract"
initial_per_contract = "10"
maintenance_per_contract = "8"
source = "made up"
as_of = 2026-01-01

[schedule.SQRT]
settlement_asset = "USD"
family = "size_sqrt"
initial_rate = "0.1"
maintenance_rate = "0.05"
imf_factor = "0.001"
source = "made up"
as_of = 2026-01-01

[schedule.POWER]
settlement_asset = "USD"
family = "power"
initial_base = "0.1"
maintenance_base = "0.05"
factor = "0.0000002512"
exponent = "0.8"
source = "made up"
as_of = 2026-01-01

[schedule.INTEREST]
settlement_asset = "USD"
family = "open_interest"
initial_rate = "0.05"
maintenance_fraction = "0.6"
open_interest_lower = "20000000"
open_interest_upper = "50000000"
source = "made up"
as_of = 2026-01-01

[schedule.RISK]
settlement_asset = "USD"
family = "risk_factor"
risk_factor_long = "0.1"
risk_factor_short = "0.11"
linear_slippage = "0.05"
quadratic_slippage = "0.01"
source = "made up"
as_of = 2026-01-01

[schedule.COIN]
settlement_asset = "BTC"
source = "made up"
as_of = 2026-01-01
tier = [{ floor = "0", maintenance_rate = "0.005", max_leverage = "100" }]

[option_rule.SHORT]
family = "short_option"
settlement = "coin"
reference = "index"
initial_rate = "0.15"
initial_floor = "0.1"
maintenance_rate = "0.075"
put_maintenance = "larger_of_reference_and_mark"
source = "made up"
as_of = 2026-01-01

[collateral.BTC]
index = "BTC-LINEAR"
cap = "100"
liability_weight = "1.2"
interest_free = "1"
forced_conversion = "5"
haircut = [{ floor = "0", asset_weight = "0.9" }, { floor = "10", asset_weight = "0.5" }]
source = "made up"
as_of = 2026-01-01

[levels]
search = "1.1"
initial = "1.2"
release = "1.4"
source = "made up"
as_of = 2026-01-01

[instrument.BTC-COIN]
kind = "inverse_perpetual"
settlement_asset = "BTC"
margin_schedule = "COIN"
tick_size = "0.5"
lot_size = "10"
mark_units_per_tick = 50
source = "made up"
as_of = 2026-01-01

[instrument.BTC-QUANTO]
kind = "quanto_perpetual"
settlement_asset = "BTC"
margin_schedule = "COIN"
tick_size = "0.05"
lot_size = "1"
contract_multiplier = "0.000001"
source = "made up"
as_of = 2026-01-01

[instrument.BTC-27DEC30]
kind = "inverse_future"
settlement_asset = "BTC"
margin_schedule = "COIN"
tick_size = "0.5"
lot_size = "10"
expiry = 2030-12-27T08:00:00Z
source = "made up"
as_of = 2026-01-01
"""
OPTION = """
[instrument.BTC-27DEC30-80000-P]
kind = "inverse_option"
settlement_asset = "BTC"
tick_size = "0.0005"
lot_size = "0.1"
expiry = 2030-12-27T08:00:00Z
strike = "80000"
option_type = "put"
underlying = "BTC-COIN"
option_rule = "SHORT"
source = "made up"
as_of = 2026-01-01
"""
SPOT = """
[instrument.BTC-SPOT]
kind = "spot"
settlement_asset = "USD"
base_asset = "BTC"
tick_size = "0.01"
lot_size = "0.0001"
source = "made up"
as_of = 2026-01-01
"""
CONTRACT = """
[instrument.BTC-{schedule}]
kind = "linear_perpetual"
settlement_asset = "USD"
margin_schedule = "{schedule}"
tick_size = "0.1"
lot_size = "0.01"
source = "made up"
as_of = 2026-01-01
"""
FAMILIES = ("LINEAR", "CONTRACT", "SQRT", "POWER", "INTEREST", "RISK")


FULL_BOOK = FULL + "".join(CONTRACT.format(schedule=each) for each in FAMILIES) + OPTION + SPOT


def test_everything_goes_into_an_engine_in_its_units_and_nothing_twice(kind: str) -> None:
    engine = new_engine(kind)
    book = loads(FULL_BOOK)
    ids = apply(book, engine)
    held = (engine.revision, engine.state_lines())
    assert apply(book, engine) == ids
    assert (engine.revision, engine.state_lines()) == held
    rows = {row.name: row for row in engine.schedules()}
    parameters = {
        name: (row.family, row.parameter_a, row.parameter_b, row.parameter_c)
        for name, row in rows.items()
    }
    # A lot is 0.01: slopes are 10^-15 per lot, sizes 10^-12, the power's factor 10^-18, levels ppb.
    assert parameters["LINEAR"] == (4, 500_000_000, 400_000_000, 0)
    assert parameters["CONTRACT"] == (5, 100_000, 80_000, 0)
    assert parameters["INTEREST"] == (6, 20_000_000_000_000, 50_000_000_000_000, 0)
    assert parameters["SQRT"] == (7, 1_000_000, 0, 10_000_000_000)
    assert parameters["POWER"] == (8, 251_200_000_000, 800_000_000, 0)
    # The short side's factor has the linear slippage in it, as the long side's rate.
    assert parameters["RISK"] == (9, 160_000_000, 100_000_000_000, 1_200_000_000)
    risk = rows["RISK"].tiers[0]
    assert (risk.initial_rate_ppb, risk.maintenance_rate_ppb) == (180_000_000, 150_000_000)
    assert {row.maintenance_basis for row in rows.values() if row.family < 20} == {2}
    instruments = {row.symbol: row for row in engine.instruments()}
    quanto = instruments["BTC-QUANTO"]
    assert (quanto.multiplier_mantissa, quanto.multiplier_exponent) == (1, -6)
    assert engine.margin_levels() == (1_100_000, 1_400_000)
    (collateral,) = engine.collateral()
    assert collateral.tiers == ((0, 900_000_000), (10 * 10**8, 500_000_000))
    assert (collateral.cap, collateral.liability_ppb) == (100 * 10**8, 1_200_000_000)
    assert (collateral.interest_free, collateral.forced_conversion) == (10**8, 5 * 10**8)
    assert collateral.index_instrument_id == ids["BTC-LINEAR"]
    rule = rows["SHORT"]
    assert (rule.tiers[0].initial_rate_ppb, rule.parameter_a) == (150_000_000, 100_000_000)
    option = instruments["BTC-27DEC30-80000-P"]
    assert option.option_rule_id == rule.schedule_id
    # The strike counts in the mark units of the underlying, 0.01.
    assert option.strike_units == 8_000_000
    spot = instruments["BTC-SPOT"]
    assert [row.symbol for row in engine.assets()][spot.base_asset_id - 1] == "BTC"
    assert spot.schedule_id == 0


def test_collateral_that_is_excluded_the_wrong_way_names_its_contracts(kind: str) -> None:
    engine = new_engine(kind)
    text = FULL_BOOK.replace('cap = "100"', 'cap = "100"\nwrong_way = "excluded"')
    perpetual = 'kind = "inverse_perpetual"'
    text = text.replace(perpetual, f'{perpetual}\nbase_asset = "BTC"')
    book = loads(text)
    assert loads(to_toml(book)) == book
    apply(loads(FULL_BOOK), other := new_engine(kind))
    assert other.collateral()[0].wrong_way_ppb == 0
    apply(book, engine)
    held = engine.state_lines()
    apply(book, engine)
    assert engine.state_lines() == held
    assert engine.collateral()[0].wrong_way_ppb == 10**9
    coin = next(row for row in engine.instruments() if row.symbol == "BTC-COIN")
    assert coin.base_asset_id == coin.asset_id
    # The engine of the plain book has the contract without it, for good.
    with pytest.raises(ApplyError, match="instrument BTC-COIN: base_asset_id is 2, the engine has"):
        apply(book, other)


def test_a_spot_pair_keeps_its_base_asset(kind: str) -> None:
    engine = new_engine(kind)
    book = loads(FULL_BOOK)
    apply(book, engine)
    held = engine.state_lines()
    spot = replace(book.instrument("BTC-SPOT"), symbol="BTC-27DEC30")
    other = Rulebook("other", "A pair", book.provenance, book.assets, instruments=(spot,))
    with pytest.raises(ApplyError, match="instrument BTC-27DEC30: kind is 7, the engine has it"):
        apply(other, engine)
    assert engine.state_lines() == held


UNSUPPORTED = [
    ('maintenance_basis = "entry"', 'maintenance_basis = "session_average"',
     "rule.maintenance_basis = 'session_average'"),
    ('maintenance_basis = "entry"', 'fee_in_margin = "taker"', "rule.fee_in_margin = 'taker'"),
    ('maintenance_basis = "entry"', 'order_margin = "sum"', "rule.order_margin = 'sum'"),
    ("initial_slope = \"0.00005\"", "initial_slope = \"0.00005000000001\"",
     "schedule.LINEAR.initial_slope = 0.00005000000001: is not whole in the engine's unit, 10^-15"),
    ('exponent = "0.8"', 'exponent = "0.8"\nquantity_max = "5"', "schedule.POWER.quantity_max = 5"),
    ('initial = "1.2"\n', "", "schedule.RISK.family = 'risk_factor': needs levels.initial"),
    ('maintenance_rate = "0.075"',
     'maintenance_rate = "0.075"\nmark_term = "larger_of_mark_and_entry"',
     "option_rule.SHORT.mark_term = 'larger_of_mark_and_entry'"),
    ('cap = "100"', 'cap = "100"\nwrong_way = "own_asset_excluded"',
     "collateral.BTC.wrong_way = 'own_asset_excluded'"),
    ('cap = "100"', 'cap = "100"\nimf_factor = "0.1"', "collateral.BTC.imf_factor = 0.1"),
    ('index = "BTC-LINEAR"\n', "", "collateral.BTC.index: is missing, an engine needs a price"),
    ('asset_weight = "0.9"', 'asset_weight = "0.9", maintenance_asset_weight = "0.95"',
     "collateral.BTC.haircut[0].maintenance_asset_weight = 0.95: an engine has one weight for"),
    ('maintenance_rate = "0.075"',
     'maintenance_rate = "0.075"\ncall_initial_over_maintenance = "2"',
     "option_rule.SHORT.call_initial_over_maintenance = 2"),
    ('put_maintenance = "larger', 'call_maintenance = "larger_of_reference_and_mark"\n# "',
     "option_rule.SHORT.call_maintenance = 'larger_of_reference_and_mark': an engine has it of"),
    ('maintenance_rate = "0.075"', 'maintenance_rate = "0.075"\norder_margin_min = "1.1"',
     "option_rule.SHORT.order_margin_min = 1.1: of a contract of 1 coins must be at most it"),
    ('maintenance_basis = "entry"',
     'maintenance_basis = "entry"\nfee_in_liquidation = "at_bankruptcy"',
     "rule.fee_in_liquidation = 'at_bankruptcy'"),
    ('maintenance_basis = "entry"', 'maintenance_basis = "entry"\nfee_in_liquidation = "reserved"',
     "rule.wallet = 'margin'"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "key"), UNSUPPORTED)
def test_what_no_engine_can_do_is_named_by_its_key(old: str, new: str, key: str) -> None:
    assert old in FULL_BOOK
    (found,) = unsupported(loads(FULL_BOOK.replace(old, new, 1)))
    assert found.startswith(key)


SMALL = """\
format = 2
name = "small"
title = "A contract with a fee for closing"
source = "made up"
as_of = 2026-01-01

[rule]
maintenance_basis = "entry"
source = "made up"
as_of = 2026-01-01

[asset.USD]
scale = 6
source = "made up"
as_of = 2026-01-01

[schedule.A]
settlement_asset = "USD"
source = "made up"
as_of = 2026-01-01
tier = [
    { floor = "0", maintenance_rate = "0.01", max_leverage = "50" },
    { floor = "5", maintenance_rate = "0.02", max_leverage = "25" },
]

[instrument.A]
kind = "linear_perpetual"
settlement_asset = "USD"
margin_schedule = "A"
tick_size = "0.1"
lot_size = "0.5"
taker_fee_rate = "0.001"
source = "made up"
as_of = 2026-01-01
"""
BASIS = 'maintenance_basis = "entry"'
FEES = [
    ('wallet = "margin_and_fee"\nfee_in_liquidation = "reserved"', 2),
    ('fee_in_margin = "close_at_bankruptcy"\nfee_in_liquidation = "reserved"', 3),
    ("", 0),
]


@pytest.mark.parametrize(("fees", "closing_fee"), FEES)
def test_a_venues_closing_fee_is_its_schedules(kind: str, fees: str, closing_fee: int) -> None:
    engine = new_engine(kind)
    apply(loads(SMALL.replace(BASIS, f"{BASIS}\n{fees}")), engine)
    assert [row.closing_fee for row in engine.schedules()] == [closing_fee]


def in_maintenance(rate: str) -> Rulebook:
    fees = 'fee_in_margin = "taker_in_maintenance"\nfee_in_liquidation = "at_liquidation"'
    text = SMALL.replace(BASIS, f"{BASIS}\n{fees}")
    return loads(text.replace("tier = [", f'liquidation_fee_rate = "{rate}"\ntier = ['))


def test_a_taker_fee_in_maintenance_must_be_the_liquidation_fee(kind: str) -> None:
    engine = new_engine(kind)
    apply(in_maintenance("0.001"), engine)
    assert [row.closing_fee for row in engine.schedules()] == [1]
    assert unsupported(in_maintenance("0.002")) == [
        "instrument.A.taker_fee_rate = 0.001: an engine's maintenance has the fee that its "
        "liquidation price leaves room for, liquidation_fee_rate 0.002"
    ]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (BASIS, 'maintenance_basis = "mark"', "rule.maintenance_basis = 'mark': a reserved fee"),
        ("tier = [", 'liquidation_fee_rate = "0.001"\ntier = [', "schedule.A.liquidation_fee"),
    ],
)
def test_a_reserved_fee_is_beside_maintenance_at_entry_and_no_other_fee(
    old: str, new: str, key: str
) -> None:
    text = SMALL.replace(BASIS, f"{BASIS}\n{FEES[0][0]}").replace(old, new)
    (found,) = unsupported(loads(text))
    assert found.startswith(key)


def test_margin_modes_of_an_engine_have_the_same_fees() -> None:
    cross = """
[rule.cross]
fee_in_liquidation = "none"
"""
    text = SMALL.replace(BASIS, f'{BASIS}\nfee_in_liquidation = "at_liquidation"')
    text = text.replace("[asset.USD]", f"{cross}\n[asset.USD]")
    (found,) = unsupported(loads(text))
    assert found.startswith("rule.cross.fee_in_liquidation = 'none': an engine's schedule has the")


def test_isolated_only_and_the_largest_quantity_go_into_an_engine(kind: str) -> None:
    engine = new_engine(kind)
    text = SMALL.replace(BASIS, f'{BASIS}\ntier_mode = "whole"\ntier_key = "quantity"')
    text = text.replace("tier = [", 'quantity_max = "20"\ntier = [')
    apply(loads(f"{text}isolated_only = true\n"), engine)
    (schedule,), (instrument,) = engine.schedules(), engine.instruments()
    assert [tier.floor for tier in schedule.tiers] == [0, 10]
    assert (schedule.parameter_a, instrument.isolated_only) == (40, 1)
    with pytest.raises(ApplyError, match="instrument A: isolated_only is 0, the engine has it"):
        apply(loads(text), engine)
    (found,) = unsupported(loads(text.replace('"20"', '"20.1"')))
    assert found == "schedule.A.quantity_max = 20.1: is not a multiple of the lot 0.5"


def test_what_venues_add_to_an_option_rule_goes_into_an_engine(kind: str) -> None:
    engine = new_engine(kind)
    more = """
call_maintenance = "larger_of_reference_and_mark"
put_initial_over_maintenance = "1.05"
order_margin_min = "0.01"
multiplier = "0.1"
"""
    text = FULL_BOOK.replace('settlement = "coin"\n', f'settlement = "coin"{more}')
    apply(loads(text), engine)
    rule = {row.name: row for row in engine.schedules()}["SHORT"]
    # 0.01 coin of a contract of 0.1 coin.
    assert (rule.parameter_b, rule.parameter_d, rule.parameter_e) == (2, 1_050_000_000, 10**8)
    held = engine.state_lines()
    apply(loads(text), engine)
    assert engine.state_lines() == held


def test_what_no_instrument_needs_is_left_out_where_an_engine_could_not_count_it(
    kind: str,
) -> None:
    engine = new_engine(kind)
    book = load("deribit")
    assert left_out(book) == [
        "schedule.BTC_USDC.family = 'size_linear': no instrument has it, so that its sizes have no "
        "lots",
        "schedule.SOL_USDC.family = 'size_linear': no instrument has it, so that its sizes have no "
        "lots",
        "option_rule.BTC: no option has it",
        "option_rule.ETH: no option has it",
    ]
    apply(book, engine)
    assert [row.symbol for row in engine.assets()] == [asset.symbol for asset in book.assets]
    assert engine.schedules() == []
    # Tiers by notional need no lots: what an account may define later can have them.
    apply(load("mexc"), engine)
    assert [row.name for row in engine.schedules()] == [row.name for row in load("mexc").schedules]
    assert left_out(load("bybit_options")) == [
        "option_rule.BTC: no option has it, nor could one: option_rule.BTC.mark_term = "
        "'larger_of_mark_and_entry'"
    ]
