"""The cases that are explored wholly, and who acts in them."""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from functions.produce import produce
from shared.authority import actor
from shared.errors import LimitExceeded
from shared.models import Continuation
from shared.pacing import Pacing
from shared.producer import DEADLINE_MARGIN_S
from shared.starting import Start, Started
from shared.steering import cancel, pause, resume
from tests.simulation.setting import MAIN, OTHER, TENANT
from tests.simulation.stepped import AHEAD_S, SmallWorld
from tests.simulation.world import PROMPT

Actor = Callable[[SmallWorld], None]


def _produces(world: SmallWorld) -> None:
    """The first producer, where the stream was begun."""
    process = world.processes[0]
    process.run(world._produce(process, world.opened, None))


def _hands_over(world: SmallWorld) -> None:
    """A producer whose invocation is about to end."""
    process, now = world.processes[0], asyncio.get_running_loop().time()
    process.run(world._produce(process, world.opened, now + DEADLINE_MARGIN_S))


def _succeeds(world: SmallWorld) -> None:
    """Another producer, that goes on whether the first is dead or not."""
    process = world.begin("successor")

    async def succeed() -> None:
        key = world.opened.key
        records = await process.log.all_records(key)
        if not (records[-1].closes or records[-1].parked):
            epoch, by = records[-1].epoch + 1, process.log.new_writer()
            producer = await process.services.producer(
                key, records, epoch=epoch, by=by, deadline=None
            )
            await producer.run(records)

    process.run(succeed())


def _cancels(world: SmallWorld) -> None:
    process = world.begin("canceller")

    async def ask() -> None:
        await cancel(process.lifecycle, world.opened.key, await process.caller(OTHER))

    process.run(ask())


def _pauses(world: SmallWorld) -> None:
    process = world.begin("pauser")

    async def ask() -> None:
        await pause(process.lifecycle, world.opened.key, await process.caller(OTHER))

    process.run(ask())


def _resumes(world: SmallWorld) -> None:
    process = world.begin("resumer")

    async def ask() -> None:
        await resume(process.takeovers, world.opened.key, await process.caller(OTHER))

    process.run(ask())


def _sweeps(world: SmallWorld) -> None:
    """Takes the stream over as soon as nobody has just written to it by its own clock."""
    process = world.begin("sweeper", ahead_s=AHEAD_S)

    async def tend() -> None:
        await process.takeovers.tend(world.opened.key, 60)

    process.run(tend())


def _launches(world: SmallWorld) -> None:
    """A launch of a stream that waits for its producer."""
    process = world.begin("launched")
    process.run(produce(process.services, world.opened.key))


def _erases(world: SmallWorld) -> None:
    process = world.begin("eraser")
    world.erases = True

    async def erase() -> None:
        erasures = process.services.erasures
        who = actor(await process.caller(OTHER))
        job = await erasures.begin(TENANT, who, stream=world.opened.key.stream)
        async for _ in erasures.run(job):
            pass

    process.run(erase())


def _starts(world: SmallWorld, once: str | None = None) -> None:
    """A request with an Idempotency-Key, whose answer is produced where it was made."""
    process = world.begin("starter")

    async def start() -> None:
        asked = Start("script/small", PROMPT, pacing=Pacing((0, 0), 0))
        with suppress(LimitExceeded):
            started = await world._ask(process, MAIN, asked, 1, once or process.name)
            if isinstance(started, Started):
                await world._produce(process, started, None)

    process.run(start())


def _starts_once(world: SmallWorld) -> None:
    """The same request each time."""
    _starts(world, "once")


@dataclass(frozen=True, slots=True)
class Case:
    """Who acts, and what may happen to them.

    In the tests so many `faults` happen at most, of these `kinds`, and so many `switches`.
    """

    name: str
    actors: tuple[Actor, ...]
    kinds: tuple[str, ...] = ("die", "die after", "lose")
    faults: int = 1
    switches: float = math.inf
    epoch: int = 1
    opened: bool = True
    tokens: int = 1
    continuation: Continuation = Continuation.PROMPT
    policy: dict[str, Any] = field(default_factory=lambda: {"pause_s": 60})

    @property
    def bounds(self) -> str:
        switches = "any" if self.switches == math.inf else f"at most {self.switches}"
        return f"at most {self.faults} of {'/'.join(self.kinds)} and {switches} switches"


#: What is open already takes one.
ONE_MORE = {"pause_s": 60, "limits": {"streams_at_once": 2}}
REPLAY = Continuation.REPLAY
CASES = (
    Case("two producers", (_produces, _succeeds), tokens=2),
    Case("two producers that replay", (_produces, _succeeds), tokens=2, continuation=REPLAY),
    Case("two producers, a canceller", (_produces, _succeeds, _cancels), switches=1),
    Case(
        "two producers, a canceller, a sweeper",
        (_produces, _succeeds, _cancels, _sweeps),
        switches=0,
    ),
    Case("a producer, a canceller, a sweeper", (_produces, _cancels, _sweeps), switches=0),
    Case("a producer that is stopped, a canceller", (_produces, _cancels), kinds=("stop",)),
    Case("a handover, a canceller, a sweeper", (_hands_over, _cancels, _sweeps), switches=0),
    Case(
        "a handover that is stopped, a sweeper", (_hands_over, _sweeps), ("stop", "die"), switches=0
    ),
    Case(
        "a launch that comes twice, a sweeper", (_launches, _launches, _sweeps), switches=0, epoch=0
    ),
    Case("a producer, a pause, a resume", (_produces, _pauses, _resumes), switches=1),
    Case("a producer, an erasure", (_produces, _erases), switches=1),
    Case("one start, asked twice", (_starts_once, _starts_once), switches=1, opened=False),
    Case("two starts, room for one", (_starts, _starts), switches=1, policy=ONE_MORE),
)
