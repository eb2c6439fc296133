"""An order on each kind of instrument of each rulebook that an engine takes needs what the
library computes by the same rulebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal

import pytest

from riskd import margin
from riskd.margin import Position
from riskd.rulebooks import InstrumentRule, Rulebook, library, load, names, unsupported
from riskd.v1 import account_service_pb2 as accounts_pb
from riskd.v1 import margin_service_pb2 as margins_pb
from tests.service.conftest import Clock, Rig, new_order

TICKS, LOTS, LEVERAGE = 10_000, 1000, 5


def one_of_each_kind(book: Rulebook) -> list[InstrumentRule]:
    kinds: dict[tuple[str, bool], InstrumentRule] = {}
    for rule in book.instruments:
        kinds.setdefault((rule.kind, rule.isolated_only), rule)
    return list(kinds.values())


CASES = [
    (name, rule)
    for name in names()
    if not unsupported(load(name))
    for rule in one_of_each_kind(load(name))
]


def expected(book: Rulebook, rule: InstrumentRule) -> tuple[Decimal, Decimal]:
    """Return initial and maintenance margin of the position in minor units."""
    mode = "isolated" if rule.isolated_only else "cross"
    venue, schedule = book.margin_rule(rule.symbol, mode), book.schedule(rule.margin_schedule)
    fee = schedule.liquidation_fee_rate or rule.taker_fee_rate
    if venue.fee_in_liquidation == "none":
        fee = Decimal(0)
    position = Position.of(
        quantity=LOTS * rule.lot_size,
        entry_price=TICKS * rule.tick_size,
        mark_price=TICKS * rule.tick_size,
        leverage=LEVERAGE,
        fee_rate=fee,
        multiplier=rule.contract_multiplier,
        open_interest=0,
    )
    need = margin.requirement_of(position, library.margin_schedule(schedule), venue)
    if venue.wallet == "margin_and_fee":
        # The library counts the fee in the wallet, an engine in both requirements.
        reserved = margin.reserved_fee_of(position, venue)
        need = replace(
            need, initial=need.initial + reserved, maintenance=need.maintenance + reserved
        )
    unit = Decimal(10) ** book.asset(rule.settlement_asset).scale
    initial, maintenance = (
        (figure * unit).to_integral_value(ROUND_CEILING)
        for figure in (need.initial, need.maintenance)
    )
    return initial, maintenance


def buy(rig: Rig, rule: InstrumentRule, instrument_id: int) -> None:
    """Give account 1 much money, and have it buy at the mark."""
    rig.accounts.CreateAccount(
        accounts_pb.CreateAccountRequest(
            account_id=1,
            settlement_asset=rule.settlement_asset,
            initial_collateral="1000000",
            default_leverage=str(LEVERAGE),
        )
    )
    rig.mark(instrument_id, TICKS * rule.mark_units_per_tick)
    fields = {"instrument_id": instrument_id, "price_ticks": TICKS, "quantity_lots": LOTS}
    rig.trade(new_order(account_id=1, **fields), instrument_id=instrument_id)


@pytest.mark.parametrize(("name", "rule"), CASES, ids=lambda each: getattr(each, "symbol", each))
def test_an_order_needs_what_the_library_computes(
    new_rig: Callable[..., Rig], clock: Clock, name: str, rule: InstrumentRule
) -> None:
    rig = new_rig(clock, rulebooks=(name,))
    ids = {row.symbol: row.instrument_id for row in rig.engine.instruments()}
    buy(rig, rule, ids[rule.symbol])
    book = load(name)
    asset = book.asset(rule.settlement_asset)
    if rule.is_option:
        account = rig.accounts.GetAccount(accounts_pb.GetAccountRequest(account_id=1)).account
        premium = LOTS * TICKS * rule.value_step()
        assert Decimal(account.cash) == 1_000_000 - premium
        return
    request = margins_pb.ListPositionMarginsRequest(account_id=1)
    (row,) = rig.margins.ListPositionMargins(request).positions
    shown = [
        Decimal(text) * 10**asset.scale for text in (row.initial_margin, row.maintenance_margin)
    ]
    # Each part of a requirement is rounded up by itself.
    for figure, exact in zip(shown, expected(book, rule), strict=True):
        assert exact <= figure <= exact + 2
