"""The `api` function: everything that answers at once, through Mangum."""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from functions.wiring import Services, app, read_body
from shared.authority import Caller, actor, may_see
from shared.dialects import native
from shared.erasure import Erasure, finish_within
from shared.erasure import encode as encode_erasure
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.follower import Follower
from shared.identity import ADMIN, READ, STREAM, tickets
from shared.middleware.authorization import Endpoint, caller_of
from shared.quotas import rate_limit_headers
from shared.reading import Polls
from shared.records import Kind, Record, Status, StreamKey, Summary
from shared.starting import Replayed, Started
from shared.steering import cancel, check_replay, grant, pause, resume

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
    routes = _Routes(services)
    return [
        Endpoint("POST", "/v1/streams", STREAM, routes.start, counted=False),
        Endpoint("GET", "/v1/streams", READ, routes.newest),
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
    def __init__(self, services: Services) -> None:
        self._services = services
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
        raw = await read_body(request)
        caller = caller_of(request)
        outcome = await self._services.starting.start(
            caller,
            native.decode_start(raw),
            epoch=0,
            idempotency=native.decode_idempotency(request.headers, raw),
        )
        status: str = Status.OPEN
        if isinstance(outcome, Started):
            try:
                await self._services.launch(outcome.key)
            except Unavailable as error:
                # A launch whose reply was lost may have happened: then its epoch has the slot.
                newest = outcome.opened
                if (await self._lifecycle.close_abandoned(outcome.key, newest, error)).closes:
                    raise
        else:
            newest = await check_replay(self._takeovers, outcome.key, may_run=True)
            status = native.status_of(newest)
        return self._accepted(caller, outcome, status)

    def _accepted(self, caller: Caller, outcome: Started | Replayed, status: str) -> Response:
        key = outcome.key
        left = outcome.left if isinstance(outcome, Started) else ()
        return JSONResponse(
            {
                "id": key.stream,
                "status": status,
                **native.urls(key.stream),
                **self._new_ticket(caller, key),
            },
            status_code=202,
            headers={
                "location": key.path,
                "preference-applied": "respond-async",
                "stream-id": key.stream,
                **rate_limit_headers(left),
            },
        )

    async def newest(self, request: Request) -> Response:
        before, limit = native.decode_list(request.query_params)
        identity = caller_of(request).identity
        user = None if ADMIN in identity.scopes else identity.user
        found, more = await self._log.summaries(identity.tenant, user, before=before, limit=limit)
        standing = await asyncio.gather(*(self._listed(identity.tenant, each) for each in found))
        streams = [native.encode_summary(summary) for summary in standing if summary]
        next_page = found[-1].stream if found and more else None
        return JSONResponse({"streams": streams, "next_page": next_page})

    async def summary(self, request: Request) -> Response:
        key: StreamKey = request.state.key
        summary = await self._standing(key, await self._log.summary(key))
        return JSONResponse(native.encode_summary(summary))

    async def _listed(self, tenant: str, summary: Summary) -> Summary | None:
        """A stream as it stands now; None where it was erased meanwhile."""
        try:
            return await self._standing(StreamKey(tenant, summary.stream), summary)
        except NotFound:
            return None

    async def _standing(self, key: StreamKey, summary: Summary) -> Summary:
        """A stream as it stands now: a summary only tells that it is not over."""
        if summary.status != Status.OPEN:
            return summary
        newest = await self._takeovers.settle(key)
        if newest.closes:
            return await self._log.summary(key)
        return replace(summary, status=native.status_of(newest))

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
        return JSONResponse(self._new_ticket(caller_of(request), key), status_code=201)

    def _new_ticket(self, caller: Caller, key: StreamKey) -> dict[str, Any]:
        identity, tenant = caller.identity, caller.tenant
        expires_at = self._log.now_ms() // 1000 + tenant.policy.ticket_s
        if identity.expires_at is not None:
            expires_at = min(expires_at, identity.expires_at)
        ticket = tickets.issue(
            tenant.secret, identity, key.stream, purpose="read", expires_at=expires_at
        )
        return {"ticket": ticket, "ticket_expires_at": expires_at}

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
        identity = caller_of(request).identity
        job_id = request.path_params["erasure"][:100]
        job = await self._services.erasures.find(identity.tenant, job_id)
        theirs = job.stream is not None and may_see(identity, StreamKey(job.tenant, job.stream))
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
