"""The server: scenarios by the first part of a path, and what was seen of each."""

import asyncio
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from dataclasses import replace as replaced
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from shared.dialects import native
from shared.errors import (
    IdempotencyKeyReused,
    MethodNotAllowed,
    NotFound,
    SluiceError,
    Unauthenticated,
)
from tests.clients.hostile import body
from tests.clients.hostile.body import Reply
from tests.clients.hostile.language import CLEAN, Rule, parse
from tests.clients.hostile.script import Stream, plan
from tests.clients.hostile.wire import Wire

CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-headers": "*, authorization",
    "access-control-allow-methods": "*",
    "access-control-expose-headers": "*",
}
_STREAM = re.compile(r"/v1/streams/(?P<stream>[^/]+)(/(?P<what>\w+))?")
_CONTROLS = ("cancel", "pause", "resume", "grant")


@dataclass
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))


@dataclass
class Seen:
    """A request as the report tells it. `at_ms` counts from the scenario's first request."""

    method: str
    target: str
    route: str
    at_ms: int
    last_event_id: str | None
    idempotency_key: str | None
    authorization: str | None
    rule: str = ""
    status: int | None = None
    sent: int = 0
    ended: str = "under way"


@dataclass
class World:
    """A scenario that is under way: its streams and what was asked of it."""

    text: str
    began: float = field(default_factory=time.monotonic)
    streams: dict[str, Stream] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, Stream]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scenario = parse(self.text)

    def report(self) -> dict[str, Any]:
        return {
            "streams_begun": len(self.streams),
            "streams": list(self.streams),
            "text": next((stream.text for stream in self.streams.values()), None),
            "closed": all(stream.newest.closes for stream in self.streams.values()),
            "requests": [asdict(seen) for seen in self.seen],
        }

    async def carry_out(self, request: Request, path: str, rule: Rule) -> Reply:
        """What Sluice would answer. Raises `SluiceError`."""
        if not request.headers.get("authorization") and "ticket" not in request.query:
            raise Unauthenticated
        if (request.method, path) == ("POST", "/v1/streams"):
            return self._start(request, rule)
        found = _STREAM.fullmatch(path)
        stream = self._known(found["stream"] if found else "")
        what = found["what"] if found else None
        if request.method == "POST" and what in _CONTROLS:
            return self._steered(stream, stream.steer(what), rule)
        if request.method != "GET":
            raise MethodNotAllowed
        if what == "events":
            after = native.decode_follow(request.headers, request.query)
            over = stream.newest.closes and after >= stream.newest.seq
            return Reply(204) if over else body.event_stream(stream, after, rule)
        if what == "chunks":
            return await self._page(stream, request, rule)
        return body.document(native.encode_summary(stream.summary()), rule)

    def _start(self, request: Request, rule: Rule) -> Reply:
        start = native.decode_start(request.body)
        key = request.headers.get("idempotency-key", "")
        known, stream = self.keys.get(key, (request.body, None))
        if known != request.body:
            raise IdempotencyKeyReused
        if stream is None:
            if start.parent:
                self._known(start.parent).steer("cancel")
            pace_s = self.scenario.number("pace") / 1000
            stream = Stream(len(self.streams), plan(self.scenario), pace_s)
            self.streams[stream.key.stream] = stream
            if key:
                self.keys[key] = (request.body, stream)
        if not native.prefers_async(request.headers):
            return body.event_stream(stream, -1, rule)
        urls = native.urls(stream.key.stream)
        accepted = {"id": stream.key.stream, "status": native.status_of(stream.newest), **urls}
        ticket = {"ticket": "hostile", "ticket_expires_at": 10**10}
        reply = body.document(accepted | ticket, rule, 202)
        reply.headers |= {"location": stream.key.path, "stream-id": stream.key.stream}
        return reply

    def _known(self, stream: str) -> Stream:
        if stream not in self.streams:
            raise NotFound("There is no such stream.")
        return self.streams[stream]

    async def _page(self, stream: Stream, request: Request, rule: Rule) -> Reply:
        after, limit, wait_s = native.decode_poll(request.query)
        limit = min(limit, self.scenario.number("page", limit))
        page = await stream.page(body.earlier(after, rule), limit, wait_s)
        if "twice" in rule:
            page = replaced(page, records=tuple(r for r in page.records for _ in range(2)))
        shown = native.encode_page(page)
        reply = body.document(shown, rule)
        reply.headers |= {"stream-id": stream.key.stream, "cache-control": "no-store"}
        if not shown["closed"]:
            reply.headers["retry-after"] = str(math.ceil(shown["poll_after_ms"] / 1000))
        return reply

    def _steered(self, stream: Stream, newest: Any, rule: Rule) -> Reply:
        if newest.closes:
            return body.document(native.encode_summary(stream.summary()), rule)
        return body.document(native.encode_control(stream.key, newest), rule)


