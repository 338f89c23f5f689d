"""Every endpoint × every credential that is not good for it: refused, and nothing disclosed.

The endpoints are those of the code. Who adds one adds it to `SAMPLES` too, or the first test fails.
"""

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.routing import Route, Router

from functions import api, stream
from functions.wiring import Services
from shared.identity import ADMIN, READ, SCOPES, STREAM, Identity, jwks, tickets
from shared.middleware.authorization import Endpoint
from shared.middleware.cors import METHODS
from shared.settings import Settings
from tests.functions.conftest import ASYNC, Sluice, by, client, running, start_body
from tests.model_store import ModelStore
from tests.shared.identity.issuer import (
    AUDIENCE,
    LocalIssuer,
    SigningKey,
    base64url,
    encode,
    make_key,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Whose everything is, and who should not learn that.
OWNER, USER, PROMPT = "acme-corp", "ada-lovelace", "prompt-4711"
#: What no refusal may hold.
SECRETS = (OWNER, USER, PROMPT, "You asked", "rival-corp")
#: What a user's own key may do.
USERS = frozenset({READ, STREAM})
Name = tuple[str, str, str]


@dataclass(frozen=True)
class Sample:
    """The scope that an endpoint needs, and a request that it answers with `status` where all is
    well. `ticket` is whether a ticket for the stream does for it.
    """

    scope: str | None
    status: int = 200
    ticket: bool = False
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


START = start_body("demo?tokens=2&rate=0")
ONE = "/v1/streams/{stream}"
SAMPLES: dict[Name, Sample] = {
    ("stream", "GET", "/healthz"): Sample(None),
    ("stream", "GET", "/openapi.json"): Sample(None),
    ("stream", "POST", "/v1/streams"): Sample(STREAM, body=START),
    ("stream", "GET", "/v1/streams"): Sample(READ),
    ("stream", "GET", f"{ONE}/events"): Sample(READ, ticket=True),
    ("stream", "GET", f"{ONE}/export"): Sample(READ),
    ("stream", "GET", "/v1/users/{user:path}/export"): Sample(ADMIN),
    ("api", "GET", "/healthz"): Sample(None),
    ("api", "GET", "/openapi.json"): Sample(None),
    ("api", "POST", "/v1/streams"): Sample(STREAM, 202, body=START, headers=ASYNC),
    ("api", "GET", "/v1/streams"): Sample(READ),
    ("api", "GET", ONE): Sample(READ, ticket=True),
    ("api", "GET", f"{ONE}/chunks"): Sample(READ, ticket=True),
    ("api", "POST", f"{ONE}/cancel"): Sample(STREAM),
    ("api", "POST", f"{ONE}/pause"): Sample(STREAM),
    ("api", "POST", f"{ONE}/resume"): Sample(STREAM),
    ("api", "POST", f"{ONE}/grant"): Sample(STREAM),
    ("api", "POST", f"{ONE}/ticket"): Sample(READ, 201, ticket=True),
    ("api", "DELETE", ONE): Sample(STREAM, 204),
    ("api", "DELETE", "/v1/users/{user:path}/streams"): Sample(ADMIN, 202),
    ("api", "GET", "/v1/erasures/{erasure}"): Sample(READ),
    ("api", "GET", "/v1/usage"): Sample(READ),
    ("api", "GET", "/v1/audit"): Sample(ADMIN),
}
GUARDED = [name for name, sample in SAMPLES.items() if sample.scope]
#: What a path may name; whose it is is asked before anything else.
THINGS = ("{stream}", "{erasure}")
OF_THINGS = [name for name in GUARDED if any(thing in name[2] for thing in THINGS)]


def endpoints() -> dict[Name, Endpoint]:
    services = Services.on(ModelStore(), Settings())
    found = {"stream": stream.endpoints(services), "api": api.endpoints(services)}
    return {(app, e.method, e.path): e for app, listed in found.items() for e in listed}


async def test_every_endpoint_has_its_sample_with_the_scope_that_it_needs() -> None:
    needed = {name: SAMPLES[name].scope for name in GUARDED}
    assert {name: endpoint.scope for name, endpoint in endpoints().items()} == needed


async def test_a_page_may_ask_by_every_method() -> None:
    assert {method for _, method, _ in SAMPLES} <= set(METHODS)


async def test_nothing_else_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an app routes is what it lists, and what is open to anyone."""
    routed: list[Route] = []

    def router(routes: list[Route], **named: Any) -> Any:
        routed.extend(routes)
        return Router(routes, **named)

    monkeypatch.setattr("functions.wiring.Router", router)
    services = Services.on(ModelStore(), Settings())
    for app, build in (("stream", stream.build), ("api", api.build)):
        routed.clear()
        build(services)
        found = {(app, m, r.path) for r in routed for m in (r.methods or set()) - {"HEAD"}}
        assert found == {name for name in SAMPLES if name[0] == app}


@dataclass
class World:
    """A tenant with a stream of a user's, and with an erasure; and all that asks for them."""

    sluice: Sluice
    issuer: LocalIssuer
    stream: str
    erased: str
    #: Ids that could be the user's, of a stream and an erasure that are not there.
    unknown: str

    async def ask(
        self, name: Name, shown: "Shown", *, there: bool = True, method: str = ""
    ) -> httpx.Response:
        """The sample of an endpoint, for what is there or for what is not."""
        app, verb, path = name
        things = (self.stream, self.erased) if there else (self.unknown, self.unknown)
        plain = path.replace(":path", "")
        filled = plain.format(stream=things[0], erasure=things[1], user=USER)
        asgi = self.sluice.stream_app if app == "stream" else self.sluice.api_app
        async with client(asgi, "") as asking:
            answer = await asking.request(
                method or verb,
                filled,
                params=shown.params,
                headers={**SAMPLES[name].headers, **shown.headers},
                json=SAMPLES[name].body,
            )
        kept = answer.headers["cache-control"]
        assert kept == "no-store" or answer.headers["content-type"].startswith("text/event-stream")
        return answer

    async def ticket(self, *, stream: str = "", key: str = "good", lasts_s: int = 60) -> str:
        """A ticket as this key would have it made."""
        authority = self.sluice.services.authority
        identity = await authority.identify(key)
        tenant = await authority.tenant(identity)
        return tickets.issue(
            tenant.secret,
            Identity(OWNER, USER, credential=identity.credential),
            stream or self.stream,
            purpose="read",
            expires_at=int(time.time()) + lasts_s,
        )

    async def end_some(self) -> None:
        """What was good ends, for everybody at once."""
        identify = self.sluice.services.authority.identify
        for name in ("revoked", "good-for-a-ticket"):
            key_id = (await identify(name)).credential.removeprefix("key:")
            await self.sluice.administration.revoke_key(OWNER, key_id)
        await self.sluice.administration.suspend("suspended-corp", suspended=True)
        self.sluice.forget()

    def token(self, scopes: frozenset[str] = SCOPES, **claims: Any) -> str:
        return self.issuer.token(**{"sub": USER, "scope": " ".join(scopes)} | claims)


@dataclass(frozen=True)
class Shown:
    """A credential as a request carries it."""

    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


#: Makes a credential, for an endpoint that needs a scope.
Credential = Callable[[World, str], Awaitable[Shown]]


def header(text: str | None) -> Credential:
    async def show(_: World, __: str) -> Shown:
        return Shown(headers={} if text is None else {"authorization": text})

    return show


def key(name: str) -> Credential:
    return header(f"Bearer {name}")


def ticket(make: Callable[[World], Awaitable[str]]) -> Credential:
    async def show(world: World, _: str) -> Shown:
        return Shown(params={"ticket": await make(world)})

    return show


def ready_ticket(text: str) -> Credential:
    async def show(_: World, __: str) -> Shown:
        return Shown(params={"ticket": text})

    return show


def token(make: Callable[[World], str]) -> Credential:
    async def show(world: World, _: str) -> Shown:
        return Shown(headers=by(make(world)))

    return show


async def _key_without_the_scope(_: World, scope: str) -> Shown:
    return Shown(headers=by(f"all-but-{scope}"))


async def _token_without_the_scope(world: World, scope: str) -> Shown:
    return Shown(headers=by(world.token(SCOPES - {scope})))


async def _ticket_as_a_key(world: World, _: str) -> Shown:
    return Shown(headers=by(await world.ticket()))


async def _changed_ticket(world: World) -> str:
    made = await world.ticket()
    return made[:-1] + ("A" if made[-1] != "A" else "Q")


async def _unsigned_ticket(world: World) -> str:
    return (await world.ticket()).rpartition(".")[0]


async def _ticket_for_more(world: World) -> str:
    """For another stream than it was signed for."""
    _, _, signature = (await world.ticket(stream=world.unknown)).rpartition(".")
    signed, _, _ = (await world.ticket()).rpartition(".")
    return f"{signed}.{signature}"


def _unsigned(world: World) -> str:
    claims = world.issuer.claims(sub=USER, scope=" ".join(SCOPES))
    return f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(claims)}."


