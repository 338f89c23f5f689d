"""A follower: reads a log from an offset and goes on reading until the stream is closed."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from shared.live import Channel, Live
from shared.log import PAGE_RECORDS_MAX
from shared.records import Kind, Record, StreamKey
from shared.takeover import Takeovers

#: Between two reads at the end of a log, in seconds: when it is lively, when it is quiet.
DELAY_MIN_S = 0.05
DELAY_MAX_S = 1.0
#: What a client that polls is told to wait, in ms.
POLL_MIN_MS = 250
POLL_MAX_MS = 5000
#: The text of one page. A function's answer may have 6 MB, and JSON takes six bytes for some
#: characters.
PAGE_CHARS_MAX = 512 * 1024
#: What a client that polls waits for.
_POLLED = (Kind.TEXT, Kind.PAUSE, Kind.CLOSED)
#: What is read beyond a page's limit, for the records in it that show nothing.
UNSEEN_RECORDS = 16


class Pace:
    """How long to wait before the next read, from how fast records have come.

    The next record is expected one usual gap after the last one; from then on the delays grow, so
    that a lively stream is read about 50 ms after each write and a quiet one once a second. Gaps
    come from the writer's clock and waiting from ours, so a difference between them costs nothing.
    """

    def __init__(self) -> None:
        self._gap_s = DELAY_MIN_S
        self._last_at: int | None = None
        self._delay_s = DELAY_MIN_S
        self._fresh = False

    @property
    def gap_s(self) -> float:
        return self._gap_s

    def saw(self, records: Sequence[Record]) -> None:
        for record in records:
            if self._last_at is not None:
                gap_s = min(max(record.at - self._last_at, 0) / 1000, 5.0)
                self._gap_s += 0.3 * (gap_s - self._gap_s)
            self._last_at = record.at
        self._fresh = True

    def delay_s(self) -> float:
        """Seconds to wait after a read that found nothing new."""
        if self._fresh:
            self._fresh = False
            self._delay_s = DELAY_MIN_S
            return min(max(self._gap_s, DELAY_MIN_S), DELAY_MAX_S)
        delay_s, self._delay_s = self._delay_s, min(self._delay_s * 1.5, DELAY_MAX_S)
        return delay_s


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a poll.

    `next` is the offset to poll after; `newest` the newest record known, which is the last of the
    page or beyond it; `poll_after_ms` when the next poll is worth its price, by the stream's own
    pace: 0 where there is more already.
    """

    records: tuple[Record, ...]
    next: int
    newest: Record
    poll_after_ms: int


class Follower:
    """Reads one stream after an offset, for one client.

    `attached` marks the client that holds the producer's invocation.
    """

    def __init__(
        self,
        takeovers: Takeovers,
        live: Live,
        key: StreamKey,
        after: int = -1,
        *,
        attached: bool = False,
    ) -> None:
        self._takeovers = takeovers
        self._log = takeovers.log
        self._live = live
        self._key = key
        self._attached = attached
        self._pace = Pace()
        #: The offset up to which everything was handed out.
        self.after = after
        #: The newest record known, once there was a read.
        self.newest: Record | None = None
        self._read_limit = PAGE_RECORDS_MAX
        self._more = False

    @property
    def ended(self) -> bool:
        """Whether the stream is closed and everything of it was handed out."""
        return self.newest is not None and self.newest.closes and self.newest.seq == self.after

    @property
    def parked(self) -> bool:
        """Whether nothing comes before somebody resumes the stream, and all else was handed out."""
        return self.newest is not None and self.newest.parked and self.newest.seq == self.after

    async def batches(self) -> AsyncGenerator[tuple[Record, ...], None]:
        """Every later record, once each and in order, as it becomes durable; then the end.

        Yields at least about once a second, an empty tuple where nothing is new, so that the caller
        can keep a connection warm or stop. Where the producer turns out to be dead another one is
        asked for, so that no one waits for ever. Raises as `Log.read` does.
        """
        with self._live.channel(self._key) as channel:
            try:
                while not self.ended:
                    if self._attached:
                        channel.attach(self.after)
                    records = await self._next(channel)
                    if not records and self._producer_died(channel):
                        # It looks again: this read may have been stale, and others notice, too.
                        await self._takeovers.settle(self._key)
                        await channel.news(DELAY_MIN_S)
                        continue
                    if records:
                        self.after = records[-1].seq
                    yield records
                    if not records and not self.ended:
                        await channel.news(DELAY_MAX_S if channel.head else self._pace.delay_s())
            finally:
                if self._attached:
                    channel.attach(None)

    async def page(self, *, limit: int, wait_s: float) -> Page:
        """For a client that polls: what is there, or what comes within `wait_s` seconds.

        Holds at most `limit` chunks, and `PAGE_CHARS_MAX` characters unless one chunk has more; no
        chunk when the wait is over, or a pause has begun. A record that shows nothing to a client
        that polls does not end the wait.
        """
        self._read_limit = limit + UNSEEN_RECORDS
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        found: list[Record] = []
        async with aclosing(self.batches()) as batches:
            async for records in batches:
                found += records
                if any(r.kind in _POLLED for r in records) or loop.time() >= end:
                    break
        if self._more and not self._known().closes:
            # Beyond what was read there may be more, and the status is that of the newest record.
            self.newest = await self._log.tail(self._key)
        cut = _fitting(found, limit)
        position = found[cut - 1].seq if cut else self.after
        return Page(tuple(found[:cut]), position, self._known(), self._poll_after_ms(position))

    def _poll_after_ms(self, position: int) -> int:
        newest = self._known()
        if newest.closes or newest.seq > position:
            return 0
        quiet_ms = self._log.now_ms() - newest.at
        return int(min(max(self._pace.gap_s * 1000, quiet_ms, POLL_MIN_MS), POLL_MAX_MS))

    async def _next(self, channel: Channel) -> tuple[Record, ...]:
        records = channel.since(self.after)
        if not records and channel.head and channel.head.seq == self.after:
            self.newest = channel.head
        elif not records:
            page = await self._log.read(self._key, self.after, limit=self._read_limit)
            records, self._more = page.records, page.more
            self.newest = page.newest or self.newest
        if records:
            self.newest = records[-1]
            self._pace.saw(records)
        return records

    def _producer_died(self, channel: Channel) -> bool:
        return not channel.producing and self._log.is_dead(self._known())

    def _known(self) -> Record:
        if self.newest is None:
            raise RuntimeError("a stream has a record from its first moment")
        return self.newest


def _fitting(records: Sequence[Record], limit: int) -> int:
    """How many records make a page: up to `limit` chunks, and what shows nothing behind them."""
    chunks = chars = 0
    for index, record in enumerate(records):
        chunks += record.kind == Kind.TEXT
        chars += len(record.text)
        if chunks > limit or (chars > PAGE_CHARS_MAX and chunks > 1):
            return index
    return len(records)
