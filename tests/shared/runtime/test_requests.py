"""From an event to an ASGI scope."""

import os
import time
from base64 import b64encode
from typing import Any

import pytest

from tests.shared.runtime import events
from tests.shared.runtime.apps import Scope, Seen, serve
from tests.shared.runtime.fake import FakeRuntimeApi


def seen(event: Any, **fake: Any) -> tuple[Scope, bytes]:
    app = Seen()
    serve(app, FakeRuntimeApi(event, **fake))
    return app.scopes[0], app.bodies[0]


def test_a_function_url_request_is_an_asgi_scope() -> None:
    scope, body = seen(
        events.function_url(
            "POST",
            "/v1/streams",
            query="after=3&limit=5",
            headers={"x-forwarded-proto": "https", "authorization": "Bearer k"},
            cookies=["a=1", "b=2"],
            body='{"model": "demo"}',
        )
    )
    headers = dict(scope["headers"])
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (scope["method"], scope["path"]) == ("POST", "/v1/streams")
    assert scope["query_string"] == b"after=3&limit=5"
    assert scope["client"] == ("192.0.2.7", 0)
    assert scope["scheme"] == "https"
    assert headers[b"authorization"] == b"Bearer k"
    assert headers[b"cookie"] == b"a=1; b=2"
    assert body == b'{"model": "demo"}'
    assert not [key for key in scope if key.startswith("aws.")]


def test_a_rest_api_request_keeps_repeated_values() -> None:
    scope, body = seen(events.rest_api(path="/v1/streams"))
    assert scope["path"] == "/v1/streams"
    assert scope["query_string"] == b"q=1&q=2"
    assert scope["client"] == ("192.0.2.8", 0)
    assert [b"x-two", b"a, b"] in scope["headers"]
    assert body == b""


def test_a_load_balancer_request_is_understood() -> None:
    scope, _ = seen(events.load_balancer(path="/v1/usage"))
    assert scope["path"] == "/v1/usage"
    assert scope["client"] == ("192.0.2.9", 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"body": "näh"}, "näh".encode()),
        ({"body": b64encode(b"\0\xff\x80").decode(), "isBase64Encoded": True}, b"\0\xff\x80"),
        ({"body": ""}, b""),
        ({"body": None}, b""),
        ({}, b""),
    ],
)
def test_bodies(given: dict[str, Any], expected: bytes) -> None:
    assert seen(events.function_url("POST", **given))[1] == expected


def test_null_means_absent() -> None:
    scope, _ = seen(
        events.function_url(query=None, headers={"x-null": None}, cookies=None, body=None)
    )
    assert scope["query_string"] == b""
    assert b"x-null" not in dict(scope["headers"])


def test_the_app_is_told_of_its_invocation() -> None:
    deadline = int(time.time() * 1000) + 60_000
    told = {
        "Lambda-Runtime-Deadline-Ms": str(deadline),
        "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-1:1:function:stream",
        "Lambda-Runtime-Trace-Id": "Root=1-2-3",
    }
    scope, _ = seen(events.function_url(), headers=told)
    assert scope["extensions"]["lambda"] == {
        "deadline_ms": deadline,
        "request_id": "request-1",
        "function_arn": "arn:aws:lambda:eu-central-1:1:function:stream",
        "trace_id": "Root=1-2-3",
    }


@pytest.mark.parametrize("headers", [{}, {"Lambda-Runtime-Deadline-Ms": "600000"}])
def test_a_deadline_that_is_past_or_absent_is_none(headers: dict[str, str]) -> None:
    scope, _ = seen(events.function_url(), headers=headers)
    assert scope["extensions"]["lambda"]["deadline_ms"] is None


@pytest.mark.parametrize(
    ("headers", "expected"), [({"Lambda-Runtime-Trace-Id": "Root=1-2-3"}, "Root=1-2-3"), ({}, None)]
)
def test_the_trace_id_is_that_of_the_invocation(
    headers: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=of-the-one-before")
    traces = []

    class Tracing(Seen):
        async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
            traces.append(os.environ.get("_X_AMZN_TRACE_ID"))
            await super().__call__(scope, receive, send)

    serve(Tracing(), FakeRuntimeApi(events.function_url(), headers=headers))
    assert traces == [expected]


@pytest.mark.parametrize("event", [{"key1": "value1"}, [], "text", {"Records": []}, b"{", b"\xff"])
def test_an_event_that_is_not_http_is_an_error_and_the_loop_goes_on(event: Any) -> None:
    app = Seen()
    fake = FakeRuntimeApi(event, events.function_url(path="/next"))
    serve(app, fake)
    [error] = fake.errors
    assert error.path.endswith("/invocation/request-1/error")
    assert error.headers["Lambda-Runtime-Function-Error-Type"] == "Runtime.NotHttp"
    assert error.json["errorType"] == "Runtime.NotHttp"
    assert [scope["path"] for scope in app.scopes] == ["/next"]


@pytest.mark.parametrize(
    "broken",
    [
        {"requestContext": {"http": {"method": "GET", "path": "/"}}},
        {"headers": {"host": "a:b:c"}},
        {"body": "not base64!", "isBase64Encoded": True},
    ],
)
def test_a_malformed_http_event_is_a_clean_500(broken: dict[str, Any]) -> None:
    app = Seen()
    first, second = serve(
        app, FakeRuntimeApi(events.function_url() | broken, events.function_url())
    )
    assert first.prelude["statusCode"] == 500
    assert second.prelude["statusCode"] == 200
    assert len(app.scopes) == 1
