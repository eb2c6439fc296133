"""`python -m tests.crash`: kill a service under load with SIGKILL and look for what is lost."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.clients import FindingError
from tests.crash.trial import Durability, Trial


def main() -> int:
    """Return 1 if anything acknowledged was missing, doubled or changed."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--crashes", type=int, default=200, help="of each durability")
    parser.add_argument("--durability", choices=("process", "machine"), help="default: both")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**9)))
    arguments = parser.parse_args()
    both: tuple[Durability, ...] = ("process", "machine")
    for durability in both if arguments.durability is None else (arguments.durability,):
        print(f"durability {durability}, seed {arguments.seed}", flush=True)
        start = time.monotonic()
        base = Path(tempfile.mkdtemp(prefix="riskd-crash-"))
        trial = Trial(arguments.seed, durability, base)
        try:
            trial.run(arguments.crashes)
        except BaseException as error:
            print(f"after {trial.tally}: {error}\nthe journal is kept in {base}")
            if isinstance(error, FindingError):
                return 1
            raise
        shutil.rmtree(base)
        print(f"{trial.tally}: nothing lost, nothing doubled ({time.monotonic() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
