"""The `api` function: everything that answers at once, through Mangum."""

import logging
import math
from collections.abc import Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from functions.collection import Collection
from functions.wiring import Services, app
from shared.authority import actor, may_see
from shared.dialects import native
from shared.erasure import Erasure, finish_within
from shared.erasure import encode as encode_erasure
from shared.errors import InvalidRequest, NotFound
from shared.follower import Follower
from shared.identity import ADMIN, READ, STREAM
from shared.middleware.authorization import Endpoint, caller_of
from shared.reading import Polls
from shared.records import Kind, Record, StreamKey
from shared.steering import cancel, grant, pause, resume

#: How long a request waits for its erasure.
ERASE_S = 10.0


def __getattr__(name: str) -> Any:
    # Lambda asks for `handler` during init, where its making belongs; who only wants `build`
    # (the local run, the tests) must not make a client for a region.
    if name == "handler":
        return lambda_handler(build(Services.from_env("api")))
    raise AttributeError(name)


def lambda_handler(served: ASGIApp) -> Callable[[Any, Any], Any]:
    """An app as Lambda calls it."""
    from mangum import Mangum
    from mangum.types import ASGI

    # Its lines hold paths, which name users, and the texts of exceptions. Ours tell what is needed.
    logging.getLogger("mangum").setLevel(logging.CRITICAL)
    return Mangum(cast("ASGI", served), lifespan="off")


def build(services: Services) -> ASGIApp:
    return app(endpoints(services), services)


def endpoints(services: Services) -> list[Endpoint]:
    collection = Collection(services)
    routes = _Routes(services, collection)
    return [
        Endpoint("POST", "/v1/streams", STREAM, routes.start, counted=False),
        Endpoint("GET", "/v1/streams", READ, collection.newest),
        Endpoint("GET", "/v1/streams/{stream}", READ, routes.summary),
        Endpoint("GET", "/v1/streams/{stream}/chunks", READ, routes.chunks),
        Endpoint("POST", "/v1/streams/{stream}/cancel", STREAM, routes.cancel),
        Endpoint("POST", "/v1/streams/{stream}/pause", STREAM, routes.pause),
        Endpoint("POST", "/v1/streams/{stream}/resume", STREAM, routes.resume),
        Endpoint("POST", "/v1/streams/{stream}/grant", STREAM, routes.grant),
        Endpoint("POST", "/v1/streams/{stream}/ticket", READ, routes.ticket),
        Endpoint("DELETE", "/v1/streams/{stream}", STREAM, routes.erase),
        Endpoint("DELETE", "/v1/users/{user:path}/streams", ADMIN, routes.erase_user),
        Endpoint("GET", "/v1/erasures/{erasure}", READ, routes.erasure),
        Endpoint("GET", "/v1/usage", READ, routes.usage),
        Endpoint("GET", "/v1/audit", ADMIN, routes.audit),
    ]


