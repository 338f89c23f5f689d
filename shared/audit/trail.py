"""Appends entries to the audit, and reads them."""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from shared import fields
from shared.audit import Actor, Chain, Entry, Event, Head, head_of, heads_pk
from shared.audit.linking import RETENTION_DAYS, Details, again, aside, draft, link, writes
from shared.audit.pages import DAY_MS, Page, by_day, of_chains
from shared.audit.verify import Fault, verify
from shared.errors import Unavailable
from shared.records import Item
from shared.schema import AUDIT, TENANTS
from shared.table import Conflict, Query, Store, Write

#: For how long an entry is offered again; of a thousand at once, the last one takes 8 s.
PATIENCE_S = 10.0
#: Who loses so often to others goes to a side chain.
CROWD = 2
PAGE_MAX = 1000
#: The last moment that a page may be asked for, in ms: the year 5138.
MOMENT_MAX = 10**14 - 1
#: No entry is older: retention is ten years at most.
KEPT_DAYS_MAX = 3660


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many entries of a chain were looked at, and what is wrong first, if anything is."""

    entries: int
    fault: Fault | None


class Audit:
    """`now` is the wall clock in s, `randomness` gives n bytes.

    Every method that reads or writes raises `Unavailable` where the store does not answer.
    """

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._now = now
        self._randomness = randomness

    def entry(
        self,
        chain: Chain,
        event: Event,
        actor: Actor,
        *,
        outcome: str = "ok",
        details: Details | None = None,
        retention_days: int = RETENTION_DAYS,
    ) -> Entry:
        """An entry of now, as `draft` makes it."""
        return draft(
            chain,
            event,
            actor,
            at_ms=int(self._now() * 1000),
            nonce=self._randomness(8).hex(),
            outcome=outcome,
            details=details,
            retention_days=retention_days,
        )

    async def append(self, entry: Entry, also: Sequence[Write] = ()) -> Conflict | None:
        """Write an entry at the end of its chain, together with `also`; None when written.

        Else the conflict tells what stood in the way of `also`, and nothing was written. Losing to
        other entries, or a reply, costs another try and never writes twice; but after `Unavailable`
        nobody knows, and another call may. In a crowd the entry goes to a side chain.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        entry, losses = link(entry, await self.head(entry.chain)), 0
        for attempt in itertools.count():
            if attempt:
                if loop.time() > deadline:
                    break
                await asyncio.sleep(random.uniform(0, 0.05 * 2 ** min(attempt, 5)))  # noqa: S311
            try:
                slot, head, *others = await self._offer(entry, also)
            except Unavailable:
                continue
            offer = again(entry, slot, head)
            if offer is None:
                return None
            if any(holder is not None for holder in others):
                return Conflict(tuple(others))
            losses += offer != entry
            # Another entry holds the slot, so no earlier try can still succeed: it may move.
            entry = aside(entry, random.randrange(256)) if losses == CROWD else offer  # noqa: S311
        raise Unavailable("The audit cannot be written just now.")

    async def _offer(self, entry: Entry, also: Sequence[Write]) -> tuple[Item | None, ...]:
        """Offer an entry once; what stood in the way, or the entry itself where it was written."""
        try:
            # The same entry offered twice is one.
            conflict = await self._store.transact([*writes(entry), *also], entry.hash[:36])
        except Unavailable:
            # In a crowd the table only says that it is busy. Reading tells what became of the slot.
            query = Query(AUDIT, entry.chain.pk, 1, start=entry.n, consistent=True)
            held = (await self._store.query(query)).items
            if not held:
                raise
            return held[0], await self._store.get(TENANTS, entry.chain.head_key)
        return conflict.holders if conflict else (entry.to_item(), None)

    async def head(self, chain: Chain) -> Head | None:
        return head_of(await self._store.get(TENANTS, chain.head_key))

    async def page(
        self,
        tenant: str,
        *,
        start_ms: int,
        end_ms: int,
        chain: str | None = None,
        after: str | None = None,
        limit: int,
    ) -> Page:
        """A tenant's entries, or those of one chain, from `start_ms` until before `end_ms`.

        Oldest first; of a chain in its order, and then those of its side chains. `after` is the
        `next` of the page before. A page may be short, or empty, and still not be the last. By
        time, an entry may take a second to appear, so who fetches what is new should end a minute
        ago. Raises `InvalidRequest`.
        """
        for name, moment in (("start", start_ms), ("end", end_ms)):
            fields.whole(moment, name, least=0, most=MOMENT_MAX)
        if chain is not None:
            family = await self.family(Chain(tenant, chain))
            page = await of_chains(self._store, family, after, limit)
            within = tuple(e for e in page.entries if start_ms <= e.at < end_ms)
            return Page(within, page.next)
        # Where there can be nothing, no day is looked through.
        now_ms = int(self._now() * 1000)
        start_ms = max(start_ms, now_ms - KEPT_DAYS_MAX * DAY_MS)
        end_ms = min(end_ms, now_ms + DAY_MS)
        return await by_day(self._store, tenant, start_ms, end_ms, after, limit)

    async def family(self, chain: Chain) -> list[Chain]:
        """A chain and its side chains."""
        pk, prefix = heads_pk(chain.tenant), f"{chain.name}-"
        query = Query(TENANTS, pk, PAGE_MAX, prefix=prefix, consistent=True)
        names, more = [chain.name], True
        while more:
            found = await self._store.query(query)
            read = [str(item["what"]) for item in found.items]
            names += (theirs := [name for name in read if name.startswith(prefix)])
            more = found.more and bool(read) and theirs == read
            query = replace(query, start=f"{names[-1]}\0", prefix=None)
        return [Chain(chain.tenant, name) for name in names]

    async def read(self, chain: Chain) -> tuple[list[Entry], Head | None]:
        """All entries of one chain, and its head: what `verify` needs."""
        entries = await self._all(chain, 0)
        head = await self.head(chain)
        # The head was read later, so it may name what was appended meanwhile, but nothing beyond.
        n = entries[-1].n + 1 if entries else 0
        newer = await self._all(chain, n) if head and head.n >= n else []
        return entries + [entry for entry in newer if head and entry.n <= head.n], head

    async def _all(self, chain: Chain, n: int) -> list[Entry]:
        entries: list[Entry] = []
        while True:
            query = Query(AUDIT, chain.pk, PAGE_MAX, start=n, consistent=True)
            found = await self._store.query(query)
            entries += map(Entry.from_item, found.items)
            if not found.more or not found.items:
                return entries
            n = entries[-1].n + 1

    async def verify(self, chain: Chain) -> Verdict:
        entries, head = await self.read(chain)
        return Verdict(len(entries), verify(chain, entries, head, self._now()))

    async def chains(self, tenant: str, *, start_ms: int, end_ms: int) -> AsyncIterator[Chain]:
        """The chains that have an entry in this time, or whose head says that they end in it.

        So a chain is found by its entries where its head was removed, and the other way round.
        """
        seen: set[str] = set()
        for named in (self._ended(tenant, start_ms, end_ms), self._met(tenant, start_ms, end_ms)):
            async for name in named:
                if name not in seen:
                    seen.add(name)
                    yield Chain(tenant, name)

    async def _ended(self, tenant: str, start_ms: int, end_ms: int) -> AsyncIterator[str]:
        name, more = "", True
        while more:
            start = f"{name}\0" if name else None
            query = Query(TENANTS, heads_pk(tenant), PAGE_MAX, start=start, consistent=True)
            found = await self._store.query(query)
            more = found.more
            for item in found.items:
                name = str(item["what"])
                if start_ms <= int(item["at"]) < end_ms:
                    yield name

    async def _met(self, tenant: str, start_ms: int, end_ms: int) -> AsyncIterator[str]:
        after: str | None = None
        while True:
            page = await self.page(
                tenant, start_ms=start_ms, end_ms=end_ms, after=after, limit=PAGE_MAX
            )
            for entry in page.entries:
                yield entry.chain.name
            if (after := page.next) is None:
                return
