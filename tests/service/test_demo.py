"""The demo, whole: service, client, accounts, recorded prices, orders, screen and page."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from riskd.cli import main
from riskd.demo import cast, market, page, replay, svg, text
from riskd.demo.outcome import Outcome
from riskd.demo.screen import Screen
from riskd.v1 import types_pb2

RECORDED = market.read(market.PACKAGED)
WINDOW = market.choose(RECORDED, 90)


@dataclass(frozen=True)
class Demo:
    """A replay and what a person saw of it."""

    outcome: Outcome
    screen: str
    page: str


def play(*, is_refined: bool = False) -> Demo:
    stream = io.StringIO()
    screen = Screen(stream)
    outcome = replay.run(RECORDED, WINDOW, 1, screen, is_refined=is_refined)
    screen.finish(outcome, Path("demo.html"))
    return Demo(outcome, stream.getvalue(), page.render(outcome))


@pytest.fixture(scope="module")
def demo() -> Demo:
    return play()


@pytest.fixture(scope="module")
def refined() -> Demo:
    return play(is_refined=True)


# --- predictions ----------------------------------------------------------------------------------


def test_every_position_is_liquidatable_at_the_first_mark_beyond_its_prediction(demo: Demo) -> None:
    strays = [row for row in demo.outcome.watched if row.said != row.reached]
    assert not strays
    assert demo.outcome.all_agree


def test_longs_and_shorts_isolated_and_cross_positions_cross_and_others_do_not(demo: Demo) -> None:
    crossed = {(row.mode, text.side(row)) for row in demo.outcome.crossed}
    assert {("isolated", "long"), ("isolated", "short"), ("cross", "long")} <= crossed
    held = {(row.mode, text.side(row)) for row in demo.outcome.watched if row.said is None}
    assert len(held) == 4


def test_leverages_reach_from_2_to_50(demo: Demo) -> None:
    leverages = {row.leverage for row in demo.outcome.watched}
    assert min(leverages) == 2
    assert max(leverages) == 50


def test_predicted_price_itself_is_the_first_liquidatable_mark(refined: Demo) -> None:
    """Where the price passes a prediction, the mark unit before it is reported, too."""
    crossed = [row for row in refined.outcome.crossed if row.symbol == cast.BTC]
    assert len(crossed) == 20
    for row in crossed:
        assert row.said is not None
        assert row.said.mark == row.predicted, row
        assert row.agrees, row


def test_other_legs_of_a_cross_account_follow_within_a_mark_unit(refined: Demo) -> None:
    """Each leg's backing is rounded to a minor unit, against the account."""
    legs = [row for row in refined.outcome.crossed if row.trigger != row.symbol]
    assert len(legs) == 3
    for row in legs:
        assert row.said is not None
        assert row.predicted is not None
        assert abs(row.said.mark - row.predicted) <= Decimal("1e-8"), row


def test_added_margin_moves_the_price_and_saves_the_position(demo: Demo) -> None:
    rows = {row.account: row for row in demo.outcome.watched}
    saved, twin = rows[cast.RESCUED], rows[109]
    assert saved.predictions[0].price == twin.predicted
    assert saved.predictions[0].price is not None
    assert saved.predicted is not None
    assert saved.predicted < saved.predictions[0].price
    assert saved.said is None
    assert twin.said is not None


# --- orders ---------------------------------------------------------------------------------------


def test_counts_add_up(demo: Demo) -> None:
    outcome = demo.outcome
    assert outcome.accepted_count + outcome.rejected.total() == len(outcome.sent)
    assert outcome.accepted_count > 0
    assert re.search(rf"^sent +{len(outcome.sent)}\b", demo.screen, re.MULTILINE)
    assert re.search(rf"^rejected +{outcome.rejected.total()}\b", demo.screen, re.MULTILINE)


def test_every_reason_is_a_known_reason_code_and_explained(demo: Demo) -> None:
    names = {name.removeprefix("REASON_CODE_") for name, _ in types_pb2.ReasonCode.items()}
    assert set(text.REASONS) <= names
    assert set(demo.outcome.rejected) <= set(text.REASONS)
    assert len(demo.outcome.rejected) >= 12


def test_same_seed_gives_the_same_decisions(demo: Demo, refined: Demo) -> None:
    # Marks between the recorded ones change neither the orders nor the state that they meet, but
    # for the revision and what counts from it.
    def decisions(outcome: Outcome) -> list[tuple[object, ...]]:
        return [
            (order.account, order.symbol, order.side, order.price, order.decision.reason)
            for order in outcome.sent
        ]

    assert decisions(demo.outcome) == decisions(refined.outcome)


def test_stories_are_all_told(demo: Demo) -> None:
    titles = " ".join(story.title for story in demo.outcome.stories)
    for words in ("in full", "Too large", "Over its limits", "put", "adds margin", "risk officer"):
        assert words in titles
    told = "\n".join(line for story in demo.outcome.stories for line in story.lines)
    assert "it strictly reduces" in told
    assert "Greeks of 1 BTC" in told


# --- screen and page ------------------------------------------------------------------------------


def test_screen_without_a_terminal_is_plain_text_of_100_columns(demo: Demo) -> None:
    assert "\x1b" not in demo.screen
    assert "\r" not in demo.screen
    assert max(len(line) for line in demo.screen.splitlines()) <= 100
    assert "of 54 predictions agree" in demo.screen


VOID = {"meta", "link", "br", "img"}


