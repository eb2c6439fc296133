"""Families of schedules in the reference against venues' examples and figures by hand."""

import random
from fractions import Fraction
from typing import Any

import mpmath  # type: ignore[import-untyped]
import pytest

from riskd.core.engine import Engine
from riskd.core.rows import InstrumentRow, ScheduleRow
from riskd.reference import ReferenceEngine
from riskd.reference.families import Rates, rates_of, tier_ladder
from riskd.reference.margin import Contract, Side, can_be_liquidated, liquidation_price
from riskd.reference.numbers import BILLION
from riskd.v1 import types_pb2 as t
from tests.unit.contract_desk import CONTRACT, ContractDesk, Tiers
from tests.unit.reference_desk import BUY, CROSS, ISOLATED, NOW, SELL

TIERED, WHOLE, BY_LOTS, SIZE_LINEAR, PER_CONTRACT, OPEN_INTEREST, ROOT, POWER, RISK = range(1, 10)
LINEAR_PERPETUAL, INVERSE_PERPETUAL = 1, 3
STEPS: Tiers = [
    (0, 30_000_000, 10_000_000, 3_000),
    (1_000, 60_000_000, 20_000_000, 1_500),
    (5_000, 150_000_000, 50_000_000, 600),
]


def schedule(
    family: int,
    tiers: Tiers = STEPS,
    a: int = 0,
    b: int = 0,
    c: int = 0,
    *,
    fee: int = 0,
    basis: int = 1,
) -> ScheduleRow:
    ladder = tier_ladder(family, tiers, fee)
    assert ladder is not None
    return ScheduleRow(1, "s", 1, 1, 0, fee, ladder, family, basis, a, b, c)


def rates(
    row: ScheduleRow, *, sign: int = 1, lots: int = 0, notional: int = 0, open_interest: int = 0
) -> Rates:
    return rates_of(row, 0, open_interest, sign, lots, notional)


def one_tier(initial: int, maintenance: int) -> Tiers:
    return [(0, initial, maintenance, 10_000)]


# --- Rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lots", "ppb"),
    [(0, 10), (1, 10), (2000, 10), (2001, 15), (4000, 15), (4001, 20), (8000, 20)],
)
def test_tiers_of_lots_are_those_of_okx(lots: int, ppb: int) -> None:
    # Source: freqtrade tests/exchange/test_okx.py, ETH: 1, 1.5 and 2 per cent to 2000, 4000, 8000.
    tiers = [
        (0, 0, 10_000_000, 2_000),
        (2000, 0, 15_000_000, 2_000),
        (4000, 0, 20_000_000, 2_000),
    ]
    found = rates(schedule(BY_LOTS, tiers), lots=lots, notional=10**12)
    assert (found.maintenance_ppb, found.deduction) == (ppb * 1_000_000, 0)


def test_a_whole_tier_jumps_at_its_floor() -> None:
    row = schedule(WHOLE)
    assert rates(row, notional=1_000) == (30_000_000, 10_000_000, 0, 0, 0)
    assert rates(row, notional=1_001) == (60_000_000, 20_000_000, 0, 0, 1)


