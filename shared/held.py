"""What a model has said and nobody has written yet.

    model → within the tenant's budget → redaction → held → taken, a chunk at a time

The producer's two tasks meet here: one feeds deltas, the other takes what is due.
"""

import asyncio
import math

from shared.errors import ProviderFailed
from shared.models import Continuation
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
        #: How much the model has said to this producer, before it was redacted.
        self.said_chars = 0
        self._redactor = redactor
        self._pacer = pacer
        self._chars_max = chars_max
        self._text = ""
        #: What is not to be held when it is said again; and whether it must be.
        self._again = ""
        self._replays = False
        self._drained = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._text)

    @property
    def chars(self) -> int:
        """How much of it there is."""
        return len(self._text)

    def go_on(self, said: str, how: Continuation) -> None:
        """Go on behind what earlier producers have written, before the first delta.

        A replay is compared after it was redacted, as what was written is; redaction gives the
        same for every split. Raises `PolicyViolation`.
        """
        if how is Continuation.REPLAY:
            self._again, self._replays = said, True
            return
        self._redactor.go_on(said)
        if self._chars_max is not None:
            self._chars_max = max(self._chars_max - len(said), 0)
        if how is Continuation.PREFILL:
            # No provider takes white space at the end of it, so the model may say that again.
            self._again = said[len(said.rstrip()) :]

    def feed(self, delta: str) -> bool:
        """Take a delta in; whether there was room for all of it.

        Raises `PolicyViolation`, where what came before that may still be written; and
        `ProviderFailed` where a replay is not what was written: nothing more of it is held.
        """
        room = math.inf if self._chars_max is None else self._chars_max - self.said_chars
        fits = len(delta) <= room
        delta = delta if fits else delta[: int(room)]
        self.said_chars += len(delta)
        self._let_through(delta)
        return fits

    def finish(self, *, whole: bool) -> None:
        """Hold what was kept back for what might have followed it. Raises as `feed` does.

        Unless `whole` the model was cut off: in the midst of a replay, then, nothing is new.
        """
        if whole or not (self._replays and self._again):
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
        text = self._unsaid(text) if self._again else text
        if not text:
            return
        first = not self._text
        self._text += text
        if first or self._is_full or self._pacer.at_boundary(self._text):
            self.changed.set()

    def _unsaid(self, text: str) -> str:
        """What of a text was not written before."""
        shorter = min(len(text), len(self._again))
        same = next((i for i in range(shorter) if text[i] != self._again[i]), shorter)
        if self._replays and same < shorter:
            raise ProviderFailed(
                "The model did not repeat what it had said.", code="upstream", retryable=True
            )
        self._again = self._again[same:] if same == len(text) else ""
        return text[same:]
