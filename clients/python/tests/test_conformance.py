"""One scenario through both clients, against the real service in this process.

The numbers follow docs/decision.md; the arithmetic stands beside them.
"""

import asyncio
import dataclasses
import itertools
import runpy
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from riskd_client import (
    AlreadyExists,
    AsyncClient,
    Client,
    Collateral,
    CollateralTier,
    DecisionView,
    FailedPrecondition,
    Instrument,
    InstrumentKind,
    InvalidArgument,
    LeaseAction,
    LiquidationStatus,
    MarginFamily,
    MarginLevel,
    MarginMode,
    MarginSchedule,
    MarginTier,
    Mark,
    NewOrder,
    NotFound,
    OptionRule,
    OptionType,
    PositionMode,
    PositionSide,
    Reason,
    ReservationRef,
    ReservationState,
    RiskdError,
    Scope,
    ScopeState,
    Side,
    SimulatedOrder,
    SimulatedPosition,
    TradingState,
    Unit,
)

try:
    from riskd.settings import Settings
    from riskd.wiring import build_engine, serving
except ImportError as missing:
    pytest.skip(
        f"the server is not installed, so the client cannot be tried on it: {missing} "
        f"(make test builds it)",
        allow_module_level=True,
    )

D = Decimal
ROOT = Path(__file__).resolve().parent.parent

# 2027-01-01, and an expiry a year later: whatever the wall clock says, tests see the same times.
NOW_NS = 1_798_761_600_000_000_000
YEAR_NS = 365 * 86_400 * 10**9

SCHEDULE = MarginSchedule(
    name="btc",
    settlement_asset="USDT",
    tiers=(
        MarginTier(
            floor_notional=D(0),
            initial_rate=D("0.01"),
            maintenance_rate=D("0.005"),
            max_leverage=D(100),
        ),
        MarginTier(
            floor_notional=D(500_000),
            initial_rate=D("0.02"),
            maintenance_rate=D("0.01"),
            max_leverage=D(50),
        ),
    ),
)

BTC = Instrument(
    symbol="BTC-PERP",
    kind=InstrumentKind.LINEAR_PERPETUAL,
    settlement_asset="USDT",
    margin_schedule="btc",
    tick_size=D("0.1"),
    lot_size=D("0.001"),
    mark_units_per_tick=100,
    order_quantity_max=D(100),
    price_collar_rate=D("0.05"),
)

CALL = Instrument(
    symbol="BTC-CALL-70000",
    kind=InstrumentKind.LINEAR_OPTION,
    settlement_asset="USDT",
    tick_size=D(5),
    lot_size=D("0.01"),
    mark_units_per_tick=100,
    expiry_time_ns=NOW_NS + YEAR_NS,
    strike=D(70_000),
    option_type=OptionType.CALL,
)


