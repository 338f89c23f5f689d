"""Authorization: what an endpoint needs, and whose streams are there at all."""

import time
from dataclasses import replace
from itertools import chain, combinations

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.authority import Caller
from shared.identity import ADMIN, READ, SCOPES, STREAM, Identity
from shared.log import Log
from shared.middleware.authorization import Endpoint
from shared.middleware.problems import Problems
from shared.quotas import Quotas
from shared.records import DAY_S, StreamKey
from shared.tenants import Policy, Tenant
from tests.model_store import ModelStore
from tests.shared.middleware.asking import ask

TENANT = Tenant("demo", Policy(), suspended=False, secret=bytes(32), created_at=0, rev=0)
#: Every set of scopes that a credential may have.
ALL = [frozenset(s) for s in chain.from_iterable(combinations(sorted(SCOPES), n) for n in range(4))]


async def serve(request: Request) -> Response:
    key: StreamKey | None = getattr(request.state, "key", None)
    return JSONResponse({"key": key and [key.tenant, key.stream]})


class Guard:
    """Two endpoints that need a scope, one with a stream in its path, behind an identity."""

    def __init__(self, scope: str | None) -> None:
        self.now_s = time.time()
        self.store = ModelStore()
        self.log = Log(self.store, now=lambda: self.now_s)
        quotas = Quotas(self.store, now=lambda: self.now_s)
        endpoints = [
            Endpoint("GET", "/any", scope, serve),
            Endpoint("GET", "/own-limits", scope, serve, counted=False),
            Endpoint("GET", "/{stream}/one", scope, serve),
        ]
        self._router = Router([endpoint.guarded(self.log, quotas) for endpoint in endpoints])

    def as_caller(self, identity: Identity | None, tenant: Tenant = TENANT) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if identity is not None:
                scope.setdefault("state", {})["caller"] = Caller(identity, tenant)
            await self._router(scope, receive, send)

        return Problems(app)

    async def one(self, identity: Identity, stream: str) -> httpx.Response:
        return await ask(self.as_caller(identity), f"/{stream}/one")

    def stream(self, user: str | None = None, tenant: str = "demo", days: int = 1) -> str:
        return self.log.new_key(tenant, TENANT.owner_tag(user), days).stream


@pytest.mark.parametrize("scopes", ALL)
@pytest.mark.parametrize("scope", sorted(SCOPES))
async def test_a_scope_is_needed_and_no_other_does_for_it(
    scope: str, scopes: frozenset[str]
) -> None:
    guard = Guard(scope)
    for path in ("/any", f"/{guard.stream()}/one"):
        answer = await ask(guard.as_caller(Identity("demo", scopes=scopes)), path)
        if scope in scopes:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 403
            assert answer.json()["scope"] == scope


async def test_an_open_endpoint_asks_for_no_caller() -> None:
    assert (await ask(Guard(None).as_caller(None), "/any")).status_code == 200


async def test_a_scope_is_missed_before_a_stream_is_looked_for() -> None:
    """Else who may not read would learn what is there."""
    nobody = Identity("demo", scopes=frozenset())
    guard = Guard(READ)
    mine, wrong = await guard.one(nobody, guard.stream()), await guard.one(nobody, "nonsense")
    assert mine.status_code == wrong.status_code == 403
    assert mine.content == wrong.content


async def test_the_stream_of_the_path_is_one_of_the_callers_tenant() -> None:
    guard = Guard(READ)
    # Made by another tenant: an id names no tenant, so it is looked for in one's own.
    stream = guard.stream(tenant="other")
    answer = await guard.one(Identity("demo"), stream)
    assert answer.json() == {"key": ["demo", stream]}


@pytest.mark.parametrize("stream", ["x", "0" * 31, "0" * 33, "z" * 32, "A" * 32, "%00" * 32])
async def test_what_is_no_id_is_not_found_and_not_repeated(stream: str) -> None:
    answer = await Guard(READ).one(Identity("demo"), stream)
    assert answer.status_code == 404
    assert answer.json()["detail"] == "There is no stream with that id."


@pytest.mark.parametrize(
    ("user", "scopes", "owner", "seen"),
    [
        (None, {READ}, None, True),
        (None, {READ}, "ada", True),
        ("ada", {READ}, "ada", True),
        ("ada", {READ}, "bob", False),
        ("ada", {READ}, None, False),
        ("ada", {READ, STREAM}, "bob", False),
        ("ada", {READ, ADMIN}, "bob", True),
        ("ada", {READ, ADMIN}, None, True),
    ],
)
async def test_who_sees_whose_streams(
    user: str | None, scopes: set[str], owner: str | None, seen: bool
) -> None:
    guard = Guard(READ)
    identity = Identity("demo", user, frozenset(scopes))
    answer = await guard.one(identity, guard.stream(owner))
    assert answer.status_code == (200 if seen else 404)


async def test_a_ticket_is_good_for_its_stream_only() -> None:
    guard = Guard(READ)
    stream = guard.stream("ada")
    ticket = Identity("demo", "ada", frozenset({READ}), stream=stream)
    assert (await guard.one(ticket, stream)).status_code == 200
    assert (await guard.one(ticket, guard.stream("ada"))).status_code == 404
    anything = await ask(guard.as_caller(ticket), "/any")
    assert anything.status_code == 403


async def test_a_ticket_is_good_whoever_could_see_the_stream() -> None:
    """An administrator who is a user makes one for somebody else's stream."""
    guard = Guard(READ)
    stream = guard.stream("bob")
    ticket = Identity("demo", "root", frozenset({READ}), stream=stream)
    assert (await guard.one(ticket, stream)).status_code == 200


async def test_what_is_kept_no_longer_is_not_there() -> None:
    guard = Guard(READ)
    stream = guard.stream(days=3)
    guard.now_s += 3 * DAY_S - 2
    assert (await guard.one(Identity("demo"), stream)).status_code == 200
    guard.now_s += 2
    gone = await guard.one(Identity("demo"), stream)
    assert gone.status_code == 404
    assert gone.json()["detail"] == f"There is no stream {stream}."


async def test_a_request_counts_as_a_poll_where_the_endpoint_has_no_limits_of_its_own() -> None:
    guard = Guard(READ)
    policy = Policy.from_document({"limits": {"polls_per_minute": 2}})
    app = guard.as_caller(Identity("demo"), replace(TENANT, policy=policy))
    answers = [await ask(app, "/any") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].json()["policy"] == "tenant-polls-per-minute"
    assert (await ask(app, f"/{guard.stream()}/one")).status_code == 429
    assert (await ask(app, "/own-limits")).status_code == 200
    guard.now_s += 60
    assert (await ask(app, "/any")).status_code == 200


async def test_who_may_not_ask_uses_nothing_up() -> None:
    guard = Guard(READ)
    policy = Policy.from_document({"limits": {"polls_per_minute": 1}})
    tenant = replace(TENANT, policy=policy)
    refused = guard.as_caller(Identity("demo", scopes=frozenset({STREAM})), tenant)
    hidden = guard.as_caller(Identity("demo", "ada", frozenset({READ})), tenant)
    assert (await ask(refused, "/any")).status_code == 403
    assert (await ask(hidden, f"/{guard.stream('bob')}/one")).status_code == 404
    assert (await ask(guard.as_caller(Identity("demo"), tenant), "/any")).status_code == 200
