"""The `produce` function: produces where nobody holds a connection."""

import asyncio
import functools
from contextlib import suppress
from typing import Any

from functions.wiring import Services
from shared.errors import NotFound, SluiceError, Unavailable
from shared.records import StreamKey


async def produce(services: Services, key: StreamKey, *, deadline: float | None = None) -> None:
    """Produce a stream that was opened for somebody else to produce.

    Harmless when it comes twice: whoever appends the first epoch has the stream; and when the
    stream was erased meanwhile. Raises `Unavailable` when the store does not answer.
    """
    with suppress(NotFound):
        await _produce(services, key, deadline)


async def _produce(services: Services, key: StreamKey, deadline: float | None) -> None:
    records = (await services.log.read(key)).records
    if records[-1].epoch > 0:
        # Delivered twice, or tried again by Lambda because the first try died on the way.
        await services.lifecycle.settle(key)
        return
    by = services.log.new_writer()
    try:
        producer = await services.producer(key, records[0], epoch=1, by=by, deadline=deadline)
    except Unavailable:
        raise
    except SluiceError as error:
        await services.lifecycle.close_abandoned(key, records[-1], error)
        return
    await producer.run(records)


def handler(event: dict[str, str], context: Any) -> None:
    """Lambda's asynchronous invocation: `{"tenant": …, "stream": …}`."""
    services, runner = _process()
    remaining_s = context.get_remaining_time_in_millis() / 1000
    deadline = runner.get_loop().time() + remaining_s
    key = StreamKey(event["tenant"], event["stream"])
    runner.run(produce(services, key, deadline=deadline))


@functools.cache
def _process() -> tuple[Services, asyncio.Runner]:
    return Services.from_env(), asyncio.Runner()
