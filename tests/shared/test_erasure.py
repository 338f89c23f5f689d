"""Erasure: what nobody can read any more, and from when on, whatever goes wrong on the way."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from shared import erasure
from shared.audit import TENANT_CHAIN, Actor, Chain
from shared.audit.trail import Audit
from shared.erasure import (
    BATCH,
    DONE_RETENTION_S,
    INDEX_LAG_S,
    PAGE,
    SHELL_RETENTION_S,
    Erasure,
    Erasures,
    encode,
    finish_within,
)
from shared.errors import NotFound, Unavailable
from shared.export import stream_document
from shared.follower import Follower
from shared.lifecycle import Lifecycle
from shared.live import Live
from shared.log import Log, closing
from shared.past import Past
from shared.quotas import Quotas
from shared.records import DAY_S, ERASED_EPOCH, FinishReason, Item, Kind, Status, StreamKey
from shared.schema import STREAMS, TENANTS
from shared.steering import cancel, grant, pause, resume
from shared.table import Found, Query
from shared.takeover import Takeovers
from tests.model_store import ModelStore
from tests.shared.faults import FAULTS, Fate, Killed, Way, once
from tests.simulation.clock import virtual
from tests.simulation.scripted import DONE, TENANT, ScriptedModel, Stage

WHO = Actor(credential="key:admin")
#: It is in the prompt, the metadata and each chunk of a stream.
SECRET = "xyzzy"
CHUNKS = 14
COMPLETED = closing(Status.COMPLETED, FinishReason.STOP, usage={"output_tokens": 1})


class Process:
    """One that erases, with its own way to a stage's store."""

    def __init__(
        self, stage: Stage, fate: Callable[[int], Fate] = lambda _: "ok", **way: Any
    ) -> None:
        self.store = Way(stage.store, fate, **way)
        self.log = Log(self.store, now=stage.now)
        self.audit = Audit(self.store, now=stage.now)
        quotas = Quotas(self.store, now=stage.now)
        self.lifecycle = Lifecycle(self.store, self.log, quotas, self.audit)
        self.takeovers = Takeovers(self.lifecycle, stage.takeovers.launch)
        self.erasures = Erasures(self.lifecycle, self.audit)

    async def begin(self, stage: Stage) -> Erasure:
        return await self.erasures.begin(TENANT, WHO, stream=stage.key.stream)

    async def run(self, job: Erasure) -> Erasure:
        latest = job
        async for latest in self.erasures.run(job):  # noqa: B007
            pass
        return latest

    async def sweep(self) -> list[Erasure]:
        return [await self.run(job) for job in await self.erasures.pending()]


async def begun(chunks: int = CHUNKS, user: str | None = None, stage: Stage | None = None) -> Stage:
    """A running stream that holds the secret, on a stage of its own or one that there is."""
    stage = stage or Stage()
    caller = stage.caller
    if user:
        stage.key = stage.new_key(user)
        caller = stage.caller_by(f"{user}-{stage.key.stream}", user=user)
    messages = [{"role": "user", "content": SECRET}]
    told = {"messages": messages, "metadata": {"about": SECRET}}
    await stage.begin(caller, body=stage.body(caller.identity) | told)
    await stage.write(*(f"{SECRET} {number} " for number in range(chunks)))
    return stage


