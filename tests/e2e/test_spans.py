"""Spans as a collector gets them, of the local run and of a function; and answers without one that
works.
"""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from shared.administration import Administration
from shared.table import DynamoDB
from tests.collector import Received, Told, collecting
from tests.e2e.emulator import Emulator, Function
from tests.e2e.local_run import LocalRun, body

pytestmark = pytest.mark.e2e

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Received]:
    with collecting() as received:
        yield received


@pytest.fixture(scope="module")
def run(collector: Received) -> Iterator[LocalRun]:
    with LocalRun("--ephemeral", env={"SLUICE_OTLP_ENDPOINT": collector.url}) as run:
        yield run


def tree(spans: list[Told]) -> set[tuple[str, str | None]]:
    names = {span.id: span.name for span in spans}
    return {(span.name, names.get(span.parent or "", span.parent)) for span in spans}


def test_one_answer_is_one_trace(collector: Received, run: LocalRun) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = run.client.post("/v1/streams", json=body("demo?tokens=30&rate=60"), headers=headers)
    assert "event: closed" in answer.text
    request = collector.await_span(lambda span: span.parent == PARENT)
    spans = collector.of(TRACE)
    assert tree(spans) == {
        ("POST /v1/streams", PARENT),
        ("open stream", "POST /v1/streams"),
        ("produce", "POST /v1/streams"),
        ("chat demo", "produce"),
    }
    assert {span.service for span in spans} == {"sluice-local"}
    (model,) = (span for span in spans if span.name == "chat demo")
    assert model.attributes["gen_ai.usage.output_tokens"] == 30
    assert model.began_ns < model.events["first token"] < model.ended_ns < request.ended_ns


def test_who_takes_over_is_in_the_same_trace(collector: Received, run: LocalRun) -> None:
    stream = run.begin("demo?tokens=90&rate=6&ttft=1")
    trace = str(run.client.get(f"/v1/streams/{stream}").headers["trace-id"])
    while not run.text(stream):
        pass
    assert run.client.post(f"/local/streams/{stream}/kill").status_code == 204
    followed = run.client.get(f"/v1/streams/{stream}/events", timeout=60)
    assert "event: epoch" in followed.text
    first = collector.await_span(lambda span: _produced(span, stream, 1))
    second = collector.await_span(lambda span: _produced(span, stream, 2))
    assert first.trace == second.trace != trace
    assert first.parent == second.parent
    noticed = collector.await_span(lambda span: span.name == "take over")
    assert (noticed.trace, noticed.parent) == (first.trace, first.parent)
    begun = collector.await_span(lambda span: span.id == first.parent)
    assert (begun.name, begun.parent) == ("POST /v1/streams", None)


def _produced(span: Told, stream: str, epoch: int) -> bool:
    about = span.attributes
    return (
        span.name == "produce"
        and about["sluice.stream"] == stream
        and about["sluice.epoch"] == epoch
    )


@pytest.mark.parametrize("how", ["absent", "refuses", "hangs"])
def test_a_collector_that_does_not_work_harms_no_answer(how: str) -> None:
    with collecting() as broken:
        broken.status = 503
        url = "http://127.0.0.1:9" if how == "absent" else broken.url
        if how == "hangs":
            broken.wait.clear()
        with LocalRun("--ephemeral", env={"SLUICE_OTLP_ENDPOINT": url}) as run:
            for _ in range(3):
                answer = run.client.post("/v1/streams", json=body("demo?tokens=20&rate=0"))
                assert '"status":"completed"' in answer.text
            stream = run.begin("demo?tokens=20&rate=0")
            while run.client.get(f"/v1/streams/{stream}").json()["status"] == "open":
                pass
            assert run.text(stream)
            assert run.stop() == 0
        assert broken.spans == []


async def test_a_function_sends_them_before_it_waits_for_its_next_event(
    endpoint: str, real: DynamoDB
) -> None:
    await Administration(real).ensure("demo", "demo")
    with collecting() as collector:
        collector.wait.clear()
        env = {
            "SLUICE_DYNAMODB_ENDPOINT": endpoint,
            "SLUICE_OTLP_ENDPOINT": collector.url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        function = Function("functions.stream.create", processes=1, env=env)
        with Emulator({"stream": function}) as emulator:
            async with httpx.AsyncClient(
                base_url=emulator.url("stream"),
                headers={"authorization": "Bearer demo"},
                timeout=30,
                limits=httpx.Limits(max_keepalive_connections=0),
            ) as client:
                # While nothing is taken, two answers are whole.
                for _ in range(2):
                    answer = await client.post("/v1/streams", json=body("demo?tokens=20&rate=0"))
                    assert "event: closed" in answer.text
                assert collector.spans == []
                collector.wait.set()
                trace = answer.headers["trace-id"]
                last = await asyncio.to_thread(
                    collector.await_span,
                    lambda span: span.trace == trace and span.name == "POST /v1/streams",
                )
    assert last.service == "sluice-stream"
