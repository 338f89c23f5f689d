"""Calls: one request with one reply, repeated while that may help. No I/O.

All of them may be repeated: asked twice, each changes nothing that it had not changed already.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from sluice_client.errors import GaveUp
from sluice_client.following import Following
from sluice_client.machine import Ask, Conditions, Lost, Machine, Reply
from sluice_client.naming import named_in_body, named_in_head, stream_path
from sluice_client.results import Standing, Summary, SummaryPage, Usage

T = TypeVar("T")

#: The longest page of a list.
LIST_MAX = 100


class Call(Machine, Generic[T]):
    """`read` makes the result of a reply's body."""

    def __init__(self, conditions: Conditions, ask: Ask, read: Callable[[Reply], T]) -> None:
        super().__init__(conditions)
        self._request = ask
        self._read = read
        self._results: list[T] = []

    @property
    def over(self) -> bool:
        return bool(self._results)

    @property
    def result(self) -> T:
        """Once it is over."""
        return self._results[0]

    def _ask(self) -> Ask:
        return self._request

    def _answered(self, reply: Reply) -> None:
        if not 200 <= reply.status < 300:
            self._refused(reply)
            return
        try:
            self._results = [self._read(reply)]
        except (ValueError, KeyError, TypeError, AttributeError):
            self._foreign("a reply is not what was asked for")
        else:
            self._alive()


class Download(Call[None]):
    """A call whose reply is written to `write` as it comes. Not repeated once that has begun."""

    def __init__(self, conditions: Conditions, ask: Ask, write: Callable[[bytes], object]) -> None:
        super().__init__(conditions, ask, lambda _: None)
        self._write = write
        self._written = 0

    def received(self, data: bytes) -> None:
        if self._status == 200:
            self._write(data)
            self._written += len(data)
        else:
            super().received(data)

    def lost(self, how: Lost, error: Exception) -> None:
        if self._written:
            self._error, self._cause = GaveUp(_BROKE_OFF.format(self._written)), error
        else:
            super().lost(how, error)


_BROKE_OFF = "The export broke off after {} bytes; what was written is not whole. Ask for it again."


class Calls:
    """Every call that there is."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    def summary(self, stream: str) -> Call[Summary]:
        return self._call("GET", stream_path(stream), _json(Summary.of))

    def streams(self, limit: int, page: str | None) -> Call[SummaryPage]:
        query = f"?limit={limit}" + (f"&page={page}" if page else "")
        return self._call("GET", f"/v1/streams{query}", _json(SummaryPage.of))

    def usage(self) -> Call[Usage]:
        return self._call("GET", "/v1/usage", _json(Usage.of))

    def steer(self, stream: str, how: str, *, renews: bool = False) -> Call[Standing]:
        """`how` is `cancel`, `pause`, `resume` or `grant`."""
        path = stream_path(stream, f"/{how}")
        return self._call("POST", path, _json(Standing.of), renews=renews)

    def erase(self, stream: str) -> Call[None]:
        return self._call("DELETE", stream_path(stream), lambda _: None)

    def export(self, stream: str, write: Callable[[bytes], object]) -> Download:
        silence_s = self._conditions.times.silence_s
        path = stream_path(stream, "/export")
        ask = Ask("GET", path, silence_s, silence_s, streams=True)
        return Download(self._conditions, ask, write)

    def name(self, following: Following) -> Call[str]:
        """The stream of a start of which no reply was seen."""
        return Call(self._conditions, following.start(asynchronous=True), _name)

    def _call(
        self, method: str, path: str, read: Callable[[Reply], T], *, renews: bool = False
    ) -> Call[T]:
        reply_s = self._conditions.times.reply_s
        return Call(self._conditions, Ask(method, path, reply_s, reply_s, renews=renews), read)


def _json(read: Callable[[Mapping[str, Any]], T]) -> Callable[[Reply], T]:
    return lambda reply: read(reply.json())


def _name(reply: Reply) -> str:
    named = named_in_head(reply.headers) or named_in_body(reply)
    if named is None:
        raise ValueError("no stream is named")
    return named
