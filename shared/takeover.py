"""Takeover: that somebody goes on with a stream whose producer is gone.

    dead        no record for too long   → vacant, by whoever notices first
    handed over by a producer in time    → vacant, by itself
    paused      → a grant, by who may    → vacant, by that grant

Behind a record that is vacant whoever appends the next epoch is the producer. The one whose record
it is has one launched, so that several who notice at once start one. Where that is lost, or the
launch is, the stream is dead again, and taken over again; not for ever.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from shared import trace
from shared.audit import Actor, Event
from shared.errors import Abandoned, Unavailable
from shared.lifecycle import Lifecycle
from shared.logger import logger
from shared.metrics import SUCCESSION
from shared.past import LOST, Past
from shared.records import Kind, Record, StreamKey

#: How often an answer may be handed on before its invocation ends: in all it may take three hours.
#: Lambda itself ends a chain of invocations at 16.
HANDOVERS_MAX = 12

#: How often a producer is launched again that has not come: for as long as Lambda keeps an event.
UNFILLED_MAX = 10

#: How long before its retention ends a stream is closed that still is not.
EXPIRY_MARGIN_S = 3600

#: Has a stream produced by somebody who does not hold the client's connection; or raises
#: `Unavailable`.
Launch = Callable[[StreamKey], Awaitable[None]]


class Takeovers:
    """Takes streams over. All but `hand_over` and `launch` raise `Unavailable` where the store
    fails.
    """

    def __init__(self, lifecycle: Lifecycle, launch: Launch) -> None:
        self.lifecycle = lifecycle
        self.log = lifecycle.log
        self._launch = launch

    async def settle(self, key: StreamKey) -> Record:
        """The newest record, behind which somebody goes on where the stream is not over."""
        newest = await self.log.tail(key)
        return await self.rescue(key, newest) if self.log.is_dead(newest) else newest

    async def rescue(self, key: StreamKey, newest: Record) -> Record:
        """Have somebody go on behind the newest record of a dead stream; or close it, where it was
        cancelled, or was taken over too often.

        Whoever is first wins: returns the record that holds the next slot.
        """
        records = await self.log.all_records(key)
        if records[-1].seq > newest.seq:
            return records[newest.seq + 1]
        past = Past.of(records)
        if newest.kind == Kind.PAUSE and not past.cancelled:
            return await self._park(key, newest)
        most = UNFILLED_MAX if newest.vacant else past.opened.body["takeovers"]
        if past.cancelled or (past.unfilled if newest.vacant else past.takeovers) >= most:
            return await self.lifecycle.close_abandoned(key, newest)
        vacant = self._behind(newest, Kind.VACANT, {"reason": LOST})
        holder = await self.lifecycle.append(key, vacant, Event.TAKEN_OVER, Actor())
        if holder.by == vacant.by:
            await self._taken_over(key, past.opened, died=not newest.vacant)
        return holder

    async def _taken_over(self, key: StreamKey, opened: Record, *, died: bool) -> None:
        """Have another producer come, in the stream's own trace; where none has come for a vacancy,
        none has died either.
        """
        noticer, spans = trace.here(), self.lifecycle.spans
        with trace.of_stream(opened.body), spans.span("take over", **key.names) as span:
            if span:
                span.link(noticer)
            logger.warning("taken over", extra={"stream": key.stream})
            self.lifecycle.metrics.tell(SUCCESSION, {"TakenOver": int(died)}, **key.names)
            await self.launch(key)

    async def tend(self, key: StreamKey, pause_s: float) -> str | None:
        """What a sweep does with a stream that is open: nothing where somebody goes on with it, or
        where it has been paused for no longer than `pause_s`.

        Returns what came of it: `taken over`, `parked`, `closed`, or None.
        """
        newest = await self.log.tail(key)
        now_ms = self.log.now_ms()
        forgotten = newest.parked and now_ms - newest.at > pause_s * 1000
        # Settled while its records are there: of what runs only what was resumed late is so old.
        expires = now_ms > (key.expires_at - EXPIRY_MARGIN_S) * 1000
        if newest.closes:
            return None
        if forgotten or expires:
            holder = await self.lifecycle.close_abandoned(key, newest, Abandoned())
        elif self.log.is_dead(newest):
            holder = await self.rescue(key, newest)
        else:
            return None
        if holder.closes:
            return "closed"
        came_of: Mapping[str, str] = {Kind.VACANT: "taken over", Kind.PAUSE: "parked"}
        return came_of.get(holder.kind)

    async def _park(self, key: StreamKey, pause: Record) -> Record:
        """Say that nobody waits for a grant any more: who grants it will have another producer."""
        parked = self._behind(pause, Kind.PAUSE, {**pause.body, "parked": True})
        return await self.lifecycle.append(key, parked, Event.PAUSED, Actor())

    def _behind(self, newest: Record, kind: Kind, body: Mapping[str, Any]) -> Record:
        log = self.log
        return Record(newest.seq + 1, kind, newest.epoch, log.now_ms(), log.new_writer(), body=body)

    async def hand_over(self, key: StreamKey) -> None:
        """Have another producer go on with a stream that its own has just left vacant."""
        await self.launch(key)
        self.lifecycle.metrics.tell(SUCCESSION, {"HandedOver": 1}, **key.names)

    async def launch(self, key: StreamKey) -> None:
        """Have a vacant stream produced. Where that fails, whoever notices it next does it."""
        try:
            await self._launch(key)
        except Unavailable:
            logger.warning("no producer was launched", extra={"stream": key.stream})
