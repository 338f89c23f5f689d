"""Idempotency: which stream an Idempotency-Key is tied to."""

import hashlib
from dataclasses import dataclass

from shared.errors import IdempotencyKeyReused
from shared.identity import Identity
from shared.records import DAY_S, Item, StreamKey
from shared.schema import TENANTS
from shared.table import Put, Store

#: For how long at least a repeated request gets the first one's outcome.
RETENTION_S = DAY_S


@dataclass(frozen=True, slots=True)
class Idempotency:
    """An Idempotency-Key, and the fingerprint of the body that came with it."""

    key: str
    fingerprint: str

    def claim(self, identity: Identity, key: StreamKey) -> Put:
        """The write that ties it to a stream; part of opening the stream."""
        item: Item = {
            **self._place(identity),
            "stream": key.stream,
            "fingerprint": self.fingerprint,
            "expires_at": key.created_ms // 1000 + RETENTION_S,
        }
        return Put(TENANTS, item)

    async def claimed(self, store: Store, identity: Identity) -> StreamKey | None:
        """The stream that it is tied to. Raises `IdempotencyKeyReused`."""
        item = await store.get(TENANTS, self._place(identity))
        return self.claimed_stream(item, identity) if item else None

    def claimed_stream(self, item: Item, identity: Identity) -> StreamKey:
        """The stream of a claim that was found. Raises `IdempotencyKeyReused`."""
        if item["fingerprint"] != self.fingerprint:
            raise IdempotencyKeyReused("This Idempotency-Key was used with another body before.")
        return StreamKey(identity.tenant, str(item["stream"]))

    def _place(self, identity: Identity) -> Item:
        owner = f"{identity.user or ''}\0{self.key}"
        digest = hashlib.sha256(owner.encode()).hexdigest()
        return {"pk": f"claim#{identity.tenant}#{digest}", "what": "claim"}
