"""One run: a stream, who produces, follows, polls and steers it, and what goes wrong meanwhile."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from functions.produce import produce
from functions.wiring import Services
from shared.dialects import native
from shared.errors import ProviderFailed, Unavailable
from shared.follower import Follower
from shared.live import Live
from shared.log import DEAD_AFTER_S, Log
from shared.models import Ask, Finish, Message, Models, Usage
from shared.pacing import Pacing
from shared.producer import Producer
from shared.records import Item, Kind, Record, StreamKey
from shared.settings import Settings
from shared.starting import Replayed, Start, Started, cancel, start_stream
from shared.tenants import Idempotency, Identity, Tenants
from tests.simulation.clock import run_virtually
from tests.simulation.history import History
from tests.simulation.store import Database, Faults, FaultyStore

#: When the faults are over, and how long everything may then take to come to its end.
FAULTS_S = 45.0
PATIENCE_S = 400.0
#: The wall clock at the virtual time 0.
EPOCH_S = 1_800_000_000.0


@dataclass
class Script:
    """What a model says when it is asked: numbered tokens, each with its script's name."""

    name: str
    tokens: int
    delay_s: float
    silence_after: int
    silence_s: float
    fails: bool
    #: Whether it came to its end.
    told: bool = False

    def token(self, index: int) -> str:
        return f"{self.name}{index}" + (".\n" if index % 7 == 6 else " ")

    @property
    def text(self) -> str:
        return "".join(map(self.token, range(self.tokens)))


@dataclass
class Client:
    """What one client made of what it was sent."""

    name: str
    #: What it saw over each of its connections: the records' numbers.
    connections: list[list[int]] = field(default_factory=list)
    #: What it showed to its user: the events' numbers and the text.
    shown: list[int] = field(default_factory=list)
    text: str = ""
    closed: dict[str, Any] | None = None


class Process:
    """A function's process: its clock, its way to the store, and what runs in it."""

    def __init__(self, world: "World", name: str, *, faults: Faults, skew_s: float = 0.0) -> None:
        self.name = name
        self._world = world
        rng = world.rng(name)
        loop = asyncio.get_running_loop()
        self.store = FaultyStore(name, world.database, world.history, rng, faults)
        self.log = Log(
            self.store, now=lambda: EPOCH_S + skew_s + loop.time(), randomness=rng.randbytes
        )
        self.live = Live()
        self.services = Services(
            Settings(), self.log, Tenants(self.store), Models({"script": world}), self.live
        )
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def dead(self) -> bool:
        return self.store.dead

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._world.survive(work))
        self.tasks.append(task)
        return task

    def kill(self) -> None:
        """End it at once: nothing more leaves it, not even what its tasks would still write."""
        self.store.dead = True
        self.interrupt()

    def interrupt(self) -> None:
        """Tell what runs in it to stop."""
        for task in self.tasks:
            task.cancel()


