"""The audit between real processes on a real database."""

import asyncio
import multiprocessing
from contextlib import ExitStack
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from shared.audit import Chain, Event, Head
from shared.audit.trail import Audit, Verdict
from shared.errors import Unavailable
from shared.records import Item
from shared.schema import TENANTS
from shared.table import Conflict, DynamoDB, Put
from tests.e2e import dynoxide
from tests.shared.audit.chains import ACTOR, CHAIN, everything

pytestmark = pytest.mark.e2e

SPAWN = multiprocessing.get_context("spawn")
PROCESSES, ENTRIES = 3, 10


def append_many(endpoint: str, barrier: Barrier) -> None:
    """Append entries, in a race with whoever else does."""

    async def work(audit: Audit) -> None:
        for number in range(ENTRIES):
            entry = audit.entry(CHAIN, Event.FOLLOWED, ACTOR, details={"from": number})
            assert await audit.append(entry) is None

    with dynoxide.store(endpoint) as made:
        barrier.wait()
        asyncio.run(work(Audit(made)))


async def test_processes_append_to_one_chain_and_nothing_is_lost(
    endpoint: str, real: DynamoDB
) -> None:
    barrier = SPAWN.Barrier(PROCESSES)
    with ExitStack() as stack:
        processes = [
            SPAWN.Process(target=append_many, args=(endpoint, barrier)) for _ in range(PROCESSES)
        ]
        for process in processes:
            stack.callback(process.kill)
            process.start()
        for process in processes:
            await asyncio.to_thread(process.join, 60)
            assert process.exitcode == 0
    audit = Audit(real)
    entries = await everything(audit, CHAIN)
    assert len(entries) == PROCESSES * ENTRIES
    span: dict[str, Any] = {"start_ms": entries[0].at - 60_000, "end_ms": entries[0].at + 10**7}
    page = await audit.page("tenant", limit=1000, **span)
    assert list(page.entries) == sorted(entries, key=lambda entry: entry.id)
    family = await audit.family(CHAIN)
    assert {chain async for chain in audit.chains("tenant", **span)} == set(family)


async def test_an_entry_whose_replies_are_lost_is_written_once(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain("tenant", "lossy")
    async with dynoxide.proxy(endpoint) as proxy:
        with dynoxide.store(proxy.url) as made:
            audit = Audit(made)
            assert await audit.append(audit.entry(chain, Event.FOLLOWED, ACTOR)) is None

            async def head(of: Chain) -> Head | None:
                found = await Audit.head(audit, of)
                # All three requests of the first try, and one of the second.
                proxy.lose = 4
                return found

            with monkeypatch.context() as patched:
                patched.setattr(audit, "head", head)
                assert await audit.append(audit.entry(chain, Event.POLLED, ACTOR)) is None
            assert len(proxy.lost) == 4
            assert await audit.verify(chain) == Verdict(2, None)


async def test_what_stands_in_the_way_is_told_and_nothing_is_written(real: DynamoDB) -> None:
    audit, chain = Audit(real), Chain("tenant", "tenant")
    key: Item = {"pk": "tenant", "what": "key#1"}
    made = Put(TENANTS, {**key, "label": "first"})
    other = Put(TENANTS, {**key, "label": "second"})
    assert await audit.append(audit.entry(chain, Event.KEY_MADE, ACTOR), [made]) is None
    conflict = await audit.append(audit.entry(chain, Event.KEY_MADE, ACTOR), [other])
    assert conflict == Conflict((made.item,))
    assert await audit.verify(chain) == Verdict(1, None)


async def test_a_database_that_is_gone() -> None:
    with dynoxide.database() as gone:
        pass
    with dynoxide.store(gone) as made:
        audit = Audit(made)
        with pytest.raises(Unavailable):
            await audit.append(audit.entry(CHAIN, Event.FOLLOWED, ACTOR))
