"""One run: a stream, who produces, follows, polls, steers and sweeps it, others that are started
beside it, and what goes wrong meanwhile.
"""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from functions.produce import produce
from functions.sweep import sweep
from functions.wiring import Services
from shared.audit import Chain, Entry, Head, head_of
from shared.audit.trail import Audit
from shared.authority import Caller
from shared.dialects import native
from shared.errors import CredentialEnded, LimitExceeded, TooLarge, Unavailable
from shared.follower import Follower
from shared.idempotency import Idempotency
from shared.identity.keys import Keys
from shared.lifecycle import Lifecycle
from shared.log import DEAD_AFTER_S, SUMMARY_SEQ, Log
from shared.models import Message, Models
from shared.pacing import Pacing
from shared.quotas import Quotas
from shared.records import Item, Kind, Record, Status, StreamKey
from shared.schema import AUDIT, STREAMS, TENANTS, Table
from shared.settings import Settings
from shared.starting import Replayed, Start, Started
from shared.steering import cancel, grant, pause, resume
from shared.table import Query, Write
from shared.tenants import Tenants, changing
from tests.simulation.clock import run_virtually
from tests.simulation.history import Fact, History
from tests.simulation.provider import SECRETS, Script, ScriptedProvider
from tests.simulation.setting import MAIN, OTHER, TENANT, Setting
from tests.simulation.store import Database, Faults, FaultyStore

#: When the faults are over, and how long everything may then take to come to its end.
FAULTS_S = 45.0
PATIENCE_S = 2000.0
#: How often a start that is refused is asked for again.
STARTS_MAX = 12
PROMPT = (Message("user", f"Count, for {SECRETS['[email]']}."),)


@dataclass
class Client:
    """What one client made of what it was sent."""

    name: str
    key: StreamKey
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
        self.skew_s = skew_s
        self._world = world
        self._dice = world.rng(name)
        self.store = FaultyStore(name, world.database, world.history, self._dice, faults)
        self.services = self._made()
        self.live = self.services.live
        self.log = self.services.log
        self.lifecycle = self.services.lifecycle
        self.takeovers = self.services.takeovers
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

    async def caller(self, key: str) -> Caller:
        """Who asks by a key."""
        identity = await self.services.authority.identify(key)
        tenant = await self.services.authority.tenant(identity)
        return Caller(identity, tenant, self._world.setting.address)

    def _made(self) -> Services:
        """What `Services.on` makes, with nothing left to chance."""
        store, now = self.store, self._now
        log = Log(store, now=now, randomness=self._randomness)
        quotas = Quotas(store, now=now, dice=self._dice)
        audit = Audit(store, now=now, randomness=self._dice.randbytes)
        models = Models({"script": self._world.provider})
        clock = asyncio.get_running_loop().time
        made = Services.on(
            store, Settings(), models, launch=self._launch, log=log, now=now, clock=clock
        )
        lifecycle = Lifecycle(store, log, quotas, audit)
        return replace(made, lifecycle=lifecycle, quotas=quotas, audit=audit)

    async def _launch(self, key: StreamKey) -> None:
        if self.dead:
            raise Unavailable("This process is dead.")
        await self._world.launch(key)

    def _now(self) -> float:
        return self._world.setting.epoch_s + self.skew_s + asyncio.get_running_loop().time()

    def _randomness(self, count: int) -> bytes:
        drawn = self._dice.randbytes(count)
        # It may become the name of a writer.
        self._world.clocks[drawn.hex()] = self.skew_s
        return drawn


