"""The `sweep` function: on a schedule, it finishes what others have left half done."""

import asyncio
import functools
import random
from collections import Counter, deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

from functions.wiring import Services, without_texts
from shared.erasure import Erasure
from shared.errors import NotFound
from shared.logger import logger
from shared.metrics import SWEEP
from shared.records import StreamKey
from shared.schema import OPEN_SHARDS
from shared.tenants import Policy

#: How often it is run. A run ends before the next one begins, whatever time its invocation has.
EVERY_S = 60.0
#: What is left of an invocation when no more work is taken on, and when all work is put down.
MARGIN_S = 10.0
REST_S = 5.0
#: For how long one job is worked on before the next one has its turn.
TURN_S = 10.0
#: The part of a run's time that open streams may take, so that erasures have theirs.
OPEN_SHARE = 0.6
#: How many open streams are looked at at once.
AT_ONCE = 16

#: How often it did what: looked at, taken over, parked, closed, erased, failed.
Done = Counter[str]


async def sweep(services: Services, *, deadline: float) -> Done:
    """Tend the streams that are open, then carry erasures on, until `deadline`, in the event loop's
    time.

    What there was no time for is there for the next run: each takes things in another order, so
    that none is always last. Raises `Unavailable` where nobody knows what there is to do.
    """
    now, done = asyncio.get_running_loop().time(), Done()
    until = now + (deadline - MARGIN_S - now) * OPEN_SHARE
    try:
        await _tend_open(services, done, until)
        await _erase(services, done, deadline)
    finally:
        await services.spans.flush()
    figures = {f"Sweep{what.title().replace(' ', '')}": count for what, count in done.items()}
    services.metrics.tell(SWEEP, figures)
    return done


async def _tend_open(services: Services, done: Done, until: float) -> None:
    """Have somebody go on with each open stream whose producer is gone, and close what can never
    go on.
    """
    room = asyncio.Semaphore(AT_ONCE)
    try:
        async with asyncio.timeout_at(until), asyncio.TaskGroup() as tending:

            async def look() -> None:
                async with aclosing(_open_streams(services)) as keys:
                    async for key in keys:
                        await room.acquire()
                        task = tending.create_task(_guarded(done, _tend(services, key, done)))
                        task.add_done_callback(lambda _: room.release())

            await _guarded(done, look())
    except TimeoutError:
        logger.warning("not all open streams were looked at", extra=dict(done))


async def _open_streams(services: Services) -> AsyncGenerator[StreamKey, None]:
    for shard in random.sample(range(OPEN_SHARDS), OPEN_SHARDS):
        async with aclosing(services.log.open_streams(shard)) as keys:
            async for key in keys:
                yield key


async def _tend(services: Services, key: StreamKey, done: Done) -> None:
    done["looked at"] += 1
    tenant = await services.authority.tenants.get(key.tenant)
    pause_s = (tenant.policy if tenant else Policy()).pause_s
    try:
        if what := await services.takeovers.tend(key, pause_s):
            done[what] += 1
    except NotFound:
        pass  # it was erased meanwhile


async def _erase(services: Services, done: Done, deadline: float) -> None:
    """Carry erasures on in turns, so that none keeps the others waiting for long, also one that
    fails.
    """
    loop = asyncio.get_running_loop()
    jobs = await services.erasures.pending()
    random.shuffle(jobs)
    turns = deque(jobs)
    while turns and loop.time() < deadline - MARGIN_S:
        job = turns.popleft()

        async def turn(job: Erasure = job) -> None:
            async with aclosing(services.erasures.run(job)) as states:
                async for state in states:
                    done["erased"] += state.done_at is not None

        try:
            async with asyncio.timeout_at(min(loop.time() + TURN_S, deadline - REST_S)):
                await _guarded(done, turn())
        except TimeoutError:
            turns.append(job)


async def _guarded(done: Done, work: Coroutine[Any, Any, None]) -> None:
    """Let what is wrong with one be in no other's way."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - whatever is wrong with this one
        done["failed"] += 1
        logger.error("a sweep's work failed", extra={"error": type(error).__name__})


def handler(_event: Any, context: Any) -> None:
    """Lambda's scheduled invocation."""
    services, runner = _process()
    remaining_s = context.get_remaining_time_in_millis() / 1000
    deadline = runner.get_loop().time() + min(remaining_s, EVERY_S)
    with without_texts():
        runner.run(sweep(services, deadline=deadline))


@functools.cache
def _process() -> tuple[Services, asyncio.Runner]:
    return Services.from_env("sweep"), asyncio.Runner()
