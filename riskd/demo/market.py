"""Recorded prices: read a file, choose the minutes to replay, and say which marks a bar becomes.

A market file is CSV, plain or gzip, in UTF-8. Lines before the header that begin with # are
comments; `source:` and `instrument:` in them are shown. The header names a time column and a price
(or close) column, and may name open, high and low. Times are ISO 8601 (UTC unless they say
otherwise) or whole seconds, milliseconds, microseconds or nanoseconds since 1970. Rows are in the
order of time; rows of one minute become one bar.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

PACKAGED = Path(__file__).with_name("btc_2025_10_10.csv")
MARK_STEP = Decimal("1e-8")
# Outside of it the numbers are not those of 1 BTC in USD, and the sample accounts would not fit.
PRICE_MIN = Decimal(10_000)
PRICE_MAX = Decimal(1_000_000)
BARS_MIN = 30
# Between opening and low: room for what happens on the way down.
FALL_BARS_MIN = 10

_TIME_COLUMNS = ("time", "timestamp", "open_time", "datetime", "date", "t")
_PRICE_COLUMNS = ("close", "price", "mark_price", "mark", "last", "c")
_RANGE_COLUMNS = (("open", "o"), ("high", "h"), ("low", "l"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Largest whole number that is read as seconds, as milliseconds and so on: the year 5138 in each.
_EPOCH_STEPS = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3), (10**20, 1))
_WHOLE = re.compile("[0-9]{1,20}", re.ASCII)


class MarketError(ValueError):
    """A market file cannot be used: names the file, the line, the column and the value."""


@dataclass(frozen=True, slots=True)
class Bar:
    """The prices of one minute."""

    time: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal

    def marks(self) -> tuple[Decimal, ...]:
        """Return the marks to report: open, then the two extremes, close last; no repeats in a row.

        A bar does not record which extreme came first. A bar that closes higher is taken to have
        gone down first, one that closes lower to have gone up first.
        """
        turns = (self.low, self.high) if self.close >= self.open else (self.high, self.low)
        path = [self.open]
        for price in (*turns, self.close):
            if price != path[-1]:
                path.append(price)
        return tuple(path)


@dataclass(frozen=True, slots=True)
class Market:
    """Bars in the order of time, and where they come from."""

    name: str
    origin: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The bars to replay: positions open after bar `opening`, the low is in bar `low`."""

    bars: tuple[Bar, ...]
    opening: int
    low: int


def read(path: Path) -> Market:
    """Return the market of a file. Raises MarketError."""
    try:
        raw = path.read_bytes()
        content = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or "not a whole gzip file"
        raise MarketError(f"{path}: cannot be read: {reason}") from None
    except (EOFError, zlib.error):
        raise MarketError(f"{path}: is not a whole gzip file") from None
    except UnicodeDecodeError as error:
        raise MarketError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    lines = content.splitlines()
    start = next(
        (index for index, line in enumerate(lines) if line.strip() and not line.startswith("#")),
        None,
    )
    if start is None:
        raise MarketError(f"{path}: has no header line")
    bars = tuple(_bars(path, lines, start))
    if len(bars) < BARS_MIN:
        raise MarketError(f"{path}: has {len(bars)} minutes of prices, needs {BARS_MIN} or more")
    return Market(path.name, _origin(lines[:start]), bars)


