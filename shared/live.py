"""What this process's producers have just made durable, for followers in the same process.

A follower takes what it can from here and the rest from the log, so that the client which holds a
producer's invocation is served without a single read. It is a shortcut and never a source of truth:
a record is published after its write is acknowledged, and a follower that falls behind reads the
log. A stream costs at most 1 MiB here, however many follow it.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from shared.records import Record, StreamKey

#: What is kept of a stream for its followers; beyond it the oldest records are left to the log.
RECENT_BYTES_MAX = 1024 * 1024
#: With `"backpressure": "throttle"`: how many records the producer may be ahead of its client.
THROTTLE_RECORDS = 64


class Channel:
    """A stream while this process produces or follows it."""

    def __init__(self) -> None:
        self.users = 0
        self.producing = False
        self._recent: deque[Record] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._attached: int | None = None
        self._moved = asyncio.Event()

    @property
    def head(self) -> Record | None:
        """The newest record published here; None when no producer of this process is at work."""
        return self._recent[-1] if self.producing and self._recent else None

    def publish(self, record: Record) -> None:
        """Tell the followers here of a record that is durable."""
        if self._recent and record.seq != self._recent[-1].seq + 1:
            # Another producer, after one elsewhere: what is kept must have no gap.
            self._recent.clear()
            self._bytes = 0
        self._recent.append(record)
        self._bytes += _size(record)
        while self._bytes > RECENT_BYTES_MAX and len(self._recent) > 1:
            self._bytes -= _size(self._recent.popleft())
        self.wake()

    def since(self, after: int) -> tuple[Record, ...]:
        """The published records after `after`; none where the one that follows it is not kept."""
        count = self._recent[-1].seq - after if self._recent else 0
        if not 0 < count <= len(self._recent):
            return ()
        # From the right: a follower is mostly a record behind, and a long stream keeps thousands.
        return tuple(islice(reversed(self._recent), count))[::-1]

    def forget(self) -> None:
        """Drop what is kept: the stream was erased, and its followers must ask the log."""
        self._recent.clear()
        self._bytes = 0
        self.wake()

    async def news(self, wait_s: float) -> None:
        """Return at the next `publish`, or after `wait_s` seconds."""
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            pass

    def wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def attach(self, served: int | None) -> None:
        """Note how far the client that holds the producer's invocation is; None when it left."""
        self._attached = served
        self._moved.set()

    async def room(self) -> None:
        """Wait until the attached client, where there is one, is near enough to the head."""
        while (
            self._attached is not None
            and self.head is not None
            and self.head.seq - self._attached > THROTTLE_RECORDS
        ):
            self._moved.clear()
            await self._moved.wait()


class Live:
    """The channels of a process, all used on one event loop."""

    def __init__(self) -> None:
        self._channels: dict[StreamKey, Channel] = {}

    @contextmanager
    def channel(self, key: StreamKey) -> Iterator[Channel]:
        """A stream's channel, kept while anyone uses it."""
        channel = self._channels.setdefault(key, Channel())
        channel.users += 1
        try:
            yield channel
        finally:
            channel.users -= 1
            if not channel.users:
                del self._channels[key]

    def forget(self, key: StreamKey) -> None:
        """Show nothing of a stream any more that was erased."""
        if channel := self._channels.get(key):
            channel.forget()

    @contextmanager
    def producing(self, key: StreamKey) -> Iterator[Channel]:
        """A stream's channel, for its producer."""
        with self.channel(key) as channel:
            channel.producing = True
            try:
                yield channel
            finally:
                channel.producing = False
                channel.wake()


def _size(record: Record) -> int:
    # A character takes at most four bytes in memory; the rest is the record itself.
    return 4 * len(record.text) + 200
