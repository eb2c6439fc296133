"""The page: one HTML file with plots, which opens without a network and without scripts."""

import math
from collections.abc import Iterable
from datetime import datetime
from html import escape

from riskd.demo import svg, text
from riskd.demo.cast import BTC, HELD_MARKS_ORIGIN, TRADERS
from riskd.demo.outcome import Outcome, Sample, Watched

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2126; --soft: #5d6772; --grid: #e7eaed; --zero: #a9b2bb;
  --price: #1c2126; --band: #b8c1ca; --long: #c2410c; --short: #0f766e; --need: #b91c1c;
  --equity: #1d4ed8; --bar: #64748b; --card: #f6f7f8; --good: #15803d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --ink: #e8ebee; --soft: #9aa5b0; --grid: #262c33; --zero: #56616c;
    --price: #e8ebee; --band: #4d5862; --long: #fb923c; --short: #2dd4bf; --need: #f87171;
    --equity: #7aa5ff; --bar: #8494a7; --card: #1b2026; --good: #4ade80;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 1128px;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .25rem; }
h3 { font-size: .95rem; margin: 0 0 .3rem; }
p { margin: .25rem 0 .75rem; max-width: 78ch; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
figure { margin: 0; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; min-width: 300px; }
figure.wide svg { min-width: 820px; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink);
  font-variant-numeric: tabular-nums; }
svg .axis { fill: var(--soft); } svg .unit { font-style: italic; }
svg line, svg polyline { fill: none; stroke-width: 1; }
.grid { stroke: var(--grid); } .zero { stroke: var(--zero); }
.price { stroke: var(--price); stroke-width: 1.75 !important; stroke-linejoin: round; }
.band { stroke: var(--band); stroke-width: 3 !important; }
.equity { stroke: var(--equity); stroke-width: 2 !important; stroke-linejoin: round; }
.need { stroke: var(--need); stroke-width: 2 !important; stroke-dasharray: 5 3; }
.long { stroke: var(--long); } .short { stroke: var(--short); }
.held { stroke-dasharray: 2 4; opacity: .75; }
.lead { opacity: .45; }
circle.long { fill: var(--long); stroke: var(--paper); stroke-width: 1.5; }
circle.short { fill: var(--short); stroke: var(--paper); stroke-width: 1.5; }
circle.need { fill: var(--need); stroke: var(--paper); stroke-width: 1.5 !important;
  stroke-dasharray: none; }
svg text { stroke: none !important; }
svg text.over { stroke: var(--paper) !important; stroke-width: 4px; paint-order: stroke; }
svg text.long { fill: var(--long); } svg text.short { fill: var(--short); }
svg text.equity { fill: var(--equity); } svg text.need { fill: var(--need); }
rect.bar { fill: var(--bar); }
.share { stroke: var(--equity); }
.figures { display: flex; flex-wrap: wrap; gap: 1.25rem 2.75rem; margin: 1.5rem 0 0; padding: 0; }
.figures div { display: flex; flex-direction: column-reverse; }
.figures dt { color: var(--soft); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.6rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.columns, .halves { display: grid; gap: 1.5rem; }
.columns { grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); }
.halves { grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); column-gap: 2rem; }
.card { background: var(--card); border-radius: 6px; padding: .8rem 1rem; }
.card ul { margin: 0; padding: 0; list-style: none; font-size: .86rem; }
.card li { margin: .2rem 0; padding-left: .9rem; text-indent: -.9rem; }
.card time { color: var(--soft); font-weight: 400; margin-right: .5rem; }
.cards { columns: 2 460px; column-gap: 1.25rem; margin-top: .75rem; }
.cards .card { break-inside: avoid; margin-bottom: 1.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .84rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; vertical-align: bottom; font-weight: 600; padding: .3rem .45rem;
  border-bottom: 1px solid var(--zero); }
