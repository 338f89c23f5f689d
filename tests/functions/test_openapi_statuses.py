"""Each status that our OpenAPI document tells of is brought about, and no other is met."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import httpx
import pytest
import schemathesis

from shared.dialects import native
from shared.dialects.openapi import document
from shared.dialects.openapi.operations import OPERATIONS, Operation
from shared.errors import Unavailable
from shared.records import StreamKey
from shared.settings import Settings
from tests.functions.conftest import ASYNC, Sluice, begin, by, client, running, start_body
from tests.simulation.clock import virtual

DOCUMENT = document(Settings().version)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)

QUICK = "demo?tokens=3&rate=0&ttft=0"
#: It says little for long.
LASTING = "demo?tokens=3&rate=0&ttft=0&silence_after=1&silence=300"
UNKNOWN = "0" * 32
#: What each operation refuses, where it takes anything that can be wrong.
WRONG: dict[str, dict[str, Any]] = {
    "startStream": {"json": {}},
    "listStreams": {"params": {"limit": 0}},
    "followStream": {"params": {"after": "x"}},
    "pollStream": {"params": {"wait": 21}},
    "eraseUser": {"user": "x" * (native.USER_CHARS_MAX + 1)},
    "exportUser": {"user": "x" * (native.USER_CHARS_MAX + 1)},
    "getAudit": {"params": {"start": "yesterday"}},
}


class Asking:
    """Asks for operations by their ids, and checks each answer against the document."""

    def __init__(self, sluice: Sluice, stream: str) -> None:
        self.sluice = sluice
        #: The operations and statuses that were answered.
        self.answered: set[tuple[str, int]] = set()
        self._named = {"stream": stream, "user": "ann", "erasure": UNKNOWN}

    async def __call__(
        self, operation: str, key: str = "demo", *, async_: bool = False, **how: Any
    ) -> httpx.Response:
        asked = next(each for each in OPERATIONS if each.id == operation)
        named = {name: how.pop(name, value) for name, value in self._named.items()}
        if operation == "startStream":
            how.setdefault("json", start_body(QUICK))
        how["headers"] = (
            how.get("headers", {}) | (by(key) if key else {}) | (ASYNC if async_ else {})
        )
        streams = "stream" in asked.functions and not async_
        app = self.sluice.stream_app if streams else self.sluice.api_app
        async with client(app, key="") as caller:
            answer = await caller.request(asked.method, asked.path.format(**named), **how)
        check(asked, answer)
        self.answered.add((operation, answer.status_code))
        return answer

    async def status(self, operation: str, key: str = "demo", **how: Any) -> int:
        return (await self(operation, key, **how)).status_code


def check(asked: Operation, answer: httpx.Response) -> None:
    """Whether the document foretells an answer: status, headers, content type, content."""
    operation = DOCUMENT["paths"][asked.path][asked.method.lower()]
    told = operation["responses"][str(answer.status_code)]
    if "$ref" in told:
        told = DOCUMENT["components"]["responses"][told["$ref"].rpartition("/")[2]]
    for name, header in told["headers"].items():
        assert name in answer.headers or not header["required"], (asked.id, name)
    if "content" in told:
        assert answer.headers["content-type"].partition(";")[0] in told["content"]
    else:
        assert answer.content == b""
    SCHEMA[asked.path][asked.method].validate_response(answer)


@asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    """All functions, with a stream that is closed."""
    async with running() as sluice:
        begun = await sluice.stream.post("/v1/streams", json=start_body(QUICK))
        yield Asking(sluice, begun.headers["stream-id"])


async def launched(ask: Asking, model: str = LASTING, **how: Any) -> str:
    """A stream that runs in the background and has said something."""
    answer = await ask("startStream", async_=True, json=start_body(model), **how)
    stream_id: str = answer.json()["id"]
    page = await ask("pollStream", stream=stream_id, params={"wait": 1})
    assert page.json()["closed"] is False
    return stream_id


async def forgotten(ask: Asking, headers: dict[str, str]) -> None:
    """A start whose stream was paused before it said anything, and for too long."""
    body = start_body("demo?ttft=9999")
    stream_id = (await ask("startStream", async_=True, json=body, headers=headers)).json()["id"]
    await ask("pauseStream", stream=stream_id)
    key = StreamKey("demo", stream_id)
    assert await ask.sluice.services.takeovers.tend(key, pause_s=-1) == "closed"


async def out_of_tokens(ask: Asking) -> str:
    """A stream that is paused for want of tokens, and whose answer is longer than a day has."""
    await ask.sluice.policy(limits={"tokens_per_day": 200}, on_quota="pause")
    body = start_body("demo?tokens=300&rate=0")
    stream_id = (await ask("startStream", async_=True, json=body)).json()["id"]
    await asyncio.gather(*ask.sluice.productions.tasks)
    await ask.sluice.policy(limits={"tokens_per_day": 20}, on_quota="pause")
    return str(stream_id)


async def refuse(ask: Asking, operation: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring about each refusal that has nothing to do with what the operation does."""
    store, name = ask.sluice.store, operation.id
    assert await ask.status(name, key="") == 401
    assert await ask.status(name, key="idle") == 403
    if "{stream}" in operation.path:
        assert await ask.status(name, stream=UNKNOWN) == 404
    if name in WRONG:
        assert await ask.status(name, **WRONG[name]) == 400
    if name != "followStream":
        assert await ask.status(name, key="other") == 429

    for error, status in ((Unavailable(), 503), (RuntimeError(), 500)):

        async def fail(error: Exception = error) -> NoReturn:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(store, "_arrive", fail)
            assert await ask.status(name) == status


