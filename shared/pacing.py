"""Pacing: when the text that a producer holds may become a chunk.

The first chunk goes out at once, or with the first sentence where a pacing asks for that. Then the
shortest time between two chunks grows, because the model is soon far ahead of any reader and each
write costs money. A natural boundary may end a chunk early, but does not bring the chunk after it
forward: over time there are no more writes.
"""

import asyncio
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from shared import fields
from shared.errors import InvalidRequest

Boundary = Literal["natural", "none"]
FirstChunk = Literal["at_once", "sentence"]

FLUSH_INTERVAL_MS_MAX = 5000
WARM_UP_MS_MAX = 60_000
BOUNDARIES: tuple[Boundary, ...] = ("natural", "none")
FIRST_CHUNKS: tuple[FirstChunk, ...] = ("at_once", "sentence")
#: For how long a first sentence is held back: its reader takes a longer wait for a fault.
SENTENCE_S_MAX = 2.0

_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]]*\s|\n")
#: The end of a sentence, a line or a code block.
_NATURAL = re.compile(r"(?:[.!?…。！？][\"'”’)\]]*\s|\n)\s*$|```\s*$")
#: How much of an interval a boundary may save.
_EARLY = 0.5


@dataclass(frozen=True, slots=True)
class Pacing:
    """A value that a request or a tenant's experiment can set.

    The interval between two chunks grows from `flush_interval_ms[0]` to `flush_interval_ms[1]`
    during `warm_up_ms` from the first chunk on. Both 0 mean as fast as the writes go. With
    `first_chunk` as `sentence` nothing is shown before a whole sentence is there, or the time that
    it may take is over.
    """

    flush_interval_ms: tuple[int, int] = (50, 400)
    warm_up_ms: int = 3000
    boundary: Boundary = "natural"
    first_chunk: FirstChunk = "at_once"

    @classmethod
    def from_document(cls, value: Any, path: str = "pacing") -> Self:
        """Check what a request or a tenant says. Raises `InvalidRequest`."""
        pacing, default = fields.mapping(value, path), cls()
        names = ("flush_interval_ms", "warm_up_ms", "boundary", "first_chunk")
        fields.known(pacing, names, path)
        interval = pacing.get("flush_interval_ms", list(default.flush_interval_ms))
        name = f"{path}.flush_interval_ms"
        if not isinstance(interval, list):
            interval = [interval, interval]
        if len(interval) != 2:
            raise InvalidRequest(f"`{name}` must be a number or a pair of numbers.", field=name)
        low, high = (
            fields.whole(bound, name, least=0, most=FLUSH_INTERVAL_MS_MAX) for bound in interval
        )
        if low > high:
            raise InvalidRequest(f"`{name}` must not fall: {low} is above {high}.", field=name)
        warm_up = pacing.get("warm_up_ms", default.warm_up_ms)
        boundary = pacing.get("boundary", default.boundary)
        first = pacing.get("first_chunk", default.first_chunk)
        return cls(
            flush_interval_ms=(low, high),
            warm_up_ms=fields.whole(warm_up, f"{path}.warm_up_ms", least=0, most=WARM_UP_MS_MAX),
            boundary=fields.one_of(boundary, f"{path}.boundary", BOUNDARIES),  # type: ignore[arg-type]
            first_chunk=fields.one_of(first, f"{path}.first_chunk", FIRST_CHUNKS),  # type: ignore[arg-type]
        )

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """One that was checked when its stream began, maybe by a later version."""
        kept = {f.name: body[f.name] for f in dataclasses.fields(cls) if f.name in body}
        low, high = body["flush_interval_ms"]
        return cls(**{**kept, "flush_interval_ms": (low, high)})

    def to_body(self) -> dict[str, Any]:
        """What its stream keeps. A version before `first_chunk` reads no name that it does not
        know, and may be the next producer: during a release, or behind one that was taken back.
        """
        body = self.to_document()
        if self.first_chunk == "at_once":
            del body["first_chunk"]
        return body

    def to_document(self) -> dict[str, Any]:
        return {
            "flush_interval_ms": list(self.flush_interval_ms),
            "warm_up_ms": self.warm_up_ms,
            "boundary": self.boundary,
            "first_chunk": self.first_chunk,
        }

    def interval_s(self, elapsed_s: float) -> float:
        """The shortest time between two chunks, so many seconds after the first one."""
        low, high = self.flush_interval_ms
        warm = min(elapsed_s * 1000 / self.warm_up_ms, 1.0) if self.warm_up_ms else 1.0
        return (low + (high - low) * warm) / 1000


class Pacer:
    """Applies a `Pacing` to one producer. Times are the event loop's, in seconds."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._first: float | None = None
        self._due = 0.0
        self._interval = 0.0
        #: Until when a first sentence is waited for, once some of it is there.
        self._held_until: float | None = None

    def due(self, held: str) -> float:
        """The time from which `held` may be written."""
        if self._waits_for_sentence and not _SENTENCE.search(held):
            if self._held_until is None:
                self._held_until = asyncio.get_running_loop().time() + SENTENCE_S_MAX
            return self._held_until
        return self._due - self._interval * _EARLY if self.at_boundary(held) else self._due

    def at_boundary(self, held: str) -> bool:
        """Whether a chunk may end early here."""
        if self._waits_for_sentence:
            return bool(_SENTENCE.search(held))
        return self._pacing.boundary == "natural" and bool(_NATURAL.search(held[-16:]))

    def wrote(self, now: float) -> None:
        """A chunk's write began at `now`."""
        if self._first is None:
            self._first = self._due = now
        self._interval = self._pacing.interval_s(now - self._first)
        self._due = max(self._due, now) + self._interval

    @property
    def _waits_for_sentence(self) -> bool:
        return self._first is None and self._pacing.first_chunk == "sentence"