class Reader(HTMLParser):
    """Checks that elements close in order, and collects attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.handle_attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handle_attributes(attrs)

    def handle_attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()


def test_page_is_whole_and_needs_no_network(demo: Demo) -> None:
    reader = Reader()
    reader.feed(demo.page)
    reader.close()
    assert reader.open == []
    assert reader.links == []
    assert "script" not in reader.tags
    assert "link" not in reader.tags
    assert reader.tags.count("svg") == 6
    assert len(reader.ids) == len(set(reader.ids))
    for forbidden in ("http://", "https://", "url(", "@import", '"nan', ",nan", '"inf', ",inf"):
        assert forbidden not in demo.page.lower(), forbidden


def test_page_has_a_row_for_every_position(demo: Demo) -> None:
    assert demo.page.count("<tr>") == 1 + len(demo.outcome.watched)
    assert ">NO<" not in demo.page


def test_labels_are_spread_apart_and_stay_inside() -> None:
    placed = svg.spread([50, 50, 10, 99], 10, 0, 100)
    ordered = sorted(placed)
    assert all(later - earlier >= 10 for earlier, later in pairwise(ordered))
    assert ordered[0] >= 0
    assert ordered[-1] <= 100
    assert placed[2] == 10


# --- the command ----------------------------------------------------------------------------------


def write_market(path: Path, prices: Callable[[int], float], count: int = 40) -> Path:
    lines = [f"{1_600_000_000 + 60 * index},{prices(index):.2f}" for index in range(count)]
    path.write_text("\n".join(["time,price", *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    "prices",
    [
        pytest.param(lambda index: 30_000.0 + 100 * index, id="rising"),
        pytest.param(lambda index: 30_000.0, id="still"),
        pytest.param(lambda index: 30_000.0 * 0.9**index, id="falling without an end"),
        pytest.param(lambda index: 900_000.0 - 5_000 * index, id="large"),
    ],
)
def test_any_market_runs_and_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prices: Callable[[int], float]
) -> None:
    recorded = write_market(tmp_path / "m.csv", lambda index: max(10_001.0, prices(index)))
    output = tmp_path / "page.html"
    arguments = ["demo", "--market", str(recorded), "--minutes", "30", "--output", str(output)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "predictions agree with the replay" in shown
    assert output.as_uri() in shown
    assert output.read_text(encoding="utf-8").endswith("</html>\n")


GOOD = "".join(f"2022-01-21T10:{index:02}:00Z,38000\n" for index in range(40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no header line"),
        ("time,volume\n1,2\n", "line 1: no price column (close or price or"),
        ("# a comment\nwhen,close\n1,2\n", "line 2: no time column (time or timestamp or"),
        (f"time,close\n{GOOD}2022-01-21T11:00:00Z,NaN\n", "line 42, column close: 'NaN' is not a"),
        (f"time,close\n{GOOD}2022-01-21T11:00:00Z,\n", "line 42, column close: '' is not a number"),
        (
            f"time,close\n{GOOD}2022-01-21T11:00:00Z,-5\n",
            "line 42, column close: -5 is not a price",
        ),
        (f"time,close\n{GOOD}soon,38000\n", "line 42, column time: 'soon' is not an ISO 8601 time"),
        (f"time,close\n{GOOD}2022-01-21T11:00:00Z\n", "line 42: has 1 fields, the header has 2"),
        (f"time,close\n{GOOD}2022-01-21T10:00:00Z,38000\n", "line 42, column time: 2022-01-21T10"),
        ("time,close\n2022-01-21T11:00:00Z,38000\n", "has 1 minutes of prices, needs 30"),
        (
            "time,open,high,low,close\n2022-01-21T11:00:00Z,38000,38001,37000,38002\n",
            "line 2: high 38001.00000000 and low",
        ),
    ],
)
def test_bad_market_file_is_refused_by_file_line_and_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    output = tmp_path / "page.html"
    assert main(["demo", "--market", str(path), "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"riskd demo: {path}")
    assert message in error
    assert not output.exists()


def test_missing_market_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.csv"
    assert main(["demo", "--market", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"riskd demo: {path}: cannot be read: No such file or directory\n"
    )


@pytest.mark.parametrize(
    "time",
    [
        "1642759200",
        "1642759200000",
        "1642759200000000",
        "1642759200000000000",
        "2022-01-21 10:00:00.000000",
        "2022-01-21T11:00:00+01:00",
    ],
)
def test_time_is_read_in_any_unit(tmp_path: Path, time: str) -> None:
    path = tmp_path / "m.csv"
    later = [f"2022-01-21T10:{index:02}:00Z,38000" for index in range(1, 40)]
    path.write_text("\n".join(["timestamp,price", f"{time},38000", *later]))
    assert market.read(path).bars[0].time == datetime(2022, 1, 21, 10, tzinfo=UTC)


def test_rows_of_one_minute_become_one_bar(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        "time,price\n2022-01-21T10:00:00Z,38000\n2022-01-21T10:00:20Z,38500\n"
        "2022-01-21T10:00:40Z,37500\n2022-01-21T10:00:59Z,38100\n" + GOOD.replace("T10:", "T11:")
    )
    bar = market.read(path).bars[0]
    prices = [bar.open, bar.high, bar.low, bar.close]
    assert prices == [Decimal(price) for price in (38_000, 38_500, 37_500, 38_100)]
    # It closes higher, so it went down first.
    assert list(bar.marks()) == [Decimal(price) for price in (38_000, 37_500, 38_500, 38_100)]


def test_packaged_series_names_its_origin_and_falls() -> None:
    assert "Binance public data" in RECORDED.origin
    assert len(RECORDED.bars) == 90
    assert WINDOW.bars == RECORDED.bars
    fall = min(bar.low for bar in RECORDED.bars) / max(bar.high for bar in RECORDED.bars)
    assert fall < Decimal("0.88")