class Server:
    def __init__(self) -> None:
        self._worlds: dict[str, World] = {}

    def close(self) -> None:
        for world in self._worlds.values():
            for stream in world.streams.values():
                stream.stop()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request; its reply, until that ends or the client leaves."""
        tasks: list[asyncio.Task[Any]] = []
        try:
            request = await _read(reader)
            tasks.append(asyncio.create_task(self._answer(request, Wire(writer))))
            tasks.append(asyncio.create_task(reader.read()))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass  # it was no request
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: Request, wire: Wire) -> None:
        scenario, _, rest = urlsplit(request.target).path.removeprefix("/").partition("/")
        path = f"/{rest}"
        if request.method == "OPTIONS":
            await wire.send(Reply(204, dict(CORS)), CLEAN)
            return
        try:
            text = unquote(scenario)
            world = self._worlds.setdefault(text, World(text))
        except ValueError as error:
            reply = body.whole(str(error).encode(), 400, "text/plain")
            await wire.send(_open(reply), CLEAN)
            return
        if path == "/_report":
            await wire.send(_open(body.document(world.report(), CLEAN)), CLEAN)
            return
        await _answer_in(world, request, path, wire)


async def _answer_in(world: World, request: Request, path: str, wire: Wire) -> None:
    route = _route(request.method, path)
    rule = world.scenario.rule(route)
    seen = Seen(
        method=request.method,
        target=request.target.removeprefix("/").partition("/")[2],
        route=route,
        at_ms=int((time.monotonic() - world.began) * 1000),
        last_event_id=request.headers.get("last-event-id"),
        idempotency_key=request.headers.get("idempotency-key"),
        authorization=request.headers.get("authorization"),
        rule=rule.text,
    )
    world.seen.append(seen)
    try:
        if "refuse" in rule:
            await wire.reset()
            return
        reply = await _reply(world, request, path, rule)
        if "lost-reply" in rule:
            await wire.reset()
            return
        seen.status = reply.status
        await wire.send(_open(reply), rule)
    except (asyncio.CancelledError, OSError):
        wire.ended = "left"
        raise
    finally:
        seen.sent, seen.ended = wire.sent, wire.ended


async def _reply(world: World, request: Request, path: str, rule: Rule) -> Reply:
    if "status" in rule:
        reply = body.refusal(rule.number("status"))
    else:
        try:
            reply = await world.carry_out(request, path, rule)
        except SluiceError as error:
            reply = body.problem(error)
    if "portal" in rule:
        reply = body.whole(body.PORTAL, reply.status, body.TYPES["html"])
    if "type" in rule:
        reply.headers["content-type"] = body.TYPES[rule.faults["type"]]
    if "retry-after" in rule:
        reply.headers["retry-after"] = rule.faults["retry-after"]
    return reply


def _route(method: str, path: str) -> str:
    if (method, path) == ("POST", "/v1/streams"):
        return "start"
    found = _STREAM.fullmatch(path)
    return (found["what"] or "summary") if found else "other"


def _open(reply: Reply) -> Reply:
    """A reply that pages of any origin may read."""
    reply.headers |= CORS
    return reply


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    return Request(method, target, headers, await reader.readexactly(length))
