"""One id finds an answer in the lines of every function that had to do with it."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from functions.emf import emf
from functions.sweep import sweep
from shared import trace
from shared.logger import logger
from shared.records import StreamKey
from shared.settings import Settings
from tests.functions.conftest import ASYNC, begin, running, start_body

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = {"traceparent": f"00-{ID}-00f067aa0ba902b7-01"}
OTHER = {"traceparent": f"00-{'a' * 32}-00f067aa0ba902b7-01"}


@contextmanager
def lines() -> Iterator[list[dict[str, Any]]]:
    """The lines of our log that are written meanwhile."""
    found: list[dict[str, Any]] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(self.format(record)))

    handler = Keeping()
    handler.setFormatter(logger.registered_formatter)
    logger._logger.addHandler(handler)
    try:
        yield found
    finally:
        logger._logger.removeHandler(handler)


async def test_the_client_is_told_and_the_stream_keeps_it() -> None:
    async with running() as sluice:
        for client in (sluice.stream, sluice.api):
            headers = SENT | (ASYNC if client is sluice.api else {})
            answer = await client.post("/v1/streams", json=start_body(), headers=headers)
            assert answer.headers["trace-id"] == ID
            key = StreamKey("demo", answer.headers["stream-id"])
            opened, *_ = await sluice.services.log.all_records(key)
            assert opened.body["trace"] == ID
        # Also a problem, and who sends none.
        assert len((await sluice.api.get("/v1/nothing")).headers["trace-id"]) == 32


async def test_whoever_produces_polls_ends_or_takes_over_is_found_by_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with lines() as logged:
        async with running(metrics=emf(Settings(), "x")) as sluice:
            answer = await sluice.api.post(
                "/v1/streams", json=start_body("demo?tokens=90&rate=30"), headers=SENT | ASYNC
            )
            path = f"/v1/streams/{answer.json()['id']}"
            await sluice.api.get(f"{path}/chunks?after=0&wait=5", headers=OTHER)
            await sluice.api.post(f"{path}/cancel", headers=OTHER)
            await sluice.stream.get(f"{path}/events", headers=OTHER)
            await asyncio.gather(*sluice.productions.tasks)
    written = capsys.readouterr().out.splitlines()
    measured = [json.loads(text) for text in written if "_aws" in text]
    traces = {each["line"]: each["trace_id"] for each in measured}
    assert (traces["answer"], traces["production"]) == (ID, ID)
    assert traces["connection"] == "a" * 32
    assert {each["message"] for each in logged if each.get("trace_id") == ID} == {
        "request",
        "producing",
    }


async def test_a_sweep_says_whose_producer_had_died() -> None:
    with lines() as logged:
        async with running() as sluice:
            trace.begin(ID)
            await begin(sluice.services, age_s=60, chunks=2)
            trace.begin("b" * 32)
            await sweep(sluice.services, deadline=asyncio.get_running_loop().time() + 30)
            await asyncio.gather(*sluice.productions.tasks)
    assert [each["message"] for each in logged if each["trace_id"] == ID] == [
        "taken over",
        "producing",
    ]
