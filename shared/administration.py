"""Administration: what an operator does to tenants and keys, each with its entry of the audit.

A change and its entry are one transaction on the tenant's own chain. What is refused raises an
`InvalidRequest` that says why, in words for the operator.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.audit import TENANT_CHAIN, Actor, Chain, Event
from shared.audit.trail import Audit
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.identity import SCOPES
from shared.identity.keys import Key, Keys, adding, id_of
from shared.table import Conflict, Store, Write
from shared.tenants import Policy, Tenant, Tenants, changing, is_tenant
from shared.tenants import adding as adding_tenant

USER_CHARS_MAX = 128

_OPERATOR = Actor(credential="operator")
_USER = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


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
            await self.add_key(key, Key(tenant, id_of(key), scopes))
        elif held.tenant != tenant:
            raise InvalidRequest(f"The key is the tenant {held.tenant}'s.", field="key")

    async def set_policy(self, name: str, change: Callable[[dict[str, Any]], None]) -> Tenant:
        """Change a tenant's document, which `change` is given to edit in place."""
        tenant = await self.tenant(name)
        document = tenant.policy.to_document()
        change(document)
        policy = Policy.from_document(document)
        return await self._update(tenant, policy, tenant.suspended, Event.LIMITS_CHANGED)

    async def suspend(self, name: str, *, suspended: bool) -> Tenant:
        """Stop everything of a tenant, or let it go on: everywhere within 30 s."""
        tenant = await self.tenant(name)
        if tenant.suspended is suspended:
            return tenant
        event = Event.TENANT_SUSPENDED if suspended else Event.TENANT_RESUMED
        return await self._update(tenant, tenant.policy, suspended, event)

    async def add_key(self, key: str, about: Key) -> Key:
        """Give a tenant a key. Raises `InvalidRequest` where somebody has it."""
        tenant = await self.tenant(about.tenant)
        if about.user is not None and not _USER.fullmatch(about.user):
            raise InvalidRequest(
                f"A user has 1 to {USER_CHARS_MAX} characters without control characters.",
                field="user",
            )
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

    async def _update(
        self, tenant: Tenant, policy: Policy, suspended: bool, event: Event
    ) -> Tenant:
        writes = changing(tenant, policy, suspended=suspended)
        if await self._change(tenant.name, event, writes, policy):
            raise Unavailable("Somebody else has changed this tenant meanwhile.")
        return await self.tenant(tenant.name)

    async def _change(
        self,
        tenant: str,
        event: Event,
        writes: Sequence[Write],
        policy: Policy,
        details: Mapping[str, str] | None = None,
    ) -> Conflict | None:
        entry = self._audit.entry(
            Chain(tenant, TENANT_CHAIN),
            event,
            _OPERATOR,
            details=details,
            retention_days=policy.audit_retention_days,
        )
        return await self._audit.append(entry, writes)
