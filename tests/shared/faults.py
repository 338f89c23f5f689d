"""One process's way to a store, and what can happen on it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from shared.errors import Unavailable
from shared.records import Item
from shared.schema import Table
from shared.table import Conflict, Found, Query, Write
from tests.model_store import ModelStore

T = TypeVar("T")

#: A call fails before it is done, or half done; loses its reply after; or its process dies.
Fate = Literal["ok", "fail", "half", "lose", "die", "die after"]
FAULTS: tuple[Fate, ...] = ("fail", "half", "lose", "die", "die after")


class Killed(BaseException):
    """The process is no more."""


class Way:
    """A `Store`. `fate` says what becomes of each call, by its number; `delay_s` how long it takes.

    With `open` cleared the process neither sends nor hears anything. `after` is called when a call
    was done.
    """

    def __init__(
        self,
        store: ModelStore,
        fate: Callable[[int], Fate] = lambda _: "ok",
        *,
        delay_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.calls = 0
        self.dead = False
        self.open = asyncio.Event()
        self.open.set()
        self.after: Callable[[], None] = lambda: None
        self._store = store
        self._fate = fate
        self._delay_s = delay_s

    async def write(self, write: Write) -> Item | None:
        return await self._call(lambda: self._store.write_now(write))

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        return await self._call(lambda: self._store.transact_now(writes, token))

    async def overwrite(self, table: Table, items: Sequence[Item]) -> None:
        half = items[::2]
        await self._call(
            lambda: self._store.overwrite_now(table, items),
            lambda: self._store.overwrite_now(table, half),
        )

    async def get(self, table: Table, key: Item) -> Item | None:
        return await self._call(lambda: self._store.get_now(table, key))

    async def query(self, query: Query) -> Found:
        return await self._call(lambda: self._store.query_now(self._store.items, query))

    async def _call(self, effect: Callable[[], T], half: Callable[[], object] | None = None) -> T:
        if self.dead:
            raise Killed
        fate = self._fate(self.calls)
        self.calls += 1
        await asyncio.sleep(self._delay_s())
        await self.open.wait()
        self._before(fate, half)
        result = effect()
        self.after()
        await asyncio.sleep(self._delay_s())
        await self.open.wait()
        if fate == "lose":
            raise Unavailable("It was told to lose its reply.")
        if fate == "die after":
            self._die()
        return result

    def _before(self, fate: Fate, half: Callable[[], object] | None) -> None:
        if fate == "die":
            self._die()
        if fate == "half" and half:
            half()
        if fate in ("fail", "half"):
            raise Unavailable("It was told to fail.")

    def _die(self) -> None:
        self.dead = True
        raise Killed


def once(fate: Fate, at: int) -> Callable[[int], Fate]:
    """One fault, at the call of this number."""
    return lambda number: fate if number == at else "ok"
