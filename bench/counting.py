"""A store that counts what is asked of the one behind it, in DynamoDB's units.

The rules, from DynamoDB's developer guide ("Capacity unit consumption"): a write costs a unit for
each KB begun, twice that in a transaction, and once more for each index that shows the item, or did
until then; a consistent read costs a unit for each 4 KB begun, another read half of that, a query
by the sum of what it reads. What is refused or not found costs as if it were one unit long.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from shared.records import Item, Value
from shared.schema import Index, Table
from shared.table import Conflict, Found, Put, Query, Store, Update, Write


@dataclass(slots=True)
class Counts:
    """`acks` is when each record's write was acknowledged, by seq; `put_ms` how long that took."""

    writes: int = 0
    reads: int = 0
    wru: float = 0.0
    rru: float = 0.0
    put_ms: list[float] = field(default_factory=list)
    acks: dict[int, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, body: dict[str, object]) -> Self:
        counts = cls(**body)  # type: ignore[arg-type] # it is our own asdict()
        counts.acks = {int(seq): ns for seq, ns in counts.acks.items()}
        return counts


class Counting:
    """`Store`, around another one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.counts = Counts()
        # What an update leaves is priced, and only who wrote the item before knows it.
        self._items: dict[tuple[str, Value, Value], Item] = {}

    async def write(self, write: Write) -> Item | None:
        began = time.monotonic_ns()
        held = await self._store.write(write)
        if held is None:
            self._acknowledged(began, [write])
            self._wrote(write, times=1)
        else:
            self._refused([write], times=1)
        return held

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        began = time.monotonic_ns()
        conflict = await self._store.transact(writes, token)
        if conflict is None:
            self._acknowledged(began, writes)
            for write in writes:
                self._wrote(write, times=2)
        else:
            self._refused(writes, times=2)
        return conflict

    async def overwrite(self, table: Table, items: Sequence[Item]) -> None:
        await self._store.overwrite(table, items)
        for item in items:
            self._wrote(Put(table, item), times=1)

    async def get(self, table: Table, key: Item) -> Item | None:
        item = await self._store.get(table, key)
        self._read([item] if item else [], consistent=True)
        return item

    async def query(self, query: Query) -> Found:
        found = await self._store.query(query)
        self._read(found.items, consistent=query.consistent)
        return found

    def _acknowledged(self, began: int, writes: Sequence[Write]) -> None:
        now = time.monotonic_ns()
        for write in writes:
            if isinstance(write, Put) and "kind" in write.item:
                self.counts.acks[int(write.item["seq"])] = now
        if len(writes) == 1:
            self.counts.put_ms.append((now - began) / 1e6)

    def _refused(self, writes: Sequence[Write], *, times: int) -> None:
        self.counts.wru += times * len(writes)

    def _wrote(self, write: Write, *, times: int) -> None:
        key_of = write.item if isinstance(write, Put) else write.key
        key = (write.table.name, key_of[write.table.partition.name], key_of[write.table.sort.name])
        before = self._items.get(key, {})
        after = {}
        if isinstance(write, Put):
            after = write.item
        elif isinstance(write, Update):
            after = write.applied(before)
        self._items[key] = after
        self.counts.writes += 1
        self.counts.wru += times * max(write_units(before), write_units(after))
        for index in write.table.indexes:
            # What leaves an index is written there, too.
            shown = _shown(after, write.table, index) or _shown(before, write.table, index)
            # An index is brought up to date afterwards, and so not as part of a transaction.
            self.counts.wru += write_units(shown) if shown else 0

    def _read(self, items: Sequence[Item], *, consistent: bool) -> None:
        units = max(math.ceil(sum(map(item_bytes, items)) / 4096), 1)
        self.counts.reads += 1
        self.counts.rru += units if consistent else units / 2


def write_units(item: Item) -> int:
    return max(math.ceil(item_bytes(item) / 1024), 1)


def item_bytes(item: Item) -> int:
    """An item's size: names and strings in UTF-8; a number has a byte for two digits, and one."""
    return sum(
        len(name.encode())
        + (
            len(value.encode())
            if isinstance(value, str)
            else math.ceil(len(str(abs(value))) / 2) + 1
        )
        for name, value in item.items()
    )


def _shown(item: Item, table: Table, index: Index) -> Item:
    """What an index shows of an item; nothing of one that is not in it."""
    if not (index.partition.name in item and index.sort.name in item):
        return {}
    names = {
        *index.projected,
        *(index.partition.name, index.sort.name, table.partition.name, table.sort.name),
    }
    return {name: value for name, value in item.items() if name in names}
