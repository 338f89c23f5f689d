"""The `sweep` function: on a schedule, it finishes what others have left half done."""

import asyncio
import functools
import random
from collections import deque
from contextlib import aclosing
from typing import Any

from functions.wiring import Services
from shared.logger import logger

#: How often it is run. A run ends before the next one begins, whatever time its invocation has.
EVERY_S = 60.0
#: What is left of an invocation when no more work is taken on, and when all work is put down.
MARGIN_S = 10.0
REST_S = 5.0
#: For how long one job is worked on before the next one has its turn.
TURN_S = 10.0


async def sweep(services: Services, *, deadline: float) -> int:
    """Carry erasures on until `deadline`, in the event loop's time. Returns how many are done.

    They take turns, in an order that is another each time, so that none keeps the others waiting
    for long, also one that fails. Raises `Unavailable` where nobody knows what there is to do.
    """
    loop = asyncio.get_running_loop()
    jobs = await services.erasures.pending()
    random.shuffle(jobs)
    turns, done = deque(jobs), 0
    while turns and loop.time() < deadline - MARGIN_S:
        job = turns.popleft()
        try:
            async with (
                asyncio.timeout_at(min(loop.time() + TURN_S, deadline - REST_S)),
                aclosing(services.erasures.run(job)) as states,
            ):
                async for state in states:
                    done += state.done_at is not None
        except TimeoutError:
            turns.append(job)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this one
            logger.error("an erasure failed", extra={"error": type(error).__name__})
    return done


def handler(_event: Any, context: Any) -> None:
    """Lambda's scheduled invocation."""
    services, runner = _process()
    remaining_s = context.get_remaining_time_in_millis() / 1000
    deadline = runner.get_loop().time() + min(remaining_s, EVERY_S)
    done = runner.run(sweep(services, deadline=deadline))
    logger.info("swept", extra={"erasures_done": done})


@functools.cache
def _process() -> tuple[Services, asyncio.Runner]:
    return Services.from_env(), asyncio.Runner()
