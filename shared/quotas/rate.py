"""How often a caller may ask: a bucket of its own, apart from the counters of starts.

Each request that is counted is one conditional write, so it is counted only where a limit is set.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from shared.errors import LimitExceeded, Unavailable
from shared.quotas.counters import UNIT, Account, Left, Meter, filled
from shared.records import Item
from shared.schema import TENANTS
from shared.table import Put, Store, Update

#: How often a write is tried that loses to others of the same account, and the longest pause
#: after the first and after the last try: of a hundred at once nearly all pass, within 2 s.
TRIES_MAX = 9
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 0.5
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
        if account.limits.polls_per_minute is None:
            return
        for attempt in range(TRIES_MAX):
            state = await self._store.get(TENANTS, _place(account)) or {}
            now_ms = int(self._now() * 1000)
            meter = _meter(account, state, now_ms)
            if refusal := meter.refusal(1):
                raise refusal
            change: Item = {
                "level": meter.level - UNIT,
                "at": now_ms + meter.wait_ms,
                "rev": int(state.get("rev", 0)) + 1,
                "expires_at": now_ms // 1000 + RETENTION_S,
            }
            held = await self._store.write(
                Update(TENANTS, _place(account), change, where={"rev": state["rev"]})
                if state
                else Put(TENANTS, _place(account) | change)
            )
            if held is None:
                return
            # What stood in the way would be outdated after the pause: it is read anew.
            pause_s = min(PAUSE_MIN_S * 2**attempt, PAUSE_MAX_S)
            await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311
        # So many at once are more than any limit means to let pass.
        raise LimitExceeded(meter.policy, limit=meter.limit, window_s=60, retry_after_s=1)

    async def left(self, accounts: Sequence[Account]) -> list[Left]:
        """What is left of each limit on these."""
        limited = [a for a in accounts if a.limits.polls_per_minute is not None]
        states = await asyncio.gather(*(self._store.get(TENANTS, _place(a)) for a in limited))
        now_ms = int(self._now() * 1000)
        meters = (_meter(a, state or {}, now_ms) for a, state in zip(limited, states, strict=True))
        return [meter.less(0) for meter in meters]


def _place(account: Account) -> Item:
    return {"pk": account.pk, "what": "polls"}


def _meter(account: Account, state: Item, now_ms: int) -> Meter:
    limit, told = (int(x.polls_per_minute or 0) for x in (account.limits, account.whole))
    at = max(now_ms, int(state.get("at", 0)))  # never back, as with the counters of starts
    past_ms = at - int(state.get("at", at))
    return Meter(
        counts="polls",
        policy=f"{account.kind}-polls-per-minute",
        unit="requests",
        limit=told,
        window_s=60,
        full=limit,
        level=filled(state.get("level"), limit * UNIT, past_ms * limit),
        gain=limit,
        wait_ms=at - now_ms,
    )
