"""The `api` function: everything that answers at once, through Mangum."""

import math
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from functions.wiring import Launch, Services, app, lambda_launch, read_body, stream_key
from shared.dialects import native
from shared.errors import InvalidRequest, Unavailable
from shared.follower import Follower, bury
from shared.records import Status, StreamKey
from shared.starting import Started, cancel, first_outcome, start_stream


def __getattr__(name: str) -> Any:
    # Lambda asks for `handler` during init, where its making belongs; who only wants `build`
    # (the local run, the tests) must not make a client for a region.
    if name == "handler":
        from mangum import Mangum
        from mangum.types import ASGI

        services = Services.from_env()
        return Mangum(
            cast("ASGI", build(services, lambda_launch(services.settings))), lifespan="off"
        )
    raise AttributeError(name)


def build(services: Services, launch: Launch) -> ASGIApp:
    routes = _Routes(services, launch)
    return app(
        [
            Route("/v1/streams", routes.start, methods=["POST"]),
            Route("/v1/streams", routes.newest, methods=["GET"]),
            Route("/v1/streams/{stream}", routes.summary, methods=["GET"]),
            Route("/v1/streams/{stream}/chunks", routes.chunks, methods=["GET"]),
            Route("/v1/streams/{stream}/cancel", routes.cancel, methods=["POST"]),
        ],
        services,
    )


class _Routes:
    def __init__(self, services: Services, launch: Launch) -> None:
        self._services = services
        self._log = services.log
        self._launch = launch

    async def start(self, request: Request) -> Response:
        """Begin a stream that nobody waits for; `produce` does the rest."""
        if not native.prefers_async(request.headers):
            raise InvalidRequest(
                "This address answers at once: send `Prefer: respond-async` and poll, or start the "
                "stream at the streaming address.",
                field="Prefer",
            )
        raw = await read_body(request)
        outcome = await start_stream(
            self._log,
            self._services.models,
            request.state.identity,
            native.decode_start(raw),
            epoch=0,
            idempotency=native.decode_idempotency(request.headers, raw),
        )
        if isinstance(outcome, Started):
            try:
                await self._launch(outcome.key)
            except Unavailable as error:
                await bury(self._log, outcome.key, outcome.opened, error)
                raise
        else:
            await first_outcome(self._log, outcome.key, or_in_flight=True)
        return _accepted(outcome.key)

    async def newest(self, request: Request) -> Response:
        before, limit = native.decode_list(request.query_params)
        tenant = request.state.identity.tenant
        # One more than is shown tells whether there is another page.
        found = await self._log.newest(tenant, before=before, limit=limit + 1)
        streams = [native.encode_summary(summary) for summary in found[:limit]]
        next_page = streams[-1]["id"] if len(found) > limit else None
        return JSONResponse({"streams": streams, "next_page": next_page})

    async def summary(self, request: Request) -> Response:
        return JSONResponse(native.encode_summary(await self._log.summary(stream_key(request))))

    async def chunks(self, request: Request) -> Response:
        """The polling fallback: a page of chunks, at once or within `wait` seconds."""
        key = stream_key(request)
        after, limit, wait_s = native.decode_poll(request.query_params)
        follower = Follower(self._log, self._services.live, key, after)
        page = native.encode_page(await follower.page(limit=limit, wait_s=wait_s))
        headers = {"cache-control": "no-store", "stream-id": key.stream}
        if not page["closed"]:
            headers["retry-after"] = str(math.ceil(page["poll_after_ms"] / 1000))
        return JSONResponse(page, headers=headers)

    async def cancel(self, request: Request) -> Response:
        """Ask for a stream's end: 202 while its producer has yet to obey, 200 when it is over."""
        key = stream_key(request)
        record = await cancel(self._log, key)
        if record.closes:
            return JSONResponse(native.encode_summary(await self._log.summary(key)))
        body = {"id": key.stream, "status": Status.OPEN, "cancelled_at_seq": record.seq}
        return JSONResponse(body, status_code=202)


def _accepted(key: StreamKey) -> Response:
    return JSONResponse(
        {"id": key.stream, "status": Status.OPEN, **native.urls(key.stream)},
        status_code=202,
        headers={
            "location": f"/v1/streams/{key.stream}",
            "preference-applied": "respond-async",
            "stream-id": key.stream,
        },
    )
