"""Quotas: what a tenant, a user of it and a client's address have used, and whether there is more.

Each subject has one small item of counters (a tenant as many as it has shards, each with its share
of every limit). A start reads them, takes a permit and an estimate of its tokens, and adds these in
the transaction that opens the stream, on condition that no other start has come between. The end
of the stream gives the permit back and corrects the estimate, in the transaction that closes it: an
addition, which nothing can refuse and which stands in no start's way. What a stream holds is in its
`opened` record, so whoever closes it can settle it.

    read counters → decide → open + take        close + settle
                      └─ refuse: nothing is written

The bounds that this keeps, and what it costs, are in docs/decisions/quotas.md.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from shared.errors import LimitExceeded, TooLarge, rate_limit_policy
from shared.limits import Counted
from shared.quotas.counters import (
    Account,
    Book,
    Left,
    Wanted,
    grant,
    holding,
    lasts,
    outdated,
    settlement,
)
from shared.quotas.rate import Rate
from shared.records import DAY_S, Item
from shared.schema import TENANTS
from shared.table import Delete, Store, Write
from shared.tenants import SHARDS_MAX, Tenant

__all__ = [
    "OUTPUT_TOKENS_DEFAULT",
    "Account",
    "Admission",
    "Left",
    "Quotas",
    "Wanted",
    "rate_limit_headers",
    "settlement",
]

#: What an answer may say where tokens are limited, and neither it nor any limit has `max_tokens`.
OUTPUT_TOKENS_DEFAULT = 4096
#: Counters of users and addresses that are not seen for so long are forgotten.
IDLE_RETENTION_DAYS = 62


@dataclass(frozen=True, slots=True)
class Admission:
    """A start that may go ahead, once `writes` are written with it.

    `held` goes into the `opened` record. `allowance` is how many tokens the answer may have by the
    accounts' budgets; None where none limits tokens. `accounts` are in the order of the writes, and
    `states` what was read of them; `elsewhere` are the tenant's other shards.
    """

    writes: tuple[Write, ...]
    held: Mapping[str, Any]
    allowance: int | None
    left: tuple[Left, ...] = ()
    accounts: tuple[Account, ...] = ()
    states: tuple[Item, ...] = ()
    elsewhere: tuple[Account, ...] = ()


class Quotas:
    """Decides over starts. `now` is the wall clock, in s."""

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], float] = time.time,
        dice: random.Random | None = None,
    ) -> None:
        self._store = store
        self._now = now
        # Without a state of its own: copies of one snapshot would all choose the same shards.
        self._dice = dice or random.SystemRandom()
        self._rate = Rate(store, now=now)

    async def admit(
        self, tenant: Tenant, user: str | None, address: str | None, wanted: Wanted
    ) -> Admission:
        """Whether a stream may start now. Raises as `decide`, and `Unavailable`."""
        shards = _shards(tenant)
        self._dice.shuffle(shards)
        accounts = (shards[0], *_starters(tenant, user, address))
        states = await self._read(accounts)
        return await self._somewhere(accounts, states, tuple(shards[1:]), wanted)

    async def ask(self, tenant: Tenant, user: str | None, address: str | None) -> None:
        """Count a request that is not a start. Raises `LimitExceeded`."""
        shards = _shards(tenant)
        self._dice.shuffle(shards)
        await self._rate.take(_personal(tenant, user, address), shards)

    async def again(
        self, admission: Admission, holders: Sequence[Item | None], wanted: Wanted
    ) -> Admission:
        """As `admit`, after `admission.writes` were refused with these holders, in their order.

        Counters that stood in no way are not read again: had they changed, the next try would tell.
        """
        states = tuple(
            known if holder is None else holder
            for known, holder in zip(admission.states, holders, strict=True)
        )
        return await self._somewhere(admission.accounts, states, admission.elsewhere, wanted)

    async def _somewhere(
        self,
        accounts: tuple[Account, ...],
        states: tuple[Item, ...],
        elsewhere: tuple[Account, ...],
        wanted: Wanted,
    ) -> Admission:
        """A limit is used up in one shard only when it is in all of them."""
        try:
            return replace(self.decide(accounts, states, wanted), elsewhere=elsewhere)
        except (LimitExceeded, TooLarge) as error:
            # What refuses a user does so in every shard.
            if not elsewhere or not error.extensions["policy"].startswith("tenant-"):
                raise
            refusals = [error]
        mine, *others = accounts
        for shard, state in zip(elsewhere, await self._read(elsewhere), strict=True):
            try:
                admission = self.decide((shard, *others), (state, *states[1:]), wanted)
            except (LimitExceeded, TooLarge) as error:
                refusals.append(error)
            else:
                rest = tuple(s for s in (mine, *elsewhere) if s is not shard)
                return replace(admission, elsewhere=rest)
        raise min(refusals, key=lasts)

    def decide(
        self, accounts: Sequence[Account], states: Sequence[Item], wanted: Wanted
    ) -> Admission:
        """As `admit`, on counters that were read already; an empty item where there are none.

        Raises `LimitExceeded`, by the limit that lasts longest; `TooLarge` where a prompt is larger
        than what a limit ever lets through.
        """
        now_ms = int(self._now() * 1000)
        books = [Book(s, state, now_ms) for s, state in zip(accounts, states, strict=True)]
        granted = grant(books, wanted)
        tokens = granted or 0
        # One shard does not know what the others have left.
        telling = [book for book in books if book.account.limits == book.account.whole]
        return Admission(
            writes=tuple(book.taking(tokens, wanted.permits) for book in books),
            held=holding(accounts, tokens, wanted.permits, now_ms),
            allowance=None if granted is None else granted - wanted.input_tokens,
            left=tuple(
                left for book in telling for left in book.left(tokens=tokens, starts=wanted.permits)
            ),
            accounts=tuple(accounts),
            states=tuple(states),
        )

    def unmetered(self, tenant: Tenant, user: str | None, address: str | None) -> Admission:
        """A start that is let pass while the counters do not answer: its end charges all of it."""
        accounts = (self._dice.choice(_shards(tenant)), *_starters(tenant, user, address))
        held = holding(accounts, 0, 0, int(self._now() * 1000))
        return Admission(writes=(), held=held, allowance=None)

    async def used(self, tenant: Tenant, user: str | None, address: str | None) -> list[Left]:
        """What is left of every limit on this user at this address, the tenant's shards summed."""
        accounts = [*_shards(tenant), *_personal(tenant, user, address)]
        states = await self._read(accounts)
        now_ms = int(self._now() * 1000)
        books = (Book(a, state, now_ms) for a, state in zip(accounts, states, strict=True))
        of_starts = [left for book in books for left in book.left(tokens=0, starts=0)]
        summed: dict[str, Left] = {}
        for left in (*of_starts, *await self._rate.left(accounts)):
            so_far = summed.get(left.policy)
            summed[left.policy] = _sum(so_far, left) if so_far else left
        return list(summed.values())

    async def history(self, tenant: Tenant) -> dict[str, int]:
        """A tenant's tokens by day (`2026-11-22`) and month (`2026-11`), as far as kept."""
        states = await self._read(_shards(tenant))
        moment = datetime.fromtimestamp(self._now(), UTC)
        found: dict[str, int] = {}
        for name, value in (pair for state in states for pair in state.items()):
            kind, _, period = name.partition(":")
            if kind in ("day", "month") and not outdated(name, moment):
                found[period] = found.get(period, 0) + int(value)
        return dict(sorted(found.items()))

    async def _read(self, accounts: Sequence[Account]) -> tuple[Item, ...]:
        gets = (self._store.get(TENANTS, account.key) for account in accounts)
        return tuple(item or {} for item in await asyncio.gather(*gets))


