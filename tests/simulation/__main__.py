"""Look for a seed whose run breaks a promise; see the package."""

import argparse
import logging
import os
import secrets
import sys
import time
from dataclasses import replace

from tests.simulation.cases import CASES
from tests.simulation.checks import complaints
from tests.simulation.exhaustive import explore
from tests.simulation.run import simulate
from tests.simulation.search import search


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, metavar="N", help="how many runs; else until Ctrl-C")
    parser.add_argument("--first", type=int, metavar="SEED", help="count on from here; else fresh")
    parser.add_argument("--seed", type=int, help="tell everything that happens in this one run")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="else one a core")
    parser.add_argument("--exhaustive", action="store_true", help="every way through small cases")
    parser.add_argument(
        "--bound",
        type=int,
        default=0,
        metavar="N",
        help="with so many switches more than the tests",
    )
    arguments = parser.parse_args()
    logging.disable()  # the histories tell it all
    if arguments.exhaustive:
        return _exhaust(arguments.bound)
    if arguments.seed is not None:
        return _tell(arguments.seed)
    first = secrets.randbelow(2**48) if arguments.first is None else arguments.first
    return search(first, arguments.seeds, arguments.processes)


def _tell(seed: int) -> int:
    run = simulate(seed)
    wrong = complaints(run)
    print(run.history, *wrong, sep="\n")
    return bool(wrong)


def _exhaust(more: int) -> int:
    """Whether any way through any case was found wrong."""
    wrong = False
    for case in CASES:
        case = replace(case, switches=case.switches + more)  # noqa: PLW2901
        began = time.monotonic()
        found = explore(case)
        took_s = time.monotonic() - began
        print(f"{case.name}: {found} with {case.bounds}, {took_s:.1f} s", flush=True)
        wrong = wrong or bool(found.wrong)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