async def answer_starts(ask: Asking) -> None:
    key = {"idempotency-key": "a"}
    assert await ask.status("startStream") == 200
    assert await ask.status("startStream", json=start_body(parent=UNKNOWN)) == 404
    long = {"messages": [{"role": "user", "content": "x" * 200_000}]}
    parent = (await ask("startStream", json=start_body(QUICK, **long))).headers["stream-id"]
    assert await ask.status("startStream", json=start_body(QUICK, parent=parent, **long)) == 413
    assert await ask.status("startStream", json=start_body("demo?fail_after=0")) == 502
    await launched(ask, headers=key)
    assert await ask.status("startStream", json=start_body(LASTING), headers=key) == 409
    assert await ask.status("startStream", json=start_body(QUICK), headers=key) == 422
    key = {"idempotency-key": "b"}
    await forgotten(ask, key)
    assert await ask.status("startStream", json=start_body("demo?ttft=9999"), headers=key) == 410


async def answer_readers(ask: Asking) -> None:
    running = await launched(ask)
    failed = (await ask("startStream", json=start_body("demo?fail_after=2&rate=0"))).headers
    for stream_id in (running, failed["stream-id"]):
        assert await ask.status("getStream", stream=stream_id) == 200
    assert (await ask("listStreams", params={"limit": 1})).json()["next_page"]
    assert await ask.status("followStream", stream=failed["stream-id"]) == 200
    assert await ask.status("followStream", params={"after": 2}) == 204
    assert (await ask("pollStream", params={"after": 1})).json()["closed"] is True
    assert await ask.status("exportStream", stream=failed["stream-id"]) == 200
    assert await ask.status("makeTicket") == 201
    assert await ask.status("exportUser") == 200
    assert await ask.status("getUsage") == 200
    assert (await ask("getAudit")).json()["entries"]
    assert await ask.status("getHealth") == await ask.status("getOpenApi") == 200


async def answer_steering(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await launched(ask)
    for steer in ("pauseStream", "resumeStream", "grantStream"):
        steered = [await ask(steer, stream=running), await ask(steer)]
        assert ["seq" in answer.json() for answer in steered] == [True, False]
    assert await ask.status("cancelStream", stream=running) == 202
    assert await ask.status("cancelStream") == 200
    cancelled = (await begin(ask.sluice.services)).key.stream
    assert await ask.status("cancelStream", stream=cancelled) == 202
    for steer in ("pauseStream", "resumeStream", "grantStream"):
        assert await ask.status(steer, stream=cancelled) == 202
    with monkeypatch.context() as patch:
        patch.setattr(ask.sluice.store, "overwrite", unavailable)
        erasing = await ask("eraseStream", stream=running)
    assert erasing.status_code == 202
    assert await ask.status("getErasure", erasure=erasing.json()["id"]) == 200
    assert await ask.status("getErasure") == 404
    assert await ask.status("eraseStream", stream=running) == 204
    assert await ask.status("eraseUser") == 202


async def unavailable(*_: object) -> NoReturn:
    raise Unavailable


@virtual
async def test_each_status_that_it_tells_of_is_given_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with asking() as ask:
        await ask.sluice.add_key("idle", scopes=frozenset(), user="ann")
        await ask.sluice.policy("other", limits={"starts_per_minute": 0, "polls_per_minute": 0})
        await answer_starts(ask)
        await answer_readers(ask)
        await answer_steering(ask, monkeypatch)
        for operation in OPERATIONS:
            if operation.scope:
                await refuse(ask, operation, monkeypatch)
        assert await ask.status("resumeStream", stream=await out_of_tokens(ask)) == 413
    told = {
        (operation.id, int(status))
        for operation in OPERATIONS
        for status in operation.to_document()["responses"]
    }
    assert ask.answered == told


@virtual
async def test_a_ticket_does_for_what_it_tells_of() -> None:
    async with asking() as ask:
        ticket = {"ticket": (await ask("makeTicket")).json()["ticket"]}
        for operation in OPERATIONS:
            if operation.scope:
                status = await ask.status(operation.id, key="", params=ticket)
                assert (status != 403) is operation.ticket, operation.id
