"""The client for `async`: on asyncio or Trio, as httpx is."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from inspect import isawaitable
from typing import BinaryIO, Self, TypeVar, get_args

import anyio
import httpx

from sluice_client.call import LIST_MAX, Call
from sluice_client.client import (
    LIMITS,
    AnswerState,
    ClientState,
    Notify,
    Wire,
    body_timeout,
    loss,
    new_key,
)
from sluice_client.events import Chunk, Event
from sluice_client.following import Following
from sluice_client.machine import TIMES, Ask, Machine, Times, Wait
from sluice_client.results import Standing, Summary, Usage

T = TypeVar("T")
E = TypeVar("E")


class Alarm:
    """Ends a wait from elsewhere."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def set(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._rung.wait()
        if self._rung.is_set():
            self._rung = anyio.Event()


class AsyncWire(Wire):
    """Sends what a machine asks for, and tells it what becomes of that."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        credential: str | Callable[[], str | Awaitable[str]],
        url: str,
        api_url: str | None,
        retry_s: float,
        times: Times,
        notify: Notify | None,
    ) -> None:
        super().__init__(
            url,
            api_url,
            renewable=callable(credential),
            retry_s=retry_s,
            times=times,
            notify=notify,
        )
        self._http = http
        self._credential = credential
        self._key = ""

    async def call(self, call: Call[T]) -> T:
        async with aclosing(self.run((call,), Alarm())) as events:
            async for event in events:
                self.notice(event)
        return call.result

    async def run(self, machines: Sequence[Machine], alarm: Alarm) -> AsyncGenerator[Event, None]:
        """The events of machines, each to its end. An alarm ends their waits."""
        for machine in machines:
            machine.begin()
            for event in machine.drain():
                yield event
            while step := machine.next():
                for event in machine.drain():
                    yield event
                if isinstance(step, Wait):
                    await alarm.wait(step.seconds)
                    continue
                async with aclosing(self._send(step, machine)) as events:
                    async for event in events:
                        yield event

    async def _send(self, ask: Ask, machine: Machine) -> AsyncGenerator[Event, None]:
        try:
            arguments = self.arguments(ask, await self._key_for(ask))
            async with self._http.stream(**arguments) as response:
                body_timeout(response, ask)
                machine.began(response.status_code, response.headers)
                async for data in response.aiter_bytes():
                    machine.received(data)
                    for event in machine.drain():
                        yield event
                    if not machine.listens:
                        break
            machine.ended()
        except httpx.RequestError as error:
            machine.lost(loss(error), error)
        for event in machine.drain():
            yield event

    async def _key_for(self, ask: Ask) -> str:
        if ask.renews or not self._key:
            key = self._credential() if callable(self._credential) else self._credential
            self._key = await key if isawaitable(key) else key
        return self._key


class AsyncSluice(ClientState["AsyncAnswer"]):
    """As `Sluice`, with `await`. What gives the `key` may be awaitable, too.

    Tasks may share a client. An answer is iterated by one task at a time; others may steer it.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | Callable[[], str | Awaitable[str]],
        api_url: str | None = None,
        retry_s: float = 60.0,
        times: Times = TIMES,
        notify: Notify | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._http = http or httpx.AsyncClient(limits=LIMITS)
        self._owned = http is None
        self._wire = AsyncWire(self._http, key, url, api_url, retry_s, times, notify)
        super().__init__(self._wire.conditions)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Drop the connections. Streams go on."""
        if self._owned:
            await self._http.aclose()

    async def summary(self, stream: str) -> Summary:
        return await self._wire.call(self._wire.calls.summary(stream))

    async def streams(self, limit: int | None = None) -> AsyncIterator[Summary]:
        """As `Sluice.streams`."""
        left, page = limit, None
        while left is None or left > 0:
            found = await self._wire.call(
                self._wire.calls.streams(min(left or LIST_MAX, LIST_MAX), page)
            )
            for each in found.streams:
                yield each
            left, page = left and left - len(found.streams), found.next_page
            if page is None:
                return

    async def usage(self) -> Usage:
        """As `Sluice.usage`."""
        return await self._wire.call(self._wire.calls.usage())

    async def erase(self, stream: str) -> None:
        """As `Sluice.erase`."""
        await self._wire.call(self._wire.calls.erase(stream))

    async def export(self, stream: str, file: BinaryIO) -> None:
        """As `Sluice.export`. Writing to `file` blocks the loop as long as it takes."""
        await self._wire.call(self._wire.calls.export(stream, file.write))

    def _answer(self, following: Following) -> "AsyncAnswer":
        return AsyncAnswer(self._wire, following)


class EventIterator(AsyncIterator[E]):
    """The events of some kinds. No generator around the one that has the connection: of those each
    would have to be closed, as Trio demands.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[AsyncGenerator[Event, None]]],
        kinds: tuple[type[E], ...],
    ) -> None:
        self._begin = begin
        self._kinds = kinds
        self._events: AsyncGenerator[Event, None] | None = None

    async def __anext__(self) -> E:
        if self._events is None:
            self._events = await self._begin()
        async for event in self._events:
            if isinstance(event, self._kinds):
                return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Drop the connection. The stream goes on."""
        if self._events is not None:
            await self._events.aclose()


class AsyncAnswer(AnswerState):
    """As `Answer`, with `await`. Use it in `async with`, or iterate it to its end: to break off an
    `async for` alone leaves the connection open until Python collects it.
    """

    def __init__(
        self, wire: AsyncWire, following: Following, replaced: Following | None = None
    ) -> None:
        super().__init__(following, replaced)
        self._wire = wire
        self._alarm = Alarm()
        self._running: AsyncGenerator[Event, None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> "EventIterator[Chunk]":
        """As `Answer.__iter__`."""
        return EventIterator(self._begun, (Chunk,))

    def events(self) -> "EventIterator[Event]":
        """As `Answer.events`."""
        return EventIterator(self._begun, get_args(Event))

    async def _begun(self) -> AsyncGenerator[Event, None]:
        await self.aclose()
        self._running = self._wire.run(self._machines, self._alarm)
        return self._running

    async def read(self) -> str:
        """As `Answer.read`."""
        async for _ in self:
            pass
        return self.text

    async def aclose(self) -> None:
        """Drop the connection. The stream goes on."""
        if self._running is not None:
            await self._running.aclose()

    async def cancel(self) -> Standing | None:
        """As `Answer.cancel`."""
        if self._following.abandon():
            return None
        return await self._steer("cancel")

    async def pause(self) -> Standing:
        """As `Answer.pause`."""
        return await self._steer("pause")

    async def resume(self) -> Standing:
        """As `Answer.resume`."""
        return await self._steer("resume")

    async def grant(self) -> Standing:
        """As `Answer.grant`."""
        return await self._steer("grant")

    def regenerate(self) -> "AsyncAnswer":
        """As `Answer.regenerate`."""
        following = self._following.regenerated(new_key())
        return AsyncAnswer(self._wire, following, replaced=self._following)

    def refine(self, message: str) -> "AsyncAnswer":
        """As `Answer.refine`."""
        return AsyncAnswer(self._wire, self._following.refined(message, new_key()))

    async def _steer(self, how: str) -> Standing:
        wire, following = self._wire, self._following
        if following.id is None:
            following.id = await wire.call(wire.calls.name(following))
        standing = await wire.call(wire.calls.steer(following.id, how))
        following.steered(standing.status)
        self._alarm.set()
        return standing