th:first-child, td:first-child { padding-left: 0; }
td { border-bottom: 1px solid var(--grid); padding: .2rem .45rem; white-space: nowrap; }
.number { text-align: right; }
.yes { color: var(--good); } .no { color: var(--need); font-weight: 700; }
@media (max-width: 560px) {
  .columns, .halves { grid-template-columns: 1fr; }
  .cards { columns: 1; }
}
"""

_TRADERS = {trader.account for trader in TRADERS}


def render(outcome: Outcome) -> str:
    """Return the page."""
    bars = outcome.window.bars
    first, last = bars[0].time, bars[-1].time
    top = max(bar.high for bar in bars)
    low = min(bar.low for bar in bars)
    count, agreed = text.watched_counts(outcome)
    rejected = len(outcome.sent) - outcome.accepted_count
    figures = (
        ("accounts", f"{outcome.accounts_count}"),
        ("orders", f"{len(outcome.sent):,}"),
        ("accepted", f"{outcome.accepted_count:,}"),
        ("rejected", f"{rejected:,}"),
        ("median decision", f"{outcome.latency_us(0.5) / 1000:.2f} ms"),
        ("liquidatable", f"{len(outcome.crossed)}"),
        ("predictions that held", f"{agreed} of {count}"),
    )
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures)
    origin = f" Prices: {escape(outcome.market.origin)}." if outcome.market.origin else ""
    panels = "".join(
        f"<figure><h3>{escape(title)}</h3>{_panel(outcome, index, title, samples)}</figure>"
        for index, (title, samples) in enumerate(outcome.samples.items())
    )
    stories = "".join(
        f'<section class="card"><h3><time>{story.time:%H:%M}</time>{escape(story.title)}</h3>'
        f"<ul>{''.join(f'<li>{_arrows(line)}</li>' for line in story.lines)}</ul></section>"
        for story in outcome.stories
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>riskd demo: {first:%d %B %Y}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>BTC on {first:%d %B %Y}, {first:%H:%M} to {last:%H:%M} UTC, through riskd</h1>
<p class="soft">{len(bars)} recorded minutes, from {top:,.0f} down to {low:,.0f} USD.{origin}
{escape(HELD_MARKS_ORIGIN)}. Order stream with seed {outcome.seed}. Rules: binance_usdm.</p>
<dl class="figures">{shown}</dl>
</header>
<main>
<h2>The mark and the liquidation prices that were predicted</h2>
<p class="soft">Each level is the liquidation price of a BTC position, asked for when it was opened
or last changed. It ends in a dot at the first reported mark at which the service called the
position liquidatable; dotted levels were not reached. Levels outside of the picture are in the
table. Grey strokes span a minute's low and high, the line joins the closes.</p>
<figure class="wide">{_prices(outcome)}</figure>
<h2>Equity against maintenance margin</h2>
<p class="soft">A position can be liquidated where equity meets maintenance. For an isolated
position equity is its wallet and its profit, for a cross position the account's pool and the profit
of all of its cross positions. Sampled at each minute's close. riskd reports what can be liquidated;
whoever liquidates is the venue, so here the positions stay as they are.</p>
<div class="columns">{panels}</div>
<div class="halves">
<section><h2>Why orders were rejected</h2>
<p class="soft">{rejected:,} of {len(outcome.sent):,} orders, by the first rule that they broke.</p>
<figure>{_reasons(outcome)}</figure></section>
<section><h2>How long a decision took</h2>
<p class="soft">From call to answer through the Python client, one order at a time; client and
server share one Python process.</p>
<figure>{_latencies(outcome)}</figure></section>
</div>
<h2>What happened on the way</h2>
<div class="cards">{stories}</div>
<h2>Every position: predicted against what happened</h2>
<p class="soft">Crossed: the first reported mark at which the service said liquidatable. A
prediction agrees when that is also the first mark at or beyond the predicted price, or when there
is neither. A star marks a cross position on a mark that stands still: its price is that of the
account's BTC position. Traders' positions show the last of many predictions, one after each
fill.</p>
<div class="scroll">{_table(outcome)}</div>
</main>
</body>
</html>
"""


def _prices(outcome: Outcome) -> str:
    """Draw the mark, the predicted levels and where they were crossed."""
    bars = outcome.window.bars
    top, low = float(max(bar.high for bar in bars)), float(min(bar.low for bar in bars))
    margin = max((top - low) * 0.06, top * 0.0005)
    plot = svg.Plot(
        1080,
        520,
        "BTC mark price with predicted liquidation prices",
        "Mark price by the minute; levels are liquidation prices, dots are crossings.",
        right=128,
    )
    x = plot.x_scale(_second(bars[0].time), _second(bars[-1].time) + 60)
    y = plot.y_scale(low - margin, top + margin)
    plot.y_axis(y, "USD", 10)
    plot.time_axis(x, 10)
    for bar in bars:
        middle = x(_second(bar.time) + 30)
        note = f"{bar.time:%H:%M} low {bar.low:,.1f} high {bar.high:,.1f}"
        plot.line(middle, y(float(bar.high)), middle, y(float(bar.low)), "band", note)
    plot.polyline([(x(_second(bar.time) + 60), y(float(bar.close))) for bar in bars], "price")

    opening_end = _second(bars[outcome.window.opening].time) + 60
    levels = [
        row
        for row in outcome.watched
        if row.symbol == BTC and row.account not in _TRADERS and row.predicted is not None
    ]
    for early in (True, False):
        rows = [row for row in levels if _is_early(row, opening_end) == early]
        drawn = [row for row in rows if _draw_level(plot, row, x, y)]
        _label_levels(plot, drawn, x, y, is_left=early)
    return plot.render("prices")