def choose(market: Market, minutes: int) -> Window:
    """Return the window of so many bars around the sharpest fall, its low two thirds in.

    The sharpest fall is the largest relative drop from a high to a later low inside half a window.
    """
    bars = market.bars
    count = min(minutes, len(bars))
    low = _sharpest_fall(bars, max(1, count // 2))
    start = min(max(0, low - count * 2 // 3), len(bars) - count)
    opening = count * 2 // 9 - 1
    return Window(bars[start : start + count], opening, max(opening + FALL_BARS_MIN, low - start))


def _sharpest_fall(bars: tuple[Bar, ...], reach: int) -> int:
    """Return the index of the bar with the low of the largest relative drop within `reach` bars."""
    highs = [float(bar.high) for bar in bars]
    best, best_index = 0.0, len(bars) * 2 // 3
    for index, bar in enumerate(bars):
        high = max(highs[max(0, index - reach) : index + 1])
        drop = 1 - float(bar.low) / high
        if drop > best:
            best, best_index = drop, index
    return best_index


def _origin(comments: Iterable[str]) -> str:
    """Return the values of the comments `instrument:` and `source:`, "" if there are none."""
    found: dict[str, str] = {}
    key = ""
    for line in comments:
        text = line.lstrip("#")
        name, colon, value = text.strip().partition(":")
        if colon and name in ("instrument", "source", "carried over"):
            key = name
            found[key] = value.strip()
        elif key and text.startswith("   "):  # a continued line is indented
            found[key] += " " + text.strip()
        else:
            key = ""
    return "; ".join(found[name] for name in ("instrument", "source") if name in found)


def _bars(path: Path, lines: list[str], start: int) -> Iterator[Bar]:
    bar: Bar | None = None
    for row in _rows(path, lines, start):
        minute = row.time.replace(second=0, microsecond=0)
        if bar is not None and bar.time == minute:
            high, low = max(bar.high, row.high), min(bar.low, row.low)
            bar = Bar(minute, bar.open, high, low, row.close)
            continue
        if bar is not None:
            yield bar
        bar = Bar(minute, row.open, row.high, row.low, row.close)
    if bar is not None:
        yield bar


def _rows(path: Path, lines: list[str], start: int) -> Iterator[Bar]:
    """Yield one Bar a line, with the line's own time."""
    reader = csv.reader(lines[start:])
    header = [name.strip().lower() for name in next(reader)]
    shown = ", ".join(header)

    def find(names: tuple[str, ...]) -> int | None:
        return next((header.index(name) for name in names if name in header), None)

    def require(names: tuple[str, ...], what: str) -> int:
        index = find(names)
        if index is None:
            wanted = " or ".join(names)
            raise MarketError(
                f"{path}, line {start + 1}: no {what} column ({wanted}); the header has: {shown}"
            )
        return index

    time_column = require(_TIME_COLUMNS, "time")
    close_column = require(_PRICE_COLUMNS, "price")
    range_columns = [index for names in _RANGE_COLUMNS if (index := find(names)) is not None]
    has_range = len(range_columns) == 3

    previous: datetime | None = None
    for fields in reader:
        line = start + reader.line_num
        if not fields:
            continue
        if len(fields) != len(header):
            raise MarketError(
                f"{path}, line {line}: has {len(fields)} fields, the header has {len(header)}"
            )

        where = f"{path}, line {line}, column {header[time_column]}"
        time = _time(fields[time_column].strip(), where)
        if previous is not None and time < previous:
            raise MarketError(
                f"{where}: {fields[time_column]} is before the time of the row above it"
            )
        previous = time
        prices = [
            _price(fields[column], f"{path}, line {line}, column {header[column]}")
            for column in (close_column, *(range_columns if has_range else ()))
        ]
        close = prices[0]
        if not has_range:
            yield Bar(time, close, close, close, close)
            continue
        first, high, low = prices[1:]
        if high < max(first, close, low) or low > min(first, close):
            raise MarketError(
                f"{path}, line {line}: high {high} and low {low} do not enclose "
                f"open {first} and close {close}"
            )
        yield Bar(time, first, high, low, close)


def _price(text: str, where: str) -> Decimal:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise MarketError(f"{where}: {text!r} is not a number") from None
    if not number.is_finite():
        raise MarketError(f"{where}: {text!r} is not a finite number")
    if not PRICE_MIN <= number <= PRICE_MAX:
        raise MarketError(
            f"{where}: {text} is not a price of 1 BTC in USD, {PRICE_MIN} to {PRICE_MAX}"
        )
    return number.quantize(MARK_STEP)


def _time(text: str, where: str) -> datetime:
    try:
        if _WHOLE.fullmatch(text):
            number = int(text)
            step_ns = next(step for bound, step in _EPOCH_STEPS if number <= bound)
            return _EPOCH + timedelta(microseconds=number * step_ns // 1000)
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError, StopIteration):
        raise MarketError(
            f"{where}: {text!r} is not an ISO 8601 time or a whole number since 1970"
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
