"""One contract for our model of the store and for DynamoDB's protocol; and the log between real
processes on a real database.
"""

import asyncio
import multiprocessing
import os
import random
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import cycle
from multiprocessing.context import SpawnProcess as Process
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from functions.wiring import Services
from shared.administration import Administration
from shared.audit import Chain, Event
from shared.authority import Caller
from shared.errors import LimitExceeded, Unavailable
from shared.identity.keys import Key
from shared.log import Log, closing
from shared.models import Message
from shared.pacing import Pacing
from shared.records import FinishReason, Item, Kind, Record, Status, StreamKey
from shared.schema import STREAMS, TENANTS
from shared.settings import Settings
from shared.starting import Start, Started
from shared.steering import cancel
from shared.table import Conflict, Delete, DynamoDB, Put, Query, Store, Update, Write
from tests.e2e import dynoxide
from tests.model_store import ModelStore

pytestmark = pytest.mark.e2e

SPAWN = multiprocessing.get_context("spawn")
BODY = {"model": "demo"}
CLOSING = closing(Status.COMPLETED, FinishReason.STOP)


@pytest.fixture(params=["model", "dynoxide"])
def store(request: pytest.FixtureRequest) -> Store:
    return ModelStore() if request.param == "model" else request.getfixturevalue("real")


@pytest.fixture
def pk(request: pytest.FixtureRequest) -> str:
    """A partition of the test's own."""
    return f"tenant#{request.node.name}"


def item(pk: str, seq: int, **more: str | int) -> Item:
    return {"pk": pk, "seq": seq, **more}


# The contract


async def test_an_item_is_written_once_and_its_holder_told(store: Store, pk: str) -> None:
    first, second = item(pk, 1, text="first 東京 \0"), item(pk, 1, text="second", at=2**53)
    assert await store.write(Put(STREAMS, first)) is None
    assert await store.write(Put(STREAMS, second)) == first
    assert await store.get(STREAMS, item(pk, 1)) == first
    assert await store.get(STREAMS, item(pk, 2)) is None


async def test_a_transaction_is_all_or_nothing_and_tells_every_holder(
    store: Store, pk: str
) -> None:
    held = item(pk, 1, text="held")
    await store.write(Put(STREAMS, held))
    conflict = await store.transact(
        [
            Put(STREAMS, item(pk, 2)),
            Put(STREAMS, item(pk, 1, text="other")),
            Update(STREAMS, item(pk, 9), {"text": "nothing to change"}),
        ],
        f"{pk}-a"[-36:],
    )
    assert conflict == Conflict((None, held, {}))
    assert await store.get(STREAMS, item(pk, 2)) is None
    assert await store.get(STREAMS, item(pk, 9)) is None


async def test_a_transaction_changes_what_is_there_and_keeps_the_rest(
    store: Store, pk: str
) -> None:
    await store.write(Put(STREAMS, item(pk, -1, status="open", at=1)))
    claim: Item = {"pk": pk, "what": "claim"}
    writes: list[Write] = [
        Put(STREAMS, item(pk, 1)),
        Update(STREAMS, item(pk, -1), {"status": "failed", "error": "{}"}),
        Put(TENANTS, claim),
    ]
    assert await store.transact(writes, f"{pk}-b"[-36:]) is None
    assert await store.get(STREAMS, item(pk, -1)) == item(pk, -1, status="failed", at=1, error="{}")
    assert await store.get(TENANTS, claim) == claim


async def test_an_update_changes_what_its_condition_names(store: Store, pk: str) -> None:
    key: Item = {"pk": pk, "what": "counter"}
    counter: Item = {**key, "rev": 1, "used": 5, "old": "x"}
    assert await store.write(Put(TENANTS, counter)) is None
    change = Update(TENANTS, key, {"rev": 2}, {"used": -2, "new": 7}, ("old",), {"rev": 1})
    assert await store.write(change) is None
    changed: Item = {**key, "rev": 2, "used": 3, "new": 7}
    assert await store.get(TENANTS, key) == changed
    assert await store.write(change) == changed
    assert await store.transact([change], f"{pk}-u"[-36:]) == Conflict((changed,))
    missing = Update(TENANTS, {**key, "what": "none"}, {"rev": 2}, where={"rev": 1})
    assert await store.write(missing) == {}