def _is_early(row: Watched, opening_end: float) -> bool:
    return _second(row.predictions[0].made.time) < opening_end


def _draw_level(plot: svg.Plot, row: Watched, x: svg.Scale, y: svg.Scale) -> bool:
    """Draw a position's levels, one for each prediction; return whether any is in the picture."""
    ends = [*(each.made.time for each in row.predictions[1:]), None]
    note = f"#{row.account} {text.position(row)}"
    is_drawn = False
    for prediction, end in zip(row.predictions, ends, strict=True):
        if prediction.price is None or not y.contains(float(prediction.price)):
            continue
        stop = end or (row.said.time if row.said else None)
        right = x.high if stop is None else _second(stop)
        level = y(float(prediction.price))
        held = "" if row.said is not None else " held"
        style = f"{text.side(row)}{held}"
        words = f"{note}: {text.price(prediction.price)}"
        plot.line(x(_second(prediction.made.time)), level, x(right), level, style, words)
        is_drawn = True
    if row.said is not None and row.predicted is not None:
        crossing = f"{note}: predicted {text.price(row.predicted)}, liquidatable at {row.said.mark}"
        plot.dot(x(_second(row.said.time)), y(float(row.predicted)), 4, text.side(row), crossing)
    return is_drawn


def _label_levels(
    plot: svg.Plot, rows: list[Watched], x: svg.Scale, y: svg.Scale, *, is_left: bool
) -> None:
    """Label levels beside their start, or at the right edge, without overlaps."""
    anchors = []
    for row in rows:
        inside = [each.price for each in row.predictions if each.price is not None]
        shown = [price for price in inside if y.contains(float(price))]
        anchors.append(y(float(shown[0] if is_left else shown[-1])))
    places = svg.spread(anchors, 14, plot.top + 6, plot.height - plot.bottom - 4)
    for row, anchor, place in zip(rows, anchors, places, strict=True):
        words = f"#{row.account} {row.mode} {row.leverage.normalize():f}x {text.side(row)}"
        style = text.side(row)
        if is_left:
            start = x(_second(row.predictions[0].made.time))
            plot.line(start - 14, place, start, anchor, f"{style} lead")
            plot.words(start - 18, place + 4, words, style, "end")
        else:
            end = x(x.high if row.said is None else _second(row.said.time))
            edge = x(x.high)
            plot.line(max(end, edge - 1), anchor, edge + 12, place, f"{style} lead")
            if end < edge:
                plot.line(end, anchor, edge, anchor, f"{style} lead held")
            plot.words(edge + 15, place + 4, words.replace("isolated ", ""), style)


def _panel(outcome: Outcome, index: int, title: str, samples: list[Sample]) -> str:
    """Draw a position's equity and maintenance margin over time."""
    values = [float(each.equity) for each in samples] + [
        float(each.maintenance) for each in samples
    ]
    high, low = max(values), min(*values, 0.0)
    margin = (high - low) * 0.08
    plot = svg.Plot(
        360, 236, title, "Equity and maintenance margin in USDT over time.", left=60, right=10
    )
    x = plot.x_scale(_second(samples[0].time), _second(samples[-1].time))
    y = plot.y_scale(low - (margin if low < 0 else 0), high + margin)
    plot.y_axis(y, "USDT", 5)
    plot.time_axis(x, 5)
    seconds = [x(_second(each.time)) for each in samples]
    needs = [y(float(each.maintenance)) for each in samples]
    equities = [y(float(each.equity)) for each in samples]
    plot.polyline(zip(seconds, needs, strict=True), "need")
    plot.polyline(zip(seconds, equities, strict=True), "equity")
    account = int(title.removeprefix("#").split()[0])
    for row in outcome.watched:
        if row.account == account and row.symbol == BTC and row.said is not None:
            place = next(
                (i for i, each in enumerate(samples) if each.time >= row.said.time),
                len(samples) - 1,
            )
            plot.dot(seconds[place], needs[place], 4.5, "need", f"liquidatable at {row.said.mark}")
            plot.words(seconds[place] + 8, needs[place] - 8, "liquidatable", "need over")
    plot.words(seconds[1] + 4, equities[0] - 8, "equity", "equity over")
    plot.words(seconds[1] + 4, needs[0] - 6, "maintenance", "need over")
    return plot.render(f"panel-{index}")


