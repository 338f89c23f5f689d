"""Streams that start and end on a model of the store, and a ledger of all that happened.

The ledger is kept where the store takes effect, so it knows in which order that was, whatever the
replies told. `complaints` holds it against the promises of docs/decisions/quotas.md.
"""

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from shared.errors import Unavailable
from shared.limits import Counted
from shared.quotas import Admission, Quotas, Wanted, counters
from shared.records import Item
from shared.schema import STREAMS, TENANTS, Table
from shared.table import Conflict, Put, Write
from shared.tenants import Policy, Tenant
from tests.model_store import ModelStore

#: 2026-11-29 23:50 UTC: ten minutes before a day ends, a day and ten minutes before a month does.
EVE = 1_795_996_200_000
TRIES_MAX = 200


def tenant(**policy: Any) -> Tenant:
    return Tenant("acme", Policy(**policy), False, b"s" * 32, 0, 0)


@dataclass(slots=True)
class Stream:
    """A stream that was asked for. What it takes is known once it is open, in `admission`."""

    name: str
    admission: Admission | None = None
    tokens: int | None = None

    @property
    def excess(self) -> int:
        """By how much its estimate was exceeded; below zero where it was not used up."""
        assert self.admission
        return (self.tokens or 0) - int(self.admission.held["tokens"])


@dataclass(frozen=True, slots=True)
class Entry:
    """A stream that has started, or (`ends`) ended; the how manieth entry it is."""

    number: int
    stream: Stream
    ends: bool = False


class Ledger(ModelStore):
    """A store that notes what takes effect, loses requests and replies, and takes its time."""

    def __init__(self, chance: random.Random | None = None, faults: float = 0.0) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.offered: dict[str, tuple[Stream, Admission]] = {}
        self._chance = chance
        self._faults = faults

    async def _arrive(self) -> None:
        for _ in range(self._chance.randrange(5) if self._chance else 1):
            await asyncio.sleep(0)

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        await self._arrive()
        fault = self._chance.random() if self._chance else 1.0
        if fault < self._faults:
            raise Unavailable
        known = token in self._done
        conflict = self.transact_now(writes, token)
        if conflict is None and not known:
            self._note(writes[0], token)
        if fault < 2 * self._faults:
            raise Unavailable
        return conflict

    def get_now(self, table: Table, key: Item) -> Item | None:
        return self._dated(super().get_now(table, key))

    def _holder(self, write: Write) -> Item | None:
        return self._dated(super()._holder(write))

    def _dated(self, item: Item | None) -> Item | None:
        """With how many entries there were when it was read."""
        return item and item | {"read_at": len(self.entries)}

    def _note(self, first: Write, token: str) -> None:
        assert isinstance(first, Put)
        stream, admission = self.offered[token]
        if first.item["seq"] == 0:
            stream.admission = admission
        else:
            stream.tokens = int(first.item["tokens"])
        self.entries.append(Entry(len(self.entries), stream, ends=first.item["seq"] == 1))


@dataclass(slots=True)
class World:
    """One tenant. `ms` is the true time; what clocks tell may be off by `skew_ms`."""

    store: Ledger
    tenant: Tenant
    ms: int = EVE
    skew_ms: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    _names: Any = field(default_factory=itertools.count)

    def quotas(self) -> Quotas:
        skew_ms = self.skew_ms
        return Quotas(self.store, now=lambda: (self.ms + skew_ms) / 1000, dice=self.dice)

    async def start(
        self, wanted: Wanted, user: str | None = None, address: str | None = None
    ) -> Stream:
        """As a start does it: decide, write, and on a conflict decide again."""
        stream, quotas = Stream(f"stream-{next(self._names)}"), self.quotas()
        opened: Item = {"pk": stream.name, "seq": 0, "by": stream.name}
        admission = await quotas.admit(self.tenant, user, address, wanted)
        for attempt in range(TRIES_MAX):
            token = f"{stream.name}-{attempt}"
            self.store.offered[token] = (stream, admission)
            conflict = await self._sure([Put(STREAMS, opened), *admission.writes], token)
            if conflict is None or (conflict.holders[0] or {}).get("by") == stream.name:
                return stream
            admission = await quotas.again(admission, conflict.holders[1:], wanted)
        raise AssertionError("a start never came through")

    async def end(self, stream: Stream, tokens: int) -> None:
        """Whoever closes a stream, and however often: it is settled once."""
        assert stream.admission
        closed: Item = {"pk": stream.name, "seq": 1, "tokens": tokens}
        settled = counters.settlement([stream.admission.held], tokens)
        token = f"{stream.name}-end-{next(self._names)}"
        self.store.offered[token] = (stream, stream.admission)
        await self._sure([Put(STREAMS, closed), *settled], token)

    async def _sure(self, writes: Sequence[Write], token: str) -> Conflict | None:
        while True:
            try:
                return await self.store.transact(writes, token)
            except Unavailable:
                await asyncio.sleep(0)

    async def end_all(self) -> None:
        """What sweeps up after crashes: every stream that is still open ends."""
        for stream in self.open():
            await self.end(stream, 0)

    def open(self) -> list[Stream]:
        streams = [entry.stream for entry in self.store.entries if not entry.ends]
        return [stream for stream in streams if stream.tokens is None]

    def counters(self) -> dict[str, Item]:
        return {str(k[1]): item for k, item in self.store.items.items() if k[0] == TENANTS.name}


