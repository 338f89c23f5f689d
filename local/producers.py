"""The producers of a local run: stopped with it, or killed one by one.

On AWS each producer has an execution environment of its own, which may die in mid-answer. Here all
of them share one process, which nobody wants to kill for a try. So each request, and each producer
that was launched, is given a `Machine`, and gets to the store through `Mortal` only. Where its
machine is dead, whatever asks the store is cancelled on the spot. So nothing more is written, no
text and no hand-over, and the connection of the client that is attached breaks without an end,
since the cancellation goes all the way up through the response. A write that was under way may
arrive, as one may on AWS.

The producer's own code knows nothing of this: what goes on with the answer is the protocol.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import NotFound
from shared.identity import STREAM
from shared.live import Channel, Live
from shared.logger import logger
from shared.middleware.authorization import Endpoint
from shared.records import Item, StreamKey
from shared.schema import Table
from shared.table import Conflict, Found, Query, Store, Write


@dataclass(eq=False, slots=True)
class Machine:
    """Where one request is served, or one producer runs that was launched."""

    dead: bool = False


#: The one that the current task is on. The sweep is on none.
_machine: ContextVar[Machine | None] = ContextVar("machine", default=None)


def on_machines(app: ASGIApp) -> ASGIApp:
    """The app, each request on a machine of its own."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        token = _machine.set(Machine())
        try:
            await app(scope, receive, send)
        finally:
            _machine.reset(token)

    return served


class Mortal:
    """The store, for who is alive."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(self, write: Write) -> Item | None:
        _alive()
        return await self._store.write(write)

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        _alive()
        return await self._store.transact(writes, token)

    async def overwrite(self, table: Table, items: Sequence[Item]) -> None:
        _alive()
        await self._store.overwrite(table, items)

    async def get(self, table: Table, key: Item) -> Item | None:
        _alive()
        return await self._store.get(table, key)

    async def query(self, query: Query) -> Found:
        _alive()
        return await self._store.query(query)


def _alive() -> None:
    machine = _machine.get()
    if machine and machine.dead:
        raise asyncio.CancelledError


class Producers(Live):
    """The channels of this process, and the tasks that produce in it."""

    def __init__(self) -> None:
        super().__init__()
        #: How many streams were handed over to the next run.
        self.left = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._kills: dict[StreamKey, Callable[[], None]] = {}
        self._stopped = False

    def launch(self, work: Coroutine[Any, Any, None]) -> None:
        """Produce a stream in the background; or leave it to the next run, which looks for it."""
        if self._stopped:
            work.close()
            self.left += 1
        else:
            # Who launches it may die without it.
            self.track(asyncio.create_task(work, context=_elsewhere()))

    def track(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    @contextmanager
    def producing(self, key: StreamKey) -> Iterator[Channel]:
        task, machine = asyncio.current_task(), _machine.get()
        if task and task not in self._tasks:
            self.track(task)

        def kill() -> None:
            if task and machine:
                machine.dead = True
                task.cancel()

        self._kills[key] = kill
        try:
            with super().producing(key) as channel:
                yield channel
        finally:
            if self._kills.get(key) is kill:
                del self._kills[key]

    def kill(self, key: StreamKey) -> None:
        """Have the machine die that produces this stream. Raises `NotFound` where none does."""
        if key not in self._kills:
            raise NotFound("Nobody produces this stream just now.")
        self._kills[key]()

    @property
    def endpoint(self) -> Endpoint:
        """Kills a stream's producer, as its machine would in dying: 204; 404 if it has none."""

        async def kill(request: Request) -> Response:
            self.kill(request.state.key)
            return Response(status_code=204)

        return Endpoint("POST", "/local/streams/{stream}/kill", STREAM, kill)

    async def stop(self) -> None:
        """Have every producer leave its stream to the next run."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a producer gave up", extra={"error": type(error).__name__})


def _elsewhere() -> Context:
    context = copy_context()
    context.run(_machine.set, Machine())
    return context
