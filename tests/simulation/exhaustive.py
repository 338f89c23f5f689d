"""Small cases, wholly: every order in which a few actors' calls can come to the store.

The actors run the real code. Each of their calls waits until all that can run has run; then one of
those that wait is chosen and done. Which one, is what is explored: by doing the case again from its
start, once for each choice that was left open. Beside that a process may die before a call or after
it, be told to stop, or lose the reply of a write, at any of them and so often as the bound says.

What an actor does depends on nothing but what it was told. So where the store holds the same and
each actor was told the same, all that can follow was seen before, and is not done again. A call
that reads what no actor of any case writes is done at once: it would be the same at any time.

Time stands still meanwhile. Who is to take a producer for dead has a clock that is far ahead.
"""

import asyncio
import random
import secrets
from dataclasses import dataclass, field
from unittest.mock import patch

from tests.simulation.cases import Case
from tests.simulation.checks import complaints
from tests.simulation.run import Run, tell
from tests.simulation.stepped import Choice, Path, SmallWorld, SteppedLoop


@dataclass
class Explored:
    """What came of a case: how many states it has, how often it was begun, how many ends it has."""

    states: int = 0
    runs: int = 0
    ends: int = 0
    #: What is wrong, and the way to it.
    wrong: list[tuple[tuple[Choice, ...], list[str]]] = field(default_factory=list)

    def __str__(self) -> str:
        told = f"{self.states} states, {self.runs} runs, {self.ends} ends"
        return "\n".join([told, *(f"{way}: {what}" for way, what in self.wrong)])


def explore(case: Case, *, wrong_max: int = 1) -> Explored:
    """Every way through a case within its bounds, until so many of them were found wrong."""
    seen: set[int] = set()
    found = Explored()
    left: list[tuple[Choice, ...]] = [()]
    while left and len(found.wrong) < wrong_max:
        path = Path(left.pop(), seen, case.faults, case.switches)
        run = go(case, path)
        left += path.open
        found.runs += 1
        found.states = len(seen)
        if run:
            found.ends += 1
            if wrong := complaints(run):
                found.wrong.append((tuple(path.taken), wrong))
    return found


def go(case: Case, path: Path) -> Run | None:
    """Go one way through a case; None where it leads to what was seen before."""
    dice = random.Random(0)
    with (
        # Whoever would wait a little asks again at once, so that others may be faster or not.
        patch.object(random, "uniform", lambda low, high: 0.0),
        patch.object(secrets, "token_hex", lambda count: dice.randbytes(count).hex()),
        asyncio.Runner(loop_factory=SteppedLoop) as runner,
    ):
        return runner.run(_go(case, path))


async def _go(case: Case, path: Path) -> Run | None:
    loop, world = asyncio.get_running_loop(), SmallWorld(case, path)
    assert isinstance(loop, SteppedLoop)
    loop.world = world
    await world.run()
    loop.world = None
    return None if path.seen_before else tell(world)
