"""`python -m tests.simulation`: run seeds, or one of them again."""

import argparse
import os
import sys
import tempfile
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.simulation.world import COMMANDS, DifferenceError, World


def run_seed(seed: int, commands: int) -> tuple[int, str | None, dict[str, int]]:
    """Return the seed, what differs (None if nothing), and how often what happened."""
    # In memory where there is such a directory: what a disk does is drawn from the seed.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="riskd-simulation-", dir=memory) as directory:
        world = World(seed, Path(directory), commands)
        try:
            world.run()
        except DifferenceError as difference:
            return seed, str(difference), world.counts
        except Exception:
            last = "\n  ".join(world.trace)
            return seed, f"{traceback.format_exc()}the last steps:\n  {last}", world.counts
        return seed, None, world.counts


def main() -> int:
    """Return 1 if a seed showed a difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--seeds", type=int, default=100, help="run so many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--commands", type=int, default=COMMANDS, help="of one seed")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    counts: Counter[str] = Counter()
    failed = 0
    with ProcessPoolExecutor(min(len(seeds), os.cpu_count() or 1)) as processes:
        runs = processes.map(run_seed, seeds, [arguments.commands] * len(seeds))
        for done, (seed, difference, seen) in enumerate(runs, 1):
            counts.update(seen)
            if difference is not None:
                failed += 1
                print(f"seed {seed}: {difference}")
                print(
                    f"again: python -m tests.simulation --seed {seed}"
                    f" --commands {arguments.commands}",
                    flush=True,
                )
            if done % 100 == 0:
                print(f"{done} of {len(seeds)} seeds, {failed} failed", flush=True)
    happened = ", ".join(f"{count} {event}" for event, count in sorted(counts.items()))
    print(f"{len(seeds)} seeds, {failed} failed: {happened}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
