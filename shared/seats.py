"""Seats: how many follow a stream at once, where that is bounded.

A stream has a row of seats for each subject with a bound on its followers: one for its tenant's,
and one for each user's and each address's own. A row has as many seats as may be, and each is an
item that says who has it, and until when. So no schedule gives out more than there are, and takers
meet only where they want the same one. A follower has one seat of each row or none at all. Who
follows on renews its seats; who dies loses them when their time is over.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from shared.errors import Unavailable
from shared.records import Item, StreamKey
from shared.schema import TENANTS
from shared.table import Conflict, Put, Query, Store, Update, Write

#: For how long a seat is held that is not renewed, and how often it is.
LEASE_S = 90
RENEW_S = 30.0
#: How often others are tried after seats that were taken since they were seen free.
TRIES_MAX = 8

#: The free seats of a row by their names, each as it was seen; None where it has no item yet.
Row = dict[str, Item | None]


class Seat:
    """One follower's place: a seat of each row. `by` is never given twice."""

    def __init__(
        self, store: Store, places: Sequence[Item], by: str, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._places = places
        self._by = by
        self._now = now

    async def take(self, seen: Sequence[Item | None]) -> Conflict | None:
        """Have it, where all is still as it was `seen`: free. Else nothing of it."""
        return await self._transact(
            [
                _taking(place, was, self._held())
                for place, was in zip(self._places, seen, strict=True)
            ]
        )

    async def renew(self) -> bool:
        """Hold it for longer. False where its time was over, and somebody else has some of it."""
        return await self._transact([self._change(p, self._held()) for p in self._places]) is None

    async def leave(self) -> None:
        """Give back whatever of it is still ours; what cannot be is free again after a while."""
        await asyncio.gather(*map(self._leave, self._places))

    async def _leave(self, place: Item) -> None:
        with suppress(Unavailable):
            await self._store.write(self._change(place, {"until": 0}))

    async def _transact(self, writes: Sequence[Write]) -> Conflict | None:
        return await self._store.transact(writes, secrets.token_hex(8))

    def _change(self, place: Item, change: Item) -> Update:
        return Update(TENANTS, place, change, where={"by": self._by})

    def _held(self) -> Item:
        until = int(self._now()) + LEASE_S
        return {"by": self._by, "until": until, "expires_at": until}


class Seats:
    """Gives seats out. `now` is the wall clock, in s."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now

    async def take(self, key: StreamKey, followers: Mapping[str, int]) -> Seat | None:
        """A seat at this stream; None where a row of it is full, or too many come at once.

        `followers` has the length of each row, by its subject's name. Raises `Unavailable`; a seat
        may be taken then all the same, and is free again after a while.
        """
        partitions = [_partition(key, name) for name in followers]
        looks = map(self._free, partitions, followers.values())
        rows = await asyncio.gather(*looks)
        by = secrets.token_hex(8)
        for _ in range(TRIES_MAX):
            if not all(rows):
                return None
            chosen = [random.choice(list(row)) for row in rows]  # noqa: S311
            places: list[Item] = [
                {"pk": pk, "what": name} for pk, name in zip(partitions, chosen, strict=True)
            ]
            seat = Seat(self._store, places, by, self._now)
            conflict = await seat.take([row[n] for row, n in zip(rows, chosen, strict=True)])
            if conflict is None:
                return seat
            for row, name, holder in zip(rows, chosen, conflict.holders, strict=True):
                if holder is not None:
                    del row[name]
        return None

    async def _free(self, partition: str, length: int) -> Row:
        found = await self._store.query(Query(TENANTS, partition, length, consistent=True))
        seen = {str(item["what"]): item for item in found.items}
        return {
            name: seen.get(name)
            for name in map(_name, range(length))
            if self._is_free(seen.get(name))
        }

    def _is_free(self, seat: Item | None) -> bool:
        return seat is None or int(seat["until"]) <= self._now()


def _taking(place: Item, seen: Item | None, held: Item) -> Write:
    if seen is None:
        return Put(TENANTS, place | held)
    return Update(TENANTS, place, held, where={name: seen[name] for name in ("by", "until")})


def _partition(key: StreamKey, subject: str) -> str:
    return f"seats#{key.pk}#{subject}"


def _name(number: int) -> str:
    return f"{number:04d}"
