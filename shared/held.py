"""What a model has said and nobody has written yet.

    model → within the tenant's budget → redaction → held → taken, a chunk at a time

The producer's two tasks meet here: one feeds deltas, the other takes what is due.
"""

import asyncio
import math

from shared.pacing import Pacer
from shared.redaction import PolicyViolation, Redactor

#: What may wait for its write; beyond it the model is not read further.
HELD_CHARS_MAX = 256 * 1024
#: The text of one record: at most 256 KB in UTF-8, where an item may have 400.
CHUNK_CHARS_MAX = 64 * 1024


class Held:
    """The text of one producer that waits for its write. Where `chars_max` is set it is the most
    that the model may say.
    """

    def __init__(self, redactor: Redactor, pacer: Pacer, chars_max: int | None) -> None:
        #: Set when there may be something due sooner than was thought; by the producer, too.
        self.changed = asyncio.Event()
        #: How much the model has said, before it was redacted.
        self.said_chars = 0
        self._redactor = redactor
        self._pacer = pacer
        self._chars_max = chars_max
        self._text = ""
        self._drained = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._text)

    def feed(self, delta: str) -> bool:
        """Take a delta in; whether there was room for all of it.

        Raises `PolicyViolation`, where what came before that may still be written.
        """
        room = math.inf if self._chars_max is None else self._chars_max - self.said_chars
        fits = len(delta) <= room
        delta = delta if fits else delta[: int(room)]
        self.said_chars += len(delta)
        self._let_through(delta)
        return fits

    def finish(self) -> None:
        """Hold what was kept back for what might have followed it. Raises as `feed` does."""
        self._let_through(None)

    def due(self) -> float:
        """When the next chunk may be written, in the event loop's time."""
        if not self._text:
            return math.inf
        return -math.inf if self._is_full else self._pacer.due(self._text)

    def take(self) -> str:
        """The next chunk."""
        text, self._text = self._text[:CHUNK_CHARS_MAX], self._text[CHUNK_CHARS_MAX:]
        self._drained.set()
        return text

    def give_back(self, text: str) -> None:
        """Hold again what was taken and not written."""
        self._text = text + self._text

    def discard(self) -> None:
        """Hold nothing any more."""
        self._text = ""
        self._drained.set()

    async def room(self) -> None:
        """Wait until more may be held."""
        while len(self._text) > HELD_CHARS_MAX:
            self._drained.clear()
            await self._drained.wait()

    @property
    def _is_full(self) -> bool:
        return len(self._text) >= CHUNK_CHARS_MAX

    def _let_through(self, delta: str | None) -> None:
        """What the redactor lets through of a delta; of the end, where there is none."""
        try:
            text = self._redactor.finish() if delta is None else self._redactor.feed(delta)
        except PolicyViolation as violation:
            self._hold(violation.text)
            raise
        self._hold(text)

    def _hold(self, text: str) -> None:
        """Hold text; wake the writer only where that may bring its next chunk forward."""
        if not text:
            return
        first = not self._text
        self._text += text
        if first or self._is_full or self._pacer.at_boundary(self._text):
            self.changed.set()
