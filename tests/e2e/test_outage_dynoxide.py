"""A database that is killed in mid-answer, and comes back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from functions.wiring import Services
from shared.records import Kind, Record, StreamKey
from shared.settings import Settings
from tests.e2e import dynoxide
from tests.e2e.local_run import LocalRun
from tests.e2e.readers import Reader, check_answer, in_one_go
from tests.e2e.test_log_dynoxide import check_books

pytestmark = pytest.mark.e2e

MODEL = "demo?tokens=300"
#: So many follow what their own request has started, and so many poll what was launched.
FOLLOWERS, POLLERS = 4, 4
#: Nothing takes so long but what hangs.
ALL_S = 150


@asynccontextmanager
async def outage(tmp_path: Path) -> AsyncIterator[tuple[LocalRun, list[list[Record]]]]:
    """A local run whose database is gone, until this is left: then every client gets its answer.

    Gives the run, and the streams' logs afterwards.
    """
    logs: list[list[Record]] = []
    with (
        dynoxide.Restartable(tmp_path / "outage.db") as database,
        LocalRun(env={"SLUICE_DYNAMODB_ENDPOINT": database.endpoint}) as run,
    ):
        readers = [Reader(run.url, MODEL, f"Number {n}") for n in range(FOLLOWERS + POLLERS)]
        async with asyncio.timeout(ALL_S), asyncio.TaskGroup() as reading:
            for number, each in enumerate(readers):
                reading.create_task(each.follow() if number < FOLLOWERS else each.poll())
            for each in readers:
                await each.beyond(2)
            database.kill()
            yield run, logs
            database.start()
        with dynoxide.store(database.endpoint) as store:
            services = Services.on(store, Settings())
            for number, each in enumerate(readers):
                logs.append(await services.log.all_records(StreamKey("demo", each.stream)))
                check_answer(each, logs[-1], await in_one_go(MODEL + "&rate=0", f"Number {number}"))
            await check_books(services, "demo", streams=len(readers))


def vacancies(logs: Sequence[Sequence[Record]]) -> list[int]:
    """How often each stream had to be taken over."""
    return [sum(record.kind == Kind.VACANT for record in log) for log in logs]


async def test_producers_wait_for_a_database_that_comes_back_soon(tmp_path: Path) -> None:
    async with outage(tmp_path) as (_, logs):
        await asyncio.sleep(4)
    assert vacancies(logs) == [0] * (FOLLOWERS + POLLERS)


async def test_who_gave_up_is_taken_over_when_the_database_is_back(tmp_path: Path) -> None:
    async with outage(tmp_path) as (run, logs):
        # Of those whose client holds no connection it is told.
        while run.out().count("a producer gave up") < POLLERS:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        await asyncio.sleep(1)
    assert sum(count > 0 for count in vacancies(logs)) >= POLLERS
