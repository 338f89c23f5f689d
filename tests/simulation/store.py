"""The model of the store, with the faults of a real one between it and each of its clients."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from shared.errors import Busy, Unavailable
from shared.records import Item, Value
from shared.schema import STREAMS, TABLES, Table
from shared.table import Conflict, Delete, Found, Put, Query, Write
from tests.model_store import Key, ModelStore
from tests.simulation.history import History

T = TypeVar("T")

#: How old a stale read may be, in writes.
STALE_WRITES_MAX = 12
#: How far an index may lag behind its table: less than an erasure waits for it, by any two clocks.
INDEX_LAG_S = 20.0
#: When a client gives up on a call that gets no reply.
CALL_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Span:
    """From when until when something is so, and on which table, where it is not on all."""

    begin_s: float
    end_s: float
    table: str | None = None

    def holds(self, now: float, tables: Sequence[Table]) -> bool:
        here = self.table is None or any(table.name == self.table for table in tables)
        return here and self.begin_s <= now < self.end_s


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely a call of one client meets each fault, until `until_s`.

    In `outages` no call of this client arrives, and where it is `deaf` none is answered. While a
    table is `throttled` it refuses most calls. The process is killed when it has sent its call
    number `dies_at`, and told to stop at number `stops_at`.
    """

    before: float = 0.0
    after: float = 0.0
    late: float = 0.0
    slow: float = 0.0
    stale: float = 0.0
    short: float = 0.0
    twice: float = 0.0
    busy: float = 0.0
    outages: tuple[Span, ...] = ()
    deaf: tuple[Span, ...] = ()
    throttled: tuple[Span, ...] = ()
    dies_at: int | None = None
    stops_at: int | None = None
    until_s: float = 0.0


class Database(ModelStore):
    """What is durable, with all its past."""

    def __init__(self, history: History, *, remembers_tokens: bool) -> None:
        super().__init__()
        self._history = history
        self._remembers_tokens = remembers_tokens
        #: What was written to each partition, in order.
        self._writes_to: dict[Value, list[tuple[Key, Item | None]]] = {}
        #: What was written of late, when, and what was there before, in order.
        self._of_late: deque[tuple[float, Key, Item | None]] = deque()
        #: What is in each partition, of a table or an index.
        self._shelves: dict[tuple[str, str, Value], dict[Key, Item]] = {}

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

    def lagging(self, shows: Callable[[], bool]) -> Mapping[Key, Item]:
        """How an index may show the items: each that was written of late as it is, or as before."""
        now = asyncio.get_running_loop().time()
        while self._of_late and self._of_late[0][0] < now - INDEX_LAG_S:
            self._of_late.popleft()
        view: dict[Key, Item | None] = dict(self.items)
        # Backwards: what an index does not show of an item it shows of no later write of that.
        view |= {key: before for _, key, before in reversed(self._of_late) if not shows()}
        return {key: item for key, item in view.items() if item}

    def _matching(self, items: Mapping[Key, Item], query: Query) -> list[Item]:
        if items is not self.items:
            return super()._matching(items, query)
        shape = query.index or query.table
        shelf = self._shelves.get((query.table.name, shape.partition.name, query.partition), {})
        return [item for item in shelf.values() if shape.sort.name in item]

    def _set(self, key: Key, item: Item | None) -> None:
        before = self.items.get(key)
        super()._set(key, item)
        self._writes_to.setdefault(key[1], []).append((key, dict(item) if item else None))
        self._of_late.append((asyncio.get_running_loop().time(), key, before))
        for attribute in _PARTITIONS[key[0]]:
            if before and attribute in before:
                del self._shelves[key[0], attribute, before[attribute]][key]
            if item and attribute in item:
                shelf = self._shelves.setdefault((key[0], attribute, item[attribute]), {})
                shelf[key] = self.items[key]
        if item:
            self._history.wrote(key, item)


