"""Calls: one request with one reply, repeated while that may help. No I/O.

All of them may be repeated: asked twice, each changes nothing that it had not changed already.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from sluice_client import requests
from sluice_client.errors import GaveUp
from sluice_client.following import Following
from sluice_client.machine import Ask, Conditions, Lost, Machine, Reply
from sluice_client.naming import named, stream_path
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
        self._times = conditions.times

    def summary(self, stream: str) -> Call[Summary]:
        ask = requests.whole(self._times, "GET", stream_path(stream))
        return Call(self._conditions, ask, _json(Summary.of))

    def streams(self, limit: int, page: str | None) -> Call[SummaryPage]:
        ask = requests.streams(self._times, limit, page)
        return Call(self._conditions, ask, _json(SummaryPage.of))

    def usage(self) -> Call[Usage]:
        ask = requests.whole(self._times, "GET", "/v1/usage")
        return Call(self._conditions, ask, _json(Usage.of))

    def steer(self, stream: str, how: str) -> Call[Standing]:
        """`how` is `cancel`, `pause`, `resume` or `grant`."""
        ask = requests.steer(self._times, stream, how)
        return Call(self._conditions, ask, _json(Standing.of))

    def erase(self, stream: str) -> Call[None]:
        ask = requests.whole(self._times, "DELETE", stream_path(stream))
        return Call(self._conditions, ask, lambda _: None)

    def export(self, stream: str, write: Callable[[bytes], object]) -> Download:
        return Download(self._conditions, requests.export(self._times, stream), write)

    def name(self, following: Following) -> Call[str]:
        """The stream of a start of which no reply was seen."""
        return Call(self._conditions, following.asks_name(), _name)


def _json(read: Callable[[Mapping[str, Any]], T]) -> Callable[[Reply], T]:
    return lambda reply: read(reply.json())


def _name(reply: Reply) -> str:
    stream = named(reply)
    if stream is None:
        raise ValueError("no stream is named")
    return stream
