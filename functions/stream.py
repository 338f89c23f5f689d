"""The `stream` function: starts answers and follows them, over Server-Sent Events.

It produces what it starts, for as long as that takes: when its client leaves, the answer goes on
to its end in the log, and the client, or any other, follows it from there.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.collection import Collection
from functions.wiring import Services, app, invocation_deadline, read_body
from shared.audit import TENANT_CHAIN, Chain, Event
from shared.authority import actor
from shared.dialects import native
from shared.errors import Forbidden, NotFound, SluiceError, Unavailable
from shared.export import stream_document, user_document
from shared.follower import Follower
from shared.identity import ADMIN, READ, STREAM
from shared.identity.keys import Keys
from shared.metrics import CONNECTION, REFUSAL
from shared.middleware.authorization import Endpoint, caller_of
from shared.quotas import rate_limit_headers
from shared.reading import note_reading
from shared.reception import Reception
from shared.records import Record, StreamKey
from shared.seats import RENEW_S, Seat
from shared.starting import Started
from shared.steering import check_replay

#: How long an answer waits for its model before it begins, so that a failure can still be told by
#: its status. A client that is cut off before it knows the stream repeats its Idempotency-Key.
HOLD_S = 1.0
#: What is left of an invocation when a follower ends its response, and the client connects again:
#: enough for what a producer that hands over has written last to be sent before.
FOLLOW_MARGIN_S = 15.0
#: When a client comes again that found too many others.
FULL_RETRY_MS = 5000
#: When a client comes again to a stream that is paused.
PARKED_RETRY_MS = 15_000


def create() -> ASGIApp:
    """The app for Lambda, made from the environment."""
    return build(Services.from_env("stream"))


def build(services: Services) -> ASGIApp:
    return app(endpoints(services), services)


def endpoints(services: Services) -> list[Endpoint]:
    collection = Collection(services)

    async def start(request: Request) -> Response:
        if native.prefers_async(request.headers):
            return await collection.accept(request)
        raw = await read_body(request)
        outcome = await services.starting.start(
            caller_of(request),
            native.decode_start(raw),
            epoch=1,
            idempotency=native.decode_idempotency(request.headers, raw),
        )
        if isinstance(outcome, Started):
            return await _answer(services, request, outcome)
        await check_replay(services.takeovers, outcome.key, may_run=False)
        return await _follow(services, request, outcome.key, -1)

    async def events(request: Request) -> Response:
        key: StreamKey = request.state.key
        after = native.decode_follow(request.headers, request.query_params)
        if request.method == "HEAD":  # it comes with GET, and must not follow to the end
            await services.log.tail(key)
            return Response(headers={**native.EVENT_STREAM_HEADERS, "stream-id": key.stream})
        return await _follow(services, request, key, after)

    async def export(request: Request) -> Response:
        key: StreamKey = request.state.key
        if caller_of(request).identity.stream is not None:
            raise Forbidden("A ticket lets its holder follow a stream, and not export it.")
        await services.log.tail(key)
        document = stream_document(services.log, services.audit, key)
        return await _export(services, request, document, Chain.of(key), key.stream)

    async def export_user(request: Request) -> Response:
        user = native.decode_user(request.path_params["user"])
        tenant = caller_of(request).tenant.name
        keys = Keys(services.lifecycle.store)
        document = user_document(services.log, services.audit, keys, tenant, user)
        about = {"user": user}
        return await _export(services, request, document, Chain(tenant, TENANT_CHAIN), user, about)

    return [
        Endpoint("POST", "/v1/streams", STREAM, start, counted=False),
        Endpoint("GET", "/v1/streams", READ, collection.newest),
        # An EventSource takes a 429 for good: who follows is bounded by seats.
        Endpoint("GET", "/v1/streams/{stream}/events", READ, events, counted=False),
        Endpoint("GET", "/v1/streams/{stream}/export", READ, export),
        Endpoint("GET", "/v1/users/{user:path}/export", ADMIN, export_user),
    ]


async def _export(
    services: Services,
    request: Request,
    document: AsyncGenerator[bytes, None],
    chain: Chain,
    name: str,
    about: Mapping[str, str] | None = None,
) -> Response:
    """One JSON document, written as it is read. That it was given out is in the audit before."""
    headers = {
        "cache-control": "no-store",
        "content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}.json",
    }
    if request.method == "HEAD":  # it comes with GET, and gives nothing out
        return Response(media_type="application/json", headers=headers)
    caller = caller_of(request)
    entry = services.audit.entry(
        chain,
        Event.EXPORTED,
        actor(caller),
        details=about,
        retention_days=caller.tenant.policy.audit_retention_days,
    )
    await services.audit.append(entry)
    return Document(request, document, headers)


async def _follow(services: Services, request: Request, key: StreamKey, after: int) -> Response:
    follower = Follower(services.takeovers, services.live, key, after)
    stream = EventStream(services, request, key, follower)
    if not await stream.take_seat():
        services.metrics.tell(REFUSAL, {"Refusals": 1}, limit="followers", **key.names)
        return _full(key, after)
    try:
        if await stream.begin():
            return stream
    except BaseException:
        await stream.leave_seat()
        raise
    await stream.leave_seat()
    # 204 tells an EventSource to stay away: there is nothing after the closed record.
    return Response(status_code=204)


def _full(key: StreamKey, after: int) -> Response:
    """Too many follow already: an EventSource takes any error for good, so it is told to wait."""
    return Response(
        native.EventEncoder(key.stream).reconnect(after, retry_ms=FULL_RETRY_MS),
        headers={**native.EVENT_STREAM_HEADERS, "stream-id": key.stream},
    )


async def _answer(services: Services, request: Request, started: Started) -> Response:
    """Produce a stream and follow it. A failure before its first text is raised."""
    key, opened = started.key, started.opened
    deadline = invocation_deadline(request)
    try:
        producer = await services.producer(key, (opened,), epoch=1, by=opened.by, deadline=deadline)
    except SluiceError as error:
        await services.lifecycle.close_abandoned(key, opened, error)
        raise
    production = asyncio.create_task(producer.run((opened,)))
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(HOLD_S):
                await producer.begun.wait()
        if producer.begun.is_set() and producer.error and not producer.written_chars:
            await production
            raise producer.error
        follower = Follower(services.takeovers, services.live, key, attached=True)
        stream = EventStream(services, request, key, follower, production=production)
        stream.headers.update(rate_limit_headers(started.left))
        await stream.begin()
    except BaseException:
        production.cancel()
        await asyncio.gather(production, return_exceptions=True)
        raise
    return stream


def _in_time(request: Request, send: Send) -> Send:
    """`send` to a client that must not hold the invocation, least of all to its very end.

    That it takes nothing is a TimeoutError, so an OSError, as is that it has left.
    """
    loop, idle_s = asyncio.get_running_loop(), caller_of(request).bounds.idle_s
    deadline = invocation_deadline(request)
    gives_up_at = math.inf if deadline is None else deadline - FOLLOW_MARGIN_S / 2

    async def send_in_time(message: Message) -> None:
        async with asyncio.timeout_at(min(loop.time() + idle_s, gives_up_at)):
            await send(message)

    return send_in_time


class Document(Response):
    """A response of JSON, whose pieces are sent as they are read, for as long as they are taken."""

    def __init__(
        self,
        request: Request,
        pieces: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(media_type="application/json", headers=headers)
        del self.headers["content-length"]
        self._request = request
        self._pieces = pieces

    async def __call__(self, _: Scope, _receive: Receive, send: Send) -> None:
        send = _in_time(self._request, send)
        with suppress(OSError):  # one that broke off is no JSON
            async with aclosing(self._pieces) as pieces:
                headers = self.raw_headers
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body"})


class EventStream(Response):
    """A response of Server-Sent Events: what a follower finds, with heartbeats in the silence.

    It ends with the stream, when its client leaves or takes nothing any more, when what the client
    showed is no longer good, and in any case after the time that its connection may last, or
    shortly before the invocation ends: then with a hint to connect again. Where it has a
    `production` it does not end before that.
    """

    def __init__(
        self,
        services: Services,
        request: Request,
        key: StreamKey,
        follower: Follower,
        *,
        production: asyncio.Task[None] | None = None,
    ) -> None:
        super().__init__(
            headers={
                **native.EVENT_STREAM_HEADERS,
                "stream-id": key.stream,
                "location": f"{key.path}/events",
            }
        )
        del self.headers["content-length"]
        self._services = services
        self._request = request
        self._key = key
        self._caller = caller_of(request)
        self._encoder = native.EventEncoder(key.stream)
        self._follower = follower
        self._from = follower.after
        self._batches = follower.batches()
        self._first: tuple[Record, ...] = ()
        self._production = production
        self._seat: Seat | None = None
        self._renew_at = 0.0
        now = asyncio.get_running_loop().time()
        self._reception = Reception(services.log, follower.after)
        deadline = invocation_deadline(request)
        end = math.inf if deadline is None else deadline - FOLLOW_MARGIN_S
        self._ends_at = min(end, now + self._caller.bounds.connection_s)

    async def begin(self) -> bool:
        """Read what is there. False when the stream is closed and all of it was seen before."""
        self._first = await anext(self._batches)
        if self._first or not self._follower.ended:
            return True
        await self._batches.aclose()
        return False

    async def take_seat(self) -> bool:
        """Whether there is room for another follower. Who takes a seat has to leave it."""
        rows = self._caller.bounds.followers
        if not rows:
            return True
        try:
            self._seat = await self._services.seats.take(self._key, rows)
        except Unavailable:
            return True  # it bounds the cost of readers, and must not keep them from reading
        if self._seat is None:
            return False
        self._renew_at = asyncio.get_running_loop().time() + RENEW_S
        return True

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive))
        send = _in_time(self._request, send)
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        left = False
        try:
            # Whatever happens, the follower is closed before the production is awaited: while its
            # client counts as attached, it holds a throttled model back.
            async with aclosing(self._batches):
                await send(start)
                await self._send_all(send, gone)
        except OSError:
            left = True  # The client; the log is where it goes on.
        except asyncio.CancelledError:
            if self._production:
                self._production.cancel()  # we are told to stop: it hands over
            raise
        finally:
            self._reception.over(left=left or gone.done(), ended=self._follower.ended)
            gone.cancel()
            try:
                if self._production:
                    await self._production
            finally:
                await self._leave()

    async def _send_all(self, send: Send, gone: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        records = self._first
        while not gone.done():
            data = self._encoder.encode(records)
            if not data and loop.time() - sent_at >= native.SILENCE_S_MAX:
                data = native.HEARTBEAT
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
                sent_at = loop.time()
                self._reception.sent(records)
            try:
                if retry_ms := await self._over():
                    data = self._encoder.reconnect(self._follower.after, retry_ms=retry_ms)
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                    break
                records = await anext(self._batches)
            except (StopAsyncIteration, NotFound, Unavailable):
                # The end; or it was erased; or it cannot be read just now: the client comes again.
                break
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _over(self) -> int:
        """In how many ms the client had better come again: where the connection has had its time or
        has lost its seat, its client's credential is no longer good, or the stream is paused until
        somebody resumes it. 0 where the connection goes on.
        """
        if self._follower.ended:
            return 0
        if self._follower.parked:
            return PARKED_RETRY_MS  # to wait here would be billed, for as long as it is paused
        if asyncio.get_running_loop().time() >= self._ends_at or not await self._keep_seat():
            return native.RETRY_MS
        if self._production and not self._production.done():
            return 0  # who holds the producer's invocation is told by the log: it is paused
        ended = await self._services.authority.ended(self._caller.identity)
        return native.RETRY_MS if ended else 0

    async def _keep_seat(self) -> bool:
        """Whether the seat is still ours."""
        now = asyncio.get_running_loop().time()
        if self._seat is None or now < self._renew_at:
            return True
        self._renew_at = now + RENEW_S
        try:
            return await self._seat.renew()
        except Unavailable:
            return True  # as where one is taken

    async def leave_seat(self) -> None:
        if self._seat:
            await self._seat.leave()

    async def _leave(self) -> None:
        """Give the seat back, and tell the audit from where to where this connection went."""
        await self.leave_seat()
        metrics, figures = self._services.metrics, self._reception.figures()
        metrics.tell(CONNECTION, figures, **self._key.names)
        ended, attached = self._follower.ended, self._production is not None
        if ended and attached:
            return  # the stream's own first and last entries tell it
        event = Event.INTERRUPTED if attached else Event.FOLLOWED
        await note_reading(
            self._services.audit, self._key, self._caller, event, self._from, self._follower.after
        )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
