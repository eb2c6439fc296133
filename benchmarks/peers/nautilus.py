"""Time nautilus_trader's own margin of one position: a number of calls a line in, ns a call out.

Runs in the virtual environment that install() makes below build/peers/, with the pinned release:
`python benchmarks/peers/nautilus.py`. The first line out is the margin.
"""

import subprocess
import sys
import venv
from importlib import import_module
from pathlib import Path
from time import perf_counter_ns

RELEASE = "nautilus_trader==1.221.0"
HOME = Path(__file__).resolve().parents[2] / "build" / "peers" / RELEASE.replace("==", "-")
PYTHON = HOME / "bin" / "python"


class Peer:
    """A process of the peer's environment. Raises OSError if the environment is not there."""

    def __init__(self) -> None:
        if not PYTHON.exists():
            raise FileNotFoundError(f"{RELEASE} is not installed: benchmarks/margin.py does it")
        self._process = subprocess.Popen(
            [PYTHON, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.margin = self._read()

    def time(self, calls: int) -> float:
        """Return nanoseconds a call."""
        assert self._process.stdin is not None
        print(calls, file=self._process.stdin, flush=True)
        return float(self._read())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError(f"{RELEASE} ended with status {self._process.wait()}")
        return line.strip()


def install() -> None:
    """Install the release, about 700 MB, if it is not there.

    Raises subprocess.CalledProcessError if the package registry cannot be asked.
    """
    if PYTHON.exists():
        return
    print(f"installing {RELEASE} in {HOME}", file=sys.stderr)
    partial = HOME.with_suffix(".partial")
    venv.create(partial, with_pip=True, clear=True)
    pip = [str(partial / "bin" / "python"), "-m", "pip", "install", "-q", RELEASE]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    partial.rename(HOME)


def main() -> None:
    accounts = import_module("nautilus_trader.accounting.accounts.margin")
    providers = import_module("nautilus_trader.test_kit.providers")
    events = import_module("nautilus_trader.test_kit.stubs.events")
    instrument = providers.TestInstrumentProvider.btcusdt_perp_binance()
    state = events.TestEventStubs.margin_account_state()
    account = accounts.MarginAccount(state, calculate_account_state=False)
    quantity, price = instrument.make_qty(1.5), instrument.make_price(60_000)
    print(account.calculate_margin_init(instrument, quantity, price), flush=True)
    for line in sys.stdin:
        calls = int(line)
        start = perf_counter_ns()
        for _ in range(calls):
            account.calculate_margin_init(instrument, quantity, price)
        print((perf_counter_ns() - start) / calls, flush=True)


if __name__ == "__main__":
    main()
