"""Look for a seed whose run breaks a promise; see the package."""

import argparse
import itertools
import logging
import secrets
import sys
import time

from tests.simulation.checks import complaints
from tests.simulation.world import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, metavar="N", help="how many runs; else until Ctrl-C")
    parser.add_argument("--first", type=int, metavar="SEED", help="count on from here; else fresh")
    parser.add_argument("--seed", type=int, help="tell everything that happens in this one run")
    arguments = parser.parse_args()
    logging.disable()  # the histories tell it all
    if arguments.seed is not None:
        return _tell(arguments.seed)
    first = secrets.randbelow(2**48) if arguments.first is None else arguments.first
    try:
        return _search(first, arguments.seeds)
    except KeyboardInterrupt:
        return 0


def _tell(seed: int) -> int:
    run = simulate(seed)
    wrong = complaints(run)
    print(run.history, *wrong, sep="\n")
    return bool(wrong)


def _search(first: int, seeds: int | None) -> int:
    began = shown = time.monotonic()
    found = 0
    for count in itertools.count(1) if seeds is None else range(1, seeds + 1):
        seed = first + count - 1
        for complaint in complaints(simulate(seed)):
            found += 1
            print(f"seed {seed}: {complaint}", flush=True)
        now = time.monotonic()
        if now - shown > 2 or count == seeds:
            shown = now
            rate = count / (now - began)
            print(f"{count} seeds from {first} on, {rate:.0f} a second, {found} found", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
