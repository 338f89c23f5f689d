"""The middleware, around small apps of its own: errors, the log, and all of it in its order."""

from collections.abc import Callable

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.audit.trail import Audit
from shared.errors import InvalidRequest, LimitExceeded, OriginNotAllowed, Unavailable
from shared.middleware import stack
from shared.middleware.context import Context
from shared.middleware.problems import Problems
from shared.records import StreamKey
from tests.model_store import ModelStore
from tests.shared.middleware.asking import ask, authority_of, whoami


def raising(error: Exception, *, started: bool = False) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


@pytest.fixture
async def stacked(store: ModelStore) -> Callable[[ASGIApp], ASGIApp]:
    """Puts all of the middleware around an app."""
    authority = await authority_of(store)
    return lambda app: stack(app, authority, Audit(store))


async def test_an_error_of_ours_is_told() -> None:
    answer = await ask(Problems(raising(InvalidRequest("`a` is bad.", field="a"))))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == "a"


async def test_an_errors_headers_are_sent() -> None:
    limit = LimitExceeded("tenant-tokens-per-day", limit=7, window_s=86400, retry_after_s=60)
    answer = await ask(Problems(raising(limit)))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["ratelimit-policy"] == '"tenant-tokens-per-day";q=7;w=86400'
    assert answer.headers["ratelimit"] == '"tenant-tokens-per-day";r=0;t=60'


async def test_any_other_error_is_not(caplog: pytest.LogCaptureFixture) -> None:
    answer = await ask(Problems(raising(ValueError("canary"))))
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:sluice:problem:internal"
    (line,) = caplog.records
    assert line.__dict__["error"] == "ValueError"
    assert "canary" not in answer.text + str(line.__dict__)


@pytest.mark.parametrize("error", [ValueError("x"), InvalidRequest("x")])
async def test_a_second_answer_is_never_begun(error: Exception) -> None:
    with pytest.raises(type(error)):
        await ask(Problems(raising(error, started=True)))


async def test_a_failure_of_ours_is_logged_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    await ask(Problems(raising(Unavailable("The database does not answer."))))
    (line,) = caplog.records
    assert line.__dict__["type"] == "unavailable"


async def test_what_is_not_http_passes() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    wrappers: list[Callable[[ASGIApp], ASGIApp]] = [Problems, Context]
    for wrap in wrappers:
        await wrap(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"] * 2


async def test_what_is_not_http_passes_through_all(
    stacked: Callable[[ASGIApp], ASGIApp],
) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await stacked(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


async def test_health_is_open(stacked: Callable[[ASGIApp], ASGIApp]) -> None:
    assert (await ask(stacked(PlainTextResponse("ok")), "/healthz")).text == "ok"


async def test_a_request_is_logged_by_its_id_without_its_query(
    stacked: Callable[[ASGIApp], ASGIApp], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sluice")
    answer = await ask(stacked(whoami), "/x?page=canary", authorization="Bearer secret")
    (line,) = caplog.records
    told = line.__dict__
    assert (told["method"], told["status"], told["tenant"]) == ("GET", 200, "demo")
    assert answer.headers["request-id"]
    assert "canary" not in str(told)
    assert "secret" not in str(told)


async def test_a_request_is_logged_by_its_endpoint_and_its_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "sluice")

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        key = StreamKey("demo", "0" * 32)
        scope["state"] = {"path": "/v1/users/{user}/{stream}", "key": key}
        await PlainTextResponse("ok")(scope, receive, send)

    for app in (served, PlainTextResponse("not routed")):
        await ask(Context(app), "/v1/users/canary/x")
    routed, other = (line.__dict__ for line in caplog.records)
    assert (routed["path"], routed["stream"]) == ("/v1/users/{user}/{stream}", "0" * 32)
    assert (other["path"], other["stream"]) == (None, None)
    assert "canary" not in str(routed) + str(other)


async def test_a_refusal_is_logged_with_its_status(
    stacked: Callable[[ASGIApp], ASGIApp], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sluice")
    answer = await ask(stacked(whoami))
    (line,) = caplog.records
    assert line.__dict__["status"] == answer.status_code == 401
    assert answer.headers["request-id"]


async def test_a_page_may_read_a_refusal_that_is_for_it(
    stacked: Callable[[ASGIApp], ASGIApp], store: ModelStore
) -> None:
    """Problems are answered within CORS, and a page is refused before its request is served."""
    app = stacked(raising(AssertionError("it was served")))
    answer = await ask(app, authorization="Bearer secret", origin="https://evil.example")
    assert answer.status_code == 403
    assert answer.json()["type"] == f"urn:sluice:problem:{OriginNotAllowed.slug}"
    assert "access-control-allow-origin" not in answer.headers
    refused = [item for key, item in store.items.items() if key[0] == "audit"]
    assert refused[-1]["outcome"] == OriginNotAllowed.slug


async def test_the_key_is_nowhere_in_the_table(store: ModelStore) -> None:
    await authority_of(store)
    assert "secret" not in str([item for item in store.items.values() if "secret" not in item])
