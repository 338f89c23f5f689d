"""Our own model of the store: what `shared.table.Store` promises, in memory, and nothing more."""

import asyncio
from collections.abc import Sequence

from shared.records import Item, Value
from shared.schema import Index, Table
from shared.table import Conflict, Put, Write

_Key = tuple[str, Value, Value]


class ModelStore:
    """A store without faults. Every call gives way to the event loop once before it acts."""

    def __init__(self) -> None:
        self.items: dict[_Key, Item] = {}
        self.writes = 0
        self.reads = 0

    async def put(self, write: Put) -> Item | None:
        await self._arrive()
        return self._put_now(write)

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        await self._arrive()
        return self._transact_now(writes)

    async def get(self, table: Table, key: Item) -> Item | None:
        await self._arrive()
        self.reads += 1
        held = self.items.get(_key(table, key))
        return dict(held) if held else None

    async def query(
        self,
        table: Table,
        partition: str,
        *,
        start: Value | None = None,
        limit: int,
        index: Index | None = None,
        newest_first: bool = False,
        consistent: bool = False,
    ) -> list[Item]:
        await self._arrive()
        self.reads += 1
        return self._query_now(
            self.items, table, partition, start, limit, index, newest_first=newest_first
        )

    async def _arrive(self) -> None:
        """The moment before a call takes effect."""
        await asyncio.sleep(0)

    def _put_now(self, write: Put) -> Item | None:
        key = _key(write.table, write.item)
        if key in self.items:
            return dict(self.items[key])
        self.writes += 1
        self.items[key] = dict(write.item)
        return None

    def _transact_now(self, writes: Sequence[Write]) -> Conflict | None:
        holders: list[Item | None] = []
        for write in writes:
            if isinstance(write, Put):
                held = self.items.get(_key(write.table, write.item))
                holders.append(dict(held) if held else None)
            else:
                holders.append(None if _key(write.table, write.key) in self.items else {})
        if any(holder is not None for holder in holders):
            return Conflict(tuple(holders))
        for write in writes:
            if isinstance(write, Put):
                self._put_now(write)
            else:
                self.writes += 1
                self.items[_key(write.table, write.key)].update(write.set)
        return None

    @staticmethod
    def _query_now(
        items: dict[_Key, Item],
        table: Table,
        partition: str,
        start: Value | None,
        limit: int,
        index: Index | None,
        *,
        newest_first: bool,
    ) -> list[Item]:
        shape = index or table
        found = [
            item
            for key, item in items.items()
            if key[0] == table.name
            and item.get(shape.partition.name) == partition
            and shape.sort.name in item
        ]
        found.sort(key=lambda item: item[shape.sort.name], reverse=newest_first)
        if start is not None:
            found = [
                item
                for item in found
                if (item[shape.sort.name] < start) == newest_first  # type: ignore[operator]
            ]
        return [dict(item) for item in found[:limit]]


def _key(table: Table, item: Item) -> _Key:
    return (table.name, item[table.partition.name], item[table.sort.name])
