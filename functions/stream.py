"""The `stream` function: starts answers and follows them, over Server-Sent Events.

It produces what it starts, for as long as that takes: when its client leaves, the answer goes on
to its end in the log, and the client, or any other, follows it from there.
"""

import asyncio
import math
from contextlib import aclosing, suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.wiring import Services, app, invocation_deadline, read_body, stream_key
from shared.dialects import native
from shared.errors import Unavailable
from shared.follower import Follower
from shared.records import Record, StreamKey
from shared.starting import Started, check_replay, start_stream

#: How long an answer waits for its model before it begins, so that a failure can still be told by
#: its status. A client that is cut off before it knows the stream repeats its Idempotency-Key.
HOLD_S = 1.0
#: What is left of an invocation when a follower ends its response; the client connects again.
FOLLOW_MARGIN_S = 5.0


def create() -> ASGIApp:
    """The app for Lambda, made from the environment."""
    return build(Services.from_env())


def build(services: Services) -> ASGIApp:
    async def start(request: Request) -> Response:
        raw = await read_body(request)
        outcome = await start_stream(
            services.log,
            services.tenants,
            services.models,
            request.state.identity,
            native.decode_start(raw),
            epoch=1,
            idempotency=native.decode_idempotency(request.headers, raw),
        )
        if isinstance(outcome, Started):
            return await _answer(services, outcome, invocation_deadline(request))
        await check_replay(services.log, outcome.key, may_run=False)
        return await _follow(services, outcome.key, -1, invocation_deadline(request))

    async def events(request: Request) -> Response:
        key = stream_key(request)
        after = native.decode_follow(request.headers, request.query_params)
        if request.method == "HEAD":  # it comes with GET, and must not follow to the end
            await services.log.tail(key)
            return Response(headers={**native.EVENT_STREAM_HEADERS, "stream-id": key.stream})
        return await _follow(services, key, after, invocation_deadline(request))

    return app(
        [
            Route("/v1/streams", start, methods=["POST"]),
            Route("/v1/streams/{stream}/events", events, methods=["GET"]),
        ],
        services,
    )


async def _follow(
    services: Services, key: StreamKey, after: int, deadline: float | None
) -> Response:
    stream = EventStream(key, Follower(services.log, services.live, key, after), deadline=deadline)
    # 204 tells an EventSource to stay away: there is nothing after the closed record.
    return stream if await stream.begin() else Response(status_code=204)


async def _answer(services: Services, started: Started, deadline: float | None) -> Response:
    """Produce a stream and follow it. A failure before its first text is raised."""
    producer = services.producer(
        started.key, started.start, epoch=1, by=started.opened.by, deadline=deadline
    )
    production = asyncio.create_task(producer.run((started.opened,)))
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(HOLD_S):
                await producer.begun.wait()
        if producer.begun.is_set() and producer.error and not producer.written_chars:
            await production
            raise producer.error
        follower = Follower(services.log, services.live, started.key, attached=True)
        stream = EventStream(started.key, follower, deadline=deadline, production=production)
        await stream.begin()
    except BaseException:
        production.cancel()
        await asyncio.gather(production, return_exceptions=True)
        raise
    return stream


class EventStream(Response):
    """A response of Server-Sent Events: what a follower finds, with heartbeats in the silence.

    It ends with the stream, when the client leaves, or shortly before `deadline` (the event loop's
    time), and in any case not before `production`, where it has one, is done.
    """

    def __init__(
        self,
        key: StreamKey,
        follower: Follower,
        *,
        deadline: float | None,
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
        self._encoder = native.EventEncoder(key.stream)
        self._follower = follower
        self._batches = follower.batches()
        self._first: tuple[Record, ...] = ()
        self._ends_at = math.inf if deadline is None else deadline - FOLLOW_MARGIN_S
        self._production = production

    async def begin(self) -> bool:
        """Read what is there. False when the stream is closed and all of it was seen before."""
        self._first = await anext(self._batches)
        if self._first or not self._follower.ended:
            return True
        await self._batches.aclose()
        return False

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive))

        async def send_in_time(message: Message) -> None:
            # A client that does not read must not hold the invocation to its very end. That it
            # took too long is a TimeoutError, so an OSError, as is that it has left.
            async with asyncio.timeout_at(self._ends_at + FOLLOW_MARGIN_S / 2):
                await send(message)

        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            # Whatever happens, the follower is closed before the production is awaited: while its
            # client counts as attached, it holds a throttled model back.
            async with aclosing(self._batches):
                await send_in_time(start)
                await self._send_all(send_in_time, gone)
        except OSError:
            pass  # The client has left; the log is where it goes on.
        finally:
            gone.cancel()
            if self._production:
                await self._production

    async def _send_all(self, send: Send, gone: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        records = self._first
        while not gone.done() and loop.time() < self._ends_at:
            data = self._encoder.encode(records)
            if not data and loop.time() - sent_at >= native.SILENCE_S_MAX:
                data = native.HEARTBEAT
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
                sent_at = loop.time()
            try:
                records = await anext(self._batches)
            except (StopAsyncIteration, Unavailable):
                break  # the end; or the log cannot be read just now, and the client comes again
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
