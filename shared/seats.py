"""Seats: how many follow a stream at once, where its tenant bounds that.

A stream has as many seats as its tenant allows, and each is an item that says who has it, and until
when. So no schedule gives out more than there are, and takers meet only where they want the same
one. Who follows on renews its seat; who dies loses it when its time is over.
"""

import random
import secrets
import time
from collections.abc import Callable

from shared.records import Item, StreamKey
from shared.schema import TENANTS
from shared.table import Put, Query, Store, Update

#: For how long a seat is held that is not renewed, and how often it is.
LEASE_S = 90
RENEW_S = 30.0
#: How many seats are tried that others have taken since they were seen free.
TRIES_MAX = 8


class Seat:
    """One follower's place, for as long as it is renewed. `by` is never given twice."""

    def __init__(self, store: Store, place: Item, by: str, now: Callable[[], float]) -> None:
        self._store = store
        self._place = place
        self._by = by
        self._now = now

    async def take(self, seen: Item | None) -> bool:
        """Whether it is ours now, because it is still as it was `seen`: free."""
        if seen is None:
            return await self._store.write(Put(TENANTS, self._place | self._held())) is None
        where = {name: seen[name] for name in ("by", "until")}
        return (
            await self._store.write(Update(TENANTS, self._place, self._held(), where=where)) is None
        )

    async def renew(self) -> bool:
        """Hold it for longer. False where its time was over, and somebody else has it."""
        return await self._change(self._held())

    async def leave(self) -> None:
        await self._change({"until": 0})

    async def _change(self, change: Item) -> bool:
        where: Item = {"by": self._by}
        return await self._store.write(Update(TENANTS, self._place, change, where=where)) is None

    def _held(self) -> Item:
        until = int(self._now()) + LEASE_S
        return {"by": self._by, "until": until, "expires_at": until}


class Seats:
    """Gives seats out. `now` is the wall clock, in s."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now

    async def take(self, key: StreamKey, limit: int) -> Seat | None:
        """A seat at this stream; None where `limit` others follow it, or too many come at once.

        Raises `Unavailable`; a seat may be taken then all the same, and is free again after a
        while.
        """
        pk = f"seats#{key.pk}"
        found = await self._store.query(Query(TENANTS, pk, limit, consistent=True))
        seen = {str(item["what"]): item for item in found.items}
        free = [name for name in map(_name, range(limit)) if not self._is_held(seen.get(name))]
        for name in random.sample(free, min(len(free), TRIES_MAX)):
            place: Item = {"pk": pk, "what": name}
            seat = Seat(self._store, place, secrets.token_hex(8), self._now)
            if await seat.take(seen.get(name)):
                return seat
        return None

    def _is_held(self, seat: Item | None) -> bool:
        return seat is not None and int(seat["until"]) > self._now()


def _name(number: int) -> str:
    return f"{number:04d}"
