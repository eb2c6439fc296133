"""How the journal beside this file was written: `python tests/data/journal-1/write.py DIRECTORY`.

It has every kind of record that there was when format 1 was settled, in two segments, and a
snapshot of the first. The files here are never written again: a program that cannot read them, or
comes to another state, would not start with the journals that its users have.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from riskd.core.engine import (
    METHOD_ADVANCE_TIME,
    METHOD_BATCH_CHECK_ORDERS,
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    Engine,
)
from riskd.snapshots import take_snapshot
from riskd.v1 import market_data_service_pb2 as marks_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2

NOW_NS = 1_750_000_000 * 10**9
DAY_NS = 86_400 * 10**9
CAPACITIES = {
    "accounts_max": 6,
    "positions_max": 12,
    "orders_max": 32,
    "instruments_max": 3,
    "schedules_max": 2,
    "gateways_max": 3,
    "balances_max": 4,
    "answer_bytes": 1 << 14,
}
USDT, BTC = 1, 2
PERPETUAL, CALL = 1, 2


def call(engine: Engine, method: int, message: Any, now_ns: int) -> bytes:
    return engine.handle(method, message.SerializeToString(deterministic=True), now_ns)


def order(number: int, **fields: Any) -> orders_pb.CheckOrderRequest:
    """Return a limit order to buy 10 lots at about the mark, unless the fields say otherwise."""
    given = {
        "account_id": 1,
        "instrument_id": PERPETUAL,
        "client_order_id": number,
        "gateway_id": 1,
        "side": types_pb2.SIDE_BUY,
        "order_type": types_pb2.ORDER_TYPE_LIMIT,
        "price_ticks": 10_000 + number,
        "quantity_lots": 10,
    }
    return orders_pb.CheckOrderRequest(**(given | fields))


def made(outcome: Any) -> None:
    """Require that a change was made: a refused one is no record."""
    reason = outcome[0] if isinstance(outcome, tuple) else outcome
    assert reason == types_pb2.REASON_CODE_NONE, types_pb2.ReasonCode.Name(reason)


def define(engine: Engine) -> None:
    """Make assets, instruments, accounts and what else there is to be set."""
    made(engine.create_asset("USDT", 6))
    made(engine.create_asset("BTC", 8))
    tiers = [(0, 20_000_000, 10_000_000, 5000), (10**12, 50_000_000, 25_000_000, 2000)]
    made(engine.upsert_schedule("LADDER", USDT, tiers))
    made(engine.upsert_instrument("PERP", 1, USDT, 1, 1, -1, 1, -1, taker_fee_ppb=500_000))
    option: dict[str, Any] = {
        "expiry_ns": NOW_NS + 30 * DAY_NS,
        "strike_units": 11_000,
        "option_type": 1,
    }
    made(engine.upsert_instrument("CALL", 2, USDT, 0, 1, -1, 1, -1, **option))
    made(engine.create_firm(1, USDT))
    for account_id in range(1, 5):
        made(engine.create_account(account_id, USDT, types_pb2.MARGIN_MODE_CROSS, 1000, 10**11))
    made(engine.set_account_owner(1, 1, 0, NOW_NS))
    made(engine.set_account_owner(2, 1, 1, NOW_NS))
    made(engine.set_position_mode(4, types_pb2.POSITION_MODE_HEDGE))
    made(engine.adjust_collateral(3, USDT, -5 * 10**9, False, NOW_NS))
    made(engine.adjust_collateral(4, BTC, 10**8, False, NOW_NS))
    made(engine.set_leverage(2, PERPETUAL, 500, False, NOW_NS))
    isolated = types_pb2.MARGIN_MODE_ISOLATED
    made(engine.change_margin_mode(2, PERPETUAL, isolated, False, NOW_NS))
    made(engine.set_trading_state(SCOPE_ACCOUNT, 3, types_pb2.TRADING_STATE_HALTED))
    largest = types_pb2.LIMIT_KIND_ORDER_QUANTITY_MAX
    hard, soft = types_pb2.LIMIT_ACTION_HARD, types_pb2.LIMIT_ACTION_SOFT
    made(engine.set_limit(SCOPE_ACCOUNT, 1, PERPETUAL, largest, 1000, 0, hard, NOW_NS))
    until_ns = NOW_NS + DAY_NS
    made(engine.raise_limit(SCOPE_ACCOUNT, 1, PERPETUAL, largest, 2000, until_ns, NOW_NS))
    rate, drawdown = types_pb2.LIMIT_KIND_ORDER_RATE_MAX, types_pb2.LIMIT_KIND_DRAWDOWN_MAX
    made(engine.set_limit(SCOPE_FIRM, 1, 0, rate, 100, 50, hard, NOW_NS))
    made(engine.set_limit(SCOPE_ACCOUNT, 4, 0, drawdown, 10**9, 0, soft, NOW_NS))
    made(engine.reset_usage(SCOPE_ACCOUNT, 4, 0, drawdown, NOW_NS))
    made(engine.set_limit(SCOPE_ACCOUNT, 3, 0, largest, 5000, 0, hard, NOW_NS))
    made(engine.remove_limit(SCOPE_ACCOUNT, 3, 0, largest))
    made(engine.renew_lease(2, 60 * 10**9, types_pb2.LEASE_ACTION_CANCEL, NOW_NS))
    assert engine.set_capacities(positions_max=16, actor="operator")


def trade(engine: Engine) -> None:
    """Send every kind of hot request."""
    marks = marks_pb.ReportMarksRequest(
        marks=[
            marks_pb.Mark(instrument_id=PERPETUAL, mark_price=10_000, time_ns=NOW_NS),
            marks_pb.Mark(
                instrument_id=CALL,
                mark_price=400,
                time_ns=NOW_NS,
                implied_volatility_ppb=600_000_000,
                forward_price=10_100,
            ),
        ]
    )
    call(engine, METHOD_REPORT_MARKS, marks, NOW_NS)
    reservations = list(_reservations(engine, _orders()))
    # The third is too large, the fifth is of an account that is halted.
    assert [bool(each) for each in reservations] == [True, True, False, True, False] + [True] * 3
    amendment = orders_pb.CheckAmendmentRequest(
        gateway_id=1,
        reservation_id=reservations[1],
        client_order_id=1,
        price_ticks=9_990,
        quantity_lots=12,
    )
    answer = call(engine, METHOD_CHECK_AMENDMENT, amendment, NOW_NS + 20)
    amended = orders_pb.CheckAmendmentResponse.FromString(answer).order
    assert amended.decision == types_pb2.DECISION_ACCEPTED, amended
    for number, fields in enumerate(_executions(reservations), 1):
        execution = orders_pb.ReportExecutionRequest(gateway_id=1, execution_id=number, **fields)
        answer = call(engine, METHOD_REPORT_EXECUTION, execution, NOW_NS + 20 + number)
        made(orders_pb.ReportExecutionResponse.FromString(answer).reason)
    made(engine.transfer_margin(2, PERPETUAL, 10**8, False, NOW_NS + 40))
    for mode in (orders_pb.BATCH_MODE_INDEPENDENT, orders_pb.BATCH_MODE_ALL_OR_NONE):
        batch = orders_pb.BatchCheckOrdersRequest(
            mode=mode, orders=[order(30 + 2 * mode, gateway_id=2), order(31 + 2 * mode)]
        )
        call(engine, METHOD_BATCH_CHECK_ORDERS, batch, NOW_NS + 41)
    reason, count, _ = engine.cancel_orders(1, 2, 0, 0, 0, [reservations[0]], False, NOW_NS + 42)
    assert (reason, count) == (types_pb2.REASON_CODE_NONE, 1)
    # The lease of gateway 2 has ended, and an order has expired.
    engine.handle(METHOD_ADVANCE_TIME, b"", NOW_NS + 120 * 10**9)
    normal = types_pb2.TRADING_STATE_NORMAL
    made(engine.set_trading_state(SCOPE_ACCOUNT, 3, normal, actor="operator"))


def _orders() -> Iterable[orders_pb.CheckOrderRequest]:
    yield order(1)
    yield order(2)
    yield order(3, quantity_lots=10**9)
    yield order(4, account_id=2, side=types_pb2.SIDE_SELL)
    yield order(5, account_id=3, side=types_pb2.SIDE_SELL)
    yield order(6, account_id=4, position_side=types_pb2.POSITION_SIDE_LONG)
    yield order(7, instrument_id=CALL, price_ticks=400, view=orders_pb.DECISION_VIEW_FULL)
    yield order(
        8,
        time_in_force=types_pb2.TIME_IN_FORCE_GTD,
        expire_time_ns=NOW_NS + 60 * 10**9,
    )


def _reservations(engine: Engine, orders: Iterable[orders_pb.CheckOrderRequest]) -> Iterable[int]:
    for each in orders:
        reply = call(engine, METHOD_CHECK_ORDER, each, NOW_NS + each.client_order_id)
        yield orders_pb.CheckOrderResponse.FromString(reply).reservation_id


def _executions(reservations: list[int]) -> Iterable[dict[str, Any]]:
    fill = {"kind": orders_pb.EXECUTION_KIND_FILL, "quantity_lots": 4, "fee_minor": 100}
    yield fill | {"reservation_id": reservations[0], "price_ticks": 10_001}
    yield fill | {"reservation_id": reservations[3], "price_ticks": 10_004}
    yield fill | {"reservation_id": reservations[5], "price_ticks": 10_006, "fee_asset_id": BTC}
    yield fill | {"reservation_id": reservations[6], "price_ticks": 400}
    yield {"reservation_id": reservations[0], "kind": orders_pb.EXECUTION_KIND_CANCEL}
    yield {
        "reservation_id": reservations[0],
        "kind": orders_pb.EXECUTION_KIND_BUST,
        "original_execution_id": 1,
    }


def expected(engine: Engine, records: int) -> dict[str, object]:
    return {
        "records": records,
        "revision": engine.revision,
        "state_hash": engine.state_hash(),
        "answers_hash": engine.answers_hash(),
    }


def main(directory: Path) -> None:
    """Write the journal, its snapshot and expected.json into a new directory."""
    engine = Engine(**CAPACITIES)
    engine.open_journal(
        directory, durability="process", segment_bytes=6 << 10, buffer_bytes=4 << 10
    )
    define(engine)
    trade(engine)
    assert engine.journal is not None
    records = engine.journal.next_sequence - 1
    facts = expected(engine, records)
    engine.close_journal()
    assert take_snapshot(directory) is not None
    (directory / "expected.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
