"""Each limit of each kind is broken by one order and gives its own reason."""

import pytest

from riskd import limits, limits_file, limits_proof
from riskd.core.engine import Engine
from riskd.rulebooks import installer, loader
from riskd.v1 import market_data_service_pb2 as marks
from riskd.v1 import order_risk_service_pb2 as orders
from riskd.v1 import types_pb2

NOW_NS = 1_700_000_000_000_000_000

# Something that an order of the textbook's BTC-PERP at 50000 can break.
VALUES = {
    "ORDER_QUANTITY_MIN": "0.01",
    "ORDER_QUANTITY_MAX": "10",
    "ORDER_NOTIONAL_MIN": "500",
    "ORDER_NOTIONAL_MAX": "100000",
    "COLLAR_PPB": "0.02",
    "COLLAR_TICKS": "10",
    "POSITION_LOTS_MAX": "8.5",
    "POSITION_NOTIONAL_MAX": "300000",
    "GROSS_EXPOSURE_MAX": "400000",
    "OPEN_ORDERS_MAX": "5",
    "OPEN_NOTIONAL_MAX": "200000",
    "ORDER_RATE_MAX": "10",
    "EXECUTION_RATE_MAX": "5",
    "DAILY_TRADED_MAX": "1000000",
    "DAILY_LOSS_MAX": "5000",
    "DRAWDOWN_MAX": "7000",
    "LEVERAGE_MAX": "2.5",
    "DELTA_MAX": "90000",
    "GAMMA_MAX": "100",
    "VEGA_MAX": "10",
    "CONCENTRATION_MAX": "0.4",
    "DENIED": "",
    "ALLOWED": "",
}


def new_engine() -> Engine:
    """Textbook instruments, BTC-PERP at 50000, accounts 7 and 8 of firm 1 with 100000 each."""
    engine = Engine()
    ids = installer.apply(loader.load("textbook"), engine)
    instrument_id = ids["BTC-PERP"]
    row = next(row for row in engine.instruments() if row.instrument_id == instrument_id)
    asset = next(asset for asset in engine.assets() if asset.asset_id == row.asset_id)
    engine.create_firm(1, asset.asset_id)
    for account_id in (7, 8):
        engine.create_account(
            account_id, asset.asset_id, types_pb2.MARGIN_MODE_CROSS, 1000, 10 ** (asset.scale + 5)
        )
        engine.set_account_owner(account_id, 1, 0, NOW_NS)
    ticks = 50_000 * 10**-row.tick_exponent // row.tick_mantissa
    mark = marks.Mark(
        instrument_id=instrument_id, mark_price=ticks * row.mark_units_per_tick, time_ns=NOW_NS
    )
    report = marks.ReportMarksRequest(marks=[mark])
    engine.handle(limits_proof.METHOD_REPORT_MARKS, report.SerializeToString(), NOW_NS)
    return engine


def rule(kind: str, *, owner: str = "account = 7", action: str = "hard") -> str:
    number = limits.KINDS[kind]
    lines = ["[[limit]]", owner, f'kind = "{kind}"', f'action = "{action}"']
    if limits.needs_instrument(number) or limits.unit_of(number) is limits.Unit.LOTS:
        lines.append('instrument = "BTC-PERP"')
    if VALUES[kind]:
        lines.append(f"value = {VALUES[kind]}")
    if limits.has_burst(number):
        lines.append("burst = 3")
    return "\n".join(lines) + "\n"


def proofs(engine: Engine, text: str) -> list[limits_proof.Proof]:
    limits_file.apply(limits_file.loads(text), engine, NOW_NS)
    return limits_proof.prove(engine, NOW_NS)


def test_every_kind_has_a_value_here() -> None:
    assert set(VALUES) == set(limits.KINDS)


@pytest.mark.parametrize("owner", ["account = 7", "firm = 1"])
@pytest.mark.parametrize("kind", VALUES)
def test_limit_of_every_kind_stops_its_order_for_its_own_reason(kind: str, owner: str) -> None:
    (proof,) = proofs(new_engine(), rule(kind, owner=owner))
    assert proof.ok, proof
    assert proof.reason == f"LIMIT_{kind}"


@pytest.mark.parametrize("kind", VALUES)
def test_soft_limit_of_every_kind_warns(kind: str) -> None:
    (proof,) = proofs(new_engine(), rule(kind, action="soft"))
    assert proof.ok, proof
    assert proof.reason == f"LIMIT_{kind} (a warning)"


