"""The log: one append-only stream of records, in one partition.

Record *n* is the item with sort key *n*, written once by a conditional put; nothing else
coordinates. Who loses a slot is told which record holds it, so every append answers with the
slot's holder, and the caller compares:

- `holder.by == record.by`: it is ours, also where the first reply was lost;
- anything else: somebody was first, and the caller decides what that means.

The summary stands at −1, before the first record. It is written in one transaction with `opened`,
and changed in one transaction with `closed`, so it cannot disagree with the log. What else belongs
to these two moments is put together in `shared.lifecycle`.
"""

import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.records import (
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
from shared.schema import OPEN_SHARDS, STREAMS
from shared.table import Conflict, Put, Query, Store, Update, Write

SUMMARY_SEQ = -1
#: Where the newest record of an open stream is older than this, its producer is dead.
DEAD_AFTER_S = 15.0
#: How often a producer with nothing to say shows that it lives.
HEARTBEAT_S = 5.0
#: How long a producer waits, paused, for a grant.
PAUSE_S = 60.0
#: How long a stream may wait for a producer that was asked for: longer than Lambda takes to begin.
VACANT_S = 30.0
PAGE_RECORDS_MAX = 1000
OPEN_PAGE = 200
#: How many pages of a list are passed over of which nothing is shown: what comes then has expired.
LOOKS_MAX = 100


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

    def new_key(self, tenant: str, owner_tag: bytes, retention_days: int) -> StreamKey:
        """The name of a new stream; `owner_tag` is its tenant's, of whom it is begun for."""
        stream = new_stream_id(
            self.now_ms(),
            self._randomness(7),
            owner_tag=owner_tag,
            retention_days=retention_days,
        )
        return StreamKey(tenant, stream)

    async def open(
        self, key: StreamKey, opened: Record, *, also: Sequence[Write] = ()
    ) -> Conflict | None:
        """Begin a stream: its first record, its summary and `also`, all or nothing.

        The conflict's holders are in the order (opened, summary, *also).
        """
        summary: Item = {
            "pk": key.pk,
            "seq": SUMMARY_SEQ,
            "tenant": key.tenant,
            "stream": key.stream,
            "status": Status.OPEN,
            "model": str(opened.body["model"]),
            "created_at": opened.at,
            "expires_at": key.expires_at,
            "open": _open_shard(key),
        }
        if opened.body.get("metadata"):
            summary["metadata"] = dump(opened.body["metadata"])
        if opened.body.get("parent"):
            summary["parent"] = str(opened.body["parent"])
        if user := opened.body.get("user"):
            summary |= {"user": user, "owner": owner(key.tenant, user)}
        return await self._transact([_put(key, opened), Put(STREAMS, summary), *also])

    async def append(self, key: StreamKey, record: Record) -> Record:
        """Write a record into its slot, which must be the one after the newest that the writer saw.

        Returns the record that holds the slot afterwards. Raises `Unavailable` when that is not
        known; to ask again with the same record is always safe.
        """
        if record.closes:
            raise ValueError("a stream is closed by close(), together with its summary")
        held = await self._store.write(_put(key, record))
        return Record.from_item(held) if held else record

    async def append_with(
        self, key: StreamKey, record: Record, also: Sequence[Write]
    ) -> Conflict | None:
        """As `append`, with `also`, all or nothing: the conflict's first holder has the slot.

        Raises `NotFound` where the stream was erased: a control must not go on behind its end.
        """
        return await self._transact_behind(key, record, also)

    async def close(
        self, key: StreamKey, closed: Record, *, also: Sequence[Write] = ()
    ) -> Conflict | None:
        """End a stream: its last record, its summary and `also`, all or nothing.

        The conflict's holders are in the order (closed, summary, *also). Raises `NotFound` where
        the stream was erased.
        """
        change: Item = {
            "status": str(closed.body["status"]),
            "finish_reason": str(closed.body["finish_reason"]),
            "closed_at": closed.at,
            "last_seq": closed.seq,
        }
        if model := closed.body.get("model"):
            change["model"] = model
        for name in ("usage", "error"):
            if closed.body.get(name) is not None:
                change[name] = dump(closed.body[name])
        summary = Update(STREAMS, {"pk": key.pk, "seq": SUMMARY_SEQ}, change, remove=("open",))
        return await self._transact_behind(key, closed, [summary, *also])

    async def _transact_behind(
        self, key: StreamKey, record: Record, also: Sequence[Write]
    ) -> Conflict | None:
        conflict = await self._transact([_put(key, record), *also])
        if conflict and _is_erased(conflict.holders[0] or {}):
            raise unknown_stream(key.stream)
        return conflict

    async def _transact(self, writes: Sequence[Write]) -> Conflict | None:
        # The same writes asked twice are one: 36 characters is the bound of a token.
        token = hashlib.sha256(repr(writes).encode()).hexdigest()[:36]
        return await self._store.transact(writes, token)

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
            if any(_is_erased(item) for item in items):
                raise unknown_stream(key.stream)
            if not items or int(items[0]["seq"]) != after:
                continue
            records = _contiguous(items[1:], after + 1)
            # Nothing after the offset can be true, but never before the first record.
            if records or (len(items) == 1 and after != SUMMARY_SEQ):
                if found.more:
                    # An erasure begins at the end of a stream, which this page does not show.
                    await self.tail(key)
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
        if not items or items[0]["seq"] == SUMMARY_SEQ or _is_erased(items[0]):
            raise unknown_stream(key.stream)
        return Record.from_item(items[0])

    async def all_records(self, key: StreamKey) -> list[Record]:
        """Every record that there is now, read consistently. Raises `NotFound`."""
        records: list[Record] = []
        more = True
        while more:
            page = await self.read(key, len(records) - 1, consistent=True)
            records += page.records
            more = page.more
        return records

    async def summary(self, key: StreamKey) -> Summary:
        item = await self._store.get(STREAMS, {"pk": key.pk, "seq": SUMMARY_SEQ})
        if item is None or _is_erased(item):
            raise unknown_stream(key.stream)
        return Summary.from_item(item)

    async def summaries(
        self,
        tenant: str,
        user: str | None = None,
        *,
        before: str | None,
        limit: int,
        everything: bool = False,
    ) -> tuple[list[Summary], bool]:
        """A tenant's streams, or a user's, newest first, from before the stream `before`, and
        whether there are more: also a page of fewer than `limit` may not be the last. Those whose
        retention is over, or that are being erased, are left out, unless `everything` is asked for.
        """
        by_tenant, by_user, _ = STREAMS.indexes
        index, partition = by_tenant, tenant
        if user is not None:
            index, partition = by_user, owner(tenant, user)
        look = Query(STREAMS, partition, limit, start=before, index=index, newest_first=True)
        for _ in range(LOOKS_MAX):
            found = await self._store.query(look)
            shown = [item for item in found.items if everything or self._is_shown(item, tenant)]
            if shown or not (found.more and found.items):
                more = found.more or len(shown) > limit
                return [Summary.from_item(item) for item in shown[:limit]], more
            # A page of which nothing is shown would look like the end.
            look = replace(look, start=str(found.items[-1]["stream"]), limit=PAGE_RECORDS_MAX)
        return [], False

    async def open_streams(self, shard: int) -> AsyncGenerator[StreamKey, None]:
        """The streams of one of `OPEN_SHARDS` that are not closed, oldest first: some may be closed
        by now, and the newest may be missing.
        """
        *_, by_open = STREAMS.indexes
        query = Query(STREAMS, str(shard), OPEN_PAGE, index=by_open)
        while True:
            found = await self._store.query(query)
            for item in found.items:
                yield StreamKey(str(item["tenant"]), str(item["stream"]))
            if not (found.more and found.items):
                return
            query = replace(query, start=f"{found.items[-1]['stream']}\0")

    def is_dead(self, newest: Record) -> bool:
        """Whether nobody goes on with an open stream whose newest record this is, and should."""
        if newest.closes or newest.parked:
            return False
        patience_s = DEAD_AFTER_S
        if newest.kind == Kind.PAUSE:
            patience_s += PAUSE_S
        elif newest.vacant:
            patience_s = VACANT_S
        return self.now_ms() - newest.at > patience_s * 1000

    def is_expired(self, key: StreamKey) -> bool:
        """Whether its retention is over: the table removes it some time after."""
        return key.expires_at * 1000 <= self.now_ms()

    def _is_shown(self, summary: Item, tenant: str) -> bool:
        key = StreamKey(tenant, str(summary["stream"]))
        return not (_is_erased(summary) or self.is_expired(key))


def owner(tenant: str, user: str) -> str:
    """The partition of a user's streams in the index."""
    return f"{tenant}#{user}"


def _is_erased(item: Item) -> bool:
    """Whether nothing is left of a record, or of a stream's summary."""
    return "erased" in (item.get("kind"), item.get("status"))


def _open_shard(key: StreamKey) -> str:
    # The last character of an id is a random one.
    return str(int(key.stream[-1], 32) % OPEN_SHARDS)


def _put(key: StreamKey, record: Record) -> Put:
    return Put(STREAMS, record.to_item(key))


def unknown_stream(stream: str) -> NotFound:
    shown = stream if is_stream_id(stream) else "with that id"
    return NotFound(f"There is no stream {shown}.")


def closing(
    status: Status,
    finish_reason: str,
    *,
    usage: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """The body of a `closed` record. `model` is which one answered, where it was another."""
    body = {"status": status, "finish_reason": finish_reason, "usage": usage, "error": error}
    return body | ({"model": model} if model else {})


def _contiguous(items: Sequence[Item], first: int) -> tuple[Record, ...]:
    records: list[Record] = []
    for item in items:
        if int(item["seq"]) != first + len(records):
            break
        records.append(Record.from_item(item))
    return tuple(records)
