"""How often a caller may ask: a bucket of its own, apart from the counters of starts.

Each request that is counted is one conditional write, so it is counted only where a limit is set.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from shared.errors import LimitExceeded, Unavailable
from shared.quotas.counters import UNIT, Account, filled
from shared.records import DAY_S, Item
from shared.schema import TENANTS
from shared.table import Put, Store, Update

POLICY = "polls-per-minute"
#: How often a write is tried again that lost to another request of the same account.
TRIES_MAX = 5
PAUSE_MAX_S = 0.05
#: A bucket that was not taken from for so long is full, and need not be kept.
RETENTION_S = 3600


class Rate:
    """Counts requests. `now` is the wall clock, in s."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now

    async def take(self, personal: Sequence[Account], shards: Sequence[Account]) -> None:
        """Count one request for each of `personal`, and for one of the tenant's `shards`.

        Raises `LimitExceeded`. Where the store does not answer the request passes: it will fail by
        itself, or costs nothing.
        """
        try:
            for account in personal:
                await self._take(account)
            await self._take_somewhere(shards)
        except Unavailable:
            return

    async def _take_somewhere(self, shards: Sequence[Account]) -> None:
        """A limit is used up only when it is in every shard."""
        refusals: list[LimitExceeded] = []
        for shard in shards:
            try:
                return await self._take(shard)
            except LimitExceeded as refusal:
                refusals.append(refusal)
        raise min(refusals, key=lambda refusal: refusal.retry_after_s)

    async def _take(self, account: Account) -> None:
        limit = account.limits.polls_per_minute
        if limit is None:
            return
        place: Item = {"pk": account.pk, "what": "polls"}
        state = await self._store.get(TENANTS, place) or {}
        for _ in range(TRIES_MAX):
            now_ms = int(self._now() * 1000)
            at = max(now_ms, int(state.get("at", 0)))  # never back, as with the other counters
            past_ms = at - int(state.get("at", at))
            level = filled(state.get("level"), limit * UNIT, past_ms * limit)
            if level < UNIT:
                fill_ms = -((level - UNIT) // limit) if limit else DAY_S * 1000
                raise _refusal(account, -(-(at - now_ms + fill_ms) // 1000))
            rev = int(state.get("rev", 0))
            change: Item = {
                "level": level - UNIT,
                "at": at,
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
        raise _refusal(account, 1)


def _refusal(account: Account, retry_after_s: int) -> LimitExceeded:
    return LimitExceeded(
        f"{account.kind}-{POLICY}",
        limit=account.whole.polls_per_minute or 0,
        window_s=60,
        unit="requests",
        retry_after_s=retry_after_s,
    )
