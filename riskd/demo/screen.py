"""What a person sees in a terminal, or in a file: plain lines, colour only on a terminal."""

import os
import shutil
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import TextIO

from riskd.demo import text
from riskd.demo.cast import FOLLOWED, HELD_MARKS_ORIGIN, NEVER_MARKED, SILENT
from riskd.demo.outcome import WARNING_RATIO, Outcome, Story, Watched

WIDTH = 100
# A line a bar while something happens, and every so many bars while nothing does.
QUIET_BARS = 10
NAMES_MAX = 4
INDENT = " " * 7
HANGING = " " * 9


class Screen:
    """Tells the replay as it happens."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._has_colour = self._is_terminal and "NO_COLOR" not in os.environ
        self._bars_quiet = QUIET_BARS
        self._was_story = False

    # Narrator.

    def begin(self, outcome: Outcome, target: str) -> None:
        """Say what is run on what."""
        bars = outcome.window.bars
        first, last = bars[0].time, bars[-1].time
        self._heading("riskd demo")
        origin = f" ({outcome.market.origin})" if outcome.market.origin else ""
        self._paragraph(
            f"A service with the rules of binance_usdm on {target}, asked through the Python "
            f"client. BTC marks: {outcome.market.name}, {len(bars)} minutes from "
            f"{first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC{origin}."
        )
        self._paragraph(
            "Each minute reports its open, the extreme against its direction, the other extreme, "
            "and its close; the service's clock shows the recorded time. "
            f"{HELD_MARKS_ORIGIN}. {SILENT} falls silent, {NEVER_MARKED} never has a mark."
        )

    def opened(self, outcome: Outcome) -> None:
        """Say what was opened."""
        self._clear_progress()
        rows = outcome.watched
        self._heading("Before the crash")
        kinds: dict[str, list[Decimal]] = {}
        for row in rows:
            kinds.setdefault(f"{row.mode} {text.side(row)}", []).append(row.leverage)
        spread = "; ".join(
            f"{len(found)} {kind} at {min(found).normalize():f}x to {max(found).normalize():f}x"
            for kind, found in kinds.items()
        )
        self._paragraph(
            f"{outcome.accounts_count} accounts, {len(rows)} positions: {spread}. Each position's "
            "liquidation price is asked for now, and held against the marks to come. A warning is "
            f"maintenance at {WARNING_RATIO:.0%} of equity."
        )
        self._heading("The crash")
        self._line(
            self._bold(
                f"{'UTC':<5}{'low':>11}{'close':>11} |"
                f"{'equity':>8}{'maint.':>8}{'available':>10} | positions (figures: #{FOLLOWED})"
            )
        )

    def bar(self, outcome: Outcome, index: int) -> None:
        """Show a bar if something happened in it, or if nothing was shown for a while."""
        bar = outcome.window.bars[index]
        if index <= outcome.window.opening:
            self._progress(f"waiting for the opening {bar.time:%H:%M}")
            return
        since = bar.time
        warned = [row for row in outcome.watched if row.warned and row.warned.time >= since]
        lost = [row for row in outcome.watched if row.said and row.said.time >= since]
        self._bars_quiet += 1
        is_last = index == len(outcome.window.bars) - 1
        if not warned and not lost and self._bars_quiet < QUIET_BARS and not is_last:
            self._progress(f"replaying {bar.time:%H:%M}, {len(outcome.sent)} orders")
            return
        self._bars_quiet = 0
        self._clear_progress()
        self._was_story = False
        sample = next(rows[-1] for name, rows in outcome.samples.items() if f"#{FOLLOWED}" in name)
        events = []
        if lost:
            events.append(self._red(f"liquidatable {_names(lost)}"))
        only_warned = [row for row in warned if row not in lost]
        if only_warned:
            events.append(self._yellow(f"warning {_names(only_warned)}"))
        self._line(
            f"{bar.time:%H:%M}{bar.low:>11,.1f}{bar.close:>11,.1f} |{sample.equity:>8,.0f}"
            f"{sample.maintenance:>8,.0f}{sample.available:>10,.0f} | {'; '.join(events)}".rstrip(
                " |"
            )
        )

    def story(self, story: Story) -> None:
        """Tell something worth reading."""
        self._clear_progress()
        if not self._was_story:
            self._line("")
        self._was_story = True
        self._line(f"{story.time:%H:%M}  {self._bold(story.title)}")
        for line in story.lines:
            self._line(textwrap.fill(line, WIDTH, initial_indent=INDENT, subsequent_indent=HANGING))
        self._bars_quiet = 0

    # The end.

    def finish(self, outcome: Outcome, output: Path) -> None:
        """Show the tables, and where the page is."""
        self._clear_progress()
        self._orders(outcome)
        self._crossings(outcome)
        self._line("")
        self._line(f"Replayed in {outcome.seconds:.1f} s. The page: {output.resolve().as_uri()}")

    def _orders(self, outcome: Outcome) -> None:
        sent, accepted = len(outcome.sent), outcome.accepted_count
        self._heading("Orders")
        self._line(f"{'sent':<32}{sent:>6}   and {outcome.repeats_count} repeated")
        self._line(f"{'accepted':<32}{accepted:>6}   {outcome.fills_count} fills reported")
        self._line(f"{'rejected':<32}{sent - accepted:>6}")
        for reason, count in outcome.rejected.most_common():
            self._line(f"  {reason:<30}{count:>6}   {text.REASONS.get(reason, '')}")
        shares = "   ".join(
            f"{name} {outcome.latency_us(share) / 1000:.2f}" for share, name in text.LATENCY_SHARES
        )
        self._line(f"{'latency of an order, ms':<32}   {shares}  (in one process)")

    def _crossings(self, outcome: Outcome) -> None:
        crossed = outcome.crossed
        self._heading("Predicted liquidation price against the first mark that was liquidatable")
        self._line(
            self._bold(
                f"{'account':<9}{'position':<39}{'predicted':>13}{'mark':>12}{'at':>10}  agrees"
            )
        )
        for row in crossed:
            assert row.said is not None
            verdict = "yes" if row.agrees else self._red("NO")
            self._line(
                f"#{row.account:<8}{text.position(row):<39}{text.predicted(row):>13}"
                f"{row.said.mark:>12,.2f}  {row.said.time:%H:%M:%S}  {verdict}"
            )
        count, agreed = text.watched_counts(outcome)
        held = [row for row in outcome.watched if row.said is None]
        strays = [row for row in held if not row.agrees]
        self._line("")
        self._paragraph(
            f"{len(crossed)} of {count} positions became liquidatable. The other {len(held)} did "
            f"not, and for {len(held) - len(strays)} of them no mark reached the predicted price. "
            "* a cross position on a mark that stands still: the price is the one of its account's "
            "BTC position. Predictions are renewed after each fill or transfer."
        )
        for row in strays:
            self._line(
                self._red(f"#{row.account} {text.position(row)}: predicted {text.predicted(row)}")
            )
        verdict = f"{agreed} of {count} predictions agree with the replay."
        self._line(self._bold(verdict) if agreed == count else self._red(verdict))

    # Writing.

    def _line(self, line: str) -> None:
        print(line, file=self._stream, flush=self._is_terminal)

    def _heading(self, title: str) -> None:
        self._line("")
        self._line(self._bold(f"== {title} =="))

    def _paragraph(self, words: str) -> None:
        self._line(textwrap.fill(words, WIDTH))

    def _progress(self, words: str) -> None:
        if self._is_terminal:
            columns = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[K{words}"[: columns + 4])
            self._stream.flush()

    def _clear_progress(self) -> None:
        if self._is_terminal:
            self._stream.write("\r\x1b[K")

    def _bold(self, words: str) -> str:
        return self._paint(words, "1")

    def _red(self, words: str) -> str:
        return self._paint(words, "31")

    def _yellow(self, words: str) -> str:
        return self._paint(words, "33")

    def _paint(self, words: str, code: str) -> str:
        return f"\x1b[{code}m{words}\x1b[0m" if self._has_colour else words


def _names(rows: list[Watched]) -> str:
    accounts = [f"#{account}" for account in dict.fromkeys(row.account for row in rows)]
    more = len(accounts) - NAMES_MAX
    return " ".join(accounts[:NAMES_MAX]) + (f" +{more}" if more > 0 else "")
