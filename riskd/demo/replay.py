"""The demo itself: a service on loopback, accounts, marks minute by minute, orders, a crash."""

import math
import time
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from typing import Protocol, TypeVar

from riskd.demo import text
from riskd.demo.cast import (
    ASSET,
    BTC,
    ETH,
    FEATURED,
    FOLLOWED,
    OPTION_BUYER,
    OPTION_DEPOSIT,
    OVER_LIMIT,
    RESCUED,
    RESTRICTED_TRADER,
    SILENT,
    SILENT_MARK,
    TRADERS,
    Plan,
    opening,
    rebound,
)
from riskd.demo.desk import Desk, ReplayClock
from riskd.demo.market import Bar, Market, Window
from riskd.demo.outcome import Outcome, Sample, Story
from riskd.demo.stream import Stream
from riskd.settings import Settings
from riskd.wiring import build_engine, serving
from riskd_client import (
    Client,
    Instrument,
    InstrumentKind,
    Mark,
    OptionType,
    OrderDecision,
    Scope,
    TradingState,
)

# The marks of a bar come at the open and then every ten seconds; orders a second after the last.
MARK_STEP = timedelta(seconds=10)
ORDER_DELAY = timedelta(seconds=1)
STRIKE_STEP = Decimal(1_000)
DAYS_TO_EXPIRY_MIN = 14
# Made up, as the listing is.
OPTION_FEE_RATE = Decimal("0.0003")
YEAR = timedelta(days=365)
BARS_PER_YEAR = 365 * 24 * 60
# Bars before or after the low at which something happens.
RESCUE_BEFORE_LOW = 8
HALT_BEFORE_LOW = 2
RELEASE_AFTER_LOW = 4
REBOUND_AFTER_LOW = 2


Value = TypeVar("Value")


class Narrator(Protocol):
    """Who tells a person what happens."""

    def begin(self, outcome: Outcome, target: str) -> None:
        """The service runs."""

    def opened(self, outcome: Outcome) -> None:
        """The accounts have their positions and their predicted liquidation prices."""

    def bar(self, outcome: Outcome, index: int) -> None:
        """A bar was replayed."""

    def story(self, story: Story) -> None:
        """Something worth reading."""


def run(
    market: Market, window: Window, seed: int, narrator: Narrator, *, is_refined: bool = False
) -> Outcome:
    """Replay a window of a market through a service of its own; return what happened.

    A refined replay also reports marks that were not recorded: where the price passes a predicted
    liquidation price on its way, the mark unit before it and the predicted price itself.
    """
    outcome = Outcome(market, window, seed)
    start = time.perf_counter()
    settings = Settings(
        control_address="127.0.0.1:0", rulebooks=("binance_usdm",), durability="none"
    )
    clock = ReplayClock(window.bars[0].time)
    with serving(settings, build_engine(settings), clock) as port:
        target = f"127.0.0.1:{port}"
        with Client(target, timeout=60) as client:
            narrator.begin(outcome, target)
            _Replay(Desk(client, clock, outcome), narrator, is_refined=is_refined).run()
    outcome.seconds = time.perf_counter() - start
    return outcome