def _reasons(outcome: Outcome) -> str:
    """Draw how many orders were rejected for each reason."""
    rows = outcome.rejected.most_common()
    plot = svg.Plot(
        520,
        len(rows) * 24 + 8,
        "Rejected orders by reason",
        ", ".join(f"{reason} {count}" for reason, count in rows),
        left=244,
        right=40,
        top=2,
        bottom=2,
    )
    x = plot.x_scale(0, max((count for _, count in rows), default=1))
    for index, (reason, count) in enumerate(rows):
        y = plot.top + index * 24
        plot.words(plot.left - 8, y + 15, reason, "label", "end")
        note = f"{reason}: {text.REASONS.get(reason, '')}"
        plot.bar(plot.left, y + 3, x(count) - plot.left, 16, "bar", note)
        plot.words(x(count) + 6, y + 15, str(count), "axis")
    return plot.render("reasons")


def _latencies(outcome: Outcome) -> str:
    """Draw a histogram of the latencies on a logarithmic scale, with the percentiles."""
    values = sorted(order.latency_ns / 1e6 for order in outcome.sent)
    low, high = math.log10(values[0]) - 0.02, math.log10(values[-1]) + 0.02
    bins = 48
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((math.log10(value) - low) / (high - low) * bins))] += 1
    shares = [(name, outcome.latency_us(share) / 1000) for share, name in text.LATENCY_SHARES]
    plot = svg.Plot(
        520,
        330,
        "Latency of a decision",
        ", ".join(f"{name} {value:.2f} ms" for name, value in shares),
        left=48,
        right=24,
        top=84,
    )
    x = plot.x_scale(low, high)
    y = plot.y_scale(0, max(counts) * 1.04)
    plot.y_axis(y, "orders", 5)
    width = (x(high) - x(low)) / bins
    for index, count in enumerate(counts):
        if count:
            left = low + (high - low) * index / bins
            right = low + (high - low) * (index + 1) / bins
            note = f"{10**left:.2f} to {10**right:.2f} ms: {count} orders"
            plot.bar(x(left) + 0.5, y(count), width - 1, y(0) - y(count), "bar", note)
    foot = plot.height - plot.bottom
    plot.line(plot.left, foot, plot.width - plot.right, foot, "zero")
    for value in _log_steps(values[0], values[-1]):
        place = x(math.log10(value))
        plot.line(place, foot, place, foot + 5, "zero")
        plot.words(place, foot + 19, f"{value:g}", "axis", "middle")
    plot.words(plot.width - plot.right, plot.height - 4, "ms, logarithmic", "axis unit", "end")
    for index, (_, value) in enumerate(shares):
        plot.line(x(math.log10(value)), 19 + index * 16, x(math.log10(value)), foot, "share")
    for index, (name, value) in enumerate(shares):
        place = x(math.log10(value))
        words = f"{name} {value:.2f} ms"
        anchor = "end" if place + svg.width_of(words) > plot.width else "start"
        plot.words(
            place + (-5 if anchor == "end" else 5), 23 + index * 16, words, "axis over", anchor
        )
    return plot.render("latencies")


def _log_steps(low: float, high: float) -> Iterable[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for power in range(first, last + 1):
        for factor in (1, 2, 5):
            value = factor * 10.0**power
            if low <= value <= high:
                yield value


def _table(outcome: Outcome) -> str:
    """Return the table of all positions: those that crossed first, in that order."""
    held = [row for row in outcome.watched if row.said is None]
    head = (
        ("account", ""),
        ("position", ""),
        ("entry", "number"),
        ("predicted", "number"),
        ("renewed", "number"),
        ("worst mark", "number"),
        ("warned at", "number"),
        ("crossed", "number"),
        ("at, UTC", "number"),
        ("agrees", ""),
    )
    titles = "".join(f'<th scope="col" class="{style}">{name}</th>' for name, style in head)
    lines = []
    for row in (*outcome.crossed, *held):
        cells = (
            f"#{row.account}",
            text.position(row) + (", closed" if row.is_closed else ""),
            text.price(row.entry),
            text.predicted(row),
            str(len(row.predictions) - 1),
            text.price(row.extreme),
            text.price(row.warned.mark) if row.warned else "–",
            text.price(row.said.mark) if row.said else "–",
            f"{row.said.time:%H:%M:%S}" if row.said else "–",
            "yes" if row.agrees else "NO",
        )
        styles = (*(style for _, style in head[:-1]), "yes" if row.agrees else "no")
        lines.append(
            "<tr>"
            + "".join(
                f'<td class="{style}">{escape(cell)}</td>'
                for cell, style in zip(cells, styles, strict=True)
            )
            + "</tr>"
        )
    body = "\n".join(lines)
    return f"<table><thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _arrows(line: str) -> str:
    return escape(line.replace("->", "→"))


def _second(time: datetime) -> float:
    return time.timestamp()