async def completed(
    chunks: int = CHUNKS, user: str | None = None, stage: Stage | None = None
) -> Stage:
    stage = await begun(chunks, user, stage)
    await stage.close(COMPLETED)
    return stage


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and batches of which a few records make several."""
    monkeypatch.setattr(erasure, "PAGE", 5)
    monkeypatch.setattr(erasure, "BATCH", 2)


def held(stage: Stage, key: StreamKey | None = None) -> dict[int, Item]:
    """What the table holds of a stream, by number; the summary is -1."""
    pk = (key or stage.key).pk
    found = {
        int(item["seq"]): item
        for (table, partition, _), item in stage.store.items.items()
        if (table, partition) == (STREAMS.name, pk)
    }
    return dict(sorted(found.items()))


async def nobody_reads(stage: Stage, key: StreamKey | None = None) -> None:
    """No way of reading finds a stream, wherever it begins."""
    key = key or stage.key
    log, takeovers = stage.log, stage.takeovers
    reads: list[Callable[[], Awaitable[object]]] = [
        *(partial(look, key) for look in (log.tail, log.summary, log.all_records)),
        partial(cancel, stage.lifecycle, key, stage.caller),
        *(partial(steer, takeovers, key, stage.caller) for steer in (grant, resume)),
    ]
    for after in range(-1, max(held(stage, key))):
        follower = Follower(takeovers, Live(), key, after)
        reads += [
            *(partial(log.read, key, after, limit=limit) for limit in (1, 3, 1000)),
            partial(anext, follower.batches()),
            partial(follower.page, limit=2, wait_s=0),
        ]
    for read in reads:
        with pytest.raises(NotFound):
            await read()
    listed, _ = await stage.log.summaries(TENANT, before=None, limit=100)
    assert key.stream not in [summary.stream for summary in listed]
    document = [piece async for piece in stream_document(stage.log, stage.audit, key)]
    assert b"".join(document).endswith(b'"streams":[]}')


def nothing_is_left(stage: Stage, key: StreamKey | None = None) -> None:
    """Of a stream there are its slots, for a day, and nothing else."""
    summary, *shells = held(stage, key).values()
    pk, until = (key or stage.key).pk, int(stage.now()) + SHELL_RETENTION_S
    assert set(summary) == {"pk", "seq", "status", "expires_at"}
    assert shells == [
        {
            "pk": pk,
            "seq": seq,
            "kind": Kind.ERASED,
            "epoch": ERASED_EPOCH,
            "at": shell["at"],
            "by": "",
            "expires_at": shell["expires_at"],
        }
        for seq, shell in enumerate(shells)
    ]
    for item in (summary, *shells):
        assert stage.now() < int(item["expires_at"]) <= until


def test_the_bounds_are_those_of_the_table() -> None:
    assert BATCH <= 25  # BatchWriteItem
    assert PAGE > BATCH


@virtual
async def test_nothing_is_left_of_a_stream_but_its_slots_and_its_audit() -> None:
    stage = await completed()
    before = held(stage)
    process = Process(stage)
    job = await process.begin(stage)
    await nobody_reads(stage)
    done = await process.run(job)
    nothing_is_left(stage)
    await nobody_reads(stage)
    assert held(stage).keys() == before.keys()
    assert SECRET not in repr(stage.store.items)
    assert await stage.audited() == ["started ok", "closed stop", "deleted ok"]
    assert (await stage.entries())[-1].actor == WHO
    assert (await stage.entries())[-1].details == {"seq": CHUNKS + 1}
    assert encode(done) == {
        "id": stage.key.stream,
        "state": "done",
        "stream": stage.key.stream,
        "user": None,
        "streams_erased": 1,
        "created_at": stage.log.now_ms(),
        "done_at": stage.log.now_ms(),
    }
    assert await process.erasures.find(TENANT, job.id) == done
    assert await process.erasures.pending() == []


@virtual
async def test_a_running_stream_is_cancelled_and_closed_first() -> None:
    stage = await begun()
    process = Process(stage)
    await process.run(await process.begin(stage))
    nothing_is_left(stage)
    assert await stage.audited() == ["started ok", "cancelled ok", "closed cancelled", "deleted ok"]
    assert stage.counters()["active"] == 0


@pytest.mark.parametrize("fate", FAULTS)
@pytest.mark.parametrize("running", [True, False])
def test_whatever_goes_wrong_at_any_step_it_comes_to_the_same(
    monkeypatch: pytest.MonkeyPatch, running: bool, fate: Fate
) -> None:
    small(monkeypatch)
    met = 0
    for at in range(200):
        if not _comes_to_the_same(running, fate, at):
            break
        met += 1
    # The whole way had faults on it: reads, the end, the hiding, each batch, the release, the job.
    assert met > 20


def _comes_to_the_same(running: bool, fate: Fate, at: int) -> bool:
    """Erase with one fault at the call of this number. Whether there was that call."""
    met = False

    @virtual
    async def scenario() -> None:
        nonlocal met
        stage = await begun() if running else await completed()
        process = Process(stage, once(fate, at))
        answered = False
        try:
            job = await process.begin(stage)
            answered = True
            await nobody_reads(stage)
            await process.run(job)
        except (Unavailable, Killed):
            pass
        met = process.store.calls > at
        if not answered:
            # The client was told nothing that it can rely on, and asks again.
            await Process(stage).begin(stage)
        await nobody_reads(stage)
        await Process(stage).sweep()
        nothing_is_left(stage)
        await nobody_reads(stage)
        assert SECRET not in repr(stage.store.items)
        ended = ["cancelled ok", "closed cancelled"] if running else ["closed stop"]
        assert await stage.audited() == ["started ok", *ended, "deleted ok"]
        assert stage.counters()["active"] == 0
        assert await Process(stage).erasures.pending() == []
        job = await Process(stage).erasures.find(TENANT, stage.key.stream)
        assert (job.streams, job.done_at is not None) == (1, True)

    scenario()
    return met


@virtual
async def test_once_hidden_nobody_reads_at_any_moment_of_what_follows() -> None:
    stage = await completed(3 * BATCH)
    process = Process(stage)
    job = await process.begin(stage)
    moments: list[dict[Any, Item]] = []
    process.store.after = lambda: moments.append(dict(stage.store.items))
    await process.run(job)
    assert len(moments) > 5
    for moment in moments:
        then = Stage()
        then.key = stage.key
        then.store.items |= moment
        await nobody_reads(then)


@virtual
async def test_a_page_that_does_not_reach_the_end_of_a_hidden_stream_shows_nothing() -> None:
    """Else the text of a long stream could be read while it waits to be overwritten."""
    stage = await completed(50)
    await Process(stage).begin(stage)
    assert SECRET in repr(held(stage)[7])
    for limit in (1, 10, 49):
        with pytest.raises(NotFound):
            await stage.log.read(stage.key, 3, limit=limit)


# Again, and at once


@virtual
async def test_erasing_again_tells_of_the_first_time() -> None:
    stage = await completed()
    process = Process(stage)
    first = await process.begin(stage)
    await asyncio.sleep(1)
    assert await Process(stage).begin(stage) == first
    done = await process.run(first)
    await asyncio.sleep(1)
    assert await Process(stage).begin(stage) == done
    assert await Process(stage).run(first) == done
    calls = process.store.calls
    assert await finish_within(process.erasures, done, 1.0) == done
    assert process.store.calls == calls
    assert (await stage.audited()).count("deleted ok") == 1
    kept = stage.store.items[TENANTS.name, f"erased#{TENANT}", stage.key.stream]
    assert kept["expires_at"] == int(stage.now()) - 1 + DONE_RETENTION_S


@virtual
async def test_what_is_not_there_cannot_be_erased() -> None:
    stage = await completed()
    unknown = stage.new_key()
    before = dict(stage.store.items)
    with pytest.raises(NotFound, match=unknown.stream):
        await Process(stage).erasures.begin(TENANT, WHO, stream=unknown.stream)
    with pytest.raises(NotFound):
        await Process(stage).erasures.begin("other", WHO, stream=stage.key.stream)
    with pytest.raises(NotFound):
        await Process(stage).erasures.find(TENANT, stage.key.stream)
    assert stage.store.items == before


@pytest.mark.parametrize("seed", range(40))
def test_many_may_erase_a_stream_at_once(seed: int) -> None:
    dice = random.Random(seed)

    def fate(_: int) -> Fate:
        return dice.choice(FAULTS) if dice.random() < 0.04 else "ok"

    @virtual
    async def scenario() -> None:
        stage = await begun()

        async def erase() -> None:
            await asyncio.sleep(dice.uniform(0, 0.05))
            process = Process(stage, fate, delay_s=lambda: dice.uniform(0, 0.02))
            with suppress(Unavailable, Killed):
                job = await process.begin(stage)
                await nobody_reads(stage)
                await process.run(job)

        production = stage.start(ScriptedModel("one ", 0.05, "two ", 0.05, "three ", 0.1, DONE))
        await asyncio.gather(*(erase() for _ in range(4)))
        await Process(stage).run(await Process(stage).begin(stage))
        await Process(stage).sweep()
        await production
        nothing_is_left(stage)
        await nobody_reads(stage)
        audited = await stage.audited()
        assert audited.count("deleted ok") == 1
        assert len([told for told in audited if told.startswith("closed")]) == 1
        assert audited.count("cancelled ok") <= 1
        assert stage.counters()["active"] == 0

    scenario()


# Who has slept through it


@pytest.mark.parametrize("asleep_at", range(8))
@virtual
async def test_a_producer_that_slept_through_it_writes_nothing(asleep_at: int) -> None:
    """Wherever it was: before a chunk, behind one, before the end."""
    stage = await begun(0)
    asleep = Process(stage)
    stage.lifecycle, awake = asleep.lifecycle, stage.lifecycle
    production = stage.start(ScriptedModel("one ", 0.1, "two ", 0.1, "three ", 0.1, DONE))
    await asyncio.sleep(0.05 * asleep_at)
    asleep.store.open.clear()
    await asyncio.sleep(1)
    process = Process(stage)
    await process.run(await process.begin(stage))
    stage.lifecycle = awake
    nothing_is_left(stage)
    before, writes = dict(stage.store.items), stage.store.writes
    asleep.store.open.set()
    await production
    assert stage.store.items == before
    assert stage.store.writes == writes
    assert stage.counters()["active"] == 0


@virtual
async def test_who_follows_beside_the_producer_is_shown_no_shell() -> None:
    stage = await begun(0)
    production = stage.start(ScriptedModel("one ", 3, "two ", DONE))
    shown: list[str] = []

    async def follow() -> None:
        async for records in Follower(stage.takeovers, stage.live, stage.key).batches():
            shown.extend(record.kind for record in records)

    following = asyncio.create_task(follow())
    await asyncio.sleep(1)
    process = Process(stage)
    await process.run(await process.begin(stage))
    await production
    with pytest.raises(NotFound):
        await following
    assert shown == [Kind.OPENED, Kind.TEXT]


@virtual
async def test_a_producer_that_waits_for_a_grant_finds_nothing_and_stops() -> None:
    stage = await begun(0)
    production = stage.start(ScriptedModel("one ", 20, "two ", 60, DONE))
    await asyncio.sleep(1)
    await stage.revoke(stage.caller)
    await asyncio.sleep(30)
    assert (await stage.log.tail(stage.key)).kind == Kind.PAUSE
    process = Process(stage)
    await process.run(await process.begin(stage))
    before = dict(stage.store.items)
    await production
    assert stage.store.items == before


@virtual
async def test_a_producer_that_would_pause_finds_nothing_and_stops() -> None:
    stage = await begun(0)
    production = stage.start(ScriptedModel("one ", 20, "two ", 60, DONE))
    await asyncio.sleep(21)
    await stage.revoke(stage.caller)
    process = Process(stage)
    await process.run(await process.begin(stage))
    before = dict(stage.store.items)
    await production
    assert stage.store.items == before


@pytest.mark.parametrize("control", [cancel, pause, grant, resume])
@pytest.mark.parametrize("calls", range(5))
@virtual
async def test_a_control_that_slept_through_it_changes_nothing(
    control: Callable[..., Any], calls: int
) -> None:
    """Behind a stream's end there are free slots, and one that is taken must not send it there."""
    stage = await begun()
    asleep = Process(stage)

    def fall_asleep() -> None:
        if asleep.store.calls > calls:
            asleep.store.open.clear()

    asleep.store.after = fall_asleep
    if not calls:
        asleep.store.open.clear()
    steered = asleep.lifecycle if control in (cancel, pause) else asleep.takeovers
    steering = asyncio.create_task(control(steered, stage.key, stage.caller))
    await asyncio.sleep(1)
    process = Process(stage)
    await process.run(await process.begin(stage))
    slots = held(stage)
    asleep.store.after = lambda: None
    asleep.store.open.set()
    with suppress(NotFound):
        # It was done before the stream was erased, or it is told that there is none.
        assert (await steering).seq in slots
    assert held(stage) == slots
    assert (await stage.audited())[-1] == "deleted ok"


