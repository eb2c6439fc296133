"""Laws of funding, settlement, modes, levels, collateral and credit (docs/instruments.md).

On the compiled engine: the streams of tests/differential hold the reference to it.
"""

from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from riskd.core.engine import METHOD_CHECK_ORDER, METHOD_REPORT_MARKS, Engine
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t

NOW = 1_750_000_000 * 10**9
NONE = t.REASON_CODE_NONE
BILLION = 10**9
CASH = 10**12
LINEAR, INVERSE = 1, 3
PERPETUALS = {LINEAR: 1, INVERSE: 2}
USD, COIN = 1, 2
CROSS, ISOLATED = 1, 2
ACCOUNTS = (1, 2, 3, 4)


class Loaded(NamedTuple):
    """A position of an account of its number, in lots of about 1,000,000 minor units each."""

    lots: int
    wallet: int
    profit: int


def room() -> Engine:
    """Return an engine with a linear and an inverse perpetual marked at 1,000 ticks."""
    engine = Engine(
        accounts_max=8,
        positions_max=20,
        orders_max=40,
        instruments_max=4,
        schedules_max=4,
        gateways_max=4,
        balances_max=8,
        answer_bytes=8192,
    )
    assert engine.create_asset("USD", 2) == (NONE, USD)
    assert engine.create_asset("COIN", 8) == (NONE, COIN)
    tiers = [(0, 20_000_000, 10_000_000, 5000)]
    assert engine.upsert_schedule("usd", USD, tiers) == (NONE, 1)
    assert engine.upsert_schedule("coin", COIN, tiers) == (NONE, 2)
    # A lot is worth 1,000,000 of either at 1,000 ticks; a tick has 10 mark units.
    listed = engine.upsert_instrument("PERP", LINEAR, USD, 1, 1, 0, 10, 0, 10)
    assert listed == (NONE, 1)
    listed = engine.upsert_instrument("INVERSE", INVERSE, COIN, 2, 1, 0, 10, 0, 10)
    assert listed == (NONE, 2)
    report(engine, 1, 10_000)
    report(engine, 2, 10_000)
    return engine


def report(engine: Engine, instrument_id: int, price: int) -> None:
    mark = market_pb.Mark(instrument_id=instrument_id, mark_price=price, time_ns=NOW)
    request = market_pb.ReportMarksRequest(marks=[mark])
    engine.handle(METHOD_REPORT_MARKS, request.SerializeToString(), NOW)


def buy(engine: Engine, client_order_id: int, lots: int, instrument_id: int = 1) -> int:
    """Send an order of account 1 at 1,000 ticks; return its reservation, or 0."""
    order = orders_pb.CheckOrderRequest(
        account_id=1,
        instrument_id=instrument_id,
        client_order_id=client_order_id,
        gateway_id=1,
        side=t.SIDE_BUY,
        order_type=t.ORDER_TYPE_LIMIT,
        price_ticks=1000,
        quantity_lots=lots,
    )
    reply = engine.handle(METHOD_CHECK_ORDER, order.SerializeToString(), NOW)
    return orders_pb.CheckOrderResponse.FromString(reply).reservation_id


def fill(
    engine: Engine,
    kind: int,
    positions: list[Loaded],
    mode: int | None = None,
    cash: int = CASH,
) -> None:
    """Give accounts of odd numbers cross, of even ones isolated positions; or all one mode."""
    asset_id = USD if kind == LINEAR else COIN
    for account_id, loaded in zip(ACCOUNTS, positions, strict=False):
        own = mode or (CROSS if account_id % 2 else ISOLATED)
        assert engine.create_account(account_id, asset_id, own, 1000, cash) == NONE
        if loaded.lots == 0:
            continue
        entry = 1_000_000 * abs(loaded.lots) + loaded.profit
        reason, _, _ = engine.load_position(
            *(account_id, PERPETUALS[kind], 0, loaded.lots, entry),
            loaded.wallet if own == ISOLATED else 0,
            now_ns=NOW,
        )
        assert reason == NONE


def money(engine: Engine) -> int:
    """Return cash and wallets of all accounts."""
    return sum(
        row.cash + sum(each.isolated_wallet for each in engine.positions(row.account_id) or [])
        for row in engine.accounts(0, 100)
    )


lots = st.integers(-500, 500)
loads = st.builds(Loaded, lots, st.integers(0, 10**8), st.integers(-400_000, 400_000))
many = st.lists(loads, min_size=4, max_size=4)
kinds = st.sampled_from((LINEAR, INVERSE))


