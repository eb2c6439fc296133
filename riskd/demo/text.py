"""Words for what the demo shows, on the screen and on the page."""

from decimal import Decimal

from riskd.demo.outcome import Outcome, Watched

# What each reason says, in a line. Reasons without one are shown by their name.
REASONS = {
    "ACCOUNT_REDUCE_ONLY": "the account may only reduce its positions",
    "ACCOUNT_UNKNOWN": "no such account",
    "BELOW_ORDER_NOTIONAL_MIN": "smaller than the smallest notional",
    "BORN_LIQUIDATABLE": "the position would be liquidatable at once",
    "CLIENT_ORDER_ID_REUSED": "the id was used for another order",
    "EXCEEDS_ORDER_QUANTITY_MAX": "larger than the largest order",
    "EXCEEDS_POSITION_NOTIONAL_MAX": "more than the chosen leverage allows",
    "INSTRUMENT_HALTED": "the kill switch is on",
    "MARGIN_INSUFFICIENT": "needs more margin than is available",
    "MARGIN_MODE_MISMATCH": "names another margin mode than the position's",
    "MARK_MISSING": "no mark was ever reported",
    "MARK_STALE": "the last mark is too old",
    "PRICE_OUTSIDE_COLLAR": "the price is too far through the mark",
    "REDUCE_ONLY_WOULD_INCREASE": "reduce-only, but larger than the position",
    "SHORT_OPTION_NOT_PERMITTED": "would open a short option position",
}

LATENCY_SHARES = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max"))


def side(row: Watched) -> str:
    """Return long or short."""
    return "long" if row.is_long else "short"


def position(row: Watched) -> str:
    """Return a position in a few words."""
    symbol = row.symbol.removesuffix("USDT")
    return f"{row.mode} {row.leverage.normalize():f}x {side(row)} {abs(row.quantity):f} {symbol}"


def price(number: Decimal | None) -> str:
    """Return a price with as many decimals as a person reads, or a word if there is none."""
    if number is None:
        return "none"
    return f"{number:,.2f}" if number >= 10 else f"{number:,.5f}"


def predicted(row: Watched) -> str:
    """Return the predicted price, with the symbol whose mark decides where it is another one."""
    return price(row.predicted) + (" *" if row.trigger != row.symbol else "")


def watched_counts(outcome: Outcome) -> tuple[int, int]:
    """Return how many positions were watched, and how many agree."""
    return len(outcome.watched), sum(row.agrees for row in outcome.watched)
