"""The counters of one account, as values. No I/O.

A bucket is a level and the moment it was true; it fills by the limit per minute, up to its burst.
Levels are in 1/60,000 of a token (or of a start), so that a millisecond's refill is a whole number.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.errors import LimitExceeded, TooLarge
from shared.limits import Counted
from shared.records import DAY_S, Item
from shared.schema import TENANTS
from shared.table import Put, Update, Write

#: When to ask again for a permit: nobody knows when a stream ends.
PERMIT_RETRY_S = 2
#: Of how many days and months the tokens are kept, beside those under way.
DAYS_KEPT = 3
MONTHS_KEPT = 13

UNIT = 60_000
#: Of each limit: the attribute that counts it, its name, its unit and its window in s.
_LIMITS: tuple[tuple[str, str, str, int], ...] = (
    ("active", "streams_at_once", "concurrent-requests", 0),
    ("starts", "starts_per_minute", "requests", 60),
    ("tokens", "tokens_per_minute", "tokens", 60),
    ("day", "tokens_per_day", "tokens", DAY_S),
    ("month", "tokens_per_month", "tokens", 30 * DAY_S),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a start asks for: the tokens of its prompt, and the most that its answer may have.

    `permits` is 0 for a stream that has one, and asks for more tokens.
    """

    input_tokens: int
    output_tokens: int
    permits: int = 1

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Account:
    """The counters of one subject: of a `tenant` one shard of them, of a `user`, of an `address`.

    `limits` are on these counters. Where they are one shard of several, `whole` are the tenant's.
    `kept_s` is for how long after the last start they are kept; None: for ever.
    """

    kind: str
    pk: str
    limits: Counted
    whole: Counted
    kept_s: int | None = None

    @property
    def key(self) -> Item:
        return {"pk": self.pk, "what": "counters"}

    @property
    def limits_starts(self) -> bool:
        return any(getattr(self.limits, limit) is not None for _, limit, *_ in _LIMITS)

    def expiry(self, now_ms: int) -> Item:
        return {} if self.kept_s is None else {"expires_at": now_ms // 1000 + self.kept_s}


@dataclass(frozen=True, slots=True)
class Left:
    """How much of one limit is left. `window_s` is 0 for a number at once, which has no window.

    `unit` is one of `requests`, `concurrent-requests` and `tokens`. `reset_s` is when all of it is
    there again if nothing else is taken; 0 where it is, and where nobody can know.
    """

    policy: str
    unit: str
    limit: int
    window_s: int
    left: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class Meter:
    """One limit on one account at one moment; `counts` is the attribute that counts it.

    `limit` is what is told of it, `full` the most that these counters ever have of it. `level`,
    what there is of it now, and `gain`, what it gets each millisecond, are in 1/60,000. It gains
    nothing for the next `wait_ms`, and all of it then where there is no gain.
    """

    counts: str
    policy: str
    unit: str
    limit: int
    window_s: int
    full: int
    level: int
    gain: int
    wait_ms: int

    @property
    def left(self) -> int:
        return self.level // UNIT

    def refusal(self, amount: int) -> LimitExceeded | TooLarge | None:
        """Why nobody may take so much of it."""
        if not amount or self.level >= amount * UNIT:
            return None
        if 0 < self.full < amount:
            return TooLarge(
                f"The request has about {amount - 1} tokens. The limit {self.policy} never lets "
                f"more than {self.full} pass at once, the answer included.",
                policy=self.policy,
                maximum=self.full,
            )
        return LimitExceeded(
            self.policy,
            limit=self.limit,
            window_s=self.window_s,
            unit=self.unit,
            retry_after_s=self._wait_s(amount),
        )

    def less(self, amount: int) -> Left:
        """What is left of it once so much is taken."""
        lacks = self.window_s and self.level < (self.full + amount) * UNIT
        reset_s = self._wait_s(self.full + amount) if lacks else 0
        left = max(self.left - amount, 0)
        return Left(self.policy, self.unit, self.limit, self.window_s, left, reset_s)

    def _wait_s(self, amount: int) -> int:
        """When there will be so much, where there is less; a day where there never is any."""
        if not self.full:
            return DAY_S
        fill_ms = -((self.level - amount * UNIT) // self.gain) if self.gain else 0
        return -(-(self.wait_ms + fill_ms) // 1000)


class Book:
    """One account at one moment: a meter for each limit on it.

    `state` is the item that holds them, an empty one where there is none yet.
    """

    def __init__(self, account: Account, state: Item, now_ms: int) -> None:
        self.account = account
        self._state = state
        self._now_ms = now_ms
        self._moment = datetime.fromtimestamp(now_ms / 1000, UTC)
        # Never back: of two clocks the one behind neither refills again nor undoes.
        self._at = max(now_ms, self._counted("at"))
        # Below zero only where the counters were lost while a stream ran.
        self._active = max(self._counted("active"), 0)
        self.meters = {
            counts: self._meter(counts, limit, unit, window_s)
            for counts, limit, unit, window_s in _LIMITS
            if getattr(account.limits, limit) is not None
        }

    def taking(self, tokens: int, permits: int = 1) -> Write:
        """The write that takes a permit, a start and so many tokens, if no other start is faster.

        What an end adds meanwhile adds up with it.
        """
        add = {"rev": 1, "active": self._active + permits - self._counted("active")}
        if tokens:
            add |= {_day(self._moment): tokens, _month(self._moment): tokens}
        for name, amount in (("starts", permits), ("tokens", tokens)):
            if name in self.meters:
                # Also where that is 0: a bucket without a level is full.
                add[name] = self.meters[name].level - amount * UNIT - self._counted(name)
        stamps = {"at": self._at, **self.account.expiry(self._now_ms)}
        if not self._state:
            return Put(TENANTS, {**self.account.key, **stamps, **add})
        unlimited = {"starts", "tokens"} - self.meters.keys()
        gone = tuple(n for n in self._state if n in unlimited or outdated(n, self._moment))
        where: Item = {"rev": self._counted("rev")}
        return Update(TENANTS, self.account.key, stamps, add=add, remove=gone, where=where)

    def left(self, *, tokens: int, starts: int) -> list[Left]:
        """What is left of each limit once so many tokens and starts are taken."""
        return [m.less(tokens if m.unit == "tokens" else starts) for m in self.meters.values()]

    def _meter(self, counts: str, limit: str, unit: str, window_s: int) -> Meter:
        most, burst = int(getattr(self.account.limits, limit)), self.account.limits.tokens_burst
        full, gain = most, 0
        match counts:
            case "active":
                level, wait_ms = (most - self._active) * UNIT, PERMIT_RETRY_S * 1000
            case "starts" | "tokens":
                # What never fills again is not full either: a limit of 0 lets nothing pass.
                if counts == "tokens" and burst is not None and most:
                    full = burst
                gain, wait_ms = most, self._at - self._now_ms
                past_ms = self._at - self._counted("at")
                level = filled(self._state.get(counts), full * UNIT, past_ms * gain)
            case _:
                used, end = _period(counts, self._moment)
                level = (most - self._counted(used)) * UNIT
                wait_ms = int(end.timestamp() * 1000) - self._now_ms
        policy = f"{self.account.kind}-{limit.replace('_', '-')}"
        told = int(getattr(self.account.whole, limit)) if full else 0
        return Meter(counts, policy, unit, told, window_s, full, level, gain, wait_ms)

    def _counted(self, name: str) -> int:
        return int(self._state.get(name, 0))


def filled(stored: Any, full: int, refill: int) -> int:
    """A bucket's level; one that was never taken from is full."""
    return full if stored is None else min(int(stored) + refill, full)


def grant(books: Sequence[Book], wanted: Wanted) -> int | None:
    """How many tokens a stream may have, prompt and answer; None where tokens are not limited.

    Raises `LimitExceeded`, by the limit that lasts longest; `TooLarge` where a prompt is larger
    than what a limit ever lets through.
    """
    meters = [meter for book in books for meter in book.meters.values()]
    least = wanted.input_tokens + 1  # without a token for the answer there is no use
    # Who wants more at once than a bucket can hold waits for a full one, and gets that.
    asked = min([wanted.tokens, *(meter.full for meter in meters if meter.counts == "tokens")])
    amounts = {"tokens": max(asked, least), "day": least, "month": least}
    refusals = [no for m in meters if (no := m.refusal(amounts.get(m.counts, wanted.permits)))]
    if refusals:
        raise max(refusals, key=lasts)
    if all(meter.unit != "tokens" for meter in meters):
        return None
    return min([asked, *(meter.left for meter in meters if meter.counts in ("day", "month"))])


def lasts(refusal: LimitExceeded | TooLarge) -> tuple[int, int]:
    """For how long it stands, to be compared: what is too large stays so, and more so a 0."""
    if isinstance(refusal, TooLarge):
        return 1, 0
    return (0, refusal.retry_after_s) if refusal.extensions["limit"] else (2, 0)


def holding(accounts: Sequence[Account], tokens: int, permits: int, now_ms: int) -> dict[str, Any]:
    """What a stream holds, and of whom; also who has a bucket, and when to forget whom."""
    whose: dict[str, Item] = {}
    for account in accounts:
        bucket: Item = {"bucket": int(account.limits.tokens_per_minute is not None)}
        whose[account.pk] = bucket | account.expiry(now_ms)
    return {"tokens": tokens, "permits": permits, "at": now_ms, "subjects": whose}


def settlement(holds: Sequence[Mapping[str, Any]], tokens: int) -> list[Write]:
    """The writes that give back what a stream holds, and count the tokens that it has used.

    They are additions: a stream must be settled once, in the transaction that closes it. What it
    has taken first it has used first.
    """
    changes: dict[str, Counter[str]] = {}
    expiries: dict[str, int] = {}
    for place, held in enumerate(holds, 1):
        used = tokens if place == len(holds) else min(tokens, held["tokens"])
        tokens -= used
        excess = used - held["tokens"]
        # A budget is that of the moment when it was taken.
        moment = datetime.fromtimestamp(held["at"] / 1000, UTC)
        change = {"active": -held["permits"], _day(moment): excess, _month(moment): excess}
        for pk, its in held["subjects"].items():
            bucket = {"tokens": -excess * UNIT if its["bucket"] else 0}
            changes.setdefault(pk, Counter()).update(change | bucket)
            if "expires_at" in its:
                expiries[pk] = max(its["expires_at"], expiries.get(pk, 0))
    return [
        Update(
            TENANTS,
            {"pk": pk, "what": "counters"},
            set={"expires_at": expiries[pk]} if pk in expiries else {},
            # Starts ask for their `rev`: it is left as it is, but must be there.
            add={name: number for name, number in change.items() if number} | {"rev": 0},
            where=None,
        )
        for pk, change in changes.items()
    ]


def outdated(name: str, moment: datetime) -> bool:
    """Whether an attribute counts the tokens of a day or month that is not kept any more."""
    first_day = moment - timedelta(days=DAYS_KEPT)
    first_month = moment - timedelta(days=31 * MONTHS_KEPT)
    return (name.startswith("day:") and name < _day(first_day)) or (
        name.startswith("month:") and name < _month(first_month)
    )


def _period(kind: str, moment: datetime) -> tuple[str, datetime]:
    """The attribute that counts the tokens of a day or month, and when that ends."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "day":
        return _day(moment), midnight + timedelta(days=1)
    return _month(moment), (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)


def _day(moment: datetime) -> str:
    return f"day:{moment:%Y-%m-%d}"


def _month(moment: datetime) -> str:
    return f"month:{moment:%Y-%m}"