@virtual
async def test_a_follower_in_another_process_finds_nothing_more() -> None:
    stage = await begun(5)
    process = Process(stage)
    batches = Follower(process.takeovers, Live(), stage.key).batches()
    seen = await anext(batches)
    assert SECRET in seen[-1].text
    await stage.write(*[SECRET] * 1500)  # more than a page
    job = await process.begin(stage)
    with pytest.raises(NotFound):
        await anext(batches)
    await process.run(job)


async def take_over(stage: Stage, process: Process, dice: random.Random) -> None:
    """A producer of the next epoch that goes on behind whatever it has read, also a cancel.

    It obeys the cancel that it loses its slot to, as a producer does; every other record stops it.
    """
    log, key, by = process.log, stage.key, process.log.new_writer()
    with suppress(NotFound, Unavailable, Killed):
        newest = await log.tail(key)
        await asyncio.sleep(dice.choice((0, 0.01, 1)))
        epoch, kind = newest.epoch + 1, Kind.EPOCH
        while not newest.closes:
            record = stage.record(newest.seq + 1, kind, epoch=epoch, by=by)
            if kind == Kind.TEXT:
                record = replace(record, text=SECRET)
            newest, kind = await log.append(key, record), Kind.TEXT
            if newest.kind == Kind.CANCEL:
                body = closing(Status.CANCELLED, FinishReason.CANCELLED)
                closed = stage.record(newest.seq + 1, Kind.CLOSED, epoch=epoch, by=by, body=body)
                await process.lifecycle.close(key, Past.of((stage.opened,)), closed)
                return
            if newest.by != by:
                return
            await asyncio.sleep(dice.uniform(0, 0.02))


