"""The `api` function: everything that answers at once, through Mangum."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from functions.wiring import Services, app, read_body, stream_key
from shared.dialects import native
from shared.errors import InvalidRequest, Unavailable
from shared.follower import Follower
from shared.records import Status, StreamKey
from shared.settings import Settings
from shared.starting import Started, cancel, check_replay, start_stream

#: Has a stream produced by somebody who does not hold the client's connection.
Launch = Callable[[StreamKey], Awaitable[None]]


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
            self._services.tenants,
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
                # A launch whose reply was lost may have happened: then its epoch has the slot.
                if (await self._log.close_abandoned(outcome.key, outcome.opened, error)).closes:
                    raise
        else:
            newest = await check_replay(self._log, outcome.key, may_run=True)
            if newest.closes:
                return _accepted(outcome.key, newest.body["status"])
        return _accepted(outcome.key)

    async def newest(self, request: Request) -> Response:
        before, limit = native.decode_list(request.query_params)
        tenant = request.state.identity.tenant
        found, more = await self._log.summaries(tenant, before=before, limit=limit)
        streams = [native.encode_summary(summary) for summary in found]
        next_page = streams[-1]["id"] if streams and more else None
        return JSONResponse({"streams": streams, "next_page": next_page})

    async def summary(self, request: Request) -> Response:
        key = stream_key(request)
        summary = await self._log.summary(key)
        if summary.status == Status.OPEN and (await self._log.settle(key)).closes:
            summary = await self._log.summary(key)
        return JSONResponse(native.encode_summary(summary))

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


def _accepted(key: StreamKey, status: str = Status.OPEN) -> Response:
    return JSONResponse(
        {"id": key.stream, "status": status, **native.urls(key.stream)},
        status_code=202,
        headers={
            "location": key.path,
            "preference-applied": "respond-async",
            "stream-id": key.stream,
        },
    )


def lambda_launch(settings: Settings) -> Launch:
    """Launches the `produce` function; Lambda keeps the event until that has run."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import Session

    client: Any = Session().create_client(
        "lambda",
        region_name=settings.region,
        config=Config(connect_timeout=1, read_timeout=5, retries={"mode": "standard"}),
    )

    async def launch(key: StreamKey) -> None:
        event = json.dumps({"tenant": key.tenant, "stream": key.stream}).encode()
        try:
            await asyncio.to_thread(
                client.invoke,
                FunctionName=settings.produce_function,
                InvocationType="Event",
                Payload=event,
            )
        except (BotoCoreError, ClientError) as error:
            raise Unavailable("The stream's producer could not be started.") from error

    return launch
