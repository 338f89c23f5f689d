"""The `stream` function, as Lambda runs it, whose environment dies or freezes in mid-answer.

cargo-lambda plays Lambda, and dynoxide DynamoDB. `produce` is not run by Lambda's own Python, which
crashes on the emulated Runtime API: who is launched is in a process of our own.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from functions.wiring import Services
from shared.records import Kind, Record, StreamKey
from shared.table import DynamoDB
from tests.e2e.emulator import Emulator, Function
from tests.e2e.fleet import Fleet
from tests.e2e.readers import Reader, check_answer, in_one_go
from tests.e2e.test_log_dynoxide import check_books, tenant

pytestmark = pytest.mark.e2e

#: Words for ten seconds: there are some left for who takes over.
MODEL = "demo?tokens=500&rate=50"
#: Nothing takes so long but what hangs.
ALL_S = 120


@asynccontextmanager
async def answering(endpoint: str, key: str) -> AsyncIterator[tuple[Emulator, Reader, Any]]:
    """An answer that has begun in one environment, while another one has nothing to do; and the
    task that reads it.
    """
    async with asyncio.timeout(ALL_S), Fleet(endpoint, 1) as launched:
        function = Function("functions.stream.create", env=launched.env)
        with Emulator({"stream": function}) as emulator:
            reader = Reader(emulator.url("stream"), MODEL, key=key)
            reading = asyncio.create_task(reader.follow())
            try:
                await reader.beyond(3)
                emulator.add("stream")
                yield emulator, reader, reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


def tell_first(emulator: Emulator, signal_: int) -> None:
    """Send a signal to the environment in which the answer has begun."""
    os.killpg(emulator.processes["stream"][0].pid, signal_)


async def check(services: Services, name: str, readers: Sequence[Reader]) -> Sequence[Record]:
    """Each has the whole answer of a stream that was taken over once; returns its log."""
    records = await services.log.all_records(StreamKey(name, readers[0].stream))
    expected = await in_one_go("demo?tokens=500&rate=0")
    for reader in readers:
        check_answer(reader, records, expected)
    assert [record.kind for record in records].count(Kind.VACANT) == 1
    assert records[-1].epoch == 2
    await check_books(services, name, streams=1)
    return records


async def test_whose_environment_is_killed_goes_on_in_another(
    endpoint: str, real: DynamoDB
) -> None:
    services = await tenant(real, "killed")
    async with answering(endpoint, "killed") as (emulator, reader, reading):
        tell_first(emulator, signal.SIGKILL)
        seen = reader.after
        await reading
    records = await check(services, "killed", [reader])
    assert reader.losses
    assert seen < next(record.seq for record in records if record.kind == Kind.VACANT)


async def test_an_environment_that_was_frozen_for_too_long_writes_nothing_more(
    endpoint: str, real: DynamoDB
) -> None:
    services = await tenant(real, "frozen")
    async with answering(endpoint, "frozen") as (emulator, reader, reading):
        tell_first(emulator, signal.SIGSTOP)
        other = Reader(emulator.url("stream"), MODEL, key="frozen", stream=reader.stream)
        following = asyncio.create_task(other.follow())
        try:
            while not (taken := await epoch_of(services, other)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            # It wakes up in the midst of what its successor says.
            await other.beyond(taken + 2)
            assert reader.after < taken
            tell_first(emulator, signal.SIGCONT)
            await asyncio.gather(reading, following)
        finally:
            following.cancel()
    records = await check(services, "frozen", [reader, other])
    assert {record.by for record in records[:taken] if record.text} == {records[0].by}
    assert records[0].by not in {record.by for record in records[taken:]}
    # Who waited for it was told the rest from the log, by the same connection.
    assert reader.losses == 0


async def epoch_of(services: Services, reader: Reader) -> int | None:
    """Where the stream's second producer has begun."""
    records = await services.log.all_records(StreamKey("frozen", reader.stream))
    return next((record.seq for record in records if record.kind == Kind.EPOCH), None)