#: By what the items of each table are found.
_PARTITIONS = {
    table.name: {table.partition.name, *(index.partition.name for index in table.indexes)}
    for table in TABLES
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one call: when it arrives, once or twice, from when it was sent on; and when
    its client hears of it, or of an `error` instead.

    The answer is that of the first arrival; of the last one where the client has asked again.
    """

    name: str
    arrives_s: tuple[float, ...]
    heard_s: float
    error: Unavailable | None = None
    again: bool = False


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
        #: What kills the process, and what tells it to stop.
        self.kill: Callable[[], None] = lambda: None
        self.interrupt: Callable[[], None] = lambda: None
        self._calls = 0
        self._who = who
        self._database = database
        self._history = history
        self._rng = rng
        self._faults = faults

    async def write(self, write: Write) -> Item | None:
        held = await self._call(
            _shown(write), lambda: self._database.write_now(write), (write.table,), writes=True
        )
        if held is None:
            self._acknowledged(write)
        return held

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        conflict = await self._call(
            f"transact {', '.join(_shown(w) for w in writes)} token {token}",
            lambda: self._database.transact_now(writes, token),
            tuple(write.table for write in writes),
            writes=True,
        )
        if conflict is None:
            for write in writes:
                self._acknowledged(write)
        return conflict

    async def overwrite(self, table: Table, items: Sequence[Item]) -> None:
        cut = len(items)
        if self._happens(self._faults.before):
            cut = self._rng.randrange(cut)  # the others were not processed
        await self._call(
            f"overwrite {cut} of {len(items)} of {table.name}",
            lambda: self._database.overwrite_now(table, items[:cut]),
            (table,),
            writes=True,
        )
        if cut < len(items):
            raise Unavailable("The model of the store has written some of it.")

    async def get(self, table: Table, key: Item) -> Item | None:
        return await self._call(
            f"get {table.name}", lambda: self._database.get_now(table, key), (table,)
        )

    async def query(self, query: Query) -> Found:
        def read() -> Found:
            view: Mapping[Key, Item] = self._database.items
            if not query.consistent and self._happens(self._faults.stale):
                view = self._stale(query)
            limit = query.limit
            if self._happens(self._faults.short):
                limit = min(limit, self._rng.randint(2, 5))  # a page of 1 MB was full
            return self._database.query_now(view, replace(query, limit=limit))

        what = f"query {query.table.name} from {query.start} consistent {query.consistent}"
        return await self._call(what, read, (query.table,))

    def _stale(self, query: Query) -> Mapping[Key, Item]:
        """What an eventually consistent query may still find."""
        partition, hidden = query.partition, None
        if query.index:
            return self._database.lagging(lambda: self._rng.random() < 0.5)
        if self._rng.random() < 0.3:
            recent = [key for key in self._database.items if key[1] == partition]
            hidden = self._rng.choice(recent[-STALE_WRITES_MAX:]) if recent else None
        return self._database.past(partition, self._rng.randint(0, STALE_WRITES_MAX), hidden)

    async def _call(
        self,
        what: str,
        effect: Callable[[], T],
        tables: Sequence[Table],
        *,
        writes: bool = False,
    ) -> T:
        """Do `effect`, at some moment, and hear of it later, or not."""
        loop = asyncio.get_running_loop()
        if self.dead:
            await asyncio.sleep(0.1)
            raise Unavailable("This process is dead.")
        reply: asyncio.Future[T] = loop.create_future()
        fate = self._fate(tables, writes=writes)
        wait_s = max(self.frozen_until - loop.time(), 0.0)
        self._history.add(self._who, what, fate.name)
        results: list[tuple[T | None, Exception | None]] = []

        def arrive() -> None:
            try:
                results.append((effect(), None))
            except ValueError as refused:
                results.append((None, refused))

        def hear() -> None:
            result, error = results[-1 if fate.again else 0] if results else (None, None)
            self._answer(reply, result, fate.error or error)

        for arrives_s in fate.arrives_s:
            loop.call_later(wait_s + arrives_s, arrive)
        loop.call_later(wait_s + fate.heard_s, hear)
        self._count(loop)
        return await reply

    def _count(self, loop: asyncio.AbstractEventLoop) -> None:
        self._calls += 1
        if self._calls == self._faults.dies_at:
            loop.call_soon(self.kill)
        if self._calls == self._faults.stops_at:
            loop.call_soon(self.interrupt)

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

    def _fate(self, tables: Sequence[Table], *, writes: bool) -> Fate:
        """What becomes of a call."""
        there_s = self._rng.uniform(0.001, 0.01)
        heard_s = there_s + self._rng.uniform(0.001, 0.01)
        if error := self._refusal(tables, writes=writes):
            return Fate("failed", (), heard_s, error)
        faults = self._faults
        if self._happens(faults.slow):
            slower_s = self._rng.uniform(0.1, CALL_TIMEOUT_S)
            there_s, heard_s = there_s + slower_s, heard_s + slower_s
        if self._happens(faults.after) or self._within(faults.deaf, tables):
            return Fate("lost", (there_s,), heard_s, _no_answer())
        if writes and self._happens(faults.late):
            # Its client has given up on it by then.
            return Fate("late", (self._rng.uniform(0.1, 30),), CALL_TIMEOUT_S, _no_answer())
        if writes and self._happens(faults.twice):
            again = self._rng.random() < 0.5
            later_s = there_s + self._rng.uniform(0.05, CALL_TIMEOUT_S if again else 30)
            return Fate(
                "twice", (there_s, later_s), later_s + 0.01 if again else heard_s, again=again
            )
        return Fate("done", (there_s,), heard_s)

    def _refusal(self, tables: Sequence[Table], *, writes: bool) -> Unavailable | None:
        """Why a call does nothing, where it does nothing."""
        faults = self._faults
        if self._within(faults.outages, tables) or self._happens(faults.before):
            return _no_answer()
        if self._within(faults.throttled, tables) and self._rng.random() < 0.8:
            return Unavailable("The model of the store takes no more just now.")
        if writes and self._happens(faults.busy):
            return Busy("Others write the same in the model of the store.")
        return None

    def _within(self, spans: Sequence[Span], tables: Sequence[Table]) -> bool:
        now = asyncio.get_running_loop().time()
        return any(span.holds(now, tables) for span in spans)

    def _happens(self, likely: float) -> bool:
        in_time = asyncio.get_running_loop().time() < self._faults.until_s
        return self._rng.random() < likely and in_time

    def _acknowledged(self, write: Write) -> None:
        if isinstance(write, Put) and write.table is STREAMS and "kind" in write.item:
            self._history.acknowledged(self._who, write.item)


def _no_answer() -> Unavailable:
    return Unavailable("The model of the store does not answer.")


def _shown(write: Write) -> str:
    if isinstance(write, Put):
        item = write.item
        if write.table is not STREAMS or "kind" not in item:
            return f"put {write.table.name}"
        return f"put {item['seq']} {item['kind']} by {item['by']}"
    if isinstance(write, Delete):
        return f"delete {write.key}"
    return f"update {sorted({*write.set, *write.add, *write.remove})}"
