"""Tenants: who a key belongs to, and which idempotency keys they have used.

Keys are random, so one round of SHA-256 is enough to keep them; the table never sees a key itself.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import IdempotencyKeyReused
from shared.records import Item, StreamKey
from shared.schema import TENANTS
from shared.table import Put, Store

#: For how long a key that was found, or not found, is not looked up again: one that was tried too
#: early should not stay refused.
CACHE_S = 20.0
CACHE_MISS_S = 2.0
CACHE_KEYS_MAX = 1000
KEY_CHARS_MAX = 200
#: For how long at least a repeated request gets the first one's outcome.
IDEMPOTENCY_RETENTION_S = 24 * 3600

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a request. `user` is an identity within the tenant, where there is one."""

    tenant: str
    user: str | None = None


def is_tenant(name: str) -> bool:
    return _TENANT.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """An Idempotency-Key, and the fingerprint of the body that came with it."""

    key: str
    fingerprint: str


class Tenants:
    """Looks keys up. `clock` is monotonic, in seconds."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._cache: dict[str, tuple[float, Identity | None]] = {}

    async def identify(self, key: str) -> Identity | None:
        """Whose key this is; None for a key that nobody has. Raises `Unavailable`."""
        if not 0 < len(key) <= KEY_CHARS_MAX:
            return None
        partition = _partition(key)
        expires, identity = self._cache.get(partition, (0.0, None))
        if self._clock() < expires:
            return identity
        item = await self._store.get(TENANTS, {"pk": partition, "what": "key"})
        identity = Identity(tenant=str(item["tenant"])) if item else None
        if len(self._cache) >= CACHE_KEYS_MAX:
            self._cache.pop(next(iter(self._cache)))
        keep_s = CACHE_S if identity else CACHE_MISS_S
        self._cache[partition] = (self._clock() + keep_s, identity)
        return identity

    async def add_key(self, tenant: str, key: str) -> bool:
        """Give a tenant a key. False when the key is already somebody's."""
        item: Item = {
            "pk": _partition(key),
            "what": "key",
            "tenant": tenant,
            "created_at": int(time.time() * 1000),
        }
        held = await self._store.write(Put(TENANTS, item))
        return held is None or held["tenant"] == tenant

    def claim(self, identity: Identity, idempotency: Idempotency, key: StreamKey) -> Put:
        """The write that ties an idempotency key to its stream; part of opening the stream."""
        item: Item = {
            **_claim_key(identity, idempotency),
            "stream": key.stream,
            "fingerprint": idempotency.fingerprint,
            "expires_at": key.created_ms // 1000 + IDEMPOTENCY_RETENTION_S,
        }
        return Put(TENANTS, item)

    async def claimed(self, identity: Identity, idempotency: Idempotency) -> StreamKey | None:
        """The stream that an idempotency key is tied to. Raises `IdempotencyKeyReused`."""
        item = await self._store.get(TENANTS, _claim_key(identity, idempotency))
        return claimed_stream(item, identity, idempotency) if item else None


def claimed_stream(item: Item, identity: Identity, idempotency: Idempotency) -> StreamKey:
    """The stream of a claim that was found. Raises `IdempotencyKeyReused`."""
    if item["fingerprint"] != idempotency.fingerprint:
        raise IdempotencyKeyReused("This Idempotency-Key was used with another body before.")
    return StreamKey(identity.tenant, str(item["stream"]))


def _claim_key(identity: Identity, idempotency: Idempotency) -> Item:
    owner = f"{identity.user or ''}\0{idempotency.key}"
    digest = hashlib.sha256(owner.encode()).hexdigest()
    return {"pk": identity.tenant, "what": f"idempotency#{digest}"}


def _partition(key: str) -> str:
    return "key#" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
