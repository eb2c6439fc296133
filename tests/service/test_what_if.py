"""SimulatePortfolio: the service's own figures, on a portfolio that need not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from riskd.v1 import account_service_pb2 as accounts_pb
from riskd.v1 import instrument_service_pb2 as instruments_pb
from riskd.v1 import margin_service_pb2 as pb
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2
from tests.service.conftest import NOW_NS, btc_instrument, btc_schedule, new_order

if TYPE_CHECKING:
    from tests.service.conftest import Clock, Rig

BUY, SELL = types_pb2.SIDE_BUY, types_pb2.SIDE_SELL
CROSS, ISOLATED = types_pb2.MARGIN_MODE_CROSS, types_pb2.MARGIN_MODE_ISOLATED
LONG, SHORT = types_pb2.POSITION_SIDE_LONG, types_pb2.POSITION_SIDE_SHORT
HEDGE = types_pb2.POSITION_MODE_HEDGE


def what_if(rig: Rig, **fields: Any) -> pb.SimulatePortfolioResponse:
    return rig.margins.SimulatePortfolio(pb.SimulatePortfolioRequest(**fields))


def refused(rig: Rig, **fields: Any) -> Any:
    return rig.fail(rig.margins.SimulatePortfolio, pb.SimulatePortfolioRequest(**fields))


def state(rig: Rig, account_id: int) -> tuple[pb.MarginSummary, list[pb.PositionMargin]]:
    """Return what the service says of an account that is there."""
    summary = rig.margins.GetMarginSummary(pb.GetMarginSummaryRequest(account_id=account_id))
    positions = rig.margins.ListPositionMargins(
        pb.ListPositionMarginsRequest(account_id=account_id)
    )
    return summary.summary, list(positions.positions)


def check(account_id: int, number: int, **fields: Any) -> orders_pb.CheckOrderRequest:
    return new_order(number, account_id=account_id, **({"quantity_lots": 100} | fields))


@pytest.fixture
def book(market: Rig) -> Rig:
    """Account 7 has a cross and an isolated position, working orders and another asset."""
    market.instruments.CreateAsset(instruments_pb.CreateAssetRequest(symbol="BNB", scale=8))
    second = btc_instrument()
    second.symbol = "ETH-PERP"
    market.instruments.UpsertInstrument(instruments_pb.UpsertInstrumentRequest(instrument=second))
    market.marks.ReportMarks(
        marks_pb.ReportMarksRequest(
            marks=[marks_pb.Mark(instrument_id=2, mark_price=60_000, time_ns=NOW_NS)]
        )
    )
    market.accounts.ChangeMarginMode(
        accounts_pb.ChangeMarginModeRequest(account_id=7, instrument_id=2, margin_mode=ISOLATED)
    )
    market.accounts.SetLeverage(
        accounts_pb.SetLeverageRequest(account_id=7, instrument_id=2, leverage="10")
    )
    market.accounts.AdjustCollateral(
        accounts_pb.AdjustCollateralRequest(account_id=7, asset="BNB", amount="3")
    )
    market.trade(check(7, 1))
    market.trade(check(7, 2, instrument_id=2, side=SELL, price_ticks=6000, quantity_lots=700))
    for number, side, price in ((3, BUY, 119_000), (4, SELL, 121_000), (5, BUY, 119_500)):
        reply = market.orders.CheckOrder(check(7, number, side=side, price_ticks=price))
        assert reply.decision == types_pb2.DECISION_ACCEPTED
    return market


def test_an_account_with_nothing_changed_is_what_the_service_says_of_it(book: Rig) -> None:
    reply = what_if(book, account_id=7)
    summary, positions = state(book, 7)
    assert len(positions) == 2
    assert summary.working_order_count == 3
    assert reply.summary == summary
    assert list(reply.positions) == positions
    assert reply.revision == book.engine.revision


def test_an_account_written_out_is_the_account(book: Rig) -> None:
    summary, positions = state(book, 7)
    orders = [
        pb.SimulatedOrder(instrument_id=1, side=side, price=price, quantity="0.1")
        for side, price in ((BUY, "59500"), (SELL, "60500"), (BUY, "59750"))
    ]
    reply = what_if(
        book,
        settlement_asset="USDT",
        balances=[
            pb.SimulatedBalance(asset="USDT", amount=summary.cash),
            pb.SimulatedBalance(asset="BNB", amount="3"),
        ],
        positions=[
            pb.SimulatedPosition(
                instrument_id=row.instrument_id,
                quantity=row.quantity,
                entry_price=row.entry_price,
                margin_mode=row.margin_mode,
                leverage=row.leverage,
                isolated_wallet=row.isolated_wallet,
            )
            for row in positions
        ],
        orders=orders,
    )
    assert [each.decision for each in reply.decisions] == [types_pb2.DECISION_ACCEPTED] * 3
    summary.account_id = 0
    for row in positions:
        row.account_id = 0
    assert reply.summary == summary
    assert list(reply.positions) == positions


def test_an_order_reserves_what_check_order_reserves(book: Rig) -> None:
    order = pb.SimulatedOrder(instrument_id=1, side=BUY, price="60500", quantity="0.5")
    market_order = pb.SimulatedOrder(
        instrument_id=2, side=SELL, quantity="0.2", order_type=types_pb2.ORDER_TYPE_MARKET
    )
    reply = what_if(book, account_id=7, orders=[order, market_order])
    first = book.orders.CheckOrder(check(7, 10, price_ticks=121_000, quantity_lots=500))
    second = book.orders.CheckOrder(
        check(
            7,
            11,
            instrument_id=2,
            side=SELL,
            quantity_lots=200,
            price_ticks=0,
            order_type=types_pb2.ORDER_TYPE_MARKET,
        )
    )
    assert [each.reason for each in reply.decisions] == [first.reason, second.reason]
    assert [float(each.reserved) * 1e6 for each in reply.decisions] == [
        first.reserved_minor,
        second.reserved_minor,
    ]
    assert (reply.summary, list(reply.positions)) == state(book, 7)


def test_an_order_that_the_service_rejects_is_rejected_for_the_same_reason(book: Rig) -> None:
    reply = what_if(
        book,
        account_id=7,
        orders=[
            pb.SimulatedOrder(instrument_id=1, side=BUY, price="60000", quantity="90"),
            pb.SimulatedOrder(instrument_id=1, side=BUY, price="66000", quantity="0.1"),
        ],
    )
    assert [each.reason for each in reply.decisions] == [
        book.orders.CheckOrder(check(7, 20, quantity_lots=90_000)).reason,
        book.orders.CheckOrder(check(7, 21, price_ticks=132_000)).reason,
    ]
    assert all(each.decision == types_pb2.DECISION_REJECTED for each in reply.decisions)


def test_nothing_of_the_service_changes(book: Rig) -> None:
    before = book.engine.state_lines(), book.engine.answers_hash()
    schedule = btc_schedule()
    schedule.tiers[1].initial_rate = "0.5"
    what_if(
        book,
        account_id=7,
        balances=[pb.SimulatedBalance(asset="USDT", amount="1")],
        positions=[pb.SimulatedPosition(instrument_id=1, quantity="0")],
        orders=[pb.SimulatedOrder(instrument_id=1, side=BUY, price="1", quantity="0.001")],
        marks=[pb.SimulatedMark(instrument_id=1, mark_price="1")],
        schedules=[schedule],
    )
    assert before == (book.engine.state_lines(), book.engine.answers_hash())


def test_a_mark_and_a_schedule_are_taken_as_if_they_were_reported(book: Rig) -> None:
    schedule = btc_schedule()
    schedule.liquidation_fee_rate = "0.002"
    reply = what_if(
        book,
        account_id=7,
        marks=[pb.SimulatedMark(instrument_id=1, mark_price="55000.05")],
        schedules=[schedule],
    )
    book.instruments.UpsertMarginSchedule(
        instruments_pb.UpsertMarginScheduleRequest(schedule=schedule)
    )
    book.marks.ReportMarks(
        marks_pb.ReportMarksRequest(
            marks=[marks_pb.Mark(instrument_id=1, mark_price=1_100_001, time_ns=NOW_NS)]
        )
    )
    assert (reply.summary, list(reply.positions)) == state(book, 7)


def test_both_sides_of_hedge_mode(market: Rig) -> None:
    market.accounts.ChangePositionMode(
        accounts_pb.ChangePositionModeRequest(account_id=7, position_mode=HEDGE)
    )
    market.trade(check(7, 1, position_side=LONG))
    market.trade(check(7, 2, position_side=SHORT, side=SELL, quantity_lots=60))
    summary, positions = state(market, 7)
    same = what_if(market, account_id=7)
    assert (same.summary, list(same.positions)) == (summary, positions)
    written = what_if(
        market,
        settlement_asset="USDT",
        position_mode=HEDGE,
        balances=[pb.SimulatedBalance(asset="USDT", amount=summary.cash)],
        positions=[
            pb.SimulatedPosition(
                instrument_id=1,
                quantity=row.quantity,
                entry_value=row.entry_value,
                position_side=row.position_side,
            )
            for row in positions
        ],
    )
    summary.account_id = 0
    for row in positions:
        row.account_id = 0
    assert written.summary == summary
    assert list(written.positions) == positions


def test_a_thousand_orders_are_decided(market: Rig) -> None:
    order = pb.SimulatedOrder(instrument_id=1, side=BUY, price="60000", quantity="0.001")
    reply = what_if(market, account_id=7, orders=[order] * 1000)
    assert len(reply.decisions) == 1000
    assert reply.summary.working_order_count == 1000


def position(**fields: Any) -> pb.SimulatedPosition:
    values: dict[str, Any] = {"instrument_id": 1, "quantity": "1", "entry_price": "60000"} | fields
    return pb.SimulatedPosition(**values)


def order(**fields: Any) -> pb.SimulatedOrder:
    values: dict[str, Any] = {
        "instrument_id": 1,
        "side": BUY,
        "price": "60000",
        "quantity": "1",
    } | fields
    return pb.SimulatedOrder(**values)


def mark(**fields: Any) -> pb.SimulatedMark:
    values: dict[str, Any] = {"instrument_id": 1, "mark_price": "60000"} | fields
    return pb.SimulatedMark(**values)


def balance(**fields: Any) -> pb.SimulatedBalance:
    return pb.SimulatedBalance(**({"asset": "USDT", "amount": "1"} | fields))


def schedule_of(change: Callable[[instruments_pb.MarginSchedule], None]) -> Any:
    schedule = btc_schedule()
    change(schedule)
    return schedule


WITH_ACCOUNT = {"account_id": 7}


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({"account_id": 8}, "ACCOUNT_UNKNOWN", "account_id 8 is unknown"),
        ({}, "ASSET_UNKNOWN", "settlement_asset '' is unknown: the assets are USDT"),
        (
            WITH_ACCOUNT | {"settlement_asset": "USDT"},
            "DEFINITION_INVALID",
            "settlement_asset is 'USDT': must be not set, it is that of the account",
        ),
        (
            {"settlement_asset": "USDT", "margin_mode": 9},
            "DEFINITION_INVALID",
            "margin_mode is '9': must be CROSS, ISOLATED or not set",
        ),
        (
            {"settlement_asset": "USDT", "position_mode": 9},
            "DEFINITION_INVALID",
            "position_mode is '9': must be ONE_WAY, HEDGE or not set",
        ),
        (
            WITH_ACCOUNT | {"balances": [balance(asset="XYZ")]},
            "ASSET_UNKNOWN",
            "balances[0].asset 'XYZ' is unknown",
        ),
        (
            WITH_ACCOUNT | {"balances": [balance(), balance(amount="2")]},
            "DEFINITION_INVALID",
            "balances[1].asset is 'USDT': must be an asset that is not there before",
        ),
        (
            WITH_ACCOUNT | {"balances": [balance(amount="0.0000001")]},
            "AMOUNT_OUT_OF_RANGE",
            "balances[0].amount is '0.0000001': must be a multiple of 0.000001",
        ),
        (
            WITH_ACCOUNT | {"balances": [balance(amount="4611686018427.387905")]},
            "AMOUNT_OUT_OF_RANGE",
            "balances[0].amount is '4611686018427.387905': must be",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(instrument_id=5)]},
            "INSTRUMENT_UNKNOWN",
            "positions[0].instrument_id 5 is unknown",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(quantity="0.0001")]},
            "DEFINITION_INVALID",
            "positions[0].quantity is '0.0001': must be a multiple of 0.001",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(), position()]},
            "DEFINITION_INVALID",
            "positions[1].instrument_id is '1': must be another instrument or position side than "
            "positions[0]",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(position_side=LONG)]},
            "POSITION_SIDE_NOT_SUPPORTED",
            "positions[0].position_side is LONG: must be NET or not set in one-way mode",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(entry_price="")]},
            "DEFINITION_INVALID",
            "positions[0].entry_price is '': must be given, unless entry_value is",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(entry_value="60000")]},
            "DEFINITION_INVALID",
            "positions[0].entry_price is '60000': must be empty where entry_value is given",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(entry_price="-1")]},
            "DEFINITION_INVALID",
            "positions[0].entry_price is '-1': must be above 0",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(entry_price="1e25")]},
            "DEFINITION_INVALID",
            "positions[0].entry_price is '1e25': must give a value of 1 to 2^62 minor units",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(entry_price="", entry_value="0")]},
            "DEFINITION_INVALID",
            "positions[0].entry_value is '0': must be 0.000001 to",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(quantity="0")]},
            "DEFINITION_INVALID",
            "positions[0].entry_price is '60000': must be empty where quantity is 0",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(margin_mode=7)]},
            "DEFINITION_INVALID",
            "positions[0].margin_mode is '7': must be CROSS, ISOLATED or not set",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(margin_mode=ISOLATED)]},
            "DEFINITION_INVALID",
            "positions[0].isolated_wallet is '': must be given for an isolated position",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(isolated_wallet="1")]},
            "DEFINITION_INVALID",
            "positions[0].isolated_wallet is '1': must be empty: it is not isolated",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(margin_mode=ISOLATED, isolated_wallet="-1")]},
            "AMOUNT_OUT_OF_RANGE",
            "positions[0].isolated_wallet is '-1': must be 0 to",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(leverage="0.5")]},
            "LEVERAGE_OUT_OF_RANGE",
            "positions[0].leverage is '0.5': must be 1 to 1000",
        ),
        (
            WITH_ACCOUNT | {"positions": [position(leverage="101")]},
            "LEVERAGE_OUT_OF_RANGE",
            "positions[0].leverage is '101': must be 1 to 100 by schedule BTC",
        ),
        (
            {
                "settlement_asset": "USDT",
                "position_mode": HEDGE,
                "positions": [position(position_side=LONG, quantity="-1")],
            },
            "DEFINITION_INVALID",
            "positions[0].quantity is '-1': must be 0 or more on the LONG side",
        ),
        (
            {
                "settlement_asset": "USDT",
                "position_mode": HEDGE,
                "positions": [position(position_side=SHORT)],
            },
            "DEFINITION_INVALID",
            "positions[0].quantity is '1': must be 0 or less on the SHORT side",
        ),
        (
            {
                "settlement_asset": "USDT",
                "position_mode": HEDGE,
                "positions": [
                    position(position_side=LONG, leverage="5"),
                    position(position_side=SHORT, quantity="-1", leverage="6"),
                ],
            },
            "DEFINITION_INVALID",
            "positions[1].leverage is '6': must be that of positions[0]",
        ),
        (
            WITH_ACCOUNT | {"orders": [order(), order(instrument_id=0)]},
            "INSTRUMENT_UNKNOWN",
            "orders[1].instrument_id 0 is unknown",
        ),
        (
            WITH_ACCOUNT | {"orders": [order(side=0)]},
            "SIDE_INVALID",
            "orders[0].side is 'UNSPECIFIED': must be BUY or SELL",
        ),
        (
            WITH_ACCOUNT | {"orders": [order(price="60000.1")]},
            "PRICE_OUT_OF_RANGE",
            "orders[0].price is '60000.1': must be a multiple of 0.5",
        ),
        (
            WITH_ACCOUNT | {"orders": [order(order_type=types_pb2.ORDER_TYPE_MARKET)]},
            "PRICE_OUT_OF_RANGE",
            "orders[0].price is '60000': must be empty for a market order",
        ),
        (
            WITH_ACCOUNT | {"orders": [order(order_type=types_pb2.ORDER_TYPE_STOP)]},
            "ORDER_TYPE_NOT_SUPPORTED",
            "orders[0].order_type is 'STOP': must be LIMIT, MARKET or not set",
        ),
        (
            WITH_ACCOUNT | {"orders": [order(quantity="0")]},
            "QUANTITY_OUT_OF_RANGE",
            "orders[0].quantity is '0': must be 0.001 to",
        ),
        (
            WITH_ACCOUNT | {"orders": [order(position_side=SHORT)]},
            "POSITION_SIDE_NOT_SUPPORTED",
            "orders[0].position_side is SHORT: must be NET or not set in one-way mode",
        ),
        (
            WITH_ACCOUNT | {"marks": [mark(instrument_id=9)]},
            "INSTRUMENT_UNKNOWN",
            "marks[0].instrument_id 9 is unknown",
        ),
        (
            WITH_ACCOUNT | {"marks": [mark(mark_price="0")]},
            "MARK_OUT_OF_RANGE",
            "marks[0].mark_price is '0': must be 0.05 to",
        ),
        (
            WITH_ACCOUNT | {"marks": [mark(), mark()]},
            "DEFINITION_INVALID",
            "marks[1].instrument_id is '1': must be another than that of marks[0]",
        ),
        (
            WITH_ACCOUNT | {"marks": [mark(implied_volatility="10.1")]},
            "OPTION_MARK_OUT_OF_RANGE",
            "marks[0].implied_volatility is '10.1': must be 0 to 10",
        ),
        (
            WITH_ACCOUNT | {"marks": [mark(forward="0.01")]},
            "OPTION_MARK_OUT_OF_RANGE",
            "marks[0].forward is '0.01': must be a multiple of 0.05",
        ),
        (
            WITH_ACCOUNT
            | {"schedules": [schedule_of(lambda each: each.tiers[1].ClearField("initial_rate"))]},
            "DEFINITION_INVALID",
            "schedules[0].tiers[1].initial_rate is '': must be a decimal number",
        ),
        (
            WITH_ACCOUNT
            | {"schedules": [schedule_of(lambda each: setattr(each, "settlement_asset", "?"))]},
            "ASSET_UNKNOWN",
            "schedules[0].settlement_asset '?' is unknown",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_path(
    market: Rig, fields: dict[str, Any], reason: str, text: str
) -> None:
    before = market.engine.state_hash()
    failure = refused(market, **fields)
    assert (failure.reason, failure.message[: len(text)]) == (reason, text)
    assert market.engine.state_hash() == before


def test_an_instrument_of_another_asset_is_refused(book: Rig) -> None:
    failure = refused(book, settlement_asset="BNB", positions=[position()])
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.message == (
        "positions[0].instrument_id: BTC-PERP settles in USDT, the account in BNB"
    )


def test_marks_keep_their_age(market: Rig, clock: Clock) -> None:
    instrument = btc_instrument()
    instrument.mark_age_max_ms = 1000
    market.instruments.UpsertInstrument(
        instruments_pb.UpsertInstrumentRequest(instrument=instrument)
    )
    clock.now_ns += 2_000_000_000
    orders = [order(quantity="0.1")]
    stale = what_if(market, account_id=7, orders=orders)
    assert stale.decisions[0].reason == types_pb2.REASON_CODE_MARK_STALE
    fresh = what_if(market, account_id=7, orders=orders, marks=[mark()])
    assert fresh.decisions[0].reason == types_pb2.REASON_CODE_NONE