@pytest.mark.parametrize(
    ("base", "slope", "size", "expected"),
    [
        # Lots of 0.001 BTC and 0.1 SOL. Source: support.deribit.com, article 25944738177565.
        (20_000_000, 50_000_000, 25_000, 21_250_000),
        (20_000_000, 50_000_000, 350_000, 37_500_000),
        (40_000_000, 500_000_000, 250, 40_125_000),
        (40_000_000, 500_000_000, 60_000, 70_000_000),
    ],
)
def test_rates_that_grow_by_the_lot_are_those_of_deribit(
    base: int, slope: int, size: int, expected: int
) -> None:
    row = schedule(SIZE_LINEAR, one_tier(base, base // 2), slope, slope)
    found = rates(row, lots=size)
    assert found.initial_ppb == expected
    assert found.maintenance_ppb == expected - base // 2


def test_rates_by_size_stay_below_one() -> None:
    row = schedule(SIZE_LINEAR, one_tier(20_000_000, 10_000_000), 10**15, 10**15, fee=1)
    assert rates(row, lots=2**53)[:2] == (BILLION, BILLION - 2)


@pytest.mark.parametrize(
    ("ppm", "notional", "expected"),
    [
        (200_000, 500_000, 100_000),
        (500_000, 10**6, 500_000),
        (100_000, 1, 1),
        (567_243, 123_456, 70_030),
    ],
)
def test_initial_margin_without_open_interest_is_that_of_dydx(
    ppm: int, notional: int, expected: int
) -> None:
    # Source: dydxprotocol/v4-chain, protocol/x/perpetuals/types/liquidity_tier_test.go:253.
    row = schedule(OPEN_INTEREST, one_tier(ppm * 1000, 10_000_000))
    found = rates(row, open_interest=10**15)
    assert -(-notional * found.initial_ppb // BILLION) == expected


@pytest.mark.parametrize(
    ("open_interest", "expected"),
    [
        (0, 200_000_000),
        (25, 200_000_000),
        (30, 360_000_000),  # 0.2 + 0.8 * (30 - 25) / (50 - 25)
        (50, 1_000_000_000),
        (51, 1_000_000_000),
    ],
)
def test_initial_margin_grows_with_open_interest(open_interest: int, expected: int) -> None:
    row = schedule(OPEN_INTEREST, one_tier(200_000_000, 10_000_000), 25, 50)
    assert rates(row, open_interest=open_interest).initial_ppb == expected


def test_what_open_interest_adds_is_cut_to_whole_ppm() -> None:
    # 0.8 / 3 = 0.2666666666 is cut to 266_666 ppm.
    row = schedule(OPEN_INTEREST, one_tier(200_000_000, 10_000_000), 0, 3)
    assert rates(row, open_interest=1).initial_ppb == 466_666_000


def test_rates_grow_with_the_root_of_the_size() -> None:
    # Lots of 0.01: c = 10^10. 40,000 lots are a size of 400, the root 20. a = 5 * 10^5: 0.0005 of
    # a root of 1. 0.8 * 0.05 + 0.01 = 0.05; one lot more rounds up.
    row = schedule(ROOT, one_tier(50_000_000, 30_000_000), 500_000, 0, 10**10)
    assert rates(row, lots=40_000)[:2] == (50_000_000, 34_000_000)
    # isqrt(40_001 * 10^10) = 20_000_249: 10_000_124.5 ppb.
    assert rates(row, lots=40_001)[:2] == (50_000_125, 34_000_125)
    assert rates(row, lots=1)[:2] == (50_000_000, 30_000_000)


@pytest.mark.parametrize(
    ("base", "factor", "notional"),
    [(50_000_000, 2512, 5197), (50_000_000, 3754, 4915), (25_000_000, 3517, 255_000)],
)
def test_maintenance_by_a_power_is_that_of_orderly(base: int, factor: int, notional: int) -> None:
    # Source: OrderlyNetwork/js-sdk, packages/perp/__test__/positions.test.ts:254, :266 and :278.
    row = schedule(POWER, one_tier(2 * base, base), factor * 10**8, 800_000_000)
    assert rates(row, notional=notional).maintenance_ppb == base


@pytest.mark.parametrize("notional", [10**6, 12_345_678, 3 * 10**7])
def test_a_power_of_the_notional_is_that_of_a_slow_library(notional: int) -> None:
    row = schedule(POWER, one_tier(50_000_000, 25_000_000), 3517 * 10**8, 800_000_000)
    with mpmath.workdps(50):
        rate = mpmath.mpf("3.517e-7") * mpmath.mpf(notional) ** mpmath.mpf("0.8")
        expected = max(50_000_000, int(mpmath.ceil(rate * BILLION)))
    found = rates(row, notional=notional)
    assert found.initial_ppb == expected
    assert found.maintenance_ppb == max(25_000_000, -(-expected // 2))


def test_risk_factors_are_of_longs_and_of_shorts() -> None:
    # 1.5 times 1 per cent for longs and 3 per cent for shorts; 10^6 lots slip 2 * 10^-9 each: 0.2.
    row = schedule(RISK, [(0, 15_000_000, 10_000_000, 1_500)], 30_000_000, 2 * 10**6, 1_500_000_000)
    assert rates(row, sign=1)[:2] == (15_000_000, 10_000_000)
    assert rates(row, sign=-1)[:2] == (45_000_000, 30_000_000)
    assert rates(row, sign=-1, lots=10**6)[:2] == (48_000_000, 32_000_000)


# --- In the engine: one lot at one tick is 1, marks count in ticks --------------------------------


def desk_of(
    family: int, tiers: Tiers, mode: int = CROSS, cash: int = 10**9, **parameters: int
) -> ContractDesk:
    desk = ContractDesk(
        LINEAR_PERPETUAL,
        (1, 0),
        (1, 0),
        scale=0,
        tiers=tiers,
        schedule={"family": family} | parameters,
        mark_units_per_tick=1,
    )
    desk.account(mode, 10_000, cash)
    desk.mark(CONTRACT, 100)
    return desk


def test_an_amount_a_lot_is_of_the_lots_that_the_money_is_for() -> None:
    parameters = {"parameter_a": 30, "parameter_b": 20}
    desk = desk_of(PER_CONTRACT, [(0, 0, 0, 10_000)], ISOLATED, **parameters)
    # 10 lots are worth 1000: 1/100 of it is less than 300.
    order = desk.check(CONTRACT, BUY, 100, 10)
    assert order.initial_margin_minor == 300
    assert desk.fill(order.reservation_id, 100, 10).isolated_wallet_minor == 300
    # 5 more: only what they open is held.
    assert desk.check(CONTRACT, BUY, 100, 5).reserved_minor == 150
    assert desk.position.initial_margin == 450
    assert desk.position.maintenance == 200
    # 300 - 10 (100 - P) <= 200.
    assert desk.position.liquidation_price == 90
    desk.mark(CONTRACT, 200)
    assert desk.position.maintenance == 200


def test_an_amount_a_lot_is_held_for_the_whole_side_of_a_cross_position() -> None:
    parameters = {"parameter_a": 30, "parameter_b": 20}
    desk = desk_of(PER_CONTRACT, [(0, 0, 0, 10_000)], **parameters)
    desk.trade(CONTRACT, BUY, 100, 10)
    assert desk.check(CONTRACT, BUY, 100, 5).initial_margin_minor == 450
    assert desk.check(CONTRACT, SELL, 100, 26).initial_margin_minor == 480


def test_tiers_of_lots_bound_the_lots_of_a_side() -> None:
    tiers: Tiers = [(0, 0, 10_000_000, 2_000), (50, 0, 20_000_000, 1_000)]
    desk = desk_of(BY_LOTS, tiers)
    desk.trade(CONTRACT, BUY, 100, 30)
    reply = desk.check(CONTRACT, BUY, 100, 21)
    assert reply.reason == t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX
    assert reply.max_quantity_lots == 20
    (violation,) = reply.detail.violations
    assert (violation.limit, violation.use, violation.order_use) == (50, 30, 21)
    assert desk.engine.set_leverage(7, CONTRACT, 1000, False, NOW)[0] == t.REASON_CODE_NONE
    assert desk.check(CONTRACT, BUY, 100, 21).detail.tier_index == 1
    reason, *_ = desk.engine.set_leverage(7, CONTRACT, 1001, False, NOW)
    assert reason == t.REASON_CODE_LEVERAGE_OUT_OF_RANGE


def test_open_interest_raises_what_orders_need() -> None:
    tiers = one_tier(200_000_000, 10_000_000)
    desk = desk_of(OPEN_INTEREST, tiers, parameter_a=2_500, parameter_b=5_000)
    assert desk.check(CONTRACT, BUY, 100, 10, mode=2).reserved_minor == 200
    assert desk.engine.report_open_interest(CONTRACT, 30) == t.REASON_CODE_NONE
    assert desk.check(CONTRACT, BUY, 100, 10, mode=2).reserved_minor == 360
    desk.mark(CONTRACT, 50)  # 1500 are open.
    assert desk.check(CONTRACT, BUY, 50, 10, mode=2).reserved_minor == 100
    for instrument_id, lots, reason in (
        (9, 1, t.REASON_CODE_INSTRUMENT_UNKNOWN),
        (CONTRACT, -1, t.REASON_CODE_DEFINITION_INVALID),
        (CONTRACT, 2**53 + 1, t.REASON_CODE_DEFINITION_INVALID),
    ):
        assert desk.engine.report_open_interest(instrument_id, lots) == reason
    (instrument,) = desk.engine.instruments()
    assert instrument.open_interest_lots == 30


def test_maintenance_of_the_entry_does_not_move_with_the_mark() -> None:
    desk = desk_of(
        TIERED, one_tier(50_000_000, 40_000_000), ISOLATED, maintenance_basis=2,
        liquidation_fee_ppb=5_000_000,
    )  # fmt: skip
    desk.trade(CONTRACT, BUY, 100, 100)
    # W = 500, maintenance 400, 0.005 N: 500 + 100 P - 10_000 <= 0.5 P + 400 up to 99.497.
    assert desk.position.liquidation_price == 99
    desk.mark(CONTRACT, 120)
    assert desk.position.maintenance == 400
    assert desk.position.liquidation_requirement == 460
    desk.mark(CONTRACT, 99)
    assert desk.position.liquidatable


def test_a_jump_of_a_tier_liquidates_on_the_way_up() -> None:
    desk = desk_of(WHOLE, [(0, 0, 10_000_000, 2_000), (11_000, 0, 60_000_000, 1_000)], ISOLATED)
    desk.load(-100, 10_000, 1_500)
    # To 11_000 the requirement is at most 110 of 500; at 11_100 it is 666 of 400.
    assert desk.position.liquidation_price == 111
    # Further down the requirement is smaller, also for a long with little money.
    desk = desk_of(WHOLE, [(0, 0, 10_000_000, 2_000), (9_000, 0, 60_000_000, 1_000)], ISOLATED)
    desk.load(100, 10_000, 1_900)
    # At 86 the tier is the lower one: 500 against 86. At 81 it is 0 against 81; at 82, 100 to 82.
    assert desk.position.liquidation_price == 81


def test_no_money_leaves_what_could_be_liquidated() -> None:
    # The mark carries 100 lots at 20x over a floor, from which on 6 per cent are required.
    tiers: Tiers = [(0, 0, 10_000_000, 2_000), (11_000, 0, 60_000_000, 1_000)]
    desk = desk_of(WHOLE, tiers, cash=1_000)
    assert desk.engine.set_leverage(7, CONTRACT, 2_000, False, NOW)[0] == t.REASON_CODE_NONE
    desk.trade(CONTRACT, BUY, 100, 100)
    desk.mark(CONTRACT, 120)
    summary = desk.engine.summary(7)
    assert summary is not None
    # A twentieth is 600, the requirement 720.
    assert (summary.initial_margin, summary.cross_liquidation_requirement) == (720, 720)
    assert summary.available == 1_000 + 2_000 - 720
    # The same of an isolated wallet: its profit does not count.
    desk = desk_of(WHOLE, tiers, ISOLATED)
    desk.load(100, 10_000, 800)
    desk.mark(CONTRACT, 120)
    for amount, reason in (
        (-81, t.REASON_CODE_EXCEEDS_REMOVABLE_MARGIN),
        (-80, t.REASON_CODE_NONE),
    ):
        assert desk.engine.transfer_margin(7, CONTRACT, amount, False, NOW)[0] == reason


# --- Definitions ----------------------------------------------------------------------------------

GOOD: dict[int, tuple[Tiers, dict[str, int]]] = {
    TIERED: ([(0, 0, 10_000_000, 2_000), (100, 0, 20_000_000, 1_000)], {}),
    WHOLE: ([(0, 0, 10_000_000, 2_000), (101, 0, 20_000_001, 1_000)], {}),
    BY_LOTS: ([(0, 0, 10_000_000, 2_000), (2**53, 0, 20_000_000, 1_000)], {"notional_max": 1}),
    SIZE_LINEAR: (one_tier(20_000_000, 10_000_000), {"parameter_a": 10**15, "parameter_b": 10**15}),
    PER_CONTRACT: ([(0, 0, 0, 100)], {"parameter_a": 2**53, "parameter_b": 2**53 - 1}),
    OPEN_INTEREST: (one_tier(20_000_000, 10_000_000), {"parameter_a": 0, "parameter_b": 1}),
    ROOT: (one_tier(20_000_000, 10_000_000), {"parameter_a": 10**15, "parameter_c": 10**15}),
    POWER: (one_tier(20_000_000, 10_000_000), {"parameter_a": 10**18, "parameter_b": 10**9}),
    RISK: (
        [(0, 15_000_000, 10_000_000, 2_000)],
        {"parameter_a": 10_000_000, "parameter_b": 10**15, "parameter_c": 1_500_000_000},
    ),
}
BAD: list[tuple[int, Tiers | None, dict[str, int]]] = [
    *((family, [*tiers, *tiers], {}) for family, (tiers, _) in GOOD.items()),
    *((family, None, {"maintenance_basis": basis}) for family in GOOD for basis in (0, 3)),
    *((family, None, {"family": other}) for family in GOOD for other in (0, 10, 20)),
    (TIERED, [(0, 0, 10_000_000, 2_000), (101, 0, 20_000_001, 1_000)], {}),  # not whole
    (TIERED, None, {"parameter_a": 1}),
    (WHOLE, None, {"parameter_c": 1}),
    (WHOLE, None, {"notional_max": 101}),
    (BY_LOTS, [(0, 0, 10_000_000, 2_000), (2**53 + 1, 0, 20_000_000, 1_000)], {}),
    (SIZE_LINEAR, None, {"parameter_a": -1}),
    (SIZE_LINEAR, None, {"parameter_b": 10**15 + 1}),
    (SIZE_LINEAR, None, {"parameter_c": 1}),
    (SIZE_LINEAR, [(0, 0, 10_000_000, 10_000)], {}),
    (PER_CONTRACT, [(0, 1, 0, 100)], {}),
    (PER_CONTRACT, [(0, 0, 1, 100)], {}),
    (PER_CONTRACT, None, {"parameter_a": 2**53 - 1}),
    (PER_CONTRACT, None, {"parameter_a": 2**53 + 1}),
    (PER_CONTRACT, None, {"parameter_b": -1}),
    (OPEN_INTEREST, None, {"parameter_a": 1}),
    (OPEN_INTEREST, None, {"parameter_a": -1}),
    (ROOT, None, {"parameter_b": 1}),
    (ROOT, None, {"parameter_c": 10**15 + 1}),
    (POWER, None, {"parameter_a": 0}),
    (POWER, None, {"parameter_a": 10**18 + 1}),
    (POWER, None, {"parameter_b": 0}),
    (POWER, None, {"parameter_b": 10**9 + 1}),
    (POWER, [(0, 0, 10_000_000, 2_000)], {}),
    (RISK, [(0, 15_000_001, 10_000_000, 2_000)], {}),
    (RISK, None, {"parameter_a": 0}),
    (RISK, None, {"parameter_a": BILLION}),
    # The rate of a short would leave nothing of 1; so high that 1 is above it at this leverage.
    (RISK, [(0, 10**9, 900_000_000, 100)], {"parameter_a": BILLION}),
    (RISK, None, {"parameter_b": -1}),
    (RISK, None, {"parameter_c": 10**9}),
    (RISK, None, {"parameter_c": 10**12 + 1}),
]


@pytest.fixture(params=[ReferenceEngine, Engine])
def empty(request: pytest.FixtureRequest) -> Any:
    engine = request.param()
    assert engine.create_asset("X", 0) == (t.REASON_CODE_NONE, 1)
    return engine


@pytest.mark.parametrize("family", GOOD)
def test_a_schedule_of_a_family(empty: Any, family: int) -> None:
    tiers, parameters = GOOD[family]
    made = empty.upsert_schedule("new", 1, tiers, **{"family": family} | parameters)
    assert made == (t.REASON_CODE_NONE, 1)


@pytest.mark.parametrize(("family", "tiers", "change"), BAD)
def test_a_schedule_that_cannot_be(
    empty: Any, family: int, tiers: Tiers | None, change: dict[str, int]
) -> None:
    good_tiers, parameters = GOOD[family]
    parameters = {"family": family} | parameters | change
    refused = empty.upsert_schedule("new", 1, tiers or good_tiers, **parameters)
    assert refused == (t.REASON_CODE_DEFINITION_INVALID, 0)


def test_the_initial_rate_of_a_risk_factor_ends_at_one(empty: Any) -> None:
    parameters = {"family": RISK, "parameter_a": 10_000_000, "parameter_c": 2_000_000_000}
    made = empty.upsert_schedule("new", 1, [(0, 10**9, 600_000_000, 100)], **parameters)
    assert made == (t.REASON_CODE_NONE, 1)


def test_a_short_risk_factor_must_leave_room_for_the_initial_one() -> None:
    desk = desk_of(TIERED, STEPS)
    # ceil(0.5 * 1.0000001) rounds to 500_000_050; with a fee of as much there is no room.
    parameters = {"family": RISK, "parameter_a": 500_000_000, "parameter_c": 1_000_000_100}
    made = desk.engine.upsert_schedule("new", 1, [(0, 10_000_001, 10_000_000, 2_000)], **parameters)
    assert made[0] == t.REASON_CODE_NONE
    refused = desk.engine.upsert_schedule(
        "new", 1, [(0, 10_000_001, 10_000_000, 2_000)], 0, 50, **parameters
    )
    assert refused[0] == t.REASON_CODE_DEFINITION_INVALID


# --- Liquidation prices against every price -------------------------------------------------------

PRICES = range(1, 250)


def some_contract(rng: random.Random, family: int) -> Contract:
    tiers: Tiers = STEPS
    a = b = c = 0
    if family > BY_LOTS:
        tiers = one_tier(30_000_000, 10_000_000)
    elif family == BY_LOTS:
        tiers = [(k * 4, *rest) for k, (_, *rest) in enumerate(STEPS)]  # type: ignore[misc]
    if family == SIZE_LINEAR:
        a, b = 10**12, 10**12
    elif family == PER_CONTRACT:
        tiers, a, b = [(0, 0, 0, 10_000)], 30, rng.randrange(30)
    elif family == ROOT:
        a, c = 10**7, 10**12
    elif family == POWER:
        a, b = 10 ** rng.randrange(13, 16), rng.choice((5 * 10**8, 8 * 10**8, 10**9))
    elif family == RISK:
        tiers, a, c = [(0, 15_000_000, 10_000_000, 1_500)], 40_000_000, 1_500_000_000
    row = schedule(
        family, tiers, a, b, c, fee=rng.choice((0, 2_000_000)), basis=rng.choice((1, 1, 2))
    )
    if family <= BY_LOTS and row.maintenance_basis == 2 and row.liquidation_fee_ppb == 0:
        row = row._replace(closing_fee=rng.choice((0, 2, 3)))
    kind = rng.choice((LINEAR_PERPETUAL, INVERSE_PERPETUAL))
    units = rng.choice((1, 3))
    steps = (1, 0, rng.choice((1, 5)), 0)
    if kind == INVERSE_PERPETUAL:
        steps = (1, 0, 10 ** rng.randrange(3, 5), 0)
    listed = InstrumentRow(1, "C", kind, 1, 1, *steps, units, taker_fee_ppb=5_000_000)
    return Contract(listed, row, scale=0, leverage=rng.choice((100, 1000)))


@pytest.mark.parametrize("family", [TIERED, WHOLE, BY_LOTS, SIZE_LINEAR, PER_CONTRACT])
def test_a_liquidation_price_parts_all_prices(family: int) -> None:
    check_prices(family)


@pytest.mark.parametrize("family", [OPEN_INTEREST, ROOT, POWER, RISK])
def test_a_liquidation_price_parts_all_prices_by_size(family: int) -> None:
    check_prices(family)


def check_prices(family: int) -> None:
    """Compare the price with the definition, at every price from the mark on."""
    rng = random.Random(family)
    found = {"none": 0, "at the mark": 0, "further": 0}
    for _ in range(60):
        contract = some_contract(rng, family)
        lots = rng.choice((-1, 1)) * rng.randrange(1, 13)
        mark = rng.randrange(20, 200)
        entry_value = max(1, int(contract.notional(lots, mark) * Fraction(rng.uniform(0.8, 1.2))))
        money = int(entry_value * rng.choice((rng.uniform(-0.1, 0.7), 1.3)))
        side = Side(lots, entry_value)
        price = liquidation_price(contract, [side], money, mark)
        ways = PRICES if lots < 0 else reversed(PRICES)
        jumps = family in (WHOLE, POWER) and not contract.is_entry_based()
        for each in ways:
            is_liquidated = can_be_liquidated(contract, [side], money, each)
            if not jumps:
                expected = price is not None and lots * (each - price) <= 0
                assert is_liquidated == expected, (contract, lots, entry_value, money, each)
            elif lots * (each - mark) <= 0 and is_liquidated:
                assert each == price, (contract, lots, entry_value, money)
                break
        else:
            if jumps:
                assert price is None or price not in PRICES
        key = "none" if price is None else "at the mark" if price == mark else "further"
        found[key] += 1
    assert found["further"] > 15
    assert found["none"] > 0


def test_tiers_without_a_mark_are_searched_from_the_entry() -> None:
    row = schedule(WHOLE, [(0, 0, 10_000_000, 2_000), (11_000, 0, 60_000_000, 1_000)])
    contract = Contract(InstrumentRow(1, "C", 1, 1, 1, 1, 0, 1, 0, 1), row, scale=0, leverage=100)
    # Entry at 100.5: the short begins at 100, the long at 101.
    assert liquidation_price(contract, [Side(-10, 1_005)], 0, None) == 100
    assert liquidation_price(contract, [Side(10, 1_005)], 0, None) == 101


@pytest.mark.parametrize("family", [TIERED, BY_LOTS, SIZE_LINEAR, PER_CONTRACT, RISK])
def test_sides_share_the_nearest_price_that_liquidates_both(family: int) -> None:
    rng = random.Random(family)
    ways = {"at the mark": 0, "down": 0, "up": 0, "against the larger side": 0}
    for _ in range(100):
        contract = some_contract(rng, family)
        mark = rng.randrange(20, 200)
        longs = rng.choice((rng.randrange(1, 13), 60))
        sides = []
        for lots in (longs, -rng.choice((longs, longs + 1, rng.randrange(1, 13)))):
            value = contract.notional(lots, mark) * Fraction(rng.uniform(0.8, 1.2))
            sides.append(Side(lots, max(1, int(value))))
        money = int(sum(side.entry_value for side in sides) * rng.uniform(-0.1, 0.3))
        price = liquidation_price(contract, sides, money, mark)
        found = [each for each in PRICES if can_be_liquidated(contract, sides, money, each)]
        nearest = min(found, key=lambda each: abs(each - mark), default=None)
        if price in PRICES or nearest is not None:
            assert price == nearest, (contract, sides, money, mark)
        if price is not None:
            way = "at the mark" if price == mark else "down" if price < mark else "up"
            ways[way] += 1
            net = sum(side.lots for side in sides)
            ways["against the larger side"] += net * (price - mark) > 0
    if family == PER_CONTRACT:  # Its requirement does not grow with the price but for the fee.
        del ways["against the larger side"]
    assert min(ways.values()) > 0, ways
