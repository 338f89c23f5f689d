"""The middleware, around small apps of its own."""

from collections.abc import Callable

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import InvalidRequest
from shared.middleware import stack
from shared.middleware.context import Context
from shared.middleware.problems import Problems
from shared.tenants import Tenants
from tests.model_store import ModelStore


def raising(error: Exception, *, started: bool = False) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


async def ask(app: ASGIApp, path: str = "/x", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get(path, headers=headers)


async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
    identity = Request(scope).state.identity
    await JSONResponse({"tenant": identity.tenant})(scope, receive, send)


@pytest.fixture
async def tenants() -> Tenants:
    tenants = Tenants(ModelStore())
    await tenants.add_key("demo", "secret")
    return tenants


async def test_an_error_of_ours_is_told() -> None:
    answer = await ask(Problems(raising(InvalidRequest("`a` is bad.", field="a"))))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == "a"


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


async def test_what_is_not_http_passes() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    wrappers: list[Callable[[ASGIApp], ASGIApp]] = [Problems, Context]
    for wrap in wrappers:
        await wrap(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"] * 2


async def test_a_key_names_its_tenant(tenants: Tenants) -> None:
    answer = await ask(stack(whoami, tenants), authorization="Bearer secret")
    assert answer.json() == {"tenant": "demo"}
    assert (await ask(stack(whoami, tenants), authorization="bearer  secret ")).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "secret", "Bearer", "Bearer ", "Basic secret", "Bearer wrong", "Bearer " + "x" * 999],
)
async def test_no_valid_key_no_entry(tenants: Tenants, header: str) -> None:
    answer = await ask(stack(whoami, tenants), authorization=header)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["www-authenticate"]
    assert answer.headers["request-id"]


async def test_health_is_open(tenants: Tenants) -> None:
    answer = await ask(stack(PlainTextResponse("ok"), tenants), "/healthz")
    assert answer.text == "ok"


async def test_a_request_is_logged_by_its_id_without_its_query(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sluice")
    answer = await ask(stack(whoami, tenants), "/x?ticket=canary", authorization="Bearer secret")
    (line,) = caplog.records
    told = line.__dict__
    assert (told["method"], told["path"], told["status"], told["tenant"]) == (
        *("GET", "/x", 200),
        "demo",
    )
    assert answer.headers["request-id"]
    assert "canary" not in str(told)
    assert "secret" not in str(told)


async def test_a_refusal_is_logged_with_its_status(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sluice")
    await ask(stack(whoami, tenants))
    (line,) = caplog.records
    assert line.__dict__["status"] == 401


async def test_the_key_is_nowhere_in_the_table(tenants: Tenants) -> None:
    store = tenants._store
    assert isinstance(store, ModelStore)
    assert "secret" not in str(store.items)
