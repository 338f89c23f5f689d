"""A small world whose calls come to the store one by one, in an order that is chosen."""

import asyncio
import math
import random
import string
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from functions.produce import produce
from functions.sweep import sweep
from shared.errors import Unavailable
from shared.models import Ask, Continuation, Finish
from shared.pacing import Pacing
from shared.records import Item, StreamKey
from shared.schema import TENANTS, Table
from shared.starting import Start, Started
from shared.tenants import Policy
from tests.model_store import Key
from tests.simulation.clock import VirtualLoop
from tests.simulation.process import Process
from tests.simulation.provider import Script, ScriptedProvider
from tests.simulation.setting import MAIN, MORNING_S, Setting
from tests.simulation.store import Database, Faults, FaultyStore
from tests.simulation.world import PROMPT, World

if TYPE_CHECKING:
    from tests.simulation.cases import Case

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
