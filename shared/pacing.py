"""Pacing: when the text that a producer holds may become a chunk.

The first chunk goes out at once. Then the shortest time between two chunks grows, because the model
is soon far ahead of any reader and each write costs money. A natural boundary may end a chunk
early, but does not bring the chunk after it forward: over time there are no more writes.
"""

import re
from dataclasses import dataclass
from typing import Literal

Boundary = Literal["natural", "none"]

#: The end of a sentence, a line or a code block.
_NATURAL = re.compile(r"(?:[.!?…。！？][\"'”’)\]]*\s|\n)\s*$|```\s*$")
#: How much of an interval a boundary may save.
_EARLY = 0.5


@dataclass(frozen=True, slots=True)
class Pacing:
    """A value that a request, a tenant or an experiment can set.

    The interval between two chunks grows from `flush_interval_ms[0]` to `flush_interval_ms[1]`
    during `warm_up_ms` from the first chunk on. Both 0 mean as fast as the writes go.
    """

    flush_interval_ms: tuple[int, int] = (50, 400)
    warm_up_ms: int = 3000
    boundary: Boundary = "natural"

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

    def due(self, held: str) -> float:
        """The time from which `held` may be written."""
        return self._due - self._interval * _EARLY if self.at_boundary(held) else self._due

    def at_boundary(self, held: str) -> bool:
        """Whether a chunk may end early here."""
        return self._pacing.boundary == "natural" and bool(_NATURAL.search(held[-16:]))

    def wrote(self, now: float) -> None:
        """A chunk's write began at `now`."""
        if self._first is None:
            self._first = self._due = now
        self._interval = self._pacing.interval_s(now - self._first)
        self._due = max(self._due, now) + self._interval