@pytest.mark.parametrize("seed", range(60))
def test_producers_may_take_over_at_any_moment_of_an_erasure(seed: int) -> None:
    dice = random.Random(seed)

    def fate(_: int) -> Fate:
        return dice.choice(FAULTS) if dice.random() < 0.02 else "ok"

    def slowly() -> float:
        return dice.choice((0, 0.001, 0.01))

    @virtual
    async def scenario() -> None:
        stage = await begun()

        async def later() -> None:
            await asyncio.sleep(dice.uniform(0, 0.2))
            await take_over(stage, Process(stage, delay_s=slowly), dice)

        takers = [asyncio.create_task(later()) for _ in range(5)]
        await asyncio.sleep(dice.uniform(0, 0.1))
        process = Process(stage, fate, delay_s=slowly)
        with suppress(Unavailable, Killed):
            await process.run(await process.begin(stage))
        await Process(stage).begin(stage)
        await nobody_reads(stage)
        await Process(stage).sweep()
        nothing_is_left(stage)
        slots = held(stage)
        # Some have read the log before all this, and write now.
        await asyncio.gather(*takers)
        assert held(stage) == slots
        assert SECRET not in repr(stage.store.items)
        audited = await stage.audited()
        assert audited.count("closed cancelled") == audited.count("deleted ok") == 1
        assert stage.counters()["active"] == 0

    scenario()


