"""The `sweep` function: erasures go on until its time is over, and none keeps another waiting."""

import asyncio
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from functions import sweep as function
from functions.sweep import EVERY_S, REST_S, Done, sweep
from shared.audit import Actor
from shared.erasure import INDEX_LAG_S, PAGE, Erasure
from shared.errors import Unavailable
from shared.records import StreamKey
from shared.schema import OPEN_SHARDS, Table
from tests.functions.conftest import Sluice, begin, by, running, start_body
from tests.simulation.clock import VirtualLoop, virtual

WHO = Actor(credential="key:admin")
SECRET = "xyzzy"


async def answered(sluice: Sluice, key: str = "demo", tenant: str = "demo") -> StreamKey:
    """A stream that has come to its end."""
    messages = [{"role": "user", "content": SECRET}]
    body = start_body("demo?tokens=2&rate=0", messages=messages)
    answer = await sluice.stream.post("/v1/streams", json=body, headers=by(key))
    return StreamKey(tenant, answer.headers["stream-id"])


async def user_with_streams(sluice: Sluice, user: str, streams: int = 1) -> list[StreamKey]:
    await sluice.add_key(f"{user}'s", user=user)
    return [await answered(sluice, f"{user}'s") for _ in range(streams)]


async def asked(sluice: Sluice, *, stream: StreamKey | None = None, user: str = "") -> Erasure:
    """An erasure that was begun and not carried on."""
    erasures = sluice.services.erasures
    if stream:
        return await erasures.begin(stream.tenant, WHO, stream=stream.stream)
    return await erasures.begin("demo", WHO, user=user)


async def swept(sluice: Sluice, seconds: float = EVERY_S) -> int:
    """How many erasures were finished."""
    return (await sweep(sluice.services, deadline=now_s() + seconds))["erased"]


def now_s() -> float:
    return asyncio.get_running_loop().time()


def left(sluice: Sluice, *keys: StreamKey) -> int:
    """In how many items of these streams there is something to read."""
    pks = [key.pk for key in keys]
    return sum(
        SECRET in repr(i) or "text" in i for i in sluice.store.items.values() if i["pk"] in pks
    )


def slowed(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch, delay_s: Callable[[str], float]
) -> None:
    """Let overwriting take its time, or fail where that is negative, by the partition."""
    overwrite = sluice.store.overwrite

    async def slow(table: Table, items: Any) -> None:
        seconds = delay_s(str(items[0]["pk"]))
        if seconds < 0:
            raise Unavailable
        await asyncio.sleep(seconds)
        await overwrite(table, items)

    monkeypatch.setattr(sluice.store, "overwrite", slow)


@virtual
async def test_what_was_begun_is_done_and_there_is_nothing_more_to_do() -> None:
    async with running() as sluice:
        alone = await answered(sluice)
        [adas] = await user_with_streams(sluice, "ada")
        await asked(sluice, stream=alone)
        await asked(sluice, user="ada")
        assert await swept(sluice) == 1
        assert left(sluice, alone, adas) == 0
        await asyncio.sleep(INDEX_LAG_S)
        assert await swept(sluice) == 1
        assert await sluice.services.erasures.pending() == []
        reads, writes = sluice.store.reads, sluice.store.writes
        assert await swept(sluice) == 0
        assert (sluice.store.reads - reads, sluice.store.writes - writes) == (1 + OPEN_SHARDS, 0)


@virtual
async def test_it_is_done_in_the_name_of_who_has_asked() -> None:
    async with running() as sluice:
        [key] = await user_with_streams(sluice, "ada")
        await asked(sluice, user="ada")
        await swept(sluice)
        assert (await sluice.audit(key.stream))[-1].actor == WHO


@virtual
async def test_a_run_ends_in_time_within_one_long_stream_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as sluice:
        key = (await begin(sluice.services, chunks=1000)).key
        await asked(sluice, stream=key)
        slowed(sluice, monkeypatch, lambda _: 5)
        before = left(sluice, key)
        runs = 0
        while not (done := await timely(sluice)):
            runs += 1
            assert left(sluice, key) < before
            before = left(sluice, key)
        assert (done, left(sluice, key)) == (1, 0)
        # 41 batches of 5 s, in turns of 10 s; each loses the batch that it was at.
        assert 7 <= runs <= 20


async def timely(sluice: Sluice) -> int:
    began = now_s()
    done = await swept(sluice, 33)
    assert now_s() - began <= 33 - REST_S
    return done


