"""Erasure: what is held of a stream, a user or a tenant goes; that it was there stays in the audit.

    mark    the stream's summary leaves every list, with its entry of the audit and a job, at once
    shell   each record is overwritten by one that holds nothing, and expires a day later
    done    the job goes where its state can be read for a while

Records are overwritten and not deleted: a producer that has slept through it all must still find
its slot taken. What is half done is found by its job, and doing it again changes nothing.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from shared.audit import Actor, Chain, Event
from shared.audit.trail import Audit
from shared.errors import NotFound, Unavailable
from shared.lifecycle import Lifecycle
from shared.log import SUMMARY_SEQ
from shared.records import DAY_S, ERASED_EPOCH, Item, Kind, Record, StreamKey
from shared.schema import STREAMS, SUMMARY, TENANTS
from shared.table import Delete, Put, Query, Update

#: For how long an overwritten record holds its slot: longer than any producer can sleep.
SHELL_RETENTION_S = DAY_S
#: For how long the state of an erasure that is done can be read.
DONE_RETENTION_S = 30 * DAY_S
#: An index lags behind: who finds nothing left of a user looks again after this.
INDEX_LAG_S = 60.0
END_TRIES_MAX = 10
BATCH = 25
PAGE = 100

_PENDING = "#erasures"
_HIDDEN = ("tenant", "stream", "owner", *(name for name in SUMMARY if name != "last_seq"))


@dataclass(frozen=True, slots=True)
class Erasure:
    """A job: to erase one `stream`, or all streams of a `user`, or of the tenant where neither is.

    `created_at` is in ms since 1970: streams that begin later are not meant. `streams` counts what
    was erased so far.
    """

    tenant: str
    id: str
    created_at: int
    stream: str | None = None
    user: str | None = None
    streams: int = 0
    done_at: int | None = None

    @property
    def key(self) -> Item:
        return {"pk": _PENDING, "what": f"{self.tenant}#{self.id}"}

    def to_item(self) -> Item:
        item: Item = {**self.key, "created_at": self.created_at, "streams": self.streams}
        for name in ("stream", "user", "done_at"):
            if (value := getattr(self, name)) is not None:
                item[name] = value
        return item

    @classmethod
    def from_item(cls, item: Item) -> Self:
        tenant, _, job = str(item["what"]).partition("#")
        return cls(
            tenant=tenant,
            id=job,
            created_at=int(item["created_at"]),
            stream=str(item["stream"]) if "stream" in item else None,
            user=str(item["user"]) if "user" in item else None,
            streams=int(item["streams"]),
            done_at=int(item["done_at"]) if "done_at" in item else None,
        )


class Erasures:
    """Begins erasures and carries them on. `now` is the wall clock, in s.

    Every method raises `Unavailable` where the store does not answer; then the job is still there.
    """

    def __init__(
        self, lifecycle: Lifecycle, audit: Audit, *, now: Callable[[], float] = time.time
    ) -> None:
        self._lifecycle = lifecycle
        self._log = lifecycle.log
        self._store = lifecycle.store
        self._audit = audit
        self._now = now

    async def begin(
        self, tenant: str, actor: Actor, *, stream: str | None = None, user: str | None = None
    ) -> Erasure:
        """Take a job on: from here on it will be done. Raises `NotFound` for an unknown stream."""
        job = Erasure(
            tenant=tenant,
            id=stream or secrets.token_hex(12),
            created_at=int(self._now() * 1000),
            stream=stream,
            user=user,
        )
        if stream is not None:
            await self._end(StreamKey(tenant, stream), actor)
        held = await self._store.write(Put(TENANTS, job.to_item()))
        return Erasure.from_item(held) if held else job

    async def find(self, tenant: str, job_id: str) -> Erasure:
        """The state of a job. Raises `NotFound`."""
        for pk, what in ((_PENDING, f"{tenant}#{job_id}"), (f"erased#{tenant}", job_id)):
            if item := await self._store.get(TENANTS, {"pk": pk, "what": what}):
                return Erasure.from_item(item | {"what": f"{tenant}#{job_id}"})
        raise NotFound("There is no such erasure.")

    async def pending(self) -> list[Erasure]:
        """Jobs that are not done, as many as one look finds."""
        found = await self._store.query(Query(TENANTS, _PENDING, PAGE, consistent=True))
        return [Erasure.from_item(item) for item in found.items]

    async def run(self, job: Erasure, actor: Actor) -> AsyncIterator[Erasure]:
        """Carry a job on, telling how far it is after each stream; the last one told is `done`,
        unless the lists may still be behind: then another run finishes it.
        """
        if job.stream is not None:
            await self._erase(StreamKey(job.tenant, job.stream), actor)
            yield await self._finish(replace(job, streams=1))
            return
        before = None
        while True:
            found, more = await self._log.summaries(
                job.tenant, job.user, before=before, limit=PAGE, everything=True
            )
            for summary in found:
                key = StreamKey(job.tenant, summary.stream)
                before = summary.stream
                if key.created_ms <= job.created_at:
                    await self._erase(key, actor)
                    job = replace(job, streams=job.streams + 1)
                    yield job
            if not more:
                break
        await self._store.write(Update(TENANTS, job.key, {"streams": job.streams}))
        if self._now() - job.created_at / 1000 >= INDEX_LAG_S:
            yield await self._finish(job)

    async def _erase(self, key: StreamKey, actor: Actor) -> None:
        try:
            closed = await self._end(key, actor)
        except NotFound:
            summary = await self._store.get(STREAMS, {"pk": key.pk, "seq": SUMMARY_SEQ})
            if summary is None or summary["status"] != "erased":
                return  # it has expired
            await self._overwrite(key, int(summary["last_seq"]))
            return
        await self._mark(key, closed, actor)
        await self._overwrite(key, closed.seq)

    async def _end(self, key: StreamKey, actor: Actor) -> Record:
        """The record that closes the stream: a running one is cancelled and closed."""
        log = self._log

        def wish(newest: Record) -> Record | None:
            if newest.closes or newest.kind == Kind.CANCEL:
                return None
            return Record(newest.seq + 1, Kind.CANCEL, newest.epoch, log.now_ms(), "")

        for _ in range(END_TRIES_MAX):
            newest = await self._lifecycle.steer(key, wish, Event.CANCELLED, actor)
            if newest.closes:
                return newest
            # Behind a cancel there is no more text, so the end need not wait for the producer.
            newest = await self._lifecycle.close_abandoned(key, newest)
            if newest.closes:
                return newest
        raise Unavailable("The stream could not be ended just now.")

    async def _mark(self, key: StreamKey, closed: Record, actor: Actor) -> None:
        """Take the stream out of every list, and say so in the audit."""
        place: Item = {"pk": key.pk, "seq": SUMMARY_SEQ}
        change: Item = {"status": "erased", "last_seq": closed.seq, "expires_at": self._shell_end()}
        gone = tuple(name for name in _HIDDEN if name != "status")
        where: Item = {"status": str(closed.body["status"])}
        entry = self._audit.entry(Chain.of(key), Event.DELETED, actor, details={"seq": closed.seq})
        # A conflict tells that somebody else has marked it meanwhile.
        await self._audit.append(entry, [Update(STREAMS, place, change, remove=gone, where=where)])

    async def _overwrite(self, key: StreamKey, last: int) -> None:
        shells = [self._shell(key, seq) for seq in range(last + 1)]
        for first in range(0, len(shells), BATCH):
            await self._store.overwrite(STREAMS, shells[first : first + BATCH])

    def _shell(self, key: StreamKey, seq: int) -> Item:
        shell = Record(seq, Kind.ERASED, ERASED_EPOCH, int(self._now() * 1000), "")
        return shell.to_item(key) | {"expires_at": self._shell_end()}

    def _shell_end(self) -> int:
        return int(self._now()) + SHELL_RETENTION_S

    async def _finish(self, job: Erasure) -> Erasure:
        done = replace(job, done_at=int(self._now() * 1000))
        item = done.to_item() | {
            "pk": f"erased#{job.tenant}",
            "what": job.id,
            "expires_at": int(self._now()) + DONE_RETENTION_S,
        }
        await self._store.transact(
            [Delete(TENANTS, job.key), Update(TENANTS, _place(item), _content(item), where=None)],
            secrets.token_hex(16),
        )
        return done


def _place(item: Item) -> Item:
    return {name: item[name] for name in ("pk", "what")}


def _content(item: Item) -> Item:
    return {name: value for name, value in item.items() if name not in ("pk", "what")}


def encode(job: Erasure) -> dict[str, Any]:
    """The state of an erasure as a client sees it; times are in ms since 1970."""
    return {
        "id": job.id,
        "state": "done" if job.done_at else "running",
        "stream": job.stream,
        "user": job.user,
        "streams_erased": job.streams,
        "created_at": job.created_at,
        "done_at": job.done_at,
    }


async def finish_within(erasures: Erasures, job: Erasure, actor: Actor, wait_s: float) -> Erasure:
    """The job as far as it came in so many seconds; what is left is done in the background."""
    latest = job
    try:
        async with asyncio.timeout(wait_s):
            async for latest in erasures.run(job, actor):  # noqa: B007 - the last one is told
                pass
    except (TimeoutError, Unavailable):
        pass
    return latest