async def test_an_update_without_a_condition_makes_what_is_missing(store: Store, pk: str) -> None:
    key: Item = {"pk": pk, "what": "counter"}
    for _ in range(2):
        assert await store.write(Update(TENANTS, key, add={"used": -2}, where=None)) is None
    assert await store.get(TENANTS, key) == {**key, "used": -4}


async def test_a_delete_does_not_mind_that_nothing_is_there(store: Store, pk: str) -> None:
    await store.write(Put(STREAMS, item(pk, 1)))
    for _ in range(2):
        assert await store.write(Delete(STREAMS, item(pk, 1))) is None
    assert await store.get(STREAMS, item(pk, 1)) is None


async def test_overwriting_replaces_whole_items(store: Store, pk: str) -> None:
    await store.write(Put(STREAMS, item(pk, 1, text="secret")))
    await store.overwrite(STREAMS, [item(pk, seq, kind="erased") for seq in range(25)])
    found = (await store.query(Query(STREAMS, pk, 100))).items
    assert found == [item(pk, seq, kind="erased") for seq in range(25)]


async def test_a_query_by_prefix_finds_only_that(store: Store, pk: str) -> None:
    for what in ("key#a", "key#b", "kez", "settings"):
        await store.write(Put(TENANTS, {"pk": pk, "what": what}))
    found = (await store.query(Query(TENANTS, pk, 100, prefix="key#"))).items
    assert [i["what"] for i in found] == ["key#a", "key#b"]


async def test_a_transaction_asked_twice_with_one_token_is_one(store: Store, pk: str) -> None:
    writes: list[Write] = [Put(STREAMS, item(pk, 1)), Put(STREAMS, item(pk, 2))]
    assert await store.transact(writes, f"{pk}-c"[-36:]) is None
    assert await store.transact(writes, f"{pk}-c"[-36:]) is None
    assert await store.transact(writes, f"{pk}-d"[-36:]) == Conflict((item(pk, 1), item(pk, 2)))


async def test_a_refused_transaction_may_be_asked_again(store: Store, pk: str) -> None:
    update = Update(STREAMS, item(pk, -1), {"status": "failed"})
    writes: list[Write] = [Put(STREAMS, item(pk, 1)), update]
    assert await store.transact(writes, f"{pk}-e"[-36:]) == Conflict((None, {}))
    await store.write(Put(STREAMS, item(pk, -1)))
    assert await store.transact(writes, f"{pk}-e"[-36:]) is None


@pytest.mark.parametrize("consistent", [True, False])
async def test_a_partition_is_read_in_order(store: Store, pk: str, consistent: bool) -> None:
    seqs = [10, 2, -1, 0, 9]
    for seq in seqs:
        await store.write(Put(STREAMS, item(pk, seq)))
    await store.write(Put(STREAMS, item(f"{pk}#other", 3)))

    async def read(start: int | None, limit: int, *, newest_first: bool = False) -> list[object]:
        found = await store.query(
            Query(
                STREAMS,
                pk,
                limit,
                start=start,
                newest_first=newest_first,
                consistent=consistent,
            )
        )
        return [found_item["seq"] for found_item in found.items]

    assert await read(None, 100) == [-1, 0, 2, 9, 10]
    assert await read(2, 2) == [2, 9]
    assert await read(3, 100) == [9, 10]
    assert await read(11, 100) == []
    assert await read(None, 1, newest_first=True) == [10]
    assert await read(9, 100, newest_first=True) == [2, 0, -1]