def rate_limit_headers(left: Sequence[Left]) -> dict[str, str]:
    """The fields `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11."""
    if not left:
        return {}
    policies = [rate_limit_policy(x.policy, x.limit, x.window_s, x.unit) for x in left]
    now = [f'"{x.policy}";r={x.left}' + (f";t={x.reset_s}" if x.reset_s else "") for x in left]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(now)}


def _shards(tenant: Tenant) -> list[Account]:
    limits = tenant.policy.limits.counted
    # None without a part of each limit.
    count = min([tenant.policy.shards, *filter(None, asdict(limits).values())])
    return [
        Account("tenant", f"quota#{tenant.name}##{n}", _share(limits, n, count), limits)
        for n in range(count)
    ]


def removing(tenant: str) -> list[Write]:
    """The writes that forget a tenant's own counters; those of users and addresses expire."""
    places = (f"quota#{tenant}##{shard}" for shard in range(SHARDS_MAX))
    return [
        Delete(TENANTS, {"pk": pk, "what": what}) for pk in places for what in ("counters", "polls")
    ]


def _share(limits: Counted, shard: int, shards: int) -> Counted:
    """One shard's part of each limit; the parts of all sum up to the whole."""

    def part(limit: int | None) -> int | None:
        return None if limit is None else limit // shards + (shard < limit % shards)

    return Counted(**{name: part(limit) for name, limit in asdict(limits).items()})


def _personal(tenant: Tenant, user: str | None, address: str | None) -> list[Account]:
    """Those of the user and the address, where there are limits on them to count by."""
    # While a stream runs its permit must not be forgotten, nor by the end of an older stream.
    kept = tenant.policy.retention_days
    kept_s = (kept + max(kept, IDLE_RETENTION_DAYS)) * DAY_S
    _, *personal = tenant.subjects(user, address)
    return [
        Account(s.kind, f"quota#{tenant.name}#{s.name}", counted, counted, kept_s)
        for s in personal
        if (counted := s.limits.counted).any
    ]


def _starters(tenant: Tenant, user: str | None, address: str | None) -> list[Account]:
    """Those of them whose starts are limited, and not only how often they ask."""
    return [account for account in _personal(tenant, user, address) if account.limits_starts]


def _sum(a: Left, b: Left) -> Left:
    """What two shards have left of one limit of their tenant."""
    return replace(a, left=a.left + b.left, reset_s=max(a.reset_s, b.reset_s))