class _Routes:
    def __init__(self, services: Services, collection: Collection) -> None:
        self._services = services
        self._collection = collection
        self._log = services.log
        self._lifecycle = services.lifecycle
        self._takeovers = services.takeovers
        self._polls = Polls(services.audit, services.metrics)

    async def start(self, request: Request) -> Response:
        """Begin a stream that nobody waits for; `produce` does the rest."""
        if not native.prefers_async(request.headers):
            raise InvalidRequest(
                "This address answers at once: send `Prefer: respond-async` and poll, or start the "
                "stream at the streaming address.",
                field="Prefer",
            )
        return await self._collection.accept(request)

    async def summary(self, request: Request) -> Response:
        key: StreamKey = request.state.key
        summary = await self._collection.standing(key, await self._log.summary(key))
        return JSONResponse(native.encode_summary(summary))

    async def chunks(self, request: Request) -> Response:
        """The polling fallback: a page of chunks, at once or within `wait` seconds."""
        key: StreamKey = request.state.key
        caller = caller_of(request)
        after, limit, wait_s = native.decode_poll(request.query_params)
        bounds = caller.bounds
        follower = Follower(self._takeovers, self._services.live, key, after)
        page = await follower.page(limit=min(limit, bounds.page), wait_s=min(wait_s, bounds.wait_s))
        await self._polls.polled(key, caller, after, page)
        body = native.encode_page(page)
        headers = {"cache-control": "no-store", "stream-id": key.stream}
        if not body["closed"]:
            headers["retry-after"] = str(math.ceil(body["poll_after_ms"] / 1000))
        return JSONResponse(body, headers=headers)

    async def cancel(self, request: Request) -> Response:
        """Ask for a stream's end: 202 while its producer has yet to obey, 200 when it is over."""
        key: StreamKey = request.state.key
        return await self._steered(key, await cancel(self._lifecycle, key, caller_of(request)))

    async def pause(self, request: Request) -> Response:
        """Have nothing more produced until a resume, and keep what there is."""
        key: StreamKey = request.state.key
        return await self._steered(key, await pause(self._lifecycle, key, caller_of(request)))

    async def resume(self, request: Request) -> Response:
        """Let a paused stream go on, by this request's credential."""
        key: StreamKey = request.state.key
        return await self._steered(key, await resume(self._takeovers, key, caller_of(request)))

    async def grant(self, request: Request) -> Response:
        """Let a stream go on by this request's credential."""
        key: StreamKey = request.state.key
        return await self._steered(key, await grant(self._takeovers, key, caller_of(request)))

    async def _steered(self, key: StreamKey, newest: Record) -> Response:
        """What became of a control: 200 with how the stream stands now; 202 while a cancel has yet
        to be obeyed.
        """
        if newest.closes:
            return JSONResponse(native.encode_summary(await self._log.summary(key)))
        status = 202 if newest.kind == Kind.CANCEL else 200
        return JSONResponse(native.encode_control(key, newest), status_code=status)

    async def ticket(self, request: Request) -> Response:
        """A ticket that lets whoever has it follow and poll this stream for a while."""
        key: StreamKey = request.state.key
        await self._log.tail(key)
        return JSONResponse(self._collection.new_ticket(caller_of(request), key), status_code=201)

    async def erase(self, request: Request) -> Response:
        """Erase a stream: 204 when nothing is left of it, 202 while that is still being done.

        Either way nobody finds it any more. Asked again, it answers the same.
        """
        key: StreamKey = request.state.key
        who = actor(caller_of(request))
        erasures = self._services.erasures
        job = await erasures.begin(key.tenant, who, stream=key.stream)
        job = await finish_within(erasures, job, ERASE_S)
        return Response(status_code=204) if job.done_at else _erasing(job)

    async def erase_user(self, request: Request) -> Response:
        """Erase all streams that a user has begun until now: what there is time for at once, the
        rest in the background.
        """
        caller = caller_of(request)
        user, who = native.decode_user(request.path_params["user"]), actor(caller)
        erasures = self._services.erasures
        job = await erasures.begin(caller.tenant.name, who, user=user)
        return _erasing(await finish_within(erasures, job, ERASE_S))

    async def erasure(self, request: Request) -> Response:
        """How far an erasure is, for who may see what it erases."""
        caller = caller_of(request)
        identity = caller.identity
        job_id = request.path_params["erasure"][:100]
        job = await self._services.erasures.find(identity.tenant, job_id)
        theirs = job.stream is not None and may_see(caller, StreamKey(job.tenant, job.stream))
        if not (theirs or identity.user is None or ADMIN in identity.scopes):
            raise NotFound("There is no such erasure.")
        return JSONResponse(encode_erasure(job))

    async def usage(self, request: Request) -> Response:
        """What is left of each limit, and the tenant's tokens by day and month."""
        caller = caller_of(request)
        quotas, tenant = self._services.quotas, caller.tenant
        left = await quotas.used(tenant, caller.identity.user, caller.address)
        return JSONResponse(native.encode_usage(left, await quotas.history(tenant)))

    async def audit(self, request: Request) -> Response:
        """The tenant's entries by time, or those of one stream."""
        asked = native.decode_audit(request.query_params, self._log.now_ms())
        page = await self._services.audit.page(caller_of(request).tenant.name, **asked)
        entries = [entry.to_document() for entry in page.entries]
        return JSONResponse({"entries": entries, "next_page": page.next})


def _erasing(job: Erasure) -> Response:
    headers = {"location": f"/v1/erasures/{job.id}", "retry-after": "60"}
    return JSONResponse(encode_erasure(job), status_code=202, headers=headers)
