"""One port for two apps."""

import socket

import pytest
from starlette.types import Message, Receive, Scope, Send

from functions.wiring import Services
from local.errors import Failed
from local.server import (
    go_on,
    listening,
    one_port,
    only_here,
    streams,
    with_request_lines,
)
from shared.administration import Administration
from shared.records import StreamKey
from shared.settings import Settings
from tests.functions.conftest import begin
from tests.model_store import ModelStore


def scope(method: str, path: str, **headers: str) -> Scope:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "headers": raw,
    }


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (scope("POST", "/v1/streams"), True),
        (scope("POST", "/v1/streams", prefer="respond-async"), True),
        (scope("GET", "/v1/streams"), True),
        (scope("GET", "/v1/streams/x/events"), True),
        (scope("GET", "/v1/streams/x/chunks"), False),
        (scope("GET", "/v1/streams/x"), False),
        (scope("POST", "/v1/streams/x/cancel"), False),
        (scope("DELETE", "/v1/streams/x"), False),
        (scope("GET", "/healthz"), False),
    ],
)
async def test_which_app_serves(request_: Scope, expected: bool) -> None:
    served: list[str] = []

    async def first(scope: Scope, receive: Receive, send: Send) -> None:
        served.append("stream")

    async def second(scope: Scope, receive: Receive, send: Send) -> None:
        served.append("api")

    await one_port(first, second)(request_, _receive, _send)
    assert served == ["stream" if expected else "api"]
    assert streams(request_["path"]) is expected


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["127.0.0.1:8787"], 200),
        (["localhost"], 200),
        (["LOCALHOST:1"], 200),
        (["[::1]:8787"], 200),
        (["evil.example:8787"], 403),
        (["127.0.0.1.evil.example"], 403),
        (["localhost.evil.example:8787"], 403),
        (["evil.example#localhost"], 403),
        (["127.0.0.1:x"], 403),
        (["192.168.0.7:8787"], 403),
        ([""], 403),
        ([], 403),
        (["localhost", "evil.example"], 403),
    ],
)
async def test_a_page_that_calls_us_by_its_own_name_is_refused(
    hosts: list[str], status: int
) -> None:
    """DNS rebinding: it would be of our own origin, and the key of a local run is no secret."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Message) -> None:
        sent.append(message)

    asked = scope("POST", "/v1/streams", origin="http://evil.example:8787")
    asked["headers"] += [(b"host", host.encode()) for host in hosts]
    await only_here(app)(asked, _receive, send)
    assert sent[0]["status"] == status
    if status == 403:
        assert b"urn:sluice:problem:forbidden" in sent[1]["body"]


async def test_a_request_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})

    await with_request_lines(app)(scope("GET", "/v1/x%1b[2J"), _receive, _send)
    line = capsys.readouterr().out
    assert line.startswith("GET /v1/x%1b[2J 404 ")
    assert line.endswith(" ms\n")


async def test_a_request_that_raised_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await with_request_lines(app)(scope("GET", "/"), _receive, _send)
    assert capsys.readouterr().out.startswith("GET / - ")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Failed, match=f"port {port} is taken; choose another with --port"):
            listening(port).__enter__()


def test_two_runs_that_start_at_once_do_not_share_a_port() -> None:
    with listening(0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Failed, match="is taken"):
            listening(port).__enter__()


async def _receive() -> dict[str, str]:
    return {"type": "http.disconnect"}


async def _send(message: object) -> None:
    pass


async def test_a_run_goes_on_at_once_with_what_the_last_one_left_vacant() -> None:
    store, launched = ModelStore(), []

    async def launch(key: StreamKey) -> None:
        launched.append(key)

    services = Services.on(store, Settings(), launch=launch)
    await Administration(store).ensure("demo", "demo")
    left = [(await begin(services, epoch=0)).key for _ in range(3)]
    await begin(services)  # whose producer may be alive, elsewhere
    await go_on(services)
    assert set(launched) == set(left)