class World:
    """Everything of one run. It is also the provider of its model."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.history = History()
        self.scripts: list[Script] = []
        self.clients: list[Client] = []
        self.processes: list[Process] = []
        self.key: StreamKey | None = None
        self.left_open = False
        self._dice = self.rng("world")
        self.database = Database(self.history, remembers_tokens=self._dice.random() < 0.5)
        self._opened = asyncio.Event()

    def rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    # The provider

    def validate(self, model: str) -> None:
        pass

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        script = self._write_script()
        for index in range(script.tokens):
            if index == script.silence_after:
                await asyncio.sleep(script.silence_s)
            if script.delay_s or index % 10 == 0:
                await asyncio.sleep(script.delay_s)
            yield script.token(index)
        script.told = True
        if script.fails:
            raise ProviderFailed("The script says so.", code="upstream", retryable=True)
        yield Finish("stop", Usage(1, script.tokens))

    def _write_script(self) -> Script:
        name = "abcdefgh"[len(self.scripts)]
        dice = self.rng(f"script {name}")
        script = Script(
            name=name,
            tokens=dice.choice((0, 1, 60, 200, 200, 300)),
            delay_s=dice.choice((0.0, 0.03, 0.1, 0.1)),
            silence_after=dice.randrange(60),
            silence_s=dice.choice((0.0, 1.0, 12.0, 40.0)),
            fails=dice.random() < 0.15,
        )
        self.scripts.append(script)
        self.history.add("provider", "script", script)
        return script

    # The run

    async def run(self) -> None:
        dice = self._dice
        first, second = self._process("first"), self._process("second")
        work = [self._direct(first) if dice.random() < 0.6 else self._deferred(first, second)]
        work += [
            self._watch(f"watcher {number}", dice.choice((first, second)))
            for number in range(dice.randint(0, 3))
        ]
        work += [self._poll(f"poller {number}", second) for number in range(dice.randint(0, 2))]
        mishaps: list[tuple[float, Callable[[], Coroutine[Any, Any, None]]]] = [
            (0.25, lambda: self._cancel(second)),
            (0.3, lambda: self._grant(second)),
            (0.25, lambda: self._succeed(self._process("successor"))),
            (0.25, lambda: self._succeed(first)),
            (0.15, lambda: self._kill(first)),
            (0.15, lambda: self._interrupt(first)),
            (0.25, lambda: self._freeze(dice.choice((first, second)))),
        ]
        work += [mishap() for likely, mishap in mishaps if dice.random() < likely]
        tasks = [asyncio.create_task(self.survive(each)) for each in work]
        try:
            async with asyncio.timeout(FAULTS_S + PATIENCE_S):
                await asyncio.gather(*tasks)
                for process in self.processes:
                    await asyncio.gather(*process.tasks, return_exceptions=True)
                await self._drain()
        except TimeoutError:
            self.left_open = True
            self.history.add("world", "is out of patience")

    async def survive(self, work: Coroutine[Any, Any, None]) -> None:
        """What a process makes of its errors: the store's failing is nothing new, others are."""
        try:
            await work
        except Unavailable:
            pass
        except Exception as error:  # noqa: BLE001 - any of them is a finding
            self.history.crashes.append(repr(error))

    def _process(self, name: str) -> Process:
        dice = self.rng(f"faults of {name}")
        level = dice.choice((0.0, 0.02, 0.1))
        begin = dice.uniform(0, FAULTS_S)
        length_s = dice.choice((0.0, 0.0, 2.0, 25.0))
        faults = Faults(
            before=level,
            after=level,
            late=level / 2,
            slow=level,
            stale=dice.choice((0.0, 0.2, 0.7)),
            short=dice.choice((0.0, 0.2)),
            outages=((begin, begin + length_s),),
            until_s=FAULTS_S,
        )
        skew_s = dice.choice((0.0, 0.0, 0.0, -3.0, 3.0, 20.0))
        process = Process(self, name, faults=faults, skew_s=skew_s)
        self.processes.append(process)
        self.history.add(name, "has", f"{faults}, a clock {skew_s} s off")
        return process

    async def _begin(self, process: Process, epoch: int) -> Started | None:
        """Start the stream, as a client does that repeats its request until it is answered."""
        dice = self.rng("start")
        start = Start(
            model="script/any",
            messages=(Message("user", "Count."),),
            pacing=dice.choice((Pacing(), Pacing((0, 0), 0), Pacing((10, 10), 0, "none"))),
            throttle=dice.random() < 0.3,
        )
        while True:
            try:
                outcome = await start_stream(
                    process.log,
                    process.services.tenants,
                    process.services.models,
                    Identity("tenant"),
                    start,
                    epoch=epoch,
                    idempotency=Idempotency("key", "fingerprint"),
                )
                break
            except Unavailable:
                await asyncio.sleep(dice.uniform(0, 2))
        self.key = outcome.key
        self._opened.set()
        return None if isinstance(outcome, Replayed) else outcome

    async def _direct(self, process: Process) -> None:
        """`POST /v1/streams`: produced where the first client is attached."""
        started = await self._begin(process, epoch=1)
        if started:
            producer = process.services.producer(
                started.key,
                started.start,
                epoch=1,
                by=started.opened.by,
                deadline=self._ends_at(),
            )
            process.run(producer.run((started.opened,)))
            await asyncio.sleep(0)
            await self._watch("attached", process, attached=True)

    async def _deferred(self, first: Process, second: Process) -> None:
        """A start to be polled, whose producer may be launched more than once, and late."""
        dice = self.rng("launch")
        started = await self._begin(first, epoch=0)
        if started is None:
            return
        for process in dice.sample((first, second, first), dice.randint(1, 3)):
            await _a_while(dice)
            process.run(produce(process.services, started.key, deadline=self._ends_at()))

    def _ends_at(self) -> float | None:
        """When an invocation that begins now is over."""
        return asyncio.get_running_loop().time() + self._dice.choice((12.0, 60.0, 900.0))

    async def _succeed(self, process: Process) -> None:
        """Take the stream over, whether its producer is dead or not: the log must stand it."""
        dice = self.rng(f"{process.name} as successor")
        key = await self._stream()
        await _a_while(dice)
        while not process.dead:
            try:
                records = await _read_all(process.log, key)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
        else:
            return
        if not records[-1].closes:
            producer = Producer(
                process.log,
                process.live,
                key,
                provider=self,
                ask=Ask("any", (Message("user", "Go on."),)),
                pacing=Pacing(),
                throttle=False,
                epoch=records[-1].epoch + 1,
                by=process.log.new_writer(),
            )
            process.run(producer.run(records))

    async def _watch(self, name: str, process: Process, *, attached: bool = False) -> None:
        """A browser: reads events, loses its connection, comes back with the last id it saw."""
        dice = self.rng(name)
        client = self._client(name)
        key = await self._stream()
        decoder = EventDecoder()
        if not attached:
            await _a_while(dice)
        while client.closed is None:
            if process.dead:
                process = self._fresh()
            last = client.shown[-1] if client.shown else -1
            follower = Follower(process.log, process.live, key, last, attached=attached)
            client.connections.append([])
            with suppress(Unavailable):
                await self._receive(client, process, follower, decoder, dice)
            decoder.reset()
            attached = False
            await asyncio.sleep(dice.choice((0.0, 0.1, 3.0)))

    async def _receive(
        self,
        client: Client,
        process: Process,
        follower: Follower,
        decoder: "EventDecoder",
        dice: random.Random,
    ) -> None:
        """One connection, to the end of the stream or until it is cut, within an event or not."""
        encoder = native.EventEncoder("stream")
        cut_likely = dice.choice((0.0, 0.02, 0.2))
        slow_s = dice.choice((0.0, 0.0, 0.3, 2.0))
        async with aclosing(follower.batches()) as batches:
            async for records in batches:
                if process.dead:
                    return
                self._saw(client, records)
                data = encoder.encode(records)
                cut = dice.random() < cut_likely
                if cut:
                    data = data[: dice.randint(0, len(data))]
                for seq, event, body in decoder.decode(data):
                    client.shown.append(seq)
                    client.text += body["text"] if event == "chunk" else ""
                    if event == "closed":
                        client.closed = body
                if cut:
                    return
                await asyncio.sleep(slow_s)

    async def _poll(self, name: str, process: Process) -> None:
        """A client that cannot stream."""
        dice = self.rng(name)
        client = self._client(name)
        key = await self._stream()
        client.connections.append([])
        after = -1
        while client.closed is None:
            if process.dead:
                process = self._fresh()
            try:
                follower = Follower(process.log, process.live, key, after)
                page = await follower.page(
                    limit=dice.choice((1, 3, 200)), wait_s=dice.choice((0, 0, 2, 20))
                )
            except Unavailable:
                await asyncio.sleep(dice.uniform(0, 1))
                continue
            if process.dead:
                continue
            self._saw(client, page.records)
            body = native.encode_page(page)
            client.shown += [chunk["seq"] for chunk in body["chunks"]]
            client.text += "".join(chunk["text"] for chunk in body["chunks"])
            after = body["next"]
            if body["closed"]:
                client.closed = body
            await asyncio.sleep(body["poll_after_ms"] / 1000)

    async def _cancel(self, process: Process) -> None:
        dice = self.rng("cancel")
        key = await self._stream()
        await _a_while(dice)
        for _ in range(dice.randint(1, 3)):
            with suppress(Unavailable):
                await cancel(process.log, key)

    async def _grant(self, process: Process) -> None:
        """Append controls that a producer only passes by, in a race with it for every slot."""
        dice = self.rng("grant")
        key = await self._stream()
        with suppress(Unavailable):
            for _ in range(dice.randint(1, 30)):
                await _a_while(dice)
                newest = await process.log.tail(key)
                if newest.closes or newest.kind == Kind.CANCEL:
                    return
                by, now_ms = process.log.new_writer(), process.log.now_ms()
                grant = Record(newest.seq + 1, Kind.GRANT, newest.epoch, now_ms, by)
                await process.log.append(key, grant)

    async def _kill(self, process: Process) -> None:
        await self._stream()
        await _a_while(self.rng("kill"))
        self.history.add("world", "kills", "first")
        process.kill()

    async def _interrupt(self, process: Process) -> None:
        await self._stream()
        await _a_while(self.rng("interrupt"))
        self.history.add("world", "interrupts", "first")
        process.interrupt()

    async def _freeze(self, process: Process) -> None:
        """Stop a process until it counts as dead, and let it wake as if nothing had happened."""
        dice = self.rng("freeze")
        await self._stream()
        await _a_while(dice)
        until = asyncio.get_running_loop().time() + dice.choice((5.0, DEAD_AFTER_S + 10))
        self.history.add("world", "freezes a process", f"until {until:.6f}")
        process.store.frozen_until = until

    async def _drain(self) -> None:
        """Read all of it when everything is over; whoever reads a dead stream closes it."""
        client = self._client("drain")
        client.connections.append([])
        key = await self._stream()
        reader = Process(self, "drain", faults=Faults())
        async with aclosing(Follower(reader.log, reader.live, key).batches()) as batches:
            async for records in batches:
                self._saw(client, records)

    async def _stream(self) -> StreamKey:
        await self._opened.wait()
        assert self.key
        return self.key

    def _fresh(self) -> Process:
        """Where a client comes to that connects again."""
        return self._process(f"process {len(self.processes)}")

    def _client(self, name: str) -> Client:
        client = Client(name)
        self.clients.append(client)
        return client

    def _saw(self, client: Client, records: Sequence[Record]) -> None:
        for record in records:
            client.connections[-1].append(record.seq)
            self.history.saw(client.name, record)


