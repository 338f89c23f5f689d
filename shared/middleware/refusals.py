"""Tells the audit what was refused to whom, and why."""

from starlette.types import ASGIApp, Receive, Scope, Send

from shared.audit.refusals import Refusals
from shared.authority import actor
from shared.errors import Forbidden, LimitExceeded, PolicyViolated

#: What is refused to somebody who is known; that something is not there, or wrong, is no refusal.
_REFUSALS = (Forbidden, LimitExceeded, PolicyViolated)


class Refused:
    """Passes everything on, and an error up. A caller is known here."""

    def __init__(self, app: ASGIApp, refusals: Refusals) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except _REFUSALS as error:
            caller = scope["state"]["caller"]
            await self._refusals.add(
                caller.identity.tenant,
                actor(caller),
                error.slug,
                str(error.extensions.get("policy") or error.extensions.get("rule", "")),
                retention_days=caller.tenant.policy.audit_retention_days,
            )
            raise
        else:
            await self._refusals.tell()
