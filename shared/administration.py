"""Administration: what an operator does to tenants and keys, each with its entry of the audit.

A change and its entry are one transaction on the tenant's own chain. What is refused raises an
`InvalidRequest` that says why, in words for the operator.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.audit import TENANT_CHAIN, Actor, Chain, Event
from shared.audit.linking import Details
from shared.audit.trail import Audit
from shared.erasure import INDEX_LAG_S, Erasure, Erasures
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.identity import SCOPES
from shared.identity.keys import LABEL_CHARS_MAX, Key, Keys, adding, id_of
from shared.lifecycle import Lifecycle
from shared.log import Log
from shared.quotas import Quotas
from shared.quotas import removing as forgetting
from shared.records import StreamKey
from shared.table import Conflict, Store, Write
from shared.tenants import Policy, Tenant, Tenants, changing, is_tenant, removing
from shared.tenants import adding as adding_tenant

USER_CHARS_MAX = 128
#: When everybody has seen a change: longer than anyone goes on by what was read before.
SETTLE_S = 30.0

_OPERATOR = Actor(credential="operator")
_USER = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


@dataclass(frozen=True, slots=True)
class Removal:
    """How far a tenant's removal is: how many of its streams and keys are gone.

    `wait_s` is how long it waits now, until it looks for streams that began as late as could be.
    """

    streams: int = 0
    keys: int = 0
    wait_s: float = 0.0


class Administration:
    """`now` is the wall clock, in s. Every method raises `Unavailable` where the store fails."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._audit = Audit(store, now=now)

    async def tenant(self, name: str) -> Tenant:
        """A tenant as it is now. Raises `NotFound`."""
        # Tenants remembers; an operator wants what is there.
        tenant = await Tenants(self._store).get(name)
        if tenant is None:
            raise NotFound(f"There is no tenant {name}.")
        return tenant

    async def add_tenant(self, name: str, document: Mapping[str, Any]) -> Tenant:
        """Make a tenant. Raises `InvalidRequest` for a name that is taken or cannot be."""
        if not is_tenant(name):
            raise InvalidRequest(
                "A tenant's name has 1 to 63 of a-z, 0-9 and the hyphen, and does not begin with "
                "one.",
                field="tenant",
            )
        policy = Policy.from_document(document)
        writes = adding_tenant(name, policy, int(self._now() * 1000))
        if await self._change(name, Event.TENANT_ADDED, writes, policy):
            raise InvalidRequest(f"There is a tenant {name} already.", field="tenant")
        return await self.tenant(name)

    async def ensure(self, tenant: str, key: str, scopes: frozenset[str] = SCOPES) -> None:
        """See to it that there is a tenant, with the defaults where it is new, and that it has a
        key. Raises `InvalidRequest` where the key is another tenant's.
        """
        try:
            await self.tenant(tenant)
        except NotFound:
            await self.add_tenant(tenant, {})
        held = await Keys(self._store).find(key)
        if held is None:
            about = Key(tenant, id_of(key), scopes, created_at=int(self._now()))
            await self.add_key(key, about)
        elif held.tenant != tenant:
            raise InvalidRequest(f"The key is the tenant {held.tenant}'s.", field="key")

    async def set_policy(self, name: str, change: Callable[[dict[str, Any]], None]) -> Tenant:
        """Change a tenant's document, which `change` is given to edit in place."""
        tenant = await self.tenant(name)
        document = tenant.policy.to_document()
        change(document)
        policy = Policy.from_document(document)
        before, after = tenant.policy.to_document(), policy.to_document()
        changed = [name for name in after if after[name] != before[name]]
        if not changed:
            return tenant
        limits = any(name.endswith("limits") for name in changed)
        event = Event.LIMITS_CHANGED if limits else Event.TENANT_CHANGED
        return await self._update(
            tenant, policy, tenant.suspended, event, {"changed": " ".join(changed)[:200]}
        )

    async def suspend(self, name: str, *, suspended: bool) -> Tenant:
        """Stop everything of a tenant, or let it go on: everywhere within 30 s."""
        tenant = await self.tenant(name)
        if tenant.suspended is suspended:
            return tenant
        event = Event.TENANT_SUSPENDED if suspended else Event.TENANT_RESUMED
        return await self._update(tenant, tenant.policy, suspended, event)

    async def add_key(self, key: str, about: Key) -> Key:
        """Give a tenant a key. Raises `NotFound`; `InvalidRequest` where somebody has it."""
        if about.user is not None and not _USER.fullmatch(about.user):
            raise InvalidRequest(
                f"A user has 1 to {USER_CHARS_MAX} characters without control characters.",
                field="user",
            )
        if len(about.label) > LABEL_CHARS_MAX:
            raise InvalidRequest(
                f"A label has at most {LABEL_CHARS_MAX} characters.", field="label"
            )
        tenant = await self.tenant(about.tenant)
        details = {"key": about.id, "scopes": " ".join(sorted(about.scopes))}
        conflict = await self._change(
            about.tenant, Event.KEY_MADE, adding(key, about), tenant.policy, details
        )
        if conflict:
            raise InvalidRequest("Somebody has this key already.", field="key")
        return about

    async def revoke_key(self, tenant: str, key_id: str) -> None:
        """End a key, everywhere within 30 s. Raises `NotFound`; revoking twice changes nothing."""
        known = await self.tenant(tenant)
        keys = Keys(self._store)
        key = await keys.look_again(tenant, key_id)
        if key is None:
            raise NotFound(f"The tenant {tenant} has no key {key_id}.")
        if key.revoked_at is None:
            writes = await keys.revoking(tenant, key_id, int(self._now()))
            details = {"key": key_id}
            if await self._change(tenant, Event.KEY_REVOKED, writes, known.policy, details):
                raise Unavailable("Somebody else has changed this key meanwhile.")

    async def remove_tenant(
        self, name: str, *, settle_s: float = SETTLE_S, lag_s: float = INDEX_LAG_S
    ) -> AsyncIterator[Removal]:
        """End a tenant: its streams, keys, counters and settings go, and only its audit stays.

        What was interrupted goes on when asked again: the tenant itself goes last. `settle_s` and
        `lag_s` may be less where nobody else works on the store, or where its indexes never lag.
        Raises `NotFound`.
        """
        tenant = await self.suspend(name, suspended=True)
        streams = 0
        async for streams, wait_s in self._erase_streams(name, settle_s, lag_s):
            yield Removal(streams, wait_s=wait_s)
        gone = 0
        keys = Keys(self._store)
        while listed := await keys.of(name):
            for key in listed:
                for write in await keys.removing(name, key.id):
                    await self._store.write(write)
                gone += 1
                yield Removal(streams, gone)
        for write in forgetting(name):
            await self._store.write(write)
        details = {"streams": streams, "keys": gone}
        await self._change(name, Event.TENANT_REMOVED, removing(tenant), tenant.policy, details)

    async def _erase_streams(
        self, name: str, settle_s: float, lag_s: float
    ) -> AsyncIterator[tuple[int, float]]:
        """Erase all streams of a suspended tenant; tells how many, and how long it waits then."""
        log = Log(self._store, now=self._now)
        quotas = Quotas(self._store, now=self._now)
        lifecycle = Lifecycle(self._store, log, quotas, self._audit)
        # Streams are meant, too, that begin before everybody knows of the suspension.
        later = Erasures(lifecycle, self._audit, now=lambda: self._now() + settle_s)
        erasures = Erasures(lifecycle, self._audit, now=self._now)
        since_ms = max(await self._changed_ms(name) + settle_s * 1000, await _newest_ms(log, name))
        job = await self._begun(erasures, name, since_ms) or await later.begin(name, _OPERATOR)
        # What is still to do then, in case that we are interrupted, the sweep does.
        last_look = job.created_at / 1000 + lag_s
        while True:
            looked_at = self._now()
            async for state in erasures.run(job):
                job = state
                yield job.streams, 0.0
            if job.done_at or looked_at >= last_look:
                break
            while (wait_s := last_look - self._now()) > 0:
                yield job.streams, wait_s
                await asyncio.sleep(min(wait_s, 1.0))
        if await _newest_ms(log, name) > job.created_at:
            raise Unavailable("Streams have begun since, or clocks differ: ask again in a minute.")

    async def _begun(self, erasures: Erasures, name: str, since_ms: float) -> Erasure | None:
        """What an earlier try has begun: to erase all streams until then, or a later moment."""
        for job in await erasures.pending():
            whole = (job.tenant, job.stream, job.user) == (name, None, None)
            if whole and job.created_at >= since_ms:
                return job
        return None

    async def _changed_ms(self, name: str) -> int:
        """When a tenant was last changed: it was suspended then, or before."""
        head = await self._audit.head(Chain(name, TENANT_CHAIN))
        return head.at if head else 0

    async def _update(
        self,
        tenant: Tenant,
        policy: Policy,
        suspended: bool,
        event: Event,
        details: Details | None = None,
    ) -> Tenant:
        writes = changing(tenant, policy, suspended=suspended)
        if await self._change(tenant.name, event, writes, policy, details):
            raise Unavailable("Somebody else has changed this tenant meanwhile.")
        return await self.tenant(tenant.name)

    async def _change(
        self,
        tenant: str,
        event: Event,
        writes: Sequence[Write],
        policy: Policy,
        details: Details | None = None,
    ) -> Conflict | None:
        entry = self._audit.entry(
            Chain(tenant, TENANT_CHAIN),
            event,
            _OPERATOR,
            details=details,
            retention_days=policy.audit_retention_days,
        )
        return await self._audit.append(entry, writes)


async def _newest_ms(log: Log, tenant: str) -> int:
    """When a tenant's newest stream began; 0 where there is none."""
    newest, _ = await log.summaries(tenant, before=None, limit=1, everything=True)
    return StreamKey(tenant, newest[0].stream).created_ms if newest else 0