class World:
    """Everything of one run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.history = History()
        self.provider = ScriptedProvider(self.history, self.rng)
        self.clients: list[Client] = []
        self.processes: list[Process] = []
        self.key: StreamKey | None = None
        #: How far off the clock of each writer is.
        self.clocks: dict[str, float] = {}
        #: Each Idempotency-Key that was used, and the streams that its requests were told of.
        self.told: dict[str, set[StreamKey]] = {}
        #: How often a producer was launched, by stream.
        self.launches: Counter[StreamKey] = Counter()
        #: How long processes were frozen.
        self.frozen_s = 0.0
        self.setting = Setting.by(self.rng("setting"))
        self._dice = self.rng("world")
        self.database = Database(self.history, remembers_tokens=self._dice.random() < 0.5)
        self._opened = asyncio.Event()

    def rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    # The run

    async def run(self) -> None:
        self.setting.install(self.database)
        dice = self._dice
        first, second = self._process("first"), self._process("second")
        work = [self._direct(first) if dice.random() < 0.6 else self._deferred(first, second)]
        work += [
            self._watch(f"watcher {number}", dice.choice((first, second)))
            for number in range(dice.randint(0, 3))
        ]
        work += [self._poll(f"poller {number}", second) for number in range(dice.randint(0, 2))]
        work += [
            self._compete(f"competitor {number}", dice.choice((first, second)))
            for number in range(dice.choice((0, 0, 2, 4, 7)))
        ]
        mishaps: list[tuple[float, Callable[[], Coroutine[Any, Any, None]]]] = [
            (0.2, lambda: self._cancel(second)),
            (0.25, lambda: self._pause(second)),
            (0.25, lambda: self._grant(second)),
            (0.5, lambda: self._rescue(second)),
            (0.35, lambda: self._revoke(second, MAIN)),
            (0.05, lambda: self._revoke(second, OTHER)),
            (0.15, lambda: self._suspend(second)),
            (0.25, lambda: self._succeed(self._process("successor"))),
            (0.35, lambda: self._succeed(first)),
            (0.15, lambda: self._kill(first)),
            (0.15, lambda: self._interrupt(first)),
            (0.25, lambda: self._freeze(dice.choice((first, second)))),
        ]
        work += [mishap() for likely, mishap in mishaps if dice.random() < likely]
        tasks = [asyncio.create_task(self.survive(each)) for each in work]
        sweeping = asyncio.create_task(self._sweep())
        try:
            async with asyncio.timeout(FAULTS_S + PATIENCE_S):
                await asyncio.gather(*tasks)
                while self._open():  # noqa: ASYNC110 - of what the database holds nobody tells
                    await asyncio.sleep(5)
                # Also of those that are begun meanwhile, by whoever goes on.
                for process in self.processes:
                    await asyncio.gather(*process.tasks, return_exceptions=True)
                await self._drain()
        except TimeoutError:
            self.history.add("world", "is out of patience")
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

    async def survive(self, work: Coroutine[Any, Any, None]) -> None:
        """What a process makes of its errors: the store's failing is nothing new, others are."""
        try:
            await work
        except (Unavailable, CredentialEnded):
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
            model="script/long",
            messages=PROMPT,
            max_tokens=dice.choice((None, None, None, 50)),
            pacing=dice.choice((Pacing(), Pacing((0, 0), 0), Pacing((10, 10), 0, "none"))),
            throttle=dice.random() < 0.3,
        )
        key = MAIN
        while True:
            try:
                outcome = await self._ask(process, key, start, epoch, "key")
                break
            except CredentialEnded:
                key = OTHER
            except (Unavailable, LimitExceeded):
                pass
            await asyncio.sleep(dice.uniform(0, 2))
        self.key = outcome.key
        self._opened.set()
        return None if isinstance(outcome, Replayed) else outcome

    async def _ask(
        self, process: Process, key: str, start: Start, epoch: int, name: str
    ) -> Started | Replayed:
        """One request for a stream, by a key and with an Idempotency-Key."""
        told = self.told.setdefault(name, set())
        outcome = await process.services.starting.start(
            await process.caller(key),
            start,
            epoch=epoch,
            idempotency=Idempotency(name, "fingerprint"),
        )
        told.add(outcome.key)
        return outcome

    async def _direct(self, process: Process) -> None:
        """`POST /v1/streams`: produced where the first client is attached."""
        started = await self._begin(process, epoch=1)
        if started:
            process.run(self._produce(process, started, self._ends_at()))
            await asyncio.sleep(0)
            await self._watch("attached", process, attached=True)

    async def _produce(self, process: Process, started: Started, deadline: float | None) -> None:
        """Produce a stream where it was started."""
        opened = started.opened
        producer = await process.services.producer(
            started.key, (opened,), epoch=1, by=opened.by, deadline=deadline
        )
        await producer.run((opened,))

    async def _deferred(self, first: Process, second: Process) -> None:
        """A start to be polled, whose producer may be launched more than once, and late."""
        dice = self.rng("launch")
        started = await self._begin(first, epoch=0)
        if started is None:
            return
        for process in dice.sample((first, second, first), dice.randint(1, 3)):
            await _a_while(dice)
            process.run(produce(process.services, started.key, deadline=self._ends_at()))

    async def _compete(self, name: str, process: Process) -> None:
        """Start another stream of the same tenant, some with an Idempotency-Key of several."""
        dice = self.rng(name)
        await self._stream()
        await _a_while(dice)
        once = dice.choice((name, name, "shared"))
        epoch = dice.choice((0, 1, 1))
        start = Start("script/short", PROMPT, max_tokens=dice.choice((None, 5, 30)))
        for _ in range(STARTS_MAX):
            with suppress(Unavailable, LimitExceeded, CredentialEnded):
                key = dice.choice((MAIN, OTHER))
                outcome = await self._ask(process, key, start, epoch, once)
                break
            await asyncio.sleep(dice.uniform(0, 4))
        else:
            return
        if isinstance(outcome, Replayed):
            return
        if epoch:
            process.run(self._produce(process, outcome, self._ends_at()))
        elif dice.random() < 0.8:  # else whoever should have produced it never did
            process.run(produce(process.services, outcome.key))

    def _ends_at(self) -> float | None:
        """When an invocation that begins now is over."""
        return asyncio.get_running_loop().time() + self._dice.choice((22.0, 60.0, 900.0))

    async def launch(self, key: StreamKey) -> None:
        """Have a stream produced, as Lambda does: late, more than once, or never."""
        self.launches[key] += 1
        dice = self.rng(f"launch {len(self.processes)} {self.launches[key]}")
        await asyncio.sleep(dice.uniform(0.001, 0.1))
        faulty = asyncio.get_running_loop().time() < FAULTS_S
        if faulty and dice.random() < 0.1:
            raise Unavailable("The launch failed.")
        for _ in range(dice.choice((0, 1, 1, 1, 1, 2) if faulty else (1,))):
            process = self._fresh()
            process.run(self._invoke(process, key, dice.choice((0.1, 0.1, 1.0, 40.0))))
        if faulty and dice.random() < 0.1:
            raise Unavailable("The reply of the launch was lost.")

    async def _invoke(self, process: Process, key: StreamKey, late_s: float) -> None:
        await asyncio.sleep(late_s)
        await produce(process.services, key, deadline=self._ends_at())

    async def _sweep(self) -> None:
        """What the schedule runs, each time in another process."""
        dice = self.rng("sweep")
        every_s = dice.choice((20.0, 60.0))
        while True:
            await asyncio.sleep(every_s)
            process = self._fresh()
            with suppress(Unavailable):
                deadline = asyncio.get_running_loop().time() + every_s
                await sweep(process.services, deadline=deadline)

    def _open(self) -> bool:
        """Whether there is a stream that is not closed."""
        items = self.database.items
        return any(
            items[STREAMS.name, key.pk, SUMMARY_SEQ].get("status") == Status.OPEN
            for key in self.streams()
        )

    async def _succeed(self, process: Process) -> None:
        """Take the stream over, whether its producer is dead or not: the log must stand it."""
        dice = self.rng(f"{process.name} as successor")
        key = await self._stream()
        await _a_while(dice)
        while not process.dead:
            try:
                records = await process.log.all_records(key)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
        else:
            return
        if not (records[-1].closes or records[-1].parked):
            producer = await process.services.producer(
                key,
                records,
                epoch=records[-1].epoch + 1,
                by=process.log.new_writer(),
                deadline=None,
            )
            process.run(producer.run(records))

    async def _watch(self, name: str, process: Process, *, attached: bool = False) -> None:
        """A browser: reads events, loses its connection, comes back with the last id it saw."""
        dice = self.rng(name)
        key = await self._stream()
        client = self._client(name, key)
        decoder = EventDecoder()
        if not attached:
            await _a_while(dice)
        while client.closed is None:
            if process.dead:
                process = self._fresh()
            last = client.shown[-1] if client.shown else -1
            follower = Follower(process.takeovers, process.live, key, last, attached=attached)
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
        key = await self._stream()
        client = self._client(name, key)
        client.connections.append([])
        after = -1
        while client.closed is None:
            if process.dead:
                process = self._fresh()
            try:
                follower = Follower(process.takeovers, process.live, key, after)
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
        for _ in range(dice.randint(1, 5)):
            with suppress(Unavailable):
                await cancel(process.lifecycle, key, await process.caller(OTHER))

    async def _pause(self, process: Process) -> None:
        """Pause the stream by hand, and let it go on or not, once or several times."""
        dice = self.rng("pause")
        key = await self._stream()
        for _ in range(dice.randint(1, 3)):
            await _a_while(dice)
            with suppress(Unavailable):
                await pause(process.lifecycle, key, await process.caller(OTHER))
            await asyncio.sleep(dice.choice((0.0, 0.5, 5.0, 20.0)))
            if dice.random() < 0.8:
                with suppress(Unavailable, LimitExceeded, TooLarge):
                    await resume(process.takeovers, key, await process.caller(OTHER))

    async def _grant(self, process: Process) -> None:
        """Let the stream go on by another key, in a race with its producer for every slot."""
        dice = self.rng("grant")
        key = await self._stream()
        for _ in range(dice.randint(1, 8)):
            await _a_while(dice)
            with suppress(Unavailable):
                await grant(process.takeovers, key, await process.caller(OTHER))

    async def _rescue(self, process: Process) -> None:
        """A client that is told of a pause, and shows another key."""
        dice = self.rng("rescue")
        key = await self._stream()
        while not process.dead:
            with suppress(Unavailable):
                newest = await process.takeovers.settle(key)
                if newest.closes:
                    return
                if newest.kind == Kind.PAUSE:
                    await asyncio.sleep(dice.choice((0.0, 3.0, 20.0, 70.0)))
                    # Which of the two it takes is told by the reason, but both may be tried.
                    steer = dice.choice((grant, resume))
                    with suppress(LimitExceeded, TooLarge):
                        await steer(process.takeovers, key, await process.caller(OTHER))
            await asyncio.sleep(3)

    async def _revoke(self, process: Process, key_id: str) -> None:
        dice = self.rng(f"revoke {key_id}")
        await self._stream()
        await _a_while(dice)
        at = self.setting.epoch_s + int(asyncio.get_running_loop().time())
        await self._insist(
            process, lambda: Keys(process.store).revoking(TENANT, key_id, at), f"revoke {key_id}"
        )

    async def _suspend(self, process: Process) -> None:
        """Suspend the tenant, and let it go on again."""
        dice = self.rng("suspend")
        await self._stream()
        for suspended in (True, False):
            await _a_while(dice)

            async def change(suspended: bool = suspended) -> list[Write]:
                tenant = await Tenants(process.store).get(TENANT)
                assert tenant
                if tenant.suspended is suspended:
                    return []
                return changing(tenant, tenant.policy, suspended=suspended)

            await self._insist(process, change, f"suspend {suspended}")
            await asyncio.sleep(dice.choice((0.0, 30.0, 50.0)))

    async def _insist(
        self, process: Process, wanted: Callable[[], Awaitable[list[Write]]], name: str
    ) -> None:
        """What an operator does until it is done."""
        for attempt in itertools.count():
            try:
                writes = await wanted()
                if not writes or not await process.store.transact(writes, f"{name} {attempt}"):
                    return
            except Unavailable:
                await asyncio.sleep(1)
            if process.dead:
                return

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
        self.frozen_s = dice.choice((5.0, DEAD_AFTER_S + 10))
        until = asyncio.get_running_loop().time() + self.frozen_s
        self.history.add("world", "freezes a process", f"until {until:.6f}")
        process.store.frozen_until = until

    async def _drain(self) -> None:
        """Read all of it when everything is over."""
        reader = Process(self, "drain", faults=Faults())
        for key in self.streams():
            client = self._client("drain", key)
            client.connections.append([])
            follower = Follower(reader.takeovers, reader.live, key)
            async with aclosing(follower.batches()) as batches:
                async for records in batches:
                    self._saw(client, records)

    def streams(self) -> list[StreamKey]:
        """Every stream that there is."""
        return [
            StreamKey(TENANT, str(pk).removeprefix(f"{TENANT}#"))
            for table, pk, seq in self.database.items
            if table == STREAMS.name and seq == 0
        ]

    async def _stream(self) -> StreamKey:
        await self._opened.wait()
        assert self.key
        return self.key

    def _fresh(self) -> Process:
        """Where a client comes to that connects again."""
        return self._process(f"process {len(self.processes)}")

    def _client(self, name: str, key: StreamKey) -> Client:
        client = Client(name, key)
        self.clients.append(client)
        return client

    def _saw(self, client: Client, records: Sequence[Record]) -> None:
        for record in records:
            client.connections[-1].append(record.seq)
            self.history.saw(client.name, client.key, record)


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
class Told:
    """One stream at the end, as it lies in the database, with its audit and who looked at it."""

    key: StreamKey
    records: Sequence[Record]
    summary: Item
    #: What happened to its records, and each state that its summary had.
    facts: Sequence[Fact]
    summaries: Sequence[Item]
    clients: Sequence[Client]
    entries: Sequence[Entry]
    head: Head | None

    @property
    def closed(self) -> Record | None:
        return self.records[-1] if self.records[-1].closes else None


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one seed: everything that the checks look at."""

    seed: int
    world: World
    streams: Sequence[Told]

    @property
    def history(self) -> History:
        return self.world.history

    @property
    def scripts(self) -> Sequence[Script]:
        return self.world.provider.scripts

    def items(self, table: Table) -> list[Item]:
        """What lies in a table at the end."""
        return [item for key, item in self.world.database.items.items() if key[0] == table.name]


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
    return Run(seed, world, [_told(world, key) for key in world.streams()])


def _told(world: World, key: StreamKey) -> Told:
    summary, *items = world.database.query_now(
        world.database.items, Query(STREAMS, key.pk, 10_000)
    ).items
    entries = world.database.query_now(
        world.database.items, Query(AUDIT, Chain.of(key).pk, 10_000)
    ).items
    return Told(
        key=key,
        records=[Record.from_item(item) for item in items],
        summary=summary,
        facts=[fact for fact in world.history.facts if fact.key == key],
        summaries=world.history.summaries.get(key, []),
        clients=[client for client in world.clients if client.key == key],
        entries=[Entry.from_item(item) for item in entries],
        head=head_of(world.database.get_now(TENANTS, Chain.of(key).head_key)),
    )


async def _a_while(dice: random.Random) -> None:
    """Wait for something to be under way: within a write, an answer, or a producer's silence."""
    await asyncio.sleep(dice.uniform(0, dice.choice((0.1, 1, 5, 20))))
