"""The producer: turns a model's deltas into chunks and appends them.

It belongs to an invocation, not to a connection: when the client leaves, it goes on to the end.
Two tasks share a bounded buffer. One reads the model into it; the other takes what is there, writes
it as one record, and only then shows it to the followers (group commit: what arrives while a write
is under way goes into the next one).

    model → redaction → held text → pacing → append → every follower here

Before each write it is checked that whoever asked may still have it; where not, the stream is
paused until somebody who may grants it: for as long as its model can be kept waiting by us, and
after that by a producer of the next epoch.

Whatever takes a slot before us is read from the refused write itself: a control is obeyed, a
successor or the end of the stream stops us at once, a late write of a predecessor is skipped.

Before its invocation ends, and when its process is told to stop, a producer writes what it holds,
leaves the stream vacant, and has another one go on.
"""

import asyncio
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum, auto
from typing import Any

from shared.audit import Event
from shared.authority import Authority
from shared.errors import (
    NotFound,
    OutOfTime,
    ProviderFailed,
    SluiceError,
    Unavailable,
)
from shared.held import Held
from shared.lifecycle import who
from shared.live import Channel, Live
from shared.log import DEAD_AFTER_S, HEARTBEAT_S, PAUSE_S, closing
from shared.logger import logger
from shared.models import Ask, Finish, Usage, continued, estimate
from shared.models.fallback import Fallback
from shared.pacing import Pacer, Pacing
from shared.past import DEADLINE, QUOTA, SHUTDOWN, Past
from shared.permit import Permit
from shared.records import FENCING, FinishReason, Kind, Record, Status, StreamKey
from shared.redaction import PolicyViolation, Redactor
from shared.takeover import HANDOVERS_MAX, Takeovers

#: How long a write is tried again while the store does not answer. A producer that cannot write
#: for longer counts as dead.
STORE_BUDGET_S = DEAD_AFTER_S
#: What is left of an invocation when its producer hands the stream over.
DEADLINE_MARGIN_S = 20.0
#: How often a paused producer looks whether it may go on.
PAUSE_LOOK_S = 1.0
#: How long a producer that is being shut down may take to hand its stream over.
SHUTDOWN_S = 2.0


class _Over(Exception):
    """The stream has ended, has another producer, or waits for one: write nothing more."""


class _End(Enum):
    """Why there will be no more text."""

    FINISHED = auto()
    CANCELLED = auto()
    FAILED = auto()
    #: The answer has come to its bound.
    LENGTH = auto()
    #: The tenant's rules do not let the answer go on.
    POLICY = auto()
    #: Somebody has paused it.
    PAUSED = auto()
    #: Another producer is to go on.
    LEFT = auto()


