"""Spans: what a request and a producer spent their time on, for a collector of OpenTelemetry.

Whoever does something has it measured, as one span that is told at its end; never a chunk. Where no
collector is named nobody is told, and nothing is measured. As with metrics no span holds a text, a
secret or who the user is.

A span is a part of the one around it in its task. One of a stream is a part of what the `opened`
record keeps, so all its producers stand side by side in one trace.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from shared import trace
from shared.errors import SluiceError
from shared.trace import Place

Value = str | bool | int | float | tuple[str, ...]


class Role(IntEnum):
    """What a span is to the processes beside it: the numbers are those of OTLP."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4


@dataclass(frozen=True, slots=True)
class Event:
    """What happened in a span, at a time in ns since 1970."""

    name: str
    at_ns: int
    attributes: dict[str, Value]


@dataclass(slots=True)
class Span:
    """Times are in ns since 1970. `failed` is the kind of failure, empty where there was none."""

    name: str
    role: Role
    place: Place
    parent: str | None
    attributes: dict[str, Value]
    began_ns: int = field(default_factory=time.time_ns)
    ended_ns: int = 0
    failed: str = ""
    events: list[Event] = field(default_factory=list)
    links: list[Place] = field(default_factory=list)

    def event(self, name: str, after_s: float | None = None, **attributes: Value) -> None:
        """Something happened, so many seconds after the span began, or now."""
        at_ns = time.time_ns() if after_s is None else self.began_ns + round(after_s * 1e9)
        known = {f"sluice.{key}": value for key, value in attributes.items()}
        self.events.append(Event(name, at_ns, known))

    def link(self, other: Place | None) -> None:
        """A span of another trace had to do with it."""
        if other and other.span:
            self.links.append(other)


class Collector(Protocol):
    """Takes spans that are over. `flush` sends them, within a bound of time; neither raises."""

    def take(self, span: Span) -> None: ...

    async def flush(self) -> None: ...


class Spans:
    """Whom to tell. What is measured gets its span to say more of it; None where nobody asks."""

    def __init__(self, collector: Collector | None = None) -> None:
        self._collector = collector

    def request(
        self, trace_id: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Span | None]:
        """Measure a request, as a part of its client's span, unless that is not recorded."""
        if self._collector is None:
            return nullcontext()
        parent, recorded = trace.parent_of_request(headers)
        if not recorded:
            return nullcontext()
        return self._measured(self._collector, "request", Role.SERVER, trace_id, parent, {})

    def span(
        self, name: str, role: Role = Role.INTERNAL, /, **about: Value | None
    ) -> AbstractContextManager[Span | None]:
        """Measure what is done meanwhile, as a part of what this task does."""
        place = trace.here()
        if self._collector is None or place is None or place.span is None:
            return nullcontext()
        known = {f"sluice.{name}": value for name, value in about.items() if value is not None}
        return self._measured(self._collector, name, role, place.trace, place.span, known)

    async def flush(self) -> None:
        """Send what was told. An invocation awaits it last: it is frozen after its end."""
        if self._collector:
            await self._collector.flush()

    @contextmanager
    def _measured(
        self,
        collector: Collector,
        name: str,
        role: Role,
        trace_id: str,
        parent: str | None,
        about: dict[str, Value],
    ) -> Iterator[Span]:
        span = Span(name, role, Place(trace_id, secrets.token_hex(8)), parent, about)
        began_ns = time.monotonic_ns()
        try:
            with trace.within(span.place):
                yield span
        except asyncio.CancelledError:
            raise  # somebody had it end: that is no failure
        except BaseException as error:
            span.failed = error.slug if isinstance(error, SluiceError) else type(error).__name__
            raise
        finally:
            span.ended_ns = span.began_ns + time.monotonic_ns() - began_ns
            collector.take(span)


#: Tells nobody.
UNTOLD = Spans()
