"""Answers whose producers are killed at any moment, by `kill -9`: each is told whole, once."""

import asyncio
import random
import secrets
import statistics
from collections.abc import Sequence
from itertools import pairwise

import pytest

from functions.wiring import Services
from shared.records import Kind, Record, StreamKey
from shared.table import DynamoDB
from tests.e2e.fleet import Fleet
from tests.e2e.local_run import SLUICE
from tests.e2e.readers import Reader, check_answer, in_one_go
from tests.e2e.test_log_dynoxide import check_books, tenant

pytestmark = pytest.mark.e2e

NAME = "fleet"
STREAMS, PROCESSES, KILLS = 200, 4, 8
#: Within which time the clients come.
ARRIVE_S = 8.0
#: Between two kills.
CALM_S = (0.5, 3.0)
#: Takeovers without which nothing was proved.
TAKEOVERS_MIN = 50
#: The lease has 15 s; the rest is for a machine that is slow.
SILENCE_S = 60
#: So many words in so many seconds; the pace of the writes is what two cores can do.
TOKENS, RATE = 320, 16
PACING = {"flush_interval_ms": 2000}
#: Nothing takes so long but what hangs.
ALL_S = 400


def prompt(number: int) -> str:
    return f"Number {number}"


def reader(fleet: Fleet, number: int) -> Reader:
    return Reader(
        fleet.url,
        f"demo?tokens={TOKENS}&rate={RATE}",
        prompt(number),
        key=NAME,
        pacing=PACING,
    )


async def test_200_answers_outlive_their_producers(endpoint: str, real: DynamoDB) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    limits = {"streams_at_once": STREAMS, "starts_per_minute": None, "tokens_per_day": 10**9}
    services = await tenant(real, NAME, limits=limits, takeovers=10, shards=8)
    async with asyncio.timeout(ALL_S), Fleet(endpoint, PROCESSES) as fleet:
        readers = [reader(fleet, number) for number in range(STREAMS)]
        try:
            await read_while_killing(fleet, readers, dice)
        finally:
            ended = sum(each.closed is not None for each in readers)
            print(f"{ended} of {STREAMS} have ended")
        logs = [await records_of(services, each) for each in readers]
        for number, (each, records) in enumerate(zip(readers, logs, strict=True)):
            check_answer(
                each, records, await in_one_go(f"demo?tokens={TOKENS}&rate=0", prompt(number))
            )
        check_takeovers(fleet, logs)
    await check_books(services, NAME, streams=STREAMS)
    await check_audit(endpoint)


async def read_while_killing(fleet: Fleet, readers: Sequence[Reader], dice: random.Random) -> None:
    async def one(number: int, each: Reader) -> None:
        await asyncio.sleep(dice.uniform(0, ARRIVE_S))
        await (each.follow() if number % 5 else each.poll())

    async with asyncio.TaskGroup() as tasks:
        for number, each in enumerate(readers):
            tasks.create_task(one(number, each))
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(*CALM_S))
            await fleet.replace_one(dice)


async def records_of(services: Services, each: Reader) -> list[Record]:
    return await services.log.all_records(StreamKey(NAME, each.stream))


def check_takeovers(fleet: Fleet, logs: Sequence[Sequence[Record]]) -> None:
    """Enough streams have lost their producer; tells how long each was silent by that."""
    taken = [record for records in logs for record in records if record.kind == Kind.VACANT]
    assert {record.body["reason"] for record in taken} == {"lost"}
    silences = sorted(silence for records in logs for silence in silences_of(fleet, records))
    hit = sum(any(record.kind == Kind.VACANT for record in records) for records in logs)
    print(
        f"{KILLS} kills, {len(taken)} takeovers of {hit} streams; from the death of a producer to "
        f"the next text p50 {statistics.median(silences):.1f} s, "
        f"p90 {statistics.quantiles(silences, n=10)[-1]:.1f} s, max {silences[-1]:.1f} s"
    )
    assert len(silences) >= TAKEOVERS_MIN
    assert statistics.median(silences) < SILENCE_S


def silences_of(fleet: Fleet, records: Sequence[Record]) -> list[float]:
    """From each death of a producer to the next text, in s. It is longer where a successor, or its
    launch, was killed before it could say anything.
    """
    told = [record for record in records if record.text]
    found = []
    for last, following in pairwise(told):
        died = fleet.death_of(last)
        if died is not None and following.epoch > last.epoch:
            found.append((following.at - died) / 1000)
    return found


async def check_audit(endpoint: str) -> None:
    """As an operator verifies it: every chain of the tenant is whole."""
    env = {"SLUICE_DYNAMODB_ENDPOINT": endpoint}
    verifying = await asyncio.create_subprocess_exec(
        *(SLUICE, "audit", "verify", NAME), env=env, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await verifying.communicate()
    assert verifying.returncode == 0, told.decode()