def test_all_limits_together_are_each_proved_alone_in_their_order() -> None:
    text = "".join(rule(kind) for kind in VALUES)
    text += rule("ORDER_RATE_MAX", owner="gateway = 3")
    text += "".join(rule(kind, owner="firm = 1") for kind in VALUES)
    engine = new_engine()
    limits_file.apply(limits_file.loads(text), engine, NOW_NS)
    names = [row[:4] for row in engine.limits()]
    proved = limits_proof.prove(engine, NOW_NS)
    assert [proof for proof in proved if not proof.ok] == []
    assert len(proved) == len(names) == 2 * len(VALUES) + 1
    for name, proof in zip(names, proved, strict=True):
        assert proof.reason == f"LIMIT_{limits.kind_name(name[3])}"


def test_order_is_the_nearest_to_the_limit() -> None:
    (largest,) = proofs(new_engine(), rule("ORDER_QUANTITY_MAX"))
    assert largest.order.startswith("buy 10.001 BTC-PERP at 50000")
    (smallest,) = proofs(new_engine(), rule("ORDER_QUANTITY_MIN"))
    assert smallest.order.startswith("buy 0.009 BTC-PERP")


def test_position_is_counted_in() -> None:
    engine = new_engine()
    order = orders.CheckOrderRequest(
        account_id=7,
        instrument_id=1,
        client_order_id=1,
        side=types_pb2.SIDE_SELL,
        order_type=types_pb2.ORDER_TYPE_MARKET,
        quantity_lots=8_000,
        gateway_id=3,
    )
    reply = orders.CheckOrderResponse.FromString(
        engine.handle(limits_proof.METHOD_CHECK_ORDER, order.SerializeToString(), NOW_NS)
    )
    assert reply.decision == types_pb2.DECISION_ACCEPTED
    (proof,) = proofs(engine, rule("POSITION_LOTS_MAX"))
    # 8 of 8.5 work on the sell side: a buy must be 8.501, which is tried first.
    assert proof.ok
    assert proof.order.startswith("buy 8.501")


def test_halt_and_lease_and_old_marks_are_not_in_the_way() -> None:
    engine = new_engine()
    engine.set_trading_state(1, 0, types_pb2.TRADING_STATE_HALTED)
    engine.set_trading_state(4, 1, types_pb2.TRADING_STATE_REDUCE_ONLY)
    engine.renew_lease(3, 1, types_pb2.LEASE_ACTION_BLOCK, NOW_NS)
    text = rule("OPEN_ORDERS_MAX") + rule("ORDER_RATE_MAX", owner="gateway = 3")
    limits_file.apply(limits_file.loads(text), engine, NOW_NS)
    year_ns = 365 * 86_400 * 10**9
    assert all(proof.ok for proof in limits_proof.prove(engine, NOW_NS + year_ns))


def test_raise_is_proved_at_its_value() -> None:
    engine = new_engine()
    limits_file.apply(limits_file.loads(rule("ORDER_QUANTITY_MAX")), engine, NOW_NS)
    (row,) = engine.limits()
    engine.raise_limit(*row[:4], 12_000, NOW_NS + 10**9, NOW_NS)
    (proof,) = limits_proof.prove(engine, NOW_NS)
    assert proof.ok
    assert proof.order.startswith("buy 12.001 ")


def test_limit_that_nothing_can_break_is_not_proved() -> None:
    engine = new_engine()
    text = '[[limit]]\naccount = 7\nkind = "CONCENTRATION_MAX"\nvalue = 1\n'
    (proof,) = proofs(engine, text)
    assert not proof.ok
    assert proof.reason.startswith("not broken by any order")


def test_engine_without_instruments_proves_nothing() -> None:
    engine = Engine()
    engine.set_limit(2, 3, 0, types_pb2.LIMIT_KIND_ORDER_RATE_MAX, 1, 1, 1, NOW_NS)
    (proof,) = limits_proof.prove(engine, NOW_NS)
    assert not proof.ok
    assert proof.reason == "there is no instrument to send an order for"


def test_limit_without_instruments_does_not_hide_the_others() -> None:
    engine = new_engine()
    engine.create_asset("EUR", 2)
    eur = next(row.asset_id for row in engine.assets() if row.symbol == "EUR")
    engine.create_account(99, eur, types_pb2.MARGIN_MODE_CROSS, 100, 0, now_ns=NOW_NS)
    kind = types_pb2.LIMIT_KIND_ORDER_QUANTITY_MAX
    engine.set_limit(3, 7, 0, kind, 5, 0, 1, NOW_NS)
    engine.set_limit(3, 99, 0, kind, 5, 0, 1, NOW_NS)
    first, second = limits_proof.prove(engine, NOW_NS)
    assert first.ok
    assert (second.ok, second.reason) == (False, "there is no contract in the asset of the limit")
