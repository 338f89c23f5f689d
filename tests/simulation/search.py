"""Runs one seed after the other, in several processes."""

import itertools
import logging
import signal
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from multiprocessing import get_context

from tests.simulation.checks import complaints
from tests.simulation.run import simulate

#: How many seeds all processes are given at once, and how many each.
SEEDS_AT_ONCE = 4000
CHUNK = 10
TELL_EVERY_S = 2.0


def search(first: int, seeds: int | None, processes: int) -> int:
    """Whether any of the runs was found wrong. Ctrl-C ends it with what was found until then."""
    began = shown = time.monotonic()
    count = found = 0
    wanted = itertools.count(first) if seeds is None else range(first, first + seeds)
    try:
        with closing(_complaints(wanted, processes)) as told:
            for count, (seed, wrong) in enumerate(told, 1):
                for complaint in wrong:
                    print(f"seed {seed}: {complaint}", flush=True)
                found += bool(wrong)
                if time.monotonic() - shown > TELL_EVERY_S:
                    shown = time.monotonic()
                    print(_progress(first, count, seeds, found, shown - began), flush=True)
    except KeyboardInterrupt:
        print("stopped")
    print(_progress(first, count, seeds, found, time.monotonic() - began))
    return bool(found)


def _progress(first: int, count: int, seeds: int | None, found: int, took_s: float) -> str:
    rate = count / took_s if took_s else 0.0
    told = f"{count} seeds from {first} on, {rate:.0f} a second, {found} found"
    if seeds is None or not count or count == seeds:
        return told
    return f"{told}, {(seeds - count) / rate / 60:.1f} min left"


def _complaints(
    seeds: Iterable[int], processes: int
) -> Generator[tuple[int, list[str]], None, None]:
    """What is wrong with the run of each seed, in their order."""
    if processes == 1:
        yield from map(_found, seeds)
        return
    seeds = iter(seeds)
    with get_context("spawn").Pool(processes, _begin) as pool:
        # A pool takes in at once whatever it is given, and seeds may have no end.
        while several := list(itertools.islice(seeds, SEEDS_AT_ONCE)):
            yield from pool.imap(_found, several, chunksize=CHUNK)


def _begin() -> None:
    """In each process: Ctrl-C is for the one that has started them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable()


def _found(seed: int) -> tuple[int, list[str]]:
    return seed, complaints(simulate(seed))
