"""The authority: each kind of credential, good and no longer good, within the time that it may be
remembered.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.authority import Authority, Caller, actor, from_body, may_see, to_body
from shared.errors import CredentialEnded, Unauthenticated, Unavailable
from shared.identity import ADMIN, READ, SCOPES, STREAM, Identity, tickets
from shared.identity.keys import CACHE_MISS_S
from shared.identity.keys import CACHE_S as KEYS_CACHE_S
from shared.identity.tokens import Issuer
from shared.records import OWNER_TAG_BYTES, StreamKey, new_stream_id
from shared.schema import TENANTS
from shared.tenants import CACHE_S, Policy, Tenant, Tenants, adding, changing
from tests.model_store import ModelStore
from tests.shared.identity.issuer import AUDIENCE, make_key
from tests.simulation.clock import virtual
from tests.simulation.scripted import EPOCH_S, TENANT, Stage

ISSUER = Issuer("https://issuer.example/", "https://issuer.example/keys", AUDIENCE)
SIGNING = make_key("ES256")
USERS = st.none() | st.text(max_size=9)


def owning(secret: bytes = b"s" * 32) -> Tenant:
    return Tenant(TENANT, Policy(), suspended=False, secret=secret, created_at=0, rev=0)


def sees(tenant: Tenant, stream: str, user: str | None, *scopes: str) -> bool:
    caller = Caller(Identity(tenant.name, user, frozenset(scopes)), tenant)
    return may_see(caller, StreamKey(tenant.name, stream))


class Trusting:
    """A tenant that trusts the issuer, with a clock of its own: what checks tokens uses threads."""

    def __init__(self, *issuers: Issuer) -> None:
        self.time_s = 0.0
        self.store = ModelStore()
        clock = partial(getattr, self, "time_s")
        known = Tenants(self.store, clock=clock)
        self.authority = Authority(
            self.store, known, fetch=self.fetch, now=lambda: EPOCH_S + self.time_s, clock=clock
        )
        policy = Policy(issuers=issuers)
        assert self.store.transact_now(adding(TENANT, policy, EPOCH_S * 1000), "add") is None

    async def fetch(self, url: str) -> bytes:
        assert url == ISSUER.jwks_url
        return json.dumps({"keys": [SIGNING.jwk()]}).encode()

    def change(self, policy: Policy, *, suspended: bool = False) -> None:
        tenant = Tenant.from_item(self.store.items[TENANTS.name, TENANT, "settings"])
        writes = changing(tenant, policy, suspended=suspended)
        assert self.store.transact_now(writes, f"change {tenant.rev}") is None
        self.time_s += CACHE_S


def token(**claims: Any) -> str:
    now = EPOCH_S
    good = {"iss": ISSUER.issuer, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 300}
    return SIGNING.sign(good | claims)


def ticket(stage: Stage, caller: Caller, expires_s: int = 300) -> str:
    return tickets.issue(
        stage.tenant.secret,
        caller.identity,
        stage.key.stream,
        purpose="read",
        expires_at=EPOCH_S + expires_s,
    )


async def reason(authority: Authority, credential: str) -> str:
    with pytest.raises(CredentialEnded) as raised:
        await authority.identify(credential)
    return str(raised.value.extensions["reason"])


# Keys


@virtual
async def test_a_key_is_its_tenants_its_users_and_for_its_scopes() -> None:
    stage = Stage()
    stage.caller_by("ann", user="ann", scopes=frozenset({READ}), valid_until=EPOCH_S + 9)
    identity = await stage.authority.identify("ann's secret")
    assert identity == Identity(TENANT, "ann", frozenset({READ}), "key:ann", EPOCH_S + 9)
    assert await stage.authority.tenant(identity) == stage.tenant
    assert await stage.authority.ended(identity) is None


@virtual
async def test_what_nobody_has_is_nobodys() -> None:
    stage = Stage()
    for key in ("", "unknown", "stage", "x" * 10_000, "\ud800"):
        with pytest.raises(Unauthenticated):
            await stage.authority.identify(key)


@virtual
async def test_a_key_that_has_expired_or_was_revoked_says_so() -> None:
    stage = Stage()
    stage.caller_by("short", valid_until=EPOCH_S)
    await stage.revoke(stage.caller_by("revoked"))
    assert await reason(stage.authority, "short's secret") == "expired"
    assert await reason(stage.authority, "revoked's secret") == "revoked"


@virtual
async def test_a_key_of_a_suspended_tenant_says_so() -> None:
    stage = Stage()
    stage.change(suspended=True)
    assert await reason(stage.authority, "stage's secret") == "suspended"


@virtual
async def test_a_revocation_takes_effect_as_soon_as_the_key_is_forgotten() -> None:
    stage = Stage()
    identity = await stage.authority.identify("stage's secret")
    await stage.revoke(stage.caller)
    await asyncio.sleep(KEYS_CACHE_S - 0.01)
    assert await stage.authority.identify("stage's secret") == identity
    assert await stage.authority.ended(identity) is None
    await asyncio.sleep(0.01)
    assert await reason(stage.authority, "stage's secret") == "revoked"
    assert await stage.authority.ended(identity) == "revoked"


@virtual
async def test_a_key_that_was_tried_too_early_is_found_soon() -> None:
    stage = Stage()
    with pytest.raises(Unauthenticated):
        await stage.authority.identify("late's secret")
    stage.caller_by("late")
    await asyncio.sleep(CACHE_MISS_S)
    assert (await stage.authority.identify("late's secret")).credential == "key:late"


# Tokens


async def test_a_token_is_of_the_tenant_that_trusts_its_issuer() -> None:
    made = Trusting(ISSUER)
    identity = await made.authority.identify(token(scope="read"))
    expected = Identity(TENANT, "ann", frozenset({READ}), ISSUER.credential, EPOCH_S + 300)
    assert identity == expected
    made.time_s = 299.9
    assert await made.authority.ended(identity) is None
    made.time_s = 300
    assert await made.authority.ended(identity) == "expired"


async def test_a_token_of_an_issuer_that_nobody_trusts_is_nobodys() -> None:
    with pytest.raises(Unauthenticated):
        await Trusting().authority.identify(token())


async def test_tokens_end_when_their_issuer_is_trusted_no_longer() -> None:
    made = Trusting(ISSUER)
    identity = await made.authority.identify(token())
    made.change(Policy(issuers=(ISSUER,), retention_days=1))
    assert await made.authority.ended(identity) is None
    made.change(Policy())
    assert await made.authority.ended(identity) == "revoked"
    with pytest.raises(Unauthenticated):
        await made.authority.identify(token())


async def test_tokens_end_with_a_suspension() -> None:
    made = Trusting(ISSUER)
    identity = await made.authority.identify(token())
    made.change(Policy(issuers=(ISSUER,)), suspended=True)
    assert await made.authority.ended(identity) == "suspended"
    assert await reason(made.authority, token()) == "suspended"


# Tickets


@virtual
async def test_a_ticket_is_for_one_stream_and_as_good_as_the_key_that_it_came_from() -> None:
    stage = Stage()
    caller = stage.caller_by("ann", user="ann")
    shown = ticket(stage, caller)
    identity = await stage.authority.identify_ticket(shown)
    assert (identity.stream, identity.user) == (stage.key.stream, "ann")
    assert (identity.scopes, identity.credential) == (frozenset({READ}), "key:ann")
    await stage.revoke(caller)
    await asyncio.sleep(KEYS_CACHE_S)
    with pytest.raises(CredentialEnded) as raised:
        await stage.authority.identify_ticket(shown)
    assert raised.value.extensions["reason"] == "revoked"


@virtual
async def test_a_ticket_ends_when_it_or_its_key_expires() -> None:
    stage = Stage()
    short = stage.caller_by("short", valid_until=EPOCH_S + 5)
    shown = [ticket(stage, stage.caller, expires_s=10), ticket(stage, short, expires_s=10)]
    identities = [await stage.authority.identify_ticket(each) for each in shown]
    await asyncio.sleep(5)
    assert await stage.authority.ended(identities[0]) is None
    assert await stage.authority.ended(identities[1]) == "expired"
    await asyncio.sleep(5)
    for each in shown:
        with pytest.raises(Unauthenticated):
            await stage.authority.identify_ticket(each)


@virtual
async def test_a_ticket_of_a_suspended_tenant_is_not_good() -> None:
    stage = Stage()
    shown = ticket(stage, stage.caller)
    stage.change(suspended=True)
    with pytest.raises(CredentialEnded):
        await stage.authority.identify_ticket(shown)


@virtual
async def test_a_ticket_is_good_with_the_secret_of_its_own_tenant_only() -> None:
    stage = Stage()
    other = replace(stage.caller.identity, tenant="other")
    forged = ticket(stage, replace(stage.caller, identity=other))
    for shown in (forged, ticket(stage, stage.caller)[:-1], "tk_", "", "stage's secret"):
        with pytest.raises(Unauthenticated):
            await stage.authority.identify_ticket(shown)


# All of them


@virtual
async def test_a_tenant_that_is_gone_has_no_credentials() -> None:
    stage = Stage()
    elsewhere = Identity("elsewhere", credential="key:stage")
    assert await stage.authority.ended(elsewhere) == "suspended"
    with pytest.raises(Unauthenticated):
        await stage.authority.tenant(elsewhere)


@virtual
async def test_what_cannot_be_looked_up_is_neither_good_nor_bad() -> None:
    stage = Stage()
    stage.store.unreadable = True
    with pytest.raises(Unavailable):
        await stage.authority.identify("stage's secret")
    with pytest.raises(Unavailable):
        await stage.authority.identify_ticket(ticket(stage, stage.caller))
    with pytest.raises(Unavailable):
        await stage.authority.ended(stage.caller.identity)
    # What has expired needs no looking up.
    expired = replace(stage.caller.identity, expires_at=EPOCH_S)
    assert await stage.authority.ended(expired) == "expired"


# Who asks, as it is kept and shown


@given(USERS, st.none() | st.integers(0, 2**40))
def test_who_asked_comes_back_from_a_record(user: str | None, expires_at: int | None) -> None:
    identity = Identity(TENANT, user, SCOPES, "key:3f9a1c2e", expires_at)
    assert from_body(TENANT, json.loads(json.dumps(to_body(identity)))) == identity


def test_a_record_keeps_no_scopes_and_no_secret() -> None:
    assert to_body(Identity(TENANT, "ann", frozenset({READ}), "key:k")).keys() == {
        "user",
        "credential",
        "expires_at",
    }


@pytest.mark.parametrize(
    ("setting", "shown"), [("full", "203.0.113.7"), ("truncated", "203.0.113.0/24"), ("none", None)]
)
@virtual
async def test_an_actor_has_as_much_of_an_address_as_the_tenant_wants(
    setting: str, shown: str | None
) -> None:
    stage = Stage(addresses=setting)
    by = actor(stage.caller_by("ann", user="ann", address="203.0.113.7"))
    assert (by.user, by.credential, by.address) == ("ann", "key:ann", shown)


@pytest.mark.parametrize("owner", [None, "ann"])
def test_users_see_their_own_streams_and_who_has_no_user_sees_all(owner: str | None) -> None:
    tenant = owning()
    made = new_stream_id(0, bytes(7), owner_tag=tenant.owner_tag(owner), retention_days=1)
    assert sees(tenant, made, None, READ)
    assert sees(tenant, made, "bob", ADMIN)
    assert sees(tenant, made, "ann", STREAM, READ) == (owner == "ann")
    assert not sees(tenant, made, "bob", STREAM, READ)
    assert not sees(tenant, made, "", STREAM, READ)


def by_names(user: str) -> bytes:
    return sha256(f"{TENANT}\0{user}".encode()).digest()[:OWNER_TAG_BYTES]


def without_secret(user: str) -> bytes:
    return owning(secret=b"").owner_tag(user)


@pytest.mark.parametrize(
    ("tag", "user", "twin"),
    [
        (by_names, "user455040", "user1481232"),
        (without_secret, "user1200754", "user1646122"),
    ],
)
def test_no_name_can_be_looked_for_that_is_taken_for_anothers(
    tag: Callable[[str], bytes], user: str, twin: str
) -> None:
    """Of tags that anyone can make, a machine finds two names with the same one in seconds."""
    assert tag(user) == tag(twin)
    tenant = owning()
    assert tag(user) != tenant.owner_tag(user)
    made = new_stream_id(0, bytes(7), owner_tag=tenant.owner_tag(user), retention_days=1)
    assert sees(tenant, made, user, READ)
    assert not sees(tenant, made, twin, READ)
