"""The model of the store, with the faults of a real one between it and each of its clients."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, TypeVar

from shared.errors import Unavailable
from shared.records import Item, Value
from shared.schema import STREAMS, Table
from shared.table import Conflict, Delete, Found, Put, Query, Write
from tests.model_store import Key, ModelStore
from tests.simulation.history import History

T = TypeVar("T")

#: How old a stale read may be, in writes.
STALE_WRITES_MAX = 12
#: When a client gives up on a call that gets no reply.
CALL_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely a call of one client meets each fault, until `until_s`.

    `outages` are times when no call of this client succeeds.
    """

    before: float = 0.0
    after: float = 0.0
    late: float = 0.0
    slow: float = 0.0
    stale: float = 0.0
    short: float = 0.0
    outages: tuple[tuple[float, float], ...] = ()
    until_s: float = 0.0


class Database(ModelStore):
    """What is durable, with all its past."""

    def __init__(self, history: History, *, remembers_tokens: bool) -> None:
        super().__init__()
        self._history = history
        self._remembers_tokens = remembers_tokens
        #: What was written to each partition, in order.
        self._writes_to: dict[Value, list[tuple[Key, Item | None]]] = {}

    def transact_now(self, writes: Sequence[Write], token: str) -> Conflict | None:
        conflict = super().transact_now(writes, token)
        if not self._remembers_tokens:
            self._done.clear()
        return conflict

    def past(self, partition: str, writes_ago: int, hidden: Key | None) -> Mapping[Key, Item]:
        """How a partition looked so many writes ago, and one item of it from before even that.

        The writes of one transaction may be seen apart, as an eventually consistent query may.
        """
        writes = self._writes_to.get(partition, [])
        view: dict[Key, Item | None] = {}
        before: Item | None = None
        for key, item in writes[: max(len(writes) - writes_ago, 0)]:
            if key == hidden:
                before = view.get(key)
            view[key] = item
        if hidden in view:
            view[hidden] = before
        return {key: item for key, item in view.items() if item}

    def _set(self, key: Key, item: Item | None) -> None:
        super()._set(key, item)
        self._writes_to.setdefault(key[1], []).append((key, dict(item) if item else None))
        if item:
            self._history.wrote(key, item)


class _Fate(Enum):
    """What becomes of one call."""

    DONE = auto()
    #: It never arrived.
    FAILED = auto()
    #: It was done, and its reply was lost.
    LOST = auto()
    #: It is done long after its client has given up on it.
    LATE = auto()