@given(kinds, many, st.integers(-BILLION, BILLION), st.integers(1, 10**7))
def test_funding_takes_no_less_than_it_gives(
    kind: int, positions: list[Loaded], rate: int, price: int
) -> None:
    """Where longs and shorts are as many, all that is left over are roundings."""
    positions[3] = positions[3]._replace(lots=-sum(each.lots for each in positions[:3]))
    engine = room()
    fill(engine, kind, positions)
    before = money(engine)
    row = engine.apply_funding(PERPETUALS[kind], rate, price, NOW, now_ns=NOW)
    assert row.reason == NONE
    assert money(engine) == before - row.paid + row.received
    assert row.positions == sum(each.lots != 0 for each in positions)
    assert 0 <= row.paid - row.received <= row.positions


@given(kinds, many, st.integers(1, 10**6))
def test_a_settlement_leaves_nothing_behind_and_makes_no_money(
    kind: int, positions: list[Loaded], price: int
) -> None:
    engine = room()
    fill(engine, kind, positions)
    instrument_id = PERPETUALS[kind]
    accepted = buy(engine, 1, 1, instrument_id) != 0
    assert engine.set_trading_state(4, instrument_id, t.TRADING_STATE_HALTED) == NONE
    before = money(engine)
    row = engine.settle_instrument(instrument_id, price, now_ns=NOW)
    assert row.reason == NONE
    assert row.orders == accepted
    assert money(engine) == before + row.profit - row.loss + row.deficit
    assert all(engine.positions(account_id) == [] for account_id in ACCOUNTS)
    words = {line.split()[0] for line in engine.state_lines()}
    assert not words & {"position", "order"}


@given(kinds, many, st.integers(1, 10**6))
def test_a_bankrupt_isolated_position_costs_nobody_else(
    kind: int, positions: list[Loaded], price: int
) -> None:
    engine = room()
    fill(engine, kind, positions, ISOLATED)
    instrument_id = PERPETUALS[kind]
    assert engine.set_trading_state(4, instrument_id, t.TRADING_STATE_HALTED) == NONE
    row = engine.settle_instrument(instrument_id, price, now_ns=NOW)
    assert row.reason == NONE
    assert all(account.cash >= CASH for account in engine.accounts(0, 100))
    wallets = sum(each.wallet for each in positions if each.lots)
    assert row.deficit <= max(0, row.loss)
    assert row.loss - row.deficit <= wallets


@given(loads, loads, loads, st.integers(1, 30_000), st.integers(1, 30_000))
def test_the_pool_is_blind_to_isolated_positions_and_they_to_it(
    cross: Loaded, other: Loaded, isolated: Loaded, price: int, elsewhere: int
) -> None:
    """Account 1 has two cross positions and an isolated one, 2 the cross ones, 3 the isolated."""
    engine = room()
    for instrument_id, name in ((3, "SECOND"), (4, "THIRD")):
        listed = engine.upsert_instrument(name, LINEAR, USD, 1, 1, 0, 10, 0, 10)
        assert listed == (NONE, instrument_id)
        report(engine, instrument_id, 10_000)
    held = {1: (cross, other, isolated), 2: (cross, other, None), 3: (None, None, isolated)}
    for account_id, positions in held.items():
        assert engine.create_account(account_id, USD, CROSS, 1000, CASH) == NONE
        switched = engine.change_margin_mode(account_id, 4, ISOLATED, False, NOW)
        assert switched[0] == NONE
        for instrument_id, each in zip((1, 3, 4), positions, strict=True):
            if each is not None and each.lots:
                entry = 1_000_000 * abs(each.lots) + each.profit
                wallet = each.wallet if instrument_id == 4 else 0
                loaded = engine.load_position(
                    account_id, instrument_id, 0, each.lots, entry, wallet, now_ns=NOW
                )
                assert loaded[0] == NONE
    report(engine, 1, price)
    report(engine, 3, elsewhere)
    report(engine, 4, elsewhere)
    both, pool = engine.summary(1), engine.summary(2)
    assert both is not None
    assert pool is not None
    wallets = isolated.wallet if isolated.lots else 0
    assert both.isolated_wallets == wallets
    assert both._replace(account_id=2, isolated_wallets=0) == pool
    rows = {account_id: engine.positions(account_id) or [] for account_id in held}
    assert [row for row in rows[1] if row.lots] == [
        row for account_id in (2, 3) for row in rows[account_id] if row.lots
    ]


