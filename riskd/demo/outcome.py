"""What happened in a replay: plain values that the screen and the page show."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from riskd.demo.market import Market, Window
from riskd_client import OrderDecision

WARNING_RATIO = Decimal("0.5")


@dataclass(frozen=True, slots=True)
class Report:
    """A reported BTC mark: number from 0, time and price."""

    number: int
    time: datetime
    mark: Decimal


@dataclass(frozen=True, slots=True)
class Prediction:
    """A liquidation price, and when it was asked for. price is None if there is none."""

    made: Report
    price: Decimal | None


@dataclass(slots=True)
class Watched:
    """A position, its predicted liquidation price, and where it crossed.

    trigger is the symbol whose mark decides: of a cross position on a mark that stands still it is
    the account's position on BTC. said is the first report at which the service calls the position
    liquidatable, reached the first at which the trigger's mark is at or beyond the prediction.
    """

    account: int
    symbol: str
    mode: str
    leverage: Decimal
    quantity: Decimal
    entry: Decimal
    trigger: str
    trigger_is_long: bool
    predictions: list[Prediction]
    warned: Report | None = None
    said: Report | None = None
    reached: Report | None = None
    is_closed: bool = False
    extreme: Decimal | None = None
    """The trigger's mark nearest to the prediction, or furthest beyond it, since it was made."""

    @property
    def is_long(self) -> bool:
        """Whether it gains when its mark rises."""
        return self.quantity > 0

    @property
    def predicted(self) -> Decimal | None:
        """The liquidation price as last predicted."""
        return self.predictions[-1].price

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be seen."""
        return self.is_closed or self.said is not None or self.reached is not None

    @property
    def agrees(self) -> bool:
        """Whether it became liquidatable at the very mark that was predicted, or never."""
        return self.said == self.reached

    def is_beyond(self, mark: Decimal) -> bool:
        """Return whether a mark of the trigger is at or beyond the prediction."""
        if self.predicted is None:
            return False
        return mark <= self.predicted if self.trigger_is_long else mark >= self.predicted

    def note(self, mark: Decimal) -> None:
        """Remember the worst mark of the trigger."""
        if self.extreme is None:
            self.extreme = mark
        else:
            self.extreme = (min if self.trigger_is_long else max)(self.extreme, mark)


@dataclass(frozen=True, slots=True)
class Sent:
    """An order that was sent, and the answer."""

    account: int
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal | None
    decision: OrderDecision
    latency_ns: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What backs a position and what it needs, at a time; both in USDT."""

    time: datetime
    equity: Decimal
    maintenance: Decimal
    available: Decimal


@dataclass(frozen=True, slots=True)
class Story:
    """Something worth reading: when, what, and the figures."""

    time: datetime
    title: str
    lines: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """A whole replay."""

    market: Market
    window: Window
    seed: int
    reports: list[Report] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    repeats_count: int = 0
    fills_count: int = 0
    accounts_count: int = 0
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    stories: list[Story] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def accepted_count(self) -> int:
        """How many orders were accepted."""
        return sum(order.decision.accepted for order in self.sent)

    @property
    def rejected(self) -> Counter[str]:
        """How many orders were rejected, by reason."""
        return Counter(
            order.decision.reason.name for order in self.sent if not order.decision.accepted
        )

    @property
    def crossed(self) -> list[Watched]:
        """Positions that became liquidatable, in the order in which they did."""
        rows = [row for row in self.watched if row.said is not None]
        return sorted(rows, key=lambda row: (row.said.number if row.said else 0, row.account))

    @property
    def all_agree(self) -> bool:
        """Whether every prediction held."""
        return all(row.agrees for row in self.watched)

    def latency_us(self, share: float) -> float:
        """Return the latency that this share of the orders did not exceed, in microseconds."""
        ordered = sorted(order.latency_ns for order in self.sent)
        index = max(0, -int(-share * len(ordered) // 1) - 1)  # nearest rank
        return ordered[index] / 1000