def _confused(world: World) -> str:
    """Signed with the issuer's public key as if that were a secret."""
    known = world.issuer.keys[-1]
    claims = world.issuer.claims(sub=USER, scope=" ".join(SCOPES))
    signed = f"{encode({'alg': 'HS256', 'typ': 'JWT', 'kid': known.kid})}.{encode(claims)}"
    secret = json.dumps(known.jwk()).encode()
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _by_another_key(world: World) -> str:
    kid = world.issuer.keys[-1].kid
    stranger = SigningKey(kid, "ES256", make_key("ES256", "stranger").private)
    return stranger.sign(world.issuer.claims(sub=USER, scope=" ".join(SCOPES)))


def _changed_token(world: World) -> str:
    head, _, signature = world.token(frozenset({READ})).split(".")
    return f"{head}.{encode(world.issuer.claims(sub=USER, scope=' '.join(SCOPES)))}.{signature}"


def _forged(tenant: str) -> str:
    identity = Identity(tenant, USER, credential="key:12345678")
    return tickets.issue(
        bytes(32), identity, "0" * 32, purpose="read", expires_at=int(time.time()) + 60
    )


#: Who is not known: 401.
UNKNOWN: dict[str, Credential] = {
    "nothing": header(None),
    "an empty header": header(""),
    "a header without a scheme": header("good"),
    "a scheme alone": header("Bearer"),
    "a scheme and spaces": header("Bearer   "),
    "another scheme": header("Basic good"),
    "a key that nobody has": key("sk_0123abcd_" + "A" * 43),
    "a key that is far too long": key("x" * 5000),
    "two keys": key("good good"),
    "a ticket as a key": _ticket_as_a_key,
    "an empty ticket": ready_ticket(""),
    "what is no ticket": ready_ticket("tk_nonsense"),
    "a key as a ticket": ready_ticket("good"),
    "a ticket without its signature": ticket(_unsigned_ticket),
    "a ticket changed by a bit": ticket(_changed_ticket),
    "a ticket with another one's signature": ticket(_ticket_for_more),
    "a ticket that has expired": ticket(lambda w: w.ticket(lasts_s=-1)),
    "a ticket of a tenant that is not there": ready_ticket(_forged("nobody-corp")),
    "a ticket that somebody made up": ready_ticket(_forged(OWNER)),
    "a token without a signature": token(_unsigned),
    "a token signed with a public key": token(_confused),
    "a token of another issuer": token(lambda w: w.token(iss="https://elsewhere.test")),
    "a token for another audience": token(lambda w: w.token(aud="https://elsewhere.test")),
    "a token that has expired": token(lambda w: w.token(exp=int(time.time()) - 1)),
    "a token that is not good yet": token(lambda w: w.token(nbf=int(time.time()) + 60)),
    "a token by another key": token(_by_another_key),
    "a token with other claims": token(_changed_token),
    "a token that names no user": token(lambda w: w.token(sub=None)),
}
#: Whose credential was good once: 401, with the reason.
ENDED: dict[str, tuple[Credential, str]] = {
    "a key that was revoked": (key("revoked"), "revoked"),
    "a key that has expired": (key("expired"), "expired"),
    "a ticket by a key that was revoked": (
        ticket(lambda w: w.ticket(key="good-for-a-ticket")),
        "revoked",
    ),
    "a key of a suspended tenant": (key("suspended"), "suspended"),
}
#: Who is known and may not: 403.
SCOPELESS: dict[str, Credential] = {
    "a key without the scope": _key_without_the_scope,
    "a token without the scope": _token_without_the_scope,
}
#: Who may, but sees other things: 404.
FOREIGN: dict[str, Credential] = {
    "a key of another tenant": key("rival"),
    "a key of another user": key("another-user's"),
    "a token of another user": token(lambda w: w.token(USERS, sub="bob")),
}
GOOD: dict[str, Credential] = {
    "a key": key("good"),
    "a key of the tenant": key("tenant's"),
    "a token": token(lambda w: w.token()),
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as issuer:
        yield issuer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def made(issuer: LocalIssuer) -> AsyncIterator[World]:
    async with running(fetch=partial(jwks.fetch, loopback=True)) as sluice:
        yield await populated(sluice, issuer)


@pytest.fixture
def world(made: World) -> Iterator[World]:
    """The world as it was made, for each test."""
    items = made.sluice.store.items
    before = {at: dict(item) for at, item in items.items()}
    yield made
    items.clear()
    items.update(before)
    made.sluice.forget()


async def populated(sluice: Sluice, issuer: LocalIssuer) -> World:
    trusted = {"issuer": issuer.url, "jwks_url": issuer.jwks_url, "audience": AUDIENCE}
    for tenant in (OWNER, "rival-corp", "suspended-corp"):
        await sluice.administration.add_tenant(tenant, {})
    await sluice.policy(OWNER, issuers=[trusted])
    for name in ("good", "good-for-a-ticket", "revoked"):
        await sluice.add_key(name, OWNER, user=USER)
    await sluice.add_key("expired", OWNER, user=USER, valid_until=int(time.time()) - 1)
    await sluice.add_key("tenant's", OWNER)
    await sluice.add_key("another-user's", OWNER, user="bob", scopes=USERS)
    await sluice.add_key("rival", "rival-corp")
    await sluice.add_key("suspended", "suspended-corp")
    for scope in SCOPES:
        await sluice.add_key(f"all-but-{scope}", OWNER, user=USER, scopes=SCOPES - {scope})
    body = {**start_body("demo?rate=0"), "messages": [{"role": "user", "content": PROMPT}]}
    begun = [
        await sluice.stream.post("/v1/streams", json=body, headers=by("good")) for _ in range(2)
    ]
    there, gone = (answer.headers["stream-id"] for answer in begun)
    await sluice.api.delete(f"/v1/streams/{gone}", headers=by("good"))
    owner_tag = (await sluice.administration.tenant(OWNER)).owner_tag(USER)
    unknown = sluice.services.log.new_key(OWNER, owner_tag, 30).stream
    return World(sluice, issuer, there, gone, unknown)


def assert_problem(answer: httpx.Response, status: int, slug: str) -> None:
    """The problem that it should be, in which there is nothing to learn."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:sluice:problem:{slug}"
    assert ("www-authenticate" in answer.headers) is (status == 401)
    told = answer.text + str(answer.headers)
    assert not [secret for secret in SECRETS if secret in told]


def shape(answer: httpx.Response, world: World) -> tuple[int, dict[str, str], str]:
    """All of an answer but what names the request."""
    own = ("request-id", "trace-id")
    kept = {name: value for name, value in answer.headers.items() if name not in own}
    text = answer.text
    for thing in (world.stream, world.erased, world.unknown):
        text = text.replace(thing, "<id>")
    return answer.status_code, kept, text


async def assert_refused(
    world: World, name: Name, shown: Shown, status: int, slug: str, **told: str
) -> None:
    """Refused so, and just the same for what is not there, and nothing is done."""
    before = {at: i for at, i in world.sluice.store.items.items() if not _of_audit(at)}
    answer = await world.ask(name, shown)
    assert_problem(answer, status, slug)
    assert answer.json().items() >= told.items()
    absent = await world.ask(name, shown, there=False)
    assert shape(absent, world) == shape(answer, world)
    if name[1] == "GET":
        head = await world.ask(name, shown, method="HEAD")
        assert head.status_code == answer.status_code
        assert set(head.headers) == set(answer.headers)
    after = {at: i for at, i in world.sluice.store.items.items() if not _of_audit(at)}
    assert after == before


def _of_audit(at: tuple[str, Any, Any]) -> bool:
    """Whether an item only tells that somebody was refused."""
    return at[0] == "audit" or str(at[1]).startswith("chain#")


def id_of(name: Name) -> str:
    return " ".join(name)


@pytest.mark.parametrize("credential", GOOD)
@pytest.mark.parametrize("name", SAMPLES, ids=id_of)
async def test_who_may_is_let_through(world: World, name: Name, credential: str) -> None:
    answer = await world.ask(name, await GOOD[credential](world, ""))
    assert answer.status_code == SAMPLES[name].status, answer.text


@pytest.mark.parametrize("credential", UNKNOWN)
@pytest.mark.parametrize("name", GUARDED, ids=id_of)
async def test_who_is_not_known_is_refused(world: World, name: Name, credential: str) -> None:
    shown = await UNKNOWN[credential](world, "")
    await assert_refused(world, name, shown, 401, "unauthenticated")


@pytest.mark.parametrize("credential", ENDED)
@pytest.mark.parametrize("name", GUARDED, ids=id_of)
async def test_whose_credential_has_ended_is_refused(
    world: World, name: Name, credential: str
) -> None:
    make, reason = ENDED[credential]
    shown = await make(world, "")
    await world.end_some()
    await assert_refused(world, name, shown, 401, "credential-ended", reason=reason)


@pytest.mark.parametrize("credential", SCOPELESS)
@pytest.mark.parametrize("name", GUARDED, ids=id_of)
async def test_who_has_not_the_scope_is_refused(world: World, name: Name, credential: str) -> None:
    scope = SAMPLES[name].scope or ""
    shown = await SCOPELESS[credential](world, scope)
    await assert_refused(world, name, shown, 403, "forbidden", scope=scope)


@pytest.mark.parametrize("credential", FOREIGN)
@pytest.mark.parametrize("name", OF_THINGS, ids=id_of)
async def test_what_is_somebody_elses_is_not_there(
    world: World, name: Name, credential: str
) -> None:
    shown = await FOREIGN[credential](world, "")
    await assert_refused(world, name, shown, 404, "not-found")


@pytest.mark.parametrize("name", GUARDED, ids=id_of)
async def test_a_ticket_does_for_what_it_is_for_and_its_stream(world: World, name: Name) -> None:
    good = Shown(params={"ticket": await world.ticket()})
    another = Shown(params={"ticket": await world.ticket(stream=world.unknown)})
    if SAMPLES[name].ticket:
        assert (await world.ask(name, good)).status_code == SAMPLES[name].status
        assert_problem(await world.ask(name, another), 404, "not-found")
    else:
        assert_problem(await world.ask(name, good), 403, "forbidden")
        assert (await world.ask(name, another)).status_code in (403, 404)


@pytest.mark.parametrize("credential", ["a key of another tenant", "a key of another user"])
@pytest.mark.parametrize("name", [n for n in GUARDED if n not in OF_THINGS], ids=id_of)
async def test_who_asks_for_all_gets_its_own(world: World, name: Name, credential: str) -> None:
    answer = await world.ask(name, await FOREIGN[credential](world, ""))
    if SAMPLES[name].scope == ADMIN and credential == "a key of another user":
        assert_problem(answer, 403, "forbidden")
        return
    assert answer.status_code == SAMPLES[name].status
    told = answer.text
    assert not [secret for secret in (OWNER, PROMPT, world.stream, world.erased) if secret in told]


async def test_two_tenants_streams_of_one_id_are_two(world: World) -> None:
    """An id says nothing of its tenant, and need not: the credential does."""
    items = world.sluice.store.items
    begun = await world.sluice.stream.post("/v1/streams", json=START, headers=by("rival"))
    theirs = f"rival-corp#{begun.headers['stream-id']}"
    for (table, pk, seq), item in list(items.items()):
        if (table, pk) == ("streams", theirs):
            twin = f"rival-corp#{world.stream}"
            items[(table, twin, seq)] = {**item, "pk": twin, "stream": world.stream}
    for name in OF_THINGS:
        if SAMPLES[name].scope == READ and "{stream}" in name[2]:
            answer = await world.ask(name, Shown(headers=by("rival")))
            assert answer.status_code == SAMPLES[name].status
            assert not [secret for secret in (OWNER, USER, PROMPT) if secret in answer.text]


@pytest.mark.parametrize("credential", ["nothing", "a key that nobody has", "an empty ticket"])
@pytest.mark.parametrize("app", ["stream", "api"])
async def test_what_is_open_is_told_to_anyone_alike(
    world: World, app: str, credential: str
) -> None:
    for path in ("/healthz", "/openapi.json"):
        name = (app, "GET", path)
        anyone = await world.ask(name, await UNKNOWN[credential](world, ""))
        known = await world.ask(name, Shown(headers=by("good")))
        assert anyone.status_code == 200
        assert shape(anyone, world) == shape(known, world)
        assert not [secret for secret in SECRETS if secret in anyone.text]


@pytest.mark.parametrize("path", ["/v1/nowhere", "/", "/v1/streams/x/y/z", "/.git/config"])
async def test_what_is_not_served_is_told_to_who_is_known_only(world: World, path: str) -> None:
    async with client(world.sluice.api_app, "") as anyone:
        assert_problem(await anyone.get(path), 401, "unauthenticated")
        assert_problem(await anyone.get(path, headers=by("good")), 404, "not-found")
