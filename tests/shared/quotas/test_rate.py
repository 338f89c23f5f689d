"""Polls a minute: a bucket for each subject, one write a request, none where nothing is limited."""

import asyncio
from dataclasses import replace

import pytest

from shared.errors import LimitExceeded, Unavailable
from shared.limits import Limits
from shared.quotas import Quotas
from shared.records import DAY_S
from shared.schema import TENANTS
from shared.table import Write
from shared.tenants import Policy, Tenant
from tests.clock import Clock
from tests.model_store import ModelStore
from tests.simulation.clock import virtual
from tests.simulation.scripted import ScriptedStore

LIMIT = Limits(polls_per_minute=30)


def tenant(**settings: object) -> Tenant:
    policy = replace(Policy(), **settings)  # type: ignore[arg-type]
    return Tenant("acme", policy, suspended=False, secret=bytes(32), created_at=0, rev=0)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000)


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


@pytest.fixture
def quotas(store: ModelStore, clock: Clock) -> Quotas:
    return Quotas(store, now=clock)


async def passing(quotas: Quotas, who: Tenant, times: int, user: str | None = None) -> int:
    """How many of so many requests at once pass."""

    async def one() -> bool:
        try:
            await quotas.ask(who, user, "192.0.2.1")
        except LimitExceeded:
            return False
        return True

    return sum([await one() for _ in range(times)])


# Each tried again by what it had read before it paused, and so lost again, and was refused.
@virtual
async def test_whoever_comes_at_once_passes_within_the_limit() -> None:
    store = ScriptedStore()
    store.read_s, store.write_s = 0.003, 0.005
    quotas = Quotas(store, now=asyncio.get_running_loop().time)
    who = tenant(limits=Limits(polls_per_minute=6000))
    await asyncio.gather(*(quotas.ask(who, None, None) for _ in range(30)))
    [left] = [each for each in await quotas.used(who, None, None) if "polls" in each.policy]
    assert left.left >= 6000 - 30


async def test_without_a_limit_nothing_is_read_or_written(
    quotas: Quotas, store: ModelStore
) -> None:
    assert await passing(quotas, tenant(), 100) == 100
    assert (store.reads, store.writes) == (0, 0)


async def test_a_bucket_passes_its_limit_and_then_what_it_refills(
    quotas: Quotas, clock: Clock
) -> None:
    who = tenant(limits=LIMIT)
    assert await passing(quotas, who, 40) == 30
    clock.now += 10
    assert await passing(quotas, who, 40) == 5
    clock.now += 3600
    assert await passing(quotas, who, 40) == 30


async def test_who_waits_as_long_as_told_passes(quotas: Quotas, clock: Clock) -> None:
    who = tenant(limits=Limits(polls_per_minute=7))
    assert await passing(quotas, who, 7) == 7
    with pytest.raises(LimitExceeded) as refused:
        await quotas.ask(who, None, None)
    assert refused.value.extensions["policy"] == "tenant-polls-per-minute"
    assert refused.value.extensions["limit"] == 7
    clock.now += int(refused.value.headers["Retry-After"])
    await quotas.ask(who, None, None)


async def test_users_and_addresses_have_their_own(quotas: Quotas) -> None:
    who = tenant(limits=Limits(), user_limits=LIMIT)
    assert await passing(quotas, who, 40, user="ann") == 30
    assert await passing(quotas, who, 40, user="bob") == 30
    assert await passing(quotas, who, 40) == 40
    by_address = tenant(limits=Limits(), address_limits=LIMIT)
    assert await passing(quotas, by_address, 40) == 30


async def test_a_clock_behind_refills_nothing_twice(quotas: Quotas, clock: Clock) -> None:
    who = tenant(limits=LIMIT)
    assert await passing(quotas, who, 30) == 30
    clock.now -= 30
    assert await passing(quotas, who, 1) == 0
    clock.now += 30
    assert await passing(quotas, who, 1) == 0


async def test_shards_pass_as_much_as_the_whole(quotas: Quotas) -> None:
    assert await passing(quotas, tenant(limits=LIMIT, shards=4), 40) == 30


async def test_the_shard_that_passes_it_first_says_when_to_ask_again(
    quotas: Quotas, clock: Clock
) -> None:
    who = tenant(limits=Limits(polls_per_minute=2), shards=2)
    assert await passing(quotas, who, 1) == 1
    clock.now += 20
    assert await passing(quotas, who, 1) == 1
    for _ in range(8):  # whichever is asked last
        with pytest.raises(LimitExceeded) as refused:
            await quotas.ask(who, None, None)
        assert refused.value.retry_after_s == 40


async def test_whose_clock_is_behind_is_told_to_wait_until_it_refills(
    quotas: Quotas, clock: Clock
) -> None:
    who = tenant(limits=Limits(polls_per_minute=60))
    assert await passing(quotas, who, 60) == 60
    clock.now -= 5
    with pytest.raises(LimitExceeded) as refused:
        await quotas.ask(who, None, None)
    assert refused.value.retry_after_s == 6
    clock.now += 6
    await quotas.ask(who, None, None)


async def test_what_is_left_of_them_is_told(quotas: Quotas, clock: Clock) -> None:
    who = tenant(limits=Limits(polls_per_minute=30), user_limits=LIMIT, shards=4)
    assert await passing(quotas, who, 4, user="ann") == 4
    clock.now += 1
    for user, of_user in (("ann", 26), ("bob", 30)):
        found = await quotas.used(who, user, None)
        assert [(each.policy, each.limit, each.window_s, each.left) for each in found] == [
            ("tenant-polls-per-minute", 30, 60, 26),
            ("user-polls-per-minute", 30, 60, of_user),
        ]
    # As many as are told pass.
    assert await passing(quotas, who, 30, user="ann") == 26


async def test_many_at_once_never_pass_more(store: ModelStore, clock: Clock) -> None:
    who = tenant(limits=LIMIT)

    async def one() -> bool:
        try:
            await Quotas(store, now=clock).ask(who, None, None)
        except LimitExceeded:
            return False
        return True

    passed = sum(await asyncio.gather(*(one() for _ in range(60))))
    assert 0 < passed <= 30


async def test_a_limit_of_nothing_passes_nothing(quotas: Quotas) -> None:
    with pytest.raises(LimitExceeded) as refused:
        await quotas.ask(tenant(limits=Limits(polls_per_minute=0)), None, None)
    assert (refused.value.retry_after_s, refused.value.extensions["limit"]) == (DAY_S, 0)


async def test_a_store_that_does_not_answer_lets_pass(
    quotas: Quotas, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: Write) -> None:
        raise Unavailable

    monkeypatch.setattr(store, "write", fails)
    await quotas.ask(tenant(limits=LIMIT), None, None)


async def test_the_item_expires_and_is_small(quotas: Quotas, store: ModelStore) -> None:
    await quotas.ask(tenant(limits=LIMIT), None, None)
    [item] = [item for key, item in store.items.items() if key[0] == TENANTS.name]
    assert set(item) == {"pk", "what", "level", "at", "rev", "expires_at"}
