"""How often a caller may ask: a bucket of its own, apart from the counters of starts.

Each request that is counted is one conditional write, so it is counted only where a limit is set.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from shared.errors import LimitExceeded, Unavailable
from shared.quotas.counters import UNIT, Subject, filled
from shared.records import Item
from shared.schema import TENANTS
from shared.table import Put, Store, Update

POLICY = "polls-per-minute"
#: How often a write is tried again that lost to another request of the same subject.
TRIES_MAX = 5
PAUSE_MAX_S = 0.05
#: A bucket that was not taken from for so long is full, and need not be kept.
RETENTION_S = 3600


class Rate:
    """Counts requests. `now` is the wall clock, in s."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now

    async def take(self, personal: Sequence[Subject], shards: Sequence[Subject]) -> None:
        """Count one request for each of `personal`, and for one of the tenant's `shards`.

        Raises `LimitExceeded`. Where the store does not answer the request passes: it will fail by
        itself, or costs nothing.
        """
        try:
            for subject in personal:
                await self._take(subject)
            for place, shard in enumerate(shards, 1):
                try:
                    return await self._take(shard)
                except LimitExceeded:
                    if place == len(shards):
                        raise
        except Unavailable:
            return None

    async def _take(self, subject: Subject) -> None:
        limit = subject.limits.polls_per_minute
        if limit is None:
            return
        place: Item = {"pk": subject.pk, "what": "polls"}
        state = await self._store.get(TENANTS, place) or {}
        for _ in range(TRIES_MAX):
            now_ms = max(int(self._now() * 1000), int(state.get("at", 0)))
            past_ms = now_ms - int(state.get("at", now_ms))
            level = filled(state.get("level"), limit * UNIT, past_ms * limit)
            if level < UNIT:
                raise _refusal(subject, -(-(UNIT - level) // (limit * 1000)) if limit else 60)
            rev = int(state.get("rev", 0))
            change: Item = {
                "level": level - UNIT,
                "at": now_ms,
                "rev": rev + 1,
                "expires_at": now_ms // 1000 + RETENTION_S,
            }
            held = await self._store.write(
                Update(TENANTS, place, change, where={"rev": rev})
                if state
                else Put(TENANTS, place | change)
            )
            if held is None:
                return
            state = held
            await asyncio.sleep(random.uniform(0, PAUSE_MAX_S))  # noqa: S311
        # So many at once are more than any limit means to let pass.
        raise _refusal(subject, 1)


def _refusal(subject: Subject, retry_after_s: int) -> LimitExceeded:
    return LimitExceeded(
        f"{subject.kind}-{POLICY}",
        limit=subject.whole.polls_per_minute or 0,
        window_s=60,
        unit="requests",
        retry_after_s=max(retry_after_s, 1),
    )
