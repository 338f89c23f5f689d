"""The producer: turns a model's deltas into chunks and appends them.

It belongs to an invocation, not to a connection: when the client leaves, it goes on to the end.
Two tasks share a bounded buffer. One reads the model into it; the other takes what is there, writes
it as one record, and only then shows it to the followers (group commit: what arrives while a write
is under way goes into the next one).

    model → held deltas → pacing → append → every follower here

Whatever takes a slot before us is read from the refused write itself: a control is obeyed, a
successor or the end of the stream stops us at once, a late write of a predecessor is skipped.
"""

import asyncio
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict
from enum import Enum, auto
from typing import Any

from shared.errors import Interrupted, OutOfTime, ProviderFailed, SluiceError, Unavailable
from shared.live import Channel, Live
from shared.log import DEAD_AFTER_S, HEARTBEAT_S, Log, closing
from shared.logger import logger
from shared.models import Ask, Finish, Provider, estimate
from shared.pacing import Pacer, Pacing
from shared.records import PRODUCED, FinishReason, Kind, Record, Status, StreamKey

#: What may wait for its write; beyond it the model is not read further.
HELD_CHARS_MAX = 256 * 1024
#: The text of one record: at most 256 KB in UTF-8, where an item may have 400.
CHUNK_CHARS_MAX = 64 * 1024
#: How long a write is tried again while the store does not answer. A producer that cannot write
#: for longer counts as dead.
STORE_BUDGET_S = DEAD_AFTER_S
#: What is left of an invocation when its producer ends the stream for want of time.
DEADLINE_MARGIN_S = 10.0
#: How long a producer that is being shut down may take to say so in the log.
SHUTDOWN_S = 2.0


class _Fenced(Exception):
    """The stream has ended or has another producer: write nothing more."""


class _End(Enum):
    """Why there will be no more text."""

    FINISHED = auto()
    CANCELLED = auto()
    FAILED = auto()


