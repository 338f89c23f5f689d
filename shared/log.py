"""The log: one append-only stream of records, in one partition.

Record *n* is the item with sort key *n*, written once by a conditional put; nothing else
coordinates. Who loses a slot is told which record holds it, so every append answers with the
slot's holder, and the caller compares:

- `holder.by == record.by`: it is ours, also where the first reply was lost;
- anything else: somebody was first, and the caller decides what that means.

The summary stands at −1, before the first record. It is written in one transaction with `opened`,
and changed in one transaction with `closed`, so it cannot disagree with the log.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidRequest, NotFound, ProducerLost, SluiceError, Unavailable
from shared.records import (
    FinishReason,
    Item,
    Kind,
    Record,
    Status,
    StreamKey,
    Summary,
    dump,
    is_stream_id,
    new_stream_id,
)
from shared.schema import STREAMS
from shared.table import Conflict, Put, Query, Store, Update, Write

SUMMARY_SEQ = -1
#: Where the newest record of an open stream is older than this, its producer is dead.
DEAD_AFTER_S = 15.0
#: How often a producer with nothing to say shows that it lives.
HEARTBEAT_S = 5.0
RETENTION_S = 30 * 24 * 3600
PAGE_RECORDS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """The records after an offset, without a gap. `anchor` is the record at that offset itself.

    `anchor` is None only before the first record, at −1.
    """

    anchor: Record | None
    records: tuple[Record, ...]
    #: Whether there may be more, because the limit or the store ended the page.
    more: bool

    @property
    def newest(self) -> Record | None:
        return self.records[-1] if self.records else self.anchor


class Log:
    """Reads and writes streams. `now` is the wall clock in seconds, `randomness` gives n bytes."""

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._now = now
        self._randomness = randomness

    def now_ms(self) -> int:
        return int(self._now() * 1000)

    def new_writer(self) -> str:
        """A name for one writer, for `Record.by`: 16 characters, never given twice."""
        return self._randomness(8).hex()

    def new_key(self, tenant: str) -> StreamKey:
        return StreamKey(tenant, new_stream_id(self.now_ms(), self._randomness(9)))

    async def open(
        self, key: StreamKey, opened: Record, *, also: Sequence[Write] = ()
    ) -> Conflict | None:
        """Begin a stream: its first record, its summary and `also`, all or nothing.

        `also` holds what must happen together with it: the claim of an idempotency key. The
        conflict's holders are in the order (opened, summary, *also).
        """
        summary: Item = {
            "pk": key.pk,
            "seq": SUMMARY_SEQ,
            "tenant": key.tenant,
            "stream": key.stream,
            "status": Status.OPEN,
            "model": str(opened.body["model"]),
            "created_at": opened.at,
            "expires_at": self._expires_at(key),
        }
        if opened.body.get("metadata"):
            summary["metadata"] = dump(opened.body["metadata"])
        if opened.body.get("parent"):
            summary["parent"] = str(opened.body["parent"])
        conflict = await self._store.transact(
            [self._put(key, opened), Put(STREAMS, summary), *also], _token(opened)
        )
        held = conflict.holders[0] if conflict else None
        return None if held and held["by"] == opened.by else conflict

    async def append(self, key: StreamKey, record: Record) -> Record:
        """Write a record into its slot, which must be the one after the newest that the writer saw.

        Returns the record that holds the slot afterwards. Raises `Unavailable` when that is not
        known; to ask again with the same record is always safe.
        """
        if record.closes:
            raise ValueError("a stream is closed by close(), together with its summary")
        held = await self._store.write(self._put(key, record))
        return Record.from_item(held) if held else record

    async def close(self, key: StreamKey, closed: Record, *, also: Sequence[Write] = ()) -> Record:
        """End a stream: its last record, its summary and `also`, all or nothing; else as append."""
        change: Item = {
            "status": str(closed.body["status"]),
            "finish_reason": str(closed.body["finish_reason"]),
            "closed_at": closed.at,
            "last_seq": closed.seq,
        }
        for name in ("usage", "error"):
            if closed.body.get(name) is not None:
                change[name] = dump(closed.body[name])
        summary: Item = {"pk": key.pk, "seq": SUMMARY_SEQ}
        conflict = await self._store.transact(
            [self._put(key, closed), Update(STREAMS, summary, change), *also], _token(closed)
        )
        return _holder(conflict, closed) if conflict else closed

    async def close_abandoned(
        self, key: StreamKey, newest: Record, error: SluiceError | None = None
    ) -> Record:
        """Close a stream that no producer will close, after `newest`, keeping its text.

        Whoever is first wins: returns the record that holds the next slot. Without an `error` its
        producer has died.
        """
        if newest.kind == Kind.CANCEL:
            body = closing(Status.CANCELLED, FinishReason.CANCELLED)
        else:
            error = error or ProducerLost()
            body = closing(Status.FAILED, FinishReason.ERROR, error=error.brief())
        seq, epoch = newest.seq + 1, newest.epoch + 1
        by = self.new_writer()
        closed = Record(seq, Kind.CLOSED, epoch, self.now_ms(), by, body=body)
        return await self.close(key, closed)

    async def read(
        self,
        key: StreamKey,
        after: int = -1,
        *,
        limit: int = PAGE_RECORDS_MAX,
        consistent: bool = False,
    ) -> Page:
        """Up to `limit` records after `after`, which must exist itself.

        The offset's own record is read with them: it proves that the stream and the offset exist,
        for the price of one read. A read may be stale, and then it is asked again consistently
        before anything is said to be missing; with `consistent` it tells all that is there now.

        Raises `NotFound` for an unknown stream and `InvalidRequest` for an offset beyond its end.
        """
        for fresh in (consistent, True):
            found = await self._store.query(
                Query(STREAMS, key.pk, limit + 1, start=after, consistent=fresh)
            )
            items = found.items
            if not items or int(items[0]["seq"]) != after:
                continue
            records = _contiguous(items[1:], after + 1)
            # Nothing after the offset can be true, but never before the first record.
            if records or (len(items) == 1 and after != SUMMARY_SEQ):
                anchor = None if after == SUMMARY_SEQ else Record.from_item(items[0])
                return Page(anchor, records, found.more)
        if after == SUMMARY_SEQ:
            raise unknown_stream(key.stream)
        newest = await self.tail(key)
        if newest.seq < after:
            raise InvalidRequest(
                f"`after` is {after}, but the newest record is {newest.seq}.",
                field="after",
                maximum=newest.seq,
            )
        # The end passed `after` between the two reads, or the log has a hole, which cannot be.
        raise Unavailable("The stream cannot be read just now.")

    async def tail(self, key: StreamKey) -> Record:
        """The newest record, read consistently. Raises `NotFound`."""
        query = Query(STREAMS, key.pk, 1, newest_first=True, consistent=True)
        items = (await self._store.query(query)).items
        if not items or items[0]["seq"] == SUMMARY_SEQ:
            raise unknown_stream(key.stream)
        return Record.from_item(items[0])

    async def settle(self, key: StreamKey) -> Record:
        """The newest record, which closes the stream where its producer has died."""
        newest = await self.tail(key)
        return await self.close_abandoned(key, newest) if self.is_dead(newest) else newest

    async def summary(self, key: StreamKey) -> Summary:
        item = await self._store.get(STREAMS, {"pk": key.pk, "seq": SUMMARY_SEQ})
        if item is None:
            raise unknown_stream(key.stream)
        return Summary.from_item(item)

    async def summaries(
        self, tenant: str, *, before: str | None, limit: int
    ) -> tuple[list[Summary], bool]:
        """A tenant's streams, newest first, from before the stream `before`, and whether there are
        more: also a page of fewer than `limit` may not be the last.
        """
        index = STREAMS.indexes[0]
        found = await self._store.query(
            Query(STREAMS, tenant, limit, start=before, index=index, newest_first=True)
        )
        return [Summary.from_item(item) for item in found.items], found.more

    def is_dead(self, newest: Record) -> bool:
        """Whether the producer of an open stream with this newest record has died."""
        return not newest.closes and self.now_ms() - newest.at > DEAD_AFTER_S * 1000

    def _put(self, key: StreamKey, record: Record) -> Put:
        return Put(STREAMS, record.to_item(key.pk, self._expires_at(key)))

    def _expires_at(self, key: StreamKey) -> int:
        return key.created_ms // 1000 + RETENTION_S


def unknown_stream(stream: str) -> NotFound:
    shown = stream if is_stream_id(stream) else "with that id"
    return NotFound(f"There is no stream {shown}.")


def closing(
    status: Status,
    finish_reason: str,
    *,
    usage: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of a `closed` record."""
    return {"status": status, "finish_reason": finish_reason, "usage": usage, "error": error}


def _token(record: Record) -> str:
    """The same write asked twice is one write; 36 characters is DynamoDB's bound."""
    return f"{record.by}-{record.seq}"


def _holder(conflict: Conflict, record: Record) -> Record:
    """Who holds the slot that a transaction wanted for `record`."""
    held = conflict.holders[0]
    if held:
        return Record.from_item(held)
    raise Unavailable(f"The {record.kind} record could not be written.")


def _contiguous(items: Sequence[Item], first: int) -> tuple[Record, ...]:
    records: list[Record] = []
    for item in items:
        if int(item["seq"]) != first + len(records):
            break
        records.append(Record.from_item(item))
    return tuple(records)
