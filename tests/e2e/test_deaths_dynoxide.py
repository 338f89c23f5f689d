"""A process that dies right before or right after any one of its calls, on a real database.

Of a start, of an answer, of an end: whoever comes later closes what is left, and the counters and
the audit tell the truth.
"""

import asyncio
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from functions.wiring import Services
from shared.records import Item, StreamKey
from shared.schema import Table
from shared.settings import Settings
from shared.table import Conflict, DynamoDB, Found, Query, Store, Write
from tests.e2e import dynoxide
from tests.e2e.test_log_dynoxide import (
    METERED,
    check_books,
    counters,
    keys_of,
    produced,
    settle_all,
    start,
    tenant,
)

pytestmark = pytest.mark.e2e

#: A child is a fork of a process that has imported all this and done nothing else.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])
DIED = 17

T = TypeVar("T")

Work = Callable[..., Coroutine[Any, Any, None]]


class Dying:
    """A store whose process dies at its call number `at`: before it is done, or after."""

    def __init__(self, store: Store, at: int, *, done: bool) -> None:
        self._store = store
        self._left = at
        self._done = done

    async def write(self, write: Write) -> Item | None:
        return await self._call(self._store.write(write))

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        return await self._call(self._store.transact(writes, token))

    async def overwrite(self, table: Table, items: Sequence[Item]) -> None:
        return await self._call(self._store.overwrite(table, items))

    async def get(self, table: Table, key: Item) -> Item | None:
        return await self._call(self._store.get(table, key))

    async def query(self, query: Query) -> Found:
        return await self._call(self._store.query(query))

    async def _call(self, call: Coroutine[Any, Any, T]) -> T:
        self._left -= 1
        last = self._left == 0
        if last and not self._done:
            os._exit(DIED)
        result = await call
        if last:
            os._exit(DIED)
        return result


async def start_and_end(services: Services, name: str) -> None:
    """An answer from its start to its end, in the process that started it."""
    await produced(services, await start(services, name, "demo?tokens=3&rate=0"))


async def close_the_dead(services: Services, key: StreamKey) -> None:
    """The end of a stream whose producer has died, by who looks a minute later."""
    store = services.lifecycle.store
    later = Services.on(store, services.settings, now=lambda: time.time() + 60)
    newest = await later.log.tail(key)
    assert newest.closes or (await later.lifecycle.close_abandoned(key, newest)).closes


def _run(work: Work, endpoint: str, at: int, done: bool, about: str | StreamKey) -> None:
    with dynoxide.store(endpoint) as made:
        asyncio.run(work(Services.on(Dying(made, at, done=done), Settings()), about))


async def dies(work: Work, endpoint: str, at: int, about: str | StreamKey, *, done: bool) -> bool:
    """Whether a process of its own that does this work died of its call number `at`."""
    process = FORKS.Process(target=_run, args=(work, endpoint, at, done, about))
    process.start()
    await asyncio.to_thread(process.join, 60)
    process.kill()
    process.join()
    assert process.exitcode in (0, DIED)
    return process.exitcode == DIED


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with dynoxide.database() as address:
        yield address


@pytest.fixture
def real(endpoint: str) -> Iterator[DynamoDB]:
    with dynoxide.store(endpoint) as made:
        yield made


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
async def test_who_dies_at_any_call_of_an_answer_keeps_nothing(
    endpoint: str, real: DynamoDB, done: bool
) -> None:
    name = f"dies-{'after' if done else 'before'}"
    services = await tenant(real, name, limits=METERED)
    begun, active = [], []
    for at in itertools.count(1):
        if not await dies(start_and_end, endpoint, at, name, done=done):
            break
        begun.append(len(await keys_of(services, name)))
        [state] = await counters(services, name)
        active.append(int(state.get("active", 0)))
        # What is held is held by what is there and has not ended: the counters tell nothing else.
        assert active[-1] == len(await still_open(services, name))
        await settle_all(services, name)
    # There were deaths before a stream was there, within it, and behind its end.
    assert begun[0] == 0
    assert set(active) == {0, 1}
    assert active[-1] == (0 if done else 1)
    await check_books(services, name, streams=begun[-1] + 1)


async def still_open(services: Services, name: str) -> list[StreamKey]:
    keys = await keys_of(services, name)
    return [key for key in keys if not (await services.log.tail(key)).closes]


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
async def test_who_dies_at_any_call_of_closing_what_is_dead_leaves_it_to_the_next(
    endpoint: str, real: DynamoDB, done: bool
) -> None:
    name = f"closes-{'after' if done else 'before'}"
    services = await tenant(real, name, limits=METERED)
    for at in itertools.count(1):
        started = await start(services, name, "demo")
        if not await dies(close_the_dead, endpoint, at, started.key, done=done):
            break
        await close_the_dead(services, started.key)
    assert at > 3  # there were the tail, the records, the end
    await check_books(services, name, streams=at)
