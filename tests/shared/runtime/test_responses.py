"""From what an app sends to what the Runtime API is given."""

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shared.runtime.cycle import Message, Receive, Send
from tests.shared.runtime import events
from tests.shared.runtime.apps import Scope, answering, body, serve, start
from tests.shared.runtime.fake import PATIENCE_S, FakeRuntimeApi, Taker


def test_the_head_is_that_of_a_streaming_response() -> None:
    [response] = serve(answering(start(), body(b"x")), FakeRuntimeApi(events.function_url()))
    assert response.method == "POST"
    assert response.path == "/2018-06-01/runtime/invocation/request-1/response"
    assert response.headers["Lambda-Runtime-Function-Response-Mode"] == "streaming"
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.headers["Content-Type"] == "application/vnd.awslambda.http-integration-response"
    assert response.headers["Trailer"] == (
        "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body"
    )
    assert "Lambda-Runtime-Invocation-Id" not in response.headers
    assert response.ended
    assert response.trailers == {}


def test_an_emulators_prefix_is_kept() -> None:
    fake = FakeRuntimeApi(events.function_url(), prefix="/.rt/app")
    [response] = serve(answering(start(), body()), fake)
    assert response.path == "/.rt/app/2018-06-01/runtime/invocation/request-1/response"


def test_prelude_nuls_and_every_message_are_chunks_of_their_own() -> None:
    messages = [start(201), body(b"one", more=True), body(b"two", more=True), body(b"three")]
    [response] = serve(answering(*messages), FakeRuntimeApi(events.function_url()))
    assert response.prelude == {"statusCode": 201, "headers": {}, "cookies": []}
    assert response.frames[1:] == [b"\0" * 8, b"one", b"two", b"three"]


def test_an_empty_message_does_not_end_the_body() -> None:
    messages = [start(), body(b"", more=True), body(b"a", more=True), body(b"", more=True)]
    [response] = serve(
        answering(*messages, body(b"b", more=True), body()), FakeRuntimeApi(events.function_url())
    )
    assert response.frames[2:] == [b"a", b"b"]
    assert response.ended


def test_cookies_and_repeated_headers() -> None:
    headers = [
        (b"set-cookie", b"a=1; Path=/, x"),
        (b"vary", b"origin"),
        (b"Set-Cookie", b"b=2"),
        (b"vary", b"accept"),
        (b"x-latin", b"n\xe4h\x00"),
    ]
    [response] = serve(
        answering(start(200, headers), body()), FakeRuntimeApi(events.function_url())
    )
    assert response.prelude["cookies"] == ["a=1; Path=/, x", "b=2"]
    assert response.prelude["headers"] == {"vary": "origin, accept", "x-latin": "näh\0"}
    assert b"\0" not in response.frames[0]


def test_a_binary_body_passes_unchanged() -> None:
    data = bytes(range(256)) * 1000
    messages = [start(), body(data, more=True), {**body(), "body": memoryview(data)}]
    [response] = serve(answering(*messages), FakeRuntimeApi(events.function_url()))
    assert response.body == data * 2


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 204), ("GET", 304), ("HEAD", 200), ("HEAD", 404)]
)
def test_no_body_where_there_may_be_none(method: str, status: int) -> None:
    messages = [start(status), body(b"no", more=True), body(b"body")]
    [response] = serve(answering(*messages), FakeRuntimeApi(events.function_url(method)))
    assert response.prelude["statusCode"] == status
    assert response.frames[2:] == []
    assert response.ended


def test_a_prelude_that_lambda_would_not_take_is_a_500(capfd: pytest.CaptureFixture[str]) -> None:
    fits = [(b"x-long", b"x" * 16_000)]
    too_long = [(b"x-long", b"x" * 16_400)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, fits if scope["path"] == "/fits" else too_long))
        await send(body())

    first, second = serve(
        app, FakeRuntimeApi(events.function_url(path="/fits"), events.function_url())
    )
    assert first.prelude["statusCode"] == 200
    assert second.prelude["statusCode"] == 500
    assert "ValueError" in capfd.readouterr().err


