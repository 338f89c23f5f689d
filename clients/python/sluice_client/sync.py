"""The client without `await`."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from threading import Event as Alarm
from typing import BinaryIO, Self, TypeVar

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


class SyncWire(Wire):
    """Sends what a machine asks for, and tells it what becomes of that."""

    def __init__(
        self,
        http: httpx.Client,
        credential: str | Callable[[], str],
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

    def call(self, call: Call[T]) -> T:
        for event in self.run((call,), Alarm()):
            self.notice(event)
        return call.result

    def run(self, machines: Sequence[Machine], alarm: Alarm) -> Generator[Event, None, None]:
        """The events of machines, each to its end. An alarm ends their waits."""
        for machine in machines:
            machine.begin()
            yield from machine.drain()
            while step := machine.next():
                yield from machine.drain()
                if isinstance(step, Wait):
                    alarm.wait(step.seconds)
                    alarm.clear()
                else:
                    yield from self._send(step, machine)

    def _send(self, ask: Ask, machine: Machine) -> Generator[Event, None, None]:
        try:
            with self._http.stream(**self.arguments(ask, self._key_for(ask))) as response:
                body_timeout(response, ask)
                machine.began(response.status_code, response.headers)
                for data in response.iter_bytes():
                    machine.received(data)
                    yield from machine.drain()
                    if not machine.listens:
                        break
            machine.ended()
        except httpx.RequestError as error:
            machine.lost(loss(error), error)
        yield from machine.drain()

    def _key_for(self, ask: Ask) -> str:
        if ask.renews or not self._key:
            self._key = self._credential() if callable(self._credential) else self._credential
        return self._key


class Sluice(ClientState["Answer"]):
    """A client of the Sluice at `url`; `api_url` where its API has an address of its own.

    `key` is a key or token, or what gives one: it is asked anew when the server says that the last
    one ends or has ended, and running streams are granted the new one. `retry_s` is how long a
    server may give no sign of life before an answer or a call gives up. `notify` is told when a
    call has to be made again; answers tell it by their events. `http` is used for all requests
    where it is given, and is not closed.

    Threads may share a client. An answer is iterated by one thread at a time; the others may steer
    it and read what is known of it. There are no threads of its own.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | Callable[[], str],
        api_url: str | None = None,
        retry_s: float = 60.0,
        times: Times = TIMES,
        notify: Notify | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self._http = http or httpx.Client(limits=LIMITS)
        self._owned = http is None
        self._wire = SyncWire(self._http, key, url, api_url, retry_s, times, notify)
        super().__init__(self._wire.conditions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connections. Streams go on."""
        if self._owned:
            self._http.close()

    def summary(self, stream: str) -> Summary:
        return self._wire.call(self._wire.calls.summary(stream))

    def streams(self, limit: int | None = None) -> Iterator[Summary]:
        """The tenant's streams, or those of the key's user: newest first, at most `limit`."""
        left, page = limit, None
        while left is None or left > 0:
            found = self._wire.call(self._wire.calls.streams(min(left or LIST_MAX, LIST_MAX), page))
            yield from found.streams
            left, page = left and left - len(found.streams), found.next_page
            if page is None:
                return

    def usage(self) -> Usage:
        """The limits on who asks, and the tokens of its tenant by day and month."""
        return self._wire.call(self._wire.calls.usage())

    def erase(self, stream: str) -> None:
        """Nobody finds the stream any more; a long one is erased in the background."""
        self._wire.call(self._wire.calls.erase(stream))

    def export(self, stream: str, file: BinaryIO) -> None:
        """Write everything held about a stream to `file`: one JSON document.

        Raises `GaveUp` where it breaks off: what was written is not whole then.
        """
        self._wire.call(self._wire.calls.export(stream, file.write))

    def _answer(self, following: Following) -> "Answer":
        return Answer(self._wire, following)


class Answer(AnswerState):
    """An answer, as it is said: iterate its chunks, or `events()`.

    To stop iterating, or `close()`, or the end of a `with`, drops the connection and nothing else:
    the stream goes on, and to iterate again goes on where that stopped. To end it, `cancel()`.
    """

    def __init__(
        self, wire: SyncWire, following: Following, replaced: Following | None = None
    ) -> None:
        super().__init__(following, replaced)
        self._wire = wire
        self._alarm = Alarm()
        self._running: Generator[Event, None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks not seen yet, as they come, to the end. A cancelled answer just ends.

        Raises `StreamFailed`, `Refused`, `GaveUp`, `NotSluice`: each has the `text` until then.
        """
        with closing(self.events()) as events:
            for event in events:
                if isinstance(event, Chunk):
                    yield event

    def events(self) -> Generator[Event, None, None]:
        """All that happens, as it happens. Raises as iterating does, behind the `Closed` event."""
        self.close()
        self._running = self._wire.run(self._machines, self._alarm)
        with closing(self._running) as running:
            yield from running

    def read(self) -> str:
        """The whole text, once it is there. Raises as iterating does."""
        for _ in self:
            pass
        return self.text

    def close(self) -> None:
        """Drop the connection. The stream goes on."""
        if self._running is not None:
            self._running.close()

    def cancel(self) -> Standing | None:
        """End the stream. What it said is kept. None where it was never begun."""
        if self._following.abandon():
            return None
        return self._steer("cancel")

    def pause(self) -> Standing:
        """Have nothing more produced, until `resume()`."""
        return self._steer("pause")

    def resume(self) -> Standing:
        """Let a paused stream go on. Who iterates it here is told at once."""
        return self._steer("resume")

    def grant(self) -> Standing:
        """Let the stream go on by a fresh credential, for which it asks."""
        return self._steer("grant")

    def regenerate(self) -> "Answer":
        """Another answer to the same question. This one is cancelled where it still runs."""
        following = self._following.regenerated(new_key())
        return Answer(self._wire, following, replaced=self._following)

    def refine(self, message: str) -> "Answer":
        """An answer to a further message, behind this conversation and this text. This one is
        cancelled where it still runs.
        """
        return Answer(self._wire, self._following.refined(message, new_key()))

    def _steer(self, how: str) -> Standing:
        wire, following = self._wire, self._following
        if following.id is None:
            following.id = wire.call(wire.calls.name(following))
        standing = wire.call(wire.calls.steer(following.id, how))
        following.steered(standing.status)
        self._alarm.set()
        return standing
