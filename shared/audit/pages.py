"""Pages of entries: by time, and chain by chain.

Both walk from partition to partition, so a page looks through a bounded number of them and says
where the next begins. That place is opaque to clients, and leads nowhere that they might not ask
for anyway: the tenant is never part of it.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared.audit import Chain, Entry, day_pk, position
from shared.errors import InvalidRequest
from shared.records import DAY_S
from shared.schema import AUDIT
from shared.table import Query, Store

#: How many days, or chains, one page looks through.
PARTITIONS_MAX = 31
DAY_MS = DAY_S * 1000

_BY_DAY = AUDIT.indexes[0]
#: The beginning of a moment, or right after an entry.
_MOMENT = re.compile(r"\d{15}(#[0-9a-f]{16}#)?")
#: A chain's name, and the number of an entry.
_PLACE = re.compile(r"([a-z0-9-]{1,63}):(\d{1,15})")


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, and the `after` of the next page, where there may be more."""

    entries: tuple[Entry, ...]
    next: str | None


async def by_day(
    store: Store, tenant: str, start_ms: int, end_ms: int, after: str | None, limit: int
) -> Page:
    """A tenant's entries in the order of time. Raises `InvalidRequest`, `Unavailable`."""
    here, end = position(start_ms), position(end_ms)
    if after is not None:
        here = max(here, _place(after, _MOMENT)[0])
    entries: list[Entry] = []
    for _ in range(PARTITIONS_MAX):
        if here >= end:
            return Page(tuple(entries), None)
        moment, left = int(here[:15]), limit - len(entries)
        query = Query(AUDIT, day_pk(tenant, moment), left, start=here, index=_BY_DAY)
        found = await store.query(query)
        entries += [Entry.from_item(item) for item in found.items if str(item["id"]) < end]
        if found.items and (found.more or len(found.items) == left):
            # Ids have one length, so this comes right after the last one.
            here = f"{found.items[-1]['id']}#"
            break
        here = position((moment // DAY_MS + 1) * DAY_MS)
    return Page(tuple(entries), _cursor(here) if here < end else None)


async def of_chains(store: Store, chains: Sequence[Chain], after: str | None, limit: int) -> Page:
    """The entries of chains, which come in the order of their names. Raises as `by_day`."""
    name, first = "", 0
    if after is not None:
        place = _place(after, _PLACE)
        name, first = place[1], int(place[2])
    entries: list[Entry] = []
    ahead = [chain for chain in chains if chain.name >= name]
    for chain in ahead[:PARTITIONS_MAX]:
        start, left = first if chain.name == name else 0, limit - len(entries)
        found = await store.query(Query(AUDIT, chain.pk, left, start=start, consistent=True))
        entries += map(Entry.from_item, found.items)
        if found.items and (found.more or len(found.items) == left):
            return Page(tuple(entries), _cursor(f"{chain.name}:{entries[-1].n + 1}"))
    rest = ahead[PARTITIONS_MAX:]
    return Page(tuple(entries), _cursor(f"{rest[0].name}:0") if rest else None)


def _cursor(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _place(after: str, form: re.Pattern[str]) -> re.Match[str]:
    """The place that a page named as its next."""
    try:
        raw = base64.b64decode(after + "=" * (-len(after) % 4), altchars=b"-_", validate=True)
        if place := form.fullmatch(raw.decode("ascii")):
            return place
    except ValueError:
        pass
    raise InvalidRequest("`page` must be what the page before named as the next.", field="page")
