"""Authentication: who is asking, by a key, a token or a ticket."""

import time
from functools import partial

import pytest

from shared.administration import Administration
from shared.authority import Authority
from shared.identity import Identity, tickets
from shared.identity.jwks import fetch
from shared.identity.keys import Key
from shared.middleware.authentication import OPEN_PATHS, Authentication
from shared.middleware.problems import Problems
from shared.tenants import Tenants
from tests.model_store import ModelStore
from tests.shared.identity.issuer import AUDIENCE, LocalIssuer
from tests.shared.middleware.asking import ask, authority_of, whoami


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


@pytest.fixture
async def app(store: ModelStore) -> Problems:
    return Problems(Authentication(whoami, await authority_of(store)))


async def a_ticket(store: ModelStore, *, lasts_s: int = 60) -> str:
    """A ticket for the stream `s`."""
    tenant = await Tenants(store).get("demo")
    assert tenant
    key = next(item for key, item in store.items.items() if str(key[2]).startswith("key#"))
    identity = Identity("demo", "ada", credential=f"key:{key['id']}")
    return tickets.issue(
        tenant.secret, identity, "s", purpose="read", expires_at=int(time.time()) + lasts_s
    )


@pytest.mark.parametrize("header", ["Bearer secret", "bearer  secret ", "BEARER secret"])
async def test_a_key_names_its_tenant(app: Problems, header: str) -> None:
    answer = await ask(app, authorization=header)
    assert (answer.json()["tenant"], answer.json()["user"]) == ("demo", None)


async def test_a_key_may_be_a_users(app: Problems, store: ModelStore) -> None:
    await Administration(store).add_key("hers", Key("demo", "1", user="ada"))
    assert (await ask(app, authorization="Bearer hers")).json()["user"] == "ada"


async def test_a_token_names_its_tenant_and_its_user(store: ModelStore) -> None:
    await authority_of(store)
    with LocalIssuer() as issuer:
        trusted = {"issuer": issuer.url, "jwks_url": issuer.jwks_url, "audience": AUDIENCE}
        await Administration(store).set_policy("demo", lambda it: it.update(issuers=[trusted]))
        authority = Authority(store, Tenants(store), fetch=partial(fetch, loopback=True))
        app = Problems(Authentication(whoami, authority))
        answer = await ask(app, authorization=f"Bearer {issuer.token()}")
    assert (answer.json()["tenant"], answer.json()["user"]) == ("demo", "ada")


@pytest.mark.parametrize(
    "header",
    ["", "secret", "Bearer", "Bearer ", "Basic secret", "Bearer wrong", "Bearer " + "x" * 999],
)
async def test_no_valid_key_no_entry(app: Problems, header: str) -> None:
    answer = await ask(app, authorization=header)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["www-authenticate"]


async def test_a_ticket_opens_and_is_seen_by_nothing_behind(
    app: Problems, store: ModelStore
) -> None:
    ticket = await a_ticket(store)
    answer = await ask(app, f"/x?after=3&ticket={ticket}&b=%26")
    assert answer.json() == {
        "tenant": "demo",
        "user": "ada",
        "stream": "s",
        "query": "after=3&b=%26",
        "address": "127.0.0.1",
    }


async def test_a_ticket_counts_before_a_key(app: Problems, store: ModelStore) -> None:
    """Who shows one wants what it allows; a bad one is not made good by a key beside it."""
    both = await ask(app, f"/x?ticket={await a_ticket(store)}", authorization="Bearer secret")
    assert both.json()["stream"] == "s"
    bad = await ask(app, "/x?ticket=tk_bad", authorization="Bearer secret")
    assert bad.status_code == 401


@pytest.mark.parametrize(
    "query", ["ticket=", "ticket=x", "a=1&ticket=", "ticket=%00", "ticket=tk_", "%74icket=tk_x"]
)
async def test_what_is_no_ticket_is_refused(app: Problems, query: str) -> None:
    assert (await ask(app, f"/x?{query}")).status_code == 401


async def test_of_several_tickets_none_is_passed_on(app: Problems, store: ModelStore) -> None:
    ticket = await a_ticket(store)
    answer = await ask(app, f"/x?ticket={ticket}&ticket={ticket}&%74icket={ticket}")
    assert answer.json()["query"] == ""


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
async def test_what_is_open_asks_for_nothing(path: str) -> None:
    class Nobody:
        """No authority is asked."""

    async def served(scope: object, receive: object, send: object) -> None:
        done.append(path)

    done: list[str] = []
    scope = {"type": "http", "path": path, "headers": [], "query_string": b""}
    await Authentication(served, Nobody())(scope, None, None)  # type: ignore[arg-type]
    assert done == [path]
