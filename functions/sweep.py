"""The `sweep` function: on a schedule, it finishes what others have left half done."""

import asyncio
import functools
from typing import Any

from functions.wiring import Services
from shared.audit import Actor
from shared.logger import logger

#: What is left of an invocation when it takes no more work on: the next one comes in a minute.
MARGIN_S = 10.0

_SWEEP = Actor(credential="sweep")


async def sweep(services: Services, *, deadline: float) -> int:
    """Carry erasures on until `deadline`, in the event loop's time. Returns how many are done."""
    done = 0
    for job in await services.erasures.pending():
        async for state in services.erasures.run(job, _SWEEP):
            done += state.done_at is not None
            if asyncio.get_running_loop().time() >= deadline - MARGIN_S:
                return done
    return done


def handler(_event: Any, context: Any) -> None:
    """Lambda's scheduled invocation."""
    services, runner = _process()
    remaining_s = context.get_remaining_time_in_millis() / 1000
    deadline = runner.get_loop().time() + remaining_s
    done = runner.run(sweep(services, deadline=deadline))
    logger.info("swept", extra={"erasures_done": done})


@functools.cache
def _process() -> tuple[Services, asyncio.Runner]:
    return Services.from_env(), asyncio.Runner()
