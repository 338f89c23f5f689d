"""Tenants: keys are looked up once in a while, never kept, and one tenant's only."""

import pytest

from shared.tenants import (
    CACHE_KEYS_MAX,
    CACHE_MISS_S,
    CACHE_S,
    KEY_CHARS_MAX,
    Identity,
    Tenants,
    is_tenant,
)
from tests.model_store import ModelStore


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


@pytest.fixture
def tenants(store: ModelStore, clock: Clock) -> Tenants:
    return Tenants(store, clock=clock)


async def test_a_key_names_its_tenant(tenants: Tenants) -> None:
    assert await tenants.add_key("acme", "secret")
    assert await tenants.identify("secret") == Identity("acme")
    assert await tenants.identify("Secret") is None


@pytest.mark.parametrize("key", ["", "x" * (KEY_CHARS_MAX + 1), "\ud800"])
async def test_what_cannot_be_a_key_is_nobodys(tenants: Tenants, key: str) -> None:
    assert await tenants.identify(key) is None


async def test_a_key_is_one_tenants_only(tenants: Tenants) -> None:
    assert await tenants.add_key("acme", "secret")
    assert await tenants.add_key("acme", "secret")
    assert not await tenants.add_key("other", "secret")
    assert await tenants.identify("secret") == Identity("acme")


async def test_the_table_holds_no_key(tenants: Tenants, store: ModelStore) -> None:
    await tenants.add_key("acme", "secret-4711")
    assert "4711" not in repr(store.items)


@pytest.mark.parametrize(("key", "while_s"), [("secret", CACHE_S), ("unknown", CACHE_MISS_S)])
async def test_a_lookup_holds_for_a_while(
    tenants: Tenants, store: ModelStore, clock: Clock, key: str, while_s: float
) -> None:
    await tenants.add_key("acme", "secret")
    first = await tenants.identify(key)
    reads = store.reads
    clock.now = while_s - 1
    assert await tenants.identify(key) == first
    assert store.reads == reads
    clock.now = while_s
    assert await tenants.identify(key) == first
    assert store.reads == reads + 1


async def test_lookups_that_are_kept_are_bounded(tenants: Tenants) -> None:
    for number in range(CACHE_KEYS_MAX + 10):
        await tenants.identify(f"guess-{number}")
    assert len(tenants._cache) == CACHE_KEYS_MAX


@pytest.mark.parametrize("name", ["a", "acme-2", "0", "a" * 63])
def test_a_tenants_name(name: str) -> None:
    assert is_tenant(name)


@pytest.mark.parametrize("name", ["", "-a", "A", "a#b", "a b", "ü", "a" * 64, "a\n"])
def test_what_is_no_tenants_name(name: str) -> None:
    assert not is_tenant(name)
