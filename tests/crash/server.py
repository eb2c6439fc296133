"""The service, to be killed: `python -m tests.crash.server DIRECTORY DURABILITY`.

As `riskd serve` runs it, with small segments, so that there are several. Prints its port, and for
each line of standard input its revision and the hash of its state.
"""

import sys

from riskd.settings import Settings
from riskd.wiring import build_engine, build_server


def main(directory: str, durability: str) -> None:
    """Serve until killed, or until standard input ends: no server outlives its test."""
    settings = Settings(
        control_address="127.0.0.1:0",
        durability=durability,
        journal_directory=directory,
        journal_segment_bytes=3 << 15,
        journal_buffer_bytes=1 << 16,
        # The trial starts them, so that it can end them.
        snapshot_every_bytes=0,
        answer_bytes=256 << 20,
    )
    engine = build_engine(settings)
    server = build_server(settings, engine)
    print(server.start(), flush=True)
    for _ in sys.stdin:
        print(engine.revision, engine.state_hash(), flush=True)
    server.stop(0)
    engine.close_journal()


if __name__ == "__main__":
    main(*sys.argv[1:])