@virtual
async def test_a_job_that_takes_for_ever_keeps_no_other_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as sluice:
        endless = await user_with_streams(sluice, "ada", 10)
        short = [await answered(sluice) for _ in range(10)]
        await asked(sluice, user="ada")
        for key in short:
            await asked(sluice, stream=key)
        slow = {key.pk for key in endless}
        slowed(sluice, monkeypatch, lambda pk: 9.0 if pk in slow else 0.1)
        # It has the first turn.
        monkeypatch.setattr("random.shuffle", lambda jobs: jobs.sort(key=lambda job: not job.user))
        began = now_s()
        assert await swept(sluice) == 10
        assert now_s() - began <= EVERY_S - REST_S
        assert left(sluice, *short) == 0
        assert left(sluice, *endless) > 0
        assert any(left(sluice, key) == 0 for key in endless)


@virtual
async def test_nor_do_many_jobs_that_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than have a turn in one run, and all of them before it in the table."""
    async with running() as sluice:
        for number in range(20):
            await user_with_streams(sluice, f"user {number}")
            await asked(sluice, user=f"user {number}")
        last = await answered(sluice, "other", "other")
        await asked(sluice, stream=last)
        slowed(sluice, monkeypatch, lambda pk: 0.0 if pk == last.pk else 1000.0)
        random.seed(1)
        runs = 0
        while left(sluice, last):
            runs += 1
            assert runs < 50
            await swept(sluice)


@pytest.mark.parametrize("error", [Unavailable, KeyError])
@virtual
async def test_a_job_that_fails_keeps_no_other_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    async with running() as sluice:
        broken, *others = [await answered(sluice) for _ in range(8)]
        for key in (broken, *others):
            await asked(sluice, stream=key)

        def fate(pk: str) -> float:
            if pk == broken.pk:
                raise error
            return 0.0

        slowed(sluice, monkeypatch, fate)
        caplog.clear()
        assert await swept(sluice) == 7
        assert left(sluice, *others) == 0
        assert [r.__dict__["error"] for r in caplog.records] == [error.__name__]
        [pending] = await sluice.services.erasures.pending()
        assert pending.stream == broken.stream


@virtual
async def test_a_stream_that_fails_keeps_no_other_of_its_user_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as sluice:
        keys = await user_with_streams(sluice, "ada", 5)
        job = await asked(sluice, user="ada")
        await asyncio.sleep(INDEX_LAG_S)
        slowed(sluice, monkeypatch, lambda pk: -1 if pk == keys[2].pk else 0)
        assert await swept(sluice) == 0
        assert [left(sluice, key) > 0 for key in keys] == [False, False, True, False, False]
        slowed(sluice, monkeypatch, lambda _: 0)
        monkeypatch.undo()
        assert await swept(sluice) == 1
        assert (await sluice.services.erasures.find("demo", job.id)).streams == 5


@virtual
async def test_any_number_of_jobs_is_looked_at() -> None:
    async with running() as sluice:
        for number in range(2 * PAGE + 10):
            await asked(sluice, user=f"user {number}")
        await asyncio.sleep(INDEX_LAG_S)
        assert await swept(sluice) == 2 * PAGE + 10
        assert await sluice.services.erasures.pending() == []


@virtual
async def test_two_runs_at_once_do_it_once() -> None:
    async with running() as sluice:
        keys = await user_with_streams(sluice, "ada", 5)
        job = await asked(sluice, user="ada")
        await asyncio.sleep(INDEX_LAG_S)
        await asyncio.gather(swept(sluice), swept(sluice))
        assert (await sluice.services.erasures.find("demo", job.id)).streams == 5
        for key in keys:
            assert [e.event for e in await sluice.audit(key.stream)].count("deleted") == 1


@virtual
async def test_that_nobody_knows_what_to_do_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as sluice:

        async def failing(_: object) -> None:
            raise Unavailable

        monkeypatch.setattr(sluice.store, "query", failing)
        with pytest.raises(Unavailable):
            await swept(sluice)


@pytest.mark.parametrize("remaining_s", [300, 30])
def test_an_invocation_ends_before_the_next_one_and_before_its_time(
    monkeypatch: pytest.MonkeyPatch, remaining_s: int
) -> None:
    deadlines = []

    async def noting(_: object, *, deadline: float) -> Done:
        deadlines.append(deadline - now_s())
        return Done()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        monkeypatch.setattr(function, "_process", lambda: (None, runner))
        monkeypatch.setattr(function, "sweep", noting)
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: remaining_s * 1000)
        function.handler({}, context)
    assert deadlines == [min(remaining_s, EVERY_S)]
