"""Refusals: the first of each kind is told at once, and the rest are counted."""

import asyncio
import random
from dataclasses import replace

from shared.audit import Chain, Entry
from shared.audit.refusals import GATHER_S, KINDS_MAX, PATIENCE_S, Refusals
from shared.audit.trail import Audit
from shared.schema import AUDIT
from tests.model_store import ModelStore
from tests.shared.audit.chains import ACTOR, T0_MS
from tests.simulation.clock import virtual
from tests.simulation.scripted import ScriptedStore

LIMIT = ("limit-exceeded", "tenant-tokens-per-day")


def now() -> float:
    return T0_MS / 1000 + asyncio.get_running_loop().time()


def process(store: ModelStore, seed: int = 1) -> Refusals:
    """One process that refuses."""
    dice = random.Random(seed)
    audit = Audit(store, now=now, randomness=dice.randbytes)
    return Refusals(audit, now=now, randomness=dice.randbytes)


async def entries(store: ModelStore, tenant: str = "tenant") -> list[Entry]:
    """What a tenant's audit holds, in the order of time; every chain of it is sound."""
    audit = Audit(store, now=now)
    page = await audit.page(tenant, start_ms=T0_MS, end_ms=T0_MS + 10**9, limit=1000)
    for name in {entry.chain.name for entry in page.entries}:
        assert (await audit.verify(Chain(tenant, name))).fault is None
    return [*page.entries]


async def counts(store: ModelStore) -> list[int]:
    return [int(entry.details["count"]) for entry in await entries(store)]


@virtual
async def test_the_first_refusal_is_told_at_once() -> None:
    store = ModelStore()
    await process(store).add("tenant", ACTOR, *LIMIT, retention_days=7)
    [entry] = await entries(store)
    assert (entry.event, entry.outcome, entry.actor) == ("refused", "limit-exceeded", ACTOR)
    assert entry.details == {"policy": "tenant-tokens-per-day", "count": 1, "since": T0_MS}
    assert entry.expires_at == T0_MS // 1000 + 7 * 86400


@virtual
async def test_those_that_follow_within_a_minute_are_told_together() -> None:
    store = ModelStore()
    refusals = process(store)
    for _ in range(38):
        await refusals.add("tenant", ACTOR, *LIMIT)
        await asyncio.sleep(1)
    assert await counts(store) == [1]
    await asyncio.sleep(GATHER_S - 38 - 1)
    await refusals.tell()
    assert await counts(store) == [1]
    await asyncio.sleep(1.5)
    await refusals.tell()
    assert await counts(store) == [1, 37]
    assert (await entries(store))[1].details["since"] == T0_MS
    await asyncio.sleep(2 * GATHER_S)
    await refusals.tell()
    assert await counts(store) == [1, 37]


@virtual
async def test_whoever_is_refused_without_end_is_told_once_a_minute() -> None:
    store = ModelStore()
    refusals = process(store)
    for _ in range(1000):
        await refusals.add("tenant", ACTOR, *LIMIT)
        await asyncio.sleep(0.6)
    await asyncio.sleep(GATHER_S)
    await refusals.tell()
    told = await counts(store)
    assert sum(told) == 1000
    assert len(told) <= 12


@virtual
async def test_each_kind_is_told_for_itself() -> None:
    store = ModelStore()
    refusals = process(store)
    for _ in range(2):
        await refusals.add("tenant", ACTOR, *LIMIT)
        await refusals.add("tenant", ACTOR, "forbidden")
        await refusals.add("tenant", replace(ACTOR, user="bob"), *LIMIT)
        await refusals.add("other", ACTOR, *LIMIT)
    told = [(e.outcome, e.details.get("policy"), e.actor.user) for e in await entries(store)]
    assert sorted(map(str, told)) == sorted(
        map(str, [(*LIMIT, "ann"), ("forbidden", None, "ann"), (*LIMIT, "bob")])
    )
    assert len(await entries(store, "other")) == 1


@virtual
async def test_processes_have_chains_of_their_own() -> None:
    store = ModelStore()
    await asyncio.gather(*(process(store, seed).add("tenant", ACTOR, *LIMIT) for seed in range(20)))
    found = await entries(store)
    assert len({entry.chain for entry in found}) == 20
    assert {entry.n for entry in found} == {0}


@virtual
async def test_many_users_cost_no_more_memory_and_no_more_writes_than_so_much() -> None:
    store = ModelStore()
    refusals = process(store)
    for n in range(3 * KINDS_MAX):
        await refusals.add("tenant", replace(ACTOR, user=f"user-{n}"), *LIMIT)
    assert len(refusals._held) == KINDS_MAX
    found = await entries(store)
    assert len(found) == KINDS_MAX + 1
    assert [entry.actor.user for entry in found].count(None) == 1
    await asyncio.sleep(GATHER_S)
    await refusals.tell()
    assert sum(await counts(store)) == 3 * KINDS_MAX


@virtual
async def test_many_tenants_cost_no_more_memory_than_so_much() -> None:
    store = ModelStore()
    refusals = process(store)
    for n in range(2 * KINDS_MAX):
        for _ in range(2):
            await refusals.add(f"tenant-{n}", ACTOR, *LIMIT)
    assert len(refusals._held) == KINDS_MAX
    await asyncio.sleep(GATHER_S)
    await refusals.tell()
    items = [item for key, item in store.items.items() if key[0] == AUDIT.name]
    told = [Entry.from_item(item) for item in items]
    assert sum(int(entry.details["count"]) for entry in told) == 4 * KINDS_MAX


@virtual
async def test_a_refusal_that_cannot_be_told_is_told_later() -> None:
    store = ScriptedStore()
    refusals = process(store)
    store.broken = True
    for _ in range(3):
        await refusals.add("tenant", ACTOR, *LIMIT)
    store.broken = False
    assert await counts(store) == []
    await refusals.tell()
    assert await counts(store) == []
    await asyncio.sleep(GATHER_S)
    await refusals.tell()
    assert await counts(store) == [3]


@virtual
async def test_where_the_table_does_not_answer_one_request_waits_for_one_entry() -> None:
    store = ScriptedStore()
    refusals = process(store)
    for n in range(20):
        for _ in range(2):
            await refusals.add("tenant", replace(ACTOR, user=f"user-{n}"), *LIMIT)
    await asyncio.sleep(GATHER_S)
    store.write_s = 13  # as long as three tries of botocore's
    began = asyncio.get_running_loop().time()
    await refusals.tell()
    assert asyncio.get_running_loop().time() - began <= PATIENCE_S
    store.write_s = 0
    for _ in range(2):
        await asyncio.sleep(GATHER_S)
        await refusals.tell()
    assert sum(await counts(store)) == 40


@virtual
async def test_requests_at_the_same_time_are_all_counted() -> None:
    store = ModelStore()
    refusals = process(store)

    async def refuse(user: str) -> None:
        for _ in range(20):
            await refusals.add("tenant", replace(ACTOR, user=user), *LIMIT)
            await asyncio.sleep(10)

    await asyncio.gather(*(refuse(user) for user in ("ann", "ann", "bob", "eve")))
    await asyncio.sleep(GATHER_S)
    await refusals.tell()
    assert sum(await counts(store)) == 80
