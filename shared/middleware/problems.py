"""Errors to RFC 9457 problem details, at the edge of every function."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import LimitExceeded, SluiceError
from shared.logger import log_unhandled, logger
from shared.metrics import PROBLEM, REFUSAL, SILENT, Metrics


class Problems:
    """Answers an error with a problem, unless an answer has begun: then the error goes on up."""

    def __init__(self, app: ASGIApp, metrics: Metrics = SILENT) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def tracked(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, tracked)
        except Exception as error:
            if not isinstance(error, SluiceError):
                log_unhandled(error)
            if started:
                raise
            known = error if isinstance(error, SluiceError) else SluiceError()
            if known is error and known.status >= 500:
                logger.warning("refused", extra={"type": known.slug, "detail": known.detail})
            self._tell(known, scope)
            await problem_response(known)(scope, receive, send)

    def _tell(self, error: SluiceError, scope: Scope) -> None:
        caller = scope.get("state", {}).get("caller")
        tenant = caller.identity.tenant if caller else None
        self._metrics.tell(PROBLEM, {"Problems": 1}, problem=error.slug, tenant=tenant)
        if isinstance(error, LimitExceeded):
            self._metrics.tell(REFUSAL, {"Refusals": 1}, limit=error.policy, tenant=tenant)


def problem_response(error: SluiceError) -> JSONResponse:
    return JSONResponse(
        error.problem(),
        status_code=error.status,
        headers=error.headers,
        media_type="application/problem+json",
    )
