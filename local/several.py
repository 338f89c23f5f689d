"""Several reads at once, with their results in order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from shared.table import CALLS_MAX

Given = TypeVar("Given")
Found = TypeVar("Found")


async def several(
    items: AsyncIterator[Given], read: Callable[[Given], Awaitable[Found]]
) -> AsyncIterator[Found]:
    """What `read` finds for each item, for as many at a time as the store takes calls."""
    waiting: list[Given] = []
    async for item in items:
        waiting.append(item)
        if len(waiting) == CALLS_MAX:
            for found in await asyncio.gather(*map(read, waiting)):
                yield found
            waiting.clear()
    for found in await asyncio.gather(*map(read, waiting)):
        yield found
