"""The `stream` function over HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions import stream, wiring
from functions.stream import FOLLOW_MARGIN_S, EventStream
from shared.errors import Unavailable
from shared.models import Ask, Continuation, Finish
from shared.pacing import Pacing
from shared.producer import DEADLINE_MARGIN_S
from shared.records import StreamKey
from shared.redaction import PolicyViolation
from tests.functions.conftest import (
    ASYNC,
    Sluice,
    begin,
    caller,
    client,
    running,
    serving,
    start_body,
)
from tests.simulation.clock import virtual

QUICK = "demo?tokens=40&rate=0"

SSE = "text/event-stream; charset=utf-8"


def events(body: str) -> list[tuple[int, str, dict[str, Any]]]:
    """The records in a body, read as the standard says, for bodies without comments inside."""
    return [(int(event["id"]), *name_and_data(event)) for event in blocks(body) if "id" in event]


def hint_of(body: str) -> int | None:
    """After which record the client of this body is told to connect again, if it is."""
    hints = [name_and_data(event) for event in blocks(body) if "id" not in event]
    assert [name for name, _ in hints] in ([], ["reconnect"])
    assert not hints or body.rindex("event: reconnect") > body.rindex("id: ")
    return hints[0][1]["after"] if hints else None


def blocks(body: str) -> list[dict[str, str]]:
    return [
        dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
        for block in body.split("\n\n")[:-1]
    ]


def name_and_data(event: dict[str, str]) -> tuple[str, dict[str, Any]]:
    return event["event"], json.loads(event["data"])


def text_of(body: str) -> str:
    return "".join(data["text"] for _, event, data in events(body) if event == "chunk")


async def test_an_answer_streams_from_opened_to_closed(sluice: Sluice) -> None:
    answer = await sluice.stream.post("/v1/streams", json=start_body(metadata={"a": "b"}))

    assert answer.status_code == 200
    stream_id = answer.headers["stream-id"]
    assert answer.headers["content-type"] == SSE
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["location"] == f"/v1/streams/{stream_id}/events"
    assert "content-length" not in answer.headers

    found = events(answer.text)
    ids = [seq for seq, _, _ in found]
    assert ids == sorted(set(ids))
    assert found[0][1] == "opened"
    assert found[0][2]["id"] == stream_id
    seq, event, closed = found[-1]
    assert event == "closed"
    assert closed["status"] == "completed"
    assert closed["finish_reason"] == "stop"
    assert closed["usage"]["output_tokens"] == 40
    assert closed["error"] is None
    summary = (await sluice.api.get(f"/v1/streams/{stream_id}")).json()
    assert summary["status"] == "completed"
    assert summary["last_seq"] == seq
    assert summary["metadata"] == {"a": "b"}


async def test_the_client_of_the_producer_costs_one_read(sluice: Sluice) -> None:
    body = start_body("demo?tokens=20&rate=200&ttft=20")
    # The key, the tenant and the model's breaker are known from here on.
    await sluice.stream.post("/v1/streams", json=body)
    before = sluice.store.reads
    answer = await sluice.stream.post("/v1/streams", json=body)
    assert events(answer.text)[-1][1] == "closed"
    assert sluice.store.reads == before + 1  # of what its tenant has used so far


async def test_resume_after_the_end_at_every_offset(sluice: Sluice) -> None:
    answer = await sluice.stream.post("/v1/streams", json=start_body())
    path = answer.headers["location"]
    whole = events(answer.text)
    last = whole[-1][0]
    for after in range(-1, last):
        again = await sluice.stream.get(path, params={"after": after})
        assert again.status_code == 200
        assert events(again.text) == [event for event in whole if event[0] > after]
        resumed = await sluice.stream.get(path, headers={"last-event-id": str(after)})
        assert resumed.content == again.content
    assert (await sluice.stream.get(path, params={"after": last})).status_code == 204


async def test_a_misspelt_query_does_not_replay_everything(sluice: Sluice) -> None:
    answer = await sluice.stream.post("/v1/streams", json=start_body())
    refused = await sluice.stream.get(answer.headers["location"], params={"aftr": 3})
    assert refused.status_code == 400
    assert refused.json()["field"] == "aftr"


@pytest.mark.parametrize("after", ["-2", "x", "999"])
async def test_an_offset_that_cannot_be_is_named(sluice: Sluice, after: str) -> None:
    answer = await sluice.stream.post("/v1/streams", json=start_body())
    refused = await sluice.stream.get(answer.headers["location"], params={"after": after})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["field"] == "after"


@pytest.mark.parametrize("stream_id", ["x", "0" * 32, "0" * 31 + "z"])
async def test_an_unknown_stream_is_not_found(sluice: Sluice, stream_id: str) -> None:
    answer = await sluice.stream.get(f"/v1/streams/{stream_id}/events")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:sluice:problem:not-found"


async def test_another_tenants_stream_does_not_exist(sluice: Sluice) -> None:
    answer = await sluice.stream.post("/v1/streams", json=start_body())
    path = answer.headers["location"]
    async with client(stream.build(sluice.services), "other") as other:
        foreign = await other.get(path)
        unknown = await other.get(f"/v1/streams/{'0' * 32}/events")
    assert foreign.status_code == 404
    stream_id = answer.headers["stream-id"]
    assert foreign.text.replace(stream_id, "0" * 32) == unknown.text


@pytest.mark.parametrize(
    "header", [{}, {"authorization": "Bearer nope"}, {"authorization": "Basic demo"}]
)
async def test_no_key_no_answer(sluice: Sluice, header: dict[str, str]) -> None:
    before = sluice.store.writes
    async with client(sluice.stream_app, "") as anyone:
        answer = await anyone.post("/v1/streams", json=start_body(), headers=header)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert sluice.store.writes == before


async def test_a_bad_field_is_a_problem_and_starts_nothing(sluice: Sluice) -> None:
    before = sluice.store.writes
    answer = await sluice.stream.post("/v1/streams", json=start_body(max_tokens=0))
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["type"] == "urn:sluice:problem:invalid-request"
    assert problem["field"] == "max_tokens"
    assert (problem["minimum"], problem["maximum"]) == (1, 200_000)
    assert problem["error"]["param"] == "max_tokens"
    assert sluice.store.writes == before


@pytest.mark.parametrize("model", ["nope", "openai/gpt-5", "demo?speed=1", "demo/x"])
async def test_an_unknown_model_is_a_problem(sluice: Sluice, model: str) -> None:
    answer = await sluice.stream.post("/v1/streams", json=start_body(model))
    assert answer.status_code == 400
    assert answer.json()["field"] == "model"


async def test_a_large_body_is_refused_before_it_is_read_to_its_end(sluice: Sluice) -> None:
    read = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal read
        while True:
            read += 1
            yield b" " * 65536

    answer = await sluice.stream.post("/v1/streams", content=endless())
    assert answer.status_code == 413
    assert answer.json()["maximum"] == 256 * 1024
    assert read < 10


async def test_what_is_started_to_be_polled_is_accepted_and_listed_here_too(
    sluice: Sluice,
) -> None:
    """An edge tells functions apart by path, and both kinds of start have one path."""
    body = start_body("demo?tokens=2&rate=0")
    accepted = await sluice.stream.post("/v1/streams", json=body, headers=ASYNC)
    assert accepted.status_code == 202
    assert accepted.headers["preference-applied"] == "respond-async"
    await asyncio.gather(*sluice.productions.tasks)
    (listed,) = (await sluice.stream.get("/v1/streams")).json()["streams"]
    assert (listed["id"], listed["status"]) == (accepted.json()["id"], "completed")


async def test_a_wrong_method_and_a_wrong_path(sluice: Sluice) -> None:
    wrong_method = await sluice.stream.delete("/v1/streams")
    assert wrong_method.status_code == 405
    assert wrong_method.headers["allow"] == "GET, HEAD, POST"
    assert wrong_method.json()["type"] == "urn:sluice:problem:method-not-allowed"
    assert (await sluice.stream.get("/v2")).status_code == 404


async def test_a_failure_before_the_first_text_is_a_problem(sluice: Sluice) -> None:
    answer = await sluice.stream.post("/v1/streams", json=start_body("demo?fail_after=0"))
    assert answer.status_code == 502
    problem = answer.json()
    assert problem["type"] == "urn:sluice:problem:provider-failed"
    assert problem["retryable"] is True
    assert problem["code"] == "upstream"


async def test_a_failure_after_the_first_text_is_a_closed_event_with_the_text_kept(
    sluice: Sluice,
) -> None:
    answer = await sluice.stream.post(
        "/v1/streams", json=start_body("demo?tokens=40&fail_after=30&rate=0")
    )
    whole = await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=40&rate=0"))
    assert answer.status_code == 200
    closed = events(answer.text)[-1][2]
    assert closed["status"] == "failed"
    assert closed["finish_reason"] == "error"
    assert closed["error"]["retryable"] is True
    assert text_of(answer.text)
    assert text_of(whole.text).startswith(text_of(answer.text))


class Broken:
    """A provider with a bug, whose exception quotes the prompt."""

    def validate(self, model: str) -> None:
        pass

    def continuation(self, model: str) -> Continuation:
        return Continuation.PROMPT

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        yield "some text"
        raise ValueError(ask.messages[0].content)


async def test_a_bug_in_a_provider_ends_the_stream_and_tells_no_secret(
    sluice: Sluice, caplog: pytest.LogCaptureFixture
) -> None:
    sluice.services.models._providers["broken"] = Broken()
    body = {"model": "broken/x", "messages": [{"role": "user", "content": "canary-4711"}]}
    answer = await sluice.stream.post("/v1/streams", json=body)
    closed = events(answer.text)[-1][2]
    assert closed["status"] == "failed"
    assert text_of(answer.text) == "some text"
    assert "canary" not in answer.text
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert line.__dict__["error"] == "ValueError"
    assert not any("canary" in str(record.__dict__) for record in caplog.records)


async def test_a_repeated_request_gets_the_first_answer_again(sluice: Sluice) -> None:
    header = {"idempotency-key": "k1"}
    first = await sluice.stream.post("/v1/streams", json=start_body(), headers=header)
    again = await sluice.stream.post("/v1/streams", json=start_body(), headers=header)
    assert again.content == first.content
    assert again.headers["stream-id"] == first.headers["stream-id"]


async def test_a_repeated_request_gets_the_first_failure_again(sluice: Sluice) -> None:
    header = {"idempotency-key": "k1"}
    body = start_body("demo?fail_after=0")
    first = await sluice.stream.post("/v1/streams", json=body, headers=header)
    again = await sluice.stream.post("/v1/streams", json=body, headers=header)
    assert first.status_code == again.status_code == 502
    # It will be the same with this key, whatever the provider does by now.
    assert again.json() == {**first.json(), "retryable": False}


async def test_a_repeated_request_with_another_body_is_refused(sluice: Sluice) -> None:
    header = {"idempotency-key": "k1"}
    await sluice.stream.post("/v1/streams", json=start_body(), headers=header)
    other = await sluice.stream.post("/v1/streams", json=start_body(max_tokens=5), headers=header)
    assert other.status_code == 422
    assert other.json()["type"] == "urn:sluice:problem:idempotency-key-reused"


async def test_two_tenants_may_use_the_same_idempotency_key(sluice: Sluice) -> None:
    header = {"idempotency-key": "k1"}
    first = await sluice.stream.post("/v1/streams", json=start_body(), headers=header)
    async with client(stream.build(sluice.services), "other") as other:
        second = await other.post("/v1/streams", json=start_body(), headers=header)
    assert first.headers["stream-id"] != second.headers["stream-id"]


async def test_a_repeated_request_while_the_first_runs_is_told_where_it_is(sluice: Sluice) -> None:
    header = {"idempotency-key": "k1"}
    body = start_body("demo?tokens=5&rate=1000&silence_after=2&silence=1")
    first = asyncio.create_task(sluice.stream.post("/v1/streams", json=body, headers=header))
    await asyncio.sleep(0.1)
    second = await sluice.stream.post("/v1/streams", json=body, headers=header)
    assert second.status_code == 409
    assert second.json()["type"] == "urn:sluice:problem:idempotency-in-flight"
    answer = await first
    assert second.headers["location"] == answer.headers["location"]
    assert second.json()["stream"] == answer.headers["stream-id"]


async def test_many_at_once_with_one_idempotency_key_start_one_stream(sluice: Sluice) -> None:
    header = {"idempotency-key": "k1"}
    answers = await asyncio.gather(
        *(sluice.stream.post("/v1/streams", json=start_body(), headers=header) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    streams = (await sluice.api.get("/v1/streams")).json()["streams"]
    assert len(streams) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_malformed_idempotency_key_is_a_problem(sluice: Sluice, key: str) -> None:
    answer = await sluice.stream.post(
        "/v1/streams", json=start_body(), headers={"idempotency-key": key}
    )
    assert answer.status_code == 400
    assert answer.json()["field"] == "Idempotency-Key"


async def test_a_refined_answer_keeps_its_parents_text_in_context(sluice: Sluice) -> None:
    first = await sluice.stream.post("/v1/streams", json=start_body())
    parent = first.headers["stream-id"]
    second = await sluice.stream.post("/v1/streams", json=start_body(parent=parent))
    key = StreamKey("demo", second.headers["stream-id"])
    opened = (await sluice.services.log.read(key)).records[0]
    messages = [(m["role"], m["content"]) for m in opened.body["messages"]]
    assert messages == [("user", "hi"), ("assistant", text_of(first.text)), ("user", "hi")]
    assert (await sluice.api.get(f"/v1/streams/{key.stream}")).json()["parent"] == parent


async def test_a_parent_that_runs_is_cancelled_and_its_text_so_far_taken(sluice: Sluice) -> None:
    slow = start_body("demo?tokens=500&rate=100")
    running = asyncio.create_task(sluice.stream.post("/v1/streams", json=slow))
    await asyncio.sleep(0.3)
    found = (await sluice.api.get("/v1/streams")).json()["streams"]
    second = await sluice.stream.post("/v1/streams", json=start_body(parent=found[0]["id"]))
    first = await running
    assert events(first.text)[-1][2]["status"] == "cancelled"
    key = StreamKey("demo", second.headers["stream-id"])
    opened = (await sluice.services.log.read(key)).records[0]
    assert opened.body["messages"][1]["content"] == text_of(first.text)


async def test_a_foreign_parent_is_not_found(sluice: Sluice) -> None:
    async with client(stream.build(sluice.services), "other") as other:
        theirs = await other.post("/v1/streams", json=start_body())
    before = sluice.store.writes
    answer = await sluice.stream.post(
        "/v1/streams", json=start_body(parent=theirs.headers["stream-id"])
    )
    assert answer.status_code == 404
    assert sluice.store.writes == before


async def test_production_goes_on_when_the_client_leaves(sluice: Sluice) -> None:
    async with (
        serving(stream.build(sluice.services)) as url,
        httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer demo"}) as anyone,
    ):
        body = start_body("demo?tokens=40&rate=100")
        async with anyone.stream("POST", "/v1/streams", json=body) as answer:
            async for _ in answer.aiter_bytes():
                break
        stream_id = answer.headers["stream-id"]
        rest = await anyone.get(f"/v1/streams/{stream_id}/events", timeout=10)
    assert events(rest.text)[-1][2]["usage"]["output_tokens"] == 40


async def test_who_follows_a_stream_without_a_producer_has_another_go_on(sluice: Sluice) -> None:
    key = (await begin(sluice.services, QUICK, age_s=16)).key
    answer = await sluice.stream.get(f"/v1/streams/{key.stream}/events")
    whole = await sluice.stream.post("/v1/streams", json=start_body(QUICK))
    assert text_of(answer.text) == text_of(whole.text)
    assert events(answer.text)[-1][2]["status"] == "completed"
    assert len(sluice.productions.tasks) == 1
    told = [(entry.event, entry.outcome) for entry in await sluice.audit(key.stream)]
    assert told[:3] == [("started", "ok"), ("taken-over", "lost"), ("closed", "stop")]


async def test_a_stream_whose_producers_die_one_after_the_other_is_closed(sluice: Sluice) -> None:
    await sluice.policy(takeovers=0)
    key = (await begin(sluice.services, age_s=16, chunks=1)).key
    answer = await sluice.stream.get(f"/v1/streams/{key.stream}/events")
    assert text_of(answer.text) == "x"
    closed = events(answer.text)[-1][2]
    assert closed["status"] == "failed"
    assert closed["error"]["type"] == "urn:sluice:problem:producer-lost"
    assert closed["error"]["retryable"] is True
    assert (await sluice.api.get(f"/v1/streams/{key.stream}")).json()["status"] == "failed"


async def test_healthz_needs_no_key(sluice: Sluice) -> None:
    transport = httpx.ASGITransport(stream.build(sluice.services))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as anyone:
        answer = await anyone.get("/healthz")
    assert answer.json() == {"status": "ok", "version": "dev"}
    assert answer.headers["request-id"]


def with_deadline(app: ASGIApp, seconds: float) -> ASGIApp:
    """The app as the runtime calls it, in an invocation that ends so soon."""

    async def invoked(scope: Scope, receive: Receive, send: Send) -> None:
        deadline_ms = int((time.time() + seconds) * 1000)
        scope["extensions"] = {"lambda": {"deadline_ms": deadline_ms, "request_id": "r-1"}}
        await app(scope, receive, send)

    return invoked


@virtual
async def test_an_answer_outlasts_its_invocation() -> None:
    async with running() as sluice:
        app = with_deadline(stream.build(sluice.services), DEADLINE_MARGIN_S + 2)
        body = start_body("demo?tokens=900&rate=50")
        async with client(app) as late:
            answer = await late.post("/v1/streams", json=body)
        assert answer.headers["request-id"] == "r-1"
        seen = events(answer.text)
        # Told where to go on, with what was written before the handover.
        assert hint_of(answer.text) == seen[-1][0]
        assert "epoch" in [name for _, name, _ in seen]
        path, last = answer.headers["location"], str(seen[-1][0])
        rest = await sluice.stream.get(path, headers={"last-event-id": last})
        whole = await sluice.stream.post("/v1/streams", json=body)
        assert text_of(answer.text) + text_of(rest.text) == text_of(whole.text)
        assert events(rest.text)[-1][2]["status"] == "completed"


@virtual
async def test_an_answer_of_an_hour_reaches_a_client_that_comes_again() -> None:
    """Every invocation has its 15 minutes: who produces and who follows."""
    async with running() as sluice:
        sluice.productions.invocation_s = 900
        app = with_deadline(stream.build(sluice.services), 900)
        body = start_body("demo?tokens=10800&rate=3", pacing={"flush_interval_ms": 5000})
        begun = asyncio.get_running_loop().time()
        async with client(app) as coming:
            answer = await coming.post("/v1/streams", json=body)
            path, text, connections = answer.headers["location"], text_of(answer.text), 1
            while "closed" not in [name for _, name, _ in events(answer.text)]:
                last = str(events(answer.text)[-1][0])
                answer = await coming.get(path, headers={"last-event-id": last})
                text += text_of(answer.text)
                connections += 1
        took_s = asyncio.get_running_loop().time() - begun
        quick = start_body("demo?tokens=10800&rate=0")
        whole = await sluice.stream.post("/v1/streams", json=quick)
    assert 3600 <= took_s < 3700
    assert connections == 5
    assert len(sluice.productions.tasks) == 4
    assert text == text_of(whole.text)


async def test_a_follower_is_let_go_before_its_invocation_ends_and_comes_again(
    sluice: Sluice,
) -> None:
    body = start_body("demo?tokens=80&rate=50")
    started = await sluice.api.post("/v1/streams", json=body, headers={"prefer": "respond-async"})
    path = f"/v1/streams/{started.json()['id']}/events"
    async with client(with_deadline(stream.build(sluice.services), FOLLOW_MARGIN_S + 0.5)) as late:
        first = await late.get(path)
    seen = events(first.text)
    assert seen[-1][1] == "chunk"
    assert hint_of(first.text) == seen[-1][0]
    rest = await sluice.stream.get(path, headers={"last-event-id": str(seen[-1][0])})
    whole = await sluice.stream.get(path)
    assert seen + events(rest.text) == events(whole.text)
    assert events(whole.text)[-1][2]["status"] == "completed"


async def test_head_tells_what_get_would_begin_with(sluice: Sluice) -> None:
    answer = await sluice.stream.post("/v1/streams", json=start_body())
    head = await sluice.stream.head(answer.headers["location"])
    assert head.status_code == 200
    assert head.headers["content-type"] == SSE
    assert (await sluice.stream.head(f"/v1/streams/{'0' * 32}/events")).status_code == 404


class Peer:
    """The other side of one request, seen by the app: it may fail, or take nothing any more."""

    def __init__(self, *, takes: int, then: str) -> None:
        self.sent: list[Message] = []
        self._takes = takes
        self._then = then

    async def send(self, message: Message) -> None:
        if len(self.sent) == self._takes:
            if self._then == "leaves":
                raise OSError
            await asyncio.Event().wait()
        self.sent.append(message)

    async def receive(self) -> Message:
        if self._then == "leaves" and len(self.sent) >= self._takes:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    async def ask(self, sluice: Sluice, model: str, **more: Any) -> EventStream:
        """Let a stream of its own begin, and take its response."""
        began = await begin(sluice.services, model, **more)
        request = Request({"type": "http", "state": {"caller": await caller(sluice.services)}})
        response = await stream._answer(sluice.services, request, began)
        assert isinstance(response, EventStream)
        return response


@pytest.mark.parametrize("takes", [0, 1, 3])
async def test_a_client_that_leaves_does_not_hold_a_throttled_model_back(
    sluice: Sluice, takes: int
) -> None:
    peer = Peer(takes=takes, then="leaves")
    pacing = Pacing((0, 0), 0, "none")
    response = await peer.ask(sluice, "demo?tokens=400&rate=2000", throttle=True, pacing=pacing)
    async with asyncio.timeout(10):
        await response({}, peer.receive, peer.send)
    (found,) = (await sluice.api.get("/v1/streams")).json()["streams"]
    assert found["status"] == "completed"


@virtual
async def test_a_client_that_does_not_read_does_not_hold_its_producers_invocation() -> None:
    async with running() as sluice:
        await sluice.policy(limits={"idle_s": 5})
        peer = Peer(takes=1, then="stalls")
        response = await peer.ask(sluice, "demo?tokens=5&rate=0")
        async with asyncio.timeout(10):
            await response({}, peer.receive, peer.send)
    assert len(peer.sent) == 1


# It was produced on to its end, and the process waited for that.
@pytest.mark.parametrize("client", ["stalls", "leaves"])
@virtual
async def test_who_is_told_to_stop_hands_over_whatever_its_client_does(client: str) -> None:
    async with running() as sluice:
        peer = Peer(takes=2, then=client)
        response = await peer.ask(sluice, "demo?tokens=500&rate=1")
        answering = asyncio.create_task(response({}, peer.receive, peer.send))
        await asyncio.sleep(10)
        assert not answering.done()
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        assert asyncio.get_running_loop().time() < 13
        (found,) = (await sluice.api.get("/v1/streams")).json()["streams"]
        records = await sluice.services.log.all_records(StreamKey("demo", found["id"]))
        assert [r.body["reason"] for r in records if r.kind == "vacant"] == ["shutdown"]


@virtual
async def test_a_producer_that_gave_up_leaves_an_entry_of_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as sluice:
        peer = Peer(takes=2, then="leaves")
        response = await peer.ask(sluice, "demo?tokens=500&rate=1")
        answering = asyncio.create_task(response({}, peer.receive, peer.send))
        await asyncio.sleep(5)

        async def failing(*_: object) -> None:
            raise Unavailable

        monkeypatch.setattr(sluice.store, "write", failing)
        with pytest.raises(Unavailable):
            await answering
        told = [entry.event for entry in await sluice.audit(response.headers["stream-id"])]
        assert told == ["started", "interrupted"]


async def test_a_log_that_cannot_be_read_ends_a_response_in_order(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sees the end of a body without `closed`, and connects again."""
    key = (await begin(sluice.services)).key
    read, reads = sluice.services.log.read, 0

    async def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads > 2:
            raise Unavailable
        return await read(*arguments, **named)

    monkeypatch.setattr(sluice.services.log, "read", failing)
    answer = await sluice.stream.get(f"/v1/streams/{key.stream}/events")
    assert [event for _, event, _ in events(answer.text)] == ["opened"]


async def test_a_validator_of_ones_own_ends_an_answer(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_paragraphs(text: str) -> None:
        if "paragraph" in text:
            raise PolicyViolation("no-paragraphs", text[: text.index("paragraph")])

    monkeypatch.setattr(wiring, "validators", lambda tenant, start: (no_paragraphs,))
    answer = await sluice.stream.post("/v1/streams", json=start_body())
    assert "paragraph" not in answer.text
    assert '"finish_reason":"policy"' in answer.text