# Streams that are odd


@virtual
async def test_a_long_stream_is_erased_in_batches() -> None:
    stage = await completed(1498)
    process = Process(stage)
    job = await process.begin(stage)
    calls = process.store.calls
    await process.run(job)
    nothing_is_left(stage)
    # 16 pages, 60 batches, and what frames them.
    assert process.store.calls - calls <= 16 + 60 + 8


@virtual
async def test_what_was_overwritten_before_is_not_written_again() -> None:
    stage = await completed(1500)
    first = Process(stage, once("die", 50))
    with pytest.raises(Killed):
        await first.run(await first.begin(stage))
    left = [item for item in held(stage).values() if SECRET in repr(item)]
    assert 500 < len(left) < 1000
    writes = stage.store.writes
    await Process(stage).sweep()
    nothing_is_left(stage)
    # What was left, the end, the release and the job.
    assert stage.store.writes - writes <= len(left) + 5


@virtual
async def test_the_end_of_a_stream_stays_covered_until_all_else_is() -> None:
    """Who overwrites may be away for longer than a shell is kept."""
    stage = await completed()
    process = Process(stage)
    await process.begin(stage)
    assert held(stage)[CHUNKS + 1]["expires_at"] == stage.key.expires_at
    assert held(stage)[-1]["expires_at"] == stage.key.expires_at
    await asyncio.sleep(2 * DAY_S)
    remove_expired(stage)
    await nobody_reads(stage)
    await process.sweep()
    nothing_is_left(stage)


def remove_expired(stage: Stage, dice: random.Random | None = None) -> None:
    """What the table does some time after items have expired; or a part of it, in any order."""
    for key, item in list(stage.store.items.items()):
        if int(item.get("expires_at", stage.now() + 1)) <= stage.now():  # noqa: SIM102
            if dice is None or dice.random() < 0.5:
                del stage.store.items[key]


@virtual
async def test_a_list_goes_on_behind_what_is_hidden() -> None:
    """Its index still holds that; and a page of nothing would look like the end."""
    stage, keys = await populated(*[None] * 5)
    process = Process(stage)
    for key in keys[2:]:
        await process.erasures.begin(TENANT, WHO, stream=key.stream)
    listed, more = await stage.log.summaries(TENANT, before=None, limit=1)
    assert ([summary.stream for summary in listed], more) == ([keys[1].stream], True)
    listed, more = await stage.log.summaries(TENANT, before=keys[1].stream, limit=1)
    assert [summary.stream for summary in listed] == [keys[0].stream]


# What has expired


