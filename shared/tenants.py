"""Tenants: what each may do and wants done, kept as one document in the table.

A tenant that has set nothing has the defaults. What a document says is checked when it is set, so
that a request never meets a setting that cannot be.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network
from types import MappingProxyType
from typing import Any, Literal, Self

from shared import fields as check
from shared.elapsed import elapsed
from shared.errors import InvalidRequest, Unavailable
from shared.experiment import Experiment
from shared.identity.tokens import Issuer
from shared.limits import (
    DEFAULT_LIMITS,
    MODELS_MAX,
    NO_LIMITS,
    Bounds,
    Limits,
    Subject,
    model_names,
)
from shared.models import FALLBACKS_MAX
from shared.origins import parse_origin
from shared.records import DAY_S, OWNER_TAG_BYTES, Item, dump
from shared.redaction import Rules
from shared.schema import TENANTS
from shared.table import Delete, Put, Query, Store, Update, Write

#: For how long a tenant that was read is not read again.
CACHE_S = 20.0
CACHE_MAX = 1000
LIST_MAX = 1000
SHARDS_MAX = 64
ORIGINS_MAX = 20
ISSUERS_MAX = 5

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_EVERYBODY = "#tenants"


def is_tenant(name: str) -> bool:
    return _TENANT.fullmatch(name) is not None


#: The whole numbers of a document, and their bounds.
_NUMBERS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "shards": (1, SHARDS_MAX),
        "ticket_s": (10, 3600),
        "takeovers": (0, 10),
        "pause_s": (60, 7 * DAY_S),
        "retention_days": (1, 3650),
        "audit_retention_days": (1, 3650),
    }
)
_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "on_outage": ("refuse", "allow"),
        "on_quota": ("close", "pause"),
        "compression": ("gzip", "none"),
        "addresses": ("full", "truncated", "none"),
    }
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a tenant may do and wants done.

    `limits` are on the tenant as a whole, the others on each of its users, and on each address of
    its clients. `shards` spreads the tenant's counters, for many starts a second. `takeovers` is
    how often an answer may lose its producer, and `pause_s` how long it may be paused. `on_outage`
    says what becomes of starts while the counters cannot be written, and `on_quota` of an answer
    whose budget ends. `compression` is that of events, for clients that take it.
    """

    limits: Limits = DEFAULT_LIMITS
    user_limits: Limits = NO_LIMITS
    address_limits: Limits = NO_LIMITS
    shards: int = 1
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ticket_s: int = 600
    takeovers: int = 3
    pause_s: int = DAY_S
    on_outage: Literal["refuse", "allow"] = "refuse"
    on_quota: Literal["close", "pause"] = "close"
    compression: Literal["gzip", "none"] = "gzip"
    retention_days: int = 30
    audit_retention_days: int = 400
    addresses: Literal["full", "truncated", "none"] = "truncated"
    redaction: Rules = field(default_factory=Rules)
    origins: tuple[str, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    experiment: Experiment | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Check a document. Raises `InvalidRequest`, which names the field and its bounds."""
        names = tuple(f.name for f in fields(cls))
        check.known(document, names)
        return cls(**{n: _CHECKS.get(n, _plain)(n, document[n]) for n in names if n in document})

    def to_document(self) -> dict[str, Any]:
        return {
            "limits": self.limits.to_document(),
            "user_limits": self.user_limits.to_document(),
            "address_limits": self.address_limits.to_document(),
            **{name: getattr(self, name) for name in (*_NUMBERS, *_CHOICES)},
            "fallbacks": {model: list(others) for model, others in self.fallbacks.items()},
            "redaction": self.redaction.to_document(),
            "origins": list(self.origins),
            "issuers": [issuer.to_document() for issuer in self.issuers],
            "experiment": self.experiment.to_document() if self.experiment else None,
        }


def _plain(name: str, value: Any) -> Any:
    if name in _CHOICES:
        return check.one_of(value, name, _CHOICES[name])
    least, most = _NUMBERS[name]
    return check.whole(value, name, least=least, most=most)


def _fallbacks(name: str, value: Any) -> dict[str, tuple[str, ...]]:
    document = check.mapping(value, name)
    for model in check.items(list(document), name, least=0, most=MODELS_MAX):
        check.text(model, name, most=200)
    return {m: model_names(others, f"{name}.{m}", FALLBACKS_MAX) for m, others in document.items()}


def _origins(name: str, value: Any) -> tuple[str, ...]:
    listed = check.items(value, name, least=0, most=ORIGINS_MAX)
    return tuple(parse_origin(origin, f"{name}[{i}]") for i, origin in enumerate(listed))


def _issuers(name: str, value: Any) -> tuple[Issuer, ...]:
    listed = check.items(value, name, least=0, most=ISSUERS_MAX)
    found = tuple(Issuer.from_document(issuer, f"{name}[{i}]") for i, issuer in enumerate(listed))
    if len({issuer.issuer for issuer in found}) != len(found):
        raise InvalidRequest(f"`{name}` names an issuer twice.", field=name)
    return found


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = MappingProxyType(
    {
        "limits": lambda name, value: Limits.from_document(value, name, DEFAULT_LIMITS),
        "user_limits": lambda name, value: Limits.from_document(value, name, NO_LIMITS),
        "address_limits": lambda name, value: Limits.from_document(value, name, NO_LIMITS),
        "fallbacks": _fallbacks,
        "redaction": lambda name, value: Rules.from_document(check.mapping(value, name)),
        "origins": _origins,
        "issuers": _issuers,
        "experiment": lambda name, value: Experiment.from_document(value, name),
    }
)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as it stands in the table. `rev` grows with each change.

    `secret` signs tickets and keys what is hashed. It stays the same for as long as there is the
    tenant: with another one, its users would no longer find their streams.
    """

    name: str
    policy: Policy
    suspended: bool
    secret: bytes
    created_at: int
    rev: int

    @classmethod
    def from_item(cls, item: Item) -> Self:
        try:
            policy = Policy.from_document(check.stored_json(str(item["policy"])))
        except InvalidRequest as error:
            # It was good when it was set, so by a newer version: no client can put that right.
            raise Unavailable("This version cannot read the tenant's settings.") from error
        return cls(
            name=str(item["pk"]),
            policy=policy,
            suspended=bool(item["suspended"]),
            secret=bytes.fromhex(str(item["secret"])),
            created_at=int(item["created_at"]),
            rev=int(item["rev"]),
        )

    def subjects(self, user: str | None, address: str | None) -> tuple[Subject, ...]:
        """Whose limits hold for who asks: the tenant's, and those on its user and its address."""
        network = None if address is None else _network(address)
        named = (
            ("user", user, self.policy.user_limits),
            ("address", network, self.policy.address_limits),
        )
        return (
            Subject("tenant", "", self.policy.limits),
            *(
                Subject(kind, f"{kind}#{self._digest(name)}", limits)
                for kind, name, limits in named
                if name is not None and limits != NO_LIMITS
            ),
        )

    def bounds(self, user: str | None, address: str | None) -> Bounds:
        """What holds for each request of who asks."""
        return Bounds.of(self.subjects(user, address))

    def owner_tag(self, user: str | None) -> bytes:
        """What the ids of a user's streams carry, or of those that are no user's: 5 bytes.

        Ids stand in logs. Who has not the secret can neither check a name against a tag, nor look
        for another name that has the same one.
        """
        owner = b"" if user is None else b"#" + user.encode()
        tag = blake2b(owner, key=self.secret, digest_size=OWNER_TAG_BYTES, person=b"owner-tag")
        return tag.digest()

    def _digest(self, name: str) -> str:
        """Short, whatever the name, and telling nobody whose it is: the log keeps it, too."""
        return blake2b(name.encode(), key=self.secret, digest_size=16).hexdigest()


class Tenants:
    """Looks tenants up, as they were at most 20 s ago. `clock` tells what has passed, in s.

    Every method raises `Unavailable` where the store does not answer.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = elapsed) -> None:
        self._store = store
        self._clock = clock
        self._cache: dict[str, tuple[float, Any]] = {}
        # Of its own: anyone can ask for origins, issuers and tenants that are made up, and must not
        # push tenants out.
        self._asked: dict[str, tuple[float, Any]] = {}

    async def get(self, name: str) -> Tenant | None:
        async def read() -> Tenant | None:
            item = await self._store.get(TENANTS, _place(name))
            return Tenant.from_item(item) if item else None

        found: Tenant | None = await self._cached(self._cache, name, read)
        return found

    async def names(self) -> list[str]:
        """All tenants, by name."""
        names: list[str] = []
        while True:
            start = f"{names[-1]}\0" if names else None
            found = await self._store.query(Query(TENANTS, _EVERYBODY, LIST_MAX, start=start))
            names += [str(item["what"]) for item in found.items]
            if not found.more:
                return names

    async def trusting(self, issuer: str) -> dict[str, Issuer]:
        """Which tenants trust an issuer of tokens, each with how it does."""
        tenants = await self._indexed(_issuer_partition(issuer))
        found = [tenant for name in tenants if (tenant := await self.get(name))]
        return {t.name: i for t in found for i in t.policy.issuers if i.issuer == issuer}

    async def anywhere(self, origin: str) -> bool:
        """Whether any tenant lets pages of this origin call."""
        return bool(await self._indexed(_origin_partition(origin)))

    async def allowed(self, tenant: str, origin: str) -> bool:
        """Whether this tenant does."""
        found = await self.get(tenant)
        return found is not None and origin in found.policy.origins

    async def _indexed(self, partition: str) -> list[str]:
        async def read() -> list[str]:
            found = await self._store.query(Query(TENANTS, partition, LIST_MAX))
            return [str(item["what"]) for item in found.items]

        names: list[str] = await self._cached(self._asked, partition, read)
        return names

    async def _cached(
        self, cache: dict[str, tuple[float, Any]], name: str, read: Callable[[], Awaitable[Any]]
    ) -> Any:
        expires, found = cache.get(name) or self._asked.get(name) or (0.0, None)
        if self._clock() >= expires:
            found = await read()
            cache.pop(name, None)
            kept = self._asked if found is None else cache
            kept.pop(name, None)
            if len(kept) >= CACHE_MAX:
                kept.pop(next(iter(kept)))
            kept[name] = (self._clock() + CACHE_S, found)
        return found


def adding(name: str, policy: Policy, at_ms: int) -> list[Write]:
    """The writes that make a tenant: refused where there is one of that name."""
    item: Item = {
        **_place(name),
        "policy": dump(policy.to_document()),
        "suspended": 0,
        "secret": secrets.token_hex(32),
        "created_at": at_ms,
        "rev": 0,
    }
    return [
        Put(TENANTS, item),
        Put(TENANTS, {"pk": _EVERYBODY, "what": name, "created_at": at_ms}),
        *_indexing(name, Policy(), policy),
    ]


def changing(tenant: Tenant, policy: Policy, *, suspended: bool) -> list[Write]:
    """The writes that change a tenant: refused where somebody else has changed it meanwhile."""
    change: Item = {
        "policy": dump(policy.to_document()),
        "suspended": int(suspended),
        "rev": tenant.rev + 1,
    }
    update = Update(TENANTS, _place(tenant.name), change, where={"rev": tenant.rev})
    return [update, *_indexing(tenant.name, tenant.policy, policy)]


def removing(tenant: Tenant) -> list[Write]:
    """The writes that end a tenant, whose keys and streams are gone already."""
    return [
        Delete(TENANTS, _place(tenant.name)),
        Delete(TENANTS, {"pk": _EVERYBODY, "what": tenant.name}),
        *_indexing(tenant.name, tenant.policy, Policy()),
    ]


def _indexing(name: str, before: Policy, after: Policy) -> list[Write]:
    """What keeps the way from an origin or an issuer to its tenants true."""
    old, new = _partitions(before), _partitions(after)
    gone: list[Write] = [Delete(TENANTS, {"pk": pk, "what": name}) for pk in sorted(old - new)]
    come = [Update(TENANTS, {"pk": p, "what": name}, {"v": 1}, where=None) for p in sorted(new)]
    return [*gone, *come]


def _partitions(policy: Policy) -> set[str]:
    issuers = {_issuer_partition(issuer.issuer) for issuer in policy.issuers}
    return issuers | {_origin_partition(origin) for origin in policy.origins}


def _place(tenant: str) -> Item:
    return {"pk": tenant, "what": "settings"}


def _network(address: str) -> str:
    """What one client may be taken to have: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return str(ip_network((parsed, 32 if parsed.version == 4 else 64), strict=False))


def _issuer_partition(issuer: str) -> str:
    return f"issuer#{issuer}"


def _origin_partition(origin: str) -> str:
    return f"origin#{origin}"