async def test_an_index_lists_what_has_its_attributes_and_shows_what_it_holds(
    store: Store, pk: str
) -> None:
    for stream in ("b", "a", "c"):
        summary = item(f"{pk}#{stream}", -1, tenant=pk, stream=stream, status="open", private="x")
        await store.write(Put(STREAMS, summary))
        await store.write(Put(STREAMS, item(f"{pk}#{stream}", 0)))

    async def names(start: str | None, limit: int) -> list[object]:
        found = await store.query(
            Query(STREAMS, pk, limit, start=start, index=STREAMS.indexes[0], newest_first=True)
        )
        assert all("private" not in found_item for found_item in found.items)
        return [(found_item["stream"], found_item["status"]) for found_item in found.items]

    assert await names(None, 2) == [("c", "open"), ("b", "open")]
    assert await names("b", 2) == [("a", "open")]


async def test_of_writers_at_the_same_time_one_has_the_slot(store: Store, pk: str) -> None:
    offers = [item(pk, 1, by=str(n)) for n in range(20)]
    holders = await asyncio.gather(*(store.write(Put(STREAMS, offer)) for offer in offers))
    winner = await store.get(STREAMS, item(pk, 1))
    assert winner == offers[holders.index(None)]
    assert [holder for holder in holders if holder] == [winner] * 19


async def test_of_transactions_at_the_same_time_one_happens(store: Store, pk: str) -> None:
    await store.write(Put(STREAMS, item(pk, -1)))

    async def close(n: int) -> Conflict | None:
        by = item(pk, 1, by=str(n))
        writes: list[Write] = [Put(STREAMS, by), Update(STREAMS, item(pk, -1), {"by": str(n)})]
        return await store.transact(writes, f"{n:02}{pk}"[:36])

    conflicts = await asyncio.gather(*(close(n) for n in range(8)))
    winner = await store.get(STREAMS, item(pk, 1))
    assert winner == item(pk, 1, by=str(conflicts.index(None)))
    assert await store.get(STREAMS, item(pk, -1)) == item(pk, -1, by=winner["by"])
    assert [c for c in conflicts if c] == [Conflict((winner, None))] * 7


# Replies that are lost on the way


@pytest.fixture
async def lossy(endpoint: str) -> AsyncIterator[tuple[DynamoDB, dynoxide.Proxy]]:
    async with dynoxide.proxy(endpoint) as proxy:
        with dynoxide.store(proxy.url) as made:
            yield made, proxy


async def test_a_put_whose_replies_are_lost_is_known_as_ones_own(
    lossy: tuple[DynamoDB, dynoxide.Proxy],
) -> None:
    made, proxy = lossy
    log = Log(made)
    key, opened = await begin(log)
    record = replace(opened, seq=1, kind=Kind.TEXT, text="once")
    proxy.lose = 3
    with pytest.raises(Unavailable):
        await log.append(key, record)
    assert len(proxy.lost) == 3
    assert await log.append(key, record) == record
    proxy.lose = 1
    record = replace(record, seq=2)
    assert await log.append(key, record) == record
    assert [r.seq for r in (await log.read(key)).records] == [0, 1, 2]


async def test_a_closing_whose_replies_are_lost_is_asked_again_with_its_token(
    lossy: tuple[DynamoDB, dynoxide.Proxy],
) -> None:
    made, proxy = lossy
    log = Log(made)
    key, opened = await begin(log)
    closed = replace(opened, seq=1, kind=Kind.CLOSED, body=CLOSING)
    proxy.lose = 4
    with pytest.raises(Unavailable):
        await log.close(key, closed)
    # The database remembers the token, and says that it has done it.
    assert await log.close(key, closed) is None
    asked = [*proxy.lost, *proxy.passed]
    tokens = {t for r in asked for t in re.findall(rb'"ClientRequestToken": ?"(.*?)"', r)}
    assert len(tokens) == 2  # the opening's, and this one
    assert (await log.summary(key)).last_seq == 1