@pytest.mark.parametrize("seed", range(20))
def test_what_is_left_of_an_expired_stream_goes_with_its_user(seed: int) -> None:
    """The table has removed some of it, in any order: there are gaps, perhaps no summary."""
    dice = random.Random(seed)

    @virtual
    async def scenario() -> None:
        stage = await completed(user="ann")
        await asyncio.sleep(30 * DAY_S + 1)
        remove_expired(stage, dice)
        job = await Process(stage).erasures.begin(TENANT, WHO, user="ann")
        await asyncio.sleep(INDEX_LAG_S)
        behind = Behind(stage)  # also where the index still shows what the table has removed
        behind.store.shown |= {(STREAMS.name, stage.key.pk, -1): a_summary(stage)}
        process, behind.store._delay_s = Process(stage), lambda: 0.01
        process.store._delay_s = lambda: 0.01
        await asyncio.gather(behind.run(job), process.run(job))
        assert (await behind.erasures.find(TENANT, job.id)).done_at
        assert SECRET not in repr(stage.store.items)
        assert all(item.get("kind", "erased") == "erased" for item in held(stage).values())
        # It had come to its end: nothing was cancelled, and nothing closed again.
        assert await stage.audited() in (
            ["started ok", "closed stop", "deleted ok"],
            ["started ok", "closed stop"],
        )

    scenario()


class LaggingWay(Way):
    """A way on which the indexes are behind: they show `shown`."""

    shown: dict[Any, Item]

    async def query(self, query: Query) -> Found:
        if query.index:
            return ModelStore().query_now(self.shown, query)
        return await super().query(query)


class Behind(Process):
    """A process for which the indexes are as they were when it was made, until told."""

    store: LaggingWay

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.store.__class__ = LaggingWay
        self.store.shown = dict(stage.store.items)


def a_summary(stage: Stage) -> Item:
    key = stage.key
    summary: Item = {"pk": key.pk, "seq": -1, "tenant": TENANT, "stream": key.stream}
    about: Item = {"owner": f"{TENANT}#ann", "status": "completed", "model": "m", "created_at": 1}
    return summary | about


@virtual
async def test_the_end_of_an_expired_stream_is_not_looked_for() -> None:
    """A record in its midst may be the last one that the table has left."""
    stage = await completed(user="ann")
    await asyncio.sleep(30 * DAY_S + 1)
    del stage.store.items[STREAMS.name, stage.key.pk, CHUNKS + 1]
    job = await Process(stage).erasures.begin(TENANT, WHO, user="ann")
    await Process(stage).run(job)
    assert await stage.audited() == ["started ok", "closed stop", "deleted ok"]
    assert max(held(stage)) == CHUNKS


@virtual
async def test_an_expired_stream_that_never_ended_is_erased_and_not_ended() -> None:
    """Nobody can settle it any more, and its records must not be there for ever either."""
    stage = await begun(user="ann")
    await asyncio.sleep(30 * DAY_S + 1)
    del stage.store.items[STREAMS.name, stage.key.pk, 0]  # what it holds was in that
    job = await Process(stage).erasures.begin(TENANT, WHO, user="ann")
    await asyncio.sleep(INDEX_LAG_S)
    done = await Process(stage).run(job)
    assert (done.streams, done.done_at is not None) == (1, True)
    assert SECRET not in repr(stage.store.items)
    assert await stage.audited() == ["started ok", "deleted ok"]


@virtual
async def test_what_is_closed_before_its_retention_ends_is_settled() -> None:
    stage = await begun(user="ann")
    await asyncio.sleep(30 * DAY_S - 60)
    assert await stage.takeovers.tend(stage.key, DAY_S) == "closed"
    await asyncio.sleep(120)
    job = await Process(stage).erasures.begin(TENANT, WHO, user="ann")
    await Process(stage).run(job)
    assert stage.counters()["active"] == 0
    assert await stage.audited() == ["started ok", "closed error", "deleted ok"]


# Users and tenants


async def populated(*users: str | None, chunks: int = 3) -> tuple[Stage, list[StreamKey]]:
    """A stage with a completed stream of each of these users, a second apart."""
    stage, keys = Stage(), []
    for user in users:
        await asyncio.sleep(1)
        stage.key = stage.new_key(user)
        keys.append((await completed(chunks, user, stage)).key)
    return stage, keys


def is_erased(stage: Stage, key: StreamKey) -> bool:
    return SECRET not in repr(held(stage, key))