@given(kinds, many, st.sampled_from((CROSS, ISOLATED)))
def test_a_switch_of_mode_only_moves_money(kind: int, positions: list[Loaded], mode: int) -> None:
    """What it would come to is what it comes to; a refusal changes nothing; and back again."""
    engine = room()
    fill(engine, kind, positions)
    for account_id in ACCOUNTS:
        arguments = account_id, PERPETUALS[kind], mode
        before = money(engine)
        account = engine.account(account_id)
        assert account is not None
        state = engine.state_hash()
        promised = engine.change_margin_mode(*arguments, True, NOW)
        assert engine.state_hash() == state
        assert engine.change_margin_mode(*arguments, False, NOW) == promised
        reason, wallet, _, flow = promised
        after = engine.account(account_id)
        assert after is not None
        assert money(engine) == before
        assert after.cash == account.cash + flow
        if reason != NONE:
            assert engine.state_hash() == state
        elif mode == CROSS:
            assert wallet == 0


@given(
    st.integers(1, 500),
    st.integers(1_000_001, 5_000_000),
    st.integers(1, 5_000_000),
    st.lists(st.integers(9_000, 11_000), min_size=2, max_size=12),
)
def test_levels_do_not_flap(size: int, search: int, gap: int, prices: list[int]) -> None:
    """An evaluation changes a level only where equity has crossed what the level looks at."""
    engine = room()
    fill(engine, LINEAR, [Loaded(size, 0, 0)], cash=60_000 * size)
    assert engine.set_margin_levels(search, search + gap) == NONE
    level = 0
    for price in prices:
        report(engine, 1, price)
        revision = engine.revision
        _, count = engine.evaluate_levels(0, 10, NOW)
        rows, _ = engine.risk_events(revision, 0, 10)
        assert len(rows) == count <= 1
        assert engine.evaluate_levels(0, 10, NOW) == (0, 0)
        summary = engine.summary(1)
        assert summary is not None
        equity = summary.cash + summary.cross_pnl
        requirement = summary.cross_liquidation_requirement
        for row in rows:
            assert (row.level_before, row.equity, row.requirement) == (level, equity, requirement)
            level = row.level_after
        if equity <= requirement:
            assert level == 2
        elif equity >= summary.release_level:
            assert level == 0
        elif equity * 10**6 <= requirement * search:
            assert level != 0
        else:
            assert level != 2


tiers = st.lists(
    st.tuples(st.integers(1, 2**62), st.integers(0, BILLION)), min_size=1, max_size=8
).map(
    lambda pairs: tuple(
        zip(
            [0, *sorted({floor_ for floor_, _ in pairs})[: len(pairs) - 1]],
            sorted((weight for _, weight in pairs), reverse=True),
            strict=False,
        )
    )
)


