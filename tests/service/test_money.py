"""Kinds, families, option rules, collateral, credit, funding and settlement through the service."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from riskd.v1 import account_service_pb2 as accounts_pb
from riskd.v1 import audit_service_pb2 as audit_pb
from riskd.v1 import instrument_service_pb2 as pb
from riskd.v1 import margin_service_pb2 as margins_pb
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from tests.service.conftest import NOW_NS, btc_instrument, btc_schedule, new_order

if TYPE_CHECKING:
    from tests.service.conftest import Clock, Rig

FAILED = grpc.StatusCode.FAILED_PRECONDITION
YEAR_NS = 365 * 86_400 * 10**9
ISOLATED = types_pb2.MARGIN_MODE_ISOLATED


def upsert_schedule(rig: Rig, schedule: pb.MarginSchedule) -> pb.MarginSchedule:
    request = pb.UpsertMarginScheduleRequest(schedule=schedule)
    return rig.instruments.UpsertMarginSchedule(request).schedule


def upsert(rig: Rig, instrument: pb.Instrument) -> pb.Instrument:
    request = pb.UpsertInstrumentRequest(instrument=instrument)
    return rig.instruments.UpsertInstrument(request).instrument


def load(rig: Rig, quantity: str, value: str, **fields: Any) -> accounts_pb.LoadPositionResponse:
    values = {"account_id": 7, "instrument_id": 1} | fields
    return rig.accounts.LoadPosition(
        accounts_pb.LoadPositionRequest(quantity=quantity, entry_value=value, **values)
    )


def summary(rig: Rig, account_id: int = 7) -> margins_pb.MarginSummary:
    request = margins_pb.GetMarginSummaryRequest(account_id=account_id)
    return rig.margins.GetMarginSummary(request).summary


def positions(rig: Rig, account_id: int = 7) -> list[margins_pb.PositionMargin]:
    request = margins_pb.ListPositionMarginsRequest(account_id=account_id)
    return list(rig.margins.ListPositionMargins(request).positions)


def last_change(rig: Rig) -> tuple[str, dict[str, tuple[str, str]]]:
    change = rig.audit.ListChanges(audit_pb.ListChangesRequest(page_size=1)).changes[0]
    return change.method, {row.name: (row.before, row.after) for row in change.changes}


# --- families ---------------------------------------------------------------------------------

ONE = pb.MarginTier(
    floor_notional="0",
    initial_rate="0.02",
    maintenance_rate="0.01",
    deduction="0",
    max_leverage="20",
)
FAMILIES: dict[str, dict[str, Any]] = {
    "TIERED_WHOLE": {
        "tiers": [
            ONE,
            pb.MarginTier(
                floor_notional="0.000001",
                initial_rate="0.04",
                maintenance_rate="0.03",
                deduction="0",
                max_leverage="10",
            ),
        ]
    },
    "TIERED_QUANTITY": {
        "tiers": [
            pb.MarginTier(
                initial_rate="0.02", maintenance_rate="0.01", deduction="0", max_leverage="20"
            ),
            pb.MarginTier(
                floor_lots=500,
                initial_rate="0.04",
                maintenance_rate="0.03",
                deduction="0",
                max_leverage="10",
            ),
        ]
    },
    "SIZE_LINEAR": {
        "tiers": [ONE],
        "size_linear": pb.SizeLinearRates(
            initial_rate_per_lot="0.000000000000005", maintenance_rate_per_lot="0.000001"
        ),
    },
    "PER_CONTRACT": {
        "tiers": [
            pb.MarginTier(
                floor_notional="0",
                initial_rate="0",
                maintenance_rate="0",
                deduction="0",
                max_leverage="20",
            )
        ],
        "per_contract": pb.PerContractAmounts(initial_per_lot="2.5", maintenance_per_lot="1.75"),
    },
    "OPEN_INTEREST": {
        "tiers": [ONE],
        "open_interest": pb.OpenInterestBounds(lower_notional="25000", upper_notional="50000.5"),
    },
    "SIZE_SQRT": {
        "tiers": [ONE],
        "size_sqrt": pb.SizeRootRates(factor="0.001234567", size_per_lot="0.000000000001"),
    },
    "POWER": {
        "tiers": [ONE],
        "power": pb.PowerRates(factor="0.000000251200000001", exponent="0.8"),
    },
    "RISK_FACTOR": {
        "tiers": [
            pb.MarginTier(
                floor_notional="0",
                initial_rate="0.015",
                maintenance_rate="0.01",
                deduction="0",
                max_leverage="20",
            )
        ],
        "risk_factor": pb.RiskFactors(
            short_rate="0.012", slippage_rate_per_lot="0.000001", initial_factor="1.5"
        ),
    },
}


def family_schedule(name: str, /, **changed: Any) -> pb.MarginSchedule:
    fields: dict[str, Any] = {
        "name": "FAMILY",
        "settlement_asset": "USDT",
        "liquidation_fee_rate": "0.001",
        "maintenance_basis": pb.MAINTENANCE_BASIS_MARK,
        "tiers": [ONE],
    }
    return pb.MarginSchedule(
        family=pb.MarginFamily.Value(f"MARGIN_FAMILY_{name}"),
        **(fields | FAMILIES.get(name, {}) | changed),
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_schedule_of_a_family_reads_as_it_was_written(market: Rig, name: str) -> None:
    written = family_schedule(name)
    read = upsert_schedule(market, written)
    assert read.version == 1
    written.schedule_id, written.version = read.schedule_id, read.version
    assert read == written
    listed = market.instruments.ListMarginSchedules(pb.ListMarginSchedulesRequest()).schedules
    assert listed[-1] == read


@pytest.mark.parametrize("fee", [pb.CLOSING_FEE_RESERVED, pb.CLOSING_FEE_AT_BANKRUPTCY])
def test_a_closing_fee_reads_as_it_was_written(market: Rig, fee: pb.ClosingFee.ValueType) -> None:
    schedule = btc_schedule()
    schedule.maintenance_basis = pb.MAINTENANCE_BASIS_ENTRY
    schedule.closing_fee = fee
    assert upsert_schedule(market, schedule).closing_fee == fee
    listed = market.instruments.ListMarginSchedules(pb.ListMarginSchedulesRequest()).schedules
    assert listed[0].closing_fee == fee
    name = pb.ClosingFee.Name(fee).removeprefix("CLOSING_FEE_")
    assert last_change(market)[1]["closing_fee"] == ("", name)


def test_the_largest_position_in_lots_reads_as_it_was_written(market: Rig) -> None:
    schedule = family_schedule("TIERED_QUANTITY", quantity_max_lots=501)
    assert upsert_schedule(market, schedule).quantity_max_lots == 501


def test_maintenance_by_the_entry_value_reads_as_it_was_written(market: Rig) -> None:
    schedule = btc_schedule()
    schedule.maintenance_basis = pb.MAINTENANCE_BASIS_ENTRY
    assert upsert_schedule(market, schedule).maintenance_basis == pb.MAINTENANCE_BASIS_ENTRY
    load(market, "1", "60000")
    market.mark(1, 1_100_000)
    # 0.01 * 60000 - 250, at whatever mark.
    assert positions(market)[0].maintenance_margin == "350"


def test_open_interest_raises_the_initial_rate(market: Rig) -> None:
    schedule = family_schedule("OPEN_INTEREST")
    schedule.name = "BTC"
    schedule.liquidation_fee_rate = ""
    upsert_schedule(market, schedule)
    load(market, "0.1", "6000")
    # 6000 / 20
    assert positions(market)[0].initial_margin == "300"
    market.marks.ReportOpenInterest(
        marks_pb.ReportOpenInterestRequest(instrument_id=1, open_interest="0.6")
    )
    assert last_change(market) == ("ReportOpenInterest", {"open_interest": ("", "0.6")})
    # 0.02 + 0.98 * (36000 - 25000) / 25000.5, cut to 1e-6: 0.451191
    assert positions(market)[0].initial_margin == "2707.146"
    row = market.instruments.ListInstruments(pb.ListInstrumentsRequest()).instruments[0]
    assert row.open_interest == "0.6"


def change_family(name: str, /, **changed: Any) -> pb.UpsertMarginScheduleRequest:
    return pb.UpsertMarginScheduleRequest(schedule=family_schedule(name, **changed))


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            change_family("SIZE_LINEAR", size_linear=None),
            "schedule.parameters is 'not set': must be size_linear for the family SIZE_LINEAR",
        ),
        (
            change_family("TIERED", tiers=[ONE], power=pb.PowerRates(factor="1", exponent="1")),
            "schedule.parameters is 'power': must be not set for the family TIERED",
        ),
        (
            change_family("SIZE_LINEAR", tiers=[ONE, ONE]),
            "schedule.tiers is '2 tiers': must be 1 tier",
        ),
        (
            change_family(
                "SIZE_LINEAR", size_linear=pb.SizeLinearRates(initial_rate_per_lot="1e-16")
            ),
            "schedule.size_linear.initial_rate_per_lot is '1e-16': must be a multiple of",
        ),
        (
            change_family(
                "SIZE_LINEAR", size_linear=pb.SizeLinearRates(maintenance_rate_per_lot="1.1")
            ),
            "schedule.size_linear.maintenance_rate_per_lot is '1.1': must be 0 to 1",
        ),
        (
            change_family(
                "PER_CONTRACT",
                per_contract=pb.PerContractAmounts(initial_per_lot="1", maintenance_per_lot="1"),
            ),
            "schedule.per_contract.maintenance_per_lot is '1': must be below initial_per_lot 1",
        ),
        (
            change_family("PER_CONTRACT", tiers=[ONE]),
            "schedule.tiers[0].initial_rate is '0.02': must be 0 to 0",
        ),
        (
            change_family(
                "OPEN_INTEREST",
                open_interest=pb.OpenInterestBounds(lower_notional="5", upper_notional="5"),
            ),
            "schedule.open_interest.upper_notional is '5': must be above lower_notional 5",
        ),
        (
            change_family(
                "SIZE_SQRT", size_sqrt=pb.SizeRootRates(factor="1000001", size_per_lot="1")
            ),
            "schedule.size_sqrt.factor is '1000001': must be 0 to 1000000",
        ),
        (
            change_family("POWER", power=pb.PowerRates(factor="0", exponent="0.8")),
            "schedule.power.factor is '0': must be 0.000000000000000001 to 1",
        ),
        (
            change_family("POWER", power=pb.PowerRates(factor="0.1", exponent="1.1")),
            "schedule.power.exponent is '1.1': must be 0.000000001 to 1",
        ),
        (
            change_family(
                "RISK_FACTOR",
                risk_factor=pb.RiskFactors(short_rate="0.012", initial_factor="1"),
            ),
            "schedule.risk_factor.initial_factor is '1': must be 1.000000001 to 1000",
        ),
        (
            change_family(
                "RISK_FACTOR",
                risk_factor=pb.RiskFactors(short_rate="0.1", initial_factor="1.5"),
            ),
            "schedule.tiers[0].initial_rate is '0.015': must be above 0.101 (short_rate and "
            "liquidation_fee_rate), or max_leverage 20 below 9.9",
        ),
        (
            change_family("RISK_FACTOR", tiers=[ONE]),
            "schedule.tiers[0].initial_rate is '0.02': must be 0.015 to 0.015",
        ),
        (
            change_family(
                "TIERED_QUANTITY", tiers=[pb.MarginTier(floor_notional="0", maintenance_rate="1")]
            ),
            "schedule.tiers[0].floor_notional is '0': must be empty: floor_lots",
        ),
        (
            change_family(
                "TIERED_QUANTITY",
                tiers=[
                    pb.MarginTier(
                        floor_lots=2**53 + 1,
                        initial_rate="1",
                        maintenance_rate="0.5",
                        max_leverage="1",
                    )
                ],
            ),
            "schedule.tiers[0].floor_lots is '9007199254740993': must be 0 to 9007199254740992",
        ),
        (
            change_family("TIERED_WHOLE", tiers=[pb.MarginTier(floor_lots=1)]),
            "schedule.tiers[0].floor_lots is '1': must be 0: floor_notional",
        ),
        (
            change_family(
                "TIERED_WHOLE",
                tiers=[
                    pb.MarginTier(
                        initial_rate="0.02",
                        maintenance_rate="0.01",
                        deduction="5",
                        max_leverage="20",
                    )
                ],
            ),
            "schedule.tiers[0].deduction is '5': must be empty, or 0",
        ),
        (
            change_family("TIERED", maintenance_basis=9),
            "schedule.maintenance_basis is '9': must be MARK or ENTRY",
        ),
        (
            change_family("TIERED", closing_fee=9),
            "schedule.closing_fee is '9': must be a closing fee of the contract, or not set",
        ),
        (
            change_family("TIERED", closing_fee=pb.CLOSING_FEE_RESERVED),
            "schedule.closing_fee is 'RESERVED': must be not set, for it needs a family with",
        ),
        (
            change_family("POWER", closing_fee=3, maintenance_basis=2),
            "schedule.closing_fee is 'AT_BANKRUPTCY': must be not set, for it needs a family",
        ),
        (
            change_family("TIERED", closing_fee=2, maintenance_basis=2),
            "schedule.liquidation_fee_rate is '0.001': must be empty or 0 with closing_fee RES",
        ),
        (
            change_family("TIERED_WHOLE", quantity_max_lots=5),
            "schedule.quantity_max_lots is '5': must be 0 for a family but TIERED_QUANTITY",
        ),
        (
            change_family("TIERED_QUANTITY", quantity_max_lots=500),
            "schedule.quantity_max_lots is '500': must be above 500, the floor of the last tier",
        ),
        (
            pb.UpsertMarginScheduleRequest(
                schedule=pb.MarginSchedule(name="F", settlement_asset="USDT", family=20)  # type: ignore[arg-type]
            ),
            "schedule.family is '20': must be a family of the contract",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_family_out_of_bounds_is_refused_by_field(
    market: Rig, request_: pb.UpsertMarginScheduleRequest, text: str
) -> None:
    before = market.engine.state_hash()
    failure = market.fail(market.instruments.UpsertMarginSchedule, request_)
    assert failure.reason == "DEFINITION_INVALID"
    assert failure.message.startswith(text)
    assert market.engine.state_hash() == before


# --- kinds ------------------------------------------------------------------------------------


def coin_market(rig: Rig) -> pb.Instrument:
    """Add asset BTC, schedule COIN, instrument BTC-INV at 50000 and account 9 with 1 BTC."""
    rig.instruments.CreateAsset(pb.CreateAssetRequest(symbol="BTC", scale=8))
    schedule = btc_schedule()
    schedule.name, schedule.settlement_asset = "COIN", "BTC"
    del schedule.tiers[1]
    upsert_schedule(rig, schedule)
    instrument = upsert(
        rig,
        pb.Instrument(
            symbol="BTC-INV",
            kind=pb.INSTRUMENT_KIND_INVERSE_PERPETUAL,
            settlement_asset="BTC",
            margin_schedule="COIN",
            tick_size="0.5",
            lot_size="1",
            multiplier="100",
            mark_units_per_tick=10,
        ),
    )
    rig.mark(instrument.instrument_id, 1_000_000)
    rig.accounts.CreateAccount(
        accounts_pb.CreateAccountRequest(
            account_id=9, settlement_asset="BTC", initial_collateral="1"
        )
    )
    return instrument


def test_an_inverse_position_reads_in_coin(market: Rig) -> None:
    instrument = coin_market(market)
    assert instrument.multiplier == "100"
    # 1000 contracts of 100 at 40000 are 2.5 BTC, at 50000 2 BTC.
    load(market, "1000", "2.5", account_id=9, instrument_id=instrument.instrument_id)
    (row,) = positions(market, 9)
    assert (row.quantity, row.entry_price, row.entry_value) == ("1000", "40000", "2.5")
    assert (row.notional, row.unrealised_pnl, row.maintenance_margin) == ("2", "0.5", "0.01")
    # 100000 * 1.005 / (2.5 + 1) = 28714.28..., the last mark of 0.05 at which it is reached
    assert (row.liquidation_price, row.bankruptcy_price) == ("28714.25", "28571.45")
    assert row.liquidation_distance == "0.425715"
    assert summary(market, 9).cross_equity == "1.5"
    simulated = market.margins.SimulatePortfolio(
        margins_pb.SimulatePortfolioRequest(
            settlement_asset="BTC",
            balances=[margins_pb.SimulatedBalance(asset="BTC", amount="1")],
            positions=[
                margins_pb.SimulatedPosition(
                    instrument_id=instrument.instrument_id, quantity="1000", entry_price="40000"
                )
            ],
        )
    )
    row.account_id = 0
    assert list(simulated.positions) == [row]


def test_a_future_has_an_expiry_and_a_quanto_a_multiplier(market: Rig) -> None:
    future = btc_instrument()
    future.symbol, future.kind = "BTC-FUT", pb.INSTRUMENT_KIND_LINEAR_FUTURE
    request = pb.UpsertInstrumentRequest(instrument=future)
    failure = market.fail(market.instruments.UpsertInstrument, request)
    assert failure.message == "instrument.expiry_time_ns is '0': must be 1 to 2^63 - 1"
    future.expiry_time_ns = NOW_NS + YEAR_NS
    assert upsert(market, future).expiry_time_ns == NOW_NS + YEAR_NS
    quanto = btc_instrument()
    quanto.symbol, quanto.kind = "Q", pb.INSTRUMENT_KIND_QUANTO_PERPETUAL
    quanto.multiplier = "0.01"
    assert upsert(market, quanto).multiplier == "0.01"
    quanto.multiplier = "0.02"
    request = pb.UpsertInstrumentRequest(instrument=quanto)
    failure = market.fail(market.instruments.UpsertInstrument, request)
    assert failure.message == "instrument Q: multiplier is 0.01 and cannot change to 0.02"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": 9}, "instrument.kind is '9': must be one of LINEAR_PERPETUAL"),
        ({"multiplier": "0"}, "instrument.multiplier is '0': must be above 0"),
        (
            {"multiplier": "0.0000001"},
            "instrument.tick_size is '0.5': must be such that tick_size * lot_size 0.001 * "
            "multiplier 0.0000001 is 1 to 2^40 whole minor units of 0.000001 USDT",
        ),
        (
            {"kind": 3, "tick_size": "0.3"},
            "instrument.tick_size is '0.3': must be such that lot_size 0.001 * multiplier 1 / "
            "tick_size is 1 to 2^60",
        ),
        ({"option_rule": "X"}, "instrument.option_rule is 'X': must be not set for a LINEAR_PERP"),
        ({"expiry_time_ns": 5}, "instrument.expiry_time_ns is '5': must be not set for a LINEAR"),
    ],
)
def test_a_kind_out_of_bounds_is_refused_by_field(
    market: Rig, fields: dict[str, Any], text: str
) -> None:
    instrument = btc_instrument()
    instrument.symbol = "NEW"
    for name, value in fields.items():
        setattr(instrument, name, value)
    request = pb.UpsertInstrumentRequest(instrument=instrument)
    failure = market.fail(market.instruments.UpsertInstrument, request)
    assert failure.reason == "DEFINITION_INVALID"
    assert failure.message.startswith(text)


# --- loaded positions, modes, credit ----------------------------------------------------------


def test_a_position_is_taken_over_without_a_look_at_its_margin(market: Rig) -> None:
    before = market.engine.state_hash()
    shown = load(market, "-50", "3100000", validate_only=True)
    assert market.engine.state_hash() == before
    reply = load(market, "-50", "3100000")
    assert reply.available == shown.available
    (row,) = positions(market)
    assert (row.quantity, row.entry_price, row.unrealised_pnl) == ("-50", "62000", "100000")
    assert last_change(market) == (
        "LoadPosition",
        {
            "quantity": ("", "-50"),
            "entry_value": ("", "3100000"),
            "isolated_wallet": ("", "0"),
        },
    )


def test_an_isolated_position_brings_its_wallet(market: Rig) -> None:
    market.accounts.ChangeMarginMode(
        accounts_pb.ChangeMarginModeRequest(account_id=7, instrument_id=1, margin_mode=ISOLATED)
    )
    load(market, "1", "60000", isolated_wallet="4000")
    (row,) = positions(market)
    assert (row.isolated_wallet, row.liquidation_price) == ("4000", "56313.1")
    assert row.margin_level == margins_pb.MARGIN_LEVEL_SAFE
    # 3686.9 / 60000
    assert row.liquidation_distance == "0.061448"
    assert row.liquidation_distance_daily_volatilities == ""
    if_volatile = margins_pb.SimulatedMark(
        instrument_id=1, mark_price="60000", implied_volatility="0.65"
    )
    asked = margins_pb.SimulatePortfolioRequest(account_id=7, marks=[if_volatile])
    (shown,) = market.margins.SimulatePortfolio(asked).positions
    assert shown.liquidation_distance_daily_volatilities == "1.806105"
    market.mark(1, 1_200_000, implied_volatility_ppb=650_000_000)
    (row,) = positions(market)
    # 0.06144833... / (0.65 / sqrt(365))
    assert row.liquidation_distance_daily_volatilities == "1.806105"
    assert summary(market).cash == "10000"


def work(rig: Rig, number: int, side: types_pb2.Side.ValueType, price: str, size: str) -> None:
    """Reserve an order of account 7."""
    reply = rig.orders.CheckOrder(
        new_order(
            number,
            side=side,
            price_ticks=int(float(price) * 2),
            quantity_lots=int(float(size) * 1000),
        )
    )
    assert reply.decision == types_pb2.DECISION_ACCEPTED


def test_orders_that_add_bring_the_liquidation_price_nearer(market: Rig) -> None:
    load(market, "1", "60000")
    (row,) = positions(market)
    # (60000 - 10000 - 250) / 0.99
    assert row.liquidation_price == "50252.5"
    assert row.liquidation_price_with_orders == ""
    work(market, 1, types_pb2.SIDE_SELL, "61000", "0.5")
    assert positions(market)[0].liquidation_price_with_orders == ""
    work(market, 2, types_pb2.SIDE_BUY, "59000", "0.5")
    work(market, 3, types_pb2.SIDE_BUY, "58000", "0.5")
    (row,) = positions(market)
    assert row.liquidation_price == "50252.5"
    # 2 at 118500 in sum, 58500 / 2000 of fees: (118500 - (10000 - 29.25) - 250) / 1.98
    assert row.liquidation_price_with_orders == "54686.45"
    same = market.margins.SimulatePortfolio(margins_pb.SimulatePortfolioRequest(account_id=7))
    assert list(same.positions) == [row]
    filled = market.margins.SimulatePortfolio(
        margins_pb.SimulatePortfolioRequest(
            settlement_asset="USDT",
            balances=[margins_pb.SimulatedBalance(asset="USDT", amount="9970.75")],
            positions=[
                margins_pb.SimulatedPosition(instrument_id=1, quantity="2", entry_value="118500")
            ],
        )
    )
    assert filled.positions[0].liquidation_price == row.liquidation_price_with_orders


def test_orders_of_an_isolated_position_bring_their_margin(market: Rig) -> None:
    market.accounts.ChangeMarginMode(
        accounts_pb.ChangeMarginModeRequest(account_id=7, instrument_id=1, margin_mode=ISOLATED)
    )
    load(market, "-1", "60000", isolated_wallet="6000")
    work(market, 1, types_pb2.SIDE_SELL, "60000", "1")
    (row,) = positions(market)
    # (60000 + 6000 + 250) / 1.01, and with 3000 for the order (120000 + 9000 + 250) / 2.02
    assert (row.liquidation_price, row.liquidation_price_with_orders) == ("65594.1", "63985.15")


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({"account_id": 8}, "ACCOUNT_UNKNOWN", "account_id 8 is unknown"),
        ({"instrument_id": 8}, "INSTRUMENT_UNKNOWN", "instrument_id 8 is unknown"),
        ({"quantity": "0"}, "DEFINITION_INVALID", "quantity is '0': must be not 0"),
        ({"quantity": "0.0001"}, "DEFINITION_INVALID", "quantity is '0.0001': must be a multiple"),
        ({"entry_value": "0"}, "DEFINITION_INVALID", "entry_value is '0': must be 0.000001 to"),
        ({"entry_value": ""}, "DEFINITION_INVALID", "entry_value is '': must be a decimal number"),
        (
            {"isolated_wallet": "5"},
            "DEFINITION_INVALID",
            "isolated_wallet is '5': must be empty: it is not isolated",
        ),
        (
            {"position_side": types_pb2.POSITION_SIDE_LONG},
            "POSITION_SIDE_NOT_SUPPORTED",
            "position_side is LONG: must be NET or not set in one-way mode",
        ),
    ],
)
def test_a_position_that_cannot_be_is_not_taken_over(
    market: Rig, fields: dict[str, Any], reason: str, text: str
) -> None:
    values: dict[str, Any] = {"account_id": 7, "instrument_id": 1}
    values |= {"quantity": "1", "entry_value": "60000"}
    request = accounts_pb.LoadPositionRequest(**(values | fields))
    before = market.engine.state_hash()
    failure = market.fail(market.accounts.LoadPosition, request)
    assert failure.reason == reason
    assert failure.message.startswith(text)
    assert market.engine.state_hash() == before


def test_a_position_is_not_taken_over_beside_one(market: Rig) -> None:
    load(market, "1", "60000")
    request = accounts_pb.LoadPositionRequest(
        account_id=7, instrument_id=1, quantity="1", entry_value="60000"
    )
    failure = market.fail(market.accounts.LoadPosition, request)
    assert (failure.code, failure.reason) == (FAILED, "POSITION_NOT_FLAT")
    assert "position on BTC-PERP is not flat: quantity 1" in failure.message


def test_a_mode_switch_moves_the_margin_and_says_why_not(market: Rig) -> None:
    load(market, "1", "60000")
    request = accounts_pb.ChangeMarginModeRequest(
        account_id=7, instrument_id=1, margin_mode=ISOLATED, validate_only=True
    )
    reply = market.accounts.ChangeMarginMode(request)
    # 60000 / 20
    assert (reply.isolated_wallet, reply.cash_flow, reply.available) == ("3000", "-3000", "7000")
    assert summary(market).cash == "10000"
    request.validate_only = False
    assert market.accounts.ChangeMarginMode(request) == accounts_pb.ChangeMarginModeResponse(
        isolated_wallet="3000", available="7000", cash_flow="-3000", revision=reply.revision + 1
    )
    method, changes = last_change(market)
    assert (method, changes["cash_flow"]) == ("ChangeMarginMode", ("", "-3000"))
    # To the mode that it has: nothing, and nothing on record.
    revision = market.engine.revision
    assert market.accounts.ChangeMarginMode(request).revision == revision
    # A mark at which neither the wallet nor the pool would do.
    request.margin_mode = types_pb2.MARGIN_MODE_CROSS
    market.mark(1, 1_000_000)
    failure = market.fail(market.accounts.ChangeMarginMode, request)
    assert failure.code is FAILED
    assert failure.reason in ("EXCEEDS_AVAILABLE", "BORN_LIQUIDATABLE_IN_MODE")


def test_an_isolated_only_contract_stays_so_and_has_no_cross_position(market: Rig) -> None:
    instrument = btc_instrument()
    instrument.symbol, instrument.isolated_only = "ONLY", True
    assert upsert(market, instrument).isolated_only
    market.mark(2, 1_200_000)
    load(market, "0.1", "6000", instrument_id=2, isolated_wallet="500")
    assert positions(market)[0].margin_mode == ISOLATED
    failure = market.fail(
        market.accounts.ChangeMarginMode,
        accounts_pb.ChangeMarginModeRequest(
            account_id=7, instrument_id=2, margin_mode=types_pb2.MARGIN_MODE_CROSS
        ),
    )
    assert (failure.code, failure.reason) == (FAILED, "ISOLATED_ONLY")
    assert failure.message == "positions of ONLY are isolated, whatever an account's are"
    simulated = margins_pb.SimulatedPosition(
        instrument_id=2,
        quantity="0.1",
        entry_price="60000",
        isolated_wallet="500",
        margin_mode=types_pb2.MARGIN_MODE_CROSS,
    )
    what_if = margins_pb.SimulatePortfolioRequest(account_id=7, positions=[simulated])
    failure = market.fail(market.margins.SimulatePortfolio, what_if)
    assert failure.message == (
        "positions[0].margin_mode is 'CROSS': must be ISOLATED or not set, for ONLY is "
        "isolated_only"
    )
    what_if.positions[0].margin_mode = types_pb2.MARGIN_MODE_UNSPECIFIED
    assert list(market.margins.SimulatePortfolio(what_if).positions) == positions(market)
    instrument.isolated_only = False
    request = pb.UpsertInstrumentRequest(instrument=instrument)
    failure = market.fail(market.instruments.UpsertInstrument, request)
    assert failure.message == "instrument ONLY: isolated_only is true and cannot change to false"


def test_credit_backs_orders_and_cannot_be_withdrawn(market: Rig) -> None:
    def line(**fields: Any) -> accounts_pb.SetCreditLineResponse:
        return market.accounts.SetCreditLine(accounts_pb.SetCreditLineRequest(**fields))

    load(market, "4", "240000")
    assert summary(market).available == "-2000"
    assert line(account_id=7, amount="5000", validate_only=True).amount == "5000"
    assert summary(market).credit_line == ""
    reply = line(account_id=7, amount="5000")
    assert (reply.amount, reply.used) == ("5000", "2000")
    found = summary(market)
    assert (found.credit_line, found.credit_used, found.available) == ("5000", "2000", "3000")
    assert found.cross_equity == "15000"
    assert last_change(market)[1]["credit_line"] == ("0", "5000")
    same = market.margins.SimulatePortfolio(margins_pb.SimulatePortfolioRequest(account_id=7))
    assert same.summary == found
    failure = market.fail(
        market.accounts.AdjustCollateral,
        accounts_pb.AdjustCollateralRequest(account_id=7, asset="USDT", amount="-1"),
    )
    assert failure.reason == "EXCEEDS_AVAILABLE"
    for request, text in (
        ({"amount": "1"}, "owner is not set: must be account_id or firm_id"),
        ({"account_id": 7, "amount": "-1"}, "amount is '-1': must be 0 to"),
        ({"account_id": 8, "amount": "1"}, "account_id 8 is unknown"),
        ({"firm_id": 8, "amount": "1"}, "firm_id 8 is unknown"),
    ):
        message = accounts_pb.SetCreditLineRequest(**request)
        assert market.fail(market.accounts.SetCreditLine, message).message.startswith(text)


def test_a_line_alone_carries_a_position_like_as_much_money(market: Rig) -> None:
    rows = []
    for account_id, money in ((8, "5000"), (9, "0")):
        market.accounts.CreateAccount(
            accounts_pb.CreateAccountRequest(
                account_id=account_id,
                settlement_asset="USDT",
                default_margin_mode=types_pb2.MARGIN_MODE_CROSS,
                default_leverage="20",
                initial_collateral=money,
            )
        )
        if money == "0":
            line = accounts_pb.SetCreditLineRequest(account_id=account_id, amount="5000")
            market.accounts.SetCreditLine(line)
        order = new_order(account_id, account_id=account_id, quantity_lots=1000)
        reply = market.trade(order)
        assert reply.reason == types_pb2.REASON_CODE_NONE
        (row,) = positions(market, account_id)
        used = summary(market, account_id)
        rows.append(
            (
                reply.liquidation_price_ticks,
                row.liquidation_price,
                row.bankruptcy_price,
                used.available,
                used.cross_equity,
            )
        )
    assert rows[0] == rows[1]
    # All that the position needs.
    assert (used.credit_used, used.cash) == ("3000", "0")
    failure = market.fail(
        market.accounts.AdjustCollateral,
        accounts_pb.AdjustCollateralRequest(account_id=9, asset="USDT", amount="-1"),
    )
    assert failure.reason == "EXCEEDS_AVAILABLE"


def test_a_firms_line_bounds_those_of_its_accounts_in_a_what_if_too(market: Rig) -> None:
    market.accounts.CreateFirm(accounts_pb.CreateFirmRequest(firm_id=1, settlement_asset="USDT"))
    market.accounts.SetAccountOwner(accounts_pb.SetAccountOwnerRequest(account_id=7, firm_id=1))
    for owner in ({"account_id": 7, "amount": "5000"}, {"firm_id": 1, "amount": "2500"}):
        market.accounts.SetCreditLine(accounts_pb.SetCreditLineRequest(**owner))  # type: ignore[arg-type]
    load(market, "4", "240000")
    found = summary(market)
    assert (found.credit_line, found.available) == ("5000", "500")
    same = market.margins.SimulatePortfolio(margins_pb.SimulatePortfolioRequest(account_id=7))
    assert same.summary == found


# --- collateral -------------------------------------------------------------------------------


@pytest.fixture
def bnb(market: Rig) -> Rig:
    """BNB counts as collateral in USDT by BNB-PERP at 500: 0.9 up to 10, 0.5 above; cap 20."""
    market.instruments.CreateAsset(pb.CreateAssetRequest(symbol="BNB", scale=8))
    index = btc_instrument()
    index.symbol = "BNB-PERP"
    upsert(market, index)
    market.mark(2, 10_000)
    market.instruments.DefineCollateral(pb.DefineCollateralRequest(collateral=terms()))
    return market


def terms(**fields: Any) -> pb.Collateral:
    values: dict[str, Any] = {
        "asset": "BNB",
        "settlement_asset": "USDT",
        "index_instrument_id": 2,
        "tiers": [
            pb.CollateralTier(floor="0", weight="0.9"),
            pb.CollateralTier(floor="10", weight="0.5"),
        ],
        "cap": "20",
        "liability_weight": "1.1",
        "interest_free": "1",
        "forced_conversion": "2",
        "wrong_way_rate": "0.4",
    }
    return pb.Collateral(**(values | fields))


def test_collateral_reads_as_it_was_written_and_counts(bnb: Rig) -> None:
    listed = bnb.instruments.ListCollateral(pb.ListCollateralRequest()).collateral
    assert list(listed) == [terms()]
    method, changes = last_change(bnb)
    assert (method, changes["liability_weight"]) == ("DefineCollateral", ("", "1.1"))
    bnb.accounts.AdjustCollateral(
        accounts_pb.AdjustCollateralRequest(account_id=7, asset="BNB", amount="30")
    )
    found = summary(bnb)
    # 10 * 0.9 * 500 + 10 * 0.5 * 500, 10 above the cap
    assert (found.collateral_value, found.cross_equity, found.available) == (
        "7000",
        "17000",
        "17000",
    )
    (balance,) = found.collateral
    assert (balance.asset, balance.balance, balance.value) == ("BNB", "30", "7000")
    assert not balance.bears_interest
    same = bnb.margins.SimulatePortfolio(margins_pb.SimulatePortfolioRequest(account_id=7))
    assert same.summary == found
    debt = bnb.margins.SimulatePortfolio(
        margins_pb.SimulatePortfolioRequest(
            account_id=7,
            balances=[margins_pb.SimulatedBalance(asset="BNB", amount="-1.5")],
        )
    ).summary
    # 1.5 * 500 * 1.1
    assert debt.collateral_value == "-825"
    assert (debt.collateral[0].bears_interest, debt.collateral[0].to_be_converted) == (True, False)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"asset": "X"}, "collateral.asset 'X' is unknown"),
        ({"settlement_asset": "X"}, "collateral.settlement_asset 'X' is unknown"),
        ({"asset": "USDT"}, "collateral.asset is 'USDT': must be another than the settlement"),
        ({"index_instrument_id": 9}, "instrument_id 9 is unknown"),
        ({"tiers": []}, "collateral.tiers is '0 tiers': must be 1 to 8 tiers"),
        (
            {"tiers": [pb.CollateralTier(floor="1", weight="1")]},
            "collateral.tiers[0].floor is '1': must be 0 in the first tier",
        ),
        (
            {"tiers": [pb.CollateralTier(weight="1.1")]},
            "collateral.tiers[0].weight is '1.1': must be 0 to 1",
        ),
        (
            {
                "tiers": [
                    pb.CollateralTier(weight="0.5"),
                    pb.CollateralTier(floor="1", weight="0.6"),
                ]
            },
            "collateral.tiers[1].weight is '0.6': must be at most 0.5 of the tier below",
        ),
        (
            {
                "tiers": [
                    pb.CollateralTier(weight="0.5"),
                    pb.CollateralTier(floor="0", weight="0.5"),
                ]
            },
            "collateral.tiers[1].floor is '0': must be above",
        ),
        ({"cap": "0"}, "collateral.cap is '0': must be 0.00000001 to"),
        ({"wrong_way_rate": "1.1"}, "collateral.wrong_way_rate is '1.1': must be 0 to 1"),
        ({"liability_weight": "0.9"}, "collateral.liability_weight is '0.9': must be 1 to 10"),
        (
            {"interest_free": "3"},
            "collateral.forced_conversion is '2': must be at least interest_free 3, or 0",
        ),
    ],
)
def test_collateral_out_of_bounds_is_refused_by_field(
    bnb: Rig, fields: dict[str, Any], text: str
) -> None:
    request = pb.DefineCollateralRequest(collateral=terms(**fields))
    failure = bnb.fail(bnb.instruments.DefineCollateral, request)
    assert failure.message.startswith(text)


@pytest.mark.parametrize(
    ("quantity", "rate", "value"),
    [
        ("4", "0.4", "6200"),  # 4 * 500 are exposed.
        ("4", "1", "5000"),
        ("20", "0.4", "4200"),  # 10000 are exposed, 7000 have value.
        ("20", "1", "0"),
        ("20", "", "7000"),
        ("-20", "1", "7000"),
    ],
)
def test_collateral_that_falls_with_the_positions_counts_less(
    bnb: Rig, quantity: str, rate: str, value: str
) -> None:
    about = btc_instrument()
    about.symbol, about.base_asset = "BNB-FALL", "BNB"
    assert upsert(bnb, about).base_asset == "BNB"
    bnb.mark(3, 10_000)
    bnb.instruments.DefineCollateral(
        pb.DefineCollateralRequest(collateral=terms(wrong_way_rate=rate))
    )
    bnb.accounts.AdjustCollateral(
        accounts_pb.AdjustCollateralRequest(account_id=7, asset="BNB", amount="30")
    )
    load(bnb, quantity, str(abs(int(quantity)) * 500), instrument_id=3)
    found = summary(bnb)
    assert (found.collateral_value, found.collateral[0].value) == (value, value)
    assert Decimal(found.cross_equity) == 10_000 + Decimal(value)
    same = bnb.margins.SimulatePortfolio(margins_pb.SimulatePortfolioRequest(account_id=7))
    assert same.summary == found


def test_collateral_that_margin_needs_cannot_be_withdrawn(bnb: Rig) -> None:
    change = accounts_pb.AdjustCollateralRequest(account_id=7, asset="BNB", amount="30")
    bnb.accounts.AdjustCollateral(change)
    bnb.accounts.AdjustCollateral(
        accounts_pb.AdjustCollateralRequest(account_id=7, asset="USDT", amount="-10000")
    )
    load(bnb, "2", "1000", instrument_id=2)
    change.amount = "-29.9"
    failure = bnb.fail(bnb.accounts.AdjustCollateral, change)
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "EXCEEDS_AVAILABLE",
    )
    assert failure.message == (
        "amount 29.9 of balance 30 (BNB) is collateral that the account's margin needs"
    )
    change.amount = "-30.1"
    assert bnb.fail(bnb.accounts.AdjustCollateral, change).message == (
        "amount 30.1 exceeds balance 30 (BNB)"
    )


def test_the_base_asset_of_a_contract_stays_and_options_have_none(bnb: Rig) -> None:
    about = btc_instrument()
    about.symbol, about.base_asset = "BNB-FALL", "X"
    failure = bnb.fail(
        bnb.instruments.UpsertInstrument, pb.UpsertInstrumentRequest(instrument=about)
    )
    assert failure.message.startswith("instrument.base_asset 'X' is unknown")
    about.base_asset = "BNB"
    assert upsert(bnb, about).base_asset == "BNB"
    about.base_asset = ""
    failure = bnb.fail(
        bnb.instruments.UpsertInstrument, pb.UpsertInstrumentRequest(instrument=about)
    )
    assert failure.message == "instrument BNB-FALL: base_asset is BNB and cannot change to none"
    failure = bnb.fail(
        bnb.instruments.UpsertInstrument,
        pb.UpsertInstrumentRequest(instrument=option(option_rule="", base_asset="BNB")),
    )
    assert failure.message == (
        "instrument.base_asset is 'BNB': must be not set for a LINEAR_OPTION"
    )


def test_collateral_is_of_a_linear_contract_in_the_settlement_asset(bnb: Rig) -> None:
    instrument = coin_market(bnb)
    request = pb.DefineCollateralRequest(
        collateral=terms(index_instrument_id=instrument.instrument_id)
    )
    failure = bnb.fail(bnb.instruments.DefineCollateral, request)
    assert failure.message == (
        "collateral.index_instrument_id is 'BTC-INV': must be a linear contract or SPOT in USDT"
    )


# --- funding and settlement -------------------------------------------------------------------


@pytest.fixture
def pair(market: Rig) -> Rig:
    """Account 7 is long 1 at 60000, account 8 short 1."""
    market.accounts.CreateAccount(
        accounts_pb.CreateAccountRequest(
            account_id=8, settlement_asset="USDT", initial_collateral="10000"
        )
    )
    load(market, "1", "60000")
    load(market, "-1", "60000", account_id=8)
    return market


def fund(rig: Rig, **fields: Any) -> pb.ApplyFundingResponse:
    values: dict[str, Any] = {"instrument_id": 1, "rate": "0.0001", "time_ns": rig.clock()}
    return rig.instruments.ApplyFunding(pb.ApplyFundingRequest(**(values | fields)))


def test_funding_goes_from_longs_to_shorts_once(pair: Rig) -> None:
    shown = fund(pair, validate_only=True)
    assert (shown.position_count, shown.paid, shown.received) == (2, "6", "6")
    assert summary(pair).cash == "10000"
    assert fund(pair, price="50000").paid == "5"
    assert (summary(pair).cash, summary(pair, 8).cash) == ("9995", "10005")
    assert last_change(pair) == (
        "ApplyFunding",
        {
            "funding_time_ns": ("", str(NOW_NS)),
            "positions": ("", "2"),
            "paid": ("", "5"),
            "received": ("", "5"),
        },
    )
    with pytest.raises(grpc.RpcError):
        fund(pair)
    failure = pair.fail(lambda: fund(pair))
    assert (failure.code, failure.reason) == (FAILED, "FUNDING_OUT_OF_ORDER")
    assert failure.message == (
        f"time_ns is {NOW_NS}: must be above {NOW_NS}, at most a second from now"
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"instrument_id": 9}, "instrument_id 9 is unknown"),
        ({"rate": ""}, "rate is '': must be a decimal number"),
        ({"rate": "1.1"}, "rate is '1.1': must be -1 to 1"),
        ({"price": "0.01"}, "price is '0.01': must be a multiple of 0.05"),
        ({"time_ns": 0}, "time_ns is 0: must be above 0, at most a second from now"),
        ({"time_ns": 2**63}, "time_ns is '9223372036854775808': must be 1 to 2^63 - 1"),
    ],
)
def test_funding_out_of_bounds_is_refused_by_field(
    pair: Rig, fields: dict[str, Any], text: str
) -> None:
    before = pair.engine.state_hash()
    failure = pair.fail(lambda: fund(pair, **fields))
    assert failure.message.startswith(text)
    assert pair.engine.state_hash() == before


def test_a_settlement_closes_every_position_for_good(pair: Rig, clock: Clock) -> None:
    def settle(price: str = "59000", **fields: Any) -> pb.SettleInstrumentResponse:
        return pair.instruments.SettleInstrument(
            pb.SettleInstrumentRequest(instrument_id=1, price=price, **fields)
        )

    failure = pair.fail(settle)
    assert (failure.code, failure.reason) == (FAILED, "INSTRUMENT_NOT_EXPIRED")
    assert failure.message == (
        "BTC-PERP never expires and is not HALTED: halt it, or settle it after expiry"
    )
    instrument = btc_instrument()
    instrument.trading_state = types_pb2.TRADING_STATE_HALTED
    upsert(pair, instrument)
    shown = settle(validate_only=True)
    reply = settle()
    assert (reply.position_count, reply.profit, reply.loss) == (2, "1000", "1000")
    assert (shown.profit, shown.loss, shown.deficit) == (reply.profit, reply.loss, "0")
    assert (summary(pair).cash, summary(pair, 8).cash) == ("9000", "11000")
    assert not positions(pair)
    row = pair.instruments.ListInstruments(pb.ListInstrumentsRequest()).instruments[0]
    assert row.settlement_price == "59000"
    assert last_change(pair)[1]["settlement_price"] == ("", "59000")
    failure = pair.fail(settle)
    assert failure.message == "BTC-PERP is settled, at 59000"
    failure = pair.fail(lambda: fund(pair))
    assert failure.reason == "INSTRUMENT_SETTLED"
    failure = pair.fail(lambda: load(pair, "1", "60000"))
    assert failure.message == "BTC-PERP is settled: it has no positions any more"
    failure = pair.fail(
        pair.margins.SimulatePortfolio,
        margins_pb.SimulatePortfolioRequest(
            account_id=7,
            positions=[
                margins_pb.SimulatedPosition(instrument_id=1, quantity="1", entry_price="1")
            ],
        ),
    )
    assert failure.message == "positions[0].quantity is '1': must be 0: BTC-PERP is settled"
    failure = pair.fail(lambda: settle("0"))
    assert failure.message.startswith("price is '0': must be 0.05 to")


# --- short options ----------------------------------------------------------------------------


def rule(**fields: Any) -> pb.OptionRule:
    values: dict[str, Any] = {
        "name": "SHORT",
        "settlement_asset": "USDT",
        "initial_rate": "0.15",
        "initial_rate_min": "0.1",
        "maintenance_rate": "0.075",
        "put_maintenance_on_mark": True,
    }
    return pb.OptionRule(**(values | fields))


def option(**fields: Any) -> pb.Instrument:
    """A call on BTC-PERP, with its mark units of 0.05."""
    values: dict[str, Any] = {
        "symbol": "BTC-C",
        "kind": pb.INSTRUMENT_KIND_LINEAR_OPTION,
        "settlement_asset": "USDT",
        "tick_size": "0.5",
        "lot_size": "0.01",
        "mark_units_per_tick": 10,
        "expiry_time_ns": NOW_NS + YEAR_NS,
        "strike": "65000",
        "option_type": pb.OPTION_TYPE_CALL,
        "underlying_instrument_id": 1,
        "option_rule": "SHORT",
    }
    return pb.Instrument(**(values | fields))


@pytest.fixture
def shorts(market: Rig) -> Rig:
    """Instrument 2 is a call that may be short, marked at 2000."""
    market.instruments.UpsertOptionRule(pb.UpsertOptionRuleRequest(rule=rule()))
    upsert(market, option())
    market.mark(2, 40_000)
    return market


def test_an_option_rule_reads_as_it_was_written_and_is_no_schedule(market: Rig) -> None:
    read = market.instruments.UpsertOptionRule(pb.UpsertOptionRuleRequest(rule=rule())).rule
    assert read == rule(option_rule_id=2, version=1)
    assert last_change(market)[1]["initial_rate_min"] == ("", "0.1")
    assert list(market.instruments.ListOptionRules(pb.ListOptionRulesRequest()).rules) == [read]
    schedules = market.instruments.ListMarginSchedules(pb.ListMarginSchedulesRequest()).schedules
    assert [row.name for row in schedules] == ["BTC"]
    assert upsert(market, option()).option_rule == "SHORT"
    failure = market.fail(
        market.instruments.UpsertMarginSchedule,
        pb.UpsertMarginScheduleRequest(schedule=family_schedule("SIZE_LINEAR", name="SHORT")),
    )
    assert failure.reason == "FIELD_IMMUTABLE"
    failure = market.fail(
        market.instruments.UpsertOptionRule, pb.UpsertOptionRuleRequest(rule=rule(name="BTC"))
    )
    assert failure.reason == "FIELD_IMMUTABLE"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "a b"}, "rule.name is 'a b': must be 1 to 31 of"),
        ({"settlement_asset": "X"}, "rule.settlement_asset 'X' is unknown"),
        ({"initial_rate": "1.1"}, "rule.initial_rate is '1.1': must be 0 to 1"),
        ({"initial_rate_min": "0.2"}, "rule.initial_rate_min is '0.2': must be 0 to 0.15"),
        ({"maintenance_rate": "-1"}, "rule.maintenance_rate is '-1': must be 0 to 1"),
        (
            {"call_maintenance_on_mark": True, "put_maintenance_on_mark": False},
            "rule.call_maintenance_on_mark is 'true': must be false without that of puts",
        ),
        (
            {"put_initial_over_maintenance": "0.9"},
            "rule.put_initial_over_maintenance is '0.9': must be 1 to 10",
        ),
        ({"order_initial_rate_min": "1.1"}, "rule.order_initial_rate_min is '1.1': must be 0 to"),
    ],
)
def test_an_option_rule_out_of_bounds_is_refused_by_field(
    market: Rig, fields: dict[str, Any], text: str
) -> None:
    request = pb.UpsertOptionRuleRequest(rule=rule(**fields))
    failure = market.fail(market.instruments.UpsertOptionRule, request)
    assert failure.message.startswith(text)


def test_what_venues_add_to_an_option_rule_reads_as_it_was_written(shorts: Rig) -> None:
    written = rule(
        call_maintenance_on_mark=True,
        put_initial_over_maintenance="1.05",
        order_initial_rate_min="0.01",
    )
    reply = shorts.instruments.UpsertOptionRule(pb.UpsertOptionRuleRequest(rule=written))
    assert reply.rule == rule(
        call_maintenance_on_mark=True,
        put_initial_over_maintenance="1.05",
        order_initial_rate_min="0.01",
        option_rule_id=2,
        version=2,
    )
    assert last_change(shorts)[1] == {
        "call_maintenance_on_mark": ("", "true"),
        "put_initial_over_maintenance": ("", "1.05"),
        "order_initial_rate_min": ("", "0.01"),
        "version": ("1", "2"),
    }


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"isolated_only": True}, "instrument.isolated_only is 'true': must be false for a LIN"),
        ({"option_rule": "BTC"}, "instrument.option_rule 'BTC' is unknown: the option rules are"),
        ({"underlying_instrument_id": 0}, "instrument.underlying_instrument_id is '0': must be"),
        (
            {"mark_units_per_tick": 1},
            "instrument.tick_size is '0.5': must be such that tick_size / mark_units_per_tick is "
            "that of BTC-PERP",
        ),
        (
            {"kind": pb.INSTRUMENT_KIND_INVERSE_OPTION, "underlying_instrument_id": 0},
            "instrument.underlying_instrument_id is '0': must be the instrument whose mark counts",
        ),
        ({"margin_schedule": "BTC"}, "instrument.margin_schedule is 'BTC': must be empty"),
    ],
)
def test_an_option_that_cannot_be_short_is_refused_by_field(
    shorts: Rig, fields: dict[str, Any], text: str
) -> None:
    request = pb.UpsertInstrumentRequest(instrument=option(symbol="NEW", **fields))
    failure = shorts.fail(shorts.instruments.UpsertInstrument, request)
    assert failure.message.startswith(text)


def test_a_short_option_requires_by_its_rule_also_in_a_what_if(shorts: Rig) -> None:
    request = margins_pb.SimulatePortfolioRequest(
        account_id=7,
        orders=[
            margins_pb.SimulatedOrder(
                instrument_id=2, side=types_pb2.SIDE_SELL, price="2000", quantity="0.5"
            )
        ],
    )
    simulated = shorts.margins.SimulatePortfolio(request)
    # 0.15 * 60000 - 5000 is below 0.1 * 60000: (6000 + 2000) * 0.5
    assert simulated.decisions[0].reserved == "4000"
    load(shorts, "-0.5", "1000", instrument_id=2)
    (row,) = positions(shorts)
    assert (row.quantity, row.initial_margin) == ("-0.5", "4000")
    # (0.075 * 60000 + 2000) * 0.5
    assert row.maintenance_margin == "3250"
    assert row.liquidation_status == types_pb2.LIQUIDATION_STATUS_UNSPECIFIED
    found = summary(shorts)
    assert (found.available, found.maintenance_level) == ("6000", "3250")
    same = shorts.margins.SimulatePortfolio(margins_pb.SimulatePortfolioRequest(account_id=7))
    assert (same.summary, list(same.positions)) == (found, [row])


def test_a_short_option_without_a_rule_is_refused_in_a_what_if(market: Rig) -> None:
    upsert(market, option(option_rule=""))
    failure = market.fail(
        market.margins.SimulatePortfolio,
        margins_pb.SimulatePortfolioRequest(
            account_id=7,
            positions=[
                margins_pb.SimulatedPosition(instrument_id=2, quantity="-1", entry_price="2000")
            ],
        ),
    )
    assert (failure.code, failure.reason) == (FAILED, "SHORT_OPTION_NOT_PERMITTED")
    assert failure.message.startswith("positions[0].quantity is '-1': BTC-C has no option_rule")
    failure = market.fail(lambda: load(market, "-1", "2000", instrument_id=2))
    assert failure.message == "BTC-C has no option_rule: it may not be short"
    for fields, text in (
        ({"margin_mode": ISOLATED}, "positions[0].margin_mode is '2': must be not set for an opt"),
        ({"leverage": "2"}, "positions[0].leverage is '2': must be not set for an option"),
    ):
        position = margins_pb.SimulatedPosition(
            instrument_id=2,
            quantity="1",
            entry_price="2000",
            **fields,
        )
        failure = market.fail(
            market.margins.SimulatePortfolio,
            margins_pb.SimulatePortfolioRequest(account_id=7, positions=[position]),
        )
        assert failure.message.startswith(text)


def test_an_option_in_coin_has_its_strike_in_its_underlyings_price(market: Rig) -> None:
    underlying = coin_market(market).instrument_id
    market.instruments.UpsertOptionRule(
        pb.UpsertOptionRuleRequest(rule=rule(name="COIN-SHORT", settlement_asset="BTC"))
    )
    coin = option(
        symbol="BTC-P",
        kind=pb.INSTRUMENT_KIND_INVERSE_OPTION,
        settlement_asset="BTC",
        tick_size="0.0005",
        lot_size="0.1",
        mark_units_per_tick=1000,
        strike="52000.05",
        option_type=pb.OPTION_TYPE_PUT,
        underlying_instrument_id=underlying,
        option_rule="COIN-SHORT",
    )
    read = upsert(market, coin)
    assert read.strike == "52000.05"
    assert read.multiplier == "1"
    # 0.04 coin
    market.mark(read.instrument_id, 80_000)
    load(market, "-1", "0.05", account_id=9, instrument_id=read.instrument_id)
    (row,) = positions(market, 9)
    # in the money: 0.15 + 0.04; maintenance max(0.075, 0.075 * 0.04) + 0.04
    assert (row.initial_margin, row.maintenance_margin) == ("0.19", "0.115")
    shown = market.margins.SimulatePortfolio(
        margins_pb.SimulatePortfolioRequest(
            account_id=9,
            marks=[
                margins_pb.SimulatedMark(
                    instrument_id=read.instrument_id, mark_price="0.05", forward="50000.05"
                )
            ],
        )
    )
    assert shown.positions[0].initial_margin == "0.2"


# --- spot -------------------------------------------------------------------------------------


def spot_pair(**fields: Any) -> pb.Instrument:
    values: dict[str, Any] = {
        "symbol": "BTC-USDT",
        "kind": pb.INSTRUMENT_KIND_SPOT,
        "settlement_asset": "USDT",
        "base_asset": "BTC",
        "tick_size": "0.5",
        "lot_size": "0.001",
        "mark_units_per_tick": 1,
    }
    return pb.Instrument(**(values | fields))


@pytest.fixture
def spot(market: Rig) -> Rig:
    """BTC-USDT is instrument 2, at 60000; account 7 has 10000 USDT and no BTC."""
    market.instruments.CreateAsset(pb.CreateAssetRequest(symbol="BTC", scale=8))
    assert upsert(market, spot_pair()).instrument_id == 2
    market.mark(2, 120_000)
    return market


def trade(rig: Rig, number: int, side: types_pb2.Side.ValueType, lots: int) -> orders_pb.Violation:
    """Order on the pair at 60000 and fill it; return what stopped it, if anything did."""
    reply = rig.orders.CheckOrder(
        new_order(
            number,
            instrument_id=2,
            side=side,
            quantity_lots=lots,
            view=orders_pb.DECISION_VIEW_FULL,
        )
    )
    if reply.decision != types_pb2.DECISION_ACCEPTED:
        return reply.detail.violations[0]
    rig.orders.ReportExecution(
        orders_pb.ReportExecutionRequest(
            reservation_id=reply.reservation_id,
            instrument_id=2,
            execution_id=number,
            gateway_id=3,
            kind=orders_pb.EXECUTION_KIND_FILL,
            quantity_lots=lots,
            price_ticks=120_000,
        )
    )
    return orders_pb.Violation()


def test_a_spot_pair_exchanges_two_balances(spot: Rig) -> None:
    listed = spot.instruments.ListInstruments(pb.ListInstrumentsRequest()).instruments[1]
    assert (listed.base_asset, listed.margin_schedule) == ("BTC", "")
    method, changes = last_change(spot)
    assert (method, changes["base_asset"]) == ("UpsertInstrument", ("", "BTC"))
    lacks = trade(spot, 1, types_pb2.SIDE_SELL, 1)
    # 0.001 BTC at a scale of 8
    assert lacks.reason == types_pb2.REASON_CODE_BALANCE_INSUFFICIENT
    assert (lacks.limit, lacks.use, lacks.order_use) == (0, 0, 100_000)
    assert not trade(spot, 2, types_pb2.SIDE_BUY, 100).reason
    found = spot.accounts.GetAccount(accounts_pb.GetAccountRequest(account_id=7)).account
    assert (found.cash, [(row.asset, row.amount) for row in found.balances]) == (
        "4000",
        [("BTC", "0.1")],
    )
    assert all(row.quantity == "0" for row in positions(spot))
    copied = spot.margins.SimulatePortfolio(
        margins_pb.SimulatePortfolioRequest(
            account_id=7,
            orders=[
                margins_pb.SimulatedOrder(
                    instrument_id=2, side=types_pb2.SIDE_SELL, quantity="0.1", price="60000"
                ),
                margins_pb.SimulatedOrder(
                    instrument_id=2, side=types_pb2.SIDE_SELL, quantity="0.001", price="60000"
                ),
            ],
        )
    )
    assert [row.reason for row in copied.decisions] == [
        types_pb2.REASON_CODE_NONE,
        types_pb2.REASON_CODE_BALANCE_INSUFFICIENT,
    ]
    assert not trade(spot, 3, types_pb2.SIDE_SELL, 100).reason
    found = spot.accounts.GetAccount(accounts_pb.GetAccountRequest(account_id=7)).account
    assert (found.cash, list(found.balances)) == ("10000", [])


def test_a_spot_pair_has_no_position(spot: Rig) -> None:
    requests = (
        (
            spot.accounts.LoadPosition,
            accounts_pb.LoadPositionRequest(
                account_id=7, instrument_id=2, quantity="1", entry_value="60000"
            ),
            "instrument_id is 'BTC-USDT': must be no SPOT pair: it has no position",
        ),
        (
            spot.accounts.ChangeMarginMode,
            accounts_pb.ChangeMarginModeRequest(
                account_id=7, instrument_id=2, margin_mode=ISOLATED
            ),
            "BTC-USDT is a SPOT pair: it has no margin mode",
        ),
        (
            spot.instruments.ApplyFunding,
            pb.ApplyFundingRequest(instrument_id=2, rate="0.01", time_ns=NOW_NS),
            "instrument_id is '2': must be a perpetual, it is SPOT",
        ),
        (
            spot.instruments.SettleInstrument,
            pb.SettleInstrumentRequest(instrument_id=2, price="60000"),
            "instrument_id is 'BTC-USDT': must be a contract or an option, it is a SPOT pair",
        ),
        (
            spot.margins.SimulatePortfolio,
            margins_pb.SimulatePortfolioRequest(
                account_id=7,
                positions=[margins_pb.SimulatedPosition(instrument_id=2, quantity="1")],
            ),
            "positions[0].instrument_id is 'BTC-USDT': must be no SPOT pair: it has no position",
        ),
    )
    for method, request, text in requests:
        assert spot.fail(method, request).message == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"base_asset": ""}, "instrument.base_asset '' is unknown"),
        ({"base_asset": "USDT"}, "instrument.base_asset is 'USDT': must be another than settle"),
        ({"multiplier": "2"}, "instrument.multiplier is '2': must be empty or 1 for a SPOT"),
        ({"margin_schedule": "BTC"}, "instrument.margin_schedule is 'BTC': must be not set for a"),
        ({"expiry_time_ns": 5}, "instrument.expiry_time_ns is '5': must be not set for a SPOT"),
        ({"strike": "5"}, "instrument.strike is '5': must be not set for a SPOT"),
        ({"isolated_only": True}, "instrument.isolated_only is 'true': must be false for a SPOT"),
        (
            {"lot_size": "0.000000001", "tick_size": "1000"},
            "instrument.lot_size is '0.000000001': must be 1 to 2^40 whole minor units of "
            "0.00000001 BTC",
        ),
    ],
)
def test_a_spot_pair_out_of_bounds_is_refused_by_field(
    spot: Rig, fields: dict[str, Any], text: str
) -> None:
    request = pb.UpsertInstrumentRequest(instrument=spot_pair(symbol="NEW", **fields))
    failure = spot.fail(spot.instruments.UpsertInstrument, request)
    assert failure.message.startswith(text)


def test_a_spot_pair_keeps_its_base_asset(spot: Rig) -> None:
    spot.instruments.CreateAsset(pb.CreateAssetRequest(symbol="ETH", scale=8))
    request = pb.UpsertInstrumentRequest(instrument=spot_pair(base_asset="ETH"))
    failure = spot.fail(spot.instruments.UpsertInstrument, request)
    assert failure.reason == "FIELD_IMMUTABLE"
    assert failure.message == "instrument BTC-USDT: base_asset is BTC and cannot change to ETH"
