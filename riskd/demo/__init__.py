"""`riskd demo`: a real service, sample accounts and orders, and recorded prices of a real crash."""

import argparse
import contextlib
import errno
import importlib.util
import sys
from pathlib import Path

DESCRIPTION = """Run the service with sample data and show what it decides.

Starts the service on loopback with the rules of Binance USD-M, opens a few dozen accounts through
the Python client, replays recorded BTC minutes through a crash, and streams orders. It ends in a
table and in one HTML page. Nothing leaves this machine."""

EPILOG = """examples:
  riskd demo
  riskd demo --output crash.html
  riskd demo --market btc-1m.csv.gz --minutes 120
  riskd demo --seed 7 | less

A market file is CSV, plain or gzip, with a time column (time, timestamp, open_time, ...) and a
price column (close, price, ...), and open, high and low if it has them. The sharpest fall in it
is what is replayed."""

MINUTES_MIN = 30
MINUTES_MAX = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument(
        "--market",
        type=Path,
        metavar="FILE",
        help="recorded BTC prices (default: 10 October 2025, which comes with riskd)",
    )
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=90,
        metavar="N",
        help=f"how many minutes to replay, {MINUTES_MIN} to {MINUTES_MAX} (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("riskd-demo.html"),
        metavar="FILE",
        help="where the page goes (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the order stream (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return 0 if every predicted liquidation price held."""
    if importlib.util.find_spec("riskd_client") is None:
        print(
            "riskd demo: needs the Python client; in a checkout of riskd: "
            "pip install ./clients/python",
            file=sys.stderr,
        )
        return 1
    # Imported late: they need the client.
    from riskd.demo import market, page, replay, screen  # noqa: PLC0415

    output: Path = arguments.output
    # Written aside and renamed: a page is whole or not there.
    partial = output.with_name(f"{output.name}.part")
    try:
        recorded = market.read(arguments.market or market.PACKAGED)
        if output.exists() and not output.is_file():
            raise OSError(errno.EINVAL, "is not a file")
        partial.touch()  # a page that cannot be written is told before the replay
        window = market.choose(recorded, arguments.minutes)
        terminal = screen.Screen(sys.stdout)
        outcome = replay.run(recorded, window, arguments.seed, terminal)
        partial.write_text(page.render(outcome), encoding="utf-8")
        partial.replace(output)
    except market.MarketError as error:
        print(f"riskd demo: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"riskd demo: cannot write {output}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    terminal.finish(outcome, output)
    return 0 if outcome.all_agree else 1


def _minutes(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not MINUTES_MIN <= number <= MINUTES_MAX:
        raise argparse.ArgumentTypeError(f"{number} is not {MINUTES_MIN} to {MINUTES_MAX}")
    return number