#: What a control has asked for: nothing is written that the model may have said beyond it.
_STOPPED = (_End.CANCELLED, _End.PAUSED)


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to produce: the stream's past, and what its tenant has made of it.

    Where tokens are limited `chars_max` is the most that the model may say. `short` is whether the
    tenant's budget leaves less than was asked for, and `pauses` whether the stream then waits for
    more.
    """

    past: Past
    model: Fallback
    ask: Ask
    redactor: Redactor
    pacing: Pacing
    throttle: bool
    chars_max: int | None = None
    short: bool = False
    pauses: bool = False


class Producer:
    """Produces one stream in one epoch, with writer's name `by`.

    `deadline` is when the invocation ends, in the event loop's time. Call `run()` once.
    """

    def __init__(
        self,
        takeovers: Takeovers,
        authority: Authority,
        live: Live,
        key: StreamKey,
        work: Work,
        *,
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
        self._takeovers = takeovers
        self._lifecycle = takeovers.lifecycle
        self._log = takeovers.log
        self._live = live
        self._work = work
        self._past = work.past
        self._ask = replace(work.ask, said=work.past.said)
        self._permit = Permit(authority, key.tenant, work.past.credential)
        self._pacer = Pacer(work.pacing)
        self._held = Held(work.redactor, self._pacer, work.chars_max)
        self._epoch = epoch
        self._by = by
        self._ends_at = math.inf if deadline is None else deadline - DEADLINE_MARGIN_S
        self._channel = Channel()
        self._seq = 0
        self._offered: Record | None = None
        self._last_write = 0.0
        self._reader: asyncio.Task[None] | None = None
        self._finish: Finish | None = None
        self._end: _End | None = None
        self._leaves = ""

    async def run(self, known: Sequence[Record]) -> None:
        """Produce to the end of the stream, going on after `known`: all its records so far.

        Returns when the stream is closed, by us or another, or is another's to go on with. Raises
        `Unavailable` when the store did not take a write within `STORE_BUDGET_S`.
        """
        with self._live.producing(self.key) as self._channel:
            self._last_write = asyncio.get_running_loop().time()
            try:
                for record in known:
                    self._channel.publish(record)
                self._seq = known[-1].seq + 1
                if any(record.kind == Kind.CANCEL for record in known):
                    self._stop(_End.CANCELLED)
                elif known[-1].by != self._by:
                    await self._begin(known)
                if self._end is None:
                    self._reader = asyncio.create_task(self._read_model())
                await self._write_text()
                await self._conclude()
            except (_Over, NotFound):
                pass
            except asyncio.CancelledError:
                await self._interrupted()
                raise
            finally:
                self.begun.set()
                if self._reader:
                    self._reader.cancel()
                    await asyncio.gather(self._reader, return_exceptions=True)

    async def _begin(self, known: Sequence[Record]) -> None:
        """Take the stream over. What a producer before us has still written until then counts.

        Where whoever asked may not have it any more, no model is asked: it is left paused.
        """
        records = list(known)
        while self._end not in _STOPPED:
            if reason := await self._permit.ended():
                body = {"reason": reason, "parked": True}
                first = replace(self._record(Kind.PAUSE, body=body), epoch=self._epoch - 1)
            else:
                first = self._record(Kind.EPOCH, body=self._continuation())
            holder = await self._offer(first)
            if holder.by == self._by:
                if reason:
                    raise _Over
                return
            records.append(holder)
            self._past = Past.of(records)
            self._ask = replace(self._ask, said=self._past.said)

    async def _read_model(self) -> None:
        """Read the model into the text held, never further ahead than may be held."""
        goes_on = bool(self._ask.said)
        try:
            async with aclosing(self._work.model.stream(self._ask)) as deltas:
                async for delta in deltas:
                    if goes_on:
                        goes_on = False
                        self._go_on()
                    if isinstance(delta, Finish):
                        self._finish = delta
                        self._stop(_End.FINISHED)
                    elif not self._end:
                        self._take(delta)
                    if self._end:
                        return
                    await self._held.room()
                    if self._work.throttle:
                        await self._channel.room()
            raise ProviderFailed("The model's answer broke off.", code="cut", retryable=True)
        except SluiceError as error:
            self._stop(_End.FAILED, error)
        except Exception as error:  # noqa: BLE001 - whatever a provider does, the stream must end
            logger.error("provider raised", extra={"error": type(error).__name__})
            self._stop(_End.FAILED, SluiceError())

    def _go_on(self) -> None:
        """Go on behind what was said before, as the model that answers does."""
        try:
            self._held.go_on(self._ask.said, self._work.model.continuation)
        except PolicyViolation:
            self._stop(_End.POLICY)

    def _take(self, delta: str) -> None:
        """Take a delta in, as far as the tenant's budget and rules let it."""
        try:
            if not self._held.feed(delta):
                self._stop(_End.LENGTH)
        except PolicyViolation:
            self._stop(_End.POLICY)

    async def _write_text(self) -> None:
        """Append what the model says, until there is no more to append."""
        while True:
            await self._something_due()
            if not self._over:
                await self._permitted()
            if self._over:
                return
            began = asyncio.get_running_loop().time()
            text = self._held.take()
            kind = Kind.TEXT if text else Kind.HEARTBEAT
            holder = await self._offer(self._record(kind, text, body=self._tells(text)))
            if holder.by == self._by:
                self.written_chars += len(text)
                self._pacer.wrote(began)
            else:
                # A control was faster: whether there may be more text is to be asked again.
                self._held.give_back(text)

    @property
    def _over(self) -> bool:
        """Whether there is nothing left to write but the end."""
        return self._end in _STOPPED or (self._end is not None and not self._held)

    async def _something_due(self) -> None:
        """Return when there is a chunk or a heartbeat to write, or the end has come."""
        loop = asyncio.get_running_loop()
        while self._end is None:
            wake = min(self._last_write + HEARTBEAT_S, self._held.due())
            if loop.time() >= self._ends_at:
                self._leave(DEADLINE)
            elif loop.time() >= wake:
                return
            else:
                self._held.changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(wake, self._ends_at)):
                        await self._held.changed.wait()

    async def _permitted(self) -> None:
        """Return when the next record may be written: after a pause, where that was needed."""
        reason = await self._permit.ended()
        if reason is None and self._permit.notice_due():
            await self._append(Kind.EXPIRING, {"expires_at": self._permit.expires_at})
            reason = await self._permit.ended()
        while reason and self._end not in _STOPPED:
            pause = self._record(Kind.PAUSE, body={"reason": reason, "parked": False})
            if (await self._offer(pause)).by == self._by:
                return await self._paused(reason)
            reason = await self._permit.ended()
        return None

    async def _paused(self, reason: str) -> None:
        """Return when there is a grant, or an end. Who has waited for too long leaves: what is held
        was never sent, and will be said again.
        """
        loop = asyncio.get_running_loop()
        give_up = min(loop.time() + PAUSE_S, self._ends_at)
        while not await self._granted(give_up):
            body = {"reason": reason, "parked": True, "unsent_chars": self._held.chars}
            parked = self._record(Kind.PAUSE, body=body)
            if (await self._offer(parked)).by == self._by:
                raise _Over
        self._last_write = loop.time()

    async def _granted(self, until: float) -> bool:
        """Look at the log until it lets us go on or ends us, or it is too late."""
        loop = asyncio.get_running_loop()
        while self._end not in _STOPPED:
            with suppress(Unavailable):
                if await self._permit.ended() is None:
                    return True
            if loop.time() >= until:
                return False
            await asyncio.sleep(PAUSE_LOOK_S)
            with suppress(Unavailable):
                for record in (await self._log.read(self.key, self._seq - 1)).records:
                    self._accept(record)
        return True

    def _leave(self, why: str) -> None:
        """Have another producer go on; not for ever, as a model may never come to an end."""
        if self._past.handovers >= HANDOVERS_MAX:
            self._halt(_End.FAILED, OutOfTime())
        else:
            self._leaves = why
            self._halt(_End.LEFT)

    def _stop(self, end: _End, error: SluiceError | None = None) -> None:
        # What came first stands; but a control is in the log, before whatever else would be.
        if end in _STOPPED:
            self._end, self.error = end, None
        elif self._end is None:
            self._end, self.error = end, error
            # What is kept back by the redaction is not written by who leaves: it may be half of a
            # value, and whoever goes on will see all of it.
            if end not in (_End.POLICY, _End.LEFT):
                self._flush()
        self._held.changed.set()

    def _flush(self) -> None:
        """Let through what was kept back for what might have followed it."""
        try:
            self._held.finish(whole=self._end is _End.FINISHED)
        except PolicyViolation:
            self._end, self.error = _End.POLICY, None
        except ProviderFailed as error:
            self._end, self.error = _End.FAILED, error

    def _halt(self, end: _End, error: SluiceError | None = None) -> None:
        """Stop, and the model too: it may be faster than our writes, and never end."""
        self._stop(end, error)
        if self._reader:
            self._reader.cancel()

    async def _append(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Write one record into the next free slot; nothing once a control has stopped us."""
        holder = None
        while not (holder and holder.by == self._by) and self._end not in _STOPPED:
            holder = await self._offer(self._record(kind, body=body))

    async def _conclude(self) -> None:
        """Write the last record that is ours to write."""
        if self._end is _End.LEFT:
            await self._append(Kind.VACANT, {"reason": self._leaves})
            if self._end is _End.LEFT:
                await self._takeovers.launch(self.key)
                return
        if self._work.pauses and self._reason() == FinishReason.QUOTA:
            await self._append(Kind.PAUSE, {"reason": QUOTA, "parked": True})
            if self._end not in _STOPPED:
                return
        if self._end is not _End.PAUSED:
            await self._close()

    async def _close(self) -> None:
        holder = None
        while not (holder and holder.by == self._by):
            holder = await self._offer(self._record(Kind.CLOSED, body=self._closing()))

    def _closing(self) -> dict[str, Any]:
        usage = asdict(self._usage_before() + self._usage())
        answered_by = self._work.model.model if self._is_fallback else None
        if self._end is _End.CANCELLED:
            return closing(Status.CANCELLED, FinishReason.CANCELLED, usage=usage, model=answered_by)
        if reason := self._reason():
            return closing(Status.COMPLETED, reason, usage=usage, model=answered_by)
        error = (self.error or SluiceError()).brief()
        return closing(
            Status.FAILED, FinishReason.ERROR, usage=usage, error=error, model=answered_by
        )

    def _reason(self) -> str | None:
        """Why a stream that did not fail has ended."""
        if self._end is _End.POLICY:
            return FinishReason.POLICY
        said = self._finish.reason if self._finish else FinishReason.LENGTH
        if self._end not in (_End.FINISHED, _End.LENGTH):
            return None
        return FinishReason.QUOTA if said == FinishReason.LENGTH and self._work.short else said

    def _usage_before(self) -> Usage:
        return Usage(0, 0) if self._past.opened.by == self._by else self._past.usage

    def _usage(self) -> Usage:
        """What this producer has used."""
        if self._finish and self._finish.usage:
            return self._finish.usage
        if self._reader is None or (self._end is _End.FAILED and not self._held.said_chars):
            return Usage(0, 0)
        asked = continued(self._ask, self._work.model.continuation)
        return estimate(asked, self._held.said_chars)

    @property
    def _is_fallback(self) -> bool:
        """Whether the model that answers is not the one that was asked for."""
        return self._work.model.model != self._ask.model

    def _tells(self, text: str) -> dict[str, Any]:
        """What our first chunk tells whoever may have to go on: which model has begun."""
        first = text and not self.written_chars
        return {"model": self._work.model.model} if first and self._is_fallback else {}

    def _continuation(self) -> dict[str, Any]:
        """What the first record of an epoch tells of the seam, where there is one."""
        return {"continuation": self._work.model.continuation} if self._ask.said else {}

    def _record(
        self, kind: Kind, text: str = "", *, body: Mapping[str, Any] | None = None
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
        loop = asyncio.get_running_loop()
        give_up = min(loop.time() + STORE_BUDGET_S, self._ends_at + DEADLINE_MARGIN_S)
        self._offered, self._last_write = record, loop.time()
        for attempt in itertools.count():
            try:
                holder = await self._write(record)
                break
            except Unavailable:
                if loop.time() >= give_up:
                    raise
                await asyncio.sleep(random.uniform(0, min(0.05 * 2**attempt, 2)))  # noqa: S311
        try:
            self._accept(holder)
        finally:
            self._offered = None
        return holder

    async def _write(self, record: Record) -> Record:
        if record.closes:
            return await self._lifecycle.close(self.key, self._past, record)
        if event := _AUDITED.get(record.kind):
            actor = who(self._past.opened)
            return await self._lifecycle.append(self.key, record, event, actor)
        return await self._log.append(self.key, record)

    def _accept(self, record: Record) -> None:
        """Take in the record that holds the next slot. Raises `_Over` where we must stop."""
        if record.kind == Kind.ERASED:
            raise _Over
        self._seq = record.seq + 1
        self._channel.publish(record)
        if record.kind not in (Kind.OPENED, Kind.EPOCH):
            self.begun.set()
        if record.by == self._by:
            return
        if record.closes or (record.kind in FENCING and record.epoch >= self._epoch):
            raise _Over
        if record.kind == Kind.CANCEL:
            self._halt(_End.CANCELLED)
        elif record.kind == Kind.GRANT:
            self._permit.renew(record.body)
            self._past = self._past.with_grant(record)
        elif record.parked and self._has_more:
            self._halt(_End.PAUSED)

    @property
    def _has_more(self) -> bool:
        """Whether there is more to write than the end, by us or by whoever goes on."""
        offered = self._offered is not None and bool(self._offered.text)
        return self._end in (None, _End.LEFT) or bool(self._held) or offered

    async def _interrupted(self) -> None:
        """Our process is told to stop: hand over, if there is time for it."""
        with suppress(_Over, NotFound, Unavailable, TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                if offered := self._offered:
                    # It may have been written: only the same record may be offered for its slot.
                    holder = await self._offer(offered)
                    if holder.by != self._by:
                        self._held.give_back(offered.text)
                    elif offered.kind == Kind.VACANT:
                        return await self._takeovers.launch(self.key)
                    elif offered.closes or offered.parked:
                        return None
                    else:
                        self.written_chars += len(offered.text)
                self._ends_at = asyncio.get_running_loop().time()
                self._leave(SHUTDOWN)
                await self._write_text()
                await self._conclude()
        return None


#: What of our own records the audit tells.
_AUDITED: Mapping[str, Event] = {Kind.PAUSE: Event.PAUSED, Kind.VACANT: Event.TAKEN_OVER}
