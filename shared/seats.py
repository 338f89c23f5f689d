"""Seats: how many follow a stream at once, where its tenant bounds that.

A stream's seats are one item, with an attribute for each follower that says until when it holds.
Who follows on renews its seat; who dies loses it when its time is over, so none is lost for ever.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable

from shared.errors import Unavailable
from shared.records import Item, StreamKey
from shared.schema import TENANTS
from shared.table import Put, Store, Update

#: For how long a seat is held that is not renewed, and how often it is.
LEASE_S = 90
RENEW_S = 30.0
#: How often a seat is tried for that others are taking at the same time.
TRIES_MAX = 8

_SEAT = "seat:"


class Seat:
    """One follower's place, for as long as it is renewed."""

    def __init__(self, store: Store, place: Item, name: str, now: Callable[[], float]) -> None:
        self._store = store
        self._place = place
        self._name = name
        self._now = now

    def taking(self, state: Item, gone: tuple[str, ...]) -> Put | Update:
        """The write that takes it, if the seats are still as in `state`; `gone` are over."""
        rev = int(state.get("rev", 0))
        change: Item = {**self._held(), "rev": rev + 1}
        if not state:
            return Put(TENANTS, self._place | change)
        return Update(TENANTS, self._place, change, remove=gone, where={"rev": rev})

    async def renew(self) -> None:
        await self._store.write(Update(TENANTS, self._place, self._held()))

    async def leave(self) -> None:
        await self._store.write(Update(TENANTS, self._place, add={"rev": 1}, remove=(self._name,)))

    def _held(self) -> Item:
        until = int(self._now()) + LEASE_S
        return {self._name: until, "expires_at": until}


class Seats:
    """Gives seats out. `now` is the wall clock, in s."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now

    async def take(self, key: StreamKey, limit: int) -> Seat | None:
        """A seat at this stream; None where `limit` others follow it. Raises `Unavailable`."""
        place: Item = {"pk": f"seats#{key.pk}", "what": "seats"}
        seat = Seat(self._store, place, f"{_SEAT}{secrets.token_hex(4)}", self._now)
        state = await self._store.get(TENANTS, place) or {}
        for _ in range(TRIES_MAX):
            held = {name: int(until) for name, until in state.items() if name.startswith(_SEAT)}
            gone = tuple(name for name, until in held.items() if until <= self._now())
            if len(held) - len(gone) >= limit:
                return None
            found = await self._store.write(seat.taking(state, gone))
            if found is None:
                return seat
            state = found
            await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311
        raise Unavailable("Too many come to this stream at once.")
