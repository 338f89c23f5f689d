"""One run: a stream, who produces, follows, polls, steers and sweeps it, others that are started
beside it, and what goes wrong meanwhile.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from functions.produce import produce
from functions.sweep import sweep
from shared.authority import actor
from shared.dialects import native
from shared.erasure import finish_within
from shared.errors import (
    CredentialEnded,
    LimitExceeded,
    NotFound,
    PolicyViolated,
    TooLarge,
    Unavailable,
)
from shared.follower import Follower
from shared.idempotency import Idempotency
from shared.identity.keys import Keys
from shared.log import DEAD_AFTER_S, SUMMARY_SEQ
from shared.models import Message
from shared.pacing import Pacing
from shared.records import Kind, Record, Status, StreamKey
from shared.schema import AUDIT, STREAMS, TENANTS
from shared.starting import Replayed, Start, Started
from shared.steering import cancel, grant, pause, resume
from shared.table import Write
from shared.tenants import Tenants, changing
from tests.simulation.clients import Client, EventDecoder
from tests.simulation.history import History
from tests.simulation.process import Process
from tests.simulation.provider import SECRETS, ScriptedProvider
from tests.simulation.setting import MAIN, OTHER, TENANT, Setting
from tests.simulation.store import Database, Faults, FaultyStore, Span

#: When the faults are over, and how long everything may then take to come to its end.
FAULTS_S = 45.0
PATIENCE_S = 2000.0
#: How often a start that is refused is asked for again.
STARTS_MAX = 12
#: What a request may be told that goes on from an answer: that was erased, or says what is against
#: the rules now, or it is more than a limit ever lets pass.
_REFUSED = (NotFound, PolicyViolated, TooLarge)
PROMPT = (Message("user", f"Count, for {SECRETS['[email]']}."),)


class World:
    """Everything of one run."""

    def __init__(self, seed: int, setting: Setting | None = None) -> None:
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
        #: Whether anything is erased in this run.
        self.erases = False
        self.setting = setting or Setting.by(self.rng("setting"))
        self._dice = self.rng("world")
        self.database = Database(self.history, remembers_tokens=self._dice.random() < 0.5)
        self._opened = asyncio.Event()
        self._throttled = _throttled(self.rng("throttles"))

    def rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    def way(self, who: str, dice: random.Random, faults: Faults) -> FaultyStore:
        """A process's way to the database."""
        return FaultyStore(who, self.database, self.history, dice, faults)

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
            (0.15, lambda: self._fiddle("fiddler", second)),
            (0.15, lambda: self._fiddle("other fiddler", first)),
            (0.25, lambda: self._erase(dice.choice((first, second)))),
            (0.25, lambda: self._grant(second)),
            (0.5, lambda: self._rescue(second)),
            (0.35, lambda: self._revoke(second, MAIN)),
            (0.05, lambda: self._revoke(second, OTHER)),
            (0.15, lambda: self._suspend(second)),
            (0.25, lambda: self._succeed(self._process("successor"))),
            (0.35, lambda: self._succeed(first)),
            (0.15, lambda: self._strike("kill", first.kill)),
            (0.15, lambda: self._strike("interrupt", first.interrupt)),
            (0.25, lambda: self._freeze(dice.choice((first, second)))),
        ]
        work += [mishap() for likely, mishap in mishaps if dice.random() < likely]
        tasks = [asyncio.create_task(self.survive(each)) for each in work]
        sweeping = asyncio.create_task(self._sweep())
        try:
            async with asyncio.timeout(FAULTS_S + PATIENCE_S):
                await asyncio.gather(*tasks)
                while self._goes_on():  # noqa: ASYNC110 - of what the database holds nobody tells
                    await asyncio.sleep(5)
                # Also of those that are begun meanwhile, by whoever goes on.
                for process in self.processes:
                    await asyncio.gather(*process.tasks, return_exceptions=True)
                await self.survive(self._drain())
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
        except NotFound as error:
            if not self.erases:
                self.history.crashes.append(repr(error))
        except Exception as error:  # noqa: BLE001 - any of them is a finding
            self.history.crashes.append(repr(error))

    def _process(self, name: str) -> Process:
        dice = self.rng(f"faults of {name}")
        level = dice.choice((0.0, 0.02, 0.1))
        faults = Faults(
            before=level,
            after=level,
            late=level / 2,
            slow=level,
            stale=dice.choice((0.0, 0.2, 0.7)),
            short=dice.choice((0.0, 0.2)),
            twice=level,
            busy=level / 2,
            outages=(_span(dice),),
            deaf=(_span(dice),) if dice.random() < 0.2 else (),
            throttled=self._throttled,
            dies_at=dice.randint(1, 80) if dice.random() < 0.1 else None,
            stops_at=dice.randint(1, 80) if dice.random() < 0.1 else None,
            until_s=FAULTS_S,
        )
        if asyncio.get_running_loop().time() > FAULTS_S:
            faults = Faults()
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
        if dice.random() < 0.3:
            start = replace(start, parent=(await self._some_stream(dice)).stream)
        for _ in range(STARTS_MAX):
            with suppress(Unavailable, LimitExceeded, CredentialEnded, *_REFUSED):
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

    def _goes_on(self) -> bool:
        """Whether there is a stream that is not closed, or an erasure that is not done."""
        items = self.database.items
        open_streams = any(
            items[STREAMS.name, key.pk, SUMMARY_SEQ].get("status") == Status.OPEN
            for key in self.streams()
        )
        return open_streams or any(pk == "#erasures" for _, pk, _ in items)

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
        if not attached:
            await _a_while(dice)
            key = await self._some_stream(dice)
        client = self._client(name, key)
        decoder = EventDecoder()
        while not client.done:
            if process.dead:
                process = self._fresh()
            last = client.shown[-1] if client.shown else -1
            follower = Follower(process.takeovers, process.live, key, last, attached=attached)
            client.connections.append([])
            with suppress(Unavailable), client.told_when_gone():
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
        client = self._client(name, await self._some_stream(dice))
        client.connections.append([])
        after = -1
        while not client.done:
            if process.dead:
                process = self._fresh()
            page = None
            with suppress(Unavailable), client.told_when_gone():
                follower = Follower(process.takeovers, process.live, client.key, after)
                page = await follower.page(
                    limit=dice.choice((1, 3, 200)), wait_s=dice.choice((0, 0, 2, 20))
                )
            if page is None or process.dead:
                await asyncio.sleep(dice.uniform(0, 1))
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
        await self._stream()
        await _a_while(dice)
        key = await self._some_stream(dice)
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

    async def _fiddle(self, name: str, process: Process) -> None:
        """Steer a stream every way, in no order."""
        dice = self.rng(name)
        await self._stream()
        await _a_while(dice)
        key = await self._some_stream(dice)
        for _ in range(dice.randint(2, 10)):
            what = dice.choice(("pause", "pause", "resume", "resume", "grant", "settle", "cancel"))
            self.history.add(name, what)
            with suppress(Unavailable, LimitExceeded, TooLarge):
                caller = await process.caller(dice.choice((MAIN, OTHER)))
                if what == "settle":
                    await process.takeovers.settle(key)
                elif what in ("pause", "cancel"):
                    steer = pause if what == "pause" else cancel
                    await steer(process.lifecycle, key, caller)
                else:
                    let_go_on = resume if what == "resume" else grant
                    await let_go_on(process.takeovers, key, caller)
            await asyncio.sleep(dice.choice((0.0, 0.0, 0.05, 1.0, 16.0)))

    async def _erase(self, process: Process) -> None:
        """Erase a stream, or all that its user has, while whatever else happens to it."""
        dice = self.rng("erase")
        await self._stream()
        await _a_while(dice)
        self.erases = True
        key, user = await self._some_stream(dice), None
        if self.setting.user and dice.random() < 0.5:
            user = self.setting.user
        caller = await process.caller(OTHER)
        stream = None if user else key.stream
        while not process.dead:
            with suppress(Unavailable):
                erasures = process.services.erasures
                job = await erasures.begin(TENANT, actor(caller), stream=stream, user=user)
                await finish_within(erasures, job, dice.choice((0.0, 0.1, 10.0)))
                return
            await asyncio.sleep(1)

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

    async def _strike(self, name: str, strike: Callable[[], None]) -> None:
        """What becomes of a process from outside, whatever it is at."""
        await self._stream()
        await _a_while(self.rng(name))
        strike()

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
            with client.told_when_gone():
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

    async def _some_stream(self, dice: random.Random) -> StreamKey:
        """The first stream, or now and then another one that there is."""
        first = await self._stream()
        return dice.choice(self.streams()) if dice.random() < 0.4 else first

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


async def _a_while(dice: random.Random) -> None:
    """Wait for something to be under way: within a write, an answer, or a producer's silence."""
    await asyncio.sleep(dice.uniform(0, dice.choice((0.1, 1, 5, 20))))


def _span(dice: random.Random) -> Span:
    begin_s = dice.uniform(0, FAULTS_S)
    return Span(begin_s, begin_s + dice.choice((0.0, 0.0, 2.0, 25.0)))


def _throttled(dice: random.Random) -> tuple[Span, ...]:
    """When tables refuse most calls of everybody."""
    return tuple(
        replace(_span(dice), table=dice.choice((STREAMS, TENANTS, AUDIT)).name)
        for _ in range(dice.choice((0, 0, 0, 1, 3)))
    )
