"""What the functions tell of what is asked of them, and how it is written on AWS."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.types import ASGIApp

from functions.emf import emf
from functions.produce import produce
from functions.sweep import sweep
from shared.errors import Unavailable
from shared.metrics import (
    ANSWER,
    CONNECTION,
    FAILURE,
    LINES,
    POLLING,
    PROBLEM,
    PRODUCTION,
    REDACTION,
    REFUSAL,
    SUCCESSION,
    SWEEP,
    Metrics,
)
from shared.records import Kind, StreamKey
from shared.settings import Settings
from tests.functions.conftest import Sluice, begin, running, serving, start_body
from tests.told import Told


@asynccontextmanager
async def measured() -> AsyncIterator[tuple[Sluice, Told]]:
    told = Told()
    async with running(metrics=told.metrics()) as sluice:
        yield sluice, told


async def test_an_answer_is_one_line_of_its_own_and_one_of_its_production() -> None:
    async with measured() as (sluice, told):
        answer = await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=40&rate=100"))
        stream = answer.headers["stream-id"]
    (said,), (production,) = told.of(ANSWER), told.of(PRODUCTION)
    assert said.figures["AnswersCompleted"] == 1
    assert said.figures["OutputTokens"] == 40
    assert said.dimensions == {"function": "test", "model": "demo", "variant": "none"}
    named = {"tenant": "demo", "stream": stream, "trace_id": answer.headers["trace-id"]}
    assert said.properties == named | {"finish_reason": "stop"}
    assert set(production.figures) >= {"TimeToFirstToken", "TimeToFirstChunk", "TokensPerSecond"}
    assert all(value > 0 for value in production.figures.values())
    assert told.of(FAILURE) == []


async def test_a_failure_is_told_by_its_problem() -> None:
    async with measured() as (sluice, told):
        await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=9&fail_after=5"))
    (said,) = told.of(FAILURE)
    assert said.dimensions == {"problem": "provider-failed"}
    assert told.sums()["AnswersFailed"] == 1


async def test_a_cancelled_answer_is_told_by_whoever_closes_it() -> None:
    async with measured() as (sluice, told):
        key = (await begin(sluice.services, epoch=0)).key
        await sluice.api.post(f"{key.path}/cancel")
    assert told.sums()["AnswersCancelled"] == 1


async def test_connections_that_go_on_and_polls_are_told_apart() -> None:
    async with measured() as (sluice, told):
        stream = await sluice.launched("demo?tokens=20&rate=0")
        chunks, after = f"/v1/streams/{stream}/chunks", -1
        closed = False
        while not closed:
            page = (await sluice.api.get(f"{chunks}?after={after}&wait=5")).json()
            after, closed = page["next"], page["closed"]
        await sluice.stream.get(f"/v1/streams/{stream}/events?after=0")
        await sluice.stream.get(f"/v1/streams/{stream}/events")
    sums = told.sums()
    assert (sums["Connections"], sums["Resumed"], sums["PollSessions"]) == (2, 1, 1)
    assert sums["Polls"] >= 1
    assert sums["Launches"] == 1
    assert "LaunchFailures" not in sums
    assert {said.properties["stream"] for said in told.of(POLLING)} == {stream}


async def test_a_client_that_leaves_is_told() -> None:
    async with measured() as (sluice, told):
        await leave(sluice.stream_app, start_body("demo?tokens=20&rate=20"))
    (said,) = told.of(CONNECTION)
    assert said.figures["Interrupted"] == 1
    assert told.sums()["AnswersCompleted"] == 1


async def leave(app: ASGIApp, body: dict[str, object]) -> None:
    """Go away after the first bytes of an answer, and wait for its end."""
    async with serving(app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        data = json.dumps(body).encode()
        writer.write(
            b"POST /v1/streams HTTP/1.1\r\nhost: x\r\nauthorization: Bearer demo\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(data), data)
        )
        await reader.readuntil(b"opened")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_problem_and_the_limit_that_refused_are_told() -> None:
    async with measured() as (sluice, told):
        await sluice.policy(limits={"streams_at_once": 0})
        answer = await sluice.stream.post("/v1/streams", json=start_body())
        assert answer.status_code == 429
        await sluice.api.get("/v1/nothing")
    assert [said.dimensions["problem"] for said in told.of(PROBLEM)] == [
        "limit-exceeded",
        "not-found",
    ]
    (refusal,) = told.of(REFUSAL)
    assert refusal.dimensions == {"limit": "tenant-streams-at-once"}
    assert refusal.properties == {"tenant": "demo"}


async def test_redactions_of_prompts_and_answers_are_told_by_detector() -> None:
    async with measured() as (sluice, told):
        word = {"word": "sluice", "mode": "mask", "name": "secret_project"}
        rules = {"detectors": {"email": "mask"}, "words": [word], "prompts": True}
        await sluice.policy(redaction=rules)
        messages = [{"role": "user", "content": "I am a@example.com, of b@example.com"}]
        await sluice.stream.post("/v1/streams", json=start_body() | {"messages": messages})
    found = {said.dimensions["detector"]: said for said in told.of(REDACTION)}
    assert found["email"].figures == {"Redactions": 2}
    # What a tenant calls its rules is its own.
    assert set(found) <= {"email", "custom"}
    assert "secret_project" not in str(told.said)


async def test_a_start_that_is_repeated_tells_no_redactions_again() -> None:
    async with measured() as (sluice, told):
        await sluice.policy(redaction={"detectors": {"email": "mask"}, "prompts": True})
        messages = [{"role": "user", "content": "I am a@example.com"}]
        body = start_body("demo?tokens=5&rate=0") | {"messages": messages}
        for _ in range(2):
            answer = await sluice.stream.post(
                "/v1/streams", json=body, headers={"idempotency-key": "once"}
            )
            assert answer.status_code == 200
    assert told.sums()["Redactions"] == 1


async def test_a_dead_producer_a_launch_that_fails_and_a_sweep_are_told() -> None:
    async def fail(_: StreamKey) -> None:
        raise Unavailable

    told = Told()
    async with running(metrics=told.metrics(), launch=fail) as sluice:
        await begin(sluice.services, age_s=60, chunks=2)
        await sweep(sluice.services, deadline=asyncio.get_running_loop().time() + 30)
    (said,) = told.of(SWEEP)
    assert said.figures == {"SweepLookedAt": 1, "SweepTakenOver": 1}
    sums = told.sums()
    assert (sums["TakenOver"], sums["Launches"], sums["LaunchFailures"]) == (1, 1, 1)
    assert all(said.properties["tenant"] == "demo" for said in told.of(SUCCESSION))


async def test_a_producer_that_does_not_come_has_not_died() -> None:
    async def never(_: StreamKey) -> None:
        pass

    told = Told()
    async with running(metrics=told.metrics(), launch=never) as sluice:
        key = (await begin(sluice.services, epoch=0, age_s=60)).key
        await sluice.services.takeovers.settle(key)
        newest = await sluice.services.log.tail(key)
    assert newest.kind == Kind.VACANT
    sums = told.sums()
    assert (sums.get("TakenOver"), sums["Launches"]) == (None, 1)


async def test_no_time_is_negative_where_another_clock_was_ahead() -> None:
    async with measured() as (sluice, told):
        began = await begin(sluice.services, "demo?tokens=5&rate=0", epoch=0, age_s=-60)
        await produce(sluice.services, began.key)
    (said,), (production,) = told.of(ANSWER), told.of(PRODUCTION)
    assert (said.figures["AnswerTime"], production.figures["TimeToFirstChunk"]) == (0, 0)


async def test_an_answer_does_not_mind_that_its_metrics_are_lost() -> None:
    def fail(*_: object) -> None:
        raise OSError

    async with running(metrics=Metrics(fail)) as sluice:
        answer = await sluice.stream.post("/v1/streams", json=start_body())
    assert '"status":"completed"' in answer.text


def test_each_line_is_written_as_cloudwatch_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = emf(Settings(metrics_namespace="Mine", models="openai/x, "), "stream")
    for line in LINES:
        figures = {metric.name: 1.5 for metric in line.metrics}
        about = {"model": "openai/x?y=1", "problem": "busy", "tenant": "acme"}
        metrics.tell(line, figures, **about)
    written = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    for line, document in zip(LINES, written, strict=True):
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "Mine"
        assert directive["Dimensions"] == [list(names) for names in line.by]
        assert directive["Metrics"] == [{"Name": m.name, "Unit": m.unit} for m in line.metrics]
        assert all(document[metric.name] == [1.5] for metric in line.metrics)
        assert all(isinstance(document[name], str) for name in line.dimensions)
        assert (document["line"], document["tenant"]) == (line.name, "acme")
    assert written[0]["model"] == "openai/x"