class Awaited:
    """A Client with the methods of an AsyncClient, so that one scenario is written for both."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method

        async def iterate(rows: Iterator[Any]) -> AsyncIterator[Any]:
            for row in rows:
                yield row

        async def give(result: Any) -> Any:
            return result

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return iterate(result) if isinstance(result, Iterator) else give(result)

        return call


@asynccontextmanager
async def blocking(target: str) -> AsyncIterator[AsyncClient]:
    with Client(target) as client:
        yield cast(AsyncClient, Awaited(client))


@asynccontextmanager
async def awaiting(target: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(target) as client:
        yield client


Connect = Callable[[str], Any]
both = pytest.mark.parametrize("connect", [blocking, awaiting], ids=["Client", "AsyncClient"])


@pytest.fixture
def target() -> Iterator[str]:
    settings = Settings(control_address="127.0.0.1:0", durability="none")
    ticks = itertools.count(NOW_NS, 1_000_000)
    with serving(settings, build_engine(settings), lambda: next(ticks)) as port:
        yield f"127.0.0.1:{port}"


async def set_up(client: AsyncClient) -> None:
    """List BTC-PERP and a call, mark BTC at 65000, open account 1 with 10000 USDT at 10x cross."""
    asset = await client.create_asset("USDT", 6)
    assert (asset.symbol, asset.scale) == ("USDT", 6)
    schedule = await client.upsert_margin_schedule(SCHEDULE)
    # d_1 = d_0 + f_1 (m_1 - m_0) = 500000 * 0.005
    assert [tier.deduction for tier in schedule.tiers] == [D(0), D(2500)]
    btc = await client.upsert_instrument(BTC)
    assert btc == dataclasses.replace(
        BTC, instrument_id=btc.instrument_id, trading_state=TradingState.NORMAL
    )
    await client.upsert_instrument(CALL)
    marks = await client.report_marks({"BTC-PERP": Mark("65000", time_ns=NOW_NS)})
    assert (marks.taken_count, marks.refusals) == (1, {})
    account = await client.create_account(
        1, "USDT", default_leverage=10, initial_collateral="10000"
    )
    assert (account.cash, account.default_leverage) == (D(10_000), D(10))


def run(connect: Connect, target: str, scenario: Callable[[AsyncClient], Any]) -> None:
    async def play() -> None:
        async with connect(target) as client:
            await set_up(client)
            await scenario(client)

    asyncio.run(play())


@both
def test_an_order_is_reserved_filled_and_margined(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        order = await client.check_order(
            1, "BTC-PERP", "buy", "0.5", "65000", client_order_id=42, view=DecisionView.FULL
        )
        assert order.accepted
        assert order.reason is Reason.NONE
        assert order.reservation_id > 0
        # 0.5 * 65000 / 10 = 3250
        assert (order.initial_margin, order.reserved) == (D(3250), D(3250))
        assert order.available == D(6750)
        # (32500 - 10000) / (0.5 * 0.995) = 45226.13..., up to a tick for a long
        assert order.liquidation_status is LiquidationStatus.AT_PRICE
        assert order.liquidation_price == D("45226.2")
        detail = order.detail
        assert detail is not None
        assert (detail.position, detail.leverage, detail.tier_index) == (D("0.5"), D(10), 0)
        assert (detail.mark_price, detail.mark_time_ns) == (D(65_000), NOW_NS)
        assert detail.position_maintenance_margin == D("162.5")
        assert (detail.greeks, detail.violations) == (None, ())

        working = await client.get_reservation(reservation_id=order.reservation_id)
        assert (working.state, working.symbol) == (ReservationState.WORKING, "BTC-PERP")
        assert (working.side, working.price) == (Side.BUY, D(65_000))
        assert (working.quantity, working.remaining) == (D("0.5"), D("0.5"))

        part = await client.report_fill(order, "65000", "0.2", execution_id=1, fee="5.2")
        assert part.accepted
        assert (part.remaining, part.position) == (D("0.3"), D("0.2"))
        repeat = await client.report_fill(order, "65000", "0.2", execution_id=1, fee="5.2")
        assert repeat == part
        rest = await client.report_fill(working, "65000", "0.3", execution_id=2, fee="7.8")
        assert (rest.remaining, rest.position) == (D(0), D("0.5"))
        # cash 10000 - 13; 9987 - 3250 = 6737; (32500 - 9987) / 0.4975 = 45252.26...
        assert rest.available == D(6737)
        assert rest.liquidation_price == D("45252.3")

        (position,) = await client.position_margins(1)
        assert (position.symbol, position.quantity) == ("BTC-PERP", D("0.5"))
        assert (position.entry_price, position.entry_value) == (D(65_000), D(32_500))
        assert position.margin_mode is MarginMode.CROSS
        assert position.isolated_wallet is None
        # In mark units: floor(45252.2613...)
        price = await client.liquidation_price(1, "BTC-PERP")
        assert price.price == position.liquidation_price == D("45252.261")

        await client.report_marks({"BTC-PERP": Mark("66000", time_ns=NOW_NS + 1)})
        mark = await client.get_mark("BTC-PERP")
        assert mark is not None
        assert mark.price == D(66_000)
        summary = await client.margin_summary(1)
        # 0.5 * 1000 up; 33000 / 10 and 33000 * 0.005
        assert (summary.cash, summary.cross_unrealised_pnl) == (D(9987), D(500))
        assert (summary.initial_margin, summary.cross_maintenance_margin) == (D(3300), D(165))
        assert summary.available == D(9987 + 500 - 3300)
        assert not summary.cross_liquidatable

        closing = await client.check_order(
            1, "BTC-PERP", Side.SELL, "0.5", "66000", reduce_only=True
        )
        assert closing.liquidation_status is LiquidationStatus.NO_POSITION
        assert (closing.liquidation_price, closing.reserved) == (None, D(0))
        closed = await client.report_fill(closing, "66000", "0.5", execution_id=3)
        assert (closed.realised_pnl, closed.position) == (D(500), D(0))
        assert (await client.get_account(1)).cash == D(10_487)

    run(connect, target, scenario)


@both
def test_a_repeated_order_gets_its_first_answer(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        unknown = await client.get_reservation(client_order_id=42)
        assert unknown.state is ReservationState.UNKNOWN
        assert unknown.first_answer is None
        first = await client.check_order(1, "BTC-PERP", "buy", 1, 65000, client_order_id=42)
        again = await client.check_order(1, "BTC-PERP", "buy", 1, 65000, client_order_id=42)
        assert again == first
        other = await client.check_order(1, "BTC-PERP", "buy", 2, 65000, client_order_id=42)
        assert other.reason is Reason.CLIENT_ORDER_ID_REUSED
        asked = await client.get_reservation(client_order_id=42)
        assert (asked.state, asked.first_answer) == (ReservationState.WORKING, first)
        ended = await client.report_cancel(first, execution_id=9)
        assert (ended.accepted, ended.available) == (True, D(10_000))
        asked = await client.get_reservation(client_order_id=42)
        assert (asked.state, asked.first_answer) == (ReservationState.CLOSED, first)
        assert (asked.symbol, asked.account_id, asked.side) == ("BTC-PERP", 1, Side.BUY)
        assert (asked.price, asked.quantity, asked.remaining) == (D(65_000), D(1), D(0))
        gone = await client.get_reservation(reservation_id=first.reservation_id)
        assert (gone.state, gone.symbol) == (ReservationState.CLOSED, "BTC-PERP")
        never = await client.get_reservation(reservation_id=2**40)
        assert (never.state, never.symbol) == (ReservationState.UNKNOWN, "")

    run(connect, target, scenario)


@both
def test_expiry_and_venue_reject_release_what_was_reserved(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        for execution_id, end in enumerate([client.report_expire, client.report_venue_reject], 1):
            order = await client.check_order(1, "BTC-PERP", "sell", "0.1", "65000")
            assert order.available == D(9350)
            ended = await end(order, execution_id=execution_id)
            assert ended.available == D(10_000)
        stored = ReservationRef("BTC-PERP", order.reservation_id)
        late = await client.report_cancel(stored, execution_id=3)
        assert (late.accepted, late.reason) == (True, Reason.RESERVATION_CLOSED)
        unknown = ReservationRef("BTC-PERP", 2**40)
        refused = await client.report_cancel(unknown, execution_id=4)
        assert (refused.accepted, refused.reason) == (False, Reason.RESERVATION_UNKNOWN)

    run(connect, target, scenario)


@both
def test_a_fill_in_the_numbers_of_another_instrument_is_refused(
    connect: Connect, target: str
) -> None:
    async def scenario(client: AsyncClient) -> None:
        order = await client.check_order(1, "BTC-PERP", "buy", "0.1", "65000")
        mistaken = ReservationRef(CALL.symbol, order.reservation_id)
        refused = await client.report_fill(mistaken, "65000", "0.1", execution_id=1)
        assert (refused.accepted, refused.reason) == (False, Reason.EXECUTION_INSTRUMENT_MISMATCH)
        assert refused.available is None
        refused = await client.report_cancel(mistaken, execution_id=2)
        assert refused.reason is Reason.EXECUTION_INSTRUMENT_MISMATCH
        working = await client.get_reservation(client_order_id=order.client_order_id)
        assert (working.state, working.remaining) == (ReservationState.WORKING, D("0.1"))
        filled = await client.report_fill(working, "65000", "0.1", execution_id=3)
        assert (filled.accepted, filled.position) == (True, D("0.1"))
        # 10000 - 6500 / 10
        assert filled.available == D(9350)

    run(connect, target, scenario)


@both
def test_margin_that_a_reject_did_not_compute_is_none(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.create_asset("EUR", 2)
        await client.create_account(2, "EUR", initial_collateral="100")
        foreign = await client.check_order(2, "BTC-PERP", "buy", 1, 65000)
        assert foreign.reason is Reason.SETTLEMENT_ASSET_MISMATCH
        assert (foreign.initial_margin, foreign.available, foreign.reserved) == (None, None, None)
        # A reject after the figures were computed knows them.
        large = await client.check_order(1, "BTC-PERP", "buy", 5, 65000)
        assert large.reason is Reason.MARGIN_INSUFFICIENT
        assert (large.initial_margin, large.available, large.reserved) == (D(0), D(10_000), D(0))

    run(connect, target, scenario)


@both
def test_a_change_of_limits_does_not_lift_a_halt(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.engage_kill_switch(Scope.instrument("BTC-PERP"))
        limited = dataclasses.replace(BTC, order_quantity_max=D(50), interest_rate=D(0))
        changed = await client.upsert_instrument(limited)
        assert (changed.order_quantity_max, changed.interest_rate) == (D(50), None)
        assert changed.trading_state is TradingState.HALTED

    run(connect, target, scenario)


@both
def test_the_largest_quantity_passes_and_one_lot_more_does_not(
    connect: Connect, target: str
) -> None:
    async def scenario(client: AsyncClient) -> None:
        order = await client.check_order(1, "BTC-PERP", "buy", 5, 65000, view="full")
        assert not order.accepted
        assert order.reason is Reason.MARGIN_INSUFFICIENT
        # 10000 * 10 / 65000 = 1.538...
        assert order.max_quantity == D("1.538")
        assert order.reservation_id == 0
        assert order.detail is not None
        (violation,) = order.detail.violations
        assert (violation.reason, violation.unit) == (Reason.MARGIN_INSUFFICIENT, Unit.MONEY)
        assert (violation.limit, violation.order_use) == (D(10_000), D(32_500))
        size = await client.max_order_size(1, "BTC-PERP", "buy", 65000)
        assert size.quantity == order.max_quantity
        assert size.limiting_reason is Reason.MARGIN_INSUFFICIENT
        largest = await client.check_order(1, "BTC-PERP", "buy", "1.538", 65000, check_only=True)
        assert (largest.accepted, largest.reservation_id) == (True, 0)
        more = await client.check_order(1, "BTC-PERP", "buy", "1.539", 65000, check_only=True)
        assert not more.accepted
        assert (await client.margin_summary(1)).working_order_count == 0

    run(connect, target, scenario)


@both
def test_a_price_outside_the_collar_says_where_the_collar_is(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        order = await client.check_order(1, "BTC-PERP", "buy", "0.1", "70000", view="full")
        assert order.reason is Reason.PRICE_OUTSIDE_COLLAR
        assert order.max_quantity is None
        assert order.detail is not None
        # 65000 * 1.05
        assert order.detail.violations[0].limit == D(68_250)
        assert order.detail.violations[0].unit is Unit.PRICE

    run(connect, target, scenario)


@both
def test_an_isolated_position_has_a_wallet_of_its_own(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        planned = await client.set_leverage(1, "BTC-PERP", "12.5", validate_only=True)
        assert planned.leverage == D("12.5")
        await client.set_leverage(1, "BTC-PERP", 20)
        await client.change_margin_mode(1, "BTC-PERP", "isolated")
        order = await client.check_order(
            1, "BTC-PERP", "buy", "0.1", "65000", margin_mode="isolated"
        )
        filled = await client.report_fill(order, "65000", "0.1", execution_id=1)
        # 6500 / 20 = 325; (6500 - 325) / (0.1 * 0.995) = 62060.30...
        assert filled.isolated_wallet == D(325)
        assert filled.liquidation_price == D("62060.4")
        moved = await client.transfer_margin(1, "BTC-PERP", "100")
        assert (moved.isolated_wallet, moved.available) == (D(425), D(9575))
        with pytest.raises(FailedPrecondition) as caught:
            await client.transfer_margin(1, "BTC-PERP", "-425")
        assert caught.value.reason == "EXCEEDS_REMOVABLE_MARGIN"
        shown = await client.change_margin_mode(1, "BTC-PERP", "cross", validate_only=True)
        assert (shown.cash_flow, shown.isolated_wallet) == (D(425), D(0))
        wrong = await client.check_order(1, "BTC-PERP", "buy", 1, 65000, margin_mode="cross")
        assert wrong.reason is Reason.MARGIN_MODE_MISMATCH
        switched = await client.change_margin_mode(1, "BTC-PERP", MarginMode.CROSS)
        assert (switched.cash_flow, switched.available) == (D(425), D(9675))

    run(connect, target, scenario)


@both
def test_an_option_is_paid_in_full_and_explained_by_its_greeks(
    connect: Connect, target: str
) -> None:
    async def scenario(client: AsyncClient) -> None:
        symbol = CALL.symbol
        assert await client.get_mark(symbol) is None
        unmarked = await client.check_order(1, symbol, "buy", 1, 5000)
        assert unmarked.reason is Reason.MARK_MISSING
        mark = Mark("5000", time_ns=NOW_NS, implied_volatility="0.5", forward="65000")
        await client.report_marks({symbol: mark})
        held = await client.get_mark(symbol)
        assert held is not None
        assert (held.implied_volatility, held.forward) == (D("0.5"), D(65_000))
        order = await client.check_order(1, symbol, "buy", "1.5", "5000", view="full")
        assert order.accepted
        assert order.reserved == D(7500)
        assert order.liquidation_status is LiquidationStatus.UNSPECIFIED
        assert order.detail is not None
        model = await client.greeks(
            "call", forward=65000, strike=70000, volatility=0.5, time_years=1
        )
        # Time runs a little between mark and decision, so not to the last digit.
        assert order.detail.greeks is not None
        assert float(order.detail.greeks.delta) == pytest.approx(model.delta, rel=1e-6)
        assert float(order.detail.greeks.price) == pytest.approx(model.price, rel=1e-6)
        short = await client.check_order(1, symbol, "sell", 1, 5000)
        assert short.reason is Reason.SHORT_OPTION_NOT_PERMITTED

    run(connect, target, scenario)


@both
def test_a_halt_stops_its_scope_and_lists_what_works(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        order = await client.check_order(1, "BTC-PERP", "buy", "0.1", 65000)
        scopes = [
            (Scope.instrument("BTC-PERP"), Reason.INSTRUMENT_HALTED),
            (Scope.account(1), Reason.ACCOUNT_HALTED),
            (Scope.gateway(client.gateway_id), Reason.GATEWAY_HALTED),
            (Scope.service(), Reason.SERVICE_HALTED),
        ]
        for scope, reason in scopes:
            halted = await client.engage_kill_switch(scope, comment="drill")
            assert halted.trading_state is TradingState.HALTED
            assert (halted.reservation_ids, halted.truncated) == ((order.reservation_id,), False)
            assert await client.list_trading_states() == (ScopeState(scope, TradingState.HALTED),)
            stopped = await client.check_order(1, "BTC-PERP", "buy", "0.1", 65000)
            assert stopped.reason is reason
            released = await client.release_kill_switch(scope, "reduce_only")
            assert released.trading_state is TradingState.REDUCE_ONLY
            changed = await client.change_trading_state(scope, TradingState.NORMAL)
            assert changed.trading_state is TradingState.NORMAL
        assert (await client.check_order(1, "BTC-PERP", "buy", "0.1", 65000)).accepted

    run(connect, target, scenario)


@both
def test_collateral_moves_whole_or_not_at_all(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        planned = await client.adjust_collateral(1, "USDT", "2.5", validate_only=True)
        assert planned.account.cash == D("10002.5")
        assert (await client.get_account(1)).cash == D(10_000)
        with pytest.raises(FailedPrecondition) as caught:
            await client.adjust_collateral(1, "USDT", "-10000.000001")
        assert caught.value.reason == "EXCEEDS_AVAILABLE"
        done = await client.adjust_collateral(1, "USDT", D("-0.000001"))
        assert done.available == D("9999.999999")

    run(connect, target, scenario)


@both
def test_lists_give_everything_in_order(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        for account in (3, 2):
            await client.create_account(account, "USDT")
        assert [row.account_id async for row in client.list_accounts()] == [1, 2, 3]
        symbols = [row.symbol async for row in client.list_instruments()]
        assert symbols == [BTC.symbol, CALL.symbol]
        assert [row.name async for row in client.list_margin_schedules()] == ["btc"]
        assert [row.symbol for row in await client.list_assets()] == ["USDT"]
        btc = client.catalogue.instrument("BTC-PERP")
        limited = dataclasses.replace(btc, order_quantity_max=D("0.25"))
        assert await client.upsert_instrument(limited) == limited
        order = await client.check_order(1, "BTC-PERP", "buy", "0.3", 65000)
        assert order.reason is Reason.EXCEEDS_ORDER_QUANTITY_MAX
        assert order.max_quantity == D("0.25")

    run(connect, target, scenario)


@both
@pytest.mark.parametrize(
    ("error", "reason", "act"),
    [
        (NotFound, "ACCOUNT_UNKNOWN", lambda client: client.get_account(99)),
        (NotFound, "ASSET_UNKNOWN", lambda client: client.create_account(2, "USDX")),
        (AlreadyExists, "ALREADY_EXISTS", lambda client: client.create_account(1, "USDT")),
        (AlreadyExists, "ALREADY_EXISTS", lambda client: client.create_asset("USDT", 6)),
        (
            InvalidArgument,
            "LEVERAGE_OUT_OF_RANGE",
            lambda client: client.set_leverage(1, "BTC-PERP", 101),
        ),
        (
            FailedPrecondition,
            "FIELD_IMMUTABLE",
            lambda client: client.upsert_instrument(
                dataclasses.replace(BTC, tick_size=D("0.5"), mark_units_per_tick=1)
            ),
        ),
        (
            FailedPrecondition,
            "NO_ISOLATED_POSITION",
            lambda client: client.transfer_margin(1, "BTC-PERP", 1),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_names_its_rule(
    connect: Connect,
    target: str,
    error: type[RiskdError],
    reason: str,
    act: Callable[[AsyncClient], Any],
) -> None:
    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(error) as caught:
            await act(client)
        assert caught.value.reason == reason
        assert caught.value.message

    run(connect, target, scenario)


@both
def test_unknown_accounts_and_stale_marks_are_answers(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        stranger = await client.check_order(99, "BTC-PERP", "buy", 1, 65000)
        assert (stranger.accepted, stranger.reason) == (False, Reason.ACCOUNT_UNKNOWN)
        older = await client.report_marks({"BTC-PERP": Mark(64000, time_ns=NOW_NS - 1)})
        assert older.refusals == {"BTC-PERP": Reason.MARK_OUT_OF_ORDER}

    run(connect, target, scenario)


@pytest.fixture
def textbook() -> Iterator[str]:
    settings = Settings(control_address="127.0.0.1:0", rulebooks=("textbook",), durability="none")
    with serving(settings, build_engine(settings)) as port:
        yield f"127.0.0.1:{port}"


def test_the_example_of_the_readme_runs(textbook: str, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = readme.split("```python\n")[1].split("```")[0]
    exec(example.replace("localhost:50051", textbook), {})
    assert "accepted=True" in capsys.readouterr().out


def test_the_first_order_example_runs(textbook: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "examples" / "first_order.py"))["main"]
    main(textbook)
    shown = capsys.readouterr().out
    assert "buy 0.5 at 50000: ACCEPTED (NONE)" in shown
    # 0.2 * 50000 / 10
    assert "initial margin 1000" in shown
    assert "buy 50 at 50000: REJECTED (MARGIN_INSUFFICIENT)" in shown


@both
def test_an_amendment_changes_a_working_order_as_a_delta(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        order = await client.check_order(1, "BTC-PERP", "buy", "0.1", "65000")
        amended = await client.check_amendment(order, "0.2", "64000")
        assert (amended.accepted, amended.reservation_id) == (True, order.reservation_id)
        # 0.2 at 64000 at 10x instead of 0.1 at 65000: 1280 - 650.
        assert amended.reserved == D(630)
        refused = await client.check_amendment(order, 5, "64000")
        assert refused.reason is Reason.MARGIN_INSUFFICIENT
        # 10000 at 10x buys 100000 at 64000: 1.5625, floored to a lot of 0.001.
        assert refused.max_quantity == D("1.562")
        held = await client.get_reservation(reservation_id=order.reservation_id)
        assert (held.quantity, held.price) == (D("0.2"), D(64000))

    run(connect, target, scenario)


@both
def test_stops_hedge_mode_and_a_batch(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        changed = await client.change_position_mode(1, "hedge")
        assert changed.position_mode is PositionMode.HEDGE
        batch = await client.batch_check_orders(
            [
                NewOrder(1, "BTC-PERP", "buy", "0.2", "65000", position_side="long"),
                NewOrder(1, "BTC-PERP", "sell", "0.1", "65000", position_side="short"),
            ],
            all_or_none=True,
        )
        assert [order.accepted for order in batch.decisions] == [True, True]
        for execution_id, order in enumerate(batch.decisions, 1):
            quantity = ("0.2", "0.1")[execution_id - 1]
            await client.report_fill(order, "65000", quantity, execution_id=execution_id)
        positions = await client.position_margins(1)
        assert [(row.position_side, row.quantity) for row in positions] == [
            (PositionSide.LONG, D("0.2")),
            (PositionSide.SHORT, D("-0.1")),
        ]
        # A stop that only closes holds nothing.
        stop = await client.check_order(
            1,
            "BTC-PERP",
            "sell",
            order_type="stop",
            trigger_price="60000",
            position_side="long",
            close_position=True,
        )
        assert (stop.accepted, stop.reserved, stop.quantity) == (True, D(0), D("0.2"))
        # 0.1 bought back at 64000 instead of 65000, then corrected to 64500.
        closing = await client.check_order(
            1, "BTC-PERP", "buy", "0.1", "64000", position_side="short"
        )
        await client.report_fill(closing, "64000", "0.1", execution_id=3)
        assert (await client.get_account(1)).cash == D(10_100)
        corrected = await client.report_correction(
            closing, "64500", "0.1", execution_id=4, original_execution_id=3
        )
        assert (corrected.accepted, corrected.position) == (True, D(0))
        assert (await client.get_account(1)).cash == D(10_050)
        bust = await client.report_bust(closing, execution_id=5, original_execution_id=4)
        assert (bust.accepted, bust.position) == (True, D("-0.1"))
        # Undone by a fill at the same price the other way: short again, at 64500.
        assert (await client.get_account(1)).cash == D(10_050)
        price = await client.liquidation_price(1, "BTC-PERP", position_side="short")
        assert price.status is not LiquidationStatus.NO_POSITION
        size = await client.max_order_size(1, "BTC-PERP", "sell", position_side="long")
        assert size.quantity == D("0.2")

    run(connect, target, scenario)


@both
def test_limits_of_a_firm_and_its_account(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        firm = await client.create_firm(1, "USDT")
        assert (firm.firm_id, firm.settlement_asset) == (1, "USDT")
        assert [row.firm_id async for row in client.list_firms()] == [1]
        await client.create_account(2, "USDT")
        owned = await client.set_account_owner(1, firm=1)
        assert (owned.firm_id, owned.parent_account_id) == (1, 0)
        child = await client.set_account_owner(2, firm=1, parent=1)
        assert (child.firm_id, child.parent_account_id) == (1, 1)
        await client.set_limit(Scope.firm(1), "gross_exposure_max", 30_000)
        with pytest.raises(FailedPrecondition) as looser:
            await client.set_limit(Scope.account(1), "gross_exposure_max", 30_001)
        assert looser.value.reason == "LIMIT_LOOSER_THAN_PARENT"
        order = await client.check_order(1, "BTC-PERP", "buy", "0.4", "65000")
        assert order.accepted
        refused = await client.check_order(1, "BTC-PERP", "buy", "0.1", "65000", view="full")
        assert refused.reason is Reason.LIMIT_GROSS_EXPOSURE_MAX
        # 26000 of 30000 work; 0.061 more is 3965, 0.062 would be 4030.
        assert refused.max_quantity == D("0.061")
        assert refused.detail is not None
        (violation,) = refused.detail.violations
        assert (violation.scope, violation.unit) == (Scope.firm(1), Unit.MONEY)
        assert (violation.limit, violation.use, violation.order_use) == (
            D(30_000),
            D(26_000),
            D(6_500),
        )
        (limit,) = [row async for row in client.list_limits(Scope.firm(1))]
        assert (limit.use, limit.remaining) == (D(26_000), D(4_000))
        raised = await client.raise_limit(
            Scope.firm(1), "gross_exposure_max", 40_000, NOW_NS + 3_600 * 10**9
        )
        assert (raised.limit.value, raised.limit.bound) == (D(30_000), D(40_000))
        await client.remove_limit(Scope.firm(1), "gross_exposure_max")
        assert [row async for row in client.list_limits()] == []
        newest, *_ = [row async for row in client.list_changes(Scope.firm(1))]
        assert newest.method == "RemoveLimit"
        assert newest.changes["value"] == ("30000", "")

    run(connect, target, scenario)


@both
def test_a_decision_is_explained(connect: Connect, tmp_path: Path) -> None:
    settings = Settings(
        control_address="127.0.0.1:0",
        durability="process",
        journal_directory=str(tmp_path / "journal"),
    )

    async def scenario(client: AsyncClient) -> None:
        await client.set_limit(Scope.account(1), "order_quantity_max", "0.4", symbol="BTC-PERP")
        order = await client.check_order(1, "BTC-PERP", "buy", "0.5", "65000", client_order_id=42)
        assert not order.accepted
        found = await client.explain_decision(order.revision)
        assert (found.revision, found.equal, found.execution) == (order.revision, True, None)
        (again,) = found.decisions
        assert (again.reason, again.client_order_id) == (order.reason, 42)
        assert again.detail is not None
        assert [row.limit for row in again.detail.violations] == [D("0.4")]
        assert [row.cash for row in found.accounts] == [D(10_000)]
        assert [row.bound for row in found.limits] == [D("0.4")]
        with pytest.raises(NotFound):
            await client.explain_decision(1)
        small = await client.check_order(1, "BTC-PERP", "buy", "0.4", "65000")
        amended = await client.check_amendment(small, "0.3", "65000")
        (again,) = (await client.explain_decision(amended.revision)).decisions
        assert again.accepted
        fill = await client.report_fill(amended, "65000", "0.3", execution_id=9)
        explained = await client.explain_decision(fill.revision)
        assert explained.execution == fill
        assert [row.working_buy_quantity for row in explained.positions] == [D("0.3")]

    engine = build_engine(settings)
    with serving(settings, engine, itertools.count(NOW_NS, 1_000_000).__next__) as port:
        run(connect, f"127.0.0.1:{port}", scenario)
    engine.close_journal()


@both
def test_a_lease_and_the_sweep_of_orphans(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        lease = await client.renew_gateway_lease(60_000, LeaseAction.CANCEL)
        (gateway,) = [row async for row in client.list_gateways()]
        assert (gateway.gateway_id, gateway.lease_end_time_ns) == (1, lease.end_time_ns)
        assert (gateway.lease_action, gateway.orders_released) == (LeaseAction.CANCEL, False)
        known = await client.check_order(1, "BTC-PERP", "buy", "0.1", "65000")
        orphan = await client.check_order(1, "BTC-PERP", "buy", "0.1", "65000")
        swept = await client.cancel_orders(gateway=1, keep=[known.reservation_id])
        assert (swept.count, swept.reservation_ids) == (1, (orphan.reservation_id,))
        assert (await client.renew_gateway_lease(0)).end_time_ns == 0
        balance = await client.create_asset("BNB", 8)
        paid = await client.adjust_collateral(1, balance.symbol, "1.5")
        assert paid.account.balances == {"BNB": D("1.5")}
        fill = await client.report_fill(
            known, "65000", "0.1", execution_id=1, fee="0.01", fee_asset="BNB"
        )
        assert fill.accepted
        assert (await client.get_account(1)).balances == {"BNB": D("1.49")}

    run(connect, target, scenario)


@both
def test_a_portfolio_that_need_not_exist(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        held = await client.simulate_portfolio(1)
        assert held.summary == await client.margin_summary(1)
        tried = await client.simulate_portfolio(
            settlement_asset="USDT",
            balances={"USDT": "10000"},
            positions=[
                SimulatedPosition(
                    "BTC-PERP",
                    "0.1",
                    "65000",
                    margin_mode="isolated",
                    isolated_wallet="325",
                    leverage=20,
                )
            ],
            orders=[
                SimulatedOrder("BTC-PERP", "sell", "0.05", "65000"),
                SimulatedOrder("BTC-PERP", "buy", "1"),
            ],
            marks={"BTC-PERP": Mark("65000")},
        )
        # (6500 - 325) / (0.1 * 0.995) = 62060.30..., down to a mark unit of 0.001
        assert tried.positions[0].liquidation_price == D("62060.301")
        assert [each.accepted for each in tried.decisions] == [True, True]
        assert tried.summary.working_order_count == 2
        assert (await client.margin_summary(1)).working_order_count == 0
        with pytest.raises(InvalidArgument) as caught:
            await client.simulate_portfolio(1, positions=[SimulatedPosition("BTC-PERP", "1")])
        assert "positions[0].entry_price" in caught.value.message

    run(connect, target, scenario)


@both
def test_families_collateral_credit_funding_and_settlement(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        written = dataclasses.replace(
            SCHEDULE,
            name="linear",
            tiers=SCHEDULE.tiers[:1],
            family=MarginFamily.SIZE_LINEAR,
            parameters={"initial_rate_per_lot": D("1e-9"), "maintenance_rate_per_lot": D(0)},
        )
        read = await client.upsert_margin_schedule(written)
        assert read.parameters == {
            "initial_rate_per_lot": D("1e-9"),
            "maintenance_rate_per_lot": D(0),
        }
        rule = await client.upsert_option_rule(
            OptionRule(
                name="short",
                settlement_asset="USDT",
                initial_rate=D("0.15"),
                initial_rate_min=D("0.1"),
                maintenance_rate=D("0.075"),
            )
        )
        assert (await client.list_option_rules()) == (rule,)
        await client.create_asset("BNB", 8)
        collateral = Collateral(
            asset="BNB",
            settlement_asset="USDT",
            index="BTC-PERP",
            tiers=(CollateralTier(D(0), D("0.9")),),
        )
        assert await client.define_collateral(collateral) == collateral
        assert await client.list_collateral() == (collateral,)
        await client.report_open_interest("BTC-PERP", "12.5")
        line = await client.set_credit_line(Scope.account(1), 500)
        assert (line.amount, line.used) == (D(500), D(0))
        await client.load_position(1, "BTC-PERP", "0.1", "6500")
        summary = await client.margin_summary(1)
        assert (summary.credit_line, summary.margin_level) == (D(500), MarginLevel.SAFE)
        time_ns = NOW_NS
        paid = await client.apply_funding("BTC-PERP", "0.0001", time_ns, price="65000")
        assert (paid.position_count, paid.paid, paid.received) == (1, D("0.65"), D(0))
        with pytest.raises(FailedPrecondition) as caught:
            await client.apply_funding("BTC-PERP", "0.0001", time_ns)
        assert caught.value.reason == "FUNDING_OUT_OF_ORDER"
        await client.engage_kill_switch(Scope.instrument("BTC-PERP"))
        settled = await client.settle_instrument("BTC-PERP", "66000")
        assert (settled.position_count, settled.profit) == (1, D(100))

    run(connect, target, scenario)


@both
def test_risk_events_are_watched(connect: Connect, target: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.load_position(1, "BTC-PERP", "1", "65000")
        await client.set_margin_levels("1.5", "2")
        watch = client.watch_risk_events(1)
        first = await anext(watch)
        assert not first.events
        # 10000 - 9500 is below 1.5 times 0.005 * 55500 and above 277.5
        await client.report_marks({"BTC-PERP": Mark("55400", time_ns=NOW_NS)})
        told = await anext(watch)
        assert [each.level_after for each in told.events] == [MarginLevel.SEARCH]
        assert (told.events[0].equity, told.events[0].requirement) == (D(400), D(277))

    run(connect, target, scenario)