@virtual
async def test_a_user_is_erased_and_nobody_else() -> None:
    stage, (anns, bobs, nobodys, anns_too) = await populated("ann", "bob", None, "ann")
    process = Process(stage)
    job = await process.erasures.begin(TENANT, WHO, user="ann")
    await asyncio.sleep(1)
    later = (await completed(user="ann", stage=stage)).key
    states = [state async for state in process.erasures.run(job)]
    assert [state.streams for state in states] == [1, 2]
    assert [is_erased(stage, key) for key in (anns, bobs, nobodys, anns_too, later)] == [
        *(True, False, False),
        *(True, False),
    ]
    for key in (anns, anns_too):
        await nobody_reads(stage, key)
        nothing_is_left(stage, key)
    assert encode(await process.erasures.find(TENANT, job.id)) == {
        "id": job.id,
        "state": "running",
        "stream": None,
        "user": "ann",
        "streams_erased": 2,
        "created_at": job.created_at,
        "done_at": None,
    }
    await asyncio.sleep(INDEX_LAG_S)
    [done] = await process.sweep()
    assert (done.streams, done.done_at) == (2, stage.log.now_ms())
    assert not is_erased(stage, later)


@virtual
async def test_that_a_user_was_erased_and_by_whom_is_told_on_the_tenants_chain() -> None:
    stage, [key] = await populated("ann")
    process = Process(stage)
    job = await process.erasures.begin(TENANT, WHO, user="ann")
    entries, _ = await stage.audit.read(Chain(TENANT, TENANT_CHAIN))
    assert [(e.event, e.actor, e.details) for e in entries] == [
        ("deleted", WHO, {"user": "ann", "erasure": job.id})
    ]
    # Whoever carries it on does so in the name of who has asked.
    await process.sweep()
    assert (await stage.audit.read(Chain.of(key)))[0][-1].actor == WHO


@virtual
async def test_a_tenant_is_erased_whole_and_no_other() -> None:
    stage, keys = await populated("ann", None, "bob")
    others = stage.log.new_key("other", bytes(5), 30)
    opened = stage.record(0, Kind.OPENED, body=stage.body())
    assert await stage.log.open(others, opened) is None
    process = Process(stage)
    job = await process.erasures.begin(TENANT, WHO)
    await asyncio.sleep(INDEX_LAG_S)
    done = await process.run(job)
    assert (done.streams, done.stream, done.user) == (3, None, None)
    assert all(is_erased(stage, key) for key in keys)
    assert held(stage, others)[0]["kind"] == "opened"
    assert await stage.log.summaries(TENANT, before=None, limit=9) == ([], False)


@virtual
async def test_a_stream_that_the_index_does_not_show_yet_is_found_later() -> None:
    stage, keys = await populated("ann", "ann")
    process = Behind(stage)
    newest = keys[1]
    del process.store.shown[STREAMS.name, newest.pk, -1]
    job = await process.erasures.begin(TENANT, WHO, user="ann")
    assert (await process.run(job)).done_at is None
    assert [is_erased(stage, key) for key in keys] == [True, False]
    await asyncio.sleep(INDEX_LAG_S)
    [done] = await Process(stage).sweep()
    assert (done.streams, done.done_at is not None) == (2, True)
    assert all(is_erased(stage, key) for key in keys)


@virtual
async def test_a_look_that_began_early_is_not_trusted_however_late_it_ends() -> None:
    stage, keys = await populated("ann", "ann")
    process = Behind(stage)
    del process.store.shown[STREAMS.name, keys[1].pk, -1]
    job = await process.erasures.begin(TENANT, WHO, user="ann")
    process.store._delay_s = lambda: INDEX_LAG_S  # each call of it takes two minutes
    assert (await process.run(job)).done_at is None
    assert [job.done_at for job in await Process(stage).sweep()] == [stage.log.now_ms()]
    assert all(is_erased(stage, key) for key in keys)


@pytest.mark.parametrize("fate", FAULTS)
def test_a_user_is_counted_exactly_whatever_goes_wrong(
    monkeypatch: pytest.MonkeyPatch, fate: Fate
) -> None:
    small(monkeypatch)
    met = 0
    for at in range(200):
        if not _is_counted_exactly(fate, at):
            break
        met += 1
    assert met > 25


def _is_counted_exactly(fate: Fate, at: int) -> bool:
    met = False

    @virtual
    async def scenario() -> None:
        nonlocal met
        stage, keys = await populated("ann", "ann", "ann", chunks=2)
        job = await Process(stage).erasures.begin(TENANT, WHO, user="ann")
        await asyncio.sleep(INDEX_LAG_S)
        process = Process(stage, once(fate, at))
        with suppress(Unavailable, Killed):
            await process.run(job)
        met = process.store.calls > at
        await Process(stage).sweep()
        done = await Process(stage).erasures.find(TENANT, job.id)
        assert (done.streams, done.done_at is not None) == (3, True)
        assert await Process(stage).erasures.pending() == []
        for key in keys:
            stage.key = key
            nothing_is_left(stage)
            assert await stage.audited() == ["started ok", "closed stop", "deleted ok"]

    scenario()
    return met


