"""The producer: turns a model's deltas into chunks and appends them.

It belongs to an invocation, not to a connection: when the client leaves, it goes on to the end.
Its answer reads the model into a bounded buffer; the producer takes what is there, writes it as one
record, and only then shows it to the followers (group commit: what arrives while a write is under
way goes into the next one).

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
from contextlib import suppress
from dataclasses import replace
from typing import Any

from shared.answer import Answer, End, Work
from shared.audit import Event
from shared.authority import Authority
from shared.errors import NotFound, OutOfTime, SluiceError, Unavailable
from shared.lifecycle import about_stream, who
from shared.live import Channel, Live
from shared.log import DEAD_AFTER_S, HEARTBEAT_S, PAUSE_S
from shared.metrics import PRODUCTION
from shared.models import Usage
from shared.pacing import Pacer
from shared.past import DEADLINE, QUOTA, SHUTDOWN, Past
from shared.permit import Permit
from shared.records import FENCING, FinishReason, Kind, Record, StreamKey
from shared.redaction.telling import tell_redactions
from shared.spans import Span
from shared.takeover import HANDOVERS_MAX, Takeovers

#: How long a write is tried again while the store does not answer. A producer that cannot write
#: for longer counts as dead.
STORE_BUDGET_S = DEAD_AFTER_S
#: What is left of an invocation when its producer hands the stream over.
DEADLINE_MARGIN_S = 20.0
#: For how long a producer writes no text that is asked to yield: ten times what a control takes.
YIELD_S = 0.25
#: How often a paused producer looks whether it may go on.
PAUSE_LOOK_S = 1.0
#: How long a producer that is being shut down may take to hand its stream over.
SHUTDOWN_S = 2.0


class _Over(Exception):
    """The stream has ended, has another producer, or waits for one: write nothing more."""


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
        #: Characters of text that this producer has appended.
        self.written_chars = 0
        self._takeovers = takeovers
        self._lifecycle = takeovers.lifecycle
        self._log = takeovers.log
        self._live = live
        self._past = work.past
        self._permit = Permit(authority, key.tenant, work.past.credential)
        self._pacer = Pacer(work.pacing)
        self._answer = Answer(work, self._pacer, self._lifecycle.spans)
        self._waits_for_more = work.pauses
        self._epoch = epoch
        self._by = by
        self._ends_at = math.inf if deadline is None else deadline - DEADLINE_MARGIN_S
        self._channel = Channel()
        self._seq = 0
        self._offered: Record | None = None
        self._last_write = self._yields_until = 0.0
        self._leaves = ""

    @property
    def error(self) -> SluiceError | None:
        """Why the stream failed, where it did."""
        return self._answer.error

    async def run(self, known: Sequence[Record]) -> None:
        """Produce to the end of the stream, going on after `known`: all its records so far.

        Returns when the stream is closed, by us or another, or is another's to go on with. Raises
        `Unavailable` when the store did not take a write within `STORE_BUDGET_S`.
        """
        spans, variant = self._lifecycle.spans, self._past.opened.body.get("variant")
        measured = spans.span("produce", epoch=self._epoch, variant=variant, **self.key.names)
        with self._live.producing(self.key) as self._channel, measured as span:
            self._last_write = asyncio.get_running_loop().time()
            try:
                for record in known:
                    self._channel.publish(record)
                self._seq = known[-1].seq + 1
                if any(record.kind == Kind.CANCEL for record in known):
                    self._answer.stop(End.CANCELLED)
                elif known[-1].by != self._by:
                    await self._begin(known)
                if self._answer.end is None:
                    self._answer.begin(self._past.said, self._channel)
                await self._write_text()
                await self._conclude()
            except (_Over, NotFound):
                pass
            except asyncio.CancelledError:
                await self._interrupted()
                raise
            finally:
                self.begun.set()
                await self._answer.close()
                self._tell(span)

    async def _begin(self, known: Sequence[Record]) -> None:
        """Take the stream over. What a producer before us has still written until then counts.

        Where whoever asked may not have it any more, no model is asked: it is left paused.
        """
        records = list(known)
        while not self._answer.stopped:
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

    async def _write_text(self) -> None:
        """Append what the model says, until there is no more to append."""
        while True:
            await self._something_due()
            if not self._answer.over:
                await self._permitted()
            if self._answer.over:
                return
            began = asyncio.get_running_loop().time()
            text = self._answer.held.take()
            kind = Kind.TEXT if text else Kind.HEARTBEAT
            holder = await self._offer(self._record(kind, text, body=self._tells(text)))
            if holder.by == self._by:
                self.written_chars += len(text)
                self._pacer.wrote(began)
                if text:
                    # Whose clock may have been ahead of ours.
                    self._answer.pulse.showed(max(self._log.now_ms() - self._past.opened.at, 0))
            else:
                # A control was faster: whether there may be more text is to be asked again.
                self._answer.held.give_back(text)

    async def _something_due(self) -> None:
        """Return when there is a chunk or a heartbeat to write, or the end has come."""
        loop = asyncio.get_running_loop()
        while self._answer.end is None:
            wake = min(self._last_write + HEARTBEAT_S, self._answer.held.due())
            wake = max(wake, self._yields_until)
            if loop.time() >= self._ends_at:
                self._leave(DEADLINE)
            elif loop.time() >= wake:
                return
            else:
                self._answer.held.changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(wake, self._ends_at)):
                        await self._answer.held.changed.wait()

    async def _permitted(self) -> None:
        """Return when the next record may be written: after a pause, where that was needed."""
        reason = await self._permit.ended()
        if reason is None and self._permit.notice_due():
            await self._append(Kind.EXPIRING, {"expires_at": self._permit.expires_at})
            reason = await self._permit.ended()
        while reason and not self._answer.stopped:
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
            body = {"reason": reason, "parked": True, "unsent_chars": self._answer.held.chars}
            parked = self._record(Kind.PAUSE, body=body)
            if (await self._offer(parked)).by == self._by:
                raise _Over
        self._last_write = loop.time()
        self._answer.pulse.rested()

    async def _granted(self, until: float) -> bool:
        """Look at the log until it lets us go on or ends us, or it is too late."""
        loop = asyncio.get_running_loop()
        while not self._answer.stopped:
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

    def _tell(self, span: Span | None) -> None:
        """Tell how the answer went, as far as it was this producer's."""
        if span:
            span.attributes["sluice.end"] = (
                self._answer.end.name.lower() if self._answer.end else ""
            )
            span.failed = self.error.slug if self.error else ""
            if self._leaves:
                span.event("leaving", reason=self._leaves)
        metrics, about = self._lifecycle.metrics, about_stream(self.key, self._past.opened)
        tokens = self._answer.usage.output_tokens
        figures = self._answer.pulse.figures(tokens, begins=not self._past.said)
        metrics.tell(PRODUCTION, figures, **about)
        tell_redactions(metrics, self._answer.redactions, **about)

    def _leave(self, why: str) -> None:
        """Have another producer go on; not for ever, as a model may never come to an end."""
        if self._past.handovers >= HANDOVERS_MAX:
            self._answer.halt(End.FAILED, OutOfTime())
        else:
            self._leaves = why
            self._answer.halt(End.LEFT)

    async def _append(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Write one record into the next free slot; nothing once a control has stopped us."""
        holder = None
        while not (holder and holder.by == self._by) and not self._answer.stopped:
            holder = await self._offer(self._record(kind, body=body))

    async def _conclude(self) -> None:
        """Write the last record that is ours to write."""
        if self._answer.end is End.LEFT:
            await self._append(Kind.VACANT, {"reason": self._leaves})
            if self._answer.end is End.LEFT:
                await self._takeovers.hand_over(self.key)
                return
        if self._waits_for_more and self._answer.reason == FinishReason.QUOTA:
            await self._append(Kind.PAUSE, {"reason": QUOTA, "parked": True})
            if not self._answer.stopped:
                return
        if self._answer.end is not End.PAUSED:
            await self._close()

    async def _close(self) -> None:
        holder = None
        while not (holder and holder.by == self._by):
            body = self._answer.closing(self._usage_before())
            holder = await self._offer(self._record(Kind.CLOSED, body=body))

    def _usage_before(self) -> Usage:
        return Usage(0, 0) if self._past.opened.by == self._by else self._past.usage

    def _tells(self, text: str) -> dict[str, Any]:
        """What our first chunk tells whoever may have to go on: which model has begun."""
        first = text and not self.written_chars
        return {"model": self._answer.stand_in} if first and self._answer.stand_in else {}

    def _continuation(self) -> dict[str, Any]:
        """What the first record of an epoch tells of the seam, where there is one."""
        return {"continuation": self._answer.continuation} if self._past.said else {}

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
            self._answer.halt(End.CANCELLED)
        elif record.kind == Kind.YIELD:
            self._yields_until = asyncio.get_running_loop().time() + YIELD_S
        elif record.kind == Kind.GRANT:
            self._permit.renew(record.body)
            self._past = self._past.with_grant(record)
        elif record.parked and self._has_more:
            self._answer.halt(End.PAUSED)

    @property
    def _has_more(self) -> bool:
        """Whether there is more to write than the end, by us or by whoever goes on."""
        offered = self._offered is not None and bool(self._offered.text)
        return self._answer.end in (None, End.LEFT) or bool(self._answer.held) or offered

    async def _interrupted(self) -> None:
        """Our process is told to stop: hand over, if there is time for it."""
        with suppress(_Over, NotFound, Unavailable, TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                if offered := self._offered:
                    # It may have been written: only the same record may be offered for its slot.
                    holder = await self._offer(offered)
                    if holder.by != self._by:
                        self._answer.held.give_back(offered.text)
                    elif offered.closes or offered.parked:
                        return None
                    else:
                        self.written_chars += len(offered.text)
                newest = self._channel.head
                if newest and newest.vacant and newest.by == self._by:
                    return await self._takeovers.hand_over(self.key)
                self._ends_at = asyncio.get_running_loop().time()
                self._leave(SHUTDOWN)
                await self._write_text()
                await self._conclude()
        return None


#: What of our own records the audit tells.
_AUDITED: Mapping[str, Event] = {Kind.PAUSE: Event.PAUSED, Kind.VACANT: Event.TAKEN_OVER}
