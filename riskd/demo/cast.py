"""Who takes part: sample accounts, what they open, and the marks that no recording moves."""

from dataclasses import dataclass
from decimal import Decimal

BTC = "BTCUSDT"
ETH = "ETHUSDT"
SMALL = "CELRUSDT"
SILENT = "CHRUSDT"
NEVER_MARKED = "SOLUSDT"
ASSET = "USDT"

# Held still through the replay, so that a cross position's liquidation price on BTC stays exact.
HELD_MARKS = {ETH: Decimal("2978.25"), SMALL: Decimal("0.02")}
# Reported once, at the start: it grows stale.
SILENT_MARK = Decimal("0.15")
HELD_MARKS_ORIGIN = (
    "ETHUSDT stands still at 2978.25 (Deribit index of 2025-12-30), CELRUSDT at 0.02 (made up)"
)


@dataclass(frozen=True, slots=True)
class Leg:
    """A position to open: notional in USDT, mode "" for the account's default."""

    symbol: str
    side: str
    notional: int
    leverage: int
    mode: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """An account to open. Its collateral is `cushion` times what its legs need at the start."""

    account: int
    mode: str
    leverage: int
    legs: tuple[Leg, ...]
    cushion: Decimal = Decimal("1.1")


@dataclass(frozen=True, slots=True)
class Trader:
    """An account that sends orders all the time, with a deposit in USDT."""

    account: int
    mode: str
    leverage: int
    deposit: int


# Accounts that have a part of their own in replay.py.
RESCUED = 116
OVER_LIMIT = 170
FOLLOWED = 151
FEATURED = 112
OPTION_BUYER = 180

_LONGS = (
    # leverage, notional: from the first to the fourth tier of the venue's schedule
    (2, 400_000),
    (3, 90_000),
    (4, 250_000),
    (5, 40_000),
    (6, 700_000),
    (7, 120_000),
    (8, 60_000),
    (9, 1_500_000),
    (10, 500_000),
    (12, 3_500_000),
    (15, 45_000),
    (20, 200_000),
    (25, 5_000_000),
    (40, 900_000),
    (50, 30_000),
)


def opening() -> tuple[Plan, ...]:
    """Return the accounts that open their positions before the crash."""
    longs = [
        _isolated(101 + index, BTC, "buy", notional, leverage)
        for index, (leverage, notional) in enumerate(_LONGS)
    ]
    shorts = [
        _isolated(121 + index, BTC, "sell", notional, leverage)
        for index, (leverage, notional) in enumerate(
            ((3, 150_000), (10, 80_000), (25, 650_000), (50, 40_000))
        )
    ]
    cross = [
        _cross(141 + index, leverage, Leg(BTC, "buy", notional, leverage))
        for index, (leverage, notional) in enumerate(
            ((2, 100_000), (5, 300_000), (10, 800_000), (25, 60_000), (50, 2_000_000))
        )
    ]
    return (
        *longs,
        # The same as the isolated long at 10x; this one adds margin on the way down.
        Plan(RESCUED, "isolated", 10, (Leg(BTC, "buy", 500_000, 10),), Decimal("1.7")),
        *shorts,
        *cross,
        _cross(FOLLOWED, 15, Leg(BTC, "buy", 300_000, 15), Leg(ETH, "buy", 100_000, 15)),
        _cross(152, 20, Leg(BTC, "buy", 150_000, 20), Leg(ETH, "sell", 60_000, 20)),
        _cross(153, 20, Leg(BTC, "buy", 90_000, 20), Leg(SMALL, "buy", 10_000, 20)),
        _cross(154, 8, Leg(BTC, "sell", 400_000, 8), Leg(ETH, "buy", 200_000, 8)),
        _isolated(161, ETH, "buy", 75_000, 20),
        _isolated(162, SMALL, "buy", 20_000, 20),
        # Both modes on one account.
        Plan(
            163,
            "cross",
            10,
            (Leg(BTC, "buy", 120_000, 30, "isolated"), Leg(ETH, "buy", 60_000, 10)),
        ),
        _cross(OVER_LIMIT, 20, Leg(BTC, "buy", 350_000, 20)),
    )


def rebound() -> tuple[Plan, ...]:
    """Return the accounts that sell short just after the low."""
    return tuple(
        _isolated(131 + index, BTC, "sell", notional, leverage)
        for index, (leverage, notional) in enumerate(
            ((10, 100_000), (15, 60_000), (20, 700_000), (30, 45_000), (50, 150_000))
        )
    )


FAST_TRADER = Trader(305, "isolated", 50, 400_000)
RESTRICTED_TRADER = Trader(306, "cross", 10, 40_000)
TRADERS = (
    Trader(301, "cross", 10, 60_000),
    Trader(302, "cross", 20, 30_000),
    Trader(303, "isolated", 5, 80_000),
    Trader(304, "cross", 5, 25_000),
    FAST_TRADER,
    RESTRICTED_TRADER,
)
OPTION_DEPOSIT = 25_000


def _isolated(account: int, symbol: str, side: str, notional: int, leverage: int) -> Plan:
    return Plan(account, "isolated", leverage, (Leg(symbol, side, notional, leverage),))


def _cross(account: int, leverage: int, *legs: Leg) -> Plan:
    return Plan(account, "cross", leverage, legs)
