"""Appends entries to the audit, and reads them."""

import asyncio
import base64
import random
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from shared import fields
from shared.audit import Actor, Chain, Entry, Event, Head, day_pk, head_of, heads_pk, position
from shared.audit.linking import RETENTION_DAYS, Details, again, draft, link, writes
from shared.audit.verify import Fault, verify
from shared.errors import InvalidRequest, Unavailable
from shared.records import DAY_S
from shared.schema import AUDIT, TENANTS
from shared.table import Conflict, Query, Store, Write

#: How often an entry is offered, and the longest pause between two tries: in a race with a hundred
#: others for one chain, the last one waits for about ten seconds.
TRIES_MAX = 14
PAUSE_MAX_S = 2.0
#: How many days one page looks through; one that comes to no end says where the next begins.
PAGE_DAYS_MAX = 31
PAGE_MAX = 1000
#: The last moment that a page may be asked for, in ms: the year 5138.
MOMENT_MAX = 10**14 - 1
#: No entry is older: retention is ten years at most.
KEPT_DAYS_MAX = 3660

_BY_DAY = AUDIT.indexes[0]
_DAY_MS = DAY_S * 1000
_MOMENT = re.compile(r"\d{15}(#[0-9a-f]{16}#)?")
_NUMBER = re.compile(r"\d{1,15}")


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, and the `after` of the next page, where there may be more."""

    entries: tuple[Entry, ...]
    next: str | None


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

    async def append(
        self, entry: Entry, also: Sequence[Write] = (), *, tries: int = TRIES_MAX
    ) -> Conflict | None:
        """Write an entry at the end of its chain, together with `also`; None when written.

        Else the conflict tells what stood in the way of `also`, and nothing was written. Losing to
        other entries, or a reply, costs another try and never writes twice; but after `Unavailable`
        nobody knows, and another call may.
        """
        entry = link(entry, await self.head(entry.chain))
        for attempt in range(tries):
            if attempt:
                pause_s = min(PAUSE_MAX_S, 0.05 * 2**attempt)
                await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311
            try:
                # The same entry offered twice is one.
                conflict = await self._store.transact([*writes(entry), *also], entry.hash[:36])
            except Unavailable:
                if attempt == tries - 1:
                    raise
                continue
            if conflict is None:
                return None
            slot, head, *others = conflict.holders
            offer = again(entry, slot, head)
            if offer is None:
                return None
            if any(holder is not None for holder in others):
                return Conflict(tuple(others))
            entry = offer
        raise Unavailable("Too many write to one chain of the audit just now.")

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

        Oldest first; of a chain in its order. `after` is the `next` of the page before. A page may
        be short, or empty, and still not be the last. By time, an entry may take a second to
        appear, so who fetches what is new should end a minute ago. Raises `InvalidRequest`.
        """
        for name, moment in (("start", start_ms), ("end", end_ms)):
            fields.whole(moment, name, least=0, most=MOMENT_MAX)
        if chain is not None:
            first = int(_position(after, _NUMBER, "0"))
            return await self._page_of(Chain(tenant, chain), first, limit, (start_ms, end_ms))
        # Where there can be nothing, no day is looked through.
        now_ms = int(self._now() * 1000)
        start = position(max(start_ms, now_ms - KEPT_DAYS_MAX * _DAY_MS))
        first = max(_position(after, _MOMENT, start), start)
        return await self._page_by_day(tenant, first, limit, min(end_ms, now_ms + _DAY_MS))

    async def _page_of(self, chain: Chain, n: int, limit: int, span: tuple[int, int]) -> Page:
        found = await self._store.query(Query(AUDIT, chain.pk, limit, start=n, consistent=True))
        entries = tuple(map(Entry.from_item, found.items))
        after = _cursor(str(entries[-1].n + 1)) if found.more and entries else None
        return Page(tuple(e for e in entries if span[0] <= e.at < span[1]), after)

    async def _page_by_day(self, tenant: str, first: str, limit: int, end_ms: int) -> Page:
        end = position(end_ms)
        entries: list[Entry] = []
        for _ in range(PAGE_DAYS_MAX):
            if first >= end:
                return Page(tuple(entries), None)
            day = day_pk(tenant, _moment(first))
            left = limit - len(entries)
            found = await self._store.query(Query(AUDIT, day, left, start=first, index=_BY_DAY))
            entries += [Entry.from_item(item) for item in found.items if str(item["id"]) < end]
            if found.items and (found.more or len(found.items) == left):
                # Ids have one length, so this comes right after the last one.
                first = f"{found.items[-1]['id']}#"
                break
            first = position((_moment(first) // _DAY_MS + 1) * _DAY_MS)
        return Page(tuple(entries), _cursor(first) if first < end else None)

    async def read(self, chain: Chain) -> tuple[list[Entry], Head | None]:
        """All of a chain, with its head: what an export holds, and what `verify` needs."""
        entries = await self._all(chain, 0)
        head = await self.head(chain)
        # The head was read later, so it may name what was appended meanwhile, but nothing beyond.
        newer = await self._all(chain, entries[-1].n + 1 if entries else 0) if head else []
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


def _moment(position: str) -> int:
    """The ms of an id, or of the beginning of one."""
    return int(position[:15])


def _cursor(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def _position(cursor: str | None, form: re.Pattern[str], first: str) -> str:
    """What a cursor of ours holds; `first` where there is none. Raises `InvalidRequest`."""
    if cursor is None:
        return first
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if form.fullmatch(raw.decode("ascii")):
            return raw.decode("ascii")
    except ValueError:
        pass
    raise InvalidRequest("`page` must be what the page before named as the next.", field="page")
