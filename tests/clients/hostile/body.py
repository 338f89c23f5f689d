"""The bodies of responses, with what a rule makes of them before they travel."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from shared.dialects import native
from shared.errors import (
    CredentialEnded,
    IdempotencyInFlight,
    LimitExceeded,
    NotFound,
    SluiceError,
    Unavailable,
)
from shared.records import Record, dump
from tests.clients.hostile.language import Rule
from tests.clients.hostile.script import Stream

#: When a client comes again to a stream that is paused; the server says 15 s.
PARKED_RETRY_MS = 100
FUTURE = {"from_the_future": {"nested": [1, None, "水"]}}
PORTAL = b"<!doctype html><title>Log in</title><p>Please log in to use this network."
TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "text": "text/plain",
    "none": "",
}
GATEWAY = b"<html><head><title>%d</title></head><body><center>nginx</center></body></html>"

_PROBLEMS: dict[int, SluiceError] = {
    401: CredentialEnded("expired"),
    404: NotFound("There is no such stream."),
    409: IdempotencyInFlight(),
    429: LimitExceeded("requests", limit=10, window_s=1, retry_after_s=1),
    503: Unavailable(),
}


@dataclass
class Reply:
    """A response. `length` is that of its body, None where it is not known from the start."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: AsyncIterator[bytes] | None = None
    length: int | None = 0


def document(value: Any, rule: Rule, status: int = 200) -> Reply:
    if "future-fields" in rule:
        value = {**value, **FUTURE}
    return whole(dump(value).encode(), status, "application/json")


def problem(error: SluiceError) -> Reply:
    body = dump(error.problem()).encode()
    reply = whole(body, error.status, "application/problem+json")
    reply.headers |= {name.lower(): value for name, value in error.headers.items()}
    return reply


def refusal(status: int) -> Reply:
    """This status, by Sluice where it has it, else by a gateway in front of it."""
    if status in _PROBLEMS:
        return problem(_PROBLEMS[status])
    return whole(GATEWAY % status, status, "text/html") if status >= 300 else Reply(status)


def whole(data: bytes, status: int, kind: str) -> Reply:
    async def body() -> AsyncIterator[bytes]:
        yield data

    return Reply(status, {"content-type": kind}, body(), len(data))


def event_stream(stream: Stream, after: int, rule: Rule) -> Reply:
    headers = {
        **native.EVENT_STREAM_HEADERS,
        "stream-id": stream.key.stream,
        "location": f"{stream.key.path}/events",
    }
    return Reply(200, headers, _framed(_events(stream, after, rule), rule), None)


async def _events(stream: Stream, after: int, rule: Rule) -> AsyncIterator[bytes]:
    encoder = native.EventEncoder(stream.key.stream)
    sent = 0
    async for record in stream.follow(earlier(after, rule)):
        if record.closes and "no-end" in rule:
            async for heartbeat in _heartbeats(rule.number("no-end", 100)):
                yield heartbeat
        for _ in range(2 if "twice" in rule else 1):
            yield _shaped(encoder.encode([record]), record, rule)
        after, sent = record.seq, sent + 1
        if sent == rule.number("reconnect"):
            yield encoder.reconnect(after, retry_ms=PARKED_RETRY_MS)
            return
    if not stream.newest.closes:
        yield encoder.reconnect(after, retry_ms=PARKED_RETRY_MS)


def earlier(after: int, rule: Rule) -> int:
    return max(after - rule.number("duplicate"), -1)


async def _heartbeats(every_ms: int) -> AsyncIterator[bytes]:
    while True:
        yield native.HEARTBEAT
        await asyncio.sleep(every_ms / 1000)


def _shaped(event: bytes, record: Record, rule: Rule) -> bytes:
    """An event with what comes before it and within it."""
    if "future-fields" in rule and event:
        more = json.dumps(FUTURE)[1:-1].encode()
        event = b"priority: u=1\nfuture\n" + event.replace(b"data: {", b"data: {" + more + b", ", 1)
    if "unknown-event" in rule:
        with_id = b"id: %d\n" % record.seq if not event else b""
        event = with_id + b"event: surprise\ndata: not JSON\ndata: at all\n\n" + event
    return b": flood\n" * (rule.number("comment-flood", 1000) * ("comment-flood" in rule)) + event


async def _framed(events: AsyncIterator[bytes], rule: Rule) -> AsyncIterator[bytes]:
    """The events with the line ends of another server, and a mark in front."""
    line_end = b"\r\n" if "crlf" in rule else b"\r" if "cr" in rule else b"\n"
    if "bom" in rule:
        yield b"\xef\xbb\xbf"
    async for event in events:
        yield event.replace(b"\n", line_end)
