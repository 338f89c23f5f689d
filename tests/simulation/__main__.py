"""Look for a seed whose run breaks a promise; see the package."""

import argparse
import logging
import os
import secrets
import sys

from tests.simulation.checks import complaints
from tests.simulation.run import simulate
from tests.simulation.search import search


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, metavar="N", help="how many runs; else until Ctrl-C")
    parser.add_argument("--first", type=int, metavar="SEED", help="count on from here; else fresh")
    parser.add_argument("--seed", type=int, help="tell everything that happens in this one run")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="else one a core")
    arguments = parser.parse_args()
    logging.disable()  # the histories tell it all
    if arguments.seed is not None:
        return _tell(arguments.seed)
    first = secrets.randbelow(2**48) if arguments.first is None else arguments.first
    return search(first, arguments.seeds, arguments.processes)


def _tell(seed: int) -> int:
    run = simulate(seed)
    wrong = complaints(run)
    print(run.history, *wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
