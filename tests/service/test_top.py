"""`riskd top` shows the endpoint's figures, on a screen, in a pipe and as JSON."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import pytest

from riskd.cli import main
from riskd.commands.top import lines_of
from riskd.metrics.reading import figures_of, read
from riskd.native import NativeDoor
from riskd.settings import Settings
from tests.processes import RISKD, environment
from tests.service.conftest import TIMEOUT_S, Rig, new_order
from tests.service.test_metrics import endpoint


def busy(market: Rig) -> None:
    for number in range(1, 30):
        market.orders.CheckOrder(new_order(number))
    market.orders.CheckOrder(new_order(99, account_id=99))


def test_once_shows_what_happened_since_the_start(
    market: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    busy(market)
    with endpoint(market) as address:
        assert main(["top", "--once", "--metrics-address", address]) == 0
        shown = capsys.readouterr().out
        assert main(["top", "--once", "--json", "--metrics-address", address]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["durations"]["control CheckOrder"]["count"] == 30
    assert set(figures["answers"]) == {"order ACCEPTED NONE", "order REJECTED ACCOUNT_UNKNOWN"}
    assert figures["is_since_start"]
    for text in ("since the start", "control CheckOrder", "order REJECTED ACCOUNT_UNKNOWN"):
        assert text in shown
    assert "\x1b" not in shown


def test_a_screen_of_80_by_24_has_something_of_everything(market: Rig) -> None:
    settings = Settings(listener_addresses=("127.0.0.1:0",), listener_calls_per_timed=1)
    native = NativeDoor(settings, market.engine)
    native.start()
    busy(market)
    try:
        with endpoint(market, native) as address:
            figures = figures_of(read(address, TIMEOUT_S), None)
    finally:
        native.stop()
    lines = list(lines_of(figures, 23))
    assert len(lines) == 23
    assert max(map(len, lines)) <= 80
    for start in ("calls/s", "connected", "journal", "marks", "stage", "answers/s", "mark age"):
        assert any(line.startswith(start) for line in lines), start
    assert list(lines_of(figures, 3)) == lines[:3]


def test_no_service_is_1_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--metrics-address", "127.0.0.1:1"]) == 1
    assert "riskd top: 127.0.0.1:1: " in capsys.readouterr().err
    assert main(["top", "--interval", "0.1"]) == 1
    assert "--interval is 0.1: must be 0.5 to 3600 s" in capsys.readouterr().err
    assert main(["top", "--metrics-address", "x"]) == 1
    assert "--metrics-address is 'x'" in capsys.readouterr().err


@contextmanager
def watching(address: str, *words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*RISKD, "top", "--metrics-address", address, *words],
        text=True,
        env=environment(),
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_with(stream: IO[str], text: str) -> str:
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"no line with {text!r}")


def test_it_goes_on_when_the_service_is_started_again(market: Rig) -> None:
    options = ("--interval", "0.5", "--json")
    with ExitStack() as stack:
        with endpoint(market) as address:
            process = stack.enter_context(watching(address, *options, stdout=subprocess.PIPE))
            assert process.stdout is not None
            line_with(process.stdout, '"version"')
            market.orders.CheckOrder(new_order(1))
            figures = json.loads(line_with(process.stdout, '"order ACCEPTED NONE"'))
            assert not figures["is_since_start"]
        assert address in json.loads(line_with(process.stdout, '"error"'))["error"]
        with endpoint(market, at=address):
            line_with(process.stdout, '"version"')
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0


def test_a_terminal_is_left_as_it_was(market: Rig) -> None:
    parent, child = pty.openpty()
    with endpoint(market) as address, watching(address, stdout=child) as process:
        os.close(child)
        shown = b""
        while b"marks" not in shown:
            shown += os.read(parent, 65536)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
        shown += os.read(parent, 65536)
    os.close(parent)
    assert shown.startswith(b"\x1b[?1049h\x1b[?25l")
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")
