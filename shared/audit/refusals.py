"""Refusals, gathered: they may come by the thousand, and each entry costs five write units.

The first refusal of one kind (tenant, outcome, policy, user) is an entry at once. Those that follow
within a minute are counted, and told by one entry when the minute is over. Every process has a
chain of its own for them, so that processes do not wait for each other.

A process that is stopped takes its counts of the last minute with it; that there were refusals, and
of whom, is in the table all the same.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from shared.audit import Actor, Chain, Event
from shared.audit.linking import RETENTION_DAYS
from shared.audit.trail import Audit
from shared.errors import Unavailable
from shared.logger import logger

#: The chain whose side chains are those of the processes; it has no entries itself.
REFUSALS_CHAIN = "refused"
GATHER_S = 60.0
#: Kinds that are counted at once. Beyond, a tenant's users are counted together.
KINDS_MAX = 256
#: Who is refused should not wait long for a table that does not answer.
PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Kind:
    tenant: str
    outcome: str
    policy: str
    user: str | None


@dataclass(slots=True)
class _Gathered:
    """Refusals of one kind since `since`, in s, of which `untold` are in no entry yet.

    `actor` is the last one of them.
    """

    since: float
    actor: Actor
    retention_days: int
    untold: int = 0


class Refusals:
    """Tells the refusals of one process. `now` is the wall clock in s, `randomness` gives n bytes.

    No method raises `Unavailable`: a refusal is one also where it cannot be told at once. What
    may not have been written is told again a minute later: rather twice than never.
    """

    def __init__(
        self,
        audit: Audit,
        *,
        now: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._audit = audit
        self._now = now
        self._randomness = randomness
        #: In the order of their `since`.
        self._held: dict[_Kind, _Gathered] = {}

    @cached_property
    def _chain(self) -> str:
        # Drawn when it is needed: a process may begin as one of many copies of a snapshot.
        return f"{REFUSALS_CHAIN}-{self._randomness(8).hex()}"

    async def add(
        self,
        tenant: str,
        actor: Actor,
        outcome: str,
        policy: str = "",
        *,
        retention_days: int = RETENTION_DAYS,
    ) -> None:
        """Tell that this actor was refused: `outcome` is the problem's slug, `policy` the limit."""
        kind = _Kind(tenant, outcome, policy, actor.user)
        if kind not in self._held and len(self._held) >= KINDS_MAX:
            actor = replace(actor, user=None)
            kind = replace(kind, user=None)
        if kind in self._held:
            held = self._held[kind]
            held.actor, held.retention_days = actor, retention_days
            held.untold += 1
        else:
            await self._begin(kind, _Gathered(self._now(), actor, retention_days))
        await self.tell()

    async def tell(self) -> None:
        """Tell what has been counted for a minute.

        Costs nothing where there is nothing to tell: call it after every request. Where the table
        does not answer, one request waits for that, and for one entry.
        """
        for kind, held in list(self._held.items()):
            if self._now() - held.since < GATHER_S:
                return
            # Unless somebody else was faster while we wrote.
            if self._held.get(kind) is held and not await self._end(kind, held):
                return

    async def _begin(self, kind: _Kind, held: _Gathered) -> None:
        """Tell the first refusal of a kind, and count the next ones."""
        oldest = next(iter(self._held.items())) if len(self._held) >= KINDS_MAX else None
        if oldest:
            del self._held[oldest[0]]
        self._held[kind] = held
        if oldest and oldest[1].untold:
            await self._write(*oldest, oldest[1].untold)
        await self._write(kind, held, 1)

    async def _end(self, kind: _Kind, held: _Gathered) -> bool:
        """Tell what was counted; who is refused without end is told once a minute."""
        del self._held[kind]
        if not held.untold:
            return True
        self._held[kind] = replace(held, since=self._now(), untold=0)
        return await self._write(kind, held, held.untold)

    async def _write(self, kind: _Kind, held: _Gathered, count: int) -> bool:
        """Whether it was told; else it is counted again."""
        details = {"count": count, "since": int(held.since * 1000)}
        entry = self._audit.entry(
            Chain(kind.tenant, self._chain),
            Event.REFUSED,
            held.actor,
            outcome=kind.outcome,
            details=details | ({"policy": kind.policy} if kind.policy else {}),
            retention_days=held.retention_days,
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._audit.append(entry)
        except (Unavailable, TimeoutError):
            logger.warning("refusals are not in the audit yet", extra={"count": count})
            if kind in self._held:
                self._held[kind].untold += count
            return False
        return True
