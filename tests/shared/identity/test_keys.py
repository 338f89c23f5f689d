"""API keys: looked up once in a while, never kept, one tenant's only, and ended everywhere."""

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Unavailable
from shared.identity import SCOPES, Identity
from shared.identity.keys import (
    CACHE_KEYS_MAX,
    CACHE_MISS_S,
    CACHE_S,
    DEFAULT_SCOPES,
    KEY_CHARS_MAX,
    Key,
    Keys,
    adding,
    id_of,
    new_key,
)
from shared.table import Write
from tests.clock import Clock
from tests.simulation.scripted import ScriptedStore

ACME = Key("acme", "1")


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def keys(store: ScriptedStore, clock: Clock) -> Keys:
    return Keys(store, clock=clock)


def do(store: ScriptedStore, writes: Iterable[Write]) -> bool:
    """Whether all of the writes went ahead."""
    writes = list(writes)
    return store.transact_now(writes, repr(writes)) is None


async def test_a_key_names_its_tenant(keys: Keys, store: ScriptedStore) -> None:
    assert do(store, adding("secret", ACME))
    assert await keys.find("secret") == ACME
    assert await keys.find("Secret") is None
    assert await keys.look_again("acme", "1") == ACME
    assert await keys.look_again("acme", "2") is None
    assert await keys.look_again("other", "1") is None


@pytest.mark.parametrize("key", ["", "x" * (KEY_CHARS_MAX + 1), "\ud800"])
async def test_what_cannot_be_a_key_is_nobodys(keys: Keys, key: str) -> None:
    assert await keys.find(key) is None


async def test_a_key_is_one_tenants_only(keys: Keys, store: ScriptedStore) -> None:
    assert do(store, adding("secret", ACME))
    assert not do(store, adding("secret", Key("other", "2")))
    assert not do(store, adding("secret", replace(ACME, id="2")))
    assert not do(store, adding("another", ACME))
    assert await keys.find("secret") == ACME
    assert await keys.find("another") is None
    assert await keys.of("other") == []


async def test_the_table_holds_no_key(store: ScriptedStore) -> None:
    key, key_id = new_key()
    do(store, adding(key, Key("acme", key_id)))
    assert key not in repr(store.items)
    assert key.rpartition("_")[2] not in repr(store.items)


@pytest.mark.parametrize(("key", "while_s"), [("secret", CACHE_S), ("unknown", CACHE_MISS_S)])
async def test_a_lookup_holds_for_a_while(
    keys: Keys, store: ScriptedStore, clock: Clock, key: str, while_s: float
) -> None:
    do(store, adding("secret", ACME))
    first = await keys.find(key)
    reads = store.reads
    clock.now = while_s - 1
    assert await keys.find(key) == first
    assert store.reads == reads
    clock.now = while_s
    assert await keys.find(key) == first
    assert store.reads == reads + 1


async def test_lookups_that_are_kept_are_bounded(keys: Keys) -> None:
    for number in range(CACHE_KEYS_MAX + 10):
        await keys.find(f"guess-{number}")
    assert len(keys._cache) == CACHE_KEYS_MAX


async def test_a_revoked_key_is_known_as_one_both_ways(
    keys: Keys, store: ScriptedStore, clock: Clock
) -> None:
    do(store, adding("secret", ACME))
    do(store, adding("second", replace(ACME, id="2")))
    await keys.find("secret")
    assert do(store, await keys.revoking("acme", "1", 77))
    assert await keys.find("secret") == ACME  # as it was read
    clock.now = CACHE_S
    revoked = replace(ACME, revoked_at=77)
    assert await keys.find("secret") == await keys.look_again("acme", "1") == revoked
    assert await keys.find("second") == replace(ACME, id="2")


async def test_a_key_is_revoked_by_its_own_tenant_only(keys: Keys, store: ScriptedStore) -> None:
    do(store, adding("secret", ACME))
    assert await keys.revoking("other", "1", 77) == []
    assert await keys.revoking("acme", "2", 77) == []
    assert await keys.find("secret") == ACME


async def test_a_tenants_keys_are_listed_oldest_first_the_revoked_ones_too(
    keys: Keys, store: ScriptedStore
) -> None:
    for number, created_at in ((1, 30), (2, 10), (3, 20)):
        do(store, adding(f"secret {number}", Key("acme", str(number), created_at=created_at)))
    do(store, adding("theirs", Key("other", "9")))
    do(store, await keys.revoking("acme", "3", 40))
    listed = await keys.of("acme")
    assert [(key.id, key.revoked_at) for key in listed] == [("2", None), ("3", 40), ("1", None)]


async def test_a_store_that_does_not_answer_says_nothing_of_keys(
    keys: Keys, store: ScriptedStore, clock: Clock
) -> None:
    do(store, adding("secret", ACME))
    assert await keys.find("secret") == ACME
    store.unreadable = True
    assert await keys.find("secret") == ACME
    clock.now = CACHE_S
    with pytest.raises(Unavailable):
        await keys.find("secret")
    store.unreadable = False
    assert await keys.find("secret") == ACME


TIMES = st.none() | st.integers(0, 2**40)


@given(
    st.builds(
        Key,
        tenant=st.just("acme"),
        id=st.text(max_size=9),
        scopes=st.frozensets(st.sampled_from(sorted(SCOPES))),
        user=st.none() | st.text(max_size=9),
        label=st.text(max_size=9),
        created_at=st.integers(0, 2**40),
        valid_until=TIMES,
        revoked_at=TIMES,
    )
)
def test_a_key_comes_back_from_the_table_as_it_was(key: Key) -> None:
    assert Key.from_item(key.to_item()) == key
    identity = Identity("acme", key.user, key.scopes, f"key:{key.id}", key.valid_until)
    assert key.identity() == identity


def test_who_is_given_no_scopes_may_stream_and_read() -> None:
    assert Key("acme", "1").scopes == DEFAULT_SCOPES == SCOPES - {"admin"}


def test_new_keys_are_never_the_same_and_show_their_id() -> None:
    made = [new_key() for _ in range(100)]
    assert len({key for key, _ in made}) == 100
    for key, key_id in made:
        assert re.fullmatch(r"sk_[0-9a-f]{8}_[0-9A-Za-z_-]{43}", key)
        assert id_of(key) == key_id


@pytest.mark.parametrize("key", ["demo", "sk_short", "sk_3f9a1c2e_tooshort", ""])
def test_the_id_of_a_key_that_shows_none_tells_nothing_of_it(key: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{8}", id_of(key))
    assert id_of(key) != id_of(f"{key}2")