class EventDecoder:
    """As much of Server-Sent Events as the native dialect uses; bytes in, whole events out."""

    def __init__(self) -> None:
        self._rest = b""

    def reset(self) -> None:
        """The connection is gone, and what was left of an event with it."""
        self._rest = b""

    def decode(self, data: bytes) -> list[tuple[int, str, dict[str, Any]]]:
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        events = []
        for event in whole:
            lines = [line.partition(": ") for line in event.decode().split("\n")]
            fields = {name: value for name, _, value in lines}
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
        return events


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one seed: everything that the checks look at."""

    seed: int
    history: History
    scripts: Sequence[Script]
    clients: Sequence[Client]
    #: The stream at the end, as it lies in the database.
    records: Sequence[Record]
    summary: Item
    #: Whether it was still open when everything had had its time.
    left_open: bool


def simulate(seed: int) -> Run:
    """Do the run of one seed."""
    state = random.getstate()
    random.seed(seed)
    try:
        return run_virtually(_simulate(seed))
    finally:
        random.setstate(state)


async def _simulate(seed: int) -> Run:
    world = World(seed)
    await world.run()
    items = [item for key, item in world.database.items.items() if key[0] == "streams"]
    items.sort(key=lambda item: int(item["seq"]))
    records = [Record.from_item(item) for item in items if int(item["seq"]) >= 0]
    return Run(
        seed, world.history, world.scripts, world.clients, records, items[0], world.left_open
    )


async def _read_all(log: Log, key: StreamKey) -> list[Record]:
    records: list[Record] = []
    while page := (await log.read(key, len(records) - 1)).records:
        records += page
    return records


async def _a_while(dice: random.Random) -> None:
    """Wait for something to be under way: within a write, an answer, or a producer's silence."""
    await asyncio.sleep(dice.uniform(0, dice.choice((0.1, 1, 5, 20))))
