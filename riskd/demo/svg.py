"""Plots as SVG text: scales, axes, a few marks. Colours come from classes of the page's style."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape

_MINUTE_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440)
_CHARACTER_WIDTH = 6.6


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map of values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def contains(self, value: float) -> bool:
        """Return whether a value is on the scale."""
        return self.low <= value <= self.high


@dataclass(slots=True)
class Plot:
    """An SVG picture in the making."""

    width: float
    height: float
    title: str
    description: str
    left: float = 74
    right: float = 16
    top: float = 26
    bottom: float = 40
    parts: list[str] = field(default_factory=list)

    def x_scale(self, low: float, high: float) -> Scale:
        """Return the scale of the horizontal axis."""
        return Scale(low, high, self.left, self.width - self.right)

    def y_scale(self, low: float, high: float) -> Scale:
        """Return the scale of the vertical axis."""
        return Scale(low, high, self.height - self.bottom, self.top)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str, note: str = "") -> None:
        """Add a line; the note shows when a pointer rests on it."""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}">'
            f"{_note(note)}</line>"
        )

    def polyline(self, points: Iterable[tuple[float, float]], style: str) -> None:
        """Add a line through points."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{joined}" class="{style}"/>')

    def dot(self, x: float, y: float, radius: float, style: str, note: str = "") -> None:
        """Add a dot."""
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{style}">{_note(note)}</circle>'
        )

    def bar(
        self, x: float, y: float, width: float, height: float, style: str, note: str = ""
    ) -> None:
        """Add a rectangle."""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
            f'height="{max(height, 0):.1f}" class="{style}">{_note(note)}</rect>'
        )

    def words(self, x: float, y: float, words: str, style: str, anchor: str = "start") -> None:
        """Add a text whose baseline is at y."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    def y_axis(self, scale: Scale, unit: str, count: int = 6) -> None:
        """Add horizontal grid lines with their values, and the unit above them."""
        for value in nice_steps(scale.low, scale.high, count):
            y = scale(value)
            self.line(self.left, y, self.width - self.right, y, "zero" if value == 0 else "grid")
            self.words(self.left - 8, y + 4, f"{value:,.0f}".replace("-", "−"), "axis", "end")
        self.words(self.left - 8, self.top - 12, unit, "axis unit", "end")

    def time_axis(self, scale: Scale, count: int = 9) -> None:
        """Add the times of day in UTC; the scale is in seconds since 1970."""
        y = self.height - self.bottom
        self.line(self.left, y, self.width - self.right, y, "zero")
        for second in time_steps(scale.low, scale.high, count):
            x = scale(second)
            self.line(x, y, x, y + 5, "zero")
            label = f"{datetime.fromtimestamp(second, UTC):%H:%M}"
            self.words(x, y + 19, label, "axis", "middle")
        self.words(self.width - self.right, self.height - 4, "UTC", "axis unit", "end")

    def render(self, identity: str) -> str:
        """Return the SVG element, with a title and a description for those who cannot see it."""
        body = "\n".join(self.parts)
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-labelledby="{identity}-title {identity}-description">\n'
            f'<title id="{identity}-title">{escape(self.title)}</title>\n'
            f'<desc id="{identity}-description">{escape(self.description)}</desc>\n'
            f"{body}\n</svg>"
        )


def nice_steps(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round values of 1, 2 or 5 times a power of ten within low and high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def time_steps(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round times, in seconds since 1970."""
    minutes = (high - low) / 60 / count
    step_minutes = next((each for each in _MINUTE_STEPS if each >= minutes), _MINUTE_STEPS[-1])
    step = timedelta(minutes=step_minutes).total_seconds()
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions in the order of `wanted`, `gap` or more apart and near to where asked.

    They overlap only where they cannot fit between low and high.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    previous = low - gap
    for index in order:
        previous = max(wanted[index], previous + gap)
        placed[index] = previous
    following = high + gap
    for index in reversed(order):
        following = min(placed[index], following - gap)
        placed[index] = following
    return placed


def width_of(words: str) -> float:
    """Return about how wide a label is."""
    return len(words) * _CHARACTER_WIDTH


def _note(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""
