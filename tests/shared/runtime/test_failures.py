"""What a client, Lambda and the log are told when something breaks."""

import asyncio
import json
import threading
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from shared.runtime import client, cycle, loop
from shared.runtime.client import RuntimeApi, RuntimeApiError
from shared.runtime.cycle import App, Message, Receive, Send
from tests.shared.runtime import events
from tests.shared.runtime.apps import Scope, answering, body, serve, start
from tests.shared.runtime.fake import PATIENCE_S, FakeRuntimeApi, Taker

SECRET = "the prompt of a client"
PROBLEM = {
    "type": "urn:sluice:problem:internal",
    "title": "Something went wrong on our side",
    "status": 500,
}


def failing(error: Callable[[], BaseException], *messages: Message) -> App:
    """An app that sends these messages, then raises; after the first invocation it behaves."""
    calls = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            await answering(start(), body(b"fine"))(scope, receive, send)
            return
        await answering(*messages)(scope, receive, send)
        raise error()

    return app


def logged(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


ERRORS = [lambda: ValueError(SECRET), lambda: OSError(SECRET), asyncio.CancelledError]


@pytest.mark.parametrize("error", ERRORS)
def test_before_the_start_the_client_gets_a_problem(
    error: Callable[[], BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRuntimeApi(events.function_url(body=SECRET), events.function_url())
    first, second = serve(failing(error), fake)
    assert first.prelude["statusCode"] == 500
    assert first.prelude["headers"] == {"content-type": "application/problem+json"}
    assert json.loads(first.body) == PROBLEM
    assert first.trailers == {}
    assert second.body == b"fine"
    assert fake.errors == []
    [line] = logged(capfd)
    assert line["level"] == "ERROR"
    assert line["request_id"] == "request-1"
    assert line["error_type"] == type(error()).__name__
    assert any(
        "test_failures.py" in place and place.endswith(" app") for place in line["traceback"]
    )
    assert SECRET not in json.dumps(line)


@pytest.mark.parametrize("error", ERRORS)
def test_after_the_start_the_trailers_tell_of_it(
    error: Callable[[], BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    app = failing(error, start(), body(b"some", more=True))
    fake = FakeRuntimeApi(events.function_url(), events.function_url())
    first, second = serve(app, fake)
    kind = type(error()).__name__
    assert first.body == b"some"
    assert first.ended
    assert first.trailers["Lambda-Runtime-Function-Error-Type"] == kind
    told = json.loads(b64decode(first.trailers["Lambda-Runtime-Function-Error-Body"]))
    assert told == {"errorType": kind, "requestId": "request-1"}
    assert fake.errors == []
    assert second.body == b"fine"
    [line] = logged(capfd)
    assert line["error_type"] == kind
    assert SECRET not in json.dumps(line)


def test_after_the_end_a_failure_is_only_logged(capfd: pytest.CaptureFixture[str]) -> None:
    app = failing(lambda: ValueError(SECRET), start(), body(b"all"))
    [response] = serve(app, FakeRuntimeApi(events.function_url()))
    assert response.body == b"all"
    assert response.trailers == {}
    assert [line["error_type"] for line in logged(capfd)] == ["ValueError"]


def test_an_app_that_starts_no_response_is_a_500() -> None:
    [response] = serve(answering(), FakeRuntimeApi(events.function_url()))
    assert json.loads(response.body) == PROBLEM


def test_an_app_that_does_not_end_its_response_has_failed() -> None:
    [response] = serve(
        answering(start(), body(b"x", more=True)), FakeRuntimeApi(events.function_url())
    )
    assert response.trailers["Lambda-Runtime-Function-Error-Type"] == "Incomplete"


@pytest.mark.parametrize(
    ("messages", "status", "trailers"),
    [
        ([body(b"x")], 500, False),
        ([start(), start()], 200, True),
        ([{"type": "http.response.trailers"}], 500, False),
        ([start(), body(b"x"), body(b"y")], 200, False),
    ],
)
def test_an_unexpected_message_is_an_error(
    messages: list[Message], status: int, trailers: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    [response] = serve(answering(*messages), FakeRuntimeApi(events.function_url()))
    assert response.prelude["statusCode"] == status
    assert bool(response.trailers) is trailers
    assert [line["error_type"] for line in logged(capfd)] == ["RuntimeError"]


def test_a_starlette_app_that_fails_is_answered_for_by_its_own_middleware() -> None:
    async def broken(request: Request) -> StreamingResponse:
        raise ValueError(SECRET)

    [response] = serve(
        Starlette(routes=[Route("/", broken)]), FakeRuntimeApi(events.function_url())
    )
    assert response.prelude["statusCode"] == 500
    assert response.body == b"Internal Server Error"


@pytest.mark.parametrize("status", [410, 413, 400, 500])
def test_a_refused_response_is_logged_and_survived(
    status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRuntimeApi(
        events.function_url(), events.function_url(), takers=[Taker(status=status), Taker()]
    )
    responses = serve(answering(start(), body(b"x")), fake)
    assert [response.ended for response in responses] == [True, True]
    [line] = logged(capfd)
    assert (line["level"], line["status"], line["request_id"]) == ("WARN", status, "request-1")


@pytest.mark.parametrize("status", [410, 500])
def test_a_refused_error_is_logged_and_survived(
    status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRuntimeApi("no event", events.function_url(), error_status=status)
    [response] = serve(answering(start(), body(b"x")), fake)
    assert response.body == b"x"
    assert [line.get("status") for line in logged(capfd)] == [None, status]


def streaming(timeline: list[str], received: list[Any]) -> App:
    """An app that streams until `send` fails, and then still has something to do."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await send(start())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await send(body(b"x" * 1000, more=True))
                    await asyncio.sleep(0.001)
        except OSError:
            timeline.append("send failed")
        with pytest.raises(OSError):  # noqa: PT011 - every later one fails as well
            await send(body(b"y"))
        received.append(await waiting)
        await asyncio.sleep(0.1)
        timeline.append("app returned")

    return app


TAKERS = [
    Taker(status=410, refuse_after=5),
    Taker(status=413, refuse_after=5),
    Taker(status=410, early=True),
    Taker(cut_after=5),
    Taker(cut_after=5, reset=True),
    Taker(cut_after=2),
    Taker(status=200, early=True, cut_after=5, reset=True),
]


@pytest.mark.parametrize("taker", TAKERS, ids=repr)
def test_the_invocation_of_a_lost_client_ends_when_its_app_has(
    taker: Taker, capfd: pytest.CaptureFixture[str]
) -> None:
    received: list[Any] = []
    fake = FakeRuntimeApi(events.function_url(), "end", takers=[taker, Taker()])
    serve(streaming(fake.timeline, received), fake)
    assert fake.timeline[:5] == [
        "GET /invocation/next",
        "POST /invocation/request-1/response",
        "send failed",
        "app returned",
        "GET /invocation/next",
    ]
    assert received == [{"type": "http.disconnect"}]
    line = logged(capfd)[0]
    assert line["request_id"] == "request-1"
    if taker.status >= 400:
        assert (line["level"], line["status"]) == ("WARN", taker.status)
    else:
        assert line["level"] == "INFO"


def test_a_send_that_waits_for_a_reader_wakes_when_the_response_is_refused() -> None:
    waiting: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await send(body(b"x" * 1_000_000, more=True))
        except OSError:
            waiting.append(False)

    taker = Taker(status=410, refuse_after=3, drain=False)
    fake = FakeRuntimeApi(events.function_url(), takers=[taker])
    serve(app, fake)
    assert waiting == [False]


@pytest.mark.parametrize("more", [True, False], ids=["in its midst", "at its end"])
def test_an_app_that_gives_a_client_up_which_takes_nothing_is_not_held_by_it(
    more: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for module in (client, cycle):
        monkeypatch.setattr(module, "PARTING_S", 0.1)
    taken = threading.Event()
    messages = [body(b"x" * 65_536, more=True)] * 1000 if more else [body(b"x")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            taken.set()
            return await answering(start(), body())(scope, receive, send)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await answering(start(), *messages)(scope, receive, send)
        return None

    fake = FakeRuntimeApi(
        events.function_url(),
        events.function_url(path="/next"),
        takers=[Taker(hold=taken), Taker()],
    )
    first, second = serve(app, fake)
    assert (first.ended, first.trailers) == (not more, {})
    assert second.ended
    assert [(line["level"], line["request_id"]) for line in logged(capfd)] == [
        ("INFO", "request-1")
    ]


def test_starlette_sees_a_lost_client_as_its_own_disconnect(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def stream(request: Request) -> StreamingResponse:
        async def forever() -> Any:
            while True:
                yield b"x"
                await asyncio.sleep(0.001)

        return StreamingResponse(forever())

    app = Starlette(routes=[Route("/", stream)])
    fake = FakeRuntimeApi(
        events.function_url(), events.function_url(), takers=[Taker(cut_after=5)] * 2
    )
    serve(app, fake)
    assert [line["level"] for line in logged(capfd)] == ["INFO", "INFO"]


def test_another_failure_after_the_client_left_is_still_logged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start())
        await receive()
        raise KeyError(SECRET)

    serve(app, FakeRuntimeApi(events.function_url(), takers=[Taker(cut_after=2)]))
    first, second = logged(capfd)
    assert (first["level"], first["error_type"]) == ("ERROR", "KeyError")
    assert second["level"] == "INFO"


def test_a_task_that_nobody_awaits_does_not_print_what_it_raised(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def fail() -> None:
        raise ValueError(SECRET)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, fail())
        await asyncio.sleep(0.05)
        await send(start())
        await send(body())

    serve(app, FakeRuntimeApi(events.function_url()))
    assert [line["error_type"] for line in logged(capfd)] == ["ValueError"]


def test_the_loop_ends_when_the_runtime_api_is_gone() -> None:
    fake = FakeRuntimeApi()
    with fake:
        pass
    with pytest.raises(ConnectionRefusedError):
        loop.run(answering(), RuntimeApi(fake.address))


def test_a_response_that_cannot_even_start_is_a_lost_client() -> None:
    received = []
    with FakeRuntimeApi(events.function_url()) as fake:
        api = RuntimeApi(fake.address)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            api.host = "127.0.0.1:1"
            with pytest.raises(OSError):  # noqa: PT011 - any OSError is what ASGI asks for
                await send(start())
            with pytest.raises(OSError):  # noqa: PT011
                await send(body(b"x"))
            async with asyncio.timeout(PATIENCE_S):
                received.append(await receive())

        with pytest.raises(ConnectionRefusedError):
            loop.run(app, api)
    assert received == [{"type": "http.disconnect"}]
    assert fake.responses == []


def test_the_loop_ends_on_an_invocation_without_an_id() -> None:
    fake = FakeRuntimeApi(events.function_url(), headers={"Lambda-Runtime-Aws-Request-Id": ""})
    with fake, pytest.raises(RuntimeApiError):
        loop.run(answering(), RuntimeApi(fake.address))
