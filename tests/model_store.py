"""Our own model of the store: what `shared.table.Store` promises, in memory, and nothing more."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from shared.records import Item, Value
from shared.schema import Index, Table
from shared.table import Conflict, Delete, Found, Put, Query, Update, Write

Key = tuple[str, Value, Value]


class ModelStore:
    """A store without faults. Every call gives way to the event loop once before it acts."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}
        self.writes = 0
        #: How often each table was read, by its name.
        self.reads_of: Counter[str] = Counter()
        self._done: dict[str, str] = {}

    @property
    def reads(self) -> int:
        return self.reads_of.total()

    async def write(self, write: Write) -> Item | None:
        await self._arrive()
        return self.write_now(write)

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        await self._arrive()
        return self.transact_now(writes, token)

    async def overwrite(self, table: Table, items: Sequence[Item]) -> None:
        await self._arrive()
        self.overwrite_now(table, items)

    async def get(self, table: Table, key: Item) -> Item | None:
        await self._arrive()
        return self.get_now(table, key)

    async def query(self, query: Query) -> Found:
        await self._arrive()
        return self.query_now(self.items, query)

    async def _arrive(self) -> None:
        """The moment before a call takes effect."""
        await asyncio.sleep(0)

    def write_now(self, write: Write) -> Item | None:
        holder = self._holder(write)
        if holder is None:
            self._do(write)
        return holder

    def overwrite_now(self, table: Table, items: Sequence[Item]) -> None:
        for item in items:
            self._set(key_of(table, item), item)

    def transact_now(self, writes: Sequence[Write], token: str) -> Conflict | None:
        if token in self._done:
            if self._done[token] != repr(writes):
                raise ValueError(f"two transactions have the token {token}")
            return None
        holders = tuple(map(self._holder, writes))
        if any(holder is not None for holder in holders):
            return Conflict(holders)
        for write in writes:
            self._do(write)
        self._done[token] = repr(writes)
        return None

    def _holder(self, write: Write) -> Item | None:
        """The item that stands in a write's way."""
        if isinstance(write, Put):
            held = self.items.get(key_of(write.table, write.item))
            return dict(held) if held else None
        if isinstance(write, Delete) or write.where is None:
            return None
        held = self.items.get(key_of(write.table, write.key))
        if held and write.where.items() <= held.items():
            return None
        return dict(held or {})

    def _do(self, write: Write) -> None:
        if isinstance(write, Put):
            self._set(key_of(write.table, write.item), write.item)
            return
        key = key_of(write.table, write.key)
        self._set(
            key, write.applied(self.items.get(key, {})) if isinstance(write, Update) else None
        )

    def get_now(self, table: Table, key: Item) -> Item | None:
        self.reads_of[table.name] += 1
        held = self.items.get(key_of(table, key))
        return dict(held) if held else None

    def query_now(self, items: Mapping[Key, Item], query: Query) -> Found:
        """A query on `items`, which are those of now or of some moment before."""
        self.reads_of[query.table.name] += 1
        sort = (query.index or query.table).sort.name
        found = self._matching(items, query)
        found.sort(key=lambda item: item[sort], reverse=query.newest_first)
        if query.prefix is not None:
            found = [item for item in found if str(item[sort]).startswith(query.prefix)]
        if query.start is not None:
            found = [
                item
                for item in found
                if (item[sort] < query.start) == query.newest_first  # type: ignore[operator]
            ]
        page = [_projected(item, query.table, query.index) for item in found[: query.limit]]
        # As DynamoDB: it stops at the limit before it can know that nothing comes.
        return Found(page, len(page) == query.limit)

    def _matching(self, items: Mapping[Key, Item], query: Query) -> list[Item]:
        """The items of the partition that is asked for."""
        shape = query.index or query.table
        return [
            item
            for key, item in items.items()
            if key[0] == query.table.name
            and item.get(shape.partition.name) == query.partition
            and shape.sort.name in item
        ]

    def _set(self, key: Key, item: Item | None) -> None:
        """The one place where an item is written, or removed."""
        self.writes += 1
        if item is None:
            self.items.pop(key, None)
        else:
            self.items[key] = dict(item)


def key_of(table: Table, item: Item) -> Key:
    return (table.name, item[table.partition.name], item[table.sort.name])


def _projected(item: Item, table: Table, index: Index | None) -> Item:
    """What a query shows of an item: all of it, or what its index holds."""
    if index is None:
        return dict(item)
    keys = {s.name for shape in (table, index) for s in (shape.partition, shape.sort)}
    return {name: value for name, value in item.items() if name in keys or name in index.projected}