def test_a_chunk_arrives_before_the_next_is_made() -> None:
    arrived: list[threading.Event] = [threading.Event() for _ in range(5)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for event in arrived[2:]:
            await send(body(b"x", more=True))
            assert await asyncio.to_thread(event.wait, PATIENCE_S)
        await send(body())

    taker = Taker(on_frame=lambda count: arrived[count - 1].set())
    [response] = serve(app, FakeRuntimeApi(events.function_url(), takers=[taker]))
    assert response.frames[2:] == [b"x"] * 3


def test_the_prelude_arrives_before_the_first_chunk_is_made() -> None:
    arrived = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        assert await asyncio.to_thread(arrived.wait, PATIENCE_S)
        await send(body())

    taker = Taker(on_frame=lambda count: arrived.set() if count == 2 else None)
    [response] = serve(app, FakeRuntimeApi(events.function_url(), takers=[taker]))
    assert response.ended


def test_an_app_waits_for_a_reader_that_is_slower() -> None:
    chunk, count = b"x" * 262_144, 256  # 64 MiB, of which the kernel's buffers take a few
    hold = threading.Event()
    sent = 0

    async def release_when_stuck() -> None:
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        hold.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        watch = asyncio.create_task(release_when_stuck())
        for _ in range(count):
            await send(body(chunk, more=True))
            sent += 1
            if not hold.is_set():
                stuck_at[0] = sent
        await send(body())
        await watch

    stuck_at = [0]
    [response] = serve(app, FakeRuntimeApi(events.function_url(), takers=[Taker(hold=hold)]))
    assert 0 < stuck_at[0] < count // 2
    assert len(response.body) == len(chunk) * count


def test_the_invocation_id_is_echoed() -> None:
    fake = FakeRuntimeApi(
        events.function_url(), "no event", headers={"Lambda-Runtime-Invocation-Id": "inv-7"}
    )
    [response] = serve(answering(start(), body()), fake)
    assert response.headers["Lambda-Runtime-Invocation-Id"] == "inv-7"
    assert fake.errors[0].headers["Lambda-Runtime-Invocation-Id"] == "inv-7"


def test_an_answer_that_comes_early_does_not_end_the_response() -> None:
    """Emulators answer 200 once they have the head, and go on reading."""
    seen = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(20):
            await send(body(b"x", more=True))
            await asyncio.sleep(0.01)
        await send(body())
        seen.set()

    taker = Taker(status=200, early=True)
    [response] = serve(app, FakeRuntimeApi(events.function_url(), takers=[taker]))
    assert response.ended
    assert len(response.body) == 20
    assert seen.is_set()


def test_one_event_loop_serves_all_invocations_but_each_has_its_own_context() -> None:
    leaked: ContextVar[str] = ContextVar("leaked", default="clean")
    loops, values = [], []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loops.append(asyncio.get_running_loop())
        values.append(leaked.get())
        leaked.set("of another request")
        await send(start())
        await send(body())

    serve(app, FakeRuntimeApi(*[events.function_url()] * 3))
    assert len({id(loop) for loop in loops}) == 1
    assert values == ["clean"] * 3


@pytest.mark.parametrize("keep", [False, True])
def test_receive_tells_of_the_end_once_the_response_is_complete(keep: bool) -> None:
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        waiting = asyncio.ensure_future(receive())
        await send(start())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await send(body())
        async with asyncio.timeout(PATIENCE_S):
            received.append(await waiting)

    serve(app, FakeRuntimeApi(events.function_url(body="b"), takers=[Taker(keep=keep)]))
    assert received == [
        {"type": "http.request", "body": b"b", "more_body": False},
        {"type": "http.disconnect"},
    ]


def test_a_starlette_app_needs_no_change() -> None:
    async def hello(request: Request) -> JSONResponse:
        return JSONResponse({"who": await request.json(), "q": request.query_params["q"]})

    app = Starlette(routes=[Route("/hello/{name}", hello, methods=["POST"])])
    event: dict[str, Any] = events.function_url(
        "POST", "/hello/you", query="q=%C3%A4", body='["me"]'
    )
    missing = events.function_url("GET", "/nowhere")
    first, second = serve(app, FakeRuntimeApi(event, missing))
    assert first.prelude["headers"]["content-type"] == "application/json"
    assert first.body == '{"who":["me"],"q":"ä"}'.encode()
    assert second.prelude["statusCode"] == 404
