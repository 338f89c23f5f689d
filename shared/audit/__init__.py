"""The audit: who did what, when and with which outcome; never what was said.

    here       entries, chains and their heads: values
    canonical  JSON as it is hashed
    linking    how an entry comes to stand in its chain, with whatever happens together with it
    trail      appends entries, and reads them
    refusals   gathers refusals, which may come by the thousand
    verify     finds what was done to a chain
    addresses  how much of a client's address is kept

A chain is a log in small. Entry *n* is written once, into slot *n* of its chain, and holds the hash
of entry *n* − 1. The chain's head, an item of the tenants' table, names the last entry, so that an
end that was cut off is missed. An entry and the move of the head are one transaction, in which
other writes may ride: what is audited and its entry happen together or not at all.

Entries expire. So that verification can tell what was removed from what has expired, an entry says
when its predecessor expires, and no entry expires before its predecessor.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from shared.audit.canonical import canonical
from shared.records import Item, StreamKey, dump

#: The chain of what belongs to no stream: keys, limits, the tenant itself, users.
TENANT_CHAIN = "tenant"

#: What is hashed is said to be an entry, and of which version: no other hash can be taken for one.
_TAG = b"sluice audit entry 1\n"


class Event(StrEnum):
    STARTED = "started"
    REFUSED = "refused"
    FOLLOWED = "followed"
    POLLED = "polled"
    INTERRUPTED = "interrupted"
    TAKEN_OVER = "taken-over"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    GRANTED = "granted"
    CLOSED = "closed"
    DELETED = "deleted"
    EXPORTED = "exported"
    KEY_MADE = "key-made"
    KEY_REVOKED = "key-revoked"
    TENANT_ADDED = "tenant-added"
    TENANT_CHANGED = "tenant-changed"
    TENANT_SUSPENDED = "tenant-suspended"
    TENANT_RESUMED = "tenant-resumed"
    TENANT_REMOVED = "tenant-removed"
    LIMITS_CHANGED = "limits-changed"


@dataclass(frozen=True, slots=True)
class Chain:
    """Names one chain of a tenant: a stream's id, `tenant`, or what a writer calls its own."""

    tenant: str
    name: str

    @classmethod
    def of(cls, key: StreamKey) -> Self:
        return cls(key.tenant, key.stream)

    @property
    def pk(self) -> str:
        return f"{self.tenant}#{self.name}"

    @property
    def head_key(self) -> Item:
        """All heads of a tenant share a partition, so that they can be listed."""
        return {"pk": heads_pk(self.tenant), "what": self.name}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it. `credential` is a name like `key:3f9a1c2e`; `address` is as it may be kept."""

    user: str | None = None
    credential: str = ""
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot of a chain.

    `at` is the writer's wall clock in ms since 1970, `expires_at` in s. `id` begins with `at` and
    is never given twice: it stays the same wherever in the chain the entry comes to stand.
    `outcome` is `ok`, a status, or the slug of a problem. `details` are numbers and short strings.
    """

    chain: Chain
    id: str
    at: int
    event: str
    outcome: str
    actor: Actor
    details: Mapping[str, Any]
    expires_at: int
    n: int = 0
    prev: str = ""
    prev_expires_at: int = 0
    hash: str = ""

    @property
    def fits(self) -> bool:
        """Whether the entry is what was hashed."""
        try:
            return self.hash == self.digest()
        except (ValueError, RecursionError):
            return False

    def digest(self) -> str:
        """What its `hash` should be. Raises `ValueError` for what has no canonical JSON."""
        document = self.to_document()
        del document["hash"]
        return hashlib.sha256(_TAG + canonical(document)).hexdigest()

    def to_document(self) -> dict[str, Any]:
        """What is shown and exported. All of it but `hash` is what `hash` is taken of."""
        return {
            "tenant": self.chain.tenant,
            "chain": self.chain.name,
            **{name: getattr(self, name) for name in _PLAIN},
            "actor": asdict(self.actor),
            "details": dict(self.details),
        }

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The entry of a document. One that is no entry becomes one whose hash does not fit."""
        try:
            if {name: type(value) for name, value in document.items()} != _SHAPE:
                raise ValueError("not an entry")
            plain = {name: document[name] for name in (*_PLAIN, "details")}
            chain = Chain(document["tenant"], document["chain"])
            entry = cls(chain=chain, actor=Actor(**document["actor"]), **plain)
            if entry.to_document() == document:
                return entry
        except (AttributeError, TypeError, ValueError):
            pass
        return cls._unreadable(document)

    def to_item(self) -> Item:
        return {
            "pk": self.chain.pk,
            "day": day_pk(self.chain.tenant, self.at),
            **{name: getattr(self, name) for name in _PLAIN},
            "actor": dump(asdict(self.actor)),
            "details": dump(dict(self.details)),
        }

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """The entry of an item; one that no entry would make is treated as `from_document` does."""
        tenant, _, name = str(item["pk"]).partition("#")
        document: dict[str, Any] = {"tenant": tenant, "chain": name, "n": item["n"]}
        try:
            document |= {name: item[name] for name in _PLAIN}
            document |= {name: json.loads(str(item[name])) for name in ("actor", "details")}
            entry = cls.from_document(document)
            if entry.to_item() == item:
                return entry
        except (KeyError, ValueError, OverflowError, OSError, RecursionError):
            pass
        return cls._unreadable(document)

    @classmethod
    def _unreadable(cls, document: Any) -> Self:
        def found(name: str, otherwise: Any) -> Any:
            value = document.get(name) if isinstance(document, Mapping) else None
            return value if type(value) is type(otherwise) else otherwise

        chain = Chain(found("tenant", ""), found("chain", ""))
        return cls(chain, found("id", ""), 0, "unreadable", "", Actor(), {}, 0, n=found("n", -1))


_PLAIN = (
    *("id", "at", "event", "outcome", "expires_at"),
    *("n", "prev", "prev_expires_at", "hash"),
)
_WHOLE = frozenset({"at", "expires_at", "n", "prev_expires_at"})
#: Exactly these members, of exactly these types.
_SHAPE: Mapping[str, type] = {
    **{name: int if name in _WHOLE else str for name in _PLAIN},
    "tenant": str,
    "chain": str,
    "actor": dict,
    "details": dict,
}


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: its last entry's number, hash, time (ms) and end of retention (s)."""

    n: int
    hash: str
    at: int
    expires_at: int

    @classmethod
    def of(cls, entry: Entry) -> Self:
        return cls(entry.n, entry.hash, entry.at, entry.expires_at)


def heads_pk(tenant: str) -> str:
    return f"chain#{tenant}"


def head_of(item: Item | None) -> Head | None:
    """The head in an item, as read or as a conflict tells it; none where there is none."""
    if not item:
        return None
    return Head(int(item["n"]), str(item["hash"]), int(item["at"]), int(item["entry_expires_at"]))


def day_pk(tenant: str, at_ms: int) -> str:
    """The partition of a tenant's day, in UTC."""
    return f"{tenant}#{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d}"


def position(at_ms: int) -> str:
    """Where the ids of entries of this moment begin, in the order of time."""
    return f"{at_ms:015d}"