class Producer:
    """Produces one stream in one epoch, with writer's name `by`.

    `deadline` is when the invocation ends, in the event loop's time. Call `run()` once.
    """

    def __init__(
        self,
        log: Log,
        live: Live,
        key: StreamKey,
        *,
        provider: Provider,
        ask: Ask,
        pacing: Pacing,
        throttle: bool,
        epoch: int,
        by: str,
        deadline: float | None = None,
    ) -> None:
        self.key = key
        #: Set when there is more than `opened` to see, or nothing more to wait for.
        self.begun = asyncio.Event()
        #: Why the stream failed, where it did.
        self.error: SluiceError | None = None
        #: Characters of text that this producer has appended.
        self.written_chars = 0
        self._log = log
        self._live = live
        self._provider = provider
        self._ask = ask
        self._pacer = Pacer(pacing)
        self._throttle = throttle
        self._epoch = epoch
        self._by = by
        self._ends_at = math.inf if deadline is None else deadline - DEADLINE_MARGIN_S
        self._channel = Channel()
        self._seq = 0
        self._offered: Record | None = None
        self._last_write = 0.0
        self._held = ""
        self._reader: asyncio.Task[None] | None = None
        self._finish: Finish | None = None
        self._end: _End | None = None
        #: Set when the text held, or the end, has changed; and when the text held has become less.
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()

    async def run(self, known: Sequence[Record]) -> None:
        """Produce to the end of the stream, going on after `known`: all its records so far.

        Returns when the stream is closed, by us or another, or is another's to produce. Raises
        `Unavailable` when the store did not take a write within `STORE_BUDGET_S`.
        """
        with self._live.producing(self.key) as self._channel:
            self._last_write = asyncio.get_running_loop().time()
            try:
                for record in known:
                    self._accept(record)
                if not any(record.by == self._by for record in known):
                    await self._append(Kind.EPOCH)
                if self._end is None:
                    self._reader = asyncio.create_task(self._read_model())
                await self._write_text()
                await self._close()
            except _Fenced:
                pass
            except asyncio.CancelledError:
                await self._interrupted()
                raise
            finally:
                self.begun.set()
                if self._reader:
                    self._reader.cancel()
                    await asyncio.gather(self._reader, return_exceptions=True)

    async def _read_model(self) -> None:
        """Read the model into the text held, never further ahead than may be held."""
        try:
            async with aclosing(self._provider.stream(self._ask)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, Finish):
                        self._finish = delta
                        self._stop(_End.FINISHED)
                        return
                    self._hold(delta)
                    await self._room()
            raise ProviderFailed("The model's answer broke off.", code="cut", retryable=True)
        except SluiceError as error:
            self._stop(_End.FAILED, error)
        except Exception as error:  # noqa: BLE001 - whatever a provider does, the stream must end
            logger.error("provider raised", extra={"error": type(error).__name__})
            self._stop(_End.FAILED, SluiceError())

    def _hold(self, delta: str) -> None:
        """Hold a delta; wake the writer only where that may bring its next chunk forward."""
        first = not self._held
        self._held += delta
        full = len(self._held) >= CHUNK_CHARS_MAX
        if first or full or self._pacer.at_boundary(self._held):
            self._changed.set()

    async def _room(self) -> None:
        while len(self._held) > HELD_CHARS_MAX:
            self._drained.clear()
            await self._drained.wait()
        if self._throttle:
            await self._channel.room()

    async def _write_text(self) -> None:
        """Append what the model says, until there is no more to append."""
        while True:
            await self._something_due()
            if self._end is _End.CANCELLED or (self._end and not self._held):
                return
            text, self._held = self._held[:CHUNK_CHARS_MAX], self._held[CHUNK_CHARS_MAX:]
            self._drained.set()
            if text:
                self._pacer.wrote(asyncio.get_running_loop().time())
                await self._append(Kind.TEXT, text)
            else:
                await self._append(Kind.HEARTBEAT)

    async def _something_due(self) -> None:
        """Return when there is a chunk or a heartbeat to write, or the end has come."""
        loop = asyncio.get_running_loop()
        while self._end is None:
            wake = self._last_write + HEARTBEAT_S
            if self._held:
                full = len(self._held) >= CHUNK_CHARS_MAX
                wake = -math.inf if full else min(wake, self._pacer.due(self._held))
            if loop.time() >= self._ends_at:
                self._halt(_End.FAILED, OutOfTime())
            elif loop.time() >= wake:
                return
            else:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(wake, self._ends_at)):
                        await self._changed.wait()

    def _stop(self, end: _End, error: SluiceError | None = None) -> None:
        # What came first stands; but a cancel is in the log, before whatever else would be.
        if self._end is None or end is _End.CANCELLED:
            self._end, self.error = end, error
        self._changed.set()

    def _halt(self, end: _End, error: SluiceError | None = None) -> None:
        """Stop, and the model too: it may be faster than our writes, and never end."""
        self._stop(end, error)
        if self._reader:
            self._reader.cancel()

    async def _append(self, kind: Kind, text: str = "") -> None:
        """Write one record into the next free slot; nothing when the stream turns out cancelled."""
        holder = None
        while not (holder and holder.by == self._by) and self._end is not _End.CANCELLED:
            holder = await self._offer(self._record(kind, text=_storable(text)))
        if holder and holder.by == self._by:
            self.written_chars += len(text)

    async def _close(self) -> None:
        holder = None
        while not (holder and holder.by == self._by):
            holder = await self._offer(self._record(Kind.CLOSED, body=self._closing()))

    def _closing(self) -> dict[str, Any]:
        told = self._finish.usage if self._finish else None
        usage = asdict(told or estimate(self._ask, self.written_chars))
        if self._end is _End.CANCELLED:
            return closing(Status.CANCELLED, FinishReason.CANCELLED, usage=usage)
        if self._end is _End.FAILED or self._finish is None:
            error = (self.error or SluiceError()).brief()
            return closing(Status.FAILED, FinishReason.ERROR, usage=usage, error=error)
        return closing(Status.COMPLETED, self._finish.reason, usage=usage)

    def _record(
        self, kind: Kind, *, text: str = "", body: Mapping[str, Any] | None = None
    ) -> Record:
        return Record(
            seq=self._seq,
            kind=kind,
            epoch=self._epoch,
            at=self._log.now_ms(),
            by=self._by,
            text=text,
            body=body or {},
        )

    async def _offer(self, record: Record) -> Record:
        """Offer one record for its slot until it is known who holds it, and take that in."""
        write = self._log.close if record.closes else self._log.append
        loop = asyncio.get_running_loop()
        give_up = min(loop.time() + STORE_BUDGET_S, self._ends_at + DEADLINE_MARGIN_S)
        self._offered, self._last_write = record, loop.time()
        for attempt in itertools.count():
            try:
                holder = await write(self.key, record)
                break
            except Unavailable:
                if loop.time() >= give_up:
                    raise
                await asyncio.sleep(random.uniform(0, min(0.05 * 2**attempt, 2)))  # noqa: S311
        self._offered = None
        self._accept(holder)
        return holder

    def _accept(self, record: Record) -> None:
        """Take in the record that holds the next slot. Raises `_Fenced` where we must stop."""
        self._seq = record.seq + 1
        self._channel.publish(record)
        if record.kind not in (Kind.OPENED, Kind.EPOCH):
            self.begun.set()
        if record.by == self._by:
            return
        if record.closes or (record.kind in PRODUCED and record.epoch >= self._epoch):
            raise _Fenced
        if record.kind == Kind.CANCEL:
            self._halt(_End.CANCELLED)

    async def _interrupted(self) -> None:
        """Our process is told to stop: say so in the log, if there is time for it."""
        with suppress(_Fenced, Unavailable, TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                if offered := self._offered:
                    # It may have been written: only the same record may be offered for its slot.
                    holder = await self._offer(offered)
                    if holder.closes:
                        return
                    if holder.by == self._by:
                        self.written_chars += len(offered.text)
                    else:
                        self._held = offered.text + self._held
                self._halt(_End.FAILED, Interrupted())
                await self._write_text()
                await self._close()


def _storable(text: str) -> str:
    """The text in UTF-8's reach: halves of a pair joined, a half that stands alone replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