async def test_a_start_and_an_end_whose_replies_are_lost_count_once(
    lossy: tuple[DynamoDB, dynoxide.Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, proxy = lossy
    services = await tenant(made, "lost", limits=METERED)
    transact, losses = Log._transact, iter((3, 1, 3, 1))

    async def transact_and_lose(self: Log, writes: Sequence[Write]) -> Conflict | None:
        # The client itself asks three times.
        proxy.lose = next(losses, 0)
        return await transact(self, writes)

    monkeypatch.setattr(Log, "_transact", transact_and_lose)
    await produced(services, await start(services, "lost", "demo?tokens=3&rate=0"))
    assert len(proxy.lost) == 8
    await check_books(services, "lost", streams=1)


# Real processes


READINGS = (Event.FOLLOWED, Event.INTERRUPTED, Event.POLLED)
METERED = {"streams_at_once": 10, "starts_per_minute": None, "tokens_per_day": 10**9}


async def begin(log: Log) -> tuple[StreamKey, Record]:
    """A stream in the log, and nothing else."""
    key = log.new_key("tenant", bytes(5), 30)
    opened = Record(0, Kind.OPENED, 1, log.now_ms(), log.new_writer(), body=BODY)
    assert await log.open(key, opened) is None
    return key, opened


async def tenant(store: Store, name: str, **policy: Any) -> Services:
    """Everything on a store, with a tenant that has a key of its own name."""
    administration = Administration(store)
    await administration.add_tenant(name, policy)
    await administration.add_key(name, Key(name, "key"))
    return Services.on(store, Settings())


async def caller(services: Services, name: str) -> Caller:
    identity = await services.authority.identify(name)
    return Caller(identity, await services.authority.tenant(identity))


async def start(services: Services, name: str, model: str) -> Started:
    """A stream of a tenant. Raises as `Starting.start`."""
    asked = Start(model, (Message("user", "Go."),), pacing=Pacing((0, 0), 0))
    started = await services.starting.start(await caller(services, name), asked, epoch=1)
    assert isinstance(started, Started)
    return started


async def produced(services: Services, started: Started) -> None:
    """Produce a stream to its end, where it was started."""
    opened = started.opened
    producer = await services.producer(started.key, (opened,), epoch=1, by=opened.by, deadline=None)
    await producer.run((opened,))


@contextmanager
def child(work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> Iterator[Process]:
    """A process of its own that does `work` at an endpoint, and is waited for."""
    process = SPAWN.Process(target=_run, args=(work, *args))
    process.start()
    try:
        yield process
        process.join(timeout=60)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()


def _run(work: Callable[..., Coroutine[Any, Any, None]], endpoint: str, *args: object) -> None:
    with dynoxide.store(endpoint) as made:
        asyncio.run(work(Services.on(made, Settings()), *args))


async def append_many(services: Services, barrier: Barrier, key: StreamKey, count: int) -> None:
    """Append numbered records, in a race with whoever else does."""
    log = services.log
    by = log.new_writer()
    await asyncio.to_thread(barrier.wait)
    seq = (await log.tail(key)).seq + 1
    for number in range(count):
        holder = None
        while holder is None or holder.by != by:
            record = Record(seq, Kind.TEXT, 1, log.now_ms(), by, text=str(number))
            holder = await log.append(key, record)
            seq += 1


async def test_eight_processes_append_to_one_log_and_nothing_is_lost(
    endpoint: str, real: DynamoDB
) -> None:
    log = Log(real)
    key, _ = await begin(log)
    barrier = SPAWN.Barrier(8)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(child(append_many, endpoint, barrier, key, 25))
        # The children end when they are left.
    records = (await log.read(key)).records
    assert [record.seq for record in records] == list(range(1 + 8 * 25))
    written: dict[str, list[str]] = {}
    for record in records[1:]:
        written.setdefault(record.by, []).append(record.text)
    assert list(written.values()) == [[str(number) for number in range(25)]] * 8


@pytest.mark.parametrize("closed", [True, False])
async def test_a_producer_that_slept_through_its_succession_writes_nothing(
    endpoint: str, real: DynamoDB, closed: bool
) -> None:
    name = f"slept-{closed}".lower()
    services = await tenant(real, name)
    # What a successor says is up to it, here as in the log.
    model = "demo?tokens=20&rate=0" if closed else "demo?tokens=10000&rate=100"
    started = await start(services, name, "demo?tokens=10000&rate=100")
    log, key, opened = services.log, started.key, started.opened
    with child(produced, endpoint, started) as sleeper:
        while (await log.tail(key)).seq < 5:
            assert sleeper.is_alive()
            await asyncio.sleep(0.01)
        assert sleeper.pid
        os.kill(sleeper.pid, signal.SIGSTOP)
        successor = log.new_writer()
        known = (await log.read(key)).records
        asked = replace(opened, body={**opened.body, "model": model})
        records = (asked, *known[1:])
        work = await services.producer(key, records, epoch=2, by=successor, deadline=None)
        production = asyncio.create_task(work.run(known))
        while (newest := await log.tail(key)).by != successor or newest.closes != closed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        os.kill(sleeper.pid, signal.SIGCONT)
        # It finds out by its next write, and its process ends of itself.
        await asyncio.to_thread(sleeper.join, 20)
        assert sleeper.exitcode == 0
        await cancel(services.lifecycle, key, await caller(services, name))
        await production
    records = (await log.read(key)).records
    assert records[-1].closes
    epoch = next(record.seq for record in records if record.kind == Kind.EPOCH)
    assert {record.by for record in records[:epoch]} == {opened.by}
    later = {record.by for record in records[epoch:] if record.kind != Kind.CANCEL}
    assert later == {successor}
    await check_books(services, name, streams=1)


async def cancel_all(
    services: Services, barrier: Barrier, name: str, keys: Sequence[StreamKey]
) -> None:
    by = await caller(services, name)
    await asyncio.to_thread(barrier.wait)
    for key in keys:
        await cancel(services.lifecycle, key, by)


async def test_cancels_that_race_with_the_end_leave_one_end(endpoint: str, real: DynamoDB) -> None:
    services = await tenant(real, "cancelled")
    streams = [await start(services, "cancelled", f"demo?tokens={n}&rate=0") for n in range(1, 13)]
    keys = [started.key for started in streams]
    barrier = SPAWN.Barrier(4)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(child(cancel_all, endpoint, barrier, "cancelled", keys))
        await asyncio.to_thread(barrier.wait)
        await asyncio.gather(*(produced(services, started) for started in streams))
    for key in keys:
        records = (await services.log.read(key)).records
        summary = await services.log.summary(key)
        assert [record.closes for record in records] == [False] * (len(records) - 1) + [True]
        cancelled = any(record.kind == Kind.CANCEL for record in records)
        assert summary.status == ("cancelled" if cancelled else "completed")
        assert (summary.status, summary.last_seq) == (records[-1].body["status"], records[-1].seq)
    await check_books(services, "cancelled", streams=12)


# Many starters


CAP, STARTERS, PROCESSES = 10, 64, 4


async def start_and_produce(
    services: Services, barrier: Barrier, name: str, count: int, *models: str
) -> None:
    """So many clients at once, each of which asks until it gets one answer of these models."""

    async def client(model: str) -> None:
        while True:
            try:
                started = await start(services, name, model)
                break
            except (LimitExceeded, Unavailable):
                await asyncio.sleep(random.uniform(0, 0.5))
        await produced(services, started)

    await caller(services, name)  # what is imported with the first use
    await asyncio.to_thread(barrier.wait)
    await asyncio.gather(*(client(model) for model, _ in zip(cycle(models), range(count))))


async def test_of_many_starters_no_more_than_may_have_a_stream_at_once(
    endpoint: str, real: DynamoDB
) -> None:
    name = "capped"
    services = await tenant(real, name, limits=METERED)
    barrier = SPAWN.Barrier(PROCESSES + 1)
    args = (endpoint, barrier, name, STARTERS // PROCESSES, "demo?tokens=20&rate=50")
    seen: list[int] = []
    with ExitStack() as stack:
        running = [stack.enter_context(child(start_and_produce, *args)) for _ in range(PROCESSES)]
        await asyncio.to_thread(barrier.wait)
        while any(process.is_alive() for process in running):
            seen.append(await open_streams(services, name))
            active = [int(c.get("active", 0)) for c in await counters(services, name)]
            assert sum(active) <= CAP
            await asyncio.sleep(0.01)
    assert max(seen) <= CAP
    assert max(seen) > CAP // 2  # else nothing was tried
    await check_books(services, name, streams=STARTERS)


# Whatever dies: nobody keeps a permit, and what was said is counted, when all has been settled.
async def test_who_is_killed_keeps_nothing_for_ever(endpoint: str, real: DynamoDB) -> None:
    services = await tenant(real, "killed", limits=METERED, shards=3)
    barrier = SPAWN.Barrier(PROCESSES + 1)
    # Some are killed within an answer that would not have ended before.
    models = ("demo?tokens=20&rate=100", "demo?tokens=1000&rate=100")
    args = (start_and_produce, endpoint, barrier, "killed", 8, *models)
    for _ in range(2):
        running = [SPAWN.Process(target=_run, args=args) for _ in range(PROCESSES)]
        for process in running:
            process.start()
        await asyncio.to_thread(barrier.wait)
        for process in running:
            await asyncio.sleep(random.uniform(0, 0.5))
            assert process.is_alive()
            process.kill()
            await asyncio.to_thread(process.join)
        await settle_all(services, "killed")
    streams = await keys_of(services, "killed")
    assert len(streams) > PROCESSES
    told = [(await services.log.tail(key)).body["error"] for key in streams]
    assert any(error and error["type"].endswith("producer-lost") for error in told)
    await check_books(services, "killed", streams=len(streams))
    # There is room for as many as ever.
    for _ in range(CAP):
        await start(services, "killed", "demo")
    with pytest.raises(LimitExceeded):
        await start(services, "killed", "demo")


async def settle_all(services: Services, name: str) -> None:
    """Close what is dead, as who comes a minute later."""
    store = services.lifecycle.store
    later = Services.on(store, services.settings, now=lambda: time.time() + 60)
    for key in await keys_of(services, name):
        newest = await later.log.tail(key)
        assert newest.closes or (await later.lifecycle.close_abandoned(key, newest)).closes


async def keys_of(services: Services, name: str) -> list[StreamKey]:
    listed, more = await services.log.summaries(name, before=None, limit=1000)
    assert not more
    return [StreamKey(name, summary.stream) for summary in listed]


async def open_streams(services: Services, name: str) -> int:
    listed, _ = await services.log.summaries(name, before=None, limit=1000)
    return sum(summary.status == Status.OPEN for summary in listed)


async def counters(services: Services, name: str) -> list[Item]:
    """The tenant's counters, of all its shards."""
    known = await services.authority.tenants.get(name)
    assert known
    places: list[Item] = [
        {"pk": f"quota#{name}##{n}", "what": "counters"} for n in range(known.policy.shards)
    ]
    store = services.lifecycle.store
    return [await store.get(TENANTS, place) or {} for place in places]


async def check_books(services: Services, name: str, *, streams: int) -> None:
    """All streams have ended; the counters and the audit tell of each of them once."""
    keys = await keys_of(services, name)
    assert len(keys) == streams
    used = 0
    for key in keys:
        closed = await services.log.tail(key)
        assert closed.closes
        usage = closed.body["usage"] or {}
        used += usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        chain = Chain.of(key)
        assert (await services.audit.verify(chain)).fault is None
        # Who read it may be told of after its end.
        entries = (await services.audit.read(chain))[0]
        events = [entry.event for entry in entries if entry.event not in READINGS]
        assert (events[0], events[-1]) == ("started", "closed")
        assert (events.count("started"), events.count("closed")) == (1, 1)
    states = await counters(services, name)
    assert sum(int(state.get("active", 0)) for state in states) == 0
    for kind in ("day:", "month:"):
        counted = [int(v) for s in states for n, v in s.items() if n.startswith(kind)]
        assert sum(counted) == used
