"""The `produce` function: produces where nobody holds a connection."""

import asyncio
import functools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from functions.wiring import Services, without_texts
from shared import trace
from shared.errors import NotFound, SluiceError, Unavailable
from shared.logger import logger
from shared.records import Record, StreamKey
from shared.settings import Settings


async def produce(services: Services, key: StreamKey, *, deadline: float | None = None) -> None:
    """Produce a stream that waits for a producer: to its end, or until it is handed over.

    Harmless when it comes twice: whoever appends the next epoch has the stream; and when the
    stream was erased meanwhile. Raises `Unavailable` when the store does not answer.
    """
    try:
        with suppress(NotFound):
            await _produce(services, key, deadline)
    finally:
        await services.spans.flush()


async def _produce(services: Services, key: StreamKey, deadline: float | None) -> None:
    records = await services.log.all_records(key)
    if not records[-1].vacant:
        # Delivered twice, or tried again by Lambda because the first try died on the way.
        await services.takeovers.settle(key)
        return
    with trace.of_stream(records[0].body):
        await _go_on(services, key, records, deadline)


async def _go_on(
    services: Services, key: StreamKey, records: Sequence[Record], deadline: float | None
) -> None:
    by, epoch = services.log.new_writer(), records[-1].epoch + 1
    logger.info("producing", extra={"stream": key.stream, "epoch": epoch})
    try:
        producer = await services.producer(key, records, epoch=epoch, by=by, deadline=deadline)
    except Unavailable:
        raise
    except SluiceError as error:
        await services.lifecycle.close_abandoned(key, records[-1], error)
        return
    await producer.run(records)


def handler(event: dict[str, str], context: Any) -> None:
    """Lambda's asynchronous invocation: `{"tenant": …, "stream": …}`."""
    services, runner = _process(context.function_name)
    remaining_s = context.get_remaining_time_in_millis() / 1000
    deadline = runner.get_loop().time() + remaining_s
    key = StreamKey(event["tenant"], event["stream"])
    with without_texts():
        runner.run(produce(services, key, deadline=deadline))


@functools.cache
def _process(name: str) -> tuple[Services, asyncio.Runner]:
    # Who hands over launches this very function, whose name no stack can give to itself.
    settings = replace(Settings.from_env(), produce_function=name)
    return Services.on_aws(settings, "produce"), asyncio.Runner()
