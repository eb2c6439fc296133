"""The gateway of the demo: orders, fills and marks through the client, all of it recorded."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from riskd.demo.cast import BTC, HELD_MARKS
from riskd.demo.outcome import WARNING_RATIO, Outcome, Prediction, Report, Sent, Watched
from riskd_client import (
    Client,
    ExecutionResult,
    LiquidationStatus,
    MarginMode,
    Mark,
    OrderDecision,
    PositionMargin,
)

# Of BTCUSDT in binance_usdm.
MARK_UNIT = Decimal("1e-8")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class ReplayClock:
    """The service's clock: it shows the recorded time, so that recorded marks are not stale."""

    now: datetime

    def __call__(self) -> int:
        """Return nanoseconds since 1970."""
        return (self.now - _EPOCH) // timedelta(microseconds=1) * 1000


class Desk:
    """Sends what the demo sends, and watches every position.

    A position is asked for at each reported mark until it is liquidatable, or its mark is at or
    beyond the price that was predicted: both must happen at the same mark. A prediction is renewed
    whenever something that it depends on changed: a fill, a transfer.
    """

    def __init__(self, client: Client, clock: ReplayClock, outcome: Outcome) -> None:
        self.client = client
        self.clock = clock
        self.outcome = outcome
        self.marks: dict[str, Decimal] = dict(HELD_MARKS)
        self._watched: dict[int, dict[str, Watched]] = {}
        self._last_order_id = 0
        self._last_execution_id = 0

    # Marks.

    def report(self, now: datetime, mark: Decimal) -> Report:
        """Report a BTC mark, with the held ones at the same time, and look at every position."""
        self.clock.now = now
        self.marks[BTC] = mark
        time_ns = self.clock()
        taken = self.client.report_marks(
            {symbol: Mark(price, time_ns=time_ns) for symbol, price in self.marks.items()}
        )
        assert not taken.refusals, taken
        report = Report(len(self.outcome.reports), now, mark)
        self.outcome.reports.append(report)
        for account, rows in self._watched.items():
            if any(not row.is_done for row in rows.values()):
                self._look(account, rows, report)
        return report

    def _look(self, account: int, rows: Mapping[str, Watched], report: Report) -> None:
        positions = self.client.position_margins(account)
        cross_count = sum(each.margin_mode is MarginMode.CROSS for each in positions)
        shared = self.client.margin_summary(account) if cross_count > 1 else None
        for position in positions:
            row = rows.get(position.symbol)
            if row is None or row.is_done:
                continue
            ratio = position.margin_ratio
            if shared is not None and position.margin_mode is MarginMode.CROSS:
                ratio = shared.cross_margin_ratio
            if row.warned is None and (ratio is None or ratio >= WARNING_RATIO):
                row.warned = report
            mark = self.marks[row.trigger]
            row.note(mark)
            if position.liquidatable:
                row.said = report
            if row.is_beyond(mark):
                row.reached = report

    # Predictions.

    def predict(self, account: int) -> list[Watched]:
        """Ask for the liquidation prices of an account's positions; return those that changed."""
        rows = self._watched.setdefault(account, {})
        positions = {
            each.symbol: each
            for each in self.client.position_margins(account)
            if each.quantity and each.liquidation_status is not LiquidationStatus.UNSPECIFIED
        }
        for held in rows.values():
            if held.symbol not in positions and not held.is_done:
                held.is_closed = True
        changed = []
        for symbol, position in positions.items():
            row = rows.get(symbol)
            if row is not None and row.is_done and not row.is_closed:
                continue
            trigger = self._trigger(position, positions)
            prediction = Prediction(self.outcome.reports[-1], trigger.liquidation_price)
            if row is None or row.is_closed:
                row = Watched(
                    account=account,
                    symbol=symbol,
                    mode=position.margin_mode.name.lower(),
                    leverage=position.leverage,
                    quantity=position.quantity,
                    entry=position.entry_price or Decimal(0),
                    trigger=trigger.symbol,
                    trigger_is_long=trigger.quantity > 0,
                    predictions=[],
                )
                rows[symbol] = row
                self.outcome.watched.append(row)
            row.quantity = position.quantity
            row.entry = position.entry_price or Decimal(0)
            row.trigger = trigger.symbol
            row.trigger_is_long = trigger.quantity > 0
            row.predictions.append(prediction)
            row.extreme = self.marks[row.trigger]
            changed.append(row)
        return changed

    @staticmethod
    def _trigger(
        position: PositionMargin, positions: Mapping[str, PositionMargin]
    ) -> PositionMargin:
        """Return the position whose mark decides when this one is liquidatable."""
        btc = positions.get(BTC)
        is_cross = position.margin_mode is MarginMode.CROSS
        if is_cross and btc is not None and btc.margin_mode is MarginMode.CROSS:
            return btc
        return position

    def predictions_passed(self, mark: Decimal) -> list[Decimal]:
        """Return the marks around each prediction that lies on the way from the last mark to this.

        For each: the last mark unit that is not at it yet, and the prediction itself.
        """
        last = self.marks[BTC]
        passed = set()
        for row in self.outcome.watched:
            if row.is_done or row.trigger != BTC or row.predicted is None:
                continue
            before = row.predicted + (MARK_UNIT if row.trigger_is_long else -MARK_UNIT)
            if row.is_beyond(mark) and not row.is_beyond(last):
                passed |= {before, row.predicted}
        return sorted(passed, reverse=mark < last)

    def watched(self, account: int, symbol: str) -> Watched:
        """Return a position that is watched."""
        return self._watched[account][symbol]

    def is_lost(self, account: int) -> bool:
        """Return whether a position of the account became liquidatable."""
        return any(row.said is not None for row in self._watched.get(account, {}).values())

    # Orders.

    def take_order_id(self) -> int:
        """Return a new client order id."""
        self._last_order_id += 1
        return self._last_order_id

    def order(
        self,
        account: int,
        symbol: str,
        side: str,
        quantity: Decimal,
        price: Decimal | None,
        *,
        client_order_id: int | None = None,
        reduce_only: bool = False,
        margin_mode: str = "unspecified",
        view: str = "basic",
    ) -> OrderDecision:
        """Send an order, and record the answer and how long it took."""
        order_id = self.take_order_id() if client_order_id is None else client_order_id
        start_ns = time.perf_counter_ns()
        decision = self.client.check_order(
            account,
            symbol,
            side,
            quantity,
            price,
            client_order_id=order_id,
            reduce_only=reduce_only,
            margin_mode=margin_mode,
            view=view,
        )
        latency_ns = time.perf_counter_ns() - start_ns
        self.outcome.sent.append(Sent(account, symbol, side, quantity, price, decision, latency_ns))
        return decision

    def fill(
        self, account: int, decision: OrderDecision, price: Decimal, quantity: Decimal
    ) -> ExecutionResult:
        """Report a fill with the taker fee, and renew the account's predictions."""
        instrument = self.client.catalogue.instrument(decision.symbol)
        fee = (price * quantity * instrument.taker_fee_rate).quantize(
            Decimal("1e-8"), ROUND_CEILING
        )
        result = self.client.report_fill(
            decision, price, quantity, execution_id=self._take_execution_id(), fee=fee
        )
        assert result.accepted, result
        self.outcome.fills_count += 1
        self.predict(account)
        return result

    def cancel(self, decision: OrderDecision) -> ExecutionResult:
        """Report that what is left of an order was cancelled."""
        result = self.client.report_cancel(decision, execution_id=self._take_execution_id())
        assert result.accepted, result
        return result

    def _take_execution_id(self) -> int:
        self._last_execution_id += 1
        return self._last_execution_id

    # Numbers.

    def price(self, symbol: str, side: str, rate: Decimal = Decimal(0)) -> Decimal:
        """Return a price `rate` through the mark for a side (negative: better), on a tick."""
        listing = self.client.catalogue.listing(symbol)
        is_buy = side == "buy"
        price = self.marks[symbol] * (1 + rate if is_buy else 1 - rate)
        return listing.round_price(price, ROUND_CEILING if is_buy else ROUND_FLOOR)

    def quantity(self, symbol: str, notional: Decimal | int) -> Decimal:
        """Return the quantity of a notional at the mark, at least one lot."""
        listing = self.client.catalogue.listing(symbol)
        quantity = listing.round_quantity(Decimal(notional) / self.marks[symbol], ROUND_FLOOR)
        return max(quantity, listing.instrument.lot_size)