@virtual
async def test_a_stream_that_cannot_be_erased_keeps_the_job_waiting_and_not_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage, keys = await populated("ann", "ann", "ann")
    whole = held(stage, keys[1])[-1]
    stage.store.items[STREAMS.name, keys[1].pk, -1] = whole | {"last_seq": 99}
    process = Process(stage)
    job = await process.erasures.begin(TENANT, WHO, user="ann")
    await asyncio.sleep(INDEX_LAG_S)
    with pytest.raises(Unavailable):
        await process.run(job)
    assert [is_erased(stage, key) for key in keys] == [True, False, True]
    assert (await process.erasures.find(TENANT, job.id)).streams == 2
    assert [record.__dict__["stream"] for record in caplog.records] == [keys[1].stream]
    stage.store.items[STREAMS.name, keys[1].pk, -1] = whole
    [done] = await process.sweep()
    assert (done.streams, done.done_at is not None) == (3, True)


@pytest.mark.parametrize("seed", range(20))
def test_users_and_streams_are_erased_by_many_at_once_and_counted_once(seed: int) -> None:
    dice = random.Random(seed)

    def fate(_: int) -> Fate:
        return dice.choice(FAULTS) if dice.random() < 0.02 else "ok"

    @virtual
    async def scenario() -> None:
        stage, keys = await populated(*["ann"] * 5)
        job = await Process(stage).erasures.begin(TENANT, WHO, user="ann")
        await asyncio.sleep(INDEX_LAG_S)

        async def carry_on() -> None:
            process = Process(stage, fate, delay_s=lambda: dice.uniform(0, 0.02))
            with suppress(Unavailable, Killed):
                await process.run(job)

        await asyncio.gather(*(carry_on() for _ in range(3)))
        await Process(stage).sweep()
        done = await Process(stage).erasures.find(TENANT, job.id)
        assert (done.streams, done.done_at is not None) == (5, True)
        for key in keys:
            stage.key = key
            nothing_is_left(stage)
            assert await stage.audited() == ["started ok", "closed stop", "deleted ok"]

    scenario()


@virtual
async def test_the_entry_of_an_erasure_is_kept_for_as_long_as_the_others() -> None:
    stage = Stage(audit_retention_days=3)
    await completed(user="ann", stage=stage)
    await asyncio.sleep(DAY_S)
    await Process(stage).begin(stage)
    last = (await stage.entries())[-1]
    assert last.expires_at == last.at // 1000 + 3 * DAY_S


# Jobs


@virtual
async def test_every_job_that_is_not_done_is_found() -> None:
    stage = Stage()
    process = Process(stage)
    jobs = [await process.erasures.begin(TENANT, WHO, user=f"u{n}") for n in range(2 * PAGE + 1)]
    found = await process.erasures.pending()
    assert sorted(job.id for job in found) == sorted(job.id for job in jobs)
    assert {job.user for job in found} == {job.user for job in jobs}
    await asyncio.sleep(INDEX_LAG_S)
    await process.sweep()
    assert await process.erasures.pending() == []
    assert not [key for key in stage.store.items if key[1] == "#erasures"]


@virtual
async def test_a_request_waits_for_as_long_as_it_may() -> None:
    stage = await completed(100)
    process = Process(stage, delay_s=lambda: 0.1)
    job = await process.begin(stage)
    began = stage.now()
    assert (await finish_within(process.erasures, job, 1.0)).done_at is None
    assert stage.now() - began == pytest.approx(1.0)
    await nobody_reads(stage)
    assert (await finish_within(process.erasures, job, 60.0)).done_at is not None


@virtual
async def test_a_request_does_not_fail_with_the_store() -> None:
    stage = await completed()
    process = Process(stage)
    job = await process.begin(stage)
    stuck = Process(stage, lambda _: "fail")
    assert await finish_within(stuck.erasures, job, 60.0) == job


@virtual
async def test_a_state_that_was_done_is_forgotten_after_a_while() -> None:
    stage = await completed()
    process = Process(stage)
    await process.run(await process.begin(stage))
    await asyncio.sleep(DONE_RETENTION_S + 1)
    remove_expired(stage)
    with pytest.raises(NotFound):
        await process.erasures.find(TENANT, stage.key.stream)
    assert held(stage) == {}
    with pytest.raises(NotFound):
        await process.begin(stage)
