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
import math
import random
import secrets
import string
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest.mock import patch

from functions.produce import produce
from functions.sweep import sweep
from shared.authority import actor
from shared.errors import LimitExceeded, Unavailable
from shared.models import Ask, Continuation, Finish
from shared.pacing import Pacing
from shared.producer import DEADLINE_MARGIN_S
from shared.records import Item, StreamKey
from shared.schema import TENANTS, Table
from shared.starting import Start, Started
from shared.steering import cancel, pause, resume
from shared.tenants import Policy
from tests.model_store import Key
from tests.simulation.checks import complaints
from tests.simulation.clock import VirtualLoop
from tests.simulation.process import Process
from tests.simulation.provider import Script, ScriptedProvider
from tests.simulation.run import Run, tell
from tests.simulation.setting import MAIN, MORNING_S, OTHER, TENANT, Setting
from tests.simulation.store import Database, Faults, FaultyStore
from tests.simulation.world import PROMPT, World

T = TypeVar("T")
Choice = tuple[str, int]

#: How far ahead the clock of those is who take whoever is silent for dead.
AHEAD_S = 100.0
#: How long a producer may take from a delta of its model to its write, in turns of the loop.
TURNS = 12
ROUNDS_MAX = 12


class Killed(BaseException):
    """The process is no more."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a process that waits for its turn. `do` does it, and tells of it or not."""

    who: str
    store: "SteppedStore"
    writes: bool
    do: Callable[[bool], None]


class SteppedStore(FaultyStore):
    """A process's way to the database, on which each call waits for its turn."""

    def __init__(self, world: "SmallWorld", who: str, dice: random.Random) -> None:
        super().__init__(who, world.database, world.history, dice, Faults())
        #: All that its process was told, in short.
        self.told = hash(who)
        self._world = world

    async def get(self, table: Table, key: Item) -> Item | None:
        if table is TENANTS and _stands_still(key):
            return self._database.get_now(table, key)
        return await super().get(table, key)

    async def _call(
        self,
        what: str,
        effect: Callable[[], T],
        tables: Sequence[Table],
        *,
        writes: bool = False,
    ) -> T:
        if self.dead:
            raise Killed
        if not self._world.steps:
            return effect()
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def do(tells: bool) -> None:
            result = effect()
            self._history.add(self._who, what, "" if tells else "lost")
            self.told = hash((self.told, what, repr(result) if tells else "lost"))
            if reply.done():
                return  # its task was told to stop
            if tells:
                reply.set_result(result)
            else:
                reply.set_exception(Unavailable("The reply was lost."))

        self._world.calls.append(Call(self._who, self, writes, do))
        return await reply


def _stands_still(key: Item) -> bool:
    """Whether no actor of any case writes what a key names."""
    what = str(key["what"])
    return what == "settings" or what.startswith("key") or str(key["pk"]).startswith("breaker#")


class DigestedDatabase(Database):
    """A database that tells in short what it holds."""

    digest = 0

    def _set(self, key: Key, item: Item | None) -> None:
        self.digest ^= _digest(key, self.items.get(key)) ^ _digest(key, item)
        super()._set(key, item)


def _digest(key: Key, item: Item | None) -> int:
    return hash((key, frozenset(item.items()))) if item else 0


class SmallProvider(ScriptedProvider):
    """A model that says a few tokens, one chunk each."""

    tokens = 2

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        script = self._script(ask)
        for delta in script.deltas:
            yield delta
            for _ in range(TURNS):
                await asyncio.sleep(0)
        script.told = True
        yield script.finish

    def goes_on_by(self, how: Continuation) -> None:
        self._continuation = how

    def _write_script(self, ask: Ask) -> Script:
        script = Script(
            string.ascii_letters[len(self.scripts)], self.tokens, 0.0, 99, 0.0, False, {}
        )
        self.scripts.append(script)
        return script


