"""`riskd serve`: run the service until SIGTERM or Ctrl-C."""

import argparse
import sys
from pathlib import Path

from riskd import __version__, logs, settings

EPILOG = """examples:
  riskd serve
  riskd serve --rulebooks binance_usdm --control-address 127.0.0.1:0
  riskd serve --config /etc/riskd.toml --log-level debug
  RISKD_WORKER_THREADS=16 riskd serve
  riskd serve --certificate-file server.pem --key-file server.key --client-ca-file clients.pem \\
      --identities-file identities.toml --control-address 0.0.0.0:50051
  riskd serve --show-settings > riskd.toml     a file to start from

Flags stand over the environment, the environment over the file. SIGTERM and Ctrl-C stop the
service once the calls in flight are answered; a second one kills it. SIGHUP reads certificates and
identities again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: one a setting."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--show-settings", action="store_true", help="print the effective settings and exit"
    )
    settings.add_flags(parser)


def _kept(loaded: settings.Settings) -> str:
    """Return where changes are kept and what they survive there."""
    if loaded.durability == "none":
        return "nothing is kept: durability = none"
    survives = "the loss of power" if loaded.durability == "machine" else "the end of the process"
    return f"kept in {Path(loaded.journal_directory).resolve()}: a reply survives {survives}"


def run(arguments: argparse.Namespace) -> int:
    """Serve; return 0 after an orderly stop."""
    try:
        loaded = settings.from_arguments(arguments)
        if arguments.show_settings:
            print("\n".join(loaded.effective_lines()))
            return 0
        # Imported late: --show-settings works where the compiled core does not.
        from riskd import wiring  # noqa: PLC0415

        host, _ = settings.parse_address(loaded.settings.control_address)

        def announce(port: int, native: list[str]) -> None:
            print(f"riskd {__version__}")
            print("\n".join(f"  {line}" for line in loaded.effective_lines()))
            for warning in loaded.warnings:
                print(f"warning: {warning}", file=sys.stderr)
            print(_kept(loaded.settings))
            address = settings.join_address(host, port)
            security = loaded.settings.security_of(address, "1.2 or 1.3")
            print(f"control server: {address}, {security}")
            print("\n".join(native))
            print(f"serving on {address}", flush=True)

        with logs.to_standard_error(loaded.settings.log_level):
            wiring.serve_until_signal(loaded.settings, announce)
    except settings.SettingsError as error:
        print(f"riskd serve: {error}", file=sys.stderr)
        return 1
    return 0