class _Replay:
    """One replay. Each bar: its marks, then what is planned for it, then the order stream."""

    def __init__(self, desk: Desk, narrator: Narrator, *, is_refined: bool) -> None:
        self._desk = desk
        self._client = desk.client
        self._outcome = desk.outcome
        self._window = desk.outcome.window
        self._narrator = narrator
        self._is_refined = is_refined
        self._stream = Stream(desk, desk.outcome.seed)
        self._is_over_limit_told = False
        self._followed = {
            f"#{FEATURED} isolated 20x long": FEATURED,
            f"#{RESCUED} isolated 10x long, adds margin": RESCUED,
            f"#{FOLLOWED} cross 15x long BTC and ETH": FOLLOWED,
        }

    def run(self) -> None:
        """Replay every bar."""
        low, last = self._window.low, len(self._window.bars) - 1
        opening_bar = self._window.opening
        option_bar = (opening_bar + low) // 2
        plan: list[tuple[int, Callable[[], None]]] = [
            (opening_bar, self._open_accounts),
            (opening_bar + 1, self._tell_size_and_retry),
            (option_bar, self._buy_option),
            (low - RESCUE_BEFORE_LOW, self._rescue),
            (low - HALT_BEFORE_LOW, self._halt),
            (min(last, low + REBOUND_AFTER_LOW), self._open_rebound),
            (min(last, low + RELEASE_AFTER_LOW), self._release),
        ]
        for index, bar in enumerate(self._window.bars):
            self._report(bar)
            for planned, action in plan:
                if planned == index:
                    action()
            if index > opening_bar:
                self._stream.send(index)
                self._check_over_limit()
            if index >= opening_bar:
                self._sample()
            self._narrator.bar(self._outcome, index)
        self._stream.stop()

    def _report(self, bar: Bar) -> None:
        now = bar.time
        for mark in bar.marks():
            if self._is_refined and self._outcome.reports:
                for passed in self._desk.predictions_passed(mark):
                    self._desk.report(now, passed)
            self._desk.report(now, mark)
            now += MARK_STEP
        self._desk.clock.now += ORDER_DELAY

    def _tell(self, title: str, *lines: str) -> None:
        story = Story(self._desk.clock.now, title, lines)
        self._outcome.stories.append(story)
        self._narrator.story(story)

    def _sample(self) -> None:
        for title, account in self._followed.items():
            summary = self._client.margin_summary(account)
            row = self._client.position_margins(account)[0]
            equity, maintenance = summary.cross_equity, summary.cross_maintenance_margin
            if row.isolated_wallet is not None and row.unrealised_pnl is not None:
                equity = row.isolated_wallet + row.unrealised_pnl
                maintenance = row.maintenance_margin
            self._outcome.samples.setdefault(title, []).append(
                Sample(
                    self._desk.clock.now,
                    known(equity),
                    known(maintenance),
                    known(summary.available),
                )
            )

    # Opening.

    def _open_accounts(self) -> None:
        self._client.report_marks({SILENT: Mark(SILENT_MARK, time_ns=self._desk.clock())})
        featured = None
        for plan in opening():
            decisions = self._open(plan)
            if plan.account == FEATURED:
                featured = decisions[0]
        for trader in TRADERS:
            self._client.create_account(
                trader.account,
                ASSET,
                default_margin_mode=trader.mode,
                default_leverage=trader.leverage,
                initial_collateral=trader.deposit,
            )
        self._outcome.accounts_count += len(TRADERS)
        self._narrator.opened(self._outcome)
        assert featured is not None
        self._tell_decision(featured)

    def _open(self, plan: Plan) -> list[OrderDecision]:
        desk, client = self._desk, self._client
        sizes = [desk.quantity(leg.symbol, leg.notional) for leg in plan.legs]
        need = sum(
            size * desk.price(leg.symbol, leg.side) * (Decimal(1) / leg.leverage + Decimal("0.001"))
            for leg, size in zip(plan.legs, sizes, strict=True)
        )
        deposit = Decimal(need * plan.cushion).quantize(Decimal("0.01"), ROUND_CEILING)
        client.create_account(
            plan.account,
            ASSET,
            default_margin_mode=plan.mode,
            default_leverage=plan.leverage,
            initial_collateral=deposit,
        )
        self._outcome.accounts_count += 1
        decisions = []
        for leg, size in zip(plan.legs, sizes, strict=True):
            if leg.mode:
                client.change_margin_mode(plan.account, leg.symbol, leg.mode)
            if leg.leverage != plan.leverage:
                client.set_leverage(plan.account, leg.symbol, leg.leverage)
            price = desk.price(leg.symbol, leg.side)
            decision = desk.order(plan.account, leg.symbol, leg.side, size, price, view="full")
            assert decision.accepted, decision
            desk.fill(plan.account, decision, price, size)
            decisions.append(decision)
        return decisions

    def _open_rebound(self) -> None:
        lines = []
        for plan in rebound():
            self._open(plan)
            row = self._desk.watched(plan.account, BTC)
            lines.append(f"{plan.leverage}x {known(row.predicted):,.2f}")
        first, last = rebound()[0].account, rebound()[-1].account
        price = text.price(self._desk.marks[BTC])
        self._tell(
            f"#{first} to #{last} open isolated shorts at {price}, after the low",
            f"liquidation at {', '.join(lines)}",
        )

    # Stories.

    def _tell_decision(self, decision: OrderDecision) -> None:
        detail, row = known(decision.detail), self._desk.watched(FEATURED, BTC)
        sent = next(each for each in self._outcome.sent if each.decision is decision)
        self._tell(
            f"One decision in full: #{FEATURED}, isolated, {detail.leverage.normalize():f}x",
            f"BUY {sent.quantity} {BTC} at {sent.price:,} -> {decision.decision.name}, "
            f"reserved {known(decision.reserved):,.2f} {ASSET}, "
            f"available {known(decision.available):,.2f}",
            f"initial margin {detail.position_initial_margin:,.2f}, maintenance "
            f"{detail.position_maintenance_margin:,.2f} (tier {detail.tier_index}), "
            f"ratio {detail.margin_ratio:.2%}",
            f"liquidation price {known(decision.liquidation_price):,} to a tick, "
            f"{known(row.predicted):,} to a mark unit; "
            f"bankruptcy {known(detail.bankruptcy_price):,}",
        )

    def _tell_size_and_retry(self) -> None:
        desk = self._desk
        account = TRADERS[0].account
        price = desk.price(BTC, "buy")
        size = desk.quantity(BTC, 3_500_000)
        refused = desk.order(account, BTC, "buy", size, price, view="full")
        passing = known(refused.max_quantity)
        violation = known(refused.detail).violations[0]
        lot = desk.client.catalogue.instrument(BTC).lot_size
        over = desk.order(account, BTC, "buy", passing + lot, price)
        assert not over.accepted, over
        order_id = desk.take_order_id()
        arguments = (account, BTC, "buy", passing, price)
        accepted = desk.order(*arguments, client_order_id=order_id)
        repeated = self._client.check_order(*arguments, client_order_id=order_id)
        self._outcome.repeats_count += 1
        assert repeated == accepted, (repeated, accepted)
        other = desk.order(*arguments[:3], Decimal(1), price, client_order_id=order_id)
        self._tell(
            f"Too large, then as large as it can be: #{account}",
            f"BUY {size} at {price:,} -> {refused.decision.name}: {violation.reason.name}, needs "
            f"{violation.order_use:,.2f} of {violation.limit:,.2f} {ASSET}",
            f"largest size that passes is {passing}: BUY {passing + lot} "
            f"-> {over.decision.name}, BUY {passing} -> {accepted.decision.name}",
            f"the same order again, as after a timeout -> the same answer, reservation "
            f"{repeated.reservation_id}, revision {repeated.revision}",
            f"the same id on another order -> {other.decision.name}: {other.reason.name}",
        )
        desk.cancel(accepted)

    def _buy_option(self) -> None:
        desk, client = self._desk, self._client
        underlying = client.catalogue.instrument(BTC)
        expiry = _expiry(self._window)
        option = client.upsert_instrument(_put(desk.marks[BTC], expiry, underlying))
        volatility, count = self._realised_volatility()
        years = (expiry - desk.clock.now) / YEAR
        forward = desk.marks[BTC]
        model = client.greeks(
            OptionType.PUT,
            forward=float(forward),
            strike=float(option.strike or 0),
            volatility=float(volatility),
            time_years=years,
        )
        listing = client.catalogue.listing(option.symbol)
        mark = listing.round_price(f"{model.price:.6f}", ROUND_HALF_EVEN)
        desk.client.report_marks(
            {
                option.symbol: Mark(
                    mark, time_ns=desk.clock(), implied_volatility=volatility, forward=forward
                )
            }
        )
        client.create_account(OPTION_BUYER, ASSET, initial_collateral=OPTION_DEPOSIT)
        self._outcome.accounts_count += 1
        affordable = OPTION_DEPOSIT * Decimal("0.9") / mark
        quantity = max(
            listing.round_quantity(min(affordable, Decimal("1.5")), ROUND_FLOOR),
            option.lot_size,
        )
        decision = desk.order(OPTION_BUYER, option.symbol, "buy", quantity, mark, view="full")
        assert decision.accepted, decision
        greeks = known(known(decision.detail).greeks)
        desk.fill(OPTION_BUYER, decision, mark, quantity)
        # From now on others can try to sell it, too.
        self._stream.option = (option.symbol, mark)
        self._tell(
            f"An option: #{OPTION_BUYER} buys a put near the money",
            f"{option.symbol}, volatility {volatility:.1%} (realised over {count} minutes), "
            f"forward {forward:,.2f}",
            f"BUY {quantity} at {mark:,} {ASSET} -> {decision.decision.name}, premium and fee "
            f"reserved in full: {known(decision.reserved):,.2f} {ASSET}",
            f"Greeks of 1 BTC: price {greeks.price:,.2f} {ASSET}; delta {greeks.delta:.4f} and "
            f"gamma {greeks.gamma:.3e} per 1 USD;",
            f"vega {greeks.vega_per_vol_point:,.2f} per volatility point, theta "
            f"{greeks.theta_per_day:,.2f} a day, rho {greeks.rho_per_point:,.2f} per 1 % of rate",
        )

    def _realised_volatility(self) -> tuple[Decimal, int]:
        """Return the volatility of the closes so far for one year, and how many returns it has."""
        now = self._desk.clock.now
        closes = [float(bar.close) for bar in self._window.bars if bar.time <= now]
        returns = [math.log(b / a) for a, b in pairwise(closes)]
        variance = sum(each * each for each in returns) / len(returns)
        volatility = Decimal(f"{math.sqrt(variance * BARS_PER_YEAR):.4f}")
        return min(max(volatility, Decimal("0.01")), Decimal(10)), len(returns)

    def _rescue(self) -> None:
        desk = self._desk
        row = desk.watched(RESCUED, BTC)
        if row.is_done:
            self._tell(f"#{RESCUED} was too late to add margin", "its position crossed already")
            return
        before = known(row.predicted)
        wallet = known(self._client.position_margins(RESCUED)[0].isolated_wallet)
        amount = (wallet / 2).quantize(Decimal("0.01"))
        moved = self._client.transfer_margin(RESCUED, BTC, amount)
        desk.predict(RESCUED)
        self._tell(
            f"#{RESCUED} adds margin to its isolated 10x long; its twin #109 does not",
            f"{amount:,} {ASSET} from the pool to the wallet, now {moved.isolated_wallet:,.2f}",
            f"liquidation price {before:,.2f} -> {row.predicted:,.2f}, mark {desk.marks[BTC]:,.2f}",
        )

    def _check_over_limit(self) -> None:
        """Once the account's available margin is negative, show what it still may do."""
        desk = self._desk
        if self._is_over_limit_told or desk.is_lost(OVER_LIMIT):
            return
        summary = self._client.margin_summary(OVER_LIMIT)
        if summary.available is None or summary.available >= 0:
            return
        self._is_over_limit_told = True
        row = desk.watched(OVER_LIMIT, BTC)
        before, held = known(row.predicted), row.quantity
        price = desk.price(BTC, "buy")
        more = desk.order(OVER_LIMIT, BTC, "buy", Decimal("0.01"), price)
        price = desk.price(BTC, "sell")
        half = desk.client.catalogue.listing(BTC).round_quantity(held / 2)
        less = desk.order(OVER_LIMIT, BTC, "sell", half, price)
        lines = [
            f"available {summary.available:,.2f} {ASSET}: below zero, yet maintenance is only "
            f"{known(summary.cross_margin_ratio):.1%} of equity",
            f"BUY  0.010 at {price:,} -> {more.decision.name}: {more.reason.name}, "
            f"largest size that passes: {more.max_quantity or 0}",
            f"SELL {half} at {price:,} -> {less.decision.name}: it strictly reduces, so margin "
            "never stops it",
        ]
        assert not more.accepted, more
        assert less.accepted, less
        filled = desk.fill(OVER_LIMIT, less, price, half)
        lines.append(
            f"filled: {held} -> {filled.position}, available {known(filled.available):,.2f}, "
            f"liquidation price {before:,.2f} -> {known(row.predicted):,.2f}"
        )
        self._tell(f"Over its limits: #{OVER_LIMIT}, cross 20x long", *lines)

    def _halt(self) -> None:
        desk, client = self._desk, self._client
        account = TRADERS[0].account
        price = desk.price(ETH, "buy", Decimal("-0.01"))
        resting = desk.order(account, ETH, "buy", Decimal("0.5"), price)
        halted = client.engage_kill_switch(Scope.instrument(ETH), comment="demo: venue outage")
        lines = [
            f"kill switch on {ETH}: {halted.trading_state.name}, {len(halted.reservation_ids)} "
            "working order(s) to cancel at the venue",
        ]
        refused = desk.order(account, ETH, "sell", Decimal("0.01"), desk.price(ETH, "sell"))
        lines.append(f"SELL 0.01 {ETH} -> {refused.decision.name}: {refused.reason.name}")
        client.change_trading_state(
            Scope.account(RESTRICTED_TRADER.account), TradingState.REDUCE_ONLY
        )
        lines.append(f"#{RESTRICTED_TRADER.account} may only reduce from now on")
        self._tell("The risk officer acts", *lines)
        if resting.accepted:
            desk.cancel(resting)

    def _release(self) -> None:
        self._client.release_kill_switch(Scope.instrument(ETH), comment="demo: venue is back")


