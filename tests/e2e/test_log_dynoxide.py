"""One contract for our model of the store and for DynamoDB's protocol; and the log between real
processes on a real database.
"""

import asyncio
import multiprocessing
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.context import SpawnProcess as Process
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from shared.errors import Unavailable
from shared.live import Live
from shared.log import Log, closing
from shared.models import Ask, Message
from shared.models.demo import Demo
from shared.pacing import Pacing
from shared.producer import Producer
from shared.records import FinishReason, Item, Kind, Record, Status, StreamKey
from shared.schema import STREAMS, TENANTS
from shared.starting import cancel
from shared.table import Conflict, Delete, DynamoDB, Put, Query, Store, Update, Write
from tests.e2e import dynoxide
from tests.model_store import ModelStore

pytestmark = pytest.mark.e2e

SPAWN = multiprocessing.get_context("spawn")
BODY = {"model": "demo"}
CLOSING = closing(Status.COMPLETED, FinishReason.STOP)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with dynoxide.database() as address:
        yield address


@pytest.fixture
def real(endpoint: str) -> Iterator[DynamoDB]:
    with dynoxide.store(endpoint) as made:
        yield made


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
    assert await log.close(key, closed) == closed
    asked = [*proxy.lost, *proxy.passed]
    tokens = {t for r in asked for t in re.findall(rb'"ClientRequestToken": ?"(.*?)"', r)}
    assert f"{closed.by}-1".encode() in tokens
    assert len(tokens) == 2  # the opening's, and this one
    assert (await log.summary(key)).last_seq == 1


# Real processes


async def begin(log: Log) -> tuple[StreamKey, Record]:
    key = log.new_key("tenant")
    opened = Record(0, Kind.OPENED, 1, log.now_ms(), log.new_writer(), body=BODY)
    assert await log.open(key, opened) is None
    return key, opened


@contextmanager
def child(work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> Iterator[Process]:
    """A process of its own that does `work` at an endpoint, and is waited for."""
    process = SPAWN.Process(target=_run, args=(work, *args))
    process.start()
    try:
        yield process
        process.join(timeout=30)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()


def _run(work: Callable[..., Coroutine[Any, Any, None]], endpoint: str, *args: object) -> None:
    with dynoxide.store(endpoint) as made:
        asyncio.run(work(Log(made), *args))


async def append_many(log: Log, barrier: Barrier, key: StreamKey, count: int) -> None:
    """Append numbered records, in a race with whoever else does."""
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


async def produce_slowly(log: Log, key: StreamKey, opened: Record) -> None:
    await producer(log, key, "demo?tokens=10000&rate=100", 1, opened.by).run((opened,))


def producer(log: Log, key: StreamKey, model: str, epoch: int, by: str) -> Producer:
    return Producer(
        log,
        Live(),
        key,
        provider=Demo(),
        ask=Ask(model, (Message("user", "Go."),)),
        pacing=Pacing((0, 0), 0),
        throttle=False,
        epoch=epoch,
        by=by,
    )


@pytest.mark.parametrize("closed", [True, False])
async def test_a_producer_that_slept_through_its_succession_writes_nothing(
    endpoint: str, real: DynamoDB, closed: bool
) -> None:
    log = Log(real)
    key, opened = await begin(log)
    with child(produce_slowly, endpoint, key, opened) as sleeper:
        while (await log.tail(key)).seq < 5:
            assert sleeper.is_alive()
            await asyncio.sleep(0.01)
        assert sleeper.pid
        os.kill(sleeper.pid, signal.SIGSTOP)
        successor = log.new_writer()
        known = (await log.read(key)).records
        work = producer(log, key, "demo?tokens=20&rate=0" if closed else "demo", 2, successor)
        production = asyncio.create_task(work.run(known))
        while (newest := await log.tail(key)).by != successor or newest.closes != closed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        os.kill(sleeper.pid, signal.SIGCONT)
        # It finds out by its next write, and its process ends of itself.
        await asyncio.to_thread(sleeper.join, 20)
        assert sleeper.exitcode == 0
        await cancel(log, key)
        await production
    records = (await log.read(key)).records
    assert records[-1].closes
    epoch = next(record.seq for record in records if record.kind == Kind.EPOCH)
    assert {record.by for record in records[:epoch]} == {opened.by}
    later = {record.by for record in records[epoch:] if record.kind != Kind.CANCEL}
    assert later == {successor}


async def cancel_all(log: Log, barrier: Barrier, keys: Sequence[StreamKey]) -> None:
    await asyncio.to_thread(barrier.wait)
    for key in keys:
        await cancel(log, key)


async def test_cancels_that_race_with_the_end_leave_one_end(endpoint: str, real: DynamoDB) -> None:
    log = Log(real)
    streams = [await begin(log) for _ in range(12)]
    barrier = SPAWN.Barrier(4)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(child(cancel_all, endpoint, barrier, [key for key, _ in streams]))
        await asyncio.to_thread(barrier.wait)
        await asyncio.gather(
            *(
                producer(log, key, f"demo?tokens={n}&rate=0", 1, opened.by).run((opened,))
                for n, (key, opened) in enumerate(streams, 1)
            )
        )
    for key, _ in streams:
        records = (await log.read(key)).records
        summary = await log.summary(key)
        assert [record.closes for record in records] == [False] * (len(records) - 1) + [True]
        cancelled = any(record.kind == Kind.CANCEL for record in records)
        assert summary.status == ("cancelled" if cancelled else "completed")
        assert (summary.status, summary.last_seq) == (records[-1].body["status"], records[-1].seq)
