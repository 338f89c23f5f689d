"""Authority: whether what a client shows is good, and whether it still is."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.audit import Actor
from shared.audit.addresses import shown_address
from shared.elapsed import elapsed
from shared.errors import CredentialEnded, Unauthenticated
from shared.identity import ADMIN, Identity, jwks, tickets
from shared.identity.keys import Keys
from shared.identity.tokens import Tokens, is_token
from shared.limits import Bounds
from shared.records import StreamKey
from shared.table import Store
from shared.tenants import Tenant, Tenants, is_tenant


class Authority:
    """Judges credentials by what the table said at most 20 s ago. `now` is the wall clock in s.

    `fetch` gets an issuer's keys.

    Every method raises `Unavailable` where the store does not answer.
    """

    def __init__(
        self,
        store: Store,
        tenants: Tenants,
        *,
        fetch: jwks.Fetch = jwks.fetch,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self.tenants = tenants
        self._now = now
        self._keys = Keys(store, clock=clock)
        self._tokens = Tokens(tenants.trusting, fetch=fetch, clock=clock, now=now)

    async def identify(self, credential: str) -> Identity:
        """Whose key or token this is. Raises `Unauthenticated`."""
        if is_token(credential):
            identity = await self._tokens.identify(credential)
        else:
            key = await self._keys.find(credential)
            if key is None:
                raise Unauthenticated("The key is not known here.")
            if key.revoked_at is not None:
                raise CredentialEnded("revoked")
            identity = key.identity()
        return await self._judged(identity)

    async def identify_ticket(self, ticket: str) -> Identity:
        """Whose ticket this is. Raises `Unauthenticated`."""
        name = tickets.tenant_of(ticket)
        tenant = await self.tenants.get(name) if is_tenant(name) else None
        if tenant is None:
            raise Unauthenticated("The ticket is not good for this, or no longer.")
        return await self._judged(
            tickets.verify(ticket, tenant.secret, purpose="read", now=self._now())
        )

    async def tenant(self, identity: Identity) -> Tenant:
        """The tenant of a request. Raises `Unauthenticated`."""
        tenant = await self.tenants.get(identity.tenant)
        if tenant is None:
            raise Unauthenticated("The tenant is not known here.")
        return tenant

    async def ended(self, identity: Identity) -> str | None:
        """Why what was shown once is no longer good: `expired`, `revoked`, `suspended`; or None."""
        if self.expires_within(identity, 0):
            return "expired"
        reason = await self._withdrawn(identity)
        # To look it up has taken its time.
        return "expired" if self.expires_within(identity, 0) else reason

    async def _withdrawn(self, identity: Identity) -> str | None:
        tenant = await self.tenants.get(identity.tenant)
        if tenant is None or tenant.suspended:
            return "suspended"
        kind, _, name = identity.credential.partition(":")
        if kind == "key":
            key = await self._keys.look_again(identity.tenant, name)
            return "revoked" if key is None or key.revoked_at is not None else None
        trusted = any(issuer.credential == identity.credential for issuer in tenant.policy.issuers)
        return None if trusted else "revoked"

    def expires_within(self, identity: Identity, seconds: float) -> bool:
        expires_at = identity.expires_at
        return expires_at is not None and expires_at - self._now() <= seconds

    async def _judged(self, identity: Identity) -> Identity:
        if reason := await self.ended(identity):
            raise CredentialEnded(reason)
        return identity


def to_body(identity: Identity) -> dict[str, Any]:
    """What a record keeps of who asked."""
    return {
        "user": identity.user,
        "credential": identity.credential,
        "expires_at": identity.expires_at,
    }


def from_body(tenant: str, body: Mapping[str, Any]) -> Identity:
    """Who asked, by a record's body."""
    return Identity(
        tenant=tenant,
        user=body.get("user"),
        credential=str(body.get("credential", "")),
        expires_at=body.get("expires_at"),
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: an identity, its tenant, and the address that it comes from."""

    identity: Identity
    tenant: Tenant
    address: str | None = None

    @property
    def bounds(self) -> Bounds:
        """What holds for each of its requests."""
        return self.tenant.bounds(self.identity.user, self.address)


def actor(caller: Caller) -> Actor:
    """Who asks, as the audit may keep it."""
    identity = caller.identity
    address = shown_address(caller.address, caller.tenant.policy.addresses)
    return Actor(identity.user, identity.credential, address)


def may_see(caller: Caller, key: StreamKey) -> bool:
    """Whether a stream is the caller's to see: a user's own, and all with the scope `admin`."""
    user = caller.identity.user
    if user is None or ADMIN in caller.identity.scopes:
        return True
    return key.owner_tag == caller.tenant.owner_tag(user)
