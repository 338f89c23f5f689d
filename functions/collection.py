"""What `/v1/streams` itself answers: starts that nobody waits for, and the list.

`api` and `stream` both serve it. An edge tells functions apart by path alone, and a start that
streams has this path, too.
"""

import asyncio
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from functions.wiring import Services, read_body
from shared.authority import Caller
from shared.dialects import native
from shared.errors import NotFound, Unavailable
from shared.identity import ADMIN, tickets
from shared.middleware.authorization import caller_of
from shared.quotas import rate_limit_headers
from shared.records import Status, StreamKey, Summary
from shared.starting import Replayed, Started
from shared.steering import check_replay


class Collection:
    """A tenant's streams."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._log = services.log
        self._lifecycle = services.lifecycle
        self._takeovers = services.takeovers

    async def accept(self, request: Request) -> Response:
        """Begin a stream that nobody waits for; `produce` does the rest."""
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
                **self.new_ticket(caller, key),
            },
            status_code=202,
            headers={
                "location": key.path,
                "preference-applied": "respond-async",
                "stream-id": key.stream,
                **rate_limit_headers(left),
            },
        )

    def new_ticket(self, caller: Caller, key: StreamKey) -> dict[str, Any]:
        """A ticket that lets whoever has it follow and poll a stream, and until when."""
        identity, tenant = caller.identity, caller.tenant
        expires_at = self._log.now_ms() // 1000 + tenant.policy.ticket_s
        if identity.expires_at is not None:
            expires_at = min(expires_at, identity.expires_at)
        ticket = tickets.issue(
            tenant.secret, identity, key.stream, purpose="read", expires_at=expires_at
        )
        return {"ticket": ticket, "ticket_expires_at": expires_at}

    async def newest(self, request: Request) -> Response:
        """The tenant's streams, the newest first."""
        before, limit = native.decode_list(request.query_params)
        identity = caller_of(request).identity
        user = None if ADMIN in identity.scopes else identity.user
        found, more = await self._log.summaries(identity.tenant, user, before=before, limit=limit)
        standing = await asyncio.gather(*(self._listed(identity.tenant, each) for each in found))
        streams = [native.encode_summary(summary) for summary in standing if summary]
        next_page = found[-1].stream if found and more else None
        return JSONResponse({"streams": streams, "next_page": next_page})

    async def _listed(self, tenant: str, summary: Summary) -> Summary | None:
        """A stream as it stands now; None where it was erased meanwhile."""
        try:
            return await self.standing(StreamKey(tenant, summary.stream), summary)
        except NotFound:
            return None

    async def standing(self, key: StreamKey, summary: Summary) -> Summary:
        """A stream as it stands now: a summary only tells that it is not over."""
        if summary.status != Status.OPEN:
            return summary
        newest = await self._takeovers.settle(key)
        if newest.closes:
            return await self._log.summary(key)
        return replace(summary, status=native.status_of(newest))