def known(value: Value | None) -> Value:
    """Return a figure that the service knows here."""
    assert value is not None
    return value


def _expiry(window: Window) -> datetime:
    """Return the last Friday of a month, 08:00 UTC, two weeks or more after the crash."""
    earliest = window.bars[-1].time + timedelta(days=DAYS_TO_EXPIRY_MIN)
    year, month = earliest.year, earliest.month
    while True:
        day = datetime(year, month, monthrange(year, month)[1], 8, tzinfo=UTC)
        day -= timedelta(days=(day.weekday() - 4) % 7)
        if day >= earliest:
            return day
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)


def _put(mark: Decimal, expiry: datetime, underlying: Instrument) -> Instrument:
    """Return a listing of our own: a put near the money that expires at a real expiry."""
    strike = (mark / STRIKE_STEP).to_integral_value(ROUND_HALF_EVEN) * STRIKE_STEP
    return Instrument(
        symbol=f"BTC-{expiry:%d%b%y}-{strike:.0f}-P".upper(),
        kind=InstrumentKind.LINEAR_OPTION,
        settlement_asset=ASSET,
        tick_size=underlying.tick_size,
        lot_size=Decimal("0.01"),
        mark_units_per_tick=underlying.mark_units_per_tick,
        taker_fee_rate=OPTION_FEE_RATE,
        option_type=OptionType.PUT,
        strike=strike,
        expiry_time_ns=int(expiry.timestamp()) * 10**9,
        underlying_instrument_id=underlying.instrument_id,
    )
