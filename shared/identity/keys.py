"""API keys: a prefix, an id that may be shown, and 256 random bits that are shown once.

Random keys need one round of SHA-256 only; the table never sees a key itself. A key is two items
that change together: one under its hash, by which a request finds it, and one under its tenant, by
which it is listed, looked at again and revoked.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from shared.elapsed import elapsed
from shared.identity import READ, STREAM, Identity
from shared.records import Item
from shared.schema import TENANTS
from shared.table import Delete, Put, Query, Store, Update, Write

#: For how long a key that was found, or not found, is not looked up again: a revoked one must end
#: everywhere within 30 s, and one that was tried too early should not stay refused.
CACHE_S = 20.0
CACHE_MISS_S = 2.0
CACHE_KEYS_MAX = 1000
KEY_CHARS_MAX = 200
KEYS_MAX = 1000
LABEL_CHARS_MAX = 100
DEFAULT_SCOPES = frozenset({STREAM, READ})

_KEY = re.compile(r"sk_([0-9a-z]{8})_[0-9A-Za-z_-]{43}")


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key. Times are in s since 1970."""

    tenant: str
    id: str
    scopes: frozenset[str] = DEFAULT_SCOPES
    user: str | None = None
    label: str = ""
    created_at: int = 0
    valid_until: int | None = None
    revoked_at: int | None = None

    @property
    def credential(self) -> str:
        """How the key is named in records."""
        return f"key:{self.id}"

    def identity(self) -> Identity:
        return Identity(
            tenant=self.tenant,
            user=self.user,
            scopes=self.scopes,
            credential=self.credential,
            expires_at=self.valid_until,
        )

    def to_item(self) -> Item:
        item: Item = {
            "tenant": self.tenant,
            "id": self.id,
            "scopes": " ".join(sorted(self.scopes)),
            "label": self.label,
            "created_at": self.created_at,
        }
        for name in ("user", "valid_until", "revoked_at"):
            if (value := getattr(self, name)) is not None:
                item[name] = value
        return item

    @classmethod
    def from_item(cls, item: Item) -> Self:
        def number(name: str) -> int | None:
            return int(item[name]) if name in item else None

        return cls(
            tenant=str(item["tenant"]),
            id=str(item["id"]),
            scopes=frozenset(str(item["scopes"]).split()),
            user=str(item["user"]) if "user" in item else None,
            label=str(item["label"]),
            created_at=int(item["created_at"]),
            valid_until=number("valid_until"),
            revoked_at=number("revoked_at"),
        )


def new_key() -> tuple[str, str]:
    """A key that nobody has, and its id."""
    key_id = secrets.token_hex(4)
    return f"sk_{key_id}_{secrets.token_urlsafe(32)}", key_id


def id_of(key: str) -> str:
    """The id that a key shows; of a key that shows none, one that tells nothing of it."""
    shown = _KEY.fullmatch(key)
    return shown[1] if shown else _hash(key)[:8]


def adding(key: str, about: Key) -> list[Write]:
    """The writes that give a tenant a key: refused where somebody has it."""
    digest = _hash(key)
    item = about.to_item()
    return [
        Put(TENANTS, {"pk": _partition(digest), "what": "key", **item}),
        Put(TENANTS, {**_listed(about.tenant, about.id), **item, "hash": digest}),
    ]


class Keys:
    """Looks keys up. `clock` tells how much time has passed, in s.

    Every method raises `Unavailable` where the store does not answer.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = elapsed) -> None:
        self._store = store
        self._clock = clock
        self._cache: dict[str, tuple[float, Key | None]] = {}

    async def find(self, key: str) -> Key | None:
        """The key, as it was at most 20 s ago; None for one that nobody has."""
        if not 0 < len(key) <= KEY_CHARS_MAX:
            return None
        return await self._cached({"pk": _partition(_hash(key)), "what": "key"})

    async def look_again(self, tenant: str, key_id: str) -> Key | None:
        """A tenant's key by its id, as it was at most 20 s ago."""
        return await self._cached(_listed(tenant, key_id))

    async def of(self, tenant: str) -> list[Key]:
        """A tenant's keys, the revoked ones too; the oldest 1,000."""
        found = await self._store.query(Query(TENANTS, tenant, KEYS_MAX, prefix="key#"))
        keys = [Key.from_item(item) for item in found.items]
        return sorted(keys, key=lambda key: (key.created_at, key.id))

    async def revoking(self, tenant: str, key_id: str, at: int) -> list[Write]:
        """The writes that end a key at the moment `at`; none where the tenant has no such key."""
        listed = await self._store.get(TENANTS, _listed(tenant, key_id))
        if listed is None:
            return []
        own: Item = {"pk": _partition(str(listed["hash"])), "what": "key"}
        change: Item = {"revoked_at": at}
        places = (own, _listed(tenant, key_id))
        return [Update(TENANTS, place, change) for place in places]

    async def removing(self, tenant: str, key_id: str) -> list[Write]:
        """The writes that leave nothing of a key; the one it is listed by goes last."""
        listed = await self._store.get(TENANTS, _listed(tenant, key_id))
        if listed is None:
            return []
        own: Item = {"pk": _partition(str(listed["hash"])), "what": "key"}
        return [Delete(TENANTS, own), Delete(TENANTS, _listed(tenant, key_id))]

    async def _cached(self, place: Item) -> Key | None:
        name = f"{place['pk']} {place['what']}"
        expires, key = self._cache.get(name, (0.0, None))
        if self._clock() < expires:
            return key
        item = await self._store.get(TENANTS, place)
        key = Key.from_item(item) if item else None
        if len(self._cache) >= CACHE_KEYS_MAX:
            self._cache.pop(next(iter(self._cache)))
        self._cache[name] = (self._clock() + (CACHE_S if key else CACHE_MISS_S), key)
        return key


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _partition(digest: str) -> str:
    return f"key#{digest}"


def _listed(tenant: str, key_id: str) -> Item:
    return {"pk": tenant, "what": f"key#{key_id}"}
