"""Idempotency: one stream for one key of one user with one body."""

from dataclasses import replace
from itertools import combinations

import pytest

from shared.errors import IdempotencyKeyReused, Unavailable
from shared.idempotency import RETENTION_S, Idempotency
from shared.identity import Identity
from shared.records import StreamKey, new_stream_id
from tests.simulation.scripted import ScriptedStore

KEY = Idempotency("a key", "fingerprint")
ANN = Identity("acme", "ann", credential="key:1")
STREAM = StreamKey(
    "acme", new_stream_id(7_000_000, bytes(7), owner_tag=bytes(5), retention_days=30)
)


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


async def test_a_claim_leads_to_its_stream(store: ScriptedStore) -> None:
    assert await KEY.claimed(store, ANN) is None
    assert store.write_now(KEY.claim(ANN, STREAM)) is None
    assert await KEY.claimed(store, ANN) == STREAM


async def test_what_is_claimed_stays_with_who_was_first(store: ScriptedStore) -> None:
    assert store.write_now(KEY.claim(ANN, STREAM)) is None
    held = store.write_now(KEY.claim(ANN, replace(STREAM, stream="0" * 32)))
    assert held
    assert KEY.claimed_stream(held, ANN) == STREAM


async def test_another_body_is_refused(store: ScriptedStore) -> None:
    store.write_now(KEY.claim(ANN, STREAM))
    with pytest.raises(IdempotencyKeyReused):
        await replace(KEY, fingerprint="another").claimed(store, ANN)


# A client may come back by another credential: it is the same client.
async def test_a_claim_is_its_users_by_whatever_credential(store: ScriptedStore) -> None:
    store.write_now(KEY.claim(ANN, STREAM))
    assert await KEY.claimed(store, replace(ANN, credential="jwt:2", expires_at=9)) == STREAM


def test_different_keys_and_users_and_tenants_never_meet() -> None:
    places = [
        Idempotency(key, "fingerprint").claim(Identity(tenant, user), STREAM).item["pk"]
        for tenant in ("a", "a#b", "b")
        for user in (None, "x", "x\0y")
        for key in ("k", "k2", "\0k")
    ]
    assert all(one != other for one, other in combinations(places, 2))


def test_a_key_is_kept_nowhere_in_the_clear() -> None:
    assert "a key" not in repr(KEY.claim(ANN, STREAM))


def test_a_claim_is_kept_for_a_day() -> None:
    assert RETENTION_S == 24 * 3600
    assert KEY.claim(ANN, STREAM).item["expires_at"] == 7_000 + RETENTION_S


async def test_a_store_that_does_not_answer_says_nothing_of_claims(store: ScriptedStore) -> None:
    store.unreadable = True
    with pytest.raises(Unavailable):
        await KEY.claimed(store, ANN)
