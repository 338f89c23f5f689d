"""Erasure: what is held of a stream, a user or a tenant goes; that it was there stays in the audit.

    hide       a stream's end and its summary become empty, and the audit tells it: from here on no
               reader finds anything of it
    overwrite  each record becomes a shell, which holds its slot and nothing else
    release    the stream leaves the indexes, by which what is half done is found again

Each step can be done again, by anyone and at the same time, and changes nothing then. Why records
are overwritten and not deleted, and what else is held, is in docs/decisions/erasure.md.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from shared.audit import TENANT_CHAIN, Actor, Chain, Entry, Event
from shared.audit.linking import Details, retention_days
from shared.audit.trail import Audit
from shared.errors import NotFound, Unavailable
from shared.lifecycle import Lifecycle
from shared.live import Live
from shared.log import SUMMARY_SEQ, unknown_stream
from shared.logger import logger
from shared.records import DAY_S, ERASED_EPOCH, Item, Kind, Record, StreamKey, dump
from shared.schema import STREAMS, TENANTS
from shared.table import Delete, Put, Query, Update, Write

#: For how long an overwritten record holds its slot: longer than any producer can sleep.
SHELL_RETENTION_S = DAY_S
#: For how long the state of an erasure that is done can be read.
DONE_RETENTION_S = 30 * DAY_S
#: An index lags behind: a look that came later than this finds all that there is of a user.
INDEX_LAG_S = 60.0
#: How many jobs that are not done are looked at.
PENDING_MAX = 10_000
END_TRIES_MAX = 10
HIDE_TRIES_MAX = 5
BATCH = 25
PAGE = 100

_PENDING = "#erasures"
_ERASED = "erased"
#: What a summary says of its stream; and what it takes to find it again, which goes last.
_CONTENT = ("open", "closed_at", "finish_reason", "usage", "error", "metadata", "parent", "user")
_TRACES = ("tenant", "stream", "owner", "model", "created_at", "last_seq")


@dataclass(frozen=True, slots=True)
class Erasure:
    """A job: to erase one `stream`, or all streams of a `user`, or of the tenant where neither is.

    `created_at` is in ms since 1970: streams that begin later are not meant. `actor` asked for it.
    `streams` counts those of which nothing is left, each once.
    """

    tenant: str
    id: str
    created_at: int
    actor: Actor
    stream: str | None = None
    user: str | None = None
    streams: int = 0
    done_at: int | None = None

    @property
    def key(self) -> Item:
        return {"pk": _PENDING, "what": f"{self.tenant}#{self.id}"}

    @property
    def done_key(self) -> Item:
        return {"pk": f"erased#{self.tenant}", "what": self.id}

    def content(self) -> Item:
        """What is kept of it, under either key."""
        content: Item = {
            "created_at": self.created_at,
            "actor": dump(asdict(self.actor)),
            "streams": self.streams,
        }
        for name in ("stream", "user", "done_at"):
            if (value := getattr(self, name)) is not None:
                content[name] = value
        return content

    @classmethod
    def from_item(cls, item: Item, tenant: str, job_id: str) -> Self:
        return cls(
            tenant=tenant,
            id=job_id,
            created_at=int(item["created_at"]),
            actor=Actor(**json.loads(str(item["actor"]))),
            stream=str(item["stream"]) if "stream" in item else None,
            user=str(item["user"]) if "user" in item else None,
            streams=int(item["streams"]),
            done_at=int(item["done_at"]) if "done_at" in item else None,
        )


class Erasures:
    """Begins erasures and carries them on. `now` is the wall clock in s, the log's by default;
    `live` is what this process keeps of streams, where it produces any.

    Every method raises `Unavailable` where the store does not answer; a job that was taken on is
    still there then.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        audit: Audit,
        *,
        live: Live | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._lifecycle = lifecycle
        self._log = lifecycle.log
        self._store = lifecycle.store
        self._audit = audit
        self._live = live or Live()
        self._now = now or (lambda: lifecycle.log.now_ms() / 1000)

    async def begin(
        self, tenant: str, actor: Actor, *, stream: str | None = None, user: str | None = None
    ) -> Erasure:
        """Take a job on: from here on it will be done, and a single stream is hidden already.

        For a stream that was hidden before, tells of the job that did it. Raises `NotFound` for an
        unknown stream.
        """
        job_id = stream or secrets.token_hex(12)
        job = Erasure(tenant, job_id, int(self._now() * 1000), actor, stream, user)
        try:
            await self._take_on(job)
        except NotFound:
            if held := await self._held(tenant, job_id):
                return held
            raise
        return job

    async def _take_on(self, job: Erasure) -> None:
        taken = Put(TENANTS, job.key | job.content())
        if job.stream is not None:
            await self._hide(StreamKey(job.tenant, job.stream), job.actor, [taken])
        elif job.user is not None:
            about = {"user": job.user, "erasure": job.id}
            entry = await self._entry(Chain(job.tenant, TENANT_CHAIN), job.actor, about)
            await self._audit.append(entry, [taken])
        else:  # whoever ends a tenant tells it
            await self._store.write(taken)

    async def find(self, tenant: str, job_id: str) -> Erasure:
        """The state of a job. Raises `NotFound`."""
        if held := await self._held(tenant, job_id):
            return held
        raise NotFound("There is no such erasure.")

    async def _held(self, tenant: str, job_id: str) -> Erasure | None:
        named = Erasure(tenant, job_id, 0, Actor())
        for key in (named.key, named.done_key):
            if item := await self._store.get(TENANTS, key):
                return Erasure.from_item(item, tenant, job_id)
        return None

    async def pending(self) -> list[Erasure]:
        """The jobs that are not done."""
        jobs: list[Erasure] = []
        query = Query(TENANTS, _PENDING, PAGE, consistent=True)
        while len(jobs) < PENDING_MAX:
            found = await self._store.query(query)
            for item in found.items:
                tenant, _, job_id = str(item["what"]).partition("#")
                jobs.append(Erasure.from_item(item, tenant, job_id))
            if not found.more:
                break
            query = replace(query, start=f"{jobs[-1].key['what']}\0")
        return jobs

    async def run(self, job: Erasure) -> AsyncGenerator[Erasure, None]:
        """Carry a job on, telling how far it is after each stream; the last one told is `done`,
        unless the indexes may still be behind: then another run finishes it.

        One stream that cannot be erased just now does not keep the others waiting, but the job.
        """
        if job.stream is not None:
            await self._erase(StreamKey(job.tenant, job.stream), job)
            yield await self._finish(job)
            return
        looked_late = self._now() - job.created_at / 1000 >= INDEX_LAG_S
        failed = False
        async with aclosing(self._meant(job)) as keys:
            async for key in keys:
                try:
                    counted = await self._erase(key, job)
                except Exception as error:  # noqa: BLE001 - whatever is wrong with this one
                    about = {"stream": key.stream, "error": type(error).__name__}
                    logger.warning("a stream was not erased", extra=about)
                    failed = True
                    continue
                job = replace(job, streams=job.streams + counted)
                yield job
        if failed:
            raise Unavailable("Some streams could not be erased just now.")
        if looked_late:
            yield await self._finish(job)

    async def _meant(self, job: Erasure) -> AsyncGenerator[StreamKey, None]:
        """The streams of a job that the index shows: also the half erased, and the expired."""
        before, more = None, True
        while more:
            found, more = await self._log.summaries(
                job.tenant, job.user, before=before, limit=PAGE, everything=True
            )
            for summary in found:
                before = summary.stream
                key = StreamKey(job.tenant, summary.stream)
                if key.created_ms <= job.created_at:
                    yield key

    async def _erase(self, key: StreamKey, job: Erasure) -> bool:
        """Leave nothing of a stream. Whether it was counted just now."""
        with suppress(NotFound):  # hidden before, or its summary has expired
            await self._hide(key, job.actor)
        await self._overwrite(key)
        return await self._release(key, job)

    async def _hide(self, key: StreamKey, actor: Actor, also: Sequence[Write] = ()) -> None:
        """Let no reader find the stream any more, in one transaction with its entry and `also`.

        A running stream is ended first. Raises `NotFound` where there is nothing to hide.
        """
        place: Item = {"pk": key.pk, "seq": SUMMARY_SEQ}
        for _ in range(HIDE_TRIES_MAX):
            summary = await self._store.get(STREAMS, place)
            if summary is None or summary["status"] == Kind.ERASED:
                raise unknown_stream(key.stream)
            status, last = await self._ended(key, summary, actor)
            change: Item = {"status": Kind.ERASED}
            writes: list[Write] = [
                Update(STREAMS, place, change, remove=_CONTENT, where={"status": status})
            ]
            if last is not None:
                writes.append(self._covering(key, last))
            entry = await self._entry(Chain.of(key), actor, {} if last is None else {"seq": last})
            if await self._audit.append(entry, [*writes, *also]) is None:
                self._live.forget(key)
                return
        raise Unavailable("The stream could not be erased just now.")

    async def _ended(self, key: StreamKey, summary: Item, actor: Actor) -> tuple[str, int | None]:
        """A stream's last status and the number of its last record, a running one being ended.

        None where there may be no last record: the table has begun to remove what has expired. So
        one that never ended is not ended here either, and what it holds of its quotas is not given
        back: whoever closes streams must come before their retention is over.
        """
        if self._log.is_expired(key):
            return str(summary["status"]), None
        if "last_seq" in summary:
            return str(summary["status"]), int(summary["last_seq"])
        closed = await self._end(key, actor)
        return str(closed.body["status"]), closed.seq

    async def _end(self, key: StreamKey, actor: Actor) -> Record:
        """Cancel and close a stream. Returns the record that closes it.

        Between the two a producer of a new epoch may go on: then it is cancelled, too.
        """
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

    def _covering(self, key: StreamKey, last: int) -> Update:
        """The write that makes a shell of a stream's end, by which readers learn of an erasure.

        Until all else is a shell it stays as long as the stream would have.
        """
        shell = self._shell(key, last) | {"expires_at": key.expires_at}
        place: Item = {"pk": key.pk, "seq": last}
        change = {name: value for name, value in shell.items() if name not in place}
        where: Item = {"kind": Kind.CLOSED}
        return Update(STREAMS, place, change, remove=("text", "body"), where=where)

    async def _overwrite(self, key: StreamKey) -> None:
        """Make shells of the records that there are, the last one last."""
        query, more = Query(STREAMS, key.pk, PAGE, start=0, consistent=True), True
        while more:
            found = await self._store.query(query)
            seqs = [int(item["seq"]) for item in found.items]
            left = [
                seq for seq, item in zip(seqs, found.items, strict=True) if not self._is_shell(item)
            ]
            for first in range(0, len(left), BATCH):
                shells = [self._shell(key, seq) for seq in left[first : first + BATCH]]
                await self._store.overwrite(STREAMS, shells)
            more = found.more and bool(seqs)
            query = replace(query, start=max(seqs, default=0) + 1)

    async def _release(self, key: StreamKey, job: Erasure) -> bool:
        """Let go of what names the stream, and count it, once however often this is tried."""
        place: Item = {"pk": key.pk, "seq": SUMMARY_SEQ}
        where: Item = {"status": Kind.ERASED, "stream": key.stream}
        change: Item = {"expires_at": self._shell_end()}
        writes: list[Write] = [Update(STREAMS, place, change, remove=_TRACES, where=where)]
        if job.stream is None:
            writes.append(Update(TENANTS, job.key, add={"streams": 1}))
        return await self._store.transact(writes, secrets.token_hex(16)) is None

    async def _finish(self, job: Erasure) -> Erasure:
        held = await self._held(job.tenant, job.id)
        if held is None or held.done_at:
            return held or job
        streams = 1 if job.stream else held.streams
        done = replace(held, streams=streams, done_at=int(self._now() * 1000))
        content = done.content() | {"expires_at": int(self._now()) + DONE_RETENTION_S}
        writes: list[Write] = [
            Delete(TENANTS, job.key),
            Update(TENANTS, job.done_key, content, where=None),
        ]
        await self._store.transact(writes, secrets.token_hex(16))
        return done

    async def _entry(self, chain: Chain, actor: Actor, details: Details) -> Entry:
        """What is told of an erasure, for as long as the last entry of its chain is kept."""
        days = retention_days(await self._audit.head(chain))
        return self._audit.entry(chain, Event.DELETED, actor, details=details, retention_days=days)

    def _shell(self, key: StreamKey, seq: int) -> Item:
        shell = Record(seq, Kind.ERASED, ERASED_EPOCH, int(self._now() * 1000), "")
        return shell.to_item(key) | {"expires_at": self._shell_end()}

    def _is_shell(self, item: Item) -> bool:
        return item["kind"] == Kind.ERASED and int(item["expires_at"]) <= self._shell_end()

    def _shell_end(self) -> int:
        return int(self._now()) + SHELL_RETENTION_S


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


async def finish_within(erasures: Erasures, job: Erasure, wait_s: float) -> Erasure:
    """The job as far as it came in so many seconds; what is left is done in the background."""
    latest = job
    if job.done_at:
        return job
    with suppress(TimeoutError, Unavailable):
        async with asyncio.timeout(wait_s), aclosing(erasures.run(job)) as states:
            async for latest in states:  # noqa: B007 - the last one is told
                pass
    return latest