@given(
    tiers,
    st.integers(0, 2**62),
    st.integers(BILLION, 10 * BILLION),
    st.integers(1, 2**53),
    st.lists(st.integers(1, 2**62), min_size=3, max_size=3),
)
def test_collateral_is_exact_monotone_and_concave(
    levels: tuple[tuple[int, int], ...],
    cap: int,
    liability: int,
    price: int,
    balances: list[int],
) -> None:
    engine = room()
    assert engine.create_account(1, USD, CROSS, 1000, 0) == NONE
    assert engine.define_collateral(COIN, USD, 1, levels, cap, liability) == NONE
    report(engine, 1, price)
    # A price of 1/10 unit of USD with 2 decimals, over COIN with 8.
    unit = Fraction(price * 10**2, 10 * 10**8)

    def weighted(balance: int) -> Fraction:
        held = min(balance, cap) if cap else balance
        tops = [floor_ for floor_, _ in levels[1:]] + [held]
        parts = [
            weight * max(0, min(held, top) - floor_)
            for (floor_, weight), top in zip(levels, tops, strict=True)
        ]
        return sum(parts) * unit / BILLION

    low, high = sorted(balances)[::2]
    points = sorted({low, (low + high) // 2, high})
    values = []
    held = 0
    for balance in points:
        reason, now_held, _ = engine.adjust_collateral(1, COIN, balance - held, False, NOW)
        if balance == held:
            continue
        assert (reason, now_held) == (NONE, balance)
        held = balance
        rows = engine.collateral_values(1)
        assert rows is not None
        value = floor(weighted(balance))
        values.append(value)
        assert rows == [(COIN, balance, min(value, 2**63 - 1))]
    assert values == sorted(values)
    slopes = [
        Fraction(after - before, later - earlier)
        for (earlier, before), (later, after) in pairwise(zip(points, values, strict=True))
    ]
    spans = [later - earlier for earlier, later in pairwise(points)]
    for (first, second), (one, other) in zip(pairwise(slopes), pairwise(spans), strict=True):
        # But for the rounding of each value.
        assert second <= first + Fraction(1, one) + Fraction(1, other)


@given(
    st.integers(1, 10**12),
    st.integers(0, BILLION),
    st.integers(1, 10**6),
    st.lists(st.integers(-500, 500), min_size=2, max_size=4),
)
def test_collateral_counts_less_the_more_is_lost_beside_it(
    balance: int, wrong_way: int, price: int, lots_held: list[int]
) -> None:
    def value(lots: int, wrong_way_ppb: int) -> int:
        engine = room()
        listed = engine.upsert_instrument("ABOUT", LINEAR, USD, 1, 1, 0, 10, 0, 10, base_asset_id=2)
        assert listed == (NONE, 3)
        report(engine, 3, price)
        assert engine.create_account(1, USD, CROSS, 1000, CASH) == NONE
        levels = [(0, 950_000_000)]
        defined = engine.define_collateral(COIN, USD, 1, levels, wrong_way_ppb=wrong_way_ppb)
        assert defined == NONE
        assert engine.adjust_collateral(1, COIN, balance, False, NOW)[0] == NONE
        if lots != 0:
            entry = 1_000_000 * abs(lots)
            assert engine.load_position(1, 3, 0, lots, entry, 0, now_ns=NOW)[0] == NONE
        ((_, _, counted),) = engine.collateral_values(1) or []
        assert counted is not None
        return counted

    unexposed = value(0, 0)
    values = [value(lots, wrong_way) for lots in sorted(lots_held)]
    assert values == sorted(values, reverse=True)
    for lots, counted in zip(sorted(lots_held), values, strict=True):
        assert unexposed - ceil(Fraction(unexposed * wrong_way, BILLION)) <= counted <= unexposed
        if lots <= 0 or wrong_way == 0:
            assert counted == unexposed


@given(st.integers(1, 2**62), st.integers(BILLION, 10 * BILLION), st.integers(1, 2**53))
def test_a_debt_counts_exactly_what_its_liability_says(
    debt: int, liability: int, price: int
) -> None:
    engine = room()
    assert engine.create_account(1, USD, CROSS, 1000, CASH) == NONE
    reservation = buy(engine, 1, 1)
    assert engine.define_collateral(COIN, USD, 1, ((0, 1),), 0, liability) == NONE
    fee = min(debt, 2**53)
    execution = orders_pb.ReportExecutionRequest(
        gateway_id=1,
        execution_id=1,
        reservation_id=reservation,
        kind=orders_pb.EXECUTION_KIND_FILL,
        price_ticks=1000,
        quantity_lots=1,
        fee_minor=fee,
        fee_asset_id=COIN,
    )
    engine.handle(2, execution.SerializeToString(), NOW)
    report(engine, 1, price)
    value = -ceil(Fraction(fee * price * 10**2 * liability, 10 * 10**8 * BILLION))
    assert engine.collateral_values(1) == [(COIN, -fee, max(value, -(2**63)))]


steps = st.lists(
    st.tuples(st.sampled_from(("deposit", "line", "firm", "order")), st.integers(0, 3 * 10**6)),
    min_size=1,
    max_size=20,
)


@given(steps, st.integers(1, 10**7))
def test_credit_is_never_paid_out(moves: list[tuple[str, int]], withdrawal: int) -> None:
    """Whatever lines and orders there are, no more goes out than came in."""
    engine = room()
    assert engine.create_account(1, USD, CROSS, 1000, 0) == NONE
    assert engine.create_firm(1, USD) == NONE
    assert engine.set_account_owner(1, 1, 0, NOW) == NONE
    held = 0
    for number, (what, amount) in enumerate(moves, start=1):
        if what == "deposit" and amount:
            assert engine.adjust_collateral(1, USD, amount, False, NOW)[0] == NONE
            held += amount
        elif what == "line":
            assert engine.set_credit_line(3, 1, amount) == NONE
        elif what == "firm":
            assert engine.set_credit_line(5, 1, amount) == NONE
        elif what == "order":
            buy(engine, number, 1 + amount // 10**6)
        reason, cash, _ = engine.adjust_collateral(1, USD, -withdrawal, False, NOW)
        if reason == NONE:
            held -= withdrawal
        assert cash == held >= 0
        account, summary = engine.account(1), engine.summary(1)
        assert account is not None
        assert summary is not None
        need = summary.initial_margin - held
        assert account.credit_used == (max(0, need) if account.credit_line else 0)
        assert engine.firms()[0].credit_used == account.credit_used