def complaints(world: World) -> list[str]:
    """What the ledger shows that must not be. It may end with streams that are still open."""
    wrong: list[str] = []
    accounts: dict[str, list[Entry]] = defaultdict(list)
    for entry in world.store.entries:
        assert entry.stream.admission
        for account in entry.stream.admission.accounts:
            accounts[account.pk].append(entry)
    for pk, entries in accounts.items():
        for promise in (_permits, _starts, _tokens, _budgets):
            wrong += [f"{promise.__name__[1:]}: {pk}: {what}" for what in promise(pk, entries)]
        wrong += [f"true: {pk}: {what}" for what in _untrue(world.counters()[pk], entries)]
    return wrong


def _limits(entry: Entry, pk: str) -> Counted:
    """The limits on these counters when a stream started."""
    assert entry.stream.admission
    return next(a.limits for a in entry.stream.admission.accounts if a.pk == pk)


def _held(entry: Entry) -> Mapping[str, Any]:
    assert entry.stream.admission
    return entry.stream.admission.held


def _permits(pk: str, entries: Sequence[Entry]) -> list[str]:
    """No start makes more streams than may be at once."""
    active, wrong = 0, []
    for entry in entries:
        active += -1 if entry.ends else 1
        most = _limits(entry, pk).streams_at_once
        if not entry.ends and most is not None and active > most:
            wrong.append(f"{active} streams at once, of {most}")
    return wrong


def _starts(pk: str, entries: Sequence[Entry]) -> list[str]:
    starts = [entry for entry in entries if not entry.ends]
    return _bucket(pk, starts, lambda limits: (limits.starts_per_minute, None), lambda _: 1)


def _tokens(pk: str, entries: Sequence[Entry]) -> list[str]:
    def taken(entry: Entry) -> int:
        """What a start takes, and what an end takes beyond that."""
        return entry.stream.excess if entry.ends else int(_held(entry)["tokens"])

    # Whose stream began before there was a bucket takes nothing of it.
    entries = [e for e in entries if not e.ends or _held(e)["subjects"][pk]["bucket"]]
    return _bucket(
        pk, _as_read(pk, entries), lambda x: (x.tokens_per_minute, x.tokens_burst), taken
    )


def _bucket(
    pk: str,
    entries: Sequence[Entry],
    about: Callable[[Counted], tuple[int | None, int | None]],
    taken: Callable[[Entry], int],
) -> list[str]:
    """From any start to any later one no more is taken than a burst and what refilled between."""
    wrong = []
    for i, first in enumerate(entries):
        rate, burst = about(_limits(first, pk))
        if first.ends or rate is None:
            continue
        room = (rate if burst is None or rate == 0 else burst) * 60_000
        at = max(int(_held(e)["at"]) for e in entries[: i + 1] if not e.ends)
        for entry in entries[i:]:
            if not entry.ends:
                rate, _ = about(_limits(entry, pk))
                if rate is None:
                    break  # what follows has a bucket of its own
                room += rate * max(int(_held(entry)["at"]) - at, 0)
                at = max(int(_held(entry)["at"]), at)
            room -= taken(entry) * 60_000
            if room < 0 and not entry.ends:
                wrong.append(f"{-room / 60_000} too many since {first.stream.name}")
    return wrong


def _as_read(pk: str, entries: Sequence[Entry]) -> list[Entry]:
    """Each start where it read these counters: what ends come between, it cannot have seen.

    No other start does.
    """

    def place(entry: Entry) -> float:
        admission = entry.stream.admission
        if entry.ends or not admission:
            return entry.number
        known = dict(zip((a.pk for a in admission.accounts), admission.states, strict=True))
        return int(known[pk].get("read_at", 0)) - 0.5

    return sorted(entries, key=place)


def _budgets(pk: str, entries: Sequence[Entry]) -> list[str]:
    """What is used and reserved of a day or month is within it, but for estimates exceeded."""
    wrong = []
    for kind, form in (("day", "%Y-%m-%d"), ("month", "%Y-%m")):
        used: dict[str, int] = defaultdict(int)
        beyond: dict[str, int] = defaultdict(int)
        for entry in entries:
            period = datetime.fromtimestamp(_held(entry)["at"] / 1000, UTC).strftime(form)
            if entry.ends:
                used[period] += entry.stream.excess
                beyond[period] += max(entry.stream.excess, 0)
                continue
            used[period] += int(_held(entry)["tokens"])
            most = getattr(_limits(entry, pk), f"tokens_per_{kind}")
            if most is not None and used[period] > most + beyond[period]:
                wrong.append(f"{used[period]} tokens in {period}, of {most}")
    return wrong


def _untrue(item: Item, entries: Sequence[Entry]) -> list[str]:
    """The counters tell what is open, and what was used and is reserved; and they stay small."""
    true: dict[str, int] = defaultdict(int)
    for entry in entries:
        moment = datetime.fromtimestamp(_held(entry)["at"] / 1000, UTC)
        true["active"] += -1 if entry.ends else 1
        taken = entry.stream.excess if entry.ends else int(_held(entry)["tokens"])
        for name in (f"day:{moment:%Y-%m-%d}", f"month:{moment:%Y-%m}"):
            true[name] += taken
    newest = max(int(_held(entry)["at"]) for entry in entries if not entry.ends)
    moment = datetime.fromtimestamp(newest / 1000, UTC)
    kept = {name: n for name, n in true.items() if not counters.outdated(name, moment)}
    wrong = [f"{n} is {item.get(n, 0)}, not {t}" for n, t in kept.items() if item.get(n, 0) != t]
    size = sum(len(name) + len(str(value)) for name, value in item.items())
    return [*wrong, f"it takes {size} bytes"] if size > 1024 else wrong