class SmallWorld(World):
    """One stream, and the actors of a case. While it `steps` their calls wait to be chosen."""

    def __init__(self, case: "Case", path: "Path") -> None:
        setting = Setting(
            MORNING_S, Policy.from_document(case.policy), user=None, address=None, valid_until=None
        )
        super().__init__(0, setting)
        self.provider = SmallProvider(self.history, self.rng)
        self.provider.goes_on_by(case.continuation)
        self.provider.tokens = case.tokens
        self.database = DigestedDatabase(self.history, remembers_tokens=False)
        self.steps = False
        self.calls: list[Call] = []
        self._case = case
        self._path = path

    async def run(self) -> None:
        self.setting.install(self.database)
        self.processes.append(Process(self, "first", faults=Faults()))
        first = self.processes[0]
        if self._case.opened:
            start = Start("script/small", PROMPT, pacing=Pacing((0, 0), 0))
            started = await self._ask(first, MAIN, start, self._case.epoch, "key")
            assert isinstance(started, Started)
            self.key = started.key
            self._opened.set()
            self.opened = started
        self.steps = True
        for begin in self._case.actors:
            begin(self)
        await self._all_done()
        self.steps = False
        self.calls.clear()  # of those whose task was told to stop
        if not self._path.seen_before:
            await self._recover()

    async def _all_done(self) -> None:
        while tasks := [t for process in self.processes for t in process.tasks if not t.done()]:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _recover(self) -> None:
        """What a sweep makes of what is left, and what the last reader sees."""
        process = self.begin("recovery")
        for _ in range(ROUNDS_MAX):
            if not self._goes_on():
                break
            await asyncio.sleep(AHEAD_S)
            deadline = asyncio.get_running_loop().time() + 60
            await self.survive(_quietly(sweep(process.services, deadline=deadline)))
            await self._all_done()
        await self.survive(self._drain())

    def begin(self, name: str, *, ahead_s: float = 0.0) -> Process:
        """Another process."""
        process = Process(self, f"{name} {len(self.processes)}", faults=Faults(), skew_s=ahead_s)
        self.processes.append(process)
        return process

    def way(self, who: str, dice: random.Random, faults: Faults) -> FaultyStore:
        return SteppedStore(self, who, dice)

    async def launch(self, key: StreamKey) -> None:
        self.launches[key] += 1
        process = self.begin("launched")
        process.run(produce(process.services, key))

    # What is explored

    def turn(self) -> bool:
        """Let one of the calls that wait be done. Whether there was one."""
        self.calls = [call for call in self.calls if not call.store.dead]
        if not self.calls:
            return False
        choice = self._path.choose(self)
        if choice is None:
            self.steps = False
            for process in self.processes:
                process.kill()
            return True
        what, number = choice
        call = self.calls.pop(number)
        if what in ("call", "lose", "die after"):
            call.do(what != "lose")
        if what in ("die", "die after"):
            call.store.kill()
        if what == "stop":
            self.calls.append(call)
            call.store.interrupt()
        if what != "call":
            self.history.add("explorer", what, call.who)
        return True

    def choices(self, faults: int, last: str | None) -> list[Choice]:
        """What may come next, with so many faults left; from `last` alone where that is given and
        waits.
        """
        numbers = [n for n, call in enumerate(self.calls) if call.who == last]
        numbers = numbers or list(range(len(self.calls)))
        found: list[Choice] = [("call", number) for number in numbers]
        for number in numbers:
            kinds = self._case.kinds if faults else ()
            writes = self.calls[number].writes
            found += [(kind, number) for kind in kinds if writes or kind != "lose"]
        return found

    def state(self) -> int:
        """All that what follows depends on, in short."""
        told = [_told(process) for process in self.processes]
        waits = [call.who for call in self.calls]
        now = asyncio.get_running_loop().time()
        assert isinstance(self.database, DigestedDatabase)
        return hash((self.database.digest, str(told), str(waits), len(self.provider.scripts), now))


def _told(process: Process) -> tuple[int, bool]:
    """What a process was told, as long as that matters."""
    store = process.store
    assert isinstance(store, SteppedStore)
    if all(task.done() for task in process.tasks):
        return 0, True
    return store.told, store.dead


async def _quietly(work: Awaitable[object]) -> None:
    await work


class SteppedLoop(VirtualLoop):
    """Where nothing can run one of the calls is done; time goes on where none waits."""

    world: SmallWorld | None = None

    def select(self, timeout: float | None) -> list[Any]:
        if timeout == 0 or (self.world and self.world.turn()):
            return []
        return super().select(timeout)


@dataclass
class Path:
    """One way through a case: first the choices of `prefix`, then the first that there is.

    At most `faults` of them are none of a call to be done; and at most `switches` go from a process
    that could have gone on to another one.
    """

    prefix: tuple[Choice, ...]
    seen: set[int]
    faults: int
    switches: float
    #: Ways that were left open.
    open: list[tuple[Choice, ...]] = field(default_factory=list)
    taken: list[Choice] = field(default_factory=list)
    #: Whether it came to where another one was.
    seen_before: bool = False
    _last: str | None = None

    def choose(self, world: SmallWorld) -> Choice | None:
        """What comes next; None where what follows is known."""
        if len(self.taken) < len(self.prefix):
            choice = self.prefix[len(self.taken)]
        else:
            waits = self._last if self.switches < math.inf else None
            state = hash((world.state(), self.faults, self.switches, waits))
            if state in self.seen:
                self.seen_before = True
                return None
            self.seen.add(state)
            only = None if self.switches else self._last
            choice, *others = world.choices(self.faults, only)
            self.open += [(*self.taken, other) for other in others]
        self._count(world, choice)
        self.taken.append(choice)
        return choice

    def _count(self, world: SmallWorld, choice: Choice) -> None:
        what, number = choice
        who = world.calls[number].who
        self.faults -= what != "call"
        self.switches -= who != self._last and any(c.who == self._last for c in world.calls)
        self._last = who


# The actors


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