class FaultyStore:
    """One process's way to the database: a `Store`.

    A call that was sent goes its way, whatever becomes of the task that sent it. With `dead` set no
    more calls are sent; until `frozen_until` the process neither sends nor hears anything.
    """

    def __init__(
        self, who: str, database: Database, history: History, rng: random.Random, faults: Faults
    ) -> None:
        self.dead = False
        self.frozen_until = 0.0
        self._who = who
        self._database = database
        self._history = history
        self._rng = rng
        self._faults = faults

    async def write(self, write: Write) -> Item | None:
        held = await self._call(_shown(write), lambda: self._database.write_now(write), writes=True)
        if held is None:
            self._acknowledged(write)
        return held

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        conflict = await self._call(
            f"transact {', '.join(_shown(w) for w in writes)} token {token}",
            lambda: self._database.transact_now(writes, token),
            writes=True,
        )
        if conflict is None:
            for write in writes:
                self._acknowledged(write)
        return conflict

    async def overwrite(self, table: Table, items: Sequence[Item]) -> None:
        await self._call(
            f"overwrite {len(items)} of {table.name}",
            lambda: self._database.overwrite_now(table, items),
            writes=True,
        )

    async def get(self, table: Table, key: Item) -> Item | None:
        return await self._call(f"get {table.name}", lambda: self._database.get_now(table, key))

    async def query(self, query: Query) -> Found:
        def read() -> Found:
            view: Mapping[Key, Item] = self._database.items
            if not query.consistent and self._happens(self._faults.stale):
                view = self._past(query.partition)
            limit = query.limit
            if self._happens(self._faults.short):
                limit = min(limit, self._rng.randint(2, 5))  # a page of 1 MB was full
            return self._database.query_now(view, replace(query, limit=limit))

        what = f"query {query.table.name} from {query.start} consistent {query.consistent}"
        return await self._call(what, read)

    def _past(self, partition: str) -> Mapping[Key, Item]:
        hidden = None
        if self._rng.random() < 0.3:
            recent = [key for key in self._database.items if key[1] == partition]
            hidden = self._rng.choice(recent[-STALE_WRITES_MAX:]) if recent else None
        return self._database.past(partition, self._rng.randint(0, STALE_WRITES_MAX), hidden)

    async def _call(self, what: str, effect: Callable[[], T], *, writes: bool = False) -> T:
        """Do `effect` once, at some moment, and hear of it later, or not."""
        loop = asyncio.get_running_loop()
        if self.dead:
            await asyncio.sleep(0.1)
            raise Unavailable("This process is dead.")
        reply: asyncio.Future[T] = loop.create_future()
        fate, there_s, back_s = self._fate(writes=writes)
        wait_s = max(self.frozen_until - loop.time(), 0.0)
        self._history.add(self._who, what, fate.name.lower())

        def arrive() -> None:
            try:
                result, error = effect(), None
            except ValueError as refused:
                result, error = None, refused
            if fate is _Fate.DONE:
                loop.call_later(back_s, self._answer, reply, result, error)

        if fate is not _Fate.FAILED:
            loop.call_later(wait_s + there_s, arrive)
        if fate is not _Fate.DONE:
            lost = Unavailable("The model of the store does not answer.")
            failed_s = CALL_TIMEOUT_S if fate is _Fate.LATE else there_s + back_s
            loop.call_later(wait_s + failed_s, self._answer, reply, None, lost)
        return await reply

    def _answer(
        self, reply: "asyncio.Future[Any]", result: object, error: Exception | None
    ) -> None:
        """Let the task that asked hear of it, if it still listens and its process is awake."""
        loop = asyncio.get_running_loop()
        if loop.time() < self.frozen_until:
            loop.call_at(self.frozen_until, self._answer, reply, result, error)
        elif not reply.done():
            if error:
                reply.set_exception(error)
            else:
                reply.set_result(result)

    def _fate(self, *, writes: bool) -> tuple[_Fate, float, float]:
        """What becomes of a call, and how long it takes there and back."""
        there_s, back_s = self._rng.uniform(0.001, 0.01), self._rng.uniform(0.001, 0.01)
        now = asyncio.get_running_loop().time()
        faults = self._faults
        if any(begin <= now < end for begin, end in faults.outages) or self._happens(faults.before):
            return _Fate.FAILED, there_s, back_s
        if self._happens(faults.slow):
            there_s = self._rng.uniform(0.1, CALL_TIMEOUT_S)
        if self._happens(faults.after):
            return _Fate.LOST, there_s, back_s
        if writes and self._happens(faults.late):
            return _Fate.LATE, self._rng.uniform(0.1, 30), back_s
        return _Fate.DONE, there_s, back_s

    def _happens(self, likely: float) -> bool:
        in_time = asyncio.get_running_loop().time() < self._faults.until_s
        return self._rng.random() < likely and in_time

    def _acknowledged(self, write: Write) -> None:
        if isinstance(write, Put) and write.table is STREAMS and "kind" in write.item:
            self._history.acknowledged(self._who, write.item)


def _shown(write: Write) -> str:
    if isinstance(write, Put):
        item = write.item
        if write.table is not STREAMS or "kind" not in item:
            return f"put {write.table.name}"
        return f"put {item['seq']} {item['kind']} by {item['by']}"
    if isinstance(write, Delete):
        return f"delete {write.key}"
    return f"update {sorted({*write.set, *write.add, *write.remove})}"
