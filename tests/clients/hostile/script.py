"""A stream by a script: the records that a producer would write, and who steers it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from shared.errors import ProviderFailed
from shared.follower import Page
from shared.records import Kind, Record, StreamKey, Summary, new_stream_id
from tests.clients.hostile.language import Scenario

#: Everything that a client may break a text with.
TEXTS = (
    "## Grüße aus Zürich\r\n\r\n",
    "水門は流れを",
    "止めない。",
    "e\u0301 n\u0303 \u0928\u093f ",
    "👩‍👩‍👧‍👦🏳️‍🌈🌊",
    "\n\ndata: no event\n\nid: 7\n\n: hb\n",
    "\u2028\u2029\u0085\t\ufeff\u200b",
    '"quoted" \\ {"text": "not JSON"} </script>',
    "a long line " * 30,
    "  \n",
    "مرحبا",
    " end",
)
#: A record that shows nothing comes after this chunk, another producer after that one.
SILENT_AFTER, SEAM_AFTER = 2, 5
NOW_MS = 1_795_357_413_968

Planned = tuple[Kind, str, Mapping[str, Any]]


def plan(scenario: Scenario) -> list[Planned]:
    """All of a stream's records, in their order, without what is only known when it is written."""
    count = scenario.number("chunks", len(TEXTS))
    texts = [TEXTS[n % len(TEXTS)] for n in range(count)]
    if big := scenario.number("big-event"):
        texts.append("水" * big)
    planned: list[Planned] = [(Kind.OPENED, "", {"model": "demo"})]
    for number, text in enumerate(texts, 1):
        planned.append((Kind.TEXT, text, {}))
        if number == 1 and "expiring" in scenario.settings:
            planned.append((Kind.EXPIRING, "", {"expires_at": NOW_MS // 1000 + 30}))
        if number == scenario.number("expires"):
            planned.append((Kind.PAUSE, "", {"reason": "expired", "parked": True}))
        if number == SILENT_AFTER:
            planned.append((Kind.HEARTBEAT, "", {}))
        if number == SEAM_AFTER:
            planned.append((Kind.VACANT, "", {"reason": "lost"}))
            planned.append((Kind.EPOCH, "", {"continuation": "prompt"}))
    planned.append((Kind.CLOSED, "", _closed(scenario.settings.get("closes", "completed"))))
    return planned


def _closed(status: str) -> Mapping[str, Any]:
    failure = ProviderFailed("The model's provider cut its answer off.", code="cut", retryable=True)
    return {
        "status": status,
        "finish_reason": {"completed": "stop", "failed": "error"}.get(status, status),
        "usage": {"input_tokens": 5, "output_tokens": 50},
        "error": failure.brief() if status == "failed" else None,
    }


class Stream:
    """One stream. It has its records at once, or with `pace_s` between them."""

    def __init__(self, number: int, planned: Sequence[Planned], pace_s: float) -> None:
        identity = new_stream_id(
            NOW_MS, number.to_bytes(7, "big"), owner_tag=bytes(5), retention_days=30
        )
        self.key = StreamKey("hostile", identity)
        self.records: list[Record] = []
        self.pace_s = pace_s
        self._planned = list(planned)
        self._epoch = 1
        self._news = asyncio.Event()
        self._producing: asyncio.Task[None] | None = None
        self._append_next()
        self._produce()

    @property
    def newest(self) -> Record:
        return self.records[-1]

    @property
    def text(self) -> str:
        """The whole text, also what is not written yet."""
        planned = (text for _, text, _ in self._planned)
        return "".join((*(record.text for record in self.records), *planned))

    @property
    def _goes_on(self) -> bool:
        return bool(self._planned) and not self.newest.parked

    def summary(self) -> Summary:
        closed = self.newest.body if self.newest.closes else {}
        paused = "paused" if self.newest.parked else "open"
        return Summary(
            stream=self.key.stream,
            status=closed.get("status", paused),
            model="demo",
            created_at=NOW_MS,
            closed_at=self.newest.at if closed else None,
            finish_reason=closed.get("finish_reason"),
            usage=closed.get("usage"),
            error=closed.get("error"),
            last_seq=self.newest.seq if closed else None,
        )

    def steer(self, control: str) -> Record:
        """Cancel, pause, resume or grant, as the server does it: asked twice it changes nothing."""
        if self.newest.closes:
            return self.newest
        if control == "cancel":
            self.stop()
            self._planned = []
            self._append(Kind.CANCEL)
            self._append(Kind.CLOSED, body=_closed("cancelled"))
        elif self.newest.parked:
            if control == "resume" or (
                control == "grant" and self.newest.body["reason"] == "expired"
            ):
                self._append(Kind.GRANT, body={"expires_at": None, "vacant": True})
                self._append(Kind.EPOCH, body={"continuation": "prompt"})
                self._produce()
        elif control == "pause":
            self.stop()
            self._append(Kind.PAUSE, body={"reason": "requested", "parked": True})
        elif control == "grant":
            self._append(Kind.GRANT, body={"expires_at": None})
        return self.newest

    async def follow(self, after: int) -> AsyncIterator[Record]:
        """Every later record, to the end or to a pause."""
        while True:
            for record in self.records[after + 1 :]:
                after = record.seq
                yield record
            if after >= self.newest.seq:
                if self.newest.closes or self.newest.parked:
                    return
                await self._news.wait()

    async def page(self, after: int, limit: int, wait_s: float) -> Page:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                async for record in self.follow(after):
                    if record.kind in (Kind.TEXT, Kind.PAUSE, Kind.CLOSED):
                        break
        records = tuple(self.records[after + 1 : after + 1 + limit])
        position = records[-1].seq if records else after
        over = self.newest.closes or position < self.newest.seq
        poll_after_ms = 0 if over else max(50, int(self.pace_s * 1000))
        return Page(records, position, self.newest, poll_after_ms)

    def _append(self, kind: Kind, text: str = "", body: Mapping[str, Any] | None = None) -> None:
        self._epoch += kind == Kind.EPOCH
        at = int(time.time() * 1000)
        record = Record(len(self.records), kind, self._epoch, at, "script", text, body or {})
        self.records.append(record)
        self._news.set()
        self._news = asyncio.Event()

    def _append_next(self) -> None:
        self._append(*self._planned.pop(0))

    def _produce(self) -> None:
        if self.pace_s:
            self._producing = asyncio.create_task(self._in_time())
        while not self.pace_s and self._goes_on:
            self._append_next()

    async def _in_time(self) -> None:
        while self._goes_on:
            await asyncio.sleep(self.pace_s)
            self._append_next()

    def stop(self) -> None:
        """Have nothing more produced."""
        if self._producing:
            self._producing.cancel()
